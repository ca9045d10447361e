"""Break kernels and training one line at a time and see the tests fail: `make mutants`.

Works on a copy of the tree in a temporary folder. First the tests named here must pass there as they are; then
each fault is put in, alone, and its tests must fail. Exit code 1 if one of them is not noticed. Some minutes.

    python bench/mutants.py            all faults
    python bench/mutants.py textons    those whose file name holds this word
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: str  # file::test, with [backend] where only one backend runs the line


TEXTONS = "tests/test_fast_textons.py::"
MEMORY = "tests/test_fast_memory.py::"
FUSION = "tests/test_fast_fusion.py::"
SEEN = "tests/test_fast_learned_fusion.py::"
SYNTHESIS = "tests/test_fast_synthesis.py::"
ALGORITHM = "tests/test_algorithm.py::test_training_is_algorithm_1"
TRAINING = "tests/test_training.py::"
GENERAL_TRAINING = "tests/test_general_training.py::"
TOGETHER = "tests/test_processes.py::test_two_processes_learn_what_one_does"
PROCESSES = "learning/processes.py"
GENERATOR, THIRD = "learning/generator_training.py", "learning/fusion_training.py"


def conforms(test: str, backend: str, prop: str = "matches_the_oracle", dtype: str = "float32") -> str:
    """One property of one backend."""
    return f"{test}[{backend}-{dtype}-{prop}]"


def textons(backend: str, prop: str = "matches_the_oracle") -> str:
    return conforms(f"{TEXTONS}test_conforms", backend, prop)


def nearest(backend: str, prop: str = "matches_the_oracle") -> str:
    return conforms(f"{MEMORY}test_nearest_distance_conforms", backend, prop)


def fusion(backend: str, prop: str = "matches_the_oracle") -> str:
    return conforms(f"{FUSION}test_anomaly_map_conforms", backend, prop)


def inputs(backend: str, prop: str = "matches_the_oracle") -> str:
    return conforms(f"{SEEN}test_fusion_inputs_conform", backend, prop)


def light(backend: str, prop: str = "matches_the_oracle") -> str:
    return conforms(f"{SEEN}test_without_light_conforms", backend, prop)


def synthesis(backend: str) -> str:
    return conforms(f"{SYNTHESIS}test_synthesize_conforms", backend)


GRADIENTS, LARGE = "gradients_agree", "matches_the_oracle_on_large_pictures"

# fmt: off
# ruff: noqa: E501
FAULTS = [
    # textons, eager
    Fault("least norm dropped", "fast/textons.py", "dim=2).clamp_min(EPS)",
          "dim=2)", textons("eager")),
    Fault("softmax over the places", "fast/textons.py", "torch.softmax(cosine / temperature, dim=2)",
          "torch.softmax(cosine / temperature, dim=1)", textons("eager")),
    Fault("temperature dropped", "fast/textons.py", "torch.softmax(cosine / temperature", "torch.softmax(cosine",
          textons("eager")),
    Fault("height and width swapped in mixing", "fast/textons.py", "maps = s.mT.reshape(batch, textons, h, w)",
          "maps = s.mT.reshape(batch, textons, w, h)", textons("eager")),
    Fault("half precision sums", "fast/textons.py", "compute = torch.promote_types(skip.dtype, torch.float32)",
          "compute = torch.float16", textons("eager")),
    Fault("filter of large pictures one pixel apart", "fast/textons.py",
          "_convolve(G.to(mixing.dtype), mixing, size)", "_convolve(G.to(mixing.dtype), mixing, 1)",
          textons("triton", LARGE)),
    # textons, numba
    Fault("NaN not looked for", "fast/_textons_numba.py", "seen[i] = s.sum()", "seen[i] = 0",
          f"{TEXTONS}test_not_finite_is_rejected"),
    Fault("last texton dropped", "fast/_textons_numba.py", "        for n in range(N):\n            s[p, n] = math.exp(",
          "        for n in range(N - 1):\n            s[p, n] = math.exp(", textons("numba")),
    Fault("weights not taken from the greatest cosine on", "fast/_textons_numba.py", "math.exp((s[p, n] - most) * per)", "math.exp((s[p, n] - s.dtype.type(1)) * per)",
          "tests/test_extremes.py::test_textons_at_every_temperature[numba]"),
    Fault("cosine not divided by the texton's norm", "fast/_textons_numba.py", "s[p, n] = s[p, n] * a[p] * c[n]",
          "s[p, n] = s[p, n] * a[p] * a[p]", textons("numba")),
    Fault("row and column of a block swapped", "fast/_textons_numba.py", "(y % size) * size + z % size, image",
          "(z % size) * size + z % size, image", textons("numba")),
    Fault("columns of a block of NCHW swapped in the lower row", "fast/_textons_numba.py",
          "row[4 * c + 2], row[4 * c + 3] = lower[2 * z], lower[2 * z + 1]",
          "row[4 * c + 3], row[4 * c + 2] = lower[2 * z], lower[2 * z + 1]", textons("numba")),
    Fault("NCHW written one block late", "fast/_textons_numba.py", "to = (y * w + z) * D + 4 * c",
          "to = (y * w + z) * D + 4 * max(c - 1, 0)", textons("numba")),
    Fault("order of a block forgotten where the layouts differ", "fast/_textons_numba.py", "row[4 * c + k] = x[at + c * step]",
          "row[k * C + c] = x[at + c * step]", textons("numba")),
    Fault("mixing forgets the border", "fast/_textons_numba.py", "for m in range(max(0, 1 - y), min(3, h + 1 - y)):",
          "for m in range(max(0, 1 - y), min(3, h - y)):", textons("numba")),
    Fault("dense mixing transposed", "fast/_textons_numba.py", "target[i] += kernel[i, j, m, n] * source[j]",
          "target[i] += kernel[j, i, m, n] * source[j]", textons("numba")),
    Fault("softmax's mean missing from the gradient", "fast/_textons_numba.py", "s[p, n] * (ds[p, n] - mean)",
          "s[p, n] * ds[p, n]", textons("numba", GRADIENTS)),
    Fault("norm's part missing from the gradient to the memory", "fast/_textons_numba.py",
          "_subtract(along_n[n] * c[n] * c[n], b[n], db[n])", "_subtract(along_n[n] * c[n], b[n], db[n])",
          textons("numba", GRADIENTS)),
    # textons, Triton
    Fault("pictures of one program look at each other", "fast/_textons_triton.py",
          "same = (q_image[:, None] == b_image[None, :]) & q_valid[:, None]", "same = q_valid[:, None]",
          textons("triton")),
    Fault("last chunk of a block dropped", "fast/_textons_triton.py",
          "    for start in range(0, K * K * C, DEPTH):\n        d = start + tl.arange(0, DEPTH)\n        inside = d < K * K * C\n        tx",
          "    for start in range(0, K * K * C - DEPTH + 1, DEPTH):\n        d = start + tl.arange(0, DEPTH)\n        inside = d < K * K * C\n        tx",
          textons("triton")),
    Fault("neighbours wrap at the right border", "fast/_textons_triton.py", "(x >= 0) & (x < w) & valid",
          "(x >= 0) & valid", textons("triton")),
    Fault("textons past the last one counted", "fast/_textons_triton.py",
          "cosine = tl.where(b_valid[None, :], inner * _inverse(xx)[:, None] * _inverse(yy)[None, :], NO_TEXTON)\n    greatest = tl.maximum(most, tl.max(cosine, 1))\n    e = tl.where(b_valid[None, :], tl.exp((cosine - greatest[:, None]) * rate), 0.0)",
          "cosine = inner * _inverse(xx)[:, None] * _inverse(yy)[None, :]\n    greatest = tl.maximum(most, tl.max(cosine, 1))\n    e = tl.exp((cosine - greatest[:, None]) * rate)",
          textons("triton", LARGE)),
    Fault("gradient to the skip not turned back by mixing", "fast/_textons_triton.py",
          "back = tl.dot(tl.trans(near), ds", "back = tl.dot(near, ds", textons("triton", GRADIENTS)),
    Fault("mean of another place", "fast/_textons_triton.py", "tl.store(at + B * P, mean / total, mask=q_valid)",
          "tl.store(at + B * P, mean, mask=q_valid)", textons("triton", LARGE)),
    # nearest distance and patches
    Fault("rounding not bounded", "fast/_memory_numba.py", "if score[j] - slack[j] <= least:",
          "if score[j] + slack[j] <= least:", nearest("numba", "nearest_of_many_is_never_swapped")),
    Fault("score not doubled", "fast/_memory_numba.py", "score[j] = m_norm[j] * m_norm[j] - two * inner",
          "score[j] = m_norm[j] * m_norm[j] - inner", nearest("numba")),
    Fault("chunks all written to the front", "fast/_memory_numba.py", "            index[here].numpy(),",
          "            index.numpy(),", f"{MEMORY}test_nearest_in_chunks[numba]"),
    Fault("entries of 0 beyond the last one", "fast/_memory_triton.py",
          "score = tl.where((entry < L)[None, :], square[None, :] - 2.0 * inner, infinity)",
          "score = square[None, :] - 2.0 * inner", nearest("triton")),
    Fault("rivals not settled", "fast/memory.py", "for row in (rivals.sum(1) > 1)", "for row in (rivals.sum(1) < 0)",
          nearest("eager", "close_pairs_are_told_apart")),
    Fault("last patch not flush with the border", "fast/patches.py", "else [*starts, length - size]", "else starts",
          conforms(f"{MEMORY}test_slice_patches_conforms", "eager", "slice_matches_the_oracle")),
    Fault("triangle lopsided", "fast/patches.py", "torch.minimum(i + 1, size - i)", "torch.minimum(i + 1, size - i + 1)",
          conforms(f"{MEMORY}test_stitch_patches_conforms", "eager", "stitch_matches_the_oracle")),
    Fault("flat weights where patches overlap", "fast/patches.py", "weight = torch.outer(triangle, triangle)",
          "weight = torch.ones_like(torch.outer(triangle, triangle))",
          conforms(f"{MEMORY}test_stitch_patches_conforms", "eager", "stitch_matches_the_oracle")),
    # anomaly map
    Fault("border mirrored without the edge pixel", "fast/_fusion_numba.py", "return min(i, 2 * n - 1 - i)",
          "return min(i, max(2 * n - 2 - i, 0))", fusion("numba")),
    Fault("window one row short", "fast/_fusion_numba.py", "(2 * RADIUS - i) * STRIDE]", "(2 * RADIUS - i - 1) * STRIDE]",
          fusion("numba")),
    Fault("squares of the row above", "fast/_fusion_numba.py", "_gaussian_of_squares(s, STRIDE + j, taps)",
          "_gaussian_of_squares(s, j, taps)", fusion("numba")),
    Fault("mean not taken off the tile", "fast/_fusion_numba.py", "return s / count, d / count",
          "return 0 * s, 0 * d", fusion("numba", "bright_pictures_keep_their_digits")),
    Fault("0 / 0 where nothing changes", "fast/_fusion_numba.py", "s.dtype.type(1e-30)", "s.dtype.type(0)",
          fusion("numba", "symmetric_and_in_range")),
    Fault("NaN not seen", "fast/_fusion_numba.py", "totals[tile] = total", "totals[tile] = 0",
          f"{FUSION}test_nan_is_refused"),
    Fault("one tap along the row off", "fast/_fusion_numba.py", "a[at + 2] + a[at + 8]", "a[at + 2] + a[at + 7]",
          fusion("numba")),
    Fault("Prewitt's y looks along x", "fast/_fusion_numba.py", "(h2 - h0) + (a[r + 2, j + 1] - a[r, j + 1]) + (k2 - k0)",
          "(k0 - h0) + (k1 - h1) + (k2 - h2)", fusion("numba")),
    Fault("median one rank off", "fast/_fusion_numba.py", "col : col + n] = held[1, :n]", "col : col + n] = held[0, :n]",
          fusion("numba", "median_matches_the_oracle")),
    Fault("channels not averaged", "fast/_fusion_triton.py", "gms = gms / channels", "gms = gms",
          fusion("triton")),
    Fault("variances not clamped", "fast/fusion.py", "(square_d - mu_d.square()).clamp_min(0)",
          "(square_d - mu_d.square())", fusion("eager", "beside_a_defect_nothing_is_negative")),
    Fault("tile seam", "fast/_fusion_triton.py", "tile // across % down * (ROWS - 2 * RADIUS)\n    col",
          "tile // across % down * (ROWS - RADIUS)\n    col", fusion("triton", LARGE)),
    # what the learned fusion sees
    Fault("a tap of the broad Gaussian off", "fast/_learned_fusion_numba.py", "(a[j + 6] + a[j + 12])", "(a[j + 6] + a[j + 11])",
          inputs("numba")),
    Fault("mean of s not given back to the blur", "fast/_learned_fusion_numba.py", "half * (shift_s + shift_d) - mean[c]",
          "half * shift_d - mean[c]", inputs("numba")),
    Fault("a speck outshines", "fast/_learned_fusion_numba.py", "min(square[i] * share, one)", "square[i] * share", inputs("numba")),
    Fault("squares of the tile before", "fast/_learned_fusion_numba.py", "            square[i] = 0\n", "            square[i] *= 1\n",
          inputs("numba", LARGE)),
    Fault("the halo is the narrow Gaussian's", "fast/_learned_fusion_numba.py", "INSET = (RADIUS - maps.RADIUS) * (STRIDE + 1)",
          "INSET = 0", inputs("numba")),
    Fault("shift taken off y", "fast/_fusion_numba.py",
          "            di[j] = xi[j] - yi[j]\n        for j in range(n - last + first):\n            at = j if j < first else last + j - first\n            k = _mirror(col - halo + at, width)\n            sr[at] = x[i, k] + y[i, k]\n            dr[at] = x[i, k] - y[i, k]\n        # A loop of its own: sums may be reordered, and x - (y + shift) loses a faint defect.\n        for j in range(n):\n            sr[j] -= shift_s\n            dr[j] -= shift_d\n",
          "            di[j] = xi[j] - (yi[j] + shift_d)\n        for j in range(n - last + first):\n            at = j if j < first else last + j - first\n            k = _mirror(col - halo + at, width)\n            sr[at] = x[i, k] + y[i, k]\n            dr[at] = x[i, k] - (y[i, k] + shift_d)\n        for j in range(n):\n            sr[j] -= shift_s\n",
          inputs("numba", "faint_residuals_keep_their_digits")),
    Fault("last cells not filled up", "fast/_learned_fusion_numba.py", "sums[width:] = sums[width - 1]", "sums[width:] = 0", light("numba")),
    Fault("lines between the wrong cells", "fast/_learned_fusion_numba.py", "max(i - 1, 0)] if place < 0", "max(i - 1, 0)] if place > 0",
          light("numba")),
    Fault("faint changes taken for light", "fast/_learned_fusion_numba.py", "excess = light[j] - min(max(light[j], -least), least)",
          "excess = light[j]", light("numba", "strong_light_matches_the_oracle")),
    Fault("infinite light clamped", "fast/learned_fusion.py", "_checks.finite(image - background, image=image, background=background)", "_checks.finite(image, image=image)",
          f"{SEEN}test_nan_and_infinity_are_refused[-inf-eager]"),
    Fault("difference of blurs", "fast/learned_fusion.py", "energy = blurred(torch.cat((y, difference, square), 1))",
          "energy = blurred(torch.cat((y, x, square), 1))", inputs("eager")),
    Fault("tiles overlap by too little", "fast/_learned_fusion_triton.py", "tile // across % down * (ROWS - 2 * RADIUS)\n    col",
          "tile // across % down * (ROWS - RADIUS)\n    col", inputs("triton", LARGE)),
    Fault("images of one pixel end too soon", "fast/_fusion_triton.py", "tl.static_range(1, REACH // 2 + 2)", "tl.static_range(1, 2)", inputs("triton")),
    Fault("lines half a pixel off", "fast/_learned_fusion_triton.py", ".to(tl.float32) + 0.5) / CELL", ".to(tl.float32)) / CELL", light("triton", "strong_light_matches_the_oracle")),
    # synthesis
    Fault("corners not on corner pixels", "fast/_synthesis_numba.py", "above = y * last / max(height - 1, 1)",
          "above = y * last / max(height, 1)", synthesis("numba")),
    Fault("support not clamped", "fast/_synthesis_numba.py", "image.dtype.type(0.5), 0), 1)", "image.dtype.type(0.5), -1), 1)",
          synthesis("numba")),
    Fault("line turned the other way", "fast/_synthesis_triton.py", "u = (x - cx) * tl.cos(angle) + (y - cy) * tl.sin(angle)",
          "u = (x - cx) * tl.cos(angle) - (y - cy) * tl.sin(angle)", synthesis("triton")),
    Fault("only the first dot", "fast/synthesis.py", "field = torch.maximum(field, r - torch.hypot(x - cx, y - cy))",
          "field = r - torch.hypot(x - cx, y - cy)", synthesis("eager")),
    # dispatch
    Fault("a named backend falls back", "fast/_dispatch.py", "            raise BackendUnavailable(",
          "            return 'eager'\n            raise BackendUnavailable(",
          "tests/test_fast_interface.py::test_named_backend_runs_or_says_why"),
    Fault("NaN let through", "fast/_checks.py", "        if bad:", "        if bad > tensor.numel():",
          f"{TEXTONS}test_not_finite_is_rejected"),
    # Algorithm 1: what a step sees
    Fault("phase 2 restores the defective picture", GENERATOR, "target = model.normalise(step.normal)",
          "target = model.normalise(step.normal if phase == 1 else step.synthetic)", ALGORITHM),
    Fault("phase 2 draws what phase 1 drew", "learning/data.py", "(seed, phase, step)", "(seed, 1, step)", ALGORITHM),
    Fault("every step draws the same", "learning/data.py", "(seed, phase, step)", "(seed, phase, 0)", ALGORITHM),
    Fault("every seed draws the same", "learning/data.py", "manual_seed(int(mixed))",
          "manual_seed((seed * 3 + phase - 1) * 2**32 + step)", "tests/test_data.py"),
    Fault("contents from the same place", GENERATOR, "synthetic_defects(normal, contents, positive, generator)",
          "synthetic_defects(normal, contents, normal, generator)", ALGORITHM),
    Fault("noise in phase 1, too", GENERATOR, "        if phase == 2:\n            synthetic", "        if phase < 3:\n            synthetic",
          ALGORITHM),
    Fault("skips of the defective picture in phase 1", GENERATOR, "skip.chunk(3)[0]", "skip.chunk(3)[2]", ALGORITHM),
    Fault("phase 2 without memory", GENERATOR, "model.decode(model.restore(features.z), features.skips)",
          "model.decode(features.z, features.skips)", ALGORITHM),
    Fault("mean and deviation of the natural pictures", "learning/training.py", "= good_pool.statistics()",
          "= natural_pool.statistics()", ALGORITHM),
    # A whole picture at once
    Fault("sum of windows in place of their mean", "network/model.py", "(total / count)", "(total / 1)", "tests/test_model.py"),
    Fault("windows of a level out of step with the deepest", "network/model.py", "self.config.stride // scale", "max(1, self.config.stride // scale // 2)",
          "tests/test_model.py"),
    Fault("pictures filled with the last row", "network/model.py", 'mode="reflect"', 'mode="replicate"', "tests/test_model.py"),
    Fault("every window counts as defective", GENERATOR, "(held >= held.amax(1, keepdim=True) / 2)", "(held >= 0)", "tests/test_training.py"),
    Fault("as many crops as patches", GENERATOR, "round(config.batch_size * (size / wide) ** 2)", "config.batch_size", "tests/test_training.py"),
    Fault("the bank sees whole pictures from one corner only", "learning/bank.py", "range(0, config.stride, min(stride, config.stride))", "range(1)",
          "tests/test_training.py"),
    Fault("half of the operations", "engines/operations.py", "sum(counts)", "max(counts)", "tests/test_operations.py"),
    # Eq 10 to 16
    Fault("penalty on biases", GENERATOR, "networks.generator_parameters(phase) if p.ndim > 1)",
          "networks.generator_parameters(phase))", ALGORITHM),
    Fault("penalty on what phase 1 trains, in phase 2", GENERATOR, "in networks.generator_parameters(phase) if",
          "in networks.generator_parameters(1) if", ALGORITHM),
    Fault("penalty weighed alone", GENERATOR,
          "config.weight_rec * (losses.reconstruction_loss(target, reconstruction) + config.epsilon * penalty)",
          "config.weight_rec * losses.reconstruction_loss(target, reconstruction) + config.epsilon * penalty", ALGORITHM),
    Fault("L_adv not weighed", GENERATOR, "loss + config.weight_adv * adversarial", "loss + adversarial", ALGORITHM),
    Fault("L_lat not weighed", GENERATOR, "loss + config.weight_lat * latent", "loss + latent", ALGORITHM),
    Fault("distance of latents not weighed", GENERATOR, "logit_neg, config.compactness, defective)", "logit_neg, 1.0, defective)", ALGORITHM),
    Fault("distance to the defective latents", GENERATOR, "losses.latent_loss(r0, r_pos", "losses.latent_loss(r0, r_neg", ALGORITHM),
    Fault("C_A's labels swapped", GENERATOR, "torch.cat((r_pos, r_neg))", "torch.cat((r_neg, r_pos))", ALGORITHM),
    Fault("discriminator judges before its step", GENERATOR,
          "    optimiser.step()\n\n    discriminator.requires_grad_(False)\n    with devices.autocast(target.device):\n        fake = discriminator(reconstruction)\n",
          "    discriminator.requires_grad_(False)\n    with devices.autocast(target.device):\n        fake = discriminator(reconstruction)\n    optimiser.step()\n",
          ALGORITHM),
    Fault("features of the 2nd and 3rd block", "learning/critics.py", "(layers[3], layers[4])", "(layers[2], layers[3])",
          "tests/test_critics.py"),
    # which weights move, and by how much
    Fault("a learning rate that never falls", "learning/training.py", 'if config.schedule == "cosine":', "if not config.schedule:",
          ALGORITHM),
    Fault("a learning rate one step ahead", "learning/training.py", "math.pi * step / config", "math.pi * (step + 1) / config",
          ALGORITHM),
    Fault("the fusion learns at the generator's rate", "learning/training.py", "rate = fusion_training.RATE if",
          "rate = config.learning_rate if", ALGORITHM),
    Fault("phase 2 goes on with phase 1's moments", "learning/training.py", "run.position.phase + 1, 0, {}",
          "run.position.phase + 1, 0, run.optimisers", ALGORITHM),
    Fault("A_N does not learn", GENERATOR, "[*shared, *model.addressing.parameters()]", "[*shared]", ALGORITHM),
    Fault("C_A does not learn", GENERATOR, "*model.encoder.parameters(), *self.classifier.parameters()]",
          "*model.encoder.parameters()]", ALGORITHM),
    Fault("GFRM does not learn", GENERATOR, "model.output.parameters(), model.mixing_parameters())", "model.output.parameters())",
          ALGORITHM),
    Fault("the encoder's batch normalisation goes on in phase 2", GENERATOR, "self.model.encoder.eval()", "pass", ALGORITHM),
    Fault("the generator's batch normalisation goes on in the fusion's phase", GENERATOR, "model = self.model.eval()",
          "model = self.model", ALGORITHM),
    # the bank
    Fault("bank of latents of batches", "learning/bank.py", "model.encoder.eval()", "model.encoder.train()", ALGORITHM),
    Fault("bank of half of the patches", "learning/bank.py", "some(patches).split(BATCH)", "some(patches[::2]).split(BATCH)",
          ALGORITHM),
    # several processes
    Fault("norms of a process's own share", PROCESSES, "_Sum.apply(moments) / count()", "moments", TOGETHER),
    Fault("the gradient of a sum is not summed", PROCESSES, "return _Sum.forward(ctx, gradients[0])", "return gradients[0]", TOGETHER),
    Fault("everybody takes the first share", PROCESSES, "batch.chunk(count())[dist.get_rank()]", "batch.chunk(count())[0]", TOGETHER),
    Fault("a mean over what a process counts", "learning/losses.py", "processes.mean(counted.sum().to(values.dtype))",
          "counted.sum()", TOGETHER),
    Fault("gradients of a process's own share", PROCESSES, "        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)",
          "        return module", TOGETHER),
    Fault("one process hears of the signal", PROCESSES, "dist.all_reduce(found, dist.ReduceOp.MAX)", "dist.all_reduce(found, dist.ReduceOp.MIN)",
          "tests/test_processes.py::test_the_model_of_two_processes_is_the_model_of_one"),
    # the learned fusion
    Fault("light left in", THIRD, "unlit = fast.without_light(synthetic, restored, model.std)", "unlit = synthetic", ALGORITHM),
    Fault("no other light", THIRD, "normal = lit(normal, config.light, spread, generator)", "normal = normal", ALGORITHM),
    Fault("labels from another picture", THIRD, "defect_labels(normal, synthetic", "defect_labels(own, synthetic", ALGORITHM),
    Fault("noise is a defect", THIRD,
          "        label = defect_labels(normal, synthetic, support, model.std)\n        yield speckled(synthetic, config.speckle, generator, least=LEAST_SPECKLE), label\n",
          "        synthetic = speckled(synthetic, config.speckle, generator, least=LEAST_SPECKLE)\n        yield synthetic, defect_labels(normal, synthetic, support, model.std)\n",
          ALGORITHM),
    Fault("labels not mirrored", THIRD, "crops.image, crops.background, crops.label)\n        yield",
          "crops.image, crops.background, crops.label.flip(-1))\n        yield", ALGORITHM),
    Fault("the fusion draws its batches from the first crops", THIRD, "torch.randint(len(crops.label),", "torch.randint(1,", ALGORITHM),
    Fault("small defects count little", THIRD, "size_weights(batch.label))", "torch.ones_like(batch.label))", ALGORITHM),
    # around the steps
    Fault("thresholds from what was learnt", "learning/training.py", "_calibrate(run, held_out, learnt,", "_calibrate(run, learnt, learnt,",
          f"{TRAINING}test_thresholds_rest_on_pictures_that_are_not_learnt"),
    Fault("moments forgotten", "learning/checkpoint.py", "            optimiser.state[parameter] = state", "            del state",
          f"{TRAINING}test_interrupted_and_resumed_is_bit_identical"),
    Fault("losses since the last mean forgotten", "learning/training.py", "for loss in self.position.recent]", "for loss in []]",
          f"{TRAINING}test_loss_curve_of_a_resumed_training"),
    # general features
    Fault("the generator's map left out of the sum", "engines/background.py", "found = surprise + mapped", "found = mapped",
          f"{GENERAL_TRAINING}test_the_map_is_the_sum_of_every_witness"),
    Fault("the alarm map is the map", "engines/background.py", "model.general.own + number, values[None]", "model.general.own, values[None]",
          f"{GENERAL_TRAINING}test_the_map_is_the_sum_of_every_witness"),
    Fault("general features change the generator's first weights", "network/model.py", "with torch.random.fork_rng(devices=()):", "if True:",
          f"{GENERAL_TRAINING}test_each_phase_leaves_what_is_not_its_own"),
    Fault("the backbone learns", "network/backbone.py", "        self.requires_grad_(False)\n\n", "\n", "tests/test_general.py"),
    Fault("Gaussians of other pictures after a stop", "learning/general_training.py", "data.step_generator(model.config.seed, PHASE, 2**32 + number)",
          "torch.Generator().manual_seed(torch.seed() % 2**31)", f"{GENERAL_TRAINING}test_interrupted_and_resumed_is_bit_identical"),
    Fault("the file's weights are believed", "learning/backbone_weights.py", "hexdigest()) != SHA256[name]", "hexdigest()) == SHA256[name]",
          f"{GENERAL_TRAINING}test_weights_that_are_not_there_or_not_those"),
    Fault("a deeper network's file is taken for its first blocks", "learning/backbone_weights.py", "if found == _shapes(name):",
          "if found.items() >= _shapes(name).items():", "tests/test_backbone_weights.py"),
    Fault("a norm without what keeps it from zero", "learning/backbone_weights.py", "variance.double() + NORM_EPS", "variance.double()",
          "tests/test_backbone_weights.py"),
    Fault("a place as quiet as good pictures are", "learning/general_training.py", ".clip(usual.QUIETEST)", "", "tests/test_usual.py"),
    Fault("equal values count as less", "network/general.py", "torch.searchsorted(levels, values.contiguous())", "torch.searchsorted(levels, values.contiguous(), right=True)",
          "tests/test_general.py"),
    Fault("what is usual at a border counts inside", "usual.py", "np.minimum(middles, length - middles)", "np.maximum(middles, length - middles)",
          "tests/test_usual.py"),
    Fault("places that good pictures do not agree on", "learning/general_training.py", "mean * share[:, None, None]", "mean + 0 * share[:, None, None]",
          "tests/test_usual.py"),
    Fault("coarse witness at the picture's own size", "network/general.py", "halved = nn.functional.avg_pool2d(image, 2)", "halved = image",
          "tests/test_general.py"),
]
# fmt: on


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    faults = [fault for fault in FAULTS if word in fault.file]
    with tempfile.TemporaryDirectory() as folder:
        tree = _copy(Path(folder))
        print(f"{len(faults)} faults; first the tests as they are")
        whole = _tests(tree, sorted({fault.tests for fault in faults}))
        if whole.returncode:
            print(whole.stdout[-3000:], whole.stderr[-1000:])
            return 1
        missed = [fault for fault in faults if not _noticed(tree, fault)]
    print(f"{len(faults) - len(missed)} of {len(faults)} faults noticed")
    return 1 if missed else 0


def _noticed(tree: Path, fault: Fault) -> bool:
    path = tree / "package/fmrnet" / fault.file
    right = path.read_text(encoding="utf-8")
    if right.count(fault.old) < 1:
        print(f"STALE    {fault.file}: {fault.what}: the line is no longer there")
        return False
    _write(path, right.replace(fault.old, fault.new, 1))
    run = _tests(tree, [fault.tests])
    _write(path, right)
    noticed = run.returncode == 1  # tests failed; 2 and more: they did not run
    print(f"{'noticed ' if noticed else 'MISSED  '} {fault.file}: {fault.what}", flush=True)
    if run.returncode > 1:
        print(run.stdout[-2000:], run.stderr[-500:])
    return noticed


def _write(path: Path, text: str) -> None:
    """Put it there, and what numba keeps away: it does not see that a function inlined from another file has changed."""
    path.write_text(text, encoding="utf-8")
    for kept in (path.parent / "__pycache__").glob("*.nb[ic]"):
        kept.unlink()


def _tests(tree: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CI": "1", "PYTHONPATH": str(tree / "package")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def _copy(tree: Path) -> Path:
    """The tests, and the package as it is when installed, reference and fast inside it."""
    leave = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "fmrnet", tree / "package/fmrnet", ignore=leave)
    for folder in ("reference", "fast"):
        shutil.copytree(ROOT / folder, tree / "package/fmrnet" / folder, ignore=leave)
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


if __name__ == "__main__":
    sys.exit(main())
