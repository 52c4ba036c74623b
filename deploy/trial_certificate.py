"""Make a certificate for trials of the edge: `python deploy/trial_certificate.py FILE`, key and certificate in one PEM.

It vouches for `localhost` and 127.0.0.1, by itself, for a month. A real edge has one of an authority that its clients
know, and something that renews it.
"""  # noqa: INP001 - a script

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import sys
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS: Final = 30
_USAGE: Final = "usage: python deploy/trial_certificate.py FILE"


def make() -> bytes:
    """Return a private key and a certificate of it as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)


def main(words: list[str]) -> int:
    """Write the file, for its owner alone; return the exit code."""
    if len(words) != 1:
        sys.stderr.write(_USAGE + "\n")
        return 2
    path = Path(words[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(make())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
