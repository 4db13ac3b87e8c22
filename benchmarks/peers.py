"""The functions of other libraries that ours are compared with, loaded without a GPU or Triton.

Neither library is a dependency: without the extra `benchmarks` a peer is reported as missing.
"""

import functools
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

HINT = "install the extra `benchmarks`"
HUGGING_FACE_MODULE = "transformers.models.qwen3_next.modeling_qwen3_next"


class PeerMissing(Exception):
    """A peer that is not installed, or not in the installed version; says which."""


def fla_naive(op: str, function: str) -> Callable[..., Any]:
    """A plain PyTorch reference op of flash-linear-attention, such as ("delta_rule",
    "delta_rule_chunkwise"). Raises PeerMissing."""
    return _found(_fla_module(op), function, "flash-linear-attention")


def hugging_face_delta_rule() -> Callable[..., Any]:
    """transformers' `torch_chunk_gated_delta_rule`, what Qwen3-Next runs without a GPU. Raises
    PeerMissing."""
    try:
        module = import_module(HUGGING_FACE_MODULE)
    except ImportError as error:
        raise PeerMissing(f"transformers is not installed ({error.name}): {HINT}") from None
    function = _found(module, "torch_chunk_gated_delta_rule", "transformers")
    # The wrapper takes flash-linear-attention's Triton kernel where that can be imported.
    unwrapped: Callable[..., Any] = getattr(function, "__wrapped__", function)
    return unwrapped


@functools.cache
def _fla_module(op: str) -> ModuleType:
    """The file alone: the package around it imports Triton."""
    try:
        path = distribution("fla-core").locate_file(f"fla/ops/{op}/naive.py")
        spec = spec_from_file_location(f"fla_naive_{op}", str(path))
        assert spec is not None and spec.loader is not None  # a .py file has both
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except PackageNotFoundError:
        raise PeerMissing(f"flash-linear-attention is not installed: {HINT}") from None
    except FileNotFoundError:
        raise PeerMissing(f"this flash-linear-attention has no naive {op}: {HINT}") from None
    except ImportError as error:
        raise PeerMissing(f"flash-linear-attention needs {error.name}: {HINT}") from None
    return module


def _found(module: ModuleType, name: str, library: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if function is None:
        raise PeerMissing(f"this {library} has no {name}: {HINT}")
    found: Callable[..., Any] = function
    return found
