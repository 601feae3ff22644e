"""Tests of `fedmem/scenario/derived.py`: scenarios derived from a finished run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.errors import ScenarioError
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.results.read import Run, read
from fedmem.scenario.loading import load_scenario, parse_scenario
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.unfolding import last_phase
from tests.tiny import tiny


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    kinds = [{"kind": "mislabelled", "per_client": 4}, {"kind": "typical", "per_client": 6}]
    scenario = tiny(runs=8, rounds=2, injections=kinds, estimators=[{"kind": "memorisation"}], observe={})
    return read(run(scenario, out=tmp_path_factory.mktemp("parent")))


def derived(parent: Run, remove: dict[str, Any] | None = None, **others: Any) -> Scenario:
    entire = {"by": "memorisation", "labels": {"statistic": "probability"}, "share": 0.2, **(remove or {})}
    content = {"derive": {"from": str(parent.path), "remove": entire}, **others}
    return parse_scenario(json.dumps(content), "derived")


def whole(parent: Run) -> Scenario:
    return load_scenario(parent.path / "scenario.yaml")


def scores(parent: Run, level: str = "global") -> dict[int, float]:
    frame = parent.measurements.query(
        f"metric == 'memorisation' and scope == 'summary' and level == '{level}' and statistic == 'probability'"
    )
    frame = frame[frame["subject"].str.isdigit() & (frame["place"] != "others")]
    return dict(zip(frame["subject"].astype(int), frame["value"], strict=True))


@pytest.mark.parametrize("level", ["global", "local"])
@pytest.mark.parametrize("lowest", [False, True])
def test_the_ends_of_the_scores_are_removed(parent: Run, level: str, lowest: bool) -> None:
    removed = derived(parent, {"level": level, "lowest": lowest}).removed
    assert removed is not None
    values = scores(parent, level)
    ordered = sorted(values, key=lambda subject: values[subject], reverse=not lowest)
    assert removed.examples == tuple(sorted(ordered[: round(0.2 * len(values))]))
    assert f"by memorisation at level {level}" in removed.reason


def test_all_others_keep_their_coins_and_owners(parent: Run) -> None:
    before, after = build(whole(parent)), build(derived(parent))
    assert np.array_equal(before.audit.is_in, after.audit.is_in)
    assert np.array_equal(before.audit.owner, after.audit.owner)
    known = before.replacement >= 0
    assert np.array_equal(before.replacement[known], after.replacement[known])


def test_without_a_removal_it_is_the_same_scenario(parent: Run) -> None:
    text = json.dumps({"derive": {"from": str(parent.path)}, "name": "tiny"})
    assert parse_scenario(text).id == whole(parent).id
    again = parse_scenario(text, overrides=["repeat=1"])
    assert (again.id != whole(parent).id, again.training_seed != whole(parent).training_seed) == (True, True)


def test_a_matched_control_has_the_same_kinds_owners_and_labels(parent: Run) -> None:
    audit = build(whole(parent)).audit

    def cells(scenario: Scenario) -> Counter[tuple[str, int, int]]:
        assert scenario.removed is not None
        rows = list(scenario.removed.examples)
        return Counter(
            zip(
                audit.kind[rows].tolist(), audit.owner[rows].tolist(), audit.examples.labels[rows].tolist(), strict=True
            )
        )

    some = [derived(parent, {"sample": "matched", "kinds": ["typical"], "draw": draw}) for draw in range(6)]
    assert all(cells(one) == cells(derived(parent, {"kinds": ["typical"]})) for one in some)
    assert len({one.removed.examples for one in some if one.removed}) > 1


def test_a_phase_is_no_parent(tmp_path: Path) -> None:
    phase = run(last_phase(tiny(rounds=1, observe={}, then=[{"rounds": 1}])), out=tmp_path)
    with pytest.raises(ScenarioError, match="is a phase"):
        parse_scenario(json.dumps({"derive": {"from": str(phase)}}))


def test_removals_add_up(parent: Run, tmp_path: Path) -> None:
    first = derived(parent, {"count": 2, "share": None})
    second = derived(read(run(first, out=tmp_path)), {"count": 2, "share": None})
    assert first.removed is not None
    assert second.removed is not None
    assert set(first.removed.examples) < set(second.removed.examples)
    assert len(second.removed.examples) == 4


def test_equal_scores_are_chosen_at_random(parent: Run) -> None:
    removed = derived(parent, {"labels": {"statistic": ""}, "count": 3, "share": None}).removed
    assert removed is not None
    assert "have the value at the border" in removed.reason


def test_a_derived_scenario_is_stored_as_a_whole(parent: Run) -> None:
    scenario = derived(parent)
    again = parse_scenario(scenario.to_yaml())
    assert (again, again.derive) == (scenario, None)


@pytest.mark.parametrize(
    ("remove", "others", "path", "part"),
    [
        ({"by": "memorization"}, {}, "derive.remove.by", "did you mean 'memorisation'"),
        ({"labels": {}}, {}, "derive.remove.labels", "statistic: (none); statistic: probability"),
        ({"labels": {"statistc": 1}}, {}, "derive.remove.labels.statistc", "did you mean 'statistic'"),
        ({"labels": {"statistic": "x"}}, {}, "derive.remove.labels", "none with these labels"),
        ({"kinds": ["typcal"]}, {}, "derive.remove.kinds[0]", "did you mean 'typical'"),
        ({"share": 1.0}, {}, "derive.remove", "none would be left"),
        ({"share": None}, {}, "derive.remove", "either share or count"),
        ({"count": 1}, {}, "derive.remove", "either share or count"),
        ({"share": 2}, {}, "derive.remove.share", "less than or equal to 1"),
        ({}, {"seed": 4}, "seed", "keep their random inclusion and owners"),
        ({}, {"runs": 4}, "runs", "keep their random inclusion and owners"),
    ],
)
def test_what_cannot_be_derived_is_refused(
    parent: Run, remove: dict[str, Any], others: dict[str, Any], path: str, part: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        derived(parent, remove, **others)
    (problem,) = caught.value.problems
    assert (problem.path, part in problem.message) == (path, True), problem.message


@pytest.mark.parametrize("content", [None, "{}", "[1"])
def test_a_folder_without_a_whole_run_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text("{}")
        (tmp_path / "scenario.yaml").write_text(content)
    with pytest.raises(ScenarioError, match=r"derive\.from"):
        parse_scenario(json.dumps({"derive": {"from": str(tmp_path), "remove": {"by": "memorisation", "count": 1}}}))
