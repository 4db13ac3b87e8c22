"""The processes of one run, which torchrun starts: what each does, and what they do together.

All compute a share of every batch; the first one alone writes. Without torchrun there is one, and
nothing here communicates. What a function does together, every process must call.
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fastweights.layers.moe import Router
from fastweights.models.block import Block
from fastweights.train.config import ConfigError, Device, Strategy
from fastweights.train.errors import OtherProcessError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")


# --- who ------------------------------------------------------------------------------------------


def started_by_torchrun() -> bool:
    """Has torchrun started this process?"""
    return dist.is_available() and dist.is_torchelastic_launched()


def is_first() -> bool:
    """Is this the process that writes? Known before the processes have joined."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def was_restarted() -> bool:
    """Has torchrun started the processes again, after one of them had failed?"""
    return started_by_torchrun() and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0


def local_rank() -> int:
    """The number of this process among those of its machine, and so of its CUDA device."""
    return int(os.environ["LOCAL_RANK"]) if started_by_torchrun() else 0


def join(strategy: Strategy, device: Device) -> None:
    """Make one group, torch's default one, of all processes that torchrun has started. It lasts as
    long as they do: gloo can hang where a group ends right after it has communicated.

    Raises ConfigError where the strategy needs torchrun and there is none.
    """
    if strategy != "auto" and not started_by_torchrun():
        raise ConfigError(
            [
                f"strategy: {strategy!r} is for the processes of torchrun, as in torchrun "
                "--nproc-per-node 2 -m fastweights train ..."
            ]
        )
    one = not started_by_torchrun() or os.environ["WORLD_SIZE"] == "1"
    if not alone() or (strategy == "auto" and one):
        return
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    dist.init_process_group("gloo" if on_cpu else "cpu:gloo,cuda:nccl")
    atexit.register(dist.destroy_process_group)


def alone() -> bool:
    """Is this process in no group?"""
    return not (dist.is_available() and dist.is_initialized())


def rank() -> int:
    """The number of this process: 0, 1, ... The first one writes."""
    return 0 if alone() else dist.get_rank()


def count() -> int:
    """How many processes there are."""
    return 1 if alone() else dist.get_world_size()


# --- values ---------------------------------------------------------------------------------------


def first(do: Callable[[], T]) -> T | None:
    """What the first process does while the others wait, and its value; None in the others.

    Where it fails there, it raises OtherProcessError in the others.
    """
    if alone():
        return do()
    if rank() > 0:
        if not from_first(None):
            raise OtherProcessError(f"process {rank()} stops, as the first one has failed")
        return None
    done = False
    try:
        value = do()
        done = True
    finally:
        from_first(done)
    return value


def from_first(value: T) -> T:
    """The value that the first process has."""
    if alone():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T) -> list[T]:
    """The values of all processes in the first one, in their order; nothing in the others."""
    if alone():
        return [value]
    values: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(value, values, dst=0)
    return values or []


def anywhere(flag: bool) -> bool:
    """Is the flag set in any process?"""
    return flag if alone() else sum_of(flag)[0] > 0


def sum_of(*values: float) -> list[float]:
    """Sums over the processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if not alone():
        dist.all_reduce(total)
    return total.tolist()


class MeanLoss(NamedTuple):
    """loss: mean over the tokens of all processes; num_tokens: of all; weight: what the loss of
    this process is multiplied with, so that the mean over the processes is that loss."""

    loss: float
    num_tokens: int
    weight: float


def mean_loss(loss: float, num_tokens: int) -> MeanLoss:
    """Of a loss that is a mean over `num_tokens` in this process."""
    if alone():
        return MeanLoss(loss, num_tokens, 1.0)
    total, total_tokens = sum_of(loss * num_tokens, num_tokens)
    return MeanLoss(total / total_tokens, int(total_tokens), num_tokens * count() / total_tokens)


# --- rows of a batch ------------------------------------------------------------------------------


def my_rows(batch: Tensor) -> Tensor:
    """The rows of a batch that are for this process: as many neighbours as the others have, up to
    one."""
    return batch.tensor_split(count())[rank()]


def all_rows(mine: Any) -> Any:
    """The reverse of `my_rows` for all tensors in lists and dicts, on the CPU of the first process;
    None in the others."""
    parts = gathered(tree_map(Tensor.cpu, mine))
    return tree_map(lambda *rows: torch.cat(rows), *parts) if parts else None


def check_rows(num_rows: int) -> None:
    """Raise ConfigError where a batch of so many sequences has none for some process."""
    if num_rows < count():
        raise ConfigError(
            [f"training.batch_size: {count()} processes share a batch of {num_rows} sequences"]
        )


def check_even(num_rows: int) -> None:
    """Raise ConfigError where the processes cannot have equally many of the sequences that are
    computed at once."""
    if num_rows % count():
        raise ConfigError(
            [f"training.batch_size: {num_rows} sequences at once, for {count()} processes"]
        )


# --- the model ------------------------------------------------------------------------------------


def fabric_options(strategy: Strategy) -> dict[str, Any]:
    """What Lightning Fabric has to know of the processes that have joined."""
    if alone():
        return {"devices": 1}
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    on_this_machine = int(os.environ["LOCAL_WORLD_SIZE"])
    sharded = strategy == "fsdp"
    return {
        "devices": on_this_machine,
        "num_nodes": count() // on_this_machine,
        "strategy": ModelParallelStrategy(shard, count(), 1) if sharded else DDPStrategy(),
    }


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Fully sharded data parallelism, FSDP2: every process keeps a part of every weight, and whole
    weights are there for a block at a time."""
    from torch.distributed.fsdp import fully_shard

    mesh = mesh["data_parallel"]
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    # Also after an evaluation the weights of the model are those that the optimizer has.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # What a block returns may be a view, which nothing changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    return model


def balance_experts_together(model: nn.Module) -> None:
    """Experts are balanced over the tokens of all processes, not over those of each."""
    if alone():
        return
    for module in model.modules():
        if isinstance(module, Router):
            module.process_group = dist.group.WORLD


def model_state(model: nn.Module) -> dict[str, Any]:
    """The model's `state_dict` with whole tensors, in the first process; nothing in the others."""
    if alone():
        return model.state_dict()
    from torch.distributed.checkpoint import state_dict as together

    return together.get_model_state_dict(model, options=_whole())


def load_model_state(model: nn.Module, state: Mapping[str, Any] | None) -> None:
    """The reverse of `model_state`; what the others than the first give does not count."""
    if alone():
        model.load_state_dict(state or {})
        return
    from torch.distributed.checkpoint import state_dict as together

    together.set_model_state_dict(model, dict(state or {}), options=_from_first())


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's `state_dict` with whole tensors, as one process alone has it, in the first
    process; nothing in the others."""
    if alone():
        return optimizer.state_dict()
    from torch.distributed.checkpoint import state_dict as together

    named = together.get_optimizer_state_dict(model, optimizer, options=_whole())
    return _with_keys(named, {name: i for i, name in enumerate(_trained(model))}) if named else {}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any] | None
) -> None:
    """The reverse of `optimizer_state`; what the others than the first give does not count."""
    if alone():
        optimizer.load_state_dict(dict(state or {}))
        return
    from torch.distributed.checkpoint import state_dict as together

    named = _with_keys(state, dict(enumerate(_trained(model)))) if state else {}
    together.set_optimizer_state_dict(model, optimizer, named, options=_from_first())
    for group in optimizer.param_groups:
        group["betas"] = tuple(group["betas"])  # it has made a list of them


def _trained(model: nn.Module) -> list[str]:
    """Names of the parameters in the order in which the optimizer has them."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _with_keys(state: Mapping[str, Any], keys: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with other keys for its parameters: torch.distributed calls them by
    name, the optimizer by number."""
    return {
        "state": {keys[old]: values for old, values in state["state"].items()},
        "param_groups": [
            {**group, "params": [keys[old] for old in group["params"]]}
            for group in state["param_groups"]
        ],
    }


def _whole() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _from_first() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
