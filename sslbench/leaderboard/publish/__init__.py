"""Publishes leaderboards, and writes the workflows that take submissions.

It imports the folder. Only the command line imports it.
"""
