"""Measures are declared by the component that yields them, and appear everywhere without any other edit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.reporting.page import report
from fedmem.results.read import read
from fedmem.studies.compare import compare
from fedmem.studies.comparison import Comparison
from tests.reporting.measures_helpers import THROWAWAY, write_throwaway
from tests.reporting.page_helpers import printed
from tests.tiny import tiny


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The changes to a scenario that use both components of a user's own."""
    monkeypatch.syspath_prepend(tmp_path)
    return write_throwaway(tmp_path)


def test_throwaway_components_appear_in_all_reports(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compare(
        tiny(**own), vary={"client.lr": ["0.1", "0.2"]}, seeds="0:1", measures=["layer_norms", "trace"], out=tmp_path
    )
    assert not made.failures
    assert set(made.differences.metric) == {"layer_norms", "trace"}
    assert set(made.differences.unit[made.differences.metric == "layer_norms"]) == {"units"}
    default = Comparison.of({(0, 0): read(made.outcomes[0].folder)}, [()], [0], [0])
    assert {one.quantity.metric for one in default.tested_series} == {"layer_norms", "trace"}, (
        "headline measures are tested"
    )
    folder = made.outcomes[0].folder

    for name in THROWAWAY:
        monkeypatch.delitem(sys.modules, name)
        (tmp_path / f"{name}.py").unlink()
    text = printed(folder)
    assert "OTHER MEASURES" in text
    assert "norm of the weights, units" in text
    assert "norm of the weights: length of all parameters" in text
    assert "trace of training (without memorisation: 0)" in text
    page = report(folder).read_text(encoding="utf-8")
    assert (folder / "layer_norms.png").exists()
    assert (folder / "trace.png").exists()
    assert "Length of the vector of all parameters. <em>It is no distance.</em>" in page
    assert "It is nothing new." in page


def test_a_misspelt_measure_of_a_throwaway_component_is_refused(own: dict[str, Any], tmp_path: Path) -> None:
    vary = {"client.lr": ["0.1", "0.2"]}
    with pytest.raises(ScenarioError, match=r"layer_nroms is measured by no component .*did you mean 'layer_norms'"):
        compare(tiny(**own), vary=vary, seeds="0:2", measures=["layer_nroms"], out=tmp_path)
    with pytest.raises(ScenarioError, match=r"exposure is measured by exposure, which this scenario does not have"):
        compare(tiny(**own), vary=vary, seeds="0:2", measures=["exposure"], out=tmp_path)


def test_the_catalogue_needs_no_training_library() -> None:
    code = "import sys; from fedmem.reporting import measures as m; m.shipped_measures(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
