"""A certificate authority for trials: made once for a state, it vouches for `localhost` to those who have its file.

A real edge has a certificate of an authority that its clients know, and something that renews it. Put that one in the
place of ours and it is left alone: only what this authority issued itself is ever renewed by it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.addresses import write_atomically
from kernel.errors import PermanentError

AUTHORITY_DAYS: Final = 3650
DAYS: Final = 30
RENEW_SHARE: Final = 1 / 3
"""A certificate of ours that has less of its life left is made anew, at a start or while the edge runs."""
_EARLIER: Final = dt.timedelta(minutes=5)
"""Clocks of two machines may differ by so much."""


class TrialAuthority:
    """The authority of one directory: `ca.pem` for those who trust it, `ca-key.pem` and `edge.pem` for their owner."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made yet."""
        self.certificate: Final = directory / "ca.pem"
        self.edge: Final = directory / "edge.pem"
        """The edge's key and certificate."""
        self._key: Final = directory / "ca-key.pem"

    def prepare(self, share: float = RENEW_SHARE) -> None:
        """Make the authority and the edge's certificate where there are none, or ours has less than `share` left.

        Raises:
            PermanentError: a file there cannot be read as what it should be.
            OSError: the directory cannot be written.
        """
        if not self.certificate.exists():
            self._found()
        if not self.edge.exists() or self.is_due(share):
            write_atomically(self.edge, self.issue(dt.timedelta(days=DAYS)), mode=0o600)

    def is_ours(self) -> bool:
        """Tell whether this authority issued the edge's certificate, and could issue another.

        Raises:
            PermanentError: a file there cannot be read as what it should be.
        """
        if not self._key.exists():
            return False
        try:  # names are not enough: another state's authority bears the same
            _certificate(self.edge).verify_directly_issued_by(_certificate(self.certificate))
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def is_due(self, share: float) -> bool:
        """Tell whether the edge's certificate is ours and has less than `share` of its life left.

        Raises:
            PermanentError: a file there cannot be read as what it should be.
        """
        if not self.is_ours():
            return False
        kept = _certificate(self.edge)
        left = kept.not_valid_after_utc - dt.datetime.now(dt.UTC)
        return left < share * (kept.not_valid_after_utc - kept.not_valid_before_utc)

    def issue(self, lasting: dt.timedelta) -> bytes:
        """Return a new key and a certificate of it, for `localhost` and 127.0.0.1, as PEM.

        Raises:
            PermanentError: the authority is not ours: its key is not here.
        """
        authority, signing = _certificate(self.certificate), self._signing()
        key = ec.generate_private_key(ec.SECP256R1())
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            _builder("localhost", authority.subject, key.public_key(), lasting)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .sign(signing, hashes.SHA256())
        )
        return _pem(key) + made.public_bytes(serialization.Encoding.PEM)

    def _found(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tapewatch trial authority")])
        made = (
            _builder("Tapewatch trial authority", name, key.public_key(), dt.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_may_sign(), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_atomically(self._key, _pem(key), mode=0o600)
        write_atomically(self.certificate, made.public_bytes(serialization.Encoding.PEM))

    def _signing(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = serialization.load_pem_private_key(self._key.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise PermanentError(f"{self._key}: the authority's key cannot be read ({error})") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PermanentError(f"{self._key}: the authority's key is of another kind than ours")
        return key


def not_after(certificate: bytes) -> float:
    """Return when a certificate (DER) ends, in seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()


def pair_ends(pem: bytes) -> tuple[str, float]:
    """Return the serial number in hex and the end, in seconds since the epoch, of the first certificate of a PEM file.

    Raises:
        ValueError: it holds none.
    """
    try:
        found = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ValueError("there is no certificate in it") from error
    return f"{found.serial_number:x}", found.not_valid_after_utc.timestamp()


def leaf(pem: bytes) -> bytes:
    """Return the first certificate of a PEM file as DER.

    Raises:
        ValueError: it holds none.
    """
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def _builder(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasting: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + lasting) - _EARLIER)
        .not_valid_after(now + lasting)
    )


def _may_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PermanentError(f"{path}: the certificate cannot be read ({error})") from error


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
