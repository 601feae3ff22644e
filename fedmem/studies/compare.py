"""Set strategies, samplers or anything else side by side: one scenario, several settings, several seeds, one folder.

```text
<out>/<scenario name>/<id>/             the run of each setting and seed, as `fedmem run` writes it
<out>/<scenario name>/compare-<id>/
  comparison.json   what was compared: settings, reference, seeds, the run of each, and what failed
  values            one row for each setting, seed and quantity     (each as .csv and .parquet)
  rounds            the same at each observed round
  differences       each setting in each quantity: mean, difference to the reference, p, what could be detected
  within            each setting: differences of kinds at each level, and local minus global of each kind
  retention         what aggregation keeps
  trades            utility against each measure of the aggregate
  series            all of these numbers (.json and .npz), from which `fedmem report` draws everything again
  *.png, comparison.html
```
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.events import Listener
from fedmem.errors import Problem, ScenarioError
from fedmem.execution.many_scenarios import Outcome, run_all
from fedmem.reporting.metric_names import check_metric
from fedmem.studies.comparison import Comparison
from fedmem.studies.feasibility import checked_cells
from fedmem.studies.grid import Cell, Setting, label_of, parse_seeds, parse_vary, settings_of
from fedmem.studies.reading import study_html
from fedmem.studies.stored import StoredStudy, draw_study, write_study
from fedmem.studies.tables import TABLES

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class ComparedRuns:
    """A comparison that was made: its folder, what became of each run, and its tables."""

    path: Path
    outcomes: tuple[Outcome, ...]
    cells: tuple[Cell, ...]
    comparison: Comparison

    @property
    def failures(self) -> tuple[tuple[Cell, Outcome], ...]:
        """The runs that failed, which the comparison does without; the same call tries them again."""
        pairs = zip(self.cells, self.outcomes, strict=True)
        return tuple((cell, outcome) for cell, outcome in pairs if outcome.error is not None)

    @property
    def failure_text(self) -> str:
        """The failures in words; empty without any."""
        causes = [f"{label_of(cell.setting)}, seed {cell.seed}: {outcome.error}" for cell, outcome in self.failures]
        if not causes:
            return ""
        more = f"; and {len(causes) - 3} more" * (len(causes) > 3)
        return (
            f"{len(causes)} of {len(self.cells)} runs failed and are left out; the same command tries them again: "
            f"{'; '.join(causes[:3])}{more}"
        )

    def _repr_html_(self) -> str:
        """The comparison in a notebook."""
        failures = [failure for failure in (self.failure_text,) if failure]
        return study_html(self.cells[0].scenario.name, self.comparison, failures, self.path)

    def __getattr__(self, name: str) -> pd.DataFrame:
        """The tables, by their names."""
        if name not in TABLES:
            raise AttributeError(f"a comparison has no {name!r}; its tables are {', '.join(TABLES)}")
        import pandas as pd

        return pd.read_parquet(self.path / f"{name}.parquet")


def compare(  # noqa: PLR0913 - options for users, all by name
    scenario: Path | str | Scenario,
    *,
    vary: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    seeds: int | Sequence[int] | str = "0:5",
    reference: Mapping[str, Any] | Sequence[str] = (),
    measures: Sequence[str] = (),
    overrides: Sequence[str] = (),
    out: Path | str = "runs",
    force: bool = False,
    jobs: int | None = None,
    listeners: Sequence[Listener] = (),
    on: str | None = None,
) -> ComparedRuns:
    """Run every setting with every seed and compare the settings; with one setting, compare kinds and levels.

    Args:
        scenario: A scenario file, or a scenario; its seed is replaced.
        vary: YAML paths and the values that each takes; all combinations are settings. Left out: the
            scenario as it is, whose kinds and levels are compared over seeds.
        seeds: How many (5: the seeds 0 to 4), a list of them, or a text such as `0:10`.
        reference: Values of some or all paths. A setting is compared with the one that has these values, and its own
            values of the other paths. By default all are compared with the first setting.
        measures: Metrics that are tabled and tested, such as `exposure`; by default the headline of the report.
        overrides: Changes to all settings, as after `--set`.
        out: Where runs and the comparison go.
        force: Run again what is finished.
        jobs: How many processes work; by default one for each core.
        listeners: Each is called with every event (`fedmem.contracts.events`) of every run. Without any, a notebook
            shows the progress.
        on: Where runs are trained, such as `ray:10.0.0.7:6379`; see `fedmem.run`.

    Guarantees:

    - every setting is checked with every seed before anything is trained;
    - settings of one seed share data, coins, canaries, initial weights, and cohorts where the sampler does not vary;
    - each run is that of `fedmem run` to the last bit, is kept as soon as it is done, and is never repeated;
    - differences are paired by seeds, and adjusted over those of their measure, or over all measures in `measures`;
    - equal runs give equal files.

    Errors: `ScenarioError` with all that is wrong in any setting. `FolderError` where results cannot be written. A run
    that fails is no error: see `ComparedRuns.failures`.
    """
    values_by_path = (
        parse_vary(vary) if not isinstance(vary, Mapping) else {path: _texts(them) for path, them in vary.items()}
    )
    all_seeds = parse_seeds(seeds)
    settings = settings_of(values_by_path)
    if values_by_path and len(settings) < 2:
        message = (
            "gives one setting, and there is nothing to compare it with. Give several values, such as "
            "--vary strategy.kind=fedavg,krum, or leave --vary out to compare the kinds and levels of one setting"
        )
        raise ScenarioError([Problem(path="", message=message, source="--vary")])
    check_distinct_names(values_by_path, overrides)
    references = references_of(settings, reference)
    cells = checked_cells(scenario, settings, all_seeds, overrides, out=out, force=force)
    for name in measures:
        check_metric(name, [cell.scenario for cell in cells], source=f"--measure {name}")
    outcomes = run_all([cell.scenario for cell in cells], out=out, force=force, jobs=jobs, listeners=listeners, on=on)
    comparison = _make_comparison(cells, outcomes, settings, references, all_seeds, measures)
    cell_labels = [[cell.scenario.id, label_of(cell.setting)] for cell in cells]
    text = json.dumps([cell_labels, references, list(measures)])
    folder = Path(out) / cells[0].scenario.name / f"compare-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    _write(folder, cells, outcomes, comparison)
    return ComparedRuns(path=folder, outcomes=tuple(outcomes), cells=cells, comparison=comparison)


def check_distinct_names(paths: Mapping[str, Sequence[str]], overrides: Sequence[str]) -> None:
    """Refuses changes that what varies, or its seeds, would undo without a word."""
    problems = []
    for text in overrides:
        path = text.partition("=")[0].strip()
        if path == "seed":
            message = "does nothing, since the seeds are those of --seeds; give them there, such as --seeds 3,4,5"
            problems.append(Problem(path="", message=message, source=f"--set {text}"))
        elif other := next(
            (
                varied_path
                for varied_path in paths
                if path == varied_path or path.startswith((f"{varied_path}.", f"{varied_path}["))
            ),
            None,
        ):
            message = f"does nothing, since --vary {other} sets {other} again in each setting; leave one of them out"
            problems.append(Problem(path="", message=message, source=f"--set {text}"))
    if problems:
        raise ScenarioError(problems)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    from fedmem.scenario.yaml_source import write_flow

    return tuple(value if isinstance(value, str) else write_flow(value) for value in values)


def references_of(settings: Sequence[Setting], reference: Mapping[str, Any] | Sequence[str]) -> tuple[int, ...]:
    """For each setting the place of the one that it is compared with; its own for a reference.

    >>> settings = settings_of({"strategy.kind": ["fedavg", "krum"], "sampler.kind": ["uniform", "atypical"]})
    >>> references_of(settings, ["strategy.kind=krum"])
    (2, 3, 2, 3)
    >>> references_of(settings, [])
    (0, 0, 0, 0)

    Errors: `ScenarioError` where it names what does not vary.
    """
    if not isinstance(reference, Mapping):
        reference = {path: value for path, (value, *_) in parse_vary(list(reference)).items()}
    targets = {path: _texts([value])[0] for path, value in reference.items()} or dict(settings[0])
    for path, value in targets.items():
        values = dict.fromkeys(dict(setting).get(path) for setting in settings)
        if value not in values:
            explanation = (
                f"{path} takes {', '.join(map(str, values))}" if None not in values else f"{path} does not vary"
            )
            raise ScenarioError(
                [Problem(path="", message=f"is no setting: {explanation}", source=f"--reference {path}={value}")]
            )
    places = {setting: place for place, setting in enumerate(settings)}
    return tuple(places[tuple((path, targets.get(path, value)) for path, value in setting)] for setting in settings)


def _make_comparison(
    cells: Sequence[Cell],
    outcomes: Sequence[Outcome],
    settings: Sequence[Setting],
    references: Sequence[int],
    seeds: Sequence[int],
    measures: Sequence[str],
) -> Comparison:
    from fedmem.results.read import read

    places = {setting: place for place, setting in enumerate(settings)}
    runs = {
        (places[cell.setting], seeds.index(cell.seed)): read(outcome.folder)
        for cell, outcome in zip(cells, outcomes, strict=True)
        if outcome.error is None
    }
    comparison = Comparison.of(runs, settings, references, seeds, measures)
    metrics = sorted({series.quantity.metric for series in comparison.series})
    if runs and (unknown := [name for name in measures if name not in metrics]):
        message = f"{unknown[0]} is measured by no run; choose from: {', '.join(metrics)}"
        raise ScenarioError([Problem(path="", message=message, source=f"--measure {unknown[0]}")])
    return comparison


def _write(folder: Path, cells: Sequence[Cell], outcomes: Sequence[Outcome], comparison: Comparison) -> None:
    """All files of a comparison, whole or not at all."""
    from fedmem.results.folder import writing

    with writing(folder, force=True) as partial:
        content = {
            "scenario": cells[0].scenario.name,
            "settings": [dict(setting) for setting in comparison.settings],
            "labels": comparison.labels,
            "reference": [comparison.labels[place] for place in comparison.reference],
            "seeds": comparison.seeds,
            "measures": comparison.measures,
            "runs": [outcome.folder.name for outcome in outcomes],
            "failed": {o.folder.name: str(o.error) for o in outcomes if o.error is not None},
        }
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        (partial / "comparison.json").write_text(text + "\n", encoding="utf-8")
        failures = tuple(
            f"{label_of(cell.setting)}, seed {cell.seed}: {outcome.error}"
            for cell, outcome in zip(cells, outcomes, strict=True)
            if outcome.error is not None
        )
        title = f"{cells[0].scenario.name} · {folder.name}"
        study = StoredStudy(title=title, comparison=comparison, failures=failures)
        write_study(partial, study)
        draw_study(partial, study)
