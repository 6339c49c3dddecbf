"""Writes a trained model as GGUF.

    python export.py STEP.pt --out story.gguf                             # neuron-major down, Q4_0 FFN, Q8_0 elsewhere
    python export.py STEP.pt --out plain.gguf --down rows --ffn F32 --rest F32

`llama` architecture, byte-level BPE with GPT-2's words. GGUF has no key of its own for the activation, so
`llama.hidden_activation` says it. A down projection per neuron is called `blk.N.ffn_down_t.weight`, PowerInfer's name: row j
holds what neuron j adds to the residual stream, so that a neuron is skipped in all three matrices by not reading a row.
llama.cpp knows neither; for it, `--down rows` writes the usual `ffn_down`, and only a SiLU model means the same there.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
import torch

import data
from model import Model, Shape

TYPES = ("F32", "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")


def load(path):
    """The model in a checkpoint, on the CPU, and what else the file says."""
    kept = torch.load(path, map_location="cpu", weights_only=True)
    model = Model(Shape(**kept["shape"]))
    model.load_state_dict(kept["model"])
    return model.eval(), kept


def load_gguf(path):
    """The model in a file that `export` wrote, its weights as they are after quantization."""
    reader = gguf.GGUFReader(path)

    def value(key):
        return reader.fields[key].contents()

    model = Model(
        Shape(
            activation=value("llama.hidden_activation"),
            vocabulary=value("llama.vocab_size"),
            width=value("llama.embedding_length"),
            layers=value("llama.block_count"),
            heads=value("llama.attention.head_count"),
            neurons=value("llama.feed_forward_length"),
            context=value("llama.context_length"),
            rope_base=value("llama.rope.freq_base"),
            epsilon=value("llama.attention.layer_norm_rms_epsilon"),
        )
    )
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    down = "neurons" if "blk.0.ffn_down_t.weight" in found else "rows"
    with torch.no_grad():
        for name, weight in tensors(model, down):
            weight.copy_(torch.tensor(found[name]))
    return model.eval()


def add_tokenizer(writer, path):
    model = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    end = model["vocab"][data.END]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if i == end else gguf.TokenType.NORMAL for i in range(len(tokens))])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    # Every story of the training text has the separator before it.
    writer.add_add_bos_token(True)


def tensors(model, down):
    """GGUF names and arrays; the names' last parts decide the type."""
    yield "token_embd.weight", model.embedding.weight
    for i, layer in enumerate(model.layers):
        yield f"blk.{i}.attn_norm.weight", layer.attention_norm.weight
        for name, linear in zip("qkv", (layer.attention.q, layer.attention.k, layer.attention.v)):
            yield f"blk.{i}.attn_{name}.weight", linear.weight
        yield f"blk.{i}.attn_output.weight", layer.attention.out.weight
        yield f"blk.{i}.ffn_norm.weight", layer.ffn_norm.weight
        yield f"blk.{i}.ffn_gate.weight", layer.ffn.gate.weight
        yield f"blk.{i}.ffn_up.weight", layer.ffn.up.weight
        if down == "neurons":
            yield f"blk.{i}.ffn_down_t.weight", layer.ffn.down.weight.T
        else:
            yield f"blk.{i}.ffn_down.weight", layer.ffn.down.weight
    yield "output_norm.weight", model.norm.weight


def export(model, tokenizer, out, *, name, description="", down="neurons", ffn="Q4_0", rest="Q8_0"):
    """Writes the file. Gate, up and down get the type `ffn`, embedding and attention `rest`, norms stay F32."""
    shape = model.shape
    part = pathlib.Path(f"{out}.part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("MIT OR Apache-2.0")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.neurons)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_string("llama.hidden_activation", shape.activation)
    add_tokenizer(writer, tokenizer)
    for tensor, weight in tensors(model, down):
        array = np.ascontiguousarray(weight.detach().float().numpy())
        kind = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else ffn if "ffn" in tensor else rest]
        writer.add_tensor(tensor, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="default: the one the checkpoint names")
    parser.add_argument("--name", default="story")
    parser.add_argument("--down", choices=("neurons", "rows"), default="neurons")
    parser.add_argument("--ffn", choices=TYPES, default="Q4_0", help="type of gate, up and down")
    parser.add_argument("--rest", choices=TYPES, default="Q8_0", help="type of embedding and attention")
    args = parser.parse_args()
    model, kept = load(args.checkpoint)
    description = (
        f"A story model with {kept['shape']['activation']} gates, {model.parameter_count() / 1e6:.1f} M parameters, "
        f"trained for {kept['step']} steps on {kept['tokens'] / 1e6:.1f} M tokens of synthetic children's stories."
    )
    export(
        model, args.tokenizer or kept["settings"]["tokenizer"], args.out,
        name=args.name, description=description, down=args.down, ffn=args.ffn, rest=args.rest,
    )
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
