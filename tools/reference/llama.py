"""llama.cpp as the independent implementation, through llama-cpp-python's low-level API.

Everything here runs with llama.cpp's own defaults unless an argument says otherwise: f16 KV cache, flash attention
"auto", micro-batches of 512 tokens. `SETTINGS` of an instance records what was in force.
"""

import ctypes

import llama_cpp as lib
import numpy as np

FLASH = {"auto": -1, "off": 0, "on": 1}


@lib.llama_log_callback
def _log_errors(level, text, _user_data):
    if level == 4:  # GGML_LOG_LEVEL_ERROR; 5 only continues a line
        print("llama.cpp:", text.decode("utf-8", "replace"), end="", flush=True)


lib.llama_log_set(_log_errors, ctypes.c_void_p(0))
lib.llama_backend_init()


def read_text(path):
    """The file's text exactly as it is: no newline translation."""
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


class Llama:
    """One model and one context of llama.cpp."""

    def __init__(self, path, n_ctx, n_batch=512, n_ubatch=512, threads=1, flash="auto"):
        model_params = lib.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = n_ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH[flash]
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context of {n_ctx} tokens for {path}")
        self.n_batch = n_batch
        self.settings = {
            "package": f"llama-cpp-python {lib.__version__}",
            "n_ctx": n_ctx,
            "n_batch": n_batch,
            "n_ubatch": n_ubatch,
            "threads": threads,
            "flash_attention": flash,
            "kv_cache": "f16",
            "system": lib.llama_print_system_info().decode().strip(),
        }

    def close(self):
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)

    @property
    def adds_bos(self):
        return bool(lib.llama_vocab_get_add_bos(self.vocab))

    @property
    def bos(self):
        return lib.llama_vocab_bos(self.vocab)

    def is_end(self, token):
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def tokenize(self, text, add_special=True, parse_special=False):
        """Token ids of a string (or of raw bytes)."""
        data = text if isinstance(text, bytes) else text.encode()
        room = len(data) + 8
        buffer = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.vocab, data, len(data), buffer, room, add_special, parse_special)
        if count < 0:
            raise RuntimeError(f"llama.cpp cannot tokenize {len(data)} bytes: {count}")
        return list(buffer[:count])

    def piece(self, token):
        """The bytes one token stands for, control tokens spelled out."""
        buffer = ctypes.create_string_buffer(256)
        count = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(count, 0)]

    def clear(self):
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)

    def decode(self, tokens, first_position, want=lambda position: True):
        """Runs at most `n_batch` tokens; returns the logits of the positions asked for, [n, n_vocab] float32."""
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            rows = []
            for i, token in enumerate(tokens):
                position = first_position + i
                batch.token[i] = token
                batch.pos[i] = position
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = 0
                batch.logits[i] = want(position)
                if batch.logits[i]:
                    rows.append(i)
            status = lib.llama_decode(self.context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode of {len(tokens)} tokens at {first_position} answers {status}")
            out = np.empty((len(rows), self.n_vocab), np.float32)
            for row, i in enumerate(rows):
                pointer = lib.llama_get_logits_ith(self.context, i)
                out[row] = np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))
            return out
        finally:
            lib.llama_batch_free(batch)

    def logits(self, tokens, want=lambda position: True):
        """Yields the logits of one fresh context over `tokens`, batch by batch."""
        self.clear()
        for start in range(0, len(tokens), self.n_batch):
            yield self.decode(tokens[start : start + self.n_batch], start, want)

    def greedy(self, prompt, steps, stop_at_end=True):
        """Greedy continuation of token ids: a list of {id, gap, runner_up}.

        `gap` is the distance of the two best logits; a step with a small gap may honestly go either way.
        """
        last = len(prompt) - 1
        row = list(self.logits(prompt, lambda position: position == last))[-1][-1]
        out = []
        while True:
            second, first = np.argpartition(row, -2)[-2:]
            if row[second] > row[first] or (row[second] == row[first] and second < first):
                first, second = second, first
            out.append({"id": int(first), "gap": float(row[first] - row[second]), "runner_up": int(second)})
            if len(out) == steps or (stop_at_end and self.is_end(int(first))):
                return out
            row = self.decode([int(first)], last + len(out))[-1]
