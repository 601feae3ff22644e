"""Tests of `fedmem/apps/watch.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from fedmem import Observed, Watch
from fedmem.engines._flower import FIRST_NODE, in_process
from tests.observation.observed_helpers import CLIENTS, Net, app_grid, data_of, initial


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_watch_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="references for 'other'"):
        Watch(model=Net(), examples={"mine": data_of(0)}, references={"other": data_of(1)[0]})
    with pytest.raises(ValueError, match="3 inputs and 2 targets"):
        Watch(model=Net(), examples={"mine": (np.zeros((3, 6)), [0, 1])})
    with pytest.raises(ValueError, match="every must be at least 1"):
        Watch(model=Net(), examples={"mine": data_of(0)}, every=0)


def test_summary_needs_to_know_who_holds_what() -> None:
    with pytest.raises(ValueError, match=r"Watch\(member_of=\{'mine': 0\}\)"):
        Watch(model=Net(), examples={"mine": data_of(0)}).summary()


def test_owner_of_examples_is_nearer_to_them_than_others() -> None:
    """The mapping distinguishes the clients; client 2 trains on these examples, client 7 does not exist."""
    examples = {"mine": data_of(2), "nobody": data_of(99)}
    watch = Watch(model=Net(), examples=examples, member_of={"mine": "c2", "nobody": None})
    clients = {FIRST_NODE + k: f"c{k}" for k in range(CLIENTS)}
    start: dict[str, Any] = {"grid": app_grid(), "initial_arrays": initial(), "num_rounds": 2}
    Observed(FedAvg(fraction_evaluate=0.0), watch, clients=clients).start(**start)
    frame, summary = watch.frame(), watch.summary()
    assert frame[frame.holds & (frame.level == "local")].client.unique().tolist() == ["c2"]
    assert not frame[frame["set"] == "nobody"].holds.any()
    loss = summary[(summary.measure == "loss") & (summary["round"] == 2)]
    whole = loss[loss.level == "global"]
    at_global = frame[(frame["round"] == 2) & (frame.level == "global") & (frame["set"] == "mine")]
    assert (whole.contrast.tolist(), whole.value.item()) == (["aggregate, in"], pytest.approx(at_global.loss.mean()))
    loss = loss[loss.level == "local"]
    assert loss["set"].tolist() == ["mine"]
    assert loss.contrast.tolist() == ["owners - others, in"]
    assert loss.value.item() < 0 < loss.high.item() - loss.low.item()
    assert loss.n.item() == 20
    last = frame[(frame["round"] == 2) & (frame.level == "local") & (frame["set"] == "mine")]
    means = last.groupby("client").loss.mean()
    assert loss.value.item() == pytest.approx(means["c2"] - means.drop("c2").mean())

    other = Watch(model=Net(), examples=examples, member_of={"mine": "c2"})
    lacking = {node: name if name != "c2" else "c9" for node, name in clients.items()} | {7: "c2"}
    Observed(FedAvg(fraction_evaluate=0.0), other, clients=lacking).start(**start)
    with pytest.warns(RuntimeWarning, match=r"never took part in an observed round \(c2\)"):
        assert not other.frame().owner_seen.any()
