"""Clients that keep something back: sparsification with error feedback, layers of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.clients.top_k import TopK
from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Transition
from fedmem.engines.lockstep import Lockstep
from fedmem.errors import FedmemError, ScenarioError
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.modalities.scores import losses, margins_of
from fedmem.scenario import catalogue
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork
from tests.engines.test_seams import same, watched
from tests.tiny import tiny


def turns(seen: dict[tuple[int, int, int], Transition]) -> dict[tuple[int, int], list[Transition]]:
    """The transitions of each run and client, in the order of rounds."""
    found: dict[tuple[int, int], list[Transition]] = {}
    for run, round_number, client in sorted(seen):
        found.setdefault((run, client), []).append(seen[run, round_number, client])
    return found


def sum_of(moves: list[Params]) -> Params:
    return {name: torch.stack([move[name] for move in moves]).sum(0) for name in moves[0]}


def apart(one: Params, other: Params) -> Params:
    return {name: value - other[name] for name, value in one.items()}


# --- top_k ------------------------------------------------------------------------------------------------------------


def test_two_rounds_of_top_k_by_hand() -> None:
    client, zero = TopK(share=0.5), {"w": torch.zeros(4)}
    first = client.final(client.init(zero, {}, {}) | {"params": {"w": torch.tensor([1.0, -3.0, 2.0, 0.5])}}, zero)
    assert first.sent["w"].tolist() == [0.0, -3.0, 2.0, 0.0]
    assert first.memory["w"].tolist() == [1.0, 0.0, 0.0, 0.5]
    before = {"w": torch.full((4,), 10.0)}
    trained = {"w": before["w"] + torch.tensor([1.5, 0.25, -1.0, 2.0])}
    second = client.final(client.init(before, {}, first.memory) | {"params": trained}, before)
    # u + e = [2.5, 0.25, -1, 2.5]
    assert (second.sent["w"] - 10).tolist() == [2.5, 0.0, 0.0, 2.5]
    assert second.memory["w"].tolist() == [0.0, 0.25, -1.0, 0.0]
    assert second.kept is trained


@pytest.mark.parametrize("share", [1e-9, 0.1, 0.3, 0.5, 1.0])
def test_the_number_of_values_that_are_sent(share: float) -> None:
    rng = np.random.default_rng(0)
    zero = {"a": torch.zeros(20, 5), "b": torch.zeros(7)}
    trained = {n: torch.from_numpy(rng.normal(size=tuple(v.shape)).astype(np.float32)) for n, v in zero.items()}
    client = TopK(share=share)
    sent = client.final(client.init(zero, {}, {}) | {"params": trained}, zero).sent
    for value in sent.values():
        assert int((value != 0).sum()) == max(1, int(np.ceil(share * value.numel() - 1e-6)))


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_what_is_sent_and_the_residual_add_up_to_all_updates(server: str) -> None:
    """Over all turns of a client, whatever the server makes of them; with the residual lost they would not."""
    scenario = tiny(client={"kind": "top_k", "share": 0.1, "lr": 0.3, "batch_size": 8}, rounds=5, runs=2)
    _, seen, work = watched(scenario, server)
    federation = build(scenario)
    reference = OneByOne(federation.model, scenario.client, federation.store)
    more_than_once = 0
    for (run, client), own in turns(seen.local).items():
        given = work.stored_work(run, own[-1].round, client)
        (last,) = reference.train_all(given).outcomes()
        sent, moved = (sum_of([apart(getattr(t, part), t.before) for t in own]) for part in ("sent", "kept"))
        for name, value in moved.items():
            torch.testing.assert_close(sent[name] + last.memory[name], value, rtol=1e-4, atol=1e-6)
        if len(own) > 1:
            more_than_once += 1
            assert any(not torch.allclose(sent[n], moved[n], atol=1e-3) for n in moved)
        for one in own:
            for value in apart(one.sent, one.before).values():
                assert int((value != 0).sum()) <= int(np.ceil(0.1 * value.numel()))
    assert more_than_once > 3


def test_sending_everything_is_sgd() -> None:
    whole, plain = (
        simulate(scenario, build(scenario)).params
        for scenario in (tiny(client={"kind": "top_k", "share": 1.0, "lr": 0.2, "batch_size": 8}), tiny())
    )
    for one, other in zip(whole, plain, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


CLIENTS: dict[str, dict[str, Any]] = {"top_k": {"share": 0.3}, "fedper": {}, "local_norm": {}}


@pytest.mark.parametrize("kind", CLIENTS)
def test_executors_and_servers_agree(kind: str) -> None:
    client = {"kind": kind, "lr": 0.2, "momentum": 0.5, "batch_size": 8, **CLIENTS[kind]}
    found = {}
    executors = ("one_by_one", "stacked") if kind != "local_norm" else ("one_by_one",)
    for executor in executors:
        for server in ("rule", "messages"):
            settings: dict[str, Any] = {
                "client": client,
                "rounds": 3,
                "speed": {"executor": executor, "server": server},
            }
            scenario = personal(kind if kind in PERSONAL else "fedper", **settings)
            found[executor, server] = simulate(scenario, build(scenario)).params
        assert same(found[executor, "rule"], found[executor, "messages"])
    for one, other in zip(found["one_by_one", "rule"], found[executors[-1], "rule"], strict=True):
        for name, value in one.items():
            # a rounding may decide which of two values is sent
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", CLIENTS)
def test_local_work_is_that_of_sgd(kind: str) -> None:
    """The same batches and steps: only what leaves the client and what it remembers differ."""
    client = tiny(client={"kind": kind, "lr": 0.2, "epochs": 2, "batch_size": 4, **CLIENTS[kind]}).client
    plain = Sgd(lr=0.2, epochs=2, batch_size=4)
    one, other = (c.batches(10, np.random.default_rng(0)) for c in (client, plain))
    assert np.array_equal(one, other)
    before = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2), "1.weight": torch.ones(2)}
    state, expected = client.init(before, {}, {}), plain.init(before, {}, {})
    for _ in range(2):
        state, expected = (
            c.step(s, lambda params: {n: 0.5 * v + 1 for n, v in params.items()})
            for c, s in ((client, state), (plain, expected))
        )
    kept = client.final(state, before).kept
    assert all(torch.equal(value, kept[name]) for name, value in expected["params"].items())


# --- layers that stay -------------------------------------------------------------------------------------------------

PERSONAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fedper": ({"kind": "mlp", "hidden": [8]}, {"dataset": {"kind": "synthetic"}}),
    "local_norm": ({"kind": "small_cnn", "channels": [4, 4], "groups": 2}, {"dataset": {"kind": "digits"}}),
}


def personal(kind: str, **changes: Any) -> Any:
    model, data = PERSONAL[kind]
    client = {"kind": kind, "lr": 0.2, "batch_size": 8}
    return tiny(**{"model": model, "client": client, **data, "clients": 5, "runs": 2, "rounds": 4, **changes})


@pytest.mark.parametrize("kind", PERSONAL)
@pytest.mark.parametrize("server", ["messages", "rule"])
def test_own_layers_stay_and_begin_as_they_ended(kind: str, server: str) -> None:
    scenario = personal(kind)
    federation = build(scenario)
    own = scenario.client.personal_parameters(federation.initial)
    finished, seen, work = watched(scenario, server)
    for (run, client), models in turns(seen.local).items():
        last: Params = {}
        for one in models:
            given = work.stored_work(run, one.round, client).memory_of(0)
            assert given.keys() == last.keys()
            assert all(torch.equal(given[name], value) for name, value in last.items())
            for name, value in one.before.items():
                assert torch.equal(one.sent[name], value) == (name in own)
                assert not torch.equal(one.kept[name], value)
                assert name in own or torch.equal(one.sent[name], one.kept[name])
            last = {name: one.kept[name] for name in own}
    for params in finished.params:
        for name in own:
            torch.testing.assert_close(params[name], federation.initial[name], rtol=1e-5, atol=1e-6)


def test_a_turn_of_fedper_by_hand() -> None:
    """The gradient is taken where both layers are, and the head of the aggregate is not looked at."""
    client = catalogue_client("fedper", lr=1.0)
    before = {"body.weight": torch.tensor([1.0]), "head.weight": torch.tensor([100.0])}
    state = client.init(before, {}, {"head.weight": torch.tensor([3.0])})
    state = client.step(state, lambda p: {"body.weight": p["head.weight"], "head.weight": p["body.weight"]})
    outcome = client.final(state, before)
    assert {n: float(v) for n, v in outcome.kept.items()} == {"body.weight": -2.0, "head.weight": 2.0}
    assert {n: float(v) for n, v in outcome.sent.items()} == {"body.weight": -2.0, "head.weight": 100.0}
    assert {n: float(v) for n, v in outcome.memory.items()} == {"head.weight": 2.0}


def catalogue_client(kind: str, **fields: Any) -> Any:
    return catalogue.build("client", {"kind": kind, **fields})


def test_no_layers_of_ones_own_is_sgd() -> None:
    none, plain = (
        simulate(scenario, build(scenario))
        for scenario in (personal("fedper", client={"kind": "fedper", "layers": 0, "lr": 0.2, "batch_size": 8}),
                         personal("fedper", client={"kind": "sgd", "lr": 0.2, "batch_size": 8}))
    )  # fmt: skip
    assert same(none.params, plain.params)
    for one, other in zip(none.bank.evidence, plain.bank.evidence, strict=True):
        assert np.array_equal(one.loss, other.loss)
        assert np.array_equal(one.client, other.client)


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_the_aggregate_is_read_with_the_layers_of_each_holder(server: str) -> None:
    """Evidence and views at level global against models put together by hand, from rounds that are not observed too."""
    scenario = personal(
        "fedper", rounds=5, observe={"rounds": [4]}, sampler={"kind": "uniform", "size": 2}, speed={"server": server}
    )
    federation = build(scenario)
    own, audit = scenario.client.personal_parameters(federation.initial), federation.audit
    simulated = simulate(scenario, federation)
    _, everything, _ = watched(scenario, server)
    after = aggregates(scenario, server)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    assert (audit.owner >= 0).all()
    shown = {
        (v.round, v.level): v
        for v in views(simulated.bank, permute_coins(audit, 20, np.random.default_rng(0)))
        if not v.place
    }
    differ = 0
    for round_number in (4, 5):
        expected = np.empty((scenario.runs, len(audit)))
        for run in range(scenario.runs):
            for owner in np.unique(audit.owner).tolist():
                turns_of = [t for t in turns(everything.local).get((run, owner), []) if t.round <= round_number]
                layers = {name: turns_of[-1].kept[name] for name in own} if turns_of else {}
                differ += bool(turns_of) and turns_of[-1].round not in (4, 5)
                logits = executor.logits([{**after[run, round_number], **layers}], audit.examples.inputs)
                mine = audit.owner == owner
                expected[run, mine] = losses(margins_of(logits, audit.examples.targets))[0, mine]
        np.testing.assert_allclose(shown[round_number, "global"].loss[:, 0], expected, rtol=1e-5, atol=1e-6)
        alone = [executor.logits([after[r, round_number]], audit.examples.inputs) for r in range(scenario.runs)]
        bare = [losses(margins_of(one, audit.examples.targets))[0] for one in alone]
        assert not np.allclose(expected, bare, rtol=0.05)
    assert differ, "no client was last picked in a round that is not observed"


def aggregates(scenario: Any, server: str) -> dict[tuple[int, int], Params]:
    """The aggregate of every run and round."""
    found: dict[tuple[int, int], Params] = {}

    class Globals:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Any) -> None:
            found.update({(t.run, t.round): t.kept for t in transitions if t.level == "global"})

    federation = build(scenario)
    work = LocalWork(federation, scenario.client, scenario.seed)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    Lockstep(scenario, federation, executor, work, Globals()).train(range(scenario.runs), server)
    return found


def test_utility_and_leakage_read_each_holder_and_attack_the_aggregate_once() -> None:
    leakage = {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}, "levels": ["global"]}
    scenario = personal("fedper", probes=[{"kind": "utility"}, {"kind": "client_gap"}, leakage])
    federation = build(scenario)
    rows = simulate(scenario, federation).measurements
    owners = set(np.unique(federation.audit.owner).tolist())
    tests = [r for r in rows if r.reading.metric == "test_accuracy" and r.level == "global" and r.round == 4]
    assert {(r.run, r.client) for r in tests if r.run >= 0} == {(run, k) for run in (0, 1) for k in owners}
    gaps = [r for r in rows if r.reading.metric == "client_loss_gap" and (r.level, r.round) == ("global", 4)]
    assert {(r.run, r.reading.subject) for r in gaps if r.run >= 0} == {
        (run, f"client {k}") for run in (0, 1) for k in owners
    }
    attacked = [r for r in rows if r.reading.metric == "distance" and r.round == 4 and r.run >= 0]
    assert sorted(r.run for r in attacked) == [0, 1]


def test_watching_a_personal_client_changes_nothing() -> None:
    scenario = personal("local_norm")
    one, other = (simulate(scenario, build(scenario), watch=watch).params for watch in (True, False))
    assert same(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": {"kind": "fedper", "layers": 2}}, "client.layers.* the network has 2 with parameters"),
        ({"client": {"kind": "local_norm"}}, "client.kind.* keeps normalisation layers .* the network has none"),
    ],
)
def test_layers_that_are_not_there_are_an_error(changes: dict[str, Any], message: str) -> None:
    scenario = tiny(**changes)
    with pytest.raises(FedmemError, match=message):
        simulate(scenario, build(scenario))


def test_what_no_holder_can_read_is_refused() -> None:
    with pytest.raises(ScenarioError, match="a sum of models without the layers that fedper keeps"):
        tiny(client={"kind": "fedper"}, observe={"levels": ["local", "sum"], "sums": [2]})
    influence = {"estimators": [{"kind": "client_influence"}], "leave_out": {"clients": "all"}}
    with pytest.raises(ScenarioError, match="client_influence compares one aggregate for all"):
        tiny(client={"kind": "fedper"}, **influence)
    tiny(client={"kind": "sgd"}, **influence)
