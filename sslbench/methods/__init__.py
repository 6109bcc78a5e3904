"""Ways to pretrain a backbone, one a file; the registry finds them by name.

Nobody imports them. A file imports parts and the contract alone.
"""
