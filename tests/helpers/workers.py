"""Several workers of one run, as threads of this process."""

from concurrent.futures import ThreadPoolExecutor

import torch.distributed as dist

from lira.training.workers import Workers


def workers_of_a_run(n) -> list[Workers]:
    """n workers that share a store."""
    store = dist.HashStore()
    return [Workers(rank, n, rank, n, store=store) for rank in range(n)]


def in_threads(*calls) -> list:
    """What these calls return, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as executor:
        return [future.result(timeout=60) for future in [executor.submit(call) for call in calls]]
