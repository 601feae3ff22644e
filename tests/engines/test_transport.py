"""Tests of `fedmem/engines/_transport.py`."""

from __future__ import annotations

import pytest
from flwr.app import MessageType, RecordDict

from fedmem.engines import _transport
from fedmem.engines._messages import WORK, Assignment
from fedmem.errors import RunError
from fedmem.observation.flower_round import TRACE
from tests.engines.flower_helpers import Loopback, met

# processes and sockets that Ray leaves to the collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def letter(client: int, round_number: int, seconds: float = 1.0) -> tuple[int, RecordDict, str]:
    work = Assignment(scenario="", round=round_number, seconds=seconds)
    return client, RecordDict({WORK: work.record()}), MessageType.TRAIN


@pytest.mark.usefixtures("here")
def test_clients_get_one_message_at_a_time_by_partition() -> None:
    grid = Loopback({77: 2, 11: 0, 500: 9, 42: 1}, delay=2)
    post = met(grid)
    letters = [letter(client, round_number) for round_number in range(3) for client in (2, 0, 1)]
    answers = post.exchange(letters)
    told = [(dict(answer.content[TRACE])["client"], dict(answer.content[TRACE])["number"]) for answer in answers]
    assert told == [(client, round_number) for round_number in range(3) for client in (2, 0, 1)]
    to_two = [message for message in grid.asked[4:] if message.metadata.dst_node_id == 77]
    assert [message.content[WORK]["round"] for message in to_two] == [0, 1, 2]


@pytest.mark.usefixtures("here")
def test_a_runtime_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "STUCK_SECONDS", 0.1)
    grid = Loopback({1: 0, 2: 1, 3: 2})
    post = met(grid)
    grid.answer = False
    with pytest.raises(RunError, match=r"no client answered for 0 seconds; still waiting for clients \[0, 2\]"):
        post.exchange([letter(2, 1, 0.1), letter(0, 1, 0.1)])


@pytest.mark.usefixtures("here")
def test_lost_runtime_is_reported_with_its_cause() -> None:
    def gone() -> None:
        raise RunError("the runtime is gone")

    with pytest.raises(RunError, match="the runtime is gone"):
        _transport.Transport(Loopback({}, answer=False), gone)._pull({"letter": 0}, [letter(0, 1)])
