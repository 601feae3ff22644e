"""Claims about approximations of influence, each as a difference that is above 0 if it holds, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.influence.analysis import PREDICTS, RANKS
from experiments.proxies.analysis import KIND
from fedmem.studies.experiment import with_verdict

TEST, OTHERS = "test", "audit without itself"


@dataclass(frozen=True, kw_only=True)
class Value:
    """Which value of a seed a claim is about; the network is that of the claim unless it is given."""

    of: str
    question: str = PREDICTS
    targets: str = TEST
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`more` − `less` > 0 or, with `within`, that they are so near to each other.

    `models` and `levels` are those that it is about.
    """

    words: str
    more: Value
    less: Value | float = 0.0
    within: float | None = None
    models: tuple[str, ...] = ("logistic", "mlp")
    levels: tuple[str, ...] = ("local", "global")


def _ranks(of: str, words: str) -> Claim:
    """The claim that an approximation ranks ordinary examples better than the gradient norm alone."""
    return Claim(
        words=f"{words} ranks ordinary examples as memorisation does better than the gradient norm",
        more=Value(of=of, question=RANKS, targets=KIND),
        less=Value(of="grad_norm", question=RANKS, targets=KIND),
    )


CLAIMS = (
    _ranks("influence_function", "the influence function"),
    _ranks("tracin", "TracIn"),
    _ranks("trak", "TRAK"),
    _ranks("representer", "the representer value"),
    Claim(words="the influence function predicts test margins of other runs", more=Value(of="influence_function")),
    Claim(words="TracIn predicts test margins of other runs", more=Value(of="tracin")),
    Claim(words="TRAK predicts test margins better than TracIn", more=Value(of="trak"), less=Value(of="tracin")),
    Claim(
        words="TracIn predicts test margins better than the representer value",
        more=Value(of="tracin"),
        less=Value(of="representer"),
    ),
    Claim(
        words="the influence function predicts test margins better than in-minus-out differences of half of the runs",
        more=Value(of="influence_function"),
        less=Value(of="datamodel"),
    ),
    Claim(
        words="the influence function predicts margins of other audit examples",
        more=Value(of="influence_function", targets=OTHERS),
    ),
    Claim(
        words="the influence function predicts better for logistic regression than for the MLP",
        more=Value(of="influence_function", model="logistic"),
        less=Value(of="influence_function", model="mlp"),
        models=("mlp",),
    ),
    Claim(
        words="EK-FAC predicts as well as the dense matrix, within .05",
        more=Value(of="influence_function", model="mlp, EK-FAC"),
        less=Value(of="influence_function", model="mlp"),
        within=0.05,
        models=("mlp",),
        levels=("global",),  # at owners no inverse is taken
    ),
)
"""The claims, chosen on seed 0, which is in no table."""


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim for each network and level: the mean difference over seeds, Student's 95 % interval and a verdict.

    A difference is undefined unless every seed has one. Intervals are not adjusted for the number of claims.

    Args:
        values: One row a value: question, model, level, of, targets, seed, value.
    """
    rows = []
    for claim in CLAIMS:
        for model in claim.models:
            for level in claim.levels:
                gap = _difference(values[values.level == level], claim, model)
                if gap is not None:
                    rows.append({"claim": claim.words, "model": model, "level": level, **with_verdict(gap)})
    return pd.DataFrame(rows)


def _difference(values: pd.DataFrame, claim: Claim, model: str) -> np.ndarray | None:
    """One value a seed; None where the runs have no such value."""
    more = _of_seeds(values, claim.more, model)
    less = pd.Series(claim.less, more.index) if isinstance(claim.less, float) else _of_seeds(values, claim.less, model)
    if more.empty or less.empty:
        return None
    gap = (more - less).to_numpy(dtype=np.float64)
    return gap if claim.within is None else claim.within - np.abs(gap)


def _of_seeds(values: pd.DataFrame, wanted: Value, model: str) -> pd.Series:
    rows = values[
        (values.question == wanted.question)
        & (values["of"] == wanted.of)
        & (values.targets == wanted.targets)
        & (values.model == (wanted.model or model))
    ]
    return rows.set_index("seed")["value"].sort_index()
