"""What a finished run says, as sections of a table: text cells from stored rows, not yet drawn on any medium.

Local beside global, measure by measure; what aggregation retains; differences in words; utility. A value that the
data do not resolve is called so, and every value stands with its interval and its n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedmem.results import Run
from fedmem.types import EVERYWHERE, FINAL

CAPTION = (
    "local: the model of the client that holds the example, after its own training and before aggregation; "
    "global: the aggregate of the same round. Each example is read at the last observed round in which its holder "
    "took part. In brackets 95 % intervals; n counts audit examples."
)

VIEWS = {
    "message": "a client's real message",
    "aggregate": "the aggregate",
    "first_step": "a client's first step alone, which no server sees",
}
"""The views of an update that a reconstruction is made from, in the order of the table."""

_ATTACKS = {"lira": "LiRA", "loss_threshold": "loss threshold", "rmia": "RMIA"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """One number with its interval, how much stands behind it, and the false positive rate it was taken at."""

    value: float
    low: float
    high: float
    n: int
    fpr: float = math.nan

    def text(self, digits: int) -> str:
        """`3.42 [3.10, 3.75]`."""
        if math.isnan(self.value):
            return "–"
        ends = ", ".join(number(end, digits) for end in (self.low, self.high))
        return f"{number(self.value, digits)} [{'no interval' if math.isnan(self.low + self.high) else ends}]"

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes zero; without an interval nothing is resolved."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How one measure is found among the rows (`parts` are the words of its setting, the place apart) and named."""

    metric: str
    title: str
    null: float
    unit: str = ""
    digits: int = 3
    parts: frozenset[str] = frozenset()
    headline: bool = True

    @property
    def slug(self) -> str:
        """A name for files."""
        words = "_".join([*sorted(self.parts), self.metric])
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in words)

    @property
    def heading(self) -> str:
        """The title with its unit and the value that no memorisation gives."""
        null = "that FPR" if math.isnan(self.null) else f"{self.null:.3g}"
        return f"{self.title}{f', {self.unit}' if self.unit else ''} (without memorisation: {null})"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the table: blocks of rows under headings, all cells text; `notes` are sentences below it."""

    title: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...] = ()


class Summary:
    """The rows of a run that belong to no single run or client, found by what they are about."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.kinds: tuple[str, ...] = tuple(dict.fromkeys(run.audit["kind"].tolist()))
        self.rows = [row for row in run.rows() if row.run == row.client == EVERYWHERE]
        self._values: dict[tuple[int, str, str, str, frozenset[str]], Value] = {}
        for row in self.rows:
            reading = row.reading
            words = frozenset(filter(None, reading.setting.split(",")))
            rates = [float(word.removeprefix("fpr=")) for word in words if word.startswith("fpr=")]
            parts = frozenset(word for word in words if not word.startswith("fpr="))
            key = (row.round, reading.metric, row.level, reading.subject, parts)
            fpr = min(rates, default=math.nan)
            if key not in self._values or fpr < self._values[key].fpr:
                value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n, fpr=fpr)
                self._values[key] = value

    def value(self, metric: str, level: str, subject: str, *words: str, round: int = FINAL) -> Value | None:
        """The row with exactly these words in its setting; of several false positive rates the smallest."""
        return self._values.get((round, metric, level, subject, frozenset(words)))

    def settings(self, metric: str, *words: str, round: int = FINAL) -> list[tuple[str, str, frozenset[str], Value]]:
        """Level, subject, setting and value of every row of a metric whose setting has these words among others."""
        return [
            (level, subject, parts, value)
            for (when, name, level, subject, parts), value in self._values.items()
            if when == round and name == metric and parts.issuperset(words)
        ]

    def series(self, metric: str, level: str, subject: str, *words: str) -> list[tuple[int, Value]]:
        """A value over the observed rounds."""
        rounds = sorted({key[0] for key in self._values} - {FINAL})
        found = [(round, self.value(metric, level, subject, *words, round=round)) for round in rounds]
        return [(round, value) for round, value in found if value is not None]

    def examples(self, measure: Measure) -> dict[str, tuple[list[float], list[float]]]:
        """For each kind the local and the global values of the examples that have both."""
        pairs: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in self.kinds}
        for subject, kind in zip(self.run.audit["subject"].tolist(), self.run.audit["kind"].tolist(), strict=True):
            local = self.value(measure.metric, "local", str(subject), *measure.parts, "owner")
            everywhere = self.value(measure.metric, "global", str(subject), *measure.parts)
            if local and everywhere and math.isfinite(local.value) and math.isfinite(everywhere.value):
                pairs[kind][0].append(local.value)
                pairs[kind][1].append(everywhere.value)
        return pairs

    def _null(self, metric: str, *words: str) -> float:
        """The value without memorisation, NaN where it is not the same for all kinds."""
        nulls = {value.value for _, _, _, value in self.settings(f"{metric}.null", *words)}
        return nulls.pop() if len(nulls) == 1 else math.nan

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that this run has, in the order in which they are told."""
        found = []
        if self.settings("exposure"):
            found.append(
                Measure(metric="exposure", title="exposure", unit="bits", digits=2, null=self._null("exposure"))
            )
        if self.settings("memorisation"):
            found.append(Measure(metric="memorisation", title="memorisation (self-influence, −1 to 1)", null=0.0))
        attacks = {min(parts) for level, _, parts, _ in self.settings("auc") if level == "global"}
        for attack in sorted(attacks, key=lambda attack: (attack != "lira", attack)):
            parts, first = frozenset({attack}), attack == "lira" or "lira" not in attacks
            kind, _, changed = attack.partition(" ")
            name = f"{_ATTACKS.get(kind, kind)} {changed}".strip()
            found.append(Measure(metric="auc", title=f"{name} AUC", null=0.5, parts=parts, headline=first))
            if self.settings("tpr", attack):
                rate = self._null("tpr", attack)
                where = "the smallest FPR that the data support" if math.isnan(rate) else f"FPR {rate:.2g}"
                title = f"{name} TPR at {where}"
                found.append(Measure(metric="tpr", title=title, null=rate, parts=parts, headline=first))
        return tuple(found)


def sections(summary: Summary, *, everything: bool = False) -> Iterator[Section]:
    """The table part by part; with `everything` also control attacks and the models of the other clients."""
    measures = [measure for measure in summary.measures if measure.headline or everything]
    yield _levels(summary, measures, others=everything)
    yield _retention(summary, measures)
    yield _differences(summary, measures)
    yield _utility(summary)


def _levels(summary: Summary, measures: Sequence[Measure], *, others: bool) -> Section:
    """Local beside global, measure by measure, then reconstruction."""
    blocks = []
    for measure in measures:
        rows = []
        for kind in summary.kinds:
            owner = summary.value(measure.metric, "local", kind, *measure.parts, "owner")
            elsewhere = summary.value(measure.metric, "local", kind, *measure.parts, "others")
            everywhere = summary.value(measure.metric, "global", kind, *measure.parts)
            if owner or everywhere:
                shown = (owner, everywhere, elsewhere) if others else (owner, everywhere)
                rows.append((kind, _count(*shown), *(_cell(value, measure) for value in shown)))
        blocks.append((measure.heading, tuple(rows)))
    margins = {
        (kind, view): next(
            (value for _, about, _, value in summary.settings("margin", f"view={view}") if about == kind), None
        )
        for kind in summary.kinds
        for view in VIEWS
    }
    rows, notes = [], []
    for kind in summary.kinds:
        message, aggregate, first = (margins[kind, view] for view in VIEWS)
        blank = ("",) if others else ()
        if message or aggregate:
            cells = (_cell(message), _cell(aggregate))
            rows.append((kind, _count(message, aggregate), *cells, *blank))
        if first:
            rows.append((f"{kind}, first step", _count(first), _cell(first), "", *blank))
    for view, name in VIEWS.items():
        found = {kind: value for kind in summary.kinds if (value := margins[kind, view])}
        if found:
            notes.append(f"Reconstruction from {name}: {_verdict(found)}.")
    blocks.append(("reconstruction, dB of PSNR over the best prior (nothing leaked: 0 or less)", tuple(rows)))
    columns = ("", "n", "local", "global", *(("local, others",) if others else ()))
    return Section(title="LOCAL AND GLOBAL", columns=columns, blocks=tuple(blocks), notes=tuple(notes))


def _verdict(margins: Mapping[str, Value]) -> str:
    """What the margins of one view say about each kind, in words."""
    said: dict[str, list[str]] = {"better than the best prior": [], "worse than the best prior": [], "not resolved": []}
    for kind, value in margins.items():
        words = list(said)[(0 if value.low > 0 else 1) if value.resolved else 2]
        said[words].append(kind)
    return "; ".join(f"{words} for {', '.join(kinds)}" for words, kinds in said.items() if kinds)


def _retention(summary: Summary, measures: Sequence[Measure]) -> Section:
    """The share of the local effect that the aggregate keeps."""
    blocks = []
    for measure in measures:
        rows = []
        for kind in summary.kinds:
            for _, about, parts, value in summary.settings("retention", measure.metric, *measure.parts):
                if about == kind and parts - {"not resolved"} == measure.parts | {measure.metric}:
                    rows.append((kind, str(value.n), "not resolved" if "not resolved" in parts else value.text(2)))
        blocks.append((measure.title, tuple(rows)))
    note = "Not resolved: the interval of the local effect contains its null, so there is nothing to divide by."
    used = any(row[-1] == "not resolved" for _, rows in blocks for row in rows)
    return Section(
        title="RETENTION", columns=("", "n", "global / local"), blocks=tuple(blocks), notes=(note,) if used else ()
    )


def _differences(summary: Summary, measures: Sequence[Measure]) -> Section:
    """Local against global within a kind, then kinds against each other within a level."""
    blocks = []
    for measure in measures:
        between_levels, between_kinds = [], []
        for level, subject, parts, value in summary.settings(f"{measure.metric}.difference", *measure.parts):
            rest = parts - measure.parts - {"owner"}
            cells = (str(value.n), value.text(measure.digits))
            if rest == {"local-global"}:
                words = ("local lower", "local higher")[value.low > 0] if value.resolved else "unresolved"
                between_levels.append((f"{subject}: local − global", *cells, words))
            elif len(rest) == 1 and (other := min(rest).removeprefix(f"{subject}-")) in summary.kinds:
                words = ("lower", "higher")[value.low > 0] if value.resolved else "unresolved"
                between_kinds.append((level, (f"{subject} − {other}, {level}", *cells, words)))
        rows = between_levels + [row for _, row in sorted(between_kinds, key=lambda pair: pair[0] == "global")]
        blocks.append((measure.title, tuple(rows)))
    return Section(title="DIFFERENCES", columns=("", "n", "difference", ""), blocks=tuple(blocks))


def _utility(summary: Summary) -> Section:
    """What the models are good for."""
    rows = []
    for metric in ("test_accuracy", "generalisation_gap"):
        found = [summary.value(metric, level, "") for level in ("local", "global")]
        if any(found):
            rows.append(
                (metric.replace("_", " "), *(value.text(3) if value else "–" for value in found), _count(*found))
            )
    return Section(title="UTILITY", columns=("", "local", "global", "n (models)"), blocks=(("", tuple(rows)),))


def _cell(value: Value | None, measure: Measure | None = None) -> str:
    """A value as text, with its false positive rate where the heading does not have it."""
    if value is None:
        return "–"
    own = measure is not None and math.isnan(measure.null)
    return value.text(measure.digits if measure else 2) + (f" @ {value.fpr:.2g}" if own else "")


def _count(*values: Value | None) -> str:
    """How many stand behind the values of a row: one number, or one for each."""
    counts = [str(value.n) for value in values if value is not None]
    return counts[0] if len(set(counts)) == 1 else "/".join(counts)


def number(value: float, digits: int) -> str:
    """A number for people, never a negative zero."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def headline(run: Run) -> str:
    """One line about what was run."""
    scenario, audit = run.scenario, run.audit
    return (
        f"{scenario['name']}: {scenario['runs']} runs of {scenario['rounds']} rounds, {scenario['clients']} clients, "
        f"{len(audit)} audit examples, each in half of the runs"
    )
