"""The JSON Schema: that it is whole, up to date, accepts what is right and refuses what is wrong."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.contracts.families import FAMILIES
from fedmem.scenario import catalogue, describe, yaml_source
from fedmem.scenario.json_schema import scenario_schema, text_of_schema
from fedmem.scenario.loading import load_scenario, parse_scenario
from fedmem.scenario.overrides import FAMILY_OF_FIELD
from fedmem.scenario.scenario import Scenario
from tests.test_prose import MAX_WORDS, count_words, paragraphs, sentences
from tests.test_words import FOR_READERS
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
EVERY = [(family, kind) for family in FAMILIES for kind in catalogue.kinds(family)]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return scenario_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def descriptions(node: object) -> Iterator[str]:
    """All descriptions in a schema, which editors show."""
    if isinstance(node, dict):
        yield from [text] if isinstance(text := node.get("description"), str) else []
        for value in node.values():
            yield from descriptions(value)
    elif isinstance(node, list):
        for value in node:
            yield from descriptions(value)


def test_sentences_of_descriptions_are_short(schema: dict[str, Any]) -> None:
    """The second sentence of a component may begin with a symbol in lower case."""
    texts = set(descriptions(schema))
    assert len(texts) > 200
    split = [part for text in texts for paragraph in paragraphs(text) for part in sentences(paragraph)]
    short = [sentence for part in split for sentence in part.split(". ")]
    assert [sentence for sentence in short if count_words(sentence) > MAX_WORDS] == []


@pytest.mark.parametrize("word", FOR_READERS)
def test_descriptions_have_no_words_of_code(schema: dict[str, Any], word: str) -> None:
    texts = (re.sub(r"`[^`]*`", "", text) for text in set(descriptions(schema)))
    assert [text for text in texts if re.search(rf"\b({word})\b", text, re.IGNORECASE)] == [], FOR_READERS[word]


def messages(validator: jsonschema.Draft202012Validator, value: object) -> list[Any]:
    return [jsonschema.exceptions.best_match([error]) for error in validator.iter_errors(value)]


def test_every_key_and_every_field_is_described(schema: dict[str, Any]) -> None:
    def walk(node: dict[str, Any], path: str) -> None:
        for name, inner in node.get("properties", {}).items():
            assert inner.get("description", "")[-1:] in (".", "?"), f"{path}.{name}"
            walk(inner, f"{path}.{name}")

    assert list(schema["properties"]) == list(Scenario.model_fields)
    walk(schema, "")
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        walk(definition, name)


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_every_kind_has_its_fields_with_defaults(
    schema: dict[str, Any], validator: jsonschema.Draft202012Validator, family: str, kind: str
) -> None:
    definition = schema["$defs"][f"{family}.{kind}"]
    cls = catalogue.load(family, kind)
    assert list(definition["properties"]) == ["kind", *(item.name for item in dataclasses.fields(cls))]
    assert definition["properties"]["kind"]["const"] == kind
    mapping = describe.example(family, kind)
    one = validator.evolve(schema={**definition, "$defs": schema["$defs"]})
    assert not list(one.iter_errors(mapping))
    for name, value in mapping.items():
        if "default" in definition["properties"][name]:
            assert definition["properties"][name]["default"] == value
    assert list(one.iter_errors({**mapping, "no_such_field": 1}))


def test_bounds_words_and_defaults_are_those_of_the_fields(schema: dict[str, Any]) -> None:
    sgd = schema["$defs"]["client.sgd"]["properties"]
    assert sgd["momentum"] == {
        "minimum": 0,
        "exclusiveMaximum": 1,
        "type": "number",
        "default": 0.0,
        "description": "Share of the velocity carried to the next step.",
    }
    assert sgd["steps"]["anyOf"][1] == {"type": "null"}
    assert schema["$defs"]["attack.lira"]["properties"]["variance"]["enum"] == ["auto", "pooled", "per_example"]
    assert schema["properties"]["exclusion"]["enum"] == ["replace", "remove"]
    assert schema["properties"]["partition"]["default"]["kind"] == "iid"
    assert schema["properties"]["rounds"]["maximum"] == 10**6


def test_a_field_takes_only_the_attacks_that_fit(schema: dict[str, Any]) -> None:
    kinds = [ref["$ref"].rpartition(".")[2] for ref in schema["$defs"]["attack.MembershipAttack"]["oneOf"][:-1]]
    assert "lira" in kinds
    assert "inverting_gradients" not in kinds


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_carry_the_schema_and_keep_it(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1] == "# yaml-language-server: $schema=./scenario.schema.json"
    assert not messages(validator, yaml_source.read_file(path).value)
    assert not messages(validator, json.loads(json.dumps(load_scenario(path).dump())))


WRONG = {
    "nothing": {},
    "unknown key": {**TINY, "cleints": 3},
    "missing model": {key: value for key, value in TINY.items() if key != "model"},
    "unknown kind": {**TINY, "partition": {"kind": "dirichelt"}},
    "no kind": {**TINY, "partition": {"alpha": 0.1}},
    "unknown field": {**TINY, "sampler": {"kind": "uniform", "rate": 0.5}},
    "below the bound": {**TINY, "sampler": {"kind": "uniform", "size": 0}},
    "at an excluded bound": {**TINY, "client": {"kind": "sgd", "lr": 0}},
    "text for a number": {**TINY, "rounds": "4"},
    "a fraction for a whole number": {**TINY, "rounds": 4.5},
    "a word that is no choice": {**TINY, "exclusion": "drop"},
    "a component in place of a list": {**TINY, "injections": {"kind": "typical"}},
    "text in place of a component": {**TINY, "strategy": "fedavg"},
    "an attack that does not fit": {
        **TINY,
        "estimators": [{"kind": "membership", "attack": {"kind": "inverting_gradients"}}],
    },
    "an attack left out": {**TINY, "estimators": [{"kind": "membership"}]},
    "a wrong field deep inside": {
        **TINY,
        "estimators": [{"kind": "membership", "attack": {"kind": "lira", "variance": "none"}}],
    },
    "a name that is no folder": {**TINY, "name": "../x"},
    "a key of a part": {**TINY, "observe": {"evry": 2}},
    "a wrong mapping of clients": {**TINY, "injections": [{"kind": "typical", "clients": {"shares": 0.5}}]},
    "half a class": {**TINY, "strategy": {"kind": "module:"}},
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_invalid_scenarios_are_refused_by_schema_and_loader(
    validator: jsonschema.Draft202012Validator, value: dict[str, Any]
) -> None:
    assert messages(validator, value)
    with pytest.raises(Exception, match=r".") as caught:
        parse_scenario(json.dumps(value), name="wrong")
    assert type(caught.value).__name__ == "ScenarioError"


def test_only_one_schema_alternative_has_the_kind(
    schema: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    """Alternatives are told apart by their kind, so that an editor can say what is wrong with this one."""
    (error,) = validator.iter_errors({**TINY, "sampler": {"kind": "uniform", "size": 0}})
    place = [ref.get("$ref") for ref in schema["$defs"]["sampler"]["oneOf"]].index("#/$defs/sampler.uniform")
    wrong_kind = {error.schema_path[0] for error in error.context if list(error.path) == ["kind"]}
    assert wrong_kind == set(range(len(schema["$defs"]["sampler"]["oneOf"]))) - {place}
    assert [e.message for e in error.context if e.schema_path[0] == place] == ["0 is less than the minimum of 1"]


def test_flower_strategy_of_a_user_is_accepted_by_the_schema(validator: jsonschema.Draft202012Validator) -> None:
    assert not messages(validator, TINY)
    stock = {"kind": "flwr.serverapp.strategy:FedYogi", "eta": 0.01}
    assert not messages(validator, {**TINY, "strategy": stock})
    assert set(FAMILY_OF_FIELD.values()) < set(FAMILIES)


def test_the_command_prints_it_or_writes_it(tmp_path: Path, schema: dict[str, Any]) -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == schema
    place = tmp_path / "s.json"
    done = CliRunner().invoke(app, ["schema", "--out", str(place)])
    assert done.stdout.strip() == str(place)
    assert place.read_text(encoding="utf-8") == text_of_schema()
    done = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "no" / "s.json")])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
