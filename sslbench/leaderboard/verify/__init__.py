"""Packs bundles, opens them with care, and judges their weights again.

It imports the folder. Only the command line imports it.
"""
