"""The tests of pgBackRest once more in a container of Debian 13, where Docker answers: no host, no other process there.

The image is the tree that trixie.sh makes; Python and its packages are the host's, mounted to be read.
"""

import gc
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from lifeboat import commands
from tests.support.pgbackrest import CACHE
from tests.support.postgres import absent

IMAGE = "lifeboat-tests-trixie"
CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = (
    "adoption",
    "archive",
    "backups",
    "commands",
    "expiry",
    "operations",
    "platform",
    "restore",
    "restore_points",
    "scrub",
    "stanza",
)
SUITE = (
    *(f"tests/integration/test_pgbackrest_{name}.py" for name in PARTS),
    "tests/drills/test_restore_pgbackrest.py",
    "tests/drills/test_restore_pgbackrest_async.py",
    "tests/drills/test_restore_pgbackrest_encrypted.py",
    "tests/drills/test_accidents.py",
)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> DockerClient:
    """Docker, if it answers; without testcontainers' own reaper, which would be an image to download."""
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    found, why = _client()
    if found is None:
        with warnings.catch_warnings():
            # Docker's library leaves its connection open when nobody answers.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        pytest.skip(f"Docker does not answer: {why}")
    return found


def _client() -> tuple[DockerClient | None, str]:
    try:
        found = DockerClient(timeout=600)
        found.client.ping()
    except DockerException as error:
        return None, str(error)
    return found, ""


@pytest.fixture
def container(client: DockerClient, tmp_path: Path) -> Iterator[DockerContainer]:
    """A running container of Debian 13 without a network."""
    tree = CACHE / "trixie"
    if not (tree / ".ready").exists():
        absent(f"there is no Debian 13 tree in {CACHE} (tests/support/trixie.sh makes one)")
    if not all((tree / "usr/bin" / name).exists() for name in ("python3", "lz4", "zstd")):
        absent(f"{tree} was made before it had Python: remove it, and have tests/support/trixie.sh make it again")
    archive = tmp_path / "image.tar"
    commands.run(["tar", "--create", f"--file={archive}", f"--directory={tree}", "."], timeout_seconds=600)
    client.client.api.import_image(src=str(archive), repository=IMAGE, tag="latest")
    archive.unlink()
    made = (
        DockerContainer(IMAGE).with_command("sleep infinity").with_kwargs(network_mode="none", init=True, shm_size="4g")
    )
    for path in {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}:
        made = made.with_volume_mapping(str(path), str(path), "ro")
    try:
        with made as running:
            yield running
    finally:
        client.client.images.remove(IMAGE, force=True)


@pytest.mark.timeout(3600)
def test_the_suite_passes_in_a_container(container: DockerContainer) -> None:
    started = container.exec([sys.executable, "-c", "import ctypes, ssl, bz2, psycopg"])
    if started.exit_code != 0:
        pytest.skip(f"the host's Python does not start in Debian 13: {started.output.decode(errors='replace')}")
    options = ["-k", "debian and 13 and not upgrade", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = container.get_wrapped_container().exec_run(
        [sys.executable, "-m", "pytest", *SUITE, *options],
        workdir=str(CHECKOUT),
        environment={"PYTHONDONTWRITEBYTECODE": "1", "REQUIRE_PGBACKREST": "1", "TRIXIE_CACHE": str(CACHE)},
    )
    said = done.output.decode(errors="replace")
    assert done.exit_code == 0, said[-20000:]
    assert " passed" in said
