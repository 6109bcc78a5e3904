"""Cells: resolves their settings, writes and reads their identities, and reads the suites.

It imports plugins and what lies below. The store, data, train and all above may import it.
"""
