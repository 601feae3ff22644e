"""What a model writes, and how often, against all that it could write."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.modalities.text import generation
from fedmem.modalities.text.generation import Sampling, beam, draws_needed, edit_distance, log_probabilities
from fedmem.modalities.text.language_model import CausalModel, causal, read_prefix
from tests.language import VOCABULARY, Recurrent, Written, chances

PREFIX = (0, 3)
LENGTH = 3


def log_probability(model: CausalModel, rest: Sequence[int], sampling: Sampling) -> float:
    return float(log_probabilities(model, PREFIX, np.array([rest], dtype=np.int64), sampling)[0])


def every_text() -> list[tuple[float, tuple[int, ...]]]:
    """-log p of each continuation, likeliest first."""
    found = []
    for rest in itertools.product(range(VOCABULARY), repeat=LENGTH):
        loss = -sum(math.log(chances(PREFIX + rest[:k])[rest[k]]) for k in range(LENGTH))
        found.append((loss, rest))
    return sorted(found)


def test_a_beam_of_all_is_every_text_in_order() -> None:
    found = beam(Written(chances), PREFIX, LENGTH, width=VOCABULARY**LENGTH)
    expected = every_text()
    assert [tuple(row) for row in found.tokens.tolist()] == [rest for _, rest in expected]
    np.testing.assert_allclose(found.loss, [loss for loss, _ in expected], rtol=1e-9)


def test_greedy_takes_the_token_of_highest_probability() -> None:
    text = list(PREFIX)
    for _ in range(LENGTH):
        text.append(int(np.argmax(chances(tuple(text)))))
    model = Written(chances)
    found = beam(model, PREFIX, LENGTH)
    assert found.tokens.tolist() == [text[2:]]
    assert found.calls == model.calls == 2 + LENGTH - 1


@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_a_beam_keeps_the_best_of_what_it_kept(width: int) -> None:
    kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(LENGTH):
        longer = [
            (loss - math.log(p), (*rest, token))
            for loss, rest in kept
            for token, p in enumerate(chances(PREFIX + rest))
        ]
        kept = sorted(longer)[:width]
    found = beam(Written(chances), PREFIX, LENGTH, width)
    assert [tuple(row) for row in found.tokens.tolist()] == [rest for _, rest in kept]


def test_a_network_writes_what_its_own_probabilities_say() -> None:
    network = Recurrent(seed=4)
    model = causal(network, dict(network.named_parameters()))
    found = beam(model, PREFIX, 4, width=3)
    for row, loss in zip(found.tokens.tolist(), found.loss.tolist(), strict=True):
        assert log_probability(model, row, Sampling()) == pytest.approx(-loss, rel=1e-5)


def test_equal_tokens_are_taken_by_number_and_unknown_ones_last() -> None:
    even = beam(Written(lambda text: [0.2] * 5), PREFIX, 2, width=3)
    assert even.tokens.tolist() == [[0, 0], [0, 1], [0, 2]]
    broken = beam(Written(lambda text: [math.nan, 0.5, 0.5, 0.0, 0.0]), PREFIX, 1, width=2)
    assert broken.tokens.tolist() == [[0], [1]]
    assert np.isinf(broken.loss).all()


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_k=2), Sampling(temperature=0.5), Sampling(top_k=3, temperature=2.0)]
)
def test_probability_of_a_text_is_its_sampling_frequency(sampling: Sampling) -> None:
    """All continuations together have probability 1, and draws come as often as their chances say."""
    model = Written(chances)
    every = list(itertools.product(range(VOCABULARY), repeat=2))
    p = np.exp(log_probabilities(model, PREFIX, np.array(every), sampling))
    np.testing.assert_allclose(p, np.exp([log_probability(model, rest, sampling) for rest in every]))
    assert p.sum() == pytest.approx(1.0)
    rng, counts = np.random.default_rng(0), dict.fromkeys(every, 0)
    draws = 1500
    for _ in range(draws):
        text: tuple[int, ...] = PREFIX
        for _ in range(2):
            odds = np.array(chances(text)) ** (1 / sampling.temperature)
            least = np.sort(odds)[::-1][(sampling.top_k or len(odds)) - 1]
            odds[odds < least] = 0
            text = (*text, int(rng.choice(len(odds), p=odds / odds.sum())))
        counts[text[2:]] += 1
    seen = np.array(list(counts.values())) / draws
    assert np.abs(seen - p).max() < 5 * np.sqrt(0.25 / draws)


def test_tokens_outside_top_k_have_probability_zero() -> None:
    model = Written(lambda text: [0.4, 0.4, 0.1, 0.1, 0.0])
    assert log_probability(model, (2,), Sampling(top_k=2)) == -math.inf
    assert log_probability(model, (1,), Sampling(top_k=2)) == pytest.approx(math.log(0.5))
    # of two that are equally likely the lower number is among the likeliest
    assert log_probability(model, (2,), Sampling(top_k=3)) == pytest.approx(math.log(1 / 9))
    assert log_probability(model, (3,), Sampling(top_k=3)) == -math.inf
    assert math.isnan(log_probability(Written(lambda text: [math.nan] * 5), (2,), Sampling(top_k=2)))
    assert math.isnan(log_probability(Written(lambda text: [math.nan] * 5), (2,), Sampling()))


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-6, 0.999), st.floats(0.01, 0.99))
def test_the_draws_needed_are_the_fewest(chance: float, likely: float) -> None:
    n = draws_needed(math.log(chance), likely)
    assert n == int(n)
    slack = 1e-9
    assert 1 - (1 - chance) ** n >= likely - slack
    if n > 1:
        assert 1 - (1 - chance) ** (n - 1) < likely + slack


def test_draws_needed_at_the_ends() -> None:
    assert [draws_needed(math.log(0.1), p) for p in (0.1, 0.19, 0.9)] == [1, 2, 22]
    assert draws_needed(-math.inf, 0.5) == math.inf
    assert draws_needed(-2000.0, 0.5) == math.inf
    assert draws_needed(0.0, 0.99) == 1
    assert math.isnan(draws_needed(math.nan, 0.5))
    # for tiny chances n is -log(1 - p) / p_z
    assert draws_needed(-100.0, 0.5) == pytest.approx(math.log(2) * math.exp(100.0), rel=1e-12)


texts = st.lists(st.integers(0, 3), max_size=6)


@given(texts, texts, texts)
def test_edit_distance_is_a_distance(a: list[int], b: list[int], c: list[int]) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


def recursive(a: list[int], b: list[int]) -> int:
    """By its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(recursive(a[1:], b) + 1, recursive(a, b[1:]) + 1, recursive(a[1:], b[1:]) + (a[0] != b[0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_edit_distance_is_the_fewest_changes(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == recursive(a, b)


def test_the_oracles_fail_where_the_code_is_broken_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    right: Any = read_prefix

    def upside_down(*given: Any) -> Any:
        logits, state = right(*given)
        return -logits, state

    expected = every_text()[0][1]
    assert tuple(beam(Written(chances), PREFIX, LENGTH, width=125).tokens[0].tolist()) == expected
    chance = log_probability(Written(chances), expected, Sampling())
    monkeypatch.setattr(generation, "read_prefix", upside_down)
    assert tuple(beam(Written(chances), PREFIX, LENGTH, width=125).tokens[0].tolist()) != expected
    assert log_probability(Written(chances), expected, Sampling()) != pytest.approx(chance)
