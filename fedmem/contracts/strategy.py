"""What a strategy must do, and what it may declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@runtime_checkable
class StrategyMaker(Protocol):
    """Makes a Flower `Strategy` for a cohort of this size (0: it varies); may carry a rule (strategies/_rule.py).

    A class may say what it needs: `client: ClassVar[str]`, the kind of client algorithm that honours its offers;
    `client_fields`, a mapping of that client's fields to the values that it reckons with; and a property `min_cohort`,
    the clients without which its guarantee does not hold.
    `reads: ClassVar[tuple[str, ...]]`, or a property, names what it reads of clients beside their updates, by the words
    of `coverage.WORDS`: `rows`, `steps`, `lr`, `loss`; () says that it reads nothing else. One that does not say gets
    no privacy guarantee. `noise_covers` names those of them that its own noise covers. A subclass with methods of its
    own declares both again.
    `weighting`, a field or `ClassVar`, says how clients count: by `size`, also if it does not say, or `uniform`.
    One that adds noise for privacy says `noisy: ClassVar[bool] = True`. Where this noise is not new in every round, a
    method `moved(rounds, pause, turns=None)` gives the square of by how many clips one client moves everything that is
    released, with `turns` of it at least `pause` rounds apart; None: as many as fit.
    """

    def make(self, cohort_size: int) -> Any: ...


def _weighting(scenario: Scenario) -> str:
    """How clients count: by size, also if the strategy does not say."""
    return getattr(scenario.strategy, "weighting", "size")
