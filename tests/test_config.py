"""Settings: round trip, presets as published, and a clear error for every bad value."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrnet.config import PRESETS, Config, preset
from fmrnet.errors import ConfigError
from fmrnet.network.model import FMRNet


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


FLOATS = [field.name for field in fields(Config) if field.type == "float"]
INTEGERS = [field.name for field in fields(Config) if field.type == "int"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_channels", 2),
        ("patch_size", 48),
        ("patch_size", 32),
        ("patch_size", 1056),
        ("channels", (1, 2, 3)),
        ("channels", (1, 2, 3, 4, 0)),
        ("channels", (1, 2, 3, 4, 10**400)),
        ("channels", (1, 2, 3, 4, True)),
        ("channels", (4096,) * 5),
        ("memory_entries", 0),
        ("memory_entries", 10**9),
        ("texton_size", 3),
        ("mixing", "some"),
        ("tile", "whole"),
        ("schedule", "linear"),
        ("temperature", 0.0),
        ("temperature", 0.009),
        ("temperature", 101.0),
        ("iterations", (0, 5, 0)),
        ("iterations", (5, 5, -1)),
        ("iterations", (5, 5)),
        ("iterations", (5, 10**10, 5)),
        ("weight_rec", -1.0),
        ("epsilon", 1.0),
        ("seed", -1),
        ("seed", 10**5000),
        ("overlap", 0.95),
        ("median", 4),
        ("median", -3),
        ("k", -1.0),
        ("k", 10**5000),
        ("false_alarms", 1.0),
        ("false_alarms", 0),
        *((field, value) for field in FLOATS for value in (math.nan, math.inf, -math.inf, True, "1", None)),
        *((field, value) for field in INTEGERS for value in (True, 1.0, "1", None, [1], 10**400, -1)),
        ("by_rarity", 1),
        ("by_rarity", None),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int) or value < 10**9 else "large",
)
def test_bad_values_are_named(field, value):
    with pytest.raises(ConfigError, match=field):
        replace(Config(), **{field: value})


@pytest.mark.parametrize(("patch", "overlap"), [(64, 0.25), (64, 0.75), (96, 0.5), (128, 0.25)])
def test_whole_pictures_need_windows_that_lie_on_the_deepest_maps(patch, overlap):
    """These are of 32 pixels' step, and what windows have in common is to be of whole steps between them."""
    replace(Config(), patch_size=patch, overlap=overlap)
    with pytest.raises(ConfigError, match=f"overlap = {overlap}: expected with tile = picture.* 0.5 or 0"):
        replace(Config(), patch_size=patch, overlap=overlap, tile="picture")


@pytest.mark.parametrize(("patch", "overlap"), [(64, 0.5), (64, 0), (96, 2 / 3), (128, 0.5), (128, 0.75)])
def test_whole_pictures_may_have_these_windows(patch, overlap):
    assert replace(Config(), patch_size=patch, overlap=overlap, tile="picture").stride % 32 == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"colour": 1}, "unknown settings 'colour'"),
     ({"seed": "0"}, "seed = '0': expected int"), ({"seed": True}, "seed"),
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
    with pytest.raises(ConfigError, match="one of paper, edge, general, instant"):
        preset("big")


settings = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, 2, 64, 0.5]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([field.name for field in fields(Config)]), settings, max_size=3),
    st.dictionaries(st.text(), settings, max_size=1),
)
def test_any_values_give_settings_that_come_back_or_an_error_of_one_line(changed, more):
    given = Config().to_dict() | changed | more
    try:
        config = Config.from_dict(given)
    except ConfigError as error:
        message = str(error)
    else:
        assert Config.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config
        return
    assert message.isprintable()
    assert len(message) < 500


@given(settings)
def test_anything_but_settings_is_refused(given):
    with pytest.raises(ConfigError):
        Config.from_dict(given)


def test_numbers_take_the_type_of_their_setting():
    config = Config(overlap=0, k=np.float64(2), channels=[1, 2, 3, 4, 5])
    assert (type(config.overlap), type(config.k)) == (float, float)
    assert config.channels == (1, 2, 3, 4, 5)


@given(
    st.tuples(*[st.integers(1, 40)] * 5),
    st.sampled_from([64, 96, 128]),
    st.sampled_from([1, 3]),
    st.sampled_from(["dense", "shared", "none"]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 1),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_the_count_of_weights_is_never_above_the_networks(
    channels, patch_size, image_channels, mixing, texton_size, fusion, entries, width
):
    """What a file must hold at least before its network is made; and nearly all there is."""
    config = Config(
        channels=channels,
        patch_size=patch_size,
        image_channels=image_channels,
        mixing=mixing,
        texton_size=texton_size,
        iterations=(1, 1, fusion),
        memory_entries=entries,
        addressing_width=width,
    )
    held = sum(tensor.numel() for tensor in FMRNet(config).state_dict().values())
    assert config.weights < held < config.weights + 500_000
