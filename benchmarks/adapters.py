"""A bank of 32 federations that train adapters or a head of one base, relative to one full fine-tuning of that base.

`python -m benchmarks.adapters WAY --out FILE`. WAY is `ours`, or `plain`: loops with torch and peft, one federation
after the other. Both train the same batches of the same rows from the same weights, on one thread. The base is MiniLM
with six blocks (`fedmem fetch minilm`). Whole trainings are timed, with tracing and the filling of stores; loading is
not. Seconds are those of the processor, since neither way has more than one thread or waits for anything.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contender import Trained, write
from fedmem.contracts.federation import Federation
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.fetched.models import model_folder
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.saving import Save
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import LocalWork

RUNS, ROUNDS, CLIENTS, RATE = 32, 1, 2, 0.1

PLAIN_RUNS = 1
"""Federations that the plain loop trains of each bank; it takes as long for each."""

BLOCK = "layer.5.attention.self"

WAYS: dict[str, dict[str, Any]] = {
    "full": {"train": "all"},
    "every block": {"peft": {"r": 4, "targets": ["query", "value"]}},
    "last block": {"peft": {"r": 4, "targets": [f"{BLOCK}.query", f"{BLOCK}.value"]}},
    "head": {"train": "head"},
}


def scenario_of(way: str, runs: int, seed: int = 0) -> Scenario:
    """16 rows of 16 tokens a client, in batches of 8. One full fine-tuning is trained one client after the other.

    A stack of two would trace a step of 23 million numbers, which takes longer than it saves.
    """
    document = {
        "name": "adapters",
        "seed": seed,
        "runs": runs,
        "rounds": ROUNDS,
        "clients": CLIENTS,
        "dataset": {
            "kind": "speakers",
            "roles": 10,
            "passages": 5,
            "passage_words": 12,
            "max_tokens": 16,
            "tokenizer": "minilm",
        },
        "partition": {"kind": "iid"},
        "population": 8,
        "model": {"kind": "huggingface", "path": "minilm", **WAYS[way]},
        "client": {"kind": "sgd", "lr": RATE, "epochs": 1, "batch_size": 8},
        "speed": {"workers": 1, "executor": "one_by_one" if way == "full" else "stacked"},
    }
    return parse_scenario(json.dumps(document), "adapters").model_copy(update={"save": Save(params=True)})


def ours() -> Trained:
    """Seconds of one full fine-tuning and of each bank, and what the first federation of each ends with."""
    measured: dict[str, Any] = {}
    warm = scenario_of("last block", 2, seed=1)
    simulate(warm, build(warm), watch=False)
    for way in WAYS:
        runs = 1 if way == "full" else RUNS
        scenario = scenario_of(way, runs)
        federation = build(scenario)
        started = time.process_time()
        bank = simulate(scenario, federation, watch=False)
        measured[f"seconds, {way}"] = time.process_time() - started
        measured |= _end(way, federation, bank.params[0])
    return Trained(params={name: np.array(value) for name, value in measured.items()}, value=0.0)


def _end(way: str, federation: Federation, params: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The loss of the last aggregate, and how far its parameters moved; of a full fine-tuning, those of the head."""
    names = sorted(name for name in params if way != "full" or "classifier" in name)
    moved = torch.cat([(params[name] - federation.initial[name]).flatten() for name in names])
    return {f"loss, {way}": _loss(federation, params), f"moved, {way}": moved.numpy()}


def _loss(federation: Federation, params: Mapping[str, torch.Tensor]) -> float:
    """The mean loss of a model on the rows of all clients."""
    rows = np.concatenate([federation.rows(0, client, ROUNDS) for client in range(CLIENTS)])
    with torch.no_grad():
        inputs, targets = (torch.from_numpy(part[rows]) for part in (federation.store.inputs, federation.store.targets))
        logits = torch.func.functional_call(federation.model, dict(params), (inputs,))
        return float(torch.nn.functional.cross_entropy(logits, targets))


def plain() -> Trained:
    """The same by loops; seconds of as many federations, and what the first ends with."""
    measured: dict[str, Any] = {}
    for way in WAYS:
        scenario = scenario_of(way, 1 if way == "full" else RUNS)
        federation = build(scenario)
        work = LocalWork(federation, scenario.client, scenario.seed)
        network, names = _network(way, federation)
        runs = 1 if way == "full" else PLAIN_RUNS
        if not measured:
            _federate(network, names, federation, work, 0)  # warm
        started = time.process_time()
        ends = [_federate(network, names, federation, work, run) for run in range(runs)]
        measured[f"seconds, {way}"] = (time.process_time() - started) * (1 if way == "full" else RUNS / runs)
        measured |= _end(way, federation, ends[0])
    return Trained(params={name: np.array(value) for name, value in measured.items()}, value=0.0)


def _network(way: str, federation: Federation) -> tuple[Any, dict[str, str]]:
    """A classifier as its users make it, and the name of each trained parameter in fedmem by its name here."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    network: Any = AutoModelForSequenceClassification.from_pretrained(
        model_folder("minilm"),
        num_labels=federation.num_classes,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    lora = WAYS[way].get("peft")
    if lora is not None:
        config = LoraConfig(
            task_type="SEQ_CLS", r=lora["r"], lora_alpha=16, lora_dropout=0.0, target_modules=lora["targets"]
        )
        network = get_peft_model(network, config)
    elif way == "head":
        network.requires_grad_(False)
        network.classifier.requires_grad_(True)
    trained = [name for name, value in network.named_parameters() if value.requires_grad]
    prefixes = {
        name: name.removeprefix("base_model.model.").replace("modules_to_save.default.", "") for name in trained
    }
    names = {name: f"network.{short}" for name, short in prefixes.items()}
    if set(names.values()) != set(federation.initial):
        raise SystemExit(f"other parameters: {sorted(set(names.values()) ^ set(federation.initial))[:4]}")
    return network, names


def _federate(
    network: Any, names: Mapping[str, str], federation: Federation, work: LocalWork, run: int
) -> dict[str, torch.Tensor]:
    """Federated averaging of one federation; the last aggregate under the names of fedmem."""
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    inputs, targets = torch.from_numpy(federation.store.inputs).long(), torch.from_numpy(federation.store.targets)
    aggregate = {name: federation.initial[names[name]].clone() for name in trained}
    network.train()
    for round_number in range(1, ROUNDS + 1):
        sums = {name: torch.zeros_like(value) for name, value in aggregate.items()}
        total = 0
        for client in range(CLIENTS):
            _load(trained, aggregate)
            optimiser = torch.optim.SGD(trained.values(), lr=RATE)
            task = work.task(run, round_number, client, {})
            for batch in task.batches:
                rows = task.rows[batch[batch >= 0]]
                tokens = inputs[rows]
                mask = tokens >= 0
                logits = network(input_ids=tokens.clamp(min=0), attention_mask=mask.long()).logits
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(logits, targets[rows]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            total += len(task.rows)
            for name, value in trained.items():
                sums[name] += len(task.rows) * value.detach()
        aggregate = {name: value / total for name, value in sums.items()}
    return {names[name]: value for name, value in aggregate.items()}


def _load(trained: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(values[name])


CONTENDERS: dict[str, Callable[[], Trained]] = {"ours": ours, "plain": plain}


def main() -> None:
    """The command of this contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=CONTENDERS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    write(given.out, CONTENDERS[given.way]())


if __name__ == "__main__":
    main()
