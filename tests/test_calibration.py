"""Thresholds: what they are by definition, and that good pictures pass them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet.config import Config
from fmrnet.errors import ArtifactError, DatasetError
from fmrnet.inspection import background, calibration
from fmrnet.inspection.calibration import Calibration, calibrate, patch_alarms, picture_score
from fmrnet.inspection.limits import Limits
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
    encoded = [background.encode(model, image) for image in images]
    return [background.compare(model, e.picture, background.restore(model, e)).anomaly_map for e in encoded]


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


def test_round_trip_and_bad_values():
    limits = Limits(level=((0.2, 0.6),), deviation=0.01, spread=0.2, distance=7.0, share=0.6)
    good = Calibration(3.0, 0.1, 0.2, 0.7, 0.999, 5.0, 0.4, limits, 3)
    assert Calibration.from_dict(good.to_dict()) == good
    with pytest.raises(ArtifactError, match="pixel_threshold"):
        Calibration.from_dict(replace(good, pixel_threshold=float("nan")).to_dict())
    with pytest.raises(ArtifactError, match="expected"):
        Calibration.from_dict({"k": 3.0})
