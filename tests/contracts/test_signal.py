"""Tests of `fedmem/contracts/signal.py`."""

from __future__ import annotations

import math

from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import AccumulatingSignal, Signal, signal_declaration, signal_measures
from fedmem.signals.el2n import El2n
from fedmem.signals.gradient_variance import GradientVariance
from fedmem.signals.input_curvature import InputCurvature


def test_a_quantity_has_a_gain_of_its_own_range_and_null() -> None:
    plain, gain = signal_measures(Measure(name="score", title="score", means="A score.", range=(0.0, 2.0)))
    assert (plain.gain, gain.name) == ("score_gain", "score_gain")
    assert gain.range == (-2.0, 2.0)
    assert gain.null == 0.0
    assert math.isnan(plain.null), "what a model says of an example has no value without memorisation"


def test_signals_that_accumulate_are_told_by_their_methods() -> None:
    assert isinstance(GradientVariance(), AccumulatingSignal)
    assert not isinstance(GradientVariance(), Signal)
    assert isinstance(El2n(), Signal)
    assert not isinstance(El2n(), AccumulatingSignal)


def test_declarations_follow_fields() -> None:
    assert signal_declaration(InputCurvature(directions=2)).passes == 15.0
    assert signal_declaration(InputCurvature()).owners_only
    assert not signal_declaration(InputCurvature(others=True)).owners_only
