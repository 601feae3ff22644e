"""TensorBoard's own reader finds every point of every series, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.export import ExportContent, ExportRun, Scalar
from fedmem.exports.tensorboard import TensorBoard
from fedmem.sharing.export import content_of
from tests.sharing.sharing_helpers import finished_comparison, finished_run

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


def read_events(folder: Path) -> Any:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def points_of(events: Any) -> dict[tuple[str, int], float]:
    return {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


@pytest.mark.parametrize("study", [finished_run, finished_comparison])
def test_every_point_is_read_back(study: Any, tmp_path: Path) -> None:
    content = content_of(study())
    TensorBoard().write(content, tmp_path, tmp_path)
    for run in content.runs:
        events = read_events(tmp_path / run.name)
        expected = {(scalar.name, scalar.step): float(np.float32(scalar.value)) for scalar in run.scalars}
        assert points_of(events) == expected
        assert any(name.endswith(".low") for name, _ in expected)
        times = {event.wall_time for tag in events.Tags()["scalars"][:3] for event in events.Scalars(tag)}
        assert times == {run.finished}
    assert {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events*")} == {
        run.name for run in content.runs
    }


def test_scenario_and_verdict_are_text(tmp_path: Path) -> None:
    run = ExportRun(name="a/b", notes={"verdict": "<script>x</script>\n# no heading"}, parameters={"seed": "3"})
    TensorBoard().write(ExportContent(title="t", id="i", runs=[run]), tmp_path, tmp_path)
    events = read_events(tmp_path / "a/b")
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts == {
        "verdict/text_summary": "    <script>x</script>\n    # no heading",
        "parameters/text_summary": "    seed: 3",
    }


def test_points_are_shown_while_a_run_goes_on(tmp_path: Path) -> None:
    target = TensorBoard()
    target.check(str(tmp_path / "new"))
    log = target.track(str(tmp_path / "new"), "t", ExportRun(name="t/id"))
    log.add([Scalar(name="a", step=1, value=0.5)])
    assert points_of(read_events(tmp_path / "new/t/id")) == {("a", 1): 0.5}
    log.add([Scalar(name="a", step=2, value=0.25)])
    log.close(None)
    assert points_of(read_events(tmp_path / "new/t/id")) == {("a", 1): 0.5, ("a", 2): 0.25}
