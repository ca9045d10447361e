"""Phases 1 and 2 of Algorithm 1: which networks learn, what a step sees, and what it changes.

Phase 1 trains encoder, GFRM, decoder, C_A and discriminator without memory, on good crops that it restores as they are.
Phase 2 trains decoder, GFRM, A_N and discriminator on crops with synthetic defects, whose good originals are to come
out; the encoder and the bank are locked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from fmrnet import devices
from fmrnet.config import Config
from fmrnet.learning import data, losses, processes
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.synthesis import speckled, synthetic_defects
from fmrnet.network.model import FMRNet, windows

__all__ = ["PARTS", "Networks", "Optimisers", "Step", "crop_shape", "steps", "update"]

Optimisers = dict[str, torch.optim.Adam]
PARTS = {3: "fusion", 4: "head"}  # of the network, that learn alone, in the phases after the generator's


@dataclass
class Networks:
    """Everything that training changes."""

    model: FMRNet
    discriminator: Discriminator
    classifier: AuxiliaryClassifier
    learner: nn.Module = field(
        init=False
    )  # what the phase calls, with the other processes' gradients; so the judge
    judge: nn.Module = field(init=False)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All three by name."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.init}

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
            module.train().requires_grad_(False)
        rate = self.model.config.learning_rate
        if phase >= 3:
            model = self.model.eval()
            part = model.fusion if phase == 3 else getattr(model.general, "head", None)
            assert part is not None
            self.learner = processes.learner(part.train().requires_grad_(True))
            return {PARTS[phase]: torch.optim.Adam(part.parameters(), rate, fused=True)}
        if phase == 2:
            self.model.encoder.eval()
        parameters = self.generator_parameters(phase)
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.learner = processes.learner(_Restoring(self.model, self.classifier if phase == 1 else None))
        optimisers = {"generator": torch.optim.Adam(parameters, rate, fused=True)}
        if self.model.config.weight_adv:
            self.judge = processes.learner(self.discriminator.requires_grad_(True))
            of_discriminator = torch.optim.Adam(self.discriminator.parameters(), rate, fused=True)
            optimisers["discriminator"] = of_discriminator
        return optimisers


class _Restoring(nn.Module):
    """What learns in phase 1, with C_A, and in phase 2, without."""

    def __init__(self, model: FMRNet, classifier: AuxiliaryClassifier | None) -> None:
        super().__init__()
        self.model, self.classifier = model, classifier

    def forward(self, normal: Tensor, positive: Tensor, synthetic: Tensor) -> tuple[Tensor, ...]:
        """Restored pictures in the network's own scale; in phase 1 R^0, R^+, and C_A's logits of R^+ and R^-, too."""
        model = self.model
        if self.classifier is None:
            with torch.no_grad():
                features = model.encode(synthetic)
            return (model.decode(model.restore(features.z), features.skips),)
        features = model.encode(torch.cat((normal, positive, synthetic)))
        r0, r_pos, r_neg = features.z.chunk(3)
        skips = tuple(skip.chunk(3)[0] for skip in features.skips)
        logit_pos, logit_neg = self.classifier(torch.cat((r_pos, r_neg))).chunk(2)
        return model.decode(r0, (skips[0], skips[1])), r0, r_pos, logit_pos, logit_neg


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
    count, size = crop_shape(config, good, natural)
    for number in range(start, config.iterations[phase - 1]):
        generator = data.step_generator(config.seed, phase, number)
        normal, positive = devices.sent(good.crops(2 * count, size, generator), device).chunk(2)
        contents = devices.sent(natural.crops(count, size, generator), device)
        synthetic, support = synthetic_defects(normal, contents, positive, generator)
        if phase == 2:
            synthetic = speckled(synthetic, config.speckle, generator)
        yield Step(*map(processes.share, (normal, positive, synthetic, support)))


def crop_shape(config: Config, good: data.PicturePool, natural: data.PicturePool) -> tuple[int, int]:
    """How many crops of good pictures a step restores, and their side in pixels."""
    return _crops(config, min(good.largest_crop, natural.largest_crop))


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
        reconstruction, *latents = networks.learner(step.normal, step.positive, step.synthetic)

    penalty = losses.weight_norms(p for p in networks.generator_parameters(phase) if p.ndim > 1)
    loss = config.weight_rec * (losses.reconstruction_loss(target, reconstruction) + config.epsilon * penalty)
    if config.weight_adv:
        adversarial = _adversarial_loss(networks, optimisers["discriminator"], target, reconstruction)
        loss = loss + config.weight_adv * adversarial
    if phase == 1:
        r0, r_pos, logit_pos, logit_neg = (latent.float() for latent in latents)
        defective = _defective(step.support, config)
        latent = losses.latent_loss(r0, r_pos, logit_pos, logit_neg, config.compactness, defective)
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
        real, fake = networks.judge(target), networks.judge(reconstruction.detach())
    loss = losses.discriminator_loss(real.logit.float(), fake.logit.float())
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

    discriminator.requires_grad_(False)
    with devices.autocast(target.device):
        fake = discriminator(reconstruction)
    perceptual = losses.perceptual_loss([f.detach() for f in real.features], fake.features)
    return losses.gan_loss(fake.logit.float()) + perceptual
