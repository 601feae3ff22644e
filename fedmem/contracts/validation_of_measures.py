"""Results of probes, estimators and attacks, compared with their contracts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import Estimate, Influence
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import base_of
from fedmem.contracts.measurement import LABELS, NO_CLIENT, Labels, Measurement, Reading
from fedmem.contracts.needs import Declared
from fedmem.contracts.validation import a_kind, count_of, cut_text, is_number, is_whole
from fedmem.guards.guarding import Guard

if TYPE_CHECKING:
    from torch import Tensor

    from fedmem.contracts.attack import GradientTarget, Reconstruction, ReconstructionAttack


def by_run(guard: Guard, name: str, values: object, lead: tuple[int, ...]) -> dict[str, Tensor]:
    """Arrays by name whose first axes are these: runs, or runs and places in the cohort."""
    import torch

    if not isinstance(values, Mapping):
        guard.reject(f"{name} is {a_kind(values)}, should be tensors by name")
    for key, value in values.items():
        if not isinstance(value, torch.Tensor) or tuple(value.shape[: len(lead)]) != lead:
            guard.reject(f"{name}[{key!r}] is {a_kind(value)}, should be a tensor whose first axes are {lead}")
    return dict(values)


def readings_of(
    guard: Guard, pairs: Iterable[Any], transitions: Sequence[Transition], declared: Declared
) -> list[tuple[Transition, Reading]]:
    """Readings of declared measures, each with one of the transitions that the probe was shown."""
    transition_ids = {id(transition) for transition in transitions}
    places = {(transition.run, transition.client) for transition in transitions}
    # with personal layers the shown models are those of owners, and the aggregate itself is of nobody
    places |= {(transition.run, NO_CLIENT) for transition in transitions}
    readings = []
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            guard.reject(f"it returned {a_kind(pair)}, should be pairs of a transition and a reading")
        transition, reading = pair
        if transition is None:
            guard.reject(
                "it returned a reading about no transition; runs may be trained apart, so what is about several of "
                "them belongs into its `summarise`"
            )
        if not isinstance(transition, Transition):
            guard.reject(f"it returned a reading about {a_kind(transition)}, should be about a transition")
        if id(transition) not in transition_ids and (transition.run, transition.client) not in places:
            guard.reject(
                f"it returned a reading about run {transition.run}, client {transition.client}, which it was not shown"
            )
        _reading(guard, reading, declared)
        readings.append((transition, reading))
    return readings


def _check_declared(guard: Guard, metric: str, labels: object, declared: Declared) -> None:
    """Refuses a measure or a label that the component does not declare."""
    if base_of(metric) not in declared.measures:
        listed = f"it declares {', '.join(sorted(declared.measures))}" if declared.measures else "it declares none"
        guard.reject(
            f"it returned the measure {metric!r}, which it does not declare ({listed}); add Measure(name="
            f"{base_of(metric)!r}, title=..., means=...) to its class attribute `measures`"
        )
    if not isinstance(labels, Labels):
        guard.reject(f"labels of {cut_text(metric)} are {a_kind(labels)}, should be Labels.of(name=value, ...)")
    for name, value in labels.items:
        label = declared.labels.get(name)
        if label is None:
            own = sorted(declared.labels.keys() - LABELS.keys())
            guard.reject(
                f"it gave {cut_text(metric)} the label {name!r}, which it does not declare (it declares "
                f"{', '.join(own) or 'none'}). Add Label({name!r}, 'text', means) to its class attribute `row_labels`, "
                f"or use one that every component may use: {', '.join(sorted(LABELS))}"
            )
        if not label.fits(value):
            guard.reject(f"label {name} of {cut_text(metric)} is {cut_text(value)}, should be of the kind {label.kind}")


def _reading(guard: Guard, reading: object, declared: Declared) -> None:
    if not isinstance(reading, Reading):
        guard.reject(f"it returned {a_kind(reading)}, should be a fedmem.contracts.measurement.Reading")
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
    _check_interval(guard, reading, declared)


def _check_interval(guard: Guard, reading: Reading, declared: Declared) -> None:
    """Refuses a value outside its own interval, unless its measure says what the interval is about."""
    if reading.is_outside and not declared.measures[base_of(reading.metric)].interval_of:
        guard.reject(
            f"the value {reading.value:g} of {cut_text(reading.metric)} lies outside its interval from {reading.low:g} "
            f"to {reading.high:g}. Compute both from the same estimate, or say in Measure(interval_of=...) what the "
            "interval is about"
        )


def measurements_of(guard: Guard, values: Iterable[Any], declared: Declared) -> list[Measurement]:
    """Summaries of a probe over all runs, of declared measures."""
    measurements = []
    for measurement in values:
        if not isinstance(measurement, Measurement):
            guard.reject(f"it returned {a_kind(measurement)}, should be fedmem.contracts.measurement.Measurement")
        for name in ("run", "round"):
            number = getattr(measurement, name)
            guard.require(
                _is_number(number),
                f"{name} of a measurement is {cut_text(number)}, should be 0, 1, ..., or None for all",
            )
        _reading(guard, measurement.reading, declared)
        measurements.append(measurement)
    return measurements


def estimates_of(guard: Guard, values: Iterable[Any], shape: tuple[int, int], declared: Declared) -> list[Estimate]:
    """Estimates of declared measures, each with contributions of (R, m) pairs."""
    estimates = []
    for estimate in values:
        if not isinstance(estimate, Estimate):
            guard.reject(f"it returned {a_kind(estimate)}, should be fedmem.contracts.estimator.Estimate")
        _check_declared(guard, estimate.metric, estimate.labels, declared)
        for name in ("value", "null"):
            value = getattr(estimate, name)
            guard.require(
                is_number(value), f"{name} of {cut_text(estimate.metric)} is {cut_text(value)}, should be a number"
            )
        influence: Any = estimate.influence
        if not isinstance(influence, Influence):
            guard.reject(
                f"influence of {cut_text(estimate.metric)} is {a_kind(influence)}, should be an Influence of "
                "fedmem.contracts.estimator"
            )
        for name, expected in (("examples", shape[1:]), ("cells", shape)):
            part = getattr(influence, name)
            if not isinstance(part, np.ndarray) or part.shape != expected or part.dtype.kind != "f":
                guard.reject(
                    f"{name} of {cut_text(estimate.metric)} are {a_kind(part)}, should be float64 of {expected}"
                )
            guard.require(bool(np.isfinite(part).all()), f"{name} of {cut_text(estimate.metric)} are not all finite")
        count_of(guard, estimate.n)
        _per_example(guard, estimate)
        estimates.append(estimate)
    return estimates


def _per_example(guard: Guard, estimate: Estimate) -> None:
    """The values of single examples are as many as the examples."""
    if estimate.examples is None:
        return
    for name in ("per_example", "per_example_low", "per_example_high", "per_example_n", "per_example_p"):
        values = getattr(estimate, name)
        if values is not None and np.shape(values) != np.shape(estimate.examples):
            guard.reject(
                f"{name} of {cut_text(estimate.metric)} is {a_kind(values)}, should have the shape "
                f"{np.shape(estimate.examples)} of examples"
            )
    if estimate.per_example is None:
        return
    values = np.asarray(estimate.per_example, dtype=np.float64)
    for bound, sign in ((estimate.per_example_low, 1.0), (estimate.per_example_high, -1.0)):
        if bound is not None and (sign * (np.asarray(bound) - values) > 1e-9 * np.maximum(1.0, np.abs(values))).any():
            guard.reject(f"a value of a single example of {cut_text(estimate.metric)} lies outside its interval")


def place_readings_of(
    guard: Guard, values: Iterable[Any], places: int, declared: Declared
) -> list[tuple[int, Reading]]:
    """Readings of declared measures, each about one of the views of the summary."""
    readings = []
    for pair in values:
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] is None or not _is_number(pair[0], places):
            guard.reject(f"it returned {cut_text(pair)}, should be pairs of a view (0 to {places - 1}) and a reading")
        _reading(guard, pair[1], declared)
        readings.append((int(pair[0]), pair[1]))
    return readings


def run_readings_of(
    guard: Guard, values: Iterable[Any], runs: int, declared: Declared
) -> list[tuple[int | None, Reading]]:
    """Readings of declared measures, of single runs or over all of them (None)."""
    readings = []
    for pair in values:
        if not isinstance(pair, tuple) or len(pair) != 2 or not _is_number(pair[0], runs):
            guard.reject(
                f"it returned {cut_text(pair)}, should be pairs of a run (0 to {runs - 1}, None for all) and a reading"
            )
        _reading(guard, pair[1], declared)
        readings.append((None if pair[0] is None else int(pair[0]), pair[1]))
    return readings


def _is_number(value: Any, count: float = math.inf) -> bool:
    """Whether a value is None or one of the numbers 0, 1, ..., count - 1."""
    return value is None or (is_whole(value) and 0 <= value < count)


def scores_of(guard: Guard, scores: object, like: FloatArray) -> FloatArray:
    """Scores of a membership attack, one for each run and example."""
    if not isinstance(scores, np.ndarray) or scores.shape != like.shape or scores.dtype.kind != "f":
        guard.reject(f"it returned {a_kind(scores)}, should be float64 of shape {like.shape}")
    return scores


def signal_values_of(guard: Guard, values: object, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Values of a signal in float64, of the shape that each declared name has."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        guard.reject(f"it returned {a_kind(values)}, should be a mapping of names to arrays")
    if set(values) != set(shapes):
        guard.reject(
            f"it returned values of {', '.join(sorted(values)) or 'nothing'}, should be of each measure that it "
            f"declares: {', '.join(sorted(shapes)) or 'none'}"
        )
    for name, value in values.items():
        shape = shapes[name]
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.float64:
            guard.reject(f"{cut_text(name)} is {a_kind(value)}, should be float64 of shape {shape}")
    return dict(values)


def reconstruct(
    attack: ReconstructionAttack, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
) -> list[Reconstruction]:
    """The reconstruction of an attack for each target."""
    from fedmem.contracts.attack import Reconstruction

    with Guard("attack", attack, "reconstruct") as guard:
        reconstructions = list(attack.reconstruct(targets, rngs))
        guard.require(
            len(reconstructions) == len(targets),
            f"it returned {len(reconstructions)} reconstructions, should be one for each of {len(targets)}",
        )
        for target, reconstruction in zip(targets, reconstructions, strict=True):
            if not isinstance(reconstruction, Reconstruction):
                guard.reject(f"it returned {a_kind(reconstruction)}, should be fedmem.contracts.attack.Reconstruction")
            inputs: Any = reconstruction.inputs
            labels: Any = reconstruction.labels
            if not isinstance(inputs, np.ndarray) or inputs.shape[1:] != tuple(target.input_shape):
                guard.reject(f"inputs are {a_kind(inputs)}, should be (n, *{tuple(target.input_shape)})")
            if not isinstance(labels, np.ndarray) or labels.shape[:1] != inputs.shape[:1]:
                guard.reject(f"labels are {a_kind(labels)}, should be one for each of {len(inputs)} inputs")
            guard.require(
                is_number(reconstruction.distance),
                f"distance is {cut_text(reconstruction.distance)}, should be a number",
            )
    return reconstructions
