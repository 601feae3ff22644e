"""The most memorised examples as lines of a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.audit_set import SourceRows
from fedmem.modalities.tables import Tables
from fedmem.reporting.top_examples import lines
from fedmem.results.read import Run
from fedmem.results.top import Choice, notes, rank_examples
from tests.results.top_helpers import answers, bank, coins, finished, stored

RATES = [(4, 4), (8, 0), (5, 4), (8, 3), (2, 4), (8, 3)]


def listing(run: Run, width: int = 100, **choice: Any) -> str:
    return "\n".join(lines(run, rank_examples(run, Choice(**choice)), width))


def test_lines_have_owner_labels_scores_and_a_picture(tmp_path: Path) -> None:
    text = listing(finished(tmp_path / "run", RATES), n=3)
    first, second, third = re.split(r"\n\n", text)[1:4]
    assert "#1 · mislabelled · Süd · label <dog> (true label cat)" in first
    assert re.search(r"local 1\.00 \[0\.\d\d, 1\.00\] n 16   global 1\.00 \[.*\] n 16   p 7\.8e-05.*\*", first)
    assert len(re.findall(r"^ {4}[ ░▒▓█]{16}$", first, re.MULTILINE)) == 8
    assert (second[:3], third[:3]) == ("2= ", "2= ")
    assert max(map(len, text.splitlines())) <= 100
    assert "too high on average" in text
    assert "too high on average" not in listing(finished(tmp_path / "all", RATES), n=6)


def test_without_memorisation_the_order_is_called_noise(tmp_path: Path) -> None:
    is_in, rng = coins(20), np.random.default_rng(3)
    right = rng.random(is_in.shape) < 0.5
    text = listing(stored(tmp_path / "run", bank(is_in, right, right, ["typical"] * 20)))
    assert "None of 20 examples is significantly above" in text
    assert "the order may be noise" in " ".join(text.split())
    assert "standard error of up to 0.25" in " ".join(text.split())
    assert "*" not in text


@pytest.mark.parametrize(("smallest_p", "expected"), [(1 / 12870, False), (1 / 70, True)])
def test_a_list_says_where_no_example_could_be_marked(smallest_p: float, expected: bool, tmp_path: Path) -> None:
    """With 8 runs p is at least 1 / 70, so that 2 of 6 examples must reach it."""
    ranking = rank_examples(finished(tmp_path / "run", RATES[:6]), Choice())
    text = " ".join(notes(replace(ranking, smallest_p=smallest_p)))
    assert ("So none of 6 can be marked unless at least 2 of them have that p" in text) == expected


def test_a_measure_without_intervals_says_why(tmp_path: Path) -> None:
    text = listing(finished(tmp_path / "run", RATES), measure="probability_memorisation")
    assert "[no interval]" in text
    assert "only shares of right answers have one" in text


def test_rows_of_a_table_show_the_cells_of_the_source(tmp_path: Path) -> None:
    is_in = coins(3)
    right = answers(is_in, [(8, 0), (8, 2), (8, 4)])
    sources = SourceRows(
        target=np.array([1, 1, 0]),
        is_altered=np.array([False, True, False]),
        cells={"job": np.array(["<b>nurse</b>", "cook", "a\x1b[31m"])},
    )
    evidence = bank(is_in, right, right, ["typical"] * 3, shape=(4,))
    run = stored(tmp_path / "run", evidence, sources=sources, modality=Tables())
    text = listing(run)
    assert "job=<b>nurse</b>" in text
    assert "job=cook" not in text
    assert "column 1=" in text, "an altered row is shown as it was trained on"
    assert "\x1b" not in text


def test_sensitive_cells_are_hidden_unless_asked_for(tmp_path: Path) -> None:
    is_in = coins(3)
    right = answers(is_in, [(8, 0), (8, 2), (8, 4)])
    sources = SourceRows(
        target=np.zeros(3, dtype=np.int64),
        is_altered=np.zeros(3, dtype=bool),
        cells={"hiv": np.array(["pos", "neg", "pos"]), "bp": np.array(["120", "", "90"])},
        sensitive=("hiv",),
    )
    evidence = bank(is_in, right, right, ["typical"] * 3, shape=(4,))
    run = stored(tmp_path / "run", evidence, sources=sources, modality=Tables())
    text = listing(run)
    assert "hiv=(hidden), bp=120" in text
    assert "bp=(missing)" in text
    assert "=pos" not in text
    assert "--show-sensitive" in text
    assert "hiv=pos, bp=120" in "".join(rank_examples(run, Choice(show_sensitive=True)).frame.text)
