"""Several processes that train one network together, as `torchrun` starts them; without it, one alone.

Each draws the whole batch of a step and takes its share. Gradients (DistributedDataParallel), the statistics of batch
normalisation and every mean over a batch are those of all shares together, so that the loss curve is one process's. The
first process alone tells, writes, and does what is not divided.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from fmrnet import devices
from fmrnet.errors import ConfigError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store  # torch.distributed has it, and does not say so

__all__ = [
    "are_alike",
    "count",
    "from_first",
    "greatest",
    "is_first",
    "joined",
    "learner",
    "mean",
    "of_shares",
    "share",
    "wait",
]

MEETING = timedelta(minutes=5)  # that processes wait for one another at the start
LONGEST = timedelta(days=1)  # that they wait for the first one's part; one that ends is noticed at once
HEAD_START = 1.0  # seconds, for the process that tells why all end: torchrun ends it with any other


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the one that tells and writes; known before they meet."""
    return not _are_several() or os.environ.get("RANK", "0") == "0"


def _are_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"


def share(batch: Tensor) -> Tensor:
    """This process's rows of a batch, whose number the processes divide."""
    return batch.chunk(count())[dist.get_rank()] if dist.is_initialized() else batch


def of_shares(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """`function(batch)`, row by row; each process computes its share, or all if the rows cannot be shared evenly."""
    if count() == 1 or len(batch) % count():
        return function(batch)
    part = function(share(batch)).contiguous()
    parts = [torch.empty_like(part) for _ in range(count())]
    dist.all_gather(parts, part)
    return torch.cat(parts)


def mean(value: Tensor) -> Tensor:
    """Mean over the processes of a floating point tensor, without gradients."""
    if count() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / count()


def greatest(value: int) -> int:
    """The greatest of all processes' values, below 2^63."""
    if count() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def are_alike(value: int) -> bool:
    """Whether all processes have the same value; each of them hears the same answer."""
    return greatest(value) == -greatest(-value)


def from_first(tensor: Tensor) -> None:
    """Put the first process's values into everybody's tensor."""
    if count() > 1:
        dist.broadcast(tensor, 0)


def wait() -> None:
    """Until all processes are here."""
    greatest(0)


def learner(module: nn.Module) -> nn.Module:
    """The module to call in training: `module`, or what gives its parameters the gradients of the joint batch.

    All parameters that require a gradient must get one. The batch normalisations in `module` are changed.
    """
    if count() == 1:
        return module
    if next(module.parameters()).is_cuda:
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    else:
        for part in module.modules():
            if type(part) is nn.BatchNorm2d:
                part.__class__ = _JointNorm
    with (
        warnings.catch_warnings()
    ):  # the option has another name from torch 2.13 on, which 2.11 does not know
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Sum(torch.autograd.Function):
    """Sum over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        """(...) -> (...)."""
        total = own.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """(...) -> (...)."""
        return _Sum.forward(ctx, gradients[0])


class _JointNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the joint batch: what torch's SyncBatchNorm does on a GPU alone."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), of as many values in each process."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        own_variance, own_mean = torch.var_mean(values, (0, 2, 3), correction=0)
        # In 64 bits, so that the square of the mean may be taken off again.
        moments = torch.stack((own_mean, own_variance.double() + own_mean.double() ** 2))
        joint, square = _Sum.apply(moments) / count()  # type: ignore[no-untyped-call]
        variance = square - joint**2
        with torch.no_grad():
            number = values.numel() / len(joint) * count()
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(joint.float(), momentum)  # type: ignore[union-attr]
            self.running_var.lerp_((variance * (number / (number - 1))).float(), momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt().float()
        centred = values - joint.float()[:, None, None]
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(x.dtype)


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Train with the other processes while the block lasts; gives the device of this one.

    If one ends with an error, all end. One of them tells why, and the others fall silent. A block within the block
    changes nothing.

    Raises
    ------
    ConfigError
        If there is no such device, or torchrun's variables are wanting or its processes cannot be reached.
    ConnectionResetError
        If another process has ended without a word.
    """
    if dist.is_initialized() or not _are_several():
        yield devices.choose_device(device)
        return
    where = _own_device(device)
    store = _meet(where)
    try:
        yield where
    except BaseException as error:
        # torchrun ends the others when one ends; this one ends by itself, once it has told.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if not _tells(store):
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # until this process ends
            time.sleep(HEAD_START)
        if _is_loss(error):
            reason = "another process of this training has ended; repeat the command with --resume to go on"
            raise ConnectionResetError(errno.ECONNRESET, reason) from error
        raise
    finally:
        dist.destroy_process_group()


def _own_device(name: str) -> torch.device:
    """The CPU, or the GPU with the number of this process on its machine."""
    where = devices.choose_device(name)
    if where.type == "cpu":
        return where
    if where.index is not None:
        raise ConfigError(f"device {name!r} of several processes: expected cuda, of which each takes its own")
    own, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= there:
        raise ConfigError(
            f"process {own + 1} of this machine has no CUDA device, of which there are {there}: start {there}, or take "
            "--device cpu"
        )
    where = torch.device("cuda", own)
    torch.cuda.set_device(where)
    return where


def _meet(where: torch.device) -> Store:
    """Find the other processes; gives what all can write to."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {', '.join(missing)} missing: start processes that train "
            "together with torchrun, or unset WORLD_SIZE"
        )
    try:
        store: Store
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
        backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST)
    except (ValueError, RuntimeError) as error:
        given = ", ".join(f"{name} {os.environ[name]}" for name in names)
        (reason, *_) = str(error).splitlines() or ["no reason"]
        raise ConfigError(
            f"the processes of this training do not meet ({given}: {reason}); start them with torchrun"
        ) from error
    return store


def _tells(store: Store) -> bool:
    """Whether this process is the first to end, which tells why."""
    own = str(dist.get_rank())
    try:
        first: bytes = store.compare_set("fmrnet/ended", "", own)
    except RuntimeError:  # the store has gone with the process that kept it
        return True
    return first == own.encode()


def _is_loss(error: BaseException) -> bool:
    """Whether this says that another process cannot be reached any more."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
