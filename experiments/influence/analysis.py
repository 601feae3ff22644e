"""From a finished bank to how well each approximation ranks examples and predicts runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.proxies.analysis import KIND, PLACES, agreement
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.rank_agreement import Halves
from fedmem.estimation.statistics import mean
from fedmem.estimation.views import views
from fedmem.results.read import read, read_bank
from fedmem.studies.experiment import table_over_seeds

WRONG = "mislabelled"
HALVINGS = 10
APPROXIMATIONS = ("influence_function", "tracin", "trak", "representer", "grad_norm")
"""Approximations of influence, and a proxy that is none: it has no other rows in it."""

CONTROLS = ("memorisation", "memorisation, coins shuffled")
KEYS = ["question", "model", "level", "of", "targets"]

RANKS, PREDICTS = "agreement", "lds"
"""The questions: the rank correlation with memorisation, and the linear datamodeling score."""


def of_run(folder: Path, seed: int) -> pd.DataFrame:
    """The agreements with memorisation and the linear datamodeling scores of one bank."""
    return pd.concat([_agreements(folder, seed), _scores(folder)], ignore_index=True).assign(seed=seed)


def _agreements(folder: Path, seed: int) -> pd.DataFrame:
    """Of models that trained on the example, for ordinary examples and wrong labels by themselves."""
    bank = read_bank(folder)
    audit = bank.audit
    halves = Halves.draw(audit.is_in, HALVINGS, np.random.default_rng(seed), audit.coin_rows)
    rows = []
    for view in views(bank, permute_coins(audit, 1, np.random.default_rng(0))):
        if view.round is not None or (view.level, view.place) not in PLACES:
            continue
        memory = halves.means(_probability(view), "gain")
        found = {name: halves.means(mean(view.signals[name], axis=1), "in") for name in _read(view)}
        found[CONTROLS[0]] = memory
        found[CONTROLS[1]] = halves.means(_permute_runs(view, seed), "gain")
        for kind in (KIND, WRONG):
            examples = np.flatnonzero(audit.kind == kind)
            for name, values in found.items():
                both = agreement(memory, values, examples)
                row = {"level": view.level, "of": name, "targets": kind}
                # shuffled coins have no ranks that repeat, so that nothing can be corrected for their noise
                question = "split" if name == CONTROLS[1] else RANKS
                rows.append({"question": question, **row, "value": both[question]})
    return pd.DataFrame(rows)


def _read(view: View) -> list[str]:
    return [name for name in APPROXIMATIONS if name in view.signals]


def _probability(view: View) -> FloatArray:
    """(R, m) the probability of the label."""
    with np.errstate(invalid="ignore"):
        return np.asarray(mean(np.exp(-np.logaddexp(0.0, -view.margin)), axis=1))


def _permute_runs(view: View, seed: int) -> FloatArray:
    """(R, m) the same probabilities, each example's in another order of the runs, so that its coin says nothing."""
    return np.asarray(np.random.default_rng(seed).permuted(_probability(view), axis=0))


def _scores(folder: Path) -> pd.DataFrame:
    """The linear datamodeling scores, from the rows that the estimator of this name wrote."""
    rows = read(folder).measurements
    found = rows[(rows.metric == "lds") & (rows.scope == "summary")]
    return pd.DataFrame(
        {
            "question": PREDICTS,
            "level": found.level.astype(str),
            "of": found["of"].astype(str),
            "targets": found.targets.astype(str),
            "value": found.value.astype(float),
        }
    )


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)
