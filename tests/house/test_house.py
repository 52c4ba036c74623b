from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("kernel", "exchange", "anomaly", "monitor", "runbooks", "incidents", "control")
SOURCES = [ROOT / "cli.py", *sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
TRACKED = subprocess.run(
    ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
).stdout.splitlines()
FORBIDDEN_IN_NAMES = ("manager", "processor", "util", "utils", "helper", "helpers", "misc")


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_fits_in_a_head(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().split("\n")) <= 600, "split it by what it is about"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno
            assert length < 60, (
                f"{node.name} has {length} lines: keep the branching in the parent, make the leaves pure"
            )


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "one sentence at the top"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_names_say_what_a_thing_is(path):
    """`manager`, `helper` and the like say nothing: name what it holds or does."""
    defined = [path.stem]
    defined += [
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for name in defined:
        words = re.findall(r"[A-Z]?[a-z]+", name)
        assert not {word.lower() for word in words} & set(FORBIDDEN_IN_NAMES), name


def test_the_lock_holds_hashes_and_no_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "--hash=sha256:" in lock
    assert not re.findall(r"https?://|--index|--extra-index|--find-links", lock)


def test_every_dependency_is_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in wanted:
        name = re.split(r"[<>=\[; ]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}(\[[a-z,]+\])?==", lock, re.MULTILINE), f"{name}: run make lock"


def test_the_readme_names_both_commands():
    readme = (ROOT / "README.md").read_text()
    assert "make drill" in readme
    assert "make test" in readme


def test_the_terminal_holds_no_logic():
    tree = ast.parse((ROOT / "cli.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.Try)][1:], (
        "one try in main; loops and decisions belong into control/"
    )


def test_nothing_a_machine_made_is_kept():
    assert not [name for name in TRACKED if re.search(r"__pycache__|\.pyc$|^\.venv/|^\.tapewatch/|\.part$", name)]


def test_no_two_files_of_tests_share_a_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "tests are no packages: a second file of a name is not collected"
