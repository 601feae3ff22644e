"""Which data sets and models are published, and fetching them by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedmem.contracts.data import DatasetDeclaration
from fedmem.contracts.declarations import class_value
from fedmem.errors import FedmemError, Problem, ScenarioError
from fedmem.fetched.files import Published, cache_folder, state, take
from fedmem.fetched.models import MODELS
from fedmem.fetched.sources import Unavailable
from fedmem.scenario import catalogue
from fedmem.wording import choices


def published_datasets() -> dict[str, Published]:
    """Every data set that can be fetched, by name: the dataset components that carry a `published_datasets`."""
    loaded = (catalogue.load("dataset", kind) for kind in catalogue.kinds("dataset"))
    items = [item for cls in loaded if isinstance(item := class_value(cls, DatasetDeclaration, "published"), Published)]
    return {item.name: item for item in items}


def published_items() -> dict[str, Published]:
    """Every data set and model that can be fetched, by name.

    >>> "adult" in published_items() and "minilm" in published_items()
    True
    """
    return {**published_datasets(), **MODELS}


def fetch(name: str, *, force: bool = False, report: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch a data set or model, unless it is there and whole, and return its folder.

    `report` gets the source that is asked, and the licence.

    Sources are asked in order until one brings files with the right checksums; the error after the last names the
    cause at each. Files that are there stay until their successors have been compared.
    """
    items = published_items()
    if name not in items:
        message = f"there is no data set or model {name!r} to fetch{choices(name, items)}"
        raise ScenarioError([Problem(path="", message=message)])
    item = items[name]
    target = cache_folder() / name
    if not force and state(item) == "whole":
        return target
    causes = []
    for source in item.sources:
        report(f"{source.description} …")
        try:
            take(item, source, target)
        except Unavailable as error:
            report(f"  no: {error}")
            causes.append(f"\n  {source.description}: {error}")
        else:
            report(f"licence: {item.licence}")
            return target
    raise FedmemError(f"{name} could not be fetched from any of its {len(item.sources)} sources:" + "".join(causes))
