"""Image datasets of the Hugging Face hub in sslbench, by name."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)  # what this plugin was written for


@hookimpl
def datasets():
    return {"hf": "sslbench_hf.dataset:HuggingFace"}
