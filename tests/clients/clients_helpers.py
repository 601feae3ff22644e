"""What tests of clients share."""

from __future__ import annotations

from typing import Any

from fedmem.contracts.evidence import Transition
from tests.tiny import tiny


def turns(seen: dict[tuple[int, int, int], Transition]) -> dict[tuple[int, int], list[Transition]]:
    """The transitions of each run and client, in the order of rounds."""
    found: dict[tuple[int, int], list[Transition]] = {}
    for run, round_number, client in sorted(seen):
        found.setdefault((run, client), []).append(seen[run, round_number, client])
    return found


CLIENTS: dict[str, dict[str, Any]] = {"top_k": {"share": 0.3}, "fedper": {}, "local_norm": {}}


PERSONAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fedper": ({"kind": "mlp", "hidden": [8]}, {"dataset": {"kind": "synthetic"}}),
    "local_norm": ({"kind": "small_cnn", "channels": [4, 4], "groups": 2}, {"dataset": {"kind": "digits"}}),
}


def personal(kind: str, **changes: Any) -> Any:
    model, data = PERSONAL[kind]
    client = {"kind": kind, "lr": 0.2, "batch_size": 8}
    return tiny(**{"model": model, "client": client, **data, "clients": 5, "runs": 2, "rounds": 4, **changes})
