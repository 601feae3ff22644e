"""What tests of dishonest servers share."""

from __future__ import annotations

from typing import Any

from fedmem.contracts.measurement import Measurement
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.tiny import tiny

BRIEF: dict[str, Any] = {
    "runs": 4, "rounds": 1, "clients": 4, "population": 200, "model": {"kind": "mlp", "hidden": [16]},
    "injections": [{"kind": "typical", "per_client": 3}], "sampler": {"kind": "everyone"},
    "client": {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8},
    "observe": {"every": 1, "levels": ["local", "global"]},
}  # fmt: skip
"""One round of one step on eight rows, so that updates are gradients."""

SUMS: dict[str, Any] = {"observe": {"every": 1, "levels": ["local", "sum", "global"], "sums": [2, 4]}}


def measured(probe: dict[str, Any], **changes: Any) -> list[Measurement]:
    """All measurements of a probe in a brief scenario."""
    scenario = tiny(**{**BRIEF, **changes}, probes=[probe])
    return list(simulate(scenario, build(scenario)).measurements)


def values(rows: list[Measurement], metric: str, **labels: Any) -> list[float]:
    """The readings of single runs of a measure with these labels."""
    return [
        row.reading.value
        for row in rows
        if row.run is not None
        and row.reading.metric == metric
        and all(row.reading.labels.get(name) == value for name, value in labels.items())
    ]
