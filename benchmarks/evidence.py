"""Evidence of 128 runs on 10,000 test rows after each of 20 rounds: planned, and written without any training.

`python -m benchmarks.evidence WAY --out FILE`. The outputs of models are made from random logits. They take the way of
a run: shard by shard into files, joined into one, read again and estimated from.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contender import Trained, write
from fedmem.contracts.evidence import Bank, Evidence, EvidenceHead
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level
from fedmem.contracts.stored_evidence import StoredEvidence, join_evidence
from fedmem.estimation.estimates import estimate
from fedmem.execution.bank import targets_of
from fedmem.execution.plan import plan, sets_at
from fedmem.federation.build import build
from fedmem.modalities.scores import answers, losses_of_stored, round_margins
from fedmem.results.evidence_table import IN_MEMORY, read_evidence, write_evidence
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

CLASSES, SHARD = 10, 16

SCENARIO: dict[str, Any] = {
    "name": "evidence",
    "runs": 128,
    "rounds": 20,
    "clients": 10,
    "sampler": {"kind": "uniform", "size": 5},
    "dataset": {"kind": "synthetic", "rows": 2000, "test": 10_000, "classes": CLASSES},
    "model": {"kind": "logistic"},
    "injections": [{"kind": "mislabelled", "per_client": 3}, {"kind": "typical", "per_client": 3}],
    "observe": {"every": 1, "test": {"levels": ["global"]}, "population": {"levels": ["global"]}},
    "estimators": [{"kind": "memorisation"}, {"kind": "unique_information"}],
    "speed": {"workers": 1},
}

WAYS = {"float64": {}, "float32": {"precision": "float32"}}


def scenario_of(precision: str, quick: bool) -> Scenario:
    """The scenario, in one of both precisions; the quick one has a tenth of the test rows and a quarter of the runs."""
    observe = {**SCENARIO["observe"], "test": {"levels": ["global"], **WAYS[precision]}}
    smaller = {"runs": 32, "dataset": {**SCENARIO["dataset"], "test": 1000}} if quick else {}
    return parse_scenario(json.dumps({**SCENARIO, "observe": observe, **smaller}), "evidence")


def planned(precision: str, quick: bool) -> Trained:
    """The bytes of `evidence.parquet` as `fedmem check` says them, and those of memory while results are made."""
    scenario = scenario_of(precision, quick)
    done = plan(scenario, build(scenario))
    memory = sum(done.memory["estimating"].values())
    return Trained(params={"memory": np.array(memory)}, value=done.disk["evidence"])


def written(precision: str, quick: bool) -> Trained:
    """The bytes of `evidence.parquet`, the largest memory of the process, and the seconds of its steps."""
    scenario = scenario_of(precision, quick)
    federation = build(scenario)
    seconds, start = [time.perf_counter()], _largest_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = [range(start, start + SHARD) for start in range(0, scenario.runs, SHARD)]
        for shard in shards:
            place = folder / str(shard.start)
            place.mkdir()
            write_evidence(place, list(blocks(scenario, federation, shard)))
        seconds.append(time.perf_counter())
        in_memory = IN_MEMORY // len(shards)
        parts = [list(read_evidence(folder / str(shard.start) / "evidence.parquet", in_memory)) for shard in shards]
        write_evidence(folder, [join_evidence(group) for group in zip(*parts, strict=True)])
        size = (folder / "evidence.parquet").stat().st_size
        seconds.append(time.perf_counter())
        bank = Bank(
            audit=federation.audit,
            evidence=tuple(read_evidence(folder / "evidence.parquet")),
            references=(),
            participation=(),
            seed=scenario.seed,
            targets=targets_of(federation),
        )
        estimate(bank, scenario.estimators, scenario.bootstrap)
        seconds.append(time.perf_counter())
    values = sum(block.size * (2 * block.dtype.itemsize + 1) for block in bank.evidence)
    memory: dict[str, Any] = {"start": np.array(start), "peak": np.array(_largest_memory()), "values": np.array(values)}
    memory["seconds"] = np.diff(seconds)
    return Trained(params=memory, value=float(size))


def _largest_memory() -> int:
    """The largest memory of this process until now, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def blocks(scenario: Scenario, federation: Federation, runs: range) -> Iterator[Evidence]:
    """The evidence of some runs, made when it is written; half of the clients participate in each round."""
    cohort = scenario.clients // 2
    for round_number in scenario.observed_rounds:
        levels: tuple[Level, ...] = ("local", "global") if round_number else ("global",)
        for level in levels:
            clients = [(round_number + k) % scenario.clients for k in range(cohort)] if level == "local" else [-1]
            run = np.repeat(np.array(runs, dtype=np.int32), len(clients))
            client = np.tile(np.array(clients, dtype=np.int32), len(runs))
            for name, examples in sets_at(scenario, federation, level).items():
                if examples:
                    rounded = name == "test" and scenario.observe.test.precision == "float32"
                    yield StoredEvidence(
                        EvidenceHead(round=round_number, level=level, set=name, run=run, client=client),
                        examples=examples,
                        dtype=np.dtype(np.float32 if rounded else np.float64),
                        has_shares=False,
                        read=partial(_value, scenario.seed, tuple(run.tolist()), round_number, examples, rounded),
                    )


def _value(
    seed: int, runs: tuple[int, ...], round_number: int, examples: int, rounded: bool, name: str
) -> NDArray[Any]:
    return _outputs(seed, runs, round_number, examples, rounded)[name]


@cache
def _examples(seed: int, examples: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The logits of a mean model, which grow towards the label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=examples)
    logits = rng.normal(0, 1, (examples, CLASSES)).astype(np.float32)
    logits[np.arange(examples), labels] += rng.normal(2, 2, examples).astype(np.float32)
    return logits, labels


_LAST: dict[tuple[Any, ...], dict[str, NDArray[Any]]] = {}


def _outputs(
    seed: int, runs: tuple[int, ...], round_number: int, examples: int, rounded: bool
) -> dict[str, NDArray[Any]]:
    """Outputs of models around the mean model; those of round 0 are the same in all runs."""
    key = seed, runs, round_number, examples, rounded
    if key not in _LAST:
        _LAST.clear()
        mean, labels = _examples(seed, examples)
        rng = np.random.default_rng([seed, round_number, *(runs if round_number else ())])
        noise = rng.normal(0, 0.5, (len(runs) if round_number else 1, *mean.shape))
        logits: NDArray[Any] = (mean * (0.1 + round_number / 5) + noise).astype(np.float32)
        exact, correct = answers(logits, labels)
        margin = round_margins(exact) if rounded else exact
        values = {"margin": margin, "loss": losses_of_stored(margin), "correct": correct}
        _LAST[key] = {name: np.broadcast_to(value, (len(runs), examples)) for name, value in values.items()}
    return _LAST[key]


def main() -> None:
    """The command of this contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("planned", "written"))
    parser.add_argument("--precision", choices=WAYS, default="float64")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write(given.out, {"planned": planned, "written": written}[given.way](given.precision, given.quick))


if __name__ == "__main__":
    main()
