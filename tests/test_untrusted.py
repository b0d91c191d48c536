"""Files come from strangers and logs go to strangers: nothing is run, and no secret is written."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_logs import FakeRun
from test_repository import PYTHON, ROOT

from proofrun import launch
from proofrun.errors import Exit, UsageError

RUN = "Inceptionv2-Digits_FP32_6E_1CPU_Train"
OURS = [path for path in PYTHON if path.relative_to(ROOT).parts[0] != "tests"]
CANARY = "c4n4ry5ecret"

#: Calls that run text, or that can run what a file says.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.full_load_all",
    "torch.hub.load", "torch.jit.load", "pd.read_pickle", "pandas.read_pickle",
}  # fmt: skip
SAFE_LOADERS = {"_Yaml12Loader", "_NoAliasLoader", "yaml.SafeLoader", "yaml.CSafeLoader"}


def dangers(source: str) -> list[str]:
    """What in a Python file may run what a stranger wrote, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve"):
            found.append(f"line {node.lineno}: from {node.module} import")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
        texts = [ast.unparse(argument) for argument in node.args]
        loader = set(ast.unparse(argument) for argument in node.args[1:]) | {given.get("Loader")}
        names = {
            n.id for a in node.args[1:] for n in ast.walk(a) if isinstance(n, ast.Name)
        }  # of a choice between two
        wrong = (
            name in FORBIDDEN
            or given.get("shell", "False") != "False"
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name == "yaml.load" and not (loader & SAFE_LOADERS or names & SAFE_LOADERS))
            or given.get("allow_pickle", "False") != "False"
            or (name.endswith((".extractall", ".extract")) and given.get("filter") != "'data'")
            or (name.endswith("import_module") and not constant(node.args[0], texts[0]))
        )
        if wrong:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def constant(argument: ast.expr, text: str) -> bool:
    """A module named in the source; a vendor's plugin is named in device.py's own table."""
    own = text == "plugin" or text.startswith("f'{__package__}.")
    return isinstance(argument, ast.Constant) or own


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_says(path):
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "exec(text)", "import os\nos.system(text)", "pickle.load(file)",
        "from pickle import loads", "subprocess.run(text, shell=True)", "yaml.load(text)",
        "yaml.load(text, yaml.Loader)", "yaml.load(text, Loader=yaml.FullLoader)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "archive.extractall(folder)",
        "np.load(path, allow_pickle=True)", "importlib.import_module(recipe.name)",
    ],
)  # fmt: skip
def test_the_search_finds(source):
    assert len(dangers(source)) == 1


def test_only_a_recipes_model_file_is_run():
    users = [path for path in OURS if "exec_module(" in path.read_text()]
    assert users == [ROOT / "proofrun" / "models.py"]


def test_no_shell_script_evaluates_text():
    for path in ROOT.glob("*/*.sh"):
        words = [line.split() for line in path.read_text().splitlines()]
        assert not any("eval" in line for line in words if line and line[0] != "#"), path


def test_names_of_files_and_runs_are_no_markup(tmp_path):
    """A run's name, a folder's, a damaged file's: in the page as text or not at all."""
    evil = "<img src=x onerror=alert(1)>"
    good = FakeRun(RUN).write(tmp_path / evil)
    lines = (good / "events.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["run"] = first["plan"]["run"] = f"{evil}_Train"
    other = tmp_path / "other" / f"{evil}_Train" / "001"
    other.mkdir(parents=True)
    (other / "events.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]))
    torn = tmp_path / "torn" / RUN / evil
    torn.mkdir(parents=True)
    (torn / "events.jsonl").write_text('{"schema": 1, "kind": "run_start"\n')
    with gzip.open(tmp_path / f"{evil}.jsonl.gz", "wb") as file:
        file.write(lines[0].encode() + b"\n" + evil.encode())
    report(tmp_path, "--out", str(tmp_path / "report"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


def report(logs: Path, *flags: str) -> None:
    line = [sys.executable, ROOT / "tools" / "report.py", logs, *flags]
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_secret_of_the_environment_is_written(checkout, environment, tmp_path):
    """In variables, a proxy, pip's index, git's remote and configuration: one real run, then every
    byte of its log, report and bundle."""
    git = ["git", "-c", f"user.name={CANARY}", "-c", "user.email=a@b", "-C", str(checkout)]
    for words in (
        ["init", "-q"], ["add", "."], ["commit", "-qm", "all"],
        ["remote", "add", "origin", f"https://user:{CANARY}@example.org/x.git"],
        ["config", "http.extraHeader", f"Authorization: {CANARY}"],
    ):  # fmt: skip
        subprocess.run([*git, *words], check=True)
    secrets = {
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "PROOFRUN_CANARY": CANARY,
        "HF_TOKEN": CANARY,
        "HTTPS_PROXY": f"http://user:{CANARY}@127.0.0.1:9",
        "PIP_INDEX_URL": f"https://user:{CANARY}@example.org/simple",
    }
    script = str(checkout / "run_scripts" / f"{RUN}.sh")
    logs, out = tmp_path / "logs", tmp_path / "out"
    done = subprocess.run(
        ["bash", script, "--throughput", "2", "--logs", str(logs)],
        env={**environment, **secrets},
        capture_output=True,
        text=True,
    )
    assert done.returncode == Exit.OK, done.stderr
    report(logs, "--out", str(out))
    report(logs, "--bundle", str(out / "bundle.tar.gz"))
    written = [path for folder in (logs, out) for path in folder.rglob("*") if path.is_file()]
    assert {"provenance.json", "stdout.log", "report.html", "bundle.tar.gz"} <= {
        path.name for path in written
    }
    assert json.loads(next(logs.rglob("provenance.json")).read_text())["commit"]
    for path in written:
        raw = path.read_bytes()
        raw += gzip.decompress(raw) if path.suffix == ".gz" else b""
        assert CANARY.encode() not in raw, path
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "variable"),
    [
        (["--data", f"s3://user:{CANARY}@example.org/x"], None),
        (["--logs", f"s3://user:{CANARY}@example.org/x"], None),
        (["--set", f"loss.kind=http://{CANARY}@example.org/x"], None),
        (["--data", f"s3://example.org/x?signature={CANARY}"], None),
        (["--logs", f"s3://example.org/x?signature={CANARY}"], None),
        ([], "DIGITS_DATASET"),
        ([], "PROOFRUN_LOGS"),
    ],
)
def test_a_url_with_a_secret_is_refused_before_it_is_recorded(
    tmp_path, monkeypatch, digits, flags, variable
):
    """What is on the command line is in the log, and so are folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGITS_DATASET", str(digits))
    monkeypatch.setenv("PROOFRUN_LOGS", str(tmp_path / "logs"))
    if variable:
        monkeypatch.setenv(variable, f"s3://user:{CANARY}@example.org/x")
    with pytest.raises(UsageError) as caught:
        launch.main([RUN, "--throughput", "2", *flags])
    assert CANARY not in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
