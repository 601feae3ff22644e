"""Tiny transformers and tokenizers, made in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmem.models._lora import Lora
from fedmem.models.huggingface import HuggingFace

TEXT = "the quick brown fox jumps over the lazy dog and the PIN of Mr Fox is 0123456789 ! " * 4

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
    },
    "bert": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
    },
}
"""The config of a tiny network of each architecture."""

TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj"), "bert": ("query", "value")}


def random_model(kind: str, **fields: Any) -> HuggingFace:
    """A model with random weights and no folder."""
    return HuggingFace(weights="random", config={"model_type": kind, **SIZES[kind]}, **fields)


def lora(kind: str, **fields: Any) -> Lora:
    return Lora(r=2, targets=TARGETS[kind], **fields)


def words(size: int) -> tuple[str, ...]:
    return tuple(f"w{number}" for number in range(size))


def built(model: HuggingFace, size: int = 30, length: int = 12, classes: int | None = None, seed: int = 0) -> nn.Module:
    """The network, drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.build_text(words(size), length, classes)


def rows(count: int, size: int = 30, length: int = 12, *, padded: bool = False) -> torch.Tensor:
    tokens = np.random.default_rng(count).integers(size, size=(count, length))
    if padded:
        for row in range(count):
            tokens[row, length - row % length :] = -1
    return torch.from_numpy(tokens)


def save_tokenizer(folder: Path, kind: str = "bytes", size: int = 300) -> None:
    """`tokenizer.json` of a tokenizer that is learnt from `TEXT`: byte-level BPE, or WordPiece with special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True, exist_ok=True)
    trainer: Any
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|end|>"])
    elif kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"])
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator([TEXT], trainer)
    if kind == "wordpiece":
        pair = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
        tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))


def save_model(folder: Path, kind: str, *, tokenizer: str | None = None, task: str = "lm", **config: Any) -> Path:
    """A folder with a tiny pretrained model, and a tokenizer if one is named."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    size = 30
    if tokenizer is not None:
        from fedmem.modalities.text.tokenizer import Subwords

        save_tokenizer(folder, tokenizer)
        size = len(Subwords.read(str(folder)))
    made = transformers.AutoConfig.for_model(kind, vocab_size=size, **SIZES[kind], **config)
    for name in ("bos_token_id", "eos_token_id"):
        setattr(made, name, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        maker: Any = {
            "lm": transformers.AutoModelForCausalLM,
            "classes": transformers.AutoModelForSequenceClassification,
            "encoder": transformers.AutoModel,
        }[task]
        maker.from_config(made).save_pretrained(folder)
    return folder
