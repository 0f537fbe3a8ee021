"""The operators of each part of a model on one device of a tensor-parallel group, in launch order.

The order is that of vLLM's Llama: the residual is added in the norm that follows, Q, K and V are one
projection, gate and up are one, rotation and the append to the KV cache are launches of their own.

What moves. Each operator lists every tensor it reads and writes once, activations too; whether an activation
stays on chip is the engine's business. Activation buffers are reused from layer to layer, as an allocator
does, so that "residual" or "gate_up" is the same memory in every layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from archsim.records import Access, GemmShape, Operator, OperatorKind, TensorClass
from archsim.workload import weights
from archsim.workload.costs import (
    ACTIVATION_FLOPS,
    COMBINE_FLOPS,
    GATE_FLOPS,
    NORM_FLOPS,
    RESIDUAL_FLOPS,
    ROPE_FLOPS,
    SOFTMAX_FLOPS,
    expected_distinct_experts,
)
from archsim.workload.model import MlaShape, ModelShape, MoeShape, NormKind
from archsim.workload.precision import Precision
from archsim.workload.weights import WeightKind, WeightTensor

NO_LAYER = -1
"""The layer of what runs before or after the layers."""


class LayerBuilder:
    """Builds operators of one (model, precision, tensor parallelism); what it builds is never changed after."""

    def __init__(self, model: ModelShape, precision: Precision, tp: int) -> None:
        weights.check_tensor_parallel(model, tp)
        self.model, self.precision, self.tp = model, precision, tp
        self.heads = model.query_heads // tp
        self.kv_heads = model.kv_heads_per_device(tp)
        self.kv_token_bytes = model.kv_bytes_per_token_per_layer(precision, tp)
        self.tensors: dict[str, WeightTensor] = {t.name: t for t in weights.model_tensors(model, tp)}
        self.weights: dict[str, Access] = {t.name: self._weight(t) for t in self.tensors.values()}

    def _weight(self, tensor: WeightTensor) -> Access:
        vocabulary = tensor.kind is WeightKind.VOCABULARY
        return Access(
            tensor.name,
            TensorClass.EMBEDDING if vocabulary else TensorClass.WEIGHT,
            self.precision.weight_bytes(tensor),
        )

    # -- pieces -------------------------------------------------------------------------------------------------

    def activation(self, name: str, rows: int, columns: int) -> Access:
        """`rows` tokens of `columns` elements between operators."""
        return Access(name, TensorClass.ACTIVATION, self.precision.activation_bytes(rows, columns))

    def kv(self, layer: int, tokens: int) -> Access:
        """The KV cache of `tokens` tokens in one layer."""
        return Access(f"layers[{layer}].kv", TensorClass.KV, tokens * self.kv_token_bytes)

    def kv_shared(self, layer: int, tokens: int, passes: int) -> Access:
        """`tokens` tokens of the shared prefix's KV cache in one layer, read `passes` times."""
        size_bytes = tokens * passes * self.kv_token_bytes
        return Access(f"layers[{layer}].kv_shared", TensorClass.KV_SHARED, size_bytes, passes)

    def linear(
        self, name: str, layer: int, rows: int, source: str, target: str, kind: OperatorKind = OperatorKind.GEMM
    ) -> Operator:
        """target = source x weight (+ bias) for `rows` tokens; the weight is the one called `name`.weight."""
        weight = self.tensors[f"{name}.weight"]
        reads = [self.activation(source, rows, weight.columns), self.weights[weight.name]]
        bias = self.weights.get(f"{name}.bias")
        if bias:
            reads.append(bias)
        shape = GemmShape(rows, weight.rows, weight.columns)
        return Operator(
            name,
            kind,
            layer,
            matrix_flops=shape.flops,
            vector_flops=rows * weight.rows if bias else 0,
            compute_format=self.precision.compute_format(weight.kind),
            gemm=shape,
            reads=tuple(reads),
            writes=(self.activation(target, rows, weight.rows),),
        )

    def vector(
        self,
        name: str,
        kind: OperatorKind,
        layer: int,
        flops: int,
        reads: tuple[Access, ...],
        writes: tuple[Access, ...],
    ) -> Operator:
        """An operator of the vector engine alone."""
        return Operator(
            name,
            kind,
            layer,
            vector_flops=flops,
            compute_format=self.precision.activation_format.element,
            reads=reads,
            writes=writes,
        )

    def norm(self, name: str, layer: int, tokens: int, source: str, target: str, width: int) -> Operator:
        """A norm of `source` into `target`."""
        parts = tuple(self.weights[key] for key in (f"{name}.weight", f"{name}.bias") if key in self.weights)
        flops = NORM_FLOPS[self.model.norm] * tokens * width
        reads, writes = (self.activation(source, tokens, width), *parts), (self.activation(target, tokens, width),)
        return self.vector(name, OperatorKind.NORM, layer, flops, reads, writes)

    def residual_norm(self, name: str, layer: int, tokens: int) -> Operator:
        """residual += sublayer_output; normed = norm(residual), in one launch."""
        width = self.model.hidden
        parts = tuple(self.weights[key] for key in (f"{name}.weight", f"{name}.bias") if key in self.weights)
        flops = (NORM_FLOPS[self.model.norm] + RESIDUAL_FLOPS) * tokens * width
        residual = self.activation("residual", tokens, width)
        reads = (self.activation("sublayer_output", tokens, width), residual, *parts)
        return self.vector(
            name, OperatorKind.NORM, layer, flops, reads, (residual, self.activation("normed", tokens, width))
        )

    def all_reduce(self, name: str, layer: int, rows: int, tensor: str) -> Iterator[Operator]:
        """Sum of a tensor over the group; `collective_bytes` is the message, the size of the tensor on one device.

        The additions are part of the collective and not counted as vector work."""
        if self.tp > 1:
            message = self.activation(tensor, rows, self.model.hidden)
            yield Operator(
                name,
                OperatorKind.ALL_REDUCE,
                layer,
                compute_format=self.precision.activation_format.element,
                reads=(message,),
                writes=(message,),
                collective_bytes=message.bytes,
            )

    # -- before and after the layers ------------------------------------------------------------------------------

    def embedding(self, tokens: int) -> Iterator[Operator]:
        """Table look-up. A vocabulary cut over devices is looked up where the token is, then summed."""
        model, layer = self.model, NO_LAYER
        row = self.precision.weight_format(WeightKind.VOCABULARY)
        width = model.embedding_width
        reads = [Access("embedding.weight", TensorClass.EMBEDDING, row.tensor_bytes(-(-tokens // self.tp), width))]
        target = "embedded" if model.projected_embedding else "residual"
        flops = 0
        if model.position_rows:
            reads.append(
                Access("position_embedding.weight", TensorClass.EMBEDDING, row.tensor_bytes(tokens, model.hidden))
            )
            flops = tokens * model.hidden
        writes = (self.activation(target, tokens, width),)
        yield self.vector("embedding", OperatorKind.EMBEDDING, layer, flops, tuple(reads), writes)
        if model.projected_embedding:
            yield self.linear("embedding_projection", layer, tokens, "embedded", "residual")
        yield from self.all_reduce("embedding_all_reduce", layer, tokens, "residual")

    def head(self, tokens: int, sequences: int) -> Iterator[Operator]:
        """Final norm of all tokens, then logits for the last token of each sequence.

        The shards of the logits are gathered: `collective_bytes` is all of them together."""
        model, layer = self.model, NO_LAYER
        if model.final_norm:
            yield self.residual_norm("final_norm", layer, tokens)
        source = "normed" if model.final_norm else "residual"
        if model.projected_embedding:
            yield self.linear("output_projection", layer, sequences, source, "projected")
            source = "projected"
        yield self._lm_head(layer, sequences, source)
        if self.tp > 1:
            fmt = self.precision.unquantised_format
            logits = Access("logits", TensorClass.ACTIVATION, fmt.tensor_bytes(sequences, model.vocabulary))
            shard = self._logits(sequences)
            yield Operator(
                "logits_all_gather",
                OperatorKind.ALL_GATHER,
                layer,
                compute_format=fmt.element,
                reads=(shard,),
                writes=(logits,),
                collective_bytes=logits.bytes,
            )

    def _logits(self, sequences: int) -> Access:
        """Logits are kept unquantised whatever the activations are."""
        rows = weights.vocabulary_rows(self.model, self.tp)
        return Access("logits", TensorClass.ACTIVATION, self.precision.unquantised_format.tensor_bytes(sequences, rows))

    def _lm_head(self, layer: int, sequences: int, source: str) -> Operator:
        weight = self.weights["embedding.weight" if self.model.tied_embeddings else "lm_head.weight"]
        width = self.model.embedding_width
        shape = GemmShape(sequences, weights.vocabulary_rows(self.model, self.tp), width)
        return Operator(
            "lm_head",
            OperatorKind.GEMM,
            layer,
            matrix_flops=shape.flops,
            compute_format=self.precision.compute_format(WeightKind.VOCABULARY),
            gemm=shape,
            reads=(self.activation(source, sequences, width), weight),
            writes=(self._logits(sequences),),
        )

    # -- one layer, but for attention itself ------------------------------------------------------------------------

    def before_attention(self, layer: int, tokens: int, kept: int) -> Iterator[Operator]:
        """Norm, projections, rotation and the append to the KV cache, of as many tokens as this device keeps."""
        prefix = f"layers[{layer}]."
        if layer == 0:
            yield self.norm(prefix + "input_norm", layer, tokens, "residual", "normed", self.model.hidden)
        else:
            yield self.residual_norm(prefix + "input_norm", layer, tokens)
        if self.model.mla:
            yield from self._latent_projections(self.model.mla, prefix, layer, tokens)
        else:
            yield from self._projections(prefix, layer, tokens, kept)

    def _projections(self, prefix: str, layer: int, tokens: int, kept: int) -> Iterator[Operator]:
        yield self.linear(prefix + "qkv_proj", layer, tokens, "normed", "qkv")
        rotated = (self.heads + self.kv_heads) * self.model.head_dim
        keys = self.activation("qkv", tokens, rotated)
        if self.model.qk_norm:
            flops = NORM_FLOPS[NormKind.RMS] * tokens * rotated
            weight = self.weights[prefix + "qk_norm.weight"]
            yield self.vector(prefix + "qk_norm", OperatorKind.NORM, layer, flops, (keys, weight), (keys,))
        if self.model.rotary:
            yield self.vector(
                prefix + "rope", OperatorKind.ROPE, layer, ROPE_FLOPS * tokens * rotated, (keys,), (keys,)
            )
        new = self.activation("qkv", kept, 2 * self.kv_heads * self.model.head_dim)
        yield self.vector(prefix + "kv_append", OperatorKind.KV_APPEND, layer, 0, (new,), (self.kv(layer, kept),))

    def _latent_projections(self, mla: MlaShape, prefix: str, layer: int, tokens: int) -> Iterator[Operator]:
        if mla.query_rank is None:
            yield self.linear(prefix + "q_proj", layer, tokens, "normed", "query")
        else:
            yield self.linear(prefix + "q_a_proj", layer, tokens, "normed", "query_latent")
        yield self.linear(prefix + "kv_a_proj", layer, tokens, "normed", "kv_latent")
        if mla.query_rank is not None:
            yield self.norm(prefix + "q_a_norm", layer, tokens, "query_latent", "query_latent", mla.query_rank)
            yield self.linear(prefix + "q_b_proj", layer, tokens, "query_latent", "query")
        yield self.norm(prefix + "kv_a_norm", layer, tokens, "kv_latent", "kv_latent", mla.kv_rank)
        rotated = (
            self.activation("query", tokens, self.heads * mla.rope_dim),
            self.activation("kv_latent", tokens, mla.rope_dim),
        )
        flops = ROPE_FLOPS * tokens * (self.heads + 1) * mla.rope_dim
        yield self.vector(prefix + "rope", OperatorKind.ROPE, layer, flops, rotated, rotated)
        new = self.activation("kv_latent", tokens, mla.cached_dim)
        yield self.vector(prefix + "kv_append", OperatorKind.KV_APPEND, layer, 0, (new,), (self.kv(layer, tokens),))

    def after_attention(self, layer: int, tokens: int) -> Iterator[Operator]:
        """Output projection, norm, and the FFN or the experts, with their all-reduces."""
        prefix, model = f"layers[{layer}].", self.model
        yield self.linear(prefix + "o_proj", layer, tokens, "attention_output", "sublayer_output")
        yield from self.all_reduce(prefix + "attention_all_reduce", layer, tokens, "sublayer_output")
        if model.sandwich_norms:
            yield self._output_norm(prefix + "post_attention_norm", layer, tokens)
            yield self.residual_norm(prefix + "pre_ffn_norm", layer, tokens)
        else:
            yield self.residual_norm(prefix + "post_attention_norm", layer, tokens)
        if model.moe and model.moe_layers[layer]:
            yield from self._experts(model.moe, prefix, layer, tokens)
        else:
            yield from self._ffn(prefix, layer, tokens, "sublayer_output")
        yield from self.all_reduce(prefix + "ffn_all_reduce", layer, tokens, "sublayer_output")
        if model.sandwich_norms:
            yield self._output_norm(prefix + "post_ffn_norm", layer, tokens)

    def _output_norm(self, name: str, layer: int, tokens: int) -> Operator:
        return self.norm(name, layer, tokens, "sublayer_output", "sublayer_output", self.model.hidden)

    def _ffn(self, prefix: str, layer: int, tokens: int, target: str) -> Iterator[Operator]:
        first = "gate_up_proj" if self.model.gated_ffn else "up_proj"
        yield self.linear(prefix + first, layer, tokens, "normed", "gate_up")
        yield self._activation(prefix + "activation", layer, tokens, self.tensors[f"{prefix}down_proj.weight"].columns)
        yield self.linear(prefix + "down_proj", layer, tokens, "ffn_inner", target)

    def _activation(self, name: str, layer: int, rows: int, width: int) -> Operator:
        gated = self.model.gated_ffn
        flops = (ACTIVATION_FLOPS[self.model.activation] + (GATE_FLOPS if gated else 0)) * rows * width
        reads = (self.activation("gate_up", rows, 2 * width if gated else width),)
        writes = (self.activation("ffn_inner", rows, width),)
        return self.vector(name, OperatorKind.ACTIVATION, layer, flops, reads, writes)

    # -- experts ------------------------------------------------------------------------------------------------------

    def _experts(self, moe: MoeShape, prefix: str, layer: int, tokens: int) -> Iterator[Operator]:
        yield self._router(moe, prefix, layer, tokens)
        routed = tokens * moe.experts_per_token
        width = moe.expert_ffn // self.tp
        yield self._expert_linear(moe, prefix + "experts.gate_up_proj", layer, tokens, "normed", "gate_up")
        yield self._activation(prefix + "experts.activation", layer, routed, width)
        yield self._expert_linear(moe, prefix + "experts.down_proj", layer, tokens, "ffn_inner", "expert_output")
        if moe.shared_ffn:
            yield from self._shared_experts(moe, prefix, layer, tokens)
        hidden = self.model.hidden
        reads = [self.activation("expert_output", routed, hidden)]
        flops = COMBINE_FLOPS * routed * hidden
        if moe.shared_ffn:
            reads.append(self.activation("shared_output", tokens, hidden))
            flops += (COMBINE_FLOPS if moe.shared_gate else 1) * tokens * hidden
        writes = (self.activation("sublayer_output", tokens, hidden),)
        yield self.vector(prefix + "experts.combine", OperatorKind.ACTIVATION, layer, flops, tuple(reads), writes)

    def _router(self, moe: MoeShape, prefix: str, layer: int, tokens: int) -> Operator:
        """Router logits and, over them, the softmax (or sigmoid) that top-k is taken of."""
        weight = self.tensors[prefix + "router.weight"]
        shape = GemmShape(tokens, weight.rows, weight.columns)
        names = (prefix + "router.weight", prefix + "router.bias")
        parts = tuple(self.weights[name] for name in names if name in self.weights)
        return Operator(
            prefix + "router",
            OperatorKind.ROUTER,
            layer,
            matrix_flops=shape.flops,
            vector_flops=(SOFTMAX_FLOPS + (1 if moe.router_bias else 0)) * tokens * moe.experts,
            compute_format=self.precision.compute_format(WeightKind.UNQUANTISED),
            gemm=shape,
            reads=(self.activation("normed", tokens, self.model.hidden), *parts),
            writes=(self.activation("router_logits", tokens, moe.experts),),
        )

    def _expert_linear(self, moe: MoeShape, name: str, layer: int, tokens: int, source: str, target: str) -> Operator:
        """One grouped product over the experts hit; `gemm.m` is the mean load rounded up, matrix_flops are exact."""
        weight = self.tensors[f"{name}.weight"]
        hit = expected_distinct_experts(moe.experts, moe.experts_per_token, tokens)
        routed = tokens * moe.experts_per_token
        stored = self.precision.weight_format(weight.kind).tensor_bytes(hit * weight.rows, weight.columns)
        return Operator(
            name,
            OperatorKind.GEMM,
            layer,
            matrix_flops=2 * routed * weight.rows * weight.columns,
            compute_format=self.precision.compute_format(weight.kind),
            gemm=GemmShape(-(-routed // hit), weight.rows, weight.columns, hit),
            reads=(
                self.activation(source, routed, weight.columns),
                Access(weight.name, TensorClass.WEIGHT, stored),
            ),
            writes=(self.activation(target, routed, weight.rows),),
        )

    def _shared_experts(self, moe: MoeShape, prefix: str, layer: int, tokens: int) -> Iterator[Operator]:
        shared = prefix + "shared_experts."
        yield self.linear(shared + "gate_up_proj", layer, tokens, "normed", "gate_up")
        yield self._activation(shared + "activation", layer, tokens, moe.shared_ffn // self.tp)
        yield self.linear(shared + "down_proj", layer, tokens, "ffn_inner", "shared_output")
        if moe.shared_gate:
            yield self.linear(shared + "gate", layer, tokens, "normed", "shared_gate")
