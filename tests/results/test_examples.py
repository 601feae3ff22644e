"""Names, labels of the data set, texts and inputs beside the tables of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.audit_set import SourceRows
from fedmem.contracts.data import Examples
from fedmem.errors import RunError
from fedmem.modalities.images import Images
from fedmem.modalities.tables import Tables
from fedmem.modalities.texts import Texts
from fedmem.results.examples import ExampleNames, read_names, text_of, with_names, write_names
from fedmem.results.read import read
from tests.results.read_helpers import FEDERATION, bank, write


def federation(**changes: Any) -> Any:
    return SimpleNamespace(**{**vars(FEDERATION), **changes})


def test_frames_name_clients_and_nobody(tmp_path: Path) -> None:
    write(tmp_path / "run")
    run = read(tmp_path / "run")
    names = {-1: "", 0: "Nord", 1: "Süd", 2: "7"}
    for frame in (run.participation, run.evidence, run.measurements):
        assert [names[client] for client in frame.client] == frame.client_name.tolist()
        columns = list(frame.columns)
        assert columns.index("client_name") == columns.index("client") + 1
    assert [names[owner] for owner in run.audit.owner] == run.audit.owner_name.tolist()
    assert -1 in run.audit.owner.tolist()
    assert -1 in run.evidence.client.tolist()


def test_audit_has_the_inputs_in_the_shape_of_the_data(tmp_path: Path) -> None:
    stored = bank()
    write(tmp_path / "run", stored)
    run = read(tmp_path / "run")
    np.testing.assert_array_equal(np.stack(run.audit.inputs.tolist()), stored.audit.examples.inputs)
    np.testing.assert_array_equal(run.inputs, stored.audit.examples.inputs)


def test_labels_of_the_data_set_and_cells_are_read_again(tmp_path: Path) -> None:
    stored = bank()
    sources = SourceRows(
        target=np.array([2, 1, 0, -1, -1, 1]),
        is_altered=np.array([False, False, False, True, True, True]),
        cells={"job": np.array(["clerk", "<b>", "nurse", "", "", "cook"])},
    )
    classes = ("cat", "dog", "bird")
    write(tmp_path / "run", stored, federation=federation(sources=sources, class_names=classes))
    run = read(tmp_path / "run")
    assert run.audit.true_target_name.tolist() == ["bird", "dog", "cat", "", "", "dog"]
    assert run.audit.target_name.tolist() == [classes[label] for label in stored.audit.examples.targets]
    assert run.audit.text.tolist() == ["job=clerk", "job=<b>", "job=nurse", "", "", ""]
    assert run.cells.job.tolist() == ["clerk", "<b>", "nurse", "", "", "cook"]


def test_a_run_without_the_file_has_no_names(tmp_path: Path) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "examples.json").unlink()
    run = read(tmp_path / "run")
    assert set(run.participation.client_name) == {""}
    assert set(run.audit.true_target) == {-1}
    assert (run.client_names, run.class_names, list(run.cells)) == ((), (), [])


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_file_of_names_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / "examples.json").write_text(content)
    with pytest.raises(RunError, match=r"examples\.json is damaged"):
        _ = read(tmp_path / "run").client_names


@pytest.mark.parametrize("modality", [Images(), Tables(blocks=(1, 2)), Texts(vocabulary=("a", "b", " "))])
def test_a_modality_is_the_same_after_storage(tmp_path: Path, modality: Any) -> None:
    write_names(tmp_path, federation(modality=modality))
    assert read_names(tmp_path / "examples.json").modality == modality


def test_a_modality_with_fields_beyond_json_is_unknown(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Strange(Images):
        kind = "strange"
        lock: object = object()

    write_names(tmp_path, federation(modality=Strange()))
    assert json.loads((tmp_path / "examples.json").read_text())["modality"] is None
    assert read_names(tmp_path / "examples.json").modality is None


def test_a_text_is_decoded_with_its_secret_marked() -> None:
    words = Texts(vocabulary=("<unk>", "the", "pin", "is", "4", "7"))
    rows = Examples(
        inputs=np.array([[1, 2, 3, 4]]), targets=np.array([[-1, -1, 4, 5]]), ids=np.array([-1])
    )  # fmt: skip
    assert text_of(0, rows, ExampleNames(modality=words)) == "the pin is [[4 7]]"
    assert text_of(0, rows, ExampleNames(modality=replace(words, vocabulary=()))) == "1 2 3 [[4 5]]"


def test_two_clients_of_one_name_share_a_category() -> None:
    import pandas as pd

    frame = with_names(pd.DataFrame({"client": [0, 1, -1, 2, 9]}), ("", "b", "b"))
    assert frame.client_name.tolist() == ["", "b", "", "b", ""]
