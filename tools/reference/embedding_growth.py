"""Draws time per sentence against its length, a line per batch size, from what embedding_speed.py --json wrote.

    python embedding_speed.py MODEL_FOLDER --threads 1 --tokens 8 16 32 64 128 256 --batches 1 32 --json growth.json
    python embedding_growth.py growth.json > embeddings-growth.svg
"""

import json
import statistics
import sys
from math import log2

WIDTH, HEIGHT, LEFT, TOP = 560, 340, 60, 40
COLORS = {"ours int8": "#c0392b", "ours f32": "#e59866", "ort f32": "#2471a3", "ort int8": "#7fb3d5", "candle": "#7d8a2e"}
NAMES = {"ours int8": "ours, int8", "ours f32": "ours, f32", "ort f32": "ONNX Runtime, f32", "ort int8": "ONNX Runtime, int8"}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = json.load(file)
    lines = {}
    for row in rows:
        for name in row["rounds"][0]:
            median = statistics.median(r[name] for r in row["rounds"])
            lines.setdefault((name, row["threads"], row["batch"]), []).append((row["tokens"], median))
    points = [point for line in lines.values() for point in line]
    few, most = (f(log2(n) for n, _ in points) for f in (min, max))
    low, high = min(log2(ms) for _, ms in points) // 1, -(-max(log2(ms) for _, ms in points) // 1)

    def place(tokens, ms):
        x = LEFT + WIDTH * (log2(tokens) - few) / max(most - few, 1e-9)
        return x, TOP + HEIGHT * (high - log2(ms)) / max(high - low, 1e-9)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 240}" height="{TOP + HEIGHT + 50}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20">milliseconds per sentence against tokens (both axes logarithmic)</text>',
    ]
    for tokens in sorted({n for n, _ in points}):
        x, y = place(tokens, 2**low)
        out.append(f'<path d="M{x:.1f} {TOP}V{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{tokens}</text>')
    for power in range(int(low), int(high) + 1):
        x, y = place(2**few, 2.0**power)
        out.append(f'<path d="M{x:.1f} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{2.0**power:g}</text>')
    for i, ((name, threads, batch), line) in enumerate(lines.items()):
        style = f'stroke="{COLORS[name]}" stroke-width="2" fill="none"' + ' stroke-dasharray="5 4"' * (batch > 1)
        path = " L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
        y = TOP + 8 + 18 * i
        label = f"{NAMES.get(name, name)}, batch {batch}" + f", {threads} threads" * (threads > 1)
        out.append(f'<path d="M{path}" {style}/><path d="M{LEFT + WIDTH + 14} {y - 4}h26" {style}/>')
        out.append(f'<text x="{LEFT + WIDTH + 46}" y="{y}">{label}</text>')
    print("\n".join([*out, "</svg>"]))


if __name__ == "__main__":
    main()
