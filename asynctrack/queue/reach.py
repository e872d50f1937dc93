"""Reach: in which shared memory a process looks for queues, in a line that it leaves for others. Standard library only.

The line is `HOST BOOT DEVICE:INODE,DEVICE:INODE`: the machine's name, its id since it was started, and the places for rings. Two processes whose machines
or places differ cannot have one queue, whatever the files say that they share.
"""

from __future__ import annotations

import os

from asynctrack.queue.shm_paths import shared_roots

_UNKNOWN = "-"


def here() -> str:
    """Describe this process."""
    found = []
    for root in shared_roots():
        try:
            stat = os.stat(root)
        except OSError:
            continue
        found.append(f"{stat.st_dev}:{stat.st_ino}")
    return f"{os.uname().nodename or _UNKNOWN} {boot() or _UNKNOWN} {','.join(found) or _UNKNOWN}"


def boot() -> str:
    """Return the id that the machine has had since it was started; empty where it has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def machine_out_of_reach(line: str) -> str | None:
    """Return the machine of a process that cannot share a queue with this one: empty where it is this one, in another container.

    Returns:
        None where both could, or where the line does not say.
    """
    said, mine = line.split(), here().split()
    if len(said) != 3 or len(mine) != 3:
        return None
    host, its_boot, places = said
    if _UNKNOWN not in (its_boot, mine[1]) and its_boot != mine[1]:
        return host
    if _UNKNOWN in (places, mine[2]) or set(places.split(",")) & set(mine[2].split(",")):
        return None
    return "" if its_boot == mine[1] != _UNKNOWN else host
