"""What every oracle function asks of its inputs, said in one line when it is not so."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SLACK = 1e-6  # pictures may leave [0, 1] by this much: what rounding in float32 does


def numbers(name: str, value: npt.ArrayLike, shape: str) -> Array:
    """Cast `value` to float64 and check it against a shape such as "(C, H, W)".

    Raises ValueError where the number of axes differs, an axis is empty or has not the size that `shape` has a
    number for, or a value is NaN or infinite.
    """
    array = np.asarray(value, dtype=np.float64)
    axes = [axis.strip() for axis in shape.strip("()").split(",") if axis.strip()]
    if array.ndim != len(axes):
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}, {len(axes)} axes")
    if any(axis.isdecimal() and size != int(axis) for axis, size in zip(axes, array.shape, strict=True)):
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty, shape {array.shape}; expected {shape} with at least one value")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; expected finite ones only")
    return array


def picture(name: str, value: npt.ArrayLike) -> Array:
    """Cast a picture (H, W, C) to float64 and check that its values lie in [0, 1]."""
    if np.ndim(value) == 2:
        raise ValueError(f"{name} has shape {np.shape(value)}; expected (H, W, C): for grey, add [..., None]")
    array = numbers(name, value, "(H, W, C)")
    low, high = float(array.min()), float(array.max())
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(f"{name} has values from {low:g} to {high:g}; expected [0, 1]: divide uint8 by 255")
    return array


def same_shape(name: str, array: Array, other_name: str, other: Array) -> None:
    """Raise ValueError unless the two arrays have one shape."""
    if array.shape != other.shape:
        raise ValueError(
            f"{name} has shape {array.shape} but {other_name} has {other.shape}; expected one shape"
        )


def fraction(name: str, value: float) -> float:
    """Check a scalar in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; expected a number in [0, 1]")
    return float(value)


def two_pictures(
    image: npt.ArrayLike, other: npt.ArrayLike, mean: npt.ArrayLike, std: npt.ArrayLike
) -> tuple[Array, Array, Array, Array]:
    """Check two pictures of one shape (H, W, C), and the texture's mean and (positive) deviation (C,)."""
    I, R = picture("image", image), picture("background", other)
    same_shape("image", I, "background", R)
    m, s = numbers("mean", mean, "(C,)"), numbers("std", std, "(C,)")
    if m.shape != I.shape[2:] or s.shape != I.shape[2:] or s.min() <= 0:
        raise ValueError(f"mean {m} and std {s}; expected {I.shape[2]} of each, one a channel, std positive")
    return I, R, m, s
