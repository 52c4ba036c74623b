"""Every channel by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from incidents.paging.channel import Channel
from incidents.paging.opsgenie import OpsGenie
from incidents.paging.pagerduty import PagerDuty
from incidents.paging.slack import Slack
from incidents.paging.teams import Teams
from incidents.paging.twilio import Call, Sms
from incidents.paging.zenduty import Zenduty

CHANNELS: Final[Mapping[str, Channel]] = MappingProxyType(
    {one.name: one for one in (Teams(), Zenduty(), Sms(), Call(), OpsGenie(), PagerDuty(), Slack())}
)
