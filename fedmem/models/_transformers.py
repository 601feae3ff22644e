"""Networks of the package `transformers`; imported only when a network is built, because it needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from fedmem.errors import ComponentError, first_line
from fedmem.modalities.text.tokenizer import Subwords
from fedmem.models._lora import add_adapters
from fedmem.models._transformer_answers import NextTokens, OneClass
from fedmem.models._transformers_source import source_of, tokenizer_file

if TYPE_CHECKING:
    from fedmem.models.huggingface import HuggingFace

TOLERANCE = 1e-4
"""By how much of the largest logit all of them may differ from those of the package, by rounding."""

SAMPLE = 3
"""Rows of the pass that compares them."""


def build_network(model: HuggingFace, vocabulary: tuple[str, ...], length: int, num_classes: int | None) -> nn.Module:
    """The network of a component, its trained parts marked; see `HuggingFace`."""
    with _quiet():
        config = _config(model, len(vocabulary), num_classes)
        _require_length(config, length, "dataset.length" if num_classes is None else "dataset.max_tokens")
        if model.weights == "pretrained":
            _require_vocabulary(model, vocabulary, int(config.vocab_size))
        network, new = _network(model, config, num_classes is not None)
        _require_places(network, length, "dataset.length" if num_classes is None else "dataset.max_tokens")
        if model.peft is not None:
            add_adapters(network, model.peft)
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    _freeze(model, network, num_classes is not None, new)
    whole: NextTokens | OneClass
    whole = NextTokens(network, len(vocabulary)) if num_classes is None else OneClass(network, _padding(config))
    _require_the_same(whole, len(vocabulary), length)
    return whole


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and reports, whose content is checked here."""
    logging: Any = transformers.utils.logging
    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def _config(model: HuggingFace, size: int, num_classes: int | None) -> Any:
    """The config, with the classes of the data, without dropout, and for random weights with its vocabulary."""
    changes = dict(model.config)
    try:
        if model.path or model.name:
            place, how = source_of(model)
            config = transformers.AutoConfig.from_pretrained(place, **how)
            for name, value in changes.items():
                setattr(config, name, value)
        elif changes.get("model_type"):
            config = transformers.AutoConfig.for_model(changes.pop("model_type"), **changes)
        else:
            raise ComponentError(
                "model.path",
                "names no model; write the `path` of a folder, or a `name` on the hub. With `weights: random`, a "
                "`config` with a model_type is enough, such as {model_type: gpt2, n_embd: 32, n_layer: 2, n_head: 2}",
            )
    except (OSError, ValueError, TypeError, KeyError) as error:
        place = "model.config" if not (model.path or model.name) else "model.name" if model.name else "model.path"
        raise ComponentError(place, f"gives no config that can be used: {first_line(error)}; correct it") from error
    if num_classes is not None:
        config.num_labels = num_classes
    for name, value in vars(config).items():
        if ("drop" in name or name == "attention_probs_dropout_prob") and isinstance(value, float):
            setattr(config, name, 0.0)
    if model.weights == "random":
        config.vocab_size = size
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if not 0 <= _number(getattr(config, name, None)) < size:
                setattr(config, name, None)
    return config


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1


def _padding(config: Any) -> int:
    """A token that stands where there is none; nothing reads it."""
    number = _number(getattr(config, "pad_token_id", None))
    return number if 0 <= number < config.vocab_size else 0


def _require_places(network: Any, length: int, place: str) -> None:
    """The same for models that number places from behind the token of padding on, such as RoBERTa."""
    for name, part in network.named_modules():
        if isinstance(part, nn.Embedding) and "position" in name and part.padding_idx is not None:
            longest = part.num_embeddings - part.padding_idx - 1
            if longest < length:
                message = f"a row has {length} tokens, but the model reads at most {longest}; lower it"
                raise ComponentError(place, message)


def _require_length(config: Any, length: int, place: str) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and 0 < longest < length:
        raise ComponentError(place, f"a row has {length} tokens, but the model reads at most {longest}; lower it")


def _require_vocabulary(model: HuggingFace, vocabulary: tuple[str, ...], size: int) -> None:
    """The tokens of the data are those that the model was pretrained with."""
    file = tokenizer_file(model)
    tokens = Subwords.read(str(file.parent), "model.path").tokens if file else None
    if tokens is not None and len(tokens) > size:
        raise ComponentError(
            "model.path" if model.path else "model.name",
            f"the tokenizer has {len(tokens)} tokens, but the model reads {size}; save both again, from one model",
        )
    if vocabulary == tokens or (tokens is None and len(vocabulary) == size):
        return
    remedy = f"`tokenizer: {model.path}`" if model.path else "`tokenizer:` with a folder that has its tokenizer.json"
    raise ComponentError(
        "dataset.tokenizer",
        f"the data have a vocabulary of {len(vocabulary)} tokens, but the model was pretrained with another one of "
        f"{len(tokens or ()) or size}; write {remedy} in the data set",
    )


def _network(model: HuggingFace, config: Any, classifies: bool) -> tuple[Any, set[str]]:
    """The network, and the names of parameters that are not pretrained."""
    maker: Any = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModelForCausalLM
    how: dict[str, Any] = {"attn_implementation": "eager", "trust_remote_code": False}
    if model.weights == "random":
        try:
            network = maker.from_config(config, **how).float()
        except (ValueError, TypeError, AttributeError) as error:
            message = f"makes no network for this task: {first_line(error)}; choose another model_type"
            raise ComponentError("model.config", message) from error
        _train_all_tokens(network)
        return network, set()
    place, arguments = source_of(model)
    try:
        network, report = maker.from_pretrained(
            place,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=classifies,
            **(how | arguments),
        )
    except (OSError, ValueError, RuntimeError) as error:
        field = "model.name" if model.name else "model.path"
        raise ComponentError(field, f"the weights cannot be read: {first_line(error)}; save them again") from error
    new = {*report["missing_keys"], *(item[0] for item in report["mismatched_keys"])}
    head = _names_of(network, _head(network, classifies)) if classifies else set()
    lacking = sorted(name for name in new - head if not (classifies and "pooler" in name))
    if lacking:
        raise ComponentError(
            "model.name" if model.name else "model.path",
            f"has no weights for {len(lacking)} parameters, such as {lacking[0]!r}, so that they would be random. It "
            "was saved for another task; choose a model for this one, or write weights: random",
        )
    return network, new


def _train_all_tokens(network: Any) -> None:
    """Draws the vector of the token of padding: in a model with the vocabulary of the data it is a token like others.

    The package would leave it at zero, without any gradient.
    """
    tokens = network.get_input_embeddings()
    if isinstance(tokens, nn.Embedding) and tokens.padding_idx is not None:
        with torch.no_grad():
            tokens.weight[tokens.padding_idx].normal_(std=getattr(network.config, "initializer_range", 0.02))
        tokens.padding_idx = None


def _head(network: Any, classifies: bool) -> list[nn.Parameter]:
    """The parameters that give the answer: of classifiers what is outside of the transformer, else the output layer."""
    if not classifies:
        return list(network.get_output_embeddings().parameters())
    inside = {id(value) for value in network.base_model.parameters()}
    return [value for value in network.parameters() if id(value) not in inside]


def _names_of(network: Any, parameters: Sequence[nn.Parameter]) -> set[str]:
    chosen = {id(value) for value in parameters}
    return {name for name, value in network.named_parameters() if id(value) in chosen}


def _freeze(model: HuggingFace, network: Any, classifies: bool, new: set[str]) -> None:
    """Marks the parameters that clients train."""
    if model.peft is None and model.train in (None, "all"):
        return
    named = dict(network.named_parameters())
    chosen = {id(value) for value in _head(network, classifies)} if classifies or model.train == "head" else set()
    chosen |= {id(value) for name, value in named.items() if name in new or (model.peft and "lora_" in name)}
    if isinstance(model.train, int):
        chosen |= {id(value) for block in _blocks(network)[-model.train :] for value in block.parameters()}
    for value in named.values():
        value.requires_grad_(id(value) in chosen)


def _blocks(network: Any) -> list[nn.Module]:
    """The blocks of a transformer: its first list of as many modules as the config has layers."""
    count = network.config.num_hidden_layers
    for part in network.modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return list(part)
    raise ComponentError("model.train", "the network has no list of blocks; write `head`, `all`, or use `freeze`")


def _require_the_same(whole: NextTokens | OneClass, size: int, length: int) -> None:
    """Compares a pass with one that has the masks of the package."""
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(size, (SAMPLE, length), generator=rng)
    if isinstance(whole, OneClass):
        tokens[0, (length + 1) // 2 :] = -1
    was_training = whole.training
    whole.eval()
    with torch.no_grad():
        logits, expected = whole(tokens), whole.library_logits(tokens)
        others = tokens.clone()
        others[:, -1] = (tokens[:, -1].clamp(min=0) + 1) % size
        changed = whole.library_logits(others)
    whole.train(was_training)
    kind = whole.network.config.model_type
    if isinstance(whole, NextTokens) and not torch.allclose(expected[:, 0], changed[:, 0], rtol=0, atol=1e-6):
        raise ComponentError(
            "model",
            f"a {kind} reads later tokens too, so that it cannot predict the next one. Use a decoder, such as GPT-2 or "
            "Llama, or data whose texts have a class each",
        )
    if (logits - expected).abs().max() > TOLERANCE * expected.abs().max():
        raise ComponentError(
            "model",
            f"the attention of a {kind} with rows of {length} tokens is not that of one mask for all layers. Use "
            "shorter rows, or another model, such as GPT-2, Llama or BERT",
        )
