"""TensorBoard, Weights & Biases and MLflow beside a run of sslbench."""

from sslbench import hookimpl

SSLBENCH_API = (1, 1)  # what this plugin was written for: trackers came with 1.1


@hookimpl
def trackers():
    return {
        "tensorboard": "sslbench_trackers.tensorboard:TensorBoard",
        "wandb": "sslbench_trackers.wandb:WandB",
        "mlflow": "sslbench_trackers.mlflow:MLflow",
    }
