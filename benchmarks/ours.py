"""fedmem itself: a scenario through `fedmem.execution.bank.simulate`, in a process of its own.

`python -m benchmarks.ours MEASURE WORKLOAD --out FILE`; see `MEASURES` for what each measures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.contender import Trained, write
from benchmarks.plan import Arrays
from benchmarks.workloads import Workload
from fedmem.contracts.evidence import TrainedBank
from fedmem.execution.bank import simulate
from fedmem.execution.plan import plan
from fedmem.execution.shard_lock import claim
from fedmem.execution.sharding import train as train_sharded
from fedmem.federation.build import build
from fedmem.scenario.saving import Save
from fedmem.training import executor

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "W1": workloads.perceptron,
    "W2": workloads.convolutions,
    "W3": workloads.characters,
    "W4": workloads.bank,
    "bank of W1": lambda: workloads.watched(observe=False),
    "bank of W1, observed": workloads.watched,
    "16 runs of W1": lambda: workloads.watched(16, observe=False),
    "16 runs of W1, observed": lambda: workloads.watched(16),
    "16 runs of W1, signals": lambda: workloads.watched(16, signals=True),
    "few clients": lambda: workloads.perceptron(clients=100, rows=10),
    "many clients": lambda: workloads.perceptron(clients=100_000, rows=10),
}


def agreement(workload: Workload, speed: dict[str, Any]) -> Trained:
    """The weights after two rounds, which are held against the plain loop; nothing is timed."""
    scenario = workload.scenario(rounds=2, **speed)
    shown = simulate(scenario, build(scenario), watch=False)
    return Trained(params=_arrays(shown, -1), value=0.0)


def per_round(workload: Workload, speed: dict[str, Any]) -> Trained:
    """Seconds of a round: a whole training less a short one, in a process that is warm."""
    federation = build(workload.scenario())
    short = max(1, workload.rounds // 5)
    _timed(workload, federation, short, speed)
    _, few = _timed(workload, federation, short, speed)
    shown, many = _timed(workload, federation, workload.rounds, speed)
    return Trained(params=_arrays(shown), value=(many - few) / (workload.rounds - short))


def whole(workload: Workload, speed: dict[str, Any]) -> Trained:
    """Nothing but one training from beginning to end: whoever started the process times it."""
    scenario = workload.scenario(**speed)
    shown = simulate(scenario, build(scenario), watch=False)
    return Trained(params=_arrays(shown), value=0.0)


def bank(workload: Workload, speed: dict[str, Any]) -> Trained:
    """Seconds of a round of one of the runs that are trained together: the whole bank, workers' start included."""
    federation = build(workload.scenario())
    _timed(workload, federation, 2, speed)
    scenario = workload.scenario(**speed).model_copy(update={"save": Save(params=True)})
    with tempfile.TemporaryDirectory() as place, claim(Path(place) / "bank") as shards:
        started = time.perf_counter()
        shown, _ = train_sharded(scenario, federation, shards, watch=False)
        seconds = time.perf_counter() - started
    return Trained(params=_arrays(shown, -1), value=seconds / workload.rounds / federation.audit.runs)


def watching(workload: Workload, speed: dict[str, Any]) -> Trained:
    """Seconds of the whole bank, with evidence and probes where the workload asks for them."""
    federation = build(workload.scenario())
    observed = workload.scenario().observe.every is not None
    short: dict[str, Any] = {"observe": {}, "probes": (), "signals": ()}
    warm = Workload(
        name=workload.name, network=workload.network, settings={**workload.settings, **short}, rounds=workload.rounds
    )
    simulate(warm.scenario(rounds=2, **speed), federation, watch=observed)
    shown, seconds = _timed(workload, federation, workload.rounds, speed, watch=observed)
    return Trained(params=_arrays(shown, -1), value=seconds)


def price(workload: Workload, speed: dict[str, Any]) -> Trained:
    """The share of training that signals add, as `fedmem check` says it; nothing is timed."""
    scenario = workload.scenario(**speed)
    planned = plan(scenario, build(scenario))
    return Trained(params={}, value=planned.signals.passes / (3 * planned.examples))


def outside(workload: Workload, speed: dict[str, Any]) -> Trained:
    """The share of time outside `Executor.attempt_all` and `Executor.logits`, on one worker, all of it seen here.

    Time inside these is training and evidence evaluation as the executor is asked for it, its own bookkeeping included.
    """
    speed = {**speed, "workers": 1}
    federation = build(workload.scenario())
    _timed(workload, federation, 2, speed)
    with _counted() as inside:
        shown, seconds = _timed(workload, federation, workload.rounds, speed)
    return Trained(params=_arrays(shown, -1), value=1 - inside[0] / seconds)


@contextmanager
def _counted() -> Iterator[list[float]]:
    """Sums the seconds spent in the outermost call of an executor's methods."""
    total, depth = [0.0], [0]

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            depth[0] += 1
            try:
                return method(*arguments, **named)
            finally:
                depth[0] -= 1
                total[0] += 0.0 if depth[0] else time.perf_counter() - started

        return counted

    own = [
        (kind, name, vars(kind)[name])
        for kind in (executor.BaseExecutor, *executor.BaseExecutor.__subclasses__())
        for name in ("train_all", "attempt_all", "logits")
        if name in vars(kind)
    ]
    for kind, name, method in own:
        setattr(kind, name, counting(method))
    try:
        yield total
    finally:
        for kind, name, method in own:
            setattr(kind, name, method)


def _timed(
    workload: Workload, federation: Any, rounds: int, speed: dict[str, Any], watch: bool = False
) -> tuple[TrainedBank, float]:
    scenario = workload.scenario(rounds=rounds, **speed)
    started = time.perf_counter()
    shown = simulate(scenario, federation, watch=watch)
    return shown, time.perf_counter() - started


def _arrays(shown: TrainedBank, run: int = 0) -> Arrays:
    return {name: value.numpy() for name, value in shown.params[run].items()}


MEASURES = {
    "agreement": agreement,
    "round": per_round,
    "whole": whole,
    "bank": bank,
    "watching": watching,
    "outside": outside,
    "price": price,
}


def main() -> None:
    """The command of this contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--server", default="messages")
    given = parser.parse_args()
    write(given.out, MEASURES[given.measure](WORKLOADS[given.workload](), {"server": given.server}))


if __name__ == "__main__":
    main()
