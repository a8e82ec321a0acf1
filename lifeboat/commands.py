"""The only place that starts a process.

Rules of the house (docs: PREFECT rule 2): argument lists, never a shell; no inherited stdio; a parent-death signal;
a time-out of its own; secrets redacted; and the whole tree ended with the command, orphans of a killed tool too.
"""

import os
import pwd
import select
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lifeboat.command_streams import STDERR_TAIL_LINES, Readable, StderrReader, StdoutReader, Streams
from lifeboat.errors import PermanentError, TransientError

__all__ = [
    "STDERR_TAIL_LINES",
    "TAG_VARIABLE",
    "CommandFailed",
    "CommandTimeout",
    "Completed",
    "Readable",
    "Service",
    "ToolMissing",
    "effective_user",
    "end_tree",
    "run",
    "start_service",
]

TAG_VARIABLE = "LIFEBOAT_COMMAND"
_TERMINATE_GRACE_SECONDS = 5.0
_TICK_SECONDS = 0.5
_PIPE_GRACE_SECONDS = 0.5
_LAST_WORDS_BYTES = 64 * 1024
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


class CommandFailed(PermanentError):
    """A program ended with an exit code that is not accepted."""

    def __init__(self, program: str, returncode: int, stderr_tail: str) -> None:
        said = stderr_tail.strip() or "it printed no error"
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with exit code {returncode}"
        super().__init__(f"{program} {how}: {said}")
        self.program, self.returncode, self.stderr_tail = program, returncode, stderr_tail


class CommandTimeout(TransientError):
    """A program ran longer than allowed and was ended with its whole tree."""

    def __init__(self, program: str, timeout_seconds: float) -> None:
        super().__init__(
            f"{program} did not end within {timeout_seconds:g} s and was stopped",
            hint="Look for a lock, a full disk or a hung mount; raise the time-out only if it really needs longer.",
        )
        self.program, self.timeout_seconds = program, timeout_seconds


class ToolMissing(PermanentError):
    """A program is not installed or not executable."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"the program {program} is not there or cannot be executed",
            hint="Install it or correct the path in lifeboat.toml; `lifeboat doctor` lists what is needed.",
        )
        self.program = program


@dataclass(frozen=True)
class Completed:
    """What a finished command left behind."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr_tail: str
    duration_seconds: float


def effective_user(configured: str | None) -> str | None:
    """The account that server programs run as: None unless we are root, since nobody else can change user.

    Without a setting: `postgres`, or `nobody` on a machine that lacks it.
    """
    if os.geteuid() != 0:
        return None
    for name in (configured,) if configured else ("postgres", "nobody"):
        with suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise PermanentError(
        f"there is no account {configured!r} to run PostgreSQL's programs as",
        hint="PostgreSQL refuses to run as root: create the account or set `run_as` in lifeboat.toml.",
    )


def run(  # noqa: PLR0913 - one door for every process: the options belong to it
    argv: Sequence[str | Path],
    *,
    timeout_seconds: float | None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: Path | None = None,
    stdin: bytes | Readable | None = None,
    stdout_path: Path | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    on_stderr_line: Callable[[str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    secrets: Sequence[str] = (),
    accept: Collection[int] = (0,),
) -> Completed:
    """Run a program to its end and return what it printed.

    `timeout_seconds` None waits for ever. `user` counts only where we are root. `on_stderr_line` is called from a
    reader thread with each redacted line, `on_stdout` from another one with blocks of the output, which is then not
    kept, `on_tick` about twice a second from this one; what any of them raises ends the program and is raised here.
    After the return, whatever its cause, `on_stdout` is not called. Raises CommandFailed, CommandTimeout, ToolMissing.
    """
    words = [str(word) for word in argv]
    program = Path(words[0]).name
    began = time.monotonic()
    tag = uuid.uuid4().hex
    with _started(words, tag=tag, env=env, user=user, cwd=cwd, stdin=stdin, stdout_path=stdout_path) as process:
        streams = Streams(
            (process.stdin, stdin) if process.stdin is not None else None,
            StdoutReader(process.stdout, on_stdout) if process.stdout is not None else None,
            StderrReader(process.stderr, secrets, on_stderr_line),
        )
        try:
            _wait(process, timeout_seconds, on_tick, streams)
        except subprocess.TimeoutExpired as error:
            raise CommandTimeout(program, timeout_seconds or 0) from error
        finally:
            if process.returncode is None:
                end_tree(process.pid, tag)
                streams.end()
        # What a killed tool left behind holds its pipes open: it has to end before they can be read to the end.
        if not streams.finish(_PIPE_GRACE_SECONDS) or process.returncode != 0:
            end_tree(None, tag)
            streams.finish(None)
    if streams.failure is not None:
        raise streams.failure
    if process.returncode not in accept:
        raise CommandFailed(program, process.returncode, streams.stderr_tail)
    return Completed(tuple(words), process.returncode, streams.text(), streams.stderr_tail, time.monotonic() - began)


class Service:
    """A long-lived program of ours; what it prints is appended to `log_path`."""

    def __init__(self, process: "subprocess.Popen[bytes]", tag: str, log_path: Path) -> None:
        self._process, self._tag, self.log_path = process, tag, log_path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def returncode(self) -> int | None:
        """How it ended (negative: the signal that killed it), None while it runs."""
        return self._process.poll()

    def kill_alone(self) -> None:
        """Kill it at once, but not what it has started."""
        if self._process.poll() is None:
            self._process.kill()

    def is_alive(self) -> bool:
        """Whether it runs, or anything that it has started."""
        return self._process.poll() is None or any(_tagged(self._tag))

    def stop(self, *, timeout_seconds: float) -> None:
        """Ask it to end, wait, then end whatever is left of it and of what it started; may be called again."""
        with suppress(subprocess.TimeoutExpired):
            if self._process.poll() is None:
                self._process.terminate()
            self._process.wait(timeout_seconds)
        end_tree(None if self._process.returncode is not None else self.pid, self._tag)
        self._process.wait()

    def last_words(self, lines: int = 10) -> str:
        """The end of what it printed."""
        with self.log_path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])


def start_service(argv: Sequence[str | Path], *, env: Mapping[str, str], log_path: Path) -> Service:
    """Start a program that runs beside us, in a session of its own, until `stop` or until we die.

    `env` is its whole environment. Only the main thread may start one: the death signal comes when the thread that
    started it ends. Raises ToolMissing.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("services are started from the main thread")
    words = [str(word) for word in argv]
    program = shutil.which(words[0], path=env.get("PATH"))
    if program is None:
        raise ToolMissing(words[0])
    tag = uuid.uuid4().hex
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - an argument list from our own code
            [*_prefix(None), program, *words[1:]],
            env={**env, TAG_VARIABLE: tag},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(process, tag, log_path)


def _wait(
    process: "subprocess.Popen[bytes]",
    timeout_seconds: float | None,
    on_tick: Callable[[], None] | None,
    streams: Streams,
) -> None:
    deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
    with _end_of(process) as wait:
        while True:
            try:
                wait(max(0.0, min(_TICK_SECONDS, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    raise
            else:
                return
            if streams.output_failure is not None:
                raise streams.output_failure
            if on_tick is not None:
                on_tick()


@contextmanager
def _end_of(process: "subprocess.Popen[bytes]") -> Iterator[Callable[[float], object]]:
    """What waits for a process as `Popen.wait` does, but learns of its end at once.

    `Popen.wait` with a time-out looks every 50 ms: for a short program that is most of its time.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # an older kernel, or no Linux
        yield process.wait
        return

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)

    def wait(timeout_seconds: float) -> None:
        poll.poll(timeout_seconds * 1000)
        process.wait(0)

    try:
        yield wait
    finally:
        os.close(descriptor)


@contextmanager
def _started(  # noqa: PLR0913
    words: list[str],
    *,
    tag: str,
    env: Mapping[str, str] | None,
    user: str | None,
    cwd: Path | None,
    stdin: bytes | Readable | None,
    stdout_path: Path | None,
) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Engines read what tools print: the language must not depend on who starts us.
    environment |= {"LC_ALL": "C", **(env or {}), TAG_VARIABLE: tag}
    if user is not None and os.geteuid() == 0:
        environment["HOME"] = pwd.getpwnam(user).pw_dir
    program = shutil.which(words[0], path=environment.get("PATH"))
    if program is None:
        raise ToolMissing(words[0])
    target = stdout_path.open("wb") if stdout_path else None
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list from our own code
            [*_prefix(user), program, *words[1:]],
            env=environment,
            cwd=cwd or "/",
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=target or subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    finally:
        if target is not None:
            target.close()
    try:
        yield process
    finally:
        if process.poll() is None:
            end_tree(process.pid, tag)
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _prefix(user: str | None) -> list[str]:
    setpriv = shutil.which("setpriv")
    drop = user is not None and os.geteuid() == 0
    if setpriv is None:
        if drop:
            raise ToolMissing("setpriv")
        return []
    words = [setpriv, "--pdeathsig", "TERM"]
    if drop and user is not None:
        entry = pwd.getpwnam(user)
        words += ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--init-groups"]
    return [*words, "--"]


def end_tree(pid: int | None, tag: str | None) -> None:
    """End a process, its descendants, and every process that carries the command's tag: TERM, then KILL.

    The tag finds what a killed tool left behind: such orphans are no longer anybody's children.
    """
    victims: dict[int, psutil.Process] = {}
    if pid is not None:
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            victims |= {child.pid: child for child in [root, *root.children(recursive=True)]}
    if tag is not None:
        victims |= {process.pid: process for process in _tagged(tag)}
    for process in victims.values():
        with suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(list(victims.values()), timeout=_TERMINATE_GRACE_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _tagged(tag: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(TAG_VARIABLE) == tag and process.status() != psutil.STATUS_ZOMBIE:
                yield process
