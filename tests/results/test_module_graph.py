"""Tests of `fedmem/results/module_graph.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.results.module_graph import imported_files
from fedmem.results.provenance import changed_inputs, modules_of, provenance_of
from tests.tiny import tiny


def test_own_modules_are_followed_transitively(own: Path) -> None:
    scenario = tiny(client={"kind": "own_client:Mine", "batch_size": 8})
    found = modules_of(scenario)
    assert set(found) == {"fedmem", "own_package", "own_package.middle", "own_package.deep"}
    manifest: dict[str, Any] = dict(provenance_of(scenario))
    for name in ("__init__", "middle", "deep"):
        file = own / "own_package" / f"{name}.py"
        kept = file.read_text()
        file.write_text(f"{kept}\n")
        assert changed_inputs(scenario, manifest) == [f"module {f'own_package.{name}'.removesuffix('.__init__')}"]
        file.write_text(kept)
    assert changed_inputs(scenario, manifest) == []
    (own / "own_package" / "deep.py").unlink()
    assert changed_inputs(scenario, manifest) == ["module own_package.deep"]


def test_packages_of_a_component_are_imported_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "outer_of_root" / "inner").mkdir(parents=True)
    (tmp_path / "outer_of_root" / "__init__.py").write_text("from outer_of_root import settings\n")
    for name in ("settings", "inner/__init__", "inner/part"):
        (tmp_path / "outer_of_root" / f"{name}.py").touch()
    names = imported_files(["outer_of_root.inner.part"], lambda name, _: name.startswith("outer_of_root"))
    assert list(names) == [f"outer_of_root{end}" for end in ("", ".inner", ".inner.part", ".settings")]


def test_fedmem_itself_counts_as_far_as_it_computes() -> None:
    computing = imported_files(
        ["fedmem.execution.run", "fedmem.engines.shared_training"],
        lambda name, _: name.startswith("fedmem."),
    )
    assert {
        "fedmem.training.stacked",
        "fedmem.engines.lockstep",
        "fedmem.estimation.estimates",
        "fedmem.strategies._rule",
    } <= set(computing)
    assert not {"fedmem.cli.main", "fedmem.reporting.page", "fedmem.studies.compare", "fedmem.clients.fedper"} & set(
        computing
    )
    scenario = tiny()
    manifest: dict[str, Any] = {**provenance_of(scenario)}
    assert changed_inputs(scenario, {**manifest, "modules": {**modules_of(scenario), "fedmem": "another"}}) == [
        "fedmem"
    ]
    assert changed_inputs(scenario, manifest) == []
