"""Passes over the memory of a group of heads, for a step of the delta rule and its way back.

For rules that need the output of a step for the next one. The memory is an array S of D rows of one
vector each, in the first-level cache (see `fastweights.kernels.cpu.groups`). Functions of compiled
code, in which D and the size P of the group are constants.
"""

from typing import Any

from numba.extending import overload

from fastweights.kernels.cpu.groups import group_totals, repeat
from fastweights.kernels.cpu.vectors import INLINED, load, muladd, store, zeros


def write_and_read(S: Any, D: Any, P: Any, rows: Any, u: Any, q: Any, k: Any) -> Any:
    """write_and_read(S, D, P, rows, u, q, k): q S and k S, after the write of the step before,
    whose error times its write strength is u and whose key is in rows[0]; k takes that place.

    So a step passes once over the memory: its output is q S + (q k) u, with its own u.
    """


def take_back(
    S: Any, dS: Any, D: Any, P: Any, rows: Any, q: Any, k: Any, error: Any, beta: Any, d_read: Any
) -> Any:
    """take_back(S, dS, D, P, rows, q, k, error, beta, d_read): the gradients of q, k, v and beta of
    a step whose output has the gradient d_read.

    S goes from S_t back to S_{t-1} = S_t - k (beta error)^T, and dS from the gradient of the one to
    that of the other. Both are held transposed, so that the gradients of q and k are sums of rows.
    `beta`, like its gradient, has one number a head.
    """


@overload(write_and_read, prefer_literal=True, jit_options=INLINED)
def _write_and_read(S: Any, D: Any, P: Any, rows: Any, u: Any, q: Any, k: Any) -> Any:
    W = q.lanes

    def code(S: Any, D: Any, P: Any, rows: Any, u: Any, q: Any, k: Any) -> Any:
        store(rows, (1, 0), q)
        store(rows, (2, 0), k)
        read = zeros(S, W)
        prediction = zeros(S, W)
        for a in range(D):
            s = muladd(repeat(load(rows, (0, a * P), P), W), u, load(S, (a, 0), W))
            store(S, (a, 0), s)
            read = muladd(repeat(load(rows, (1, a * P), P), W), s, read)
            prediction = muladd(repeat(load(rows, (2, a * P), P), W), s, prediction)
        store(rows, (0, 0), k)
        return read, prediction

    return code


@overload(take_back, prefer_literal=True, jit_options=INLINED)
def _take_back(
    S: Any, dS: Any, D: Any, P: Any, rows: Any, q: Any, k: Any, error: Any, beta: Any, d_read: Any
) -> Any:
    W = q.lanes

    def code(
        S: Any, dS: Any, D: Any, P: Any, rows: Any,
        q: Any, k: Any, error: Any, beta: Any, d_read: Any,
    ) -> Any:  # fmt: skip
        store(rows, (0, 0), d_read)
        store(rows, (1, 0), repeat(beta, W) * error)
        store(rows, (2, 0), error)
        dq = zeros(S, W)
        dk = zeros(S, W)
        d_beta = zeros(S, P)
        for j in range(D):
            dr = repeat(load(rows, (0, j * P), P), W)
            u = repeat(load(rows, (1, j * P), P), W)
            s = load(S, (j, 0), W)
            g = muladd(dr, q, load(dS, (j, 0), W))
            du = group_totals(k * g, P)
            d_beta = muladd(du, load(rows, (2, j * P), P), d_beta)
            d_error = beta * du
            store(rows, (3, j * P), d_error)
            de = repeat(d_error, W)
            dq = muladd(dr, s, dq)
            dk = muladd(u, g, dk)
            s = muladd(-u, k, s)
            dk = muladd(-de, s, dk)
            store(S, (j, 0), s)
            store(dS, (j, 0), muladd(-de, k, g))
        return dq, dk, load(rows, (3, 0), W), d_beta

    return code
