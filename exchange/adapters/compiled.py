"""Which build of the matching runs: the sources, or what mypyc made of them.

In a checkout the extensions lie in a folder of their own (`make compiled`) and `TAPEWATCH_COMPILED=1` puts it before
the sources; another value names another folder. In a wheel built with `TAPEWATCH_COMPILE=1` they lie beside the
sources. Extensions of other sources than those that lie there are left aside with a warning: the sources run then.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Final

import msgspec

CHOICE: Final = "TAPEWATCH_COMPILED"
MANIFEST: Final = "compiled.json"
ROOT: Final = Path(__file__).parents[2]
USUAL: Final = ROOT / "build" / "compiled"
HASH_DIGITS: Final = 12


class Manifest(msgspec.Struct, frozen=True):
    """What extensions were made of."""

    mypy: str
    python: str
    modules: tuple[str, ...]
    sources: dict[str, str]
    """SHA-256 of each source by its path from the root, of all that is compiled and what it imports."""

    @property
    def source_hash(self) -> str:
        """Twelve digits that stand for all sources."""
        told = "".join(f"{path} {digest}\n" for path, digest in sorted(self.sources.items()))
        return hashlib.sha256(told.encode()).hexdigest()[:HASH_DIGITS]


class Build(msgspec.Struct, frozen=True):
    """What runs."""

    compiled: bool
    ok: bool
    """False when something else was asked for, or extensions do not belong to the sources."""
    found: str
    """A sentence for people."""


def overlay(package: list[str]) -> None:
    """Put the folder that the environment names before the sources of the package `exchange` (its `__path__`).

    Warns, and lets the sources run, when nothing was compiled or it was compiled from other sources.
    """
    folder = _chosen()
    if folder is None:
        return
    wrong = fault(folder / "exchange")
    if wrong:
        warnings.warn(f"{CHOICE} is set, but {wrong}; the sources run. `make compiled` compiles them.",
                      RuntimeWarning, stacklevel=2)  # fmt: skip
        return
    package.insert(0, str(folder / "exchange"))
    sys.path.append(str(folder))  # where the extensions look for the library they share


def running(package: list[str]) -> Build:
    """Tell which build the package `exchange` with this `__path__` runs."""
    folder = _chosen()
    for place in package:
        path = Path(place)
        if not (path / MANIFEST).is_file():
            continue
        manifest = _read(path / MANIFEST)
        wrong = fault(path) or _unused(manifest, package)
        told = f"compiled by mypyc {manifest.mypy} from sources {manifest.source_hash}, in {path}"
        return Build(compiled=True, ok=not wrong, found=f"{told}{wrong and f': {wrong}'}")
    if folder is not None:
        return Build(compiled=False, ok=False, found=f"pure Python: {fault(folder / 'exchange') or 'not taken'}")
    return Build(compiled=False, ok=True, found="pure Python")


def _chosen() -> Path | None:
    choice = os.environ.get(CHOICE, "")
    if choice in {"", "0"}:
        return None
    return USUAL if choice == "1" else Path(choice).absolute()


def _read(path: Path) -> Manifest:
    return msgspec.json.decode(path.read_bytes(), type=Manifest)


def fault(place: Path) -> str:
    """Return what is wrong with the extensions in `place`; nothing when they belong to the sources."""
    try:
        manifest = _read(place / MANIFEST)
    except FileNotFoundError:
        return f"nothing was compiled into {place.parent}"
    except msgspec.MsgspecError as error:
        return f"{place / MANIFEST} is no manifest: {error}"
    if manifest.python != sys.implementation.cache_tag:
        return f"{place.parent} was compiled for {manifest.python}, this is {sys.implementation.cache_tag}"
    other = [path for path, digest in manifest.sources.items() if _digest(ROOT / path) != digest]
    return f"{', '.join(other)} changed since it was compiled into {place.parent}" if other else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _unused(manifest: Manifest, package: list[str]) -> str:
    """Return which modules would not come from an extension after all."""
    suffixes = tuple(EXTENSION_SUFFIXES)
    left = []
    for module in manifest.modules:
        spec = PathFinder.find_spec(module, package)
        if spec is None or not (spec.origin or "").endswith(suffixes):
            left.append(module)
    return f"{', '.join(left)} runs from source" if left else ""
