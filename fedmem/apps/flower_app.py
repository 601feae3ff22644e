"""A scenario as a Flower app: what `flwr run .` starts at the root of the repository.

The keys of its configuration are those of the table `tool.flwr.app.config` in `pyproject.toml`.

- `scenario`: a file, relative to the app unless absolute.
- `set`: changes such as `"runs=2 client.lr=0.1"`.
- `out`: where results go. An absolute path is best, since a SuperLink may have been started anywhere.
- `force`: whether finished runs are repeated.

There must be a node for every client:

    flwr run . --stream --federation-config "num-supernodes=20" --run-config "out='/home/me/runs'"
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmem.contracts.events import Event, ReadingsTaken
from fedmem.engines._client import client_app
from fedmem.engines.flower import use_grid
from fedmem.execution.run import run
from fedmem.scenario.loading import load_scenario

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

__all__ = ["client_app", "server_app"]

LOG = logging.getLogger("flwr.fedmem")
"""Below Flower's own, so that it is streamed as Flower's is."""

server_app = ServerApp()
"""Runs the scenario of the configuration on the grid that it is given, and writes its folder."""


@server_app.main()
def _main(grid: Grid, context: Context) -> None:
    config = context.run_config
    scenario = load_configured(str(config["scenario"]), str(config["set"]))
    flower = logging.getLogger("flwr")
    level = flower.level
    try:
        # strategies tell of every round of every run
        flower.setLevel(logging.ERROR)
        LOG.setLevel(logging.INFO)
        with use_grid(grid):
            folder = run(scenario, out=Path(str(config["out"])), force=bool(config["force"]), listeners=[log])
        LOG.info("results are in %s", folder.resolve())
    finally:
        flower.setLevel(level)


def load_configured(file: str, changes: str) -> Scenario:
    """The scenario of a file that lies within the app, or anywhere if its path is absolute.

    >>> load_configured("scenarios/quickstart.yaml", "runs=8 rounds=7").rounds
    7
    """
    here = Path(__file__).resolve().parents[2]
    return load_scenario(here / file, [*shlex.split(changes), "speed.engine=flower"])


def log(event: Event) -> None:
    """A listener that writes every event but readings as a line, for logs that are streamed."""
    if not isinstance(event, ReadingsTaken):
        LOG.info("%s", event)
