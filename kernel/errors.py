"""Operating errors: who must act, and whether trying again helps.

Tree:
    TapewatchError
      TemporaryError     the same call may succeed later; says when
      PermanentError     trying again changes nothing
        InputError       what was given is wrong; says what, where and what would be right

Refusals by a rule are values, not exceptions; faults of the program are assertions.
"""

from __future__ import annotations

from kernel.time import Duration


class TapewatchError(Exception):
    """An operating error with a sentence fit for a person."""


class TemporaryError(TapewatchError):
    """The other side could not answer now; trying again after `retry_after` may help."""

    def __init__(self, message: str, *, retry_after: Duration | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(TapewatchError):
    """Trying again changes nothing; somebody has to change something first."""


class InputError(PermanentError):
    """A file, setting or argument is wrong.

    The message reads `where: what is wrong; what would be right`.
    """

    def __init__(self, where: str, problem: str, *, right: str | None = None) -> None:
        super().__init__(f"{where}: {problem}" + (f"; {right}" if right else ""))
        self.where = where
        self.problem = problem
        self.right = right
