"""`pgbackrest info` as versions 2.45 and 2.55 print it: recorded from both (`all`, one label, no stanza)."""

import json
from pathlib import Path
from typing import Any

import pytest

from lifeboat.engines.engine import EngineFailed
from lifeboat.engines.pgbackrest.adoption import adopted_id
from lifeboat.engines.pgbackrest.failures import RepositoryMismatch, StanzaMissing
from lifeboat.engines.pgbackrest.info import InfoType, StanzaInfo, StanzaStatus, parse_info
from lifeboat.engines.pgbackrest.stanza import ClusterIdentity, refuse_other_cluster
from lifeboat.storage.manifest import BackupType

RECORDED = Path(__file__).parent.parent / "support" / "pgbackrest_info"


@pytest.fixture(params=["2.45", "2.55"])
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The outputs of one version."""
    found: dict[str, Any] = json.loads((RECORDED / f"{request.param}.json").read_text("utf-8"))
    return found


@pytest.fixture
def info(recorded: dict[str, Any]) -> StanzaInfo:
    """The stanza with its three backups."""
    return parse_info(json.dumps(recorded["all"]), "studio")


def test_a_chain_is_read(info: StanzaInfo) -> None:
    full, differential, incremental = info.backup
    assert info.exists
    assert [item.type for item in info.backup] == [InfoType.FULL, InfoType.DIFFERENTIAL, InfoType.INCREMENTAL]
    assert [item.type.backup_type for item in info.backup] == [
        BackupType.FULL,
        BackupType.DIFFERENTIAL,
        BackupType.INCREMENTAL,
    ]
    assert info.chain(incremental.label) == [full.label, differential.label, incremental.label]
    assert info.dependents(full.label) == [differential.label, incremental.label]
    assert info.dependents(incremental.label) == []
    assert info.full_labels() == [full.label]
    assert full.annotation == {"lifeboat-id": "00000000-0000-0000-0000-000000000001"}
    assert (full.timeline, full.prior, full.error) == (1, None, False)
    assert full.started_at.strftime("%Y%m%d-%H%M%SF") == full.label
    assert full.started_at <= full.completed_at
    assert full.tablespace is None


def test_what_the_next_backup_builds_on(info: StanzaInfo) -> None:
    full, _, incremental = (item.label for item in info.backup)
    assert info.prior_for(BackupType.FULL) is None
    assert info.prior_for(BackupType.DIFFERENTIAL) == full
    assert info.prior_for(BackupType.INCREMENTAL) == incremental
    upgraded = info.model_copy(update={"db": [*info.db, info.db[0].model_copy(update={"id": 2, "system_id": 8})]})
    assert upgraded.prior_for(BackupType.INCREMENTAL) is None
    assert upgraded.system_identifier(info.backup[0]) == str(info.db[0].system_id)


def test_tablespaces_come_with_one_label(recorded: dict[str, Any]) -> None:
    (backup,) = parse_info(json.dumps(recorded["one"]), "studio").backup
    assert sorted((item.name, item.destination) for item in backup.tablespace or []) == [
        ("cold", "/srv/cold"),
        ("hot", "/srv/hot"),
    ]


def test_a_stanza_that_is_not_there(recorded: dict[str, Any]) -> None:
    found = parse_info(json.dumps(recorded["missing"]), "nobody")
    assert not found.exists
    assert (found.current, found.full_labels()) == (None, [])
    assert found.status.code == StanzaStatus.MISSING_STANZA_PATH
    with pytest.raises(StanzaMissing):
        refuse_other_cluster(found, ClusterIdentity("1", 15))


def test_only_our_own_cluster_is_taken(info: StanzaInfo) -> None:
    current = info.current
    assert current is not None
    refuse_other_cluster(info, ClusterIdentity(str(current.system_id), int(current.version)))
    for other in (ClusterIdentity("1", int(current.version)), ClusterIdentity(str(current.system_id), 99)):
        with pytest.raises(RepositoryMismatch):
            refuse_other_cluster(info, other)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '[{"name": "studio"}]', '[{"name": "studio", "db": 1}]'])
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(EngineFailed, match="not understood"):
        parse_info(text, "studio")


def test_adopted_ids_are_the_same_each_time() -> None:
    first = adopted_id("7301234567890123456", "20261123-120725F")
    assert first == adopted_id("7301234567890123456", "20261123-120725F")
    assert str(first) == "fe769b6e-1cdd-5b91-a658-02ccfc43d643"
    assert first != adopted_id("7301234567890123457", "20261123-120725F")
