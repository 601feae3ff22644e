"""Two controls of an installation: planted canaries must be found, and canaries that nobody trains on must not.

Both are the shipped scenario `demo`. In its null federation, the canaries may be trained on in round 6 alone, in which
their clients do not participate.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.scenario.scenario import Scenario

SCENARIO = "demo"
NULL = ("injections[0].start=6",)
"""The changes that make the null federation of the scenario."""

THRESHOLD = 0.0005
"""The largest p of an effect. Each control has two, so the chance of a false alarm is at most 1 in 1,000."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Memorisation of the canaries (probability of the right class) at one level, and their membership inference.

    Attributes:
        level: `local` (the owning clients) or `global` (the aggregate).
        value: memorisation, -1 to 1, with its 95 % interval `low` to `high`.
        p: The p of no memorisation, two-sided and exact, from random inclusion drawn again.
        auc: AUC of LiRA, 0 to 1; 0.5 is chance.
    """

    level: str
    value: float
    low: float
    high: float
    p: float
    auc: float

    @property
    def is_significant(self) -> bool:
        """Whether p is at most the threshold."""
        return self.p <= THRESHOLD

    @property
    def text(self) -> str:
        """The numbers in one line."""
        name = {"local": "owning client", "global": "aggregate"}[self.level]
        value, low, high, auc = (
            f"{round(number, 2) + 0.0:.2f}".replace("-", "−") for number in (self.value, self.low, self.high, self.auc)
        )
        return f"{name:14} memorisation {value} [{low}, {high}], p = {self.p:.4f}; LiRA AUC {auc}"


@dataclass(frozen=True, kw_only=True)
class Control:
    """The effects in one federation: those of planted canaries, or those of canaries that nobody trains on."""

    is_planted: bool
    effects: tuple[Effect, ...]

    @property
    def has_passed(self) -> bool:
        """Planted canaries are memorised significantly at both levels; others show no significant effect at any.

        An effect that is undefined fails both.

        >>> effect = Effect(level="local", value=0.9, low=0.8, high=1.0, p=0.0002, auc=1.0)
        >>> [Control(is_planted=is_planted, effects=(effect,)).has_passed for is_planted in (True, False)]
        [True, False]
        """
        if any(math.isnan(effect.value) or math.isnan(effect.p) for effect in self.effects):
            return False
        if self.is_planted:
            return all(effect.is_significant and effect.value > 0 for effect in self.effects)
        return not any(effect.is_significant for effect in self.effects)

    @property
    def text(self) -> str:
        """The treatment of the canaries and the result, in one sentence."""
        done = "trained on in half of the runs" if self.is_planted else "never trained on"
        found = {effect.is_significant for effect in self.effects}
        result = "found" if found == {True} else "not found" if found == {False} else "found at one level only"
        return f"The canaries are {done}, and {result}."


def run_controls(report: Callable[[str], None] = lambda _: None) -> tuple[Control, Control]:
    """The positive and the negative control, in this order; nothing is stored. `report` gets what is being done."""
    from fedmem.scenario.loading import load_scenario
    from fedmem.shipped.files import folder

    file = folder() / f"{SCENARIO}.yaml"
    planted, null = (load_scenario(file, changes) for changes in ((), NULL))
    report(f"training 2 × {planted.runs} federations of {planted.clients} clients with handwritten digits …")
    return _control(planted, is_planted=True), _control(null, is_planted=False)


def _control(scenario: Scenario, *, is_planted: bool) -> Control:
    from fedmem.execution.run import run
    from fedmem.results.read import read

    with tempfile.TemporaryDirectory(prefix="fedmem-demo-") as folder:
        rows = read(run(scenario, out=folder)).measurements
    kinds = [injection.name for injection in scenario.injections]
    rows = rows[(rows.scope == "summary") & rows.subject.isin(kinds)]
    levels = {"local": rows[(rows.level == "local") & (rows.place == "owner")], "global": rows[rows.level == "global"]}
    return Control(is_planted=is_planted, effects=tuple(_effect(level, part) for level, part in levels.items()))


def _effect(level: str, rows: pd.DataFrame) -> Effect:
    is_probability = rows.statistic == "probability"
    memorisation = _only(rows[(rows.metric == "memorisation") & is_probability], ("value", "low", "high"))
    (p,) = _only(rows[(rows.metric == "memorisation.p") & is_probability], ("value",))
    (auc,) = _only(rows[rows.metric == "auc"], ("value",))
    value, low, high = memorisation
    return Effect(level=level, value=value, low=low, high=high, p=p, auc=auc)


def _only(rows: pd.DataFrame, columns: Sequence[str]) -> list[float]:
    """The values of the only row."""
    assert len(rows) == 1, f"{len(rows)} rows instead of one"
    return [float(rows[column].iloc[0]) for column in columns]
