"""Text columns that give back exactly what they were given, on databases that do not take every text.

PostgreSQL refuses the character NUL, and Oracle keeps an empty text as NULL. What an alert says must neither stop the
one who decides on it nor come back otherwise than it was sealed.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

_MARK: Final = "\ue000"
"""Of Unicode's private use: it begins what stands for something else."""
_ITSELF: Final = _MARK + "m"
_NUL: Final = _MARK + "0"
_EMPTY: Final = _MARK + "e"


class AnyText(sa.types.TypeDecorator[str]):
    """A text of any length and content."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Write what stands for the text."""
        if value is None or dialect.name == "sqlite":
            return value
        if not value:
            return _EMPTY if dialect.name == "oracle" else value
        if _MARK in value or "\0" in value:
            return value.replace(_MARK, _ITSELF).replace("\0", _NUL)
        return value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Read it back."""
        if value is None or dialect.name == "sqlite" or _MARK not in value:
            return None if value is None else str(value)
        if value == _EMPTY:
            return ""
        return str(value).replace(_NUL, "\0").replace(_ITSELF, _MARK)
