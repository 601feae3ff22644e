"""Tests of `fedmem/reporting/learning_rows.py`: every table says what its models are good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import fedmem
from fedmem.reporting.first_screen import FirstScreen
from fedmem.reporting.page import report
from fedmem.reporting.summarise import summarise
from fedmem.reporting.table import table
from fedmem.results.read import Run, read
from tests.tiny import tiny


def run_of(folder: Path, **changes: Any) -> Run:
    quick = {"rounds": 1, "runs": 2, "observe": {"every": 1, "levels": ["local", "global"]}}
    quick |= {"estimators": [{"kind": "memorisation"}], "sampler": {"kind": "everyone"}}
    return read(fedmem.run(tiny(**{**quick, **changes}), out=folder))


def printed(run: Run) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(run), crop=False)
    console.file.close()
    return " ".join(console.export_text().split())


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    client = {"kind": "sgd", "lr": 1e-9, "epochs": 1, "batch_size": 8}
    return run_of(tmp_path_factory.mktemp("untrained"), client=client)


def test_a_run_at_chance_is_warned_of(untrained: Run) -> None:
    texts = [text for text in untrained.manifest["warnings"] if "not shown to have learnt" in text]
    assert len(texts) == 1
    assert "Draw no conclusion about memorisation" in texts[0]
    assert "WARNING: models are not shown to have learnt" in printed(untrained)
    assert "not shown to have learnt" in report(untrained.path).read_text()


def test_a_run_that_learns_is_not_warned_of(tmp_path: Path) -> None:
    learning = {"dataset": {"kind": "digits"}, "model": {"kind": "logistic"}, "injections": [], "estimators": []}
    client = {"kind": "sgd", "lr": 0.5, "epochs": 2, "batch_size": 8}
    run = run_of(tmp_path, client=client, probes=[{"kind": "utility"}], **learning)
    assert not run.manifest["warnings"]
    assert [entry["verdict"] for entry in run.manifest["learning"]] == ["learnt", "learnt"]
    assert printed(run).count("test accuracy") == 1
    rows = run.measurements
    rows = rows[(rows.metric == "test_accuracy") & (rows.scope == "summary")].set_index("level")
    for entry in run.manifest["learning"]:
        probed = rows.loc[entry["level"]]
        for stored, name in (("accuracy", "value"), ("low", "low"), ("high", "high"), ("models", "n")):
            assert entry[stored] == pytest.approx(probed[name])


def test_accuracy_is_shown_without_the_probe(untrained: Run) -> None:
    text = printed(untrained)
    test = untrained.evidence[(untrained.evidence.set == "test") & (untrained.evidence["round"] == 1)]
    for level in ("local", "global"):
        assert f"{test[test.level == level].correct.mean():.3f}" in text.partition("test accuracy")[2]
    assert "accuracy of the most frequent answer; n counts test examples" in text
    assert "p that the models are no better" in text


def test_the_summary_has_accuracy_but_no_keys_of_rows(untrained: Run) -> None:
    (models,) = summarise(untrained).models
    for measured in (models.local, models.aggregate):
        assert measured is not None
        assert measured.value > 0
        assert measured.keys == ()
    assert any("not shown to have learnt" in text for text in summarise(untrained).warnings)
    assert any("the aggregate, over test examples (p " in text for text in summarise(untrained).warnings)
    (line,) = [text for text, _ in FirstScreen(summary=summarise(untrained), page=None).lines(80) if "WARN" in text]
    assert line == "WARNING: models are not shown to have learnt (--full)"


def test_models_of_densities_show_their_test_loss_first(tmp_path: Path) -> None:
    """Nothing is right or wrong there, so that an accuracy would be empty."""
    run = run_of(
        tmp_path,
        dataset={"kind": "unlabelled", "dataset": {"kind": "digits"}},
        model={"kind": "independent_pixels"},
        injections=[{"kind": "typical", "per_client": 1}],
        estimators=[{"kind": "density_memorisation"}],
        probes=[{"kind": "utility"}],
    )
    first, *others = summarise(run).models
    assert (first.metric, first.unit) == ("test_loss", "nats")
    assert first.aggregate is not None
    assert first.aggregate.value > 0
    assert "test_accuracy" not in {one.metric for one in others}
    lines = " ".join(text for text, _ in FirstScreen(summary=summarise(run), page=None).lines(120))
    assert "test loss" in lines
    assert "test accuracy" not in lines
