"""Where the order of a chunk's records matters: what one transaction does to the files that it has made itself.

Rows of a file that is emptied in place (TRUNCATE in the transaction that made it) are gone, later ones are not. Rows of
a rewritten table are copies until its old definition, under the new file's name, is deleted from pg_class; later ones
are inserted.
"""

import re
from collections.abc import Callable, Collection, Iterator

from lifeboat.catalog.wal_values import RelationFile
from lifeboat.wal.activity.records import HEAD

STORAGE = b"rmgr: Storage"
_STEP = re.compile(
    rb"rmgr: (?:Storage|Heap) +"
    + HEAD
    + rb"[^,]+, prev [^,]+, desc: (?:(CREATE) [^\n]*|(TRUNCATE) [^\n]* to 0 blocks [^\n]*"
    rb"|DELETE [^\n]*#0: rel \d+/(\d+)/(\d+)[^\n]*)\n"
)


def steps(
    chunk: bytes, makers: Collection[int], is_pg_class: Callable[[RelationFile], bool]
) -> Iterator[tuple[int, int | None]]:
    """Where to divide a chunk, with the transaction whose new files hold all their copies there.

    `makers` are transactions that have made files of which that is not known yet.
    """
    filling = set(makers)
    for found in _STEP.finditer(chunk):
        xid = int(found[1])
        if found[2]:
            filling.add(xid)
        elif found[3]:
            yield found.end(), None
        elif xid in filling and is_pg_class((int(found[4]), int(found[5]))):
            filling.discard(xid)
            yield found.end(), xid
