"""FMR-Net: learns a textured surface from good pictures alone and finds the defects on it.

>>> import fmrnet
>>> fmrnet.train("good/", out="carpet.fmr")  # doctest: +SKIP
>>> inspector = fmrnet.load("carpet.fmr")  # doctest: +SKIP
>>> inspector.inspect("panel.png").defective  # doctest: +SKIP
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmrnet.config import Config, preset
    from fmrnet.errors import FmrnetError
    from fmrnet.inspection.inspector import Inspector, Result, load
    from fmrnet.learning.training import train

__all__ = ["Config", "FmrnetError", "Inspector", "Result", "load", "preset", "train"]

_HOMES = {  # imported on first use, so that `import fmrnet` does not wait for torch
    "Config": "config",
    "preset": "config",
    "FmrnetError": "errors",
    "Inspector": "inspection.inspector",
    "Result": "inspection.inspector",
    "load": "inspection.inspector",
    "train": "learning.training",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read from the installed package, which takes longer than all else here
        from importlib.metadata import version

        return version("fmrnet")
    if name not in _HOMES:
        raise AttributeError(f"module 'fmrnet' has no attribute {name!r}")
    try:
        module = import_module(f"fmrnet.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        from fmrnet.extras import explained

        raise explained(error) from None
    return getattr(module, name)
