"""Tests of `fedmem/apps/participation.py`: partial participation by an independent coin, and by one that is not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmem import assign_canaries, combine_runs

pytestmark = pytest.mark.filterwarnings("ignore:Examples of 'mine' rank high without training")
"""Margins rise from round to round here, also of examples that nobody trains on."""

RUNS, CLIENTS, CANARIES, REFERENCES, ROUNDS = 24, 4, 12, 63, 4


def frame_of(run: int, effect: float = 6.0, *, depends: bool = False) -> pd.DataFrame:
    """A run in which half of the clients train in each round; margins drift with the round, whatever is trained on.

    A canary that was trained on raises the margin of its owner by `effect`, and of later aggregates by half of it. With
    `depends`, clients take part after round 1 only if most of their canaries are in.
    """
    rng = np.random.default_rng(run)
    plan = assign_canaries(CANARIES, range(CLIENTS), run, runs=RUNS)
    owner = np.array(plan.owner)
    trained = np.zeros(CANARIES, dtype=bool)
    tables = []
    for round_number in range(1, ROUNDS + 1):
        cohort = sorted(rng.permutation(CLIENTS)[: CLIENTS // 2].tolist())
        if depends and round_number > 1:
            cohort = [c for c in range(CLIENTS) if plan.included[owner == c].sum() * 2 > CANARIES // CLIENTS] or [0]
        trained |= np.isin(owner, cohort) & plan.included
        for client in [*cohort, -1]:
            gain = np.where(client == owner, effect, 0) if client >= 0 else effect / 2
            margin = -4 + 1.5 * round_number + rng.normal(size=CANARIES) + gain * trained
            rank = 1 + np.rint((REFERENCES - 1) / (1 + np.exp(margin)))
            table = pd.DataFrame({"subject": np.arange(CANARIES), "margin": margin, "loss": np.logaddexp(0, -margin)})
            table["exposure"], table["correct"] = np.log2((REFERENCES + 1) / rank), margin > 0
            table["owner"], table["included"], table["round"] = owner, plan.included, round_number
            table["client"], table["level"] = client, "local" if client >= 0 else "global"
            tables.append(table)
    frame: pd.DataFrame = pd.concat(tables, ignore_index=True)
    content = [f"{subject:012x}" for subject in frame.subject]
    frame = frame.assign(set="mine", references=REFERENCES, content=content)
    return pd.DataFrame(frame)


def last_rows(frames: list[pd.DataFrame], level: str) -> pd.DataFrame:
    """By a naive loop: each example of each run at the last round in which its owner took part."""
    rows = []
    for run, frame in enumerate(frames):
        for owner in range(CLIENTS):
            took_part = frame[(frame.level == "local") & (frame.client == owner)]["round"]
            if len(took_part):
                client = owner if level == "local" else -1
                at = (frame["round"] == took_part.max()) & (frame.client == client) & (frame.owner == owner)
                rows.append(frame[at].assign(run=run))
    table: pd.DataFrame = pd.concat(rows)
    return table


def summary_of(frames: list[pd.DataFrame]) -> Any:
    found = combine_runs(frames, deals=300)
    summary = found[(found.scope == "summary") & (found.subject == "mine") & (found.statistic == "")]
    return summary.set_index(["metric", "level", "place"]).sort_index()


def test_partial_participation_gives_the_naive_means() -> None:
    frames = [frame_of(run) for run in range(RUNS)]
    with pytest.warns(RuntimeWarning, match=r"4 owners share no observed round of all 24 runs.*pairs of run"):
        summary = summary_of(frames)
    for level, place in (("local", "owner"), ("global", "")):
        means = last_rows(frames, level).groupby(["subject", "included"]).correct.mean().unstack()
        row = summary.loc[("memorisation", level, place)]
        assert row.value.item() == pytest.approx((means[True] - means[False]).mean())
        assert row.n.item() == CANARIES
        assert row.low.item() > 0
        bits = last_rows(frames, level).query("included").groupby("subject").exposure.mean().mean()
        assert summary.loc[("exposure", level, place)].value.item() == pytest.approx(bits)
    assert summary.loc[("auc", "local", "owner")].value.min() > 0.9
    assert ("memorisation", "local", "others") in summary.index
    assert set(summary.loc[("retention", "global", "")].over) == {""}


def test_an_independent_roster_without_effect_shows_none() -> None:
    frames = [frame_of(run, effect=0.0) for run in range(RUNS)]
    with pytest.warns(RuntimeWarning) as caught:
        summary = summary_of(frames)
    assert not any("depend on inclusion" in str(one.message) for one in caught)
    for level, place in (("local", "owner"), ("global", "")):
        assert summary.loc[("memorisation.p", level, place)].value.item() > 0.05
        row = summary.loc[("memorisation", level, place)]
        assert row.low.item() < 0 < row.high.item()


def test_a_roster_that_depends_on_coins_makes_effects_and_warns() -> None:
    """The counter-example: nothing is memorised, but included examples are read at later rounds."""
    frames = [frame_of(run, effect=0.0, depends=True) for run in range(RUNS)]
    with pytest.warns(RuntimeWarning) as caught:
        summary = summary_of(frames)
    assert any("Participation seems to depend on inclusion" in str(one.message) for one in caught)
    row = summary.loc[("memorisation", "local", "owner")]
    assert row.low.item() > 0


def test_owners_of_too_few_runs_are_left_out_with_counts() -> None:
    frames = [frame_of(run) for run in range(RUNS)]
    scarce = [frame[(frame.client != 1) | (run in (0, 1))] for run, frame in enumerate(frames)]
    with pytest.warns(RuntimeWarning, match=r"examples are left out of the summary: fewer than 2 runs"):
        summary = summary_of(scarce)
    assert summary.loc[("memorisation", "local", "owner")].n.item() < CANARIES


def test_a_shared_round_is_preferred_and_warns_of_nothing() -> None:
    full = [frame_of(run).query("round == 1").assign(round=1) for run in range(8)]
    whole = [
        pd.concat(
            [frame[frame.client < 0], *(frame[frame.client < 0].assign(client=c, level="local") for c in range(4))]
        )
        for frame in full
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = combine_runs(whole, deals=50)
    assert ((found.scope == "summary") & (found.level == "local")).any()
