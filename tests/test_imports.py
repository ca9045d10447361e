"""Who may import whom, read from the source; and that importing the package is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [  # of fmrnet/, from the ground up: a module imports from its own floor, its own room and those below
    {"errors"},
    {"extras"},
    {"files", "config", "devices", "streams", "headroom", "terminal", "large", "usual"},
    {"progress"},
    {"_pixels"},
    {"_pillow", "_tiff", "_mask"},
    {"artifact", "listing", "pictures"},
    {"network"},
    {"engines"},
    {"inspection"},
    {"pages"},
    {"deployment"},
    {"learning"},
    {"adapters"},
    {"evaluation"},
    {"conformance"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
HEAVY = {"torch", "numba", "triton", "scipy", "sklearn", "matplotlib", "skimage"}
SOURCES = [
    path for folder in ("reference", "fast", "fmrnet") for path in sorted((ROOT / folder).rglob("*.py"))
]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether at module level) of every import, relative ones made absolute."""
    parents = list(path.relative_to(ROOT).parent.parts)
    package = parents if parents[0] == "fmrnet" else ["fmrnet", *parents]
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # a module, or a name in one
                inner = f"{stem}.{alias.name}"
                found.append((inner if is_module(inner) or not is_module(stem) else stem, id(node) in top))
    return found


def place(module: str) -> Path:
    """Where the source of a dotted module of ours stands, without its suffix."""
    parts = module.split(".")
    return ROOT.joinpath(*(parts[1:] if parts[1:2] in (["fast"], ["reference"]) else parts))


def dotted(path: Path) -> str:
    """The opposite of `place`."""
    return ".".join(("fmrnet", *path.relative_to(ROOT).with_suffix("").parts)).replace(
        "fmrnet.fmrnet", "fmrnet"
    )


def is_module(module: str) -> bool:
    return place(module).with_suffix(".py").is_file() or (place(module) / "__init__.py").is_file()


def room(module: str) -> str:
    """The room or the file of the ground that holds a module of fmrnet: fmrnet.network.model -> network."""
    return module.split(".")[1]


def floor(name: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if name in names)


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
        if folder in ("fast", "fmrnet") and path.parent.name != "conformance":
            assert not within(module, "fmrnet.reference"), f"{path.name} imports the oracle"


OURS = [path for path in SOURCES if path.is_relative_to(ROOT / "fmrnet") and path.parent.name != "fmrnet"]
GROUND = [path for path in sorted((ROOT / "fmrnet").glob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", [*OURS, *GROUND], ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_from_above(path: Path) -> None:
    own = path.relative_to(ROOT / "fmrnet").parts[0].removesuffix(".py")
    for module, _ in imports(path):
        if not within(module, "fmrnet") or module == "fmrnet" or room(module) in ("fast", "reference", own):
            continue
        assert floor(room(module)) < floor(own), (
            f"{path.name} of {own} imports {module} from above or beside it"
        )


def test_no_two_modules_import_each_other() -> None:
    """No circle, wherever in a module the import stands."""
    sources = {dotted(path): path for path in SOURCES if path.name != "__init__.py"}
    arrows = {
        name: {module for module, _ in imports(path) if module in sources and module != name}
        for name, path in sources.items()
    }

    def reach(name: str, seen: set[str]) -> set[str]:
        for other in arrows[name] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    assert not {name for name in arrows if name in reach(name, set())}


def test_no_module_shadows_a_library() -> None:
    names = {path.stem for path in SOURCES}
    assert not names & {"triton", "numba", "torch", "inspect", "numpy"}


def heavy_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split()) & HEAVY


def test_importing_the_package_is_quick() -> None:
    assert heavy_after("import fmrnet") == set()


WITHOUT_TORCH = [
    *(
        dotted(path)
        for folder in ("inspection", "deployment", "pages")
        for path in sorted((ROOT / "fmrnet" / folder).glob("*.py"))
        if path.stem != "__init__"
    ),
    *(f"fmrnet.evaluation.{name}" for name in ("evaluate", "compare", "page", "table", "drawn")),
    *(f"fmrnet.engines.{name}" for name in ("engine", "choice", "graph_engine", "onnx_bytes", "runtimes")),
    *("fmrnet.artifact", "fmrnet.pictures", "fmrnet.listing", "fmrnet.progress", "fmrnet.cli"),
]


NO_TORCH = """
import importlib, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"{name} is not there")

sys.meta_path.insert(0, Finder())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def test_inspection_needs_no_torch() -> None:
    run = subprocess.run([sys.executable, "-c", NO_TORCH, *WITHOUT_TORCH], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    run = subprocess.run(
        [sys.executable, "-c", NO_TORCH, "fmrnet.network.model"], capture_output=True, text=True
    )
    assert "torch is not there" in run.stderr


def test_the_oracle_needs_no_torch() -> None:
    assert heavy_after("import fmrnet.reference.textons") <= {"scipy"}


def test_fast_loads_kernels_only_when_they_run() -> None:
    assert not heavy_after("import fmrnet.fast") & {"numba", "triton", "sklearn", "matplotlib", "skimage"}
