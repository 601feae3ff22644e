"""Changes to a scenario from the command line, and where each of its values came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedmem.errors import ComponentError, Problem
from fedmem.scenario.catalogue import field_names, load, nested_family
from fedmem.scenario.yaml_source import Place, place_parts, place_text, read_value

FAMILY_OF_FIELD: Mapping[str, str] = {
    "dataset": "dataset",
    "partition": "partition",
    "model": "model",
    "injections": "injection",
    "sampler": "sampler",
    "client": "client",
    "defences": "defence",
    "strategy": "strategy",
    "unlearner": "unlearner",
    "probes": "probe",
    "signals": "signal",
    "estimators": "estimator",
}
"""Field of a scenario -> the family of its components."""

OF_PHASES = ("unlearner",)
"""The fields of these that are written in a phase, below `then`."""


class Origin:
    """Where each value came from: a line of the file, or an override.

    >>> origin = Origin("x.yaml", {(): 1, ("client",): 4, ("client", "lr"): 5})
    >>> origin.override(("client", "lr"), "--set client.lr=2")
    >>> origin.locate("client.lr"), origin.locate("client.epochs")
    (('--set client.lr=2', None), ('x.yaml', 4))
    """

    def __init__(self, name: str, lines: Mapping[Place, int]) -> None:
        self._name = name
        self.notes: list[str] = []
        self.changes: list[_KindChange] = []
        self._places: dict[Place, tuple[str, int | None]] = {
            place: (name, line) for place, line in lines.items() if place
        }

    def override(self, place: Place, source: str) -> None:
        """From now on this place, and all inside, came from `source`."""
        for inner in [inner for inner in self._places if inner[: len(place)] == place]:
            del self._places[inner]
        self._places[place] = (source, None)

    def is_overridden(self, place: Place) -> bool:
        """Whether exactly this place was set by an override."""
        return place in self._places and self._places[place][1] is None

    def locate(self, path: str) -> tuple[str, int | None]:
        """Source and line of the innermost place on this path that was written."""
        for place, origin in self._places.items():
            # also finds keys that are no words
            if path and place_text(place) == path:
                return origin
        try:
            place = place_parts(path)
        except ValueError:
            # The empty path, or a key that is no word: the file as a whole.
            place = ()
        for length in range(len(place), 0, -1):
            if place[:length] in self._places:
                return self._places[place[:length]]
        return self._name, None

    def locate_problem(self, problem: Problem) -> Problem:
        """The same problem with source and line, unless it has them."""
        source, line = self.locate(problem.path)
        return problem if problem.source else replace(problem, source=source, line=line)


def override(tree: dict[str, Any], overrides: Sequence[str], origin: Origin) -> list[Problem]:
    """Change the tree by each `path=value` in turn; returns the changes that could not be made.

    Values are typed as in YAML. Changing a `kind` drops fields that the file gave to the old kind and that the new one
    does not know. Fields that an earlier override gave stay, and may be wrong. A change inside a component that the
    file leaves out changes its default.

    >>> tree = {"client": {"kind": "sgd", "lr": 1.0}}
    >>> override(tree, ["client.lr=1e-3", "client.steps=5"], Origin("x.yaml", {}))
    []
    >>> tree
    {'client': {'kind': 'sgd', 'lr': 0.001, 'steps': 5}}
    """
    problems: list[Problem] = []
    for text in overrides:
        try:
            _apply(tree, text, origin)
        except ValueError as error:
            problems.append(Problem(path="", message=str(error), source=f"--set {text}"))
    origin.notes += [
        _note_of_change(tree, change, origin) for change in origin.changes if change.kept or change.dropped
    ]
    origin.changes.clear()
    return problems


@dataclass(frozen=True, kw_only=True)
class _KindChange:
    """A component whose kind was changed: the names of fields that it kept, and the fields that it lost."""

    place: Place
    kind: str
    former: object
    kept: Sequence[str]
    dropped: Sequence[str]


def _note_of_change(tree: Any, change: _KindChange, origin: Origin) -> str:
    """The fate of the fields of the file, after all changes: a field that was changed later is not kept."""
    component = tree
    for part in change.place:
        component = component[part]
    kept = [
        f"{key}={component[key]}"
        for key in change.kept
        if key in component and not origin.is_overridden((*change.place, key))
    ]
    where = place_text((*change.place, "kind"))
    parts = [f"{word} {', '.join(texts)}" for word, texts in (("keeps", kept), ("drops", change.dropped)) if texts]
    return f"{where} is {change.kind} instead of {change.former}" + f", and {' and '.join(parts)} of the file" * bool(
        parts
    )


def _apply(tree: dict[str, Any], text: str, origin: Origin) -> None:
    path, equals, value = text.partition("=")
    if not equals:
        raise ValueError("should be path=value, such as client.lr=0.05")
    place, source = place_parts(path.strip()), f"--set {text}"
    current: Any = tree
    for depth, part in enumerate(place):
        if isinstance(current, dict) and isinstance(part, str):
            if part not in current:
                current[part] = {} if depth or len(place) == 1 else _default_component(part, place[1])
                origin.override(place[: depth + 1], source)
        elif not (isinstance(current, list) and isinstance(part, int) and part < len(current)):
            raise ValueError(_no_such_place(place[:depth], current, part))
        if depth < len(place) - 1:
            current = current[part]
    typed_value = read_value(value)
    if place[-1] == "kind" and isinstance(typed_value, str):
        _forget(tree, current, place[:-1], typed_value, origin)
    current[place[-1]] = typed_value
    origin.override(place, source)


def _default_component(field: str, inner: str | int) -> dict[str, Any]:
    """The component from which a change inside a missing field starts: the default kind of the field.

    >>> _default_component("client", "lr"), _default_component("client", "kind"), _default_component("dataset", "rows")
    ({'kind': 'sgd'}, {}, {})
    """
    from fedmem.scenario.scenario import default_kinds

    kind = default_kinds().get(field)
    return {} if kind is None or inner == "kind" else {"kind": kind}


def _no_such_place(outer: Place, current: object, part: str | int) -> str:
    where = place_text(outer)
    if isinstance(current, list):
        return f"{where} has {len(current)} entries, numbered from 0; there is no {part!r}"
    if isinstance(current, dict):
        return f"{where or 'a scenario'} has keys, not numbered entries; there is no {part!r}"
    return f"{where} is {current!r} and has no {part!r} inside; set {where} itself"


def _forget(tree: Any, component: dict[str, Any], place: Place, kind: str, origin: Origin) -> None:
    """Drop what the file gave to the old kind and the new one does not know."""
    try:
        family = _family_at(tree, place)
        names = None if family is None else field_names(family, kind)
    except ComponentError:
        return  # The kind itself is wrong, which is reported when the component is built.
    if names is None:
        return
    given = [key for key in component if key != "kind" and not origin.is_overridden((*place, key))]
    kept = [key for key in given if key in names]
    dropped = [f"{key}={component.pop(key)}" for key in given if key not in names]
    former = component.get("kind")
    if former != kind:
        origin.changes.append(_KindChange(place=place, kind=kind, former=former, kept=kept, dropped=dropped))


def _family_at(tree: Any, place: Place) -> str | None:
    """The family of the component that stands at a place, if one does."""
    family = FAMILY_OF_FIELD.get(str(place[0])) if place else None
    current = tree[place[0]] if place else tree
    for part in place[1:]:
        if isinstance(part, str) and family is not None:
            family = nested_family(load(family, str(current.get("kind"))), part)
        current = current[part]
    return family
