"""Who we are at Elasticsearch: read from the settings and the files they name."""

from __future__ import annotations

from pathlib import Path

from control.settings import Settings
from kernel.errors import InputError
from monitor.adapters.elastic_client import Access


def access_of(settings: Settings, url: str = "") -> Access:
    """Return the access that the settings tell of; `url` comes before theirs.

    Raises:
        InputError: no Elasticsearch is named, or a file of credentials cannot be read.
    """
    where = url or settings.elastic_url
    if not where:
        raise InputError(
            "setting elastic_url (TAPEWATCH_ELASTIC_URL)", "is not given",
            right="name an Elasticsearch such as https://logs.example:9200, or start one with `tapewatch elk up`",
        )  # fmt: skip
    password = _secret("elastic_password_file", settings.elastic_password_file)
    api_key = _secret("elastic_api_key_file", settings.elastic_api_key_file)
    if settings.elastic_user and not password:
        raise InputError("setting elastic_user", "has no password", right="name its file with elastic_password_file")
    if password and not settings.elastic_user:
        raise InputError("setting elastic_password_file", "has no user", right="name the user with elastic_user")
    ca = settings.elastic_ca_file
    if ca is not None and not ca.is_file():
        raise InputError(f"setting elastic_ca_file: {ca}", "is no file")
    return Access(where, settings.elastic_user, password, api_key, ca)


def _secret(setting: str, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"setting {setting}: {path}", f"cannot be read: {error}") from error
    if not lines or not lines[0].strip():
        raise InputError(f"setting {setting}: {path}", "is empty", right="its first line is the secret")
    return lines[0].strip()
