"""The oracle of every fast function, called with that function's own arguments: batches of tensors, by name.

Each takes the arguments of `fmrnet.fast.<name>` and returns what the reference makes of them, picture by picture and
in float64, under the names that the results have in a report.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fmrnet import reference

__all__ = ["ORACLES"]

Array = npt.NDArray[np.float64]
Results = dict[str, Array]


def _array(value: Any) -> Any:
    """A tensor as float64 on the CPU; anything else as it is."""
    return value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else value


def _each(oracle: Callable[..., Any], shape: Sequence[int], *batches: torch.Tensor) -> Array:
    """The oracle on the items of batches, stacked; of `shape` where there are none."""
    made = [oracle(*items) for items in zip(*map(_array, batches))]
    return np.stack(made) if made else np.zeros(tuple(shape))


def _last(picture: Array) -> Array:
    """(C, H, W) -> (H, W, C), as the oracle takes pictures."""
    return picture.transpose(1, 2, 0)


def _first(picture: Array) -> Array:
    """(H, W, C) -> (C, H, W)."""
    return picture.transpose(2, 0, 1)


def _rearrange_textons(skip: torch.Tensor, memory_features: torch.Tensor, **options: Any) -> Results:
    options = {name: _array(value) for name, value in options.items()}

    def one(s: Array, f: Array) -> Array:
        return reference.textons.rearrange_textons(s, f, **options)

    return {"G": _each(one, skip.shape, skip, memory_features)}


def _nearest_distance(z: torch.Tensor, memory: torch.Tensor) -> Results:
    entries = _array(memory)
    found = [reference.memory.nearest_distance(row, entries) for row in _array(z)]
    return {
        "distance": np.array([distance for distance, _ in found]),
        "index": np.array([float(index) for _, index in found]),
    }


def _address(z: torch.Tensor, **layers: torch.Tensor) -> Results:
    weights = {name: _array(value) for name, value in layers.items()}
    return {"Q": _each(lambda row: reference.memory.address(row, **weights), (0, len(layers["b2"])), z)}


def _recall(query: torch.Tensor, memory: torch.Tensor) -> Results:
    entries = _array(memory)
    return {"z_hat": _each(lambda row: reference.memory.recall(row, entries), (0, entries.shape[1]), query)}


def _slice_patches(image: torch.Tensor, size: int = 64, stride: int = 64) -> Results:
    cut, origins = reference.patches.slice_patches(_last(_array(image)), size, stride)
    return {"patches": cut.transpose(0, 3, 1, 2), "origins": origins.astype(np.float64)}


def _stitch_patches(patches: torch.Tensor, origins: torch.Tensor, shape: Sequence[int]) -> Results:
    cut, corners = _array(patches).transpose(0, 2, 3, 1), origins.cpu().numpy()
    return {"picture": _first(reference.patches.stitch_patches(cut, corners, shape))}


def _gms(image: torch.Tensor, reconstruction: torch.Tensor, **options: Any) -> Results:
    return {"map": _map(reference.fusion.gms, image, reconstruction, options)}


def _ssim(image: torch.Tensor, reconstruction: torch.Tensor, **options: Any) -> Results:
    return {"map": _map(reference.fusion.ssim, image, reconstruction, options)}


def _residual(image: torch.Tensor, reconstruction: torch.Tensor) -> Results:
    return {"map": _map(reference.fusion.residual, image, reconstruction, {})}


def _modality_maps(image: torch.Tensor, reconstruction: torch.Tensor, **options: Any) -> Results:
    names = options.get("modalities", reference.fusion.MODALITIES)

    def named(name: str) -> Callable[..., Array]:
        return lambda x, y, **o: reference.fusion.modality_maps(x, y, **o)[name]

    return {name: _map(named(name), image, reconstruction, options) for name in names}


def _anomaly_map(
    image: torch.Tensor, reconstruction: torch.Tensor, *, return_modalities: bool = False, **options: Any
) -> Results:
    fused = _map(reference.fusion.anomaly_map, image, reconstruction, options)
    return {"A": fused} | (_modality_maps(image, reconstruction, **options) if return_modalities else {})


def _map(
    oracle: Callable[..., Any], image: torch.Tensor, reconstruction: torch.Tensor, options: dict[str, Any]
) -> Array:
    shape = (0, *image.shape[2:])
    return _each(lambda x, y: oracle(_last(x), _last(y), **options), shape, image, reconstruction)


def _without_light(image: torch.Tensor, background: torch.Tensor, std: torch.Tensor) -> Results:
    def one(x: Array, y: Array) -> Array:
        return _first(reference.learned_fusion.without_light(_last(x), _last(y), _array(std)))

    return {"unlit": _each(one, image.shape, image, background)}


def _fusion_inputs(
    image: torch.Tensor, background: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> Results:
    batch, channels, *sides = image.shape
    inputs, energy = np.zeros((batch, 4 * channels + 3, *sides)), np.zeros((batch, *sides))
    for b, (x, y) in enumerate(zip(_array(image), _array(background))):
        found = reference.learned_fusion.fusion_inputs(_last(x), _last(y), _array(mean), _array(std))
        inputs[b], energy[b] = found
    return {"inputs": inputs, "energy": energy}


def _support(shape: Sequence[int], **drawn: torch.Tensor) -> Results:
    made = [reference.synthesis.support(shape, **one) for one in _singles(drawn)]
    return {"S": np.stack(made) if made else np.zeros((0, *shape))}


def _blend(image: torch.Tensor, anomaly: torch.Tensor, mask: torch.Tensor, opacity: torch.Tensor) -> Results:
    def one(picture: Array, other: Array, place: Array, share: Array) -> Array:
        where = place[0] if place.size > 1 else place.item()
        return _first(reference.synthesis.blend(_last(picture), _last(other), where, share.item()))

    return {"I_s": _each(one, image.shape, image, anomaly, mask, opacity)}


def _synthesize(image: torch.Tensor, source: torch.Tensor, **drawn: torch.Tensor) -> Results:
    results, supports = np.zeros(image.shape), np.zeros((len(image), *image.shape[2:]))
    for b, one in enumerate(_singles({"image": image, "source": source} | drawn)):
        pictures = _last(one.pop("image")), _last(one.pop("source"))
        made, supports[b] = reference.synthesis.synthesize(*pictures, **one)
        results[b] = _first(made)
    return {"I_s": results, "S": supports}


def _singles(batch: dict[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """The parameters of each picture of a batch, numbers as numbers."""
    arrays = {name: _array(value) for name, value in batch.items()}
    for items in zip(*arrays.values()):
        yield {name: item if item.ndim else item.item() for name, item in zip(arrays, items)}


ORACLES: dict[str, Callable[..., Results]] = {
    "address": _address,
    "anomaly_map": _anomaly_map,
    "blend": _blend,
    "fusion_inputs": _fusion_inputs,
    "gms": _gms,
    "modality_maps": _modality_maps,
    "nearest_distance": _nearest_distance,
    "rearrange_textons": _rearrange_textons,
    "recall": _recall,
    "residual": _residual,
    "slice_patches": _slice_patches,
    "ssim": _ssim,
    "stitch_patches": _stitch_patches,
    "support": _support,
    "synthesize": _synthesize,
    "without_light": _without_light,
}
