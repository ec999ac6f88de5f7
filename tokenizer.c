/* tokenizer.c: text to tokens and back.
 *
 * A language model reads numbers. Its vocabulary is a list of pieces of text, the place of a
 * piece in the list is its token, and a tokenizer cuts text into pieces. Both kinds of vocabulary
 * known here do it in the same way: begin with the smallest pieces and keep joining the two
 * neighbours that make the best one, until no two neighbours make any. They differ in this:
 *
 *                     SentencePiece (SPM)         byte-level BPE
 *   begins with       characters                  bytes
 *   the best piece    has the highest score       comes first in the list of merges
 *   text is split     nowhere                     into words beforehand, by regular expressions
 *
 * Sections: Unicode, patterns (a small matcher of regular expressions), rules (which patterns split
 * text for which models), vocabulary, merging, encode, decode, making a tokenizer.
 */
#include "tokenizer.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_TEXT = 1 << 30, /* bytes that encode takes */
    MAX_SPECIAL = 256,  /* bytes; longer special tokens are not looked for in text */
    MAX_PATTERNS = 8,   /* of a rule */
    MAX_STEPS = 512,    /* of a pattern */
    MAX_MEMBERS = 320   /* of all sets of a pattern */
};

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, which SentencePiece writes for a space */

/* ==== Unicode ====================================================================================
 * Word-splitting rules speak of letters, digits and marks, the general categories of Unicode. The
 * table holds them as runs of code points from 0 on; tests/unicode.py makes and describes it. A
 * letter is a category, the digits behind it are the length of the run in base 30, none for 1; a
 * comma and n are n pairs of an upper and a lower case letter. It is unpacked to a byte for each
 * code point.
 */

enum {
    CODE_POINTS = 0x110000,
    INVALID = CODE_POINTS,       /* + byte: a byte that is no part of a valid character */
    TEXT_END = CODE_POINTS + 256 /* what comes behind the last character */
};

/* Name i is bit i of a mask of categories. Every character also is in one of the last two. */
static const char category_names[] = "LuLlLtLmLoM NdN P S Z C ";
#define DIGIT (1u << 6)
#define SEPARATOR (1u << 10)
#define WHITE (1u << 30)
#define NOT_WHITE (1u << 31)

/* Unicode 16.0, which the tokenizers of Hugging Face go by */
static const char *const unicode_runs =
    "L12KI3JI6JI4GgI2J3I2AwI3JIJBwIJIJL13KIJ5IJ2EIJLJ4H2JBI2JHEIH3IAtJA7BuJB8,xAB2,7AB2,tA2BABAB3A"
    "2BABA2BA3B2A4BA2BA3B3A2BA2B,2A2BAB2ABA2BA3BABA2B2EAB3E4ACBACBACB,7AB2,8AB2ACBABA3B,yAB7A2BA2B"
    "2ABA4B,3AB29EBxDoJ4DiJkD5J7DJDJnF3s,2DJABL2DB3IAL4J2AIA3LALA2BAnLA9B15AB2A3B3,hAB5ABJABA2B2A1"
    "rB1o,nJF7,xA2B,5AB2,1oLA18L2DI6B1hI2L2J3LF1lIFIF2IF2IFL8ExL4E4I2LnJ3I2JI2J2FhILI3E12DEgFrGgI4"
    "E2FE39IEF7LJF6D2F2JF4E2GgE3J2EIkL2EFE10FxL2E2zFhELkGgE13F9D2JI3DL2FJ2EsF4DF9DF3DF5L2IlLEvF3L2"
    "ILEhL5EuJE6L8F9E1hDFuLF13E1uF3EFoEF7EgF2I2GgIDElF3LE8L2E2L2EsLE7LEL3E4L2FEF7L2F2L2F3EL8FL4E2L"
    "E3F2L2GgE2J2H6J2EIFL2F3LE6L4E2L2EsLE7LE2LE2LE2L2FLF5L4F2L2F3L3FL7E4LEL7GgF2E3FILgF3LE9LE3LEsL"
    "E7LE2LE5L2FEF8LF3LF3L2ELlE2F2L2GgIJL7EF6LF3LE8L2E2L2EsLE7LE2LE5L2FEF7L2F2L2F3L7F3L4E2LE3F2L2G"
    "gJEH6LgFELE6L3E3LE4L3E2LELE2L3E2L3E3L3EiL4F5L3F3LF4L2EL6FLkGgH3J8L5F5E8LE3LEtLEmL2FEF7LF3LF4L"
    "7F2LE3L2EL2E2F2L2GgL7IH7JEF3IE8LE3LEtLEgLE5L2FEF7LF3LF4L7F2L6E2LE2F2L2GgLE2FLiF4E9LE3LE1hF2EF"
    "7LF3LF4EJL4E3FH7E3F2L2GgH9JE6LF3LEoL3EuLE9LEL2E7L3FL4F6LFLF8L6GgL2F2ILiE1oFE2F7L4JE6DF8IGgI2L"
    "17E2LELE5LEuLELEgFE2F9EL2E5LDLF7LGgL2E4L12EJ3IlJIJ3F2J6GgHgJFJFJFI4F2E8LE16L4FqIF2E5FhLF16LJ8"
    "FJ6LJ2I5J4I2L17E1jFqEGgI6E6F4E4F3EF3E2F7E3F4EjFiEFGgF4J2A18LAL5AL2B1jIDB3EgzLE4L2E7LELE4L2E1h"
    "LE4L2E13LE4L2E7LELE4L2ElLE1xLE4L2E27L2F3I9HqL3EmJgL6A2wL2B6L2IEqqJIEnKEwI2L3E2lI3H3E8L7EoF4L9"
    "EpF3I2L9EoF2LiEjLE3LF2LiE1sF12I3DI3JEFL2GgL6HgL6IhF3LFGgL6E15DE1tL7E5F2E14FEL5E2gLgE11LFiL4Fi"
    "L4JL3I2GgE10L2E5LhE1kL4EwL6GgHL3J14EtF5L2I2E1tFgLFzL2FGgL6GgL6I7DI6L2F11L1pF5E1nFnE8LI2GgI7Jg"
    "F9J9I3F3E10FjE2GgE1kFkL8I4E16FqL3I5GgL3E3GgE10D6I2B9ABL5A1jL2A3I8L8F3IFrE4FE6FE2F3EL5B1kD23Bj"
    "DB14D17F24,2kAB9,1oAB9A8B6L2A6L2B8A8B8A8B6L2A6L2B8LALALALAB8A8BkL2B8C8B8C8B8C8B5LB2A4CJBJ3B3L"
    "B2A4CJ3B4L2B2A4LJ3B8A5J3L2B3LB2A4CJ2LKhL5IuK2L5KIqJIjJIiKLmHDL2H6J3I2DHgJ3I2LDjL3J13LlF13LlJ2"
    "AJ4AJ2BA3B2A3BJAJ3A5J6AJAJAJA4JBA4BE4BJ2B2A2J5AB4J4BJH1rABH5J2L4JimI4JzI2J8lLsJhLrH20J2oHsJqm"
    "IkH10J1pI2J11IgJjjIsJ23I4J12I2JikL2J12LJ3lA1oB1oABA3B2,3A4BAB2AB6D2A3B,1oAB2J6,2F3ABL5I4HI2B1"
    "8LBL5BL2E1wL7DILkFEtL9E7LE7LE7LE7LE7LE7LE7LE7LF12I1nDI12J2IiL14JwLJ2zLiJ74LwJmKI3JDEHIgJ2IiJH"
    "9F6ID5J2H3DEIJ2LE2wL2F2J2D2EIE30ID3EL5E1jLE34LJ2H4JgE12J18L9JEmJ11LHgJ10H8JHlJ12HgJ19HlJgqE79"
    "sJ24EtgjDE183L3J1vL9E1gD6I2E8yDI3EmGgE2Lq,tEF4IFgID,kD2F2E2gHgF2I6L8JtD9J2,6AB3,11DB8,2A2B,4D"
    "J2,2EABAB3,gA5BA5B,7A4BABA2BL2ABLBLB,3ALrD3ABED2BE7FE3FE4FEtF5J4FL3H6J4L6E1sI4L8F2E1qFoL8I2Gg"
    "L6FoE6I3EIE2FGgEyF8I2EtFjLhIEzL3F4E1nFkIjLDGgL4I2E5FDE9GgE5LE1hFkL9E3FE8F2L2GgL2I4EmDE6J3EF3E"
    "1qFEF3E2F2E5F2EFELuE2DI2EhF5I2ED2F2LgE6L2E6L2E6L9E7LE7LB1jJD4B9DJ2L4B2qE15F8IF2L2GgL6EiiiLiEt"
    "L4E1pL9hsEi6L2E3mL18B7LiB5L5EFEgJEjLE5LELE2LE2LE3oJnLmEi3I2JmE24L2E1uL7JL12EiJ4FmIgL6FmI15LIk"
    "JIJ3LIJI2L4E5LE4lL4I3JI6JI4GgI2J3I2AwI3JIJBwIJIJI7EgDE1lD2E11L3E6L2E6L2E6L2E3L3J7LJ7LjJ2L2EiL"
    "EwLEpLE2LElL2EkL14E43L5I3L4H1lL3J9H1xJnH2J3LJjL3JL1nJ1lFL4gEzL3E1pLlFHxL4E12H4L9EqHE8HL5E18F5"
    "L5E10LIE16L4E8IH5L1iA1gB1gE2oL2GgL6A16L4B16L4E1gL8E1sLhIAhLAlLA7LA2LBhLBlLB7LB2L3E1sLiEghL9Es"
    "LgE8LuD6LD1iLD9L29E6L2ELE1kLE2L3EL2EtLIH8EtJ2H7E11L8H9L1oEpLE2L5H5EsH6L3IEwL5IL24E1wL4H2E2HmL"
    "2H1mEF3LF2L5F4E4LE3LEzL2F3L4FH9L7I9L7EzH2IEzH3L12E8JEyF2L4H5I7L9E1uL3I7EsL2H8EpL5H8EoL7I4LiH7"
    "L2qE2jL1vA1rLjB1rL7H6E16F4L8GgL6GgE4DEAsL3F5IDBsL8J2L6yH11LE1iLF2IL2E2LmE3L1vF4EzHgEL8EsFhH4I"
    "5LsEoF4I4L18ErH7LqEtL9F3E1tFlI7L4HqGgFE2F2EL9F4E1lFhI2LI4FLjEvL7GgL6F3E16FkLGgI4EF2EL8E15FI2E"
    "L9F3E1oFkE4I4F4IF2GgEIEI3LHqLhEoLEvFiI6FE2FL22E7LELE4LElLEgIL6E1nFiL5GgL6F4LE8L2E2L2EsLE7LE2L"
    "E5LF2EF7L2F2L2F3L2EL6FL5E5F2L2F7L3F5LhEgLEL2ELE18LEF9LFL2FLF4LF5EFEI2LI2L8F2LzE1tFoE4I5GgI2LI"
    "FE3L10E1oFqE2IEL8GgL5mE1nF7L2F9ItE4F2L14E1oFnI3ELhGgL6IjLpE1jFjEIL6GgL6GqLyExL2FlL4GgH2I3JE7L"
    "65E1kFlIL3gA12B12GgH9LiE8L2EL2E8LE2LEuF6LF2L2F4EFEF2I3L9GgL2gE8L2E19F7L2F7EIEFLxEFgE1gF7EF4I8"
    "FL8EFhE1mFmI3EI5LjE2jL7IgL62E13ILkGgL6E9LE17F8LF8EI5LgGgHpL3I2E10L2FsLFkL2jE7LE2LE18F6L3FLF2L"
    "F7EFL8GgL6E6LE2LE12F5LF2LF5EL7GgLggEpF4I2L7F2EFEjLE14F7L3F5IjGgFL2vELlHrJzLjIE10sL3iH3rLI5LhE"
    "6mL2xwE37I2LjE15sLmFE6FlLgE4j5L5EpjL7o1E10FoGgL1xuEozL7E11LGgL4I2E2pLGgL6E10L2F5ILgE1oF7I5J4D"
    "4IJLgGgLH7LErL5EpLkiD3E1gD2I3GgL6oA12B12HtI4L3hE2lL4FEF1vL7F4DjL24D2IDFLhF2LkE6umL8E1h8L1hEgL"
    "9xvD4LD7LD2LE9rLlELzE3L2ELkE4L8Ej6L2myE3nL5EjL3E9L7EgL2JF2IL4h6J80GgL6JkmL2mF1mL2FtL9J3wL20J8"
    "6LgJ19L2J20F5J3F6L8F8J2F7J10F4J21LrJ26F3JL42HqLiHqLiJ2xL9HvL4lAwBwAwB7LBoAwBwALA2L2AL2A2L2A4L"
    "A8B4LBLB7LBhAwBwA2LA4L2A8LA7LBwA2LA4LA5LAL3A7LBwAwBwAwBwAwBwAwBwAwBwAwByL2AvJBvJB6AvJBvJB6AvJ"
    "BvJB6AvJBvJB6AvJBvJB6ABL2G1qJn2F1vJ4F1qJ8FJkFJ2I5LlF5LFlL16uBgEBqL6B6L73F7LFnL2F7LF2LF5L5D22L"
    "13FL3sE1lL3F7D7L2GgL4EJLgqE10FLnE1kF4GgL5JLlkExDF4GgL74E10F2EGgL4ILm0E7LE4LE2LElLE6nL2H9F7L1h"
    "A14B14F7DL4GgL4I2Lw5H1zJH3JH4L2mH1lJHlL6kE4LExLE2LEL2ELEgLE4LELEL6EL4ELELELE3LE2LEL2ELELELELE"
    "LE2LEL2E4LE7LE4LE4LELEgLEnL5E3LE5LEnL1sJ2L90J1kL4J3gLiJlL2JlLJlLJ17LgHjJ5hL1wJzLjJ1kL4J9L7J2L"
    "kJ6L54J12uL4JnL3JjL3J3zL4J35L6JiL4JLlJiL4J1wL8JgL6J1gL8J10L2JiL4J2L22JhgLiJkL2JjL3JgL5J1wL7Jl"
    "L2JhL6J9L7J4xLJ32GgL14gE1nk0L12E4okL6E7iL2E6i2LkE893LlEqsL2s6Eo2L1q6E5kpL5E4psLwh3wF80L77x2";

typedef struct {
    uint32_t code; /* a code point, INVALID + byte, or TEXT_END */
    uint32_t mask; /* its category, and WHITE or NOT_WHITE */
} Char;

/* The well-formed byte sequences are those of table 3-7 of the Unicode standard. */
int tokenizer_char(const char *text, size_t len)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte; of the second */
        int length;
    } forms[] = {
        { 0x00, 0x7F, 0x00, 0x00, 1 }, { 0xC2, 0xDF, 0x80, 0xBF, 2 }, { 0xE0, 0xE0, 0xA0, 0xBF, 3 },
        { 0xE1, 0xEC, 0x80, 0xBF, 3 }, { 0xED, 0xED, 0x80, 0x9F, 3 }, { 0xEE, 0xEF, 0x80, 0xBF, 3 },
        { 0xF0, 0xF0, 0x90, 0xBF, 4 }, { 0xF1, 0xF3, 0x80, 0xBF, 4 }, { 0xF4, 0xF4, 0x80, 0x8F, 4 },
    };
    const unsigned char *s = (const unsigned char *)text;
    size_t form = 0, count = sizeof forms / sizeof *forms;
    while (form < count && s[0] > forms[form].last) form++;
    if (form == count || s[0] < forms[form].first) return -1;
    int length = forms[form].length;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == len) return 0;
        int low = i == 1 ? forms[form].low : 0x80, high = i == 1 ? forms[form].high : 0xBF;
        if (s[i] < low || s[i] > high) return -1;
    }
    return length;
}

/* Reads the character that text (len > 0) begins with; returns its length, 1 if invalid. */
static size_t read_char(const char *text, size_t len, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    int length = tokenizer_char(text, len);
    *code = length > 0 ? length > 1 ? s[0] & (0x7Fu >> length) : s[0] : (uint32_t)INVALID + s[0];
    for (int i = 1; i < length; i++) *code = *code << 6 | (s[i] & 0x3F);
    return length > 0 ? (size_t)length : 1;
}

/* Unpacks unicode_runs into table (CODE_POINTS). */
static void unpack_categories(uint8_t *table)
{
    size_t code = 0;
    for (const char *s = unicode_runs; *s;) {
        char kind = *s++;
        size_t n = 0;
        for (; (*s >= '0' && *s <= '9') || *s >= 'g'; s++) {
            n = n * 30 + (size_t)(*s <= '9' ? *s - '0' : *s - 'g' + 10);
        }
        n = (n ? n : 1) * (kind == ',' ? 2 : 1);
        for (; n > 0 && code < CODE_POINTS; n--) {
            table[code++] = (uint8_t)(kind == ',' ? n & 1 : (size_t)(kind - 'A'));
        }
    }
}

/* Reads the character at text[at]; returns where the next one begins. */
static size_t next_char(const uint8_t *categories, const char *text, size_t at, size_t len, Char *c)
{
    *c = (Char){ TEXT_END, 0 };
    if (at >= len) return len;
    at += read_char(text + at, len - at, &c->code);
    uint32_t code = c->code, mask = code < CODE_POINTS ? 1u << categories[code] : 0;
    int white = mask & SEPARATOR || (code >= '\t' && code <= '\r') || code == 0x85;
    c->mask = mask | (white ? WHITE : NOT_WHITE);
    return at;
}

/* ==== Patterns ===================================================================================
 * Splitting rules are published as regular expressions, where the leftmost match counts and of
 * those the one that takes the first alternatives, as in Perl. A matcher that backtracks finds it
 * too, but can take quadratic time on long runs of one character. Here a pattern becomes a
 * program, and all ways through it advance together, a character at a time, in the order in which
 * a backtracking matcher would try them (Pike's algorithm; see Russ Cox, "Regular Expression
 * Matching: the Virtual Machine Approach"). Ways that reach the same step are one from there on,
 * so no character costs more than one visit of every step.
 *
 * Known: characters, \r \n \t \s \S \d \p{Lu} \P{L}, sets [...] and [^...], groups (...) (?:...)
 * (?i:...), a|b, the quantifiers ? * + {n} {n,} {n,m}, the possessive ones *+ and ++ behind a
 * set, ?+ (read as ?, which in the published patterns is the same), lookahead at one set (?=\s)
 * (?!\S), and $: the end, or before a newline.
 */

enum operation {
    TAKE,     /* a character of the set */
    LOOK,     /* pass if the next character is in the set */
    LOOK_NOT, /* pass if there is none in the set */
    END,      /* pass at the end of the text and before a newline */
    SPLIT,    /* go on at step + x; step + y is second choice */
    JUMP,     /* go on at step + x */
    MATCH
};

/* A set is the members x to y of its pattern, or all other characters if negated. */
typedef struct {
    enum operation operation;
    int x, y, negated;
} Step;

typedef struct {
    uint32_t low, high, mask; /* holds code points low to high and the categories of mask */
} Member;

typedef struct {
    int n_steps, n_members;
    Step steps[MAX_STEPS];
    Member members[MAX_MEMBERS];
} Pattern;

typedef struct {
    Pattern *pattern;
    const char *at; /* what is left to read */
    int ignore_case, failed;
} Compiler;

static void compile_alternatives(Compiler *c);

/* Appends a step. */
static void add_step(Compiler *c, enum operation operation, int x, int y, int negated)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_steps == MAX_STEPS;
    if (!c->failed) p->steps[p->n_steps++] = (Step){ operation, x, y, negated };
}

/* Appends a member to the set that is being read. */
static void add_member(Compiler *c, Member member)
{
    Pattern *p = c->pattern;
    c->failed |= p->n_members == MAX_MEMBERS;
    if (!c->failed) p->members[p->n_members++] = member;
}

/* Reads the name of a category, {L} or {Lu}; returns its mask. */
static uint32_t read_category(Compiler *c)
{
    uint32_t mask = 0;
    size_t len = strcspn(c->at, "}");
    for (int i = 0; category_names[2 * i] && (len == 2 || len == 3); i++) {
        if (strncmp(c->at + 1, category_names + 2 * i, len - 1) == 0) mask |= 1u << i;
    }
    c->failed |= mask == 0;
    c->at += mask ? len + 1 : 0;
    return mask;
}

/* Reads a character or a class. */
static Member read_member(Compiler *c)
{
    static const struct {
        char name;
        Member member;
    } escapes[] = {
        { 's', { 1, 0, WHITE } },   { 'S', { 1, 0, NOT_WHITE } }, { 'd', { 1, 0, DIGIT } },
        { 'r', { '\r', '\r', 0 } }, { 'n', { '\n', '\n', 0 } },   { 't', { '\t', '\t', 0 } },
    };
    uint32_t code = 0;
    int escaped = *c->at == '\\';
    c->at += escaped;
    char name = *c->at;
    c->failed |= name == 0;
    if (name) c->at += read_char(c->at, 4, &code); /* no character goes on behind the final 0 */
    if (escaped && name == 'p') return (Member){ 1, 0, read_category(c) };
    if (escaped && name == 'P') return (Member){ 1, 0, ~read_category(c) & ~(WHITE | NOT_WHITE) };
    for (size_t i = 0; escaped && i < sizeof escapes / sizeof *escapes; i++) {
        if (name == escapes[i].name) return escapes[i].member;
    }
    c->failed |= escaped && name && !strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", name);
    return (Member){ code, code, 0 };
}

/* Adds a character, and its other case if case doesn't count, or a class. */
static void add_cases(Compiler *c, Member member)
{
    uint32_t code = member.low, lower = code | 0x20;
    add_member(c, member);
    if (!c->ignore_case || lower < 'a' || lower > 'z') return;
    add_member(c, (Member){ code ^ 0x20, code ^ 0x20, 0 });
    if (lower == 's') add_member(c, (Member){ 0x17F, 0x17F, 0 });   /* long s */
    if (lower == 'k') add_member(c, (Member){ 0x212A, 0x212A, 0 }); /* Kelvin sign */
}

/* Reads [...], a class or a character, and appends a step with this set. */
static void compile_set(Compiler *c, enum operation operation)
{
    int first = c->pattern->n_members, brackets = *c->at == '[';
    int negated = brackets && c->at[1] == '^';
    c->failed |= *c->at && strchr("*+?{.^", *c->at) != NULL;
    c->at += brackets + negated;
    do {
        Member member = read_member(c);
        if (brackets && c->at[0] == '-' && c->at[1] != ']') {
            c->at++;
            member.high = read_member(c).high;
            add_member(c, member);
        } else {
            add_cases(c, member);
        }
    } while (brackets && *c->at != ']' && !c->failed);
    c->at += brackets && *c->at == ']';
    add_step(c, operation, first, c->pattern->n_members, negated);
}

/* Reads (...), (?:...), (?i:...), (?=set) or (?!set). */
static void compile_group(Compiler *c)
{
    int ignore_case = c->ignore_case;
    if (strncmp(c->at, "(?=", 3) == 0 || strncmp(c->at, "(?!", 3) == 0) {
        c->at += 3;
        compile_set(c, c->at[-1] == '=' ? LOOK : LOOK_NOT);
    } else {
        int fold = strncmp(c->at, "(?i:", 4) == 0;
        c->ignore_case |= fold;
        c->at += fold ? 4 : strncmp(c->at, "(?:", 3) == 0 ? 3 : 1;
        compile_alternatives(c);
    }
    c->ignore_case = ignore_case;
    c->failed |= *c->at != ')';
    c->at += *c->at == ')';
}

/* Repeats the steps from start on at least `least` and at most `most` times, -1: without end. */
static void repeat_steps(Compiler *c, int start, int least, int most)
{
    Pattern *p = c->pattern;
    Step body[MAX_STEPS];
    int size = p->n_steps - start, copies = most < 0 ? least + 1 : most;
    memcpy(body, p->steps + start, (size_t)size * sizeof *body);
    p->n_steps = start;
    for (int i = 0; i < copies && !c->failed; i++) {
        if (i >= least) add_step(c, SPLIT, 1, most < 0 ? size + 2 : (most - i) * (size + 1), 0);
        for (int k = 0; k < size; k++) {
            add_step(c, body[k].operation, body[k].x, body[k].y, body[k].negated);
        }
    }
    if (most < 0) add_step(c, JUMP, -size - 1, 0, 0);
}

/* Reads a quantifier for the steps from start on; returns whether there is one. */
static int compile_quantifier(Compiler *c, int start)
{
    char kind = *c->at;
    if (c->failed || !kind || !strchr("?*+{", kind)) return 0;
    long least = kind == '+', most = kind == '?' ? 1 : -1;
    if (kind == '{') {
        char *end;
        least = most = strtol(c->at + 1, &end, 10);
        if (*end == ',') {
            most = end[1] == '}' ? -1 : strtol(end + 1, NULL, 10);
            end += strcspn(end, "}");
        }
        c->failed |= *end != '}' || least < 0 || least > MAX_STEPS || most > MAX_STEPS;
        c->at = end;
    }
    c->at += *c->at != 0;
    if (c->failed) return 0;
    Step set = c->pattern->steps[start];
    repeat_steps(c, start, (int)least, (int)most);
    if (kind != '{' && *c->at == '+') { /* possessive: no more of the set may follow */
        c->at++;
        if (kind != '?') add_step(c, LOOK_NOT, set.x, set.y, set.negated);
    }
    return 1;
}

/* Reads a|b|c: a SPLIT goes in front of a, and a JUMP behind it leads over the others. */
static void compile_alternatives(Compiler *c)
{
    Pattern *p = c->pattern;
    int first = p->n_steps;
    while (*c->at && *c->at != '|' && *c->at != ')' && !c->failed) {
        int start = p->n_steps;
        if (*c->at == '(') {
            compile_group(c);
        } else if (*c->at == '$') {
            c->at++;
            add_step(c, END, 0, 0, 0);
        } else {
            compile_set(c, TAKE);
        }
        while (compile_quantifier(c, start)) { /* x{1,3}+ repeats x{1,3} */
        }
    }
    if (*c->at != '|' || c->failed) return;
    c->at++;
    int size = p->n_steps - first, jump = first + size + 1;
    add_step(c, SPLIT, 1, size + 2, 0);
    add_step(c, JUMP, 0, 0, 0);
    if (c->failed) return;
    Step split = p->steps[first + size];
    memmove(p->steps + first + 1, p->steps + first, (size_t)size * sizeof split);
    p->steps[first] = split;
    compile_alternatives(c);
    p->steps[jump].x = p->n_steps - jump;
}

/* Compiles a pattern; -1 if it is too long or has something unknown. */
static int compile_pattern(Pattern *p, const char *text)
{
    Compiler c = { .pattern = p, .at = text };
    p->n_steps = p->n_members = 0;
    compile_alternatives(&c);
    add_step(&c, MATCH, 0, 0, 0);
    return c.failed || *c.at ? -1 : 0;
}

/* A way through the pattern: the step it is at and where its match begins. */
typedef struct {
    int step;
    size_t from;
} Way;

typedef struct {
    const uint8_t *categories;
    const Pattern *pattern;
    Char ahead;      /* the character that the ways will see next */
    Way *now, *next; /* (MAX_STEPS) the preferred ones first */
    int n_next;
    uint32_t round;
    uint32_t seen[MAX_STEPS]; /* the round in which a way last reached each step */
    Way ways[2][MAX_STEPS];
} Search;

/* Whether the set of this step holds the character. */
static int in_set(const Pattern *p, const Step *step, Char c)
{
    int found = 0;
    for (int i = step->x; i < step->y && !found; i++) {
        const Member *m = &p->members[i];
        found = c.mask & m->mask || (c.code >= m->low && c.code <= m->high);
    }
    return found != step->negated && c.code != TEXT_END;
}

/* Brings a way to a step, and on from there up to where it has to take a character. */
static void reach(Search *s, int number, size_t from)
{
    const Step *step = &s->pattern->steps[number];
    if (s->seen[number] == s->round) return;
    s->seen[number] = s->round;
    switch (step->operation) {
    default: /* TAKE, MATCH */
        s->next[s->n_next++] = (Way){ number, from };
        return;
    case LOOK:
        number += in_set(s->pattern, step, s->ahead);
        break;
    case LOOK_NOT:
        number += !in_set(s->pattern, step, s->ahead);
        break;
    case END:
        number += s->ahead.code == TEXT_END || s->ahead.code == '\n';
        break;
    case SPLIT:
        reach(s, number + step->x, from);
        number += step->y;
        break;
    case JUMP:
        number += step->x;
        break;
    }
    reach(s, number, from); /* where it cannot pass it stays at its step, which has been seen */
}

/* Begins a round: no step is reached yet. */
static void next_round(Search *s)
{
    Way *now = s->next;
    s->next = s->now;
    s->now = now;
    s->n_next = 0;
    if (++s->round == 0) { /* after 2^32 rounds old marks would look like new ones */
        memset(s->seen, 0, sizeof s->seen);
        s->round = 1;
    }
}

/* Finds the leftmost match in text (len) from at on that isn't empty; returns whether there is
 * one. */
static int search(Search *s, const Pattern *p, const char *text, size_t len, size_t at,
                  size_t *from, size_t *to)
{
    int found = 0;
    size_t next = next_char(s->categories, text, at, len, &s->ahead);
    s->pattern = p;
    next_round(s);
    for (;;) {
        if (!found) reach(s, 0, at); /* a match could begin here; earlier ones are preferred */
        if (found && s->n_next == 0) return 1;
        Char c = s->ahead;
        size_t after = next_char(s->categories, text, next, len, &s->ahead);
        int n = s->n_next;
        next_round(s);
        for (int i = 0; i < n; i++) {
            const Way *way = &s->now[i];
            const Step *step = &p->steps[way->step];
            if (step->operation == TAKE) {
                if (in_set(p, step, c)) reach(s, way->step + 1, way->from);
            } else if (at > way->from) {
                found = 1;
                *from = way->from;
                *to = at;
                break; /* the ways that follow are less preferred */
            }
        }
        if (at >= len) return found;
        at = next;
        next = after;
    }
}

/* ==== Rules ======================================================================================
 * Which patterns split text into words before merging; a model file names its rule. The patterns
 * are applied one after the other: each splits the pieces that the one before it left into its
 * matches and what lies between them, and sees every piece as a text of its own.
 */

typedef struct {
    const char *names; /* separated by spaces */
    int ignore_merges; /* a word that is a token as a whole is that token, wherever merges lead */
    const char *patterns[MAX_PATTERNS];
} Rule;

/* Letters that have case, by number since a few would change under Unicode normalization. */
#define CASED_WORDS \
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-" \
    "\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1" \
    "\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-" \
    "\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18" \
    "-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4" \
    "\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2" \
    "-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-" \
    "\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-" \
    "\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-" \
    "\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-" \
    "\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-" \
    "\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+"

#define GPT2_WORDS \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CJK_WORDS "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"

/* To add one: a row with the names that files give it (tokenizer.ggml.pre) and the patterns from
 * the pre_tokenizer of the model's tokenizer.json, in order. There "Digits" means \p{N}+, or
 * \p{N} with individual_digits; "Punctuation" means [\p{P}$+<=>^~|`]+, and "ByteLevel" with
 * use_regex means GPT2_WORDS. The first row also serves files that name no rule, or one that
 * isn't here. */
static const Rule rules[] = {
    { "default gpt-2", 0, { GPT2_WORDS } },
    { "llama-bpe llama3 llama-v3",
      1,
      { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "qwen2 deepseek-r1-qwen",
      0,
      { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "deepseek-llm",
      0,
      { "[\\r\\n]", CASED_WORDS,
        "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$", CJK_WORDS,
        "\\p{N}" } },
    { "smollm", 0, { "\\p{N}", GPT2_WORDS } },
    { "tekken",
      1,
      { "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
        "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
        "|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } },
    { "deepseek-coder", 0, { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_WORDS, "\\p{N}" } },
    { "deepseek-v3",
      0,
      { "\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
        "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+"
        "|\\s+(?!\\S)|\\s+" } },
};

/* SentencePiece has no rules. But where no piece goes on behind the end of a word, merging word by
 * word gives the same as merging the whole text, and takes less memory. */
static const Rule whole_text = { "", 0, { NULL } };
static const Rule spm_words = { "", 0, { "[ \u2581]+[^ \u2581]*|[^ \u2581]+" } };

/* The rule of this name, or NULL. */
static const Rule *find_rule(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        for (const char *s = rules[i].names; *s; s += strcspn(s, " "), s += *s == ' ') {
            if (strcspn(s, " ") == len && strncmp(s, name, len) == 0) return &rules[i];
        }
    }
    return NULL;
}

/* ==== Vocabulary =================================================================================
 * Hash tables with a 64-bit key for each entry: the hash of a spelling leads to the token, the
 * two tokens of a merge lead to the token they make, and the hash of the first bytes of a special
 * token says that one begins so. The bytes that the tokens stand for are unpacked once, so that
 * decode only has to copy them.
 */

enum { NO_TOKEN = -1 };

typedef struct {
    uint64_t key; /* 0: the slot is empty */
    uint32_t rank;
    int id;
} Slot;

typedef struct {
    Slot *slots;
    size_t size, used; /* size: a power of two, or 0 */
} Table;

struct tokenizer {
    tokenizer_vocab vocab;
    Table spellings;          /* hash of a spelling -> token */
    size_t longest;           /* spelling, in bytes */
    char *raw;                /* the bytes that the tokens stand for, one after the other */
    size_t *raw_at;           /* (n_tokens + 1) where those of each token begin */
    int byte_tokens[256];     /* the token of each single byte, or NO_TOKEN */
    Table special;            /* hash of the first bytes of a special token -> token or NO_TOKEN */
    char special_begins[256]; /* whether a special token begins with this byte */
    Table merges;             /* BPE: left token << 32 | right token, plus 1 -> rank and token */
    const Rule *rule;
    int n_patterns;
    Pattern *patterns;   /* (n_patterns) */
    uint8_t *categories; /* (CODE_POINTS) */
    char warning[256];
};

/* Writes a sentence into error (size), which may be NULL. */
__attribute__((format(printf, 3, 4))) static void set_error(char *error, size_t size,
                                                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (error && size > 0) vsnprintf(error, size, format, arguments);
    va_end(arguments);
}

/* FNV-1a, a byte at a time; begins with HASH_START. */
#define HASH_START 0xCBF29CE484222325u
static uint64_t hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x100000001B3u;
}

/* The key of a spelling. */
static uint64_t hash_text(const char *text, size_t len)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len; i++) {
        hash = hash_byte(hash, text[i]);
    }
    return hash ? hash : 1;
}

/* The slot with this key, or the empty one where it belongs. */
static Slot *find_slot(const Table *table, uint64_t key)
{
    uint64_t spread = key * 0x9E3779B97F4A7C15u; /* keys of merges differ in few bits */
    for (size_t i = spread >> 32;; i++) {
        Slot *slot = &table->slots[i & (table->size - 1)];
        if (slot->key == key || slot->key == 0) return slot;
    }
}

/* The entry with this key, or NULL. */
static const Slot *look_up(const Table *table, uint64_t key)
{
    const Slot *slot = table->size ? find_slot(table, key) : NULL;
    return slot && slot->key ? slot : NULL;
}

/* The slot of this key, made if there is none (rank 0, NO_TOKEN); NULL when out of memory. */
static Slot *add_slot(Table *table, uint64_t key)
{
    if (table->used >= table->size / 2) {
        Table larger = { .size = table->size ? 2 * table->size : 256, .used = table->used };
        larger.slots = calloc(larger.size, sizeof *larger.slots);
        if (!larger.slots) return NULL;
        for (size_t i = 0; i < table->size; i++) {
            if (table->slots[i].key) *find_slot(&larger, table->slots[i].key) = table->slots[i];
        }
        free(table->slots);
        *table = larger;
    }
    Slot *slot = find_slot(table, key);
    if (!slot->key) {
        *slot = (Slot){ key, 0, NO_TOKEN };
        table->used++;
    }
    return slot;
}

/* The type of a token; what is no known type is text. */
static int type_of(const tokenizer *t, int id)
{
    int type = t->vocab.types ? t->vocab.types[id] : TOKEN_NORMAL;
    return type >= TOKEN_NORMAL && type <= TOKEN_BYTE ? type : TOKEN_NORMAL;
}

/* Whether a token is no part of the text proper. */
static int is_control(const tokenizer *t, int id)
{
    return type_of(t, id) == TOKEN_CONTROL || type_of(t, id) == TOKEN_UNKNOWN;
}

int tokenizer_find(const tokenizer *t, const char *text, size_t len)
{
    if (len == 0 || len > t->longest) return NO_TOKEN;
    const Slot *slot = look_up(&t->spellings, hash_text(text, len));
    if (!slot) return NO_TOKEN;
    tokenizer_text token = t->vocab.tokens[slot->id];
    return token.len == len && memcmp(token.data, text, len) == 0 ? slot->id : NO_TOKEN;
}

/* The same for what plain text may become: "</s>" and "<0x0A>" in it are just characters. */
static int find_piece(const tokenizer *t, const char *text, size_t len)
{
    int id = tokenizer_find(t, text, len);
    int plain = id >= 0 && (type_of(t, id) == TOKEN_NORMAL || type_of(t, id) == TOKEN_USER_DEFINED);
    return plain ? id : NO_TOKEN;
}

/* Fills the table of spellings: the first of equal ones counts, empty ones never. */
static int index_spellings(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        if (token.len == 0) continue;
        Slot *slot = add_slot(&t->spellings, hash_text(token.data, token.len));
        if (!slot) return -1;
        if (slot->id == NO_TOKEN) slot->id = id;
        if (token.len > t->longest) t->longest = token.len;
    }
    return 0;
}

/* The printable character as which byte-level BPE spells a byte: itself if it is one in Latin-1,
 * else one from U+0100 on, in order. */
static unsigned byte_to_char(unsigned byte)
{
    if (byte <= 32) return 256 + byte;
    if (byte >= 127 && byte <= 160) return 289 + byte - 127;
    return byte == 173 ? 323 : byte;
}

/* The byte that a character spells, -1: none. */
static int char_to_byte(unsigned code)
{
    if (code >= 256 && code <= 288) return (int)code - 256;
    if (code >= 289 && code <= 322) return (int)code - 289 + 127;
    return code == 323 ? 173 : code < 256 && byte_to_char(code) == code ? (int)code : -1;
}

/* Writes bytes as byte-level BPE spells them, at most twice as many; returns how many. */
static size_t spell(char *spelling, const char *bytes, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned code = byte_to_char((unsigned char)bytes[i]);
        if (code >= 0x80) spelling[n++] = (char)(0xC0 | code >> 6);
        spelling[n++] = (char)(code >= 0x80 ? 0x80 | (code & 0x3F) : code);
    }
    return n;
}

/* The byte that a token spelt like <0x0A> stands for, -1: it isn't spelt so. */
static int byte_value(tokenizer_text token)
{
    static const char digits[] = "0123456789ABCDEF0123456789abcdef";
    if (token.len != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') return -1;
    const char *high = memchr(digits, token.data[3], 32), *low = memchr(digits, token.data[4], 32);
    return high && low ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : -1;
}

/* Writes the bytes that a token stands for, no more than its spelling has; returns how many. */
static size_t unpack_token(const tokenizer *t, int id, char *raw)
{
    tokenizer_text token = t->vocab.tokens[id];
    int spm = t->vocab.kind == TOKENIZER_SPM, type = type_of(t, id);
    int plain = is_control(t, id) || (type == TOKEN_USER_DEFINED && !spm);
    size_t n = 0;
    if (type == TOKEN_BYTE && byte_value(token) >= 0) {
        raw[0] = (char)byte_value(token);
        return 1;
    }
    for (size_t i = 0, len; i < token.len; i += len) {
        uint32_t code;
        len = read_char(token.data + i, token.len - i, &code);
        int byte = plain ? -1 : spm ? (code == 0x2581 ? ' ' : -1) : char_to_byte(code);
        if (byte >= 0) {
            raw[n++] = (char)byte;
        } else {
            memcpy(raw + n, token.data + i, len);
            n += len;
        }
    }
    return n;
}

/* Unpacks all tokens, and finds the tokens of single bytes. */
static int unpack_tokens(tokenizer *t)
{
    size_t n = (size_t)t->vocab.n_tokens, total = 1;
    for (size_t id = 0; id < n; id++) {
        size_t len = t->vocab.tokens[id].len;
        total = len < SIZE_MAX - total ? total + len : SIZE_MAX; /* as good as no memory */
    }
    t->raw = malloc(total);
    t->raw_at = calloc(n + 1, sizeof *t->raw_at);
    if (!t->raw || !t->raw_at) return -1;
    for (int byte = 0; byte < 256; byte++) {
        char spelling[2], raw = (char)byte;
        int id = find_piece(t, spelling, spell(spelling, &raw, 1));
        t->byte_tokens[byte] = t->vocab.kind == TOKENIZER_BPE ? id : NO_TOKEN;
    }
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        int byte = type_of(t, id) == TOKEN_BYTE ? byte_value(t->vocab.tokens[id]) : -1;
        if (byte >= 0 && t->byte_tokens[byte] == NO_TOKEN) t->byte_tokens[byte] = id;
        t->raw_at[id + 1] = t->raw_at[id] + unpack_token(t, id, t->raw + t->raw_at[id]);
    }
    return 0;
}

/* Fills the table of special tokens, with an entry for each way in which one begins. */
static int index_special(tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (!is_control(t, id) && type_of(t, id) != TOKEN_USER_DEFINED) continue;
        if (len == 0 || len > MAX_SPECIAL) continue;
        uint64_t hash = HASH_START;
        Slot *slot = NULL;
        for (size_t i = 0; i < len; i++) {
            hash = hash_byte(hash, raw[i]);
            slot = add_slot(&t->special, hash | 1);
            if (!slot) return -1;
        }
        if (slot->id == NO_TOKEN) slot->id = id;
        t->special_begins[(unsigned char)raw[0]] = 1;
    }
    return 0;
}

/* The longest special token that text (len > 0) begins with, or NO_TOKEN; writes its length. */
static int find_special(const tokenizer *t, const char *text, size_t len, int flags, size_t *length)
{
    int best = NO_TOKEN;
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len && t->special_begins[(unsigned char)text[0]]; i++) {
        hash = hash_byte(hash, text[i]);
        const Slot *slot = look_up(&t->special, hash | 1);
        if (!slot) break;
        int id = slot->id;
        if (id == NO_TOKEN || (is_control(t, id) && !(flags & TOKENIZER_SPECIAL))) continue;
        if (t->raw_at[id + 1] - t->raw_at[id] != i + 1) continue;
        if (memcmp(t->raw + t->raw_at[id], text, i + 1) != 0) continue; /* an equal hash */
        best = id;
        *length = i + 1;
    }
    return best;
}

/* ==== Merging ====================================================================================
 * The symbols of a word are a linked list, and all neighbours that make a piece are candidates in
 * a heap: best first, then leftmost. Merging the best one makes at most two new candidates; those
 * that it makes impossible stay until their turn comes, and then don't have the length of their
 * symbols any more. So n symbols take about n log n steps.
 */

typedef struct {
    uint32_t at, len;   /* bytes of the word; len 0: merged into the symbol before */
    int id;             /* token, or NO_TOKEN */
    int previous, next; /* symbols, -1: none */
} Symbol;

typedef struct {
    uint64_t order; /* rank << 32 | left symbol; the lowest is the best */
    uint32_t len;   /* of the two symbols */
    int id;         /* the token they make */
} Candidate;

/* The state of a call of encode. */
typedef struct {
    const tokenizer *t;
    int *tokens;
    size_t max, count;
    char *error;
    size_t error_size;
    int failed;
    int prefix;       /* a space goes in front of the next word */
    size_t room;      /* symbols that the arrays have room for */
    Symbol *symbols;  /* (room) of one word */
    Candidate *heap;  /* (2 * room): every merge takes one away and adds at most two */
    char *buffer;     /* (3 * room) the word in the spelling of the vocabulary */
    const char *word; /* the bytes of the symbols */
    size_t n_symbols, n_heap;
    Search search;
} Work;

/* Makes room for a word of n symbols; -1 when out of memory. */
static int begin_word(Work *w, size_t n)
{
    w->n_symbols = w->n_heap = 0;
    if (n <= w->room) return 0;
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    w->room = n + 64;
    w->symbols = malloc(w->room * sizeof *w->symbols);
    w->heap = malloc(w->room * 2 * sizeof *w->heap);
    w->buffer = malloc(w->room * 3);
    if (w->symbols && w->heap && w->buffer) return 0;
    set_error(w->error, w->error_size, "out of memory for a word of %zu bytes", n);
    w->room = 0;
    w->failed = 1;
    return -1;
}

/* Puts out a token. */
static void emit(Work *w, int id)
{
    if (w->count < w->max) w->tokens[w->count] = id;
    w->count++;
}

/* Puts out a symbol that is no token: as its bytes, or as the unknown token. */
static void emit_bytes(Work *w, const char *text, size_t len)
{
    const int *byte_tokens = w->t->byte_tokens, unknown = w->t->vocab.unknown;
    size_t spelt = 0;
    while (spelt < len && byte_tokens[(unsigned char)text[spelt]] >= 0) {
        spelt++;
    }
    for (size_t i = 0; i < len && spelt == len; i++) {
        emit(w, byte_tokens[(unsigned char)text[i]]);
    }
    if (spelt < len && unknown >= 0) {
        emit(w, unknown);
    } else if (spelt < len) {
        set_error(w->error, w->error_size, "the vocabulary has no token for the byte 0x%02X",
                  (unsigned char)text[spelt]);
        w->failed = 1;
    }
}

/* Appends a symbol to the word. */
static void add_symbol(Work *w, size_t at, size_t len, int id)
{
    int i = (int)w->n_symbols++;
    w->symbols[i] = (Symbol){ (uint32_t)at, (uint32_t)len, id, i - 1, -1 };
    if (i > 0) w->symbols[i - 1].next = i;
}

/* Adds a candidate to the heap. */
static void push(Work *w, Candidate candidate)
{
    Candidate *heap = w->heap;
    size_t i = w->n_heap++;
    for (; i > 0 && heap[(i - 1) / 2].order > candidate.order; i = (i - 1) / 2) {
        heap[i] = heap[(i - 1) / 2];
    }
    heap[i] = candidate;
}

/* Takes the best candidate from the heap, which isn't empty. */
static Candidate pop(Work *w)
{
    Candidate *heap = w->heap, best = heap[0], last = heap[--w->n_heap];
    size_t i = 0, n = w->n_heap;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && heap[child + 1].order < heap[child].order;
        if (heap[child].order >= last.order) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* The rank of a score: the higher the score the lower the rank, equal for equal ones, NaN last. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    if (score != score) return UINT32_MAX;
    score += 0.0f; /* turns -0 into 0 */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFF; /* bits rise with the magnitude of a float */
}

/* Makes a candidate of a symbol and the one behind it if they make a piece; left may be -1. */
static void propose(Work *w, int left)
{
    const tokenizer *t = w->t;
    if (left < 0 || w->symbols[left].next < 0) return;
    const Symbol *a = &w->symbols[left], *b = &w->symbols[a->next];
    Candidate candidate = { 0, a->len + b->len, NO_TOKEN };
    uint32_t rank = 0;
    if (t->vocab.kind == TOKENIZER_SPM) {
        candidate.id = find_piece(t, w->word + a->at, candidate.len);
        if (candidate.id >= 0 && t->vocab.scores) rank = score_rank(t->vocab.scores[candidate.id]);
    } else if (a->id >= 0 && b->id >= 0) {
        const Slot *merge = look_up(&t->merges, ((uint64_t)a->id << 32 | (uint32_t)b->id) + 1);
        candidate.id = merge ? merge->id : NO_TOKEN;
        rank = merge ? merge->rank : 0;
    }
    candidate.order = (uint64_t)rank << 32 | (uint32_t)left;
    if (candidate.id >= 0) push(w, candidate);
}

/* Merges the symbols of the word and puts out what they become. */
static void merge_word(Work *w)
{
    Symbol *symbols = w->symbols;
    for (size_t i = 0; i < w->n_symbols; i++) {
        propose(w, (int)i);
    }
    while (w->n_heap > 0) {
        Candidate best = pop(w);
        int left = (int)(uint32_t)best.order;
        Symbol *a = &symbols[left];
        if (a->len == 0 || a->next < 0 || a->len + symbols[a->next].len != best.len) continue;
        Symbol *b = &symbols[a->next];
        a->len = best.len;
        a->id = best.id;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0) symbols[a->next].previous = left;
        propose(w, a->previous);
        propose(w, left);
    }
    for (int i = w->n_symbols ? 0 : -1; i >= 0 && !w->failed; i = symbols[i].next) {
        if (symbols[i].id >= 0) {
            emit(w, symbols[i].id);
        } else {
            emit_bytes(w, w->word + symbols[i].at, symbols[i].len);
        }
    }
}

/* ==== Encode =====================================================================================
 * Special tokens are cut out of the text first; what lies between them is split and merged.
 */

/* Encodes a word of byte-level BPE. */
static void encode_word(Work *w, const char *text, size_t len)
{
    const tokenizer *t = w->t;
    if (begin_word(w, len) < 0) return;
    if (t->rule->ignore_merges && len <= t->longest) {
        int id = find_piece(t, w->buffer, spell(w->buffer, text, len));
        if (id >= 0) {
            emit(w, id);
            return;
        }
    }
    w->word = text;
    for (size_t i = 0; i < len; i++) {
        add_symbol(w, i, 1, t->byte_tokens[(unsigned char)text[i]]);
    }
    merge_word(w);
}

/* Encodes a word of SentencePiece: spaces become U+2581, with one more in front if w->prefix. */
static void encode_pieces(Work *w, const char *text, size_t len)
{
    if (begin_word(w, len + 1) < 0) return;
    char *word = w->buffer;
    size_t n = 0;
    for (size_t i = 0; i < len; i += !w->prefix, w->prefix = 0) {
        if (w->prefix || text[i] == ' ') {
            memcpy(word + n, SPACE_MARK, 3);
            n += 3;
        } else {
            word[n++] = text[i];
        }
    }
    w->word = word;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t code;
        length = read_char(word + at, n - at, &code);
        add_symbol(w, at, length, find_piece(w->t, word + at, length));
    }
    merge_word(w);
}

/* Splits text by the rule's patterns from number `pattern` on, and encodes the words. */
static void encode_words(Work *w, int pattern, const char *text, size_t len)
{
    if (pattern == w->t->n_patterns) {
        w->t->vocab.kind == TOKENIZER_BPE ? encode_word(w, text, len) : encode_pieces(w, text, len);
        return;
    }
    for (size_t at = 0, from, to; at < len && !w->failed; at = to) {
        int found = search(&w->search, &w->t->patterns[pattern], text, len, at, &from, &to);
        if (!found) from = to = len;
        if (from > at) encode_words(w, pattern + 1, text + at, from - at);
        if (found) encode_words(w, pattern + 1, text + from, to - from);
    }
}

/* Encodes text, which is the parts joined. As in Hugging Face transformers (legacy=False), the
 * space prefix of SentencePiece goes to the beginning of the text only, not behind special tokens
 * or in front of one. */
static void encode_text(Work *w, const char *text, const tokenizer_part *part, size_t len,
                        int flags)
{
    size_t end = part->text.len; /* of the part that is looked at */
    w->prefix = w->t->vocab.add_space_prefix && flags & TOKENIZER_BEGIN;
    flags &= ~TOKENIZER_SPECIAL;
    for (size_t start = 0, at = 0; start < len && !w->failed; start = at) {
        size_t length = 0;
        int id = NO_TOKEN;
        for (; at < len; at++) {
            while (at == end) end += (++part)->text.len;
            id = find_special(w->t, text + at, end - at,
                              flags | (part->special ? TOKENIZER_SPECIAL : 0), &length);
            if (id >= 0) break;
        }
        if (at > start) encode_words(w, 0, text + start, at - start);
        if (id >= 0) emit(w, id);
        w->prefix = 0;
        at += length;
    }
}

/* All parts in one piece of memory, which the caller frees where there are several. */
static char *join_parts(const tokenizer_part *parts, int n, size_t len)
{
    char *text = n == 1 ? (char *)parts->text.data : malloc(len + 1), *to = text;
    for (int i = 0; text && n > 1 && i < n; i++) {
        if (parts[i].text.len) memcpy(to, parts[i].text.data, parts[i].text.len);
        to += parts[i].text.len;
    }
    return text;
}

int tokenizer_encode_parts(const tokenizer *t, const tokenizer_part *parts, int n_parts, int flags,
                           int *tokens, int max, char *error, size_t size)
{
    size_t len = 0;
    for (int i = 0; i < n_parts && len <= MAX_TEXT; i++) {
        len = parts[i].text.len > MAX_TEXT ? parts[i].text.len : len + parts[i].text.len;
    }
    if (len > MAX_TEXT) {
        set_error(error, size, "the text has %zu bytes, more than 1 GB", len);
        return -1;
    }
    char *text = n_parts > 0 ? join_parts(parts, n_parts, len) : NULL;
    Work *w = calloc(1, sizeof *w);
    if (!w || (len && !text)) {
        if (n_parts > 1) free(text);
        free(w);
        set_error(error, size, "out of memory for a text of %zu bytes", len);
        return -1;
    }
    *w = (Work){ .t = t, .tokens = tokens, .max = max > 0 ? (size_t)max : 0 };
    w->error = error;
    w->error_size = size;
    w->search.categories = t->categories;
    w->search.now = w->search.ways[0];
    w->search.next = w->search.ways[1];
    if (flags & TOKENIZER_BOS && t->vocab.bos >= 0) emit(w, t->vocab.bos);
    if (len) encode_text(w, text, parts, len, flags);
    if (w->count > INT_MAX) set_error(error, size, "the text has %zu tokens, too many", w->count);
    int result = w->failed || w->count > INT_MAX ? -1 : (int)w->count;
    if (n_parts > 1) free(text);
    free(w->symbols);
    free(w->heap);
    free(w->buffer);
    free(w);
    return result;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t len, int flags, int *tokens,
                     int max, char *error, size_t size)
{
    tokenizer_part whole = { { text, len }, flags & TOKENIZER_SPECIAL };
    return tokenizer_encode_parts(t, &whole, 1, flags, tokens, max, error, size);
}

/* ==== Decode ================================================================================== */

size_t tokenizer_decode(const tokenizer *t, const int *tokens, int n, int flags, char *text,
                        size_t size)
{
    size_t total = 0;
    int spm = t->vocab.kind == TOKENIZER_SPM;
    int begins = spm && flags & TOKENIZER_BEGIN && t->vocab.add_space_prefix;
    for (int i = 0; i < n; i++) {
        int id = tokens[i];
        if (id < 0 || id >= t->vocab.n_tokens) continue;
        int control = is_control(t, id);
        if (control && !(flags & TOKENIZER_SPECIAL)) continue;
        const char *raw = t->raw + t->raw_at[id];
        size_t len = t->raw_at[id + 1] - t->raw_at[id];
        if (begins && !control && len > 0) {
            /* encode puts nothing in front of a user-defined token */
            int prefix = raw[0] == ' ' && type_of(t, id) != TOKEN_USER_DEFINED;
            raw += prefix;
            len -= (size_t)prefix;
            begins = 0;
        }
        if (total < size) memcpy(text + total, raw, len < size - total ? len : size - total);
        total += len;
    }
    if (size > 0) text[total < size ? total : size - 1] = 0;
    return total;
}

/* ==== Making a tokenizer ====================================================================== */

/* SPM: whether some piece has a space behind the end of a word. */
static int has_joined_words(const tokenizer *t)
{
    for (int id = 0; id < t->vocab.n_tokens; id++) {
        tokenizer_text token = t->vocab.tokens[id];
        for (size_t i = 1; i + 3 <= token.len; i++) {
            int behind_mark = i >= 3 && memcmp(token.data + i - 3, SPACE_MARK, 3) == 0;
            if (memcmp(token.data + i, SPACE_MARK, 3) == 0 && !behind_mark) return 1;
        }
    }
    return 0;
}

/* BPE: adds the merge "left right". 1: done, 0: it doesn't fit the tokens, -1: out of memory. */
static int add_merge(tokenizer *t, tokenizer_text merge, int rank, char *joined)
{
    const char *space = merge.len > 2 ? memchr(merge.data + 1, ' ', merge.len - 2) : NULL;
    if (!space || merge.len - 1 > t->longest) return 0;
    size_t left_len = (size_t)(space - merge.data), right_len = merge.len - left_len - 1;
    memcpy(joined, merge.data, left_len);
    memcpy(joined + left_len, space + 1, right_len);
    int left = find_piece(t, joined, left_len), right = find_piece(t, space + 1, right_len);
    int id = find_piece(t, joined, left_len + right_len);
    if (left < 0 || right < 0 || id < 0) return 0;
    Slot *slot = add_slot(&t->merges, ((uint64_t)left << 32 | (uint32_t)right) + 1);
    if (!slot) return -1;
    if (slot->id == NO_TOKEN) *slot = (Slot){ slot->key, (uint32_t)rank, id };
    return 1;
}

/* BPE: fills the table of merges; writes how many don't fit the tokens. */
static int index_merges(tokenizer *t, int *unfit)
{
    char *joined = malloc(t->longest + 1);
    int added = joined ? 0 : -1;
    for (int i = 0; i < t->vocab.n_merges && added >= 0; i++) {
        added = add_merge(t, t->vocab.merges[i], i, joined);
        *unfit += added == 0;
    }
    free(joined);
    return added < 0 ? -1 : 0;
}

/* Compiles the patterns of the rule. 0, -1: no memory, -2: a pattern is not understood. */
static int compile_rule(tokenizer *t)
{
    while (t->n_patterns < MAX_PATTERNS && t->rule->patterns[t->n_patterns]) {
        t->n_patterns++;
    }
    t->patterns = malloc((size_t)(t->n_patterns + 1) * sizeof *t->patterns);
    t->categories = calloc(CODE_POINTS, 1);
    if (!t->patterns || !t->categories) return -1;
    unpack_categories(t->categories);
    for (int i = 0; i < t->n_patterns; i++) {
        if (compile_pattern(&t->patterns[i], t->rule->patterns[i]) < 0) return -2;
    }
    return 0;
}

/* Chooses the rule, with a warning if it isn't the one that the vocabulary names. */
static void choose_rule(tokenizer *t)
{
    const char *name = t->vocab.pre ? t->vocab.pre : "";
    if (t->vocab.kind == TOKENIZER_SPM) {
        t->rule = has_joined_words(t) ? &whole_text : &spm_words;
        return;
    }
    t->rule = find_rule(name);
    if (t->rule) return;
    t->rule = &rules[0];
    snprintf(t->warning, sizeof t->warning, "%s%.80s%s, so words are split as for GPT-2",
             *name ? "the word-splitting rule \"" : "no word-splitting rule is named", name,
             *name ? "\" is unknown" : "");
}

/* Makes all tables. Returns like compile_rule. */
static int make_tables(tokenizer *t)
{
    int unfit = 0;
    if (index_spellings(t) < 0 || unpack_tokens(t) < 0 || index_special(t) < 0) return -1;
    choose_rule(t);
    int result = compile_rule(t);
    if (result < 0 || t->vocab.kind == TOKENIZER_SPM) return result;
    result = index_merges(t, &unfit);
    size_t n = strlen(t->warning);
    if (unfit > 0 || t->vocab.n_merges == 0) {
        snprintf(t->warning + n, sizeof t->warning - n, "%s%d of %d merges fit the tokens",
                 n ? "; " : "", t->vocab.n_merges - unfit, t->vocab.n_merges);
    }
    return result;
}

tokenizer *tokenizer_new(const tokenizer_vocab *vocab, char *error, size_t size)
{
    if (vocab->n_tokens <= 0 || !vocab->tokens) {
        set_error(error, size, "the vocabulary has no tokens");
        return NULL;
    }
    tokenizer *t = calloc(1, sizeof *t);
    int result = -1;
    if (t) {
        t->vocab = *vocab;
        if (vocab->bos >= vocab->n_tokens) t->vocab.bos = -1;
        if (vocab->unknown >= vocab->n_tokens) t->vocab.unknown = -1;
        if (vocab->n_merges < 0 || !vocab->merges) t->vocab.n_merges = 0;
        result = make_tables(t);
    }
    if (result == 0) return t;
    if (result == -1) {
        set_error(error, size, "out of memory for a vocabulary of %d tokens", vocab->n_tokens);
    } else {
        set_error(error, size, "a pattern of the rule %s can't be compiled", t->rule->names);
    }
    tokenizer_free(t);
    return NULL;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    free(t->spellings.slots);
    free(t->raw);
    free(t->raw_at);
    free(t->special.slots);
    free(t->merges.slots);
    free(t->patterns);
    free(t->categories);
    free(t);
}

const char *tokenizer_warning(const tokenizer *t)
{
    return t->warning[0] ? t->warning : NULL;
}
