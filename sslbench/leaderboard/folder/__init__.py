"""The directory of a leaderboard: read, built, locked, validated, merged, compared.

It imports output and the board.
"""
