"""Number formats as bytes in memory, block scales included, and the choice of one per tensor class.

Sources: OCP Microscaling Formats (MX) v1.0, 2023, section 5.2 (blocks of 32 elements, one 8-bit E8M0 scale);
OCP 8-bit Floating Point (OFP8) v1.0 (E4M3); GPTQ (Frantar et al., ICLR 2023) and AWQ (Lin et al., MLSys 2024)
checkpoints for groups of 128 int4 weights, counted here in the symmetric form: one fp16 scale, no zero point;
NVIDIA cuDNN/Transformer Engine documentation for NVFP4 (blocks of 16, one E4M3 scale). Per-tensor scales
(fp8, int8, int4 and the second level of NVFP4) are kernel arguments and take no memory traffic here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from archsim.config.errors import UserError, nearest_name
from archsim.config.schema import Spec
from archsim.workload.weights import WeightKind, WeightTensor


@dataclass(frozen=True, slots=True)
class Format:
    """A number format: `bits` per element, and `scale_bits` for every `block` elements of a row (0: no blocks).

    `element` names what a matrix engine multiplies ("mxfp4" and "nvfp4" both multiply fp4)."""

    name: str
    bits: int
    element: str
    block: int = 0
    scale_bits: int = 0

    def tensor_bits(self, rows: int, columns: int) -> int:
        """Bits of a rows x columns tensor. Blocks run along the columns; a row's last block may be short."""
        scales = rows * -(-columns // self.block) * self.scale_bits if self.block else 0
        return rows * columns * self.bits + scales

    def tensor_bytes(self, rows: int, columns: int) -> int:
        """Whole bytes of a rows x columns tensor, scales included."""
        return -(-self.tensor_bits(rows, columns) // 8)

    @property
    def quantised(self) -> bool:
        """Whether a model is trained in something wider and converted to this format."""
        return self.bits < 16


FORMATS: dict[str, Format] = {
    fmt.name: fmt
    for fmt in (
        Format("fp32", 32, "fp32"),
        Format("bf16", 16, "bf16"),
        Format("fp16", 16, "fp16"),
        Format("fp8", 8, "fp8"),
        Format("int8", 8, "int8"),
        Format("int4", 4, "int4"),
        Format("int4_g128", 4, "int4", block=128, scale_bits=16),
        Format("mxfp8", 8, "fp8", block=32, scale_bits=8),
        Format("mxfp6", 6, "fp6", block=32, scale_bits=8),
        Format("mxfp4", 4, "fp4", block=32, scale_bits=8),
        Format("nvfp4", 4, "fp4", block=16, scale_bits=8),
    )
}

COMPUTE_FORMATS = tuple(dict.fromkeys(fmt.element for fmt in FORMATS.values()))


def _one_of(names: tuple[str, ...], what: str) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name in names:
            return name
        raise UserError(
            f"unknown {what} {name!r}", expected=f"one of {', '.join(names)}", nearest=nearest_name(name, names, 0.4)
        )

    return check


FormatName = Annotated[str, AfterValidator(_one_of(tuple(FORMATS), "number format"))]
ComputeFormatName = Annotated[str, AfterValidator(_one_of(COMPUTE_FORMATS, "compute format"))]


class Precision(Spec):
    """A number format per tensor class.

    Norms, biases and the router stay unquantised, as in published quantised checkpoints; so do the embedding
    and the LM head unless `embedding` says otherwise. What stays is held in the format of `weights` where that
    has at least 16 bits, else of `activations` where that has, else in bf16."""

    weights: Annotated[FormatName, Field(description="projections, FFN and experts")] = "bf16"
    kv: Annotated[FormatName, Field(description="the KV cache; blocks of a block format lie within one vector")] = (
        "bf16"
    )
    activations: Annotated[FormatName, Field(description="everything that passes between operators")] = "bf16"
    compute: Annotated[
        ComputeFormatName | None,
        Field(description="what projections multiply in; by default the wider of weights and activations"),
    ] = None
    embedding: Annotated[FormatName | None, Field(description="embedding and LM head; unquantised by default")] = None

    @property
    def kv_format(self) -> Format:
        return FORMATS[self.kv]

    @property
    def activation_format(self) -> Format:
        return FORMATS[self.activations]

    @property
    def unquantised_format(self) -> Format:
        """The format of norms, biases and the router."""
        for name in (self.weights, self.activations):
            if not FORMATS[name].quantised:
                return FORMATS[name]
        return FORMATS["bf16"]

    def weight_format(self, kind: WeightKind) -> Format:
        """The format weights of this kind are stored in."""
        if kind is WeightKind.MATRIX:
            return FORMATS[self.weights]
        if kind is WeightKind.VOCABULARY and self.embedding is not None:
            return FORMATS[self.embedding]
        return self.unquantised_format

    def weight_bytes(self, tensor: WeightTensor) -> int:
        """Bytes of a weight tensor as stored."""
        return self.weight_format(tensor.kind).tensor_bytes(tensor.copies * tensor.rows, tensor.columns)

    def activation_bytes(self, rows: int, columns: int) -> int:
        """Bytes of `rows` tokens of `columns` elements between operators."""
        return self.activation_format.tensor_bytes(rows, columns)

    def compute_format(self, kind: WeightKind) -> str:
        """What the matrix engine multiplies for weights of this kind."""
        stored = self.weight_format(kind)
        if self.compute is not None and (kind is WeightKind.MATRIX or stored == FORMATS[self.weights]):
            return self.compute
        return _wider(stored, self.activation_format).element

    @property
    def attention_compute_format(self) -> str:
        """What attention multiplies: the wider of the KV cache and the activations."""
        return _wider(self.kv_format, self.activation_format).element


def _wider(left: Format, right: Format) -> Format:
    return left if left.bits > right.bits else right
