"""Kernels for CPU tensors: the sequential rules, each memory kept in the first-level cache.

Compiled by Numba at the first call, so that no compiler is needed on the user's machine. This
package imports Numba: it is imported only where one of its kernels is about to run.
"""
