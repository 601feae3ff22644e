"""Tests of `fedmem/signals/_influence_targets.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.signal import stored_names
from fedmem.scenario.scenario import Scenario
from fedmem.signals._influence_targets import InfluenceTargets
from fedmem.signals.influence_function import InfluenceFunction
from fedmem.signals.representer import Representer
from fedmem.signals.tracin import TracIn
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

SIGNALS = (InfluenceFunction(targets=7), TracIn(targets=7), Representer(targets=7))


def test_half_are_audit_examples_and_more_have_the_fewer() -> None:
    bench = Bench()
    few, many = (InfluenceTargets.draw(bench.federation, count) for count in (7, 12))
    assert (len(few.audit), len(few.test)) == (4, 3)
    assert set(few.names) < set(many.names)
    examples = few.examples(bench.federation)
    np.testing.assert_array_equal(examples.inputs[:4], bench.examples.inputs[few.audit])
    np.testing.assert_array_equal(examples.inputs[4:], bench.federation.test.inputs[few.test])
    everything = InfluenceTargets.draw(bench.federation, 10**6)
    assert len(everything) == len(bench.examples) + len(bench.federation.test)
    assert not len(InfluenceTargets.draw(bench.federation, 0))


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: type(signal).__name__)
def test_names_and_prices_follow_the_number_of_targets(signal: InfluenceFunction | TracIn | Representer) -> None:
    bench = Bench()
    (name,) = signal.variants
    names = stored_names(signal, bench.federation)
    drawn = InfluenceTargets.draw(bench.federation, 7).names
    assert names == (name.removesuffix("_on"), *(f"{name}.{target}" for target in drawn))
    without = type(signal)()
    assert len(stored_names(without, bench.federation)) == 1
    priced, free = (each.passes_in(bench.federation) for each in (signal, without))
    assert sum(priced) > sum(free)


def test_values_are_stored_and_no_targets_change_no_identity(tmp_path: Path) -> None:
    def scenario(targets: int) -> Scenario:
        kinds = ("influence_function", "tracin", "representer")
        signals = [{"kind": kind, **({"targets": targets} if targets else {})} for kind in kinds]
        return tiny(runs=2, rounds=1, bootstrap=20, observe={"every": 1}, model={"kind": "logistic"}, signals=signals)

    zero = tiny(signals=[{"kind": "tracin", "targets": 0}])
    assert zero.id == tiny(signals=[{"kind": "tracin"}]).id != tiny(signals=[{"kind": "tracin", "targets": 4}]).id
    plain, run = (fedmem.read(fedmem.run(scenario(count), out=tmp_path / str(count))) for count in (0, 4))
    assert set(plain.measurements.metric) == set(run.measurements.metric)
    stored = set(run.signals.name) - set(plain.signals.name)
    assert len(stored) == 3 * 4
    for name in ("influence_function", "tracin", "representer"):
        of_itself = run.signals[run.signals.name == name].dropna()
        for on in [each for each in stored if each.startswith(f"{name}_on.audit.")]:
            subject = int(on.rpartition(".")[2])
            same = run.signals[(run.signals.name == on) & (run.signals.subject == subject)].dropna()
            expected = of_itself[of_itself.subject == subject]
            np.testing.assert_allclose(same.value, expected.value, rtol=1e-9, atol=1e-15)
            assert len(same)
