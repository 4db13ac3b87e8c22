"""The state of a batch whose rows have seen different numbers of tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from fastweights.models.sequence_model import SequenceModel


class RowGroup(NamedTuple):
    rows: list[int]  # ascending
    state: Any  # of the model, for these rows; None: empty


class RowStates:
    """A sequence model's state, row by row.

    Rows whose states have the same shapes are kept and run together: all of them, where the state
    does not grow. So no layer needs to know of padding, which never enters a model.
    """

    def __init__(self) -> None:
        self.groups: list[RowGroup] = []

    def run(self, model: SequenceModel, inputs: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """The model on the next tokens of every row.

        Args:
            inputs: `[B, T]` token numbers.
            mask: `[B, T]`, False where there is no token: the model sees the others of the row, one
                directly after the other.
            at: `[B, T]`, where scores are wanted.

        Returns:
            `[N, num_outputs]`, the scores at the N positions with a token where they are wanted,
            row by row. The states are then those after the last token.

        Raises:
            ValueError: if no row has a token, or there are not as many rows as before.
        """
        lengths = mask.sum(1).tolist()
        before = sum(len(group.rows) for group in self.groups)
        if self.groups and len(lengths) != before:
            raise ValueError(f"inputs have {len(lengths)} rows, the states {before}")
        if not any(lengths):
            raise ValueError(f"mask {list(mask.shape)}: no row has a token")
        wanted = mask & at
        number = wanted.flatten().cumsum(0).view(wanted.shape) - 1
        groups, found = [], []
        for rows, state in self._split(lengths):
            if lengths[rows[0]]:
                places = torch.tensor(rows, device=inputs.device)
                real, shape = mask[places], (len(rows), lengths[rows[0]])
                output = model(
                    inputs[places][real].view(shape), state, at=at[places][real].view(shape)
                )
                found.append((number[places][wanted[places]], output.logits))
                state = output.state
            groups.append(RowGroup(rows, state))
        self.groups = _merged(groups)
        if len(found) == 1:
            return found[0][1]
        order, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores[order.argsort()]

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row `rows[i]` was."""
        groups = []
        for old, state in self.groups:
            new = [row for row, source in enumerate(rows) if source in old]
            if new:
                groups.append(RowGroup(new, _rows_of(state, [old.index(rows[row]) for row in new])))
        self.groups = groups

    def _split(self, lengths: Sequence[int]) -> list[RowGroup]:
        """The groups, each split into rows with the same number of next tokens."""
        parts = []
        for rows, state in self.groups or [RowGroup(list(range(len(lengths))), None)]:
            for length in sorted({lengths[row] for row in rows}):
                chosen = [i for i, row in enumerate(rows) if lengths[row] == length]
                whole = len(chosen) == len(rows)
                part = state if whole else _rows_of(state, chosen)
                parts.append(RowGroup([rows[i] for i in chosen], part))
        return parts


def _rows_of(state: Any, rows: Sequence[int]) -> Any:
    """These rows of a state."""
    return tree_map_only(Tensor, lambda x: x[torch.tensor(rows, device=x.device)], state)


def _merged(groups: Sequence[RowGroup]) -> list[RowGroup]:
    """The groups, those with states of the same shapes put together."""
    alike: dict[Any, list[RowGroup]] = {}
    for group in groups:
        form = None if group.state is None else tuple(x.shape[1:] for x in tree_leaves(group.state))
        alike.setdefault(form, []).append(group)
    return [_joined(same) if len(same) > 1 else same[0] for same in alike.values()]


def _joined(groups: Sequence[RowGroup]) -> RowGroup:
    rows = [row for group in groups for row in group.rows]
    state = tree_map(lambda *xs: torch.cat(xs), *(group.state for group in groups))
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return RowGroup(sorted(rows), _rows_of(state, order))
