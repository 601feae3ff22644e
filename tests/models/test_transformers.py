"""Transformers of Hugging Face in runs: gradients of examples, executors, saved models, secrets, tables of texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

import fedmem
from fedmem.contracts.client import PerExample
from fedmem.contracts.model import trained_parameters
from fedmem.execution.memory_plan import needs_of
from fedmem.execution.run import run
from fedmem.federation.build import build, check
from fedmem.modalities.text.language_model import Stepping, causal, read_prefix
from fedmem.models.huggingface import HuggingFace
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from fedmem.training.ghost_clipping import norm_of, plain_gradients
from fedmem.training.per_example import ClippedSums, Noise
from tests.models.huggingface_helpers import (
    SIZES,
    built,
    lora,
    random_model,
    rows,
    save_model,
)

EVERY = [("gpt2", None), ("llama", None), ("gpt2", 3), ("llama", 3), ("bert", 3)]
every_network = pytest.mark.parametrize(("kind", "classes"), EVERY)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny GPT-2 and a byte-level tokenizer."""
    return save_model(tmp_path_factory.mktemp("gpt2"), "gpt2", tokenizer="bytes")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT without a head and a tokenizer of word pieces."""
    return save_model(tmp_path_factory.mktemp("bert"), "bert", tokenizer="wordpiece", task="encoder")


def scenario(**changes: Any) -> Scenario:
    """Adapters of a tiny GPT-2 that reads characters."""
    tree: dict[str, Any] = {
        "name": "adapters",
        "runs": 2,
        "rounds": 1,
        "clients": 2,
        "dataset": {"kind": "shakespeare", "clients": 2, "length": 12, "max_chars": 2000},
        "partition": {"kind": "natural"},
        "population": 4,
        "references": 8,
        "model": {
            "kind": "huggingface",
            "weights": "random",
            "config": {"model_type": "gpt2", **SIZES["gpt2"]},
            "peft": {"r": 2, "targets": ["c_attn"]},
        },
        "injections": [{"kind": "typical", "per_client": 1}],
        "client": {"kind": "sgd", "lr": 0.5, "epochs": 1, "batch_size": 16},
        # a stack is traced for each shape, which takes longer than these runs
        "speed": {"executor": "one_by_one", "workers": 1},
    }
    return Scenario.model_validate({**tree, **changes})


def classifying(**changes: Any) -> Scenario:
    """Adapters of a tiny BERT that reads passages of roles."""
    return scenario(
        **{
            "dataset": {"kind": "speakers", "roles": 3, "passages": 12, "max_tokens": 16, "tokens": "characters"},
            "partition": {"kind": "iid"},
            "model": {
                "kind": "huggingface",
                "weights": "random",
                "config": {"model_type": "bert", **SIZES["bert"]},
                "peft": {"r": 2},
            },
            "injections": [{"kind": "mislabelled", "per_client": 1}],
            **changes,
        }
    )


# --- gradients of single examples -----------------------------------------------------------------------------------


@every_network
def test_clipped_sums_of_adapters_equal_plain_gradients(kind: str, classes: int | None) -> None:
    network = built(random_model(kind, peft=lora(kind)), classes=classes)
    tokens = rows(3, padded=classes is not None)
    targets = torch.tensor([0, 1, 2]) if classes else torch.roll(tokens, -1, dims=1)
    params = {name: value.detach() + 0.1 for name, value in trained_parameters(network).items()}
    clip = 0.05
    each = [plain_gradients(network, params, tokens[i : i + 1], targets[i : i + 1]) for i in range(3)]
    expected = {
        name: sum(gradient[name] * min(1.0, clip / (norm_of(gradient) + 1e-6)) for gradient in each) for name in params
    }
    sums = ClippedSums(network, PerExample(clip=clip, noise_multiplier=1.0, expected=3.0))
    sums.verify(tokens, targets)
    assert not sums.one_by_one, "hooks see the layers of adapters"
    _, _, total = sums(params, tokens, targets)
    assert total.keys() == expected.keys()
    for name, value in total.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7)


def test_noise_has_as_many_numbers_as_adapters_and_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Noise.of

    def of(self: Noise, run: int, round_number: int, client: int, size: int) -> Iterator[torch.Tensor]:
        sizes.append(size)
        return original(self, run, round_number, client, size)

    monkeypatch.setattr(Noise, "of", of)
    private = classifying(
        client={"kind": "dp_sgd", "lr": 0.2, "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8, "epochs": 1},
        privacy={"delta": 1e-3},
    )
    run(private, out=tmp_path)
    adapters, head = 2 * 2 * (16 + 16) * 2, 16 * 3 + 3
    assert set(sizes) == {adapters + head}


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("maker", [scenario, classifying])
def test_stacked_runs_equal_runs_one_by_one(maker: Any, tmp_path: Path) -> None:
    frames = []
    for executor in ("stacked", "one_by_one"):
        changes: dict[str, Any] = {"signals": [{"kind": "grad_norm"}], "probes": [{"kind": "utility"}]}
        changes |= {"speed": {"executor": executor, "workers": 1}, "estimators": [{"kind": "memorisation"}]}
        frames.append(fedmem.read(run(maker(**changes), out=tmp_path / executor)).measurements)
    assert frames[0]["metric"].tolist() == frames[1]["metric"].tolist()
    np.testing.assert_allclose(frames[0]["value"], frames[1]["value"], rtol=1e-3, atol=1e-4)


def test_saved_models_have_the_adapters_alone(tmp_path: Path) -> None:
    saved = scenario(save={"models": {"rounds": [1]}})
    models = list(fedmem.read(run(saved, out=tmp_path)).models(round_number=1))
    assert models
    assert all("lora_" in name for model in models for name in model.params)


def test_the_memory_plan_has_the_base_once() -> None:
    federation = build(scenario())
    base = sum(value.numel() * value.element_size() for value in federation.frozen.values())
    needs = needs_of(scenario(), federation, 2)
    assert needs.frozen == base
    assert needs.model == sum(4 * value.numel() for value in federation.initial.values())
    assert needs.model < base / 5


def test_a_reader_gives_the_logits_token_by_token() -> None:
    federation = build(scenario())
    params = {name: value + 0.1 for name, value in federation.initial.items()}
    reader = causal(federation.model, params)
    assert isinstance(reader, Stepping)
    tokens = federation.audit.examples.inputs[0]
    logits, _ = read_prefix(reader, tokens.tolist())
    whole = functional_call(federation.model, params, (torch.from_numpy(tokens[None]),))
    torch.testing.assert_close(logits, whole[:, -1], rtol=1e-5, atol=1e-6)
    ours = dict(federation.model.named_parameters())
    copied: Any = reader._module
    assert all(ours[name] is value for name, value in copied.named_parameters() if not value.requires_grad)


def test_secrets_of_subwords_are_planted_ranked_and_extracted(gpt2: Path, tmp_path: Path) -> None:
    subwords = scenario(
        dataset={"kind": "shakespeare", "clients": 2, "length": 24, "max_chars": 1500, "tokenizer": str(gpt2)},
        model={"kind": "huggingface", "path": str(gpt2), "peft": {"r": 2, "targets": ["c_attn"]}},
        injections=[{"kind": "secret", "template": "the PIN is {digits:2}", "per_client": 1, "copies": 2}],
        probes=[{"kind": "extraction", "runs": 1}],
        estimators=[{"kind": "exposure"}],
    )
    federation = build(subwords)
    examples = federation.audit.examples
    texts = [federation.modality.text(*row) for row in zip(examples.inputs, examples.targets, strict=True)]
    assert all(text.startswith("the PIN is [[") for text in texts)
    found = fedmem.read(run(subwords, out=tmp_path))
    assert {"exposure", "beam"} <= set(found.measurements["metric"])
    # the run can be read where the tokenizer is not
    stored = found.names.modality
    assert stored is not None
    assert [stored.text(*row) for row in zip(examples.inputs, examples.targets, strict=True)] == texts


def test_secrets_that_exist_need_characters(gpt2: Path) -> None:
    refused = scenario(
        dataset={"kind": "shakespeare", "clients": 2, "length": 24, "max_chars": 1500, "tokenizer": str(gpt2)},
        model={"kind": "huggingface", "path": str(gpt2), "peft": {"r": 2, "targets": ["c_attn"]}},
        injections=[{"kind": "existing_secret", "template": "my {digits:1}"}],
    )
    (problem,) = check(refused)
    assert problem.path.startswith("injections[0]")
    assert "spells a number in several ways" in problem.message


def test_a_table_of_texts_is_classified_by_adapters(encoder: Path, tmp_path: Path) -> None:
    lines = [f"the quick fox {i},{'good' if i % 2 else 'bad'},{'ab'[i // 20]}" for i in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label,who", *lines]))
    mine = scenario(
        dataset={
            "kind": "labelled_texts",
            "path": str(tmp_path / "mine.csv"),
            "client": "who",
            "tokenizer": str(encoder),
            "max_tokens": 12,
        },
        model={"kind": "huggingface", "path": str(encoder), "peft": {"r": 2}},
        injections=[{"kind": "mislabelled", "per_client": 1}, {"kind": "typical", "per_client": 1}],
        estimators=[{"kind": "memorisation"}],
        signals=[{"kind": "probabilities"}, {"kind": "el2n"}],
        probes=[{"kind": "utility"}, {"kind": "information", "runs": 1}],
    )
    found = fedmem.read(run(mine, out=tmp_path / "runs"))
    assert {"memorisation", "alignment"} <= set(found.measurements["metric"])
    assert found.names.class_names == ("bad", "good")
    assert found.client_names == ("a", "b")


def test_parsed_scenarios_keep_the_fields_of_adapters() -> None:
    text = "{rounds: 1, clients: 2, dataset: {kind: speakers}, model: {kind: huggingface, path: minilm, peft: {r: 3}}}"
    model = parse_scenario(text).model
    assert isinstance(model, HuggingFace)
    assert model.peft is not None
    assert (model.peft.r, model.peft.alpha) == (3, 16.0)


def test_texts_of_next_tokens_are_told_from_texts_with_classes() -> None:
    (problem,) = check(classifying(model={"kind": "transformer"}))
    assert problem.path == "model.kind"
    assert "texts with a class each" in problem.message
    assert problem.message.endswith("choose from: huggingface")
    (problem,) = check(classifying(dataset={"kind": "synthetic"}))
    assert "huggingface does not read" in problem.message
    (problem, *_) = check(classifying(injections=[{"kind": "random_pattern", "per_client": 1}]))
    assert "makes no labelled texts" in problem.message
