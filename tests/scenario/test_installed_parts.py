"""Tests of `fedmem/scenario/installed_parts.py`: packages that are on the path, as an installer leaves them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedmem.cli.completion import kinds as completed_kinds
from fedmem.cli.main import app
from fedmem.errors import ComponentError, ScenarioError
from fedmem.results.provenance import changed_inputs, packages_of, provenance_of, provenance_of_measuring
from fedmem.scenario import catalogue
from fedmem.scenario.installed_parts import find_installed, installed_kinds, installed_parts, unusable_names
from fedmem.scenario.json_schema import scenario_schema
from tests.tiny import tiny

PART = '''"""Parts of somebody else."""

from dataclasses import dataclass

from flwr.serverapp.strategy import FedAvg


@dataclass(frozen=True, kw_only=True)
class FirstOnes:
    """The first clients of the federation, in each round.

    Fields:
        size: how many.
    """

    size: int = 2

    def cohort(self, round_number, history, rng):
        return tuple(range(self.size))


class Plain(FedAvg):
    """A strategy that knows nothing of fedmem."""
'''


def install(site: Path, names: dict[str, str], package: str = "acme-parts", version: str = "1.2") -> None:
    """What an installer leaves of a package: its metadata, with these entry points."""
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = "".join(f"{name} = {target}\n" for name, target in names.items())
    (folder / "entry_points.txt").write_text(f"[fedmem.components]\n{lines}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, with the module `acme_parts`."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "acme_parts.py").write_text(PART)
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("acme_parts", None)


@pytest.fixture
def acme(site: Path) -> Path:
    install(site, {"sampler.first_ones": "acme_parts:FirstOnes", "strategy.plain": "acme_parts:Plain"})
    return site


def output(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def with_sampler(kind: str, **fields: Any) -> Any:
    return tiny(sampler={"kind": kind, **fields})


def test_name_is_a_short_way_to_write_the_class(acme: Path) -> None:
    by_name, by_class = with_sampler("first_ones", size=3), with_sampler("acme_parts:FirstOnes", size=3)
    assert by_name.id == by_class.id
    assert by_name.to_yaml() == by_class.to_yaml()
    assert tiny(strategy={"kind": "plain"}).id == tiny(strategy={"kind": "acme_parts:Plain"}).id
    assert catalogue.resolve("sampler", "first_ones") == "acme_parts:FirstOnes"
    with pytest.raises(ScenarioError, match=r"size"):
        with_sampler("first_ones", size="x")


def test_names_appear_where_shipped_kinds_do(acme: Path) -> None:
    assert "first_ones" in catalogue.all_kinds("sampler")
    assert "first_ones" not in catalogue.kinds("sampler")
    line = next(line for line in output("list", "sampler").splitlines() if line.startswith("first_ones"))
    assert line.endswith("The first clients of the federation, in each round. (acme-parts 1.2)")
    shown = output("show", "sampler", "first_ones")
    assert "how many" in shown
    assert "sampler acme_parts:FirstOnes, defined in" in shown
    assert "size" in shown
    assert [kind for kind, _ in completed_kinds("sampler", "first")] == ["first_ones"]
    with pytest.raises(ScenarioError, match="did you mean 'first_ones'"):
        with_sampler("first_one")


def test_schema_has_their_fields(acme: Path) -> None:
    schema = scenario_schema()
    part = schema["$defs"]["sampler.first_ones"]
    assert part["properties"]["kind"]["const"] == "first_ones"
    assert part["properties"]["size"]["default"] == 2
    assert {"$ref": "#/$defs/strategy.plain"} in schema["$defs"]["strategy"]["oneOf"]


def test_code_and_version_are_in_the_provenance(acme: Path) -> None:
    scenario = with_sampler("first_ones")
    manifest = provenance_of(scenario)
    assert manifest["packages"] == {"acme-parts": "1.2"}
    assert packages_of(tiny()) == {}
    assert changed_inputs(scenario, manifest) == []
    (acme / "acme_parts.py").write_text(f"{PART}\nMORE = 1\n")
    assert changed_inputs(scenario, manifest) == ["acme_parts:FirstOnes"]
    (acme / "acme_parts.py").write_text(PART)
    (acme / "acme_parts-1.2.dist-info").rename(acme / "gone")
    install(acme, {"sampler.first_ones": "acme_parts:FirstOnes"}, version="1.3")
    _forget()
    assert changed_inputs(scenario, manifest) == ["the version of the package acme-parts"]
    assert provenance_of_measuring(scenario, manifest)["packages"] == {"acme-parts": "1.2, then 1.3"}


def test_version_of_an_estimator_is_that_of_measuring(acme: Path) -> None:
    manifest = {**provenance_of(tiny()), "packages": {"acme-parts": "1.2"}}
    assert provenance_of_measuring(tiny(), manifest)["packages"] == {}


@pytest.mark.parametrize("name", ["uniform", "first_ones"])
def test_two_things_of_one_name_are_named_both(name: str, acme: Path) -> None:
    install(acme, {f"sampler.{name}": "other:Thing"}, package="other", version="0.1")
    with pytest.raises(ScenarioError, match=rf"'{name}' names 2 kinds") as raised:
        with_sampler(name)
    first = "fedmem/samplers/uniform.py of fedmem" if name == "uniform" else "acme_parts:FirstOnes of the installed"
    assert first in str(raised.value)
    assert "other:Thing of the installed package other 0.1" in str(raised.value)
    assert with_sampler("cyclic", size=2)  # the others are as they were
    assert "uniform" in output("list", "sampler")
    assert name == "uniform" or "first_ones" not in installed_kinds("sampler", ())


def test_broken_package_breaks_nothing_else(acme: Path) -> None:
    install(acme, {"sampler.lost": "nowhere_at_all:Thing"}, package="broken-parts", version="2.0")
    with pytest.raises(ScenarioError) as raised:
        with_sampler("lost")
    assert str(raised.value).count("nowhere_at_all:Thing of the installed package broken-parts 2.0") == 1
    assert "importing 'nowhere_at_all' failed" in str(raised.value)
    listed = output("list", "sampler")
    assert "cannot be used: 'lost' is nowhere_at_all:Thing of the installed package broken-parts 2.0" in listed
    assert "first_ones" in listed
    assert "sampler.lost" not in scenario_schema()["$defs"]
    assert with_sampler("first_ones").id != tiny().id


@pytest.mark.parametrize("name", ["samplr.mine", "sampler", "sampler._mine", "sampler.two.three"])
def test_name_that_is_no_family_and_kind_is_reported(name: str, site: Path) -> None:
    install(site, {name: "acme_parts:FirstOnes"})
    (message,) = unusable_names()
    assert f"acme-parts 1.2 registers {name!r}" in message
    assert name in CliRunner().invoke(app, ["list", "attack"]).stderr
    assert installed_kinds("sampler", ()) == ()


def test_part_is_found_by_family_and_name(acme: Path) -> None:
    assert [part.kind for part in installed_parts()] == ["first_ones", "plain"]
    assert find_installed("strategy", "first_ones", None) is None
    with pytest.raises(ComponentError, match="names 2 kinds"):
        find_installed("sampler", "first_ones", "shipped.py")


def _forget() -> None:
    """As in a new process."""
    from fedmem.scenario import installed_parts as module

    module._read.cache_clear()
