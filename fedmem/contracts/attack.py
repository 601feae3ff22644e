"""Contracts of attacks: their inputs, their results and their methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.data import Examples
from fedmem.contracts.declarations import declare, read_declaration
from fedmem.contracts.needs import YES_OR_NO, Needs

if TYPE_CHECKING:
    from torch import nn

    from fedmem.modalities.modality import Modality


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The input of a membership attack: one model in each of R runs, and m audit examples of one kind with their coins.

    `margin` (R, m), NaN where the example was not observed. `population` (S, R, n) are the losses of n examples that no
    run trains on, at each of S models. `model` (m,) is the index of the model for example j (-1: none). Both are None
    without population, and for an attack that does not declare `needs_population`.

    An attack is granted the following only where it declares them in `AttackDeclaration.reads`:

    - `labels`: `labels` (m,) of the audit examples and `population_labels` (n,);
    - `correct`: `correct` (R, m), whether the model is right, NaN where not observed;
    - `inputs`: `inputs` (m, ...) of the audit examples and `population_inputs` (n, ...);
    - `initial`: `initial` (R, m), the losses of the initial model of each run, in nats.

    `signals` has the values (R, m) of the quantities of signals that it declares in `reads_signals`, by name. They are
    NaN where the signal was not read.

    `series` and `others` have the quantities that it declares in `reads_series` and `reads_others`, by name. They are
    over the S observed rounds from 1 on, up to that of `margin`. A name is `loss`, `margin`, `correct` or that of a
    signal. `series` are the values (S, R, m) of the same sequence of models, NaN at rounds without its model. `others`
    are those of the other clients of each round, (K, R, m), NaN for a client that holds the example.
    """

    margin: FloatArray
    is_in: NDArray[np.bool_]
    population: FloatArray | None = None
    model: IntArray | None = None
    labels: IntArray | None = None
    population_labels: IntArray | None = None
    correct: FloatArray | None = None
    inputs: NDArray[Any] | None = None
    population_inputs: NDArray[Any] | None = None
    initial: FloatArray | None = None
    signals: Mapping[str, FloatArray] = field(default_factory=dict)
    series: Mapping[str, FloatArray] = field(default_factory=dict)
    others: Mapping[str, Sequence[FloatArray]] = field(default_factory=dict)

    AXIS_OF_RUNS: ClassVar[Mapping[str, int | None]] = {
        "margin": 0,
        "is_in": 0,
        "population": 1,
        "model": None,
        "labels": None,
        "population_labels": None,
        "correct": 0,
        "inputs": None,
        "population_inputs": None,
        "initial": 0,
        "signals": 0,
        "series": 1,
        "others": 1,
    }
    """The axis of the runs in each field, or in each array of a mapping; None for a field without runs."""

    def take_runs(self, runs: IntArray) -> Signals:
        """The evidence of these runs alone.

        >>> one = Signals(margin=np.zeros((4, 2)), is_in=np.zeros((4, 2), bool)).take_runs(np.array([0, 2]))
        >>> one.margin.shape
        (2, 2)
        """
        values = {
            name: _take(getattr(self, name), runs, axis)
            for name, axis in self.AXIS_OF_RUNS.items()
            if axis is not None and getattr(self, name) is not None
        }
        return replace(self, **values)

    @property
    def loss(self) -> FloatArray:
        """-log p of the label (R, m), in nats."""
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            return np.logaddexp(0.0, -self.margin)


def _take(value: Any, runs: IntArray, axis: int) -> Any:
    """Some runs of an array, or of all arrays of a mapping or sequence."""
    if isinstance(value, Mapping):
        return {name: _take(part, runs, axis) for name, part in value.items()}
    if isinstance(value, Sequence):  # which may gather its arrays on demand
        return [_take(part, runs, axis) for part in value]
    return np.take(value, runs, axis=axis)


@runtime_checkable
class MembershipAttack(Protocol):
    """Scores membership: (R, m), higher means member, NaN where the example was not observed.

    It may declare what `AttackDeclaration` lists.
    """

    knows: ClassVar[str]

    def scores(self, signals: Signals) -> FloatArray: ...


@dataclass(frozen=True, kw_only=True)
class GradientTarget:
    """The input of a reconstruction attack: a model, its update or gradient, and what the adversary is granted.

    `params` is the model before. `update` is the model after minus the model before; None where only a gradient is
    known. `gradient` is the mean gradient of the loss: exact, or the update divided by -(learning rate x steps).
    `num_images` is the number of examples behind it, `clients` the number of clients of which it is the sum. `knows` is
    a short text: what else the adversary is granted. `modality` is that of the data set. `target_shape` is the shape of
    the targets of one example: () for a class, (length,) where the target at each place is the next token. `personal`
    names parameters that stay with the client: update and gradient lack them, and `params` has them as the server does.

    Fields that an attack does not declare are None: `labels` (num_images,), sorted; `algorithm`, that of the client,
    with its server payload `payload`; and `batches` (steps, batch_size). The batches hold the places 0 .. num_images -
    1 of the examples in each batch, -1 for padding. Places go by sorted label where labels are granted, else by first
    use. `population` are examples of the adversary, drawn like those of the clients, on which no client trains.
    """

    model: nn.Module
    params: Params
    gradient: Params
    num_images: int
    input_shape: tuple[int, ...]
    num_classes: int
    modality: Modality
    knows: str
    update: Params | None = None
    clients: int = 1
    target_shape: tuple[int, ...] = ()
    personal: tuple[str, ...] = ()
    labels: IntArray | None = None
    algorithm: ClientAlgorithm | None = None
    payload: Params = field(default_factory=dict)
    batches: IntArray | None = None
    population: Examples | None = None

    def grant(self, grants: Sequence[str]) -> GradientTarget:
        """The same target with only the fields of `GRANTS` that are in `grants`; `knows` lists them.

        An attack is shown no more than it declares, so that it cannot use what its report does not say. Places that go
        by label would leak the labels of each batch, so without labels they are numbered by first use.
        """
        values: dict[str, Any] = {grant: getattr(self, grant) if grant in grants else None for grant in GRANTS}
        if values["batches"] is not None and values["labels"] is None:
            values["batches"] = _by_first_use(values["batches"])
        values["knows"] = "+".join([self.knows, *(grant for grant in GRANTS if values[grant] is not None)])
        return replace(self, **values, payload=self.payload if "algorithm" in grants else {})


def _by_first_use(batches: IntArray) -> IntArray:
    """The same batches with places in the order in which they are first met; -1 stays.

    >>> _by_first_use(np.array([[2, 0], [1, -1], [0, 2]])).tolist()
    [[0, 1], [2, -1], [1, 0]]
    """
    places = dict.fromkeys(batches[batches >= 0].tolist())
    number = {-1: -1} | {place: count for count, place in enumerate(places)}
    return np.array([[number[place] for place in batch] for batch in batches.tolist()], dtype=np.int64)


GRANTS = ("labels", "algorithm", "batches", "population")
"""The knowledge that an attack may declare, beside the model, its update and the number of examples in it."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The result of an attack: images (n, *shape) in [0, 1], their labels (n,), and the matching distance reached.

    Texts are token numbers (n, length), and labels (n, length) the token after each, -1 where there is no target.
    `note` says why inputs and labels are not recovered from the update, such as those of a control; empty otherwise.
    """

    inputs: NDArray[Any]
    labels: IntArray
    distance: float
    note: str = ""


@runtime_checkable
class ReconstructionAttack(Protocol):
    """Reconstructs training examples from gradients or updates. Restarts are chosen by matching distance only.

    It may declare what `AttackDeclaration` lists. `knows` are the entries of `GRANTS` that it uses; they may
    depend on its fields. Each target has a separate generator, so that its result does not depend on other targets.
    """

    @property
    def knows(self) -> tuple[str, ...]: ...

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]: ...


MembershipGrant = Literal["labels", "correct", "inputs", "initial"]
"""The knowledge that a membership attack may declare in addition to margins and coins; see `Signals`."""


@dataclass(frozen=True, kw_only=True)
class AttackDeclaration(Needs):
    """The declarations of an attack, with their defaults.

    Attributes:
        title: Its name in tables; None for its kind.
        legend: One line about it for the legend.
        precedence: Among several attacks those of the smallest value are the headline, and the first is in examples.
        texts: Whether it reconstructs texts.
        reads: What a membership attack is given in addition to margins and coins, of `MembershipGrant`.
        reads_coins: Whether membership scores depend on the coins; if so, they are computed again under re-dealt coins.
            A subclass with methods of its own declares it again, as the following ones.
        chance: The AUC without memorisation; None if it is not known.
        reads_series: The quantities of which it reads `Signals.series`: `loss`, `margin`, `correct`, or measures of
            signals. It is not run at the other clients.
        reads_others: The quantities of which it reads `Signals.others`. It is run at the owner alone.
        scores_under_coins: `scores_under_coins(signals)`, the membership scores as a function of the coins (R, m); None
            to compute them again.
    """

    title: str | None = declare(None, "text")
    legend: str = declare("", "text")
    precedence: int = declare(1, "a whole number")
    texts: bool = declare(False, YES_OR_NO)
    reads: tuple[MembershipGrant, ...] = declare((), "a tuple of labels, correct, inputs and initial")
    reads_coins: bool = declare(True, YES_OR_NO, renewed=True)
    null_auc: float | None = declare(None, "a number, or None", renewed=True)
    reads_series: tuple[str, ...] = declare((), "a tuple of names of quantities")
    reads_others: tuple[str, ...] = declare((), "a tuple of names of quantities")
    scores_under_coins: Callable[[Signals], Callable[[BoolArray], FloatArray]] | None = declare(
        None, "a method scores_under_coins(signals)", renewed=True
    )


def attack_declaration(attack: object) -> AttackDeclaration:
    """The declarations of an attack.

    >>> from fedmem.attacks.loss_threshold import LossThreshold
    >>> attack_declaration(LossThreshold()).null_auc
    0.5
    """
    return read_declaration(AttackDeclaration, attack)
