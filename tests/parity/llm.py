"""The public API of run.c for the parity scripts, through ctypes, and what these scripts share.

    with llm.Model(path) as model, model.session(context=128) as session:
        logits = session.eval_all(tokens)      # numpy (n, vocab_size)

The library is built once per process into a temporary folder. A call that fails raises llm.Error
with the sentence of llm_error().
"""

import ctypes
import itertools
import json
import os
import shlex
import subprocess
import tempfile
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

BEGIN, BOS, SPECIAL = 1, 2, 4


class Error(Exception):
    """What llm_error() said."""


class Checks:
    """Counts checks. Failures are printed as they come, the rest only in the closing line."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def that(self, ok, message):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED: {message}", flush=True)
        return bool(ok)

    def skip(self, message):
        self.skipped += 1
        print(f"skipped: {message}", flush=True)

    def close(self):
        """Prints the closing line that run.py adds up; returns the exit status."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{skipped}", flush=True)
        return 1 if self.failed else 0


class Sampling(ctypes.Structure):
    _fields_ = [("temperature", c_float), ("top_p", c_float), ("top_k", c_int),
                ("min_p", c_float), ("repeat_penalty", c_float)]


class Options(ctypes.Structure):
    _fields_ = [("context", c_int), ("threads", c_int), ("seed", c_uint64), ("cache", c_char_p),
                ("chat_template", c_char_p), ("variables", c_char_p), ("tools", c_char_p),
                ("thinking", c_int), ("shift", c_int), ("draft", c_char_p),
                ("stops", POINTER(c_char_p)), ("interrupt", POINTER(c_int))]


class Facts(ctypes.Structure):
    _fields_ = (
        [(name, c_char_p) for name in
         ("name", "arch", "format", "chat_template", "warning", "kernels")]
        + [(name, c_int) for name in
           ("context", "vocab_size", "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads",
            "head_dim", "n_experts", "n_experts_used", "bos", "eos", "has_weights")]
        + [("n_params", c_int64), ("bytes_read", c_int64), ("state_bytes", c_int64),
           ("sampling", Sampling)])


OnText = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(ctypes.c_char), c_size_t)
Ints = POINTER(c_int)

# name: (result, arguments), in the order of run.c. Texts go as void pointers where their length
# is given, so that bytes with zeros in them pass.
PROTOTYPES = {
    "llm_error": (c_char_p, []),
    "llm_open": (c_void_p, [c_char_p]),
    "llm_open_memory": (c_void_p, [c_void_p, c_size_t]),
    "llm_close": (None, [c_void_p]),
    "llm_info": (POINTER(Facts), [c_void_p]),
    "llm_encode": (c_int, [c_void_p, c_char_p, c_size_t, c_int, Ints, c_int]),
    "llm_decode": (c_size_t, [c_void_p, Ints, c_int, c_int, c_char_p, c_size_t]),
    "llm_is_stop": (c_int, [c_void_p, c_int]),
    "llm_session_new": (c_void_p, [c_void_p, POINTER(Options)]),
    "llm_session_free": (None, [c_void_p]),
    "llm_fork": (c_void_p, [c_void_p]),
    "llm_position": (c_int, [c_void_p]),
    "llm_context": (c_int, [c_void_p]),
    "llm_tokens": (Ints, [c_void_p]),
    "llm_rewind": (c_int, [c_void_p, c_int]),
    "llm_eval": (POINTER(c_float), [c_void_p, Ints, c_int]),
    "llm_eval_all": (c_int, [c_void_p, Ints, c_int, POINTER(c_float)]),
    "llm_eval_many": (c_int, [POINTER(c_void_p), Ints, c_int]),
    "llm_logits": (POINTER(c_float), [c_void_p]),
    "llm_sample": (c_int, [c_void_p, POINTER(Sampling)]),
    "llm_sync": (c_int, [c_void_p, Ints, c_int]),
    "llm_turn": (c_int, [c_void_p, c_char_p, c_char_p]),
    "llm_chat_template": (c_char_p, [c_int]),
    "llm_generate": (c_int, [c_void_p, c_char_p, c_int, POINTER(Sampling), OnText, c_void_p]),
}


def compile_shared(sources, output, include=ROOT):
    """Compiles C sources into a shared library with $CC; without OpenMP where that has none."""
    cc = shlex.split(os.environ.get("CC", "cc"))
    common = ["-O2", "-fPIC", "-shared", "-DRUN_NO_MAIN", f"-I{include}",
              *map(str, sources), "-lm", "-o", str(output)]
    for openmp in (["-fopenmp"], []):
        result = subprocess.run([*cc, *openmp, *common], capture_output=True, text=True)
        if result.returncode == 0:
            return output
    raise RuntimeError(f"{cc[0]} cannot build {Path(output).name}:\n{result.stderr}")


_folder = None
_library = None


def folder():
    """A temporary folder that lives as long as the process."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="parity-")
    return Path(_folder.name)


def library():
    """The loaded library, built on the first call."""
    global _library
    if _library is None:
        path = compile_shared([ROOT / "run.c", ROOT / "tokenizer.c"], folder() / "librun.so")
        lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        _library = lib
    return _library


def error():
    return library().llm_error().decode("utf-8", "replace")


def _json(value):
    return None if value is None else json.dumps(value, ensure_ascii=False).encode()


def _ints(values):
    """A C array of ints; never empty, so that its address is good for n = 0 as well."""
    values = [int(v) for v in values]
    return (c_int * max(1, len(values)))(*values)


class Model:
    """An open file. `path` may also be bytes, which are then opened from memory."""

    def __init__(self, path):
        self.lib = library()
        self.handle = None
        if isinstance(path, (bytes, bytearray)):
            words = (len(path) + 7) // 8  # an array of 64-bit words has the alignment needed
            self.memory = (c_uint64 * max(1, words))()
            ctypes.memmove(self.memory, bytes(path), len(path))
            self.handle = self.lib.llm_open_memory(self.memory, len(path))
        else:
            self.handle = self.lib.llm_open(os.fsencode(path))
        if not self.handle:
            raise Error(error())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.lib.llm_close(self.handle)
        self.handle = None

    @property
    def info(self):
        return self.lib.llm_info(self.handle).contents

    def encode(self, text, flags=0):
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        count = self.lib.llm_encode(self.handle, data, len(data), flags, None, 0)
        if count < 0:
            raise Error(error())
        tokens = _ints([0] * count)
        if self.lib.llm_encode(self.handle, data, len(data), flags, tokens, count) != count:
            raise Error(f"llm_encode counted {count} tokens, then another number")
        return list(tokens[:count])

    def decode(self, tokens, flags=0):
        """The bytes of the tokens."""
        array, n = _ints(tokens), len(tokens)
        length = self.lib.llm_decode(self.handle, array, n, flags, None, 0)
        text = ctypes.create_string_buffer(length + 1)
        if self.lib.llm_decode(self.handle, array, n, flags, text, length + 1) != length:
            raise Error(f"llm_decode counted {length} bytes, then another number")
        return text.raw[:length]

    def is_stop(self, token):
        return bool(self.lib.llm_is_stop(self.handle, token))

    def session(self, context=0, threads=0, seed=0, cache=None, chat_template=None,
                variables=None, tools=None, thinking=0):
        """variables and tools: what json.dumps takes."""
        options = Options(context, threads, seed, cache and cache.encode(),
                          chat_template and chat_template.encode(), _json(variables),
                          _json(tools), thinking)
        handle = self.lib.llm_session_new(self.handle, byref(options))
        if not handle:
            raise Error(error())
        return Session(self, handle)

    def likelihood(self, tokens, cache=None):
        """The mean log-probability of tokens[1:]."""
        with self.session(cache=cache) as session:
            logits = session.eval_all(tokens)[:-1].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(tokens) - 1), tokens[1:]]
        return float(np.mean(chosen - np.log(np.exp(logits).sum(axis=1))))


class Session:
    def __init__(self, model, handle):
        self.model, self.lib, self.handle = model, model.lib, handle

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.free()

    def free(self):
        self.lib.llm_session_free(self.handle)
        self.handle = None

    @property
    def position(self):
        return self.lib.llm_position(self.handle)

    @property
    def context(self):
        return self.lib.llm_context(self.handle)

    def _copy(self, pointer):
        if not pointer:
            raise Error(error())
        return np.ctypeslib.as_array(pointer, (self.model.info.vocab_size,)).copy()

    def eval(self, tokens):
        return self._copy(self.lib.llm_eval(self.handle, _ints(tokens), len(tokens)))

    def eval_all(self, tokens):
        logits = np.full((len(tokens), self.model.info.vocab_size), np.nan, np.float32)
        if self.lib.llm_eval_all(self.handle, _ints(tokens), len(tokens),
                                 logits.ctypes.data_as(POINTER(c_float))) < 0:
            raise Error(error())
        return logits

    def logits(self):
        return self._copy(self.lib.llm_logits(self.handle))

    def sample(self, sampling=Sampling()):
        """The next token, greedy by default; None takes the model file's own settings."""
        token = self.lib.llm_sample(self.handle, byref(sampling) if sampling else None)
        if token < 0:
            raise Error(error())
        return token

    def turn(self, role, text):
        """Appends a turn; None opens an answer to be written."""
        if self.lib.llm_turn(self.handle, role.encode(), None if text is None else text.encode()):
            raise Error(error())

    def sync(self, tokens):
        """Makes these tokens the session's past."""
        if self.lib.llm_sync(self.handle, _ints(tokens), len(tokens)) < 0:
            raise Error(error())

    def tokens(self):
        return list(self.lib.llm_tokens(self.handle)[:self.position])

    def generate(self, prompt, most, sampling=Sampling()):
        """The text that follows, greedy by default."""
        pieces = []

        def on_text(_, text, length):
            pieces.append(text[:length])
            return 0

        if self.lib.llm_generate(self.handle, prompt.encode(), most, byref(sampling),
                                 OnText(on_text), None) < 0:
            raise Error(error())
        return b"".join(pieces).decode()

    def rewind(self, position):
        if self.lib.llm_rewind(self.handle, position) < 0:
            raise Error(error())

    def fork(self):
        handle = self.lib.llm_fork(self.handle)
        if not handle:
            raise Error(error())
        return Session(self.model, handle)


def chat_templates():
    """The names of the built-in chat templates."""
    names = iter(lambda: library().llm_chat_template(next(numbers)), None)
    numbers = itertools.count()
    return [name.decode() for name in names]


def eval_many(sessions, tokens):
    """One token for each session, in one pass."""
    handles = (c_void_p * max(1, len(sessions)))(*[s.handle for s in sessions])
    if library().llm_eval_many(handles, _ints(tokens), len(sessions)) < 0:
        raise Error(error())
