"""Prefect as doctor and `backup run` see it over HTTP: away, of another version, without a worker, somebody else's."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from lifeboat.operations.deployment_owner import DeploymentOwner
from lifeboat.operations.doctor.prefect import check_prefect
from lifeboat.operations.doctor.results import CheckStatus
from lifeboat.operations.installation import Installation
from lifeboat.operations.prefect_api import NoWorker, PrefectRefused, PrefectSilent, ask, online_workers
from lifeboat.settings.root import Settings

WORKERS = "/api/work_pools/lifeboat/workers/filter"
DEPLOYMENT = "/api/deployments/name/full-backup/full-backup"
THEIRS = DeploymentOwner("/srv/other/lifeboat.toml", "other").job_variables()
SOUND: dict[str, Any] = {
    "/api/health": True,
    "/api/admin/version": version("prefect"),
    "/api/work_pools/lifeboat": {"is_paused": False},
    DEPLOYMENT: {"job_variables": {}},
    WORKERS: [{"name": "worker 1", "status": "ONLINE"}, {"name": "worker 2", "status": "OFFLINE"}],
}


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[str]:
    """A server that answers as Prefect's API does; yields the API's address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = json.dumps(found).encode() if not isinstance(found, bytes) else found
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()
        thread.join()


def installation(state_dir: Path, **prefect: object) -> Installation:
    """An installation with these settings of Prefect."""
    given = {
        "state_dir": state_dir,
        "platform": {"dsn": "host=nowhere"},
        "destinations": {"primary": {"path": state_dir / "store"}},
        "prefect": prefect,
    }
    return Installation(Settings.model_validate(given), state_dir / "lifeboat.toml")


def test_a_server_with_a_worker_is_fine(tmp_path: Path) -> None:
    with serving(SOUND) as url:
        made = installation(tmp_path, api_url=url)
        results = list(check_prefect(made))

        assert online_workers(made) == ["worker 1"]
    assert [result.status for result in results] == [CheckStatus.OK, CheckStatus.OK]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"/api/admin/version": "2.0.0"}, "is version 2.0.0, installed here is"),
        ({WORKERS: []}, "no worker serves the work pool lifeboat"),
        ({WORKERS: [{"name": "w", "status": "OFFLINE"}]}, "no worker serves"),
        ({"/api/work_pools/lifeboat": {"is_paused": True}}, "is paused"),
        ({"/api/work_pools/lifeboat": None}, "answers 404 to work_pools/lifeboat"),
        ({DEPLOYMENT: {"job_variables": THEIRS}}, "belongs to /srv/other/lifeboat.toml (cluster other), not to /"),
        ({DEPLOYMENT: None}, "answers 404 to deployments/name/full-backup"),
        ({"/api/health": None}, "answers 404 to health"),
        ({"/api/health": b"<html>"}, "does not answer as Prefect does"),
    ],
)
def test_what_is_wrong_is_a_warning_with_a_fix(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with serving(SOUND | changes) as url:
        results = list(check_prefect(installation(tmp_path, api_url=url)))

    troubles = [result for result in results if result.status is not CheckStatus.OK]
    assert [result.status for result in troubles] == [CheckStatus.WARNING]
    assert said in troubles[0].detail
    assert troubles[0].fix


def test_a_server_that_is_away_is_a_warning(tmp_path: Path) -> None:
    (result,) = check_prefect(installation(tmp_path, api_url="http://127.0.0.1:9/api"))

    assert (result.status, result.fix) == (CheckStatus.WARNING, "lifeboat up")


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(SOUND) as url:
        assert ask(url, "health") is True


def test_errors_tell_refused_from_silent() -> None:
    with serving(SOUND) as url, pytest.raises(PrefectRefused, match="404"):
        ask(url, "nothing")
    with pytest.raises(PrefectSilent, match="not an HTTP address"):
        ask("file:///etc", "passwd")


def test_a_server_of_another_installation_is_not_used(tmp_path: Path) -> None:
    with serving(SOUND) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        made = installation(tmp_path, port=port)
        with pytest.raises(NoWorker, match="`lifeboat up` does not run"):
            online_workers(made)
        (tmp_path / "prefect").mkdir()
        (tmp_path / "prefect" / "up.lock").write_text(f"{os.getpid()}\n")

        assert online_workers(made) == ["worker 1"]
