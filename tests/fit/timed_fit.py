"""Do a tiny fit of a method (JSON of its settings) in a process of its own; print its log."""

import json
import logging
import sys
import tempfile
from pathlib import Path

import torch
from rows import Rows

from dbksvd.base.settings import parse
from dbksvd.fit.registry import find_method
from dbksvd.fit.task import FitTask


def main() -> None:
    logging.disable()
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    method = find_method(given["algorithm"])
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(32, 16, generator=generator), dim=1)
    fires = torch.rand(12_000, 32, generator=generator) < 0.1
    codes = fires * (4 + torch.rand(12_000, 32, generator=generator))
    x = codes @ atoms + 0.1 * torch.randn(12_000, 16, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        task = FitTask(
            Rows(x[:10_000]), Rows(x[10_000:]), 24, 3, 0, parse(method.settings, given, "method"),
            torch.device("cpu"), Path(folder),
        )  # fmt: skip
        result = method.fit(task)
    sys.stdout.write(json.dumps({"log": result.log, "seconds": result.summary["seconds"]}))


if __name__ == "__main__":
    main()
