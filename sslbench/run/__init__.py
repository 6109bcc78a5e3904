"""A whole plan, run: worker processes, trackers, and weights from outside taken in.

It imports plan and what lies below.
"""
