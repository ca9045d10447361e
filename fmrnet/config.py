"""Every setting of a model and its training, with the paper's value or the reason for another one."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fmrnet.errors import ConfigError, shown

__all__ = ["BACKBONES", "MOST_WEIGHTS", "PRESETS", "SLOPE", "Config", "preset"]

SLOPE = 0.2  # of every leaky ReLU
MOST = 2**16  # of anything that is counted; what a network of many costs is bounded as a whole:
MOST_WEIGHTS = 2**28  # 1 GiB; settings that come with a file are not to fill the memory

DEEPEST = 32  # pixels that a value of the deepest map stands for

Tile = Literal["patch", "picture"]
Mixing = Literal["dense", "shared", "none"]
Schedule = Literal["constant", "cosine"]
Backbone = Literal[
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet-lite3",
    "efficientnet-lite4",
]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)


@dataclass(frozen=True)
class Config:
    """Settings of one FMR-Net. Immutable; `dataclasses.replace` makes a changed copy.

    Raises
    ------
    ConfigError
        If a value is of another type or outside its range, or the network would hold more than MOST_WEIGHTS.
    """

    # Network (section III)
    image_channels: int = 1  # 1 grey, 3 colour; training sets it from the pictures
    patch_size: int = 64  # pixels; a multiple of 32
    tile: Tile = "patch"  # what passes through the generator at once
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)  # of the five blocks
    memory_entries: int = 512  # L
    addressing_width: int = 256  # hidden width of A_N
    rearrange: bool = True  # whether skips are rebuilt from textons (GFRM), or enter the decoder as they are
    texton_size: int = 2  # K of the textons
    mixing: Mixing = "shared"  # the convolution on the similarity maps
    temperature: float = 1.0  # of the softmax of Eq 6; the paper has none, that is 1
    general: bool = False  # whether witnesses on a pretrained network's features judge beside the generator
    backbone: Backbone = "efficientnet-lite0"  # which network that is

    # Training (section III.E, Algorithm 1)
    iterations: tuple[int, int, int] = (200_000, 100_000, 0)  # T_1, T_2, and of the learned fusion (0: Eq 23)
    head_iterations: int = 0  # of the head on the general features; 0: there is none
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
    k: float = 3.0  # of the k-sigma pixel threshold; 0: what one in a thousand pixels of good pictures passes
    false_alarms: float = 0.05  # share of good pictures that may be called defective

    def __post_init__(self) -> None:
        for name, hint in _hints().items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), hint))

        def check(ok: bool, field: str, expected: str) -> None:
            if not ok:
                raise ConfigError(f"{field} = {shown(getattr(self, field))}: expected {expected}")

        check(self.image_channels in (1, 3), "image_channels", "1 (grey) or 3 (colour)")
        check(
            64 <= self.patch_size <= 1024 and self.patch_size % 32 == 0,
            "patch_size",
            "a multiple of 32 from 64 to 1024",
        )
        check(
            len(self.channels) == 5 and min(self.channels) > 0 and max(self.channels) <= MOST,
            "channels",
            f"five channel counts from 1 to {MOST}",
        )
        for field in ("memory_entries", "addressing_width", "batch_size"):
            check(0 < getattr(self, field) <= MOST, field, f"a count from 1 to {MOST}")
        check(self.texton_size in (1, 2, 4), "texton_size", "1, 2 or 4, which divide the two deepest skips")
        check(self.mixing in get_args(Mixing), "mixing", "one of " + ", ".join(get_args(Mixing)))
        check(self.tile in get_args(Tile), "tile", "one of " + ", ".join(get_args(Tile)))
        check(self.backbone in BACKBONES, "backbone", "one of " + ", ".join(BACKBONES))
        check(self.schedule in get_args(Schedule), "schedule", "one of " + ", ".join(get_args(Schedule)))
        check(0.01 <= self.temperature <= 100, "temperature", "a number from 0.01 to 100")
        check(
            len(self.iterations) == 3
            and min(self.iterations) >= 0
            and max(self.iterations) <= 10**9
            and (min(self.iterations[:2]) > 0 or (self.general and not any(self.iterations))),
            "iterations",
            "three counts up to 10**9: T_1 and T_2, positive, and the learned fusion's, 0 for none; or, with general "
            "features, 0, 0, 0 for no generator",
        )
        check(
            0 <= self.head_iterations <= (10**9 if self.general else 0),
            "head_iterations",
            "a count up to 10**9, and 0 without general features",
        )
        check(0 < self.learning_rate < 1, "learning_rate", "a number between 0 and 1")
        for field in ("weight_rec", "weight_adv", "weight_lat", "compactness"):
            check(0 <= getattr(self, field) <= 1e6, field, "a weight from 0 to 1000000")
        check(0 <= self.epsilon < 1, "epsilon", "a number from 0 to below 1")
        check(0 <= self.light <= 1, "light", "a share from 0 to 1")
        check(0 <= self.speckle <= 1, "speckle", "a share from 0 to 1")
        check(0 <= self.seed < 2**31, "seed", "an integer from 0 to 2147483647")
        check(0 <= self.overlap <= 0.9, "overlap", "a share from 0 to 0.9 of the patch size")
        check(
            self.tile == "patch" or (self.stride % 32 == 0 and self.patch_size % self.stride == 0),
            "overlap",
            "with tile = picture, a share that sets patches a multiple of 32 pixels apart which divides the patch "
            "size, such as 0.5 or 0 for patches of 64",
        )
        check(
            self.median == 0 or (self.median % 2 == 1 and 0 < self.median <= 31),
            "median",
            "0 or an odd window up to 31",
        )
        check(0 <= self.k <= 100, "k", "a number of standard deviations up to 100, or 0")
        check(0 < self.false_alarms < 1, "false_alarms", "a share between 0 and 1, such as 0.05")
        if self.weights > MOST_WEIGHTS:
            raise ConfigError(
                f"channels, memory_entries, addressing_width, patch_size and mixing ask for {self.weights:.2g} "
                f"weights: expected up to {MOST_WEIGHTS:.2g}, which is a model of 1 GiB"
            )

    @property
    def steps(self) -> tuple[int, int, int, int]:
        """Training steps of each phase: 1 and 2 of Algorithm 1, the learned fusion's, the head's."""
        return (*self.iterations, self.head_iterations)

    @property
    def generator(self) -> bool:
        """Whether there is a network of the paper; without, the general features judge alone."""
        return self.iterations[0] > 0

    @property
    def standard_map(self) -> bool:
        """Whether the anomaly map is a logistic function of a score, as learned maps are, or the product of Eq 23."""
        return self.learned_fusion or self.general

    @property
    def learned_fusion(self) -> bool:
        """Whether the anomaly map comes from a trained network rather than from the product of Eq 23."""
        return self.iterations[2] > 0

    @property
    def latent_size(self) -> int:
        """Length of z, the flattened output of the fifth block (K in Eq 5)."""
        return self.channels[4] * (self.patch_size // 32) ** 2

    @property
    def weights(self) -> int:
        """How many numbers the generator holds, but for norms and biases; the rest has up to 4 million."""
        if not self.generator:
            return 0
        c1, c2, c3, c4, c5 = self.channels
        encoder = self.image_channels * c1 + c1 * c2 + c2 * c3 + c3 * c4 + c4 * c5
        decoder = c5 * c4 + 2 * c4 * c3 + 2 * c3 * c2 + c2 * c1 + c1 * self.image_channels
        addressing = self.addressing_width * (self.latent_size + self.memory_entries)
        memory = self.memory_entries * self.latent_size
        textons = [(self.patch_size // side // self.texton_size) ** 2 for side in (16, 8)]
        dense = self.rearrange and self.mixing == "dense"
        mixing = 9 * sum(count**2 for count in textons) if dense else 0
        return 16 * (encoder + decoder) + addressing + memory + mixing

    @property
    def multiple(self) -> int:
        """What divides the sides of a picture that is inspected, in pixels; it is filled up until it does."""
        return self.stride if self.tile == "picture" else DEEPEST

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
        if not isinstance(settings, dict):
            raise ConfigError(f"settings = {shown(settings)}: expected names with values")
        known = _hints().keys()
        if unknown := settings.keys() - known:
            named = ", ".join(sorted(str(name) for name in unknown))
            raise ConfigError(f"unknown settings {shown(named)}: expected {', '.join(known)}")
        if missing := sorted(known - settings.keys()):
            raise ConfigError(f"missing settings {', '.join(missing)}")
        return cls(**settings)


@cache
def _hints() -> dict[str, Any]:
    """The type of every setting by name."""
    return get_type_hints(Config)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A setting in its own type: a list of integers as a tuple, an integer or a NumPy number as a float."""
    if get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"{name} = {shown(value)}: expected a list of integers")
    wanted = str if get_origin(hint) is Literal else hint
    if wanted is float and (type(value) is int or isinstance(value, float)):
        with suppress(OverflowError):  # an integer beyond all floats
            return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{name} = {shown(value)}: expected {wanted.__name__}")
    return value


EDGE = Config(
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
    k=0.0,  # three deviations mark a hundred times more good pixels than defective ones
)
PRESETS = {
    "paper": Config(),
    "edge": EDGE,
    # A picture passes once: 3.4 times fewer operations than in patches, and with the witnesses beside it as good;
    # without them, maps lose: bench/decisions.md, fourteenth round, continued. Without the GFRM half of the
    # generator's steps do, and maps lose nothing: seventeenth and eighteenth rounds.
    "general": dataclasses.replace(
        EDGE,
        general=True,
        head_iterations=1_000,
        tile="picture",
        rearrange=False,
        iterations=(600, 600, 3_200),
    ),
    "instant": dataclasses.replace(EDGE, general=True, iterations=(0, 0, 0)),
}


def preset(name: str) -> Config:
    """The settings of the preset `name`.

    "paper" is as published. "edge" has half the width and takes minutes on two cores. "general" is "edge" with
    witnesses on a pretrained network's features beside it; "instant" is two of these witnesses alone, made in seconds.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {shown(name)}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
