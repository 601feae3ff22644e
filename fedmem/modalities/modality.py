"""The contract of a modality: all that depends on whether inputs are images, tables, texts or something else.

A data set chooses its modality once (`Dataset.modality`). Every other part asks that object, and never looks at shapes,
columns or vocabularies to find out what the data are. A new modality is one file in this folder.

Loss and right answers are not part of it. They follow from outputs and targets alone, in `loss` and `scores`, for one
target of a row as for several. A row without label has one output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.modalities.loss import UNASKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = NDArray[Any]
"""The compared values of examples, one entry for each."""


class Modality(ABC):
    """One kind of data: valid inputs, the distance of a reconstruction, and its display.

    A modality is a frozen dataclass. Its fields describe the data, such as the columns of a table. Its file in
    `fedmem/modalities` has the name `kind`.

    Attributes:
        kind: The name of the modality.
        tokens: Whether inputs are token numbers (n, L) int64 with a target at each place, (n, L), -1 where nothing is
            asked. Otherwise each has one class, (n,).
        token_inputs: Whether inputs are token numbers; -1 stands after the end of a text that has one class. Otherwise
            inputs are numbers (n, *shape) float32 in [0, 1].
        densities: Whether rows have no label, so that models answer with the log-density of each, (n, 1). Targets are
            then zeros, and `num_classes` is 1: the one output.
        similarity: The reading that says how near a reconstruction comes, higher is nearer. `report_arrays` stores it
            for the report, together with that of the baseline guess as `prior_<similarity>`.
        unit: The unit of differences in `similarity`; empty for shares.
        written: Whether reconstructions are shown as strings. Otherwise they are drawn by `draw`.
    """

    kind: ClassVar[str]
    tokens: ClassVar[bool] = False
    token_inputs: ClassVar[bool] = False
    densities: ClassVar[bool] = False
    similarity: ClassVar[str]
    unit: ClassVar[str] = ""
    written: ClassVar[bool] = False

    # --- inputs ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """Why inputs of this shape, or so many classes, are not of this modality; empty where they are."""

    @property
    def any_values(self) -> bool:
        """Whether any numbers in [0, 1] make a valid input. False where values depend on each other."""
        return not self.token_inputs

    @property
    def is_binary(self) -> bool:
        """Whether every number of an input is 0 or 1."""
        return False

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The last axes of inputs along which neighbouring values belong together: (height, width) of an image.

        Empty where neighbours have nothing in common, as the columns of a table.
        """
        return ()

    def numeric(self, shape: tuple[int, ...]) -> BoolArray:
        """(*shape) which values of an input are numbers that can be moved by a little."""
        return np.full(shape, not self.token_inputs)

    def frequencies(self, rows: Examples) -> FloatArray:
        """(V,) the shares of tokens in these rows; empty where there are no tokens."""
        return np.zeros(0)

    def are_equal(self, rows: Examples, others: Examples) -> BoolArray:
        """(n,) whether each row is that of the other examples: equal inputs, wherever something is asked."""
        equal = (rows.inputs == others.inputs).reshape(len(rows), -1) if len(rows) else np.zeros((0, 1), dtype=bool)
        return np.asarray(equal.all(axis=1))

    # --- reconstructions ---------------------------------------------------------------------------------------------

    @abstractmethod
    def comparison_rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """The part of each example that is compared, one entry for each."""

    @abstractmethod
    def errors(self, rows: Rows, truth: Rows) -> FloatArray:
        """(m, n) how far every one of m rows is from every one of n true ones, 0 only where they are equal."""

    def distances(self, rows: Rows, truth: Rows) -> FloatArray:
        """(m, n) the distance of every one of m rows from every one of n others, by default their errors.

        It is 0 where they are equal, and in the unit of the values of a row.
        """
        return self.errors(rows, truth)

    @abstractmethod
    def nearest_error(self, rows: Rows, gallery: Rows) -> float:
        """The least error between any row and any of a gallery; NaN where either has none."""

    @abstractmethod
    def guesses(
        self,
        reconstruction: Reconstruction,
        shape: tuple[int, ...],
        references: Sequence[References],
        population: Examples,
        rng: np.random.Generator,
    ) -> list[Rows]:
        """The baseline: batches that can be guessed without the update, except for inferred labels."""

    @abstractmethod
    def readings(
        self,
        reconstructions: Rows,
        guess: Rows,
        truth: Rows,
        errors: FloatArray,
        guess_errors: FloatArray,
        population: Examples,
    ) -> list[dict[str, float]]:
        """Readings of each of n examples, the gain over the baseline guess first, `similarity` among them.

        Args:
            reconstructions: (n, ...) what stands for each example.
            guess: (n, ...) the baseline guess.
            truth: (n, ...) the examples.
            errors: (n,) of what stands for them.
            guess_errors: (n,) of the guesses.
            population: examples that no client trains on.
        """

    @abstractmethod
    def report_arrays(self, parts: Mapping[str, Rows], readings: Sequence[Mapping[str, float]]) -> Mapping[str, Rows]:
        """Arrays for the report of a run, from `original`, `reconstruction` and `prior` (n, ...)."""

    def label_scores(
        self, labels: IntArray, truth: IntArray, num_classes: int, population: Examples
    ) -> tuple[float, float]:
        """The share of inferred labels that are right as a multiset, and what a guess without the update would get.

        Of as many as were named: an attack that reconstructs a part of a batch names a part of its labels. The guess
        names equally many of each class.
        """
        guess = np.arange(len(labels)) % num_classes
        return count_shared(labels, truth, num_classes), count_shared(guess, truth, num_classes)

    # --- report ------------------------------------------------------------------------------------------------------

    @staticmethod
    def draw(axes: Axes, values: Rows) -> None:
        """Draws one example into axes of matplotlib; called where `written` is False."""
        raise NotImplementedError

    @staticmethod
    def pixels(values: Rows) -> NDArray[np.uint8] | None:
        """One example as an image of its own pixels, (height, width) or (height, width, 3), 0 to 255.

        None where it is no image, so that `draw` makes one.
        """
        return None

    def text(self, inputs: Rows, targets: NDArray[Any]) -> str:
        """One example in writing, from its inputs and its target; empty where it can only be drawn."""
        return ""

    def decode(self, tokens: IntArray) -> str:
        """Tokens (n,) in writing, by default their numbers."""
        return " ".join(map(str, tokens.tolist()))

    def sketch(self, inputs: Rows) -> tuple[str, ...]:
        """One example as a few lines of block characters, for a terminal; none where it is better written."""
        return ()


SHADES = " ░▒▓█"
"""From 0 to 1, for sketches of images."""

BARS = "▁▂▃▄▅▆▇█"
"""From 0 to 1, for sketches of series."""


def characters(values: FloatArray, scale: str) -> str:
    """A character of `scale` for each number (n,) in [0, 1]; a space for NaN.

    >>> characters(np.array([0.0, 0.5, 1.0]), BARS), characters(np.array([np.nan, 1.0]), SHADES)
    ('▁▅█', ' █')
    """
    places = np.clip(np.nan_to_num(values, nan=0.0) * len(scale), 0, len(scale) - 1).astype(int)
    return "".join(" " if np.isnan(v) else scale[p] for v, p in zip(values.tolist(), places.tolist(), strict=True))


def shrink(values: FloatArray, axis: int, size: int) -> FloatArray:
    """Means of neighbours along an axis, so that it has at most `size` entries.

    >>> shrink(np.array([0.0, 1.0, 1.0, 1.0]), 0, 2).tolist()
    [0.5, 1.0]
    """
    parts = np.array_split(values, min(size, values.shape[axis]), axis=axis)
    return np.stack([part.mean(axis=axis) for part in parts], axis=axis)


def count_shared(labels: IntArray, truth: IntArray, num_classes: int, min_count: int = 1) -> float:
    """The share of labels that two collections have in common, of as many as the first has, and at least so many.

    >>> count_shared(np.array([0, 1, 1]), np.array([1, 2, 0, 0]), 3)
    0.6666666666666666
    """
    counts = (np.bincount(some[some != UNASKED], minlength=num_classes) for some in (labels, truth))
    return float(np.minimum(*counts).sum() / max(int((labels != UNASKED).sum()), min_count, 1))


def of_kind(kind: str) -> type[Modality]:
    """The class of a modality: one that is loaded, or that of the file of this name.

    Errors: `LookupError` where there is none.

    >>> of_kind("images").kind
    'images'
    """
    for cls in _classes(Modality):
        if getattr(cls, "kind", None) == kind:
            return cls
    name = f"{__package__}.{kind}"
    if kind.isidentifier() and find_spec(name) is not None:
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and issubclass(value, Modality) and getattr(value, "kind", None) == kind:
                return value
    raise LookupError(f"there is no modality {kind!r}")


def _classes(base: type[Any]) -> Iterator[type[Modality]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _classes(cls)
