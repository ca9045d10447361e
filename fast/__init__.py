"""The functions of `fmrnet.reference` on torch tensors: eager, numba (CPU) and Triton (GPU)."""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError(
        "fmrnet.fast needs torch, which is not installed; run pip install 'fmrnet[train]'", name="torch"
    )

from . import _fork as _fork
from ._dispatch import BACKENDS, BackendUnavailable
from .fusion import anomaly_map, gms, modality_maps, residual, ssim
from .learned_fusion import fusion_inputs, without_light
from .memory import address, nearest_distance, recall
from .patches import slice_patches, stitch_patches
from .synthesis import blend, support, synthesize
from .textons import rearrange_textons

__all__ = [
    "BACKENDS",
    "BackendUnavailable",
    "address",
    "anomaly_map",
    "blend",
    "fusion_inputs",
    "gms",
    "modality_maps",
    "nearest_distance",
    "rearrange_textons",
    "recall",
    "residual",
    "slice_patches",
    "ssim",
    "stitch_patches",
    "support",
    "synthesize",
    "without_light",
]
