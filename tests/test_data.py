"""Pools of pictures, random crops and the held-out part."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmrnet.errors import DatasetError
from fmrnet.learning.data import (
    GoodPool,
    PicturePool,
    default_natural_pictures,
    hold_out,
    load_good_pictures,
    load_natural_pictures,
    step_generator,
)

sizes = st.tuples(st.integers(64, 90), st.integers(64, 90))


def picture(shape, seed, channels=1):
    return np.random.default_rng(seed).random((*shape, channels), dtype=np.float32)


def save(path, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 256, (80, 70, channels), dtype=np.uint8)
    Image.fromarray(values.squeeze()).save(path)


def good_pool(pictures):
    return GoodPool(pictures, patch_size=64)


@settings(max_examples=50, deadline=None)
@given(
    pool=st.sampled_from([PicturePool, good_pool]),
    shapes=st.lists(sizes, min_size=1, max_size=4),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_crops_are_places_of_the_pictures(pool, shapes, channels, seed):
    pictures = [picture(shape, i, channels) for i, shape in enumerate(shapes)]
    crops = pool(pictures).crops(5, 64, torch.Generator().manual_seed(seed))
    assert crops.shape == (5, channels, 64, 64)
    for crop in crops.permute(0, 2, 3, 1).numpy():
        windows = (np.lib.stride_tricks.sliding_window_view(p, crop.shape) for p in pictures)
        assert min(np.abs(w - crop).max((-1, -2, -3)).min() for w in windows) < 1e-5


def test_every_place_is_as_likely():
    small, large = np.zeros((64, 64, 1), np.float32), np.ones((64, 70, 1), np.float32)  # 1 and 7 places
    crops = PicturePool([small, large]).crops(4000, 64, torch.Generator().manual_seed(0))
    assert abs(crops.mean().item() - 7 / 8) < 0.02


@pytest.mark.parametrize("size", [64, 128])
def test_a_rare_texture_is_drawn_often(size):
    """A selvage: a fiftieth of the length of a strip, coarser than the cloth."""
    strip = picture((256, 3200), 0)
    strip[:, 1600:1664] = np.repeat(np.repeat(strip[::8, 1600:1664:8], 8, 0), 8, 1)
    places = np.broadcast_to(np.arange(3200, dtype=np.float32)[:, None] / 3200, strip.shape)
    share = {}
    for name, pool in {"even": PicturePool, "rare": good_pool}.items():
        drawn = pool([strip])
        drawn.pictures = [np.round(places * 65535).astype(np.uint16)]  # a crop then says where it is from
        left = drawn.crops(2000, size, torch.Generator().manual_seed(0))[:, 0, 0, 0].numpy() * 3200
        share[name] = ((left > 1600 - size) & (left < 1664)).mean()
    assert share["rare"] > 4 * share["even"]


def test_an_even_texture_is_drawn_nearly_evenly():
    flat = [np.full((64, 64, 1), 0.5, np.float32), np.full((64, 64 + 112, 1), 0.5, np.float32)]
    pool = good_pool(flat)
    pool.pictures = [np.round(p * (65535 * i)).astype(np.uint16) for i, p in enumerate(flat)]
    crops = pool.crops(4000, 64, torch.Generator().manual_seed(0))
    # 1 and 113 places; in steps of 16 pixels 1 and 8
    assert abs((crops == 0).float().mean().item() - (1 / 114 + 1 / 9) / 2) < 0.02

    noise = good_pool([picture((512, 512), 0)])
    rarity = np.diff(noise._edges)
    assert np.quantile(rarity, 0.99) < 5 * rarity.mean()


@pytest.mark.parametrize("pool", [PicturePool, good_pool])
def test_same_generator_same_crops(pool):
    pool = pool([picture((80, 70), 0)])
    draw = [pool.crops(4, 64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


@settings(max_examples=25, deadline=None)
@given(shapes=st.lists(sizes, min_size=1, max_size=4), channels=st.sampled_from([1, 3]))
def test_statistics_are_numpys(shapes, channels):
    pictures = [picture(shape, i, channels) for i, shape in enumerate(shapes)]
    values = np.concatenate([p.reshape(-1, channels) for p in pictures]).astype(np.float64)
    mean, std = PicturePool(pictures).statistics()
    assert np.allclose(mean, values.mean(0), atol=1e-4)
    assert np.allclose(std, values.std(0), atol=1e-4)


def test_statistics_of_a_flat_picture_stay_usable():
    _, std = PicturePool([np.full((64, 64, 1), 0.5, np.float32)]).statistics()
    assert std.item() >= 1 / 256


def test_light_is_the_spread_of_patch_means_within_a_picture_and_a_selvage_is_not_light():
    generator = np.random.default_rng(0)
    level = generator.normal(0, 0.05, (2, 10, 10, 1))
    level[:, :, 0] += 0.3
    pictures = [
        np.kron(0.4 + cells + step, np.ones((64, 64, 1))).astype(np.float32)
        for cells, step in zip(level, (0.0, 0.1), strict=True)
    ]
    assert abs(PicturePool(pictures).light(64).item() - 0.05) < 0.015


def test_digest_tells_pictures_apart():
    a, b = picture((64, 80), 0), picture((64, 80), 1)
    digests = {
        PicturePool(pictures).digest() for pictures in ([a], [b], [a, b], [b, a], [a.reshape(80, 64, 1)])
    }
    assert len(digests) == 5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(64, 400), st.integers(64, 400)), min_size=1, max_size=12))
def test_hold_out_shares_no_pixel_and_loses_none(shapes):
    pictures = [np.full((*shape, 1), i, np.float32) for i, shape in enumerate(shapes)]
    try:
        learn, held = hold_out(pictures, 64)
    except DatasetError:
        assert len(shapes) < 5
        assert all(max(shape) < 128 for shape in shapes)
        return
    for i, shape in enumerate(shapes):
        parts = [p for p in learn + held if p.flat[0] == i]
        assert sum(p.size for p in parts) == shape[0] * shape[1]
    assert all(min(p.shape[:2]) >= 64 for p in learn + held)
    assert held
    assert learn


def test_grey_pictures_stay_grey_and_one_colour_picture_makes_all_colour(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png")
    pictures, channels = load_good_pictures(tmp_path, 64)
    assert channels == 1
    assert [p.shape for p in pictures] == [(80, 70, 1)] * 2
    save(tmp_path / "c.png", channels=3)
    pictures, channels = load_good_pictures(tmp_path, 64)
    assert channels == 3
    assert all(p.shape == (80, 70, 3) for p in pictures)


@pytest.mark.parametrize("name", ["good", "ok", "OK", "Good"])  # MVTec's and BTAD's, and as users write them
def test_a_data_set_is_taken_by_its_good_pictures(tmp_path, name):
    for folder in (f"train/{name}", "train/__MACOSX", "train/ko", "test/ok"):
        save(tmp_path / folder / "a.png")
    assert len(load_good_pictures(tmp_path, 64)[0]) == 1
    save(tmp_path / "train" / name / "b.bmp")
    assert len(load_good_pictures(tmp_path, 64)[0]) == 2


def test_a_data_set_with_two_folders_of_good_pictures_is_refused(tmp_path):
    for folder in ("good", "ok"):
        save(tmp_path / "train" / folder / "a.png")
    with pytest.raises(DatasetError, match="has the folders good and ok: name the one to take"):
        load_good_pictures(tmp_path, 64)
    assert len(load_good_pictures(tmp_path / "train" / "ok", 64)[0]) == 1


@settings(max_examples=50, deadline=None)
@given(
    seeds=st.sets(st.integers(0, 2**31 - 1), min_size=2, max_size=3),
    steps=st.sets(st.integers(0, 2**32 - 1), min_size=2, max_size=4),
)
def test_no_two_seeds_phases_or_steps_draw_the_same(seeds, steps):
    drawn = {}
    for fixed in itertools.product(seeds, (1, 2, 3), steps):
        drawn[fixed] = torch.rand(4, generator=step_generator(*fixed))
        assert torch.equal(drawn[fixed], torch.rand(4, generator=step_generator(*fixed)))
    assert len({tuple(values.tolist()) for values in drawn.values()}) == len(drawn)


def test_natural_pictures_by_default_and_from_a_folder(tmp_path):
    assert {"sklearn/china.jpg", "sklearn/flower.jpg"} <= default_natural_pictures().keys()
    assert load_natural_pictures(None, 1, 64).crops(2, 64, torch.Generator()).shape == (2, 1, 64, 64)
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    with pytest.raises(DatasetError, match="64x64"):
        load_natural_pictures(tmp_path, 3, 64)
    with pytest.raises(DatasetError, match="no such folder"):
        load_natural_pictures(tmp_path / "missing", 3, 64)
