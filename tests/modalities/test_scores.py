"""What counts as a right answer: one rule for evidence, probes and the metrics of clients."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from fedmem.modalities.scores import answers, is_right, losses, losses_of_stored, margins

ROOT = Path(__file__).parents[2]
NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ([2.0, 1.0, 0.0], 0, True),
        ([2.0, 1.0, 0.0], 1, False),
        ([2.0, 2.0, 0.0], 0, False),
        ([2.0, 2.0, 0.0], 1, False),
        ([NAN, 1.0, 0.0], 1, False),
        ([NAN, 1.0, 0.0], 0, False),
        ([1.0, NAN, 0.0], 0, False),
        ([INF, 1.0, INF], 0, False),
        ([INF, 1.0, 0.0], 0, True),
        ([0.0, -0.0, -1.0], 0, False),
        ([2.0, 1.0, 0.0], -1, False),
    ],
)
def test_right_is_strictly_above_all_others(logits: list[float], target: int, expected: bool) -> None:
    assert is_right(np.array([logits]), np.array([target])).tolist() == [expected]
    if target >= 0:
        assert answers(np.array([logits]), np.array([target]))[1].tolist() == [expected]


def test_several_targets_give_shares_of_those_asked() -> None:
    logits = np.array([[[3.0, 0.0], [0.0, 3.0], [1.0, 1.0]], [[3.0, 0.0], [0.0, 3.0], [9.0, 0.0]]])
    targets = np.array([[0, 1, 0], [1, 1, -1]])
    margin, correct = answers(logits, targets)
    assert correct.tolist() == [2 / 3, 1 / 2]
    assert is_right(logits, targets).tolist() == [[True, True, False], [False, True, False]]
    each = losses(np.take_along_axis(margins(logits), targets.clip(min=0)[..., None], axis=-1)[..., 0])
    np.testing.assert_allclose(losses(margin), [each[0].mean(), each[1, :2].mean()], rtol=1e-12)


def test_right_broadcasts_targets_over_models() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5, 4))
    targets = np.arange(5) % 4
    np.testing.assert_array_equal(is_right(logits, targets), np.stack([is_right(one, targets) for one in logits]))


def test_no_other_file_decides_which_class_wins() -> None:
    """An `argmax` compared with targets is a second rule, which treats ties and NaN differently."""
    found = []
    for path in sorted((ROOT / "fedmem").rglob("*.py")):
        if path.name == "scores.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and "argmax" in ast.dump(node.left) and "target" in ast.dump(node).lower():
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_log_densities_are_margins_and_answer_nothing() -> None:
    outputs, targets = np.array([[[-20.0], [3.0], [np.nan]]]), np.zeros(3, np.int64)
    margin, correct = answers(outputs, targets)
    np.testing.assert_array_equal(margin, [[-20, 3, np.nan]])
    assert np.isnan(correct).all()
    assert correct.dtype == np.float64
    np.testing.assert_array_equal(losses_of_stored(margin, densities=True), -margin)
    np.testing.assert_array_equal(margins(outputs)[..., 0], margin)
    assert not is_right(outputs, targets).any()
