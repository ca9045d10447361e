"""Algorithm 1: phase 1, the memory bank, phase 2; then the learned fusion, if asked for, and calibration.

Every step draws from a generator seeded by (seed, phase, step) alone. Weights, optimiser moments and the two
counters are therefore the whole state of a training, and a checkpoint of these resumes it bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fmrnet import artifact, devices
from fmrnet.config import Config, preset
from fmrnet.errors import ArtifactError, FmrnetError
from fmrnet.inspection import background
from fmrnet.inspection.calibration import calibrate
from fmrnet.inspection.inspector import Inspector, load
from fmrnet.inspection.limits import look
from fmrnet.learning import bank, data, losses
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.synthesis import lit, speckled, synthetic_defects
from fmrnet.network.learned_fusion import defect_labels, fusion_inputs, size_weights, without_light
from fmrnet.network.model import FMRNet

__all__ = ["CHECKPOINT_SUFFIX", "Interrupted", "checkpoint_path", "train"]

CHECKPOINT_SUFFIX = ".checkpoint"
CHECKPOINT_SECONDS = 60.0
AFTER_TRAINING = ("median", "k", "patch_quantile")  # settings that may change before a training goes on
REPORT_STEPS = 10
FUSION_RATE = 3e-3  # learning rate of the learned fusion
LEAST_SPECKLE = 0.05  # of a crop's pixels, where the fusion is to take no notice: a lone speck is a defect
CROPS_AT_ONCE = 16  # of the fusion's crops, when they are restored

Progress = Callable[[str, int, int, float], None]
Optimisers = dict[str, torch.optim.Adam]
PHASES = {1: "phase 1", 2: "phase 2", 3: "fusion"}


class Interrupted(FmrnetError):
    """Training was stopped by Ctrl-C or a termination signal; its checkpoint is written."""


def checkpoint_path(out: str | Path) -> Path:
    """Where the training of the model file `out` keeps its checkpoint."""
    return Path(f"{out}{CHECKPOINT_SUFFIX}")


@dataclass
class Networks:
    """Everything that training changes."""

    model: FMRNet
    discriminator: Discriminator
    classifier: AuxiliaryClassifier

    def generator_parameters(self, phase: int) -> list[nn.Parameter]:
        """Phase 1 trains encoder, decoder, GFRM and C_A; phase 2 decoder, GFRM and A_N (E and bank are locked)."""
        model = self.model
        shared = chain(model.decoder.parameters(), model.output.parameters(), model.mixing_parameters())
        if phase == 1:
            return [*shared, *model.encoder.parameters(), *self.classifier.parameters()]
        return [*shared, *model.addressing.parameters()]

    def begin(self, phase: int) -> Optimisers:
        """Set what learns in this phase, and give it fresh optimisers."""
        for module in (self.model, self.discriminator, self.classifier):
            module.train().requires_grad_(True)
        rate = self.model.config.learning_rate
        if phase == 3:
            self.model.eval().requires_grad_(False)
            assert self.model.fusion is not None
            fusion = self.model.fusion.train().requires_grad_(True)
            return {"fusion": torch.optim.Adam(fusion.parameters(), rate, fused=True)}
        if phase == 2:
            self.model.encoder.eval().requires_grad_(False)
        optimisers = {"generator": torch.optim.Adam(self.generator_parameters(phase), rate, fused=True)}
        if self.model.config.weight_adv:
            of_discriminator = torch.optim.Adam(self.discriminator.parameters(), rate, fused=True)
            optimisers["discriminator"] = of_discriminator
        return optimisers


@dataclass
class Step:
    """One training step's pictures: normal crops I_o and I^+, synthetic defects I_s (B, C, S, S), and their S."""

    normal: Tensor
    positive: Tensor
    synthetic: Tensor
    support: Tensor


@dataclass
class Crops:
    """What the learned fusion learns from: pictures with synthetic defects, their backgrounds, and labels."""

    image: Tensor  # (N, C, S, S), without light
    background: Tensor  # in [0, 1]
    label: Tensor  # (N, S, S), of `defect_labels`


@dataclass
class Position:
    """How far a training is: phase, steps done in it, the loss curve and the seconds used so far."""

    phase: int = 1
    step: int = 0
    seconds: float = 0.0
    history: list[tuple[int, int, float]] = field(default_factory=list)  # phase, step, mean loss


def train(
    good: str | Path,
    out: str | Path,
    *,
    config: Config | str = "edge",
    iterations: int | None = None,
    seed: int = 0,
    anomalies: str | Path | None = None,
    device: str = "auto",
    bits: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Inspector:
    """Learn a texture from good pictures and write the model to one file.

    Parameters
    ----------
    good : path
        Folder of good pictures (or a data set in the MVTec layout, of which `train/good` is taken). Some are
        held out for calibration: see `fmrnet.learning.data.hold_out`.
    out : path
        The model file. While training, a checkpoint stands beside it.
    config : Config or str
        Settings, or the name of a preset: "edge" or "paper".
    iterations : int, optional
        Steps of all phases together, shared out as in the settings.
    seed : int
        Fixes weights, data order and synthesis. On CPU the same seed, machine and thread count give the same bits.
    anomalies : path, optional
        Folder of natural pictures; default: those that installed packages ship.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    bits : int, optional
        How many bits of a 16-bit good picture's values are in use, as `fmrnet.pictures.read_picture` takes it; the
        model inspects with the same.
    resume : bool
        Continue from the checkpoint beside `out`, to the same weights as if never stopped.
    progress : callable, optional
        Called now and then with phase name, step, total steps and mean loss since the last call; the phases are
        "phase 1", "phase 2", "crops" (restored for the fusion; no loss, NaN) and "fusion".

    Returns
    -------
    Inspector
        Calibrated and ready.

    Raises
    ------
    DatasetError, PictureError
        If the good pictures cannot be used: none, too small, unreadable, or fewer patches than memory entries.
    ArtifactError
        If the checkpoint to resume from is missing, or belongs to another training.
    Interrupted
        On Ctrl-C, after the checkpoint is written.
    """
    config = preset(config) if isinstance(config, str) else config
    out, where = Path(out), devices.choose_device(device)
    pictures, channels = data.load_good_pictures(good, config.patch_size, bits)
    config = dataclasses.replace(config, image_channels=channels, seed=seed)
    if iterations is not None:
        config = dataclasses.replace(config, iterations=_share_out(iterations, config.iterations))
    learn, held_out = data.hold_out(pictures, config.patch_size)
    good_pool = data.GoodPool(learn, config.patch_size) if config.by_rarity else data.PicturePool(learn)
    bank.check_enough_patches(good_pool, config.patch_size, config.memory_entries)
    natural_pool = data.load_natural_pictures(anomalies, channels, config.patch_size)
    if not out.parent.is_dir():
        raise ArtifactError(f"{out}: the folder {out.parent} does not exist; make it first")
    identity = {
        "kind": "checkpoint",
        "config": {k: v for k, v in config.to_dict().items() if k not in AFTER_TRAINING},
        "good_sha256": good_pool.digest(),
        "natural_sha256": natural_pool.digest(),
    }

    torch.manual_seed(seed)
    model = FMRNet(config)
    model.mean, model.std = good_pool.statistics()
    networks = Networks(model, Discriminator(config), AuxiliaryClassifier(config))
    for module in (networks.model, networks.discriminator, networks.classifier):
        module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    position, moments = Position(), None
    if resume:
        position, moments = _load_checkpoint(checkpoint_path(out), networks, identity)

    with _stop_signal() as stop:
        while position.phase <= len(PHASES) and config.iterations[position.phase - 1]:
            optimisers = networks.begin(position.phase)
            if moments is not None:
                _restore_moments(optimisers, moments)
                moments = None
            updates: Iterator[Callable[[], Tensor]]
            if position.phase < 3:
                steps = _steps(config, position, good_pool, natural_pool, where)
                updates = (partial(_update, networks, optimisers, step, position.phase) for step in steps)
            else:
                interrupt = partial(_interrupt, networks, optimisers, position, out, identity)
                between = partial(_between_crops, stop, interrupt, progress)
                batches = _fusion_batches(model, position, good_pool, natural_pool, where, between)
                updates = (partial(_update_fusion, networks, optimisers, batch) for batch in batches)
            _run_phase(networks, optimisers, updates, position, stop, out, identity, progress)
            if position.phase == 1:
                networks.model.memory.copy_(bank.establish_bank(networks.model, good_pool))
            position.phase, position.step = position.phase + 1, 0

    provenance = {
        "command": " ".join(sys.argv),
        "versions": {name: version(name) for name in ("fmrnet", "torch", "numpy", "scikit-learn")},
        "device": devices.describe(where),
        "good": {"pictures": len(pictures), "learnt": len(learn), "sha256": identity["good_sha256"]},
        "natural": {"folder": str(anomalies) if anomalies else None, "sha256": identity["natural_sha256"]},
        "bits": bits,
        "seed": seed,
        "seconds": round(position.seconds, 1),
        "loss_curve": position.history,
    }
    model = networks.model.eval().requires_grad_(False)
    good_pictures = [torch.from_numpy(p.transpose(2, 0, 1).copy()).to(where) for p in held_out]
    if model.fusion is not None:
        restored = ((p, background.restore(model, background.encode(model, p))) for p in good_pictures)
        model.fusion.standardise(restored, model.mean, model.std)
    pixels = round(statistics.median(p.shape[0] * p.shape[1] for p in pictures))
    learnt_names, held_names = data.hold_out_names([str(file) for file in data.good_files(good)])
    learnt = dict(zip(learnt_names, (look(picture) for picture in good_pool.whole())))
    thresholds = calibrate(model, good_pictures, pixels=pixels, names=held_names, learnt=learnt)
    Inspector(model, thresholds, provenance).save(out)
    checkpoint_path(out).unlink(missing_ok=True)
    return load(out, device)


def _share_out(total: int, pattern: tuple[int, int, int]) -> tuple[int, int, int]:
    """`total` steps in the proportions of `pattern`, at least one where the pattern has any."""
    first, second, third = (max(1, round(total * part / sum(pattern))) if part else 0 for part in pattern)
    return first, second, third


def _steps(
    config: Config,
    position: Position,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
) -> Iterator[Step]:
    """The pictures of each remaining step of the phase, cut and synthesised from that step's own seed."""
    generator = torch.Generator()
    count, size = config.batch_size, config.patch_size
    for step in range(position.step, config.iterations[position.phase - 1]):
        generator.manual_seed(_step_seed(config, position.phase, step))
        normal, positive = good.crops(2 * count, size, generator).to(device).chunk(2)
        contents = natural.crops(count, size, generator).to(device)
        synthetic, support = synthetic_defects(normal, contents, positive, generator)
        if position.phase == 2:
            synthetic = speckled(synthetic, config.speckle, generator)
        yield Step(normal, positive, synthetic, support)


def _step_seed(config: Config, phase: int, step: int) -> int:
    return (config.seed * len(PHASES) + phase - 1) * 2**32 + step


@torch.no_grad()
def _fusion_crops(
    model: FMRNet,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> Crops:
    """Crops of several patches, for the fusion looks at stitched pictures: as many as it has steps.

    Restoring them costs more than a step on them does; each is seen about eight times, mirrored anew. `between` is
    called with the number of restored crops and of all.
    """
    config, generator = model.config, torch.Generator()
    size = min(config.patch_size * 2, good.largest_crop, natural.largest_crop)
    spread = good.light(config.patch_size).to(device)
    parts = []
    for first in range(0, config.iterations[2], CROPS_AT_ONCE):
        generator.manual_seed(_step_seed(config, 3, 2**31 + first))
        between(first, config.iterations[2])
        count = min(CROPS_AT_ONCE, config.iterations[2] - first)
        normal, own = good.crops(2 * count, size, generator).to(device).chunk(2)
        contents = natural.crops(count, size, generator).to(device)
        normal = lit(normal, config.light, spread, generator)
        synthetic, support = synthetic_defects(normal, contents, own, generator)
        label = defect_labels(normal, synthetic, support, model.std)
        synthetic = speckled(synthetic, config.speckle, generator, least=LEAST_SPECKLE)
        restored = background.restore_crops(model, synthetic)
        unlit = without_light(synthetic, restored, model.std)
        parts.append([tensor.half().cpu() for tensor in (unlit, restored, label)])
    return Crops(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _fusion_batches(
    model: FMRNet,
    position: Position,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
    between: Callable[[int, int], None],
) -> Iterator[Crops]:
    """A random batch of the crops for each remaining step, mirrored at random."""
    config, generator = model.config, torch.Generator()
    crops = _fusion_crops(model, good, natural, device, between)
    for step in range(position.step, config.iterations[2]):
        generator.manual_seed(_step_seed(config, 3, step))
        chosen = torch.randint(len(crops.label), (max(1, config.batch_size // 4),), generator=generator)
        mirrored = [axis for axis in (-1, -2) if torch.rand((), generator=generator) < 0.5]
        yield Crops(
            *(
                tensor[chosen].to(device).float().flip(mirrored)
                for tensor in (crops.image, crops.background, crops.label)
            )
        )


def _run_phase(
    networks: Networks,
    optimisers: Optimisers,
    updates: Iterator[Callable[[], Tensor]],
    position: Position,
    stop: Callable[[], bool],
    out: Path,
    identity: dict[str, Any],
    progress: Progress | None,
) -> None:
    config = networks.model.config
    total = config.iterations[position.phase - 1]
    started = time.monotonic() - position.seconds
    saved = time.monotonic()
    recent: list[Tensor] = []
    for update in updates:
        rate = FUSION_RATE if position.phase == 3 else config.learning_rate
        if config.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * position.step / total))
        for optimiser in optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        recent.append(update())
        position.step += 1
        position.seconds = time.monotonic() - started
        if position.step % REPORT_STEPS == 0 or position.step == total:
            loss = torch.stack(recent).mean().item()
            recent.clear()
            if not math.isfinite(loss):
                raise FmrnetError(
                    f"training diverged in {PHASES[position.phase]} at step {position.step} (loss {loss}); "
                    f"lower the learning rate (now {config.learning_rate})"
                )
            if position.step % max(REPORT_STEPS, total // 200 // REPORT_STEPS * REPORT_STEPS) == 0:
                position.history.append((position.phase, position.step, round(loss, 5)))
            if progress is not None:
                progress(PHASES[position.phase], position.step, total, loss)
        if stop():
            _interrupt(networks, optimisers, position, out, identity)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(checkpoint_path(out), networks, optimisers, position, identity)
            saved = time.monotonic()


def _between_crops(
    stop: Callable[[], bool],
    interrupt: Callable[[], NoReturn],
    progress: Progress | None,
    done: int,
    total: int,
) -> None:
    if progress is not None:
        progress("crops", done, total, math.nan)
    if stop():
        interrupt()


def _interrupt(
    networks: Networks,
    optimisers: Optimisers,
    position: Position,
    out: Path,
    identity: dict[str, Any],
) -> NoReturn:
    """Save the training and say how to go on."""
    _save_checkpoint(checkpoint_path(out), networks, optimisers, position, identity)
    raise Interrupted(
        f"stopped in {PHASES[position.phase]} at step {position.step} of "
        f"{networks.model.config.iterations[position.phase - 1]}; saved in {checkpoint_path(out)}: repeat the command "
        "with --resume to go on"
    )


def _update(networks: Networks, optimisers: Optimisers, step: Step, phase: int) -> Tensor:
    """One step of Algorithm 1; gives the generator's loss L_1 or L_2 (0-dimensional, detached)."""
    model, config = networks.model, networks.model.config
    target = model.normalise(step.normal)

    with devices.autocast(target.device):
        if phase == 1:
            features = model.encode(torch.cat((step.normal, step.positive, step.synthetic)))
            r0, r_pos, r_neg = features.z.chunk(3)
            skips = tuple(skip.chunk(3)[0] for skip in features.skips)
            reconstruction = model.decode(r0, (skips[0], skips[1]))
            logit_pos, logit_neg = networks.classifier(torch.cat((r_pos, r_neg))).chunk(2)
        else:
            with torch.no_grad():
                features = model.encode(step.synthetic)
            reconstruction = model.decode(model.restore(features.z), features.skips)

    penalty = losses.weight_norms(p for p in networks.generator_parameters(phase) if p.ndim > 1)
    loss = config.weight_rec * (losses.reconstruction_loss(target, reconstruction) + config.epsilon * penalty)
    if config.weight_adv:
        adversarial = _adversarial_loss(networks, optimisers["discriminator"], target, reconstruction)
        loss = loss + config.weight_adv * adversarial
    if phase == 1:
        logits = logit_pos.float(), logit_neg.float()
        latent = losses.latent_loss(r0, r_pos, *logits, config.compactness)
        loss = loss + config.weight_lat * latent
    optimisers["generator"].zero_grad()
    loss.backward()
    optimisers["generator"].step()
    return loss.detach()


def _adversarial_loss(
    networks: Networks, optimiser: torch.optim.Optimizer, target: Tensor, reconstruction: Tensor
) -> Tensor:
    """One step of the discriminator, then the generator's side of Eq 12 and 13 against it."""
    discriminator = networks.discriminator.requires_grad_(True)
    with devices.autocast(target.device):
        real, fake = discriminator(target), discriminator(reconstruction.detach())
    loss = losses.discriminator_loss(real.logit.float(), fake.logit.float())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

    discriminator.requires_grad_(False)
    with devices.autocast(target.device):
        fake = discriminator(reconstruction)
    perceptual = losses.perceptual_loss([f.detach() for f in real.features], fake.features)
    return losses.gan_loss(fake.logit.float()) + perceptual


def _update_fusion(networks: Networks, optimisers: Optimisers, batch: Crops) -> Tensor:
    """One step of the learned fusion, which is to find the defects; gives its focal loss (detached)."""
    model = networks.model
    assert model.fusion is not None
    inputs = fusion_inputs(batch.image, batch.background, model.mean, model.std)
    with devices.autocast(inputs.device):
        logit = model.fusion(inputs.contiguous(memory_format=torch.channels_last))
    loss = losses.focal_loss(logit.float(), batch.label, size_weights(batch.label))
    optimisers["fusion"].zero_grad()
    loss.backward()
    optimisers["fusion"].step()
    return loss.detach()


def _save_checkpoint(
    path: Path,
    networks: Networks,
    optimisers: Optimisers,
    position: Position,
    identity: dict[str, Any],
) -> None:
    tensors = {}
    for name, module in _modules(networks).items():
        tensors.update({f"{name}.{key}": value for key, value in module.state_dict().items()})
    for name, optimiser in optimisers.items():
        for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
            tensors.update({f"moments.{name}.{index}.{k}": v for k, v in optimiser.state[parameter].items()})
    artifact.write_tensors(path, tensors, {**identity, "position": dataclasses.asdict(position)})


def _load_checkpoint(
    path: Path, networks: Networks, identity: dict[str, Any]
) -> tuple[Position, dict[str, Tensor]]:
    """Put a checkpoint's weights into the networks; gives the position and the optimisers' moments."""
    if not path.exists():
        raise ArtifactError(f"{path}: no checkpoint to resume from; start without --resume")
    tensors, metadata = artifact.read_tensors(path)
    for key, value in identity.items():
        if metadata.get(key) != value:
            raise ArtifactError(
                f"{path}: {_difference(key, metadata.get(key), value)} differs from this command's; resume with the "
                "same settings and pictures, or start anew without --resume"
            )
    for name, module in _modules(networks).items():
        prefix = f"{name}."
        weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise ArtifactError(
                f"{path}: it is another release's, whose {name} does not fit; start anew without --resume: {error}"
            ) from None
    position = metadata["position"]
    position["history"] = [tuple(entry) for entry in position["history"]]
    return Position(**position), tensors


def _difference(key: str, saved: Any, given: Any) -> str:
    if key == "config" and isinstance(saved, dict):
        changed = (k for k in saved.keys() | given.keys() if saved.get(k, ...) != given.get(k, ...))
        return "the setting " + ", ".join(sorted(changed))
    return {"good_sha256": "the set of good pictures", "natural_sha256": "the set of natural pictures"}.get(
        key, key
    )


def _restore_moments(optimisers: Optimisers, tensors: dict[str, Tensor]) -> None:
    for name, optimiser in optimisers.items():
        for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
            key = f"moments.{name}.{index}"
            if f"{key}.step" not in tensors:  # stopped before the phase's first step
                continue
            state = {"step": tensors[f"{key}.step"].to(parameter.device)}
            for moment in ("exp_avg", "exp_avg_sq"):
                # The fused optimiser walks memory in order, so moments lie in memory as their parameter does.
                state[moment] = torch.empty_like(parameter).copy_(tensors[f"{key}.{moment}"])
            optimiser.state[parameter] = state


def _modules(networks: Networks) -> dict[str, nn.Module]:
    return {f.name: getattr(networks, f.name) for f in dataclasses.fields(networks)}


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a flag that is looked at between steps, where the state is whole."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    try:
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers; elsewhere nothing can interrupt
        previous = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
