"""Change the process for training, in one context that undoes all changes.

| state | while a bank is trained | afterwards |
|---|---|---|
| C library of Linux (`mallopt`) | freed memory stays in the process | defaults of glibc or of `MALLOC_…_` variables |
| threads of torch | `speed.threads` | as before |
| TF32 in products and convolutions | forbidden but in local steps of `speed.precision: tf32` | as before |
| generators of `random` and `numpy.random` | seeded before each call of a strategy of Flower's | as before |
| Flower: `ArrayRecord`, `Array` in modules of strategies, `TaskIdentity` | messages stay in the process | as before |
| Flower: logger, telemetry | only errors are logged, nothing is reported | as before |
| garbage collector | what exists is frozen, thresholds are high | thresholds as before, nothing frozen |

`mallopt` has no getter: glibc keeps its own adjustment of the thresholds switched off once they have been set.

All other state has a context of its own, which ends before this one. It is that of handlers of signals
(`fedmem.interrupts`, `fedmem.guards.time_limit`), and of the environment, SIGTERM and Ray for `engine: flower`
(`fedmem.engines._simulation`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from fedmem.engines._flower import in_process
from fedmem.processes import hold_on_to_memory
from fedmem.training.precision import full_precision

_undo = ExitStack()
_active: list[tuple[object, int]] = []
"""A token and the number of threads of each block under way, the latest last."""


@contextmanager
def process_state(threads: int, *, flower: bool = True) -> Iterator[None]:
    """Set the state of the process for training, and undo it when the last such block ends, however it ends.

    Blocks may be nested, and may overlap: banks that are trained together end in any order.

    Args:
        threads: threads of torch in this block.
        flower: whether messages of Flower stay in this process; False where a server of Flower's own runs.

    >>> before = torch.get_num_threads()
    >>> with process_state(threads=1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    if not _active:
        _undo.enter_context(_changes(flower))
    block = (object(), threads)
    _active.append(block)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        _active.remove(block)
        if _active:
            torch.set_num_threads(_active[-1][1])
        else:
            _undo.close()


@contextmanager
def _changes(flower: bool) -> Iterator[None]:
    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()  # noqa: NPY002
    with ExitStack() as stack:
        stack.enter_context(hold_on_to_memory())
        stack.enter_context(full_precision())
        if flower:
            stack.enter_context(in_process())
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
