"""The numbers of a network that clients train, that are frozen, and that stay with clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation


def count_parameters(federation: Federation, client: ClientAlgorithm) -> Mapping[str, int]:
    """The counts of a network whose parts differ; empty where all of it is trained and sent.

    - `trained`: parameters that clients train;
    - `frozen`: parameters that nobody trains, without buffers;
    - `by_norm`, `by_client`: numbers that stay with clients by the `norm` of the scenario, running statistics included,
      and by the algorithm of the client. They are trained too, and no client sends them.
    """
    initial, personal = federation.initial, set(federation.personal_names(client))
    by_norm = personal & set(federation.mode.personal)
    counts = {
        "trained": sum(value.numel() for name, value in initial.items() if name not in federation.mode.statistics),
        "frozen": sum(value.numel() for value in federation.model.parameters() if not value.requires_grad),
        "by_norm": sum(initial[name].numel() for name in by_norm),
        "by_client": sum(initial[name].numel() for name in personal - by_norm),
    }
    return counts if any(counts[name] for name in ("frozen", "by_norm", "by_client")) else {}
