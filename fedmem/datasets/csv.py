"""A table of your own, in a CSV or parquet file: numbers, categories, missing cells, clients and a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._columns import (
    MISSING,
    Encoding,
    column_problem,
    describe,
    in_order,
    is_number,
    learn,
    learnt_from_rows,
    numbers_of,
    positions,
    unknown_names,
)
from fedmem.datasets._frames import SUFFIXES, Frame, raise_all, raise_problems, read_frame
from fedmem.datasets._notation import notation_problem, with_decimal_points
from fedmem.datasets._splits import stratified_sample
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from fedmem.shipped.files import data_path

_TEST_CELLS = dict.fromkeys(("test", "true", "yes", "1"), True) | dict.fromkeys(("train", "false", "no", "0"), False)
"""The cells of a column that says whether a row is a test row."""


@dataclass(frozen=True, kw_only=True)
class Csv:
    """A file that ends in `.csv` (with a header) or `.parquet`: a row for each example, a column for each field.

    Inputs (n, width) float32 in [0, 1]: every column but `target`, `client`, `sensitive`, `drop` and a `test` column.
    A column whose cells are all decimal numbers is scaled to [0, 1]; any other, and one in `categorical`, becomes a
    one-hot of its categories. Digits with a leading zero (007) are codes, so categories. The type, the range and the
    median of a column, and its categories, are those of the training rows. They are fixed before audit examples are
    drawn: public knowledge, the same whichever examples are in. `ranges` fixes a range without looking at any row. In
    test rows, a number outside the range is cut to it, and a category that no training row has is all zeros. Text or a
    code among numbers is an error. Columns that are the same in all training rows are left out. `fedmem check` lists
    these decisions. `ids` number the rows of the file from 0, then those of a test file. `columns` holds every column
    as it is in the file, for the training rows alone.

    Fields

    - `path`: the file, from the folder in which fedmem is started.
    - `target`: the column of the class; class names are its values, in order.
    - `client`: the column of natural owners, for `partition: {kind: natural}`; empty for none.
    - `categorical`: columns of numbers that are categories, such as codes.
    - `sensitive`: columns that attacks on attributes ask about; they are inputs only with `include_sensitive`.
      Reports and `fedmem top` hide their cells; `fedmem top --show-sensitive` shows them.
    - `include_sensitive`: make the sensitive columns inputs too.
    - `columns`: the columns that are inputs; empty for all that are left.
    - `drop`: columns that are no inputs, such as identifiers. They are stored with no run and shown nowhere;
      the injection `existing` may select rows by them.
    - `ranges`: for columns of numbers, `[low, high]` of what becomes 0 and 1; values outside are cut.
    - `missing`: `refuse` a missing cell; `fill` it, a number by the median of the training rows, a category by a
      category `(missing)`; or `leave_out` its row.
    - `missing_values`: cells that count as missing.
    - `max_categories`: the most categories of a column.
    - `rows`: training rows, drawn from those there are; null for all.
    - `test`: test rows to draw, a number from 1 or a share below 1. Or the column that says test or train (yes or no,
      true or false, 1 or 0). Or another file with the same columns; null for a fifth.
    - `separator`: the character between the cells of a CSV file.
    - `encoding`: the encoding of a CSV file.
    - `decimal`: the decimal mark of numbers, a point or a comma (120,5). Separators of thousands are refused.

    Guarantees:

    - a drawn test set is stratified: every class, and every client in it, has its exact share, rounded up or down;
    - the inputs of a row depend on no test row other than itself;
    - the content of the file belongs to a run: a finished one is not served after the file has changed.

    Errors: files and cells that cannot be read or used, with row (from 0, and its line) and column. They are text among
    numbers, missing cells, an identifier, too many categories, one class, columns of one name, another separator or
    encoding, and open quotes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = [f"{20 + i},{'fm'[i % 2]},{'yes' if i > 4 else 'no'}" for i in range(10)]
    ...     _ = Path(folder, "mine.csv").write_text("\\n".join(["age,sex,ill", *rows]))
    ...     loader = Csv(path=f"{folder}/mine.csv", target="ill", ranges={"age": (0, 100)}, test=2)
    ...     data = loader.load(np.random.default_rng(0))
    >>> data.class_names, data.modality.blocks, [round(float(x), 2) for x in data.train.inputs[0]]
    (('no', 'yes'), (1, 2), [0.21, 0.0, 1.0])
    """

    path: str = "data.csv"
    target: str = "target"
    client: str = ""
    categorical: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    include_sensitive: bool = False
    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    missing: Literal["refuse", "fill", "leave_out"] = "refuse"
    missing_values: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
    max_categories: Annotated[int, annotated_types.Ge(2)] = 50
    rows: Annotated[int, annotated_types.Ge(1)] | None = None
    test: (
        Annotated[int, annotated_types.Ge(1)]
        | Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)]
        | str
        | None
    ) = None
    separator: str = ","
    encoding: str = "utf-8"
    decimal: Annotated[Literal[".", ","], "identity_neutral"] = "."

    def input_files(self) -> tuple[Path, ...]:
        """The file, and that of the test rows."""
        return tuple(data_path(name) for name in (self.path, self._test_file) if name)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the table, choose the test rows, learn the encoding from the others, and encode."""
        frame, first_test = self._read()
        self._require_names(frame)
        frame, kept = self._without_gaps(frame)
        test_rows = self._given_test(frame, kept, first_test)
        targets, classes = self._targets(frame)
        owners, owner_names = self._owners(frame)
        train, test = self._split(targets, owners, test_rows, rng)
        self._require_columns(frame, train)
        encodings, left_out = self._learn(frame, train)
        inputs = np.concatenate([part.encode(frame.columns[part.name]) for part in encodings], axis=1)
        examples = Examples(inputs=inputs, targets=targets, ids=kept)
        self._require_classes(targets[train], classes)
        return Dataset(
            train=examples.take(train),
            test=examples.take(test),
            num_classes=len(classes),
            modality=Tables(blocks=tuple(part.width for part in encodings)),
            natural=owners[train] if self.client else None,
            sensitive={name: _sensitive(frame.columns[name][train]) for name in self.sensitive},
            columns={name: _original(cells[train]) for name, cells in frame.columns.items()},
            dropped=tuple(self._unused_columns(frame)),
            class_names=classes,
            client_names=owner_names,
            learnt=learnt_from_rows(encodings, has_medians=self.missing == "fill"),
            decisions=(
                *(describe(part, frame.columns[part.name], train, test) for part in encodings),
                *self._describe_rest(frame, left_out),
            ),
        )

    @property
    def _test_file(self) -> str:
        """The file of test rows; empty where there is none."""
        return self.test if isinstance(self.test, str) and self.test.lower().endswith(SUFFIXES) else ""

    @property
    def _test_column(self) -> str:
        """The column that marks test rows; empty where there is none."""
        return self.test if isinstance(self.test, str) and not self._test_file else ""

    @property
    def _others(self) -> tuple[str, ...]:
        """The columns that are no inputs, as the fields say."""
        others = () if self.include_sensitive else self.sensitive
        return tuple(filter(None, (self.target, self.client, self._test_column, *self.drop, *others)))

    def _unused_columns(self, frame: Frame) -> list[str]:
        """The columns that have no use, except that an injection may select rows by them."""
        used = {*self._inputs(frame), self.target, self.client, self._test_column, *self.sensitive}
        return [name for name in frame.columns if name not in used]

    def _inputs(self, frame: Frame) -> list[str]:
        """The columns that are inputs."""
        return [name for name in self.columns or frame.columns if name not in self._others]

    def _read(self) -> tuple[Frame, int]:
        """All rows, those of a test file last, and the number of the first of these; missing cells are empty."""
        frame = read_frame(self.path, "dataset.path", separator=self.separator, encoding=self.encoding, strip=True)
        rows = len(frame)
        if self._test_file:
            frame = frame.append(
                read_frame(
                    self._test_file, "dataset.test", separator=self.separator, encoding=self.encoding, strip=True
                ),
                "dataset.test",
            )
        frame = frame.empty_cells(self.missing_values)
        if self.decimal == ",":
            frame = with_decimal_points(frame, (self.target, self.client, self._test_column, *self.categorical))
        return frame, rows

    def _require_names(self, frame: Frame) -> None:
        """Every column that a field names exists, and has one purpose."""
        fields = {
            "target": [self.target],
            "client": [self.client] if self.client else [],
            "test": [self._test_column] if self._test_column else [],
            **{name: getattr(self, name) for name in ("categorical", "sensitive", "columns", "drop")},
            "ranges": list(self.ranges),
        }
        wrong = [
            problem
            for key, names in fields.items()
            for problem in unknown_names(key, names, [*frame.columns], self.path)
        ]
        if self.target == self.client:
            wrong.append(("dataset.client", f"column {self.client} is the target too; name another column"))
        for name in self.columns:
            if name in self._others:
                wrong.append(("dataset.columns", f"{name} is named elsewhere as no input; take it out of one of them"))
        for name, (low, high) in self.ranges.items():
            if low >= high:
                wrong.append((f"dataset.ranges.{name}", f"[{low:g}, {high:g}] should rise, such as [0, 120]"))
        raise_all(wrong)
        if not self._inputs(frame):
            raise ComponentError("dataset.columns", f"no column of {self.path} is left as input; drop fewer")

    def _without_gaps(self, frame: Frame) -> tuple[Frame, IntArray]:
        """The rows that are used, and their numbers; all have a target and a client, and none a gap that is refused."""
        sensitive = self.sensitive
        checked = dict.fromkeys(name for name in (*self._inputs(frame), *sensitive, self.target, self.client) if name)
        gaps = {name: frame.columns[name] == "" for name in checked}
        if self.missing == "leave_out":
            kept = np.flatnonzero(~np.any(list(gaps.values()), axis=0))
            if not len(kept):
                message = f"every row of {self.path} has a missing cell; write `missing: fill`, or drop columns"
                raise ComponentError("dataset.missing", message)
            return frame.take(kept), kept
        raise_problems(
            [
                (
                    f"dataset.{key}",
                    f"{frame.place(row)}, column {name}, is missing; fill it, or write `missing: leave_out`",
                )
                for key, name in (("target", self.target), ("client", self.client))
                if name
                for row in np.flatnonzero(gaps[name]).tolist()
            ]
        )
        counts = {name: int(gap.sum()) for name, gap in gaps.items() if gap.any()}
        if counts and self.missing == "refuse":
            name = next(iter(counts))
            row = int(np.flatnonzero(gaps[name])[0])
            listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
            message = (
                f"{frame.place(row)}, column {name}, is missing. Missing cells by column: {listed}. Write `missing: "
                f"fill` (numbers by the median of the training rows, categories by a category {MISSING}), `missing: "
                "leave_out` (without these rows), or drop the columns"
            )
            raise ComponentError("dataset.missing", message)
        return frame, np.arange(len(frame))

    def _given_test(self, frame: Frame, kept: IntArray, first_test: int) -> NDArray[np.bool_] | None:
        """(n,) which rows are test rows, where the file or a column says so."""
        if self._test_file:
            return kept >= first_test
        if not self._test_column:
            return None
        cells = frame.columns[self._test_column]
        raise_problems(
            [
                (
                    "dataset.test",
                    f"{frame.place(row)}, column {self._test_column}: {cell!r} says neither test nor train; write test "
                    "or train, yes or no, true or false, 1 or 0",
                )
                for row, cell in enumerate(cells)
                if cell.lower() not in _TEST_CELLS
            ]
        )
        return np.array([_TEST_CELLS[cell.lower()] for cell in cells])

    def _targets(self, frame: Frame) -> tuple[IntArray, tuple[str, ...]]:
        """(n,) the class of each row, and the names of the classes."""
        cells = frame.columns[self.target]
        names = in_order(set(cells))
        if len(names) < 2:
            message = f"column {self.target} has one class, {names[0]!r}, in every row; there is nothing to learn"
            raise ComponentError("dataset.target", message)
        fractions = all(map(is_number, names)) and any(float(name) % 1 for name in names)
        if len(names) > len(frame) // 2 or (fractions and len(names) > self.max_categories):
            message = (
                f"column {self.target} has {len(names)} values in {len(frame)} rows, but should hold classes; name "
                "another column, or cut its numbers into classes first"
            )
            raise ComponentError("dataset.target", message)
        return positions(cells, names), names

    def _owners(self, frame: Frame) -> tuple[IntArray, tuple[str, ...]]:
        """(n,) the client of each row, and the names of the clients; zeros and none without a column."""
        if not self.client:
            return np.zeros(len(frame), dtype=np.int64), ()
        names = in_order(set(frame.columns[self.client]))
        return positions(frame.columns[self.client], names), names

    def _require_columns(self, frame: Frame, train: IntArray) -> None:
        """Every input is of one type, that of its training rows, and no identifier."""
        wrong = []
        for name in self._inputs(frame):
            cells, categorical = frame.columns[name], name in self.categorical
            key, message, row = "", "", None
            if not categorical:
                key, message, row = notation_problem(name, cells, frame.place)
            if not key:
                limits, allowed = name in self.ranges, self.max_categories
                key, message, row = column_problem(
                    name, cells, train, categorical=categorical, has_limits=limits, max_categories=allowed
                )
            if key:
                wrong.append((key, message if row is None else f"{frame.place(row)}, column {name}: {message}"))
        raise_all(wrong)

    def _split(
        self, targets: IntArray, owners: IntArray, given: NDArray[np.bool_] | None, rng: np.random.Generator
    ) -> tuple[IntArray, IntArray]:
        """Sorted positions of training and test rows; strata are classes, and clients in them."""
        strata = targets * (1 + int(owners.max())) + owners
        total = len(targets)
        if given is not None:
            train, test = np.flatnonzero(~given), np.flatnonzero(given)
            if not len(train) or not len(test):
                message = f"{len(train)} training and {len(test)} test rows; mark at least one row of each"
                raise ComponentError("dataset.test", message)
        else:
            share = 0.2 if self.test is None else self.test
            assert not isinstance(share, str)
            count = max(1, round(share * total)) if isinstance(share, float) else share
            if count >= total:
                raise ComponentError("dataset.test", f"{count} test rows leave none of {total} to train on; lower test")
            test = stratified_sample(strata, count, rng)
            train = np.setdiff1d(np.arange(total), test)
        if self.rows is not None and self.rows > len(train):
            message = f"{self.rows} exceeds the {len(train)} training rows there are; lower rows"
            raise ComponentError("dataset.rows", message)
        if self.rows is not None:
            train = train[stratified_sample(strata[train], self.rows, rng)]
        return train, test

    def _learn(self, frame: Frame, train: IntArray) -> tuple[list[Encoding], list[str]]:
        """How each input is encoded, and the columns that are the same in all training rows."""
        encodings: list[Encoding] = []
        left_out = []
        for name in self._inputs(frame):
            encoding = learn(
                name,
                frame.columns[name][train],
                categorical=name in self.categorical,
                limits=self.ranges.get(name),
            )
            if encoding is None:
                left_out.append(name)
            else:
                encodings.append(encoding)
        if not encodings:
            message = f"every input of {self.path} is the same in all training rows; there is nothing to learn from"
            raise ComponentError("dataset.columns", message)
        return encodings, left_out

    def _require_classes(self, trained: IntArray, names: Sequence[str]) -> None:
        """Every class has a training row."""
        absent = [name for label, name in enumerate(names) if label not in set(trained.tolist())]
        if absent:
            message = (
                f"no training row is left of class {absent[0]!r}; lower test, raise rows, or leave out rare classes"
            )
            raise ComponentError("dataset.target", message)

    def _describe_rest(self, frame: Frame, left_out: Sequence[str]) -> list[str]:
        """The decisions about the other columns and rows."""
        texts = [f"target: {self.target}"]
        texts += [f"client: {self.client}, no input"] if self.client else []
        if self.sensitive:
            texts.append(f"sensitive: {', '.join(self.sensitive)}, {'also' if self.include_sensitive else 'no'} inputs")
        texts += [f"left out: {', '.join(left_out)}, the same in all training rows"] if left_out else []
        dropped = self._unused_columns(frame)
        texts += [f"dropped: {', '.join(dropped)} (no input, and not copied into results)"] if dropped else []
        if self.missing == "leave_out":
            texts.append(f"rows with a missing cell are left out: {len(frame)} remain")
        return texts


def _original(cells: NDArray[np.object_]) -> NDArray[Any]:
    """(n,) a column as the file has it: whole numbers, numbers with NaN for missing cells, or text."""
    numbers = numbers_of(cells)
    if numbers is None:
        return np.array(cells, dtype=np.str_)
    whole = bool((np.abs(numbers) < 2**53).all() and (numbers % 1 == 0).all())
    return numbers.astype(np.int64) if whole else numbers


def _sensitive(cells: NDArray[np.object_]) -> NDArray[Any]:
    """(n,) a sensitive attribute: whole numbers or text."""
    values = _original(cells)
    return values if values.dtype.kind in "iU" else np.array(np.where(cells == "", MISSING, cells), dtype=np.str_)
