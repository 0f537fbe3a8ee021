"""Reading a Hugging Face config.json: one function per model family, picked by `model_type`.

Defaults for keys a published config.json leaves out are those of the family's configuration class in
Hugging Face transformers 4.5x; each is written where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError, listed, nearest_name
from archsim.workload.model import FfnActivation, MlaShape, ModelShape, MoeShape, NormKind

ACTIVATIONS = {
    "silu": FfnActivation.SILU,
    "swish": FfnActivation.SILU,
    "gelu": FfnActivation.GELU,
    "gelu_new": FfnActivation.GELU,
    "gelu_fast": FfnActivation.GELU,
    "gelu_pytorch_tanh": FfnActivation.GELU,
    "relu": FfnActivation.RELU,
}

LARGEST_SIZE = 10**9
"""No size of a model is larger; what is, is a slip of the keyboard."""
MOST_LAYERS = 10_000


class ConfigFile:
    """Keys of one config.json, each checked as it is read; every error names the file and the key."""

    def __init__(self, values: Mapping[str, Any], file: Path, path: str = "") -> None:
        self.values = values
        self.file = file
        self.path = path

    def error(self, key: str, message: str, expected: str | None = None, nearest: str | None = None) -> UserError:
        """An error about `key`, to be raised."""
        return UserError(f"{self.file}: {self.path}{key}: {message}", expected=expected, nearest=nearest)

    def size(self, key: str, *aliases: str, default: int | None = None, zero: bool = False) -> int:
        """A whole number > 0 (>= 0 with `zero`). Raises UserError if it is missing without a default or no such."""
        for name in (key, *aliases):
            if self.values.get(name) is not None:
                return self._checked(name, self.values[name], zero)
        if default is None:
            raise self._missing(key)
        return default

    def optional_size(self, key: str) -> int | None:
        """A whole number > 0, or None where the key is absent or null."""
        return None if self.values.get(key) is None else self.size(key)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"{value!r} is neither", "true or false")
        return value

    def activation(self, *keys: str, default: str) -> FfnActivation:
        """The FFN's elementwise function, from the first of `keys` present."""
        key = next((key for key in keys if self.values.get(key) is not None), keys[0])
        name = self.values.get(key) or default
        if name not in ACTIVATIONS:
            raise self.error(
                key, f"unknown activation {name!r}", listed(ACTIVATIONS), nearest_name(str(name), ACTIVATIONS)
            )
        return ACTIVATIONS[name]

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers >= 0; empty where absent or null."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or any(type(item) is not int or item < 0 for item in value):
            raise self.error(key, f"cannot be {value!r}", "a list of layer numbers")
        return value

    def nested(self, key: str) -> ConfigFile:
        """The mapping under `key`; errors about it name the full path."""
        value = self.values[key]
        if not isinstance(value, dict):
            raise self.error(key, f"cannot be {value!r}", "a mapping")
        return ConfigFile(value, self.file, f"{self.path}{key}.")

    def _missing(self, key: str) -> UserError:
        return self.error(key, "missing", "a whole number above 0", nearest_name(key, self.values, cutoff=0.8))

    def _checked(self, key: str, value: Any, zero: bool) -> int:
        expected = f"a whole number from {0 if zero else 1} to {LARGEST_SIZE}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # NaN and infinity fail the range, so that int() is safe.
        if not number or not (0 if zero else 1) <= value <= LARGEST_SIZE or value != int(value):
            raise self.error(key, f"cannot be {value!r}", expected)
        return int(value)


def model_from_config(values: Mapping[str, Any], name: str, file: Path) -> ModelShape:
    """The shape a config.json describes. Raises UserError naming file and key on anything wrong or unknown."""
    config = ConfigFile(values, file)
    family = _family(config)
    if isinstance(values.get("text_config"), dict):
        config = config.nested("text_config")
    for key in ("num_hidden_layers", "n_layer"):
        if config.values.get(key) is not None and config.size(key) > MOST_LAYERS:
            raise config.error(key, f"cannot be {config.values[key]!r}", f"at most {MOST_LAYERS} layers")
    shape = FAMILIES[family](config, name, family)
    _check_heads(shape, config)
    return shape


def _family(config: ConfigFile) -> str:
    values = config.values
    text = values.get("text_config")
    inner = text.get("model_type") if isinstance(text, dict) else None
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list):
        raise config.error("architectures", f"cannot be {architectures!r}", "a list of names")
    for found in (inner, values.get("model_type"), *(ARCHITECTURES.get(str(item)) for item in architectures)):
        if isinstance(found, str) and found in FAMILIES:
            return found
    found = values.get("model_type")
    shown = found if isinstance(found, str) else ", ".join(map(str, architectures))
    supported = f"one of {', '.join(FAMILIES)}"
    if not shown:
        raise config.error("model_type", "missing", supported)
    nearest = nearest_name(shown.lower(), FAMILIES, cutoff=0.5)
    raise config.error("model_type", f"unsupported architecture {shown!r}", supported, nearest)


def _check_heads(shape: ModelShape, config: ConfigFile) -> None:
    if shape.query_heads % shape.kv_heads:
        raise config.error(
            "num_key_value_heads", f"{shape.query_heads} query heads cannot share {shape.kv_heads} KV heads evenly"
        )
    if shape.moe and shape.moe.experts_per_token > shape.moe.experts:
        raise config.error("num_experts_per_tok", f"more than the {shape.moe.experts} experts there are")


def _head_dim(config: ConfigFile, hidden: int, heads: int) -> int:
    if config.values.get("head_dim") is not None:
        return config.size("head_dim")
    if hidden % heads:
        raise config.error("num_attention_heads", f"hidden size {hidden} is not divisible by {heads} heads")
    return hidden // heads


def _decoder(config: ConfigFile, name: str, family: str, **extra: Any) -> ModelShape:
    """What Llama and everything descended from it writes the same way; `extra` is where a family differs."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    layers = config.size("num_hidden_layers")
    fields: dict[str, Any] = {
        "kv_heads": config.size("num_key_value_heads", default=heads),
        "head_dim": _head_dim(config, hidden, heads),
        "windows": (None,) * layers,
        "moe_layers": (False,) * layers,
        "activation": config.activation("hidden_act", "hidden_activation", default="silu"),
        "tied_embeddings": config.flag("tie_word_embeddings", False),
    }
    fields.update(extra)
    if "ffn" not in fields:
        fields["ffn"] = config.size("intermediate_size")
    vocabulary = config.size("vocab_size")
    return ModelShape(
        name=name, family=family, layers=layers, hidden=hidden, query_heads=heads, vocabulary=vocabulary, **fields
    )


def _llama(config: ConfigFile, name: str, family: str) -> ModelShape:
    attention_bias = config.flag("attention_bias", False)
    return _decoder(
        config,
        name,
        family,
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        ffn_bias=config.flag("mlp_bias", False),
    )


def _mistral(config: ConfigFile, name: str, family: str) -> ModelShape:
    window = (config.optional_size("sliding_window"),) * config.size("num_hidden_layers")
    # MistralConfig and MixtralConfig: num_key_value_heads=8
    kv_heads = config.size("num_key_value_heads", default=8)
    return _decoder(config, name, family, windows=window, kv_heads=kv_heads, **_mixtral_experts(config, family))


def _mixtral_experts(config: ConfigFile, family: str) -> dict[str, Any]:
    if family != "mixtral":
        return {}
    moe = MoeShape(
        experts=config.size("num_local_experts"),
        experts_per_token=config.size("num_experts_per_tok"),
        expert_ffn=config.size("intermediate_size"),
    )
    return {"moe": moe, "moe_layers": (True,) * config.size("num_hidden_layers")}


def _qwen(config: ConfigFile, name: str, family: str) -> ModelShape:
    third = family.startswith("qwen3")
    # Qwen2 has biases on Q, K and V only and no key for it; Qwen3 has none unless attention_bias says so.
    bias = config.flag("attention_bias", False)
    extra: dict[str, Any] = {
        "windows": _qwen_windows(config),
        "qk_norm": third,
        "qkv_bias": bias if third else True,
        "output_bias": third and bias,
    }
    if family.endswith("_moe"):
        extra.update(_qwen_experts(config, family))
    return _decoder(config, name, family, **extra)


def _qwen_windows(config: ConfigFile) -> tuple[int | None, ...]:
    layers = config.size("num_hidden_layers")
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    window, first = config.size("sliding_window"), config.size("max_window_layers", default=layers, zero=True)
    return tuple(window if layer >= first else None for layer in range(layers))


def _qwen_experts(config: ConfigFile, family: str) -> dict[str, Any]:
    layers, dense = config.size("num_hidden_layers"), config.integers("mlp_only_layers")
    step = config.size("decoder_sparse_step", default=1)
    shared = config.size("shared_expert_intermediate_size") if family == "qwen2_moe" else 0
    moe_layers = tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(layers))
    moe = MoeShape(
        experts=config.size("num_experts"),
        experts_per_token=config.size("num_experts_per_tok"),
        expert_ffn=config.size("moe_intermediate_size"),
        shared_ffn=shared,
        shared_gate=shared > 0,
    )
    # Some published files leave the dense width out where every layer has experts.
    dense_ffn = {} if not all(moe_layers) else {"ffn": config.size("intermediate_size", default=moe.expert_ffn)}
    return {"moe": moe, "moe_layers": moe_layers, **dense_ffn}


def _deepseek(config: ConfigFile, name: str, family: str) -> ModelShape:
    layers = config.size("num_hidden_layers")
    mla = MlaShape(
        kv_rank=config.size("kv_lora_rank"),
        query_rank=config.optional_size("q_lora_rank"),
        nope_dim=config.size("qk_nope_head_dim"),
        rope_dim=config.size("qk_rope_head_dim"),
        value_dim=config.size("v_head_dim"),
    )
    bias = config.flag("attention_bias", False)
    extra: dict[str, Any] = {
        "mla": mla,
        "head_dim": mla.query_dim,
        "kv_heads": config.size("num_attention_heads"),
        "qkv_bias": bias,
        "output_bias": bias,
    }
    if config.values.get("n_routed_experts") is not None:
        dense, every = config.size("first_k_dense_replace", zero=True), config.size("moe_layer_freq", default=1)
        expert_ffn = config.size("moe_intermediate_size")
        extra["moe_layers"] = tuple(layer >= dense and layer % every == 0 for layer in range(layers))
        extra["moe"] = MoeShape(
            experts=config.size("n_routed_experts"),
            experts_per_token=config.size("num_experts_per_tok"),
            expert_ffn=expert_ffn,
            shared_ffn=config.size("n_shared_experts", default=0, zero=True) * expert_ffn,
            # V3 picks experts with a learned correction per expert (topk_method "noaux_tc").
            router_bias=family == "deepseek_v3",
        )
    return _decoder(config, name, family, **extra)


def _gemma(config: ConfigFile, name: str, family: str) -> ModelShape:
    later = family != "gemma"
    extra: dict[str, Any] = {}
    if family == "gemma3_text":
        # Gemma3TextConfig's defaults, which the published multimodal files (gemma-3-4b) rely on.
        values = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208}
        config = ConfigFile({**values, **config.values}, config.file, config.path)
    bias = config.flag("attention_bias", False)
    if later:
        extra["windows"] = _gemma_windows(config, family)
    return _decoder(
        config,
        name,
        family,
        # GemmaConfig, Gemma2Config and Gemma3TextConfig: head_dim=256, tied embeddings, tanh-approximated GELU
        head_dim=config.size("head_dim", default=256),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        activation=config.activation("hidden_activation", "hidden_act", default="gelu_pytorch_tanh"),
        sandwich_norms=later,
        qk_norm=family == "gemma3_text",
        qkv_bias=bias,
        output_bias=bias,
        **extra,
    )


def _gemma_windows(config: ConfigFile, family: str) -> tuple[int | None, ...]:
    layers, window = config.size("num_hidden_layers"), config.size("sliding_window", default=4096)
    kinds = config.values.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise config.error("layer_types", "has the wrong length", f"a list of {layers} names, one per layer")
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    # Every second layer of Gemma 2 and every sixth of Gemma 3 sees the whole context.
    every = 2 if family == "gemma2" else config.size("sliding_window_pattern", default=6)
    return tuple(window if (layer + 1) % every else None for layer in range(layers))


def _gpt2(config: ConfigFile, name: str, family: str) -> ModelShape:
    hidden, heads, layers = config.size("n_embd"), config.size("n_head"), config.size("n_layer")
    return ModelShape(
        name=name,
        family=family,
        layers=layers,
        hidden=hidden,
        query_heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(config, hidden, heads),
        ffn=config.size("n_inner", default=4 * hidden),
        vocabulary=config.size("vocab_size"),
        activation=config.activation("activation_function", default="gelu_new"),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        position_rows=config.size("n_positions", "n_ctx"),
        **_plain_blocks(layers),
    )


def _opt(config: ConfigFile, name: str, family: str) -> ModelShape:
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    layers = config.size("num_hidden_layers")
    bias = config.flag("enable_bias", True)
    fields = _plain_blocks(layers) | {"qkv_bias": bias, "output_bias": bias, "ffn_bias": bias}
    before = config.flag("do_layer_norm_before", True)
    return ModelShape(
        name=name,
        family=family,
        layers=layers,
        hidden=hidden,
        query_heads=heads,
        kv_heads=heads,
        head_dim=_head_dim(config, hidden, heads),
        ffn=config.size("ffn_dim"),
        vocabulary=config.size("vocab_size"),
        activation=config.activation("activation_function", default="relu"),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        embedding_dim=config.size("word_embed_proj_dim", default=hidden),
        # OPTLearnedPositionalEmbedding leaves the first two rows unused.
        position_rows=config.size("max_position_embeddings") + 2,
        position_offset=2,
        # OPT-350M normalises after each block, and so has no norm at the end.
        final_norm=before and not config.flag("_remove_final_layer_norm", False),
        **fields,
    )


def _plain_blocks(layers: int) -> dict[str, Any]:
    """Layer norm, plain FFN and a bias everywhere, as GPT-2 and OPT have."""
    return {
        "windows": (None,) * layers,
        "moe_layers": (False,) * layers,
        "gated_ffn": False,
        "norm": NormKind.LAYER,
        "qkv_bias": True,
        "output_bias": True,
        "ffn_bias": True,
    }


FAMILIES: dict[str, Callable[[ConfigFile, str, str], ModelShape]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mistral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "qwen2_moe": _qwen,
    "qwen3_moe": _qwen,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gemma": _gemma,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "gpt2": _gpt2,
    "opt": _opt,
}
"""What reads each supported `model_type`."""

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "Gemma3ForConditionalGeneration": "gemma3_text",
    "GPT2LMHeadModel": "gpt2",
    "OPTForCausalLM": "opt",
}
"""Tried where `model_type` is absent or a relabelling (Kimi K2 is a DeepseekV3ForCausalLM)."""
