"""Tests of `fedmem/datasets/speakers.py`."""

import numpy as np
import pytest

from fedmem.datasets.speakers import Speakers
from fedmem.modalities.labelled_texts import LabelledTexts
from tests.narrowing import instance


@pytest.mark.parametrize(("target", "classes"), [("role", 4), ("play", 4)])
def test_a_passage_has_the_class_of_its_role_or_play(target: str, classes: int) -> None:
    data = Speakers(roles=4, passages=6, passage_words=5, tokens="words", target=target).load(  # type: ignore[arg-type]
        np.random.default_rng(0)
    )
    assert data.num_classes <= classes
    assert len(data.train) + len(data.test) == 24
    assert data.natural is not None
    for row in range(len(data.train)):
        client = data.client_names[data.natural[row]]
        label = data.class_names[data.train.targets[row]]
        assert label == (client if target == "role" else client.partition(",")[0])
    instance(data.modality, LabelledTexts)
