"""Named protocols as YAML files: data sets, backbones, budget, seeds, evaluators, baselines."""
