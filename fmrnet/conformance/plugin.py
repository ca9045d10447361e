"""The pytest plugin: a test for each property and dtype of each kernel that is named on the command line."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fmrnet.errors import FmrnetError

if TYPE_CHECKING:
    from .kernel import Kernel
    from .properties import Property


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `fmrnet selfcheck --kernel`, with a prefix."""
    group = parser.getgroup("fmrnet", "kernels held to fmrnet's oracle")
    group.addoption(
        "--fmrnet-kernel",
        action="append",
        default=[],
        metavar="[NAME=]MODULE:FUNCTION",
        help="a function that stands in for fmrnet.fast.NAME; NAME is the function's own unless given; may be repeated",
    )
    group.addoption("--fmrnet-device", default="cpu", metavar="DEVICE", help="cpu, cuda or cuda:N")
    group.addoption(
        "--fmrnet-dtypes",
        default="float32",
        metavar="DTYPES",
        help="of float64, float32, bfloat16 and float16, with commas between",
    )
    group.addoption(
        "--fmrnet-gradients", action="store_true", help="a kernel must have gradients (else: if it has any)"
    )
    group.addoption("--fmrnet-small", action="store_true", help="small inputs only, for interpreted kernels")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The kernels are collected beside the files of the session."""
    report = yield
    if isinstance(collector, pytest.Session) and report.result is not None:
        for spec in collector.config.getoption("--fmrnet-kernel"):
            asked = _asked(spec, collector.config)
            report.result.append(KernelCollector.from_parent(collector, name=spec, nodeid=spec, asked=asked))
    return report


def _asked(spec: str, config: pytest.Config) -> list[tuple[Property, str, Kernel]]:
    """What is asked of a kernel: each property in each dtype, and the kernel in that dtype."""
    option = config.getoption
    try:
        from fmrnet.devices import choose_device

        from . import find, properties_of
        from .kernel import Kernel

        name, function = find(spec)
        device = choose_device(option("--fmrnet-device"))
        gradients = True if option("--fmrnet-gradients") else None
        found = []
        for dtype in [part.strip() for part in option("--fmrnet-dtypes").split(",")]:
            asked = properties_of(name, [dtype])
            kernel = Kernel(
                name,
                function,
                device=device,
                dtype=dtype,
                gradients=gradients,
                small=option("--fmrnet-small"),
            )
            found += [(prop, dtype, kernel) for prop, _ in asked]
        return found
    except FmrnetError as error:
        raise pytest.UsageError(str(error)) from None


class KernelCollector(pytest.Collector):
    """The tests of one kernel."""

    def __init__(self, *, asked: list[tuple[Property, str, Kernel]], **rest: Any) -> None:
        super().__init__(**rest)
        self.asked = asked

    def collect(self) -> Iterator[pytest.Item]:
        """An item for each property and dtype."""
        for prop, dtype, kernel in self.asked:
            yield PropertyItem.from_parent(self, name=f"{prop.name}[{dtype}]", prop=prop, kernel=kernel)


class PropertyItem(pytest.Item):
    """One property of one kernel in one dtype."""

    def __init__(self, *, prop: Property, kernel: Kernel, **rest: Any) -> None:
        super().__init__(**rest)
        self.prop, self.kernel = prop, kernel

    def runtest(self) -> None:
        """Pass, fail with the smallest failing input, or skip what the kernel refuses."""
        from .checking import NotConforming, run

        outcome = run(self.prop, self.kernel)
        if outcome.ok is None:
            pytest.skip(outcome.note)
        if not outcome.ok:
            raise NotConforming(outcome.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message alone; the kit's own stack says nothing of the kernel."""
        from .checking import NotConforming

        return (
            str(excinfo.value) if isinstance(excinfo.value, NotConforming) else super().repr_failure(excinfo)
        )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the kernel is, for the headline of a failure."""
        return Path.cwd(), None, f"{self.parent.name if self.parent else ''} {self.name}"
