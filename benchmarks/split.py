"""What the time of a round consists of: `make split` prints the table of docs/how-a-round-runs.md.

Functions are timed from outside, each without those that it calls and that are timed as well.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import workloads
from fedmem.engines import _message_path, _rule_path, _scheduler
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.observation import observer
from fedmem.strategies import fedavg
from fedmem.training import client_work, stacked

message_path: Any = _message_path

RUNS = 16
"""One shard."""

Part = tuple[str, Any, str]

PARTS: list[Part] = [
    ("local steps", stacked.Stacked, "_all_steps"),
    ("stacking and unstacking", stacked.Stacked, "train_all"),
    ("rows and batches of each client", client_work.LocalWork, "of"),
    ("aggregation by the rule", fedavg.FedAvg, "rule"),
    ("arrays of the cohort for the rule", _rule_path, "_stacked_round"),
    ("reading messages, writing replies", message_path.MessagePath, "_answer"),
    ("Flower's strategy and Observed", _scheduler, "in_step"),
    ("logits of the models looked at", stacked.Stacked, "logits"),
    ("margins, ranks and quantiles", observer, "evidence_of"),
    ("margins, ranks and quantiles", observer, "rank_of"),
    ("probes", observer._Observer, "_probe"),
]


def main() -> None:
    """Print one table for a bank that nobody watches, by both ways to the server, and one for what watching adds."""
    plain = workloads.watched(RUNS, observe=False)
    seen = workloads.watched(RUNS)
    rows = {
        "rule": split(plain, {"server": "rule"}, watch=False),
        "messages": split(plain, {"server": "messages"}, watch=False),
        "rule, watched": split(seen, {"server": "rule"}, watch=True),
    }
    names = [*dict.fromkeys(name for name, _, _ in PARTS), "everything else"]
    print(f"| share of a round, {RUNS} runs of W1 | " + " | ".join(rows) + " |")
    print("|---|" + "---|" * len(rows))
    for name in names:
        print(f"| {name} | " + " | ".join(_share(found, name) for found in rows.values()) + " |")


def _share(found: dict[str, float], name: str) -> str:
    return f"{100 * found[name] / sum(found.values()):.0f} %" if found[name] else ""


def split(workload: workloads.Workload, speed: dict[str, Any], *, watch: bool) -> dict[str, float]:
    """Seconds of a training by part."""
    scenario = workload.scenario(rounds=workload.rounds, executor="stacked", workers=1, **speed)
    federation = build(scenario)
    simulate(scenario, federation, watch=watch)
    with _timed() as seconds:
        started = time.perf_counter()
        simulate(scenario, federation, watch=watch)
        total = time.perf_counter() - started
    seconds["everything else"] = total - sum(seconds.values())
    return seconds


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Counts seconds by part, exclusive of other parts, while it lasts."""
    seconds: dict[str, float] = defaultdict(float)
    inner: list[float] = []

    def timing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                taken = time.perf_counter() - started
                seconds[name] += taken - inner.pop()
                if inner:
                    inner[-1] += taken

        return timed

    originals = [(place, attribute, getattr(place, attribute)) for _, place, attribute in PARTS]
    originals.append((message_path, "in_step", message_path.in_step))
    for name, place, attribute in PARTS:
        setattr(place, attribute, timing(name, getattr(place, attribute)))
    message_path.in_step = _scheduler.in_step
    try:
        yield seconds
    finally:
        for place, attribute, original in originals:
            setattr(place, attribute, original)


if __name__ == "__main__":
    main()
