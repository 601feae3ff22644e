"""Local training of many clients: one by one (the reference), or stacked along one axis (many runs at once).

Both executors call the same pure functions of the client algorithm on the same batches; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, ClientState
from fedmem.contracts.data import Examples
from fedmem.contracts.validation import count_of, tensors
from fedmem.guards.guarding import NOT_OURS
from fedmem.guards.time_limit import Clock, TimeLimitError
from fedmem.training.client_work import (
    LEFT_OUT,
    LocalWork,
    Task,
    TrainedClient,
    TrainedWork,
    Work,
    full_steps,
    stack,
    with_width,
)
from fedmem.training.executor import BaseExecutor, Batch, Settings
from fedmem.training.ghost_clipping import Layers
from fedmem.training.model_checks import parameters_kept
from fedmem.training.one_by_one import OneByOne
from fedmem.training.operations import count_operations
from fedmem.training.per_example import PrivateGradient, privacy_spent
from fedmem.training.precision import BF16_ROUNDING, products_of_steps
from fedmem.training.stacked_gradient import StackedGradient
from fedmem.training.tracing import ROUNDING, Traced

TRACED_OPERATIONS = 1e8
"""Steps of networks with frozen parameters are traced below so many operations in the forward pass of a batch."""

__all__ = ["LocalWork", "OneByOne", "Stacked", "Task", "TrainedClient", "TrainedWork", "Work", "stack"]


class Stacked(BaseExecutor):
    """All clients of all runs along one leading axis, under `torch.func.vmap`; see `Traced` for its speed.

    Clients are sorted by their number of steps. Clients that still train are therefore always a prefix of the stack,
    and none is padded with idle steps. Short batches are padded and masked. Stacks are brought to a few sizes by
    repeating their last client, whose copies are dropped, so that few shapes occur. Clients that remember other things
    are stacked apart (in their first participation clients remember nothing yet). So are clients whose batches vary and
    are wider than others', because the width is part of the bits of a sum.
    """

    name = "stacked"

    def __init__(
        self, model: nn.Module, client: ClientAlgorithm, store: Examples, settings: Settings | None = None
    ) -> None:
        super().__init__(model, client, store, settings)
        reason = self._reason_not_to_trace()
        self._init = Traced(torch.vmap(self._client.init))
        self._layers = Layers.of(self._model, self._inputs[:2]) if self._private else None
        if self._layers is not None:
            self._layers.precision = self._precision
        rounding = ROUNDING if self._precision == "fp32" else BF16_ROUNDING
        self._one_step = Traced(
            torch.vmap(self._private_step if self._private else self._step), reason, rounding, graphs=True
        )
        self._final = Traced(torch.vmap(self._outcome_parts))
        self._sent = Traced(torch.vmap(self._defences.apply_defences))
        self._forward = Traced(torch.vmap(self._watched_logits, in_dims=(0, None)), reason)

    @property
    def untraced_functions(self) -> Mapping[str, str]:
        """See `Executor.untraced_functions`."""
        functions = {
            "client.init": self._init,
            "client.step": self._one_step,
            "client.final": self._final,
            "defences": self._sent,
            "model": self._forward,
        }
        return {name: function.reason for name, function in functions.items() if function.reason is not None}

    def _reason_not_to_trace(self) -> str | None:
        """Why steps are not traced. Only networks with frozen parameters are so large that it would not pay.

        Tracing calls a step about ten times. It then saves the Python calls of each step, few beside a large product.
        The reason follows from one client, so that the size of a stack changes no bit.
        """
        if self._private is not None or all(value.requires_grad for value in self._model.parameters()):
            return None
        with parameters_kept(self._model):
            whole = count_operations(lambda: self._model(self._inputs[:1]))
        of_row = whole if self._prefix is None else self._prefix.prefix.operations[1]
        with self._guard("batch_size") as guard:
            rows = count_of(guard, self._client.batch_size)
        if of_row * rows < TRACED_OPERATIONS:
            return None
        return f"a batch takes {of_row * rows:.1e} operations, so that tracing a step costs more than it saves"

    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`."""
        widths = self._widths(work)

        def kind(i: int) -> tuple[int, list[str]]:
            return widths[i], sorted(work.memory_of(i))

        order = np.argsort(-work.steps, kind="stable").tolist()
        order.sort(key=kind)
        size = sum(value[0].numel() * value.element_size() for value in work.models.values())
        parts: list[TrainedWork] = []
        for (width, _), group in groupby(order, key=kind):
            members = list(group)
            max_count = max(1, self._stack_bytes // max(1, self._stack_size(size, width)))
            # equal parts, so that none is nearly empty
            chunk = -(-len(members) // -(-len(members) // max_count))
            for start in range(0, len(members), chunk):
                parts.append(self._train_chunk(with_width(work.take(members[start : start + chunk]), width)))
        return _join_parts(work, parts, np.argsort(np.array(order, dtype=np.int64)))

    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """See `Executor.attempt_all`: a stack that fails is trained again one by one, to find the client that fails."""
        try:
            return self.train_all(work), {}
        except (*NOT_OURS, TimeLimitError):
            raise
        except BaseException as error:
            reference = OneByOne(self._model, self._client, self._store, self._settings)
            done, failures = reference.attempt_all(work)
            if not failures:
                # no client fails alone: the stack is at fault
                with self._guard("a stack of clients, which fails although each by itself does not"):
                    raise error
            others = [i for i in range(len(work)) if i not in failures]
            with suppress(Exception):  # some algorithms cannot be stacked, with or without those
                # the others as a stack again: the failure of another client changes no bit of theirs
                done = self.train_all(work.take(others)) if others else None
            return done, failures

    def _widths(self, work: Work) -> list[int]:
        """How wide the batches of each client are taken to be: as they are, or if they vary to a few sizes above."""
        if self._private is None:
            return [work.batches.shape[2]] * len(work)
        max_widths = (work.batches != -1).sum(axis=2).max(axis=1, initial=1)
        return [_bucket(width) for width in max_widths.tolist()]

    def _stack_size(self, size: int, width: int) -> int:
        """Bytes that a client takes in the cache: its model, and one for each example that has its own gradient."""
        return size if self._private is None or self._layers is not None else size * (1 + width)

    def _train_chunk(self, work: Work) -> TrainedWork:
        count, size = len(work), _bucket(len(work))
        padded_work = work.take([*range(count), *[count - 1] * (size - count)]) if size > count else work
        places = torch.from_numpy(padded_work.model).to(self._device)
        before = {name: value.index_select(0, places) for name, value in self._on_device(padded_work.models).items()}
        payload, memory = (
            self._on_device(padded_work.payload),
            self._on_device(stack(padded_work.memory) if padded_work.memory else {}),
        )
        state = self._init(before, payload, memory)
        with products_of_steps(self._precision), self._clock(count) as clock:
            state, totals, shares = self._all_steps(state, padded_work, clock)
        outcome = self._final(state, before)
        with self._guard("final") as guard:
            tensors(guard, "sent", outcome["sent"], before)
            tensors(guard, "kept", outcome["kept"] or outcome["sent"], before)
            for name, value in outcome["report"].items():
                guard.require(
                    value.ndim == 1, f"report[{name!r}] has shape {tuple(value.shape[1:])}, should be a number"
                )
        if self._private is not None:
            spending = stack(
                [privacy_spent(padded_work.batches[i], shares[i], padded_work.memory_of(i)) for i in range(size)]
            )
            outcome |= {part: {**outcome[part], **spending} for part in ("memory", "report")}
        if self._defences:
            draws = self._on_device(
                self._defences.draws(padded_work.model_before(0), [padded_work.place(i) for i in range(size)])
            )
            outcome["kept"] = outcome["kept"] or outcome["sent"]
            outcome["sent"] = self._sent(outcome["sent"], before, draws)
        cut = {part: {name: value[:count].cpu() for name, value in params.items()} for part, params in outcome.items()}
        cut["kept"] = cut["kept"] or cut["sent"]
        with np.errstate(invalid="ignore"):
            loss = totals[:count].cpu().numpy() / full_steps(work)
        return TrainedWork(work=work, loss=loss, **cut)

    def _all_steps(self, state: ClientState, work: Work, clock: Clock) -> tuple[ClientState, Tensor, FloatArray]:
        """The state after every client has done its steps, the sum of the losses that each met (T,), and shares.

        Those (T, S, B) are what is known of the gradients of single examples, if anything.
        """
        # step by step, each step's rows in one block
        rows = torch.from_numpy(np.ascontiguousarray(work.batches.transpose(1, 0, 2))).to(self._device)
        masks = (rows >= 0).float() - (rows == LEFT_OUT).float()
        clients = torch.from_numpy(work.client).to(self._device)[:, None]
        if self._units is not None:
            for client_rows, client in zip(work.rows, work.client.tolist(), strict=True):
                self._units.fill(client_rows, client)
        # masked places hold a row of the client's own, so that no other client's can make its loss infinite
        first_rows = torch.from_numpy(
            np.array([client_rows[0] if len(client_rows) else 0 for client_rows in work.rows])
        ).to(self._device)
        rows = torch.where(rows < 0, first_rows[:, None], rows)
        self._store_outputs(np.concatenate([np.zeros(0, dtype=np.int64), *work.rows]))
        wide = torch.float32 if self._device.type == "mps" else torch.float64  # which GPUs of Apple do not have
        totals = torch.zeros(len(work), dtype=wide, device=self._device)
        noise = self._noise_of(work)
        shares = np.zeros(work.batches.shape if self._private else (len(work), 0, 0))
        final_states: list[ClientState] = []
        end = len(work)
        with torch.no_grad():
            for first, last, active in _phases(work.steps):
                final_states.append(_part(state, active, end))
                end = active
                # clients after `active` have finished; their further steps have no effect
                width = min(_bucket(active), len(work))
                batches = clients[:width], rows[first:last, :width], masks[first:last, :width]
                state, losses = self._some_steps(_part(state, 0, width), batches, noise[:width], clock)
                for step_losses in losses:
                    totals[:active] += step_losses[:active] if self._private is None else step_losses[:active, 0]
                if self._private is not None:
                    # read when all steps are done, since the device is waited for
                    block = torch.stack([step_losses[:active, 1:] for step_losses in losses], dim=1)
                    shares[:active, first:last] = block.cpu().numpy()
        final_states.append(_part(state, 0, end))
        return _stack_states(final_states[::-1]), totals, shares

    def _noise_of(self, work: Work) -> list[Iterator[Tensor]]:
        """The noise for the steps of each client; empty if no noise is added."""
        if self._private is None:
            return []
        size = sum(value[0].numel() for value in work.models.values())
        places = (work.place(i) for i in range(len(work)))
        return [self._noise.of(place.run, place.round, place.client, size) for place in places]

    def _some_steps(
        self,
        state: ClientState,
        work: tuple[Tensor, Tensor, Tensor],
        noise: Sequence[Iterator[Tensor]],
        clock: Clock,
    ) -> tuple[ClientState, list[Tensor]]:
        """Steps for all clients, and the losses (T,) of each; work: clients (T, 1), rows and masks (S, T, B)."""
        clients, rows, masks = work
        batches: Iterator[tuple[Tensor, ...]] = zip(rows, masks, strict=True)
        if self._private is not None:
            drawn = (torch.stack([next(generator) for generator in noise]) for _ in rows)
            on_device = (values.to(self._device, non_blocking=True) for values in drawn)
            batches = ((*batch, values) for batch, values in zip(batches, on_device, strict=False))
        first_batch = self._batch(clients, *next(batches))
        state, loss = self._one_step(state, *first_batch)
        losses = [loss]
        # no other code holds the outcome of the first step
        written = self._one_step.in_place(state, *first_batch) if len(rows) > 1 else None
        if written is None:
            for batch in batches:
                clock.check()
                state, loss = self._one_step(state, *self._batch(clients, *batch))
                losses.append(loss)
            return state, losses
        # from tensor to tensor, with nothing in between
        leaves = [value for params in state.values() for value in params.values()]
        for batch in batches:
            clock.check()
            *leaves, loss = written(*leaves, *_tensors(self._batch(clients, *batch)))
            losses.append(loss)
        values = iter(leaves)
        return {part: {name: next(values) for name in params} for part, params in state.items()}, losses

    def _batch(self, clients: Tensor, rows: Tensor, *others: Tensor) -> tuple[Any, ...]:
        """The examples in these rows (T, B) of clients (T, 1), and what else belongs to a step."""
        places = rows.flatten()
        inputs, targets = (
            part.index_select(0, places).view(*rows.shape, *part.shape[1:]) for part in (self._inputs, self._targets)
        )
        return self._with_stored(inputs, rows, clients), targets, *others

    def _step(self, state: ClientState, inputs: Batch, targets: Tensor, mask: Tensor) -> tuple[ClientState, Tensor]:
        losses: list[Tensor] = []

        def gradient(params: Params) -> Params:
            rows, *stored = inputs if isinstance(inputs, tuple) else (inputs,)
            value, *gradients = StackedGradient.apply(
                self._outputs, tuple(params), rows, targets, mask, *params.values(), *stored
            )  # type: ignore[no-untyped-call]
            losses.append(value)
            return dict(zip(params, gradients, strict=True))

        after = self._client.step(state, gradient)
        # in the order of what was given, since the next step may take them by their places
        after = {part: {name: after[part][name] for name in params} for part, params in state.items()}
        return after, torch.stack(losses).mean() if len(losses) > 1 else losses[0]

    def _private_step(
        self, state: ClientState, inputs: Tensor, targets: Tensor, mask: Tensor, noise: Tensor
    ) -> tuple[ClientState, Tensor]:
        losses: list[Tensor] = []

        def gradient(params: Params) -> Params:
            arguments = self._outputs, self._layers, self._private, tuple(params), inputs, targets, mask, noise
            value, *gradients = PrivateGradient.apply(*arguments, *params.values())  # type: ignore[no-untyped-call]
            losses.append(value)
            return dict(zip(params, gradients, strict=True))

        after = self._client.step(state, gradient)
        after = {part: {name: after[part][name] for name in params} for part, params in state.items()}
        return after, losses[0]

    def _outcome_parts(self, state: ClientState, before: Params) -> dict[str, Params]:
        """The parts of the outcome; what is kept is left out where it is what is sent."""
        outcome = self._client.final(state, before)
        kept_params = {} if outcome.kept is outcome.sent else outcome.kept
        return {"sent": outcome.sent, "kept": kept_params, "memory": outcome.memory, "report": dict(outcome.report)}

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        chunk = max(1, self._forward_rows // max(1, len(inputs)))
        with torch.no_grad():
            parts = [
                torch.cat([self._forward(params, batch).cpu().double() for batch in self._batches(inputs)], dim=1)
                for params in (
                    self._on_device(stack(models[start : start + chunk])) for start in range(0, len(models), chunk)
                )
            ]
        return torch.cat(parts).numpy()

    def _outputs(self, params: Params, batch: Tensor, *stored: Tensor) -> Tensor:
        return self._trained_logits(params, (batch, *stored) if stored else batch)


def _tensors(batch: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors of a batch, from left to right."""
    for part in batch:
        yield from part if isinstance(part, tuple) else (part,)


def _bucket(count: int) -> int:
    """The next number with at most three significant binary digits: 1 .. 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ...

    >>> [_bucket(count) for count in (0, 7, 10, 17, 33, 100, 107)]
    [0, 7, 10, 20, 40, 112, 112]
    """
    grain = 1 << max(0, (count - 1).bit_length() - 3) if count else 1
    return -(-count // grain) * grain


def _phases(steps: IntArray) -> list[tuple[int, int, int]]:
    """From which step to which how many clients are at work, where steps are sorted, most first.

    >>> _phases(np.array([5, 3, 3, 0]))
    [(0, 3, 3), (3, 5, 1)]
    """
    ends = np.unique(steps[steps > 0]).tolist()
    return [(first, last, int(np.count_nonzero(steps >= last))) for first, last in zip([0, *ends], ends, strict=False)]


def _part(state: ClientState, first: int, last: int) -> ClientState:
    """The state of some clients."""
    return {part: {name: value[first:last] for name, value in params.items()} for part, params in state.items()}


def _stack_states(states: Sequence[ClientState]) -> ClientState:
    """The states of clients below each other; several parts may hold the same tensors, so nothing is written."""
    nonempty = [state for state in states if any(len(value) for params in state.values() for value in params.values())]
    if len(nonempty) < 2:
        return (nonempty or states)[0]
    return {
        part: {name: torch.cat([state[part][name] for state in nonempty]) for name in params}
        for part, params in nonempty[0].items()
    }


def _join_parts(work: Work, parts: Sequence[TrainedWork], order: IntArray) -> TrainedWork:
    """The parts as one; client i of the work is at place `order[i]` of the parts, one after the other."""
    if len(parts) == 1 and np.array_equal(order, np.arange(len(order))):
        return parts[0]
    places = torch.from_numpy(order)

    def join_name(name: str) -> Params:
        first: Params = getattr(parts[0], name)
        return {key: torch.cat([getattr(part, name)[key] for part in parts]).index_select(0, places) for key in first}

    sent = join_name("sent")
    return TrainedWork(
        work=work,
        sent=sent,
        kept=sent if all(part.kept is part.sent for part in parts) else join_name("kept"),
        memory=join_name("memory"),
        report=join_name("report"),
        loss=np.concatenate([part.loss for part in parts])[order],
    )
