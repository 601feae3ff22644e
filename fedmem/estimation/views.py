"""From stored evidence to views: the evidence of each place on every audit example in every run.

A place is (level, place). At an observed round there are up to three:

- (`global`, ``): the aggregate, for every example; where layers are personal, completed by those of its owner (and
  not for examples without an owner);
- (`local`, `owner`): the model of the example's owner, for examples whose owner participated in all R runs;
- (`local`, `others`): the models of the other clients of the cohort, for the same examples.

Where several clients hold an example, its owner is one of them, and the rest are not among the others.

The last view is the summary. It has each example at the last round at which its owner's model was observed in all runs.
The round is the same at all three places, so that local and global are the same pairs. Examples without an owner, and
all examples where local models may not be read, are there at the last observed round.

Where runs leave clients out, an example is read only in the runs in which its owner exists, and "all runs" above are
those.

Local places need a roster that all runs share. With `roster: per_run` the choice of clients may depend on the coin, so
in and out runs would not be comparable. There only the global place is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import CoinPermutations, Models, RankEvidence, SetEvidence, View
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import NO_CLIENT, Level
from fedmem.estimation.series import series_of
from fedmem.estimation.single_examples import p_of_rank

_Place = tuple[Level, str]
_PLACES: tuple[_Place, ...] = (("global", ""), ("local", "owner"), ("local", "others"))
_NAMES = ("loss", "margin", "correct", "rank")
_SIGNAL = "signal "
"""Before the name of a signal among the values of a place."""


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """All models of one level at one round: `clients` (C,) sorted, `present` (R, C), values (R, C, m) each."""

    clients: IntArray
    present: BoolArray
    values: dict[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class _PlaceEvidence:
    """The evidence at a place: values (R, Q, m) each, those of signals among them, and their models."""

    values: dict[str, FloatArray]
    models: Models


def views(bank: Bank, redeals: CoinPermutations) -> Iterator[View]:
    """Every view of a bank: the rounds in ascending order, then the summary; of each first global, then owner, others.

    Views are made when asked for; the values of audit examples are theirs alone, the sets are the bank's. In the
    summary the last of the global `models` is the aggregate of the last observed round, even where no example is read
    there.
    """
    audit = bank.audit
    references = _reference_counts(bank)
    names = tuple(dict.fromkeys(part.set for part in bank.evidence))
    series_by_place = series_of(bank)
    initial = _initial_losses(bank)

    def view(round_number: int | None, place: _Place, columns: _PlaceEvidence) -> View:
        level, whose = place
        blocks = {name: tuple(e for e in bank.evidence if (e.set, e.level) == (name, level)) for name in names}
        ranks = tuple(ranked for ranked in bank.references if ranked.level == level)
        return View(
            round=round_number,
            level=level,
            place=whose,
            audit=audit,
            references=references,
            redeals=redeals,
            sets={
                name: SetEvidence(
                    models=columns.models,
                    blocks=evidence,
                    targets=_targets(bank, evidence[0]),
                    inputs=audit.examples.inputs if name == "audit" else bank.inputs.get(name),
                    signals=tuple(s for s in bank.signals if name != "audit" and (s.set, s.level) == (name, level)),
                )
                for name, evidence in blocks.items()
                if evidence
            },
            ranked=RankEvidence(models=columns.models, blocks=ranks) if ranks else None,
            exclusion=bank.exclusion,
            series=series_by_place.get(place),
            others=series_by_place.get((level, "others")) if whose == "owner" else None,
            label_counts=bank.label_counts,
            signals={
                name.removeprefix(_SIGNAL): values for name, values in columns.values.items() if name not in _NAMES
            },
            loss=columns.values["loss"],
            margin=columns.values["margin"],
            correct=columns.values["correct"],
            rank=columns.values["rank"],
            initial=initial,
        )

    for round_number in _rounds(bank, "global", "local"):
        for place, columns in _places(bank, round_number).items():
            yield view(round_number, place, columns)
    for place, columns in _final(bank).items():
        yield view(None, place, columns)


def _initial_losses(bank: Bank) -> FloatArray | None:
    """(R, m) the losses of the initial model of each run, None where they were not observed."""
    place = _places(bank, 0).get(("global", "")) if 0 in _rounds(bank, "global") else None
    return None if place is None else place.values["loss"][:, 0]


def summary_values(bank: Bank) -> dict[_Place, dict[str, FloatArray]]:
    """The evidence of the summary by level and place: `loss`, `margin`, `correct` and `rank` (R, Q, m) as in a view."""
    return {place: {name: columns.values[name] for name in _NAMES} for place, columns in _final(bank).items()}


def p_of_single_ranks(bank: Bank, level: Level) -> FloatArray:
    """(m,) `p_of_rank` in the summary where a single model that trained on the example ranks it; NaN elsewhere.

    Also NaN for kinds whose ranks have no known distribution, see `AuditSet.not_uniform`.
    """
    audit, last = bank.audit, _last_rounds(bank)
    p, models = np.full(len(audit), np.nan), np.zeros(len(audit), dtype=np.int64)
    is_read = audit.is_in & audit.owner_in & ~np.isin(audit.kind, audit.not_uniform)
    for ranks in bank.references:
        if ranks.level == level:
            whose = ranks.client[:, None]
            is_theirs = (whose == audit.owner[ranks.subjects]) | ((level == "global") & (whose == NO_CLIENT))
            is_theirs &= is_read[ranks.run[:, None], ranks.subjects] & (ranks.less >= 0)
            model, place = np.nonzero(is_theirs & (last[ranks.subjects] == ranks.round))
            subjects = ranks.subjects[place]
            np.add.at(models, subjects, 1)
            p[subjects] = p_of_rank(ranks.less[model, place], ranks.ties[model, place], ranks.count)
    return np.where(models == 1, p, np.nan)


def _places(bank: Bank, round_number: int) -> dict[_Place, _PlaceEvidence]:
    """The places that show anything at one round, and what."""
    columns_by_place: dict[_Place, _PlaceEvidence] = {}
    runs, m = bank.audit.is_in.shape
    absent = ~bank.audit.owner_in
    whole = _snapshot(bank, "global", round_number)
    if whole is not None:
        for cube in whole.values.values():
            cube[np.broadcast_to(absent[:, None], cube.shape)] = np.nan
        # one aggregate for all, or one for each owner
        column = np.searchsorted(whole.clients, bank.audit.owner).clip(max=len(whole.clients) - 1)
        column = np.where(whole.clients[column] == bank.audit.owner, column, -1)
        if whole.clients.tolist() == [NO_CLIENT]:
            column = np.zeros_like(column)
        read = {name: cube[:, column, np.arange(m)] for name, cube in whole.values.items()}
        read = {name: np.where(column < 0, np.nan, values)[:, None] for name, values in read.items()}
        pairs = np.full(len(whole.clients), round_number), whole.clients
        columns_by_place["global", ""] = _show_models(runs, read, *pairs, column[None])
    local = _snapshot(bank, "local", round_number) if bank.roster != "per_run" else None
    if local is not None:
        read_examples = np.flatnonzero(_owner_observed(local.clients, local.present, bank.audit))
        position = np.searchsorted(local.clients, bank.audit.owner[read_examples])
        theirs = bank.audit.holds(local.clients)
        owner, others = {}, {}
        for name, cube in local.values.items():
            cube[np.broadcast_to(absent[:, None], cube.shape)] = np.nan
            owner[name] = np.full((len(cube), 1, cube.shape[2]), np.nan)
            owner[name][:, 0, read_examples] = cube[:, position, read_examples]
            others[name] = np.full_like(cube, np.nan)
            others[name][:, :, read_examples] = cube[:, :, read_examples]
            others[name][:, theirs] = np.nan
        owner_position, rest = np.full((1, m), -1), np.full((len(local.clients), m), -1)
        owner_position[0, read_examples] = position
        rest[:, read_examples] = np.arange(len(local.clients))[:, None]
        rest[theirs] = -1
        pairs = np.full(len(local.clients), round_number), local.clients
        columns_by_place["local", "owner"] = _show_models(runs, owner, *pairs, owner_position)
        columns_by_place["local", "others"] = _show_models(runs, others, *pairs, rest)
    return columns_by_place


def _show_models(
    runs: int, values: dict[str, FloatArray], round_number: IntArray, client: IntArray, of: IntArray
) -> _PlaceEvidence:
    return _PlaceEvidence(values=values, models=Models(runs=runs, round=round_number, client=client, of=of))


def _final(bank: Bank) -> dict[_Place, _PlaceEvidence]:
    """The summary: the columns of each round for the examples whose last round it is."""
    last = _last_rounds(bank)
    parts_by_place: dict[_Place, list[tuple[IntArray, _PlaceEvidence]]] = {}
    for round_number in sorted({*last[last >= 0].tolist(), *_rounds(bank, "global")[-1:]}):
        columns = np.flatnonzero(last == round_number)
        for place, part in _places(bank, round_number).items():
            # A round that nobody is read at is there for its test set only.
            if len(columns) or place == ("global", ""):
                parts_by_place.setdefault(place, []).append((columns, part))
    return {place: _merge_rounds(parts_by_place[place]) for place in _PLACES if place in parts_by_place}


def _merge_rounds(parts: Sequence[tuple[IntArray, _PlaceEvidence]]) -> _PlaceEvidence:
    """One place from several rounds, each with the columns that it shows."""
    runs, m = parts[0][1].models.runs, parts[0][1].models.of.shape[1]
    num_models = max(len(part.models.of) for _, part in parts)
    values = {name: np.full((runs, num_models, m), np.nan) for name in parts[0][1].values}
    of, start = np.full((num_models, m), -1), 0
    for columns, part in parts:
        places = part.models.of[:, columns]
        of[: len(places), columns] = np.where(places < 0, -1, places + start)
        for name, cube in part.values.items():
            values[name][:, : cube.shape[1], columns] = cube[:, :, columns]
        start += len(part.models.round)
    rounds, clients = (
        np.concatenate([getattr(part.models, name) for _, part in parts]) for name in ("round", "client")
    )
    return _show_models(runs, values, rounds, clients, of)


def _last_rounds(bank: Bank) -> IntArray:
    """The round at which the summary shows each example (m,), -1 where it was never observed."""
    audit = bank.audit
    wholes, locals_ = _rounds(bank, "global"), _rounds(bank, "local") if bank.roster != "per_run" else []
    if not locals_:
        return np.full(len(audit), wholes[-1] if wholes else -1)
    last = np.where(audit.owner < 0, wholes[-1] if wholes else -1, -1)
    # Where both levels were observed at all, only rounds with both make a pair.
    for round_number in sorted(set(wholes) & set(locals_)) or locals_:
        last[_owner_observed(*_presence(bank, "local", round_number), audit)] = round_number
    return last


def _rounds(bank: Bank, *levels: Level) -> list[int]:
    """The rounds at which the audit set was observed at any of these levels."""
    return sorted({part.round for part in bank.evidence if part.set == "audit" and part.level in levels})


def _owner_observed(clients: IntArray, present: BoolArray, audit: AuditSet) -> BoolArray:
    """(m,) whether the model of each example's owner is there in every run that has this client."""
    is_expected = np.ones_like(present) if audit.client_in is None else audit.client_in[:, clients]
    return np.isin(audit.owner, clients[(present | ~is_expected).all(0) & present.any(0)])


def _presence(bank: Bank, level: Level, round_number: int) -> tuple[IntArray, BoolArray]:
    """Clients (C,), sorted, and whether each was observed in each run (R, C)."""
    parts = [
        part for part in bank.evidence if part.set == "audit" and (part.level, part.round) == (level, round_number)
    ]
    clients = np.unique(_concatenate([part.client for part in parts]))
    present = np.zeros((bank.audit.runs, len(clients)), dtype=bool)
    for part in parts:
        present[part.run, np.searchsorted(clients, part.client)] = True
    return clients, present


def _snapshot(bank: Bank, level: Level, round_number: int) -> _Snapshot | None:
    """Everything observed at one level and round, as arrays with an axis of runs; None where nothing was."""
    clients, present = _presence(bank, level, round_number)
    if not len(clients):
        return None
    names = (
        *_NAMES,
        *(_SIGNAL + name for name in sorted({block.name for block in bank.signals if block.set == "audit"})),
    )
    values = {name: np.full((*present.shape, len(bank.audit)), np.nan) for name in names}
    for part in bank.evidence:
        if part.set == "audit" and (part.level, part.round) == (level, round_number):
            column = np.searchsorted(clients, part.client)
            values["loss"][part.run, column] = part.loss
            values["margin"][part.run, column] = part.margin
            # A model that has diverged is right or wrong about nothing.
            values["correct"][part.run, column] = np.where(np.isnan(part.margin), np.nan, part.correct)
    for ranks in bank.references:
        if (ranks.level, ranks.round) == (level, round_number):
            column = np.searchsorted(clients, ranks.client)
            assert np.isin(ranks.client, clients).all(), "references were ranked at models without evidence"
            models = ranks.run[:, None], column[:, None], ranks.subjects
            values["rank"][models] = np.where(ranks.less < 0, np.nan, 1.0 + ranks.less + 0.5 * ranks.ties)
    for signal in bank.signals:
        if (signal.set, signal.level, signal.round) == ("audit", level, round_number):
            values[_SIGNAL + signal.name][signal.run, np.searchsorted(clients, signal.client)] = signal.values
    return _Snapshot(clients=clients, present=present, values=values)


def _targets(bank: Bank, block: Evidence) -> IntArray:
    """The labels of the examples of a block, -1 where the bank does not know them."""
    labels_by_set = {"audit": bank.audit.examples.labels, **bank.targets}
    return labels_by_set.get(block.set, np.full(block.shape[1], -1))


def _reference_counts(bank: Bank) -> IntArray:
    """How many fresh references each example is ranked among (m,); 0 for examples that are no canaries."""
    counts = np.zeros(len(bank.audit), dtype=np.int64)
    for ranks in bank.references:
        counts[ranks.subjects] = ranks.count
    return counts


def _concatenate(parts: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int32]]]) -> IntArray:
    return np.concatenate([np.empty(0, np.int64), *parts])
