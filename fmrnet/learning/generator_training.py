"""Phases 1 and 2 of Algorithm 1: which networks learn, what a step sees, and what it changes.

Phase 1 trains encoder, GFRM, decoder, C_A and discriminator without memory, on good crops that it restores as they are.
Phase 2 trains decoder, GFRM, A_N and discriminator on crops with synthetic defects, whose good originals are to come
out; the encoder and the bank are locked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from fmrnet import devices
from fmrnet.config import Config
from fmrnet.learning import data, losses
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.synthesis import speckled, synthetic_defects
from fmrnet.network.model import FMRNet, windows

__all__ = ["Networks", "Optimisers", "Step", "steps", "update"]

Optimisers = dict[str, torch.optim.Adam]


@dataclass
class Networks:
    """Everything that training changes."""

    model: FMRNet
    discriminator: Discriminator
    classifier: AuxiliaryClassifier

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All three by name."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    def generator_parameters(self, phase: int) -> list[nn.Parameter]:
        """Phase 1 trains encoder, decoder, GFRM and C_A; phase 2 decoder, GFRM and A_N (E and bank are locked)."""
        model = self.model
        shared = chain(model.decoder.parameters(), model.output.parameters(), model.mixing_parameters())
        if phase == 1:
            return [*shared, *model.encoder.parameters(), *self.classifier.parameters()]
        return [*shared, *model.addressing.parameters()]

    def begin(self, phase: int) -> Optimisers:
        """Set what learns in this phase, and give it fresh optimisers."""
        for module in self.modules.values():
            module.train().requires_grad_(True)
        rate = self.model.config.learning_rate
        if phase == 3:
            self.model.eval().requires_grad_(False)
            assert self.model.fusion is not None
            fusion = self.model.fusion.train().requires_grad_(True)
            return {"fusion": torch.optim.Adam(fusion.parameters(), rate, fused=True)}
        if phase == 4:
            self.model.eval().requires_grad_(False)
            assert self.model.general is not None
            assert self.model.general.head is not None
            head = self.model.general.head.train().requires_grad_(True)
            return {"head": torch.optim.Adam(head.parameters(), rate, fused=True)}
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


def steps(
    config: Config,
    phase: int,
    start: int,
    good: data.PicturePool,
    natural: data.PicturePool,
    device: torch.device,
) -> Iterator[Step]:
    """The pictures of each step of the phase from `start` on, cut and synthesised from that step's own seed."""
    count, size = _crops(config, min(good.largest_crop, natural.largest_crop))
    for number in range(start, config.iterations[phase - 1]):
        generator = data.step_generator(config.seed, phase, number)
        normal, positive = good.crops(2 * count, size, generator).to(device).chunk(2)
        contents = natural.crops(count, size, generator).to(device)
        synthetic, support = synthetic_defects(normal, contents, positive, generator)
        if phase == 2:
            synthetic = speckled(synthetic, config.speckle, generator)
        yield Step(normal, positive, synthetic, support)


def _crops(config: Config, largest: int) -> tuple[int, int]:
    """How many crops a step sees, and their side: patches or, of whole pictures, as many pixels in crops of two
    patches' width, where pictures are as large.
    """
    size = config.patch_size
    if config.tile == "patch":
        return config.batch_size, size
    wide = min(2 * size, size + (largest - size) // config.stride * config.stride)
    return max(1, round(config.batch_size * (size / wide) ** 2)), wide


def _defective(support: Tensor, config: Config) -> Tensor:
    """The windows of crops that hold a defect, or at least half as much of it as the one with most: (N,) bool."""
    held = windows(support[:, None], config.patch_size, config.stride).sum((1, 2, 3)).view(len(support), -1)
    return (held >= held.amax(1, keepdim=True) / 2).flatten()


def update(networks: Networks, optimisers: Optimisers, step: Step, phase: int) -> Tensor:
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
            logit_neg = logit_neg[_defective(step.support, config)]
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
