"""What `tapewatch page` shows and how it ends, with a real bridge process and sinks in the providers' place."""

# mypy: disable-error-code="arg-type"
from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from control.addresses import Addresses, ReplicaAddress, save_addresses
from control.state_dir import StateDir
from kernel.time import Instant
from tests.contract.bridge_plant import PERSON, bridge_file
from tests.contract.sinks import Later, Say, sinks
from tests.contract.test_receivers_crash import BridgeProcess, ended
from tests.control.test_cli import run_beside


@dataclass
class Done:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


async def terminal(*words: str) -> Done:
    return Done(*await run_beside(*words))


def address_book(layout, workloads):
    save_addresses(
        Addresses(
            version=1, phase="up", pid=1, started_at=Instant(0), state=str(layout.root), estate="", control="",
            prometheus="", alertmanager="", market_data="", settlement="", engine="", load="", engine_stream_port=1,
            faults_allowed=True, workloads=workloads,
        ),
        layout.addresses,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(tmp_path, sink, **changes):
    """A bridge, and an estate's directory that names it."""
    state = StateDir(tmp_path / "state")
    state.fill(symbols=1, seed=1)
    try:
        with ended(BridgeProcess(state.layout.root, bridge_file(tmp_path, sink.url, **changes))) as bridge:
            state.layout.secret("admin").write_text("admin-secret-that-is-long")
            await bridge.start()
            address_book(state.layout, {"bridge": (ReplicaAddress("bridge-1", bridge.url, 1),)})
            yield state.layout.root
    finally:
        state.release()


async def test_a_test_page_is_sent_and_its_receipt_is_told(tmp_path):
    async with sinks() as sink, running(tmp_path, sink) as root:
        done = await terminal("page", "test", "sms", "--by", "anna", "--state", str(root))
        assert done.exit_code == 0, done.output
        assert "delivered" in done.output
        assert "anna" in sink.kept["sms"][0].body["Body"]
        assert "TEST" in sink.kept["sms"][0].body["Body"]
        done = await terminal("page", "test", "zenduty", "--json", "--state", str(root))
        (seen,) = json.loads(done.stdout)
        assert (done.exit_code, seen["phase"], seen["test"]) == (0, "delivered", True)
        assert {one.body["alert_type"] for one in sink.kept["zenduty"]} <= {"info", "resolved"}
        listed = json.loads((await terminal("page", "list", "--json", "--state", str(root))).stdout)
        assert {one["channel"] for one in listed} == {"sms", "zenduty"}
        assert PERSON not in json.dumps(listed)
        shown = await terminal("page", "show", listed[-1]["id"][:8], "--state", str(root))
        assert [word for word in ("taken", "tried", "answered", "told") if word not in shown.output] == []


async def test_a_test_page_that_fails_says_why_and_ends_with_1(tmp_path):
    async with sinks() as sink, running(tmp_path, sink) as root:
        sink.script("teams", Say(404, "[bold]gone[/]"))
        done = await terminal("page", "test", "teams", "--state", str(root))
        assert done.exit_code == 1
        assert "404 [bold]gone[/]" in done.output
        sink.script("call", Later("no-answer"))
        assert (await terminal("page", "test", "call", "--state", str(root))).exit_code == 1
        listed = await terminal("page", "list", "--phase", "failed", "--state", str(root))
        assert "no-answer" in listed.output
        assert "[bold]gone[/]" in listed.output


async def test_wrong_words_are_refused_with_what_would_be_right(tmp_path):
    async with sinks() as sink, running(tmp_path, sink) as root:
        for words, told in (
            (("test", "pigeon"), "there are teams"),
            (("test", "sms", "--to", "+4999999999"), "nobody of the bridge's file"),
            (("list", "--phase", "lost"), "there are waiting"),
            (("show", "0123"), "none of this id"),
        ):
            done = await terminal("page", *words, "--state", str(root))
            assert done.exit_code == 2, done.output
            assert told in done.output
        assert (await terminal("page", "list", "--state", str(root))).output.strip() == "no pages"


async def test_without_a_bridge_it_says_how_to_have_one(tmp_path):
    state = StateDir(tmp_path / "state")
    try:
        state.fill(symbols=1, seed=1)
        address_book(state.layout, {})
        done = await terminal("page", "list", "--state", str(state.layout.root))
        assert done.exit_code == 2
        assert "TAPEWATCH_BRIDGE" in done.output
    finally:
        state.release()
    assert (await terminal("page", "list", "--state", str(tmp_path / "none"))).exit_code in {2, 4}
