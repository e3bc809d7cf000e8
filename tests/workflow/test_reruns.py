"""Only changed stages rerun, on the real Snakefile after a real run."""

import os
from pathlib import Path
from typing import Any

import yaml
from running import CONFIG, copy_project, plan, run_snakemake

from workflow.experiment import Experiment

TINY = yaml.safe_load((Path(__file__).parents[2] / CONFIG).read_text())
FIGURES = len(Experiment(TINY).figures)
AFTER_FITS = {
    "compare_methods": 1,
    "collect_scores": 1,
    "collect_curves": 1,
    "compare_budgets": 1,
    "match_l0": 1,
    "summarise_scores": 1,
    "draw_figure": FIGURES,
}


def edit_config(project: Path, change: Any) -> None:
    path = project / CONFIG
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def append_comment(path: Path) -> None:
    """Edit a source file but keep its old modification time."""
    times = path.stat()
    path.write_text(path.read_text() + "\n# edited\n")
    os.utime(path, (times.st_atime, times.st_mtime))


def test_nothing_after_a_run(finished_run: Path):
    assert plan(finished_run) == {}


def test_nothing_after_copying_the_folder_and_touching_every_file(project: Path):
    for path in sorted(project.rglob("*"), reverse=True):
        if path.is_file() and ".snakemake" not in path.parts:
            path.touch()
    assert plan(project) == {}


def test_nothing_after_reordering_the_keys(project: Path):
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reverse(value[key]) for key in reversed(value)}
        return value

    path = project / CONFIG
    path.write_text(yaml.safe_dump(reverse(yaml.safe_load(path.read_text())), sort_keys=False))
    assert "methods" in path.read_text().split("experiment:")[0]  # the order did change
    # Figures depend on the order of the methods: it decides the colours.
    tables = {"summarise_scores", "compare_budgets", "compare_methods", "match_l0"}
    assert set(plan(project)) <= {"draw_figure", *tables}


def test_figure_setting_reruns_figures_only(project: Path):
    edit_config(project, lambda config: config["figures"].update(dpi=120))
    assert plan(project) == {"draw_figure": FIGURES}


def test_k_of_one_method_reruns_that_fit_and_what_follows(project: Path):
    edit_config(project, lambda config: config["fits"][1].update(k=[6]))
    assert plan(project) == {"fit_dictionary": 1, "evaluate_dictionary": 1, **AFTER_FITS}


def test_setting_of_one_method_reruns_its_fits(project: Path):
    edit_config(project, lambda config: config["methods"]["topk-sae"].update(lr=0.001))
    assert plan(project) == {"fit_dictionary": 1, "evaluate_dictionary": 1, **AFTER_FITS}


def test_swapped_values_are_seen(project: Path):
    def swap(config: dict[str, Any]) -> None:
        settings = config["methods"]["topk-sae"]
        settings["lr_warm_up"], settings["lr_decay"] = settings["lr_decay"], settings["lr_warm_up"]

    edit_config(project, swap)
    assert plan(project)["fit_dictionary"] == 1


def test_edited_pursuit_reruns_fits_and_later_not_extraction(project: Path):
    append_comment(project / "dbksvd/ops/pursuit/batched.py")
    planned = plan(project)
    # All that code by pursuit: DB-KSVD's fits and every evaluation, but not the SAE's fit.
    assert planned["fit_dictionary"] == 3
    assert planned["evaluate_dictionary"] == 4
    assert "extract_activations" not in planned
    assert "shard_activations" not in planned


def test_edited_sae_training_reruns_the_sae_only(project: Path):
    append_comment(project / "dbksvd/fit/sae/method.py")
    assert plan(project) == {"fit_dictionary": 1, "evaluate_dictionary": 1, **AFTER_FITS}


def test_edited_architecture_reruns_no_fit_of_another(project: Path):
    append_comment(project / "dbksvd/dictionaries/switch.py")
    planned = plan(project)
    assert "fit_dictionary" not in planned
    assert planned["evaluate_dictionary"] == 4  # they can load it


def test_edited_figures_rerun_figures_only(project: Path):
    append_comment(project / "dbksvd/report/figures/panels.py")
    assert plan(project) == {"draw_figure": FIGURES - 1}  # differences has none of its panels


def test_edited_figure_reruns_itself_only(project: Path):
    append_comment(project / "dbksvd/report/figures/probing.py")
    assert plan(project) == {"draw_figure": 1}


def test_edited_table_reruns_itself_only(project: Path):
    append_comment(project / "dbksvd/report/matched.py")
    assert plan(project) == {"match_l0": 1}


def test_edited_extraction_reruns_from_there(project: Path):
    append_comment(project / "dbksvd/activations/from_text.py")
    planned = plan(project)
    assert planned["extract_activations"] == 2
    assert planned["fit_dictionary"] == 4
    assert "prepare_text" not in planned


def test_local_text_is_known_by_its_content(tmp_path: Path):
    project = copy_project(tmp_path / "project")
    text = project / "text.txt"
    text.write_text("".join(f"A document, number {number}.\n" for number in range(300)))
    source = {"kind": "file", "path": "text.txt"}
    edit_config(project, lambda config: config["text"].update(sources=[source]))
    done = run_snakemake(project, "--cores", "1", "--", "results/tiny/text/manifest.json")
    assert done.returncode == 0, done.stderr
    text.touch()
    assert "prepare_text" not in plan(project)
    times = text.stat()
    text.write_text(text.read_text().replace("number 7.", "number 8."))
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert plan(project)["prepare_text"] == 1


def test_missing_file_is_made_again(project: Path):
    (project / "results/tiny/figures/probing.svg").unlink()
    assert plan(project) == {"draw_figure": 1}
