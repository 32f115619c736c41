"""Which kernels a training runs on (cuDNN's choice, TF32, torch.compile), and glibc's malloc."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch

from lira.errors import InputError, one_line


@contextlib.contextmanager
def fast_kernels(device: torch.device, precision: str, *, same_sizes: bool) -> Iterator[None]:
    """Inside, precision bf16 also allows TF32 (10 bits of mantissa) for what autocast leaves in fp32; precision fp32
    means fp32, in cuDNN too, whose default is TF32. same_sizes: all batches have one size, so cuDNN times its
    algorithms once per shape and keeps the fastest; with Poisson samples it would never stop timing.

    Raises InputError if torch.compile does not work here."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "bf16" else "highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=same_sizes, allow_tf32=precision == "bf16"):
            yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise InputError(f"--compile: torch.compile does not work here ({one_line(error)}); leave it out") from error
    finally:
        torch.set_float32_matmul_precision(before)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep large freed blocks. No effect on other systems.

    A training step on CPU frees and allocates the same activations of tens of megabytes again and again; by default
    the pages go back to the kernel each time, which must clear them before they are used again."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, 64 * 1024 * 1024)
