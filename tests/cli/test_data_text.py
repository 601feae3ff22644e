"""What `fedmem check` says of data: counts by name, decisions, and clients however many."""

from __future__ import annotations

from pathlib import Path

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
