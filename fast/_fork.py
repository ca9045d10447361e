"""A forked child computes on one thread.

torch computes with OpenMP, whose threads a child does not inherit: the first loop that counts on them would wait for
them for ever, once the parent has used any. One thread counts on none. Whoever sets more threads in the child, or forks
while another thread of the parent computes, is back where that started: `spawn` or `forkserver` have no such limits.
"""

import os

import torch

__all__ = ["compute_alone"]


def compute_alone() -> None:
    """Compute on one thread from now on; runs in each forked child, see `register_at_fork` below."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # where there is a fork
    os.register_at_fork(after_in_child=compute_alone)
