"""What Lifeboat asks Prefect over HTTP without importing it: is it there, does a worker wait for runs."""

import base64
import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import psutil

from lifeboat.errors import TransientError
from lifeboat.operations.installation import Installation

_TIMEOUT_SECONDS = 3.0
_AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class PrefectSilent(TransientError):
    """Prefect's API does not answer, or not as Prefect does."""


class PrefectRefused(PrefectSilent):
    """Prefect's API answers with an error: a login is missing, or nothing was deployed to it."""


class NoWorker(TransientError):
    """Prefect answers, and no run would start."""


def ask(api_url: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
    """Ask Prefect's API: a POST with a body, a GET without. Raises PrefectSilent."""
    if not api_url.startswith(("http://", "https://")):
        raise PrefectSilent(f"{api_url} is not an HTTP address", hint="Correct `prefect.api_url`.")
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if os.environ.get(_AUTH_VARIABLE):
        headers["Authorization"] = f"Basic {base64.b64encode(os.environ[_AUTH_VARIABLE].encode()).decode()}"
    data = json.dumps(body).encode() if body is not None else None
    try:
        request = Request(f"{api_url}/{path}", data=data, headers=headers)  # noqa: S310 - its scheme was checked
        # A proxy that the environment names is not asked for what is on this machine.
        proxies = [ProxyHandler({})] if urlsplit(api_url).hostname in _LOOPBACK else []
        with build_opener(*proxies).open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise PrefectRefused(f"{api_url} answers {error.code} to {path}", hint=_hint(error.code)) from error
    except URLError as error:
        raise PrefectSilent(f"{api_url} does not answer: {error.reason}", hint="Start it: `lifeboat up`.") from error
    except (OSError, ValueError) as error:
        raise PrefectSilent(
            f"{api_url} does not answer as Prefect does: {error}", hint="Check `prefect.port`."
        ) from error


def online_workers(installation: Installation) -> list[str]:
    """The names of the workers that serve our work pool now. Raises PrefectSilent, and NoWorker when there is none."""
    prefect = installation.settings.prefect
    url, pool_name = prefect.effective_api_url, prefect.work_pool
    _refuse_foreign_server(installation)
    pool = ask(url, f"work_pools/{pool_name}")
    if pool.get("is_paused"):
        raise NoWorker(f"the work pool {pool_name} is paused", hint=f"prefect work-pool resume {pool_name}")
    workers = ask(url, f"work_pools/{pool_name}/workers/filter", {})
    names = [str(worker["name"]) for worker in workers if worker.get("status") == "ONLINE"]
    if not names:
        raise NoWorker(f"no worker serves the work pool {pool_name}", hint="lifeboat up")
    return names


def _refuse_foreign_server(installation: Installation) -> None:
    """Without `prefect.api_url` only our own `lifeboat up` counts: another installation may have the same port."""
    if installation.settings.prefect.api_url is not None:
        return
    # deployments/services.py writes its process id there; that it lives must do, since a lock cannot be looked at.
    lock = installation.settings.state_dir / "prefect" / "up.lock"
    try:
        runs = psutil.pid_exists(int(lock.read_text("ascii")))
    except (OSError, ValueError):
        runs = False
    if not runs:
        raise NoWorker(f"`lifeboat up` does not run with {installation.settings.state_dir}", hint="lifeboat up")


def _hint(code: int) -> str:
    if code in {401, 403}:
        return f"Put the server's login into ${_AUTH_VARIABLE}."
    return "Run `lifeboat up`: it makes the work pool and the deployments."
