"""Which modules a module imports, transitively, read from source files; nothing is imported for it."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

Follow = Callable[[str, Path], bool]
"""Whether the imports of a module are followed, by its name and its file."""

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))

_SITES = {"site-packages", "dist-packages"}
"""The names of folders of installed packages."""


def is_local(file: Path) -> bool:
    """Whether a file lies outside the standard library and the installed packages.

    >>> is_local(Path(ast.__file__)), is_local(Path("helpers.py"))
    (False, True)
    """
    place = file.resolve()
    if _SITES & set(place.parts):
        return False
    return not any(place.is_relative_to(folder) for folder in _INSTALLED)


def imported_files(roots: Iterable[str], follow: Follow) -> dict[str, Path]:
    """The modules that `follow` accepts among the roots and all that these import, each with its file.

    Imports inside functions count; those under `if TYPE_CHECKING` do not, since they are never executed. A dynamic
    import counts where its name is written as text: `importlib.import_module("helpers")`.

    Args:
        roots: Names of modules; the packages that they lie in are imported before them.
        follow: Decides which modules belong to the answer; the imports of others are not read.

    >>> files = imported_files(["fedmem.seeding"], lambda name, file: name.startswith("fedmem."))
    >>> sorted(files)
    ['fedmem.seeding']
    """
    files: dict[str, Path] = {}
    read_names: set[str] = set()
    waiting = [package for name in roots for package in _with_packages(name)]
    while waiting:
        name = waiting.pop()
        if name in read_names:
            continue
        read_names.add(name)
        file = source_of(name)
        if file is not None and follow(name, file):
            files[name] = file
            waiting += _imports(file, _package_of(name, file), file.stat().st_mtime_ns, file.stat().st_size)
    return dict(sorted(files.items()))


def source_of(name: str) -> Path | None:
    """The source file of a module; None where it has none, or where it does not exist."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if origin is None:
        spec = _spec(name)
        origin = None if spec is None or not spec.has_location else spec.origin
    if origin is None or not origin.endswith(".py"):
        return None
    file = Path(origin)
    return file if file.is_file() else None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from; its packages are not imported."""
    outer, _, _ = name.rpartition(".")
    try:
        if not outer:
            return importlib.util.find_spec(name)
        if outer in sys.modules:  # what is no package has no modules
            places = getattr(sys.modules[outer], "__path__", None)
        else:
            spec = _spec(outer)
            places = None if spec is None else spec.submodule_search_locations
        return None if places is None else PathFinder.find_spec(name, list(places))
    except (ImportError, ValueError, AttributeError):
        return None


def _package_of(name: str, file: Path) -> str:
    """The package that relative imports of a module start from."""
    return name if file.name == "__init__.py" else name.rpartition(".")[0]


@cache
def _imports(file: Path, package: str, mtime: int, size: int) -> tuple[str, ...]:
    """The names that a file imports, with the packages that they lie in; `changed` and `size` tell its versions."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return ()
    names: dict[str, None] = {}
    for name in _names(tree, package):
        names |= dict.fromkeys(_with_packages(name))
    return tuple(names)


def _with_packages(name: str) -> list[str]:
    """A module and the packages that it lies in, which are imported before it."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _names(tree: ast.AST, package: str) -> Iterator[str]:
    """Every name that some statement imports; of `from a import b` also `a.b`, which may be a module."""
    for node in _executed_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_module(node, package)
            yield from ([base] if base else [])
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and _is_import(node.func) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value if not argument.value.startswith(".") else f"{package}{argument.value}"


def _executed_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but the bodies of `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _is_import(function: ast.expr) -> bool:
    return _last_name(function) in ("import_module", "__import__")


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`; empty for what is no name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _absolute_module(node: ast.ImportFrom, package: str) -> str:
    """The module of a `from` statement, relative ones resolved."""
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    base = ".".join(parts[: len(parts) - node.level + 1])
    return ".".join(part for part in (base, node.module or "") if part)
