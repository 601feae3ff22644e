"""What is left of a whole client: runs that had it minus runs that left it out, at the aggregate and at other clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    - `residual`: mean probability of the label of the client's examples that are in, over runs that had the client,
      minus that over runs that left it out. At `others`, models of the clients that stay are read;
    - `before`: the same at the aggregate before the phase; `kept`: at all models with which the first training ended;
    - `auc`: how well this probability, averaged over examples of a run, separates both groups of runs;
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
            if block.round == number:
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
        gained = _retained(now["audit"], bank.audit) - _retained(audit_before, bank.audit)
        rows.append({"what": "change", "kind": RETAINED, "place": "global", "when": when, "value": gained})
    return pd.DataFrame(rows).assign(attack="")


def _is_left(row: dict[str, object]) -> bool:
    return row["what"] == "residual"


def _had_client(audit: AuditSet, block: Evidence) -> BoolArray:
    """(T,) whether the run of each model had the client."""
    assert audit.client_in is not None
    return np.asarray(audit.client_in[block.run, CLIENT], dtype=bool)


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
    for kind, kinds in (*((kind, (kind,)) for kind in OF_CLIENT), ("client", OF_CLIENT[:2])):
        values, with_client = _by_run(block, audit, kinds)
        row = {"kind": kind, "place": place}
        if kind == "client":
            yield {**row, "what": "auc", "value": auc(values[None], with_client[None]).value}
        else:
            difference = values[with_client].mean() - values[~with_client].mean()
            yield {**row, "what": "residual", "value": float(difference)}


def _by_run(block: Evidence, audit: AuditSet, kinds: Sequence[str]) -> tuple[FloatArray, BoolArray]:
    """Probability (R,) of the label by run, over models of others and examples that are in; and who had the client."""
    stays = block.client != CLIENT
    is_read = audit.is_in[block.run] & np.isin(audit.kind, kinds) & stays[:, None]
    of_model = np.where(is_read, _probability(block), np.nan)[stays]
    runs = pd.Series(np.nanmean(of_model, axis=1)).groupby(block.run[stays]).mean()
    assert audit.client_in is not None
    return runs.to_numpy(), np.asarray(audit.client_in[runs.index.to_numpy(), CLIENT], dtype=bool)


def _retained(block: Evidence, audit: AuditSet) -> float:
    """In minus out of the retained patterns at the aggregate, in runs that had the client."""
    had, kind = _had_client(audit, block), audit.kind == RETAINED
    is_in, probability = audit.is_in[block.run][had][:, kind], _probability(block)[had][:, kind]
    return float(probability[is_in].mean() - probability[~is_in].mean())
