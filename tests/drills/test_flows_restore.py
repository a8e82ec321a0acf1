"""The flow `restore`, as Prefect runs it: to a new cluster, never in place."""

from lifeboat.catalog.values import RestoreStatus
from tests.support.prefect import Services, services

__all__ = ["services"]


def test_a_restore_is_run_and_reported(services: Services) -> None:
    backup = services.run("full-backup")
    assert backup.succeeded, backup.message
    place = services.home / "restored by a flow"
    run = services.run("restore", {"to": f"new:{place}", "backup": "latest"})
    assert run.succeeded, run.message
    assert (place / "PG_VERSION").is_file()
    pages = {item.key: item for item in run.artifacts}
    assert str(place) in pages["restore"].data
    assert pages["restore-progress"].data == 100.0
    (row,) = [row for row in services.installation.catalog.restores.list_restores().rows if row.flow_run_id == run.id]
    assert row.status is RestoreStatus.COMPLETED


def test_what_a_flow_must_not_do_or_cannot_have_fails_with_a_reason(services: Services) -> None:
    backup = services.run("full-backup")
    assert backup.succeeded, backup.message
    for parameters, reason in (
        ({"to": "in-place"}, "in place"),
        ({"to": f"new:{services.home / 'never'}", "at": "2020-01-01"}, "before the first backup"),
    ):
        run = services.run("restore", parameters)
        assert not run.succeeded
        assert reason in run.message
    assert not (services.home / "never").exists()
