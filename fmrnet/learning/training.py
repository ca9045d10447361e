"""Algorithm 1: phase 1, the memory bank, phase 2; then learned fusion and head, if asked for, and calibration.

Every step draws from a generator seeded by (seed, phase, step) alone. Weights, optimiser moments and the two
counters are therefore the whole state of a training, and a checkpoint of these resumes it bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmrnet import artifact, devices
from fmrnet.config import Config, preset
from fmrnet.engines import background
from fmrnet.engines.torch_engine import TorchEngine, graphs_missing
from fmrnet.errors import ArtifactError, ConfigError, FmrnetError
from fmrnet.files import check_writable
from fmrnet.inspection.calibration import Calibration, calibrate
from fmrnet.inspection.inspector import Inspector, load
from fmrnet.inspection.limits import look
from fmrnet.inspection.region import Region
from fmrnet.learning import (
    backbone_weights,
    bank,
    data,
    exit_training,
    fusion_training,
    general_training,
    generator_training,
    processes,
)
from fmrnet.learning.checkpoint import PHASES, Checkpoint, Position, checkpoint_path, unfinished
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.generator_training import Networks, Optimisers
from fmrnet.network.model import FMRNet

__all__ = ["Interrupted", "train"]

CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 10
LEARNT = 64  # good pictures of those that training has seen, evenly chosen, whose scores are taken

Progress = Callable[[str, int, int, float], None]
Named = tuple[str, NDArray[np.float32]]  # a good picture (H, W, C) and its name


class Interrupted(FmrnetError):
    """Training was stopped by Ctrl-C or a termination signal, `number`; its checkpoint is written."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


@dataclass
class Run:
    """A training under way: what learns, how far it is, where it is saved, whom it tells, and who may stop it."""

    networks: Networks
    checkpoint: Checkpoint
    stop: Callable[[], int]
    progress: Progress | None
    position: Position = field(default_factory=Position)
    optimisers: Optimisers = field(default_factory=dict)  # of the phase, once it has begun
    recent: list[Tensor] = field(default_factory=list)  # losses since the last report, of all processes
    alone: bool = False  # whether this process works while the others wait for it

    @property
    def config(self) -> Config:
        """The settings."""
        return self.networks.model.config

    @property
    def steps(self) -> int:
        """Of the phase; 0 if there are none in this training."""
        return self.config.steps[self.position.phase - 1]

    @property
    def done(self) -> bool:
        """Whether every phase is."""
        return self.position.phase > len(PHASES)

    def load(self) -> None:
        """Go on where the checkpoint was written."""
        self.position, self.optimisers = self.checkpoint.load(self.networks)
        device = self.networks.model.mean.device
        self.recent = [torch.tensor(loss, device=device) for loss in self.position.recent]

    def save(self) -> None:
        """Write the checkpoint; FmrnetError if the training has diverged, which is not worth keeping."""
        self.position.recent = [loss.item() for loss in self.recent]
        for loss in self.position.recent:
            self.check_finite(loss)
        if processes.is_first():
            self.checkpoint.save(self.networks, self.optimisers, self.position)

    def check_finite(self, loss: float) -> None:
        """Raise FmrnetError if a loss is not."""
        if not math.isfinite(loss):
            remedy = f"lower the learning rate (now {self.config.learning_rate})"
            if self.position.phase == fusion_training.PHASE:  # which has a rate of its own, in no setting
                remedy = f"try another seed, or a larger batch_size (now {self.config.batch_size})"
            raise FmrnetError(
                f"training diverged in {self.position.describe(self.config.steps)} (loss {loss}); {remedy}"
            )

    def tell(self, name: str, done: int, total: int, loss: float) -> None:
        """Say how far it is to whoever wants to know."""
        if self.progress is not None and processes.is_first():
            self.progress(name, done, total, loss)

    def between_crops(self, done: int, total: int) -> None:
        """Say how many crops are restored, and stop there if asked to."""
        self.tell("crops", done, total, math.nan)
        self.stop_if_asked()

    def between_cells(self, done: int, total: int) -> None:
        """Say how many crops the head's features have been taken of, and stop there if asked to."""
        self.tell("cells", done, total, math.nan)
        self.stop_if_asked()

    def between_pictures(self, done: int, total: int) -> None:
        """Say how many good pictures the general features have been taken of, and stop there if asked to."""
        self.tell("features", done, total, math.nan)
        self.stop_if_asked()

    def between_defects(self, done: int, total: int) -> None:
        """Say how many pictures with synthetic defects both levels have looked at, and stop there if asked to."""
        self.tell("defects", done, total, math.nan)
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Save the training, and say how to go on."""
        asked = self.stop()
        if number := asked if self.alone else processes.greatest(asked):
            self.save()
            if not self.alone:
                processes.wait()  # nobody is to say that it is saved before it is
            raise Interrupted(
                f"stopped in {self.position.describe(self.config.steps)}; saved in {self.checkpoint.path}: "
                "repeat the command with --resume to go on",
                number,
            )


def train(
    good: str | Path,
    out: str | Path,
    *,
    config: Config | str = "general",
    backbone: str | Path | None = None,
    iterations: int | None = None,
    seed: int = 0,
    anomalies: str | Path | None = None,
    device: str = "auto",
    bits: int | None = None,
    roi: str | None = None,
    resume: bool = False,
    restart: bool = False,
    keep_odd: bool = False,
    progress: Progress | None = None,
) -> Inspector:
    """Learn a texture from good pictures and write the model to one file.

    Parameters
    ----------
    good : path
        Folder of good pictures (or a data set in the layout of MVTec or BTAD, of which `train/good` or `train/ok` is
        taken). Some are held out for calibration: see `fmrnet.learning.data.hold_out`.
    out : path
        The model file. While training, a checkpoint stands beside it; `~` is the home folder, here as in every path.
    config : Config or str
        Settings, or the name of a preset, see `fmrnet.preset`.
    backbone : str or path, optional
        What general features are seen with: one of `fmrnet.config.BACKBONES`, whose weights an installed package
        brings, or a safetensors file with timm's weights of one; default: as the settings say.
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
    roi : str, optional
        Region of interest, "x,y,width,height" or the name of a mask, see `fmrnet.inspection.region`; the model inspects
        the same. It learns from the rectangle, or from the largest one inside the mask; calibrated on that, its rate of
        false alarms on the whole mask is an estimate, until it is calibrated anew.
    resume : bool
        Continue from the checkpoint beside `out`, to the same weights as if never stopped; without a checkpoint,
        begin.
    restart : bool
        Begin, and give up the checkpoint beside `out`.
    keep_odd : bool
        Learn from pictures, too, that look like masks or are of one value only.
    progress : callable, optional
        Called now and then with phase name, step, total steps and mean loss since the last call; the phases are
        "phase 1", "phase 2", "crops" (restored for the fusion; no loss, NaN), "fusion", "cells" (crops whose features
        the head learns from; no loss), "head", "features" (of good pictures; no loss) and "defects" (synthetic ones,
        that both levels look at; no loss).

    Returns
    -------
    Inspector
        Calibrated and ready, on PyTorch.

    Raises
    ------
    DatasetError, PictureError
        If the good pictures cannot be used: none, too small, unreadable, unlike a surface, or fewer patches than
        memory entries.
    ArtifactError
        If nothing can be written at `out`, the checkpoint there belongs to another training or is damaged, or there is
        one and neither `resume` nor `restart` says what is to become of it.
    ConfigError
        If the settings are out of range, both `resume` and `restart` are given, or there are no such weights of a
        backbone.
    OSError
        If the disk is full. What the checkpoint holds is kept.
    Interrupted
        On Ctrl-C, after the checkpoint is written.
    """
    config = preset(config) if isinstance(config, str) else config
    config, backbone_file = _with_backbone(config, backbone)
    good, out = _expanded(good), _expanded(out)
    anomalies = None if anomalies is None else _expanded(anomalies)
    with processes.joined(device) as where:
        _check_place(out, resume, restart)
        region = None if roi is None else Region.parse(roi)
        pictures, channels = data.load_good_pictures(
            good, config.patch_size, bits, keep_odd=keep_odd, region=region
        )
        config = dataclasses.replace(config, image_channels=channels, seed=seed)
        if iterations is not None:
            config = _with_steps(config, iterations)
        learn, held_out = data.hold_out(pictures, config.patch_size)
        learnt_names, held_names = data.hold_out_names([str(file) for file in data.good_files(good)])
        good_pool = data.GoodPool(learn, config.patch_size) if config.by_rarity else data.PicturePool(learn)
        if config.generator:
            bank.check_enough_patches(good_pool, config.patch_size, config.memory_entries)
        natural_pool = data.load_natural_pictures(anomalies, channels, config.patch_size)
        _check_shares(config, good_pool, natural_pool)

        torch.manual_seed(seed)
        model = FMRNet(config)
        model.mean, model.std = good_pool.statistics()
        known = (
            None if model.general is None else backbone_weights.load(model.general.backbone, backbone_file)
        )
        networks = Networks(model, Discriminator(config), AuxiliaryClassifier(config))
        for module in networks.modules.values():
            module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        checkpoint = Checkpoint(out, config.to_dict(), good_pool.digest(), natural_pool.digest(), known)
        checkpoint.check_room(networks)
        if restart and processes.is_first():
            checkpoint.path.unlink(missing_ok=True)
        program = Path(sys.argv[0]).name  # where it lies is nobody's business
        provenance = {
            "command": " ".join([program, *sys.argv[1:]]),
            "versions": {name: version(name) for name in ("fmrnet", "torch", "numpy", "scikit-learn")},
            "device": devices.describe(where),
            "processes": processes.count(),
            "good": {
                "pictures": len(pictures),
                "learnt": len(learn),
                "sha256": checkpoint.identity["good_sha256"],
            },
            "natural": {
                "folder": str(anomalies) if anomalies else None,
                "sha256": checkpoint.identity["natural_sha256"],
            },
            "backbone": known and {"name": config.backbone, "sha256": known},
            "bits": bits,
            "region": None if region is None else region.to_dict(),
            "seed": seed,
        }

        with _stop_signal() as stop:
            run = Run(networks, checkpoint, stop, progress)
            if resume and checkpoint.path.exists():
                run.load()
            _check_alike(run)
            _learn(run, good_pool, natural_pool, where)
            if processes.is_first():
                run.alone = True
                whole = len(learn) + len(held_out) == len(pictures)  # else of each picture a part is held out
                sizes = None if whole else [p.shape[0] * p.shape[1] for p in pictures]
                if region is not None and region.inside is not None:
                    sizes = [region.pixels]  # those held out are parts of it
                named = list(zip(held_names, held_out)), list(zip(learnt_names, learn))
                corner = (0, 0) if region is None else region.rectangle[1::-1]
                _finish(run, out, *named, good_pool, natural_pool, sizes, corner, where, provenance)
            processes.wait()
        return load(out, str(where), engine="torch")


def _expanded(path: str | Path) -> Path:
    """With the home folder in place of `~`."""
    return Path(os.path.expanduser(path))


def _with_backbone(config: Config, backbone: str | Path | None) -> tuple[Config, Path | None]:
    """The settings with the backbone that is asked for, and the file with its weights, if it is one."""
    if backbone is None:
        return config, None
    if not config.general:
        raise ConfigError("backbone: these settings have no general features; take preset general or instant")
    name, file = backbone_weights.named(backbone)
    return dataclasses.replace(config, backbone=name), file


def _check_place(out: Path, resume: bool, restart: bool) -> None:
    """Ask before the first step what would otherwise fail after the last one, or lose an earlier training."""
    if resume and restart:
        raise ConfigError("resume and restart contradict each other: give one of them")
    checkpoint = checkpoint_path(out)
    for path in (out, checkpoint):
        check_writable(path)
    artifact.check_replaceable(out)
    if checkpoint.exists() and not (resume or restart):
        raise ArtifactError(
            f"{checkpoint} is there, {unfinished(checkpoint)}; go on with --resume, or give it up with --restart"
        )


def _check_shares(config: Config, good: data.PicturePool, natural: data.PicturePool) -> None:
    """Raise ConfigError if the processes cannot share the crops of a step evenly."""
    counts = (
        *[generator_training.crop_shape(config, good, natural)[0]] * 2,
        fusion_training.batch_of(config),
        general_training.BATCH,
    )
    of_phases = {name: n for name, n, steps in zip(PHASES.values(), counts, config.steps) if steps}
    for name, crops in of_phases.items():
        if crops % processes.count():
            common = math.gcd(*of_phases.values())
            possible = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
            raise ConfigError(
                f"{processes.count()} processes cannot share evenly the {crops} crops of a step of {name}; start as "
                f"many as one of {possible}"
            )


def _check_alike(run: Run) -> None:
    """Raise ConfigError if another process trains with other settings or pictures, or from another checkpoint."""
    own = json.dumps([run.checkpoint.identity, run.position.phase, run.position.step], sort_keys=True)
    if not processes.are_alike(int(hashlib.sha256(own.encode()).hexdigest()[:15], 16)):
        raise ConfigError(
            "the processes of this training differ in settings, good pictures, natural pictures or checkpoint: start "
            "all with the same command, in folders that all of them see"
        )


def _with_steps(config: Config, total: int) -> Config:
    """The settings with `total` steps in the proportions of theirs, at least one where there are any."""
    if not any(config.steps):
        raise ConfigError(f"iterations = {total}: this preset takes no steps; leave it out")
    pattern = config.steps
    first, second, third, head = (
        max(1, round(total * part / sum(pattern))) if part else 0 for part in pattern
    )
    return dataclasses.replace(config, iterations=(first, second, third), head_iterations=head)


def _learn(run: Run, good: data.PicturePool, natural: data.PicturePool, device: torch.device) -> None:
    """The steps of every phase, and the bank between the first two."""
    model = run.networks.model
    while not run.done:
        if run.steps:
            run.optimisers = run.optimisers or run.networks.begin(run.position.phase)
            _run_phase(run, _updates(run, good, natural, device))
            if run.position.phase == 1:
                if processes.is_first():
                    model.memory.copy_(bank.establish_bank(model, good))
                processes.from_first(model.memory)
        run.position.phase, run.position.step, run.optimisers = run.position.phase + 1, 0, {}


def _finish(
    run: Run,
    out: Path,
    held_out: list[Named],
    learnt: list[Named],
    good: data.PicturePool,
    natural: data.PicturePool,
    sizes: list[int] | None,
    corner: tuple[int, int],
    device: torch.device,
    provenance: dict[str, Any],
) -> None:
    """What comes after the last step, and the model file.

    `sizes` are those of pictures that are not held out whole; at `corner`, a row and a column, they were cut out.
    """
    since = time.monotonic()
    model = run.networks.model
    if any(run.config.steps):
        run.save()  # what comes now may fail, and all has been learnt
    if run.config.general:
        general_training.fit_gaussians(model, good, device, run.between_pictures)
    pixels = None if sizes is None else round(statistics.median(sizes))
    thresholds = _calibrate(run, held_out, learnt, natural, pixels, corner, device)
    provenance["seconds"] = round(run.position.seconds + time.monotonic() - since, 1)
    provenance["loss_curve"] = run.position.history
    try:
        inspector = Inspector(TorchEngine(model), thresholds, provenance)
        if graphs_missing(run.config) is None:
            _add_graphs(inspector)
        inspector.save(out)
    except OSError as error:
        kept = f"{error.strerror}; the training is kept in {run.checkpoint.path}: repeat the command with --resume"
        raise OSError(error.errno, kept, str(out)) from error
    run.checkpoint.path.unlink(missing_ok=True)


def _add_graphs(inspector: Inspector) -> None:
    """Give a model its graphs; one whose graphs say something else keeps none, and the reason."""
    try:
        inspector.add_graphs()
    except ArtifactError as error:
        inspector.provenance["graphs"] = {"refused": str(error)}


def _updates(
    run: Run, good: data.PicturePool, natural: data.PicturePool, device: torch.device
) -> Iterator[Callable[[], Tensor]]:
    """The remaining steps of the phase, each of which gives its loss."""
    networks, optimisers, position = run.networks, run.optimisers, run.position
    model = networks.model
    if position.phase == general_training.PHASE:
        cells = general_training.make_crops(model, good, natural, device, run.between_cells)
        for cell_batch in general_training.batches(model, cells, position.step, device):
            yield partial(general_training.update, networks.learner, optimisers["head"], cell_batch)
    elif position.phase == fusion_training.PHASE:
        crops = fusion_training.make_crops(model, good, natural, device, run.between_crops)
        for batch in fusion_training.batches(model, crops, position.step, device):
            yield partial(fusion_training.update, model, networks.learner, optimisers["fusion"], batch)
    else:
        phase = position.phase
        for step in generator_training.steps(run.config, phase, position.step, good, natural, device):
            yield partial(generator_training.update, networks, optimisers, step, phase)


def _run_phase(run: Run, updates: Iterator[Callable[[], Tensor]]) -> None:
    """Do the steps of a phase; tell and save how far it is now and then."""
    position, total, name = run.position, run.steps, PHASES[run.position.phase]
    started = time.monotonic() - position.seconds
    saved = time.monotonic()
    for update in updates:
        rate = _learning_rate(run.config, position.phase, position.step)
        for optimiser in run.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        run.recent.append(processes.mean(update()))
        position.step += 1
        if (
            run.recent[-1].device.type == "cpu"
        ):  # before a kernel meets weights of NaN; a GPU would have to wait
            run.check_finite(run.recent[-1].item())
        position.seconds = time.monotonic() - started
        if position.step % REPORT_STEPS == 0 or position.step == total:
            loss = torch.stack(run.recent).mean().item()
            run.recent.clear()
            run.check_finite(loss)
            if position.step % max(REPORT_STEPS, total // 200 // REPORT_STEPS * REPORT_STEPS) == 0:
                position.history.append((position.phase, position.step, round(loss, 5)))
            run.tell(name, position.step, total, loss)
        run.stop_if_asked()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            run.save()
            saved = time.monotonic()


def _learning_rate(config: Config, phase: int, step: int) -> float:
    """Of the next step of a phase, after `step` of them: constant, or half a cosine that ends near 0."""
    rate = fusion_training.RATE if phase >= fusion_training.PHASE else config.learning_rate
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / config.steps[phase - 1]))
    return rate


def _calibrate(
    run: Run,
    held_out: list[Named],
    learnt: list[Named],
    natural: data.PicturePool,
    pixels: int | None,
    corner: tuple[int, int],
    device: torch.device,
) -> Calibration:
    """What the trained model says of good pictures unseen in training, of some of those seen, of synthetic defects."""

    def arrays(named: list[Named]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name, picture in named:
            run.stop_if_asked()
            yield name, picture.transpose(2, 0, 1).copy()

    def tensors(named: list[Named]) -> Iterator[tuple[str, Tensor]]:
        return ((name, torch.from_numpy(picture).to(device)) for name, picture in arrays(named))

    model = run.networks.model.eval().requires_grad_(False)
    some = learnt[:: -(-len(learnt) // LEARNT)]
    if model.fusion is not None:
        filled = (model.filled(picture[None])[0] for _, picture in tensors(held_out))
        restored = ((p, background.restore(model, background.encode(model, p))) for p in filled)
        model.fusion.standardise(restored, model.mean, model.std)
    if model.general is not None:
        general_training.fit_usual(model, (picture for _, picture in tensors(some)), pixels is None)
        general_training.fit_surprise(model, (picture for _, picture in tensors(held_out)))
    engine = TorchEngine(model)
    found = calibrate(
        engine,
        arrays(held_out),
        learnt=arrays(some),
        looks=((name, look(picture)) for name, picture in arrays(learnt)),
        pixels=pixels,
        corner=corner,
    )
    if not model.config.generator:
        return found  # both levels say the same
    held_pool = data.PicturePool([picture for _, picture in held_out])
    early_exit = exit_training.learn(engine, found, held_pool, natural, device, run.between_defects)
    return dataclasses.replace(found, early_exit=early_exit)


@contextmanager
def _stop_signal() -> Iterator[Callable[[], int]]:
    """Turn Ctrl-C and SIGTERM into their number, looked at between steps, where the state is whole; 0 for neither."""
    asked = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = number

    try:
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers; elsewhere nothing can interrupt
        previous = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
