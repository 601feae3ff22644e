"""The families of components, and how a component names itself."""

from __future__ import annotations

from collections.abc import Mapping

FAMILIES: Mapping[str, str] = {
    "dataset": "fedmem.datasets",
    "partition": "fedmem.partitions",
    "model": "fedmem.models",
    "injection": "fedmem.injections",
    "sampler": "fedmem.samplers",
    "client": "fedmem.clients",
    "defence": "fedmem.defences",
    "strategy": "strategies",
    "probe": "fedmem.probes",
    "attack": "fedmem.attacks",
    "estimator": "fedmem.estimators",
}
"""Family -> the package whose files are its kinds."""
