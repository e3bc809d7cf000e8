"""Seconds that learners need to a held-out variance explained: DB-KSVD and its peers.

The goal is what SAELens's TopK SAE reaches in the end. Scores are 1 − Σ‖x−x̂‖² / Σ‖x−mean‖² on the
same held-out rows with at most k non-zeros. A learner that its budget cuts short is marked so.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.blas import begin_again_with_kernels
from benchmarks.data import DEFAULT_SHARDS, Activations, load_activations
from benchmarks.learners import LEARNERS, NONNEGATIVE, SIGNED, TOPK, Learner
from benchmarks.problems import Point, Problem
from benchmarks.timing import describe_machine, limit_threads, print_table, write_table

HELDOUT_ROWS = 4096  # what dbksvd/fit/sae/method.py measures on
# Seconds of learning. TopK has both: it must not look slow because its schedule is long.
BUDGETS = {
    TOPK: (75.0, 300.0),
    "SAELens matching pursuit": (100.0,),
    "scikit-learn MiniBatchDictionaryLearning": (60.0,),
    "ksvd ApproximateKSVD": (60.0,),
}
DEFAULT_BUDGET = (90.0,)
OURS = (SIGNED, NONNEGATIVE)
COLUMNS = ("contestant", "budget_s", "fve", "seconds", "stop", "goal_fve", "median_s", "speedup")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    data = load_activations(options.activations, rows=options.rows, heldout_rows=HELDOUT_ROWS)
    chosen = {name: LEARNERS[name] for name in options.contestants}
    for name in [name for name, learner in chosen.items() if not learner.is_installed]:
        print(f"left out: {name} (pip install -r benchmarks/requirements.txt)")
        del chosen[name]
    curves: dict[tuple[str, float, int], list[Point]] = {}
    with limit_threads(options.threads):
        for name, learner in chosen.items():
            seeds = options.seeds if name in OURS else options.seeds[:1]
            for budget in find_budgets(name, options.seconds):
                for seed in seeds:
                    problem = Problem(data, options.n_atoms, options.k, budget, seed)
                    curves[name, budget, seed] = run_learner(name, learner, problem)
    machine = describe_machine("cpu", options.threads)
    common = describe_problem(data, options)
    rows = [
        {"contestant": name, "budget_s": budget, "seed": seed, **vars(point), **common}
        for (name, budget, seed), points in curves.items()
        for point in points
    ]
    write_table(rows, options.output / "learning-curves.csv", machine)
    table = [{**row, **common} for row in summarise_curves(curves)]
    path = options.output / "learning.csv"
    print_table(write_table(table, path, machine), COLUMNS, path)
    cut = {row["contestant"] for row in table if row["stop"] in ("budget", "max_seconds")}
    print(f"cut short by the budget: {', '.join(sorted(cut)) or 'none'}")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--activations", type=Path, default=DEFAULT_SHARDS, help="folder")
    parser.add_argument("--rows", type=int, help="train on the first so many; default all")
    parser.add_argument("--n-atoms", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--seconds", type=float, help="budget of each; default as in BUDGETS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="peers: the first")
    parser.add_argument("--contestants", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(arguments)


def find_budgets(name: str, seconds: float | None) -> tuple[float, ...]:
    """Return the budgets, in seconds, that a contestant is run with."""
    return BUDGETS.get(name, DEFAULT_BUDGET) if seconds is None else (seconds,)


def run_learner(name: str, learner: Learner, problem: Problem) -> list[Point]:
    """Run one contestant; say how it went in one line."""
    points = list(learner.learn(problem))
    last = points[-1]
    print(
        f"{name}, seed {problem.seed}: fve {last.fve:.4f} after {last.seconds:.1f} s ({last.stop})",
        flush=True,
    )
    return points


def describe_problem(data: Activations, options: argparse.Namespace) -> dict[str, Any]:
    """Return the columns that say what was learned."""
    return {
        "data": data.name,
        "n": len(data.train),
        "d": data.train.width,
        "m": options.n_atoms,
        "k": options.k,
        "heldout_rows": len(data.heldout),
    }


def summarise_curves(
    curves: Mapping[tuple[str, float, int], Sequence[Point]],
) -> list[dict[str, Any]]:
    """Return a row for each contestant, budget and goal.

    A goal is the final fve of one TopK run; ``median_s`` are the seconds to the first point of a
    curve at or above it (over seeds; empty unless all reach it), ``speedup`` the seconds of that
    TopK run over them. Without TopK there is no goal.
    """
    goals = [points[-1] for (name, _, _), points in curves.items() if name == TOPK]
    rows = []
    for name, budget in dict.fromkeys((name, budget) for name, budget, _ in curves):
        group = [points for key, points in curves.items() if key[:2] == (name, budget)]
        row = {
            "contestant": name,
            "budget_s": budget,
            "scored_by": LEARNERS[name].scored_by,
            "seeds": len(group),
            "fve": float(np.median([points[-1].fve for points in group])),
            "seconds": float(np.median([points[-1].seconds for points in group])),
            "samples": group[0][-1].samples,
            "stop": group[0][-1].stop,
        }
        rows += [row | reach_goal(group, goal) for goal in goals] or [row]
    return rows


def reach_goal(group: Sequence[Sequence[Point]], goal: Point) -> dict[str, float | None]:
    """Return seconds to a goal over the seeds of a contestant, and TopK's seconds over them."""
    row: dict[str, float | None] = {"goal_fve": goal.fve, "goal_seconds": goal.seconds}
    reached = [
        next((point.seconds for point in points if point.fve >= goal.fve), None) for points in group
    ]
    if any(seconds is None for seconds in reached):
        return row | dict.fromkeys(("median_s", "p20_s", "p80_s", "speedup"))
    low, median, high = np.percentile(np.array(reached, float), (20, 50, 80))
    return row | {
        "median_s": median,
        "p20_s": low,
        "p80_s": high,
        "speedup": goal.seconds / median,
    }


if __name__ == "__main__":
    begin_again_with_kernels()
    main()
