"""Drawn defects: rendered as the oracle renders them, local, varied, and fixed by the seed."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmrnet import fast
from fmrnet.learning.synthesis import MOST_SPECKLE, draw, lit, speckled, synthetic_defects
from fmrnet.reference import synthesis as oracle


def pictures(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([64, 96]), channels=st.sampled_from([1, 3]))
def test_drawn_parameters_give_the_oracles_picture(seed, size, channels):
    parameters = draw(3, size, torch.Generator().manual_seed(seed))
    image, source = pictures(seed, 3, channels, size, size), pictures(seed + 1, 3, channels, size, size)
    found, support = fast.synthesize(image.double(), source.double(), **{
        k: v.double() if v.is_floating_point() else v for k, v in parameters.items()
    })  # fmt: skip
    for i in range(3):
        one = {k: v[i].double().numpy() for k, v in parameters.items()}
        one["kind"] = int(one["kind"])
        expected = oracle.synthesize(
            *(t[i].permute(1, 2, 0).double().numpy() for t in (image, source)), **one
        )
        assert np.allclose(found[i].permute(1, 2, 0), expected[0], atol=1e-9)
        assert np.allclose(support[i], expected[1], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_outside_the_support_the_picture_stays(seed):
    image = pictures(seed, 8, 1, 64, 64)
    found, support = synthetic_defects(
        image, pictures(1, 8, 1, 64, 64), pictures(2, 8, 1, 64, 64), torch.Generator().manual_seed(seed)
    )
    outside = (support == 0)[:, None].expand_as(image)
    assert torch.allclose(found[outside], image[outside], rtol=0, atol=2e-7)
    assert found.min() >= 0
    assert found.max() <= 1


def test_repertoire_is_varied_and_local():
    generator = torch.Generator().manual_seed(0)
    image = torch.full((600, 1, 64, 64), 0.5)
    natural, own = pictures(1, 600, 1, 64, 64), torch.full_like(image, 0.3)
    parameters = draw(600, 64, torch.Generator().manual_seed(0))
    found, support = synthetic_defects(image, natural, own, generator)
    area = support.mean((1, 2))
    changed = (found - image).abs().amax((1, 2, 3))
    assert torch.bincount(parameters["kind"], minlength=3).min() > 150
    assert 0.3 < parameters["destructive"].mean() < 0.7
    assert (area < 0.6).float().mean() > 0.9  # a defect leaves most of the patch alone
    assert (area < 0.02).float().mean() > 0.1  # thin ones are there
    assert (area > 0.2).float().mean() > 0.1  # broad ones are there
    assert (changed > 0.02).float().mean() > 0.75  # most are there to be seen


def test_seed_fixes_the_defects():
    image, natural, own = (pictures(i, 4, 1, 64, 64) for i in range(3))
    found = [synthetic_defects(image, natural, own, torch.Generator().manual_seed(s))[0] for s in (5, 5, 6)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), channels=st.sampled_from([1, 3]), share=st.floats(0, 1))
def test_speckle_replaces_whole_pixels_of_some_pictures(seed, channels, share):
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((40, channels, 32, 32), 2.0)  # no value that noise could take
    spoilt = speckled(image, share, generator)
    hit = (spoilt != 2).all(1)
    assert torch.equal(hit, (spoilt != 2).any(1))
    assert spoilt[spoilt != 2].ge(0).all()
    assert spoilt[spoilt != 2].lt(1).all()
    parts = hit.float().mean((1, 2))
    assert parts.max() < MOST_SPECKLE + 0.06
    assert abs((parts > 0).float().mean() - share) < 0.3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), share=st.floats(0, 1))
def test_light_is_slow_and_all_channels_share_it_by_their_spread(seed, share):
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((40, 2, 33, 65), 0.5)
    change = lit(image, share, torch.tensor([0.01, 0.02]), generator) - image
    assert torch.allclose(2 * change[:, 0], change[:, 1], atol=1e-6)
    corners = change[:, :, :17:16, :33:32].mean((2, 3))  # of the upper left quarter
    assert torch.allclose(change[:, :, 8, 16], corners, atol=1e-6)
    assert change[:, 1].abs().max() < 0.02 * 5
    assert abs((change.abs().amax((1, 2, 3)) > 0).float().mean() - share) < 0.3
