"""Components of installed packages, which register them by name.

A package adds kinds by entry points of the group `fedmem.components`. The name of an entry point is `family.kind`, and
its value is `package.module:Class`. The name is a short way to write the value: `kind: NAME` in a scenario is the same
as one with `kind: package.module:Class`, and has the same id. Nothing is imported before a kind is used or shown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points

from fedmem.contracts.families import FAMILIES
from fedmem.errors import ComponentError
from fedmem.wording import choices

GROUP = "fedmem.components"
"""The group of entry points."""


@dataclass(frozen=True, kw_only=True)
class InstalledPart:
    """One entry point.

    Attributes:
        family: What stands before the first full stop of its name.
        kind: The rest of its name.
        target: Its value, `package.module:Class`.
        package: The name of the distribution that registers it.
        version: The version of this distribution.
    """

    family: str
    kind: str
    target: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.target} of the installed package {self.package} {self.version}"


def installed_parts() -> tuple[InstalledPart, ...]:
    """All entry points of the packages that are on the path now, sorted by name and package.

    >>> all(isinstance(part, InstalledPart) for part in installed_parts())
    True
    """
    return _read(tuple(sys.path))


@lru_cache(maxsize=16)
def _read(_: tuple[str, ...]) -> tuple[InstalledPart, ...]:
    parts = []
    for point in entry_points(group=GROUP):
        family, _dot, kind = point.name.partition(".")
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        parts.append(InstalledPart(family=family, kind=kind, target=point.value, package=package, version=version))
    return tuple(sorted(parts, key=lambda part: (part.family, part.kind, part.package)))


def installed_kinds(family: str, shipped_kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds that installed packages add to a family, sorted; without those that something else is called, too."""
    counts = Counter(part.kind for part in installed_parts() if part.family == family)
    return tuple(kind for kind, count in counts.items() if count == 1 and _is_name(kind) and kind not in shipped_kinds)


def find_installed(family: str, kind: str, shipped: str | None) -> InstalledPart | None:
    """The part of this name; None if no package registers it.

    Args:
        family: family of the component.
        kind: the name in the scenario.
        shipped: file of the shipped kind of this name, if there is one.

    Raises:
        ComponentError: two things have the name. The message names both.
    """
    parts = [part for part in installed_parts() if (part.family, part.kind) == (family, kind)]
    names = [*([f"{shipped} of fedmem"] if shipped else []), *map(str, parts)]
    if parts and len(names) > 1:
        raise ComponentError(
            "kind",
            f"{kind!r} names {len(names)} kinds of {family}: {' and '.join(names)}; write the one that you mean as "
            f"package.module:Class, or uninstall {parts[-1].package}",
        )
    return parts[0] if parts else None


def unusable_names() -> tuple[str, ...]:
    """The problems with names of entry points, one message each.

    >>> unusable_names()
    ()
    """
    return tuple(
        f"{part} registers {'.'.join(filter(None, (part.family, part.kind)))!r}, which is no family.kind"
        + ("" if part.family in FAMILIES else choices(part.family, FAMILIES))
        for part in installed_parts()
        if part.family not in FAMILIES or not _is_name(part.kind)
    )


def _is_name(kind: str) -> bool:
    return kind.isidentifier() and not kind.startswith("_")
