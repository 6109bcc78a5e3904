"""Evaluators of a frozen encoder, one protocol a file; the registry finds them by name.

Nobody imports them. A file imports parts and the contract alone.
"""
