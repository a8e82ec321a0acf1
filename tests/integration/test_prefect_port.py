"""The port of our Prefect server when somebody else gets it between the choice and the start."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from console.cli import demo
from deployments.processes import PortTaken, Supervised, listens, wait_until_healthy
from deployments.services import running_services
from lifeboat.operations.installation import Installation
from lifeboat.settings.prefect import PrefectSettings
from tests.support.network import free_port

BRIEF_SECONDS = 30


def listener(port: int, folder: Path) -> list[str]:
    """The command of a web server that answers 200 to Prefect's health check."""
    (folder / "api").mkdir(parents=True, exist_ok=True)
    (folder / "api" / "health").write_text("true")
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]


@contextmanager
def somebody_else(port: int, folder: Path) -> Iterator[None]:
    """A foreign process that listens on the port."""
    output = subprocess.DEVNULL
    with subprocess.Popen(listener(port, folder), stdout=output, stderr=output) as process:
        try:
            while not [item for item in psutil.Process(process.pid).net_connections() if item.status == "LISTEN"]:
                time.sleep(0.05)
            yield
        finally:
            process.kill()


def server(argv: list[str], folder: Path) -> Supervised:
    """A process in the place of our Prefect server."""
    return Supervised("Prefect server", argv, dict(os.environ), folder / "server.log")


def test_a_server_that_lives_beside_a_foreign_listener_is_not_ready(tmp_path: Path) -> None:
    settings = PrefectSettings(port=free_port())
    ours = server(["sleep", "60"], tmp_path)
    ours.start()
    try:
        assert not listens(settings, ours)
        began = time.monotonic()
        with somebody_else(settings.port, tmp_path / "www"), pytest.raises(PortTaken, match=r"process \d+") as caught:
            wait_until_healthy(settings, ours, lambda: False)
        assert time.monotonic() - began < BRIEF_SECONDS
        assert "prefect.port" in (caught.value.hint or "")
    finally:
        ours.stop()


def test_the_child_of_our_process_may_be_the_one_that_listens(tmp_path: Path) -> None:
    settings = PrefectSettings(port=free_port())
    command = " ".join(listener(settings.port, tmp_path / "www"))
    ours = server(["sh", "-c", f"{command} & wait"], tmp_path)
    ours.start()
    try:
        assert wait_until_healthy(settings, ours, lambda: False)
    finally:
        ours.stop()


def test_a_port_that_is_taken_after_its_choice_stops_everything_at_once(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "lifeboat.toml"
    file.write_text(
        f"""state_dir = "{tmp_path}/state"
platform = {{ dsn = "host=/nowhere" }}
destinations = {{ primary = {{ path = "{tmp_path}/store" }} }}
prefect = {{ port = {port} }}
"""
    )
    said: list[str] = []
    with ExitStack() as stack:

        def say(text: str) -> None:
            # Said when the port was found free, and just before the server starts.
            if text == "starting the Prefect server":
                stack.enter_context(somebody_else(port, tmp_path / "www"))
            said.append(text)

        began = time.monotonic()
        with pytest.raises(PortTaken, match=str(port)), running_services(Installation.load(file), say):
            pass
        assert time.monotonic() - began < BRIEF_SECONDS
    assert "starting the worker" not in said
    me = psutil.Process()
    assert not [child for child in me.children(recursive=True) if "prefect" in child.cmdline()]


def test_the_demo_goes_on_with_the_next_port(reachable_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with ExitStack() as foreign, ExitStack() as stack:

        def notice(text: str) -> None:
            if text == "starting the Prefect server" and text not in said:
                lost.append(Installation.load(reachable_tmp / "lifeboat.toml").settings.prefect.port)
                foreign.enter_context(somebody_else(lost[0], reachable_tmp / "www"))
            said.append(text)

        lost: list[int] = []
        monkeypatch.setattr(demo, "notice", notice)
        services = demo._start_services(reachable_tmp, stack)
        assert services.installation.settings.prefect.port > lost[0]
        assert len(services.deployments) > 1
    assert [text for text in said if text.startswith("trying the next port")]
