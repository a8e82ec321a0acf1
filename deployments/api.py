"""The Prefect API that settings name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError

from lifeboat.errors import PermanentError, TransientError
from lifeboat.settings.prefect import PrefectSettings

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class PrefectUnreachable(TransientError):
    """The Prefect API does not answer."""


class PrefectRefused(PermanentError):
    """The Prefect API refuses a request: its login, or what was asked for."""


@contextmanager
def prefect_api(settings: PrefectSettings) -> Iterator[SyncPrefectClient]:
    """A client of the API; raises PrefectUnreachable, PrefectRefused."""
    bypass_proxies()
    url = settings.effective_api_url
    try:
        with SyncPrefectClient(url, auth_string=os.environ.get("PREFECT_API_AUTH_STRING")) as client:
            yield client
    except httpx.TransportError as error:
        raise PrefectUnreachable(
            f"the Prefect API at {url} does not answer: {str(error) or type(error).__name__}",
            hint="Start it with `lifeboat up`, or correct `prefect.api_url` in lifeboat.toml. Without Prefect the same "
            "work runs in process: `lifeboat backup run` needs no server.",
        ) from error
    except PrefectHTTPStatusError as error:
        detail = error.response.text.strip()[:500]
        raise PrefectRefused(
            f"the Prefect API at {url} answered {error.response.status_code}: {detail}",
            hint="Where it wants a login, set PREFECT_API_AUTH_STRING; else its log says more.",
        ) from error


def bypass_proxies(environment: dict[str, str] | None = None) -> None:
    """Keep requests to this machine away from a proxy that the environment names."""
    target = os.environ if environment is None else environment
    named = target.get("NO_PROXY") or target.get("no_proxy") or ""
    missing = [host for host in _LOOPBACK if host not in named.split(",")]
    target["NO_PROXY"] = target["no_proxy"] = ",".join([*filter(None, [named]), *missing])


def is_healthy(settings: PrefectSettings) -> bool:
    """Whether the API answers that it is well."""
    try:
        answer = httpx.get(f"{settings.effective_api_url}/health", timeout=2, trust_env=not _is_local(settings))
    except httpx.TransportError:
        return False
    return answer.is_success


def run_url(settings: PrefectSettings, flow_run_id: UUID) -> str:
    """The page of a flow run in Prefect's UI."""
    return f"{settings.ui_url}/v2/runs/flow-run/{flow_run_id}"


def _is_local(settings: PrefectSettings) -> bool:
    return urlsplit(settings.effective_api_url).hostname in _LOOPBACK
