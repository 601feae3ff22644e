"""What the core must not do: look for attributes of components, and name kinds. By the syntax trees of its files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedmem.contracts.families import FAMILIES
from fedmem.scenario.catalogue import kinds

ROOT = Path(__file__).parents[1]

KINDS: Mapping[str, frozenset[str]] = {family: frozenset(kinds(family)) for family in FAMILIES}
"""Family -> its kinds."""


def core_files() -> list[Path]:
    """The files of fedmem and the strategies, except the contracts, which read declarations."""
    files = sorted([*(ROOT / "fedmem").rglob("*.py"), *(ROOT / "strategies").rglob("*.py")])
    return [file for file in files if file.parent != ROOT / "fedmem" / "contracts"]


def probed_names(code: str) -> Iterator[tuple[int, str]]:
    """Line and name of each `getattr` or `hasattr` with a constant name.

    >>> list(probed_names("a = getattr(sampler, 'size', 1)\\nb = getattr(sampler, name)\\nc = hasattr(b, 'needs')"))
    [(1, 'size'), (3, 'needs')]
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value)


def literal_kinds(code: str) -> Iterator[tuple[int, str]]:
    """Line and name of each kind that is compared with a kind, matched, or listed with others of its family.

    A word such as `uniform` is also the name of a law, and `audit` that of a set of examples. So a comparison counts if
    its other side names a kind (`kind_of(part)`, `kinds`, `one.kind`), and a list if all its words are kinds of one
    family.

    >>> list(literal_kinds("kind_of(part) == 'uniform'\\nsampling == 'uniform'\\nLISTED = ('cyclic', 'poisson')"))
    [(1, 'uniform'), (3, 'cyclic'), (3, 'poisson')]
    """
    tree = ast.parse(code)
    literals = {id(one) for node in ast.walk(tree) if _is_literal_type(node) for one in ast.walk(node)}
    for node in ast.walk(tree):
        words: list[ast.Constant] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_names_kind(side) for side in sides):
                words = [word for side in sides for word in _words(side)]
        elif isinstance(node, ast.Match) and _names_kind(node.subject):
            words = [word for case in node.cases for word in _words(case.pattern)]
        elif isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict) and id(node) not in literals:
            items = node.keys if isinstance(node, ast.Dict) else node.elts
            listed = [one for one in items if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            alike = any({one.value for one in listed} <= names for names in KINDS.values())
            words = listed if listed and len(listed) == len(items) and alike else []
        for word in words:
            if any(word.value in names for names in KINDS.values()):
                yield word.lineno, str(word.value)


def _is_literal_type(node: ast.AST) -> bool:
    """Whether a node is `Literal[...]`, whose words are the values of a field."""
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"


def _names_kind(node: ast.AST) -> bool:
    """Whether an expression is about kinds, by its names."""
    names = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]
    names += [one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)]
    return any(name.lower().rpartition("_")[2] in ("kind", "kinds") or name == "kind_of" for name in names)


def _words(node: ast.AST) -> list[ast.Constant]:
    return [one for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
