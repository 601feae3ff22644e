"""Influence function: how much the loss on an example would rise to first order if training had not had it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.client import ScheduledClient, client_declaration
from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, signal_measures
from fedmem.signals._influence_targets import InfluenceTargets, NumTargets, on_itself_and_targets
from fedmem.signals._objective import Objective, values_of_owners
from fedmem.signals._observed_rounds import ObservedRounds

if TYPE_CHECKING:
    from torch import Tensor

    from fedmem.training.gauss_newton import GaussNewton

DENSE = 6000
"""Trained parameters up to which the matrix is formed: 288 MB."""

_CG_PRODUCTS = 100
"""Products of conjugate gradients for one example, about."""


@dataclass(frozen=True, kw_only=True)
class InfluenceFunction(ObservedRounds):
    """Self-influence of an example by the influence function, in nats, from 0.

    To first order it is the rise of the loss on the example if it left the training, and all other rows kept their
    weights. It is the influence of the example's *presence*, so that larger means more influence.

    - Global: w ∇ℓᵀ (G + λI)⁻¹ ∇ℓ. The objective is Σ_k p_k L_k over the rows of all clients of the run. G is its
      Gauss–Newton matrix, and w the weight of the example in it. With clients weighted by size and one copy, w is 1/n
      for n rows in all. Weight decay is part of G. The damping λ is `damping` × the mean of the diagonal of G.
    - Local: w ∇ℓᵀ u, where u is the response of the client's own K steps of the round to the force ∇ℓ. Without momentum
      it is η Σ_{s<K} (I − ηG)^s ∇ℓ. G is that of the client's objective and w is the number of copies divided by the
      number of the client's rows. The client is at no optimum, so that no inverse is taken: `solver` and `damping` do
      not matter. The gradient and G are those at the model that the client keeps. Each step is on the mean over all
      rows. Clipping, a proximal term, noise and the goldfish loss are not in the formula.

    The Hessian of a network at no optimum can have negative eigenvalues; G has none. The value is first order: it takes
    no account of the leverage of an example. It is compared with memorisation, and is no measure of it.

    Models of runs without the example have the value that it would have if it were added. It is NaN where the model has
    diverged, where `dense` or `ekfac` finds G + λI singular, and where `cg` has not converged. Without damping `cg` may
    converge where `dense` is NaN. Where a client's steps are longer than 2 divided by the largest eigenvalue of G, the
    series grows without bound. The value may then be negative.

    With `targets`, the influence of each audit example j on each target i is stored as well, `influence_function_on`.
    It is w_j ∇ℓ_iᵀ (G + λI)⁻¹ ∇ℓ_j, and locally w_j ∇ℓ_iᵀ u_j. It is positive where the presence of j lowers the loss
    on i. Divided by w_j, it is the same from j to i as from i to j.

    Solvers

    - `dense`: the Cholesky factor of the matrix, for 6 000 trained parameters at most;
    - `cg`: conjugate gradients to a relative residual of 1e-10;
    - `lissa`: the series Σ_{s<depth} (I − (G + λI)/σ)^s ∇ℓ/σ, where σ is an estimate of the largest eigenvalue. It is
      the series of LiSSA with the matrix of all rows, without noise. With few terms it is too small;
    - `ekfac`: G by blocks of layers, each diagonal in a basis that is a Kronecker product. Its slopes are exact. It
      needs no large matrix, and leaves out what layers have to do with each other.

    Fields

    - `solver`: how the inverse is applied at the aggregate.
    - `damping`: λ divided by the mean of the diagonal of G.
    - `depth`: terms of the series of `lissa`.
    - `targets`: on how many examples influence is read, half of them audit examples and half test examples.
    - `every`: read only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to read it: `local`, `global` or both; `sum` is refused.

    >>> InfluenceFunction().max_parameters, InfluenceFunction(solver="cg").max_parameters
    (6000, 0)

    References: Koh and Liang (2017), Understanding black-box predictions via influence functions. Agarwal, Bullins and
    Hazan (2017), Second-order stochastic optimization for machine learning in linear time, for LiSSA. Bae et al.
    (2022), If influence functions are the answer, then what is the question? George et al. (2018), Fast approximate
    natural gradient descent in a Kronecker-factored eigenbasis, for EK-FAC.
    """

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(
            name="influence_function",
            title="influence function on itself",
            means="First-order rise of the loss on an example if it left the training.",
            is_not="It is an approximation at one model, and no effect that was observed.",
            unit="nats",
            digits=4,
            trained_on="lower",
        )
    )
    texts: ClassVar[bool] = True
    owners_only: ClassVar[bool] = True
    reads_training: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("influence_function_on",)
    for_large_networks: ClassVar[str] = "write solver: cg"

    solver: Literal["dense", "cg", "lissa", "ekfac"] = "dense"
    damping: Annotated[float, Ge(0)] = 1e-3
    depth: Annotated[int, Gt(0)] = 100
    targets: NumTargets = 0

    @property
    def max_parameters(self) -> int:
        """Those whose matrix is formed."""
        return DENSE if self.solver == "dense" and "global" in self.levels else 0

    def variant_names(self, federation: Federation) -> Mapping[str, Sequence[str]]:
        """One variant for each target."""
        return dict.fromkeys(self.variants, InfluenceTargets.draw(federation, self.targets).names)

    def passes_in(self, federation: Federation) -> tuple[float, float]:
        """Products with the matrix cost three passes of all rows; the matrix one of each row for each two outputs."""
        rows, clients = float(federation.base_sizes.sum()), len(federation.base_sizes)
        models = {"local": clients, "global": 1}
        total = sum(models[level] for level in self.levels)
        size = sum(value.numel() for value in federation.initial.values())
        each = others = 0.0
        if "global" in self.levels:
            classes = federation.num_classes
            terms = {"dense": 0, "cg": _CG_PRODUCTS, "lissa": self.depth, "ekfac": 0}[self.solver]
            each += 3.0 * rows * terms / len(self.levels)
            # a product of large matrices is about ten times as fast as passes of single rows
            others += rows * classes * ({"dense": 2.0 + size / 10, "ekfac": 8.0}.get(self.solver, 2.0)) / total
        if "local" in self.levels:
            # about as many steps as ten rows to each
            each += 3.0 * (rows / clients) ** 2 / 10 / len(self.levels)
        return each, others + 3.0 * self.targets

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        """See `ObservedRounds.values`."""
        targets = InfluenceTargets.draw(context.federation, self.targets).examples(context.federation)
        values = values_of_owners(context, partial(self._at, context, targets), 1 + len(targets))
        return on_itself_and_targets("influence_function", values)

    def _at(
        self, context: SignalContext, others: Examples, position: int, objective: Objective, rows: IntArray
    ) -> FloatArray:
        """(n, 1 + Q) the values of some audit examples at one model, on themselves and on the targets."""
        import torch

        from fedmem.training.derivatives import double
        from fedmem.training.gauss_newton import NUMBERS, FlatModel, GaussNewton, place_weights

        model = FlatModel(context.network, context.models[position])
        if not bool(model.vector.isfinite().all()):
            return np.full((len(rows), 1 + len(others)), np.nan)
        store = context.federation.store.take(objective.rows)
        weights = place_weights(objective.weights, store.targets)
        matrix = GaussNewton(model, double(store.inputs), weights, decay=objective.decay)
        apply = self._response(context, position, matrix, len(objective.rows))
        examples = context.examples.take(rows)
        inputs, targets = double(examples.inputs), torch.from_numpy(examples.targets)
        at_once = max(1, NUMBERS // matrix.size)
        slopes = model.gradients(double(others.inputs), torch.from_numpy(others.targets))
        parts = []
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            gradients = model.gradients(inputs[part], targets[part])
            moved = apply(gradients)
            on_itself = (gradients * moved).sum(dim=1, keepdim=True)
            parts.append(torch.cat([on_itself, moved @ slopes.T], dim=1).numpy())
        return np.asarray(objective.of_examples[rows, None] * np.concatenate(parts))

    def _response(
        self, context: SignalContext, position: int, matrix: GaussNewton, size: int
    ) -> Callable[[Tensor], Tensor]:
        """Gradients (q, P) -> how far parameters would move for each, (q, P)."""
        import torch

        from fedmem.training import inverse_products as solvers
        from fedmem.training.kronecker import EigenKronecker

        transition = context.transitions[position]
        if transition.level == "local":
            assert isinstance(context.client, ScheduledClient)
            steps = context.client.num_steps(size)
            rates = context.client.schedule(transition.round, steps).learning_rates.tolist()
            momentum = client_declaration(context.client).momentum
            return lambda vectors: solvers.local_response(matrix.product, vectors, rates, momentum=momentum)
        if self.solver == "dense":
            whole = matrix.dense()
            return lambda vectors: solvers.solve_dense(whole, self.damping * matrix.mean_diagonal(), vectors)
        damping = self.damping * matrix.mean_diagonal()
        if self.solver == "ekfac":
            factored = EigenKronecker(matrix)
            return lambda vectors: factored.solve(vectors, damping)
        if self.solver == "cg":
            return lambda vectors: solvers.solve_by_conjugate_gradients(matrix.product, damping, vectors)
        rng = context.stream("influence function", run=transition.run, round_number=transition.round)
        start = torch.from_numpy(rng.standard_normal(matrix.size))
        scale = solvers.largest_eigenvalue(matrix.product, start) + damping
        if not scale > 0:
            return lambda vectors: torch.full_like(vectors, torch.nan)
        return lambda vectors: solvers.lissa(matrix.product, damping, vectors, scale=scale, depth=self.depth)
