"""Any partitioner of flwr-datasets that deals out rows, by the name of its class."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.errors import ComponentError
from fedmem.partitions._sizes import require
from fedmem.wording import choices

Value = bool | int | float | str | None
"""A value that an argument of a partitioner may have, alone or in a list."""

_GIVEN = ("num_partitions", "seed")
"""Parameters that the scenario decides elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Flower:
    """Rows as a partitioner of the package flwr-datasets deals them out.

    The partitioner sees a table with the columns `index`, `label`, `natural` where the data know owners, and one for
    each sensitive attribute. It never sees inputs. `num_partitions` is the number of clients and `seed` comes from the
    stream of the partition; `partition_by` is `label` unless it is among the arguments. A partitioner without a seed,
    such as `IidPartitioner`, deals out what it is given in its order, so rows are shuffled before.

    Where `partition_by` is another column than the label, such as `natural`, this is a partition by owner. Audit rows
    and replacement rows of a client are then its own rows.

    Some partitioners leave rows out (shards that do not fill up, classes that no client was given). Then no client
    trains on those rows, which `leave_out` must allow.

    Fields

    - `partitioner`: class of `flwr_datasets.partitioner`, such as DirichletPartitioner.
    - `arguments`: its other parameters by name: numbers, text, true or false, or lists of them.
    - `leave_out`: accept that rows are left out; otherwise they are an error that counts them.

    Guarantees:

    - disjoint, sorted arrays; they cover `rows` exactly unless `leave_out`;
    - global random generators are left alone.

    Errors: `ComponentError` if flwr-datasets is not installed, knows no such class, or refuses the arguments.
    `ComponentError` also if a client gets no row, and if rows are left out without `leave_out`, with their number and
    classes.

    >>> from fedmem.datasets.synthetic import Synthetic
    >>> data = Synthetic(rows=600).load(np.random.default_rng(0))
    >>> linear = Flower(partitioner="LinearPartitioner")
    >>> [len(part) for part in linear.assign(data, np.arange(600), 3, np.random.default_rng(0))]
    [100, 200, 300]

    Reference: the package flwr-datasets of Beutel et al. (2020), Flower: A Friendly Federated Learning Framework.
    """

    partitioner: str = "IidPartitioner"
    # A mapping has no hash; equal components still have equal hashes without it.
    arguments: Mapping[str, Value | tuple[Value, ...]] = field(default_factory=dict, hash=False)
    leave_out: bool = False

    @property
    def by_owner(self) -> bool:
        """Whether rows are grouped by another column than the label: by owner, or by a sensitive attribute."""
        return self.arguments.get("partition_by", "label") != "label"

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        """Positions in `data.train` that each client holds."""
        require(len(rows), num_clients, 1, "")
        modules = self._modules()
        partitioner = self._make(modules, num_clients, int(rng.integers(2**31)))
        mixed = rng.permutation(rows)
        columns = {"index": mixed, "label": data.train.labels[mixed]}
        if data.natural is not None:
            columns["natural"] = data.natural[mixed]
        columns |= {name: values[mixed] for name, values in data.sensitive.items() if name not in columns}
        with _silence_flower():
            table = modules["Dataset"].from_dict({name: values.tolist() for name, values in columns.items()})
            parts = self._client_rows(partitioner, table, num_clients)
        self._check(parts, data, rows)
        return parts

    def _modules(self) -> Mapping[str, Any]:
        """The classes of the two packages, imported here because few scenarios need them."""
        try:
            with _silence_flower():
                import datasets
                from flwr_datasets import partitioner
        except ImportError as error:
            raise ComponentError(
                "partition.kind",
                f"flower needs the package flwr-datasets ({error}); install it with "
                "`pip install 'fedmem[partitioners]'`, or use a partition of fedmem, such as dirichlet",
            ) from error
        partitioners = {name: value for name, value in vars(partitioner).items() if name.endswith("Partitioner")}
        return {"Dataset": datasets.Dataset, **partitioners}

    def _make(self, modules: Mapping[str, Any], num_clients: int, seed: int) -> Any:
        """The partitioner with what the scenario decides filled in."""
        partitioners = [name for name in modules if name not in ("Dataset", "Partitioner") and "Vertical" not in name]
        if self.partitioner not in partitioners:
            vertical = self.partitioner in modules and "Vertical" in self.partitioner
            what = (
                "splits columns, not rows"
                if vertical
                else f"is no partitioner{choices(self.partitioner, partitioners)}"
            )
            raise ComponentError("partition.partitioner", f"{self.partitioner!r} {what}")
        cls = modules[self.partitioner]
        parameters = inspect.signature(cls).parameters
        for name in self.arguments:
            if name in _GIVEN:
                what = "clients" if name == "num_partitions" else "seed"
                raise ComponentError(
                    f"partition.arguments.{name}", f"comes from `{what}` of the scenario; leave it out here"
                )
            if name not in parameters:
                free = [parameter for parameter in parameters if parameter not in _GIVEN]
                raise ComponentError(
                    f"partition.arguments.{name}",
                    f"{self.partitioner} takes no such argument{choices(name, free) if free else ''}",
                )
        decided: dict[str, Any] = {"num_partitions": num_clients, "seed": seed, "partition_by": "label"}
        user_arguments = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.arguments.items()
        }
        arguments = {name: value for name, value in decided.items() if name in parameters} | user_arguments
        missing = [
            name
            for name, parameter in parameters.items()
            if parameter.default is inspect.Parameter.empty and name not in arguments
        ]
        if missing:
            raise ComponentError(
                "partition.arguments", f"{self.partitioner} needs {', '.join(missing)}; write {{{missing[0]}: ...}}"
            )
        return self._try(lambda: cls(**arguments))

    def _client_rows(self, partitioner: Any, table: Any, num_clients: int) -> tuple[IntArray, ...]:
        """The rows of each client, sorted."""
        partitioner.dataset = table
        count = self._try(lambda: partitioner.num_partitions)
        if count != num_clients:
            raise ComponentError(
                "clients",
                f"{num_clients} clients, but {self.partitioner} makes {count} parts; write `clients: {count}`",
            )
        return tuple(
            np.sort(np.array(self._try(partitioner.load_partition, client)["index"], dtype=np.int64))
            for client in range(num_clients)
        )

    def _try(self, call: Callable[..., Any], *arguments: object) -> Any:
        """Call into flwr-datasets, whose errors of any type are about what the user wrote."""
        try:
            return call(*arguments)
        except Exception as error:
            raise ComponentError(
                "partition.arguments",
                f"{self.partitioner} refuses {dict(self.arguments)}: {type(error).__name__}: {error}; "
                "change the arguments, or clients",
            ) from error

    def _check(self, parts: tuple[IntArray, ...], data: Dataset, rows: IntArray) -> None:
        """No client without rows, no row twice, and none left out silently."""
        empty = [client for client, part in enumerate(parts) if len(part) == 0]
        if empty:
            raise ComponentError(
                "partition",
                f"{self.partitioner} gives {len(empty)} of {len(parts)} clients no row (client {empty[0]} first); "
                "lower clients, or change the arguments",
            )
        rows_left_out = np.setdiff1d(rows, np.concatenate(parts))
        if len(rows_left_out) and not self.leave_out:
            classes, counts = np.unique(data.train.labels[rows_left_out], return_counts=True)
            counts_text = ", ".join(f"{count} of class {label}" for label, count in zip(classes, counts, strict=True))
            raise ComponentError(
                "partition.leave_out",
                f"{self.partitioner} leaves out {len(rows_left_out)} of {len(rows)} rows ({counts_text}); change the "
                "arguments or clients until it gives all, or write `leave_out: true` to train without them",
            )


@contextmanager
def _silence_flower() -> Iterator[None]:
    """Progress bars and warnings of flwr-datasets say nothing that a scenario can act on; errors still come through."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
