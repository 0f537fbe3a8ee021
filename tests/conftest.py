"""What all tests share: settings of hypothesis, and signals."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# The first example of a test may compile a kernel: no deadlines, and slow examples are no fault. Runs repeat;
# HYPOTHESIS_PROFILE=explore doesn't.
ANY_TIME = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **ANY_TIME)
settings.register_profile("explore", **ANY_TIME)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# What runs in the background of a script ignores SIGINT, and so does what it starts: tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
