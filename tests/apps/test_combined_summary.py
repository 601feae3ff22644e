"""Tests of `fedmem/apps/combined_summary.py`: runs of an app in sentences, and canaries that rank high untrained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedmem import combine_runs
from fedmem.apps.combination import bank_of
from fedmem.apps.combined_summary import high_without_training, summary_text
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, ReferenceEvidence
from fedmem.contracts.measurement import Labels, Measurement, Reading
from tests.apps.test_combination import REFERENCES, RUNS, frame_of


def likely(frame: pd.DataFrame) -> pd.DataFrame:
    """The same run, in which examples rank among the first of their references without any training, too."""
    rank = (REFERENCES + 1) / np.exp2(frame["exposure"])
    return frame.assign(exposure=np.log2((REFERENCES + 1) / np.maximum(1, np.rint(rank / 8))))


def test_the_summary_says_in_sentences_what_is_memorised() -> None:
    """Planted examples are memorised at both levels, and those that nobody trained on are not."""
    found = combine_runs([frame_of(run) for run in range(RUNS)], deals=200)
    text = found.attrs["summary"]
    assert "At the owning client, models memorise mine" in text
    assert "The aggregate retains memorisation of mine" in text
    null = combine_runs([frame_of(run, effect=0.0) for run in range(RUNS)], deals=200)
    assert "models memorise" not in null.attrs["summary"]
    assert "The aggregate" not in null.attrs["summary"]


def row(metric: str, value: float, low: float = np.nan, high: float = np.nan, attack: str | None = None) -> Measurement:
    reading = Reading(
        metric=metric, value=value, low=low, high=high, n=60, subject="mine", labels=Labels.of(attack=attack)
    )
    return Measurement(run=None, round=None, level="global", client=-1, source="any", reading=reading)


def test_p_is_adjusted_over_the_measures_of_a_kind() -> None:
    """Of four measures without any effect, one with p 0.04 is no memorisation; a clear effect is."""

    def rows(p: float) -> list[Measurement]:
        found = [row("memorisation", 0.2, 0.01, 0.4), row("memorisation.p", p)]
        found += [row("exposure", 1.5, 0.9, 2.1), row("exposure.null", 1.44), row("exposure.p", 0.8)]
        for attack in ("lira", "loss_threshold"):
            found += [row("auc", 0.51, 0.4, 0.6, attack=attack), row("auc.p", 0.8, attack=attack)]
        return found

    audit = bank_of([("run", frame_of(run)) for run in range(RUNS)], 0).audit
    assert "memorises mine" not in summary_text(rows(0.04), audit, {})
    assert "memorises mine" in summary_text(rows(0.001), audit, {})


def test_examples_of_a_small_set_are_tested_one_by_one() -> None:
    """Three examples have no interval; p of each of them says how many are memorised, as in the verdict of a run."""

    def few(run: int, effect: float) -> pd.DataFrame:
        frame = frame_of(run, effect=effect)
        return frame[(frame["set"] == "mine") & (frame["subject"] < 3)].reset_index(drop=True)

    texts = {}
    for effect in (0.0, 6.0):
        found = combine_runs([few(run, effect) for run in range(RUNS)], deals=200)
        texts[effect] = found.attrs["summary"]
    assert "models memorise mine" in texts[6.0]
    assert "of 3 examples" in texts[6.0]
    assert "memorise mine" not in texts[0.0]


def test_high_ranks_without_training_leave_exposure_unjudged() -> None:
    """Of likely examples only the gain counts: exposure has no null and no retention, and a warning says why."""
    plain, high = ([("run", make(frame_of(run))) for run in range(RUNS)] for make in (lambda frame: frame, likely))
    assert high_without_training(bank_of(plain, 0)) == {}
    assert set(high_without_training(bank_of(high, 0))) == {"mine"}
    with pytest.warns(RuntimeWarning, match="'mine' rank high without training"):
        found = combine_runs([frame for _, frame in high], deals=200)
    summary = found[found["scope"] == "summary"]
    nulls = summary[summary["metric"] == "exposure.null"]["value"]
    assert nulls.isna().all()
    retained = summary[summary["metric"] == "retention"].set_index("of")["value"]
    assert "exposure" not in retained.dropna().index
    assert "read exposure_gain" in found.attrs["summary"]


def test_few_references_seldom_raise_a_false_alarm() -> None:
    """Examples like their ten references: what these happen to be is no sign that all examples rank high."""
    rng = np.random.default_rng(6)
    runs, m, count, alarms = 8, 100, 10, 0
    audit = AuditSet(
        examples=Examples(inputs=np.zeros((m, 1), np.float32), targets=np.zeros(m, np.int64), ids=np.arange(m)),
        kind=np.array(["mine"] * m),
        role=np.array(["canary"] * m),
        owner=np.zeros(m, np.int32),
        copies=np.ones(m, np.int32),
        is_in=np.zeros((runs, m), dtype=bool),
    )
    for _ in range(100):
        values = rng.standard_normal(m + count) + 0.5 * rng.standard_normal((runs, m + count))
        less = (values[:, None, m:] < values[:, :m, None]).sum(axis=2).astype(np.int32)
        ranks = ReferenceEvidence(
            round=1,
            level="global",
            run=np.arange(runs, dtype=np.int32),
            client=np.full(runs, -1, np.int32),
            family="mine",
            subjects=np.arange(m),
            count=count,
            less=less,
            ties=np.zeros_like(less),
            labels=np.zeros(1, np.int64),
            quantiles=np.zeros((runs, 1, 1), np.float32),
        )
        bank = Bank(audit=audit, evidence=(), references=(ranks,), participation=(), seed=0, exclusion="remove")
        alarms += bool(high_without_training(bank))
    assert alarms <= 7, "2.5 % are expected at most, and without the luck of references about 25 %"
