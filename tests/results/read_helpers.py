"""What tests of read share."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fedmem.contracts.audit_set import FOREVER, AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence, Participation, ReferenceEvidence
from fedmem.contracts.measurement import Measurement, Reading
from fedmem.modalities.images import Images
from fedmem.results.write import Results, write_run

FEDERATION: Any = SimpleNamespace(
    num_clients=3, num_classes=3, counts={"test": 5, "base": np.int64(7)}, modality=Images(),
    client_names=("Nord", "Süd", "7"), class_names=(), sources=None,
)  # fmt: skip


def measurement(value: float, **place: Any) -> Measurement:
    reading = Reading(metric="memorisation", value=value, low=value - 1, high=value + 1, n=4, subject="typical")
    everywhere: dict[str, Any] = {"run": None, "round": 0, "level": "local", "client": -1, "source": "memorisation"}
    return Measurement(**everywhere | place, reading=reading)


MEASUREMENTS = [measurement(0.1), measurement(math.nan, round=1), measurement(-math.inf, level="global", round=None)]


def bank(*, seed: int = 0, m: int = 6, models: int = 4, rounds: int = 2, canaries: int = 3, labels: int = 2) -> Bank:
    """A small bank with the values that are hardest to keep: NaN, infinities, negative zero, subnormal numbers."""
    rng = np.random.default_rng(seed)
    hard = np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1, 1 / 3])
    targets = rng.integers(0, labels, m) if m else np.zeros(0, np.int64)
    audit = AuditSet(
        examples=Examples(inputs=rng.random((m, 2, 3), np.float32), targets=targets, ids=-1 - np.arange(m)),
        kind=np.array([("pattern", "typical-own")[i >= canaries] for i in range(m)], dtype=np.str_),
        role=np.array([("canary", "typical")[i >= canaries] for i in range(m)], dtype=np.str_),
        owner=rng.integers(-1, 3, m).astype(np.int32),
        copies=rng.integers(1, 4, m).astype(np.int32),
        is_in=rng.random((4, m)) < 0.5,
        start=rng.integers(0, 4, m).astype(np.int32),
        stop=rng.choice([4, 9, FOREVER], m).astype(np.int32),
        injection=rng.integers(0, 3, m).astype(np.int32),
    )
    evidence, references = [], []
    run, client = rng.integers(0, 4, models).astype(np.int32), rng.integers(-1, 3, models).astype(np.int32)
    subjects = rng.permutation(min(canaries, m))
    names = np.unique(targets[subjects])
    for round_number in range(rounds):
        for name, n in (("audit", m), ("test", 5)):
            evidence.append(
                Evidence(
                    round=round_number, level="local", set=name, run=run, client=client,
                    loss=rng.choice(hard, (models, n)),
                    margin=rng.normal(size=(models, n)), correct=rng.random((models, n)) < 0.5,
                )
            )  # fmt: skip
        quantiles = rng.normal(size=(models, len(names), 8)).astype(np.float32)
        quantiles[rng.random((models, len(names))) < 0.5] = np.nan
        quantiles[rng.random(quantiles.shape) < 0.1] = np.nan
        ranks = rng.integers(0, 9, (2, models, len(subjects))).astype(np.int32)
        references.append(
            ReferenceEvidence(
                round=round_number, level="local", family="pattern", run=run, client=client, subjects=subjects, count=9,
                less=ranks[0], ties=ranks[1], labels=names, quantiles=quantiles,
            )
        )  # fmt: skip
    participation = [Participation(run=0, round=r, client=1, num_examples=5, failed=r == 1) for r in range(rounds)]
    return Bank(
        audit=audit, evidence=tuple(evidence), references=tuple(references), participation=tuple(participation),
        seed=seed, roster="per_run", label_counts=rng.integers(0, 9, (2, labels)) if seed % 2 == 0 else None,
    )  # fmt: skip


def write(folder: Path, stored: Bank | None = None, **extra: Any) -> None:
    whole = {
        "scenario_yaml": "name: small\nseed: 0\n", "manifest": {"executor": "stacked"}, "measurements": MEASUREMENTS,
        "bank": stored or bank(), "federation": FEDERATION, "reconstructions": {},
    }  # fmt: skip
    how = {name: extra.pop(name) for name in ("force", "draw") if name in extra}
    write_run(folder, Results(**(whole | extra)), **how)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


STORED = ["audit", "evidence", "measurements", "participation", "references"]
