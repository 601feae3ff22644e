"""Synthetic banks with a known law, and how often intervals cover: for the tests of calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from fedmem.contracts.estimator import Estimator
from fedmem.contracts.evidence import Bank, Evidence, ReferenceEvidence
from fedmem.contracts.measurement import Labels, Measurement
from fedmem.estimation.estimates import estimate
from tests.banks import coins, make_audit

REFERENCES = 1000


@dataclass(frozen=True, kw_only=True)
class Law:
    """What margins are made of, in standard deviations of an example among others.

    A margin is z + run + in × (effect + own + tilt). z is standard normal: a share `shared` of its variance belongs to
    the example for all runs (initial weights that runs share), the rest to the pair. `own` differs between examples,
    `tilt` between runs. At the aggregate the effect is `kept` times as large, and half of the noise is that of the
    holder. `ties` rounds margins to a grid. The second kind has `second` times the effects of the first.
    """

    effect: float = 0.0
    own: float = 0.0
    tilt: float = 0.0
    run: float = 0.2
    shared: float = 0.8
    kept: float = 0.5
    second: float = 0.0
    ties: float = 0.0


def bank(law: Law, *, runs: int, examples: int, seed: int) -> Bank:
    """One round of one client that holds everything, and two kinds of canaries with `examples` each."""
    rng = np.random.default_rng(seed)
    kind = ["random_pattern"] * examples + ["secret"] * examples
    m = len(kind)
    audit = make_audit(kind, [0] * m, coins(runs, m, rng))
    scale = np.repeat([1.0, law.second], examples)
    effect = scale * (law.effect + law.own * rng.normal(size=m) + law.tilt * rng.normal(size=(runs, 1))) * audit.is_in
    base, local = rng.normal(size=m), rng.normal(size=(runs, m))
    evidence, ranks = [], []
    for level, kept, client in (("local", 1.0, 0), ("global", law.kept, -1)):
        noise = local if level == "local" else math.sqrt(0.5) * (local + rng.normal(size=(runs, m)))
        z = math.sqrt(law.shared) * base + math.sqrt(1 - law.shared) * noise + kept * effect
        below = np.floor(ndtr(-z) * (REFERENCES + 1)).astype(np.int32)
        margin = z + law.run * rng.normal(size=(runs, 1))
        margin = np.round(margin / law.ties) * law.ties if law.ties else margin
        place: dict[str, Any] = {"round": 1, "level": level, "run": np.arange(runs, dtype=np.int32)}
        clients = np.full(runs, client, np.int32)
        evidence.append(
            Evidence(
                **place, client=clients, set="audit", loss=np.logaddexp(0, -margin), margin=margin, correct=margin > 0
            )
        )
        ranks.append(
            ReferenceEvidence(
                **place,
                client=clients,
                family="random_pattern",
                subjects=np.arange(m),
                count=REFERENCES,
                less=below,
                ties=np.zeros((runs, m), np.int32),
                labels=np.array([0]),
                quantiles=np.zeros((runs, 1, 256), np.float32),
            )
        )
    return Bank(audit=audit, evidence=tuple(evidence), references=tuple(ranks), participation=(), seed=seed)


Key = tuple[str, str, str, Labels]


def rows(found: Sequence[Measurement]) -> dict[Key, tuple[float, float, float]]:
    """Value and interval of every row of a kind in the summary, by metric, level, subject and labels."""
    return {
        (row.reading.metric, row.level, row.reading.subject, row.reading.labels): (
            row.reading.value,
            row.reading.low,
            row.reading.high,
        )
        for row in found
        if row.round is None and row.run is None and not row.reading.subject.isdigit()
    }


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Of one row over many banks: how often its interval held the truth, and how wide it was beside 1.96 errors."""

    truth: float
    mean: float
    error: float
    covered: float
    width: float
    banks: int
    unbounded: int


def trained(*, runs: int, seed: int, lr: float = 0.5) -> Bank:
    """A small federation that is really trained: made data, canaries and wrong labels, initial weights shared."""
    from fedmem.execution.bank import simulate as train
    from fedmem.federation.build import build
    from tests.tiny import tiny

    scenario = tiny(
        seed=seed,
        runs=runs,
        rounds=3,
        clients=4,
        references=200,
        injections=[{"kind": "random_pattern", "per_client": 4}, {"kind": "mislabelled", "per_client": 4}],
        sampler={"kind": "uniform", "size": 4},
        client={"kind": "sgd", "lr": lr, "epochs": 3, "batch_size": 8},
        observe={"rounds": [3], "levels": ["local", "global"]},
    )
    return train(scenario, build(scenario)).bank


def unrelated(real: Bank, seed: int) -> Bank:
    """The same models with coins that had nothing to do with them: no memorisation, whatever else is real."""
    audit = real.audit
    dealt = np.random.default_rng(seed).permuted(audit.is_in, axis=0)
    return replace(real, audit=replace(audit, is_in=dealt))


def simulate(
    law: Law, estimators: Sequence[Estimator], *, runs: int, examples: int, banks: int, deals: int = 20, seed: int = 0
) -> dict[Key, np.ndarray]:
    """(banks, 3) values and intervals of every row, NaN in banks that lack it."""
    every = [
        rows(estimate(bank(law, runs=runs, examples=examples, seed=seed + number), estimators, deals))
        for number in range(banks)
    ]
    keys = dict.fromkeys(key for one in every for key in one)
    return {key: np.array([one.get(key, (math.nan,) * 3) for one in every]) for key in keys}


def coverage(found: Mapping[Key, np.ndarray], truth: Mapping[Key, float]) -> dict[Key, Coverage]:
    """Of all rows that are not in `truth` the truth is the mean of the estimates over all banks."""
    told = {}
    for key, values in found.items():
        value, low, high = values.T
        if np.isnan(value).all() or key[0].endswith((".p", ".null")) or np.isnan(low).all():
            continue
        mean, bounded = float(np.nanmean(value)), ~np.isnan(low)
        right = truth.get(key, mean)
        error = float(np.nanstd(value))
        told[key] = Coverage(
            truth=right,
            mean=mean,
            error=error,
            covered=float(((low <= right) & (right <= high))[bounded].mean()),
            width=float((high - low)[bounded].mean() / (2 * 1.96 * max(error, 1e-300))),
            banks=len(value),
            unbounded=int((~bounded).sum()),
        )
    return told
