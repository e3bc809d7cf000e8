"""Every command that a page shows is one that its program takes."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from doc_blocks import PAGES, ROOT, Block, list_blocks, list_commands
from snakemake.cli import get_argument_parser

from dbksvd.command.main import app

BLOCKS = [block for page in PAGES for block in list_blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "sh"]
# text: what no machine runs, such as a tree of folders
LANGUAGES = {"sh", "python", "yaml", "text", "bibtex"}
USAGE_ERROR = typer.BadParameter.__base__  # typer brings a click of its own
PROFILES = {path.name for path in (ROOT / "profiles").iterdir()}
# Folders that the pages say a user has made.
OF_A_USER = {"my-cluster"}


def take_dbksvd(words: list[str]) -> None:
    """Parse as `dbksvd` does, without running anything."""
    own = words[: words.index("--")] if "--" in words else words
    group = typer.main.get_group(app)
    with typer.Context(group, info_name="dbksvd") as context:
        if own == ["--version"]:
            return
        name, command, rest = group.resolve_command(context, own)
        assert command is not None
        parsed = command.make_context(name, list(rest), parent=context)
    if profile := parsed.params.get("profile"):
        assert profile in PROFILES | OF_A_USER
    if "--" in words:
        assert name == "run"
        take_snakemake(words[words.index("--") + 1 :])


def take_snakemake(words: list[str]) -> None:
    arguments = get_argument_parser().parse_args(words)
    if arguments.workflow_profile:
        assert arguments.workflow_profile in PROFILES
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    for rule in [*(arguments.set_threads or []), *(arguments.set_resources or []), *(arguments.cache or [])]:  # fmt: skip
        assert re.search(rf"^(rule|checkpoint) {rule}:", text, re.MULTILINE)


def take_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, value = word.partition("=")
        if is_variable:
            assert re.search(rf"\b{name} \?=|\(value {name}\)", makefile), word
            assert not value.endswith(".yaml") or (ROOT / value).is_file(), word
        else:
            assert re.search(rf"^{name}:", makefile, re.MULTILINE), word


def take_python(words: list[str]) -> None:
    """The script is there and has the options."""
    if words[0] == "-m":
        assert (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
        return
    script, *rest = words
    tree = ast.parse((ROOT / script).read_text())
    options = {
        argument.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    assert {word for word in rest if word.startswith("--")} <= options


def take_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"\[(.*)\]", " ".join(words)):
        assert set(extra.split(",")) <= extras["optional-dependencies"].keys()


def take_source(words: list[str]) -> None:
    assert words == [".venv/bin/activate"]


def take_anything(_words: list[str]) -> None:
    """The shell's own, or a tool that is no part of the project."""


TAKERS: dict[str, Callable[[list[str]], None]] = {
    "dbksvd": take_dbksvd,
    "snakemake": take_snakemake,
    "make": take_make,
    "python": take_python,
    "pip": take_pip,
    "source": take_source,
    **dict.fromkeys(["cd", "export", "mkdir", "podman", "apptainer"], take_anything),
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_say_their_language(block: Block):
    assert block.language in LANGUAGES
    assert block.text.strip()


def test_no_fence_is_left_open():
    for page in PAGES:
        fences = re.findall(r"^\s*```", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list_blocks(page)), page


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_taken(block: Block):
    commands = list_commands(block.text)
    assert commands
    for program, *words in commands:
        assert program in TAKERS, f"{program}: no check of this program"
        TAKERS[program](words)


@pytest.mark.parametrize(
    "line",
    [
        "dbksvd run --corse 2",
        "dbksvd runn",
        "dbksvd run --profile moon",
        "dbksvd run -- --corse 2",
        "make runn",
        "make run CONFIGS=config.yaml",
        "make run CONFIG=experiments/none.yaml",
        "snakemake --set-threads fit=4",
        "python scripts/measure_stability.py --none 1",
        "python scripts/none.py",
        "pip install '.[none]'",
    ],
)
def test_wrong_commands_are_not_taken(line: str):
    ((program, *words),) = list_commands(line)
    with pytest.raises((AssertionError, USAGE_ERROR, SystemExit, FileNotFoundError)):
        TAKERS[program](words)


def find_inline_commands(page: Path) -> list[str]:
    """Commands inside a sentence, as `make x` and `dbksvd x`."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"`((?:make|dbksvd) [a-z][^`…]*)`", text)
    return [" ".join(line.split()) for line in found if not re.search(r"[A-Z<\[]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_are_taken(page: Path):
    for line in find_inline_commands(page):
        for program, *words in list_commands(line):
            if program == "make":
                take_make(words)
            else:
                name = words[0]
                assert name in {command.callback.__name__ for command in app.registered_commands}
