"""The public models that all arms start from: a small GPT-2, and a network for images, trained on no client's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fedmem
from experiments.adapters.image_network import HIDDEN
from fedmem.modalities.text.tokenizer import FILE
from fedmem.results.folder import one_at_a_time
from fedmem.results.read import Run
from fedmem.scenario.scenario import Scenario

HERE = Path(__file__).resolve().parent
TOKENS = 384
"""Tokens of the vocabulary: 256 bytes, and the most frequent pairs of public text."""


UNPRICED = (
    "the pretraining on texts, whose tokenizer is made first, and the arms, which start from these networks. All of it "
    "takes about 20 min of one core"
)


def public_of(task: str, out: Path) -> Path:
    """The network that the arms of a task start from. The first process makes it, and others wait until it is there."""
    with one_at_a_time(out / f".adapters_public_{task}.lock"):
        return PUBLIC[task](out)


def known_scenarios(task: str) -> list[Scenario]:
    """The pretraining of the arms of a task, where it depends on nothing that is made first."""
    return [_clothes()] if task == "classes" else []


def public_model(out: Path, settings: Sequence[str] = ()) -> Path:
    """The folder of the public model, as `save_pretrained` writes it; it is made where it is missing.

    Args:
        out: Where the run of the pretraining and the folder go.
        settings: Changes of `pretrain.yaml`, as in `--set`.
    """
    scenario = fedmem.load_scenario(HERE / "pretrain.yaml", settings)
    folder = out / "adapters_public"
    if not (folder / FILE).exists():
        _write_tokenizer(scenario.dataset, folder)
    scenario = fedmem.load_scenario(HERE / "pretrain.yaml", [*settings, f"dataset.tokenizer={folder}"])
    run = fedmem.read(fedmem.run(scenario, out=out))
    if not (folder / "model.safetensors").exists():
        _write_model(run, scenario.model, folder)
    return folder


def public_network(out: Path, settings: Sequence[str] = ()) -> Path:
    """The run of a network that is trained on images of clothes by the shipped scenario `pretrain`."""
    return fedmem.run(_clothes(settings), out=out)


PUBLIC: dict[str, Callable[[Path], Path]] = {"texts": public_model, "classes": public_network}
"""Task -> the function that makes the network that its arms start from."""


def _clothes(settings: Sequence[str] = ()) -> Scenario:
    file = HERE.parents[1] / "scenarios" / "pretrain.yaml"
    return fedmem.load_scenario(file, [f"model={{kind: mlp, hidden: {list(HIDDEN)}}}", *settings])


def _write_tokenizer(dataset: Any, folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    texts = [author.text for author in dataset._authors()]
    tokenizer.train_from_iterator(texts, vocab_size=TOKENS, min_frequency=2, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / FILE))


def _write_model(run: Run, model: Any, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    weights = next(run.models(round_number=-1, level="global")).params
    config: Any = AutoConfig.for_model(**model.config, vocab_size=TOKENS, bos_token_id=None, eos_token_id=None)
    maker: Any = AutoModelForCausalLM
    network = maker.from_config(config)
    network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    network.save_pretrained(folder)
