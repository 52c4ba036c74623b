"""What one command caused and no record holds: said as an error of ours, by the log as by the writer."""

import pytest

from exchange import journal
from kernel.errors import PermanentError


def test_a_payload_that_no_record_holds_is_named(monkeypatch):
    monkeypatch.setattr(journal, "MAX_PAYLOAD_BYTES", 8)
    assert journal.frames(1, [b"12345678"])
    with pytest.raises(journal.RecordTooLargeError, match="record 2 holds 9 bytes; at most 8 are allowed"):
        journal.frames(1, [b"1", b"123456789"])
    assert issubclass(journal.RecordTooLargeError, PermanentError)
