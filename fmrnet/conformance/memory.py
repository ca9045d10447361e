"""What must hold of addressing, recall (Eq 4, 5) and the distance to the nearest memory entry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from torch import Tensor

from .kernel import Kernel
from .oracles import ORACLES, Array
from .properties import Arguments, Property, agree_in_gradients, agree_with_oracle, must, scaled
from .strategies import fill, laid_out, layouts, seeds, values
from .tolerances import assert_close

__all__ = ["PROPERTIES"]

FULL = ("float64", "float32")


def _nearest(kernel: Kernel, z: Tensor, memory: Tensor) -> dict[str, Tensor]:
    """The distance is the oracle's; the entry named lies at that distance (of equal ones any will do)."""
    results = kernel(z=z, memory=memory)
    right = ORACLES[kernel.name](z=z, memory=memory)["distance"]
    scale = max(1e-2 * max(scaled(z), scaled(memory)), right.max(initial=0))
    assert_close(results["distance"], right, dtype=kernel.dtype, scale=scale, name="distance")
    index = results["index"].cpu()
    must(tuple(index.shape) == right.shape, f"index has shape {tuple(index.shape)}, right is {right.shape}")
    must(((index >= 0) & (index < len(memory))).all(), f"index names none of the {len(memory)} entries")
    named = torch.linalg.vector_norm(z.cpu().double() - memory.cpu().double()[index], dim=1)
    assert_close(named, right, dtype=torch.float32, scale=scale, name="distance of the named entry")
    return results


def matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """The distance is the oracle's, and the entry named lies at that distance."""
    most = 20 if kernel.small else 70
    count, entries = data.draw(st.integers(0, most)), data.draw(st.integers(1, most))
    length = data.draw(st.sampled_from((1, 2, 17, 130)))
    kinds, seed = (data.draw(values), data.draw(values)), data.draw(seeds)
    z, memory = fill(kinds[0], (count, length), seed), fill(kinds[1], (entries, length), seed + 1)
    if count and data.draw(st.booleans()):  # on entries and beside them
        near = np.random.default_rng(seed).integers(entries, size=count)
        z = memory[near] + 1e-3 * (np.arange(count) % 2)[:, None] * z
    _nearest(kernel, *(laid_out(kernel.tensor(t), data.draw(layouts)) for t in (z, memory)))


def takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No latents give no distances."""
    _nearest(kernel, kernel.tensor(np.zeros((0, 5))), kernel.tensor(fill("normal", (3, 5), 1)))


def distances_far_from_zero_keep_their_digits(kernel: Kernel, data: DataObject) -> None:
    """Entries far from 0 and close together: |z|^2 - 2 z.m + |m|^2 in float32 is all rounding."""
    memory = kernel.tensor(100 + 1e-3 * fill("normal", (40, 64), 1))
    memory[7] = memory[3]
    z = kernel.tensor(memory[[3, 20, 39]].double().cpu().numpy() + 1e-4 * fill("normal", (3, 64), 2))
    _exact(kernel, z, memory, [(3, 7), (20,), (39,)])


def _exact(kernel: Kernel, z: Tensor, memory: Tensor, entries: Sequence[Sequence[int]]) -> None:
    results = kernel(z=z, memory=memory)
    right = ORACLES[kernel.name](z=z, memory=memory)["distance"]
    assert_close(results["distance"], right, dtype=kernel.dtype, name="distance")
    wrong = [b for b, (i, known) in enumerate(zip(results["index"].tolist(), entries)) if i not in known]
    if wrong:
        b = wrong[0]
        must(
            False,
            f"index[{b}] is {int(results['index'][b])}, right is {entries[b][0]}; {len(wrong)} are wrong",
        )


def close_pairs_are_told_apart(kernel: Kernel, data: DataObject) -> None:
    """Two entries differ by less than the products' rounding in float32: only exact differences tell them apart."""
    bases = 10 * fill("normal", (40, 64), 1)
    memory = kernel.tensor(np.concatenate([bases, bases + 1e-4 * fill("normal", (40, 64), 2)]))
    z = kernel.tensor(memory.double().cpu().numpy() + 2e-5 * fill("normal", (80, 64), 3))
    _exact(kernel, z, memory, [(i,) for i in range(80)])


def nearest_of_many_is_never_swapped(kernel: Kernel, data: DataObject) -> None:
    """Among 300 entries the two nearest are often closer than the rounding of bfloat16 products."""
    z, memory = kernel.tensor(fill("normal", (600, 64), 1)), kernel.tensor(fill("normal", (300, 64), 2))
    nearest = ORACLES[kernel.name](z=z, memory=memory)["index"]
    _exact(kernel, z, memory, [(int(i),) for i in nearest])


def repeats_to_the_last_bit(kernel: Kernel, data: DataObject) -> None:
    """The same call gives the same bits."""
    arguments = _typical(kernel)
    first, *again = [kernel(**arguments) for _ in range(5)]
    for name, result in first.items():
        equal = all(torch.equal(result, other[name]) for other in again)
        must(equal, f"{name} differs between two equal calls")


def _typical(kernel: Kernel) -> Arguments:
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {
        "nearest_distance": ((5, 4), (3, 4)),
        "address": ((4, 6), (5, 6), (5,), (7, 5), (7,)),
        "recall": ((4, 7), (7, 6)),
    }
    inputs = [kernel.tensor(fill("normal", shape, i)) for i, shape in enumerate(shapes[kernel.name])]
    return dict(zip(kernel.parameters, inputs))


def gradients_agree(kernel: Kernel, data: DataObject) -> None:
    """The gradients are those of eager PyTorch in float64."""
    arguments = _typical(kernel)
    agree_in_gradients(kernel, arguments, list(arguments))


def gradient_at_distance_zero_is_zero(kernel: Kernel, data: DataObject) -> None:
    """A latent that lies on an entry gets the gradient 0, not 0 / 0."""
    memory = kernel.tensor(fill("normal", (3, 4), 2)).requires_grad_()
    distance = kernel.learnable(z=memory, memory=memory)["distance"]
    (gradient,) = torch.autograd.grad(distance.sum(), memory)
    must(not gradient.any(), "the gradient at distance 0 is not 0")


def address_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """Q is the oracle's and each row sums to 1."""
    seed, batch = data.draw(seeds), data.draw(st.integers(0, 4))
    shapes = {"z": (batch, 6), "w1": (5, 6), "b1": (5,), "w2": (7, 5), "b2": (7,)}
    scale = data.draw(st.sampled_from((1.0, 1e-3, 100.0)))  # at the last, exp() of it would overflow
    arguments: Arguments = {}
    for i, (name, shape) in enumerate(shapes.items()):
        tensor = kernel.tensor(fill("normal", shape, seed + i) * (scale if name in ("z", "w2") else 1))
        arguments[name] = laid_out(tensor, data.draw(layouts)) if tensor.ndim > 1 else tensor
    # the softmax amplifies what its arguments are rounded by
    Q = agree_with_oracle(kernel, arguments, max(1.0, _largest_affinity(arguments)))["Q"]
    assert_close(Q.sum(1), np.ones(batch), dtype=kernel.dtype, name="the sum of a row of Q")


def _largest_affinity(arguments: Arguments) -> float:
    z, w1, b1, w2, b2 = (value.double().abs() for value in arguments.values())
    return scaled((z @ w1.T + b1) @ w2.T + b2)


def recall_matches_the_oracle(kernel: Kernel, data: DataObject) -> None:
    """z_hat is the oracle's, for weights that sum to 1."""
    seed, batch = data.draw(seeds), data.draw(st.integers(0, 4))
    entries, length = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    query = np.random.default_rng(seed).dirichlet(np.ones(entries), batch)
    memory = kernel.tensor(fill(data.draw(values), (entries, length), seed))
    arguments = {
        "query": laid_out(kernel.tensor(query), data.draw(layouts)),
        "memory": laid_out(memory, data.draw(layouts)),
    }
    agree_with_oracle(kernel, arguments, scaled(memory))


def one_weight_recalls_one_entry(kernel: Kernel, data: DataObject) -> None:
    """All weight on one entry gives that entry."""
    memory = kernel.tensor(fill("normal", (7, 5), 1))
    entry = memory.double().cpu().numpy()
    found = kernel(query=kernel.tensor(np.eye(7)), memory=memory)["z_hat"]
    assert_close(found, entry, dtype=kernel.dtype, name="z_hat")


def recall_takes_an_empty_batch(kernel: Kernel, data: DataObject) -> None:
    """No weights give no latents."""
    empty: Array = np.zeros((0, 7))
    agree_with_oracle(
        kernel, {"query": kernel.tensor(empty), "memory": kernel.tensor(fill("normal", (7, 5), 1))}
    )


PROPERTIES = [
    Property("nearest_distance", matches_the_oracle, 30),
    Property("nearest_distance", takes_an_empty_batch),
    Property("nearest_distance", distances_far_from_zero_keep_their_digits, dtypes=FULL),
    Property("nearest_distance", close_pairs_are_told_apart, dtypes=FULL),
    Property("nearest_distance", nearest_of_many_is_never_swapped, dtypes=FULL),
    Property("nearest_distance", repeats_to_the_last_bit),
    Property("nearest_distance", gradients_agree, 1, True, FULL),
    Property("nearest_distance", gradient_at_distance_zero_is_zero, 1, True, FULL),
    Property("address", address_matches_the_oracle, 30, dtypes=FULL),
    Property("address", repeats_to_the_last_bit),
    Property("address", gradients_agree, 1, True, FULL),
    Property("recall", recall_matches_the_oracle, 30),
    Property("recall", one_weight_recalls_one_entry),
    Property("recall", recall_takes_an_empty_batch),
    Property("recall", repeats_to_the_last_bit),
    Property("recall", gradients_agree, 1, True, FULL),
]
