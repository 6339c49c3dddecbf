"""SmallThinker (arXiv 2507.20984) in a few lines of torch: transformers has no such model.

The router reads the layer's input, before norm and attention; experts are ReGLU; in a model with windows the layers that
see all tokens have no positions. Tensor names are those of the authors' checkpoints, which llama.cpp's converter reads.
"""

import json
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        width, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
        self.q_proj = nn.Linear(c["hidden_size"], width, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], kv, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], kv, bias=False)
        self.o_proj = nn.Linear(width, c["hidden_size"], bias=False)

    def forward(self, x, window, positions):
        n, dim = x.shape[0], self.c["head_dim"]
        q, k, v = (p(x).view(n, -1, dim).transpose(0, 1) for p in (self.q_proj, self.k_proj, self.v_proj))
        t = torch.arange(n)
        if positions:
            angles = t[:, None] * self.c["rope_theta"] ** (-torch.arange(0, dim, 2) / dim)[None]
            cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
            half = lambda y: torch.cat([-y[..., dim // 2:], y[..., : dim // 2]], -1)
            q, k = (y * cos + half(y) * sin for y in (q, k))
        groups = q.shape[0] // k.shape[0]
        k, v = (y.repeat_interleave(groups, 0) for y in (k, v))
        behind = t[:, None] - t[None]
        seen = (behind >= 0) & (behind < (window or n))
        scores = (q @ k.transpose(1, 2) * dim**-0.5).masked_fill(~seen, float("-inf"))
        return self.o_proj((scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1))


class Expert(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(F.relu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.used, self.softmax = c["moe_num_active_primary_experts"], c["moe_primary_router_apply_softmax"]
        self.primary_router = nn.Linear(c["hidden_size"], c["moe_num_primary_experts"], bias=False)
        experts = range(c["moe_num_primary_experts"])
        self.experts = nn.ModuleList(Expert(c["hidden_size"], c["moe_ffn_hidden_size"]) for _ in experts)

    def forward(self, router_input, x):
        best, chosen = self.primary_router(router_input).topk(self.used)
        weights = best.softmax(-1) if self.softmax else best.sigmoid() / best.sigmoid().sum(-1, keepdim=True)
        rows = [sum(w * self.experts[e](x) for w, e in zip(ws, es)) for x, ws, es in zip(x, weights, chosen.tolist())]
        return torch.stack(rows)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.block_sparse_moe = Mixture(c)


class SmallThinker(nn.Module):
    def __init__(self, **c):
        super().__init__()
        c = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window_size": None,
             "architectures": ["SmallThinkerForCausalLM"], "model_type": "smallthinker", **c}
        self.settings, self.config = c, SimpleNamespace(model_type="smallthinker")
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def forward(self, tokens, use_cache=False):
        x = self.model.embed_tokens(tokens[0])
        window = self.settings["sliding_window_size"]
        for layer, local in zip(self.model.layers, self.settings["sliding_window_layout"]):
            before = x
            x = x + layer.self_attn(layer.input_layernorm(x), window if local else None, local or window is None)
            x = x + layer.block_sparse_moe(before, layer.post_attention_layernorm(x))
        return SimpleNamespace(logits=self.lm_head(self.model.norm(x))[None])

    def save_pretrained(self, folder):
        save_file({name: p.contiguous() for name, p in self.state_dict().items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.settings))
