"""A pilot picks the cohorts of all runs, and nothing of their coins reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmem
from fedmem.contracts.sampler import Pilot
from fedmem.errors import RunError, ScenarioError
from fedmem.estimation.estimates import estimate
from fedmem.execution import sharding
from fedmem.execution.bank import pilot_of, simulate
from fedmem.execution.run import measure, run
from fedmem.execution.shard_store import Shards, place_of
from fedmem.federation.build import build
from fedmem.federation.roster import Roster
from fedmem.processes import can_fork
from fedmem.reporting.table import _Table, table
from tests.execution.pilot_helpers import GREEDY, picked, rounds_of, small
from tests.execution.sharding_helpers import SMALL, Stopping, written
from tests.narrowing import instance
from tests.tiny import tiny

CAREFUL: dict[str, Any] = {"sampler": {"kind": "optimal", "expected": 2.0}, "roster": "pilot"}
needs_forks = pytest.mark.skipif(not can_fork(), reason="forks are for Linux")


# --- data -------------------------------------------------------------------------------------------------------------


# --- who is picked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [GREEDY, CAREFUL], ids=["power_of_choice", "optimal"])
def test_pilot_depends_on_its_own_coins_only(changes: dict[str, Any]) -> None:
    asked = tiny(**changes, rounds=8)
    federation = build(asked)
    whole = federation.pilot
    assert whole is not None

    def cohorts(turned: slice) -> list[tuple[int, ...]]:
        coins = whole.audit.is_in.copy()
        coins[turned] = ~coins[turned]
        led = replace(
            federation,
            audit=replace(federation.audit, is_in=coins[:4]),
            pilot=replace(
                whole,
                audit=replace(whole.audit, is_in=coins),
                replacement=np.where(whole.replacement < 0, 0, whole.replacement),
            ),
        )
        return rounds_of(pilot_of(asked, led))

    plain = cohorts(slice(0, 0))
    assert cohorts(slice(0, 4)) == plain
    assert cohorts(slice(4, 5)) != plain


def test_server_paths_and_executors_give_equal_pilot_cohorts() -> None:
    found = []
    for speed in ({"server": "rule"}, {"server": "messages"}, {"executor": "one_by_one", "workers": 1}):
        asked = tiny(**GREEDY, rounds=8, speed=speed)
        found.append(rounds_of(pilot_of(asked, build(asked))))
    assert found[0] == found[1] == found[2]


def test_the_pilot_is_shown_the_losses_and_norms_of_its_own_run() -> None:
    """Everyone but for the first round, then whoever lost most: as computed here from the pilot's models."""
    from tests import toys

    toys.SEEN.clear()
    asked = tiny(sampler={"kind": "tests.toys:Loudest"}, roster="pilot", rounds=4)
    simulate(asked, build(asked))
    assert len(toys.SEEN) == 4, "one roster, drawn once"
    assert [int(np.isfinite(history.last_loss).sum()) for history in toys.SEEN] == [0, 2, 4, 5]
    assert [int(np.isfinite(history.last_norm).sum()) for history in toys.SEEN] == [0, 2, 4, 5]
    toys.SEEN.clear()


def test_clients_that_a_run_leaves_out_leave_their_places_empty() -> None:
    asked = tiny(**GREEDY, rounds=8, leave_out={"clients": "all"})
    federation = build(asked)
    done = simulate(asked, federation)
    there = federation.audit.client_in
    assert there is not None
    for number, pairs in picked(done.bank).items():
        truth = {
            (round_number, client)
            for round_number, clients in enumerate(rounds_of(done.pilot), 1)
            for client in clients
            if there[number, client]
        }
        assert pairs == truth


def test_pilot_failures_are_its_own_and_run_failures_shared() -> None:
    """Client 1 fails in round 2 wherever it is: the pilot goes on without its loss, all runs drop it."""
    failing = {"kind": "tests.faults:Failing", "rounds": [1, 2, 3, 4, 5, 6]}
    base = {
        **GREEDY,
        "strategy": {"kind": "tests.faults:Numbering"},
        "client": failing,
        "rounds": 6,
        "speed": {"executor": "one_by_one", "workers": 1},
    }
    asked = tiny(**base, tolerate={"max_failed_share": 0.6})
    done = simulate(asked, build(asked))
    assert done.pilot is not None
    turns = sum(1 in clients for clients in rounds_of(done.pilot))
    assert done.pilot.failed == turns > 1, "its loss stays unknown, so that it comes first again"
    failed = [part for part in done.bank.participation if part.failed]
    assert {part.client for part in failed} == {1}
    assert len(failed) == 4 * turns
    with pytest.raises(RunError, match=r"the pilot, which picks the cohorts of all runs: round .*tolerate"):
        simulate(tiny(**base), build(tiny(**base)))


# --- probabilities ----------------------------------------------------------------------------------------------------


def test_stored_probabilities_are_those_of_the_sampler() -> None:
    asked = tiny(**CAREFUL, rounds=8)
    done = simulate(asked, build(asked))
    assert done.pilot is not None
    for part in done.bank.participation:
        assert part.probability == done.pilot.picked_in(part.round).probability_of(part.client)
    chances = {part.probability for part in done.bank.participation}
    assert len(chances) > 5
    assert all(chance is not None and 0 < chance <= 1 for chance in chances)
    uniform = simulate(tiny(), build(tiny())).bank.participation
    assert {part.probability for part in uniform} == {3 / 5}
    greedy = simulate(tiny(**GREEDY), build(tiny(**GREEDY))).bank.participation
    assert {part.probability for part in greedy} == {None}


def test_weights_of_one_over_p_make_up_for_who_was_picked() -> None:
    """Σ x_k / p_k over the cohort has the mean Σ x_k, whatever the rows; without the weights it has not."""
    federation = build(tiny(partition={"kind": "dirichlet", "alpha": 0.5}))
    values = np.arange(1.0, 6.0) ** 2
    for sampler in ({"kind": "by_size", "size": 2}, {"kind": "clustered", "size": 3}, {"kind": "dropout", "rate": 0.3}):
        totals, plain = [], []
        roster = Roster(tiny(sampler=sampler), federation, 0)
        for round_number in range(1, 1501):
            one = roster.picked_in(round_number)
            assert one.probabilities is not None
            totals.append((values[list(one.clients)] / one.probabilities).sum())
            plain.append(values[list(one.clients)].sum() * 5 / max(1, len(one.clients)))
        error = np.std(totals) / np.sqrt(len(totals))
        assert abs(np.mean(totals) - values.sum()) < 4 * error
        if sampler["kind"] == "by_size":
            assert abs(np.mean(plain) - values.sum()) > 4 * np.std(plain) / np.sqrt(len(plain))


@pytest.mark.parametrize("sampler", [CAREFUL, {"sampler": {"kind": "poisson", "rate": 0.5}}], ids=["pilot", "poisson"])
def test_rule_gets_each_clients_inclusion_probability(sampler: dict[str, Any]) -> None:
    """On both ways to the server, so that it can weigh by 1 / (N p)."""
    changes = {**sampler, "strategy": {"kind": "tests.toys:Debiased"}, "rounds": 6}
    params = []
    for server in ("messages", "rule"):
        asked = tiny(**changes, speed={"server": server})
        params.append(simulate(asked, build(asked)).params)
    for one, other in zip(*params, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_inverse_probability_weights_of_everyone_are_the_mean() -> None:
    found = []
    for strategy in ("tests.toys:Debiased", "fedavg"):
        asked = tiny(strategy={"kind": strategy}, sampler={"kind": "everyone"}, rounds=2)
        found.append(simulate(asked, build(asked)).params)
    for one, other in zip(*found, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


# --- on disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one shard."""
    return run(small(), out=tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "speed",
    [
        {"shard": 1, "workers": 1},
        {"shard": 3, "workers": 1},
        pytest.param({"shard": 2, "workers": 2}, marks=needs_forks),
    ],
)
def test_shards_and_workers_do_not_change_a_pilot_run(speed: dict[str, int], whole: Path, tmp_path: Path) -> None:
    folder = run(small(**speed), out=tmp_path)
    assert written(folder) == written(whole)
    pilots = [fedmem.read(place).manifest["pilot"] for place in (folder, whole)]
    for pilot in pilots:
        assert pilot.pop("seconds") > 0
    assert pilots[0] == pilots[1]
    assert pilots[0]["run"] == 4
    assert pilots[0]["failed"] == 0


def test_interrupted_it_keeps_the_pilot(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def counted(*given: Any, **named: Any) -> Pilot | None:
        trained.append(1)
        return pilot_of(*given, **named)

    monkeypatch.setattr(sharding, "pilot_of", counted)
    scenario = small(shard=1, workers=1)
    with pytest.raises(KeyboardInterrupt):
        # four rounds of the pilot, then one shard and a half
        run(scenario, out=tmp_path, listeners=[Stopping(after=10)])
    kept = place_of(tmp_path / scenario.name / scenario.id) / "pilot.json"
    assert kept.exists()
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path, listeners=[Stopping(after=2)])
    assert len(trained) == 1
    kept.write_text(kept.read_text().replace("1", "2"))
    folder = run(scenario, out=tmp_path)
    assert len(trained) == 2, "what is damaged is trained again"
    assert written(folder) == written(whole)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_pilot_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    for changes in (GREEDY, CAREFUL):
        asked = tiny(**changes)
        pilot = pilot_of(asked, build(asked))
        assert pilot is not None
        shards = Shards(tmp_path, None)
        shards.open({"code": "this"})
        assert shards.pilot() is None or changes is CAREFUL
        shards.keep_pilot(pilot)
        again = shards.pilot()
        assert again is not None
        assert (again.failed, again.seconds, rounds_of(again)) == (pilot.failed, pilot.seconds, rounds_of(pilot))
        for one, other in zip(pilot.rounds, again.rounds, strict=True):
            if one.probabilities is None:
                assert other.probabilities is None
            else:
                np.testing.assert_array_equal(one.probabilities, other.probabilities)
        shards.open({"code": "another"})
        assert shards.pilot() is None


def test_pilot_estimates_have_both_levels_and_repeat_from_files(whole: Path, tmp_path: Path) -> None:
    frame = fedmem.read(whole).measurements
    assert {"local", "global"} == set(frame[frame.source == "memorisation"].level)
    assert set(frame.run.dropna()) <= {0, 1, 2, 3}
    assert set(fedmem.read(whole).participation.run) == {0, 1, 2, 3}
    before = written(whole)
    measure(whole)
    assert written(whole) == before


# --- what is said -----------------------------------------------------------------------------------------------------


def text(folder: Path) -> str:
    return " ".join(line for line, _ in instance(table(folder), _Table).lines(100))


def test_report_explains_how_clients_were_picked(whole: Path, tmp_path: Path) -> None:
    assert "pilot run, which no estimate reads" in text(whole)
    own = run(tiny(**SMALL | GREEDY | {"roster": "per_run", "estimators": [{"kind": "memorisation"}]}), out=tmp_path)
    assert "nothing local compares in with out" in text(own)
    frame = fedmem.read(own).measurements
    assert set(frame[frame.source == "memorisation"].level) == {"global"}
    shared = run(tiny(**SMALL), out=tmp_path)
    assert "pilot" not in text(shared)
    assert "roster" not in text(shared)


@pytest.mark.parametrize(
    "estimator",
    [{"kind": "memorisation"}, {"kind": "exposure"}, {"kind": "membership", "attack": {"kind": "loss_threshold"}}],
    ids=lambda estimator: estimator["kind"],
)
def test_own_rosters_have_no_local_estimates_and_pilots_have(estimator: dict[str, Any]) -> None:
    levels = {}
    for roster in ("per_run", "pilot"):
        asked = tiny(**{**GREEDY, "roster": roster}, estimators=[estimator])
        rows = estimate(simulate(asked, build(asked)).bank, asked.estimators, 20)
        levels[roster] = {row.level for row in rows}
    assert levels == {"per_run": {"global"}, "pilot": {"local", "global"}}


def test_leakage_is_refused_where_coins_decide_who_is_attacked() -> None:
    leakage = {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}}
    with pytest.raises(ScenarioError, match=r"probes\[0\].*Use roster: pilot"):
        tiny(**{**GREEDY, "roster": "per_run"}, probes=[leakage])
    tiny(**GREEDY, probes=[leakage])
    tiny(roster="per_run", probes=[leakage])
