"""Discriminator and auxiliary classifier: built as section III says."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from weave import TINY

from fmrnet.learning.critics import AuxiliaryClassifier, Discriminator
from fmrnet.network.model import FMRNet

CONFIG = replace(TINY, image_channels=3, channels=(4, 5, 6, 7, 8))


def test_the_discriminator_is_the_encoder_and_a_linear_layer():
    torch.manual_seed(0)
    discriminator = Discriminator(CONFIG)
    shapes = {key: value.shape for key, value in FMRNet(CONFIG).encoder.state_dict().items()}
    assert {key: value.shape for key, value in discriminator.blocks.state_dict().items()} == shapes
    x = picture = torch.randn(3, 3, 64, 64)
    maps = []
    for block in discriminator.blocks:
        x = F.conv2d(x, block.conv.weight, stride=2, padding=1)
        x = F.leaky_relu(F.batch_norm(x, None, None, block.norm.weight, block.norm.bias, training=True), 0.2)
        maps.append(x)
    logit = x.flatten(1) @ discriminator.head.weight[0] + discriminator.head.bias
    judgement = discriminator(picture)
    torch.testing.assert_close(judgement.logit, logit)
    assert len(judgement.features) == 2
    for found, expected in zip(judgement.features, maps[2:4], strict=True):  # 3rd and 4th block, Eq 13
        torch.testing.assert_close(found, expected)


def test_a_larger_picture_is_judged_window_by_window():
    discriminator = Discriminator(replace(CONFIG, overlap=0.5))
    picture = torch.randn(2, 3, 128, 96)
    logit = discriminator(picture).logit
    assert logit.shape == (2 * 3 * 2,)
    changed = torch.cat((picture[:1], torch.randn(1, 3, 128, 96)))
    discriminator.eval()  # else the batch norms let the other picture through
    assert torch.allclose(discriminator(picture).logit[:6], discriminator(changed).logit[:6], atol=1e-6)
    assert not torch.allclose(discriminator(picture).logit[6:], discriminator(changed).logit[6:], atol=1e-3)


def test_the_classifier_has_512_256_and_1_neurons():
    torch.manual_seed(0)
    classifier = AuxiliaryClassifier(CONFIG)
    layers = [layer for layer in classifier.layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(32, 512), (512, 256), (256, 1)]
    z = x = torch.randn(5, 32)
    for layer in layers[:2]:
        x = F.leaky_relu(layer(x), 0.2)
    torch.testing.assert_close(classifier(z), layers[2](x)[:, 0])
