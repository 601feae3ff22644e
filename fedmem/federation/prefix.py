"""Whether the outputs of the frozen part of a network are stored for the rows of a federation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.federation import Federation

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.prefix_store import PrefixStore

TRIAL_ROWS = 12
"""Rows of the trial passes that find the frozen part."""


def prefix_of(scenario: Scenario, federation: Federation) -> PrefixStore | None:
    """An empty store for the outputs of the frozen part; None if they are not worth storing.

    Guarantees: the result depends only on the scenario and its data, so that equal scenarios give equal bytes.
    """
    if scenario.speed.cache_prefix == "off" or isinstance(scenario.client, PrivateAlgorithm):
        return None
    if federation.mode.tied is not None or federation.mode.client_shards is not None:
        # rows keep units of their own in training, or clients train one constituent, and others are evaluated
        return None
    if not any(not value.requires_grad for value in federation.model.parameters()):
        return None
    import torch

    from fedmem.training.prefix_store import STORED_BYTES, PrefixStore
    from fedmem.training.prefix_trials import ROWS, find_prefix

    store = federation.store
    chosen = np.unique(np.linspace(0, len(store) - 1, TRIAL_ROWS).astype(int))
    if len(chosen) <= ROWS:
        return None
    rows = torch.from_numpy(store.inputs[chosen].copy())
    prefix = find_prefix(federation.model, federation.initial, rows, federation.mode)
    if prefix is None:
        return None
    watched = [part.inputs for part in (federation.test, federation.population) if len(part)]
    for others in (watched, []):
        if (len(store) + sum(map(len, others))) * prefix.row_bytes <= STORED_BYTES:
            return PrefixStore(prefix, federation.model, store, others)
    return None
