"""Snakemake, whose plugin for Slurm does not pause between its calls of sbatch and squeue.

The plugin waits five seconds before each sbatch, and ten seconds longer at each look at its jobs
that finds none ended. No option changes that, and a cluster is thankful for it; the jobs of the
tests end in seconds. All else is the plugin's own: arguments, submission, states, retries.
"""

import asyncio
import sys
import time
from types import SimpleNamespace
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake.cli import main

SECONDS_BETWEEN_LOOKS = 0.5


async def sleep_shortly(_executor: Any) -> None:
    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    plugin.time = SimpleNamespace(**{**vars(time), "sleep": lambda _seconds: None})
    plugin.Executor.sleep = sleep_shortly
    sys.exit(main())
