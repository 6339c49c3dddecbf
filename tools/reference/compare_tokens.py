"""Token ids of every line of a text, llama.cpp's and ours.

    python compare_tokens.py MODEL.gguf [TEXT ...]

Without texts it takes prose.txt. Lines keep no line break; the whole text is compared, too.
"""

import argparse
import pathlib
import sys

import ours
from llama import Llama, read_text

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("texts", nargs="*", type=pathlib.Path, default=[HERE / "prose.txt"])
    args = parser.parse_args()
    ours.build()
    model = Llama(args.model, n_ctx=8)
    differ = 0
    for path in args.texts:
        text = read_text(path)
        lines = text.removesuffix("\n").split("\n")
        options = ["tokenize", "--model", args.model, "--file", path]
        mine = ours.sparse_lines(*options, "--lines")
        if len(mine) != len(lines):
            raise RuntimeError(f"{path} has {len(lines)} lines, not {len(mine)}")
        wrong = [line for line, ids in zip(lines, mine) if ids != model.tokenize(line)]
        whole = ours.sparse(*options, "--ids") == model.tokenize(text)
        tokens = sum(map(len, mine))
        print(f"{path.name}: {len(lines)} lines, {tokens} tokens, {len(wrong)} lines differ, whole text {'equal' if whole else 'DIFFERS'}")
        for line in wrong[:5]:
            print(f"  {line!r}")
        differ += len(wrong) + (not whole)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
