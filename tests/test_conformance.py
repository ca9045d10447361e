"""The conformance kit: it lets right kernels pass, catches planted faults, and its three doors work from outside."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_packaging import wheel  # noqa: F401 (a fixture)
from typer.testing import CliRunner

from fmrnet import conformance, fast
from fmrnet.cli import app
from fmrnet.conformance.kernel import find
from fmrnet.errors import ConfigError
from fmrnet.files import write_json

README = (Path(__file__).parent.parent / "README.md").read_text()

# --- kernels as somebody else would write them, each with a fault that can be planted -----------------------


def rearrange(skip, memory_features, *, size=2, temperature=1.0, fault=""):
    """Eq 6 to 9 with unfold and fold."""
    if fault == "ignores strides":
        skip = skip.as_strided(skip.shape, torch.empty(skip.shape).stride())
    if fault == "changes its input":
        memory_features.mul_(1.0 + 1e-3)
    rate = 1.0 if fault == "temperature left out" else temperature
    least = 0.0 if fault == "no least norm" else 1e-12
    p, b = F.unfold(skip, size, stride=size), F.unfold(memory_features, size, stride=size)
    p = p / p.norm(dim=1, keepdim=True).clamp_min(least)
    c = b / b.norm(dim=1, keepdim=True).clamp_min(least)
    if fault == "last channel dropped":
        p, c = p[:, : -size * size] if p.shape[1] > size * size else p, c[:, : p.shape[1]]
        c = c[:, : p.shape[1] - size * size] if c.shape[1] != p.shape[1] else c
        p = p[:, : c.shape[1]]
    if fault == "gradient misses the norm":
        norm = p.detach().norm(dim=1, keepdim=True)
        q = F.unfold(skip, size, stride=size)
        p = q / q.detach().norm(dim=1, keepdim=True).clamp_min(least) + 0 * norm
    e = torch.exp((c.mT @ p - (0 if fault == "no shift" else 1)) / rate)
    if fault == "last texton not counted":
        e = e[:, :-1] if e.shape[1] > 1 else e
        b = b[:, :, : e.shape[1]]
    s = e / e.sum(2 if fault == "softmax over the places" else 1, keepdim=True)
    G = F.fold(b @ s, skip.shape[2:], size, stride=size)
    if fault == "returns another dtype":
        return G.double()
    if fault == "not written everywhere" and G.shape[3] > 4:
        out = torch.empty_like(G)
        out[..., :4] = G[..., :4]
        return out
    if fault == "forgets the batch":
        return G[:1].expand_as(G)
    if fault == "fails on no pictures" and not len(skip):
        raise RuntimeError("grid of 0 blocks")
    if fault == "differs from run to run":
        return G * (1 + 1e-6 * torch.rand(()))
    return G


def similarity(image, reconstruction, *, fault=""):
    """SSIM from SciPy's filters, in float64."""
    from scipy import ndimage

    mode = (
        "constant" if fault == "borders of zeros" else "mirror" if fault == "edge not repeated" else "reflect"
    )
    taps = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    taps /= taps.sum()
    if fault == "window one short":
        taps = taps[:-2] / taps[:-2].sum()

    def blur(a):
        for axis in (2, 3):
            a = ndimage.correlate1d(a, taps, axis, mode=mode)
        return a

    x, y = (t.detach().double().numpy() for t in (image, reconstruction))
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    if fault == "sample statistics":
        vx, vy, cov = (v * 121 / 120 for v in (vx, vy, cov))
    if fault == "statistics of the neighbour":
        cov = np.concatenate([cov[..., :-1], cov[..., -2:-1]], -1) if cov.shape[3] > 1 else cov
    c1, c2 = 0.01**2, 0.0 if fault == "c2 left out" else 0.03**2
    with np.errstate(all="ignore"):
        maps = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    out = maps.sum(1) if fault == "channels summed" else maps.mean(1)
    return torch.from_numpy(out).to(image.dtype)


def nearest(z, memory, *, fault=""):
    """The distance by the differences themselves, in NumPy."""
    a, m = z.detach().double().numpy(), memory.detach().double().numpy()
    if fault == "products in float32":
        a, m = a.astype(np.float32), m.astype(np.float32)
        square = (a**2).sum(1)[:, None] - 2 * a @ m.T + (m**2).sum(1)
    else:
        square = ((a[:, None] - m) ** 2).sum(2)
    if fault == "last entry left out" and len(m) > 1:
        square = square[:, :-1]
    index = square.argmin(1)
    found = square.min(1)
    distance = found if fault == "no root" else np.sqrt(np.maximum(found, 0))
    if fault == "chunks of 16":
        fresh = np.empty(len(distance))
        whole = len(distance) // 16 * 16 or len(distance)
        fresh[:whole] = distance[:whole]
        distance = fresh
    kind = np.int32 if fault == "index in 32 bits" else np.int64
    return torch.from_numpy(distance).to(z.dtype), torch.from_numpy(index.astype(kind))


def cut(image, size=64, stride=64, *, fault=""):
    """Patches one by one."""

    def starts(length):
        found = list(range(0, length - size + 1, stride))
        if fault != "last patch missing" and found[-1] != length - size:
            found.append(length - size)
        return found

    corners = [(r, c) for r in starts(image.shape[1]) for c in starts(image.shape[2])]
    if fault == "column by column":
        corners.sort(key=lambda corner: corner[::-1])
    patches = torch.stack([image[:, r : r + size, c : c + size] for r, c in corners])
    return patches, torch.tensor(corners)


def stitch(patches, origins, shape, *, fault=""):
    """The weighted mean."""
    size = patches.shape[2]
    i = torch.arange(size)
    w = torch.minimum(i + 1, size - i - (1 if fault == "lopsided triangle" else 0)).to(patches.dtype)
    w = torch.ones_like(w) if fault == "flat weights" else w
    total, out = torch.zeros(shape), torch.zeros(patches.shape[1], *shape, dtype=patches.dtype)
    for patch, (r, c) in zip(patches, origins.tolist()):
        part = w[:, None] * w
        total[r : r + size, c : c + size] += part
        out[:, r : r + size, c : c + size] += part * patch
    return out / total


FAULTS: list[tuple[str, Callable[..., Any], str]] = [
    *(
        ("rearrange_textons", rearrange, fault)
        for fault in (
            "temperature left out", "no least norm", "ignores strides", "changes its input", "last channel dropped",
            "gradient misses the norm", "last texton not counted", "softmax over the places",
            "returns another dtype", "not written everywhere", "forgets the batch", "fails on no pictures",
            "differs from run to run",
        )
    ),
    *(
        ("ssim", similarity, fault)
        for fault in (
            "borders of zeros", "edge not repeated", "window one short", "sample statistics",
            "statistics of the neighbour", "c2 left out", "channels summed",
        )
    ),
    *(
        ("nearest_distance", nearest, fault)
        for fault in ("products in float32", "last entry left out", "no root", "chunks of 16", "index in 32 bits")
    ),
    *(("slice_patches", cut, fault) for fault in ("last patch missing", "column by column")),
    *(("stitch_patches", stitch, fault) for fault in ("lopsided triangle", "flat weights")),
]  # fmt: skip
RIGHT = {name: function for name, function, _ in FAULTS}


def planted(function: Callable[..., Any], fault: str) -> Callable[..., Any]:
    """The function with its fault, and no parameter that tells."""
    if function is rearrange:
        return lambda skip, memory_features, *, size=2, temperature=1.0: rearrange(
            skip, memory_features, size=size, temperature=temperature, fault=fault
        )
    if function is cut:
        return lambda image, size=64, stride=64: cut(image, size, stride, fault=fault)
    return lambda *inputs: function(*inputs, fault=fault)


@pytest.mark.parametrize("name", sorted(RIGHT))
def test_a_right_kernel_passes(name):
    outcomes = conformance.check(name, planted(RIGHT[name], ""), examples=0.5)
    assert {outcome.ok for outcome in outcomes} <= {True, None}
    assert sum(outcome.ok is True for outcome in outcomes) >= 2


@pytest.mark.parametrize(("name", "function", "fault"), FAULTS, ids=[f"{n}: {f}" for n, _, f in FAULTS])
def test_a_planted_fault_is_caught_in_two_minutes(name, function, fault):
    start = time.process_time()
    outcomes = conformance.outcomes(name, planted(function, fault))
    failed = next((outcome for outcome in outcomes if outcome.ok is False), None)
    assert failed is not None, f"{fault}: not noticed"
    assert time.process_time() - start < 120
    assert failed.message.count("\n") > 5
