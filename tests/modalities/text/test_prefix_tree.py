"""Losses of all candidates from the tree of their prefixes, against reading each of them from its beginning."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.modalities.text import prefix_tree
from fedmem.modalities.text.language_model import causal
from fedmem.modalities.text.prefix_tree import scores
from fedmem.modalities.text.secret_space import Candidates
from tests.language import SPACES, VOCABULARY, Recurrent, Written, brute_force, chances, digits


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("branches", [1, 3, 4096])
def test_every_member_has_the_loss_of_reading_it(name: str, branches: int) -> None:
    space = SPACES[name]
    for model in (Written(chances), causal(Recurrent(), dict(Recurrent().named_parameters()))):
        np.testing.assert_allclose(scores(model, space, branches).loss, brute_force(model, space), rtol=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_each_prefix_is_read_once(name: str) -> None:
    space = SPACES[name]
    model = Written(chances)
    found = scores(model, space)
    assert found.calls == model.calls
    # what something secret still follows
    prefixes = set()
    for i in range(space.size):
        tokens, asked = space.member_tokens(i), space.secret(i)
        last = max((place for place, own in enumerate(asked) if own), default=0)
        prefixes |= {tokens[:place] for place in range(1, last + 1)}
    if name != "words":  # there options run into each other, and what follows is read once for each
        assert found.calls == len(prefixes)


def test_digits_take_as_many_calls_as_there_are_prefixes() -> None:
    model = Written(lambda text: [0.1] * 10)
    found = scores(model, digits(4, 10))
    assert found.calls == model.calls == 1 + 10 + 100 + 1000
    assert (found.count_smaller(77), found.ties(77)) == (0, 9999)
    assert found.loss[0] == pytest.approx(4 * np.log(10))


def test_ranks_are_those_of_the_sorted_losses() -> None:
    space = digits(4)
    found = scores(Written(chances), space)
    order = np.argsort(found.loss)
    assert len(set(found.loss.tolist())) == space.size
    assert [found.count_smaller(int(i)) for i in order[:50]] == list(range(50))
    # ends of the scale: the likeliest member has all bits, the least likely none
    assert np.log2(space.size) - np.log2(1 + found.count_smaller(int(order[0]))) == np.log2(space.size)
    assert found.count_smaller(int(order[-1])) == space.size - 1


def test_a_planted_secret_of_known_rank() -> None:
    """Every digit has odds of its own wherever it stands, so that the losses of members are known."""
    odds = [0.5, 0.3, 0.1, 0.06, 0.04]
    space = digits(3)
    found = scores(Written(lambda text: odds), space)
    products = np.array([np.prod([odds[token] for token in space.member_tokens(i)[1:]]) for i in range(space.size)])
    planted = space.index((0, 1, 0, 1))  # .3 x .5 x .3, which two others have too
    smaller = int(np.count_nonzero(products > products[planted] * (1 + 1e-9)))
    alike = int(np.count_nonzero(np.isclose(products, products[planted], rtol=1e-9)))
    assert (smaller, alike) == (4, 3)
    np.testing.assert_allclose(found.loss, -np.log(products), rtol=1e-12)
    # sums in another order may differ in their last bit, so that of these three each may be the first
    assert smaller <= found.count_smaller(planted) <= smaller + alike - 1


def test_uniform_model_ties_all_members_and_nan_model_ranks_none() -> None:
    space = digits(3)
    even = scores(Written(lambda text: [1 / VOCABULARY] * VOCABULARY), space)
    assert even.ties(7) == space.size - 1
    broken = scores(Written(lambda text: [np.nan] * VOCABULARY), space)
    assert (broken.count_smaller(7), broken.ties(7)) == (-1, 0)
    half = scores(Written(lambda text: [np.nan] * VOCABULARY if text[1:] == (2,) else chances(text)), space)
    assert np.isnan(half.loss).sum() == 25
    assert half.count_smaller(space.index((0, 2, 0, 0))) == -1
    assert half.count_smaller(space.index((0, 1, 0, 0))) >= 0


def test_impossible_members_are_the_last() -> None:
    """A probability of zero is a loss without end, and ties with others like it."""
    found = scores(Written(lambda text: [0.5, 0.5, 0.0, 0.0, 0.0]), digits(2))
    assert found.count_smaller(24) == 4
    assert found.ties(24) == 20


def test_the_sign_and_the_secret_tokens_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle fails where the scores are wrong on purpose."""
    space = SPACES["fixed text"]
    model = Written(chances)
    expected = brute_force(model, space)
    right = prefix_tree.costs
    monkeypatch.setattr(prefix_tree, "costs", lambda *given: -right(*given))
    assert not np.allclose(scores(model, space).loss, expected)
    monkeypatch.setattr(prefix_tree, "costs", lambda logits, rows, tokens: right(logits, rows * 0, tokens))
    assert not np.allclose(scores(model, space).loss, expected)
    monkeypatch.setattr(prefix_tree, "costs", right)
    whole = Candidates(prefix=space.prefix, positions=tuple((*options, (4, 4, 4)) for options in space.positions))
    assert not np.allclose(scores(model, whole).loss[: len(expected)], expected)


def test_chunks_change_nothing_but_memory() -> None:
    model = causal(Recurrent(), dict(Recurrent().named_parameters()))
    every = [scores(model, digits(4), branches) for branches in (7, 64, 4096)]
    for found in every[1:]:
        np.testing.assert_allclose(found.loss, every[0].loss, rtol=1e-5)
        assert found.calls == every[0].calls
