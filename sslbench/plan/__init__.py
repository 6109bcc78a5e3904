"""Plans: the cells that options select, how each stands in the store, and what it would cost.

It imports one_cell and what lies below. run, leaderboard, testing and cli may import it.
"""
