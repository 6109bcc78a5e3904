"""One cell on one device: its module built, trained or loaded, and judged, with a record of each.
It imports train and what lies below.
"""
