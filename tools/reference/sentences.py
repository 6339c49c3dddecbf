"""The sentences of an STS-B file, each once, a line each.

    python sentences.py stsb-en-dev.csv > sentences.txt
"""

import csv
import sys

with open(sys.argv[1], encoding="utf-8", newline="") as file:
    pairs = [row[:2] for row in csv.reader(file)]
for sentence in dict.fromkeys(sentence for pair in pairs for sentence in pair):
    print(" ".join(sentence.split()))
