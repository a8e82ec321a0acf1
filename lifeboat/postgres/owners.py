"""Who made something that must not stay behind: a record that tells later whether its maker still lives."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil

_BIRTH_TOLERANCE_SECONDS = 1.0


def owner_record() -> dict[str, Any]:
    """This process: host, process id, and when it was started, since ids are used again."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "started_at": _birth(os.getpid())}


def owner_lives(record: Mapping[str, Any]) -> bool | None:
    """Whether the process of a record lives; None for one of another host, which cannot be seen from here.

    Raises ValueError when it is no such record.
    """
    try:
        if record["host"] != os.uname().nodename:
            return None
        recorded, birth = float(record["started_at"]), _birth(int(record["pid"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the record of an owner: {record!r}") from error
    return birth is not None and abs(birth - recorded) <= _BIRTH_TOLERANCE_SECONDS


def _birth(pid: int) -> float | None:
    with suppress(psutil.Error):
        return psutil.Process(pid).create_time()
    return None
