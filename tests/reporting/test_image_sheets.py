from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.errors import RunError
from fedmem.execution.run import measure, run
from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.image_sheets import sheets, write_sheets
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from tests.reporting.page_helpers import SCENARIO, pictures, rows
from tests.results.read_helpers import bank, write
from tests.tiny import tiny


def leaking(**changes: Any) -> Scenario:
    probe = {
        "kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 5}, "victims": 2, "runs": 2,
        "levels": ["local", "sum", "global"], **changes,
    }  # fmt: skip
    observe = {"every": 2, "levels": ["local", "sum", "global"], "sums": [2, 3]}
    injections = [{"kind": "random_pattern", "per_client": 2}, {"kind": "typical", "per_client": 2}]
    return tiny(probes=[probe], observe=observe, injections=injections, dataset={"kind": "digits", "test": 1300})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(leaking(), out=tmp_path_factory.mktemp("runs"))


def test_measure_redraws_an_equal_sheet(folder: Path) -> None:
    picture = folder / "reconstructions.png"
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    picture.unlink()
    measure(folder)
    assert picture.read_bytes() == drawn
    assert write_sheets(folder) == [picture]
    assert picture.read_bytes() == drawn


def test_run_without_images_has_no_sheet(tmp_path: Path) -> None:
    folder = run(tiny(), out=tmp_path)
    assert not list(folder.glob("*.png"))
    assert sheets(read(folder)) == {}
    measure(folder)
    assert not list(folder.glob("*.png"))


def test_sheet_shows_every_level_with_gain_and_identification(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, list[ImageRow]] = {}

    def keep(title: str, groups: dict[str, list[ImageRow]], subtitle: str) -> bytes:
        shown.update(groups)
        assert "round 4" in title
        return b"png"

    monkeypatch.setattr("fedmem.reporting.drawing.sheet", keep)
    sheets(read(folder))
    # the first step of a large client seldom holds a victim
    assert [name for name in shown if "first step" not in name] == [
        "local: from a client's real message",
        "sum: from the sum of 2 clients",
        "sum: from the sum of 3 clients",
        "global: from the aggregate",
    ]
    rows = read(folder).measurements
    arrays = read(folder).reconstructions()
    for level, view, name in (
        ("local", "message", "a client's real message"),
        ("global", "aggregate", "the aggregate"),
    ):
        (group,) = [pictures for title, pictures in shown.items() if title == f"{level}: from {name}"]
        assert {picture.label.split("\n")[0] for picture in group} == {"random_pattern", "typical"}
        for picture in group:
            subject = picture.label.partition("#")[2]
            own = rows[(rows["round"] == 4) & (rows.level == level) & (rows.subject == subject) & (rows.run >= 0)]
            own = own[(own["view"] == view) & (own.coin != "out")]
            (where,) = {
                run for run in own.run if any(
                    np.array_equal(image, picture.reconstruction)
                    for image in arrays[f"leakage/round_4/{level}/{view}/run_{run}/reconstruction"]
                )
            }  # fmt: skip
            values = own[own.run == where].set_index("metric").value
            assert picture.caption.endswith("\nidentified") == (values["identified"] == 1)
            gain = float(picture.caption.split(" dB")[0].replace("−", "-"))
            assert gain == pytest.approx(values["margin"], abs=0.051)


def test_sheets_follow_the_columns_and_not_the_names_of_arrays(tmp_path: Path) -> None:
    write(tmp_path / "named", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    renamed = {name.replace("round_5/", "other_"): array for name, array in pictures().items()}
    write(tmp_path / "renamed", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=renamed)
    assert sheets(read(tmp_path / "renamed")) == sheets(read(tmp_path / "named")) != {}
    damaged = {name: array for name, array in pictures().items() if not name.endswith("/modality")}
    write(tmp_path / "damaged", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=damaged)
    with pytest.raises(RunError, match=r"reconstructions\.npz is damaged: .* has no modality"):
        sheets(read(tmp_path / "damaged"))
