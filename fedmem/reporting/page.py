"""The report of a finished run: figures, and a page that holds them. Reads files on disk, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedmem.contracts.measure import Measure, base_of
from fedmem.reporting import example_browser, privacy_sections
from fedmem.reporting.caption import caption_of
from fedmem.reporting.cells import Value, number
from fedmem.reporting.citation import citation, versions_text
from fedmem.reporting.drawing import without_text_warnings
from fedmem.reporting.glance import glance
from fedmem.reporting.image_sheets import sheets, victim_sheets
from fedmem.reporting.origin import origin
from fedmem.reporting.proxy_scatter import ProxyScatter, proxy_scatters
from fedmem.reporting.rendering import PageFigure, heading, is_empty, page_figure, render
from fedmem.reporting.roc_figure import roc_drawings
from fedmem.reporting.run_figures import RunFigure, run_figures
from fedmem.reporting.sections import alarms, headline, legend, picking, sections, warnings
from fedmem.reporting.summarise import summarise
from fedmem.reporting.summary import Summary
from fedmem.reporting.text_sheets import TEXTS_COLUMNS, TEXTS_NOTE, texts_cells
from fedmem.reporting.written_texts import WRITTEN_COLUMNS, written_cells, written_note
from fedmem.results.folder import put
from fedmem.results.read import Run, read
from fedmem.results.run_summary import RunSummary


def report(path: Path | str, *, max_examples: int = example_browser.MAX_EXAMPLES) -> Path:
    """Draws the figures of a run into its folder and writes `report.html` there, which is returned.

    The page holds its figures and loads nothing. Equal results give equal files.

    Args:
        path: the folder of a finished run.
        max_examples: audit examples that the page shows.

    Errors: `RunError` when the folder is no finished run.
    """
    run = read(path)
    page = run.path / "report.html"
    with without_text_warnings():
        put(page, _draw(run, max_examples))
    return page


def _draw(run: Run, max_examples: int) -> bytes:
    """Stores the figures, and returns the page."""
    summary = Summary(run)
    figures = []
    for figure in run_figures(summary):
        put(run.path / f"{figure.name}.png", figure.drawing.png())
        figures.append((figure, page_figure(figure.name, figure.drawing, figure.caption)))
    roc = []
    for name, (drawing, caption) in roc_drawings(summary).items():
        put(run.path / f"{name}.png", drawing.png())
        roc.append(page_figure(name, drawing, caption))
    proxies = []
    for scatter in proxy_scatters(summary):
        put(run.path / f"{scatter.name}.png", scatter.drawing.png())
        proxies.append((scatter, page_figure(scatter.name, scatter.drawing, scatter.caption)))
    for name, (data, _) in sheets(run).items():
        put(run.path / f"{name}.png", data)
    browser = example_browser.browse(run, max_examples)
    return render("run.html", **_values(summary, figures, roc, browser, proxies))


_Figures = Sequence[tuple[RunFigure, PageFigure]]


def _values(
    summary: Summary,
    figures: _Figures,
    roc: Sequence[PageFigure],
    browser: example_browser.Browser,
    proxies: Sequence[tuple[ProxyScatter, PageFigure]],
) -> dict[str, Any]:
    """The values that the template prints."""
    run, brief = summary.run, summarise(summary.run, summary)
    page_sections = [section for section in sections(summary, everything=True) if not is_empty(section)]
    privacy = [section for section in privacy_sections.sections(run) if not is_empty(section)]
    private = {section.title for section in privacy}
    main = _main_figure(figures)
    others = [pair for pair in figures if pair[1] is not main]
    by_part = {
        part: [figure for one, figure in others if one.part == part and one.is_headline]
        for part in ("rounds", "points", "reconstruction", "models")
    }
    sheets_of_page = [
        {"title": sheet.title, "subtitle": sheet.subtitle, "groups": list(example_browser.victims(sheet.groups))}
        for sheet in victim_sheets(run)
    ]
    texts, written = texts_cells(run), written_cells(run)
    values = {
        "title": str(run.scenario.get("name", run.id)),
        "place": run.id,
        "eyebrow": "fedmem report",
        "headline": headline(run).partition(": ")[2] + ".",
        "alarms": alarms(run),
        "warnings": warnings(run),
        "verdict": [sentence.text for sentence in brief.verdicts],
        "limits_of_verdict": list(_asides(brief)),
        "glance": glance(brief),
        "main_figure": main,
        "roc": roc[:1],
        "rounds": by_part["rounds"],
        "more_figures": [*by_part["points"], *(figure for one, figure in others if not one.is_headline), *roc[1:]],
        "reconstruction": by_part["reconstruction"],
        "models": by_part["models"],
        "proxies": proxies,
        "browser": browser,
        "real_rows": example_browser.REAL_ROWS,
        "sheets": sheets_of_page,
        "texts": texts,
        "texts_note": TEXTS_NOTE,
        "texts_columns": TEXTS_COLUMNS,
        "written": written,
        "written_note": written_note(run),
        "written_columns": WRITTEN_COLUMNS,
        "caption": caption_of(run, page_sections),
        "picking": picking(run),
        "tables": [section for section in page_sections if section.title not in private],
        "privacy": privacy,
        "origin": origin(run),
        "limits": list(dict.fromkeys((*brief.limits, *LIMITS))),
        "glossary": [(_entry(measure), measure.means, measure.is_not) for measure in glossary(summary)],
        "terms": legend(page_sections, summary),
        "estimates": list(_estimates(summary)),
        "estimate_columns": ("source", "metric", "subject", "level", "labels", "n", "value"),
        "citation": citation(run),
        "versions": versions_text(run),
        "footer": f"Files of this run: {run.id}. This page loads nothing from elsewhere.",
    }
    return values | {"contents": list(_contents(values))}


def _contents(values: dict[str, Any]) -> Iterator[str]:
    """The headings of the page that it links to."""
    if values["roc"]:
        yield "Membership"
    if values["rounds"]:
        yield "Over rounds"
    if values["proxies"]:
        yield "Proxies"
    if values["browser"].total:
        yield "Examples"
    if any(values[name] for name in ("sheets", "reconstruction", "texts", "written")):
        yield "Reconstructions"
    yield from ("All values", "Privacy", "Methods and limits", "How to cite")


def _asides(brief: RunSummary) -> Iterator[str]:
    """Sentences below the verdict: leaks of updates that the server sees, accuracy, and the guarantee."""
    leaking = {leak.view: leak.leaking for leak in brief.leaks if leak.is_sent and leak.leaking}
    for view, kinds in leaking.items():
        yield f"Reconstructed from {view}, better than held-out examples and the baseline guess: {', '.join(kinds)}."
    if brief.leaks and not leaking:
        yield "No kind is reconstructed from what the server sees better than held-out examples and the baseline guess."
    values = [
        f"{measure.title} {number(value.value, measure.digits)} {level}"
        for measure in brief.models[:1]
        for level, value in (("local", measure.local), ("global", measure.aggregate))
        if value is not None
    ]
    if values:
        yield heading(f"{', '.join(values)}.")
    for guarantee in brief.guarantees:
        yield (
            f"Privacy guarantee of {guarantee.part} against {guarantee.against}: epsilon "
            f"{number(guarantee.epsilon, 2)} at delta {guarantee.delta:.2g}."
        )


def _main_figure(figures: _Figures) -> PageFigure | None:
    """The figure that answers the question: of the headline measures over rounds, the first with the most panels."""
    candidates = [page for figure, page in figures if figure.part == "rounds" and figure.is_headline]
    return max(candidates, key=lambda page: len(page.panels), default=None)


LIMITS = (
    "A simulation shows what happens in a simulated federation. Participation schedules and random inclusion are "
    "known here; a real attacker knows less.",
    "Attacks are lower limits: a failed attack does not show that none succeeds.",
    "Values of kinds hold for examples like these, in this federation; intervals are over runs and examples.",
)


def glossary(summary: Summary) -> Iterator[Measure]:
    """The measures that this run has, in the order of its tables."""
    metrics = {base_of(row.reading.metric) for row in summary.rows}
    yield from (measure for measure in summary.known_measures.values() if measure.name in metrics and measure.means)


def _entry(measure: Measure) -> str:
    """The title of a measure in the glossary, with its unit and its name in the files."""
    title = f"{measure.title}{', ' * bool(measure.unit_text)}{measure.unit_text}"
    return title if title == measure.name else f"{title} ({measure.name})"


def _estimates(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Every value of a kind or of models over all runs, with its labels; the file has nulls and differences too."""
    for row in summary.rows:
        reading = row.reading
        if row.round is None and not reading.subject.isdecimal() and reading.metric == base_of(reading.metric):
            value = Value(value=reading.value, low=reading.low, high=reading.high, n=reading.n).text(4)
            labels = str(reading.labels)
            yield row.source, reading.metric, reading.subject, row.level, labels, str(reading.n), value
