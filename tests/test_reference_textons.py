"""Texton rearrangement against PyTorch's convolutions and attention, and what must hold of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import (
    conv2d,
    conv_transpose2d,
    fold,
    pixel_unshuffle,
    scaled_dot_product_attention,
    unfold,
)

from fmrnet.reference import textons

seeds = st.integers(0, 2**32 - 1)
temperatures = st.sampled_from([0.05, 0.3, 1.0, 4.0])


@st.composite
def features(draw):
    """Skip, memory features, texton size; some blocks all zero."""
    size, C = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    H, W, H_F, W_F = (size * draw(st.integers(1, 5)) for _ in range(4))
    rng = np.random.default_rng(draw(seeds))
    skip, memory = rng.normal(size=(C, H, W)), rng.normal(size=(C, H_F, W_F))
    if draw(st.booleans()):
        skip[:, :size, :size] = 0
    if draw(st.booleans()):
        memory[:, :size, :size] = 0
    return skip, memory, size


def as_the_paper_says(skip, memory, size, mixing, temperature):
    """Eq 6 to 9 with PyTorch's operators: convolution with stride K, softmax, convolution, deconvolution."""
    F_D, F = torch.from_numpy(skip)[None], torch.from_numpy(memory)[None]
    C = F.shape[1]
    columns = unfold(F, size, stride=size)  # (1, C*K*K, N)
    b = columns[0].T.reshape(-1, C, size, size)
    b_unit = b / b.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
    norm = conv2d(F_D**2, torch.ones(1, C, size, size, dtype=F.dtype), stride=size).sqrt().clamp_min(1e-12)
    s = torch.softmax(conv2d(F_D, b_unit, stride=size) / norm / temperature, dim=1)
    if mixing is not None:
        kernel = torch.from_numpy(mixing)
        if mixing.ndim == 2:
            s = conv2d(s.transpose(0, 1), kernel[None, None], padding=1).transpose(0, 1)
        else:
            s = conv2d(s, kernel, padding=1)
    return conv_transpose2d(s, b, stride=size)[0].numpy()


@given(features(), temperatures, st.sampled_from(["none", "shared", "dense"]), seeds)
def test_rearrangement_is_torch_convolutions(case, temperature, kind, seed):
    skip, memory, size = case
    N = memory[0].size // size**2
    shape = {"none": None, "shared": (3, 3), "dense": (N, N, 3, 3)}[kind]
    mixing = None if shape is None else np.random.default_rng(seed).normal(size=shape)
    G = textons.rearrange_textons(skip, memory, size=size, mixing=mixing, temperature=temperature)
    assert G.shape == skip.shape
    assert np.allclose(G, as_the_paper_says(skip, memory, size, mixing, temperature), rtol=1e-11, atol=1e-11)


@given(features(), temperatures)
def test_rearrangement_is_attention(case, temperature):
    """scaled_dot_product_attention(unit blocks, unit textons, textons, scale=1/temperature)"""
    skip, memory, size = case
    blocks, b = (unfold(torch.from_numpy(x)[None], size, stride=size).mT for x in (skip, memory))
    unit = [torch.nn.functional.normalize(x, dim=-1, eps=1e-12) for x in (blocks, b)]
    attended = scaled_dot_product_attention(*unit, b, scale=1 / temperature)
    theirs = fold(attended.mT, skip.shape[1:], size, stride=size)[0]
    G = textons.rearrange_textons(skip, memory, size=size, temperature=temperature)
    assert np.allclose(G, theirs.numpy(), rtol=1e-11, atol=1e-11)


@given(features())
def test_textons_are_torch_pixel_unshuffle(case):
    """pixel_unshuffle(features, size): channel c, then row and column inside the block."""
    _, memory, size = case
    C = len(memory)
    theirs = pixel_unshuffle(torch.from_numpy(memory), size).numpy()  # (C*K*K, H/K, W/K)
    theirs = theirs.reshape(C, size, size, -1).transpose(3, 0, 1, 2)
    assert np.array_equal(textons.extract_textons(memory, size), theirs)


@given(features(), temperatures)
def test_similarity_is_a_distribution_over_the_textons(case, temperature):
    skip, memory, size = case
    s = textons.texton_similarity(skip, textons.extract_textons(memory, size), size, temperature)
    assert s.shape == (memory[0].size // size**2, skip.shape[1] // size, skip.shape[2] // size)
    assert s.min() >= 0
    assert np.allclose(s.sum(axis=0), 1, rtol=0, atol=1e-12)


@given(features(), temperatures)
def test_constant_memory_features_come_back(case, temperature):
    skip, memory, size = case
    constant = np.broadcast_to(memory[:, :1, :1], memory.shape)
    G = textons.rearrange_textons(skip, constant, size=size, temperature=temperature)
    assert np.allclose(G, np.broadcast_to(memory[:, :1, :1], skip.shape), rtol=0, atol=1e-12)


@given(features(), temperatures)
def test_rearranged_blocks_lie_in_the_bounds_of_the_textons(case, temperature):
    skip, memory, size = case
    b = textons.extract_textons(memory, size)
    G = textons.extract_textons(
        textons.rearrange_textons(skip, memory, size=size, temperature=temperature), size
    )
    assert (b.min(axis=0) - 1e-12 <= G).all()
    assert (b.max(axis=0) + 1e-12 >= G).all()


@given(features(), seeds, st.booleans())
def test_the_order_of_textons_does_not_matter_without_dense_mixing(case, seed, shared):
    skip, memory, size = case
    rng = np.random.default_rng(seed)
    C, H, W = memory.shape
    b = rng.permutation(textons.extract_textons(memory, size))
    rows = b.reshape(H // size, W // size, C, size, size)
    permuted = rows.transpose(2, 0, 3, 1, 4).reshape(C, H, W)
    mixing = rng.normal(size=(3, 3)) if shared else None
    before, after = (textons.rearrange_textons(skip, x, size=size, mixing=mixing) for x in (memory, permuted))
    assert np.allclose(before, after, rtol=0, atol=1e-11)


@given(features(), st.floats(0.1, 10))
def test_only_the_direction_of_a_skip_block_counts(case, scale):
    skip, memory, size = case
    before, after = (textons.rearrange_textons(x, memory, size=size) for x in (skip, scale * skip))
    assert np.allclose(before, after, rtol=0, atol=1e-12)


@given(seeds)
def test_a_cold_softmax_picks_the_texton_itself(seed):
    features_ = np.random.default_rng(seed).normal(size=(6, 8, 8))
    G = textons.rearrange_textons(features_, features_, temperature=1e-4)
    assert np.allclose(G, features_, rtol=0, atol=1e-9)


@given(seeds)
def test_defaults_are_the_papers(seed):
    """K = 2, no temperature, no mixing."""
    skip, memory = np.random.default_rng(seed).normal(size=(2, 3, 4, 6))
    G = textons.rearrange_textons(skip, memory)
    assert np.allclose(G, as_the_paper_says(skip, memory, 2, None, 1.0), rtol=1e-11, atol=1e-11)
    b = textons.extract_textons(memory)
    assert np.array_equal(textons.texton_similarity(skip, b), textons.texton_similarity(skip, b, 2, 1.0))


def test_a_zero_block_likes_all_textons_alike():
    b = np.random.default_rng(0).normal(size=(5, 3, 2, 2))
    assert np.allclose(textons.texton_similarity(np.zeros((3, 2, 4)), b), 1 / 5, rtol=0, atol=1e-15)


@given(features(), temperatures, seeds)
def test_identity_kernels_mix_nothing_and_the_two_kinds_of_mixing_agree(case, temperature, seed):
    skip, memory, size = case
    N = memory[0].size // size**2
    identity = np.zeros((3, 3))
    identity[1, 1] = 1
    kernel = np.random.default_rng(seed).normal(size=(3, 3))

    def rearranged(mixing):
        return textons.rearrange_textons(skip, memory, size=size, mixing=mixing, temperature=temperature)

    assert np.allclose(rearranged(identity), rearranged(None), rtol=0, atol=1e-12)
    dense = np.eye(N)[:, :, None, None] * kernel
    assert np.allclose(rearranged(dense), rearranged(kernel), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: textons.extract_textons(x[:, :3]), r"\(2, 3, 4\).*divisible by the texton size 2"),
        (lambda x: textons.rearrange_textons(x[:1], x), "1 channels but memory_features 2"),
        (lambda x: textons.rearrange_textons(x, x, mixing=np.ones((4, 4, 2, 2))), r"\(4, 4, 3, 3\) for 4"),
        (lambda x: textons.rearrange_textons(x, x, temperature=0), "temperature is 0"),
        (lambda x: textons.texton_similarity(x, np.ones((5, 2, 3, 3))), r"expected \(N, 2, 2, 2\)"),
        (lambda x: textons.rearrange_textons(x * np.nan, x), "skip holds 32 values that are NaN"),
        (lambda x: textons.rearrange_textons(x[0], x), r"skip has shape \(4, 4\)"),
    ],
)
def test_errors_say_what_was_given(call, says):
    with pytest.raises(ValueError, match=says):
        call(np.ones((2, 4, 4)))
