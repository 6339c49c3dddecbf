"""Golden logits of the tiny model variants, by llama.cpp: crates/sparse-model/tests/data/tiny-logits.json.

    cargo run -p sparse-testdata --example write_variants -- target/variants > target/variants.tsv
    python tools/reference/make_tiny_logits.py target/variants.tsv target/variants crates/sparse-model/tests/data/tiny-logits.json
"""

import json
import sys
from pathlib import Path

import numpy as np

from llama import Llama

# Every logit at three places of a sequence of 48: after the first token, in the middle, at the end.
TOKENS = [(i * 37 + 11) % 260 for i in range(48)]
POSITIONS = [0, 20, 47]

names, folder, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
variants = []
for line in names.read_text().splitlines():
    number, name = line.split("\t")
    llama = Llama(folder / f"{number}.gguf", n_ctx=64, flash="off")
    logits = np.concatenate(list(llama.logits(TOKENS)))[POSITIONS]
    variants.append({"name": name, "logits": [[round(float(v), 5) for v in row] for row in logits]})
    llama.close()
package = Llama(folder / "0.gguf", n_ctx=64).settings["package"]
text = json.dumps({"made_by": package, "tokens": TOKENS, "positions": POSITIONS, "variants": variants})
out.write_text(text.replace('{"name"', '\n{"name"') + "\n")
