"""A server that does nothing but live: what a server host is tried on."""

from __future__ import annotations

import subprocess


class HostedSleeper:
    """A child that sleeps; it is ready when it runs."""

    refuses: str = ""
    """Why it cannot be started; empty: it can."""

    def __init__(self, config):
        self.config = config
        self.process = None
        self.observed = 0

    def start(self):
        from kernel.errors import PermanentError

        if type(self).refuses:
            raise PermanentError(type(self).refuses)
        self.process = subprocess.Popen(["sleep", "1000"])

    def ready(self):
        return self.process.poll() is None, "it sleeps"

    def ended(self):
        return "" if self.process.poll() is None else f"the sleeper ended with {self.process.returncode}"

    def observe(self, exporter):
        self.observed += 1
        if self.observed == 1:
            raise ValueError("a client library's own error")

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def routes(self, admin_secret):
        return ()
