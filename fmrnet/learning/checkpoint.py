"""The checkpoint of a training: all that it takes to go on to the same bits, in one file beside the model's.

It holds the weights, the optimisers' moments, how far the training is, and its identity: the settings and the
pictures, which must be the same to go on. It may come from anywhere, so that nothing in it is taken on trust.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmrnet import artifact
from fmrnet.errors import ArtifactError
from fmrnet.learning.generator_training import Networks, Optimisers
from fmrnet.network import weights
from fmrnet.progress import duration

__all__ = ["PHASES", "SUFFIX", "Checkpoint", "Position", "checkpoint_path", "unfinished"]

SUFFIX = ".checkpoint"
PHASES = {1: "phase 1", 2: "phase 2", 3: "fusion", 4: "head"}
AFTER_TRAINING = ("median", "k", "false_alarms")  # settings that may change before a training goes on
MOMENTS = ("exp_avg", "exp_avg_sq")
MOST = float(torch.finfo(torch.float32).max)


def checkpoint_path(out: str | Path) -> Path:
    """Where the training of the model file `out` keeps its checkpoint."""
    return Path(f"{out}{SUFFIX}")


@dataclass
class Position:
    """How far a training is."""

    phase: int = 1
    step: int = 0  # steps done in it
    seconds: float = 0.0  # used so far
    history: list[tuple[int, int, float]] = field(default_factory=list)  # phase, step, mean loss: the curve
    recent: list[float] = field(default_factory=list)  # losses since the last mean

    @classmethod
    def from_json(cls, content: Any, iterations: tuple[int, ...]) -> Position:
        """What `dataclasses.asdict` gave, after JSON.

        Raises
        ------
        ValueError
            If a type is wrong, or a value cannot be in a training of so many `iterations`.
        """
        if not isinstance(content, dict) or content.keys() != {f.name for f in dataclasses.fields(cls)}:
            raise ValueError("it does not say how far the training is")
        phase, step, seconds = content["phase"], content["step"], content["seconds"]
        history, recent = content["history"], content["recent"]
        ends = (*iterations, 0)
        if not (_is_count(phase) and 1 <= phase <= len(ends) and _is_count(step) and step <= ends[phase - 1]):
            raise ValueError("its training has no such phase and step")
        if not (_is_number(seconds) and seconds >= 0):
            raise ValueError("its time is none")
        if not (isinstance(history, list) and all(map(_is_mean, history))):
            raise ValueError("its loss curve is none")
        if not (isinstance(recent, list) and all(map(_is_number, recent))):
            raise ValueError("its losses are no numbers")
        return cls(phase, step, float(seconds), [(a, b, c) for a, b, c in history], recent)

    def describe(self, iterations: tuple[int, ...]) -> str:
        """The phase and step in words."""
        if self.phase > len(PHASES) or not iterations[self.phase - 1]:
            return "calibration"
        return f"{PHASES[self.phase]} at step {self.step} of {iterations[self.phase - 1]}"


def unfinished(path: Path) -> str:
    """How far the training is whose checkpoint stands at `path`, whatever its settings and pictures."""
    try:
        _, metadata = artifact.read_tensors(path)
        config = metadata["config"]
        iterations = (*config["iterations"], config["head_iterations"])
        if len(iterations) != len(PHASES) or not all(map(_is_count, iterations)):
            raise ValueError("its training has no such phases")
        position = Position.from_json(metadata["position"], iterations)
    except (ArtifactError, KeyError, TypeError, ValueError):
        return "a checkpoint that cannot be read"
    return (
        f"the checkpoint of a training in {position.describe(iterations)}, {duration(position.seconds)} long"
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -MOST <= value <= MOST


def _is_mean(entry: Any) -> bool:
    """Phase, step and mean loss?"""
    return (
        isinstance(entry, list)
        and len(entry) == 3
        and all(map(_is_count, entry[:2]))
        and _is_number(entry[2])
    )


class Checkpoint:
    """The file, and the settings and pictures of the training that it is to belong to.

    Parameters
    ----------
    out : path
        The model file; the checkpoint stands beside it.
    config : dict
        The settings, JSON-ready.
    good_sha256, natural_sha256 : str
        Digests of the pictures.
    backbone_sha256 : str or None
        Of the pretrained weights, if there are any.
    """

    def __init__(
        self,
        out: Path,
        config: dict[str, Any],
        good_sha256: str,
        natural_sha256: str,
        backbone_sha256: str | None = None,
    ) -> None:
        self.path = checkpoint_path(out)
        self.iterations: tuple[int, ...] = (*config["iterations"], config["head_iterations"])
        self.identity = {
            "kind": "checkpoint",
            "config": {k: v for k, v in config.items() if k not in AFTER_TRAINING},
            "good_sha256": good_sha256,
            "natural_sha256": natural_sha256,
            "backbone_sha256": backbone_sha256,
        }

    def check_room(self, networks: Networks) -> None:
        """Raise OSError if the disk has no room for a checkpoint beside the one before it."""
        modules = networks.modules
        held = sum(value.nbytes for module in modules.values() for value in module.state_dict().values())
        moments = sum(len(MOMENTS) * p.nbytes for module in modules.values() for p in module.parameters())
        there = self.path.stat().st_size if self.path.exists() else 0
        needed, free = 2 * (held + moments) - there, shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"{free / 1e6:.3g} MB are free, the checkpoints of this training take {needed / 1e6:.3g}; make room "
                "or name another place",
                str(self.path.parent),
            )

    def save(self, networks: Networks, optimisers: Optimisers, position: Position) -> None:
        """Write everything, in place of the checkpoint before it."""
        tensors = {
            f"{name}.{key}": value
            for name, module in networks.modules.items()
            for key, value in module.state_dict().items()
        }
        for name, optimiser in optimisers.items():
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                tensors |= {f"moments.{name}.{index}.{k}": v for k, v in optimiser.state[parameter].items()}
        artifact.write_tensors(
            self.path, weights.arrays(tensors), {**self.identity, "position": dataclasses.asdict(position)}
        )

    def load(self, networks: Networks) -> tuple[Position, Optimisers]:
        """Put everything back where it was.

        Returns
        -------
        how far the training is, and the optimisers of its phase; none before the phase's first step

        Raises
        ------
        ArtifactError
            If the file cannot be read, belongs to another training, or holds what no training writes.
        """
        given, metadata = artifact.read_tensors(self.path)
        tensors = weights.tensors(given)
        for key, value in self.identity.items():
            if metadata.get(key) != value:
                raise ArtifactError(
                    f"{self.path}: {_difference(key, metadata.get(key), value)} differs from this command's; resume "
                    "with the same settings and pictures, or start anew with --restart"
                )
        general, place = networks.model.general, tensors.get("model.general.place")
        if general is not None and place is not None:  # known if the training was stopped in calibration
            general.make_places(tuple(place.shape))
        try:
            position = Position.from_json(metadata.get("position"), self.iterations)
            for name, module in networks.modules.items():
                _check_weights(name, module, tensors, position)
        except ValueError as error:
            raise self._unusable(error) from None
        for name, module in networks.modules.items():
            module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
        if not position.step:
            return position, {}
        optimisers = networks.begin(position.phase)
        try:
            _restore_moments(optimisers, tensors, position.step)
        except ValueError as error:
            raise self._unusable(error) from None
        return position, optimisers

    def _unusable(self, reason: ValueError) -> ArtifactError:
        return ArtifactError(f"{self.path} cannot be used: {reason}; start anew with --restart")


def _check_weights(name: str, module: nn.Module, tensors: dict[str, Tensor], position: Position) -> None:
    expected = module.state_dict()
    found = {key.removeprefix(f"{name}.") for key in tensors if key.startswith(f"{name}.")}
    if found != expected.keys():
        raise ValueError(f"it is another release's, whose {name} does not fit")
    for key, value in expected.items():
        given = tensors[f"{name}.{key}"]
        if given.shape != value.shape or given.dtype != value.dtype:
            raise ValueError(f"it is another release's, whose {name} does not fit ({key})")
        if key == "memory" and position.phase == 1:  # NaN until the bank is established
            continue
        if not bool(torch.isfinite(given).all()):
            raise ValueError(
                f"{name}.{key} is not finite: the training had diverged; lower the learning rate"
            )
        if key.endswith("running_var") and bool((given < 0).any()):
            raise ValueError(f"{name}.{key} is negative")


def _restore_moments(optimisers: Optimisers, tensors: dict[str, Tensor], step: int) -> None:
    """Give each optimiser the moments of Adam, which all began with the phase and have taken `step` steps."""
    for name, optimiser in optimisers.items():
        for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
            key = f"moments.{name}.{index}"
            taken = tensors.get(f"{key}.step")
            if taken is None or taken.shape or taken.dtype != torch.float32 or taken.item() != step:
                raise ValueError(f"{key}.step is not {step}")
            state = {"step": taken.to(parameter.device)}
            for moment in MOMENTS:
                given = tensors.get(f"{key}.{moment}")
                if given is None or given.shape != parameter.shape or given.dtype != parameter.dtype:
                    raise ValueError(f"{key}.{moment} does not fit its weight")
                if not bool(torch.isfinite(given).all()) or (
                    moment == "exp_avg_sq" and bool((given < 0).any())
                ):
                    raise ValueError(f"{key}.{moment} holds what no training gives")
                # The fused optimiser walks memory in order, so moments lie in memory as their parameter does.
                state[moment] = torch.empty_like(parameter).copy_(given)
            optimiser.state[parameter] = state


def _difference(key: str, saved: Any, given: Any) -> str:
    if key == "config" and isinstance(saved, dict):
        changed = sorted(k for k in given if saved.get(k, ...) != given[k])
        return "the setting " + ", ".join(changed[:5]) if changed else "the list of settings"
    return {
        "kind": "what the file holds",
        "config": "the list of settings",
        "good_sha256": "the set of good pictures",
        "natural_sha256": "the set of natural pictures",
        "backbone_sha256": "the backbone",
    }[key]
