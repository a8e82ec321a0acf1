"""Ports and proxies for tests."""

import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_KEY_DATA = b"K"


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now; below those that the kernel gives to connections meanwhile."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def pooler(server_socket: Path, port: int) -> Iterator[int]:
    """Stand between client and server as PgBouncer does: the start-up handshake names no real server process.

    Yields the TCP port. The first BackendKeyData message (protocol 3.0, 55.7) is rewritten.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(server_socket / f".s.PGSQL.{port}"))
                opened.extend([client, server])
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                threading.Thread(target=_pump_rewriting, args=(server, client), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        for each in opened:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)


def _pump_rewriting(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError), source.makefile("rb") as stream:
        while head := stream.read(5):
            kind, length = head[:1], struct.unpack("!I", head[1:])[0]
            body = stream.read(length - 4)
            if kind == _KEY_DATA:
                body = struct.pack("!I", 1) + body[4:]
            target.sendall(head + body)
