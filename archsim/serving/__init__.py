"""Requests into iterations: who runs in the next forward pass."""
