"""Measures are declared by the component that yields them, and appear everywhere without any other edit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.estimation.roc import null_tpr, smallest_fpr
from fedmem.reporting.measures import shipped_measures, terms_of
from fedmem.reporting.page import report
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.compare import compare
from fedmem.studies.comparison import Comparison
from fedmem.studies.report import CAPTION, SWEEP_CAPTION, WITHIN_CAPTION
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


def test_texts_of_tables_say_random_inclusion_not_coins() -> None:
    declared = shipped_measures()
    texts = [text for measure in declared.values() for text in (measure.means, measure.is_not)]
    texts += [meaning for _, meaning in terms_of(declared)]
    texts += [CAPTION, SWEEP_CAPTION, WITHIN_CAPTION]
    texts += [str(field.description) for field in Scenario.model_fields.values()]
    assert not [text for text in texts if re.search(r"\bcoins?\b", text)]


def test_legend_explains_rates_and_nulls_as_they_are_counted() -> None:
    meanings = dict(terms_of(shipped_measures()))
    assert "(k + 1) / (n + 1)" in meanings["TPR"]
    assert "k is 10" in meanings["FPR"]
    assert (smallest_fpr(240), null_tpr(240)) == (10 / 240, 11 / 241)
    assert "a little below 0.5" in meanings["LiRA"]
