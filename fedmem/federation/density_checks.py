"""Which parts of a scenario have a meaning where data have no labels, so that models answer with log-densities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fedmem.contracts.attack import AttackDeclaration, MembershipAttack
from fedmem.contracts.client import client_declaration
from fedmem.contracts.data import Dataset
from fedmem.contracts.declarations import class_value
from fedmem.contracts.estimator import EstimatorDeclaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.injection import InjectionDeclaration, injection_declaration
from fedmem.contracts.model import ModelDeclaration, model_declaration
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import ProbeDeclaration
from fedmem.contracts.signal import SignalDeclaration
from fedmem.errors import Problem
from fedmem.scenario.catalogue import kinds, load

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

_RECORDS: dict[str, type] = {
    "injection": InjectionDeclaration,
    "signal": SignalDeclaration,
    "probe": ProbeDeclaration,
    "estimator": EstimatorDeclaration,
    "attack": AttackDeclaration,
    "model": ModelDeclaration,
}


def density_problems(scenario: Scenario, data: Dataset) -> list[Problem]:
    """A problem for each part that needs labels where data have none, and for a model of densities where they have.

    Parts that have a meaning for densities declare it, with `densities`. All others are refused, so that no number
    without a meaning is reported.
    """
    model = model_declaration(scenario.model)
    if not data.modality.densities:
        return [*_refuse_labels(scenario, data)] if model.densities else []
    return [*_model(scenario, data), *_training(scenario), *_measuring(scenario)]


def _refuse_labels(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    kind = kind_of(scenario.dataset)
    yield Problem(
        path="model.kind",
        message=f"{kind_of(scenario.model)} gives the log-density of an input, and {kind} has labels; write dataset: "
        f"{{kind: unlabelled, dataset: {{kind: {kind}}}}}, or use a model of classes, such as mlp",
    )


def _model(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    declared = model_declaration(scenario.model)
    if not declared.densities:
        yield Problem(
            path="model.kind",
            message=f"{kind_of(scenario.dataset)} has no labels, and {kind_of(scenario.model)} predicts some; choose "
            f"from: {_suitable('model')}",
        )
    elif declared.binary_inputs and not data.modality.is_binary:
        yield Problem(
            path="model.kind",
            message=f"{kind_of(scenario.model)} is a distribution of pixels that are 0 or 1, and those of "
            f"{kind_of(scenario.dataset)} lie between. Its density would not sum to 1; write threshold: 0.5 in the "
            "data set, or use another likelihood",
        )


def _training(scenario: Scenario) -> Iterator[Problem]:
    selection = client_declaration(scenario.client).selection
    if selection is not None and selection.by == "el2n":
        yield Problem(path="client.by", message="el2n is the error of a label, and rows have none; use by: loss")
    if scenario.client_shards > 1:
        yield Problem(
            path="client_shards",
            message="networks of shards are evaluated by the mean of their probabilities of classes, and rows have no "
            "labels; leave it out",
        )
    if scenario.unlearner is not None:
        yield Problem(
            path="unlearner.kind",
            message=f"{kind_of(scenario.unlearner)} is defined for labels, and rows have none; leave the phase out",
        )
    if scenario.observe.test.precision == "float32":
        yield Problem(
            path="observe.test.precision",
            message="losses of rows without labels are stored, and do not follow from rounded margins; write float64",
        )


def _measuring(scenario: Scenario) -> Iterator[Problem]:
    for position, injection in enumerate(scenario.injections):
        if not injection_declaration(injection).densities:
            yield _refusal("injection", f"injections[{position}].kind", injection)
    lists: tuple[tuple[str, str, Sequence[Any]], ...] = (
        ("signal", "signals", scenario.signals),
        ("probe", "probes", scenario.probes),
        ("estimator", "estimators", scenario.estimators),
    )
    for family, field, components in lists:
        for position, component in enumerate(components):
            path = f"{field}[{position}]"
            if not needs_of(component).densities:
                yield _refusal(family, f"{path}.kind", component)
                continue
            for where, part in nested_components(component, path):
                if isinstance(part, MembershipAttack) and not needs_of(part).densities:
                    yield _refusal("attack", f"{where}.kind", part)


def _refusal(family: str, path: str, component: object) -> Problem:
    return Problem(
        path=path,
        message=f"{kind_of(component)} needs labels or right answers, and the data have none: models answer with the "
        f"log-density of each row; choose from: {_suitable(family)}",
    )


def _suitable(family: str) -> str:
    record = _RECORDS[family]
    return ", ".join(kind for kind in kinds(family) if class_value(load(family, kind), record, "densities") is True)
