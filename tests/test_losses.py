"""The training losses against the oracle of Eq 2, 3 and 10-13."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet.learning import losses
from fmrnet.reference import losses as oracle

seeds = st.integers(0, 2**20)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) * 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds, batch=st.integers(1, 5), width=st.integers(1, 30), compactness=st.sampled_from([0, 0.01, 1])
)
def test_latent_loss(seed, batch, width, compactness):
    r0, r_pos = draw(seed, batch, width), draw(seed + 1, batch, width)
    pos, neg = draw(seed + 2, batch), draw(seed + 3, batch)
    found = losses.latent_loss(*(torch.from_numpy(a) for a in (r0, r_pos, pos, neg)), compactness)
    expected = oracle.latent_loss(r0, r_pos, sigmoid(pos), sigmoid(neg), compactness)
    assert np.isclose(found.item(), expected, rtol=1e-6)


def test_latent_loss_of_some_defective_latents():
    """Those that do not count are as good as not there."""
    latents, logits = torch.randn(2, 5, 3), torch.randn(2, 5)
    counted = torch.tensor([True, False, True, True, False])
    found = losses.latent_loss(*latents, *logits, 0.5, counted)
    expected = losses.latent_loss(*latents, logits[0], logits[1][counted], 0.5)
    torch.testing.assert_close(found, expected)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, batch=st.integers(1, 4))
def test_reconstruction_loss_and_penalty(seed, batch):
    pictures, restored = draw(seed, batch, 6, 5, 3), draw(seed + 1, batch, 6, 5, 3)
    weights = [draw(seed + i, 3, 4) for i in range(3)]
    found = losses.reconstruction_loss(torch.from_numpy(pictures), torch.from_numpy(restored))
    penalty = losses.weight_norms(torch.from_numpy(w) for w in weights)
    expected = oracle.reconstruction_loss(pictures, restored, weights, epsilon=0.1)
    assert np.isclose(found.item() + 0.1 * penalty.item(), expected, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, batch=st.integers(1, 5))
def test_adversarial_losses(seed, batch):
    real, fake = draw(seed, batch), draw(seed + 1, batch)
    t_real, t_fake = torch.from_numpy(real), torch.from_numpy(fake)
    found = losses.discriminator_loss(t_real, t_fake).item()
    assert np.isclose(found, oracle.discriminator_loss(sigmoid(real), sigmoid(fake)))
    assert np.isclose(losses.gan_loss(t_fake).item(), oracle.gan_loss(sigmoid(fake)))


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_perceptual_loss(seed):
    real = [draw(seed, 2, 3, 4, 4), draw(seed + 1, 2, 5, 2, 2)]
    fake = [draw(seed + 2, 2, 3, 4, 4), draw(seed + 3, 2, 5, 2, 2)]
    found = losses.perceptual_loss([torch.from_numpy(a) for a in real], [torch.from_numpy(a) for a in fake])
    assert np.isclose(found.item(), oracle.perceptual_loss(real, fake), rtol=1e-6)


def test_logits_far_out_stay_finite():
    far = torch.tensor([1e4, -1e4])
    assert torch.isfinite(losses.discriminator_loss(far, far))
    assert torch.isfinite(losses.gan_loss(far))
