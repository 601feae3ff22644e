"""Code that tests give to other processes imports only names that exist, also in tests that CI does not run."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("fedmem", "strategies", "tests", "benchmarks", "experiments")
LAZY = {"fedmem"}
"""Packages whose names are looked up on access."""


@cache
def names_of(module: str) -> frozenset[str] | None:
    """Names that a module defines or imports, and its submodules; None without such a module."""
    place = ROOT.joinpath(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    names = {path.stem for path in place.iterdir()} if place.is_dir() else set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.Constant(value=str(value)) if module in LAZY:
                names.add(value)
            case _:
                pass
    return frozenset(names)


def missing_imports(code: str) -> Iterator[str]:
    """`module.name` of each import of the project in a code string that finds nothing."""
    try:
        tree = ast.parse(textwrap.dedent(code))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            names = names_of(node.module)
            yield from (
                f"{node.module}.{a.name}"
                for a in node.names
                if names is None or (a.name != "*" and a.name not in names)
            )


def test_code_strings_import_what_exists() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
                found += [f"{path.name}:{node.lineno} {name}" for name in missing_imports(node.value)]
    own = Path(__file__).name
    assert [entry for entry in found if not entry.startswith(own)] == []


def test_a_missing_name_is_found() -> None:
    code = "from fedmem.execution.run import run, told\nfrom fedmem import read\nimport json"
    assert list(missing_imports(code)) == ["fedmem.execution.run.told"]
    assert list(missing_imports("from fedmem.memory import room_of")) == ["fedmem.memory.room_of"]
