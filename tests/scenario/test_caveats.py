"""What is legal and sound, and still has to be known: rows of other owners under partitions by owner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.data import PartitionDeclaration as RECORD
from fedmem.contracts.declarations import class_value
from fedmem.federation.build import build
from fedmem.federation.build import load as load_data
from fedmem.partitions.iid import IID
from fedmem.reporting.page import report
from fedmem.reporting.table import table
from fedmem.results.read import read
from fedmem.scenario.catalogue import kinds, load
from fedmem.scenario.caveats import caveats, caveats_of_stored
from fedmem.scenario.loading import parse_scenario
from fedmem.studies.comparison import Comparison
from fedmem.studies.report import Table, page
from tests.tiny import tiny

NATURAL: dict[str, Any] = {
    "clients": 14,
    "dataset": {"kind": "digits"},
    "partition": {"kind": "natural"},
    "population": 20,
    "injections": [{"kind": "typical", "per_client": 2}],
    "runs": 2,
    "rounds": 2,
    "sampler": {"kind": "uniform", "size": 2},
    "estimators": [{"kind": "memorisation"}],
}
OWNER = "gives each client the rows of one owner"


@dataclass(frozen=True, kw_only=True)
class Households:
    """A partition of a user's own that deals rows out by owner, and says so."""

    by_owner: ClassVar[bool] = True

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        return IID().assign(data, rows, num_clients, rng)


@dataclass(frozen=True, kw_only=True)
class Natural(Households):
    """One that has the name and not the property."""

    by_owner: ClassVar[bool] = False


def test_audit_rows_of_natural_clients_are_mostly_foreign() -> None:
    """The day this fails, rows are drawn from their owners and the warning is out of date."""
    scenario = tiny(**NATURAL)
    data = load_data(scenario)
    federation = build(scenario, data)
    assert data.natural is not None
    audit = federation.audit
    owner = dict(zip(data.train.ids.tolist(), data.natural.tolist(), strict=True))
    owners = np.unique(data.natural)
    own = [owner[one] == owners[client] for one, client in zip(audit.examples.ids.tolist(), audit.owner, strict=True)]
    assert np.mean(own) < 0.5
    base = federation.store.ids[federation.base[3]].tolist()
    assert {owner[one] for one in base} == {owners[3]}


@pytest.mark.parametrize(
    ("partition", "warned"),
    [
        ({"kind": "natural"}, True),
        ({"kind": "feature_skew", "base": {"kind": "natural"}}, True),
        ({"kind": "tests.scenario.test_caveats:Households"}, True),
        ({"kind": "flower", "partitioner": "NaturalIdPartitioner", "arguments": {"partition_by": "natural"}}, True),
        ({"kind": "tests.scenario.test_caveats:Natural"}, False),
        ({"kind": "flower", "partitioner": "DirichletPartitioner", "arguments": {"alpha": 1.0}}, False),
        ({"kind": "flower", "partitioner": "PathologicalPartitioner", "arguments": {"partition_by": "label"}}, False),
        ({"kind": "dirichlet"}, False),
    ],
)
def test_the_warning_comes_from_what_a_partition_declares(partition: dict[str, Any], warned: bool) -> None:
    scenario = tiny(**NATURAL | {"partition": partition})
    assert [OWNER in one for one in caveats(scenario)] == [True] * warned


def test_natural_partition_without_injections_has_no_caveat() -> None:
    assert not caveats(tiny(**NATURAL | {"injections": [], "estimators": [], "probes": [{"kind": "utility"}]}))
    pooled = {"central": "shuffled", "sampler": {"kind": "everyone"}}
    assert not caveats(tiny(**NATURAL | pooled)), "one model is trained on the rows of all owners"


def test_natural_partition_declares_that_it_splits_by_owner() -> None:
    by_owner = {kind for kind in kinds("partition") if class_value(load("partition", kind), RECORD, "by_owner")}
    assert "natural" in by_owner
    assert not by_owner & {"iid", "dirichlet"}


def test_check_warns(tmp_path: Path) -> None:
    file = tmp_path / "natural.yaml"
    file.write_text(tiny(**NATURAL).to_yaml())
    answer = CliRunner().invoke(app, ["check", str(file)])
    assert answer.exit_code == 0
    assert f"warning partition natural {OWNER}" in " ".join(answer.output.split())
    answer = CliRunner().invoke(app, ["check", str(file), "--set", "partition.kind=iid"])
    assert answer.exit_code == 0
    assert "warning" not in answer.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fedmem.run(tiny(**NATURAL), out=tmp_path_factory.mktemp("natural"))


def printed(what: Any) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(what, crop=False)
    console.file.close()
    return " ".join(console.export_text().split())


def test_manifest_table_and_page_of_a_run_warn(folder: Path) -> None:
    assert [OWNER in one for one in read(folder).manifest["warnings"]] == [True]
    assert f"WARNING: partition natural {OWNER}" in printed(table(folder))
    assert f"WARNING: partition natural {OWNER}" in report(folder).read_text()


def test_a_warning_is_no_alarm(folder: Path) -> None:
    assert read(folder).manifest["alarms"] == []


def test_a_run_of_before_is_warned_of_too(folder: Path) -> None:
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
    assert printed(Table(compared)).count("WARNING: partition natural") == 1
    assert page(compared, "natural", ())[0].count("WARNING: partition natural") == 1


@pytest.mark.parametrize("injections", [[], [{"kind": "random_pattern", "per_client": 1}]])
def test_a_scenario_that_measures_nothing_is_warned_of(injections: list[Any], tmp_path: Path) -> None:
    silent = tiny(runs=1, rounds=2, injections=injections)
    (text,) = caveats(silent)
    assert text.startswith("nothing is measured")
    assert "estimators: [{kind: memorisation}" in text
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
