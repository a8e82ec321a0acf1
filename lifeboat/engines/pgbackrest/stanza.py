"""The stanza: created, upgraded, checked, and only ever that of our own cluster."""

from dataclasses import dataclass

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.failures import STANZA_HINT, RepositoryMismatch, StanzaMissing
from lifeboat.engines.pgbackrest.info import Database, StanzaInfo


@dataclass(frozen=True)
class ClusterIdentity:
    """What a stanza remembers of a cluster."""

    system_identifier: str
    major: int


def create_stanza(pgbackrest: PgBackRest) -> None:
    """Create the stanza for the configured server; does nothing to one that is this cluster's already."""
    pgbackrest.run("stanza-create", doing=f"creating stanza {pgbackrest.stanza}")


def needs_upgrade(info: StanzaInfo, cluster: ClusterIdentity) -> bool:
    """Whether the stanza has yet to go on with this cluster, which may be an upgraded one.

    pgBackRest itself takes any cluster for an upgraded one. We take one of a newer major version only, and a person
    says that it is (`lifeboat pgbackrest upgrade`). Raises StanzaMissing, RepositoryMismatch.
    """
    current = _current(info)
    if (str(current.system_id), current.version) == (cluster.system_identifier, str(cluster.major)):
        return False
    if _major(current.version) >= cluster.major:
        raise _mismatch(info, cluster)
    return True


def upgrade_stanza(pgbackrest: PgBackRest) -> None:
    """Let the stanza go on with the configured server; `needs_upgrade` was asked before."""
    pgbackrest.run("stanza-upgrade", doing=f"upgrading stanza {pgbackrest.stanza}")


def check_stanza(pgbackrest: PgBackRest, *, timeout_seconds: float | None = None) -> None:
    """Switch WAL and wait until the segment is in the repository: raises what is wrong with the configuration.

    It waits for `timeout_seconds`, or for as long as the configuration says.

    That is ArchivingNotSet, WalNotArchived, RepositoryMismatch, StanzaMissing, SourceUnavailable or EngineFailed.
    """
    words = [f"--archive-timeout={timeout_seconds:g}"] if timeout_seconds is not None else []
    pgbackrest.run("check", *words, doing=f"checking stanza {pgbackrest.stanza}")


def refuse_other_cluster(info: StanzaInfo, cluster: ClusterIdentity) -> None:
    """Raise RepositoryMismatch unless the stanza belongs to this very cluster now, and StanzaMissing without one."""
    current = _current(info)
    if (str(current.system_id), current.version) != (cluster.system_identifier, str(cluster.major)):
        raise _mismatch(info, cluster)


def _current(info: StanzaInfo) -> Database:
    if info.current is None:
        raise StanzaMissing(f"there is no stanza {info.name} in the repository", hint=STANZA_HINT)
    return info.current


def _mismatch(info: StanzaInfo, cluster: ClusterIdentity) -> RepositoryMismatch:
    current = _current(info)
    past = any(str(entry.system_id) == cluster.system_identifier for entry in info.db)
    return RepositoryMismatch(
        f"stanza {info.name} belongs to the cluster with system identifier {current.system_id}"
        f" (PostgreSQL {current.version}), the server has {cluster.system_identifier} (PostgreSQL {cluster.major})",
        hint="It was this server's once, and has gone on with another: use another stanza."
        if past
        else "Another cluster backs up there: name another repository or stanza in [engines.pgbackrest]; after"
        " pg_upgrade, `lifeboat pgbackrest upgrade`.",
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])
