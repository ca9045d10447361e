"""Thresholds: what they are by definition, and that good pictures pass them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet.config import Config
from fmrnet.errors import ArtifactError, DatasetError
from fmrnet.inspection import background, calibration
from fmrnet.inspection.background import patch_alarms
from fmrnet.inspection.calibration import Calibration, calibrate, picture_score
from fmrnet.inspection.limits import Limits, look
from fmrnet.inspection.suspects import Suspect
from fmrnet.network.model import FMRNet
from fmrnet.reference import scoring

TINY = Config(channels=(4, 4, 4, 4, 4), memory_entries=5, overlap=0.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = FMRNet(TINY).eval()
    model.memory.copy_(torch.randn(model.memory.shape))
    return model


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 128, 64 + 32 * (i % 3), generator=generator) for i in range(count)]


def maps(model, images):
    return [background.compare(model, background.glance(model, image)).anomaly_map for image in images]


def test_pixel_threshold_is_the_oracles_k_sigma(model):
    images = pictures(4)
    found = calibrate(model, images, pixels=64 * 64, k=2.5)
    expected = scoring.k_sigma_threshold([m.numpy() for m in maps(model, images)], k=2.5)
    assert found.pixel_threshold == pytest.approx(expected, rel=1e-6)
    assert found.pictures == 4


def test_patch_threshold_is_the_quantile(model):
    images = pictures(3)
    distances = torch.cat(
        [background.patch_distances(model, background.encode(model, p)).flatten() for p in images]
    )
    found = calibrate(model, images, pixels=64 * 64, patch_quantile=0.5)
    assert found.patch_threshold == pytest.approx(np.quantile(distances, 0.5), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(64, 200), width=st.integers(64, 200))
def test_picture_score_is_the_oracles(seed, height, width):
    alarms = np.random.default_rng(seed).exponential(size=(height, width))
    ours = picture_score(torch.from_numpy(alarms), 64)
    assert ours == pytest.approx(scoring.picture_score(alarms, 64))
    corner = np.zeros((height, width))
    corner[-8:, -8:] = 2.0  # the last pixels belong to a patch too
    assert picture_score(torch.from_numpy(corner), 64) == scoring.picture_score(corner, 64) == 2


def test_a_small_defect_outscores_lone_pixels_however_many():
    alarms, lone = torch.zeros(2, 512, 512).unbind()
    alarms[100:108, 200:208] = 5.0
    lone[::32, ::32] = 9.0  # four in each patch
    assert picture_score(alarms, 64) == 5
    assert picture_score(lone, 64) < 1


def test_patch_alarms_lie_half_a_patch_apart_over_all_of_the_picture():
    alarms = torch.zeros(150, 64)
    alarms[140:148, 10:18] = 1.0
    found = patch_alarms(alarms, 64)
    assert found.shape == (4, 1)  # rows from 0, 32, 64 and 96
    assert found.flatten().tolist() == pytest.approx([0, 0, 0, 1])


@pytest.mark.parametrize("blocks", [1, 16, 256])
@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_picture_threshold_lets_few_good_pictures_through(blocks, spread):
    """On Gumbel distributed maxima, whose tail is nearly exponential; the mean of many, as 400 are an estimate."""
    shares = []
    for seed in range(50):
        generator = np.random.default_rng(seed)
        threshold = calibration._largest_expected(list(generator.gumbel(1, spread, 400)), blocks)
        shares.append((generator.gumbel(1, spread, (1000, blocks)).max(1) > threshold).mean())
    assert calibration.FALSE_ALARMS / 2 < np.mean(shares) < 2 * calibration.FALSE_ALARMS


@pytest.mark.parametrize("pictures_seen", [2, 8, 60])
def test_picture_threshold_lets_few_good_pictures_through_though_neighbours_are_alike(pictures_seen):
    """On the mean of many calibrations: from two pictures a single one may be far off."""
    shares = []
    for seed in range(50):
        generator = np.random.default_rng(seed)

        def good(count, generator=generator):  # patches of 8 x 8, alike within 4 x 4 of them
            rough = generator.gumbel(1, 0.3, (count, 2, 2)).repeat(4, 1).repeat(4, 2)
            return torch.from_numpy(rough + generator.uniform(0, 0.05, rough.shape))

        maxima, patches = calibration._block_maxima(list(good(pictures_seen)[:, None]))
        assert len(maxima) * patches == 64 * pictures_seen
        assert len(maxima) >= calibration.LEAST_BLOCKS
        threshold = calibration._largest_expected(maxima, 64 / patches)
        shares.append((good(1000).amax((1, 2)) > threshold).double().mean().item())
    assert calibration.FALSE_ALARMS / 2 < np.mean(shares) < 3 * calibration.FALSE_ALARMS
    assert np.max(shares) < 0.5 or pictures_seen == 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), dull=st.floats(0, 2))
def test_how_dull_the_dull_parts_are_does_not_move_the_picture_threshold(seed, dull):
    generator = np.random.default_rng(seed)
    lively, others = generator.exponential(0.3, 24) + 3, generator.random(24)
    found = [calibration._largest_expected([*lively, *(others + shift)], 16) for shift in (0, dull)]
    assert found[0] == pytest.approx(found[1])
    assert found[0] > lively.mean()


def test_the_picture_threshold_is_exact_on_exponential_maxima():
    """By hand: with P(m > x) = exp(-x), 16 blocks stay below x with (1 - exp(-x))^16 = 0.95."""
    maxima = -np.log((np.arange(100_000) + 0.5) / 100_000)
    expected = -np.log(-np.expm1(np.log(0.95) / 16))
    assert calibration._largest_expected(list(maxima), 16) == pytest.approx(expected, rel=1e-3)


def test_blocks_are_whole_pictures_where_there_are_enough():
    alarms = [torch.rand(1, 5, 7) for _ in range(calibration.LEAST_BLOCKS)]
    maxima, patches = calibration._block_maxima(alarms)
    assert maxima == [alarm.max().item() for alarm in alarms]
    assert patches == 35
    maxima, patches = calibration._block_maxima(alarms[:1])  # as many as there are
    assert len(maxima) == 35
    assert patches == 1


def test_more_blocks_raise_the_picture_threshold(model):
    images = pictures(3)
    small, large = (calibrate(model, images, pixels=n).picture_threshold for n in (64 * 64, 4096 * 256))
    assert small < large


def test_a_flat_surface_gives_thresholds_that_can_be_divided_by(model, monkeypatch):
    nothing = torch.zeros(2, 2)
    monkeypatch.setattr(background, "patch_distances", lambda *_: nothing)
    flat = background.Comparison(torch.zeros(128, 64), torch.zeros(128, 64))
    monkeypatch.setattr(background, "compare", lambda *_: flat)
    found = calibrate(model, pictures(2), pixels=64 * 64)
    assert found.patch_threshold > 0
    assert found.picture_threshold > 0


def test_no_pictures(model):
    with pytest.raises(DatasetError, match="no good pictures"):
        calibrate(model, [], pixels=1)


def alarming(monkeypatch):
    """From now on a picture is its own alarm map, and no network is asked."""

    def glance(_, picture):
        distances = 1 + picture[0, ::64, ::64]
        return background.Glance(picture, distances, distances.quantile(0.5).item(), None, None)

    monkeypatch.setattr(background, "glance", glance)
    compared = lambda _, seen: background.Comparison(seen.picture[0] / 8, seen.picture[0])  # noqa: E731
    monkeypatch.setattr(background, "compare", compared)


def alarms(count, seed):
    """Maps of good pictures, of which some are a little louder than others, in [0, 1]."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        loud = generator.lognormal(0, 0.1)
        yield torch.from_numpy(0.02 * loud * generator.exponential(1, (1, 192, 256))).float().clamp(0, 1)


@pytest.mark.parametrize("count", [8, 16, 40])
@pytest.mark.parametrize("seed", range(3))
def test_one_defective_picture_is_named_with_its_place_and_hardly_moves_a_threshold(
    model, monkeypatch, count, seed
):
    alarming(monkeypatch)
    good = list(alarms(count, seed))
    spoilt = [picture.clone() for picture in good]
    spoilt[3][0, 100:112, 200:216] = 0.9
    names = [f"{number}.png" for number in range(count)]
    clean = calibrate(model, good, pixels=192 * 256, names=names)
    without = calibrate(model, [*good[:3], *good[4:]], pixels=192 * 256)
    found = calibrate(model, spoilt, pixels=192 * 256, names=names)
    assert clean.suspects == ()
    assert clean.pictures == count
    (suspect,) = found.suspects
    assert suspect.picture == "3.png"
    assert suspect.row <= 100 < 112 <= suspect.row + suspect.height <= 192
    assert suspect.column <= 200 < 216 <= suspect.column + suspect.width <= 256
    assert replace(found, suspects=()) == without, "nothing of it is left"
    for threshold in ("picture_threshold", "pixel_threshold", "patch_threshold"):
        assert getattr(found, threshold) == pytest.approx(getattr(clean, threshold), rel=0.2)


def test_of_four_pictures_none_is_named(model, monkeypatch):
    alarming(monkeypatch)
    spoilt = list(alarms(4, 0))
    spoilt[3][0, 100:112, 200:216] = 0.9
    found = calibrate(model, spoilt, pixels=192 * 256)
    assert found.suspects == ()
    assert found.pictures == 4


def test_what_training_has_seen_widens_the_limits_of_light_and_contrast_alone(model):
    images = pictures(6)
    alone = calibrate(model, images, pixels=64 * 64)
    dim = {f"{number}.png": look(image / 2) for number, image in enumerate(images)}
    found = calibrate(model, images, pixels=64 * 64, learnt=dim)
    assert found.limits.level[0][0] < alone.limits.level[0][0]
    assert found.limits.deviation < alone.limits.deviation
    assert replace(found, limits=alone.limits) == alone
    assert (found.limits.distance, found.limits.share) == (alone.limits.distance, alone.limits.share)
    black = {"black.png": look(torch.zeros(1, 70, 80))}
    found = calibrate(model, images, pixels=64 * 64, learnt=black)
    assert found.limits == alone.limits
    (suspect,) = found.suspects
    assert (suspect.picture, suspect.height, suspect.width) == ("black.png", 70, 80)
    parts = calibrate(
        model, images[:3], pixels=64 * 64, names=["a", "b", "c"], learnt={"a": look(images[0] / 90)}
    )
    assert parts.suspects == (), "three pictures, in four parts"


def test_the_share_of_a_mask_is_that_beyond_the_final_threshold(model):
    images = pictures(3)
    found = calibrate(model, images, pixels=64 * 64, k=0.1)
    largest = max((m > found.pixel_threshold).double().mean().item() for m in maps(model, images))
    assert found.limits.share == pytest.approx((1 + largest) / 2, abs=1e-3), "of three, half of the rest"


@pytest.mark.parametrize("k", [3.0, 100.0])
def test_the_threshold_of_a_learned_map_can_be_passed(k):
    torch.manual_seed(0)
    learned = FMRNet(replace(TINY, iterations=(1, 1, 1))).eval()
    torch.nn.init.normal_(learned.memory)
    found = calibrate(learned, pictures(2), pixels=64 * 64, k=k)
    assert torch.sigmoid(torch.tensor(20.0)) > found.pixel_threshold


BAD = {
    "k": [0, -5.0, np.nan, np.inf, 10**400, True, "3", None],
    "pixel_mean": [np.nan, -np.inf, 10**400],
    "pixel_std": [-1.0, np.nan, "0"],
    "pixel_threshold": [0, -1, 3.0, 10**400, np.inf],
    "patch_quantile": [0, 2, -1, np.nan],
    "patch_threshold": [0, -1, 10**400, 1e30, np.nan, [1.0]],
    "picture_threshold": [0, -1, 10**400, 1e30, np.nan, {}],
    "limits": [None, [], {}, 3],
    "pictures": [0, -1, 2.5, 10**400, True, "3"],
    "suspects": [None, "abc", [1], [{}], 3],
}


def test_round_trip_and_bad_values():
    limits = Limits(((0.2, 0.6),), 0.01, ((0.0, 0.5),) * 4, distance=7.0, share=0.6)
    suspects = (Suspect("a.png", "3.0 times as loud", 0, 32, 64, 64),)
    good = Calibration(3.0, 0.1, 0.2, 0.7, 0.999, 5.0, 0.4, limits, 3, suspects)
    stored = json.loads(json.dumps(good.to_dict()))
    assert Calibration.from_dict(stored) == good
    assert BAD.keys() == stored.keys()
    for field, values in BAD.items():
        for value in values:
            with pytest.raises(ArtifactError, match="suspect" if field == "suspects" else field) as caught:
                Calibration.from_dict({**stored, field: value})
            assert len(str(caught.value)) < 400
    for whole in ({"k": 3.0}, {**stored, "more": 1}, [], None):
        with pytest.raises(ArtifactError, match="expected"):
            Calibration.from_dict(whole)
