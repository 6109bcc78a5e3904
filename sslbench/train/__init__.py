"""The training loop that all methods share, with its data feed, optimiser, state and health checks.

It imports data, the store, cells and what lies below. one_cell and all above may
import it.
"""
