"""The contract of every family of components, on one screen.

A component is a frozen, keyword-only dataclass in a file named after its kind; its fields are its YAML fields.
A field whose type is one of these protocols takes a nested component. Nothing here is imported to register anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.types import (
    BoolArray,
    ClientData,
    Dataset,
    Estimate,
    Examples,
    Federation,
    FloatArray,
    Injected,
    IntArray,
    Level,
    Measurement,
    Params,
    Reading,
    References,
    Role,
    Space,
    Transition,
    View,
)
from fedmem.errors import ComponentError
from fedmem.privacy.canary_clients import CanaryClients

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.contracts.reserve import Spare

FAMILIES: Mapping[str, str] = {
    "dataset": "fedmem.datasets",
    "partition": "fedmem.partitions",
    "model": "fedmem.models",
    "injection": "fedmem.injections",
    "sampler": "fedmem.samplers",
    "client": "fedmem.clients",
    "defence": "fedmem.defences",
    "strategy": "strategies",
    "probe": "fedmem.probes",
    "attack": "fedmem.attacks",
    "estimator": "fedmem.estimators",
}
"""Family -> the package whose files are its kinds."""


@runtime_checkable
class DatasetLoader(Protocol):
    """Loads real or made data; draws (a split, a synthetic sample) come from `rng` alone."""

    def load(self, rng: np.random.Generator) -> Dataset: ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A component of any family that reads files: which ones, also where some are missing.

    A finished run is not served when the content of one of them has changed. Without this method, each field of a
    component outside fedmem that names a file or a folder counts.
    """

    def input_files(self) -> Sequence[Path]: ...


@runtime_checkable
class Partition(Protocol):
    """Says who holds what: disjoint sorted index arrays that cover every row, or an error that counts the rest.

    For very many clients, `Parts` is a sequence of arrays that costs nothing for each. A class may have
    `leave_out: bool`; where it is true, rows may be left out, and nobody trains on them.

    A class whose clients each hold the rows of one owner says `by_owner: ClassVar[bool] = True`, or has a property of
    this name. Audit examples, controls and fill-ins are drawn from the rows of all owners, so that `fedmem check` and
    the report warn.
    """

    def assign(
        self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator
    ) -> Sequence[IntArray]: ...


@runtime_checkable
class FeatureShift(Partition, Protocol):
    """A partition whose clients see their inputs differently: float32 of the same shape, in [0, 1], nothing drawn."""

    def shift(self, client: int, num_clients: int, inputs: NDArray[np.float32]) -> NDArray[np.float32]: ...


@runtime_checkable
class Model(Protocol):
    """Builds a network. `stackable` is False where clients must be trained one by one (buffers, recurrent kernels).

    One of texts says `texts: ClassVar[bool] = True`: it maps token numbers (n, l) int64, l up to the length of a row,
    to logits (n, l, V), those at a place from the tokens up to there alone. It reads nothing else, and others no texts.
    """

    stackable: ClassVar[bool]

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module: ...


@runtime_checkable
class TableModel(Protocol):
    """A model that has to know the columns of a table, `Dataset.blocks`; for `stackable`, see `Model`."""

    stackable: ClassVar[bool]

    def build_table(self, blocks: tuple[int, ...], num_classes: int) -> nn.Module: ...


@runtime_checkable
class Injection(Protocol):
    """Adds audit examples. `name` labels the kind in every output.

    A class that can put its examples into texts says `texts: ClassVar[bool] = True`. One whose plans have `twins`,
    fill-ins of their own, says `own_fill_ins: ClassVar[bool] = True`, and no rows are reserved for these. Before
    partitioning, `spare_rows` is reserved for the examples and `total_copies` (over all of them) for fill-ins;
    `num_rows` is the number of training rows of the data set.
    """

    role: ClassVar[Role]

    @property
    def name(self) -> str: ...

    def spare_rows(self, num_clients: int, num_rows: int) -> int: ...

    def total_copies(self, num_clients: int, num_rows: int) -> int: ...

    def plan(self, clients: Sequence[ClientData], spare: Spare, space: Space, rng: np.random.Generator) -> Injected: ...


@runtime_checkable
class CanaryInjection(Injection, Protocol):
    """An injection whose generator can make fresh members of the same family: inputs, or those of a text in full."""

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32] | References: ...


@runtime_checkable
class ClassInjection(Injection, Protocol):
    """An injection that takes all its spare rows from one class; if `exclusive`, no client holds others of that class.

    Test and population keep the class. Rows that are kept from the clients and not injected are trained on by nobody.
    """

    exclusive: ClassVar[bool]

    @property
    def reserved_class(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class History:
    """What a sampler may look at before a round: N, and what is known of each client. Never a coin.

    `sizes`, `atypical` (N,): rows, and slots of atypical audit examples, whether in or out. `order` (N,): the clients
    as they signed up, in random order. `lots` (N,): a number in [0, 1) that each was dealt once, for traits that stay
    with it. `available` (N,): who can be reached in this round; everybody, unless the sampler is `Reaching`.
    `last_round` (N,): when it was last picked, 0 for never. `last_loss`, `last_norm` (N,): mean loss and norm of the
    update when it last trained, NaN for never; they depend on coins, so they are those of a pilot run, or of the run
    itself where each draws its own roster, and stay NaN for samplers without `needs` and under `roster: shared`.
    Arrays are read-only, and say after each round what is known then.
    """

    num_clients: int
    sizes: IntArray
    atypical: IntArray
    order: IntArray
    lots: FloatArray
    available: BoolArray
    last_round: IntArray
    last_loss: FloatArray
    last_norm: FloatArray

    @staticmethod
    def start(
        sizes: Sequence[int] | IntArray,
        atypical: Sequence[int] | IntArray = (),
        order: Sequence[int] | IntArray = (),
        lots: Sequence[float] | FloatArray = (),
    ) -> History:
        """Before the first round: nobody was picked, and everybody can be reached.

        By default nobody holds atypical slots, the order is 0 .. N-1, and lots are evenly spaced in it.

        >>> History.start([30, 20]).last_round.tolist()
        [0, 0]
        """
        count = len(sizes)
        return History(
            num_clients=count,
            sizes=np.array(sizes, dtype=np.int64),
            atypical=np.array(atypical if len(atypical) else [0] * count, dtype=np.int64),
            order=np.array(order if len(order) else np.arange(count), dtype=np.int64),
            lots=np.array(lots if len(lots) else (np.arange(count) + 0.5) / count, dtype=np.float64),
            available=np.ones(count, dtype=np.bool_),
            last_round=np.zeros(count, dtype=np.int64),
            last_loss=np.full(count, np.nan),
            last_norm=np.full(count, np.nan),
        )

    def require(self, size: int, group: str = "cohort") -> None:
        """Errors: `ComponentError` if there are fewer than `size` clients for a `group`."""
        if size > self.num_clients:
            raise ComponentError(
                "sampler.size",
                f"a {group} of {size} out of {self.num_clients} clients; "
                f"use at most {self.num_clients}, or raise clients to {size}",
            )


@runtime_checkable
class Sampler(Protocol):
    """Picks the cohort of a round: sorted client indices, possibly none.

    A class that reads `last_loss` or `last_norm` names them in `needs: ClassVar[tuple[str, ...]]`, or in a property.
    `reads: ClassVar[tuple[str, ...]]` says whether it reads `rows` (`sizes`) or `holdings` (`atypical`); () if
    neither. One that says nothing gets no privacy guarantee, whatever its `probabilities`.
    `displaces_nobody: ClassVar[bool] = True` says that one client more takes no other's place; without it no guarantee
    compares a client more or less (`add_remove`). A subclass with methods of its own declares both again.
    """

    def cohort(self, round: int, history: History, rng: np.random.Generator) -> IntArray: ...


@runtime_checkable
class Chances(Sampler, Protocol):
    """A sampler whose inclusion probabilities are known.

    `probabilities` (N,): for each client the probability that `cohort` picks it, given all that `history` shows before
    this round, over the draws of `rng` alone. So a client that has to rest has 0, and one whose turn it is has 1: what
    is drawn before a round hides nobody in it. None where they are not known.
    """

    def probabilities(self, round: int, history: History) -> FloatArray | None: ...


@runtime_checkable
class Spaced(Sampler, Protocol):
    """A sampler that keeps the turns of a client apart.

    `pause` is by how many rounds two turns of the same client are apart at least, whatever is drawn and whatever the
    clients hold, in a federation of so many; 1 where it may take part in every round. None where nothing is promised.
    """

    def pause(self, num_clients: int) -> int | None: ...


@runtime_checkable
class Reaching(Sampler, Protocol):
    """A sampler that says who can be reached at all.

    `reachable` (N,) is asked for once before each round; then `history.available` is what it said, while it is asked it
    is what it said last.
    """

    def reachable(self, round: int, history: History, rng: np.random.Generator) -> BoolArray: ...


ClientState = dict[str, Params]
"""What one client holds while it trains: `params`, and whatever else its algorithm needs, by name."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client algorithm ends with: `sent` leaves the client, `kept` stays, `memory` waits for its next round."""

    sent: Params
    kept: Params
    memory: Params = field(default_factory=dict)
    report: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class ClientAlgorithm(Protocol):
    """Local work as pure functions of tensors, written for one client and run one by one or under `vmap`.

    `batches` plans the epochs: (steps, batch_size) positions into the client's rows, -1 is padding.
    `gradient(params)` is the gradient of the mean loss over the current batch. `offer` holds what the strategy gives
    this client beside the model, and always a scalar `round`; `memory` is what its last `final` left, empty at first.
    `follows: ClassVar[Mapping[str, str]]` may name what a class understands of the instructions that stock strategies
    of Flower write into their messages, and as which offer; an instruction that nobody follows ends the run.
    `steps_by_rows: ClassVar[bool] = True` says that reported numbers of steps and learning rates depend on the number
    of rows and the settings alone; without it no noise covers them. A subclass with methods of its own says it again.
    """

    @property
    def batch_size(self) -> int: ...

    def num_steps(self, num_examples: int) -> int: ...

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray: ...

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState: ...

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState: ...

    def final(self, state: ClientState, before: Params) -> Outcome: ...


@runtime_checkable
class PersonalClient(ClientAlgorithm, Protocol):
    """A client that keeps some layers to itself: `own` names their parameters.

    They are left in `sent` as they came and are complete in `kept`; at level global every holder reads the aggregate
    with its own layers in it.
    """

    def own(self, params: Params) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How far the steps of a client go in one round.

    Attributes:
        learning_rates: (S,) one positive number for each local step, in order.
        weight_decay: pull towards zero that is added to each gradient, per unit of a parameter.
    """

    learning_rates: FloatArray
    weight_decay: float = 0.0

    @property
    def distance(self) -> float:
        """The sum of the learning rates: the update of a constant gradient, divided by minus this gradient.

        >>> Schedule(learning_rates=np.array([0.1, 0.3])).distance
        0.4
        """
        return math.fsum(self.learning_rates)


@runtime_checkable
class ScheduledClient(ClientAlgorithm, Protocol):
    """A client whose update an attack may read as a gradient, since it says how far its steps go.

    `schedule` is that of `num_steps` steps in the round `round_number` (1 is the first). Its learning rates depend on
    nothing else, such as earlier participation or offers of the strategy. A client that does not have this method is
    refused by probes that read gradients.
    """

    def schedule(self, round_number: int, num_steps: int) -> Schedule: ...


@dataclass(frozen=True, kw_only=True)
class PerExample:
    """How the gradient of a step is made of those of its n examples, for privacy of each.

    `(sum_i g_i min(1, clip / |g_i|) + noise_multiplier clip z) / expected` with independent standard normal z; for an
    empty batch the noise alone.
    """

    clip: float
    noise_multiplier: float
    expected: float


@runtime_checkable
class PrivateAlgorithm(ClientAlgorithm, Protocol):
    """A client algorithm whose `gradient` is made as `per_example` says, at the parameters of its state alone.

    `rate` is the probability with which a record of so many is in a batch, each by itself.
    """

    @property
    def per_example(self) -> PerExample: ...

    def rate(self, num_examples: int) -> float: ...


Draws = Literal["none", "normal", "uniform"]
"""What a defence wants drawn for each value of an update: nothing, standard normal, or uniform in [0, 1)."""


@runtime_checkable
class Defence(Protocol):
    """Changes an update, `sent - before`, before it leaves its client; what the client keeps stays as it is.

    `apply` is a pure function of tensors, written for one client and run one by one or under `vmap`. `update` holds the
    floating parameters; `drawn` has for each value one number of the law `draws`, in the same shapes, and is empty for
    `none`.
    """

    @property
    def draws(self) -> Draws: ...

    def apply(self, update: Params, drawn: Params) -> Params: ...


@runtime_checkable
class StrategyMaker(Protocol):
    """Makes a Flower `Strategy` for a cohort of this size (0: it varies); may carry a rule (strategies/_rule.py).

    A class may say what it needs: `client: ClassVar[str]`, the kind of client algorithm that honours its offers;
    `client_fields`, a mapping of that client's fields to the values that it reckons with; and a property `min_cohort`,
    the clients without which its guarantee does not hold.
    `reads: ClassVar[tuple[str, ...]]`, or a property, names what it reads of clients beside their updates, by the words
    of `coverage.WORDS`: `rows`, `steps`, `lr`, `loss`; () says that it reads nothing else. One that does not say gets
    no privacy guarantee. `noise_covers` names those of them that its own noise covers. A subclass with methods of its
    own declares both again.
    `weighting`, a field or `ClassVar`, says how clients count: by `size`, also if it does not say, or `uniform`.
    One that adds noise for privacy says `noisy: ClassVar[bool] = True`. Where this noise is not new in every round, a
    method `moved(rounds, pause, turns=None)` gives the square of by how many clips one client moves everything that is
    released, with `turns` of it at least `pause` rounds apart; None: as many as fit.
    """

    def make(self, cohort_size: int) -> Any: ...


@runtime_checkable
class Context(Protocol):
    """What a probe may ask for, besides the transitions it is shown."""

    federation: Federation
    client: ClientAlgorithm
    strategy: StrategyMaker
    seed: int
    observed_rounds: tuple[int, ...]
    """Every round of the scenario that is observed, sorted, 0 included, so that a probe can declare its own."""
    canaries: CanaryClients | None
    """The clients of random direction of the scenario, where its strategy has some."""
    weighting: str
    """How clients count in sums and in the aggregate: by `size` or `uniform`, as the strategy says."""

    def stream(
        self, purpose: str, *, run: int | None = None, round: int | None = None, client: int | None = None
    ) -> np.random.Generator: ...

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits in float64 of T models on the same n inputs."""
        ...

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        """What the client would send after its first local step, before any defence, and the rows in that batch."""
        ...

    def steps(self, transition: Transition, count: int) -> Params:
        """What the client would send after its first `count` local steps, before any defence, by the same executor."""
        ...

    def senders(self, transition: Transition) -> Sequence[Transition]:
        """The local transitions that the aggregate of a global one was made of, in order of client."""
        ...

    def rows(self, run: int, client: int, round: int) -> IntArray:
        """The rows of the store that a client trains on in this round, if it takes part."""
        ...

    def used(self, run: int, client: int, round: int) -> IntArray:
        """Those of them that are in one of its batches: not all, where its steps end before its first epoch does."""
        ...

    def given(self, transition: Transition) -> tuple[IntArray, Params]:
        """Of a local transition the batches of its steps (S, B), as rows of the store and -1, and what was offered."""
        ...

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Hand over arrays for `reconstructions.npz`, under `source/name/key` with the source of the probe.

        Arrays of different runs have different names, since they may come from different processes.
        """
        ...


@runtime_checkable
class Probe(Protocol):
    """Looks at the transitions of one level and round and returns readings; nothing waits for them.

    Runs are trained in shards, and a probe is shown the transitions of one shard at a time. So what it reads of a run
    must not depend on the runs shown beside it, and it keeps nothing from one call for the next. Whatever is about
    several runs is formed by `summarise`, which is given the readings of all of them.

    A class that compares examples that are in with examples that a coin held out, as its controls, says
    `compares_held_out: ClassVar[bool] = True`. A scenario is refused where such a comparison would be wrong: where
    copies that no coin masks (`unmasked`) are trained on in every run, and where each run picks its own clients by
    losses or norms. A class that reads an update as a gradient says `reads_gradients: ClassVar[bool] = True`; its
    clients must be `ScheduledClient`.
    """

    every: int | None
    levels: tuple[Level, ...]

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Each reading with the transition it is about."""
        ...

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Rows over all runs, from this probe's own measurements: of each round, and at round FINAL; may be empty.

        It is also called where there are no measurements.

        The measurements come by round and level, and within them by run, each run in the order in which it was read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a membership attack sees: one model in each of R runs, and m audit examples of one kind with their coins.

    `margin` (R, m), NaN where the example was not observed. `population` (S, R, n) are the losses of n examples that
    no run trains on, at each of S models; `model` (m,) is the one that shows example j (-1: none). None without them.
    """

    margin: FloatArray
    is_in: NDArray[np.bool_]
    population: FloatArray | None = None
    model: IntArray | None = None

    @property
    def loss(self) -> FloatArray:
        """-log p of the label (R, m), in nats."""
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            return np.logaddexp(0.0, -self.margin)


@runtime_checkable
class MembershipAttack(Protocol):
    """Scores membership: (R, m), higher means member, NaN where the example was not observed.

    What an attack may say beyond that: `reads_coins`, False where scores do not depend on the coins; `chance`, the AUC
    without memorisation where it is known; `under(seen)`, the scores as a function of the coins (R, m). An attack that
    says nothing is made anew under re-dealt coins.
    """

    knows: ClassVar[str]

    def scores(self, seen: Signals) -> FloatArray: ...


@dataclass(frozen=True, kw_only=True)
class GradientTarget:
    """What a reconstruction attack is given: a model, what was sent of it, and what the adversary is granted.

    `params` is the model before, `update` what was added to it (after - before; None where only a gradient is known),
    `gradient` the mean gradient of the loss: exact, or the update divided by -(learning rate x steps). `num_images` is
    how many examples shaped it, `clients` of how many clients it is the sum, `knows` a short text of what the adversary
    is granted beside these. `blocks` are the widths of the columns of a table, as in `Dataset.blocks`.
    `target_shape` is that of the targets of one example: () for a class, (length,) where the next token is asked at
    each place. `withheld` names parameters that stay with the client: update and gradient lack them, and `params` has
    them as the server does.

    Only what an attack declares is there, else None: `labels` (num_images,), sorted; `algorithm`, the client's, with
    the `offer` it was given; `batches` (steps, batch_size), the places 0 .. num_images - 1 of the examples in each
    batch, -1 for padding. Places go by sorted label where labels are granted, else by first use. `population` are
    examples of the adversary's own, drawn like those of the clients, on which nobody trains.
    """

    model: nn.Module
    params: Params
    gradient: Params
    num_images: int
    input_shape: tuple[int, ...]
    num_classes: int
    knows: str
    update: Params | None = None
    clients: int = 1
    blocks: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    withheld: tuple[str, ...] = ()
    labels: IntArray | None = None
    algorithm: ClientAlgorithm | None = None
    offer: Params = field(default_factory=dict)
    batches: IntArray | None = None
    population: Examples | None = None

    def granted(self, words: Sequence[str]) -> GradientTarget:
        """The same without what is not in `words`, some of `GRANTS`; `knows` has the rest.

        An attack is shown no more than it declares, so that it cannot use what its report does not say. Places that go
        by label would tell the labels of each batch, so without labels they are counted anew, by first use.
        """
        shown: dict[str, Any] = {word: getattr(self, word) if word in words else None for word in GRANTS}
        if shown["batches"] is not None and shown["labels"] is None:
            shown["batches"] = _by_first_use(shown["batches"])
        shown["knows"] = "+".join([self.knows, *(word for word in GRANTS if shown[word] is not None)])
        return replace(self, **shown, offer=self.offer if "algorithm" in words else {})


def _by_first_use(batches: IntArray) -> IntArray:
    """The same batches with places in the order in which they are first met; -1 stays.

    >>> _by_first_use(np.array([[2, 0], [1, -1], [0, 2]])).tolist()
    [[0, 1], [2, -1], [1, 0]]
    """
    met = dict.fromkeys(batches[batches >= 0].tolist())
    number = {-1: -1} | {place: count for count, place in enumerate(met)}
    return np.array([[number[place] for place in batch] for batch in batches.tolist()], dtype=np.int64)


GRANTS = ("labels", "algorithm", "batches", "population")
"""What an attack may declare to know beside the model, its update and how many examples shaped it."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What the attack returns: images (n, *shape) in [0, 1], their labels (n,), and the matching distance reached.

    Texts are token numbers (n, length), and labels (n, length) the token after each, -1 where nothing is asked.
    """

    inputs: NDArray[Any]
    labels: IntArray
    distance: float


@runtime_checkable
class ReconstructionAttack(Protocol):
    """Rebuilds training examples from gradients or updates. Restarts are chosen by matching distance only.

    One that rebuilds texts says `texts: ClassVar[bool] = True`. `knows` are the words of `GRANTS` that it uses; a class
    may make it depend on its fields. Each target has a generator of its own, so that what comes of it does not depend
    on the targets beside it.
    """

    @property
    def knows(self) -> tuple[str, ...]: ...

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]: ...


@runtime_checkable
class Estimator(Protocol):
    """A pure function of stored evidence. Intervals, differences and retention follow from `Estimate.influence`.

    A class may declare what a scenario must have for it, each False by default:

    - `compares_held_out: ClassVar[bool]`: its result holds only if an example that is out is not trained on at all, so
      that copies that no coin masks (`unmasked`) are refused;
    - `compares_clients: ClassVar[bool]`: it compares runs with and without a client. It needs `leave_out` and no
      injections, and reads one aggregate for all clients;
    - `needs_canaries: ClassVar[bool]`: it ranks canaries among fresh references.
    """

    def estimate(self, view: View) -> Sequence[Estimate]: ...

    def tests(self, view: View) -> Sequence[tuple[int, Reading]]:
        """Readings of single runs, such as a combined p-value, each with its run (-1: over all runs); may be empty."""
        ...
