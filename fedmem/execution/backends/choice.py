"""The backend that a text such as `ray:10.0.0.7:6379` names."""

from __future__ import annotations

import os

from fedmem.errors import ComponentError
from fedmem.execution.backends.contract import Backend
from fedmem.processes import can_fork, can_start
from fedmem.wording import choices

VARIABLE = "FEDMEM_ON"
"""The variable of the environment that says where runs are trained where nothing else does."""

NAMES = ("forks", "processes", "ray")
"""Names of backends; `ray` may have an address."""


def backend_of(text: str | None) -> Backend | None:
    """The backend of this name; None for `forks`, which need no backend, since they share all with this process.

    Without a name it is that of the variable `FEDMEM_ON`, or `forks`. See `backend_without_forks` for systems without.

    `ray` is a cluster that this machine belongs to, or else one that is started on this machine and ended afterwards.
    `ray:ADDRESS` is a cluster with its head at this address, such as `10.0.0.7:6379`.

    Errors: `ComponentError` for another text, or where a library is missing.

    >>> backend_of("forks") is None, backend_of("ray:10.0.0.7:6379").name
    (True, 'ray:10.0.0.7:6379')
    """
    text = os.environ.get(VARIABLE, "") or "forks" if text is None else text
    kind, colon, address = text.partition(":")
    if kind not in NAMES or (colon and (kind != "ray" or not address)):
        raise ComponentError(
            "on", f"{text!r} is no place to train; use forks, processes, ray or ray:ADDRESS{choices(kind, NAMES)}"
        )
    if kind == "forks":
        return None
    if kind == "processes":
        from fedmem.execution.backends.processes import Processes

        return Processes()
    from fedmem.execution.backends.ray import Ray

    return Ray(address=address or None)


def backend_without_forks(workers: int) -> Backend | None:
    """The backend for so many workers where nobody has named one, and the system cannot fork: `processes`.

    None where workers are forked, where one is enough, and where this process must not have others.
    """
    if workers <= 1 or can_fork() or not can_start():
        return None
    from fedmem.execution.backends.processes import Processes

    return Processes()
