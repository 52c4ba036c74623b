"""What a runbook is: closed sets of frozen values, read from YAML by `runbooks.adapters.yaml_library`.

A runbook says which alerts it answers, what must be true before anything is touched (guards), what is done (steps),
which reading proves that it helped, how it is undone, and the bounds it may never exceed. Evidence is PromQL with an
expected relation and a maximum age of the data; missing, stale, partial or NaN data never counts as true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from kernel.time import Duration, Instant
from runbooks.changes import Change, TakeBack

OF_DETECTORS: Final = frozenset({"SeriesAnomalous"})
"""Alerts that stand on a detector's word alone. They start only what is marked as safe for it."""


class Outcome(StrEnum):
    """How a run ended."""

    MENDED = "mended"
    NOT_APPLICABLE = "not_applicable"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_PROVEN = "not_proven"
    UNDONE = "undone"


class Consent(StrEnum):
    """Who must agree before a runbook acts."""

    AUTOMATIC = "automatic"
    ONE_APPROVER = "one_approver"
    FOUR_EYES = "four_eyes"


class Relation(StrEnum):
    """How a reading is compared with the expected number."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


_COMPARE: Final[dict[Relation, Callable[[float, float], bool]]] = {
    Relation.EQ: operator.eq,
    Relation.NE: operator.ne,
    Relation.LT: operator.lt,
    Relation.LE: operator.le,
    Relation.GT: operator.gt,
    Relation.GE: operator.ge,
}


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A PromQL expression and what it must say."""

    name: str
    query: str
    fresh: str
    """Selects the series whose latest samples must be young enough."""
    relation: Relation
    expected: float
    max_age_ns: Duration

    def holds(self, value: float) -> bool:
        """Tell whether a reading says what it should. NaN never does."""
        return value == value and _COMPARE[self.relation](value, self.expected)  # noqa: PLR0124 - the test for NaN


class Otherwise(StrEnum):
    """What a guard that does not hold means for the run."""

    NOT_APPLICABLE = "not_applicable"
    REFUSED = "refused"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that must hold before anything is touched. Unknown evidence always refuses."""

    evidence: Evidence
    otherwise: Otherwise = Otherwise.REFUSED


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that must hold without a break for `holds_for_ns`, reached within `within_ns` after the action.

    Only data younger than the action counts.
    """

    evidence: Evidence
    holds_for_ns: Duration
    within_ns: Duration
    poll_ns: Duration
    settled: str = ""
    """A workload (`gateway`) or node (`node:n1`) that the platform, too, must call settled; empty: none is asked."""


# --- actions: typed, closed; there is no shell and no free text ---------------------------------------------------


class RestartReplica(msgspec.Struct, frozen=True, tag="restart_replica"):
    """End one replica's process and start it anew."""

    workload: str
    replica: str


class Scale(msgspec.Struct, frozen=True, tag="scale"):
    """Change how many replicas a workload has by `by`, never below `minimum` or above `maximum`."""

    workload: str
    by: int
    minimum: int
    maximum: int


class SetReplicas(msgspec.Struct, frozen=True, tag="set_replicas"):
    """Set how many replicas a workload has: what undoing a `Scale` asks for. `only_if` must still be the count."""

    workload: str
    replicas: int
    only_if: int


class HaltSymbol(msgspec.Struct, frozen=True, tag="halt_symbol"):
    """Stop trading in one symbol."""

    symbol: str
    reason: str


class ResumeSymbol(msgspec.Struct, frozen=True, tag="resume_symbol"):
    """Let trading in one symbol go on."""

    symbol: str


class HaltMarket(msgspec.Struct, frozen=True, tag="halt_market"):
    """Stop trading everywhere."""

    reason: str


class ResumeMarket(msgspec.Struct, frozen=True, tag="resume_market", omit_defaults=True):
    """Lift the market-wide halt."""

    replica: str = ""
    """Of several engines the one whose symbols trade again; empty: all."""


class VerifyReplay(msgspec.Struct, frozen=True, tag="verify_replay", omit_defaults=True):
    """Replay the journal independently; it must give the state hash the running engine reports. Touches nothing."""

    workload: str
    replica: str = ""
    """Of several engines the one whose journal is meant; empty: each."""


class KeepSnapshot(msgspec.Struct, frozen=True, tag="keep_snapshot"):
    """Let a stateful workload keep a snapshot of its state now. Touches nothing else."""

    workload: str


Action = (
    RestartReplica
    | Scale
    | SetReplicas
    | HaltSymbol
    | ResumeSymbol
    | HaltMarket
    | ResumeMarket
    | VerifyReplay
    | KeepSnapshot
    | Change
    | TakeBack
)


class Undo(StrEnum):
    """How a step is taken back when its proof does not come true."""

    NOTHING = "nothing"
    """There is nothing to take back (a restart, a verification), and the timeline says so."""
    RESTORE_REPLICAS = "restore_replicas"
    RESUME_SYMBOL = "resume_symbol"
    RESTORE = "restore"
    """The platform restores exactly what the step changed (revision, pause, flag, service, cordon)."""
    KEEP = "keep"
    """Staying as it is is the safe side (a halt): a person decides."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One action, the proof that it helped and how it is taken back."""

    name: str
    action: Action
    undo: Undo
    proof: Proof | None = None
    undo_proof: Proof | None = None


class BlastRadius(msgspec.Struct, frozen=True, kw_only=True):
    """What a run may touch at most. Exceeding it refuses the run."""

    replicas: int = 0
    symbols: int = 0
    market: bool = False
    """Whether the whole market may be halted or reopened."""
    unhealthy_share: float = 0.5
    """When more than this share of all exchange replicas is not ready, the observer is suspected first."""
    nodes: int = 0
    volume_share: float | None = None
    """The share of order volume that may go through what is touched at once; None: not looked at."""
    symbols_served: int | None = None
    """How many symbols what is touched may serve; None: not looked at."""
    notional: int | None = None
    """The open notional, in ticks times lots, that may rest on what is touched; None: not looked at."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How often a runbook may run for one target."""

    cool_down_ns: Duration
    runs_per_hour: int
    ineffective_runs: int
    """After so many runs without proof within the hour, a person takes over."""


class Runbook(msgspec.Struct, frozen=True, kw_only=True):
    """One runbook, parameters already bound to the alert's labels (see `bind`)."""

    name: str
    title: str
    answers: tuple[str, ...]
    service: str
    team: str
    level: int
    consent: Consent
    parameters: Mapping[str, str]
    """Parameter name to the alert label it is taken from."""
    guards: tuple[Guard, ...]
    steps: tuple[Step, ...]
    blast_radius: BlastRadius
    limits: Limits
    when_refused: str
    """What a person is told to do when the runbook does not, or does not help."""
    platforms: tuple[str, ...] = ("local",)
    """Where it can run: `local`, `kubernetes`."""
    phases: tuple[str, ...] = ()
    """Market phases in which it may act; empty: every phase the rails allow."""
    consent_by_level: Mapping[int, Consent] = {}
    """Who must agree at an incident's level, where that differs from `consent`."""
    never_acts: str = ""
    """Why no automatic action is right here; such a runbook has no steps and always asks a person."""
    anomaly_may_start: bool = False
    """Whether an anomaly alone may start it: a detector's word is evidence for looking, not for acting."""


# --- questions and answers ----------------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True, tag="read"):
    """Ask the monitoring system."""

    evidence: Evidence
    purpose: str
    """`guard`, `proof`, `undo_proof`."""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Ask people for consent."""

    consent: Consent
    what: str


class Look(msgspec.Struct, frozen=True, tag="look"):
    """Ask the platform whether a workload or node has settled."""

    target: str
    purpose: str


class Permit(msgspec.Struct, frozen=True, tag="permit"):
    """Ask the policy (kill switch, radius, rates, phase) whether the next action may start."""

    action: Action
    undo: bool = False
    plan: str = ""
    """The digest of the plan that people approved; when the facts it was made on have changed, nothing is permitted."""


class Do(msgspec.Struct, frozen=True, tag="do"):
    """Carry an action out, at most once for `key`."""

    action: Action
    key: str
    undo: bool = False


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """Come back later."""

    until: Instant


Question = Read | Look | Ask | Permit | Do | Wait


class ReadAnswer(msgspec.Struct, frozen=True, tag="read_answer"):
    """What the monitoring system said. `value` is None when it has no answer that may be acted on."""

    at: Instant
    value: float | None
    data_at: Instant | None
    unknown: str = ""
    detail: str = ""


class LookAnswer(msgspec.Struct, frozen=True, tag="look_answer"):
    """What the platform said. `settled` is None when it has no answer that may be acted on."""

    at: Instant
    settled: bool | None
    seen_at: Instant | None = None
    """When the platform's facts were seen."""
    restarts: int = 0
    """How often replicas have been started anew by the platform itself, all told."""
    detail: str = ""


class AskAnswer(msgspec.Struct, frozen=True, tag="ask_answer"):
    """What people said."""

    at: Instant
    granted: bool
    by: tuple[str, ...] = ()
    detail: str = ""
    plan: str = ""
    """The digest of the plan they approved."""


class PermitAnswer(msgspec.Struct, frozen=True, tag="permit_answer"):
    """What the policy said; `reason` is a `RefusalReason` when it refused."""

    at: Instant
    granted: bool
    reason: str = ""
    detail: str = ""


class DoAnswer(msgspec.Struct, frozen=True, tag="do_answer"):
    """What became of an action. `before` and `after` are facts of the target, for undo, timeline and report."""

    at: Instant
    ok: bool
    before: Mapping[str, str] = {}
    after: Mapping[str, str] = {}
    error: str = ""
    refused: str = ""
    """A `RefusalReason` when a rail stopped the action at the last moment; then nothing was touched."""


class WaitAnswer(msgspec.Struct, frozen=True, tag="wait_answer"):
    """Time has passed."""

    at: Instant


Answer = ReadAnswer | LookAnswer | AskAnswer | PermitAnswer | DoAnswer | WaitAnswer


class RefusalReason(StrEnum):
    """Why a run or an action was refused: value, log field, metric label and report word at once."""

    KILL_SWITCH = "kill_switch"
    GUARD_NOT_MET = "guard_not_met"
    NO_EVIDENCE = "no_evidence"
    COOL_DOWN = "cool_down"
    TOO_MANY_RUNS = "too_many_runs"
    INEFFECTIVE = "ineffective"
    BLAST_RADIUS = "blast_radius"
    UNHEALTHY_SHARE = "unhealthy_share"
    NOT_ALLOWED = "not_allowed"
    SINGLETON = "singleton"
    NO_TARGET = "no_target"
    NO_CONSENT = "no_consent"
    CONFLICT = "conflict"
    RUN_IN_PROGRESS = "run_in_progress"
    OWNED = "owned"
    """Another controller or person owns what would be changed."""
    STATE_UNSAFE = "state_unsafe"
    """A stateful workload would be touched in a way that can lose state."""
    FOUR_EYES = "four_eyes"
    MARKET_PHASE = "market_phase"
    MIXED_VERSIONS = "mixed_versions"
    DISRUPTION_BUDGET = "disruption_budget"
    NOT_LEADER = "not_leader"
    WRONG_CLUSTER = "wrong_cluster"
    PLAN_CHANGED = "plan_changed"
    PERSON_ONLY = "person_only"
    ANOMALY_ALONE = "anomaly_alone"
    """Nothing but a detector asks for it, and the runbook is not marked as safe for that."""


class Refusal(NamedTuple):
    """A refusal by a rule: the reason for machines, the detail for people."""

    reason: RefusalReason
    detail: str


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    outcome: Outcome
    reason: str
    """A `RefusalReason` where one applies, otherwise empty."""
    detail: str
    """A sentence or more for people: what was seen, what was taken back, what remains changed."""
    mended_at: Instant | None = None
    """When the reading arrived that completed the last proof; only of a mended run."""
    undone: bool = False
    """True when something was to be taken back and all of it was."""
