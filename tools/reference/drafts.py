"""Decode speed with drafts from the text's own past, over that without (`--no-lookup`).

    python drafts.py MODEL.gguf [--threads N] [--rounds N]

Prints a line per task and text: the median of the rounds' ratios, the least and the greatest. Fails if
the two make different texts.
"""

import argparse
import statistics

import ours

TEXTS = [
    "The cargo ship left the harbor at dawn with forty containers of dried fruit. By noon the wind had turned north, "
    "and the captain ordered the crew to secure the deck. Two of the younger sailors had never seen such waves. They "
    "held on to the rail while the cook brought hot soup in a covered pot. In the evening the sea calmed down, and "
    "everyone slept well.",
    "Anna works in a small bakery near the station. Every morning she gets up at three, walks through the dark "
    "streets, and lights the big oven. She bakes rolls, rye bread, and on Fridays a cake with plums. Her customers "
    "like to talk about the weather. When the shop closes at noon, she goes home and sleeps for two hours.",
]
TASKS = [
    "Repeat the following paragraph exactly.",
    "Correct the spelling mistakes in this text and write it again.",
    "Rewrite this paragraph. Change as little as possible.",
    "Rewrite this text, and write it in the past tense.",
]
QUESTIONS = [
    "Why is the sky blue?",
    "Explain how a bicycle stays upright.",
    "What is the difference between a virus and a bacterium?",
    "Describe the city of Paris.",
]


def generate(model, threads, prompt, *options):
    made = ours.sparse(
        "generate", "-m", model, "--chat", "--greedy", "-n", 120, "-t", threads, "--json", *options, prompt
    )
    return made["text"], made["timings"]["decode_tokens_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    ours.build()
    for prompt in [f"{task}\n\n{text}" for task in TASKS for text in TEXTS] + QUESTIONS:
        ratios = []
        for _ in range(args.rounds):
            text, drafted = generate(args.model, args.threads, prompt)
            same, plain = generate(args.model, args.threads, prompt, "--no-lookup")
            if text != same:
                raise SystemExit(f"drafts changed the text of: {prompt}")
            ratios.append(drafted / plain)
        first = prompt.split("\n")[0]
        print(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {first}", flush=True)


if __name__ == "__main__":
    main()
