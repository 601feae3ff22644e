"""Tests of `fedmem/engines/shared_training.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.engines.shared_training import join_work, split_results
from fedmem.execution.many_scenarios import run_all
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import LocalWork, TrainedWork, Work
from fedmem.training.stacked import Stacked
from tests.execution.many_scenarios_helpers import runner_alone, small


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scenario], dict[str, bytes]]:
    """What a scenario writes that is run by itself."""
    return runner_alone(tmp_path_factory.mktemp("alone"))


def test_equal_work_of_scenarios_is_trained_in_one_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other way round: without joining, the test of equal bytes would hold as well."""
    sizes: list[int] = []
    attempt = Stacked.attempt_all

    def counting(self: Stacked, work: Work) -> Any:
        sizes.append(len(work))
        return attempt(self, work)

    monkeypatch.setattr(Stacked, "attempt_all", counting)
    run_all([small(), small(strategy={"kind": "fedmedian"}), small(seed=4)], out=tmp_path, jobs=1)
    assert sizes == [3 * 4 * 3] * 2  # scenarios x runs x cohort, each round


def work_of(scenario: Scenario, round_number: int, run: Sequence[int], client: Sequence[int]) -> tuple[Work, Any]:
    federation = build(scenario)
    local = LocalWork(federation, scenario.client, scenario.seed)
    models = {name: torch.stack([value, value * 0.5]) for name, value in federation.initial.items()}
    places = np.arange(len(run)) % 2
    return local.of(round_number, np.array(run), np.array(client), models, places), federation


def test_joined_work_gives_each_its_own() -> None:
    """Works of other rounds, sizes, models and stores; a client in the middle fails and belongs to the second."""
    first, one = work_of(small(), 1, [0, 0, 1], [0, 3, 4])
    second, other = work_of(small(seed=9, dataset={"kind": "synthetic", "rows": 700}), 2, [2, 3], [1, 2])
    assert first.batches.shape[1] != second.batches.shape[1]
    client = Sgd(lr=0.2, batch_size=8)
    alone = [Stacked(f.model, client, f.store).train_all(w) for f, w in ((one, first), (other, second))]
    both = join_work([first, second], [0, len(one.store)])
    store = type(one.store).concatenate([one.store, other.store])
    done = Stacked(one.model, client, store).train_all(both)
    parts = list(split_results([first, second], done, {}))
    for (part, failed), expected, work in zip(parts, alone, (first, second), strict=True):
        assert part is not None
        assert part.work is work
        assert not failed
        assert all(torch.equal(part.sent[name], value) for name, value in expected.sent.items())
        assert np.array_equal(part.loss, expected.loss)
    left = done.take(np.array([0, 1, 2, 4]))
    (whole, none), (part, failed) = split_results([first, second], left, {3: "broke"})
    assert whole is not None
    assert not none
    assert failed == {0: "broke"}
    assert isinstance(part, TrainedWork)
    assert part.work.client.tolist() == [2]
    assert all(torch.equal(part.sent[name], value[1:]) for name, value in alone[1].sent.items())
    assert [answer[0] for answer in split_results([first, second], None, dict.fromkeys(range(5), "x"))] == [None, None]
