"""Many clients at once for some minutes against a running `sparse serve`: errors, memory, speed, and whether every
stream's text is the one that it has alone.

    python tools/serve/load.py http://127.0.0.1:8080/v1 --pid PID [--clients 32] [--seconds 300]
"""

import argparse
import json
import statistics
import threading
import time
import urllib.error
import urllib.request

PROMPTS = [
    "Once upon a time there was a little",
    "The capital of France is",
    "To make bread, you first",
    "In the middle of the night, the old lighthouse keeper heard",
    "A short list of reasons to learn to swim:",
    "The three most important rules of writing are",
    "Dear Sir or Madam, I am writing to",
    "When the sun goes down over the sea, the fishermen",
]


def ask(url, number, tokens):
    """The text of a stream, its tokens, and the time to the first of them."""
    body = {"prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": tokens, "seed": number, "stream": True}
    body["stream_options"] = {"include_usage": True}
    request = urllib.request.Request(f"{url}/completions", json.dumps(body).encode())
    start, first, text, count = time.monotonic(), None, [], 0
    with urllib.request.urlopen(request, timeout=300) as answer:
        for line in answer:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                return "".join(text), count, first
            piece = json.loads(data)
            if "error" in piece:
                raise RuntimeError(piece["error"])
            if piece["choices"] and piece["choices"][0]["text"]:
                first = first or time.monotonic() - start
                text.append(piece["choices"][0]["text"])
            count = (piece.get("usage") or {}).get("completion_tokens", count)
    raise RuntimeError("the stream ended early")


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def run(url, clients, seconds, tokens, pid):
    end = time.monotonic() + seconds
    lock, texts, errors, refused, firsts, total = threading.Lock(), {}, [], [0], [], [0]

    def client(number):
        turn = 0
        while time.monotonic() < end:
            # The same few requests over and over: their texts must be the same every time.
            n = (number + turn) % 64
            try:
                text, count, first = ask(url, n, tokens)
                with lock:
                    texts.setdefault(n, set()).add(text)
                    total[0] += count
                    firsts.append(first)
            except urllib.error.HTTPError as error:
                if error.code == 429:
                    refused[0] += 1
                    time.sleep(float(error.headers.get("Retry-After", 1)))
                else:
                    errors.append(f"{error.code}: {error.read()[:200]}")
            except Exception as error:
                errors.append(repr(error))
            turn += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.monotonic()
    memory = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5, max(0.2, seconds / 20)))
        if pid:
            memory.append((time.monotonic() - start, resident(pid)))
    elapsed = time.monotonic() - start
    return {"texts": texts, "errors": errors, "refused": refused[0], "rate": total[0] / elapsed, "memory": memory,
            "first": statistics.median(f for f in firsts if f) if firsts else None}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, help="of the server, for its memory")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    one = run(args.url, 1, min(20, args.seconds), args.tokens, None)
    many = run(args.url, args.clients, args.seconds, args.tokens, args.pid)
    for n, texts in one["texts"].items():
        many["texts"].setdefault(n, set()).update(texts)
    # Those that nobody asked for alone yet.
    for n in list(many["texts"])[:16]:
        many["texts"][n].add(ask(args.url, n, args.tokens)[0])
    different = [n for n, texts in many["texts"].items() if len(texts) > 1]
    print(f"one client: {one['rate']:.0f} tokens/s, first token after {one['first'] * 1000:.0f} ms")
    print(f"{args.clients} clients: {many['rate']:.0f} tokens/s, {many['rate'] / one['rate']:.2f} times as many, "
          f"first token after {many['first'] * 1000:.0f} ms (median), {many['refused']} times 429")
    later = [mb for seconds, mb in many["memory"] if seconds >= min(60, args.seconds / 5)]
    if later:
        print(f"memory after the first minute: {min(later):.0f} to {max(later):.0f} MB")
    print(f"errors: {len(many['errors'] + one['errors'])}, texts that differ: {len(different)} of {len(many['texts'])}")
    for error in (many["errors"] + one["errors"])[:5]:
        print("  ", error)
    flat = not later or max(later) <= 1.05 * later[0]
    assert not many["errors"] and not one["errors"] and not different and flat, "see above"


if __name__ == "__main__":
    main()
