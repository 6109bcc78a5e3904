"""A copied encoder whose batch norm follows a loss of its answers on unlabelled images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslbench.api import Head
from sslbench.errors import Unsuited
from sslbench.evaluators.robustness import batch_norms, finite

Loss = Callable[[Tensor], Tensor]


class Adapting:
    """A copied encoder on batch statistics, whose scales and shifts learn."""

    def __init__(
        self,
        encoder: nn.Module,
        head: Head,
        lr: float,
        *,
        loss: Loss | None = None,
        judge: str = "tent",
    ) -> None:
        """loss: of logits [B, C], whose slope a step follows; None: their mean entropy."""
        self.encoder, self.head, self.lr = encoder.requires_grad_(False).eval(), head, lr
        self.loss, self.judge = loss or entropy, judge
        norms = batch_norms(encoder)
        for norm in norms:
            norm.running_mean = norm.running_var = None  # then eval mode takes the batch's own
        self.moving = [each for norm in norms for each in norm.parameters(recurse=False)]
        if not self.moving:
            raise Unsuited(
                f"{judge} learns the scale and shift of batch norm, that of this encoder has neither; "
                "use a backbone whose batch norm is affine"
            )
        for parameter in self.moving:
            parameter.requires_grad_(True)
        self.start = [parameter.detach().clone() for parameter in self.moving]
        self.reset()

    def reset(self) -> None:
        """Back to the source, to the bit; the optimiser forgets."""
        with torch.no_grad():
            for parameter, start in zip(self.moving, self.start, strict=True):
                parameter.copy_(start)
        self.optimizer = torch.optim.Adam(self.moving, self.lr, betas=(0.9, 0.999))

    @torch.no_grad()
    def logits(self, x: Tensor, what: str) -> Tensor:
        return self.head(finite(self.encoder(x).float(), what))

    @torch.enable_grad()
    def step(self, x: Tensor, what: str) -> Tensor:
        """Logits [B, C] of the forward whose loss then takes one step."""
        logits = self.head(finite(self.encoder(x).float(), what))
        loss = self.loss(logits)
        if not loss.requires_grad:
            raise Unsuited(
                f"{self.judge} follows the gradient of the encoder's features, none passes through this "
                "encoder; use one whose forward can be differentiated"
            )
        slopes = torch.autograd.grad(loss, self.moving, allow_unused=True)
        for parameter, slope in zip(self.moving, slopes, strict=True):
            parameter.grad = slope
        self.optimizer.step()
        return logits.detach()


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy in nats of softmax of [B, C]; a class that scores -inf has no part in it."""
    shown = logits[:, (logits > -torch.inf).all(0)]
    logs = shown.log_softmax(1)
    return -(logs.exp() * logs).sum(1).mean()
