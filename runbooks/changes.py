"""Changes a platform can make to what it runs, beyond ending one replica and counting them: typed, closed.

They are shaped after Kubernetes. A platform that cannot make one of them refuses it (`NOT_ALLOWED`), touching nothing.
"""

from __future__ import annotations

import msgspec


class RollingRestart(msgspec.Struct, frozen=True, tag="rolling_restart"):
    """Start every replica of a workload anew, a few at a time, within its disruption budget."""

    workload: str


class RollBack(msgspec.Struct, frozen=True, tag="roll_back"):
    """Give a workload the revision it had before its present one."""

    workload: str


class PauseRollout(msgspec.Struct, frozen=True, tag="pause_rollout"):
    """Let a rollout go no further."""

    workload: str


class ResumeRollout(msgspec.Struct, frozen=True, tag="resume_rollout"):
    """Let a paused rollout go on."""

    workload: str


class DeleteReplica(msgspec.Struct, frozen=True, tag="delete_replica"):
    """Remove a replica that is being ended and does not end."""

    workload: str
    replica: str


class FailOver(msgspec.Struct, frozen=True, tag="fail_over"):
    """Let the other replica of a pair take over from `replica`, which is ended and fenced first."""

    workload: str
    replica: str
    """Who takes writes no longer."""


class Cordon(msgspec.Struct, frozen=True, tag="cordon"):
    """Let nothing new start on a node."""

    node: str


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Move what runs on a cordoned node elsewhere, one replica at a time, within the disruption budgets."""

    node: str


class RunJob(msgspec.Struct, frozen=True, tag="run_job"):
    """Run a job once, made from a template (a CronJob) that the platform holds."""

    job: str


class SetFlag(msgspec.Struct, frozen=True, tag="set_flag"):
    """Set one flag of a configuration."""

    config: str
    flag: str
    value: str


class RestoreConfig(msgspec.Struct, frozen=True, tag="restore_config"):
    """Give a configuration the contents that were last known to be good."""

    config: str


class SwitchService(msgspec.Struct, frozen=True, tag="switch_service"):
    """Let a service lead to the replicas of another colour."""

    service: str
    colour: str


class TakeBack(msgspec.Struct, frozen=True, tag="take_back"):
    """Restore exactly what the action with the key `of` changed, unless someone else has written in between."""

    target: str
    """What that action acted on, as `target_of` tells it."""
    of: str


Change = (
    RollingRestart
    | RollBack
    | PauseRollout
    | ResumeRollout
    | DeleteReplica
    | FailOver
    | Cordon
    | Drain
    | RunJob
    | SetFlag
    | RestoreConfig
    | SwitchService
)


def target_of(change: Change) -> str:
    """Return what a change acts on: `gateway`, `gateway/gateway-abc`, `node:n1`, `config:c`, `service:s` or `job:j`."""
    match change:
        case RollingRestart() | RollBack() | PauseRollout() | ResumeRollout():
            return change.workload
        case DeleteReplica() | FailOver():
            return f"{change.workload}/{change.replica}"
        case Cordon() | Drain():
            return f"node:{change.node}"
        case RunJob():
            return f"job:{change.job}"
        case SetFlag() | RestoreConfig():
            return f"config:{change.config}"
        case SwitchService():
            return f"service:{change.service}"


def describe_change(change: Change | TakeBack) -> str:  # noqa: C901, PLR0911, PLR0912 - one line for each
    """Say what a change does, as a phrase that follows "to"."""
    match change:
        case RollingRestart():
            return f"restart {change.workload} a few replicas at a time"
        case RollBack():
            return f"roll {change.workload} back to its previous revision"
        case PauseRollout():
            return f"pause the rollout of {change.workload}"
        case ResumeRollout():
            return f"resume the rollout of {change.workload}"
        case DeleteReplica():
            return f"delete {change.replica or 'no replica'} of {change.workload}, which does not end"
        case FailOver():
            return f"fail {change.workload or 'no workload'} over from {change.replica or 'no replica'}"
        case Cordon():
            return f"cordon the node {change.node}"
        case Drain():
            return f"drain the node {change.node}"
        case RunJob():
            return f"run the job {change.job}"
        case SetFlag():
            return f"set {change.flag} of {change.config} to {change.value!r}"
        case RestoreConfig():
            return f"restore {change.config} to its last good contents"
        case SwitchService():
            return f"switch the service {change.service} to {change.colour}"
        case TakeBack():
            return f"take back on {change.target} what {change.of} changed"
