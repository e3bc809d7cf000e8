"""Print what was aimed at, what was measured and whether it is met: from the CSV files alone."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.coding_floor import PARTS, count_floor
from benchmarks.learners import NONNEGATIVE, SIGNED, TOPK
from benchmarks.peers import OURS_MP, OURS_OLS, OURS_OMP, PRODUCT, SKLEARN_OMP, SPAMS_OMP
from benchmarks.run_extraction import BARE, PART, ROWS, STORE
from dbksvd.base.files import replace_file

Rows = list[dict[str, str]]

CODING_SHAPES = ((384, 2048, 20), (768, 4096, 20), (768, 4096, 64), (2304, 16384, 40))
PRODUCT_SHAPE = (384, 2048, 20)
STREAMED_SAMPLES = 10_000_000
PASS_SAMPLES = 1 << 20
# A fit, in times of its sparse coding alone.
MOST_OF_CODING = 1.5
# An extraction, in tokens a second of a bare forward pass.
LEAST_OF_BARE = 0.9


@dataclass(frozen=True)
class Target:
    """One line of the table; `is_met` is None where nothing was measured or nothing aimed at."""

    what: str
    measured: str = "not measured"
    is_met: bool | None = None
    is_aim: bool = True

    @property
    def verdict(self) -> str:
        """Yes, no, or not measured; no aim where the line is for information."""
        if self.is_met is not None and not self.is_aim:
            return "no aim"
        return {True: "yes", False: "no", None: "not measured"}[self.is_met]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the CSV files")
    options = parser.parse_args(arguments)
    text = write_markdown(list(find_targets(options.output)))
    path = options.output / "targets.md"
    with replace_file(path) as temporary:
        temporary.write_text(text)
    print(f"{text}written to {path}")


def find_targets(folder: Path) -> Iterator[Target]:
    """Yield all targets with what the CSV files of a folder say."""
    yield from find_coding_targets(read_rows(folder / "coding.csv"))
    yield from find_floor_lines(read_rows(folder / "coding.csv"))
    yield from find_fit_targets(read_rows(folder / "fit.csv"))
    yield from find_learning_targets(read_rows(folder / "learning.csv"))
    yield find_memory_target(read_rows(folder / "memory.csv"))
    yield from find_disk_targets(read_rows(folder / "disk.csv"))
    yield from find_extraction_targets(read_rows(folder / "extraction.csv"))
    yield from find_pass_targets(
        read_rows(folder / "pass-cuda.csv"), read_rows(folder / "pass-cpu.csv")
    )


def read_rows(path: Path) -> Rows:
    """Return the rows of a CSV file; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def select(rows: Rows, **values: Any) -> dict[str, str] | None:
    """Return the last row with these values, compared as text; None if there is none."""
    wanted = {column: str(value) for column, value in values.items()}
    found = [row for row in rows if wanted.items() <= row.items()]
    return found[-1] if found else None


def find_coding_targets(rows: Rows) -> Iterator[Target]:
    """Yield speed and variance explained against peers, and time against the bare product."""
    for d, m, k in CODING_SHAPES:
        shape, where = {"d": d, "m": m, "k": k}, f"({d}, {m}, {k})"
        names = (OURS_MP, OURS_OMP, OURS_OLS, SPAMS_OMP, SKLEARN_OMP)
        found = {name: select(rows, contestant=name, **shape) for name in names}
        yield compare_speed(found, OURS_MP, 3.0, where)
        yield compare_explained(found, OURS_MP, SPAMS_OMP, 5e-3, where)
        yield compare_speed(found, OURS_OMP, 1.6, where)
        yield compare_explained(found, OURS_OMP, SKLEARN_OMP, 1e-4, where)
        yield compare_speed(found, OURS_OLS, None, where)
        yield compare_explained(found, OURS_OLS, SPAMS_OMP, 1e-4, where)
    shape = dict(zip("dmk", PRODUCT_SHAPE, strict=True))
    yield compare(
        f"{OURS_MP}: at most 2.5 x the time of X Dᵀ at {PRODUCT_SHAPE}",
        select(rows, contestant=PRODUCT, **shape),
        select(rows, contestant=OURS_MP, **shape),
        "samples_per_s",
        lambda product, ours: (f"{product / ours:.2f} x", product / ours <= 2.5),
    )


def find_floor_lines(rows: Rows) -> Iterator[Target]:
    """Yield our coders' times as multiples of the floor of coding, for information."""
    for d, m, k in CODING_SHAPES:
        shape = {"d": d, "m": m, "k": k}
        parts = {name: select(rows, contestant=name, **shape) for name in PARTS}
        known = {
            name: row for name, row in parts.items() if row is not None and row.get("median_s")
        }
        for name in (OURS_MP, OURS_OMP, OURS_OLS):
            what = f"{name}: times its floor (product, Gram, Gram rows, refit) at ({d}, {m}, {k})"
            row = select(rows, contestant=name, **shape)
            if row is None or len(known) < len(PARTS):
                yield Target(what, is_aim=False)
                continue
            floor = count_floor(known, int(row["n"]))
            times = float(row["median_s"]) / floor
            told = f"{times:.2f} x ({float(row['median_s']):.3f} s, floor {floor:.3f} s)"
            yield Target(what, told, True, is_aim=False)


def find_fit_targets(rows: Rows) -> Iterator[Target]:
    """Yield how long whole fits of DB-KSVD take, in times of their sparse coding alone."""
    for name in (SIGNED, NONNEGATIVE):
        what = f"{name}: a fit within {MOST_OF_CODING:g} x the time of its sparse coding alone"
        row = select(rows, contestant=name)
        if row is None:
            yield Target(what)
            continue
        times = float(row["fit_s"]) / float(row["coding_s"])
        told = f"{times:.2f} x ({float(row['fit_s']):.1f} s, coding {float(row['coding_s']):.1f} s)"
        yield Target(what, told, times <= MOST_OF_CODING)


def compare_speed(
    found: dict[str, dict[str, str] | None], name: str, least: float | None, where: str
) -> Target:
    """Return the target that a coder is `least` times as fast as SPAMS; no aim where None."""
    aim = "" if least is None else f"at least {least:g} x "
    target = compare(
        f"{name}: {aim}{SPAMS_OMP} in samples a second at {where}",
        *(found[name], found[SPAMS_OMP], "samples_per_s"),
        lambda ours, peer: (f"{ours / peer:.2f} x", ours / peer >= (least or 0)),
    )
    return replace(target, is_aim=least is not None)


def compare_explained(
    found: dict[str, dict[str, str] | None], name: str, other: str, tolerance: float, where: str
) -> Target:
    """Return the target that variance explained of two coders is the same to a tolerance."""
    return compare(
        f"{name}: variance explained within {tolerance:g} of {other} at {where}",
        *(found[name], found[other], "fve_common"),
        lambda a, b: (f"{a - b:+.5f}", abs(a - b) <= tolerance),
    )


def compare(
    what: str,
    first: dict[str, str] | None,
    second: dict[str, str] | None,
    column: str,
    judge: Callable[[float, float], tuple[str, bool]],
) -> Target:
    """Return a target about one column of two rows."""
    if first is None or second is None or not first.get(column) or not second.get(column):
        return Target(what)
    return Target(what, *judge(float(first[column]), float(second[column])))


def find_learning_targets(rows: Rows) -> Iterator[Target]:
    """Yield how much faster DB-KSVD reaches what the longest TopK run ends at."""
    goals = {float(row["goal_seconds"]): row["goal_fve"] for row in rows if row.get("goal_seconds")}
    for name in (SIGNED, NONNEGATIVE):
        what = f"{name}: at least 5 x as fast as {TOPK} to TopK's final held-out variance"
        row = select(rows, contestant=name, goal_fve=goals[max(goals)]) if goals else None
        if row is None:
            yield Target(what)
        elif not row["speedup"]:
            yield Target(what, f"{float(row['goal_fve']):.4f} not reached", False)
        else:
            speedup = float(row["speedup"])
            yield Target(
                what,
                f"{speedup:.1f} x ({float(row['median_s']):.1f} s against {max(goals):.0f} s "
                f"to {float(row['goal_fve']):.4f})",
                speedup >= 5,
            )


def find_memory_target(rows: Rows) -> Target:
    """Return peak memory of a fit that streams."""
    what = f"a fit of {STREAMED_SAMPLES / 1e6:.0f} M x 384 samples from shards in under 4 GiB"
    row = select(rows, stage="fit", d=384)
    if row is None:
        return Target(what)
    peak, n = float(row["peak_mib"]) / 1024, int(row["n"])
    is_met = peak < 4 if n >= STREAMED_SAMPLES else None
    return Target(what, f"{peak:.2f} GiB at {n / 1e6:g} M samples", is_met)


def find_disk_targets(rows: Rows) -> Iterator[Target]:
    """Yield the shard stage in MiB a second, and what a second thread gains."""
    what = "shards of float32 rows on one thread: at least 120 MiB/s"
    alone, both = (select(rows, dtype="float32", workers=workers) for workers in (1, 2))
    if alone is None:
        yield Target(what)
    else:
        rate = float(alone["mib_per_s"])
        text = f"{rate:.0f} MiB/s ({float(alone['times_copy']):.1f} x a copy)"
        yield Target(what, text, rate >= 120)
    gain = "shards on two threads: at least 1.7 x as fast as on one"
    if alone is None or both is None:
        yield Target(gain)
    else:
        ratio = float(alone["median_s"]) / float(both["median_s"])
        yield Target(gain, f"{ratio:.2f} x", ratio >= 1.7)
    half = "shards of float16 rows on one thread: as many rows a second as float32"
    row = select(rows, dtype="float16", workers=1)
    if alone is None or row is None:
        yield Target(half)
    else:
        ratio = float(alone["median_s"]) / float(row["median_s"])
        yield Target(half, f"{ratio:.2f} x", ratio >= 1)


def find_extraction_targets(rows: Rows) -> Iterator[Target]:
    """Yield tokens a CPU second of an extraction, against a bare pass and SAELens's store."""
    for model in ("minilm", "smollm2"):
        names = (BARE, ROWS, PART, STORE)
        found = {name: select(rows, model=model, contestant=name) for name in names}
        for name, other, least in ((ROWS, BARE, LEAST_OF_BARE), (PART, BARE, 0), (ROWS, STORE, 0)):
            aim = f"at least {least:g} x " if least else ""
            target = compare(
                f"{name} of {model}: {aim}{other} in tokens a second",
                *(found[name], found[other], "tokens_per_cpu_s"),
                partial(judge_ratio, least=least),
            )
            yield replace(target, is_aim=least > 0)


def judge_ratio(ours: float, other: float, least: float) -> tuple[str, bool]:
    """Return how many times as fast ours is, and whether that is enough."""
    return f"{ours / other:.2f} x ({ours:.0f} against {other:.0f})", ours / other >= least


def find_pass_targets(cuda: Rows, cpu: Rows) -> Iterator[Target]:
    """Yield the pass on a GPU against its floor and against the CPU."""
    what = "one pass over 2^20 samples at d=2304, m=16384, k=40 on one GPU"
    shape = {"d": 2304, "m": 16384, "k": 40}
    modes = list(dict.fromkeys(row["mode"] for row in cuda if int(row["n"]) >= PASS_SAMPLES))
    cpu_rate = find_rate(cpu, "float32", shape)
    for mode in modes or ["float32"]:
        row = select(cuda, stage="pass", mode=mode, **shape) if modes else None
        floor, speed = (
            f"{what}, {mode}: within 3 x its floor",
            f"{what}, {mode}: at least 200 x CPU",
        )
        if row is None:
            yield from (Target(floor), Target(speed))
            continue
        times = float(row["times_floor"])
        yield Target(
            floor,
            f"{times:.2f} x ({float(row['median_s']):.2f} s, floor {float(row['floor_s']):.2f} s, "
            f"{row['device']})",
            times <= 3,
        )
        rate = float(row["samples_per_s"])
        if cpu_rate is None:
            yield Target(speed)
        else:
            yield Target(speed, f"{rate / cpu_rate:.0f} x", rate / cpu_rate >= 200)


def find_rate(rows: Rows, mode: str, shape: dict[str, int]) -> float | None:
    """Return samples a second of a whole pass, from one over fewer samples.

    The Gram matrix, made once, does not grow with the samples; everything else does.
    """
    stages = {stage: select(rows, stage=stage, mode=mode, **shape) for stage in ("gram", "pass")}
    gram, whole = stages["gram"], stages["pass"]
    if gram is None or whole is None:
        return None
    fixed, taken, n = float(gram["median_s"]), float(whole["median_s"]), int(whole["n"])
    return PASS_SAMPLES / (fixed + max(taken - fixed, 0) * PASS_SAMPLES / n)


def write_markdown(targets: Sequence[Target]) -> str:
    """Return the table."""
    lines = ["| target | measured | met? |", "| --- | --- | --- |"]
    lines += [f"| {target.what} | {target.measured} | {target.verdict} |" for target in targets]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
