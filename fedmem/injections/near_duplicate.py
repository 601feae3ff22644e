"""Real rows with several slightly different copies on the same client, all in or out together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import sides
from fedmem.injections._placement import PlacedInjection
from fedmem.injections._secret_sharing import draw_tokens, text_of
from fedmem.modalities.text.windows import PADDING, inputs_and_targets, join_windows

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class NearDuplicate(PlacedInjection):
    """A cluster: one reserve row, drawn like the owner's own rows, and `multiplicity` - 1 near copies of it.

    The whole cluster shares one coin and is one audit example, the original. With separate coins its members would
    stand in for each other, and neither coins nor examples would be independent. When it is in, the original and its
    near copies are trained on; when it is out, as many other rows are. Compare with `copies`, which repeats exactly. In
    a text a row is a passage.

    Fields

    - `multiplicity`: rows of a cluster, the original included.
    - `change`: `noise` adds normal noise (in a table to its numbers only) and clips to the range of the data. `shift`
      moves the image by a random number of pixels, not zero, and repeats its edge. `tokens` replaces tokens of a text
      by others, drawn by their frequency in the data.
    - `strength`: for noise its standard deviation as a share of the range of the data. For a shift, the largest shift
      as a share of each side, at least one pixel. For tokens, the share of tokens that are replaced, at least one.

    Guarantees:

    - near copies keep the label of the original, and values within the range of the data;
    - the id of the example is the row of the data set, those of near copies are negative.

    Errors: `ComponentError` for a shift where inputs are no images, and for noise on a table without numbers or on a
    text. Also for tokens where there is no text.

    >>> NearDuplicate(multiplicity=3, copies=2).total_copies(10, 900), NearDuplicate().reserve_rows(10, 900)
    (240, 40)

    Reference: Lee et al. (2022), Deduplicating Training Data Makes Language Models Better; Kandpal et al. (2022).
    """

    role: ClassVar[Role] = "atypical"
    densities: ClassVar[bool] = True
    texts: ClassVar[bool] = True

    multiplicity: Annotated[int, annotated_types.Ge(2)] = 4
    change: Literal["noise", "shift", "tokens"] = "noise"
    strength: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.05

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Rows of all clusters, each as often as it is copied."""
        return self._num_owners(num_clients) * self.per_client * self.multiplicity * self.copies

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The originals, in order of client, with their near copies as extra rows."""
        owners = self._choose_owners(clients, rng)
        rows = self._rows(owners, reserve, rng)
        change = {"noise": self._noise, "shift": self._shift, "tokens": self._tokens}[self.change]
        others = self.multiplicity - 1
        source = np.repeat(np.arange(len(rows)), others)
        inputs, targets = change(rows.take(source), space, rng)
        extra = Examples(inputs=inputs, targets=targets, ids=-1 - np.arange(len(source)))
        # Of each cluster: the original, then its near copies; all of it again for further copies.
        clusters = np.concatenate(
            [np.full((len(rows), 1), -1), np.arange(len(source)).reshape(len(rows), others)], axis=1
        )
        return self._place(
            rows,
            owners,
            copies=self.multiplicity * self.copies,
            extra=extra,
            copy_index=np.tile(clusters, self.copies).ravel(),
        )

    def _noise(self, rows: Examples, space: Space, rng: np.random.Generator) -> tuple[NDArray[Any], IntArray]:
        if space.modality.token_inputs:
            message = "near_duplicate with `change: noise` adds noise to numbers, but the data are a text; use `tokens`"
            raise ComponentError("injections.change", message)
        low, high = space.low.min(), space.high.max()
        numbers = space.modality.numeric(space.shape)
        if not numbers.any():
            raise ComponentError(
                "injections.change",
                "noise is added to the numbers of a table, but this table has categories only; write `copies` of a "
                "typical injection instead",
            )
        noise = self.strength * float(high - low) * rng.standard_normal(rows.inputs.shape) * numbers
        return np.clip(rows.inputs + noise, low, high).astype(np.float32), rows.targets

    def _shift(self, rows: Examples, space: Space, rng: np.random.Generator) -> tuple[NDArray[Any], IntArray]:
        height, width = sides(space, f"{self.name} with `change: shift`")
        max_steps = [max(1, int(side * self.strength)) for side in (height, width)]
        steps = [step for step in product(*(range(-m, m + 1) for m in max_steps)) if step != (0, 0)]
        shifted_inputs = np.empty_like(rows.inputs)
        for i, step_index in enumerate(rng.integers(len(steps), size=len(rows))):
            dy, dx = steps[step_index]
            y = np.clip(np.arange(height) - dy, 0, height - 1)
            x = np.clip(np.arange(width) - dx, 0, width - 1)
            shifted_inputs[i] = rows.inputs[i][..., y[:, None], x]
        return shifted_inputs, rows.targets

    def _tokens(self, rows: Examples, space: Space, rng: np.random.Generator) -> tuple[NDArray[Any], IntArray]:
        text_of(space, f"{self.name} with `change: tokens`")
        tokens = join_windows(rows.inputs, rows.targets)
        for row in tokens:
            positions = np.flatnonzero(row != PADDING)
            changed = rng.choice(positions, size=max(1, round(self.strength * len(positions))), replace=False)
            row[changed] = draw_tokens(space, len(changed), rng)
        return inputs_and_targets(tokens)
