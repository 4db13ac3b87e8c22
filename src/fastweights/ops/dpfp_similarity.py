"""The kernel function of DPFP: products of features without the features.

    kappa(q, k) = phi(q) . phi(k) = sum_{j = 1 .. nu} sum_i z_i z_{i - j},   z = u(q) * u(k),

with u(x) = [relu(x), relu(-x)], phi of Schlag, Irie, Schmidhuber (2021), Eq. 37 (see
`fastweights.ops.feature_maps.dpfp`) and indices that wrap around. For few queries this saves the
2 D nu features of every key, which are more to write and read than to multiply.
"""

from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.feature_maps import dpfp
from fastweights.ops.precision import autocast_off, widest_dtype

MOST_QUERIES = 8
"""Up to this many queries a sequence the kernel is the faster one; above, features and a matrix
product are."""


def dpfp_similarity(q: Tensor, k: Tensor, nu: int = 1, *, backend: Backend = "auto") -> Tensor:
    """phi(q_m) . phi(k_t) for q [B, M, D], k [B, T, D] -> [B, M, T], in float32 at least.

    Backend "torch" multiplies features, and "auto" does so for more than 8 queries a sequence.
    Raises ValueError for shapes that do not fit, and unless 1 <= nu <= 2 D - 1.
    """
    if q.dim() != 3 or k.dim() != 3 or q.shape[::2] != k.shape[::2]:
        raise ValueError(
            f"dpfp_similarity needs q [B M D], k [B T D], got q {list(q.shape)}, k {list(k.shape)}"
        )
    if not 1 <= nu <= 2 * q.shape[-1] - 1:
        raise ValueError(f"dpfp_similarity needs 1 <= nu <= {2 * q.shape[-1] - 1}, got {nu=}")
    dtype = widest_dtype(q, k)
    q, k = q.to(dtype), k.to(dtype)
    many = backend == "auto" and q.shape[1] > MOST_QUERIES
    if many or resolve_backend(backend, "dpfp_similarity", q.device, dtype) == "torch":
        with autocast_off(q):
            return dpfp(q, nu) @ dpfp(k, nu).mT
    from fastweights.kernels.cpu import dpfp_similarity as kernel

    return kernel.dpfp_similarity(q, k, nu)
