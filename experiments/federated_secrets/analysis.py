"""From finished federations to what they show: exposure in each arm, over rounds, and the gates Q1 to Q7.

A seed is a replicate: it draws secrets, coins, weights and cohorts again. All arms of a seed share what they can, so
arms are compared within seeds. Secrets of one cell have one label; see scenario.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Bank
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.studies.contrasts import contrast, mean_of
from fedmem.studies.experiment import verdict

COPIES = {"x1": 1, "x2": 2, "x4": 4, "x8": 8, "x16": 16}
"""Secrets of one owner each: label -> copies there."""

OWNERS = {"x16": 1, "u2x8": 2, "u4x4": 4, "u8x2": 8}
"""Secrets of 16 copies in all: label -> clients among which they are spread."""

PLAIN, CLIPPED, PRIVATE = "fedavg", "norm_clipping", "dp_fedavg"
THROUGHOUT = "fedavg, each secret in the last round of an owner"
"""FedAvg once more, with all secrets: other arms are looked at in their last round alone, where cohorts hold some."""
SHUFFLED, BY_CLIENT = "central, shuffled", "central, by client"
COHORTS = {"cohort of 4": 4, PLAIN: 8, "cohort of 16": 16}
"""Arms that differ in the clients of a round alone."""

ONCE = "a secret of one copy is exposed above chance ({})"
PLACES = {("local", "owner"): "local", ("local", "others"): "others", ("global", ""): "global"}
METRICS = ("exposure", "exposure_gain", "memorisation", "exposure_p")


def of_run(run: Run, *, throughout: bool = False) -> pd.DataFrame:
    """The values of one federation in its last round, kind by kind and place by place, and what it can do.

    The secrets that somebody in the cohort holds are read there. With `throughout` all are read, each in the last
    observed round in which an owner took part. These are comparable only between federations that are observed alike.
    `saturated_from` is the value from which on a measure is too near its ceiling to be compared.
    """
    rows, kinds = run.measurements, set(run.audit.kind)
    at_end = rows.scope.str.endswith("summary") if throughout else rows["round"] == rows["round"].max()
    last = rows[at_end & rows.metric.isin(METRICS) & rows.subject.isin(kinds)].copy()
    last["place"] = [PLACES.get(key, "") for key in zip(last.level, last.place, strict=True)]
    # one run alone: runs of a seed share their secrets, so their p are no independent trials
    mask = (last.place != "") & ((last.metric != "exposure_p") | (last.run == 0))
    use = rows[(rows.metric == "test_accuracy") & (rows.scope == "summary") & (rows.level == "global")]
    parts = [last[mask], use.assign(place="global")]
    values = pd.concat(parts)[["metric", "subject", "statistic", "place", "value", "n"]]
    counts = run.reference_counts
    measured = zip(values.metric, values.subject, strict=True)
    tops = [zone_of_metric(metric, counts.get(kind, ())).top for metric, kind in measured]
    return values.assign(saturated_from=tops).rename(columns={"subject": "kind"})


def over_rounds(run: Run, bank: Bank) -> pd.DataFrame:
    """The exposure of the aggregate and its gain in each observed round, and the loss on the test set in nats."""
    rows = run.measurements
    mask = rows.metric.isin(["exposure", "exposure_gain"]) & (rows.level == "global") & (rows.scope == "round")
    exposures = rows[mask & rows.subject.isin(set(run.audit.kind))][["round", "metric", "subject", "value"]]
    losses = [
        {"round": part.round, "metric": "test_loss", "subject": "", "value": float(part.loss.mean())}
        for part in bank.evidence
        if (part.set, part.level) == ("test", "global")
    ]
    return pd.concat([exposures, pd.DataFrame(losses)]).rename(columns={"subject": "kind"})


def spikes(bank: Bank, kinds: Sequence[str]) -> float:
    """By how many bits more the aggregate's exposure of a secret rises where an owner took part.

    This is a difference of two mean changes from one observed round to the next, over runs that hold the secret. It is
    the change where an owner was in a cohort in between, minus the change where none was. NaN where one is missing.
    """
    audit = bank.audit
    of_kinds = np.isin(audit.kind, kinds)
    participants: dict[int, set[int]] = {}
    for part in bank.participation:
        participants.setdefault(part.round, set()).add(part.client)
    with_owner: list[FloatArray] = []
    without: list[FloatArray] = []
    before: tuple[int, FloatArray] | None = None
    for view in views(bank, permute_coins(audit, 1, np.random.default_rng(0))):
        if view.level != "global" or view.round is None:
            continue
        bits = np.log2((view.references + 1) / view.rank[:, 0])
        bits = np.where(audit.is_in & of_kinds, bits, np.nan)
        if before is not None:
            between = range(before[0] + 1, view.round + 1)
            owner_present = audit.holds(
                sorted(set().union(*(participants.get(round_number, ()) for round_number in between)))
            ).any(axis=0)
            change = bits - before[1]
            with_owner.append(change[:, owner_present])
            without.append(change[:, ~owner_present])
        before = view.round, bits
    means = [_mean(parts) for parts in (with_owner, without)]
    return means[0] - means[1]


def _mean(parts: Sequence[FloatArray]) -> float:
    values = np.concatenate([np.zeros(0), *(part[~np.isnan(part)] for part in parts)])
    return float(values.mean()) if len(values) else math.nan


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of everything, and its difference to FedAvg, paired by seeds.

    `saturated` and `reference_saturated` say that a mean, or that of FedAvg, is too near its ceiling to be compared.
    """
    keys = ["data", "metric", "kind", "statistic", "place"]
    rows = []
    for key, group in values[values.metric != "exposure_p"].groupby(keys, sort=False):
        top = group.saturated_from.min()
        cells = group.pivot_table(index="seed", columns="arm", values="value", dropna=False, sort=False)
        for arm in cells:
            here = cells[arm].to_numpy(dtype=np.float64)
            mean = mean_of(here)
            row = dict(zip(keys, key, strict=True)) | {"arm": arm, "mean": mean.value, "low": mean.low}
            row |= {"high": mean.high, "seeds": mean.n, "n": int(group[group.arm == arm].n.sum())}
            row["saturated"] = mean.value >= top
            if arm != PLAIN and PLAIN in cells:
                base = cells[PLAIN].to_numpy(dtype=np.float64)
                difference = contrast(here, base)
                row |= {
                    "difference": difference.value,
                    "difference_low": difference.low,
                    "difference_high": difference.high,
                }
                row["reference_saturated"] = mean_of(base).value >= top
            rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True, kw_only=True)
class Values:
    """Values of one data set: one number for each arm, kind, place and seed."""

    frame: pd.DataFrame
    seeds: tuple[int, ...]

    def of(self, arm: str, kinds: Sequence[str], place: str, metric: str = "exposure") -> FloatArray:
        """(seeds,) the mean over these kinds, NaN for seeds that lack any of them."""
        rows = self.frame
        selection = rows[(rows.arm == arm) & rows.kind.isin(kinds) & (rows.place == place) & (rows.metric == metric)]
        cells = selection.pivot_table(index="seed", columns="kind", values="value").reindex(
            index=self.seeds, columns=list(kinds)
        )
        return cells.mean(axis=1, skipna=False).to_numpy(dtype=np.float64)

    def is_saturated(self, arms: Sequence[str], kinds: Sequence[str], place: str) -> bool:
        """Whether the mean exposure of any of these arms and kinds over seeds is saturated."""
        rows = self.frame
        selection = rows[
            rows.arm.isin(arms) & rows.kind.isin(kinds) & (rows.place == place) & (rows.metric == "exposure")
        ]
        means = selection.groupby(["arm", "kind"]).agg({"value": "mean", "saturated_from": "min"})
        return bool((means.value >= means.saturated_from).any())

    def slope(self, points: Sequence[tuple[float, FloatArray]]) -> FloatArray:
        """(seeds,) bits for each doubling, by least squares within a seed; NaN where a point is missing."""
        x = np.log2([at for at, _ in points])
        y = np.stack([value for _, value in points])
        x = x - x.mean()
        return np.asarray((x[:, None] * y).sum(axis=0) / (x**2).sum())


def gates(values: pd.DataFrame, curves: pd.DataFrame, spiked: pd.DataFrame, null: float) -> pd.DataFrame:
    """Each published claim on each data set: what it says should be above zero, its interval over seeds, a verdict.

    `holds` where the 95 % interval lies above zero, `contradicted` where it lies below, `not significant` where it
    contains zero, `undefined` without an interval. Intervals are not adjusted for the number of claims. `null` is the
    exposure of a secret that no client trained on. `p` is that of Fisher's method over seeds, where Q1 asks for it.
    `saturated`: some exposure that enters is at its ceiling, so that the value is nearer to zero than the truth.
    """
    rows = []
    p_values = {place: fisher(values, "x1", place) for place in ("local", "global")}
    for data, group in values.groupby("data", sort=False):
        seeds = tuple(sorted(set(group.seed)))
        data_values = Values(frame=group, seeds=seeds)
        line = curves[curves["data"] == data]
        jump = spiked[spiked["data"] == data].set_index("seed").value.reindex(seeds).to_numpy(dtype=np.float64)
        for gate, claim, estimates, capped in _claims(data_values, line, jump, null):
            mean = mean_of(estimates)
            rows.append({"data": data, "gate": gate, "claim": claim, "value": mean.value, "low": mean.low})
            rows[-1] |= {"high": mean.high, "seeds": mean.n, "verdict": verdict(mean.low, mean.high)}
            rows[-1] |= {"saturated": capped}
            places = [place for place in p_values if claim == ONCE.format(place)]
            rows[-1] |= {"p": p_values[places[0]].get(str(data), math.nan) if places else math.nan}
    return pd.DataFrame(rows)


def _claims(
    values: Values, line: pd.DataFrame, jump: FloatArray, null: float
) -> Iterator[tuple[str, str, FloatArray, bool]]:
    """Gate, claim, what should be above zero (seeds,), and whether an exposure that enters is saturated."""
    kinds = list(COPIES)
    for place in ("local", "global"):
        once = values.of(THROUGHOUT, ["x1"], place)
        yield "Q1", ONCE.format(place), once - null, values.is_saturated([THROUGHOUT], ["x1"], place)
        points = [(copies, values.of(THROUGHOUT, [kind], place)) for kind, copies in COPIES.items()]
        claim = f"exposure rises with copies, bits for each doubling ({place})"
        yield "Q1", claim, values.slope(points), values.is_saturated([THROUGHOUT], kinds, place)
    yield "Q2", "the aggregate's exposure rises more where an owner took part", jump, False

    def less(more: str, other: str) -> tuple[FloatArray, bool]:
        exposures = [values.of(arm, kinds, "global") for arm in (more, other)]
        return exposures[0] - exposures[1], values.is_saturated([more, other], kinds, "global")

    yield "Q3", "clipping lowers exposure", *less(PLAIN, CLIPPED)
    yield "Q3", "noise lowers it further", *less(CLIPPED, PRIVATE)
    lowest = _at_lowest(line, values.seeds)
    yield "Q4", "16 copies are exposed above chance where the test loss is lowest", lowest, False
    yield "Q5", "central training in random order exposes more than client by client", *less(SHUFFLED, BY_CLIENT)
    yield "Q5", "central training client by client exposes more than FedAvg", *less(BY_CLIENT, PLAIN)
    yield "Q5", "FedAvg exposes more than DP-FedAvg", *less(PLAIN, PRIVATE)
    points = [(count, values.of(THROUGHOUT, [kind], "global")) for kind, count in OWNERS.items()]
    spread = values.is_saturated([THROUGHOUT], list(OWNERS), "global")
    yield "Q6", "16 copies expose more among more clients, bits for each doubling", values.slope(points), spread
    points = [(size, values.of(arm, kinds, "global")) for arm, size in COHORTS.items()]
    sized = values.is_saturated(list(COHORTS), kinds, "global")
    yield "Q7", "larger cohorts expose less, bits for each doubling", -values.slope(points), sized


def _at_lowest(line: pd.DataFrame, seeds: Sequence[int]) -> FloatArray:
    """(seeds,) the gain in exposure of the most repeated secrets at the round with the lowest test loss."""
    gains = []
    for seed in seeds:
        seed_rows = line[line.seed == seed]
        loss = seed_rows[seed_rows.metric == "test_loss"].set_index("round").value
        gain = seed_rows[(seed_rows.metric == "exposure_gain") & (seed_rows.kind == "x16")].set_index("round").value
        both = loss.index.intersection(gain.index)
        lowest: Any = loss[both].idxmin() if len(both) else None
        gains.append(math.nan if lowest is None else float(gain[lowest]))
    return np.array(gains, dtype=np.float64)


def fisher(values: pd.DataFrame, kind: str, place: str) -> Mapping[str, float]:
    """Data set -> p that no secret of a kind is exposed, over all seeds of FedAvg together (Fisher's method)."""
    from scipy.stats import chi2

    mask = (
        (values.metric == "exposure_p") & (values.arm == THROUGHOUT) & (values.kind == kind) & (values.place == place)
    )
    p_values = {}
    for data, group in values[mask].groupby("data", sort=False):
        statistic = -2 * np.log(np.maximum(group.value.to_numpy(dtype=np.float64), 1e-300)).sum()
        p_values[str(data)] = float(chi2.sf(statistic, 2 * len(group)))
    return p_values
