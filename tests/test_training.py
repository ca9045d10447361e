"""Training by Algorithm 1: what each phase may change, resuming bit for bit, stopping, and clear errors."""

import errno
import math
import os
import shutil
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import without_names
from weave import TINY, learn, make_pictures, weights_of

import fmrnet
from fmrnet.artifact import read_tensors, write_tensors
from fmrnet.errors import ArtifactError, ConfigError, DatasetError, FmrnetError, PictureError
from fmrnet.learning import data, fusion_training, generator_training, losses, training
from fmrnet.learning.checkpoint import checkpoint_path
from fmrnet.learning.critics import Discriminator
from fmrnet.learning.training import Interrupted
from fmrnet.network.learned_fusion import LearnedFusion
from fmrnet.network.model import FMRNet
from fmrnet.pictures import read_picture


@pytest.fixture
def good(tmp_path):
    """Five small grey pictures of a noisy weave."""
    return make_pictures(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The model of a training on these pictures that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    learn(make_pictures(folder), folder / "whole.fmr")
    return folder / "whole.fmr"


def assert_same(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


class StopAt:
    """A progress callback that presses Ctrl-C once a given phase is reached."""

    def __init__(self, phase):
        self.phase = phase

    def __call__(self, phase, step, total, loss):
        if phase == self.phase:
            os.kill(os.getpid(), signal.SIGINT)


def test_trains_and_loads(good, tmp_path):
    inspector = learn(good, tmp_path / "a.fmr")
    assert inspector.engine.name == "torch cpu"  # whose scores the engines on graphs are compared with
    loaded = fmrnet.load(tmp_path / "a.fmr", engine="torch")
    assert loaded.config == replace(TINY, image_channels=1)
    assert loaded.calibration == inspector.calibration
    assert not checkpoint_path(tmp_path / "a.fmr").exists()
    picture = good / "0.png"
    found, again = (i.inspect(picture, level="pixel") for i in (inspector, loaded))
    assert np.array_equal(found.anomaly_map, again.anomaly_map)
    assert loaded.provenance["seed"] == 0
    assert len(loaded.provenance["good"]["sha256"]) == 64
    assert "/" not in loaded.provenance["command"].split()[0], "the folder that the program lies in"


def test_same_seed_same_bits_other_seed_other_bits(good, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        learn(good, tmp_path / name, seed=seed)
    assert_same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert not torch.equal(weights_of(tmp_path / "a")["memory"], weights_of(tmp_path / "c")["memory"])


@pytest.mark.parametrize("report_steps", [2, 3])
@pytest.mark.parametrize("phase", ["phase 1", "phase 2", "crops", "fusion"])
def test_interrupted_and_resumed_is_bit_identical(good, whole, tmp_path, monkeypatch, phase, report_steps):
    monkeypatch.setattr(training, "REPORT_STEPS", report_steps)
    with pytest.raises(Interrupted, match="--resume"):
        learn(good, tmp_path / "parts", progress=StopAt(phase))
    assert not (tmp_path / "parts").exists()
    learn(good, tmp_path / "parts", resume=True)
    assert_same(weights_of(whole), weights_of(tmp_path / "parts"))
    assert not checkpoint_path(tmp_path / "parts").exists()


class StopAfter:
    """Presses Ctrl-C in the middle of a step, when so many have been begun in all."""

    def __init__(self, monkeypatch, steps):
        self.left = steps
        for module in (generator_training, fusion_training):
            monkeypatch.setattr(module, "update", partial(self.update, module.update))

    def update(self, update, *arguments):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return update(*arguments)


@pytest.mark.parametrize("steps", [1, 5, 8, 13])
def test_loss_curve_of_a_resumed_training(good, tmp_path, monkeypatch, steps):
    monkeypatch.setattr(training, "REPORT_STEPS", 3)
    whole = learn(good, tmp_path / "whole")
    StopAfter(monkeypatch, steps)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "parts")
    resumed = learn(good, tmp_path / "parts", resume=True)
    assert resumed.provenance["loss_curve"] == whole.provenance["loss_curve"]
    assert [tuple(entry[:2]) for entry in whole.provenance["loss_curve"]] == [(1, 3), (1, 6), (2, 3), (3, 3)]
    assert_same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"))


def test_stopped_while_it_calibrates(good, whole, tmp_path, monkeypatch):
    standardise = LearnedFusion.standardise

    def stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        standardise(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LearnedFusion, "standardise", stop)
        with pytest.raises(Interrupted, match="stopped in calibration"):
            learn(good, tmp_path / "a")
    resumed = learn(good, tmp_path / "a", resume=True)
    assert_same(weights_of(tmp_path / "a"), weights_of(whole))
    assert without_names(resumed.calibration) == without_names(fmrnet.load(whole).calibration)


def test_thresholds_rest_on_pictures_that_are_not_learnt(good, tmp_path, monkeypatch):
    seen = []

    def watch(engine, pictures, **options):
        seen.extend(list(pictures))
        return calibrate(engine, seen, **options)

    calibrate = training.calibrate
    monkeypatch.setattr(training, "calibrate", watch)
    learn(good, tmp_path / "a")
    ((name, picture),) = seen
    assert name == str(good / "4.png")
    assert np.array_equal(picture[0], read_picture(good / "4.png"))  # the fifth of five


def test_a_checkpoint_in_the_way_is_kept_until_the_user_decides(good, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "REPORT_STEPS", 2)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", progress=StopAt("phase 2"))
    checkpoint = checkpoint_path(tmp_path / "a")
    content = checkpoint.read_bytes()
    expected = (
        r"a.checkpoint is there, .* in phase 2 at step 2 of 5, .*; .* --resume, or give it up with --restart"
    )
    with pytest.raises(ArtifactError, match=expected):
        learn(good, tmp_path / "a")
    with pytest.raises(ConfigError, match="give one of them"):
        learn(good, tmp_path / "a", resume=True, restart=True)
    with pytest.raises(DatasetError):
        learn(tmp_path / "missing", tmp_path / "a", restart=True)
    assert checkpoint.read_bytes() == content
    begun = []
    learn(good, tmp_path / "a", restart=True, seed=1, progress=lambda *now: begun.append(now[:2]))
    assert begun[0] == ("phase 1", 2)
    assert not checkpoint.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint of ours", None])
def test_a_checkpoint_that_cannot_be_read_is_named_and_may_be_given_up(good, whole, tmp_path, content):
    checkpoint = checkpoint_path(tmp_path / "a")
    checkpoint.write_bytes(whole.read_bytes() if content is None else content)  # a model is no checkpoint
    with pytest.raises(ArtifactError, match=r"a checkpoint that cannot be read; .* --restart"):
        learn(good, tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"a\.checkpoint"):
        learn(good, tmp_path / "a", resume=True)
    learn(good, tmp_path / "a", restart=True)
    assert_same(weights_of(tmp_path / "a"), weights_of(whole))


def no_step(*arguments):
    raise AssertionError("a step was done")


def test_a_place_where_nothing_can_be_written_is_named_before_the_first_step(good, tmp_path, monkeypatch):
    monkeypatch.setattr(generator_training, "update", no_step)
    (tmp_path / "models").mkdir()
    with pytest.raises(ArtifactError, match="models is a folder"):
        learn(good, tmp_path / "models")
    checkpoint_path(tmp_path / "a").mkdir()
    with pytest.raises(ArtifactError, match=r"a\.checkpoint is a folder"):
        learn(good, tmp_path / "a")
    with pytest.raises(ArtifactError, match="no folder"):
        learn(good, tmp_path / "missing" / "a.fmr")


ROOMY = pytest.mark.parametrize("small_disk", ["16m"], indirect=True)  # two checkpoints of the tiny training


def fill(disk, room):
    """Leave no more than `room` bytes."""
    taken = shutil.disk_usage(disk).free - room
    (disk / "other").write_bytes(bytes(max(taken, 0)))


@ROOMY
def test_a_full_disk_is_named_before_the_first_step(good, small_disk, monkeypatch):
    monkeypatch.setattr(generator_training, "update", no_step)
    fill(small_disk, 1_000_000)
    with pytest.raises(
        OSError, match=r"MB are free, the checkpoints of this training take .*; make room"
    ) as caught:
        learn(good, small_disk / "a")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(small_disk) == ["other"]


@ROOMY
def test_a_disk_that_fills_at_the_last_save_costs_nothing(good, whole, small_disk, monkeypatch):
    def fill_and_calibrate(*arguments, **options):
        fill(small_disk, 4096)
        return calibrate(*arguments, **options)

    calibrate = training.calibrate
    with monkeypatch.context() as patch:
        patch.setattr(training, "calibrate", fill_and_calibrate)
        with pytest.raises(
            OSError, match=r"the training is kept in .*a.checkpoint: repeat .* --resume"
        ) as caught:
            learn(good, small_disk / "a")
    assert caught.value.filename == str(small_disk / "a")
    assert sorted(os.listdir(small_disk)) == ["a.checkpoint", "other"]
    (small_disk / "other").unlink()
    monkeypatch.setattr(generator_training, "update", no_step)
    monkeypatch.setattr(fusion_training, "update", no_step)
    resumed = learn(good, small_disk / "a", resume=True)
    assert_same(weights_of(small_disk / "a"), weights_of(whole))
    assert without_names(resumed.calibration) == without_names(fmrnet.load(whole).calibration)
    assert os.listdir(small_disk) == ["a"]


def test_no_file_of_another_kind_is_replaced(good, tmp_path, monkeypatch):
    monkeypatch.setattr(generator_training, "update", no_step)
    picture = (good / "0.png").read_bytes()
    with pytest.raises(ArtifactError, match=r"0.png is no model, and is not replaced"):
        learn(good, good / "0.png")
    assert (good / "0.png").read_bytes() == picture


def test_home_folder(good, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    training.train("~/good", "~/a", config=TINY, anomalies="~/natural")
    assert (tmp_path / "a").is_file()


def test_ctrl_c_handler_is_put_back(good, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    learn(good, tmp_path / "a")
    assert signal.getsignal(signal.SIGINT) is before


def test_periodic_checkpoint_survives_a_crash(good, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "REPORT_STEPS", 2)

    def crash(phase, step, total, loss):
        if phase == "phase 2":
            raise MemoryError

    with pytest.raises(MemoryError):
        learn(good, tmp_path / "a", progress=crash)
    learn(good, tmp_path / "a", resume=True)
    assert_same(weights_of(tmp_path / "a"), weights_of(whole))


def test_phase_2_locks_encoder_and_bank(good, tmp_path, monkeypatch):
    seen = {}
    establish = training.bank.establish_bank

    def watch(model, pool):
        bank = establish(model, pool)
        seen.update({k: v.clone() for k, v in model.state_dict().items()}, memory=bank.clone())
        return bank

    monkeypatch.setattr(training.bank, "establish_bank", watch)
    learn(good, tmp_path / "a")
    after = weights_of(tmp_path / "a")
    locked = [k for k in after if k.startswith(("encoder.", "memory", "mean", "std"))]
    assert any("running_var" in k for k in locked)
    assert all(torch.equal(seen[k], after[k]) for k in locked)
    for part in (
        "decoder.0.conv",
        "addressing.hidden",
        "mixing.0",
        "output.weight",
        "decoder.3.norm.running_mean",
    ):
        assert any(not torch.equal(seen[k], after[k]) for k in after if k.startswith(part)), part


def test_phase_1_trains_everything_but_the_addressing(good, tmp_path, monkeypatch):
    torch.manual_seed(0)
    begun = {k: v.clone() for k, v in FMRNet(replace(TINY, image_channels=1)).state_dict().items()}
    seen = {}
    establish = training.bank.establish_bank
    monkeypatch.setattr(
        training.bank, "establish_bank", lambda m, p: seen.update(m.state_dict()) or establish(m, p)
    )
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", progress=StopAt("phase 2"))
    for part in ("encoder.0.conv.weight", "encoder.4.conv.weight", "decoder.0.conv.weight", "mixing.1"):
        assert not torch.equal(begun[part], seen[part]), part
    tensors, _ = read_tensors(checkpoint_path(tmp_path / "a"))
    assert any(k.startswith("classifier.") for k in tensors)


def test_phase_1_teaches_the_latents_what_a_defect_is(good, tmp_path, monkeypatch):
    """Where its entropy weighs as much as L_rec: C_A's falls below a coin's, 2 ln 2."""
    latent_loss, entropies = losses.latent_loss, []

    def remember(r0, r_pos, logit_pos, logit_neg, compactness, defective):
        entropies.append(latent_loss(r0, r_pos, logit_pos, logit_neg, 0.0, defective).item())
        return latent_loss(r0, r_pos, logit_pos, logit_neg, compactness, defective)

    monkeypatch.setattr(losses, "latent_loss", remember)
    config = replace(
        TINY,
        channels=(8, 8, 16, 16, 16),
        iterations=(100, 1, 0),
        batch_size=16,
        weight_lat=100.0,
        compactness=2e-4,
    )
    learn(good, tmp_path / "model.fmr", config=config)
    assert np.mean(entropies[-25:]) < 1.3 < 2 * np.log(2)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_discriminator_learns_where_its_loss_counts(good, tmp_path, weight):
    config = replace(TINY, weight_adv=weight, image_channels=1)
    torch.manual_seed(0)
    FMRNet(config)
    begun = Discriminator(config).state_dict()
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", config=config, progress=StopAt("phase 2"))
    tensors = weights_of(checkpoint_path(tmp_path / "a"))
    kept = [torch.equal(value, tensors[f"discriminator.{name}"]) for name, value in begun.items()]
    assert not any(kept) if weight else all(kept)
    assert weight or not any(name.startswith("moments.discriminator") for name in tensors)
    learn(good, tmp_path / "a", config=config, resume=True)
    learn(good, tmp_path / "b", config=config)
    assert_same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


def test_fusion_phase_trains_the_fusion_alone(good, tmp_path, monkeypatch):
    begun = {}
    update = fusion_training.update

    def watch(model, *given):
        begun.update({} if begun else {k: v.clone() for k, v in model.state_dict().items()})
        return update(model, *given)

    monkeypatch.setattr(fusion_training, "update", watch)
    learn(good, tmp_path / "a")
    changed = {
        name for name, value in weights_of(tmp_path / "a").items() if not torch.equal(value, begun[name])
    }
    assert changed == {name for name in begun if name.startswith("fusion.")}


@pytest.mark.parametrize(("total", "expected"), [(11, (6, 5, 0)), (110, (60, 50, 0)), (1, (1, 1, 0))])
def test_iterations_are_shared_out(good, tmp_path, total, expected):
    inspector = learn(good, tmp_path / "a", config=replace(TINY, iterations=(6, 5, 0)), iterations=total)
    assert inspector.config.iterations == expected


def test_memory_entries_are_means_of_normal_latents(whole):
    inspector = fmrnet.load(whole)
    bank = inspector.model.memory
    assert bank.shape == (16, inspector.config.latent_size)
    assert torch.isfinite(bank).all()


WHOLE = replace(TINY, tile="picture")


def test_whole_pictures_are_learnt_from_crops_of_as_many_pixels(good, tmp_path, monkeypatch):
    seen = []
    update = generator_training.update

    def watch(networks, optimisers, step, phase):
        seen.append((phase, step.normal.shape, step.synthetic.shape, step.support.shape))
        return update(networks, optimisers, step, phase)

    monkeypatch.setattr(generator_training, "update", watch)
    inspector = learn(
        good, tmp_path / "a", config=replace(WHOLE, overlap=0.5, iterations=(1, 1, 1), batch_size=9)
    )
    crops = (9, 1, 64, 64)  # the natural picture has 80 pixels a side, and a window more takes 96
    assert inspector.config.tile == "picture"
    assert {shape for _, *shapes, _ in seen for shape in shapes} == {crops}


@pytest.mark.parametrize(
    ("batch", "largest", "expected"),
    [(32, 500, (8, 128)), (32, 103, (14, 96)), (32, 64, (32, 64)), (1, 500, (1, 128)), (32, 128, (8, 128))],
)
def test_crops_of_whole_pictures(batch, largest, expected):
    config = replace(WHOLE, overlap=0.5, batch_size=batch)
    assert generator_training._crops(config, largest) == expected
    assert generator_training._crops(replace(config, tile="patch"), largest) == (batch, 64)


def test_windows_with_most_of_a_defect_count_as_defective():
    support = torch.zeros(3, 128, 128)
    support[0, :30, :30] = 1  # in the first window alone
    support[1, 40:60, 40:60] = 1  # in four, all of it in each
    support[1, 0, 0] = 1
    found = generator_training._defective(support, replace(WHOLE, overlap=0.5)).view(3, 3, 3)
    assert found[0].nonzero().tolist() == [[0, 0]]
    assert found[1].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found[2].all()  # where nothing can be seen, no window is left out: there is always one
    assert generator_training._defective(support[:, :64, :64], WHOLE).tolist() == [True] * 3


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_the_bank_of_whole_pictures_is_of_their_windows(good, tmp_path, overlap):
    """A fixed point of K-means on all windows, 8 pixels apart, of pictures that pass at once."""
    torch.manual_seed(0)
    model = FMRNet(replace(WHOLE, overlap=overlap)).eval()
    pictures = data.load_good_pictures(good, 64)[0]
    entries = training.bank.establish_bank(model, data.PicturePool(pictures))
    latents = []
    step = model.config.stride
    for picture in data.PicturePool(pictures).whole():
        for row, column in [(a, b) for a in range(0, step, 8) for b in range(0, step, 8)]:
            if row <= picture.shape[1] - 64 and column <= picture.shape[2] - 64:
                latents.append(model.encode(model.filled(picture[None, :, row:, column:])).z.detach())
    every = torch.cat(latents)
    nearest = torch.cdist(every, entries).argmin(1)
    for number, entry in enumerate(entries):
        torch.testing.assert_close(entry, every[nearest == number].mean(0), rtol=1e-3, atol=1e-4)


def test_a_training_of_patches_does_not_go_on_with_whole_pictures(good, tmp_path):
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", progress=StopAt("phase 1"))
    with pytest.raises(ArtifactError, match="setting tile differs"):
        learn(good, tmp_path / "a", config=WHOLE, resume=True)


def test_resume_without_a_checkpoint_begins(good, whole, tmp_path):
    learn(good, tmp_path / "a", resume=True)
    assert_same(weights_of(tmp_path / "a"), weights_of(whole))


def test_resume_with_other_settings_or_pictures(good, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "REPORT_STEPS", 2)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", progress=StopAt("phase 1"))
    with pytest.raises(ArtifactError, match="setting learning_rate differs"):
        learn(good, tmp_path / "a", config=replace(TINY, learning_rate=1e-4), resume=True)
    tolerant = learn(good, tmp_path / "b", config=replace(TINY, k=5.0))
    shutil.copy(checkpoint_path(tmp_path / "a"), checkpoint_path(tmp_path / "c"))
    later = learn(good, tmp_path / "c", config=replace(TINY, k=5.0), resume=True)  # k comes in after training
    assert later.calibration == tolerant.calibration
    shutil.copy(good / "1.png", good / "0.png")
    with pytest.raises(ArtifactError, match="good pictures differs"):
        learn(good, tmp_path / "a", resume=True)
    tensors, metadata = read_tensors(checkpoint_path(tmp_path / "a"))
    metadata["config"]["gone"] = 1  # a setting of an earlier version
    write_tensors(checkpoint_path(tmp_path / "a"), tensors, metadata)
    with pytest.raises(ArtifactError, match="list of settings differs"):
        learn(good, tmp_path / "a", resume=True)


def test_resume_from_another_releases_networks(good, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "REPORT_STEPS", 2)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a", progress=StopAt("phase 1"))
    tensors, metadata = read_tensors(checkpoint_path(tmp_path / "a"))
    tensors["model.fusion.good_mean"] = np.zeros(2, np.float32)  # as an earlier version had it
    write_tensors(checkpoint_path(tmp_path / "a"), tensors, metadata)
    with pytest.raises(ArtifactError, match=r"another release's, whose model does not fit .* --restart"):
        learn(good, tmp_path / "a", resume=True)


def test_divergence_is_told(good, tmp_path, monkeypatch):
    finite = losses.reconstruction_loss
    monkeypatch.setattr(losses, "reconstruction_loss", lambda *pictures: finite(*pictures) * math.inf)
    with pytest.raises(FmrnetError, match="lower the learning rate"):
        learn(good, tmp_path / "a", config=replace(TINY, iterations=(30, 30, 0)))


def test_a_fusion_that_diverges_names_settings_of_its_own(good, tmp_path, monkeypatch):
    """Its learning rate is none of them."""
    finite = losses.focal_loss
    monkeypatch.setattr(losses, "focal_loss", lambda *given: finite(*given) * math.inf)
    with pytest.raises(
        FmrnetError, match=r"diverged in .* try another seed, or a larger batch_size \(now 4\)$"
    ):
        learn(good, tmp_path / "a")


def test_too_few_patches_names_count_and_remedy(good, tmp_path):
    with pytest.raises(DatasetError, match=r"give 140 patches .* 512 memory entries .*larger pictures"):
        learn(good, tmp_path / "a", config=replace(TINY, memory_entries=512))


def test_small_picture_is_named(good, tmp_path):
    Image.new("L", (63, 200)).save(good / "slim.png")
    with pytest.raises(PictureError, match=r"slim.png: 63x200 pixels, smaller than a patch of 64x64"):
        learn(good, tmp_path / "a")


@pytest.mark.parametrize("make", [True, False])
def test_no_good_pictures(tmp_path, make):
    if make:
        (tmp_path / "good").mkdir()
    with pytest.raises(DatasetError, match="good"):
        learn(tmp_path / "good", tmp_path / "a")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_trains_on_cuda(good, tmp_path):
    inspector = learn(good, tmp_path / "a", device="cuda")
    assert fmrnet.load(tmp_path / "a", device="cpu").inspect(good / "0.png", "pixel").anomaly_map.shape == (
        96,
        112,
    )
    assert inspector.engine.device.type == "cuda"
