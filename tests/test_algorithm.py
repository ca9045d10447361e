"""Training held to Algorithm 1 and Eq 10 to 16: each step beside the same step written down in plain PyTorch.

The transcription shares networks, pools and synthesis with the package, which have oracles and tests of their own, and
nothing of what a step is made of: what is drawn, what goes in, what is to come out, the losses, which weights move.
"""

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from weave import TINY, learn, make_pictures

from fmrnet import fast
from fmrnet.engines import background
from fmrnet.learning import data, fusion_training, generator_training, training
from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.learning.generator_training import Networks
from fmrnet.learning.synthesis import lit, speckled, synthetic_defects
from fmrnet.network.learned_fusion import defect_labels, size_weights
from fmrnet.network.model import FMRNet
from fmrnet.reference import patches as oracle

CONFIG = replace(  # every weight counts, and none is that of another
    TINY,
    image_channels=1,
    iterations=(3, 3, 3),
    batch_size=8,
    learning_rate=2e-3,
    weight_rec=10.0,
    weight_adv=3.0,
    weight_lat=2.0,
    compactness=0.7,
    epsilon=0.02,
    seed=5,
)
VARIANTS = {
    "adversarial, cosine": CONFIG,
    "no discriminator, constant, dense": replace(
        CONFIG, weight_adv=0.0, schedule="constant", mixing="dense", by_rarity=False, seed=2
    ),
}
CLOSE = 0.05  # of what a weight has moved by since its phase began; rounding makes less, and a fault more


def state_of(networks):
    return {
        f"{name}.{key}": value.clone()
        for name, module in networks.modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request, tmp_path_factory):
    """A training of the package: settings, pools, and everything that learns before the first and after each step."""
    config = VARIANTS[request.param]
    good = make_pictures(tmp_path_factory.mktemp("weave"))
    states, runs = [], []
    updates = {generator_training: generator_training.update, fusion_training: fusion_training.update}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training.devices, "autocast", lambda device: contextlib.nullcontext()
        )  # 32 bits throughout

        def begin(networks, phase, begin=Networks.begin):
            runs.append(networks)
            states.append((phase, 0, state_of(networks)))
            return begin(networks, phase)

        def watch(module):
            def update(*arguments):
                loss = updates[module](*arguments)
                states.append((*following(states[-1]), state_of(runs[-1])))
                return loss

            return update

        patch.setattr(Networks, "begin", begin)
        for module in updates:
            patch.setattr(module, "update", watch(module))
        learn(good, good.parent / "model", config=config, seed=config.seed)
    pictures, _ = data.load_good_pictures(good, 64)
    learnt = pictures[:4]
    good_pool = data.GoodPool(learnt, 64) if config.by_rarity else data.PicturePool(learnt)
    natural_pool = data.load_natural_pictures(good.parent / "natural", 1, 64)
    return config, learnt, good_pool, natural_pool, {(phase, step): state for phase, step, state in states}


def following(state):
    phase, step, _ = state
    return phase, step + 1


def test_every_step_is_there(trained):
    config, *_, states = trained
    assert list(states) == [
        (phase + 1, step) for phase in range(3) for step in range(config.iterations[phase] + 1)
    ]


def test_training_is_algorithm_1(trained):
    config, learnt, good, natural, states = trained
    torch.manual_seed(config.seed)
    model, dis, c_a = FMRNet(config), Discriminator(config), AuxiliaryClassifier(config)
    values = np.concatenate([picture.reshape(-1, 1) for picture in learnt])
    model.mean, model.std = torch.from_numpy(values.mean(0)), torch.from_numpy(values.std(0))
    networks = Networks(model, dis, c_a)
    gfrm = list(model.mixing)
    decoder = [*model.decoder.parameters(), *model.output.parameters()]

    # Training phase 1, lines 1-11
    begun = state_of(networks)
    renew = Renewal(
        config.iterations[0], config, [*model.encoder.parameters(), *decoder, *gfrm, *c_a.parameters()]
    )
    renew_dis = Renewal(config.iterations[0], config, dis.parameters())
    for i in range(config.iterations[0]):
        draw = drawing(config.seed, 1, i)
        p0, p_pos = good.crops(2 * config.batch_size, 64, draw).chunk(2)
        p_neg, _ = synthetic_defects(p0, natural.crops(config.batch_size, 64, draw), p_pos, draw)
        r, skips = model.encode(torch.cat((p0, p_pos, p_neg)))
        r0, r_pos, r_neg = r.split(config.batch_size)
        rec = model.decode(r0, tuple(skip[: config.batch_size] for skip in skips))
        l_lat = entropy(c_a(r_pos), 1) + entropy(c_a(r_neg), 0)
        l_lat = l_lat + config.compactness * (r_pos - r0).square().sum(1).sqrt().mean()
        l_1 = config.weight_rec * l_rec(config, model, p0, rec, renew.parameters)
        if config.weight_adv:
            l_1 = l_1 + config.weight_adv * l_adv(dis, renew_dis, i, model.normalise(p0), rec)
        renew(i, l_1 + config.weight_lat * l_lat)
        assert_close(states, 1, i + 1, networks, begun)

    # Memory bank establishment, lines 12-16
    model.encoder.eval()
    assert_is_bank(states[2, 0]["model.memory"], model, learnt)
    begun = take_over(states[2, 0], networks)

    # Training phase 2, lines 17-26: E and its batch normalisation are locked, the target is the good picture
    renew = Renewal(config.iterations[1], config, [*decoder, *gfrm, *model.addressing.parameters()])
    renew_dis = Renewal(config.iterations[1], config, dis.parameters())
    for i in range(config.iterations[1]):
        draw = drawing(config.seed, 2, i)
        p0, other = good.crops(2 * config.batch_size, 64, draw).chunk(2)
        p_neg, _ = synthetic_defects(p0, natural.crops(config.batch_size, 64, draw), other, draw)
        p_neg = speckled(p_neg, config.speckle, draw)
        with torch.no_grad():
            r, skips = model.encode(p_neg)
        rec = model.decode(model.restore(r), skips)
        l_2 = config.weight_rec * l_rec(config, model, p0, rec, renew.parameters)
        if config.weight_adv:
            l_2 = l_2 + config.weight_adv * l_adv(dis, renew_dis, i, model.normalise(p0), rec)
        renew(i, l_2)
        assert_close(states, 2, i + 1, networks, begun)

    # The learned fusion: the generator is done, and restores what has defects, light and noise
    begun = take_over(states[3, 0], networks)
    model.eval()
    crops = fusion_crops(config, model, good, natural)
    model.fusion.train()
    renew = Renewal(config.iterations[2], replace(config, learning_rate=3e-3), model.fusion.parameters())
    for i in range(config.iterations[2]):
        draw = drawing(config.seed, 3, i)
        chosen = torch.randint(config.iterations[2], (config.batch_size // 4,), generator=draw)
        flip_x, flip_y = (torch.rand((), generator=draw) < 0.5 for _ in range(2))
        image, restored, label = (crop[chosen].half().float() for crop in crops)
        image, restored, label = (t.flip(-1) if flip_x else t for t in (image, restored, label))
        image, restored, label = (t.flip(-2) if flip_y else t for t in (image, restored, label))
        logit = model.fusion(fast.fusion_inputs(image, restored, model.mean, model.std)[0])
        right = torch.where(label == 1, torch.sigmoid(logit), torch.sigmoid(-logit))
        focal = size_weights(label) * (1 - right) ** 2 * -right.log()
        renew(i, focal[label != -1].mean())
        assert_close(states, 3, i + 1, networks, begun)


class Renewal:
    """Adam from its beginning on some parameters, with the learning rate theta of each of the phase's steps."""

    def __init__(self, total, config, parameters):
        self.parameters = list(parameters)
        self.total, self.config = total, config
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    @torch.no_grad()
    def __call__(self, i, loss):
        theta = self.config.learning_rate
        if self.config.schedule == "cosine":
            theta *= (1 + math.cos(math.pi * i / self.total)) / 2
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        for parameter, gradient, (mean, square) in zip(self.parameters, gradients, self.moments, strict=True):
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient**2, 0.001)
            step = mean / (1 - 0.9 ** (i + 1)) / ((square / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
            parameter -= theta * step


def drawing(*fixed):
    """What a step draws from, fixed by seed, phase and step."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(fixed).generate_state(1)[0]))


def entropy(logit, label):
    """Eq 3, with one label for all: the mean over the batch."""
    return -(torch.sigmoid(logit) if label else torch.sigmoid(-logit)).log().mean()


def l_rec(config, model, image, reconstruction, parameters):
    """Eq 10, in the network's own scale; the weight matrices are those that the phase trains."""
    error = (model.normalise(image) - reconstruction).square().mean()
    return error + config.epsilon * sum(w.square().sum().sqrt() for w in parameters if w.ndim > 1)


def l_adv(dis, renew_dis, i, real, fake):
    """Eq 11 to 13, of the discriminator as it is after its own step on these pictures."""
    judged = dis(real)
    renew_dis(i, entropy(judged.logit, 1) + entropy(dis(fake.detach()).logit, 0))
    again = dis(fake)
    l_per = sum(
        (a.detach() - b).abs().mean() / 2 for a, b in zip(judged.features, again.features, strict=True)
    )
    return entropy(again.logit, 1) + l_per


@torch.no_grad()
def fusion_crops(config, model, good, natural):
    """As many as there are steps, here less than 16 and so of one draw."""
    count, size = config.iterations[2], 80  # the side of the natural picture, less than two patches
    draw = drawing(config.seed, 3, 2**31)
    normal, own = good.crops(2 * count, size, draw).chunk(2)
    contents = natural.crops(count, size, draw)
    normal = lit(normal, config.light, good.light(64), draw)
    synthetic, support = synthetic_defects(normal, contents, own, draw)
    label = defect_labels(normal, synthetic, support, model.std)
    synthetic = speckled(synthetic, config.speckle, draw, least=0.05)
    restored = background.restore_crops(model, synthetic)
    return fast.without_light(synthetic, restored, model.std), restored, label


@torch.no_grad()
def assert_is_bank(entries, model, learnt):
    """A fixed point of K-means on the latents of all patches, 8 pixels apart, of the pictures that are learnt from."""
    cut = [oracle.slice_patches(picture, 64, 8)[0] for picture in learnt]
    patches = torch.from_numpy(np.concatenate(cut)).permute(0, 3, 1, 2).float()
    latents = model.encode(patches).z
    nearest = torch.cdist(latents, entries).argmin(1)
    for number, entry in enumerate(entries):
        torch.testing.assert_close(entry, latents[nearest == number].mean(0), rtol=1e-3, atol=1e-4)


def take_over(state, networks):
    """Begin a phase where the package did, so that rounding does not add up."""
    for name, module in networks.modules.items():
        module.load_state_dict({key: state[f"{name}.{key}"] for key in module.state_dict()})
    return state


def assert_close(states, phase, step, networks, begun):
    """What has moved since the phase began has moved as it should; all else is where it was, to the bit."""
    for key, value in state_of(networks).items():
        found, before = states[phase, step][key], states[phase, 0][key]
        if torch.equal(value, begun[key]) or key == "model.memory":
            assert torch.equal(found, before) or bool(found.isnan().all()), (
                f"phase {phase}, step {step}: {key} moved"
            )
            continue
        moved, there = (value - begun[key]).double(), (found - before).double()
        assert (there - moved).norm() <= CLOSE * moved.norm(), (
            f"phase {phase}, step {step}: {key} should have moved by {moved.norm():.3g}, and did by {there.norm():.3g}"
        )
