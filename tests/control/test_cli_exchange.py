"""The terminal on an exchange's files, its book, its load and its speed: no estate runs, save where one is stood in."""

# mypy: disable-error-code="arg-type"
# (plain numbers and texts stand for instants and ids)
from __future__ import annotations

import errno
import gc
import io
import json
import os
import shutil
import subprocess
import sys

import msgspec
import pytest
import typer
from rich.console import Console

import cli
from control import engine_bench, ladder, load_desk, verbs_exchange
from control.addresses import ReplicaAddress, load_addresses, save_addresses
from control.layout import Layout
from control.terminal import guarded
from exchange import snapshot
from exchange.adapters.file_log import list_segments
from exchange.adapters.recovery import recover, write_snapshot
from exchange.commands import CancelOrder, Sequenced
from exchange.events import Happened
from exchange.flow_csv import COLUMNS
from exchange.flow_kinds import FlowKind
from exchange.journal import encode_command, encode_events
from exchange.recording import RecordingLog
from exchange.types import Side
from kernel.errors import TemporaryError
from tests.control.desk_plant import desk_plant
from tests.control.test_cli import RUNNER, run, run_beside
from tests.exchange.plant import AAA, INSTRUMENTS, client_of, eventually, order, paths
from tests.exchange.plant import engine as exchange_engine
from tests.exchange.test_feed import feed
from tests.exchange.test_gateway import plant as exchange_plant

VERBS = ["verify", "replay", "compact", "book", "load", "bench"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A journal that `exchange load --offline` wrote, with the account it printed."""
    root = tmp_path_factory.mktemp("recorded")
    words = ("exchange", "load", "--offline", "--flow", "crash", "--seed", 3, "--commands", 600)
    code, out, _ = run(*words, "--journal", root / "a", "--out", root / "a.csv", "--json")
    assert code == 0
    return root, json.loads(out)


@pytest.fixture
def files(recorded, tmp_path):
    shutil.copytree(recorded[0] / "a", tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb):
    code, out, _ = run("exchange", verb, "--help")
    assert code == 0
    assert "Example: tapewatch exchange" in out


# --- verify, replay, compact ---------------------------------------------------------------------------------------


def test_what_was_recorded_is_sound_wherever_it_is_named(files):
    for directory in (files, files / "journal"):
        code, out, _ = run("exchange", "verify", directory)
        assert code == 0
        assert "records 1 to 600 in 1 segment, " in out
        assert out.endswith("every byte is as it was written\n")
    told = json.loads(run("exchange", "verify", files, "--json")[1])
    assert (told["sound"], told["logs"][0]["records"], told["logs"][0]["bad"]) == (True, 600, None)


def test_a_flipped_bit_is_told_with_file_and_byte_and_exit_code_1(files):
    (segment,) = list_segments(files / "journal")
    data = bytearray(segment.path.read_bytes())
    data[5_000] ^= 0x20
    segment.path.write_bytes(data)
    code, out, _ = run("exchange", "verify", files / "journal")
    assert code == 1
    assert f"{segment.path}: byte 5000: " in out
    assert "every byte is as" not in out
    code, out, _ = run("exchange", "verify", files, "--json")
    told = json.loads(out)
    assert (code, told["sound"], told["logs"][0]["bad"]["offset"]) == (1, False, 5_000)
    code, out, err = run("exchange", "replay", files)
    assert (code, out) == (1, "")
    assert "corrupt at byte" in err


def test_a_torn_tail_is_sound_and_told(files):
    (segment,) = list_segments(files / "journal")
    segment.path.write_bytes(segment.path.read_bytes()[:-3])
    code, out, _ = run("exchange", "verify", files)
    assert code == 0
    assert "records 1 to 599" in out
    assert "never acknowledged" in out
    assert "every byte up to there is as it was written" in out


@pytest.mark.parametrize("verb", ["verify", "replay", "compact"])
def test_a_directory_that_may_not_be_looked_into_is_one_sentence(files, verb, monkeypatch):
    """As root, who runs the tests, may look into all: the refusal is stood in for."""

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(type(files), "iterdir", refused)
    code, out, err = run("exchange", verb, files)
    assert (code, out, err) == (1, "", f"tapewatch: {files}: Permission denied\n")


def test_an_error_of_the_system_without_words_is_named(capsys):
    def late():
        raise TimeoutError

    with pytest.raises(typer.Exit) as ended:
        guarded(late)
    assert (ended.value.exit_code, capsys.readouterr().err) == (1, "tapewatch: TimeoutError\n")


def test_replay_prints_the_hash_of_every_place_the_same_in_another_process(recorded, files):
    account = recorded[1]
    assert run("exchange", "replay", files, "--print-hash")[:2] == (0, account["state_hash"] + "\n")
    code, out, _ = run("exchange", "replay", files, "--until", 300, "--print-hash")
    assert code == 0
    assert out.strip() != account["state_hash"]
    words = ["exchange", "replay", str(files), "--until", "300", "--print-hash"]
    done = subprocess.run(
        [sys.executable, "cli.py", *words], env={**os.environ, "PYTHONHASHSEED": "77"}, capture_output=True, check=True
    )
    assert done.stdout.decode() == out
    told = json.loads(run("exchange", "replay", files, "--json")[1])
    assert (told["records"], told["last_seq"], told["state_hash"]) == (600, 600, account["state_hash"])
    assert "600 records to 600" in run("exchange", "replay", files)[1]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("replay {a} --until 601", 1, "the journal ends at record 600, before 601"),
        ("replay {a} --until=-1", 2, "until: is -1"),
        ("replay {a}/nothing", 2, "there is no journal here"),
        ("verify {a}/nothing", 2, "there is no journal here"),
        ("verify {a}/instruments.json", 2, "there is no journal here"),
        ("compact {a}/nothing", 2, "there is no journal here"),
        ("replay {a} --instruments {a}/none.json", 2, "none.json: cannot be read"),
        ("load --offline --flow panic", 2, "'panic' is no kind of flow; one of calm, open-rush, crash, news"),
        ("load --offline --flow {a}/none.csv", 2, "none.csv: cannot be read: No such file"),
        ("load --offline --commands 0", 2, "--commands: is 0"),
        ("load --offline --rate 0", 2, "--rate: is 0"),
        ("load --offline --rate nan", 2, "--rate: is nan"),
        ("load --offline --rate inf", 2, "--rate: is inf"),
        ("load --offline --rate 1e-300", 2, "--rate: is 1e-300"),
        ("load --offline --journal {a}", 2, "is there already"),
        ("load --offline --out {a}/no/x.csv", 1, "cannot be written: No such file"),
        ("load --offline --instruments {a}/none.json", 2, "none.json: cannot be read"),
        ("load --out x.csv --state {a}", 2, "--out: is for --offline"),
        ("load --commands 5 --state {a}", 2, "--commands: is for --offline"),
        ("load --offline --for 3s", 2, "--for: is for a running estate"),
        ("bench --flow {a}.csv", 2, "is no kind"),
        ("bench --commands 1", 2, "between 1,000 and"),
        ("bench --commands 1000 --directory {a}/nothing", 1, "cannot be written"),
    ],
)
def test_bad_wishes_get_one_sentence_and_their_exit_code(files, words, code, told):
    found, out, err = run("exchange", *(word.format(a=files) for word in words.split()))
    assert (found, out) == (code, "")
    assert told in err
    last = err.splitlines()[-1]
    assert last.startswith("tapewatch: ")


def test_without_instruments_replay_says_what_to_give(files, tmp_path):
    (files / "instruments.json").rename(tmp_path / "kept.json")
    code, _, err = run("exchange", "replay", files)
    assert code == 2
    assert "--instruments" in err
    assert run("exchange", "replay", files, "--instruments", tmp_path / "kept.json")[0] == 0


def test_compact_tells_what_went_and_replay_goes_on_from_the_snapshot(tmp_path):
    where = paths(tmp_path)
    (tmp_path / "instruments.json").write_bytes(msgspec.json.encode(INSTRUMENTS))
    back = recover(where, INSTRUMENTS, RecordingLog())
    back.journal._segment_bytes = 100
    for seq in range(1, 9):
        _cancel(back, seq)
        if seq == 6:
            write_snapshot(where.snapshots, seq, snapshot.dump(back.engine))
    back.journal.close()
    back.events.close()
    before = run("exchange", "replay", tmp_path, "--print-hash")[1]
    code, out, _ = run("exchange", "compact", tmp_path)
    assert code == 0
    assert "records removed; the journal begins with" in out
    assert json.loads(run("exchange", "compact", tmp_path, "--json")[1])["removed"] == 0
    assert "nothing removed" in run("exchange", "compact", tmp_path)[1]
    assert run("exchange", "replay", tmp_path, "--print-hash")[1] == before
    assert "from the snapshot at record 6" in run("exchange", "replay", tmp_path)[1]
    assert "stands at record 6" in run("exchange", "verify", tmp_path)[1]
    (kept,) = where.snapshots.glob("*.snapshot")
    kept.write_bytes(kept.read_bytes()[:-1])
    code, out, _ = run("exchange", "verify", tmp_path)
    assert code == 1
    assert "its checksum does not fit" in out


def _cancel(back, seq):
    item = Sequenced(seq, seq, CancelOrder("ann", f"c{seq}", 1))
    back.journal.append([encode_command(item)])
    back.events.append([encode_events(Happened(seq, seq, back.engine.apply(item)))])


# --- the book --------------------------------------------------------------------------------------------------------


def book(seq, bid_lots=5, *, halted=False):
    return {"symbol": "AAA", "seq": seq, "bids": [[99, bid_lots], [98, 1]], "asks": [[102, 7], [104, 2]],
            "halted": halted}  # fmt: skip


def drawn(*, terminal):
    text = io.StringIO()
    return text, Console(file=text, force_terminal=terminal, width=100, color_system=None)


def test_a_pipe_gets_one_frame_from_the_highest_price_to_the_lowest():
    text, console = drawn(terminal=False)
    assert ladder.watch(lambda: book(1), console, 10, 1.0, pause=lambda _: pytest.fail("a pipe waits for nothing")) == 1
    lines = text.getvalue()
    assert "\x1b" not in lines
    places = [lines.index(word) for word in ("104", "102", "3 wide", " 99 ", " 98 ")]
    assert places == sorted(places)


def test_a_terminal_is_redrawn_until_interrupted_and_an_error_is_shown_below_the_last_book():
    books = iter([book(1), book(2, 6), TemporaryError("nobody answers"), book(3, halted=True)])

    def fetch():
        found = next(books)
        if isinstance(found, Exception):
            raise found
        return found

    pauses = iter(range(3))

    def pause(seconds):
        assert seconds == 0.2
        if next(pauses, None) is None:
            raise KeyboardInterrupt

    text, console = drawn(terminal=True)
    assert ladder.watch(fetch, console, 10, 0.2, pause=pause) == 4
    shown = text.getvalue()
    assert shown.count("nobody answers") == 1
    assert all(f"after event {seq}" in shown for seq in (1, 2, 3))
    assert "halted" in shown
    assert "\x1b[" in shown


def test_an_empty_book_is_a_frame_too_and_bars_are_in_proportion():
    text, console = drawn(terminal=False)
    console.print(ladder.ladder({"symbol": "A[b]", "seq": 0, "bids": [], "asks": []}, 5))
    assert "nobody wants anything" in text.getvalue()
    assert "A[b]" in text.getvalue()
    assert [len(ladder._bar(lots, 100)) for lots in (1, 50, 100)] == [1, 6, 12]


async def test_watch_without_a_symbol_lists_them_and_an_unknown_one_is_refused(tmp_path):
    async with desk_plant(tmp_path):
        code, _, err = await run_beside("exchange", "book", "--watch", "--state", tmp_path)
        assert code == 2
        assert "--watch needs one" in err
        code, _, err = await run_beside("exchange", "book", "NOPE", "--watch", "--state", tmp_path)
        assert code == 2
        assert "'NOPE' is not traded" in err


async def test_the_ladder_is_that_of_a_running_market_data_process(tmp_path):
    root = tmp_path / "estate"
    async with (
        desk_plant(root) as desk,
        exchange_engine(root / "exchange") as running,
        client_of(running.port) as client,
        feed(running.port) as market,
    ):
        (root / "instruments.json").write_bytes(msgspec.json.encode(INSTRUMENTS))
        addresses = msgspec.structs.replace(
            load_addresses(desk.layout.addresses), market_data=f"http://127.0.0.1:{market.port}"
        )
        save_addresses(addresses, desk.layout.addresses)
        await client.submit(order("b", quantity=7), 60)
        await client.submit(order("s", Side.SELL, 1003, 4), 60)
        await eventually(lambda: market.server.snapshot(AAA).asks)
        words = ("exchange", "book", "AAA", "--watch", "--state", root)
        code, out, _ = await run_beside(*words)
        assert code == 0
        assert out.index("1003") < out.index("3 wide") < out.index("1000")
        told = json.loads((await run_beside(*words, "--json"))[1])
        assert (told["bids"], told["asks"]) == ([[1000, 7]], [[1003, 4]])


# --- load and bench ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_byte_equal_files_and_accounts(recorded, tmp_path):
    root, account = recorded
    words = ("exchange", "load", "--offline", "--flow", "crash", "--seed", 3, "--commands", 600, "--json")
    code, out, _ = run(*words, "--out", tmp_path / "b.csv", "--journal", tmp_path / "b")
    assert (code, json.loads(out)) == (0, account)
    assert (tmp_path / "b.csv").read_bytes() == (root / "a.csv").read_bytes()
    (mine,), (other,) = list_segments(tmp_path / "b" / "journal"), list_segments(root / "a" / "journal")
    assert mine.path.read_bytes() == other.path.read_bytes()
    code, out, _ = run("exchange", "load", "--offline", "--flow", tmp_path / "b.csv", "--json")
    assert (code, json.loads(out)) == (0, account)


def test_a_file_is_sent_whole_unless_a_number_is_given(recorded, monkeypatch):
    monkeypatch.setattr(load_desk, "COMMANDS", 100)
    sent = ("exchange", "load", "--offline", "--flow", recorded[0] / "a.csv", "--json")
    assert json.loads(run(*sent)[1])["sent"] == 600
    assert json.loads(run(*sent, "--commands", 20)[1])["sent"] == 20


def test_a_refused_journal_leaves_the_file_as_it_was(files, tmp_path):
    kept = tmp_path / "kept.csv"
    kept.write_text("mine")
    code, _, err = run("exchange", "load", "--offline", "--journal", files, "--out", kept)
    assert code == 2
    assert "is there already" in err
    assert kept.read_text() == "mine"


@pytest.mark.parametrize("option", ["--out", "--told"])
def test_a_refused_file_leaves_no_journal_that_the_next_try_would_meet(tmp_path, option):
    words = ("exchange", "load", "--offline", "--commands", 5, "--journal", tmp_path / "j", option)
    assert run(*words, tmp_path / "no" / "x")[0] == 1
    assert run(*words, tmp_path / "x")[0] == 0


def test_an_account_is_told_in_words(recorded):
    code, out, _ = run("exchange", "load", "--offline", "--flow", "news", "--commands", 300)
    assert code == 0
    assert out.startswith("sent      300 requests over ")
    assert "trades of" in out


def test_a_file_that_trades_what_is_not_there_is_told_before_anything_is_sent(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"{','.join(COLUMNS[:10])}\n0,p,a,place,XYZ,buy,1,1,,\n")
    code, out, err = run("exchange", "load", "--offline", "--flow", path)
    assert (code, out) == (2, "")
    assert "trades XYZ; there are " in err
    path.write_text(path.read_text(), encoding="utf-8-sig")  # with a mark of its encoding, as a spreadsheet writes it
    assert run("exchange", "load", "--offline", "--flow", path) == (code, out, err)
    path.write_bytes(b"\xff\xfe")
    code, _, err = run("exchange", "load", "--offline", "--flow", path)
    assert code == 2
    assert "is not UTF-8 at byte 0" in err


@pytest.mark.parametrize("flow", ["crash", "file"])
async def test_a_flow_goes_to_a_running_gateway_and_every_order_is_accounted_for(tmp_path, flow):
    """A real engine and gateway; the estate around them is only its files."""
    root = tmp_path / "estate"
    async with desk_plant(root) as desk, exchange_plant(root / "exchange") as (_, front):
        layout = Layout(root)
        (root / "instruments.json").write_bytes(msgspec.json.encode(INSTRUMENTS))
        layout.secret("trade").write_text("trade-secret")
        if flow == "file":
            flow = str(tmp_path / "f.csv")
            words = ("exchange", "load", "--offline", "--commands", 40, "--out", flow)
            assert (await run_beside(*words, "--instruments", root / "instruments.json"))[0] == 0
        addresses = load_addresses(desk.layout.addresses)
        gateways = {"gateway": (ReplicaAddress("gateway-1", front.url),)}
        save_addresses(msgspec.structs.replace(addresses, workloads=gateways), desk.layout.addresses)
        sending = verbs_exchange.Sending(rate=80, for_s=1.0, seed=4, flow=flow)
        account = await verbs_exchange._load_from_here(layout, sending, load_desk.rows_of(flow))
    assert account.clean
    assert account.acknowledged > 20
    assert account.refused == account.unknown == 0
    if flow.endswith(".csv"):
        assert account.sent == 40


def test_the_bench_measures_and_compares(tmp_path):
    code, out, err = run("exchange", "bench", "--commands", 1000, "--rounds", 1, "--directory", tmp_path, "--json")
    assert code == 0
    told = json.loads(out)
    assert "recording 1,000 commands" in err
    assert [one["size"] for one in told["journal"]] == [1, 16, 64, 256]
    for speed in (told["engine"], told["replay"], told["recovery"], *(one["speed"] for one in told["journal"])):
        assert speed["ratio"] == pytest.approx(speed["per_s"] / told["reference_steps_per_s"])
    for spread in (told["command"], *(one["commit"] for one in told["journal"])):
        assert 0 < spread["p50_us"] <= spread["p99_us"] <= spread["p999_us"] <= spread["worst_us"]
    assert list(tmp_path.iterdir()) == []


def test_a_spread_takes_the_ranks_it_names():
    found = engine_bench.spread([number / 1e6 for number in range(1000, 0, -1)])
    assert (round(found.p50_us), round(found.p99_us), round(found.p999_us), round(found.worst_us)) == (
        500,
        990,
        999,
        1000,
    )


def test_the_collectors_pauses_are_seen():
    with engine_bench._collector() as pauses:
        gc.collect()
    assert len(pauses) == 1
    before = len(pauses)
    gc.collect()
    assert len(pauses) == before


def test_completion_offers_flows_and_symbols(tmp_path):
    assert load_desk.complete_flow("c") == ["calm", "crash"]
    assert load_desk.complete_flow("") == sorted(kind.value for kind in FlowKind)
    environment = {"_TAPEWATCH_COMPLETE": "complete_bash", "COMP_WORDS": "tapewatch exchange re", "COMP_CWORD": "2"}
    done = RUNNER.invoke(cli.app, [], env=environment, prog_name="tapewatch")
    assert {"replay", "resume"} <= set(done.stdout.split())
