"""Tests of `fedmem/cli/plan_text.py`."""

from __future__ import annotations

import re
from pathlib import Path

import fedmem
from tests.cli.main_helpers import SMALL, call
from tests.narrowing import present


def test_check_prints_the_plan_and_where_every_row_goes(small: Path) -> None:
    done = call("check", "small.yaml", "--set", "runs=4")
    assert done.exit_code == 0, done.stderr
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "4 runs × 2 rounds × 3 clients = 24 local trainings" in done.stdout
    assert "2 rounds: 0, 2" in done.stdout
    assert "at most 0.50" in done.stdout
    total, *parts = (
        int(number) for number in re.findall(r"(\d+) ?[+=a-z]", present(re.search("rows .*", done.stdout))[0] + " ")
    )
    assert total == sum(parts) == 240
    assert not (small / "runs").exists()


def test_check_counts_what_the_manifest_of_the_run_counts(small: Path) -> None:
    wanted = ["--set", "injections=[{kind: random_pattern}]", "--set", "sampler={kind: poisson, rate: 0.6}"]
    wanted += ["--set", "client={kind: sgd, steps: 7}", "--set", "estimators=[]", "--set", "runs=4"]
    said = " ".join(call("check", "small.yaml", *wanted, "--set", "dataset={kind: digits}").stdout.split())
    done = call("run", "small.yaml", *wanted, "--set", "dataset={kind: digits}", "--quiet")
    assert done.exit_code == 0, done.stderr
    rows = fedmem.read(done.stdout.strip()).manifest["rows"]
    trainings = rows["participation"]
    assert f"= {trainings:,} local trainings; {7 * trainings:,} steps (7 each)" in said
    assert f" {rows['evidence']:,} rows = (" in said
    assert f"{rows['references']:,} rows of references" in said
    assert "needs 8 runs or more" in said


def test_check_counts_generated_audit_examples_separately(small: Path) -> None:
    text = SMALL.replace(
        "  - {kind: typical, per_client: 1}", "  - {kind: typical}\n  - {kind: random_pattern, copies: 3}"
    )
    text = text.replace("{kind: synthetic, rows: 200, test: 40}", "{kind: digits}")
    Path("canaries.yaml").write_text(text)
    said = call("check", "canaries.yaml")
    assert said.exit_code == 0, said.stderr
    rows, made = map(int, present(re.search(r"(\d+) audit \(\+ (\d+) generated\)", said.stdout)).groups())
    folder = call("run", "canaries.yaml", "--quiet").stdout.strip()
    assert rows + made == len(fedmem.read(folder).audit)
    assert "generated" not in call("check", "small.yaml").stdout


def test_the_model_that_was_built_is_shown(small: Path) -> None:
    text = call("check", "small.yaml").stdout
    assert re.search(r"^  model +\w+, [\d,]+ parameters; layers: Linear, Linear", text, flags=re.MULTILINE)
