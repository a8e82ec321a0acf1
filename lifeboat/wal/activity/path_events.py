"""The notable events that lie on the way to a timeline: not those that an ancestor had behind the switch."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from lifeboat.catalog.store import Catalog
from lifeboat.catalog.wal_values import IndexState, WalEvent
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.names import TimelineSwitch, parse_lsn


def events_along(source: Source, catalog: Catalog, cluster: str, timeline: int, start: datetime) -> list[WalEvent]:
    """The events from `start` on along `timeline`, each once; raises ArchiveUnreadable, CatalogError."""
    ancestors = source.archive.history(timeline) if timeline > 1 else ()
    spans = _spans(timeline, ancestors, catalog.wal_index.states(cluster))
    return [event for event in catalog.activity.events(cluster, start) if _is_within(event, spans)]


def _spans(
    timeline: int, ancestors: Sequence[TimelineSwitch], states: Mapping[int, IndexState]
) -> dict[int, tuple[int, int | None]]:
    """Which positions count of each timeline: from one on, up to but not with another."""
    spans: dict[int, tuple[int, int | None]] = {}
    first_lsn = 0
    for switch in ancestors:
        spans[switch.timeline] = (first_lsn, switch.switch_lsn)
        # A timeline is read from a little before its beginning: what its parent was not read up to is only there.
        parent = states.get(switch.timeline)
        read_to_lsn = parent.last_lsn if parent is not None and parent.last_lsn is not None else -1
        first_lsn = min(switch.switch_lsn, read_to_lsn + 1)
    spans[timeline] = (first_lsn, None)
    return spans


def _is_within(event: WalEvent, spans: Mapping[int, tuple[int, int | None]]) -> bool:
    span = spans.get(event.detail_json.get("timeline", 0))
    if span is None:
        return False
    lsn = parse_lsn(event.detail_json["lsn"])
    return span[0] <= lsn and (span[1] is None or lsn < span[1])
