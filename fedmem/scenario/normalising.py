"""The policy of a scenario for normalisation layers with running statistics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedmem.scenario.section import Section

NormKind = Literal["local", "averaged", "frozen", "to_group"]


class Norm(Section):
    """The policy for layers with running statistics, such as BatchNorm; a network without any takes none.

    >>> Norm(kind="averaged").is_updated, Norm(kind="frozen").is_updated
    (True, False)
    """

    kind: NormKind = Field(
        description="with local (FedBN), statistics, scales and shifts stay with each client. With averaged, "
        "statistics are sent and aggregated like parameters. With frozen, they stay as the network was built. With "
        "to_group, GroupNorm replaces BatchNorm"
    )

    @property
    def is_updated(self) -> bool:
        """Whether training updates running statistics."""
        return self.kind in ("local", "averaged")
