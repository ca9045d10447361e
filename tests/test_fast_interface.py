"""One interface: names, parameters and defaults agree across the oracle and its fast twins; one dispatch rule."""

import inspect

import pytest
import torch

from fmrnet import fast
from fmrnet.fast import _dispatch, textons
from fmrnet.reference import fusion, learned_fusion, memory, patches, synthesis
from fmrnet.reference import textons as reference_textons

ORACLES = {
    function: getattr(module, function)
    for module in (fusion, learned_fusion, memory, patches, synthesis, reference_textons)
    for function in fast.__all__
    if hasattr(module, function)
}
OURS = {"backend"}  # parameters that only a fast function has


@pytest.mark.parametrize("name", [n for n in fast.__all__ if callable(getattr(fast, n)) and n.islower()])
def test_parameters_are_the_oracles(name: str) -> None:
    assert name in ORACLES, f"fast.{name} has no oracle"
    ours = dict(inspect.signature(getattr(fast, name)).parameters)
    theirs = inspect.signature(ORACLES[name]).parameters
    backend = ours.pop("backend", None)
    assert backend is None or (backend.default is None and backend.kind is backend.KEYWORD_ONLY)
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_docstring_says_what_it_equals(name: str) -> None:
    assert "Equivalent to" in (getattr(fast, name).__doc__ or "")


@pytest.mark.parametrize("kernels", ["_textons_numba", "_textons_triton"])
def test_backends_share_parameters(kernels: str) -> None:
    module = __import__(f"fmrnet.fast.{kernels}", fromlist=["forward"])
    expected = inspect.signature(textons._eager).parameters
    assert list(inspect.signature(module.forward).parameters) == list(expected)
    assert list(inspect.signature(module.backward).parameters) == ["gradient", *expected]


def test_unknown_backend() -> None:
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="backend is 'cuda'; expected one of 'eager', 'numba', 'triton'"):
        fast.rearrange_textons(x, x, backend="cuda")


def test_named_backend_runs_or_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(fast.BackendUnavailable, match=r"'triton' cannot run this call: .* tensor is float64"):
        _dispatch.choose("triton", x)
    meta = torch.zeros(1, 1, 2, 2, device="meta")
    with pytest.raises(fast.BackendUnavailable, match="numba runs on CPU tensors; this one is on 'meta'"):
        _dispatch.choose("numba", meta)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(fast.BackendUnavailable, match="Triton runs on CUDA tensors; this one is on 'cpu'"):
        _dispatch.choose("triton", x.float())
    monkeypatch.setattr(_dispatch, "_INSTALLED", {"numba": False, "triton": False})
    with pytest.raises(fast.BackendUnavailable, match="numba is not installed"):
        _dispatch.choose("numba", x)
    with pytest.raises(fast.BackendUnavailable, match="too many textons"):
        _dispatch.choose("eager", x, lambda name: "too many textons")


def test_automatic_choice_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FMRNET_BACKEND", raising=False)
    x = torch.zeros(1, 1, 2, 2)
    assert _dispatch.choose(None, x) == "numba"
    assert _dispatch.choose(None, x.half()) == "eager"
    assert _dispatch.choose(None, x, lambda name: "no") == "eager"
    assert _dispatch.choose(None, x.to("meta")) == "eager"
    monkeypatch.setattr(_dispatch, "_INSTALLED", {"numba": False, "triton": False})
    assert _dispatch.choose(None, x) == "eager"


def test_environment_overrides_the_automatic_choice_only(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 1, 2, 2)
    monkeypatch.setenv("FMRNET_BACKEND", "eager")
    assert _dispatch.choose(None, x) == "eager"
    assert _dispatch.choose("numba", x) == "numba"
    monkeypatch.setenv("FMRNET_BACKEND", "numba")
    assert _dispatch.choose(None, x.to("meta")) == "eager"
    monkeypatch.setenv("FMRNET_BACKEND", "cuda")
    with pytest.raises(ValueError, match="FMRNET_BACKEND is 'cuda'"):
        _dispatch.choose(None, x)
