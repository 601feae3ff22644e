"""Cases of an attack: the updates, the adversary's knowledge, the victims and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray, Params
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.client import Schedule, ScheduledClient
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError
from fedmem.privacy.secure_aggregation import in_order
from fedmem.probes._first_step import first_step_of

VIEWS: Mapping[Level, tuple[str, ...]] = {
    "local": ("message", "first_step"),
    "sum": ("sum",),
    "global": ("aggregate",),
}
"""The attacked views of each level."""

KNOWS = {
    "message": "lr+steps+count",
    "first_step": "lr+batch_size+first_step",
    "sum": "lr+steps+count",
    "aggregate": "lr+steps+count",
    "model": "count",
}
"""The knowledge of the adversary of each view besides the model before and after; the attack declares the rest."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """The change by an out example if it were in: `places` (k,) of the batch and the `rows` (k,) there.

    Rows are those of the store: that of the example as often as it is copied, and its near copies. `example_rows` are
    the places of the example itself, in which it is sought.
    """

    places: IntArray
    rows: IntArray
    example_rows: IntArray


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack and its truth: `rows` (n,) of the store in the batch, `victims` positions in the audit set.

    `controls` maps the position of each out example to what it would change in the batch.
    """

    view: str
    transition: Transition
    target: GradientTarget
    rows: IntArray
    victims: IntArray
    controls: Mapping[int, Control]

    @property
    def clients(self) -> tuple[int, ...]:
        """Whose work it is."""
        return clients_of(self.transition)

    @property
    def labels(self) -> Labels:
        """The view and what its adversary knows, for every reading."""
        return Labels.of(view=self.view, knows=self.target.knows)

    @property
    def name(self) -> str:
        """The view, with the number of clients where there may be several sums."""
        return f"{self.view}_{len(self.clients)}" if self.view == "sum" else self.view


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The number of victims, and the knowledge that the attack declares: fields of the probe `leakage`.

    With `steps` the rows are those of the first steps of a message or a sum alone.
    """

    runs: int
    victims: int
    max_images: int
    knows: tuple[str, ...]
    steps: int | None = None

    def cases(self, view: str, transitions: Sequence[Transition], context: Context) -> list[Case]:
        """The cases of these transitions in this view."""
        all_cases = []
        for run in sorted({t.run for t in transitions if t.run < self.runs}):
            of_run = [t for t in transitions if t.run == run]
            of_run = [_on_server(of_run[0], context)] if of_run[0].level == "global" else of_run
            cohort = sorted({client for t in of_run for client in clients_of(t)})
            attacked_clients = choose_clients(run, of_run[0].round, cohort, self.victims, context)
            attacked = [t for t in of_run if attacked_clients.intersection(clients_of(t))]
            cases = (self._case(view, transition, attacked_clients, context) for transition in attacked)
            all_cases += [case for case in cases if case is not None]
        return all_cases

    def _case(self, view: str, transition: Transition, attacked_clients: set[int], context: Context) -> Case | None:
        """One attack: its gradient, the true rows behind it, victims and controls; None without either."""
        federation, run, clients = context.federation, transition.run, clients_of(transition)
        round_number = transition.round
        row_counts = [len(context.rows(run, client, round_number)) for client in clients]
        if view == "first_step":
            after, rows = context.first_step(transition)
            scale = float(schedule_of(round_number, row_counts[0], context).learning_rates[:1].sum())
        else:
            after = transition.sent
            rows = np.concatenate(
                [context.used_rows(run, client, round_number) for client in clients]
                if self.steps is None
                else [_first_rows(sender, self.steps, context) for sender in senders_of(transition, context)]
            )
            scale = _scale(row_counts, round_number, context)
        audit = federation.audit
        is_candidate = audit.is_in[run] & audit.holds(sorted(attacked_clients)).any(axis=0)
        subjects_in_batch = audit.subject[is_example_itself(federation) & np.isin(federation.trained_rows, rows)]
        victims = np.flatnonzero(is_candidate & np.isin(np.arange(len(audit)), subjects_in_batch))
        controls = _controls(transition, sorted(attacked_clients.intersection(clients)), rows, context)
        if not len(victims) and not controls:
            return None
        target = self._target(view, transition, after, rows, scale, context).grant(self.knows)
        return Case(view=view, transition=transition, target=target, rows=rows, victims=victims, controls=controls)

    def _target(
        self, view: str, transition: Transition, after: Params, rows: IntArray, scale: float, context: Context
    ) -> GradientTarget:
        """Everything that an attack might be granted."""
        federation, count = context.federation, min(len(rows), self.max_images)
        labels = federation.store.labels[rows]
        order = np.argsort(labels, kind="stable")
        # of more rows than are reconstructed, labels in the proportions that they have
        spread = order[np.arange(count) * len(rows) // count] if count else order
        personal_names = federation.personal_names(context.client)
        batches, payload = (None, {}) if transition.level != "local" else context.batches_and_payload(transition)
        if batches is not None and view == "first_step":
            batches = batches[:1]
        return GradientTarget(
            model=federation.model,
            params=transition.before,
            gradient=_gradient(transition, after, scale, context, personal_names),
            update={
                name: after[name].double() - value.double()
                for name, value in transition.before.items()
                if name not in personal_names
            },
            num_images=count,
            input_shape=federation.store.inputs.shape[1:],
            num_classes=federation.num_classes,
            knows=KNOWS[view],
            clients=len(clients_of(transition)),
            modality=federation.modality,
            target_shape=federation.store.targets.shape[1:],
            personal=personal_names,
            labels=labels[spread],
            algorithm=first_step_of(context.client) if view == "first_step" else context.client,
            payload=payload,
            batches=None if batches is None or count < len(rows) else _places(batches, rows[order]),
            population=federation.population if len(federation.population) else None,
        )


def is_example_itself(federation: Federation) -> BoolArray:
    """(copies in all,) whether each copy is the example itself.

    A copy is the example if it is the example's own row, or a row with the same inputs. A text must also have the same
    tokens wherever the example asks for one.

    A secret in a row of its own is measured on fewer tokens than its copies are trained on, and is the same text. A row
    that holds an example among other tokens is not the example.
    """
    audit, subjects = federation.audit, federation.audit.subject
    is_itself = np.asarray(federation.trained_rows == federation.audit_start + subjects)
    others = np.flatnonzero(~is_itself)
    rows, examples = federation.store.take(federation.trained_rows[others]), audit.examples.take(subjects[others])
    is_itself[others] = federation.modality.are_equal(rows, examples)
    return is_itself


def choose_clients(run: int, round_number: int, cohort: Sequence[int], victims: int, context: Context) -> set[int]:
    """The clients attacked: the same at every level of a round, and whatever the coins.

    Sums take their clients in the same order, so that clients attacked alone are in the sums as well.
    """
    audit = context.federation.audit
    order = in_order(context.seed, run, round_number, cohort, audit)
    owners = order[audit.holds(order)[:, audit.is_active(round_number)].any(axis=1)]
    return set(owners[:victims].tolist())


def senders_of(transition: Transition, context: Context) -> Sequence[Transition]:
    """The local transitions that a message, a sum or an aggregate consists of."""
    return [transition] if transition.level == "local" else context.senders(transition)


def _first_rows(sender: Transition, steps: int, context: Context) -> IntArray:
    """The rows in the first batches of a client, sorted."""
    batches = context.batches_and_payload(sender)[0][:steps]
    return np.unique(batches[batches >= 0])


def clients_of(transition: Transition) -> tuple[int, ...]:
    """Whose work a transition is."""
    return (transition.client,) if transition.level == "local" else transition.clients


def _on_server(transition: Transition, context: Context) -> Transition:
    """An aggregate as the server has it, once for all owners: their own layers are there what they were at first."""
    names = context.federation.personal_names(context.client)
    if transition.client == NO_CLIENT or not names:
        return transition
    initial = context.federation.initial_of(transition.run)
    unsent = {name: initial[name] for name in names}
    sent = {**transition.sent, **unsent}
    return replace(transition, client=NO_CLIENT, before={**transition.before, **unsent}, sent=sent, kept=sent)


def schedule_of(round_number: int, num_examples: int, context: Context) -> Schedule:
    """The learning rates of a client with so many rows in this round, as its algorithm declares them.

    Errors: `ComponentError` where it declares none, or others than one positive number for each step.
    """
    client, name = context.client, type(context.client).__name__
    if not isinstance(client, ScheduledClient):
        raise ComponentError(
            "client",
            f"this probe reads an update as a gradient times learning rates, but the client algorithm {name} has no "
            "method schedule(round_number, num_steps) that says them. Add the method, or leave the probe out",
        )
    steps = client.num_steps(num_examples)
    schedule = client.schedule(round_number, steps)
    rates = np.asarray(schedule.learning_rates)
    if rates.shape != (steps,) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ComponentError(
            "client",
            f"round {round_number}: schedule of the client algorithm {name} gave learning rates {rates.tolist()} for "
            f"{steps} steps. It must give one finite number above 0 for each step",
        )
    return schedule


def _scale(sizes: Sequence[int], round_number: int, context: Context) -> float:
    """The mean of the summed learning rates of clients with so many rows, weighted as their models are in the sum."""
    scales = [schedule_of(round_number, size, context).distance for size in sizes]
    return float(np.average(scales, weights=sizes if context.weighting == "size" and any(sizes) else None))


def _places(batches: IntArray, rows: IntArray) -> IntArray:
    """Batches of rows of the store as places among these rows; of copies each is taken in turn.

    >>> _places(np.array([[7, 5], [7, -1]]), np.array([5, 7, 7])).tolist()
    [[1, 0], [2, -1]]
    """
    where = {int(row): np.flatnonzero(rows == row) for row in np.unique(rows)}
    occurrences = dict.fromkeys(where, 0)
    places = np.full(batches.shape, -1, dtype=np.int64)
    for index in np.argwhere(batches >= 0):
        row = int(batches[tuple(index)])
        places[tuple(index)] = where[row][occurrences[row] % len(where[row])]
        occurrences[row] += 1
    return places


def _controls(transition: Transition, clients: Sequence[int], rows: IntArray, context: Context) -> dict[int, Control]:
    """The out examples of these clients whose own stand-ins are among the rows, with the places of all of them."""
    federation, run = context.federation, transition.run
    audit, controls = federation.audit, {}
    subjects = audit.subject
    is_itself = is_example_itself(federation)
    # Some examples are measured and never trained on: they are in no batch.
    would_be = np.isin(subjects, subjects[is_itself]) & audit.is_active(transition.round)[subjects]
    for client in clients:
        copies = np.flatnonzero(would_be & (audit.owners == client) & ~audit.is_in[run, subjects])
        stand_ins = federation.replacement[run, copies]
        if (stand_ins < 0).any():
            # A removed example left no gap: a base row of the owner gives up its place, in the first step as rarely
            # as a victim has one. With fewer base rows than that some controls are left out, the last ones.
            base = context.stream("leakage controls", run=run, client=client).permutation(federation.base[client])
            cut = subjects[copies[len(base)]] if len(base) < len(copies) else len(audit)
            copies = copies[subjects[copies] < cut]
            stand_ins = base[: len(copies)]
        place = {row: i for i, row in enumerate(rows.tolist())}
        places = np.array([place.get(row, -1) for row in stand_ins.tolist()], dtype=np.int64)
        for subject in dict.fromkeys(subjects[copies].tolist()):
            of_subject = (subjects[copies] == subject) & (places >= 0)
            control = Control(
                places=places[of_subject],
                rows=federation.trained_rows[copies[of_subject]],
                example_rows=places[of_subject & is_itself[copies]],
            )
            if len(control.example_rows):
                controls[subject] = control
    return controls


def _gradient(
    transition: Transition, after: Params, scale: float, context: Context, personal_names: Sequence[str]
) -> Params:
    """The mean gradient that would have led from one to the other by plain descent, weight decay taken off."""
    before, decay = transition.before, schedule_of(transition.round, 1, context).weight_decay
    return {
        name: (before[name].double() - value.double()) / scale - decay * before[name].double()
        for name, value in after.items()
        if name not in personal_names
    }
