from __future__ import annotations

import html
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedmem.contracts.measurement import FINAL, Labels, Measurement, Reading
from fedmem.errors import RunError
from fedmem.reporting.cells import Value, number
from fedmem.reporting.drawing import ImageRow
from fedmem.reporting.page import glossary, report
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.reporting.table import NO_LIMIT, table
from fedmem.results.read import read
from fedmem.results.write import replace_measurements
from fedmem.studies.quantities import _quantities
from tests.labelling import labels
from tests.results.test_read import bank, write

KINDS = ("pattern", "typical-own")
SCENARIO = "name: 'a <b>bold</b> $name [red]'\nruns: 4\nrounds: 10\nclients: 3\nreferences: 9\n"


def row(metric: str, value: float, subject: str = "", about: str | Labels = "", **place: Any) -> Measurement:
    """A row of the conventions of fedmem.estimation.estimates; the interval is ± 0.1 unless given."""
    low, high = place.pop("low", value - 0.1), place.pop("high", value + 0.1)
    own = labels(about) if isinstance(about, str) else about
    reading = Reading(metric=metric, value=value, low=low, high=high, n=place.pop("n", 80), subject=subject, labels=own)
    everywhere: dict[str, Any] = {"run": -1, "round": FINAL, "level": "global", "client": -1, "source": "some"}
    return Measurement(**everywhere | place, reading=reading)


def at(place: str) -> str:
    """A place as a label."""
    return f"place={place}" if place else ""


def rows(kinds: tuple[str, ...] = KINDS) -> list[Measurement]:
    found = []
    for round_number in (0, 5, 10, FINAL):
        for i, kind in enumerate(kinds):
            for metric, variant, value in (
                ("memorisation", "", 0.5), ("memorisation", "statistic=probability", 0.6), ("auc", "attack=lira", 0.8),
                ("auc", "attack=loss_threshold", 0.6),
                ("tpr", f"attack=lira fpr={0.0078 if round_number == FINAL else 0.0156}", 0.3),
                *((("exposure", "", 4.0),) if i == 0 else ()),
            ):  # fmt: skip
                for level, place in (("local", "owner"), ("local", "others"), ("global", "")):
                    if round_number == 0 and level == "local":
                        continue
                    shown = value + (0.25 if place == "owner" else 0) - 0.3 * i
                    here = f"{at(place)} {variant}"
                    found.append(row(metric, shown, kind, here, level=level, round=round_number))
                    null = {"exposure": 1.155, "auc": 0.5, "tpr": 0.0078}.get(metric, 0.0)
                    if round_number == FINAL:
                        nothing = {"low": math.nan, "high": math.nan}
                        found.append(row(f"{metric}.null", null, kind, here, level=level, **nothing))
        for level in ("local", "global"):
            found.append(row("test_accuracy", 0.9, level=level, round=round_number, n=320 if level == "local" else 32))
            found.append(row("generalisation_gap", 0.01, level=level, round=round_number, n=32, low=-0.01, high=0.03))
    first, second = kinds
    found += [
        row("memorisation.difference", 0.25, first, "contrast=levels minus=global"),
        row("memorisation.difference", -0.25, second, "contrast=levels minus=global"),
        row("memorisation.difference", 0.05, first, f"contrast=kinds minus={second}", low=-0.02, high=0.12),
        row("auc.difference", 0.3, first, f"contrast=kinds minus={second} place=owner attack=lira", level="local"),
        row("retention", 0.67, first, "of=memorisation"),
        row("retention", math.nan, second, "of=memorisation resolved=no", low=math.nan, high=math.nan),
        row("retention", 0.99, first, "of=memorisation over=rounds"),
    ]
    for view, level, value, difference in (
        ("message", "local", -2.0, 1.5), ("aggregate", "global", -4.0, 0.05), ("first_step", "local", 3.0, -0.7),
    ):  # fmt: skip
        about = f"view={view} knows=lr+steps"
        found.append(row("margin", value, first, about, level=level, n=7))
        found.append(row("margin", value - difference, first, f"{about} coin=out", level=level, n=6))
        found.append(
            row("margin.difference", difference, first, f"contrast=coins minus=out {about}", level=level, n=13)
        )
    found.append(row("margin", -1.0, second, "view=message knows=lr+steps", level="local", n=7))
    for i in range(6):
        for level, place in (("local", "owner"), ("global", "")):
            found.append(row("memorisation", i / 7, str(i), at(place), level=level, n=4, low=math.nan, high=math.nan))
    return found


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kept: dict[str, np.ndarray] = {}
    for level, view in (("local", "message"), ("global", "aggregate")):
        base = f"leakage/round_5/{level}/{view}/run_0"
        for part in ("original", "reconstruction", "prior"):
            kept[f"{base}/{part}"] = rng.random((5, 1, 4, 4), np.float32)
        kept |= {f"{base}/kind": np.array(["pattern"] * 4 + ["typical-own"]), f"{base}/subject": np.arange(5)}
        kept |= {f"{base}/psnr": np.arange(5.0), f"{base}/prior_psnr": np.full(5, 7.0)}
        kept[f"{base}/identified"] = np.array([0.0, 1.0, 0.0, 1.0, np.nan])
        kept[f"{base}/modality"] = np.array(["images"] * 5)
    return kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return tmp_path / "run"


def printed(folder: Path, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(folder), crop=False)
    console.file.close()
    return console.export_text()


def test_the_table_holds_what_the_rows_say(folder: Path) -> None:
    text = printed(folder)
    assert re.search(r"exposure, bits \(without memorisation: 1\.16\)\n  pattern +80 +4\.25 \[4\.15, 4\.35\]", text)
    assert re.search(r"4\.25 \[4\.15, 4\.35\]† +4\.00 \[3\.90, 4\.10\]†", text)
    assert re.search(r"  typical-own +80 +0\.450 \[0\.350, 0\.550\] +0\.200 \[0\.100, 0\.300\]", text)
    assert "LiRA AUC (without memorisation: 0.5)" in text
    assert "LiRA TPR at FPR 0.0078 (without memorisation: 0.0078)" in text
    assert "loss threshold AUC" not in text, "the control is for the page"
    assert "Also measured, in the report: loss threshold; the other clients' models." in text
    assert re.search(r"pattern +7 +−2\.00 \[−2\.10, −1\.90\] +−4\.00 \[−4\.10, −3\.90\]", text)
    assert re.search(r"pattern, first step +7 +3\.00 \[2\.90, 3\.10\]", text)
    words = " ".join(text.split())
    assert (
        "a client's real message: leaks pattern; no held-out example to compare with for typical-own (against "
        "the best prior, picked by the truth: worse for pattern, typical-own)." in words
    )
    assert "the aggregate: not resolved for pattern (against the best prior, picked by the truth: worse for" in words
    assert (
        "a client's first step alone, which no server sees: further off than held-out examples for pattern (against "
        "the best prior, picked by the truth: better for pattern)." in words
    )
    assert "reconstruction, gain over the best prior, in − out, dB (without leakage: 0)" in words
    assert "(picked with knowledge of the truth: below 0 does not mean that nothing leaked)" in words
    assert re.search(r"pattern +13 +1\.50 \[1\.40, 1\.60\] +0\.05 \[−0\.05, 0\.15\]", text)
    assert "−3.50" not in text, "the mean of the controls is for the page"
    assert re.search(r"pattern +80 +0\.67 \[0\.57, 0\.77\]", text)
    assert re.search(r"typical-own +80 +not resolved", text)
    assert "0.99" not in text, "retention over all rounds is for the page"
    between = r"memorisation: local − global\n  pattern +80 +0\.250 \[0\.150, 0\.350\] +local higher\n"
    assert re.search(between + r"  typical-own +80 +−0\.250 \[−0\.350, −0\.150\] +local lower", text)
    pair = r"\n  pattern − typical-own +80 +"
    assert re.search(f"memorisation, global{pair}0\\.050 \\[−0\\.020, 0\\.120\\] +unresolved", text)
    assert re.search(f"LiRA AUC, local{pair}0\\.300 \\[0\\.200, 0\\.400\\] +first higher", text)
    assert re.search(r"test accuracy +320/32 +0\.900 \[0\.800, 1\.000\] +0\.900 \[0\.800, 1\.000\]", text)
    assert str(folder) in text.replace("\n", "")
    assert "[red]" in text, "markup in a name is text"
    order = [text.index(word) for word in ("exposure, bits", "RETENTION", "DIFFERENCES", "UTILITY", "Files")]
    assert order == sorted(order)


CELL = r"≈?−?[\d.]+ \[[<>−\d.]+, [<>−\d.]+\]"
"""A value with its interval, unbroken."""


def lines(folder: Path, width: int) -> list[str]:
    return [line.rstrip() for line in printed(folder, width).splitlines() if not line.startswith("Files: ")]


def test_the_sheet_shows_the_first_victims_whichever_runs_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of run 0 two pictures of a kind are kept, of run 2 some more, of run 10 too many."""
    kept: dict[str, np.ndarray] = {}
    for run, chosen in ((0, [0, 1]), (10, [0, 1, 2, 3, 4]), (2, [2, 3])):
        parts = {name: value[chosen] for name, value in pictures().items()}
        kept |= {name.replace("run_0", f"run_{run}"): value for name, value in parts.items()}
    shown: list[str] = []

    def sheet(title: str, groups: dict[str, list[ImageRow]], subtitle: str) -> bytes:
        shown.extend(captions(groups))
        return b"png"

    monkeypatch.setattr("fedmem.reporting.drawing.sheet", sheet)
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=kept)
    report(tmp_path / "run")
    assert shown == 2 * ["pattern\n#0", "pattern\n#1", "pattern\n#2", "typical-own\n#4"]


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
    assert "some: reconstruction, gain over the best prior, in − out" in text
    assert "leakage_2: reconstruction, dB of PSNR" in text
    assert "leakage_2: Reconstruction from a client&#x27;s real message: no held-out example" in text
    assert "9.00 [8.90, 9.10]" in text
    assert "−2.00 [−2.10, −1.90]" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits_its_terminal_and_breaks_no_cell(folder: Path, width: int) -> None:
    fitted, free = lines(folder, width), lines(folder, NO_LIMIT)
    assert max(map(len, fitted)) <= width
    assert re.findall(CELL, "\n".join(fitted)) == re.findall(CELL, "\n".join(free))
    verdicts = r"local higher|local lower|first higher|unresolved|not resolved"
    said = [line for line in fitted if re.search(CELL, line)]
    assert sum(len(re.findall(verdicts, line)) for line in said) >= (3 if width > 40 else 0)
    for line in fitted:
        assert line.count("[") == line.count("]"), "a line ends inside an interval"


@pytest.mark.parametrize("width", [80, 120, NO_LIMIT])
def test_brackets_stand_below_each_other_in_all_sections(folder: Path, width: int) -> None:
    both = [line for line in lines(folder, width) if len(re.findall(CELL, line)) == 2]
    assert len(both) >= 10
    assert len({tuple(at.start() for at in re.finditer(r"\[\S+, \S+\]", line)) for line in both}) == 1


def test_what_is_piped_has_no_width(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from fedmem.cli.main import main; main()", "report", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "40"},
    )
    assert done.returncode == 0, done.stderr
    piped = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in lines(folder, NO_LIMIT) if line] == [
        line for line in piped if line and not line.startswith(("Files: ", "Report: "))
    ]
    assert f"Files: {folder.resolve()}" in piped, "a path can be copied whole"


def test_the_legend_has_the_words_that_are_used_and_no_others(folder: Path, tmp_path: Path) -> None:
    text = printed(folder)
    for term in ("exposure", "LiRA", "AUC", "TPR", "FPR", "PSNR", "prior", "first step", "generalisation gap"):
        assert re.search(f"^{term}: [a-z]", text, re.MULTILINE), term
    assert "≈: " not in text
    write(tmp_path / "other", bank(), measurements=[row("memorisation", 0.5, "pattern")], scenario_yaml=SCENARIO)
    other = printed(tmp_path / "other")
    assert "memorisation: how much" in other
    assert not re.search(r"^(LiRA|PSNR|first higher): ", other, re.MULTILINE)
    assert "Also measured" not in other


@pytest.mark.parametrize("name", ["priority_customers", "prior", "ceiling"])
def test_names_of_kinds_put_no_words_into_the_legend(tmp_path: Path, name: str) -> None:
    kinds = (name, "typical-own")
    own = [row("memorisation", 0.5, kind, at(place), level=level) for kind in kinds for level, place in PLACES]
    whole = bank()
    renamed = np.where(whole.audit.kind == "pattern", name, "typical-own")
    labelled = replace(whole, audit=replace(whole.audit, kind=renamed))
    write(tmp_path / "run", labelled, measurements=own, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert name in text
    assert not re.search(r"^(prior|ceiling): ", text, re.MULTILINE)
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


def test_a_point_that_is_hardly_known_is_hollow(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in report(folder).parent.iterdir()}
    uncertain = [
        row("auc", one.reading.value, one.reading.subject, one.reading.labels, level=one.level, round=one.round,
            low=one.reading.low - 0.3, high=one.reading.high + 0.3)
        if one.reading.metric == "auc" else one
        for one in rows()
    ]  # fmt: skip
    replace_measurements(folder, uncertain)
    page = report(folder).read_text(encoding="utf-8")
    assert "hollow: the interval spans more than half of 0 to 1" in page
    assert before["lira_auc.png"] != (folder / "lira_auc.png").read_bytes()
    assert before["memorisation.png"] == (folder / "memorisation.png").read_bytes()
    assert "hollow" not in before["report.html"].decode()


def test_a_run_without_estimates_has_a_table_and_a_page(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(m=0, canaries=0), measurements=[], scenario_yaml=SCENARIO)
    assert "LOCAL" not in printed(tmp_path / "run")
    assert report(tmp_path / "run").exists()
    assert not list((tmp_path / "run").glob("*.png"))


def test_what_is_missing_is_a_dash_and_never_a_zero(tmp_path: Path) -> None:
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
    assert "LiRA TPR at the smallest FPR that the data support (without memorisation: that FPR)" in text
    assert re.search(r"pattern .* @ 0\.01\n.*typical-own .* @ 0\.05", text)


def test_text_of_values() -> None:
    assert Value(value=1, low=0.5, high=math.inf, n=3).text(1) == "1.0 [0.5, ∞]"
    assert Value(value=-0.0001, low=-1, high=1, n=3).text(2) == "0.00 [−1.00, 1.00]"
    assert Value(value=0.1, low=0.0002, high=0.3, n=3).text(3) == "0.100 [0.0002, 0.300]"
    assert Value(value=-0.1, low=-0.3, high=-1e-9, n=3).text(3) == "−0.100 [−0.300, <0]"
    assert Value(value=0.1, low=1e-9, high=0.3, n=3).text(3) == "0.100 [>0, 0.300]"
    assert Value(value=0.1, low=0.0, high=0.3, n=3).text(3) == "0.100 [0.000, 0.300]"
    assert Value(value=1, low=math.nan, high=math.nan, n=1).text(2) == "1.00 [no interval]"
    assert not Value(value=1, low=math.nan, high=math.nan, n=1).is_resolved
    assert not Value(value=1, low=0, high=2, n=1).is_resolved
    assert Value(value=-1, low=-2, high=-0.1, n=1).is_resolved
    assert number(-0.0, 1) == "0.0"


def test_the_page_is_whole_escaped_and_says_what_measures_mean(folder: Path) -> None:
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
    assert not re.search(r"(?:src|href)=\"(?!data:image/png;base64,)", text), "nothing is loaded from elsewhere"
    assert "default-src 'none'" in text
    figures = sorted(path.name for path in folder.glob("*.png"))
    assert figures == [
        "exposure.png", "lira_auc.png", "lira_tpr.png", "loss_threshold_auc.png", "memorisation.png",
        "memorisation_scatter.png", "reconstructions.png", "utility.png",
    ]  # fmt: skip
    assert text.count("data:image/png;base64,") == len(figures)
    explained = [one.name for one in glossary(Summary(read(folder)))]
    assert {"exposure", "memorisation", "auc", "tpr", "margin", "retention", "test_accuracy"} <= {*explained}
    for one in glossary(Summary(read(folder))):
        assert html.escape(one.means)[:40] in text
        assert html.escape(one.is_not)[:40] in text
    assert "loss threshold AUC" in text
    assert "local, others" in text
    assert "unresolved" in text
    assert not list(folder.glob(".*"))


def test_figures_are_the_same_bytes_again_and_follow_the_rows(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (report(folder).parent).iterdir()}
    assert before == {path.name: path.read_bytes() for path in (report(folder).parent).iterdir()}
    changed = [
        one if one.reading.metric != "exposure" else row("exposure", 1.0, "pattern", round=one.round) for one in rows()
    ]
    replace_measurements(folder, changed)
    after = {path.name: path.read_bytes() for path in (report(folder).parent).iterdir()}
    assert before["exposure.png"] != after["exposure.png"]
    assert before["memorisation.png"] == after["memorisation.png"]


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


def test_reconstruction_is_drawn_over_the_attacked_rounds_of_the_first_probe(tmp_path: Path) -> None:
    """Ins against outs, round by round; rows of a further probe and of other kinds stay out of the line."""
    said = "contrast=coins minus=out view=message knows=lr+steps"
    extra = [
        row("margin.difference", value, KINDS[0], said, level="local", n=9, source=source, round=round_number)
        for round_number, value, source in ((2, 3.0, "leakage"), (4, 1.5, "leakage"), (2, 8.0, "leakage_2"))
    ]
    write(tmp_path / "run", bank(), measurements=[*rows(), *extra], scenario_yaml=SCENARIO, reconstructions=pictures())
    summary = Summary(read(tmp_path / "run"))
    assert [
        (round_number, value.value, value.n) for round_number, value in summary.leakage_by_round("message", KINDS[0])
    ] == [
        (2, 3.0, 9),
        (4, 1.5, 9),
    ]
    assert summary.leakage_by_round("aggregate", KINDS[1]) == []
    report(tmp_path / "run")
    assert (tmp_path / "run" / "reconstruction.png").read_bytes().startswith(b"\x89PNG")


def test_a_comparison_has_no_retention_of_what_runs_have_none_of(folder: Path) -> None:
    """Sums in which effects cancel, such as cross-influence, have differences between levels and no retention."""

    def paired() -> dict[tuple[Any, ...], float]:
        quantities = _quantities(Summary(read(folder)))
        return {(q.metric, q.kind, q.parts): numbers["paired"] for q, numbers in quantities if q.level == "local"}

    found = paired()
    assert not math.isnan(found["memorisation", "pattern", ()])
    measured = [one for one in rows() if one.reading.metric != "retention"]
    replace_measurements(folder, measured)
    assert paired().keys() == found.keys()
    assert all(map(math.isnan, paired().values()))
