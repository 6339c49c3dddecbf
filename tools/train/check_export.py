"""Holds the export against llama.cpp: the same logits and the same token ids, or an error.

    pip install llama-cpp-python                     # not in requirements.txt: nothing else needs it
    python check_export.py [SILU.pt] [--tokenizer FILE] --text heldout.txt.xz

Takes a SiLU model (llama.cpp has no ReLU gate in its llama architecture), or random weights without one. The file is F32
with the usual down projection, so llama.cpp should differ by float rounding and its half-precision KV cache alone: layout,
rotary positions, norms, head and tokenizer all show here. The neuron-major down projection is compared with the usual one
bit by bit.
"""

import argparse
import pathlib
import sys
import tempfile

import gguf
import numpy as np
import torch
from torch.nn import functional as F

import data
from export import export, load
from model import Model, Shape

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reference"))
from llama import Llama  # noqa: E402

TEXTS = ["Once upon a time", "  two spaces, 12 apples\n\nand \"don't\" — naïve 👍🏽", "a\tb   c\r\n"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path, nargs="?")
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--max-kl", type=float, default=1e-5)
    args = parser.parse_args()
    torch.manual_seed(1)
    model = load(args.checkpoint)[0] if args.checkpoint else Model(Shape(activation="silu"))
    if model.shape.activation != "silu":
        parser.error("llama.cpp has no such activation; give a SiLU model")
    tokenizer = data.load_tokenizer(args.tokenizer)
    texts = TEXTS + data.stories(args.text)[:50]
    with tempfile.TemporaryDirectory() as folder:
        plain, turned = f"{folder}/plain.gguf", f"{folder}/turned.gguf"
        export(model, args.tokenizer, plain, name="check", down="rows", ffn="F32", rest="F32")
        export(model, args.tokenizer, turned, name="check", down="neurons", ffn="F32", rest="F32")
        found = [{t.name: t.data for t in gguf.GGUFReader(path).tensors} for path in (plain, turned)]
        for i in range(model.shape.layers):
            rows, neurons = found[0][f"blk.{i}.ffn_down.weight"], found[1][f"blk.{i}.ffn_down_t.weight"]
            assert neurons.shape == (model.shape.neurons, model.shape.width) and (rows == neurons.T).all()
        llama = Llama(plain, n_ctx=model.shape.context)
        for text in texts:
            ours = [tokenizer.token_to_id(data.END), *tokenizer.encode(text).ids]
            assert ours == llama.tokenize(text), f"token ids differ for {text!r}"
        ids = data.load_ids(args.text, tokenizer, folder)[: model.shape.context].tolist()
        theirs = torch.from_numpy(np.concatenate(list(llama.logits(ids))))
        llama.close()
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0][0]
    kl = F.kl_div(theirs.log_softmax(-1), ours.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    top1 = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    print(f"{len(texts)} texts: the same token ids; {len(ids)} positions: mean KL {kl.mean():.1e}, max {kl.max():.1e}, "
          f"top-1 agreement {top1:.1%}, spread of logits {ours.std():.2f}")
    if not kl.mean() <= args.max_kl:
        sys.exit(f"mean KL is above {args.max_kl}")


if __name__ == "__main__":
    main()
