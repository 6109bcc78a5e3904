"""Runs one cell on one device: builds its module, trains or loads it, judges it, writes records.

It imports train and what lies below. plan and all above may import it.
"""
