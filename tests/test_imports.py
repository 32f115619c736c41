"""The structure of the design: packages import only packages before them, no circles, nothing from above."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.scripts import ENVIRONMENT, ROOT

ORDER = ("errors", "flags", "atomic", "data", "privacy", "attacks", "storage", "training", "report")
TOP = ("resnet", "network", "util", "common", "train_model")  # and attack_lira, in line with train_model
FILES = sorted([*(ROOT / "lira").rglob("*.py"), *ROOT.glob("*.py")])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported_names(path: Path) -> set[str]:
    """All that a file imports, wherever in the file; imports for type checking included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported(module: str) -> set[str]:
    """The modules of this project that one of them imports."""
    return imported_names(MODULES[module]) & MODULES.keys()


def rank(module: str) -> int:
    package = module.split(".")
    if package[0] == "lira":
        return ORDER.index(package[1]) if len(package) > 1 else -1
    return len(ORDER) + TOP.index(module.replace("attack_lira", "train_model"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    assert not {"tests", "benchmarks"} & {name.split(".")[0] for name in imported_names(MODULES[module])}
    for other in imported(module):
        same_package = module.split(".")[:2] == other.split(".")[:2] and module.startswith("lira.")
        assert rank(other) < rank(module) or same_package, f"{module} imports {other}"


def test_no_circles():
    remaining = {module: imported(module) for module in MODULES}
    while free := [module for module, others in remaining.items() if not others & remaining.keys()]:
        for module in free:
            del remaining[module]
    assert not remaining, f"these import each other: {sorted(remaining)}"


def test_a_package_imports_nothing_by_itself():
    for path in (ROOT / "lira").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, f"{path} does more than say what lives there"
        assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("module", ["util", "lira.storage.config", "train_model", "attack_lira"])
def test_flags_are_parsed_before_anything_heavy_is_imported(module):
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    modules = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    loaded = set(modules.stdout.split())
    assert module in loaded
    assert not {"torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "common"} & loaded


@pytest.mark.parametrize("script", ["train_model", "attack_lira"])
def test_a_script_imports_the_rest_in_one_block_after_parsing(script):
    """At the top of the function that gets the parsed flags, and nowhere else below the module's own imports."""
    functions = [node for node in ast.parse(MODULES[script].read_text()).body if isinstance(node, ast.FunctionDef)]
    imports = {function.name: [is_import(node) for node in ast.walk(function)] for function in functions}
    (name,) = (name for name, found in imports.items() if any(found))
    (body,) = (function.body[1:] for function in functions if function.name == name)  # without the docstring
    n_first = next(place for place, node in enumerate(body) if not is_import(node))
    assert n_first == sum(imports[name])


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_tests_mirror_the_packages():
    tests = {module_name(path) for path in (ROOT / "tests").glob("*/test_*.py")}
    tested = {name.replace("tests.", "lira.").replace("test_", "") for name in tests}
    assert tested - MODULES.keys() == {"lira.storage.corruption"}  # of files of every kind


def test_no_test_imports_another():
    for path in (ROOT / "tests").rglob("*.py"):
        names = {name for name in imported_names(path) if name.split(".")[0] == "tests"}
        assert all(name.startswith("tests.helpers") for name in names), f"{path} imports {names}"
