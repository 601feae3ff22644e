"""The cost of training on Ray: as a ratio to forks on this machine, and on larger clusters by calculation.

`python -m benchmarks.backends` trains a bank of 64 federations of a small convolutional network by forks and on a local
Ray cluster with as many workers, turn by turn, and writes `backends.csv` beside this file. The cluster is there before;
the workers are not, so that their start, their imports and their federations count. The aim is a ratio below 1.10.

Then it calculates how long a bank of R runs takes on N workers. Workers are started one after the other, at the rate
that Ray's own benchmarks have. A worker begins s seconds later, takes the next shard of k runs as soon as it has none,
and needs k·t seconds for it. The machine that asks hands out and receives one shard after the other, each in h seconds.
Values of s, t and h are measured: h with workers that train nothing and send at once what a real shard sends. Networks
are assumed to be faster than that, and what they would have to carry is said.
"""

from __future__ import annotations

import csv
import heapq
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedmem.contracts.events import Event, ShardStarted
from fedmem.execution.archives import pack
from fedmem.execution.backends.contract import Backend
from fedmem.execution.remote_shards import ShardJob, TrainedShard
from fedmem.execution.run import run
from fedmem.processes import Do
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario

TABLE = Path(__file__).with_name("backends.csv")
REPETITIONS = 3
SENT = 400
"""Shards that are sent to measure how fast they are received."""

NODES = (1, 10, 100, 1000)
CORES = 32
"""Workers of a node of the cluster that is calculated."""

STARTED = 389.0
"""Workers that Ray starts in a second: 10,000 in 25.7 s, by the log of Ray's release 1.12 (`many_actors.json`)."""

SHARD = 16
"""Runs of a whole shard."""

COLUMNS = ("minutes", "share of the ideal rate", "megabytes received in a second")
"""What is calculated for each number of nodes."""

RUNS = 32_000
"""Runs of the bank that is calculated, for example a sweep of 500 scenarios with 64 runs each."""

TEXT = """
name: bank_of_networks
runs: 64
rounds: 4
clients: 10
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 0.5}
model: {kind: small_cnn}
injections: [{kind: mislabelled, per_client: 2}, {kind: typical, per_client: 2}]
client: {kind: sgd, lr: 0.1, epochs: 5, batch_size: 16}
observe: {every: 4}
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


def makespan(
    workers: int, shards: int, *, start: float, train: float, receive: float, rate: float = float("inf")
) -> float:
    """Seconds until the last shard is received.

    Args:
        workers: How many train.
        shards: How many there are.
        start: Seconds before a worker can begin.
        train: Seconds of a worker for a shard.
        receive: Seconds in which a shard is received, one after the other.
        rate: Workers that are started in a second.

    >>> makespan(2, 4, start=1.0, train=10.0, receive=0.0)
    21.0
    >>> makespan(4, 4, start=0.0, train=10.0, receive=3.0)
    22.0
    """
    ready = [start + number / rate for number in range(min(workers, shards))]
    heapq.heapify(ready)
    free = 0.0
    for _ in range(shards):
        done = heapq.heappop(ready) + train
        free = max(free, done) + receive
        heapq.heappush(ready, free)
    return free


@dataclass(frozen=True)
class Sender:
    """Makes a worker that sends the same files for each shard, at once."""

    files: bytes

    def __call__(self) -> Do[ShardJob, Event, TrainedShard]:
        """The work: nothing."""
        return lambda job, report: TrainedShard(shard=job[0], failures={}, files=self.files)


def size_and_receipt(ray: Backend, folder: Path, runs: int) -> tuple[float, float]:
    """Bytes that a shard of so many runs sends, and the seconds to hand it out, receive it and store it."""
    from fedmem.execution.shard_store import Shards
    from fedmem.execution.sharding import ShardTrainer, made_with
    from fedmem.federation.build import build
    from fedmem.processes import cores

    short = scenario(0, "rounds=1", "runs=16")
    federation = build(short)
    there, here = Shards(folder / "there", None), Shards(folder / "here", None)
    there.made_from = here.made_from = made_with(short, federation)
    first = range(runs)
    ShardTrainer(short, federation, 1, True, None)((first, {}), lambda event: None, there)
    packed = pack(there.folder_of(first))
    pool = ray.pool(Sender(packed), lambda name, event: None, workers=cores(), threads=1, gpu=False)
    with pool as working:
        for number in range(cores()):  # workers have begun
            working.start(f"first {number}", (first, {}))
        for _ in range(cores()):
            working.wait_for_one()
        begun = time.perf_counter()
        for number in range(SENT):
            if number >= cores():
                here.install(first, working.wait_for_one()[1].files)
            working.start(str(number), (first, {}))
        for _ in range(min(SENT, cores())):
            here.install(first, working.wait_for_one()[1].files)
        return len(packed), (time.perf_counter() - begun) / SENT


def calculated(
    *, start: float, each: float, one: tuple[float, float], full: tuple[float, float]
) -> list[tuple[str, str]]:
    """What the bank of `RUNS` runs would take on each number of nodes.

    Args:
        start: Seconds before a worker can begin.
        each: Seconds of a worker for one run.
        one: Bytes of a shard of one run, and the seconds in which the machine that asks hands out and receives it.
        full: The same of a shard of `SHARD` runs; what lies between is interpolated.
    """
    rows = []
    for nodes in NODES:
        workers = nodes * CORES
        size = max(1, min(SHARD, RUNS // workers))
        sent, receipt = (a + (b - a) * (size - 1) / (SHARD - 1) for a, b in zip(one, full, strict=True))
        seconds = makespan(workers, RUNS // size, start=start, train=size * each, receive=receipt, rate=STARTED)
        rows += [
            (f"{nodes} nodes: minutes", f"{seconds / 60:.1f}"),
            (f"{nodes} nodes: share of the ideal rate", f"{RUNS * each / workers / seconds:.3f}"),
            (f"{nodes} nodes: megabytes received in a second", f"{RUNS / size * sent / 1e6 / seconds:.1f}"),
        ]
    return rows


def table_of(values: dict[str, str]) -> str:
    """What was calculated, as the table of `docs/cluster.md`."""
    lines = [
        "| nodes of 32 cores | minutes | share of the ideal rate | megabytes received in a second |",
        "|---|---|---|---|",
    ]
    for nodes in NODES:
        cells = [values[f"{nodes} nodes: {name}"] for name in COLUMNS]
        lines.append(f"| {' | '.join([str(nodes), *cells])} |")
    return "\n".join(lines)


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
        one, full = (size_and_receipt(ray, folder / str(size), size) for size in (1, SHARD))
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
        *(
            row
            for size, (sent, receipt) in ((1, one), (SHARD, full))
            for row in (
                (f"kilobytes of a shard of {size}", f"{sent / 1e3:.0f}"),
                (f"milliseconds to hand out and receive a shard of {size}", f"{1e3 * receipt:.1f}"),
            )
        ),
    ]
    rows += calculated(start=start, each=each, one=one, full=full)
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("quantity", "value"))
        table.writerows(rows)
    for row in rows:
        print("  ".join(row))


if __name__ == "__main__":
    main()
