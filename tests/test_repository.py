"""The repository keeps its own rules: imports go one way, and what the READMEs name exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proofrun import errors

ROOT = Path(__file__).resolve().parent.parent
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout.splitlines()  # fmt: skip
PYTHON = [ROOT / name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]
READMES = [ROOT / name for name in TRACKED if name.endswith(".md") and "reports/" not in name]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, as dotted names."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(folder: str) -> list[Path]:
    return [path for path in PYTHON if str(path.relative_to(ROOT)).startswith(folder)]


def uses(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports(path))


def test_only_two_files_import_dali():
    users = {path for path in modules("proofrun") + modules("tools") if uses(path, "nvidia")}
    assert users == {ROOT / "proofrun" / "data" / f"{name}.py" for name in ("dali", "dali_graph")}


def test_only_device_py_names_devices_and_collectives():
    words = re.compile(r"\b(cuda|mlu|npu|nccl|cncl|hccl|gloo)\b")
    for path in modules("proofrun"):
        names = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        } | {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        docs = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        }
        named = {name for name in names - docs if words.fullmatch(name)}
        assert not named or path.name == "device.py", f"{path} names {named}"


def test_recipes_models_import_torch_only():
    for path in ROOT.glob("recipes/*/model.py"):
        outside = {name.split(".")[0] for name in imports(path)}
        assert outside <= {"torch", "__future__", "typing", "collections", "math", "dataclasses"}


def test_training_and_report_meet_only_in_schemas():
    allowed = ("proofrun.events", "proofrun.recipe", "proofrun.runs", "proofrun.errors")
    allowed += ("proofrun.bootstrap", "proofrun.status", "proofrun.archive", "proofrun.alignment")
    allowed += ("proofrun.text",)
    allowed += ("proofrun.heartbeat",)  # whether a run that is watched still lives
    for path in [*modules("tools/_report"), ROOT / "tools" / "report.py"]:
        for name in imports(path):
            if name.startswith("proofrun.") and not name.startswith(allowed):
                pytest.fail(f"{path} imports {name}")
    for path in modules("proofrun"):
        assert not any(name.startswith(("tools", "_report")) for name in imports(path)), path


@pytest.mark.parametrize(
    "module",
    [
        "launch",
        "recipe",
        "runs",
        "events",
        "writer",
        "errors",
        "status",
        "folders",
        "preflight",
        "bootstrap",
        "saved",
    ],
)  # fmt: skip
def test_torch_free_modules_load_no_torch(module):
    code = f"import sys, proofrun.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_train_knows_no_command_line_and_no_report():
    for name in ("train.py", "session.py"):
        assert not uses(ROOT / "proofrun" / name, "argparse")


def test_env_sh_holds_only_exports_with_defaults():
    for line in (ROOT / "env.sh").read_text().splitlines():
        assert (
            not line
            or line.startswith("#")
            or re.fullmatch(r'export (\w+)="\$\{\1:-[^}]*\}"', line)
        ), line


def blocks(path: Path) -> list[str]:
    """Command lines of the fenced code blocks of a README."""
    found = []
    for block in re.findall(r"```(?:bash|sh)?\n(.*?)```", path.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("  #")[0].strip()
            if command and not command.startswith("#"):
                found.append(command)
    return found


@pytest.mark.parametrize("path", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_and_path_of_a_readme_exists(path):
    for command in blocks(path):
        if command[0] in "├└│ " or command.startswith(("git clone", "cd ")):
            continue
        words = [w for w in shlex.split(command) if "=" not in w.split("/")[0]]
        for word in words:
            if re.fullmatch(r"[\w./-]+\.(sh|py|txt|yaml|sbatch)", word):
                assert (ROOT / word).exists(), f"{path.name}: {command}: no {word}"
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path}: no {target}"
    for quoted in re.findall(r"`([\w.-]+/[\w./-]+)`", path.read_text()):
        known = any((base / quoted).exists() for base in (ROOT, path.parent))
        made = quoted.split("/")[0] in ("logs", "data", "checkpoints")
        assert known or made, f"{path}: no {quoted}"


def test_annotated_tree_of_the_readme_is_the_tree():
    text = (ROOT / "README.md").read_text()
    tree = re.search(r"```text\n(.*?)```", text, flags=re.DOTALL)
    assert tree
    for line in tree[1].splitlines():
        name = line.split()[0] if line.split() else ""
        if name and "<" not in name:
            assert (ROOT / name).exists(), name


def test_measured_figures_of_the_readme_are_in_the_committed_reports():
    figures = re.findall(r"\d+\.\d+ ± \d+\.\d+", (ROOT / "README.md").read_text())
    report = "".join(path.read_text() for path in ROOT.glob("reports/rehearsal*/report.md"))
    assert len(figures) >= 8
    assert [figure for figure in figures if figure not in report] == []


def test_exit_codes_of_the_readme_are_the_table():
    assert errors.table() in (ROOT / "README.md").read_text()
    codes = [int(code) for code in errors.Exit]
    assert len(set(codes)) == len(codes) and set(errors.MEANING) == set(errors.Exit)


def test_recipe_readmes_are_short():
    for path in ROOT.glob("recipes/*/README.md"):
        assert len(path.read_text().splitlines()) <= 60
    for folder in ROOT.glob("recipes/*/"):
        if (folder / "recipe.yaml").exists():
            for name in ("model.py", "env.sh", "Dockerfile", "README.md"):
                assert (folder / name).exists(), folder / name


def test_every_requirement_is_pinned():
    pins = (ROOT / "requirements" / "constraints.txt").read_text().lower().replace("_", "-")
    for path in (ROOT / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#") and path.name != "constraints.txt":
                assert f"\n{line.lower().replace('_', '-')}==" in pins, line
