"""How seconds, memory and arithmetic are measured, on a CPU and on a GPU."""

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
    """Wall-clock seconds of a call on a CPU; on a GPU the seconds between two events."""
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
    """Seconds of what consists of parts, each measured once and counted `times` times."""
    return sum(times * seconds(call, device) for times, call in parts)


def peak_rate(device: torch.device, dtype: torch.dtype, size: int = 0) -> float:
    """FLOP per second of a large (or of the given size) matrix product, the best of several."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(8))
    return 2 * size**3 / best


def count_flops(
    module: nn.Module, run: Callable[[nn.Module, Callable], Any], inputs: Sequence[Tensor]
) -> int:
    """FLOPs of the matrix products and convolutions that a module runs.

    Nothing is computed: weights and inputs are replaced by tensors that have a shape only. Masked
    and padded places count, as they are computed; attention counts as its two products.

    Args:
        module: it runs ``module(*inputs)``.
        run: is given a function like the module's forward pass and the inputs, and runs it,
            with its backward pass or without.
        inputs: tensors.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in state.items()
    }

    def forward(*given: Tensor) -> Tensor:
        return torch.func.functional_call(module, shapes, given)

    # Some modules keep tensors, such as a mask, as plain attributes and move them.
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
    """A compiled model counts as what was compiled."""
    if not hasattr(torch.compiler, "set_stance"):  # torch < 2.6
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _plain_attention():
    if not hasattr(torch.nn, "attention"):  # torch < 2.3: on "meta" it is what is taken anyway
        return nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def available_bytes(device: torch.device) -> int:
    """Memory that a step may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        return _proc_kib("/proc/meminfo", "MemAvailable") * 1024
    except OSError:
        return 8 * GIB


def memory(call: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Peak memory of a call in MiB.

    On a CPU this is the resident set of the process, so it should be a fresh one; what was freed
    before is given back to the system first.

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
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
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
    raise OSError(f"{file} does not know {key}")


def trim() -> None:
    """Let the C library give freed memory back, where it can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return
