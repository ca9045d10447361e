"""The losses against PyTorch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fmrnet.reference import losses

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 9))
def test_binary_cross_entropy_is_torch(seed, n):
    """torch.nn.functional.binary_cross_entropy(x, y, reduction="sum"), certain outputs included"""
    rng = np.random.default_rng(seed)
    x, y = np.clip(1.4 * rng.random(n) - 0.2, 0, 1), rng.integers(0, 2, n).astype(float)
    theirs = F.binary_cross_entropy(torch.from_numpy(x), torch.from_numpy(y), reduction="sum").item()
    assert losses.binary_cross_entropy(x, y) == pytest.approx(theirs, rel=1e-12)


@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_latent_loss_is_torch(seed, N, K):
    """From logits: two binary_cross_entropy_with_logits and pairwise_distance(R+, R0, eps=0)."""
    rng = np.random.default_rng(seed)
    logits, r0, r_pos = torch.from_numpy(3 * rng.normal(size=(2, N))), *rng.normal(size=(2, N, K))
    entropy = F.binary_cross_entropy_with_logits(logits[0], torch.ones(N, dtype=logits.dtype))
    entropy = entropy + F.binary_cross_entropy_with_logits(logits[1], torch.zeros(N, dtype=logits.dtype))
    distance = F.pairwise_distance(torch.from_numpy(r_pos), torch.from_numpy(r0), eps=0).mean()
    c_pos, c_neg = torch.sigmoid(logits).numpy()
    assert losses.latent_loss(r0, r_pos, c_pos, c_neg) == pytest.approx(
        (entropy + distance).item(), rel=1e-10
    )
    assert losses.latent_loss(r0, r_pos, c_pos, c_neg, 0.1) == pytest.approx(
        (entropy + 0.1 * distance).item(), rel=1e-10
    )


def test_latent_loss_of_a_perfect_classifier_on_one_point_is_zero():
    r = np.ones((3, 4))
    assert losses.latent_loss(r, r, np.ones(3), np.zeros(3)) == 0


@given(seeds, st.floats(0, 1))
def test_reconstruction_loss_is_torch_mse_and_norms(seed, epsilon):
    """torch.nn.functional.mse_loss + epsilon * sum of torch.linalg.norm(w.flatten())"""
    rng = np.random.default_rng(seed)
    image, reconstruction = rng.random((2, 3, 4, 5, 1))
    weights = [rng.normal(size=(4, 3)), rng.normal(size=(2, 3, 4, 4)), rng.normal(size=5)]
    mse = F.mse_loss(torch.from_numpy(reconstruction), torch.from_numpy(image))
    penalty = sum(torch.linalg.norm(torch.from_numpy(w).flatten()) for w in weights)
    ours = losses.reconstruction_loss(image, reconstruction, weights, epsilon)
    assert ours == pytest.approx((mse + epsilon * penalty).item(), rel=1e-12)
    assert losses.reconstruction_loss(image, image) == 0


@given(seeds, st.integers(1, 6))
def test_gan_losses_are_torch_binary_cross_entropy(seed, N):
    """discriminator: bce(D(I_o), 1) + bce(D(I_rec), 0); generator: bce(D(I_rec), 1)"""
    real, fake = np.random.default_rng(seed).random((2, N))
    d_real, d_fake = torch.from_numpy(real), torch.from_numpy(fake)
    one, zero = torch.ones_like(d_real), torch.zeros_like(d_real)
    theirs = F.binary_cross_entropy(d_real, one) + F.binary_cross_entropy(d_fake, zero)
    assert losses.discriminator_loss(real, fake) == pytest.approx(theirs.item(), rel=1e-12)
    assert losses.gan_objective(real, fake) == pytest.approx(-theirs.item(), rel=1e-12)
    assert losses.gan_loss(fake) == pytest.approx(F.binary_cross_entropy(d_fake, one).item(), rel=1e-12)


def test_a_discriminator_that_cannot_tell_has_the_known_value():
    assert losses.gan_objective([0.5, 0.5], [0.5]) == pytest.approx(-2 * np.log(2))


@given(seeds)
def test_perceptual_loss_is_half_of_each_torch_l1_loss(seed):
    """0.5 * torch.nn.functional.l1_loss of each layer"""
    rng = np.random.default_rng(seed)
    real = [rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 5, 2, 2))]
    fake = [layer + rng.normal(size=layer.shape) for layer in real]
    theirs = sum(0.5 * F.l1_loss(torch.from_numpy(a), torch.from_numpy(b)).item() for a, b in zip(real, fake))
    assert losses.perceptual_loss(real, fake) == pytest.approx(theirs, rel=1e-12)
    assert losses.perceptual_loss(real, real) == 0
    d_fake = rng.random(2)
    total = losses.gan_loss(d_fake) + losses.perceptual_loss(real, fake)
    assert losses.adversarial_loss(d_fake, real, fake) == pytest.approx(total, rel=1e-15)


def test_phases_weigh_as_the_paper_recommends():
    assert losses.phase1_loss(2.0, 3.0, 5.0) == 100 * 2 + 3 + 5
    assert losses.phase2_loss(2.0, 3.0) == 100 * 2 + 3
    assert losses.phase1_loss(2.0, 3.0, 5.0, w_rec=1, w_adv=10, w_lat=100) == 2 + 30 + 500
    assert losses.phase2_loss(2.0, 3.0, w_rec=1, w_adv=10) == 2 + 30


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: losses.binary_cross_entropy([1.5], [1]), "x has values 1.5.*sigmoid"),
        (lambda: losses.binary_cross_entropy([0.5], [1, 0]), "one shape"),
        (lambda: losses.latent_loss(np.eye(2), np.eye(2), [1], [0]), "1 classifier outputs for 2 latents"),
        (lambda: losses.reconstruction_loss(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 3))), "one shape"),
        (lambda: losses.perceptual_loss([[1.0]], []), "1 real and 0 fake layers"),
        (lambda: losses.perceptual_loss([[1.0]], [[1.0, 2.0]]), r"features_fake\[0\]"),
        (lambda: losses.gan_loss([-0.1]), "d_fake has values -0.1"),
    ],
)
def test_errors_say_what_was_given(call, says):
    with pytest.raises(ValueError, match=says):
        call()
