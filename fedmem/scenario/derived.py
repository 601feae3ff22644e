"""Scenarios derived from finished runs: the same federation without some of its audit examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, Strict

from fedmem.contracts.arrays import IntArray
from fedmem.errors import ComponentError, FedmemError
from fedmem.scenario import yaml_source
from fedmem.scenario.removed import REMOVED
from fedmem.scenario.section import Section
from fedmem.seeding import stream
from fedmem.weights.origins import newest_run
from fedmem.wording import choices

if TYPE_CHECKING:
    import pandas as pd

FIXED = (
    *("seed", "runs", "clients", "dataset", "partition", "model", "injections", "exclusion", "population"),
    *("references", "twins", "coins", "leave_out", "central", "freeze", "norm", "initial_weights", "removed"),
)
"""Fields that decide data, coins and owners, which a derived scenario takes from the run."""


class Removal(Section):
    """Which audit examples are removed: the highest ones by a measure, or as many at random.

    Scores that were estimated from a run are noisy, so that the highest are too high. Compare with a repetition of the
    run (`repeat: 1`), not with the run itself.
    """

    by: Annotated[str, Strict(), Field(min_length=1)] = Field(
        description="a measure that the run has for single examples, such as memorisation"
    )
    level: Literal["local", "global"] = Field(
        default="global", description="whose model is measured: the owning client's (local) or the aggregate (global)"
    )
    labels: dict[str, str | float] = Field(
        default={}, description="further labels of the measure, such as statistic: probability"
    )
    kinds: tuple[Annotated[str, Strict()], ...] = Field(
        default=(), description="the kinds that examples are taken from; all if left out"
    )
    owners: tuple[Annotated[int, Strict(), Field(ge=0)], ...] = Field(
        default=(), description="the owning clients whose examples are taken; all clients if left out"
    )
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="which share of them")
    count: Annotated[int, Strict(), Field(ge=1, le=10**6)] | None = Field(default=None, description="or how many")
    lowest: Annotated[bool, Strict()] = Field(default=False, description="the lowest ones instead of the highest")
    sample: Literal["selected", "matched"] = Field(
        default="selected",
        description="these examples, or as a control as many random ones of the same kinds, owners and labels",
    )
    draw: Annotated[int, Strict(), Field(ge=0, le=10**6)] = Field(
        default=0, description="number of the random draw, for several controls"
    )
    exclusion: Literal["replace", "remove"] | None = Field(
        default=None,
        description="whether replacement rows take the places of removed examples, or nothing does; if left out, as in "
        "the run",
    )


class Derive(Section):
    """A finished run whose federation is used again. Fields of the file replace those of the run.

    Fields that decide data, random inclusion and owners are those of the run.
    """

    source: Annotated[str, Strict(), Field(min_length=1)] = Field(
        alias="from", description="the folder of a finished run; of a folder of several, the newest counts"
    )
    remove: Removal | None = Field(default=None, description="audit examples that no run trains on")


def source_folder(derive: Derive) -> Path:
    """The folder of the run that a scenario is derived from. Errors: `ComponentError` where there is none."""
    folder = newest_run(Path(derive.source).expanduser())
    if folder is None:
        raise ComponentError(
            "derive.from", f"{derive.source} has no finished run; give the folder of one, such as runs/quickstart"
        )
    return folder


def derive_tree(tree: Mapping[str, Any], derive: Derive, folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The plain scenario that a file with `derive` stands for, and notes on what was removed.

    Args:
        tree: The other keys of the file.
        derive: The content of `derive`.
        folder: The folder of the run.

    Errors: `ComponentError` with the place of what is wrong.
    """
    for name in FIXED:
        if name in tree:
            raise ComponentError(
                name,
                f"a derived scenario has the {name} of {folder}, so that its examples keep their random inclusion and "
                "owners. Leave it out, or write a whole scenario without derive",
            )
    parent = _scenario_of(folder)
    if parent.get("after") is not None:
        raise ComponentError(
            "derive.from",
            f"{folder} is a phase, and what is removed is missing from the first training on. Derive from that, and "
            "write its phases again under then",
        )
    whole = {**parent, **tree}
    if derive.remove is None:
        return whole, ()
    try:
        chosen, note = _choose(folder, derive.remove, int(parent["seed"]))
    except (OSError, ValueError, KeyError) as error:
        raise ComponentError("derive.from", f"{folder} is damaged ({error}); run it again with --force") from error
    before = (parent.get("removed") or {}).get("examples", [])
    whole["removed"] = {
        "examples": sorted({*before, *chosen.tolist()}),
        "exclusion": derive.remove.exclusion or parent["exclusion"],
        "reason": note,
    }
    return whole, (note,)


def _scenario_of(folder: Path) -> dict[str, Any]:
    try:
        source = yaml_source.read_file(folder / "scenario.yaml")
    except FedmemError as error:
        raise ComponentError("derive.from", str(error)) from error
    if not isinstance(source.value, dict):
        raise ComponentError("derive.from", f"{folder / 'scenario.yaml'} is damaged; run the scenario again")
    return source.value


def _choose(folder: Path, removal: Removal, seed: int) -> tuple[IntArray, str]:
    """The numbers of the removed examples, ascending, and a sentence about them."""
    import pyarrow.parquet as pq

    audit = pq.read_table(folder / "audit.parquet", columns=["subject", "kind", "owner", "target"]).to_pandas()
    kinds = list(dict.fromkeys(kind for kind in audit["kind"] if not kind.endswith(REMOVED)))
    for position, kind in enumerate(removal.kinds):
        if kind not in kinds:
            raise ComponentError(
                f"derive.remove.kinds[{position}]", f"the run has no kind {kind!r}{choices(kind, kinds)}"
            )
    owners = sorted({int(owner) for owner in audit["owner"] if owner >= 0})
    for position, owner in enumerate(removal.owners):
        if owner not in owners:
            raise ComponentError(
                f"derive.remove.owners[{position}]",
                f"client {owner} owns no audit example of the run; clients that do: {', '.join(map(str, owners))}",
            )
    scores = _scores(folder, removal)
    is_candidate = audit["kind"].isin(removal.kinds or kinds) & audit["subject"].isin(scores)
    if removal.owners:
        is_candidate &= audit["owner"].isin(removal.owners)
    candidates = audit[is_candidate]
    if candidates.empty:
        raise ComponentError("derive.remove", f"no example of {', '.join(removal.kinds or kinds)} has a value")
    values = np.array([scores[subject] for subject in candidates["subject"]])
    count = _count(removal, len(candidates))
    # equal values are in random order
    order = np.lexsort(
        (stream(seed, "ties of removal").permutation(len(values)), values * (1 if removal.lowest else -1))
    )
    chosen = order[:count]
    border = int(np.count_nonzero(values == values[order[count - 1]]))
    shared = ""
    if removal.sample == "matched":
        selected = chosen
        chosen = _match(candidates, chosen, stream(seed, f"matched removal {removal.draw}"))
        shared = f"; {len(np.intersect1d(selected, chosen))} of them are among these themselves"
    subjects = np.sort(candidates["subject"].to_numpy()[chosen])
    census = Counter(candidates["kind"].to_numpy()[chosen].tolist())
    end = "lowest" if removal.lowest else "highest"
    what = f"the {end} {count}" if removal.sample == "selected" else f"{count} random ones matched to the {end}"
    of_owners = f" of clients {', '.join(map(str, sorted(set(removal.owners))))}" if removal.owners else ""
    tied = f"; {border} have the value at the border, of which a random part is taken" if border > 1 else ""
    note = (
        f"removed are {what} of {len(values)} examples{of_owners} by {removal.by} at level {removal.level}: "
        f"{', '.join(f'{number} {kind}' for kind, number in census.items())}{shared}{tied}"
    )
    return subjects.astype(np.int64), note


def _count(removal: Removal, candidates: int) -> int:
    if (removal.share is None) == (removal.count is None):
        raise ComponentError("derive.remove", "needs either share or count; write one of them, such as share: 0.1")
    count = removal.count if removal.count is not None else max(1, round((removal.share or 0.0) * candidates))
    if count >= candidates:
        raise ComponentError(
            "derive.remove", f"would remove {count} of {candidates} examples, and none would be left; remove fewer"
        )
    return count


def _scores(folder: Path, removal: Removal) -> dict[int, float]:
    """The value of each example by its number, from the rows of the summary."""
    import pyarrow.parquet as pq

    table: pd.DataFrame = pq.read_table(folder / "measurements.parquet").to_pandas()
    subject = table["subject"].astype(str)
    is_single = (table["scope"].astype(str) == "summary") & table["run"].isna() & subject.str.fullmatch(r"\d+")
    single = table[is_single & (table["level"].astype(str) == removal.level)]
    single = single[single["place"].astype(object).fillna("").astype(str).isin(("owner", ""))]
    names = sorted(set(single["metric"].astype(str)))
    rows = single[single["metric"].astype(str) == removal.by]
    if rows.empty:
        raise ComponentError(
            "derive.remove.by",
            f"the run has no values of single examples by {removal.by} at level {removal.level}"
            f"{choices(removal.by, names)}",
        )
    columns = [str(name) for name in table.columns]
    labels = [name for name in columns[columns.index("n") + 1 :] if name != "place"]
    for name, value in removal.labels.items():
        if name not in labels:
            raise ComponentError(f"derive.remove.labels.{name}", f"is no label of the run{choices(name, labels)}")
        rows = rows[rows[name].astype(str) == str(value)]
    variants = rows[labels].astype(str).drop_duplicates()
    if len(variants) != 1:
        varied = [name for name in labels if variants[name].nunique() > 1]
        found = "; ".join(
            ", ".join(f"{name}: {value or '(none)'}" for name, value in zip(varied, each, strict=True))
            for each in variants[varied].to_numpy().tolist()
        )
        text = f"are of several kinds, choose one by labels: {found}" if found else "are none with these labels"
        raise ComponentError("derive.remove.labels", f"the values of {removal.by} {text}")
    known = rows[~rows["value"].isna()]
    return dict(zip(known["subject"].astype(str).astype(int).tolist(), known["value"].tolist(), strict=True))


def _match(candidates: pd.DataFrame, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """As many random candidates of each kind, owner and label as were chosen of it."""
    cells = list(zip(candidates["kind"], candidates["owner"], candidates["target"], strict=True))
    needed = Counter(cells[i] for i in chosen.tolist())
    taken: list[int] = []
    for cell, count in sorted(needed.items()):
        members = np.array([i for i, each in enumerate(cells) if each == cell], dtype=np.int64)
        taken += rng.permutation(members)[:count].tolist()
    return np.array(sorted(taken), dtype=np.int64)
