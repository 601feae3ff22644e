"""From finished federations to what each block takes and brings back, and whether units are shared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.estimators.localisation import LARGEST_FALL
from fedmem.results.read import Run
from fedmem.studies.experiment import over_seeds, with_verdict

ARMS = {"images": 5, "texts": 3}
"""The arms of the experiment, each with its number of blocks."""

MEMORISED = {"images": ("mislabelled", "random_pattern"), "texts": ("secret",)}
"""The kinds that claims are about; rows of the kind `typical` are compared with."""

NAMES = {"mislabelled": "wrong labels", "random_pattern": "random patterns", "secret": "secrets"}

MIN_MEMORISATION = 0.7
"""So much must be memorised of wrong labels at owning clients, else there is little to locate."""


def of_run(run: Run, arm: str) -> pd.DataFrame:
    """The values of one federation: `what`, `kind`, `level`, `block`, `value` and `void`.

    - `memorisation`: by probability, before any swap;
    - `fall`: memorisation at owning clients minus memorisation after a swap with a block of the model that they
      received; block 0 is all of them;
    - `taken`: that as a share of their memorisation, which is `memory_lost` without its test in each single federation;
    - `returned`: the share of the memory that the owner's block brings back to the aggregate. It is what the aggregate
      gains with this block, divided by what it gains with all of them;
    - `accuracy`: the change of test accuracy by the swap, at both levels;
    - `overlap`, `overlap_out`, `overlap_gain`: `unit_overlap` with and without the example, and their difference.

    `void` is 1 where a swap lowers test accuracy by more than 2 percentage points. `taken` is then undefined, except
    for block 0, which is the other model itself. `returned` is not: a model that forgets everything gains no memory.
    """
    rows = run.measurements
    rows = rows[(rows.scope == "summary") & (rows.place != "others")]
    rows = rows[rows.subject.isin([*MEMORISED[arm], "typical"])].rename(columns={"subject": "kind"})
    source = rows.level.map({"local": "received", "global": "other_level"})
    rows = rows[
        rows.block_source.isin(["", *source.unique()]) & ((rows.block_source == "") | (rows.block_source == source))
    ]
    rows = rows.assign(block=rows.swapped_block.astype("Int64"))

    def of(metric: str, statistic: str, what: str) -> pd.DataFrame:
        found = rows[(rows.metric == metric) & (rows.statistic == statistic)]
        return found[["kind", "level", "block", "value"]].assign(what=what)

    before = of("memorisation", "probability", "memorisation")
    swapped = of("swapped_memorisation", "probability", "swapped")
    swapped = swapped.merge(before[["kind", "level", "value"]], on=["kind", "level"], suffixes=("", "_before"))
    change = swapped.assign(value=swapped.value_before - swapped.value)
    accuracy = of("swap_accuracy_change", "", "accuracy")
    fall = change[change.level == "local"].assign(what="fall")
    gained = change[change.level == "global"].assign(value=lambda frame: -frame.value)
    whole = gained[gained.block == 0].set_index("kind").value
    returned = gained.assign(what="returned", value=gained.value / gained.kind.map(whole).to_numpy())
    taken = fall.assign(what="taken", value=fall.value / fall.value_before)
    frames = [before, taken, fall, returned, accuracy]
    if arm == "images":
        frames += [
            of("unit_overlap", "", "overlap"),
            of("unit_overlap", "out", "overlap_out"),
            of("unit_overlap_gain", "", "overlap_gain"),
        ]
    values = pd.concat([frame[["what", "kind", "level", "block", "value"]] for frame in frames], ignore_index=True)
    changes = accuracy.set_index(["kind", "level", "block"]).value.astype(float)
    keys = zip(values.kind, values.level, values.block.fillna(0), strict=True)
    falls = [-changes.get(key, 0.0) > LARGEST_FALL + 1e-12 and key[2] != 0 for key in keys]
    is_undefined = np.array(falls) & (values.what == "taken").to_numpy()
    return values.assign(void=np.array(falls, dtype=int), value=values.value.astype(float).mask(is_undefined))


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of everything, and in how many seeds the swap is void.

    A share without a value in one of the seeds has none here. `early_minus_late` is `returned` of the first blocks
    minus that of the last ones: two of five, one of three.
    """
    is_share = values.what.isin(["taken", "returned"])
    shown = values[~is_share | (values.kind != "typical")]
    rows = []
    keys = ["arm", "what", "kind", "level", "block"]
    for key, group in shown.groupby(keys, dropna=False):
        rows.append(dict(zip(keys, key, strict=True)))
        rows[-1] |= over_seeds(group.sort_values("seed").value.to_numpy(dtype=np.float64))
        rows[-1]["void"] = int(group.void.sum())
    for arm, kinds in MEMORISED.items():
        for kind in kinds:
            parts = _blocks(values, arm, "returned", kind)
            half = ARMS[arm] // 2
            difference = parts[:, :half].mean(axis=1) - parts[:, -half:].mean(axis=1)
            rows.append({"arm": arm, "what": "early_minus_late", "kind": kind, "level": "global", "block": pd.NA})
            rows[-1] |= {**over_seeds(difference), "void": 0}
    return pd.DataFrame(rows).astype({"block": "Int64"})


def _blocks(values: pd.DataFrame, arm: str, what: str, kind: str) -> FloatArray:
    """(seeds, blocks) a quantity by block, without the swap of all."""
    level = "global" if what == "returned" else "local"
    rows = values[(values.arm == arm) & (values.what == what) & (values.kind == kind) & (values.level == level)]
    wide = rows.pivot_table(index="seed", columns="block", values="value", dropna=False)
    numbers = range(1, ARMS[arm] + 1)
    return wide.reindex(index=sorted(values.seed.unique()), columns=numbers).to_numpy(dtype=np.float64)


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim: the value over seeds that is above 0 if it holds, its 95 % interval and the verdict.

    The block that takes most is chosen in each seed, so that chance speaks against the first three claims. The block
    that takes least is chosen for the last ones, with the same effect.
    """

    def series(arm: str, what: str, kind: str, block: int | None = None) -> FloatArray:
        rows = values[(values.arm == arm) & (values.what == what) & (values.kind == kind) & (values.level == "local")]
        rows = rows[rows.block.isna() if block is None else rows.block == block]
        return rows.set_index("seed").value.reindex(sorted(values.seed.unique())).to_numpy(dtype=np.float64)

    rows = []

    def claim(text: str, arm: str, level: str, difference: FloatArray) -> None:
        rows.append({"claim": text, "arm": arm, "level": level, **with_verdict(difference)})

    memorised = series("images", "memorisation", "mislabelled") - MIN_MEMORISATION
    claim("owning clients memorise wrong labels by more than 0.7", "images", "local", memorised)
    for arm, kinds in MEMORISED.items():
        for kind in kinds:
            name = NAMES[kind]
            taken, returned, fall = (_blocks(values, arm, what, kind) for what in ("taken", "returned", "fall"))
            whole = series(arm, "taken", kind, 0)
            claim(f"no single block takes as much of {name} as all", arm, "local", whole - taken.max(axis=1))
            claim(f"no single block takes half of {name}", arm, "local", 0.5 - taken.max(axis=1))
            claim(f"no single block brings half of {name} back", arm, "global", 0.5 - returned.max(axis=1))
            claim(f"the last block takes least of {name}", arm, "local", taken[:, :-1].min(axis=1) - taken[:, -1])
            clean = _blocks(values, arm, "fall", "typical")
            claim(
                f"each block takes more from {name} than from ordinary rows", arm, "local", (fall - clean).min(axis=1)
            )
    for kind in MEMORISED["images"]:
        text = f"training on {NAMES[kind]} makes owner and aggregate share more units"
        claim(text, "images", "local", series("images", "overlap_gain", kind))
    return pd.DataFrame(rows)
