"""A study of one small federation, as a folder of a user, and what a test gives it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny import TINY

CODE = '''"""Is a canary memorised?"""

from pathlib import Path

import pandas as pd

import fedmem
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent


def scenarios(data, seed, settings):
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])]


def cell(data, seed, out, settings):
    (scenario,) = scenarios(data, seed, settings)
    found = fedmem.read(fedmem.run(scenario, out=out)).measurements
    rows = found[(found.metric == "memorisation") & (found.scope == "summary") & (found.place == "owner")]
    return float(rows.value.iloc[0])


def tables(results):
    return {"gates": pd.DataFrame([{"claim": "a canary is memorised", "mean": sum(results) / len(results)}])}


STUDY = Study(
    question=__doc__,
    seeds=(1, 2),
    cells=lambda seeds: [(data, seed) for seed in seeds for data in ("first", "second")],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    unpriced="nothing of importance",
)
'''


def study_folder(folder: Path, name: str = "mine_alone", code: str = CODE) -> Path:
    """A folder with `run.py` and a page."""
    (folder / name).mkdir()
    (folder / name / "run.py").write_text(code)
    (folder / name / "scenario.yaml").write_text(json.dumps(TINY | {"estimators": [{"kind": "memorisation"}]}))
    (folder / name / "page.md").write_text("It is {{gates digits=3}}.")
    return folder / name
