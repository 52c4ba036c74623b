import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.masking import LINE_MAX, mask, said, text_of
from anomaly.templates import Limits, Templates
from kernel.errors import PermanentError
from kernel.time import SECOND, Instant

KINDS = (
    "gateway-{} order ord-{} of client C{} accepted in {} ms",
    'engine order {} rejected: price {} outside "99.0 to {}"',
    "2026-03-02T09:30:00.125Z INFO settlement batch {} committed with {} trades",
    'feed sequence {} published to {} readers by "node {}"',
    "10.0.0.{} closed the connection after {} bytes",
)


def lines(seed, n, kinds=KINDS):
    chance = random.Random(seed)
    return [chance.choice(kinds).format(*(chance.randrange(1, 250) for _ in range(4))) for _ in range(n)]


def fed(log, given_lines, start=0):
    return [log.add(line, Instant((start + i) * SECOND)) for i, line in enumerate(given_lines)]


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("took 12 ms", "took <n> ms"),
        ("took 12ms, 3.5% of 1,024", "took <n>ms, <n>% of <n>"),
        ("gateway-1 lost ord-00017 of C9", "gateway-<n> lost ord-<n> of C<n>"),
        ("from 10.1.2.3:8080 to 192.168.0.1", "from <ip> to <ip>"),
        ("at fe80:0:0:1:2:3:4:5 now", "at <ip> now"),
        ("2026-03-02T09:30:00Z up", "<time> up"),
        ("2026-03-02 09:30:00.125 up", "<time> <time> up"),
        ("Mar  2 09:30:00 host sshd[17]: up", "<time> host sshd[<n>]: up"),
        ("run 6f1c2a9e-0b1d-4c3f-9a77-1234567890ab ends", "run <uuid> ends"),
        ("at 0x7ffe12ab and deadbeefcafe0042", "at <hex> and <hex>"),
        ("mail to anna@example.org", "mail to <mail>"),
        ("get https://example.org/a?b=1 now", "get <url> now"),
        ("open /var/log/syslog.1 failed", "open <path> failed"),
        ("user 'anna b' said \"hi 5\"", "user <str> said <str>"),
        ("it's the client's fault", "it's the client's fault"),
        ('"GET /x/1 HTTP/1.1" 200 5', "GET:200 <str> <n>"),
        ('"GET /x/1 HTTP/1.1" 503 5', "GET:503 <str> <n>"),
        ("token a1B2c3D4e5F6g7H8i9", "token <id>"),
        ("", ""),
    ],
)
def test_what_changes_is_masked_and_what_was_written_stays(line, masked):
    assert mask(line) == masked


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_masked_to_a_bounded_text_without_digits_in_words_of_their_own(text):
    masked = mask(text)
    assert len(masked) <= 8 * LINE_MAX
    assert not any(word.isdecimal() and word.isascii() for word in masked.split())


@pytest.mark.parametrize("part", ['"', "a.", "/a", "1.", "'a ", '"GET ', "ff:", "a@", "Aa1", "::", "0x"])
def test_no_line_is_dear_to_mask(part):
    line = part * LINE_MAX
    began = time.process_time()
    for _ in range(5):
        mask(line)
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("plain", "plain"),
        ('{"level":"error","message":"x failed","n":3}', "error x failed"),
        ('{"a":"b","n":3}', "a=b n=3"),
        ("{broken", "{broken"),
        ("{" * 20_000, "{" * 20_000),
    ],
)
def test_a_line_of_json_says_what_its_event_says(line, text):
    assert text_of(line) == text


def test_a_record_without_words_is_told_by_its_pairs():
    assert said({"b": 1.5, "a": "x", "c": None}) == "a=x b=1.5"


def test_lines_of_one_kind_are_one_template_and_ids_hold_whatever_order_they_come_in():
    first, second = Templates(), Templates()
    fed(first, lines(1, 2_000))
    fed(second, lines(2, 2_000))
    assert len(first) == len(second) == len(KINDS)
    assert {one.id for one in first.all()} == {one.id for one in second.all()}
    assert sum(one.count for one in first.all()) == 2_000


def test_an_id_stays_when_its_template_grows_more_general():
    log = Templates()
    (seen,) = fed(log, ["the disk sda of node alpha is full"])
    name = seen.template.id
    seen = fed(log, ["the disk sdb of node beta is full"])[0]
    assert seen.template.id == name
    assert seen.template.text == "the disk <*> of node <*> is full"
    assert fed(log, ["the disk sdc of node gamma is full"])[0].template.id == name


def test_another_level_or_another_status_is_another_kind():
    log = Templates()
    fed(log, [f'10.0.0.1 - - [02/Mar/2026:09:30:0{i} +0000] "GET /{i} HTTP/1.1" 200 {i}' for i in range(5)])
    fed(log, ['10.0.0.1 - - [02/Mar/2026:09:30:09 +0000] "GET /9 HTTP/1.1" 503 9'])
    fed(log, [f"2026-03-02T09:30:00Z {level} the batch {level} took {3} ms" for level in ("INFO", "ERROR")])
    assert len(log) == 4


def test_a_kind_never_seen_is_told_once_and_only_after_the_warm_up():
    log = Templates(Limits(warm_lines=500))
    assert not any(seen.new for seen in fed(log, lines(3, 600)))
    told = fed(log, ["panic: the journal is torn at offset 17", "panic: the journal is torn at offset 99"], 600)
    assert [seen.new for seen in told] == [True, False]
    assert told[0].template.example == "panic: the journal is torn at offset 17"
    assert log.fresh == 1


def test_nothing_is_new_before_the_time_of_the_warm_up_is_over():
    log = Templates(Limits(warm_lines=10, warm_for_ns=3_600 * SECOND))
    fed(log, lines(4, 400))
    assert not fed(log, ["something else happened"], 400)[0].new
    fed(log, lines(4, 400), 500)
    assert fed(log, ["now it is time for news"], 4_000)[0].new


def test_a_log_that_brings_new_kinds_all_the_time_tells_none_of_them():
    chance = random.Random(5)
    words = ["".join(chance.choices("abcdefgh", k=6)) for _ in range(3_000)]
    log = Templates(Limits(warm_lines=200))
    told = fed(log, [" ".join(chance.choices(words, k=7)) for _ in range(2_000)])
    assert sum(seen.new for seen in told) == 0
    assert not log.settled


def test_a_flood_of_kinds_is_bounded_and_leaves_those_that_are_used():
    log = Templates(Limits(templates=50, known=100))
    fed(log, lines(6, 1_000))
    kept = {one.id for one in log.all()}
    chance = random.Random(7)
    flood = [" ".join("".join(chance.choices("abcdefgh", k=6)) for _ in range(6)) for _ in range(2_000)]
    fed(log, flood, 1_000)
    assert len(log) <= 50
    assert log.evicted >= 1_900
    assert kept <= {one.id for one in log.all()}
    assert len(log.save()) < 200_000


def test_a_kind_that_was_let_go_of_is_not_new_again():
    log = Templates(Limits(templates=5, warm_lines=0))
    fed(log, ["the first kind of all"])
    chance = random.Random(8)
    fed(log, [" ".join("".join(chance.choices("abcdefgh", k=6)) for _ in range(5)) for _ in range(30)], 1)
    assert "the first kind of all" not in {one.text for one in log.all()}
    log._novelty = 0.0
    assert not fed(log, ["the first kind of all"], 40)[0].new


def test_a_restored_log_goes_on_bit_for_bit():
    log = Templates(Limits(templates=40, warm_lines=100))
    chance = random.Random(9)
    flood = [" ".join("".join(chance.choices("abcd", k=3)) for _ in range(5)) for _ in range(300)]
    fed(log, lines(10, 300) + flood)
    other = Templates.restore(log.save())
    assert other.save() == log.save()
    rest = lines(11, 300) + flood[::-1] + ["something wholly new came along"]
    assert [(seen.template.id, seen.new) for seen in fed(log, rest, 600)] == [
        (seen.template.id, seen.new) for seen in fed(other, rest, 600)
    ]
    assert other.save() == log.save()


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"version":2}',
        b'{"version":1}',
        b'{"py/object":"os.system"}',
        b"\xff",
        b"[" * 9_999,
    ],
)
def test_a_state_that_is_none_is_refused_in_a_sentence(state):
    with pytest.raises(PermanentError, match="templates: the state"):
        Templates.restore(state)
