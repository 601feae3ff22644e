"""Claims about adapters and federation, each as a difference that is positive if the claim holds, with its verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.adapters.analysis import LAST
from experiments.adapters.arms import CENTRAL, FEDERATED, SLOWER, TRAINED
from fedmem.contracts.arrays import FloatArray
from fedmem.studies.contrasts import retention_ratio
from fedmem.studies.experiment import with_verdict

READ = {
    "texts": (("secret", "exposure_gain"), ("typical", "memorisation")),
    "classes": (("mislabelled", "memorisation"), ("random_pattern", "memorisation")),
}
"""Task -> the kinds and measures that the claims are about."""

RANKS = ("r=1", "r=4", "r=16")
PARTIAL = (*RANKS[::-1], "head")
"""Parts that are compared with full fine-tuning."""

TENFOLD = 10
LOWEST = "r=1"
"""The level of utility at which ranks are compared: that of the smallest adapters, which larger ones reach too."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values of one task, kind and measure."""

    frame: pd.DataFrame
    seeds: tuple[int, ...]

    def of(self, trained: str, where: str, place: str, at: str) -> FloatArray:
        """(seeds,) of one arm, NaN where it never reaches the level."""
        rows = self.frame
        rows = rows[(rows.trained == trained) & (rows["where"] == where) & (rows.place == place) & (rows["at"] == at)]
        return rows.set_index("seed").value.reindex(self.seeds).to_numpy(dtype=np.float64)

    def is_saturated(self, trained: str, where: str, place: str, at: str) -> bool:
        """Whether the mean over seeds is at its ceiling."""
        rows = self.frame
        rows = rows[(rows.trained == trained) & (rows["where"] == where) & (rows.place == place) & (rows["at"] == at)]
        return bool(len(rows) and rows.value.mean() >= rows.top.min())


Cell = tuple[str, str, str, str]
"""The trained part, where it is trained, the place of the measurement, and the level of utility."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`more` − `factor` · `less` > 0 at `level`; `gate` is the publication that says so."""

    gate: str
    words: str
    level: str
    more: Cell
    less: Cell
    factor: float = 1.0


def claims() -> Iterator[Claim]:
    """The claims, chosen on the development seed before the seeds of the tables were trained.

    The comparisons of full fine-tuning at the lower rate with adapters and head were added after two of these seeds.
    """
    for level in ("local", "global"):
        for part in PARTIAL:
            cells = [(trained, FEDERATED, level, part) for trained in ("full", part)]
            yield Claim(gate="Bossy", words=f"full exceeds {part}", level=level, more=cells[0], less=cells[1])
            if part in RANKS:
                words = f"full exceeds {part} tenfold"
                yield Claim(gate="Bossy", words=words, level=level, more=cells[0], less=cells[1], factor=TENFOLD)
        for part in PARTIAL:
            last = [(trained, FEDERATED, level, LAST) for trained in ("full", part)]
            yield Claim(gate="equal rounds", words=f"full exceeds {part}", level=level, more=last[0], less=last[1])
        for larger, smaller in (("r=16", "r=4"), ("r=4", "r=1")):
            cells = [(trained, FEDERATED, level, LOWEST) for trained in (larger, smaller)]
            yield Claim(gate="rank", words=f"{larger} exceeds {smaller}", level=level, more=cells[0], less=cells[1])
        cells = [("full", FEDERATED, level, "r=16"), (SLOWER, FEDERATED, level, "r=16")]
        words = "full at its rate exceeds full at the lower rate"
        yield Claim(gate="control", words=words, level=level, more=cells[0], less=cells[1])
        for part in PARTIAL:
            cells = [(trained, FEDERATED, level, part) for trained in (SLOWER, part)]
            words = f"full at the lower rate exceeds {part}"
            yield Claim(gate="control", words=words, level=level, more=cells[0], less=cells[1])
    for part in PARTIAL:
        cells = [(trained, CENTRAL, "global", part) for trained in ("full", part)]
        words = f"central full exceeds central {part}"
        yield Claim(gate="Bossy", words=words, level="global", more=cells[0], less=cells[1])
    for trained in TRAINED:
        at = "r=16" if trained == "full" else trained
        central = trained, CENTRAL, "global", at
        for level in ("local", "global"):
            words = f"central exceeds federated, {trained}"
            yield Claim(gate="Udsa", words=words, level=level, more=central, less=(trained, FEDERATED, level, at))
        cells = [(trained, FEDERATED, place, at) for place in ("local", "others")]
        words = f"the owning client exceeds others, {trained}"
        yield Claim(gate="Udsa", words=words, level="local", more=cells[0], less=cells[1])


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim on each task and kind: the mean difference over seeds, Student's 95 % interval and a verdict.

    A difference is undefined unless every seed reaches the level in both arms. `ratio` is `more` / `less` with its
    interval (Fieller), undefined where `less` is not above 0. `saturated`: a value that enters is at its ceiling, so
    that the difference is nearer to zero than the truth. Intervals are not adjusted for the number of claims.
    """
    rows = []
    for task, kinds in READ.items():
        for kind, metric in kinds:
            mask = (values.task == task) & (values.kind == kind) & (values.metric == metric)
            if not mask.any():
                continue
            read = Values(frame=values[mask], seeds=tuple(sorted(set(values.seed))))
            for claim in claims():
                more, less = read.of(*claim.more), read.of(*claim.less)
                row: dict[str, object] = {
                    "gate": claim.gate,
                    "claim": claim.words,
                    "task": task,
                    "kind": kind,
                    "metric": metric,
                }
                row |= {"level": claim.level, **with_verdict(more - claim.factor * less)}
                row |= _ratio(more, less) if claim.factor == 1 else {}
                rows.append(row | {"saturated": read.is_saturated(*claim.more) or read.is_saturated(*claim.less)})
    return pd.DataFrame(rows)


def _ratio(more: FloatArray, less: FloatArray) -> dict[str, float]:
    if np.isnan(more + less).any():
        return {"ratio": math.nan, "ratio_low": math.nan, "ratio_high": math.nan}
    ratio = retention_ratio(more, less)
    return {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
