"""Good pictures and natural pictures in memory, and random crops of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmrnet.errors import DatasetError, PictureError
from fmrnet.inspection.region import Region
from fmrnet.learning.oddities import check_oddities
from fmrnet.listing import GOOD_FOLDERS, list_pictures
from fmrnet.pictures import read_picture, to_channels

__all__ = [
    "GoodPool",
    "PicturePool",
    "default_natural_pictures",
    "good_files",
    "hold_out",
    "hold_out_names",
    "load_good_pictures",
    "load_natural_pictures",
    "step_generator",
]

Stored = NDArray[np.uint16]  # pictures in memory: half of float32, and lossless for 8 and 16 bit
Place = tuple[int, int, int]  # which picture, and the row and column of a crop's upper left pixel
_SCALE = 65535
RARITY_STEP = 16  # pixels between the places where a texture's rarity is taken


def step_generator(seed: int, phase: int, step: int) -> torch.Generator:
    """What a training step draws from: a generator of its own, fixed by seed, phase and step, none below 0.

    The three are mixed, for of a seed torch's generator takes no more than the lowest 32 bits.
    """
    (mixed,) = np.random.SeedSequence((seed, phase, step)).generate_state(1)
    return torch.Generator().manual_seed(int(mixed))


class PicturePool:
    """Pictures of one channel count and any size, to crop squares from.

    Parameters
    ----------
    pictures : sequence of (H, W, C) float arrays in [0, 1]
    """

    def __init__(self, pictures: Sequence[NDArray[np.float32]]) -> None:
        self.pictures: list[Stored] = [np.round(p * _SCALE).astype(np.uint16) for p in pictures]

    @property
    def largest_crop(self) -> int:
        """Side of the largest square that every picture holds."""
        sides: list[int] = [side for p in self.pictures for side in p.shape[:2]]
        return min(sides)

    def crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """`count` random crops, every place in every picture alike: (count, C, size, size) in [0, 1]."""
        return self._cut(self._even(count, size, generator), size)

    def _even(self, count: int, size: int, generator: torch.Generator) -> list[Place]:
        edges = np.cumsum([(p.shape[0] - size + 1) * (p.shape[1] - size + 1) for p in self.pictures])
        chosen = torch.randint(int(edges[-1]), (count,), generator=generator).numpy()
        places = []
        for number, index in zip(chosen, np.searchsorted(edges, chosen, side="right"), strict=True):
            row, column = divmod(int(edges[index] - 1 - number), self.pictures[index].shape[1] - size + 1)
            places.append((int(index), row, column))
        return places

    def _cut(self, places: Sequence[Place], size: int) -> Tensor:
        patches = [self.pictures[i][row : row + size, column : column + size] for i, row, column in places]
        stacked = np.ascontiguousarray(np.stack(patches).transpose(0, 3, 1, 2), dtype=np.float32)
        return torch.from_numpy(stacked).div_(_SCALE)

    def whole(self) -> Iterator[Tensor]:
        """Each picture as (C, H, W) in [0, 1]."""
        for picture in self.pictures:
            yield torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32)).div_(_SCALE)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel over all pixels: two (C,) tensors, the second at least 1/255."""
        sums = np.stack([p.sum((0, 1), dtype=np.float64) for p in self.pictures]).sum(0)
        squares = np.stack([np.square(p, dtype=np.float64).sum((0, 1)) for p in self.pictures]).sum(0)
        pixels = sum(p.shape[0] * p.shape[1] for p in self.pictures)
        mean = sums / pixels
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        return (
            torch.from_numpy(mean / _SCALE).float(),
            torch.from_numpy(np.maximum(std / _SCALE, 1 / 255)).float(),
        )

    def light(self, size: int) -> Tensor:
        """How much the light varies within a picture, (C,): the spread of the means of squares of `size` pixels.

        Around each picture's own median, and robust, 1.4826 times the median distance: a selvage is not light.
        """
        distances = []
        for picture in self.pictures:
            rows, columns = picture.shape[0] // size, picture.shape[1] // size
            squares = picture[: rows * size, : columns * size].reshape(rows, size, columns, size, -1)
            means = squares.mean((1, 3)).reshape(rows * columns, -1)
            distances.append(np.abs(means - np.median(means, axis=0)))
        spread = 1.4826 * np.median(np.concatenate(distances), axis=0) / _SCALE
        return torch.from_numpy(spread).float()

    def digest(self) -> str:
        """SHA-256 of the pictures' sizes and values, in order."""
        sha = hashlib.sha256()
        for picture in self.pictures:
            sha.update(str(picture.shape).encode())
            sha.update(np.ascontiguousarray(picture).data)
        return sha.hexdigest()


class GoodPool(PicturePool):
    """Good pictures, of which every other crop is drawn by how rare its texture is.

    A selvage, a seam or the edge of a sheet takes a hundredth of the surface and is as good as the rest of it.
    Drawn evenly, it is hardly learnt, and then stands out in every good picture. How rare a place is, is its
    squared Mahalanobis distance from all others in what its patch looks like: mean, and logarithms of the
    deviation and of the mean steps down and across. Over all places these distances average to the number of
    such figures, whatever the surface: an even texture is drawn nearly evenly.

    Parameters
    ----------
    pictures : sequence of (H, W, C) float arrays in [0, 1], of at least a patch
    patch_size : int
        Pixels.
    """

    def __init__(self, pictures: Sequence[NDArray[np.float32]], patch_size: int) -> None:
        super().__init__(pictures)
        self.patch_size = patch_size
        looks = [_looks(picture, patch_size) for picture in pictures]
        self._grids = [look.shape[:2] for look in looks]
        flat = np.concatenate([look.reshape(-1, look.shape[2]) for look in looks])
        flat = flat - flat.mean(0)
        inverse = np.linalg.pinv(flat.T @ flat / len(flat), rcond=1e-9, hermitian=True)
        rarity = np.einsum("ni,ij,nj->n", flat, inverse, flat)
        self._edges = np.cumsum(rarity + 1e-6)  # where all is alike, all places are

    def crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """`count` random crops, every other one by its rarity: (count, C, size, size) in [0, 1]."""
        even = self._even(count - count // 2, size, generator)
        rare = self._rare(count // 2, size, generator)
        return self._cut([(rare if i % 2 else even)[i // 2] for i in range(count)], size)

    def _rare(self, count: int, size: int, generator: torch.Generator) -> list[Place]:
        """Crops around patches drawn by rarity, each moved by up to half a step."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64).numpy() * self._edges[-1]
        numbers = np.minimum(np.searchsorted(self._edges, drawn, side="right"), len(self._edges) - 1)
        moves = torch.randint(RARITY_STEP, (count, 2), generator=generator).numpy() - RARITY_STEP // 2
        starts = np.cumsum([0, *(rows * columns for rows, columns in self._grids)])
        places = []
        for number, move in zip(numbers, moves, strict=True):
            index = int(np.searchsorted(starts, number, side="right")) - 1
            cell = np.array(divmod(number - starts[index], self._grids[index][1]))
            corner = cell * RARITY_STEP + move - (size - self.patch_size) // 2
            row, column = np.clip(corner, 0, np.array(self.pictures[index].shape[:2]) - size)
            places.append((index, int(row), int(column)))
        return places


def _looks(picture: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """What each patch of a picture (H, W, C) looks like, RARITY_STEP pixels apart: (rows, columns, C + 3)."""
    from scipy.ndimage import uniform_filter

    picture = picture.astype(np.float64)
    grey = picture.mean(2, keepdims=True)
    down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    across = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    planes = np.concatenate((picture, grey**2, grey, down, across), axis=2)
    means = uniform_filter(planes, (size, size, 1))
    means = means[size // 2 : picture.shape[0] - size // 2 + 1 : RARITY_STEP]
    means = means[:, size // 2 : picture.shape[1] - size // 2 + 1 : RARITY_STEP]
    channels = picture.shape[2]
    deviation = np.sqrt(np.maximum(means[..., channels] - means[..., channels + 1] ** 2, 0))
    contrasts = np.stack((deviation, means[..., channels + 2], means[..., channels + 3]), axis=2)
    return np.concatenate((means[..., :channels], np.log(contrasts + 1 / 255)), axis=2)


def load_good_pictures(
    folder: str | Path,
    patch_size: int,
    bits: int | None = None,
    *,
    keep_odd: bool = False,
    region: Region | None = None,
) -> tuple[list[NDArray[np.float32]], int]:
    """The good pictures of a folder, all (H, W, C) in [0, 1], and C: 1 if every picture is grey, else 3.

    A data set is taken by its `train/good`, or whatever else of `GOOD_FOLDERS` its `train` has.

    Parameters
    ----------
    folder : path
    patch_size : int
        Pixels.
    bits : int, optional
        As `fmrnet.pictures.read_picture` takes it.
    keep_odd : bool
        Take pictures, too, that look like masks or are of one value: see `fmrnet.learning.oddities`.
    region : Region, optional
        Take of each picture only this rectangle, or the largest one inside the mask.

    Raises
    ------
    ConfigError
        If no patch lies in the region.
    DatasetError
        If there is no such folder or no picture in it, or some are odd: the user is to decide about these.
    PictureError
        If a picture cannot be read, is smaller than a patch or does not hold the region: training data are not skipped
        silently.
    """
    files = good_files(folder)
    pictures = [read_picture(file, bits) for file in files]
    if region is not None:
        region.check(patch_size)
        pictures = _of_region(files, pictures, region)
    channels = 1 if all(p.ndim == 2 or p.shape[2] == 1 for p in pictures) else 3
    for file, picture in zip(files, pictures, strict=True):
        if min(picture.shape[:2]) < patch_size:
            height, width = picture.shape[:2]
            raise PictureError(
                f"{file}: {width}x{height} pixels, smaller than a patch of {patch_size}x{patch_size}; "
                "enlarge it or leave it out"
            )
    if not keep_odd:
        check_oddities(Path(folder), files, pictures)
    return [to_channels(picture, channels) for picture in pictures], channels


def _of_region(
    files: Sequence[Path], pictures: Sequence[NDArray[np.float32]], region: Region
) -> list[NDArray[np.float32]]:
    """The region's rectangle of each picture, each of which the whole region must fit."""
    x, y, width, height = region.rectangle
    found = []
    for file, picture in zip(files, pictures, strict=True):
        try:
            region.cut(picture)
        except PictureError as error:
            raise PictureError(f"{file}: {error}") from None
        found.append(picture[y : y + height, x : x + width].copy())
    return found


def good_files(folder: str | Path) -> list[Path]:
    """The files that `load_good_pictures` reads, in its order; raises as it does."""
    folder = _good_folder(Path(folder))
    files = list_pictures([folder])
    if not files:
        raise DatasetError(f"{folder}: no pictures in this folder; expected good pictures to learn from")
    return files


def _good_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected a folder of good pictures")
    train = folder / "train"
    inside = train.iterdir() if train.is_dir() else ()
    named = sorted(path for path in inside if path.is_dir() and path.name.casefold() in GOOD_FOLDERS)
    if len(named) > 1:
        raise DatasetError(
            f"{train} has the folders {' and '.join(p.name for p in named)}: name the one to take"
        )
    return named[0] if named else folder


def hold_out(
    pictures: Sequence[NDArray[np.float32]], patch_size: int
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Good pictures to learn from, and good pictures held out for calibration.

    Every fifth picture is held out. Of fewer than five pictures, each gives a fifth of its longer side (at
    least a patch); if that would leave less than a patch to learn from, the picture is only learnt from.

    Raises
    ------
    DatasetError
        If nothing could be held out.
    """
    if len(pictures) >= 5:
        return [p for i, p in enumerate(pictures) if i % 5 != 4], list(pictures[4::5])
    learn, held = [], []
    for picture in pictures:
        axis = int(picture.shape[1] > picture.shape[0])
        length = picture.shape[axis]
        kept = length - max(length // 5, patch_size)
        if kept < patch_size:
            learn.append(picture)
            continue
        first, second = np.split(picture, [kept], axis=axis)
        learn.append(first)
        held.append(second)
    if not held:
        raise DatasetError(
            f"{len(pictures)} good picture(s) of less than {2 * patch_size} pixels on the longer side: nothing is "
            "left to calibrate on; give larger pictures, or five or more of them"
        )
    return learn, held


def hold_out_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of what `hold_out` gives: of fewer than five pictures, each may give a part to either."""
    if len(names) >= 5:
        return [name for i, name in enumerate(names) if i % 5 != 4], list(names[4::5])
    return list(names), list(names)


def default_natural_pictures() -> dict[str, NDArray[np.float32]]:
    """Natural pictures that installed packages ship, by name, as (H, W, 3) in [0, 1].

    Two come with scikit-learn; seven more with scikit-image where it is installed.
    """
    from sklearn.datasets import load_sample_image

    pictures = {f"sklearn/{name}": load_sample_image(name) for name in ("china.jpg", "flower.jpg")}
    try:
        import skimage.data
    except ImportError:
        pass
    else:
        for name in (
            "astronaut",
            "chelsea",
            "coffee",
            "hubble_deep_field",
            "immunohistochemistry",
            "retina",
            "rocket",
        ):
            pictures[f"skimage/{name}"] = getattr(skimage.data, name)()
    return {name: picture.astype(np.float32) / 255 for name, picture in pictures.items()}


def load_natural_pictures(folder: str | Path | None, channels: int, patch_size: int) -> PicturePool:
    """The natural pictures that anomalous content I_d is cut from; without a folder, the packages' own.

    Pictures smaller than a patch are left out.

    Raises
    ------
    DatasetError
        If no picture of at least a patch is found.
    """
    if folder is None:
        pictures = list(default_natural_pictures().values())
    else:
        if not Path(folder).is_dir():
            raise DatasetError(f"{folder}: no such folder; expected natural pictures for anomalies")
        pictures = [read_picture(file) for file in list_pictures([folder])]
    usable = [to_channels(p, channels) for p in pictures if min(p.shape[:2]) >= patch_size]
    if not usable:
        raise DatasetError(
            f"{folder}: no natural pictures of {patch_size}x{patch_size} pixels or more; give a folder of "
            "photographs, or none to use those that packages ship"
        )
    return PicturePool(usable)
