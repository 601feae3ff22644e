"""From stored evidence to views: what each place shows of every audit example in every run.

A place is (level, setting). At an observed round there are up to three:

- (`global`, ``): the aggregate, for every example;
- (`local`, `owner`): the model of the example's holder, for examples whose holder took part in all R runs;
- (`local`, `others`): the models of the rest of that cohort, for the same examples.

The last round is FINAL, the summary: each example at the last round at which its holder's model was observed in all
runs, the same round at all three places, so that local and global are the same pairs. Examples that nobody holds, and
all examples where nothing local may be read, are there at the last observed round.

Local places need a roster that all runs share. With `roster: own` being picked may depend on the coin, so that in and
out runs would no longer be comparable; there only the global place is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.types import FINAL, AuditSet, Bank, BoolArray, FloatArray, IntArray, Level, Resampling, View

_Place = tuple[Level, str]
_PLACES: tuple[_Place, ...] = (("global", ""), ("local", "owner"), ("local", "others"))
_NAMES = ("loss", "margin", "correct", "rank")


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """All models of one level at one round: `clients` (C,) sorted, `present` (R, C), four values (R, C, m) each."""

    clients: IntArray
    present: BoolArray
    values: dict[str, FloatArray]


def views(bank: Bank, resampling: Resampling) -> Iterator[View]:
    """Every view of a bank, round by round in ascending order and FINAL at the end; in a round: global, owner, others.

    Views are made when asked for; what they hold is theirs alone.
    """
    audit = bank.audit
    references = _reference_counts(bank)

    def view(round: int, level: Level, setting: str, values: dict[str, FloatArray]) -> View:
        return View(
            round=round,
            level=level,
            setting=setting,
            audit=audit,
            references=references,
            resampling=resampling,
            **values,
        )

    for round in _rounds(bank, "global", "local"):
        for place, values in _places(bank, round).items():
            yield view(round, *place, values)
    for place, values in _final(bank).items():
        yield view(FINAL, *place, values)


def _places(bank: Bank, round: int) -> dict[_Place, dict[str, FloatArray]]:
    """The places that show anything at one round, and what."""
    shown: dict[_Place, dict[str, FloatArray]] = {}
    whole = _snapshot(bank, "global", round)
    if whole is not None:
        shown["global", ""] = whole.values
    local = _snapshot(bank, "local", round) if bank.roster != "own" else None
    if local is not None:
        seen = np.flatnonzero(_holder_seen(local.clients, local.present, bank.audit))
        position = np.searchsorted(local.clients, bank.audit.holder[seen])
        owner, others = {}, {}
        for name, cube in local.values.items():
            owner[name] = np.full((len(cube), 1, cube.shape[2]), np.nan)
            owner[name][:, 0, seen] = cube[:, position, seen]
            others[name] = np.full_like(cube, np.nan)
            others[name][:, :, seen] = cube[:, :, seen]
            others[name][:, position, seen] = np.nan
        shown["local", "owner"], shown["local", "others"] = owner, others
    return shown


def _final(bank: Bank) -> dict[_Place, dict[str, FloatArray]]:
    """The summary: the columns of each round for the examples whose last round it is."""
    last = _last_rounds(bank)
    shown: dict[_Place, dict[str, FloatArray]] = {}
    for round in np.unique(last[last >= 0]).tolist():
        columns = np.flatnonzero(last == round)
        for place, values in _places(bank, round).items():
            so_far = shown.setdefault(place, {})
            for name, cube in values.items():
                models = max(cube.shape[1], so_far[name].shape[1] if name in so_far else 1)
                grown = np.full((len(cube), models, cube.shape[2]), np.nan)
                if name in so_far:
                    grown[:, : so_far[name].shape[1]] = so_far[name]
                grown[:, : cube.shape[1], columns] = cube[:, :, columns]
                so_far[name] = grown
    return {place: shown[place] for place in _PLACES if place in shown}


def _last_rounds(bank: Bank) -> IntArray:
    """The round at which FINAL shows each example (m,), -1 where it was never observed."""
    audit = bank.audit
    wholes, locals_ = _rounds(bank, "global"), _rounds(bank, "local") if bank.roster != "own" else []
    if not locals_:
        return np.full(len(audit), wholes[-1] if wholes else -1)
    last = np.where(audit.holder < 0, wholes[-1] if wholes else -1, -1)
    # Where both levels were observed at all, only rounds with both make a pair.
    for round in sorted(set(wholes) & set(locals_)) or locals_:
        last[_holder_seen(*_presence(bank, "local", round), audit)] = round
    return last


def _rounds(bank: Bank, *levels: Level) -> list[int]:
    """The rounds at which the audit set was observed at any of these levels."""
    return sorted({part.round for part in bank.evidence if part.set == "audit" and part.level in levels})


def _holder_seen(clients: IntArray, present: BoolArray, audit: AuditSet) -> BoolArray:
    """Whether the model of each example's holder is there in every run: (m,)."""
    return np.isin(audit.holder, clients[present.all(0)])


def _presence(bank: Bank, level: Level, round: int) -> tuple[IntArray, BoolArray]:
    """Clients (C,), sorted, and whether each was observed in each run (R, C)."""
    parts = [part for part in bank.evidence if part.set == "audit" and (part.level, part.round) == (level, round)]
    clients = np.unique(_joined([part.client for part in parts]))
    present = np.zeros((bank.audit.runs, len(clients)), dtype=bool)
    for part in parts:
        present[part.run, np.searchsorted(clients, part.client)] = True
    return clients, present


def _snapshot(bank: Bank, level: Level, round: int) -> _Snapshot | None:
    """Everything observed at one level and round, as arrays with an axis of runs; None where nothing was."""
    clients, present = _presence(bank, level, round)
    if not len(clients):
        return None
    values = {name: np.full((*present.shape, len(bank.audit)), np.nan) for name in _NAMES}
    for part in bank.evidence:
        if part.set == "audit" and (part.level, part.round) == (level, round):
            column = np.searchsorted(clients, part.client)
            values["loss"][part.run, column] = part.loss
            values["margin"][part.run, column] = part.margin
            # A model that has diverged is right or wrong about nothing.
            values["correct"][part.run, column] = np.where(np.isnan(part.margin), np.nan, part.correct)
    for ranks in bank.references:
        if (ranks.level, ranks.round) == (level, round):
            column = np.searchsorted(clients, ranks.client)
            assert np.isin(ranks.client, clients).all(), "references were ranked at models without evidence"
            models = ranks.run[:, None], column[:, None], ranks.subjects
            values["rank"][models] = np.where(ranks.less < 0, np.nan, 1.0 + ranks.less + 0.5 * ranks.ties)
    return _Snapshot(clients=clients, present=present, values=values)


def _reference_counts(bank: Bank) -> IntArray:
    """How many fresh references each example is ranked among (m,); 0 for examples that are no canaries."""
    counts = np.zeros(len(bank.audit), dtype=np.int64)
    for ranks in bank.references:
        counts[ranks.subjects] = ranks.count
    return counts


def _joined(parts: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int32]]]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *parts])
