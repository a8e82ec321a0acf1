"""What the catalog's tests start from: a migrated catalog, manifests and times."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.store import Catalog
from lifeboat.storage.labels import make_label
from lifeboat.storage.manifest import BackupObject, BackupType, Manifest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHA256 = hashlib.sha256(b"manifest").hexdigest()
_NAMESPACE = UUID("6c696665-626f-6174-8000-000000000000")


@pytest.fixture
def catalog(platform_dsn: str) -> Iterator[Catalog]:
    """An empty catalog in a database of its own."""
    migrate(platform_dsn)
    with Catalog(platform_dsn, pool_size=2) as made:
        yield made


def numbered(number: int) -> UUID:
    """The same id for the same number."""
    return uuid5(_NAMESPACE, str(number))


def manifest(number: int = 1, **fields: object) -> Manifest:
    """The manifest of the backup with this number: one started each minute after noon, 1,000 bytes each."""
    started_at = NOON + timedelta(minutes=number)
    values: dict[str, Any] = {
        "id": numbered(number),
        "label": make_label(BackupType.FULL, started_at),
        "set_id": numbered(-number),
        "type": BackupType.FULL,
        "engine": "basebackup",
        "cluster": "main",
        "started_at": started_at,
        "completed_at": started_at + timedelta(seconds=30),
        "pg_version": "18.4",
        "system_identifier": "7000000000000000000",
        "timeline": 1,
        "start_lsn": "0/2000028",
        "stop_lsn": "0/2000120",
        "objects": [BackupObject(name="base.tar.gz", size_bytes=1000, sha256=SHA256)],
        "compression": "gzip",
        "restore": [],
        "tools": {},
        "lifeboat_version": "0.1.0",
        "signed_by": "test",
    }
    return Manifest(**(values | fields))


def record_started(catalog: Catalog, number: int = 1, **fields: object) -> bool:
    """Say that the run of the backup with this number began."""
    values: dict[str, Any] = {
        "set_id": numbered(-number),
        "type": BackupType.FULL,
        "engine": "basebackup",
        "cluster": "main",
        "destination": "primary",
        "started_at": NOON + timedelta(minutes=number, seconds=-1),
    }
    return catalog.backups.record_started(numbered(number), **(values | fields))


def record_completed(catalog: Catalog, number: int = 1, **fields: object) -> bool:
    """Say that the manifest of the backup with this number is in storage."""
    return catalog.backups.record_completed(manifest(number, **fields), destination="primary", manifest_sha256=SHA256)
