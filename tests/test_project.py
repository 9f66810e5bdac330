"""The project's own rules: imports point down, start-up is light, versions agree, docstrings are true."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import balancesim

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "balancesim"

# A unit may import from its own floor or one below; units of one floor may not import each other in a circle.
FLOORS = (
    ("errors", "numbers", "plugins", "rng", "types"),
    ("groups", "kernels", "kernels_cupy", "problem"),
    ("batches", "potentials", "routing"),
    ("balancers", "exact", "penalised", "sources"),
    (
        "assignments",
        "driver",
        "driver_cupy",
        "feed",
        "hindsight",
        "oracle",
        "router",
        "runs",
        "simulation",
        "theory",
    ),
    ("checks", "sweep", "report", "bench"),
    ("cli", "__main__"),
)
FLOOR_OF = {unit: height for height, units in enumerate(FLOORS) for unit in units}
HEAVY = ("cupy", "cvxpy", "dask", "highspy", "matplotlib", "pandas", "pyarrow", "torch")
DOCUMENTED = (
    "balancesim",
    "balancesim.balancers",
    "balancesim.exact",
    "balancesim.potentials",
    "balancesim.router",
    "balancesim.sources",
    "balancesim.theory",
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project_table() -> dict[str, Any]:
    return tomllib.loads(text("pyproject.toml"))["project"]


def pins() -> list[str]:
    return [line for line in text("constraints.txt").splitlines() if line and not line.startswith("# ")]


def unit_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(module: Path) -> Iterator[str]:
    """Yield the units of this package that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the absolute name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            unit = rest.partition(".")[0]
            if top == "balancesim" and unit in FLOOR_OF:
                yield unit


def loaded_by(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after running some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_unit_has_a_floor() -> None:
    assert {unit_of(module) for module in modules()} - {"__init__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_imports_point_down(module: Path) -> None:
    unit = unit_of(module)
    if unit == "__init__":
        return
    above = [name for name in imported_units(module) if FLOOR_OF[name] > FLOOR_OF[unit]]
    assert not above, f"{module} imports {above} from a higher floor"


@pytest.mark.parametrize("top", ["experiments", "figures", "paper_checks"])
def test_the_library_imports_nothing_beside_it(top: str) -> None:
    imports = re.compile(rf"^\s*(?:from|import) {top}\b", re.MULTILINE)
    assert not [str(module) for module in modules() if imports.search(module.read_text(encoding="utf-8"))]


def test_no_circle_within_a_floor() -> None:
    edges = {unit: set[str]() for unit in FLOOR_OF}
    for module in modules():
        if unit_of(module) != "__init__":
            edges[unit_of(module)] |= set(imported_units(module)) - {unit_of(module)}
    while edges:
        ends = [unit for unit, targets in edges.items() if not targets & edges.keys()]
        assert ends, f"these units import each other in a circle: {sorted(edges)}"
        edges = {unit: targets for unit, targets in edges.items() if unit not in ends}


def test_import_is_light() -> None:
    loaded = loaded_by("import balancesim")
    assert not [name for name in (*HEAVY, "numba", "numpy", "scipy") if name in loaded]


def test_public_names_import_nothing_heavy_and_compile_nothing() -> None:
    code = """
import balancesim
for name in balancesim.__all__:
    getattr(balancesim, name)
import gc
from numba.core.dispatcher import Dispatcher
compiled = [d.__name__ for d in gc.get_objects() if isinstance(d, Dispatcher) and d.signatures]
assert not compiled, compiled
"""
    loaded = loaded_by(code)
    assert not [name for name in HEAVY if name in loaded]


def test_help_imports_no_numbers() -> None:
    code = """
import contextlib
from balancesim.cli import main
with contextlib.suppress(SystemExit):
    main(["--help"])
"""
    loaded = loaded_by(code)
    assert not [name for name in (*HEAVY, "numba", "numpy", "scipy") if name in loaded]


def test_versions_agree() -> None:
    citation = re.search(r"^version: (.+)$", text("CITATION.cff"), re.MULTILINE)
    newest = re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert citation is not None
    assert newest is not None
    assert citation[1] == newest[1] == balancesim.__version__ == project_table()["version"]


def test_constraints_hold_names_and_versions_only() -> None:
    assert not [line for line in pins() if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)]
    names = [line.split("==")[0] for line in pins()]
    assert names == sorted(set(names))


def test_constraints_pin_every_requirement() -> None:
    project = project_table()
    groups = (project["dependencies"], *project["optional-dependencies"].values())
    wanted = {re.split(r"[\[>=]", line)[0] for group in groups for line in group}
    assert wanted - {"balancesim"} <= {line.split("==")[0] for line in pins()}


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    sources = [
        path
        for top in ("balancesim", "experiments", "paper_checks", "tests")
        for path in (ROOT / top).rglob("*.*")
    ]
    written = [path for path in sources if path.suffix in {".py", ".toml", ".md"}]
    assert not [str(path) for path in written if later.search(path.read_text(encoding="utf-8"))]


def documented_names(docstring: str, section: str) -> list[str] | None:
    """Return the names that a numpydoc section lists, or None where there is no such section."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", docstring, re.MULTILINE | re.DOTALL)
    if found is None:
        return None
    heads = re.findall(r"^(\S.*)$", found[1], re.MULTILINE)
    return [name.strip().lstrip("*") for head in heads for name in head.split(" : ")[0].split(",")]


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the public functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", member


def arguments(function: ast.FunctionDef) -> list[str]:
    spec = function.args
    named = [arg.arg for arg in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    starred = [arg.arg for arg in (spec.vararg, spec.kwarg) if arg is not None]
    return [name for name in (*named, *starred) if name not in {"self", "cls"}]


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.relative_to(PACKAGE)))
def test_documented_parameters_equal_the_signature(module: Path) -> None:
    for name, function in functions(ast.parse(module.read_text(encoding="utf-8"))):
        listed = documented_names(inspect.cleandoc(ast.get_docstring(function) or ""), "Parameters")
        if listed is not None:
            assert listed == arguments(function), f"{module.name}: {name}"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_api_documents_its_parameters(name: str) -> None:
    module = importlib.import_module(name)
    for member_name in module.__all__:
        member = getattr(module, member_name)
        docstring = inspect.getdoc(member) or ""
        if inspect.isfunction(member) and inspect.signature(member).parameters:
            assert documented_names(docstring, "Parameters") is not None, f"{name}.{member_name}"
            assert documented_names(docstring, "Returns") is not None, f"{name}.{member_name}"
        elif inspect.isclass(member) and "__dataclass_fields__" in vars(member):
            settable = {field.name for field in dataclasses.fields(member) if field.init}
            own = [field for field in member.__annotations__ if field in settable]
            listed = [documented_names(docstring, section) for section in ("Parameters", "Attributes")]
            assert set(own) <= {item for names in listed for item in names or ()}, f"{name}.{member_name}"
