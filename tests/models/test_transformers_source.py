"""Tests of `fedmem/models/_transformers_source.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import ComponentError
from fedmem.models._transformers_source import source_of
from fedmem.models.huggingface import HuggingFace
from tests.models.huggingface_helpers import rows, save_model, words

pytest.importorskip("transformers")

QUESTIONS = "huggingface_hub.HfApi.model_info"


def refuse(*_: Any, **options: Any) -> None:
    import httpx

    assert options["timeout"] <= 5
    raise httpx.ConnectError("Name or service not known")


def request(*_: Any, **__: Any) -> None:
    raise AssertionError("a download was tried")


@pytest.mark.parametrize(("revision", "text"), [("", "no/such"), ("abc", "no/such at revision abc")])
def test_a_hub_that_does_not_answer_is_asked_once(
    revision: str,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(QUESTIONS, refuse)
    monkeypatch.setattr("httpx.Client.send", request)
    with pytest.raises(ComponentError) as caught:
        HuggingFace(name="no/such", revision=revision).build_text(words(3), 4, None)
    expected = f"{text} could not be reached on the hub and is not in the cache; give `path`, a local folder"
    assert (caught.value.path, caught.value.message) == ("model.name", expected)
    assert not any("Retrying" in line for line in (*capfd.readouterr(), caplog.text))


def test_a_hub_that_refuses_is_not_called_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(*_: Any, **__: Any) -> None:
        raise ValueError("a name has one slash")

    monkeypatch.setattr(QUESTIONS, raise_error)
    assert source_of(HuggingFace(name="no/such"))[0] == "no/such"


@pytest.mark.parametrize("lacking", [None, "model.safetensors"])
def test_a_cached_model_needs_no_hub(lacking: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "models--me--tiny" / "snapshots" / "abc", "gpt2")
    (tmp_path / "models--me--tiny" / "refs").mkdir()
    (tmp_path / "models--me--tiny" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(QUESTIONS, refuse)
    monkeypatch.setattr("httpx.Client.send", request)
    model = HuggingFace(name="me/tiny")
    if lacking is None:
        assert model.build_text(words(30), 8, None)(rows(2, length=8)).shape == (2, 8, 30)
        return
    (folder / lacking).unlink()
    with pytest.raises(ComponentError, match="is not in the cache"):
        model.build_text(words(30), 8, None)
