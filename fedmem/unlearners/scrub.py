"""Parts of a model go back to their initial values: units that are tied to what is forgotten, or whole blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import RunToForget, UnlearningContext


@dataclass(frozen=True, kw_only=True)
class Scrub:
    """Entries of the model go back to the initial values of the run, and the rounds of the phase train on from there.

    By default, these are the entries that act only through units tied to what is forgotten. They are the weights
    into and out of these units, and their biases. The network must have such units, by `tied_dropout` of the
    scenario. Evaluation drops them anyway, so that no output of the scrubbed model differs. What changes is the
    stored model: these units hold nothing of a forgotten example any more. Their initial values show that something
    was reset. Other examples that are tied to the same units lose what they stored there, and train it again in the
    rounds that follow.

    With `blocks`, whole blocks go back, for any network. A block is a matrix or kernel with all that follows it up to
    the next one, numbered from 1 as by the signal `block_swap`. All blocks together are the initial weights. Test
    accuracy falls with them, until the rounds of the phase have trained them again.

    In a run in which nobody has anything to forget, the model stays as it is, to the last bit.

    Fields:
        blocks: Numbers of blocks; left out, the units that are tied to forgotten examples or clients.

    >>> Scrub().reads_tied_units, Scrub(blocks=(2,)).reads_tied_units
    (True, False)

    Reference: Maini et al. (2023), Can Neural Network Memorization Be Localized?
    """

    blocks: tuple[Annotated[int, Ge(1)], ...] = ()

    @property
    def reads_tied_units(self) -> bool:
        """Whether it resets tied units, and no blocks."""
        return not self.blocks

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The models with the initial values of these entries."""
        return [self._reset(context, run) if run.forgotten else run.before for run in context.runs]

    def _reset(self, context: UnlearningContext, run: RunToForget) -> Params:
        if self.blocks:
            names = {name for number in self.blocks for name in context.blocks[number - 1]}
            return {name: run.initial[name] if name in names else value for name, value in run.before.items()}
        entries = context.tied_entries(run.run)
        return {
            name: value.where(~entries[name], run.initial[name]) if name in entries else value
            for name, value in run.before.items()
        }
