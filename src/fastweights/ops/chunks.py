"""A sequence cut into chunks of equal length, and back."""

import torch.nn.functional as F
from torch import Tensor


def balanced_chunk(length: int, chunk_size: int) -> int:
    """The shortest chunk length that covers `length` steps in ceil(length / chunk_size) chunks.

    50 steps with chunk_size 32 become 2 chunks of 25: less than one step of padding a chunk.
    Raises ValueError unless both arguments are at least 1.
    """
    if length < 1 or chunk_size < 1:
        raise ValueError(f"need T >= 1 and chunk_size >= 1, got T={length}, {chunk_size=}")
    num_chunks = -(-length // chunk_size)
    return -(-length // num_chunks)


def split_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, T, H, D] -> [N, B*H, chunk, D], contiguous; zeros fill up the last chunk."""
    B, T, H, D = x.shape
    missing = -T % chunk
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    num_chunks = (T + missing) // chunk
    x = x.reshape(B, num_chunks, chunk, H, D).permute(1, 0, 3, 2, 4)
    return x.reshape(num_chunks, B * H, chunk, D).contiguous()


def merge_chunks(x: Tensor, length: int, num_heads: int) -> Tensor:
    """[N, B*H, chunk, D] -> [B, length, H, D]: the inverse of `split_chunks`."""
    N, BH, chunk, D = x.shape
    B = BH // num_heads
    x = x.reshape(N, B, num_heads, chunk, D).permute(1, 0, 3, 2, 4)
    return x.reshape(B, N * chunk, num_heads, D)[:, :length]
