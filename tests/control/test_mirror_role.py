# mypy: check-untyped-defs=False
"""The role `mirror`: what it tells of the copy, and that one which cannot go on stays instead of coming back."""

import asyncio

import pytest

from control.mirror_role import MirrorInstruments, follow, keep_listing
from control.state_dir import generate_instruments
from exchange.adapters.file_log import FencedError
from exchange.adapters.kafka_log import TopicCorruptError
from exchange.adapters.listing_file import read_listing, write_listing
from exchange.listing import Listing
from exchange.recording import RecordingLog
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role


class Broken:
    """A copy that cannot go on; its source goes on answering, and then no more."""

    def __init__(self, error, told):
        self.error, self.told, self.runs, self.watched = error, told, 0, asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def run(self, stopped):
        self.runs += 1
        self.told.mirrored(17, 17)
        self.told.looked(connected=True, lag=3, behind_s=0.5)
        raise self.error

    def watch(self, stopped):
        self.told.looked(connected=False, lag=None, behind_s=None)
        self._loop.call_soon_threadsafe(self.watched.set)
        stopped.wait(20)


def page(exporter):
    lines = exporter.render().decode().splitlines()
    return {line.split(" ")[0]: line.split(" ")[1] for line in lines if line.startswith("exchange_mirror")}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(FencedError("another engine has it"), "fenced"), (TopicCorruptError("c", 0, 4, "record 4"), "mismatch")],
)
async def test_a_copy_that_cannot_go_on_is_told_and_never_begun_again_while_its_source_is_looked_at(error, reason):
    exporter, log, stop = Exporter(Role.MIRROR), RecordingLog(), asyncio.Event()
    told = MirrorInstruments(exporter)
    mirror = Broken(error, told)
    running = asyncio.create_task(follow(mirror, told, log, stop))
    await asyncio.wait_for(mirror.watched.wait(), 60)
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 60)
    assert mirror.runs == 1, "begun again it would fence whoever fenced it"
    other = {"fenced": "mismatch", "mismatch": "fenced"}[reason]
    assert page(exporter) == {
        "exchange_mirror_sequence": "17.0",
        "exchange_mirror_commands_total": "17.0",
        "exchange_mirror_source_connected": "0.0",
        f'exchange_mirror_broken{{reason="{reason}"}}': "1.0",
        f'exchange_mirror_broken{{reason="{other}"}}': "0.0",
    }
    assert told.status.broken == str(error)
    assert not told.status.connected


def test_what_is_not_here_is_told_in_records_and_seconds_and_not_at_all_where_nobody_knows():
    exporter = Exporter(Role.MIRROR)
    told = MirrorInstruments(exporter)
    told.looked(connected=True, lag=40, behind_s=6.5)
    assert page(exporter)["exchange_mirror_lag_records"] == "40.0"
    assert page(exporter)["exchange_mirror_lag_seconds"] == "6.5"
    told.looked(connected=True, lag=None, behind_s=None)
    assert not {"exchange_mirror_lag_records", "exchange_mirror_lag_seconds"} & set(page(exporter))


def test_what_the_other_region_trades_is_kept_and_what_is_no_listing_is_told_and_leaves_the_one_before(tmp_path):
    log, path, listing = RecordingLog(), tmp_path / "listing.json", Listing(generate_instruments(3, 9))
    assert keep_listing(write_listing(listing), path, log)
    assert not keep_listing(b'[{"symbol": "A"', path, log)
    assert read_listing(path) == listing
