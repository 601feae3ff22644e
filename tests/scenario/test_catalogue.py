"""From a kind to a class, and what is said where there is none."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.contracts import families
from fedmem.errors import ComponentError, FedmemError, ScenarioError
from fedmem.scenario import catalogue, describe
from tests.scenario.catalogue_helpers import THEIRS, problems


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of somebody else's, importable as `theirs`."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "broken.py").write_text("import there_is_no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "theirs"
    sys.modules.pop("theirs", None)


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables or None)


def test_kinds_are_the_files_without_a_leading_underscore() -> None:
    folder = Path(fedmem.__file__).parent / "partitions"
    assert catalogue.kinds("partition") == tuple(sorted(p.stem for p in folder.glob("*.py") if p.stem[0] != "_"))
    assert "_rule" not in catalogue.kinds("strategy")


def test_unknown_family_gets_a_suggestion_and_the_families() -> None:
    with pytest.raises(ScenarioError, match=r"'partitions' \(did you mean 'partition'\?\); choose from: dataset, "):
        catalogue.kinds("partitions")


def test_listing_imports_nothing_and_loading_imports_one_module() -> None:
    code = (
        "import sys\nfrom fedmem.scenario import catalogue\nfrom fedmem.contracts.families import FAMILIES\n"
        "for family in FAMILIES: catalogue.kinds(family)\n"
        "inside = lambda: [m for m in sys.modules if any(m.startswith(p + '.') for p in FAMILIES.values())]\n"
        "print(inside())\ncatalogue.load('sampler', 'uniform')\nprint(inside())"
    )
    assert python(code).stdout.split("\n")[:2] == ["[]", "['fedmem.samplers.uniform']"]


def test_a_folder_of_a_family_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FAMILIES", {"strategy": "fedmem.nowhere"})
    with pytest.raises(FedmemError, match=r"fedmem\.nowhere is missing"):
        catalogue.kinds("strategy")


def test_unknown_kind_gets_a_suggestion_and_the_kinds() -> None:
    said = problems("partition", {"kind": "dirichelt"})["kind"]
    start, _, kinds = said.partition("; choose from: ")
    assert start == "unknown kind 'dirichelt' (did you mean 'dirichlet'?)"
    assert {"dirichlet", "feature_skew", "flower", "iid"} <= set(kinds.split(", "))


@pytest.mark.parametrize("given", [None, 3, "uniform", ["uniform"], {}])
def test_value_that_is_no_component_lists_the_kinds(given: object) -> None:
    said = " ".join(problems("sampler", given).values())
    assert "uniform" in said or f"kind: {catalogue.kinds('sampler')[0]}" in said


def test_all_fields_are_checked_at_once() -> None:
    said = problems("client", {"kind": "sgd", "lr": 0, "epochs": 2.5, "steps": "x", "momentum": True, "epoch": 3})
    assert set(said) == {"lr", "epochs", "steps", "momentum", "epoch"}
    assert said["lr"] == "should be greater than 0, got 0"
    assert said["epochs"] == "should be a whole number, got 2.5"
    assert said["momentum"] == "should be a number, got True"
    assert "did you mean 'epochs'?" in said["epoch"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(value: float) -> None:
    assert "finite" in problems("client", {"kind": "sgd", "momentum": value})["momentum"]


def test_a_wrong_item_of_a_list_is_named_by_its_position() -> None:
    assert set(problems("model", {"kind": "mlp", "hidden": [8, 0, "x"]})) == {"hidden[1]", "hidden[2]"}


def test_nested_component_is_built_and_errors_have_full_paths() -> None:
    built = catalogue.build("estimator", {"kind": "membership", "attack": {"kind": "lira"}})
    assert families.kind_of(built.attack) == "lira"
    assert set(problems("estimator", {"kind": "membership", "attack": {"kind": "lira", "x": 1}})) == {"attack.x"}
    assert set(problems("estimator", {"kind": "membership"})) == {"attack"}


def test_nested_component_of_wrong_contract_lists_those_that_fit() -> None:
    said = problems("estimator", {"kind": "membership", "attack": {"kind": "inverting_gradients"}})["attack.kind"]
    assert said.startswith("'inverting_gradients' is no membership attack")
    kinds = said.partition("choose from: ")[2].split(", ")
    assert {"lira", "loss_threshold", "rmia"} <= set(kinds)
    assert "inverting_gradients" not in kinds


def test_components_nest_in_tuples_and_in_optional_fields(theirs: str) -> None:
    mapping = {"kind": "theirs:Ensemble", "attacks": [{"kind": "lira"}, {"kind": "loss_threshold"}], "fallback": None}
    built = catalogue.build("estimator", mapping)
    assert [families.kind_of(attack) for attack in built.attacks] == ["lira", "loss_threshold"]
    assert catalogue.build("estimator", catalogue.dump(built)) == built
    assert set(problems("estimator", {**mapping, "attacks": [{"kind": "lira"}, {"kind": "lria"}]})) == {
        "attacks[1].kind"
    }
    assert set(problems("estimator", {**mapping, "fallback": {"kind": "lria"}})) == {"fallback.kind"}
    assert catalogue.nested_family(type(built), "attacks") == "attack"
    assert catalogue.nested_family(type(built), "fallback") == "attack"


def test_somebody_elses_component_is_checked_like_ours(theirs: str) -> None:
    built = catalogue.build("partition", {"kind": "theirs:Halves", "share": 0.25})
    assert catalogue.dump(built) == {"kind": "theirs:Halves", "share": 0.25}
    assert set(problems("partition", {"kind": "theirs:Halves", "share": -1})) == {"share"}


@pytest.mark.parametrize(
    ("family", "kind", "says"),
    [
        ("partition", "theirs:Halvs", "has no class 'Halvs' (did you mean 'Halves'?)"),
        ("partition", "theirs:Plain", "must be a frozen, keyword-only dataclass"),
        (
            "partition",
            "theirs:Picky",
            "is no partition, for it has no assign; choose from: ",
        ),
        ("partition", "nowhere_at_all:X", "importing 'nowhere_at_all' failed: ModuleNotFoundError"),
        ("partition", "broken:X", "there_is_no_such_module_anywhere"),
        ("partition", "../theirs:X", "is no package.module:Class"),
        ("sampler", "theirs:Lost", "cannot be resolved"),
    ],
)
def test_mistakes_in_own_modules_are_explained(theirs: str, family: str, kind: str, says: str) -> None:
    assert says in problems(family, {"kind": kind})["kind"]


def test_component_refusing_its_fields_is_a_scenario_problem(theirs: str) -> None:
    assert problems("sampler", {"kind": "theirs:Picky", "size": 3}) == {"": "size 3 is odd; use 4"}


def test_component_may_name_its_key_by_full_or_relative_path(theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = catalogue.load("sampler", "theirs:Picky")
    for path in ("size", "sampler.size"):

        def refuse(self: object, path: str = path) -> None:
            raise ComponentError(path, "no")

        monkeypatch.setattr(cls, "__post_init__", refuse)
        assert problems("sampler", {"kind": "theirs:Picky"}) == {"size": "no"}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("flwr.serverapp.strategy:Strategy", "is abstract: aggregate_evaluate, aggregate_train"),
        ("theirs:Stuck", "it has no start"),
        ("theirs:Plain", "it has no start"),
    ],
)
def test_classes_that_are_no_strategy_are_refused_early(theirs: str, kind: str, says: str) -> None:
    assert says in problems("strategy", {"kind": kind})["kind"]


def test_suggestions_are_the_modules_own_classes_only(theirs: str) -> None:
    said = problems("partition", {"kind": "theirs:Thirds"})["kind"]
    assert "choose from: Halves, Picky, Ensemble, Plain, Mine" in said
    assert "Gt" not in said
    assert "MembershipAttack" not in said
    assert "it defines none" in problems("partition", {"kind": "this:Halves"})["kind"]
    flower = problems("strategy", {"kind": "flwr.serverapp.strategy:FedAgv"})["kind"]
    assert "did you mean 'FedAvg'?" in flower


@pytest.mark.parametrize(
    ("mapping", "path", "says"),
    [
        ({"kind": "small_cnn", "channels": [1]}, "channels[1]", "is missing"),
        ({"kind": "small_cnn", "channels": [1, 2, 3]}, "channels", "at most 2 entries"),
        ({"kind": "mlp", "hidden": [10**20]}, "hidden[0]", "less than or equal to 100000000"),
    ],
)
def test_lists_have_their_lengths_and_numbers_their_bounds(mapping: dict[str, Any], path: str, says: str) -> None:
    assert says in problems("model", mapping)[path]


def test_every_whole_number_of_every_component_has_an_upper_end() -> None:
    facts = [
        (family, kind, fact.name)
        for family in families.FAMILIES
        for kind in catalogue.kinds(family)
        for fact in describe.field_facts(family, kind)
        if fact.type.startswith("whole number")
    ]
    assert len(facts) > 10
    for family, kind, name in facts:
        section, _, field = name.rpartition(".")
        given = {section: {field: 10**20}} if section else {field: 10**20}
        assert "less than or equal to" in problems(family, {"kind": kind, **given})[name]


def test_the_model_of_the_fields_keeps_bounds_and_defaults() -> None:
    model = catalogue.fields_model(catalogue.load("client", "sgd"))
    names = [item.name for item in fields(catalogue.load("client", "sgd"))]
    assert list(model.model_fields) == names
    assert model.model_validate({}).model_dump()["lr"] == 0.1


def test_satisfies_counts_fields_without_a_default() -> None:
    from fedmem.contracts.probe import Probe

    @dataclass(frozen=True, kw_only=True)
    class Whole:
        every: int | None
        levels: tuple[str, ...]

        def observe(self, transitions: object, context: object) -> None: ...

        def summarise(self, measurements: object, seed: object) -> None: ...

    class Part:
        def observe(self, transitions: object, context: object) -> None: ...

    assert catalogue.satisfies(Whole, Probe)
    assert not catalogue.satisfies(Part, Probe)


def test_fields_are_explained_from_both_docstring_layouts() -> None:
    class Bullets:
        """What.

        Fields

        - `a`: first,
          continued.
        - `b`: second.

        Guarantees:

        - c: none.
        """

    class Google:
        """What.

        Fields:
            a: first,
                continued.
            b: second.

        >>> c: 3
        """

    assert catalogue.explain(Bullets) == {"a": "first, continued.", "b": "second."}
    assert catalogue.explain(Google) == {"a": "first, continued.", "b": "second."}


def test_a_missing_component_is_answered_with_its_kinds() -> None:
    with pytest.raises(ScenarioError, match=r"attack: is missing; give it: attack: \{kind: lira\} \(attack_p, "):
        catalogue.build("estimator", {"kind": "membership"})
