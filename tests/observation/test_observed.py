"""`Observed` and `Watch` on a small Flower app written the ordinary way: ServerApp, ClientApp, messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedYogi
from torch import nn

from fedmem import Known, Observed, Watch, WatchLeakage
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.evidence import ClientIdentity, Transition
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process
from fedmem.engines.directed import Demands, Directed
from fedmem.errors import RunError
from fedmem.observation.client_identity import Identities
from tests.narrowing import instance
from tests.observation.observed_helpers import CLIENTS, Net, app_grid, data_of, initial


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_three_lines_add_measurement_to_an_ordinary_app() -> None:
    canaries = data_of(2)
    found: dict[str, Any] = {}
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        watch = Watch(model=Net(), examples={"canaries": canaries}, references={"canaries": data_of(99)[0]})
        strategy = Observed(FedAvg(fraction_evaluate=0.0), watch)
        found["result"] = strategy.start(grid=grid, initial_arrays=initial(), num_rounds=3)
        found["frame"] = watch.frame()

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    app(app_grid(), context)
    frame = found["frame"]
    assert set(frame["round"]) == {0, 1, 2, 3}
    last = frame[frame["round"] == 3]
    assert set(last[last.level == "local"].client) == {str(FIRST_NODE + k) for k in range(CLIENTS)}
    assert set(last[last.level == "global"].client) == {""}
    assert set(last[last.level == "local"].identity) == {"node"}
    local = last[last.level == "local"].groupby("client").loss.mean()
    assert local.idxmin() == str(FIRST_NODE + 2)
    assert frame.exposure.between(0, np.log2(21)).all()
    owner = last[(last.client == str(FIRST_NODE + 2))].exposure.mean()
    assert owner > last[last.level == "local"].groupby("client").exposure.mean().drop(str(FIRST_NODE + 2)).max()

    unwatched = Observed(FedAvg(fraction_evaluate=0.0)).start(grid=app_grid(), initial_arrays=initial(), num_rounds=3)
    # on its own, Flower adds up in the order in which replies arrive, which is drawn anew each time
    bare = FedAvg(fraction_evaluate=0.0).start(grid=app_grid(), initial_arrays=initial(), num_rounds=3)
    for name, array in found["result"].arrays.items():
        assert np.array_equal(array.numpy(), unwatched.arrays[name].numpy())
        np.testing.assert_allclose(array.numpy(), bare.arrays[name].numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [FedAvg, FedMedian, FedAdam, FedYogi])
def test_the_order_of_replies_changes_no_bit(make: Callable[..., Any]) -> None:
    def final(order: Callable[[list[Message]], list[Message]]) -> list[np.ndarray[Any, Any]]:
        strategy = Observed(make(fraction_evaluate=0.0))
        result = strategy.start(grid=app_grid(order), initial_arrays=initial(), num_rounds=2)
        return [array.numpy() for array in result.arrays.values()]

    forwards, backwards = final(list), final(lambda replies: replies[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_local_models_are_copied_before_a_strategy_empties_them() -> None:
    watch = Watch(model=Net(), examples={"mine": data_of(0)})
    Observed(FedMedian(fraction_evaluate=0.0), watch).start(grid=app_grid(), initial_arrays=initial(), num_rounds=1)
    frame = watch.frame()
    assert len(frame[frame.level == "local"]) == CLIENTS * 20


def test_the_strategy_is_left_as_it_was() -> None:
    strategy = FedAvg(fraction_evaluate=0.0)
    Observed(strategy).start(grid=app_grid(), initial_arrays=initial(), num_rounds=1)
    assert "configure_train" not in vars(strategy)
    assert "aggregate_train" not in vars(strategy)


def test_trace_travels_to_the_watcher_and_not_into_the_average() -> None:
    seen = []

    class Everything:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Any) -> None:
            seen.extend(transitions)

    def add_trace(replies: list[Message]) -> list[Message]:
        for reply in replies:
            client = reply.metadata.src_node_id - FIRST_NODE
            reply.content["trace"] = ConfigRecord({"client": client, "norm": 0.5 * client})
        return replies

    result = Observed(FedAvg(fraction_evaluate=0.0), Everything()).start(
        grid=app_grid(add_trace), initial_arrays=initial(), num_rounds=1
    )
    local = [t for t in seen if t.level == "local"]
    assert [t.client for t in local] == [0, 1, 2, 3]
    assert [t.report["norm"] for t in local] == [0.0, 0.5, 1.0, 1.5]
    assert set(result.train_metrics_clientapp[1]) == set()


@pytest.mark.parametrize("source", ["partition-id", "clients", "node"])
def test_clients_have_one_identity_whatever_node_they_are(source: str) -> None:
    """Flower draws node ids of 64 bits; partitions and mappings are of the user, and replies come in any order."""

    class Renamed(LocalGrid):
        def get_node_ids(self) -> list[int]:
            return [HUGE + 7 * node for node in super().get_node_ids()]

    nodes = [HUGE + 7 * (FIRST_NODE + k) for k in range(CLIENTS)]
    by_source: dict[str, list[Any]] = {
        "partition-id": list(range(CLIENTS)),
        "clients": [f"c{k}" for k in range(CLIENTS)],
        "node": nodes,
    }
    names = by_source[source]
    asked: list[Any] = [watch_of(), leakage_of()]

    def say(replies: list[Message]) -> list[Message]:
        for reply in replies if source == "partition-id" else ():
            partition = nodes.index(reply.metadata.src_node_id)
            instance(reply.content["metrics"], MetricRecord)["partition-id"] = partition
        return replies[::-1]

    mapping = dict(zip(nodes, names, strict=True)) if source == "clients" else None
    Observed(FedAvg(fraction_evaluate=0.0), *asked, clients=mapping).start(
        grid=app_grid(say, Renamed, lambda node: (node - HUGE) // 7 - FIRST_NODE),
        initial_arrays=initial(),
        num_rounds=2,
    )
    for watch in asked:
        frame = watch.frame()
        local = frame[frame.level == "local"]
        assert set(local.identity) == {source}
        assert set(zip(local.node, local.client, strict=True)) == {
            (str(node), str(node) if source == "node" else name) for node, name in zip(nodes, names, strict=True)
        }
        assert pd.api.types.is_integer_dtype(frame.client) == (source == "partition-id")
    loss = asked[0].frame().groupby("client").loss.mean()
    assert str(loss.idxmin()) == str(names[2])


HUGE = 2**63 + 12345


def watch_of(**more: Any) -> Watch:
    return Watch(model=Net(), examples={"canaries": data_of(2)}, references={"canaries": data_of(99)[0]}, **more)


def leakage_of(**more: Any) -> WatchLeakage:
    known = Known(input_shape=(6,), num_classes=3, num_images=1, lr=0.5)
    inputs = data_of(2)[0].numpy()[:2]
    return WatchLeakage(
        model=Net(),
        attack=InvertingGradients(steps=1),
        known=known,
        examples={"canaries": inputs},
        rounds=[1, 2],
        **more,
    )


@pytest.mark.parametrize("make", [watch_of, leakage_of])
def test_owners_are_clients_that_the_app_can_have(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"member_of names the client 'c9', and clients has only c0, c1"):
        Observed(FedAvg(), make(member_of={"canaries": "c9"}), clients={7: "c0", 8: "c1"})
    with pytest.raises(ValueError, match="member_of names the set 'other'"):
        make(member_of={"other": 0})


def _say_names(replies: list[Message]) -> list[Message]:
    for reply, name in zip(replies, ("nord", "ost", "sued", "west"), strict=False):
        reply.content["trace"] = ConfigRecord({"client": name})
    return replies


@pytest.mark.parametrize("owners", [0, "north"])
def test_unknown_owners_are_an_error_after_round_1(owners: int | str) -> None:
    """By default the training ends there; with on_error=warn it goes on, and the warning comes once."""
    strict, lenient = (
        watch_of(member_of={"canaries": owners}),
        watch_of(member_of={"canaries": owners}, on_error="warn"),
    )
    settings: Any = {"grid": app_grid(_say_names), "initial_arrays": initial(), "num_rounds": 2}
    with pytest.raises(RunError, match=rf"round 1: none of the 1 clients .*\({owners}\).*are nord, ost, sued, west"):
        Observed(FedAvg(fraction_evaluate=0.0), strict).start(**settings)
    with pytest.warns(RuntimeWarning, match="round 1: Watch stops watching") as caught:
        result = Observed(FedAvg(fraction_evaluate=0.0), lenient).start(**settings)
    assert len([one for one in caught if "stops watching" in str(one.message)]) == 1
    assert len(result.train_metrics_clientapp) == 2


def test_an_owner_that_is_not_sampled_yet_is_no_error() -> None:
    """With half of the clients in each round, the owner may come later; only its absence from all clients is wrong."""
    watch = watch_of(member_of={"canaries": "west"})
    identities = Identities()
    identities.check(1, [ClientIdentity(value="nord", source="trace", node=1)], [1, 2])
    identities.check_named(1, watch.named_clients, [1, 2])
    identities.check(2, [ClientIdentity(value="sued", source="trace", node=2)], [1, 2])
    with pytest.raises(RunError, match=r"\(west\) is a client of this app; by 'trace' its clients are nord, sued"):
        identities.check_named(2, watch.named_clients, [1, 2])
    identities.check_named(2, ["west", "nord"], [1, 2])


def test_a_wrong_model_is_named() -> None:
    watch = Watch(model=nn.Linear(6, 3), examples={"mine": data_of(0)})
    with pytest.raises(ValueError, match=r"do not agree on parameter 'bias'"):
        Observed(FedAvg(fraction_evaluate=0.0), watch).start(grid=app_grid(), initial_arrays=initial(), num_rounds=1)


class Everyone:
    """All clients in every round."""

    def cohort(self, round_number: int) -> range:
        return range(CLIENTS)

    def node(self, client: int) -> int:
        return FIRST_NODE + client


def test_lost_clients_end_the_run_only_where_a_tolerance_is_set() -> None:
    def drop_first(replies: list[Message]) -> list[Message]:
        from flwr.app import Error

        content = replies[0]
        failed = Message(Error(1, "no battery"), reply_to=_asked(content))
        return [failed, *replies[1:]]

    def _asked(reply: Message) -> Message:
        return Message(RecordDict(), dst_node_id=reply.metadata.src_node_id, message_type="train")

    Observed(FedAvg(fraction_evaluate=0.0)).start(grid=app_grid(drop_first), initial_arrays=initial(), num_rounds=1)
    with pytest.raises(RunError, match="no battery"):
        Directed(FedAvg(fraction_evaluate=0.0), Everyone(), Demands(seed=0)).start(
            grid=app_grid(drop_first), initial_arrays=initial(), num_rounds=1
        )


def test_clients_begin_each_round_from_the_last_aggregate() -> None:
    """What a client did in a round is what it sent minus what it was given, which is another model in every round."""
    seen: list[Transition] = []

    class Everything:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Any) -> None:
            seen.extend(transitions)

    Observed(FedAvg(fraction_evaluate=0.0), Everything()).start(grid=app_grid(), initial_arrays=initial(), num_rounds=3)
    given = {t.round + 1: t.kept for t in seen if t.level == "global"}
    for name, value in Net().named_parameters():
        assert not torch.equal(given[1][name], given[2][name]) or not value.numel()
    local = [t for t in seen if t.level == "local"]
    assert [t.round for t in local] == [1] * CLIENTS + [2] * CLIENTS + [3] * CLIENTS
    for one in local:
        assert all(torch.equal(one.before[name], given[one.round][name]) for name in one.before)
