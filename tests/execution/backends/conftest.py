"""Clusters of Ray on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def start_cluster(nodes: int) -> Any:
    """A real cluster: each node has a core and processes of its own; the head trains nothing."""
    import os

    from fedmem.execution.backends.ray import QUIET

    os.environ.update(QUIET)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    return cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes, for tests that end none."""
    started = start_cluster(2)
    yield started
    started.shutdown()


@pytest.fixture(scope="session")
def ray_address(cluster: Any) -> str:
    """What `on` is for this cluster."""
    return f"ray:{cluster.address}"
