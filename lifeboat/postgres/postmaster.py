"""Which server process belongs to a data directory: pid files outlive servers, and pids are used again."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_ORPHAN_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.05
_QUIT_WAIT_SECONDS = 10.0
_KILL_WAIT_SECONDS = 10.0


def running_pid(data_dir: Path) -> int | None:
    """The pid of the server that runs on `data_dir`, None if there is none, whatever postmaster.pid says."""
    pid = _pid_in(data_dir / "postmaster.pid")
    return pid if pid is not None and _works_in(pid, data_dir) else None


def clear_stale_locks(data_dir: Path, socket_dir: Path, port: int) -> None:
    """Remove the lock files of a server that is gone, where its pid has been given to somebody else.

    PostgreSQL would refuse to start because "it is running". While any process still works in the data
    directory nothing is removed: the pid file guards its shared memory.
    """
    if running_pid(data_dir) is not None:
        return
    # Backends of a killed postmaster notice within moments.
    if not _are_gone(data_dir, _ORPHAN_WAIT_SECONDS):
        return
    _remove_if_reused(data_dir / "postmaster.pid")
    lock = socket_dir / f".s.PGSQL.{port}.lock"
    if _data_dir_in(lock) == data_dir.resolve():
        _remove_if_reused(lock)


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    """The server processes in `folder` or below it: their working directory is the data directory."""
    home = folder.resolve()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if _is_server(process) and Path(process.cwd()).is_relative_to(home):
                yield process


def end_servers_in(folder: Path) -> None:
    """End every server below `folder` without a proper shutdown: its data is about to go."""
    # Only the postmaster can give back the shared memory, so it is asked first (SIGQUIT: immediate shutdown).
    for process in processes_in(folder):
        with suppress(psutil.Error):
            if running_pid(Path(process.cwd())) == process.pid:
                process.send_signal(signal.SIGQUIT)
    if _are_gone(folder, _QUIT_WAIT_SECONDS):
        return
    for process in processes_in(folder):
        with suppress(psutil.Error):
            # A restore_command that hangs is a child of its server.
            for each in (*process.children(recursive=True), process):
                each.kill()
    _are_gone(folder, _KILL_WAIT_SECONDS)


def _are_gone(folder: Path, timeout_seconds: float) -> bool:
    # Not psutil's wait: where nobody reaps orphans, a dead server stays as a zombie for ever.
    give_up_at = time.monotonic() + timeout_seconds
    while any(processes_in(folder)):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def listening_port(data_dir: Path) -> int | None:
    """The port that the server of `data_dir` was started with (postmaster.pid, line 4)."""
    with suppress(OSError, ValueError, IndexError):
        return int((data_dir / "postmaster.pid").read_text().splitlines()[3])
    return None


def socket_folder(data_dir: Path) -> Path | None:
    """The first socket folder that the server of `data_dir` was started with (postmaster.pid, line 5)."""
    with suppress(OSError, IndexError):
        line = (data_dir / "postmaster.pid").read_text().splitlines()[4].strip()
        return Path(line) if line else None
    return None


def _remove_if_reused(lock: Path) -> None:
    pid = _pid_in(lock)
    if pid is not None and psutil.pid_exists(pid):
        lock.unlink(missing_ok=True)


def _works_in(pid: int, data_dir: Path) -> bool:
    try:
        process = psutil.Process(pid)
        if not _is_server(process):
            return False
        try:
            return Path(process.cwd()) == data_dir.resolve()
        except psutil.AccessDenied:
            # Another account's server: we cannot look, so whose process it is has to do.
            return process.uids().real == data_dir.stat().st_uid
    except (psutil.Error, OSError):
        return False


def _is_server(process: psutil.Process) -> bool:
    # `postgres`, or `postmaster` in older packages; a zombie only waits for its parent.
    return process.name().startswith("post") and process.status() != psutil.STATUS_ZOMBIE


def _pid_in(lock: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return abs(int(lock.read_text().splitlines()[0]))
    return None


def _data_dir_in(lock: Path) -> Path | None:
    with suppress(OSError, IndexError):
        return Path(lock.read_text().splitlines()[1]).resolve()
    return None
