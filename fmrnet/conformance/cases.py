"""The registry: every function, every size, every candidate, and how its result is held to the oracle.

A case makes its own data on a device. A candidate is a call without arguments; `agrees` raises unless what it returns
is the oracle's answer (for panels and large batches: on windows and samples of it). Candidates of this package are
named after their backend; all others are what a user would write or install instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from fmrnet import fast, reference

Array = npt.NDArray[Any]

OURS = ("eager", "numba", "triton")
PICTURES = {  # B, C, H, W
    "64 patches": (64, 3, 64, 64),
    "2400 patches": (2400, 3, 64, 64),
    "512 x 512": (1, 3, 512, 512),
    "rail 1024 x 64": (1, 3, 1024, 64),
    "panel 2560 x 3840": (1, 3, 2560, 3840),
}
FEATURES = {  # the skip F_D of the paper's channels: B, C, H, W; K = 2
    "64 patches, N = 4": (64, 512, 4, 4),
    "64 patches, N = 16": (64, 256, 8, 8),
    "2400 patches, N = 16": (2400, 256, 8, 8),
    "rail, N = 256": (1, 256, 128, 8),
    "512 x 512, N = 1024": (1, 256, 64, 64),
}
SEEN = ("512 x 512",)  # of PICTURES, by the learned fusion
FUNCTIONS = (
    "anomaly_map",
    "fusion_inputs",
    "nearest_distance",
    "rearrange_textons",
    "synthesize",
    "without_light",
)
GRADIENTS = ", with gradients"
LATENTS = {"64 to 512": (64, 2048, 512), "2400 to 512": (2400, 2048, 512)}


@dataclass
class Candidate:
    """A call without arguments, and what raises unless its result is right."""

    name: str
    call: Callable[[], Any]
    agrees: Callable[[Any], None] | None  # None: a yardstick that computes something else, said in its name


@dataclass
class Case:
    """A function at one size. `run` calls any function of its kind on the case's inputs."""

    function: str  # of fmrnet.fast
    size: str
    bytes: float  # read once and written once
    operations: float  # multiplications and additions
    run: Callable[[Callable[..., Any]], Any]
    agrees: Callable[[Any], None]
    peers: list[Candidate] = field(default_factory=list)
    gradients: bool = False

    @property
    def title(self) -> str:
        """The function's name, and whether its gradients are computed as well."""
        return self.function + (GRADIENTS if self.gradients else "")

    def candidates(
        self, device: str, kernel: tuple[str, Callable[..., Any]] | None = None
    ) -> list[Candidate]:
        """A kernel from elsewhere, our backends and the peers."""
        ours = getattr(fast, self.function)
        backends = ("eager", "triton") if device == "cuda" else ("eager", "numba")
        functions = [kernel] if kernel is not None else []
        functions += [(backend, partial(ours, backend=backend)) for backend in backends]
        made = [
            Candidate(name, lambda function=function: self.run(function), self.agrees)  # type: ignore[misc]
            for name, function in functions
        ]
        return made + self.peers


def cases(device: str, only: str = "", function: str = "") -> Iterator[Case]:
    """Every case whose title and size contain `only`, of one function if it is named; each made when asked for."""
    makers: list[tuple[str, str, Callable[[], Case]]] = [
        *(("anomaly_map", size, partial(_anomaly_map, size, device)) for size in PICTURES),
        *(
            (name, size, partial(make, size, device))
            for name, make in (("without_light", _without_light), ("fusion_inputs", _fusion_inputs))
            for size in SEEN
        ),
        *(
            ("synthesize", size, partial(_synthesize, size, device))
            for size in ("64 patches", "2400 patches")
        ),
        *(("rearrange_textons", size, partial(_rearrange, size, device)) for size in FEATURES),
        *(
            (f"rearrange_textons{GRADIENTS}", size, partial(_rearrange, size, device, backward=True))
            for size in ("64 patches, N = 16",)
        ),
        *(("nearest_distance", size, partial(_nearest, size, device)) for size in LATENTS),
    ]
    for title, size, make in makers:
        if only in f"{title} {size}" and function in ("", title.removesuffix(GRADIENTS)):
            yield make()


def _close(actual: Any, expected: Array, atol: float) -> None:
    actual = (
        actual.detach().cpu().double().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    )
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected).max()
    assert error <= atol, f"off by {error:.3g}, allowed {atol:.3g}"


# --- anomaly map ------------------------------------------------------------------------------------------


def _anomaly_map(size: str, device: str) -> Case:
    shape = PICTURES[size]
    batch, channels, height, width = shape
    g = torch.Generator().manual_seed(0)
    x = F.avg_pool2d(torch.rand(shape, generator=g), 5, 1, 2)  # texture with some length to it
    y = (x + 0.05 * torch.randn(shape, generator=g)).clamp(0, 1)
    x, y = x.to(device), y.to(device)
    planes = [t.cpu().permute(0, 2, 3, 1).contiguous().numpy() for t in (x, y)]
    pixels = batch * height * width
    taps = 4 * 2 * 11 * 2  # four blurs, down and across, a multiplication and an addition a tap
    windows = list(_windows(*planes))

    def whole(result: Any) -> None:
        for index, rows, columns, maps in windows:
            _close(result[index][rows, columns], np.prod(list(maps.values()), axis=0), 2e-6)

    def ssim_alone(result: Any) -> None:  # its borders are another matter
        for index, rows, columns, maps in windows:
            inner = (slice(rows.start + 6, rows.stop - 6), slice(columns.start + 6, columns.stop - 6))
            _close(result[index][inner], maps["ssim"][6:-6, 6:-6], 2e-4)

    def mean_alone(result: Any) -> None:
        expected = [1 - reference.fusion.ssim(planes[0][0], planes[1][0])[5:-5, 5:-5].mean()]
        _close(result, np.asarray(expected), 2e-4)

    case = Case(
        "anomaly_map",
        size,
        bytes=4.0 * (2 * channels + 1) * pixels,
        operations=float((taps + 60) * channels * pixels),
        run=lambda function: function(x, y),
        agrees=whole,
    )
    compiled = torch.compile(lambda x, y: fast.anomaly_map(x, y, backend="eager"))
    if size == "512 x 512" or device == "cuda":
        case.peers.append(Candidate("torch.compile", lambda: compiled(x, y), whole))
    if device == "cpu":
        case.peers += [
            Candidate("scikit-image + SciPy", lambda: [_skimage(*pair) for pair in zip(*planes)], whole),
            Candidate("OpenCV", lambda: [_opencv(*pair) for pair in zip(*planes)], whole),
        ]
    case.peers.append(Candidate("kornia, SSIM alone", lambda: _kornia(x, y), ssim_alone))
    if size == "512 x 512":
        case.peers.append(Candidate("pytorch-msssim, mean SSIM alone", lambda: _msssim(x, y), mean_alone))
    return case


# --- what the learned fusion sees --------------------------------------------------------------------------


def _seen(size: str) -> tuple[torch.Tensor, ...]:
    """A picture, its background, and the texture's mean and deviation."""
    shape = PICTURES[size]
    g = torch.Generator().manual_seed(0)
    background = F.avg_pool2d(torch.rand(shape, generator=g), 5, 1, 2)
    image = (background + 0.05 * torch.randn(shape, generator=g) + 0.03).clamp(0, 1)
    return image, background, torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.05, 0.1, 0.2])


def _without_light(size: str, device: str) -> Case:
    image, background, _, std = tensors = _seen(size)
    expected = reference.learned_fusion.without_light(_last(image), _last(background), std.numpy())
    x, y, _, s = (t.to(device) for t in tensors)
    return Case(
        "without_light",
        size,
        bytes=4.0 * 4 * image.numel(),  # the picture is read twice
        operations=10.0 * image.numel(),
        run=lambda function: function(x, y, s),
        agrees=lambda result: _close(result[0], expected.transpose(2, 0, 1), 2e-6),
    )


def _fusion_inputs(size: str, device: str) -> Case:
    image, background, mean, std = tensors = _seen(size)
    expected = reference.learned_fusion.fusion_inputs(
        _last(image), _last(background), mean.numpy(), std.numpy()
    )
    arguments = [t.to(device) for t in tensors]
    planes = [
        np.ascontiguousarray(_last(image)),
        np.ascontiguousarray(_last(background)),
        mean.numpy(),
        std.numpy(),
    ]

    def agrees(result: Any) -> None:
        for found, right in zip(result, expected, strict=True):
            _close(found[0], right, 2e-5)

    channels, pixels = image.shape[1], image[0, 0].numel()
    taps = 4 * channels * 2 * 11 * 2 + (2 * channels + 1) * 2 * 19 * 2  # of two Gaussians, down and across
    return Case(
        "fusion_inputs",
        size,
        bytes=4.0 * (6 * channels + 4) * pixels,
        operations=float((taps + 80 * channels) * pixels),
        run=lambda function: function(*arguments),
        agrees=agrees,
        peers=[Candidate("OpenCV", lambda: _opencv_inputs(*planes), agrees)] if device == "cpu" else [],
    )


def _opencv_inputs(x: Array, y: Array, m: Array, s: Array) -> tuple[Array, Array]:
    import cv2

    def blur(picture: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(picture, (19, 19), 3, borderType=cv2.BORDER_REFLECT))

    gms, ssim = _opencv_maps(x, y)
    soft, residual = blur(x), x - y
    size = np.sqrt((residual * residual).mean(-1)) / s.mean()
    planes = ((x - blur(y)) / s, (soft - m) / s, residual / s, blur(residual) / s)
    inputs = np.concatenate([*(p.transpose(2, 0, 1) for p in planes), [gms, ssim, size]])
    energy = np.log(blur(np.minimum(size * size, 1)) + np.float32(1e-3)) / 2
    return inputs[None], energy[None]


def _last(pictures: torch.Tensor) -> Array:
    """The first of (B, C, H, W) as (H, W, C)."""
    return pictures[0].permute(1, 2, 0).numpy()


def _windows(image: Array, reconstruction: Array) -> Iterator[tuple[int, slice, slice, dict[str, Array]]]:
    """The oracle's maps: of the whole picture, or of its corners and middle where it is large."""
    batch, height, width, _ = image.shape
    side, margin = 192, 6
    tops = [0] if height <= 2 * side else [0, height // 2, height - side]
    lefts = [0] if width <= 2 * side else [0, width // 2, width - side]
    for index in sorted({0, batch // 2, batch - 1}):
        for top, left in zip(tops * len(lefts), lefts * len(tops)):
            bottom = height if len(tops) == 1 else top + side
            right = width if len(lefts) == 1 else left + side
            outer = (
                max(top - margin, 0),
                min(bottom + margin, height),
                max(left - margin, 0),
                min(right + margin, width),
            )
            cut = (index, slice(*outer[:2]), slice(*outer[2:]))
            maps = reference.fusion.modality_maps(image[cut], reconstruction[cut])
            inner = (slice(top - outer[0], bottom - outer[0]), slice(left - outer[2], right - outer[2]))
            yield index, slice(top, bottom), slice(left, right), {name: m[inner] for name, m in maps.items()}


def _skimage(x: Array, y: Array) -> Array:
    from scipy import ndimage
    from skimage.metrics import structural_similarity

    similarity: Any = structural_similarity  # it has no types

    def gradient(picture: Array) -> Array:
        g = [
            ndimage.correlate1d(
                ndimage.correlate1d(picture, [-1, 0, 1], axis), [1 / 3, 1 / 3, 1 / 3], 1 - axis
            )
            for axis in (0, 1)
        ]
        return np.asarray(np.hypot(*g))

    a, b = gradient(x), gradient(y)
    gms = ((2 * a * b + fast.fusion.C0) / (a**2 + b**2 + fast.fusion.C0)).mean(-1)
    ssim = similarity(
        x,
        y,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        full=True,
        channel_axis=-1,
    )[1].mean(-1)
    fused: Array = (1 - gms) * (1 - ssim) * np.sqrt(((x - y) ** 2).mean(-1))
    return fused


def _opencv(x: Array, y: Array) -> Array:
    gms, ssim = _opencv_maps(x, y)
    d = x - y
    fused: Array = gms * ssim * np.sqrt((d * d).mean(-1))
    return fused


def _opencv_maps(x: Array, y: Array) -> tuple[Array, Array]:
    """1 - GMS and 1 - SSIM."""
    import cv2

    def blur(picture: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(picture, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT))

    step, flat = np.array([-1, 0, 1], np.float32), np.full(3, 1 / 3, np.float32)

    def gradient(picture: Array) -> Array:
        across = cv2.sepFilter2D(picture, -1, step, flat, borderType=cv2.BORDER_REFLECT)
        down = cv2.sepFilter2D(picture, -1, flat, step, borderType=cv2.BORDER_REFLECT)
        return np.asarray(cv2.magnitude(across, down))

    a, b = gradient(x), gradient(y)
    c0, c1, c2 = fast.fusion.C0, fast.fusion.C1, fast.fusion.C2
    gms = ((2 * a * b + c0) / (a * a + b * b + c0)).mean(-1)
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    ssim = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean(-1)
    return 1 - gms, 1 - ssim


def _kornia(x: torch.Tensor, y: torch.Tensor) -> Any:
    import kornia

    return 1 - kornia.metrics.ssim(x, y, 11).mean(1)


def _msssim(x: torch.Tensor, y: torch.Tensor) -> Any:
    import pytorch_msssim

    return 1 - pytorch_msssim.ssim(x, y, data_range=1, size_average=False)


# --- synthesis --------------------------------------------------------------------------------------------


def _synthesize(size: str, device: str) -> Case:
    shape = PICTURES[size]
    batch, channels, height, width = shape
    g = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=g)

    kind = torch.randint(0, 3, (batch,), generator=g)
    line = torch.stack(
        [uniform(*span, batch) for span in ((0, 64), (0, 64), (0, 3.14), (5, 40), (0, 4), (8, 40), (0, 6))], 1
    )
    parameters = {
        "kind": kind,
        "grid": torch.rand(batch, 5, 5, generator=g),
        "line": line,
        "dots": uniform(0, 64, batch, 6, 3) * torch.tensor([1, 1, 0.08]),
        "level": torch.where(kind == 0, 0.5, torch.where(kind == 1, -2.0, 0.0)),
        "edge": torch.where(kind == 0, 0.1, 1.0),
        "destructive": torch.randint(0, 2, (batch,), generator=g),
        "opacity": uniform(0.2, 0.8, batch),
    }
    image, source = torch.rand(2, *shape, generator=g)
    expected = {}
    for b in sorted({*range(0, batch, max(1, batch // 12))}):
        one = {name: t[b].double().numpy() if t[b].ndim else t[b].item() for name, t in parameters.items()}
        planes = [t[b].permute(1, 2, 0).double().numpy() for t in (image, source)]
        expected[b] = reference.synthesis.synthesize(*planes, **one)[0].transpose(2, 0, 1)  # type: ignore[arg-type]
    image, source = image.to(device), source.to(device)
    parameters = {name: t.to(device) for name, t in parameters.items()}

    def agrees(result: Any) -> None:
        for b, picture in expected.items():
            _close(result[0][b], picture, 1e-4)

    return Case(
        "synthesize",
        size,
        bytes=4.0 * (3 * channels + 1) * batch * height * width,
        operations=0.0,
        run=lambda function: function(image, source, **parameters),
        agrees=agrees,
    )


# --- textons ----------------------------------------------------------------------------------------------


def _rearrange(size: str, device: str, *, backward: bool = False) -> Case:
    shape = FEATURES[size]
    batch, channels, height, width = shape
    textons = places = height * width // 4
    g = torch.Generator().manual_seed(0)
    skip, memory = (torch.randn(shape, generator=g).to(device).requires_grad_(backward) for _ in range(2))
    sample = sorted({0, batch // 2, batch - 1})
    expected = {
        b: reference.textons.rearrange_textons(
            *(t[b].detach().cpu().double().numpy() for t in (skip, memory))
        )
        for b in sample
    }
    weight = torch.randn(shape, generator=g).to(device)

    def agrees(result: Any) -> None:
        for b in sample:
            _close((result[0] if backward else result)[b], expected[b], 2e-4)

    def run(function: Callable[..., Any]) -> Any:
        result = function(skip, memory)
        if backward and not result.requires_grad:
            raise NotImplementedError("it has no gradients")
        return (result, *torch.autograd.grad(result, (skip, memory), weight)) if backward else result

    def blocks(t: torch.Tensor) -> torch.Tensor:
        return F.unfold(t, 2, stride=2).mT  # [B, P, D]

    def einsum(skip: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        p, b = blocks(skip), blocks(memory)
        s = torch.einsum("bpd,bnd->bpn", F.normalize(p, dim=2), F.normalize(b, dim=2)).softmax(2)
        return F.fold(torch.einsum("bpn,bnd->bdp", s, b), (height, width), 2, stride=2)

    def sdpa(skip: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        p, b = blocks(skip), blocks(memory)
        mixed = F.scaled_dot_product_attention(F.normalize(p, dim=2), F.normalize(b, dim=2), b, scale=1.0)
        return F.fold(mixed.mT, (height, width), 2, stride=2)

    products = 2 * 2 * places * textons * channels * 4 * batch * (3 if backward else 1)
    moved = 4.0 * batch * channels * height * width * (8 if backward else 3)
    return Case(
        "rearrange_textons",
        size,
        bytes=moved,
        operations=float(products),
        run=run,
        agrees=agrees,
        peers=[
            Candidate("unfold, einsum, fold", lambda: run(einsum), agrees),
            Candidate("unfold, SDPA, fold", lambda: run(sdpa), agrees),
        ],
        gradients=backward,
    )


# --- nearest distance -------------------------------------------------------------------------------------


def _nearest(size: str, device: str) -> Case:
    count, length, entries = LATENTS[size]
    g = torch.Generator().manual_seed(0)
    z, memory = (torch.randn(n, length, generator=g).to(device) for n in (count, entries))
    exact = torch.cdist(z.cpu().double(), memory.cpu().double()).min(1)
    sample = {
        b: reference.memory.nearest_distance(z[b].cpu().numpy(), memory.cpu().numpy()) for b in (0, count - 1)
    }

    def agrees(result: Any) -> None:
        distance, index = result
        _close(distance, exact.values.numpy(), 2e-3)
        for b, (expected, nearest) in sample.items():
            assert abs(float(distance[b]) - expected) <= 2e-3
            assert int(index[b]) == nearest

    return Case(
        "nearest_distance",
        size,
        bytes=4.0 * (count * length + entries * length + 3 * count),
        operations=2.0 * count * length * entries,
        run=lambda function: function(z, memory),
        agrees=agrees,
        peers=[
            Candidate("cdist, min", lambda: tuple(torch.cdist(z, memory).min(1)), agrees),
            Candidate("the bare matrix product", lambda: z @ memory.T, None),
        ],
    )
