"""The built-in plugin: lists every built-in part as name -> "module:attribute"."""

from __future__ import annotations

from .hookspecs import API_VERSION, hookimpl

SSLBENCH_API = API_VERSION


@hookimpl
def methods() -> dict[str, str]:
    return {
        # baselines
        "pixels": "sslbench.methods.pixels:pixels",
        "untrained": "sslbench.methods.untrained:untrained",
        "pretrained": "sslbench.methods.pretrained:pretrained",
        "external": "sslbench.methods.external:external",
        "supervised": "sslbench.methods.supervised:Supervised",
        # instances
        "npid": "sslbench.methods.npid:NPID",
        "cpc": "sslbench.methods.cpc:CPC",
        "simclr": "sslbench.methods.simclr:SimCLR",
        "simclr-imagenet": "sslbench.methods.simclr:SimCLRImageNet",
        "simclr-v2": "sslbench.methods.simclr:SimCLRv2",
        "simclr-v2-imagenet": "sslbench.methods.simclr:SimCLRv2ImageNet",
        "moco": "sslbench.methods.moco:MoCo",
        "moco-imagenet": "sslbench.methods.moco:MoCoImageNet",
        "moco-v1": "sslbench.methods.moco:MoCoV1",
        "moco-v3": "sslbench.methods.moco_v3:MoCoV3",
        "moco-v3-imagenet": "sslbench.methods.moco_v3:MoCoV3ImageNet",
        "moco-v3-vit": "sslbench.methods.moco_v3:MoCoV3ViT",
        # pretext tasks
        "rotation": "sslbench.methods.rotation:Rotation",
        "rotation-imagenet": "sslbench.methods.rotation:RotationImageNet",
        "relative-patch": "sslbench.methods.relative_patch:RelativePatch",
        "relative-patch-imagenet": "sslbench.methods.relative_patch:RelativePatchImageNet",
        "jigsaw": "sslbench.methods.jigsaw:Jigsaw",
        "jigsaw-imagenet": "sslbench.methods.jigsaw:JigsawImageNet",
        # self-distillation and decorrelation
        "byol": "sslbench.methods.byol:BYOL",
        "byol-imagenet": "sslbench.methods.byol:BYOLImageNet",
        "simsiam": "sslbench.methods.simsiam:SimSiam",
        "simsiam-imagenet": "sslbench.methods.simsiam:SimSiamImageNet",
        "barlow-twins": "sslbench.methods.barlow_twins:BarlowTwins",
        "barlow-twins-imagenet": "sslbench.methods.barlow_twins:BarlowTwinsImageNet",
        "vicreg": "sslbench.methods.vicreg:VICReg",
        "vicreg-imagenet": "sslbench.methods.vicreg:VICRegImageNet",
        "dino": "sslbench.methods.dino:DINO",
        "dino-imagenet": "sslbench.methods.dino:DINOImageNet",
        "dino-resnet": "sslbench.methods.dino:DINOResNet",
        # masked images
        "mae": "sslbench.methods.mae:MAE",
        "mae-imagenet": "sslbench.methods.mae:MAEImageNet",
        "i-jepa": "sslbench.methods.i_jepa:IJEPA",
        "i-jepa-imagenet": "sslbench.methods.i_jepa:IJEPAImageNet",
        "ibot": "sslbench.methods.ibot:IBOT",
        "ibot-imagenet": "sslbench.methods.ibot:IBOTImageNet",
        # clusters
        "swav": "sslbench.methods.swav:SwAV",
        "swav-imagenet": "sslbench.methods.swav:SwAVImageNet",
        "swav-256": "sslbench.methods.swav:SwAVBatch256",
        "deepcluster": "sslbench.methods.deepcluster:DeepCluster",
        "deepcluster-imagenet": "sslbench.methods.deepcluster:DeepClusterImageNet",
        "deepcluster-v2": "sslbench.methods.deepcluster_v2:DeepClusterV2",
        "deepcluster-v2-imagenet": "sslbench.methods.deepcluster_v2:DeepClusterV2ImageNet",
        "scan": "sslbench.methods.scan:SCAN",
        "scan-imagenet": "sslbench.methods.scan:SCANImageNet",
        "iic": "sslbench.methods.iic:IIC",
        "iic-stl10": "sslbench.methods.iic:IICSTL10",
        "ruc": "sslbench.methods.ruc:RUC",
        "ruc-stl10": "sslbench.methods.ruc:RUCSTL10",
        # few labels
        "few-labels": "sslbench.methods.few_labels:FewLabels",
        "pseudo-label": "sslbench.methods.pseudo_label:PseudoLabel",
        "entropy-minimisation": "sslbench.methods.entropy_minimisation:EntropyMinimisation",
        "pi-model": "sslbench.methods.pi_model:PiModel",
        "mean-teacher": "sslbench.methods.mean_teacher:MeanTeacher",
        # pictures rebuilt
        "autoencoder": "sslbench.methods.autoencoder:Autoencoder",
        "denoising-autoencoder": "sslbench.methods.autoencoder:DenoisingAutoencoder",
        "vae": "sslbench.methods.vae:VAE",
        "vq-vae": "sslbench.methods.vq_vae:VQVAE",
        "inpainting": "sslbench.methods.inpainting:Inpainting",
        "inpainting-adversarial": "sslbench.methods.inpainting:InpaintingAdversarial",
        # adversaries
        "dcgan": "sslbench.methods.dcgan:DCGAN",
        "wgan-gp": "sslbench.methods.wgan_gp:WGANGP",
        # few labels
        "comatch": "sslbench.methods.comatch:CoMatch",
        "shrinkmatch": "sslbench.methods.shrinkmatch:ShrinkMatch",
        "conmatch": "sslbench.methods.conmatch:ConMatch",
        "meta-pseudo-labels": "sslbench.methods.meta_pseudo_labels:MetaPseudoLabels",
        # colours
        "colorization": "sslbench.methods.colorization:Colorization",
        "split-brain": "sslbench.methods.split_brain:SplitBrain",
        "video-colorization": "sslbench.methods.video_colorization:VideoColorization",
        # few labels
        "fixmatch": "sslbench.methods.fixmatch:FixMatch",
        "fixmatch-imagenet": "sslbench.methods.fixmatch:FixMatchImageNet",
        "adamatch": "sslbench.methods.adamatch:AdaMatch",
        "mixmatch": "sslbench.methods.mixmatch:MixMatch",
        "mixmatch-usb": "sslbench.methods.mixmatch:MixMatchUSB",
        "remixmatch": "sslbench.methods.remixmatch:ReMixMatch",
        "simclr-v2-finetune": "sslbench.methods.simclr_v2_finetune:SimCLRv2Finetune",
        "simclr-v2-finetune-imagenet": "sslbench.methods.simclr_v2_finetune:SimCLRv2FinetuneImageNet",
        "simclr-v2-distil": "sslbench.methods.simclr_v2_distil:SimCLRv2Distil",
        "simclr-v2-distil-imagenet": "sslbench.methods.simclr_v2_distil:SimCLRv2DistilImageNet",
        # domains
        "source-only": "sslbench.methods.source_only:SourceOnly",
        "dann": "sslbench.methods.dann:DANN",
        "mme": "sslbench.methods.mme:MME",
    }


@hookimpl
def backbones() -> dict[str, str]:
    return {"*": "sslbench.backbones.timm:create"}


@hookimpl
def datasets() -> dict[str, str]:
    return {
        "digits": "sslbench.datasets.digits:Digits",
        "photo-crops": "sslbench.datasets.photo_crops:PhotoCrops",
        "fashion-mnist": "sslbench.datasets.mnist:FashionMNIST",
        "mnist": "sslbench.datasets.mnist:MNIST",
        "cifar10": "sslbench.datasets.cifar:CIFAR10",
        "cifar100": "sslbench.datasets.cifar:CIFAR100",
        "cifar100-20": "sslbench.datasets.cifar:CIFAR100Coarse",
        "svhn": "sslbench.datasets.svhn:SVHN",
        "stl10": "sslbench.datasets.stl10:STL10",
        "tiny-imagenet": "sslbench.datasets.tiny_imagenet:TinyImageNet",
        "folder": "sslbench.datasets.folder:Folder",
        "clips": "sslbench.datasets.clips:Clips",
    }


@hookimpl
def evaluators() -> dict[str, str]:
    return {
        # features as they are
        "knn": "sslbench.evaluators.knn:KNN",
        "linear": "sslbench.evaluators.linear:Linear",
        "mlp": "sslbench.evaluators.mlp:MLP",
        "clustering": "sslbench.evaluators.clustering:Clustering",
        "fewshot": "sslbench.evaluators.fewshot:FewShot",
        "retrieval": "sslbench.evaluators.retrieval:Retrieval",
        "nearest": "sslbench.evaluators.nearest:Nearest",
        "anomaly": "sslbench.evaluators.anomaly:Anomaly",
        "geometry": "sslbench.evaluators.geometry:Geometry",
        "calibration": "sslbench.evaluators.calibration:Calibration",
        # answers
        "classifier": "sslbench.evaluators.classifier:Classifier",
        # images rebuilt
        "reconstruction": "sslbench.evaluators.reconstruction:Reconstruction",
        # other images, other data
        "corruption": "sslbench.evaluators.corruption:Corruption",
        "bn-adapt": "sslbench.evaluators.bn_adapt:BNAdapt",
        "tent": "sslbench.evaluators.tent:Tent",
        "conjugate": "sslbench.evaluators.conjugate:Conjugate",
        "transfer": "sslbench.evaluators.transfer:Transfer",
        # clips
        "propagation": "sslbench.evaluators.propagation:Propagation",
        # weights
        "finetune": "sslbench.evaluators.finetune:FineTune",
        "cost": "sslbench.evaluators.cost:Cost",
    }


@hookimpl
def suites() -> dict[str, str]:
    return {
        "quick": "sslbench.suites:quick.yaml",
        "fashion": "sslbench.suites:fashion.yaml",
        "fashion-tuned": "sslbench.suites:fashion-tuned.yaml",
        "cifar": "sslbench.suites:cifar.yaml",
        "few-labels": "sslbench.suites:few-labels.yaml",
    }
