"""The table of results, for the terminal and for `results.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.matches import Match
from benchmarks.rows import Result

METHOD = """\
How it was measured. Every contender is a process of its own; they are run in turn, then in the opposite order, so that
all meet the same neighbours. A figure is a quotient of two measurements of the same repetition: the median over the
repetitions, and the range. *times*: how many times faster fedmem is, unless the row says otherwise.

All train the same rows with the same network, batch size, learning rate, initial weights and number of batches; W1 to
W4 are those of `workloads.py`. The plain loop, pfl, FedLab, BlazeFL and FedJAX are given the very batches of fedmem,
and their weights after two rounds are held against the plain loop's. Flower's simulation draws cohorts and shuffles
rows itself. Nothing is observed, but for the row about probes.

Start-up is left out: others are timed from round to round once under way; of fedmem, a short training is subtracted
from a whole one. Banks are whole trainings after a warm-up, start of workers included. *Whole processes* are timed from
outside, from the start of Python to its end. Peers run in the better of one thread and both cores. W4: 40 % of the rows
are in every run and each of the others in half of the runs, so that a run trains on 70 % of the rows on average, where
a client may have 20 to 50; the plain loop trains the same lists. 64 simulations of Flower are one of them, 64 times.

Attacks: all minimise the same distance by the same optimiser, from the same starts, as often, without total variation.
fedmem attacks 64 victims at once on all cores, start of processes included; the others one after another on one thread.
"""


def figure(result: Result) -> str:
    """Median and range.

    >>> from benchmarks.rows import Row
    >>> row = Row(workload="W1", text="one run", value=lambda samples, i: 0.0)
    >>> figure(Result(row=row, values=(12.0, 10.0, 11.5)))
    '11.5 (10.0 to 12.0)'
    """
    if not result.values:
        return "-"
    median, low, high = (_number(value, result) for value in (result.median, min(result.values), max(result.values)))
    return f"{median} ({low} to {high})" if len(result.values) > 1 else median


def target(result: Result) -> str:
    """The figure to reach, in the words of the table."""
    if result.row.target is None:
        return ""
    word = "at least" if result.row.better == "above" else "below"
    return f"{word} {_number(result.row.target, result)}"


def _number(value: float, result: Result) -> str:
    if result.row.unit == "share":
        return f"{value:.0%}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    lines = ["| workload | figure | measured | target | |", "|---|---|---|---|---|"]
    for result in results:
        cells = (result.row.workload, result.row.text, figure(result), target(result), result.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was measured of one workload: the values of each row by its text, where, and what was remarked."""

    machine: str
    repetitions: int
    values: dict[str, list[float]]
    remarks: list[str]


def read(path: Path) -> dict[str, Part]:
    """What is kept of each workload; nothing without the file."""
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return {title: Part(**part) for title, part in kept.items()}


def write(path: Path, parts: Mapping[str, Part]) -> None:
    """As `read` reads them."""
    path.write_text(json.dumps({title: asdict(part) for title, part in parts.items()}, indent=1) + "\n")


def page(matches: Sequence[Match], parts: Mapping[str, Part]) -> str:
    """`results.md`: the table of these matches with what is kept of them, the method, and what was remarked."""
    results = [
        Result(row=row, values=tuple(parts[match.title].values.get(row.text, ())))
        for match in matches
        if match.title in parts
        for row in match.figures
    ]
    there = [(match.title, parts[match.title]) for match in matches if match.title in parts]
    machines = "\n".join(
        f"- {', '.join(titles)}: {described}"
        for described, titles in _grouped((f"{part.machine}; repetitions: {part.repetitions}", t) for t, part in there)
    )
    said = "".join(f"- {remark}\n" for _, part in there for remark in part.remarks)
    return f"<!-- written by make bench -->\n# How fast\n\n{machines}\n\n{table(results)}\n\n{METHOD}" + (
        f"\nRemarks\n\n{said}" if said else ""
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.items())
