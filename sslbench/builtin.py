"""The built-in plugin: name -> "module:attribute". The table of contents of sslbench."""

from __future__ import annotations

from .hookspecs import hookimpl

SSLBENCH_API = (1, 0)


@hookimpl
def methods() -> dict[str, str]:
    return {
        "pixels": "sslbench.methods.pixels:pixels",
        "untrained": "sslbench.methods.untrained:untrained",
        "pretrained": "sslbench.methods.pretrained:pretrained",
        "supervised": "sslbench.methods.supervised:Supervised",
        "simclr": "sslbench.methods.simclr:SimCLR",
        "moco": "sslbench.methods.moco:MoCo",
        "moco-v1": "sslbench.methods.moco:MoCoV1",
        "swav": "sslbench.methods.swav:SwAV",
        "deepcluster": "sslbench.methods.deepcluster:DeepCluster",
        "scan": "sslbench.methods.scan:SCAN",
    }


@hookimpl
def backbones() -> dict[str, str]:
    return {"*": "sslbench.backbones.timm:create"}


@hookimpl
def datasets() -> dict[str, str]:
    return {
        "digits": "sslbench.datasets.digits:Digits",
        "fashion-mnist": "sslbench.datasets.mnist:FashionMNIST",
        "mnist": "sslbench.datasets.mnist:MNIST",
        "cifar10": "sslbench.datasets.cifar:CIFAR10",
        "cifar100": "sslbench.datasets.cifar:CIFAR100",
        "cifar100-20": "sslbench.datasets.cifar:CIFAR100Coarse",
        "svhn": "sslbench.datasets.svhn:SVHN",
        "stl10": "sslbench.datasets.stl10:STL10",
        "tiny-imagenet": "sslbench.datasets.tiny_imagenet:TinyImageNet",
        "folder": "sslbench.datasets.folder:Folder",
    }


@hookimpl
def evaluators() -> dict[str, str]:
    return {
        "knn": "sslbench.evaluators.knn:KNN",
        "linear": "sslbench.evaluators.linear:Linear",
        "clustering": "sslbench.evaluators.clustering:Clustering",
    }


@hookimpl
def suites() -> dict[str, str]:
    return {
        "quick": "sslbench.suites:quick.yaml",
        "fashion": "sslbench.suites:fashion.yaml",
        "fashion-tuned": "sslbench.suites:fashion-tuned.yaml",
        "cifar": "sslbench.suites:cifar.yaml",
    }
