"""Every setting of a model and its training, with the paper's value or the reason for another one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fmrnet.errors import ConfigError

__all__ = ["PRESETS", "SLOPE", "Config", "preset"]

SLOPE = 0.2  # of every leaky ReLU

Mixing = Literal["dense", "shared", "none"]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Config:
    """Settings of one FMR-Net. Immutable; `dataclasses.replace` makes a changed copy.

    Raises
    ------
    ConfigError
        If a value is outside its range, or values contradict each other.
    """

    # Network (section III)
    image_channels: int = 1  # 1 grey, 3 colour; training sets it from the pictures
    patch_size: int = 64  # pixels; a multiple of 32
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)  # of the five blocks
    memory_entries: int = 512  # L
    addressing_width: int = 256  # hidden width of A_N
    texton_size: int = 2  # K of the textons
    mixing: Mixing = "shared"  # the convolution on the similarity maps
    temperature: float = 1.0  # of the softmax of Eq 6; the paper has none, that is 1

    # Training (section III.E, Algorithm 1)
    iterations: tuple[int, int, int] = (200_000, 100_000, 0)  # T_1, T_2, and of the learned fusion (0: Eq 23)
    batch_size: int = 32
    learning_rate: float = 1e-3  # theta
    schedule: Schedule = "constant"
    weight_rec: float = 100.0
    weight_adv: float = 1.0  # 0: no discriminator is trained
    weight_lat: float = 1.0
    compactness: float = 1.0  # of L_lat: what the distance between normal latents counts for
    epsilon: float = 1e-6  # penalty factor of Eq 10
    by_rarity: bool = False  # every other good crop is drawn by how rare its texture is; else all evenly
    light: float = 0.0  # share of the learned fusion's pictures that come under another light
    speckle: float = 0.0  # share of the pictures with synthetic defects that get noise too, from phase 2 on
    seed: int = 0

    # Calibration and inspection (sections III.F and IV.F)
    overlap: float = 0.5  # of neighbouring patches; 0 is none
    median: int = 5  # window of the median filter on each modality; 0 is none
    k: float = 3.0  # of the k-sigma pixel threshold
    patch_quantile: float = 0.999  # of good patches that pass the patch threshold

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, expected: str) -> None:
            if not ok:
                raise ConfigError(f"{field} = {getattr(self, field)!r}: expected {expected}")

        check(self.image_channels in (1, 3), "image_channels", "1 (grey) or 3 (colour)")
        check(
            self.patch_size >= 64 and self.patch_size % 32 == 0, "patch_size", "a multiple of 32, 64 or more"
        )
        check(len(self.channels) == 5 and min(self.channels) > 0, "channels", "five positive channel counts")
        for field in ("memory_entries", "addressing_width", "texton_size", "batch_size"):
            check(getattr(self, field) > 0, field, "a positive count")
        check(self.texton_size in (1, 2, 4), "texton_size", "1, 2 or 4, which divide the two deepest skips")
        check(self.mixing in get_args(Mixing), "mixing", "one of " + ", ".join(get_args(Mixing)))
        check(self.schedule in get_args(Schedule), "schedule", "one of " + ", ".join(get_args(Schedule)))
        check(0.01 <= self.temperature <= 100, "temperature", "a number from 0.01 to 100")
        check(
            len(self.iterations) == 3 and min(self.iterations[:2]) > 0 and self.iterations[2] >= 0,
            "iterations",
            "three counts: T_1 and T_2, positive, and the learned fusion's, 0 for none",
        )
        check(0 < self.learning_rate < 1, "learning_rate", "a number between 0 and 1")
        for field in ("weight_rec", "weight_adv", "weight_lat", "compactness"):
            check(getattr(self, field) >= 0, field, "a weight of 0 or more")
        check(0 <= self.epsilon < 1, "epsilon", "a number from 0 to below 1")
        check(0 <= self.light <= 1, "light", "a share from 0 to 1")
        check(0 <= self.speckle <= 1, "speckle", "a share from 0 to 1")
        check(0 <= self.seed < 2**31, "seed", "an integer from 0 to 2147483647")
        check(0 <= self.overlap <= 0.9, "overlap", "a share from 0 to 0.9 of the patch size")
        check(
            self.median == 0 or (self.median % 2 == 1 and self.median <= 31),
            "median",
            "0 or an odd window up to 31",
        )
        check(0 < self.k <= 100, "k", "a positive number of standard deviations, up to 100")
        check(0 < self.patch_quantile <= 1, "patch_quantile", "a share above 0, up to 1")

    @property
    def learned_fusion(self) -> bool:
        """Whether the anomaly map comes from a trained network rather than from the product of Eq 23."""
        return self.iterations[2] > 0

    @property
    def latent_size(self) -> int:
        """Length of z, the flattened output of the fifth block (K in Eq 5)."""
        return self.channels[4] * (self.patch_size // 32) ** 2

    @property
    def stride(self) -> int:
        """Distance in pixels between neighbouring patches at inspection."""
        return max(1, round(self.patch_size * (1 - self.overlap)))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Config:
        """The opposite of `to_dict`; names every unknown, missing or mistyped field in a ConfigError."""
        hints = get_type_hints(cls)
        if unknown := sorted(settings.keys() - hints.keys()):
            raise ConfigError(f"unknown settings {', '.join(unknown)}: expected {', '.join(hints)}")
        if missing := sorted(hints.keys() - settings.keys()):
            raise ConfigError(f"missing settings {', '.join(missing)}")
        return cls(**{name: _typed(name, value, hints[name]) for name, value in settings.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"{name} = {value!r}: expected a list of integers")
    wanted = str if get_origin(hint) is Literal else hint
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{name} = {value!r}: expected {wanted.__name__}")
    return value


PRESETS = {
    "paper": Config(),
    "edge": Config(
        channels=(32, 64, 128, 256, 256),
        temperature=0.1,  # at 1 the softmax is nearly flat, and nothing of the skip comes through
        iterations=(1_200, 1_200, 3_200),
        schedule="cosine",
        by_rarity=True,  # drawn evenly, a selvage is hardly learnt, and then stands out
        light=0.5,  # unseen in training, a sheen is taken for a defect
        speckle=0.25,  # unseen in training, noise is taken for defects
        weight_adv=0.0,  # the discriminator takes half of a step, and in a thousand of them spoils the background
        # What a higher weight gains is the patch level, on some surfaces by much; 20 and more costs maps or background:
        # bench/decisions.md, eighth and eleventh rounds.
        weight_lat=0.02,
    ),
}


def preset(name: str) -> Config:
    """The settings of the preset `name`: "paper" (as published) or "edge" (half the width, minutes on two cores).

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}: expected {' or '.join(PRESETS)}")
    return PRESETS[name]
