"""The search finds the likeliest members in the order of sorting them all, and reads no more than it says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import Params
from fedmem.modalities.text import shortest_path
from fedmem.modalities.text.language_model import Replaying, causal
from fedmem.modalities.text.prefix_tree import scores
from fedmem.modalities.text.shortest_path import search_most_probable
from tests.language import SPACES, Recurrent, Written, brute_force, chances, digits


def in_order(losses: list[float], count: int) -> list[int]:
    return sorted(range(len(losses)), key=lambda i: (losses[i], i))[:count]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("at_once", [1, 4])
def test_the_order_is_that_of_brute_force(name: str, at_once: int) -> None:
    space, model = SPACES[name], Written(chances)
    expected = brute_force(model, space)
    for count in (1, 3, space.size):
        model.calls = 0
        found = search_most_probable(model, space, count, at_once=at_once)
        assert list(found.numbers) == in_order(expected, count)
        np.testing.assert_allclose(found.loss, [expected[i] for i in found.numbers], rtol=1e-9)
        assert found.calls == model.calls
        assert found.finished


def test_best_first_order_equals_the_tree_for_networks() -> None:
    network, space = Recurrent(seed=2), digits(4)
    params: Params = dict(network.named_parameters())
    order = np.argsort(scores(causal(network, params), space).loss)[:20].tolist()
    for model in (causal(network, params), Replaying(network, params)):
        for at_once in (1, 16):
            assert list(search_most_probable(model, space, 20, at_once=at_once).numbers) == order


def test_best_first_reads_only_prefixes_below_the_last_loss() -> None:
    space, model = digits(4), Written(chances)
    found = search_most_probable(model, space, 5)
    every = scores(model, space)
    # distinct prefixes, without the last token, whose own loss is below that of the fifth member
    prefixes: dict[tuple[int, ...], float] = {}
    for i in range(space.size):
        tokens = space.member_tokens(i)
        for end in range(2, len(tokens)):
            text = tokens[:end]
            prefixes.setdefault(text, -sum(math.log(chances(text[:k])[text[k]]) for k in range(1, end)))
    least = sum(loss < found.loss[-1] - 1e-9 for loss in prefixes.values())
    assert found.calls == 1 + least
    assert found.calls < every.calls


def test_memorised_secret_is_found_in_a_very_large_space() -> None:
    secret = (0, 3, 1, 4, 1, 2, 2, 0, 4, 3, 1, 0, 2)

    def knows(text: tuple[int, ...]) -> list[float]:
        if text == secret[: len(text)] and len(text) < len(secret):
            return [0.9 if token == secret[len(text)] else 0.025 for token in range(5)]
        return [0.2] * 5

    space = digits(12)
    found = search_most_probable(Written(knows), space, calls=200)
    assert space.member_tokens(found.numbers[0]) == secret
    assert (found.rank(space.index(secret)), found.rank(7)) == (1, None)
    assert found.calls <= 20


def test_call_limit_keeps_the_best_members_in_order() -> None:
    space, model = digits(4), Written(chances)
    order = in_order(brute_force(model, space), space.size)
    for calls in (1, 10, 40):
        for at_once in (1, 8):
            model.calls = 0
            found = search_most_probable(model, space, space.size, calls=calls, at_once=at_once)
            assert not found.finished
            assert model.calls == found.calls <= calls
            assert list(found.numbers) == order[: len(found.numbers)]


def test_ties_are_by_number_impossible_last_and_nan_never() -> None:
    even = search_most_probable(Written(lambda text: [0.2] * 5), digits(2), 25)
    assert list(even.numbers) == list(range(25))
    half = search_most_probable(Written(lambda text: [0.5, 0.0, 0.5, 0.0, 0.0]), digits(2), 25)
    assert list(half.numbers[:4]) == [0, 2, 10, 12]
    assert set(half.loss[4:]) == {math.inf}
    assert list(half.numbers[4:]) == sorted(half.numbers[4:])
    broken = search_most_probable(
        Written(lambda text: [math.nan] * 5 if text[1:] == (2,) else [0.2] * 5), digits(2), 25
    )
    assert (len(broken.numbers), broken.finished) == (20, True)


@pytest.mark.parametrize("broken", ["sign", "no order", "prefixes last"])
def test_the_oracle_fails_where_the_search_is_broken_on_purpose(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    space, model = digits(3), Written(chances)
    expected = in_order(brute_force(model, space), 10)
    right: Any = vars(shortest_path)["costs"]
    if broken == "sign":
        monkeypatch.setattr(shortest_path, "costs", lambda *given: -right(*given))
    elif broken == "no order":
        monkeypatch.setattr(shortest_path._Entry, "__lt__", lambda a, b: a.order < b.order)
    else:
        monkeypatch.setattr(
            shortest_path._Entry, "__lt__", lambda a, b: (not a.complete, a.loss) < (not b.complete, b.loss)
        )
    assert list(search_most_probable(model, space, 10).numbers) != expected
