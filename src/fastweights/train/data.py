"""Batches keyed by step, and the seeds of a run.

Batch i of epoch e is a slice of a permutation whose generator is seeded with (seed, "order", e):
the step number alone says which batch comes next, so a resumed run needs no other state.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.tasks.formal.encode import encode
from fastweights.tasks.formal.menu import Task, load_task
from fastweights.train.config import RunConfig
from fastweights.train.processes import check_rows, my_rows

IGNORED = -100
"""Target of a position that is not counted."""


def generator_for(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose of one run; different purposes share no stream."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load_run_task(config: RunConfig) -> Task:
    """The data of a run: symbols, labels and splits, drawn with the run's seed."""
    return load_task(config.resolved().task.model_dump(), config.seed)


class Batch(NamedTuple):
    """inputs and targets [B, T] int64, uncounted targets are IGNORED; num_tokens counted ones."""

    inputs: Tensor
    targets: Tensor
    num_tokens: int


class TrainingBatches:
    """The training set on a device, served by step: of every batch the rows of this process.

    Each batch is cut to its own longest sequence: the models are causal and padding is not counted,
    so this changes nothing but the time. The last batch of an epoch may be smaller. `checksum`
    tells whether two training sets are the same.
    """

    def __init__(self, task: Task, batch_size: int, seed: int, device: torch.device) -> None:
        sequences = encode(task.splits["train"], task.symbols, task.labels)
        self.batch_size, self.seed, self.device = batch_size, seed, device
        mask = sequences.mask
        self.inputs = sequences.inputs.to(device)
        self.targets = sequences.targets.masked_fill(~mask, IGNORED).to(device)
        positions = torch.arange(1, mask.shape[1] + 1)
        self.lengths = (mask * positions).amax(dim=1)
        self.num_tokens = mask.sum(dim=1)
        self.steps_per_epoch = -(-len(mask) // batch_size)
        check_rows(len(mask) % batch_size or batch_size)
        self.checksum = _checksum(sequences.inputs, self.lengths, sequences.targets)
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> Batch:
        """The batch of step 0, 1, ..."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = generator_for(self.seed, "order", epoch)
            self._order = torch.randperm(len(self.lengths), generator=generator)
            self._epoch = epoch
        chosen = self._order[i * self.batch_size : (i + 1) * self.batch_size]
        length = int(self.lengths[chosen].max())
        chosen = my_rows(chosen)
        rows = chosen.to(self.device)
        return Batch(
            self.inputs[rows, :length],
            self.targets[rows, :length],
            int(self.num_tokens[chosen].sum()),
        )


def _checksum(*tensors: Tensor) -> str:
    """SHA-256 of the shapes and values of integer tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
