"""The twelve jobs of `docs/jobs` in an empty folder, with the installed command and no file but those of the page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.job_pages import FOLDER, Command, File, first_missing, follow, steps

PAGES = sorted(FOLDER.glob("[0-9]*.md"))
JOBS = {page.stem: page for page in PAGES}
LONG = ("01", "03", "04", "05", "06", "08", "09", "10", "11")
"""Jobs that `make nightly` runs, because they take longer; `make notebooks` runs the first as well."""


def the_steps(page: Path) -> list[File | Command]:
    return list(steps(page.read_text(encoding="utf-8")))


def test_there_are_twelve_jobs_and_the_index_names_them() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", index) == [page.name for page in PAGES]
    assert [page.name[:2] for page in PAGES] == [f"{number:02}" for number in range(1, 13)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_job_has_at_most_ten_commands_and_says_its_limits(page: Path) -> None:
    commands = [step for step in the_steps(page) if isinstance(step, Command)]
    assert 1 <= len(commands) <= 10
    assert all(re.match(r"fedmem |python \w+\.py|sed -i", command.text) for command in commands)
    assert any(command.shown for command in commands)
    assert "What it does not say: " in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_of_a_job_parses_and_nothing_leaves_the_folder(page: Path) -> None:
    for step in the_steps(page):
        assert "/work" not in (step.text if isinstance(step, Command) else step.name)
        if isinstance(step, File):
            assert not step.name.startswith(("/", ".."))
            assert "scenarios/" not in step.text
            if step.name.endswith(".py"):
                ast.parse(step.text)


def test_missing_lines_and_wrong_orders_are_found() -> None:
    output = "a  1\nb [0.5, −0.1] higher\nc done"
    assert first_missing(("a 7", "b [3, 4] …", "c…"), output) is None
    assert first_missing(("b [3, 4] lower",), output) == "b [3, 4] lower"
    assert first_missing(("c done", "a 1"), output) == "a 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] if name[:2] in LONG else [])
        for name in JOBS
        if name[:2] not in ("07", "12")
    ],
)
def test_a_job_runs_as_its_page_says(name: str, tmp_path: Path) -> None:
    follow(JOBS[name], tmp_path)


@pytest.mark.nightly
@pytest.mark.flower
def test_the_app_of_job_7_memorises_at_the_owning_client(tmp_path: Path) -> None:
    (page,) = (page for name, page in JOBS.items() if name.startswith("07"))
    said = follow(page, tmp_path)["python combine.py"]
    lows = {row[0]: float(row[1]) for row in re.findall(r"(global|owner|others) +\S+ +(\S+)", said)}
    assert lows["owner"] > 0.5
    assert lows["owner"] > lows["others"]


@pytest.mark.slow
@pytest.mark.nightly
def test_the_claim_of_job_12_gets_the_verdict_of_its_page(tmp_path: Path) -> None:
    (page,) = (page for name, page in JOBS.items() if name.startswith("12"))
    said = follow(page, tmp_path)["fedmem run claim.yaml --full"]
    local = said[said.index("memorisation, local\n") : said.index("memorisation, global\n")]
    ((low, verdict),) = re.findall(r"mislabelled − typical +\d+ +\S+ \[(\S+), \S+\] +(.*)", local)
    assert (float(low.replace("−", "-")) > 0, verdict) == (True, "first higher")
