"""What an experiment file holds: a system, a workload, and how closely to look."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import PositiveInt
from archsim.expectations import Expectation
from archsim.system import SystemSpec
from archsim.workload.precision import Precision
from archsim.workload.shared_prefix import NO_PREFIX, SharedPrefix, SharedPrefixSpec


class Fidelity(StrEnum):
    """How closely operators are simulated: every memory command, or only the bound that no machine can beat."""

    CYCLE = "cycle"
    ROOFLINE = "roofline"


class BatchingPolicy(StrEnum):
    """Which waiting work an iteration takes up first."""

    PREFILL_FIRST = "prefill_first"  # whole prompts of waiting requests as far as they fit, else a decode step of all


class BatchingSpec(Spec):
    """Iteration-level continuous batching. The defaults are those of vLLM's server on an H100 or H200
    (vllm/engine/arg_utils.py, v0.8: max_num_seqs, max_num_batched_tokens)."""

    max_batch: Annotated[PositiveInt, Field(description="requests that run at the same time")] = 256
    max_prefill_tokens: Annotated[
        PositiveInt, Field(description="prompt tokens of one iteration; a longer prompt has one to itself")
    ] = 8192
    policy: Annotated[BatchingPolicy, Field(description="what an iteration takes up first")] = (
        BatchingPolicy.PREFILL_FIRST
    )


class PrefillSpec(Spec):
    """One pass over `batch` prompts of `prompt_tokens` each, nothing cached before but a shared prefix."""

    prompt_tokens: PositiveInt
    batch: PositiveInt = 1


class DecodeSpec(Spec):
    """One token for each sequence of the workload's batch, with `context_tokens` cached in each."""

    context_tokens: PositiveInt
    context_parallel: Annotated[
        PositiveInt, Field(description="devices with copies of the same KV heads that deal the cache out by tokens")
    ] = 1


class _Workload(Spec):
    model: Annotated[str, Field(description="a shipped model, or the path of a Hugging Face config.json")]
    precision: Precision = Precision()
    tensor_parallel: Annotated[PositiveInt, Field(description="devices that share every operator")] = 1
    shared_prefix: SharedPrefixSpec | None = None

    @property
    def prefix(self) -> SharedPrefix:
        """The shared prefix as lowering takes it."""
        return NO_PREFIX if self.shared_prefix is None else self.shared_prefix.lowered


class PhasesWorkload(_Workload):
    """Prefill and decode, each looked at by itself: one forward pass of each."""

    kind: Literal["phases"]
    batch: Annotated[PositiveInt, Field(description="sequences that decode together")] = 1
    prefill: PrefillSpec | None = None
    decode: DecodeSpec | None = None
    kv_block_tokens: Annotated[
        PositiveInt | None,
        Field(description="tokens per block of a paged KV cache, blocks in random order; contiguous by default"),
    ] = None

    @model_validator(mode="after")
    def _has_a_phase(self) -> "PhasesWorkload":
        if self.prefill is None and self.decode is None:
            raise UserError("there is nothing to run", expected="prefill, decode or both")
        return self


class RequestsWorkload(_Workload):
    """Requests of a trace, served with continuous batching."""

    kind: Literal["requests"]
    trace: Annotated[
        str | tuple[str, ...],
        Field(description="a CSV file of requests, or several of which the first that exists is taken"),
    ]
    limit: Annotated[PositiveInt | None, Field(description="so many requests from the start; all by default")] = None
    batching: BatchingSpec = BatchingSpec()


WorkloadSpec = Annotated[PhasesWorkload | RequestsWorkload, Field(discriminator="kind")]


class ExperimentSpec(Spec):
    """A system and a workload. The system is the name or path of a preset, or a mapping with a `base:` and changes."""

    kind_in_words: ClassVar[str] = "an experiment"

    kind: Literal["experiment"]
    name: str
    description: str = ""
    system: SystemSpec
    workload: WorkloadSpec
    fidelity: Fidelity = Fidelity.CYCLE
    seed: Annotated[int, Field(ge=0)] = 0
    sweep: Annotated[
        dict[str, Any] | None, Field(description="what `archsim sweep` varies; a single run takes no notice of it")
    ] = None
    search: Annotated[
        dict[str, Any] | None, Field(description="what `archsim search` looks for; a single run takes no notice of it")
    ] = None
    no_shortcuts: Annotated[
        bool, Field(description="simulate every command although an exact shortcut is known; slower, same numbers")
    ] = False
    expect: Annotated[
        tuple[Expectation, ...], Field(description="what metrics should be, by papers or measurements: `archsim check`")
    ] = ()
