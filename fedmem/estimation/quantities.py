"""Quantities of single examples that estimators and signals give, for the estimators that compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedmem.contracts.estimator import Estimator, ExampleTarget, ExampleValues, View, estimator_declaration
from fedmem.guards.guarding import Guard


def with_quantities(places: Sequence[View], estimators: Sequence[Estimator]) -> list[View]:
    """The views with the quantities and targets that these estimators give, where one of them reads any."""
    declared = [(estimator, estimator_declaration(estimator)) for estimator in estimators]
    if not any(of_one.reads_quantities for _, of_one in declared):
        return list(places)
    views_with = []
    for view in places:
        quantities: list[ExampleValues] = []
        targets: list[ExampleTarget] = []
        for estimator, of_one in declared:
            if of_one.example_values is not None:
                with Guard("estimator", estimator, "example_values", **place_of(view)):
                    quantities += of_one.example_values(view)
            if of_one.example_targets is not None:
                with Guard("estimator", estimator, "example_targets", **place_of(view)):
                    targets += of_one.example_targets(view)
        views_with.append(replace(view, quantities=tuple(quantities), targets=tuple(targets)))
    return views_with


def place_of(view: View) -> dict[str, Any]:
    """Where a view looks, for messages."""
    return {"round": "of the summary" if view.round is None else view.round, "level": view.level}
