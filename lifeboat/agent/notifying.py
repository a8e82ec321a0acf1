"""What systemd is told of us (sd_notify(3)); without it, nothing happens.

Source of the protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import os
import socket
from contextlib import suppress

_VARIABLE = "NOTIFY_SOCKET"


def notify_systemd(*states: str) -> bool:
    """Send states such as `READY=1`; says whether there was anybody to tell."""
    address = os.environ.get(_VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    # An abstract socket is written with an @ and begins with a zero byte.
    target = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto("\n".join(states).encode(), target)
        return True
    return False
