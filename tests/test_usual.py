"""What witnesses usually say at a place: the oracle's numbers, parts of pictures, and what a file may hold of it."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import usual
from fmrnet.config import preset
from fmrnet.errors import ArtifactError
from fmrnet.learning import general_training
from fmrnet.network import general
from fmrnet.network.model import FMRNet
from fmrnet.reference import general as witnesses
from fmrnet.reference import usual as oracle
from fmrnet.usual import BANDS, CELL, Usual

seeds = st.integers(0, 2**20)
sides = st.integers(33, 130)


def known(generator, count=3, places=(12, 17)):
    return Usual(generator.normal(size=(count, BANDS)), generator.normal(size=(count, *places)))


def filled(size):
    return tuple(side + -side % 32 for side in size)


@given(seed=seeds, size=st.tuples(sides, sides), places=st.tuples(*2 * [st.integers(1, 33)]))
def test_what_is_usual_at_a_place_is_the_oracles(seed, size, places):
    """In pictures of the size of the good ones, of one alike, and of any other, which has no places."""
    given_ = known(np.random.default_rng(seed), places=places)
    found = given_.at(filled(size), size)
    assert np.array_equal(usual.bands(filled(size), size), oracle.bands(filled(size), size))
    assert usual.alike(size, places) == oracle.alike(size, places)
    expected = [oracle.usual(*one, filled(size), size) for one in zip(given_.near, given_.place)]
    np.testing.assert_allclose(found, [*np.exp(expected[:2]), expected[2]], rtol=1e-5, atol=1e-5)
    nowhere = Usual(given_.near, given_.place[:, :0, :0]).at(filled(size), size)
    assert usual.alike(size, places) or np.array_equal(found, nowhere)


@given(seed=seeds, shape=st.tuples(*2 * [st.integers(1, 9)]), times=st.integers(1, 4))
def test_resized_is_the_oracles_and_scipys(seed, shape, times):
    values = np.random.default_rng(seed).normal(size=(2, *shape))
    whole = tuple(times * side for side in shape)
    found = usual.resized(values, whole, whole)
    zoomed = scipy.ndimage.zoom(values, (1, times, times), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, zoomed, atol=1e-12)
    count = (whole[0] + 2, whole[1] + 3)
    for one, expected in zip(usual.resized(values, whole, count), values, strict=True):
        np.testing.assert_allclose(one, oracle.resized(expected, whole, count), atol=1e-12)


@given(seed=seeds, size=st.tuples(*2 * [st.integers(200, 300)]), data=st.data())
def test_what_is_usual_in_a_part_is_that_part_of_it(seed, size, data):
    given_ = known(np.random.default_rng(seed), places=usual.cells((250, 250)))
    whole = given_.at(filled(size), size)
    corner, part = [], []
    for side in filled(size):
        start = data.draw(st.integers(0, side // 32 - 1))
        corner.append(32 * start)
        part.append(32 * data.draw(st.integers(1, side // 32 - start)))
    rows, columns = (
        slice(start // CELL, (start + side) // CELL) for start, side in zip(corner, part, strict=True)
    )
    np.testing.assert_allclose(
        given_.at(tuple(part), size, tuple(corner)), whole[:, rows, columns], rtol=1e-6
    )


@given(seed=seeds, witness=st.integers(0, 2))
def test_maps_in_cells_are_the_oracles(seed, witness):
    cell = general.GRIDS[witness]
    values = np.random.default_rng(seed).exponential(size=(96 // cell, 128 // cell))
    found = general.in_cells(witness, torch.from_numpy(values)[None], cell)[0]
    np.testing.assert_allclose(found, witnesses.in_cells(values, witness), rtol=1e-9)


@pytest.fixture(scope="module")
def instant():
    torch.manual_seed(0)
    return FMRNet(preset("instant")).eval()


def maps_of(model, pictures):
    """What both witnesses say of each picture, in cells."""
    with torch.no_grad():
        found = [model.general.evidence(model.filled(picture[None])) for picture in pictures]
    return [
        [witnesses.in_cells(one[number][0].numpy(), number) for one in found]
        for number in range(len(found[0]))
    ]


@settings(max_examples=6)
@given(seed=seeds, count=st.sampled_from([3, 8, 9]))
def test_what_is_usual_is_the_oracles(instant, seed, count):
    """Of pictures of three sizes, one of which is not alike; of fewer than eight alike, no places are known."""
    sizes = [(70, 100), (70, 100), (160, 100), *(count - 1) * [(66, 104)]]
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.rand(1, *size, generator=generator) for size in sizes]
    general_training.fit_usual(instant, pictures, whole=True)
    cells = (17, 26)
    for number, maps in enumerate(maps_of(instant, pictures)):
        near = oracle.near(maps, sizes)
        np.testing.assert_allclose(instant.general.near[number], near, rtol=1e-4, atol=1e-5)
        expected = oracle.place(maps, sizes, near, cells, oracle.QUIETEST)
        if count == 3:
            assert instant.general.place.shape == (2, 0, 0)
            assert not expected.any()
        else:
            np.testing.assert_allclose(instant.general.place[number], expected, atol=1e-4)
            assert np.abs(expected).max() > 1e-3
    general_training.fit_usual(instant, pictures, whole=False)
    assert instant.general.place.shape == (2, 0, 0)


def test_a_place_that_is_loud_in_every_good_picture_is_quiet_and_one_that_is_not_is_loud():
    """As much is taken off as good pictures agree on: nearly all of a stripe at one place, nearly nothing of noise."""
    generator = np.random.default_rng(0)
    size, striped = (96, 128), np.zeros((24, 32))
    striped[:, 10:12] = 2.0
    loud = [striped + 0.3 * generator.normal(size=(24, 32)) for _ in range(20)]
    found = oracle.place(loud, [size] * 20, np.zeros(BANDS), (24, 32))
    assert found[:, 10:12].mean() - found[:, 14:].mean() == pytest.approx(2, rel=0.1)
    noise = [generator.normal(size=(24, 32)) for _ in range(20)]
    assert np.abs(oracle.place(noise, [size] * 20, np.zeros(BANDS), (24, 32))).max() < 0.1


def test_a_place_that_is_quiet_in_every_good_picture_is_not_too_sure_of_itself():
    """White beside a cloth, at the end of the sensor's range: a lamp a tenth dimmer must not make a defect of it."""
    generator = np.random.default_rng(0)
    size, striped = (96, 128), np.zeros((24, 32))
    striped[:, 10:12] = -2.0
    maps = [striped + 0.1 * generator.normal(size=(3, 24, 32)) for _ in range(20)]
    near = np.zeros((3, BANDS))
    found = general_training._places(maps, [size] * 20, near)
    for number, place in enumerate(found):
        of_a_distance = number < general.GAUSSIANS
        quietest = oracle.QUIETEST if of_a_distance else -np.inf
        each = [one[number] for one in maps]
        np.testing.assert_allclose(
            place, oracle.place(each, [size] * 20, near[0], (24, 32), quietest), atol=1e-12
        )
        assert (place[:, 10:12] == oracle.QUIETEST).all() if of_a_distance else place[:, 10:12].max() < -1.5


def test_what_no_model_can_hold_is_refused():
    near, place = np.zeros((3, BANDS), np.float32), np.zeros((3, 4, 5), np.float32)
    weights = {"general.near": near, "general.place": place}
    assert Usual.of(weights).at((32, 32), (32, 32)).shape == (3, 8, 8)
    for wrong in (
        {},
        {"general.near": near},
        {"general.near": near[:, 1:], "general.place": place},
        {"general.near": near, "general.place": place[:2]},
        {"general.near": near, "general.place": place[0]},
        {"general.near": near.astype(np.float16), "general.place": place},
        {"general.near": near, "general.place": np.broadcast_to(np.float32(0), (3, 2**10, 2**9))},
    ):
        with pytest.raises(ArtifactError, match="train the model again"):
            Usual.of(wrong)
    for name in weights:
        with pytest.raises(ArtifactError, match="expected up to 30"):
            Usual.of(weights | {name: weights[name] + np.float32(31)})
    assert Usual.of(weights | {"general.near": near + np.float32([[0], [0], [31]])}).near[2, 0] == 31
