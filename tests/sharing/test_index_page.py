"""The index links to the page of each finished run inside its folder, and escapes all texts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from fedmem.sharing import index_page as module
from fedmem.sharing.index_page import index_entries, index_page
from tests.results.read_helpers import write
from tests.sharing.sharing_helpers import finished_comparison, finished_run

HOSTILE = "</bdi><script>hacked=1</script>\"'&{{ 7*7 }}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a run, a comparison and things that are no results."""
    root = tmp_path.resolve() / "runs"
    shutil.copytree(finished_run(), root / "tiny" / finished_run().name)
    shutil.copytree(finished_comparison(), root / "tiny" / finished_comparison().name)
    (root / "notes").mkdir()
    return root


def test_a_run_has_name_date_parts_verdict_and_link(root: Path) -> None:
    os.utime(root / "tiny" / finished_run().name / "manifest.json", (0, 86400 * 365.25 * 20))
    entries, problems = index_entries(root)
    assert problems == []
    (run,) = (entry for entry in entries if not entry.is_study)
    assert (run.title, run.id, run.strategy, run.data) == ("tiny", finished_run().name, "fedavg", "synthetic")
    assert run.link == f"tiny/{run.id}/report.html"
    assert run.finished.startswith("1990-01-01") or run.finished.startswith("1989-12-31")
    assert run.sentences
    assert all("aggregate" in text or "client" in text for text in run.sentences)
    (study,) = (entry for entry in entries if entry.is_study)
    assert (study.title, study.link) == ("tiny, two strategies", f"tiny/{study.id}/comparison.html")
    assert study.sentences == ("2 settings, 2 seeds.",)
    page = index_page(root).decode()
    assert f'href="{run.link}"' in page
    assert "1 finished run; comparisons and sweeps: 1." in page


def test_hidden_and_linked_folders_are_left_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run(), tmp_path / "outside")
    (root / "tiny" / "linked").symlink_to(tmp_path / "outside")
    (root / "further").symlink_to(root / "tiny")
    shutil.copytree(finished_run(), root / ".hidden" / "x")
    assert len(index_entries(root)[0]) == 2


def test_texts_and_names_of_folders_are_escaped(root: Path) -> None:
    folder = root / "a b" / "<img src=x>\"'#?%2e"
    write(folder, scenario_yaml=json.dumps({"name": HOSTILE, "strategy": {"kind": HOSTILE}, "dataset": 7}))
    (folder / "report.html").touch()
    page = index_page(root).decode()
    assert "<script>hacked" not in page
    assert "<img" not in page
    assert "{{ 7*7 }}" in page
    assert 'href="a%20b/%3Cimg%20src%3Dx%3E%22%27%23%3F%252e/report.html"' in page


def test_a_run_without_page_or_summary_says_how_to_draw_it(root: Path) -> None:
    write(root / "other" / "0123")
    (entry,) = (one for one in index_entries(root)[0] if one.id == "0123")
    assert (entry.link, entry.strategy) == ("", "")
    assert entry.sentences == (f"There is no page yet. Draw it with: fedmem report {root / 'other' / '0123'}",)


def test_a_page_of_another_version_is_to_be_drawn_again(root: Path) -> None:
    folder = root / "tiny" / finished_run().name
    page = folder / "report.html"
    assert not any("Another version" in text for entry in index_entries(root)[0] for text in entry.sentences)
    page.write_text(page.read_text().replace("sha256-", "sha256-0"))
    os.utime(page, (0, 1))
    (entry,) = (one for one in index_entries(root)[0] if one.id == folder.name)
    assert entry.sentences[-1] == f"Another version drew the page. Draw it again with: fedmem report {folder}"


def test_a_damaged_run_is_named_and_hides_no_other(root: Path) -> None:
    write(root / "other" / "0123")
    (root / "other" / "0123" / "manifest.json").write_text("{")
    entries, problems = index_entries(root)
    assert len(entries) == 2
    (problem,) = problems
    assert "manifest.json" in problem
    assert "0123" in index_page(root).decode()


def test_a_changed_run_is_read_again(root: Path) -> None:
    folder = root / "tiny" / finished_run().name
    assert index_entries(root)[0]
    scenario = folder / "scenario.yaml"
    scenario.write_text(scenario.read_text().replace("name: tiny", "name: other"))
    os.utime(scenario, (0, 1))
    assert "other" in {entry.title for entry in index_entries(root)[0]}


def test_many_runs_are_cut_and_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 1)
    page = index_page(root).decode()
    assert "1 older entries are not shown" in page
    assert page.count('<th scope="row">') == 1


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    assert "There is no finished run here" in index_page(tmp_path.resolve()).decode()
