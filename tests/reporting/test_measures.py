"""Measures are declared by the component that yields them, and appear everywhere without any other edit."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.measure import Measure, from_json, to_json
from fedmem.errors import ScenarioError
from fedmem.reporting.measures import measures_to_store, shipped_by, shipped_measures
from fedmem.reporting.page import report
from fedmem.results.read import read
from fedmem.studies.compare import compare
from fedmem.studies.comparison import Comparison
from tests.reporting.test_page import printed
from tests.tiny import tiny

THROWAWAY = {
    "throwaway_probe": '''
        """A probe in one file."""

        from dataclasses import dataclass, replace
        from typing import ClassVar

        from fedmem.contracts.measure import Measure
        from fedmem.contracts.measurement import FINAL, Reading


        @dataclass(frozen=True, kw_only=True)
        class Sizes:
            measures: ClassVar[tuple[Measure, ...]] = (
                Measure(
                    name="weight_norm",
                    title="norm of the weights",
                    means="Length of the vector of all parameters.",
                    is_not="It is no distance.",
                    unit="units",
                    headline=True,
                    terms=(("norm of the weights", "length of all parameters"),),
                ),
            )
            every: int | None = None
            levels: tuple[str, ...] = ("local", "global")

            def observe(self, transitions, context):
                lengths = [sum(float(v.double().square().sum()) for v in t.kept.values()) ** 0.5 for t in transitions]
                return [(t, Reading(metric="weight_norm", value=x)) for t, x in zip(transitions, lengths, strict=True)]

            def summarise(self, measurements, seed):
                groups = {}
                for one in measurements:
                    groups.setdefault((one.round, one.level), []).append(one)
                means = []
                for rows in groups.values():
                    values = [row.reading.value for row in rows]
                    reading = Reading(metric="weight_norm", value=sum(values) / len(values), n=len(values))
                    means.append(replace(rows[0], run=-1, client=-1, reading=reading))
                last = max((one.round for one in means), default=0)
                return [*means, *(replace(one, round=FINAL) for one in means if one.round == last)]
    ''',
    "throwaway_estimator": '''
        """An estimator in one file."""

        from dataclasses import dataclass, replace
        from typing import ClassVar

        from fedmem.contracts.measure import Measure
        from fedmem.estimators.memorisation import Memorisation


        @dataclass(frozen=True, kw_only=True)
        class Twice:
            measures: ClassVar[tuple[Measure, ...]] = (
                Measure(
                    name="trace",
                    title="trace of training",
                    means="How much more often the model is right, by another name.",
                    is_not="It is nothing new.",
                    range=(-1.0, 1.0),
                    null=0.0,
                    headline=True,
                    terms=(("trace of training", "the same by another name"),),
                ),
            )

            def estimate(self, view):
                return [replace(one, metric="trace") for one in Memorisation().estimate(view) if not one.labels]

            def tests(self, view):
                return ()
    ''',
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The changes to a scenario that use both components of a user's own."""
    for name, text in THROWAWAY.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    return {
        "runs": 8,
        "probes": [{"kind": "throwaway_probe:Sizes"}],
        "estimators": [{"kind": "throwaway_estimator:Twice"}],
    }


def test_throwaway_components_appear_in_table_figure_glossary_and_comparison(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compare(
        tiny(**own), vary={"client.lr": ["0.1", "0.2"]}, seeds="0", measures=["weight_norm", "trace"], out=tmp_path
    )
    assert not made.failures
    assert set(made.differences.metric) == {"weight_norm", "trace"}
    assert set(made.differences.unit[made.differences.metric == "weight_norm"]) == {"units"}
    default = Comparison.of({(0, 0): read(made.outcomes[0].folder)}, [()], [0], [0])
    assert {one.quantity.metric for one in default.tested_series} == {"weight_norm", "trace"}, (
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
    assert (folder / "weight_norm.png").exists()
    assert (folder / "trace.png").exists()
    assert "Length of the vector of all parameters. <em>It is no distance.</em>" in page
    assert "It is nothing new." in page


def test_a_misspelt_measure_of_a_throwaway_component_is_refused(own: dict[str, Any], tmp_path: Path) -> None:
    vary = {"client.lr": ["0.1", "0.2"]}
    with pytest.raises(ScenarioError, match=r"weight_nrom is measured by no component .*did you mean 'weight_norm'"):
        compare(tiny(**own), vary=vary, seeds="0:2", measures=["weight_nrom"], out=tmp_path)
    with pytest.raises(ScenarioError, match=r"exposure is measured by exposure, which this scenario does not have"):
        compare(tiny(**own), vary=vary, seeds="0:2", measures=["exposure"], out=tmp_path)


def test_the_catalogue_needs_no_training_library() -> None:
    code = "import sys; from fedmem.reporting import measures as m; m.shipped_measures(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(shipped_measures()))
def test_every_shipped_measure_says_what_it_is(name: str) -> None:
    measure = shipped_measures()[name]
    assert measure.title
    assert measure.means.endswith(".")
    assert measure.range[0] < measure.range[1]
    assert from_json(to_json(measure)) == measure or measure.null != measure.null
    if measure.headline:
        assert measure.section in ("privacy", "utility") or measure.is_not


def test_no_two_shipped_components_declare_one_name() -> None:
    names = [name for own in shipped_by().values() for name in own]
    assert len(names) == len(set(names))


def test_measures_of_the_catalogue_are_not_stored(own: dict[str, Any]) -> None:
    assert [one["name"] for one in measures_to_store(tiny(**own))] == ["trace", "weight_norm"]
    assert measures_to_store(tiny()) == []
    assert from_json(to_json(Measure(name="a", title="a", means="A.", null=0.5))).null == 0.5
