"""Our sentence embeddings against the sentence-transformers library's, on the same model folder.

    python compare_embeddings.py MODEL_FOLDER --stsb stsb-en-dev.csv [--formats f32 int8 Q8_0] [--threads N] [--sparse FILE ...]

The CSV has lines of two sentences and their likeness, 0 to 5, without a header. Compared are the token ids and the
embeddings of the first 1,000 sentences, of some odd texts, and Spearman's rank correlation of cosines and likeness over
all pairs. A format such as f32/bit5 has the feed-forward layers' weights in another one than the rest. With `--sparse`,
embeddings that leave out the neurons of each sidecar of `sparse calibrate`, whether that is faster or not, are compared
with the reference, too, and with our dense ones. Needs requirements-embeddings.txt. The exit code says whether the bars hold.
"""

import argparse
import csv
import json
import pathlib
import sys

import numpy as np
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

import ours

# Mean cosine to the reference at least, points of Spearman's correlation off at most.
BARS = {"f32": (0.9999, 0.1), "int8": (0.998, 0.3)}
# The same for sparse ones; the cosine is that to our dense embeddings.
SPARSE_BAR = (0.97, 0.5)

ODD = [
    "",
    " ",
    "\t \u3000",
    "\x00\x01\x02\x7f\u200b",
    "[CLS] is a token, and so is [MASK]; [SEP]arate",
    "Ünïcödé, ÅNGSTRÖM and ﬁne Ligatures: Οδυσσεύς ΣΑΣ straße",
    "漢字とかなの混ざった文。中文句子,没有空格",
    "zero\u200dwidth\u00adjoin\x0bvertical\x0cfeed\x85next",
    "a" * 101,
    "supercalifragilisticexpialidocious " * 3,
    "don't can't won't -- 3.14 $5,000 50% C++ e-mail@example.com https://example.com/?q=1",
    "🙂🤖 emoji 👩‍👩‍👧‍👦 family",
    "no spaces " * 400,
    "漢" * 2000,
    "word" * 2000 + " tail",
]


def lines_of(texts):
    """Our example takes a text per line."""
    return "".join(text.replace("\n", " ").replace("\r", " ") + "\n" for text in texts).encode()


def reference_ids(model, texts):
    # One by one, without padding.
    limit = model.max_seq_length
    return [model.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]


def cosines(a, b):
    return np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--ours", type=pathlib.Path, help="what we load, if not the folder: a GGUF file")
    parser.add_argument("--stsb", type=pathlib.Path, required=True)
    parser.add_argument("--formats", nargs="+", default=["f32", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparse", type=pathlib.Path, nargs="+", default=[], help="sidecars of `sparse calibrate`")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here, too")
    args = parser.parse_args()
    with args.stsb.open(encoding="utf-8", newline="") as file:
        pairs = [(a, b, float(score)) for a, b, score in csv.reader(file)]
    first, second, scores = zip(*pairs)
    texts = list(dict.fromkeys(first + second))
    index = {text: i for i, text in enumerate(texts)}
    texts += ODD
    some = list(range(min(1000, len(index)))) + list(range(len(index), len(texts)))

    model = SentenceTransformer(str(args.model), device="cpu")
    embeddings = model.encode(texts, batch_size=32, convert_to_numpy=True).astype(np.float64)

    def correlation(e):
        likeness = cosines(e[[index[t] for t in first]], e[[index[t] for t in second]])
        return 100 * spearmanr(likeness, scores).statistic

    def mine(*options):
        command = [ours.example("embed"), args.ours or args.model, "--threads", args.threads]
        # A GGUF file does not say what texts are cut down to.
        command += ["--max-tokens", model.max_seq_length, *options]
        return ours.json_lines(*command, input=lines_of(texts))

    ids = mine("--ids")
    expected = reference_ids(model, texts)
    differ = [i for i in some if ids[i] != expected[i]]
    for i in differ[:5]:
        print(f"ids differ: {texts[i][:60]!r}\n  {ids[i][:20]}\n  {expected[i][:20]}")
    figures = {"sentences": len(some), "ids differ": len(differ), "reference spearman": correlation(embeddings)}
    print(f"{len(some)} texts, ids of {len(differ)} differ; reference Spearman {figures['reference spearman']:.3f}")
    failed = bool(differ)
    for name in args.formats:
        whole, _, ffn = name.partition("/")
        e = np.array(mine("--format", whole, *["--ffn", ffn] * bool(ffn)), dtype=np.float64)
        cosine = cosines(e[some], embeddings[some])
        spearman = correlation(e)
        off = spearman - figures["reference spearman"]
        figures[name] = {"mean cosine": cosine.mean(), "least cosine": cosine.min(), "spearman": spearman}
        print(f"{name}: cosine mean {cosine.mean():.7f}, least {cosine.min():.7f}; Spearman {spearman:.3f} ({off:+.3f})")
        if name in BARS:
            least, most = BARS[name]
            failed |= bool(cosine.mean() < least or abs(off) > most)
        for sidecar in args.sparse:
            some_neurons = np.array(mine("--format", whole, *["--ffn", ffn] * bool(ffn), "--sparse", sidecar), dtype=np.float64)
            cosine, spearman = cosines(some_neurons[some], e[some]), correlation(some_neurons)
            off = spearman - figures["reference spearman"]
            figures[f"{name} {sidecar.name}"] = {"cosine to dense": cosine.mean(), "spearman": spearman}
            print(f"  {sidecar.name}: cosine to dense {cosine.mean():.5f}, least {cosine.min():.4f}; Spearman {off:+.3f}")
            failed |= bool(cosine.mean() < SPARSE_BAR[0] or abs(off) > SPARSE_BAR[1])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
