"""
Clear up after a server whose owner is gone.

Run as a program, with the server's directory as its only argument. It reads process ids from
standard input, ``+PID`` to take one over and ``-PID`` to let it go, until the pipe closes. The
owner holds the other end and nothing else does, so the pipe closes even when the owner is killed
with SIGKILL. Then every process still taken over is killed and the directory is deleted.

It runs outside the owner's package and environment: only the standard library may be imported.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

DELETE_SECONDS = 20.0


def descendants(pid: int) -> set[int]:
    """Return the ids of all living processes below ``pid``; empty where /proc is missing."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The command name stands in parentheses and may itself hold spaces and parentheses.
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: set[int] = set()
    queue = [pid]
    while queue:
        fresh = [child for child in children.get(queue.pop(), ()) if child not in found]
        found.update(fresh)
        queue.extend(fresh)
    return found


def kill_tree(pid: int) -> None:
    """
    Kill a process, its group and everything below it with SIGKILL.

    Each PostgreSQL backend is the leader of a group of its own, so killing the server's group
    alone leaves a busy backend behind, and that backend blocks a restart on the same data. The
    parent is stopped first, so that it cannot start new children while they are being listed.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for victim in descendants(pid):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def watch(directory: Path) -> None:
    """Follow the owner's messages until the pipe closes, then kill and delete."""
    # Ctrl-C and a closed terminal reach the whole session; the owner decides, not the watchdog.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    running: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line.startswith("+"):
            running.add(pid)
        else:
            running.discard(pid)
    for pid in running:
        kill_tree(pid)
    deadline = time.monotonic() + DELETE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        # A process that is just dying may still write, and its file makes rmdir fail.
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            time.sleep(0.05)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
