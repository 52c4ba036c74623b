"""The fault `signal`: an alert's own series, for as long as they are wanted."""

import pytest

from control.faults import FAULTS
from control.made_signals import MadeSignals
from kernel.errors import InputError
from monitor.adapters.exporter import samples


def test_series_play_until_they_are_ended():
    made = MadeSignals()
    assert made.render() == ""
    made.begin("KillSwitchOn")
    made.begin("GatewayDown")
    assert made.names == ("KillSwitchOn", "GatewayDown")
    names = {name for name, _, _ in samples(made.render().encode())}
    assert {"tapewatch_kill_switch_on", "up"} <= names
    assert made.end("GatewayDown")
    assert not made.end("GatewayDown")
    assert "up{" not in made.render()


def test_an_unknown_alert_is_refused_with_what_there_is():
    with pytest.raises(InputError, match="there are the families"):
        MadeSignals().begin("GatewayDwon")


def test_the_fault_asks_the_estate_for_the_alert_it_strikes():
    asked = []

    class Plant:
        def estate(self, path, body):
            asked.append((path, body))

    FAULTS["signal"].inject(Plant(), "KillSwitchOn", "")
    FAULTS["signal"].clear(Plant(), "KillSwitchOn", "")
    assert asked == [
        ("/v1/signals", {"alert": "KillSwitchOn", "on": True}),
        ("/v1/signals", {"alert": "KillSwitchOn", "on": False}),
    ]
