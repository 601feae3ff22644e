"""Streams that are moved from place to place."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch

from fedmem.seeding import (
    Streams,
    generator_states,
    move_generator,
    moved_generator,
    restore_generators,
    seeded_generators,
    stream,
)


def draws(
    seed: int = 0, purpose: str = "batches", *, run: int = 1, round_number: int = 2, client: int = 3
) -> list[float]:
    (rng,) = Streams(seed, purpose).generators(run=[run], round_number=round_number, client=[client])
    return [float(value) for value in rng.random(4)]


def test_every_argument_gives_another_stream() -> None:
    others = [
        draws(seed=1),
        draws(purpose="other"),
        draws(run=2),
        draws(round_number=3),
        draws(client=4),
        draws(run=2, round_number=1),
        draws(round_number=3, client=2),
    ]
    assert len({tuple(found) for found in [draws(), *others]}) == 1 + len(others)


def test_draws_do_not_depend_on_earlier_draws() -> None:
    streams = Streams(0, "batches")
    found: list[float] = []
    for rng in streams.generators(run=[0, 1], round_number=2, client=[9, 3]):
        rng.integers(7, size=3, dtype=np.uint32)  # leaves half a word in the buffer
        found = [float(value) for value in rng.random(4)] if len(found) else [0.0]
    for rng in streams.generators(run=[1], round_number=2, client=[3]):
        assert [float(value) for value in rng.random(4)] == draws()


def test_draws_are_those_of_numpys_own_generator() -> None:
    key = np.random.SeedSequence((0, *_words("batches"))).generate_state(2, np.uint64)
    plain = np.random.Generator(np.random.Philox(key=key, counter=[0, 3, 2, 1]))
    assert [float(value) for value in plain.random(4)] == draws()


def _words(purpose: str) -> tuple[int, ...]:
    import hashlib

    digest = hashlib.sha256(purpose.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def test_neighbouring_streams_are_uncorrelated() -> None:
    """Means of neighbouring clients do not move together."""
    first, second = (
        np.array(
            [
                [
                    rng.random()
                    for rng in Streams(0, "batches").generators(run=[0] * 400, round_number=r, client=range(400))
                ]
            ]
        )
        for r in (1, 2)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert abs(np.corrcoef(first[0, :-1], first[0, 1:])[0, 1]) < 0.15


def test_no_place_is_another_than_the_first() -> None:
    """What is drawn for all runs is drawn by nobody else: not in run 0, nor by the aggregate, which is client -1."""
    places: list[dict[str, int]] = [
        {},
        *({name: index} for name in ("run", "round_number", "client") for index in (-1, 0, 1)),
    ]
    assert len({float(stream(0, "coins", **place).random()) for place in places}) == len(places)


def test_own_generator_draws_what_is_drawn_at_its_place() -> None:
    streams, places = Streams(3, "batches"), [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]
    own = [
        streams.new_generator(run=run, round_number=round_number, client=client) for run, round_number, client in places
    ]
    drawn = [rng.random(3).tolist() for rng in own]
    assert len({tuple(values) for values in drawn}) == len(places)
    for (run, round_number, client), values in zip(places, drawn, strict=True):
        (rng,) = streams.generators(run=[run], round_number=round_number, client=[client])
        assert rng.random(3).tolist() == values


def test_seeded_generators_give_equal_draws_and_are_undone() -> None:
    def draws(seed: int) -> list[float]:
        with seeded_generators(seed):
            return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002

    before = generator_states()
    assert draws(1) == draws(1)
    assert all(one != other for one, other in zip(draws(1), draws(2), strict=True))
    assert moved_generator(before) is None


def test_each_global_generator_is_seen_to_move() -> None:
    before = generator_states()
    draws: dict[str, Callable[[], object]] = {
        "random": random.random,
        "numpy.random": np.random.random,
        "torch": lambda: torch.rand(()),
    }
    for name, draw in draws.items():
        draw()
        assert moved_generator(before) == name
        restore_generators(before)


def test_other_objects_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    move_generator("text", rng)
    assert rng.random() == np.random.default_rng(0).random()
