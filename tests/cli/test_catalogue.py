"""Tests of `fedmem/cli/catalogue.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedmem.contracts.families import FAMILIES
from fedmem.errors import ComponentError, ScenarioError
from fedmem.scenario import catalogue, describe, yaml_source
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.overrides import FAMILY_OF_FIELD
from fedmem.shipped.files import folder
from fedmem.studies import sweep_file
from tests.cli.main_helpers import SMALL, call
from tests.narrowing import present
from tests.tiny import TINY


def test_list_names_every_kind_of_every_family() -> None:
    said = call("list").stdout
    for family in FAMILIES:
        assert re.search(rf"^{family}$", said, re.MULTILINE)
        for kind in catalogue.kinds(family):
            assert re.search(rf"^  {kind} +\S", said, re.MULTILINE)


def test_list_of_one_family() -> None:
    assert [line.split()[0] for line in call("list", "sampler").stdout.splitlines()] == list(catalogue.kinds("sampler"))


def test_list_of_scenarios_says_what_each_asks() -> None:
    lines = call("list", "scenarios").stdout.splitlines()
    names = [path.stem for path in sorted(folder().glob("*.yaml"))]
    assert [line.split()[0] for line in lines] == names
    assert "?" in lines[names.index("quickstart")]
    assert all(len(line.split()) > 3 and "fedmem run" not in line.split("  ")[1] for line in lines)


def test_list_of_an_unknown_family() -> None:
    done = call("list", "samplers")
    assert done.exit_code == 2
    assert "did you mean 'sampler'?" in done.stderr


@pytest.mark.parametrize(
    ("family", "kind", "says"),
    [
        ("client", "sgd", ["momentum", "≥ 0, < 1", "0.1", "whole number or null"]),
        ("strategy", "fedavg", ["size, uniform"]),
        ("probe", "leakage", ["inverting_gradients", "(must be given)", "probes:\n- kind: leakage\n"]),
        ("sampler", "everyone", ["sampler: {kind: everyone}"]),
        ("injection", "typical", ["all of its family have", "- `stop`: last round in which an in"]),
        ("strategy", "flwr.serverapp.strategy:FedProx", ["proximal_mu"]),
        ("model", "huggingface", ["peft          mapping or null", "peft.targets", "It may be left out", "by `r`"]),
    ],
)
def test_show_explains_fields_and_gives_an_example(family: str, kind: str, says: list[str]) -> None:
    done = call("show", family, kind)
    assert done.exit_code == 0, done.stderr
    for text in says:
        assert text in done.stdout


STRATEGY = """\
from flwr.serverapp.strategy import FedAvg


class Mine(FedAvg):
    def __init__(self, fraction: float = 0.5, hook=None, **kwargs):
        super().__init__(**kwargs)
"""


def test_show_of_an_own_flower_strategy_has_no_empty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first line says where it is defined; its defaults are those that fedmem gives it."""
    monkeypatch.chdir(tmp_path)
    Path("mine_shown.py").write_text(STRATEGY)
    done = call("show", "strategy", "mine_shown:Mine")
    assert done.exit_code == 0, done.stderr
    first, empty, header, *rows = done.stdout.splitlines()
    assert first == "Flower strategy mine_shown:Mine, defined in mine_shown.py:4"
    assert (empty, header.split()) == ("", ["field", "type", "default", "allowed"])
    facts = {row.split()[0]: row.split()[1:] for row in rows[: rows.index("")]}
    assert all(len(cells) >= 2 for cells in facts.values())
    assert facts["fraction"] == ["number", "0.5"]
    assert facts["fraction_evaluate"] == ["number", "0.0"]
    assert facts["min_train_nodes"] == ["whole", "number", "1"]
    assert facts["hook"] == ["any", "null", "not", "checked"]
    assert rows[rows.index("") + 1 :] == ["strategy: {kind: 'mine_shown:Mine'}"]


def test_show_keeps_the_lines_of_a_parameter_section() -> None:
    lines = call("show", "strategy", "flwr.serverapp.strategy:FedYogi").stdout.splitlines()
    assert lines[0].startswith("Flower strategy flwr.serverapp.strategy:FedYogi, defined in ")
    assert lines[0].partition(".py:")[0].endswith("fedyogi")
    assert lines[lines.index("Parameters") + 1] == "----------"
    assert "tau : float, optional" in lines


def test_the_example_of_show_is_yaml_that_builds_the_component() -> None:
    line = call("show", "partition", "dirichlet").stdout.strip().splitlines()[-1]
    read = yaml_source.read_text(line, "x").value
    assert catalogue.dump(catalogue.build("partition", read["partition"])) == read["partition"]


EVERY = [(family, kind) for family in FAMILIES for kind in catalogue.kinds(family)]


def wrong_places(text: str) -> set[str]:
    try:
        parse_scenario(text)
    except ScenarioError as error:
        return {problem.path for problem in error.problems}
    return set()


SIGNALS_OF = {
    "localisation": ("block_swap",),
    "client_values": ("client_value",),
    "attribute_precision": ("attribute_inference",),
    "property_inference": ("update_features",),
    "client_attribute": ("update_features", "row_share"),
    "shadow_federations": ("weight_features",),
}
"""The signals that estimators read."""

_POISON = [{"kind": "typical"}, {"kind": "privacy_poison", "aims_at": "typical"}]
INJECTIONS = {"privacy_poison": _POISON, "poisoning": _POISON, "backdoor_success": [{"kind": "backdoor"}]}
"""Injections that a kind needs beside it."""


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_printed_example_of_show_can_be_pasted_into_a_scenario(family: str, kind: str) -> None:
    """Its last paragraph is a key of a scenario, whose component is of this kind or holds one."""
    said = call("show", family, kind)
    assert said.exit_code == 0, said.stderr
    read = yaml_source.read_text(said.stdout.rpartition("\n\n")[2], "x")
    assert not read.problems
    pasted = {**TINY, "runs": 16, "leave_out": {"clients": "all"}, "roster": "pilot"}
    ((field, value),) = read.value.items()
    if field == "then":  # what a phase alone has, which forgets a kind of this scenario
        # and which starts from no pilot, and may read the models of the first training
        pasted |= {"then": value, "roster": "shared", "observe": {"every": 1}}
        pasted["save"] = {"models": {"rounds": [1, 2, 3, 4], "levels": ["local", "global"]}}
        ours = ("rounds", "forget", "relearn")
        ((field, value),) = ((key, part) for key, part in value[-1].items() if key not in ours)
    else:
        pasted[field] = value
    host = FAMILY_OF_FIELD[field]
    (mapping,) = value if field.endswith("s") and isinstance(value, list) else [value]
    assert catalogue.dump(catalogue.build(host, mapping)) == mapping
    while host != family:
        name = next(key for key, inner in mapping.items() if isinstance(inner, dict) and "kind" in inner)
        host, mapping = present(catalogue.nested_family(catalogue.load(host, mapping["kind"]), name)), mapping[name]
    assert mapping == describe.example(family, kind)
    if family == "partition" or kind == "dp_ftrl":  # which counts on the pauses between the turns of a client
        pasted["sampler"] = {"kind": "everyone"}
    if kind in ("canary_clients", "mechanism"):  # which read clients and noise that a private strategy has
        pasted |= {
            "sampler": {"kind": "poisson", "rate": 0.5},
            "strategy": {"kind": "dp_fedavg", "noise_multiplier": 1.0, "expected_cohort_size": 4, "canary_clients": 4},
        }
    pasted["injections"] = INJECTIONS.get(kind, pasted["injections"])
    if kind == "shadow_federations":  # which reads runs with one example of each client
        pasted |= {"coins": {"law": "one_of"}, "exclusion": "remove", "roster": "shared", "leave_out": {}}
        pasted["injections"] = [{"kind": "typical", "per_client": 2}]
    if kind == "fed_influence":  # which reads every round
        pasted["observe"] = {"every": 1}
    if kind == "mechanism":
        pasted["strategy"] = {"kind": "dp_fedavg", "noise_multiplier": 1.0, "expected_cohort_size": 4}
    if field == "estimators" and family == "attack":  # some read signals, which such a scenario has
        names = (
            "noise_robustness",
            "entropy",
            "last_layer_norm",
            "update_alignment",
            "grad_norm",
            "probabilities",
            "min_k",
            "sample_distance",
        )
        pasted["signals"] = [{"kind": name} for name in names]
    if kind == "linear_datamodeling":
        pasted["signals"] = [{"kind": "tracin", "targets": 4}]
    if kind == "noise_ceiling":
        pasted["twins"] = 2
    if kind in SIGNALS_OF:
        pasted["signals"] = [{"kind": name} for name in SIGNALS_OF[kind]]
    if kind == "scrub":
        pasted["tied_dropout"] = {"layers": ["activation1"]}
    if kind == "decay":
        pasted["observe"] = {"every": 1}
    # only what another part of this one scenario forbids
    sizes = {"sampler.size", "sampler.candidates", "sampler.expected", "strategy.expected_cohort_size"}
    assert wrong_places(json.dumps(pasted)) <= {"client.kind", "strategy"} | sizes


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_show_explains_every_field_in_lines_that_fit(family: str, kind: str) -> None:
    said = call("show", family, kind).stdout
    for name, meaning in catalogue.explain(catalogue.load(family, kind)).items():
        assert name in said
        assert " ".join(meaning.split()) in " ".join(said.split())
    assert [line for line in said.splitlines() if len(line) > 100 and not line.startswith((">>>", "..."))] == []


def test_show_of_an_unknown_kind() -> None:
    done = call("show", "sampler", "unifrom")
    assert done.exit_code == 2
    assert "did you mean 'uniform'?" in done.stderr


def test_check_draws_cohorts_and_reports_a_refusal_with_its_line(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ComponentError("sampler.size", "too many; use 1")

    monkeypatch.setattr("fedmem.samplers.uniform.Uniform.cohort", refuse)
    Path("huge.yaml").write_text(SMALL + "sampler: {kind: uniform, size: 3}\n")
    done = call("check", "huge.yaml")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "huge.yaml:14  sampler.size: too many; use 1\n"


def test_check_goes_through_all_files_and_fails_if_one_is_wrong(small: Path) -> None:
    Path("wrong.yaml").write_text(SMALL.replace("runs: 2", "runs: 3"))
    done = call("check", "wrong.yaml", "small.yaml", "no.yaml")
    assert done.exit_code == 2
    assert "small.yaml  ok" in done.stdout
    assert "wrong.yaml:2  runs: 3 is odd" in done.stderr
    assert "no.yaml  there is no such file" in done.stderr


def test_check_reads_the_file_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read_file = yaml_source.read_file

    def count(path: Path) -> yaml_source.Source:
        reads.append(str(path))
        return read_file(path)

    for module in (yaml_source, sweep_file):
        monkeypatch.setattr(module, "read_file", count)
    assert call("check", "small.yaml").exit_code == 0
    assert reads == ["small.yaml"]
    Path("sweep.yaml").write_text("{base: small.yaml, axes: [{path: client.lr, values: [0.1]}]}")
    assert call("check", "sweep.yaml").exit_code == 0
    assert reads.count("sweep.yaml") == 1
