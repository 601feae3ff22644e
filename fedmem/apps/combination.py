"""Several runs of an app of one's own as one audit: the same evidence, estimators and intervals as a scenario has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fedmem.apps.combined_rows import with_examples
from fedmem.apps.combined_summary import high_text, high_without_training, summary_text
from fedmem.apps.participation import dependence_text, partial_text, participation_of, summary_bank
from fedmem.apps.watch import Watch
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.events import count as count_text
from fedmem.contracts.evidence import Bank, Evidence, ReferenceEvidence
from fedmem.contracts.measurement import NO_CLIENT
from fedmem.errors import FolderError

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = (
    *("round", "level", "client", "set", "subject", "loss", "margin", "correct", "exposure"),
    *("owner", "included", "references", "content"),
)

LABELS = ("place", "statistic", "attack", "fpr", "of", "over")
"""The label columns that a frame always has, empty where no row has such a label."""


def combine_runs(
    runs: Iterable[Watch | pd.DataFrame | str | Path], *, seed: int = 0, deals: int = 1000
) -> pd.DataFrame:
    """Memorisation, exposure and membership inference from several runs of one app that differ in random inclusion.

    The frame has the columns of `fedmem.read(folder).measurements`: values with intervals and p, at level `local`
    (place `owner` and `others`) and `global`. Scope `summary` has each example at the last observed round in which its
    owner took part in every run. Where there is no such round, each run is read at its last observed round in which the
    owner took part. Runs without the owner then do not count for the example at any level. The values are then
    conditional on participation, which must not depend on inclusion. A sampler that reads losses, or numbers of rows,
    violates this. An example needs two such runs with it in and two with it out. A warning has the counts. Rows of
    scope `round` at level `global` count all runs, also those in which the owner never trained. `n` counts examples.
    `frame.attrs["summary"]` is the summary in sentences. Examples may rank high in models that never trained on them.
    Plain exposure then has no null and no retention, and a warning says so; read `exposure_gain`.

    Column `set` names the set that a row is about. In rows about a single example, `example` is its number in the set.
    Where such a row is a p (`memorisation.p`), `p_adjusted` is that p adjusted by Benjamini and Hochberg (1995). It is
    adjusted over all single examples of the same metric, level, place, round and labels. Other p are not adjusted, and
    `p_adjusted` is NaN.

    Each run has to watch the same examples, under the same names, in the same rounds. The owner of an example is the
    same in all runs, and only chance decides whether a run includes it, as `assign_canaries` draws it. Another choice
    is not checked for randomness. Intervals and p are valid only if it was a fair coin for each example and run.

    Args:
        runs: For each run, a `Watch` with `member_of`, its frame, or a file of it (`.parquet` or `.csv`).
        seed: Seed of the coins that p draws again.
        deals: how often they are drawn.

    Errors: `ValueError` for runs that do not fit together, with the run, the set and the example. `FolderError` for
    files that cannot be read.
    """
    from fedmem.estimation.estimates import estimate
    from fedmem.results.tables import measurement_rows

    frames = [(f"run {number}{_name_of(run)}", _frame_of(run)) for number, run in enumerate(runs)]
    if len(frames) < 2:
        raise ValueError(
            f"{len(frames)} runs; memorisation compares runs with and without an example, so give at least 2"
        )
    bank = bank_of(frames, seed)
    high = high_without_training(bank)
    for name, values in high.items():
        _warn(high_text(name, *values))
    bank = replace(bank, audit=replace(bank.audit, not_uniform=tuple(high)))
    rows = estimate(bank, _estimators(bank), deals)
    took_part = participation_of(bank)
    if text := partial_text(bank.audit, took_part):
        _warn(text)
        final = estimate(summary_bank(bank, took_part), _estimators(bank), deals)
        # "over rounds" would be over one round here
        final = [row for row in final if row.round is None and row.reading.labels.get("over") is None]
        rows = [row for row in rows if row.round is not None] + final
    if text := dependence_text(bank, took_part, deals):
        _warn(text)
    frame: pd.DataFrame = measurement_rows(rows).to_pandas()
    frame = frame.assign(**{name: "" for name in LABELS if name not in frame.columns})
    frame = with_examples(frame, bank.audit)
    frame.attrs["summary"] = summary_text(rows, bank.audit, high)
    return frame


def _estimators(bank: Bank) -> list[Estimator]:
    """Those of a scenario by default, as far as the runs allow."""
    from fedmem.attacks.lira import Lira
    from fedmem.attacks.loss_threshold import LossThreshold
    from fedmem.estimators.exposure import Exposure
    from fedmem.estimators.membership import Membership
    from fedmem.estimators.memorisation import Memorisation

    estimators: list[Estimator] = [Memorisation(), Membership(attack=LossThreshold())]
    lira = Membership(attack=Lira())
    if bank.audit.runs >= lira.min_runs:
        estimators.append(lira)
    return [*estimators, Exposure()] if bank.references else estimators


@dataclass(frozen=True)
class _Layout:
    """The examples of all runs in one order, and their clients by number."""

    sets: tuple[str, ...]
    start: dict[str, int]
    clients: dict[str, int]

    def example(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        """The number of the example of each row."""
        return (frame["set"].map(self.start) + frame["subject"]).to_numpy(np.int64)


def bank_of(frames: Sequence[tuple[str, pd.DataFrame]], seed: int) -> Bank:
    """The evidence of these runs, each with its name for messages. Errors: `ValueError`."""
    for name, frame in frames:
        _check_columns(name, frame)
    tables = [_examples_of(frame) for _, frame in frames]
    _check_alike(frames, tables)
    owners = _owners(frames, tables)
    measured = [place for place in tables[0] if owners[place]]
    if not measured:
        raise ValueError("no example has an owner in any run; give Watch(member_of=...) the client of each example")
    sets = tuple(dict.fromkeys(name for name, _ in measured))
    sizes = {name: sum(each == name for each, _ in tables[0]) for name in sets}
    start = dict(zip(sets, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    names = sorted(_clients_seen(frames) | {owner for owner in owners.values() if owner}, key=_order)
    layout = _Layout(sets, start, {name: number for number, name in enumerate(names)})
    places = [(name, subject) for name in sets for subject in range(sizes[name])]
    m = len(places)
    audit = AuditSet(
        examples=Examples(inputs=np.zeros((m, 1), np.float32), targets=np.zeros(m, np.int64), ids=np.arange(m)),
        kind=np.array([name for name, _ in places]),
        role=np.array(["canary"] * m),
        owner=np.array([layout.clients.get(owners[place], NO_CLIENT) for place in places], dtype=np.int32),
        copies=np.ones(m, dtype=np.int32),
        is_in=np.array([[table[place].included for place in places] for table in tables]),
    )
    _require_an_owner(frames, owners)
    _warn_of_constants(audit, frames, owners)
    evidence, references = [], []
    kept = [frame[frame["set"].isin(sets)] for _, frame in frames]
    for round_number, level in sorted(
        {pair for frame in kept for pair in zip(frame["round"], frame["level"], strict=True)}
    ):
        parts = [frame[(frame["round"] == round_number) & (frame["level"] == level)] for frame in kept]
        block, ranks = _evidence(parts, layout, m, round_number, level)
        evidence.append(block)
        references += ranks
    return Bank(
        audit=audit,
        evidence=tuple(evidence),
        references=tuple(references),
        participation=(),
        seed=seed,
        exclusion="remove",
    )


def _evidence(
    parts: Sequence[pd.DataFrame], layout: _Layout, m: int, round_number: Any, level: Any
) -> tuple[Evidence, list[ReferenceEvidence]]:
    """The records of one round and level, of all runs."""
    models: list[tuple[int, int]] = []
    values: dict[str, list[Any]] = {name: [] for name in ("loss", "margin", "correct", "exposure")}
    counts = np.zeros(m, dtype=np.int64)
    for run, part in enumerate(parts):
        for client, rows in part.groupby("client", sort=True):
            number = layout.clients[_text(client)] if level == "local" else NO_CLIENT
            models.append((run, number))
            example = layout.example(rows)
            for name, column in values.items():
                line = np.full(m, np.nan)
                line[example] = rows[name].to_numpy(np.float64)
                column.append(line)
            counts[example] = rows["references"].to_numpy(np.int64)
    loss, margin, correct, exposure = (np.array(column).reshape(-1, m) for column in values.values())
    run_of, client_of = (np.array([model[axis] for model in models], dtype=np.int32) for axis in (0, 1))
    common: dict[str, Any] = {"round": int(round_number), "level": level, "run": run_of, "client": client_of}
    block = Evidence(**common, set="audit", loss=loss, margin=margin, correct=correct == 1)
    ranks = []
    for name in layout.sets:
        subjects = _positions(layout, name, m)
        count = int(counts[subjects].max(initial=0))
        if count:
            ranks.append(_ranks(common, name, subjects, count, exposure[:, subjects]))
    return block, ranks


def _positions(layout: _Layout, name: str, m: int) -> np.ndarray[Any, Any]:
    ends = [*layout.start.values(), m]
    place = layout.sets.index(name)
    return np.arange(ends[place], ends[place + 1])


def _ranks(
    common: dict[str, Any], name: str, subjects: np.ndarray[Any, Any], count: int, exposure: np.ndarray[Any, Any]
) -> ReferenceEvidence:
    """Ranks from exposures in bits: twice a rank is a whole number, since ties count half."""
    doubled = np.rint(2 * ((count + 1) / np.exp2(exposure) - 1))
    less = np.where(np.isnan(doubled), -1, doubled // 2).astype(np.int32)
    return ReferenceEvidence(
        **common,
        family=name,
        subjects=subjects,
        count=count,
        less=less,
        ties=np.where(np.isnan(doubled), 0, doubled % 2).astype(np.int32),
        labels=np.empty(0, dtype=np.int64),
        quantiles=np.empty((len(exposure), 0, 256), dtype=np.float32),
    )


def _frame_of(run: Watch | pd.DataFrame | str | Path) -> pd.DataFrame:
    import pandas as pd

    if isinstance(run, Watch):
        return run.frame()
    if not isinstance(run, str | Path):
        return run
    path = Path(run)
    if not path.is_file():
        raise FolderError(f"{path}: no such file; save each run's frame by watch.frame().to_parquet(...)")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        text = {"node": str, "content": str, "identity": str}
        return pd.read_csv(
            path, dtype=text, keep_default_na=False, na_values={"exposure": [""], "loss": [""], "margin": [""]}
        )
    except (ValueError, OSError, KeyError) as error:
        raise FolderError(f"{path}: cannot be read as a frame ({error}); save it as .parquet or .csv") from error


def _name_of(run: object) -> str:
    return f" ({run})" if isinstance(run, str | Path) else ""


def _check_columns(name: str, frame: pd.DataFrame) -> None:
    lacking = [column for column in _NEEDED if column not in frame.columns]
    if lacking:
        hint = "; the run needs Watch(..., member_of=...)" if "owner" in lacking else ""
        raise ValueError(f"{name}: the frame lacks the column {lacking[0]!r}{hint}")
    if not (frame["level"] == "local").any():
        raise ValueError(f"{name}: the frame has no local model; no round with clients was observed")


class _Example(NamedTuple):
    """The facts that one run states about one example."""

    owner: str
    included: bool
    content: str


_Table = dict[tuple[str, int], _Example]


def _examples_of(frame: pd.DataFrame) -> _Table:
    """The examples of a run, by set and number."""
    rows = frame.drop_duplicates(["set", "subject"])
    columns = [rows[name].tolist() for name in ("set", "subject", "owner", "included", "content")]
    return {
        (name, subject): _Example(_text(owner), bool(included), str(content))
        for name, subject, owner, included, content in zip(*columns, strict=True)
    }


def _check_alike(frames: Sequence[tuple[str, pd.DataFrame]], tables: Sequence[_Table]) -> None:
    first_name, first = frames[0]
    rounds = set(first["round"])
    _check_references(frames)
    for (name, frame), table in zip(frames[1:], tables[1:], strict=True):
        if set(frame["round"]) != rounds:
            odd = sorted(set(frame["round"]) ^ rounds)[0]
            raise ValueError(f"{first_name} and {name} differ in observed rounds, for example round {odd}")
        odd_places = sorted(set(table) ^ set(tables[0]))
        if odd_places:
            raise ValueError(
                f"{first_name} and {name} differ in their examples: {_place(odd_places[0])} is in one only"
            )
        changed = [place for place in table if table[place].content != tables[0][place].content]
        if changed:
            raise ValueError(
                f"{_place(changed[0])} is another example in {name} than in {first_name}. Draw the examples with "
                "a seed that all runs share, and let only their inclusion depend on the run"
            )


def _check_references(frames: Sequence[tuple[str, pd.DataFrame]]) -> None:
    """Exposures have a common scale only where each run ranks a set among the same number of references."""
    seen: dict[str, tuple[str, int]] = {}
    for name, frame in frames:
        pairs = frame[["set", "references"]].drop_duplicates()
        for set_name, count in zip(pairs["set"].tolist(), pairs["references"].tolist(), strict=True):
            first_name, first_count = seen.setdefault(set_name, (name, count))
            if count != first_count:
                raise ValueError(
                    f"{name} ranks {set_name!r} among {count} references and {first_name} among {first_count}; give "
                    "Watch(references=...) the same references in all runs"
                )


def _owners(frames: Sequence[tuple[str, pd.DataFrame]], tables: Sequence[_Table]) -> dict[tuple[str, int], str]:
    """The owner of each example as text, empty where nobody holds it in any run."""
    owners: dict[tuple[str, int], str] = {}
    named: dict[tuple[str, int], str] = {}
    for (name, _), table in zip(frames, tables, strict=True):
        for place, (owner, _, _) in table.items():
            if owner in ("", str(NO_CLIENT)):
                owners.setdefault(place, "")
                continue
            if owners.get(place) and owners[place] != owner:
                raise ValueError(
                    f"{_place(place)} belongs to client {owners[place]} in {named[place]} and to client {owner} in "
                    f"{name}. Keep one owner for each example, and draw only whether a run includes it, as "
                    "assign_canaries does"
                )
            owners[place], named[place] = owner, name
    return owners


def _require_an_owner(frames: Sequence[tuple[str, pd.DataFrame]], owners: dict[tuple[str, int], str]) -> None:
    """Refuses runs whose owners are no clients of the app, so that the summary would be empty."""
    seen, named = _clients_seen(frames), {owner for owner in owners.values() if owner}
    if named and not named & seen:
        listed = [", ".join(sorted(names, key=_order)[:10]) for names in (named, seen)]
        raise ValueError(
            f"no owner took part in an observed round of any run. By member_of the owners are {listed[0]}; the clients "
            f"that took part are {listed[1]}. Give member_of (and assign_canaries) the identities of column client, "
            "and run the app again"
        )


def _warn_of_constants(
    audit: AuditSet, frames: Sequence[tuple[str, pd.DataFrame]], owners: dict[tuple[str, int], str]
) -> None:
    ins = audit.is_in[:, audit.owner >= 0].sum(axis=0)
    constant = int(((ins == 0) | (ins == audit.runs)).sum())
    if constant == len(ins):
        raise ValueError(
            "every example is included in all runs, or in none, so nothing can be compared. Draw inclusion again in "
            "each run, for example by assign_canaries(..., seed=seed)"
        )
    if constant:
        _warn(
            f"Of {count_text(len(ins), 'example')}, {constant} {'is' if constant == 1 else 'are'} included in "
            "all runs or in none, and left out of memorisation"
        )
    seen = _clients_seen(frames)
    absent = sorted({owner for owner in owners.values() if owner and owner not in seen}, key=_order)
    if absent:
        _warn(
            f"{count_text(len(absent), 'owner')} never took part in an observed round of any run "
            f"({', '.join(absent[:5])}). As far as is known, their examples were not trained on; they lower the values "
            "at level global"
        )


def _clients_seen(frames: Sequence[tuple[str, pd.DataFrame]]) -> set[str]:
    """The clients of local models, as text."""
    return {_text(value) for _, frame in frames for value in frame.loc[frame["level"] == "local", "client"].unique()}


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _place(place: Any) -> str:
    return f"example {place[1]} of {place[0]!r}"


def _text(value: Any) -> str:
    """A client as text: whole numbers without a point, whatever a file made of them."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _order(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else -1, name)
