"""Tests of `fedmem/observation/flower_round.py`."""

from __future__ import annotations

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord

from fedmem.engines._flower import in_process, local_reply, reply_to
from fedmem.observation.flower_round import TRACE, _Reply


def test_a_reply_is_read_by_its_records() -> None:
    arrays = {"w": np.arange(3.0, dtype=np.float32)}
    with in_process():
        asked = Message(local_reply(arrays, {}, {}), 7, "train")
        full = local_reply(arrays, {"num-examples": 4, "train_loss": 0.5}, {"client": 2, "steps": 6})
        found = _Reply.of(reply_to(asked, full), 2)
        assert (found.client, found.num_examples, found.report) == (2, 4, {"steps": 6.0})
        bare = local_reply(arrays, {}, {})
        del bare[TRACE], bare["metrics"]
        found = _Reply.of(reply_to(asked, bare), 2)
        assert (found.num_examples, found.report) == (0, {})
        assert isinstance(full[TRACE], ConfigRecord)
        assert isinstance(full["metrics"], MetricRecord)
