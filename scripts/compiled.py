"""Compiles the modules that matching runs through with mypyc: the same source, faster.

    python scripts/compiled.py [--quick] [FOLDER]

fills FOLDER (`build/compiled`) from the sources of this checkout; `TAPEWATCH_COMPILED=1` runs it, and nothing lies
beside the sources. `--quick` leaves out the C compiler's optimizing: half the time, for tests. As a hook of the build
back end it puts the same extensions into a wheel for this platform when `TAPEWATCH_COMPILE=1`; without the variable the
wheel is pure Python.

Which modules are compiled is written in `pyproject.toml`. A module can be one of them if it holds functions and plain
classes only: a `msgspec.Struct` would silently lose the options of its class line, an enumeration gains nothing.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from hatchling.builders.config import BuilderConfig
else:
    BuilderConfig = Any

WANTED: Final = "TAPEWATCH_COMPILE"
MANIFEST: Final = "exchange/compiled.json"
GROUP: Final = "tapewatch_exchange"
NEEDS: Final = ("mypy>=2.4", "setuptools>=65", "msgspec>=0.22")
"""What a build of its own must fetch; msgspec for its types."""
_PLAIN_BASES: Final = frozenset({"NamedTuple", "Protocol", "Exception", "object"})
_MYPY: Final = ("--config-file=", "--strict", "--explicit-package-bases", "--python-version=3.11")


def modules_of(root: Path) -> list[str]:
    """Return the paths of the modules that are compiled, as `pyproject.toml` names them."""
    config = tomllib.loads((root / "pyproject.toml").read_text())
    modules: list[str] = config["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]
    return modules


def sources_of(root: Path, modules: Iterable[str]) -> list[str]:
    """Return the paths of `modules` and of everything of ours that they import, sorted.

    Compiled code holds the types, the layouts and the constants of what it imports.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(ast.parse((root / path).read_text())):
            candidate = f"{name.replace('.', '/')}.py"
            if (root / candidate).is_file():
                waiting.append(candidate)
    return sorted(found)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def refuse(root: Path, modules: Iterable[str]) -> None:
    """See that every module can be compiled without changing what it does.

    Raises:
        SystemExit: one holds a class whose base is not a plain class of a compiled module.
    """
    plain = set(_PLAIN_BASES)
    classes = [
        (path, node)
        for path in modules
        for node in ast.walk(ast.parse((root / path).read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    plain.update(node.name for _, node in classes)
    for path, node in classes:
        strange = [ast.unparse(base) for base in node.bases if ast.unparse(base).split(".")[-1] not in plain]
        if strange or node.keywords:
            raise SystemExit(
                f"{path}:{node.lineno}: class {node.name}({', '.join(strange)}) cannot be compiled: its options would "
                "be lost; put it into a module that is not in [tool.hatch.build.hooks.custom] of pyproject.toml"
            )


def compile_into(folder: Path, root: Path, modules: list[str], *, optimize: str = "3") -> list[Path]:
    """Compile `modules` of `root` into `folder`, with a manifest beside them; return what lies there.

    Raises:
        SystemExit: a module does not type-check, cannot be compiled, or there is no compiler; the reason is printed.
    """
    refuse(root, modules)
    with tempfile.TemporaryDirectory(prefix="tapewatch-compiled-") as scratch, contextlib.chdir(root):
        from mypyc.build import mypycify
        from setuptools import Distribution  # type: ignore[import-untyped]
        from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

        extensions = mypycify(
            [*_MYPY, f"--cache-dir={scratch}/cache", *modules],
            opt_level=optimize,
            debug_level="0",
            group_name=GROUP,
            target_dir=f"{scratch}/c",
        )
        command = build_ext(Distribution({"name": GROUP, "ext_modules": extensions}))
        made = Path(scratch) / "made"
        command.build_lib, command.build_temp = str(made), f"{scratch}/o"
        command.ensure_finalized()
        command.run()
        _write_manifest(made, root, modules)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_manifest(made: Path, root: Path, modules: list[str]) -> None:
    told = {
        "mypy": version("mypy"),
        "python": sys.implementation.cache_tag,
        "modules": [path.removesuffix(".py").replace("/", ".") for path in modules],
        "sources": {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in sources_of(root, modules)},
    }
    path = made / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")


class CompiledHook(BuildHookInterface[BuilderConfig]):
    """Puts the extensions into the wheel when the environment asks for it."""

    def dependencies(self) -> list[str]:
        """Return what must be fetched before the build."""
        return list(NEEDS) if self._wanted("standard") else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and say what goes in; an editable install stays pure, for its sources are edited."""
        if not self._wanted(version):
            return
        root = Path(self.root)
        folder = Path(self.directory) / "compiled"
        made = compile_into(folder, root, list(self.config["modules"]))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(folder)) for path in made})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take away what the wheel now holds."""
        if self._wanted(version):
            shutil.rmtree(Path(self.directory) / "compiled", ignore_errors=True)

    def _wanted(self, version: str) -> bool:
        asked = os.environ.get(WANTED, "") not in {"", "0"}
        return asked and self.target_name == "wheel" and version == "standard"


def main() -> None:
    """Compile into the folder that was named."""
    given = [word for word in sys.argv[1:] if word != "--quick"]
    root = Path(__file__).absolute().parents[1]
    folder = Path(given[0]).absolute() if given else root / "build" / "compiled"
    modules = modules_of(root)
    compile_into(folder, root, modules, optimize="0" if "--quick" in sys.argv else "3")
    print(f"compiled {', '.join(modules)} into {folder}; TAPEWATCH_COMPILED=1 runs it")


if __name__ == "__main__":
    main()
