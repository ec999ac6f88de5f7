#!/usr/bin/env python3
"""Compares tokenizer.c with Hugging Face tokenizers on random texts.

    python3 tests/parity/tokenizers_parity.py [texts [seed]]

Needs the PyPI packages tokenizers, gguf and numpy. For every word-splitting rule a small byte-level
BPE vocabulary is trained on texts made here, with the normalizer and pre_tokenizer of the published
tokenizer.json, and compared on `texts` texts (default 20000). Where the real vocabularies are
(../shared/data/vocab beside the project), they are compared too, and the SentencePiece ones against
BPE with byte fallback: as Llama 2 has it, like Gemma without a space in front and with tokens for
runs of spaces, like Phi-3 with special tokens that take the white space behind them, and like Gemma
4 with merges instead of scores. Vocabularies like Gemma 4's are trained here too. The texts mix
code, scripts, emoji, digits, contractions, decomposed characters, white space and control
characters, the same ones for a seed. Both sides must give the same tokens, and decoding them must
give the text back, or its normal form. export.py must name every rule.
"""

import ctypes
import functools
import json
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

ROOT = Path(__file__).resolve().parent.parent.parent
VOCABULARIES = ROOT.parent / "shared" / "data" / "vocab"
SPM, BPE, CHARACTER_BPE = range(3)
BEGIN, SPECIAL, DEFINED = 1, 4, 8
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


# ---- Hugging Face: normalizer and pre_tokenizer of each rule, as in its models' tokenizer.json ----

NFC = normalizers.NFC()
DIGITS = pre_tokenizers.Digits(individual_digits=True)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def rule(*steps, normalizer=None, ignore_merges=False):
    return normalizer, pre_tokenizers.Sequence(list(steps)), ignore_merges


CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿ\u0386\u0388-\u038aΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ"
    "Ḁ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭ"
    "ℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ"
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"""|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
RULES = {
    "gpt-2": rule(GPT2),
    "gpt-neox": rule(GPT2, normalizer=NFC),
    "smollm": rule(DIGITS, GPT2),
    "command-r": rule(DIGITS, GPT2, normalizer=NFC),
    "falcon": rule(
        pre_tokenizers.Punctuation("contiguous"),
        GPT2,
        pre_tokenizers.Digits(individual_digits=False),
        split("[0-9][0-9][0-9]"),
    ),
    "llama-bpe": rule(split(LLAMA3), BYTES, ignore_merges=True),
    "dbrx": rule(split(LLAMA3, "removed", True), BYTES),
    "qwen2": rule(split(QWEN2), BYTES, normalizer=NFC),
    "hunyuan": rule(split(QWEN2), BYTES),
    "qwen35": rule(
        split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
            r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        BYTES,
        normalizer=NFC,
    ),
    "seed-coder": rule(
        split(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}"
            "| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
        ),
        BYTES,
    ),
    "minicpm5": rule(
        split(r"\p{N}{1,3}"), split(LLAMA3.replace("{1,3}", "+")), BYTES, ignore_merges=True
    ),
    "laguna": rule(
        split(r"(?:\r?\n)+(?!\r?\n)", "merged_with_next"), split(QWEN2), BYTES
    ),
    "tiny_aya": rule(split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(GPT4O), BYTES),
    "gpt-4o": rule(split(GPT4O), BYTES, ignore_merges=True),
    "tekken": rule(
        split(GPT4O.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")),
        BYTES,
        ignore_merges=True,
    ),
    "deepseek-llm": rule(
        split("[\r\n]"),
        split(r"\s?[" + CASED + "]+"),
        split(r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
        split(r"\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"),
        DIGITS,
        BYTES,
    ),
    "deepseek-coder": rule(
        split("[\r\n]"),
        split(r"\s?\p{L}+"),
        split(r"\s?\p{P}+"),
        split("[一-龥ࠀ-一가-퟿]+"),
        DIGITS,
        BYTES,
    ),
    "deepseek-v3": rule(
        split(r"\p{N}{1,3}"),
        split("[一-龥\u3040-ゟ゠-ヿ]+"),
        split(DEEPSEEK3),
        BYTES,
    ),
    "afmoe": rule(
        split(r"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}"),
        split(r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)"),
        split(r"\A\p{Nd}{3}|\G\p{Nd}{3}"),
        split(
            r"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F"
            r"\u2F00-\u2FDF]+|[\u0E00-\u0E7F]+|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+"
            r"|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+)"
        ),
        split(DEEPSEEK3),
        BYTES,
    ),
}
# Rules of a row in tokenizer.c that their tokenizer.json spells in another way
SPELLINGS = {
    "bailingmoe": rule(
        split(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s+"
        ),
        BYTES,
    ),
    "lfm2": rule(
        split(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        BYTES,
    ),
}


@functools.lru_cache
def aliases():
    """The row of rules[] in tokenizer.c that each name is in, as the first of its names in RULES."""
    rows = {}
    source = (ROOT / "tokenizer.c").read_text(encoding="utf-8")
    table = source[source.index("static const Rule rules[]") :]
    for row in re.findall(r'^    \{ "([^"]*)"', table[: table.index("\n};")], re.MULTILINE):
        known = next((name for name in row.split() if name in RULES), None)
        rows.update(dict.fromkeys(row.split(), known))
    return rows


def hugging_face(vocab, merges, name, user_defined=()):
    """The tokenizer of Hugging Face for a byte-level BPE vocabulary."""
    normalizer, pre_tokenizer, ignore_merges = {**RULES, **SPELLINGS}[name]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    if normalizer:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(text, normalized=False) for text in user_defined])
    return made


# ---- Random texts ----

SCRIPTS = [
    (0x41, 0x7A),
    (0xC0, 0x24F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x531, 0x587),
    (0x5D0, 0x5EA),
    (0x610, 0x6D3),
    (0x901, 0x97F),
    (0x981, 0x9FE),
    (0xB82, 0xBFA),
    (0xE01, 0xE5B),
    (0x10A0, 0x10FF),
    (0x1200, 0x137C),
    (0x1780, 0x17F9),
    (0x3041, 0x30FF),
    (0x3400, 0x3450),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFF01, 0xFF9F),
    (0x10400, 0x1044F),
    (0x1D400, 0x1D7FF),
]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "1️⃣", "🧑🏿‍🚀", "™", "✅"]
SPACES = [
    " ",
    " ",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
    "\u200b",
    "\u1680",
    "\ufeff",
]
CODE = [
    "for (int i = 0; i < n; i++) {\n    x[i] += 1;\n}",
    "def f(x):\n\treturn x**2  # ok",
    '<div class="a">',
    "https://example.com/?q=1&r=%20",
    "a->b::c<d>()",
    "#include <stdio.h>",
    "SELECT * FROM t;",
    "\\n\\t\\\\",
    "snake_case camelCase XMLHttpRequest2",
    '{"k": [1, 2.5e-3, null]}',
    "==> !== ... --- ___",
    "`~^|$+<=>",
]
WORDS = [
    "the",
    "Hello",
    "world",
    "tokenizer",
    "I'm",
    "we'LL",
    "DON'T",
    "it's",
    "they've",
    "o'clock",
    "'ſ",
    "'S",
    "'re",
    "'d",
    "über",
    "naïve",
    "don’t",
    "日本語",
    "中文字",
    "привет",
    "مرحبا",
    "e\u0301\u0327",
]
ASSIGNED = [c for c in range(0x20000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def random_piece(rng):
    """A few characters of one kind."""
    kind = rng.randrange(10)
    if kind == 0:
        low, high = rng.choice(SCRIPTS)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))
    if kind == 1:
        return rng.choice(EMOJI)
    if kind == 2:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 5)))
    if kind == 3:
        return rng.choice(CODE)
    if kind == 4:
        return "".join(rng.choice("0123456789٣৪²½Ⅷ") for _ in range(rng.randint(1, 7)))
    if kind == 5:
        return "".join(chr(rng.choice(ASSIGNED)) for _ in range(rng.randint(1, 4)))
    if kind == 6:
        return "".join(
            rng.choice("!\"#$%&'()*+,-./:;<=>?@[]^_{|}~«»…。、") for _ in range(rng.randint(1, 4))
        )
    if kind == 7:
        return chr(rng.choice([0, 1, 7, 8, 27, 31, 127, 128, 159, 173])) * rng.randint(1, 2)
    return rng.choice(WORDS) + rng.choice(["", " ", " ", "\n"])


def random_text(rng):
    """A text that both sides take: without U+2581, which SentencePiece takes for a space. One in
    four is decomposed, and its marks are in any order."""
    text = "".join(random_piece(rng) for _ in range(rng.randint(1, 12))).replace("\u2581", "")
    if rng.randrange(4) == 0:
        text = unicodedata.normalize("NFD", text)
        at = [i for i, c in enumerate(text) if unicodedata.combining(c)]
        chars = list(text)
        for i in at:
            chars[i] = rng.choice([chars[rng.choice(at)], chr(rng.randint(0x300, 0x36F)), chars[i]])
        text = "".join(chars)
    return text


# Long runs of digits, what may stand behind one, and runs of newlines
EDGES = ["x" + "1" * n + "y " + "٣" * n for n in (3, 7, 509, 510, 511, 1021, 1531)]
EDGES += ["1234567" + c for c in "x_é\u0301.-½²①ⅧⒶ🅐🆊〇〆‿٣\n\r "]
EDGES += ["a \n" + "\n" * n + " b\n\n" for n in (0, 1, 2, 5, 15, 29, 30, 31, 32, 33, 61, 62, 100)]


def random_texts(n, seed):
    rng = random.Random(seed)
    return [random_text(rng) for _ in range(n)] + EDGES


# ---- Our side, through ctypes ----

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
SPELLING = {i: chr(i) for i in PRINTABLE}  # what byte-level BPE writes for a byte
SPELLING.update((b, chr(256 + i)) for i, b in enumerate(sorted({*range(256)} - {*PRINTABLE})))


class Text(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class Vocab(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("n_tokens", ctypes.c_int),
        ("tokens", ctypes.POINTER(Text)),
        ("scores", ctypes.POINTER(ctypes.c_float)),
        ("types", ctypes.POINTER(ctypes.c_int32)),
        ("n_merges", ctypes.c_int),
        ("merges", ctypes.POINTER(Text)),
        ("pre", ctypes.c_char_p),
        ("bos", ctypes.c_int),
        ("unknown", ctypes.c_int),
        ("add_space_prefix", ctypes.c_int),
    ]


def build_library(folder):
    """Builds tokenizer.c as a shared library and loads it."""
    path = str(Path(folder) / "tokenizer.so")
    subprocess.check_call(["cc", "-O2", "-shared", "-fPIC", str(ROOT / "tokenizer.c"), "-o", path])
    library = ctypes.CDLL(path)
    library.tokenizer_new.restype = ctypes.c_void_p
    library.tokenizer_decode.restype = ctypes.c_size_t
    library.tokenizer_warning.restype = ctypes.c_char_p
    return library


def texts(strings):
    """An array of Text."""
    return (Text * max(1, len(strings)))(*[Text(s, len(s)) for s in strings])


class Ours:
    """A tokenizer of tokenizer.c; the vocabulary is given as bytes."""

    def __init__(
        self, library, kind, tokens, types=None, merges=(), pre=None, scores=None, prefix=0
    ):
        self.library, self.normalizes = library, bool(pre and RULES[aliases()[pre.decode()]][0])
        spelt = {token for token in tokens if len(token.decode("utf-8", "replace")) == 1}
        self.missing = bytes(  # a few vocabularies of BPE lack some bytes, which are left out
            i for i, c in SPELLING.items() if kind == BPE and c.encode() not in spelt
        )
        error = ctypes.create_string_buffer(256)
        n = len(tokens)
        self.vocab = Vocab(
            kind,
            n,
            texts(tokens),
            scores and (ctypes.c_float * n)(*scores),
            types and (ctypes.c_int32 * n)(*types),
            len(merges),
            texts(merges),
            pre,
            -1,
            -1,
            prefix,
        )
        self.handle = ctypes.c_void_p(library.tokenizer_new(ctypes.byref(self.vocab), error, 256))
        if not self.handle:
            sys.exit("tokenizer_new: " + error.value.decode())
        if library.tokenizer_warning(self.handle):
            sys.exit("tokenizer_warning: " + library.tokenizer_warning(self.handle).decode())

    def encode(self, text, flags=BEGIN | DEFINED):
        room = 3 * len(text) + 3
        tokens, error = (ctypes.c_int * room)(), ctypes.create_string_buffer(256)
        n = self.library.tokenizer_encode(
            self.handle,
            text,
            ctypes.c_size_t(len(text)),
            flags,
            tokens,
            room,
            error,
            ctypes.c_size_t(256),
        )
        if n < 0:
            sys.exit("tokenizer_encode: " + error.value.decode())
        return tokens[:n]

    def decode(self, tokens, flags=BEGIN):
        array = (ctypes.c_int * max(1, len(tokens)))(*tokens)
        n = self.library.tokenizer_decode(
            self.handle, array, len(tokens), flags, None, ctypes.c_size_t(0)
        )
        text = ctypes.create_string_buffer(n + 1)
        self.library.tokenizer_decode(
            self.handle, array, len(tokens), flags, text, ctypes.c_size_t(n + 1)
        )
        return text.raw[:n]


# ---- The comparisons ----


def compare(name, ours, theirs, texts, flags=BEGIN | DEFINED, comes_back=True):
    """Compares both sides on texts; returns how many are the same and how many not. Where special
    tokens take white space away, the text doesn't come back."""
    passed = failed = 0
    for text, encoding in zip(texts, theirs.encode_batch(texts, add_special_tokens=False)):
        expected, got = encoding.ids, ours.encode(text.encode(), flags)
        normal = theirs.normalizer.normalize_str(text) if ours.normalizes else text
        back = normal.encode().translate(None, ours.missing)
        decoded = ours.decode(got, flags & (BEGIN | SPECIAL))
        if got == expected and (decoded == back or not comes_back):
            passed += 1
            continue
        failed += 1
        if failed <= 3:
            print(
                "  %r\n    expected %s\n    got      %s\n    decoded  %r"
                % (text, expected, got, decoded)
            )
    print("%s: %d texts, %d differ" % (name, len(texts), failed))
    return passed, failed


def train(pre):
    """A small vocabulary for a rule: tokens in the order of their ids, and merges."""
    made = hugging_face({}, [], pre)
    rng = random.Random(1)
    trainer = trainers.BpeTrainer(
        vocab_size=3000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator((random_text(rng) for _ in range(4000)), trainer)
    with tempfile.TemporaryDirectory() as folder:
        _, path = made.model.save(folder)
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    vocab = made.get_vocab()
    return sorted(vocab, key=vocab.get), merges


def compare_trained(library, pre, texts):
    tokens, merges = train(pre)
    theirs = hugging_face({token: i for i, token in enumerate(tokens)}, merges, pre)
    ours = Ours(
        library,
        BPE,
        [t.encode() for t in tokens],
        merges=[" ".join(m).encode() for m in merges],
        pre=pre.encode(),
    )
    return compare("trained " + pre, ours, theirs, texts)


def check_names():
    """export.py finds the name of each rule, or of another with the same row in tokenizer.c."""
    sys.path.insert(0, str(ROOT))
    import export

    rows, passed, failed = aliases(), 0, 0
    for name, (normalizer, pre_tokenizer, ignore_merges) in RULES.items():
        made = hugging_face({"a": 0}, [], name)
        found = export.name_pre_tokenizer("tokenizer.json", json.loads(made.to_str()))
        if rows[name] == rows.get(found) == name:
            passed += 1
        else:
            failed += 1
            print("export.py calls the rule %s %s" % (name, found))
    print("names: %d rules, %d differ" % (len(RULES), failed))
    return passed, failed


def all_merges(tokens, scores, types):
    """The merges of a SentencePiece vocabulary, made as transformers converts one."""
    vocab = {t: i for i, t in enumerate(tokens)}
    pieces = {t for t, kind in zip(tokens, types) if kind in (NORMAL, USER_DEFINED)}
    merges = []
    for piece in pieces:
        found = [
            (piece[:i], piece[i:])
            for i in range(1, len(piece))
            if piece[:i] in pieces and piece[i:] in pieces
        ]
        found.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(-scores[vocab[piece]], pair) for pair in found]
    return [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]


def sentencepiece(tokens, scores, types, prefix=True, swallowing=(), marks=False, merges=None):
    """Hugging Face's side of a vocabulary of characters."""
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = merges or all_merges(tokens, scores, types)
    made = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    )
    spaces = normalizers.Replace(" ", "\u2581")
    if prefix:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces])
    else:
        made.normalizer = spaces
        made.pre_tokenizer = split(" ", "merged_with_previous")
    special = [CONTROL, USER_DEFINED] if marks else [USER_DEFINED]
    made.add_tokens(
        [
            AddedToken(t, normalized=False, rstrip=t in swallowing)
            for t, k in zip(tokens, types)
            if k in special
        ]
    )
    return made


def compare_sentencepiece(library, name, tokens, scores, types, texts):
    """The vocabulary as it is, like Gemma's and, if it has the tokens, like Phi-3's."""

    def compared(label, tokens, types, texts, prefix=True, swallowing=(), flags=BEGIN | DEFINED):
        stored = [t.encode("utf-8", "surrogateescape") for t in tokens]
        ours = Ours(library, SPM, stored, types, scores=scores, prefix=int(prefix))
        theirs = sentencepiece(tokens, scores, types, prefix, swallowing, bool(swallowing))
        return compare(name + label, ours, theirs, texts, flags, not swallowing)

    def by_merges(label, tokens, scores, types):
        merges = all_merges(tokens, scores, types)
        stored = [t.encode("utf-8", "surrogateescape") for t in tokens]
        spelt = [" ".join(m).encode() for m in merges]
        ours = Ours(library, CHARACTER_BPE, stored, types, spelt)
        theirs = sentencepiece(tokens, scores, types, prefix=False, merges=merges)
        return compare(name + label, ours, theirs, texts)

    lines = ["\n" * n for n in range(1, 32)]
    runs = {"\u2581" * n: " " * n for n in range(2, 17)}
    gemma = [USER_DEFINED if t in runs else kind for t, kind in zip(tokens, types)]
    results = [
        compared("", tokens, types, texts),
        compared(" like gemma", [runs.get(t, t) for t in tokens], gemma, texts, prefix=False),
        by_merges(" by merges", tokens, scores, types),
        by_merges(
            " like gemma 4",
            tokens + lines,
            scores + [float(100 - len(t)) for t in lines],
            types + [NORMAL] * len(lines),
        ),
    ]
    if "<|placeholder1|>" in tokens:
        marks = [t for t, kind in zip(tokens, types) if kind == CONTROL]
        swallowing = [t for t in marks if t not in ("<unk>", "<s>", "</s>", "<|endoftext|>")]
        rng = random.Random(1)
        chat = [rng.choice(marks) + t + rng.choice(marks) + rng.choice(SPACES) for t in texts]
        chat = [a + b for a, b in zip(chat, chat[1:] + chat[:1])]
        results.append(
            compared(" like phi-3", tokens, types, chat, swallowing=swallowing, flags=BEGIN | SPECIAL)
        )
    return results


def train_characters(joined):
    """A small vocabulary like Gemma 4's, and its merges: no piece goes on behind a newline, and
    behind a word if joined only."""
    steps = [split("\n+")] if joined else [split("\n+"), split("\u2581+[^\u2581]*|[^\u2581]+")]
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    rng = random.Random(1)
    special = ["<unk>"] + ["<0x%02X>" % i for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=4000, show_progress=False, limit_alphabet=1000, special_tokens=special
    )
    made.train_from_iterator((random_text(rng) for _ in range(4000)), trainer)
    model = json.loads(made.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [t for t in ("\n" * n for n in range(1, 32)) if t not in tokens]
    newlines = [("\n" * (n - i), "\n" * i) for n in range(2, 32) for i in range(1, n)]
    merges = newlines + [m for m in map(tuple, model["merges"]) if m not in newlines]
    return tokens, [UNKNOWN] + [BYTE] * 256 + [NORMAL] * (len(tokens) - 257), merges


def compare_characters(library, joined, texts):
    tokens, types, merges = train_characters(joined)
    spelt = [" ".join(m).encode() for m in merges]
    ours = Ours(library, CHARACTER_BPE, [t.encode() for t in tokens], types, spelt)
    theirs = sentencepiece(tokens, None, types, prefix=False, merges=merges)
    return compare("trained characters" + ", joined" * joined, ours, theirs, texts)


MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "<think>", "</think>", "<h1>"]
MARKS = ["<|turn>", "<channel|>"] + MARKS


def compare_marks(library, kind, texts):
    """A small vocabulary of characters, that of SentencePiece with a space prefix, on texts that
    mix marks and words. The marks have all types that files give them, and the byte tokens have
    none."""
    words = ["user", "assistant", "hello", "the", "  ", "\n\n", "INST", "im", "think"]
    pieces = dict.fromkeys("\u2581\n<>|[]/_.,:!?etaoinshrdlucmfwypvbgkINST")
    for word in words:
        for spelling in (word.replace(" ", "\u2581"), "\u2581" + word.replace(" ", "\u2581")):
            starts = [spelling[:n] for n in range(1, len(spelling) + 1)]
            pieces.update(dict.fromkeys(t for t in starts if kind == SPM or "\u2581\n" not in t))
    tokens = ["<unk>"] + ["<0x%02X>" % i for i in range(256)] + list(pieces) + MARKS
    types = [UNKNOWN] + [NORMAL] * (256 + len(pieces)) + [CONTROL] * 2
    types += [USER_DEFINED, NORMAL] * 4
    types = types[: len(tokens) - 1] + [USER_DEFINED]
    scores = [-float(i) for i in range(len(tokens))]
    theirs_types = [CONTROL if t in MARKS else BYTE if 0 < i < 257 else k
                    for i, (t, k) in enumerate(zip(tokens, types))]
    merges = [" ".join(m).encode() for m in all_merges(tokens, scores, theirs_types)]
    spm = kind == SPM
    ours = Ours(
        library, kind, [t.encode() for t in tokens], types, merges, scores=scores, prefix=int(spm)
    )
    theirs = sentencepiece(tokens, scores, theirs_types, prefix=spm, marks=True)
    rng = random.Random(2)
    mixed = [
        "".join(rng.choice([rng.choice(MARKS), rng.choice(words), " ", "\n", text[:9]])
                for _ in range(rng.randint(1, 12)))
        for text in texts
    ]
    return compare("marks and words, kind %d" % kind, ours, theirs, mixed, flags=BEGIN | SPECIAL)


def compare_real(library, path, texts):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields

    def strings(key):
        field = fields.get("tokenizer.ggml." + key)
        return [bytes(field.parts[i]) for i in field.data] if field else []

    tokens, merges = strings("tokens"), strings("merges")
    texts_of = [t.decode("utf-8", "surrogateescape") for t in tokens]
    types = [int(x) for x in fields["tokenizer.ggml.token_type"].contents()]
    name = path.name.replace("ggml-vocab-", "").replace(".gguf", "")
    if fields["tokenizer.ggml.model"].contents() == "llama":
        scores = [float(x) for x in fields["tokenizer.ggml.scores"].contents()]
        return compare_sentencepiece(library, name, texts_of, scores, types, texts)
    pre = fields["tokenizer.ggml.pre"].contents()
    if pre not in aliases():
        print("%s: skipped, rule %s is not here" % (name, pre))
        return []
    theirs = hugging_face(
        {t: i for i, t in enumerate(texts_of)},
        [tuple(m.decode().split(" ")) for m in merges],
        aliases()[pre],
        [t for t, kind in zip(texts_of, types) if kind == USER_DEFINED],
    )
    ours = Ours(library, BPE, tokens, types, merges, pre.encode())
    return [compare(name, ours, theirs, texts)]


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    unicode = subprocess.run([sys.executable, str(ROOT / "tests" / "unicode.py"), "--check"])
    passed, failed = (0, 1) if unicode.returncode else (1, 0)
    texts = random_texts(n, seed)
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(folder)
        results = [check_names()]
        results += [compare_marks(library, kind, texts) for kind in (SPM, CHARACTER_BPE)]
        results += [compare_characters(library, joined, texts) for joined in (False, True)]
        results += [compare_trained(library, pre, texts) for pre in [*RULES, *SPELLINGS]]
        paths = sorted(VOCABULARIES.glob("*.gguf"))
        if not paths:
            print("real vocabularies: skipped, ../shared/data/vocab is absent")
        for path in paths:
            results += compare_real(library, path, texts)
    for good, bad in results:
        passed, failed = passed + good, failed + bad
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
