"""Named protocols as YAML files: datasets, backbones, budget, seeds, evaluators, baselines.

The registry finds them by name; nobody imports them.
"""
