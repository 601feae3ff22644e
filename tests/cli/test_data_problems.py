"""Tests of `fedmem/cli/data_problems.py`: one check says what is wrong with the data, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.cli.plan_text import check_file
from fedmem.errors import ScenarioError

TEXT = """
runs: 8
rounds: 2
clients: 4
dataset: {kind: digits}
model: {kind: mlp}
injections: [{kind: typical, per_client: PER_CLIENT}]
estimators: [{kind: memorisation}]
"""


def paths(tmp_path: Path, per_client: int, old: str = "", new: str = "") -> list[str]:
    """Where `fedmem check` finds mistakes."""
    file = tmp_path / "study.yaml"
    file.write_text(TEXT.replace("PER_CLIENT", str(per_client)).replace(old, new) if old else TEXT)
    with pytest.raises(ScenarioError) as caught:
        check_file(file)
    return [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("kind: mlp", "kind: mlp, hiddn: [3]", "model.hiddn"),
        ("{kind: memorisation}", "{kind: memorisation}, {kind: membership}", "estimators[1].attack"),
        ("rounds: 2", "rounds: 2\nstrateg: {kind: fedavg}", "strateg"),
    ],
)
def test_a_shortage_of_rows_is_reported_beside_other_mistakes(tmp_path: Path, old: str, new: str, path: str) -> None:
    assert paths(tmp_path, 400, old, new) == [path, "injections"]
    assert paths(tmp_path, 4, old, new) == [path]


def test_a_mistake_about_the_data_stands_alone(tmp_path: Path) -> None:
    """With a part of it left out, the data would be others, and what is said of them might be wrong."""
    assert paths(tmp_path, 400, "{kind: digits}", "{kind: digits, tests: 3}") == ["dataset.tests"]
    assert paths(tmp_path, 400, "kind: mlp", "kind: mpl") == ["model.kind"]
