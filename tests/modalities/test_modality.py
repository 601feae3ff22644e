"""One contract for all kinds of data: what each modality answers, and that nobody else asks arrays."""

from __future__ import annotations

import ast
import math
import pkgutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fedmem.modalities
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.modalities.images import Images
from fedmem.modalities.labelled_texts import LabelledTexts
from fedmem.modalities.modality import Modality, of_kind
from fedmem.modalities.pixels import LEVELS, Pixels
from fedmem.modalities.tables import Tables
from fedmem.modalities.texts import Texts

ROOT = Path(__file__).parents[2] / "fedmem"
ROOMS = ("modalities", "datasets", "models")
"""Where shapes and vocabularies may be looked at: there it is known what the data are, or that is decided."""

OTHER_ARRAYS = {
    "apps/plain_logits.py": "logits of the model of an app, against its targets",
    "clients/local_norm.py": "parameters of a network",
    "contracts/validation.py": "what parts return",
    "estimation/coin_adjustment.py": "a type of numbers: tokens have no distance, and estimators see no modality",
    "federation/tied_dropout.py": "outputs of layers",
    "signals/_ablation.py": "parameters of a block",
    "training/blocks.py": "features of layers",
    "training/gauss_newton.py": "labels of rows or of places",
    "training/ghost_clipping.py": "logits of a network, before it is known whether it can be read by layers",
    "training/per_example.py": "what layers are given, and logits",
    "training/solved_head.py": "what the last layer is given",
    "training/stacked.py": "metrics that clients report",
}
"""Files that compare dimensions of arrays that are no data of a data set, and what these are."""

RECORDS = ("data", "dataset", "space", "federation", "target", "examples")
"""Names of records that had the fields `blocks` and `vocabulary`."""


def asks(tree: ast.AST) -> list[int]:
    """Lines where dimensions are compared, or columns or vocabularies are read from anything but a modality."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(map(_dimensions, [node.left, *node.comparators])):
            lines.append(node.lineno)
        if isinstance(node, ast.Attribute) and node.attr in ("blocks", "vocabulary"):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name.lstrip("_") in RECORDS:
                lines.append(node.lineno)
    return lines


def _dimensions(node: ast.AST) -> bool:
    """Whether a side of a comparison is a number of dimensions, or the type of inputs."""
    if isinstance(node, ast.Attribute):
        return node.attr == "ndim" or ast.unparse(node).endswith("inputs.dtype.kind")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "dim"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
        return ast.unparse(node.args[0]).endswith("shape")
    return False


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("if data.vocabulary: pass", 1),
        ("x = space.blocks or ()", 1),
        ("if images.ndim == 4: pass", 1),
        ("if len(target.input_shape) != 1: pass", 1),
        ("if inputs.dim() > 2: pass", 1),
        ("if inputs.dtype.kind == 'i': pass", 1),
        ("lead = [1] * (images.ndim - 2)", 0),
        ("if data.modality.tokens: pass", 0),
        ("x = data.modality.blocks", 0),
        ("x = section.blocks", 0),
    ],
)
def test_questions_to_arrays_are_recognised(source: str, count: int) -> None:
    assert len(asks(ast.parse(source))) == count


def test_only_modalities_data_sets_and_models_ask_what_data_are() -> None:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        lines = asks(ast.parse(path.read_text(encoding="utf-8")))
        if lines and not name.startswith(ROOMS):
            found[name] = lines
    assert {name: lines for name, lines in found.items() if name not in OTHER_ARRAYS} == {}
    assert sorted(found) == sorted(OTHER_ARRAYS), "an entry that is not needed any more"


# --- every modality ------------------------------------------------------------------------------------------------


def _classes() -> list[type[Modality]]:
    """The class of every file of the folder that has one."""
    found = {}
    for module in pkgutil.iter_modules(fedmem.modalities.__path__):
        for value in vars(import_module(f"fedmem.modalities.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Modality) and "kind" in vars(value):
                found[value.kind] = value
    return [found[kind] for kind in sorted(found)]


DESCRIBED: dict[str, Modality] = {"tables": Tables(blocks=(1, 3, 1)), "texts": Texts(vocabulary=tuple("abcdef"))}
DESCRIBED["pixels"] = Pixels(vocabulary=tuple(LEVELS[:6]), shape=(1, 1, 5))
DESCRIBED["labelled_texts"] = LabelledTexts(vocabulary=tuple("abcdef"))
"""Objects of modalities with fields; others are made without any."""

SHAPES = ((1, 8, 8), (2, 30), (5,))
"""Shapes of inputs; a modality is tested with the first one that it takes."""

CLASSES = 6

every_modality = pytest.mark.parametrize("kind", [one.kind for one in _classes()])


def world(kind: str, count: int = 12) -> tuple[Modality, Examples, int]:
    """A modality, examples that are valid there, and the number of classes."""
    modality = DESCRIBED.get(kind) or of_kind(kind)()
    classes = 1 if modality.densities else CLASSES
    shape = next(shape for shape in SHAPES if not modality.problem(shape, classes))
    rng = np.random.default_rng(0)
    if modality.tokens:
        tokens = rng.integers(classes, size=(count, shape[0] + 1))
        return modality, Examples(inputs=tokens[:, :-1], targets=tokens[:, 1:], ids=np.arange(count)), classes
    if modality.token_inputs:
        tokens = rng.integers(classes, size=(count, shape[0]))
        return (
            modality,
            Examples(inputs=tokens, targets=rng.integers(classes, size=count), ids=np.arange(count)),
            classes,
        )
    inputs = rng.random((count, *shape), dtype=np.float32)
    if not modality.any_values:
        assert isinstance(modality, Tables)
        inputs[:, 1:4] = np.eye(3, dtype=np.float32)[rng.integers(3, size=count)]
    return modality, Examples(inputs=inputs, targets=rng.integers(classes, size=count), ids=np.arange(count)), classes


@every_modality
def test_kind_is_the_name_of_the_file(kind: str) -> None:
    assert of_kind(kind).__module__ == f"fedmem.modalities.{kind}"
    with pytest.raises(LookupError, match="there is no modality"):
        of_kind(f"{kind}_of_nobody")


@every_modality
def test_valid_inputs_have_no_problem_and_others_are_named(kind: str) -> None:
    modality, rows, classes = world(kind)
    assert modality.problem(rows.inputs.shape[1:], classes) == ""
    assert "(2, 3, 4, 5, 6)" in modality.problem((2, 3, 4, 5, 6), classes) or isinstance(modality, Images)
    assert modality.problem((), classes)


@every_modality
def test_grid_and_numeric_values_have_the_shape_of_an_input(kind: str) -> None:
    modality, rows, _ = world(kind)
    shape = rows.inputs.shape[1:]
    grid = modality.grid(shape)
    assert grid == shape[len(shape) - len(grid) :]
    assert modality.numeric(shape).shape == shape
    assert modality.numeric(shape).any() != modality.token_inputs


@every_modality
def test_the_truth_has_no_error_and_beats_every_guess(kind: str) -> None:
    modality, rows, _ = world(kind)
    population, few = rows.take(np.arange(6, 12)), rows.take(np.arange(3))
    truth = modality.comparison_rows(few.inputs, few.targets)
    errors = modality.errors(truth, truth)
    assert errors.shape == (3, 3)
    assert errors.diagonal().tolist() == [0, 0, 0]
    assert (errors[~np.eye(3, dtype=bool)] > 0).all()
    assert modality.nearest_error(truth[:1], truth[1:]) == errors[0, 1:].min()
    assert math.isnan(modality.nearest_error(truth, truth[:0]))
    found = Reconstruction(inputs=few.inputs, labels=few.targets, distance=0.0)
    families = [References(family="f", inputs=population.inputs, targets=population.targets)]
    rng = np.random.default_rng(0)
    guesses = modality.guesses(found, few.inputs.shape[1:], families, population, rng)
    assert all(batch.shape[1:] == truth.shape[1:] and len(batch) for batch in guesses)
    best = np.min([modality.errors(batch, truth).min(axis=0) for batch in guesses], axis=0)
    assert (best > 0).all()


@every_modality
def test_readings_begin_with_the_gain_and_hold_the_similarity(kind: str) -> None:
    modality, rows, _ = world(kind)
    truth = modality.comparison_rows(rows.inputs[:3], rows.targets[:3])
    other = modality.comparison_rows(rows.inputs[3:6], rows.targets[3:6])
    exact, guessed = np.zeros(3), modality.errors(other, truth).diagonal()
    readings = modality.readings(truth, other, truth, exact, guessed, rows.take(np.arange(6, 12)))
    for one in readings:
        gain = next(iter(one.values()))
        assert gain > 0
        assert one["beats_prior"] == 1
        assert all(map(math.isfinite, one.values()))
    parts = {"original": truth, "reconstruction": truth, "prior": other}
    stored = modality.report_arrays(parts, readings)
    assert (stored[modality.similarity] > stored[f"prior_{modality.similarity}"]).all()
    names = {f"{part}_text" for part in parts} if modality.written else set(parts)
    assert names <= set(stored)
    assert not any(value.dtype.hasobject for value in stored.values()), "objects need pickle"


@every_modality
def test_same_rows_are_those_with_equal_inputs(kind: str) -> None:
    modality, rows, _ = world(kind)
    assert modality.are_equal(rows, rows).all()
    assert not modality.are_equal(rows, rows.take(np.roll(np.arange(len(rows)), 1))).any()
    assert modality.are_equal(rows.take(np.arange(0)), rows.take(np.arange(0))).shape == (0,)


@every_modality
def test_labels_are_scored_as_multisets(kind: str) -> None:
    modality, rows, classes = world(kind)
    accuracy, guess = modality.label_scores(rows.targets[::-1], rows.targets, classes, rows)
    assert accuracy == 1
    assert 0 <= guess <= 1


@every_modality
def test_examples_that_are_not_written_can_be_drawn(kind: str) -> None:
    from matplotlib.figure import Figure

    modality, rows, _ = world(kind)
    if not modality.written:
        axes = Figure().subplots()
        of_kind(kind).draw(axes, rows.inputs[0])
        assert axes.has_data()


def test_a_text_is_the_same_where_tokens_are_asked_for() -> None:
    modality, rows, _ = world("texts")
    moved = rows.targets.copy()
    moved[:, 2] = (moved[:, 2] + 1) % 6
    asked = rows.targets.copy()
    asked[:, 2] = -1
    other = Examples(inputs=rows.inputs, targets=moved, ids=rows.ids)
    assert not modality.are_equal(other, rows).any()
    assert modality.are_equal(other, Examples(inputs=rows.inputs, targets=asked, ids=rows.ids)).all()


def test_frequencies_count_every_token_once() -> None:
    modality, rows, classes = world("texts")
    whole = np.concatenate([rows.inputs[:, :1], rows.targets], axis=1)
    expected = [(whole == token).mean() for token in range(classes)]
    np.testing.assert_allclose(modality.frequencies(rows), expected)
    assert len(Images().frequencies(world("images")[1])) == 0
