"""The report of a finished run: one table for the terminal, figures and a page. Reads files on disk, nothing else."""

from __future__ import annotations

import base64
import html
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.measurement import FINAL
from fedmem.estimation.roc import null_tpr
from fedmem.estimation.saturation import Zone
from fedmem.reporting import drawing
from fedmem.reporting.cells import Section, Value, rate
from fedmem.reporting.image_sheets import sheets
from fedmem.reporting.summary import (
    CAPTION,
    Measure,
    Summary,
    alarms,
    also,
    headline,
    legend,
    picking,
    sections,
    warnings,
)
from fedmem.reporting.text_sheets import passages_html
from fedmem.results.read import Run, put, read

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

NO_LIMIT = 10_000
"""The width of what has none, such as a file."""

_LEAST = 14
"""The narrowest column of labels."""

_PROSE = 100
"""Sentences are broken here at the latest, however wide the terminal."""

MEANING: Mapping[str, tuple[str, str]] = {
    "exposure": (
        "How many bits of its rank an inserted canary gives away: log2 of how far up the model ranks it among fresh "
        "canaries that could have been inserted instead. One bit more means that half as many are ranked above it.",
        "It is not self-influence: it shows the worst case for planted patterns, cannot exceed log2 of the number of "
        "references plus one, and is above zero without any memorisation. Within half a bit of that ceiling it is "
        "marked as saturated, since differences there are hidden.",
    ),
    "memorisation": (
        "How much more often the model is right about an example when the example itself was trained on, over the runs "
        "whose coins put it in and the runs whose coins left it out.",
        "It is not over-fitting and not difficulty. An example that the model gets right either way has memorisation "
        "zero, although it was learned.",
    ),
    "AUC": (
        "The probability that the attack scores a random member above a random non-member of the same kind; 0.5 is "
        "guessing. The attack knows the other runs of this bank.",
        "It measures what an attacker learns about presence, not how much of the example is stored, and an average can "
        "hide a few examples that are fully exposed.",
    ),
    "TPR": (
        "The share of members that the attack finds while it accuses at most the stated share of non-members.",
        "It says nothing below that rate: ten false alarms are the fewest that the data can count.",
    ),
    "reconstruction": (
        "How much nearer (PSNR in dB) an image rebuilt from an update comes to an example than the best guess that "
        "does not look at the update, of a text how much more alike in tokens and their places; and this gain for "
        "examples that were trained on, less the same for examples of the same client that a coin held back. The first "
        "step is a stronger adversary than any server.",
        "It measures leakage of an update, not memorisation by a model, and one attack that fails does not prove that "
        "none succeeds. The best guess is picked with knowledge of the truth, so a value below 0 against it does "
        "not mean that nothing leaked.",
    ),
    "extrapolated exposure": (
        "The same in bits, from a skew-normal law that is fitted to the losses of the references of each model, where "
        "the fit is good: it does not end at the number of references.",
        "It is an extrapolation: beyond the references nothing checks the law. Models whose fit is poor are left out.",
    ),
    "cross-influence": (
        "How many test examples the models answer rightly because one audit example was trained on, less those that "
        "they answer wrongly because of it. Help and harm are the sums of both sides over all test examples.",
        "It is not self-influence. Noise alone makes help and harm larger than 0, so read them against what noise "
        "gives; a pair of examples is called only where chance, over all pairs, is unlikely.",
    ),
    "client influence": (
        "How much better the aggregate of the last observed round is in runs that have a client than in runs that a "
        "coin leaves it out of, with the other clients there half of the time on both sides.",
        "It is not what a full federation would lose without the client.",
    ),
    "client gap": (
        "Accuracy (or loss) on the base rows of a client, compared with the test set: over-fitting client by client.",
        "It holds the skew of labels as well, which is there before anybody trains.",
    ),
    "retention": (
        "The effect at the aggregate as a share of the effect at the holder, both summed over all examples of a kind "
        "above the value without memorisation: 1 means that aggregation keeps everything, 0 nothing.",
        "It is not an average of ratios of single examples, and has no value where the local effect is not resolved.",
    ),
    "utility": (
        "Test accuracy, and how much higher accuracy is on training examples than on test examples.",
        "A gap is over-fitting on average, which is neither needed nor enough for memorisation. At a client it also "
        "holds the skew of its labels.",
    ),
}
"""What each measure means, and what it does not mean."""


def table(path_or_run: Path | str | Run) -> RenderableType:
    """The table that a run ends with, to be printed by rich.

    For each kind of audit example local beside global: exposure, memorisation, membership, reconstruction; then
    retention, differences in words, utility, what the words mean, and where the files are. Every value has its
    interval and its n. Fitted to the width of the console; no cell is ever broken.
    """
    return _Table(path_or_run if isinstance(path_or_run, Run) else read(path_or_run))


@dataclass(frozen=True)
class _Table:
    """The sections of a run as lines of text."""

    run: Run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text, style in self.lines(options.max_width):
            yield line_text(text, style)

    def lines(self, width: int) -> Iterator[tuple[str, str]]:
        """Lines of at most this width, each with its style. Only the path is longer where it has to be."""
        summary = Summary(self.run)
        shown = [section for section in sections(summary) if any(block for _, block in section.blocks)]
        yield from prose(headline(self.run), width, "bold")
        for alarm in alarms(self.run):
            yield from prose(alarm, width, "bold red", hang=2)
        for warning in warnings(self.run):
            yield from prose(warning, width, "yellow", hang=2)
        yield from prose(CAPTION, width, "dim")
        yield from prose(picking(self.run), width, "dim")
        grid = Grid.of(shown, width)
        for section in shown:
            yield "", ""
            yield from grid.lines(section)
            for note in section.notes:
                yield from prose(note, width, "yellow")
        yield "", ""
        for term, meaning in legend(shown, summary.kinds):
            yield from prose(f"{term}: {meaning}", width, "dim", hang=2)
        yield from prose(also(summary), width)
        yield f"Files: {self.run.path}", ""


def line_text(text: str, style: str) -> Text:
    """A line that rich leaves as it is."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def prose(text: str, width: int, style: str = "", *, hang: int = 0) -> Iterator[tuple[str, str]]:
    """A paragraph broken between words."""
    for line in textwrap.wrap(text, min(width, _PROSE), subsequent_indent=" " * hang, break_long_words=False):
        yield line, style


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One set of columns for all sections, so that local and global values stand below each other.

    A row is a label, n, and cells. The brackets of the intervals in a column are aligned. A label too long for its
    column has a line of its own; where not even the cells fit side by side, each has a line, after its title.
    """

    width: int
    count: int
    heads: Sequence[int]
    widths: Sequence[int]
    label: int

    @classmethod
    def of(cls, shown: Sequence[Section], width: int) -> Grid:
        """Columns that hold every row of these sections."""
        rows = [row for section in shown for _, block in section.blocks for row in block]
        lines = [*rows, *(section.columns for section in shown)]
        heads, widths = [], []
        for i in range(2, max((len(line) for line in lines), default=2)):
            cells = [line[i] for line in lines if i < len(line)]
            parts = [cell.partition(" [") for cell in cells if " [" in cell]
            head, tail = (max((len(part[j]) for part in parts), default=0) for j in (0, 2))
            heads.append(head)
            widths.append(max(head + 2 + tail, *map(len, cells)))
        count = max((len(row[1]) for row in rows), default=1)
        room = width - 4 - count - sum(2 + taken for taken in widths)
        longest = max([len(row[0]) for row in rows] + [len(section.title) - 2 for section in shown], default=0)
        return cls(width=width, count=count, heads=heads, widths=widths, label=max(min(longest, room), 0))

    def lines(self, section: Section) -> Iterator[tuple[str, str]]:
        """Title, headings and rows of a section."""
        rows = [row for _, block in section.blocks for row in block]
        label = self.label
        if max(len(row[0]) for row in rows) > label:
            taken = max(len(self._cells(row[1:])) for row in (*rows, section.columns))
            label = max(min(max(len(row[0]) for row in rows), self.width - 4 - taken), label)
        if label < min(
            _LEAST, max(len(row[0]) for row in rows)
        ):  # then all labels have their own line, not only the long ones
            label = 0
        yield from ((line, "bold cyan") for line in self._row((section.title, *section.columns[1:]), section, label, 0))
        for heading, block in section.blocks:
            if heading and block:
                yield from prose(heading, self.width, "italic")
            for row in block:
                style = "dim" if "unresolved" in row[-1] else ""
                yield from ((line, style) for line in self._row(row, section, label, 2))

    def _row(self, row: Sequence[str], section: Section, label: int, indent: int) -> Iterator[str]:
        """A row on one line, or its label on a line and its cells below it."""
        cells = self._cells(row[1:])
        space = label + 2 - indent
        if label and len(row[0]) <= space and label + 4 + len(cells) <= self.width:
            yield f"{' ' * indent}{row[0].ljust(space)}  {cells}".rstrip()
            return
        yield f"{' ' * indent}{row[0]}"
        if label and label + 4 + len(cells) <= self.width:
            yield f"{' ' * (label + 4)}{cells}"
        elif 3 + len(cells) <= self.width:
            yield f"   {cells}"
        elif indent:
            for title, cell in zip(section.columns[1:], row[1:], strict=True):
                if cell:
                    yield f"    {title}{' ' * bool(title)}{cell}"

    def _cells(self, cells: Sequence[str]) -> str:
        """The cells after the label: n to the right, values at their bracket, words to the left."""
        found = [cells[0].rjust(self.count)]
        for cell, head, width in zip(cells[1:], self.heads, self.widths, strict=False):
            value, bracket, rest = cell.partition(" [")
            whole = f"{value.rjust(head)}{bracket}{rest}" if bracket or len(cell) <= head else cell
            found.append(whole.ljust(width))
        return "  ".join(found).rstrip()


def report(path: Path | str) -> Path:
    """Draws the figures of a run into its folder and writes `report.html` there, which is returned.

    The page holds its figures and loads nothing. Equal results give equal files. Errors: `RunError` when the folder is
    no finished run.
    """
    run = read(path)
    summary = Summary(run)
    pictures = {name: (data, text) for name, data, text in _figures(summary)}
    for name, (data, _) in pictures.items():
        put(run.path / f"{name}.png", data)
    page = run.path / "report.html"
    put(page, "".join(_page(summary, pictures)).encode())
    return page


_LEAKS = (
    ("local, message", "local", "message"),
    ("local, first step", "others", "first_step"),
    ("global, aggregate", "global", "aggregate"),
)
"""Label, style and view of the lines in the figure of reconstruction."""


def _figures(summary: Summary) -> Iterator[tuple[str, bytes, str]]:
    """Every figure that the rows of this run can fill: name, PNG, and what it shows."""
    for measure in summary.measures:
        panels: dict[str, list[drawing.Line]] = {}
        zones: dict[str, Zone] = {}
        rates: set[float] = set()
        varying = bounded = False
        for kind in summary.kinds:
            found = {
                ("local, holder", "local"): summary.series(measure.metric, "local", kind, *measure.parts, "owner"),
                ("local, other clients", "others"): summary.series(
                    measure.metric, "local", kind, *measure.parts, "others"
                ),
                ("global", "global"): summary.series(measure.metric, "global", kind, *measure.parts),
            }
            if any(found.values()):
                drawn_of_kind = _lines(found, rates=measure.is_rate)
                limits = _limits(summary, measure, kind, [round for series in found.values() for round, _ in series])
                bounded |= bool(limits)
                panels[_counted(kind, found.values())] = [*drawn_of_kind, *limits]
                zones[_counted(kind, found.values())] = summary.zone(measure.metric, kind)
                varying |= len({value.n for series in found.values() for _, value in series}) > 1
                rates |= {value.fpr for series in found.values() for _, value in series if value.fpr > 0}
        if panels:
            nulls, subtitle = list(measure.nulls) or [measure.null], "bands: 95 % intervals over runs and examples"
            if rates:
                ends = [min(rates), max(rates)]
                nulls = [null_tpr(10 / end) for end in ends]
                shown = " to ".join(dict.fromkeys(rate(end) for end in ends))
                subtitle += (
                    f"; FPR: the smallest that each round supports, {shown}; dotted: TPR without memorisation at the "
                    "smallest and the largest; equal scores are refused together"
                )
            lines = [line for drawn in panels.values() for line in drawn]
            if any(any(line.wide) for line in lines):
                subtitle += "; hollow: the interval spans more than half of 0 to 1"
            if bounded:
                subtitle += "; at most: what the promised epsilon leaves possible after all rounds, whatever the attack"
            if varying:
                subtitle += (
                    ". Local: only the n examples whose holder took part in the round, so the set of examples changes "
                    "from round to round, and a curve can bend for that reason alone"
                )
            title = measure.title.partition(" at ")[0]
            unit = measure.unit or title.partition(" (")[0]
            text = f"{title} over rounds, by kind of audit example; {subtitle}"
            yield measure.slug, drawing.over_rounds(title, unit, panels, subtitle, nulls=nulls, zones=zones), text
    for measure in summary.measures:
        pairs = summary.examples(measure)
        if any(local for local, _ in pairs.values()) and not math.isnan(measure.null):
            title, unit = (
                f"{measure.metric}: local against global",
                f"{measure.metric}{measure.unit and ', '}{measure.unit}",
            )
            subtitle = "one point for each example, larger where several coincide; dotted: without memorisation"
            zones = {kind: summary.zone(measure.metric, kind) for kind in pairs}
            drawn = drawing.local_against_global(title, unit, pairs, measure.null, subtitle, zones=zones)
            yield f"{measure.slug}_scatter", drawn, f"{title}; {subtitle}"
    panels = {}
    for kind in summary.kinds:
        found = {(label, style): summary.leaked(view, kind) for label, style, view in _LEAKS}
        if any(found.values()):
            panels[_counted(kind, found.values())] = _lines(found)
    if panels:
        subtitle = (
            "gain over the best prior: ins less outs of the same client; attacked rounds only; "
            "bands: 95 % intervals over clients or runs, the wider"
        )
        drawn = drawing.over_rounds(
            "reconstruction",
            f"{'dB' if summary.gain == 'margin' else 'likeness'} over the best prior, in − out",
            panels,
            subtitle,
            nulls=[0.0],
            null_label="without leakage",
        )
        yield "reconstruction", drawn, f"Reconstruction over rounds, by kind of audit example; {subtitle}"
    panels, units = {}, []
    for metric, unit in (
        ("test_accuracy", "share of test data"),
        ("generalisation_gap", "share, train − test"),
        ("generalisation_loss_gap", "nats, test − train"),
    ):
        found = {(level, level): summary.series(metric, level, "") for level in ("local", "global")}
        if any(found.values()):
            panels[metric.replace("_", " ")] = _lines(found)
            units.append(unit)
    if panels:
        subtitle = "mean over models; bands: 95 % intervals over runs"
        yield "utility", drawing.over_rounds("utility", units, panels, subtitle), f"utility; {subtitle}"
    yield from ((name, data, text) for name, (data, text) in sheets(summary.run).items())


def _limits(summary: Summary, measure: Measure, kind: str, rounds: Sequence[int]) -> list[drawing.Line]:
    """What the promise bounds of a measure, as level lines; a rate's own bound changes with its threshold."""
    found = []
    for level, place in (("local", ("owner",)), ("global", ())):
        value = summary.value(f"{measure.metric}.bound", level, kind, *measure.parts, *place)
        if value is not None and measure.metric != "tpr" and math.isfinite(value.value):
            ends, values = (min(rounds), max(rounds)), [value.value] * 2
            style = f"{level} bound"
            found.append(
                drawing.Line(
                    label=f"{level}, at most", style=style, rounds=ends, values=values, lows=values, highs=values
                )
            )
    return found


def _counted(kind: str, found: Iterable[Sequence[tuple[int, Value]]]) -> str:
    """The kind and how many examples stand behind its points."""
    counts = sorted({value.n for series in found for _, value in series})
    return f"{kind} (n = {counts[0]})" if len(counts) == 1 else f"{kind} (n = {counts[0]} to {counts[-1]})"


def _lines(found: Mapping[tuple[str, str], Sequence[tuple[int, Value]]], *, rates: bool = False) -> list[drawing.Line]:
    """Every series that is not empty as a line; rates with wide intervals are marked."""
    return [
        drawing.Line(
            label=label,
            style=style,
            rounds=[round for round, _ in series],
            values=[value.value for _, value in series],
            lows=[value.low for _, value in series],
            highs=[value.high for _, value in series],
            wide=[rates and value.wide for _, value in series],
        )
        for (label, style), series in found.items()
        if series
    ]


def _page(summary: Summary, pictures: Mapping[str, tuple[bytes, str]]) -> Iterator[str]:
    """The page piece by piece; whatever comes from a file is escaped."""
    run, text = summary.run, html.escape
    name = f"{run.scenario['name']} · {run.path.name}"
    yield HEAD.format(title=text(f"{name} · fedmem"))
    yield f"<h1>{text(name)}</h1><p>{text(headline(run))}.</p>"
    for alarm in alarms(run):
        yield f'<p class="alarm">{text(alarm)}</p>'
    for warning in warnings(run):
        yield f'<p class="alarm">{text(warning)}</p>'
    yield f"<p>{text(CAPTION)}</p>"
    yield f"<p>{text(picking(run))}</p>" if picking(run) else ""
    shown = list(sections(summary, everything=True))
    for section in shown:
        yield from section_html(section)
    yield from passages_html(run)
    words = "".join(f"<dt>{text(term)}</dt><dd>{text(meaning)}</dd>" for term, meaning in legend(shown, summary.kinds))
    yield f"<h2>Words of the tables</h2><dl>{words}</dl>" if words else ""
    yield "<h2>Figures</h2>"
    for name, (data, caption) in pictures.items():
        image = base64.b64encode(data).decode()
        yield (
            f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{image}">'
            f"<figcaption>{text(caption)} ({text(name)}.png)</figcaption></figure>"
        )
    yield "<h2>What the measures mean, and what they do not</h2><dl>"
    for name, (means, not_) in MEANING.items():
        yield f"<dt>{text(name)}</dt><dd>{text(means)} <em>{text(not_)}</em></dd>"
    yield "</dl><h2>Every summary</h2><details><summary>All estimates and summaries of probes</summary><table>"
    columns = ("source", "metric", "subject", "level", "setting", "n", "value")
    yield "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    for row in summary.rows:
        reading = row.reading
        if row.round == FINAL and not reading.subject.isdecimal():
            value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n).text(4)
            cells = (row.source, reading.metric, reading.subject, row.level, reading.setting, str(reading.n), value)
            yield "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>"
    yield f"</table></details><p>Files: <code>{text(run.path.name)}</code></p></body></html>\n"


def section_html(section: Section) -> Iterator[str]:
    """A section as a table of the page."""
    text = html.escape
    if not any(block for _, block in section.blocks):
        return
    yield f"<h2>{text(section.title.capitalize())}</h2><table>"
    yield "<tr>" + "".join(f"<th>{text(column)}</th>" for column in section.columns) + "</tr>"
    for heading, block in section.blocks:
        if heading and block:
            yield f'<tr><th class="measure" colspan="{len(section.columns)}">{text(heading)}</th></tr>'
        for row in block:
            yield "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>"
    yield "</table>" + "".join(f"<p>{text(note)}</p>" for note in section.notes)


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }}
h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #ddd }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .15rem .9rem .15rem 0; text-align: right; font-weight: normal; white-space: nowrap }}
td:first-child, th:first-child {{ text-align: left }}
td:first-child {{ padding-left: 1rem }}
th {{ color: #666 }} th.measure {{ color: #0072b2; padding-top: .7rem }}
code {{ white-space: pre-wrap }}
figure {{ margin: 1.2rem 0 }} img {{ max-width: 100% }} figcaption {{ color: #666; font-size: .9em }}
.alarm {{ color: #b00020; font-weight: 600 }}
dt {{ font-weight: 600 }} dd {{ margin: 0 0 .8rem 0; max-width: 48rem }}
details {{ overflow-x: auto }}
</style></head><body>
"""
