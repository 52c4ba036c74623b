"""The verbs `alerts ...`: who hears of what, Alertmanager's configuration, its checks, and silences."""

from __future__ import annotations

import difflib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table

from control.child import now
from control.settings import Settings
from control.terminal import (
    EXIT_CODES,
    AsJson,
    By,
    State,
    err,
    guarded,
    layout_of,
    out,
    print_json,
    settings_of,
    starting,
    who,
)
from incidents.words import clean
from kernel.errors import InputError, PermanentError
from kernel.time import HOUR, Duration, Instant, from_rfc3339, parse_duration, to_rfc3339

app = typer.Typer(no_args_is_help=True, help="Who hears of which alert, and what is silent.", epilog=EXIT_CODES)
silence_app = typer.Typer(no_args_is_help=True, help="Silence alerts for a while.", epilog=EXIT_CODES)
app.add_typer(silence_app, name="silence")

Modern = Annotated[bool, typer.Option("--modern", help="For the newest Alertmanager instead of 0.25.")]
_NOBODY_SAID: Final = "nobody: control's page shows it"


def complete_alert(incomplete: str) -> list[str]:
    """Offer the names of the alerts."""
    return starting(_alerts(), incomplete)


def _alerts() -> list[str]:
    """Return the names of all alerts that can fire here: the rules', and control's own."""
    from control.routing import rule_labels
    from monitor.routing.model import NEEDS_PERSON

    return [*rule_labels(), NEEDS_PERSON]


class Told(msgspec.Struct, kw_only=True):
    """One receiver, as it would be told of an alert."""

    receiver: str
    channels: list[str]
    tells: bool
    silent_by: str | None
    """The interval that keeps it silent at the time asked for."""
    group_by: tuple[str, ...]
    group_wait: str
    group_interval: str
    repeat_interval: str


class ChannelState(msgspec.Struct, kw_only=True):
    """Whether a channel can be used."""

    channel: str
    kind: str
    live: bool
    why: str
    """Why not."""


class Answer(msgspec.Struct, kw_only=True):
    """What `alerts routes` tells."""

    labels: dict[str, str]
    at: str
    told: list[Told]
    held_by: list[str]
    """Alerts that would hold it back while they fire."""
    channels: list[ChannelState]


@app.command(epilog="Example: tapewatch alerts routes SequenceGap --label symbol=ACME --at 2026-12-25T12:00:00+01:00")
def routes(
    alert: Annotated[
        str, typer.Argument(help="An alert; its rule's labels are taken.", autocompletion=complete_alert)
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="A label, as key=value; may be repeated.")] = None,
    at: Annotated[str, typer.Option(help="When, such as 2026-12-25T12:00:00+01:00; else now.")] = "",
    *,
    modern: Modern = False,
    as_json: AsJson = False,
) -> None:
    """Say who would be told of an alert, by which channels, and what would keep it silent; else what is live."""
    settings = settings_of(None)
    answer = guarded(lambda: _answer(settings, alert, label or [], at, modern=modern))
    if as_json:
        print_json(answer)
    elif answer.labels:
        _print_told(answer)
    else:
        _print_channels(answer.channels)
        _print_teams(settings, {one.channel for one in answer.channels if one.live})
    guarded(lambda: _made(settings, modern=modern))  # what is shown is shown, also where an estate would refuse it


@app.command(epilog="Example: tapewatch alerts config --modern")
def config(
    *,
    modern: Modern = False,
    reference: Annotated[bool, typer.Option("--reference", help="As kept beside the rules: all is live.")] = False,
    write: Annotated[bool, typer.Option("--write", help="With --reference: write both kept files anew.")] = False,
) -> None:
    """Print Alertmanager's configuration: of the settings here, or the kept one."""
    from control import routing

    if write and not reference:
        guarded(lambda: _refuse("--write", "goes with --reference", "tapewatch alerts config --reference --write"))
    if write:
        guarded(routing.write_reference)
        return
    text = guarded(
        lambda: routing.reference(_version(modern)) if reference else _text(settings_of(None), modern=modern)
    )
    typer.echo(text, nl=False)


@app.command(epilog="Example: tapewatch alerts check")
def check(*, as_json: AsJson = False) -> None:
    """Check the organisation's files, the credentials, and both configurations with each Alertmanager's own tool."""
    settings = settings_of(None)
    said = guarded(lambda: _checks(settings))
    if as_json:
        print_json(said)
        return
    for name, text in said.items():
        out.print(f"[green]ok[/] {markup(name)}: {markup(text)}", soft_wrap=True)


# --- routes -----------------------------------------------------------------------------------------------------------


def _version(modern: bool) -> Any:  # noqa: FBT001 - a flag of the terminal
    from monitor.routing.model import Version

    return Version.MODERN if modern else Version.OLD


def _made(settings: Settings, *, modern: bool, heard: bool = True) -> tuple[Any, Any, list[ChannelState]]:
    """Return the organisation, the configuration that the settings make, and what is live."""
    from control import routing
    from monitor.routing.config import config_of

    organisation = routing.load_organisation(settings.routing or routing.HOUSE)
    version = _version(modern)
    live, absent = routing.live_channels(organisation, version, settings.credentials, settings.bridge, heard=heard)
    place = routing.settled_place(settings, version, live)
    whys = {one.channel: one.why for one in absent}
    channels = [
        ChannelState(channel=name, kind=str(one.kind), live=name in live, why=whys.get(name, ""))
        for name, one in organisation.channels.items()
    ]
    return organisation, config_of(organisation, place, routing.rule_labels()), channels


def _text(settings: Settings, *, modern: bool) -> str:
    from control import routing

    _, made, channels = _made(settings, modern=modern)
    for one in channels:
        if not one.live:
            err.print(f"left out: {one.channel} ({one.kind}): {one.why}", markup=False, soft_wrap=True)
    return routing.text_of(made, _version(modern), reference=False)


def _answer(settings: Settings, alert: str, given: Sequence[str], at: str, *, modern: bool) -> Answer:
    from control.routing import rule_labels
    from monitor.routing.walk import held_by, hits_of, silent_by

    instant = _instant(at)
    known = rule_labels()
    labels = _labels(alert, given, known)
    organisation, made, channels = _made(settings, modern=modern, heard=False)
    live = {one.channel for one in channels if one.live}
    told = []
    for hit in hits_of(made.data, labels) if labels else ():
        silent = silent_by(made.data, hit, instant)
        told.append(
            Told(
                receiver=hit.receiver, channels=_channels_of(organisation, hit.receiver, live), tells=silent is None,
                silent_by=silent, group_by=hit.group_by, group_wait=hit.group_wait, group_interval=hit.group_interval,
                repeat_interval=hit.repeat_interval,
            )
        )  # fmt: skip
    others = [{**rest, "alertname": name} for name, rest in known.items()]
    return Answer(
        labels=labels, at=to_rfc3339(instant), told=told, channels=channels,
        held_by=held_by(made.data, labels, others) if labels else [],
    )  # fmt: skip


def _channels_of(organisation: Any, receiver: str, live: set[str]) -> list[str]:
    if receiver == "heartbeat":
        return [organisation.heartbeat]
    for team in organisation.teams.values():
        for tier, names in team.tiers.items():
            if receiver == f"{team.name}-{tier}":
                return [name for name in names if name in live]
    return []


def _labels(alert: str, given: Sequence[str], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key.isidentifier():
            raise InputError(f"--label {text[:60]}", "is no label", right="write key=value, such as level=1")
        if key in labels:
            raise InputError(f"--label {text[:60]}", f"{key} is given twice", right="keep one of them")
        labels[key] = value
    name = alert or labels.get("alertname", "")
    if alert and labels.get("alertname", alert) != alert:
        raise InputError("--label alertname", f"is not {alert}", right="name the alert once")
    if alert and alert not in known and "team" not in labels:
        near = difflib.get_close_matches(alert, sorted(known), n=1)
        right = "name its labels: --label team=... --label level=1"
        raise InputError(
            alert[:60], "no rule has such an alert", right=f"did you mean {near[0]}? Else {right}" if near else right
        )
    if not name and not labels:
        return {}
    own = {key: text for key, text in known.get(name, {}).items() if "{{" not in text}
    return {**({"alertname": name} if name else {}), **own, **labels}


def _instant(at: str) -> Instant:
    if not at:
        return now()
    try:
        return from_rfc3339(at)
    except ValueError as error:
        raise InputError("--at", str(error), right="write 2026-12-25T12:00:00+01:00") from error


def _print_told(answer: Answer) -> None:
    shown = " ".join(f"{key}={value}" for key, value in answer.labels.items())
    table = Table(title=f"{markup(clean(shown))} at {answer.at[:16]}Z", title_justify="left")
    for head in ("told", "by", "when", "one message for each", "next after", "again after"):
        table.add_column(head)
    for one in answer.told:
        by = ", ".join(one.channels) or ("webhook" if one.receiver == "control" else _NOBODY_SAID)
        when = f"after {one.group_wait}" if one.tells else f"[yellow]silent[/]: {markup(one.silent_by or '')}"
        table.add_row(
            markup(one.receiver), markup(by), when, ", ".join(one.group_by), one.group_interval, one.repeat_interval
        )
    out.print(table)
    if answer.held_by:
        out.print(f"held back while one of these fires: {markup(', '.join(answer.held_by))}", soft_wrap=True)


def _print_channels(channels: Sequence[ChannelState]) -> None:
    table = Table(title="channels", title_justify="left")
    for head in ("channel", "kind", "live", "why not"):
        table.add_column(head)
    for one in channels:
        table.add_row(one.channel, one.kind, "[green]yes[/]" if one.live else "no", markup(one.why))
    out.print(table)


def _print_teams(settings: Settings, live: set[str]) -> None:
    from control import routing

    organisation = guarded(lambda: routing.load_organisation(settings.routing or routing.HOUSE))
    table = Table(title="teams (in brackets: not live)", title_justify="left")
    for head in ("team", "hours", "level", "told by"):
        table.add_column(head)
    for team in organisation.teams.values():
        for tier, names in team.tiers.items():
            told = ", ".join(name if name in live else f"({name})" for name in names)
            table.add_row(team.name, team.hours, str(tier), told)
    out.print(table)
    if not live:
        out.print("No channel is live: control alone is told; incidents that need a person stand on its page.")


# --- checks -----------------------------------------------------------------------------------------------------------


def _checks(settings: Settings) -> dict[str, str]:
    from control import routing
    from control.servers import amtool
    from monitor.routing.model import NEEDS_PERSON
    from monitor.routing.reading import RoutingError, check_alerts

    folder = settings.routing or routing.HOUSE
    organisation, _, channels = _made(settings, modern=False)
    known = {*routing.rule_labels(), NEEDS_PERSON}
    try:
        check_alerts(organisation, known)
    except RoutingError as error:
        raise routing.located(error, routing.sources_of(folder)) from error
    live = [one.channel for one in channels if one.live]
    said = {
        str(folder): f"{len(organisation.teams)} teams, {len(organisation.channels)} channels, "
        f"{len(organisation.inhibitions)} inhibitions, {len(organisation.mutes)} alerts muted by phase",
        "live": ", ".join(live) or "no channel; control alone is told",
    }
    for version, tool in (("0.25", "amtool"), ("modern", str(amtool.find() or ""))):
        made = [routing.reference(_version(version == "modern"), organisation)]
        made.append(_quiet_text(settings, modern=version == "modern"))
        said[f"configuration for {version}"] = _checked(tool, made)
    return said


def _quiet_text(settings: Settings, *, modern: bool) -> str:
    from control import routing

    _, made, _ = _made(settings, modern=modern)
    return routing.text_of(made, _version(modern), reference=False)


def _checked(tool: str, texts: Sequence[str]) -> str:
    if not tool:
        return "not checked by its own tool, which is not built: tapewatch servers build amtool"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alertmanager.yml"
        for text in texts:
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
            try:
                done = subprocess.run([tool, "check-config", path], capture_output=True, text=True, check=False)
            except OSError:
                return f"not checked: there is no program {tool}; `tapewatch doctor` says how to get it"
            if done.returncode:
                said = " ".join((done.stdout + done.stderr).split())[-300:]
                raise PermanentError(f"the configuration is refused by {Path(tool).name}: {said}")
    return f"taken by {Path(tool).name}, with every channel and with those that are live"


def _refuse(where: str, problem: str, right: str) -> None:
    raise InputError(where, problem, right=right)


# --- silences ---------------------------------------------------------------------------------------------------------


@silence_app.command("add", epilog='Example: tapewatch alerts silence add alertname=FeedDown --why "planned" --for 30m')
def silence_add(  # noqa: PLR0913 - a verb's options
    matchers: Annotated[list[str], typer.Argument(help="Such as alertname=FeedDown or symbol=~A.+.")],
    why: Annotated[str, typer.Option(help="Why; kept with the silence.")],
    length: Annotated[str, typer.Option("--for", help="How long, such as 30m.")] = "1h",
    longest: Annotated[str, typer.Option("--max", help="Longest that is allowed.")] = "24h",
    edit: Annotated[str, typer.Option(help="Id of a silence to give another end; its matchers stay.")] = "",
    by: By = "",
    state: State = None,
    *,
    even_so: Annotated[bool, typer.Option("--even-so", help="Also for an alert that no rule of ours has.")] = False,
) -> None:
    """Silence what fits every matcher, for a while; prints the id, which an edited silence may get a new one of."""
    from control import silences

    moment = now()

    def work() -> str:
        given: dict[str, Any] = {
            "by": who(by), "why": why, "now": moment, "length": _duration("--for", length),
            "longest": _duration("--max", longest),
        }  # fmt: skip
        url = _alertmanager(state)
        if edit:
            return silences.edit(url, edit, **given)
        if not even_so:
            silences.refuse_unknown(matchers, _alerts())
        return silences.add(url, matchers, **given)

    out.print(markup(guarded(work)))


@silence_app.command("list", epilog="Example: tapewatch alerts silence list --json")
def silence_list(
    state: State = None,
    *,
    expired: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is silenced, by whom, why and until when."""
    from control import silences

    found = guarded(lambda: silences.listed(_alertmanager(state), expired=expired))
    if as_json:
        print_json(
            [
                {
                    **msgspec.structs.asdict(one),
                    "starts_at": to_rfc3339(one.starts_at),
                    "ends_at": to_rfc3339(one.ends_at),
                }
                for one in found
            ]
        )
        return
    table = Table()
    for head in ("id", "state", "what", "until", "by", "why"):
        table.add_column(head)
    for one in found:
        until = to_rfc3339(one.ends_at)[:19] + "Z"
        table.add_row(one.id, one.state, markup(", ".join(one.matchers)), until, markup(one.by), markup(one.why))
    out.print(table)


@silence_app.command("expire", epilog="Example: tapewatch alerts silence expire ID")
def silence_expire(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `silence list` shows it.")], state: State = None
) -> None:
    """End a silence now."""
    from control import silences

    guarded(lambda: silences.expire(_alertmanager(state), id_))
    out.print(f"ended {markup(id_)}")


def _alertmanager(state: Path | None) -> str:
    from control import faults

    return faults.connect(layout_of(state).root).addresses.alertmanager


def _duration(where: str, text: str) -> Duration:
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise InputError(where, str(error), right="give one such as 30m or 2h") from error
    if length > 31 * 24 * HOUR:
        raise InputError(where, f"is {text}", right="at most 31d")
    return length
