"""Traced programs: what no input changes is computed once, and nothing unused is kept."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx.node import map_arg

FOLDED = "folded_{}"  # names of stored values
DETACHING = (torch.ops.aten.detach.default, torch.ops.aten.detach_.default)


def trace(model: nn.Module, images: Tensor, *, any_batch: bool) -> ExportedProgram:
    """Return the program that computes `model(images)`.

    Args:
        model: in eval mode.
        images: an example batch (B, 3, H, W).
        any_batch: B may differ from the example's, which must be 2 at least: torch.export takes
            1 for a constant.

    Raises:
        Exception: torch.export's own, where the model cannot be traced.
    """
    shapes: Any = ({0: Dim("batch", min=1)},) if any_batch else None
    with torch.no_grad():  # else every switch of the gradient mode is a node
        graph = _module(export(model, (images,), dynamic_shapes=shapes))
        fold_constants(graph)
        return export(graph, (images,), dynamic_shapes=shapes)


def _module(program: ExportedProgram) -> fx.GraphModule:
    """Return a program's module, without the check of inputs that newer versions of torch add."""
    if "check_guards" in signature(program.module).parameters:
        return program.module(check_guards=False)
    return program.module()


def fold_constants(module: fx.GraphModule) -> None:
    """Store what no input of a traced module changes; drop tensors that nothing reads then."""
    _drop_detaching(module.graph)
    values: dict[fx.Node, Any] = {}  # of the nodes that no input changes
    stored: dict[tuple[Any, ...], fx.Node] = {}
    graph = module.graph
    for node in graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(module, str(node.target))
            if isinstance(values[node], Tensor):
                stored.setdefault(_identity(values[node]), node)
        elif (
            node.op == "call_function"
            and not node.is_impure()
            and all(source in values for source in node.all_input_nodes)
        ):
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for node, value in values.items():
        is_read = any(user not in values for user in node.users)
        if node.op == "call_function" and isinstance(value, Tensor) and is_read:
            key = _identity(value)
            if key not in stored:
                name = FOLDED.format(len(stored))
                module.register_buffer(name, value.detach().clone().contiguous())
                with graph.inserting_before(node):
                    stored[key] = graph.get_attr(name)
            node.replace_all_uses_with(stored[key])
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    _drop_unread(module)
    module.recompile()


def _drop_detaching(graph: fx.Graph) -> None:
    """Delete what detaches tensors: a program has no gradients, and stored views refuse it."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in DETACHING:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Return what two views of one memory share exactly where they are the same."""
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _drop_unread(module: fx.GraphModule) -> None:
    """Delete the parameters and buffers that no node reads; keep no more of the others."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    every = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for path, tensor in every:
        place, _, name = path.rpartition(".")
        owner = module.get_submodule(place)
        if path not in read:
            delattr(owner, name)
        elif tensor.untyped_storage().nbytes() > tensor.nbytes and name in owner._buffers:
            setattr(owner, name, tensor.clone())  # a view, of which a file would hold the whole
