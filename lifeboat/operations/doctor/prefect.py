"""Doctor's checks of Prefect; none of them fails, since every operation can run in process without it."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from lifeboat.operations.deployment_owner import DeploymentOwner, ForeignDeployment, refuse_foreign
from lifeboat.operations.doctor.results import CheckResult, ok, warning
from lifeboat.operations.installation import Installation
from lifeboat.operations.prefect_api import NoWorker, PrefectRefused, PrefectSilent, ask, online_workers

# One stands for all: they are made together.
_DEPLOYMENT = "full-backup/full-backup"


def check_prefect(installation: Installation) -> Iterator[CheckResult]:
    """Does the API answer, in our version, does a worker wait for runs, and are the deployments ours?"""
    prefect = installation.settings.prefect
    url = prefect.effective_api_url
    try:
        ask(url, "health")
        theirs = ask(url, "admin/version")
    except PrefectSilent as error:
        refused = isinstance(error, PrefectRefused) and error.hint
        yield warning("prefect", f"{error.message}; backups run in process all the same", refused or "lifeboat up")
        return
    ours = _installed_version()
    if theirs == ours:
        yield ok("prefect", f"{url}, version {theirs}")
    else:
        detail = f"{url} is version {theirs}, installed here is {ours}"
        yield warning("prefect", detail, f"pip install prefect=={theirs}   # or update the server")
    try:
        names = online_workers(installation)
    except (PrefectSilent, NoWorker) as error:
        yield warning("prefect: worker", f"no run starts: {error.message}", error.hint or "lifeboat up")
        return
    yield ok("prefect: worker", f"{', '.join(names)} in the work pool {prefect.work_pool}")
    yield from _check_owner(installation)


def _check_owner(installation: Installation) -> Iterator[CheckResult]:
    url = installation.settings.prefect.effective_api_url
    try:
        variables = ask(url, f"deployments/name/{_DEPLOYMENT}").get("job_variables")
        refuse_foreign(_DEPLOYMENT, variables, DeploymentOwner.of(installation), url)
    except (ForeignDeployment, PrefectSilent) as error:
        yield warning("prefect: deployments", error.message, error.hint or "lifeboat up")


def _installed_version() -> str:
    try:
        return version("prefect")
    except PackageNotFoundError:
        return "none"
