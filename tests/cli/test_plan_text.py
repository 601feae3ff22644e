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
    assert "false positive rate" not in said, "no estimator attacks membership"


def test_the_rate_is_that_of_the_attacks_in_the_scenario(small: Path) -> None:
    attack = ["estimators=[{kind: membership, attack: {kind: loss_threshold}}]", "runs=8"]
    said = " ".join(call("check", "small.yaml", *attack).stdout.split())
    assert re.search(r"smallest false positive rate that (?!LiRA)[\w -]+ can be read at, 10 / outs: ", said)
    attack[0] = attack[0].replace("loss_threshold", "lira")
    assert "rate that LiRA can be read at" in " ".join(call("check", "small.yaml", *attack).stdout.split())


def test_check_takes_the_options_of_run_that_change_it(small: Path) -> None:
    said = call("check", "small.yaml", "--runs", "6", "--seed", "4", "--engine", "lockstep")
    assert said.exit_code == 0, said.stderr
    same = call("check", "small.yaml", "--set", "runs=6", "--set", "seed=4")
    assert said.stdout == same.stdout
    assert "6 runs × 2 rounds" in said.stdout
    assert said.stdout != call("check", "small.yaml", "--runs", "6").stdout


def test_steps_of_unequal_clients_are_a_range(small: Path) -> None:
    file = Path("rows.csv")
    rows = {"Lake": 1, "Nord": 30, "Süd": 9}
    lines = [f"{name},{i},{i % 2}" for name, count in rows.items() for i in range(count)]
    file.write_text("\n".join(["site,x,y", *lines]))
    data = "dataset={kind: csv, path: rows.csv, target: y, client: site, test: 0.05}"
    changes = [data, "partition={kind: natural}", "injections=[]", "estimators=[]", "probes=[{kind: utility}]"]
    changes += ["population=0", "client={kind: sgd, batch_size: 5}"]
    said = call("check", "small.yaml", *changes)
    assert said.exit_code == 0, said.stderr
    text = " ".join(said.stdout.split())
    low, high = map(int, present(re.search(r"steps \((\d+) to (\d+) each\)", text)).groups())
    assert low == 1
    assert high > 4
    assert "warning Lake has at most one row to train on" in text


def test_time_is_estimated_where_it_is_asked_for(small: Path) -> None:
    assert "time not estimated; --time trains and times three rounds" in " ".join(
        call("check", "small.yaml").stdout.split()
    )
    timed = " ".join(call("check", "small.yaml", "rounds=3", "--time").stdout.split())
    assert re.search(r"time about \d+ min in 1 process, without probes", timed)
    assert "3 rounds of 2 runs were timed" in timed
    assert "time unknown" in " ".join(call("check", "small.yaml", "--time").stdout.split())
    assert not (small / "runs").exists()


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


def test_twins_are_no_further_runs_for_precision(small: Path) -> None:
    said = " ".join(call("check", "small.yaml", "runs=8", "twins=2").stdout.split())
    assert "8 runs with 2 twins each × 2 rounds × 3 clients = 48 local trainings" in said
    assert "at most 0.50 for one example (√(1/R), R = 4 runs with different inclusion)" in said
