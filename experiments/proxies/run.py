"""Which cheap quantity ranks examples as memorisation does, at the owning client and in the aggregate, and when?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.proxies.analysis import of_bank, table
from experiments.proxies.banks import DATA, bank, scenarios
from experiments.proxies.figure import FIGURE
from experiments.proxies.gates import gates
from fedmem.studies.study import Study


def cell(data: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set and seed."""
    return of_bank(bank(data, seed, out, settings), seed).assign(data=data)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=range(8),
    cells=lambda seeds: [(data, seed) for seed in seeds for data in DATA],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
