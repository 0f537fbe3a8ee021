"""What the vector engine does per element, and how many experts a batch hits.

Vector work counts one for each arithmetic operation on an element, a transcendental function as one.
"""

from __future__ import annotations

from archsim.workload.model import FfnActivation, NormKind

NORM_FLOPS = {NormKind.RMS: 4, NormKind.LAYER: 7}
"""RMS: square, sum, times 1/rms, times weight. Layer: sum, minus mean, square, sum, times 1/std, times weight,
plus bias."""
RESIDUAL_FLOPS = 1
ROPE_FLOPS = 3
"""x cos + rotated(x) sin: two products and a sum."""
SOFTMAX_FLOPS = 5
"""Per score: scale, running maximum, minus maximum, exponential, running sum."""
MERGE_FLOPS, MERGE_HEAD_FLOPS = 3, 8
"""Attention over two parts of a context becomes one (vLLM's merge_attn_states). Per element of the output: two products
and a sum. Per query and head, from the log-sum-exp of each part: maximum, two differences, two exponentials, a sum,
two quotients."""
ACTIVATION_FLOPS = {FfnActivation.SILU: 4, FfnActivation.GELU: 9, FfnActivation.RELU: 1}
"""SiLU x / (1 + exp(-x)): negate, exponential, plus 1, divide. GELU by tanh: x * x, times x, times 0.0447,
plus x, times sqrt(2/pi), tanh, plus 1, times x, times 0.5. ReLU: maximum."""
GATE_FLOPS = 1
COMBINE_FLOPS = 2
"""Expert output times its routing weight, plus the sum so far."""


def expected_distinct_experts(experts: int, experts_per_token: int, tokens: int) -> int:
    """How many experts a batch hits: the expected value under uniform independent routing, rounded up.

    Each token picks `experts_per_token` of `experts` without repetition, so an expert is missed by all tokens with
    probability (1 - k/E)^tokens. A real router is less even and hits fewer."""
    missed = (1.0 - experts_per_token / experts) ** tokens
    if experts * missed < 0.5:
        return experts
    # ceil(E - x) = E - floor(x), in whole numbers: no rounding can push one token's k experts up to k + 1.
    missed_whole: int = (experts - experts_per_token) ** tokens // experts ** (tokens - 1)
    return experts - missed_whole
