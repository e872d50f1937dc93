"""Clock library: sets the wall clock of processes that load it, ahead or back. Needs a C compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

# The C library's clocks, ahead by the seconds in the file that CLOCK_AHEAD names.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long long *ahead;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) ahead = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds) *seconds = now.tv_sec;
    return now.tv_sec;
}
"""


def build_clock(directory: Path) -> Path:
    """Build the library in a directory; what loads it (`LD_PRELOAD`) is ahead by the seconds in the file that `CLOCK_AHEAD` names."""
    (directory / "clock.c").write_text(CLOCK)
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=30)
    return directory / "clock.so"
