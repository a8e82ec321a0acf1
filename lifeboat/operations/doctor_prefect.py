"""Doctor's checks of Prefect, over its HTTP API: the domain imports no Prefect, and runs without it."""

import base64
import json
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lifeboat.operations.doctor_results import CheckResult, ok, warning
from lifeboat.operations.installation import Installation

_TIMEOUT_SECONDS = 3.0
_AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"


class ApiSilent(Exception):
    """Prefect's API does not answer, or not as Prefect does; the text says how."""


def check_prefect(installation: Installation) -> Iterator[CheckResult]:
    """Does the API answer, in our version, and does a worker wait for runs?"""
    prefect = installation.settings.prefect
    url = prefect.effective_api_url
    try:
        ask(url, "health")
        theirs = ask(url, "admin/version")
    except ApiSilent as error:
        yield warning("prefect", f"{url}: {error}; backups can be taken in process all the same", "lifeboat up")
        return
    ours = _installed_version()
    if theirs != ours:
        yield warning(
            "prefect", f"{url} is version {theirs}, installed here is {ours}", f"pip install prefect=={theirs}   # or update the server"
        )
    else:
        yield ok("prefect", f"{url}, version {theirs}")
    try:
        pool = ask(url, f"work_pools/{prefect.work_pool}")
        workers = ask(url, f"work_pools/{prefect.work_pool}/workers/filter", {})
    except ApiSilent as error:
        yield warning("prefect: worker", f"the work pool {prefect.work_pool} cannot be read: {error}", "lifeboat up")
        return
    alive = [worker["name"] for worker in workers if worker.get("status") == "ONLINE"]
    if pool.get("is_paused"):
        fix = f"prefect work-pool resume {prefect.work_pool}"
        yield warning("prefect: worker", f"the work pool {prefect.work_pool} is paused: no run starts", fix)
    elif not alive:
        fix = f"lifeboat up   # or: prefect worker start --pool {prefect.work_pool}"
        yield warning("prefect: worker", f"no worker serves the work pool {prefect.work_pool}: no run starts", fix)
    else:
        yield ok("prefect: worker", f"{', '.join(alive)} in work pool {prefect.work_pool}")


def ask(api_url: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
    """Ask Prefect's API: a POST with a body, a GET without. Raises ApiSilent."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if os.environ.get(_AUTH_VARIABLE):
        headers["Authorization"] = f"Basic {base64.b64encode(os.environ[_AUTH_VARIABLE].encode()).decode()}"
    data = json.dumps(body).encode() if body is not None else None
    try:
        if not api_url.startswith(("http://", "https://")):
            raise ApiSilent("it is no HTTP address")
        request = Request(f"{api_url}/{path}", data=data, headers=headers)  # noqa: S310 - checked above
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as error:
        raise ApiSilent(f"it answers {error.code} to {path}") from error
    except URLError as error:
        raise ApiSilent(f"it does not answer ({error.reason})") from error
    except (OSError, ValueError) as error:
        raise ApiSilent(f"it does not answer as Prefect does ({error})") from error


def _installed_version() -> str:
    try:
        return version("prefect")
    except PackageNotFoundError:
        return "none"
