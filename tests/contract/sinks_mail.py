"""A local mail server that keeps what it is sent, and refuses as it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Mailbox:
    port: int = 0
    answers: list[str] = field(default_factory=list)
    """What the next messages are answered once they are whole, such as `451 try again later`; after them 250."""
    doors: list[str] = field(default_factory=list)
    """What the next recipients are answered; after them 250."""
    tried: int = 0
    kept: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - its name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.doors:
            return self.doors.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        self.tried += 1
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.kept.append(message)
        self.recipients += envelope.rcpt_tos
        return "250 kept"


@contextlib.contextmanager
def mailbox(port: int) -> Iterator[Mailbox]:
    made = Mailbox(port)
    controller = Controller(made, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield made
    finally:
        controller.stop()
