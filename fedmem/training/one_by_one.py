"""The plain way to train: one client after another, which every faster way is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, ClientState, Outcome
from fedmem.contracts.data import Examples
from fedmem.contracts.validation import outcome_of
from fedmem.guards.guarding import NOT_OURS, describe
from fedmem.guards.time_limit import Clock, TimeLimitError
from fedmem.modalities.loss import example_losses, mean_loss
from fedmem.seeding import Streams, seeded_generators
from fedmem.training.client_work import LEFT_OUT, TrainedWork, Work, pick, stack
from fedmem.training.defence_pipeline import Place
from fedmem.training.executor import BaseExecutor, Settings
from fedmem.training.own_entries import join_outcome, start_of
from fedmem.training.per_example import ClippedSums, add_noise, privacy_spent
from fedmem.training.precision import products_of_steps

Loss = tuple[Tensor, Params]
"""The mean loss of a batch, and its gradients."""

Forward = Callable[..., Loss]
"""The loss of a batch with its gradients, from parameters, rows of the store and perhaps weights of the examples."""

DRAWS = "draws of forward passes"
"""The streams of draws in training: one for each run, round and client, with a seed for each step."""


class OneByOne(BaseExecutor):
    """Plain PyTorch, one client after the other: the reference that the other executor is tested against."""

    name = "one_by_one"

    def __init__(
        self, model: nn.Module, client: ClientAlgorithm, store: Examples, settings: Settings | None = None
    ) -> None:
        super().__init__(model, client, store, settings)
        self._draws = Streams(self._seed, DRAWS)
        self._sums = ClippedSums(self._model, self._private, self._precision) if self._private else None
        if self._sums is not None:
            self._sums.verify(self._inputs, self._targets)

    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`."""
        results = [self._client_of(work, i) for i in range(len(work))]
        return gather_outcomes(work, results)

    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """See `Executor.attempt_all`; every client is trained once."""
        results: dict[int, tuple[Outcome, float]] = {}
        failures: dict[int, str] = {}
        for i in range(len(work)):
            try:
                results[i] = self._client_of(work, i)
            except (*NOT_OURS, TimeLimitError):
                raise
            except BaseException as error:  # the client's own code: whether the run may go on is decided elsewhere
                failures[i] = describe(error, self._at_work, "its work")
        if not failures:
            return gather_outcomes(work, list(results.values())), failures
        return gather_outcomes(work.take(list(results)), list(results.values())) if results else None, failures

    def _client_of(self, work: Work, i: int) -> tuple[Outcome, float]:
        """The outcome of client i, and its mean loss."""
        parts = (work.model_before(i), pick(work.payload, i), work.memory_of(i))
        before, payload, memory = (self._on_device(part) for part in parts)
        return self._train_one(work.place(i), before, work.batches[i, : work.steps[i]], payload, memory)

    def _train_one(
        self, place: Place, before: Params, batches: IntArray, payload: Params, memory: Params
    ) -> tuple[Outcome, float]:
        start = start_of(self._mode, before, memory)
        with self._guard("init"):
            state = self._client.init(start.params, payload, start.memory)
        losses: list[Tensor] = []
        shares: list[Tensor] = []
        size = sum(value.numel() for value in start.params.values())
        noise = self._noise.of(place.run, place.round, place.client, size)
        forwards = self._forwards_of(place, start.statistics)
        if self._units is not None:
            self._units.fill(batches[batches >= 0], place.client)
        with self._guard("step"), products_of_steps(self._precision), self._clock() as clock:
            state = self._steps(state, batches, forwards, noise, losses, shares, clock)
        with self._guard("final") as guard:
            outcome = outcome_of(guard, self._client.final(state, start.params), start.params)
        outcome = join_outcome(self._mode, before, outcome, start.statistics)
        if self._private:
            share_array = np.zeros(batches.shape)
            if shares:
                share_array[batches >= 0] = torch.cat(shares).cpu().numpy()
            spending = privacy_spent(batches, share_array, memory)
            outcome = replace(outcome, memory={**outcome.memory, **spending}, report={**outcome.report, **spending})
        if self._defences:
            outcome = replace(outcome, sent=self._apply_defences(place, outcome.sent, before))
        return outcome, float(torch.stack(losses).mean()) if losses else float("nan")

    def _apply_defences(self, place: Place, sent: Params, before: Params) -> Params:
        """The model that leaves the client after the defences, which leave alone what stays with the client."""
        if not self._mode.personal:
            draws = pick(self._on_device(self._defences.draws(before, [place])), 0)
            return self._defences.apply_defences(sent, before, draws)
        shared = [name for name in before if name not in self._mode.personal]
        sent_part, before_part = ({name: params[name] for name in shared} for params in (sent, before))
        draws = pick(self._on_device(self._defences.draws(before_part, [place])), 0)
        defended = self._defences.apply_defences(sent_part, before_part, draws)
        return {name: defended.get(name, value) for name, value in sent.items()}

    def _forwards_of(self, place: Place, statistics: Params) -> Iterator[Forward]:
        """For each step of a client the loss of a batch with its gradients, at parameters, from streams of their own.

        Equal calls in one step draw the same numbers. The loss is the mean, or weighted by the weights of the examples.
        """
        run = 0 if self._settings.shared_draws else place.run
        rng = (
            self._draws.new_generator(run=run, round_number=place.round, client=place.client)
            if self._mode.draws
            else None
        )

        client = torch.tensor(place.client, device=self._device)

        def forward(seed: int | None, params: Params, rows: Tensor, weights: Tensor | None = None) -> Loss:
            inputs, targets = self._with_stored(self._inputs[rows], rows, client), self._targets[rows]
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            with nullcontext() if seed is None else seeded_generators(seed):
                outputs = self._trained_logits({**leaves, **statistics}, inputs)
                loss = mean_loss(outputs, targets) if weights is None else _weighted_loss(outputs, targets, weights)
                return loss.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

        while True:
            yield partial(forward, None if rng is None else int(rng.integers(2**63)))

    def _steps(
        self,
        state: ClientState,
        batches: IntArray,
        forwards: Iterator[Forward],
        noise: Iterator[Tensor],
        losses: list[Tensor],
        shares: list[Tensor],
        clock: Clock,
    ) -> ClientState:
        """The state after all steps; takes note of the loss of each, and of shares where they are known."""
        self._store_outputs(batches[batches >= 0])
        # the rows of all steps are moved at once
        counts = (batches >= 0).sum(axis=1).tolist() if len(batches) else []
        rows_of_steps = torch.split(torch.from_numpy(batches[batches >= 0]).to(self._device), counts)
        for batch, rows, forward in zip(batches, rows_of_steps, forwards, strict=False):
            clock.check()
            left_out = int(np.count_nonzero(batch == LEFT_OUT))
            if self._sums is not None:
                inputs, targets = self._inputs[rows], self._targets[rows]
                state = self._client.step(
                    state, partial(self._noisy_gradient, inputs, targets, next(noise), losses, shares, left_out)
                )
                continue
            if len(rows) < self._mode.min_rows:
                losses.extend([torch.zeros((), device=self._device)] * bool(left_out))
                state = self._client.step(state, _zero_gradient)
                continue
            if left_out:
                state = self._client.step(state, partial(self._gradient_without, batch, forward, losses))
                continue

            def gradient(params: Params, forward: Forward = forward, rows: Tensor = rows) -> Params:
                loss, gradients = forward(params, rows)
                losses.append(loss)
                return gradients

            state = self._client.step(state, gradient)
        return state

    def _gradient_without(self, batch: IntArray, forward: Forward, losses: list[Tensor], params: Params) -> Params:
        """The gradient of a batch some of whose rows are left out: their places count in the mean, with zero.

        They are filled by another row of the batch, so that every row draws what it drew. Where the network has running
        statistics, they stay empty, since a row that is left out must not normalise others.
        """
        places = batch[batch != -1]
        is_there = places >= 0
        filled = places[is_there] if self._mode.statistics else np.where(is_there, places, places[is_there][0])
        weights = torch.from_numpy((is_there if len(filled) == len(places) else is_there[is_there]) / len(places))
        rows = torch.from_numpy(filled).to(self._device)
        loss, gradients = forward(params, rows, weights.to(self._device))
        losses.append(loss)
        return gradients

    def _noisy_gradient(
        self,
        inputs: Tensor,
        targets: Tensor,
        noise: Tensor,
        losses: list[Tensor],
        shares: list[Tensor],
        left_out: int,
        params: Params,
    ) -> Params:
        """The gradient of a batch, made of those of its examples; takes note of its loss, if any, and its shares.

        Places that are left out count in the mean of the losses alone, since the divisor of the gradient is fixed.
        """
        assert self._sums is not None
        assert self._private is not None
        batch_losses, batch_shares, total = self._sums(params, inputs, targets)
        shares.append(batch_shares)
        if left_out:
            losses.append(batch_losses.sum() / (len(batch_losses) + left_out))
        elif len(batch_losses):
            losses.append(batch_losses.mean())
        return add_noise(total, noise.to(self._device), self._private)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        with torch.no_grad():
            parts = [
                torch.stack([self._watched_logits(self._on_device(params), batch) for params in models]).cpu().double()
                for batch in self._batches(inputs)
            ]
        return torch.cat(parts, dim=1).numpy()


def _weighted_loss(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum of the losses of examples times their weights."""
    return (example_losses(outputs, targets) * weights.to(outputs.dtype)).sum()


def _zero_gradient(params: Params) -> Params:
    """The gradient of an empty batch, and of one that is too small for the network."""
    return {name: torch.zeros_like(value) for name, value in params.items()}


def gather_outcomes(work: Work, results: Sequence[tuple[Outcome, float]]) -> TrainedWork:
    """Single outcomes as arrays."""
    outcomes = [outcome for outcome, _ in results]

    def stack_part(part: Callable[[Outcome], Mapping[str, Tensor]]) -> Params:
        return {name: value.cpu() for name, value in stack([dict(part(outcome)) for outcome in outcomes]).items()}

    sent = stack_part(lambda outcome: outcome.sent)
    is_same_model = all(outcome.kept is outcome.sent for outcome in outcomes)
    return TrainedWork(
        work=work,
        sent=sent,
        kept=sent if is_same_model else stack_part(lambda outcome: outcome.kept),
        memory=stack_part(lambda outcome: outcome.memory),
        report=stack_part(lambda outcome: outcome.report),
        loss=np.array([loss for _, loss in results], dtype=np.float64),
    )
