"""What tests of pages in Chromium share: a browser, an opened page with what it reported, and pages of hostile text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from fedmem.cli.attack_page import attack_page
from fedmem.contracts.audit_set import SourceRows
from fedmem.estimation.estimates import estimate
from fedmem.estimation.saturation import NOWHERE
from fedmem.estimators.memorisation import Memorisation
from fedmem.modalities.images import Images
from fedmem.modalities.tables import Tables
from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.page import report
from fedmem.results.write import Results, write_run
from fedmem.sharing.index_page import index_page
from fedmem.studies.study_page import page as study_page
from tests.estimation.saturation_helpers import SHARP, compared
from tests.reporting.page_helpers import SCENARIO, pictures, rows
from tests.results.read_helpers import bank as run_bank
from tests.results.read_helpers import write
from tests.results.top_helpers import RUNS, answers, bank, coins

SIZES = ((1280, 900), (390, 844))
SCHEMES = ("light", "dark")

_SETTLE = 150
"""Milliseconds in which a page reports what it has refused; it does so after it has loaded."""

HOSTILE = (
    "\"'><script>window.hacked=1</script></style></script><img src=x onerror=window.hacked=1> javascript:alert(1) "
    "{{ 7*7 }} {% raw %} $x^2$ &amp; \u202eoverride\u202c \u05e9\u05dc\u05d5\u05dd \u4f60\u597d \x00 \x1b[31m "
    + "W"
    * 200
)
"""Markup, quotes, templates, mathematics, marks of direction, other scripts, NUL, an escape, and a very long word."""


def find_chromium() -> str:
    """The browser; without one the test is skipped, or fails where CI says that it has to be there."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium on the path; install it (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def started() -> Iterator[Browser]:
    """A headless browser."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page, and everything that it reported or asked for."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def elsewhere(self) -> list[str]:
        """Requests for anything but the page itself and what it holds."""
        return [url for url in self.requests if not url.startswith("data:") and url != self.page.url.partition("#")[0]]


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1280, scheme: Any = "light", **options: Any) -> Iterator[Opened]:
    """A file in a new page of this width and colour scheme."""
    height = dict(SIZES)[width]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    context.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective))"
    )
    page = context.new_page()
    result = Opened(page=page)
    page.on("console", lambda message: result.messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: result.messages.append(f"error: {error}"))
    page.on("request", lambda request: result.requests.append(request.url))
    try:
        page.goto(file.resolve().as_uri())
        page.wait_for_timeout(_SETTLE)
        yield result
    finally:
        context.close()


def plain_run(folder: Path) -> Path:
    """The report of a run with every kind of figure."""
    write(folder, run_bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return report(folder)


def hostile_index(folder: Path) -> Path:
    """The index of runs and a damaged folder whose names and texts are hostile."""
    texts = {"name": HOSTILE, "strategy": {"kind": HOSTILE}, "dataset": {"kind": HOSTILE}}
    for name in ("'\"><img src=x onerror=window.hacked=1>", "long-" + "W" * 200, "damaged <b>"):
        write(folder / "runs" / name, scenario_yaml=json.dumps(texts))
        (folder / "runs" / name / "report.html").touch()
    (folder / "runs" / "damaged <b>" / "manifest.json").write_text("{")
    page = folder / "index.html"
    page.write_bytes(index_page((folder / "runs").resolve()))
    return page


def many_examples(folder: Path, *, texts: bool = False) -> Path:
    """The report of 24 examples with scores, as images or as rows of a table; every name in it is hostile."""
    is_in = coins(24)
    rates = [(8 - j % 9, j % 4) for j in range(24)]
    kinds = [f"kind {j % 2} {HOSTILE}" for j in range(24)]
    shape = (4,) if texts else (1, 8, 8)
    right = answers(is_in, rates)
    evidence = bank(is_in, right, answers(is_in, [(8, 0)] * 24), kinds, shape=shape)
    columns = {f"column {HOSTILE}": np.array([f"cell {j} {HOSTILE}".replace("\x00", "") for j in range(24)])}
    sources = SourceRows(
        target=np.zeros(24, dtype=np.int64), is_altered=np.zeros(24, dtype=bool), cells=columns if texts else {}
    )
    federation: Any = SimpleNamespace(
        num_clients=3, num_classes=2, counts={}, modality=Tables() if texts else Images(), sources=sources,
        client_names=tuple(f"client {j} {HOSTILE}" for j in range(3)), class_names=(f"cat {HOSTILE}", f"dog {HOSTILE}"),
    )  # fmt: skip
    estimators = [{"kind": "memorisation"}, {"kind": "membership", "attack": {"kind": "loss_threshold"}}]
    scenario = {
        "name": f"name {HOSTILE}", "runs": RUNS, "rounds": 1, "clients": 3, "estimators": estimators,
        "dataset": {"kind": "csv", "path": HOSTILE}, "model": {"kind": HOSTILE},
    }  # fmt: skip
    manifest = {"warnings": [HOSTILE], "alarms": [HOSTILE], "commit": HOSTILE, "versions": {"fedmem": HOSTILE}}
    sheets = {
        name: np.array([kinds[0]] * 4 + [kinds[1]]) if name.endswith("/kind") else value
        for name, value in pictures().items()
    }
    results = Results(
        scenario_yaml=json.dumps(scenario), manifest=manifest, reconstructions={} if texts else sheets,
        measurements=estimate(evidence, [Memorisation()], 0), bank=evidence, federation=federation,
    )  # fmt: skip
    write_run(folder, results)
    return report(folder)


def hostile_study(folder: Path) -> Path:
    """The page of a comparison whose settings, kind, warnings and failures are hostile."""
    comparison = compared(SHARP, NOWHERE)
    (series,) = comparison.series
    evil = replace(series, quantity=replace(series.quantity, kind=HOSTILE, unit=HOSTILE[:60]))
    local = replace(evil, quantity=replace(evil.quantity, level="local"))
    settings = tuple(((f"model.{HOSTILE}", f"{place} {HOSTILE}"),) for place in range(2))
    comparison = replace(comparison, settings=settings, series=(local, evil), warnings=(HOSTILE,))
    text, _ = study_page(comparison, f"{HOSTILE} · compare-0123", [HOSTILE])
    file = folder / "comparison.html"
    file.write_text(text, encoding="utf-8")
    return file


def hostile_attack(folder: Path) -> Path:
    """The page of an attack whose settings and labels are hostile."""
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    row = ImageRow(
        original=image, reconstruction=image, prior=image, label=f"label {HOSTILE}", caption=HOSTILE, draw=Images.draw
    )
    settings = {"model": {"kind": HOSTILE}, "versions": {"fedmem": HOSTILE}}
    file = folder / "report.html"
    lines = [f"granted to the adversary: {HOSTILE}", "identified 1 of 1", HOSTILE]
    file.write_bytes(attack_page(lines, [row], settings, total=9))
    return file
