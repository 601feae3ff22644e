"""Measure what federated models memorise, where and when.

Names are imported when they are first used, so that `import fedmem` costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmem.apps.assignment import assign_canaries as assign_canaries
    from fedmem.apps.attack import Known as Known
    from fedmem.apps.attack import attack as attack
    from fedmem.apps.combination import combine_runs as combine_runs
    from fedmem.apps.watch import Watch as Watch
    from fedmem.apps.watch_leakage import WatchLeakage as WatchLeakage
    from fedmem.execution.measuring import measure as measure
    from fedmem.execution.run import run as run
    from fedmem.federation.fetch import fetch as fetch
    from fedmem.observation.observed import Observed as Observed
    from fedmem.results.read import read as read
    from fedmem.results.transfer import pull as pull
    from fedmem.results.transfer import push as push
    from fedmem.scenario.loading import load_scenario as load_scenario
    from fedmem.sharing.export import export as export
    from fedmem.sharing.track import track as track
    from fedmem.studies.compare import compare as compare
    from fedmem.studies.reading import read_comparison as read_comparison
    from fedmem.studies.sweep import sweep as sweep

    __version__: str

if not os.path.isdir(os.path.join(__path__[0], "strategies")):
    # A Flower bundle, and a checkout without symbolic links, hold the folder `strategies` beside this package.
    __path__.append(os.path.dirname(__path__[0]))

_HOME = {
    "load_scenario": "fedmem.scenario.loading",
    "compare": "fedmem.studies.compare",
    "run": "fedmem.execution.run",
    "sweep": "fedmem.studies.sweep",
    "plan": "fedmem.execution.plan",
    "measure": "fedmem.execution.measuring",
    "pull": "fedmem.results.transfer",
    "push": "fedmem.results.transfer",
    "read": "fedmem.results.read",
    "read_comparison": "fedmem.studies.reading",
    "export": "fedmem.sharing.export",
    "fetch": "fedmem.federation.fetch",
    "Observed": "fedmem.observation.observed",
    "Watch": "fedmem.apps.watch",
    "WatchLeakage": "fedmem.apps.watch_leakage",
    "assign_canaries": "fedmem.apps.assignment",
    "attack": "fedmem.apps.attack",
    "track": "fedmem.sharing.track",
    "combine_runs": "fedmem.apps.combination",
    "Known": "fedmem.apps.attack",
}

__all__ = [
    "Known",
    "Observed",
    "Watch",
    "WatchLeakage",
    "__version__",
    "assign_canaries",
    "attack",
    "combine_runs",
    "compare",
    "export",
    "fetch",
    "load_scenario",
    "measure",
    "plan",
    "pull",
    "push",
    "read",
    "read_comparison",
    "run",
    "sweep",
    "track",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("fedmem")
    if name not in _HOME:
        raise AttributeError(f"module 'fedmem' has no attribute {name!r}")
    globals()[name] = getattr(import_module(_HOME[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
