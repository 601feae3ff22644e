"""Mistakes about the data of a scenario that other mistakes in its file would hide until the next check."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import FedmemError, Problem

if TYPE_CHECKING:
    from fedmem.scenario.yaml_source import Place, Source

FIELDS = ("dataset", "partition", "injections", "clients", "runs", "population", "exclusion", "central", "seed")
"""The fields that decide which rows there are and who holds them."""


def problems_of_data(
    source: Source, file: Path, overrides: Sequence[str], problems: Sequence[Problem]
) -> list[Problem]:
    """The mistakes about the data that remain if the values with these problems are left out of the document.

    Nothing is found where a problem is about the data itself, or where the scenario cannot be read without the values.
    """
    from fedmem.federation import build as federations
    from fedmem.scenario.loading import load_source
    from fedmem.scenario.yaml_source import place_parts

    tree = copy.deepcopy(source.value)
    with suppress(ValueError, FedmemError):
        places = [place_parts(problem.path) for problem in problems]
        if any(place[0] in FIELDS for place in places):
            return []
        for place in places:
            _leave_out(tree, place)
        scenario = load_source(replace(source, value=tree, problems=()), file, overrides)
        found = [problem for problem in federations.check(scenario) if place_parts(problem.path)[0] in FIELDS]
        return [scenario.place(problem) for problem in found]
    return []


def _leave_out(tree: Any, place: Place) -> None:
    """Remove the value at a place, or the innermost part that has it, from a tree of mappings and lists.

    >>> tree = {"model": {"kind": "mlp", "hiden": 3}, "probes": [{"kind": "a"}, {}]}
    >>> _leave_out(tree, ("model", "hiden")), _leave_out(tree, ("probes", 1, "kind")), tree
    (None, None, {'model': {'kind': 'mlp'}, 'probes': [{'kind': 'a'}]})
    """
    inner: list[tuple[Any, Any]] = []
    for part in place:
        is_there = (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, list) and isinstance(part, int) and part < len(tree)
        )
        if not is_there:
            break
        inner.append((tree, part))
        tree = tree[part]
    if inner:
        parent, part = inner[-1]
        del parent[part]
