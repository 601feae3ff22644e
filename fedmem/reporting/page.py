"""The report of a finished run: one table for the terminal, figures and a page. Reads files on disk, nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedmem.contracts.measure import Measure, base_of
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.origin import origin
from fedmem.reporting.run_figures import _figures
from fedmem.reporting.sections import CAPTION, alarms, headline, legend, picking, sections, warnings
from fedmem.reporting.summary import Summary
from fedmem.reporting.text_sheets import passages_html
from fedmem.reporting.top_examples import ranking_html
from fedmem.reporting.written_texts import written_html
from fedmem.results.folder import put
from fedmem.results.read import read


def report(path: Path | str) -> Path:
    """Draws the figures of a run into its folder and writes `report.html` there, which is returned.

    The page holds its figures and loads nothing. Equal results give equal files. Errors: `RunError` when the folder is
    no finished run.
    """
    run = read(path)
    summary = Summary(run)
    figures = {name: (data, text) for name, data, text in _figures(summary)}
    for name, (data, _) in figures.items():
        put(run.path / f"{name}.png", data)
    page = run.path / "report.html"
    put(page, "".join(_page(summary, figures)).encode())
    return page


def _page(summary: Summary, figures: Mapping[str, tuple[bytes, str]]) -> Iterator[str]:
    """The page piece by piece; whatever comes from a file is escaped."""
    run, text = summary.run, html.escape
    name = f"{run.scenario['name']} · {run.path.name}"
    yield HEAD.format(title=text(f"{name} · fedmem"))
    yield f"<h1>{text(name)}</h1><p>{text(headline(run))}.</p>"
    for alarm in alarms(run):
        yield f'<p class="alarm">{text(alarm)}</p>'
    yield f"<p>{'<br>'.join(map(text, origin(run)))}</p>"
    for warning in warnings(run):
        yield f'<p class="alarm">{text(warning)}</p>'
    yield f"<p>{text(CAPTION)}</p>"
    yield f"<p>{text(picking(run))}</p>" if picking(run) else ""
    page_sections = list(sections(summary, everything=True))
    for section in page_sections:
        yield from section_html(section)
    yield from ranking_html(run)
    yield from passages_html(run)
    yield from written_html(run)
    words = "".join(
        f"<dt>{text(term)}</dt><dd>{text(meaning)}</dd>" for term, meaning in legend(page_sections, summary)
    )
    yield f"<h2>Words of the tables</h2><dl>{words}</dl>" if words else ""
    yield "<h2>Figures</h2>"
    for name, (data, caption) in figures.items():
        image = base64.b64encode(data).decode()
        yield (
            f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{image}">'
            f"<figcaption>{text(caption)} ({text(name)}.png)</figcaption></figure>"
        )
    yield "<h2>What the measures mean, and what they do not</h2><dl>"
    for measure in glossary(summary):
        is_not = f" <em>{text(measure.is_not)}</em>" if measure.is_not else ""
        yield f"<dt>{text(_entry(measure))}</dt><dd>{text(measure.means)}{is_not}</dd>"
    yield "</dl><h2>Every summary</h2><details><summary>All estimates and summaries of probes</summary><table>"
    columns = ("source", "metric", "subject", "level", "labels", "n", "value")
    yield "<tr>" + "".join(f"<th>{column}</th>" for column in columns) + "</tr>"
    for row in summary.rows:
        reading = row.reading
        if row.round is None and not reading.subject.isdecimal():
            value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n).text(4)
            cells = (row.source, reading.metric, reading.subject, row.level, str(reading.labels), str(reading.n), value)
            yield "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in cells) + "</tr>"
    yield f"</table></details><p>Files: <code>{text(run.path.name)}</code></p></body></html>\n"


def glossary(summary: Summary) -> Iterator[Measure]:
    """The measures that this run has, in the order of its tables."""
    metrics = {base_of(row.reading.metric) for row in summary.rows}
    yield from (measure for measure in summary.known_measures.values() if measure.name in metrics and measure.means)


def _entry(measure: Measure) -> str:
    """The title of a measure in the glossary, with its unit and its name in the files."""
    title = f"{measure.title}{', ' * bool(measure.unit_text)}{measure.unit_text}"
    return title if title == measure.name else f"{title} ({measure.name})"


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
code {{ white-space: pre-wrap }} td.example {{ text-align: left; white-space: normal; max-width: 28rem }}
figure {{ margin: 1.2rem 0 }} img {{ max-width: 100% }} figcaption {{ color: #666; font-size: .9em }}
.alarm {{ color: #b00020; font-weight: 600 }}
dt {{ font-weight: 600 }} dd {{ margin: 0 0 .8rem 0; max-width: 48rem }}
details {{ overflow-x: auto }}
</style></head><body>
"""
