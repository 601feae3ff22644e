"""Tests of `fedmem/studies/page_text.py`: numbers of a page that are rows of a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedmem.errors import ScenarioError
from fedmem.studies.page_text import filled_page, write_page

TABLE = pd.DataFrame(
    {
        "claim": ["it rises", "it rises", "it falls"],
        "level": ["local", "global", "global"],
        "seed": [1, 1, 2],
        "data": ["digits", "texts", None],
        "mean": [0.126, -0.001, float("nan")],
        "low": [0.1, -0.003, float("nan")],
        "high": [0.2, 0.001, float("nan")],
        "ratio": [2.0, 3.0, 4.0],
        "ratio_low": [1.0, 2.0, 3.0],
        "ratio_high": [3.0, 4.0, 5.0],
        "verdict": ["holds", "not significant", "undefined"],
    }
)


def page(reference: str) -> str:
    return filled_page(f"{{{{{reference}}}}}", {"gates": TABLE})


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("gates level=local", "0.13 [0.10, 0.20]"),
        ('gates claim="it rises" level=global', "−0.00 [−0.00, 0.00]"),
        ('gates claim="it rises" level=global digits=3', "−0.001 [−0.003, 0.001]"),
        ("gates level=local times=-100 digits=1", "−12.6 [−20.0, −10.0]"),
        ("gates level=local of=ratio", "2.00 [1.00, 3.00]"),
        ("gates level=local show=verdict", "holds"),
        ("gates level=local show=ratio digits=0", "2"),
        ('gates claim="it\nfalls" seed=2', "undefined"),
        ("gates data= show=seed digits=0", "2"),
        ("gates data= mean= show=verdict", "undefined"),
    ],
)
def test_reference_is_a_number_of_its_row(reference: str, text: str) -> None:
    assert page(reference) == text


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gate level=local", "did you mean 'gates'"),
        ("gates levle=local", "did you mean 'level'"),
        ("gates level=global", "2 rows of gates"),
        ("gates level=elsewhere", "0 rows of gates"),
        ("gates local", "should be column=value"),
        ("gates level=local show=nothing", "no column nothing"),
        ("gates level=local of=nothing", "no column nothing"),
        ("gates seed=first", "first"),
        ("gates seed= level=local", "0 rows of gates"),
        ("verdicts gates by=date", "did you mean 'data'"),
    ],
)
def test_wrong_reference_is_an_error_with_its_line(reference: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        page(reference)
    with pytest.raises(ScenarioError, match="line 2"):
        filled_page(f"\n{{{{{reference}}}}}", {"gates": TABLE}, "page.md")


def test_verdicts_are_the_lines_of_a_table() -> None:
    lines = page("verdicts gates seed=1")
    assert lines == "| it rises | 0.13 [0.10, 0.20] holds | −0.00 [−0.00, 0.00] not significant |"
    assert page("verdicts gates").splitlines()[1] == "| it falls | | undefined |"
    assert page("verdicts gates by=data,seed").splitlines() == [
        "| it rises | digits | 1 | 0.13 [0.10, 0.20] holds | |",
        "| it rises | texts | 1 | | −0.00 [−0.00, 0.00] not significant |",
        "| it falls |  | 2 | | undefined |",
    ]


def test_all_wrong_references_are_reported_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        filled_page("{{a}} {{b}}", {"gates": TABLE})
    assert len(caught.value.problems) == 2


def test_page_is_written_from_its_text(tmp_path: Path) -> None:
    write_page(tmp_path)
    assert not (tmp_path / "README.md").exists()
    TABLE.to_csv(tmp_path / "gates.csv", index=False)
    (tmp_path / "page.md").write_text("It is {{gates level=local}}.")
    write_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == "It is 0.13 [0.10, 0.20]."
