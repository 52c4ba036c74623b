"""One channel as each Alertmanager has it: by its own receiver, or by a webhook to the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from monitor.routing.model import BRIDGED, Channel, Kind, Tier, Version

SHOWN: Final = 10
"""Alerts that a message tells of one by one; all are counted. With the letters below, the least limit (2,000) holds."""
_LETTERS: Final = 150

TITLE: Final = (
    '{{ if eq .Status "firing" }}L{{ .CommonLabels.level }}{{ else }}RESOLVED{{ end }} '
    "{{ .CommonLabels.alertname }} {{ .CommonLabels.service }} ({{ len .Alerts }})"
)
TEXT: Final = (
    f"{{{{ range $n, $one := .Alerts }}}}{{{{ if lt $n {SHOWN} }}}}"
    f'{{{{ $one.Status }}}}: {{{{ printf "%.{_LETTERS}s" $one.Annotations.summary }}}}\n{{{{ end }}}}{{{{ end }}}}'
)
PRIORITY: Final = "P{{ if .CommonLabels.level }}{{ .CommonLabels.level }}{{ else }}2{{ end }}"
SEVERITY: Final = "{{ if .CommonLabels.severity }}{{ .CommonLabels.severity }}{{ else }}error{{ end }}"

JSM_URL: Final = "https://api.atlassian.com/jsm/ops/integration/"


class Credential(msgspec.Struct, frozen=True):
    """What a channel is opened with. Never show it."""

    path: str = ""
    """File that holds it; empty: the bridge has it."""
    text: str = ""
    """What the file holds, for the receivers of 0.25 that read no file."""

    def __repr__(self) -> str:
        return f"Credential({self.path!r})"


class Bridge(msgspec.Struct, frozen=True):
    """Where the bridge listens and what opens it."""

    url: str
    """Without a path, such as `http://127.0.0.1:18770`."""
    token: str
    """File of the webhook's token."""


INLINE: Final = {Version.OLD: frozenset({Kind.DISCORD, Kind.TELEGRAM}), Version.MODERN: frozenset[Kind]()}
"""Kinds whose secret an Alertmanager reads from its configuration alone."""
NEEDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.SLACK: ("room",),
    Kind.WEBHOOK: ("url",),
    Kind.EMAIL: ("to", "from", "smarthost", "user"),
    Kind.JIRA: ("url", "project", "user"),
    Kind.TELEGRAM: ("chat_id",),
}
"""The settings a channel of a kind must have."""
OPTIONAL: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.JIRA: ("issue_type",),
    Kind.OPSGENIE: ("url",),
    Kind.JSM: ("url",),
    Kind.PAGERDUTY: ("url",),
    Kind.TELEGRAM: ("url",),
}


def receiver_of(
    channel: Channel, credential: Credential, version: Version, bridge: Bridge, tier: Tier | None
) -> tuple[str, dict[str, Any]]:
    """Return the kind of receiver and its configuration; `tier` tells how urgent it is, None for a heartbeat."""
    if channel.kind in BRIDGED[version]:
        return "webhook_configs", _webhook(f"{bridge.url}/v1/pages/{channel.kind}", bridge.token)
    match channel.kind:
        case Kind.WEBHOOK:
            hook = _webhook(channel.settings["url"], credential.path)
            made = "webhook_configs", hook if tier is not None else {**hook, "send_resolved": False}
        case Kind.EMAIL:
            made = "email_configs", _email(channel, credential)
        case Kind.OPSGENIE | Kind.JSM:
            made = "opsgenie_configs", _opsgenie(channel, credential)
        case Kind.PAGERDUTY:
            made = "pagerduty_configs", {
                **_address(channel), "routing_key_file": credential.path, "send_resolved": True, "severity": SEVERITY,
                "description": TITLE,
            }  # fmt: skip
        case Kind.JIRA:
            made = "jira_configs", _jira(channel, credential)
        case _:
            made = _chat(channel, credential, version)
    return made


def _chat(channel: Channel, credential: Credential, version: Version) -> tuple[str, dict[str, Any]]:
    said = {"send_resolved": True, "title": TITLE}
    inline = channel.kind in INLINE[version]
    match channel.kind:
        case Kind.SLACK:
            room = channel.settings["room"]
            return "slack_configs", {"api_url_file": credential.path, "channel": room, **said, "text": TEXT}
        case Kind.TEAMS:
            return "msteamsv2_configs", {"webhook_url_file": credential.path, **said, "text": TEXT}
        case Kind.DISCORD:
            secret = {"webhook_url": credential.text} if inline else {"webhook_url_file": credential.path}
            return "discord_configs", {**secret, **said, "message": TEXT}
        case _:
            token = {"bot_token": credential.text} if inline else {"bot_token_file": credential.path}
            return "telegram_configs", {
                **_address(channel), **token, "chat_id": int(channel.settings["chat_id"]), "send_resolved": True,
                # Plain text: a summary may hold what HTML would take for a tag, and Telegram refuses such a message.
                "parse_mode": "", "message": f"{TITLE}\n{TEXT}",
            }  # fmt: skip


def _webhook(url: str, token: str) -> dict[str, Any]:
    return {
        "url": url, "send_resolved": True, "max_alerts": 0,
        "http_config": {
            "follow_redirects": False, "authorization": {"type": "Bearer", "credentials_file": token},
        },
    }  # fmt: skip


def _address(channel: Channel, key: str = "url") -> dict[str, Any]:
    name = {Kind.PAGERDUTY: "url"}.get(channel.kind, "api_url")
    return {name: channel.settings[key]} if key in channel.settings else {}


def _email(channel: Channel, credential: Credential) -> dict[str, Any]:
    told = channel.settings
    return {
        "to": told["to"], "from": told["from"], "smarthost": told["smarthost"], "require_tls": True,
        "auth_username": told["user"], "auth_password_file": credential.path, "send_resolved": True,
        "headers": {"Subject": TITLE},
    }  # fmt: skip


def _opsgenie(channel: Channel, credential: Credential) -> dict[str, Any]:
    address = _address(channel)
    if channel.kind is Kind.JSM and not address:
        address = {"api_url": JSM_URL}
    return {
        **address, "api_key_file": credential.path, "send_resolved": True, "message": TITLE, "description": TEXT,
        "priority": PRIORITY, "tags": "{{ .CommonLabels.team }},{{ .CommonLabels.service }}",
    }  # fmt: skip


def _jira(channel: Channel, credential: Credential) -> dict[str, Any]:
    told = channel.settings
    return {
        "api_url": told["url"], "project": told["project"], "issue_type": told.get("issue_type", "Task"),
        "summary": TITLE, "description": TEXT, "labels": ["{{ .CommonLabels.alertname }}", "{{ .CommonLabels.team }}"],
        "send_resolved": True,
        "http_config": {"basic_auth": {"username": told["user"], "password_file": credential.path}},
    }  # fmt: skip
