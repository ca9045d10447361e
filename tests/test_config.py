"""Settings: round trip, presets as published, and a clear error for every bad value."""

import json
from dataclasses import replace

import pytest

from fmrnet.config import PRESETS, Config, preset
from fmrnet.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name):
    config = preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_paper_preset_is_the_paper():
    paper = preset("paper")
    assert not paper.by_rarity
    assert (paper.light, paper.speckle) == (0, 0)
    assert paper.iterations == (200_000, 100_000, 0)
    assert not paper.learned_fusion
    assert (paper.temperature, paper.weight_lat, paper.compactness) == (1, 1, 1)
    assert (paper.learning_rate, paper.schedule) == (1e-3, "constant")
    assert (paper.weight_rec, paper.weight_adv, paper.weight_lat) == (100, 1, 1)
    assert (paper.patch_size, paper.memory_entries, paper.addressing_width, paper.texton_size) == (
        64,
        512,
        256,
        2,
    )


def test_edge_preset_is_half_as_wide():
    assert preset("edge").channels == tuple(c // 2 for c in preset("paper").channels)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_channels", 2),
        ("patch_size", 48),
        ("patch_size", 32),
        ("channels", (1, 2, 3)),
        ("channels", (1, 2, 3, 4, 0)),
        ("memory_entries", 0),
        ("texton_size", 3),
        ("mixing", "some"),
        ("schedule", "linear"),
        ("temperature", 0.0),
        ("iterations", (0, 5, 0)),
        ("iterations", (5, 5, -1)),
        ("iterations", (5, 5)),
        ("learning_rate", float("nan")),
        ("weight_rec", -1.0),
        ("epsilon", 1.0),
        ("seed", -1),
        ("overlap", 0.95),
        ("median", 4),
        ("k", 0.0),
        ("patch_quantile", 1.5),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        replace(Config(), **{field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [({"colour": 1}, "unknown settings 'colour'"), ({"seed": "0"}, "seed = '0': expected int"), ({"seed": True}, "seed"),
     ({"channels": "abc"}, "list of integers"), ({"mixing": 3}, "mixing = 3: expected str")],
)  # fmt: skip
def test_bad_files_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_dict(Config().to_dict() | change)


def test_missing_setting_is_named():
    settings = Config().to_dict()
    del settings["mixing"]
    with pytest.raises(ConfigError, match="missing settings mixing"):
        Config.from_dict(settings)


def test_unknown_preset_names_the_known():
    with pytest.raises(ConfigError, match="paper or edge"):
        preset("big")
