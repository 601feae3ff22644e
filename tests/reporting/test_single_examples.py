"""Tests of `fedmem/reporting/single_examples.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.measurement import NO_LABELS, Level
from fedmem.execution.run import run
from fedmem.reporting.cells import Value
from fedmem.reporting.sections import sections
from fedmem.reporting.single_examples import note, rank_text
from fedmem.reporting.summary import Summary
from tests.banks import coins
from tests.tiny import tiny

SINGLE = {"injections": [{"kind": "random_pattern", "clients": [0], "per_client": 1}], "sampler": {"kind": "everyone"}}


@pytest.mark.parametrize("runs", [1, 8])
def test_a_single_example_has_its_rank_and_p(tmp_path: Path, runs: int) -> None:
    """With one run p is that of the rank, and where the coin left the example out nothing is claimed."""
    changes = {"runs": runs, "estimators": [{"kind": "exposure"}]}
    finished = fedmem.read(run(tiny(**SINGLE, **changes), out=tmp_path))
    (section,) = [part for part in sections(Summary(finished)) if part.title == "SINGLE EXAMPLES"]
    rows = [row for _, block in section.blocks for row in block]
    frame = finished.measurements
    of_one = frame[(frame.scope == "summary") & (frame.subject == "0") & (frame.level == "global")]
    exposure = of_one[of_one.metric == "exposure"].value
    if not np.any(finished.audit.is_in.tolist()[0]):
        assert not rows
        return
    (row,) = rows
    assert row[0] == "random_pattern 0"
    assert "rank " in row[3]
    assert ", p " in row[3]
    assert section.notes == (note(np.array(finished.audit.is_in.tolist()).T),)
    if runs > 1:
        p = of_one[of_one.metric == "exposure.p"]
        assert p.n.item() == runs
        assert f", p {p.value.item():.2g}" in row[3]
    else:
        assert f"p {2 ** -exposure.item():.2g}" in row[3]


@pytest.mark.filterwarnings("ignore:.*have no score here")
@pytest.mark.parametrize("runs", [1, 8])
def test_the_section_and_the_list_print_the_same_p(tmp_path: Path, runs: int) -> None:
    changes = {"runs": runs, "estimators": [{"kind": "exposure"}, *[{"kind": "memorisation"}] * (runs > 1)]}
    injections = [{"kind": "random_pattern", "clients": [0], "per_client": 3}]
    finished = fedmem.read(run(tiny(**{**SINGLE, "injections": injections}, **changes), out=tmp_path))
    summary = Summary(finished)
    (section,) = [part for part in sections(summary) if part.title == "SINGLE EXAMPLES"]
    (block,) = [rows for heading, rows in section.blocks if heading.startswith("exposure") and rows]
    printed = {row[0].split()[1]: row[2:] for row in block}
    assert printed
    levels: tuple[Level, ...] = ("local", "global")
    for column, level in enumerate(levels):
        frame = finished.top(level=level, measure="exposure")
        assert set(frame.subject.astype(str)) == set(printed)
        for subject, p in zip(frame.subject.astype(str), frame.p, strict=True):
            assert printed[subject][column].endswith(f", p {p:.2g}")
        for measure in ("memorisation", "exposure_gain") if runs > 1 else ():
            frame = finished.top(level=level, measure=measure)
            labels = NO_LABELS.plus(place="owner") if level == "local" else NO_LABELS
            stored = [summary.value(measure, level, str(subject), labels) for subject in frame.subject]
            assert [value and value.p for value in stored] == frame.p.tolist()


def test_the_note_says_how_small_p_can_be() -> None:
    assert f"at least {1 / math.comb(8, 4):.2g}" in note(coins(8, 3, np.random.default_rng(0)))
    assert "that of the rank" in note(np.ones((1, 3), dtype=bool))


def test_rank_of_one_run_is_exact_and_of_several_is_a_mean() -> None:
    for rank in range(1, 12):
        value = Value(value=math.log2(11 / rank), n=1, low=math.nan, high=math.nan)
        assert rank_text(value, 10) == f"rank {rank} of 11"
    assert "about" in rank_text(Value(value=1.0, n=2, low=math.nan, high=math.nan), 10)
