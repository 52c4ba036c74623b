from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import time
from importlib import metadata

import aiohttp
import pytest
from typer.testing import CliRunner

import cli
from control import terminal, verbs_exchange
from control.child import now
from control.layout import Layout
from control.state_dir import StateDir
from exchange.adapters.settlement_store import SettlementStore
from exchange.adapters.verify import read_instruments
from kernel.errors import InputError, PermanentError, TemporaryError
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.control.desk_plant import DeskPlant, alert, desk_plant, notification

RUNNER = CliRunner()
EVERY_VERB = [
    "up", "down", "status", "doctor", "drill", "postmortem", "fault list", "fault inject", "fault clear",
    "kill-switch on", "kill-switch off", "kill-switch status", "incident list", "incident show", "incident ack",
    "incident note", "incident resolve", "runbook list", "runbook show", "runbook check", "runbook rehearse",
    "runbook run", "runbook asking", "runbook approve", "runbook deny", "approve", "deny",
    "exchange load", "exchange book", "exchange verify", "exchange halt", "exchange resume",
    "exchange phase", "exchange fund", "exchange disable", "exchange enable", "exchange notices",
    "exchange settle list", "exchange settle show", "exchange settle retry", "exchange settle compensate",
]  # fmt: skip


def run(*words: object) -> tuple[int, str, str]:
    """Run the terminal; returns exit code, standard output, standard error."""
    done = RUNNER.invoke(cli.app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


async def run_beside(*words: object) -> tuple[int, str, str]:
    return await asyncio.to_thread(run, *words)


async def open_incident(plant: DeskPlant) -> str:
    async with aiohttp.ClientSession() as session:
        url, body = f"{plant.url}/api/v1/alerts", notification(alert())
        async with session.post(url, json=body, headers=plant.bearer("webhook")) as answer:
            assert answer.status == 202
        async with asyncio.timeout(60):
            while True:
                async with session.get(f"{plant.url}/api/v1/incidents", headers=plant.bearer("admin")) as answer:
                    for one in await answer.json():
                        return str(one["id"])
                await asyncio.sleep(0.02)


def test_the_program_tells_its_version():
    assert run("--version")[:2] == (0, f"tapewatch {metadata.version('tapewatch')}\n")


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_every_verb_explains_itself(verb):
    code, out, _ = run(*verb.split(), "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x", "is wrong"), 2),
        (RefusedError(RefusalReason.KILL_SWITCH, "no"), 3),
        (TemporaryError("nobody answers"), 4),
        (PermanentError("failed"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert terminal.exit_code(error) == code


# --- no estate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [
        "down", "status", "incident list", "incident show INC-20260302-0001", "incident ack INC-20260302-0001",
        "postmortem INC-20260302-0001", "postmortem INC-20260302-0001 --md", "runbook asking", "runbook approve R",
        "runbook run gateway-down", "exchange book ACME", "exchange load --rate 10", "fault inject gateway-hang",
        "exchange halt ACME", "exchange halt --market", "exchange resume ACME", "exchange resume --market",
        "exchange phase closed --market", "exchange fund ann $cash 5", "exchange disable ann", "exchange enable ann",
    ],
)  # fmt: skip
def test_without_an_estate_each_verb_says_so_and_exits_4(tmp_path, verb):
    code, out, err = run(*verb.split(), "--state", tmp_path)
    assert (code, out) == (4, "")
    assert err == f"tapewatch: no estate runs in {tmp_path}: start one with `tapewatch up`\n"


def test_when_control_is_gone_the_report_written_last_is_named(tmp_path):
    report = Layout(tmp_path).reports / "INC-20260302-0001.html"
    report.parent.mkdir()
    report.write_text("<html>")
    for words in (("incident", "show"), ("postmortem", "--md")):
        code, _, err = run(words[0], *words[1:], "INC-20260302-0001", "--state", tmp_path)
        assert code == 4
        assert err.endswith(f"; the report written last is {report}\n")
    assert run("postmortem", "INC-20260302-0001", "--state", tmp_path)[:2] == (0, f"{report}\n")


def test_a_process_that_died_without_stopping_is_told_apart(tmp_path):
    (tmp_path / "estate.json").write_text("garbage")
    code, _, err = run("status", "--state", tmp_path)
    assert code == 2
    assert "is no address book of this version" in err
    assert "process id" in err


@pytest.mark.parametrize("verb", ["postmortem", "incident show", "incident ack"])
@pytest.mark.parametrize("name", ["", "../../etc/passwd", "INC 1", "INC-1?all=true", "x" * 41])
def test_what_is_no_incidents_id_is_refused_before_anybody_is_asked(tmp_path, verb, name):
    code, _, err = run(*verb.split(), name, "--state", tmp_path)
    assert code == 2
    assert "is no id; such as INC-20260302-0001" in err


# --- runbooks need no estate ----------------------------------------------------------------------------------------


def test_runbooks_are_listed_and_shown():
    code, out, _ = run("runbook", "list", "--json")
    assert code == 0
    assert "gateway-down" in [one["name"] for one in json.loads(out)["runbooks"]]
    code, out, _ = run("runbook", "show", "gateway-down")
    assert code == 0
    assert "restart {replica} of gateway" in out


def test_an_unknown_runbook_names_those_there_are():
    code, _, err = run("runbook", "show", "nothing")
    assert code == 2
    assert "'nothing' is not known; there are blue-green, canary-abort, canary-rollback, certificate-expiry" in err


def test_a_broken_runbook_is_named_with_line_and_column_and_the_others_go_on(tmp_path):
    good = terminal_library() / "gateway-down.yaml"
    (tmp_path / "gateway-down.yaml").write_text(good.read_text())
    (tmp_path / "bad.yaml").write_text(good.read_text().replace("level: 2", "level: 7").replace("GatewayDown", "X"))
    code, out, err = run("runbook", "check", "--library", tmp_path)
    assert code == 1
    assert f"good   {tmp_path / 'gateway-down.yaml'}" in out
    assert f"{tmp_path / 'bad.yaml'}:5:8: level is 7; maximum is 3" in err
    code, out, err = run("runbook", "list", "--library", tmp_path, "--json")
    assert [one["name"] for one in json.loads(out)["runbooks"]] == ["gateway-down"]
    assert (code, "bad.yaml:5:8" in err) == (1, True)
    assert run("runbook", "check", tmp_path / "gateway-down.yaml")[0] == 0
    assert run("runbook", "check", tmp_path / "not-there.yaml")[0] == 1


def terminal_library():
    from runbooks.adapters.yaml_library import LIBRARY

    return LIBRARY


def test_a_rehearsal_shows_both_ends_and_touches_nothing():
    code, out, _ = run("runbook", "rehearse", "gateway-down", "--label", "replica=gateway-2", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["helps"]["conclusion"]["outcome"] == "mended"
    assert told["does_not_help"]["conclusion"]["outcome"] == "not_proven"
    code, out, _ = run("runbook", "rehearse", "gateway-down", "--label", "replica=gateway-2")
    assert "would restart gateway-2 of gateway" in out
    assert "Supposed that it does not help" in out


def test_every_runbook_of_the_library_can_be_rehearsed_without_labels():
    for path in sorted(terminal_library().glob("*.yaml")):
        assert run("runbook", "rehearse", path.stem)[0] == 0, path.stem


@pytest.mark.parametrize("label", ["replica", "=x", "replica=a b; rm"])
def test_a_label_that_names_no_target_is_wrong_usage(label):
    code, _, err = run("runbook", "rehearse", "gateway-down", "--label", label)
    assert code == 2
    assert err.startswith("tapewatch: --label: ")


# --- with a real control process's app -------------------------------------------------------------------------------


async def test_people_see_take_on_annotate_and_close_an_incident(tmp_path):
    async with desk_plant(tmp_path) as plant:
        incident = await open_incident(plant)
        code, out, _ = await run_beside("incident", "list", "--json", "--state", tmp_path)
        assert (code, [one["id"] for one in json.loads(out)]) == (0, [incident])
        code, out, _ = await run_beside("incident", "list", "--state", tmp_path)
        assert incident in out
        assert "GatewayDown" in out

        code, out, _ = await run_beside("incident", "ack", incident, "--by", "anna", "--state", tmp_path)
        assert (code, out) == (0, f"{incident} is taken on by anna\n")
        code, out, _ = await run_beside("incident", "note", incident, "[bold]<b>", "--by", "bo", "--state", tmp_path)
        assert code == 0
        code, _, err = await run_beside("incident", "note", incident, " ", "--state", tmp_path)
        assert (code, err) == (2, "tapewatch: text: is empty; say what is to be kept\n")
        close = ("incident", "resolve", incident, "--why", "a test", "--state", tmp_path)
        code, _, err = await run_beside(*close)
        assert (code, "GatewayDown still fires" in err) == (3, True)
        assert (await run_beside(*close, "--force"))[0] == 0
        code, out, _ = await run_beside("incident", "list", "--all", "--state", tmp_path)
        assert "opened (UTC)" in out
        assert "resolved" in out

        code, out, _ = await run_beside("incident", "show", incident, "--state", tmp_path)
        assert code == 0
        for words in ("resolved, opened 2", "tell on-call engineer", "GatewayDown (cause)", "taken on  by anna",
                      "[bold]<b>", "a test"):  # fmt: skip
            assert words in out
        code, out, _ = await run_beside("incident", "show", incident, "--json", "--state", tmp_path)
        told = json.loads(out)
        assert told["incident"]["state"] == "resolved"
        assert told["tamper"] is None
        assert told["plan"]["level"] == told["incident"]["level"]

        code, _, err = await run_beside("incident", "ack", incident, "--state", tmp_path)
        assert code == 3
        assert "acknowledge is not allowed here, only reopen" in err


async def test_of_a_storm_people_see_the_beginning_and_the_end_and_scripts_see_all(tmp_path):
    async with desk_plant(tmp_path) as plant:
        incident = await open_incident(plant)
        storm = [alert(fingerprint=f"{n:08x}", labels={**alert()["labels"], "client": str(n)}) for n in range(500)]
        async with aiohttp.ClientSession() as session:
            url, body = f"{plant.url}/api/v1/alerts", notification(*storm)
            async with session.post(url, json=body, headers=plant.bearer("webhook")) as answer:
                assert answer.status == 202
        async with asyncio.timeout(60):
            told: dict[str, object] = {}
            while len(told) < 501:
                _, text, _ = await run_beside("incident", "show", incident, "--json", "--state", tmp_path)
                told = json.loads(text)["incident"]["alerts"]
        code, out, _ = await run_beside("incident", "show", incident, "--state", tmp_path)
        assert (code, len(told)) == (0, 501)
        assert "and 461 alerts more; --json shows all" in out
        assert "entries more; --json shows all" in out
        assert len(out.splitlines()) < 600


async def test_who_speaks_is_the_user_unless_somebody_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "clara")
    async with desk_plant(tmp_path) as plant:
        incident = await open_incident(plant)
        assert (await run_beside("incident", "ack", incident, "--state", tmp_path))[1].endswith("by clara\n")


async def test_a_post_mortem_is_printed_or_written_and_nothing_else(tmp_path):
    async with desk_plant(tmp_path / "s") as plant:
        incident, state = await open_incident(plant), tmp_path / "s"
        code, out, _ = await run_beside("postmortem", incident, "--md", "--state", state)
        assert code == 0
        assert out.startswith("# Gateway gateway-1 does not answer")
        code, out, _ = await run_beside("postmortem", incident, "--html", "--state", state)
        assert code == 0
        assert out.lstrip().lower().startswith("<!doctype html")
        code, out, _ = await run_beside("postmortem", incident, "-o", tmp_path / "x.md", "--state", state)
        assert (code, (tmp_path / "x.md").read_text()[:2]) == (0, "# ")
        code, _, err = await run_beside("postmortem", incident, "-o", tmp_path / "no" / "x.md", "--state", state)
        assert (code, "cannot be written: No such file or directory" in err) == (1, True)
        assert (await run_beside("postmortem", incident, "--md", "--html", "--state", state))[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("incident show INC-20260302-9999", 2, "there is no incident 'INC-20260302-9999'"),
        ("postmortem INC-20260302-9999", 2, "there is no incident 'INC-20260302-9999'"),
        ("runbook run nothing", 2, "there is no runbook 'nothing', only "),
        ("runbook run gateway-down", 3, "no_target: the alert has no usable label 'replica'"),
        ("runbook approve nothing --by anna", 1, "run nothing asks for no consent now"),
        ("runbook deny nothing --by anna", 1, "run nothing asks for no consent now"),
        ("exchange book NOPE", 2, "'NOPE' is not traded; there are "),
        ("exchange halt NOPE", 2, "'NOPE' is not traded; there are "),
        ("exchange resume NOPE", 2, "'NOPE' is not traded; there are "),
        ("exchange halt", 2, "give one symbol, or --market"),
        ("exchange resume NOPE --market", 2, "give one symbol, or --market"),
        ("exchange halt --market", 4, "does not answer GET /v1/status"),
        ("exchange resume --market", 4, "does not answer GET /v1/status"),
        ("exchange phase lunch --market", 2, "'lunch' is none; there are pre_open, opening_auction, continuous"),
        ("exchange phase closed", 2, "give one symbol, or --market"),
        ("exchange phase closed NOPE", 2, "'NOPE' is not traded; there are "),
        ("exchange disable köln", 2, "'köln' is none; 1 to 64 printable ASCII characters"),
        ("exchange fund ann $cash 0", 2, "is 0; from 1 to 1000000000000000000"),
        ("exchange load --rate=-1", 2, "between 0 and"),
        ("exchange load --rate=nan", 2, "between 0 and"),
        ("exchange load --rate=5 --for=soon", 2, "'soon' is no duration"),
        ("exchange load --rate=5 --for=0s", 2, "more than nothing"),
        ("status", 4, "does not answer GET /v1/workloads"),
    ],
)
async def test_bad_wishes_get_one_sentence_and_their_exit_code(tmp_path, words, code, told):
    async with desk_plant(tmp_path):
        found, _, err = await run_beside(*words.split(), "--state", tmp_path)
    assert (found, told if told in err else err) == (code, told)
    assert err.startswith("tapewatch: ")
    assert err.count("\n") == 1


async def test_a_secret_that_cannot_be_read_is_one_sentence(tmp_path):
    async with desk_plant(tmp_path) as plant:
        plant.layout.secret("admin").unlink()
        code, _, err = await run_beside("incident", "list", "--state", tmp_path)
    assert code == 4
    assert "the admin secret of" in err
    assert "cannot be read: No such file" in err


async def test_another_estates_secret_is_not_let_in(tmp_path):
    async with desk_plant(tmp_path) as plant:
        plant.layout.secret("admin").write_text("another estate's own secret")
        code, _, err = await run_beside("incident", "list", "--state", tmp_path)
    assert code == 1
    assert "the bearer token is missing or wrong" in err


async def test_completion_offers_the_incidents_there_are(tmp_path):
    class Context:
        params = {"state": tmp_path}  # noqa: RUF012 - a stand-in for one test

    from control.verbs_incident import complete_incident

    async with desk_plant(tmp_path) as plant:
        incident = await open_incident(plant)
        assert await asyncio.to_thread(complete_incident, Context(), "INC") == [incident]
    assert complete_incident(Context(), "INC") == []
    assert cli.complete_fault("gateway") == ["gateway-hang", "gateway-kill"]
    assert "all" in cli.complete_scenario("")


# --- the exchange ---------------------------------------------------------------------------------------------------


def test_verify_needs_a_directory_an_estate_has_run_in(tmp_path):
    code, _, err = run("exchange", "verify", "--state", tmp_path)
    assert code == 2
    assert "no estate has run here" in err


def test_verify_works_on_files_alone_and_sees_a_ledger_off_zero(tmp_path):
    state = StateDir(tmp_path)
    state.fill(symbols=2, seed=1)
    state.release()
    layout = Layout(tmp_path)
    code, out, _ = run("exchange", "verify", "--json", "--state", tmp_path)
    told = json.loads(out)
    assert (code, told["records"], told["live_equal"], told["wrong"]) == (0, 0, None, [])
    code, out, _ = run("exchange", "verify", "--state", tmp_path)
    assert code == 0
    assert out.endswith("journal sound; the engine does not run, so its state was not compared\n")
    assert "nothing is wrong" not in out
    listed = json.loads(run("exchange", "book", "--json", "--state", tmp_path)[1])
    assert run("exchange", "book", "--state", tmp_path)[:2] == (0, "\n".join(listed) + "\n")
    assert len(listed) == 2
    store = SettlementStore(layout.ledger, read_instruments(tmp_path / "instruments.json"))
    store.close()
    with contextlib.closing(sqlite3.connect(layout.ledger)) as database, database:
        database.execute("INSERT INTO balances VALUES ('thief', 'cash', 7)")
    code, out, _ = run("exchange", "verify", "--state", tmp_path)
    assert code == 1
    assert "off by 7" in out


def test_verify_names_a_lost_order(tmp_path):
    state = StateDir(tmp_path)
    state.fill(symbols=2, seed=1)
    state.release()
    line = {
        "account": "m", "client_id": "c-1", "kind": "place", "intended_at": 1, "sent_at": 1, "answered_at": 2,
        "outcome": "acknowledged",
    }  # fmt: skip
    (Layout(tmp_path).load / "requests-1.jsonl").write_text(json.dumps(line) + "\n")
    code, out, _ = run("exchange", "verify", "--state", tmp_path)
    assert code == 1
    assert "of the load's orders 1 are lost, 0 duplicated" in out
    assert "lost: m c-1" in out


def test_a_load_that_is_interrupted_ends_its_wait_and_puts_the_handlers_back():
    before = signal.getsignal(signal.SIGINT)
    with verbs_exchange._interruptible() as interrupted:
        signal.raise_signal(signal.SIGINT)
        started = time.monotonic()
        verbs_exchange._wait(60.0, interrupted)
        assert time.monotonic() - started < 30
    assert signal.getsignal(signal.SIGINT) is before


def test_the_kill_switch_keeps_who_and_why(tmp_path):
    StateDir(tmp_path).release()
    assert run("kill-switch", "on", "--by", "anna", "--why", "a test", "--state", tmp_path)[0] == 0
    told = json.loads(run("kill-switch", "status", "--json", "--state", tmp_path)[1])
    assert (told["on"], told["thrown"]["by"], told["thrown"]["why"]) == (True, "anna", "a test")
    assert told["thrown"]["at"] <= now()
    assert told["state"] == str(tmp_path)
    code, out, _ = run("kill-switch", "on", "--by", "bo", "--state", tmp_path)
    assert code == 0
    assert out.startswith("kill switch was on already: on since ")
    assert out.endswith(f"thrown by anna: a test ({tmp_path})\n")
    assert run("kill-switch", "off", "--state", tmp_path)[1] == f"kill switch off ({tmp_path})\n"
    assert run("kill-switch", "off", "--state", tmp_path)[1] == f"kill switch was off already ({tmp_path})\n"
    assert run("kill-switch", "status", "--state", tmp_path)[1] == f"kill switch off ({tmp_path})\n"


@pytest.mark.parametrize("verb", ["on", "off", "status"])
def test_a_kill_switch_where_no_estate_ever_ran_is_wrong_usage_and_makes_nothing(tmp_path, verb):
    place = tmp_path / "typo"
    code, out, err = run("kill-switch", verb, "--state", place)
    assert (code, out) == (2, "")
    assert err.startswith(f"tapewatch: {place}: no estate ever ran here; ")
    assert not place.exists()
