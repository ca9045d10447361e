"""The inspection path: levels, early exit, sizes, kinds of pictures, and what comes out."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fmrnet
from fmrnet import artifact
from fmrnet.config import Config
from fmrnet.engines import background
from fmrnet.engines.torch_engine import TorchEngine
from fmrnet.errors import ArtifactError, ConfigError, DatasetError, PictureError
from fmrnet.inspection.early_exit import EarlyExit
from fmrnet.inspection.good_scores import GoodScores
from fmrnet.inspection.inspector import Inspector
from fmrnet.inspection.limits import Limits
from fmrnet.network.model import FMRNet
from fmrnet.network.weights import arrays as arrays_of
from fmrnet.reference import fusion, good_scores, learned_fusion, network, patches, scoring

TINY = Config(channels=(4, 4, 6, 6, 8), memory_entries=7, overlap=0.5)
NO_LIMITS = Limits(((0.0, 1.0),), 0.0, ((0.0, 0.5),) * 4, distance=1e6, share=1.0)
THRESHOLDS = tiny.with_thresholds(picture=0.2, patch=1e6, pixel=0.05, limits=NO_LIMITS)
SURE = EarlyExit((0.01,) * 99, (0.05,) * 99)  # whatever the exit does not flag leaves early


def make(**settings_) -> Inspector:
    torch.manual_seed(0)
    model = FMRNet(replace(TINY, **settings_))
    model.memory.copy_(torch.randn(model.memory.shape))
    for block in model.encoder:
        block.norm.running_var.fill_(0.05)
    limits = replace(NO_LIMITS, level=NO_LIMITS.level * model.config.image_channels)
    return Inspector(TorchEngine(model), replace(THRESHOLDS, limits=limits), {"seed": 0})


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
    filled = patches.filled(picture, 32)
    cut, origins = patches.slice_patches(filled, 64, inspector.config.stride)
    # The network's output is clipped after stitching, so the oracle's is left unclipped before.
    y = np.stack([network.generate(p, weights)["y"].transpose(1, 2, 0) for p in cut])
    stitched = patches.stitch_patches(y, origins, filled.shape[:2])
    restored = np.clip(stitched * weights["std"] + weights["mean"], 0, 1)
    assert np.abs(inspector.reconstruct(picture) - restored[:height, :width]).max() < 1e-4
    found = inspector.inspect(picture, level="pixel")
    expected = fusion.anomaly_map(filled, restored, median=5)[:height, :width]
    assert np.abs(found.anomaly_map - expected).max() < 1e-3
    assert found.patch_scores.size == len(cut)
    distance = np.linalg.norm(network.encode(cut[-1], weights)[1] - weights["memory"], axis=1).min()
    assert found.patch_scores[-1, -1] == pytest.approx(distance, rel=1e-4)


@settings(max_examples=6, deadline=None)
@given(height=st.integers(64, 150), width=st.integers(64, 150), overlap=st.sampled_from([0.0, 0.5]))
def test_a_whole_picture_agrees_with_the_oracle(height, width, overlap):
    """Mirror, encode, address, decode and cut in NumPy; scores of as many patches as a sliding window has."""
    inspector = make(tile="picture", overlap=overlap)
    picture, step = noise(height, width, 1), inspector.config.stride
    weights = {k: v.numpy() for k, v in inspector.model.state_dict().items()}
    filled = patches.filled(picture, step)
    steps = network.generate(filled, weights, patch=64, step=step)
    restored = steps["reconstruction"]
    assert np.abs(inspector.reconstruct(picture) - restored[:height, :width]).max() < 1e-4
    found = inspector.inspect(picture, level="pixel")
    expected = fusion.anomaly_map(filled, restored, median=5)[:height, :width]
    assert np.abs(found.anomaly_map - expected).max() < 1e-3
    distances = np.linalg.norm(steps["z"][:, :, None] - weights["memory"], axis=3).min(2)
    assert found.patch_scores == pytest.approx(distances, rel=1e-4)
    assert found.patch_scores.size == len(patches.slice_patches(picture, 64, step)[0])


def test_crops_are_restored_as_pictures_are():
    for tile in ("patch", "picture"):
        model = make(tile=tile).model
        crops = torch.from_numpy(noise(3, 1, 100, 100))
        with torch.no_grad():
            together = background.restore_crops(model, crops)
            filled = model.filled(crops)
            alone = [background.restore(model, background.encode(model, crop)) for crop in filled]
        assert torch.allclose(together, torch.stack(alone)[:, :, :100, :100], atol=1e-5)


def test_learned_fusion_gives_the_map_and_agrees_with_its_oracle():
    inspector = make(iterations=(1, 1, 1))
    picture = noise(70, 90, 1)
    found = inspector.inspect(picture, level="pixel")
    weights = {k: v.numpy() for k, v in inspector.model.state_dict().items()}
    restored = inspector.reconstruct(picture)
    scores = learned_fusion.standard_scores(picture, restored, weights["mean"], weights["std"], weights)
    beyond = learned_fusion.beyond_good(scores)
    assert np.abs(found.anomaly_map - learned_fusion.learned_map(beyond)).max() < 1e-4
    reading = scoring.patch_alarms(learned_fusion.alarm(scores), 64).max()
    good = THRESHOLDS.picture
    expected = good_scores.surprise([reading], good.held_out) / good.threshold(0.05)
    assert found.score == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_patch_level_never_runs_the_decoder(inspector, monkeypatch):
    monkeypatch.setattr(FMRNet, "decode", lambda *_: pytest.fail("the decoder ran"))
    result = inspector.inspect(noise(100, 130), level="patch")
    assert result.level == "patch"
    assert result.anomaly_map is None
    assert result.mask is None
    assert result.patch_scores.shape == (3, 4)
    surprise = good_scores.surprise([result.patch_scores.max()], THRESHOLDS.patch.held_out)
    assert result.score == pytest.approx(surprise / THRESHOLDS.patch_threshold)


def test_auto_exits_early_only_when_every_patch_is_near(inspector):
    picture = noise(128, 128)
    largest = inspector.inspect(picture, level="patch").patch_scores.max()
    for factor, level in ((1.001, "patch"), (0.999, "pixel")):
        good = tiny.same(float(largest) * factor)
        result = Inspector(inspector.engine, replace(THRESHOLDS, patch=good, early_exit=SURE), {}).inspect(
            picture, level="auto"
        )
        assert result.level == level
        assert result.level == "pixel" or not result.defective
        unsure = Inspector(inspector.engine, replace(THRESHOLDS, patch=good), {}).inspect(
            picture, level="auto"
        )
        assert unsure.level == "pixel", "of an exit that nothing is known of, nothing is taken"


@settings(max_examples=20, deadline=None)
@given(
    good=st.lists(st.floats(0.001, 10).map(lambda reading: (reading,)), min_size=1, max_size=40),
    rate=st.floats(0.01, 0.9),
    level=st.sampled_from(["patch", "pixel"]),
    dark=st.booleans(),
)
def test_a_picture_is_defective_where_its_p_value_is_at_most_the_rate(inspector, good, rate, level, dark):
    scores = GoodScores(tuple(good))
    limits = replace(NO_LIMITS, level=((0.6, 1.0),)) if dark else NO_LIMITS
    calibration = replace(THRESHOLDS, picture=scores, patch=scores, limits=limits)
    asked = Inspector(inspector.engine, calibration, {})
    before = asked.inspect(noise(70, 90), level)
    asked.false_alarms = rate
    found = asked.inspect(noise(70, 90), level)
    assert found.defective == (found.p_value <= rate) == (found.score > 1)
    if not dark:
        assert found.p_value == before.p_value, "whatever the rate"
    else:
        assert found.defective
    assert found.patch_p_values.shape == found.patch_scores.shape
    surprise = scores.surprise(found.patch_scores.max()[None])
    assert found.patch_p_values.min() == pytest.approx(scores.p_value(float(surprise)))
    assert np.array_equal(found.patch_scores, before.patch_scores)


def test_pixel_level_gives_map_and_mask_at_the_pictures_size(inspector):
    result = inspector.inspect(noise(77, 131), level="pixel")
    assert result.anomaly_map.shape == result.mask.shape == (77, 131)
    assert result.anomaly_map.dtype == np.float32
    assert result.defective
    assert np.array_equal(result.mask, result.anomaly_map > THRESHOLDS.pixel_threshold)
    assert result.mask.any()
    lax = Inspector(inspector.engine, replace(THRESHOLDS, picture=tiny.same(1e9)), {})
    good = lax.inspect(noise(77, 131))
    assert np.array_equal(good.anomaly_map, result.anomaly_map)
    assert not good.defective
    assert not good.mask.any(), "a good picture has no defective pixels"
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
    fresh = Inspector(inspector.engine, THRESHOLDS, {})
    fresh.calibrate([noise(128, 96, seed=i) for i in range(3)], k=4.0)
    assert fresh.calibration.k == 4.0
    assert fresh.calibration.pictures == 3
    fresh.calibrate([noise(128, 96, seed=i) for i in range(3)], false_alarms=0.2)
    assert fresh.false_alarms == fresh.calibration.false_alarms == 0.2
    for few in ([], [noise(128, 96)]):
        with pytest.raises(
            DatasetError, match=f"{len(few)} good pictures to calibrate on: expected 2 or more"
        ):
            fresh.calibrate(few)
    assert fresh.calibration.pictures == 3


def test_a_model_that_is_not_calibrated_says_so(inspector, tmp_path):
    fresh = Inspector(inspector.engine, None, {})
    with pytest.raises(ArtifactError, match="run `fmrnet calibrate` with good pictures"):
        fresh.inspect(noise(70, 90))
    found = fresh.calibrate([noise(70, 90, seed=seed) for seed in range(3)])
    assert fresh.inspect(noise(70, 90)).p_value > 0
    assert (found.false_alarms, found.k) == (inspector.config.false_alarms, inspector.config.k)


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
    odd = Inspector(inspector.engine, THRESHOLDS, {})
    monkeypatch.setattr(odd.model, "config", replace(TINY, memory_entries=8))
    with pytest.raises(ArtifactError, match="not written"):
        odd.save(tmp_path / "b.fmr")
    weights = arrays_of(inspector.model.state_dict())
    artifact.save(artifact.Artifact(odd.config, THRESHOLDS.to_dict(), {}, weights), tmp_path / "b.fmr")
    with pytest.raises(ArtifactError, match="do not fit"):
        fmrnet.load(tmp_path / "b.fmr")


def test_large_picture_in_bounded_batches(inspector, monkeypatch):
    monkeypatch.setattr(background, "BATCH", 5)
    picture = noise(200, 230)
    few = inspector.inspect(picture, level="pixel").anomaly_map
    monkeypatch.undo()
    assert np.allclose(few, inspector.inspect(picture, level="pixel").anomaly_map, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    level=st.sampled_from(["patch", "pixel", "auto"]),
    low=st.floats(0, 0.49),
    spread=st.floats(0.01, 0.5),
    distance=st.floats(1e-3, 10),
    share=st.floats(0.5, 1),
    threshold=st.floats(1e-3, 100),
)
def test_defective_is_a_score_above_one_and_a_limit_only_raises_it(
    inspector, seed, level, low, spread, distance, share, threshold
):
    limits = Limits(((low, 0.5),), 0.1, ((0.0, spread),) * 4, distance, share)
    good = tiny.same(threshold)
    thresholds = replace(THRESHOLDS, picture=good, patch=good)
    picture = noise(64, 96, seed=seed)
    found = Inspector(inspector.engine, replace(thresholds, limits=limits), {}).inspect(picture, level)
    without = Inspector(inspector.engine, thresholds, {}).inspect(picture, found.level)
    assert found.defective == (found.score > 1)
    assert without.reasons == ()
    if found.reasons:
        assert found.defective
        assert found.score >= without.score
    else:
        assert found.score == without.score


def flat(value):
    return np.full((256, 256), value, np.float32)


@pytest.mark.parametrize("level", ["patch", "pixel", "auto"])
def test_what_is_wholly_unlike_the_good_pictures_is_never_good(level):
    """An untrained network, that sees nothing: what a picture is as a whole tells all the same."""
    inspector = tiny.make_inspector()
    good = tiny.ground(256, 256, seed=3)
    good_scores = tiny.same(1e9)
    thresholds = replace(inspector.calibration, patch=good_scores, picture=good_scores, early_exit=SURE)
    inspector = Inspector(inspector.engine, thresholds, {})
    assert inspector.inspect(good, level).reasons == ()
    twelve_bits = (good.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    for name, picture, reason in (
        ("one grey", flat(good.mean() / 255), "deviation 0.0000, below"),
        ("black", flat(0.0), "brightness 0.000, below"),
        ("white", flat(1.0), "brightness 1.000, above"),
        ("dark", good // 8, "brightness 0.0"),
        ("12 bits in 16", twelve_bits, "its values reach only 3.6% of the range; 12 bits in a 16-bit file?"),
    ):
        found = inspector.inspect(picture, level)
        assert found.defective, name
        assert found.score > 1
        assert any(text.startswith(reason) for text in found.reasons), (name, found.reasons)
    everywhere = replace(thresholds, pixel_threshold=1e-12)
    found = Inspector(inspector.engine, everywhere, {}).inspect(good, "pixel")
    assert found.reasons == (f"mask of 100% of the picture, above {thresholds.limits.share:.0%}",)
    far = replace(thresholds, limits=replace(thresholds.limits, distance=1e-3))
    found = Inspector(inspector.engine, far, {}).inspect(good, level)
    assert found.score == pytest.approx(np.median(found.patch_scores) / 1e-3)
    assert [reason.split(",")[0][:25] for reason in found.reasons] == ["median distance to good p"]


def test_auto_goes_on_to_the_map_of_a_picture_beyond_a_limit(inspector):
    sure = replace(THRESHOLDS, early_exit=SURE)
    assert Inspector(inspector.engine, sure, {}).inspect(noise(64, 64), "auto").level == "patch"
    limits = replace(NO_LIMITS, level=((0.9, 1.0),))
    found = Inspector(inspector.engine, replace(sure, limits=limits), {}).inspect(noise(64, 64), "auto")
    assert found.level == "pixel"
    assert found.defective


def test_limits_are_of_the_models_channels(inspector):
    limits = replace(NO_LIMITS, level=NO_LIMITS.level * 3)
    with pytest.raises(ArtifactError, match="limits of 3 channels for a model of 1"):
        Inspector(inspector.engine, replace(THRESHOLDS, limits=limits), {})


@pytest.mark.parametrize("level", ["patch", "pixel"])
def test_an_answer_that_is_no_number_is_an_error_not_a_good_picture(level):
    broken = make()
    for parameter in broken.model.encoder.parameters():
        parameter.fill_(3e38)
    with pytest.raises(ArtifactError, match="train it again"):
        broken.inspect(noise(64, 64), level)


def arrays():
    """A picture in each kind of array that `inspect` takes."""
    values = np.random.default_rng(0).integers(0, 256, (70, 90), dtype=np.uint8)
    colour = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    yield from (
        values,
        values[:, :, None],
        values[::-1, ::-1],
        np.asfortranarray(values),
        colour,
        colour[..., ::-1],
    )
    yield from ((values * np.uint16(257)).astype(np.uint16), (values.astype(np.uint16) * 257).astype(">u2"))
    for dtype in (np.float16, np.float32, np.float64):
        yield (values / 255).astype(dtype)


def test_many_threads_at_once_find_what_one_finds():
    inspector = make(iterations=(1, 1, 1))
    pictures = list(arrays())
    alone = [inspector.inspect(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(inspector.inspect, pictures * 3))
    for found, expected in zip(together, alone * 3, strict=True):
        assert found.score == expected.score
        assert np.array_equal(found.anomaly_map, expected.anomaly_map)
        assert np.array_equal(found.patch_scores, expected.patch_scores)
    assert np.array_equal(alone[0].anomaly_map, alone[1].anomaly_map)


@pytest.mark.parametrize(
    "setting",
    [{"k": k} for k in (np.nan, np.inf, -np.inf, -5, 1e6)]
    + [{"false_alarms": rate} for rate in (2, 0, 1, -1, np.nan)],
)
def test_calibration_with_settings_out_of_range_is_refused_before_any_work(inspector, setting):
    class Untouched:
        def __iter__(self):
            pytest.fail("the pictures were looked at")

    fresh = Inspector(inspector.engine, THRESHOLDS, {})
    with pytest.raises(ConfigError, match=next(iter(setting))):
        fresh.calibrate(Untouched(), **setting)
    assert fresh.calibration == THRESHOLDS


def test_calibration_names_every_picture_it_cannot_use(inspector, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "encode", lambda *_: pytest.fail("work was begun"))
    Image.new("L", (10, 10)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    given = [noise(70, 70), tmp_path / "small.png", noise(70, 80), tmp_path / "text.png", np.zeros(3)]
    fresh = Inspector(inspector.engine, THRESHOLDS, {})
    with pytest.raises(PictureError) as caught:
        fresh.calibrate(given)
    for named in ("small.png: 10x10 pixels", "text.png", "picture 4"):
        assert named in str(caught.value)
    assert "picture 0" not in str(caught.value)
    assert fresh.calibration == THRESHOLDS


def test_calibration_names_its_suspects_by_their_files(inspector, tmp_path):
    for number in range(9):
        values = np.random.default_rng(number).integers(100, 150, (70, 90), dtype=np.uint8)
        Image.fromarray(values if number != 4 else values // 50).save(tmp_path / f"{number}.png")
    fresh = Inspector(inspector.engine, THRESHOLDS, {})
    found = fresh.calibrate(sorted(tmp_path.iterdir()))
    assert [suspect.picture for suspect in found.suspects] == [str(tmp_path / "4.png")]
    assert found.pictures == 8
    assert fresh.calibration == found
    fresh.save(tmp_path / "a.fmr")
    assert fmrnet.load(tmp_path / "a.fmr", device="cpu").calibration == found
