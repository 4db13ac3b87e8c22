"""Feature maps: what a layer does to queries and keys before a memory sees them.

Every map works on the last axis, [..., D] -> [..., F], and leaves the others alone. The formulas
of elu+1, FAVOR+, DPFP and the sum normalisation: Schlag, Irie, Schmidhuber (2021), arXiv
2102.11174.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def elu_plus_one(x: Tensor) -> Tensor:
    """x + 1 above zero, exp(x) below: F = D, positive.

    Katharopoulos et al. (2020). Written without elu's expm1, whose sum with one rounds to zero
    for x < -17 in float32.
    """
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def dpfp(x: Tensor, nu: int = 1) -> Tensor:
    """Deterministic parameter-free projection: F = 2 D nu, non-negative.

    With u = [relu(x), relu(-x)], the products of u with itself rolled by 1 .. nu; Eq. 37 in the
    roll form of the paper's appendix C. Shift D gives only zeros and shifts above D repeat
    smaller ones, so nu above D - 1 adds nothing. Raises ValueError unless 1 <= nu <= 2 D - 1.
    """
    num_products = 2 * x.shape[-1] - 1
    if not 1 <= nu <= num_products:
        raise ValueError(f"dpfp needs 1 <= nu <= 2 D - 1 = {num_products}, got {nu=}")
    u = torch.cat([x.relu(), (-x).relu()], -1)
    return torch.cat([u * u.roll(shift, -1) for shift in range(1, nu + 1)], -1)


def favor_projection(
    dim: int,
    num_directions: int,
    *,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draws the random directions of FAVOR+: [num_directions, dim], on the generator's device.

    Blocks of `dim` mutually orthogonal rows (the last block may be shorter), uniformly distributed
    in direction; each row has the length of an independent N(0, I) vector. Choromanski et al.
    (2021), section 3. Schlag et al. suggest dim log(dim) directions. generator=None draws from
    torch's own. Raises ValueError unless both sizes are at least 1.
    """
    if num_directions < 1 or dim < 1:
        raise ValueError(f"favor_projection needs sizes >= 1, got {dim=}, {num_directions=}")
    device = generator.device if generator is not None else None

    def gaussian(rows: int) -> Tensor:
        return torch.randn(rows, dim, generator=generator, device=device, dtype=torch.float64)

    blocks = []
    for _ in range(-(-num_directions // dim)):
        rotation, triangle = torch.linalg.qr(gaussian(dim))
        # QR alone favours some rotations; the signs of R's diagonal make the draw uniform.
        blocks.append((rotation * triangle.diagonal().sign()).mT)
    directions = torch.cat(blocks)[:num_directions]
    lengths = gaussian(num_directions).norm(dim=-1, keepdim=True)
    return (directions * lengths).to(dtype)


def favor_features(x: Tensor, projection: Tensor, temperature: float) -> Tensor:
    """FAVOR+ positive random features: F = 2 m for a projection [m, D].

    With s = temperature * x: exp(-|s|^2 / 2) [exp(R s), exp(-R s)] / sqrt(2 m), Eq. 31-32, so that
    phi(q) . phi(k) is an unbiased estimate of exp(temperature^2 q . k). D^(-1/4) estimates
    softmax attention with its 1 / sqrt(D); 1.0 is the published code, whose features underflow
    once |x|^2 is large.

    All exponents are added before the one exp, so a feature is at most exp(|R_i|^2 / 2) and never
    inf * 0.
    """
    scaled = temperature * x
    projected = scaled @ projection.mT
    exponent = torch.cat([projected, -projected], -1)
    shift = scaled.square().sum(-1, keepdim=True) / 2 + math.log(2 * len(projection)) / 2
    # In place, as these are the largest tensors of a model; autocast leaves the shift wider.
    return exponent.to(shift.dtype).sub_(shift).exp_()


def softmax_features(x: Tensor) -> Tensor:
    """softmax(x): F = D, positive, sums to 1."""
    return x.softmax(-1)


def silu_l2(x: Tensor) -> Tensor:
    """SiLU, then `l2_normalize`: F = D, length 1. Yang et al. (2024), arXiv 2406.06484."""
    return l2_normalize(F.silu(x))


def l2_normalize(features: Tensor, eps: float = 1e-6) -> Tensor:
    """Features divided by their Euclidean length. One below `eps` counts as that, so zeros stay
    zeros."""
    return F.normalize(features, dim=-1, eps=eps)


def sum_normalize(features: Tensor, eps: float = 1e-12) -> Tensor:
    """Non-negative features divided by their sum, Eq. 29.

    A sum below `eps` (or below the smallest normal number of the dtype) counts as that, and one of
    0 as 1: a smaller number would make the gradient infinite in float16. The paper's code divides
    0 by 0 there.
    """
    smallest = max(eps, torch.finfo(features.dtype).tiny)
    total = features.sum(-1, keepdim=True)
    return features / total.masked_fill(total == 0, 1).clamp(min=smallest)


def elu_features(x: Tensor) -> Tensor:
    """elu + 1, divided by the sum: the features of the official delta-rule layers."""
    return sum_normalize(elu_plus_one(x))
