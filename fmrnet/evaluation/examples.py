"""A test picture and what is known of its defect: its class, and the masks or outlines that mark it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmrnet.errors import DatasetError, PictureError
from fmrnet.evaluation.outlines import Outlines
from fmrnet.pictures import read_mask

__all__ = ["GOOD", "Dataset", "Example", "few", "resized_mask"]

GOOD = "good"


@dataclass(frozen=True)
class Example:
    """One test picture.

    Attributes
    ----------
    picture : Path
    defect : str
        Name of its class, GOOD if it has no defect.
    masks : tuple of Path or Outlines
        What marks the defect together; none for most good pictures, and where it is not known.
    """

    picture: Path
    defect: str
    masks: tuple[Path | Outlines, ...] = ()

    @property
    def good(self) -> bool:
        """Whether the picture has no defect."""
        return self.defect == GOOD

    def truth(self, *shapes: tuple[int, ...], remarks: list[str] | None = None) -> NDArray[np.bool_] | None:
        """Which pixels are defective, (H, W); None if the picture has a defect and no mask.

        A mask of another size is brought to the picture's if both are of one shape.

        Parameters
        ----------
        shapes : the picture's (H, W); several if it is not known yet which of them it has.
        remarks : gets what was done to a mask, in words that go on from "this mask ".

        Raises
        ------
        DatasetError : a mask cannot be read, is neither of one of the shapes nor in proportion to it, or of another
            shape than the mask before; the masks of a defective picture mark nothing, or those of a good one something.
        """
        if not self.masks:
            return np.zeros(shapes[0], np.bool_) if self.good else None
        marked = np.zeros((), np.bool_)
        for mask in self.masks:
            try:
                found = mask.marked() if isinstance(mask, Outlines) else read_mask(mask, remarks)
            except PictureError as error:
                raise DatasetError(f"the mask of {self.picture}: {error}") from error
            found = _fitted(found, shapes, f"{mask}", remarks)
            marked, shapes = marked | found, (found.shape,)
        named = few(map(str, self.masks))
        if self.good and marked.any():
            raise DatasetError(
                f"{named} marks {marked.sum()} pixels of {self.picture}, which lies among the good"
            )
        if not self.good and not marked.any():
            raise DatasetError(f"{named} marks no pixel; a defect-free picture belongs in test/good")
        return marked


@dataclass(frozen=True)
class Dataset:
    """The test pictures of a data set.

    Attributes
    ----------
    layout : str or None
        Name of the layout that they were found by.
    examples : list of Example
    unused : list of Path
        Files that look like pictures or masks of the set and belong to none of the examples.
    notes : list of str
        Sentences: what the layout leaves open.
    """

    layout: str | None
    examples: list[Example]
    unused: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def few(texts: Iterable[str], count: int = 5) -> str:
    """The first of several texts in one, and how many there are beside.

    >>> few(["a", "b"]), few(["a", "b", "c", "d"], 2)
    ('a; b', 'a; b; and 2 more')
    """
    texts = list(texts)
    return "; ".join(texts[:count] + ([f"and {len(texts) - count} more"] if len(texts) > count else []))


def resized_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (H, W) at another size: what is at least half defective, or if that is nothing, what is at all."""
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BOX))
    return share >= 0.5 if (share >= 0.5).any() else share > 0


def _fitted(
    mask: NDArray[np.bool_], shapes: Sequence[tuple[int, ...]], name: str, remarks: list[str] | None
) -> NDArray[np.bool_]:
    """The mask at the size of its picture; DatasetError if the two are not in proportion."""
    if mask.shape in shapes:
        return mask
    height, width = mask.shape
    for tall, wide in shapes:
        if abs(height * wide - width * tall) <= max(tall, wide, height, width) / 2:  # but for half a pixel
            if remarks is not None:
                remarks.append(
                    "are of another size than their pictures, in proportion, and were brought to theirs"
                )
            return resized_mask(mask, (tall, wide))
    found, expected = (f"{wide}x{tall}" for tall, wide in (mask.shape, shapes[0]))
    raise DatasetError(
        f"{name} is {found} pixels, its picture {expected}; expected the same size, or its proportions"
    )
