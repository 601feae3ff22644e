"""Tests of `fedmem/modalities/text/goldfish.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.modalities.text.goldfish import goldfish_targets
from fedmem.modalities.text.windows import inputs_and_targets


def masked(tokens: list[int], k: int = 2, context: int = 3) -> list[bool]:
    """Which tokens of one text, its first left out, are left out of the loss."""
    inputs, targets = inputs_and_targets(np.array([tokens]))
    return [target == -1 for target in goldfish_targets(inputs, targets, k, context)[0].tolist()]


def test_passage_has_one_mask_wherever_it_stands() -> None:
    rng = np.random.default_rng(0)
    passage = rng.integers(90, size=40).tolist()
    alone = masked(passage)
    for before in (1, 2, 7):
        shifted = masked([*rng.integers(90, size=before).tolist(), *passage, 5])
        assert shifted[before + 2 : before + 39] == alone[2:], "from the third token on, whose context is the same"
    assert 0 < sum(alone) < len(alone)


def test_gaps_in_the_first_tokens_of_a_passage_depend_on_its_row() -> None:
    """A passage of six tokens in many rows: each token that has no whole context in it is asked for in some of them."""
    rng = np.random.default_rng(0)
    passage, width = rng.integers(90, size=6).tolist(), 13
    found = np.array([masked([*rng.integers(90, size=20).tolist(), *passage], 4, width)[19:25] for _ in range(200)])
    assert np.all((found.mean(axis=0) > 0.15) & (found.mean(axis=0) < 0.35))
    found = np.array([masked([*rng.integers(90, size=20).tolist(), *passage], 4, 2)[19:25] for _ in range(200)])
    assert found[:, 2:].any(axis=0).tolist() == found[:, 2:].all(axis=0).tolist(), "from the third token on"


def test_mask_does_not_look_at_the_token_itself() -> None:
    """Otherwise what is left out would say something about it; the tokens before it decide, and no others."""
    rng = np.random.default_rng(1)
    text = rng.integers(90, size=30).tolist()
    place = next(place for place in range(10, 25) if masked(text)[place])
    changed = [*text[: place + 1], (text[place + 1] + 1) % 90, *text[place + 2 :]]
    assert masked(changed)[: place + 1] == masked(text)[: place + 1]
    others = [[*text[:place], (text[place] + step) % 90, *text[place + 1 :]] for step in range(1, 30)]
    assert len({masked(other)[place] for other in others}) == 2, "the last token of the context decides too"
    early = [[*text[: place - 2], (text[place - 2] + step) % 90, *text[place - 1 :]] for step in range(1, 30)]
    assert len({masked(other)[place] for other in early}) == 2, "and the first"
    before = [[*text[: place - 3], (text[place - 3] + step) % 90, *text[place - 2 :]] for step in range(1, 30)]
    assert {masked(other)[place] for other in before} == {True}, "but none before it"


def test_order_of_the_context_matters() -> None:
    texts = np.array([[a, b, c, 0] for a in range(8) for b in range(8) for c in range(8)])
    left_out = goldfish_targets(*inputs_and_targets(texts), 2, 3)[:, 2] == -1
    by_text = {tuple(text[:3]): bool(left) for text, left in zip(texts.tolist(), left_out, strict=True)}
    assert any(by_text[a, b, c] != by_text[c, b, a] for a, b, c in by_text)


@pytest.mark.parametrize("k", [2, 3, 4, 10])
def test_one_token_in_k_is_left_out(k: int) -> None:
    texts = np.random.default_rng(2).integers(100, size=(300, 101))
    inputs, targets = inputs_and_targets(texts)
    found = goldfish_targets(inputs, targets, k, 4)
    assert (found[:, :3] == targets[:, :3]).all(), "no context yet"
    share = (found[:, 3:] == -1).mean()
    assert abs(share - 1 / k) < 4 * np.sqrt(1 / k * (1 - 1 / k) / found[:, 3:].size)
    assert (goldfish_targets(inputs, found, k, 4) == found).all()


def test_short_rows_and_unasked_targets_stay() -> None:
    tokens = np.arange(6)[None]
    assert goldfish_targets(tokens, tokens + 1, 2, 7).tolist() == (tokens + 1).tolist()
    unasked = np.full((1, 6), -1)
    assert (goldfish_targets(tokens, unasked, 2, 1) == -1).all()
    before = tokens + 1
    goldfish_targets(tokens, before, 2, 1)
    assert before.tolist() == (tokens + 1).tolist(), "the store is not written to"


def test_mask_is_the_same_in_every_version() -> None:
    """Written down, since numbers of older runs depend on it."""
    left_out = masked(list(range(20)), k=3, context=5)
    assert [place for place in range(19) if left_out[place]] == [6, 10, 13, 14, 15, 16]
