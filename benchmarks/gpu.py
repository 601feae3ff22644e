"""What a GPU gains: `python -m benchmarks.gpu [--quick] [--precision bf16]`, on a machine with a GPU of NVIDIA.

| row | GPU | against | at least |
|---|---|---|---|
| W4 | 64 federations of a small network | two processes of the processor | 10 times |
| CNN | 64 federations of W2 | two processes of the processor | 25 times |
| adapters | operations a second of 32 federations that train adapters | those of a dense product of their size | 40 % |

Whole trainings are timed, by the clock, without building and writing. The processor trains fewer federations of the
CNN, and its time is taken to be proportional. An adapter needs no gradient of the weights that it is added to. So a
step counts as a forward pass and a backward pass of the same size. Nothing is stored; copy the lines, with the card,
to `docs/speed.md`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import adapters
from benchmarks.workloads import Workload, bank, convolutions
from fedmem.errors import FedmemError
from fedmem.execution.devices import card_of
from fedmem.execution.shard_store import Shards
from fedmem.execution.sharding import train
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.operations import count_operations
from fedmem.training.precision import products_of_steps

CORES = 2
REPEATS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each row and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few federations and rounds: says nothing about speed")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"], help="of the GPU")
    parser.add_argument("--device", default="cuda", choices=["cuda", "mps", "cpu"], help="cpu tries the program itself")
    given = parser.parse_args(arguments)
    speed = {"device": given.device, "precision": given.precision}
    print(f"{card_of(given.device) or given.device}, {given.precision}, torch {torch.__version__}")
    runs, rounds = (2, 1) if given.quick else (64, None)
    print(f"W4: {_times_faster(bank(runs), speed, rounds, runs):.1f} times as fast as {CORES} cores (at least 10)")
    images = convolutions(clients=20, rows=20) if given.quick else convolutions()
    cnns = replace(images, settings={**images.settings, "runs": runs})
    print(f"CNN: {_times_faster(cnns, speed, rounds, CORES):.1f} times as fast as {CORES} cores (at least 25)")
    try:
        share = _share_of_dense_rate(speed, runs=2 if given.quick else adapters.RUNS)
    except FedmemError as error:
        print(f"adapters: not measured: {error}")
    else:
        print(f"adapters: {100 * share:.0f} % of the rate of a dense product (at least 40)")


def _times_faster(workload: Workload, speed: dict[str, Any], rounds: int | None, runs_of_cpu: int) -> float:
    """How many times as long a federation takes on the processor."""
    whole = workload.scenario(rounds=rounds, **speed, shard=10**5)
    fewer = workload.scenario(rounds=rounds, runs=runs_of_cpu, workers=CORES, shard=max(1, runs_of_cpu // CORES))
    _seconds(workload.scenario(rounds=1, **speed, shard=10**5))  # warm
    return (_seconds(fewer) / fewer.runs) / (_seconds(whole) / whole.runs)


def _seconds(scenario: Scenario) -> float:
    """How long a training takes, with tracing and the storing of its shards."""
    federation = build(scenario)
    with tempfile.TemporaryDirectory() as folder:
        return _time(lambda: train(scenario, federation, Shards(Path(folder), None), watch=False))


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _share_of_dense_rate(speed: dict[str, Any], runs: int) -> float:
    """Operations a second of a bank of adapters in every block, relative to a dense product."""
    scenario = adapters.scenario_of("every block", runs)
    scenario = scenario.model_copy(update={"speed": scenario.speed.model_copy(update={**speed, "shard": 10**5})})
    federation = build(scenario)
    rows = sum(len(federation.rows(run, client, 1)) for run in range(runs) for client in range(federation.num_clients))
    inputs = torch.from_numpy(federation.store.inputs[:1])
    operations = 2 * count_operations(lambda: federation.model(inputs)) * rows * scenario.rounds
    _seconds(scenario)  # warm
    tokens = 8 * inputs.shape[1] * runs * federation.num_clients
    return operations / _seconds(scenario) / _dense_rate(speed, tokens)


def _dense_rate(speed: dict[str, Any], rows: int) -> float:
    """Operations a second of the product of (rows, 384) and (384, 1536), a layer of MiniLM."""
    dtype = torch.bfloat16 if speed["precision"] == "bf16" else torch.float32
    a, b = (torch.rand(shape, device=speed["device"], dtype=dtype) for shape in ((rows, 384), (384, 1536)))
    with products_of_steps(speed["precision"]):
        seconds = [_time(lambda: a @ b) for _ in range(REPEATS)]
    return 2 * rows * 384 * 1536 / statistics.median(seconds)


if __name__ == "__main__":
    main()
