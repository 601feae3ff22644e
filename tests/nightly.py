"""Runs the tests marked nightly in pieces, and keeps the last result of each in `nightly.csv`, which is committed.

`make nightly HOURS=1`, or `python -m tests.nightly --help`. A piece continues where the last one ended: a test that
passed at the present commit is not run again. Each test has a process of its own, and its result is written when it
ends, so that a piece can be stopped at any time.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from pathlib import Path
from xml.etree import ElementTree

RESULTS = Path("tests/nightly.csv")
PYTEST = [sys.executable, "-m", "pytest", "-o", "addopts=-q", "-m", "nightly", "-p", "no:cacheprovider"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The last result of one test.

    Attributes:
        test: the id of the test, as pytest writes it.
        outcome: `passed`, `failed` or `skipped`.
        seconds: how long its process took.
        commit: the last commit that changed more than results; with `-dirty` if files differed from it.
        date: when it ended, in UTC, to the minute.
    """

    test: str
    outcome: str
    seconds: float
    commit: str
    date: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one piece. Returns 1 if a test failed at this commit, 2 if no test was found, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", default=["tests"], help="files or folders of tests (default: tests)")
    parser.add_argument("--hours", type=float, default=1.0, help="no test is started after this time (default: 1)")
    parser.add_argument("--since", type=date.fromisoformat, help="tests that passed on this day or later are not run")
    parser.add_argument("--list", action="store_true", help="list the tests with their last results, and run none")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table of results")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    results, tests, commit = read_results(options.results), collect_tests(options.paths), commit_of(options.results)
    if not tests:
        print("no test is marked nightly", file=sys.stderr)
        return 2
    waiting = waiting_tests(tests, results, commit, options.since)
    if options.list:
        for test in tests:
            last = results.get(test)
            state = "waits" if test in waiting else "done"
            print(f"{state:5}  {test}" + ("" if last is None else f"  {last.outcome} {last.date} {last.commit}"))
        return 0
    outcomes = current_outcomes(tests, results, commit, options.since)
    for result in piece(waiting, results, run_test, commit=commit, end=began + options.hours * 3600):
        results[result.test] = result
        outcomes[result.test] = result.outcome
        # tests that no longer exist are seen where all are collected
        listed = tests if options.paths == ["tests"] else results
        write_results(options.results, [results[test] for test in listed if test in results])
        print(f"{result.outcome:7}  {result.seconds:7.1f} s  {result.test}", flush=True)
    passed, failed = (list(outcomes.values()).count(outcome) for outcome in ("passed", "failed"))
    print(f"{passed} of {len(tests)} tests have passed, {failed} failed")
    return 1 if failed else 0


def piece(
    waiting: Iterable[str],
    results: Mapping[str, Result],
    run: Callable[[str], tuple[str, float]],
    *,
    commit: str,
    end: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterable[Result]:
    """The result of each test that is run until `end`, a time of `clock`.

    A test that took longer last time than what is left is not started, unless it is the first of the piece.
    """
    is_first = True
    for test in waiting:
        seconds_left = end - clock()
        if seconds_left <= 0:
            return
        if not is_first and test in results and results[test].seconds > seconds_left:
            continue
        is_first = False
        outcome, seconds = run(test)
        ended = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        yield Result(test=test, outcome=outcome, seconds=round(seconds, 1), commit=commit, date=ended)


def waiting_tests(
    tests: Iterable[str], results: Mapping[str, Result], commit: str, since: date | None = None
) -> list[str]:
    """The tests that have not passed at this commit or since this day; last those that were run and did not pass."""
    current = current_outcomes(tests, results, commit, since)
    return sorted((test for test in tests if current.get(test) != "passed"), key=lambda test: test in current)


def current_outcomes(
    tests: Iterable[str], results: Mapping[str, Result], commit: str, since: date | None = None
) -> dict[str, str]:
    """The outcomes that count: those of this commit, without other changes, and those since this day."""
    known = [results[test] for test in tests if test in results]
    is_clean = not commit.endswith("-dirty")
    return {
        result.test: result.outcome
        for result in known
        if (is_clean and result.commit == commit) or (since is not None and result.date[:10] >= since.isoformat())
    }


def collect_tests(paths: Sequence[str]) -> list[str]:
    """The ids of the tests marked nightly. Errors: `SystemExit` with pytest's text if files cannot be collected.

    Only files that contain the word are collected, since importing all others takes longer than a short test.
    """
    files = [
        file for path in map(Path, paths) for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])
    ]
    marked = [str(file) for file in files if "nightly" in file.read_text(encoding="utf-8")]
    if not marked:
        return []
    done = subprocess.run([*PYTEST, "--collect-only", *marked], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 5):  # 5: nothing is marked
        raise SystemExit(done.stdout + done.stderr)
    return [line for line in done.stdout.splitlines() if "::" in line]


def run_test(test: str) -> tuple[str, float]:
    """Outcome and seconds of one test in a process of its own, which prints what the test prints."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run([*PYTEST, "-s", f"--junitxml={report}", test], check=False)
        outcome = "failed" if done.returncode else "passed"
        if not done.returncode and ElementTree.parse(report).getroot().find(".//testcase/skipped") is not None:
            outcome = "skipped"
    return outcome, time.monotonic() - began


def commit_of(results: Path) -> str:
    """The last commit that changed more than the results, so that tests do not wait again once these are committed."""
    others = ["--", ".", f":(exclude){results}"]
    commit = _git("log", "-1", "--format=%h", "--abbrev=10", *others).strip()
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no", *others).strip() else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def read_results(path: Path) -> dict[str, Result]:
    """The last result of each test; none if there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            Result(test=test, outcome=outcome, seconds=float(seconds), commit=commit, date=ended)
            for test, outcome, seconds, commit, ended in list(csv.reader(file))[1:]
        ]
    return {row.test: row for row in rows}


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Replace the table at once, so that it is whole whenever the piece is stopped."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [item.name for item in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(result) for result in results)
    os.replace(partial, path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the running test ends, too
    sys.exit(main())
