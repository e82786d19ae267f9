"""Contracts of live worlds: device, task, world, attempt."""
