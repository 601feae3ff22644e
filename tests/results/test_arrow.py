from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.results.arrow import Lists, Nullable, Text, column, is_present, numbers

HARD = [np.nan, np.inf, -np.inf, -0.0, 5e-324, 0.1]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()])
def test_numbers_are_those_that_pyarrow_makes(kind: pa.DataType, count: int) -> None:
    values = np.resize(HARD, count) if pa.types.is_floating(kind) else np.arange(count) % 3
    values = values.astype(kind.to_pandas_dtype())
    # no matter how they lie in memory
    for given_ in (values, np.repeat(values, 2)[::2], values[::-1]):
        found, expected = column(given_, kind), pa.array(np.ascontiguousarray(given_), kind)
        found.validate(full=True)
        assert found.type == expected.type
        assert found.null_count == 0
        bits = expected.to_numpy(zero_copy_only=False)
        assert found.to_numpy(zero_copy_only=False).tobytes() == bits.tobytes()
        # and back, a piece of it as well
        assert numbers(found).tobytes() == bits.tobytes()
        assert numbers(expected[1:]).tobytes() == bits[1:].tobytes()
        pieces = pa.chunked_array([found, found[1:]])
        assert numbers(pieces).tobytes() == bits.tobytes() + bits[1:].tobytes()
        assert numbers(pa.chunked_array([], kind)).shape == (0,)


def test_numbers_are_converted_if_needed_and_shared_otherwise() -> None:
    assert column(np.array([1, 2], dtype=np.int64), pa.int32()).equals(pa.array([1, 2], pa.int32()))
    values = np.array([1.0, 2.0])
    assert column(values, pa.float64()).buffers()[1].address == values.ctypes.data


@given(st.lists(st.text(max_size=4), max_size=12))
@settings(max_examples=60, deadline=None)
def test_text_is_what_pyarrow_makes(values: list[str]) -> None:
    found = column(Text.of(values), pa.dictionary(pa.int32(), pa.string()))
    found.validate(full=True)
    assert found.to_pylist() == values
    assert found.dictionary.to_pylist() == sorted(set(values))


def test_one_word_many_times() -> None:
    found = column(Text.repeat_word("ä", 3), pa.dictionary(pa.int32(), pa.string()))
    assert found.equals(pa.DictionaryArray.from_arrays(pa.array([0, 0, 0], pa.int32()), pa.array(["ä"])))


def test_a_place_that_no_word_has_is_refused() -> None:
    with pytest.raises(pa.ArrowIndexError):
        column(Text(categories=["a"], places=np.array([1])), pa.dictionary(pa.int32(), pa.string()))


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(-9, 9), max_size=3)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_lists_are_what_pyarrow_makes(values: list[list[int] | None]) -> None:
    flat = np.array([number for one in values if one for number in one], dtype=np.int64)
    missing = np.array([one is None for one in values], dtype=bool)
    sizes = np.array([len(one or ()) for one in values], dtype=np.int64)
    found = column(Lists(values=flat, sizes=sizes, missing=missing), pa.list_(pa.int64()))
    found.validate(full=True)
    assert found.equals(pa.array(values, pa.list_(pa.int64())))
    assert is_present(found).tolist() == (~missing).tolist()
    assert is_present(found[1:]).tolist() == (~missing)[1:].tolist()
    assert numbers(found.flatten()).tolist() == flat.tolist()


def test_missing_value_is_null_and_not_nan() -> None:
    found = column(Nullable(values=np.array([1.0, np.nan, 0.0]), missing=np.array([False, False, True])), pa.float64())
    assert found.null_count == 1
    assert [found[0].as_py(), str(found[1]), found[2].as_py()] == [1.0, "nan", None]


def test_writing_and_reading_tables_loads_no_pandas() -> None:
    """It would be loaded by each process that trains a shard, which takes longer than writing it."""
    code = (
        "import sys, tempfile, pathlib\n"
        "from tests.results.read_helpers import MEASUREMENTS, bank\n"
        "before = 'pandas' in sys.modules\n"
        "from fedmem.results import evidence_table, readings, tables\n"
        "folder, own = pathlib.Path(tempfile.mkdtemp()), bank()\n"
        "readings.write_readings(folder, own, MEASUREMENTS)\n"
        "assert len(list(evidence_table.read_evidence(folder / 'evidence.parquet'))) == len(own.evidence)\n"
        "list(tables.read_references(folder / 'references.parquet', own.audit))\n"
        "tables.read_participation(folder / 'participation.parquet')\n"
        "tables.read_measurements(folder / 'measurements.parquet')\n"
        "assert not before\n"
        "print('pandas' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stdout + found.stderr
