"""Nothing that is read is executed, and no key is written down."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("dbksvd", "scripts", "workflow") for path in (ROOT / folder).rglob("*.py")
)
RULES = [
    ROOT / "Snakefile",
    ROOT / "workflow" / "Snakefile",
    *sorted((ROOT / "workflow" / "rules").glob("*.smk")),
]

# Modules whose readers run what a file says.
UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("pd.read_pickle", "pandas.read_pickle"),
}


def find_unsafe(source: str) -> Iterator[str]:
    """Yield what in a module would execute what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (
                alias.name
                for alias in node.names
                if alias.name in UNSAFE_MODULES - {"pickle"}
                or (alias.name == "pickle" and alias.asname)
            )
        elif isinstance(node, ast.Attribute):
            # what torch raises where it refuses to unpickle may be caught
            if ast.unparse(node.value) == "pickle" and node.attr != "UnpicklingError":
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in UNSAFE_MODULES:
                yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _find_unsafe_call(node)
        elif isinstance(node, ast.Dict):
            yield from (
                "trust_remote_code"
                for key, value in zip(node.keys, node.values, strict=True)
                if _is_constant(key, "trust_remote_code") and not _is_constant(value, False)
            )


def _find_unsafe_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in UNSAFE_CALLS:
        yield name
    if name == "torch.load" and not _is_constant(options.get("weights_only"), True):
        yield "torch.load without weights_only=True"
    for option in ("allow_pickle", "trust_remote_code", "shell"):
        if option in options and not _is_constant(options[option], False):
            yield f"{option}={ast.unparse(options[option])}"


def _is_constant(node: ast.AST | None, value: object) -> bool:
    return (
        isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(x)",
        "import pickle as harmless",
        "from pickle import loads",
        "import joblib",
        "from marshal import loads",
        "import torch\ntorch.load('x')",
        "np.load('x', allow_pickle=True)",
        "f(trust_remote_code=flag)",
        "options = {'trust_remote_code': True}",
        "yaml.load(text)",
        "subprocess.run('x', shell=True)",
        "os.system('x')",
        "eval(text)",
    ],
)
def test_the_check_finds(source: str):
    assert list(find_unsafe(source))


def test_the_check_accepts():
    source = """
import pickle
pickle.UnpicklingError
yaml.safe_load(text)
torch.load('x', weights_only=True)
np.load('x', allow_pickle=False)
model.eval()
re.compile('x')
subprocess.run(['x'], shell=False)
f(trust_remote_code=False)
options = {'trust_remote_code': False}
"""
    assert list(find_unsafe(source)) == []


def test_no_module_executes_what_it_reads():
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): unsafe
        for path in SOURCES
        if (unsafe := list(find_unsafe(path.read_text())))
    }
    assert found == {}


def test_what_rules_put_into_the_shell_is_quoted():
    """Values of the config reach a shell through ``:q``; the rest are numbers and names."""
    names = r"(?:input|output|log|params)(?:\.\w+|\[[^]]*\])*"
    plain, quoted = set(), 0
    for path in RULES:
        for match in re.finditer(rf"\{{({names})(:q)?\}}", path.read_text()):
            quoted += bool(match[2])
            if not match[2]:
                plain.add(match[1])
    assert quoted > 50
    # numbers, and options whose values inputs.smk puts through shlex.quote or shlex.join
    numbers = {"params.slice", "params.seed", "params.seeds"}
    options = {"bases", "truth", "stream", "model", "text", "folders", "options"}
    assert plain <= numbers | {f"params.{name}" for name in options}


def test_wildcards_are_letters_digits_and_hyphens():
    """They stand in shell commands without quotes."""
    common = (ROOT / "workflow/rules/common.smk").read_text()
    constraints = common.split("wildcard_constraints:")[1].split("\n\n")[0]
    found = dict(re.findall(r'(\w+)=r"([^"]+)"', constraints))
    used = {
        name
        for path in RULES
        for name in re.findall(r"\{wildcards\.(\w+)[^}]*\}", path.read_text())
    }
    assert used <= found.keys()
    for name, pattern in found.items():
        for bad in ("a b", "x;touch pwned", "$(x)", "`x`", "a'b", 'a"b', "a/b", "a\n"):
            assert not re.fullmatch(pattern, bad), name


# Keys


KEY = "sk-very-secret-0123456789"


class EchoingEndpoint(BaseHTTPRequestHandler):
    """Refuses every question and says the key that it was given."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        said = self.headers["Authorization"]
        body = {"error": {"message": f"Incorrect API key provided: {said}", "code": "bad"}}
        payload = json.dumps(body).encode()
        self.send_response(401, f"Unauthorized {said}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def echoing_endpoint():
    """URL of an endpoint that tells every asker its key."""
    server = HTTPServer(("127.0.0.1", 0), EchoingEndpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


PROGRAM = """
import json, logging, sys
from pathlib import Path
from dbksvd.base.errors import report_errors
from dbksvd.evaluation.saebench.evals.autointerp import CachedJudge

logging.basicConfig(level=logging.DEBUG)
with report_errors():
    judge = CachedJudge(json.loads(sys.argv[1]), Path("answers"))
    try:
        judge([{"role": "user", "content": "What is it?"}], 10)
    except Exception:
        logging.exception("autointerp: failed")  # as the runner of evals does
        raise
"""


def test_a_key_is_in_no_log_and_no_result(echoing_endpoint, tmp_path):
    judge = {"url": echoing_endpoint, "model": "m", "key_variable": "TEST_JUDGE_KEY"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(judge)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "TEST_JUDGE_KEY": KEY, "OPENAI_LOG": "debug"},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "evaluation.evals.autointerp.judge" in output.splitlines()[-1]
    assert "401" in output.splitlines()[-1]
    assert KEY not in output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
