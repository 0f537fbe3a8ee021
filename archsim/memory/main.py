"""The main memory of a device, whatever it is made of: what the engine runs operators by."""

from typing import TypeAlias

from archsim.memory.device import HbmDevice
from archsim.memory.sram_memory import SramMemory

MainMemory: TypeAlias = HbmDevice | SramMemory
"""DRAM or SRAM. Both take transfers with a consumer of tiles and tell completions and counts; only DRAM runs chains and
prefetches."""
