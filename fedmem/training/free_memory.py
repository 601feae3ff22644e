"""How much memory there is where training happens."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files in which Linux keeps the limit of a container."""


def memory_bytes(device: str = "cpu") -> float:
    """Bytes of memory of this machine, or of its container, or of the GPU; infinite where they are not known.

    >>> memory_bytes() > 0
    True
    """
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            return float(torch.cuda.mem_get_info()[1])
        if device == "cuda":
            return math.inf
    size = math.inf
    with suppress(AttributeError, OSError, ValueError):
        size = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in LIMITS:
        with suppress(OSError, ValueError):
            size = min(size, float(Path(file).read_text(encoding="ascii")))
    return size


def give_back_memory() -> None:
    """Free what only cycles hold, and give it back to the system where the C library keeps it (glibc).

    A process that runs many scenarios one after the other would otherwise grow by some megabytes with each.
    """
    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
