"""From a scenario to a finished folder: build, train, observe, estimate, write."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import ScenarioError
from fedmem.types import Bank, Measurement

if TYPE_CHECKING:
    from fedmem.bank import Progress, Simulated
    from fedmem.scenario import Scenario

PACKAGES = ("fedmem", "flwr", "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pydantic", "greenlet")
"""What the numbers depend on; the manifest holds the version of each."""


def run(scenario: Scenario, *, out: Path | str = "runs", force: bool = False, progress: Progress | None = None) -> Path:
    """Run a scenario and return its folder, `<out>/<name>/<id>`.

    Guarantees:

    - a folder that exists is a finished run, and is returned as it is unless `force`;
    - nothing is written before everything has been measured; an interrupted run leaves nothing that looks finished;
    - the same scenario on the same machine with the same executor and thread count gives the same measurements.

    Errors: `ScenarioError` where the data cannot hold what is asked for, `RunError` where a client, the strategy or a
    measurement fails.
    """
    from fedmem import federation as federations
    from fedmem.bank import simulate
    from fedmem.results import write_run
    from fedmem.training import stack

    folder = Path(out) / scenario.name / scenario.id
    if folder.exists() and not force:
        return folder
    problems = federations.check(scenario)
    if problems:
        raise ScenarioError([scenario.place(problem) for problem in problems])
    started = time.perf_counter()
    federation = federations.build(scenario)
    simulated = simulate(scenario, federation, progress=progress)
    if progress is not None:
        progress.stage("estimating")
    trained = time.perf_counter()
    measurements = [*simulated.measurements, *_estimates(scenario, simulated.bank)]
    estimated = time.perf_counter()
    if progress is not None:
        progress.stage("writing")
    write_run(
        folder,
        scenario_yaml=scenario.to_yaml(),
        manifest=_manifest(scenario, simulated, estimated - trained, estimated - started),
        measurements=measurements,
        bank=simulated.bank,
        federation=federation,
        reconstructions=simulated.reconstructions,
        params=stack(simulated.params) if scenario.save.params else None,
        force=force,
    )
    return folder


def measure(path: Path | str) -> Path:
    """Recompute every estimate of a finished run from its stored evidence; nothing is trained.

    Readings of probes are kept as they are: they were taken on models that are gone. Equal to the last bit to what
    `run` wrote, as long as fedmem has not changed.
    """
    from fedmem.results import read, read_bank, replace_measurements
    from fedmem.scenario import load_scenario

    folder = Path(path)
    scenario = load_scenario(folder / "scenario.yaml")
    sources = {_kind(probe) for probe in scenario.probes}
    kept = [measurement for measurement in read(folder).rows() if measurement.source in sources]
    replace_measurements(folder, [*kept, *_estimates(scenario, read_bank(folder))])
    return folder


def _estimates(scenario: Scenario, bank: Bank) -> Sequence[Measurement]:
    from fedmem.estimation import estimate

    return estimate(bank, scenario.estimators, scenario.bootstrap)


def _kind(component: object) -> str:
    from fedmem.catalogue import kind_of

    return kind_of(component)


def _manifest(scenario: Scenario, simulated: Simulated, estimating: float, total: float) -> dict[str, Any]:
    """All that the bytes of the results depend on, and what the run cost."""
    return {
        "name": scenario.name,
        "id": scenario.id,
        "seed": scenario.seed,
        "engine": scenario.speed.engine,
        "executor": simulated.executor,
        "server": simulated.server,
        "threads": scenario.speed.threads,
        "device": scenario.speed.device,
        "runs": scenario.runs,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "commit": _commit(),
        "seconds": {**simulated.seconds, "estimating": estimating, "total": total},
        "privacy": None,
        "alarms": _alarms(simulated),
    }


def _alarms(simulated: Simulated) -> list[str]:
    """What a reader of the numbers has to know first: diverged models, and clients that failed and were tolerated."""
    import numpy as np

    alarms = []
    for evidence in simulated.bank.evidence:
        lost = int(np.isnan(evidence.margin).any(axis=1).sum())
        if evidence.set == "audit" and lost:
            alarms.append(
                f"round {evidence.round}, level {evidence.level}: {lost} of {len(evidence.run)} models have "
                "diverged (their outputs are not numbers); lower client.lr"
            )
    failed = [part for part in simulated.bank.participation if part.failed]
    if failed:
        alarms.append(f"{len(failed)} of {len(simulated.bank.participation)} client rounds failed and were left out")
    return alarms


def _commit() -> str | None:
    """The commit of the checkout that fedmem runs from, None for an installed package."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
