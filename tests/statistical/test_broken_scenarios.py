"""The shipped audits through the product: broken mechanisms raise alarms, healthy ones do not.

Settings of the scenarios were chosen on the seeds 100 to 103. Seeds here are others, and were fixed before any broken
mechanism was run with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fedmem
from fedmem.execution.run import run
from fedmem.scenario.loading import load_scenario
from tests.broken_mechanisms import BROKEN, broken

pytestmark = pytest.mark.statistical

FOLDER = Path(__file__).resolve().parents[2] / "scenarios"
AUDITS = ("audit", "audit_clients")
FIRST, SEEDS, HEALTHY = 1000, 5, 20

BY_AUDIT = ("no_noise", "noise_10", "noise_4", "one_layer", "clip_10", "no_clip", "clip_after_mean")
"""What the shipped audits find by themselves, in every seed; the others are found by tests of messages alone."""


def alarms(scenario: str, name: str, seed: int, out: Path) -> tuple[bool, bool]:
    """Whether the audit raises an alarm, and whether the tests of messages do."""
    with broken(name):
        made = load_scenario(FOLDER / f"{scenario}.yaml", [f"seed={seed}", "estimators[0].control=false"])
        found = fedmem.read(run(made, out=out, force=True)).manifest["alarms"]
    by_audit, by_messages = (any(alarm.startswith(start) for alarm in found) for start in ("audit of", "mechanism, "))
    assert by_audit + by_messages == len(found)
    return by_audit, by_messages


def cases(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Broken mechanisms by scenario; `fixed_batches` are those of dp_sgd."""
    yield from (
        (scenario, name) for scenario in AUDITS for name in names if (scenario, name) != (AUDITS[1], BROKEN[-1])
    )


@pytest.mark.parametrize(("scenario", "name"), [*cases(("healthy", "no_noise", "noise_10"))])
def test_first_seed_alarms_for_broken_mechanisms_only(scenario: str, name: str, tmp_path: Path) -> None:
    assert alarms(scenario, name, FIRST, tmp_path) == (name != "healthy",) * 2


@pytest.mark.nightly
@pytest.mark.parametrize(("scenario", "name"), [*cases(BROKEN)])
def test_every_broken_mechanism_is_found_in_every_seed(scenario: str, name: str, tmp_path: Path) -> None:
    found = [alarms(scenario, name, seed, tmp_path) for seed in range(FIRST, FIRST + SEEDS)]
    assert [by_audit for by_audit, _ in found] == [name in BY_AUDIT] * SEEDS
    assert all(by_messages for _, by_messages in found)


@pytest.mark.nightly
@pytest.mark.parametrize("scenario", AUDITS)
def test_no_healthy_run_raises_an_alarm(scenario: str, tmp_path: Path) -> None:
    found = [alarms(scenario, "healthy", seed, tmp_path) for seed in range(FIRST, FIRST + HEALTHY)]
    assert not any(any(pair) for pair in found)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["healthy", *BROKEN[:-1]])
def test_canary_clients_of_broken_mechanisms(name: str, tmp_path: Path) -> None:
    """The estimate's low end is above what is permitted for a wrong clip or too little noise, at whichever reader."""
    with broken(name):
        made = load_scenario(FOLDER / "canary_clients.yaml", [f"seed={FIRST}"])
        finished = fedmem.read(run(made, out=tmp_path))
    last = [row.reading for row in finished.rows() if row.round == made.rounds]
    permitted = {r.labels: r.value for r in last if r.metric == "epsilon_one_shot.permitted"}
    above = any(r.low > permitted[r.labels] for r in last if r.metric == "epsilon_one_shot")
    assert above == (name not in ("healthy", "same_noise"))
    assert bool(finished.manifest["alarms"]) == (name != "healthy")
