"""The node beside a line: a verdict at once, the rest decided above or here, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lines import Cloud, cloud_of, texture, until, write, write_model, written

import fmrnet
from fmrnet.deployment.node import EdgeNode


@pytest.fixture(scope="module")
def line_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("line") / "tiny.fmr")


@pytest.fixture(scope="module")
def cloud(line_model: Path) -> Iterator[Cloud]:
    with cloud_of(line_model) as running:
        yield running


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_verdicts_at_once_and_the_rest_from_the_cloud(line_model, cloud, watched, tmp_path):
    inspector = fmrnet.load(line_model, "cpu")
    before = len(cloud.asked)
    with EdgeNode(
        line_model, tmp_path / "out", watch=watched, cloud=cloud.url, line="A", device="cpu"
    ) as node:
        for seed in range(6):
            write(watched / f"{seed}.png", seed)
            until(lambda seed=seed: node.verdict(seed + 1))
        until(lambda: node.state()["totals"]["open"] == 0)
        assert node.troubles() == []
    verdicts = written(tmp_path / "out")
    assert [one["picture"] for one in verdicts] == [f"{seed}.png" for seed in range(6)]
    assert [one["number"] for one in verdicts] == list(range(1, 7))
    assert len(cloud.asked) - before == 3  # only what is not settled goes up
    assert cloud.asked[before:] == [one["request"] for one in verdicts if one["decided_by"] == "cloud"]
    for seed, one in enumerate(verdicts):
        expected = inspector.inspect(texture(seed), "auto")
        assert one["decided_by"] == ("cloud" if seed % 2 else "early exit")
        assert one["final"] and one["level"] == expected.level
        assert (one["defective"], one["p_value"]) == (expected.defective, expected.p_value)
        assert one["score"] == pytest.approx(expected.score, rel=1e-6)
