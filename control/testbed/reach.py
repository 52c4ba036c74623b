"""Whether a cluster of a kubeconfig can be reached, which one it is, and what its nodes say. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from control.addresses import HOST
from kernel.errors import InputError, PermanentError, TemporaryError

_TIMEOUT_S: Final = (3.0, 5.0)
"""For the connection and for the answer."""


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster that answered."""

    server: str
    version: str
    """Such as `v1.36.3`."""
    cluster_id: str
    """The uid of the namespace kube-system: it is another in every cluster, and outlasts every change of name."""
    nodes: dict[str, bool]
    """Ready or not."""


def reach(kubeconfig: Path | None = None, context: str = "") -> Reached:
    """Ask a cluster who it is. None is the kubeconfig that kubectl would use; an empty context the current one.

    Raises:
        InputError: there is no such kubeconfig or context.
        TemporaryError: nothing answers there.
        PermanentError: it answers, and refuses.
    """
    from kubernetes import client  # with its models it takes a second that no other verb should wait
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    api = _client(kubeconfig, context)
    server = str(api.configuration.host)
    try:
        core: Any = client.CoreV1Api(api)
        version: Any = client.VersionApi(api).get_code(_request_timeout=_TIMEOUT_S)
        system = core.read_namespace("kube-system", _request_timeout=_TIMEOUT_S)
        nodes = core.list_node(_request_timeout=_TIMEOUT_S)
    except ApiException as error:
        raise PermanentError(_refused(server, error)) from error
    except (HTTPError, OSError) as error:
        why = str(getattr(error, "reason", None) or error).rpartition(": ")[2]
        raise TemporaryError(f"the cluster at {server} cannot be reached: {why}") from error
    finally:
        api.close()
    ready = {one.metadata.name: any(c.type == "Ready" and c.status == "True" for c in one.status.conditions or ())
             for one in nodes.items}  # fmt: skip
    return Reached(server=server, version=version.git_version, cluster_id=system.metadata.uid, nodes=ready)


def _client(kubeconfig: Path | None, context: str) -> Any:
    from kubernetes import client
    from kubernetes import config as library

    config: Any = library  # it has no types here
    where = f"kubeconfig {kubeconfig or 'of kubectl (KUBECONFIG, ~/.kube/config)'}"
    if kubeconfig is not None and not kubeconfig.is_file():
        raise InputError(where, "is not there", right="name another with --kubeconfig")
    wanted = client.Configuration()
    path = None if kubeconfig is None else str(kubeconfig)
    try:
        config.load_kube_config(path, context or None, wanted, persist_config=False)
    except library.ConfigException as error:
        raise InputError(
            where, str(error).strip(), right="`kubectl config get-contexts` shows what it holds"
        ) from error
    except Exception as error:  # a broken file: the YAML reader's and the library's own errors, of many kinds
        raise InputError(where, f"cannot be read: {_first_line(error)}", right="restore it") from error
    wanted.retries = False  # it would ask four times, each with the whole timeout
    if urlsplit(wanted.host).hostname in {HOST, "localhost", "::1"}:
        wanted.proxy = None  # no proxy leads to this machine itself
    return client.ApiClient(wanted)


def _refused(server: str, error: Any) -> str:
    known = {401: "the credentials are not, or no longer, valid", 403: "these credentials may not see it"}
    return f"the cluster at {server} refuses: {known.get(error.status, f'{error.status} {error.reason}')}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
