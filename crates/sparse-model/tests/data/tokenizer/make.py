#!/usr/bin/env python3
"""Makes the tokenizer test data: two small vocabularies, and the ids that llama.cpp gives for the cases.

    pip install gguf llama-cpp-python
    python make.py                    # bpe.gguf, spm.gguf, expected.json
    python make.py model.gguf out.json  # the ids of a real model, for a check beside that model

cases.json is written by hand. The vocabularies are trained on those cases without cutting text into words first, so
that tokens span what a pre-tokenizer would cut: a cut in the wrong place changes the ids.
"""

import ctypes
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gguf
import llama_cpp

HERE = Path(__file__).parent
CASES = json.loads((HERE / "cases.json").read_text())
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def train(texts, merges):
    """Pairs of symbols, the most frequent first, each merged before the next is counted."""
    words, pairs = [list(t) for t in texts], []
    while len(pairs) < merges:
        counts = Counter(p for w in words for p in zip(w, w[1:]))
        best = max(counts, key=lambda p: (counts[p], p))
        pairs.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = ["".join(best)]
                i += 1
    return pairs


def byte_chars():
    """GPT-2's printable character of each byte."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in keep else chr(next(others)) for b in range(256)]


def bpe_vocab():
    chars = byte_chars()
    lacking = {0x04, 0x06, 0xF1}  # as SmolLM2's vocabulary lacks some
    texts = ["".join(chars[b] for b in t.encode() if b not in lacking) for t in CASES]
    pairs = train(texts, 360)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|><|im_start|>", "<s>", "</s>", "m_end|>"]
    tokens = [(t, CONTROL) for t in special] + [("<unk>", UNKNOWN)]
    tokens += [(chars[b], NORMAL) for b in range(256) if b not in lacking]
    tokens += [(t, NORMAL) for t in dict.fromkeys(a + b for a, b in pairs)]
    # Tokens that no merge makes, for the pre-tokenizers that look words up; an empty one; user-defined ones.
    tokens += [(t, NORMAL) for t in ["Ġworld", "Hello", "Ġfisherman", "345", ""]]
    tokens += [("<repo_name>", USER_DEFINED), ("        ", USER_DEFINED), ("Once upon", USER_DEFINED), ("unused", UNUSED)]
    return distinct(tokens), [f"{a} {b}" for a, b in pairs]


def spm_vocab():
    space = "\u2581"
    texts = [t.replace(" ", space) for t in CASES]
    pairs = train(texts, 360)
    pieces = dict.fromkeys(a + b for a, b in pairs)
    tokens = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0)]
    tokens += [(f"<0x{b:02X}>", BYTE, 0.0) for b in range(256)]
    tokens += [(p, NORMAL, float(-i)) for i, p in enumerate(pieces)]
    letters = Counter(c for t in texts for c in t)
    tokens += [(c, NORMAL, -1000.0) for c, n in letters.items() if n > 1 and c not in "\n\t\0"]
    # Equal scores, where only the order from left to right decides.
    ties = [space * 2, space * 3, space * 4, "aa", "aaa", "aaaa", "ab", "ba", "aab", "ll", "lll", "oo", "ooo"]
    tokens = [t for t in tokens if t[0] not in ties] + [(t, NORMAL, -3.0) for t in ties]
    tokens += [("<|im_start|>", CONTROL, 0.0), ("<|im_end|>", CONTROL, 0.0), ("<|end|>", CONTROL, 0.0)]
    tokens += [("<|user|>", USER_DEFINED, 0.0), ("Once upon", USER_DEFINED, 0.0)]
    return distinct(tokens)


def distinct(tokens):
    """Without the later of two tokens of the same text, which would be an error."""
    return [t for i, t in enumerate(tokens) if all(t[0] != u[0] for u in tokens[:i])]


def write(path, tokens, merges=None, name="tiny", **settings):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(name)
    w.add_tokenizer_model("gpt2" if merges else "llama")
    w.add_token_list([t[0] for t in tokens])
    w.add_token_types([t[1] for t in tokens])
    if merges:
        w.add_token_merges(merges)
        w.add_tokenizer_pre(settings["pre"])
    else:
        w.add_token_scores([t[2] for t in tokens])
        w.add_add_space_prefix(settings["prefix"])
    ids = {t[0]: i for i, t in enumerate(tokens)}
    w.add_bos_token_id(ids["<s>"])
    w.add_eos_token_id(ids["</s>"])
    w.add_unk_token_id(ids["<unk>"])
    w.add_add_bos_token(False)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


@llama_cpp.llama_log_callback
def quiet(level, text, data):
    pass


def encode(path, texts):
    """Ids of each text, with control tokens as text and parsed."""
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, path
    vocab = llama_cpp.llama_model_get_vocab(model)

    def ids(text, parse):
        data = text.encode()
        out = (llama_cpp.llama_token * (len(data) + 16))()
        n = llama_cpp.llama_tokenize(vocab, data, len(data), out, len(out), False, parse)
        assert n >= 0
        return list(out[:n])

    return [[ids(t, False), ids(t, True)] for t in texts]


def dump(path, head, rows):
    lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows)
    path.write_text(f"{head}[\n{lines}\n]\n")


def main():
    if len(sys.argv) == 3:
        rows = []
        for text, (plain, parsed) in zip(CASES, encode(sys.argv[1], CASES)):
            rows.append({"text": text, "ids": plain} | ({"parsed": parsed} if parsed != plain else {}))
        dump(Path(sys.argv[2]), "", rows)
        return

    bpe, merges = bpe_vocab()
    spm = spm_vocab()
    write(HERE / "bpe.gguf", bpe, merges, pre="gpt-2")
    write(HERE / "spm.gguf", spm, prefix=True)
    variants = [{"vocab": "bpe.gguf", "pre": p} for p in ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "default"]]
    variants += [{"vocab": "spm.gguf", "prefix": True}, {"vocab": "spm.gguf", "prefix": False}]
    variants += [{"vocab": "spm.gguf", "prefix": True, "name": "Phi-3 mini"}]
    rows, first = [], {}
    for v in variants:
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, v["vocab"])
            settings = {k: v[k] for k in v if k != "vocab"}
            write(path, *((bpe, merges) if v["vocab"] == "bpe.gguf" else (spm,)), **settings)
            ids = encode(path, CASES)
        # Only what differs from the vocabulary's first variant, case by case.
        base = first.setdefault(v["vocab"], ids)
        different = {str(i): x for i, x in enumerate(ids) if base is ids or x != base[i]}
        rows.append(v | {"ids": {i: x if x[0] != x[1] else x[:1] for i, x in different.items()}})
    dump(HERE / "expected.json", "", rows)


main()
