"""Writes the model card and its charts from figures.json, which ship.py measured.

    python card.py [crates/sparse-cli/story]
"""

import json
import math
import pathlib
import sys
import textwrap

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 52, 52, 30, 36
TOKENS_PER_STEP = 4096


def percent(share, digits=1, sign=""):
    return f"{100 * share:{sign}.{digits}f} %"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def wrapped(markdown):
    """Paragraphs in lines of 100 columns; code, tables, headings and pictures as they are."""
    out, code = [], False
    for block in markdown.split("\n\n"):
        fences = block.count("```")
        prose = not code and not fences and block[:1] not in ("|", "#", "!", "\n")
        out.append(textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False) if prose else block)
        code ^= fences % 2 == 1
    return "\n\n".join(out).rstrip("\n") + "\n"


def chart(curve):
    """Loss (left axis) and sparsity (right axis) by step, as SVG."""
    last = max(step for step, _ in curve["training"] + curve["heldout"])
    most = math.ceil(curve["training"][0][1])
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(step):
        return LEFT + step / last * (right - LEFT)

    def y(share):
        return bottom - share * (bottom - TOP)

    def line(points, scale, style):
        joined = " ".join(f"{x(step):.1f},{y(value / scale):.1f}" for step, value in points)
        return f'<polyline points="{joined}" fill="none" {style}/>'

    def label(at_x, at_y, text, anchor="middle", color="#444"):
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" fill="{color}">{text}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for i in range(5):
        height = y(i / 4)
        parts.append(f'<line x1="{LEFT}" y1="{height:.1f}" x2="{right}" y2="{height:.1f}" stroke="#ddd"/>')
        parts.append(label(LEFT - 6, height + 4, f"{most * i / 4:g}", "end"))
        parts.append(label(right + 6, height + 4, f"{25 * i} %", "start"))
        parts.append(label(x(last * i / 4), bottom + 16, f"{last * i / 4:,.0f}"))
    parts.append(line(curve["sparsity"], 1.0, 'stroke="#7a9f35" stroke-width="1.5"'))
    parts.append(line(curve["training"], most, 'stroke="#9ab" stroke-width="1.2"'))
    parts.append(line(curve["heldout"], most, 'stroke="#1f4e79" stroke-width="2"'))
    parts.append(label(LEFT, TOP - 12, "loss in nats: training", "start", "#789"))
    parts.append(label(LEFT + 122, TOP - 12, "and held-out", "start", "#1f4e79"))
    parts.append(label(right, TOP - 12, "exact zeros, mean over layers", "end", "#5f7f20"))
    parts.append(label((LEFT + right) / 2, HEIGHT - 5, f"steps of {TOKENS_PER_STEP:,} tokens"))
    return "\n".join([*parts, "</svg>", ""])


def sparsity(f):
    heldout, chosen = f["heldout"], (f["sidecar"]["chosen"] or {}).get("layers")
    rows = []
    for i, zeros in enumerate(heldout["sparsity_per_layer"]):
        row = [i, percent(zeros), percent(heldout["never_active_per_layer"][i]), percent(f["own_text"]["zeros_per_layer"][i])]
        if chosen:
            layer = chosen[i]
            row += [percent(1 - layer["down_density"]), percent(layer["recall"]), percent(layer["bytes"] / layer["dense_bytes"])]
        rows.append(row)
    mean = ["mean", percent(heldout["sparsity"]), "", percent(f["own_text"]["zeros"])]
    header = ["layer", "zeros, held-out stories", "never active there", "zeros, own text"]
    if chosen:
        header += ["skipped with the sidecar", "recall", "of dense FFN bytes"]
        mean += ["", "", percent(f["sidecar"]["chosen"]["bytes_share"])]
    return table(header, [*rows, mean])


def loss(f):
    names = {"none": "all neurons", "exact-zero": "exact zeros left out", "sidecar": "as the sidecar says"}
    rows = [[names[key], f"{p['perplexity']:.3f} ± {p['standard_error']:.3f}"] for key, p in f["ours"].items()]
    return table(["neurons", f"perplexity ({f['ours']['none']['scored_tokens']:,} tokens scored)"], rows)


def twin(f):
    if "twin" not in f:
        return "There was no twin to compare with."
    relu, silu = f["twin"], f["twin"]["twin"]
    rows = [
        [name, m["step"], f"{m['perplexity']:.3f}", percent(m["sparsity"])]
        for name, m in (("this model", relu), ("twin: SiLU gates, no penalty", silu))
    ]
    return (
        table(["", "steps", "held-out perplexity", "exact zeros"], rows)
        + f"\n\nAt these equal steps the sparse model's perplexity differs by {percent(relu['perplexity_change'], 2, '+')} ± "
        f"{percent(relu['perplexity_change_error'], 2)} (paired by window)."
    )


def speed(f):
    def spread(s, unit=""):
        return f"{s['median']:.2f}{unit} ({s['min']:.2f} to {s['max']:.2f})"

    rows = [
        [
            r["threads"], r["sparse"], percent(r["skipped"]), f"{r['ffn_bytes_per_token'] / 1e3:.0f} KB",
            f"{1e3 * r['ffn_ms_per_token']['median']:.0f} us", spread(r["ffn_time_ratio"]),
            f"{r['decode_tokens_per_s']['median']:,.0f}/s", spread(r["decode_gain"]),
        ]
        for r in f["speed"]["threads"]
    ]
    header = ["threads", "left out", "neurons", "FFN bytes per token", "FFN time", "over dense-rows", "tokens", "over dense-rows"]
    return table(header, rows)


def aims(f):
    """Whether one thread's medians are at the factors that were aimed for."""
    gains = {r["sparse"]: r["decode_gain"]["median"] for r in f["speed"]["threads"] if r["threads"] == 1}
    return ", ".join(
        f"{name} " + " and ".join(f"{'met' if gains[key] >= aim else 'missed'} ({aim})" for aim in (1.3, 1.8))
        for key, name in (("exact-zero", "with exact zeros"), ("sidecar", "with the sidecar"))
    )


def sidecar(f):
    chosen = f["sidecar"]["chosen"]
    tried = [
        [
            c["name"], percent(c["bytes_share"]), percent(c["time_share"]),
            # The dense path has no loss, and neither has what stayed outside the budget.
            percent(math.expm1(c["loss"]["nats"]), 2) if c["loss"] else "",
        ]
        for c in f["sidecar"]["candidates"]
    ]
    text = table(["tried", "of dense FFN bytes", "of its time, by curves", "perplexity, tuning text"], tried)
    if chosen:
        l = chosen["loss"]
        text += (
            f"\n\nChosen: {chosen['name']}. On {l['tokens']:,} held-out tokens that nothing was fitted to: perplexity "
            f"{percent(l['perplexity_increase'], 2, '+')} ± {percent(l['standard_error'], 2)}, KL {l['kl']:.4f}, same top token "
            f"{percent(l['top1'])}; {percent(chosen['bytes_share'])} of the dense FFN bytes, predictor included."
        )
    return text


CARD = """# The story model

A small language model that writes children's stories, and whose neurons are idle most of the time: made for this project, to show
what skipping idle neurons is worth. It is inside the `sparse` program:

```bash
cargo run --release -p sparse-cli -- generate "Once upon a time"
sparse generate "Once upon a time" --stats                          # what each layer left out
sparse generate "Once upon a time" --sparse none                    # all neurons, to compare
sparse bench --sparse dense-rows,exact-zero,sidecar                 # both as a table, with times
```

This card is written by `tools/train/card.py` from `figures.json`; all its figures are measured on the files beside it.

| | |
|---|---|
| layout | llama: 5 layers of width 256, 8 heads, RMSNorm, RoPE, tied head; feed-forward of 2,048 neurons with ReLU gates |
| parameters | {parameters:.2f} million |
| vocabulary | 4,096 tokens, byte-level BPE; `<\\|endoftext\\|>` begins and ends a story |
| context | 512 tokens |
| file | `story.gguf`, {megabytes:.2f} MB: FFN in Q4_0, `ffn_down_t` with a row per neuron, the rest in Q8_0 |
| sidecar | `story.sparse.gguf`, {sidecar_megabytes:.2f} MB |
| training | {tokens:.1f} million tokens, {steps:,} steps, two CPU cores |

## Data

Stories sampled from stories15M (karpathy/llama2.c, MIT license), a model of 15 million parameters trained on TinyStories: 11.1 million
tokens to train on and 0.46 million held out. No held-out story shares its first 200 characters with a training story.
`tools/train/README.md` has the recipe.

## Training

![Loss and sparsity by step](loss.svg)

On held-out stories, the file as it ships: loss {heldout_loss:.4f} nats per token, perplexity {heldout_perplexity:.3f} ± {heldout_error:.3f}
({heldout_tokens:,} tokens, windows of 512, all but the first token scored; float arithmetic on the quantized weights).

### Beside a twin

The same training with SiLU gates and no penalty on activity:

{twin}

## Sparsity

Share of the neurons whose gate is exactly zero, per token and layer. "Own text" is what the program writes from seeds 1 to 20.

{sparsity}

## Leaving neurons out

Exact zeros can be left out without any loss: the text stays the same, token by token (a test compares 100 prompts). The
sidecar was made by `sparse calibrate -m story.gguf --text STORIES --test HELDOUT --max-loss {max_loss} --ranks 32,64 --only ffn`. In both texts `<|endoftext|>` stands before the
first story and after each, with no line ends around it, as the model was trained (`tools/train/ship.py` writes them so and runs all of this):

{sidecar}

`sparse perplexity --parse-special --windows 200` on these held-out stories (windows of 512, second halves scored):

{loss}

## Speed

`sparse bench --sparse dense-rows,none,exact-zero,sidecar --text HELDOUT --prompt 256 --tokens 400 --rounds 15`, {level}, in turn, medians with the
least and the greatest; the model lives in cache. `dense-rows` is the fastest dense path, which everything is compared with: all
neurons, and the down projection stored by rows as dense models have it. `none` computes all neurons from the file as it is:

{speed}

The aims for one thread were 1.3 times the tokens of dense-rows, and if possible 1.8: {aims}.

## Samples

Twenty, none left out: `SPARSE_SIMD=scalar sparse generate PROMPT --echo --seed N`, N from 1 to 20, everything else as usual
(among it 256 tokens at most).

{samples}

## Limits

It knows a few hundred common words and the plots of stories for small children, in English. It loses the thread after a
few sentences, mixes up who is who, and repeats itself; the stories it learnt from are by a language model, faults included. It
knows no facts, follows no instructions and cannot chat. It was not checked for what it may say beyond its samples.

## License

MIT or Apache-2.0, as the project. The text it was trained on was made with a model under the MIT license.
"""


def write(folder):
    f = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    heldout = f["heldout"]
    samples = "\n\n".join(f"Seed {s['seed']}:\n\n```text\n{s['prompt']}{s['text']}\n```" for s in f["samples"])
    (folder / "loss.svg").write_text(chart(f["curve"]), encoding="utf-8")
    card = CARD.format(
        parameters=heldout["parameters"] / 1e6,
        megabytes=heldout["megabytes"],
        sidecar_megabytes=(folder / "story.sparse.gguf").stat().st_size / 1e6,
        tokens=f["curve"]["tokens"] / 1e6,
        steps=f["curve"]["tokens"] // TOKENS_PER_STEP,
        heldout_loss=heldout["loss"],
        heldout_perplexity=heldout["perplexity"],
        heldout_error=heldout["standard_error"],
        heldout_tokens=heldout["scored_tokens"],
        twin=twin(f),
        sparsity=sparsity(f),
        max_loss=f"{100 * f['sidecar']['max_loss']:g}%",
        sidecar=sidecar(f),
        loss=loss(f),
        speed=speed(f),
        aims=aims(f),
        level=f["speed"]["level"],
        samples=samples,
    )
    (folder / "README.md").write_text(wrapped(card), encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2] / "crates/sparse-cli/story")
