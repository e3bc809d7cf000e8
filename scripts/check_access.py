"""Ask for all that an experiment needs from outside, before anything long starts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.files import write_json
from dbksvd.base.settings import parse
from dbksvd.evaluation.saebench.checks import check_evals
from dbksvd.evaluation.saebench.registry import parse_evals
from dbksvd.models.access import check_access
from dbksvd.models.settings import AccessSettings


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="what is needed")
    parser.add_argument("--output", type=Path, required=True, help="what was found, JSON")
    arguments = parser.parse_args()

    wanted = parse(AccessSettings, arguments.settings, "access")
    kind, facts = check_access(wanted)
    check_evals(parse_evals(wanted.evals), kind)
    write_json(arguments.output, facts)


if __name__ == "__main__":
    main()
