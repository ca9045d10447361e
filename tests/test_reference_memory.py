"""K-means bank, addressing, recall and patch score against scikit-learn and PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from fmrnet.reference import memory

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 8), st.integers(1, 5))
def test_lloyd_from_the_same_centres_is_sklearn_kmeans(seed, entries, K):
    """KMeans(n_clusters, init=centres, n_init=1, tol=0, algorithm="lloyd").fit(latents).cluster_centers_"""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(60, K))
    centres = latents[rng.choice(60, entries, replace=False)]
    theirs = KMeans(entries, init=centres, n_init=1, tol=0, algorithm="lloyd").fit(latents).cluster_centers_
    assert np.allclose(memory.lloyd(latents, centres), theirs, rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 6))
def test_bank_finds_clusters_that_lie_apart(seed, entries):
    rng = np.random.default_rng(seed)
    centres = 100.0 * np.stack([np.arange(entries), rng.permutation(entries)], axis=1)
    noise = rng.normal(size=(entries, 20, 2))
    bank = memory.build_bank((centres[:, None] + noise).reshape(-1, 2), entries, seed)
    means = centres + noise.mean(axis=1)
    assert np.allclose(bank[bank[:, 0].argsort()], means[means[:, 0].argsort()], atol=1e-9)


def test_bank_is_as_good_as_sklearn_and_the_seed_decides():
    latents = np.random.default_rng(0).normal(size=(400, 6))
    bank = memory.build_bank(latents, 20, seed=3)

    def inertia(centres):
        return sum(memory.nearest_distance(z, centres)[0] ** 2 for z in latents)

    assert inertia(bank) < 1.1 * KMeans(20, n_init=3, random_state=0).fit(latents).inertia_
    assert np.array_equal(bank, memory.build_bank(latents, 20, seed=3))
    assert not np.array_equal(bank, memory.build_bank(latents, 20, seed=4))


def test_centres_without_latents_move_to_the_farthest_ones():
    latents = np.array([[0.0], [1.0], [2.0], [50.0], [80.0]])
    bank = memory.lloyd(latents, [[1.0], [1000.0], [2000.0]])
    assert np.allclose(np.sort(bank.ravel()), [1.0, 50.0, 80.0])


@given(seeds)
def test_as_many_entries_as_latents_gives_the_latents_back(seed):
    latents = np.random.default_rng(seed).normal(size=(9, 3))
    bank = memory.build_bank(latents, 9, seed)
    assert np.allclose(np.sort(bank, axis=0), np.sort(latents, axis=0), atol=1e-15)


@given(seeds, st.integers(1, 12), st.integers(1, 9), st.integers(1, 20))
def test_address_is_the_torch_network(seed, K, A, L):
    """torch.nn.Sequential(Linear(K, A), LeakyReLU(0.2), Linear(A, L), Softmax(-1)) in float64"""
    rng = np.random.default_rng(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(K, A), torch.nn.LeakyReLU(0.2), torch.nn.Linear(A, L), torch.nn.Softmax(-1)
    ).double()
    z = 3 * rng.normal(size=K)
    w1, b1, w2, b2 = (p.detach().numpy() for p in network.parameters())
    Q = memory.address(z, 5 * w1, b1, 5 * w2, b2)
    with torch.no_grad():
        network[0].weight *= 5
        network[2].weight *= 5
        theirs = network(torch.from_numpy(z)).numpy()
    # parameters() share memory with the numpy arrays: w1 and w2 have now been scaled, Q was computed before
    assert np.allclose(Q, theirs, rtol=0, atol=1e-13)
    assert Q.min() >= 0
    assert Q.sum() == pytest.approx(1, abs=1e-12)


def test_address_does_not_overflow():
    Q = memory.address([1.0], [[1.0]], [0.0], [[1e4], [-1e4]], [0.0, 0.0])
    assert np.array_equal(Q, [1.0, 0.0])


@given(seeds, st.integers(1, 10), st.integers(1, 6))
def test_recall_lies_in_the_hull_of_the_memory(seed, L, K):
    """Within the bounds of every direction, and the same as adding up the entries."""
    rng = np.random.default_rng(seed)
    M, Q = rng.normal(size=(L, K)), rng.dirichlet(np.ones(L))
    z_hat = memory.recall(Q, M)
    assert np.allclose(z_hat, sum(Q[i] * M[i] for i in range(L)), atol=1e-14)
    for direction in (*np.eye(K), *rng.normal(size=(5, K))):
        along = M @ direction
        assert along.min() - 1e-12 <= z_hat @ direction <= along.max() + 1e-12


@given(seeds)
def test_constant_memory_comes_back(seed):
    rng = np.random.default_rng(seed)
    entry = rng.normal(size=4)
    assert np.allclose(memory.recall(rng.dirichlet(np.ones(7)), np.tile(entry, (7, 1))), entry, atol=1e-14)


@given(seeds, st.integers(1, 30), st.integers(1, 6))
def test_nearest_distance_is_sklearn_nearest_neighbour(seed, L, K):
    """NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(memory).kneighbors([z])"""
    rng = np.random.default_rng(seed)
    M, z = rng.normal(size=(L, K)), rng.normal(size=K)
    distance, index = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(M).kneighbors([z])
    assert memory.nearest_distance(z, M) == (pytest.approx(distance[0, 0], abs=1e-12), index[0, 0])


def test_nearest_distance_of_an_entry_is_zero_and_the_first_of_equals_wins():
    assert memory.nearest_distance([1.0, 2.0], [[9, 9], [1, 2], [1, 2]]) == (0.0, 1)
    assert memory.nearest_distance([0.0], [[3.0], [-3.0]]) == (3.0, 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: memory.build_bank(np.eye(511)), "511 latents.*512 memory entries"),
        (lambda: memory.build_bank(np.eye(3), 4), "3 latents.*4 memory entries.*overlap"),
        (lambda: memory.build_bank(np.zeros((9, 2)), 2), "9 latents, 1 of them distinct"),
        (lambda: memory.lloyd(np.eye(3), np.eye(2)), "2 features but latents 3"),
        (lambda: memory.address([1.0], np.eye(2), [0, 0], np.eye(2), [0, 0]), r"w1 \(2, 2\)"),
        (lambda: memory.recall([1.0], np.eye(2)), "1 weights but memory 2 entries"),
        (lambda: memory.nearest_distance([1.0], np.eye(2)), "1 features but memory entries have 2"),
        (lambda: memory.nearest_distance([np.inf, 0], np.eye(2)), "NaN or infinite"),
    ],
)
def test_errors_say_what_was_given(call, says):
    with pytest.raises(ValueError, match=says):
        call()
