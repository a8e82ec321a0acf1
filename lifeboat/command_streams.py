"""The threads that keep the pipes of a running program moving; `lifeboat.commands` starts them."""

import fcntl
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Protocol

STDERR_TAIL_LINES = 40
_BLOCK_BYTES = 1024 * 1024
# Tools write 4 kB at a time. Where we are faster, each would wake us: half of the processor's time goes to that.
_SMALL_BLOCK_BYTES = 128 * 1024
_FILLING_SECONDS = 0.002


class Readable(Protocol):
    """Anything that a program's input can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; none at the end."""
        ...


class StderrReader(threading.Thread):
    """Drains stderr line by line, redacts, keeps the tail, and passes lines on."""

    def __init__(self, stream: IO[bytes] | None, secrets: Sequence[str], on_line: Callable[[str], None] | None) -> None:
        super().__init__(daemon=True, name="stderr")
        self._stream, self._secrets, self._on_line = stream, [s for s in secrets if s], on_line
        self.tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self.failure: Exception | None = None

    def run(self) -> None:
        """Read until the program closes its stderr."""
        # Progress lines end in a bare carriage return: universal newlines would need a text stream, which may block.
        with suppress(ValueError):
            for raw in self._stream or ():
                for piece in raw.decode("utf-8", "replace").replace("\r", "\n").splitlines():
                    self._take(piece.rstrip())

    def _take(self, line: str) -> None:
        for secret in self._secrets:
            line = line.replace(secret, "***")
        if not line:
            return
        self.tail.append(line)
        if self._on_line is None or self.failure is not None:
            return
        try:
            self._on_line(line)
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, where run() raises it
            self.failure = error


class StdoutReader(threading.Thread):
    """Drains stdout: keeps all of it, or hands it on block by block, keeping nothing."""

    def __init__(self, stream: IO[bytes], on_block: Callable[[bytes], None] | None) -> None:
        super().__init__(daemon=True, name="stdout")
        self._stream, self._on_block = stream, on_block
        self._kept: list[bytes] = []
        self._ended = False
        self.failure: Exception | None = None

    def run(self) -> None:
        """Read until the program closes its stdout, or `on_block` raises."""
        with suppress(ValueError):
            if self._on_block is None:
                self._kept.append(self._stream.read())
                return
            with suppress(OSError, AttributeError):  # only faster: fewer switches between the two processes
                fcntl.fcntl(self._stream.fileno(), fcntl.F_SETPIPE_SZ, _BLOCK_BYTES)
            while not self._ended and (block := self._stream.read1(_BLOCK_BYTES)):  # type: ignore[attr-defined] # a pipe
                self._hand_on(block)
                if len(block) < _SMALL_BLOCK_BYTES:
                    time.sleep(_FILLING_SECONDS)

    def _hand_on(self, block: bytes) -> None:
        try:
            if self._on_block is not None:
                self._on_block(block)
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, where run() raises it
            self.failure = error
            self._ended = True
            self._stream.close()  # the program does not wait for a reader that has gone

    def end(self) -> None:
        """Hand on nothing more; returns when a call that is under way has returned."""
        self._ended = True
        if self._on_block is not None and self.is_alive():
            self.join()

    def text(self) -> str:
        """What the program wrote."""
        return b"".join(self._kept).decode("utf-8", "replace")


class StdinFeeder(threading.Thread):
    """Writes a program's input and closes it."""

    def __init__(self, stream: IO[bytes], data: bytes | Readable | None) -> None:
        super().__init__(daemon=True, name="stdin")
        self._stream, self._data = stream, data
        self.failure: Exception | None = None

    def run(self) -> None:
        """Write all of it, or until the program no longer reads."""
        # A program that ends without reading its input says why on stderr; the broken pipe itself says nothing.
        try:
            with suppress(BrokenPipeError, ValueError):
                if isinstance(self._data, bytes):
                    self._stream.write(self._data)
                elif self._data is not None:
                    shutil.copyfileobj(self._data, self._stream, _BLOCK_BYTES)
        except Exception as error:  # noqa: BLE001 - what reading the input raised is raised by run(), in its caller's thread
            self.failure = error
        finally:
            # Left open, it would have the program wait for the rest for ever.
            with suppress(BrokenPipeError, ValueError):
                self._stream.close()


class Streams:
    """All pipes of one program."""

    def __init__(
        self,
        stdin: tuple[IO[bytes], bytes | Readable | None] | None,
        stdout: StdoutReader | None,
        stderr: StderrReader,
    ) -> None:
        self._feeder = StdinFeeder(*stdin) if stdin else None
        self._stdout, self._stderr = stdout, stderr
        self._threads = [thread for thread in (stderr, self._feeder, stdout) if thread is not None]
        for thread in self._threads:
            thread.start()

    def finish(self, timeout_seconds: float | None) -> bool:
        """Whether all pipes were read to their end."""
        for thread in self._threads:
            thread.join(timeout_seconds)
        return not any(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        """Call the caller's code no more."""
        if self._stdout is not None:
            self._stdout.end()

    @property
    def output_failure(self) -> Exception | None:
        """What the caller's code raised when it was given output: the program has to end."""
        return self._stderr.failure or (self._stdout.failure if self._stdout else None)

    @property
    def failure(self) -> Exception | None:
        """What went wrong in any of the threads."""
        return self.output_failure or (self._feeder.failure if self._feeder else None)

    @property
    def stderr_tail(self) -> str:
        """The last lines of stderr."""
        return "\n".join(self._stderr.tail)

    def text(self) -> str:
        """What the program wrote to stdout."""
        return self._stdout.text() if self._stdout else ""
