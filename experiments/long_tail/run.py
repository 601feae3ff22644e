"""Who is memorised in a federation's long tail, who is useful, and what does removing the most memorised cost?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import fedmem
from experiments.long_tail.analysis import results
from experiments.long_tail.figure import FIGURE
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.estimators.cross_influence import CrossInfluence
from fedmem.estimators.memorisation import Memorisation
from fedmem.federation.build import build
from fedmem.results.read import read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
DATA = {
    "digits": ["dataset={kind: digits, test: 497}", "client.lr=0.3"],
    "fashion_mnist": ["dataset={kind: fashion_mnist, rows: 1500, test: 1000}", "client.lr=0.1"],
}
NATURAL = {"digits": 90, "fashion_mnist": 110}  # rows of each client that have a coin in the first bank
INJECTED = """injections=[{kind: typical}, {kind: near_duplicate}, {kind: corrupted},
 {kind: rare_subgroup, of_class: 8, clients: {count: 4}, per_client: 10},
 {kind: mislabelled}, {kind: out_of_distribution}, {kind: random_pattern}]"""
SHARES = (0.1, 0.3)  # of the rows with a coin, removed in the third part


DRAWS = 4
"""Random removals, and federations behind every accuracy."""


def scenarios(data: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """A bank in which most natural rows have a coin, and one with a few natural and many injected examples."""
    natural = [f"injections=[{{kind: typical, per_client: {NATURAL[data]}}}]"]
    injected = ["runs=48", INJECTED, "estimators=[{kind: cross_influence}]"]
    return [
        fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *DATA[data], *bank, *settings])
        for bank in (natural, injected)
    ]


def cell(data: str, seed: int, out: Path, settings: Sequence[str]) -> tuple[pd.DataFrame, ...]:
    """One data set and seed: examples of the natural and of the injected bank, pairs of the latter, accuracies.

    The accuracies are those of federations that are trained again with other seeds. They lack the natural rows that the
    first bank found to be memorised most.
    """
    scenario, second = scenarios(data, seed, settings)
    bank = read_bank(fedmem.run(scenario, out=out))
    natural = per_example(bank)
    halves = np.array_split(np.arange(bank.audit.runs), 2)
    shuffled = bank.audit.is_in[np.random.default_rng(seed).permutation(bank.audit.runs)]
    others = {"a": only(bank, halves[0]), "b": only(bank, halves[1])}
    others["shuffled"] = replace(bank, audit=replace(bank.audit, is_in=shuffled))
    for name, other in others.items():
        natural = natural.join(per_example(other)[["memorisation", "cross_influence"]].add_suffix(f"_{name}"))

    folder = fedmem.run(second, out=out)
    injected = per_example(read_bank(folder))
    measured = fedmem.read(folder).measurements
    measured = measured[(measured.statistic == "probability") & (measured.place != "others")]
    is_pair = measured.metric.isin(["cross_pairs_helped", "cross_pairs_harmed"])
    pairs = measured[is_pair][["level", "subject", "metric", "value"]]

    # Everything as in the natural bank, but without coins: who holds what is written into a file, less some rows.
    federation = build(scenario)
    base = [federation.store.take(rows) for rows in federation.base]
    rows = Examples.concatenate([*base, federation.audit.examples])
    owner = np.concatenate([*(np.full(len(part), client) for client, part in enumerate(base)), federation.audit.owner])
    first = len(rows) - len(federation.audit)
    test: dict[str, Any] = {"test_inputs": federation.test.inputs, "test_targets": federation.test.targets}
    labels = federation.audit.examples.targets
    path, accuracies = out / f"long_tail-{data}-{seed}.npz", []
    for arm, share, nth, removed in arms(natural, labels, DRAWS, np.random.default_rng(seed)):
        remaining = np.setdiff1d(np.arange(len(rows)), first + removed)
        training: dict[str, Any] = {
            "inputs": rows.inputs[remaining],
            "targets": rows.targets[remaining],
            "clients": owner[remaining],
        }
        np.savez(path, **test, **training)
        # One file name for all: a finished federation is found again by the checksum of what it was trained on.
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        third = ["runs=1", f"dataset={{kind: npz, path: {path}, sha256: {checksum}}}", "partition={kind: natural}"]
        # Other weights and batches than those that found the memorised; arms that are compared share theirs.
        third += [f"seed={1000 + DRAWS * seed + nth}", "probes=[{kind: utility}]"]
        folder = fedmem.run(fedmem.load_scenario(HERE / "scenario.yaml", [*DATA[data], *settings, *third]), out=out)
        measured = fedmem.read(folder).measurements
        final = measured[(measured.metric == "test_accuracy") & measured.scope.str.endswith("summary")]
        accuracies.append(final[["level", "value"]].assign(arm=arm, share=share))
    path.unlink()
    frames = (natural.reset_index(), injected.reset_index(), pairs, pd.concat(accuracies))
    return tuple(frame.assign(data=data, seed=seed) for frame in frames)


def per_example(bank: Bank) -> pd.DataFrame:
    """Memorisation and cross-influence of each audit example by probability, at its owner and at the aggregate."""
    parts = []
    for view in views(bank, permute_coins(bank.audit, 1, np.random.default_rng(0))):
        if view.round is None and view.place != "others":
            by_metric: dict[str, list[pd.Series]] = {}
            for estimate in (*Memorisation().estimate(view), *CrossInfluence().estimate(view)):
                if estimate.labels.get("statistic") == "probability":
                    by_metric.setdefault(estimate.metric, []).append(pd.Series(estimate.per_example, estimate.examples))
            frame = pd.DataFrame({metric: pd.concat(series) for metric, series in by_metric.items()})
            parts.append(frame.assign(level=view.level, kind=bank.audit.kind[frame.index]))
    return pd.concat(parts).rename_axis("subject").set_index("level", append=True)


def only(bank: Bank, runs: IntArray) -> Bank:
    """The bank of some of its runs."""
    place = np.full(bank.audit.runs, -1, dtype=np.int32)
    place[runs] = np.arange(len(runs))

    def part(block: Evidence) -> Evidence:
        is_kept = place[block.run] >= 0
        values = {name: getattr(block, name)[is_kept] for name in ("client", "loss", "margin", "correct")}
        return replace(block, run=place[block.run][is_kept], **values)

    audit = replace(bank.audit, is_in=bank.audit.is_in[runs])
    return replace(bank, audit=audit, evidence=tuple(map(part, bank.evidence)), references=())


def arms(
    natural: pd.DataFrame, labels: IntArray, draws: int, rng: np.random.Generator
) -> Iterator[tuple[str, float, int, IntArray]]:
    """The rows to remove: none, the most memorised, as many at random, and as many at random of the same classes."""
    for nth in range(draws):
        yield "nothing", 0.0, nth, np.empty(0, dtype=np.int64)
        for share in SHARES:
            count = round(share * len(labels))
            yield "random", share, nth, rng.choice(len(labels), count, replace=False)
            for level in ("local", "global"):
                score = natural.xs(level, level="level")["memorisation"].sort_index().to_numpy()
                top = np.argsort(-score, kind="stable")[:count]
                classes, numbers = np.unique(labels[top], return_counts=True)
                rows_by_class = [np.flatnonzero(labels == label) for label in classes]
                yield level, share, nth, top
                same = [rng.choice(rows, n, replace=False) for rows, n in zip(rows_by_class, numbers, strict=True)]
                yield f"same classes as {level}", share, nth, np.concatenate(same)


def tables(frames: list[tuple[pd.DataFrame, ...]]) -> dict[str, pd.DataFrame]:
    """The table of all three parts."""
    return {"results": results(*(pd.concat(part) for part in zip(*frames, strict=True)))}


STUDY = Study(
    question=str(__doc__),
    seeds=range(8),
    cells=lambda seeds: [(data, seed) for seed in seeds for data in DATA],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    digits=5,
    shown="",
    unpriced=f"{DRAWS * (1 + 5 * len(SHARES))} federations of one run for each data set and seed, without rows that "
    "follow from the first bank",
)
