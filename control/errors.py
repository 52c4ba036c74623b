"""Errors that the control plane's API and terminal tell apart by their exit code or status."""

from __future__ import annotations

from kernel.errors import PermanentError


class NotFoundError(PermanentError):
    """What was asked for is not there."""


class RefusedByRailError(PermanentError):
    """A guard or a rule said no; nothing was touched."""


class BadRequestError(PermanentError):
    """The other side says that the request makes no sense; its sentence says what would."""
