"""The cost of training on Ray: as a ratio to forks on this machine, and on larger clusters by calculation.

`python -m benchmarks.backends` trains a bank of 64 federations of a small convolutional network by forks and on a local
Ray cluster with as many workers, turn by turn, and writes `backends.csv` beside this file. The cluster is there before;
the workers are not, so that their start, their imports and their federations count. The aim is a ratio below 1.10.

Then it calculates how long a bank of R runs takes on N workers. Workers begin after a start of s seconds, take the next
shard of k runs as soon as they have none, and need k·t seconds for it. The machine that asks receives one shard after
the other, each in k·h seconds. Values of s, t and h are those that were measured before.
"""

from __future__ import annotations

import csv
import heapq
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedmem.contracts.events import Event, ShardStarted
from fedmem.execution.archives import pack
from fedmem.execution.run import run
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

TABLE = Path(__file__).with_name("backends.csv")
REPETITIONS = 3
NODES = (1, 10, 100, 1000)
CORES = 32
"""Workers of a node of the cluster that is calculated."""

RUNS = 32_000
"""Runs of the bank that is calculated, for example a sweep of 500 scenarios with 64 runs each."""

TEXT = """
name: bank_of_networks
runs: 64
rounds: 10
clients: 10
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 0.5}
model: {kind: small_cnn}
injections: [{kind: mislabelled, per_client: 2}, {kind: typical, per_client: 2}]
client: {kind: sgd, lr: 0.1, epochs: 5, batch_size: 16}
observe: {every: 10}
estimators: [{kind: memorisation}]
"""


def scenario(seed: int, *changes: str) -> Scenario:
    """The bank; with another seed, so that nothing is served that was trained before."""
    return parse_scenario(TEXT, "backends", [f"seed={seed}", *changes])


def seconds_of(on: str, seed: int, folder: Path) -> tuple[float, float]:
    """Seconds of a bank, and until the first shard was begun."""
    begun: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, ShardStarted):
            begun.append(time.perf_counter())

    started = time.perf_counter()
    run(scenario(seed), out=folder, listeners=[listen], on=on)
    return time.perf_counter() - started, begun[0] - started


def makespan(workers: int, shards: int, *, start: float, train: float, receive: float) -> float:
    """Seconds until the last shard is received.

    Args:
        workers: How many train.
        shards: How many there are.
        start: Seconds before a worker can begin.
        train: Seconds of a worker for a shard.
        receive: Seconds in which a shard is received, one after the other.

    >>> makespan(2, 4, start=1.0, train=10.0, receive=0.0)
    21.0
    >>> makespan(4, 4, start=0.0, train=10.0, receive=3.0)
    22.0
    """
    ready = [start] * min(workers, shards)
    heapq.heapify(ready)
    free = 0.0
    for _ in range(shards):
        done = heapq.heappop(ready) + train
        free = max(free, done) + receive
        heapq.heappush(ready, done)
    return free


def size_and_receipt(folder: Path) -> tuple[float, float]:
    """Bytes and seconds for each run: of what a shard sends, and of its receipt, from one of 16 runs."""
    from fedmem.execution.shard_store import Shards
    from fedmem.execution.sharding import ShardTrainer, made_with
    from fedmem.federation.build import build

    short = scenario(0, "rounds=1", "runs=16")
    federation = build(short)
    there, here = Shards(folder / "there", None), Shards(folder / "here", None)
    there.made_from = here.made_from = made_with(short, federation)
    ShardTrainer(short, federation, 1, True, None)((range(16), {}), lambda event: None, there)
    packed = pack(there.folder_of(range(16)))
    taken = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        here.install(range(16), packed)
        taken.append(time.perf_counter() - started)
    return len(packed) / 16, float(np.median(taken)) / 16


def main() -> None:
    """Measures, calculates, prints and writes the table."""
    from fedmem.execution.backends import backend_of

    ray = backend_of("ray")
    assert ray is not None
    rows: list[tuple[str, str]] = []
    with TemporaryDirectory() as name, ray.connect():
        folder = Path(name)
        run(scenario(99, "rounds=1", "runs=8"), out=folder)  # what is loaded once
        pairs = []
        for seed in range(REPETITIONS):
            by_forks, _ = seconds_of("forks", seed, folder / "forks")
            by_ray, start = seconds_of(ray.joined_name(), seed, folder / "ray")
            pairs.append((by_forks, by_ray, start))
        sent, receipt = size_and_receipt(folder)
    forks, on_ray, start = np.median(np.array(pairs), axis=0)
    ratios = [by_ray / by_forks for by_forks, by_ray, _ in pairs]
    from fedmem.processes import cores

    each = forks * cores() / 64
    rows += [
        ("ray to forks, median", f"{np.median(ratios):.3f}"),
        ("ray to forks, least", f"{min(ratios):.3f}"),
        ("ray to forks, most", f"{max(ratios):.3f}"),
        ("seconds by forks", f"{forks:.1f}"),
        ("seconds on ray", f"{on_ray:.1f}"),
        ("seconds until the first shard", f"{start:.1f}"),
        ("seconds of one run on one core", f"{each:.2f}"),
        ("kilobytes sent for one run", f"{sent / 1e3:.0f}"),
        ("milliseconds to receive one run", f"{1e3 * receipt:.2f}"),
    ]
    for nodes in NODES:
        workers = nodes * CORES
        size = max(1, min(16, RUNS // workers))
        whole = makespan(workers, RUNS // size, start=start, train=size * each, receive=size * receipt)
        ideal = RUNS * each / workers
        rows.append((f"{nodes} nodes: hours", f"{whole / 3600:.3f}"))
        rows.append((f"{nodes} nodes: share of the ideal rate", f"{ideal / whole:.2f}"))
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("quantity", "value"))
        table.writerows(rows)
    for row in rows:
        print("  ".join(row))


if __name__ == "__main__":
    main()
