"""Tests of `fedmem/reporting/roc_figure.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedmem.estimation.roc import roc_curve, tpr
from fedmem.reporting.roc_figure import drawing_of, roc_curves, roc_drawings
from fedmem.reporting.summary import Summary
from fedmem.reporting.svg import panels
from fedmem.results.read import read
from tests.results.top_helpers import answers, bank, coins, stored


def summary(folder: Path, estimators: list[Any]) -> Summary:
    """Eight examples: those that are in are right in most runs at the owner, and in some in the aggregate."""
    is_in = coins(8)
    kinds = ["mislabelled" if j % 2 else "typical" for j in range(8)]
    local, whole = answers(is_in, [(8, 0)] * 8), answers(is_in, [(6, 3)] * 8)
    stored(folder, bank(is_in, whole, local, kinds))
    scenario = folder / "scenario.yaml"
    scenario.write_text(yaml.safe_dump({**yaml.safe_load(scenario.read_text()), "estimators": estimators}))
    return Summary(read(folder))


LOSS = {"kind": "membership", "attack": {"kind": "loss_threshold"}}


def test_a_curve_is_what_a_loop_over_thresholds_gives() -> None:
    rng = np.random.default_rng(0)
    scores, is_in = rng.integers(0, 6, (4, 9)).astype(float), rng.random((4, 9)) < 0.5
    scores[0, :3] = np.nan
    fpr, found = roc_curve(scores, is_in)
    members, others = scores[is_in & ~np.isnan(scores)], scores[~is_in & ~np.isnan(scores)]
    assert len(fpr) == len(others) + 1
    for k, (rate, share) in enumerate(zip(fpr, found, strict=True)):
        assert rate == k / len(others)
        allowed = [t for t in (-np.inf, *scores[~np.isnan(scores)]) if (others > t).sum() <= k]
        assert share == max((members > t).mean() for t in allowed)
        assert share == tpr(scores, is_in, k / len(others)).value
    assert [len(rates) for rates in roc_curve(scores, np.ones_like(is_in))] == [0, 0]


def test_curves_are_by_kind_and_level_of_each_attack(tmp_path: Path) -> None:
    curves = roc_curves(summary(tmp_path / "run", [{"kind": "memorisation"}, LOSS]))
    assert [(curve.level, curve.kind) for curve in curves] == [
        (level, kind) for level in ("global", "local") for kind in ("typical", "mislabelled")
    ] or sorted((curve.level, curve.kind) for curve in curves) == sorted(
        (level, kind) for level in ("global", "local") for kind in ("typical", "mislabelled")
    )
    for curve in curves:
        assert curve.non_members == 32, "four examples, each out in eight runs"
        # all that are in are right at the owner, none that is out; in the aggregate 6 and 3 of 8
        first = {"local": 1.0, "global": 0.0}[curve.level]
        assert curve.tpr[0] == first
        assert curve.tpr[12] == {"local": 1.0, "global": 0.75}[curve.level]
        assert curve.fpr[1] == 1 / 32


def test_axes_show_no_rate_that_cannot_be_measured(tmp_path: Path) -> None:
    table = summary(tmp_path / "run", [LOSS])
    ((name, (drawing, caption)),) = roc_drawings(table).items()
    assert name == "roc_loss_threshold"
    assert "Non-members: n = 32 pairs" in caption
    assert "begin at 1/(2n). No rate below 1/n" in caption
    for axes in drawing.grid:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlim() == (1 / 64, 1)
        assert axes.get_ylim()[0] == 1 / 64
        for axis in (axes.xaxis, axes.yaxis):
            assert axis.get_ticklocs().tolist() == pytest.approx([1 / 32, 0.1, 1])
            assert [label.get_text() for label in axis.get_ticklabels()] == ["0.031", "0.1", "1"]
            assert not len(axis.get_ticklocs(minor=True))
    assert [panel.title for panel in panels(drawing, name)] == ["typical (n = 32)", "mislabelled (n = 32)"]
    curves = roc_curves(table)
    fewer = drawing_of("", [curve for curve in curves if curve.kind == "typical"], table.kinds, "")
    assert len(fewer.grid) == 1


def test_without_a_membership_attack_there_is_no_curve(tmp_path: Path) -> None:
    foreign = {"kind": "membership", "attack": {"kind": "no_such_package:Attack"}}
    outdated = {"kind": "membership", "attack": {"kind": "loss_threshold"}, "no_longer": 3}
    assert roc_drawings(summary(tmp_path / "run", [{"kind": "memorisation"}, foreign, outdated])) == {}
