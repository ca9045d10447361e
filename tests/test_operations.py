"""The count of operations, against layers added up by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
import tiny

from fmrnet.config import Config
from fmrnet.engines.operations import operations
from fmrnet.network.model import FMRNet

SMALL = Config(channels=(2, 3, 4, 5, 6), memory_entries=7, addressing_width=8)


def by_hand(config: Config, height: int, width: int) -> dict[str, int]:
    """Convolutions, addressing, memory and textons of all patches, or of a whole picture whose size windows fill."""
    size, step = config.patch_size, config.stride
    windows = (1 + (height - size) // step) * (1 + (width - size) // step)
    pixels = height * width if config.tile == "picture" else windows * size**2
    colours, latent = config.image_channels, config.latent_size
    encoder = sum(
        16 * a * b * pixels // 4 ** (level + 1)
        for level, (a, b) in enumerate(pairwise((colours, *config.channels)))
    )
    c1, c2, c3, c4, c5 = config.channels
    decoder = ((c5, c4, 5), (2 * c4, c3, 4), (2 * c3, c2, 3), (c2, c1, 2), (c1, colours, 1))
    decoder_sum = sum(16 * a * b * pixels // 4**level for a, b, level in decoder)
    addressing = config.addressing_width * (latent + config.memory_entries)
    memory = config.memory_entries * latent
    textons = 0
    for channels, scale in ((c4, 16), (c3, 8)):
        blocks = (size // scale // config.texton_size) ** 2
        textons += 2 * blocks * blocks * channels * config.texton_size**2  # all cosines, and what they weigh
    return {
        "patch": encoder + windows * memory,
        "pixel": encoder + decoder_sum + windows * (2 * memory + addressing + textons),
    }


@pytest.mark.parametrize("tile", ["patch", "picture"])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("size", [(64, 64), (512, 512), (128, 320)])
def test_layers_memory_and_textons_are_counted(tile, overlap, size):
    config = replace(SMALL, tile=tile, overlap=overlap, mixing="none")
    assert operations(FMRNet(config), *size) == by_hand(config, *size)


def test_a_whole_picture_takes_each_pixel_once():
    patches, whole = (
        operations(FMRNet(replace(SMALL, channels=(32, 64, 128, 256, 256), tile=tile)), 512, 512)
        for tile in ("patch", "picture")
    )
    assert patches["pixel"] > 3.2 * whole["pixel"]


def test_other_witnesses_count_too():
    alone = operations(FMRNet(SMALL), 96, 96)
    fused = operations(FMRNet(replace(SMALL, iterations=(1, 1, 1))), 96, 96)
    general = operations(FMRNet(replace(SMALL, general=True)), 96, 96)
    instant = operations(FMRNet(replace(SMALL, general=True, iterations=(0, 0, 0))), 96, 96)
    assert (fused["patch"], instant["patch"]) == (alone["patch"], instant["pixel"])
    assert fused["pixel"] > alone["pixel"]
    distances = (
        4 * SMALL.memory_entries * SMALL.latent_size
    )  # of four patches, which general features do without
    assert general["pixel"] == general["patch"] + alone["pixel"] - distances
    assert general["patch"] == instant["patch"]


@pytest.mark.parametrize("changes", [{}, {"tile": "picture"}, {"general": True, "iterations": (1, 1, 1)}])
def test_a_picture_is_filled_up_first(changes):
    model = FMRNet(replace(SMALL, overlap=0.5, **changes))
    assert operations(model, 70, 100) == operations(model, 96, 128)


def test_the_model_is_left_as_it_was():
    model = tiny.make_inspector().model
    operations(model, 70, 100)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
