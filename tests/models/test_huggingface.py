"""Tests of `fedmem/models/huggingface.py`: networks, refusals and files."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from fedmem.contracts.federation import digest
from fedmem.contracts.model import trained_parameters
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation.build import build
from fedmem.fetched.models import MODELS
from fedmem.modalities.text.tokenizer import Subwords
from fedmem.models._lora import Lora
from fedmem.models.huggingface import HuggingFace
from fedmem.results.provenance import changed_inputs, files_of, provenance_of
from fedmem.scenario.catalogue import build as make
from fedmem.scenario.scenario import Scenario
from tests.models.huggingface_helpers import (
    SIZES,
    built,
    lora,
    random_model,
    rows,
    save_model,
    words,
)

EVERY = [("gpt2", None), ("llama", None), ("gpt2", 3), ("llama", 3), ("bert", 3)]
every_network = pytest.mark.parametrize(("kind", "classes"), EVERY)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    # the variable of the environment is read when the package is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


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


# --- networks -------------------------------------------------------------------------------------------------------


@every_network
def test_stacked_logits_equal_those_of_each_model(kind: str, classes: int | None) -> None:
    network = built(random_model(kind, peft=lora(kind)), classes=classes)
    tokens = rows(5, padded=classes is not None)
    noise = torch.Generator().manual_seed(1)
    stack = {
        name: value.detach() + 0.2 * torch.randn(4, *value.shape, generator=noise)
        for name, value in trained_parameters(network).items()
    }
    each = [functional_call(network, {name: part[i] for name, part in stack.items()}, (tokens,)) for i in range(4)]
    shared = vmap(lambda params: functional_call(network, params, (tokens,)))(stack)
    batches = tokens.expand(4, *tokens.shape)
    own = vmap(lambda params, batch: functional_call(network, params, (batch,)))(stack, batches)
    torch.testing.assert_close(shared, torch.stack(each), rtol=0, atol=1e-5)
    torch.testing.assert_close(own, torch.stack(each), rtol=0, atol=1e-5)
    assert (each[0] - each[1]).abs().max() > 1e-3, "adapters change the logits"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_later_tokens_change_no_earlier_logits(kind: str) -> None:
    network, tokens = built(random_model(kind)), rows(3)
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 30
    assert torch.equal(network(tokens)[:, :7], network(changed)[:, :7])
    assert not torch.allclose(network(tokens)[:, 7], network(changed)[:, 7])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_padding_changes_no_logit(kind: str) -> None:
    network, tokens = built(random_model(kind), classes=3), rows(3)
    short = tokens[:, :5]
    padded = torch.cat([short, torch.full((3, 7), -1)], dim=1)
    torch.testing.assert_close(network(padded), network(short), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(network(padded), network(tokens))


def test_adapters_begin_as_the_pretrained_network(gpt2: Path) -> None:
    tokens = Subwords.read(str(gpt2)).tokens
    plain = HuggingFace(path=str(gpt2)).build_text(tokens, 12, None)
    adapted = HuggingFace(path=str(gpt2), peft=lora("gpt2")).build_text(tokens, 12, None)
    assert torch.equal(plain(rows(3)), adapted(rows(3)))
    trained = trained_parameters(adapted)
    assert [value.shape for value in trained.values()] == [torch.Size([2, 16]), torch.Size([48, 2])] * 2
    assert all("lora_" in name for name in trained)


def test_the_scale_of_adapters_is_alpha_over_r() -> None:
    change = {}
    for alpha in (2.0, 4.0):
        network = built(random_model("llama", peft=lora("llama", alpha=alpha)))
        layer: Any = network.get_submodule("network.model.layers.0.self_attn.q_proj")
        with torch.no_grad():
            layer.lora_B["default"].weight.fill_(0.1)
            x = torch.ones(1, 16)
            change[alpha] = layer(x) - layer.base_layer(x)
            by_hand = alpha / 2 * x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        torch.testing.assert_close(change[alpha], by_hand)
    torch.testing.assert_close(change[4.0], 2 * change[2.0])


def test_of_classifiers_the_head_is_trained_and_drawn_again(encoder: Path) -> None:
    tokens = Subwords.read(str(encoder)).tokens
    model = HuggingFace(path=str(encoder), peft=lora("bert"))
    heads = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = model.build_text(tokens, 12, 3)
        trained = trained_parameters(network)
        others = [name for name in trained if "lora_" not in name]
        assert others == ["network.classifier.weight", "network.classifier.bias"]
        heads.append(trained["network.classifier.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("kind", "classes", "train", "trained"),
    [
        ("bert", 3, "head", {"classifier"}),
        ("bert", 3, 1, {"layer.1", "classifier"}),
        ("gpt2", None, 1, {"h.1"}),
        ("llama", None, "head", {"lm_head"}),
        ("gpt2", None, "head", {"wte"}),
    ],
)
def test_a_part_of_a_network_is_trained(kind: str, classes: int | None, train: Any, trained: set[str]) -> None:
    network = built(random_model(kind, train=train), classes=classes)
    names = set(trained_parameters(network))
    assert names == {name for name, _ in network.named_parameters() if any(f"{part}." in name for part in trained)}
    assert names


def test_no_dropout_is_left() -> None:
    config = {"model_type": "gpt2", **SIZES["gpt2"], "resid_pdrop": 0.5, "attn_pdrop": 0.5}
    network = built(HuggingFace(weights="random", config=config)).train()
    assert torch.equal(network(rows(2)), network(rows(2)))
    assert all(part.p == 0 for part in network.modules() if isinstance(part, nn.Dropout))


def test_random_weights_follow_the_seed() -> None:
    one, same, other = (built(random_model("gpt2"), seed=seed)(rows(2)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path", "text"),
    [
        ({"path": "a", "name": "gpt2"}, "name", "write one of the two"),
        ({"path": "a", "revision": "main"}, "revision", "name on the hub"),
        ({"config": {"n_embd": 8}}, "config", "weights: random"),
        ({"peft": {}, "train": "all"}, "train", "adapters alone"),
        ({"peft": {"dropout": 0.1}}, "peft.dropout", "0"),
        ({"peft": {"rank": 3}}, "peft.rank", "rank"),
    ],
)
def test_contradicting_fields_are_refused(fields: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ScenarioError, match=text) as caught:
        make("model", {"kind": "huggingface", **fields})
    assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize(
    ("model", "path", "text"),
    [
        (HuggingFace(), "model.path", "names no model"),
        (HuggingFace(path="nowhere/model"), "model.path", "there is no file .*config.json"),
        (HuggingFace(path="minilm"), "model.path", "run: fedmem fetch minilm"),
        (HuggingFace(weights="random", config={"model_type": "nothing"}), "model.config", "gives no config"),
        (random_model("gpt2", peft={"targets": ("query",)}), "model.peft.targets", "choose from: .*c_attn"),
        (
            random_model("gpt2", peft={"targets": ("c_attn", "c_atn")}),
            "model.peft.targets",
            "c_atn.*did you mean",
        ),
        (random_model("bert"), "model", "reads later tokens"),
    ],
)
def test_models_that_cannot_be_built_are_refused(
    model: HuggingFace, path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path))
    if isinstance(model.peft, dict):
        model = random_model("gpt2", peft=Lora(**model.peft))
    with pytest.raises(ComponentError, match=text) as caught:
        model.build_text(words(30), 12, None)
    assert caught.value.path == path


def test_a_vocabulary_of_other_tokens_is_refused(gpt2: Path) -> None:
    with pytest.raises(ComponentError, match=r"vocabulary of 30 tokens.* write `tokenizer: ") as caught:
        HuggingFace(path=str(gpt2)).build_text(words(30), 12, None)
    assert caught.value.path == "dataset.tokenizer"


def test_longer_rows_than_the_model_reads_are_refused() -> None:
    for classes, path in ((None, "dataset.length"), (3, "dataset.max_tokens")):
        with pytest.raises(ComponentError, match="reads at most 64") as caught:
            built(random_model("gpt2"), length=65, classes=classes)
        assert caught.value.path == path


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_every_token_of_a_random_model_is_trained(kind: str) -> None:
    """The number of padding (0 and 1) is that of a token of the data, which has a vector and a gradient like others."""
    model = HuggingFace(weights="random", config={"model_type": kind, **SIZES["bert"]})
    network = built(model, classes=3)
    network(torch.tensor([[0, 1, 2, 3]])).square().sum().backward()
    vectors = dict(network.named_parameters())[f"network.{kind}.embeddings.word_embeddings.weight"]
    assert vectors.grad is not None
    assert float(vectors.grad[:4].norm(dim=1).min()) > 0
    assert float(vectors.detach().norm(dim=1).min()) > 0


def test_roberta_reads_fewer_tokens_than_it_has_places() -> None:
    model = HuggingFace(weights="random", config={"model_type": "roberta", **SIZES["bert"]})
    assert built(model, length=62, classes=3)(rows(1, length=62)).shape == (1, 3)
    with pytest.raises(ComponentError, match="a row has 63 tokens, but the model reads at most 62"):
        built(model, length=63, classes=3)


def test_pickles_are_never_read(gpt2: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ComponentError, match=r"no file \*.safetensors, and pickles are never read"):
        HuggingFace(path=str(tmp_path)).build_text(words(30), 12, None)


def test_weights_of_another_task_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "llama", "llama", task="encoder")
    with pytest.raises(ComponentError, match=r"no weights for 1 parameters, such as 'lm_head.weight'"):
        HuggingFace(path=str(folder)).build_text(words(30), 12, None)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ComponentError, match=r"peft is not installed; run: pip install 'fedmem\[hf\]'"):
        built(random_model("gpt2", peft=lora("gpt2")))


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "gpt2", tokenizer="bytes")
    changed = scenario(
        dataset={"kind": "shakespeare", "clients": 2, "length": 12, "max_chars": 2000, "tokenizer": str(folder)},
        model={"kind": "huggingface", "path": str(folder), "peft": {"r": 2, "targets": ["c_attn"]}},
    )
    before = provenance_of(changed)
    assert set(files_of(changed)) == {"huggingface (model/)", "shakespeare (tokenizer.json)"}
    assert changed_inputs(changed, before) == []
    base = digest(build(changed))
    save_model(folder, "gpt2", tokenizer="bytes", n_inner=20)
    assert changed_inputs(changed, before) == ["the files of huggingface (model/)"]
    assert digest(build(changed)) != base


def test_a_single_word_is_a_fetched_model(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path))
    (tmp_path / "minilm").symlink_to(encoder)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in encoder.iterdir() if file.is_file()}
    monkeypatch.setitem(MODELS, "minilm", replace(MODELS["minilm"], files=sums))
    model = HuggingFace(path="minilm")
    assert {file.name for file in model.input_files()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert model.build_text(Subwords.read("minilm").tokens, 12, 2)(rows(2)).shape == (2, 2)


def test_files_of_the_hub_are_those_of_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--me--tiny"
    assert HuggingFace(name="me/tiny").input_files() == (folder,)
    file = folder / "snapshots" / "abc" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc\n")
    assert HuggingFace(name="me/tiny").input_files() == (file,)
    assert HuggingFace(name="me/tiny", revision="abc").input_files() == (file,)


def test_another_version_of_the_package_is_another_run(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(
        name="packages",
        rounds=1,
        clients=2,
        dataset=make("dataset", {"kind": "synthetic"}),
        model=HuggingFace(path=str(encoder)),
    )
    manifest: dict[str, Any] = dict(provenance_of(scenario))
    assert {"transformers", "peft", "tokenizers"} <= manifest["packages"].keys()
    assert changed_inputs(scenario, manifest) == []
    monkeypatch.setattr("fedmem.results.provenance._version", lambda package: f"{package} 0")
    assert changed_inputs(scenario, manifest) == [
        f"the version of the package {name}" for name in ("peft", "tokenizers", "transformers")
    ]
