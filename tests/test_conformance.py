"""The conformance kit: it lets right kernels pass, catches planted faults, and its three doors work from outside."""

from __future__ import annotations

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
import test_packaging
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from fmrnet import conformance, fast
from fmrnet.cli import app
from fmrnet.conformance.kernel import find
from fmrnet.errors import ConfigError

wheel = test_packaging.wheel
PAGE = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text()

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


# --- the three doors --------------------------------------------------------------------------------------


@pytest.fixture
def author(tmp_path, monkeypatch):
    """A folder outside the repository with somebody's kernels."""
    (tmp_path / "theirs.py").write_text(
        "from functools import partial\n"
        "from fmrnet import fast\n"
        "def recall(query, memory):\n    return query @ memory\n"
        "def transposed(query, memory):\n    return query @ memory.flip(0)\n"
        "def refuses(query, memory):\n    raise NotImplementedError('GPU only')\n"
        "def raises(query, memory):\n    return query @ memory.T.bogus\n"
        "nothing = 3\n"
    )
    (tmp_path / "torn.py").write_text("import no_such_library_of_theirs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for module in ("theirs", "torn"):
        sys.modules.pop(module, None)


def run(*words):
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kernel", "recall"], "expected module:function, or NAME=module:function"),
        (["--kernel", "nosuch.kernels:recall"], "there is no module 'nosuch'"),
        (
            ["--kernel", "torn:recall"],
            "importing torn raised ModuleNotFoundError: No module named 'no_such_library",
        ),
        (
            ["--kernel", "theirs:transposed"],
            "'transposed' is no function of fmrnet.fast; known: address, anomaly_map",
        ),
        (
            ["--kernel", "recal=theirs:recall"],
            "'recal' is no function of fmrnet.fast; known: address, anomaly_map",
        ),
        (["--kernel", "recall=theirs:absent"], "theirs has no 'absent'"),
        (["--kernel", "recall=theirs:nothing"], "nothing is a int; expected a function"),
        (["--kernel", "theirs:recall", "--device", "tpu"], "device 'tpu'"),
        (
            ["--kernel", "theirs:recall", "--dtypes", "float31"],
            "dtypes float31: expected one or more of float64",
        ),
    ],
)
@pytest.mark.parametrize("command", ["selfcheck", "bench"])
def test_mistakes_are_told_in_one_line(author, command, words, says):
    if command == "bench" and "--dtypes" in words:
        pytest.skip("bench checks in float32")
    seen = run(command, *words)
    assert seen.exit_code == 2, seen.output
    assert says in seen.stderr
    assert seen.stderr.count("\n") == 1


def test_selfcheck_of_kernels(author):
    seen = run("selfcheck", "--kernel", "theirs:recall")
    assert seen.exit_code == 0, seen.output
    assert "ok    recall matches the oracle" in seen.output
    seen = run("selfcheck", "--kernel", "recall=theirs:transposed")
    assert seen.exit_code == 1
    assert "from theirs import transposed" in seen.output
    assert "properties do not hold" in seen.stderr
    seen = run("selfcheck", "--kernel", "recall=theirs:refuses")
    assert seen.exit_code == 1
    assert "GPU only" in seen.output
    assert "nothing was compared" in seen.output


def test_the_snippet_shows_the_fault(author):
    name, function = find("recall=theirs:transposed")
    with pytest.raises(conformance.NotConforming) as failure:
        conformance.check(name, function)
    message = str(failure.value)
    snippet = message.partition("to see it again:\n")[2].partition("also:")[0]
    code = "\n".join(line.removeprefix("    ") for line in snippet.splitlines())
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert seen.returncode == 0, seen.stderr
    ours, right = re.findall(r"tensor\(.*\)", seen.stdout)
    assert ours != right
    assert "memory  float32 (2, 1), contiguous" in message  # as small as can be


def test_an_exception_is_shown_with_its_line(author):
    with pytest.raises(conformance.NotConforming, match=r"raised AttributeError(.|\n)*theirs.py:10"):
        conformance.check(*find("recall=theirs:raises"))


def test_options_are_those_of_the_signature_or_those_given():
    seen = set()

    def kernel(image, size=64, stride=64):
        seen.add((size, stride))
        return cut(image, size, stride)

    conformance.check("slice_patches", kernel, options={"size": (5,), "stride": (3, 4)})
    assert seen == {(5, 3), (5, 4)}
    with pytest.raises(ConfigError, match="has no option 'colour' here; known: size, stride"):
        conformance.check("slice_patches", kernel, options={"colour": (1,)})


def test_gradients_are_looked_at_where_there_are_any():
    def without(skip, memory_features):
        return rearrange(skip.detach(), memory_features.detach())

    noted = [o for o in conformance.check("rearrange_textons", without) if o.property.gradients]
    assert noted
    assert all(o.ok is None and "no gradients" in o.note for o in noted)
    with pytest.raises(conformance.NotConforming, match="the result has no gradient"):
        conformance.check("rearrange_textons", without, gradients=True)
    assert not [o for o in conformance.check("recall", torch.matmul, gradients=False) if o.property.gradients]


def test_the_same_seed_draws_the_same():
    def drawn(seed):
        inputs = []

        def kernel(query, memory):
            inputs.append((query.clone(), memory.clone()))
            return query @ memory

        conformance.check("recall", kernel, only="matches", gradients=False, seed=seed)
        return inputs

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for pair in zip(first, again) for a, b in zip(*pair))
    assert not all(a.shape == b.shape and torch.equal(a, b) for (a, _), (b, _) in zip(first, other))


def test_every_function_has_a_check():
    names = [name for name in fast.__all__ if name.islower()]
    for name in names:
        assert conformance.properties_of(name), name
        assert [p for p, _ in conformance.properties_of(name) if "oracle" in p.name], name


@pytest.mark.slow
def test_pytest_plugin(author):
    command = [sys.executable, "-m", "pytest", "-p", "fmrnet.conformance", "-p", "no:cacheprovider", "-rs"]
    both = ["--fmrnet-kernel", "theirs:recall", "--fmrnet-kernel", "recall=theirs:transposed"]
    seen = subprocess.run([*command, *both], capture_output=True, text=True)
    assert seen.returncode == 1, seen.stdout + seen.stderr
    assert "collected 10 items" in seen.stdout
    assert "3 failed, 7 passed" in seen.stdout, seen.stdout
    assert "the smallest input found" in seen.stdout
    assert "checking.py" not in seen.stdout  # no stack of the kit's own
    seen = subprocess.run([*command, "--fmrnet-kernel", "theirs:absent"], capture_output=True, text=True)
    assert seen.returncode == 4
    assert "ERROR: kernel 'theirs:absent': 'absent' is no function of fmrnet.fast" in seen.stderr
    assert len(seen.stderr.split()) < 50


def test_imports_without_pytest_and_says_what_is_missing(author):
    code = """
import sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None
from fmrnet import conformance
from fmrnet.cli import main
sys.argv = ["fmrnet", "selfcheck", "--kernel", "theirs:recall"]
main()
"""
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert seen.returncode == 2
    assert seen.stderr == (
        "fmrnet: this needs hypothesis, which is not installed; run pip install 'fmrnet[conformance]'\n"
    )


def test_time_only_after_the_check(author):
    shown = []
    with pytest.raises(conformance.NotConforming):
        conformance.time("nearest_distance", planted(nearest, "no root"), show=shown.append)
    assert not shown
    with pytest.raises(ConfigError, match="recall has no cases to time; known: anomaly_map"):
        conformance.time("recall", torch.matmul)
    seen = run(
        "bench",
        "--kernel",
        "fmrnet.fast:nearest_distance",
        "--only",
        "64 to 512",
        "--budget",
        "0.01",
        "--out",
        "o.json",
    )
    assert seen.exit_code == 0, seen.output
    found = json.loads(Path("o.json").read_text())
    (result,) = found["results"]
    names = {line["candidate"] for line in result["lines"]}
    assert {"fmrnet.fast:nearest_distance", "eager", "numba", "cdist, min"} <= names


@pytest.mark.slow
def test_the_ci_file_of_the_page(wheel, author):
    """Its steps, one after the other, in a folder with a kernel and the wheel; offline, dependencies are there."""
    yaml = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    steps = re.findall(r"- run: (.*)", yaml[1])
    assert len(steps) == 2
    kernel = re.search(r"```python\n(import torch\nimport torch.nn.*?)```", PAGE, re.DOTALL)
    (author / "mykernels.py").write_text(kernel[1])
    (author / "wheels").mkdir()
    (author / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_TARGET": str(author / "site"),
        "PIP_IGNORE_INSTALLED": "1",
    }
    environment = (
        os.environ
        | offline
        | {
            "PYTHONPATH": str(author / "site"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    )
    for step in steps:
        seen = subprocess.run(step, shell=True, cwd=author, env=environment, capture_output=True, text=True)
        assert seen.returncode == 0, seen.stdout + seen.stderr
    assert "10 passed" in seen.stdout
    (author / "mykernels.py").write_text(kernel[1].replace("dim=1)\n    return", "dim=2)\n    return"))
    seen = subprocess.run(steps[-1], shell=True, cwd=author, env=environment, capture_output=True, text=True)
    assert seen.returncode == 1
    assert "the smallest input found" in seen.stdout
