"""What the page on texts shows is accepted, and what it names exists."""

import re
from pathlib import Path

import yaml

from fedmem.injections.secret import Secret
from fedmem.scenario import catalogue

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "texts.md").read_text()


def test_the_injection_that_is_shown_is_one() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (written,) = yaml.safe_load(shown)["injections"]
    built = catalogue.build("injection", written)
    assert isinstance(built, Secret)
    assert built.total_copies(20, 1000) == 10 * 4 * 4


def test_every_kind_in_its_tables_exists() -> None:
    names = re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)
    assert len(names) == 9
    assert set(names) <= {*catalogue.kinds("dataset"), *catalogue.kinds("injection")}
