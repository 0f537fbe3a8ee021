"""Time as simulations of memory count it: in ticks, each a rational number of femtoseconds."""

from fractions import Fraction


class Ticking:
    """Whatever counts ticks of `tick_fs` femtoseconds."""

    tick_fs: Fraction

    def to_ticks(self, fs: int) -> int:
        """The first tick at or after a time in femtoseconds."""
        return -((-fs * self.tick_fs.denominator) // self.tick_fs.numerator)

    def to_fs(self, tick: int) -> int:
        """The time of a tick in whole femtoseconds, rounded up."""
        return -((-tick * self.tick_fs.numerator) // self.tick_fs.denominator)
