"""The targets of exports: a file of `fedmem/exports/` is a target of its name."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from fedmem import exports
from fedmem.contracts.export import Target, TrackingTarget
from fedmem.errors import ComponentError
from fedmem.exports import target_names
from fedmem.wording import choices


@cache
def target_of(name: str) -> Target:
    """The target of this name. Errors: `ComponentError` with the choices for another name."""
    if name not in target_names():
        raise ComponentError("--to", f"there is no target {name!r}{choices(name, target_names())}")
    module = import_module(f"{exports.__name__}.{name}")
    (cls,) = (
        item
        for item in vars(module).values()
        if inspect.isclass(item) and item.__module__ == module.__name__ and not item.__name__.startswith("_")
    )
    return cast(Target, cls())


def tracking_names() -> list[str]:
    """The names of the targets that can show a run while it trains.

    >>> tracking_names()
    ['mlflow', 'tensorboard']
    """
    return [name for name in target_names() if isinstance(target_of(name), TrackingTarget)]


def require_package(name: str, option: str = "--to") -> Target:
    """The target of this name, whose package is installed.

    Errors: `ComponentError` that names the extra and the package to install.
    """
    target = target_of(name)
    if target.package and find_spec(target.package.partition(".")[0]) is None:
        raise ComponentError(
            option,
            f"{name} needs the package {target.package}, which is not installed; install the extra {target.extra}: "
            f"pip install {install_name(target)}, or in a checkout pip install '.[{target.extra}]'",
        )
    return target


def install_name(target: Target) -> str:
    """The argument of pip for a target: the requirement of its extra, or its package if fedmem is not installed."""
    from fedmem.apps.installation import extra_requirements

    return " ".join(f"'{text}'" for text in extra_requirements(target.extra)) or target.package
