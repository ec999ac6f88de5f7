/* test_tokenizer.h: tests of tokenizer.c with small vocabularies made here. Part of test.c. */

#include "../tokenizer.h"

/* A vocabulary that grows; texts are kept in one block each. */
typedef struct {
    tokenizer_text tokens[6000], merges[6000];
    float scores[6000];
    int32_t types[6000];
    int n, n_merges;
} tok_vocab;

/* A copy of len bytes of text that lives as long as the vocabulary. */
static tokenizer_text tok_copy(const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = 0;
    return (tokenizer_text){ copy, len };
}

/* Adds a token and returns its id. */
static int tok_add(tok_vocab *v, const char *text, int type, float score)
{
    v->tokens[v->n] = tok_copy(text, strlen(text));
    v->types[v->n] = type;
    v->scores[v->n] = score;
    return v->n++;
}

/* Adds a merge, "left right". */
static void tok_merge(tok_vocab *v, const char *text)
{
    v->merges[v->n_merges++] = tok_copy(text, strlen(text));
}

static void tok_free(tok_vocab *v)
{
    for (int i = 0; i < v->n; i++) {
        free((char *)v->tokens[i].data);
    }
    for (int i = 0; i < v->n_merges; i++) {
        free((char *)v->merges[i].data);
    }
    free(v);
}

/* A tokenizer of the vocabulary; the prefix flag is set for SPM. */
static tokenizer *tok_make(const tok_vocab *v, enum tokenizer_kind kind, const char *pre,
                           int unknown)
{
    char error[200] = "";
    tokenizer_vocab vocab = { .kind = kind,
                              .n_tokens = v->n,
                              .tokens = v->tokens,
                              .scores = v->scores,
                              .types = v->types,
                              .n_merges = v->n_merges,
                              .merges = v->merges,
                              .pre = pre,
                              .bos = v->n - 1,
                              .unknown = unknown,
                              .add_space_prefix = kind == TOKENIZER_SPM };
    tokenizer *t = tokenizer_new(&vocab, error, sizeof error);
    check(t != NULL, "tokenizer_new: %s", error);
    return t;
}

/* Writes the GPT-2 spelling of bytes to out (2 * len + 1). */
static void tok_spell(char *out, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned c = (unsigned char)bytes[i];
        if (c <= 32)
            c += 256;
        else if (c >= 127 && c <= 160)
            c += 162;
        else if (c == 173)
            c = 323;
        if (c >= 128) *out++ = (char)(192 | c >> 6);
        *out++ = (char)(c >= 128 ? 128 | (c & 63) : c);
    }
    *out = 0;
}

/* A byte-level vocabulary: token i is byte i. */
static tok_vocab *tok_bytes_bpe(void)
{
    tok_vocab *v = calloc(1, sizeof *v);
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, spelling[3];
        tok_spell(spelling, &byte, 1);
        tok_add(v, spelling, TOKEN_NORMAL, 0);
    }
    return v;
}

/* A SentencePiece vocabulary: <unk>, <s>, </s> and the byte tokens, so byte i is token 3 + i. */
static tok_vocab *tok_bytes_spm(void)
{
    tok_vocab *v = calloc(1, sizeof *v);
    char name[8];
    tok_add(v, "<unk>", TOKEN_UNKNOWN, 0);
    tok_add(v, "<s>", TOKEN_CONTROL, 0);
    tok_add(v, "</s>", TOKEN_CONTROL, 0);
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", i);
        tok_add(v, name, TOKEN_BYTE, 0);
    }
    return v;
}

/* The pieces of text with a bar between them; in a buffer that the next call writes over. */
static const char *tok_pieces(const tokenizer *t, const char *text, size_t len, int flags)
{
    static char out[4096];
    int ids[1024];
    size_t at = 0;
    char error[200] = "";
    int n = tokenizer_encode(t, text, len, flags, ids, 1024, error, sizeof error);
    out[0] = 0;
    if (n < 0) snprintf(out, sizeof out, "error: %s", error);
    for (int i = 0; i < n && i < 1024 && at < sizeof out - 2; i++) {
        if (i > 0) out[at++] = '|';
        at += tokenizer_decode(t, &ids[i], 1, TOKENIZER_SPECIAL, out + at, sizeof out - at);
    }
    return out;
}

#define TOK_PIECES(t, text, flags, expected) \
    check(strcmp(tok_pieces(t, text, strlen(text), flags), expected) == 0, \
          "%s: got %s, expected %s", text, tok_pieces(t, text, strlen(text), flags), expected)

/* Whether decoding the tokens of text gives it back. */
static int tok_round_trip(const tokenizer *t, const char *text, size_t len, int flags)
{
    int n = tokenizer_encode(t, text, len, flags, NULL, 0, NULL, 0);
    if (n < 0) return 0;
    int *ids = malloc(((size_t)n + 1) * sizeof *ids);
    char *back = malloc(len + 2);
    int same = tokenizer_encode(t, text, len, flags, ids, n, NULL, 0) == n;
    same = same && tokenizer_decode(t, ids, n, flags | TOKENIZER_SPECIAL, back, len + 2) == len;
    same = same && memcmp(back, text, len) == 0;
    free(ids);
    free(back);
    return same;
}

/* Encodes text of which a picture says whose each byte is: # may be part of a mark, . may not. */
static int tok_marked(const tokenizer *t, const char *text, const char *whose, int flags, int *ids,
                      int max)
{
    unsigned char marks[256];
    size_t len = strlen(text);
    check(!whose || strlen(whose) == len, "%s has %zu bytes, not %zu", text, len, strlen(whose));
    for (size_t i = 0; whose && i < len; i++) marks[i] = whose[i] == '#';
    return tokenizer_encode_marked(t, text, whose ? marks : NULL, len, flags, ids, max, NULL, 0);
}

/* Merges go by rank, then from the left; special tokens come first. */
static void tok_test_bpe(void)
{
    static const char *const merges[] = { "b c",     "a b",     "a bc", "x x", "xx xx",
                                          "no such", "nospace", "",     " ",   "a " };
    tok_vocab *v = tok_bytes_bpe();
    const char *tokens[] = { "ab", "bc", "abc", "xx", "xxxx" };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        tok_add(v, tokens[i], TOKEN_NORMAL, 0);
    }
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        tok_merge(v, merges[i]);
    }
    int user = tok_add(v, "<u r>", TOKEN_USER_DEFINED, 0);
    tok_add(v, "<u", TOKEN_USER_DEFINED, 0);
    int end = tok_add(v, "<end>", TOKEN_CONTROL, 0);
    int bos = tok_add(v, "<bos>", TOKEN_CONTROL, 0);
    tokenizer *t = tok_make(v, TOKENIZER_BPE, "gpt-2", -1);
    TOK_PIECES(t, "abc", 0, "abc");
    TOK_PIECES(t, "abab bcb", 0, "ab|ab| |bc|b");
    TOK_PIECES(t, "xxxxxxx", 0, "xxxx|xx|x");
    TOK_PIECES(t, "ab<u r>bc<u<end>", 0, "ab|<u r>|bc|<u|<|e|n|d|>");
    TOK_PIECES(t, "<u r<u r>", 0, "<u| |r|<u r>");
    TOK_PIECES(t, "ab<end><end", TOKENIZER_SPECIAL, "ab|<end>|<|e|n|d");
    TOK_PIECES(t, "", 0, "");
    TOK_PIECES(t, "", TOKENIZER_BOS, "<bos>");
    const char *warning = tokenizer_warning(t);
    check(warning && strstr(warning, "5 of 10 merges"), "unfit merges: %s",
          warning ? warning : "no warning");
    check(tokenizer_find(t, "abc", 3) == 258 && tokenizer_find(t, "abcd", 4) == -1 &&
              tokenizer_find(t, "", 0) == -1 && tokenizer_find(t, "<end>", 5) == end &&
              tokenizer_find(t, "<u r>", 5) == user,
          "tokenizer_find");
    int ids[] = { -1, bos, 'a', 1 << 30, user, end, 256, INT_MIN };
    char text[16];
    check(tokenizer_decode(t, ids, 8, 0, text, 16) == 8 && strcmp(text, "a<u r>ab") == 0,
          "decode: %s", text);
    tokenizer_free(t);

    t = tok_make(v, TOKENIZER_BPE, NULL, -1);
    warning = tokenizer_warning(t);
    check(warning && strstr(warning, "no word-splitting rule"), "rule not named: %s",
          warning ? warning : "-");
    tokenizer_free(t);
    t = tok_make(v, TOKENIZER_BPE, "martian", -1);
    warning = tokenizer_warning(t);
    check(warning && strstr(warning, "martian"), "unknown rule: %s", warning ? warning : "-");
    TOK_PIECES(t, "abc", 0, "abc");
    tokenizer_free(t);
    tok_free(v);
    tokenizer_free(NULL);
}

/* A control token never comes out of plain text, and ignore_merges finds words without merges. */
static void tok_test_plain(void)
{
    tok_vocab *v = tok_bytes_bpe();
    tok_add(v, "<s", TOKEN_NORMAL, 0);
    tok_add(v, "<s>", TOKEN_CONTROL, 0);
    tok_add(v, "word", TOKEN_NORMAL, 0);
    tok_add(v, "halt", TOKEN_CONTROL, 0);
    tok_merge(v, "< s");
    tok_merge(v, "<s >");
    tokenizer *t = tok_make(v, TOKENIZER_BPE, "llama-bpe", -1);
    TOK_PIECES(t, "<s>", 0, "<s|>");
    TOK_PIECES(t, "<s>", TOKENIZER_SPECIAL, "<s>");
    TOK_PIECES(t, "word halt", 0, "word| |h|a|l|t");
    TOK_PIECES(t, "words", 0, "w|o|r|d|s");
    tokenizer_free(t);
    t = tok_make(v, TOKENIZER_BPE, "qwen2", -1);
    TOK_PIECES(t, "word", 0, "w|o|r|d");
    tokenizer_free(t);
    tok_free(v);
}

/* A vocabulary in which every part of text is a token, so that each word becomes one. */
static tok_vocab *tok_all_parts(const char *text)
{
    static char spelling[3][200];
    char merge[402];
    tok_vocab *v = tok_bytes_bpe();
    size_t len = strlen(text);
    for (size_t n = 2; n <= len; n++) {
        for (size_t from = 0; from + n <= len; from++) {
            tok_spell(spelling[0], text + from, n);
            tok_add(v, spelling[0], TOKEN_NORMAL, 0);
            for (size_t cut = 1; cut < n && v->n_merges < 6000; cut++) {
                tok_spell(spelling[1], text + from, cut);
                tok_spell(spelling[2], text + from + cut, n - cut);
                snprintf(merge, sizeof merge, "%s %s", spelling[1], spelling[2]);
                tok_merge(v, merge);
            }
        }
    }
    return v;
}

/* Each rule on texts that tell them apart; the words are those of Hugging Face tokenizers. */
static const struct {
    const char *rule, *text, *words;
} tok_rule_cases[] = {
    { "gpt-2", "I'm he'LL don't 12345 x", "I|'m| he|'|LL| don|'t| 12345| x" },
    { "default", "a  b   \n\n c \t\n", "a| | b|   \n\n| c| \t\n" },
    { "gpt-2", "Hi!! (ok)\r\n\r\n  end  ", "Hi|!!| (|ok|)|\r\n\r\n | end|  " },
    { "llama-bpe", "I'm he'LL don't 12345 x", "I|'m| he|'LL| don|'t| |123|45| x" },
    { "llama3", "a  b   \n\n c \t\n", "a| | b|   \n\n| c| \t\n" },
    { "llama-v3", "Hi!! (ok)\r\n\r\n  end  ", "Hi|!!| (|ok|)\r\n\r\n| | end|  " },
    { "llama-bpe", "  \n  ", "  \n|  " },
    { "llama-bpe", "\u00A0x\u2028\u3000y'\u017F", "\u00A0x|\u2028|\u3000y|'\u017F" },
    { "qwen2", "I'm he'LL don't 12345 x", "I|'m| he|'LL| don|'t| |1|2|3|4|5| x" },
    { "deepseek-r1-qwen", "n=3.14; x2", "n|=|3|.|1|4|;| x|2" },
    { "gpt-neox", "e\u0301 12345", "\u00E9| 12345" },
    { "olmo", "a  b 12", "a| | b| 12" },
    { "mpt", "It's\n", "It|'s|\n" },
    { "exaone4", "n=3.14", "n|=|3|.|14" },
    { "smollm", "I'm he'LL 12345 x", "I|'m| he|'|LL| |1|2|3|4|5| x" },
    { "starcoder", "x2 = y[10]", "x|2| =| y|[|1|0|]" },
    { "refact", "a  \u00BD b", "a|  |\u00BD| b" },
    { "command-r", "o\u0302\u0323 12", "\u1ED9| |1|2" },
    { "exaone", "\u1112\u1161\u11AB 7", "\uD55C| |7" },
    { "falcon", "a,  b!=c 1234567", "a|,| | b|!=|c| |123|456|7" },
    { "falcon", "\u00E9\u00FC\u00BD\u1EB9", "\u00E9\xC3|\xBC|\xC2|\xBD|\xE1\xBA|\xB9" },
    { "falcon", "!\u1B4E!\u2010!", "!|\u1B4E|!\u2010!" },
    { "dbrx", "I'm he'LL 12345 x", "I|'m| he|'LL| |123|45| x" },
    { "lfm2", "a  b   \n\n c", "a| | b|   \n\n| c" },
    { "glm4", "5678\r\n", "567|8|\r\n" },
    { "chatglm-bpe", "(don't)", "(don|'t|)" },
    { "qwen2", "A\u030A e\u0327\u0301 \uFB1D\u05B4", "\u00C5| \u0229|\u0301| \u05D9|\u05B4\u05B4" },
    { "hunyuan", "A\u030A12", "A|\u030A|1|2" },
    { "qwen35", "x\u0324y 12 \u0947!", "x\u0324y| |1|2| \u0947|!" },
    { "bailingmoe", "I'm he'LL A\u030A12\n\n x", "I|'m| he|'LL| A|\u030A|1|2|\n\n| x" },
    { "bailingmoe2", "(don't)!\n 7", "(don|'t|)!\n| |7" },
    { "minicpm5", "I'm he'LL 12345 x", "I|'m| he|'LL| |123|45| x" },
    { "minicpm5", "x1234\u00BD\n", "x|123|4\u00BD|\n" },
    { "laguna", "f(x):\n\n  y = 12 \n", "f|(x|):|\n\n| | y| =| |1|2| |\n" },
    { "laguna", "!\r\n\r\n a\n\r \r b", "!|\r\n\r\n| a|\n\r \r| b" },
    { "seed-coder", "Hi!!\n\n 12", "Hi|!!|\n\n| |1|2" },
    { "gpt-4o", "HTMLParser's 12345 a/b/\n", "HTMLParser's| |123|45| a|/b|/\n" },
    { "llama4", "DON'T helloWorld", "DON'T| hello|World" },
    { "tiny_aya", "HTMLParser's 1234567 12345", "HTMLParser's| |1|234|567| |12|345" },
    { "tiny_aya", "1234abc 1234_ 1234\u00E9", "123|4|abc| |123|4|_| |123|4|\u00E9" },
    { "cohere2moe", "\u00BD1234, 1234\u00BD 123456", "\u00BD|1|234|,| |123|4\u00BD| |123|456" },
    { "tekken", "HTMLParser's 123", "HTMLParser|'s| |1|2|3" },
    { "deepseek-llm", "I'm he'LL don't 12345 x", "I|'|m| he|'|LL| don|'|t| |1|2|3|4|5| x" },
    { "deepseek-llm", "a  b   \n\n c \t\n", "a| | b|   |\n|\n| c| \t|\n" },
    { "deepseek-llm", "x \u65E5\u672C\u304B", "x| |\u65E5\u672C\u304B" },
    { "deepseek-coder", "Hi!! (ok)\r\n\r\n  end  ", "Hi|!!| (|ok|)|\r|\n|\r|\n| | end|  " },
    { "deepseek-v3", "I'm he'LL 12345 x", "I|'m| he|'LL| |123|45| x" },
    { "deepseek-v3", "x2 \u65E5\u672C\u304B", "x|2| |\u65E5\u672C\u304B" },
    { "deepseek-v3", "Hi!! (ok)\r\n\r\n  end  ", "Hi|!!| (|ok|)\r\n\r\n| | end|  " },
    { "hunyuan-dense", "x1234 \u65E5\u672C", "x|123|4| |\u65E5\u672C" },
    { "afmoe", "I'm 1234567a 12 123", "I|'m| |1|234|567|a| |12| |123" },
    { "afmoe", "12345\u00BD\u65E5\u30AB\u0E01 x", "12|345|\u00BD|\u65E5\u30AB|\u0E01| x" },
};

static void tok_test_rules(void)
{
    for (size_t i = 0; i < sizeof tok_rule_cases / sizeof *tok_rule_cases; i++) {
        const char *rule = tok_rule_cases[i].rule, *text = tok_rule_cases[i].text;
        const char *words = tok_rule_cases[i].words;
        char joined[200];
        size_t n = 0;
        for (const char *s = words; *s; s++) {
            if (*s != '|') joined[n++] = *s;
        }
        joined[n] = 0;
        tok_vocab *v = tok_all_parts(joined);
        tokenizer *t = tok_make(v, TOKENIZER_BPE, rule, -1);
        const char *got = tok_pieces(t, text, strlen(text), 0);
        check(strcmp(got, words) == 0, "%s: got %s, expected %s", rule, got, words);
        check(!tokenizer_warning(t), "%s: %s", rule, tokenizer_warning(t));
        tokenizer_free(t);
        tok_free(v);
    }
}

/* Text in form C: what Hugging Face tokenizers make of it, and bytes that are no characters. */
static void tok_test_normal(void)
{
    static const char *const cases[][2] = {
        { "e\u0301 \u00E9", "\u00E9 \u00E9" },
        { "q\u0307\u0323", "q\u0323\u0307" },
        { "a\u0327\u0300\u0301", "\u00E0\u0327\u0301" },
        { "\u01D5\u0323", "\u1EE4\u0308\u0304" },
        { "\u1100\u1161\u11A8\u11A8", "\uAC01\u11A8" },
        { "\uAC00\u11A8", "\uAC01" },
        { "\u2126\u0345\u0301", "\u038F\u0345" },
        { "\u0958\u0344", "\u0915\u093C\u0308\u0301" },
        { "\u09C7\u09BE", "\u09CB" },
        { "\uF900\U0002FA1D", "\u8C48\U0002A600" },
        { "\U0001D15E", "\U0001D157\U0001D165" },
        { "\u0301e", "\u0301e" },
        { "e\xFF\u0301", "e\xFF\u0301" },
        { "e\u0301\xCC", "\u00E9\xCC" },
        { "e<end>\u0301", "e<end>\u0301" },
    };
    char text[80];
    int ids[80];
    tok_vocab *v = tok_bytes_bpe();
    tok_add(v, "<end>", TOKEN_CONTROL, 0);
    tokenizer *t = tok_make(v, TOKENIZER_BPE, "qwen2", -1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *from = cases[i][0], *to = cases[i][1];
        int n = tokenizer_encode(t, from, strlen(from), TOKENIZER_SPECIAL, ids, 80, NULL, 0);
        tokenizer_decode(t, ids, n, TOKENIZER_SPECIAL, text, sizeof text);
        check(strcmp(text, to) == 0, "the form C of %s is %s, got %s", from, to, text);
    }
    int n = tok_marked(t, "e\u0301", "#..", 0, ids, 80);
    tokenizer_decode(t, ids, n, 0, text, sizeof text);
    check(strcmp(text, "\u00E9") == 0, "a character of bytes of both kinds: %s", text);
    tokenizer_free(t);
    tok_free(v);
}

/* Special tokens of Phi-3 take the white space behind them; those of other models don't. */
static void tok_test_swallowing(void)
{
    static const char *const names[] = { "<|endoftext|>", "<|assistant|>", "<|placeholder1|>" };
    tok_vocab *v = tok_bytes_spm();
    for (int i = 0; i < 3; i++) {
        tok_add(v, names[i], TOKEN_CONTROL, 0);
    }
#define TOK_SPACE "\xE2|\x96|\x81" /* the bytes of U+2581 */
    const char *text = "<|assistant|>\n\u2003 a <|endoftext|>\n<s> ";
    tokenizer *t = tok_make(v, TOKENIZER_SPM, NULL, 0);
    TOK_PIECES(t, text, TOKENIZER_SPECIAL,
               "<|assistant|>|" TOK_SPACE "|a|" TOK_SPACE "|<|endoftext|>|" TOK_SPACE "|\n|<s>|"
               TOK_SPACE "|" TOK_SPACE);
    TOK_PIECES(t, "<|assistant|>\n ", TOKENIZER_SPECIAL, "<|assistant|>");
    TOK_PIECES(t, "<|\n", 0, "<|||\n");
    int ids[32];
    int n = tok_marked(t, "<|assistant|>\n \n \na<|assistant|>",
                       "##############..................", 0, ids, 32);
    check(n == 18 && ids[0] == 260 && ids[4] == 3 + 'a' && ids[5] == 3 + '<',
          "white space of both kinds: %d tokens", n);
    tokenizer_free(t);
    v->types[v->n - 1] = TOKEN_NORMAL;
    v->tokens[v->n - 1].len--;
    t = tok_make(v, TOKENIZER_SPM, NULL, 0);
    TOK_PIECES(t, "<|assistant|>\na", TOKENIZER_SPECIAL, "<|assistant|>|" TOK_SPACE "|\n|a");
    tokenizer_free(t);
    tok_free(v);
}

/* Scores, the space prefix, byte fallback, special tokens. */
static void tok_test_spm(void)
{
    tok_vocab *v = tok_bytes_spm();
    const char *pieces[] = { "\u2581", "h",   "e",    "l",        "o",  "he",
                             "ll",     "llo", "hell", "\u2581he", "lo", "\u00FC" };
    const float scores[] = { -9, -9, -9, -9, -9, -1, -2, -4, -6, -3, -2, -9 };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        tok_add(v, pieces[i], TOKEN_NORMAL, scores[i]);
    }
    tok_add(v, "<h1>", TOKEN_USER_DEFINED, 0);
    tokenizer *t = tok_make(v, TOKENIZER_SPM, NULL, 0);
    check(!tokenizer_warning(t), "SPM warns: %s", tokenizer_warning(t));
    TOK_PIECES(t, "hello", 0, "he|llo");
    TOK_PIECES(t, "hello", TOKENIZER_BEGIN, " he|llo");
    TOK_PIECES(t, " hello", 0, " he|llo");
    TOK_PIECES(t, "\u00FC\u00E9", 0, "\u00FC|\xC3|\xA9");
    TOK_PIECES(t, "</s>", 0, "<|/|s|>");
    TOK_PIECES(t, "<0x0A>", 0, "<|0|x|0|A|>");
    TOK_PIECES(t, "he</s>he", TOKENIZER_SPECIAL | TOKENIZER_BEGIN, " he|</s>| he");
    TOK_PIECES(t, "</s>he", TOKENIZER_SPECIAL | TOKENIZER_BEGIN, "</s>| he");
    TOK_PIECES(t, "he<h1> he", 0, "he|<h1>| | he");
    TOK_PIECES(t, "", TOKENIZER_BEGIN, "");
    char text[32];
    int ids[8], n = tokenizer_encode(t, "hello", 5, TOKENIZER_BEGIN, ids + 1, 7, NULL, 0);
    ids[0] = 1;
    tokenizer_decode(t, ids, n + 1, TOKENIZER_BEGIN, text, sizeof text);
    check(strcmp(text, "hello") == 0, "decode at the beginning: %s", text);
    tokenizer_decode(t, ids, n + 1, TOKENIZER_SPECIAL, text, sizeof text);
    check(strcmp(text, "<s> hello") == 0, "decode in the middle: %s", text);
    for (int size = 0; size < 8; size++) {
        memset(text, '#', sizeof text);
        size_t len = tokenizer_decode(t, ids, n + 1, 0, text, (size_t)size);
        check(len == 6 && text[size] == '#' &&
                  (size == 0 || strlen(text) == (size < 7 ? (size_t)size - 1 : 6)),
              "decode into %d bytes", size);
    }
    ids[1] = -7;
    check(tokenizer_encode(t, "hello", 5, 0, ids, 1, NULL, 0) == 2 && ids[1] == -7 && ids[0] == 264,
          "encode writes no more than max");
    tokenizer_free(t);
    tok_free(v);
}

/* BPE of characters: ranks and not scores, lines, runs of newlines, bytes, no prefix; in a
 * vocabulary whose last two pieces go on behind a word, and in one without them. */
static void tok_test_characters(void)
{
    static const char *const pieces[] = {
        "\u2581", "h", "e", "l", "o", "he", "ll", "llo", "hole", "lo", "\u2581he", "\u2581\u2581",
        "\n", "\n\n", "\n\n\n\n", "\u65E5\u672C", "\u65E5", "\u672C", "\u2581h", "o\u2581h",
    };
    static const char *const merges[] = {
        "l l", "h e", "l o", "ll o", "\u2581 he", "\u2581 \u2581", "\n \n", "\u65E5 \u672C",
        "<0x0A> l", "\u2581 h", "o \u2581h",
    };
    int n_pieces = sizeof pieces / sizeof *pieces, n_merges = sizeof merges / sizeof *merges;
    for (int joined = 0; joined < 2; joined++) {
        int ids[16], gone = joined ? 0 : 2, n;
        char text[16];
        tok_vocab *v = tok_bytes_spm();
        for (int i = 0; i < n_pieces - gone; i++) tok_add(v, pieces[i], TOKEN_NORMAL, (float)i);
        for (int i = 0; i < n_merges - gone; i++) tok_merge(v, merges[i]);
        int mark = tok_add(v, "<|channel>", TOKEN_USER_DEFINED, 0);
        int bos = tok_add(v, "<bos>", TOKEN_CONTROL, 0);
        tokenizer *t = tok_make(v, TOKENIZER_CHARACTER_BPE, NULL, -1);
        const char *warning = tokenizer_warning(t);
        check(warning && strstr(warning, joined ? "10 of 11 merges" : "8 of 9 merges"), "%s",
              warning ? warning : "no warning");
        TOK_PIECES(t, "hello", TOKENIZER_BEGIN, "he|llo");
        TOK_PIECES(t, "hello   hello", 0, "he|llo|  | he|llo");
        TOK_PIECES(t, "lo hole", 0, joined ? "lo| h|o|l|e" : "lo| |h|o|l|e");
        TOK_PIECES(t, "eo h hole", 0, joined ? "e|o h| h|o|l|e" : "e|o| |h| |h|o|l|e");
        TOK_PIECES(t, "ho\ne", 0, "h|o|\n|e");
        TOK_PIECES(t, "\n\n\n\n\nh\n\n\n\n", 0, "\n\n|\n\n|\n|h|\n\n\n\n");
        TOK_PIECES(t, "\u65E5\u672C\u00E9\r", 0, "\u65E5\u672C|\xC3|\xA9|\r");
        TOK_PIECES(t, "<0x0A>l", 0, "<|0|x|0|A|>|l");
        TOK_PIECES(t, "<|channel>", 0, "<|||c|h|a|n|n|e|l|>");
        TOK_PIECES(t, "h\u2581\xFF", 0, "h| |\xFF");
        n = tokenizer_encode(t, "<|channel> he l", 15, TOKENIZER_BOS | TOKENIZER_SPECIAL, ids, 16,
                             NULL, 0);
        tokenizer_decode(t, ids, n, TOKENIZER_BEGIN, text, sizeof text);
        check(n == 5 && ids[0] == bos && ids[1] == mark, "%d tokens, %d and %d", n, ids[0], ids[1]);
        check(strcmp(text, "<|channel> he l") == 0, "decode: %s", text);
        tokenizer_free(t);
        tok_free(v);
    }
}

/* The space prefix stands in front of each piece of text between special tokens, and decode takes
 * it away again. */
static void tok_test_prefix(void)
{
    static const char *const pieces[] = { "\u2581",  "u",        "s",           "\n",
                                          "us", "\u2581us", "\u2581\u2581" };
    static const char *const texts[] = { "us<tag>us", "<tag>\nus", "</s>us</s></s>  us", "<s>",
                                         " us",       "<h1>u\n",   "<tag> us<s>\n <tag>" };
    tok_vocab *v = tok_bytes_spm();
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        tok_add(v, pieces[i], TOKEN_NORMAL, (float)i);
    }
    int tag = tok_add(v, "<tag>", TOKEN_NORMAL, 0);
    int word = tok_add(v, "<h1>", TOKEN_USER_DEFINED, 0);
    int bos = tok_add(v, "<bos>", TOKEN_CONTROL, 0), flags = TOKENIZER_SPECIAL | TOKENIZER_BEGIN;
    tokenizer *t = tok_make(v, TOKENIZER_SPM, NULL, 0);
    TOK_PIECES(t, "us<tag>us</s><s>us us", TOKENIZER_SPECIAL, "us|<tag>| us|</s>|<s>| us| us");
    TOK_PIECES(t, "<tag>\nus", flags, "<tag>| |\n|us");
    TOK_PIECES(t, "<tag> us", flags, "<tag>|  |us");
    TOK_PIECES(t, "us", TOKENIZER_BOS, "<bos>| us");
    TOK_PIECES(t, "us", 0, "us");
    int ids[16], n = tok_marked(t, "<tag>us<tag>", "#####.......", 0, ids, 16);
    check(n == 7 && ids[0] == tag && ids[1] == word - 3, "a prefix behind a mark: %d tokens", n);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check(tok_round_trip(t, texts[i], strlen(texts[i]), flags), "%s doesn't come back",
              texts[i]);
    }
    int unknown[] = { 0, word - 3 };
    char text[16];
    tokenizer_decode(t, unknown, 2, TOKENIZER_SPECIAL, text, sizeof text);
    check(strcmp(text, "<unk> us") == 0, "text goes on behind an unknown character: %s", text);
    const int special[] = { 0, 1, 2, tag, word, bos };
    const int plain[] = { -1, 3, 258, 259, tag - 1, v->n };
    for (int i = 0; i < 6; i++) {
        check(tokenizer_is_special(t, special[i]) && !tokenizer_is_special(t, plain[i]),
              "tokenizer_is_special of %d and %d", special[i], plain[i]);
    }
    tokenizer_free(t);
    tok_free(v);
}

/* Bytes that may be part of a mark and bytes that may not. */
static void tok_test_marked(void)
{
    static const struct {
        const char *text, *whose, *pieces;
    } cases[] = {
        { "<|end|>", "#######", "<|end|>" },
        { "<|end|>", ".......", "<|||e|n|d|||>" },
        { "<|end|>", "######.", "<|||e|n|d|||>" },
        { "<|end|>", ".######", "<|||e|n|d|||>" },
        { "<|end|>", "###.###", "<|||e|n|d|||>" },
        { "a<|end|>b", ".#######.", "a|<|end|>|b" },
        { "<|end|><|end|>", "#######.......", "<|end|>|<|||e|n|d|||>" },
        { "<|end|><|end|>", ".......#######", "<|||e|n|d|||>|<|end|>" },
        { "<|end|>", "####...", "<|||e|n|d|||>" },
        { "<|end|>+", "########", "<|end|>+" },
        { "<|end|>+", "#######.", "<|end|>|+" },
        { "<|end|>+", ".#######", "<|||e|n|d|||>|+" },
        { "<h1>", "....", "<h1>" },
        { "<h1>", "#.#.", "<h1>" },
        { "the tea", "###....", "the| tea" },
        { "the tea", "....###", "the| tea" },
        { "the tea", "#.#.#.#", "the| tea" },
        { "the tea<|end|> tea", "##...#########..##", "the| tea|<|end|>| tea" },
        { "", "", "" },
    };
    static const char *const merges[] = { "t h", "th e", "t e", "te a", "\u0120 tea" };
    static const char *const merged[] = { "th", "the", "te", "tea", "\u0120tea" };
    tok_vocab *v = tok_bytes_bpe();
    for (int i = 0; i < 5; i++) tok_add(v, merged[i], TOKEN_NORMAL, 0), tok_merge(v, merges[i]);
    tok_add(v, "<|end|>", TOKEN_CONTROL, 0);
    tok_add(v, "<|end|>+", TOKEN_CONTROL, 0);
    tok_add(v, "<h1>", TOKEN_USER_DEFINED, 0);
    tokenizer *t = tok_make(v, TOKENIZER_BPE, "gpt-2", -1);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const char *text = cases[i / 2].text, *whose = cases[i / 2].whose;
        char got[200] = "", piece[32];
        int ids[64], n = tok_marked(t, text, whose, i % 2 ? TOKENIZER_SPECIAL : 0, ids, 64);
        for (int k = 0; k < n; k++) {
            tokenizer_decode(t, &ids[k], 1, TOKENIZER_SPECIAL, piece, sizeof piece);
            strcat(strcat(got, k ? "|" : ""), piece);
        }
        check(strcmp(got, cases[i / 2].pieces) == 0, "%s, %s: %s, expected %s", text, whose, got,
              cases[i / 2].pieces);
    }
    int ids[8];
    check(tok_marked(t, "<|end|>", NULL, 0, ids, 8) == 7 &&
              tok_marked(t, "<|end|>", NULL, TOKENIZER_SPECIAL, ids, 8) == 1,
          "without marks it is as the flags say");
    tokenizer_free(t);
    tok_free(v);
}

/* Text without marks is the same tokens, whoever its bytes are from. */
static void tok_test_borders(void)
{
    static const char text[] = "the tea  is\n\nso, it's 1234 t\u00E9a <the> the\u2581tea</the";
    static const char *const rules[] = { "gpt-2", "llama-bpe", "qwen2", "deepseek-llm", NULL };
    size_t len = sizeof text - 1;
    uint64_t random = 7;
    for (int i = 0; i < 5; i++) {
        tok_vocab *v = rules[i] ? tok_bytes_bpe() : tok_bytes_spm();
        tok_add(v, "th", TOKEN_NORMAL, 1), tok_add(v, "the", TOKEN_NORMAL, 2);
        if (rules[i]) tok_merge(v, "t h"), tok_merge(v, "th e");
        tok_add(v, "<|end|>", TOKEN_CONTROL, 0);
        tokenizer *t = tok_make(v, rules[i] ? TOKENIZER_BPE : TOKENIZER_SPM, rules[i], -1);
        int want[128], got[128], wrong = 0;
        int n = tokenizer_encode(t, text, len, TOKENIZER_BEGIN, want, 128, NULL, 0);
        for (size_t k = 0; k < len + 200; k++) {
            char whose[sizeof text] = { 0 };
            for (size_t b = 0; b < len; b++) { /* every border, then any number of them */
                whose[b] = (k < len ? b < k : random_unit(&random) < 0.5) ? '#' : '.';
            }
            wrong += tok_marked(t, text, whose, TOKENIZER_BEGIN, got, 128) != n ||
                     memcmp(want, got, (size_t)n * sizeof *got);
        }
        check(!wrong && n > 20, "%s: %d of %zu ways give other tokens",
              rules[i] ? rules[i] : "SPM", wrong, len + 200);
        tokenizer_free(t);
        tok_free(v);
    }
}

/* Marks, whose text only marked bytes or TOKENIZER_SPECIAL may become, and what only looks so. */
static const char *const tok_marks[] = {
    "<|im_end|>", "<|a|>", "<\uFF5CUser\uFF5C>", "<\uFF5Ctool\u2581call\uFF5C>", "[|endofturn|]",
    "<think>", "</think>", "<end_of_turn>", "<unused12>", "<tool\u2581call>", "<pad>", "</s>",
    "<s>", "<unk>", "<fim-prefix>", "<seed:think>", "<EOT>", "[INST]", "[/INST]", "[TOOL_CALLS]",
    "[gMASK]", "<|channel>", "<tool_call|>", "<|\"|>",
};
static const char *const tok_words[] = {
    "<0x0A>", "<table>", "</h1>", "<strong>", "</ul>", "<|>", "<||>", "<|a b|>", "<>", "</>",
    "<1>", "<a b>", "<a", "a>", "[|]", "[I]", "[Inst]", "[/]", "[]", "[gMASKS]", "\n\n", "word",
    "<\uFF5C>", "<|1>", "<|b c>", "<b c|>", "<a|b>", "<|", "|>",
};

/* Says what the text of a token gives: 'm': the token where it is special, 't': the token also in
 * plain text, 'n': other tokens; '?': something else, or the text doesn't come back. */
static int tok_finds(const tok_vocab *v, const tokenizer *t, int id)
{
    const char *text = v->tokens[id].data;
    int ids[64], found[2];
    for (int special = 0; special < 2; special++) {
        int n = tokenizer_encode(t, text, strlen(text), special ? TOKENIZER_SPECIAL : 0, ids, 64,
                                 NULL, 0);
        found[special] = n == 1 && ids[0] == id;
        if (!tok_round_trip(t, text, strlen(text), special ? TOKENIZER_SPECIAL : 0)) return '?';
    }
    int defined = tokenizer_encode(t, text, strlen(text), TOKENIZER_USER_DEFINED, ids, 64, NULL, 0);
    defined = defined == 1 && ids[0] == id;
    if (defined != (v->types[id] == TOKEN_USER_DEFINED || found[0])) return '?';
    if (tokenizer_is_special(t, id) != (found[1] != found[0] || v->types[id] == 4)) return '?';
    return found[0] ? found[1] ? 't' : '?' : found[1] ? 'm' : 'n';
}

static void tok_test_marks(void)
{
    static const int types[] = { TOKEN_NORMAL, TOKEN_USER_DEFINED, TOKEN_CONTROL, TOKEN_UNKNOWN };
    size_t n_marks = sizeof tok_marks / sizeof *tok_marks;
    size_t n = n_marks + sizeof tok_words / sizeof *tok_words;
    for (size_t i = 0; i < 12 * n; i++) {
        enum tokenizer_kind kind = (enum tokenizer_kind)(i / n / 4);
        int spm = kind != TOKENIZER_BPE, type = types[i / n % 4], mark = i % n < n_marks;
        const char *text = mark ? tok_marks[i % n] : tok_words[i % n - n_marks];
        if (spm && strstr(text, "\u2581")) continue; /* a space there */
        tok_vocab *v = spm ? tok_bytes_spm() : tok_bytes_bpe();
        if (spm) tok_add(v, "\u2581", TOKEN_NORMAL, 0);
        if (spm) v->tokens[0].len = v->tokens[1].len = v->tokens[2].len = 0; /* tested here */
        int id = tok_add(v, text, type, 0);
        tok_add(v, "<bos>", TOKEN_CONTROL, 0);
        tokenizer *t = tok_make(v, kind, "llama-bpe", -1);
        int found = tok_finds(v, t, id), same = 0;
        int wanted = mark || type == TOKEN_CONTROL || type == TOKEN_UNKNOWN ? 'm'
                     : type == TOKEN_USER_DEFINED                          ? 't'
                                                                           : 0;
        char out[64];
        same = tokenizer_decode(t, &id, 1, 0, out, sizeof out) == strlen(text);
        check(!wanted || found == wanted, "%s of type %d in kind %d: %c, not %c", text, type, kind,
              found, wanted);
        check(wanted || found == 'n' || found == 't', "%s: %c", text, found);
        check(type == TOKEN_CONTROL || type == TOKEN_UNKNOWN || same || strstr(text, "0x"),
              "%s of type %d doesn't decode to its text", text, type);
        tokenizer_free(t);
        tok_free(v);
    }
}

/* What merges make is no mark, unless its type says so; <s> is a tag of HTML beside others. Files
 * without types. */
static void tok_test_untyped(void)
{
    static const char *const merges[] = { "< s", "<s >", "< /", "</ s", "</s >" };
    for (int i = 0; i < 4; i++) {
        tok_vocab *v = tok_bytes_bpe();
        tok_add(v, "<s", TOKEN_NORMAL, 0);
        tok_add(v, "</", TOKEN_NORMAL, 0);
        tok_add(v, "</s", TOKEN_NORMAL, 0);
        tok_add(v, "<s>", i == 1 ? TOKEN_USER_DEFINED : TOKEN_NORMAL, 0);
        tok_add(v, "</s>", TOKEN_NORMAL, 0);
        tok_add(v, i == 3 ? "<strong>" : "<|end|>", TOKEN_USER_DEFINED, 0);
        for (size_t k = 0; k < (i == 2 || i == 3 ? 0 : 5); k++) tok_merge(v, merges[k]);
        tokenizer *t = tok_make(v, TOKENIZER_BPE, "gpt-2", -1);
        const char *warning = tokenizer_warning(t), *fit = i == 1 ? "4 of 5" : "0 of 0";
        check(i == 0 ? !warning : warning && strstr(warning, fit), "%s",
              warning ? warning : "no warning");
        TOK_PIECES(t, "<s>", 0, "<|s|>");
        TOK_PIECES(t, "<s></s>", TOKENIZER_SPECIAL, i == 0   ? "<|s|>|</|s|>"
                                                    : i == 1 ? "<s>|</|s|>"
                                                    : i == 2 ? "<s>|</s>"
                                                             : "<|s|>|<|/|s|>");
        tokenizer_free(t);
        tok_free(v);
    }
}

/* Byte tokens without their type: the bytes of a character, and "<0x0A>" stays text. */
static void tok_test_byte_form(void)
{
    static const int types[] = { TOKEN_BYTE, TOKEN_NORMAL, 0 };
    tok_vocab *v = tok_bytes_spm();
    for (const char *c = "<0xA>"; *c; c++) {
        char one[2] = { *c, 0 };
        tok_add(v, one, TOKEN_NORMAL, 0);
    }
    int long_piece = tok_add(v, "<0x", TOKEN_NORMAL, 0);
    tok_add(v, "0x", TOKEN_NORMAL, 0);
    tok_add(v, "0A", TOKEN_NORMAL, 0);
    tok_add(v, "0A>", TOKEN_NORMAL, 0);
    for (int i = 0; i < 3; i++) {
        for (int byte = 0; byte < 256; byte++) v->types[3 + byte] = types[i];
        tokenizer *t = tok_make(v, TOKENIZER_SPM, NULL, 0);
        TOK_PIECES(t, "\u00E9\n", 0, "\xC3|\xA9|\n");
        TOK_PIECES(t, "<0x0A>", 0, "<0x|0A>");
        TOK_PIECES(t, "<0x0A>", TOKENIZER_SPECIAL, "<0x|0A>");
        int id = 3 + '\n';
        char text[8];
        check(tokenizer_decode(t, &id, 1, 0, text, sizeof text) == 1 && *text == '\n',
              "a byte token of type %d decodes to %s", types[i], text);
        check(!tokenizer_is_special(t, id) && !tokenizer_is_special(t, long_piece), "not special");
        tokenizer_free(t);
    }
    tok_free(v);
    v = tok_bytes_bpe();
    int id = tok_add(v, "<0x0A>", TOKEN_NORMAL, 0);
    tokenizer *t = tok_make(v, TOKENIZER_BPE, "llama-bpe", -1);
    TOK_PIECES(t, "<0x0A>", 0, "<|0|x|0|A|>");
    char text[8];
    check(tokenizer_decode(t, &id, 1, 0, text, sizeof text) == 6, "in BPE it is text: %s", text);
    tokenizer_free(t);
    tok_free(v);
}

/* Random bytes, and telling ones, come back whole. */
static void tok_test_bytes(void)
{
    static const char *const texts[] = { "\x80",
                                         "\xC0\xAF",
                                         "\xED\xA0\x80",
                                         "\xF5\x80\x80\x80",
                                         "\xE6\xAD",
                                         "\xFC\x80\x80\x80\x80\x80",
                                         "\xF0\x9F\x98",
                                         "a\xFF b",
                                         "\xE2\x96",
                                         "\xEF\xBB\xBFx\r\n",
                                         "\xF4\x90\x80\x80" };
    static const char *const rules[] = { "gpt-2",        "falcon",         "llama-bpe",  "gpt-4o",
                                         "deepseek-llm", "deepseek-coder", "deepseek-v3",
                                         "laguna",       "tiny_aya",       "afmoe" };
    uint32_t random = 1;
    for (size_t r = 0, n = sizeof rules / sizeof *rules; r < n + 2; r++) {
        int spm = r >= n, bad = 0;
        enum tokenizer_kind kind = r == n ? TOKENIZER_SPM
                                   : spm  ? TOKENIZER_CHARACTER_BPE
                                          : TOKENIZER_BPE;
        tok_vocab *v = spm ? tok_bytes_spm() : tok_bytes_bpe();
        if (spm) tok_add(v, "\u2581", TOKEN_NORMAL, 0);
        tokenizer *t = tok_make(v, kind, spm ? NULL : rules[r], -1);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            bad += !tok_round_trip(t, texts[i], strlen(texts[i]), TOKENIZER_BEGIN);
        }
        for (int i = 0; i < 500; i++) {
            static const char some[] = "\0\x20\n\r\xE2\x80\x80\x80\xF0\x9F\xC3'1aZ.";
            char text[40];
            for (size_t k = 0; k < sizeof text; k++) {
                random = random * 1664525 + 1013904223;
                text[k] = (char)(i % 2 ? random >> 24
                                       : (uint32_t)some[(random >> 24) % (sizeof some - 1)]);
            }
            bad += !tok_round_trip(t, text, sizeof text - (size_t)i % 7, TOKENIZER_BEGIN);
        }
        check(bad == 0, "%d texts of odd bytes don't come back from %s, kind %d", bad,
              spm ? "-" : rules[r], kind);
        tokenizer_free(t);
        tok_free(v);
    }
}

/* Vocabularies as a broken or malicious file could have them. */
static void tok_test_hostile(void)
{
    char error[200] = "";
    tokenizer_vocab vocab = { .kind = TOKENIZER_SPM };
    check(!tokenizer_new(&vocab, error, sizeof error) && strstr(error, "no tokens"), "empty: %s",
          error);
    check(!tokenizer_new(&vocab, NULL, 0), "empty, without an error text");

    tok_vocab *v = calloc(1, sizeof *v);
    const char *tokens[] = { "",       "a",      "a",        "<0xZZ>",  "<0x-1>", "<0x1>",
                             "<0x41>", "<0x41>", "\xFF\xFE", "\u2581",  "",       "<0xff>",
                             "aa",     "aaa",    "\u2581a",  "a\u2581a" };
    const float scores[] = { 0,   NAN, INFINITY, -INFINITY, NAN, 0,   -0.0f, 0,
                             NAN, NAN, 0,        0,         NAN, NAN, 1,     NAN };
    const int types[] = { 1, 1, 1, 6, 6, 6, 6, 6, 4, 1, 3, 6, 1, 1, 99, -5 };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        tok_add(v, tokens[i], types[i], scores[i]);
    }
    v->tokens[8].len = 2;
    tokenizer *t = tok_make(v, TOKENIZER_SPM, NULL, 1 << 30);
    check(tokenizer_find(t, "a", 1) == 1, "the first of equal tokens counts");
    TOK_PIECES(t, "aaaaa a", 0, "aaa|aa| a");
    TOK_PIECES(t, "A\xFF", 0, "A|\xFF");
    check(tokenizer_encode(t, "b", 1, 0, NULL, 0, error, sizeof error) == -1 &&
              strstr(error, "0x62"),
          "a byte without a token: %s", error);
    check(tokenizer_encode(t, "b", 1, 0, NULL, 0, NULL, 0) == -1, "the same without an error text");
    int ids[16];
    for (int i = 0; i < 16; i++) {
        ids[i] = i;
    }
    char text[200];
    size_t len = tokenizer_decode(t, ids, 16, TOKENIZER_SPECIAL, text, sizeof text);
    check(len == 35, "odd tokens decode to %zu bytes", len);
    tokenizer_free(t);
    t = tok_make(v, TOKENIZER_SPM, NULL, 1);
    TOK_PIECES(t, "ab\u00FCa", 0, "a|a|a|a");
    tokenizer_free(t);

    tok_merge(v, "a a");
    tok_merge(v, "aa a");
    t = tok_make(v, TOKENIZER_BPE, "", -1);
    TOK_PIECES(t, "aaaaa", 0, "aa|aaa");
    TOK_PIECES(t, "abaxa", 0, "aaa");
    tokenizer_free(t);
    tokenizer_vocab bare = { .kind = TOKENIZER_BPE,
                             .n_tokens = v->n,
                             .tokens = v->tokens,
                             .n_merges = 5,
                             .pre = "gpt-2",
                             .bos = 99,
                             .unknown = 0 };
    t = tokenizer_new(&bare, error, sizeof error);
    check(t && tokenizer_encode(t, "aab", 3, TOKENIZER_BOS, ids, 16, NULL, 0) == 2,
          "no merges, scores, types");
    tokenizer_free(t);
    tok_free(v);
}

/* Seconds that encode takes for n bytes made of a repeated unit, with `last` at the end. */
static double tok_seconds(const tokenizer *t, const char *unit, char last, size_t n)
{
    char *text = malloc(n);
    size_t len = strlen(unit);
    for (size_t i = 0; i < n; i++) {
        text[i] = unit[i % len];
    }
    text[n - 1] = last;
    clock_t start = clock();
    int count = tokenizer_encode(t, text, n, TOKENIZER_SPECIAL, NULL, 0, NULL, 0);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    check(count > 0, "encode of a large text");
    free(text);
    return seconds;
}

/* Time grows with the length of the text, also for long runs and with many special tokens. */
static void tok_test_time(void)
{
    static const char *const names[] = { "llama-bpe", "deepseek-llm", "qwen2",
                                         "tiny_aya",  NULL,           NULL };
    static const char *const units[] = { "a",  " ", "\n",           "<",
                                         "<|", "1", "\xE4\xB8\xAD", "\u0301\u0323" };
    for (int k = 0; k < 6; k++) {
        enum tokenizer_kind kind = k == 5    ? TOKENIZER_CHARACTER_BPE
                                   : names[k] ? TOKENIZER_BPE
                                              : TOKENIZER_SPM;
        char name[80];
        tok_vocab *v = names[k] ? tok_bytes_bpe() : tok_bytes_spm();
        tok_add(v, names[k] ? "aa" : "a", TOKEN_NORMAL, 0);
        tok_add(v, names[k] ? "aaaa" : "aa", TOKEN_NORMAL, 0);
        tok_add(v, names[k] ? "\u0120\u0120" : "\u2581\u2581", TOKEN_NORMAL, 0);
        tok_merge(v, "a a");
        tok_merge(v, "aa aa");
        tok_merge(v, "\u0120 \u0120");
        for (int i = 0; i < 1000; i++) {
            snprintf(name, sizeof name, "<|%.*s%d|>", i % 60,
                     "<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|<|", i);
            tok_add(v, name, TOKEN_CONTROL, 0);
        }
        tokenizer *t = tok_make(v, kind, names[k], -1);
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            double large = tok_seconds(t, units[i], 'x', 1 << 20);
            double small = large < 2 ? 0
                                     : tok_seconds(t, units[i], 'x', 1 << 18); /* slow machine? */
            check(large < 2 || large < 8 * small,
                  "%s, kind %d: 1 MB of %s takes %.1f s, a quarter %.1f s",
                  names[k] ? names[k] : "-", kind, units[i], large, small);
        }
        tokenizer_free(t);
        tok_free(v);
    }
}

/* Columns of a terminal, those of the Python package wcwidth. */
static void tok_test_columns(void)
{
    static const char *const none[] = { "\u0301", "\u0E31", "\u0E49", "\u093F", "\u0941", "\u05B4",
                                        "\u064B", "\u200B", "\u200D", "\uFE0F", "\u20DD", "\n",
                                        "\x7F",   "\u1160" };
    static const char *const one[] = { "a",      "~",      "\u00E9", "\u0E01", "\u0915",
                                       "\u05D0", "\u0627", "\u00AD", "\u2190", "\u2764",
                                       "\uFF71", "\U0001D400" };
    static const char *const two[] = { "\u231A", "\u4E2D",     "\uAC00",     "\u3042",    "\u1100",
                                       "\uFF21", "\U0001F600", "\U0001F1E9", "\u3000" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        check(tokenizer_columns(none[i], (int)strlen(none[i])) == 0, "none: number %zu", i);
    }
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        check(tokenizer_columns(one[i], (int)strlen(one[i])) == 1, "one: %s", one[i]);
    }
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        check(tokenizer_columns(two[i], (int)strlen(two[i])) == 2, "two: %s", two[i]);
    }
    check(tokenizer_columns("", 0) == 0 && tokenizer_columns("\xFF", 1) == 1 &&
              tokenizer_columns("\xF4\x8F\xBF\xBF", 4) == 1,
          "columns of nothing, of a byte and of the last character");
}

static void test_tokenizer(void)
{
    tok_test_bpe();
    tok_test_plain();
    tok_test_rules();
    tok_test_normal();
    tok_test_swallowing();
    tok_test_spm();
    tok_test_characters();
    tok_test_prefix();
    tok_test_marked();
    tok_test_borders();
    tok_test_marks();
    tok_test_untyped();
    tok_test_byte_form();
    tok_test_bytes();
    tok_test_hostile();
    tok_test_columns();
    tok_test_time();
}
