"""A trained model where a program expects anomalib's `OpenVINOInferencer` or `Engine.predict`. anomalib is not needed.

>>> from fmrnet.adapters.anomalib import Inferencer  # in place of anomalib.deploy.OpenVINOInferencer
>>> prediction = Inferencer("carpet.fmr").predict("panel.png")  # doctest: +SKIP
>>> prediction.pred_score, prediction.pred_label, prediction.anomaly_map.shape  # doctest: +SKIP
(array([0.71], dtype=float32), array([ True]), (1, 512, 512))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrnet.errors import ConfigError
from fmrnet.inspection.inspector import Inspector, Result, load
from fmrnet.listing import list_pictures
from fmrnet.pictures import as_picture, read_picture

__all__ = ["Engine", "ImageBatch", "ImageItem", "Inferencer"]

DEVICES = {"auto": "auto", "cpu": "cpu", "gpu": "cuda"}  # as OpenVINO calls them


@dataclass(frozen=True)
class ImageItem:
    """What anomalib's `NumpyImageItem` holds of one picture.

    Attributes
    ----------
    image : (H, W) or (H, W, 3) float32 in [0, 1]
    image_path : str, or None
    pred_score : () float32, from 0 to 1, above 0.5 where the picture is defective
    pred_label : () bool
    anomaly_map : (H, W) float32; its scale is the model's own, see `fmrnet.Result`
    pred_mask : (H, W) bool
    """

    image: NDArray[np.float32]
    image_path: str | None
    pred_score: NDArray[np.float32]
    pred_label: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]
    pred_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class ImageBatch:
    """What anomalib's `NumpyImageBatch` holds, of one picture: as `ImageItem`, with a first axis of 1.

    `len`, iteration, `items` and `batch_size` are as there.
    """

    image: NDArray[np.float32]
    image_path: list[str] | None
    pred_score: NDArray[np.float32]
    pred_label: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]
    pred_mask: NDArray[np.bool_]

    @property
    def batch_size(self) -> int:
        """How many pictures there are."""
        return len(self.image)

    @property
    def items(self) -> list[ImageItem]:
        """The pictures, one by one."""
        return [
            ImageItem(
                self.image[n],
                None if self.image_path is None else self.image_path[n],
                np.asarray(self.pred_score[n]),
                np.asarray(self.pred_label[n]),
                self.anomaly_map[n],
                self.pred_mask[n],
            )
            for n in range(self.batch_size)
        ]

    def __len__(self) -> int:
        return self.batch_size

    def __iter__(self) -> Iterator[ImageItem]:
        return iter(self.items)


class Inferencer:
    """Stands in for `anomalib.deploy.OpenVINOInferencer`.

    Parameters
    ----------
    path : path
        A model file of FMR-Net.
    device : str, optional
        "AUTO", "CPU" or "GPU", or as `fmrnet.load` takes it.
    config : dict, optional
        Settings of OpenVINO, of which none has a meaning here.

    Raises
    ------
    ConfigError
        If settings of OpenVINO are given. Otherwise as `fmrnet.load`.
    """

    def __init__(
        self, path: str | Path, device: str | None = "AUTO", config: dict[str, Any] | None = None
    ) -> None:
        if config:
            raise ConfigError(
                f"config has {', '.join(map(str, config))}: settings of OpenVINO have no place here"
            )
        name = device or "auto"
        self.inspector: Inspector = load(path, DEVICES.get(name.lower(), name))

    def predict(self, image: str | Path | NDArray[Any]) -> ImageBatch:
        """Inspect one picture: a path, a Pillow image, or an array (H, W, 3) or (H, W), as `Inspector.inspect` does.

        An array or tensor (3, H, W) of floating point, as anomalib's own pictures are, is taken, too.

        Raises as `Inspector.inspect`.
        """
        if isinstance(image, str | Path):
            picture = read_picture(image, self.inspector.bits)
            return _batch(picture, str(image), self.inspector.inspect(picture))
        picture = as_picture(_channels_last(image), self.inspector.bits)
        return _batch(picture, None, self.inspector.inspect(picture))

    __call__ = predict


class Engine:
    """Stands in for `anomalib.engine.Engine` where a program predicts with a trained model."""

    def predict(
        self,
        model: str | Path | Inferencer | None = None,
        *,
        data_path: str | Path,
        ckpt_path: str | Path | None = None,
        return_predictions: bool | None = None,
    ) -> list[ImageBatch] | None:
        """Inspect a picture or a folder of them: a batch of one for each, in order.

        Parameters
        ----------
        model : Inferencer or path, optional
        data_path : path
            A picture, or a folder with all that lies in folders below it.
        ckpt_path : path, optional
            The model file, in place of `model`.
        return_predictions : bool, optional
            False: give None.

        Raises
        ------
        ConfigError
            If neither or both of `model` and `ckpt_path` are given.
        DatasetError, PictureError
            If there is no picture, or one cannot be inspected.
        """
        if (model is None) == (ckpt_path is None):
            raise ConfigError("give the model as one of model and ckpt_path")
        given = ckpt_path if model is None else model
        assert given is not None
        inferencer = given if isinstance(given, Inferencer) else Inferencer(given)
        found = [inferencer.predict(path) for path in list_pictures(data_path, recursive=True)]
        return None if return_predictions is False else found


def _channels_last(image: Any) -> Any:
    """(3, H, W) or (1, 3, H, W) of floating point, as tensors of pictures are, as (H, W, 3); others as they are."""
    if not hasattr(image, "shape") or not hasattr(image, "__array__"):
        return image
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    return array


def _batch(picture: NDArray[np.float32], path: str | None, result: Result) -> ImageBatch:
    assert result.anomaly_map is not None
    assert result.pred_mask is not None
    return ImageBatch(
        image=picture[None],
        image_path=None if path is None else [path],
        pred_score=np.array([result.pred_score], np.float32),
        pred_label=np.array([result.pred_label]),
        anomaly_map=result.anomaly_map[None],
        pred_mask=result.pred_mask[None],
    )
