"""A function under test: where it comes from, what it accepts, and how each of its calls is watched."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmrnet import fast
from fmrnet.errors import ConfigError

from .oracles import ORACLES
from .tolerances import Mismatch

__all__ = ["Kernel", "Unsupported", "find", "named_results", "source"]

INTEGERS = ("index", "origins")  # results that are int64; all others have the dtype of the call


class Unsupported(Exception):
    """The function refuses this call, and says so by NotImplementedError or `fast.BackendUnavailable`."""


class Kernel:
    """A function that stands in for `fmrnet.fast.<name>`, on one device and in one dtype.

    Parameters
    ----------
    name
        Which function of `fmrnet.fast` it stands in for.
    function
        Takes tensors in that function's order. Options that its signature does not have stay at their defaults.
    device, dtype
        Of the tensors that it is given.
    options
        The values to try of an option, instead of all that are known of: ``{"size": (2,)}``.
    gradients
        Whether it must have them; None: it may.
    small
        Draw small inputs only, for functions that an interpreter runs.

    Raises
    ------
    ConfigError
        Unknown names, or something that cannot be called.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        options: Mapping[str, Sequence[Any]] | None = None,
        gradients: bool | None = None,
        small: bool = False,
    ) -> None:
        check_name(name)
        if not callable(function):
            raise ConfigError(f"{name}: {function!r} cannot be called; expected a function")
        self.name, self.function = name, function
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.options, self.gradients, self.small = dict(options or {}), gradients, small
        self.arguments: dict[str, Any] = {}  # of the last call
        self.parameters = inspect.signature(getattr(fast, name)).parameters
        self.defaults = {
            p.name: p.default
            for p in self.parameters.values()
            if p.default is not p.empty and p.name != "backend"
        }
        self.taken = _taken(function)
        for option, values in self.options.items():
            if option not in self.defaults or not self.takes(option):
                known = [known for known in self.defaults if self.takes(known)]
                raise ConfigError(
                    f"{name} has no option {option!r} here; known: {', '.join(known) or 'none'}"
                )
            if not values:
                raise ConfigError(f"options[{option!r}] is empty; give at least one value to try")

    def takes(self, option: str) -> bool:
        """Whether the function has a parameter of this name (or of any name)."""
        return self.taken is None or option in self.taken

    @property
    def left_out(self) -> list[str]:
        """The options that the function does not have."""
        return [option for option in self.defaults if not self.takes(option)]

    def values(self, option: str, known: Sequence[Any]) -> Sequence[Any]:
        """The values to try of an option: the user's, or those known; its default where it is not taken."""
        if not self.takes(option):
            return (self.defaults[option],)
        return self.options.get(option, known)

    def tensor(self, data: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        """An array as the function gets it."""
        return torch.as_tensor(np.asarray(data)).to(self.device, dtype or self.dtype)

    def fine(self, data: Any) -> torch.Tensor:
        """An array in float32 or float64, for what would lose its meaning in half precision."""
        return self.tensor(data, torch.promote_types(self.dtype, torch.float32))

    def __call__(self, **arguments: Any) -> dict[str, torch.Tensor]:
        """The results by name, after looking that they are tensors of the right kind and the inputs unchanged."""
        self.arguments = arguments
        before = {name: value.detach().clone() for name, value in _tensors(arguments).items()}
        with fresh_memory_is_nan(before.values()):
            results = self.raw(**arguments)
        for name, value in before.items():
            if not torch.equal(value, arguments[name].detach()):
                self.arguments = arguments | before
                raise Mismatch(f"it changed its input {name}; expected that to stay as it was")
        return self._looked_at(results)

    def learnable(self, **arguments: Any) -> dict[str, torch.Tensor]:
        """As a call, with inputs that require gradients: at least one result then has one.

        Raises
        ------
        Unsupported
            There are none, and there need be none.
        """
        try:
            results = self(**arguments)
        except Mismatch as mismatch:
            if self.gradients is None and mismatch.__cause__ is not None:  # as of Tensor.numpy()
                raise Unsupported(f"no gradients: {mismatch}") from None
            raise
        if not any(result.requires_grad for result in results.values()):
            if self.gradients is None:
                raise Unsupported("no gradients: its result does not require any")
            raise Mismatch("the result has no gradient, though the inputs require one")
        return results

    def raw(self, **arguments: Any) -> Any:
        """What the function itself returns; whatever it raises is a refusal or a mismatch."""
        inputs, keywords = [], {}
        for name, value in arguments.items():
            parameter = self.parameters[name]
            if name in self.defaults:
                if self.takes(name):
                    keywords[name] = value
            elif parameter.kind is parameter.KEYWORD_ONLY:
                keywords[name] = value
            else:
                inputs.append(value)
        try:
            return self.function(*inputs, **keywords)
        except (NotImplementedError, fast.BackendUnavailable) as reason:
            raise Unsupported(str(reason) or type(reason).__name__) from None
        except Exception as error:
            said = " ".join(str(error).split())
            raise Mismatch(f"it raised {type(error).__name__}: {said}") from error

    def _looked_at(self, returned: Any) -> dict[str, torch.Tensor]:
        results = named_results(self.name, returned)
        for name, result in results.items():
            dtype = torch.int64 if name in INTEGERS else self.dtype
            if result.dtype != dtype:
                raise Mismatch(f"{name} is {result.dtype}, right is {dtype}")
            if result.device.type != self.device.type:
                raise Mismatch(f"{name} is on {result.device}, right is {self.device}")
        return results


def named_results(name: str, returned: Any) -> dict[str, torch.Tensor]:
    """What a function returned, by the names of `oracles.ORACLES`.

    Raises
    ------
    Mismatch
        If it is not what `fmrnet.fast.<name>` returns.
    """
    expected = {
        "fusion_inputs": ("inputs", "energy"),
        "nearest_distance": ("distance", "index"),
        "slice_patches": ("patches", "origins"),
        "synthesize": ("I_s", "S"),
    }
    single = {
        "address": "Q", "anomaly_map": "A", "blend": "I_s", "rearrange_textons": "G", "recall": "z_hat",
        "stitch_patches": "picture", "support": "S", "without_light": "unlit",
    }  # fmt: skip
    if name == "modality_maps":
        found = dict(returned) if isinstance(returned, Mapping) else returned
    elif name == "anomaly_map" and isinstance(returned, tuple) and len(returned) == 2:
        found = {"A": returned[0]} | dict(returned[1])
    elif name in expected:
        names = expected[name]
        found = (
            dict(zip(names, returned)) if isinstance(returned, tuple | list) and len(returned) == 2 else None
        )
        if found is None:
            raise Mismatch(f"it returned {_kind(returned)}; expected a pair, ({', '.join(names)})")
    else:
        found = {single.get(name, "map"): returned}
    if not isinstance(found, dict):
        raise Mismatch(f"it returned {_kind(returned)}; expected a dict of maps by modality")
    for part, value in found.items():
        if not isinstance(value, torch.Tensor):
            hint = "; torch.from_numpy makes one" if isinstance(value, np.ndarray) else ""
            raise Mismatch(f"{part} is {_kind(value)}; expected a torch.Tensor{hint}")
    return found


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"


def _tensors(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}


def _taken(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names a function takes by keyword, or None for any (or where Python cannot tell)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


@contextmanager
def fresh_memory_is_nan(like: Any = ()) -> Iterator[None]:
    """torch.empty hands out NaN, and so does np.empty of the sizes of `like` mostly: what is not written shows."""
    memory: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        memory.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    for tensor in like:  # freed at once; NumPy and malloc hand the same memory out again
        for wide in (np.float32, np.float64):
            [np.full(tensor.numel(), np.nan, wide) for _ in range(3)]
    try:
        with warnings.catch_warnings():
            for said in ("does not have a deterministic implementation", "it uses CuBLAS"):
                warnings.filterwarnings("ignore", message=f".*{said}")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = before[2]


def check_name(name: str) -> None:
    """Raise ConfigError unless `name` is a function that can be checked."""
    if name not in ORACLES:
        raise ConfigError(f"{name!r} is no function of fmrnet.fast; known: {', '.join(sorted(ORACLES))}")


def find(spec: str) -> tuple[str, Callable[..., Any]]:
    """The name and the function of ``module:attribute`` or ``NAME=module:attribute``; the folder we are in counts.

    Raises
    ------
    ConfigError
        The module, the attribute or the name is not there, or is not what it should be.
    """
    name, _, place = spec.rpartition("=")
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"kernel {spec!r}: expected module:function, or NAME=module:function")
    name = name or attribute.rpartition(".")[2]
    if name not in ORACLES:
        known = ", ".join(sorted(ORACLES))
        raise ConfigError(
            f"kernel {spec!r}: {name!r} is no function of fmrnet.fast; known: {known}; "
            f"say which one yours stands in for: NAME={place}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"kernel {spec!r}: there is no module {error.name!r}; install it, or go to its folder"
            ) from None
        raise ConfigError(
            f"kernel {spec!r}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"kernel {spec!r}: {module_name} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"kernel {spec!r}: {attribute} is a {type(found).__name__}; expected a function")
    return name, found


def source(function: Callable[..., Any]) -> str | None:
    """``module:attribute`` of a function that can be imported again, or None."""
    module, attribute = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not attribute or module == "__main__" or "<" in attribute:
        return None
    return f"{module}:{attribute}"
