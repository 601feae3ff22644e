"""Tests of `fedmem/execution/unlearning.py`: unlearners in phases that are trained, stored, resumed and measured."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Evidence
from fedmem.contracts.unlearner import UnlearningContext
from fedmem.errors import RunError, ScenarioError
from fedmem.execution.measuring import measure
from fedmem.execution.phases import models_before
from fedmem.execution.run import folder_of, run
from fedmem.results.read import read, read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.unfolding import last_phase
from tests.execution.sharding_helpers import Stopping, written
from tests.narrowing import present
from tests.tiny import tiny

BASE: dict[str, Any] = {
    "rounds": 3,
    "injections": [
        {"kind": "mislabelled", "label": "forget", "clients": [1], "per_client": 4, "included": "together"},
        {"kind": "typical", "per_client": 1},
    ],
    "sampler": {"kind": "everyone"},
    "observe": {"every": 1},
    "save": {"params": True, "models": {"rounds": [1, 2, 3], "levels": ["local", "global"]}},
}


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Looks at the client that forgets, and then does what it must not."""

    how: str = "raise"

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """Does it."""
        models = [each.before for each in context.runs]
        each = next(each for each in context.runs if each.forgotten)
        context.gradient(each.run, 1, each.before, each.forgotten[1])
        if self.how == "raise":
            raise ValueError("no")
        if self.how == "nan":
            models[1] = {name: value * float("nan") for name, value in models[1].items()}
        if self.how == "shape":
            models[1] = {name: value[:1] for name, value in models[1].items()}
        return models[:-1] if self.how == "few" else models


def phase(unlearner: dict[str, Any] | None, rounds: int = 1, **changes: Any) -> Scenario:
    then = {"rounds": rounds, "forget": {"kinds": ["forget"]}, "save": {"params": True}}
    then |= {} if unlearner is None else {"unlearner": unlearner}
    then |= changes.pop("of_phase", {})
    return last_phase(tiny(**{**BASE, "then": [then], **changes}))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the first training."""
    out = tmp_path_factory.mktemp("unlearning")
    run(tiny(**BASE), out=out)
    return out


def evidence(folder: Path) -> dict[tuple[int, str], Evidence]:
    """The evidence of the aggregate by round and set."""
    return {(one.round, one.set): one for one in read_bank(folder).evidence if one.level == "global"}


def is_in(folder: Path) -> Any:
    audit = read_bank(folder).audit
    return audit.is_in[:, audit.kind == "forget"][:, 0]


def test_round_0_is_unlearned_and_models_before_are_beside_it(first: Path) -> None:
    scenario = phase({"kind": "gradient_ascent"})
    found = evidence(run(scenario, out=first))
    assert scenario.previous is not None
    before = evidence(folder_of(scenario.previous, first))
    for name in ("audit", "test"):
        assert np.array_equal(found[0, f"{name}_before"].margin, before[3, name].margin)
        assert np.array_equal(found[0, f"{name}_before"].correct, before[3, name].correct)
    changed = (found[0, "audit"].margin != before[3, "audit"].margin).any(1)
    # nobody forgets anything in the other runs, whose models stay to the last bit
    assert changed.tolist() == is_in(folder_of(scenario, first)).tolist()


def test_ascent_raises_the_loss_of_forgotten_examples(first: Path) -> None:
    folder = run(phase({"kind": "gradient_ascent", "steps": 3, "stop_at": "steps"}), out=first)
    found = evidence(folder)
    forgotten, ins = read_bank(folder).audit.kind == "forget", is_in(folder)
    change = (found[0, "audit"].loss - found[0, "audit_before"].loss)[ins][:, forgotten]
    # ascent is on their mean loss
    assert (change.mean(1) > 0).all()


@pytest.mark.slow
def test_fine_tuning_is_a_phase_without_an_unlearner(first: Path) -> None:
    with_one, without = (evidence(run(phase(each), out=first)) for each in ({"kind": "fine_tune"}, None))
    assert set(with_one) - set(without) == {(0, "audit_before"), (0, "test_before")}
    for key, one in without.items():
        if key[0] == 0:
            assert np.array_equal(one.margin, with_one[key].margin)
    assert set(without) <= set(with_one)


def test_retraining_starts_from_the_initial_weights(first: Path) -> None:
    scenario = phase({"kind": "retrain"})
    found = evidence(run(scenario, out=first))
    assert scenario.previous is not None
    before = evidence(folder_of(scenario.previous, first))
    assert np.array_equal(found[0, "audit"].margin, before[0, "audit"].margin)


def test_fed_eraser_reproduces_runs_in_which_nobody_forgets(first: Path) -> None:
    """Every round and every step: the aggregate of the run but for rounding."""
    folder = run(phase({"kind": "fed_eraser", "every": 1, "share": 1.0}), out=first)
    found, ins = evidence(folder), is_in(folder)
    gap = np.abs(found[0, "audit"].margin - found[0, "audit_before"].margin).max(1)
    assert (gap[~ins] < 1e-4).all()
    assert (gap[ins] > 1e-2).all()


def test_pga_leaves_runs_in_which_nobody_forgets(first: Path) -> None:
    folder = run(phase({"kind": "pga", "steps": 2}), out=first)
    found = evidence(folder)
    changed = (found[0, "audit"].margin != found[0, "audit_before"].margin).any(1)
    assert changed.tolist() == is_in(folder).tolist()


def test_scrubbing_all_blocks_gives_the_initial_weights(first: Path) -> None:
    scenario = phase({"kind": "scrub", "blocks": [1, 2]})
    folder = run(scenario, out=first)
    found, ins = evidence(folder), is_in(folder)
    assert scenario.previous is not None
    initial = evidence(folder_of(scenario.previous, first))[0, "audit"].margin
    assert np.array_equal(found[0, "audit"].margin[ins], initial[ins])
    assert np.array_equal(found[0, "audit"].margin[~ins], found[0, "audit_before"].margin[~ins])


def test_scrubbing_a_block_that_is_not_there_is_refused(first: Path) -> None:
    with pytest.raises(ScenarioError, match=r"resets block 3, but mlp has 2 blocks; use 1 to 2"):
        run(phase({"kind": "scrub", "blocks": [1, 3]}), out=first)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["example", "client"])
def test_scrubbing_tied_units_changes_no_watched_output(tmp_path: Path, unit: str) -> None:
    """Entries into and out of some units are initial again in the runs that trained on the examples."""
    tied = {"layers": ["activation1"], "fixed": 0.5, "tied": 0.25, "unit": unit}
    saved = {"save": {"models": {"rounds": [0]}}}
    scenario = phase({"kind": "scrub"}, tied_dropout=tied, save={"params": True}, of_phase=saved, rounds=1)
    folder = run(scenario, out=tmp_path)
    found, ins = evidence(folder), is_in(folder)
    assert np.array_equal(found[0, "audit"].margin, found[0, "audit_before"].margin)
    assert scenario.previous is not None
    before = read(folder_of(scenario.previous, tmp_path))
    for one in read(folder).models():
        model, old = one.params, {name: value[one.run] for name, value in before.params().items()}
        changed = [np.flatnonzero((model["output.weight"] != old["output.weight"]).any(0)).tolist()]
        changed.append(np.flatnonzero(model["hidden1.bias"] != old["hidden1.bias"]).tolist())
        assert changed[0] == changed[1]
        # one unit of the client, or up to four of its examples, of the four that are not fixed
        assert bool(changed[0]) == bool(ins[one.run])
        assert len(changed[0]) <= 4
        assert unit == "example" or len(changed[0]) == int(ins[one.run])


def test_a_forgotten_client_gives_all_its_rows_and_leaves(first: Path) -> None:
    forget = {"forget": {"clients": [2]}, "unlearner": {"kind": "fed_eraser", "every": 1, "share": 1.0}}
    folder = run(phase(None, of_phase=forget), out=first)
    found = evidence(folder)
    assert (np.abs(found[0, "audit"].margin - found[0, "audit_before"].margin).max(1) > 1e-3).all()
    assert 2 not in {part.client for part in read_bank(folder).participation}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fed_eraser", "gradient_ascent", "sisa"])
def test_shards_and_a_resumed_phase_give_the_same_bytes(first: Path, tmp_path: Path, kind: str) -> None:
    whole = written(run(phase({"kind": kind}), out=first))
    shutil.copytree(first / "tiny" / tiny(**BASE).id, tmp_path / "tiny" / tiny(**BASE).id)
    scenario = phase({"kind": kind}, speed={"shard": 2, "workers": 1})
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path, listeners=[Stopping(after=1)])
    again = Stopping()
    assert written(run(scenario, out=tmp_path, listeners=[again])) == whole
    assert len(again.shares) == 1, "one shard of one round was missing"


@pytest.mark.slow
def test_measuring_again_gives_the_same_table(first: Path) -> None:
    more = {"estimators": [{"kind": "memorisation"}, {"kind": "unlearning"}]}
    folder = run(phase({"kind": "gradient_ascent"}, of_phase=more), out=first)
    before = (folder / "measurements.parquet").read_bytes()
    assert {row.reading.metric for row in read(folder).rows()} >= {"memorisation_change", "test_accuracy_change"}
    measure(folder)
    assert (folder / "measurements.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raise", r"run \d, client 1: unlearner .*Broken failed in unlearn: ValueError: no"),
        ("nan", r"run 1: .*not finite; lower lr"),
        ("shape", r"run 1: .*other entries, shapes or types"),
        ("few", "it returned 3 models, should be 4"),
    ],
)
def test_an_unlearner_that_fails_is_named_with_its_place(first: Path, how: str, says: str) -> None:
    scenario = phase({"kind": f"{__name__}:Broken", "how": how})
    with pytest.raises(RunError, match=says):
        run(scenario, out=first)
    assert not folder_of(scenario, first).exists()


def test_a_phase_after_an_unlearned_one_has_its_last_models(first: Path) -> None:
    scenario = last_phase(
        tiny(
            **BASE,
            then=[{"rounds": 1, "forget": {"kinds": ["forget"]}, "unlearner": {"kind": "retrain"}}, {"rounds": 1}],
        )
    )
    found = evidence(run(scenario, out=first))
    assert scenario.previous is not None
    before = folder_of(scenario.previous, first)
    assert np.array_equal(found[0, "audit"].margin, evidence(before)[1, "audit"].margin)
    assert len(models_before(scenario, before)) == 4


@pytest.mark.slow
def test_a_whole_client_is_verified_by_its_coin(tmp_path: Path) -> None:
    """Runs that left the client out are its retrained models: there, nothing is forgotten."""
    changes: dict[str, Any] = {
        "runs": 8,
        "leave_out": {"clients": "all"},
        "injections": [{"kind": "typical", "per_client": 2}],
        "estimators": [{"kind": "client_influence"}],
    }
    of_phase = {"forget": {"clients": [2]}, "estimators": [{"kind": "client_influence"}]}
    ascent = {"kind": "gradient_ascent", "steps": 3, "stop_at": "steps"}
    folder = run(phase(ascent, of_phase=of_phase, **changes), out=tmp_path)
    found, took_part = evidence(folder), present(read_bank(folder).audit.client_in)[:, 2]
    assert 0 < took_part.sum() < 8
    changed = (found[0, "audit"].margin != found[0, "audit_before"].margin).any(1)
    assert changed.tolist() == took_part.tolist()
    retrained = run(phase({"kind": "retrain"}, of_phase=of_phase, **changes), out=tmp_path)
    start = evidence(retrained)[0, "audit"].margin
    assert (start == start[:1]).all()
    for each in (folder, retrained):
        table = read(each).measurements
        of_client = table[(table.metric == "client_influence") & (table.subject == "client 2")]
        assert {"own", "own_in"} <= set(of_client.statistic)
        assert of_client.n.between(4, 8).all()
