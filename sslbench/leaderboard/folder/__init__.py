"""The folder of a leaderboard: reads, writes, locks, validates, merges and compares it.

It imports output and the board. Publishing and verification import it.
"""
