from __future__ import annotations

import json
import unicodedata
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.paging.answers import HttpAnswer, retry_after_s
from incidents.paging.page import SHOWN_MAX, Event, page_of
from incidents.paging.text import ELLIPSIS, clean, clusters, cut, mrkdwn, safe_url, same, utf8_bytes, xml
from incidents.signals import VALUE_BYTES_MAX
from kernel.errors import InputError
from kernel.time import SECOND, Instant
from tests.contract.bridge_plant import alert, webhook

LETTERS = st.sampled_from(
    ["a", "ß", "é", "e\u0301", "\U0001f469", "\u200d", "\U0001f680", "\U0001f44d", "\U0001f3fd", "\U0001f1e9",
     "\U0001f1ea", "\u0928\u093f", "\u1112\u1161\u11ab",
     "&", "<", ">", '"', "'", " ", "\n", "\u202e", "\x1b", "\ufe0f", "x"]
)  # fmt: skip
TEXTS = st.lists(LETTERS, max_size=60).map("".join) | st.text(max_size=60)
ESCAPES = st.sampled_from([same, xml, mrkdwn])
MEASURES = st.sampled_from([len, utf8_bytes])


def naive_cut(text, limit, escape, measure):
    """The longest run of whole letters that fits with the ellipsis, found by trying all of them."""
    if measure(escape(text)) <= limit:
        return escape(text)
    parts = list(clusters(text))
    fitting = [
        escape("".join(parts[:n])) + escape(ELLIPSIS)
        for n in range(len(parts) + 1)
        if measure(escape("".join(parts[:n])) + escape(ELLIPSIS)) <= limit
    ]
    return fitting[-1] if fitting else ""


@settings(max_examples=400)
@given(TEXTS, st.integers(0, 80), ESCAPES, MEASURES)
def test_a_cut_is_the_longest_that_fits(text, limit, escape, measure):
    text = text.encode(errors="ignore").decode()
    assert cut(text, limit, escape=escape, measure=measure) == naive_cut(text, limit, escape, measure)


@given(TEXTS)
def test_letters_put_together_are_the_text_and_none_begins_with_a_mark(text):
    parts = list(clusters(text))
    assert "".join(parts) == text
    for part in parts[1:]:
        assert not unicodedata.category(part[0]).startswith("M")
        assert part[0] != "\u200d"


@pytest.mark.parametrize(
    "whole",
    [
        "e\u0301",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\U0001f1e9\U0001f1ea",
        "\u1112\u1161\u11ab",
    ],
)
def test_what_a_person_sees_as_one_letter_is_never_cut(whole):
    assert list(clusters(f"a{whole}b")) == ["a", whole, "b"]
    assert cut(f"a{whole}b", 2) == f"a{ELLIPSIS}"
    assert cut(f"a{whole}bcd", len(whole) + 2) == f"a{whole}{ELLIPSIS}"


def test_two_flags_are_two_letters():
    assert list(clusters("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7")) == [
        "\U0001f1e9\U0001f1ea",
        "\U0001f1eb\U0001f1f7",
    ]


@given(TEXTS, st.integers(1, 60))
def test_an_escape_is_never_broken(text, limit):
    text = text.encode(errors="ignore").decode()
    spoken = ET.fromstring(f"<a>{cut(text, limit, escape=xml)}</a>").text or ""
    assert len(spoken) <= limit
    short = cut(text, limit, escape=mrkdwn)
    assert "<" not in short
    assert ">" not in short
    for piece in short.split("&")[1:]:
        assert piece.startswith(("amp;", "lt;", "gt;"))


@given(TEXTS)
def test_what_is_clean_holds_nothing_hidden_and_stays_clean(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    for letter in cleaned:
        assert letter == "\n" or unicodedata.category(letter) not in {"Cc", "Cs"}
        assert letter not in "\u202e\u2066\u200b"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://example.com/a?b=c", True), ("http://example.com", True), ("javascript:alert(1)", False),
        ("https://user:pass@example.com", False), ("https://exa mple.com", False), ("https://example.com/<b>", False),
        ("//example.com", False), ("https://" + "a" * 600, False), ("https://[", False), ("", False),
        ("https://ex\u0430mple.com", False),
    ],
)  # fmt: skip
def test_only_plain_addresses_become_links(text, kept):
    assert safe_url(text) == (text if kept else "")


def page(*alerts, **changes):
    return page_of(json.dumps(webhook(*alerts, **changes)).encode(), Instant(0))


def test_a_page_shows_the_worst_first_and_counts_the_rest():
    labels = alert()["labels"]
    alerts = [
        alert(labels=labels | {"alertname": f"A{n}", "level": "3", "severity": "info"}, fingerprint=f"{n:016x}")
        for n in range(30)
    ]
    made = page(*alerts, alert())
    assert made.shown[0].name == "GatewayDown"
    assert (made.level, made.count, made.firing, len(made.shown)) == (1, 31, 31, SHOWN_MAX)
    assert made.title.startswith("[L1] GatewayDown gateway: Gateway gateway-1 does not answer (+30 more)")
    assert made.lines[-1] == "and 11 more"


def test_a_page_resolves_when_nothing_fires():
    over = alert(status="resolved", endsAt="2026-03-02T09:40:00Z", fingerprint="1" * 16)
    assert page(alert(), over).event is Event.TRIGGER
    assert page(over).event is Event.RESOLVE
    assert page(over).key == page(alert()).key
    assert page(over).content != page(alert()).content


def test_a_long_description_is_cut_and_the_page_is_kept():
    made = page(alert(annotations={"summary": "s", "description": "ü" * VALUE_BYTES_MAX}))
    assert made.shown[0].description.endswith(ELLIPSIS)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"version":"4"}', b'"' * 1000, b"\xff", b"[" * 100_000])
def test_what_is_no_webhook_is_refused(body):
    with pytest.raises(InputError):
        page_of(body, Instant(0))


@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, b"", 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, b"", 0.0),
        ({"x-ratelimit-period-in-sec": "30"}, b"", 30.0),
        ({}, b'{"retry_after": 0.5}', 0.5),
        ({}, b'{"parameters": {"retry_after": 3}}', 3.0),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "nan"}, b"", None),
        ({"retry-after": "-5"}, b"", 0.0),
        ({"retry-after": "1e300"}, b"", 86_400.0),
        ({}, b'{"retry_after": true}', None),
        ({}, b"[1]", None),
        ({}, b"", None),
    ],
)
def test_a_named_wait_is_read_wherever_it_stands(headers, body, wait_s):
    assert retry_after_s(HttpAnswer(429, headers, body), Instant(100 * SECOND)) == wait_s
