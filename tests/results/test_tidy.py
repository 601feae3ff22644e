"""Tests of `fedmem/results/tidy.py`: frames need no further filter, and equal what a filter by hand gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.errors import ComponentError
from fedmem.reporting.summarise import write_summary
from fedmem.results.read import Run, read
from tests.reporting.page_helpers import SCENARIO, row, rows
from tests.results.read_helpers import bank, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    measurements = [*rows(), row("memorisation.p", 0.01, "pattern", n=200)]
    write(folder, bank(m=20, canaries=10, seed=1), measurements=measurements, scenario_yaml=SCENARIO)
    write_summary(folder)
    return read(folder)


def test_values_equal_a_filter_by_hand(run: Run) -> None:
    frame = run.values("memorisation")
    raw = run.measurements
    raw = raw[
        (raw.metric == "memorisation") & (raw.scope == "summary") & (raw.statistic == "") & (raw.place != "others")
    ]
    raw = raw[raw.subject.isin(["pattern", "typical-own"])]
    assert list(frame.columns) == ["kind", "level", "value", "low", "high", "n", "null", "p", "p_adjusted", "num_tests"]
    assert frame[["kind", "level", "value"]].values.tolist() == raw[["subject", "level", "value"]].values.tolist()
    assert not frame.duplicated(["kind", "level"]).any()
    by_place = frame.set_index(["kind", "level"])
    assert by_place.loc[("pattern", "global"), "p"] == 0.01
    assert by_place["null"].tolist() == [0.0] * 4


def test_labels_that_tell_rows_apart_are_columns(run: Run) -> None:
    frame = run.values("auc", level="global", kind="pattern")
    assert frame[["attack", "value"]].values.tolist() == [["lira", 0.8], ["loss_threshold", 0.6]]
    over_rounds = run.values("memorisation", level="global", kind="pattern", scope="round")
    assert over_rounds["round"].tolist() == [0, 5, 10]
    assert run.values("memorisation", level="global", statistic="probability")["value"].tolist() == [0.6, 0.3]


def test_a_statistic_is_asked_for_where_each_value_has_one(tmp_path: Path) -> None:
    measurements = [
        row("agreement", 0.5, kind, f"statistic={side}") for kind in ("pattern", "all") for side in ("in", "out")
    ]
    write(tmp_path / "run", bank(), measurements=[*rows(), *measurements], scenario_yaml=SCENARIO)
    stored = read(tmp_path / "run")
    with pytest.raises(ComponentError, match="agreement has no statistic ''; choose from: in, out"):
        stored.values("agreement")
    assert stored.values("agreement", statistic="in")["kind"].tolist() == ["pattern", "all"]
    assert stored.values("agreement", statistic="out", kind="all")["value"].tolist() == [0.5]
    with pytest.raises(ComponentError, match=r"memorisation has no statistic 'probably'.*probability"):
        stored.values("memorisation", statistic="probably")


def test_the_adjusted_p_is_that_of_the_summary(run: Run) -> None:
    table = run.table().set_index(["kind", "measure", "level"])
    (finding, *_) = [f for k in run.summary().kinds if k.kind == "pattern" for f in k.findings if f.metric == "auc"]
    value = finding.at("global")
    assert value is not None
    assert value.num_tests > 1
    assert table.loc[("pattern", finding.title, "global"), "p_adjusted"] == value.p_adjusted
    by_attack = run.values("auc", level="global", kind="pattern").set_index("attack")
    row = by_attack.loc[str(finding.labels["attack"])]
    assert (row.p_adjusted, row.num_tests) == (value.p_adjusted, value.num_tests)
    assert "p_adjusted" not in run.values("auc", scope="round")


def test_values_of_models_have_no_kind(run: Run) -> None:
    frame = run.values("test_accuracy")
    assert frame[["kind", "level", "n"]].values.tolist() == [["", "local", 320], ["", "global", 32]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measure": "memorization"}, r"no measure 'memorization' \(did you mean 'memorisation'"),
        ({"measure": "auc", "level": "owner"}, "no level 'owner'.*choose from: local, sum, global"),
        ({"measure": "auc", "kind": "patern"}, r"no kind 'patern' \(did you mean 'pattern'"),
        ({"measure": "auc", "scope": "rounds"}, r"no scope 'rounds'"),
    ],
)
def test_a_wrong_name_is_answered_with_choices(run: Run, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        run.values(**arguments)  # type: ignore[arg-type]


def test_the_table_has_the_values_of_the_summary(run: Run) -> None:
    frame = run.table()
    chosen = frame[(frame["measure"] == "memorisation") & (frame["kind"] == "pattern")].set_index("level")
    assert chosen["value"].to_dict() == {"local": 0.75, "global": 0.5, "retention": 0.67}
    assert chosen["state"].unique().tolist() == ["significant"]
    assert "test accuracy" in frame[frame["kind"] == ""]["measure"].tolist()
