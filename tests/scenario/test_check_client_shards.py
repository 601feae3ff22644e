"""Tests of `fedmem/scenario/check_client_shards.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import sampled, tiny

EVERYONE = {"sampler": {"kind": "everyone"}}


def then(unlearner: dict[str, Any] | None = None, **forget: Any) -> dict[str, Any]:
    """A phase that forgets."""
    phase: dict[str, Any] = {"rounds": 1, "forget": forget or {"kinds": ["typical"]}}
    return {"then": [phase if unlearner is None else {**phase, "unlearner": unlearner}], **EVERYONE}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client_shards": 0}, "client_shards"),
        ({"client_shards": 6}, "5 clients cannot fill 6 shards; write 5 or less"),
        ({"central": "shuffled", **EVERYONE}, "client_shards.*central training has one client"),
        ({"leave_out": {"clients": "all"}}, "shard 0 may have no client"),
        ({"leave_out": {"clients": 2}}, "shard 1 may have no client.*leave out fewer of"),
        ({"leave_out": {"clients": [1, 3]}}, "shard 1 may have no client"),
        (then(clients=[1, 3]), r"no client of shard 1 is left.*\[1, 3\]"),
        (
            {"then": [{"rounds": 1, "forget": {"clients": [client]}} for client in (1, 3)], **EVERYONE},
            r"then\[1\].*no client of shard 1 is left.*\[1, 3\]",
        ),
        ({"client": {"kind": "fedper", "layers": 1}}, "fedper keeps layers at each client"),
        ({"client": {"kind": "dp_sgd", "noise_multiplier": 1.0}}, "dp_sgd adds noise"),
        ({"strategy": {"kind": "dp_fedavg", "clip": 1.0, "noise_multiplier": 1.0}}, "dp_fedavg adds noise"),
        ({"strategy": {"kind": "fedprox"}, "client": {"kind": "sgd"}}, "fedprox sends mu beside the model"),
        ({"strategy": {"kind": "flwr.serverapp.strategy:FedMedian"}}, "FedMedian declares no rule"),
        ({"strategy": {"kind": "krum", "f": 1}, **EVERYONE}, "krum is robust with"),
        ({"tied_dropout": {"layers": ["activation1"]}}, "tied_dropout.*modules of one network"),
        ({"norm": {"kind": "averaged"}}, "averaged updates running statistics"),
        ({"speed": {"engine": "flower"}}, "engine lockstep"),
        ({"observe": {"levels": ["local", "sum"], "sums": [2]}}, "leave sum out"),
        ({"probes": [{"kind": "leakage", "attack": {"kind": "idlg"}}]}, r"probes\[0\].*network of its shard alone"),
        ({"signals": [{"kind": "prediction_depth"}]}, r"signals\[0\].*reads blocks"),
        ({"signals": [{"kind": "last_layer_norm"}]}, r"signals\[0\].*reads the last layer"),
        ({"signals": [{"kind": "update_alignment"}]}, r"signals\[0\].*reads updates"),
        (then({"kind": "gradient_ascent"}), "gradient_ascent changes or averages whole models.*use sisa"),
        (then({"kind": "scrub", "blocks": [1]}), "scrub changes or averages whole models"),
    ],
)
def test_parts_that_mix_or_misread_shards_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=f"(?s){message}"):
        tiny(**{"client_shards": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**sampled("power_of_choice"), "roster": "per_run"}, "power_of_choice picks clients by what all of them did"),
        ({"tolerate": {"max_failed_share": 0.5}}, "does not know which clients failed"),
    ],
    ids=["sampler", "failures"],
)
def test_what_cannot_be_repeated_for_some_clients_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        tiny(**{**then({"kind": "sisa"}), **changes})


def test_shards_that_keep_a_client_are_allowed() -> None:
    tiny(client_shards=5)
    tiny(client_shards=2, leave_out={"clients": 1})
    tiny(client_shards=2, leave_out={"clients": [0, 1, 2]})
    for kind in ("sisa", "retrain", "fine_tune"):
        tiny(client_shards=2, **then({"kind": kind}, clients=[1, 2]))
