"""Tests of `fedmem/probes/informed.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.evidence import TrainedBank, Transition
from fedmem.contracts.federation import PhaseBefore
from fedmem.contracts.measurement import Measurement
from fedmem.contracts.replay import Replay
from fedmem.errors import FedmemError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy.reconstruction_bound import gaussian_success
from fedmem.probes import informed
from fedmem.scenario.scenario import Scenario
from tests.observation.replay_helpers import looked_at
from tests.tiny import tiny

STEP = {"kind": "sgd", "lr": 0.5, "steps": 2, "batch_size": 500}
PROBE = {"kind": "informed", "candidates": 4, "shadows": 12, "max_examples": 2, "clients": 5}


def scenario(probe: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    settings: dict[str, Any] = {
        "runs": 4, "rounds": 1, "population": 0, "model": {"kind": "logistic"}, "client": STEP, "references": 20,
        "injections": [{"kind": "typical", "per_client": 2}], "observe": {"every": 1, "levels": ["local", "global"]},
        "probes": [{**PROBE, **(probe or {})}], "sampler": {"kind": "everyone"},
        "dataset": {"kind": "synthetic", "rows": 300, "test": 20},
    }  # fmt: skip
    return tiny(**{**settings, **changes})


def bank_of(probe: dict[str, Any] | None = None, **changes: Any) -> TrainedBank:
    described = scenario(probe, **changes)
    return simulate(described, build(described))


def values(bank: TrainedBank, metric: str, coin: str | None = None, level: str | None = None) -> list[float]:
    return [row.reading.value for row in single(bank, metric, coin, level)]


def single(bank: TrainedBank, metric: str, coin: str | None, level: str | None = None) -> list[Measurement]:
    return [
        row
        for row in bank.measurements
        if row.run is not None
        and row.reading.metric == metric
        and row.reading.labels.get("coin") == coin
        and level in (None, row.level)
    ]


def summary(bank: TrainedBank, metric: str, coin: str | None = None) -> Measurement:
    (row,) = [
        row
        for row in bank.measurements
        if row.scope == "summary" and row.level == "local" and row.reading.metric == metric
        and row.reading.labels.get("coin") == coin
    ]  # fmt: skip
    return row


def test_known_training_identifies_every_row() -> None:
    bank = bank_of()
    for level in ("local", "global"):
        assert set(values(bank, "informed_identified", level=level)) == {1.0}
        out = values(bank, "informed_identified", "out", level)
        assert len(out) > 8
        assert np.mean(out) < 0.7, "a model without the row does not show it"
        inside, outside = (values(bank, "informed_gain", coin, level) for coin in (None, "out"))
        assert np.mean(inside) > np.mean(outside) + 1
    assert summary(bank, "informed_identified.null").reading.value == 0.25
    difference = summary(bank, "informed_identified.difference").reading
    assert difference.value == pytest.approx(1 - summary(bank, "informed_identified", "out").reading.value)
    assert difference.low <= difference.value <= difference.high
    assert math.isnan(summary(bank, "informed_identified.null").reading.low)


def test_shadow_models_that_ignore_the_candidate_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Replay
    monkeypatch.setattr(informed, "Replay", lambda extra, draws: real(draws=draws))
    assert set(values(bank_of(), "informed_identified")) == {0.0}, "equal distances are ties"


def test_readings_of_a_run_do_not_depend_on_other_runs() -> None:
    described = scenario()
    federation = build(described)
    many, few = (simulate(described, federation), simulate(scenario({"runs": 1}), federation))

    def of_first(bank: TrainedBank) -> list[tuple[Any, ...]]:
        return [(r.round, r.level, r.client, r.reading) for r in bank.measurements if r.run == 0]

    assert repr(of_first(few)) == repr(of_first(many))
    assert not [row for row in few.measurements if row.run is not None and row.run > 0]


def test_noise_of_records_lowers_the_share_below_its_bound() -> None:
    client = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 8, "steps": 3, "noise_multiplier": 20.0}
    bank = bank_of({"levels": ["local"], "repeats": 2, "shadows": 0, "max_examples": 4}, client=client, runs=8)
    rows, bounds = (single(bank, metric, None) for metric in ("informed_identified", "informed_identified.bound"))
    assert len(rows) == len(bounds) > 4
    assert not single(bank, "informed_identified.bound", "out"), "a row that is out has no bound of its own"
    assert np.mean([row.reading.value for row in rows]) < 0.7
    allowed = [gaussian_success(0.25, math.sqrt(steps) / 20.0) for steps in (1, 2, 3)]
    assert all(min(abs(row.reading.value - value) for value in allowed) < 1e-12 for row in bounds)
    assert summary(bank, "informed_identified.bound").reading.value < 0.3


def test_later_rounds_are_bounded_by_all_steps_so_far() -> None:
    client = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 8, "steps": 3, "noise_multiplier": 20.0}
    changes: dict[str, Any] = {"client": client, "rounds": 2}
    bank = bank_of({"levels": ["local"], "shadows": 0, "max_examples": 4}, **changes)
    bounds = single(bank, "informed_identified.bound", None)
    assert {row.round for row in bounds} == {1, 2}
    for row in bounds:
        earlier = 3 * (row.round_number - 1)  # as if the row had been in all three batches
        allowed = [gaussian_success(0.25, math.sqrt(steps + earlier) / 20.0) for steps in (1, 2, 3)]
        assert min(abs(row.reading.value - value) for value in allowed) < 1e-12


def test_a_row_that_starts_later_is_bounded_from_there_on() -> None:
    client = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 8, "steps": 3, "noise_multiplier": 20.0}
    kind = {"kind": "typical", "per_client": 2, "start": 2}
    bank = bank_of({"levels": ["local"], "shadows": 0, "max_examples": 4}, client=client, rounds=2, injections=[kind])
    bounds = single(bank, "informed_identified.bound", None)
    assert {row.round for row in bounds} == {2}
    assert max(row.reading.value for row in bounds) <= gaussian_success(0.25, math.sqrt(3) / 20.0) + 1e-12


def test_shadow_models_do_not_share_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    client = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 8, "steps": 2, "noise_multiplier": 20.0}
    settings = {"levels": ["local"], "shadows": 0}
    assert set(values(bank_of(settings, client=client), "informed_identified")) != {1.0}
    real = Replay
    monkeypatch.setattr(informed, "Replay", lambda extra, draws: real(extra=extra))
    assert set(values(bank_of(settings, client=client), "informed_identified")) == {1.0}, "the noise cancels"


def test_unknown_batches_make_the_guess_harder() -> None:
    client = {"kind": "sgd", "lr": 0.5, "epochs": 2, "batch_size": 3}
    known, shuffled = (
        bank_of({"levels": ["local"], "batches": batches, "max_examples": 2}, client=client)
        for batches in ("known", "shuffled")
    )
    assert np.mean(values(known, "informed_identified")) == 1.0
    assert np.mean(values(shuffled, "informed_identified")) < 0.9
    assert {row.reading.labels.get("batches") for row in single(shuffled, "informed_gain", None)} == {"shuffled"}


def test_canaries_are_sought_among_canaries_of_others() -> None:
    bank = bank_of({"levels": ["local"], "candidates": 30}, injections=[{"kind": "random_pattern", "per_client": 2}])
    labels = [row.reading.labels.integer("candidates") for row in single(bank, "informed_identified", None)]
    assert set(labels) == {9}, "the example, and two of each of the four other clients"


def test_too_few_rows_give_no_value_of_their_kind() -> None:
    bank = bank_of({"shadows": 5, "levels": ["local"]})
    assert values(bank, "informed_identified")
    assert not values(bank, "informed_reconstructed"), "five shadow rows are too few"
    alone = bank_of(injections=[{"kind": "random_pattern", "per_client": 1}], clients=1)
    assert not [row for row in alone.measurements if row.source == "informed"], "nobody else holds a candidate"


def test_diverged_models_count_as_unknown() -> None:
    tolerate = {"not_finite": True}
    bank = bank_of({"levels": ["local"]}, client={**STEP, "lr": 1e38, "steps": 6}, tolerate=tolerate)
    rows = single(bank, "informed_identified", None) + single(bank, "informed_gain", "out")
    assert len(rows) > 4
    assert all(math.isnan(row.reading.value) and row.reading.n == 0 for row in rows)
    assert summary(bank, "informed_identified").reading.n == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclusion": "remove"}, "exclusion: replace"),
        ({"strategy": {"kind": "dp_fedavg", "expected_cohort_size": 5}}, r"levels: \[local\]"),
    ],
)
def test_scenarios_without_such_an_adversary_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FedmemError, match=message):
        bank_of(**changes)


NOISY = {"kind": "dp_sgd", "lr": 0.5, "batch_size": 500, "steps": 3, "noise_multiplier": 20.0}
COPIED = [{"kind": "typical", "per_client": 2, "copies": 2}]


def test_copies_count_once_for_each_place() -> None:
    """Two copies move a sum twice as far. All rows are in each batch, so that both copies are."""
    changes: dict[str, Any] = {"client": NOISY, "rounds": 2, "injections": COPIED}
    bounds = single(bank_of({"levels": ["local"], "shadows": 0}, **changes), "informed_identified.bound", None)
    assert {row.round for row in bounds} == {1, 2}
    for row in bounds:
        squares = 3 * 2**2 * row.round_number
        assert row.reading.value == pytest.approx(gaussian_success(0.25, math.sqrt(squares) / 20.0))


@pytest.mark.parametrize("changed", ["an owner", "a phase"])
def test_other_owners_and_earlier_phases_leave_no_bound(changed: str) -> None:
    """Steps of other clients, and those of a phase before, are not counted."""
    probe = informed.Informed(candidates=4, shadows=0, max_examples=9, clients=5, levels=("local",))
    bounds: dict[str, list[str]] = {"changed": [], "as it is": []}

    def look(transition: Transition, context: Any) -> None:
        if not transition.round:
            return
        federation = context.federation
        audit, before = federation.audit, federation.before
        if changed == "an owner":
            owners = np.repeat(audit.owner, audit.copies)
            owners[0] = 4
            audit = replace(audit, copy_owner=owners)
        else:
            before = PhaseBefore(initials=(), folder=Path("phase"))
        for name, of in (("as it is", federation), ("changed", replace(federation, audit=audit, before=before))):
            context.federation = of
            for _, reading in probe.observe([transition], context):
                if reading.metric.endswith(".bound"):
                    bounds[name].append(reading.subject)
        context.federation = federation

    described = scenario(client=NOISY, injections=COPIED, runs=2)
    looked_at(described, look)
    assert "0" in bounds["as it is"]
    expected = [subject for subject in bounds["as it is"] if subject != "0"] if changed == "an owner" else []
    assert bounds["changed"] == expected


def test_each_shadow_model_has_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real, attacks = Replay, list[list[int]]()
    rows_of = informed.Informed._rows

    def rows(self: Any, *about: Any) -> Any:
        attacks.append([])
        return rows_of(self, *about)

    def replay(extra: Any, draws: int) -> Replay:
        attacks[-1].append(draws)
        return real(extra=extra, draws=draws)

    monkeypatch.setattr(informed.Informed, "_rows", rows)
    monkeypatch.setattr(informed, "Replay", replay)
    bank_of({"levels": ["local"], "repeats": 2}, client=NOISY, runs=2)
    assert len(attacks) > 4
    for draws in attacks:
        assert len(draws) == 4 * 2 + 12
        assert 0 not in draws
        assert len(set(draws)) == len(draws)


def test_the_guess_to_beat_is_a_shadow_row_or_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[Any, Any]] = []

    class Fixed:
        """A reconstruction that is the mean of shadow rows, which every other one of them does not know as a guess."""

        def __init__(self, rows: Any, mean: Any) -> None:
            self.guess, self.mean = rows.mean(axis=0).reshape(-1), mean.reshape(-1)

        @staticmethod
        def fit(models: Any, rows: Any) -> Fixed:
            fits.append((rows, np.full(rows.shape[1:], 9.0) if len(fits) % 2 else rows.mean(axis=0)))
            return Fixed(*fits[-1])

        def predict(self, model: Any) -> Any:
            return self.guess

    monkeypatch.setattr(informed, "Reconstructor", Fixed)
    described = scenario({"levels": ["local"]})
    federation = build(described)
    gains = [row.reading for row in simulate(described, federation).measurements
             if row.run is not None and row.reading.metric == "informed_gain"]  # fmt: skip
    assert len(gains) == len(fits) > 8
    is_mean, has_gain = [], []
    for reading, (rows, mean) in zip(gains, fits, strict=True):
        truth = federation.audit.examples.inputs[int(reading.subject)]
        errors = [np.square(guess - truth).mean() for guess in (*rows, mean)]
        is_mean.append(int(np.argmin(errors)) == len(rows))
        of_guess = np.square(rows.mean(axis=0) - truth).mean()
        assert reading.value == pytest.approx(10 * np.log10(min(errors) / of_guess), abs=1e-4)
        has_gain.append(reading.value > 1e-3)
    assert 0 < sum(is_mean) < len(is_mean)
    assert any(has_gain)
