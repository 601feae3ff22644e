"""Tests of `fedmem/apps/combination.py`: known truths, naive means, and what does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmem import assign_canaries, combine_runs
from fedmem.apps.combination import bank_of
from fedmem.contracts.measurement import Reading
from fedmem.errors import FolderError
from fedmem.estimation.estimates import estimate
from fedmem.estimators.memorisation import Memorisation

RUNS, CLIENTS, CANARIES, REFERENCES = 16, 4, 12, 63


@cache
def frame_of(run: int, effect: float = 6.0, kept: float = 0.5) -> pd.DataFrame:
    """A run whose owners' margins rise by `effect` with the canary, and the aggregate's by a share of it."""
    rng = np.random.default_rng(run)
    plan = assign_canaries(CANARIES, range(CLIENTS), run, runs=RUNS)
    rows = []
    for client in [*range(CLIENTS), -1]:
        gain = np.array([effect if client == owner else effect * kept * (client < 0) for owner in plan.owner])
        margin = -2 + rng.normal(size=CANARIES) + gain * plan.included
        rank = 1 + np.rint((REFERENCES - 1) / (1 + np.exp(margin + 2)))
        table = pd.DataFrame({"subject": np.arange(CANARIES), "margin": margin, "loss": np.logaddexp(0, -margin)})
        table["exposure"], table["correct"] = np.log2((REFERENCES + 1) / rank), margin > 0
        table["owner"], table["included"] = plan.owner, plan.included
        table["client"], table["level"] = client, "local" if client >= 0 else "global"
        rows.append(table)
    content = [f"{j:012x}" for j in range(CANARIES)] * len(rows)
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(round=3, set="mine", references=REFERENCES, content=content)


def memorised(frames: list[pd.DataFrame]) -> dict[tuple[str, str], Reading]:
    """Memorisation of the summary, by level and place."""
    bank = bank_of([(f"run {run}", frame) for run, frame in enumerate(frames)], 0)
    rows = [row for row in estimate(bank, [Memorisation()], 50) if row.scope == "summary"]
    return {
        (row.level, row.reading.labels.text("place")): row.reading
        for row in rows
        if (row.reading.metric, row.reading.subject, row.reading.labels.get("statistic"))
        == ("memorisation", "mine", None)
    }


def test_planted_examples_are_found_and_nobodys_are_not() -> None:
    """Positive control and null in one audit; `nobody` has drawn inclusion, and no model trains on it."""
    planted = [frame_of(run) for run in range(RUNS)]
    null = [frame_of(run, effect=0.0).assign(set="nobody") for run in range(RUNS)]
    frames = [pd.concat(pair, ignore_index=True) for pair in zip(planted, null, strict=True)]
    found = combine_runs(frames, deals=200)
    summary = found[(found.scope == "summary") & (found.statistic == "")]
    at: Any = summary.set_index(["subject", "metric", "level", "place"]).sort_index().loc
    whole = pd.concat(planted)
    for level, place in (("local", "owner"), ("global", "")):
        rows = whole[whole.level == level] if level == "global" else whole[whole.client == whole.owner]
        means = rows.groupby(["subject", "included"]).correct.mean().unstack()
        row = at[("mine", "memorisation", level, place)]
        assert row.value.item() == pytest.approx((means[True] - means[False]).mean())
        assert row.low.item() > 0.2
        assert row.n.item() == CANARIES
        assert at[("mine", "memorisation.p", level, place)].value.item() < 0.05
        assert at[("nobody", "memorisation.p", level, place)].value.item() > 0.05
    bits = whole.query("client == owner and included").groupby("subject").exposure.mean().mean()
    assert at[("mine", "exposure", "local", "owner")].value.item() == pytest.approx(bits)
    assert at[("mine", "auc", "local", "owner")].value.min() > 0.95
    assert set(at[("mine", "auc")].attack) == {"loss_threshold", "lira"}
    for metric in ("memorisation", "exposure_gain"):
        null_rows = at[("nobody", metric)]
        assert ((null_rows.low < 0) & (null_rows.high > 0)).all()


def test_shuffled_identities_lose_the_owners() -> None:
    """What the owners' models show is there only while clients keep their identity from run to run."""

    def shuffled(run: int) -> pd.DataFrame:
        frame = frame_of(run, kept=0.0)
        new = np.append(np.random.default_rng(run).permutation(CLIENTS), -1)
        return frame.assign(client=new[frame.client])

    straight = memorised([frame_of(run, kept=0.0) for run in range(RUNS)])
    mixed = memorised([shuffled(run) for run in range(RUNS)])
    assert straight["local", "owner"].value > 0.8
    assert mixed["local", "owner"].value < 0.5
    assert abs(straight["local", "others"].value) < 0.1 < mixed["local", "others"].value


def test_files_give_what_frames_give(tmp_path: Path) -> None:
    frames = [frame_of(run) for run in range(4)]
    for run, frame in enumerate(frames):
        frame.to_csv(tmp_path / f"{run}.csv", index=False)
        frame.to_parquet(tmp_path / f"{run}.parquet")
    with pytest.warns(RuntimeWarning, match="included in all runs or in none"):
        expected = combine_runs(frames, deals=50)
    for suffix in ("csv", "parquet"):
        with pytest.warns(RuntimeWarning, match="included in all runs or in none"):
            read = combine_runs([tmp_path / f"{run}.{suffix}" for run in range(4)], deals=50)
        pd.testing.assert_frame_equal(read, expected)
    with pytest.raises(FolderError, match=r"no such file.*to_parquet"):
        combine_runs([tmp_path / "absent.csv", tmp_path / "0.csv"])
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(FolderError, match=r"bad\.parquet: cannot be read"):
        combine_runs([tmp_path / "bad.parquet"])


def test_names_of_clients_serve_as_well_as_numbers() -> None:
    def named(frame: pd.DataFrame) -> pd.DataFrame:
        names = {**{k: f"c{k}" for k in range(CLIENTS)}, -1: ""}
        return frame.assign(client=frame.client.map(names), owner=frame.owner.map(names))

    frames = [frame_of(run) for run in range(8)]
    numbers = bank_of([(str(run), frame) for run, frame in enumerate(frames)], 0)
    names = bank_of([(str(run), named(frame)) for run, frame in enumerate(frames)], 0)
    np.testing.assert_array_equal(numbers.audit.owner, names.audit.owner)
    for one, other in zip(numbers.evidence, names.evidence, strict=True):
        np.testing.assert_array_equal(one.client, other.client)
        np.testing.assert_array_equal(one.margin, other.margin)


def test_an_owner_may_be_known_from_some_runs_only() -> None:
    """A user who names owners alone leaves the owner out where a run does not include the example."""
    frames = [frame_of(run) for run in range(RUNS)]
    bare = [frame.assign(owner=frame.owner.where(frame.included, -1)) for frame in frames]
    assert memorised(bare) == memorised(frames)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="owner"), r"run 1: .*lacks the column 'owner'.*member_of"),
        (lambda frame: frame[frame.level == "global"], "run 1: the frame has no local model"),
        (lambda frame: frame.assign(round=4), "run 0 and run 1 differ in observed rounds, for example round 3"),
        (lambda frame: frame[frame.subject != 5], "example 5 of 'mine' is in one only"),
        (
            lambda frame: frame.assign(references=10),
            r"run 1 ranks 'mine' among 10 references and run 0 among 63; .*the same references in all runs",
        ),
        (
            lambda frame: frame.assign(references=frame.references.where(frame.level == "local", 10)),
            "run 1 ranks 'mine' among 10 references and run 0 among 63",
        ),
        (lambda frame: frame.assign(content="x"), "example 0 of 'mine' is another example in run 1"),
        (
            lambda frame: frame.assign(owner=1),
            "example 0 of 'mine' belongs to client 0 in run 0 and to client 1 in run 1",
        ),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(change: Callable[[pd.DataFrame], pd.DataFrame], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        combine_runs([frame_of(0), change(frame_of(1))])


def test_audits_without_chance_or_owner_are_refused() -> None:
    frames = [frame_of(run) for run in range(4)]
    with pytest.raises(ValueError, match="1 runs; memorisation compares"):
        combine_runs(frames[:1])
    with pytest.raises(ValueError, match="included in all runs, or in none"):
        combine_runs([frame.assign(included=True) for frame in frames])
    with pytest.raises(ValueError, match="no example has an owner"):
        combine_runs([frame.assign(owner=-1) for frame in frames])


def test_owners_that_never_took_part_are_named() -> None:
    frames: list[Any] = [frame_of(run)[lambda f: f.client != 2] for run in range(RUNS)]
    with pytest.warns(RuntimeWarning, match=r"1 owner never took part in an observed round of any run \(2\)"):
        found = memorised(frames)
    assert found["local", "owner"].n == CANARIES - CANARIES // CLIENTS


def test_owners_that_are_no_client_at_all_are_an_error() -> None:
    """Not an empty summary: member_of has names here, and the clients are numbers."""
    frames = [frame.assign(owner="c" + frame["owner"].astype(str)) for frame in map(frame_of, range(RUNS))]
    with pytest.raises(ValueError, match=r"no owner took part .*owners are c0, c1.*took part are 0, 1"):
        combine_runs(frames)
