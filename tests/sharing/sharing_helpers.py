"""What tests of exports, tracking, transfer and the index share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import fedmem
from fedmem.reporting.rendering import content_policy
from fedmem.reporting.summarise import write_summary
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.comparison import Comparison
from fedmem.studies.stored import StoredStudy, write_study
from fedmem.studies.tables import TABLES, put, results
from tests.tiny import tiny

PAGE = f'<!doctype html><meta http-equiv="Content-Security-Policy" content="{content_policy()}"><title>page</title>'


def scenario(**changes: Any) -> Scenario:
    """A tiny scenario with a probe and an estimator."""
    parts = {
        "probes": [{"kind": "utility"}],
        "estimators": [{"kind": "memorisation"}],
        "rounds": 2,
        "bootstrap": 20,
        "sampler": {"kind": "everyone"},
    }
    return tiny(**{**parts, **changes})


@cache
def finished_run() -> Path:
    """The folder of a finished run with a page, made once a process; tests do not write to it."""
    folder = fedmem.run(scenario(runs=8), out=mkdtemp())
    write_summary(folder)
    (folder / "report.html").write_text(PAGE, encoding="utf-8")
    return folder


def study(*, is_sweep: bool) -> Path:
    """The folder of a comparison or sweep of two strategies over two seeds, each the same run."""
    folder = Path(mkdtemp()) / "tiny" / ("sweep-rates" if is_sweep else "compare-0123456789ab")
    folder.mkdir(parents=True)
    settings = tuple((("strategy.kind", kind),) for kind in ("fedavg", "fedmedian"))
    runs = {(setting, seed): read(finished_run()) for setting in (0, 1) for seed in (0, 1) if setting or seed}
    comparison = Comparison.of(runs, settings, [0, 1] if is_sweep else [0, 0], [0, 1])
    write_study(folder, StoredStudy(title="tiny, two strategies", comparison=comparison, is_sweep=is_sweep))
    tables = {"results": results} if is_sweep else TABLES
    for name, rows in tables.items():
        put(folder, name, list(rows(comparison)))
    (folder / "comparison.html").write_text(PAGE, encoding="utf-8")
    return folder


@cache
def finished_comparison() -> Path:
    """A comparison, made once a process. The run of setting 0 and seed 0 failed."""
    return study(is_sweep=False)


@cache
def finished_sweep() -> Path:
    """A sweep of the same runs, made once a process."""
    return study(is_sweep=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
