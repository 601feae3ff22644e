"""Which public names a component of each family may have; any other is refused.

The names are its fields, the members of the contracts of its family, and what it may declare. A name that begins with
an underscore is the component's own.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache

from fedmem.contracts import (
    attack,
    client,
    data,
    defence,
    estimator,
    injection,
    model,
    probe,
    sampler,
    signal,
    strategy,
    unlearner,
)
from fedmem.contracts.declarations import Declaration, names_of, read_declaration
from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter
from fedmem.errors import ComponentError
from fedmem.wording import did_you_mean

PROTOCOLS: Mapping[str, tuple[type, ...]] = {
    "dataset": (data.DatasetLoader,),
    "partition": (data.Partition,),
    "model": (model.Model, model.TableModel, model.TextModel),
    "injection": (injection.Injection, injection.CanaryInjection),
    "sampler": (sampler.Sampler,),
    "client": (client.ClientAlgorithm, client.PersonalClient),
    "defence": (defence.Defence,),
    "strategy": (strategy.StrategyMaker,),
    "unlearner": (unlearner.Unlearner,),
    "probe": (probe.Probe,),
    "attack": (attack.MembershipAttack, attack.ReconstructionAttack),
    "signal": (signal.Signal, signal.AccumulatingSignal),
    "estimator": (estimator.Estimator,),
}
"""Family -> the contracts of which a member satisfies at least one."""

OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "partition": (data.FeatureShift,),
    "injection": (injection.ClassInjection, injection.AimedInjection, injection.TriggeredInjection),
    "probe": (probe.MechanismTest,),
    "estimator": (estimator.EpsilonAudit,),
    "sampler": (sampler.KnownProbabilities, sampler.MinimumSeparation, sampler.Availability),
    "client": (client.ScheduledClient, client.PrivateAlgorithm),
}
"""Family -> contracts that a member may satisfy as well."""

DECLARATIONS: Mapping[str, type[Declaration]] = {
    "dataset": data.DatasetDeclaration,
    "partition": data.PartitionDeclaration,
    "model": model.ModelDeclaration,
    "injection": injection.InjectionDeclaration,
    "sampler": sampler.SamplerDeclaration,
    "client": client.ClientDeclaration,
    "defence": defence.DefenceDeclaration,
    "strategy": strategy.StrategyDeclaration,
    "unlearner": unlearner.UnlearnerDeclaration,
    "probe": probe.ProbeDeclaration,
    "attack": attack.AttackDeclaration,
    "signal": signal.SignalDeclaration,
    "estimator": estimator.EstimatorDeclaration,
}
"""Family -> the record of what a member may declare."""


def required_members(protocol: type) -> set[str]:
    """The names of the members that a contract asks for."""
    names: set[str] = set()
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False) and base is not typing.Protocol:
            names |= {name for name in {**vars(base), **vars(base).get("__annotations__", {})} if name[0] != "_"}
    return names


def member_names(cls: type) -> set[str]:
    """The names of a class; fields without a default count."""
    return set(dir(cls)) | ({item.name for item in fields(cls)} if is_dataclass(cls) else set())


@cache
def allowed_names(family: str) -> frozenset[str]:
    """The public names that a component of a family may have besides its fields."""
    contracts = (*PROTOCOLS[family], *OPTIONAL.get(family, ()), data.ReadsFiles)
    names = {name for contract in contracts for name in required_members(contract)}
    return frozenset(names) | names_of(DECLARATIONS[family])


def undeclared_names(family: str, cls: type) -> list[str]:
    """The public names of a class that are neither fields nor members of a contract nor declarations.

    >>> from fedmem.strategies.fedprox import FedProx
    >>> class Misspelt(FedProx):
    ...     min_cohrt = 3
    >>> undeclared_names("strategy", FedProx), undeclared_names("strategy", Misspelt)
    ([], ['min_cohrt'])
    """
    field_names = {item.name for item in fields(cls)} if is_dataclass(cls) else set()
    return sorted(name for name in set(dir(cls)) - field_names - allowed_names(family) if not name.startswith("_"))


def check_declarations(family: str, component: object) -> None:
    """Raise `ComponentError` for a public name that is not declared, and for a declaration of a wrong type."""
    if isinstance(component, FlowerStrategyAdapter):
        return
    cls = type(component)
    for name in undeclared_names(family, cls):
        raise ComponentError(
            "",
            f"{cls.__name__} has the public name {name!r}, which is no member of a {family}"
            f"{did_you_mean(name, allowed_names(family))}; correct it, or write _{name} if it is a helper",
        )
    read_declaration(DECLARATIONS[family], component)
