"""From records to a board: members, rows that may be compared, columns, ranks.

It imports statistics.
"""
