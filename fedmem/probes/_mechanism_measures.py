"""The measures of the probe `mechanism`."""

from __future__ import annotations

from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label

MEASURES = (
    Measure(
        name="mechanism_p",
        title="p of the stated mechanism",
        means="The p-value of a direct test of noise, clipping or batches.",
        is_not="A large value does not prove the mechanism.",
        range=(0.0, 1.0),
        direction="neither",
        section="privacy",
        order=8,
    ),
    Measure(
        name="noise_variance",
        title="noise variance",
        means="Mean square of the noise in one array, in units of its stated variance.",
        direction="neither",
        section="none",
    ),
    Measure(
        name="noise_along",
        title="noise along a direction",
        means="Standard score of the noise along the sum of contributions, or along what clipping removes.",
        direction="neither",
        section="none",
    ),
    Measure(
        name="noise_in_span",
        title="noise in the span of updates",
        means="Mean square of the noise within the span of the contributions.",
        direction="neither",
        section="none",
    ),
    Measure(
        name="projection",
        title="projection",
        means="Sum of the noise with random signs.",
        direction="neither",
        section="none",
    ),
    Measure(
        name="batches",
        title="batches",
        means="Standard score of the sizes, spread or overlap of batches.",
        direction="neither",
        section="none",
    ),
    Measure(
        name="tree",
        title="tree",
        means="A fact of the noise tree in one round.",
        direction="neither",
        section="none",
    ),
)
"""Those of the readings, and of the tests that follow from them."""

TEST_LABELS = (
    Label("test", "text", "what is tested"),
    Label("release", "text", "what is read: a release of the server, a local step, or a batch"),
    Label("step", "whole", "the number of the local step"),
    Label("array", "text", "the array of parameters"),
    Label("direction", "text", "sum or excess: the direction along which the noise is read"),
    Label("j", "whole", "the number of the random signs"),
    Label("alpha", "number", "the level of all tests together"),
)
"""The further labels."""
