"""What all contenders have in common: a process that trains a plan, and says how long a round took. numpy alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan import Arrays, Plan


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a contender is run: torch threads in each process, processes or actors, rounds, and federations."""

    threads: int = 1
    workers: int = 1
    rounds: int
    runs: int = 1


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a contender ends with: the weights of its last federation, and what it measured.

    `value` is the seconds of one round of one federation, once under way, unless a contender says otherwise.
    """

    params: Arrays
    value: float


Train = Callable[[Plan, Setting], Trained]


class Clock:
    """Stamps at the end of every round; the first rounds, in which things are set up, do not count.

    >>> clock = Clock()
    >>> for _ in range(5):
    ...     clock.round()
    >>> 0 <= clock.seconds() < 1
    True
    """

    def __init__(self) -> None:
        self._stamps = [time.perf_counter()]

    def round(self) -> None:
        """A round has ended."""
        self._stamps.append(time.perf_counter())

    def seconds(self) -> float:
        """Mean seconds of a round after the first fifth of them (one at least, if there are two)."""
        rounds = len(self._stamps) - 1
        skipped = min(rounds - 1, max(1, rounds // 5))
        return (self._stamps[-1] - self._stamps[skipped]) / (rounds - skipped)


def main(train: Train, arguments: Sequence[str] | None = None) -> None:
    """The command of a contender: `--plan FILE --out FILE --rounds N`, and how."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    names = ("rounds", "threads", "workers", "runs")
    for name in names:
        parser.add_argument(f"--{name}", type=int, default=1)
    given = parser.parse_args(arguments)
    setting = Setting(**{name: getattr(given, name) for name in names})
    write(given.out, train(Plan.load(given.plan), setting))


def write(path: Path, trained: Trained) -> None:
    """Weights and value as an npz."""
    arrays: dict[str, Any] = {"_value": np.array(trained.value), **trained.params}
    np.savez(path, **arrays)


def read(path: Path) -> Trained:
    """What `write` has written."""
    with np.load(path, allow_pickle=False) as file:
        params = {name: file[name] for name in file if name != "_value"}
        return Trained(params=params, value=float(file["_value"]))
