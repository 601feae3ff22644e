"""What probes, estimators and attacks return, compared with their contracts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.estimator import Estimate, Influence
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import base_of
from fedmem.contracts.measurement import EVERYWHERE, Labels, Measurement, Reading
from fedmem.contracts.needs import Declared
from fedmem.contracts.types import FloatArray
from fedmem.contracts.validation import a_kind, count_of, cut_text, is_number, is_whole
from fedmem.guards.guarding import Guard

if TYPE_CHECKING:
    from torch import Tensor

    from fedmem.contracts.attack import GradientTarget, Reconstruction, ReconstructionAttack


def by_run(guard: Guard, name: str, given: object, lead: tuple[int, ...]) -> dict[str, Tensor]:
    """Arrays by name whose first axes are these: runs, or runs and places in the cohort."""
    import torch

    if not isinstance(given, Mapping):
        guard.wrong(f"{name} is {a_kind(given)}, should be tensors by name")
    for key, value in given.items():
        if not isinstance(value, torch.Tensor) or tuple(value.shape[: len(lead)]) != lead:
            guard.wrong(f"{name}[{key!r}] is {a_kind(value)}, should be a tensor whose first axes are {lead}")
    return dict(given)


def readings_of(
    guard: Guard, given: Iterable[Any], shown: Sequence[Transition], declared: Declared
) -> list[tuple[Transition, Reading]]:
    """Readings of declared measures, each with one of the transitions that the probe was shown."""
    known = {id(transition) for transition in shown}
    places = {(transition.run, transition.client) for transition in shown}
    # with personal layers the shown models are those of owners, and the aggregate itself is of nobody
    places |= {(transition.run, EVERYWHERE) for transition in shown}
    found = []
    for one in given:
        if not isinstance(one, tuple) or len(one) != 2:
            guard.wrong(f"it returned {a_kind(one)}, should be pairs of a transition and a reading")
        transition, reading = one
        if transition is None:
            guard.wrong(
                "it returned a reading about no transition; runs may be trained apart, so what is about several of "
                "them belongs into its `summarise`"
            )
        if not isinstance(transition, Transition):
            guard.wrong(f"it returned a reading about {a_kind(transition)}, should be about a transition")
        if id(transition) not in known and (transition.run, transition.client) not in places:
            guard.wrong(
                f"it returned a reading about run {transition.run}, client {transition.client}, which it was not shown"
            )
        _reading(guard, reading, declared)
        found.append((transition, reading))
    return found


def _check_declared(guard: Guard, metric: str, labels: object, declared: Declared) -> None:
    """Refuses a measure or a label that the component does not declare."""
    if base_of(metric) not in declared.measures:
        listed = f"it declares {', '.join(sorted(declared.measures))}" if declared.measures else "it declares none"
        guard.wrong(
            f"it returned the measure {metric!r}, which it does not declare ({listed}); add Measure(name="
            f"{base_of(metric)!r}, title=..., means=...) to its class attribute `measures`"
        )
    if not isinstance(labels, Labels):
        guard.wrong(f"labels of {cut_text(metric)} are {a_kind(labels)}, should be Labels.of(name=value, ...)")
    for name, value in labels.items:
        label = declared.labels.get(name)
        if label is None:
            guard.wrong(
                f"it gave {cut_text(metric)} the label {name!r}, which it does not declare; add Label({name!r}, "
                f"'text', means) to its class attribute `row_labels`, or use one of "
                f"{', '.join(sorted(declared.labels))}"
            )
        if not label.fits(value):
            guard.wrong(f"label {name} of {cut_text(metric)} is {cut_text(value)}, should be of the kind {label.kind}")


def _reading(guard: Guard, reading: object, declared: Declared) -> None:
    if not isinstance(reading, Reading):
        guard.wrong(f"it returned {a_kind(reading)}, should be a fedmem.contracts.measurement.Reading")
    for name in ("value", "low", "high"):
        value = getattr(reading, name)
        guard.require(
            is_number(value),
            f"{name} of the reading {cut_text(reading.metric)} is {cut_text(value)}, should be a number",
        )
    count_of(guard, reading.n)
    for name in ("metric", "subject"):
        text = getattr(reading, name)
        guard.require(isinstance(text, str), f"{name} of a reading is {cut_text(text)}, should be text")
    _check_declared(guard, reading.metric, reading.labels, declared)


def measurements_of(guard: Guard, given: Iterable[Any], declared: Declared) -> list[Measurement]:
    """Summaries of a probe over all runs, of declared measures."""
    found = []
    for one in given:
        if not isinstance(one, Measurement):
            guard.wrong(f"it returned {a_kind(one)}, should be fedmem.contracts.measurement.Measurement")
        _reading(guard, one.reading, declared)
        found.append(one)
    return found


def estimates_of(guard: Guard, given: Iterable[Any], shape: tuple[int, int], declared: Declared) -> list[Estimate]:
    """Estimates of declared measures, each with contributions of (R, m) pairs."""
    found = []
    for one in given:
        if not isinstance(one, Estimate):
            guard.wrong(f"it returned {a_kind(one)}, should be fedmem.contracts.estimator.Estimate")
        _check_declared(guard, one.metric, one.labels, declared)
        for name in ("value", "null"):
            value = getattr(one, name)
            guard.require(
                is_number(value), f"{name} of {cut_text(one.metric)} is {cut_text(value)}, should be a number"
            )
        influence: Any = one.influence
        if not isinstance(influence, Influence):
            guard.wrong(
                f"influence of {cut_text(one.metric)} is {a_kind(influence)}, should be an Influence of "
                "fedmem.contracts.estimator"
            )
        for name, expected in (("examples", shape[1:]), ("cells", shape)):
            part = getattr(influence, name)
            if not isinstance(part, np.ndarray) or part.shape != expected or part.dtype.kind != "f":
                guard.wrong(f"{name} of {cut_text(one.metric)} are {a_kind(part)}, should be float64 of {expected}")
            guard.require(bool(np.isfinite(part).all()), f"{name} of {cut_text(one.metric)} are not all finite")
        count_of(guard, one.n)
        _per_example(guard, one)
        found.append(one)
    return found


def _per_example(guard: Guard, one: Estimate) -> None:
    """The values of single examples are as many as the examples."""
    if one.examples is None:
        return
    for name in ("per_example", "per_example_low", "per_example_high", "per_example_n"):
        values = getattr(one, name)
        if values is not None and np.shape(values) != np.shape(one.examples):
            guard.wrong(
                f"{name} of {cut_text(one.metric)} is {a_kind(values)}, should have the shape {np.shape(one.examples)} "
                "of examples"
            )


def run_readings_of(guard: Guard, given: Iterable[Any], runs: int, declared: Declared) -> list[tuple[int, Reading]]:
    """Readings of declared measures, of single runs or over all of them (-1)."""
    found = []
    for one in given:
        if not isinstance(one, tuple) or len(one) != 2 or not is_whole(one[0]) or not -1 <= one[0] < runs:
            guard.wrong(f"it returned {cut_text(one)}, should be pairs of a run (-1 to {runs - 1}) and a reading")
        _reading(guard, one[1], declared)
        found.append((int(one[0]), one[1]))
    return found


def scores_of(guard: Guard, scores: object, like: FloatArray) -> FloatArray:
    """Scores of a membership attack, one for each run and example."""
    if not isinstance(scores, np.ndarray) or scores.shape != like.shape or scores.dtype.kind != "f":
        guard.wrong(f"it returned {a_kind(scores)}, should be float64 of shape {like.shape}")
    return scores


def reconstructed(
    attack: ReconstructionAttack, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
) -> list[Reconstruction]:
    """What an attack makes of each target."""
    from fedmem.contracts.attack import Reconstruction

    with Guard("attack", attack, "reconstruct") as guard:
        found = list(attack.reconstruct(targets, rngs))
        guard.require(
            len(found) == len(targets),
            f"it returned {len(found)} reconstructions, should be one for each of {len(targets)}",
        )
        for target, one in zip(targets, found, strict=True):
            if not isinstance(one, Reconstruction):
                guard.wrong(f"it returned {a_kind(one)}, should be fedmem.contracts.attack.Reconstruction")
            inputs: Any = one.inputs
            labels: Any = one.labels
            if not isinstance(inputs, np.ndarray) or inputs.shape[1:] != tuple(target.input_shape):
                guard.wrong(f"inputs are {a_kind(inputs)}, should be (n, *{tuple(target.input_shape)})")
            if not isinstance(labels, np.ndarray) or labels.shape[:1] != inputs.shape[:1]:
                guard.wrong(f"labels are {a_kind(labels)}, should be one for each of {len(inputs)} inputs")
            guard.require(is_number(one.distance), f"distance is {cut_text(one.distance)}, should be a number")
    return found
