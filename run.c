/* run.c: run a language model that is one other file.
 *
 *   cc -O3 run.c tokenizer.c -lm -o run           the program (add -fopenmp for threads)
 *   cc -O3 -c -DRUN_NO_MAIN run.c tokenizer.c     the library
 *   #define RUN_HEADER_ONLY
 *   #include "run.c"                              its declarations, from C or C++
 *
 * A program that writes a story:
 *
 *   llm_model *m = llm_open("model.gguf");
 *   llm_session *s = m ? llm_session_new(m, NULL) : NULL;
 *   if (!s || llm_generate(s, "Once upon a time", 100, NULL, print, NULL) < 0) puts(llm_error());
 *   llm_session_free(s);
 *   llm_close(m);
 *
 * Errors: a function that fails returns NULL or -1, and llm_error() says in one sentence what was
 * found and what was expected. Nothing here prints, exits or aborts. Destructors take NULL.
 * Threads: a model is read-only and may be shared; a session is used by one thread at a time.
 */

/* ==== 0. Public API =========================================================================== */

#ifndef RUN_API
#define RUN_API
#define RUN_VERSION "0.1"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct llm_model llm_model;     /* weights and vocabulary */
typedef struct llm_session llm_session; /* one conversation: KV cache, position, random state */

/* How the next token is drawn. The steps, in this order: repeat_penalty, temperature, top_k, top_p,
 * min_p. All zero is greedy. */
typedef struct {
    float temperature; /* logits are divided by it; 0: always the likeliest token */
    float top_p; /* keep the likeliest tokens that together reach this probability; 0 or 1: all */
    int top_k;   /* keep this many of the likeliest tokens; 0: all */
    float min_p; /* keep tokens at least this share as likely as the likeliest; 0: all */
    float repeat_penalty; /* positive logits of the last 64 tokens are divided by it, negative ones
                             multiplied; 0 or 1: off */
} llm_sampling;

/* How a session is made. All zero gives the defaults. */
typedef struct {
    int context;       /* positions that the KV cache holds; 0: the model's, or what half of the
                          machine's memory holds, so say less for several sessions */
    int threads;       /* 0: one for each physical core */
    uint64_t seed;     /* every seed is good */
    const char *cache; /* format of the KV cache: f16, f32 or q8_0 (half of f16); NULL: f16 */
} llm_options;

/* What a model file says of itself. Texts live as long as the model; unknown ones are "". */
typedef struct {
    const char *name, *arch, *format; /* format: the weight format that most bytes have */
    const char *chat_template;
    const char *chat_format; /* the row of templates[] that it is, "" if none */
    const char *warning;     /* what was assumed while loading, "" if nothing */
    const char *kernels;     /* the instruction set in use */
    int context, vocab_size, dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim;
    int bos, eos;       /* token ids, -1: none */
    int has_weights;    /* 0: a vocabulary-only file; it encodes and decodes, and has no sessions */
    int64_t n_params;   /* numbers in all tensors */
    int64_t bytes_read; /* weight bytes read for each generated token */
    llm_sampling sampling; /* the file's own general.sampling.* keys; temperature 1 and top_p 0.9
                              where absent */
} llm_facts;

enum {
    LLM_BEGIN = 1,  /* the text begins here: SentencePiece's leading space is added or removed */
    LLM_BOS = 2,    /* encode: put the beginning-of-text token in front, if the model wants one */
    LLM_SPECIAL = 4 /* encode: the text of control tokens becomes these tokens, else it stays text;
                       decode: control tokens give their text, else nothing */
};

/* The sentence of the last failure in this thread. */
const char *llm_error(void);

/* Maps a GGUF file. The file must not change while the model is open. */
llm_model *llm_open(const char *path);

/* The same from a buffer of the caller's, aligned to 8 bytes, that lives and stays unchanged until
 * llm_close. */
llm_model *llm_open_memory(const void *data, size_t size);

/* All sessions of the model must be freed before. */
void llm_close(llm_model *m);

const llm_facts *llm_info(const llm_model *m);

/* Writes the first max token ids of text (len bytes) and returns how many there are in all, like
 * snprintf. */
int llm_encode(const llm_model *m, const char *text, size_t len, int flags, int *tokens, int max);

/* Writes the text of n tokens (at most size bytes with the closing zero) and returns its length,
 * like snprintf. It may end in the middle of a UTF-8 character. */
size_t llm_decode(const llm_model *m, const int *tokens, int n, int flags, char *text, size_t size);

/* Whether the token ends a text or a turn. */
int llm_is_stop(const llm_model *m, int token);

llm_session *llm_session_new(const llm_model *m, const llm_options *options);
void llm_session_free(llm_session *s);

/* A second session with the same past, position and random state; the cost is a copy of the used KV
 * cache. */
llm_session *llm_fork(const llm_session *s);

/* Positions in use, and how many there are. */
int llm_position(const llm_session *s);
int llm_context(const llm_session *s);

/* Goes back to an earlier position; what came after is forgotten, and there are no logits until the
 * next evaluation. */
int llm_rewind(llm_session *s, int position);

/* Appends n tokens and returns the logits after the last one: (vocab_size) floats that the session
 * owns and the next evaluation overwrites. On failure returns NULL and the session is as before. */
const float *llm_eval(llm_session *s, const int *tokens, int n);

/* Appends n tokens and writes the logits after each of them to logits (n, vocab_size). */
int llm_eval_all(llm_session *s, const int *tokens, int n, float *logits);

/* Appends one token to each of n different sessions of one model, reading the weights once for all
 * of them. Each session then has its own logits for llm_logits and llm_sample. */
int llm_eval_many(llm_session *const *sessions, const int *tokens, int n);

/* The logits after the session's last token (vocab_size), NULL if nothing was evaluated since the
 * session was made or rewound. */
const float *llm_logits(const llm_session *s);

/* Draws the next token from the session's last logits; it is not appended. NULL takes the model
 * file's sampling. */
int llm_sample(llm_session *s, const llm_sampling *sampling);

/* Appends a turn of a conversation in the model's chat format. role is system, user or assistant;
 * the text is plain: nothing in it is taken for the format's own marks. NULL text opens the turn,
 * so that llm_generate writes it; the next turn closes it. On failure the session is where it was,
 * but has no logits. */
int llm_turn(llm_session *s, const char *role, const char *text);

/* Appends a prompt (plain text) and at most max_tokens generated ones (0 or less: as many as the
 * context holds), until a stop token. on_text gets the generated text piece by piece, always whole
 * UTF-8 characters with a zero at the end; it may be NULL, and ends the generation by returning
 * non-zero. NULL sampling takes the model file's. Returns the number of generated tokens. An empty
 * prompt on a new session starts a text from nothing. */
int llm_generate(llm_session *s, const char *prompt, int max_tokens, const llm_sampling *sampling,
                 int (*on_text)(void *user, const char *text, size_t len), void *user);

#ifdef __cplusplus
}
#endif
#endif

#ifndef RUN_HEADER_ONLY

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer.h"

#ifdef __FAST_MATH__
#error "run.c needs IEEE arithmetic: compile it without -ffast-math"
#endif
_Static_assert(sizeof(size_t) == 8, "a model is larger than the address space of 32 bits");

#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* A loop whose rounds are shared by n threads, where there is OpenMP. */
#ifdef _OPENMP
#include <omp.h>
#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#define PARALLEL_FOR(n, ...) \
    PRAGMA(omp parallel for schedule(dynamic) num_threads(n) if ((n) > 1)) \
    for (__VA_ARGS__)
#else
#define PARALLEL_FOR(n, ...) \
    (void)(n); \
    for (__VA_ARGS__)
#endif

/* ==== 1. Limits and helpers ======================================================================
 * Every limit of the engine stands here. Errors are sentences; memory comes from one arena for each
 * object; a file is read through a cursor that can't leave it. */

enum {
    CHUNK = 512,     /* rows that are evaluated at once; bounds the scratch memory of a session */
    LOGIT_ROWS = 16, /* rows whose logits are computed at once */
    PANEL_ROWS = 16, /* a panel of unpacked weights: rows and columns; it stays in the L1 cache */
    PANEL_COLS = 256,
    TASK_ROWS = 256,  /* rows of a matrix that a thread takes at a time, at most */
    ATTEND_ROWS = 16, /* a tile of attention: query rows, positions unpacked at once */
    ATTEND_BLOCK = 16,
    MIN_WORK = 100000,  /* multiply-adds below which a second thread costs more than it brings */
    REPEAT_WINDOW = 64, /* tokens that the repetition penalty looks back */
    MAX_THREADS = 256,
    MAX_LAYERS = 1024,
    MAX_DIM = 1 << 20, /* any width: embedding, feed-forward, heads x head_dim */
    MAX_HEADS = 1024,
    MAX_GROUP = 128, /* query heads that share a key/value head */
    MAX_HEAD_DIM = 256,
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 24,
    MAX_STOPS = 24
};

typedef tokenizer_text Text;

static _Thread_local char error_text[512];

/* Control characters, which names in files may hold, become '?'. */
static void make_one_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 127) *text = '?';
    }
}

/* Keeps the sentence for llm_error and returns -1. Names come from files, so control characters
 * become '?'. */
__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
    char text[sizeof error_text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_one_line(text);
    memcpy(error_text, text, sizeof text);
    return -1;
}

const char *llm_error(void)
{
    return error_text;
}

/* The memory of an object: a chain of zeroed blocks that are freed together. Once one can't be had,
 * failed stays set, so that it is enough to check at the end. */
typedef struct {
    void *blocks;
    int failed;
} Arena;

static void *take(Arena *a, size_t count, size_t size)
{
    size_t bytes;
    char *block = NULL;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2 ||
        !(block = calloc(1, bytes + 128))) {
        a->failed = 1;
        return NULL;
    }
    *(void **)block = a->blocks;
    a->blocks = block;
    return block + 128 - (uintptr_t)block % 64; /* cache lines are 64 bytes */
}

static void release(Arena *a)
{
    for (void *block = a->blocks, *next; block; block = next) {
        next = *(void **)block;
        free(block);
    }
    a->blocks = NULL;
}

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* IEEE half to single. Moving the bits leaves an exponent that is 112 too small, which a product
 * mends for normal and subnormal numbers alike; infinities and NaNs get their exponent back. */
static float f16_float(uint16_t h)
{
    uint32_t u = float_bits(bits_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f);
    if ((h & 0x7c00) == 0x7c00) u |= 0x7f800000;
    return bits_float(u | (uint32_t)(h & 0x8000) << 16);
}

/* Single to half, to nearest even. Adding a power of two makes the adder itself round at the right
 * bit. */
static uint16_t float_f16(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000;
    float a = bits_float(u & 0x7fffffff);
    if (a != a) return (uint16_t)(sign | 0x7e00);
    if (a >= 65520.0f) return (uint16_t)(sign | 0x7c00);
    if (a < 0x1p-14f) return (uint16_t)(sign | (float_bits(a + 0.5f) - float_bits(0.5f)));
    uint32_t bits = float_bits(a);
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits >> 13) - (112 << 10)));
}

static float bf16_float(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

/* Reads a file from front to back. A read past the end makes at NULL and gives 0 from then on, so
 * that it is enough to check once after a group of reads. */
typedef struct {
    const uint8_t *at, *end;
} Cursor;

static const uint8_t *get(Cursor *c, uint64_t bytes)
{
    const uint8_t *p = c->at;
    if (!p || bytes > (uint64_t)(c->end - p)) return c->at = NULL;
    c->at += bytes;
    return p;
}

static uint64_t get_int(Cursor *c, int bytes)
{
    const uint8_t *p = get(c, (uint64_t)bytes);
    uint64_t v = 0;
    for (int i = 0; p && i < bytes; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static Text get_text(Cursor *c)
{
    uint64_t len = get_int(c, 8);
    const char *data = (const char *)get(c, len);
    return data ? (Text){ data, (size_t)len } : (Text){ "", 0 };
}

static int text_compare(Text a, Text b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* For "%.*s". */
#define SHOW(text) (int)((text).len < 80 ? (text).len : 80), (text).data

/* ==== 2. Number formats ==========================================================================
 * A matrix is stored in rows of blocks. A block holds some numbers and what they share: a scale d,
 * often a minimum m. Four formats of 32 numbers keep one scale for all; the K formats put 256
 * numbers in a super-block whose eight or sixteen small scales are themselves quantized. Layouts:
 * github.com/ggml-org/ggml, docs/gguf.md. To read a format is to be able to unpack it. */

typedef struct {
    uint16_t d;
    uint8_t q[16];
} BlockQ4_0; /* (q - 8) d */
typedef struct {
    uint16_t d, m;
    uint8_t q[16];
} BlockQ4_1; /* q d + m */
typedef struct {
    uint16_t d;
    uint8_t high[4], q[16];
} BlockQ5_0; /* (q - 16) d, fifth bits in high */
typedef struct {
    uint16_t d, m;
    uint8_t high[4], q[16];
} BlockQ5_1; /* q d + m */
typedef struct {
    uint16_t d;
    int8_t q[32];
} BlockQ8_0; /* q d */
typedef struct {
    uint16_t d, m;
    uint8_t scales[12], q[128];
} BlockQ4_K; /* 8 x 32: q d s - m t */
typedef struct {
    uint16_t d, m;
    uint8_t scales[12], high[32], q[128];
} BlockQ5_K; /* 8 x 32: q d s - m t */
typedef struct {
    uint8_t q[128], high[64];
    int8_t scales[16];
    uint16_t d;
} BlockQ6_K; /* 16 x 16: (q - 32) d s */

_Static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20, "as in the file");
_Static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24, "as in the file");
_Static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_K) == 144, "as in the file");
_Static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210, "as in the file");

static void unpack_f32(const void *row, float *y, int n)
{
    memcpy(y, row, (size_t)n * sizeof *y);
}

static void unpack_f16(const void *row, float *y, int n)
{
    const uint16_t *x = row;
    for (int i = 0; i < n; i++) y[i] = f16_float(x[i]);
}

static void unpack_bf16(const void *row, float *y, int n)
{
    const uint16_t *x = row;
    for (int i = 0; i < n; i++) y[i] = bf16_float(x[i]);
}

static void unpack_q4_0(const void *row, float *y, int n)
{
    for (const BlockQ4_0 *b = row; n > 0; b++, n -= 32, y += 32) {
        float d = f16_float(b->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((b->q[i] & 15) - 8);
            y[i + 16] = d * (float)((b->q[i] >> 4) - 8);
        }
    }
}

static void unpack_q4_1(const void *row, float *y, int n)
{
    for (const BlockQ4_1 *b = row; n > 0; b++, n -= 32, y += 32) {
        float d = f16_float(b->d), m = f16_float(b->m);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(b->q[i] & 15) + m;
            y[i + 16] = d * (float)(b->q[i] >> 4) + m;
        }
    }
}

/* The fifth bit of number i of 32, in its place. */
static int fifth_bit(const uint8_t high[4], int i)
{
    return (high[i / 8] >> i % 8 & 1) << 4;
}

static void unpack_q5_0(const void *row, float *y, int n)
{
    for (const BlockQ5_0 *b = row; n > 0; b++, n -= 32, y += 32) {
        float d = f16_float(b->d);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)(((b->q[i] & 15) | fifth_bit(b->high, i)) - 16);
            y[i + 16] = d * (float)((b->q[i] >> 4 | fifth_bit(b->high, i + 16)) - 16);
        }
    }
}

static void unpack_q5_1(const void *row, float *y, int n)
{
    for (const BlockQ5_1 *b = row; n > 0; b++, n -= 32, y += 32) {
        float d = f16_float(b->d), m = f16_float(b->m);
        for (int i = 0; i < 16; i++) {
            y[i] = d * (float)((b->q[i] & 15) | fifth_bit(b->high, i)) + m;
            y[i + 16] = d * (float)(b->q[i] >> 4 | fifth_bit(b->high, i + 16)) + m;
        }
    }
}

static void unpack_q8_0(const void *row, float *y, int n)
{
    for (const BlockQ8_0 *b = row; n > 0; b++, n -= 32, y += 32) {
        float d = f16_float(b->d);
        for (int i = 0; i < 32; i++) y[i] = d * (float)b->q[i];
    }
}

/* Twelve bytes hold eight scales and eight minima of six bits: the first four of each in bytes 0-3
 * and 4-7; of the last four, four bits in the halves of bytes 8-11 and two bits on top of the first
 * ones. */
static void scale_min(const uint8_t s[12], int i, int *scale, int *min)
{
    *scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
    *min = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
}

static void unpack_q4_K(const void *row, float *y, int n)
{
    for (const BlockQ4_K *b = row; n > 0; b++, n -= 256) {
        for (int part = 0; part < 8; part++, y += 32) { /* two parts share 32 bytes */
            int scale, min, shift = part % 2 * 4;
            scale_min(b->scales, part, &scale, &min);
            float d = f16_float(b->d) * (float)scale, m = f16_float(b->m) * (float)min;
            const uint8_t *q = b->q + part / 2 * 32;
            for (int i = 0; i < 32; i++) y[i] = d * (float)(q[i] >> shift & 15) - m;
        }
    }
}

static void unpack_q5_K(const void *row, float *y, int n)
{
    for (const BlockQ5_K *b = row; n > 0; b++, n -= 256) {
        for (int part = 0; part < 8; part++, y += 32) {
            int scale, min, shift = part % 2 * 4;
            scale_min(b->scales, part, &scale, &min);
            float d = f16_float(b->d) * (float)scale, m = f16_float(b->m) * (float)min;
            const uint8_t *q = b->q + part / 2 * 32;
            for (int i = 0; i < 32; i++) {
                y[i] = d * (float)((q[i] >> shift & 15) | (b->high[i] >> part & 1) << 4) - m;
            }
        }
    }
}

static void unpack_q6_K(const void *row, float *y, int n)
{
    for (const BlockQ6_K *b = row; n > 0; b++, n -= 256) {
        for (int part = 0; part < 8; part++, y += 32) { /* four share 64 low and 32 high bytes */
            const uint8_t *q = b->q + part / 4 * 64 + part % 2 * 32;
            const uint8_t *high = b->high + part / 4 * 32;
            int shift = part / 2 % 2 * 4, high_shift = part % 4 * 2;
            for (int i = 0; i < 32; i++) {
                float d = f16_float(b->d) * (float)b->scales[part * 2 + i / 16];
                y[i] = d * (float)(((q[i] >> shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
            }
        }
    }
}

static void pack_f32(void *row, const float *x, int n)
{
    memcpy(row, x, (size_t)n * sizeof *x);
}

static void pack_f16(void *row, const float *x, int n)
{
    uint16_t *y = row;
    for (int i = 0; i < n; i++) y[i] = float_f16(x[i]);
}

/* A number that is none makes its block none, so that it comes to light in the logits. */
static void pack_q8_0(void *row, const float *x, int n)
{
    for (BlockQ8_0 *b = row; n > 0; b++, n -= 32, x += 32) {
        float most = 0;
        int finite = 1;
        for (int i = 0; i < 32; i++) {
            most = fmaxf(most, fabsf(x[i]));
            finite &= fabsf(x[i]) <= 127 * 65504.0f;
        }
        float inverse = finite && most > 1e-30f ? 127 / most : 0;
        b->d = finite ? float_f16(most / 127) : 0x7e00;
        for (int i = 0; i < 32; i++) b->q[i] = finite ? (int8_t)roundf(x[i] * inverse) : 1;
    }
}

/* To add one: its block, an unpack function that agrees bit for bit with the gguf package, a row.
 * The index is the type number in the file. */
typedef struct {
    const char *name;
    int block, bytes; /* numbers and bytes of a block */
    void (*unpack)(const void *row, float *y, int n);
    void (*pack)(void *row, const float *x, int n); /* NULL: not for the KV cache */
} Format;

static const Format formats[] = {
    [0] = { "F32", 1, 4, unpack_f32, pack_f32 },
    [1] = { "F16", 1, 2, unpack_f16, pack_f16 },
    [2] = { "Q4_0", 32, sizeof(BlockQ4_0), unpack_q4_0, NULL },
    [3] = { "Q4_1", 32, sizeof(BlockQ4_1), unpack_q4_1, NULL },
    [6] = { "Q5_0", 32, sizeof(BlockQ5_0), unpack_q5_0, NULL },
    [7] = { "Q5_1", 32, sizeof(BlockQ5_1), unpack_q5_1, NULL },
    [8] = { "Q8_0", 32, sizeof(BlockQ8_0), unpack_q8_0, pack_q8_0 },
    [12] = { "Q4_K", 256, sizeof(BlockQ4_K), unpack_q4_K, NULL },
    [13] = { "Q5_K", 256, sizeof(BlockQ5_K), unpack_q5_K, NULL },
    [14] = { "Q6_K", 256, sizeof(BlockQ6_K), unpack_q6_K, NULL },
    [30] = { "BF16", 1, 2, unpack_bf16, NULL },
};

enum { F32 = 0, N_FORMATS = ARRAY_LEN(formats) };

static size_t row_bytes(const Format *f, int64_t cols)
{
    return (size_t)(cols / f->block) * (size_t)f->bytes;
}

/* ==== 3. GGUF ====================================================================================
 * The file: a header; keys with values (hyperparameters, vocabulary); a directory of tensors;
 * padding; the tensors themselves, each at an aligned offset. Spec: github.com/ggml-org/ggml,
 * docs/gguf.md. Everything here is checked when the file is opened; the tensors are then used where
 * they lie. */

enum { U8, I8, U16, I16, U32, I32, FLOAT32, BOOL, STRING, ARRAY, U64, I64, FLOAT64, N_VALUES };

static const struct {
    const char *name;
    int bytes; /* 0: of varying length */
} value_types[N_VALUES] = {
    { "u8", 1 },  { "i8", 1 },  { "u16", 2 },  { "i16", 2 },    { "u32", 4 },
    { "i32", 4 }, { "f32", 4 }, { "bool", 1 }, { "string", 0 }, { "array", 0 },
    { "u64", 8 }, { "i64", 8 }, { "f64", 8 },
};

typedef struct {
    Text name;
    uint32_t type;
    uint32_t of;         /* type of an array's elements; type otherwise */
    uint64_t count;      /* elements of an array; 1 otherwise */
    const uint8_t *data; /* the first of them, all inside the file */
} Key;

typedef struct {
    Text name;
    const Format *format;
    int64_t shape[4]; /* shape[0] numbers in a row; unused ones are 1 */
    const uint8_t *data;
    uint64_t offset, bytes;
    int used; /* asked for by the model */
} Tensor;

typedef struct {
    const uint8_t *data;
    size_t size;
    int mapped; /* by us, else the caller's buffer */
    Key *keys;  /* (n_keys), sorted by name, like tensors */
    Tensor *tensors;
    uint64_t n_keys, n_tensors;
    uint64_t alignment;
} File;

/* Both begin with their name. */
static int compare_names(const void *a, const void *b)
{
    return text_compare(*(const Text *)a, *(const Text *)b);
}

/* Sorts n things that begin with their name; fails on two of the same name. */
static int sort_names(void *things, uint64_t n, size_t size, const char *what)
{
    qsort(things, (size_t)n, size, compare_names);
    for (uint64_t i = 1; i < n; i++) {
        const Text *t = (const Text *)((char *)things + i * size);
        if (!compare_names((const char *)t - size, t)) {
            return fail("%s %.*s occurs twice", what, SHOW(*t));
        }
    }
    return 0;
}

static const Key *find_key(const File *f, const char *name)
{
    Text wanted = { name, strlen(name) };
    return f->n_keys ? bsearch(&wanted, f->keys, (size_t)f->n_keys, sizeof(Key), compare_names)
                     : NULL;
}

static Tensor *find_tensor(const File *f, const char *name)
{
    Text wanted = { name, strlen(name) };
    return f->n_tensors
               ? bsearch(&wanted, f->tensors, (size_t)f->n_tensors, sizeof(Tensor), compare_names)
               : NULL;
}

/* What people hand over instead of a model, by its first bytes. */
static const struct {
    int offset;
    const char *bytes, *what;
} strangers[] = {
    { 0, "version https://git-lfs",
      "a git-lfs pointer, not the model: fetch the model with `git lfs pull`" },
    { 0, "<", "a web page, not a model: the download went wrong" },
    { 8, "{\"", "a safetensors file: make a GGUF file of its folder with export.py" },
    { 0, "PK", "a PyTorch or zip file: make a GGUF file of it with export.py" },
    { 0, "24ka", "a llama2.c checkpoint: make a GGUF file of it with export.py" },
    { 0, "lmgg", "an old ggml file: only GGUF files can be read" },
    { 0, "tjgg", "an old ggjt file: only GGUF files can be read" },
};

static int fail_magic(const File *f)
{
    if (f->size == 0) return fail("the file is empty");
    for (size_t i = 0; i < ARRAY_LEN(strangers); i++) {
        size_t at = (size_t)strangers[i].offset, n = strlen(strangers[i].bytes);
        if (f->size >= at + n && !memcmp(f->data + at, strangers[i].bytes, n)) {
            return fail("this is %s", strangers[i].what);
        }
    }
    if (f->size < 24) return fail("the file has %zu bytes, too few for a GGUF header", f->size);
    return fail("this is not a GGUF file: it begins with the bytes %02x %02x %02x %02x", f->data[0],
                f->data[1], f->data[2], f->data[3]);
}

static int read_key(Cursor *c, Key *k)
{
    k->name = get_text(c);
    k->type = k->of = (uint32_t)get_int(c, 4);
    k->count = 1;
    if (!c->at) return fail("the file ends in the middle of its keys");
    if (k->name.len == 0) return fail("a key has no name");
    if (k->type == ARRAY) {
        k->of = (uint32_t)get_int(c, 4);
        k->count = get_int(c, 8);
        if (!c->at) return fail("the file ends in the middle of key %.*s", SHOW(k->name));
        if (k->of == ARRAY) return fail("key %.*s is an array of arrays", SHOW(k->name));
    }
    if (k->of >= N_VALUES) {
        return fail("key %.*s has the unknown value type %u", SHOW(k->name), (unsigned)k->of);
    }
    uint64_t left = (uint64_t)(c->end - c->at), each = (uint64_t)value_types[k->of].bytes;
    if (k->count > left / (each ? each : 8)) {
        return fail("key %.*s has %llu values, more than fit in the file", SHOW(k->name),
                    (unsigned long long)k->count);
    }
    k->data = c->at;
    if (each) get(c, k->count * each);
    for (uint64_t i = 0; !each && i < k->count; i++) get_text(c);
    if (!c->at) return fail("a text in key %.*s is longer than the file", SHOW(k->name));
    return 0;
}

static int read_tensor(Cursor *c, Tensor *t)
{
    t->name = get_text(c);
    uint32_t n_dims = (uint32_t)get_int(c, 4);
    if (!c->at) return fail("the file ends in the middle of its tensor directory");
    if (t->name.len == 0) return fail("a tensor has no name");
    if (n_dims < 1 || n_dims > 4) {
        return fail("tensor %.*s has %u dimensions, expected 1 to 4", SHOW(t->name),
                    (unsigned)n_dims);
    }
    int64_t numbers = 1;
    for (uint32_t i = 0; i < 4; i++) {
        t->shape[i] = i < n_dims ? (int64_t)get_int(c, 8) : 1;
        if (c->at && (t->shape[i] < 1 || __builtin_mul_overflow(numbers, t->shape[i], &numbers))) {
            return fail("tensor %.*s has an impossible shape", SHOW(t->name));
        }
    }
    uint32_t type = (uint32_t)get_int(c, 4);
    t->offset = get_int(c, 8);
    if (!c->at) return fail("the file ends in the middle of tensor %.*s", SHOW(t->name));
    if (type >= N_FORMATS || !formats[type].name) {
        return fail("tensor %.*s has the format number %u, which is not known", SHOW(t->name),
                    (unsigned)type);
    }
    t->format = &formats[type];
    if (t->shape[0] % t->format->block) {
        return fail("tensor %.*s has rows of %lld numbers, but %s comes in blocks of %d",
                    SHOW(t->name), (long long)t->shape[0], t->format->name, t->format->block);
    }
    if (__builtin_mul_overflow((uint64_t)(numbers / t->format->block), (uint64_t)t->format->bytes,
                               &t->bytes)) {
        return fail("tensor %.*s has an impossible shape", SHOW(t->name));
    }
    return 0;
}

/* The alignment of the tensors: a key of the file, 32 if it is not there. */
static int read_alignment(File *f)
{
    const Key *k = find_key(f, "general.alignment");
    f->alignment = 32;
    if (!k) return 0;
    Cursor c = { k->data, k->data + 4 };
    if (k->type != U32) {
        return fail("general.alignment is %s, expected u32", value_types[k->type].name);
    }
    f->alignment = get_int(&c, 4);
    if (f->alignment < 8 || f->alignment & (f->alignment - 1)) {
        return fail("general.alignment is %llu, expected a power of two from 8",
                    (unsigned long long)f->alignment);
    }
    return 0;
}

/* Finds each tensor's bytes, which begin at the first aligned offset after the directory. */
static int place_tensors(File *f, uint64_t directory_end)
{
    uint64_t start = (directory_end + f->alignment - 1) & ~(f->alignment - 1);
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        Tensor *t = &f->tensors[i];
        uint64_t end;
        if (t->offset % f->alignment) {
            return fail("tensor %.*s lies at offset %llu, which is not a multiple of %llu",
                        SHOW(t->name), (unsigned long long)t->offset,
                        (unsigned long long)f->alignment);
        }
        if (__builtin_add_overflow(start, t->offset, &end) ||
            __builtin_add_overflow(end, t->bytes, &end) || end > f->size) {
            return fail("the file is cut off: tensor %.*s has %llu bytes at offset %llu of the "
                        "data, the file %zu "
                        "bytes in all",
                        SHOW(t->name), (unsigned long long)t->bytes, (unsigned long long)t->offset,
                        f->size);
        }
        t->data = f->data + start + t->offset;
    }
    return 0;
}

static int parse_file(File *f)
{
    Cursor c = { f->data, f->data + f->size };
    uint32_t version;
    if (f->size < 24 || memcmp(f->data, "GGUF", 4)) return fail_magic(f);
    get(&c, 4);
    version = (uint32_t)get_int(&c, 4);
    if (version == 2u << 24 || version == 3u << 24) return fail("this is a big-endian GGUF file");
    if (version != 2 && version != 3) {
        return fail("GGUF version %u, expected 2 or 3", (unsigned)version);
    }
    uint64_t n_tensors = get_int(&c, 8), n_keys = get_int(&c, 8), left = (uint64_t)(c.end - c.at);
    if (n_keys > left / 13) { /* a key has at least 13 bytes, a directory entry 33 */
        return fail("the header claims %llu keys, more than fit in the file",
                    (unsigned long long)n_keys);
    }
    if (n_tensors > left / 33) {
        return fail("the header claims %llu tensors, more than fit in the file",
                    (unsigned long long)n_tensors);
    }
    f->keys = calloc((size_t)n_keys + 1, sizeof *f->keys);
    f->tensors = calloc((size_t)n_tensors + 1, sizeof *f->tensors);
    if (!f->keys || !f->tensors) return fail("out of memory for the file's directory");
    for (; f->n_keys < n_keys; f->n_keys++) {
        if (read_key(&c, &f->keys[f->n_keys])) return -1;
    }
    for (; f->n_tensors < n_tensors; f->n_tensors++) {
        if (read_tensor(&c, &f->tensors[f->n_tensors])) return -1;
    }
    if (sort_names(f->keys, n_keys, sizeof *f->keys, "key")) return -1;
    if (sort_names(f->tensors, n_tensors, sizeof *f->tensors, "tensor")) return -1;
    if (read_alignment(f)) return -1;
    return place_tensors(f, (uint64_t)(c.at - f->data));
}

static int map_file(File *f, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not wait for its writer */
    if (fd < 0) return fail("%s", strerror(errno));
    void *data = MAP_FAILED;
    int status = -1;
    if (fstat(fd, &st)) {
        fail("%s", strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        fail("this is %s, not a file", S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
    } else if (st.st_size == 0) {
        fail("the file is empty");
    } else if ((data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) ==
               MAP_FAILED) {
        fail("cannot map %lld bytes: %s", (long long)st.st_size, strerror(errno));
    } else {
        f->data = data;
        f->size = (size_t)st.st_size;
        f->mapped = 1;
        status = 0;
    }
    close(fd);
    return status;
}

static void close_file(File *f)
{
    if (f->mapped) munmap((void *)f->data, f->size);
    free(f->keys);
    free(f->tensors);
}

/* ==== 4. Model ===================================================================================
 * What the weights are. A model family is a row of archs[] plus whatever optional tensors its files
 * have: an absent tensor means that its step does nothing, so forward needs no case for it. The
 * price is that loading is strict: shapes must be exact, an optional tensor is in all layers or in
 * none, and a tensor that nobody asked for is an error, because it belongs to a model that we don't
 * understand. */

/* A matrix of (rows, cols), and a bias of (rows) or NULL. Each has its own format. */
typedef struct {
    const Format *format;
    int rows, cols;
    const uint8_t *data;
    const float *bias;
} Mat;

typedef struct {
    const float *attn_norm; /* (dim) */
    Mat wq, wk, wv, wo;     /* (q_dim, dim) (kv_dim, dim) (kv_dim, dim) (dim, q_dim) */
    const float *ffn_norm;  /* (dim) */
    Mat gate, up, down;     /* (hidden_dim, dim) (hidden_dim, dim) (dim, hidden_dim) */
} Layer;

/* To add one: its name in general.architecture, and what its files don't say. */
typedef struct {
    const char *name;
    int rope_halves; /* rotation pairs dimension i with i + n_rot / 2; else 2i with 2i + 1 */
} Arch;

static const Arch archs[] = {
    { "llama", 0 },
    { "qwen2", 1 },
};

/* How a chat is written down. To add one: its name, a piece of the file's own template that tells
 * it from the others, and what opens and closes the turns of system, user and assistant. */
typedef struct {
    const char *name, *tell;
    struct {
        const char *open, *close;
    } turns[3];
} Template;

static const Template templates[] = {
    { "chatml",
      "<|im_start|>",
      { { "<|im_start|>system\n", "<|im_end|>\n" },
        { "<|im_start|>user\n", "<|im_end|>\n" },
        { "<|im_start|>assistant\n", "<|im_end|>\n" } } },
};

struct llm_model {
    File file;
    Arena arena;
    int failed;      /* while loading: the first failure is kept, later look-ups do nothing */
    llm_facts facts; /* also the hyperparameters: facts.dim, facts.n_layers, ... */
    const Arch *arch;
    const Template *template; /* NULL: the file has none that is known */
    float norm_eps;
    int n_rot;        /* dimensions of a head that are rotated */
    float *rope_freq; /* (n_rot / 2) radians per position */
    float rope_scale; /* of cos and sin */
    Mat embedding;    /* (vocab_size, dim) */
    Layer *layers;    /* (n_layers) */
    const float *output_norm;
    Mat output;           /* (vocab_size, dim); may be the embedding */
    tokenizer *tokenizer; /* NULL: the file has no vocabulary */
    int stops[MAX_STOPS], n_stops;
    size_t max_piece; /* bytes of the longest token */
};

/* A leading dot in a name stands for the architecture: ".block_count" is "llama.block_count". */
static const Key *model_key(llm_model *m, char *full, size_t size, const char *name)
{
    snprintf(full, size, "%s%s", *name == '.' ? m->arch->name : "", name);
    return m->failed ? NULL : find_key(&m->file, full);
}

/* An integer between min and max. Where the key is missing: fallback, or a failure if that is out
 * of range. */
static int key_int(llm_model *m, const char *name, int fallback, int min, int max)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, name);
    if (m->failed) return min;
    if (!k) {
        if (fallback < min || fallback > max) m->failed = fail("key %s is missing", full);
        return m->failed ? min : fallback;
    }
    int bytes = value_types[k->type].bytes,
        is_signed = k->type == I8 || k->type == I16 || k->type == I32 || k->type == I64;
    if (!is_signed && k->type != U8 && k->type != U16 && k->type != U32 && k->type != U64 &&
        k->type != BOOL) {
        m->failed = fail("key %s is of type %s, expected an integer", full,
                         value_types[k->type].name);
        return min;
    }
    Cursor c = { k->data, k->data + bytes };
    uint64_t u = get_int(&c, bytes);
    int64_t v = u < INT64_MAX ? (int64_t)u : INT64_MAX;
    if (is_signed) v = (int64_t)(u << (64 - 8 * bytes)) >> (64 - 8 * bytes);
    if (v < min || v > max) {
        m->failed = fail("key %s is %lld, expected %d to %d", full, (long long)v, min, max);
        return min;
    }
    return (int)v;
}

/* A number between min and max; fallback (NAN: required) where the key is missing. */
static float key_float(llm_model *m, const char *name, float fallback, float min, float max)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, name);
    float v = fallback;
    if (m->failed) return min;
    if (!k && v != v) m->failed = fail("key %s is missing", full);
    if (!k) return v;
    if (k->type == FLOAT32) {
        memcpy(&v, k->data, 4);
    } else if (k->type == FLOAT64) {
        double d;
        memcpy(&d, k->data, 8);
        v = (float)d;
    } else {
        v = (float)key_int(m, name, 0, -(1 << 24), 1 << 24);
    }
    if (!m->failed && !(v >= min && v <= max)) {
        m->failed = fail("key %s is %g, expected %g to %g", full, (double)v, (double)min,
                         (double)max);
    }
    return m->failed ? min : v;
}

/* A copy of a text with a zero at its end, "" where the key is missing. */
static const char *key_string(llm_model *m, const char *name)
{
    char full[128], *copy;
    const Key *k = model_key(m, full, sizeof full, name);
    if (!k) return "";
    if (k->type != STRING) {
        m->failed = fail("key %s is of type %s, expected a string", full,
                         value_types[k->type].name);
        return "";
    }
    Cursor c = { k->data, m->file.data + m->file.size };
    Text t = get_text(&c);
    if (!(copy = take(&m->arena, t.len + 1, 1))) return "";
    return memcpy(copy, t.data, t.len);
}

/* The same on one line. */
static const char *key_line(llm_model *m, const char *name)
{
    char *text = (char *)key_string(m, name);
    make_one_line(text);
    return text;
}

/* The values of an array of the given type (4-byte ones as they are, strings as Text); NULL where
 * the key is missing. want is the number of values it must have, -1 if any. */
static void *key_array(llm_model *m, const char *name, uint32_t of, int want, int *count)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, name);
    *count = 0;
    if (!k) return NULL;
    if (k->type != ARRAY || k->of != of) {
        m->failed = fail("key %s is of type %s%s, expected an array of %s", full,
                         k->type == ARRAY ? "array of " : "", value_types[k->of].name,
                         value_types[of].name);
        return NULL;
    }
    if (k->count > MAX_VOCAB || (want >= 0 && k->count != (uint64_t)want)) {
        m->failed = fail("key %s has %llu values, expected %s%d", full,
                         (unsigned long long)k->count, want < 0 ? "at most " : "",
                         want < 0 ? MAX_VOCAB : want);
        return NULL;
    }
    Text *texts = take(&m->arena, (size_t)k->count, of == STRING ? sizeof *texts : 4);
    if (!texts) return NULL;
    *count = (int)k->count;
    Cursor c = { k->data, m->file.data + m->file.size };
    if (of != STRING) return memcpy(texts, k->data, (size_t)k->count * 4);
    for (int i = 0; i < *count; i++) texts[i] = get_text(&c);
    return texts;
}

/* The tensor "name" (of layer, if that is not -1) with the given shape, or NULL if it is optional
 * and missing. */
static const Tensor *load_tensor(llm_model *m, int rows, int cols, int optional, const char *name,
                                 int layer)
{
    char full[128], first[128];
    if (m->failed) return NULL;
    if (layer < 0) {
        snprintf(full, sizeof full, "%s", name);
    } else {
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    }
    snprintf(first, sizeof first, "blk.0.%s", name);
    Tensor *t = find_tensor(&m->file, full);
    if (!t && !optional) m->failed = fail("tensor %s is missing", full);
    if (layer > 0 && optional && !t != !find_tensor(&m->file, first)) {
        m->failed = fail("%s is in the file, but %s is not", t ? full : first, t ? first : full);
    }
    if (!t || m->failed) return NULL;
    if (t->shape[0] != cols || t->shape[1] != rows || t->shape[2] != 1 || t->shape[3] != 1) {
        m->failed = fail("tensor %s is %lldx%lld%s, expected %dx%d", full, (long long)t->shape[1],
                         (long long)t->shape[0], t->shape[2] * t->shape[3] == 1 ? "" : "x...", rows,
                         cols);
        return NULL;
    }
    t->used = 1;
    return t;
}

enum { REQUIRED, OPTIONAL };

/* A vector of n floats, NULL if it is optional and missing. Vectors are small and copied, so that
 * kernels may take them to be aligned floats. */
static const float *load_vec(llm_model *m, int n, int optional, const char *name, int layer)
{
    const Tensor *t = load_tensor(m, 1, n, optional, name, layer);
    float *v;
    if (!t) return NULL;
    if (t->format->block != 1) {
        m->failed = fail("tensor %.*s is of format %s, expected F32", SHOW(t->name),
                         t->format->name);
        return NULL;
    }
    if ((v = take(&m->arena, (size_t)n, sizeof *v))) t->format->unpack(t->data, v, n);
    return v;
}

/* The matrix "name.weight" with its optional "name.bias". */
static Mat load_mat(llm_model *m, int rows, int cols, int optional, const char *name, int layer)
{
    char full[64];
    Mat w = { 0 };
    snprintf(full, sizeof full, "%s.weight", name);
    const Tensor *t = load_tensor(m, rows, cols, optional, full, layer);
    snprintf(full, sizeof full, "%s.bias", name);
    if (!t) return w;
    w = (Mat){ t->format, rows, cols, t->data, load_vec(m, rows, OPTIONAL, full, layer) };
    m->facts.bytes_read += (int64_t)t->bytes;
    return w;
}

/* YaRN (arxiv.org/abs/2309.00071): dimensions that turn often within the original context keep
 * their frequency, slow ones are stretched by factor, and between the two there is a ramp. */
static void yarn(llm_model *m, float base, float factor)
{
    int context = key_int(m, ".rope.scaling.original_context_length", m->facts.context, 1,
                          MAX_CONTEXT);
    float fast = key_float(m, ".rope.scaling.yarn_beta_fast", 32, 1e-3f, 1e6f);
    float slow = key_float(m, ".rope.scaling.yarn_beta_slow", 1, 1e-3f, 1e6f);
    double turns = m->n_rot / (2 * log(base)), around = context / 6.283185307179586;
    double low = fmax(floor(turns * log(around / fast)), 0);
    double high = fmin(ceil(turns * log(around / slow)), m->n_rot - 1);
    for (int i = 0; i < m->n_rot / 2; i++) {
        double stretched = fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1);
        m->rope_freq[i] *= (float)(1 - stretched + stretched / factor);
    }
    if (factor > 1) m->rope_scale *= 1 + 0.1f * logf(factor);
}

/* Rotary position embedding (arxiv.org/abs/2104.09864): pair i turns by base^(-2i / n_rot) radians
 * a position, or slower where the model was stretched to a longer context. */
static void load_rope(llm_model *m)
{
    float base = key_float(m, ".rope.freq_base", 10000, 1.001f, 1e12f);
    float factor = key_float(m, ".rope.scaling.factor", 1, 1e-3f, 1e6f);
    const char *type = key_string(m, ".rope.scaling.type");
    m->n_rot = key_int(m, ".rope.dimension_count", m->facts.head_dim, 2, m->facts.head_dim);
    m->rope_scale = key_float(m, ".rope.scaling.attn_factor", 1, 1e-3f, 1e3f);
    if (!m->failed && m->n_rot % 2) {
        m->failed = fail("%d dimensions to rotate, expected an even number", m->n_rot);
    }
    if (m->failed ||
        !(m->rope_freq = take(&m->arena, (size_t)m->n_rot / 2, sizeof *m->rope_freq))) {
        return;
    }
    const float *factors = load_vec(m, m->n_rot / 2, OPTIONAL, "rope_freqs.weight", -1);
    for (int i = 0; i < m->n_rot / 2; i++) {
        m->rope_freq[i] = (float)pow(base, -2.0 * i / m->n_rot) / (factors ? factors[i] : 1);
        if (factors && !(factors[i] > 0)) {
            m->failed = fail("rope_freqs.weight holds %g", factors[i]);
        }
    }
    if (!strcmp(type, "yarn")) {
        yarn(m, base, factor);
    } else if (!*type || !strcmp(type, "linear")) {
        for (int i = 0; i < m->n_rot / 2; i++) m->rope_freq[i] /= factor;
    } else if (strcmp(type, "none")) {
        m->failed = fail("key %s.rope.scaling.type is %s, expected none, linear or yarn",
                         m->arch->name, type);
    }
}

static void load_hyperparameters(llm_model *m)
{
    llm_facts *c = &m->facts;
    c->n_layers = key_int(m, ".block_count", -1, 1, MAX_LAYERS);
    c->context = key_int(m, ".context_length", -1, 1, MAX_CONTEXT);
    c->dim = key_int(m, ".embedding_length", -1, 1, MAX_DIM);
    c->hidden_dim = key_int(m, ".feed_forward_length", -1, 1, MAX_DIM);
    c->n_heads = key_int(m, ".attention.head_count", -1, 1, MAX_HEADS);
    c->n_kv_heads = key_int(m, ".attention.head_count_kv", c->n_heads, 1, c->n_heads);
    c->head_dim = key_int(m, ".attention.key_length", c->dim / c->n_heads, 1, MAX_HEAD_DIM);
    int value_dim = key_int(m, ".attention.value_length", c->head_dim, 1, MAX_HEAD_DIM);
    m->norm_eps = key_float(m, ".attention.layer_norm_rms_epsilon", NAN, 0, 1);
    if (m->failed) return;
    if (c->n_heads % c->n_kv_heads || c->n_heads / c->n_kv_heads > MAX_GROUP) {
        m->failed = fail("%d attention heads can't share %d key/value heads", c->n_heads,
                         c->n_kv_heads);
    } else if (c->head_dim * c->n_heads > MAX_DIM) {
        m->failed = fail("%d heads of %d dimensions, expected at most %d in all", c->n_heads,
                         c->head_dim, MAX_DIM);
    } else if (value_dim != c->head_dim) {
        m->failed = fail("values of %d and keys of %d dimensions, expected the same", value_dim,
                         c->head_dim);
    }
}

static void load_layer(llm_model *m, int l)
{
    const llm_facts *c = &m->facts;
    Layer *w = &m->layers[l];
    int q_dim = c->n_heads * c->head_dim, kv_dim = c->n_kv_heads * c->head_dim;
    w->attn_norm = load_vec(m, c->dim, REQUIRED, "attn_norm.weight", l);
    w->wq = load_mat(m, q_dim, c->dim, REQUIRED, "attn_q", l);
    w->wk = load_mat(m, kv_dim, c->dim, REQUIRED, "attn_k", l);
    w->wv = load_mat(m, kv_dim, c->dim, REQUIRED, "attn_v", l);
    w->wo = load_mat(m, c->dim, q_dim, REQUIRED, "attn_output", l);
    w->ffn_norm = load_vec(m, c->dim, REQUIRED, "ffn_norm.weight", l);
    w->gate = load_mat(m, c->hidden_dim, c->dim, REQUIRED, "ffn_gate", l);
    w->up = load_mat(m, c->hidden_dim, c->dim, REQUIRED, "ffn_up", l);
    w->down = load_mat(m, c->dim, c->hidden_dim, REQUIRED, "ffn_down", l);
}

static void load_weights(llm_model *m)
{
    llm_facts *c = &m->facts;
    const Tensor *embedding = find_tensor(&m->file, "token_embd.weight");
    if (m->failed || !(m->layers = take(&m->arena, (size_t)c->n_layers, sizeof *m->layers))) return;
    if (!m->tokenizer && embedding) { /* no vocabulary: as many tokens as the embedding has rows */
        c->vocab_size = embedding->shape[1] <= MAX_VOCAB ? (int)embedding->shape[1] : 0;
    }
    m->embedding = load_mat(m, c->vocab_size, c->dim, REQUIRED, "token_embd", -1);
    m->output = load_mat(m, c->vocab_size, c->dim, OPTIONAL, "output", -1);
    if (m->embedding.bias) m->failed = fail("tensor token_embd.bias is not known");
    if (!m->output.data) {
        m->output = m->embedding;
    } else if (!m->failed) {
        c->bytes_read -= (int64_t)embedding->bytes; /* single rows are read, not the matrix */
    }
    m->output_norm = load_vec(m, c->dim, REQUIRED, "output_norm.weight", -1);
    for (int l = 0; l < c->n_layers && !m->failed; l++) load_layer(m, l);
    for (uint64_t i = 0; i < m->file.n_tensors && !m->failed; i++) {
        const Tensor *t = &m->file.tensors[i];
        if (!t->used) {
            m->failed = fail("tensor %.*s is not known in a %s model", SHOW(t->name),
                             m->arch->name);
        }
    }
}

/* The id of a special token: the file's, else the one that the vocabulary kind has by custom, else
 * none. */
static int special_id(llm_model *m, const char *key, int custom, int vocab_size)
{
    if (find_key(&m->file, key)) return key_int(m, key, -1, 0, vocab_size - 1);
    return custom < vocab_size ? custom : -1;
}

/* The tokens that end a text or a turn: those the file names, and names that are used for nothing
 * else. A beginning-of-text token that is generated begins another text, so it ends this one. */
static void load_stops(llm_model *m)
{
    static const char *const keys[] = { "bos", "eos", "eot", "eom" };
    static const char *const names[] = {
        "<|endoftext|>", "<|im_end|>",    "<|eot_id|>",
        "<|eom_id|>",    "<|end|>",       "<|end_of_text|>",
        "<|return|>",    "<|call|>",      "<|END_OF_TURN_TOKEN|>",
        "<end_of_turn>", "<|endofturn|>", "<｜end▁of▁sentence｜>",
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        int id = special_id(m, key, -1, m->facts.vocab_size);
        if (id >= 0) m->stops[m->n_stops++] = id;
    }
    for (size_t i = 0; m->tokenizer && i < ARRAY_LEN(names); i++) {
        int id = tokenizer_find(m->tokenizer, names[i], strlen(names[i]));
        if (id >= 0) m->stops[m->n_stops++] = id;
    }
}

static void load_vocabulary(llm_model *m)
{
    llm_facts *c = &m->facts;
    const char *kind = key_string(m, "tokenizer.ggml.model");
    int spm = !strcmp(kind, "llama"), n_scores, n_types;
    tokenizer_vocab v = { 0 };
    c->bos = c->eos = -1;
    c->chat_template = key_string(m, "tokenizer.chat_template");
    c->chat_format = "";
    for (size_t i = 0; i < ARRAY_LEN(templates) && !m->template; i++) {
        if (!strstr(c->chat_template, templates[i].tell)) continue;
        m->template = &templates[i];
        c->chat_format = templates[i].name;
    }
    if (m->failed || !*kind || !strcmp(kind, "no_vocab") || !strcmp(kind, "none")) return;
    if (!spm && strcmp(kind, "gpt2")) {
        m->failed = fail("key tokenizer.ggml.model is %s, expected llama or gpt2", kind);
        return;
    }
    v.kind = spm ? TOKENIZER_SPM : TOKENIZER_BPE;
    v.tokens = key_array(m, "tokenizer.ggml.tokens", STRING, -1, &v.n_tokens);
    if (!m->failed && v.n_tokens == 0) {
        m->failed = fail("key tokenizer.ggml.tokens is missing or empty");
    }
    v.scores = key_array(m, "tokenizer.ggml.scores", FLOAT32, v.n_tokens, &n_scores);
    v.types = key_array(m, "tokenizer.ggml.token_type", I32, v.n_tokens, &n_types);
    v.merges = key_array(m, "tokenizer.ggml.merges", STRING, -1, &v.n_merges);
    v.pre = key_line(m, "tokenizer.ggml.pre");
    if (m->failed) return;
    if (!spm && !v.merges) m->failed = fail("key tokenizer.ggml.merges is missing");
    c->vocab_size = v.n_tokens;
    c->bos = special_id(m, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, v.n_tokens);
    c->eos = special_id(m, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, v.n_tokens);
    v.unknown = special_id(m, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, v.n_tokens);
    int add_bos = spm || !strncmp(v.pre, "llama", 5); /* where the file doesn't say */
    v.bos = key_int(m, "tokenizer.ggml.add_bos_token", add_bos, 0, 1) ? c->bos : -1;
    v.add_space_prefix = key_int(m, "tokenizer.ggml.add_space_prefix", spm, 0, 1);
    for (int i = 0; i < v.n_tokens; i++) {
        if (v.tokens[i].len > m->max_piece) m->max_piece = v.tokens[i].len;
    }
    char why[256];
    if (m->failed || m->arena.failed) return;
    m->tokenizer = tokenizer_new(&v, why, sizeof why);
    if (!m->tokenizer) m->failed = fail("%s", why);
    if (m->tokenizer && tokenizer_warning(m->tokenizer)) {
        c->warning = tokenizer_warning(m->tokenizer);
    }
}

static void load_facts(llm_model *m)
{
    llm_facts *c = &m->facts;
    uint64_t bytes[N_FORMATS] = { 0 }, most = 0;
    c->name = key_line(m, "general.name");
    c->arch = key_line(m, "general.architecture");
    c->format = c->warning = "";
    c->sampling.temperature = key_float(m, "general.sampling.temp", 1, 0, 1e6f);
    c->sampling.top_p = key_float(m, "general.sampling.top_p", 0.9f, 0, 1);
    c->sampling.top_k = key_int(m, "general.sampling.top_k", 0, -1, MAX_VOCAB);
    c->sampling.min_p = key_float(m, "general.sampling.min_p", 0, 0, 1);
    c->sampling.repeat_penalty = key_float(m, "general.sampling.penalty_repeat", 1, 0, 1e3f);
    c->has_weights = m->file.n_tensors > 0;
    for (uint64_t i = 0; i < m->file.n_tensors; i++) {
        const Tensor *t = &m->file.tensors[i];
        uint64_t *sum = &bytes[t->format - formats];
        c->n_params += (int64_t)(t->bytes / (uint64_t)t->format->bytes) * t->format->block;
        *sum += t->bytes;
        if (*sum > most) {
            most = *sum;
            c->format = t->format->name;
        }
    }
}

/* From the parsed file to a model that forward can trust. */
static int load(llm_model *m)
{
    const Key *parts = find_key(&m->file, "split.count");
    load_facts(m);
    if (parts && key_int(m, "split.count", 1, 0, 65535) > 1) {
        m->failed = fail("this is one of several parts of a model: join them with "
                         "llama-gguf-split --merge");
    }
    if (!m->failed && !*m->facts.arch) m->failed = fail("key general.architecture is missing");
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        if (!strcmp(archs[i].name, m->facts.arch)) m->arch = &archs[i];
    }
    load_vocabulary(m);
    if (!m->failed && m->facts.has_weights) {
        if (!m->arch) return fail("the architecture %s is not known", m->facts.arch);
        load_hyperparameters(m);
        load_rope(m);
        load_weights(m);
    }
    if (!m->failed) load_stops(m);
    if (!m->failed && m->arena.failed) {
        m->failed = fail("out of memory for the vocabulary and the layers");
    }
    return m->failed;
}

/* The name of the instruction set whose kernels are used from now on, NULL on failure; see section
 * 11. */
static const char *pick_kernels(void);

static llm_model *finish_open(llm_model *m)
{
    m->facts.kernels = pick_kernels();
    if (m->facts.kernels && !parse_file(&m->file) && !load(m)) return m;
    llm_close(m);
    return NULL;
}

llm_model *llm_open(const char *path)
{
    if (!path) {
        fail("no path was given");
        return NULL;
    }
    llm_model *m = calloc(1, sizeof *m);
    if (!m) fail("out of memory");
    if (m && map_file(&m->file, path)) {
        llm_close(m);
        m = NULL;
    } else if (m) {
        m = finish_open(m);
    }
    if (!m) fail("%s: %s", path, error_text);
    return m;
}

llm_model *llm_open_memory(const void *data, size_t size)
{
    llm_model *m = NULL;
    if (!data) {
        fail("there is no buffer");
    } else if ((uintptr_t)data % 8) {
        fail("the buffer is not aligned to 8 bytes");
    } else if (!(m = calloc(1, sizeof *m))) {
        fail("out of memory");
    }
    if (!m) return NULL;
    m->file.data = data;
    m->file.size = size;
    return finish_open(m);
}

void llm_close(llm_model *m)
{
    if (!m) return;
    tokenizer_free(m->tokenizer);
    close_file(&m->file);
    release(&m->arena);
    free(m);
}

const llm_facts *llm_info(const llm_model *m)
{
    return &m->facts;
}

int llm_encode(const llm_model *m, const char *text, size_t len, int flags, int *tokens, int max)
{
    char why[256];
    if (!m->tokenizer) return fail("the model file has no vocabulary");
    int n = tokenizer_encode(m->tokenizer, text, len, flags, tokens, max, why, sizeof why);
    return n < 0 ? fail("%s", why) : n;
}

size_t llm_decode(const llm_model *m, const int *tokens, int n, int flags, char *text, size_t size)
{
    if (m->tokenizer) return tokenizer_decode(m->tokenizer, tokens, n, flags, text, size);
    if (size) *text = 0;
    return 0;
}

int llm_is_stop(const llm_model *m, int token)
{
    for (int i = 0; i < m->n_stops; i++) {
        if (m->stops[i] == token) return 1;
    }
    return 0;
}

/* ==== 5. Session =================================================================================
 * One conversation: the KV cache, which remembers the keys and values of all earlier positions, and
 * the buffers of forward. A buffer has one shape and one meaning; rows are those of a batch, at
 * most CHUNK. */

/* A row of a batch: one token at one position of one session. */
typedef struct {
    llm_session *session;
    int token, position;
    float *logits; /* where they go (vocab_size), NULL: not asked for */
} Row;

typedef struct {
    float p; /* logit, later probability */
    int id;
} Candidate;

struct llm_session {
    const llm_model *model;
    Arena arena;
    int context, threads, position;
    int has_logits;
    const char *unclosed; /* what closes the turn that llm_turn opened, NULL: none is open */
    uint64_t random;
    int *tokens;            /* (context) the tokens so far */
    float *logits;          /* (vocab_size) after the last token */
    const Format *cache;    /* of keys and values */
    uint8_t *keys, *values; /* (n_layers, n_kv_heads, context, head_dim) */
    Row *rows;              /* (rows) */
    float *x;               /* (rows, dim) residual stream */
    float *h;               /* (rows, dim) what goes into or comes out of a block of the layer */
    float *q, *a;           /* (rows, n_heads, head_dim) queries; what attention found */
    float *k, *v;           /* (rows, n_kv_heads, head_dim) */
    float *gate, *up;       /* (rows, hidden_dim) */
    float *cos, *sin;       /* (rows, n_rot / 2) of the rotation at the rows' positions */
    float *out;             /* (LOGIT_ROWS, vocab_size) */
    Candidate *candidates;  /* (vocab_size) */
    char *piece, *text; /* bytes of generated tokens before and after they are made valid UTF-8 */
    size_t n_piece;
};

/* Bytes of the keys (or values) of one position in one layer and head. */
static size_t head_bytes(const llm_session *s)
{
    return row_bytes(s->cache, s->model->facts.head_dim);
}

/* The format of that name that can be packed, NULL if there is none. */
static const Format *cache_format(const char *name)
{
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (formats[i].pack && !strcasecmp(formats[i].name, name)) return &formats[i];
    }
    return NULL;
}

/* The model's context, or as much of it as takes half of the machine's memory. */
static int default_context(const llm_session *s)
{
    const llm_facts *c = &s->model->facts;
    double position = 2.0 * c->n_layers * c->n_kv_heads * (double)head_bytes(s);
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double fits = memory > 0 ? memory / 2 / position : c->context;
    return fits < 1 ? 1 : fits < c->context ? (int)fits : c->context;
}

/* Physical cores that this process may use; a core's second hardware thread brings nothing here. */
static int default_threads(void)
{
    int cores = 0, allowed = 1;
    long configured = sysconf(_SC_NPROCESSORS_CONF);
#ifdef _OPENMP
    allowed = omp_get_max_threads();
#endif
    for (int cpu = 0; cpu < configured; cpu++) {
        char path[96];
        int first = -1;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        cores += fscanf(file, "%d", &first) == 1 && first == cpu;
        fclose(file);
    }
    if (cores == 0 || cores > allowed) cores = allowed;
    return cores < MAX_THREADS ? cores : MAX_THREADS;
}

static void session_buffers(llm_session *s)
{
    const llm_model *m = s->model;
    const llm_facts *c = &m->facts;
    size_t rows = CHUNK, dim = (size_t)c->dim, q_dim = (size_t)c->n_heads * (size_t)c->head_dim,
           kv_dim = (size_t)c->n_kv_heads * (size_t)c->head_dim, vocab = (size_t)c->vocab_size,
           heads = (size_t)c->n_layers * (size_t)c->n_kv_heads, f = sizeof(float);
    s->tokens = take(&s->arena, (size_t)s->context, sizeof *s->tokens);
    s->logits = take(&s->arena, vocab, f);
    s->keys = take(&s->arena, heads, (size_t)s->context * head_bytes(s));
    s->values = take(&s->arena, heads, (size_t)s->context * head_bytes(s));
    s->rows = take(&s->arena, rows, sizeof *s->rows);
    s->x = take(&s->arena, rows, dim * f);
    s->h = take(&s->arena, rows, dim * f);
    s->q = take(&s->arena, rows, q_dim * f);
    s->a = take(&s->arena, rows, q_dim * f);
    s->k = take(&s->arena, rows, kv_dim * f);
    s->v = take(&s->arena, rows, kv_dim * f);
    s->gate = take(&s->arena, rows, (size_t)c->hidden_dim * f);
    s->up = take(&s->arena, rows, (size_t)c->hidden_dim * f);
    s->cos = take(&s->arena, rows, (size_t)m->n_rot / 2 * f);
    s->sin = take(&s->arena, rows, (size_t)m->n_rot / 2 * f);
    s->out = take(&s->arena, LOGIT_ROWS, vocab * f);
    s->candidates = take(&s->arena, vocab, sizeof *s->candidates);
    s->piece = take(&s->arena, m->max_piece + 8, 1);
    s->text = take(&s->arena, 3 * (m->max_piece + 8),
                   1); /* a bad byte becomes the three of U+FFFD */
}

/* Seeds that are near each other must not give similar texts: splitmix64 (prng.di.unimi.it) spreads
 * them. */
static uint64_t spread_seed(uint64_t seed)
{
    uint64_t z = seed + 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return z ? z : 1;
}

llm_session *llm_session_new(const llm_model *m, const llm_options *options)
{
    llm_options o = options ? *options : (llm_options){ 0 };
    llm_session *s;
    if (!m->facts.has_weights) {
        fail("the model file has a vocabulary but no weights");
        return NULL;
    }
    if (o.context < 0 || o.context > MAX_CONTEXT || o.threads < 0 || o.threads > MAX_THREADS) {
        fail("context %d and threads %d, expected 0 to %d and 0 to %d", o.context, o.threads,
             MAX_CONTEXT, MAX_THREADS);
        return NULL;
    }
    if (!(s = calloc(1, sizeof *s))) {
        fail("out of memory");
        return NULL;
    }
    s->model = m;
    s->cache = cache_format(o.cache ? o.cache : "f16");
    if (!s->cache || m->facts.head_dim % s->cache->block) {
        fail(s->cache ? "a cache of %s, but the heads have %d dimensions, no multiple of 32"
                      : "a cache of %s, expected f16, f32 or q8_0",
             o.cache, m->facts.head_dim);
        llm_session_free(s);
        return NULL;
    }
    s->context = o.context ? o.context : default_context(s);
    s->threads = o.threads ? o.threads : default_threads();
    s->random = spread_seed(o.seed);
    session_buffers(s);
    if (s->arena.failed) {
        fail("out of memory for a context of %d", s->context);
        llm_session_free(s);
        return NULL;
    }
    return s;
}

void llm_session_free(llm_session *s)
{
    if (!s) return;
    release(&s->arena);
    free(s);
}

llm_session *llm_fork(const llm_session *s)
{
    const llm_facts *c = &s->model->facts;
    llm_options same = { s->context, s->threads, 0, s->cache->name };
    llm_session *t = llm_session_new(s->model, &same);
    if (!t) return NULL;
    t->position = s->position;
    t->has_logits = s->has_logits;
    t->unclosed = s->unclosed;
    t->random = s->random;
    memcpy(t->tokens, s->tokens, (size_t)s->position * sizeof *s->tokens);
    memcpy(t->logits, s->logits, (size_t)c->vocab_size * sizeof *s->logits);
    size_t head = (size_t)s->context * head_bytes(s), used = (size_t)s->position * head_bytes(s);
    for (size_t i = 0; i < (size_t)c->n_layers * (size_t)c->n_kv_heads; i++) {
        memcpy(t->keys + i * head, s->keys + i * head, used);
        memcpy(t->values + i * head, s->values + i * head, used);
    }
    return t;
}

int llm_position(const llm_session *s)
{
    return s->position;
}

int llm_context(const llm_session *s)
{
    return s->context;
}

int llm_rewind(llm_session *s, int position)
{
    if (position < 0 || position > s->position) {
        return fail("cannot go to position %d, expected 0 to %d", position, s->position);
    }
    if (position < s->position) {
        s->has_logits = 0;
        s->unclosed = NULL;
    }
    s->position = position;
    return 0;
}

const float *llm_logits(const llm_session *s)
{
    if (s->has_logits) return s->logits;
    fail("there are no logits: nothing was evaluated since the session was made or rewound");
    return NULL;
}

/* ==== 6. Math ====================================================================================
 * The steps of a layer, portable and complete. Legend: x residual stream, h hidden, q k v a
 * attention's queries, keys, values and result, n rows of the batch, l layer. By far the most time
 * is spent in matmul. */

/* y(t, r) += sum over k of w(r, k) x(t, k), for `rows` rows of w, `cols` columns and n rows of x. A
 * matrix with stride ld begins a new row every ld floats. */
typedef void Gemm(float *y, size_t ldy, const float *w, size_t ldw, const float *x, size_t ldx,
                  int rows, int cols, int n);

/* To add one: its functions in section 11, a row in isas[] there. */
typedef struct {
    const char *name;
    int (*usable)(void);
    Gemm *gemm;
} Isa;

static const Isa *kernels; /* picked when the first model is opened */

typedef float F32x4 __attribute__((vector_size(16), aligned(4), may_alias));

/* The inner product of one row with one row: memory delivers w fastest as one stream. */
static float dot(const float *w, const float *x, int n)
{
    F32x4 sum[4] = { { 0 } };
    int k = 0;
    for (; k + 16 <= n; k += 16) {
        for (int i = 0; i < 4; i++) {
            sum[i] += *(const F32x4 *)(w + k + 4 * i) * *(const F32x4 *)(x + k + 4 * i);
        }
    }
    F32x4 all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    float total = (all[0] + all[1]) + (all[2] + all[3]);
    for (; k < n; k++) total += w[k] * x[k];
    return total;
}

/* The inner products of R rows of w with two rows of x; the sums stay in registers. */
static inline __attribute__((always_inline)) void tile(float *y, size_t ldy, const float *w,
                                                       size_t ldw, const float *x, size_t ldx,
                                                       int cols, const int R)
{
    F32x4 sum[4][2] = { { { 0 } } };
    int k = 0;
    for (; k + 4 <= cols; k += 4) {
        F32x4 x0 = *(const F32x4 *)(x + k), x1 = *(const F32x4 *)(x + ldx + k);
        for (int r = 0; r < R; r++) {
            F32x4 a = *(const F32x4 *)(w + (size_t)r * ldw + k);
            sum[r][0] += a * x0;
            sum[r][1] += a * x1;
        }
    }
    for (int i = 0; i < 2 * R; i++) {
        int r = i / 2, t = i % 2;
        float total = (sum[r][t][0] + sum[r][t][1]) + (sum[r][t][2] + sum[r][t][3]);
        for (int j = k; j < cols; j++) total += w[(size_t)r * ldw + j] * x[(size_t)t * ldx + j];
        y[(size_t)t * ldy + r] += total;
    }
}

static void gemm_portable(float *y, size_t ldy, const float *w, size_t ldw, const float *x,
                          size_t ldx, int rows, int cols, int n)
{
    int t = 0;
    for (; t + 2 <= n; t += 2, y += 2 * ldy, x += 2 * ldx) {
        int r = 0;
        for (; r + 4 <= rows; r += 4) tile(y + r, ldy, w + (size_t)r * ldw, ldw, x, ldx, cols, 4);
        for (; r < rows; r++) tile(y + r, ldy, w + (size_t)r * ldw, ldw, x, ldx, cols, 1);
    }
    for (int r = 0; t < n && r < rows; r++) y[r] += dot(w + (size_t)r * ldw, x, cols);
}

/* Rows first to first + count of matmul. The weights are unpacked in panels small enough for the L1
 * cache, each used for all rows of the batch. */
static void matmul_rows(float *y, const Mat *w, const float *x, int n, int first, int count)
{
    float panel[PANEL_ROWS * PANEL_COLS];
    size_t stride = row_bytes(w->format, w->cols);
    int direct = w->format == &formats[F32];
    int step = direct && n == 1 ? w->cols
                                : PANEL_COLS; /* one row of x stays in the cache as it is */
    y += first;
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < count; r++) {
            y[(size_t)t * (size_t)w->rows + (size_t)r] = w->bias ? w->bias[first + r] : 0;
        }
    }
    for (int k = 0; k < w->cols; k += step) {
        int cols = w->cols - k < step ? w->cols - k : step;
        const uint8_t *data = w->data + (size_t)first * stride + row_bytes(w->format, k);
        for (int r = 0; !direct && r < count; r++) {
            w->format->unpack(data + (size_t)r * stride, panel + r * PANEL_COLS, cols);
        }
        kernels->gemm(y, (size_t)w->rows, direct ? (const float *)data : panel,
                      direct ? (size_t)w->cols : PANEL_COLS, x + k, (size_t)w->cols, count, cols,
                      n);
    }
}

/* y(n, rows) = x(n, cols) w^T + bias. A task is a run of rows, long enough for memory to stream and
 * short enough to spread over the threads. */
static void matmul(float *y, const Mat *w, const float *x, int n, int threads)
{
    int useful = (double)w->rows * w->cols * n < MIN_WORK ? 1 : threads;
    int rows = w->rows / (4 * threads) / PANEL_ROWS * PANEL_ROWS; /* of a task */
    rows = rows < PANEL_ROWS ? PANEL_ROWS : rows < TASK_ROWS ? rows : TASK_ROWS;
    PARALLEL_FOR (useful, int first = 0; first < w->rows; first += rows) {
        int end = w->rows - first < rows ? w->rows : first + rows;
        for (int r = first; r < end; r += PANEL_ROWS) {
            matmul_rows(y, w, x, n, r, end - r < PANEL_ROWS ? end - r : PANEL_ROWS);
        }
    }
}

/* RMS norm (arxiv.org/abs/1910.07467): y(n, dim) = x / sqrt(mean(x^2) + eps) weight; y may be x. */
static void norm(float *y, const float *x, const float *weight, int n, int dim, float eps)
{
    for (int t = 0; t < n; t++, x += dim, y += dim) {
        double squares = 0;
        for (int i = 0; i < dim; i++) squares += (double)x[i] * x[i];
        float scale = 1 / sqrtf((float)(squares / dim) + eps);
        for (int i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
    }
}

/* The rotation of each row's position. */
static void rope_angles(llm_session *s, int n)
{
    const llm_model *m = s->model;
    int half = m->n_rot / 2;
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < half; i++) {
            float angle = (float)s->rows[t].position * m->rope_freq[i];
            s->cos[t * half + i] = cosf(angle) * m->rope_scale;
            s->sin[t * half + i] = sinf(angle) * m->rope_scale;
        }
    }
}

/* Rotates the first n_rot dimensions of each head of x(n, heads, head_dim). */
static void rope(float *x, const llm_session *s, int n, int heads)
{
    const llm_model *m = s->model;
    int half = m->n_rot / 2, step = m->arch->rope_halves ? 1 : 2,
        far = m->arch->rope_halves ? half : 1;
    for (int t = 0; t < n; t++) {
        const float *cos = s->cos + t * half, *sin = s->sin + t * half;
        for (int g = 0; g < heads; g++, x += m->facts.head_dim) {
            for (int i = 0; i < half; i++) {
                float a = x[i * step], b = x[i * step + far];
                x[i * step] = a * cos[i] - b * sin[i];
                x[i * step + far] = a * sin[i] + b * cos[i];
            }
        }
    }
}

/* Where session s keeps a position of key/value head g in layer l. */
static size_t cache_at(const llm_session *s, int l, int g, int position)
{
    size_t head = (size_t)l * (size_t)s->model->facts.n_kv_heads + (size_t)g;
    return (head * (size_t)s->context + (size_t)position) * head_bytes(s);
}

/* Writes the rows' keys and values to their sessions' caches. */
static void remember(const llm_session *s, int l, int n)
{
    const llm_facts *c = &s->model->facts;
    const float *k = s->k, *v = s->v;
    for (int t = 0; t < n; t++) {
        const llm_session *owner = s->rows[t].session;
        for (int g = 0; g < c->n_kv_heads; g++, k += c->head_dim, v += c->head_dim) {
            size_t at = cache_at(owner, l, g, s->rows[t].position);
            owner->cache->pack(owner->keys + at, k, c->head_dim);
            owner->cache->pack(owner->values + at, v, c->head_dim);
        }
    }
}

/* Softmax goes over the positions in blocks (arxiv.org/abs/1805.02867): `top` is the largest score
 * so far, `sum` the sum of exp(score - top). A block with a larger score shrinks what was summed up
 * before. */
typedef struct {
    float top, sum;
} Softmax;

/* Takes a block of scores of which the first `visible` count, makes them exp(score - top), and
 * shrinks a. */
static void softmax_block(Softmax *f, float *scores, int visible, float scale, float *a, int dim)
{
    float top = f->top, shrink;
    for (int j = 0; j < visible; j++) {
        scores[j] *= scale;
        if (scores[j] > top) top = scores[j];
    }
    shrink = expf(f->top - top);
    f->sum *= shrink;
    f->top = top;
    for (int i = 0; i < dim && shrink != 1; i++) a[i] *= shrink;
    for (int j = 0; j < visible; j++) {
        scores[j] = expf(scores[j] - top);
        f->sum += scores[j];
    }
}

/* a(dim) += sum over j of p(j) v(j, dim) */
static void weigh(float *a, const float *p, const float *v, int positions, int dim)
{
    int j = 0;
    for (; j + 4 <= positions; j += 4, v += 4 * dim) {
        const float *v1 = v + dim, *v2 = v1 + dim, *v3 = v2 + dim;
        for (int i = 0; i < dim; i++) {
            a[i] += p[j] * v[i] + p[j + 1] * v1[i] + p[j + 2] * v2[i] + p[j + 3] * v3[i];
        }
    }
    for (; j < positions; j++, v += dim) {
        for (int i = 0; i < dim; i++) a[i] += p[j] * v[i];
    }
}

/* Attention of `count` rows of one session, from row `first` on, for the query heads that share
 * key/value head g. Keys and values are unpacked block by block, and each block serves all these
 * rows and heads. */
static void attend_tile(llm_session *s, int l, int g, int first, int count)
{
    const llm_facts *c = &s->model->facts;
    const Row *rows = s->rows + first;
    const llm_session *owner = rows->session;
    int dim = c->head_dim, group = c->n_heads / c->n_kv_heads, last = rows[count - 1].position;
    size_t q_dim = (size_t)(c->n_heads * dim);
    size_t at = (size_t)first * q_dim + (size_t)(g * group * dim);
    float keys[ATTEND_BLOCK * MAX_HEAD_DIM], values[ATTEND_BLOCK * MAX_HEAD_DIM];
    float scores[ATTEND_ROWS * ATTEND_BLOCK], scale = 1 / sqrtf((float)dim);
    Softmax state[ATTEND_ROWS * MAX_GROUP];
    for (int i = 0; i < count * group; i++) state[i] = (Softmax){ -INFINITY, 0 };
    for (int t = 0; t < count; t++) {
        memset(s->a + at + (size_t)t * q_dim, 0, (size_t)(group * dim) * sizeof *s->a);
    }
    for (int j = 0; j <= last; j += ATTEND_BLOCK) {
        int length = last + 1 - j < ATTEND_BLOCK ? last + 1 - j : ATTEND_BLOCK;
        size_t from = cache_at(owner, l, g, j);
        owner->cache->unpack(owner->keys + from, keys, length * dim);
        owner->cache->unpack(owner->values + from, values, length * dim);
        for (int head = 0; head < group; head++) {
            memset(scores, 0, sizeof scores);
            kernels->gemm(scores, ATTEND_BLOCK, keys, (size_t)dim, s->q + at + head * dim, q_dim,
                          length, dim, count);
            for (int t = 0; t < count; t++) { /* a row sees itself and what was before it */
                int visible = rows[t].position + 1 - j < length ? rows[t].position + 1 - j : length;
                float *a = s->a + at + (size_t)t * q_dim + head * dim,
                      *p = scores + t * ATTEND_BLOCK;
                if (visible <= 0) continue;
                softmax_block(&state[t * group + head], p, visible, scale, a, dim);
                weigh(a, p, values, visible, dim);
            }
        }
    }
    for (int i = 0; i < count * group; i++) {
        float *a = s->a + at + (size_t)(i / group) * q_dim + i % group * dim;
        for (int d = 0; d < dim; d++) a[d] /= state[i].sum;
    }
}

/* Rows of one session follow each other, so a tile is a run of rows with the same session. */
static int tile_end(const Row *rows, int first, int n)
{
    int end = first + 1;
    while (end < n && end - first < ATTEND_ROWS && rows[end].session == rows[first].session) end++;
    return end;
}

/* Scaled dot-product attention (arxiv.org/abs/1706.03762), causal, with grouped heads
 * (arxiv.org/abs/2305.13245) */
static void attend(llm_session *s, int l, int n)
{
    const llm_facts *c = &s->model->facts;
    int starts[CHUNK + 1], tiles = 0;
    for (int t = 0; t < n; t = starts[tiles]) {
        starts[tiles++] = t;
        starts[tiles] = tile_end(s->rows, t, n);
    }
    double work = 0;
    for (int t = 0; t < n; t++) work += 2.0 * c->n_heads * c->head_dim * s->rows[t].position;
    int useful = work < MIN_WORK ? 1 : s->threads;
    PARALLEL_FOR (useful, int i = 0; i < tiles * c->n_kv_heads; i++) {
        int first = starts[i / c->n_kv_heads];
        attend_tile(s, l, i % c->n_kv_heads, first, starts[i / c->n_kv_heads + 1] - first);
    }
}

static void add(float *x, const float *h, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += h[i];
}

/* SwiGLU (arxiv.org/abs/2002.05202): gate = silu(gate) * up, silu(z) = z / (1 + exp(-z)) */
static void swiglu(float *gate, const float *up, int n, int dim, int threads)
{
    int useful = n < 8 ? 1 : threads;
    PARALLEL_FOR (useful, int t = 0; t < n; t++) {
        float *g = gate + (size_t)t * (size_t)dim;
        const float *u = up + (size_t)t * (size_t)dim;
        for (int i = 0; i < dim; i++) g[i] = g[i] / (1 + expf(-g[i])) * u[i];
    }
}

/* ==== 7. forward =================================================================================
 * The whole model. A batch has n rows, each a token at a position of a session: a prompt is many
 * rows of one session, a step of generation is one row, sessions side by side are one row each.
 * Only attention and the cache know which session a row belongs to; to everything else a batch is a
 * matrix, so the weights are read once for all rows. */

/* The rows whose logits were asked for go through the output matrix, LOGIT_ROWS at a time. */
static void logits(llm_session *s, int n)
{
    const llm_model *m = s->model;
    size_t dim = (size_t)m->facts.dim, vocab = (size_t)m->facts.vocab_size;
    const Row *asked[LOGIT_ROWS];
    int count = 0;
    for (int t = 0; t < n; t++) {
        if (s->rows[t].logits) {
            memcpy(s->h + (size_t)count * dim, s->x + (size_t)t * dim, dim * sizeof *s->h);
            asked[count++] = &s->rows[t];
        }
        if (count < LOGIT_ROWS && (t < n - 1 || count == 0)) continue;
        norm(s->h, s->h, m->output_norm, count, m->facts.dim, m->norm_eps);
        matmul(s->out, &m->output, s->h, count, s->threads);
        for (int i = 0; i < count; i++) {
            memcpy(asked[i]->logits, s->out + (size_t)i * vocab, vocab * sizeof *s->out);
        }
        count = 0;
    }
}

/* Evaluates s->rows[0..n); the rows may belong to other sessions of the same model, the buffers are
 * those of s. */
static void forward(llm_session *s, int n)
{
    const llm_model *m = s->model;
    const llm_facts *c = &m->facts;
    size_t size = (size_t)n * (size_t)c->dim;
    for (int t = 0; t < n; t++) {
        const Mat *e = &m->embedding;
        e->format->unpack(e->data + (size_t)s->rows[t].token * row_bytes(e->format, c->dim),
                          s->x + (size_t)t * (size_t)c->dim, c->dim);
    }
    rope_angles(s, n);
    for (int l = 0; l < c->n_layers; l++) {
        const Layer *w = &m->layers[l];

        norm(s->h, s->x, w->attn_norm, n, c->dim, m->norm_eps);
        matmul(s->q, &w->wq, s->h, n, s->threads);
        matmul(s->k, &w->wk, s->h, n, s->threads);
        matmul(s->v, &w->wv, s->h, n, s->threads);
        rope(s->q, s, n, c->n_heads);
        rope(s->k, s, n, c->n_kv_heads);
        remember(s, l, n);
        attend(s, l, n);
        matmul(s->h, &w->wo, s->a, n, s->threads);
        add(s->x, s->h, size);

        norm(s->h, s->x, w->ffn_norm, n, c->dim, m->norm_eps);
        matmul(s->gate, &w->gate, s->h, n, s->threads);
        matmul(s->up, &w->up, s->h, n, s->threads);
        swiglu(s->gate, s->up, n, c->hidden_dim, s->threads);
        matmul(s->h, &w->down, s->gate, n, s->threads);
        add(s->x, s->h, size);
    }
    logits(s, n);
}

/* Whether the session can take n more tokens, and they are tokens. */
static int check_tokens(const llm_session *s, const int *tokens, int n)
{
    if (n < 1) return fail("%d tokens to evaluate, expected at least 1", n);
    if (n > s->context - s->position) {
        return fail("%d tokens do not fit: the context has %d positions, of which %d are in use", n,
                    s->context, s->position);
    }
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= s->model->facts.vocab_size) {
            return fail("token %d is not in the vocabulary of %d", tokens[i],
                        s->model->facts.vocab_size);
        }
    }
    return 0;
}

/* Appends n tokens in chunks. all (n, vocab_size) gets the logits of each, if it is not NULL. */
static int eval(llm_session *s, const int *tokens, int n, float *all)
{
    size_t vocab = (size_t)s->model->facts.vocab_size;
    if (check_tokens(s, tokens, n)) return -1;
    for (int done = 0; done < n; done += CHUNK) {
        int rows = n - done < CHUNK ? n - done : CHUNK;
        for (int t = 0; t < rows; t++) {
            int i = done + t;
            float *to = all ? all + (size_t)i * vocab : i == n - 1 ? s->logits : NULL;
            s->rows[t] = (Row){ s, tokens[i], s->position + t, to };
        }
        forward(s, rows);
        memcpy(s->tokens + s->position, tokens + done, (size_t)rows * sizeof *tokens);
        s->position += rows;
    }
    if (all) memcpy(s->logits, all + (size_t)(n - 1) * vocab, vocab * sizeof *all);
    s->has_logits = 1;
    return 0;
}

const float *llm_eval(llm_session *s, const int *tokens, int n)
{
    return eval(s, tokens, n, NULL) ? NULL : s->logits;
}

int llm_eval_all(llm_session *s, const int *tokens, int n, float *logits)
{
    return eval(s, tokens, n, logits);
}

int llm_eval_many(llm_session *const *sessions, const int *tokens, int n)
{
    if (n < 1 || n > CHUNK) return fail("%d sessions to evaluate, expected 1 to %d", n, CHUNK);
    for (int i = 0; i < n; i++) {
        if (sessions[i]->model != sessions[0]->model) {
            return fail("sessions 0 and %d are of different models", i);
        }
        if (check_tokens(sessions[i], tokens + i, 1)) return -1;
        for (int j = 0; j < i; j++) {
            if (sessions[i] == sessions[j]) return fail("sessions %d and %d are the same", j, i);
        }
    }
    for (int i = 0; i < n; i++) {
        sessions[0]->rows[i] = (Row){ sessions[i], tokens[i], sessions[i]->position,
                                      sessions[i]->logits };
    }
    forward(sessions[0], n);
    for (int i = 0; i < n; i++) {
        sessions[i]->tokens[sessions[i]->position++] = tokens[i];
        sessions[i]->has_logits = 1;
    }
    return 0;
}

/* ==== 8. Sampling ================================================================================
 * From logits to a token: repetition penalty, temperature, softmax, top-k, top-p, min-p, draw. The
 * likeliest tokens are taken one by one from a heap, so that only what is kept gets sorted. */

/* xorshift64* (doi.org/10.18637/jss.v008.i14): a number in [0, 1). */
static double random_unit(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)(*state * 0x2545f4914f6cdd1d >> 11) * 0x1p-53;
}

/* Positive logits of tokens that stand in the last REPEAT_WINDOW are divided, negative ones
 * multiplied, once. */
static void penalize(const llm_session *s, Candidate *c, float penalty)
{
    int first = s->position > REPEAT_WINDOW ? s->position - REPEAT_WINDOW : 0;
    if (penalty <= 0) return;
    for (int i = first; i < s->position; i++) {
        int id = s->tokens[i], j = first;
        while (s->tokens[j] != id) j++;
        if (j == i) c[id].p = c[id].p > 0 ? c[id].p / penalty : c[id].p * penalty;
    }
}

/* Likelier, or as likely with a lower id: so the order never depends on how a heap was built. */
static int comes_first(Candidate a, Candidate b)
{
    return a.p > b.p || (a.p == b.p && a.id < b.id);
}

static void sift_down(Candidate *heap, int i, int n)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_first(heap[child + 1], heap[child])) child++;
        if (!comes_first(heap[child], heap[i])) return;
        Candidate swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
    }
}

/* Moves the first of a heap of n behind it, so that the heap has n - 1. */
static Candidate pop(Candidate *heap, int n)
{
    Candidate first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sift_down(heap, 0, n - 1);
    return first;
}

/* Leaves the kept candidates, likeliest first, at c[n - 1], c[n - 2], ... and returns how many they
 * are. The likeliest has p = 1; sum is that of all p. */
static int keep_likeliest(Candidate *c, int n, double sum, const llm_sampling *p)
{
    int most = p->top_k > 0 && p->top_k < n ? p->top_k : n, sorted = 0;
    double mass = 0, share = p->top_p > 0 && p->top_p < 1 ? p->top_p : 2;
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(c, i, n);
    if (most < n) { /* top-p counts within what top-k leaves */
        for (sum = 0; sorted < most; sorted++) sum += pop(c, n - sorted).p;
    }
    for (int i = 0; i < most; i++) {
        float next = i < sorted ? c[n - 1 - i].p : pop(c, n - i).p;
        if (i > 0 && (mass >= share * sum || next < p->min_p)) return i;
        mass += next;
    }
    return most;
}

int llm_sample(llm_session *s, const llm_sampling *sampling)
{
    const llm_sampling *p = sampling ? sampling : &s->model->facts.sampling;
    int n = s->model->facts.vocab_size, best = 0;
    Candidate *c = s->candidates;
    if (!llm_logits(s)) return -1;
    for (int i = 0; i < n; i++) c[i] = (Candidate){ s->logits[i], i };
    penalize(s, c, p->repeat_penalty);
    for (int i = 1; i < n; i++) {
        if (c[i].p > c[best].p || c[best].p != c[best].p) best = i;
    }
    float top = c[best].p;
    if (!isfinite(top)) return fail("the logits are not numbers: the weights hold NaN or infinity");
    if (!(p->temperature > 0)) return best;
    double sum = 0, kept_sum = 0;
    for (int i = 0; i < n; i++) {
        c[i].p = c[i].p == c[i].p ? expf((c[i].p - top) / p->temperature) : 0;
        sum += c[i].p;
    }
    int all = p->top_k <= 0 && !(p->top_p > 0 && p->top_p < 1) && !(p->min_p > 0);
    int kept = all ? n : keep_likeliest(c, n, sum, p);
    for (int i = n - kept; i < n; i++) kept_sum += c[i].p;
    double at = random_unit(&s->random) * kept_sum;
    for (int i = n - 1; i >= n - kept && at >= 0; i--) {
        if (c[i].p > 0) best = c[i].id;
        at -= c[i].p;
    }
    return best;
}

/* ==== 9. Generation ==============================================================================
 * Text in, text out, through the public API. Tokens are bytes and may split a character, so bytes
 * wait until they are a whole one. A chat is a text too: its turns are set off by special tokens.
 */

/* Moves the whole characters from s->piece to s->text, with U+FFFD for what is none, and returns
 * their length. An unfinished character stays, unless this is the last call. */
static size_t whole_characters(llm_session *s, int last)
{
    const char *p = s->piece;
    size_t n = s->n_piece, out = 0;
    while (n > 0) {
        int length = tokenizer_char(p, n);
        if (length == 0 && !last) break;
        if (length > 0) {
            memcpy(s->text + out, p, (size_t)length);
            out += (size_t)length;
        } else {
            memcpy(s->text + out, "\xef\xbf\xbd", 3);
            out += 3;
            length = length == 0 ? (int)n : 1;
        }
        p += length;
        n -= (size_t)length;
    }
    memmove(s->piece, p, n);
    s->n_piece = n;
    s->text[out] = 0;
    return out;
}

/* Appends a text, encoded with flags; at position 0 a text begins. */
static int append(llm_session *s, const char *text, int flags)
{
    size_t len = strlen(text);
    int status = -1;
    if (s->position == 0) flags |= LLM_BEGIN | LLM_BOS;
    int n = llm_encode(s->model, text, len, flags, NULL, 0);
    int *tokens = n < 0 ? NULL : malloc(((size_t)n + 1) * sizeof *tokens);
    if (n == 0) {
        status = 0;
    } else if (tokens && llm_encode(s->model, text, len, flags, tokens, n) == n) {
        status = eval(s, tokens, n, NULL);
    } else if (n > 0) {
        fail("out of memory for a text of %zu bytes", len);
    }
    free(tokens);
    return status;
}

int llm_turn(llm_session *s, const char *role, const char *text)
{
    static const char *const roles[] = { "system", "user", "assistant" };
    const Template *t = s->model->template;
    const char *unclosed = s->unclosed;
    int before = s->position;
    size_t r = 0;
    while (r < ARRAY_LEN(roles) && strcmp(roles[r], role)) r++;
    if (r == ARRAY_LEN(roles)) return fail("role %s, expected system, user or assistant", role);
    if (!t && !*s->model->facts.chat_template) return fail("the model file has no chat template");
    if (!t) return fail("the model file's chat template is not of a known format");
    if ((unclosed && append(s, unclosed, LLM_SPECIAL)) ||
        append(s, t->turns[r].open, LLM_SPECIAL) ||
        (text && (append(s, text, 0) || append(s, t->turns[r].close, LLM_SPECIAL)))) {
        llm_rewind(s, before);
        s->unclosed = unclosed;
        return -1;
    }
    s->unclosed = text ? NULL : t->turns[r].close;
    return 0;
}

/* Evaluates the prompt, or what stands for an empty one at the beginning of a text. */
static int eval_prompt(llm_session *s, const char *prompt)
{
    const llm_facts *c = &s->model->facts;
    int start = c->bos >= 0 ? c->bos : c->eos;
    if (*prompt) return append(s, prompt, 0);
    if (s->position > 0) return llm_logits(s) ? 0 : -1;
    if (start < 0) return fail("the model has no token that begins a text: give a prompt");
    return eval(s, &start, 1, NULL);
}

int llm_generate(llm_session *s, const char *prompt, int max_tokens, const llm_sampling *sampling,
                 int (*on_text)(void *user, const char *text, size_t len), void *user)
{
    const llm_model *m = s->model;
    int count = 0, done = 0, flags;
    if (!prompt) prompt = "";
    flags = s->position == 0 && !*prompt ? LLM_BEGIN : 0;
    if (!m->tokenizer) return fail("the model file has no vocabulary");
    if (eval_prompt(s, prompt)) return -1;
    s->n_piece = 0;
    while (!done && (max_tokens <= 0 || count < max_tokens) && s->position < s->context) {
        int token = llm_sample(s, sampling);
        if (token < 0) return -1;
        if (llm_is_stop(m, token)) break;
        s->n_piece += llm_decode(m, &token, 1, flags, s->piece + s->n_piece, m->max_piece + 1);
        size_t len = whole_characters(s, 0);
        if (len && on_text) done = on_text(user, s->text, len);
        if (eval(s, &token, 1, NULL)) return -1;
        flags = 0;
        count++;
    }
    size_t len = whole_characters(s, 1);
    if (len && on_text && !done) on_text(user, s->text, len);
    return count;
}

/* ==== 10. Command line ===========================================================================
 * An example of embedding: it uses the public API and nothing else. */

#ifndef RUN_NO_MAIN

#include <sys/resource.h>
#include <time.h>

typedef struct {
    const char *mode, *prompt, *system, *prompt_file, *text_file, *cache;
    int n, top_k, context, threads, likeliest;
    double temperature, top_p, min_p, repeat;
    uint64_t seed;
    int seed_given, no_echo, verbose, tokens, bos, bench, help, version;
} Settings;

enum { FLAG, INTEGER, NUMBER, TEXT, SEED };

/* To add one: a field in Settings, a row. The same table parses and prints the help. */
static const struct Option {
    const char *name, *argument, *help;
    int kind;
    size_t field;
    double min, max;
    const char *choices; /* of a text, with spaces between; NULL: any text */
} options[] = {
    { "-m", "MODE", "generate or chat (generate)", TEXT, offsetof(Settings, mode), 0, 0,
      "generate chat" },
    { "-i", "TEXT", "prompt; - reads it from stdin, without its last newline", TEXT,
      offsetof(Settings, prompt), 0, 0, NULL },
    { "-f", "FILE", "prompt from a file, as it is", TEXT, offsetof(Settings, prompt_file), 0, 0,
      NULL },
    { "-n", "N",
      "tokens to generate, 0: until the end of the text or of the context (256; in a chat 0)",
      INTEGER, offsetof(Settings, n), 0, 1e9, NULL },
    { "-t", "F", "temperature, 0: always the likeliest token (1.0 *)", NUMBER,
      offsetof(Settings, temperature), 0, 1e6, NULL },
    { "-p", "F", "top-p: keep the likeliest tokens that reach this probability (0.9 *)", NUMBER,
      offsetof(Settings, top_p), 0, 1, NULL },
    { "-k", "N", "top-k: keep this many of the likeliest tokens, 0: all (0 *)", INTEGER,
      offsetof(Settings, top_k), 0, 1e9, NULL },
    { "--min-p", "F", "keep tokens at least this share as likely as the likeliest (0 *)", NUMBER,
      offsetof(Settings, min_p), 0, 1, NULL },
    { "--repeat", "F", "repetition penalty over the last 64 tokens, 1: off (1 *)", NUMBER,
      offsetof(Settings, repeat), 0, 1e3, NULL },
    { "-s", "N", "seed: the same seed gives the same text (from the clock)", SEED,
      offsetof(Settings, seed), 0, 0, NULL },
    { "-y", "TEXT", "system prompt of a chat", TEXT, offsetof(Settings, system), 0, 0, NULL },
    { "-c", "N", "context length (the model's, at most what fits memory)", INTEGER,
      offsetof(Settings, context), 1, 1 << 24, NULL },
    { "--cache", "TYPE", "format of the KV cache: f16, f32 or q8_0 (f16)", TEXT,
      offsetof(Settings, cache), 0, 0, "f16 f32 q8_0" },
    { "-j", "N", "threads (physical cores)", INTEGER, offsetof(Settings, threads), 1, 256, NULL },
    { "-e", NULL, "do not repeat the prompt in the output", FLAG, offsetof(Settings, no_echo), 0, 0,
      NULL },
    { "-v", NULL, "facts and speed on stderr", FLAG, offsetof(Settings, verbose), 0, 0, NULL },
    { "-x", "FILE", "perplexity of a text file", TEXT, offsetof(Settings, text_file), 0, 0, NULL },
    { "-l", "N", "the N likeliest next tokens after the prompt: id, probability, text", INTEGER,
      offsetof(Settings, likeliest), 1, 1e9, NULL },
    { "--tokens", NULL, "the ids of the prompt's tokens", FLAG, offsetof(Settings, tokens), 0, 0,
      NULL },
    { "--bos", NULL, "with --tokens: also the beginning-of-text token, where the model wants one",
      FLAG, offsetof(Settings, bos), 0, 0, NULL },
    { "-b", NULL, "benchmark: tokens a second of a prompt of 512 and of generating 64", FLAG,
      offsetof(Settings, bench), 0, 0, NULL },
    { "-h", NULL, "this help", FLAG, offsetof(Settings, help), 0, 0, NULL },
    { "--help", NULL, "the same", FLAG, offsetof(Settings, help), 0, 0, NULL },
    { "--version", NULL, "the version", FLAG, offsetof(Settings, version), 0, 0, NULL },
};

/* One line on stderr; returns the exit code. */
__attribute__((format(printf, 2, 3))) static int complain(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("run: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

static void print_help(void)
{
    puts("run MODEL.gguf [options]: generate text with a language model\n");
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        char left[32];
        snprintf(left, sizeof left, "%s %s", options[i].name,
                 options[i].argument ? options[i].argument : "");
        printf("  %-13s %s\n", left, options[i].help);
    }
    puts("\n(in brackets: default; * a model file's own general.sampling.* keys come before it)");
}

/* Whether value is one of the words. */
static int is_choice(const char *words, const char *value)
{
    size_t len = strlen(value);
    for (const char *word = words; *word; word += strcspn(word, " "), word += *word == ' ') {
        if (len == strcspn(word, " ") && !strncmp(word, value, len)) return 1;
    }
    return 0;
}

/* Stores the value of an option; fails on anything that is not wholly a value in range. */
static int set_option(Settings *settings, const struct Option *o, const char *value)
{
    char *field = (char *)settings + o->field, *end = NULL;
    double number = 0;
    errno = 0;
    if (o->kind == FLAG) *(int *)field = 1;
    if (o->kind == TEXT) *(const char **)field = value;
    if (o->choices && !is_choice(o->choices, value)) {
        return complain(2, "%s %s: expected one of %s", o->name, value, o->choices);
    }
    if (o->kind == SEED) {
        *(uint64_t *)field = strtoull(value, &end, 10);
        settings->seed_given = 1;
    }
    if (o->kind == INTEGER) number = (double)strtoll(value, &end, 10);
    if (o->kind == NUMBER) number = strtod(value, &end);
    if (end && (end == value || *end || errno || strchr(" \t\n\v\f\r", *value))) {
        return complain(2, "%s %s: expected %s", o->name, value,
                        o->kind == NUMBER ? "a number" : "an integer");
    }
    if (end && o->kind != SEED && !(number >= o->min && number <= o->max)) {
        return complain(2, "%s %s: expected %.10g to %.10g", o->name, value, o->min, o->max);
    }
    if (o->kind == INTEGER) *(int *)field = (int)number;
    if (o->kind == NUMBER) *(double *)field = number;
    return 0;
}

/* Fills in settings; the model's path is the argument that belongs to no option. */
static int parse_options(Settings *settings, const char **model, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const struct Option *o = NULL;
        for (size_t j = 0; j < ARRAY_LEN(options); j++) {
            if (!strcmp(options[j].name, argv[i])) o = &options[j];
        }
        if (!o && argv[i][0] == '-') {
            return complain(2, "unknown option %s; -h lists them", argv[i]);
        }
        if (!o && *model) return complain(2, "two model files, %s and %s", *model, argv[i]);
        if (!o) {
            *model = argv[i];
        } else if (o->argument && i + 1 == argc) {
            return complain(2, "%s needs a value: %s", o->name, o->help);
        } else if (set_option(settings, o, o->argument ? argv[++i] : NULL)) {
            return 2;
        }
    }
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The bytes of a file ("-": stdin), with a zero behind them; NULL on failure, which is told. */
static char *read_all(const char *path, size_t *len)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    size_t size = 1 << 16;
    char *text = file ? malloc(size) : NULL, *more = text;
    *len = 0;
    while (more && !feof(file) && !ferror(file)) {
        *len += fread(text + *len, 1, size - 1 - *len, file);
        if (*len == size - 1 && (more = realloc(text, size *= 2))) text = more;
    }
    if (!more || ferror(file)) {
        complain(1, "%s: %s", path, strerror(errno));
        free(text);
        text = NULL;
    } else {
        text[*len] = 0;
    }
    if (file && file != stdin) fclose(file);
    return text;
}

/* The prompt of -i or -f, "" without either. */
static char *read_prompt(const Settings *o, size_t *len)
{
    if (o->prompt_file) return read_all(o->prompt_file, len);
    if (o->prompt && !strcmp(o->prompt, "-")) {
        char *text = read_all("-", len);
        if (text && *len && text[*len - 1] == '\n') text[--*len] = 0;
        return text;
    }
    char *copy = strdup(o->prompt ? o->prompt : "");
    *len = copy ? strlen(copy) : 0;
    return copy;
}

/* All token ids of a text, or NULL after telling why. */
static int *encode(const llm_model *m, const char *text, size_t len, int flags, int *n)
{
    int *tokens = NULL, room = len >> 30 ? 0 : (int)len + 2; /* nearly always enough */
    do {
        free(tokens);
        tokens = malloc((size_t)room * sizeof *tokens + 1);
        *n = tokens ? llm_encode(m, text, len, flags, tokens, room) : -1;
    } while (*n > room && (room = *n));
    if (*n >= 0) return tokens;
    complain(1, "%s", tokens ? llm_error() : "out of memory");
    free(tokens);
    return NULL;
}

/* The token before the first one of a text, or -1 after telling that there is none. */
static int start_token(const llm_model *m)
{
    const llm_facts *c = llm_info(m);
    if (c->bos < 0 && c->eos < 0) complain(1, "the model has no token that begins a text");
    return c->bos >= 0 ? c->bos : c->eos;
}

static int print_tokens(const llm_model *m, const Settings *o, const char *text, size_t len)
{
    int n, *tokens = encode(m, text, len, LLM_BEGIN | (o->bos ? LLM_BOS : 0), &n);
    if (!tokens) return 1;
    for (int i = 0; i < n; i++) printf("%s%d", i ? " " : "", tokens[i]);
    puts("");
    free(tokens);
    return 0;
}

/* Natural logarithm of the probability of token. */
static double log_probability(const float *logits, int n, int token)
{
    double sum = 0;
    float top = logits[0];
    for (int i = 1; i < n; i++) {
        if (logits[i] > top) top = logits[i];
    }
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return (double)logits[token] - top - log(sum);
}

/* The log-probability of tokens[1..n] after tokens[0]; fails after telling why. The windows overlap
 * by half, so that no token but the first ones has less than half a context before it. */
static int score(const llm_model *m, llm_session *s, const int *tokens, int n, double *sum)
{
    enum { BATCH = 32 };
    int vocab = llm_info(m)->vocab_size, context = llm_context(s), done = 0;
    float *logits = malloc(BATCH * (size_t)vocab * sizeof *logits);
    int failed = !logits;
    *sum = 0;
    for (int from = 0; !failed && done<n; from += context> 1 ? context / 2 : 1) {
        int end = n - from > context ? from + context : n;
        llm_rewind(s, 0);
        failed = done > from && !llm_eval(s, tokens + from, done - from);
        for (int count; !failed && done < end; done += count) {
            count = end - done < BATCH ? end - done : BATCH;
            failed = llm_eval_all(s, tokens + done, count, logits) != 0;
            for (int i = 0; !failed && i < count; i++) {
                const float *mine = logits + (size_t)i * (size_t)vocab;
                *sum += log_probability(mine, vocab, tokens[done + i + 1]);
            }
        }
        if (isatty(2)) {
            fprintf(stderr, "\r%d of %d tokens, perplexity %.4f", done, n, exp(-*sum / done));
        }
    }
    if (isatty(2)) fputc('\n', stderr);
    free(logits);
    if (failed) return complain(1, "%s", logits ? llm_error() : "out of memory");
    return isfinite(*sum) ? 0 : complain(1, "a probability of the text is no number, or 0");
}

static int print_perplexity(const llm_model *m, llm_session *s, const char *path)
{
    size_t len;
    double sum;
    int n = 0, status = 1;
    char *text = read_all(path, &len);
    int *tokens = text ? encode(m, text, len, LLM_BEGIN, &n) : NULL;
    int *all = tokens ? malloc(((size_t)n + 1) * sizeof *all) : NULL;
    if (tokens && !all) complain(1, "out of memory");
    if (all && n == 0) complain(1, "%s has no text", path);
    if (all && n > 0 && (all[0] = start_token(m)) >= 0) {
        memcpy(all + 1, tokens, (size_t)n * sizeof *all);
        status = score(m, s, all, n, &sum);
    }
    if (!status) {
        printf("perplexity %.4f bits-per-byte %.4f tokens %d\n", exp(-sum / n),
               -sum / log(2) / (double)len, n);
    }
    free(text), free(tokens), free(all);
    return status;
}

/* Text on one line: control characters, and bytes that are no whole character, as escapes. */
static void print_escaped(const char *text, size_t len)
{
    for (size_t i = 0, step; i < len; i += step) {
        int length = tokenizer_char(text + i, len - i);
        unsigned char byte = (unsigned char)text[i];
        step = length > 0 ? (size_t)length : 1;
        if (byte == '\n' || byte == '\t' || byte == '\\') {
            printf("\\%c", byte == '\n' ? 'n' : byte == '\t' ? 't' : '\\');
        } else if (length <= 0 || byte < ' ' || byte == 127) {
            printf("\\x%02x", byte);
        } else {
            fwrite(text + i, 1, step, stdout);
        }
    }
}

typedef struct {
    double p;
    int id;
} Likely;

static int compare_likely(const void *a, const void *b)
{
    const Likely *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

/* The likeliest next tokens: id, probability and text, separated by tabs. */
static int print_likeliest(const llm_model *m, const llm_session *s, int count)
{
    const float *logits = llm_logits(s);
    int n = llm_info(m)->vocab_size;
    Likely *all = malloc((size_t)n * sizeof *all);
    if (!logits || !all) {
        free(all);
        return complain(1, "%s", logits ? "out of memory" : llm_error());
    }
    for (int i = 0; i < n; i++) all[i] = (Likely){ logits[i], i };
    double norm = logits[0] - log_probability(logits, n, 0);
    if (!isfinite(norm)) {
        free(all);
        return complain(1, "the logits are not numbers: the weights hold NaN or infinity");
    }
    qsort(all, (size_t)n, sizeof *all, compare_likely);
    for (int i = 0; i < count && i < n; i++) {
        char text[256];
        size_t len = llm_decode(m, &all[i].id, 1, LLM_SPECIAL, text, sizeof text);
        printf("%d\t%.6f\t", all[i].id, exp(all[i].p - norm));
        print_escaped(text, len < sizeof text ? len : sizeof text - 1);
        puts("");
    }
    free(all);
    return 0;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Best and median speed of evaluating n tokens, step at a time: five runs after a warm-up, fewer if
 * they are slow. */
static int bench(const llm_model *m, llm_session *s, const char *name, int n, int step)
{
    enum { RUNS = 5 };
    double speeds[RUNS], began = seconds();
    int tokens[512], runs = 0;
    for (int i = 0; i < n; i++) tokens[i] = (int)((int64_t)i * 7919 % llm_info(m)->vocab_size);
    for (int run = -1; run < RUNS && (runs == 0 || seconds() - began < 60); run++) {
        double start = seconds();
        llm_rewind(s, 0);
        for (int i = 0; i < n; i += step) {
            if (!llm_eval(s, tokens + i, step)) return complain(1, "%s", llm_error());
        }
        if (run >= 0) speeds[runs++] = n / (seconds() - start);
    }
    qsort(speeds, (size_t)runs, sizeof *speeds, compare_doubles);
    printf("%s%d %.2f tok/s best, %.2f median of %d\n", name, n, speeds[runs - 1], speeds[runs / 2],
           runs);
    fflush(stdout);
    return 0;
}

/* What the text callback needs, and what it measures. */
typedef struct {
    double first; /* when the first text came */
    int failed;   /* stdout can't be written to */
} Output;

static int print_text(void *user, const char *text, size_t len)
{
    Output *out = user;
    if (out->first == 0) out->first = seconds();
    if (fwrite(text, 1, len, stdout) != len || fflush(stdout)) out->failed = errno ? errno : EIO;
    return out->failed;
}

static void print_facts(const llm_model *m, const llm_session *s, const Settings *o,
                        double load_time)
{
    const llm_facts *c = llm_info(m);
    fprintf(stderr, "model    %s (%s, %s), %.2f million parameters\n",
            *c->name ? c->name : "without a name", c->arch, c->format, (double)c->n_params * 1e-6);
    fprintf(stderr,
            "shape    %d layers, dim %d, hidden %d, %d heads of %d, %d key/value heads, vocabulary "
            "%d\n",
            c->n_layers, c->dim, c->hidden_dim, c->n_heads, c->head_dim, c->n_kv_heads,
            c->vocab_size);
    fprintf(stderr, "session  context %d of %d, seed %llu, kernels %s, loaded in %.1f ms\n",
            llm_context(s), c->context, (unsigned long long)o->seed, c->kernels, load_time * 1e3);
}

/* After generating: speed, memory, and a hash of the last logits, which shows any change of the
 * arithmetic. */
static void print_speed(const llm_model *m, const llm_session *s, int n_prompt, int n,
                        const double times[3])
{
    const float *logits = llm_logits(s);
    struct rusage use;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; logits && i < (size_t)llm_info(m)->vocab_size * sizeof *logits; i++) {
        hash = (hash ^ ((const unsigned char *)logits)[i]) * 0x100000001b3;
    }
    getrusage(RUSAGE_SELF, &use);
    double rate = n / (times[2] > 0 ? times[2] : 1e-9);
    fprintf(stderr, "prompt   %d tokens, %.2f tok/s, first text after %.1f ms\n", n_prompt,
            n_prompt / times[0], times[1] * 1e3);
    fprintf(stderr, "generate %d tokens, %.2f tok/s, %.2f GB/s\n", n, rate,
            rate * (double)llm_info(m)->bytes_read * 1e-9);
#ifdef __APPLE__
    use.ru_maxrss /= 1024; /* bytes there, kilobytes elsewhere */
#endif
    fprintf(stderr, "memory   %.1f MB at most, with the parts of the file that were used\n",
            (double)use.ru_maxrss / 1024);
    fprintf(stderr, "logits   hash %016llx\n", (unsigned long long)hash);
}

/* The model file's way of sampling with what the options change. */
static llm_sampling choose_sampling(const llm_model *m, const Settings *o)
{
    llm_sampling p = llm_info(m)->sampling;
    if (o->temperature >= 0) p.temperature = (float)o->temperature;
    if (o->top_p >= 0) p.top_p = (float)o->top_p;
    if (o->top_k >= 0) p.top_k = o->top_k;
    if (o->min_p >= 0) p.min_p = (float)o->min_p;
    if (o->repeat >= 0) p.repeat_penalty = (float)o->repeat;
    return p;
}

/* The likeliest next tokens after the prompt, or those that a text begins with. */
static int likeliest(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                     size_t len)
{
    int n = 1, start = len ? 0 : start_token(m);
    int *tokens = len ? encode(m, prompt, len, LLM_BEGIN | LLM_BOS, &n) : NULL;
    if (start < 0 || (len && !tokens)) return 1;
    const float *logits = llm_eval(s, tokens ? tokens : &start, n);
    free(tokens);
    return logits ? print_likeliest(m, s, o->likeliest) : complain(1, "%s", llm_error());
}

/* The prompt and what the model makes of it. */
static int generate(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                    size_t len)
{
    Output out = { 0 };
    llm_sampling p = choose_sampling(m, o);
    int n_prompt = 0, most = o->n < 0 ? 256 : o->n, status = 0;
    int *tokens = len ? encode(m, prompt, len, LLM_BEGIN | LLM_BOS, &n_prompt) : NULL;
    if (len && !tokens) return 1;
    if (n_prompt > llm_context(s)) {
        free(tokens);
        return complain(1, "the prompt has %d tokens, the context %d positions", n_prompt,
                        llm_context(s));
    }
    if (!o->no_echo) print_text(&out, prompt, len);
    double start = seconds();
    if (n_prompt && !llm_eval(s, tokens, n_prompt)) status = complain(1, "%s", llm_error());
    double times[3] = { seconds() - start, 0, 0 };
    free(tokens);
    if (status || out.failed) return status;
    out.first = 0;
    int n = llm_generate(s, "", most, &p, print_text, &out);
    if (n < 0) return complain(1, "%s", llm_error());
    times[1] = out.first - start;
    times[2] = seconds() - start - times[0];
    if (!out.failed) print_text(&out, "\n", 1);
    if (llm_position(s) == llm_context(s) && (most == 0 || n < most)) {
        complain(0, "the context of %d positions is full", llm_context(s));
    }
    if (o->verbose) print_speed(m, s, n_prompt, n, times);
    return out.failed && out.failed != EPIPE ? complain(1, "stdout: %s", strerror(out.failed)) : 0;
}

/* A conversation: the prompt is the first user turn, then each line of stdin is one. Where stdin is
 * no terminal, only the answers are printed, and a prompt makes it a single turn. */
static int chat(const llm_model *m, llm_session *s, const Settings *o, const char *prompt)
{
    Output out = { 0 };
    llm_sampling p = choose_sampling(m, o);
    int talking = isatty(0), status = 0;
    char *line = NULL;
    size_t room = 0;
    if (o->system && llm_turn(s, "system", o->system)) return complain(1, "%s", llm_error());
    for (int first = 1; !status && !out.failed; first = 0) {
        const char *text = first && *prompt ? prompt : NULL;
        if (!text) {
            if (talking) fputs("> ", stderr);
            ssize_t n = !first && *prompt && !talking ? -1 : getline(&line, &room, stdin);
            if (n < 0) break;
            if (line[n - 1] == '\n') line[n - 1] = 0;
            text = line;
        }
        if (!*text) continue;
        if (llm_turn(s, "user", text) || llm_turn(s, "assistant", NULL) ||
            llm_generate(s, "", o->n < 0 ? 0 : o->n, &p, print_text, &out) < 0) {
            status = complain(1, "%s", llm_error());
        }
        if (!out.failed && !status) print_text(&out, "\n", 1);
        if (!status && llm_position(s) == llm_context(s)) {
            status = complain(1, "the context of %d positions is full", llm_context(s));
        }
    }
    free(line);
    if (out.failed && out.failed != EPIPE) status = complain(1, "stdout: %s", strerror(out.failed));
    return status;
}

/* Everything that needs a session. */
static int run_session(const llm_model *m, const Settings *o, const char *prompt, size_t len,
                       double load_time)
{
    const llm_facts *c = llm_info(m);
    llm_session *s = llm_session_new(m,
                                     &(llm_options){ o->context, o->threads, o->seed, o->cache });
    int status, context = s ? llm_context(s) : 0;
    if (!s) return complain(1, "%s", llm_error());
    if (!o->context && context < c->context) {
        complain(0, "the context is %d instead of %d, to fit memory; -c sets it", context,
                 c->context);
    }
    if (context > c->context) {
        complain(0, "the context of %d is longer than the model's %d", context, c->context);
    }
    if (o->verbose) print_facts(m, s, o, load_time);
    if (o->text_file) {
        status = print_perplexity(m, s, o->text_file);
    } else if (o->bench) {
        int n = context < 512 ? context : 512;
        status = bench(m, s, "pp", n, n) || bench(m, s, "tg", context < 64 ? context : 64, 1);
    } else if (o->likeliest) {
        status = likeliest(m, s, o, prompt, len);
    } else if (o->mode && !strcmp(o->mode, "chat")) {
        status = chat(m, s, o, prompt);
    } else {
        status = generate(m, s, o, prompt, len);
    }
    llm_session_free(s);
    return status;
}

static int run_model(const char *path, const Settings *o)
{
    size_t len;
    double start = seconds();
    llm_model *m = llm_open(path);
    double load_time = seconds() - start;
    if (!m) return complain(1, "%s", llm_error());
    if (*llm_info(m)->warning) complain(0, "%s", llm_info(m)->warning);
    char *prompt = read_prompt(o, &len);
    int status = 1;
    if (prompt && o->tokens) status = print_tokens(m, o, prompt, len);
    if (prompt && !o->tokens) status = run_session(m, o, prompt, len, load_time);
    free(prompt);
    llm_close(m);
    return status;
}

int main(int argc, char **argv)
{
    Settings o = {
        .n = -1, .top_k = -1, .temperature = -1, .top_p = -1, .min_p = -1, .repeat = -1
    };
    const char *path = NULL;
    struct timespec now;
    int status = 0;
    if (parse_options(&o, &path, argc, argv)) return 2;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!o.seed_given) o.seed = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    if (o.help) {
        print_help();
    } else if (o.version) {
        puts("run " RUN_VERSION);
    } else if (!path) {
        return complain(2, "no model file: run MODEL.gguf [options]; -h lists them");
    } else if (o.prompt && o.prompt_file) {
        return complain(2, "-i and -f both give a prompt");
    } else if (o.tokens + o.bench + !!o.text_file + !!o.likeliest > 1) {
        return complain(2, "--tokens, -b, -x and -l go one at a time");
    } else {
        status = run_model(path, &o);
    }
    if (fflush(stdout) && errno != EPIPE && !status) {
        status = complain(1, "stdout: %s", strerror(errno));
    }
    return status;
}

#endif /* RUN_NO_MAIN */

/* ==== 11. Appendix: kernels by instruction set ===================================================
 * The portable kernels are the first row. A reader may stop here: rows below it compute the same
 * sums for the instruction sets of real machines. */

static int always(void)
{
    return 1;
}

/* In rising order; the last usable row wins, and a function that it lacks comes from the row above.
 * To add one: its functions, a check of the machine, a row. RUN_CPU=NAME forces a row. */
static const Isa isas[] = {
    { "portable", always, gemm_portable },
};

static const char *pick_kernels(void)
{
    const char *wanted = getenv("RUN_CPU");
    const Isa *best = NULL;
    for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
        if (isas[i].usable() && (!wanted || !*wanted || !strcmp(wanted, isas[i].name))) {
            best = &isas[i];
        }
    }
    if (!best) {
        fail("RUN_CPU=%s: this machine has no such kernels", wanted);
        return NULL;
    }
    if (kernels != best) kernels = best;
    return best->name;
}

#endif /* RUN_HEADER_ONLY */
