"""The versions of Flower that fedmem works with, and the message where another one is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from fedmem.errors import FedmemError

FLOWER = ">=1.38,<1.43"
"""The tested versions: those of the dependency `flwr` in `pyproject.toml`, which a test compares."""


@contextmanager
def private_parts_of_flower() -> Iterator[None]:
    """Around imports of parts that Flower may change at any time.

    fedmem runs all clients in one process, so it has to make messages and replies itself. The public interface of
    Flower has no means for that.

    Raises:
        FedmemError: a part is missing. The message names it, the installed version and the versions that work.

    >>> with private_parts_of_flower():
    ...     from flwr.app import no_such_part
    Traceback (most recent call last):
    fedmem.errors.FedmemError: fedmem works with Flower (flwr) >=1.38,<1.43, but ... is installed, ...
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        name = error.name or ""
        if isinstance(error, ImportError) and name.partition(".")[0] != "flwr":
            raise
        raise FedmemError(
            f"fedmem works with Flower (flwr) {FLOWER}, but {_installed_version()} is installed, which differs inside "
            f"({error}); run: pip install 'flwr{FLOWER}'"
        ) from error


def require_attributes(owner: object, *names: str) -> None:
    """Raise `AttributeError` for the first of these attributes that an object does not have.

    >>> require_attributes("text", "upper", "louder")
    Traceback (most recent call last):
    AttributeError: 'str' object has no attribute 'louder'
    """
    for name in names:
        getattr(owner, name)


def _installed_version() -> str:
    try:
        return version("flwr")
    except PackageNotFoundError:
        return "another version"
