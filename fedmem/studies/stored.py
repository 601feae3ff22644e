"""A comparison or sweep in its folder: its numbers, from which tables, figures and page can be drawn again.

series.json   settings, seeds, references, the quantities, warnings and what failed
series.npz    their values and intervals, (quantities, settings, seeds)
summary.json  what they show, in short
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Labels
from fedmem.errors import FolderError
from fedmem.estimation.saturation import SaturationZone
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.tables import TABLES, put, results

_ARRAYS = ("values", "null", "n", "paired", "paired_null", "fpr")


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A comparison as it was made: what it is called, its numbers, and why runs failed.

    `is_sweep`: its settings are not compared with each other.
    """

    title: str
    comparison: Comparison
    failures: tuple[str, ...] = ()
    is_sweep: bool = False


def is_study(folder: Path) -> bool:
    """Whether this is the folder of a comparison or sweep, rather than of a run."""
    return folder.name.startswith(("compare-", "sweep-")) or (folder / "series.json").exists()


def write_study(folder: Path, study: StoredStudy) -> None:
    """Numbers and their summary; each file is whole or not there."""
    from fedmem.studies.study_summary import write_study_summary

    comparison = study.comparison
    content = {
        "title": study.title,
        "is_sweep": study.is_sweep,
        "failures": study.failures,
        "settings": comparison.settings,
        "reference": comparison.reference,
        "seeds": comparison.seeds,
        "measures": comparison.measures,
        "warnings": comparison.warnings,
        "warned": comparison.warned,
        "constant_accuracy": comparison.constant_accuracy,
        **({"conditions": comparison.conditions} if comparison.has_conditions else {}),
        "series": [
            {
                "quantity": asdict(series.quantity) | {"labels": dict(series.quantity.labels.items)},
                "zone": asdict(series.zone),
                "rounds": list(series.rounds),
                "intervals": list(series.intervals),
            }
            for series in comparison.series
        ],
    }
    with _replacing(folder / "series.npz") as file:
        np.savez_compressed(file, allow_pickle=False, **_arrays(comparison))
    with _replacing(folder / "series.json") as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    write_study_summary(folder, study)


def read_study(folder: Path) -> StoredStudy:
    """Read a study that `write_study` wrote. Errors: `FolderError` if it is missing or cannot be read."""
    try:
        content = json.loads((folder / "series.json").read_text(encoding="utf-8"))
        with (folder / "series.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        comparison = Comparison(
            settings=tuple(
                tuple((str(path), str(value)) for path, value in setting) for setting in content["settings"]
            ),
            reference=tuple(content["reference"]),
            seeds=tuple(content["seeds"]),
            measures=tuple(content["measures"]),
            warnings=tuple(content["warnings"]),
            warned=tuple(map(tuple, content.get("warned", ()))),
            constant_accuracy=tuple(map(tuple, content.get("constant_accuracy", ()))),
            conditions=tuple(content.get("conditions", ())),
            series=tuple(_series(content["series"], arrays)),
        )
    except FileNotFoundError as error:
        raise FolderError(
            f"{folder} has no {Path(str(error.filename)).name}: it is not finished, or another version made it. The "
            "same fedmem compare or fedmem sweep makes it again, and repeats no run"
        ) from error
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"series.json or series.npz in {folder} is damaged ({error}); the same fedmem compare or fedmem sweep "
            "makes them again, and repeats no run"
        ) from error
    return StoredStudy(
        title=content["title"],
        comparison=comparison,
        failures=tuple(content["failures"]),
        is_sweep=content["is_sweep"],
    )


def draw_study(folder: Path, study: StoredStudy) -> Path:
    """Tables, figures and page of a study, from its numbers alone; returns the page. Equal numbers give equal files."""
    from fedmem.studies.study_page import page
    from fedmem.studies.study_summary import write_study_summary

    write_study_summary(folder, study)
    tables = {"results": results} if study.is_sweep else TABLES
    for name, rows in tables.items():
        put(folder, name, list(rows(study.comparison)))
    text, figure_files = page(study.comparison, study.title, study.failures)
    for name, data in figure_files.items():
        with _replacing(folder / f"{name}.png") as file:
            file.write(data)
    path = folder / ("sweep.html" if study.is_sweep else "comparison.html")
    with _replacing(path) as file:
        file.write(text.encode())
    return path


def _arrays(comparison: Comparison) -> dict[str, FloatArray]:
    shape = (len(comparison.settings), len(comparison.seeds))
    arrays = {name: _stack([getattr(series, name) for series in comparison.series], shape) for name in _ARRAYS}
    arrays["rounds"] = _stack([part for series in comparison.series for part in series.rounds.values()], shape)
    intervals = [part for series in comparison.series for part in series.intervals.values()]
    return {**arrays, "intervals": _stack(intervals, (*shape, 3))}


def _stack(parts: Sequence[FloatArray], shape: tuple[int, ...]) -> FloatArray:
    return np.stack(parts) if parts else np.zeros((0, *shape))


def _series(contents: Sequence[Any], arrays: dict[str, FloatArray]) -> Iterator[Series]:
    rounds, intervals = iter(arrays["rounds"]), iter(arrays["intervals"])
    for place, content in enumerate(contents):
        quantity = content["quantity"]
        yield Series(
            quantity=Quantity(
                **{**quantity, "labels": Labels.of(quantity["labels"]), "range": tuple(quantity["range"])}
            ),
            zone=SaturationZone(**content["zone"]),
            rounds={round_number: next(rounds) for round_number in content["rounds"]},
            intervals={round_number: next(intervals) for round_number in content["intervals"]},
            **{name: arrays[name][place] for name in _ARRAYS},
        )


class _replacing:
    """A file that appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{os.getpid()}.{path.name}")

    def __enter__(self) -> IO[bytes]:
        self._file = self._partial.open("wb")
        return self._file

    def __exit__(self, kind: object, *rest: object) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()
