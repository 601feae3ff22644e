"""Hugging Face transformers, pretrained or random, trained as a whole or by adapters; needs the extra `hf`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError
from fedmem.fetched.models import model_folder
from fedmem.models._lora import Lora

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """A transformer of the package `transformers`, which predicts next tokens or the class of a text.

    The data decide the task. Texts for next-token prediction need a causal language model. Texts with a class each need
    a model for sequence classification, whose head is drawn from the scenario's stream. Weights are read only from
    safetensors files, never from pickles, and code that comes with a model is never executed. Attention is computed in
    its plain form (`eager`), so that clients can be stacked. All dropout is set to 0.

    Fields

    - `path`: a folder with `config.json` and, for pretrained weights, `model.safetensors`; needs no network access. A
      single word names a model that `fedmem fetch` has fetched.
    - `name`: instead of a folder, the name of a model on the hub, such as `gpt2`, found in the cache of the hub or
      downloaded.
    - `revision`: a commit or tag on the hub; a commit fixes the model. Empty for the newest.
    - `weights`: `pretrained`, or `random` for the architecture with weights drawn from the scenario's stream.
    - `config`: with `weights: random`, changes of the config. Without `path` and `name`, the whole config, including
      `model_type`. The size of the vocabulary is that of the data.
    - `peft`: train low-rank adapters and freeze all other parameters; in classifiers, the head is trained too.
    - `train`: `all`, the `head`, or a number n for the last n blocks (in classifiers, with the head). Null means the
      adapters with `peft`, and otherwise `all`.

    Guarantees:

    - padding changes no logit, and next-token logits at a position depend only on the tokens up to it;
    - the logits are those of the package itself; a trial pass compares them;
    - frozen parameters are in memory once, for all clients and runs.

    Errors: `ComponentError` if a package or file is missing, or a text is longer than the model can read. Also if the
    vocabulary of the data is not that of the model, or no layer matches the targets of adapters.

    >>> HuggingFace(path="models/gpt2", peft=Lora(r=4, targets=("c_attn",))).weights
    'pretrained'

    Reference: Wolf et al. (2020), Transformers: State-of-the-Art Natural Language Processing.
    """

    stackable: ClassVar[bool] = True
    texts: ClassVar[bool] = True
    labelled_texts: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("transformers", "peft", "tokenizers")

    path: str = ""
    name: str = ""
    revision: str = ""
    weights: Literal["pretrained", "random"] = "pretrained"
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    peft: Lora | None = None
    train: Literal["all", "head"] | Annotated[int, annotated_types.Ge(1)] | None = None

    def __post_init__(self) -> None:
        problems = (
            ("name", self.path and self.name, "path names a folder already; write one of the two"),
            ("revision", self.revision and not self.name, "belongs to a name on the hub; leave it out"),
            ("config", self.config and self.weights == "pretrained", "changes random models; write weights: random"),
            ("train", self.peft and self.train, "adapters alone are trained with peft; leave train out"),
        )
        for path, wrong, message in problems:
            if wrong:
                raise ComponentError(path, message)

    def input_files(self) -> tuple[Path, ...]:
        """The files of the config, the weights and the tokenizer that exist on this machine."""
        if self.name:
            return _files_of_hub(self.name, self.revision)
        if not self.path:
            return ()
        folder = model_folder(self.path)
        files = [*folder.glob("*.json"), *folder.glob("*.safetensors")] if folder.is_dir() else []
        return tuple(sorted(files)) or (folder,)

    def build_text(self, vocabulary: tuple[str, ...], length: int, num_classes: int | None) -> nn.Module:
        """The network; random parts are drawn from torch's own generator. See `TextModel`."""
        try:
            import transformers  # noqa: F401, the module below needs it

            if self.peft:
                import peft  # noqa: F401
        except ModuleNotFoundError as error:
            message = f"the package {error.name} is not installed; run: pip install 'fedmem[hf]'"
            raise ComponentError("model.kind", message) from error
        from fedmem.models._transformers import build_network

        return build_network(self, vocabulary, length, num_classes)


def _files_of_hub(name: str, revision: str) -> tuple[Path, ...]:
    """The files of a model in the cache of the hub; if there are none, the folder for them."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = cache / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    files = [file for file in (folder / "snapshots" / commit).rglob("*") if file.is_file()] if commit else []
    return tuple(sorted(files)) or (folder,)
