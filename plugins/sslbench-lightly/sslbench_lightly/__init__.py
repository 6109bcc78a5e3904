"""lightly's losses and heads on sslbench's loop: seven methods, and a suite of ours against theirs."""

from sslbench import hookimpl

SSLBENCH_API = (1, 0)  # what this plugin was written for


@hookimpl
def methods():
    return {
        "lightly-simclr": "sslbench_lightly.simclr:SimCLR",
        "lightly-moco": "sslbench_lightly.moco:MoCo",
        "lightly-byol": "sslbench_lightly.byol:BYOL",
        "lightly-barlow-twins": "sslbench_lightly.barlow_twins:BarlowTwins",
        "lightly-vicreg": "sslbench_lightly.vicreg:VICReg",
        "lightly-swav": "sslbench_lightly.swav:SwAV",
        "lightly-dino": "sslbench_lightly.dino:DINO",
    }


@hookimpl
def suites():
    return {"fashion-lightly": "sslbench_lightly:fashion-lightly.yaml"}
