"""Weights that somebody else trained: read from a file without running any code, fitted onto a
backbone, and taken into the store as a finished cell.
"""
