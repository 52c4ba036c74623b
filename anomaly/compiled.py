"""How the maths of this room becomes machine code: one definition, the same for one series and for thousands.

`part` compiles a function that others here call; `entry` compiles one that Python calls, and keeps its machine code on
disk, so that a process which starts again compiles nothing. numba judges by an entry's own file whether kept code is
stale, not by the files of what it calls; so an entry carries the fingerprint of the whole room instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def _fingerprint() -> str:
    digest = hashlib.blake2b(numba.__version__.encode(), digest_size=16)
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


FINGERPRINT: Final = _fingerprint()
"""Names the sources of this room; kept machine code of other sources is not used."""


def part(function: Function) -> Function:
    """Compile a function for the others of this room; division by zero gives an infinity, as in numpy."""
    return cast(Function, numba.njit(error_model="numpy")(function))


def entry(function: Function) -> Function:
    """Compile a function for Python, and keep the machine code beside the sources or where NUMBA_CACHE_DIR says."""
    dispatcher = numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    kept = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if kept is None or not hasattr(kept, "_source_stamp"):  # another numba: better slow to start than stale
        return cast(Function, numba.njit(error_model="numpy", nogil=True)(function))
    kept._source_stamp = FINGERPRINT  # noqa: SLF001 - see above; numba has no public way to say it
    return cast(Function, dispatcher)
