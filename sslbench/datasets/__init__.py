"""Datasets, one a file; the registry finds them by name, and nobody imports them.

A file imports parts and the contract alone.
"""
