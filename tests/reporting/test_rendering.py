"""Tests of `fedmem/reporting/rendering.py`."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from fedmem.reporting import rendering
from fedmem.reporting.cells import Section
from fedmem.reporting.rendering import data_uri, is_empty, render, show, slug


def attack(**values: Any) -> str:
    given: dict[str, Any] = {
        "title": "title", "place": "", "eyebrow": "", "headline": "", "alarms": (), "warnings": (), "verdict": (),
        "limits_of_verdict": (), "sheets": (), "texts": (), "written": (), "settings": "", "limits": (), "citation": "",
        "versions": "", "footer": "", "contents": ("How to cite",),
    }  # fmt: skip
    return render("attack.html", **given | values).decode()


def test_policy_names_the_style_and_script_of_the_page() -> None:
    page = attack()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]+ style=", page), "style attributes would be refused"
    assert not re.search(r"<[^>]+ on\w+=", page)


def test_texts_are_escaped_and_what_is_invisible_is_shown() -> None:
    page = attack(title="<b>\"a\" & 'b'</b>\x00\u202e", warnings=("{{ 7*7 }} </style><script>",))
    assert "&lt;b&gt;&#34;a&#34; &amp; &#39;b&#39;&lt;/b&gt;\\x00\\u202e" in page
    assert "{{ 7*7 }} &lt;/style&gt;&lt;script&gt;" in page
    assert page.count("<script>") == 1
    assert "\x00" not in page
    assert "\u202e" not in page


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("attack.html", title="")


def test_templates_are_in_the_package() -> None:
    names = {item.name for item in files("fedmem.reporting").joinpath("templates").iterdir()}
    assert names >= {"base.html", "run.html", "study.html", "attack.html", "style.css", "script.js"}


def test_equal_values_give_equal_pages() -> None:
    assert attack() == attack()
    assert show("שלום 你好") == "שלום 你好"
    assert show("\ud800") == "\\ud800"
    assert data_uri(b"png") == "data:image/png;base64,cG5n"
    assert slug("<What> was run?") == "what-was-run"
    assert is_empty(Section(title="", columns=(), blocks=(("", ()),)))
    assert not is_empty(Section(title="", columns=(), blocks=(("", (("a",),)),)))


def test_page_of_a_flower_bundle_says_how_to_draw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower admits neither HTML nor style sheets into a bundle, and a finished run must not fail for that."""
    monkeypatch.setattr(rendering, "_TEMPLATES", tmp_path / "templates")
    assert b"fedmem report FOLDER" in rendering.render("run.html")
