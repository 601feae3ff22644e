"""Tests of `strategies/_geometry.py`."""

from __future__ import annotations

import torch

from fedmem.strategies import _geometry as geometry
from fedmem.strategies._rule import Round


def made() -> Round:
    """One run of three clients, of whom the last is absent; the second sends an infinity in its second array."""
    return Round(
        number=1,
        before={"w": torch.tensor([[1.0, 1.0]]), "b": torch.tensor([[0.0]])},
        sent={
            "w": torch.tensor([[[4.0, 5.0], [1.0, 1.0], [9.0, 9.0]]]),
            "b": torch.tensor([[[0.0], [torch.inf], [0.0]]]),
        },
        weights=torch.tensor([[2.0, 1.0, 0.0]]),
        present=torch.tensor([[True, True, False]]),
        clients=torch.tensor([[5, 7, -1]]),
    )


def test_client_with_an_infinity_becomes_absent_and_harmless() -> None:
    clean = geometry.drop_non_finite(made())
    assert clean.present.tolist() == [[True, False, False]]
    assert clean.clients.tolist() == [[5, -1, -1]]
    assert clean.sent["b"].isfinite().all()
    assert clean.sent["w"][0, 0].tolist() == [4.0, 5.0]


def test_lengths_and_products_are_over_all_arrays() -> None:
    vectors = {"w": torch.tensor([[[3.0, 0.0], [1.0, 1.0]]]).double(), "b": torch.tensor([[[4.0], [2.0]]]).double()}
    assert geometry.norms(vectors).tolist() == [[5.0, 6.0**0.5]]
    other = {name: torch.ones_like(value) for name, value in vectors.items()}
    assert geometry.products(vectors, other).tolist() == [[7.0, 4.0]]


def test_model_moves_by_the_weighted_sum_of_updates() -> None:
    round_ = geometry.drop_non_finite(made())
    moved = geometry.move_model(round_, geometry.updates(round_), torch.tensor([[0.5, 1.0, 0.0]]).double())
    # by hand: (1, 1) + 0.5 * (3, 4)
    assert moved["w"].tolist() == [[2.5, 3.0]]
    assert moved["w"].dtype == torch.float32


def test_run_without_clients_keeps_the_model_before() -> None:
    round_ = made()
    nobody = Round(**{**vars(round_), "present": torch.zeros_like(round_.present)})
    after = {name: torch.full_like(value, torch.nan) for name, value in round_.before.items()}
    assert geometry.or_before(nobody, after)["w"].tolist() == [[1.0, 1.0]]
    assert geometry.or_before(round_, after)["w"].isnan().all()
