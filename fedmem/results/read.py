"""Results on disk: one folder per run, written whole or not at all, read without training and without pickle.

```text
runs/<scenario name>/<id>/
  scenario.yaml         as resolved, every default written out
  manifest.json         versions, seed, executor, rows and values that are not finite; keys sorted
  measurements.parquet  scope (run, round, run_summary, summary), run and round (missing where the scope has none),
                        level, client, subject, source, metric, value, low, high, n, and a column for each label
                        (place, statistic, attack, fpr, ...; empty or missing where a row has none)
  evidence.parquet      run, round, level, client, set, subject, loss, margin, correct
  references.parquet    run, round, level, client, family, label, count, subjects, less, ties, quantiles
  signals.parquet       run, round, level, client, name, subject, value; only where the scenario has signals
  set_signals.parquet   the same with the column set; only where a signal is read on test or reference data
  population.parquet    subject, inputs; only where a membership attack reads them
  audit.parquet         subject, injection, kind, role, owner, copies, start, stop (first and last round of
                        training on it, 0 and 2^31 - 1 if unbounded), target, id, is_in (one per run), inputs
  participation.parquet run, round, client, num_examples, failed
  examples.json         names of clients and classes, the modality with its vocabulary, and of each audit example
                        the label and the cells in the data set
  reconstructions.npz   arrays that probes kept, under `source/name/key`
  params.safetensors    only if asked for
  models/               models of some rounds, only if asked for; see `model_files`
  summary.json          what the run shows, in short: verdicts, values, limits, versions; see `RunSummary`
```

A folder that exists is a finished run: it is written next to its place under a hidden name and renamed at the end.
Floats are stored exactly, so that estimates made from the files equal those made in memory to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Bank, SignalEvidence
from fedmem.contracts.measurement import Level, Measurement
from fedmem.errors import FolderError, RunError
from fedmem.results.evidence_table import read_evidence, with_losses
from fedmem.results.examples import FILE as EXAMPLES
from fedmem.results.examples import ExampleNames, describe_audit, read_names, with_class_names, with_names
from fedmem.results.folder import is_finished, reason_missing
from fedmem.results.population_table import read_population
from fedmem.results.run_views import RunViews
from fedmem.results.signal_tables import SET_SIGNALS, SIGNAL_FILES, SIGNALS, read_signals
from fedmem.results.tables import (
    read_audit,
    read_label_counts,
    read_measurements,
    read_participation,
    read_references,
    read_targets,
)
from fedmem.results.tidy import measurement_frame
from fedmem.results.urls import is_url

if TYPE_CHECKING:
    import pandas as pd

RESULTS_SCHEMA = 4
"""Version of the files above; raised when a file or a column changes its name or its meaning."""


@dataclass(frozen=True, kw_only=True)
class Run(RunViews):
    """A finished run. Frames are read from its files when first asked for and kept.

    `measurements` and the other frames are long: one row per number. A missing value is NaN in a column of numbers, and
    `<NA>` in a column of whole numbers with gaps. In a column of text it is empty. Only numbers of clients and labels
    have -1 instead, for nobody and none. `evidence.subject` counts the rows of `evidence.set`; for the set `audit` it
    is the `subject` of `audit`. Where a frame has a column `client`, `client_name` stands next to it: empty for -1, and
    where the data have no names.
    """

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The content of `manifest.json`: components, code, data, and time of the run."""
        with _name_broken_file(self.path / "manifest.json") as file:
            content: Any = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("rows", {}), dict):
                raise ValueError("it is no manifest")
            manifest: dict[str, Any] = content
        return manifest

    @cached_property
    def scenario(self) -> dict[str, Any]:
        """The scenario as resolved, every default written out."""
        import yaml

        with _name_broken_file(self.path / "scenario.yaml") as file:
            scenario: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            if not isinstance(scenario, dict):
                raise ValueError("it is no scenario")
        return scenario

    @property
    def id(self) -> str:
        """The id of the run, which its folder is named by until somebody moves it."""
        return str(self.manifest.get("id", self.path.name))

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """Every reading and estimate with its interval and its n."""
        return self._frame("measurements")

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Loss, margin and correctness of every observed model on every example."""
        return self._frame("evidence")

    @cached_property
    def references(self) -> pd.DataFrame:
        """How canaries rank among fresh references, per observed model, family and label."""
        return self._frame("references")

    @cached_property
    def signals(self) -> pd.DataFrame:
        """The values of signals of every observed model on every audit example; `RunError` where there are none."""
        if not self.manifest["rows"].get(SIGNALS):
            raise RunError(f"{self.path} has no signals; add some to the scenario, such as signals: [{{kind: el2n}}]")
        return self._frame(SIGNALS)

    @cached_property
    def set_signals(self) -> pd.DataFrame:
        """The values of signals of every observed model on test or reference data; `RunError` where there are none.

        `subject` is the position of the example in its set.
        """
        if not self.manifest["rows"].get(SET_SIGNALS):
            raise RunError(
                f"{self.path} has no signals on test or reference data; add one to the scenario, such as "
                "signals: [{kind: logits}]"
            )
        return self._frame(SET_SIGNALS)

    @cached_property
    def audit(self) -> pd.DataFrame:
        """The audit examples: one row each, with coins, names and the example itself.

        `owner_name`, `target_name` and `true_target_name` are empty where the data have no names. `true_target` is the
        label of the row in the data set, -1 where there is none. `start` and `stop` are the first and the last round in
        which an included example is trained on. `stop` is 2147483647 where there is no last round. `text` is the
        example in writing: a decoded text with its secret in double brackets, or column=value of a table; empty for
        images and series. `inputs` are the arrays in the shape of the data. They share one array of all m examples,
        which is read with the frame: `shape` × 4 bytes for each example, 12 kB for an image of 3 × 32 × 32. Examples
        with the same `draw` are in or out together; the column is there only if some are.
        """
        with _name_broken_file(self.path / "audit.parquet") as file:
            audit = read_audit(file)
        return describe_audit(self._frame("audit").drop(columns="inputs"), audit, self.names)

    @cached_property
    def inputs(self) -> NDArray[Any]:
        """(m, *shape) the inputs of the audit examples in the order of `audit`; of texts token numbers."""
        with _name_broken_file(self.path / "audit.parquet") as file:
            inputs: NDArray[Any] = read_audit(file).examples.inputs
        return inputs

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The cells of the source that the audit examples come from, as text: a row each, no columns without any."""
        import pandas as pd

        return pd.DataFrame(dict(self.names.cells), index=range(self.manifest["rows"]["audit"]))

    def top(
        self,
        n: int = 10,
        *,
        level: Level | None = None,
        kind: str | None = None,
        client: str | int | None = None,
        measure: str | None = None,
    ) -> pd.DataFrame:
        """The n most memorised audit examples, one row each, as `fedmem top` prints them; see `Ranking`.

        A `UserWarning` says how many examples have no score and are left out. `frame.attrs["note"]` is the text that
        `fedmem top` prints below them. Column `candidates` says among how many examples these were selected. Column
        `level_of_interval` is the level of each interval, which allows for the selection.

        Args:
            n: How many.
            level: `global` or `local`, whose scores decide the order; by default `global` where there are any.
            kind: Examples of this kind alone.
            client: Examples of this client alone: its name, its number, or `#number`.
            measure: By default the first of the main table that most of these examples have; see docs/top-examples.md.

        Errors: `ComponentError` with choices for a kind, client, level or measure that the run does not have.
        """
        import warnings

        from fedmem.results.top import Choice, rank_examples, unscored_note

        ranking = rank_examples(self, Choice(n=n, level=level, kind=kind, client=client, measure=measure))
        if note := unscored_note(ranking):
            warnings.warn(note, stacklevel=2)
        return ranking.frame

    def by_client(
        self, measure: str = "memorisation", *, level: Level | None = None, kind: str | None = None
    ) -> pd.DataFrame:
        """A measure over the audit examples that each client owns, in the summary: one row a client, level and kind.

        The columns are `client`, `client_name`, `level`, `kind`, `metric`, the labels of the measure, `value`, and its
        95 % interval `low` and `high`. Then follow `n` (examples), `null` (the value without memorisation) and `p`.
        `adjusted_low`, `adjusted_high`, `p_adjusted` and `tests` are adjusted for all clients of the family. An example
        counts for its owning client alone. `frame.attrs["note"]` says how to read them. Estimators are computed again
        from the stored evidence, for each client.

        Args:
            measure: A measure of an estimator of the scenario, such as `memorisation`, `exposure` or `auc`.
            level: `local` (models of the owning client) or `global`; by default both.
            kind: examples of this kind alone.

        Errors: `ComponentError` with choices for a measure or kind that the run does not have.
        """
        from fedmem.results.by_client import frame_by_client

        return frame_by_client(self, measure, level, kind)

    @property
    def client_names(self) -> tuple[str, ...]:
        """(N,) the names of the clients; empty where the data have none, and for pooled data."""
        return self.names.client_names

    @property
    def class_names(self) -> tuple[str, ...]:
        """(C,) the names of the classes; empty where the data have none."""
        return self.names.class_names

    @cached_property
    def names(self) -> ExampleNames:
        """The content of `examples.json`; empty for runs of older versions without the file."""
        with _name_broken_file(self.path / EXAMPLES) as file:
            return read_names(file)

    @cached_property
    def participation(self) -> pd.DataFrame:
        """The participations: which client, in which round and run."""
        return self._frame("participation")

    @cached_property
    def reference_counts(self) -> dict[str, frozenset[int]]:
        """Kind of canary -> the numbers of references that its canaries are ranked among, as stored with the ranks."""
        import pyarrow.parquet as pq

        with _name_broken_file(self.path / "references.parquet") as file:
            rows = pq.read_table(file, columns=["family", "count"]).unify_dictionaries()  # each piece has its own
            pairs = rows.group_by(["family", "count"]).aggregate([])
        counts: dict[str, frozenset[int]] = {}
        for pair in pairs.to_pylist():
            counts[pair["family"]] = counts.get(pair["family"], frozenset()) | {pair["count"]}
        return counts

    def rows(self) -> list[Measurement]:
        """The measurements as records, in the order of the file. They are read once and kept."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> tuple[Measurement, ...]:
        with _name_broken_file(self.path / "measurements.parquet") as file:
            measurements = read_measurements(file)
            _check_counts(len(measurements), self.manifest["rows"]["measurements"])
        return tuple(measurements)

    def reconstructions(self) -> dict[str, NDArray[Any]]:
        """The arrays that probes kept, by `name/key`; empty when there are none."""
        with (
            _name_broken_file(self.path / "reconstructions.npz") as file,
            file.open("rb") as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            return {name: archive[name] for name in archive.files}

    def params(self) -> Params:
        """The final parameters; an error when the scenario did not ask to keep them, or the file is damaged."""
        if not (self.path / "params.safetensors").exists():
            raise RunError(f"{self.path} holds no parameters; run it again with save.params=true")
        from safetensors.torch import load_file

        from fedmem.weights.model_files import check_stored_file

        if "params" in self.manifest:
            check_stored_file(self.path / "params.safetensors", self.manifest["params"])
        with _name_broken_file(self.path / "params.safetensors") as file:
            params: Params = load_file(file)
        return params

    def _frame(self, name: str) -> pd.DataFrame:
        import pyarrow.parquet as pq

        with _name_broken_file(self.path / f"{name}.parquet") as file:
            table = pq.read_table(file)
            if name == "evidence":
                table = with_losses(table)
            frame: pd.DataFrame = table.to_pandas()
            _check_counts(len(frame), self.manifest["rows"][name])
        if name == "measurements":
            frame = with_class_names(measurement_frame(table), self.names)
        if "client" in frame:
            frame = with_names(frame, self.client_names)
        if name in ("evidence", "references"):  # millions of rows: text stays categorical there
            return frame
        return frame.astype({column: str for column in frame.columns if frame[column].dtype == "category"})


def read(path: Path | str) -> Run:
    """The finished run in this folder, or at an address such as `s3://bucket/run`, which `fedmem push` has written.

    The files of an address are copied to a temporary folder and verified. It is removed when the run is no longer used.

    Errors: `FolderError` when the folder is no finished run, or was written in another schema. `RunError` when a
    missing or damaged file of it is first asked for.
    """
    if isinstance(path, str) and is_url(path):
        from fedmem.results.transfer import read_remote

        return read_remote(path)
    folder = Path(path).resolve()
    if not is_finished(folder):
        raise FolderError(f"{path} is no finished run: {reason_missing(folder)}")
    run = Run(path=folder)
    if (schema := run.manifest.get("schema")) != RESULTS_SCHEMA:
        raise FolderError(
            f"{path} is written in schema {schema}, this version reads {RESULTS_SCHEMA}; compute it again with: "
            f"fedmem run {path}/scenario.yaml --force"
        )
    return run


@contextmanager
def _name_broken_file(file: Path) -> Iterator[Path]:
    """Whatever goes wrong while a stored file is read becomes a `RunError` that names the file."""
    try:
        yield file
    except RunError:
        raise
    except Exception as error:
        # Many libraries read our files, each with errors of its own.
        reason = " ".join(str(error).split())
        what = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise RunError(
            f"{file} {what} ({type(error).__name__}: {reason:.200}); put a copy of the file back, or run the scenario "
            "again with --force"
        ) from error


def _check_counts(num_rows: int, num_written: int) -> None:
    if num_rows != num_written:
        raise ValueError(f"it has {num_rows} rows, {num_written} were written")


def read_bank(path: Path | str) -> Bank:
    """The evidence of a run as it was in memory: the same arrays, bit for bit, in the same order."""
    run = read(path)
    with _name_broken_file(run.path / "manifest.json"):
        rows, settings = run.manifest["rows"], run.manifest["bank"]
        facts = {name: settings[name] for name in ("seed", "roster", "exclusion")}
        row_counts = [rows[name] for name in ("participation", "audit", "evidence", "references")]
    with _name_broken_file(run.path / "participation.parquet") as file:
        participation = read_participation(file)
        _check_counts(len(participation), row_counts[0])
    with _name_broken_file(run.path / "audit.parquet") as file:
        audit, targets, label_counts = read_audit(file), read_targets(file), read_label_counts(file)
        _check_counts(len(audit), row_counts[1])
    with _name_broken_file(run.path / "evidence.parquet") as file:
        evidence = tuple(read_evidence(file))
        _check_counts(sum(block.size for block in evidence), row_counts[2])
    with _name_broken_file(run.path / "references.parquet") as file:
        references = tuple(read_references(file, audit))
        _check_counts(sum(len(block.run) * len(block.labels) for block in references), row_counts[3])
    signals: list[SignalEvidence] = []
    for name in SIGNAL_FILES:
        with _name_broken_file(run.path / f"{name}.parquet") as file:
            blocks = list(read_signals(file))
            _check_counts(sum(block.values.size for block in blocks), rows.get(name, 0))
        signals += blocks
    with _name_broken_file(run.path / "population.parquet") as file:
        inputs = read_population(file, rows.get("population"))
    return Bank(
        audit=audit,
        evidence=evidence,
        references=references,
        signals=tuple(signals),
        participation=tuple(participation),
        **facts,
        targets=targets,
        inputs=inputs,
        label_counts=label_counts,
    )
