"""Audits of a bank: what they prove, what they are compared with, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.evidence import Participation
from fedmem.contracts.measurement import Level, Measurement, Reading
from fedmem.errors import ScenarioError
from fedmem.execution.run import measure, run
from fedmem.privacy import guaranteed_bounds
from fedmem.privacy.accounting import Releases, guarantee_of, noise_for
from fedmem.privacy.guarantee import Guarantee
from fedmem.reporting.page import report
from tests.banks import coins, make_view
from tests.tiny import tiny

CANARIES = [{"kind": "random_pattern", "per_client": 12}]
POISSON = {"kind": "poisson", "rate": 0.5}
NOISY = {"kind": "dp_fedavg", "expected_cohort_size": 2.5, "noise_multiplier": 2.0}
AUDIT = {"kind": "audit", "method": "one_run"}


def bank(scenario: Any) -> Any:
    """Everybody of five clients in round 1, then client 0 alone; client k holds example k."""
    rng = np.random.default_rng(3)
    audit = make_view(np.zeros((4, 5)), coins(4, 5, rng)).audit
    audit = replace(audit, owner=np.arange(5, dtype=np.int32))
    there = [(client, 1) for client in range(5)] + [(0, 2), (0, 3)]
    parts = [
        Participation(run=run, round=round_number, client=client, num_examples=20 if client else 40, failed=False)
        for client, round_number in there
        for run in range(4)
    ]
    fields = {"audit": audit, "participation": parts, "roster": "shared", "exclusion": scenario.exclusion}
    return type("Bank", (), fields)


def allowed(scenario: Any, level: Level = "global", subject: int = 0, drawn: bool = True, **changes: Any) -> float:
    made = bank(scenario)
    for name, value in changes.items():
        made.audit = replace(made.audit, **{name: value})
    found = guaranteed_bounds.Guarantees(scenario=scenario, bank=made).guarantee_to(
        np.array([subject]), level, 1e-5, drawn=drawn
    )
    return math.nan if found is None else found.guarantee.epsilon


def test_allowed_epsilon_is_that_of_the_audited_unit() -> None:
    scenario = tiny(sampler=POISSON, strategy=NOISY)
    client = Releases(
        noise_multiplier=2.0, sampling="poisson", rate=0.5, count=4, delta=1e-5, unit="client", adjacency="replace"
    )
    # a client without one of its records has other data, whichever way the record is left out
    assert allowed(scenario) == allowed(tiny(sampler=POISSON, strategy=NOISY, exclusion="remove"))
    assert allowed(scenario) == guarantee_of(client).epsilon
    # many copies at one client are one client
    assert allowed(scenario, copies=np.full(5, 7, np.int32)) == guarantee_of(client).epsilon
    # runs that share a roster hide nobody: those who took part more often are promised less
    turns = {0: 3, 1: 1}
    for subject, count in turns.items():
        known = replace(client, sampling="everyone", rate=1.0, count=count)
        assert allowed(scenario, subject=subject, drawn=False) == guarantee_of(known).epsilon
    # what a holder keeps, the server's noise does not protect; without noise there is nothing
    assert math.isnan(allowed(scenario, level="local"))
    assert math.isnan(allowed(tiny()))


def test_records_of_private_clients_and_their_copies() -> None:
    client = {"kind": "dp_sgd", "batch_size": 8, "epochs": 1, "noise_multiplier": 6.0}
    scenario = tiny(client=client)
    made = Releases(
        noise_multiplier=6.0,
        sampling="poisson",
        rate=8 / 20,
        count=3,
        delta=1e-5,
        unit="record",
        adjacency="replace",
    )
    # n rows against n - 1 change the sampling rate: there is no guarantee to compare with
    assert math.isnan(allowed(tiny(client=client, exclusion="remove"), subject=1))
    one = allowed(scenario, subject=1)
    assert one == allowed(scenario, level="local", subject=1) == guarantee_of(made).epsilon
    # at the same delta, so that it is more than twice as much
    assert allowed(scenario, subject=1, copies=np.full(5, 2, np.int32)) > 2 * one


def test_records_get_the_amplification_of_their_batches() -> None:
    """Of a client with dp_sgd at epsilon 4 nothing like 137 may be permitted, nor a bound that rounds to 1."""
    wanted = Releases(
        noise_multiplier=0.0,
        sampling="poisson",
        rate=2 / 20,
        count=3 * 40,
        delta=1e-5,
        unit="record",
        adjacency="zero_out",
    )
    noise = noise_for(4.0, wanted)
    one = allowed(tiny(client={"kind": "dp_sgd", "batch_size": 2, "steps": 40, "noise_multiplier": noise}), subject=1)
    everyone = replace(wanted, noise_multiplier=noise, sampling="everyone", rate=1.0, adjacency="replace")
    # the holder took part in fewer rounds than the three that noise was found for
    assert 2 < one < 8 < 0.1 * guarantee_of(everyone).epsilon
    assert Guarantee(epsilon=one, delta=1e-5).memorisation < 0.999


def test_group_of_clients_has_a_weaker_guarantee() -> None:
    scenario = tiny(
        sampler={"kind": "everyone"}, strategy={**NOISY, "expected_cohort_size": 5.0, "noise_multiplier": 20.0}
    )
    copies, owner = np.array([2, 1, 1, 1, 1], np.int32), np.array([0, 3, 1, 2, 3, 4], np.int32)
    assert allowed(scenario, copies=copies, copy_owner=owner) > 2 * allowed(scenario)


@pytest.mark.parametrize(
    ("audit", "changes", "path", "message"),
    [
        ({"alarm": True, "example_kind": "random_pattern"}, {}, "alarm", "nothing here adds noise"),
        ({"alarm": True}, {"strategy": NOISY, "sampler": POISSON}, "example_kind", "declared beforehand; name it"),
        (
            {"alarm": True, "example_kind": "random_pattern", "level": "local"},
            {"strategy": NOISY, "sampler": POISSON},
            "level",
            "use level: global, or client dp_sgd",
        ),
        ({"example_kind": "nobody"}, {}, "example_kind", "choose from: random_pattern"),
        ({"run": 4}, {}, "run", "use 0 to 3"),
        (
            {"level": "sum"},
            {"observe": {"every": 2, "levels": ["local", "sum", "global"], "sums": [2]}},
            "level",
            "sums",
        ),
        ({"method": "over_runs"}, {"runs": 2}, "method", "raise runs, or use one_run"),
    ],
)
def test_audits_that_mean_nothing_are_refused(
    audit: dict[str, Any], changes: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        audited(audit, **changes)
    assert any(
        problem.path == f"estimators[0].{path}" and message in problem.message for problem in error.value.problems
    )


def audited(*many: dict[str, Any], **changes: Any) -> Any:
    return tiny(
        **{
            "injections": CANARIES,
            "estimators": [one if "kind" in one else {**AUDIT, **one} for one in many],
            **changes,
        }
    )


def test_one_audit_of_a_run_may_raise_the_alarm() -> None:
    chosen = {"alarm": True, "example_kind": "random_pattern"}
    with pytest.raises(ScenarioError, match=r"estimators\[1\].alarm: another audit may raise the alarm already"):
        audited(chosen, {**chosen, "guesses": 0.2}, strategy=NOISY, sampler=POISSON)


def loud(strategy: str) -> Any:
    """Sixty canaries that are learned by heart, at an epsilon that would not allow it."""
    return audited(
        {"alarm": True, "example_kind": "random_pattern"},
        {"guesses": 0.2},
        {"kind": "memorisation"},
        {"kind": "exposure"},
        {"kind": "membership", "attack": {"kind": "loss_threshold"}},
        strategy={"kind": strategy, "expected_cohort_size": 5.0, "clip": 50.0, "noise_multiplier": 100.0},
        sampler={"kind": "everyone"},
        client={"kind": "sgd", "lr": 0.5, "epochs": 20, "batch_size": 8},
        model={"kind": "mlp", "hidden": [64]},
        runs=8,
        exclusion="remove",
    )


def assert_bounds(finished: Any) -> None:
    """Those of the client's promise to neighbours with other data, for a holder in all four rounds."""
    last = finished.measurements[finished.measurements.scope == "summary"]
    bounds = last[last.metric.str.endswith(".bound")].set_index(["metric", "statistic", "attack"])
    # only the aggregate is protected
    assert set(bounds.level) == {"global"}
    assert set(bounds.source) == {"privacy"}
    made = Releases(
        noise_multiplier=100.0, sampling="everyone", count=4, delta=1e-5, unit="client", adjacency="replace"
    )
    promised = Guarantee(epsilon=guarantee_of(made).epsilon, delta=1e-5)
    assert bounds.loc[("memorisation.bound", "", ""), "value"].item() == promised.memorisation
    assert bounds.loc[("exposure.bound", "", ""), "value"].item() == promised.exposure(50)
    assert bounds.loc[("auc.bound", "", "loss_threshold"), "value"].item() == promised.auc
    rates = bounds.loc["tpr.bound"]
    for fpr, bound in zip(rates.fpr, rates.value, strict=True):
        assert bound == float(promised.tpr(fpr))
    (behind,) = last[last.metric == "epsilon.permitted"].to_dict("records")
    assert behind["value"] == promised.epsilon
    assert (behind["subject"], behind["unit"], behind["adjacency"]) == ("random_pattern", "record", "add_remove")
    assert (behind["part"], behind["delta"], behind["copies"]) == ("strategy", 1e-5, 1)


def test_bound_above_the_guarantee_is_an_alarm_and_exit_code_1(tmp_path: Path) -> None:
    file = tmp_path / "loud.yaml"
    file.write_text(loud("tests.toys:Boastful").to_yaml())
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "runs")])
    assert done.exit_code == 1, done.output
    assert "alarm: audit of random_pattern: epsilon is at least" in done.output
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    finished = fedmem.read(folder)
    (alarm,) = finished.manifest["alarms"]
    rows = finished.measurements[finished.measurements.source == "audit"]
    last = rows[(rows["round"] == 4) & (rows.guesses == 0.5)].set_index("metric").value
    assert last["epsilon_hat.permitted"] < last["epsilon_hat"] <= last["epsilon_hat.ceiling"]
    assert f"{last['epsilon_hat']:.4g}" in alarm
    assert f"{last['epsilon_hat.permitted']:.4g}; the noise" in alarm
    # the other audit is compared as well, once
    other = rows[(rows.metric == "epsilon_hat.permitted") & (rows.guesses == 0.2)]
    assert other.value.tolist() == [last["epsilon_hat.permitted"]]
    page = (folder / "report.html").read_text()
    assert "ALARM: audit of" in page
    # what was memorised contradicts the promise as well, and that is said
    assert_bounds(finished)
    assert "Above the guarantee: memorisation of random_pattern, global, is" in page
    assert "ALARM" in done.output
    tables = CliRunner().invoke(app, ["report", str(folder), "--full"]).output
    assert "AUDITS" in tables
    assert "BOUNDS" in tables
    before = finished.measurements
    measure(folder)
    assert fedmem.read(folder).measurements.equals(before)


def test_an_honest_mechanism_raises_none(tmp_path: Path) -> None:
    folder = run(loud("dp_fedavg"), out=tmp_path)
    finished = fedmem.read(folder)
    assert_bounds(finished)
    assert "Above the guarantee" not in report(folder).read_text()
    assert not finished.manifest["alarms"]
    assert "epsilon_hat.permitted" in set(finished.measurements.metric)


def test_exposure_of_secrets_that_people_wrote_has_no_bound() -> None:
    """Their ranks are high without the record, so that no guarantee bounds them; other measures keep their bound."""
    scenario = tiny(sampler=POISSON, strategy=NOISY, estimators=[{"kind": "exposure"}, {"kind": "memorisation"}])
    made = bank(scenario)
    made.references = [SimpleNamespace(count=100, subjects=np.arange(5))]
    rows = [
        Measurement(
            run=None, round=None, level="global", client=-1, source=metric,
            reading=Reading(metric=metric, value=0.5, low=0.0, high=1.0, n=5, subject="random_pattern"),
        )
        for metric in ("exposure", "memorisation")
    ]  # fmt: skip
    found = []
    for kinds in ((), ("random_pattern",)):
        made.audit = replace(made.audit, not_uniform=kinds)
        found.append({row.reading.metric for row in guaranteed_bounds.bounds(scenario, made, rows)})
    assert found[0] - found[1] == {"exposure.bound"}
    assert "memorisation.bound" in found[1]


def test_examples_in_or_out_together_are_one_group_of_records() -> None:
    """A guarantee for one record does not bound the effect of all examples of a draw."""
    client = {"kind": "dp_sgd", "batch_size": 8, "epochs": 1, "noise_multiplier": 20.0}
    scenario, pair = tiny(client=client), np.array([0, 1, 1, 3, 4])
    copies = np.array([1, 2, 1, 1, 1], np.int32)
    owner = np.array([0, 1, 1, 3, 4], np.int32)
    together = allowed(scenario, subject=1, coin_group=pair, copies=copies, owner=owner)
    assert together == allowed(scenario, subject=1, copies=np.full(5, 3, np.int32)), "three copies in all"
    assert together > allowed(scenario, subject=1, copies=copies)
    # a client is protected as a whole, and several owners are a group of clients
    noisy = tiny(
        sampler={"kind": "everyone"}, strategy={**NOISY, "expected_cohort_size": 5.0, "noise_multiplier": 20.0}
    )
    alone = allowed(noisy, subject=1)
    assert allowed(noisy, subject=1, coin_group=pair, owner=owner) == alone
    assert allowed(noisy, subject=1, coin_group=pair) > 2 * alone
