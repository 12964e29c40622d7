"""Telling systemd how this process does (the sd_notify protocol). Without systemd every call does nothing."""

from __future__ import annotations

import os
import socket


def ready(status: str = "") -> bool:
    """The service does its work from now on."""
    return _send("READY=1" + (f"\nSTATUS={_line(status)}" if status else ""))


def stopping() -> bool:
    """A clean stop has begun."""
    return _send("STOPPING=1")


def starting(text: str, for_s: float) -> bool:
    """The start takes longer: systemd waits this long from now on."""
    return _send(f"EXTEND_TIMEOUT_USEC={for_s * 1e6:.0f}\nSTATUS={_line(text)}")


def watchdog() -> bool:
    """The work goes on. Call it from the work itself, never from a timer beside it."""
    return _send("WATCHDOG=1")


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return _send(f"STATUS={_line(text)}")


def watchdog_s() -> float | None:
    """How long systemd waits for `watchdog` before it restarts this process; None when it does not wait."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    if not wanted.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(wanted) / 1e6 or None


def _line(text: str) -> str:
    return " ".join(text.split())


def _send(message: str) -> bool:
    """True when systemd took the message. A lost one is no reason to stop a batch: systemd acts on silence."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"}:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        try:
            out.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return False
    return True
