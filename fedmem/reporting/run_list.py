"""Finished runs side by side: when, what differs between them, and their headline numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedmem.errors import FolderError, RunError
from fedmem.reporting.row_cells import count_cell
from fedmem.reporting.summary import Summary
from fedmem.results.folder import finish_time, is_finished
from fedmem.results.read import Run, read

_SAME = ("name", "speed")
"""Fields that do not explain differences of results: compared runs have one name. Of speed, `precision` alone does."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A finished run: its folder, when it was finished, what sets it apart from the others of its name, its numbers."""

    run: Run
    finished: datetime
    label: str
    numbers: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """How long it took in all."""
        return float((self.run.manifest.get("seconds") or {}).get("total") or 0.0)


def finished_runs(folder: Path | str = "runs", damaged: Callable[[RunError], None] | None = None) -> list[ListedRun]:
    """The finished runs in `folder`, in its folders, and in theirs; by name, the oldest first.

    A run of another schema is left out; so is a damaged one, after `damaged` was called with its error.

    Errors: `FolderError` where there is no such folder, `RunError` for a damaged run without `damaged`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FolderError(f"there is no folder {root}; `fedmem run FILE` makes runs/<scenario>/<id>")
    places = [place for place in (root, *root.glob("*"), *root.glob("*/*")) if is_finished(place)]
    names: dict[str, list[tuple[Run, tuple[str, ...]]]] = {}
    for place in sorted(places, key=lambda place: (finish_time(place) or 0, place)):
        try:
            run = read(place)
            name, numbers = str(run.scenario.get("name")), tuple(_numbers(Summary(run)))
        except FolderError:
            continue  # of another version of fedmem, which can list it
        except RunError as error:
            if damaged is None:
                raise
            damaged(error)
            continue
        names.setdefault(name, []).append((run, numbers))
    return [entry for _, runs in sorted(names.items()) for entry in _list_runs(runs)]


def _list_runs(runs: Sequence[tuple[Run, tuple[str, ...]]]) -> Iterator[ListedRun]:
    private = [bool((run.manifest.get("privacy") or {}).get("mechanisms")) for run, _ in runs]
    labels = labels_of([run.scenario for run, _ in runs], private)
    for (run, numbers), label in zip(runs, labels, strict=True):
        when = datetime.fromtimestamp((finish_time(run.path) or 0) / 1e9)
        yield ListedRun(run=run, finished=when, label=label, numbers=numbers)


def labels_of(scenarios: Sequence[Mapping[str, Any]], private: Sequence[bool] = ()) -> list[str]:
    """The settings in which scenarios differ, for each scenario, as `--set` would take them.

    Where kinds differ only the kind is shown, since the fields below it are no longer the same fields. A run without a
    guarantee shows nothing of `privacy`, which says what a guarantee is about. `private` marks runs with a guarantee;
    left out, all have one.

    >>> labels_of([{"seed": 0, "strategy": {"kind": "fedavg"}}, {"seed": 0, "strategy": {"kind": "krum", "f": 1}}])
    ['strategy.kind=fedavg', 'strategy.kind=krum']
    >>> labels_of([{"seed": 0, "runs": 4}, {"seed": 1, "runs": 4}])
    ['seed=0', 'seed=1']
    >>> labels_of([{"speed": {"threads": 1}}, {"speed": {"precision": "bf16", "threads": 2}}])
    ['speed.precision=fp32', 'speed.precision=bf16']
    """
    settings = [
        {
            **{key: value for key, value in scenario.items() if key not in _SAME},
            "speed": {"precision": (scenario.get("speed") or {}).get("precision", "fp32")},
        }
        for scenario in scenarios
    ]
    differences = [dict(part) for part in zip(*_differences("", settings), strict=True)] or [{} for _ in scenarios]
    has_guarantee = private or [True] * len(scenarios)
    return [
        " ".join(
            f"{path}={value}" for path, value in difference.items() if is_private or path.partition(".")[0] != "privacy"
        )
        for difference, is_private in zip(differences, has_guarantee, strict=True)
    ]


def _differences(path: str, values: Sequence[Any]) -> Iterator[list[tuple[str, str]]]:
    """Every path at which the values differ, with the text of each."""
    if all(value == values[0] for value in values):
        return
    if all(isinstance(value, Mapping) for value in values):
        kinds = [value.get("kind") for value in values]
        if any(kind != kinds[0] for kind in kinds):
            yield [(f"{path}.kind", str(kind)) for kind in kinds]
            return
        for key in dict.fromkeys(key for value in values for key in value):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(inner, [value.get(key) for value in values])
        return
    lists = all(isinstance(value, list) for value in values)
    if lists and len({len(value) for value in values}) == 1 and len({str(_shorten(value)) for value in values}) == 1:
        for place, items in enumerate(zip(*values, strict=True)):
            yield from _differences(f"{path}[{place}]", items)
        return
    yield [(path, _shorten(value)) for value in values]


def _shorten(value: Any) -> str:
    """A value in a few characters: of a component only its kind, of a list of components their kinds."""
    if isinstance(value, Mapping):
        return (
            str(value["kind"])
            if "kind" in value
            else ",".join(f"{key}:{_shorten(field_value)}" for key, field_value in value.items())
        )
    if isinstance(value, list):
        return f"[{','.join(_shorten(item) for item in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _numbers(summary: Summary) -> Iterator[str]:
    """Accuracy, and the headline measures of each kind at both levels, with intervals and n.

    Membership attacks have only AUC. Memorisation has both levels, and so has exposure where it was measured.
    """
    accuracy = summary.value("test_accuracy", "global", "")
    if accuracy:
        yield f"global test accuracy {accuracy.text(3)} (n {accuracy.n})"
    measures = [
        measure for measure in summary.measures if measure.headline and measure.measure.bound not in ("", "tpr")
    ]
    for measure in sorted(measures, key=lambda measure: measure.metric != "memorisation"):
        for kind in summary.kinds:
            local = summary.local_values(measure, kind)
            whole = summary.value(measure.metric, "global", kind, measure.labels)
            texts = [f"{name} {v.text(measure.digits)}" for name, v in (("local", local), ("global", whole)) if v]
            if texts:
                yield f"{measure.title} of {kind}: {', '.join(texts)} (n {count_cell(local, whole)})"
