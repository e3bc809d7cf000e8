"""The command ``dbksvd``: what a user types, and what comes back."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from doc_blocks import DOCS, list_blocks
from safetensors.torch import load_file

import dbksvd
from dbksvd.base.version import __version__
from dbksvd.command.main import app
from workflow.commands.check import name_outside
from workflow.commands.init import STARTERS, fill
from workflow.commands.init_text import shorten_context
from workflow.commands.pace import Pace
from workflow.commands.progress import FORMAT, MovingBar, PlainBar, Progress, tick
from workflow.commands.status import REASONS, UNKNOWN, read_jobs, say_reason
from workflow.experiment import Experiment
from workflow.layers import read_layers

ROOT = Path(__file__).parents[2]
COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def run_dbksvd(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "dbksvd.command.main", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def write_rows(path: Path, rows: int = 300, width: int = 12) -> Path:
    np.save(path, np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32))
    return path


def test_version_and_help(tmp_path: Path):
    assert run_dbksvd(tmp_path, "--version").stdout == f"dbksvd {__version__}\n"
    shown = run_dbksvd(tmp_path, "--help").stdout
    assert set(COMMANDS) > {"init", "run", "report", "status", "estimate", "clean", "fit", "check"}
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert "\x1b[" not in shown  # colours are for terminals


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example(name: str):
    callback = next(c.callback for c in app.registered_commands if c.callback.__name__ == name)
    assert (
        f"\n    dbksvd {name} " in f"{callback.__doc__} " or f"dbksvd {name}\n" in callback.__doc__
    )


def test_completion_for_bash_and_zsh(tmp_path: Path):
    for shell in ("bash", "zsh"):
        environment = os.environ | {"_DBKSVD_COMPLETE": f"source_{shell}", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "dbksvd.command.main"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "_DBKSVD_COMPLETE" in done.stdout
        assert "dbksvd" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check"], "error: config.yaml: expected a config in this folder"),
        (["check", "none.yaml"], "error: none.yaml: expected a config file (dbksvd init DIR"),
        (["check", "config.yaml"], "error: config.yaml: expected a config in this folder"),
        (["status", "config.yaml"], "error: config.yaml: expected a config in this folder"),
        (["run", "config.yaml"], "error: config.yaml: expected a config in this folder"),
        (["check", "profiles/gpu/config.yaml"], "error: profiles/gpu/config.yaml: expected a"),
        (["profile", "mine", "--like", "moon"], "error: --like: expected default, gpu, slurm, got"),
        (["profile", "../mine"], "error: name: expected letters, digits"),
        (["profile", "gpu"], "error: name: expected another than default, gpu, slurm, got 'gpu'"),
        (["init", "--layer", "9", "new"], "error: --layer: expected 0 to 6"),
        (["init", "--like", "cats", "new"], "error: --like: expected causal, default"),
        (["init", "--text", "no.jsonl", "new"], "error: --text: expected a file or a folder"),
        (["init", "--model", "./none", "new"], "error: model.name: expected a model folder"),
        (["init", "--like", "files", "new"], "error: --data: expected a file, got none"),
        (["init", "--like", "synthetic", "--layer", "2", "new"], "error: --layer: expected none"),
        (["init", "--data", "acts.txt", "new"], "error: --data: expected a file of kind .npy"),
        (["init", "--text", "a.txt", "--tensor", "x", "new"], "error: --tensor: expected none"),
        (["fit", "none.npy", "new", "--atoms", "8", "--k", "2"], "error: none.npy: expected an"),
        (["encode", "none", "none.npy", "codes.npy"], "error: codes.npy: expected a name that"),
        (["export", "none", "new", "--format", "onnx"], "error: --format: expected saelens"),
        (["settings", "n_atom"], "error: n_atom: expected a key of a config, did you mean n_atoms"),
        (["export", "none", "new", "--format", "saelens"], "error: none: expected the folder of a"),
        (["explain", "a cat"], "error: config.yaml: expected a config in this folder"),
        (["clean"], "error: config.yaml: expected a config in this folder"),
        (["run", "--profile", "none"], "error: config.yaml: expected a config in this folder"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], expected: str, tmp_path: Path):
    done = run_dbksvd(tmp_path, *arguments, status=1)
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_output_that_nobody_reads_to_its_end_is_no_mistake(tmp_path: Path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dbksvd.command.main", "settings"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_wrong_usage_has_a_status_of_its_own(tmp_path: Path):
    assert "No such option" in run_dbksvd(tmp_path, "run", "--corse", "2", status=2).stderr
    assert "Missing argument" in run_dbksvd(tmp_path, "explain", status=2).stderr


def make_things(folder: Path) -> None:
    """What the starters of files and texts need."""
    write_rows(folder / "acts.npy")
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = np.load(folder / "acts.npy")
    line = '{{"id": "a", "body": "text {} of mine, which has words"}}\n'
    (folder / "texts.jsonl").write_text("".join(line.format(number) for number in range(300)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"layers": [4]}),
        (["--layer", "2", "--text", "texts.jsonl"], {"layers": [2]}),
        (["--like", "synthetic"], {"source": "synthetic"}),
        (["--data", "acts.npy"], {"source": "files", "n_train_tokens": 270}),
        (["--data", "x.h5", "--tensor", "x"], {"source": "files", "n_heldout_tokens": 30}),
    ],
)
def test_init_writes_a_short_config_that_passes_the_check(arguments, expected, tmp_path: Path):
    make_things(tmp_path)
    run_dbksvd(tmp_path, "init", *arguments, "My run")
    path = tmp_path / "My run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["experiment"] == "my-run"
    assert config["activations"].items() >= expected.items()
    assert 20 <= len(path.read_text().splitlines()) <= 42
    assert "#" in path.read_text()
    found = json.loads(run_dbksvd(tmp_path, "check", str(path), "--json").stdout)
    assert sum(found["dictionaries"].values()) == 10
    assert found["from_outside"] == []
    if "--text" in arguments:
        assert config["text"]["sources"] == [
            {"kind": "file", "path": str(tmp_path / "texts.jsonl"), "column": "body"}
        ]
    done = run_dbksvd(tmp_path, "init", "My run", status=1)
    assert "expected no config there (or --force)" in done.stderr


def save_model(folder: Path) -> None:
    """A model folder of which only the config is looked at."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 48}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 5, "vocab_size": 300}))


def test_init_looks_at_the_model(tmp_path: Path):
    save_model(tmp_path / "model")
    # without weights the check of a run refuses it, and nothing is written
    done = run_dbksvd(tmp_path, "init", "--model", "model", "new", status=1)
    assert "model.name" in done.stderr
    assert not (tmp_path / "new").exists()
    from workflow.commands.init import describe_model, look_at_model

    facts = describe_model(look_at_model(str(tmp_path / "model")), None, is_default=False)
    assert facts["layer"] == 3
    assert facts["hook"] == "blocks.2.hook_resid_post"
    assert facts["n_atoms"] == 128


@pytest.mark.parametrize(
    ("positions", "length", "settings"), [(512, None, {}), (77, 77, {}), (48, 48, {"context_length": 48})]
)  # fmt: skip
def test_a_starter_has_no_longer_texts_than_the_model_has_positions(positions, length, settings):
    values = dict.fromkeys(("layer", "n_train", "n_heldout", "n_atoms", "k", "width"), 1)
    values |= {"experiment": "a", "source": "{}", "model": "", "depth": 2, "hook": "x"}
    for like in ("causal", "default"):
        config = yaml.safe_load(fill(like, values | shorten_context(positions)))
        assert config["activations"].get("context_length") == length
        assert set(map(str, config["evaluation"]["evals"].values())) == {str(settings)}


def test_every_starter_is_one_that_like_names():
    assert {path.stem for path in STARTERS.iterdir()} == {
        *("default", "causal", "images", "files", "synthetic")
    }


def test_settings_are_told(tmp_path: Path):
    shown = run_dbksvd(tmp_path, "settings", "activations.n_train_tokens").stdout
    assert "activations.n_train_tokens  (source: model)\n    integer ≥ 1; default 200000\n" in shown
    everything = json.loads(run_dbksvd(tmp_path, "settings", "--json").stdout)
    told = [one for one in everything if one["key"] == "experiment"]
    assert told[0]["default"] == "needed"
    assert told[0]["meaning"] == "Name; results go to results/<experiment>/."
    section = json.loads(run_dbksvd(tmp_path, "settings", "--json", "shards", "fits").stdout)
    assert {one["key"].partition(".")[0] for one in section} == {"shards", "fits"}


def test_starters_name_what_every_user_has():
    for path in STARTERS.iterdir():
        assert "docs/" not in path.read_text()
        assert "dbksvd settings" in path.read_text()


def test_an_array_larger_than_memory_is_one_line(tmp_path: Path):
    write_rows(tmp_path / "acts.npy")
    arguments = ("acts.npy", "mine", "--atoms", "4000000", "--k", "3")
    told = run_dbksvd(tmp_path, "fit", *arguments, status=1).stderr
    assert told.startswith("error: memory: expected arrays that fit (fewer atoms or rows), got ")
    assert len(told.splitlines()) == 1
    for extra, expected in [
        (("--seed", "4294967296"), "error: --seed: expected 0 to 4294967295"),
        (("--heldout", ".999"), "error: --heldout: expected a share that leaves rows to learn"),
    ]:
        told = run_dbksvd(tmp_path, "fit", *arguments, *extra, status=1).stderr
        assert told.startswith(expected)


def test_fit_encode_export(tmp_path: Path):
    rows = np.load(write_rows(tmp_path / "acts.npy"))
    arguments = ("acts.npy", "mine", "--atoms", "32", "--k", "3", "--json")
    told = json.loads(run_dbksvd(tmp_path, "fit", *arguments).stdout)
    assert told["rows"] == 270
    assert 0 < told["variance_explained"] < 1
    assert told["l0"] <= 3
    loaded = dbksvd.load_dictionary(tmp_path / "mine")
    shown = run_dbksvd(tmp_path, "encode", "mine", "acts.npy", "codes.safetensors").stdout
    assert "rows                300" in shown
    stored = load_file(tmp_path / "codes.safetensors")
    codes = loaded.encode(torch.from_numpy(rows))
    assert torch.equal(stored["indices"], codes.indices)
    assert torch.allclose(stored["values"], codes.values)
    run_dbksvd(tmp_path, "export", "mine", "split", "--format", "sign-split")
    assert dbksvd.load_dictionary(tmp_path / "split").atoms.shape == (64, 12)
    run_dbksvd(tmp_path, "export", "mine", "atoms.safetensors", "--format", "safetensors")
    assert torch.equal(load_file(tmp_path / "atoms.safetensors")["atoms"], loaded.atoms)
    done = run_dbksvd(tmp_path, "export", "mine", "mine", "--format", "sign-split", status=1)
    assert "mine: expected another folder than that of the dictionary" in done.stderr
    done = run_dbksvd(tmp_path, "export", "mine", "np", "--format", "neuronpedia", status=1)
    assert len(done.stderr.splitlines()) == 1


def test_clean_removes_results_only_when_told(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("experiment: mine\n")
    assert "expected results to remove" in run_dbksvd(tmp_path, "clean", status=1).stderr
    (tmp_path / "results/mine").mkdir(parents=True)
    (tmp_path / "results/mine/a.csv").write_text("a")
    (tmp_path / "results/other").mkdir()
    assert "expected a yes" in run_dbksvd(tmp_path, "clean", status=1).stderr
    assert (tmp_path / "results/mine/a.csv").is_file()
    run_dbksvd(tmp_path, "clean", "--yes")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["other"]
    (tmp_path / "results/mine").symlink_to(tmp_path / "results/other")
    assert "got a link" in run_dbksvd(tmp_path, "clean", "--yes", status=1).stderr
    (tmp_path / "config.yaml").write_text("experiment: ../results\n")
    assert "expected the name of a folder" in run_dbksvd(tmp_path, "clean", "-y", status=1).stderr


def test_experiments_of_the_package_are_found_from_any_folder(tmp_path: Path):
    assert "tiny" in run_dbksvd(tmp_path, "check", "experiments/tiny.yaml").stdout
    told = run_dbksvd(tmp_path, "check", "experiments/none.yaml", status=1).stderr
    assert "experiments/none.yaml" in told
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/tiny.yaml").write_text("experiment: 3\n")  # one's own comes first
    assert (
        "error: config" in run_dbksvd(tmp_path, "check", "experiments/tiny.yaml", status=1).stderr
    )


def test_what_is_asked_for_outside_is_named():
    config = yaml.safe_load((ROOT / "experiments/pythia-160m.yaml").read_text())
    wanted = json.loads(Experiment(config).access() or "{}")
    found = list(name_outside(wanted))
    assert found[0] == "model EleutherAI/pythia-160m-deduped"
    assert len(found) == len(set(found)) > 1
    assert all(name.startswith("data set ") for name in found[1:])
    assert list(name_outside({"keys": [{"variable": "A"}], "data_sets": []})) == ["key A"]


def test_a_profile_of_ones_own(tmp_path: Path):
    shown = run_dbksvd(tmp_path, "profile", "my-cluster").stdout
    assert shown.startswith("profile  profiles/my-cluster/config.yaml\n")
    copied = (tmp_path / "profiles/my-cluster/config.yaml").read_text()
    assert copied == (ROOT / "profiles/slurm/config.yaml").read_text()
    done = run_dbksvd(tmp_path, "profile", "my-cluster", status=1)
    assert "expected no profile there (or --force)" in done.stderr
    run_dbksvd(tmp_path, "profile", "my-cluster", "--like", "gpu", "--force")
    assert "mem_mb" in (tmp_path / "profiles/my-cluster/config.yaml").read_text()


def test_a_profile_whose_plugin_is_not_installed_is_one_line(tmp_path: Path):
    write_rows(tmp_path / "acts.npy")
    run_dbksvd(tmp_path, "init", "--data", "acts.npy", ".")
    (tmp_path / "profiles/mine").mkdir(parents=True)
    (tmp_path / "profiles/mine/config.yaml").write_text("executor: cluster-of-mine\n")
    told = run_dbksvd(tmp_path, "run", "--profile", "mine", status=1).stderr
    assert told == (
        "error: --profile: expected Snakemake's plugin for executor: cluster-of-mine in "
        "profiles/mine, found none (pip install snakemake-executor-plugin-cluster-of-mine)\n"
    )
    told = run_dbksvd(tmp_path, "run", "--profile", "moon", status=1).stderr
    assert "one of profiles/ in this folder (dbksvd profile NAME writes one)" in told


def test_devices_of_an_estimate_are_named_in_any_case(tmp_path: Path):
    write_rows(tmp_path / "acts.npy")
    run_dbksvd(tmp_path, "init", "--data", "acts.npy", ".")
    assert run_dbksvd(tmp_path, "estimate", "--device", "A100").stdout.count(" on one A100\n") == 1


def test_status_says_what_would_run(tmp_path: Path):
    write_rows(tmp_path / "acts.npy")
    run_dbksvd(tmp_path, "init", "--data", "acts.npy", "mine")
    folder = tmp_path / "mine"
    found = json.loads(run_dbksvd(folder, "status", "--json").stdout)
    assert found["done"]["dictionaries"] == [0, 10]
    fits = [job for job in found["jobs"] if job["rule"] == "fit_dictionary"]
    assert len(fits) == 10
    assert {job["reason"] for job in fits} == {"not made yet"}
    # `run -- …` hands what follows to Snakemake
    planned = run_dbksvd(folder, "run", "--", "-n").stdout
    assert "fit_dictionary" in planned
    assert not (folder / "results").exists()


def test_plans_of_snakemake_are_read():
    plan = """
[Mon Nov 30 05:58:35 2026]
rule fit_dictionary:
    output: a
    reason: Params have changed since last execution: before: x now: y
    wildcards: site=layer4, method=dbksvd

localrule all:
    input: a
    reason: Input files updated by another job: a
"""
    (job,) = read_jobs(plan)
    assert (job.rule, job.wildcards) == ("fit_dictionary", "site=layer4, method=dbksvd")
    assert job.reason == "its settings or its code changed"
    assert say_reason("Something new") == UNKNOWN
    assert len(set(REASONS)) == len(REASONS)


class Bar:
    """A stand-in for tqdm's bar."""

    def __init__(self) -> None:
        self.n, self.total, self.postfix, self.left = 0, None, "", None

    def update(self, count: int) -> None:
        self.n += count

    def set_postfix_str(self, text: str) -> None:
        self.postfix = text

    def refresh(self) -> None:
        pass


LOG = """Building DAG of jobs...
note: config: no fit uses the methods a
Job stats:
job                count
---------------  -------
fit_dictionary         3
draw_figure            1
total                  4

[Mon Nov 30 05:45:37 2026]
localrule fit_dictionary:
    output: a
    jobid: 5
    wildcards: site=layer4, method=dbksvd, n_atoms=512
[Mon Nov 30 05:45:42 2026]
Finished jobid: 5 (Rule: fit_dictionary)
2 of 6 steps (33%) done
""".splitlines()


def test_progress_is_read_from_snakemakes_log():
    bar = Bar()
    ticks = iter(range(0, 1000, 10))  # a call of the clock is ten seconds later than the last
    progress = Progress(bar, clock=lambda: float(next(ticks)))
    assert [line for line in map(progress.read, LOG) if line] == [LOG[1]]
    assert (bar.n, bar.total, bar.postfix) == (2, 6, "fit_dictionary layer4 dbksvd 512")
    # After two calls: a fit from 10 to 20 s, of three; a figure counts as one. At 30 s, half of the
    # time was spent on jobs.
    assert bar.left == 60
    last = ["Complete log(s): x", "Elapsed time: 0:49:53", "site  method", "layer4  dbksvd"]
    assert [progress.read(line) for line in last] == [None, None, *last[2:]]
    assert list(progress.explain(1)) == []


def test_progress_is_lines_where_there_is_no_terminal(capsys):
    bar = PlainBar(seconds=0)
    bar.total = 6
    bar.set_postfix_str("fit_dictionary layer4")
    bar.update(2)
    bar.refresh()
    line = capsys.readouterr().err
    assert line == (
        "run: 2 of 6 jobs done, 00:00 spent, time left not known yet, now fit_dictionary layer4\n"
    )
    bar.left = 1200
    assert "10:00 spent, about 20:00 left" in bar.describe(600)
    quiet = PlainBar(seconds=60)
    quiet.update(1)
    quiet.refresh()
    assert capsys.readouterr().err == ""


def test_progress_is_one_line_on_a_terminal():
    out = io.StringIO()
    bar = MovingBar(desc="run", bar_format=FORMAT, file=out, total=6)
    bar.left = 1200
    bar.update(2)
    bar.set_postfix_str("fit_dictionary layer4")
    assert "run: 2 of 6 jobs" in (line := out.getvalue().rpartition("\r")[2])
    assert line.endswith("about 20:00 left, fit_dictionary layer4")
    bar.close()


def test_the_clock_goes_on_while_no_job_ends():
    seen = threading.Event()

    class Watched(Bar):
        def refresh(self) -> None:
            seen.set()

    with tick(Progress(Watched()), seconds=0.01):
        assert seen.wait(10)


def test_time_left_is_counted_rule_by_rule():
    """Two at a time: fits of 100 s each, then figures of one second each."""
    pace = Pace()
    pace.plan("fit", 4)
    pace.plan("draw", 10)
    assert pace.estimate(0) is None
    for number, began in enumerate((0, 0, 100, 100)):
        pace.begin(str(number), "fit", began)
        if began == 100:
            pace.end(str(number - 2), 100)
    assert pace.estimate(100) == (200 + 10 * 100) / 2  # of figures none has ended
    assert pace.estimate(180) == (2 * 20 + 10 * 100) / 2
    for number, began in enumerate((200, 200, 201)):
        pace.begin(f"draw {number}", "draw", began)
        pace.end(f"draw {number}", began + 1)
    pace.end("2", 200)
    pace.end("3", 200)
    assert pace.estimate(202) == pytest.approx(7 * 1 / (403 / 202))


def test_a_job_that_runs_again_is_counted_once():
    pace = Pace()
    pace.plan("fit", 2)
    pace.begin("7", "fit", 0)
    pace.begin("7", "fit", 10)
    pace.end("7", 20)
    pace.end("of another run", 20)
    assert pace.estimate(20) == 1 * 10 / (10 / 20)


def test_the_first_look_is_told():
    line = "first look: results/mine/first-look/table.md, results/mine/first-look/x.png"
    assert Progress(Bar()).read(line) == line


def test_a_run_that_fails_early_says_why():
    progress = Progress(Bar())
    for line in ("Building DAG of jobs...", "LockException:", "Error: Directory cannot be locked."):
        assert progress.read(line) is None
    assert list(progress.explain(0)) == []
    assert list(progress.explain(1))[-1] == "Error: Directory cannot be locked."


def test_the_workflow_can_be_a_module_of_another(tmp_path: Path):
    """As docs/command.md shows its use."""
    (tmp_path / "mine.yaml").write_text((ROOT / "experiments/tiny.yaml").read_text())
    (block,) = (one.text for one in list_blocks(DOCS / "command.md") if one.language == "python")
    assert "path/to/dbksvd/" in block
    (tmp_path / "Snakefile").write_text(block.replace("path/to/dbksvd/", f"{ROOT}/"))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--cores", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fits = len(Experiment(read_layers([ROOT / "experiments/tiny.yaml"], {})).fits)
    assert done.stdout.count("rule dbksvd_fit_dictionary:") == fits


def test_without_a_config_the_default_experiment_is_planned(tmp_path: Path):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path), "--cores", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fits = len(Experiment(read_layers([ROOT / "config.yaml"], {})).fits)
    assert done.stdout.count("rule fit_dictionary:") == fits
