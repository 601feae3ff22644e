"""From banks to one table: how well proxies rank examples as memorisation does, by level and round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import rankdata, ttest_1samp

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.rank_agreement import Halves, Ranks, Resampling, Variant, rank_agreement
from fedmem.estimation.statistics import mean
from fedmem.estimation.views import views
from fedmem.estimators.trajectories import Trajectories
from fedmem.estimators.v_information import VInformation
from fedmem.studies.experiment import holm_by_family, over_seeds

VARIANTS: tuple[Variant, ...] = ("in", "out", "gain")
PLACES = (("local", "owner"), ("global", ""))
KIND = "typical"
"""The examples of the agreement: ordinary ones, so that no correlation is that kinds differ."""

WRONG = "mislabelled"
HALVINGS = 10
CONTROLS = ("noise", "memorisation", "memorisation, coins shuffled")
FAMILY = ["question", "data", "level"]  # tests that are adjusted together
KEYS = ["question", "data", "level", "round", "proxy", "statistic"]
ROUNDS = (0, 1, 2, 5, 10, 20, 40)
"""The rounds of which there are rows, where proxies are read at them, beside the summary."""

LAST = -1
"""The number that stands for the summary among rounds."""


def of_bank(bank: Bank, seed: int) -> pd.DataFrame:
    """The agreements and the areas for wrong labels of one bank, at both levels, by round."""
    audit = bank.audit
    halves = Halves.draw(audit.is_in, HALVINGS, np.random.default_rng(seed), audit.coin_rows)
    by_place: dict[tuple[str, str], list[View]] = {place: [] for place in PLACES}
    for view in views(bank, permute_coins(audit, 1, np.random.default_rng(0))):
        if (view.level, view.place) in by_place:
            by_place[view.level, view.place].append(view)
    rows = []
    for of_place in by_place.values():
        final = of_place[-1]
        memory = _memory(final, halves)
        for view in of_place:
            if view.round is not None and view.round not in ROUNDS:
                continue
            number = LAST if view.round is None else view.round
            for proxy, values in _quantities(view, seed).items():
                for variant in VARIANTS:
                    row = {"level": view.level, "round": number, "proxy": proxy, "statistic": variant}
                    found = agreement(memory, halves.means(values, variant), _rows_of(view, KIND))
                    asked = found if view.round is None else ("agreement",)
                    rows += [{"question": name, **row, "value": found[name]} for name in asked]
                area = wrong_label_area(view, values)
                row = {"level": view.level, "round": number, "proxy": proxy, "statistic": "in"}
                rows.append({"question": "wrong labels", **row, "value": area})
        for proxy, values in _controls(final, halves, seed).items():
            row = {"level": final.level, "round": LAST, "proxy": proxy, "statistic": "gain"}
            found = agreement(memory, values, _rows_of(final, KIND))
            rows += [{"question": name, **row, "value": value} for name, value in found.items()]
    made = pd.DataFrame(rows)
    is_asked = made.groupby(["question", "level", "round", "proxy", "statistic"])["value"].transform(
        lambda values: values.notna().any()
    )
    return made[is_asked | (made.question == "agreement")].assign(seed=seed)


def agreement(memory: FloatArray, proxy: FloatArray, rows: IntArray) -> Mapping[str, float]:
    """The corrected and the plain rank correlation of two quantities (2, H, m) over some examples, from other runs.

    >>> values = np.tile(np.linspace(0.0, 1.0, 30), (2, 3, 1))
    >>> agreement(values, -values, np.arange(30))["agreement"]
    -1.0
    """
    first, second = memory[:, :, rows], proxy[:, :, rows]
    is_usable = ~(np.isnan(first).any((0, 1)) | np.isnan(second).any((0, 1)))
    if np.count_nonzero(is_usable) < 20:
        return {"agreement": math.nan, "split": math.nan, "reliability": math.nan}
    draws = Resampling.draw(np.flatnonzero(is_usable), np.random.default_rng(0), draws=1, shuffles=1)
    one, other = (Ranks.of(values[:, :, is_usable], draws.weights) for values in (first, second))
    found = rank_agreement(one, other, draws.shuffles)
    return {"agreement": found.corrected, "split": found.split, "reliability": found.other_reliability}


def wrong_label_area(view: View, values: FloatArray) -> float:
    """The probability that a wrong label has a larger mean over in runs than an ordinary example, ties half."""
    with np.errstate(invalid="ignore"):
        means = np.nanmean(np.where(view.audit.is_in, values, np.nan), axis=0)
    wrong, ordinary = (means[_rows_of(view, kind)] for kind in (WRONG, KIND))
    wrong, ordinary = wrong[np.isfinite(wrong)], ordinary[np.isfinite(ordinary)]
    if not len(wrong) or not len(ordinary):
        return math.nan
    ranks = rankdata(np.concatenate([wrong, ordinary]))[: len(wrong)]
    return float((ranks.sum() - len(wrong) * (len(wrong) + 1) / 2) / (len(wrong) * len(ordinary)))


def _memory(view: View, halves: Halves) -> FloatArray:
    with np.errstate(invalid="ignore"):
        probability = np.exp(-np.logaddexp(0.0, -view.margin))
    return halves.means(mean(probability, axis=1), "gain")


def _quantities(view: View, seed: int) -> dict[str, FloatArray]:
    """The proxies of a view (R, m): the loss, all signals, and in the summary those of estimators; and pure noise."""
    found = {"loss": mean(view.loss, axis=1)}
    found |= {name: mean(values, axis=1) for name, values in view.signals.items() if not name.startswith("probability")}
    if view.round is None:
        for estimator in (Trajectories(), VInformation()):
            for quantity in estimator.example_values(view):
                found[" ".join(filter(None, (quantity.metric, str(quantity.labels))))] = quantity.values
        found["noise"] = np.random.default_rng(seed).standard_normal(found["loss"].shape)
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _controls(view: View, halves: Halves, seed: int) -> dict[str, FloatArray]:
    """Controls: memorisation must agree with itself, and memorisation by shuffled coins with nothing."""
    coins = np.random.default_rng(seed).permuted(view.audit.is_in, axis=0)
    shuffled = replace(halves, is_in=coins)
    return {CONTROLS[1]: _memory(view, halves), CONTROLS[2]: _memory(view, shuffled)}


def _rows_of(view: View, kind: str) -> IntArray:
    return np.flatnonzero(view.audit.kind == kind)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student), and p against the null, adjusted by Holm within `FAMILY`.

    The null of an area is ½, that of a correlation 0. A mean is undefined where any seed is.
    """
    rows = []
    for key, group in values.groupby(KEYS, sort=False):
        of_seeds = group.sort_values("seed")["value"].to_numpy(dtype=np.float64)
        null = 0.5 if key[0] == "wrong labels" else 0.0
        tested = len(of_seeds) > 1 and np.isfinite(of_seeds).all() and key[0] != "reliability" and np.ptp(of_seeds) > 0
        p = float(ttest_1samp(of_seeds, null).pvalue) if tested else math.nan
        rows.append({**dict(zip(KEYS, key, strict=True)), **over_seeds(of_seeds), "p": p})
    made = pd.DataFrame(rows)
    return made.assign(holm=holm_by_family(made, FAMILY))
