from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from fedmem.errors import RunError
from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.page import glossary, report
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from fedmem.results.write import replace_measurements
from fedmem.studies.quantities import _quantities
from tests.reporting.page_helpers import KINDS, SCENARIO, at, pictures, printed, row, rows
from tests.results.read_helpers import bank, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return tmp_path / "run"


def test_the_table_holds_what_the_rows_say(folder: Path) -> None:
    text = printed(folder)
    assert re.search(r"exposure, bits \(without memorisation: 1\.16\)\n  pattern +80 +4\.25 \[4\.15, 4\.35\]", text)
    assert re.search(r"4\.25 \[4\.15, 4\.35\]† +4\.00 \[3\.90, 4\.10\]†", text)
    assert re.search(r"  typical-own +80 +0\.450 \[0\.350, 0\.550\] +0\.200 \[0\.100, 0\.300\]", text)
    assert "LiRA AUC (without memorisation: 0.5)" in text
    assert "LiRA TPR at FPR 0.0078 (without memorisation: 0.0078)" in text
    assert "loss threshold AUC (without" not in text, "the control is for the page"
    assert "Also measured, in the report: loss threshold; the other clients' models." in text
    assert re.search(r"pattern +7 +−2\.00 \[−2\.10, −1\.90\] +−4\.00 \[−4\.10, −3\.90\]", text)
    assert re.search(r"pattern, first step +7 +3\.00 \[2\.90, 3\.10\]", text)
    words = " ".join(text.split())
    assert (
        "a client's real message: closer than held-out examples, but not significantly better than the "
        "baseline guess, for pattern; no held-out example to compare with for typical-own (against the "
        "baseline guess, picked by the truth: worse for pattern, typical-own)." in words
    )
    assert (
        "the aggregate: not significant for pattern (against the baseline guess, picked by the truth: worse for"
        in words
    )
    assert (
        "a client's first step alone, which no server sees: further off than held-out examples for pattern (against "
        "the baseline guess, picked by the truth: better for pattern)." in words
    )
    assert "reconstruction, gain over the baseline guess, in − out, dB (without leakage: 0)" in words
    assert "(picked with knowledge of the truth: below 0 does not mean that nothing leaked)" in words
    assert re.search(r"pattern +13 +1\.50 \[1\.40, 1\.60\] +0\.05 \[−0\.05, 0\.15\]", text)
    assert "−3.50" not in text, "the mean of the controls is for the page"
    assert re.search(r"pattern +80 +0\.67 \[0\.57, 0\.77\]", text)
    assert re.search(r"typical-own +80 +undefined", text)
    assert "0.99" not in text, "retention over all rounds is for the page"
    between = r"memorisation: local − global\n  pattern +80 +0\.250 \[0\.150, 0\.350\] +local higher\n"
    assert re.search(between + r"  typical-own +80 +−0\.250 \[−0\.350, −0\.150\] +local lower", text)
    pair = r"\n  pattern − typical-own +80 +"
    assert re.search(f"memorisation, global{pair}0\\.050 \\[−0\\.020, 0\\.120\\] +not significant", text)
    assert re.search(f"LiRA AUC, local{pair}0\\.300 \\[0\\.200, 0\\.400\\] +first higher", text)
    assert re.search(r"test accuracy +320/32 +0\.900 \[0\.800, 1\.000\] +0\.900 \[0\.800, 1\.000\]", text)
    assert str(folder) in text.replace("\n", "")
    assert "[red]" in text, "markup in a name is text"
    order = [text.index(word) for word in ("exposure, bits", "RETENTION", "DIFFERENCES", "UTILITY", "Files")]
    assert order == sorted(order)


def test_sheet_shows_the_first_victims_of_any_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of run 0 two pictures of a kind are kept, of run 2 some more, of run 10 too many."""
    kept: dict[str, np.ndarray] = {}
    for run, chosen in ((0, [0, 1]), (10, [0, 1, 2, 3, 4]), (2, [2, 3])):
        parts = {name: value[chosen] for name, value in pictures().items()}
        parts |= {name: np.full(len(chosen), run) for name in parts if name.endswith("/run")}
        kept |= {name.replace("run_0", f"run_{run}"): value for name, value in parts.items()}
    shown: list[str] = []

    def sheet(title: str, groups: dict[str, list[ImageRow]], subtitle: str) -> bytes:
        shown.extend(captions(groups))
        return b"png"

    monkeypatch.setattr("fedmem.reporting.drawing.sheet", sheet)
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=kept)
    report(tmp_path / "run")
    assert shown == 2 * ["pattern\n#0", "pattern\n#1", "pattern\n#2", "typical-own\n#4"]


def without_tags(page: str) -> str:
    return re.sub("<[^>]+>", "", page)


def captions(groups: dict[str, list[ImageRow]]) -> list[str]:
    return [picture.label for group in groups.values() for picture in group]


def test_every_attack_has_its_sheet_and_its_blocks(tmp_path: Path) -> None:
    kept = pictures()
    # another attack, which rebuilt something else
    kept |= {
        name.replace("leakage/", "leakage_2/"): value[::-1] if "/reconstruction" in name else value
        for name, value in pictures().items()
    }
    about = "view=message knows=lr+steps"
    other = row("margin", 9.0, KINDS[0], about, level="local", source="leakage_2")
    write(tmp_path / "run", bank(), measurements=[*rows(), other], scenario_yaml=SCENARIO, reconstructions=kept)
    text = " ".join(report(tmp_path / "run").read_text(encoding="utf-8").split())
    first, second = ((tmp_path / "run" / f"reconstructions{number}.png").read_bytes() for number in ("", "_2"))
    assert first != second
    assert "some: reconstruction, gain over the baseline guess, in − out" in text
    assert "leakage_2: reconstruction, dB of PSNR" in text
    assert "leakage_2: Reconstruction from a client&#39;s real message: no held-out example" in text
    assert "9.00 [8.90, 9.10]" in without_tags(text)
    assert "−2.00 [−2.10, −1.90]" in without_tags(text)


def test_the_legend_has_the_words_that_are_used_and_no_others(folder: Path, tmp_path: Path) -> None:
    text = printed(folder)
    for term in ("exposure", "LiRA", "AUC", "TPR", "FPR", "PSNR", "baseline guess", "first step", "generalisation gap"):
        assert re.search(f"^{term}: [a-z]", text, re.MULTILINE), term
    assert "≈: " not in text
    write(tmp_path / "other", bank(), measurements=[row("memorisation", 0.5, "pattern")], scenario_yaml=SCENARIO)
    other = printed(tmp_path / "other")
    assert "memorisation: how much" in other
    assert not re.search(r"^(LiRA|PSNR|first higher): ", other, re.MULTILINE)
    assert "Also measured" not in other


@pytest.mark.parametrize("name", ["priority_customers", "exposure", "ceiling"])
def test_names_of_kinds_put_no_words_into_the_legend(tmp_path: Path, name: str) -> None:
    kinds = (name, "typical-own")
    own = [row("memorisation", 0.5, kind, at(place), level=level) for kind in kinds for level, place in PLACES]
    whole = bank()
    renamed = np.where(whole.audit.kind == "pattern", name, "typical-own")
    labelled = replace(whole, audit=replace(whole.audit, kind=renamed))
    write(tmp_path / "run", labelled, measurements=own, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert name in text
    assert not re.search(r"^(exposure|ceiling): ", text, re.MULTILINE)
    assert re.search(r"^memorisation: ", text, re.MULTILINE)


PLACES = (("local", "owner"), ("global", ""))


def test_a_rate_that_is_hardly_known_does_not_look_exact(tmp_path: Path) -> None:
    some = [
        row("auc", 0.51234, "pattern", "attack=lira", low=0.21, high=0.82),
        row("auc", 0.51234, "typical-own", "attack=lira", low=0.31, high=0.8),
        row("memorisation", 0.51234, "pattern", low=-0.2, high=0.9),
    ]
    write(tmp_path / "run", bank(), measurements=some, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert re.search(r"pattern +80 +– +≈0\.5 \[0\.2, 0\.8\]", text)
    assert re.search(r"typical-own +80 +– +0\.512 \[0\.310, 0\.800\]", text)
    assert "0.512 [−0.200, 0.900]" in text, "memorisation is no rate"
    assert "≈: the interval spans" in text


def test_a_run_without_estimates_has_a_table_and_a_page(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(m=0, canaries=0), measurements=[], scenario_yaml=SCENARIO)
    assert "LOCAL" not in printed(tmp_path / "run")
    assert report(tmp_path / "run").exists()
    assert not list((tmp_path / "run").glob("*.png"))


def test_missing_values_are_dashes(tmp_path: Path) -> None:
    lone = [
        row("memorisation", 0.5, "pattern"),
        row("memorisation", math.nan, "typical-own", low=math.nan, high=math.nan),
    ]
    write(tmp_path / "run", bank(), measurements=lone, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert re.search(r"pattern +80 +– +0\.500 \[0\.400, 0\.600\]", text)
    assert re.search(r"typical-own +80 +– +–", text)


def test_rates_that_differ_stand_with_each_value(tmp_path: Path) -> None:
    mixed = [
        *(row("auc", 0.7, kind, "attack=lira") for kind in KINDS),
        *(row("tpr", 0.3, kind, f"attack=lira fpr={rate}") for kind, rate in zip(KINDS, (0.01, 0.05), strict=True)),
        *(
            row("tpr.null", rate, kind, f"attack=lira fpr={rate}")
            for kind, rate in zip(KINDS, (0.01, 0.05), strict=True)
        ),
    ]
    write(tmp_path / "run", bank(), measurements=mixed, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert "LiRA TPR at the smallest FPR that the data support (without memorisation: a little above that FPR)" in text
    assert re.search(r"pattern .* @ 0\.01\n.*typical-own .* @ 0\.05", text)


def test_page_is_complete_escaped_and_explains_measures(folder: Path) -> None:
    import matplotlib
    from matplotlib import _pylab_helpers

    settings = dict(matplotlib.rcParams)
    page = report(folder)
    assert dict(matplotlib.rcParams) == settings
    assert not _pylab_helpers.Gcf.figs, "no global state of matplotlib"
    assert page == folder.resolve() / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "<b>bold</b>" not in text
    assert "a &lt;b&gt;bold&lt;/b&gt; $name" in text
    assert not re.search(r"(?:src|href)=\"(?!data:image/png;base64,|data:,\"|#)", text), (
        "nothing is loaded from elsewhere"
    )
    assert "default-src 'none'" in text
    figures = sorted(path.name for path in folder.glob("*.png"))
    assert figures == [
        "exposure.png", "lira_auc.png", "lira_tpr.png", "loss_threshold_auc.png", "memorisation.png",
        "memorisation_scatter.png", "reconstructions.png", "utility.png",
    ]  # fmt: skip
    assert text.count('<img class="picture" alt="example ') == len(read(folder).audit)
    assert text.count('<svg class="plot" role="img"') >= len(figures) - 1
    explained = [one.name for one in glossary(Summary(read(folder)))]
    assert {"exposure", "memorisation", "auc", "tpr", "margin", "retention", "test_accuracy"} <= {*explained}
    for one in glossary(Summary(read(folder))):
        assert escape(one.means)[:40] in text
        assert escape(one.is_not)[:40] in text
    assert "loss threshold AUC" in text
    assert "local, others" in text
    assert "not significant" in text
    assert not list(folder.glob(".*"))


def test_examples_are_paired_by_their_number(folder: Path) -> None:
    summary = Summary(read(folder))
    (memorisation,) = [measure for measure in summary.measures if measure.metric == "memorisation"]
    local, whole = summary.examples(memorisation)["pattern"]
    assert local == whole == [0, 1 / 7, 2 / 7]


def test_every_row_of_the_table_has_its_n(folder: Path) -> None:
    for section in sections(Summary(read(folder)), everything=True):
        place = next(i for i, column in enumerate(section.columns) if column.startswith("n"))
        for _, block in section.blocks:
            for cells in block:
                assert len(cells) == len(section.columns)
                assert re.fullmatch(r"\d+(/\d+)*", cells[place]), cells


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        report(tmp_path)


def test_a_comparison_has_no_retention_of_what_runs_have_none_of(folder: Path) -> None:
    """Sums in which effects cancel, such as cross-influence, have differences between levels and no retention."""

    def paired() -> dict[tuple[Any, ...], float]:
        quantities = _quantities(Summary(read(folder)))
        return {(q.metric, q.kind, q.parts): numbers["paired"] for q, _, numbers in quantities if q.level == "local"}

    found = paired()
    assert not math.isnan(found["memorisation", "pattern", ()])
    measured = [one for one in rows() if one.reading.metric != "retention"]
    replace_measurements(folder, measured)
    assert paired().keys() == found.keys()
    assert all(map(math.isnan, paired().values()))


def test_a_copy_under_another_name_has_the_same_page(tmp_path: Path) -> None:
    pages = []
    for name in ("0123456789ab", "copy"):
        folder = tmp_path / name
        write(folder, bank(), measurements=rows(), scenario_yaml=SCENARIO)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest |= {"id": "0123456789ab", "finished": "2030-01-01T00:00:00+00:00"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        pages.append(report(folder).read_bytes())
    assert pages[0] == pages[1]
    assert b"Files of this run: 0123456789ab" in pages[1]
