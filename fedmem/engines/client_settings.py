"""How the clients of a scenario are trained, in whichever process that happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmem.contracts.training_mode import TrainingMode
from fedmem.privacy.mechanisms import adds_noise
from fedmem.training.defence_pipeline import DefencePipeline
from fedmem.training.executor import Settings

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


def client_settings(scenario: Scenario, federation: Federation | None = None) -> Settings:
    """Everything that numbers depend on: the defences on the way out of a client, the seed and the training mode.

    A federation also gives the stored outputs of its frozen layers. The rest of the settings are defaults, which the
    caller may replace.
    """
    pipeline = DefencePipeline(scenario.defences, scenario.training_seed, guaranteed=adds_noise(scenario.strategy))
    return Settings(
        defences=pipeline,
        seed=scenario.training_seed,
        mode=TrainingMode() if federation is None else federation.mode,
        shared_draws=scenario.batches == "shared",
        precision=scenario.speed.precision,
        prefix=federation.prefix if federation is not None and scenario.speed.cache_prefix == "auto" else None,
    )
