"""Which parts of a scenario can read its data: images and tables, or texts."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import AttackDeclaration, ReconstructionAttack, attack_declaration
from fedmem.contracts.client import PersonalClient, client_declaration
from fedmem.contracts.data import Dataset, DatasetLoader, FeatureShift
from fedmem.contracts.declarations import class_value
from fedmem.contracts.families import kind_of
from fedmem.contracts.federation import Federation
from fedmem.contracts.injection import InjectionDeclaration, injection_declaration
from fedmem.contracts.model import ModelDeclaration, last_layer, model_declaration, trained_parameters
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import BuiltNetwork, probe_declaration
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.sampling import SamplingNetwork
from fedmem.contracts.signal import SignalDeclaration, signal_declaration
from fedmem.contracts.unlearner import unlearner_declaration
from fedmem.errors import ComponentError, Problem
from fedmem.federation.density_checks import density_problems
from fedmem.modalities.tables import Tables
from fedmem.scenario.catalogue import kinds, load

if TYPE_CHECKING:
    from torch import nn

    from fedmem.scenario.scenario import Scenario


def mismatches(scenario: Scenario, data: Dataset) -> list[Problem]:
    """A problem for each part of the scenario that cannot do anything with the data, with what can.

    A class whose `texts` is true reads rows of tokens. One whose `labelled_texts` is true reads texts with a class.
    Of models, these read nothing else. Classes that do not say read images and tables.
    """
    problems = [*_model(scenario, data), *_client(scenario, data), *_numbers(scenario, data)]
    if data.modality.token_inputs:
        problems += [*_texts(scenario, _declared_name(data))]
    return [*problems, *_signals(scenario, data), *density_problems(scenario, data)]


def _declared_name(data: Dataset) -> str:
    """The declaration of classes that read such data; empty for numbers."""
    return ("texts" if data.modality.tokens else "labelled_texts") if data.modality.token_inputs else ""


def _model(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    model, name = scenario.model, _declared_name(data)
    declared = model_declaration(model)
    if getattr(declared, name) if name else not (declared.texts or declared.labelled_texts):
        return
    of_tokens = _text_kinds("model", ModelDeclaration, name or "texts")
    suitable_kinds = of_tokens if name else [kind for kind in kinds("model") if kind not in of_tokens]
    inputs = {
        "texts": "texts, rows of tokens",
        "labelled_texts": "texts with a class each, rows of tokens",
        "": f"no texts, but inputs of shape {data.train.inputs.shape[1:]}",
    }[name]
    yield Problem(
        path="model.kind",
        message=f"{kind_of(scenario.dataset)} has {inputs}, which {kind_of(model)} does not read; choose from: "
        + ", ".join(suitable_kinds),
    )


def _client(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    for name in client_declaration(scenario.client).text_fields if not data.modality.tokens else ():
        yield Problem(
            path=f"client.{name}",
            message=f"{name}: {getattr(scenario.client, name)} works on the tokens of texts, and "
            f"{kind_of(scenario.dataset)} has none; leave it out, or use a data set of texts, such as shakespeare",
        )

    selection = client_declaration(scenario.client).selection
    if selection is not None and selection.by == "el2n" and data.modality.tokens:
        yield Problem(
            path="client.by",
            message=f"by: el2n is the error of one label, and {kind_of(scenario.dataset)} has passages with many "
            "predicted tokens; use by: loss or by: random",
        )


def _numbers(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    """Probes that read inputs as numbers have none in texts."""
    are_texts = data.modality.token_inputs or data.train.several_targets
    for position, probe in enumerate(scenario.probes if are_texts else ()):
        if probe_declaration(probe).reads_numbers:
            yield Problem(
                path=f"probes[{position}].kind",
                message=f"{kind_of(probe)} reads inputs as numbers, but {kind_of(scenario.dataset)} has texts. Use a "
                "data set of images, tables or series, or leave this probe out",
            )


def _signals(scenario: Scenario, data: Dataset) -> Iterator[Problem]:
    for position, signal in enumerate(scenario.signals):
        declared, path = signal_declaration(signal), f"signals[{position}].kind"
        readable = declared.texts or (declared.per_class and not data.modality.tokens)
        if data.modality.token_inputs and not readable:
            suitable_kinds = ", ".join(_text_kinds("signal", SignalDeclaration))
            reason = (
                "stores one value for each class of an example, but {} has passages, each with many predicted tokens"
                if declared.per_class
                else "reads inputs as numbers and may move them, but {} has texts, rows of tokens"
            )
            yield Problem(
                path=path,
                message=f"{kind_of(signal)} {reason.format(kind_of(scenario.dataset))}; choose from: {suitable_kinds}",
            )
        elif declared.texts_only and not data.modality.tokens:
            yield Problem(
                path=path,
                message=f"{kind_of(signal)} reads the probabilities of tokens, but {kind_of(scenario.dataset)} has "
                "none; use a data set of texts or pixels, or leave it out",
            )
        elif declared.set == "test" and not len(data.test):
            yield Problem(
                path=path,
                message=f"{kind_of(signal)} is read on test examples, but {kind_of(scenario.dataset)} has none; leave "
                "it out",
            )
        elif declared.columns and not isinstance(data.modality, Tables):
            yield Problem(
                path=path,
                message=f"{kind_of(signal)} reads the columns of a table, and {kind_of(scenario.dataset)} has none; "
                "leave it out",
            )


def unsuitable_networks(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each part of the scenario that its network does not suit."""
    checks = (shallow_networks, large_networks, frozen_heads, missing_blocks, without_samples, unattackable_networks)
    return [problem for check in checks for problem in check(scenario, network, data)]


def unattackable_networks(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each reason why a probe cannot act on the network and the population of the scenario."""
    declared = {i: probe_declaration(probe).network_problems for i, probe in enumerate(scenario.probes)}
    if not any(declared.values()):
        return []
    initial: Params = {name: value.detach() for name, value in trained_parameters(network).items()}
    client = scenario.client
    built = BuiltNetwork(
        network=deepcopy(network).eval(),  # dropout would draw from the global generator
        initial=initial,
        shape=data.train.inputs.shape[1:],
        token_inputs=data.modality.token_inputs,
        personal=client.personal_parameters(initial) if isinstance(client, PersonalClient) else (),
        population=scenario.population,
    )
    return [
        Problem(path=f"probes[{position}]" + f".{problem.path}" * bool(problem.path), message=problem.message)
        for position, problems_of in declared.items()
        if problems_of is not None
        for problem in problems_of(built)
    ]


def require_base_rows(scenario: Scenario, base: Ragged) -> None:
    """Errors: `ComponentError` where a probe reads base rows of every client, and one of them has none."""
    empty = [client for client, rows in enumerate(base) if not len(rows)]
    for position, probe in enumerate(scenario.probes if empty else ()):
        if probe_declaration(probe).needs_base_rows:
            raise ComponentError(
                f"probes[{position}]",
                f"{kind_of(probe)} reads base rows of every client, but client {empty[0]} has none. Use fewer clients, "
                "another partition or fewer audit examples, or leave this probe out",
            )


def require_readable(scenario: Scenario, federation: Federation) -> None:
    """Errors: `ComponentError` at the signal whose fields do not suit the federation, such as a column that is missing.

    It is found before training, by the methods that name the quantities of a signal and count its passes.
    """
    for position, signal in enumerate(scenario.signals):
        declared = signal_declaration(signal)
        try:
            for method in (declared.variant_names, declared.passes_in):
                if method is not None:
                    method(federation)
        except ComponentError as error:
            is_field = error.path.partition("[")[0] in {field.name for field in fields(signal)}  # type: ignore[arg-type]
            path = f"signals[{position}].{error.path}" if is_field else error.path
            raise ComponentError(path, error.message) from error


def without_samples(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each signal and probe that draws samples, where the network is no generative model."""
    if data.modality.tokens or isinstance(network, SamplingNetwork):
        return []
    parts: list[tuple[str, object]] = [(f"signals[{i}].kind", part) for i, part in enumerate(scenario.signals)]
    parts += [(f"probes[{i}].kind", part) for i, part in enumerate(scenario.probes)]
    return [
        Problem(
            path=path,
            message=f"{kind_of(part)} draws samples of the models, but {kind_of(scenario.model)} is no generative "
            "model. Use dataset: {kind: pixels} with a network of texts, or a network with a method "
            "sample(count, generator)",
        )
        for path, part in parts
        if needs_of(part).draws_samples
    ]


def missing_blocks(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem where the unlearner changes a block that the network does not have."""
    numbers = () if scenario.unlearner is None else unlearner_declaration(scenario.unlearner).blocks
    if not numbers or not len(data.train):
        return []
    import torch

    from fedmem.training.blocks import parameter_blocks

    sample = torch.from_numpy(np.array(data.train.inputs[:1]))
    count = len(parameter_blocks(network, sample, trained_parameters(network)))
    if max(numbers) <= count:
        return []
    return [
        Problem(
            path="unlearner.blocks",
            message=f"{kind_of(scenario.unlearner)} resets block {max(numbers)}, but {kind_of(scenario.model)} has "
            f"{count} {'block' if count == 1 else 'blocks'}; use 1 to {count}",
        )
    ]


def shallow_networks(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each signal that needs more hidden blocks than the network of the scenario has."""
    import torch

    from fedmem.training.blocks import hidden_blocks

    needs = {i: signal_declaration(signal).min_blocks for i, signal in enumerate(scenario.signals)}
    if not any(needs.values()) or not len(data.train):
        return []
    blocks = hidden_blocks(network, torch.from_numpy(np.array(data.train.inputs[:1])))
    return [
        Problem(
            path=f"signals[{position}].kind",
            message=f"{kind_of(scenario.signals[position])} needs {needed} hidden blocks or more, but "
            f"{kind_of(scenario.model)} has {len(blocks)}; choose a deeper network, such as model: "
            "{kind: mlp, hidden: [64, 64, 64]} or resnet8",
        )
        for position, needed in needs.items()
        if len(blocks) < needed
    ]


def large_networks(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each signal that the network of the scenario has too many parameters for."""
    count = sum(value.numel() for value in trained_parameters(network).values())
    declared = [signal_declaration(signal) for signal in scenario.signals]
    return [
        Problem(
            path=f"signals[{position}]",
            message=f"{kind_of(scenario.signals[position])} forms a matrix of at most {limit:,} × {limit:,} "
            f"parameters, but {kind_of(scenario.model)} has {count:,}; {instead}choose a smaller network",
        )
        for position, (limit, instead) in enumerate(
            (one.max_parameters, f"{one.for_large_networks}, or " * bool(one.for_large_networks)) for one in declared
        )
        if limit and count > limit
    ]


def frozen_heads(scenario: Scenario, network: nn.Module, data: Dataset) -> list[Problem]:
    """A problem for each signal that reads gradients of the last layer, where nobody trains that layer."""
    places = [i for i, signal in enumerate(scenario.signals) if signal_declaration(signal).trains_last_layer]
    if not places or not len(data.train):
        return []
    name = last_layer(network, data.train.inputs[:1])
    if any(value.requires_grad for value in network.get_submodule(name).parameters(recurse=False)):
        return []
    return [
        Problem(
            path=f"signals[{position}].kind",
            message=f"{kind_of(scenario.signals[position])} reads gradients of the last layer, `{name}`, which is "
            "frozen; read grad_norm or el2n instead",
        )
        for position in places
    ]


def _texts(scenario: Scenario, name: str) -> Iterator[Problem]:
    suitable_kinds = ", ".join(_text_kinds("injection", InjectionDeclaration, name))
    for position, injection in enumerate(scenario.injections):
        if not getattr(injection_declaration(injection), name):
            yield Problem(
                path=f"injections[{position}].kind",
                message=f"{kind_of(injection)} makes no {name.replace('_', ' ')}, but {kind_of(scenario.dataset)} has "
                f"nothing else; choose from: {suitable_kinds}",
            )
    if isinstance(scenario.partition, FeatureShift):
        yield Problem(
            path="partition.kind",
            message=f"{kind_of(scenario.partition)} changes pixels, but {kind_of(scenario.dataset)} has texts; use "
            "natural, or iid",
        )
    attacks = ", ".join(_text_kinds("attack", AttackDeclaration))
    probe: Any
    for position, probe in enumerate(scenario.probes):
        path = f"probes[{position}]"
        for item in fields(probe):
            part = getattr(probe, item.name)
            if isinstance(part, DatasetLoader):
                continue
            if is_dataclass(part) and not (attack_declaration(part).texts and name == "texts"):
                remedy = (
                    f"choose from: {attacks}" if name == "texts" else "no attack reads texts with classes; leave it out"
                )
                yield Problem(
                    path=f"{path}.{item.name}.kind",
                    message=f"{kind_of(part)} reconstructs images, but {kind_of(scenario.dataset)} has texts; {remedy}",
                )
            elif isinstance(part, ReconstructionAttack) and "labels" in part.knows:
                yield Problem(
                    path=f"{path}.{item.name}.labels",
                    message=f"the labels of {kind_of(scenario.dataset)} are the next tokens, which are the text "
                    "itself; write inferred",
                )


def _text_kinds(family: str, record: type, name: str = "texts") -> list[str]:
    """The kinds of a family that read texts, or texts with a class each."""
    return [kind for kind in kinds(family) if class_value(load(family, kind), record, name)]
