"""The families of components, and how a component names itself.

A component is a frozen, keyword-only dataclass in a file named after its kind; its fields are its YAML fields. A field
whose type is one of the contracts of a family takes a nested component. Nothing is imported to register anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter
from fedmem.contracts.probe import Probe

FAMILIES: Mapping[str, str] = {
    "dataset": "fedmem.datasets",
    "partition": "fedmem.partitions",
    "model": "fedmem.models",
    "injection": "fedmem.injections",
    "sampler": "fedmem.samplers",
    "client": "fedmem.clients",
    "defence": "fedmem.defences",
    "strategy": "fedmem.strategies",
    "unlearner": "fedmem.unlearners",
    "probe": "fedmem.probes",
    "attack": "fedmem.attacks",
    "signal": "fedmem.signals",
    "estimator": "fedmem.estimators",
}
"""Family -> the package whose files are its kinds."""

FORMER_KINDS: Mapping[tuple[str, str], str] = {
    ("dataset", "table"): "write `csv` for a table of numbers and categories, or `text_table` for texts in a table"
}
"""Family and a kind that there was -> what to write now."""

OTHER_NAMES: Mapping[tuple[str, str], str] = {
    ("sampler", "random"): "uniform",
    ("sampler", "all"): "everyone",
    ("sampler", "full"): "everyone",
    ("partition", "random"): "iid",
    ("partition", "uniform"): "iid",
    ("client", "fedprox"): "sgd",
    ("model", "linear"): "logistic",
    ("model", "cnn"): "small_cnn",
    ("model", "lstm"): "char_rnn",
    ("model", "resnet"): "resnet8",
    ("attack", "threshold"): "loss_threshold",
    ("attack", "population"): "attack_p",
    ("attack", "reference"): "attack_r",
    ("attack", "calibrated_loss"): "watson",
    ("attack", "difficulty_calibration"): "watson",
    ("attack", "shadow"): "shokri",
    ("attack", "boundary"): "label_only",
    ("signal", "grand"): "grad_norm",
    ("signal", "gradient_norm"): "grad_norm",
    ("signal", "vog"): "gradient_variance",
    ("signal", "aum"): "logit_margin",
    ("unlearner", "neggrad"): "gradient_ascent",
    ("unlearner", "negative_gradient"): "gradient_ascent",
    ("unlearner", "retraining"): "retrain",
    ("estimator", "self_influence"): "memorisation",
    ("estimator", "mia"): "membership",
}
"""Family and another common name of a kind -> the kind, for suggestions in messages."""


def kind_of(component: object) -> str:
    """The kind that a component would have in YAML."""
    if isinstance(component, FlowerStrategyAdapter):
        return component.kind
    module, name = type(component).__module__, type(component).__qualname__
    package, _, kind = module.rpartition(".")
    return kind if package in FAMILIES.values() and not kind.startswith("_") else f"{module}:{name}"


def nested_components(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every component in a value with its path: the value itself, and what its fields, items and mappings hold.

    >>> from fedmem.scenario.catalogue import build
    >>> sampler = build("sampler", {"kind": "dropout", "sampler": {"kind": "everyone"}})
    >>> [(where, kind_of(part)) for where, part in nested_components(sampler, "sampler")]
    [('sampler', 'dropout'), ('sampler.sampler', 'everyone')]
    """
    if is_dataclass(value) and not isinstance(value, type):
        yield path, value
        for item in fields(value):
            yield from nested_components(getattr(value, item.name), f"{path}.{item.name}")
    elif isinstance(value, Mapping):
        for key, element in value.items():
            yield from nested_components(element, f"{path}.{key}")
    elif isinstance(value, (tuple, list, set, frozenset)):
        for position, element in enumerate(value):
            yield from nested_components(element, f"{path}[{position}]")


def sources(probes: Sequence[Probe]) -> tuple[str, ...]:
    """Under which name the readings of each probe stand: its kind, and from the second of a kind on its number.

    >>> from fedmem.probes.utility import Utility
    >>> sources([Utility(), Utility(every=5)])
    ('utility', 'utility_2')
    """
    kinds = [kind_of(probe) for probe in probes]
    earlier = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return tuple(kind if not count else f"{kind}_{count + 1}" for kind, count in zip(kinds, earlier, strict=True))
