"""The kernel function of FAVOR+: products of random features without the features.

    kappa(q, k) = phi(q) . phi(k) = exp(-(|q|^2 + |k|^2) / 2) sum_i cosh(R_i . (q + k)) / m,

for q and k multiplied by the temperature, with phi of Choromanski et al. (2021) and Schlag, Irie,
Schmidhuber (2021), Eq. 31-32 (see `fastweights.ops.feature_maps.favor_features`). For few queries
this saves the 2 m features of every key.
"""

from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.feature_maps import favor_features
from fastweights.ops.precision import autocast_off, widest_dtype

MOST_QUERIES = 2
"""Up to this many queries a sequence the kernel is the faster one; above, features and a matrix
product are."""


def favor_similarity(
    q: Tensor, k: Tensor, projection: Tensor, temperature: float, *, backend: Backend = "auto"
) -> Tensor:
    """phi(q_m) . phi(k_t) for q [B, M, D], k [B, T, D] and a projection [m, D] -> [B, M, T], in
    float32 at least.

    Gradients go to q and k alone. Backend "torch" multiplies features, and "auto" does so for more
    than 2 queries a sequence. Raises ValueError for shapes that do not fit, and for a projection
    that needs a gradient.
    """
    fits = q.dim() == k.dim() == 3 and projection.dim() == 2
    if not fits or q.shape[::2] != k.shape[::2] or q.shape[2] != projection.shape[1]:
        raise ValueError(
            "favor_similarity needs q [B M D], k [B T D], projection [m D], got "
            f"q {list(q.shape)}, k {list(k.shape)}, projection {list(projection.shape)}"
        )
    if projection.requires_grad:
        raise ValueError("favor_similarity has no gradient for a projection, got one that needs it")
    dtype = widest_dtype(q, k, projection)
    q, k, projection = q.to(dtype), k.to(dtype), projection.to(dtype)
    many = backend == "auto" and q.shape[1] > MOST_QUERIES
    if many or resolve_backend(backend, "favor_similarity", q.device, dtype) == "torch":
        with autocast_off(q):
            of_query, of_key = (favor_features(x, projection, temperature) for x in (q, k))
            return of_query @ of_key.mT
    from fastweights.kernels.cpu import favor_similarity as kernel

    return kernel.favor_similarity(q, k, projection, temperature)
