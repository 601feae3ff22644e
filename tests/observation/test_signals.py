"""Tests of `fedmem/observation/signals.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.execution.run import measure
from fedmem.federation import build as federations
from fedmem.guards.guarding import PartError
from fedmem.observation import observer
from fedmem.results.read import read_bank
from tests.engines.lockstep_helpers import same
from tests.tiny import tiny

SIGNALS: list[dict[str, Any]] = [
    {"kind": "grad_norm"},
    {"kind": "el2n", "every": 4},
    {"kind": "gradient_variance", "levels": ["global"]},
    {"kind": "noise_robustness", "sigmas": [0.1], "draws": 2},
]


def test_watching_changes_nothing() -> None:
    plain, watched = (tiny(signals=signals, estimators=[{"kind": "memorisation"}]) for signals in ([], SIGNALS))
    without, found = (simulate(scenario, federations.build(scenario)) for scenario in (plain, watched))
    assert same(without.params, found.params)
    assert len(without.bank.evidence) == len(found.bank.evidence)
    for one, other in zip(without.bank.evidence, found.bank.evidence, strict=True):
        assert one.margin.tobytes() == other.margin.tobytes()
    assert {block.name for block in found.bank.signals} >= {"grad_norm", "el2n", "gradient_variance_late"}


def test_kept_logits_give_the_same_bytes_as_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = tiny(signals=SIGNALS)
    federation = federations.build(scenario)
    kept = simulate(scenario, federation)
    monkeypatch.setattr(observer, "KEPT_LOGITS", 0)
    again = simulate(scenario, federation)
    assert kept.bank.signals
    for one, other in zip(kept.bank.signals, again.bank.signals, strict=True):
        assert one.values.tobytes() == other.values.tobytes()


def test_a_scenario_without_signals_keeps_its_id() -> None:
    assert tiny().id == tiny(signals=[]).id
    assert tiny().id != tiny(signals=SIGNALS).id


def test_values_do_not_depend_on_how_runs_are_divided(tmp_path: Path) -> None:
    frames = []
    for shard, engine in ((16, "stacked"), (2, "stacked"), (1, "one_by_one")):
        speed = {"shard": shard, "workers": 1, "executor": engine}
        folder = fedmem.run(tiny(signals=SIGNALS, speed=speed), out=tmp_path / str(shard))
        frames.append(fedmem.read(folder).signals)
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2], rtol=1e-3, atol=1e-5)


def test_estimates_are_made_again_from_what_is_stored(tmp_path: Path) -> None:
    folder = fedmem.run(tiny(signals=SIGNALS, estimators=[{"kind": "memorisation"}], runs=8), out=tmp_path)
    rows = fedmem.read(folder).rows()
    assert {"grad_norm", "gradient_variance"} <= {row.source for row in rows}
    before = (folder / "measurements.parquet").read_bytes()
    measure(folder)
    assert (folder / "measurements.parquet").read_bytes() == before
    bank = read_bank(folder)
    assert all(block.values.shape[1] == len(bank.audit) for block in bank.signals)
    by_hand = np.concatenate([block.values.ravel() for block in bank.signals])
    stored = fedmem.read(folder).signals["value"].to_numpy()
    assert by_hand.tobytes() == stored.tobytes()


def test_signals_need_examples_levels_and_names_of_their_own() -> None:
    with pytest.raises(ScenarioError, match="el2n is read on audit examples, but injections is empty"):
        tiny(injections=[], signals=[{"kind": "el2n"}])
    with pytest.raises(ScenarioError, match="9 exceeds the 4 rounds"):
        tiny(signals=[{"kind": "el2n", "every": 9}])
    with pytest.raises(ScenarioError, match="would be measured twice"):
        tiny(signals=[{"kind": "el2n"}, {"kind": "el2n"}])
    with pytest.raises(ScenarioError, match=r"signals\[0\] reads el2n, el2n_gain as well"):
        tiny(signals=[{"kind": "el2n"}, {"kind": "el2n", "every": 2}])


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A signal that returns what a test asks for."""

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(Measure(name="mine", title="mine", means="Mine."))
    every: int | None = None
    levels: tuple[Any, ...] = ("global",)
    how: str = "name"

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        shape = len(context.transitions), len(context.examples)
        if self.how == "raise":
            raise ZeroDivisionError("mine")
        if self.how == "write":
            context.logits()[:] = 0.0
        returned: dict[str, dict[str, FloatArray]] = {
            "name": {"other": np.zeros(shape)},
            "shape": {"mine": np.zeros(shape[1])},
            "dtype": {"mine": np.zeros(shape, np.float32)},
        }
        return returned[self.how]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("name", "it returned values of other, should be of each measure that it declares: mine"),
        ("shape", "'mine' is .*, should be float64 of shape"),
        ("dtype", "'mine' is .*, should be float64 of shape"),
        ("raise", "ZeroDivisionError: mine"),
        ("write", "read-only"),
    ],
)
def test_a_wrong_signal_is_named_with_its_round(how: str, text: str) -> None:
    scenario = tiny(signals=[{"kind": "tests.observation.test_signals:Wrong", "how": how}])
    with pytest.raises(PartError, match=rf"(?s)round 0.*signal tests.observation.test_signals:Wrong.*{text}"):
        simulate(scenario, federations.build(scenario))


def test_texts_and_images_refuse_signals_that_cannot_read_them() -> None:
    scenario = tiny(signals=[{"kind": "attribute_sensitivity"}])
    with pytest.raises(ScenarioError, match="reads the columns of a table, and synthetic has none"):
        federations.require(scenario, federations.load(scenario))
