"""Whether models are better than the answer that ignores the input: the most frequent label, or token, for everything.

Models of densities are compared with one distribution for all pixels.
A model that has learnt little memorises little, so low values of its memorisation are no finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.density_baselines import independent_pixels, one_distribution
from fedmem.estimation.statistics import jackknife

METRIC = "test_accuracy"
"""The measure that `Learning.accuracy` is a value of, where `on` is `test`."""

TEST_LOSS = "test_loss"
"""The measure that says how good models are where nothing is right or wrong, as with models of densities."""

ALPHA = 0.025
"""The level of each of the two tests, on held-out and on audit examples: 5 % together."""

Verdict = Literal["learnt", "fitted", "not shown", "undefined"]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How well the models of a level, at its last observed round, have learnt the task.

    Attributes:
        level: The level.
        round: The last observed round of this level.
        on: The held-out set that was asked, `test`, or `population` without test examples; empty without either.
        accuracy: Mean over models of the share of this set that is right; of texts of the tokens. NaN without a set.
        low: Lower end of its 95 % interval, Student's t over runs.
        high: Upper end.
        models: How many models have not diverged.
        examples: How many examples the set has.
        constant: The share that is right when every answer is the most frequent one of the set.
        answer: The label (or token) of this answer, -1 without a set.
        p: One-sided p that the models are no better than this answer; NaN without a set.
        p_of_audit: The larger of both p on the audit examples that the models were trained on.
        verdict: `learnt` (better on the held-out set), or `fitted` (better only on audit examples that the models were
            trained on). Otherwise `not shown`, or `undefined` where so few examples could show nothing.
        p_of_runs: The same as `p` over runs in the place of examples; NaN with one run, or with few runs of equal
            accuracy.
        densities: Whether models give log-densities. `accuracy` is then their mean in nats, `constant` that of one
            distribution for all pixels, and `p_of_audit` is NaN.
        independent: The mean log-density of independent pixels, the best for exactly these examples; otherwise NaN.
    """

    level: Level
    round: int
    on: str
    accuracy: float
    low: float
    high: float
    models: int
    examples: int
    constant: float
    answer: int
    p: float
    p_of_audit: float
    verdict: Verdict
    p_of_runs: float = math.nan
    densities: bool = False
    independent: float = math.nan


def constant_answers(examples: Examples) -> tuple[int, FloatArray]:
    """The most frequent label, and (n,) whether it is right; of texts the token, and the share of tokens.

    >>> rows = Examples(inputs=np.zeros((3, 2), np.float32), targets=np.array([4, 1, 4]), ids=np.arange(3))
    >>> answer, right = constant_answers(rows)
    >>> answer, right.tolist()
    (4, [1.0, 0.0, 1.0])
    """
    is_asked = examples.targets != -1
    labels, counts = np.unique(examples.targets[is_asked], return_counts=True)
    if not len(labels):
        return -1, np.zeros(len(examples))
    answer = int(labels[counts.argmax()])
    hits = (examples.targets == answer).reshape(len(examples), -1)
    asked = is_asked.reshape(len(examples), -1)
    return answer, np.asarray(hits.sum(1) / np.maximum(asked.sum(1), 1))


def p_better(differences: FloatArray) -> float:
    """One-sided p of Student's t test that the mean of n differences is not above 0.

    For differences that are all alike it is that of the sign test: 2^-n above 0, else 1.

    >>> round(p_better(np.array([1.0, 1.0, 0.0, 1.0, 0.0, -1.0])), 3), p_better(np.zeros(5))
    (0.182, 1.0)
    """
    if len(differences) < 2 or np.ptp(differences) <= 1e-12:
        return 0.5 ** len(differences) if len(differences) and differences[0] > 0 else 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0, alternative="greater").pvalue)


def p_over_runs(differences: FloatArray, runs: IntArray) -> float:
    """One-sided p that the models of R runs are no better, from the mean difference of each run, by `p_better`.

    Args:
        differences: (models,) accuracy of a model minus that of the constant answer.
        runs: (models,) the run of each model.

    NaN with one run, and where all runs are alike and so few that the sign test shows nothing.

    >>> round(p_over_runs(np.array([0.4, 0.3, 0.35]), np.array([0, 1, 2])), 4)
    0.0034
    """
    means = np.array([differences[runs == run].mean() for run in np.unique(runs)])
    is_alike = len(means) < 2 or np.ptp(means) <= 1e-12
    return math.nan if is_alike and 0.5 ** len(means) > ALPHA else p_better(means)


def check_learning(bank: Bank, test: Examples, population: Examples, *, binary: bool = False) -> Iterator[Learning]:
    """For each level whether its models at the last observed round are better than a constant answer.

    The difference of an example is the share of models that are right about it, minus 1 where the constant answer is.
    A one-sided t test over the examples says whether their mean is above 0, for examples like these and the models of
    all runs together. For a model whose answers do not depend on the input, the mean is at most 0. At its largest,
    where two labels are equally frequent, the differences are symmetric. So about 2.5 % of such models are called
    `learnt` at most, and about 5 % `learnt` or `fitted`, for any number of runs, alike or not. The constant answer is
    the best one for exactly these examples, which lowers both. A diverged model counts as wrong.

    The answers of untrained networks depend on the input, and may be better by the luck of their weights. All examples
    share this luck, so that neither a t test nor a binomial test over examples is valid for them. A second t test, over
    runs, therefore has to agree. It assumes that the accuracies of runs are independent and about normally distributed.
    Untrained networks with weights of their own (`initial_weights: per_run`) favour no label, so that their mean
    accuracy is at most that of the constant answer. In simulations with two equally frequent labels and 2 to 32 runs,
    both tests agree for at most 4 % of such networks. The test over examples alone is fooled by up to 22 %.

    Models that give log-densities are compared with one distribution for all pixels, the best for exactly these
    examples, by the same two tests. The difference of an example is in nats. Models that have diverged are left out.
    For a model with a lower bound on log p, a bound above the baseline shows learning. A bound below it shows nothing.

    Nothing protects a single run, or untrained networks that share their initial weights: they are one network. In
    simulations, 15 to 27 % of single ones are called `learnt`.

    Args:
        bank: the evidence.
        test: the test set that it is about.
        population: its reference data.
        binary: whether inputs are 0 or 1.
    """
    levels: tuple[Level, ...] = ("local", "global")
    for level in levels:
        rounds = [block.round for block in bank.evidence if block.level == level and block.round > 0]
        if not rounds:
            continue
        blocks = {block.set: block for block in bank.evidence if (block.level, block.round) == (level, max(rounds))}
        held_out = {"test": test, "population": population}
        if any(_are_densities(block) for block in blocks.values()):
            yield _density_learning(bank.audit, blocks, held_out, binary)
        else:
            yield _learning(bank.audit, blocks, held_out)


def _are_densities(block: Evidence) -> bool:
    """Whether models give log-densities, so that no answer is right: margins are numbers, correctness is not."""
    return block.size > 0 and block.has_shares and bool(np.isnan(block.correct[~np.isnan(block.margin)]).all())


def _density_learning(
    audit: AuditSet, blocks: dict[str, Evidence], held_out: dict[str, Examples], binary: bool
) -> Learning:
    first = next(iter(blocks.values()))
    name = _held_out_set(blocks, held_out)
    p, p_of_runs, constant, independent, models = math.nan, math.nan, math.nan, math.nan, 0
    mean, low, high = math.nan, math.nan, math.nan
    verdict: Verdict = "undefined"
    if name:
        inputs = held_out[name].inputs
        baseline, independent = one_distribution(inputs, binary), independent_pixels(inputs, binary)
        constant = float(baseline.mean())
        is_sound = np.isfinite(blocks[name].margin).all(axis=1)
        values, runs = blocks[name].margin[is_sound], _coin_rows(audit, blocks[name])[is_sound]
        models = int(is_sound.sum())
        if models:
            mean, low, high = _mean_over_runs(values.mean(axis=1), runs)
        if len(inputs) > 1 and not math.isnan(constant):
            p = p_better(values.mean(axis=0) - baseline) if models else 1.0
            p_of_runs = p_over_runs(values.mean(axis=1) - constant, runs) if models else math.nan
            verdict = _verdict(np.fmax(p, p_of_runs), math.nan, 0.0)
    return Learning(
        level=first.level,
        round=first.round,
        on=name,
        accuracy=mean,
        low=low,
        high=high,
        models=models,
        examples=len(held_out[name]) if name else 0,
        constant=constant,
        answer=-1,
        p=p,
        p_of_audit=math.nan,
        verdict=verdict,
        p_of_runs=p_of_runs,
        densities=True,
        independent=independent,
    )


def _held_out_set(blocks: dict[str, Evidence], held_out: dict[str, Examples]) -> str:
    """The name of the first set that has examples and evidence; empty without one."""
    return next((name for name, examples in held_out.items() if len(examples) and name in blocks), "")


def _learning(audit: AuditSet, blocks: dict[str, Evidence], held_out: dict[str, Examples]) -> Learning:
    first = next(iter(blocks.values()))
    name = _held_out_set(blocks, held_out)
    p, smallest, accuracy, low, high, models, constant, answer = math.nan, 1.0, math.nan, math.nan, math.nan, 0, 0.0, -1
    p_of_runs = math.nan
    if name:
        block = blocks[name]
        answer, right = constant_answers(held_out[name])
        constant = float(right.mean())
        is_sound = np.asarray(~np.isnan(block.margin).any(axis=1))
        p = p_better(np.where(is_sound[:, None], block.correct, 0.0).mean(0) - right)
        smallest = p_better(1 - right)
        coin_row = _coin_rows(audit, block)
        p_of_runs = p_over_runs(np.where(is_sound, block.correct.mean(1), 0.0) - constant, coin_row)
        accuracy, low, high = _mean_over_runs(block.correct[is_sound].mean(1), coin_row[is_sound])
        low, high = max(low, 0.0) if low == low else low, min(high, 1.0) if high == high else high
        models = int(is_sound.sum())
    p_of_audit, smallest_of_audit = _p_of_audit(audit, blocks.get("audit"))
    return Learning(
        level=first.level,
        round=first.round,
        on=name,
        accuracy=accuracy,
        low=low,
        high=high,
        models=models,
        examples=len(held_out[name]) if name else 0,
        constant=constant if name else math.nan,
        answer=answer,
        p=p,
        p_of_audit=p_of_audit,
        verdict=_verdict(np.fmax(p, p_of_runs), p_of_audit, smallest if name else smallest_of_audit),
        p_of_runs=p_of_runs,
    )


def _coin_rows(audit: AuditSet, block: Evidence) -> IntArray:
    """(models,) what stands for the run of each model: twins are not independent, and are taken as one run."""
    return np.asarray(block.run if audit.coin_row is None else audit.coin_rows[block.run])


def _verdict(p: float, p_of_audit: float, smallest: float) -> Verdict:
    if p <= ALPHA:
        return "learnt"
    if p_of_audit <= ALPHA:
        return "fitted"
    return "not shown" if smallest <= ALPHA else "undefined"


def _mean_over_runs(values: FloatArray, runs: IntArray) -> tuple[float, float, float]:
    """The mean of the values of models, and Student's t interval over runs."""
    if not len(values):
        return math.nan, math.nan, math.nan
    value = float(values.mean())
    numbers = np.unique(runs)
    without = np.array([values[runs != run].mean() for run in numbers]) if len(numbers) > 1 else np.empty(0)
    low, high = jackknife(value, without)
    return value, low, high


_ORDINARY = "typical"
"""The role of audit examples with the labels that a model learns anyway."""


def _p_of_audit(audit: AuditSet, block: Evidence | None) -> tuple[float, float]:
    """The larger p, over examples and over runs, on audit examples that models were trained on; the smallest possible.

    A local model is asked the examples that its client owns, and compared with the most frequent label of these. Only
    ordinary examples could show that nothing is learnt, since a model need not memorise a random pattern: without
    them, the smallest p is 1.
    """
    if block is None or not len(audit):
        return math.nan, 1.0
    trained = audit.is_in[block.run] & audit.is_active(block.round)
    if block.level == "local":
        trained &= block.client[:, None] == audit.owner
    is_sound = np.asarray(~np.isnan(block.margin).any(axis=1))
    sums, best = np.zeros(len(audit)), np.zeros(len(audit))
    of_models, runs = [], []
    for model in np.flatnonzero(trained.any(axis=1)):
        rows = np.flatnonzero(trained[model])
        _, right = constant_answers(audit.examples.take(rows))
        differences = block.correct[model, rows] * float(is_sound[model]) - right
        sums[rows] += differences
        of_models.append(float(differences.mean()))
        runs.append(int(_coin_rows(audit, block)[model]))
        best[rows] += np.where(audit.role[rows] == _ORDINARY, 1 - right, 0.0)
    is_trained = trained.any(axis=0)
    counts = trained.sum(axis=0)[is_trained]
    p = p_better(sums[is_trained] / counts)
    if runs:
        p = float(np.fmax(p, p_over_runs(np.array(of_models), np.array(runs))))
    return p, p_better(best[is_trained] / counts)


def learning_of_stored(entry: Mapping[str, Any]) -> Learning:
    """The record from its entry in a manifest, in which NaN is null."""
    fields: dict[str, Any] = {name: math.nan if value is None else value for name, value in entry.items()}
    return Learning(**fields)


_MODELS = {"local": "the clients' models", "global": "the aggregate"}
_SETS = {"test": "test examples", "population": "held-out rows"}

UNLEARNT = "models are not shown to have learnt"
"""Begins the warning about learning, which is also its short form."""


def learning_warnings(learnings: Sequence[Learning], *, numbers: bool = False) -> Iterator[str]:
    """The warnings about levels whose models are not shown to have learnt; without numbers the same for every seed.

    >>> [*learning_warnings([])]
    []
    """
    flagged = [learning for learning in learnings if learning.verdict == "not shown"]
    if not flagged:
        return
    tests = [(learning, _failed_tests(learning)) for learning in flagged]
    texts = []
    for learning, failed in tests:
        named = [f"{over} (p {p:.2g})" if numbers else over for over, p in failed]
        texts.append(f"{_MODELS[learning.level]}, over {' and '.join(named)}")
    baseline = "one distribution for all pixels" if flagged[0].densities else "always giving the most frequent answer"
    yield (
        f"{UNLEARNT}. Not shown to be better than {baseline}: {'; '.join(texts)}. UTILITY "
        "in the table has each p. Draw no conclusion about memorisation from low values: they may come from too little "
        "learning. Train longer (rounds, client.epochs), change client.lr, or lower the noise of differential privacy "
        "where there is any."
    )


def _failed_tests(learning: Learning) -> list[tuple[str, float]]:
    """The subject of each test that failed, with its p."""
    if not learning.on:
        return [("the rows trained on", learning.p_of_audit)]
    tests = ((_SETS[learning.on], learning.p), ("runs", learning.p_of_runs))
    return [(over, p) for over, p in tests if p > ALPHA]
