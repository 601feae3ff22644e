"""Tests of `fedmem/results/module_graph.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_fedmem_itself_counts_as_far_as_it_computes() -> None:
    computing = imported_files(
        ["fedmem.execution.run", "fedmem.engines.shared_training"],
        lambda name, _: name.startswith(("fedmem.", "strategies.")),
    )
    assert {
        "fedmem.training.stacked",
        "fedmem.engines.lockstep",
        "fedmem.estimation.estimates",
        "strategies._rule",
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
