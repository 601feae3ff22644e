"""The table of figures to reach: each row is a ratio of two measurements of the same repetition."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.contest import Contender, Samples

Value = Callable[[Samples, int], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: its workload, what it says, how it follows from the samples of a repetition, and its target.

    `better` says on which side of the target the figure should lie; without a target it is for information.
    """

    workload: str
    text: str
    value: Value
    target: float | None = None
    better: Literal["above", "below"] = "above"
    unit: Literal["times", "share"] = "times"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A row with one value for each repetition; none where a contender is missing."""

    row: Row
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Over the repetitions; NaN without any."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def verdict(self) -> str:
        """Whether the median reaches the target.

        >>> row = Row(workload="W1", text="", value=lambda samples, i: 2.0, target=1.5, better="below")
        >>> Result(row=row, values=(1.4, 1.6, 1.2)).verdict
        'reached'
        """
        target = self.row.target
        if not self.values:
            return "not measured"
        if target is None:
            return ""
        return "reached" if (self.median >= target) == (self.row.better == "above") else "missed"


def evaluate(rows: Sequence[Row], samples: Samples, repetitions: int) -> list[Result]:
    """Every row from the samples; a contender that was skipped leaves its rows empty."""
    results = []
    for row in rows:
        try:
            values = tuple(row.value(samples, i) for i in range(repetitions))
        except KeyError:
            values = ()
        results.append(Result(row=row, values=values))
    return results


# --- contenders ---------------------------------------------------------------------------------------------------


def ours(measure: str, workload: str, server: str) -> Contender:
    """fedmem, by Flower's messages or by the strategy's rule."""
    return Contender(
        name=f"fedmem {server} {measure} {workload}",
        module="benchmarks.ours",
        arguments=(measure, workload, "--server", server),
        wants_plan=False,
    )


def other(name: str, module: str, *, peer: str | None = None, **settings: int) -> Contender:
    """Somebody else, with threads, workers, rounds and runs."""
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    essential = module == "plain"
    return Contender(
        name=name, module=f"benchmarks.{module}", arguments=tuple(arguments), peer=peer, essential=essential
    )


def rivals(rounds: int, *, small: bool, peers: bool) -> list[Contender]:
    """Everybody else in the setting that suits them: one thread for small networks, both cores for large ones."""
    threads = 1 if small else 2
    found = [
        other("plain loop", "plain", rounds=rounds),
        other("plain loop, 2 processes", "plain", rounds=rounds, workers=2),
        other("Flower, 2 actors", "flower_sim", rounds=rounds, workers=2),
        other("Flower, 1 actor", "flower_sim", rounds=rounds, workers=1, threads=threads),
    ]
    if peers:
        found += [
            other("pfl", "peers.pfl", peer="pfl", rounds=rounds, threads=threads),
            other("FedLab", "peers.fedlab", peer="fedlab", rounds=rounds, threads=threads),
            other("BlazeFL", "peers.blazefl", peer="blazefl", rounds=rounds, workers=threads),
            other("FedJAX", "peers.fedjax", peer="fedjax", rounds=rounds),
        ]
    return found


FLOWER = ("Flower, 2 actors", "Flower, 1 actor")
OTHERS = ("plain loop", "plain loop, 2 processes", "pfl", "FedLab", "BlazeFL", "FedJAX")


# --- values -------------------------------------------------------------------------------------------------------


def fastest(samples: Samples, names: Sequence[str]) -> str:
    """The one of these with the smallest median; `KeyError` if none of them ran."""
    there = [name for name in names if samples.get(name)]
    if not there:
        raise KeyError(names)
    return min(there, key=lambda name: statistics.median(sample.trained.value for sample in samples[name]))


def against(names: Sequence[str], own: str) -> Value:
    """Seconds of the fastest of these over ours: how many times faster ours is."""
    return lambda samples, i: samples[fastest(samples, names)][i].trained.value / samples[own][i].trained.value


def quotient(one: str, two: str) -> Value:
    """The value of one contender over that of another."""
    return lambda samples, i: samples[one][i].trained.value / samples[two][i].trained.value


def whole(names: Sequence[str], own: str, times: int = 1) -> Value:
    """Processes from start to end: so many times the fastest of these, over ours."""

    def value(samples: Samples, i: int) -> float:
        there = [samples[name][i].whole for name in names if samples.get(name)]
        if not there:
            raise KeyError(names)
        return times * min(there) / samples[own][i].whole

    return value


def within(one: tuple[str, str], two: tuple[str, str]) -> Value:
    """Something that a contender measured over something that the same or another one measured."""

    def value(samples: Samples, i: int) -> float:
        above, below = (float(samples[name][i].trained.params[what]) for name, what in (one, two))
        return above / below

    return value


def itself(name: str) -> Value:
    """The value of a contender, which is a share already."""
    return lambda samples, i: samples[name][i].trained.value


def apart(planned: str, written: str) -> Value:
    """How far a value is from the one that it foretells, as a share of that."""
    return lambda samples, i: abs(samples[planned][i].trained.value / samples[written][i].trained.value - 1)


def held(name: str) -> Value:
    """The memory that a contender takes beyond its start, as a share of the values that it works on."""

    def value(samples: Samples, i: int) -> float:
        params = samples[name][i].trained.params
        return float((params["peak"] - params["start"]) / params["values"])

    return value


def over_price(dearer: str, cheaper: str, training: str, price: str) -> Value:
    """What a contender takes longer than another, as a share of training, over the share that was announced."""

    def value(samples: Samples, i: int) -> float:
        long, short, base, share = (samples[name][i].trained.value for name in (dearer, cheaper, training, price))
        return (long - short) / base / share

    return value


def achieved(name: str, gigaflops: float, kernel: str) -> Value:
    """The rate of a workload's own arithmetic as a share of the kernel's rate."""
    return lambda samples, i: gigaflops / samples[name][i].trained.value / samples[kernel][i].trained.value
