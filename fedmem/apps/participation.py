"""Owners that took part in some runs only: what the summary of several runs of an app reads then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.events import count
from fedmem.contracts.evidence import Bank, Evidence, ReferenceEvidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.randomisation import of_means, permute_coins
from fedmem.seeding import stream

FEWEST = 2
"""Runs with the example in, and runs with it out, in which its owner took part: of fewer there is no comparison."""

SUSPECT = 0.01
"""p below which participation seems to depend on the coins."""

_MODELS = ("loss", "margin", "correct")
_RANKS = ("less", "ties")


@dataclass(frozen=True, kw_only=True)
class Participation:
    """Which owner was observed when.

    Attributes:
        rounds: (T,) observed rounds with local models and an aggregate, in order.
        observed: (R, T, N) whether a client's model was observed.
        last: (R, N) the position of the round of the summary; -1 where the client never took part. It is the last round
            in which the client took part in all runs, or else the last one of each run.
        usable: (m,) whether enough runs have an example's owner.
    """

    rounds: IntArray
    observed: BoolArray
    last: IntArray
    usable: BoolArray

    @property
    def partial(self) -> BoolArray:
        """(N,) clients that took part in some runs, and have no round that all runs share."""
        ever, shared = np.any(self.last >= 0, axis=0), np.any(self.observed.all(0), axis=0)
        return np.asarray(ever & ~shared, dtype=bool)


def participation_of(bank: Bank) -> Participation:
    """The participation that the evidence shows."""
    audit = bank.audit
    clients = 1 + max([int(audit.owner.max()), *(int(part.client.max(initial=-1)) for part in bank.evidence)])
    by_level = {level: {part.round for part in bank.evidence if part.level == level} for level in ("local", "global")}
    rounds = np.array(sorted(by_level["local"] & by_level["global"]), dtype=np.int64)
    observed = np.zeros((audit.runs, len(rounds), clients), dtype=bool)
    for part in bank.evidence:
        if part.level == "local" and part.round in rounds:
            observed[part.run, int(np.searchsorted(rounds, part.round)), part.client] = True
    numbered = np.where(observed, np.arange(len(rounds))[:, None], -1)
    shared = np.where(observed.all(0), np.arange(len(rounds))[:, None], -1).max(0, initial=-1)
    last = np.where(shared >= 0, shared, numbered.max(1, initial=-1))
    owned = audit.owner >= 0
    is_read = (last[:, audit.owner] >= 0) & owned
    ins, outs = (is_read & audit.is_in).sum(0), (is_read & ~audit.is_in).sum(0)
    usable = ~owned | (shared[audit.owner] >= 0) | ((ins >= FEWEST) & (outs >= FEWEST))
    return Participation(rounds=rounds, observed=observed, last=last, usable=usable)


def summary_bank(bank: Bank, took_part: Participation) -> Bank:
    """A bank of one round, in which each example is read at the round of its owner in each run.

    All models of that round are read on the example: those of the owner, of the other clients, and the aggregate. A run
    in which the owner never took part does not count for the example at any level.
    """
    audit, last = bank.audit, took_part.last
    position = np.where(audit.owner >= 0, last[:, audit.owner], len(took_part.rounds) - 1)  # (R, m)
    position = np.where(took_part.usable, position, -1)
    levels: tuple[Level, ...] = ("local", "global")
    evidence, references = [], []
    for level in levels:
        rows = _rows(bank, took_part, level)
        chosen = {
            name: _at(position, rows, [part for part in bank.evidence if part.level == level], took_part, name)
            for name in _MODELS
        }
        run, client = (np.array([row[axis] for row in rows], dtype=np.int32) for axis in (0, 1))
        common = {"round": int(took_part.rounds[-1]), "level": level, "run": run, "client": client}
        evidence.append(_evidence(common, chosen))
        for family in dict.fromkeys(part.family for part in bank.references if part.level == level):
            parts = [part for part in bank.references if (part.level, part.family) == (level, family)]
            references.append(_references(common, position, rows, parts, took_part))
    seen = replace(audit, client_in=last >= 0)
    return replace(bank, audit=seen, evidence=tuple(evidence), references=tuple(references))


def _rows(bank: Bank, took_part: Participation, level: Level) -> list[tuple[int, int]]:
    """The pairs of run and client with a model at this level."""
    parts = [part for part in bank.evidence if part.level == level and part.round in took_part.rounds]
    pairs = {pair for part in parts for pair in zip(part.run.tolist(), part.client.tolist(), strict=True)}
    return sorted(pairs)


def _at(
    position: IntArray,
    rows: list[tuple[int, int]],
    parts: list[Evidence] | list[ReferenceEvidence],
    took_part: Participation,
    name: str,
    empty: float = np.nan,
) -> FloatArray:
    """(rows, m) a value of each model on each example, at the round of the example."""
    place = {row: number for number, row in enumerate(rows)}
    values = np.full((len(rows), position.shape[1]), empty)
    for part in parts:
        if part.round not in took_part.rounds:
            continue
        number = int(np.searchsorted(took_part.rounds, part.round))
        target = np.array(
            [place[pair] for pair in zip(part.run.tolist(), part.client.tolist(), strict=True)], dtype=int
        )
        is_read = position[part.run] == number
        values[target] = np.where(is_read, getattr(part, name), values[target])
    return values


def _evidence(common: Mapping[str, object], chosen: Mapping[str, FloatArray]) -> Evidence:
    fields: dict[str, object] = {**common, "set": "audit", **chosen, "correct": chosen["correct"] == 1}
    return Evidence(**fields)  # type: ignore[arg-type]


def _references(
    common: Mapping[str, object],
    position: IntArray,
    rows: list[tuple[int, int]],
    parts: list[ReferenceEvidence],
    took_part: Participation,
) -> ReferenceEvidence:
    first = parts[0]
    subjects = first.subjects
    chosen = {name: _at(position[:, subjects], rows, parts, took_part, name, -1) for name in _RANKS}
    whole = {
        name: np.where(chosen["less"] < 0, -(name == "less"), value).astype(np.int32) for name, value in chosen.items()
    }
    quantiles = np.empty((len(rows), 0, 256), dtype=np.float32)
    return replace(first, **common, **whole, quantiles=quantiles)  # type: ignore[arg-type]


def partial_text(audit: AuditSet, took_part: Participation) -> str:
    """A text on owners that took part in only some runs, and on how the summary reads them; empty without any."""
    partial = took_part.partial
    concerned = (audit.owner >= 0) & partial[audit.owner]
    if not concerned.any():
        return ""
    pairs = (took_part.last[:, audit.owner] >= 0)[:, concerned]
    left_out = int((concerned & ~took_part.usable).sum())
    text = (
        f"{int(partial.sum())} {'owner shares' if partial.sum() == 1 else 'owners share'} no observed round of all "
        f"{audit.runs} runs. The summary reads each of their {count(int(concerned.sum()), 'example')} at the last "
        f"observed round of each run in which its owner took part: {int(pairs.sum())} of {pairs.size} pairs "
        "of run and example, at all levels. In the other pairs the owner never trained. Rows of "
        "scope round at level global count them too"
    )
    if left_out:
        text += (
            f". {count(left_out, 'example')} {'is' if left_out == 1 else 'are'} left out of the summary: fewer than "
            f"{FEWEST} runs with the example in, or out, have its owner; add runs or rounds"
        )
    return text


def dependence_text(bank: Bank, took_part: Participation, deals: int) -> str:
    """A warning if owners take part more or less often in runs that include their examples; empty otherwise.

    p comes from coins drawn again. Comparisons of in and out need participation that does not depend on the coins.
    """
    audit = bank.audit
    rows = np.flatnonzero(audit.owner >= 0)
    times = took_part.observed.sum(1)[:, audit.owner].astype(np.float64)
    p = of_means(times, rows, permute_coins(audit, deals, stream(bank.seed, "participation")))
    if not p < SUSPECT:
        return ""
    inside, outside = (float(times[:, rows][side[:, rows]].mean()) for side in (audit.is_in, ~audit.is_in))
    return (
        f"owners took part in {inside:.2f} observed rounds where their example is in, and in {outside:.2f} where it is "
        f"out (p = {p:.2g}). Participation seems to depend on inclusion, so values of the summary are no effects of "
        "training on the examples. Sample clients without regard to their data, losses or sizes"
    )
