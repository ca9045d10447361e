"""The losses of section III as differentiable tensor functions; `fmrnet.reference.losses` is their oracle.

Classifiers give logits here, which is where the sigmoid and the logarithm are exact for large values;
the oracle takes probabilities, as the paper prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce_with_logits
from torch.nn.functional import mse_loss

from fmrnet.learning import processes

__all__ = [
    "discriminator_loss",
    "focal_loss",
    "gan_loss",
    "latent_loss",
    "perceptual_loss",
    "reconstruction_loss",
    "weight_norms",
]


def latent_loss(
    r0: Tensor,
    r_pos: Tensor,
    logit_pos: Tensor,
    logit_neg: Tensor,
    compactness: float = 1.0,
    defective: Tensor | None = None,
) -> Tensor:
    """Eq 2 and 14: C_A tells normal from anomalous, and normal latents lie close together.

    Parameters
    ----------
    r0, r_pos : Tensor, (B, K)
        Latents R^0 and R^+ of two sets of normal patches.
    logit_pos, logit_neg : Tensor, (B,)
        C_A's logits of R^+ (label 1) and R^- (label 0).
    compactness : float
        Weight of the distance; the paper's is 1.
    defective : Tensor, (B,) bool, optional
        Which of R^- count; default: all.
    """
    bce = bce_with_logits(logit_pos, torch.ones_like(logit_pos))
    if defective is None:
        bce = bce + bce_with_logits(logit_neg, torch.zeros_like(logit_neg))
    else:
        bce = bce + _mean_of(
            bce_with_logits(logit_neg, torch.zeros_like(logit_neg), reduction="none"), defective
        )
    distance: Tensor = torch.linalg.vector_norm(r_pos.float() - r0.float(), dim=1)
    return bce + compactness * distance.mean()


def weight_norms(weights: Iterable[Tensor]) -> Tensor:
    """Sum over the weights of the Frobenius norm, the penalty of Eq 10."""
    return torch.stack(torch._foreach_norm(list(weights))).sum()


def reconstruction_loss(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Eq 10 without its penalty: squared error, mean over pixels, channels and batch."""
    return mse_loss(reconstruction.float(), image.float())


def gan_loss(logit_fake: Tensor) -> Tensor:
    """The generator's side of Eq 12, non-saturating: -log D(reconstruction), mean over the batch."""
    return bce_with_logits(logit_fake, torch.ones_like(logit_fake))


def discriminator_loss(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
    """The discriminator's side of Eq 12: -log D(picture) - log(1 - D(reconstruction)), mean over the batch."""
    real = bce_with_logits(logit_real, torch.ones_like(logit_real))
    return real + bce_with_logits(logit_fake, torch.zeros_like(logit_fake))


def perceptual_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Eq 13: mean absolute difference of the discriminator's features, every layer weighted alike (1/2 each)."""
    differences = [torch.mean(torch.abs(a.float() - b.float())) for a, b in zip(real, fake, strict=True)]
    return torch.stack(differences).mean()


def focal_loss(logit: Tensor, label: Tensor, weight: Tensor, gamma: float = 2.0) -> Tensor:
    """Of the learned fusion: cross entropy in which pixels that are right already count little.

    Parameters
    ----------
    logit : Tensor
        Of each pixel being defective.
    label : Tensor of the same shape
        1 defective, 0 good, negative: not counted.
    weight : Tensor of the same shape
        What each pixel's loss is multiplied by before the mean over those that count.

    Equivalent to: `reference.fusion_labels.focal_loss` on the logits' sigmoids.
    """
    entropy = bce_with_logits(logit, label.clamp_min(0).to(logit.dtype), reduction="none")
    return _mean_of(weight * (1 - torch.exp(-entropy)) ** gamma * entropy, label >= 0)


def _mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count, of which each process may have another number.

    They are not picked out: a GPU would make the host wait for how many there are.
    """
    return (values * counted).sum() / processes.mean(counted.sum().to(values.dtype))
