"""What is kept over a restart: whole or not at all, and only for the list it belongs to."""

import pytest

from control.anomaly_state import Kept, Life, Page, Seat, decode, digest_of, encode, load_kept, peek, save_kept
from monitor.watched import Watched
from tests.control.anomaly_bed import DIGEST, LIST, T0

PAGE = Page(
    id="A-1", at=T0, series="latency", item="", service="gateway", channel="spike", value=None, low=1.0, high=2.0,
    sentence="so",
)  # fmt: skip
KEPT = Kept(
    at=T0, seats=[Seat(index=0, series="latency", item="gateway-1", service="gateway", seen_at=T0, page="A-1")],
    lives={"gateway-1": Life("gateway", "1", 2.5)}, pages=[PAGE], answered=7, fleet=b"\x00fleet\xff" * 40,
)  # fmt: skip


def test_what_is_kept_is_read_again(tmp_path):
    save_kept(tmp_path / "deep" / "state.bin", encode(KEPT, DIGEST))
    assert load_kept(tmp_path / "deep" / "state.bin", DIGEST) == KEPT
    assert load_kept(tmp_path / "none", DIGEST) is None


def test_a_state_that_is_cut_short_or_changed_anywhere_is_none():
    data = encode(KEPT, DIGEST)
    for cut in range(0, len(data), 7):
        with pytest.raises(ValueError, match=r"damaged|no state"):
            decode(data[:cut], DIGEST)
    for place in (0, 9, len(data) - 1):
        with pytest.raises(ValueError, match=r"damaged|no state"):
            decode(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :], DIGEST)


def test_a_state_of_another_list_or_pace_is_not_used_but_can_be_looked_into(tmp_path):
    other = digest_of(LIST, 1, 10)
    save_kept(tmp_path / "state.bin", encode(KEPT, other))
    with pytest.raises(ValueError, match="another list"):
        load_kept(tmp_path / "state.bin", DIGEST)
    assert peek(tmp_path / "state.bin") == KEPT


def test_reasons_may_change_and_questions_may_not():
    one = LIST[0]
    said = {**vars(one), "reason": "another"}
    asked = {**vars(one), "query": "another"}
    assert digest_of([Watched(**said)], 2, 10) == digest_of([one], 2, 10)
    assert digest_of([Watched(**asked)], 2, 10) != digest_of([one], 2, 10)
