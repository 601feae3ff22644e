"""A finished run whose single examples have known scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import AuditSet, SourceRows
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence, ReferenceEvidence, SignalEvidence
from fedmem.contracts.measure import to_json
from fedmem.estimation.estimates import estimate
from fedmem.estimation.signal_means import SignalMeans
from fedmem.estimators.memorisation import Memorisation
from fedmem.modalities.images import Images
from fedmem.results.read import Run, read
from fedmem.results.write import Results, write_run
from fedmem.signals.el2n import El2n

RUNS = 16
NAMES = ("Nord", "Süd", "0")


def coins(m: int, seed: int = 0) -> BoolArray:
    """(16, m) fair coins, each example in half of the runs."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(RUNS) < RUNS // 2, (m, 1)).T, axis=0)


def answers(is_in: BoolArray, rates: list[tuple[int, int]]) -> BoolArray:
    """(16, m) of example j the first of `rates[j]` in runs, and the second of the out runs, are right."""
    right = np.zeros(is_in.shape, dtype=bool)
    for j, (inside, outside) in enumerate(rates):
        right[np.flatnonzero(is_in[:, j])[:inside], j] = True
        right[np.flatnonzero(~is_in[:, j])[:outside], j] = True
    return right


def bank(
    is_in: BoolArray, whole: BoolArray, local: BoolArray, kinds: list[str], shape: tuple[int, ...] = (1, 8, 8)
) -> Bank:
    """A bank of three clients; example j is held by client j mod 3."""
    m = is_in.shape[1]
    owner = (np.arange(m) % 3).astype(np.int32)
    rng = np.random.default_rng(0)
    inputs = rng.random((m, *shape)).astype(np.float32)
    audit = AuditSet(
        examples=Examples(inputs=inputs, targets=np.arange(m) % 2, ids=np.arange(m)),
        kind=np.array(kinds), role=np.full(m, "atypical"), owner=owner, copies=np.ones(m, np.int32), is_in=is_in,
    )  # fmt: skip

    def block(level: Any, right: BoolArray, client: int) -> Evidence:
        margin = np.where(right, 1.0, -1.0)
        return Evidence(
            round=1, level=level, set="audit", run=np.arange(RUNS, dtype=np.int32),
            client=np.full(RUNS, client, np.int32), loss=np.exp(-margin), margin=margin, correct=right,
        )  # fmt: skip

    evidence = (block("global", whole, -1), *(block("local", local, client) for client in range(3)))
    return Bank(audit=audit, evidence=evidence, references=(), participation=(), seed=0, roster="shared")


def birth_years(not_uniform: tuple[str, ...]) -> Bank:
    """40 birth years that one model never saw: it knows the digits of other years, and nothing else."""
    rng = np.random.default_rng(5)

    def digits(years: IntArray) -> IntArray:
        return years[:, None] // 10 ** np.arange(4) % 10

    others = digits(rng.integers(1940, 2011, 200))
    rates = [(np.bincount(column, minlength=10) + 0.1) / (len(others) + 1) for column in others.T]
    own, references = (
        -sum(np.log(rate[digit]) for rate, digit in zip(rates, digits(years).T, strict=True))
        for years in (rng.integers(1940, 2011, 40), rng.integers(0, 10_000, 1000))
    )
    m, one = len(own), np.zeros(1, np.int32)
    audit = AuditSet(
        examples=Examples(
            inputs=np.zeros((m, 1, 8, 8), np.float32), targets=np.zeros(m, np.int64), ids=-1 - np.arange(m)
        ),
        kind=np.full(m, "years"), role=np.full(m, "canary"), owner=(np.arange(m) % 3).astype(np.int32),
        copies=np.ones(m, np.int32), is_in=np.ones((1, m), bool), not_uniform=not_uniform,
    )  # fmt: skip
    right = np.zeros((1, m), bool)
    evidence = Evidence(
        round=1, level="global", set="audit", run=one, client=one - 1, loss=own[None], margin=-own[None], correct=right
    )
    ranks = ReferenceEvidence(
        round=1, level="global", family="years", run=one, client=one - 1, subjects=np.arange(m), count=1000,
        less=(references[:, None] < own).sum(0, dtype=np.int32)[None], labels=np.zeros(1, np.int64),
        ties=(references[:, None] == own).sum(0, dtype=np.int32)[None], quantiles=np.zeros((1, 1, 256), np.float32),
    )  # fmt: skip
    return Bank(audit=audit, evidence=(evidence,), references=(ranks,), participation=(), seed=0, roster="shared")


def finished(
    folder: Path, rates: list[tuple[int, int]], local: list[tuple[int, int]] | None = None, **names: Any
) -> Run:
    """The run of these rates at the aggregate, and at the owning clients."""
    is_in = coins(len(rates))
    kinds = ["mislabelled" if j % 2 else "typical" for j in range(len(rates))]
    return stored(folder, bank(is_in, answers(is_in, rates), answers(is_in, local or rates), kinds), **names)


def with_el2n(folder: Path) -> Run:
    """Six examples with the signal EL2N, which training on example j lowers by 0.1 j; memorised is only the last."""
    is_in = coins(6)
    right = answers(is_in, [(4, 4)] * 5 + [(8, 0)])
    made = bank(is_in, right, right, ["typical"] * 6)
    block = SignalEvidence(
        round=1, level="global", name="el2n", run=np.arange(RUNS, dtype=np.int32),
        client=np.full(RUNS, -1, np.int32), values=(1.0 - 0.1 * np.arange(6) * is_in).astype(np.float64),
    )  # fmt: skip
    made_run = stored(
        folder, replace(made, signals=(block,)), estimators=(Memorisation(), SignalMeans(signal=El2n())),
        manifest={"measures": [to_json(one) for one in El2n.measures]},
    )  # fmt: skip
    with (folder / "scenario.yaml").open("a") as file:
        file.write("signals: [{kind: el2n}]\n")
    return read(made_run.path)


def estimated(folder: Path) -> Run:
    """27 examples of two kinds at three clients, with an estimator: example j is right in j mod 3 of 8 out runs."""
    made = finished(folder, [(8, j % 3) for j in range(27)])
    with (made.path / "scenario.yaml").open("a") as file:
        file.write("bootstrap: 40\nestimators: [{kind: memorisation}]\n")
    return made


def stored(
    folder: Path, evidence: Bank, *, estimators: Sequence[Any] = (Memorisation(),), manifest: Any = None, **names: Any
) -> Run:
    """A bank as a finished run, with its memorisation."""
    m = len(evidence.audit)
    sources = SourceRows(target=np.zeros(m, dtype=np.int64), is_altered=np.zeros(m, dtype=bool))
    federation: Any = SimpleNamespace(
        **{
            "num_clients": 3, "num_classes": 2, "counts": {}, "modality": Images(), "client_names": NAMES,
            "class_names": ("cat", "<dog>"), "sources": sources, **names,
        }
    )  # fmt: skip
    results = Results(
        scenario_yaml="name: known\nruns: 16\nrounds: 1\nclients: 3\n", manifest=manifest or {}, reconstructions={},
        measurements=estimate(evidence, estimators, 0), bank=evidence, federation=federation,
    )  # fmt: skip
    write_run(folder, results)
    return read(folder)
