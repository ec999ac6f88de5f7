#!/usr/bin/env python3
"""Makes the tables of Unicode in tokenizer.c: general categories, canonical forms (NFC), and the columns
of a terminal that characters take.

    python3 tests/unicode.py            prints the tables
    python3 tests/unicode.py --write    puts them into tokenizer.c
    python3 tests/unicode.py --check    compares them with tokenizer.c, exit code 1 if they differ

All are numbers written with 90 characters: the last digit is one of LAST, those before it are of
FIRST, so that no number needs a mark for its end.

unicode_runs is a list of runs of code points from U+0000 on, each a number: its length less one,
times 13, plus the place of its category in CATEGORIES. Upper and lower case so often take turns that
12 stands for pairs of one Lu and one Ll, as many as the length says. No published word-splitting rule
asks for the finer categories of M, N (beside Nd), P, S, Z and C, so these are one each.

canonical_forms begins with groups of characters that decompose into a first and the same second one
(0: there is none): twice their number, plus 1 if the two compose again; the second character; then for
each the first one, as its difference from the one before, and the character itself. This and the
second are written as differences too, a negative one -n as 2n - 1, another as 2n. After a 0 the
combining classes follow: their number, then for each class its difference from the class before, the
number of its runs of code points, and for each run the gap in front of it and its length less one.
Hangul syllables are left out, as they can be computed.

column_runs is a list of runs of code points like unicode_runs: the length less one, times 3, plus the
columns. They are those of the PyPI package wcwidth (version COLUMNS or one with the same Unicode), with 0
for control characters. Without it this table is neither checked nor written.

The categories must be those of the Unicode version that the patterns of Hugging Face tokenizers use,
16.0: Python 3.14 has it, older ones get it from the PyPI package unicodedata2 (version 16.0.0). Their
normalizer is still at 9.0, so what is younger, LATER, is left out; what a character has of these never
changes. With another version --check allows for what that version doesn't know, and nothing can be
written.
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

try:
    import wcwidth
except ImportError:
    wcwidth = None

VERSION = "16.0.0"
COLUMNS = "18.0.0"  # the Unicode of the package wcwidth 0.9.4
CATEGORIES = ["Lu", "Ll", "Lt", "Lm", "Lo", "M", "Nd", "N", "P", "S", "Z", "C"]
FIRST = "".join(map(chr, range(ord("#"), ord("?"))))
LAST = "".join(map(chr, range(ord("@"), 127))).replace("\\", "")
LATER = (
    "7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA ECE 1715 1ABF-1ACE 1DF6-1DFA A82C 105C0-105FF 10D24-10D6D "
    "10EAB-10EFF 10F46-10F85 11070 1133B 11380-113E2 1145E 11839-11943 119E0 11A34 11A47 11A99 "
    "11D42-11D97 11F41-11F42 16100-1612F 16D40-16D7F 16FF0-16FF1 1E130-1E136 1E2AE-1E2EF 1E4EC-1E4EF "
    "1E5EE-1E5EF"
)
LINE = 93
SOURCE = Path(__file__).resolve().parent.parent / "tokenizer.c"
BLOCK = r'(static const char \*const %s =\n)((?: *"[^"\n]*"\n)*(?: *"[^"\n]*";\n))'


def number(n):
    """n with the digits FIRST and LAST."""
    n, digit = divmod(n, len(LAST))
    text = LAST[digit]
    while n:
        n, digit = divmod(n, len(FIRST))
        text = FIRST[digit] + text
    return text


def numbers(text):
    """Yields the numbers of a packed table."""
    n = 0
    for char in text:
        if char in LAST:
            yield n * len(LAST) + LAST.index(char)
            n = 0
        else:
            n = n * len(FIRST) + FIRST.index(char)


# ---- categories ----


def category(code):
    """The category of a code point, as coarse as CATEGORIES."""
    name = unicodedata.category(chr(code))
    return name if name in CATEGORIES else name[0]


def pack_categories():
    """The packed table as one string."""
    found = []
    for name in map(category, range(0x110000)):
        if found and found[-1][0] == name:
            found[-1][1] += 1
        else:
            found.append([name, 1])
    packed, i = [], 0
    while i < len(found):
        pairs = 0
        while found[i + 2 * pairs : i + 2 * pairs + 2] == [["Lu", 1], ["Ll", 1]]:
            pairs += 1
        kind, length = len(CATEGORIES), pairs
        if pairs < 2:
            kind, length = CATEGORIES.index(found[i][0]), found[i][1]
        packed.append((length - 1) * 13 + kind)
        i += 2 * pairs if pairs > 1 else 1
    return "".join(map(number, packed))


def unpack_categories(text):
    """The code points with their categories of a packed table."""
    categories = []
    for n in numbers(text):
        length, kind = divmod(n, 13)
        categories += (CATEGORIES[kind : kind + 1] or ["Lu", "Ll"]) * (length + 1)
    return set(enumerate(categories))


# ---- canonical forms ----


def signed(difference):
    return 2 * difference if difference >= 0 else -2 * difference - 1


def pack_canonical():
    """The packed table as one string."""
    later = set()
    for part in LATER.split():
        low, _, high = part.partition("-")
        later |= set(range(int(low, 16), int(high or low, 16) + 1))
    groups, classes = {}, {}
    for code in sorted(set(range(0x110000)) - later):
        char = chr(code)
        parts = [int(part, 16) for part in unicodedata.decomposition(char).split() if "<" not in part]
        if parts and "<" not in unicodedata.decomposition(char):
            composes = len(parts) > 1 and unicodedata.normalize("NFC", char) == char
            second = parts[1] if len(parts) > 1 else 0
            block = 0 if second else code >> 8  # where order goes along with that of the first one
            groups.setdefault((not composes, second, block), []).append((parts[0], code))
        if unicodedata.combining(char):
            classes.setdefault(unicodedata.combining(char), []).append(code)
    packed, last_second, last_code, last = [], 0, 0, 0
    for (alone, second, _), members in sorted(groups.items()):
        packed += [2 * len(members) + (not alone), signed(second - last_second)]
        last_second, last_first = second, 0
        for first, code in sorted(members):
            packed += [first - last_first, signed(code - last_code)]
            last_first, last_code = first, code
    packed += [0, len(classes)]
    for value, codes in sorted(classes.items()):
        starts = [code for code in codes if code - 1 not in codes]
        packed += [value - last, len(starts)]
        last, end = value, 0
        for code in starts:
            length = next(n for n in range(1, 999) if code + n not in codes)
            packed += [code - end, length - 1]
            end = code + length
    return "".join(map(number, packed))


def unpack_canonical(text):
    """The entries of a packed table: decompositions, and characters with their class."""
    values, entries = numbers(text), set()

    def difference():
        n = next(values)
        return -(n + 1) // 2 if n & 1 else n // 2

    second = code = value = 0
    for size in iter(lambda: next(values), 0):
        second, first = second + difference(), 0
        for _ in range(size // 2):
            first, code = first + next(values), code + difference()
            entries.add((code, first, second, size & 1))
    for _ in range(next(values)):
        value, end = value + next(values), 0
        for _ in range(next(values)):
            start = end + next(values)
            end = start + next(values) + 1
            entries |= {(code, value) for code in range(start, end)}
    return entries


# ---- columns ----


def pack_columns():
    """The packed table as one string."""
    found = []
    for columns in (max(0, wcwidth.wcwidth(chr(code))) for code in range(0x110000)):
        if found and found[-1][0] == columns:
            found[-1][1] += 1
        else:
            found.append([columns, 1])
    return "".join(number((length - 1) * 3 + columns) for columns, length in found)


def unpack_columns(text):
    """The columns of each code point of a packed table."""
    columns = []
    for n in numbers(text):
        columns += [n % 3] * (n // 3 + 1)
    return columns


def check_columns(stored):
    """Compares the table of tokenizer.c with wcwidth's; returns whether they agree."""
    if not wcwidth:
        print("column_runs: skipped, the package wcwidth is absent")
        return True
    if wcwidth.list_versions()[-1] == COLUMNS:
        same = stored == pack_columns()
        print("column_runs: %s" % ("ok" if same else "differs, run tests/unicode.py --write"))
        return same
    pairs = zip(unpack_columns(stored), unpack_columns(pack_columns()))
    different = sum(a != b for a, b in pairs)
    print("column_runs: wcwidth has another Unicode than %s; %d differ" % (COLUMNS, different))
    return different < 2048  # an old version lacks the marks of several hundred new characters


# ---- tables ----

TABLES = {
    "unicode_runs": (pack_categories, unpack_categories),
    "canonical_forms": (pack_canonical, unpack_canonical),
    "column_runs": (pack_columns, unpack_columns),
}


def block(text):
    """The table as lines of C."""
    lines = [text[i : i + LINE] for i in range(0, len(text), LINE)]
    return "\n".join('    "%s"' % line for line in lines) + ";\n"


def check(name, stored):
    """Compares a table of tokenizer.c with this Python's; returns whether they agree."""
    if name == "column_runs":
        return check_columns(stored)
    pack, unpack = TABLES[name]
    if unicodedata.unidata_version == VERSION:
        same = stored == pack()
        print("%s: %s" % (name, "ok" if same else "differs, run tests/unicode.py --write"))
        return same
    # Between versions a few characters change category; many differences mean a broken table. What
    # one of the versions doesn't know yet is C.
    found, expected = unpack(stored), unpack(pack())
    unknown = {entry[0] for entry in found ^ expected if entry[1] == "C"}
    different = {entry[0] for entry in found ^ expected} - unknown
    print(
        "%s: %s is here, %s in tokenizer.c; %d of %d entries differ"
        % (name, unicodedata.unidata_version, VERSION, len(different), len(found))
    )
    return len(different) < 64


def writable_tables():
    """The tables that can be made with the packages at hand."""
    names = ["unicode_runs", "canonical_forms"] if unicodedata.unidata_version == VERSION else []
    return names + ["column_runs"] * bool(wcwidth and wcwidth.list_versions()[-1] == COLUMNS)


def main():
    source = SOURCE.read_text(encoding="utf-8")
    found = {name: re.search(BLOCK % name, source) for name in TABLES}
    if not all(found.values()):
        sys.exit("no tables in %s" % SOURCE)
    if sys.argv[1:] == ["--check"]:
        stored = {name: "".join(re.findall('"(.*)"', found[name].group(2))) for name in TABLES}
        sys.exit(0 if all([check(name, stored[name]) for name in TABLES]) else 1)
    writable = writable_tables()
    if not writable:
        sys.exit(
            "Unicode %s is needed, this Python has %s: pip install unicodedata2==%s"
            % (VERSION, unicodedata.unidata_version, VERSION)
        )
    for name in writable:
        pack = TABLES[name][0]
        if sys.argv[1:] == ["--write"]:
            match = re.search(BLOCK % name, source)
            source = source[: match.start(2)] + block(pack()) + source[match.end(2) :]
        elif sys.argv[1:]:
            sys.exit(__doc__)
        else:
            print("static const char *const %s =\n%s" % (name, block(pack())), end="")
    if sys.argv[1:]:
        SOURCE.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main()
