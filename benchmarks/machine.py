"""What the figures were measured on and with; neither names of hosts nor paths."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("fedmem", "torch", "numpy", "flwr", "ray")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The model of the processor, and its widest vector instructions where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    widest = next((name for name in ("avx512f", "avx2") if name in found.get("flags", "").split()), "")
    return " ".join(filter(None, (found.get("model name", platform.machine()), widest and f"with {widest}")))


def describe() -> str:
    """One line.

    >>> "cores" in describe() and "Python" in describe()
    True
    """
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{cores()} cores, {processor()}; Python {platform.python_version()}; {', '.join(found)}"
