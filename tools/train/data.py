"""The tokenizer, and text as one long row of token ids.

Stories are separated by lines `<|endoftext|>`. In the row of ids every story is followed by that token, and the row begins
with it, so that it is the end of one text and the beginning of the next, as in GPT-2.
"""

import hashlib
import lzma
import os
import pathlib

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
VOCABULARY = 4096


def stories(path):
    """The stories of a text file, plain or xz."""
    raw = pathlib.Path(path).read_bytes()
    text = (lzma.decompress(raw) if raw[:6] == b"\xfd7zXZ\x00" else raw).decode("utf-8")
    return [story for part in text.split(f"\n{END}\n") if (story := part.removesuffix(f"\n{END}").strip("\n"))]


def train_tokenizer(paths, size=VOCABULARY):
    """Byte-level BPE with GPT-2's words; the separator is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((story for path in paths for story in stories(path)), trainer)
    return tokenizer


def load_tokenizer(path, train_on=()):
    """The tokenizer in a file; where there is none, it is trained on the texts and written."""
    path = pathlib.Path(path)
    if not path.exists():
        write_atomically(path, lambda part: train_tokenizer(train_on).save(str(part)))
    return Tokenizer.from_file(str(path))


def load_ids(path, tokenizer, cache):
    """Token ids [n] of a text file, a memory map of uint16 that is made once per text and tokenizer."""
    key = hashlib.sha256(pathlib.Path(path).read_bytes() + tokenizer.to_str().encode()).hexdigest()[:16]
    file = pathlib.Path(cache) / f"ids-{key}.u16"
    if not file.exists():
        end = tokenizer.token_to_id(END)
        texts, row = stories(path), [np.array([end], np.uint16)]
        for start in range(0, len(texts), 4096):
            for encoding in tokenizer.encode_batch_fast(texts[start : start + 4096], add_special_tokens=False):
                row.append(np.array([*encoding.ids, end], np.uint16))
        write_atomically(file, np.concatenate(row).tofile)
    return np.memmap(file, np.uint16, "r")


def batch(ids, first, size, context, seed):
    """Windows [size, context + 1] number `first` and following of the training.

    A function of its arguments alone, so that a number is all that has to be remembered to go on. An epoch is every window
    once, in an order and from an offset of its own.
    """
    count = (len(ids) - 1) // context - 1
    windows = []
    for epoch, place in (divmod(index, count) for index in range(first, first + size)):
        order, offset = _epoch(count, context, seed, epoch)
        start = offset + int(order[place]) * context
        windows.append(ids[start : start + context + 1])
    return np.stack(windows).astype(np.int64)


def heldout_batches(ids, size, context, windows=None):
    """Windows [<= size, context + 1] from the beginning of a text, in order; the last token of each is the next one's first."""
    count = min(windows or len(ids), (len(ids) - 1) // context)
    for first in range(0, count, size):
        rows = [ids[i * context : (i + 1) * context + 1] for i in range(first, min(first + size, count))]
        yield np.stack(rows).astype(np.int64)


_epochs = {}


def _epoch(*key):
    if key not in _epochs:
        count, context, seed, epoch = key
        random = np.random.default_rng([seed, epoch])
        _epochs.clear()
        _epochs[key] = random.permutation(count), int(random.integers(context))
    return _epochs[key]


def write_atomically(path, write):
    """Calls `write` with a temporary path beside `path`, then renames: the file is whole or not there."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
