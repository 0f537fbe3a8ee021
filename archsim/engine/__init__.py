"""The machine at work: operators in, records out (simpy carries the events, the kernels the cycles)."""
