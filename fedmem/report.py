"""The report of a finished run: one table for the terminal, figures and a page. Reads files on disk, nothing else."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem import figures
from fedmem.results import Run, read
from fedmem.summary import CAPTION, VIEWS, Section, Summary, Value, headline, number, sections
from fedmem.types import FINAL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import RenderableType

_PER_KIND = 3
"""Victims of each kind and view on the sheet of reconstructions."""

MEANING: Mapping[str, tuple[str, str]] = {
    "exposure": (
        "How many bits of its rank an inserted canary gives away: log2 of how far up the model ranks it among fresh "
        "canaries that could have been inserted instead. One bit more means that half as many are ranked above it.",
        "It is not self-influence: it shows the worst case for planted patterns, cannot exceed log2 of the number of "
        "references plus one, and is above zero without any memorisation.",
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
        "How much nearer (PSNR in dB) an image rebuilt from an update is to the true one than the best guess that does "
        "not look at the update. The first step is a stronger adversary than any server.",
        "It measures leakage of an update, not memorisation by a model, and one attack that fails does not prove that "
        "none succeeds.",
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
    retention, differences in words, utility, and where the files are. Every value has its interval and its n.
    """
    from rich.console import Group
    from rich.text import Text

    run = path_or_run if isinstance(path_or_run, Run) else read(path_or_run)
    lines = [Text(headline(run), style="bold"), Text(CAPTION, style="dim")]
    for section in sections(Summary(run)):
        rows = [row for _, block in section.blocks for row in block]
        if not rows:
            continue
        widths = [max(len(row[i]) for row in (section.columns, *rows)) for i in range(len(section.columns))]
        widths[0] = max(widths[0], len(section.title) - 2)
        lines += [Text(), Text(f"  {_line((section.title, *section.columns[1:]), widths)}"[2:], style="bold cyan")]
        for heading, block in section.blocks:
            if heading and block:
                lines.append(Text(heading, style="italic"))
            lines += [
                Text("  " + _line(row, widths), style="" if "unresolved" not in row[-1] else "dim") for row in block
            ]
        lines += [Text(note, style="yellow") for note in section.notes]
    return Group(*lines, Text(), Text(f"Files: {run.path}", overflow="fold"))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """A line of text: the first cell to the left, the others to the right."""
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    return "  ".join(cells).rstrip()


def report(path: Path | str) -> Path:
    """Draws the figures of a run into its folder and writes `report.html` there, which is returned.

    The page holds its figures and loads nothing. Equal results give equal files. Errors: `RunError` when the folder is
    no finished run.
    """
    run = read(path)
    summary = Summary(run)
    pictures = {name: (data, text) for name, data, text in _figures(summary)}
    for name, (data, _) in pictures.items():
        _put(run.path / f"{name}.png", data)
    page = run.path / "report.html"
    _put(page, "".join(_page(summary, pictures)).encode())
    return page


def _figures(summary: Summary) -> Iterator[tuple[str, bytes, str]]:
    """Every figure that the rows of this run can fill: name, PNG, and what it shows."""
    for measure in summary.measures:
        panels: dict[str, list[figures.Line]] = {}
        rates: set[float] = set()
        for kind in summary.kinds:
            found = {
                ("local, holder", "local"): summary.series(measure.metric, "local", kind, *measure.parts, "owner"),
                ("local, other clients", "others"): summary.series(
                    measure.metric, "local", kind, *measure.parts, "others"
                ),
                ("global", "global"): summary.series(measure.metric, "global", kind, *measure.parts),
            }
            if any(found.values()):
                panels[_counted(kind, found.values())] = _lines(found)
                rates |= {value.fpr for series in found.values() for _, value in series if value.fpr > 0}
        if panels:
            nulls, subtitle = [measure.null], "bands: 95 % intervals over runs and examples"
            if rates:
                nulls = [min(rates), max(rates)]
                subtitle += f"; FPR: the smallest that each round supports, {nulls[0]:.2g} to {nulls[1]:.2g}"
            title = measure.title.partition(" at ")[0]
            unit = measure.unit or title.partition(" (")[0]
            text = f"{title} over rounds, by kind of audit example; {subtitle}"
            yield measure.slug, figures.over_rounds(title, unit, panels, subtitle, nulls=nulls), text
    for measure in summary.measures:
        pairs = summary.examples(measure)
        if any(local for local, _ in pairs.values()) and not math.isnan(measure.null):
            title, unit = (
                f"{measure.metric}: local against global",
                f"{measure.metric}{measure.unit and ', '}{measure.unit}",
            )
            subtitle = "one point for each example, larger where several coincide; dots: without memorisation"
            drawn = figures.local_against_global(title, unit, pairs, measure.null, subtitle)
            yield f"{measure.slug}_scatter", drawn, f"{title}; {subtitle}"
    panels = {}
    for metric in ("test_accuracy", "generalisation_gap"):
        found = {(level, level): summary.series(metric, level, "") for level in ("local", "global")}
        if any(found.values()):
            panels[metric.replace("_", " ")] = _lines(found)
    if panels:
        subtitle = "mean over models; bands: 95 % intervals over runs"
        yield "utility", figures.over_rounds("utility", "share", panels, subtitle, sharey=False), f"utility; {subtitle}"
    sheet = _sheet(summary.run.reconstructions(), summary.kinds)
    if sheet:
        subtitle = (
            "The first victims of each kind, not the best ones. dB: PSNR of the reconstruction − of the best prior."
        )
        title = f"reconstruction of audit examples from updates, round {sheet[0]}"
        yield "reconstructions", figures.sheet(title, sheet[1], subtitle), "Originals, reconstructions and best priors"


def _counted(kind: str, found: Iterable[Sequence[tuple[int, Value]]]) -> str:
    """The kind and how many examples stand behind its points."""
    counts = sorted({value.n for series in found for _, value in series})
    return f"{kind} (n = {counts[0]})" if len(counts) == 1 else f"{kind} (n = {counts[0]} to {counts[-1]})"


def _lines(found: Mapping[tuple[str, str], Sequence[tuple[int, Value]]]) -> list[figures.Line]:
    """Every series that is not empty as a line."""
    return [
        figures.Line(
            label=label,
            style=style,
            rounds=[round for round, _ in series],
            values=[value.value for _, value in series],
            lows=[value.low for _, value in series],
            highs=[value.high for _, value in series],
        )
        for (label, style), series in found.items()
        if series
    ]


def _sheet(
    kept: Mapping[str, NDArray[Any]], order: Sequence[str]
) -> tuple[int, dict[str, list[figures.Picture]]] | None:
    """The last attacked round and for each view its first victims of each kind."""
    rounds = [int(name.split("/")[1].removeprefix("round_")) for name in kept if name.startswith("leakage/round_")]
    if not rounds:
        return None
    groups = {}
    for view, name in VIEWS.items():
        for level in ("local", "sum", "global"):
            base = f"leakage/round_{max(rounds)}/{level}/{view}"
            if f"{base}/original" not in kept:
                continue
            column = {
                key: kept[f"{base}/{key}"]
                for key in ("original", "reconstruction", "prior", "kind", "psnr", "prior_psnr", "subject")
            }
            kinds = column["kind"].tolist()
            chosen = [i for kind in order for i in [j for j, own in enumerate(kinds) if own == kind][:_PER_KIND]]
            groups[f"from {name}"] = [
                figures.Picture(
                    original=column["original"][i],
                    reconstruction=column["reconstruction"][i],
                    prior=column["prior"][i],
                    label=f"{kinds[i]}\n#{column['subject'][i]}",
                    caption=f"{number(float(column['psnr'][i]), 1)} − {number(float(column['prior_psnr'][i]), 1)} dB",
                )
                for i in chosen
            ]
    return max(rounds), groups


def _put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _page(summary: Summary, pictures: Mapping[str, tuple[bytes, str]]) -> Iterator[str]:
    """The page piece by piece; whatever comes from a file is escaped."""
    run, text = summary.run, html.escape
    yield _HEAD.format(title=text(f"{run.scenario['name']} · fedmem"))
    yield f"<h1>{text(str(run.scenario['name']))}</h1><p>{text(headline(run))}.</p><p>{text(CAPTION)}</p>"
    for section in sections(summary, everything=True):
        yield from _section(section)
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


def _section(section: Section) -> Iterator[str]:
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


_HEAD = """<!doctype html>
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
figure {{ margin: 1.2rem 0 }} img {{ max-width: 100% }} figcaption {{ color: #666; font-size: .9em }}
dt {{ font-weight: 600 }} dd {{ margin: 0 0 .8rem 0; max-width: 48rem }}
details {{ overflow-x: auto }}
</style></head><body>
"""
