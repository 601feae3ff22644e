"""The weights that runs start from, where these are not drawn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag

from fedmem.errors import ComponentError
from fedmem.scenario.section import Section
from fedmem.weights.origins import WeightsOrigin, find_origin


class InitialWeights(Section):
    """Weights of a finished run or of a file, which all runs start from."""

    source: Annotated[str, Strict(), Field(min_length=1)] = Field(
        alias="from",
        description="a finished run with saved models, a file of weights, or the folder of a model. Relative to the "
        "folder in which fedmem is started, or else to the scenario's file",
    )
    round: Annotated[int, Strict(), Field(ge=-(10**8), le=10**8)] | None = Field(
        default=None, description="the saved round of the run; by default the last one"
    )
    run: Annotated[int, Strict(), Field(ge=0, le=10**5)] | None = Field(
        default=None, description="which of its runs; by default the first, 0"
    )
    fresh: tuple[str, ...] = Field(
        default=(),
        alias="except",
        description="names that are not taken over, such as output.*: these parameters are drawn, and weights of these "
        "names are not used",
    )
    prefix: str = Field(default="", description="put before the names of the weights, such as network.")

    def origin(self) -> WeightsOrigin:
        """The files that are meant. Errors: `ComponentError` where there are none."""
        return find_origin(self.source, self.round, self.run)

    def input_files(self) -> tuple[Path, ...]:
        """The files that are read; the path stands for itself where nothing is there."""
        with suppress(ComponentError):
            return self.origin().files
        return (Path(self.source).expanduser(),)


def _alternative(value: Any) -> str:
    return "<section>" if isinstance(value, (Mapping, InitialWeights)) else "<word>"


InitialWeightsField = Annotated[
    Annotated[Literal["shared", "per_run"], Tag("<word>")] | Annotated[InitialWeights, Tag("<section>")],
    Discriminator(_alternative),
]
"""A word, or the section; the tags are no part of a place in a message."""


def beside_file(tree: Mapping[str, Any], file: str) -> str | None:
    """The path of the weights in the folder of the scenario's file, where it is relative and only there; else None.

    >>> beside_file({"initial_weights": {"from": "/weights.pt"}}, "folder/scenario.yaml") is None
    True
    """
    section = tree.get("initial_weights")
    text = section.get("from") if isinstance(section, Mapping) else None
    if not isinstance(text, str) or not text or "\0" in text:
        return None
    path = Path(text).expanduser()
    with suppress(OSError):
        other = Path(file).parent / path
        if not path.is_absolute() and not path.exists() and other.exists():
            return str(other)
    return None
