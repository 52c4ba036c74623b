"""`tapewatch logs`: search the records of the estate, watch them come, and try log rules on what was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial as bind
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from control import log_desk
from control.child import now
from control.log_lines import match_json, match_line, plain, record_line
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    AsJson,
    State,
    err,
    escape,
    estate_of,
    guarded,
    out,
    print_json,
    settings_of,
    starting,
)
from kernel.errors import InputError
from kernel.time import SECOND, Instant, to_rfc3339, to_seconds
from monitor.adapters.log_rule_files import load
from monitor.adapters.lucene import parse
from monitor.log_fields import Record, kind_of
from monitor.log_store import MAX_RECORDS, LogStore
from monitor.logrules.model import Rule

app = typer.Typer(no_args_is_help=True, help="Search the logs, and try log rules on them.", epilog=EXIT_CODES)
rules_app = typer.Typer(no_args_is_help=True, help="The log rules: what they ask, and what they would find.")
app.add_typer(rules_app, name="rules")
_POLL_S: Final = 0.5
_SPANS: Final = frozenset({"every", "lateness", "hold", "realert", "realert_max", "timeframe", "known_for"})


def complete_rule(incomplete: str) -> list[str]:
    """Offer the names of the rules."""
    try:
        return starting([rule.name for rule in load(log_desk.RULES)], incomplete)
    except InputError:
        return []


Query = Annotated[str, typer.Argument(help="Such as 'log.level:error AND service.name:engine'; empty: every record.")]
Since = Annotated[str, typer.Option(help="So long ago, such as 15m, or a time.")]
Until = Annotated[str, typer.Option(help="Up to so long ago, or a time; else now.", show_default=False)]
Store = Annotated[str, typer.Option("--store", help="local files, or elastic.")]
Rules = Annotated[Path, typer.Option("--rules", help="A file or directory of rules.", show_default=False)]
RuleName = Annotated[str, typer.Argument(help="A rule's name, or a file that holds one.", autocompletion=complete_rule)]


@app.command(
    epilog='Example: tapewatch logs search "event.action:order-slow AND event.duration:>1000000000" --since 1h'
)
def search(  # noqa: PLR0913 - one argument an option
    query: Query = "",
    since: Since = "15m",
    until: Until = "",
    fields: Annotated[str, typer.Option(help="Only these, separated by commas.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(help="Records at most; the newest ones.", min=1, max=MAX_RECORDS)] = 200,
    store: Store = "local",
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the records that match, the oldest first, one record one line."""
    asked = guarded(lambda: parse(query))
    names = guarded(lambda: _names(fields))
    span = guarded(lambda: log_desk.span_of(since, until, now()))
    with open_for(store, state, span.start) as found:
        records = guarded(lambda: found.search(asked, span, fields=names, limit=limit, newest=True))
        total = guarded(lambda: found.count(asked, span)) if len(records) == limit else len(records)
    _print(list(reversed(records)), only=bool(names), as_json=as_json)
    if total > len(records):
        err.print(f"the newest {len(records)} of {total:,}; --limit shows more")


@app.command(epilog="Example: tapewatch logs tail -f log.level:error")
def tail(
    query: Query = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="Records to begin with.", min=0, max=MAX_RECORDS)] = 20,
    store: Store = "local",
    state: State = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as records come, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the last records that match, and with -f those that come."""
    from monitor.adapters.log_store_duckdb import DuckdbLogStore

    asked = guarded(lambda: parse(query))
    span = guarded(lambda: log_desk.span_of("1d", "", now()))
    with open_for(store, state, span.start) as found:
        records = guarded(lambda: found.search(asked, span, limit=lines, newest=True)) if lines else []
        _print(list(reversed(records)), as_json=as_json, streamed=True)
        shown = {_identity(record) for record in records}
        while follow:
            time.sleep(_POLL_S)
            if isinstance(found, DuckdbLogStore):
                found.refresh()
            # Records come late: the last seconds are looked at again, and what was shown is not shown twice.
            recent = guarded(lambda: log_desk.span_of("10s", "", now()))
            fresh = guarded(bind(found.search, asked, recent, limit=MAX_RECORDS))
            _print([one for one in fresh if _identity(one) not in shown], as_json=as_json, streamed=True)
            shown = {_identity(one) for one in fresh}


@rules_app.command("list", epilog="Example: tapewatch logs rules list")
def rules_list(rules: Rules = log_desk.RULES, *, as_json: AsJson = False) -> None:
    """Show the rules, their kinds and where they stand."""
    known = guarded(lambda: load(rules))
    if as_json:
        print_json([_described(rule) for rule in known])
        return
    for rule in known:
        service = rule.labels.get("service", "")
        out.print(
            f"{rule.name:24}{rule.kind!s:20}level {rule.labels.get('level', '')}  {service:14}{escape(rule.where)}",
            soft_wrap=True,
        )


@rules_app.command("show", epilog="Example: tapewatch logs rules show EngineLostNotBack")
def rules_show(name: RuleName, rules: Rules = log_desk.RULES, *, as_json: AsJson = False) -> None:
    """Show one rule with its defaults."""
    described = _described(guarded(lambda: _rule(name, rules)))
    if as_json:
        print_json(described)
        return
    for key, value in described.items():
        out.print(f"{key:16}{escape(plain(value))}", soft_wrap=True)


@rules_app.command("check", epilog="Example: tapewatch logs rules check my-rules/")
def rules_check(
    files: Annotated[list[Path] | None, typer.Argument(help="Files or directories; else those that run.")] = None,
) -> None:
    """Say whether rules would load; the first wrong one is named by file and line."""
    count = sum(len(guarded(bind(load, path))) for path in files or [log_desk.RULES])
    out.print(f"{count} rules are right")


@rules_app.command("test", epilog="Example: tapewatch logs rules test OrdersUnansweredBurst --on gateway-1.jsonl")
def rules_test(  # noqa: PLR0913 - one argument an option
    name: RuleName,
    on: Annotated[Path | None, typer.Option("--on", help="A file of JSON lines; else the store.")] = None,
    since: Annotated[str, typer.Option("--from", help="So long ago, or a time; else the first record.")] = "",
    until: Annotated[str, typer.Option("--to", help="Likewise; else the last record.")] = "",
    store: Store = "local",
    rules: Rules = log_desk.RULES,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Play a rule over the past and print each match, why, and its records. Exit code 0 also without a match."""
    rule = guarded(lambda: _rule(name, rules))
    if on is not None:
        played = guarded(lambda: log_desk.play_file(rule, on, since, until, now()))
    else:
        span = guarded(lambda: log_desk.span_of(since or "1h", until, now()))
        with open_for(store, state, Instant(span.start - 2 * rule.timeframe - rule.known_for)) as found:
            played = guarded(lambda: log_desk.play_store(rule, found, span, found.count(parse(""), span)))
    if as_json:
        raised = [{"at": to_rfc3339(at), "key": key, "why": alert.why} for at, key, alert in played.raised]
        print_json({"rule": rule.name, "matches": [match_json(one) for one in played.matches], "raised": raised})
        return
    for match in played.matches:
        out.print(match_line(match), soft_wrap=True)
        for record in match.records:
            out.print("   ", record_line(record), soft_wrap=True)
    for at, key, alert in played.raised:
        out.print(f"[bold]raised[/] {to_rfc3339(at)} {escape(plain(key))} {escape(plain(alert.why))}", soft_wrap=True)
    length = to_seconds(played.last - played.first)
    out.print(f"{rule.name}: {len(played.matches)} matches, raised {len(played.raised)} times, "
              f"in {played.records:,} records over {length:,.0f} s")  # fmt: skip


@app.command(
    "import-elastalert", epilog="Example: tapewatch logs import-elastalert rules/*.yaml --out alerts/logs/imported.yaml"
)
def import_elastalert(
    files: Annotated[list[Path], typer.Argument(help="ElastAlert 2 rule files.")],
    target: Annotated[Path | None, typer.Option("--out", help="Write the rules here; else to standard output.")] = None,
    *,
    partial: Annotated[bool, typer.Option("--partial", help="Exit 0 although something essential is lost.")] = False,
) -> None:
    """Convert ElastAlert 2 rules; what has no equal here is named by file and line, with what comes nearest."""
    from monitor.adapters.elastalert import convert

    converted = [guarded(bind(convert, path)) for path in files]
    for one in converted:
        for note in one.notes:
            colour = "red" if note.essential else "yellow"
            err.print(f"[{colour}]{'lost' if note.essential else 'note'}[/] {escape(note.text)}", soft_wrap=True)
    text = "rules:\n" + "".join(one.yaml for one in converted if one.yaml)
    if not any(one.yaml for one in converted):
        err.print("no rule could be converted")
    elif target is None:
        typer.echo(text, nl=False)
    else:
        guarded(lambda: _write(target, text))
        out.print(f"{sum(bool(one.yaml) for one in converted)} rules in {escape(str(target))}")
    lost = any(note.essential for one in converted for note in one.notes)
    raise typer.Exit(FAILED if lost and not partial else DONE)


def _write(target: Path, text: str) -> None:
    try:
        target.write_text(text)
    except OSError as error:
        raise InputError(str(target), f"cannot be written ({error.strerror})", right="another file") from error


@contextmanager
def open_for(where: str, state: Path | None, since: Instant) -> Iterator[LogStore]:
    """Open the store that is asked for, and let go of it; Ctrl-C ends the verb."""
    settings = settings_of(state)
    layout = guarded(lambda: estate_of(state)) if where == "local" else None
    logs = layout.root / "logs" if layout else Path()
    found = guarded(lambda: log_desk.open_store(where, logs, settings, since))
    try:
        yield found
    except KeyboardInterrupt:
        raise typer.Exit(DONE) from None
    finally:
        found.close()


def _names(fields: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in fields.split(",") if name.strip())
    for name in names:
        if name != "@timestamp":
            kind_of(name, "--fields")
    return names


def _rule(name: str, rules: Path) -> Rule:
    """Return the rule of this name, or the only one of a file.

    Raises:
        InputError: there is none.
    """
    if name.endswith((".yaml", ".yml")):
        found = load(Path(name))
        if len(found) == 1:
            return found[0]
        raise InputError(name, f"it holds {len(found)} rules", right="name one, and the file with --rules")
    known = {rule.name: rule for rule in load(rules)}
    if name not in known:
        raise InputError(name, "no rule has this name", right=f"one of {', '.join(known)}")
    return known[name]


def _described(rule: Rule) -> dict[str, object]:
    shown: dict[str, object] = {}
    for name in rule.__dataclass_fields__:
        value = getattr(rule, name)
        if name in {"query", "part", "then", "field_kind"} or value in ("", (), None):
            continue
        text = f"{value / SECOND:g}s" if name in _SPANS else msgspec.to_builtins(value)
        shown["query" if name == "query_text" else name] = text
    return shown


def _print(records: list[Record], *, as_json: bool, only: bool = False, streamed: bool = False) -> None:
    if as_json and not streamed:
        print_json(records)
        return
    for record in records:
        if as_json:
            typer.echo(msgspec.json.encode(record).decode())
        else:
            out.print(record_line(record, only=only), soft_wrap=True)


def _identity(record: Record) -> bytes:
    return msgspec.json.encode(record, order="sorted")
