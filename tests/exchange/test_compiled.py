"""The compiled build of the matching does what the sources do, and never passes for what it is not."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import get_args

import pytest

from exchange.adapters import compiled
from exchange.events import Event
from scripts.compiled import modules_of, refuse, sources_of

ROOT = Path(__file__).parents[2]
FLOW = "tests/exchange/flow_hash.py"
COMMANDS = 20_000
EVERY_EVENT = {one.__name__ for one in get_args(Event)}
COMPILER = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
HEADERS = Path(sysconfig.get_path("include"), "Python.h")
needs_compiler = pytest.mark.skipif(
    COMPILER is None or not HEADERS.is_file(), reason="there is no C compiler, or Python was installed without headers"
)


def compiled_into(folder, *words):
    done = subprocess.run(
        [sys.executable, "scripts/compiled.py", *words, str(folder)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def ask(folder, *words, **environment):
    """Run Python on the build in `folder`, on the sources when it is None; return what it printed."""
    env = {key: value for key, value in os.environ.items() if key != compiled.CHOICE}
    if folder is not None:
        env[compiled.CHOICE] = str(folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=ROOT, env={**env, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same_states(folder):
    """Run the flow on both builds under two hash seeds; all must reach the same states and tell the same."""
    told = {
        (build, seed): json.loads(ask(place, FLOW, str(COMMANDS), PYTHONHASHSEED=seed))
        for build, place in (("sources", None), ("compiled", folder))
        for seed in ("1", "4711")
    }
    for (build, _), each in told.items():
        assert each["compiled"] == (build == "compiled")
        missing = EVERY_EVENT - set(each["told"])
        assert not missing, f"a flow that never saw {missing} proves little"
    assert len({json.dumps([each["told"], each["hashes"]]) for each in told.values()}) == 1, told


@needs_compiler
def test_every_module_that_shall_be_compiled_is_and_reaches_the_same_state_whatever_the_hash_seed(tmp_path):
    """One test, for compiling takes ten seconds and two workers would both do it. The sources stay as they are."""
    built = compiled_into(tmp_path / "compiled", "--quick")
    names = [path.removesuffix(".py").replace("/", ".") for path in modules_of(ROOT)]
    program = f"import importlib\nfor name in {names!r}: print(importlib.import_module(name).__file__)"
    files = ask(built, "-c", program).split()
    assert len(files) == len(names)
    assert all(Path(file).is_relative_to(built) and file.endswith(".so") for file in files), files
    same_states(built)


@needs_compiler
@pytest.mark.long
def test_the_optimized_build_reaches_the_same_states_and_passes_the_tests_of_the_exchange(tmp_path):
    folder = compiled_into(tmp_path / "compiled")
    same_states(folder)
    names = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests" / "exchange").glob("test_*.py")
        if path.name not in {Path(__file__).name, "test_planted_bugs.py"}  # those are planted into the sources
    )
    said = ask(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long and not estate", *names)
    assert " passed" in said


# --- which build runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A root with one source and a folder that says it was compiled from it."""
    root, folder = tmp_path / "root", tmp_path / "compiled"
    (root / "exchange").mkdir(parents=True)
    (folder / "exchange").mkdir(parents=True)
    (root / "exchange" / "book.py").write_text("PRICE = 1\n")
    manifest = {
        "mypy": "2.4.1", "python": sys.implementation.cache_tag, "modules": ["exchange.book"],
        "sources": {"exchange/book.py": compiled._digest(root / "exchange" / "book.py")},
    }  # fmt: skip
    (folder / "exchange" / compiled.MANIFEST).write_text(json.dumps(manifest))
    (folder / "exchange" / f"book{compiled.EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    monkeypatch.setattr(compiled, "ROOT", root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(compiled.CHOICE, str(folder))
    return root, folder


def package_of(root):
    return [str(root / "exchange")]


def test_unasked_the_sources_run(made, monkeypatch):
    root, _ = made
    for unasked in ("", "0"):
        monkeypatch.setenv(compiled.CHOICE, unasked)
        package = package_of(root)
        compiled.overlay(package)
        assert package == package_of(root)
        assert compiled.running(package) == compiled.Build(compiled=False, ok=True, found="pure Python")


def test_asked_for_extensions_of_these_sources_come_first_and_are_told(made):
    root, folder = made
    package = package_of(root)
    compiled.overlay(package)
    assert package == [str(folder / "exchange"), *package_of(root)]
    build = compiled.running(package)
    assert build.compiled
    assert build.ok
    digest = compiled._read(folder / "exchange" / compiled.MANIFEST).source_hash
    assert build.found == f"compiled by mypyc 2.4.1 from sources {digest}, in {folder / 'exchange'}"


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_extensions_of_other_sources_are_left_aside_and_told(made, change):
    root, folder = made
    source = root / "exchange" / "book.py"
    if change == "edited":
        source.write_text("PRICE = 2\n")
    else:
        source.unlink()
    package = package_of(root)
    with pytest.warns(RuntimeWarning, match=r"exchange/book\.py changed since it was compiled .*the sources run"):
        compiled.overlay(package)
    assert package == package_of(root)
    build = compiled.running(package)
    assert not build.compiled
    assert not build.ok
    assert f"exchange/book.py changed since it was compiled into {folder}" in build.found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "nothing was compiled"),
        (lambda path: path.write_text("{"), "is no manifest"),
        (lambda path: path.write_text(path.read_text().replace("cpython-", "cpython-9")), "was compiled for cpython-9"),
    ],
)
def test_a_folder_that_does_not_fit_is_left_aside(made, change, said):
    root, folder = made
    change(folder / "exchange" / compiled.MANIFEST)
    package = package_of(root)
    with pytest.warns(RuntimeWarning, match=said):
        compiled.overlay(package)
    assert package == package_of(root)
    assert said in compiled.running(package).found


def test_a_wheel_whose_source_was_edited_is_told(made, monkeypatch):
    """There the extension lies beside the source and wins: doctor must say that the edit has no effect."""
    root, folder = made
    monkeypatch.delenv(compiled.CHOICE)
    for path in (folder / "exchange").iterdir():
        shutil.copy(path, root / "exchange")
    assert compiled.running(package_of(root)).ok
    (root / "exchange" / "book.py").write_text("PRICE = 2\n")
    build = compiled.running(package_of(root))
    assert build.compiled
    assert not build.ok
    assert "exchange/book.py changed" in build.found


def test_a_module_without_its_extension_is_told(made):
    root, folder = made
    (folder / "exchange" / f"book{compiled.EXTENSION_SUFFIXES[0]}").unlink()
    package = package_of(root)
    compiled.overlay(package)
    build = compiled.running(package)
    assert not build.ok
    assert build.found.endswith("exchange.book runs from source")


# --- what can be compiled ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["class A(msgspec.Struct):", "class A(Struct, frozen=True):", "class A(StrEnum):", "class A(B, x=1):"]
)
def test_a_class_whose_options_would_be_lost_is_refused(tmp_path, line):
    (tmp_path / "a.py").write_text(f"class B:\n    pass\n\n\n{line}\n    pass\n")
    with pytest.raises(SystemExit, match=r"a\.py:5: class A\(.*\) cannot be compiled"):
        refuse(tmp_path, ["a.py"])


def test_plain_classes_and_those_built_on_them_are_taken(tmp_path):
    (tmp_path / "a.py").write_text(
        "class B:\n    pass\n\n\nclass A(B):\n    pass\n\n\nclass T(NamedTuple):\n    pass\n"
    )
    refuse(tmp_path, ["a.py"])


def test_the_sources_of_an_extension_are_all_that_it_imports(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.py").write_text("import json\nfrom p import b\n")
    (tmp_path / "p" / "b.py").write_text("from p.c import X\n")
    (tmp_path / "p" / "c.py").write_text("import p.d\nX = 1\n")
    (tmp_path / "p" / "d.py").write_text("")
    (tmp_path / "p" / "e.py").write_text("")
    assert sources_of(tmp_path, ["p/a.py"]) == ["p/a.py", "p/b.py", "p/c.py", "p/d.py"]


def test_what_is_said_to_compile_can_be():
    modules = modules_of(ROOT)
    assert "exchange/book.py" in modules
    refuse(ROOT, modules)


@needs_compiler
def test_a_type_error_stops_the_build_and_leaves_the_folder_alone(tmp_path):
    (tmp_path / "a.py").write_text("def f(x: int) -> str:\n    return x\n")
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / "kept").write_text("")
    program = f"from scripts.compiled import *; compile_into(Path({str(folder)!r}), Path({str(tmp_path)!r}), ['a.py'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Incompatible return value" in done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["kept"]
