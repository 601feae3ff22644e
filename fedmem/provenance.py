"""What code a run was made with, so that results are not taken for those of code that has changed since."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import subprocess
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.catalogue import kind_of
from fedmem.stock import StockStrategy

if TYPE_CHECKING:
    from fedmem.scenario import Scenario


PACKAGES = ("fedmem", "flwr", "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pydantic", "greenlet")
"""What the numbers depend on; the manifest holds the version of each."""


ENGINES = {"flower": ("ray",)}
"""What an engine needs beside them."""


def versions(engine: str = "lockstep") -> dict[str, str]:
    """The installed versions of these packages, and of what the engine needs.

    >>> versions()["torch"] == version("torch")
    True
    """
    return {package: version(package) for package in (*PACKAGES, *ENGINES.get(engine, ()))}


def code() -> str:
    """A sha256 of all files of fedmem and its strategies, which a version under development does not tell apart.

    >>> len(code())
    64
    """
    import strategies

    found = hashlib.sha256()
    for package in (Path(__file__).parent, Path(strategies.__path__[0])):
        for file in sorted(package.rglob("*.py")):
            found.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def components_of(scenario: Scenario) -> dict[str, str]:
    """Of every component of a scenario, nested ones too, its kind and a sha256 of the file that it is written in.

    The id of a run is a hash of the scenario; this is what the scenario cannot say.

    >>> from fedmem.scenario import parse_scenario
    >>> found = components_of(parse_scenario("{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}}"))
    >>> sorted(found)[:3], len(found["mlp"])
    (['everyone', 'fedavg', 'iid'], 64)
    """
    found = {}
    for component in _walk([getattr(scenario, name) for name in type(scenario).model_fields]):
        cls = type(component)
        if isinstance(component, StockStrategy):
            module, _, name = component.kind.partition(":")
            cls = getattr(importlib.import_module(module), name)
        found[kind_of(component)] = hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def changed(scenario: Scenario, manifest: dict[str, Any]) -> list[str]:
    """The kinds whose file is another one than when this manifest was written."""
    then = manifest.get("components", {})
    return [kind for kind, now in components_of(scenario).items() if then.get(kind, now) != now]


def commit() -> str | None:
    """The commit of the checkout that fedmem runs from, with `+` if files differ from it; None for a package."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    head = _git(here, "rev-parse", "HEAD")
    return f"{head}+" if head and _git(here, "status", "--porcelain", "--", "fedmem", "strategies") else head or None


def _git(here: Path, *words: str) -> str:
    asked = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def _walk(value: Any) -> Iterator[Any]:
    """Every component in a value: dataclasses, what their fields hold, and the items of sequences."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _walk(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield value
        for item in fields(value):
            yield from _walk(getattr(value, item.name))
