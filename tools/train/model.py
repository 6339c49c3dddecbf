"""A small language model in llama's layout, whose feed-forward neurons may be gated by ReLU.

RMSNorm before attention and feed-forward, rotary positions on adjacent pairs (x[2i], x[2i + 1]) as GGUF's `llama`
architecture stores them, no biases, the head tied to the embedding. With ReLU, neuron j computes
relu(gate_j . x) * (up_j . x) and is exactly zero for most tokens once the training has asked for it.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F


@dataclasses.dataclass
class Shape:
    activation: str = "relu"
    vocabulary: int = 4096
    width: int = 256
    layers: int = 5
    heads: int = 8
    neurons: int = 2048
    context: int = 512
    rope_base: float = 10000.0
    epsilon: float = 1e-5


def rotate(x, cos, sin):
    """Rotary positions on adjacent pairs; x is [batch, heads, time, head width]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def attend(q, k, v, block=128):
    """Causal attention; all [batch, heads, time, head width].

    Compiled for a CPU it is computed for blocks of queries, each with the keys up to its end: twice as fast as torch's fused
    kernel there, which heads this narrow do not suit.
    """
    if not torch.compiler.is_compiling() or q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    rows = []
    for start in range(0, q.shape[2], block):
        stop = min(start + block, q.shape[2])
        scores = q[:, :, start:stop] @ k[:, :, :stop].transpose(-1, -2) * q.shape[-1] ** -0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1 + start)
        weights = scores.float().masked_fill(future, -torch.inf).softmax(-1)
        rows.append(weights.to(v.dtype) @ v[:, :, :stop])
    return torch.cat(rows, 2)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.heads = shape.heads
        self.q, self.k, self.v, self.out = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))

    def forward(self, x, cos, sin):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return self.out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.activation = {"relu": F.relu, "silu": F.silu}[shape.activation]
        self.gate = nn.Linear(shape.width, shape.neurons, bias=False)
        self.up = nn.Linear(shape.width, shape.neurons, bias=False)
        self.down = nn.Linear(shape.neurons, shape.width, bias=False)

    def forward(self, x):
        """The output, and the gate's activations [batch, time, neurons]."""
        gate = self.activation(self.gate(x))
        return self.down(gate * self.up(x)), gate


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.attention = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.ffn = FeedForward(shape)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        y, gate = self.ffn(self.ffn_norm(x))
        return x + y, gate


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        half = shape.width // shape.heads // 2
        angles = torch.outer(torch.arange(shape.context), shape.rope_base ** -(torch.arange(half) / half))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for layer in self.layers:
            for linear in (m for m in layer.modules() if isinstance(m, nn.Linear)):
                nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            # What is added to the residual stream starts small, the more layers the smaller.
            for linear in (layer.attention.out, layer.ffn.down):
                linear.weight.data *= (2 * shape.layers) ** -0.5

    def forward(self, ids):
        """Logits [batch, time, vocabulary], and every layer's gate activations."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x, gates = self.embedding(ids), []
        for layer in self.layers:
            x, gate = layer(x, cos, sin)
            gates.append(gate)
        return F.linear(self.norm(x), self.embedding.weight), gates

    def parameter_count(self):
        return sum(p.numel() for p in self.parameters())


def density(gates):
    """Share of each layer's neurons that are not exactly zero, [layers]."""
    return torch.stack([(gate != 0).float().mean() for gate in gates])


def soft_density(gates):
    """The L1 norm of each layer's gate activations, in units of the mean of those that are not zero, [layers].

    Its value is the density; its gradient is that of L1 over a scale held constant. Plain L1 can be had cheaply by scaling
    gates down and the other two matrices up, which leaves every zero where it was; this cannot.
    """
    rows = []
    for gate in gates:
        gate = gate.float()
        scale = gate.detach().sum() / (gate.detach() > 0).sum().clamp(min=1)
        rows.append(gate.mean() / scale.clamp(min=1e-6))
    return torch.stack(rows)
