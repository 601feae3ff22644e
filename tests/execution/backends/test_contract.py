"""Tests of `fedmem/execution/backends/contract.py`: all backends do jobs in the same way."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fedmem.errors import RunError
from fedmem.execution.backends import backend_of
from fedmem.execution.backends.contract import MAX_ATTEMPTS
from fedmem.execution.devices import card_of
from fedmem.processes import ProcessDied
from tests.execution.backends.backend_helpers import Doubling, collecting

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["processes", "ray"])
def test_jobs_errors_and_deaths(name: str, tmp_path: Path, ray_address: str) -> None:
    """Results and reports arrive; errors are not repeated; a job is repeated whose process died, but not for ever."""
    backend = backend_of(ray_address if name == "ray" else name)
    assert backend is not None
    seen, receive = collecting()
    with ExitStack() as stack:
        stack.enter_context(backend.connect())
        assert backend.num_workers(1, gpu=False) >= 2
        assert backend.card() == card_of("cuda")
        pool = stack.enter_context(backend.pool(Doubling(str(tmp_path)), receive, workers=2, threads=1, gpu=False))
        for job in (1, 2, 3, 101):
            pool.start(f"job {job}", job)
        assert dict(pool.wait_for_one() for _ in range(4)) == {f"job {job}": 2 * job for job in (1, 2, 3, 101)}
        assert seen.count(("job 101", "begun 101")) == 2
        assert len(list(tmp_path.glob("setup-*"))) in (2, 3, 4), "each worker is set up once"
        pool.start("job 13", 13)
        with pytest.raises(RunError, match="13 is not doubled") as caught:
            pool.wait_for_one()
        assert "double" in "".join(caught.value.__notes__), "the trace of the other process"
        assert seen.count(("job 13", "begun 13")) == 1
        pool.start("job 1001", 1001)
        with pytest.raises(ProcessDied, match=f"job 1001 was tried {MAX_ATTEMPTS} times") as death:
            pool.wait_for_one()
        assert death.value.name == "job 1001"
