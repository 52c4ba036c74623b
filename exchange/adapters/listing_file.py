"""The file of what is traded: a JSON list of instruments, or an object with `instruments` and `venue`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from exchange.listing import Listing, refuse_contradictions
from exchange.types import Instrument, Venue
from kernel.errors import InputError


def read_listing(path: Path) -> Listing:
    """Read what is traded. An object may hold more beside `instruments` and `venue`, such as a role's configuration.

    Raises:
        InputError: the file cannot be read, holds no listing, or one that contradicts itself; tells file, place and
            what would be right.
    """
    try:
        return listing_of(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from error


def listing_of(data: bytes, where: str) -> Listing:
    """Read what is traded from the bytes of a file; `where` is its name.

    Raises:
        InputError: as `read_listing`.
    """
    try:
        found: Any = msgspec.json.decode(data)
        held = found if isinstance(found, dict) else {"instruments": found}
        _refuse_unknown(held, where)
        listing = msgspec.convert(held, Listing)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            where,
            f"is no list of instruments ({error})",
            right="write a list of instruments with symbol, reference and band; a journal needs those it was made with",
        ) from error
    refuse_contradictions(listing.instruments, listing.venue, where)
    return listing


def write_listing(listing: Listing) -> bytes:
    """Return the file of a listing: a plain list of instruments while the venue keeps every default."""
    return msgspec.json.encode(listing.instruments if listing.venue == Venue() else listing)


def _refuse_unknown(held: dict[str, Any], where: str) -> None:
    """Refuse members that nothing would look at: a limit that was misspelled is no limit."""
    instruments = held.get("instruments")
    listed = instruments if isinstance(instruments, list) else ()
    places = [(f"instruments[{number}]", one) for number, one in enumerate(listed)]
    for place, one in (*places, ("venue", held.get("venue"))):
        known = (Venue if place == "venue" else Instrument).__struct_fields__
        for name in one if isinstance(one, dict) else ():
            if name not in known:
                raise InputError(
                    f"{where}: {place}", f"there is no {str(name)[:40]!r}", right=f"there are {', '.join(known)}"
                )
