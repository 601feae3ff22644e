"""What `fedmem check` says of data: counts by name, decisions, and clients however many."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedmem.cli import data_text
from fedmem.cli.plan_text import check_file, plan_text
from tests.tiny import tiny


def said(file: Path, **changes: object) -> str:
    file.write_text(tiny(injections=[], population=0, **changes).to_yaml())
    return " ".join(plan_text(check_file(file)).split())


def test_classes_decisions_and_clients_are_counted(tmp_path: Path) -> None:
    rows = [f"{'AB'[i % 4 == 0]},{i % 10}.5,{'yes' if i % 5 == 0 else 'no'}" for i in range(100)]
    (tmp_path / "a.csv").write_text("\n".join(["site,age,ill", *rows]))
    dataset = {"kind": "csv", "path": str(tmp_path / "a.csv"), "target": "ill", "client": "site", "test": 0.2}
    text = said(
        tmp_path / "a.yaml", dataset=dataset, clients=2, partition={"kind": "natural"}, sampler={"kind": "everyone"}
    )
    assert "80 training and 20 test rows of tables, inputs 1; training rows by class: no 64, yes 16" in text
    assert "age: number, 0.5 to 9.5 (the range of the training rows)" in text
    assert "clients 2, rows without audit examples: A 60, B 20" in text


def test_many_clients_are_summed_up(tmp_path: Path) -> None:
    text = said(tmp_path / "a.yaml", clients=50)
    assert "clients 50, rows without audit examples: 8 (client 0) to 8 (client 0), median 8, in 50" in text


def test_names_with_commas_can_be_told_from_counts() -> None:
    assert data_text._counts(("St. Mary, North", "Tiny"), (90, 5), 9) == "St. Mary, North: 90; Tiny: 5"
    assert data_text._counts(("A", "B"), (1000, 5), 9) == "A 1,000, B 5"


def test_rows_are_counted_by_class_where_injections_choose_so(tmp_path: Path) -> None:
    """The table has every row that a client may train on: those of the partition, before any was chosen."""
    file = tmp_path / "a.yaml"
    changes: dict[str, object] = {"clients": 4, "partition": {"kind": "shards", "per_client": 1}, "population": 0}
    injection = {"kind": "existing", "where": {"class": 2}, "per_client": 3}
    file.write_text(tiny(**changes, injections=[]).to_yaml())
    whole = check_file(file)
    labels = whole.federation.store.targets
    wanted = [
        np.bincount(labels[rows], minlength=whole.federation.num_classes).tolist() for rows in whole.federation.base
    ]
    assert "by class" not in plan_text(whole).replace("training rows by class", "")
    (client,) = [k for k, counts in enumerate(wanted) if counts[2] == max(row[2] for row in wanted)][:1]
    file.write_text(tiny(**changes, injections=[{**injection, "clients": [client]}]).to_yaml())
    text = plan_text(check_file(file))
    found = {line.split()[1]: list(map(int, line.split()[2:])) for line in text.splitlines() if " client " in line[:22]}
    assert found[str(client)][2] >= 6
    assert found == {str(k): counts for k, counts in enumerate(wanted)}
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_table_of_many_clients_and_classes_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    injection = {"kind": "existing", "where": {"class": 2}, "per_client": 1, "clients": [0]}
    data = {"kind": "synthetic", "rows": 1200, "test": 100, "classes": 20}
    file.write_text(tiny(clients=15, dataset=data, population=0, injections=[injection]).to_yaml())
    lines = [line.strip() for line in plan_text(check_file(file)).splitlines()]
    assert sum(line.startswith("client ") for line in lines) == 12
    assert "… and 3 more clients and 8 more classes" in lines
