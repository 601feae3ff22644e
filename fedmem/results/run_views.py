"""The parts of `Run` that are not its files: its summary, tidy frames, and HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedmem.contracts.measurement import Level, Scope
from fedmem.errors import RunError
from fedmem.results.model_list import SavedModel, models_of
from fedmem.results.run_html import run_html
from fedmem.results.run_summary import RunSummary, read_summary
from fedmem.results.tidy import frame_of_summary, frame_of_values, with_condition

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.results.read import Run


class RunViews:
    """The summary of a run, its values as tidy frames, and its HTML."""

    @property
    def _run(self) -> Run:
        from fedmem.results.read import Run

        assert isinstance(self, Run)
        return self

    def summary(self) -> RunSummary:
        """The short results of the run from `summary.json`: verdicts, values of each kind, and limits.

        Errors: `RunError` where the file is missing or damaged, or belongs to other measurements.
        """
        return read_summary(self._run.path)

    def table(self) -> pd.DataFrame:
        """The values of the first screen: one row for each kind, measure and level. See `frame_of_summary`."""
        return with_condition(frame_of_summary(self.summary()), self._run)

    def values(
        self,
        measure: str,
        *,
        level: Level | None = None,
        kind: str | None = None,
        scope: Scope = "summary",
        statistic: str = "",
    ) -> pd.DataFrame:
        """A measure as a tidy frame: `kind`, `level`, `value`, `low`, `high`, `n`, `null`, `p`, and its labels.

        At level `local` the rows are about models of the owning client. A value of whole models, such as
        `test_accuracy`, has an empty kind. In scope `summary`, `p_adjusted` decides verdicts, and `num_tests` counts
        the tests of its family (0 without a verdict).

        Args:
            measure: such as `memorisation`, `exposure`, `auc`, `retention` or `test_accuracy`.
            level: `local`, `sum` or `global`; by default all.
            kind: this kind alone, or `all` for values over all kinds, where a measure has them.
            scope: `summary`; `round` adds the column `round`; `run` adds `run` and `round`; `run_summary` adds `run`.
            statistic: such as `probability`; by default the measure itself. Values of `agreement` have one each:
                `in`, `out` or `gain`.

        Errors: `ComponentError` with choices for a measure, level, kind, scope or statistic that the run does not have.
        """
        frame = frame_of_values(self._run, measure, level=level, kind=kind, scope=scope, statistic=statistic)
        return with_condition(frame, self._run)

    def models(
        self,
        *,
        round_number: int | None = None,
        level: Level | None = None,
        run: int | None = None,
        client: str | int | None = None,
    ) -> Iterator[SavedModel]:
        """The models that `save.models` stored, one at a time, by round, level, run and client.

        Files are compared with the SHA-256 of the manifest before they are used, and hold tensors alone: nothing in
        them is run. One model is in memory at a time.

        `next(run.models(run=3, level="global")).params` is one state dict of torch; docs/signals.md has an example.

        Args:
            round_number: Models after this round; -1 is the last that was saved.
            level: `local` or `global`; by default both.
            run: Models of this run alone.
            client: Models of this client alone, its name or its number.

        Errors: `RunError` without saved models, and for a file that is missing, damaged or another one.
        `ComponentError` for a round, level, run or client that was not saved.
        """
        return models_of(self._run, round_number, level, run, client)

    def _repr_html_(self) -> str:
        """The run in a notebook; without a summary its folder alone."""
        try:
            return run_html(self.summary(), str(self._run.path))
        except RunError as error:
            return f"<p>{html.escape(str(error))}</p>"
