"""Triton kernels of the exact mask solver; needs Triton, so nothing here is imported before CUDA scores are met."""
