"""Data sets, one a file; the registry knows them by name.

A file imports parts and the contract alone.
"""
