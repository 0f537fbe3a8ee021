"""Operators of all layers by one name."""

from __future__ import annotations

import re

from archsim.workload.sub_batches import SECOND


def job_of(operator_name: str) -> str:
    """The operator's name without layer and half of the batch: "layers[3].qkv_proj" -> "qkv_proj"."""
    return re.sub(r"^layers?[\[.]\d+\]?\.", "", operator_name.removesuffix(SECOND))
