"""Completions for a shell: families, kinds, data sets, scenario files and folders of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def families(incomplete: str) -> list[str]:
    """The families of components that begin so.

    >>> families("sa")
    ['sampler']
    """
    from fedmem.contracts.families import FAMILIES

    return _beginning(incomplete, FAMILIES)


def kinds(family: str | None, incomplete: str) -> list[tuple[str, str]]:
    """The kinds of a family that begin so, each with what it is; of an unknown family there are none.

    >>> kinds("sampler", "ev")
    [('everyone', 'Full participation.')]
    >>> kinds("no such family", "")
    []
    """
    from fedmem.contracts.families import FAMILIES
    from fedmem.scenario import catalogue
    from fedmem.scenario.describe import summary

    if family is None or family not in FAMILIES:
        return []
    return [(kind, summary(family, kind)) for kind in _beginning(incomplete, catalogue.all_kinds(family))]


def published_names(incomplete: str) -> list[str]:
    """The data sets and models that can be fetched.

    >>> "mnist5k" in published_names("mn")
    True
    """
    from fedmem.federation import fetch

    return _beginning(incomplete, fetch.published_items())


def scenarios(incomplete: str) -> list[str]:
    """YAML files in the folder that is being typed and in the folders in it, then names of shipped scenarios."""
    from fedmem.shipped.files import scenario_names

    files = [str(path) for path in _paths_below(incomplete, "*.yaml", "*.yml") if path.is_file()]
    return [*files, *_beginning(incomplete, scenario_names())]


def runs(incomplete: str) -> list[str]:
    """Folders of finished runs in the folder that is being typed, and up to two below it."""
    return [
        str(path.parent) for path in _paths_below(incomplete, "manifest.json", "*/manifest.json", "*/*/manifest.json")
    ]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths_below(incomplete: str, *patterns: str) -> Iterator[Path]:
    """Paths that match below the folder of what was typed, and begin with it; hidden folders are left alone."""
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    places: list[Path] = []
    with suppress(OSError):  # what cannot be read cannot be completed
        for pattern in patterns:
            places += [*folder.glob(pattern), *folder.glob(f"*/{pattern}")]
    typed = incomplete.removeprefix("./")
    for place in sorted(set(places)):
        parts = place.relative_to(folder).parts
        if str(place).startswith(typed) and not any(part.startswith(".") for part in parts):
            yield place
