"""Machine: operating system, user, processor, memory and graphics processors. Runs in the collecting process. Standard library only."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import re
import subprocess
from typing import Any, Final

from asynctrack.provenance.git_command import find_program

# NVIDIA's program takes 0.05 to 2 s, most where no other program keeps the driver awake.
_NVIDIA_S: Final = 5.0
_MOST_BYTES: Final = 64 << 10
_NVIDIA: Final = "/proc/driver/nvidia"
_AMD: Final = "0x1002"


def describe_machine() -> dict[str, Any]:
    """Return what is known at once."""
    return {
        "host": os.uname().nodename,
        "user": _user(),
        "platform": _platform(),
        "cpu": {"model": _cpu_model(), "count": len(os.sched_getaffinity(0))},
        "memory_bytes": _memory_bytes(),
    }


def find_gpus() -> dict[str, Any]:
    """Return the graphics processors and their driver."""
    if os.path.isdir(_NVIDIA):
        gpus, driver = _asked_nvidia() or _noted_by_nvidia()
    else:
        gpus, driver = _noted_by_amd()
    return {"gpus": gpus, "gpu_driver": driver}


def _user() -> str | None:
    for name in ("LOGNAME", "USER"):
        if given := os.environ.get(name):
            return given
    import pwd  # it may ask a server

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def _platform() -> str:
    kernel = os.uname()
    with contextlib.suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel.sysname} {kernel.release} {kernel.machine}"
    return f"{kernel.sysname} {kernel.release} {kernel.machine}"


def _cpu_model() -> str | None:
    said = _read("/proc/cpuinfo")
    found = re.search(r"^(?:model name|Model|cpu model|cpu|Hardware)\s*:\s*(.+)$", said, re.MULTILINE)
    return found[1].strip() if found else os.uname().machine


def _memory_bytes() -> int | None:
    """Return the memory of the machine, or less where a control group may have less."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    sizes = [int(found[1]) << 10] if found else []
    group = re.search(r"^0::(/.*)$", _read("/proc/self/cgroup"), re.MULTILINE)
    path = "/sys/fs/cgroup" + (group[1].rstrip("/") if group else "")
    while path.startswith("/sys/fs/cgroup"):
        limit = _read(f"{path}/memory.max").strip()
        sizes += [int(limit)] if limit.isdigit() else []
        path = path.rpartition("/")[0]
    limit = _read("/sys/fs/cgroup/memory/memory.limit_in_bytes").strip()
    sizes += [int(limit)] if limit.isdigit() else []
    return min(sizes, default=None)


def _asked_nvidia() -> tuple[list[dict[str, Any]], str | None] | None:
    """Ask NVIDIA's program; None where there is none, or it does not answer."""
    if (program := find_program("nvidia-smi")) is None:
        return None
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_NVIDIA_S, check=True, cwd="/"
        )
        rows = [line.split(", ") for line in said.stdout[:_MOST_BYTES].decode("utf-8", "replace").splitlines() if line]
        gpus = [{"name": name, "memory_bytes": int(mib) << 20 if mib.isdigit() else None} for name, mib, _ in rows]
        return gpus, rows[0][2] if rows else None
    return None


def _noted_by_nvidia() -> tuple[list[dict[str, Any]], str | None]:
    """Read what NVIDIA's driver says of itself: names, and no sizes."""
    gpus = []
    for path in sorted(glob.glob(f"{_NVIDIA}/gpus/*/information")):
        found = re.search(r"^Model:\s*(.+)$", _read(path), re.MULTILINE)
        gpus.append({"name": found[1].strip() if found else None, "memory_bytes": None})
    version = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _read(f"{_NVIDIA}/version"))
    return gpus, version[1] if version else None


def _noted_by_amd() -> tuple[list[dict[str, Any]], str | None]:
    """Read what AMD's driver says of itself."""
    gpus = []
    for vendor in sorted(glob.glob("/sys/class/drm/card*/device/vendor")):
        device = os.path.dirname(vendor)
        size = _read(f"{device}/mem_info_vram_total").strip()
        if _read(vendor).strip() == _AMD and size.isdigit():
            gpus.append({"name": _read(f"{device}/product_name").strip() or "AMD", "memory_bytes": int(size)})
    return gpus, (_read("/sys/module/amdgpu/version").strip() or None) if gpus else None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
