"""The tables of a comparison as tidy rows, for files: one row for each number, or for each setting in each quantity."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import Contrast, Mean, Ratio
from fedmem.studies.quantities import Quantity

Rows = Iterator[dict[str, Any]]


def values(comparison: Comparison) -> Rows:
    """Every quantity of every run; nothing for runs that failed.

    `saturated`: the value is too near an end of the measure, at the top from `saturated_from` up.
    """
    for series in comparison.series:
        for setting in range(len(comparison.settings)):
            for place, seed in enumerate(comparison.seeds):
                if not math.isnan(series.n[setting, place]):
                    yield {
                        **_setting(comparison, setting),
                        "seed": seed,
                        **_quantity(series.quantity),
                        "value": series.values[setting, place],
                        "null": series.null[setting, place],
                        "fpr": series.fpr[setting, place],
                        "n": int(series.n[setting, place]),
                        "saturated": series.zone.holds(float(series.values[setting, place])),
                        "saturated_from": series.zone.top,
                    }


def rounds(comparison: Comparison) -> Rows:
    """What is tabled, at each observed round."""
    for series in comparison.tested_series:
        for round_number, round_values in series.rounds.items():
            for setting in range(len(comparison.settings)):
                for place, seed in enumerate(comparison.seeds):
                    if not math.isnan(round_values[setting, place]):
                        yield {
                            **_setting(comparison, setting),
                            "seed": seed,
                            **_quantity(series.quantity),
                            "round": round_number,
                            "value": round_values[setting, place],
                            "saturated": series.zone.holds(float(round_values[setting, place])),
                        }


def differences(comparison: Comparison) -> Rows:
    """Each setting in each tabled quantity, against its reference; differences as they are, and as an effect in `unit`.

    `difference_low` and `difference_high` are simultaneous over the `tests` differences of a family, as `p_adjusted`
    and the verdict are; `unadjusted_low`, `unadjusted_high` and `p` are those of each difference alone.
    The verdict is `other rates` where no seed has both at the same false positive rate, which is not compared. It is
    `saturated` where both means are at an end of the measure, where no difference could be seen; `saturated` and
    `reference_saturated` say it of each. `other_examples` says that the two are means over other examples. `detectable`
    is the smallest difference that these seeds find with 80 % chance, `seeds_needed` how many would find the one that
    was seen (0: more than 1000, or not known).
    """
    for row in comparison.rows:
        difference, adjusted, scale = row.contrast, row.adjusted, row.quantity.scale
        yield {
            **_setting(comparison, row.setting),
            **_quantity(row.quantity),
            **_numbers("mean", row.mean),
            "reference": "" if difference is None else comparison.labels[comparison.reference[row.setting]],
            **_numbers("difference", adjusted),
            "unadjusted_low": math.nan if difference is None else difference.low,
            "unadjusted_high": math.nan if difference is None else difference.high,
            "effect": math.nan if difference is None else difference.value * scale,
            "unit": row.quantity.unit,
            "p": math.nan if difference is None else difference.p,
            "p_adjusted": math.nan if adjusted is None else adjusted.p,
            "tests": 0 if difference is None else row.tests,
            "verdict": row.verdict,
            "other_examples": row.other_examples,
            "saturated": row.saturated,
            "reference_saturated": row.reference_saturated,
            "detectable": row.detectable,
            "seeds_needed": row.seeds,
        }


def retention(comparison: Comparison) -> Rows:
    """What aggregation keeps of each measure; NaN where there is no local effect to keep.

    The interval of a difference is simultaneous over `tests` differences.

    `saturated`: the value at the owning client is at the end of the measure, so that the ratio is too high.
    """
    for entry in comparison.retention:
        yield {
            **_setting(comparison, entry.setting),
            **_quantity(entry.quantity),
            "level": "global",
            **_numbers("retention", entry.ratio),
            **_numbers("difference", entry.difference),
            "tests": 0 if entry.difference is None else entry.tests,
            "saturated": entry.saturated,
        }


def trades(comparison: Comparison) -> Rows:
    """Utility and one measure; `dominated_by` is a setting that has more of one and no less of the other.

    `both_significant`: both differences to it are, adjusted over all pairs of settings and all kinds of the measure.
    """
    for trade in comparison.trades:
        yield {
            **_setting(comparison, trade.setting),
            **_quantity(trade.quantity),
            **_numbers("utility", trade.use),
            **_numbers("measure", trade.harm),
            "dominated_by": comparison.labels[trade.better] if trade.better >= 0 else "",
            "both_significant": trade.sure,
            "saturated": trade.saturated,
        }


TABLES: Mapping[str, Callable[[Comparison], Rows]] = {
    "values": values,
    "rounds": rounds,
    "differences": differences,
    "retention": retention,
    "trades": trades,
}
"""Name of the files -> their rows."""


def put(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as `name.csv` and `name.parquet`; each file is whole or not there."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for ending in ("csv", "parquet"):
        partial = folder / f".{name}.{os.getpid()}.{ending}"
        if ending == "csv":
            frame.to_csv(partial, index=False)
        else:
            frame.to_parquet(partial, index=False)
        partial.replace(folder / f"{name}.{ending}")


def _setting(comparison: Comparison, setting: int) -> dict[str, Any]:
    return {"setting": comparison.labels[setting], **dict(comparison.settings[setting])}


def _quantity(quantity: Quantity) -> dict[str, Any]:
    return {
        "metric": quantity.metric,
        "with": " ".join(quantity.parts),
        "kind": quantity.kind,
        "level": quantity.level,
    }


def _numbers(name: str, estimate: Mean | Contrast | Ratio | None) -> dict[str, Any]:
    """Value, interval and seeds under this name."""
    if estimate is None:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan, f"{name}_seeds": 0}
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_seeds": estimate.n,
    }
