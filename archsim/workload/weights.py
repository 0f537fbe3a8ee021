"""Every weight tensor of a model and how tensor parallelism cuts it: the one list that parameter counts,
memory placement and the operators' weight reads all come from.

Cuts are Megatron's: projections into heads and FFN columns by output, projections back by input, so that a
layer needs one all-reduce after attention and one after the FFN. Vocabulary matrices are cut by rows (the
last shard may be short; every device is counted with the longest). Norms, router and the latent projections
of MLA are on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from archsim.config.errors import UserError

if TYPE_CHECKING:
    from archsim.workload.model import MlaShape, ModelShape, MoeShape


class WeightKind(StrEnum):
    """What decides a weight's format: quantised matrices, the vocabulary, and what stays unquantised."""

    MATRIX = "matrix"
    VOCABULARY = "vocabulary"
    UNQUANTISED = "unquantised"


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """`copies` matrices of rows x columns on one device; the columns are the dimension a GEMM sums over."""

    name: str
    rows: int
    columns: int
    kind: WeightKind = WeightKind.MATRIX
    copies: int = 1
    routed: bool = False

    @property
    def elements(self) -> int:
        return self.copies * self.rows * self.columns


def check_tensor_parallel(model: ModelShape, tp: int) -> None:
    """Raise UserError, naming the sizes that work, unless `model` can be cut over `tp` devices."""
    if isinstance(tp, bool) or not isinstance(tp, int) or tp < 1:
        raise UserError(f"{model.name}: tensor parallelism cannot be {tp!r}", expected="a whole number of at least 1")
    reason = _why_not(model, tp)
    if reason:
        fits = ", ".join(str(size) for size in range(1, model.query_heads + 1) if not _why_not(model, size))
        raise UserError(f"{model.name}: tensor parallelism of {tp} does not work: {reason}", expected=f"one of {fits}")


def _why_not(model: ModelShape, tp: int) -> str:
    if model.query_heads % tp:
        return f"{model.query_heads} attention heads are not divisible by {tp}"
    if not model.mla and model.kv_heads % tp and tp % model.kv_heads:
        return f"{model.kv_heads} KV heads can neither be split over {tp} devices nor replicated evenly"
    for what, width in _ffn_widths(model):
        if width % tp:
            return f"{what} of {width} is not divisible by {tp}"
    return ""


def _ffn_widths(model: ModelShape) -> Iterator[tuple[str, int]]:
    if not all(model.moe_layers):
        yield "the FFN width", model.ffn
    if model.moe:
        yield "the expert width", model.moe.expert_ffn
        yield "the shared experts' width", model.moe.shared_ffn


def model_tensors(model: ModelShape, tp: int) -> Iterator[WeightTensor]:
    """All weights on one device of a group of `tp`, in the order they are used."""
    yield from embedding_tensors(model, tp)
    for layer in range(model.layers):
        yield from layer_tensors(model, layer, tp)
    yield from head_tensors(model, tp)


def vocabulary_rows(model: ModelShape, tp: int) -> int:
    """Rows of the vocabulary on one device, the longest shard."""
    return -(-model.vocabulary // tp)


def embedding_tensors(model: ModelShape, tp: int) -> Iterator[WeightTensor]:
    """Token table, learned positions and OPT-350M's projection into the hidden size."""
    yield WeightTensor(
        "embedding.weight", vocabulary_rows(model, tp), model.embedding_width, kind=WeightKind.VOCABULARY
    )
    if model.position_rows:
        yield WeightTensor("position_embedding.weight", model.position_rows, model.hidden, kind=WeightKind.VOCABULARY)
    if model.projected_embedding:
        yield WeightTensor("embedding_projection.weight", model.hidden, model.embedding_width)


def head_tensors(model: ModelShape, tp: int) -> Iterator[WeightTensor]:
    """Final norm and the LM head; a tied head is the embedding and has no tensor of its own."""
    if model.final_norm:
        yield from norm(model, "final_norm", model.hidden)
    if model.projected_embedding:
        yield WeightTensor("output_projection.weight", model.embedding_width, model.hidden)
    if not model.tied_embeddings:
        yield WeightTensor(
            "lm_head.weight", vocabulary_rows(model, tp), model.embedding_width, kind=WeightKind.VOCABULARY
        )


def layer_tensors(model: ModelShape, layer: int, tp: int) -> Iterator[WeightTensor]:
    """The weights of one layer, named "layers[3].qkv_proj.weight" and so on."""
    prefix = f"layers[{layer}]."
    yield from norm(model, prefix + "input_norm", model.hidden)
    if model.mla:
        yield from _latent_attention(model, model.mla, prefix, tp)
    else:
        yield from _attention(model, prefix, tp)
    yield from norm(model, prefix + "post_attention_norm", model.hidden)
    if model.sandwich_norms:
        yield from norm(model, prefix + "pre_ffn_norm", model.hidden)
    if model.moe and model.moe_layers[layer]:
        yield from _experts(model, model.moe, prefix, tp)
    else:
        yield from _ffn(model, prefix, model.ffn // tp)
    if model.sandwich_norms:
        yield from norm(model, prefix + "post_ffn_norm", model.hidden)


def norm(model: ModelShape, name: str, width: int) -> Iterator[WeightTensor]:
    """A norm's weight, and its bias for layer norm."""
    yield WeightTensor(f"{name}.weight", 1, width, kind=WeightKind.UNQUANTISED)
    if model.norm == "layer":
        yield WeightTensor(f"{name}.bias", 1, width, kind=WeightKind.UNQUANTISED)


def _bias(name: str, width: int) -> WeightTensor:
    return WeightTensor(f"{name}.bias", 1, width, kind=WeightKind.UNQUANTISED)


def _attention(model: ModelShape, prefix: str, tp: int) -> Iterator[WeightTensor]:
    query = model.query_heads // tp * model.head_dim
    fused = query + 2 * model.kv_heads_per_device(tp) * model.head_dim
    yield WeightTensor(prefix + "qkv_proj.weight", fused, model.hidden)
    if model.qkv_bias:
        yield _bias(prefix + "qkv_proj", fused)
    if model.qk_norm:
        yield WeightTensor(prefix + "qk_norm.weight", 2, model.head_dim, kind=WeightKind.UNQUANTISED)
    yield WeightTensor(prefix + "o_proj.weight", model.hidden, query)
    if model.output_bias:
        yield _bias(prefix + "o_proj", model.hidden)


def _latent_attention(model: ModelShape, mla: MlaShape, prefix: str, tp: int) -> Iterator[WeightTensor]:
    heads = model.query_heads // tp
    if mla.query_rank is None:
        yield WeightTensor(prefix + "q_proj.weight", heads * mla.query_dim, model.hidden)
    else:
        yield WeightTensor(prefix + "q_a_proj.weight", mla.query_rank, model.hidden)
        yield WeightTensor(prefix + "q_a_norm.weight", 1, mla.query_rank, kind=WeightKind.UNQUANTISED)
        yield WeightTensor(prefix + "q_b_proj.weight", heads * mla.query_dim, mla.query_rank)
    yield WeightTensor(prefix + "kv_a_proj.weight", mla.cached_dim, model.hidden)
    if model.qkv_bias:
        yield _bias(prefix + "kv_a_proj", mla.cached_dim)
        if mla.query_rank is not None:
            yield _bias(prefix + "q_a_proj", mla.query_rank)
    yield WeightTensor(prefix + "kv_a_norm.weight", 1, mla.kv_rank, kind=WeightKind.UNQUANTISED)
    # One matrix in a checkpoint; its halves are used apart by the absorbed form of decode.
    yield WeightTensor(prefix + "kv_b_proj.key.weight", heads * mla.nope_dim, mla.kv_rank)
    yield WeightTensor(prefix + "kv_b_proj.value.weight", heads * mla.value_dim, mla.kv_rank)
    yield WeightTensor(prefix + "o_proj.weight", model.hidden, heads * mla.value_dim)
    if model.output_bias:
        yield _bias(prefix + "o_proj", model.hidden)


def _ffn(model: ModelShape, prefix: str, width: int) -> Iterator[WeightTensor]:
    first = "gate_up_proj" if model.gated_ffn else "up_proj"
    columns = 2 * width if model.gated_ffn else width
    yield WeightTensor(f"{prefix}{first}.weight", columns, model.hidden)
    if model.ffn_bias:
        yield _bias(prefix + first, columns)
    yield WeightTensor(prefix + "down_proj.weight", model.hidden, width)
    if model.ffn_bias:
        yield _bias(prefix + "down_proj", model.hidden)


def _experts(model: ModelShape, moe: MoeShape, prefix: str, tp: int) -> Iterator[WeightTensor]:
    yield WeightTensor(prefix + "router.weight", moe.experts, model.hidden, kind=WeightKind.UNQUANTISED)
    if moe.router_bias:
        yield _bias(prefix + "router", moe.experts)
    width = moe.expert_ffn // tp
    yield WeightTensor(prefix + "experts.gate_up_proj.weight", 2 * width, model.hidden, copies=moe.experts, routed=True)
    yield WeightTensor(prefix + "experts.down_proj.weight", model.hidden, width, copies=moe.experts, routed=True)
    if moe.shared_ffn:
        shared = moe.shared_ffn // tp
        yield WeightTensor(prefix + "shared_experts.gate_up_proj.weight", 2 * shared, model.hidden)
        yield WeightTensor(prefix + "shared_experts.down_proj.weight", model.hidden, shared)
    if moe.shared_gate:
        yield WeightTensor(prefix + "shared_experts.gate.weight", 1, model.hidden, kind=WeightKind.UNQUANTISED)
