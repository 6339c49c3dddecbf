"""Writes the committed minilm.json, which `cargo xtask verify minilm` checks against.

    python make_embedding_reference.py MODEL_FOLDER --out minilm.json

The texts are the first lines of prose.txt and some odd ones; the embeddings those of the sentence-transformers library.
Needs requirements-embeddings.txt.
"""

import argparse
import json
import pathlib

import sentence_transformers

LINES = 12
ODD = ["", "[CLS] is a token", "Ünïcödé, ÅNGSTRÖM and straße", "漢字とかな。中文", "🙂 emoji", "no spaces " * 400]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    prose = (pathlib.Path(__file__).parent / "prose.txt").read_text(encoding="utf-8")
    texts = [line for line in prose.splitlines() if line.strip()][:LINES] + ODD
    model = sentence_transformers.SentenceTransformer(str(args.model), device="cpu")
    embeddings = [[round(float(v), 6) for v in e] for e in model.encode(texts)]
    version = f"sentence-transformers {sentence_transformers.__version__}"
    reference = {"made_by": version, "texts": texts, "embeddings": embeddings}
    args.out.write_text(json.dumps(reference, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
