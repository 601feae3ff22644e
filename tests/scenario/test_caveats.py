"""What is legal and sound, and still has to be known: rows of other owners under partitions by owner."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.data import PartitionDeclaration as RECORD
from fedmem.contracts.declarations import class_value
from fedmem.federation.build import build
from fedmem.reporting.page import report
from fedmem.reporting.table import table
from fedmem.results.read import read
from fedmem.scenario.catalogue import kinds, load
from fedmem.scenario.caveats import NOT_COVERED, caveats, caveats_of_stored, caveats_with_data
from fedmem.scenario.loading import parse_scenario
from fedmem.studies.comparison import Comparison
from fedmem.studies.report import Table
from fedmem.studies.study_page import page
from tests.tiny import tiny

NATURAL: dict[str, Any] = {
    "clients": 14,
    "dataset": {"kind": "digits"},
    "partition": {"kind": "natural"},
    "population": 20,
    # Nobody has so many rows of one class.
    "injections": [
        {"kind": "typical", "per_client": 2},
        {"kind": "rare_subgroup", "per_client": 30, "clients": [0]},
    ],
    "runs": 2,
    "rounds": 2,
    "sampler": {"kind": "uniform", "size": 2},
    "estimators": [{"kind": "memorisation"}],
}
FOREIGN = "real rows of other owners on clients that have too few such rows of their own"
OWNER = "drew real audit examples, their controls and their replacement rows from all owners"


def test_only_foreign_rows_have_a_caveat() -> None:
    scenario = tiny(**NATURAL)
    assert not caveats(scenario)
    assert not caveats(scenario, {}), "every row is its client's own"
    (text,) = caveats(scenario, {"rare_subgroup": 3})
    assert FOREIGN in text
    pooled = {"central": "shuffled", "sampler": {"kind": "everyone"}}
    assert not caveats(tiny(**NATURAL | pooled), {"rare_subgroup": 3}), "one model is trained on the rows of all owners"


def test_a_population_above_a_third_of_training_rows_has_one() -> None:
    scenario = tiny(**NATURAL)
    counts = {"test": 80, "population": 200, "base": 120, "total": 400}
    (text,) = caveats(scenario, {}, counts)
    assert "200 of 320 training rows aside (62 %)" in text
    assert "lower population" in text
    assert not caveats(scenario, {}, {**counts, "population": 106})


def test_natural_partition_declares_that_it_splits_by_owner() -> None:
    by_owner = {kind for kind in kinds("partition") if class_value(load("partition", kind), RECORD, "by_owner")}
    assert "natural" in by_owner
    assert not by_owner & {"iid", "dirichlet"}


def test_check_counts_foreign_rows_and_warns(tmp_path: Path) -> None:
    file = tmp_path / "natural.yaml"
    file.write_text(tiny(**NATURAL).to_yaml())
    answer = CliRunner().invoke(app, ["check", str(file)])
    output = " ".join(answer.output.split())
    assert answer.exit_code == 0
    count = build(tiny(**NATURAL)).foreign_rows["rare_subgroup"]  # type: ignore[index]
    assert 0 < count < 30
    assert f"warning injection rare_subgroup puts {count} {FOREIGN}" in output
    assert f"are its own, except for rows of other owners: {count} of rare_subgroup" in output
    answer = CliRunner().invoke(app, ["check", str(file), "--set", "injections.1.per_client=1"])
    assert answer.exit_code == 0
    assert "replacement rows of a client are its own rows" not in answer.output
    assert "warning" not in answer.output
    assert "owners" in answer.output
    answer = CliRunner().invoke(app, ["check", str(file), "--set", "partition.kind=iid"])
    assert answer.exit_code == 0
    assert "warning" not in answer.output
    assert "owners " not in answer.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fedmem.run(tiny(**NATURAL), out=tmp_path_factory.mktemp("natural"))


def printed(what: Any) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(what, crop=False)
    console.file.close()
    return " ".join(console.export_text().split())


def test_manifest_table_and_page_of_a_run_warn(folder: Path) -> None:
    assert sum(FOREIGN in warning for warning in read(folder).manifest["warnings"]) == 1
    assert "WARNING: injection rare_subgroup puts" in printed(table(folder))
    assert "WARNING: injection rare_subgroup puts" in report(folder).read_text()


def test_a_warning_is_no_alarm(folder: Path) -> None:
    assert read(folder).manifest["alarms"] == []


def test_a_run_of_before_is_warned_of_too(folder: Path) -> None:
    """A run that stored no warnings drew its rows from all owners."""
    stored = read(folder).scenario
    assert [OWNER in one for one in caveats_of_stored(stored)] == [True]
    assert not caveats_of_stored({**stored, "partition": {"kind": "iid"}})
    assert not caveats_of_stored({**stored, "injections": []})
    assert not caveats_of_stored({**stored, "central": "shuffled"})
    assert not caveats_of_stored({**stored, "partition": {"kind": "gone"}}), "of another version"
    # what would have to be imported to tell is left alone
    assert not caveats_of_stored({**stored, "partition": {"kind": "no_such_module:Class"}})


def test_a_comparison_warns_once(folder: Path) -> None:
    run = read(folder)
    compared = Comparison.of({(0, 0): run, (1, 0): run}, [(("a", "1"),), (("a", "2"),)], [0, 0], [0])
    assert printed(Table(compared)).count("WARNING: injection rare_subgroup") == 1
    assert page(compared, "natural", ())[0].count("WARNING: injection rare_subgroup") == 1


@pytest.mark.parametrize("injections", [[], [{"kind": "random_pattern", "per_client": 1}]])
def test_a_scenario_that_measures_nothing_is_warned_of(injections: list[Any], tmp_path: Path) -> None:
    silent = tiny(runs=1, rounds=2, injections=injections)
    (text,) = caveats(silent)
    assert text.startswith("nothing is measured")
    assert "estimators: [{kind: memorisation}" in text
    (fix,) = re.findall(r"estimators: (\[.*\])", text)
    assert not caveats(tiny(injections=[{"kind": "random_pattern"}], estimators=yaml.safe_load(fix)))
    assert caveats_of_stored(silent.dump()) == [text]
    assert not caveats(tiny(injections=injections, probes=[{"kind": "utility"}]))
    file = tmp_path / "silent.yaml"
    file.write_text(silent.to_yaml())
    for command in (["check", str(file)], ["run", str(file), "--out", str(tmp_path)]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0
        assert " ".join(done.output.split()).count("nothing is measured:") == (2 if command[0] == "run" else 1)


def test_default_runs_give_memorisation_an_interval(tmp_path: Path) -> None:
    quick = {"rounds": 2, "bootstrap": 20, "sampler": {"kind": "everyone"}}
    content = tiny(estimators=[{"kind": "memorisation"}], **quick).dump()
    del content["runs"]
    folder = fedmem.run(parse_scenario(json.dumps(content)), out=tmp_path)
    table = read(folder).measurements
    found = table[(table.metric == "memorisation") & (table.scope == "summary") & (table.subject == "random_pattern")]
    assert found.low.notna().any()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ranges, medians and categories"),
        ({"ranges": {"age": [0, 99]}, "missing": "refuse"}, "categories"),
        (None, ""),
    ],
)
def test_a_guarantee_does_not_cover_what_data_learnt(
    changes: dict[str, Any] | None, expected: str, tmp_path: Path
) -> None:
    """Ranges, medians and categories of training rows are no noisy values; without noise nothing is guaranteed."""
    rows = [f"{20 + i % 40},{'fmx'[i % 3]},{'yes' if i % 2 else 'no'}" for i in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["age,sex,ill", *rows]))
    dataset = {"kind": "csv", "path": str(tmp_path / "mine.csv"), "target": "ill", "missing": "fill", "test": 20}
    private = {"kind": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0, "lr": 0.1}
    scenario = tiny(
        dataset=dataset | (changes or {}), population=0, clients=2, model={"kind": "mlp"}, partition={"kind": "iid"},
        client=private if changes is not None else {"kind": "sgd", "lr": 0.1}, injections=[], estimators=[],
        probes=[{"kind": "utility"}], sampler={"kind": "uniform", "size": 2}, privacy={"delta": 1e-3},
    )  # fmt: skip
    found = [text for text in caveats_with_data(scenario, build(scenario)) if text.startswith(NOT_COVERED)]
    assert found == [f"{NOT_COVERED}{expected} learnt from training rows"] * bool(expected)
