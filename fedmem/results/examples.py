"""Readable facts of the audit examples of a run: names, labels, cells and texts, in `examples.json`.

The file is an addition to the tables. A run without it has no names, and its texts stay numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.modalities.modality import Modality, of_kind

if TYPE_CHECKING:
    import pandas as pd

FILE = "examples.json"

HIDDEN, MISSING = "(hidden)", "(missing)"


@dataclass(frozen=True, kw_only=True)
class ExampleNames:
    """The facts that a run stores to show its audit examples.

    Attributes:
        client_names: (N,) the names of the clients; empty where the data have none.
        class_names: (C,) the names of the classes; empty where the data have none.
        modality: The modality of the data, texts with their vocabulary; None where it is not known here.
        true_target: (m,) the label of the row in the data set, -1 where there is none.
        is_altered: (m,) whether the inputs are others than those of the row in the data set.
        cells: (m,) the cells of the row in the source, by column, as text; empty where missing.
        sensitive: The columns of cells that are masked unless somebody asks.
    """

    client_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    modality: Modality | None = None
    true_target: IntArray | None = None
    is_altered: BoolArray | None = None
    cells: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()


def write_names(folder: Path, federation: Federation) -> None:
    """Writes `examples.json`."""
    modality, sources = federation.modality, federation.sources
    stored: dict[str, Any] = {
        "client_names": federation.client_names,
        "class_names": federation.class_names,
        "modality": _modality_to_json(modality),
    }
    if sources is not None:
        stored["true_target"] = sources.target.tolist()
        stored["is_altered"] = sources.is_altered.tolist()
        stored["cells"] = {name: values.tolist() for name, values in sources.cells.items()}
        stored["sensitive"] = sources.sensitive
    (folder / FILE).write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")


def read_names(file: Path) -> ExampleNames:
    """Read `examples.json`; runs of older versions without the file have no names."""
    if not file.exists():
        return ExampleNames()
    stored = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError("it holds no names")
    has_sources = "true_target" in stored
    return ExampleNames(
        client_names=tuple(map(str, stored["client_names"])),
        class_names=tuple(map(str, stored["class_names"])),
        modality=_modality_of_json(stored["modality"]),
        true_target=np.array(stored["true_target"], dtype=np.int64) if has_sources else None,
        is_altered=np.array(stored["is_altered"], dtype=np.bool_) if has_sources else None,
        cells={str(name): tuple(map(str, values)) for name, values in stored.get("cells", {}).items()},
        sensitive=tuple(map(str, stored.get("sensitive", ()))),
    )


def _modality_to_json(modality: Modality) -> dict[str, Any] | None:
    """The kind of a modality and its fields but empty strings; None where JSON has no values for them."""
    values = {item.name: getattr(modality, item.name) for item in fields(modality)}  # type: ignore[arg-type]
    stored = {name: value for name, value in values.items() if value != ""}
    content = {"kind": modality.kind, "fields": stored}
    with suppress(TypeError, ValueError):
        json.dumps(content, allow_nan=False)
        return content
    return None


def _modality_of_json(stored: Mapping[str, Any] | None) -> Modality | None:
    """The modality again; None where it is of another package that is not loaded."""
    with suppress(LookupError, TypeError):
        if stored is not None:
            modality: Modality = of_kind(str(stored["kind"]))(
                **{name: _to_tuple(value) for name, value in stored["fields"].items()}
            )
            return modality
    return None


def _to_tuple(value: Any) -> Any:
    return tuple(map(_to_tuple, value)) if isinstance(value, list) else value


def with_names(frame: pd.DataFrame, names: Sequence[str], column: str = "client") -> pd.DataFrame:
    """The frame with the column `client_name` after its clients: empty for -1, and where there are no names."""
    import pandas as pd

    categories = list(dict.fromkeys(["", *names]))
    place_of = {name: place for place, name in enumerate(categories)}
    places: IntArray = np.array([*(place_of[name] for name in names), 0], dtype=np.int64)
    clients: IntArray = frame[column].to_numpy(dtype=np.int64)
    codes: IntArray = places[np.where((clients < 0) | (clients >= len(names)), len(names), clients)]
    named = pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(categories)), index=frame.index)
    frame.insert(list(frame.columns).index(column) + 1, f"{column}_name", named)
    return frame


def describe_audit(frame: pd.DataFrame, audit: AuditSet, names: ExampleNames) -> pd.DataFrame:
    """The table of audit examples for people, with the `draw` of each where some are in or out together."""
    if audit.coin_group is not None:
        frame = frame.assign(draw=audit.coin_groups)
    return describe(frame, audit.examples, names)


def describe(frame: pd.DataFrame, examples: Examples, names: ExampleNames) -> pd.DataFrame:
    """The frame of audit examples with names, labels of the data set, texts, and inputs in the shape of the data."""
    frame = with_names(frame, names.client_names, "owner")
    frame["owner_name"] = frame["owner_name"].astype(str)
    targets = frame["target"].tolist()
    true = targets if names.true_target is None else names.true_target.tolist()
    place = list(frame.columns).index("target") + 1
    frame.insert(place, "target_name", [class_name(label, names) for label in targets])
    frame.insert(place + 1, "true_target", true if names.true_target is not None else -1)
    frame.insert(place + 2, "true_target_name", [class_name(label, names) for label in frame["true_target"].tolist()])
    frame["text"] = [text_of(row, examples, names) for row in range(len(frame))]
    frame["inputs"] = list(examples.inputs)
    return frame


def with_class_names(frame: pd.DataFrame, names: ExampleNames) -> pd.DataFrame:
    """The frame of measurements with a column `<label>_name` after each label that numbers classes, as `target_name`.

    Which labels do is declared by the estimators and probes of the catalogue. Without class names nothing is added.
    """
    for label in class_labels(frame["source"].unique()) if names.class_names else ():
        if label in frame:
            numbers = frame[label].fillna(-1).astype(int).tolist()
            place = list(frame.columns).index(label) + 1
            frame.insert(place, f"{label}_name", [class_name(number, names) for number in numbers])
    return frame


def class_labels(sources: Iterable[str]) -> tuple[str, ...]:
    """The labels of rows of these estimators and probes that number classes.

    >>> class_labels(["client_influence", "memorisation", "my_package:Mine"])
    ('target',)
    """
    from fedmem.contracts.needs import declared_by
    from fedmem.scenario.catalogue import kinds, load

    classes = [
        load(family, source)
        for source in sources
        for family in ("estimator", "signal", "probe")
        if source in kinds(family)
    ]
    return tuple(
        dict.fromkeys(label.name for cls in classes for label in declared_by(cls).labels.values() if label.is_class)
    )


def class_name(label: int, names: ExampleNames) -> str:
    """The name of a class, empty where it has none."""
    return names.class_names[label] if 0 <= label < len(names.class_names) else ""


def text_of(row: int, examples: Examples, names: ExampleNames, *, show_sensitive: bool = False) -> str:
    """One audit example in writing: the cells of the source, where it is an unaltered row of it, or its own inputs.

    Sensitive cells are `(hidden)` unless `show_sensitive`. Missing cells are `(missing)`.
    """
    if names.cells and names.is_altered is not None and not names.is_altered[row]:
        hidden = () if show_sensitive else names.sensitive
        cells = {name: HIDDEN if name in hidden else values[row] or MISSING for name, values in names.cells.items()}
        return ", ".join(f"{name}={cell}" for name, cell in cells.items())
    if names.modality is None:
        return ""
    target: NDArray[Any] = np.asarray(examples.targets[row])
    return names.modality.text(examples.inputs[row], target)
