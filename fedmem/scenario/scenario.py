"""A scenario: everything that decides the numbers of an experiment, read from one YAML file.

The file is read, changed by `--set`, checked as a whole and frozen. All mistakes are reported at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.data import DatasetLoader, Partition
from fedmem.contracts.defence import Defence
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of
from fedmem.contracts.injection import Injection
from fedmem.contracts.model import Model, TableModel, TextModel
from fedmem.contracts.probe import Probe
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.signal import AccumulatingSignal, Signal
from fedmem.contracts.strategy import StrategyMaker
from fedmem.contracts.unlearner import Unlearner
from fedmem.errors import Problem
from fedmem.privacy.mechanisms import strategy_with_noise
from fedmem.scenario import checks, yaml_source
from fedmem.scenario.catalogue import IDENTITY_NEUTRAL, Component, build, dump, without_neutral
from fedmem.scenario.coins import Coins
from fedmem.scenario.derived import Derive
from fedmem.scenario.initial import InitialWeightsField
from fedmem.scenario.normalising import Norm
from fedmem.scenario.observing import Observe
from fedmem.scenario.overrides import Origin
from fedmem.scenario.phases import After, OptionalComponent, Phase
from fedmem.scenario.removed import Removed
from fedmem.scenario.saving import Save
from fedmem.scenario.section import Positive, Section, Slug
from fedmem.scenario.speed import Speed
from fedmem.scenario.tied_dropout import TiedDropout
from fedmem.seeding import stream

RESULTS_VERSION = 7
"""Raised whenever the same scenario would give other numbers than before, or other intervals; part of every id.

7: intervals of `poisoning`, and probes of dishonest servers with weight decay or a proximal term.
"""


class LeaveOut(Section):
    """Which clients have a coin of their own, by which they are missing from half of the runs.

    A client that is out takes part in no round of that run, and its place in the cohort stays empty. Its audit examples
    are then read in the runs that have it.
    """

    clients: (
        Literal["all"] | Annotated[int, Strict(), Field(ge=0)] | tuple[Annotated[int, Strict(), Field(ge=0)], ...]
    ) = Field(default=0, description="all, a list of clients, or how many, drawn at random")


class Tolerate(Section):
    """Which failures do not end a run."""

    max_failed_share: Annotated[float, Strict(), Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of a cohort that may fail in a round"
    )
    not_finite: Annotated[bool, Strict()] = Field(
        default=False, description="pass models with values that are not finite on to the strategy, as no failure"
    )


class Privacy(Section):
    """The privacy guarantee of the parts of the scenario that add noise; see docs/privacy.md."""

    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-5, description="probability with which the guarantee may fail; less than 1 / clients"
    )
    target_epsilon: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="finds strategy.noise_multiplier, where that is null, before training"
    )
    adjacency: Literal["add_remove", "zero_out", "replace"] | None = Field(
        default=None,
        description="how neighbours differ: a client more or less, one that sends nothing, or another in its place. "
        "Left out, it is add_remove for poisson and everyone, else zero_out",
    )


class Scenario(Section):
    """One experiment, complete: whatever is not written in the file has its default here.

    Component fields hold component objects, not mappings. Equal scenarios have equal `dump()`.

    >>> scenario = Scenario(
    ...     name="tiny", rounds=2, clients=3, dataset={"kind": "synthetic"}, model={"kind": "mlp", "hidden": [8]}
    ... )
    >>> scenario.model.hidden, scenario.observed_rounds
    ((8,), (0, 2))
    """

    name: Slug = Field(description="folder of the results; the stem of the file if left out")
    seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = Field(default=0, description="root of every random draw")
    runs: Annotated[int, Strict(), Field(ge=1, le=10**5)] = Field(
        default=16,
        description="federations that differ in which audit examples are in: 1 or even; 8 or more give "
        "memorisation its intervals",
    )
    rounds: Annotated[int, Strict(), Field(ge=1, le=10**6)] = Field(description="rounds of training")
    clients: Annotated[int, Strict(), Field(ge=1, le=10**7)] = Field(description="clients in the federation")
    dataset: Annotated[DatasetLoader, Component("dataset")] = Field(description="the data")
    partition: Annotated[Partition, Component("partition")] = Field(
        default_factory=lambda: build("partition", {"kind": "iid"}), description="which client holds which rows"
    )
    model: Annotated[Model | TableModel | TextModel, Component("model")] = Field(description="the network")
    freeze: Annotated[tuple[str, ...], IDENTITY_NEUTRAL] = Field(
        default=(),
        description="names of parameters that no client trains or sends, with * for any characters, such as "
        "features.*; all clients and runs share them",
    )
    norm: Annotated[Norm | None, IDENTITY_NEUTRAL] = Field(
        default=None, description="what becomes of layers with running statistics, such as BatchNorm"
    )
    tied_dropout: Annotated[TiedDropout | None, IDENTITY_NEUTRAL] = Field(
        default=None,
        description="hidden units that single examples or clients train, and that evaluation drops",
    )
    client_shards: Annotated[int, Strict(), Field(ge=1, le=10**4), IDENTITY_NEUTRAL] = Field(
        default=1,
        description="shards of clients, each of which trains a network of its own; all are evaluated together (SISA)",
    )
    initial_weights: InitialWeightsField = Field(
        default="shared",
        description="all runs start from the same drawn weights (shared), each from its own (per_run), or all from "
        "those of a finished run or a file",
    )
    twins: Annotated[Positive, IDENTITY_NEUTRAL] = Field(
        default=1,
        description="how many runs share each draw of inclusion and rows; they differ in training noise",
    )
    coins: Annotated[Coins, IDENTITY_NEUTRAL] = Field(
        default=Coins(), description="the law of random inclusion: in how many runs each audit example is"
    )
    batches: Annotated[Literal["per_run", "shared"], IDENTITY_NEUTRAL] = Field(
        default="per_run",
        description="each run draws its own batches, or all runs have the same ones, which makes estimates conditional "
        "on them",
    )
    sampler: Annotated[Sampler, Component("sampler")] = Field(
        default_factory=lambda: build("sampler", {"kind": "everyone"}), description="which clients take part in a round"
    )
    client: Annotated[ClientAlgorithm, Component("client")] = Field(
        default_factory=lambda: build("client", {"kind": "sgd"}), description="what a client does locally"
    )
    defences: tuple[Annotated[Defence, Component("defence")], ...] = Field(
        default=(), description="what is done to an update before it leaves its client, one after the other"
    )
    strategy: Annotated[StrategyMaker, Component("strategy")] = Field(
        default_factory=lambda: build("strategy", {"kind": "fedavg"}), description="how the server aggregates"
    )
    injections: tuple[Annotated[Injection, Component("injection")], ...] = Field(
        default=(), description="audit examples added to clients"
    )
    exclusion: Literal["replace", "remove"] = Field(
        default="replace", description="an example that is out is replaced by a fresh row, or simply missing"
    )
    population: Annotated[int, Strict(), Field(ge=0, le=10**8)] = Field(
        default=200, description="held-out rows that no model ever trains on"
    )
    references: Annotated[int, Strict(), Field(ge=1, le=10**7)] = Field(
        default=1000, description="fresh references for each family of canaries"
    )
    roster: Literal["shared", "pilot", "per_run"] = Field(
        default="shared",
        description="one sequence of cohorts for all runs, drawn blindly or by what a further run shows, or one for "
        "each",
    )
    cohort_by: Literal["sampler", "strategy"] = Field(
        default="sampler", description="what picks the cohort: the sampler, or a strategy that picks its own"
    )
    central: Annotated[Literal["shuffled", "by_client"] | None, IDENTITY_NEUTRAL] = Field(
        default=None,
        description="one client that holds everything: the same rows, inclusion and passes, in mixed batches, or in "
        "those of one client after the other",
    )
    leave_out: LeaveOut = Field(default=LeaveOut(), description="clients that are missing from half of the runs")
    observe: Observe = Field(default=Observe(), description="when and where models are looked at")
    probes: tuple[Annotated[Probe, Component("probe")], ...] = Field(
        default=(), description="measurements of single transitions"
    )
    signals: Annotated[tuple[Annotated[Signal | AccumulatingSignal, Component("signal")], ...], IDENTITY_NEUTRAL] = (
        Field(default=(), description="cheap quantities of models on audit examples that may stand for memorisation")
    )
    estimators: tuple[Annotated[Estimator, Component("estimator")], ...] = Field(
        default=(), description="measurements over all runs"
    )
    bootstrap: Annotated[int, Strict(), Field(ge=20, le=10**6)] = Field(
        default=1000, description="how many other random inclusions give p of no memorisation"
    )
    privacy: Privacy = Field(
        default=Privacy(), description="the privacy guarantee of the parts of the scenario that add noise"
    )
    tolerate: Tolerate = Field(default=Tolerate(), description="failures that do not end a run")
    save: Save = Field(default=Save(), description="what is stored in addition to the measurements")
    derive: Annotated[Derive | None, IDENTITY_NEUTRAL] = Field(
        default=None, description="a finished run whose federation is used again; what is written beside it is changed"
    )
    removed: Annotated[Removed | None, IDENTITY_NEUTRAL] = Field(
        default=None, description="audit examples that no run trains on, while all others keep their random inclusion"
    )
    repeat: Annotated[int, Strict(), Field(ge=0, le=10**6), IDENTITY_NEUTRAL] = Field(
        default=0,
        description="number of a repetition: other batches, cohorts and noise with the same data and random inclusion",
    )
    then: Annotated[tuple[Phase, ...], IDENTITY_NEUTRAL] = Field(
        default=(), description="phases that follow this training, each from the final models of the one before"
    )
    after: Annotated[After | None, IDENTITY_NEUTRAL] = Field(
        default=None, description="the phase before this one, where this is a phase; written by fedmem"
    )
    unlearner: Annotated[Unlearner | None, OptionalComponent("unlearner"), IDENTITY_NEUTRAL] = Field(
        default=None, description="of a phase: changes the model of each run once, before round 1; write it in `then`"
    )
    speed: Speed = Field(
        default=Speed(),
        description="how it is computed; changes no result beyond rounding; lower `precision` rounds more",
    )

    _origin: Origin = PrivateAttr(default_factory=lambda: Origin("", {}))
    _notes: tuple[str, ...] = PrivateAttr(default=())
    _previous: Scenario | None = PrivateAttr(default=None)
    _derived_from: Path | None = PrivateAttr(default=None)

    @field_validator("observe", mode="after")
    @classmethod
    def _from_the_start(cls, observe: Observe, info: ValidationInfo) -> Observe:
        """Rounds counted from the end become numbers, so that dump and id say which rounds they are."""
        rounds = info.data.get("rounds")
        return observe if rounds is None else observe.model_copy(update={"rounds": observe.count_from_start(rounds)})

    @field_validator("save", mode="after")
    @classmethod
    def _saved_from_the_start(cls, save: Save, info: ValidationInfo) -> Save:
        """The same for the rounds of saved models."""
        rounds = info.data.get("rounds")
        return save if rounds is None else save.count_from_start(rounds)

    @model_validator(mode="after")
    def _check_consistency(self) -> Scenario:
        problems = checks.problems({name: getattr(self, name) for name in type(self).model_fields})
        if problems:
            text = "\n".join(str(problem) for problem in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self

    @model_validator(mode="after")
    def _noisy_enough(self) -> Scenario:
        """The noise that meets the target becomes a number, so that dump and id say which it is."""
        strategy = strategy_with_noise(self.strategy, self.sampler, self.privacy, self.clients, self.rounds)
        self.__dict__["strategy"] = strategy
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def observed_rounds(self) -> tuple[int, ...]:
        """The rounds that are looked at, sorted; 0 and the last are always among them."""
        return self.observe.observed_rounds_of(self.rounds)

    @property
    def has_pilot(self) -> bool:
        """Whether a further run is trained first, whose losses and norms decide the cohorts of all others."""
        return self.roster == "pilot" and bool(sampler_declaration(self.sampler).needs)

    @property
    def previous(self) -> Scenario | None:
        """The phase before this one; None where this is the first training."""
        if self.after is not None and self._previous is None:
            self._previous = Scenario(**self.after.scenario)
        return self._previous

    @property
    def phases(self) -> tuple[Scenario, ...]:
        """Every phase up to this one, the first training first."""
        return (self,) if self.previous is None else (*self.previous.phases, self)

    @property
    def training_seed(self) -> int:
        """Root of the random draws of the training: `seed`, or one of its own in each repetition and later phase."""
        names = [f"repetition {self.repeat}"] if self.repeat else []
        names += [f"phase {self.after.phase}"] if self.after is not None else []
        return int(stream(self.seed, ", ".join(names)).integers(2**63)) if names else self.seed

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that differ whenever results may: a hash of all but `speed`.

        A precision other than fp32 changes results by more than rounding in float32, and belongs to it.
        """
        content = {key: value for key, value in _to_plain(self, for_id=True).items() if key != "speed"}
        if self.speed.precision != "fp32":
            content["precision"] = self.speed.precision
        if self.previous is not None:
            content["after"]["scenario"] = self.previous.id
        text = json.dumps([RESULTS_VERSION, content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def dump(self) -> dict[str, Any]:
        """Plain values with every default written out; loading them gives an equal scenario."""
        plain: dict[str, Any] = _to_plain(self)
        return plain

    def to_yaml(self) -> str:
        """The dump as YAML."""
        return yaml_source.write(self.dump())

    def locate(self, path: str) -> tuple[str, int | None]:
        """Source (file or `--set`) and line of a YAML path, for messages."""
        return self._origin.locate(path)

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes that loading made beyond the overrides, one sentence each; empty without any."""
        return self._notes

    @property
    def derived_from(self) -> Path | None:
        """The folder of the run that `derive` read; None without it, and for a scenario that was stored."""
        return self._derived_from

    def place(self, problem: Problem) -> Problem:
        """The same problem with the file and line (or `--set`) of its path: for what only the data can tell."""
        return self._origin.locate_problem(problem)


def _to_plain(value: Any, *, for_id: bool = False) -> Any:
    """Plain values; with `for_id`, without fields that are marked `IDENTITY_NEUTRAL` and at their defaults."""
    if isinstance(value, BaseModel):
        values = {name: getattr(value, name) for name in type(value).model_fields}
        values = without_neutral(values, type(value)) if for_id else values
        keys = {name: item.alias or name for name, item in type(value).model_fields.items()}
        return {keys[name]: _to_plain(item, for_id=for_id) for name, item in values.items()}
    if isinstance(value, tuple):
        return [_to_plain(item, for_id=for_id) for item in value]
    return dump(value, for_id=for_id) if is_dataclass(value) else value


def default_kind(name: str) -> str:
    """The kind of a component where a scenario names none.

    >>> default_kind("partition")
    'iid'
    """
    return default_kinds()[name]


@cache
def default_kinds() -> dict[str, str]:
    """The kinds of all components that a scenario need not name, by field.

    >>> default_kinds()["sampler"], "dataset" in default_kinds()
    ('everyone', False)
    """
    names = [name for name, item in Scenario.model_fields.items() if _component_of(item) and item.default_factory]
    return {name: kind_of(Scenario.model_fields[name].get_default(call_default_factory=True)) for name in names}


def _component_of(item: FieldInfo) -> bool:
    """Whether a field takes one component."""
    return any(isinstance(part, Component) for part in item.metadata)
