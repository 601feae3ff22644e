"""The core reads what components declare, and knows none of them by name."""

from __future__ import annotations

import pytest

from tests.core_checks import ROOT, core_files, literal_kinds, probed_names

THIRD_PARTY = {
    ("apps/plain_logits.py", "config"): "networks of transformers",
    ("apps/plain_logits.py", "get_base_model"): "networks of peft",
    ("apps/plain_logits.py", "logits"): "outputs of transformers",
    ("apps/plain_logits.py", "pad_token_id"): "configurations of transformers",
    ("apps/plain_logits.py", "set_attn_implementation"): "networks of transformers",
    ("cli/main.py", "reconfigure"): "text streams of Python, which a test may replace",
    ("datasets/hub.py", "convert"): "images of PIL among the values of a published data set",
    ("datasets/torchvision.py", "base_folder"): "classes of torchvision, for the folder of their files",
    ("datasets/torchvision.py", "raw_folder"): "classes of torchvision, for the folder of their files",
    ("engines/_flower.py", "__func__"): "methods of Flower's classes",
    ("engines/_flower.py", "Array"): "modules of Flower",
    ("guards/guarding.py", "__code__"): "functions, for the line that failed",
    ("guards/guarding.py", "__file__"): "modules, for the file that failed",
    ("guards/guarding.py", "modules"): "networks of torch",
    ("guards/guarding.py", "forward"): "networks of torch",
    ("guards/time_limit.py", "SIGALRM"): "signals, which not every system has",
    ("guards/time_limit.py", "setitimer"): "signals, which not every system has",
    ("modalities/modality.py", "kind"): "classes of modalities, of which abstract ones have no kind",
    ("processes.py", "mallopt"): "functions of the C library",
    ("processes.py", "sched_getaffinity"): "functions of the operating system",
    ("results/module_graph.py", "__file__"): "modules",
    ("results/module_graph.py", "__path__"): "modules",
    ("scenario/catalogue.py", "__abstractmethods__"): "classes of Flower's strategies",
    ("scenario/catalogue.py", "start"): "classes of Flower's strategies",
    ("scenario/describe.py", "__name__"): "annotations of Python",
    ("scenario/json_schema.py", "__self__"): "bound functions inside pydantic's schemas",
    ("scenario/yaml_source.py", "tag"): "events of the YAML parser",
    ("scenario/yaml_source.py", "value"): "events of the YAML parser",
    ("strategies/_rule.py", "noisy"): "rules, which declare it as in StrategyDeclaration; strategies import no fedmem",
    ("modalities/text/tokenizer.py", "unk_token"): "models of tokenizers, of which some have no unknown token",
    ("models/_transformers.py", "max_position_embeddings"): "configurations of transformers",
    ("models/_transformers.py", "pad_token_id"): "configurations of transformers",
    ("models/_transformers.py", "initializer_range"): "configurations of transformers",
    ("models/_transformer_answers.py", "score"): "networks of transformers",
    ("contracts/training_mode.py", "running_mean"): "layers of torch",
    ("apps/array_names.py", "peft_config"): "models of peft",
    ("interrupts.py", "SIGHUP"): "signals of the system",
}
"""File and attribute name -> what the core looks at there; no component is among them."""

HOMONYMS = {
    ("results/provenance.py", "flower"): "an engine",
    ("attacks/label_only.py", "noise_robustness"): "the measure that the attack reads",
    ("attacks/nearest_sample.py", "sample_distance"): "the measure that the attack reads",
    ("signals/min_k.py", "min_k_plus_plus"): "the measure of the signal",
    ("scenario/describe.py", "mislabelled"): "a name of audit examples, in a printed example",
}
"""File and word -> what it means there, where it is no kind of a component."""


def test_core_looks_for_no_attribute_of_components() -> None:
    """What may be there or not is declared, with a default: see fedmem/contracts/declarations.py."""
    found = {
        (file.relative_to(ROOT).as_posix().removeprefix("fedmem/"), name, line)
        for file in core_files()
        for line, name in probed_names(file.read_text())
    }
    assert [one for one in sorted(found) if one[:2] not in THIRD_PARTY] == []


def test_no_kind_is_named_outside_its_own_file() -> None:
    """A component declares what is special about it; a list of kinds knows nothing of those added later."""
    found = {
        (file.relative_to(ROOT / "fedmem").as_posix(), name, line)
        for file in sorted((ROOT / "fedmem").rglob("*.py"))
        for line, name in literal_kinds(file.read_text())
        if file.stem != name
    }
    assert [one for one in sorted(found) if one[:2] not in HOMONYMS] == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("size = getattr(sampler, 'size', None)", ["size"]),
        ("if hasattr(strategy, 'hear'): strategy.hear({})", ["hear"]),
        ("value = getattr(component, item.name)", []),
        ("value = sampler.size", []),
    ],
)
def test_lookup_of_an_attribute_by_name_is_found(code: str, names: list[str]) -> None:
    assert [name for _, name in probed_names(code)] == names


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("if kind_of(sampler) == 'poisson': pass", ["poisson"]),
        ("if kind in ('cyclic', 'other'): pass", ["cyclic"]),
        ("comparing = part.kind != 'sgd'", ["sgd"]),
        ("LISTED = ('leakage', 'extraction')", ["leakage", "extraction"]),
        ("NAMES = {'lira': 'LiRA', 'rmia': 'RMIA'}", ["lira", "rmia"]),
        ("match kind_of(defence):\n    case 'clip': pass", ["clip"]),
        ("sampling = 'poisson' if rate < 1 else 'everyone'", []),
        ("role: Literal['atypical'] = 'atypical'", []),
        ("message = 'use {kind: uniform}'", []),
    ],
)
def test_literal_kind_in_a_comparison_or_list_is_found(code: str, names: list[str]) -> None:
    assert sorted(name for _, name in literal_kinds(code)) == sorted(names)
