"""Count the vector instructions in the inner loops of the anomaly map as numba compiles them on this machine."""

from __future__ import annotations

import collections
import os
import re
import tempfile

os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # cached code cannot be inspected

import numpy as np
from numba import njit

from fmrnet.fast import _fusion_numba as kernels

WIDTHS = {"zmm": 16, "ymm": 8, "xmm": 4}


def loops() -> dict[str, tuple]:
    n, one = kernels.COLS, np.float32(1)
    s, d = np.zeros((2, 12 * kernels.STRIDE), np.float32)
    first, second = np.zeros((2, 4 * kernels.STRIDE), np.float32)
    planes = s.reshape(-1, kernels.STRIDE), d.reshape(-1, kernels.STRIDE)
    taps, total = (np.float32(0.1),) * (kernels.RADIUS + 1), np.zeros((2, n), np.float32)
    return {
        "_down": (s, d, kernels.STRIDE, taps, first, second),
        "_add_ssim": (first, n, taps, one, one, (one,) * 3, total[0]),
        "_add_gms": (*planes, 2, n, one, total),
        "_add_square": (planes[1], 2, n, one, total),
    }


def main() -> None:
    print(
        "| loop | float32 lanes | packed multiply-add | packed add, subtract, multiply | packed divide, root |"
    )
    print("|---|---|---|---|---|")
    for name, arguments in loops().items():
        function = getattr(kernels, name)
        caller = njit(lambda *a: function(*a))  # noqa: B023
        caller(*arguments)
        (assembly,) = caller.inspect_asm().values()
        counts: collections.Counter[str] = collections.Counter()
        lanes = 0
        for word, operands in re.findall(r"^\s+(v\w+ps)\s+(.*)$", assembly, re.MULTILINE):
            kind = next(
                (k for k in ("fmadd", "fnmadd", "fmsub", "add", "sub", "mul", "div", "sqrt") if k in word), ""
            )
            counts[kind] += bool(kind)
            lanes = max([lanes, *(n for register, n in WIDTHS.items() if kind and register in operands)])
        fused = counts["fmadd"] + counts["fnmadd"] + counts["fmsub"]
        plain = counts["add"] + counts["sub"] + counts["mul"]
        print(f"| `{name}` | {lanes} | {fused} | {plain} | {counts['div'] + counts['sqrt']} |")


if __name__ == "__main__":
    main()
