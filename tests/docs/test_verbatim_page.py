"""The page on texts that models repeat names what exists, and its commands and numbers are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fedmem.clients.sgd import Sgd
from fedmem.probes import verbatim
from fedmem.probes._leak_measures import CONTINUED, FILLED_IN
from fedmem.scenario import catalogue
from fedmem.scenario.loading import load_scenario
from fedmem.signals.min_k import MinK

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "verbatim.md").read_text(encoding="utf-8")


def test_commands_of_the_page_are_accepted_and_differ() -> None:
    (block,) = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    ids = []
    for line in block.strip().splitlines():
        program, command, name, *changes = shlex.split(line)
        assert (program, command, name) == ("fedmem", "run", "verbatim")
        ids.append(load_scenario(ROOT / "scenarios" / f"{name}.yaml", changes).id)
    assert len(set(ids)) == 3


def test_every_measure_and_kind_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == {*(one.name for one in CONTINUED), "min_k", "min_k_plus_plus", "reference_model"}
    assert all(f"`{one.name}`" in PAGE for one in FILLED_IN)
    for family, kinds in {
        "probe": ("verbatim", "masked_field", "extraction"),
        "signal": ("min_k",),
        "injection": ("personal", "secret", "existing_secret"),
        "client": ("sgd", "fedper", "local_norm", "selective", "top_k", "dp_sgd"),
    }.items():
        assert all(f"`{kind}`" in PAGE and kind in catalogue.kinds(family) for kind in kinds)


def test_defaults_that_the_page_gives_are_those_of_the_code() -> None:
    assert "`near`, .9 by default" in PAGE
    assert verbatim.Verbatim().near == 0.9
    assert f"above .{round(100 * verbatim.BLEU)}" in PAGE
    assert ".2 by default" in PAGE
    assert MinK().k == 0.2
    assert f"{Sgd().goldfish_context} by default" in PAGE
