"""Model shapes: published totals, every family, and what a wrong config.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from archsim.config.errors import UserError
from archsim.workload.families import FAMILIES, model_from_config
from archsim.workload.precision import Precision
from archsim.workload.shapes import FfnActivation, ModelShape, load_model, shipped_models

REFERENCE = Path(__file__).parents[3] / "shared" / "models" / "shapes.yaml"
BF16 = Precision()

# Parameter counts as Hugging Face shows them for the safetensors of each repository (exact there, rounded to
# what the papers print here), except: GPT-3, "175.0B" in table 2.1 of arXiv:2005.14165; DeepSeek-V3, 671B in
# all and 37B active, abstract of arXiv:2412.19437; Qwen3-30B-A3B, 30.5B and 3.3B, its model card.
TOTALS = {
    "llama-2-7b": 6.74e9,
    "llama-2-70b": 68.98e9,
    "llama-3-8b": 8.03e9,
    "llama-3-70b": 70.55e9,
    "llama-3.1-405b": 405.85e9,
    "mixtral-8x7b": 46.70e9,
    "qwen3-32b": 32.76e9,
    "qwen3-30b-a3b": 30.53e9,
    "deepseek-v3": 671.03e9,
    "gpt-3-175b": 174.6e9,
    "opt-6.7b": 6.658e9,
}

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}

MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def decoder(
    family: str, hidden: int, ffn: int, layers: int, heads: int, kv: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        **more,
    }


def opt(hidden: int, ffn: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "ffn_dim": ffn, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048, **sizes, **more}


# Configurations and exact parameter counts of the published safetensors, one or more per family.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Mistral-7B-v0.1": (decoder("mistral", 4096, 14336, 32, 32, 8, 32000, sliding_window=4096), 7_241_732_096),
    "Qwen2-7B": (decoder("qwen2", 3584, 18944, 28, 28, 4, 152064, use_sliding_window=False), 7_615_616_512),
    "Qwen2.5-0.5B": (decoder("qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True), 494_032_768),
    "Qwen1.5-MoE-A2.7B": (
        decoder(
            "qwen2_moe",
            2048,
            5632,
            24,
            16,
            16,
            151936,
            num_experts=60,
            num_experts_per_tok=4,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            decoder_sparse_step=1,
        ),
        14_315_784_192,
    ),
    "DeepSeek-V2-Lite": (
        decoder(
            "deepseek_v2",
            2048,
            10944,
            27,
            16,
            16,
            102400,
            q_lora_rank=None,
            n_routed_experts=64,
            n_shared_experts=2,
            num_experts_per_tok=6,
            moe_intermediate_size=1408,
            first_k_dense_replace=1,
            **MLA,
        ),
        15_706_484_224,
    ),
    "DeepSeek-V2": (
        decoder(
            "deepseek_v2",
            5120,
            12288,
            60,
            128,
            128,
            102400,
            q_lora_rank=1536,
            n_routed_experts=160,
            n_shared_experts=2,
            num_experts_per_tok=6,
            moe_intermediate_size=1536,
            first_k_dense_replace=1,
            **MLA,
        ),
        235_741_434_880,
    ),
    "gemma-2b": (decoder("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256), 2_506_172_416),
    "gemma-2-9b": (
        decoder("gemma2", 3584, 14336, 42, 16, 8, 256000, head_dim=256, sliding_window=4096),
        9_241_705_984,
    ),
    "gemma-3-1b": (
        decoder("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256, sliding_window=512),
        999_885_952,
    ),
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257},
        124_439_808,
    ),
    "opt-125m": (opt(768, 3072, 12, 12), 125_239_296),
    "opt-350m": (opt(1024, 4096, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False), 331_196_416),
}


def shape(values: dict[str, Any]) -> ModelShape:
    return model_from_config(values, "model", Path("config.json"))


def test_every_shipped_model_has_a_published_total() -> None:
    assert set(shipped_models()) == set(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_shipped_parameters_match_the_published_total(name: str) -> None:
    assert load_model(name).parameters() == pytest.approx(TOTALS[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "exact"),
    [("llama-3-70b", 70_553_706_496), ("llama-3-8b", 8_030_261_248), ("mixtral-8x7b", 46_702_792_704)],
)
def test_shipped_parameters_to_the_last_one(name: str, exact: int) -> None:
    assert load_model(name).parameters() == exact


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_count_to_the_last_parameter(name: str) -> None:
    values, parameters = PUBLISHED[name]
    assert shape(values).parameters() == parameters


def test_active_parameters_of_experts() -> None:
    assert load_model("mixtral-8x7b").active_parameters() == pytest.approx(12.88e9, rel=1e-3)
    assert load_model("qwen3-30b-a3b").active_parameters() == pytest.approx(3.35e9, rel=1e-2)
    deepseek = load_model("deepseek-v3")
    embedding = deepseek.vocabulary * deepseek.hidden
    # 36.6B with the output head and without the embedding: README_WEIGHTS.md of the published model
    assert deepseek.active_parameters() - embedding == pytest.approx(36.6e9, rel=2e-3)
    dense = load_model("llama-3-8b")
    assert dense.active_parameters() == dense.parameters()


def test_kv_cache_of_llama_3_70b_is_320_kib_per_token() -> None:
    model = load_model("llama-3-70b")
    assert model.kv_bytes_per_token(BF16) == 320 * 1024
    assert model.kv_bytes_per_token(BF16, tp=8) == 40 * 1024
    assert model.kv_bytes_per_token(BF16, tp=16) == 40 * 1024, "8 KV heads on 16 devices are replicated"
    assert model.kv_bytes_per_token(Precision(kv="fp8")) == 160 * 1024


def test_latent_cache_of_deepseek_is_whole_on_every_device() -> None:
    model = load_model("deepseek-v3")
    assert model.kv_bytes_per_token(BF16) == (512 + 64) * 61 * 2 == 70_272
    assert model.kv_bytes_per_token(BF16, tp=8) == 70_272


def test_weight_bytes_are_parameters_times_their_size() -> None:
    model = load_model("llama-3-70b")
    assert model.weight_bytes(BF16) == 2 * 70_553_706_496
    vocabulary, norms = 2 * model.vocabulary * model.hidden, (2 * model.layers + 1) * model.hidden
    matrices = model.parameters() - vocabulary - norms
    assert model.weight_bytes(Precision(weights="fp8")) == matrices + 2 * (vocabulary + norms)
    assert model.weight_bytes(BF16, devices=8) == 2 * ((model.parameters() - norms) // 8 + norms)


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference table of published shapes is not beside the project")
@pytest.mark.parametrize("name", TOTALS)
def test_shipped_shapes_agree_with_the_reference_table(name: str) -> None:
    table = yaml.safe_load(REFERENCE.read_text())
    if name not in table:
        pytest.skip(f"the reference table has no {name}")
    row, model = table[name], load_model(name)
    moe, mla = model.moe, model.mla
    ours = {
        "layers": model.layers,
        "hidden": model.hidden,
        "ffn": model.ffn,
        "q": model.query_heads,
        "kv": model.kv_heads,
        "head": model.head_dim,
        "expert_ffn": moe and moe.expert_ffn,
        "experts": moe and moe.experts,
        "top": moe and moe.experts_per_token,
        "dense_layers": model.moe_layers.count(False),
    }
    for key in ours.keys() & row.keys():
        assert ours[key] == row[key], key
    assert str(model.vocabulary) in str(row["vocab"])
    if "mla" in row:
        assert mla is not None
        assert row["mla"] == {
            "kv_lora": mla.kv_rank,
            "q_lora": mla.query_rank,
            "nope": mla.nope_dim,
            "rope": mla.rope_dim,
            "v": mla.value_dim,
        }


@pytest.mark.parametrize("name", TOTALS)
def test_every_shipped_config_names_its_source(name: str) -> None:
    file = Path(__file__).parents[2] / "workloads" / "models" / name / "config.json"
    assert len(json.loads(file.read_text())["_source"]) > 20


def test_head_width_need_not_be_hidden_over_heads() -> None:
    model = load_model("qwen3-32b")
    assert model.head_dim * model.query_heads != model.hidden
    assert model.qk_norm


def test_sliding_windows() -> None:
    assert shape(PUBLISHED["Mistral-7B-v0.1"][0]).windows == (4096,) * 32
    assert shape(PUBLISHED["gemma-2-9b"][0]).windows[:4] == (4096, None, 4096, None)
    assert shape(PUBLISHED["gemma-3-1b"][0]).windows[:7] == (512,) * 5 + (None, 512)
    explicit = LLAMA | {"model_type": "gemma2", "sliding_window": 8, "head_dim": 16}
    kinds = ["full_attention", "sliding_attention"]
    assert shape(explicit | {"layer_types": kinds}).windows == (None, 8)
    qwen = LLAMA | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    assert shape(qwen).windows == (None, 8)


def test_nested_text_config_with_the_defaults_its_publisher_relies_on() -> None:
    inner = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    }
    model = shape({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": inner})
    assert (model.query_heads, model.kv_heads, model.head_dim, model.vocabulary) == (8, 4, 256, 262208)
    assert model.tied_embeddings
    assert model.activation is FfnActivation.GELU


def test_experts_on_some_layers_only() -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    values = LLAMA | experts | {"model_type": "qwen3_moe", "num_hidden_layers": 4, "decoder_sparse_step": 2}
    assert shape(values).moe_layers == (False, True, False, True)
    assert shape(values | {"mlp_only_layers": [3]}).moe_layers == (False, True, False, False)
    assert load_model("deepseek-v3").moe_layers == (False,) * 3 + (True,) * 58


def test_a_relabelled_architecture_is_known_by_its_class() -> None:
    assert shape(LLAMA | {"model_type": "mymodel", "architectures": ["LlamaForCausalLM"]}).family == "llama"


def test_an_unknown_architecture_names_file_type_and_what_is_supported() -> None:
    with pytest.raises(UserError) as caught:
        shape(LLAMA | {"model_type": "llama5"})
    message = str(caught.value)
    assert "config.json" in message
    assert "'llama5'" in message
    assert "did you mean 'llama'?" in message
    assert all(family in message for family in FAMILIES)
    with pytest.raises(UserError, match="model_type: missing"):
        shape({"hidden_size": 8})


@pytest.mark.parametrize("key", [key for key in LLAMA if key not in ("model_type", "num_key_value_heads")])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(UserError, match=rf"config\.json: {key}: missing"):
        shape({name: value for name, value in LLAMA.items() if name != key})


@pytest.mark.parametrize("value", [0, -4, 1.5, float("nan"), float("inf"), "4096", True, [1], 10**400, 10**8 + 0.5])
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"])
def test_a_size_that_is_none_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"{key}: cannot be"):
        shape(LLAMA | {key: value})


def test_a_million_layers_are_a_slip() -> None:
    with pytest.raises(UserError, match="at most 10000 layers"):
        shape(LLAMA | {"num_hidden_layers": 10**6})


def test_heads_must_fit() -> None:
    with pytest.raises(UserError, match="cannot share 3 KV heads evenly"):
        shape(LLAMA | {"num_key_value_heads": 3})
    with pytest.raises(UserError, match="hidden size 64 is not divisible by 5 heads"):
        shape(LLAMA | {"num_attention_heads": 5, "num_key_value_heads": 5})
    with pytest.raises(UserError, match="unknown activation 'swoosh'"):
        shape(LLAMA | {"hidden_act": "swoosh"})


def test_a_path_or_a_folder_or_a_name(tmp_path: Path) -> None:
    file = tmp_path / "tiny" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(LLAMA))
    assert load_model(file) == load_model(file.parent) == load_model(str(file))
    assert load_model(file).name == "tiny"
    with pytest.raises(UserError, match="did you mean 'llama-3-70b'"):
        load_model("llama3-70b")
    with pytest.raises(UserError, match="no such model file"):
        load_model(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json:1: not valid JSON"),
        ("[1]", "expected a JSON object"),
        ("9" * 5000, "not valid JSON"),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        load_model(file)
