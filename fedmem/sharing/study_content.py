"""A finished comparison or sweep as the content of an export: its tables, and a line for each setting and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.export import ExportContent, ExportRun, ExportTable, clean_piece
from fedmem.sharing.run_content import SUMMARY, Points, unique_name
from fedmem.studies.comparison import Comparison
from fedmem.studies.reading import read_comparison

if TYPE_CHECKING:
    from fedmem.studies.reading import FinishedStudy

_FILES = ("comparison.html", "sweep.html")

MEANS = {
    "values": "one quantity of one run, over all observed rounds",
    "rounds": "one quantity of one run at one observed round",
    "results": "one quantity of one run, over all observed rounds or at one of them",
    "differences": "one setting in one quantity, against its reference",
    "within": "one kind or level minus another, within a setting",
    "retention": "what aggregation keeps of one measure in one setting",
    "trades": "the utility of one setting against one measure",
    "trials": "one trial of the search",
}
"""Table -> what a row of it is."""

_TRIALS = {
    "trial": "the number of the trial",
    "state": "complete, or fail",
    "reason": "why the trial failed",
    "front": "whether no other trial is better in one objective and as good in all others",
}

COLUMNS = {
    "setting": "the setting, in words",
    "seed": "the seed, which is the replicate",
    "scope": "summary (all observed rounds) or round",
    "round": "the observed round; empty for the summary",
    "metric": "the measure",
    "with": "the labels that separate variants of the measure, in short words",
    "kind": "the kind of audit example; empty for values of whole models",
    "level": "local (owning client), sum, or global (aggregate)",
    "value": "the number; empty where it is undefined",
    "low": "lower end of the 95 % interval of the run",
    "high": "upper end of the 95 % interval of the run",
    "n": "number of examples or models behind the value",
    "null": "the value without memorisation",
    "fpr": "the false positive rate at which a true positive rate was taken",
    "saturated": "whether the value is too near an end of its measure to be compared",
    "saturated_from": "values from here up are saturated",
    "reference": "the setting that the row is compared with",
    "reference_saturated": "whether the mean of the reference is saturated",
    "mean": "the mean over the seeds",
    "difference": "the paired difference, in the unit of the measure (a rate is a fraction)",
    "difference_low": "lower end of its interval, simultaneous over all tests of the family; unit of the measure",
    "difference_high": "upper end of its interval, simultaneous over all tests of the family; unit of the measure",
    "unadjusted_low": "lower end of the 95 % interval of this difference alone, in the unit of the measure",
    "unadjusted_high": "upper end of the 95 % interval of this difference alone, in the unit of the measure",
    "effect": "the difference in the unit of the column unit",
    "effect_low": "lower end of the interval of effect: difference_low in the unit of the column unit",
    "effect_high": "upper end of the interval of effect: difference_high in the unit of the column unit",
    "unit": "the unit of effect, effect_low and effect_high",
    "p": "p of this difference alone",
    "p_adjusted": "p adjusted over all tests of the family",
    "tests": "number of differences that are adjusted together",
    "verdict": "what the difference shows, in words",
    "other_examples": "whether the two sides are means over other examples",
    "conditional_on": "batches: the values of the setting are conditional on the batches that all runs share",
    "other_condition": "whether the values of only one of the two sides are conditional",
    "detectable": "the smallest difference that these seeds find with 80 % chance, in the unit of the measure",
    "seeds_needed": "seeds that would find the observed difference; 0 for more than 1000 or unknown",
    "between": "what is compared: kinds or levels",
    "minus": "the kind or level that is subtracted",
    "retention": "the share of the local effect that the aggregate keeps; empty where it is undefined",
    "reason": "why a retention is undefined",
    "utility": "the utility of the setting",
    "measure": "the measure of the setting",
    "dominated_by": "a setting with more utility and no more of the measure, or the reverse",
    "both_significant": "whether that setting is significantly better in both",
    "learns_less": "whether the utility above the most frequent answer is below three quarters of the best one",
    "rival": "another setting that is better in one and not worse in the other, both by significance",
}
"""Column -> its meaning. Further columns are paths that vary, labels of measures, and these names with an ending."""

_ENDINGS = {
    "_low": "lower end of the interval of",
    "_high": "upper end of the interval of",
    "_seeds": "number of seeds behind",
}


def study_content(folder: Path) -> ExportContent:
    """The content of a finished comparison or sweep. Errors: `FolderError`, as `read_comparison`."""
    study = read_comparison(folder)
    left_out, taken, runs = 0, set[str](), []
    finished = (folder / "series.json").stat().st_mtime
    for place, name, parameters in _cells(study.comparison):
        own = Points()
        _add(own, study.comparison, place)
        if not own.scalars:
            continue  # the run failed
        left_out += own.left_out
        runs.append(
            ExportRun(
                name=unique_name(name, taken),
                parameters=parameters,
                scalars=own.scalars,
                files={file: folder / file for file in _FILES if (folder / file).is_file()},
                finished=finished,
            )
        )
    return ExportContent(title=study.title, id=folder.name, tables=_tables(study), runs=runs, left_out=left_out)


def _cells(comparison: Comparison) -> Iterator[tuple[tuple[int, int], str, dict[str, str]]]:
    """Each setting and seed: its place, its name as a path, and its parameters."""
    for setting, values in enumerate(comparison.settings):
        name = clean_piece(comparison.labels[setting].replace("=", "-").replace(", ", "_"))
        for place, seed in enumerate(comparison.seeds):
            yield (setting, place), f"{name}/seed-{seed}", {**dict(values), "seed": str(seed)}


def _add(points: Points, comparison: Comparison, place: tuple[int, int]) -> None:
    """The series of one setting and seed; none where its run failed."""
    last = max((number for series in comparison.series for number in series.rounds), default=0)
    for series in comparison.series:
        quantity = series.quantity
        about = (quantity.metric, quantity.labels, quantity.level, quantity.kind)
        for round_number, values in (*series.rounds.items(), (None, series.values)):
            low, high, n = math.nan, math.nan, float(series.n[place])
            if round_number in series.intervals:
                low, high, n = series.intervals[round_number][place].tolist()
            if not math.isnan(n):
                prefix, step = (SUMMARY, last) if round_number is None else ("", round_number)
                points.add(prefix, about, step, float(values[place]), low, high)


def _tables(study: FinishedStudy) -> list[ExportTable]:
    from fedmem.reporting.measures import label_meanings

    paths = [path for setting in study.comparison.settings for path, _ in setting]
    more = dict.fromkeys(paths, "a value that varies between settings")
    meanings = {**label_meanings(), **more, **COLUMNS}
    for name, means in COLUMNS.items():
        meanings |= {f"{name}{ending}": f"{text} {name}: {means}" for ending, text in _ENDINGS.items()} | meanings
    return [
        ExportTable(
            name=name,
            means=MEANS[name],
            frame=partial(getattr, study, name),
            meanings={**meanings, **(_TRIALS if name == "trials" else {})},
            other="a value that varies between settings, or an objective",
        )
        for name in study.tables
    ]
