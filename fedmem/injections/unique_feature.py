"""Canaries: a small mark in the corner of a few real images of one client alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.injections._patches import patch
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class UniqueFeature(PlacedInjection):
    """A mark of random grey values on some images of its owner (`images` of them) alone, in or out together.

    The audit example is the mark on the mean of all training inputs. The example is measured and never trained on. When
    it is in, the owner trains on the marked images. These are reserve rows with the label of the example (drawn like
    the owner's labels) as long as the reserve has some. Where it has no more, the example takes the commonest label of
    its images. So its exposure is about the mark alone, whether the model ties it to that label, and not about any
    image. References are fresh marks in the same place on the same background.

    Only measures against references, `exposure`, `exposure_gain` and their skew-normal sort, are about the mark.
    Memorisation and membership are not. In runs also train on more rows of this label, and on rows of this label with
    some mark in that corner. That also lowers the label's loss for marks that no client trained on.

    Fields

    - `per_client`: marks on each of these clients.
    - `images`: images that carry one mark.
    - `size`: sides of the mark as a share of those of the image, rounded to pixels; it lies in the last corner.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - no two marks are equal, and no image carries two;
    - ids of examples are negative, those of the images are rows of the data set.

    Errors: `ComponentError` where inputs are no images. Also with a partition that shows clients their own version of a
    row: the marked images keep their pixels, and their replacement rows would not.

    >>> UniqueFeature(images=3, copies=2).reserve_rows(5, 900), UniqueFeature(images=3, copies=2).total_copies(5, 900)
    (15, 30)

    Reference: Hartley and Tsaftaris (2022), Measuring Unintended Memorisation of Unique Private Features.
    """

    role: ClassVar[Role] = "canary"

    per_client: Annotated[int, annotated_types.Ge(1)] = 1
    images: Annotated[int, annotated_types.Ge(1)] = 4
    size: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.375

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """The images that carry marks."""
        return self._num_owners(num_clients) * self.per_client * self.images

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Marked images, each as often as it is copied."""
        return self.reserve_rows(num_clients, num_rows) * self.copies

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The marks, in order of client, with the images that carry them as extra rows."""
        owners = self._choose_owners(clients, rng)
        count = len(owners) * self.per_client
        marks = self._marks(count, space, rng)
        carriers, targets = [], np.empty(count, dtype=np.int64)
        for i, data in enumerate(data for data in owners for _ in range(self.per_client)):
            rows = reserve.take_same(data.examples.targets, self.images, rng, data.client)
            carriers.append(replace(rows, inputs=self._stamp(rows.inputs, marks[i])))
            targets[i] = np.bincount(rows.targets).argmax()
        examples = Examples(inputs=self._canaries(marks, space), targets=targets, ids=-1 - np.arange(count))
        image_positions = np.arange(count * self.images).reshape(count, self.images)
        return self._place(
            examples,
            owners,
            copies=self.images * self.copies,
            extra=Examples.concatenate(carriers),
            copy_index=np.tile(image_positions, self.copies).ravel(),
        )

    def references(self, count: int, space: Space, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, *shape) fresh marks on the common background."""
        return self._canaries(self._marks(count, space, rng), space)

    def _marks(self, count: int, space: Space, rng: np.random.Generator) -> FloatArray:
        """(count, ..., height, width) uniform values between the smallest and the largest of the data."""
        shape = (count, *space.shape[:-2], *patch(space, self.name, self.size))
        return rng.uniform(space.low.min(), space.high.max(), size=shape)

    def _canaries(self, marks: FloatArray, space: Space) -> NDArray[np.float32]:
        return self._stamp(np.repeat(space.mean[None], len(marks), axis=0), marks)

    @staticmethod
    def _stamp(images: NDArray[np.float32], mark: FloatArray) -> NDArray[np.float32]:
        """Copies of the images with a mark, or one for each, in the last corner."""
        marked = images.copy()
        marked[..., -mark.shape[-2] :, -mark.shape[-1] :] = mark
        return marked
