"""Tests of `fedmem/signals/logits.py`, and of signals that are read on another set than the audit set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.evidence import Bank
from fedmem.errors import ComponentError, RunError, ScenarioError
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.execution.bank import simulate
from fedmem.federation import build as federations
from fedmem.observation.signals import rows_of_set
from fedmem.results.read import read_bank
from fedmem.signals.logits import Logits
from tests.narrowing import present
from tests.results.read_helpers import write
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny


def read_at(bench: Bench, name: str = "output.bias", value: float | None = None) -> dict[str, np.ndarray]:
    params = bench.params()
    if value is not None:
        params[name][:] = value
    blocks = bench.reader.read([bench.transition(params)])
    return {block.name: block.values for block in blocks}


def test_logits_are_those_of_drawn_test_rows_and_centred() -> None:
    bench = Bench([{"kind": "logits", "rows": 30}])
    params = bench.params()
    blocks = bench.reader.read([bench.transition(params)])
    rows = present(blocks[0].rows)
    logits = bench._executor.logits([params], bench.federation.test.inputs[rows])[0]
    expected = logits - logits.mean(axis=1, keepdims=True)
    assert [block.name for block in blocks] == [f"logit.{c}" for c in range(bench.federation.num_classes)]
    for c, block in enumerate(blocks):
        assert (block.set, str(block.values.dtype)) == ("test", "float32")
        np.testing.assert_allclose(block.values[0], expected[:, c], rtol=1e-6, atol=1e-6)


def test_a_number_added_to_all_logits_changes_nothing() -> None:
    bench = Bench([{"kind": "logits"}])
    first, second = (read_at(bench, value=value) for value in (0.0, 3.0))
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], atol=1e-5)


def test_a_diverged_model_has_no_logits() -> None:
    bench = Bench([{"kind": "logits"}], model={"kind": "logistic"})
    assert all(np.isnan(values).all() for values in read_at(bench, value=math.nan).values())


def test_more_rows_contain_fewer_and_no_more_than_there_are() -> None:
    federation = Bench().federation
    some, more, every = (present(rows_of_set(federation, 3, "test", count)) for count in (10, 40, 1000))
    assert set(some) < set(more) < set(every)
    assert every.tolist() == list(range(100))
    assert present(rows_of_set(federation, 4, "test", 10)).tolist() != some.tolist()
    assert rows_of_set(federation, 3, "audit", 10) is None


@pytest.fixture(scope="module")
def trained() -> Bank:
    scenario = tiny(signals=[{"kind": "logits", "rows": 30}], rounds=2, observe={"every": 1})
    return simulate(scenario, federations.build(scenario)).bank


def test_views_have_logits_that_give_the_margins(trained: Bank) -> None:
    bank = trained
    rows = present(bank.signals[0].rows)
    labels = bank.targets["test"][rows]
    count = 0
    for view in views(bank, permute_coins(bank.audit, 2, np.random.default_rng(0))):
        assert not view.signals, "no value of test rows may pass for one of audit examples"
        test = view.sets["test"]
        for pair in range(len(test.models.round)):
            logits = np.stack([present(test.signal(pair, f"logit.{c}")) for c in range(4)], axis=-1)
            label = np.take_along_axis(logits, np.broadcast_to(labels[:, None], (*logits.shape[:2], 1)), axis=2)[..., 0]
            others = np.where(np.arange(4) == labels[:, None], -np.inf, logits)
            margin = label - np.log(np.exp(others).sum(axis=2))
            np.testing.assert_allclose(margin, test.margin(pair)[:, rows], atol=1e-4)
            count += 1
        assert test.signal(0, "unknown") is None
    assert count > 5


def test_a_run_folder_has_them_apart_from_other_signals(trained: Bank, tmp_path: Path) -> None:
    write(tmp_path / "with", trained, federation=federations.build(tiny()))
    stored = read_bank(tmp_path / "with").signals
    assert [block.values.tobytes() for block in stored] == [block.values.tobytes() for block in trained.signals]
    run = fedmem.read(tmp_path / "with")
    assert set(run.set_signals["set"]) == {"test"}
    assert sorted(set(run.set_signals["subject"])) == present(stored[0].rows).tolist()
    with pytest.raises(RunError, match="no signals; add"):
        _ = run.signals
    write(tmp_path / "without")
    with pytest.raises(RunError, match=r"no signals on test or reference data; .*logits"):
        _ = fedmem.read(tmp_path / "without").set_signals


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Logits):
    """Declares a set that is not there."""

    set = "train"

    def values(self, context):  # type: ignore[no-untyped-def]
        return {}


def test_texts_missing_test_rows_and_unknown_sets_are_refused() -> None:
    texts = fedmem.load_scenario("text_quickstart", ["rounds=2", "signals=[{kind: logits}]"])
    with pytest.raises(ScenarioError, match=r"one value for each class of an example, but .* has passages"):
        federations.require(texts, federations.load(texts))
    scenario = tiny(signals=[{"kind": "logits"}])
    data = federations.load(scenario)
    with pytest.raises(ScenarioError, match="logits is read on test examples, but synthetic has none"):
        federations.require(scenario, replace(data, test=data.test.take(np.arange(0))))
    with pytest.raises(ComponentError, match="declares set = 'train'; choose from: audit, test, population"):
        rows_of_set(Bench().federation, 3, Elsewhere().set, 5)


def test_no_injections_are_needed_to_read_test_rows() -> None:
    assert tiny(signals=[{"kind": "logits"}], injections=[], population=0).signals
