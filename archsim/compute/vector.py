"""The vector engine: elementwise work (norms, rope, softmax, activations) and special functions."""

from archsim.compute.arithmetic import FS_PER_SECOND, ceil_div
from archsim.compute.matrix import TileWork
from archsim.config.quantities import FlopPerSecond, FrequencyHz, PositiveInt
from archsim.config.schema import Spec


class VectorEngineSpec(Spec):
    """`peak` is the whole engine's elementwise FLOP/s; each of the `units` also has a special-function unit
    that makes `special_per_clock` results (exp, rsqrt) per `clock`."""

    units: PositiveInt
    clock: FrequencyHz
    peak: FlopPerSecond
    special_per_clock: PositiveInt

    def special_fs(self, results: int) -> int:
        """Femtoseconds, rounded up, that ONE unit takes for `results` special-function results."""
        return ceil_div(results * FS_PER_SECOND, self.special_per_clock * self.clock)


def vector_fs(flops: int, engine: VectorEngineSpec) -> int:
    """Femtoseconds, rounded up, that the whole engine takes for `flops` elementwise operations."""
    return ceil_div(flops * FS_PER_SECOND, engine.peak)


def vector_work(flops: int, engine: VectorEngineSpec, access_latency_fs: int) -> TileWork:
    """Elementwise work is cut finely enough that quantisation doesn't show: one wave, then the output store."""
    return TileWork(tiles=1, tile_fs=vector_fs(flops, engine), tail_fs=access_latency_fs, choice="elementwise")
