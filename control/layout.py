"""Where things lie below an estate's state directory. One place, so that every process agrees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE_VERSION: Final = 1


@dataclass(frozen=True)
class Layout:
    """The paths of one estate."""

    root: Path

    @property
    def version(self) -> Path:
        """A text file with the layout's version number."""
        return self.root / "version"

    @property
    def lock(self) -> Path:
        """Held (flock) by the process that runs the estate; its text names the holder."""
        return self.root / "lock"

    @property
    def addresses(self) -> Path:
        """JSON: who runs, and every address (`control.estate.Addresses`); renamed into place."""
        return self.root / "estate.json"

    @property
    def kill_switch(self) -> Path:
        """JSON: present while automatic actions are forbidden; written with fsync and rename."""
        return self.root / "kill-switch.json"

    @property
    def journal(self) -> Path:
        """Directory of the exchange's command journal."""
        return self.root / "exchange" / "journal"

    @property
    def events(self) -> Path:
        """Directory of the exchange's event log (derived from the journal, rebuilt when short)."""
        return self.root / "exchange" / "events"

    @property
    def snapshots(self) -> Path:
        """Directory of the engine's snapshots."""
        return self.root / "exchange" / "snapshots"

    @property
    def ledger(self) -> Path:
        """SQLite: the settlement ledger."""
        return self.root / "settlement" / "ledger.sqlite"

    @property
    def notices(self) -> Path:
        """SQLite: notices that were told, where the ledger is SQLite."""
        return self.root / "settlement" / "notices.sqlite"

    def saga(self, part: str) -> Path:
        """SQLite: what one part of settlement by sagas keeps."""
        return self.root / "settlement" / f"saga-{part}.sqlite"

    @property
    def postgres_pair(self) -> Path:
        """JSON: which of the two PostgreSQL servers is the primary (`control.servers.postgres_pair`)."""
        return self.root / "postgres" / "pair.json"

    @property
    def incidents(self) -> Path:
        """SQLite: signals, incidents, timelines, runs."""
        return self.root / "control" / "incidents.sqlite"

    @property
    def pages(self) -> Path:
        """SQLite: pages to people, and what became of them."""
        return self.root / "bridge" / "pages.sqlite"

    @property
    def shipper(self) -> Path:
        """Directory of the shipper: how far each log file is done, and the dead letters."""
        return self.root / "shipper"

    @property
    def log_rules(self) -> Path:
        """What log rules remember between two turns."""
        return self.root / "log-watch" / "rules.json"

    @property
    def anomaly(self) -> Path:
        """Directory of the detectors: what they have learnt, and what people said of their pages."""
        return self.root / "anomaly"

    @property
    def verdicts(self) -> Path:
        """Where processes tell each other which orders' traces are kept whole."""
        return self.root / "verdicts"

    @property
    def logs(self) -> Path:
        """Directory of every replica's log."""
        return self.root / "logs"

    @property
    def effects(self) -> Path:
        """The estate's journal of carried-out writes, by key."""
        return self.root / "estate" / "effects.log"

    @property
    def taken_over(self) -> Path:
        """JSON: this region has taken over from the one it followed, and follows nobody any more."""
        return self.root / "estate" / "taken-over.json"

    @property
    def followed_listing(self) -> Path:
        """What is traded in the region that this one follows, as its engine said it last."""
        return self.root / "estate" / "followed-instruments.json"

    @property
    def faults(self) -> Path:
        """Faults injected on purpose, one JSON line each: `{"name", "at"}`."""
        return self.root / "control" / "faults.jsonl"

    @property
    def letter_deeds(self) -> Path:
        """What people did with dead letters, one JSON line each, the letter in it. Mode 0600."""
        return self.root / "control" / "dead-letters.jsonl"

    @property
    def kube(self) -> Path:
        """Directory of the Kubernetes test bed, on Kubernetes: its logs, accounts and audit log."""
        return self.root / "kube"

    @property
    def reports(self) -> Path:
        """Post-mortems."""
        return self.root / "reports"

    @property
    def load(self) -> Path:
        """What the load generator sent and was answered, one JSON line a request."""
        return self.root / "load"

    def secret(self, name: str) -> Path:
        """Return a secret's file, mode 0600.

        `admin`, `trade`, `webhook` (bearer tokens), `timeline` (chain key); passwords: `postgres`, `rabbitmq`.
        """
        return self.root / "secrets" / name

    @property
    def edge(self) -> Path:
        """Directory: `ca.pem`, the authority of the edge's certificate for those who trust it; keys, mode 0600."""
        return self.root / "edge"

    @property
    def token_keys(self) -> Path:
        """JWK set: the keys by which gateways check signed tokens. Mode 0600: it may hold shared keys."""
        return self.root / "secrets" / "token-keys.json"

    @property
    def token_signing(self) -> Path:
        """JWK set: the keys that sign tokens, the present one first. Mode 0600; no process of the exchange reads it."""
        return self.root / "secrets" / "token-signing.json"

    @property
    def sessions(self) -> Path:
        """Directory: which sessions' orders each gateway is still to cancel, a file each."""
        return self.root / "gateway"

    def config(self, replica: str) -> Path:
        """Return a replica's configuration file."""
        return self.root / "config" / f"{replica}.json"

    def log(self, replica: str) -> Path:
        """Return a replica's log: ECS JSON lines."""
        return self.root / "logs" / f"{replica}.jsonl"

    def output(self, replica: str) -> Path:
        """Return where a replica's standard output and error go."""
        return self.root / "logs" / f"{replica}.out"
