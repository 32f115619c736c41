"""The structure of the design: packages import only packages before them, no circles, nothing from above."""

import ast
from pathlib import Path

import pytest

from tests.helpers.scripts import ROOT

ORDER = ("errors", "flags", "atomic", "data", "privacy", "attacks", "storage", "training", "report")
TOP = ("resnet", "network", "util", "common", "train_model", "attack_lira")
FILES = sorted([*(ROOT / "lira").rglob("*.py"), *(ROOT / f"{name}.py" for name in TOP)])


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, wherever in the file; imports for type checking included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & MODULES.keys()


def rank(module: str) -> int:
    package = module.split(".")
    if package[0] == "lira":
        return ORDER.index(package[1]) if len(package) > 1 else -1
    return len(ORDER) + TOP.index(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for other in imported(MODULES[module]):
        same_package = module.split(".")[:2] == other.split(".")[:2] and module.startswith("lira.")
        assert rank(other) < rank(module) or same_package, f"{module} imports {other}"


def test_no_circles():
    remaining = {module: imported(path) for module, path in MODULES.items()}
    while free := [module for module, others in remaining.items() if not others & remaining.keys()]:
        for module in free:
            del remaining[module]
    assert not remaining, f"these import each other: {sorted(remaining)}"


def test_a_package_imports_nothing_by_itself():
    for path in (ROOT / "lira").rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, f"{path} does more than say what lives there"
        assert isinstance(body[0], ast.Expr)


def test_tests_mirror_the_packages_and_import_no_tests():
    folders = {path.name for path in (ROOT / "lira").iterdir() if (path / "__init__.py").exists()}
    assert {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} <= folders
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                assert node.module.startswith("tests.helpers"), f"{path}:{node.lineno}"
