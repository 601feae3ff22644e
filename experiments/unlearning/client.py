"""The rest of a whole client, at the aggregate and at other clients: runs that had it minus runs that had not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.unlearning.analysis import AFTER, AT_ONCE, RETAINED
from experiments.unlearning.arms import CLIENT
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.evidence import BEFORE, Evidence
from fedmem.estimation.roc import auc
from fedmem.results.read import read_bank

OF_CLIENT = ("left_pattern", "left_label", "left_typical")
"""The kinds of the client that leaves."""


def of_client(folder: Path, first: Path) -> pd.DataFrame:
    """The values of one phase: `what`, `kind`, `place`, `attack`, `when` and `value`.

    - `residual`: mean probability of the label of the client's examples that are in, by example. Runs that had the
      client minus runs that left it out. At `others`, models of the clients that stay are read;
    - `before`: the same at the aggregate before the phase; `kept`: at all models with which the first training ended;
    - `auc`: how well the log odds of patterns and wrong labels that are in separate both groups of runs. They are
      averaged over the examples of a run, after those of the other runs that left the client out are subtracted;
    - `change`: of retained patterns of other clients, in runs minus out runs, now minus before, where the client was;
    - `accuracy_change`: of the aggregate, over runs that had the client;
    - `accuracy_gap`: test accuracy of runs that had the client minus that of others: what the client is worth.
    """
    bank, before = read_bank(folder), read_bank(first)
    last = max(block.round for block in bank.evidence)
    ended = max(block.round for block in before.evidence)
    rows = []
    for when, number in ((AT_ONCE, 0), (AFTER, last)):
        for block in bank.evidence:
            if block.round == number and not block.set.endswith(BEFORE):
                rows += [{"when": when, **row} for row in _values(block, bank.audit)]
    start = {block.set: block for block in bank.evidence if block.round == 0 and block.level == "global"}
    audit_before, test_before = (start.get(f"{name}{BEFORE}", start[name]) for name in ("audit", "test"))
    rows += [{**row, "when": AFTER, "what": "before"} for row in _values(audit_before, bank.audit) if _is_left(row)]
    rows += [
        {**row, "when": AFTER, "what": "kept"}
        for block in before.evidence
        if block.round == ended
        for row in _values(block, before.audit)
        if _is_left(row)
    ]
    for when, number in ((AT_ONCE, 0), (AFTER, last)):
        now = {block.set: block for block in bank.evidence if block.round == number and block.level == "global"}
        had = _had_client(bank.audit, now["test"])
        change = _mean(now["test"].correct, had) - _mean(test_before.correct, had)
        rows.append({"what": "accuracy_change", "kind": "", "place": "global", "when": when, "value": change})
        gained = _memory_of_retained(now["audit"], bank.audit) - _memory_of_retained(audit_before, bank.audit)
        rows.append({"what": "change", "kind": RETAINED, "place": "global", "when": when, "value": gained})
    return pd.DataFrame(rows).assign(attack="")


def _is_left(row: dict[str, object]) -> bool:
    return row["what"] == "residual"


def _had_client(audit: AuditSet, block: Evidence) -> BoolArray:
    """(T,) whether the run of each model had the client."""
    return _client_in(audit)[block.run]


def _mean(values: FloatArray | BoolArray, rows: BoolArray) -> float:
    return float(np.asarray(values, dtype=np.float64)[rows].mean())


def _probability(block: Evidence) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(block.margin, dtype=np.float64))))


def _values(block: Evidence, audit: AuditSet) -> Iterator[dict[str, object]]:
    """Residuals, the AUC and the gap of accuracy in one block of evidence."""
    had = _had_client(audit, block)
    if block.set == "test" and block.level == "global":
        gap = _mean(block.correct, had) - _mean(block.correct, ~had)
        yield {"what": "accuracy_gap", "kind": "", "place": "global", "value": gap}
    if not block.set.startswith("audit"):
        return
    place = "global" if block.level == "global" else "others"
    margin, probability = (_by_run(values, block, audit) for values in (block.margin, _probability(block)))
    had, is_in = _client_in(audit), audit.is_in
    for kind in OF_CLIENT:
        rows = audit.kind == kind
        left = residual(probability[:, rows], is_in[:, rows], had)
        yield {"kind": kind, "place": place, "what": "residual", "value": left}
    rows = np.isin(audit.kind, OF_CLIENT[:2])
    scores = scores_of_runs(margin[:, rows], is_in[:, rows], had)
    yield {"kind": "client", "place": place, "what": "auc", "value": auc(scores[None], had[None]).value}


def _client_in(audit: AuditSet) -> BoolArray:
    """(R,) the runs that had the client."""
    assert audit.client_in is not None
    return np.asarray(audit.client_in[:, CLIENT], dtype=bool)


def _by_run(values: FloatArray, block: Evidence, audit: AuditSet) -> FloatArray:
    """(R, m) mean of values (T, m) over the models of a run, without those of the client itself."""
    stays = block.client != CLIENT
    weights = (np.arange(audit.runs)[:, None] == block.run[stays]).astype(np.float64)
    return np.asarray(weights @ np.asarray(values, dtype=np.float64)[stays] / weights.sum(1, keepdims=True))


def residual(values: FloatArray, is_in: BoolArray, had: BoolArray) -> float:
    """The mean over examples: runs that had the client and the example minus runs that had not the client.

    Both are compared example by example, so that which examples a run has does not matter. Examples that no run with
    the client has are left out.

    >>> values = np.array([[0.9, 0.1], [0.0, 0.5], [0.2, 0.1], [0.2, 0.1]])
    >>> is_in = np.array([[True, False], [False, True], [True, True], [False, False]])
    >>> round(residual(values, is_in, np.array([True, True, False, False])), 3)
    0.55
    """
    trained = is_in & had[:, None]
    is_read = trained.any(0)
    inside = np.where(trained, values, 0.0)[:, is_read].sum(0) / trained[:, is_read].sum(0)
    # equal values give 0, not what is left of rounding
    return round(float((inside - values[~had][:, is_read].mean(0)).mean()), 12)


def scores_of_runs(values: FloatArray, is_in: BoolArray, had: BoolArray) -> FloatArray:
    """(R,) the mean over examples that are in of the value minus that of the other runs that had not the client.

    A run that left the client out has the inclusion of its examples all the same, as a control. Equal runs have
    the score 0, so that they are tied.
    """
    values = values - values[:1]  # equal values become zeros, whose means are exact
    others = ~had[None] & ~np.eye(len(had), dtype=bool)
    reference = others @ values / others.sum(1, keepdims=True)
    difference = np.where(is_in, values - reference, 0.0)
    with np.errstate(invalid="ignore"):  # a run without any of them has no score
        return np.asarray(difference.sum(1) / is_in.sum(1))


def _memory_of_retained(block: Evidence, audit: AuditSet) -> float:
    """In minus out of the retained patterns at the aggregate, in runs that had the client."""
    had, kind = _had_client(audit, block), audit.kind == RETAINED
    is_in, probability = audit.is_in[block.run][had][:, kind], _probability(block)[had][:, kind]
    return float(probability[is_in].mean() - probability[~is_in].mean())
