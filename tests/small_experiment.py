"""A model of two small layers and experiments with it: tests of the whole simulator in a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

PHASES = """\
kind: experiment
name: two small layers
system: h200
workload:
  kind: phases
  model: ./config.json
  batch: 4
  prefill: {prompt_tokens: 128}
  decode: {context_tokens: 512}
"""

REQUESTS = """\
kind: experiment
name: two small layers, served
system: h200
workload:
  kind: requests
  model: ./config.json
  trace: traces/sample_conversation.csv
"""


def write_model(folder: Path, **changes: object) -> Path:
    """The model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(LLAMA | changes))
    return file


def write_phases(folder: Path) -> Path:
    """Prefill and decode of the small model on one H200."""
    write_model(folder)
    file = folder / "experiment.yaml"
    file.write_text(PHASES)
    return file


def write_requests(folder: Path, trace: str | None = None) -> Path:
    """The shipped sample trace, or `trace` (the text of a CSV file), served by the small model on one H200."""
    write_model(folder)
    text = REQUESTS
    if trace is not None:
        (folder / "trace.csv").write_text(trace)
        text = text.replace("traces/sample_conversation.csv", "trace.csv")
    file = folder / "requests.yaml"
    file.write_text(text)
    return file


LINK = {
    "lanes": 16,
    "lane_rate": "32 Gb/s",
    "flit": "256 B",
    "payload": "236 B",
    "latency": "500 ns",
    "energy": "5 pJ/b",
}
"""A link to another memory: sixteen lanes of 32 Gb/s, in flits of 256 B."""
