"""Tests of `fedmem/reporting/example_browser.py`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from fedmem.contracts.audit_set import SourceRows
from fedmem.modalities.images import Images
from fedmem.modalities.series import Series
from fedmem.modalities.tables import Tables
from fedmem.reporting.example_browser import FIRST, browse, pixel_png
from fedmem.results.read import read
from fedmem.results.top import Choice, rank_examples
from tests.results.read_helpers import write
from tests.results.top_helpers import answers, bank, coins, finished, stored

RATES = [(4, 4), (8, 0), (5, 4), (8, 3), (2, 4), (8, 3)]


def decode(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_every_example_is_there_the_most_memorised_first(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    browser = browse(run)
    assert (browser.total, browser.measure, browser.level) == (6, "memorisation", "global")
    frame = rank_examples(run, Choice(n=6, level="global")).frame
    assert [example.subject for example in browser.shown] == frame.subject.tolist()
    assert [example.place for example in browser.shown] == list(range(6))
    first = browser.shown[0]
    assert (first.rank, first.kind, first.owner, first.label) == (
        "1",
        "mislabelled",
        "Süd",
        "label <dog> (true label cat)",
    )
    assert first.scores["global"].startswith("1.00 [0.")
    assert first.numbers == {"local": "1", "global": "1", "gap": "0"}
    assert [level for level, _ in first.p] == ["local", "global"]
    assert [text.endswith(" *") for _, text in first.p] == [True, True]
    assert browser.kinds == ("mislabelled", "typical") or set(browser.kinds) == {"mislabelled", "typical"}


def test_the_first_examples_have_intervals_for_their_selection(tmp_path: Path) -> None:
    """An example has one interval: that of the report is that of `Run.top`."""
    run = finished(tmp_path / "run", RATES * 3)
    top, browser = run.top(n=FIRST), browse(run)
    for level in ("local", "global"):
        expected = [
            f"[{low:.2f}, {high:.2f}]" for low, high in zip(top[f"{level}_low"], top[f"{level}_high"], strict=True)
        ]
        shown = [example.scores[level].partition(" ")[2] for example in browser.shown[:FIRST]]
        assert [text.replace("−", "-") for text in shown] == expected
    assert "wider intervals of `fedmem top" in browser.notes[-1]
    assert "wider intervals" not in " ".join(browse(finished(tmp_path / "few", RATES)).notes)


def test_a_picture_has_the_pixels_of_the_example(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    for example in browse(run).shown:
        pixels = np.asarray(decode(example.image))
        assert np.array_equal(pixels, np.rint(run.inputs[example.subject][0] * 255))
        assert example.text == ""


def test_colours_are_those_of_the_channels() -> None:
    image = np.zeros((3, 2, 4), dtype=np.float32)
    image[0, 0], image[2, 1] = 1.0, 0.5
    pixels = Images.pixels(image)
    assert pixels is not None
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert np.asarray(Image.open(io.BytesIO(pixel_png(pixels))))[1, 3].tolist() == [0, 0, 128]
    assert Images.pixels(np.zeros((2, 4, 4), dtype=np.float32)) is None, "two channels are no colours"


def test_what_is_no_image_is_drawn_by_its_modality(tmp_path: Path) -> None:
    is_in = coins(3)
    right = answers(is_in, [(8, 0), (8, 2), (8, 4)])
    run = stored(tmp_path / "run", bank(is_in, right, right, ["typical"] * 3, shape=(2, 20)), modality=Series())
    pictures = [example.image for example in browse(run).shown]
    assert len(set(pictures)) == 3
    assert decode(pictures[0]).size == (72, 72)
    assert pictures == [example.image for example in browse(run).shown], "equal results give equal pictures"


def test_examples_beyond_the_number_are_left_out(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", RATES)
    browser = browse(run, max_examples=2)
    assert [example.subject for example in browser.shown] == [example.subject for example in browse(run).shown[:2]]
    assert browser.total == 6
    assert browser.first == FIRST
    whole = browse(run).shown[0].scores["global"]
    assert browser.shown[0].scores["global"] != whole, "intervals allow for the selection"


def test_sensitive_cells_stay_hidden(tmp_path: Path) -> None:
    is_in = coins(3)
    right = answers(is_in, [(8, 0), (8, 2), (8, 4)])
    sources = SourceRows(
        target=np.zeros(3, dtype=np.int64),
        is_altered=np.array([False, False, True]),
        cells={"hiv": np.array(["pos", "neg", "pos"]), "bp": np.array(["120", "", "90"])},
        sensitive=("hiv",),
    )
    evidence = bank(is_in, right, right, ["typical"] * 3, shape=(4,))
    texts = {
        one.subject: one.text
        for one in browse(stored(tmp_path / "run", evidence, sources=sources, modality=Tables())).shown
    }
    assert texts[0] == "hiv=(hidden), bp=120"
    assert texts[1] == "hiv=(hidden), bp=(missing)"
    assert "column 1=" in texts[2]
    assert "hiv" not in texts[2]


def test_without_scores_the_examples_are_still_there(tmp_path: Path) -> None:
    write(tmp_path / "run")
    browser = browse(read(tmp_path / "run"))
    assert browser.measure == ""
    assert len(browser.shown) == browser.total > 0
    assert all(example.scores == {"local": "not measured", "global": "not measured"} for example in browser.shown)
    assert not any(example.bars for example in browser.shown)
