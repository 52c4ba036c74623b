"""Databases by URL: settings, secrets, verbs, and what a role says that cannot have its own."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import cli
from control import verbs_db
from control.databases import access, configured, password_of
from control.layout import Layout
from control.plan import choose_ports, write_configs
from control.service import open_store
from control.settings import Settings, load_settings
from control.state_dir import StateDir
from control.verbs_exchange import _ledger
from exchange.adapters.settlement_store import SettlementStore
from kernel.adapters.database import shown
from kernel.errors import InputError
from tests.contract.test_ledger_store import lay
from tests.exchange.plant import INSTRUMENTS
from tests.exchange.test_settlement import happenings

CANARY = "canary-hush"
URL = f"postgresql+psycopg://tapewatch:{CANARY}@db.example:5432/ledger"


def run(*args):
    done = CliRunner().invoke(cli.app, [str(one) for one in args])
    return done.exit_code, done.output


def test_a_password_in_the_url_goes_into_a_file_of_its_own_and_nowhere_else(tmp_path):
    layout = Layout(tmp_path)
    for url in (URL, f"postgresql://tapewatch@db.example:5432/ledger?password={CANARY}"):
        reached = access(Settings(ledger_url=url), "ledger", layout)
        assert reached.url == "postgresql+psycopg://tapewatch@db.example:5432/ledger"
        assert password_of(reached) == CANARY
        assert layout.secret("ledger-database").stat().st_mode & 0o777 == 0o600
    assert access(Settings(), "ledger", layout) is None
    assert access(Settings(store_url="sqlite:////x/y"), "store", layout).url == "sqlite:////x/y"


def test_a_password_file_comes_before_the_url(tmp_path):
    file = tmp_path / "word"
    file.write_text("other\nignored\n")
    reached = access(Settings(ledger_url=URL, ledger_password_file=file), "ledger", Layout(tmp_path))
    assert (password_of(reached), CANARY in reached.url) == ("other", False)
    file.write_text("")
    with pytest.raises(InputError, match="is empty; its first line is the password"):
        password_of(reached)
    file.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        access(Settings(ledger_url=URL, ledger_password_file=file), "ledger", Layout(tmp_path))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("no url", "its address is no database URL; such as sqlite"),
        ("mysql://u:canary-hush@h/d", "mysql is not supported; use SQLite or PostgreSQL"),
    ],
)
def test_a_wrong_url_names_the_setting_and_what_would_be_right(tmp_path, url, words):
    with pytest.raises(InputError, match=rf"setting ledger_url \(TAPEWATCH_LEDGER_URL\): {words}") as raised:
        access(Settings(ledger_url=url), "ledger", Layout(tmp_path))
    assert CANARY not in str(raised.value)


def test_no_message_of_a_wrong_setting_tells_a_password(monkeypatch):
    monkeypatch.setenv("TAPEWATCH_LEDGR_URL", URL)
    with pytest.raises(InputError, match="did you mean ledger_url") as raised:
        load_settings()
    assert CANARY not in str(raised.value)
    assert CANARY not in shown(URL + f"?sslpassword={CANARY}")


def test_no_role_is_told_of_a_database_that_is_not_its_own_and_none_of_the_word(tmp_path):
    state = StateDir(tmp_path)
    listing = state.fill(symbols=1, seed=1)
    layout = Layout(tmp_path)
    settings = Settings(state=tmp_path, ledger_url=URL, store_url=URL.replace("ledger", "store"))
    write_configs(settings, layout, choose_ports(settings), listing.instruments)
    state.release()
    for path in layout.config("x").parent.glob("*.json"):
        assert CANARY not in path.read_text()
    assert configured(layout, "settlement-1").ledger.url.endswith("/ledger")
    assert configured(layout, "settlement-1").store is None
    assert configured(layout, "control-1").store.url.endswith("/store")
    assert configured(layout, "engine-1").ledger is None
    assert configured(layout, "nobody-1") is None


@pytest.mark.parametrize("kind", ["ledger", "store"])
@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_the_verbs_lay_take_back_and_tell(kind, where, request, tmp_path):
    sqlite = where == "sqlite"
    url = f"sqlite:///{tmp_path}/a.sqlite" if sqlite else request.getfixturevalue("database")
    code, out = run("db", "status", kind, "--url", url, "--json")
    assert (code, json.loads(out)["revision"]) == (0, None)
    code, out = run("db", "upgrade", kind, "--url", url)
    assert code == 0
    assert "(this program's)" in out
    code, out = run("db", "downgrade", kind, "--url", url, "--to", "base")
    assert code == 2
    assert "add --drop if that is meant" in out
    code, out = run("db", "downgrade", kind, "--url", url, "--to", "r0001", "--json")
    assert (code, json.loads(out)["revision"]) == (0, "r0001")
    code, out = run("db", "downgrade", kind, "--url", url, "--to", "base", "--drop", "--json")
    assert (code, json.loads(out)["revision"]) == (0, None)
    other = "store" if kind == "ledger" else "ledger"
    run("db", "upgrade", kind, "--url", url)
    code, out = run("db", "upgrade", other, "--url", url)
    assert code == 2
    assert "holds other tables" in out
    assert "hush" not in out


def test_the_verbs_refuse_what_they_do_not_know(tmp_path):
    assert "known are ledger, saga, store" in run("db", "status", "cats")[1]
    code, out = run("db", "status", "ledger", "--url", f"sqlite:///{tmp_path}/no/a.sqlite")
    assert (code, "its directory does not exist" in out) == (2, True)
    assert "does not exist; known are" in run("db", "upgrade", "ledger", "--url", "sqlite://", "--to", "r9")[1]


def test_a_state_is_asked_where_it_keeps_its_ledger_and_a_look_makes_no_file(tmp_path):
    elsewhere = tmp_path / "elsewhere.sqlite"
    configs(tmp_path, f"sqlite:///{elsewhere}")
    code, out = run("db", "status", "ledger", "--state", tmp_path, "--json")
    assert (code, json.loads(out)["address"], json.loads(out)["revision"]) == (0, str(elsewhere), None)
    assert not elsewhere.exists()


def test_a_password_that_is_named_comes_before_that_of_the_estate(tmp_path):
    configs(tmp_path, URL)
    (tmp_path / "other").write_text("another\n")
    assert verbs_db._place("ledger", "", None, tmp_path)[2] == CANARY
    assert verbs_db._place("ledger", "", tmp_path / "other", tmp_path)[2] == "another"


def configs(tmp_path, url):
    state = StateDir(tmp_path)
    listing = state.fill(symbols=1, seed=1)
    settings = Settings(state=tmp_path, ledger_url=url, store_url=url)
    write_configs(settings, Layout(tmp_path), choose_ports(settings), listing.instruments)
    state.release()
    return Layout(tmp_path)


def test_a_role_whose_database_holds_nothing_ends_with_one_sentence(tmp_path, database, postgres):
    layout = configs(tmp_path, database)
    argv = [sys.executable, "-m", "control.roles", str(layout.config("settlement-1"))]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "holds no ledger yet; lay it: tapewatch db upgrade ledger --url" in done.stderr
    assert "Traceback" not in done.stderr
    assert postgres.password not in done.stderr


def test_what_settlement_wrote_to_a_server_is_what_verify_reads(tmp_path, database):
    layout = configs(tmp_path, lay(database))
    told = configured(layout, "settlement-1").ledger
    store = SettlementStore(told.url, INSTRUMENTS, password=password_of(told))
    settled = store.settle(happenings(100))
    store.close()
    assert _ledger(layout) == (settled.trades, 0)


def test_control_opens_the_store_it_is_told_of(tmp_path, database):
    assert run("db", "upgrade", "store", "--url", database)[0] == 0
    layout = configs(tmp_path, database)
    store = open_store(configured(layout, "control-1"), layout, b"k" * 32, 1)
    assert store.backlog() == 0
    store.close()
    assert not layout.incidents.exists()
