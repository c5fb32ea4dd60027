"""Memory of a training step on a CPU: kept for the next step, rather than handed back and faulted in again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of mallopt(3)


@contextmanager
def kept_heap() -> Iterator[None]:
    """Have glibc's malloc keep what is freed inside; afterwards it is given back. Nothing on other systems.

    By default large tensors are mapped one by one and unmapped when freed, and the end of the heap is cut off: a
    fifth of a ViT's training step is then the kernel clearing pages (docs/results/training).
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:  # where glibc's own adaptation ends up: a setting has switched that off
        libc.mallopt(MMAP_MAX, 65536)
        libc.mallopt(MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
