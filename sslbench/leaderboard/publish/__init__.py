"""Leaderboards put where people read them, and the workflows that take submissions.

It imports the folder.
"""
