"""What passes between server and client beside the model: offers, memory, reports, and who is who."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import Params
from fedmem.federation.build import build
from fedmem.federation.roster import _CohortDraws
from fedmem.strategies._rule import Arrays, Round
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, Stacked
from tests import toys
from tests.engines.seams_helpers import TOYS, same, trained, watched
from tests.narrowing import instance
from tests.tiny import tiny

ONE_BY_ONE = {"executor": "one_by_one", "workers": 1}
STATEFUL = ["qfedavg", "centred_clipping", "foolsgold", "rotate"]
"""Strategies that need what clients report, or keep something for each of them."""

SAMPLERS = [{"kind": "uniform", "size": 3}, {"kind": "poisson", "rate": 0.3}]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["kind"])
@pytest.mark.parametrize("roster", ["shared", "per_run"])
def test_payload_state_and_metrics_are_equal_on_both_paths(sampler: dict[str, Any], roster: str) -> None:
    scenario = tiny(**TOYS, sampler=sampler, roster=roster, rounds=6)
    by_messages, by_rule = (watched(scenario, server) for server in ("messages", "rule"))
    assert same(by_messages[0].params, by_rule[0].params)
    assert by_messages[1].local.keys() == by_rule[1].local.keys()
    for place, transition in by_messages[1].local.items():
        assert transition.report == by_rule[1].local[place].report


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_local_level_reads_kept_models_and_server_sent_ones(server: str, executor: type) -> None:
    scenario = tiny(client={"kind": "tests.toys:Secretive"}, rounds=2)
    finished, seen, _ = watched(scenario, server, executor)
    start = build(scenario).initial
    # an average of equal models is equal but for rounding
    assert all(torch.allclose(params[name], start[name]) for params in finished.params for name in start)
    for transition in seen.local.values():
        assert all(torch.equal(transition.sent[name], transition.before[name]) for name in start)
        assert any(not torch.allclose(transition.kept[name], transition.before[name]) for name in start)


@pytest.mark.parametrize("executor", [OneByOne, Stacked])
def test_client_state_waits_for_the_next_participation(executor: type) -> None:
    """One more round done by hand from what the engine says that it gave: the velocity is that of the last turn."""
    scenario = tiny(**TOYS, rounds=4, sampler={"kind": "uniform", "size": 2})
    _, seen, work = watched(scenario, "messages", executor)
    federation, met = build(scenario), set()
    reference = OneByOne(federation.model, scenario.client, federation.store)
    last: dict[tuple[int, int], Params] = {}
    for run, round_number, client in sorted(seen.local, key=lambda place: place[1]):
        given = work.stored_work(run, round_number, client)
        expected = last.get((run, client), {})
        assert given.memory_of(0).keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(given.memory_of(0)[name], value, rtol=1e-4, atol=1e-6)
            met.add(client)
        (outcome,) = reference.train_all(given).outcomes()
        for name, value in outcome.sent.items():
            torch.testing.assert_close(seen.local[run, round_number, client].sent[name], value, rtol=1e-4, atol=1e-6)
        last[run, client] = outcome.memory
    assert met


# --- who is who -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_rule_gets_client_numbers_from_zero_and_their_metrics(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[Round] = []
    original = toys.Counting.rule

    def heard(self: toys.Counting, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        rounds.append(rnd)
        return original(self, state, rnd)

    monkeypatch.setattr(toys.Counting, "rule", heard)
    _, seen, _ = watched(tiny(**TOYS, rounds=2), server)
    told = {(rnd.number, int(c)) for rnd in rounds for c in rnd.clients.flatten()}
    assert told == {(number, client) for _, number, client in seen.local}
    for rnd in rounds:
        assert set(rnd.report) == {"loss", "norm", "probability", "round", "steps", "turns"}
        assert all(value.shape == rnd.clients.shape for value in rnd.report.values())
        assert (rnd.report["round"] == rnd.number).all()


def test_rule_in_a_flower_app_numbers_clients_by_node() -> None:
    """Without an introduction: stable from round to round, whatever the ids."""
    from flwr.app import ConfigRecord

    from fedmem.engines._flower import LocalGrid, in_process, local_record
    from fedmem.strategies._rule import PAYLOAD, RuleStrategy

    class Telling:
        def state(self, before: Any, num_clients: int) -> Any:
            return {}

        def payload(self, state: Any, clients: torch.Tensor) -> Any:
            return {"number": clients.double()}

    with in_process():
        telling: Any = Telling()
        flower, grid = RuleStrategy(telling), LocalGrid(4, lambda messages: [])
        numbers: dict[int, set[float]] = {}
        for round_number in (1, 2, 3):
            for message in flower.configure_train(
                round_number, local_record({"w": torch.zeros(1)}), ConfigRecord(), grid
            ):
                number = float(message.content.array_records[PAYLOAD]["number"].numpy())
                numbers.setdefault(message.metadata.dst_node_id, set()).add(number)
    assert sorted(numbers.values(), key=min) == [{0.0}, {1.0}, {2.0}, {3.0}]
    assert [min(numbers[node]) for node in sorted(numbers)] == [0, 1, 2, 3]


# --- what a roster of a run's own learns ------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_own_roster_shows_the_sampler_losses_and_norms(server: str) -> None:
    toys.SEEN.clear()
    scenario = tiny(sampler={"kind": "tests.toys:Loudest"}, roster="per_run", rounds=4, runs=2)
    _, seen, _ = watched(scenario, server)
    assert len(toys.SEEN) == 4 * 2
    history = next(h for h in reversed(toys.SEEN) if (h.last_round == 3).sum() == 2)
    run = next(
        r
        for r in (0, 1)
        if {c for q, n, c in seen.local if (q, n) == (r, 3)} == set(np.flatnonzero(history.last_round == 3))
    )
    for client in range(5):
        turns = [round_number for q, round_number, c in seen.local if (q, c) == (run, client) and round_number <= 3]
        assert history.last_round[client] == max(turns, default=0)
        assert np.isnan(history.last_loss[client]) == (not turns)
    toys.SEEN.clear()


def test_shared_roster_shows_the_sampler_no_losses_or_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.Loudest, "needs", ())
    toys.SEEN.clear()
    watched(tiny(sampler={"kind": "tests.toys:Loudest"}, rounds=4, runs=2), "messages")
    assert toys.SEEN
    for history in toys.SEEN:
        assert np.isnan(history.last_loss).all()
        assert np.isnan(history.last_norm).all()
    toys.SEEN.clear()


def test_atypical_copies_are_counted_whether_in_or_out() -> None:
    from fedmem.federation.roster import Roster

    scenario = tiny(injections=[{"kind": "mislabelled", "per_client": 2, "copies": 3}, {"kind": "typical"}])
    federation = build(scenario)
    owner = federation.audit.owner.copy()
    owner[federation.audit.kind == "mislabelled"] = [0, 0, 0, 1, 1, 4, 4, 4, 4, 4]
    moved = replace(federation, audit=replace(federation.audit, owner=owner))
    assert instance(Roster(scenario, moved, 0)._draws, _CohortDraws).history.atypical.tolist() == [9, 6, 0, 0, 15]


# --- the proximal pull ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("server", ["messages", "rule"])
def test_zero_mu_is_fedavg_and_larger_mu_moves_less(server: str) -> None:
    client = {"kind": "sgd", "lr": 0.2, "epochs": 4, "batch_size": 8}

    def norms(strategy: dict[str, Any]) -> tuple[Any, list[float]]:
        finished, seen, _ = watched(
            tiny(strategy=strategy, client=client, rounds=1, runs=2, observe={"every": 1}), server
        )
        moved = [
            float(sum((t.sent[name] - value).square().sum() for name, value in t.before.items()))
            for _, t in sorted(seen.local.items())
        ]
        return finished.params, moved

    plain, free = norms({"kind": "fedavg"})
    none, unmoved = norms({"kind": "fedprox", "mu": 0.0})
    assert same(plain, none)
    assert free == unmoved
    for weak, strong in ((0.0, 0.1), (0.1, 1.0), (1.0, 3.0)):
        less, more = (norms({"kind": "fedprox", "mu": mu})[1] for mu in (strong, weak))
        # over all clients: a single one may be pulled into a steeper place
        assert sum(less) < sum(more)


def test_flowers_own_fedprox_is_heeded_and_equal() -> None:
    """Its pull travels in a config instead of an offer."""
    client = {"kind": "sgd", "lr": 0.2, "epochs": 2, "batch_size": 8}
    flower = {"kind": "flwr.serverapp.strategy:FedProx", "proximal_mu": 0.5}
    ours, theirs, plain = (
        trained(tiny(strategy=strategy, client=client, speed=ONE_BY_ONE, rounds=2)).params
        for strategy in ({"kind": "fedprox", "mu": 0.5}, flower, {"kind": "fedavg"})
    )
    assert same(ours, theirs)
    assert not same(ours, plain)


@pytest.mark.parametrize("strategy", ["fedprox", "fedavgm", "trimmed_mean", "krum", *STATEFUL])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s["kind"])
def test_the_rule_path_equals_the_message_path(strategy: str, sampler: dict[str, Any]) -> None:
    scenario = tiny(strategy={"kind": strategy}, sampler=sampler)
    one, other = (watched(scenario, server)[0] for server in ("messages", "rule"))
    assert same(one.params, other.params)
    assert one.participation == other.participation


def test_a_round_that_has_been_looked_at_is_let_go() -> None:
    """Also where the strategy evaluates on its clients after the round."""
    evaluating = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_evaluate": 1.0, "min_evaluate_nodes": 1}
    kept: list[LocalWork] = []
    original = LocalWork.forget

    def forget(work: LocalWork, round_number: int) -> None:
        original(work, round_number)
        kept.append(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalWork, "forget", forget)
        trained(tiny(strategy=evaluating, rounds=2))
    assert kept
    assert all(not work._stored_work for work in kept)
