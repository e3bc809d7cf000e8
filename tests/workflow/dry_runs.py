"""Many dry runs for the price of one import: each in a forked process of its own.

Run as ``python dry_runs.py ARGUMENTS...`` with one JSON list of arguments for each dry run, in the
folder of the Snakefile; prints a JSON list of [exit status, output].
"""

import json
import multiprocessing
import os
import sys
import tempfile

import snakemake.cli


def run_dry(arguments: list[str]) -> tuple[int, str]:
    """Run ``snakemake --dry-run`` with `arguments` in this process."""
    with tempfile.TemporaryFile("w+") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        status = 0
        try:
            snakemake.cli.main(["--dry-run", *arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        stream.seek(0)
        return status, stream.read()


def main() -> None:
    runs = [json.loads(argument) for argument in sys.argv[1:]]
    # A process for each run: Snakemake keeps its logger, its shell prefix and more in globals.
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        results = pool.map(run_dry, runs, chunksize=1)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
