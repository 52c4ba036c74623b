"""The organisation's files, the credentials and what the bridge has: who can be told, and the configuration of it.

A channel without its credentials' file is left out, and said so. A file that others may read, or an empty one, is
refused: it is not what its owner takes it for.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import msgspec
import yaml

from control.addresses import HOST
from control.bridge_config import load_bridge
from control.layout import Layout
from control.market import load_calendar
from control.settings import Settings
from kernel.errors import InputError, PermanentError
from monitor.routing.config import Config, Labels, Place, config_of
from monitor.routing.model import BRIDGED, CONTROL, UNSPOKEN, Organisation, Version, check_heard
from monitor.routing.reading import FILES, MUTES, RoutingError, organisation_of
from monitor.routing.receivers import INLINE, Bridge, Credential
from runbooks.adapters.yaml_source import Source

ALERTS: Final = Path(__file__).resolve().parent.parent / "alerts"
HOUSE: Final = ALERTS / "routing"
"""The organisation that ships with the program."""
SCHEMA: Final = HOUSE / "schema.json"
GENERATED: Final = {Version.OLD: "alertmanager.yml", Version.MODERN: "alertmanager-modern.yml"}
_RUN: Final = "/run/secrets/tapewatch"
_REFERENCE_INLINE: Final = {
    "discord": "https://discord.com/api/webhooks/0/from-the-credentials-file", "telegram": "from-the-credentials-file",
}  # fmt: skip
_SECRET_BYTES_MAX: Final = 4096


class Absent(msgspec.Struct, frozen=True):
    """A channel that cannot be used, and why."""

    channel: str
    why: str


# --- the files --------------------------------------------------------------------------------------------------------


def load_organisation(folder: Path = HOUSE) -> Organisation:
    """Read the organisation of a directory.

    Raises:
        InputError: a file is missing or wrong; names it and the line.
    """
    sources = {name: Source(str(folder / name), content) for name, content in _contents(folder)}
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for name, source in sources.items():
        own = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}
        errors = jsonschema.Draft202012Validator(own).iter_errors(source.data)
        for error in sorted(errors, key=lambda found: list(map(str, found.absolute_path))):
            raise _explained(source, error)
    try:
        return organisation_of({name: source.data for name, source in sources.items()})
    except RoutingError as error:
        raise located(error, sources) from error


def located(error: RoutingError, sources: Mapping[str, Source]) -> InputError:
    """Return an error that names the line."""
    if error.file not in sources:
        return error
    return sources[error.file].error(error.path, error.problem, error.right)


def sources_of(folder: Path) -> dict[str, Source]:
    """Return the parsed files of a directory, to tell lines by."""
    return {name: Source(str(folder / name), content) for name, content in _contents(folder)}


def _contents(folder: Path) -> Iterable[tuple[str, bytes]]:
    for name in FILES:
        try:
            yield name, (folder / name).read_bytes()
        except FileNotFoundError:
            if name != MUTES:
                raise InputError(str(folder / name), "is missing", right=f"copy it from {HOUSE}") from None
        except OSError as error:
            raise InputError(
                str(folder / name), f"cannot be read ({error.strerror})", right="mend its rights"
            ) from error


def _explained(source: Source, error: jsonschema.ValidationError) -> InputError:
    path = tuple(error.absolute_path)
    schema: Any = error.schema
    told: Any = error.instance
    match error.validator:
        case "additionalProperties":
            known = list(schema.get("properties", {}))
            key = next(key for key in told if key not in known)
            return source.error((*path, key), f"{key} is not known here", f"known are {', '.join(known)}", key=True)
        case "required":
            needed = schema["required"]
            key = next(key for key in needed if key not in told)
            return source.error(path, f"{key} is missing", f"needed are {', '.join(needed)}")
        case "enum":
            right = f"one of {', '.join(map(str, schema['enum']))}"
        case "minItems" | "minProperties":
            right = f"write at least {error.validator_value}"
        case "uniqueItems":
            right = "keep each once"
        case _:
            right = str(schema.get("description", error.message))[:200]
    return source.error(path, f"{json.dumps(told)[:60]} is wrong here", right)


def rule_labels(rules: Path = ALERTS / "rules") -> dict[str, Labels]:
    """Return the labels that each rule gives its alert, by the alert's name.

    Raises:
        InputError: a file of rules cannot be read.
    """
    found: dict[str, Labels] = {}
    for path in sorted([*rules.glob("*.yml"), *rules.glob("*.yaml")]):
        try:
            data = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - the safe loader, as C
        except (OSError, yaml.YAMLError) as error:
            raise InputError(str(path), " ".join(str(error).split())[:200], right="correct the file") from error
        for group in data.get("groups", []):
            for rule in group.get("rules", []):
                if "alert" in rule:
                    found[rule["alert"]] = {str(key): str(value) for key, value in rule.get("labels", {}).items()}
    return found


_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# --- credentials ------------------------------------------------------------------------------------------------------


def live_channels(
    organisation: Organisation, version: Version, credentials: Path | None, bridge: Path | None, *, heard: bool = True
) -> tuple[dict[str, Credential], list[Absent]]:
    """Return the channels that can be used, and those that cannot; `heard`: by which every team must hear of level 1.

    Raises:
        InputError: the directory or a file of it is open to others, or a secret is empty; the bridge's file is wrong.
        UnheardError: some channel is live, but not for every team's level 1.
    """
    served = set(load_bridge(bridge).channels) if bridge is not None else set()
    if credentials is not None:
        _check_closed(credentials)
    live: dict[str, Credential] = {}
    absent: list[Absent] = []
    for name, channel in organisation.channels.items():
        if channel.kind in UNSPOKEN[version]:
            absent.append(Absent(name, f"Alertmanager {version} and the bridge speak no {channel.kind}"))
        elif channel.kind in BRIDGED[version]:
            if str(channel.kind) in served:
                live[name] = Credential()
            else:
                why = "has no such channel" if bridge is not None else "is not configured (setting bridge)"
                absent.append(Absent(name, f"the bridge {why}"))
        elif credentials is None:
            absent.append(Absent(name, "there is no directory of credentials (setting credentials)"))
        elif not (credentials / channel.secret).exists():
            absent.append(Absent(name, f"there is no file {credentials / channel.secret}"))
        else:
            path = (credentials / channel.secret).absolute()
            live[name] = Credential(str(path), _secret(path) if channel.kind in INLINE[version] else _checked(path))
    if heard:
        check_heard(organisation, {name: one.path for name, one in live.items() if name != organisation.heartbeat})
    return live, absent


def _checked(path: Path) -> str:
    _secret(path)
    return ""


def _check_closed(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(
            f"credentials {path}", f"cannot be read ({error.strerror})", right="name a directory"
        ) from error
    if not stat.S_ISDIR(mode):
        raise InputError(f"credentials {path}", "is no directory", right="one file for each secret lies in it")
    if mode & 0o077:
        raise InputError(f"credentials {path}", f"is open to others (mode {mode & 0o777:o})", right=f"chmod 700 {path}")


def _secret(path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, path.read_bytes()[: _SECRET_BYTES_MAX + 1].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"credentials {path}", "cannot be read", right="a file of one line of text") from error
    if mode & 0o077:
        raise InputError(f"credentials {path}", f"is open to others (mode {mode & 0o777:o})", right=f"chmod 600 {path}")
    if not text or len(text) > _SECRET_BYTES_MAX or len(text.split()) != 1:
        raise InputError(f"credentials {path}", "does not hold a secret", right="one line without blanks")
    return text


# --- configurations ---------------------------------------------------------------------------------------------------


def reference(version: Version, organisation: Organisation | None = None) -> str:
    """Return the configuration of the whole organisation as text, as it is kept beside the rules.

    Every channel is live, with paths below `/run/secrets`; nothing of it is anybody's.
    """
    whole = organisation or load_organisation()
    live = {
        name: Credential(f"{_RUN}/{one.secret}", _REFERENCE_INLINE.get(one.kind, ""))
        for name, one in whole.channels.items()
    }
    place = Place(
        version=version, live=live, control_url="http://127.0.0.1:18700/api/v1/alerts",
        control_token="/run/secrets/tapewatch-webhook",  # noqa: S106 - a path
        bridge=Bridge("http://127.0.0.1:18770", "/run/secrets/tapewatch-webhook"),
    )  # fmt: skip
    return text_of(config_of(whole, place, rule_labels()), version)


def place_of(version: Version, live: Mapping[str, Credential], *, control: int, bridge: int, token: Path) -> Place:
    """Return the place of an estate on this machine, by the ports of control and bridge; without a calendar."""
    return Place(
        version=version, live=live, control_url=f"http://{HOST}:{control}/api/v1/alerts", control_token=str(token),
        bridge=Bridge(f"http://{HOST}:{bridge}", str(token)),
    )  # fmt: skip


def estate_routes(settings: Settings, control: int, bridge: int, token: Path) -> dict[str, Any]:
    """Return the configuration of an estate, for the Alertmanager of Debian: what its settings make live.

    Raises:
        InputError: the organisation, a credential, the bridge's file or the calendar is wrong.
    """
    organisation = load_organisation(settings.routing or HOUSE)
    live, _ = live_channels(organisation, Version.OLD, settings.credentials, settings.bridge)
    place = place_of(Version.OLD, live, control=control, bridge=bridge, token=token)
    return config_of(organisation, _by_calendar(settings, place), rule_labels()).data


def settled_place(settings: Settings, version: Version, live: Mapping[str, Credential]) -> Place:
    """Return the place of the estate that the settings name, by its fixed ports.

    Raises:
        InputError: the calendar is wrong.
    """
    token = Layout(settings.state.absolute()).secret("webhook")
    place = place_of(version, live, control=settings.port_control, bridge=settings.port_bridge, token=token)
    return _by_calendar(settings, place)


def _by_calendar(settings: Settings, place: Place) -> Place:
    if settings.calendar is None:
        return place
    year = dt.datetime.now(dt.UTC).year
    return msgspec.structs.replace(place, calendar=load_calendar(settings.calendar), year=year)


def house_routes() -> dict[str, Any]:
    """Return the configuration of the house's organisation while no channel is live: control is told, nobody else."""
    place = place_of(Version.OLD, {}, control=18700, bridge=18770, token=Path("/run/secrets/tapewatch-webhook"))
    return config_of(load_organisation(), place, rule_labels()).data


def hurried(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose every route tells at any hour, soon: for drills, which prove whom routes name."""
    timeless = {key: value for key, value in config.items() if key != "time_intervals"}
    return {**timeless, "route": _hurried(config["route"])}


def _hurried(route: Mapping[str, Any]) -> dict[str, Any]:
    changed = {key: value for key, value in route.items() if not key.endswith("_time_intervals")}
    if changed.get("receiver", CONTROL) != CONTROL:
        changed |= {"group_wait": "0s", "group_interval": "1s"}
    if "routes" in route:
        changed["routes"] = [_hurried(child) for child in route["routes"]]
    return changed


def text_of(config: Config, version: Version, *, reference: bool = True) -> str:
    """Return a configuration as YAML, with the reasons beside what they explain."""
    data = config.data
    words = [*(["--reference"] if reference else []), *(["--modern"] if version is Version.MODERN else [])]
    parts = [_HEAD.format(fit=_FIT[version], words=" ".join(["", *words]))]
    route = {key: value for key, value in data["route"].items() if key != "routes"}
    parts.append(_dump({"global": data["global"]}))
    parts.append(
        _dump({"route": route}) + "  routes:\n" + "".join(_item(one, why, "    ") for why, one in config.routes)
    )
    rules = zip(data["inhibit_rules"], config.inhibitions, strict=True)
    parts.append("inhibit_rules:\n" + "".join(_item(rule, one.why, "  ") for rule, one in rules))
    if not data["inhibit_rules"]:
        parts[-1] = "inhibit_rules: []\n"
    parts.append(_dump({"receivers": data["receivers"]}))
    if "time_intervals" in data:
        parts.append(_dump({"time_intervals": data["time_intervals"]}))
    return "\n".join(parts)


_HEAD: Final = """\
# Who hears of what, and how soon: for Alertmanager {fit}. Generated from alerts/routing/*.yaml by
# `tapewatch alerts config{words}`; do not edit it.
# An alert that joins a group which has told before waits for that group's interval. Whatever is urgent
# therefore has a group of its own, by the labels that tell one trouble from another.
"""
_FIT: Final = {Version.OLD: "0.25", Version.MODERN: "0.34"}


def _dump(value: object) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=1000, allow_unicode=True, default_flow_style=None)


class _Plain(yaml.SafeDumper):
    """Writes the same list twice rather than an anchor, which other readers may not know."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the library's signature
        return True


def _item(value: object, why: str, indent: str) -> str:
    lines = _dump([value]).splitlines()
    note = [f"# {why}"] if why else []
    return "".join(f"{indent}{line}\n" for line in [*note, *lines])


def write_reference(folder: Path = ALERTS) -> None:
    """Write both generated files anew.

    Raises:
        PermanentError: they cannot be written.
    """
    for version, name in GENERATED.items():
        try:
            (folder / name).write_text(reference(version), encoding="utf-8")
        except OSError as error:
            raise PermanentError(f"{folder / name} cannot be written: {os.strerror(error.errno or 0)}") from error
