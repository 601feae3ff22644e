"""The guarantee of dp_sgd to records: no permitted setting prints less than the truth of an explicit pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem.clients.dp_sgd import DpSgd
from fedmem.contracts.evidence import Participation
from fedmem.contracts.measurement import Measurement, Reading
from fedmem.errors import ComponentError, ScenarioError
from fedmem.privacy import guaranteed_bounds, spending
from fedmem.privacy.accounting import guarantee_of
from fedmem.privacy.epsilon_bounds import AuditedUnit, permitted_guarantee
from fedmem.reporting.cells import Section
from fedmem.reporting.privacy_sections import audits as audit_section
from tests.labelling import labels
from tests.neighbours import Mixture, epsilon_at_least, subsampled_sum, turned
from tests.tiny import tiny

CANARIES = [{"kind": "random_pattern", "per_client": 12}]
ALARM = {"kind": "audit", "example_kind": "random_pattern", "alarm": True}


def private(batch: int, noise: float, steps: int, adjacency: str | None = None, **changes: Any) -> Any:
    """A scenario of one round of so many steps."""
    client = {"kind": "dp_sgd", "batch_size": batch, "noise_multiplier": noise, "steps": steps}
    asked = {} if adjacency is None else {"adjacency": adjacency}
    return tiny(**{"rounds": 1, "client": client, "privacy": asked, "observe": {}, **changes})


def pair_epsilon(first: Mixture, second: Mixture, noise: float, steps: int, delta: float) -> float:
    """The larger epsilon of both orders of two neighbours."""
    pair = first, second
    return max(epsilon_at_least([(one, noise, steps)], delta, 2e-4) for one in (pair, turned(pair)))


def printed(scenario: Any, rows: int) -> float:
    """What a run of the scenario prints for a client with so many rows."""
    parts = [Participation(run=0, round=1, client=0, num_examples=rows, failed=False)]
    bank: Any = SimpleNamespace(participation=parts)
    told = spending.spending_record(scenario, bank)
    assert told is not None
    return float(told["mechanisms"][0]["epsilon"])


@pytest.mark.parametrize(
    ("rows", "batch", "noise", "steps", "truth"), [(165, 40, 4.0, 40, 1.80), (165, 40, 12.0, 200, 2.05)]
)
def test_one_record_more_or_less_has_no_guarantee(
    rows: int, batch: int, noise: float, steps: int, truth: float
) -> None:
    """All others contribute -C and are drawn less often where there is one row more."""
    printed_zero_out = printed(private(batch, noise, steps), rows)
    more = subsampled_sum(rows - 1, batch / rows, -1.0, own=1.0)
    less = subsampled_sum(rows - 1, batch / (rows - 1), -1.0, own=None)
    epsilon = pair_epsilon(more, less, noise, steps, 1e-5)
    assert epsilon > truth > 1.1 * printed_zero_out
    with pytest.raises(ScenarioError, match=r"privacy.adjacency: add_remove does not hold for the records of .*dp_sgd"):
        private(batch, noise, steps, "add_remove")


def test_one_row_more_can_mean_one_noisy_step_more() -> None:
    """Against steps of a fixed number, the number of steps tells 40 from 41 rows with certainty."""
    client = DpSgd(epochs=1, batch_size=20)
    assert (client.num_steps(40), client.num_steps(41)) == (2, 3)
    for changes in (
        {},
        {"strategy": {"kind": "dp_fedavg", "expected_cohort_size": 2.5}, "sampler": {"kind": "poisson", "rate": 0.5}},
    ):
        with pytest.raises(ScenarioError, match=r"Use zero_out \(the default for records\) or replace"):
            private(20, 1.0, 2, "add_remove", **changes)


SETTINGS = [
    (165, 40, 4.0, 40),
    (165, 40, 12.0, 200),
    (40, 20, 1.0, 2),
    (15, 18, 3.0, 48),
    (60, 6, 0.7, 12),
    (300, 10, 1.0, 30),
]


@pytest.mark.parametrize(("rows", "batch", "noise", "steps"), SETTINGS)
def test_no_permitted_setting_prints_less_than_the_truth(rows: int, batch: int, noise: float, steps: int) -> None:
    """At least the truth of explicit pairs, and under zero_out at most three per cent more."""
    rate = min(1.0, batch / rows)
    for adjacency, other in ((None, None), ("zero_out", None), ("replace", -1.0)):
        epsilon = printed(private(batch, noise, steps, adjacency), rows)
        true = [
            pair_epsilon(
                subsampled_sum(others, rate, -1.0, own=1.0),
                subsampled_sum(others, rate, -1.0, own=other),
                noise,
                steps,
                1e-5,
            )
            for others in (0, 10)
        ]
        assert max(true) <= epsilon
        assert other is not None or epsilon <= 1.03 * max(true)


def test_records_are_zeroed_out_unless_replace_is_requested() -> None:
    """Also beside noise at the server, whose own default stays."""
    assert spending.record_neighbours(private(20, 1.0, 2)) == "zero_out"
    assert spending.record_neighbours(private(20, 1.0, 2, "replace")) == "replace"
    both = private(
        20,
        1.0,
        2,
        strategy={"kind": "dp_fedavg", "expected_cohort_size": 2.5},
        sampler={"kind": "poisson", "rate": 0.5},
    )
    (server,) = spending.of_scenario(both)
    assert (server.releases.adjacency, spending.record_neighbours(both)) == ("add_remove", "zero_out")


def test_audit_by_removal_has_no_record_guarantee_to_compare() -> None:
    """n rows against n - 1 are no neighbours of zero_out: nothing is permitted, and no alarm may be raised."""
    with pytest.raises(ScenarioError, match=r"alarm: exclusion: remove compares n rows with n - 1"):
        private(20, 1.0, 2, injections=CANARIES, estimators=[ALARM], exclusion="remove")
    for level in ("global", "local"):
        private(20, 1.0, 2, injections=CANARIES, estimators=[{**ALARM, "level": level}])
    # a guarantee to clients covers it: a client with one record less has other data
    whole: dict[str, Any] = {
        "strategy": {"kind": "dp_fedavg", "expected_cohort_size": 2.5},
        "sampler": {"kind": "poisson", "rate": 0.5},
    }
    private(20, 1.0, 2, injections=CANARIES, estimators=[ALARM], exclusion="remove", **whole)
    releases = next(iter(spending.of_records(private(20, 1.0, 2), _bank(), 1).values())).releases
    with pytest.raises(ComponentError, match="audit with exclusion: replace"):
        permitted_guarantee(AuditedUnit(unit="record", adjacency="add_remove"), releases)
    assert (
        permitted_guarantee(AuditedUnit(unit="record", adjacency="replace"), releases).epsilon
        > guarantee_of(releases).epsilon
    )


def _bank() -> Any:
    return SimpleNamespace(participation=[Participation(run=0, round=1, client=0, num_examples=40, failed=False)])


def _audited(adjacency: str, allowed: bool) -> Section:
    about = labels(f"claim=bound method=one_run guesses=0.5 unit=record adjacency={adjacency} copies=1 delta=1e-05")
    metrics = [("epsilon_hat", about), ("epsilon_hat.ceiling", about)]
    metrics += [("epsilon_hat.permitted", about.plus(part="client"))] if allowed else []
    rows = [
        Measurement(
            run=0,
            round=1,
            level="global",
            client=-1,
            source="audit",
            reading=Reading(metric=metric, value=1.0, n=6, subject="canary", labels=own),
        )
        for metric, own in metrics
    ]
    return audit_section(rows)


def test_table_explains_an_audit_by_removal() -> None:
    removed = _audited("add_remove", allowed=False)
    assert "compare n rows with n - 1 (exclusion: remove)" in removed.notes[0]
    (note,) = _audited("add_remove", allowed=True).notes
    assert "does not contradict the guarantee" in note
    assert "exclusion: remove" not in note
    assert not _audited("replace", allowed=False).notes


def test_bounds_of_measures_follow_the_same_rule() -> None:
    """Nothing bounds what runs by removal show of records."""
    rng = np.random.default_rng(0)
    from tests.banks import coins, make_view

    audit = make_view(np.zeros((4, 5)), coins(4, 5, rng)).audit
    for exclusion, covered in (("remove", False), ("replace", True)):
        scenario = private(20, 1.0, 2, exclusion=exclusion)
        fields = {"participation": _bank().participation, "exclusion": exclusion, "roster": "shared", "audit": audit}
        bank: Any = SimpleNamespace(**fields)
        found = guaranteed_bounds.Guarantees(scenario=scenario, bank=bank).guarantee_to(
            np.array([0]), "global", 1e-5, drawn=True
        )
        assert (found is not None) == covered
