"""The one training loop with its feed, device, optimiser, state and health.

It imports data, the store, cells and what lies below.
"""
