"""Who may import whom, read from the source; and that importing the package is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "numba", "triton", "scipy", "sklearn", "matplotlib", "skimage"}
SOURCES = [
    path for folder in ("reference", "fast", "fmrnet") for path in sorted((ROOT / folder).rglob("*.py"))
]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether at module level) of every import, relative ones made absolute."""
    package = ["fmrnet"] if path.is_relative_to(ROOT / "fmrnet") else ["fmrnet", path.parent.name]
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(f"{stem}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_import_rule(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for module, at_top in imports(path):
        root = module.split(".")[0]
        assert root in sys.stdlib_module_names or root != "tests", module
        if folder == "reference":
            allowed = (
                root in sys.stdlib_module_names
                or root in ("numpy", "scipy")
                or within(module, "fmrnet.reference")
            )
            assert allowed, f"the oracle imports {module}; it may use numpy and scipy alone"
        if folder == "fast":
            allowed = root in sys.stdlib_module_names or root in ("numpy", "torch", "numba", "triton")
            assert allowed or within(module, "fmrnet.fast"), f"fast imports {module}"
            if root in ("numba", "triton"):
                private = path.name.startswith("_") and path.stem.endswith(("numba", "triton"))
                assert private or not at_top, f"{path.name} imports {module} before it is needed"
            if module.startswith("fmrnet.fast._") and module.split(".")[2].endswith(("_numba", "_triton")):
                private = path.name.startswith("_")
                assert private or not at_top, f"{path.name} imports {module} before it is needed"
        if folder in ("fast", "fmrnet") and path.name != "selfcheck.py":
            assert not within(module, "fmrnet.reference"), f"{path.name} imports the oracle"


def test_no_module_shadows_a_library() -> None:
    names = {path.stem for path in SOURCES}
    assert not names & {"triton", "numba", "torch", "inspect", "numpy"}


def heavy_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split()) & HEAVY


def test_importing_the_package_is_quick() -> None:
    assert heavy_after("import fmrnet") == set()


def test_the_oracle_needs_no_torch() -> None:
    assert heavy_after("import fmrnet.reference.textons") <= {"scipy"}


def test_fast_loads_kernels_only_when_they_run() -> None:
    assert not heavy_after("import fmrnet.fast") & {"numba", "triton", "sklearn", "matplotlib", "skimage"}
