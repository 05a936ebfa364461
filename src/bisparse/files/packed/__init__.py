"""Packed checkpoints: sparse weights as kept values and a compact index, in ordinary safetensors files."""

from __future__ import annotations
