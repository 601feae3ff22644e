"""Fixtures of several files of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flwr.serverapp import Grid

from fedmem.engines import _transport
from fedmem.engines._client import client_app
from fedmem.engines._flower import in_process
from fedmem.engines._simulation import simulation
from tests.engines.flower_helpers import NODES


@pytest.fixture(scope="module")
def grid() -> Iterator[Grid]:
    """One start of Flower's runtime for all tests here, as within an app."""
    pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")
    with (
        in_process(),
        simulation(client_app, nodes=NODES, workers=2, threads=1, address=None) as (runtime, _),
    ):
        yield runtime


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_transport, "PULL_SECONDS", 0.001)
    monkeypatch.setattr(_transport, "digest", lambda federation: "own")
    with in_process():
        yield
