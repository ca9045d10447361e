"""The inspection path: levels, early exit, sizes, kinds of pictures, and what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fmrnet
from fmrnet.config import Config
from fmrnet.errors import ArtifactError, ConfigError, DatasetError, PictureError
from fmrnet.inspection import background
from fmrnet.inspection.calibration import Calibration
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.limits import Limits
from fmrnet.network.model import FMRNet
from fmrnet.reference import fusion, learned_fusion, network, patches, scoring

TINY = Config(channels=(4, 4, 6, 6, 8), memory_entries=7, overlap=0.5)
NO_LIMITS = Limits(level=((0.0, 1.0),), deviation=0.0, spread=0.5, distance=1e6, share=1.0)
THRESHOLDS = Calibration(3.0, 0.1, 0.1, 0.05, 0.99, 1e6, 0.2, NO_LIMITS, 2)


def make(**settings_) -> Inspector:
    torch.manual_seed(0)
    model = FMRNet(replace(TINY, **settings_))
    model.memory.copy_(torch.randn(model.memory.shape))
    for block in model.encoder:
        block.norm.running_var.fill_(0.05)
    limits = replace(NO_LIMITS, level=NO_LIMITS.level * model.config.image_channels)
    return Inspector(model, replace(THRESHOLDS, limits=limits), {"seed": 0})


@pytest.fixture(scope="module")
def inspector():
    return make()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@settings(max_examples=10, deadline=None)
@given(height=st.integers(64, 150), width=st.integers(64, 150), overlap=st.sampled_from([0.0, 0.25, 0.5]))
def test_whole_path_agrees_with_the_oracle(height, width, overlap):
    """Slice, encode, address, decode, stitch and fuse in NumPy, from the same weights."""
    inspector = make(overlap=overlap)
    picture = noise(height, width, 1)
    weights = {k: v.numpy() for k, v in inspector.model.state_dict().items()}
    cut, origins = patches.slice_patches(picture, 64, inspector.config.stride)
    # The network's output is clipped after stitching, so the oracle's is left unclipped before.
    y = np.stack([network.generate(p, weights)["y"].transpose(1, 2, 0) for p in cut])
    stitched = patches.stitch_patches(y, origins, (height, width))
    restored = np.clip(stitched * weights["std"] + weights["mean"], 0, 1)
    assert np.abs(inspector.reconstruct(picture) - restored).max() < 1e-4
    found = inspector.inspect(picture, level="pixel")
    assert np.abs(found.anomaly_map - fusion.anomaly_map(picture, restored, median=5)).max() < 1e-3
    assert found.patch_scores.size == len(cut)
    distance = np.linalg.norm(network.encode(cut[-1], weights)[1] - weights["memory"], axis=1).min()
    assert found.patch_scores[-1, -1] == pytest.approx(distance, rel=1e-4)


def test_learned_fusion_gives_the_map_and_agrees_with_its_oracle():
    inspector = make(iterations=(1, 1, 1))
    picture = noise(70, 90, 1)
    found = inspector.inspect(picture, level="pixel")
    weights = {k: v.numpy() for k, v in inspector.model.state_dict().items()}
    restored = inspector.reconstruct(picture)
    scores = learned_fusion.standard_scores(picture, restored, weights["mean"], weights["std"], weights)
    beyond = learned_fusion.beyond_good(scores)
    assert np.abs(found.anomaly_map - learned_fusion.learned_map(beyond)).max() < 1e-4
    score = scoring.picture_score(learned_fusion.alarm(scores), 64)
    expected = score / THRESHOLDS.picture_threshold
    assert found.score == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_patch_level_never_runs_the_decoder(inspector, monkeypatch):
    monkeypatch.setattr(FMRNet, "decode", lambda *_: pytest.fail("the decoder ran"))
    result = inspector.inspect(noise(100, 130), level="patch")
    assert result.level == "patch"
    assert result.anomaly_map is None
    assert result.mask is None
    assert result.patch_scores.shape == (3, 4)
    assert result.score == pytest.approx(result.patch_scores.max() / THRESHOLDS.patch_threshold)


def test_auto_exits_early_only_when_every_patch_is_near(inspector):
    picture = noise(128, 128)
    largest = inspector.inspect(picture, level="patch").patch_scores.max()
    for factor, level in ((1.001, "patch"), (0.999, "pixel")):
        thresholds = replace(THRESHOLDS, patch_threshold=float(largest) * factor)
        result = Inspector(inspector.model, thresholds, {}).inspect(picture, level="auto")
        assert result.level == level
        assert result.level == "pixel" or not result.defective


def test_pixel_level_gives_map_and_mask_at_the_pictures_size(inspector):
    result = inspector.inspect(noise(77, 131), level="pixel")
    assert result.anomaly_map.shape == result.mask.shape == (77, 131)
    assert result.anomaly_map.dtype == np.float32
    assert np.array_equal(result.mask, result.anomaly_map > THRESHOLDS.pixel_threshold)
    assert result.defective == (result.score > 1)
    assert inspector.inspect(noise(77, 131)).score == result.score, "it is the default"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_pictures_are_scaled(inspector, dtype):
    top = np.iinfo(dtype).max
    values = np.random.default_rng(0).integers(0, top, (70, 80), dtype=dtype)
    as_float = (values / top).astype(np.float32)
    found = [inspector.inspect(v, level="pixel").anomaly_map for v in (values, as_float)]
    assert np.allclose(*found, atol=1e-4)


@pytest.mark.parametrize("model_channels", [1, 3])
@pytest.mark.parametrize("shape", [(70, 80), (70, 80, 1), (70, 80, 3)])
def test_grey_and_colour_go_into_either_model(model_channels, shape):
    inspector = make(image_channels=model_channels)
    assert inspector.reconstruct(noise(*shape)).shape == (70, 80, model_channels)


def test_exactly_one_patch(inspector):
    assert inspector.inspect(noise(64, 64), level="pixel").patch_scores.shape == (1, 1)


def test_file_and_array_give_the_same(inspector, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (70, 90), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = [inspector.inspect(p, level="pixel").anomaly_map for p in (values, tmp_path / "a.png")]
    assert np.array_equal(*found)


def test_stitching_shows_no_seam():
    """Patches that all say the same thing give a flat picture, and the middle of a picture does not jump at
    the patches' borders more than elsewhere."""
    inspector = make(overlap=0.5)
    restored = inspector.reconstruct(np.full((256, 256), 0.5, np.float32))[..., 0]
    inner = restored[64:-64, 64:-64]
    jumps = np.abs(np.diff(inner, axis=1)).mean(0)
    at_borders = jumps[31::32].max()
    assert at_borders <= 3 * np.median(jumps) + 1e-3


def test_small_picture_and_bad_level(inspector, tmp_path):
    with pytest.raises(PictureError, match="60x70 pixels, smaller than a patch of 64x64"):
        inspector.inspect(noise(70, 60))
    Image.new("L", (10, 10)).save(tmp_path / "small.png")
    with pytest.raises(PictureError, match=r"small.png"):
        inspector.inspect(tmp_path / "small.png")
    with pytest.raises(ConfigError, match="patch, pixel, auto"):
        inspector.inspect(noise(64, 64), level="picture")


def test_calibrate_anew(inspector):
    fresh = Inspector(inspector.model, THRESHOLDS, {})
    fresh.calibrate([noise(128, 96, seed=i) for i in range(3)], k=4.0)
    assert fresh.calibration.k == 4.0
    assert fresh.calibration.pictures == 3
    with pytest.raises(DatasetError):
        fresh.calibrate([])


def test_modality_maps_multiply_to_the_fused_map(inspector):
    picture = noise(80, 90)
    product = np.prod(list(inspector.modality_maps(picture).values()), axis=0)
    assert np.allclose(product, inspector.inspect(picture, level="pixel").anomaly_map, atol=1e-5)


def test_save_and_load(inspector, tmp_path):
    inspector.save(tmp_path / "a.fmr")
    loaded = fmrnet.load(tmp_path / "a.fmr", device="cpu")
    assert loaded.calibration == THRESHOLDS
    assert loaded.provenance == {"seed": 0}
    picture = noise(90, 70)
    found = [i.inspect(picture, level="pixel").anomaly_map for i in (inspector, loaded)]
    assert np.allclose(*found, atol=1e-5)


def test_unknown_device_and_unfit_weights(inspector, tmp_path, monkeypatch):
    inspector.save(tmp_path / "a.fmr")
    for device in ("tpu", "meta", "cuda:99"):
        with pytest.raises(ConfigError, match=device):
            fmrnet.load(tmp_path / "a.fmr", device=device)
    odd = Inspector(inspector.model, THRESHOLDS, {})
    monkeypatch.setattr(odd.model, "config", replace(TINY, memory_entries=8))
    odd.save(tmp_path / "b.fmr")
    with pytest.raises(ArtifactError, match="do not fit"):
        fmrnet.load(tmp_path / "b.fmr")


def test_large_picture_in_bounded_batches(inspector, monkeypatch):
    monkeypatch.setattr(background, "BATCH", 5)
    picture = noise(200, 230)
    few = inspector.inspect(picture, level="pixel").anomaly_map
    monkeypatch.undo()
    assert np.allclose(few, inspector.inspect(picture, level="pixel").anomaly_map, atol=1e-5)
