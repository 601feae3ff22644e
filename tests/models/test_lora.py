"""Tests of `fedmem/models/_lora.py`."""

import pytest
from pydantic import ValidationError

from fedmem.models._lora import Lora


def test_fields_of_adapters_are_checked() -> None:
    assert Lora(r=4) == Lora(r=4, alpha=16.0, targets=(), dropout=0)
    for wrong in ({"r": 0}, {"alpha": 0.0}, {"dropout": 0.1}, {"rank": 2}):
        with pytest.raises(ValidationError):
            Lora.model_validate(wrong)
