"""Many short runs of Snakemake for the price of one import: each in a forked process of its own.

``python dry_runs.py``, with the Python of the environment, reads a line of JSON for each request,
``{"folder": ..., "runs": [arguments, ...], "environment": {...}}``, and answers with a line, a list
of [exit status, output]. The two of a request at a time.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
from functools import partial
from importlib import import_module
from typing import Any

import snakemake.cli

# What a run imports beside this project, whose modules are those of the request's folder.
IMPORTED = ("jsonschema", "numpy", "snakemake.storage", "smart_open", "tqdm", "yaml")


def run(folder: str, environment: dict[str, str], arguments: list[str]) -> tuple[int, str]:
    """Run ``snakemake`` with `arguments` in this process, as if it had been started in `folder`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder  # as with ``python -m``
    with tempfile.TemporaryFile("w+") as stream:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        status = 0
        try:
            snakemake.cli.main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):  # as the interpreter does
                print(end.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        stream.seek(0)
        return status, stream.read()


def answer(request: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the exit status and the output of each run of a request."""
    # A process for each run: Snakemake keeps its logger, its shell prefix and more in globals.
    with multiprocessing.get_context("fork").Pool(
        min(2, len(request["runs"])), maxtasksperchild=1
    ) as pool:
        run_one = partial(run, request["folder"], request["environment"])
        return pool.map(run_one, request["runs"], chunksize=1)


def main() -> None:
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    snakemake.cli.get_argument_parser()  # finds and imports the plugins
    main()
