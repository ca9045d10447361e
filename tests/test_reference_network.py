"""The oracle's generator against PyTorch's layers, one by one and put together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fmrnet.reference import network

seeds = st.integers(0, 2**32 - 1)
CHANNELS, ENTRIES = (3, 4, 5, 6, 7), 9


def random_weights(seed, colours, mixing, patch=64):
    """Weights of every name in the model's state, small networks, sizes as in the paper."""
    rng = np.random.default_rng(seed)
    side = patch // 32
    K = CHANNELS[4] * side**2
    weights = {"mean": rng.random(colours), "std": 0.5 + rng.random(colours)}

    def block(name, inputs, outputs, shape):
        weights[f"{name}.conv.weight"] = rng.normal(size=shape) / np.sqrt(4 * inputs)
        weights[f"{name}.norm.weight"] = 0.5 + rng.random(outputs)
        weights[f"{name}.norm.bias"] = 0.3 * rng.normal(size=outputs)
        weights[f"{name}.norm.running_mean"] = 0.3 * rng.normal(size=outputs)
        weights[f"{name}.norm.running_var"] = 0.5 + rng.random(outputs)

    c = (colours, *CHANNELS)
    for i in range(5):
        block(f"encoder.{i}", c[i], c[i + 1], (c[i + 1], c[i], 4, 4))
    for j, (inputs, outputs) in enumerate([(c[5], c[4]), (2 * c[4], c[3]), (2 * c[3], c[2]), (c[2], c[1])]):
        block(f"decoder.{j}", inputs, outputs, (inputs, outputs, 4, 4))
    weights["output.weight"], weights["output.bias"] = (
        rng.normal(size=(c[1], colours, 4, 4)),
        rng.normal(size=colours),
    )
    for name, shape in (("hidden", (8, K)), ("output", (ENTRIES, 8))):
        weights[f"addressing.{name}.weight"] = rng.normal(size=shape) / np.sqrt(shape[1])
        weights[f"addressing.{name}.bias"] = rng.normal(size=shape[0])
    weights["memory"] = rng.normal(size=(ENTRIES, K))
    for level, textons in enumerate([(patch // 32) ** 2, (patch // 16) ** 2]):
        if mixing != "none":
            shape = (3, 3) if mixing == "shared" else (textons, textons, 3, 3)
            weights[f"mixing.{level}"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return weights


def torch_generator(patch, weights, use_memory, rearrange, temperature):
    """The same network from PyTorch's functions alone, textons by attention over unfolded blocks."""
    w = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
    mean, std = w["mean"][:, None, None], w["std"][:, None, None]

    def finish(x, name):
        statistics = (w[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.leaky_relu(F.batch_norm(x, *statistics, eps=1e-5), 0.2)

    def rearranged(skip, features, mixing):
        if not rearrange:
            return skip
        b, blocks = F.unfold(features, 2, stride=2)[0].T, F.unfold(skip, 2, stride=2)[0].T
        cosine = F.normalize(b, eps=1e-12) @ F.normalize(blocks, eps=1e-12).T
        s = torch.softmax(cosine / temperature, dim=0)[None].unflatten(
            2, [side // 2 for side in skip.shape[2:]]
        )
        if mixing in w and w[mixing].ndim == 4:
            s = F.conv2d(s, w[mixing], padding=1)
        elif mixing in w:
            s = F.conv2d(s, w[mixing].expand(s.shape[1], 1, 3, 3), padding=1, groups=s.shape[1])
        return F.fold((b.T @ s[0].flatten(1))[None], skip.shape[2:], 2, stride=2)

    x, skips = (torch.from_numpy(patch).permute(2, 0, 1) - mean)[None] / std, []
    for i in range(5):
        x = finish(F.conv2d(x, w[f"encoder.{i}.conv.weight"], stride=2, padding=1), f"encoder.{i}")
        skips.append(x)
    latent = z = x.flatten(1)
    if use_memory:
        hidden = F.leaky_relu(F.linear(z, w["addressing.hidden.weight"], w["addressing.hidden.bias"]), 0.2)
        query = torch.softmax(
            F.linear(hidden, w["addressing.output.weight"], w["addressing.output.bias"]), dim=1
        )
        latent = query @ w["memory"]
    x = latent.reshape(skips[4].shape)
    for j in range(4):
        x = F.conv_transpose2d(x, w[f"decoder.{j}.conv.weight"], stride=2, padding=1)
        x = finish(x, f"decoder.{j}")
        if j < 2:
            x = torch.cat([x, rearranged(skips[3 - j], x, f"mixing.{j}")], dim=1)
    y = F.conv_transpose2d(x, w["output.weight"], w["output.bias"], stride=2, padding=1)
    return z[0].numpy(), y[0].numpy(), (y[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()


@settings(max_examples=12)
@given(
    seeds,
    st.sampled_from([1, 3]),
    st.sampled_from(["none", "shared", "dense"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.1, 1.0]),
    st.sampled_from([64, 96]),
)
def test_generator_is_torch(seed, colours, mixing, use_memory, rearrange, temperature, size):
    weights = random_weights(seed, colours, mixing, size)
    patch = np.random.default_rng(seed).random((size, size, colours))
    result = network.generate(
        patch, weights, use_memory=use_memory, rearrange=rearrange, temperature=temperature
    )
    z, y, reconstruction = torch_generator(patch, weights, use_memory, rearrange, temperature)
    assert np.abs(result["z"] - z).max() < 1e-9
    assert np.abs(result["y"] - y).max() < 1e-9
    assert np.abs(result["reconstruction"] - reconstruction).max() < 1e-9
    assert reconstruction.shape == patch.shape


@settings(max_examples=5)
@given(seeds, st.sampled_from([1, 3]))
def test_generate_says_every_step(seed, colours):
    weights = random_weights(seed, colours, "shared")
    patch = np.random.default_rng(seed).random((64, 64, colours))
    steps = network.generate(patch, weights)
    features, z = network.encode(patch, weights)
    shapes = {"F4": (6, 4, 4), "G4": (6, 4, 4), "F3": (5, 8, 8), "G3": (5, 8, 8), "F2": (4, 16, 16)}
    shapes |= {"F1": (3, 32, 32), "y": (colours, 64, 64), "reconstruction": (64, 64, colours)}
    shapes |= {"z": (28,), "query": (ENTRIES,), "recalled": (28,)}
    assert {name: step.shape for name, step in steps.items()} == shapes
    assert [f.shape for f in features] == [(c, 32 >> i, 32 >> i) for i, c in enumerate(CHANNELS)]
    assert np.array_equal(z, features[4].reshape(-1))
    assert np.array_equal(steps["z"], z)
    assert steps["query"].sum() == pytest.approx(1, abs=1e-12)
    assert np.array_equal(steps["recalled"], steps["query"] @ weights["memory"])
    decoded = network.decode(steps["recalled"], features, weights)
    assert all(np.array_equal(decoded[name], steps[name]) for name in decoded)
    without_memory = network.generate(patch, weights, use_memory=False)
    assert not {"query", "recalled"} & set(without_memory)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_windows_of_a_constant_step_join_to_what_was_cut(seed, step, parts, down, across):
    side = step * parts
    x = np.random.default_rng(seed).normal(size=(2, side + down * step, side + across * step))
    cut = network.windows(x, side, step)
    views = np.lib.stride_tricks.sliding_window_view(x, (2, side, side))[0, ::step, ::step]
    assert np.array_equal(cut, views)
    assert np.allclose(network.joined(cut, step), x, rtol=0, atol=1e-14)


@settings(max_examples=3)
@given(seeds, st.sampled_from(["none", "shared", "dense"]))
def test_a_picture_of_one_patch_is_the_papers(seed, mixing):
    weights = random_weights(seed, 1, mixing)
    patch = np.random.default_rng(seed).random((64, 64, 1))
    paper, windowed = network.generate(patch, weights), network.generate(patch, weights, patch=64)
    for name, value in paper.items():
        assert np.array_equal(value, windowed[name].reshape(value.shape)), name


@settings(max_examples=5)
@given(seeds)
def test_the_picture_reaches_the_decoder_through_the_two_deepest_skips_only(seed):
    """With one memory entry and cosines that do not count, every picture is restored alike."""
    weights = random_weights(seed, 1, "none")
    weights["memory"] = np.tile(weights["memory"][:1], (ENTRIES, 1))
    a, b = (
        network.generate(patch, weights, temperature=1e9)["y"]
        for patch in np.random.default_rng(seed).random((2, 64, 64, 1))
    )
    assert np.allclose(a, b, rtol=0, atol=1e-6)


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_layers_are_torch(seed, inputs, outputs, h, w):
    rng = np.random.default_rng(seed)
    x, wide = rng.normal(size=(inputs, 2 * h, 2 * w)), rng.normal(size=(outputs, inputs, 4, 4))
    t = torch.from_numpy(x)[None]
    theirs = F.conv2d(t, torch.from_numpy(wide), stride=2, padding=1)[0]
    assert np.allclose(network.conv(x, wide), theirs, rtol=0, atol=1e-12)
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2, 3))
    theirs = F.conv_transpose2d(t, torch.from_numpy(tall), stride=2, padding=1)[0]
    assert np.allclose(network.deconv(x, tall), theirs, rtol=0, atol=1e-12)
    gamma, beta, mu, var = rng.normal(size=(4, inputs))
    statistics = [torch.from_numpy(value) for value in (mu, var**2, gamma, beta)]
    theirs = F.batch_norm(t, *statistics, eps=1e-5)[0]
    assert np.allclose(network.batch_norm(x, gamma, beta, mu, var**2), theirs, rtol=1e-12, atol=1e-12)
    assert np.array_equal(network.leaky_relu(x), F.leaky_relu(t, 0.2)[0].numpy())


@pytest.mark.parametrize(
    ("patch", "change", "says"),
    [
        (np.zeros((64, 60, 1)), {}, "divisible by 32"),
        (np.zeros((64, 64)), {}, "for grey"),
        (np.full((64, 64, 1), 7.0), {}, r"expected \[0, 1\]"),
        (np.zeros((64, 64, 1)), {"memory": None}, "no 'memory'"),
        (np.zeros((64, 64, 1)), {"encoder.1.conv.weight": np.zeros((4, 2, 4, 4))}, r"\(4, 2, 4, 4\)"),
        (np.zeros((64, 64, 1)), {"memory": np.zeros((9, 27))}, "latent has 27 values"),
        (np.zeros((64, 64, 1)), {"mixing.0": np.zeros((9, 9, 3, 3))}, r"\(4, 4, 3, 3\) for 4 textons"),
    ],
)
def test_errors_say_what_was_given(patch, change, says):
    weights = random_weights(0, 1, "none") | change
    weights = {name: value for name, value in weights.items() if value is not None}
    with pytest.raises(ValueError, match=says):
        network.generate(patch, weights)
