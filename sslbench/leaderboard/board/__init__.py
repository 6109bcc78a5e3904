"""Builds boards from records: members, rows that may be compared, columns, ranks.

It imports statistics. Folders, output, publishing and verification may import it.
"""
