"""The environment of the Prefect processes that we run."""

import os
import sys
from pathlib import Path

from deployments.api import bypass_proxies
from lifeboat.errors import SettingsError
from lifeboat.operations.installation import Installation
from lifeboat.settings.loading import CONFIG_VARIABLE


def prefect_home(installation: Installation) -> Path:
    """Prefect's own folder: its database, persisted results, the pages of its UI."""
    return installation.settings.state_dir / "prefect"


def temporary_folder(installation: Installation) -> Path:
    """The temporary folder of our Prefect processes; PostgreSQL's account may pass through it."""
    folder = installation.settings.state_dir / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    return folder


def service_environment(installation: Installation) -> dict[str, str]:
    """The whole environment of our Prefect server, worker and flow runs.

    What is in ours goes on: `LIFEBOAT_…` settings, libpq's `PG…`, and `PREFECT_…` settings of the administrator, which
    win over our defaults (a PostgreSQL behind the server, a login). Raises SettingsError without a settings file.
    """
    if installation.settings_file is None:
        raise SettingsError("flow runs need a settings file", hint="Name it with --config.")
    prefect = installation.settings.prefect
    home = prefect_home(installation)
    fixed = {
        CONFIG_VARIABLE: str(installation.settings_file),
        # Prefect starts flow runs as `python`: it has to be ours.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": prefect.effective_api_url,
        "PREFECT_SERVER_API_HOST": prefect.host,
        "PREFECT_SERVER_API_PORT": str(prefect.port),
        # Prefect's runner wants a `runner_storage` of its own in the temporary folder: in a shared one the first user's
        # shuts out all others.
        "TMPDIR": str(temporary_folder(installation)),
    }
    environment = {**_defaults(installation), **os.environ, **fixed}
    bypass_proxies(environment)
    return environment


def _defaults(installation: Installation) -> dict[str, str]:
    prefect = installation.settings.prefect
    home = prefect_home(installation)
    return {
        "PREFECT_UI_URL": f"{prefect.ui_url}/v2",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_LOGGING_COLORS": "false",
        # A limit's lease in the server's memory is lost when the server restarts, and takes a good run with it.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_WORKER_QUERY_SECONDS": str(prefect.worker_poll_seconds),
        # A server that restarts is waited for: 2 + 4 + … + 64 s.
        "PREFECT_CLIENT_MAX_RETRIES": "6",
    }
