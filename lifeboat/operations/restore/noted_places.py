"""Where in WAL a recovery target was noted to be, so that the archive need not be searched for it."""

from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.journal import read_only_journal
from lifeboat.recovery.targets import RecoveryTarget
from lifeboat.recovery.wal_reader import NotedPlace
from lifeboat.wal.names import parse_lsn

_XID_MASK = (1 << 32) - 1


def noted_places(
    installation: Installation, target: RecoveryTarget, system_identifier: str | None
) -> tuple[NotedPlace, ...]:
    """The places of a named restore point in the journal, of a transaction in the catalog's index; newest first.

    The index knows transactions with a notable event (DROP, TRUNCATE, DDL, many rows changed). Neither has to be there:
    the WAL decides, and where nothing is noted it is searched.
    """
    try:
        if target.name is not None:
            records = read_only_journal(installation).points(tell_fault)
            same = [each for each in records if each.name == target.name]
            ours = [each for each in same if each.system_identifier == system_identifier]
            return tuple(NotedPlace(each.timeline, parse_lsn(each.lsn), each.at) for each in reversed(ours))
        if target.xid is not None:
            cluster = installation.settings.platform.cluster
            events = installation.catalog.activity.events_of(cluster, target.xid & _XID_MASK)
            return tuple(
                NotedPlace(int(each.detail_json["timeline"]), parse_lsn(each.detail_json["lsn"]), each.at)
                for each in events
            )
    except LifeboatError as error:
        LOG.info("where %s is was not asked for: %s", target, error.message)
    return ()
