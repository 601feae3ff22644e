"""Tests of `fedmem/contracts/validation_of_measures.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import LABELS, Label, Labels, Measurement, Reading
from fedmem.contracts.needs import Declared
from fedmem.contracts.validation_of_measures import (
    by_run,
    measurements_of,
    readings_of,
    reconstruct,
    run_readings_of,
)
from fedmem.guards.guarding import Guard, PartError
from tests.lab import Lab, digits, network, parameters, target_of

DECLARED = Declared(measures={"m": Measure(name="m", title="m", means="A number.")}, labels=dict(LABELS))


def read(given: Any, shown: Any, declared: Declared = DECLARED) -> Any:
    with Guard("probe", "tests:Probe", "observe") as guard:
        return readings_of(guard, given, shown, declared)


def test_readings_need_shown_transitions_and_declared_names() -> None:
    one, other = Lab().local(runs=(0, 1), clients=(0,))
    good = Reading(metric="m", value=1.0, labels=Labels.of(place="owner"))
    assert read([(one, good)], [one]) == [(one, good)]
    wrong: list[tuple[Any, str]] = [
        ((other, good), "which it was not shown"),
        (good, "should be pairs of a transition and a reading"),
        ((None, good), "about no transition"),
        ((one, replace(good, metric="n")), "'n', which it does not declare"),
        ((one, replace(good, labels=Labels.of(colour="red"))), "'colour', which it does not declare"),
    ]
    for given, message in wrong:
        with pytest.raises(PartError, match=message):
            read([given], [one])


def test_label_that_is_not_declared_is_refused_by_its_name() -> None:
    (one,) = Lab().local(runs=(0,), clients=(0,))
    colour = Reading(metric="m", value=1.0, labels=Labels.of(colour="red"))
    labelled = replace(DECLARED, labels={**LABELS, "shade": Label("shade", "text", "how dark")})
    for declared, listed in ((labelled, "it declares shade"), (DECLARED, "it declares none")):
        with pytest.raises(PartError) as caught:
            read([(one, colour)], [one], declared)
        message = str(caught.value)
        assert message.startswith(
            "probe tests:Probe failed in observe: it gave 'm' the label 'colour', which it does not"
        )
        assert listed in message
        assert all(name in message for name in LABELS)
    with pytest.raises(PartError, match="label shade of 'm' is 3, should be of the kind text"):
        read([(one, replace(colour, labels=Labels.of(shade=3)))], [one], labelled)


def test_runs_and_rounds_are_numbers_from_zero_or_none() -> None:
    reading = Reading(metric="m", value=1.0)

    def of_runs(run: Any) -> Any:
        with Guard("estimator", "tests:Estimator", "tests") as guard:
            return run_readings_of(guard, [(run, reading)], 4, DECLARED)

    def of_rows(**place: Any) -> Any:
        row = Measurement(
            **{"run": None, "round": None, **place}, level="global", client=-1, source="x", reading=reading
        )
        with Guard("probe", "tests:Probe", "summarise") as guard:
            return measurements_of(guard, [row], DECLARED)

    assert [of_runs(run)[0][0] for run in (None, 0, np.int64(3))] == [None, 0, 3]
    for run in (-1, 4, True, "0"):
        with pytest.raises(PartError, match=r"a run \(0 to 3, None for all\)"):
            of_runs(run)
    assert of_rows(run=0, round=5)[0].scope == "run"
    for name in ("run", "round"):
        with pytest.raises(PartError, match=rf"{name} of a measurement is -1, should be 0, 1, ..., or None"):
            of_rows(**{name: -1})


def test_arrays_by_run_need_the_leading_axes() -> None:
    def check(given: object) -> Any:
        with Guard("strategy", "tests:Rule", "state") as guard:
            return by_run(guard, "state", given, (2, 3))

    good = {"w": torch.zeros(2, 3, 5)}
    assert check(good) == good
    for wrong in ({"w": torch.zeros(2, 4)}, {"w": np.zeros((2, 3))}, [torch.zeros(2, 3)]):
        with pytest.raises(PartError, match="should be"):
            check(wrong)


@dataclass(frozen=True, kw_only=True)
class Returning:
    found: Any
    knows: tuple[str, ...] = ()

    def reconstruct(self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]) -> Any:
        return self.found


def test_reconstructions_must_fit_their_targets() -> None:
    model = network()
    target = target_of(model, parameters(model), digits().take(np.arange(2)))
    good = Reconstruction(inputs=np.zeros((2, 1, 8, 8), np.float32), labels=np.zeros(2, np.int64), distance=0.1)
    assert reconstruct(Returning(found=[good]), [target], []) == [good]
    for wrong, message in (
        ([], "0 reconstructions, should be one for each of 1"),
        ([replace(good, inputs=good.inputs[:, 0])], "inputs are"),
        ([replace(good, labels=good.labels[:1])], "should be one for each of 2 inputs"),
        ([None], "should be fedmem.contracts.attack.Reconstruction"),
    ):
        with pytest.raises(PartError, match=message):
            reconstruct(Returning(found=wrong), [target], [])


def test_a_value_outside_its_interval_is_refused() -> None:
    """Value and interval of two estimators; a measure that says what its interval is about may have it."""
    (one,) = Lab().local(runs=(0,), clients=(0,))
    for value in (0.5, 0.95):
        apart = Reading(metric="m", value=value, low=0.6, high=0.9)
        with pytest.raises(PartError, match="lies outside its interval"):
            read([(one, apart)], [one])
        about = Measure(name="m", title="m", means="A number.", interval_of="the mean over other clients")
        assert read([(one, apart)], [one], replace(DECLARED, measures={"m": about}))
    for good in (Reading(metric="m", value=0.6, low=0.6, high=0.9), Reading(metric="m", value=0.5)):
        assert read([(one, good)], [one])
