"""Many small actor-critics that learn side by side: every layer of all of them is one batched matrix product.

Legend: `e` learners (one per task), `b` samples, `f` input features, `d` hidden width, `a` outputs. Row `i`
of a weight tensor is the policy of learner `i`, row `e + i` its value function, whose output is column 0. A policy
with a spread has a seventh parameter, the logarithms of its deviations (rows from `e` on are not used). The gradient
is written by hand, which saves autograd's bookkeeping; a test holds it against autograd through SB3's formula.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.optim.adam import adam  # the function: the class imports 800 modules, which takes seconds

from cccad_data.sources.heads import Categorical, Gaussian
from cccad_data.sources.ppo_loss import LossConstants, Minibatch

WIDTH = 64
_MINUS_ONE = torch.tensor(-1.0)


class Learners:
    """The networks of Stable-Baselines3's MlpPolicy, two tanh layers of 64 each for policy and value, per learner."""

    def __init__(
        self, num_features: int, head: Categorical | Gaussian, streams: Sequence[Generator], learning_rate: float
    ) -> None:
        self.num_learners, self.head, num_outputs = len(streams), head, head.num_outputs
        self.learning_rate = learning_rate
        rows = 2 * self.num_learners
        shapes = (  # the outputs are kept transposed, `a b`: several times faster while there are few actions
            (rows, num_features, WIDTH), (rows, 1, WIDTH),
            (rows, WIDTH, WIDTH), (rows, 1, WIDTH),
            (rows, num_outputs, WIDTH), (rows, num_outputs, 1),
        ) + ((rows, num_outputs, 1),) * head.has_spread  # fmt: skip
        sizes = [math.prod(shape) for shape in shapes]
        self._flat = [torch.zeros(sum(sizes)) for _ in range(4)]  # parameters, gradients and Adam's two moments
        self._num_updates = torch.zeros(())
        self.parameters, self.gradients = (
            [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)] for flat in self._flat[:2]
        )
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for learner, stream in enumerate(streams):
            self._initialise(learner, stream, num_outputs=num_outputs, output_gain=0.01)
            self._initialise(self.num_learners + learner, stream, num_outputs=1, output_gain=1.0)

    def _initialise(self, row: int, stream: Generator, *, num_outputs: int, output_gain: float) -> None:
        first, _, second, _, third, _ = (parameter[row] for parameter in self.parameters[:6])
        first.copy_(torch.from_numpy(orthogonal(stream, *first.shape) * 2.0**0.5))
        second.copy_(torch.from_numpy(orthogonal(stream, *second.shape) * 2.0**0.5))
        third[:num_outputs].copy_(torch.from_numpy(orthogonal(stream, num_outputs, WIDTH) * output_gain))

    @property
    def spread(self) -> Tensor:
        """The logarithms of the policies' deviations, `e a 1`; without a spread, something that means nothing."""
        spread: Tensor = self.parameters[-1][: self.num_learners]
        return spread

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the policies' logits or means, `e b f -> e a b`."""
        return self._forward(inputs, [part[: self.num_learners] for part in self.parameters])[-1]

    def values(self, inputs: Tensor) -> Tensor:
        """Return the value functions' outputs, `e b f -> e b`."""
        return self._forward(inputs, [part[self.num_learners :] for part in self.parameters])[-1][:, 0]

    def _forward(self, inputs: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return both hidden layers, `r b d`, in buffers that the next call reuses, and the outputs, `r a b`."""
        w1, b1, w2, b2, w3, b3 = parameters[:6]
        shape = (len(w1), inputs.shape[1], WIDTH)
        first = _tanh_of_affine(b1, inputs, w1, self._buffer("first", shape))
        second = _tanh_of_affine(b2, first, w2, self._buffer("second", shape))
        return first, second, torch.baddbmm(b3, w3, second.mT)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return memory to write to: fresh memory for every result costs more than the arithmetic on it."""
        if (name, shape) not in self._buffers:
            self._buffers[name, shape] = torch.empty(shape)
        return self._buffers[name, shape]

    def update(self, batch: Minibatch, constants: LossConstants) -> None:
        """Take one Adam step on PPO's loss of *batch*, every learner on its own."""
        self.gradient(batch, constants)
        self._clip(constants.max_grad_norm)
        flat, gradient, mean, square = ([part] for part in self._flat)
        adam(
            flat, gradient, mean, square, [], [self._num_updates], fused=True, lr=self.learning_rate, eps=1e-5,
            beta1=0.9, beta2=0.999, weight_decay=0.0, amsgrad=False, maximize=False,
        )  # fmt: skip

    def gradient(self, batch: Minibatch, constants: LossConstants) -> None:
        """Leave the gradient of PPO's loss in `gradients`."""
        rows, (_, count, num_features) = 2 * self.num_learners, batch.inputs.shape
        inputs = self._buffer("inputs", (rows, count, num_features))
        inputs.view(2, *batch.inputs.shape).copy_(batch.inputs)  # policies, then values
        first, second, outputs = self._forward(inputs, self.parameters)
        slopes = torch.zeros_like(outputs)  # d loss / d outputs, 2e a b
        policies, values = outputs.split(self.num_learners)
        slopes[: self.num_learners], spread = self.head.slopes(policies, self.spread, batch, constants)
        if self.head.has_spread:
            self.gradients[6][: self.num_learners] = spread
        slopes[self.num_learners :, 0] = (values[:, 0] - batch.returns) * (2.0 * constants.vf_coef / count)
        _, _, w2, _, w3, _ = self.parameters[:6]
        g1, gb1, g2, gb2, g3, gb3 = self.gradients[:6]
        torch.bmm(slopes, second, out=g3)
        torch.sum(slopes, 2, keepdim=True, out=gb3)
        inner = self._buffer("inner", (rows, count, WIDTH))  # d loss / d what goes into a tanh
        torch.bmm(slopes.mT, w3, out=inner)
        torch.ops.aten.tanh_backward.grad_input(inner, second, grad_input=inner)
        torch.bmm(first.mT, inner, out=g2)
        torch.sum(inner, 1, keepdim=True, out=gb2)
        outer = torch.bmm(inner, w2.mT, out=second)  # whose values have served
        torch.ops.aten.tanh_backward.grad_input(outer, first, grad_input=outer)
        torch.bmm(inputs.mT, outer, out=g1)
        torch.sum(outer, 1, keepdim=True, out=gb1)

    def _clip(self, max_norm: float) -> None:
        """Scale the gradient of each learner (policy and value together) down to *max_norm*."""
        rows = [part.view(2 * self.num_learners, -1) for part in self.gradients]
        norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in rows])  # 6 2e
        norm = torch.linalg.vector_norm(norms.view(-1, self.num_learners), dim=0)
        scale = (max_norm / (norm + 1e-6)).clamp_(max=1.0)[:, None]
        for part in rows:
            part.view(2, self.num_learners, -1).mul_(scale)


def _tanh_of_affine(bias: Tensor, inputs: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Return tanh(inputs weight + bias), as 2 sigmoid(2 x) - 1: torch's own tanh takes more than twice as long."""
    torch.baddbmm(bias, inputs, weight, beta=2.0, alpha=2.0, out=out)
    return torch.add(_MINUS_ONE, out.sigmoid_(), alpha=2.0, out=out)


def orthogonal(stream: Generator, num_rows: int, num_columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return a random matrix whose shorter side is orthonormal (arXiv 1312.6120), as torch.nn.init.orthogonal_ does."""
    tall = stream.standard_normal((max(num_rows, num_columns), min(num_rows, num_columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if num_rows >= num_columns else q.T
