"""Tests of `fedmem/signals/_cohort.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.signals._cohort import Coalitions, coalition_model, mean_model, senders_of, shares_of
from tests.signals.cohort_helpers import mean_of, round_of, utility
from tests.signals.signals_helpers import Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_senders_are_those_of_the_aggregate(bench: Bench) -> None:
    models = {3: bench.params(1), 1: bench.params(2)}
    context = round_of(bench, models, before=bench.params(), sizes={3: 4, 1: 6})
    assert [sender.client for sender in senders_of(context, 0)] == [1, 3]
    assert senders_of(round_of(bench, {}, before=bench.params()), 0) == ()


def test_another_aggregate_is_refused(bench: Bench) -> None:
    models = {0: bench.params(1), 1: bench.params(2)}
    equal = mean_of(list(models.values()), [1, 1])
    context = round_of(bench, models, before=bench.params(), sizes={0: 1, 1: 9}, after=equal)
    with pytest.raises(ComponentError, match=r"round 1: the aggregate is not the weighted mean"):
        senders_of(context, 0)


def test_an_aggregate_that_has_diverged_is_no_error(bench: Bench) -> None:
    broken = {name: torch.full_like(value, torch.nan) for name, value in bench.params().items()}
    context = round_of(bench, {0: broken, 1: bench.params(2)}, before=bench.params())
    assert len(senders_of(context, 0)) == 2


def test_an_aggregate_of_one_client_is_refused(bench: Bench) -> None:
    context = round_of(bench, {0: bench.params(1)}, before=bench.params())
    context.transitions = [bench.transition(bench.params(1), client=0)]
    with pytest.raises(ComponentError, match="layers of their own"):
        senders_of(context, 0)


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_weights_of_coalitions_sum_to_one(bench: Bench, weighting: str) -> None:
    before, models = bench.params(), {k: bench.params(k + 1) for k in range(3)}
    sizes = {0: 5, 1: 3, 2: 2}
    context = round_of(bench, models, before=before, sizes=sizes)
    senders = senders_of(context, 0)
    assert shares_of(senders, weighting).tolist() == ([0.5, 0.3, 0.2] if weighting == "size" else [1 / 3] * 3)
    part = coalition_model(before, senders, np.array([True, False, True]), weighting)
    expected = mean_of([models[0], models[2]], [5, 2] if weighting == "size" else [1, 1])
    assert all(torch.equal(part[name], value) for name, value in expected.items())
    assert coalition_model(before, senders, np.zeros(3, dtype=bool), weighting) is before


def test_clients_without_rows_weigh_the_same(bench: Bench) -> None:
    senders = senders_of(round_of(bench, {0: bench.params(1), 1: bench.params(1)}, before=bench.params()), 0)
    empty = [type(sender)(**{**vars(sender), "num_examples": 0}) for sender in senders]
    assert shares_of(empty, "size").tolist() == [0.5, 0.5]


def test_whole_numbers_are_medians(bench: Bench) -> None:
    models = [{"w": torch.tensor([float(k)]), "count": torch.tensor([k])} for k in (1, 2, 9)]
    senders = [bench.transition(model, client=k, level="local") for k, model in enumerate(models)]
    mean = mean_model(senders, np.full(3, 1 / 3))
    assert mean["w"].item() == pytest.approx(4.0)
    assert mean["count"].item() == 2


def test_each_coalition_is_evaluated_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before, models = bench.params(), {k: bench.params(k + 1) for k in range(3)}
    context = round_of(bench, models, before=before)
    count: list[int] = []
    answers_of = context.answers_of

    def watched(models: Any, examples: Any) -> Any:
        count.append(len(models))
        return answers_of(models, examples)

    monkeypatch.setattr(context, "answers_of", watched)
    worth = Coalitions(context, before, senders_of(context, 0)).worth_of
    accuracy, loss = worth(0)([0, 5]), worth(1)([5, 0, 7])
    assert count == [2, 1]
    np.testing.assert_allclose(accuracy[0], utility(bench, before)[0])
    np.testing.assert_allclose(loss[0], utility(bench, mean_of([models[0], models[2]], [1, 1]))[1], atol=1e-5)
