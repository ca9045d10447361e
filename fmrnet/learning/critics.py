"""The two networks that only training uses: the discriminator and the auxiliary classifier C_A."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fmrnet.config import SLOPE, Config
from fmrnet.network.model import encoder_blocks, windows

__all__ = ["AuxiliaryClassifier", "Discriminator", "Judgement"]


class Judgement(NamedTuple):
    """The discriminator's logits (N,) of all windows and its 3rd and 4th blocks' feature maps, which Eq 13 compares."""

    logit: Tensor
    features: tuple[Tensor, Tensor]


class Discriminator(nn.Module):
    """The encoder's five blocks and a linear head: real picture or reconstruction?"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.blocks = encoder_blocks(config.image_channels, config.channels)
        self.head = nn.Linear(config.latent_size, 1)
        self.window = config.patch_size // 32, config.stride // 32

    def forward(self, image: Tensor) -> Judgement:
        """(B, C, H, W) in the network's own scale -> Judgement, of windows as large as a patch."""
        layers = [image]
        for block in self.blocks:
            layers.append(block(layers[-1]))
        latents = windows(layers[5], *self.window).flatten(1)
        return Judgement(self.head(latents).squeeze(1), (layers[3], layers[4]))


class AuxiliaryClassifier(nn.Module):
    """C_A of Eq 2: 512, 256 and 1 neurons. Gives the logit; its sigmoid is the paper's output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.latent_size, 512),
            nn.LeakyReLU(SLOPE),
            nn.Linear(512, 256),
            nn.LeakyReLU(SLOPE),
            nn.Linear(256, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, K) -> logit (B,): positive for normal, negative for anomalous."""
        logit: Tensor = self.layers(z)
        return torch.squeeze(logit, 1)
