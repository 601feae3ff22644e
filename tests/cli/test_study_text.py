"""A comparison or sweep before it is run: its runs, hours and memory, or everything that is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.main_helpers import call

SWEEP = """\
base: small.yaml
set: {rounds: 4}
axes:
- {path: client.lr, values: [0.1, %s]}
seeds: 3
"""


def words(*arguments: str) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_check_says_what_a_sweep_takes(small: Path) -> None:
    Path("sweep.yaml").write_text(SWEEP % 0.3)
    text = words("check", "sweep.yaml")
    assert "2 settings × 3 seeds = 6 scenarios" in text
    alone = words("check", "small.yaml", "--set", "rounds=4")
    steps = int(first_group(alone, r"; ([\d,]+) steps").replace(",", ""))
    assert f"training 12 runs, {6 * steps:,} local steps" in text
    assert re.search(r"time about \d+ min in \d+ process.* 3 rounds of 2 runs were timed", text)
    assert re.search(r"memory about \d+ MB", text)
    assert not Path("runs").exists()


def first_group(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def test_check_of_a_comparison_counts_what_is_finished(small: Path) -> None:
    arguments = ["small.yaml", "--set", "rounds=3", "--set", "client={kind: sgd, lr: 0.1}"]
    vary = ["--vary", "strategy.kind=fedavg,fedmedian", "--seeds", "2"]
    text = words("check", *arguments, *vary)
    assert "2 settings × 2 seeds = 4 scenarios warning few seeds: with 2 seeds" in text
    assert "training 8 runs" in text
    assert "few seeds" not in words("check", *arguments, *vary[:-1], "5")
    assert call("run", *arguments, "--quiet").exit_code == 0
    text = words("check", *arguments, *vary)
    assert "4 scenarios; 1 finished before, 3 to run" in text
    assert "training 6 runs" in text


def test_check_reports_all_that_is_wrong_in_a_study(small: Path) -> None:
    Path("sweep.yaml").write_text(
        SWEEP.replace("seeds", '- {path: "injections[0].per_client", values: [1, 500]}\nseeds') % "-1"
    )
    done = call("check", "sweep.yaml")
    assert done.exit_code == 2
    assert "sweep.yaml:4  client.lr=-1: should be greater than 0" in done.stderr
    assert re.search(r"rows minus .*\(setting lr=0.1, per_client=500\)", " ".join(done.stderr.split()))
    done = call("check", "small.yaml", "--vary", "client.lrr=1,2")
    assert done.exit_code == 2
    assert "did you mean 'lr'?" in done.stderr
    done = call("check", "sweep.yaml", "--set", "rounds=3")
    assert done.exit_code == 2
    assert "write it into the sweep file" in done.stderr


def test_check_says_when_it_cannot_tell_the_time(small: Path) -> None:
    assert "time unknown: fewer than 3 rounds" in words("check", "small.yaml", "--vary", "client.lr=0.1,0.2")


def test_wrong_sweep_is_answered_as_a_sweep(small: Path) -> None:
    for text in ("base: small.yaml\nseeds: 3\n", "base: small.yaml\naxis:\n- {path: client.lr, values: [1]}\n"):
        Path("seeds.yaml").write_text(text)
        checked, swept = call("check", "seeds.yaml"), call("sweep", "seeds.yaml")
        assert (checked.exit_code, swept.exit_code) == (2, 2)
        assert checked.stderr == swept.stderr
        assert "axes" in checked.stderr
        assert "base: unknown" not in checked.stderr
