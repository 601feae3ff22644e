"""Which data sets are published, and fetching them by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedmem.contracts.data import DatasetDeclaration
from fedmem.contracts.declarations import class_value
from fedmem.datasets._published import Published, _take, cache_folder, state
from fedmem.datasets._sources import Unavailable
from fedmem.errors import FedmemError, Problem, ScenarioError
from fedmem.scenario import catalogue
from fedmem.wording import choices


def published_datasets() -> dict[str, Published]:
    """Every data set that can be fetched, by name: the dataset components that carry a `published_datasets`."""
    loaded = (catalogue.load("dataset", kind) for kind in catalogue.kinds("dataset"))
    items = [item for cls in loaded if isinstance(item := class_value(cls, DatasetDeclaration, "published"), Published)]
    return {item.name: item for item in items}


def fetch(name: str, *, force: bool = False, report: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a data set, unless it is there and whole, and give its folder. `report` gets the source that is asked.

    Sources are asked in order until one brings files with the right checksums; the error after the last names the
    cause at each. Files that are there stay until their successors have been compared.
    """
    items = published_datasets()
    if name not in items:
        message = f"there is no data set {name!r} to fetch{choices(name, items)}"
        raise ScenarioError([Problem(path="", message=message)])
    item = items[name]
    target = cache_folder() / name
    if not force and state(item) == "whole":
        return target
    causes = []
    for source in item.sources:
        report(f"{source.description} …")
        try:
            _take(item, source, target)
        except Unavailable as error:
            report(f"  no: {error}")
            causes.append(f"\n  {source.description}: {error}")
        else:
            return target
    raise FedmemError(f"{name} could not be fetched from any of its {len(item.sources)} sources:" + "".join(causes))
