"""``dbksvd``: the workflow and its engine from a shell. Arguments are read here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from dbksvd.base.errors import report_errors
from dbksvd.base.settings import SettingsError
from dbksvd.base.version import __version__
from dbksvd.command.engine import ENGINE
from dbksvd.command.project import find_carried, load_workflow, tell_memory, tell_missing

Given = ParamSpec("Given")
DEFAULT_CONFIG = Path("config.yaml")

app = typer.Typer(
    name="dbksvd",
    help="Sparse dictionaries of transformer activations: experiments as one workflow, and the "
    "engine alone. Each command has an example: dbksvd COMMAND --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def in_words(command: Callable[Given, None]) -> Callable[Given, None]:
    """End a command as scripts end: what a user did wrong is one line, and exit status 1."""

    @wraps(command)
    def run(*arguments: Given.args, **options: Given.kwargs) -> None:
        with report_errors():
            try:
                with tell_missing(), tell_memory():
                    command(*arguments, **options)
                    sys.stdout.flush()
            except BrokenPipeError:  # what reads the output has ended, as `head` does
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(1)
            except SettingsError as error:
                sys.exit(error.tell("error: config"))

    return run


Configs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Config files; a later one lies over the earlier. [default: config.yaml]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def choose_configs(given: list[Path] | None) -> list[Path]:
    """Return the config files that a command works on; those of this package from any folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file; if none is given, no ``config.yaml`` in the current folder.
    """
    found = [path if path.exists() else find_carried(path) for path in given or [DEFAULT_CONFIG]]
    for path in found:
        if path.exists():
            continue
        if path == DEFAULT_CONFIG:
            raise FileNotFoundError(
                f"{path}: expected a config in this folder or the name of one (dbksvd init DIR "
                "writes one), found none"
            )
        raise FileNotFoundError(
            f"{path}: expected a config file (dbksvd init DIR writes one), found none"
        )
    return found


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        typer.echo(f"dbksvd {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
@in_words
def init(
    folder: Annotated[Path, typer.Argument(help="Folder for config.yaml.")],
    model: Annotated[
        str | None, typer.Option(help="Hub name or local folder. [default: all-MiniLM-L6-v2]")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="Block, counted from 1. [default: the middle one]")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help=".txt, .jsonl, … file, folder, or data set of the hub.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column or field that holds the text. [default: text]")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="default, causal, images, files or synthetic. [default: as the model is]"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Array of activations (files) or folder of images (images).")
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(help="Name inside an .h5 or .safetensors file. [default: activations]"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
) -> None:
    """Write a small commented config that passes the check.

    It looks at the model's own config (depth, width) and at what you name. On a terminal it asks
    for a model and a text that you do not name.

    \b
    dbksvd init my-experiment
    dbksvd init --model gpt2 --layer 6 --text notes.jsonl my-experiment
    dbksvd init --like files --data acts.npy my-experiment
    """
    if sys.stdin.isatty() and not (model or text or like or data):
        model = typer.prompt("Model (hub name or folder; empty: all-MiniLM-L6-v2)", "") or None
        text = typer.prompt("Text (file or data set; empty: the one that is installed)", "") or None
    start = load_workflow("init")
    path = start.write_config(
        folder,
        model=model,
        layer=layer,
        text=text,
        column=column,
        like=like,
        data=data,
        tensor=tensor,
        force=force,
    )
    typer.echo(f"config  {path}\nnext    cd {folder} && dbksvd run")


@app.command()
@in_words
def run(
    context: typer.Context,
    configs: Configs = None,
    profile: Annotated[
        str, typer.Option(help="default, gpu, slurm, or a folder with a profile of your own.")
    ] = "default",
    cores: Annotated[str, typer.Option(help="How many, or all.")] = "all",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Snakemake's log.")] = False,
) -> None:
    """Run an experiment: text, activations, dictionaries, scores, figures, pages, report.

    Only what changed runs again. A terminal shows one line of progress, with the time left, a file
    or a pipe a line every 15 s; Snakemake's log is in .snakemake/log. What follows -- goes to
    Snakemake.

    \b
    dbksvd run
    dbksvd run mine.yaml --cores 4
    dbksvd run mine.yaml --profile slurm
    dbksvd run mine.yaml -- -n     # what would run, and why
    """
    extra = [] if context.obj is None else list(context.obj)
    load_workflow("run").run(
        choose_configs(configs), profile=profile, cores=cores, extra=extra, verbose=verbose
    )


@app.command()
@in_words
def profile(
    name: Annotated[str, typer.Argument(help="Name of the profile.")],
    like: Annotated[str, typer.Option(help="default, gpu or slurm.")] = "slurm",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a profile that is there.")
    ] = False,
) -> None:
    """Copy a profile of this package to profiles/NAME/config.yaml, for you to edit.

    \b
    dbksvd profile my-cluster
    dbksvd run --profile my-cluster
    """
    path = load_workflow("profile").copy_profile(name, like, force=force)
    typer.echo(f"profile  {path}\nnext     edit it, then dbksvd run --profile {name}")


@app.command()
@in_words
def report(configs: Configs = None, json: AsJson = False) -> None:
    """Print the tables of a finished run, and make its HTML report where results are newer.

    \b
    dbksvd report
    dbksvd report mine.yaml --json    # paths of everything
    """
    load_workflow("report").report(choose_configs(configs), as_json=json)


@app.command()
@in_words
def status(configs: Configs = None, json: AsJson = False) -> None:
    """Say what is done, and what a run would do and why. Nothing is run.

    \b
    dbksvd status
    dbksvd status mine.yaml --json
    """
    load_workflow("status").tell_status(choose_configs(configs), as_json=json)


@app.command()
@in_words
def estimate(
    configs: Configs = None,
    device: Annotated[str, typer.Option(help="One of the devices, or all.")] = "all",
    json: AsJson = False,
) -> None:
    """Say what an experiment costs before it runs: hours, disk and memory of each stage.

    \b
    dbksvd estimate mine.yaml
    dbksvd estimate mine.yaml --device cpu
    """
    load_workflow("estimate").estimate(choose_configs(configs), device=device, as_json=json)


@app.command()
@in_words
def check(configs: Configs = None, json: AsJson = False) -> None:
    """Check a config and every local file that it names; say all that is wrong at once.

    \b
    dbksvd check mine.yaml
    """
    load_workflow("check").check(choose_configs(configs), as_json=json)


@app.command()
@in_words
def settings(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Keys of a config. [default: all]")
    ] = None,
    json: AsJson = False,
) -> None:
    """Say what keys of a config mean, of which type they are, and their defaults.

    \b
    dbksvd settings activations.layers k
    dbksvd settings shards          # a whole section
    """
    load_workflow("settings").tell_settings(keys or [], as_json=json)


@app.command()
@in_words
def explain(
    text: Annotated[str, typer.Argument(help="What is explained.")],
    config: Annotated[
        list[Path] | None, typer.Option(help="Config of the run. [default: config.yaml]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Page. [default: site/explain.html]")] = None,
) -> None:
    """Write a page of the atoms that fire on each token of a text, method by method.

    \b
    dbksvd explain "the cat sat on the mat"
    """
    load_workflow("explain").explain(choose_configs(config), text, output)


@app.command()
@in_words
def clean(
    configs: Configs = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the results of an experiment.

    \b
    dbksvd clean mine.yaml
    """
    cleaning = load_workflow("clean")
    folder = cleaning.find_results(choose_configs(configs))
    if not yes and not (
        sys.stdin.isatty() and typer.confirm(f"Remove {folder}, {cleaning.measure(folder)}?")
    ):
        raise ValueError(f"{folder}: expected a yes (--yes), got none; nothing was removed")
    cleaning.remove_results(folder)
    typer.echo(f"removed  {folder}")


for one in ENGINE:
    app.command()(in_words(one))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command; what follows ``--`` is not for this program."""
    given = sys.argv[1:] if arguments is None else arguments
    own, extra = given, None
    if given[:1] == ["run"] and "--" in given:
        at = given.index("--")
        own, extra = given[:at], given[at + 1 :]
    return app(args=own, obj=extra, prog_name="dbksvd")


if __name__ == "__main__":
    main()
