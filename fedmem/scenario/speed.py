"""How a scenario is computed: executors, processes, devices and memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from fedmem.scenario.section import Section


class Speed(Section):
    """How it is computed, not what: nothing here enters the id but a `precision` other than fp32."""

    engine: Literal["lockstep", "flower"] = Field(
        default="lockstep", description="all runs in step in this process, or each on Flower's own simulation runtime"
    )
    executor: Literal["auto", "stacked", "one_by_one"] = Field(
        default="auto", description="train clients as one stack, or one by one (the reference)"
    )
    server: Literal["auto", "messages", "rule"] = Field(
        default="auto", description="aggregate through Flower messages, or by the strategy's rule for all runs at once"
    )
    threads: Annotated[int, Strict(), Field(ge=1, le=1024)] = Field(
        default=1, description="threads of torch in each process"
    )
    workers: Literal["auto"] | Annotated[int, Strict(), Field(ge=1, le=1024)] = Field(
        default="auto", description="processes that train; auto is one for each core that can have something to do"
    )
    shard: Annotated[int, Strict(), Field(ge=1, le=10**5)] = Field(
        default=16, description="runs, at most, that are trained together, and kept when the command is interrupted"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="cpu",
        description="where tensors live; auto is cuda where there is such a GPU, else cpu. It is decided once for a "
        "command. mps is a GPU of Apple",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="of the local steps of clients; tf32 and bf16 round the factors of products, which changes results "
        "and the id. All else is computed in full precision",
    )
    memory: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="gigabytes that training should stay within; stacks are made smaller to fit"
    )
    cache_prefix: Literal["auto", "off"] = Field(
        default="auto",
        description="auto stores the outputs of frozen layers by row; off computes them again. They are stored where "
        "they save a quarter of a forward pass and take at most 2 GiB. Numbers are the same but for rounding",
    )
    seconds_per_client: Annotated[float, Field(gt=0, le=10**9)] = Field(
        default=3600.0,
        description="how long the steps of one client may take in a round before the run ends with a message. A stack "
        "of clients has as much for each",
    )
    address: str | None = Field(
        default=None, description="of a running Ray cluster, for the engine flower; by default one is started here"
    )
