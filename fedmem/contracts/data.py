"""Records of data sets, partitions and the rows of a client, and the contracts of data sets and partitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.declarations import Declaration, declare, read_declaration

if TYPE_CHECKING:
    from fedmem.modalities.modality import Modality


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of data with an identity that survives partitioning and injection.

    `inputs` (n, *shape) are float32, in [0, 1] for images, or int64 token numbers of texts. `targets` (n,) are int64,
    for texts (n, L). `ids` (n,) are int64: the row of the data set, or negative for generated examples.

    >>> rows = Examples(inputs=np.zeros((3, 2), np.float32), targets=np.array([0, 1, 0]), ids=np.arange(3))
    >>> len(rows), rows.take(np.array([2])).ids.tolist()
    (3, [2])
    """

    inputs: NDArray[Any]
    targets: IntArray
    ids: IntArray

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.targets) == len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> IntArray:
        """(n,) the targets where there is one for each row; zeros otherwise, since a sequence has no class."""
        return np.zeros(len(self), dtype=np.int64) if self.several_targets else self.targets

    @property
    def num_targets(self) -> IntArray:
        """(n,) the number of targets of each row that are asked for: those that are not -1."""
        each = (self.targets != -1).reshape(len(self), math.prod(self.targets.shape[1:]))
        return np.asarray(each.sum(axis=1))

    @property
    def several_targets(self) -> bool:
        """Whether each row has a target at each of several places, (n, L), not one alone, (n,)."""
        return self.targets.shape != self.ids.shape

    def take(self, rows: NDArray[Any]) -> Examples:
        """The rows at these positions, in this order."""
        return Examples(inputs=self.inputs[rows], targets=self.targets[rows], ids=self.ids[rows])

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        """All rows of all parts, in order; at least one part."""
        return Examples(
            inputs=np.concatenate([part.inputs for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The data that a dataset component loads.

    `natural` (n,) is the owner of each training row where the data know one. `sensitive` maps the name of an
    attribute of people to its values (n,), whole numbers or text, for the training rows in their order. `columns` maps
    the name of a column of the source to its values (n,), as the source has them. A scenario selects rows by these
    values, and people read them. Columns in `dropped` are for selection alone: no run stores or shows them.
    `class_names` (C,) name the classes, and `client_names` the owners: owner k of `natural` is `client_names[k]`; both
    are empty where the data have no names. `decisions` are what the loader decided about the data, a line each, which
    `fedmem check` shows: such as the range of a column. `learnt` names what was learnt from training rows, such as
    `ranges`. No privacy guarantee covers that. `text_starts` are the ids of the windows with which texts
    begin. A window whose id is not among them continues the text of the window with the id before. It is empty where
    rows are no windows of texts. `modality` says what the inputs are, such as `Images()`, `Tables(blocks=...)` or
    `Texts(vocabulary=...)` of `fedmem.modalities`. Every other part asks this object.
    """

    train: Examples
    test: Examples
    num_classes: int
    modality: Modality
    natural: IntArray | None = None
    sensitive: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    client_names: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()
    text_starts: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        assert all(len(values) == len(self.train) for values in self.sensitive.values())


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """The base rows of one client, before injection; `reserved` more of its rows were set aside for audits.

    `name` is that of the client, empty without one. An injection that takes rows which clients hold also gets the
    `columns` of the data set for these rows, sensitive attributes among them. It gets `max_taken`, the number of rows
    that it may take. It gets `elsewhere`, the places of further training rows of the owner, by the reason. `set_aside`
    has the rows of the data set that no client holds, by the reason, the same for every client. They may be read, for
    example for a text that continues in a row of the test set, but must not be taken. `text_starts` are those of the
    data set.

    >>> rows = Examples(inputs=np.zeros((3, 2), np.float32), targets=np.array([0, 1, 0]), ids=np.arange(3))
    >>> ClientData(client=0, examples=rows, reserved=2).num_rows
    5
    """

    client: int
    examples: Examples
    name: str = ""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    max_taken: int = 0
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    reserved: int = 0
    set_aside: Mapping[str, Examples] = field(default_factory=dict)
    text_starts: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def num_rows(self) -> int:
        """The rows that the client had before any was set aside for it."""
        return len(self.examples) + self.reserved


@dataclass(frozen=True, kw_only=True)
class Space:
    """Public properties of the inputs of a data set: none of them distinguishes one row from another.

    `mean`, `low`, `high` (*shape) are taken over all `num_rows` training rows. `modality` is that of the data set.
    `frequencies` (V,) are the shares of the tokens in the training rows, empty where inputs are no tokens.
    `class_names` (C,) name the classes, empty where they have no names.

    >>> from fedmem.modalities.tables import Tables
    >>> rows = Examples(inputs=np.array([[0.0], [1.0]], np.float32), targets=np.array([0, 1]), ids=np.arange(2))
    >>> Space.of(Dataset(train=rows, test=rows, num_classes=2, modality=Tables())).mean.tolist()
    [0.5]
    """

    num_classes: int
    num_rows: int
    mean: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    modality: Modality
    frequencies: FloatArray = field(default_factory=lambda: np.zeros(0))
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.mean.shape

    @staticmethod
    def of(data: Dataset) -> Space:
        """The space of a data set with at least one training row."""
        inputs = data.train.inputs
        return Space(
            num_classes=data.num_classes,
            num_rows=len(inputs),
            mean=inputs.mean(axis=0, dtype=np.float64).astype(np.float32),
            low=inputs.min(axis=0),
            high=inputs.max(axis=0),
            modality=data.modality,
            frequencies=data.modality.frequencies(data.train),
            class_names=data.class_names,
        )


@runtime_checkable
class DatasetLoader(Protocol):
    """Loads real or made data; draws (a split, a synthetic sample) come from `rng` alone.

    It may declare what `DatasetDeclaration` lists.
    """

    def load(self, rng: np.random.Generator) -> Dataset: ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A component of any family that reads files: which ones, also where some are missing.

    A finished run is not served when the content of one of them has changed. Without this method, each field of a
    component outside fedmem that names a file or a folder counts. The data that it makes are compared too.
    """

    def input_files(self) -> Sequence[Path]: ...


@runtime_checkable
class Partition(Protocol):
    """Assigns rows to clients: disjoint sorted index arrays that cover every row, or an error that counts the rest.

    For very many clients, `Ragged` is a sequence of arrays that costs nothing for each. It may declare what
    `PartitionDeclaration` lists.
    """

    def assign(
        self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator
    ) -> Sequence[IntArray]: ...


@runtime_checkable
class FeatureShift(Partition, Protocol):
    """A partition whose clients see their inputs differently: float32 of the same shape, in [0, 1], nothing drawn."""

    def shift(self, client: int, num_clients: int, inputs: NDArray[np.float32]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, kw_only=True)
class PartitionDeclaration(Declaration):
    """The declarations of a partition, with their defaults.

    Attributes:
        leave_out: whether rows may be left out, so that no client trains on them.
        by_owner: whether each client holds the rows of one owner. The audit examples, controls and replacement rows
            of a client then come from its own rows: `assign` deals out all rows but the population, and what is set
            aside is drawn from the rows of each client.
    """

    leave_out: bool = declare(False, "true or false")
    by_owner: bool = declare(False, "true or false")


def partition_declaration(partition: object) -> PartitionDeclaration:
    """The declarations of a partition.

    >>> from fedmem.partitions.natural import Natural
    >>> partition_declaration(Natural()).by_owner
    True
    """
    return read_declaration(PartitionDeclaration, partition)


@dataclass(frozen=True, kw_only=True)
class DatasetDeclaration(Declaration):
    """The declarations of a data set, with their defaults.

    Attributes:
        published: Where its files are published, for `fedmem fetch`; see `fedmem/fetched/files.py`.
        reads_fetched_data: Whether it reads files that have to be fetched, and not some that ship.
    """

    published: object = declare(None, "a Published")
    reads_fetched_data: bool = declare(True, "true or false")


def dataset_declaration(dataset: object) -> DatasetDeclaration:
    """The declarations of a data set.

    >>> from fedmem.datasets.digits import Digits
    >>> dataset_declaration(Digits()).published is None
    True
    """
    return read_declaration(DatasetDeclaration, dataset)
