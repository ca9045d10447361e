"""The generator of FMR-Net: encoder, memory with its addressing network, decoder with texton rearrangement.

    P    patch                       EL_i  output of encoder block i (i = 1 .. 5)
    z    latent, EL_5 flattened      z^    its restoration from the memory, Eq 5
    M    memory bank, L x K          A_N   addressing network, Eq 4
    F    memory-generated feature    G     rearranged skip feature, Eq 9

For a 64 x 64 patch the encoder's maps are 32, 16, 8, 4 and 2 pixels wide. A larger picture passes through every layer
once; what the paper does with a patch, its latent, its memory and its textons, is then done in windows of that size on
the maps, and their mean is taken where they overlap. A patch is its own window. `fmrnet.reference.network` is the same
forward pass in NumPy, from this module's `state_dict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmrnet import fast
from fmrnet.config import SLOPE, Config
from fmrnet.network.general import General
from fmrnet.network.learned_fusion import LearnedFusion

__all__ = ["ConvBlock", "FMRNet", "Features", "encoder_blocks", "joined", "windows"]


class ConvBlock(nn.Module):
    """4x4 convolution with stride 2 (transposed when `up`), batch normalisation, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, up: bool = False) -> None:
        super().__init__()
        layer = nn.ConvTranspose2d if up else nn.Conv2d
        self.conv = layer(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/2, W/2), or twice the size when `up`."""
        return nn.functional.leaky_relu(self.norm(self.conv(x)), SLOPE, inplace=True)


def encoder_blocks(image_channels: int, channels: Sequence[int]) -> nn.ModuleList:
    """The five blocks that the encoder and the discriminator share the shape of."""
    widths = (image_channels, *channels)
    return nn.ModuleList(ConvBlock(a, b) for a, b in pairwise(widths))


class Addressing(nn.Module):
    """A_N of Eq 4: two fully connected layers and a softmax."""

    def __init__(self, latent_size: int, width: int, entries: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(latent_size, width)
        self.output = nn.Linear(width, entries)

    def forward(self, z: Tensor) -> Tensor:
        """(B, K) -> (B, L), non-negative, each row sums to 1."""
        return fast.address(z, self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias)


class Features(NamedTuple):
    """What the encoder gives: the latents z (N, K) of all windows, and the skips EL_4 and EL_3, deepest first.

    The windows come picture by picture and row by row; of patches there is one each, N = B.
    """

    z: Tensor
    skips: tuple[Tensor, Tensor]


class FMRNet(nn.Module):
    """The generator. Pictures go in and come out in [0, 1], as (B, C, H, W).

    H and W are `patch_size` or, with `tile` "picture", larger multiples of `Config.multiple`: see `filled`.

    Parameters
    ----------
    config : Config
        Widths, memory size, mixing and temperature.

    Notes
    -----
    `mean` and `std` (C,) are the network's own normalisation, set from the good pictures. `memory` (L, K) is
    NaN until the bank is established between the two training phases (Algorithm 1, line 12). Settings without a
    generator leave out all but `mean`, `std` and `general`.
    """

    mean: Tensor
    std: Tensor
    memory: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.image_channels))
        self.register_buffer("std", torch.ones(config.image_channels))
        self.mixing: nn.ParameterList | None = None
        if config.generator:
            self._build(config)
        self.fusion = LearnedFusion(config.image_channels) if config.learned_fusion else None
        with torch.random.fork_rng(devices=()):  # the other networks' first weights are the same without it
            self.general = General(config) if config.general else None

    def _build(self, config: Config) -> None:
        """Encoder, memory with its addressing network, decoder."""
        c1, c2, c3, c4, c5 = config.channels
        self.encoder = encoder_blocks(config.image_channels, config.channels)
        self.addressing = Addressing(config.latent_size, config.addressing_width, config.memory_entries)
        self.register_buffer("memory", torch.full((config.memory_entries, config.latent_size), torch.nan))
        widths = ((c5, c4), (2 * c4, c3), (2 * c3, c2), (c2, c1))
        self.decoder = nn.ModuleList(ConvBlock(a, b, up=True) for a, b in widths)
        self.output = nn.ConvTranspose2d(c1, config.image_channels, kernel_size=4, stride=2, padding=1)
        if config.rearrange and config.mixing != "none":
            self.mixing = nn.ParameterList(_mixing(config, config.patch_size // s) for s in (16, 8))

    def mixing_parameters(self) -> Iterator[nn.Parameter]:
        """The kernels of the GFRM, the only weights it has."""
        return iter(()) if self.mixing is None else self.mixing.parameters()

    def normalise(self, image: Tensor) -> Tensor:
        """[0, 1] -> the network's own scale: zero mean and unit deviation over the good pictures."""
        return (image - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, image: Tensor) -> Tensor:
        """The opposite of `normalise`; not clipped."""
        return image * self.std[:, None, None] + self.mean[:, None, None]

    def filled(self, image: Tensor) -> Tensor:
        """Pictures (B, C, H, W), mirrored at the lower and right border until `Config.multiple` divides the sides."""
        missing = [-side % self.config.multiple for side in image.shape[2:]]
        return nn.functional.pad(image, (0, missing[1], 0, missing[0]), mode="reflect")

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """EL_5, EL_4 and EL_3 of pictures (B, C, H, W) in [0, 1]."""
        layers = [self.normalise(image)]
        for block in self.encoder:
            layers.append(block(layers[-1]))
        return layers[5], layers[4], layers[3]

    def latents(self, deepest: Tensor) -> Tensor:
        """The latents z of all windows of EL_5: (B, C, h, w) -> (N, K)."""
        return windows(deepest, *self._window(32)).flatten(1)

    def encode(self, image: Tensor) -> Features:
        """Latents and the two deepest skips of pictures (B, C, H, W) in [0, 1]."""
        deepest, *skips = self.maps(image)
        return Features(self.latents(deepest), (skips[0], skips[1]))

    def restore(self, z: Tensor) -> Tensor:
        """Eq 4 and 5: the latent's replacement, a convex combination of the memory entries. (B, K) -> (B, K)."""
        return fast.recall(self.addressing(z), self.memory)

    def rearrange(self, level: int, skip: Tensor, features: Tensor) -> Tensor:
        """The GFRM of a level, 0 the deepest: the skip rebuilt from the textons of the decoder's features, Eq 6-9.

        Window by window; without `Config.rearrange` it is the skip as it is.
        """
        if not self.config.rearrange:
            return skip
        side, step = self._window(16 // 2**level)
        rebuilt = fast.rearrange_textons(
            windows(skip, side, step),
            windows(features, side, step),
            size=self.config.texton_size,
            mixing=self.mixing[level] if self.mixing is not None else None,
            temperature=self.config.temperature,
        )
        return joined(rebuilt, (skip.shape[2], skip.shape[3]), step)

    def decode(self, latent: Tensor, skips: tuple[Tensor, Tensor]) -> Tensor:
        """Pictures in the network's own scale, (B, C, H, W), from the latents of their windows and the skips.

        Each of the two deepest skips is rebuilt from the textons of the decoder's own feature map (Eq 6-9) before it is
        concatenated to that map.
        """
        height, width = (length // 2 for length in skips[0].shape[2:])
        side, step = self._window(32)
        x = joined(latent.unflatten(1, (-1, side, side)), (height, width), step)
        for level, block in enumerate(self.decoder):
            x = block(x)
            if level < 2:
                x = torch.cat((x, self.rearrange(level, skips[level], x)), dim=1)
        decoded: Tensor = self.output(x)
        return decoded

    def _window(self, scale: int) -> tuple[int, int]:
        """Side and step of a patch's window of features that lie `scale` pixels apart."""
        return self.config.patch_size // scale, self.config.stride // scale

    def forward(self, image: Tensor) -> Tensor:
        """The restored background of pictures, in [0, 1]: phase 2 and inspection."""
        z, skips = self.encode(image)
        return self.denormalise(self.decode(self.restore(z), skips)).clamp(0, 1)


def windows(x: Tensor, side: int, step: int) -> Tensor:
    """Square windows of maps, `step` apart: (B, C, H, W) -> (N, C, side, side), picture by picture and row by row."""
    if x.shape[2:] == (side, side):
        return x
    cut = x.unfold(2, side, step).unfold(3, side, step)  # (B, C, rows, columns, side, side), a view
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(0, 2).permute(0, 3, 1, 2)


def joined(cut: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """Maps (B, C, *size) of such windows, (N, C, side, side): their mean where they overlap. `step` divides `side`."""
    channels, side = cut.shape[1:3]
    if size == (side, side):
        return cut
    rows, columns = ((length - side) // step + 1 for length in size)
    parts = side // step  # a window is a square of so many blocks, and a map has a block more for each window
    blocks = cut.permute(0, 2, 3, 1).reshape(-1, rows, columns, parts, step, parts, step, channels)
    total = cut.new_zeros(len(blocks), size[0] // step, step, size[1] // step, step, channels)
    count = cut.new_zeros(size[0] // step, 1, size[1] // step, 1, 1)
    for i, j in product(range(parts), repeat=2):
        total[:, i : i + rows, :, j : j + columns] += blocks[:, :, :, i, :, j].transpose(2, 3)
        count[i : i + rows, :, j : j + columns] += 1
    return (total / count).reshape(len(blocks), *size, channels).permute(0, 3, 1, 2)


def _mixing(config: Config, side: int) -> nn.Parameter:
    """A 3x3 kernel that starts as the identity: (3, 3) shared by all maps, or (N, N, 3, 3) dense.

    N is the number of textons of a feature map `side` wide.
    """
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = 1
    if config.mixing == "shared":
        return nn.Parameter(kernel)
    textons = (side // config.texton_size) ** 2
    return nn.Parameter(torch.eye(textons)[:, :, None, None] * kernel)
