"""The flows that watch WAL, as Prefect runs them: alerts within one run, a page, an event, and an exit of their own."""

import json

from deployments.api import prefect_api
from deployments.triggering import TriggeredRun
from lifeboat.operations.wal.status import read_wal_status
from lifeboat.postgres.connections import connect
from lifeboat.wal.coverage import ArchivedFile
from tests.support.prefect import Services, services, until

__all__ = ["services"]


def events(services: Services, name: str, identifier: str) -> int:
    wanted = {"event": {"name": [name]}, "resource": {"id": [identifier]}}
    with prefect_api(services.installation.settings.prefect) as client:
        return len(client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"])


def page(run: TriggeredRun, key: str) -> str:
    return str(next(item.data for item in run.artifacts if item.key == key))


def archived(services: Services, count: int) -> list[ArchivedFile]:
    """Finish some segments; what the archive has then, in order."""

    def segments() -> list[ArchivedFile]:
        listing = read_wal_status(services.installation).listing
        return [item for item in listing.files if item.parsed.kind == "segment"]

    wanted = len(segments()) + count
    with connect(services.installation.source, autocommit=True) as session:
        for _ in range(count):
            session.execute("CREATE TABLE IF NOT EXISTS public.some (id int)")
            session.execute("INSERT INTO public.some SELECT generate_series(1, 1000)")
            session.execute("SELECT pg_switch_wal()")
    until(lambda: len(segments()) >= wanted, 60)
    return segments()


def test_damage_and_a_gap_are_told_within_one_run(services: Services) -> None:
    assert services.run("full-backup").succeeded
    found = archived(services, 5)
    healthy = services.run("wal-health")
    verified = services.run("wal-verify")
    assert healthy.succeeded, healthy.message
    assert verified.succeeded, verified.message
    assert "# WAL archiving: healthy" in page(healthy, "wal-health")
    assert "# WAL archive: sound" in page(verified, "wal-verify")

    hurt, gone = found[-3], found[-2]
    content = bytearray(hurt.path.read_bytes())
    content[-6] ^= 1
    hurt.path.write_bytes(content)
    damaged = services.run("wal-verify", {"everything": True})
    gone.path.unlink()
    alerted = services.run("wal-health")

    assert (damaged.state_type, damaged.state_name) == ("FAILED", "FoundProblems")
    assert hurt.parsed.name in damaged.message
    assert hurt.parsed.name in page(damaged, "wal-verify")
    assert (alerted.state_type, alerted.state_name) == ("FAILED", "FoundProblems")
    assert gone.parsed.name in alerted.message
    assert "**A full backup is wanted**" in page(alerted, "wal-health")
    until(lambda: events(services, "lifeboat.wal.damaged", "lifeboat.wal.archive") == 1, 30)
    until(lambda: events(services, "lifeboat.wal.alert", "lifeboat.wal.archiving") == 1, 30)

    # What was asked for is done by the next scheduled one, and then all is well again but for what is lost.
    replaced = services.run("incremental-backup")
    assert replaced.succeeded, replaced.message
    (row,) = services.rows(replaced.id)
    assert row.type == "full"
    bridged = services.run("wal-health")
    assert bridged.succeeded, bridged.message
    assert "| warning | WAL: " in page(bridged, "wal-health")


def test_without_an_archive_there_is_nothing_to_watch(services: Services) -> None:
    services.write(wal={**json.loads(json.dumps(services.values["wal"])), "archive": False})
    try:
        runs = [services.run(flow) for flow in ("wal-health", "wal-verify", "wal-index")]
    finally:
        services.write()
    assert [run.state_name for run in runs] == ["Skipped", "Skipped", "Skipped"]
