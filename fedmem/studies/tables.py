"""The tables of a comparison as tidy rows, for files: one row for each number, or for each setting in each quantity."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedmem.results.conditions import COLUMN as CONDITION
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import Contrast, Mean, Ratio
from fedmem.studies.grid import Setting
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.within import differences_within

Rows = Iterator[dict[str, Any]]


def values(comparison: Comparison) -> Rows:
    """Every quantity of every run; nothing for runs that failed.

    `low` and `high` are the interval of the run. `saturated`: the value is too near an end of the measure, at the top
    from `saturated_from` up.
    """
    for series in comparison.series:
        for row, place in _readings(comparison, series, None):
            yield {
                **row,
                "null": series.null[place],
                "fpr": series.fpr[place],
                "saturated": series.zone.holds(row["value"]),
                "saturated_from": series.zone.top,
            }


def rounds(comparison: Comparison) -> Rows:
    """The same quantities at each observed round."""
    for series in comparison.series:
        for round_number in series.rounds:
            for row, _ in _readings(comparison, series, round_number):
                yield {**row, "saturated": series.zone.holds(row["value"])}


def results(comparison: Comparison) -> Rows:
    """Both in one: `scope` is `summary`, which has no round, or `round`."""
    for row in values(comparison):
        yield {"scope": "summary", "round": None, **row}
    for row in rounds(comparison):
        yield {"scope": "round", **row}


def _readings(
    comparison: Comparison, series: Series, round_number: int | None
) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
    """A row for each run that has this quantity at a round, or in its summary, and the place of the run."""
    at_round = {} if round_number is None else {"round": round_number}
    numbers = series.values if round_number is None else series.rounds[round_number]
    unknown = np.stack([np.full_like(numbers, math.nan)] * 2 + [series.n], axis=-1)
    ends = series.intervals.get(round_number, unknown)
    for setting in range(len(comparison.settings)):
        for place, seed in enumerate(comparison.seeds):
            low, high, n = ends[setting, place].tolist()
            if not math.isnan(n):
                row = {
                    **_setting(comparison, setting),
                    "seed": seed,
                    **_quantity(comparison, series.quantity),
                    **at_round,
                    "value": float(numbers[setting, place]),
                    "low": low,
                    "high": high,
                    "n": int(n),
                }
                yield row, (setting, place)


def differences(comparison: Comparison) -> Rows:
    """Each setting in each tabled quantity, against its reference; differences as they are, and as an effect in `unit`.

    `difference_low` and `difference_high` are simultaneous over the `tests` differences of a family, as `p_adjusted`
    and the verdict are. `effect_low` and `effect_high` are the same interval in `unit`. `unadjusted_low`,
    `unadjusted_high` and `p` are those of each difference alone.

    The verdict is `other rates` where no seed has both at the same false positive rate, which is not compared. It is
    `saturated` where both means are at an end of the measure, where no difference could be seen. Columns `saturated`
    and `reference_saturated` say it of each. `other_examples` says that the two are means over other examples.
    Where values of some setting are conditional on shared batches, `conditional_on` says of which, and
    `other_condition` that only one of the two is.
    `detectable` is the smallest difference that these seeds find with 80 % chance. `seeds_needed` is how many would
    find the observed difference (0: more than 1000, or not known).
    """
    for row in comparison.rows:
        difference, adjusted = row.contrast, row.adjusted
        yield {
            **_setting(comparison, row.setting),
            **_quantity(comparison, row.quantity),
            **_numbers("mean", row.mean),
            "reference": "" if difference is None else comparison.labels[comparison.reference[row.setting]],
            **_numbers("difference", adjusted),
            "unadjusted_low": math.nan if difference is None else difference.low,
            "unadjusted_high": math.nan if difference is None else difference.high,
            **_effect(adjusted, row.quantity),
            "unit": row.quantity.unit,
            "p": math.nan if difference is None else difference.p,
            "p_adjusted": math.nan if adjusted is None else adjusted.p,
            "tests": 0 if difference is None else row.tests,
            "verdict": row.verdict,
            "other_examples": row.other_examples,
            **_other_condition(comparison, other=row.other_condition),
            "saturated": row.saturated,
            "reference_saturated": row.reference_saturated,
            "detectable": row.detectable,
            "seeds_needed": row.seeds,
        }


def within(comparison: Comparison) -> Rows:
    """Each quantity minus another kind at its level, or minus the other level of its kind, within a setting.

    `between` is `kinds` or `levels`, and `minus` the kind or level that is subtracted. The other columns are those of
    `differences`.
    """
    for entry in differences_within(comparison):
        yield {
            **_setting(comparison, entry.setting),
            **_quantity(comparison, entry.quantity),
            "between": entry.between,
            "minus": entry.minus,
            **_numbers("difference", entry.adjusted),
            "unadjusted_low": entry.contrast.low,
            "unadjusted_high": entry.contrast.high,
            **_effect(entry.adjusted, entry.quantity),
            "unit": entry.quantity.unit,
            "p": entry.contrast.p,
            "p_adjusted": entry.adjusted.p,
            "tests": entry.tests,
            "verdict": entry.verdict,
            "other_examples": entry.other_examples,
            "saturated": entry.saturated,
            "detectable": entry.detectable,
        }


def retention(comparison: Comparison) -> Rows:
    """The retention of each measure; NaN if there is no local effect.

    Intervals, p and verdicts of differences are as in `differences`, adjusted over `tests` differences of retention.
    The verdict is `saturated` where one of the two ratios is too high. `reason` says why a ratio is undefined.

    `saturated`: the value at the owning client is at the end of the measure, so that the ratio is too high.
    """
    for entry in comparison.retention:
        yield {
            **_setting(comparison, entry.setting),
            **_quantity(comparison, entry.quantity),
            "level": "global",
            **_numbers("retention", entry.ratio),
            **_numbers("difference", entry.difference),
            "unadjusted_low": math.nan if entry.contrast is None else entry.contrast.low,
            "unadjusted_high": math.nan if entry.contrast is None else entry.contrast.high,
            "p": math.nan if entry.contrast is None else entry.contrast.p,
            "p_adjusted": math.nan if entry.difference is None else entry.difference.p,
            "tests": 0 if entry.difference is None else entry.tests,
            "verdict": entry.verdict,
            "detectable": entry.detectable,
            "saturated": entry.saturated,
            "reason": entry.reason,
            **_other_condition(comparison, other=entry.other_condition),
        }


def trades(comparison: Comparison) -> Rows:
    """Utility and one measure; `dominated_by` is a setting that has more of one and no less of the other.

    A measure below its value without memorisation counts as that value. `both_significant`: it is significantly better
    in both, adjusted over all pairs of settings and all kinds of the measure. `rival`, of a setting on the front, is
    another one that is significantly better in one and not significantly worse in the other.
    """
    for trade in comparison.trades:
        yield {
            **_setting(comparison, trade.setting),
            **_quantity(comparison, trade.quantity),
            **_numbers("utility", trade.use),
            **_numbers("measure", trade.harm),
            "dominated_by": comparison.labels[trade.better] if trade.better >= 0 else "",
            "both_significant": trade.sure,
            "rival": comparison.labels[trade.rival] if trade.rival >= 0 else "",
            "saturated": trade.saturated,
            "learns_less": trade.learns_less,
        }


TABLES: Mapping[str, Callable[[Comparison], Rows]] = {
    "values": values,
    "rounds": rounds,
    "differences": differences,
    "within": within,
    "retention": retention,
    "trades": trades,
}
"""Name of the files -> their rows."""


def put(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as `name.csv` and `name.parquet`; each file is whole or not there. Without rows it has a header alone."""
    import pandas as pd

    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["setting"])
    if "round" in frame:
        frame["round"] = frame["round"].astype("Int64")  # the summary has no round
    for ending in ("csv", "parquet"):
        partial = folder / f".{name}.{os.getpid()}.{ending}"
        if ending == "csv":
            frame.to_csv(partial, index=False)
        else:
            frame.to_parquet(partial, index=False)
        partial.replace(folder / f"{name}.{ending}")


def _setting(comparison: Comparison, setting: int) -> dict[str, Any]:
    about = {"setting": comparison.labels[setting], **typed_settings(comparison.settings)[setting]}
    return {**about, CONDITION: comparison.condition(setting)} if comparison.has_conditions else about


def _other_condition(comparison: Comparison, *, other: bool) -> dict[str, bool]:
    """A column only where values of some setting are conditional."""
    return {"other_condition": other} if comparison.has_conditions else {}


@lru_cache(maxsize=8)
def typed_settings(settings: tuple[Setting, ...]) -> tuple[Mapping[str, int | float | str], ...]:
    """The value of each path in each setting: numbers if a path takes only numbers, otherwise text.

    >>> typed_settings(((("client.lr", "0.3"), ("strategy.f", "auto")), (("client.lr", "1"), ("strategy.f", "2"))))
    ({'client.lr': 0.3, 'strategy.f': 'auto'}, {'client.lr': 1.0, 'strategy.f': '2'})
    """
    convert: dict[str, type[int] | type[float] | type[str]] = {}
    for path in dict.fromkeys(path for setting in settings for path, _ in setting):
        texts = [value for setting in settings for other, value in setting if other == path]
        convert[path] = next((kind for kind in (int, float) if all(_is_number(text, kind) for text in texts)), str)
    return tuple({path: convert[path](value) for path, value in setting} for setting in settings)


def _is_number(text: str, kind: type[int] | type[float]) -> bool:
    try:
        value = kind(text)
    except ValueError:
        return False
    return "_" not in text and math.isfinite(value) and abs(value) < 2**63


def _quantity(comparison: Comparison, quantity: Quantity) -> dict[str, Any]:
    """The subject of a row: each label is a column of its own, and `with` has them all in short words."""
    columns = _label_columns(comparison)
    return {
        "metric": quantity.metric,
        "with": " ".join(quantity.parts),
        "kind": quantity.kind,
        "level": quantity.level,
        **{column: quantity.labels.get(name) for name, column in columns.items()},
    }


def _label_columns(comparison: Comparison) -> dict[str, str]:
    """The columns of all labels of a comparison, by the name of the label; names that are taken get a prefix."""
    names = sorted({name for series in comparison.series for name in series.quantity.labels} - {"fpr"})
    taken = {*_COLUMNS, *(path for setting in comparison.settings for path, _ in setting)}
    return {name: f"label_{name}" if name in taken else name for name in names}


_COLUMNS = frozenset(
    (
        *("setting", "seed", "metric", "with", "kind", "level", "scope", "round", "value", "low", "high", "n", "null"),
        *("fpr", "saturated", "reference", "effect", "unit", "p", "tests", "verdict", "utility", "measure"),
        *("between", "minus", "effect_low", "effect_high", CONDITION, "other_condition"),
    )
)
"""Columns that no label may take."""


def _effect(difference: Contrast | None, quantity: Quantity) -> dict[str, float]:
    """A difference and its interval in the unit of the quantity's differences."""
    names = ("effect", "effect_low", "effect_high")
    ends = (math.nan,) * 3 if difference is None else (difference.value, difference.low, difference.high)
    return {name: end * quantity.scale for name, end in zip(names, ends, strict=True)}


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
