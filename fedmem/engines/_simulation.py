"""Flower's simulation runtime on Ray: started, probed and ended."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedmem.engines._flower import RUN, TASK, Run
from fedmem.errors import ComponentError, RunError
from fedmem.federation.roster import FIRST_NODE as FIRST_NODE
from fedmem.guards.flower_range import private_parts_of_flower, require_attributes

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
"""Flower and Ray report to nobody. Ray prints nothing to our output, and gives up a silent address within seconds.

Workers have the priority of this process: by default a busy machine lets a new one wait for longer than a client may.
"""

PROBE_SECONDS = 5.0
"""How long the address of a cluster may take to accept a connection."""


def require_ray() -> None:
    """Errors: `ComponentError` where Flower's runtime cannot start because Ray is not installed."""
    if find_spec("ray") is None:
        raise ComponentError(
            "speed.engine",
            "flower runs on Ray, which is not installed; install it with: pip install 'fedmem[flower]' "
            "(the same as pip install 'flwr[simulation]'), or use engine: lockstep",
        )


@contextmanager
def simulation(
    client_app: ClientApp, *, nodes: int, workers: int, threads: int, address: str | None
) -> Iterator[tuple[Grid, Callable[[], None]]]:
    """Flower's simulation runtime on Ray: a grid with `nodes` nodes, and a check that raises once the runtime is gone.

    The parts of `flwr.simulation.run_simulation` are put together so that the server stays in this thread. An error or
    Ctrl-C there then ends everything at once, instead of waiting for a thread that waits for replies. A worker process
    that dies is started again, and its work is tried once more. Flower alone would hand all further messages to the
    dead process. With an `address`, the cores of that cluster decide how many workers there are.
    """
    with private_parts_of_flower():
        from flwr.proto.task_pb2 import Task
        from flwr.server.superlink.fleet.vce import vce_api
        from flwr.server.superlink.fleet.vce.metrics import VceMetrics
        from flwr.server.superlink.linkstate import LinkStateFactory
        from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
        from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
        from flwr.supercore.object_store import ObjectStoreFactory
        from flwr.superlink.federation import NoOpFederationManager
        from flwr.superlink.grid import InMemoryGrid

        require_attributes(vce_api, "_register_nodes", "_register_node_info_stores", "run_api")

    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    run = Run.create_empty(run_id=RUN)
    run.primary_task_id, run.federation_id = TASK, NOOP_FEDERATION_ID
    state: Any = factory.state()
    state.run_ids[RUN], state.task_store[TASK] = RunRecord(run=run), Task(task_id=TASK, run_id=RUN)
    grid = InMemoryGrid(factory)
    grid.set_run(run)
    mapping = vce_api._register_nodes(nodes, factory)
    stores = vce_api._register_node_info_stores(mapping, run)
    stop, ended = threading.Event(), []

    with _settings(QUIET), _ray(workers, threads, address) as backend:

        def serve() -> None:
            try:
                vce_api.run_api(lambda: client_app, lambda: backend, mapping, factory, stores, stop, VceMetrics())
            except Exception as error:
                ended.append(error)

        def check() -> None:
            if not thread.is_alive():
                cause = ended[0].__cause__ or ended[0] if ended else "it was shut down"
                raise RunError(f"Flower's simulation runtime ended by itself: {cause}")

        thread = threading.Thread(target=serve, name="flower-runtime", daemon=True)
        thread.start()
        try:
            yield grid, check
        finally:
            stop.set()
            while thread.is_alive():
                _kill_busy(backend)
                thread.join(timeout=0.2)


@contextmanager
def _ray(workers: int, threads: int, address: str | None) -> Iterator[Any]:
    """Flower's backend, connected to Ray; errors are raised here and not in a thread of Flower's."""
    if address is not None:
        _probe(address)
    import ray

    with private_parts_of_flower():
        from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    if ray.is_initialized():
        raise RunError(
            "Ray is running in this process already, and Flower would end it with the run. Call ray.shutdown() "
            "before, and name a cluster that is to be used by speed.address."
        )
    init: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    init |= {"address": "local", "num_cpus": workers * threads} if address is None else {"address": address}
    if address is not None:
        del init["include_dashboard"]
    # Flower passes numbers on to the options of its actors
    resources: dict[str, Any] = {"num_cpus": threads, "num_gpus": 0.0, "max_restarts": -1, "max_task_retries": 1}
    try:
        backend: Any = RayBackend({"init_args": init, "client_resources": resources})
    except (Exception, SystemExit) as error:
        ray.shutdown()
        if address is None:
            raise RunError(f"Ray did not start: {error}") from error
        raise RunError(f"speed.address {address}: no Ray cluster can be used there: {error}") from error
    # Flower's thread would shut Ray down beneath its own workers, which then complain
    backend.terminate = lambda: None
    try:
        yield backend
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Errors: `RunError` where nobody listens; Ray itself would go on asking for minutes."""
    place = address.removeprefix("ray://")
    if place == "auto":
        return
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise RunError(
            f"speed.address {address}: no Ray cluster answers there ({error}). Give the address of its head as "
            "HOST:PORT, or auto for one on this machine. Left out, one is started here."
        ) from error


def _kill_busy(backend: Any) -> None:
    """End the workers that are still at work: their results are no longer wanted, and they may take long."""
    import ray

    if backend.pool is not None and ray.is_initialized():
        for actor in list(backend.pool._future_to_actor.values()):
            ray.kill(actor)


@contextmanager
def _settings(defaults: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment where they are not set yet; the environment and SIGTERM are put back afterwards."""
    before = dict(os.environ)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    level = logging.getLogger("flwr").level
    os.environ.update({name: value for name, value in defaults.items() if name not in before})
    # every client that fails would be logged with its traceback; we tell it ourselves
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.getLogger("flwr").setLevel(level)
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        for name in [name for name in os.environ if os.environ[name] != before.get(name)]:
            del os.environ[name]
        os.environ.update(before)
