from __future__ import annotations

import os
import socket

import pytest

from control import plan
from control.settings import load_settings
from control.state_dir import StateDir, generate_instruments
from kernel.errors import InputError, PermanentError


def test_a_second_holder_is_told_who_has_it(tmp_path):
    first = StateDir(tmp_path / "s")
    with pytest.raises(
        PermanentError, match=rf"is held by pid {os.getpid()} since 20\d\d-.*; `tapewatch down` stops it"
    ):
        StateDir(tmp_path / "s")
    first.release()
    StateDir(tmp_path / "s").release()


def test_another_version_is_refused(tmp_path):
    StateDir(tmp_path).release()
    (tmp_path / "version").write_text("99\n")
    with pytest.raises(PermanentError, match="is of state version 99, this program writes version 1"):
        StateDir(tmp_path)
    (tmp_path / "version").write_text("1\n")
    StateDir(tmp_path).release()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match=r"cannot be written .a file is in its way"):
        StateDir(tmp_path / "file" / "s")


def test_broken_instruments_are_one_sentence(tmp_path):
    (tmp_path / "instruments.json").write_bytes(b"\x00nonsense")
    state = StateDir(tmp_path)
    with pytest.raises(InputError, match=r"instruments\.json: is no list of instruments"):
        state.fill(symbols=2, seed=1)
    state.release()


def test_instruments_that_contradict_themselves_are_refused_with_file_and_place(tmp_path):
    (tmp_path / "instruments.json").write_bytes(b'[{"symbol": "ACME", "reference": 100, "band": -5}]')
    state = StateDir(tmp_path)
    with pytest.raises(InputError, match=r"instruments\.json: instruments\[0\] \(ACME\)\.band: is -5; write a whole"):
        state.fill(symbols=2, seed=1)
    state.release()


def test_a_venue_in_the_file_reaches_every_process(tmp_path):
    from control.config import load_config
    from control.plan import choose_ports, write_configs
    from control.settings import Settings

    listed = b'{"instruments": [{"symbol": "ACME", "reference": 100, "band": 5}], "venue": {"holds": true}}'
    (tmp_path / "instruments.json").write_bytes(listed)
    state = StateDir(tmp_path)
    listing = state.fill(symbols=2, seed=1)
    settings = Settings()
    write_configs(settings, state.layout, choose_ports(settings), listing.instruments, listing.venue)
    assert load_config(state.layout.config("engine-1")).venue.holds
    file = state.layout.config("engine-1")
    file.write_bytes(file.read_bytes().replace(b'"band": 5', b'"band": -5'))
    with pytest.raises(InputError, match=r"engine-1\.json: instruments\[0\] \(ACME\)\.band: is -5"):
        load_config(file)
    state.release()


@pytest.mark.parametrize("text", [b"", b"short", b"\xff" * 40, b"a" * 20 + b"\x00" + b"b" * 20])
def test_what_is_no_secret_is_refused_and_not_replaced(tmp_path, text):
    state = StateDir(tmp_path)
    state.fill(symbols=2, seed=1)
    state.layout.secret("admin").write_bytes(text)
    with pytest.raises(InputError, match="secrets/admin: holds no secret of at least 16 letters; delete it"):
        state.fill(symbols=2, seed=1)
    assert state.layout.secret("admin").read_bytes() == text
    state.release()


def test_secrets_are_for_the_owner_only_and_kept(tmp_path):
    state = StateDir(tmp_path)
    first = state.fill(symbols=4, seed=1)
    admin = state.layout.secret("admin")
    text = admin.read_text()
    assert admin.stat().st_mode & 0o777 == 0o600
    assert state.fill(symbols=9, seed=2) == first, "a journal needs the instruments it was written with"
    assert admin.read_text() == text
    state.release()


def test_more_instruments_never_change_the_first_ones():
    few, many = generate_instruments(8, 1), generate_instruments(200, 1)
    assert many[:8] == few
    assert len({each.symbol for each in many}) == 200
    assert all(0 < each.band < each.reference for each in many)


def test_a_taken_port_is_named_with_its_holder_and_its_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PermanentError,
            match=rf"port {port} \(market_data\) is in use by pid {os.getpid()} .*TAPEWATCH_PORT_MARKET_DATA",
        ):
            plan.choose_ports(load_settings(port_market_data=port))


def test_free_ports_are_all_different():
    numbers = list(plan.choose_ports(load_settings(ports="auto")).named().values())
    assert len(numbers) == len(set(numbers)) == 22
