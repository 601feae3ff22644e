"""Membership ROC curves of a run on logarithmic axes, from its stored evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import estimator_declaration
from fedmem.contracts.measurement import Labels
from fedmem.errors import FedmemError
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.roc import roc_curve
from fedmem.estimation.views import views
from fedmem.reporting import drawing
from fedmem.reporting.cells import Value
from fedmem.reporting.cells import rate as rate_text
from fedmem.reporting.measures import attack_names
from fedmem.reporting.summary import Summary
from fedmem.results.read import Run, read_bank
from fedmem.scenario import catalogue


@dataclass(frozen=True, kw_only=True)
class RocCurve:
    """The ROC curve of one attack for one kind at one level.

    Attributes:
        kind: the kind of audit example.
        level: `local`, the owning client's models, or `global`.
        labels: the attack and its options.
        fpr: (n + 1,) false positive rates, k / n for k accepted non-members.
        tpr: (n + 1,) true positive rates.
        points: intervals of the true positive rate at some false positive rates, which the run has stored.
    """

    kind: str
    level: str
    labels: Labels
    fpr: FloatArray
    tpr: FloatArray
    points: tuple[Value, ...]

    @property
    def non_members(self) -> int:
        """n: pairs of a run and an example that it did not train on."""
        return len(self.fpr) - 1


def roc_curves(summary: Summary) -> list[RocCurve]:
    """The curves of the summary: each example where the table reads it. Estimators of other packages have none here.

    Nothing of another package is imported to draw a report.
    """
    scorers = list(_scorers(summary.run))
    if not scorers:
        return []
    bank = read_bank(summary.run.path)
    redeals = permute_coins(bank.audit, 0, np.random.default_rng(0))
    curves = []
    for view in views(bank, redeals):
        if view.round is not None or (view.level, view.place) not in (("local", "owner"), ("global", "")):
            continue
        for scorer in scorers:
            for kind in scorer(view):
                fpr, tpr = roc_curve(kind.scores, kind.is_in)
                if len(fpr):
                    points = tuple(_stored_points(summary, view.level, kind.kind, kind.labels))
                    curve = {"kind": kind.kind, "level": view.level, "labels": kind.labels}
                    curves.append(RocCurve(**curve, fpr=fpr, tpr=tpr, points=points))
    return curves


def _scorers(run: Run) -> Iterator[Any]:
    """The functions that give membership scores, of the estimators of the scenario."""
    for entry in run.scenario.get("estimators") or ():
        if any(":" in kind for kind in _kinds(entry)):
            continue
        try:
            scorer = estimator_declaration(catalogue.build("estimator", entry)).membership_scores
        except FedmemError:
            continue  # written by another version, whose fields are not these
        if scorer is not None:
            yield scorer


def _kinds(entry: Any) -> Iterator[str]:
    """Every kind that an entry of the scenario names."""
    if isinstance(entry, Mapping):
        yield from (str(value) for name, value in entry.items() if name == "kind")
        for value in entry.values():
            yield from _kinds(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from _kinds(value)


def _stored_points(summary: Summary, level: str, kind: str, labels: Labels) -> Iterator[Value]:
    """The stored true positive rates of one curve, each with its false positive rate and interval."""
    here = labels.plus(place="owner") if level == "local" else labels
    rates = {
        row.reading.labels.number("fpr")
        for row in summary.rows
        if row.round is None and row.reading.subject == kind and "fpr" in row.reading.labels
    }
    for rate in sorted(rates):
        for measure in summary.known_measures.values():
            if measure.bound == "tpr":
                value = summary.value(measure.name, level, kind, here.plus(fpr=rate))
                if value is not None and not math.isnan(value.low + value.high):
                    yield value


def roc_drawings(summary: Summary) -> dict[str, tuple[drawing.Drawing, str]]:
    """A figure for each attack, by the name of its file, with its caption; a panel for each kind."""
    by_attack: dict[Labels, list[RocCurve]] = {}
    for curve in roc_curves(summary):
        by_attack.setdefault(curve.labels, []).append(curve)
    drawings = {}
    for labels, curves in sorted(by_attack.items(), key=lambda item: _precedence(item[0])):
        title = f"membership, {_title(labels)}"
        counts = sorted({curve.non_members for curve in curves})
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        caption = (
            f"ROC of {_title(labels)}: share of members found against share of non-members accused, on logarithmic "
            f"axes. Non-members: n = {n} pairs of a run and an example. The axes of a panel begin at 1/(2n). No "
            "rate below 1/n can be measured. Bars: 95 % intervals at the rates of the table. Dotted: guessing. "
            "Equal scores are refused together."
        )
        slug = "_".join(["roc", *(part for part in _title(labels).lower().replace("=", "_").split())])
        name = "".join(character if character.isascii() and character.isalnum() else "_" for character in slug)
        drawings[name] = drawing_of(title, curves, summary.kinds, caption), caption
    return drawings


def drawing_of(title: str, curves: Sequence[RocCurve], kinds: Sequence[str], caption: str) -> drawing.Drawing:
    """One panel for each kind, in their order; local and global in their colours."""
    panels = {kind: [curve for curve in curves if curve.kind == kind] for kind in kinds}
    panels = {kind: of_kind for kind, of_kind in panels.items() if of_kind}
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = max(3.5 * columns + 0.6, 6.4)
    height = 3.2 * rows + 0.95 + drawing.LINE * len(drawing.break_lines(caption, width))
    figure, grid = drawing.figure_with(width, height, rows, columns, sharey=False)
    for axes, (kind, of_kind) in zip(grid, panels.items(), strict=False):
        drawing.tidy(axes)
        n = max(curve.non_members for curve in of_kind)
        low = 1 / (2 * n)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.plot([low, 1], [low, 1], color=drawing.FAINT, linestyle=":", linewidth=1.3, label="guessing", zorder=1)
        for curve in sorted(of_kind, key=lambda curve: curve.level != "local"):
            _draw_curve(axes, curve, low)
        axes.set(xlim=(low, 1), ylim=(low, 1.15), xlabel="false positive rate", ylabel="true positive rate")
        drawing.name_panel(axes, f"{kind} (n = {n})")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(_ticks(n), labels=[rate_text(tick) for tick in _ticks(n)])
            axis.set_ticks([], minor=True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    drawing.finish(figure, title, caption, grid)
    return drawing.Drawing(title=title, subtitle=caption, figure=figure, grid=grid[: len(panels)])


def _draw_curve(axes: Any, curve: RocCurve, low: float) -> None:
    style = drawing.STYLES[curve.level]
    x, y = (np.maximum(rates, floor) for rates, floor in ((curve.fpr, low), (curve.tpr, low / 2)))
    corners = _corners(np.log(x) / np.log(low), np.log(y) / np.log(low))
    x, y = x[corners], y[corners]
    axes.plot(x, y, drawstyle="steps-post", color=style["color"], linewidth=1.6, label=curve.level)
    for value in curve.points:
        axes.plot(
            [value.fpr] * 2, [max(value.low, low / 2), max(value.high, low / 2)], color=style["color"], linewidth=1
        )
        axes.plot([value.fpr], [max(value.value, low / 2)], color=style["color"], marker=style["marker"], markersize=4)


_FINEST = 1 / 300
"""Steps that are smaller than this share of an axis are not seen."""


def _corners(x: FloatArray, y: FloatArray) -> list[int]:
    """The places of a step curve that are seen: both ends, and each that differs from the last one shown.

    >>> _corners(np.array([1.0, 0.9, 0.8999, 0.5, 0.0]), np.array([0.7, 0.7, 0.6999, 0.2, 0.0]))
    [0, 1, 3, 4]
    """
    shown = [0]
    for place in range(1, len(x)):
        is_seen = max(abs(x[place] - x[shown[-1]]), abs(y[place] - y[shown[-1]])) >= _FINEST
        is_last = place == len(x) - 1
        if is_last or (is_seen and y[place] != y[place - 1]) or place == 1:
            shown.append(place)
    return shown


def _ticks(n: int) -> list[float]:
    """The smallest rate that n non-members allow, then the powers of ten that are clearly larger.

    >>> _ticks(480), _ticks(15), _ticks(4), _ticks(1)
    ([0.0020833333333333333, 0.01, 0.1, 1.0], [0.06666666666666667, 1.0], [0.25, 1.0], [1.0])
    """
    powers = [10.0**-place for place in range(9, -1, -1)]
    return [*([1 / n] if n > 1 else []), *(power for power in powers if power >= 2 / n or power == 1)]


def _title(labels: Labels) -> str:
    attack = attack_names().get(labels.text("attack"))
    return " ".join(filter(None, (attack.title if attack else labels.text("attack"), labels.text("options"))))


def _precedence(labels: Labels) -> int:
    attack = attack_names().get(labels.text("attack"))
    return attack.precedence if attack else 9
