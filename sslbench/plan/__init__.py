"""From options to cells: what is selected, how each cell stands in the store, and what it would
cost. It imports one_cell and what lies below.
"""
