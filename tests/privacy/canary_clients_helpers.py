"""What tests of canary clients share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.probes import canary_clients as probe

SHAPES = {"w": (6, 20), "b": (6,)}


def rows_of(
    cosines: Any, what: str, round_number: int, run: int = 0, neighbours: str = "add_remove"
) -> list[Measurement]:
    return [
        Measurement(
            run=run,
            round=round_number,
            level="global",
            client=-1,
            source="canary_clients",
            reading=Reading(
                metric="canary_cosine",
                value=value,
                n=900,
                labels=Labels.of({what.partition(" ")[2]: j}, shown=what.partition(" ")[0], adjacency=neighbours),
            ),
        )
        for j, value in enumerate(np.asarray(cosines).tolist())
    ]


def estimates(rows: list[Measurement], delta: float = 1e-5) -> dict[tuple[int, str, str], Reading]:
    found = probe.CanaryClients(delta=delta).summarise(rows, 0)
    assert all((one.run, one.client, one.source) == (None, -1, "canary_clients") for one in found)
    return {(one.round_number, one.reading.labels.text("shown"), one.reading.metric): one.reading for one in found}
