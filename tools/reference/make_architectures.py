"""A tiny random model of every architecture, and its golden logits by transformers.

    pip install -r tools/reference/requirements-architectures.txt
    python tools/reference/make_architectures.py LLAMA_CPP crates/sparse-model/tests/data/arch [NAME ...]

LLAMA_CPP is llama.cpp's source, as in the source package of llama-cpp-python 0.3.36 (`vendor/llama.cpp`):
its converter writes the files, so that names, keys and the order of rows are its own. Only the
vocabulary is ours. Per model there is NAME.gguf, and all golden values are in golden.json.

Weights are multiples of half-precision numbers, so that F16 files hold them exactly. transformers
computes in single precision, with the whole sequence in one pass at every step.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from smallthinker import SmallThinker

VOCABULARY = 96
PROMPT = 24
STEPS = 32
# Logits of these tokens are kept: the first, one in the prompt, the last of the prompt, the last.
POSITIONS = [0, 12, PROMPT - 1, PROMPT + STEPS - 1]
# The two best logits of each greedy step differ by at least this share of the largest.
GAP = 0.01

# What models multiply their embeddings with.
EMBEDDING_SCALES = {"gemma3_text": math.sqrt(32), "granite": 12.0, "granitemoe": 12.0, "granitemoeshared": 12.0}

SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)


def shape(**changes):
    return {**SHAPE, **changes}


def experts(**changes):
    """Six experts, of which a token uses two."""
    return shape(**{**dict(num_local_experts=6, num_experts=6, num_experts_per_tok=2), **changes})


def smallthinker(**changes):
    names = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    return SmallThinker(**{
        **{name: SHAPE[name] for name in names}, "max_position_embeddings": 128, "head_dim": 8,
        "moe_num_primary_experts": 6, "moe_num_active_primary_experts": 2, "moe_ffn_hidden_size": 32,
        "sliding_window_layout": [0] * changes.get("num_hidden_layers", 2), **changes})


def longrope(original):
    """Phi-3's positions: three quarters of a head rotated, divisors for short and for long contexts."""
    pairs = 3
    return dict(
        rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=original,
        short_factor=[1.0 + 0.1 * i for i in range(pairs)], long_factor=[1.5 + 0.5 * i for i in range(pairs)],
    )


MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**shape(tie_word_embeddings=True))),
    "llama-relu": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**shape(hidden_act="relu"))),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**shape(sliding_window=9))),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**shape(tie_word_embeddings=True))),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**shape(head_dim=16))),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**shape(
        num_hidden_layers=6, head_dim=16, query_pre_attn_scalar=16, sliding_window=9,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
    ))),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**shape(sliding_window=9, rope_parameters=longrope(128)))),
    "phi3-long": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**shape(
        sliding_window=None, tie_word_embeddings=True, rope_parameters=longrope(16)))),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**shape(
        embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=0.25,
        tie_word_embeddings=True))),
    # transformers has no MiniCPM; it is Granite with these factors.
    "minicpm": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**shape(
        embedding_multiplier=12.0, residual_multiplier=1.4 / math.sqrt(2), attention_multiplier=1 / math.sqrt(8),
        logits_scaling=32 / 128, tie_word_embeddings=True))),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**shape(num_hidden_layers=4))),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**shape())),
    "olmo3": lambda: hf.Olmo3ForCausalLM(hf.Olmo3Config(**shape(
        num_hidden_layers=4, sliding_window=9, layer_types=["sliding_attention"] * 3 + ["full_attention"]))),
    "ernie4_5": lambda: hf.Ernie4_5ForCausalLM(hf.Ernie4_5Config(**shape(head_dim=16, tie_word_embeddings=True))),
    "exaone4": lambda: hf.Exaone4ForCausalLM(hf.Exaone4Config(**shape(
        sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True))),
    "exaone4-window": lambda: hf.Exaone4ForCausalLM(hf.Exaone4Config(**shape(
        num_hidden_layers=4, sliding_window=9, sliding_window_pattern=4,
        layer_types=["sliding_attention"] * 3 + ["full_attention"]))),
    "lfm2": lambda: hf.Lfm2ForCausalLM(hf.Lfm2Config(**shape(
        num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False,
        conv_L_cache=3, tie_word_embeddings=True))),
    "arcee": lambda: hf.ArceeForCausalLM(hf.ArceeConfig(**shape())),
    "nemotron": lambda: hf.NemotronForCausalLM(hf.NemotronConfig(**shape(partial_rotary_factor=0.5))),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**experts(intermediate_size=32, sliding_window=None))),
    "olmoe": lambda: hf.OlmoeForCausalLM(hf.OlmoeConfig(**experts(intermediate_size=32, norm_topk_prob=False))),
    "qwen3moe": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**experts(
        head_dim=16, moe_intermediate_size=32, norm_topk_prob=True, tie_word_embeddings=True))),
    "granitemoe": lambda: hf.GraniteMoeForCausalLM(hf.GraniteMoeConfig(**experts(
        intermediate_size=32, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=0.25,
        tie_word_embeddings=True))),
    "granitemoe-shared": lambda: hf.GraniteMoeSharedForCausalLM(hf.GraniteMoeSharedConfig(**experts(
        intermediate_size=32, embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=0.25,
        shared_intermediate_size=32, tie_word_embeddings=True))),
    "lfm2moe": lambda: hf.Lfm2MoeForCausalLM(hf.Lfm2MoeConfig(**experts(
        num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"], conv_L_cache=3, num_dense_layers=1,
        moe_intermediate_size=32, use_expert_bias=True, norm_topk_prob=True, routed_scaling_factor=1.0,
        tie_word_embeddings=True))),
    "smallthinker": lambda: smallthinker(
        num_hidden_layers=5, sliding_window_layout=[0, 1, 1, 1, 0], sliding_window_size=9,
        moe_primary_router_apply_softmax=False),
    "smallthinker-softmax": lambda: smallthinker(moe_primary_router_apply_softmax=True),
    "gpt-oss": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**experts(
        head_dim=16, sliding_window=9, layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict(
            rope_type="yarn", rope_theta=150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=4096)))),
    "bitnet": lambda: hf.BitNetForCausalLM(hf.BitNetConfig(**shape(tie_word_embeddings=True))),
}


class MxFp4:
    """A tensor rounded to blocks of 32 values in four bits with a power of two (OCP Microscaling Formats 1.0)."""

    MAGNITUDES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    BIAS = 127

    def __init__(self, values):
        blocks = values.unflatten(-1, (-1, 32))
        exponents = blocks.abs().amax(-1).log2().floor() - 2
        scaled = blocks / exponents.exp2()[..., None]
        codes = (scaled.abs()[..., None] - self.MAGNITUDES).abs().argmin(-1)
        self.values = (self.MAGNITUDES[codes] * scaled.sign() * exponents.exp2()[..., None]).flatten(-2)
        codes = (codes + 8 * (scaled < 0)).to(torch.uint8)
        # As checkpoints have them: two neighbors in a byte, the first in its low half.
        self.blocks = codes[..., ::2] | codes[..., 1::2] << 4
        self.scales = (exponents + self.BIAS).to(torch.uint8)


def is_mxfp4(name, model):
    return isinstance(model, hf.GptOssForCausalLM) and name.endswith(("gate_up_proj", "down_proj"))


@torch.no_grad()
def randomize(model, seed):
    """Weights that keep every part of the model well away from doing nothing."""
    g = torch.Generator().manual_seed(seed)
    ternary = isinstance(model, hf.BitNetForCausalLM)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if p.dim() == 1 and name.endswith("bias"):
            value = 0.2 * noise
        elif name.endswith("sinks"):
            value = noise
        elif p.dim() == 1:
            # Gemma and Nemotron add 1 to the weights of their norms.
            value = p.float().mean().round() + 0.2 * noise
        elif "embed" in name:
            # A tied head repeats its input where the embedding outweighs what the layers add.
            value = 0.7 * noise / EMBEDDING_SCALES.get(model.config.model_type, 1.0)
        elif "conv" in name and p.dim() == 3:
            value = 0.6 * noise
        elif is_mxfp4(name, model):
            # Large enough for some gates and ups to be clamped; blocks are along the inputs.
            value = MxFp4(2.0 * noise.transpose(1, 2)).values.transpose(1, 2)
        else:
            value = 1.5 * noise / math.sqrt(p.shape[-1])
            if ternary and "lm_head" not in name:
                value = value.sign() * (value.abs() > 0.8 / math.sqrt(p.shape[1])) * 0.25
        p.copy_(value.half().float())
    for name, p in model.named_buffers():
        if name.endswith("expert_bias"):
            p.copy_(0.2 * torch.randn(p.shape, generator=g))


@torch.no_grad()
def golden(model):
    """The greedy continuation of a prompt, and logits; nothing where a step is nearly a tie."""
    tokens = [(i * 29 + 7) % (VOCABULARY - 3) + 3 for i in range(PROMPT)]
    for _ in range(STEPS):
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float()
        best = logits[-1].topk(2).values
        if best[0] - best[1] < GAP * logits[-1].abs().max():
            return None
        tokens.append(int(logits[-1].argmax()))
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float()
    # A model that repeats itself tests little.
    if len(set(tokens[PROMPT:])) < STEPS // 4:
        return None
    rows = [[float(f"{v:.6g}") for v in logits[i].tolist()] for i in POSITIONS]
    return {"tokens": tokens, "logits": rows}


def convert(name, model, llama_cpp, out):
    """Writes the file with llama.cpp's converter, and our vocabulary."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import conversion
    import gguf

    def set_vocab(self):
        letters = [chr(33 + i) for i in range(VOCABULARY - 3)]
        self.gguf_writer.add_tokenizer_model("llama")
        self.gguf_writer.add_tokenizer_pre("default")
        self.gguf_writer.add_token_list(["<unk>", "<s>", "</s>", *letters])
        self.gguf_writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
        self.gguf_writer.add_token_types([2, 3, 3] + [1] * len(letters))
        self.gguf_writer.add_bos_token_id(1)
        self.gguf_writer.add_eos_token_id(2)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        if name == "minicpm":
            config |= {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "scale_emb": 12.0,
                       "scale_depth": 1.4, "dim_model_base": 128}
        (folder / "config.json").write_text(json.dumps(config))
        # Only what the converter asks for, and it takes the vocabulary's size from here.
        (folder / "tokenizer.json").write_text(json.dumps(
            {"model": {"vocab": {str(i): i for i in range(VOCABULARY)}}, "added_tokens": []}))
        parent = conversion.get_model_class(config["architectures"][0])
        changes = {"model_arch": parent.model_arch, "set_vocab": set_vocab}
        if name == "bitnet":
            # The weights are ternary already; rounding again would change their scale.
            changes["weight_quant"] = lambda self, weight: weight
            # The converter knows these norms by the names of an older model.
            weights = load_file(folder / "model.safetensors")
            names = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}
            for old, new in names.items():
                weights = {name.replace(old, new): w for name, w in weights.items()}
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
        if name == "gpt-oss":
            # As published: experts in MXFP4, which the converter repacks.
            config["quantization_config"] = {"quant_method": "mxfp4"}
            (folder / "config.json").write_text(json.dumps(config))
            weights = {}
            for key, w in load_file(folder / "model.safetensors").items():
                if is_mxfp4(key, model):
                    packed = MxFp4(w.transpose(1, 2))
                    weights |= {f"{key}_blocks": packed.blocks, f"{key}_scales": packed.scales}
                else:
                    weights[key] = w
            weights = {key: w.contiguous() for key, w in weights.items()}
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
        if name == "mistral":
            # The converter leaves the window out.
            def set_parameters(self):
                parent.set_gguf_parameters(self)
                self.gguf_writer.add_sliding_window(model.config.sliding_window)
            changes["set_gguf_parameters"] = set_parameters
        converter = type("Tiny", (parent,), changes)
        converter(folder, gguf.LlamaFileType.MOSTLY_F16, out, model_name=f"Tiny {name}").write()


def main():
    torch.set_num_threads(1)
    llama_cpp, out = Path(sys.argv[1]), Path(sys.argv[2])
    wanted = sys.argv[3:] or list(MODELS)
    out.mkdir(parents=True, exist_ok=True)
    index = out / "golden.json"
    values = json.loads(index.read_text())["models"] if index.exists() else {}
    for name in wanted:
        torch.manual_seed(0)
        model = MODELS[name]().eval().float()
        for seed in range(1, 100):
            randomize(model, seed)
            if (values_of := golden(model)) is not None:
                break
        else:
            sys.exit(f"{name}: no seed without near ties")
        convert(name, model, llama_cpp, out / f"{name}.gguf")
        values[name] = values_of
        print(name, "seed", seed, (out / f"{name}.gguf").stat().st_size, "bytes")
        made_by = f"transformers {hf.__version__}, torch {torch.__version__}"
        ordered = {name: values[name] for name in MODELS if name in values}
        text = json.dumps({"made_by": made_by, "prompt": PROMPT, "positions": POSITIONS, "models": ordered})
        index.write_text(text.replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    main()
