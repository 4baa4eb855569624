"""The house rules that a machine can keep: layers, file length, no print, no globals."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent", "dicom_nodes", "inference", "db", "training")
MAX_LINES = 400
LAYERS = {
    "agent": {"agent", "dicom_nodes", "inference", "db", "migrations", "training"},
    "dicom_nodes": {"dicom_nodes"},
    "inference": {"inference"},
    "db": {"db"},
    "training": {"training", "inference"},
}


def sources() -> Iterator[tuple[str, Path]]:
    """Every source file with its package."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, path


def imported_packages(tree: ast.AST) -> set[str]:
    """Our own top-level packages that a module imports, wherever in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found & {*PACKAGES, "migrations"}


def test_data_flows_one_way() -> None:
    """No package imports what the architecture puts above or beside it."""
    wrong = []
    for package, path in sources():
        extra = imported_packages(ast.parse(path.read_text())) - LAYERS[package]
        if extra:
            wrong.append(f"{path.relative_to(ROOT)} imports {', '.join(sorted(extra))}")

    assert wrong == []


def test_only_the_demo_and_the_train_commands_use_training() -> None:
    """The agent in production never needs the training code."""
    wrong = [
        str(path.relative_to(ROOT))
        for package, path in sources()
        if package == "agent"
        and "training" in imported_packages(ast.parse(path.read_text()))
        and "demo" not in path.relative_to(ROOT).parts
        and not path.stem.startswith("train")
    ]

    assert wrong == []


def test_every_file_is_one_idea() -> None:
    """A file over the limit wants to be two."""
    long = {
        str(path.relative_to(ROOT)): lines
        for _, path in sources()
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }

    assert long == {}


def test_no_print_and_no_global_statement() -> None:
    """Libraries log events and pass arguments."""
    wrong = []
    for package, path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            is_print = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
                and package != "training"
            )
            if is_print or isinstance(node, ast.Global):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert wrong == []


def test_no_machine_path_is_committed() -> None:
    """Nothing names a directory of the machine it was written on."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/(?:work|farm|root)/[A-Za-z.]")
    wrong = []
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ""}:
            text = path.read_text(errors="ignore") if path.is_file() else ""
            if pattern.search(text) and path != Path(__file__).resolve():
                wrong.append(name)

    assert wrong == []


def test_help_is_instant() -> None:
    """The command line imports no heavy library before it has to."""
    code = (
        "import sys, agent.cli; "
        "heavy = {'torch', 'highdicom', 'SimpleITK', 'pynetdicom', 'scipy'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")


def test_the_import_contracts_hold() -> None:
    """import-linter agrees (pyproject.toml holds the contracts)."""
    program = shutil.which("lint-imports") or str(Path(sys.executable).parent / "lint-imports")
    if not Path(program).exists():
        pytest.skip("import-linter is not installed")
    run = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout
