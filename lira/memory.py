"""Keeping freed memory in the process."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc's malloc not to give large freed blocks back to the system.

    A training step on CPU frees and takes the same activations of tens of megabytes again and again; by default each
    round trip returns the pages to the kernel, which must clear them anew. Without effect on other systems."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 * 1024 * 1024)
