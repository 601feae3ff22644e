"""Tests of `fedmem/engines/_simulation.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ComponentError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from tests.tiny import tiny

# processes and sockets that Ray leaves to the collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.engines._simulation.find_spec", lambda name: None)
    scenario = tiny(speed={"engine": "flower"})
    with pytest.raises(ComponentError, match=r"Ray, which is not installed.*pip install 'fedmem\[flower\]'"):
        simulate(scenario, build(scenario))
