/* tokenizer.h: text to tokens and back.
 *
 * Three kinds of vocabulary are known: SentencePiece (merges by score, unknown characters become
 * byte tokens), byte-level BPE (text is first split into words by a rule, then merged by rank), and
 * BPE of characters (spelt like SentencePiece, merged by rank in each line).
 * A tokenizer is made from plain arrays and knows nothing of files. It is read-only once made, so
 * any number of threads may use it at once. Nothing here prints, exits or aborts.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tokenizer tokenizer;

/* A run of bytes; no zero at its end. */
typedef struct {
    const char *data;
    size_t len;
} tokenizer_text;

enum tokenizer_kind { TOKENIZER_SPM, TOKENIZER_BPE, TOKENIZER_CHARACTER_BPE };

/* What a token is; the numbers are those of SentencePiece and of GGUF.
 *
 * A mark is what a chat, a thought or a call of a tool is marked with: a token of the types CONTROL
 * and UNKNOWN, and one of the types NORMAL and USER_DEFINED that looks like a mark, as many files
 * don't tell the type: <|im_end|>, [|endofturn|], <think>, </s>, [INST], but not <0x0A>, the tags
 * of HTML, or what a merge of byte-level BPE makes. Text becomes a mark only where a flag says so.
 * Byte tokens are known by their form too, but not in byte-level BPE. */
enum tokenizer_type {
    TOKEN_NORMAL = 1,   /* text */
    TOKEN_UNKNOWN,      /* stands for what the vocabulary can't spell */
    TOKEN_CONTROL,      /* <s>, <|im_end|>: a mark */
    TOKEN_USER_DEFINED, /* found in text always, before anything else, if it is no mark */
    TOKEN_UNUSED,
    TOKEN_BYTE /* <0x0A>: one byte */
};

enum {
    TOKENIZER_BEGIN = 1,  /* the text begins here, or behind a special token of an earlier call:
                             SentencePiece's space prefix is added in front of its first piece too;
                             decode: it is removed, here and behind special tokens */
    TOKENIZER_BOS = 2,    /* encode: put the beginning-of-text token in front, if there is one */
    TOKENIZER_SPECIAL = 4, /* encode: the text of marks becomes these tokens; decode: tokens of the
                             types CONTROL and UNKNOWN give their text, else nothing */
    TOKENIZER_USER_DEFINED = 8 /* encode: the text of marks of type USER_DEFINED becomes these
                             tokens, as the models' own tokenizers do in all text */
};

/* The description of a vocabulary. The arrays and the bytes they point to must live as long as the
 * tokenizer. */
typedef struct {
    enum tokenizer_kind kind;
    int n_tokens;
    const tokenizer_text
        *tokens;          /* (n_tokens) as files store them: GPT-2's characters for bytes in BPE,
                                     else U+2581 for space; special tokens are plain text */
    const float *scores;  /* (n_tokens) SPM: higher merges first; NULL: all 0 */
    const int32_t *types; /* (n_tokens) enum tokenizer_type; NULL: all TOKEN_NORMAL */
    int n_merges;
    const tokenizer_text *merges; /* (n_merges) but SPM: "left right", best first */
    const char *pre;      /* BPE: name of the rule that splits words and says whether text is
                                     normalized; NULL or unknown: GPT-2's rule, with a warning */
    int bos;              /* id that TOKENIZER_BOS puts in front, -1: none */
    int unknown;          /* id for what can't be spelt, -1: it is an error in encode; BPE leaves
                                     out the bytes that have no token */
    int add_space_prefix; /* but BPE: a space goes in front of text that begins, and of each
                                     piece of text behind a special token */
} tokenizer_vocab;

/* Makes a tokenizer. On failure returns NULL and writes one sentence into error (size bytes). */
tokenizer *tokenizer_new(const tokenizer_vocab *vocab, char *error, size_t size);

/* NULL is allowed. */
void tokenizer_free(tokenizer *t);

/* A sentence on what was assumed (unknown splitting rule, merges that fit no token), or NULL. */
const char *tokenizer_warning(const tokenizer *t);

/* Writes the first max token ids of text (len bytes, any bytes) to tokens and returns how many
 * there are in all, like snprintf; tokens may be NULL when max is 0. Returns -1 and sets error (may
 * be NULL) when memory runs out, the text is over 1 GB, or the vocabulary can't spell it. Decoding
 * gives text back as it was, but for models whose rule composes characters (Unicode's form C). */
int tokenizer_encode(const tokenizer *t, const char *text, size_t len, int flags, int *tokens,
                     int max, char *error, size_t size);

/* The same for a text of which only some bytes may be part of a mark, whatever else stands in it:
 * those whose marks (len) are not zero. NULL marks: as the flags say. */
int tokenizer_encode_marked(const tokenizer *t, const char *text, const unsigned char *marks,
                            size_t len, int flags, int *tokens, int max, char *error, size_t size);

/* Writes the first bytes of the text of n tokens, at most size with the closing zero, and returns
 * the length of the whole text without that zero, like snprintf. The text may end in the middle of
 * a UTF-8 character. Ids outside the vocabulary give nothing. */
size_t tokenizer_decode(const tokenizer *t, const int *tokens, int n, int flags, char *text,
                        size_t size);

/* The length of the UTF-8 character that text (len > 0) begins with; 0: it is cut off by the end;
 * -1: these bytes are none. */
int tokenizer_char(const char *text, size_t len);

/* Whether a token is one that is cut out of text, a mark or user-defined, so that text behind it is
 * encoded with TOKENIZER_BEGIN. Ids outside the vocabulary aren't. */
int tokenizer_is_special(const tokenizer *t, int id);

/* The columns that a UTF-8 character takes on a terminal, 0 (what combines with the one before, and
 * control characters), 1 (also a byte that is no character) or 2. */
int tokenizer_columns(const char *text, int length);

/* The id of the token spelt exactly so in the vocabulary (stored spelling), or -1. */
int tokenizer_find(const tokenizer *t, const char *text, size_t len);

/* A chat template: the program in Jinja by which a model file writes conversations down. It is
 * read-only once made. */
typedef struct tokenizer_template tokenizer_template;

/* A JSON object whose members are variables of a template. The strings of trusted ones count as
 * the template's own. */
typedef struct {
    tokenizer_text json;
    int trusted;
} tokenizer_variables;

/* What a template wrote, and of each byte whether it is the template's own, so that it may be part
 * of a mark. One allocation: the caller frees text. */
typedef struct {
    char *text;           /* (len), with a zero behind it */
    unsigned char *marks; /* (len) */
    size_t len;
} tokenizer_marked;

/* Reads a template (len bytes). On failure returns NULL and writes one sentence into error (size
 * bytes). */
tokenizer_template *tokenizer_template_new(const char *source, size_t len, char *error,
                                           size_t size);

/* NULL is allowed. */
void tokenizer_template_free(tokenizer_template *t);

/* Runs a template with n sets of variables, within bounds of steps and memory. now: the time, in
 * seconds since 1970, that strftime_now writes. Returns 0, or -1 with a sentence in error: the
 * template's own where it raises one. */
int tokenizer_render(const tokenizer_template *t, const tokenizer_variables *variables, int n,
                     int64_t now, tokenizer_marked *to, char *error, size_t size);

#ifdef __cplusplus
}
#endif
#endif
