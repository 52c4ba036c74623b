"""Every kind of tampering with a sealed timeline is found, and the first bad entry is named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from incidents.timeline import Draft, Entry, EntryKind, Head, TamperKind, empty_head, seal, seal_all, seal_head, verify
from kernel.time import Instant

KEY = b"0123456789abcdef"

drafts = st.builds(
    Draft,
    at=st.integers(0, 2**62).map(Instant),
    kind=st.sampled_from(EntryKind),
    source=st.sampled_from(["control", "person:ada"]),
    text=st.text(st.characters(codec="utf-8"), max_size=20),
    data=st.dictionaries(st.text("abc", max_size=3), st.integers(-9, 9) | st.floats(allow_nan=False) | st.text("xyz")),
)
chains = st.lists(drafts, min_size=2, max_size=8).map(lambda some: seal_all(some, empty_head("I-1", KEY), KEY))


@given(chains)
def test_an_untouched_chain_is_whole(chain: tuple[list[Entry], Head]) -> None:
    assert verify(*chain[:1], KEY, chain[1]) is None


@given(chains, st.data())
def test_a_changed_field_is_named(chain: tuple[list[Entry], Head], data: st.DataObject) -> None:
    entries, head = chain
    n = data.draw(st.integers(0, len(entries) - 1))
    change = data.draw(st.sampled_from(["at", "source", "text", "data", "kind"]))
    old = entries[n]
    new = {
        "at": Instant(old.at + 1),
        "source": old.source + "x",
        "text": old.text + "x",
        "data": {**old.data, "more": 1},
        "kind": EntryKind.NOTE if old.kind is not EntryKind.NOTE else EntryKind.IMPACT,
    }[change]
    tamper = verify([*entries[:n], replace(old, **{change: new}), *entries[n + 1 :]], KEY, head)
    assert tamper is not None
    assert (tamper.n, tamper.kind) == (n + 1, TamperKind.CHANGED)


@given(chains, st.data())
def test_a_dropped_or_swapped_entry_is_named(chain: tuple[list[Entry], Head], data: st.DataObject) -> None:
    entries, head = chain
    n = data.draw(st.integers(0, len(entries) - 2))
    for broken in ([*entries[:n], *entries[n + 1 :]], [*entries[:n], entries[n + 1], entries[n], *entries[n + 2 :]]):
        tamper = verify(broken, KEY, head)
        assert tamper is not None
        assert (tamper.n, tamper.kind) == (n + 1, TamperKind.OUT_OF_PLACE)


@given(chains, st.data())
def test_a_cut_tail_and_an_appended_entry_are_named(chain: tuple[list[Entry], Head], data: st.DataObject) -> None:
    entries, head = chain
    kept = data.draw(st.integers(0, len(entries) - 1))
    tamper = verify(entries[:kept], KEY, head)
    assert tamper is not None
    assert (tamper.n, tamper.kind) == (kept + 1, TamperKind.CUT)
    more = seal(Draft(Instant(1), EntryKind.NOTE, "x", "x", {}), len(entries) + 1, entries[-1].digest, KEY)
    tamper = verify([*entries, more], KEY, head)
    assert tamper is not None
    assert (tamper.n, tamper.kind) == (len(entries) + 1, TamperKind.APPENDED)


@given(chains)
def test_a_head_made_without_the_key_is_found(chain: tuple[list[Entry], Head]) -> None:
    entries, _ = chain
    forged = seal_head("I-1", len(entries) - 1, entries[-2].digest, b"another key, as long")
    tamper = verify(entries[:-1], KEY, forged)
    assert tamper is not None
    assert tamper.kind is TamperKind.HEAD
