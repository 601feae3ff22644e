"""Sharded training and the unlearner `sisa` in trained scenarios: which parts of a model a phase may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmem
from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import UnlearningContext
from fedmem.engines.lockstep import Lockstep
from fedmem.execution.executors import executor_of
from fedmem.execution.plan import plan
from fedmem.execution.run import folder_of, run
from fedmem.federation.build import build
from fedmem.federation.phases import rewind, start_from
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import LocalWork
from fedmem.unlearners.sisa import Sisa
from tests.execution.test_unlearning import is_in, phase
from tests.narrowing import present

SAVED = {"save": {"models": {"rounds": [0], "levels": ["global"]}}}
SHARDED: dict[str, Any] = {
    "client_shards": 2,
    "save": {"params": True},
    "client": {"kind": "sgd", "lr": 0.2, "batch_size": 8, "momentum": 0.5, "weight_decay": 0.01},
}
"""Client 1, which forgets, is in shard 1 with client 3; clients 0, 2 and 4 are in shard 0."""


def forgetting(**changes: Any) -> Scenario:
    of_phase = {**SAVED, **changes.pop("of_phase", {})}
    return phase({"kind": "sisa"}, **{**SHARDED, "of_phase": of_phase, **changes})


def before_and_after(scenario: Scenario, out: Path) -> tuple[list[Params], list[Params]]:
    """The models of each run at the end of the first training, and after the unlearner."""
    folder = run(scenario, out=out)
    last = read(folder_of(present(scenario.previous), out)).params()
    after = {one.run: dict(one.params) for one in read(folder).models()}
    return [{name: value[i] for name, value in last.items()} for i in range(4)], [after[i] for i in range(4)]


def changed(before: Params, after: Params) -> set[str]:
    """The constituents with a changed entry."""
    names = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {name.split(".")[1] if name.startswith("constituents") else name for name in names}


def first_training_again(scenario: Scenario, runs: list[int]) -> tuple[Params, ...]:
    """The models of the first training, had nobody ever trained on what is forgotten: trained by the engine."""
    previous = present(scenario.previous)
    federation = rewind(start_from(build(scenario), ()))
    work = LocalWork(federation, previous.client, previous.training_seed)
    return Lockstep(previous, federation, executor_of(previous, federation), work, None).train(runs, "rule").params


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    scenario, out = forgetting(), tmp_path_factory.mktemp("sisa")
    run(scenario, out=out)
    return scenario, out


def test_other_shards_and_other_runs_keep_every_bit(trained: tuple[Scenario, Path]) -> None:
    scenario, out = trained
    before, after = before_and_after(scenario, out)
    ins = is_in(folder_of(scenario, out))
    assert [changed(*pair) for pair in zip(before, after, strict=True)] == [{"1"} if one else set() for one in ins]
    assert ins.tolist().count(True) == 2


def test_retrained_shards_never_saw_the_examples(trained: tuple[Scenario, Path]) -> None:
    """The unlearned model is that of a first training with replacement rows, to the last bit."""
    scenario, out = trained
    _, after = before_and_after(scenario, out)
    for one, other in zip(after, first_training_again(scenario, [0, 1, 2, 3]), strict=True):
        assert changed(one, other) == set()


def test_evidence_is_of_all_constituents_together(trained: tuple[Scenario, Path]) -> None:
    """Owners and aggregates are evaluated by the mean of probabilities, computed here by hand in float64."""
    scenario, out = trained
    folder = run(forgetting(of_phase={"save": {"models": {"rounds": [1], "levels": ["local", "global"]}}}), out=out)
    bank = fedmem.read(folder)
    federation = build(scenario)
    inputs = torch.from_numpy(federation.audit.examples.inputs).double().flatten(1)
    labels = torch.from_numpy(federation.audit.examples.targets)[:, None]
    stored = {
        (one.level, one.run[i], one.client[i]): one.loss[i]
        for one in fedmem.results.read.read_bank(folder).evidence
        if one.set == "audit" and one.round == 1
        for i in range(len(one.run))
    }
    assert {level for level, _, _ in stored} == {"local", "global"}
    for model in bank.models():
        params = {name: value.double() for name, value in model.params.items()}
        probabilities = []
        for shard in (0, 1):
            weight = {name.split(".", 2)[2]: value for name, value in params.items() if f".{shard}." in name}
            hidden = torch.relu(inputs @ weight["hidden1.weight"].T + weight["hidden1.bias"])
            logits = hidden @ weight["output.weight"].T + weight["output.bias"]
            probabilities.append(logits.softmax(1).gather(1, labels)[:, 0])
        expected = -torch.log((probabilities[0] + probabilities[1]) / 2)
        np.testing.assert_allclose(stored[model.level, model.run, model.client], expected.numpy(), atol=2e-5)


def test_the_plan_counts_trainings_of_one_shard(trained: tuple[Scenario, Path]) -> None:
    """Clients 1 and 3 in three rounds of the two runs that forget; three more clients without shards."""
    assert plan(trained[0]).unlearning.trainings == 2 * 3 * 2
    assert plan(forgetting(client_shards=1)).unlearning.trainings == 2 * 3 * 5
    assert "12 local trainings again" in plan(trained[0]).unlearning.text(20)


def test_with_one_shard_everything_is_trained_again(tmp_path: Path) -> None:
    """The model of `retrain` in distribution, with the cohorts and batches of the first training."""
    scenario = forgetting(client_shards=1)
    before, after = before_and_after(scenario, tmp_path)
    ins = is_in(folder_of(scenario, tmp_path))
    assert [bool(changed(*pair)) for pair in zip(before, after, strict=True)] == ins.tolist()
    for one, other in zip(after, first_training_again(scenario, [0, 1, 2, 3]), strict=True):
        assert changed(one, other) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({"server": "messages"}, 0.0), ({"executor": "one_by_one", "workers": 1}, 1e-5)],
    ids=["messages", "one by one"],
)
def test_other_ways_to_train_give_the_same_models(
    trained: tuple[Scenario, Path], tmp_path: Path, changes: dict[str, Any], tolerance: float
) -> None:
    """Flower's own average of whole models would dilute each constituent."""
    other = before_and_after(forgetting(speed=changes), tmp_path)
    for models, others in zip(before_and_after(*trained), other, strict=True):
        for one, same in zip(models, others, strict=True):
            for name, value in one.items():
                torch.testing.assert_close(same[name], value, rtol=0, atol=tolerance)


@dataclass(frozen=True, kw_only=True)
class NextShard(Sisa):
    """A broken one that trains the wrong shard again."""

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The shard after that of client 1, in runs that forget."""
        shards = context.client_shards
        trained = context.train_again({one.run: [0, 2, 4] for one in context.runs if one.forgotten})
        names = {shards.entry(0, name) for name in shards.constituent(0, context.runs[0].before)}
        return [
            {
                name: trained[one.run][name] if one.forgotten and name in names else value
                for name, value in one.before.items()
            }
            for one in context.runs
        ]


@pytest.mark.slow
def test_nothing_is_left_where_the_right_shard_is_trained(tmp_path: Path) -> None:
    """Residual memorisation at round 0 over 16 runs, of which half had the examples."""
    residuals: list[tuple[float, float]] = []
    for kind in ("sisa", f"{__name__}:NextShard"):
        scenario = phase(
            {"kind": kind},
            client_shards=2,
            client={"kind": "sgd", "lr": 0.5, "batch_size": 8, "epochs": 8},
            runs=16,
            dataset={"kind": "digits"},
            model={"kind": "mlp", "hidden": [64]},
            injections=[
                {"kind": "mislabelled", "label": "forget", "clients": [1], "per_client": 12, "included": "together"}
            ],
            observe={"every": 3, "levels": ["global"]},
            save={"params": True},
            of_phase={"estimators": [{"kind": "memorisation"}]},
        )
        table = fedmem.read(run(scenario, out=tmp_path)).measurements
        at = (table.scope == "round") & (table["round"] == 0) & (table.metric == "memorisation")
        row = table[at & (table.statistic == "probability")].iloc[0]
        residuals.append((row.low, row.high))
    right, wrong = residuals
    assert right[0] <= 0 <= right[1]
    assert wrong[0] > 0.02 > right[1]
