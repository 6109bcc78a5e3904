"""Bundles: packed, opened with care, and judged again from their weights.

It imports the folder.
"""
