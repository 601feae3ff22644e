"""A kind that stands in the place of another family: which family it is of, and where it belongs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields

from fedmem.contracts.families import FAMILIES, OTHER_NAMES
from fedmem.errors import Problem
from fedmem.wording import nearest


def mapping_text(family: str, protocols: Sequence[type], value: object) -> str:
    """The fix for a value that should be a mapping of a kind: the probable kind among those that fit.

    >>> from fedmem.contracts.attack import MembershipAttack
    >>> mapping_text("attack", (MembershipAttack,), "LiRA")
    "should be a mapping such as {kind: lira}, got 'LiRA'"
    """
    from fedmem.scenario.catalogue import kinds_that_satisfy

    fitting = kinds_that_satisfy(family, protocols)
    example = suggested_kind(family, str(value), fitting) or (headline(family, fitting) if fitting else "...")
    if isinstance(value, str) and ":" in value:
        example = f'"{value}"'
    return f"should be a mapping such as {{kind: {example}}}, got {value!r}"


def headline(family: str, kind_names: Sequence[str]) -> str:
    """The kind that an example shows: the headline among attacks, the first of another family.

    >>> headline("attack", ["attack_p", "lira"])
    'lira'
    """
    from fedmem.contracts.attack import AttackDeclaration
    from fedmem.contracts.declarations import class_value
    from fedmem.scenario.catalogue import load

    return min(kind_names, key=lambda kind: int(class_value(load(family, kind), AttackDeclaration, "precedence")))


def suggested_kind(family: str, kind: str, options: Sequence[str]) -> str | None:
    """The kind of these that was probably meant: another common name of it, or one that is written alike.

    >>> suggested_kind("sampler", "Random", ["poisson", "uniform"]), suggested_kind("model", "MLP", ["lenet", "mlp"])
    ('uniform', 'mlp')
    """
    other = OTHER_NAMES.get((family, kind.casefold()))
    return other if other in options else nearest(kind, options)


def unknown_kind_text(family: str, kind: str, options: Sequence[str]) -> str:
    """Why a kind is unknown, and what to write; the class of a file of one's own stands behind a colon."""
    if other := other_family_text(family, kind):
        return f"unknown kind {kind!r}{other}"
    module, dot, name = kind.rpartition(".")
    if dot and all(part.isidentifier() for part in (*module.split("."), name)):
        return f"unknown kind {kind!r}; write your own class behind a colon, as {module}:{name}"
    meant = suggested_kind(family, kind, options)
    text = f" (did you mean {meant!r}?)" if meant is not None else ""
    return f"unknown kind {kind!r}{text}; choose from: {', '.join(options)}, or package.module:Class"


def contract_text(protocol: type) -> str:
    """The name of a contract in words.

    >>> from fedmem.contracts.attack import MembershipAttack
    >>> contract_text(MembershipAttack)
    'membership attack'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", protocol.__name__).lower()


def with_field_hint(problem: Problem, texts: Mapping[str, str]) -> str:
    """The message, for an unknown field that is written like none with the one whose explanation begins with its word.

    >>> problem = Problem(path="file", message="unknown key; choose from: path, rows")
    >>> with_field_hint(problem, {"path": "the file, from the folder in which fedmem is started.", "rows": "rows."})
    "unknown key (did you mean 'path'?); choose from: path, rows"
    """
    start = "unknown key"
    if not problem.message.startswith(f"{start};"):
        return problem.message
    first_words = {name: re.findall(r"[a-z]+", text.lower())[:3] for name, text in texts.items()}
    meant = next((name for name, words in first_words.items() if problem.path.lower() in words), None)
    hint = f" (did you mean {meant!r}?)" if meant is not None else ""
    return f"{start}{hint}{problem.message.removeprefix(start)}"


def other_family_text(family: str, kind: str) -> str:
    """The end of a message about a kind that this family has not; empty if no other family has it either.

    >>> other_family_text("estimator", "lira").partition(" or ")[0]
    '; lira is a kind of attack: write it as {kind: membership, attack: {kind: lira}}'
    >>> other_family_text("sampler", "krum")
    '; krum is a kind of strategy: write it under strategy'
    """
    from fedmem.scenario.catalogue import kinds

    others = [other for other in FAMILIES if other != family and kind in kinds(other)]
    if not others or kind in kinds(family):
        return ""
    places = [place for other in others for place in _places(family, other, kind)]
    use = " or ".join(places) if places else f"under {' or '.join(others)}"
    return f"; {kind} is a kind of {' and of '.join(others)}: write it {'as ' if places else ''}{use}"


def _places(family: str, other: str, kind: str) -> list[str]:
    """The components of a family that take such a component as a field, those that need one first."""
    from fedmem.scenario.catalogue import contracts, hints, kinds, load, nested_family, satisfies

    cls = load(other, kind)
    needed: list[str] = []
    optional: list[str] = []
    for outer in kinds(family):
        outer_class = load(family, outer)
        for item in fields(outer_class):
            if nested_family(outer_class, item.name) != other:
                continue
            if any(satisfies(cls, contract) for contract in contracts(hints(outer_class)[item.name])):
                is_needed = item.default is MISSING and item.default_factory is MISSING
                (needed if is_needed else optional).append(f"{{kind: {outer}, {item.name}: {{kind: {kind}}}}}")
    return needed + optional
