"""Runbooks from YAML files, one each, named after the alert they answer.

A file is parsed by `yaml_source`, held to the published `runbooks/schema.json`, cross-checked, and only then becomes a
`Runbook`. A broken file is refused with its line, its column and what would be right; the others go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Final

import jsonschema
import msgspec

from kernel.errors import InputError
from kernel.time import parse_duration
from runbooks.adapters.yaml_source import SIZE_MAX, Path, Source
from runbooks.bind import IN_QUERY, PLACEHOLDER
from runbooks.model import (
    Action,
    BlastRadius,
    Consent,
    Evidence,
    Guard,
    Limits,
    Otherwise,
    Proof,
    Relation,
    Runbook,
    Step,
    Undo,
)

ROOM: Final = FilePath(__file__).resolve().parent.parent
LIBRARY: Final = ROOM / "library"
"""The runbooks that come with the project."""
SCHEMA: Final = ROOM / "schema.json"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def load_library(directory: FilePath, platform: str = "") -> tuple[list[Runbook], list[InputError]]:
    """Read every `*.yaml` of a directory, sorted by name; return the good ones and what is wrong with the others.

    With a `platform` (`local`, `kubernetes`) only its runbooks are returned.
    """
    if not directory.is_dir():
        return [], [
            InputError(str(directory), "there is no such directory", right="name the directory of the runbooks")
        ]
    runbooks: list[Runbook] = []
    errors: list[InputError] = []
    answered: dict[tuple[str, str], str] = {}
    for path in sorted(directory.glob("*.yaml")):
        try:
            runbook = load_runbook(path)
        except InputError as error:
            errors.append(error)
            continue
        pairs = [(where, alert) for where in runbook.platforms for alert in runbook.answers]
        taken = [pair for pair in pairs if pair in answered]
        if taken:
            words = f"{taken[0][1]} is answered by {answered[taken[0]]} already"
            errors.append(InputError(f"{path}:1:1", words, right="let one runbook answer an alert"))
            continue
        answered |= dict.fromkeys(pairs, runbook.name)
        if not platform or platform in runbook.platforms:
            runbooks.append(runbook)
    return runbooks, errors


def load_runbook(path: FilePath) -> Runbook:
    """Read one runbook.

    Raises:
        InputError: with file, line, column and what would be right.
    """
    if not _NAME.fullmatch(path.stem):
        raise InputError(
            f"{path}:1:1", "the file's name is no runbook's name", right="use a name such as gateway-down.yaml"
        )
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise InputError(f"{path}:1:1", f"cannot be read ({error.strerror})", right="make it readable") from error
    source = Source(str(path), content)
    for problem in _schema_errors(source):
        raise problem
    for problem in _cross_checks(source):
        raise problem
    return _runbook(path.stem, source.data)


# --- the schema ---------------------------------------------------------------------------------------------------


def _schema_errors(source: Source) -> Iterator[InputError]:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for error in sorted(validator.iter_errors(source.data), key=lambda found: list(map(str, found.absolute_path))):
        yield _explain(source, error, tuple(error.absolute_path))


def _explain(source: Source, error: jsonschema.ValidationError, path: Path) -> InputError:
    schema: Any = error.schema
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        key = next(key for key in instance if key not in known)
        return source.error((*path, key), f"unknown key {key!r}", f"known here: {', '.join(known) or 'none'}", key=True)
    if error.validator == "required":
        key = next(key for key in schema["required"] if key not in instance)
        return source.error(path, f"the key {key!r} is missing", f"needed here: {', '.join(schema['required'])}")
    where = ".".join(map(str, path)) or "the file"
    shown = json.dumps(instance)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."  # noqa: PLR2004 - what fits a line
    return source.error(path, f"{where} is {shown}", _right(error, schema))


def _right(error: jsonschema.ValidationError, schema: Any) -> str:
    value: Any = error.validator_value
    match error.validator:
        case "enum":
            return f"one of {', '.join(value)}"
        case "type":
            return f"must be of type {value}"
        case (
            "minimum"
            | "maximum"
            | "minItems"
            | "maxItems"
            | "minLength"
            | "maxLength"
            | "minProperties"
            | "maxProperties"
        ):
            return f"{error.validator} is {value}" + (f": {schema['description']}" if "description" in schema else "")
        case "pattern":
            return f"{schema['description']}" if "description" in schema else f"must match {value}"
        case _:
            return error.message[:200]


# --- what a schema cannot say -------------------------------------------------------------------------------------


def _cross_checks(source: Source) -> Iterator[InputError]:
    data = source.data
    for number, guard in enumerate(data["guards"]):
        yield from _check_evidence(source, ("guards", number), guard)
    for number, step in enumerate(data["steps"]):
        yield from _check_step(source, ("steps", number), step)
    if bool(data["steps"]) == ("never_acts" in data):
        yield source.error(("steps",), "a runbook has either steps or a reason never_acts", "write one of the two")
    elif data["steps"] and not any("proof" in step for step in data["steps"]):
        yield source.error(("steps",), "no step has a proof", "give at least the last step a proof")
    touching = [kind for step in data["steps"] for kind in step["do"] if kind not in _TOUCHES_NOTHING]
    if data.get("anomaly_may_start") and data["consent"] == Consent.AUTOMATIC and touching:
        words = f"an anomaly alone would {touching[0]} by itself"
        yield source.error(("anomaly_may_start",), words, "ask people (consent), or do what touches nothing")


_TOUCHES_NOTHING: Final = frozenset({"verify_replay", "keep_snapshot"})
_TAKES_BACK: Final = {
    "restore_replicas": ("scale",),
    "resume_symbol": ("halt_symbol",),
    "restore": (
        "roll_back", "pause_rollout", "resume_rollout", "cordon", "set_flag", "restore_config", "switch_service",
    ),
}  # fmt: skip
"""What each way of taking back fits; the others fit every action."""


def _check_step(source: Source, path: Path, step: dict[str, Any]) -> Iterator[InputError]:
    if ("proof" in step) == ("without_proof" in step):
        yield source.error(path, "a step has either a proof or a reason without_proof", "write exactly one of the two")
    kind, fields = next(iter(step["do"].items()))
    where = (*path, "do", kind)
    fits = _TAKES_BACK.get(step["undo"], (kind,))
    if kind not in fits:
        right = f"it takes back {', '.join(fits)}"
        yield source.error((*path, "undo"), f"{step['undo']} does not take back {kind}", right)
    if kind == "scale" and step["undo"] == "nothing":
        yield source.error((*path, "undo"), "a scale leaves something behind", "use restore_replicas or keep")
    if kind == "scale" and fields["minimum"] > fields["maximum"]:
        yield source.error((*where, "minimum"), "minimum is above maximum", f"at most {fields['maximum']}")
    for name, text in fields.items():
        if isinstance(text, str):
            yield from _check_placeholders(source, (*where, name), text)
    for name in ("proof", "undo_proof"):
        if name in step:
            yield from _check_proof(source, (*path, name), step[name])


def _check_proof(source: Source, path: Path, proof: dict[str, Any]) -> Iterator[InputError]:
    yield from _check_evidence(source, path, proof)
    times = {name: parse_duration(proof[name]) for name in ("holds_for", "within", "poll", "max_age")}
    if times["poll"] <= 0:
        yield source.error((*path, "poll"), "poll is no time at all", "for example 250ms")
    if times["holds_for"] >= times["within"]:
        yield source.error((*path, "holds_for"), "holds_for is not shorter than within", f"less than {proof['within']}")
    if times["poll"] > times["max_age"]:
        yield source.error((*path, "poll"), "poll is longer than max_age", f"at most {proof['max_age']}")


def _check_evidence(source: Source, path: Path, evidence: dict[str, Any]) -> Iterator[InputError]:
    if parse_duration(evidence["max_age"]) <= 0:
        yield source.error((*path, "max_age"), "no data is that young", "for example 3s")
    yield from _check_placeholders(source, (*path, "name"), evidence["name"])
    yield from _check_placeholders(source, (*path, "settled"), evidence.get("settled", ""))
    for name in ("query", "fresh"):
        text = evidence.get(name, "")
        yield from _check_placeholders(source, (*path, name), text)
        if len(PLACEHOLDER.findall(text)) != len(IN_QUERY.findall(text)):
            right = 'alone in an exact matcher, such as replica="{replica}"'
            yield source.error((*path, name), "a placeholder stands where its value could change the query", right)


def _check_placeholders(source: Source, path: Path, text: str) -> Iterator[InputError]:
    declared = source.data.get("parameters", {})
    for name in PLACEHOLDER.findall(text):
        if name not in declared:
            right = f"declared: {', '.join(declared) or 'none'}"
            yield source.error(path, f"the placeholder {{{name}}} is not among the parameters", right)


# --- from data to values ------------------------------------------------------------------------------------------


def _runbook(name: str, data: dict[str, Any]) -> Runbook:
    limits = data["limits"]
    return Runbook(
        name=name,
        title=data["title"],
        answers=tuple(data["answers"]),
        service=data["service"],
        team=data["team"],
        level=data["level"],
        consent=Consent(data["consent"]),
        parameters=dict(data.get("parameters", {})),
        guards=tuple(
            Guard(evidence=_evidence(guard), otherwise=Otherwise(guard.get("otherwise", Otherwise.REFUSED)))
            for guard in data["guards"]
        ),
        steps=tuple(_step(step) for step in data["steps"]),
        blast_radius=BlastRadius(**data["blast_radius"]),
        limits=Limits(
            cool_down_ns=parse_duration(limits["cool_down"]),
            runs_per_hour=limits["runs_per_hour"],
            ineffective_runs=limits["ineffective_runs"],
        ),
        when_refused=data["when_refused"].strip(),
        platforms=tuple(data.get("platforms", ("local",))),
        phases=tuple(data.get("phases", ())),
        consent_by_level={int(level): Consent(who) for level, who in data.get("consent_by_level", {}).items()},
        never_acts=data.get("never_acts", "").strip(),
        anomaly_may_start=data.get("anomaly_may_start", False),
    )


def _step(data: dict[str, Any]) -> Step:
    return Step(
        name=data["name"],
        action=_action(data["do"]),
        undo=Undo(data["undo"]),
        proof=_proof(data["proof"]) if "proof" in data else None,
        undo_proof=_proof(data["undo_proof"]) if "undo_proof" in data else None,
    )


def _action(data: dict[str, Any]) -> Action:
    kind, fields = next(iter(data.items()))
    action: Action = msgspec.convert({"type": kind, **fields}, Action)
    return action


def _evidence(data: dict[str, Any]) -> Evidence:
    relation, expected = data["is"].split(" ")
    return Evidence(
        name=data["name"],
        query=data["query"].strip(),
        fresh=data.get("fresh", data["query"]).strip(),
        relation=Relation(relation),
        expected=float(expected),
        max_age_ns=parse_duration(data["max_age"]),
    )


def _proof(data: dict[str, Any]) -> Proof:
    return Proof(
        evidence=_evidence(data),
        holds_for_ns=parse_duration(data["holds_for"]),
        within_ns=parse_duration(data["within"]),
        poll_ns=parse_duration(data["poll"]),
        settled=data.get("settled", ""),
    )
