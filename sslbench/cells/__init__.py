"""What a cell is: how its settings are resolved, its identity and the way back from it, and the
suites that ask for it. It imports plugins and what lies below.
"""
