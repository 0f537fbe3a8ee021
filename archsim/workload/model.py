"""The shape of a decoder-only transformer: every size that costs memory or arithmetic, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from archsim.workload import weights

if TYPE_CHECKING:
    from archsim.workload.precision import Precision


class NormKind(StrEnum):
    """RMS norm has a weight per element; layer norm subtracts the mean and has a bias too."""

    RMS = "rms"
    LAYER = "layer"


class FfnActivation(StrEnum):
    """The elementwise function of the feed-forward block."""

    SILU = "silu"
    GELU = "gelu"
    RELU = "relu"


@dataclass(frozen=True, slots=True)
class MlaShape:
    """Multi-head latent attention: one latent per token stands for the keys and values of all heads.

    The cache holds `kv_rank` latent elements and `rope_dim` rotated key elements per token.
    `query_rank` is None where the query projection is not factored (DeepSeek-V2-Lite)."""

    kv_rank: int
    query_rank: int | None
    nope_dim: int
    rope_dim: int
    value_dim: int

    @property
    def query_dim(self) -> int:
        """Elements of one head's query (and of its expanded key)."""
        return self.nope_dim + self.rope_dim

    @property
    def cached_dim(self) -> int:
        """Elements cached per token and layer."""
        return self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class MoeShape:
    """Routed experts of a layer, with the experts every token passes (`shared_ffn` is their summed width)."""

    experts: int
    experts_per_token: int
    expert_ffn: int
    shared_ffn: int = 0
    shared_gate: bool = False
    router_bias: bool = False


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only transformer. Sizes are elements; one value per layer where layers differ.

    `windows[i]` is the number of most recent tokens (the token itself included) that layer i attends to,
    or None for all of them. `moe_layers[i]` says whether layer i has experts in place of its FFN.
    `position_rows` is the height of a learned position table, 0 for rotary positions; its first
    `position_offset` rows belong to no position."""

    name: str
    family: str
    layers: int
    hidden: int
    query_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    windows: tuple[int | None, ...]
    moe_layers: tuple[bool, ...]
    activation: FfnActivation = FfnActivation.SILU
    gated_ffn: bool = True
    norm: NormKind = NormKind.RMS
    sandwich_norms: bool = False
    final_norm: bool = True
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    tied_embeddings: bool = False
    embedding_dim: int = 0
    position_rows: int = 0
    position_offset: int = 0
    moe: MoeShape | None = None
    mla: MlaShape | None = None

    @property
    def rotary(self) -> bool:
        """Whether positions enter by rotating queries and keys."""
        return self.position_rows == 0

    @property
    def value_dim(self) -> int:
        """Elements of one head's output."""
        return self.mla.value_dim if self.mla else self.head_dim

    @property
    def projected_embedding(self) -> bool:
        """Whether the embedding is narrower than the hidden state and projected in and out (OPT-350M)."""
        return self.embedding_dim not in (0, self.hidden)

    @property
    def embedding_width(self) -> int:
        """Elements of one row of the embedding table."""
        return self.embedding_dim or self.hidden

    def parameters(self) -> int:
        """All parameters, a tied embedding counted once."""
        return sum(tensor.elements for tensor in weights.model_tensors(self, tp=1))

    def active_parameters(self) -> int:
        """Parameters one token passes: all but the experts it is not routed to. The embedding table counts whole."""
        return sum(
            tensor.elements * self.moe.experts_per_token // self.moe.experts
            if tensor.routed and self.moe
            else tensor.elements
            for tensor in weights.model_tensors(self, tp=1)
        )

    def kv_heads_per_device(self, tp: int = 1) -> int:
        """KV heads one device of a group of `tp` holds; replicated where there are fewer heads than devices."""
        return max(1, self.kv_heads // tp)

    def kv_rows(self, tp: int = 1) -> tuple[int, int]:
        """(vectors, elements per vector) cached per token and layer on one device.

        A latent (MLA) serves all heads, so that every device keeps it whole."""
        if self.mla:
            return 1, self.mla.cached_dim
        return 2 * self.kv_heads_per_device(tp), self.head_dim

    def kv_bytes_per_token_per_layer(self, precision: Precision, tp: int = 1) -> int:
        """Bytes of KV cache one token takes in one layer on one device."""
        vectors, elements = self.kv_rows(tp)
        return precision.kv_format.tensor_bytes(vectors, elements)

    def kv_bytes_per_token(self, precision: Precision, tp: int = 1) -> int:
        """Bytes of KV cache one token takes over all layers on one device."""
        return self.layers * self.kv_bytes_per_token_per_layer(precision, tp)

    def weight_bytes(self, precision: Precision, devices: int = 1) -> int:
        """Bytes of weights on ONE device of a tensor-parallel group of `devices`, block scales included.

        Raises UserError if the heads or widths don't divide."""
        weights.check_tensor_parallel(self, devices)
        return sum(precision.weight_bytes(tensor) for tensor in weights.model_tensors(self, devices))
