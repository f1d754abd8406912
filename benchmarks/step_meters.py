"""Measurement of time, memory and FLOPs on CPU and GPU."""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

GIB = 1 << 30
Part = tuple[int, Callable[[], Any]]


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return a call's seconds: wall-clock on a CPU, between two events on a GPU."""
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def seconds_of_parts(parts: Sequence[Part], device: torch.device) -> float:
    """Return the seconds of several parts, each run once and counted `times` times."""
    return sum(times * seconds(call, device) for times, call in parts)


def peak_rate(device: torch.device, dtype: torch.dtype, size: int = 0) -> float:
    """Return the best FLOP per second of several large matrix products."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best


def count_flops(
    module: nn.Module, run: Callable[[nn.Module, Callable], Any], inputs: Sequence[Tensor]
) -> int:
    """Count the FLOPs of a module's matrix products and convolutions.

    Nothing is computed: weights and inputs are replaced by tensors on the meta device. Masked and
    padded positions count, because they are computed; attention counts as its two products.

    Args:
        module: the module whose forward pass is ``module(*inputs)``.
        run: called with the forward function and the inputs; runs it, with or without a backward
            pass.
        inputs: tensors.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in state.items()
    }
    frozen = {name: tensor.detach() for name, tensor in shapes.items()}

    def forward(*given: Tensor) -> Tensor:
        # The counter of torch 2.4 fails on inputs that require gradients where none are recorded.
        found = shapes if torch.is_grad_enabled() else frozen
        return torch.func.functional_call(module, found, given)

    # Some modules hold tensors, such as a mask, as plain attributes and move them.
    attributes = [(part, dict(vars(part))) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    # torch's fused encoder attention and its CPU attention kernel are unknown to the counter.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _plain_attention(), _eager(), FlopCounterMode(display=False) as counter:
            run(forward, *(tensor.to("meta") for tensor in inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, before in attributes:
            vars(part).update(before)
    return counter.get_total_flops()


def _eager():
    """Return a context in which compiled models run eagerly, so that they are counted."""
    if not hasattr(torch.compiler, "set_stance"):  # torch < 2.6
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _plain_attention():
    if not hasattr(torch.nn, "attention"):  # torch < 2.3: the default on "meta"
        return nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def available_bytes(device: torch.device) -> int:
    """Return the memory available to a step."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        return _proc_kib("/proc/meminfo", "MemAvailable") * 1024
    except OSError:
        return 8 * GIB


def memory(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Return the peak memory of a call in MiB.

    On a CPU this is the resident set of the process, which should therefore be a fresh one; memory
    that was freed before is returned to the system first.

    Returns:
        {"step": peak less the level before, "absolute": peak, "by": how it was measured}.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        peak, by = torch.cuda.max_memory_allocated(device), "torch.cuda.max_memory_allocated"
        return _mebibytes(peak, before, by)
    trim()
    try:
        before = _proc_kib("/proc/self/status", "VmRSS") * 1024
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        call()
        peak, by = _proc_kib("/proc/self/status", "VmHWM") * 1024, "VmHWM"
    except OSError:  # no Linux, or not permitted
        before = _process_peak()
        call()
        peak, by = _process_peak(), "ru_maxrss of the whole process"
    return _mebibytes(peak, before, by)


def _mebibytes(peak: int, before: int, by: str) -> dict[str, Any]:
    return {"step": (peak - before) / 2**20, "absolute": peak / 2**20, "by": by}


def _process_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc_kib(file: str, key: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise OSError(f"{file} has no entry {key}")


def trim() -> None:
    """Return freed memory to the system, where the C library can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
