"""The functions of `fmrnet.reference` on torch tensors: eager, numba (CPU) and Triton (GPU)."""
