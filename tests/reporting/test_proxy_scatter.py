"""Tests of `fedmem/reporting/proxy_scatter.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmem.contracts.evidence import SignalEvidence
from fedmem.contracts.measure import to_json
from fedmem.estimation.signal_means import SignalMeans
from fedmem.estimators.agreement import Agreement
from fedmem.estimators.memorisation import Memorisation
from fedmem.reporting.page import report
from fedmem.reporting.proxy_scatter import SHOWN, ProxyScatter, proxy_scatters
from fedmem.reporting.summary import Summary
from fedmem.results.read import Run
from fedmem.signals.el2n import El2n
from tests.results.top_helpers import RUNS, answers, bank, coins, stored

EXAMPLES = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Example j is right in j / 3 of 8 in runs, and training lowers its EL2N by j / 100; that of the first is odd."""
    is_in = coins(EXAMPLES)
    right = answers(is_in, [(j // 3, 0) for j in range(EXAMPLES)])
    made = bank(is_in, right, right, ["<b>odd" if j % 2 else "typical" for j in range(EXAMPLES)])
    fall = np.where(np.arange(EXAMPLES) == 0, 0.5, 0.01 * np.arange(EXAMPLES))
    noise = 0.001 * np.random.default_rng(3).normal(size=is_in.shape)
    block = SignalEvidence(
        round=1, level="global", name="el2n", run=np.arange(RUNS, dtype=np.int32),
        client=np.full(RUNS, -1, np.int32), values=1.0 - fall * is_in + noise,
    )  # fmt: skip
    estimators = Memorisation(), SignalMeans(signal=El2n()), Agreement(min_examples=10)
    manifest = {"measures": [to_json(one) for one in (*El2n.measures, *Agreement.measures)]}
    folder = tmp_path_factory.mktemp("proxies") / "run"
    return stored(folder, replace(made, signals=(block,)), estimators=estimators, manifest=manifest)


@pytest.fixture(scope="module")
def scatter(run: Run) -> ProxyScatter:
    (found,) = proxy_scatters(Summary(run))
    return found


def test_points_are_the_values_of_the_examples(run: Run, scatter: ProxyScatter) -> None:
    assert scatter.title == "EL2N"
    gain, inside = scatter.drawing.grid
    rows = {
        (r.reading.metric, r.reading.labels.text("statistic"), r.reading.subject): r.reading.value
        for r in run.rows()
        if r.level == "global" and r.reading.subject.isdecimal()
    }
    for axes, metric in ((gain, "el2n_gain"), (inside, "el2n")):
        points = {
            (x, y)
            for line in axes.lines
            if line.get_label() in ("typical", "<b>odd")
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)  # type: ignore[arg-type]
        }
        assert points == {
            (rows[metric, "", str(j)], rows["memorisation", "probability", str(j)]) for j in range(EXAMPLES)
        }
    (agreement,) = (
        r.reading
        for r in run.rows()
        if r.reading.metric == "agreement" and r.reading.subject == "all" and r.reading.labels.get("of") == "el2n"
        if r.reading.labels.get("statistic") == "gain" and "contrast" not in r.reading.labels
    )
    assert (
        gain.get_label()
        == f"global, in − out: ρ −{-agreement.value:.2f} [−{-agreement.low:.2f}, −{-agreement.high:.2f}]"
    )


def test_extremes_are_turned_where_the_proxy_falls(scatter: ProxyScatter) -> None:
    (agreed, high), (more, _), (less, odd) = scatter.extremes
    assert [title.partition(" (")[0] for title in (agreed, more, less)] == [
        "Memorised, as the proxy says",
        "Memorised more than the proxy says",
        "Memorised less than the proxy says",
    ]
    assert high[0].label == "<b>odd #23"
    assert odd[0].label == "typical #0", "its EL2N falls most, and it is not memorised"
    assert len(high) == SHOWN
    for example in (*high, *odd):
        assert example.image.startswith("data:image/png")
        assert "memorisation " in example.caption
        assert "EL2N in − out: " in example.caption
        assert "label " in example.caption


def test_the_page_has_the_section_with_names_escaped(run: Run) -> None:
    page = report(run.path).read_text()
    assert '<h2 id="proxies">Proxies</h2>' in page
    section = page.partition('<h2 id="proxies">')[2].partition("<h2")[0]
    assert "<b>odd" not in section
    assert "&lt;b&gt;odd" in section
    assert section.count('class="victim extreme"') == 3 * SHOWN
    assert 'aria-label="EL2N against memorisation: global, in − out: ρ −0.' in section
    assert "setting-1" in section, "colours of kinds are variables, which the dark page sets"
    assert (run.path / "proxy_1.png").is_file()


def test_without_agreement_there_is_no_section(tmp_path: Path) -> None:
    is_in = coins(6)
    right = answers(is_in, [(8, 0)] * 6)
    made = stored(tmp_path / "run", bank(is_in, right, right, ["typical"] * 6))
    assert [*proxy_scatters(Summary(made))] == []
