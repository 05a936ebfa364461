"""A model that several processes train together."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bisparse.train.processes import Processes

__all__ = ["joint_model"]


def joint_model(model: nn.Module, processes: Processes) -> nn.Module:
    """The model as it is called: itself in one process, else wrapped so that gradients are averaged.

    A wrapper belongs to the sizes that parameters have now: once one has changed, as when a sparse layer loses
    connections, make another. Buffers are sent around before every call only where some hold real numbers (running
    means); the places of sparse layers' connections do not change by being used.
    """
    if processes.world == 1:
        return model
    devices = [processes.device] if processes.device.type == "cuda" else None
    moving = any(buffer.is_floating_point() for buffer in model.buffers())
    return DistributedDataParallel(model, devices, broadcast_buffers=moving)
