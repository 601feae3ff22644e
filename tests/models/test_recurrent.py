"""Tests of `fedmem/models/_recurrent.py`."""

from __future__ import annotations

import numpy as np

from tests.models.char_rnn_helpers import network, texts


def test_a_gru_is_that_of_its_paper() -> None:
    module, rows = network(), texts(1)
    params = {name: value.detach().numpy() for name, value in module.named_parameters()}
    h, expected = np.zeros(6), []
    for token in rows[0].tolist():
        x = params["embedding.weight"][token]
        inner = params["recurrent.weight_ih_l0"] @ x + params["recurrent.bias_ih_l0"]
        outer = params["recurrent.weight_hh_l0"] @ h + params["recurrent.bias_hh_l0"]
        r, z = (1 / (1 + np.exp(-(inner + outer)[part : part + 6])) for part in (0, 6))
        n = np.tanh(inner[12:] + r * outer[12:])
        h = (1 - z) * n + z * h
        expected.append(params["output.weight"] @ h + params["output.bias"])
    np.testing.assert_allclose(module(rows)[0].detach().numpy(), expected, atol=1e-12)
