"""Tests of `fedmem/guards/flower_range.py`."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
import types
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fedmem.errors import FedmemError
from fedmem.guards.flower_range import FLOWER, private_parts_of_flower, require_attributes
from tests.forked import Forked

ROOT = Path(__file__).parents[2]
PUBLIC = re.compile(r"flwr\.(app|serverapp|clientapp|serverapp\.strategy)")


def test_range_is_that_of_the_package() -> None:
    names = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    (flower,) = [Requirement(name) for name in names if Requirement(name).name == "flwr"]
    assert flower.specifier == Requirement(f"flwr{FLOWER}").specifier
    assert version("flwr") in flower.specifier


@pytest.mark.parametrize("module", ["flwr.app.metadata", "flwr.supercore.task_identity"])
def test_flower_without_a_private_part_gets_one_message(module: str) -> None:
    """As if it were another version: the module is there, and what it should hold is not."""

    def import_engine() -> None:
        sys.modules[module] = types.ModuleType(module)
        del sys.modules["fedmem.engines._flower"]
        try:
            importlib.import_module("fedmem.engines._flower")
        except FedmemError as error:
            print(error)

    importlib.import_module("fedmem.engines._flower")
    said = Forked(import_engine).wait().stdout
    assert f"fedmem works with Flower (flwr) {FLOWER}, but {version('flwr')} is installed" in said
    assert module in said
    assert f"pip install 'flwr{FLOWER}'" in said


def test_missing_attribute_and_missing_module_are_reported() -> None:
    with pytest.raises(FedmemError, match="no attribute 'gone'"), private_parts_of_flower():
        require_attributes(types.SimpleNamespace(there=1), "there", "gone")
    with pytest.raises(FedmemError, match=r"flwr\.gone"), private_parts_of_flower():
        importlib.import_module("flwr.gone")


def test_missing_package_is_not_blamed_on_flower() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), private_parts_of_flower():
        importlib.import_module("no_such_package")


def unguarded_imports(code: str) -> list[str]:
    """Modules of Flower beyond its public ones that are imported outside of the guard and executed."""
    found: list[str] = []
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found += [name for name in names if name.startswith("flwr.") and not PUBLIC.fullmatch(name)]
        guarded = isinstance(node, ast.With) and "private_parts_of_flower" in ast.unparse(node.items[0])
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        waiting += [] if guarded or typing_only else ast.iter_child_nodes(node)
    return found


def test_private_modules_are_imported_inside_the_guard_alone() -> None:
    files = [*(ROOT / "fedmem").rglob("*.py"), *(ROOT / "strategies").glob("*.py")]
    assert {file.name: found for file in files if (found := unguarded_imports(file.read_text("utf-8")))} == {}
    guarded = "with private_parts_of_flower():\n    from flwr.supercore.run import Run\n"
    assert unguarded_imports(guarded) == []
    assert unguarded_imports(guarded.replace("private_parts_of_flower", "suppress")) == ["flwr.supercore.run"]
