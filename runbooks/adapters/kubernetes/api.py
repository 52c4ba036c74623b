"""Speaking to an API server: one request, one typed answer, and errors that say whether trying again helps.

The official client reads the kubeconfig, keeps tokens fresh and holds the connections. Answers are decoded here, into
small values of our own: what is not read is not kept, and a thousand Deployments stay small.

Rules:
1. Every request has a timeout. The library has none by default, and a stopped API server would hang its caller.
2. Nothing is repeated here. urllib3 would send a PUT again by itself, and a write whose answer was lost would end in a
   conflict with itself. Whoever asks decides, after reading back.
3. An answer that did not come leaves a write *unknown*, never failed: `NoAnswerError.may_be_done`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import SECOND, Duration, Instant

T = TypeVar("T")

FIELD_MANAGER: Final = "tapewatch"
"""Who we are in `managedFields`."""
CONNECT_S: Final = 2.0
READ_S: Final = 5.0
"""An API server answers in milliseconds; etcd's own limit for a healthy write is a second."""
THREADS: Final = 12
BUSY_PAUSE: Final = Duration(SECOND)
"""How long to wait after a 429 that does not say."""
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""Server-side apply; JSON is YAML."""


class Cause(msgspec.Struct, frozen=True, rename="camel"):
    """One cause in a refusal."""

    reason: str = ""
    message: str = ""
    field: str = ""


class Details(msgspec.Struct, frozen=True, rename="camel"):
    """What a refusal is about."""

    name: str = ""
    kind: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after_seconds: int = 0


class Refused(msgspec.Struct, frozen=True, rename="camel"):
    """The API server's `Status` object."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details = Details()


class ApiError(PermanentError):
    """The API server refused; trying the same again changes nothing."""

    def __init__(self, code: int, refused: Refused, what: str) -> None:
        super().__init__(f"the API server refused to {what}: {refused.message or refused.reason or code}")
        self.code = code
        self.refused = refused


class GoneError(ApiError):
    """404: there is no such object (or kind)."""


class ForbiddenError(ApiError):
    """401 or 403: we may not."""


class ConflictError(ApiError):
    """409: the object is not what the write was made for, exists already, or another field manager owns a field."""

    @property
    def managers(self) -> tuple[str, ...]:
        """What other field managers were said to own the fields, in the server's words."""
        return tuple(c.message for c in self.refused.details.causes if c.reason == "FieldManagerConflict")


class ExpiredError(ApiError):
    """410: the version asked for is no longer known; list anew."""


class BudgetBlockedError(ApiError):
    """429 of an eviction: a PodDisruptionBudget allows no disruption now."""


class BusyError(TemporaryError):
    """429 or 503: the API server has too much to do; it did nothing."""


class NoAnswerError(TemporaryError):
    """No answer came. `may_be_done` tells whether the request may have been carried out all the same."""

    def __init__(self, message: str, *, may_be_done: bool) -> None:
        super().__init__(message, retry_after=BUSY_PAUSE)
        self.may_be_done = may_be_done


def connect(kubeconfig: Path | None = None, context: str = "") -> Configuration:
    """Read how to reach a cluster: a kubeconfig (the usual ones when None), or the pod's own account inside one.

    Raises:
        InputError: there is none, it is broken, or it has no such context.
    """
    configuration = Configuration()
    where = str(kubeconfig or "kubeconfig")
    try:
        if kubeconfig is None and not context and _in_cluster():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the library's
        else:
            load_kube_config(  # type: ignore[no-untyped-call]  # the library's
                config_file=None if kubeconfig is None else str(kubeconfig),
                context=context or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, YAMLError, OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        right = "name a kubeconfig and a context in it (`kubectl config get-contexts` lists them)"
        raise InputError(where, f"is no way to a cluster ({why})", right=right) from error
    configuration.retries = False  # rule 2
    if _is_loopback(configuration.host):
        configuration.proxy = None  # the environment's proxy would be asked even for this machine
    return configuration


def _in_cluster() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Api:
    """A connection to one API server. An async context manager, or call `close`."""

    def __init__(self, configuration: Configuration, *, read_s: float = READ_S, threads: int = THREADS) -> None:
        """Remember how to reach it; nothing is sent yet. `read_s`: how long an answer may take, in seconds."""
        self._configuration = configuration
        configuration.connection_pool_maxsize = threads
        self._pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        self._timeout = urllib3.Timeout(connect=CONNECT_S, read=read_s)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kubernetes")
        self._auth = threading.Lock()
        self.url: str = configuration.host

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.clear()

    async def get(self, path: str, kind: type[T], **query: str) -> T:
        """Read `path`.

        Raises:
            ApiError: it is refused, or is not there (`GoneError`).
            TemporaryError: no answer that can be used.
        """
        return await self._in_thread(lambda: self.ask("GET", path, kind, None, JSON, query))

    async def send(
        self,
        method: str,
        path: str,
        body: object,
        kind: type[T],
        *,
        content_type: str = JSON,
        **query: str,
    ) -> T:
        """Write to `path` once; `dryRun="All"` in the query lets the server check everything and keep nothing.

        Raises:
            ApiError: it is refused; nothing was changed.
            NoAnswerError: whether it was carried out is not known.
            BusyError: the server was too busy; nothing was changed.
        """
        return await self._in_thread(lambda: self.ask(method, path, kind, body, content_type, query))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def certificates(self) -> dict[str, Instant]:
        """Return when the API server's own certificate (`server`) and the first of its authorities (`authority`) end.

        Raises:
            NoAnswerError: it does not answer.
        """
        return await self._in_thread(self._certificates)

    def _certificates(self) -> dict[str, Instant]:
        where = urlsplit(self.url)
        context = ssl.create_default_context(cafile=self._configuration.ssl_ca_cert)
        try:
            address = (where.hostname or "", where.port or 443)
            with (
                socket.create_connection(address, CONNECT_S) as plain,
                context.wrap_socket(plain, server_hostname=where.hostname) as tls,
            ):
                server = tls.getpeercert() or {}
        except OSError as error:
            raise NoAnswerError(f"the certificate of {self.url} cannot be seen: {error}", may_be_done=False) from error
        ends = {"server": [server], "authority": context.get_ca_certs()}
        return {name: found for name, certificates in ends.items() if (found := _first_end(certificates))}

    def ask(
        self, method: str, path: str, kind: type[T], body: object, content_type: str, query: Mapping[str, str]
    ) -> T:
        """Ask in this thread; as `get` and `send`."""
        what = f"{method} {path}"
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": content_type}
        response = self._request(method, self._where(path, query), data, headers, self._timeout)
        if response.status >= 300:  # noqa: PLR2004 - HTTP's own number
            raise _error(response, method, what)
        try:
            return msgspec.json.decode(response.data, type=kind)
        except msgspec.DecodeError as error:
            raise PermanentError(f"the API server answered {what} with something unknown: {error}") from error

    def stream(self, path: str, query: Mapping[str, str], *, idle_s: float) -> Generator[bytes, None, None]:
        """Yield the lines of a watch until the server ends it; in this thread.

        Raises:
            ApiError, TemporaryError: it was refused, or went silent for `idle_s` seconds.
        """
        what = f"watch {path}"
        timeout = urllib3.Timeout(connect=CONNECT_S, read=idle_s)
        response = self._request("GET", self._where(path, query), None, {}, timeout, preload=False)
        try:
            if response.status >= 300:  # noqa: PLR2004 - HTTP's own number
                raise _error(response, "GET", what)
            yield from _lines(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswerError(f"{what} broke off: {_why(error)}", may_be_done=False) from error
        finally:
            response.close()

    def _where(self, path: str, query: Mapping[str, str]) -> str:
        return self.url + path + (f"?{urlencode(query)}" if query else "")

    def _request(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: urllib3.Timeout,
        *,
        preload: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        sent = {"Accept": JSON, "User-Agent": FIELD_MANAGER, **headers, **self._authorization()}
        try:
            return self._pool.request(
                method, url, body=data, headers=sent, timeout=timeout, retries=False, redirect=False,
                preload_content=preload,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _no_answer(error, method, f"{method} {urlsplit(url).path}", self.url) from error

    def _authorization(self) -> dict[str, str]:
        with self._auth:  # a token that has run out is renewed once, not by every thread
            settings: Any = self._configuration.auth_settings()
        token = settings.get("BearerToken", {}).get("value")
        return {"Authorization": token} if token else {}


def _first_end(certificates: Sequence[Mapping[str, Any]]) -> Instant | None:
    """Return when the first of some certificates ends; None when none says."""
    ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in certificates if "notAfter" in one]
    return Instant(round(min(ends)) * SECOND) if ends else None


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    kept = b""
    for part in response.stream(65_536):
        *lines, kept = (kept + part).split(b"\n")
        yield from lines


def _no_answer(error: Exception, method: str, what: str, url: str) -> NoAnswerError:
    never_sent = isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
    return NoAnswerError(
        f"the API server at {url} does not answer {what}: {_why(error)}",
        may_be_done=method != "GET" and not never_sent,
    )


def _why(error: Exception) -> str:
    cause = getattr(error, "reason", None)
    return f"{type(error).__name__}: {str(cause or error)[:200]}"


def _error(response: urllib3.BaseHTTPResponse, method: str, what: str) -> Exception:
    """Return the error an answer of 300 and above means."""
    code = response.status
    try:
        refused = msgspec.json.decode(response.data, type=Refused)
    except (msgspec.DecodeError, urllib3.exceptions.HTTPError, OSError):
        refused = Refused(message=f"HTTP {code}", code=code)  # an overloaded server answers in plain text
    if code == 429 and any(cause.reason == "DisruptionBudget" for cause in refused.details.causes):  # noqa: PLR2004
        return BudgetBlockedError(code, refused, what)
    if code in {429, 503}:
        pause = response.headers.get("Retry-After", "")
        wait = Duration(int(pause) * SECOND) if pause.isdigit() else BUSY_PAUSE
        return BusyError(f"the API server is too busy for {what}: {refused.message}", retry_after=wait)
    if code >= 500:  # noqa: PLR2004 - HTTP's own number
        # 504 is the server's own limit: etcd may have carried the write out all the same.
        return NoAnswerError(f"{what} was answered {code}: {refused.message}", may_be_done=method != "GET")
    kinds = {401: ForbiddenError, 403: ForbiddenError, 404: GoneError, 409: ConflictError, 410: ExpiredError}
    return kinds.get(code, ApiError)(code, refused, what)
