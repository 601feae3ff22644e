"""What every component of every family promises, found by walking the folders."""

import abc
import dataclasses
import doctest
import inspect
import subprocess
import sys
import typing

import pytest

from fedmem.contracts import families, members
from fedmem.contracts.families import FAMILIES
from fedmem.errors import ScenarioError
from fedmem.scenario import catalogue, describe
from tests.narrowing import present

EVERY = [(family, kind) for family in FAMILIES for kind in catalogue.kinds(family)]


@pytest.fixture(params=EVERY, ids="/".join)
def member(request: pytest.FixtureRequest) -> tuple[str, str, type]:
    family, kind = request.param
    return family, kind, catalogue.load(family, kind)


def test_is_a_frozen_keyword_only_dataclass(member: tuple[str, str, type]) -> None:
    _, _, cls = member
    assert dataclasses.is_dataclass(cls)
    assert vars(cls)["__dataclass_params__"].frozen
    assert all(item.kw_only for item in dataclasses.fields(cls))
    assert not inspect.isabstract(cls)
    bases = [base for base in cls.__mro__[1:] if base not in (object, abc.ABC)]
    assert len(bases) <= 1, "wrap instead of inheriting"
    for base in bases:
        assert inspect.isabstract(base), "classes are abstract or final"
        assert base.__module__.rpartition(".")[2].startswith("_"), "what a family has in common is private to it"


def test_class_has_the_name_of_its_kind(member: tuple[str, str, type]) -> None:
    _, kind, cls = member
    assert cls.__name__.lower() == kind.replace("_", "")


def test_keeps_the_contract_of_its_family(member: tuple[str, str, type]) -> None:
    family, kind, cls = member
    assert any(catalogue.satisfies(cls, protocol) for protocol in members.PROTOCOLS[family])
    instance = catalogue.build(family, describe.example(family, kind))
    assert any(isinstance(instance, protocol) for protocol in members.PROTOCOLS[family])


def test_methods_have_the_parameter_names_of_the_contract(member: tuple[str, str, type]) -> None:
    family, _, cls = member
    protocol = next(item for item in members.PROTOCOLS[family] if catalogue.satisfies(cls, item))
    for name, asked in vars(protocol).items():
        if inspect.isfunction(asked) and not name.startswith("_"):
            given = getattr(cls, name)
            assert list(inspect.signature(given).parameters) == list(inspect.signature(asked).parameters), name


def test_docstring_explains_every_field_and_has_an_example(member: tuple[str, str, type]) -> None:
    _, _, cls = member
    assert set(catalogue.explain(cls)) == {item.name for item in dataclasses.fields(cls)}
    assert all(meaning for meaning in catalogue.explain(cls).values())
    assert doctest.DocTestParser().get_examples(present(cls.__doc__))


def test_module_summary_is_one_short_sentence(member: tuple[str, str, type]) -> None:
    family, kind, _ = member
    line = describe.summary(family, kind)
    assert line.endswith(".")
    assert len(line) <= 120


def test_yaml_builds_it_and_comes_back_the_same(member: tuple[str, str, type]) -> None:
    family, kind, cls = member
    mapping = describe.example(family, kind)
    instance = catalogue.build(family, mapping)
    assert type(instance) is cls
    assert families.kind_of(instance) == kind
    assert catalogue.dump(instance) == mapping
    assert catalogue.build(family, catalogue.dump(instance)) == instance
    assert hash(instance) == hash(catalogue.build(family, mapping))


def test_refuses_what_it_does_not_know(member: tuple[str, str, type]) -> None:
    family, kind, _ = member
    with pytest.raises(ScenarioError, match="unknown key") as caught:
        catalogue.build(family, {**describe.example(family, kind), "no_such_field": 1})
    assert [problem.path for problem in caught.value.problems] == ["no_such_field"]


def test_refuses_numbers_that_are_not_numbers(member: tuple[str, str, type]) -> None:
    family, kind, cls = member
    hints = typing.get_type_hints(cls, localns=catalogue._NAMES)
    numbers = [item.name for item in dataclasses.fields(cls) if hints[item.name] in (int, float)]
    for name in numbers:
        with pytest.raises(ScenarioError) as caught:
            catalogue.build(family, {**describe.example(family, kind), name: "many"})
        assert caught.value.problems[0].path == name


def test_can_be_shown(member: tuple[str, str, type]) -> None:
    family, kind, cls = member
    facts = describe.field_facts(family, kind)
    assert [fact.name for fact in facts if "." not in fact.name] == [item.name for item in dataclasses.fields(cls)]
    assert all(fact.type and fact.meaning for fact in facts)
    assert "kind" not in {fact.name for fact in facts}


def test_loading_all_but_strategies_imports_nothing_heavy() -> None:
    # Strategies are Flower's, which imports what it likes; the rest must not slow `fedmem check` down.
    light = [pair for pair in EVERY if pair[0] != "strategy"]
    code = (
        "import sys\nfrom fedmem.scenario import catalogue\n"
        f"for pair in {light!r}:\n    catalogue.load(*pair)\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'scipy', 'pandas', 'flwr', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
