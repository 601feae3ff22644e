"""The nightly tests run in pieces that continue one another."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import pytest

from tests import nightly
from tests.nightly import RESULTS, Result, commit_of, current_outcomes, main, piece, read_results, waiting_tests

TINY = """import pytest

@pytest.mark.nightly
def test_fails():
    assert False

@pytest.mark.nightly
def test_skips():
    pytest.skip("no data")

def test_by_day(): ...
"""


def result(
    test: str, outcome: str = "passed", seconds: float = 1.0, commit: str = "a", day: str = "2030-01-01"
) -> Result:
    return Result(test=test, outcome=outcome, seconds=seconds, commit=commit, date=f"{day}T00:00Z")


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a repository with two nightly tests and one other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_tiny.py").write_text(TINY)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = nightly\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "Add tests")
    return tmp_path


def test_a_piece_records_outcomes_and_the_next_continues(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {"first": "failed", "second": "passed"}
    monkeypatch.setattr(nightly, "collect_tests", lambda paths: list(outcomes))
    monkeypatch.setattr(nightly, "run_test", lambda test: (outcomes[test], 2.0))
    assert main(["--hours", "0"]) == 0
    assert not RESULTS.exists()
    assert main([]) == 1
    first = read_results(RESULTS)
    assert {name: one.outcome for name, one in first.items()} == outcomes
    assert {one.commit for one in first.values()} == {commit_of(RESULTS)}
    assert main(["--hours", "0"]) == 1  # the failure stands
    outcomes |= {"first": "passed", "second": "failed"}
    assert main([]) == 0
    second = read_results(RESULTS)
    assert second["first"].outcome == "passed"
    assert second["second"] == first["second"]
    monkeypatch.setattr(nightly, "collect_tests", lambda paths: ["third"])
    outcomes["third"] = "passed"
    assert main(["tests/test_tiny.py"]) == 0
    assert list(read_results(RESULTS)) == ["first", "second", "third"]
    outcomes |= {"fourth": "passed"}
    monkeypatch.setattr(nightly, "collect_tests", lambda paths: ["third", "fourth"])
    assert main([]) == 0
    assert list(read_results(RESULTS)) == ["third", "fourth"]  # the others no longer exist
    capsys.readouterr()
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["done", "third", "passed"], ["done", "fourth", "passed"]]


def test_the_tests_marked_nightly_are_collected_and_run(checkout: Path) -> None:
    (checkout / "tests" / "test_other.py").write_text("assert False, 'need not be imported'")
    fails, skips = nightly.collect_tests(["tests"])
    assert (fails, skips) == ("tests/test_tiny.py::test_fails", "tests/test_tiny.py::test_skips")
    assert nightly.run_test(fails)[0] == "failed"
    assert nightly.run_test(skips)[0] == "skipped"
    assert waiting_tests(["a"], {"a": result("a", "skipped")}, "a") == ["a"]


def test_results_count_at_their_commit_or_since_a_day() -> None:
    results = {"a": result("a"), "b": result("b", "failed"), "c": result("c", commit="older", day="2029-12-31")}
    tests = ["a", "b", "c", "d"]
    assert waiting_tests(tests, results, "a") == ["c", "d", "b"]  # what has not run comes before what failed
    assert waiting_tests(tests, results, "a", date(2029, 12, 31)) == ["d", "b"]
    assert waiting_tests(tests, results, "a", date(2030, 1, 1)) == ["c", "d", "b"]
    assert current_outcomes(["e"], {"e": result("e", commit="a-dirty")}, "a-dirty") == {}


def test_no_test_is_started_when_the_time_is_used() -> None:
    now, ran = [0.0], []

    def run(test: str) -> tuple[str, float]:
        now[0] += 40
        ran.append(test)
        return "passed", 40.0

    results = {"b": result("b", seconds=70)}
    pieces = list(piece("abcde", results, run, commit="a", end=100, clock=lambda: now[0]))
    assert ran == [one.test for one in pieces] == ["a", "c", "d"]  # b takes longer than what is left after a
    assert [one.test for one in piece("bc", results, run, commit="a", end=now[0] + 30, clock=lambda: now[0])] == ["b"]


def test_committing_results_changes_no_commit_of_results(checkout: Path) -> None:
    commit = commit_of(RESULTS)
    RESULTS.write_text("")
    git("add", ".")
    assert commit_of(RESULTS) == commit
    git("commit", "-qm", "Add results")
    assert commit_of(RESULTS) == commit
    (checkout / "pytest.ini").write_text("")
    assert commit_of(RESULTS) == f"{commit}-dirty"
    git("commit", "-qam", "Change tests")
    assert commit_of(RESULTS) not in (commit, f"{commit}-dirty")
