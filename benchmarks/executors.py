"""What stacking and the rule path are worth, as ratios in one process: `make bench`.

Alternates the ways of training one bank (32 runs of the quickstart's federation, nothing observed) and prints medians
of ratios with their range; bare times are not comparable between machines.
"""

from __future__ import annotations

import statistics
import time

from fedmem.bank import simulate
from fedmem.federation import build
from fedmem.scenario import load_scenario

REPEATS = 5
WAYS = {
    "one by one, messages": ["speed.executor=one_by_one"],
    "stacked, messages": ["speed.executor=stacked"],
    "stacked, rule": ["speed.executor=stacked", "speed.server=rule"],
}


def main() -> None:
    """Time each way in turn, `REPEATS` times."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for way, settings in WAYS.items():
            scenario = load_scenario(
                "scenarios/quickstart.yaml",
                ["rounds=4", "observe.every=4", "observe.rounds=[]", "probes=[]", "estimators=[]", *settings],
            )
            federation = build(scenario)
            started = time.perf_counter()
            simulate(scenario, federation, watch=False)
            seconds[way].append(time.perf_counter() - started)
    reference = seconds["one by one, messages"]
    print(f"speed relative to one by one with messages, median of {REPEATS} (range)")
    for way, taken in seconds.items():
        ratios = sorted(a / b for a, b in zip(reference, taken, strict=True))
        print(f"{way:24}{statistics.median(ratios):6.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
