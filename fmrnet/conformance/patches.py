"""What must hold of cutting a picture into patches and of laying them back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from .kernel import Kernel
from .oracles import ORACLES
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, same
from .strategies import fill, laid_out, layouts, seeds
from .tolerances import assert_close

__all__ = ["PROPERTIES"]


def _cut(kernel: Kernel, data: DataObject) -> Arguments:
    """A picture to cut: sizes at which the last patch lies flush with the border, and others."""
    slices = "size" in kernel.defaults
    size = data.draw(st.sampled_from(kernel.values("size", range(1, 10)) if slices else range(1, 10)))
    steps = kernel.values("stride", range(1, size + 1)) if slices else range(1, size + 1)
    stride = data.draw(st.sampled_from([step for step in steps if step <= size]))
    height, width = (size + data.draw(st.integers(0, 12)) for _ in range(2))
    image = kernel.tensor(fill("normal", (data.draw(st.integers(1, 3)), height, width), data.draw(seeds)))
    return {"image": laid_out(image, data.draw(layouts)), "size": size, "stride": stride}


def slice_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Patches and origins are the oracle's, to the bit: the last patch of each axis lies flush with the border."""
    arguments = _cut(kernel, data)
    patches = kernel(**arguments)
    for name, expected in ORACLES[kernel.name](**arguments).items():
        same(patches[name], expected, name)


def _to_stitch(kernel: Kernel, data: DataObject) -> Arguments:
    """Patches that overlap and differ, at the origins of a cut."""
    cut = _cut(kernel, data)
    right = ORACLES["slice_patches"](**cut)
    altered = kernel.tensor(fill("normal", right["patches"].shape, data.draw(seeds)))
    origins = kernel.tensor(right["origins"]).long()
    return {
        "patches": laid_out(altered, data.draw(layouts)),
        "origins": origins,
        "shape": tuple(cut["image"].shape[1:]),
    }


def stitch_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Where patches overlap, the picture is their mean weighted by a triangle, as the oracle's."""
    agree_with_oracle(kernel, _to_stitch(kernel, data))


def stitching_gives_the_picture_back(kernel: Kernel, data: DataObject) -> None:
    """Patches of one picture give that picture."""
    cut = _cut(kernel, data)
    made = ORACLES["slice_patches"](**cut)
    picture = kernel(
        patches=kernel.tensor(made["patches"]),
        origins=kernel.tensor(made["origins"]).long(),
        shape=tuple(cut["image"].shape[1:]),
    )["picture"]
    right = cut["image"].double().cpu().numpy()
    assert_close(picture, right, dtype=kernel.dtype, name="picture")


def slice_gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradient to a pixel is the sum of those to its copies."""
    agree_in_gradients(kernel, _cut(kernel, data), ["image"])


def stitch_gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64."""
    agree_in_gradients(kernel, _to_stitch(kernel, data), ["patches"])


FULL = ("float64", "float32")
PROPERTIES = [
    Property("slice_patches", slice_matches_the_oracle, 60),
    Property("slice_patches", slice_gradients_agree, 10, True, FULL),
    Property("stitch_patches", stitch_matches_the_oracle, 60),
    Property("stitch_patches", stitching_gives_the_picture_back, 30, dtypes=FULL),
    Property("stitch_patches", stitch_gradients_agree, 10, True, FULL),
]
