"""How much memory the operator records of a long serving run take, and how much writing its run directory.

    python benchmarks/serving_memory.py [--records 200000]

Two requests of traces/sample_conversation.csv are served by Llama-3-8B on one H200. Their records, one after the other
until there are enough, stand for a long run. Held as a list of records and as a server holds them (record_log.py), each
in a process of its own: resident memory per record when all are there, and at most while metrics, tables and report are
made of them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from archsim.experiment import load_experiment
from archsim.record_log import OperatorLog
from archsim.records import OperatorRecord
from archsim.report import ARTEFACTS
from archsim.results import write_run
from archsim.run import simulate

SERVED = {"workload.trace": "traces/sample_conversation.csv", "workload.limit": 2}


def long_run(records: list[OperatorRecord], count: int) -> Iterator[OperatorRecord]:
    """Records of their own, in turn those of a short run, each time later by the time that it took."""
    elapsed_fs = records[-1].end_fs - records[0].start_fs
    for turn in itertools.count():
        for record in itertools.islice(records, max(0, count - turn * len(records))):
            later_fs = turn * elapsed_fs
            own = replace(copy.deepcopy(record), start_fs=record.start_fs + later_fs, end_fs=record.end_fs + later_fs)
            yield replace(own, iteration=turn)
        if (turn + 1) * len(records) >= count:
            return


def measure(count: int, packed: bool) -> None:
    """Print bytes per record: held, and at the peak."""
    data = simulate(load_experiment("experiments/azure_conv_llama3_8b", SERVED))
    (phase,) = data.phases
    before = psutil.Process().memory_info().rss
    records = (OperatorLog if packed else list)(long_run(list(phase.records), count))
    held = psutil.Process().memory_info().rss
    energies = [energy for energy, _ in zip(itertools.cycle(phase.operator_energy_pj), range(count), strict=False)]
    long_phase = replace(phase, records=records, operator_energy_pj=energies)
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "run", replace(data, phases=(long_phase,)), artefacts=ARTEFACTS)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    how = "packed" if packed else "list  "
    print(f"{how} {(held - before) / count:6.0f} bytes per record held, {(peak - before) / count:6.0f} at the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--how", choices=["list", "packed"], help="measure one of the two in this very process")
    options = parser.parse_args()
    if options.how is not None:
        measure(options.records, options.how == "packed")
        return
    for how in ("list", "packed"):
        subprocess.run([sys.executable, __file__, "--records", str(options.records), "--how", how], check=True)


if __name__ == "__main__":
    main()
