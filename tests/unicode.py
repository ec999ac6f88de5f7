#!/usr/bin/env python3
"""Makes the table of Unicode general categories in tokenizer.c.

    python3 tests/unicode.py            prints the table
    python3 tests/unicode.py --write    puts it into tokenizer.c
    python3 tests/unicode.py --check    compares it with tokenizer.c, exit code 1 if they differ

The table is a list of runs of code points from U+0000 on. A run is a letter for its category, A for
the first of CATEGORIES, and its length in base 30, where a length of 1 is left out. Upper and lower
case so often take turns that "," with a number n stands for n pairs of one Lu and one Ll.

No published word-splitting rule asks for the finer categories of M, N (beside Nd), P, S, Z and C, so
these are one each.

The categories must be those of the Unicode version that Hugging Face tokenizers use, 16.0: Python
3.14 has it, older ones get it from the PyPI package unicodedata2 (version 16.0.0). With another
version --check compares only what both versions know, and nothing can be written.
"""

import re
import sys
from pathlib import Path

import unicodedata

try:
    import unicodedata2

    if unicodedata.unidata_version != "16.0.0":
        unicodedata = unicodedata2
except ImportError:
    pass

VERSION = "16.0.0"
CATEGORIES = ["Lu", "Ll", "Lt", "Lm", "Lo", "M", "Nd", "N", "P", "S", "Z", "C"]
LETTERS = "ABCDEFGHIJKL"
DIGITS = "0123456789ghijklmnopqrstuvwxyz"
LINE = 93
SOURCE = Path(__file__).resolve().parent.parent / "tokenizer.c"
BLOCK = re.compile(
    r'(static const char \*const unicode_runs =\n)((?: *"[^"\n]*"\n)*(?: *"[^"\n]*";\n))'
)


def category(code):
    """The category of a code point, as coarse as CATEGORIES."""
    name = unicodedata.category(chr(code))
    return name if name in CATEGORIES else name[0]


def number(n):
    """n in base 30, nothing for 1."""
    if n == 1:
        return ""
    text = ""
    while n:
        n, digit = divmod(n, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def runs():
    """The packed table as one string."""
    found = []
    for name in map(category, range(0x110000)):
        if found and found[-1][0] == name:
            found[-1][1] += 1
        else:
            found.append([name, 1])
    text, i = [], 0
    while i < len(found):
        pairs = 0
        while found[i + 2 * pairs : i + 2 * pairs + 2] == [["Lu", 1], ["Ll", 1]]:
            pairs += 1
        if pairs > 1:
            text.append("," + number(pairs))
            i += 2 * pairs
        else:
            name, length = found[i]
            text.append(LETTERS[CATEGORIES.index(name)] + number(length))
            i += 1
    return "".join(text)


def unpack(text):
    """The category of each code point of a packed table."""
    categories = []
    for letter, digits in re.findall(r"([A-L,])([0-9g-z]*)", text):
        length = 0
        for digit in digits or "1":
            length = length * len(DIGITS) + DIGITS.index(digit)
        pair = ["Lu", "Ll"] if letter == "," else [CATEGORIES[LETTERS.index(letter)]]
        categories += pair * length
    return categories


def block(text):
    """The table as lines of C."""
    lines = [text[i : i + LINE] for i in range(0, len(text), LINE)]
    return "\n".join('    "%s"' % line for line in lines) + ";\n"


def check(stored):
    """Compares the table of tokenizer.c with this Python's; returns the exit code."""
    if unicodedata.unidata_version == VERSION:
        same = stored == runs()
        print("unicode table: %s" % ("ok" if same else "differs, run tests/unicode.py --write"))
        return 0 if same else 1
    categories = unpack(stored)
    if len(categories) != 0x110000:
        print("unicode table: %d code points" % len(categories))
        return 1
    # Between versions a few characters change category; many differences mean a broken table.
    known = [c for c in range(0x110000) if "C" not in (categories[c], category(c))]
    different = sum(categories[c] != category(c) for c in known)
    print(
        "unicode table: %s is here, %s in tokenizer.c; %d of %d code points differ"
        % (unicodedata.unidata_version, VERSION, different, len(known))
    )
    return 0 if different < 64 else 1


def main():
    source = SOURCE.read_text(encoding="utf-8")
    found = BLOCK.search(source)
    if not found:
        sys.exit("no table in %s" % SOURCE)
    if sys.argv[1:] == ["--check"]:
        sys.exit(check("".join(re.findall(r'"([^"]*)"', found.group(2)))))
    if unicodedata.unidata_version != VERSION:
        sys.exit(
            "Unicode %s is needed, this Python has %s: pip install unicodedata2==%s"
            % (VERSION, unicodedata.unidata_version, VERSION)
        )
    if sys.argv[1:] == ["--write"]:
        source = source[: found.start(2)] + block(runs()) + source[found.end(2) :]
        SOURCE.write_text(source, encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        print("static const char *const unicode_runs =\n" + block(runs()), end="")


if __name__ == "__main__":
    main()
