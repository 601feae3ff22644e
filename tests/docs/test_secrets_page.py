"""What the page on secrets names exists, and the numbers in it follow from their definitions."""

import math
import re
from dataclasses import fields
from pathlib import Path

from fedmem.estimators.exposure import null_mean
from fedmem.modalities.text.prefix_tree import ENUMERABLE, Tree
from fedmem.modalities.text.secret_space import Candidates
from fedmem.probes._leak_measures import EXTRACTED
from fedmem.probes.extraction import Extraction
from fedmem.scenario import catalogue
from fedmem.shipped.files import scenario_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "secrets.md").read_text()


def test_every_way_of_extraction_is_explained() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == {one.name for one in EXTRACTED}
    for field in ("width", "distance", "top_k", "temperature", "calls"):
        assert f"`{field}`" in PAGE
        assert field in {one.name for one in fields(Extraction)}


def test_kinds_and_scenario_exist() -> None:
    for family, kinds in {
        "estimator": ("exposure", "exposure_skewnormal", "memorisation"),
        "injection": ("secret", "random_tokens", "personal"),
        "strategy": ("dp_fedavg",),
        "probe": ("extraction",),
    }.items():
        for kind in kinds:
            assert f"`{kind}`" in PAGE
            assert kind in catalogue.kinds(family)
    names = re.findall(r"fedmem run (\w+)`", PAGE)
    assert {"extraction", "own_secrets"} <= set(names)
    assert set(names) <= set(scenario_names())


def test_its_numbers_are_right() -> None:
    assert f"{math.log2(math.e):.2f}" == "1.44"
    assert abs(null_mean(10**6) - math.log2(math.e)) < 1e-4
    assert ENUMERABLE == 10**6
    digits = Candidates(prefix=(0,), positions=(tuple((digit,) for digit in range(10)),) * 6)
    assert digits.size == ENUMERABLE
    # every prefix but whole members: 1 + 10 + ... + 10^5
    assert sum(10**place for place in range(6)) == 111_111
    assert Tree.of(digits).count.max() == 10
