"""Ask for all that an experiment needs from outside, before anything long starts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dbksvd.base.errors import report_errors
from dbksvd.base.files import write_json
from dbksvd.evaluation.saebench.registry import check_kind
from dbksvd.models.access import check_access


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="what is needed")
    parser.add_argument("--output", type=Path, required=True, help="what was found, JSON")
    arguments = parser.parse_args()

    kind, facts = check_access(arguments.settings)
    for name, settings in arguments.settings.get("evals", {}).items():
        check_kind(name, settings, kind)
    write_json(arguments.output, facts)


if __name__ == "__main__":
    main()
