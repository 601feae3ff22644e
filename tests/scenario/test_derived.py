"""Tests of `fedmem/scenario/derived.py`: scenarios derived from a finished run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.errors import ScenarioError
from fedmem.estimation.statistics import means_by_coin
from fedmem.execution.checked_inputs import build_federation
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


def test_examples_of_one_client_can_be_removed(parent: Run) -> None:
    removed = derived(parent, {"owners": [1], "share": None, "count": 4}).removed
    assert removed is not None
    audit, values = build(whole(parent)).audit, scores(parent)
    of_client = [subject for subject in values if audit.owner[subject] == 1]
    assert set(removed.examples) == set(sorted(of_client, key=lambda subject: -values[subject])[:4])
    assert "of 10 examples of clients 1 by" in removed.reason


def test_a_control_says_how_many_it_shares(parent: Run) -> None:
    alone = derived(parent, {"sample": "matched", "kinds": ["mislabelled"]}).removed
    chosen = derived(parent, {"kinds": ["mislabelled"]}).removed
    assert alone is not None
    assert chosen is not None
    count = len(set(alone.examples) & set(chosen.examples))
    assert f"; {count} of them are among these themselves" in alone.reason
    assert "among these" not in chosen.reason


def test_places_are_filled_as_in_the_run(tmp_path: Path) -> None:
    kinds = [{"kind": "typical", "per_client": 3}]
    scenario = tiny(injections=kinds, exclusion="remove", estimators=[{"kind": "memorisation"}], observe={}, rounds=1)
    parent = read(run(scenario, out=tmp_path))
    removed = derived(parent, {"count": 1, "share": None}).removed
    assert removed is not None
    assert removed.exclusion == "remove"
    with pytest.raises(ScenarioError, match=r"removed\.exclusion: is replace, but with exclusion: remove"):
        derived(parent, {"count": 1, "share": None, "exclusion": "replace"})


def test_a_run_of_another_version_is_refused(parent: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(parent.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "id": "0123456789ab"}))
    with pytest.raises(ScenarioError, match=r"derive\.from: .* was made by a version .*id 0123456789ab"):
        parse_scenario(json.dumps({"derive": {"from": str(copy)}}))


def test_a_run_made_from_other_data_is_refused(tmp_path: Path) -> None:
    def write(first: float) -> None:
        rows = [f"{i % 3 + first if i == 0 else i % 3},{i % 7},{'ab'[i % 2]}" for i in range(200)]
        (tmp_path / "data.csv").write_text("x,y,label\n" + "\n".join(rows) + "\n")

    write(0.0)
    data = {
        "kind": "csv",
        "path": str(tmp_path / "data.csv"),
        "target": "label",
        "ranges": {"x": (0, 2), "y": (0, 6)},
        "test": 40,
    }
    kinds = [{"kind": "typical", "per_client": 2}]
    scenario = tiny(dataset=data, injections=kinds, rounds=1, observe={}, estimators=[{"kind": "memorisation"}])
    folder = run(scenario, out=tmp_path)
    again = json.dumps({"derive": {"from": str(folder)}, "repeat": 1})
    build_federation(parse_scenario(again))
    write(0.5)
    with pytest.raises(ScenarioError, match=r"derive\.from: .* made from other data\. Changed since: the files of csv"):
        build_federation(parse_scenario(again))
    build_federation(parse_scenario(parse_scenario(again).to_yaml()))


def test_an_inner_layer_is_exposed_as_nearest_neighbours_say() -> None:
    """A and B are a close pair of one rare label: B is right if either is trained on, and without A if B is."""
    base = {"runs": 16, "injections": [{"kind": "typical", "per_client": 6}]}
    first, second = 0, 1
    values = {}
    for name, scenario in (("all", tiny(**base)), ("without A", tiny(**base, removed={"examples": [first]}))):
        federation = build(scenario)
        audit, owner = federation.audit, int(federation.audit.owner[first])
        assert audit.owner[second] == owner
        # the pair lies at 10, its nearest others at 0, with other labels
        place, label = np.zeros(len(federation.store)), np.zeros(len(federation.store))
        for example in (first, second):
            row = federation.trained_rows[example]
            place[row], label[row] = 10 + 0.1 * example, 1
        is_right = np.zeros((audit.runs, 1))
        for number in range(audit.runs):
            rows = federation.rows(number, owner, 1)
            nearest = rows[np.argmin(np.abs(place[rows] - place[federation.trained_rows[second]]))]
            is_right[number, 0] = label[nearest] == 1
        inside, outside = means_by_coin(is_right, audit.is_in[:, [second]], np.ones((1, audit.runs)))
        values[name] = float((inside - outside).squeeze())
        is_in = audit.is_in
    absent = np.mean(~is_in[~is_in[:, second], first])
    assert 0 < absent < 1
    assert values == pytest.approx({"all": absent, "without A": 1.0})


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
        ({"owners": [9]}, {}, "derive.remove.owners[0]", "clients that do: 0, 1, 2, 3, 4"),
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
