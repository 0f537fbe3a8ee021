"""Makes sample_conversation.csv: requests of our own making in the shape of a conversation service.

    python traces/make_sample.py > traces/sample_conversation.csv

Arrivals are a Poisson process; prompt and answer lengths are log-normal, clipped. Nothing is taken from a
recorded trace. The same seed gives the same file on every platform: only `random()` of Python's generator
is used, and times are rounded to 100 ns.
"""

import math
import random
from datetime import datetime, timedelta

SEED = 20250101
REQUESTS = 120
REQUESTS_PER_SECOND = 4.0
START = datetime(2025, 1, 1, 9, 0, 0)
CONTEXT_MEDIAN, CONTEXT_SIGMA, CONTEXT_RANGE = 800, 1.0, (16, 7000)
GENERATED_MEDIAN, GENERATED_SIGMA, GENERATED_RANGE = 160, 0.8, (4, 1000)


def normal(source: random.Random) -> float:
    """A standard normal number by Box and Muller."""
    return math.sqrt(-2.0 * math.log(1.0 - source.random())) * math.cos(2.0 * math.pi * source.random())


def length(source: random.Random, median: float, sigma: float, allowed: tuple[int, int]) -> int:
    """A log-normal whole number of tokens within `allowed`."""
    tokens = round(median * math.exp(sigma * normal(source)))
    return min(max(tokens, allowed[0]), allowed[1])


def rows() -> list[str]:
    """The lines of the file."""
    source = random.Random(SEED)
    ticks = 0  # of 100 ns since START
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for _ in range(REQUESTS):
        context = length(source, CONTEXT_MEDIAN, CONTEXT_SIGMA, CONTEXT_RANGE)
        generated = length(source, GENERATED_MEDIAN, GENERATED_SIGMA, GENERATED_RANGE)
        seconds, part = divmod(ticks, 10**7)
        lines.append(f"{START + timedelta(seconds=seconds)}.{part:07d},{context},{generated}")
        ticks += round(-math.log(1.0 - source.random()) / REQUESTS_PER_SECOND * 10**7)
    return lines


if __name__ == "__main__":
    print("\n".join(rows()))
