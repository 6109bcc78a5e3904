"""Runs whole plans in worker processes, feeds trackers, and takes in weights from outside.

It imports plan and what lies below. testing and cli may import it.
"""
