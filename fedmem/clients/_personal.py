"""Layers that stay with a client: they begin as they ended its last participation, and are sent to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientState, Outcome


def with_personal_layers(before: Params, memory: Params) -> Params:
    """The model that a client begins with: the aggregate, with its own layers in it once it has trained."""
    return {name: memory.get(name, value) for name, value in before.items()}


def keep_personal_layers(state: ClientState, before: Params, personal_names: Sequence[str]) -> Outcome:
    """All is kept; of one's own layers, what came is sent back and what they have become is remembered."""
    params = state["params"]
    return Outcome(
        sent={name: before[name] if name in personal_names else value for name, value in params.items()},
        kept=params,
        memory={name: params[name] for name in personal_names},
    )
