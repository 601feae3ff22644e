"""Phases: trainings that follow each other, each from the models with which the one before ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, Strict
from pydantic_core import core_schema

from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.defence import Defence
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.probe import Probe
from fedmem.contracts.sampler import Sampler
from fedmem.contracts.signal import AccumulatingSignal, Signal
from fedmem.contracts.strategy import StrategyMaker
from fedmem.contracts.unlearner import Unlearner
from fedmem.scenario.catalogue import IDENTITY_NEUTRAL, Component
from fedmem.scenario.observing import Observe
from fedmem.scenario.saving import Save
from fedmem.scenario.section import Positive, Section, Slug


class OptionalComponent(Component):
    """Marks a field as taking a component or none."""

    is_optional = True

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> Any:
        return None if value is None else super()._validate(value)


class Forget(Section):
    """Audit examples and clients that are not trained on from a phase on.

    An example takes its replacement row into its place, as if it were out; with `exclusion: remove` its place stays
    empty. A client takes no part, and its place in the cohort stays empty.
    """

    kinds: tuple[Annotated[str, Strict()], ...] = Field(
        default=(), description="kinds of audit examples, by the names of their injections"
    )
    clients: tuple[Annotated[int, Strict(), Field(ge=0)], ...] = Field(
        default=(), description="clients that take no part any more"
    )

    def __bool__(self) -> bool:
        """Whether anything is forgotten.

        >>> bool(Forget()), bool(Forget(clients=(2,)))
        (False, True)
        """
        return bool(self.kinds or self.clients)


class Relearn(Section):
    """Audit examples that the phase before forgot, and that every run trains on in this phase.

    Random inclusion stays that of the first training. It now says which runs had trained on the examples before.
    """

    kinds: tuple[Annotated[str, Strict()], ...] = Field(
        default=(), description="kinds of audit examples that the phase before forgot, by the names of their injections"
    )

    def __bool__(self) -> bool:
        """Whether anything is learnt again."""
        return bool(self.kinds)


class Phase(Section):
    """A training that starts from the final models of the one before. What is left out is as in the scenario.

    Server and clients begin without any state.
    """

    name: Slug | None = Field(default=None, description="its name in messages and tables")
    rounds: Positive = Field(description="rounds of training")
    forget: Forget = Field(default=Forget(), description="what is not trained on from this phase on")
    relearn: Annotated[Relearn, IDENTITY_NEUTRAL] = Field(
        default=Relearn(), description="what the phase before forgot, and every run trains on in this one"
    )
    unlearner: Annotated[Unlearner | None, OptionalComponent("unlearner"), IDENTITY_NEUTRAL] = Field(
        default=None, description="changes the model of each run once, before the first round, so that it forgets"
    )
    client: Annotated[ClientAlgorithm | None, OptionalComponent("client")] = Field(
        default=None, description="what a client does locally"
    )
    strategy: Annotated[StrategyMaker | None, OptionalComponent("strategy")] = Field(
        default=None, description="how the server aggregates"
    )
    sampler: Annotated[Sampler | None, OptionalComponent("sampler")] = Field(
        default=None, description="which clients take part in a round"
    )
    defences: tuple[Annotated[Defence, Component("defence")], ...] | None = Field(
        default=None, description="what is done to an update before it leaves its client, one after the other"
    )
    observe: Observe | None = Field(
        default=None,
        description="when and where models are looked at; left out, as in the scenario, without observe.rounds",
    )
    probes: tuple[Annotated[Probe, Component("probe")], ...] | None = Field(
        default=None, description="measurements of single transitions"
    )
    signals: tuple[Annotated[Signal | AccumulatingSignal, Component("signal")], ...] | None = Field(
        default=None, description="cheap quantities of models on audit examples that may stand for memorisation"
    )
    estimators: tuple[Annotated[Estimator, Component("estimator")], ...] | None = Field(
        default=None, description="measurements over all runs"
    )
    save: Save = Field(default=Save(), description="what is stored in addition to the measurements")

    def given_fields(self) -> dict[str, Any]:
        """The fields of the scenario that it replaces, by name."""
        names = ("client", "strategy", "sampler", "defences", "probes", "signals", "estimators")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class After(Section):
    """The phase before this one, as a whole scenario, and what is forgotten since; written by fedmem.

    Attributes:
        scenario: The scenario of the phase before, as `Scenario.dump` gives it.
        phase: The number of this phase; the first training is phase 0.
        name: Its name.
        forget: What is not trained on from this phase on.
        relearn: What every run trains on in this phase, and the phase before forgot.
    """

    scenario: dict[str, Any] = Field(description="the phase before, as a whole scenario")
    phase: Positive = Field(description="the number of this phase; the first training is phase 0")
    name: Slug | None = Field(default=None, description="the name of this phase")
    forget: Forget = Field(default=Forget(), description="what is not trained on from this phase on")
    relearn: Annotated[Relearn, IDENTITY_NEUTRAL] = Field(
        default=Relearn(), description="what the phase before forgot, and every run trains on in this one"
    )

    @property
    def title(self) -> str:
        """Its name for people.

        >>> After(scenario={}, phase=1).title, After(scenario={}, phase=2, name="unlearn").title
        ('phase 1', 'phase 2 (unlearn)')
        """
        return f"phase {self.phase}" + (f" ({self.name})" if self.name else "")


def forgotten_until(scenario: Mapping[str, Any]) -> Forget:
    """All that the phases of a dumped scenario forget, up to its own; nothing for an empty one.

    >>> forgotten_until({"after": {"scenario": {}, "forget": {"kinds": ["a"]}}}).kinds, bool(forgotten_until({}))
    (('a',), False)
    """
    after = scenario.get("after") or {}
    if not after:
        return Forget()
    own, earlier = after.get("forget") or {}, forgotten_until(after.get("scenario") or {})
    return Forget(
        kinds=(*earlier.kinds, *(own.get("kinds") or ())), clients=(*earlier.clients, *(own.get("clients") or ()))
    )
