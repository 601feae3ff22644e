"""Where the work of many runs is done: in forks, in other processes of this machine, or on the nodes of a cluster.

A backend gives a pool of workers (`fedmem.processes.WorkerPool`). Which one does the work changes no number.
"""

from __future__ import annotations

from fedmem.execution.backends.choice import backend_of, backend_without_forks
from fedmem.execution.backends.contract import Backend, Setup

__all__ = ["Backend", "Setup", "backend_of", "backend_without_forks"]
