"""Tests of `fedmem/estimators/localisation.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import BoolArray, FloatArray, Params
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank, Transition
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.estimation.estimates import estimate
from fedmem.estimators.localisation import Localisation
from fedmem.federation import build as federations
from fedmem.observation.observer import _Observer
from fedmem.training.client_work import LocalWork
from fedmem.training.one_by_one import OneByOne
from tests.banks import coins, make_view
from tests.tiny import tiny

RUNS, M = 16, 10


def view_of(in_effects: dict[str, float], falls: dict[str, float] | None = None, seed: int = 0, **changes: Any) -> View:
    """A view in which a hybrid has so large an effect of the coin on the probability, and so large a fall of accuracy.

    Keys are blocks of the source `received`.
    """
    rng = np.random.default_rng(seed)
    is_in = coins(RUNS, M, rng)
    noise = 0.02 * rng.standard_normal((RUNS, M))
    values: dict[str, FloatArray] = {}
    for block, effect in in_effects.items():
        p = np.clip(0.1 + effect * is_in + noise, 0.001, 0.999)
        values[f"swap_margin.received.{block}"] = np.log(p / (1 - p))[:, None]
        values[f"swap_correct.received.{block}"] = np.asarray(p > 0.5, dtype=np.float64)[:, None]
        accuracy = 0.8 - (falls or {}).get(block, 0.0) + 0.001 * rng.standard_normal((RUNS, 1))
        values[f"swap_accuracy.received.{block}"] = np.broadcast_to(accuracy, (RUNS, M))[:, None].copy()
    view = make_view(np.zeros((RUNS, M)), is_in, kind=["random_pattern"] * M, round_number=None, draws=200)
    return replace(view, signals=values, **changes)


def readings(view: View, metric: str, statistic: str | None = "probability") -> dict[int, Reading]:
    """The readings of a measure by block."""
    return {
        reading.labels.integer("swapped_block"): reading
        for _, reading in Localisation().tests(view)
        if reading.metric == metric and reading.labels.get("statistic") == statistic
    }


def test_the_share_lost_is_one_minus_a_ratio_of_sums() -> None:
    found = readings(view_of({"none": 0.8, "1": 0.6, "2": 0.0, "all": 0.0}), "memory_lost")
    assert found[1].value == pytest.approx(0.25, abs=0.01)
    assert found[2].value == pytest.approx(1.0, abs=0.01)
    assert found[0].value == pytest.approx(1.0, abs=0.01)
    assert found[1].low < found[1].value < found[1].high
    assert 0.001 < found[1].high - found[1].low < 0.01
    assert found[1].labels == Labels.of(block_source="received", swapped_block=1, statistic="probability")


def test_memorisation_of_hybrids_is_in_minus_out() -> None:
    view = view_of({"none": 0.8, "1": 0.6, "all": 0.0})
    found = {(one.labels.get("statistic"), one.labels.integer("swapped_block")): one for one in
             Localisation().estimate(view)}  # fmt: skip
    assert found["probability", 1].value == pytest.approx(0.6, abs=0.01)
    assert found[None, 1].value == 1.0
    assert found[None, 0].value == 0.0
    assert found["probability", 1].p < 0.05
    assert found["probability", 0].p > 0.05


def test_a_fall_of_accuracy_voids_the_share() -> None:
    view = view_of({"none": 0.8, "1": 0.1, "2": 0.1, "all": 0.1}, {"1": 0.019, "2": 0.021, "all": 0.5})
    found, change = readings(view, "memory_lost"), readings(view, "swap_accuracy_change", None)
    assert found[1].labels.get("void") is None
    assert found[1].value > 0.8
    assert found[2].labels.get("void") == "accuracy"
    assert math.isnan(found[2].value)
    assert found[0].labels.get("void") is None, "a swap of all blocks is a check and attributes nothing"
    assert change[2].value == pytest.approx(-0.021, abs=0.002)
    assert change[2].low < change[2].value < change[2].high < 0.0


def test_a_rise_of_accuracy_voids_nothing() -> None:
    view = view_of({"none": 0.8, "1": 0.1}, {"1": -0.1})
    assert readings(view, "memory_lost")[1].labels.get("void") is None


def test_without_test_examples_no_share_is_attributed() -> None:
    view = view_of({"none": 0.8, "1": 0.1, "all": 0.1})
    unknown = {name: np.full_like(values, np.nan) for name, values in view.signals.items() if "accuracy" in name}
    found = readings(replace(view, signals={**view.signals, **unknown}), "memory_lost")
    assert found[1].labels.get("void") == "unknown"
    assert math.isnan(found[1].value)
    assert found[0].value > 0.8


def test_a_memory_that_is_not_significant_has_no_share() -> None:
    found = readings(view_of({"none": 0.0, "1": 0.0}), "memory_lost")
    assert math.isnan(found[1].value)
    assert found[1].labels.get("resolved") == "no"


def test_only_the_summary_is_estimated() -> None:
    view = replace(view_of({"none": 0.8, "1": 0.1}), round=4)
    assert not Localisation().estimate(view)
    assert not Localisation().tests(view)


def test_examples_without_in_or_out_runs_are_left_out() -> None:
    view = view_of({"none": 0.8, "1": 0.4})
    signals = {name: values.copy() for name, values in view.signals.items()}
    signals["swap_margin.received.1"][view.audit.is_in[:, 0], 0, 0] = np.nan
    found = readings(replace(view, signals=signals), "memory_lost")
    assert found[1].n == M - 1


# --- through the real observer: networks of two blocks that hold their memories where a test puts them


@cache
def detectors() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights (m, d) and biases (m,) of one unit for each audit example that fires for it alone, and their answers."""
    federation = federations.build(scenario())
    inputs = federation.audit.examples.inputs.reshape(len(federation.audit), -1).astype(np.float64)
    everything = np.concatenate([inputs, federation.test.inputs.reshape(len(federation.test), -1)])
    # each example is alone in its own direction
    weights = np.linalg.pinv(inputs).T
    scores = everything @ weights.T
    own = np.diag(scores[: len(inputs)]).copy()
    np.fill_diagonal(scores, -np.inf)
    bias = -(own + scores.max(0)) / 2
    gain = 1.0 / (own + bias)
    assert (gain > 0).all()
    return weights * gain[:, None], bias * gain, np.eye(federation.num_classes)[federation.audit.examples.targets]


def scenario(**changes: Any) -> Any:
    return tiny(
        runs=8,
        rounds=1,
        clients=2,
        population=0,
        injections=[{"kind": "random_pattern", "per_client": 8}],
        dataset={"kind": "synthetic", "rows": 400, "test": 60},
        model={"kind": "mlp", "hidden": [16]},
        sampler={"kind": "everyone"},
        signals=[{"kind": "block_swap", "sources": ["received", "initial", "other_level"]}],
        estimators=[{"kind": "localisation"}],
        observe={"every": 1},
        **changes,
    )


def lookup(first: BoolArray, second: BoolArray, run: int) -> Params:
    """A network whose first block has a unit for some examples, and whose second has the answer of some.

    How sure it is depends on the run and on the example: values that are all alike are no certainty.
    """
    weights, bias, answers = detectors()
    strength = 3.0 + 0.3 * np.random.default_rng(run).standard_normal(len(answers))
    values = {
        "hidden1.weight": weights * first[:, None],
        "hidden1.bias": np.where(first, bias, -1.0),
        "output.weight": (answers * (strength * second)[:, None]).T,
        "output.bias": np.zeros(answers.shape[1]),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in values.items()}


@cache
def rows_of(memory: str, received: str = "nothing") -> list[Measurement]:
    """Rows of a bank that the observer made of clients whose memory is in one block, and an aggregate without any."""
    chosen = scenario()
    federation = federations.build(chosen)
    executor = OneByOne(federation.model, chosen.client, federation.store)
    work = LocalWork(federation, chosen.client, chosen.training_seed)
    observer = _Observer(chosen, federation, executor, work, tuple(range(8)))
    everything = np.ones(len(federation.audit), dtype=bool)
    for run in range(8):
        is_in = federation.audit.is_in[run]
        models = {
            "first": lookup(is_in, everything, run),
            "second": lookup(everything, is_in, run),
            "nothing": lookup(everything, ~everything, run)
            if memory == "second"
            else lookup(~everything, everything, run),
        }
        aggregate = models["nothing"]
        local = [
            Transition.at_client(
                run=run, round_number=1, client=client, before=models[received], sent=models[memory],
                kept=models[memory], num_examples=10, report={},
            )
            for client in range(2)
        ]  # fmt: skip
        observer.see(local)
        observer.see(
            [Transition.at_server(run=run, round_number=1, before=aggregate, after=aggregate, sizes={0: 1, 1: 1})]
        )
    bank = Bank(
        audit=federation.audit,
        evidence=tuple(observer.evidence),
        references=(),
        participation=(),
        seed=1,
        signals=tuple(observer.signals),
    )
    return estimate(bank, chosen.estimators, 100, chosen.signals)


def shares(rows: list[Measurement], source: str, level: str = "local") -> dict[int, float]:
    return {
        row.reading.labels.integer("swapped_block"): row.reading.value
        for row in rows
        if (row.reading.metric, row.level) == ("memory_lost", level)
        and row.reading.labels.has(Labels.of(block_source=source, statistic="probability"))
    }


@pytest.mark.parametrize(("memory", "expected"), [("first", {1: 1.0, 2: 0.0}), ("second", {1: 0.0, 2: 1.0})])
def test_the_observer_finds_the_block_that_holds_the_memory(memory: str, expected: dict[int, float]) -> None:
    rows = rows_of(memory)
    for source in ("received", "other_level"):
        found = shares(rows, source)
        assert found == pytest.approx({**expected, 0: 1.0}, abs=1e-5)
    assert shares(rows, "initial")[0] == 1.0, "the initial model of all runs is the same"
    assert all(math.isnan(value) for value in shares(rows, "received", "global").values())


def test_a_source_that_holds_the_memory_too_loses_nothing() -> None:
    rows = rows_of("second", received="second")
    assert shares(rows, "received") == pytest.approx({0: 0.0, 1: 0.0, 2: 0.0}, abs=1e-6)
    assert shares(rows, "other_level")[2] == pytest.approx(1.0, abs=1e-5), "sources are not mixed up"


def test_the_owners_block_brings_the_memory_to_the_aggregate() -> None:
    rows = rows_of("second")
    found = {
        row.reading.labels.integer("swapped_block"): row.reading.value
        for row in rows
        if (row.reading.metric, row.level) == ("swapped_memorisation", "global")
        and row.round is None
        and row.reading.subject == "random_pattern"
        and row.reading.labels
        == Labels.of(block_source="other_level", swapped_block=row.reading.labels.integer("swapped_block"))
    }
    assert found == pytest.approx({0: 1.0, 1: 0.0, 2: 1.0}, abs=0.3)
    assert found[0] == found[2]
    assert found[1] == 0.0
