/* run.c: run a language model that is one other file.
 *
 *   cc -O3 run.c tokenizer.c -lm -o run           the program (-pthread where libc is old)
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
 * found and what was expected; a missing argument is an error too. Nothing here prints, exits or
 * aborts. Destructors take NULL.
 * Threads: a model is read-only and may be shared; a session is used by one thread at a time.
 * Work is shared by a pool of threads of the process, which is for one product or the like at a
 * time: evaluations that meet it in use do that one alone. With RUN_OPENMP defined, it is OpenMP's.
 * Fork: models and sessions go on in a child after fork() (with OpenMP, with one thread).
 * One translation unit: include run.c, then tokenizer.c.
 *
 * An evening's path to how a model works: one layout and unpack (section 2), struct llm_session and
 * Buffers (5), norm, rope and multiply (6), attend_span (7), feed_forward (8), forward and eval
 * (9), llm_sample (10). The rest is what files, machines and people ask for.
 *
 * Words:
 *   row       one token at one position of one session; a batch is up to CHUNK rows (of a matrix:
 *             its numbers for one output)
 *   block     what a weight format stores as one: quanta (small integers) with their scales
 *   layout    where in a block the bits of its quanta and scales lie
 *   unit      256 columns of a row of weights, unpacked to bytes
 *   band      32 rows of a matrix side by side, so that one number of x meets all of them at once
 *   tile      the few rows of x, or of a prompt, that a kernel takes through a band together
 *   span      512 positions of the cache, for which attention is summed up on its own
 *   piece     what a thread does of a parallel region at a time
 *   latent    a short vector from which keys and values are made (attention of DeepSeek)
 *   expert    one of many feed-forward parts of a layer, chosen by its router for each token
 *   mixer     what a layer mixes positions with: attention, or a state that each one changes
 *   state     what such a layer knows of all positions so far, in a size that does not grow
 *   valid     positions whose keys and values the cache has
 *   turn      a message of a conversation; open while the model writes it
 *   mark      a token that a chat template sets turns and thoughts off with
 *   isa       a row of kernels for an instruction set
 */

/* ==== 0. Public API =========================================================================== */

#if !defined RUN_HEADER_ONLY && !defined _GNU_SOURCE
#define _GNU_SOURCE /* POSIX and syscall, with -std=c11 too */
#endif

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
                          process's memory (the machine's, or the limit of its control group)
                          holds, so say less for several sessions */
    int threads;       /* 0: one for each physical core */
    uint64_t seed;     /* every seed is good */
    const char *cache; /* format of the KV cache: f16, f32 or q8_0 (half of f16); NULL: f16 */
    const char
        *chat_template;    /* a name of llm_chat_template, or a text in Jinja; NULL: the file's */
    const char *variables; /* further variables of the template, a JSON object; NULL: none */
    const char *tools;     /* what the template tells the model of tools, a JSON list; or NULL */
    int thinking;     /* the template's enable_thinking: 1 true, -1 false, 0 as it has it itself */
    int shift;        /* turns that do not fit, and answers that reach the context's end, make
                                 room: the oldest turns behind the system prompt are dropped */
    const char *draft; /* llm_generate evaluates tokens that may follow together with one that was
                          drawn: none; those that followed the same tokens before, if it pays:
                          text; or in any case: always. They change nothing but the time. NULL:
                          text */
    const char *const *stops; /* texts that end what llm_generate writes and are not given out, NULL
                                 behind the last; they must live as long as the session; or NULL */
    const volatile int *interrupt; /* evaluations fail soon after it became non-zero; or NULL */
} llm_options;

/* What a model file says of itself. Texts live as long as the model; unknown ones are "". */
typedef struct {
    const char *name, *arch, *format; /* format: the weight format that most bytes have */
    const char *chat_template;        /* in Jinja */
    const char *warning;     /* what was assumed while loading, "" if nothing */
    const char *kernels;     /* the instruction set in use */
    int context, vocab_size, dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim;
    int n_experts, n_experts_used; /* in a layer and for each token; 0: no experts */
    int bos, eos;                  /* token ids, -1: none */
    int has_weights;    /* 0: a vocabulary-only file; it encodes and decodes, and has no sessions */
    int64_t n_params;   /* numbers in all tensors */
    int64_t bytes_read; /* weight bytes read for each generated token */
    int64_t state_bytes;   /* of the states of layers that have one; sessions keep 4 to 8 of them */
    llm_sampling sampling; /* the file's own general.sampling.* keys; temperature 1 and top_p 0.9
                              where absent */
} llm_facts;

enum {
    LLM_BEGIN = 1,   /* the text begins here: SentencePiece's leading space is added or removed */
    LLM_BOS = 2,     /* encode: put the beginning-of-text token in front, if the model wants one */
    LLM_SPECIAL = 4, /* encode: the text of control tokens becomes these tokens, else it stays text;
                       decode: control tokens give their text, else nothing */
    LLM_FULL = -2    /* returned instead of -1 where the tokens do not fit the context */
};

/* The sentence of the last failure in this thread. */
const char *llm_error(void);

/* Maps a GGUF file. The file must not change while the model is open: where it is made shorter, the
 * system ends the process with SIGBUS. A host that can't rule that out reads the file itself and
 * uses llm_open_memory, or handles the signal, as the program in section 12 does. */
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

/* A session costs its KV cache; what evaluations work with, sessions of a model share, one set for
 * each that evaluates at the same time. */
llm_session *llm_session_new(const llm_model *m, const llm_options *options);
void llm_session_free(llm_session *s);

/* What is doubtful about a session, "" if nothing: the mark with which its chat template ends
 * answers is no token of the model. */
const char *llm_warning(const llm_session *s);

/* A second session with the same past, position and random state; the cost is a copy of the used KV
 * cache. */
llm_session *llm_fork(const llm_session *s);

/* Positions in use, how many there are, and the threads that evaluate. */
int llm_position(const llm_session *s);
int llm_context(const llm_session *s);
int llm_threads(const llm_session *s);

/* How many tokens llm_generate drafted in this session, and how many of them were right, into right
 * if that is not NULL. */
int64_t llm_drafted(const llm_session *s, int64_t *right);

/* The tokens so far: llm_position of them, valid until the session changes. */
const int *llm_tokens(const llm_session *s);

/* Goes back to a position; what came after is forgotten, and if that is anything, there are no
 * logits until the next evaluation. Where layers have a state, the session goes back to the newest
 * one that it has kept, and that evaluation takes the tokens behind it again. */
int llm_rewind(llm_session *s, int position);

/* From now on the session draws as if it had been made with this seed. */
void llm_seed(llm_session *s, uint64_t seed);

/* Makes n tokens the session's past. It keeps what it has of them in common with its own, and
 * evaluates from the first that differs; turns that are cut are none any more. On failure the
 * session is as before, but has no logits. */
int llm_sync(llm_session *s, const int *tokens, int n);

/* Writes the session to a file, which appears when it is whole: tokens, KV cache, turns, random
 * state, and a fingerprint of the model. Where the file is as this session last saved or loaded it,
 * what changed is appended; else it is written anew beside the old one and takes its place, owner
 * and mode (600 where there was none). A symbolic link stays, and its target is replaced. A crash
 * leaves the old version. llm_load makes a session what the saved one was; it fails and changes
 * nothing if the file is damaged, of another model, has a cache of another format, or more
 * positions than the session's context. */
int llm_save(llm_session *s, const char *path);
int llm_load(llm_session *s, const char *path);

/* Appends n tokens and returns the logits after the last one: (vocab_size) floats that the session
 * owns and the next evaluation overwrites. On failure returns NULL and the session is as before,
 * but has no logits if it was interrupted. */
const float *llm_eval(llm_session *s, const int *tokens, int n);

/* Appends n tokens and writes the logits after each of them to logits (n, vocab_size). */
int llm_eval_all(llm_session *s, const int *tokens, int n, float *logits);

/* Appends one token to each of n different sessions of one model, reading the weights once for all
 * of them. Each session then has its own logits for llm_logits and llm_sample. The threads and the
 * working memory are those of the first one, so no other call may use it meanwhile. On failure all
 * are as before, but have no logits if one of them was interrupted. */
int llm_eval_many(llm_session *const *sessions, const int *tokens, int n);

/* The logits after the session's last token (vocab_size), NULL if nothing was evaluated since the
 * session was made or rewound. */
const float *llm_logits(const llm_session *s);

/* Draws the next token from the session's last logits; it is not appended. NULL takes the model
 * file's sampling. Fails if a number in it is NaN or infinite. */
int llm_sample(llm_session *s, const llm_sampling *sampling);

/* Appends a turn of a conversation: the session's past becomes what the chat template makes of all
 * its turns, and only what it does not have of that already is evaluated. role is system, user,
 * assistant or another that the template knows; the text is plain: nothing in it is taken for the
 * template's own marks. NULL text opens an answer of the assistant, so that llm_generate writes it;
 * the next turn closes it, and its thoughts stay or go as the template has it. Where the template
 * raises an exception, that is the sentence. On failure the session is as before, but has no
 * logits. */
int llm_turn(llm_session *s, const char *role, const char *text);

/* The number of turns, the position where one begins, its role and its text; -1 and NULL where
 * there is none of that number. A turn that is open has no text yet, and one that the template
 * writes with the next question no position (-1). */
int llm_turns(const llm_session *s);
int llm_turn_start(const llm_session *s, int turn);
const char *llm_turn_role(const llm_session *s, int turn);
const char *llm_turn_text(const llm_session *s, int turn);

/* Removes count turns from number first on, as if they had never been. On failure the session is as
 * before, but has no logits. */
int llm_drop(llm_session *s, int first, int count);

/* Inside on_text: whether the text is a thought, no answer. */
int llm_is_thought(const llm_session *s);

/* The names of the built-in chat templates, for files that have none; NULL for a number that is
 * none. */
const char *llm_chat_template(int number);

/* Appends a prompt (plain text) and at most max_tokens generated ones (0 or less: as many as the
 * context holds), until a stop token or text. on_text gets the generated text piece by piece,
 * always whole UTF-8 characters with a zero at the end, without the white space that an answer may
 * begin with; it may be NULL, and ends the generation by returning non-zero. NULL sampling takes
 * the model file's. Returns the number of generated tokens. An empty prompt on a new session starts
 * a text from nothing; else it goes on, so that many short calls give the text of a long one. Where
 * max_tokens ends a call, what may yet become a stop text, a mark or a character waits for the next
 * one, or for llm_write. */
int llm_generate(llm_session *s, const char *prompt, int max_tokens, const llm_sampling *sampling,
                 int (*on_text)(void *user, const char *text, size_t len), void *user);

/* What llm_generate does with a token that was drawn, for hosts that draw and evaluate by
 * themselves: call it before the token is evaluated. Gives on_text the text that is complete with
 * it; returns 0, 1 if the text ends, so that the token must not be evaluated (a stop token; or a
 * stop text, of which nothing stays in the session), -1 on failure. Token -1 ends the text: what
 * waits is given out. */
int llm_write(llm_session *s, int token, int (*on_text)(void *user, const char *text, size_t len),
              void *user);

#ifdef __cplusplus
}
#endif
#endif

#ifndef RUN_HEADER_ONLY

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tokenizer.h"

#ifdef __FAST_MATH__
#error "run.c needs IEEE arithmetic: compile it without -ffast-math"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "run.c reads GGUF files where they lie, which needs a little-endian machine"
#endif
_Static_assert(sizeof(size_t) == 8, "a model is larger than the address space of 32 bits");

#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* Text that each of its users compiles for itself, with what it knows of the arguments. */
#define BODY static inline __attribute__((always_inline))

/* Unrolls the loop that follows. */
#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#ifdef __clang__
#define UNROLL(n) PRAGMA(clang loop unroll(full))
#define PLAIN_LOOP PRAGMA(clang loop vectorize(disable) unroll(disable)) /* the one in it is */
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#define PLAIN_LOOP
#endif

/* ==== 1. Limits and helpers ======================================================================
 * Every limit of the engine stands here. Errors are sentences; memory comes from one arena for each
 * object; a file is read through a cursor that can't leave it. */

enum {
    CHUNK = 512,        /* rows that are evaluated at once; bounds the buffers of an evaluation */
    LOGIT_ROWS = 16,    /* rows whose logits are computed at once */
    BAND = 32,          /* rows of a matrix that are worked on side by side */
    BAND_COLS = 256,    /* its columns that are worked on at once; they stay in the L1 cache */
    RUN_BANDS = 8,      /* bands that follow each other, or share a piece of x in the L2 cache */
    TILE_ROWS = 16,     /* rows of x from which on tiles are faster than bands alone */
    FEW_ROWS = 8,       /* rows of x up to which each gets the very sums that it gets alone */
    AHEAD = 4096,       /* bytes that a row is asked for before it is read */
    SPAN = 512,         /* positions that attention sums up by themselves */
    ATTEND_BLOCK = 128, /* a tile of attention: positions, query rows, and those times heads */
    ATTEND_ROWS = 64,
    ATTEND_HEADS = 1024,
    MIN_WORK = 150000,  /* bytes, for each row of x, below which a second thread costs more than it
                           brings */
    MIN_ROWS = 8,       /* rows of a batch, the same */
    POOL_LOOKS = 2000,  /* for new work that a thread makes before it sleeps */
    REPEAT_WINDOW = 64, /* tokens that the repetition penalty looks back */
    SAME_BEFORE = 3,    /* tokens that must have stood before those that are drafted */
    LEARN_STEPS = 4,    /* steps that tell what a token costs without drafts */
    DRAFT_REST = 8,     /* tokens without drafts after one that did not pay; doubles */
    MAX_DRAFT_REST = 512,
    LARGE = 1 << 22, /* bytes of a buffer from which on large pages pay */
    MAX_THREADS = 256,
    MAX_PROCESSORS = 4096,
    MAX_LAYERS = 1024,
    MAX_DIM = 1 << 20, /* any width: embedding, feed-forward, heads x head_dim */
    MAX_HEADS = 1024,
    MAX_EXPERTS = 1024,
    MAX_PRODUCTS = 64, /* that are done together */
    MAX_GROUP = 128,   /* query heads that share a key/value head */
    MAX_HEAD_DIM = 640,
    MAX_TAPS = 16,       /* positions that a convolution sees */
    MAX_STATE = 1 << 28, /* numbers of the states of all layers */
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 24,
    MAX_STOPS = 24,
    MAX_STOP = 256,         /* bytes of a stop text */
    MAX_ROLE = 64,          /* of the name of a role */
    MAX_SPARE = 8,          /* buffers of evaluations that the model keeps */
    STATE_MEMORY = 1 << 28, /* bytes of a session's states */
    MAX_STATES = 8,         /* of earlier positions that a session keeps, see State */
    MIN_STATES = 4          /* and how many at least, however large they are */
};

typedef tokenizer_text Text;

enum { SENTENCE = 512 }; /* bytes of an error */

static _Thread_local char error_text[SENTENCE];

/* Whether a character of length bytes is a control character: those of ASCII, and U+0080 to U+009F,
 * with which a terminal may be told to do anything. */
static int is_control_char(const char *text, int length)
{
    unsigned char c = (unsigned char)*text;
    return length == 1 ? c < ' ' || c == 127 : c == 0xc2 && (unsigned char)text[1] < 0xa0;
}

/* Control characters, which names in files and on command lines may hold, become '?'. */
static void make_one_line(char *text)
{
    for (; *text; text++) {
        int length = (unsigned char)*text == 0xc2 && text[1] ? 2 : 1;
        if (is_control_char(text, length)) memset(text, '?', (size_t)length);
    }
}

/* Writes a sentence on one line. Of one that is longer than its buffer the middle gives way, which
 * is part of a long path or value: what it is about stays in front, and the reason at the end. */
static void write_sentence(char text[SENTENCE], const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(text, SENTENCE, format, args), front = 64;
    char *all = n >= SENTENCE ? malloc((size_t)n + 1) : NULL;
    if (all) {
        vsnprintf(all, (size_t)n + 1, format, again);
        while (front > 60 && (text[front] & 0xc0) == 0x80) front--; /* whole characters */
        const char *end = all + n - (SENTENCE - 4 - front);
        while ((*end & 0xc0) == 0x80) end++;
        snprintf(text + front, (size_t)(SENTENCE - front), "...%s", end);
        free(all);
    }
    va_end(again);
    make_one_line(text);
}

/* Keeps the sentence for llm_error and returns -1. */
__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
    char text[SENTENCE]; /* what it is made of may be the last one */
    va_list args;
    va_start(args, format);
    write_sentence(text, format, args);
    va_end(args);
    memcpy(error_text, text, sizeof text);
    return -1;
}

const char *llm_error(void)
{
    return error_text;
}

/* Whether an argument of a public function is missing, which is an error. */
static int lacks(const void *argument, const char *what)
{
    return argument ? 0 : (fail("no %s was given", what), 1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* What Linux calls MADV_HUGEPAGE and MADV_POPULATE_READ, which older headers lack. */
enum { LARGE_PAGES = 14, READ_NOW = 22 };

/* Asks for large pages, or for pages to be read and mapped at once; systems that can't decline. */
static void advise(const void *at, size_t bytes, int advice)
{
#ifdef __linux__
    madvise((void *)(uintptr_t)at, bytes, advice);
#endif
    (void)at, (void)bytes, (void)advice;
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
    if (bytes >= LARGE) { /* the whole pages in it */
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)block;
        advise((void *)((at + page - 1) & ~(page - 1)), bytes - page, LARGE_PAGES);
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
    u |= (h & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
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

/* Threads. A region is `pieces` of work, which the thread that asks for it and those of the pool
 * take one by one. It ends when the work is done, not when all threads have come: one that the
 * system has put aside holds up nobody unless it holds a piece. */
typedef void Task(void *job, int piece, int thread);

#ifdef RUN_OPENMP
#include <omp.h>

/* The same on the threads of OpenMP. A child after fork() has one: GNU's OpenMP would wait for
 * those that only its parent has. */
static int is_child;

static void become_child(void)
{
    is_child = 1;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, become_child);
}

static int most_threads(void)
{
    return is_child ? 1 : omp_get_max_threads();
}

static void share(int threads, int pieces, Task *task, void *job)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    PRAGMA(omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1 && !is_child))
    for (int i = 0; i < pieces; i++) task(job, i, omp_get_thread_num());
}
#else

enum { is_child = 0 }; /* a child is like its parent */

static int most_threads(void)
{
    return MAX_THREADS;
}

/* What its region is, a thread reads between two looks at the ticket: the number of the region, and
 * how many pieces are left in the low half. If that is the same, and some are left, it was this
 * region all the while, and stays so until the piece is done. A region begins when none is left. */
static struct {
    pthread_mutex_t in_use; /* by the thread whose region it is; others do their work alone */
    _Atomic(Task *) task;
    _Atomic(void *) job;
    _Atomic int pieces, threads, done;
    _Atomic uint64_t ticket;
    int workers;           /* threads that were started */
    pthread_mutex_t sleep; /* for the condition that a region begins */
    pthread_cond_t wake;
    _Atomic int sleepers;
} pool = { .in_use = PTHREAD_MUTEX_INITIALIZER,
           .sleep = PTHREAD_MUTEX_INITIALIZER,
           .wake = PTHREAD_COND_INITIALIZER };

/* A child after fork() has none of the threads, and may start its own, for which nothing is left of
 * a region that its parent was in. */
static void empty_pool(void)
{
    pthread_mutex_init(&pool.in_use, NULL);
    pthread_mutex_init(&pool.sleep, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.ticket &= ~(uint64_t)UINT32_MAX;
    pool.workers = 0;
    pool.sleepers = 0;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, empty_pool);
}

/* Takes pieces of region `number` as long as there are some. */
static void take_pieces(uint32_t number, int thread)
{
    uint64_t ticket = pool.ticket;
    while (ticket >> 32 == number) {
        Task *task = pool.task;
        void *job = pool.job;
        int left = (int)(uint32_t)ticket, piece = pool.pieces - left;
        if (left == 0 || thread >= pool.threads) return;
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket - 1)) continue;
        task(job, piece, thread);
        pool.done++;
        ticket = pool.ticket;
    }
}

static void rest(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* A thread of the pool: regions follow each other within microseconds while a token is evaluated,
 * for which it looks without a pause; then it sleeps. */
static void *worker(void *number)
{
    uint32_t seen = 0;
    for (int looks = 0;; looks++) {
        uint32_t now = (uint32_t)(pool.ticket >> 32);
        if (now != seen) {
            take_pieces(seen = now, (int)(intptr_t)number);
            looks = 0;
        } else if (looks < POOL_LOOKS) {
            rest();
        } else {
            pthread_mutex_lock(&pool.sleep);
            pool.sleepers++;
            while (pool.ticket >> 32 == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
            pool.sleepers--;
            pthread_mutex_unlock(&pool.sleep);
        }
    }
    return NULL;
}

/* Starts what lacks to so many threads, if the system allows; signals are for those of the host. */
static void start_workers(int threads)
{
    sigset_t all, before;
    pthread_attr_t detached;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (pool.workers >= threads - 1) return;
    pthread_once(&once, watch_forks);
    sigfillset(&all);
    sigdelset(&all, SIGBUS), sigdelset(&all, SIGSEGV), sigdelset(&all, SIGFPE);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 1 << 20);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t t; pool.workers < threads - 1; pool.workers++) {
        if (pthread_create(&t, &detached, worker, (void *)(intptr_t)(pool.workers + 1))) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
}

/* Does task(job, 0 to pieces - 1, thread) with up to `threads` threads, numbered from 0. */
static void share(int threads, int pieces, Task *task, void *job)
{
    if (threads < 2 || pieces < 2 || pthread_mutex_trylock(&pool.in_use)) {
        for (int i = 0; i < pieces; i++) task(job, i, 0);
        return;
    }
    start_workers(threads);
    pool.task = task;
    pool.job = job;
    pool.pieces = pieces;
    pool.threads = threads;
    pool.done = 0;
    uint32_t number = (uint32_t)(pool.ticket >> 32) + 1;
    pool.ticket = (uint64_t)number << 32 | (uint32_t)pieces;
    if (pool.sleepers) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
    take_pieces(number, 0);
    for (int looks = 0; pool.done < pieces; looks++) {
        looks < POOL_LOOKS ? rest() : (void)sched_yield();
    }
    pthread_mutex_unlock(&pool.in_use);
}
#endif

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
 * often a minimum m. Formats of 32 numbers keep one scale for all; the others put 256 numbers in a
 * super-block whose eight or sixteen small scales are themselves quantized. In some what is stored
 * is not a number but its place in a list of sixteen, or that of several in a grid. So a format is
 * a layout: where in a block the bits of a number and of its scale are. It is written down once;
 * what reads the format is derived from it. Layouts: github.com/ggml-org/ggml, docs/gguf.md. */

/* Bits of a byte, on top of which may come bits of a second byte. */
typedef struct {
    int at, shift, mask;
    int high_at, high_shift, high_mask, up; /* high_mask 0: there are none */
    int packed; /* four numbers are in one byte, two bits each */
    int single; /* the second ones are four single bits, one for each of four numbers */
    int flip;   /* bits that are stored the other way round */
} Field;

BODY Field bits(int at, int shift, int mask)
{
    return (Field){ .at = at, .shift = shift, .mask = mask };
}

BODY Field join(Field low, Field high, int up)
{
    low.high_at = high.at, low.high_shift = high.shift, low.high_mask = high.mask, low.up = up;
    return low;
}

/* Where the numbers 4 i to 4 i + 3 of group p are, which have a scale in common: the first one's
 * quantum (those of the others are in the bytes behind it), d and m of f16, and a scale and a
 * minimum that are small whole numbers. The number is (q - less) d (scale - bias), or with m,
 * q d (scale - bias) + m, or with min, q d scale - m min. Places count from the beginning of a
 * super-block, or of a run of smaller blocks; groups of these are 32 numbers. */
typedef struct {
    Field quanta, scale, min;
    int d, m, less;
    float bias, unit;   /* unit: of the scale; 0: it is 1, and numbers are not those of Points */
    int exponent;       /* d is a single byte: see e8m0_float */
    const int8_t *list; /* q is an index in it; less is what makes its numbers positive */
} Layout;

typedef Layout LayoutOf(int p, int i);

/* Half-bytes of 32 numbers, the first sixteen in the low halves. */
BODY Field nibbles(int at, int i)
{
    return bits(at + i % 4 * 4, i / 4 * 4, 15);
}

/* Behind the fifth bits of all of them. */
BODY Field five_bits(int at, int i)
{
    Field f = join(nibbles(at + 4, i), bits(at + i / 2, i % 2 * 4, 15), 4);
    f.single = 1;
    return f;
}

BODY Layout layout_Q4_0(int p, int i)
{
    int at = p * 18;
    return (Layout){ .d = at, .quanta = nibbles(at + 2, i), .less = 8 };
}

BODY Layout layout_Q4_1(int p, int i)
{
    int at = p * 20;
    return (Layout){ .d = at, .m = at + 2, .quanta = nibbles(at + 4, i) };
}

BODY Layout layout_Q5_0(int p, int i)
{
    int at = p * 22;
    return (Layout){ .d = at, .quanta = five_bits(at + 2, i), .less = 16 };
}

BODY Layout layout_Q5_1(int p, int i)
{
    int at = p * 24;
    return (Layout){ .d = at, .m = at + 2, .quanta = five_bits(at + 4, i) };
}

/* Signed bytes: to flip the highest bit is to add 128. */
BODY Layout layout_Q8_0(int p, int i)
{
    int at = p * 34;
    Layout l = { .d = at, .quanta = bits(at + 2 + 4 * i, 0, 255), .less = 128 };
    l.quanta.flip = 128;
    return l;
}

/* Weights crowd around zero, and so do these. */
static const int8_t uneven[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113 };

BODY Layout layout_IQ4_NL(int p, int i)
{
    int at = p * 18;
    return (Layout){ .d = at, .quanta = nibbles(at + 2, i), .list = uneven, .less = 128 };
}

/* Floats of four bits: a sign, two bits of exponent, one of fraction. Twice their value. */
static const int8_t twice_fp4[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* opencompute.org, "OCP Microscaling Formats (MX) Specification v1.0" */
BODY Layout layout_MXFP4(int p, int i)
{
    int at = p * 17;
    return (Layout){
        .d = at, .exponent = 1, .quanta = nibbles(at + 1, i), .list = twice_fp4, .less = 12
    };
}

/* Single bits, 1 and -1. Four groups have d in common. */
BODY Layout layout_Q1_0(int p, int i)
{
    Field f = join(bits(0, 0, 0), bits(p / 4 * 18 + 2 + p % 4 * 4 + i / 2, i % 2 * 4, 15), 1);
    f.single = 1;
    return (Layout){ .d = p / 4 * 18, .quanta = f, .less = 1 };
}

/* -1, 0, 1 and 2. Two groups have d in common. */
BODY Layout layout_Q2_0(int p, int i)
{
    Field f = bits(p / 2 * 18 + 2 + p % 2 * 8 + i, 0, 3);
    f.packed = 1;
    return (Layout){ .d = p / 2 * 18, .quanta = f, .less = 1 };
}

/* Eight groups: two bits of all scales, four bits of them, half-bytes. */
BODY Layout layout_IQ4_XS(int p, int i)
{
    return (Layout){ .d = 0,
                     .scale = join(bits(4 + p / 2, p % 2 * 4, 15),
                                   bits(2 + p / 4, p % 4 * 2, 3), 4),
                     .bias = 32,
                     .quanta = nibbles(8 + p * 16, i),
                     .list = uneven,
                     .less = 128 };
}

/* Sixteen groups: scales and minima in half-bytes, quanta of which four share a byte. */
BODY Layout layout_Q2_K(int p, int i)
{
    int at = p / 8 * 32 + p % 2 * 16 + 4 * i;
    return (Layout){ .d = 80,
                     .m = 82,
                     .scale = bits(p, 0, 15),
                     .min = bits(p, 4, 15),
                     .quanta = bits(16 + at, p / 2 % 4 * 2, 3) };
}

/* -1, 0 and 1, of which four share a byte. */
BODY Layout layout_TQ2_0(int p, int i)
{
    return (Layout){ .d = 64, .quanta = bits(p / 4 * 32 + 4 * i, p % 4 * 2, 3), .less = 1 };
}

/* Third bits of all quanta, two bits of them as above, sixteen scales in twelve bytes: four bits of
 * each in the halves of the first eight, two bits in the quarters of the last four. */
BODY Layout layout_Q3_K(int p, int i)
{
    int at = p % 2 * 16 + 4 * i;
    Field two = bits(32 + p / 8 * 32 + at, p / 2 % 4 * 2, 3);
    return (Layout){ .d = 108,
                     .scale = join(bits(96 + p % 8, p / 8 * 4, 15),
                                   bits(104 + p % 4, p / 4 * 2, 3), 4),
                     .bias = 32,
                     .quanta = join(two, bits(at, p / 2, 1), 2),
                     .less = 4 };
}

/* Twelve bytes from `at` on hold eight scales and eight minima of six bits: the first four of each
 * in bytes 0-3 and 4-7; of the last four, four bits in the halves of bytes 8-11 and two bits on top
 * of the first ones. */
BODY Field six_bits(int at, int p, int is_min)
{
    int first = at + 4 * is_min + p % 4;
    if (p < 4) return bits(first, 0, 63);
    return join(bits(at + 4 + p, 4 * is_min, 15), bits(first, 6, 3), 4);
}

BODY Layout layout_Q4_K(int p, int i)
{
    return (Layout){ .d = 0,
                     .m = 2,
                     .scale = six_bits(4, p, 0),
                     .min = six_bits(4, p, 1),
                     .quanta = bits(16 + p / 2 * 32 + 4 * i, p % 2 * 4, 15) };
}

/* The same with fifth bits in front of the others. */
BODY Layout layout_Q5_K(int p, int i)
{
    Layout l = layout_Q4_K(p, i);
    l.quanta.at += 32;
    l.quanta = join(l.quanta, bits(16 + 4 * i, p, 1), 4);
    return l;
}

/* Four bits of all quanta, two bits of them, sixteen scales that are signed bytes. */
BODY Layout layout_Q6_K(int p, int i)
{
    int at = p % 2 * 16 + 4 * i;
    Field low = bits(p / 8 * 64 + p / 2 % 2 * 32 + at, p / 4 % 2 * 4, 15);
    Layout l = { .d = 208, .scale = bits(192 + p, 0, 255), .bias = 128, .less = 32 };
    l.scale.flip = 128;
    l.quanta = join(low, bits(128 + p / 8 * 32 + at, p / 2 % 4 * 2, 3), 4);
    return l;
}

/* In the formats that follow, eight numbers together, or four, are a point of a grid, one of some
 * hundreds where weights are likely to lie; signs are apart. Here are those of a block. */
typedef struct {
    _Alignas(64) int8_t numbers[256];
    uint64_t signs[4]; /* a bit each, 1: minus */
} Points;
typedef void PointsOf(Points *to, const uint8_t *block);
typedef uint16_t Eight16 __attribute__((vector_size(16), may_alias));

/* Grids as text: the numbers of a point are digits, the first one the lowest. Points follow in
 * rising order, each as a character, whose distance from # is the point's from the last one (in
 * twos where they are of eight); # begins a grid, ! goes 20 further. */
static const char eights_as_text[] =
    "#$$$$$$&$%$$$&&%$&$&)'$&%*2))$,50$&($&$%)($&)&$%)*-$(/$,2,&%$&)%$&$.//!+(F$&(',)&%*&),'(;(<&)%"
    ")-834*E$&,10%E:9$&.+'$<';$K$&,*71-S/);b=$&&%$&&'%($&,,1'%/'/'(2&)5+.(AL$&,%<8%(!+3,&%&$5&/0:FK"
    "$/H68(&3AAJ&,/27!+25%N$:f!z$&-11))CG$&%*,534.-,6LOH&)&:.7@<-(O}9l4.2HS!!!k;#$$$$$$$$$$$$%$$$$$"
    "$$%$&$$$%$%$($$$$$$$$$$&$$$%$&&%$&,$$$%$&($&%*'-$$$$$$$%$&$$$%$$%($&,$$$%$&($&('1$&*%$1/$$$$$$"
    "&%&$&&),'$$&,1&-,&9%($$$$$$$%$&$$$%$&'$$&,$$$%$&($&,)$*$$%,,5$$$%$&($%$)&1$&,>).;$&$+)-.%:E8$$"
    "$$$$$&($&,,($&,&+3-4/%$&+$>1(3)+A%&$(.-*@)/)6%$-$$$$$$$%$&$$$$$$&%&$&,$$$%$&($&,%+'$&$*$>$$$%$"
    "%$($&,)+$&)&9('.&:$&,%''4(-&+3J$$$%$&&%$&,1$&%*$=2<$$&(',(,'&;&73.')+'41($Z/$&,)')-$V*2+*I,%9O"
    "=<C4'4$$$%$&'$$&,$.$$$$%,(&6,5$+&%$&$$*,+-2:-61&+.($.'S4&'(%$&,*+/-1H--%0&&C6$9P76A35$%$('::&4"
    "%$%-1,57k--($%;&&>$:$6+#$$$$$$$$$$$$%$$$$$$$%$$$$$$$%$&%%$$$$$$$$%$&$$$%$$$$%$%$&$$&$&$$$%$&'$"
    "$$$$%*%%%''$$$$$$$%$$$$$$$$$$$$$$$&$$$$%$%$&$$$$$$$$$%$%$$$$$$$%$&$$$%$&($$$$%*%$%$&($&,$$$%$$"
    "$$%%$$$$$$$$%$&%'*$$&$$$%'%$%$&(',($'%$(4)$$$$$$$%$$%$$$%$$$$$$$%$$%%$%$&$$$$$$$$$$$$%$$$$$$$%"
    "$&$$$%$+$%$%&$&%&$+$&,$$$%$$$$%$%$$$$$$$%$&$$$%$&($$$$$$$%$&$$$%$&($&,%$%$&($&,0$$$$$%$%'$$$%$"
    "&($/$$$%$&($&+.(&,*7$$$%$$$$%%$$&$$'&'%*$$&$$&'$$&$&($&,')%$%&/$+%$$$$%$%$&$$$%$&($&,%$%$&($&*"
    "%1$&,+6%&$+$&0,$$&@.)1)$-$$$$$$$$$$$%$$$$$$$$$$$&$&%$%$&$$$%$$$$$$&$$$$$$$%$&$$$%$&($&$$$&&%$%"
    "$&($/$$$$$$$$$$$$%$$$$$$$%$&$$$%$&($$$$$$$%$&$$$%$&'$$&,$$$%$&($&,.&$%$$$$%$&$$$%$&)&,$$$%$&($"
    "&,**$&,>$$$%$$$$$$$%$$$$$$$%$&$$$%$+$$$$$$$%$&$$$%$&($&,%$%$&($&+$1$$$$$$$%$&$$$%$&($&,$$$%$&("
    "$&,1$&*%>$$$%$&($&'(1$&,>+8-%$$%$$$%$&%$%$&)&,$$$%$&($&,+*&,*3'%$%$&($&,1$&,'+*+D+$&7-)0M9'$$$"
    "%$%$%&$&$$$%'%&$+$%$$$$%$&$$$%$+$&+$%%$$+$&:$$$$$$$%'$$$%$&($&,$$$%$&($&,'-$&+$>%&$+$&6'$/.=.$"
    "),'$%$$$$&&$$$%$&($&,%&$+$&'6$&,<%$$$%$&($&,**$&,8%'3+4$&*%=$4%X,%%%'&$$&6&1.4&)%$2%$+%$&,4*&+"
    "V=+<:-1$($%5-";
static const char fours_as_text[] =
    "#%%(%'$%*,<%'%(%*'&%*./+%%(*%*%'-)1')$%.F67(./%')63V:7'%813%(%*%(%%.$;%**%R%(%**E)%1,03.'FK'56"
    "/p1C%*%(%'&,B%%&%**>'$+%*)$%0$07*'O'D1;7->h%.:!+*%*%80()%1,.%>%(08325`26))/>B58K87.1%/'p72$3)4"
    "ABH.D18p&%1U::+)3:B1C+L@.'F+:rO1U3%1@CAHG)iDHTK1U%%$53O-M>(9018D3B%5g#$$&%$$$%%%$')(%&%%%(%*&&"
    "$$$%'$'&&'%'*0'()$'%$&&&'&')&%%%0&+)'&%*%&)'%0%'&.'%&))&)2-%/%'()'%2(.&%142*%%/%'(0'7$$%'$%%%$"
    "%*&%1%&,)$%&%'(*&)*%1)%-&%$'))&-&-*&&$&))$'(4).%(%0%*'%'8*&)*%2J'&0%>%(%*/'4)+$%%%$%%%&%'$%*%%"
    "&%0$&%&%)&'&&'&)*;&&-%(*%-'-&'%&',%(%*)1.),&*&'<&*(,0$.0+%(-!+'7'0%.(=*%%%&*%%(%&%-)+%%*(%03-'"
    "%-)-%/<*'(%'$,%')1+)('*4)'0*%.(--066C%0%.F'))'&&**3-(%%*)())'7%(('-(2&)/(%(%*'F%5.$</%-D<47;(."
    ".)<)')1'&&/)(%%(*,C),-()0:($20(/))&/-/G/6%ZC%1Z%%/%833*@95).()+/(2X121&<78>L%X'&,%/%/)3*.2%!+&"
    "')&*4<;&19')(;M3C:J";
static uint64_t eights[256 + 512 + 1024];
static uint32_t fours[256 + 512];
static pthread_once_t grids_made = PTHREAD_ONCE_INIT;

static void make_grid(void *grid, const char *text, int size, const char *numbers)
{
    int n = (int)strlen(numbers), point = 0;
    for (char *to = grid; *text; text++) {
        point = *text == '#' ? 0 : point + (*text == '!' ? 20 : *text - '#') * size / 4;
        for (int i = 0, v = point; *text != '!' && i < size; i++, v /= n) *to++ = numbers[v % n];
    }
}

static void make_grids(void)
{
    make_grid(eights, eights_as_text, 8, "\10\31\53");
    make_grid(fours, fours_as_text, 4, "\4\14\24\34\44\54\64\76");
    make_grid(fours + 256, strrchr(fours_as_text, '#'), 4, "\1\3\5\7\11\13\15\17");
}

/* Keeps the compiler from computing what is added to p in advance, which takes more registers than
 * there are, and from keeping in registers what is in memory there. */
#define HIDE(p) __asm__("" : "+r"(p))

/* Adds the eighth signs, which make counts of ones even; packed: four times seven to 32 bits. */
BODY uint64_t even(uint64_t v, int packed)
{
    if (packed) v = (v & 0x00003fff00003fff) | (v & 0x0fffc0000fffc000) << 2;
    if (packed) v = (v & 0x007f007f007f007f) | (v & 0x3f803f803f803f80) << 1;
    uint64_t odd = v ^ v >> 4;
    odd ^= odd >> 2;
    return v | ((odd ^ odd >> 1) & 0x0101010101010101) << 7;
}

BODY void points_IQ2_XXS(Points *to, const uint8_t *block)
{
    for (int p = 0; p < 8; p++, block += 8) {
        for (int i = 0; i < 4; i++) memcpy(to->numbers + 32 * p + 8 * i, eights + block[2 + i], 8);
        memcpy((char *)to->signs + 4 * p, block + 6, 4);
    }
    for (int g = 0; g < 4; g++) to->signs[g] = even(to->signs[g], 1);
}

BODY void points_IQ2_XS(Points *to, const uint8_t *block)
{
    UNROLL(32)
    for (int i = 0; i < 32; i++) {
        int v = block[2 + 2 * i] | block[3 + 2 * i] << 8;
        memcpy(to->numbers + 8 * i, eights + 256 + (v & 511), 8);
        ((uint8_t *)to->signs)[i] = (uint8_t)(v >> 9);
    }
    for (int g = 0; g < 4; g++) to->signs[g] = even(to->signs[g], 0);
}

BODY void points_IQ2_S(Points *to, const uint8_t *block)
{
    UNROLL(32)
    for (int i = 0; i < 32; i++) {
        int high = block[66 + i / 4] << (8 - i % 4 * 2) & 0x300;
        memcpy(to->numbers + 8 * i, eights + 768 + block[2 + i] + high, 8);
    }
    memcpy(to->signs, block + 34, 32);
}

BODY void points_IQ3_XXS(Points *to, const uint8_t *block)
{
    for (int i = 0; i < 64; i++) memcpy(to->numbers + 4 * i, fours + block[2 + i], 4);
    memcpy(to->signs, block + 66, 32);
    for (int g = 0; g < 4; g++) to->signs[g] = even(to->signs[g], 1);
}

BODY void points_IQ3_S(Points *to, const uint8_t *block)
{
    const Eight16 bit = { 256, 128, 64, 32, 16, 8, 4, 2 };
    _Alignas(64) uint16_t places[64], *at = places;
    for (int i = 0; i < 64; i++) places[i] = block[2 + i];
    for (int i = 0; i < 8; i++) *(Eight16 *)(places + 8 * i) |= block[66 + i] * bit & 256;
    HIDE(at);
    for (int i = 0; i < 64; i++) memcpy(to->numbers + 4 * i, fours + 256 + at[i], 4);
    memcpy(to->signs, block + 74, 32);
}

/* No grid: a byte is a fraction of 256, whose first five digits to the base of 3 are numbers. */
BODY void points_TQ1_0(Points *to, const uint8_t *block)
{
    for (int k = 0, power = 1; k < 5; k++, power *= 3) {
        int8_t v[52]; /* numbers that lie side by side; the last four bytes hold four */
        for (int i = 0; i < 52; i++) v[i] = (int8_t)((uint8_t)(block[i] * power) * 3 / 256 - 1);
        memcpy(to->numbers + 32 * k, v, 32);
        memcpy(to->numbers + 160 + 16 * k, v + 32, 16);
        if (k < 4) memcpy(to->numbers + 240 + 4 * k, v + 48, 4);
    }
    memset(to->signs, 0, sizeof to->signs);
}

#define LAYOUT_OF_POINTS(NAME, D, SCALE, UNIT, LESS) \
    BODY Layout layout_##NAME(int p, int i) \
    { \
        (void)p, (void)i; \
        return (Layout){ .d = D, .scale = SCALE, .bias = -0.5f, .unit = UNIT, .less = LESS }; \
    }
LAYOUT_OF_POINTS(IQ2_XXS, 0, bits(9 + p * 8, 4, 15), 0.25f, 64)
LAYOUT_OF_POINTS(IQ2_XS, 0, bits(66 + p / 2, p % 2 * 4, 15), 0.25f, 64)
LAYOUT_OF_POINTS(IQ2_S, 0, bits(74 + p / 2, p % 2 * 4, 15), 0.25f, 64)
LAYOUT_OF_POINTS(IQ3_XXS, 0, bits(69 + p * 4, 4, 15), 0.5f, 64)
LAYOUT_OF_POINTS(IQ3_S, 0, bits(106 + p / 2, p % 2 * 4, 15), 2, 16)
LAYOUT_OF_POINTS(TQ1_0, 52, bits(0, 0, 0), 1, 1)

/* To add one: its layout above, which agrees bit for bit with the gguf package, and a row: the type
 * number in the file, name, numbers and bytes of a block, numbers that share a scale, bits that the
 * quanta of kernels have, numbers of bf16 that x, and a weight, must be sums of, what finds its
 * points, what packs it for the KV cache. */
#define FORMATS(X, ...) \
    X(2, Q4_0, 32, 18, 32, 4, 1, NULL, NULL, __VA_ARGS__) \
    X(3, Q4_1, 32, 20, 32, 4, 1, NULL, NULL, __VA_ARGS__) \
    X(6, Q5_0, 32, 22, 32, 5, 1, NULL, NULL, __VA_ARGS__) \
    X(7, Q5_1, 32, 24, 32, 5, 1, NULL, NULL, __VA_ARGS__) \
    X(8, Q8_0, 32, 34, 32, 8, 2, NULL, pack_Q8_0, __VA_ARGS__) \
    X(10, Q2_K, 256, 84, 16, 2, 1, NULL, NULL, __VA_ARGS__) \
    X(11, Q3_K, 256, 110, 16, 3, 1, NULL, NULL, __VA_ARGS__) \
    X(12, Q4_K, 256, 144, 32, 4, 1, NULL, NULL, __VA_ARGS__) \
    X(13, Q5_K, 256, 176, 32, 5, 1, NULL, NULL, __VA_ARGS__) \
    X(14, Q6_K, 256, 210, 16, 6, 1, NULL, NULL, __VA_ARGS__) \
    X(16, IQ2_XXS, 256, 66, 32, 7, 1, points_IQ2_XXS, NULL, __VA_ARGS__) \
    X(17, IQ2_XS, 256, 74, 16, 7, 1, points_IQ2_XS, NULL, __VA_ARGS__) \
    X(18, IQ3_XXS, 256, 98, 32, 7, 1, points_IQ3_XXS, NULL, __VA_ARGS__) \
    X(20, IQ4_NL, 32, 18, 32, 8, 1, NULL, NULL, __VA_ARGS__) \
    X(21, IQ3_S, 256, 110, 32, 5, 1, points_IQ3_S, NULL, __VA_ARGS__) \
    X(22, IQ2_S, 256, 82, 16, 7, 1, points_IQ2_S, NULL, __VA_ARGS__) \
    X(23, IQ4_XS, 256, 136, 32, 8, 1, NULL, NULL, __VA_ARGS__) \
    X(34, TQ1_0, 256, 54, 32, 2, 1, points_TQ1_0, NULL, __VA_ARGS__) \
    X(35, TQ2_0, 256, 66, 32, 2, 1, NULL, NULL, __VA_ARGS__) \
    X(39, MXFP4, 32, 17, 32, 5, 1, NULL, NULL, __VA_ARGS__) \
    X(41, Q1_0, 128, 18, 32, 2, 1, NULL, NULL, __VA_ARGS__) \
    X(42, Q2_0, 64, 18, 32, 2, 1, NULL, NULL, __VA_ARGS__)

static float half_at(const uint8_t *at)
{
    uint16_t h;
    memcpy(&h, at, 2);
    return f16_float(h);
}

/* Eight bits of exponent, for a list of doubled numbers: 2^(e - 128), which for e = 0 and 1 are
 * subnormal. */
static float e8m0_float(uint32_t e)
{
    return bits_float(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
}

/* Number e of the four that a field is of. */
BODY int field(const uint8_t *block, Field f, int e)
{
    int v = block[f.packed ? f.at : f.at + e] >> (f.packed ? 2 * e : f.shift) & f.mask;
    int high = block[f.high_at + (f.single ? 0 : e)] >> f.high_shift & f.high_mask;
    if (f.high_mask) v |= (f.single ? high >> e & 1 : high) << f.up;
    return v ^ f.flip;
}

/* The n numbers of a row, of which `group` each share a scale. */
BODY void unpack_layout(const uint8_t *row, float *y, int n, int block, int bytes, int group,
                        LayoutOf *layout, PointsOf *points_of)
{
    Points at;
    if (points_of) pthread_once(&grids_made, make_grids); /* no model may be open yet */
    for (; n > 0; n -= block, row += bytes) {
        if (points_of) points_of(&at, row);
        for (int p = 0; p < block / group; p++) {
            Layout l = layout(p, 0);
            float d = l.exponent ? e8m0_float(row[l.d]) : half_at(row + l.d), m = 0;
            if (l.scale.mask) d *= (float)field(row, l.scale, 0) - l.bias;
            if (l.unit != 0) d *= l.unit;
            if (l.m) m = half_at(row + l.m) * (l.min.mask ? -(float)field(row, l.min, 0) : 1);
            for (int i = p * group; points_of && i < p * group + group; i++) {
                *y++ = d * (float)(at.signs[i / 64] >> i % 64 & 1 ? -at.numbers[i] : at.numbers[i]);
            }
            UNROLL(32)
            for (int i = points_of ? group : 0; i < group; i++, y++) {
                int q = field(row, layout(p, i / 4).quanta, i % 4);
                int v = l.list ? l.list[q] : q - l.less;
                *y = l.m ? d * (float)v + m : d * (float)v;
            }
        }
    }
}

#define UNPACK(NUMBER, NAME, BLOCK, BYTES, GROUP, BITS, PARTS, FIND, ...) \
    static void unpack_##NAME(const void *row, float *y, int n) \
    { \
        unpack_layout(row, y, n, BLOCK, BYTES, GROUP, layout_##NAME, FIND); \
    }
FORMATS(UNPACK)

static void unpack_F32(const void *row, float *y, int n)
{
    memcpy(y, row, (size_t)n * sizeof *y);
}

static void unpack_F16(const void *row, float *y, int n)
{
    const uint16_t *x = row;
    for (int i = 0; i < n; i++) y[i] = f16_float(x[i]);
}

static void unpack_BF16(const void *row, float *y, int n)
{
    const uint16_t *x = row;
    for (int i = 0; i < n; i++) y[i] = bf16_float(x[i]);
}

static void pack_F32(void *row, const float *x, int n)
{
    memcpy(row, x, (size_t)n * sizeof *x);
}

static void pack_F16(void *row, const float *x, int n)
{
    uint16_t *y = row;
    for (int i = 0; i < n; i++) y[i] = float_f16(x[i]);
}

/* A NaN makes its block NaN, so that it comes to light in the logits. */
static void pack_Q8_0(void *row, const float *x, int n)
{
    for (uint8_t *block = row; n > 0; block += 34, n -= 32, x += 32) {
        float most = 0;
        int finite = 1;
        for (int i = 0; i < 32; i++) {
            most = fmaxf(most, fabsf(x[i]));
            finite &= fabsf(x[i]) <= 127 * 65504.0f;
        }
        float inverse = finite && most > 1e-30f ? 127 / most : 0;
        uint16_t d = finite ? float_f16(most / 127) : 0x7e00;
        memcpy(block, &d, 2);
        for (int i = 0; i < 32; i++) {
            block[2 + i] = (uint8_t)(finite ? (int)roundf(x[i] * inverse) : 1);
        }
    }
}

typedef struct {
    const char *name;
    int block, bytes, group, bits, parts; /* see FORMATS; group and bits 0: floats */
    void (*unpack)(const void *row, float *y, int n);
    void (*pack)(void *row, const float *x, int n); /* NULL: not for the KV cache */
} Format;

#define FORMAT_ROW(NUMBER, NAME, BLOCK, BYTES, GROUP, BITS, PARTS, FIND, PACK, ...) \
    [NUMBER] = { #NAME, BLOCK, BYTES, GROUP, BITS, PARTS, unpack_##NAME, PACK },

/* The index is the type number in the file. */
static const Format formats[] = {
    [0] = { "F32", 1, 4, 0, 0, 2, unpack_F32, pack_F32 },
    [1] = { "F16", 1, 2, 0, 0, 2, unpack_F16, pack_F16 },
    [30] = { "BF16", 1, 2, 0, 0, 2, unpack_BF16, NULL },
    FORMATS(FORMAT_ROW)
};

enum { F32 = 0, F16 = 1, BF16 = 30, N_FORMATS = ARRAY_LEN(formats) };

/* Digits to the base of 128 that what is multiplied with the format needs: two where a number takes
 * more than five bits of the file, its share of the scales included. One adds about a hundredth to
 * what a format of four bits costs (in KL divergence), but a twentieth to one of five; two add
 * nothing. */
static int digits_of(const Format *f)
{
    return f->bytes * 8 > f->block * 5 ? 2 : 1;
}

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

typedef struct File {
    const uint8_t *data;
    size_t size;
    int mapped; /* by us, else the caller's buffer */
    Key *keys;  /* (n_keys), sorted by name, like tensors */
    Tensor *tensors;
    uint64_t n_keys, n_tensors;
    uint64_t alignment;
    struct File *next; /* of a model in several files; the first one has the tensors of all */
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
    { 0, "algg", "an old LoRA adapter, not a model" },
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

/* Files of early 2026 have smaller blocks under the number of Q2_0: tensors seem to overlap. */
static int refuse_old_kind(const File *f)
{
    const Tensor *t = f->tensors, *end = t + f->n_tensors;
    while (t < end && strcmp(t->format->name, "Q2_0")) t++;
    for (const Tensor *other = f->tensors; t < end && other < end; other++) {
        if (other->offset <= t->offset || other->offset - t->offset >= t->bytes) continue;
        return fail(
            "tensor %.*s is of the older Q2_0, with 34 bytes for 128 numbers: only that with "
            "18 for 64 can be read",
            SHOW(t->name));
    }
    return 0;
}

/* Finds each tensor's bytes, which begin at the first aligned offset after the directory. */
static int place_tensors(File *f, uint64_t directory_end)
{
    uint64_t start = (directory_end + f->alignment - 1) & ~(f->alignment - 1);
    if (refuse_old_kind(f)) return -1;
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

/* Opens a file that has bytes; -1 on failure. */
static int open_regular(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a FIFO must not wait for a writer */
    if (fd < 0) return fail("%s", strerror(errno));
    if (fstat(fd, st)) {
        fail("%s", strerror(errno));
    } else if (!S_ISREG(st->st_mode)) {
        fail("this is %s, not a file", S_ISDIR(st->st_mode) ? "a directory" : "a device or pipe");
    } else if (st->st_size == 0) {
        fail("the file is empty");
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

static int map_file(File *f, const char *path)
{
    struct stat st;
    int fd = open_regular(path, &st);
    if (fd < 0) return -1;
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int status = data == MAP_FAILED ? errno : 0;
    close(fd);
    if (status) {
        return fail("cannot map %lld bytes: %s", (long long)st.st_size, strerror(status));
    }
    advise(data, (size_t)st.st_size, LARGE_PAGES);
    f->data = data;
    f->size = (size_t)st.st_size;
    f->mapped = 1;
    return 0;
}

static void close_file(File *f)
{
    while (f->next) {
        File *part = f->next;
        f->next = part->next, part->next = NULL;
        close_file(part);
        free(part);
    }
    if (f->mapped) munmap((void *)f->data, f->size);
    free(f->keys);
    free(f->tensors);
}

/* Reads number i of a key, or of its array, if its type holds integers; INT64_MAX is the most. */
static int read_integer(const Key *k, uint64_t i, int64_t *v)
{
    uint32_t type = k->of;
    int bytes = value_types[type].bytes, unused = 64 - 8 * bytes;
    int is_signed = type == I8 || type == I16 || type == I32 || type == I64;
    if (type == STRING || type == FLOAT32 || type == FLOAT64) return 0;
    const uint8_t *data = k->data + i * (uint64_t)bytes;
    uint64_t u = get_int(&(Cursor){ data, data + bytes }, bytes);
    *v = is_signed ? (int64_t)(u << unused) >> unused : u < INT64_MAX ? (int64_t)u : INT64_MAX;
    return 1;
}

/* A whole number that a file says of its part in a model, -1: none. */
static int64_t part_number(const File *f, const char *name)
{
    const Key *k = find_key(f, name);
    int64_t v;
    return k && k->type != ARRAY && read_integer(k, 0, &v) ? v : -1;
}

/* Maps part number `no` of n, and takes its tensors over. */
static int add_part(File *f, File *part, const char *name, int64_t no, int64_t n)
{
    if (map_file(part, name) || parse_file(part)) return -1;
    if (part_number(part, "split.no") != no || part_number(part, "split.count") != n) {
        return fail("this is not part %lld of %lld", (long long)no + 1, (long long)n);
    }
    uint64_t all = f->n_tensors + part->n_tensors;
    Tensor *more = realloc(f->tensors, (size_t)all * sizeof *more + 1);
    if (!more) return fail("out of memory for %llu tensors", (unsigned long long)all);
    f->tensors = more;
    if (part->n_tensors) {
        memcpy(more + f->n_tensors, part->tensors, (size_t)part->n_tensors * sizeof *more);
    }
    f->n_tensors = all;
    return 0;
}

/* A model may lie in several files, NAME-00001-of-00003.gguf and so on: the first one, which is the
 * one to open, has the keys, each has its own tensors. path NULL: there is no name to go by. */
static int open_parts(File *f, const char *path)
{
    int64_t n = part_number(f, "split.count"), no = part_number(f, "split.no");
    size_t len = path ? strlen(path) : 0, tail = strlen("-00001-of-00001.gguf");
    char *name = NULL, end[48];
    if (n <= 1) return 0;
    snprintf(end, sizeof end, "-%05d-of-%05d.gguf", 1, (int)(n < 99999 ? n : 99999));
    if (no != 0 || n > 99999 || len < tail || strcmp(path + len - tail, end)) {
        return fail("this is part %lld of %lld of a model: open the first one by its name, which "
                    "ends in %s",
                    (long long)no + 1, (long long)n, end);
    }
    File *last = f;
    if (!(name = strdup(path))) return fail("out of memory");
    for (int i = 2; i <= n; i++) {
        snprintf(end, sizeof end, "-%05d-of-%05d.gguf", i, (int)n);
        memcpy(name + len - tail, end, tail);
        int status = (last->next = calloc(1, sizeof *f)) ? 0 : fail("out of memory");
        if (!status) last = last->next, status = add_part(f, last, name, i - 1, n);
        if (status) {
            fail("%s: %s", name + (strrchr(name, '/') ? strrchr(name, '/') - name + 1 : 0),
                 error_text);
            free(name);
            return -1;
        }
    }
    free(name);
    int64_t all = part_number(f, "split.tensors.count");
    if (all >= 0 && (uint64_t)all != f->n_tensors) {
        return fail("the parts have %llu tensors, expected %lld", (unsigned long long)f->n_tensors,
                    (long long)all);
    }
    return sort_names(f->tensors, f->n_tensors, sizeof *f->tensors, "tensor");
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

/* A norm of vectors of `length` numbers; the mean is taken over each `width` of them. weight and
 * bias are (length); without a weight the norm copies. */
typedef struct {
    const float *weight, *bias;
    int length, width;
    float eps; /* 0: the model's */
} Norm;

/* What a layer has; most layers lack most of it. First a mixer, then a feed-forward part. */
typedef struct {
    const struct Mixer *mixer;
    Norm attn_norm, attn_post_norm; /* (dim) in front of the mixer and behind it */

    /* attention */
    int heads, kv_heads;
    int head_dim, value_dim; /* numbers of a query or key, and of a value */
    int value_at;            /* where values lie in the keys; -1: they are kept apart */
    int kept;                /* the first of what the cache keeps of its key/value heads */
    int shares;              /* these are an earlier layer's */
    int window;              /* positions that a token sees, itself among them; 0: all */
    int rope;                /* index of the model's ropes, -1: no rotation */
    Mat wq, wk, wv;          /* (heads head_dim, dim) (kv_heads head_dim or value_dim, dim) */
    Mat wo;                  /* (dim, heads value_dim) */
    Mat wq_gated;            /* (heads 2 head_dim, dim) queries, each with a gate behind it */
    Mat out_gate;            /* (heads value_dim or heads, dim) gates of what attention found */
    Norm q_norm, k_norm, v_norm; /* of each head, or of all heads at once */
    const float *sinks;          /* (heads) scores of what no head has to attend to */

    /* latent attention, see latent_queries */
    Mat q_low, latent;            /* (q_rank, dim) (rank + n_rot, dim) */
    Norm q_low_norm, latent_norm; /* (q_rank) (rank) */
    Mat *to_latent, *from_latent; /* (heads) of (rank, plain_dim), of (latent_value, rank) */
    Mat whole; /* or (heads (plain_dim + value_dim), rank) for files that keep whole heads */

    /* a state, see recur_piece and run_short_conv */
    int state;              /* where its numbers begin in a session's */
    int taps, channels;     /* of its convolution: positions that it sees, and numbers of each */
    int k_heads, k_dim;     /* its keys and queries */
    int state_heads, v_dim; /* its values: some heads for each key head */
    Mat mixed, times;       /* (channels, dim) what the convolution is of, and what multiplies it */
    Mat z;                  /* (state_heads v_dim, dim) gate of what comes out */
    Mat decay, beta;        /* (state_heads, dim) how fast a head forgets, and learns */
    const float *conv, *conv_bias;            /* (taps, channels) (channels) */
    const float *forget, *step_bias, *direct; /* (state_heads) */
    Norm state_norm;                          /* of each head or group of them */
    Mat state_out;                            /* (dim, state_heads v_dim) */

    /* the feed-forward part */
    int has_ffn, routed;          /* it has one; it has experts */
    int parallel;                 /* its input is the mixer's */
    Norm ffn_norm, ffn_post_norm; /* (dim) */
    Mat gate, up, down;           /* (hidden_dim, dim) (hidden_dim, dim) (dim, hidden_dim) */
    float *curve; /* (4) of XIELU: alpha of positive and negative numbers, beta, epsilon; or NULL */

    /* experts */
    Mat router;                  /* (n_experts, dim) */
    const float *expert_bias;    /* (n_experts) is added to the scores by which they are chosen */
    const float *expert_scales;  /* (n_experts) of what they give */
    Mat *gates, *ups, *downs;    /* (n_experts) of (expert_dim, dim) and (dim, expert_dim) */
    Mat experts_in, experts_out; /* (low, dim) (dim, low) where they have shorter vectors */
    Norm router_norm, experts_norm;           /* (dim) of x for them, where they have their own */
    Norm shared_post_norm, experts_post_norm; /* (dim) */
    Mat shared_router;                        /* (1, dim) */
    Mat shared_gate, shared_up, shared_down;  /* the expert that every token has */

    Mat inject_gate, inject; /* (n_inject, dim) (dim, n_inject) see inject */
    Norm inject_norm;        /* (dim) */
    const float *scale;      /* (1) of x behind the layer, or NULL */
} Layer;

/* The first n_rot dimensions of a head turn by (n_rot / 2) radians per position; and a factor of
 * cosines and sines. */
typedef struct {
    float *turns; /* NULL: not in use */
    int n_rot;
    float scale;
} Rope;

/* Keys or values of a head in a layer: numbers of a position, and of all that are kept before. */
typedef struct {
    int dim;
    int64_t before;
} Kept;

/* See activate_row. */
enum { SWIGLU, GEGLU, SWIGLU_OAI, GELU, RELU_SQUARED, XIELU, SILU, SIGLU, SOFTPLUS };
enum { NO_GATE, BESIDE_QUERY, SIGMOID_GATE, SOFTPLUS_GATE }; /* see gate_heads */
enum { SOFTMAX = 1, SIGMOID, SOFTMAX_OF_CHOSEN }; /* .expert_gating_func, see route */
enum { ROPE, LOCAL_ROPE, LONG_ROPE, N_ROPES };

/* What a layer does with the rows of a batch before its feed-forward part; see mixers[]. */
enum { ATTENTION, LATENT, SHORT_CONV, DELTA_NET, MAMBA2, ATTENTION_AND_MAMBA2, NOTHING, N_MIXERS };

typedef struct Mixer {
    void (*load)(llm_model *m, Layer *w, int l);
    /* b->h(n, dim) to b->change(n, dim) */
    void (*run)(llm_session *s, const Layer *w, int n);
} Mixer;

static const Mixer mixers[N_MIXERS];

/* To add one: its name in general.architecture, and what its files don't say. */
typedef struct {
    const char *name;
    int mixer, other; /* of layers; of those without key/value heads, or which are not the last ones
                         of .full_attention_interval */
    int single;       /* a layer is a mixer or a feed-forward part */

    int halves;         /* rotation pairs dimension i with i + n_rot / 2; else 2i with 2i + 1 */
    int learned;        /* positions have embeddings, no rotation */
    int period;         /* with a window: layers until one sees all; 0: none does */
    int window;         /* where the file has no key for it */
    float local_base;   /* rope's in layers with a window; 0: as in the others */
    int local_unscaled; /* these layers are not stretched to longer contexts */
    int rotates_local;  /* with windows, layers without one have no rotation */
    int lead_rotates;   /* but those without experts in front of those with them do */
    int unrotated;      /* every that many layers one has no rotation; 0: all have */
    int tuned_rope;     /* no rotation where .rope.scaling.finetuned is 0 */
    int exact_ramp;     /* YaRN's ramp begins and ends between dimensions */

    int norm_behind;   /* queries and keys are normed behind the rotation */
    int value_norm;    /* values of heads are normed, without weights */
    float score_scale; /* of attention; 0: by the size of heads */
    int whole_scale;   /* with that many layers, scores are divided by the root of dim / n_heads */
    int gate;          /* of what attention finds */

    const char *ffn_norm;    /* in front of the feed-forward part; NULL: ffn_norm.weight */
    int parallel;            /* without ffn_norm, this part has attention's input */
    int activation;          /* of it */
    int gating, renormalize; /* of experts: which scores, and whether those chosen sum up to 1 */
    int some_dense;          /* layers without a router have no experts */
    int dense_beside;        /* the shared expert has the names of a dense part */
    int mean_shared;         /* its result and that of the others are averaged */

    int centered;            /* norms subtract the mean: LayerNorm, else RMSNorm */
    float post_eps;          /* of the norms behind a part, 0: as of the others */
    int root;                /* embeddings are multiplied by the root of their length */
    int embedding_norm;      /* embeddings are normed, without weights */
    const char *output_norm; /* NULL: output_norm */
    int logits_divided;      /* by .logit_scale; else multiplied */
    int has_senses;          /* tensors for pictures and sound may lie in the file */
} Arch;

static const Arch archs[] = {
    { "llama", .renormalize = 1 },
    { "mistral3", .renormalize = 1 },
    { "qwen2", .halves = 1 },
    { "qwen2moe", .halves = 1 },
    { "qwen3", .halves = 1 },
    { "qwen3moe", .halves = 1, .renormalize = 1 },
    { "gemma", .halves = 1, .activation = GEGLU, .root = 1 },
    { "gemma2", .halves = 1, .activation = GEGLU, .root = 1, .period = 2, .window = 4096,
      .whole_scale = 46 },
    { "gemma3", .halves = 1, .activation = GEGLU, .root = 1, .period = 6, .local_base = 1e4f,
      .local_unscaled = 1, .whole_scale = 62 },
    { "phi3", .halves = 1 },
    { "olmo2", .halves = 1, .period = 4, .local_unscaled = 1 },
    { "olmoe", .halves = 1 },
    { "smollm3", .unrotated = 4 },
    { "granite", .logits_divided = 1 },
    { "granitemoe", .logits_divided = 1, .renormalize = 1 },
    { "glm4", .halves = 0 },
    { "chatglm", .halves = 0 },
    { "gpt-oss", .halves = 1, .activation = SWIGLU_OAI, .ffn_norm = "post_attention_norm.weight",
      .period = 2, .gating = SOFTMAX_OF_CHOSEN, .exact_ramp = 1 },
    { "deepseek2", .mixer = LATENT },
    { "gpt2", .learned = 1, .centered = 1, .activation = GELU },
    { "command-r", .centered = 1, .parallel = 1 },
    { "cohere2", .centered = 1, .parallel = 1, .period = 4, .rotates_local = 1 },
    { "exaone4", .halves = 1, .period = 4, .rotates_local = 1 },
    { "stablelm", .halves = 1, .centered = 1, .parallel = 1 },
    { "starcoder2", .halves = 1, .centered = 1, .activation = GELU },
    { "lfm2", .halves = 1, .other = SHORT_CONV, .output_norm = "token_embd_norm" },
    { "lfm2moe", .halves = 1, .renormalize = 1, .other = SHORT_CONV,
      .output_norm = "token_embd_norm" },
    { "qwen35", .halves = 1, .has_senses = 1, .ffn_norm = "post_attention_norm.weight",
      .gate = BESIDE_QUERY, .other = DELTA_NET },
    { "qwen35moe", .halves = 1, .has_senses = 1, .ffn_norm = "post_attention_norm.weight",
      .renormalize = 1, .gate = BESIDE_QUERY, .other = DELTA_NET },
    { "gemma4", .halves = 1, .activation = GEGLU, .root = 1, .period = 6, .local_base = 1e4f,
      .local_unscaled = 1, .renormalize = 1, .dense_beside = 1, .has_senses = 1, .value_norm = 1,
      .score_scale = 1 },
    { "granitehybrid", .logits_divided = 1, .renormalize = 1, .tuned_rope = 1, .other = MAMBA2 },
    { "nemotron_h", .activation = RELU_SQUARED, .unrotated = 1, .other = MAMBA2, .single = 1 },
    { "nemotron_h_moe", .activation = RELU_SQUARED, .unrotated = 1, .other = MAMBA2, .single = 1,
      .some_dense = 1, .gating = SIGMOID },
    { "falcon-h1", .halves = 1, .mixer = ATTENTION_AND_MAMBA2, .ffn_norm = "ffn_norm" },
    { "mamba2", .other = MAMBA2, .single = 1 },
    { "qwen2vl", .halves = 1 },
    { "qwen3vl", .halves = 1 },
    { "qwen3vlmoe", .halves = 1, .renormalize = 1 },
    { "hunyuan-dense", .halves = 1, .norm_behind = 1 },
    { "ernie4_5", .halves = 0 },
    { "ernie4_5-moe", .renormalize = 1, .some_dense = 1 },
    { "internlm2", .renormalize = 1 },
    { "arcee", .activation = RELU_SQUARED },
    { "apertus", .halves = 1, .activation = XIELU },
    { "seed_oss", .halves = 1, .ffn_norm = "post_attention_norm.weight" },
    { "glm4moe", .halves = 1, .ffn_norm = "post_attention_norm.weight", .renormalize = 1,
      .gating = SIGMOID },
    { "bailingmoe2", .halves = 1, .renormalize = 1, .gating = SIGMOID },
    { "dots1", .halves = 1, .renormalize = 1, .gating = SIGMOID },
    { "hy_v3", .halves = 1, .renormalize = 1, .gating = SIGMOID },
    { "mellum", .halves = 1, .renormalize = 1, .period = 4, .local_unscaled = 1 },
    { "cohere2moe", .centered = 1, .parallel = 1, .period = 4, .rotates_local = 1,
      .lead_rotates = 1, .mean_shared = 1, .renormalize = 1 },
    { "muse-glimmer", .period = 4, .rotates_local = 1, .gate = SIGMOID_GATE, .embedding_norm = 1,
      .post_eps = 1e-8f },
    { "laguna", .halves = 1, .period = 4, .local_unscaled = 1, .renormalize = 1, .gating = SIGMOID,
      .gate = SOFTPLUS_GATE },
    { "afmoe", .halves = 1, .root = 1, .period = 4, .rotates_local = 1, .renormalize = 1,
      .gating = SIGMOID, .gate = SIGMOID_GATE },
};

struct llm_model {
    File file;
    _Atomic int is_read; /* the file was asked for as a whole */
    _Atomic(struct Buffers *) spare[MAX_SPARE]; /* that no session evaluates with */
    Arena arena;
    int failed;      /* while loading: the first failure is kept, later look-ups do nothing */
    llm_facts facts; /* also the hyperparameters: facts.dim, facts.n_layers, ... */
    const Arch *arch;
    tokenizer_template *template; /* the file's own chat template, NULL: none */
    char template_error[256];     /* why it could not be read, "" */
    const char *tools_template;   /* another for conversations with tools, "": none */
    char *special;                /* texts of special tokens, as JSON, for templates */
    int adds_bos;                 /* a text begins with that token */
    float norm_eps;
    int centered; /* norms subtract the mean */
    int n_drafts; /* layers behind the last that predict further tokens; they are not used */
    int n_rot;    /* dimensions of a head that are rotated, 0: none; the most of any layer */
    Rope ropes[N_ROPES];
    int window;         /* positions that layers with a window see; 0: none has one */
    int short_context;  /* longer texts have LONG_ROPE, if there is one */
    float query_growth; /* see temper */
    float embedding_scale, residual_scale, logit_scale;
    float score_scale, score_cap, logit_cap; /* attention scores; caps: see cap */
    int value_dim, value_at;                 /* of layers, where no key says otherwise */
    int local_dim;                           /* numbers of a query or key in layers with a window */
    int q_dim, k_dim, v_dim, a_dim; /* the most numbers of queries, keys, values and what attention
                                       finds, of any layer */
    int o_dim, found_dim;           /* the most that a mixer gives to wo; of a head's value */
    int q_rank, rank, plain_dim;   /* with latent attention */
    int latent_value;              /* numbers of a head's value, which are made of a latent one */
    int channels, inner, state_heads; /* the most of any layer with a state; inner: of its values */
    int state;                        /* numbers of the states of all layers together */
    Kept *kept;                    /* (n_kept) in turn keys and values, by layers and their heads */
    int n_kept;
    int n_groups, n_groups_chosen; /* of experts */
    int gating, renormalize;
    float expert_scale;
    int first_routed;  /* layers below it have no experts */
    int experts_apart; /* what these give is not added up in what the shared one gives */
    int widest;       /* numbers between up and down, of any layer or expert */
    Mat embedding;    /* (vocab_size, dim) */
    Norm embedding_norm; /* (dim) */
    Mat positions;    /* (context, dim) or none */
    int n_inject;     /* numbers of each token that are put into a layer, see inject; 0: none */
    Mat inject_embedding, inject_mat; /* (vocab_size, n_layers n_inject) (n_layers n_inject, dim) */
    Norm inject_norm;                 /* (n_inject) */
    Layer *layers;    /* (n_layers) */
    Norm output_norm;
    Mat output;           /* (vocab_size, dim); may be the embedding */
    tokenizer *tokenizer; /* NULL: the file has no vocabulary */
    int stops[MAX_STOPS], n_stops;
    const int32_t *suppressed; /* (n_suppressed) tokens that are never drawn */
    int n_suppressed;
    size_t max_piece; /* bytes of the longest token */
};

static void at_least(int *most, int n)
{
    if (n > *most) *most = n;
}

/* Bands that so many rows or columns need. */
static int bands_of(int n)
{
    return (n + BAND - 1) / BAND;
}

/* A leading dot in a name stands for the architecture: ".block_count" is "llama.block_count". */
static const Key *model_key(llm_model *m, char *full, size_t size, const char *name)
{
    snprintf(full, size, "%s%s", *name == '.' ? m->arch->name : "", name);
    return m->failed ? NULL : find_key(&m->file, full);
}

/* The same as read_integer, if its type holds floats. */
static int read_float(const Key *k, uint64_t i, double *v)
{
    float f;
    if (k->of == FLOAT32) memcpy(&f, k->data + i * 4, 4), *v = (double)f;
    if (k->of == FLOAT64) memcpy(v, k->data + i * 8, 8);
    return k->of == FLOAT32 || k->of == FLOAT64;
}

/* An integer between min and max: of layer l, if there is a list, and l is not -1. Where the key is
 * missing: fallback, or a failure if that is out of range. */
static int layer_int(llm_model *m, const char *name, int l, int fallback, int min, int max)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, name);
    if (m->failed) return min;
    if (!k) {
        if (fallback < min || fallback > max) m->failed = fail("key %s is missing", full);
        return m->failed ? min : fallback;
    }
    int64_t v;
    int listed = k->type == ARRAY;
    if (listed && l >= 0 && (uint64_t)l >= k->count) {
        m->failed = fail("key %s has %llu values, expected one for each of %d layers", full,
                         (unsigned long long)k->count, m->facts.n_layers);
        return min;
    }
    if ((listed && l < 0) || !read_integer(k, listed ? (uint64_t)l : 0, &v)) {
        m->failed = fail("key %s is of type %s, expected an integer", full,
                         value_types[k->type].name);
        return min;
    }
    if (v < min || v > max) {
        m->failed = fail("key %s is %lld, expected %d to %d", full, (long long)v, min, max);
        return min;
    }
    return (int)v;
}

static int key_int(llm_model *m, const char *name, int fallback, int min, int max)
{
    return layer_int(m, name, -1, fallback, min, max);
}

/* The most of any layer. */
static int most_int(llm_model *m, const char *name, int fallback, int min, int max)
{
    int most = min;
    for (int l = 0; l < m->facts.n_layers && !m->failed; l++) {
        at_least(&most, layer_int(m, name, l, fallback, min, max));
    }
    return most;
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
    double d;
    if (k->type != ARRAY && read_float(k, 0, &d)) {
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

/* Writes number i of an array into to (an int32_t for I32, else a float); 0 where its type holds no
 * numbers, or it is none of those that `of` can hold. */
static int convert(const Key *k, uint64_t i, uint32_t of, void *to)
{
    int64_t n;
    double v;
    if (read_integer(k, i, &n)) {
        if (n == INT64_MAX) return 0;
        v = (double)n;
    } else if (!read_float(k, i, &v)) {
        return 0;
    }
    if (of == I32) {
        if (!(v >= INT32_MIN && v <= INT32_MAX) || v != (int32_t)v) return 0;
        *(int32_t *)to = (int32_t)v;
        return 1;
    }
    *(float *)to = (float)v;
    return v != v || (double)(float)v == v || k->of == FLOAT64;
}

/* The values of an array: as int32_t for I32, as float for FLOAT32, where the file may have any
 * type of number, as Text for STRING; NULL where the key is missing. want is the number of values
 * it must have, -1 if any. */
static void *key_array(llm_model *m, const char *name, uint32_t of, int want, int *count)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, name);
    *count = 0;
    if (!k) return NULL;
    if (k->type != ARRAY || (k->of == STRING) != (of == STRING)) {
        m->failed = fail("key %s is of type %s%s, expected an array of %s", full,
                         k->type == ARRAY ? "array of " : "", value_types[k->of].name,
                         of == STRING ? "strings" : "numbers");
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
    for (int i = 0; i < *count && of == STRING; i++) texts[i] = get_text(&c);
    for (int i = 0; i < *count && of != STRING; i++) {
        if (convert(k, (uint64_t)i, of, (char *)texts + (size_t)i * 4)) continue;
        m->failed = fail("key %s: value %d does not fit %s", full, i, value_types[of].name);
        return NULL;
    }
    return texts;
}

/* Whether a tensor must be there, and whether it belongs to the layers with experts only. */
enum { REQUIRED = 0, OPTIONAL = 1, ROUTED = 2 };

/* The first layer that should have what this one has: one with experts, or with the same mixer. */
static int first_alike(const llm_model *m, int need, int layer)
{
    const Layer *w = m->layers;
    int first = 0;
    while (first < layer && (need & ROUTED ? !w[first].routed : w[first].mixer != w[layer].mixer))
        first++;
    return first;
}

/* The tensor "name" of a layer, or of none if that is -1, under its full name; NULL if it is not in
 * the file, which may be said of one layer and not of another. */
static Tensor *layer_tensor(const llm_model *m, char full[128], const char *name, int layer)
{
    layer < 0 ? snprintf(full, 128, "%s", name) : snprintf(full, 128, "blk.%d.%s", layer, name);
    return find_tensor(&m->file, full);
}

/* The same, NULL if it is optional and missing. What is optional is in all layers that may have it
 * or in none. */
static Tensor *model_tensor(llm_model *m, int need, const char *name, int layer)
{
    char full[128], first[128];
    if (m->failed) return NULL;
    int from = layer < 0 ? 0 : first_alike(m, need, layer), optional = need & OPTIONAL;
    Tensor *t = layer_tensor(m, full, name, layer);
    if (!t && !optional) m->failed = fail("tensor %s is missing", full);
    if (layer > from && optional && !t != !layer_tensor(m, first, name, from)) {
        m->failed = fail("%s is in the file, but %s is not", t ? full : first, t ? first : full);
    }
    return m->failed ? NULL : t;
}

/* The same with the given shape: (rows, cols), or (count, rows, cols). */
static const Tensor *load_tensor(llm_model *m, int count, int rows, int cols, int need,
                                 const char *name, int layer)
{
    Tensor *t = model_tensor(m, need, name, layer);
    if (!t) return NULL;
    if (t->shape[0] != cols || t->shape[1] != rows || t->shape[2] != count || t->shape[3] != 1) {
        char number[2][24] = { "", "" };
        if (t->shape[2] * t->shape[3] > 1) {
            snprintf(number[0], sizeof *number, "%lldx", (long long)(t->shape[2] * t->shape[3]));
        }
        if (count > 1) snprintf(number[1], sizeof *number, "%dx", count);
        m->failed = fail("tensor %.*s is %s%lldx%lld, expected %s%dx%d", SHOW(t->name), number[0],
                         (long long)t->shape[1], (long long)t->shape[0], number[1], rows, cols);
        return NULL;
    }
    t->used = 1;
    return t;
}

/* A vector or a table of floats, NULL if it is optional and missing. They are small and copied, so
 * that kernels may take them to be aligned floats. */
static const float *load_floats(llm_model *m, int rows, int cols, int need, const char *name,
                                int layer)
{
    const Tensor *t = load_tensor(m, 1, rows, cols, need, name, layer);
    float *v;
    if (!t) return NULL;
    if (t->format->block != 1) {
        m->failed = fail("tensor %.*s is of format %s, expected F32", SHOW(t->name),
                         t->format->name);
        return NULL;
    }
    v = take(&m->arena, (size_t)rows * (size_t)cols, sizeof *v);
    if (v) t->format->unpack(t->data, v, rows * cols);
    return v;
}

static const float *load_vec(llm_model *m, int n, int need, const char *name, int layer)
{
    return load_floats(m, 1, n, need, name, layer);
}

/* The norm "name.weight" with its optional "name.bias". */
static Norm load_norm(llm_model *m, int n, int need, const char *name, int layer)
{
    char full[96];
    Norm w = { NULL, NULL, n, n, 0 };
    snprintf(full, sizeof full, "%s.weight", name);
    w.weight = load_vec(m, n, need, full, layer);
    snprintf(full, sizeof full, "%s.bias", name);
    if (w.weight) w.bias = load_vec(m, n, OPTIONAL, full, layer);
    return w;
}

/* A norm of vectors of n numbers whose weights are `scale`, times these if there are some. */
static Norm even_norm(llm_model *m, int n, const float *scales, float scale)
{
    float *w = take(&m->arena, (size_t)n, sizeof *w);
    for (int i = 0; w && i < n; i++) w[i] = scale * (scales ? scales[i] : 1);
    return (Norm){ w, NULL, n, n, 0 };
}

/* A norm of queries or keys: with one weight for all heads, with one for each, or of all heads
 * together. */
static Norm load_head_norm(llm_model *m, int heads, int dim, const char *name, int layer)
{
    const Tensor *t = model_tensor(m, OPTIONAL, name, layer);
    Norm w = { NULL, NULL, dim, dim, 0 };
    if (t && t->shape[1] > 1) {
        w = (Norm){ load_floats(m, heads, dim, REQUIRED, name, layer), NULL, heads * dim, dim, 0 };
    } else if (t) {
        if (t->shape[0] != dim) w.length = w.width = heads * dim;
        w.weight = load_vec(m, w.length, REQUIRED, name, layer);
    }
    return w;
}

/* The matrix "name.weight" with its optional "name.bias". */
static Mat load_mat(llm_model *m, int rows, int cols, int need, const char *name, int layer)
{
    char full[96];
    Mat w = { 0 };
    snprintf(full, sizeof full, "%s.weight", name);
    const Tensor *t = load_tensor(m, 1, rows, cols, need, full, layer);
    snprintf(full, sizeof full, "%s.bias", name);
    if (!t) return w;
    m->facts.bytes_read += (int64_t)t->bytes;
    return (Mat){ t->format, rows, cols, t->data, load_vec(m, rows, need | OPTIONAL, full, layer) };
}

/* Rows first to first + rows of a matrix. */
static Mat part(Mat w, int first, int rows)
{
    if (w.data) w.data += (size_t)first * row_bytes(w.format, w.cols);
    if (w.bias) w.bias += first;
    w.rows = rows;
    return w;
}

/* Rows first to first + rows of each of the `count` matrices of a tensor, which have `all` rows, as
 * of those of its optional bias. */
static Mat *load_mats(llm_model *m, int count, int all, int first, int rows, int cols, int need,
                      const char *name, int layer)
{
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    const Tensor *t = load_tensor(m, count, all, cols, need, full, layer);
    Mat *mats = t ? take(&m->arena, (size_t)count, sizeof *mats) : NULL;
    snprintf(full, sizeof full, "%s.bias", name);
    const float *bias = mats ? load_floats(m, count, all, need | OPTIONAL, full, layer) : NULL;
    for (int i = 0; mats && i < count; i++) {
        Mat whole = { t->format, all * count, cols, t->data, bias };
        mats[i] = part(whole, i * all + first, rows);
        m->facts.bytes_read += (int64_t)row_bytes(t->format, cols) * rows;
    }
    return mats;
}

/* YaRN (arxiv.org/abs/2309.00071): dimensions that turn often within the original context keep
 * their frequency, slow ones are stretched by factor, and between the two there is a ramp. */
static void yarn(llm_model *m, Rope *rope, float base, float factor)
{
    float fast = key_float(m, ".rope.scaling.yarn_beta_fast", 32, 1e-3f, 1e6f);
    float slow = key_float(m, ".rope.scaling.yarn_beta_slow", 1, 1e-3f, 1e6f);
    double turns = rope->n_rot / (2 * log(base)), around = m->short_context / 6.283185307179586;
    double low = turns * log(around / fast), high = turns * log(around / slow);
    if (!m->arch->exact_ramp) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, rope->n_rot - 1);
    for (int i = 0; i < rope->n_rot / 2; i++) {
        double stretched = fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1);
        rope->turns[i] *= (float)(1 - stretched + stretched / factor);
    }
    /* The paper's growth of scores with the factor; latent attention has it in their scale. */
    float growth = factor > 1 ? 0.1f * logf(factor) : 0;
    float whole = key_float(m, ".rope.scaling.yarn_log_multiplier", 0, 0, 1e3f);
    if (m->arch->mixer == LATENT) whole *= 10; /* which such files have a tenth of */
    float usual = (1 + (m->arch->mixer == LATENT && whole > 0 ? whole : 1) * growth) /
                  (1 + whole * growth);
    rope->scale *= key_float(m, ".rope.scaling.yarn_attn_factor", usual, 1e-3f, 1e3f);
    if (m->arch->mixer == LATENT) m->score_scale = (1 + whole * growth) * (1 + whole * growth);
}

/* Rotary position embedding (arxiv.org/abs/2104.09864): pair i turns by base^(-2i / n_rot) radians
 * a position, divided by the factors that a tensor of that name holds. */
static Rope make_rope(llm_model *m, int n_rot, float base, int need, const char *name)
{
    int half = n_rot / 2;
    Rope rope = { take(&m->arena, (size_t)half, sizeof *rope.turns), n_rot, 1 };
    const float *factors = name ? load_vec(m, half, need, name, -1) : NULL;
    for (int i = 0; rope.turns && i < half; i++) {
        rope.turns[i] = (float)pow(base, -2.0 * i / n_rot) / (factors ? factors[i] : 1);
        if (factors && !(factors[i] > 0)) m->failed = fail("%s holds %g", name, (double)factors[i]);
    }
    return rope;
}

/* Makes it turn slower, where the model was stretched to a longer context. */
static void stretch(llm_model *m, Rope *rope, float base)
{
    float old = key_float(m, ".rope.scale_linear", 1, 1e-3f, 1e6f); /* the name of 2023 */
    float factor = key_float(m, ".rope.scaling.factor", old, 1e-3f, 1e6f);
    const char *type = key_string(m, ".rope.scaling.type");
    rope->scale = key_float(m, ".rope.scaling.attn_factor", 1, 1e-3f, 1e3f);
    if (m->failed || !rope->turns) return;
    if (!strcmp(type, "yarn")) {
        yarn(m, rope, base, factor);
    } else if (!*type || !strcmp(type, "linear")) {
        for (int i = 0; i < rope->n_rot / 2; i++) rope->turns[i] /= factor;
    } else if (strcmp(type, "none") && strcmp(type, "longrope")) {
        m->failed = fail("key %s.rope.scaling.type is %s, expected none, linear, yarn or longrope",
                         m->arch->name, type);
    }
}

/* How many dimensions of a head are rotated. */
static int rotated(llm_model *m, const char *key, int fallback, int least, int most)
{
    int n = key_int(m, key, fallback < most ? fallback : most, least, most);
    if (!m->failed && n % 2)
        m->failed = fail("%d dimensions to rotate, expected an even number", n);
    return n;
}

static void load_ropes(llm_model *m)
{
    int most = m->arch->mixer == LATENT ? m->n_rot : m->facts.head_dim,
        local_most = m->arch->mixer == LATENT ? most : m->local_dim;
    float base = key_float(m, ".rope.freq_base", 10000, 1.001f, 1e12f);
    float local = m->arch->local_base > 0 ? m->arch->local_base : base;
    int rotates = !m->arch->tuned_rope || key_int(m, ".rope.scaling.finetuned", 1, 0, 1);
    if (m->arch->learned || m->facts.n_heads == 0 || !rotates) return;
    local = key_float(m, ".rope.freq_base_swa", local, 1.001f, 1e12f);
    int n = rotated(m, ".rope.dimension_count", most, m->arch->mixer == LATENT ? most : 2, most);
    int n_local = rotated(m, ".rope.dimension_count_swa", n, 2, local_most);
    if (m->failed) return;
    m->n_rot = n > n_local ? n : n_local;
    int two = find_tensor(&m->file, "rope_factors_long.weight") != NULL;
    m->ropes[ROPE] = two ? make_rope(m, n, base, REQUIRED, "rope_factors_short.weight")
                         : make_rope(m, n, base, OPTIONAL, "rope_freqs.weight");
    m->ropes[LOCAL_ROPE] = make_rope(m, n_local, local, OPTIONAL, NULL);
    if (!m->arch->local_unscaled) stretch(m, &m->ropes[LOCAL_ROPE], local);
    stretch(m, &m->ropes[ROPE], base);
    if (two) {
        m->ropes[LONG_ROPE] = make_rope(m, n, base, REQUIRED, "rope_factors_long.weight");
        stretch(m, &m->ropes[LONG_ROPE], base);
    }
}

/* Whether layer l sees a window only. */
static int is_local(llm_model *m, int l)
{
    char full[128];
    const Key *k = model_key(m, full, sizeof full, ".attention.sliding_window_pattern");
    int32_t flag = 0;
    if (k && k->type == ARRAY && k->count >= (uint64_t)m->facts.n_layers) {
        if (!convert(k, (uint64_t)l, I32, &flag)) m->failed = fail("key %s holds no flags", full);
        return flag != 0;
    }
    int period = key_int(m, ".attention.sliding_window_pattern", m->arch->period, 0, MAX_LAYERS);
    return !period || (l + 1) % period;
}

/* GLM-4.7-Flash, whose first files don't say that it scores experts by sigmoids, is known by its
 * shape, as in llama.cpp. */
static int is_glm_flash(const llm_model *m)
{
    const Tensor *embedding = find_tensor(&m->file, "token_embd.weight");
    int n_layers = m->facts.n_layers;
    return m->arch->mixer == LATENT && (n_layers == 47 || n_layers == 48) && embedding &&
           embedding->shape[1] == 154880;
}

static void load_expert_keys(llm_model *m)
{
    m->first_routed = m->facts.n_layers;
    m->facts.n_experts = key_int(m, ".expert_count", 0, 0, MAX_EXPERTS);
    if (m->facts.n_experts == 0) return;
    m->facts.n_experts_used = key_int(m, ".expert_used_count", -1, 1, m->facts.n_experts);
    m->first_routed = key_int(m, ".leading_dense_block_count", 0, 0, m->facts.n_layers);
    m->gating = key_int(m, ".expert_gating_func", m->arch->gating, 0, SOFTMAX_OF_CHOSEN);
    if (m->gating == 0) m->gating = is_glm_flash(m) ? SIGMOID : SOFTMAX;
    m->renormalize = key_int(m, ".expert_weights_norm", m->arch->renormalize, 0, 1);
    m->expert_scale = key_float(m, ".expert_weights_scale", 1, 0, 1e6f);
    if (m->expert_scale == 0) m->expert_scale = 1;
    m->n_groups = key_int(m, ".expert_group_count", 1, 0, m->facts.n_experts);
    if (m->n_groups < 1) m->n_groups = 1;
    m->n_groups_chosen = key_int(m, ".expert_group_used_count", m->n_groups, 0, m->n_groups);
    if (m->n_groups_chosen < 1) m->n_groups_chosen = m->n_groups;
    if (!m->failed &&
        (m->facts.n_experts % m->n_groups ||
         m->facts.n_experts / m->n_groups * m->n_groups_chosen < m->facts.n_experts_used)) {
        m->failed = fail("%d experts in %d groups, of which %d are taken, don't give %d",
                         m->facts.n_experts, m->n_groups, m->n_groups_chosen,
                         m->facts.n_experts_used);
    }
}

/* Numbers by which embeddings, scores, results and logits are multiplied. */
static void load_scales(llm_model *m)
{
    const llm_facts *c = &m->facts;
    int width = m->arch->mixer == LATENT ? m->plain_dim + m->n_rot : c->head_dim;
    if (m->arch->whole_scale == c->n_layers && c->n_heads) width = c->dim / c->n_heads;
    float by_width = m->arch->score_scale > 0 ? m->arch->score_scale : 1 / sqrtf((float)width);
    m->score_scale *= key_float(m, ".attention.scale", by_width, 1e-6f, 1e6f);
    m->score_cap = key_float(m, ".attn_logit_softcapping", 0, 0, 1e6f);
    m->logit_cap = key_float(m, ".final_logit_softcapping", 0, 0, 1e6f);
    float root = m->arch->root ? sqrtf((float)c->dim) : 1;
    m->embedding_scale = key_float(m, ".embedding_scale", root, -1e6f, 1e6f);
    m->residual_scale = key_float(m, ".residual_scale", 1, -1e6f, 1e6f);
    m->logit_scale = key_float(m, ".logit_scale", 1, 1e-6f, 1e6f);
    if (m->arch->logits_divided) m->logit_scale = 1 / m->logit_scale;
    m->query_growth = key_float(m, ".attention.temperature_scale", 0, 0, 1e3f);
}

/* Files from before April 2025 keep the keys and values of all heads, newer ones the latent vectors
 * that these are made of. */
static void load_latent_keys(llm_model *m)
{
    llm_facts *c = &m->facts;
    char full[128];
    int new = model_key(m, full, sizeof full, ".attention.key_length_mla") != NULL;
    int most = MAX_DIM / (c->n_heads ? c->n_heads : 1);
    m->rank = key_int(m, ".attention.kv_lora_rank", -1, 1, MAX_HEAD_DIM);
    m->q_rank = key_int(m, ".attention.q_lora_rank", 0, 0, MAX_DIM);
    m->n_rot = key_int(m, ".rope.dimension_count", -1, 2, c->head_dim - 1);
    m->plain_dim = key_int(m, ".attention.key_length_mla", c->head_dim, m->n_rot + 1, most) -
                   m->n_rot;
    m->latent_value = m->value_dim;
    if (new) m->latent_value = key_int(m, ".attention.value_length_mla", m->value_dim, 1, most);
    if (!m->failed &&
        (c->n_kv_heads != (new ? 1 : c->n_heads) || (new && c->head_dim != m->rank + m->n_rot))) {
        m->failed = fail("%d key/value heads of %d dimensions, expected %d of %d", c->n_kv_heads,
                         c->head_dim, new ? 1 : c->n_heads, new ? m->rank + m->n_rot : c->head_dim);
    }
    if (new) m->value_dim = m->rank, m->value_at = m->n_rot;
}

static void load_hyperparameters(llm_model *m)
{
    llm_facts *c = &m->facts;
    c->n_layers = key_int(m, ".block_count", -1, 1, MAX_LAYERS);
    m->n_drafts = key_int(m, ".nextn_predict_layers", 0, 0, c->n_layers - 1);
    c->n_layers -= m->n_drafts;
    c->context = key_int(m, ".context_length", -1, 1, MAX_CONTEXT);
    c->dim = key_int(m, ".embedding_length", -1, 1, MAX_DIM);
    c->hidden_dim = most_int(m, ".feed_forward_length", 0, 0, MAX_DIM);
    c->n_heads = most_int(m, ".attention.head_count", 0, 0, MAX_HEADS);
    c->n_kv_heads = most_int(m, ".attention.head_count_kv", c->n_heads, 0, MAX_HEADS);
    int width = c->n_heads ? c->dim / c->n_heads : 1;
    c->head_dim = key_int(m, ".attention.key_length", width, 1, MAX_HEAD_DIM);
    m->value_dim = key_int(m, ".attention.value_length", c->head_dim, 1, MAX_HEAD_DIM);
    m->local_dim = key_int(m, ".attention.key_length_swa", c->head_dim, 1, MAX_HEAD_DIM);
    m->value_at = -1;
    static const char *const eps[] = { ".attention.layer_norm_rms_epsilon",
                                       ".attention.layer_norm_epsilon" };
    char full[128];
    int centered = m->arch->centered; /* unless the file has only the other key */
    if (!model_key(m, full, sizeof full, eps[centered]) &&
        model_key(m, full, sizeof full, eps[!centered]))
        centered = !centered;
    m->norm_eps = key_float(m, eps[centered], NAN, 0, 1);
    m->centered = centered && m->arch->centered;
    m->score_scale = 1;
    m->window = key_int(m, ".attention.sliding_window", m->arch->window, 0, MAX_CONTEXT);
    m->short_context = key_int(m, ".rope.scaling.original_context_length", c->context, 1,
                               MAX_CONTEXT);
    if (m->arch->mixer == LATENT && !m->failed) load_latent_keys(m);
    load_expert_keys(m);
    load_ropes(m);
    load_scales(m);
}

/* The shape of a layer's attention. */
static void load_shape(llm_model *m, Layer *w, int l)
{
    int window = m->window && is_local(m, l);
    w->window = window ? m->window : 0;
    w->rope = window ? LOCAL_ROPE : ROPE;
    if (m->n_rot == 0 ||
        (m->arch->rotates_local && m->window && !window &&
         !(m->arch->lead_rotates && l < m->first_routed)) ||
        (m->arch->unrotated && (l + 1) % m->arch->unrotated == 0)) {
        w->rope = -1;
    }
    w->heads = layer_int(m, ".attention.head_count", l, -1, 1, MAX_HEADS);
    w->kv_heads = layer_int(m, ".attention.head_count_kv", l, w->heads, 1, w->heads);
    w->head_dim = window ? m->local_dim : m->facts.head_dim;
    w->value_dim = window ? key_int(m, ".attention.value_length_swa", m->value_dim, 1, MAX_HEAD_DIM)
                          : m->value_dim;
    w->value_at = m->value_at;
    w->kept = m->n_kept;
    int most = m->facts.n_layers - 1;
    int first_shared = most + 1 - key_int(m, ".attention.shared_kv_layers", 0, 0, most);
    for (int i = first_shared - 1; l >= first_shared && i >= 0 && !w->shares; i--) {
        const Layer *from = &m->layers[i];
        if (!from->heads || !from->window != !w->window) continue;
        w->shares = 1, w->kept = from->kept, w->kv_heads = from->kv_heads;
    }
    if (l >= first_shared && !w->shares) m->failed = fail("layer %d has no keys to share", l);
    if (m->failed) return;
    if (w->heads % w->kv_heads || w->heads / w->kv_heads > MAX_GROUP) {
        m->failed = fail("%d attention heads can't share %d key/value heads", w->heads,
                         w->kv_heads);
    } else if (w->head_dim * w->heads > MAX_DIM || w->value_dim * w->heads > MAX_DIM) {
        m->failed = fail("%d heads of %d dimensions, expected at most %d in all", w->heads,
                         w->head_dim > w->value_dim ? w->head_dim : w->value_dim, MAX_DIM);
    }
    if (!w->shares) m->n_kept += 2 * w->kv_heads;
}

/* Rows of a tensor, where no key says how many there are; 0 without the tensor. */
static int tensor_rows(llm_model *m, int need, const char *name, int l)
{
    const Tensor *t = model_tensor(m, need, name, l);
    if (t && t->shape[1] > MAX_DIM) {
        m->failed = fail("tensor %.*s has %lld rows, expected at most %d", SHOW(t->name),
                         (long long)t->shape[1], MAX_DIM);
    }
    return t && !m->failed ? (int)t->shape[1] : 0;
}

/* Queries, keys and values; these may lie in one tensor. */
static void load_attention(llm_model *m, Layer *w, int l)
{
    char full[128];
    int dim = m->facts.dim;
    load_shape(m, w, l);
    if (m->failed) return;
    int q = w->heads * w->head_dim, k = w->kv_heads * w->head_dim, v = w->kv_heads * w->value_dim;
    if (w->shares) {
        static const char *const unused[] = { "attn_k.weight", "attn_v.weight",
                                              "attn_k_norm.weight" };
        w->wq = load_mat(m, q, dim, REQUIRED, "attn_q", l);
        for (int i = 0; i < 3; i++) {
            Tensor *t = layer_tensor(m, full, unused[i], l);
            if (t) t->used = 1;
        }
    } else if (model_tensor(m, OPTIONAL, "attn_qkv.weight", l)) {
        Mat all = load_mat(m, q + k + v, dim, REQUIRED, "attn_qkv", l);
        w->wq = part(all, 0, q);
        w->wk = part(all, q, k);
        w->wv = part(all, q + k, v);
    } else {
        if (m->arch->gate == BESIDE_QUERY)
            w->wq_gated = load_mat(m, 2 * q, dim, REQUIRED, "attn_q", l);
        else
            w->wq = load_mat(m, q, dim, REQUIRED, "attn_q", l);
        w->wk = load_mat(m, k, dim, REQUIRED, "attn_k", l);
        if (!m->arch->value_norm ||
            layer_tensor(m, full, "attn_v.weight", l)) /* else they are the keys */
            w->wv = load_mat(m, v, dim, REQUIRED, "attn_v", l);
    }
    w->wo = load_mat(m, dim, w->heads * w->value_dim, REQUIRED, "attn_output", l);
    w->q_norm = load_head_norm(m, w->heads, w->head_dim, "attn_q_norm.weight", l);
    if (!w->shares)
        w->k_norm = load_head_norm(m, w->kv_heads, w->head_dim, "attn_k_norm.weight", l);
    if (m->arch->value_norm) w->v_norm = even_norm(m, w->value_dim, NULL, 1);
    if (!m->failed && (w->wq_gated.data || (w->wk.data && !w->wv.data)) &&
        w->head_dim != w->value_dim) {
        m->failed = fail("values of %d dimensions, but keys of %d", w->value_dim, w->head_dim);
    }
    w->sinks = load_vec(m, w->heads, OPTIONAL, "attn_sinks.weight", l);
    if (m->arch->gate <= BESIDE_QUERY || m->failed) return;
    int gates = tensor_rows(m, REQUIRED, "attn_gate.weight", l) == w->heads ? 1 : w->value_dim;
    w->out_gate = load_mat(m, w->heads * gates, dim, REQUIRED, "attn_gate", l);
}

/* Queries and keys by way of shorter vectors, see latent_queries. */
static void load_latent(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim, v_dim = m->latent_value;
    load_shape(m, w, l);
    if (m->failed) return;
    int q_dim = w->heads * (m->plain_dim + m->n_rot);
    if (m->q_rank) {
        w->q_low = load_mat(m, m->q_rank, dim, REQUIRED, "attn_q_a", l);
        w->q_low_norm = load_norm(m, m->q_rank, REQUIRED, "attn_q_a_norm", l);
        w->wq = load_mat(m, q_dim, m->q_rank, REQUIRED, "attn_q_b", l);
    } else {
        w->wq = load_mat(m, q_dim, dim, REQUIRED, "attn_q", l);
    }
    w->wo = load_mat(m, dim, w->heads * v_dim, REQUIRED, "attn_output", l);
    w->latent = load_mat(m, m->rank + m->n_rot, dim, REQUIRED, "attn_kv_a_mqa", l);
    w->latent_norm = load_norm(m, m->rank, REQUIRED, "attn_kv_a_norm", l);
    if (m->value_at < 0) {
        w->whole = load_mat(m, w->heads * (m->plain_dim + v_dim), m->rank, REQUIRED, "attn_kv_b",
                            l);
        return;
    }
    w->to_latent = load_mats(m, w->heads, m->rank, 0, m->rank, m->plain_dim, REQUIRED, "attn_k_b",
                             l);
    w->from_latent = load_mats(m, w->heads, v_dim, 0, v_dim, m->rank, REQUIRED, "attn_v_b", l);
}

static int has_no_gate(const llm_model *m)
{
    int kind = m->arch->activation;
    return kind == GELU || kind == RELU_SQUARED || kind == XIELU;
}

/* The numbers of a layer's activation, see bend. */
static void load_curve(llm_model *m, Layer *w, int l)
{
    static const char *const names[] = { "xielu.alpha_p", "xielu.alpha_n", "xielu.beta",
                                         "xielu.eps" };
    w->curve = take(&m->arena, 4, sizeof *w->curve);
    for (int i = 0, n; i < 4; i++) {
        const float *all = key_array(m, names[i], FLOAT32, -1, &n);
        if (!m->failed && n <= l) m->failed = fail("key %s has %d values", names[i], n);
        if (!m->failed && all && w->curve) w->curve[i] = all[l];
    }
}

/* The feed-forward part of a layer without experts; gate and up may lie in one tensor. */
static void load_dense(llm_model *m, Mat *gate, Mat *up, Mat *down, int l)
{
    int dim = m->facts.dim, hidden = layer_int(m, ".feed_forward_length", l, -1, 1, MAX_DIM);
    if (has_no_gate(m)) {
        *gate = load_mat(m, hidden, dim, REQUIRED, "ffn_up", l);
    } else if (model_tensor(m, OPTIONAL, "ffn_gate.weight", l)) {
        *gate = load_mat(m, hidden, dim, REQUIRED, "ffn_gate", l);
        *up = load_mat(m, hidden, dim, REQUIRED, "ffn_up", l);
    } else {
        Mat both = load_mat(m, 2 * hidden, dim, REQUIRED, "ffn_up", l);
        *gate = part(both, 0, hidden);
        *up = part(both, hidden, hidden);
    }
    *down = load_mat(m, dim, hidden, REQUIRED, "ffn_down", l);
}

/* Experts that have tensors of their own: "name.0.weight" and so on. */
static Mat *load_single(llm_model *m, int rows, int cols, const char *name, int l)
{
    Mat *mats = take(&m->arena, (size_t)m->facts.n_experts, sizeof *mats);
    for (int i = 0; mats && i < m->facts.n_experts; i++) {
        char full[64];
        snprintf(full, sizeof full, "%s.%d", name, i);
        mats[i] = load_mat(m, rows, cols, ROUTED, full, l);
    }
    return mats;
}

/* Experts are stacked in three tensors, or in two where gate and up are in one, or each has its own
 * tensors, as in files of the first days. */
static void load_expert_mats(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim, n = m->facts.n_experts;
    int hidden = tensor_rows(m, ROUTED | OPTIONAL, "ffn_up.0.weight", l);
    int low = tensor_rows(m, ROUTED | OPTIONAL, "ffn_latent_down.weight", l);
    if (low > dim) m->failed = fail("experts of layer %d are wider than the model", l);
    if (low) {
        w->experts_in = load_mat(m, low, dim, ROUTED, "ffn_latent_down", l);
        w->experts_out = load_mat(m, dim, low, ROUTED, "ffn_latent_up", l);
        dim = low;
    }
    if (hidden) {
        w->gates = load_single(m, hidden, dim, "ffn_gate", l);
        w->ups = load_single(m, hidden, dim, "ffn_up", l);
        w->downs = load_single(m, dim, hidden, "ffn_down", l);
        return;
    }
    int both = tensor_rows(m, ROUTED | OPTIONAL, "ffn_gate_up_exps.weight", l);
    if (both) {
        hidden = both / 2;
        both = 2 * hidden; /* an odd number of rows is refused */
        w->gates = load_mats(m, n, both, 0, hidden, dim, ROUTED, "ffn_gate_up_exps", l);
        w->ups = load_mats(m, n, both, hidden, hidden, dim, ROUTED, "ffn_gate_up_exps", l);
    } else {
        int alone = has_no_gate(m);
        hidden = tensor_rows(m, ROUTED, "ffn_up_exps.weight", l);
        w->gates = load_mats(m, n, hidden, 0, hidden, dim, ROUTED,
                             alone ? "ffn_up_exps" : "ffn_gate_exps", l);
        w->ups = alone ? take(&m->arena, (size_t)n, sizeof *w->ups)
                       : load_mats(m, n, hidden, 0, hidden, dim, ROUTED, "ffn_up_exps", l);
    }
    w->downs = load_mats(m, n, dim, 0, dim, hidden, ROUTED, "ffn_down_exps", l);
}

static void load_experts(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim, n = m->facts.n_experts;
    char full[128];
    int shared = tensor_rows(m, ROUTED | OPTIONAL, "ffn_up_shexp.weight", l);
    int64_t before = m->facts.bytes_read;
    load_expert_mats(m, w, l);
    m->facts.bytes_read = before + (m->facts.bytes_read - before) / n * m->facts.n_experts_used;
    w->router = load_mat(m, n, dim, ROUTED, "ffn_gate_inp", l);
    const char *bias = layer_tensor(m, full, "exp_probs_b", l) ? "exp_probs_b" : "exp_probs_b.bias";
    w->expert_bias = load_vec(m, n, ROUTED | OPTIONAL, bias, l);
    for (int i = 0; w->expert_bias && i < n; i++) { /* else an expert could be chosen twice */
        if (isfinite(w->expert_bias[i])) continue;
        m->failed = fail("tensor blk.%d.exp_probs_b.bias holds %g", l, (double)w->expert_bias[i]);
    }
    if (m->arch->dense_beside) {
        const float *scales = load_vec(m, dim, ROUTED, "ffn_gate_inp.scale", l);
        load_dense(m, &w->shared_gate, &w->shared_up, &w->shared_down, l);
        w->router_norm = even_norm(m, dim, scales, 1 / sqrtf((float)dim));
        w->expert_scales = load_vec(m, n, ROUTED | OPTIONAL, "ffn_down_exps.scale", l);
        w->experts_norm = load_norm(m, dim, ROUTED, "pre_ffw_norm_2", l);
        w->shared_post_norm = load_norm(m, dim, ROUTED, "post_ffw_norm_1", l);
        w->experts_post_norm = load_norm(m, dim, ROUTED, "post_ffw_norm_2", l);
    }
    m->experts_apart |= m->arch->dense_beside || w->experts_in.data;
    if (!shared) return;
    w->shared_router = load_mat(m, 1, dim, ROUTED | OPTIONAL, "ffn_gate_inp_shexp", l);
    if (has_no_gate(m)) {
        w->shared_gate = load_mat(m, shared, dim, ROUTED, "ffn_up_shexp", l);
    } else {
        w->shared_gate = load_mat(m, shared, dim, ROUTED, "ffn_gate_shexp", l);
        w->shared_up = load_mat(m, shared, dim, ROUTED, "ffn_up_shexp", l);
    }
    w->shared_down = load_mat(m, dim, shared, ROUTED, "ffn_down_shexp", l);
}

/* The shape of a state: the past inputs of a convolution, then for each head a matrix of k_dim by
 * v_dim, in bands of columns. */
static void load_state(llm_model *m, Layer *w, const char *conv, int l)
{
    char name[64];
    double numbers = (double)(w->taps - 1) * w->channels +
                     (double)w->state_heads * bands_of(w->v_dim) * BAND * w->k_dim;
    w->state = m->state;
    if (!m->failed && m->state + numbers > MAX_STATE) {
        m->failed = fail("the states of %d layers have more than %d numbers", l + 1, MAX_STATE);
    }
    if (m->failed) return;
    m->state += (int)numbers;
    snprintf(name, sizeof name, "%s.weight", conv);
    const float *rows = load_floats(m, w->channels, w->taps, REQUIRED, name, l);
    float *columns = take(&m->arena, (size_t)w->channels * (size_t)w->taps, sizeof *columns);
    for (int i = 0; rows && columns && i < w->channels * w->taps; i++) {
        columns[i % w->taps * w->channels + i / w->taps] = rows[i];
    }
    w->conv = columns;
    snprintf(name, sizeof name, "%s.bias", conv);
    w->conv_bias = load_vec(m, w->channels, OPTIONAL, name, l);
    at_least(&m->channels, w->channels);
    at_least(&m->inner, w->state_heads ? w->state_heads * w->v_dim : w->channels);
    at_least(&m->state_heads, w->state_heads);
}

/* See run_short_conv. */
static void load_short_conv(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim;
    Mat all = load_mat(m, 3 * dim, dim, REQUIRED, "shortconv.in_proj", l);
    w->taps = key_int(m, ".shortconv.l_cache", -1, 2, MAX_TAPS);
    w->channels = dim;
    w->mixed = part(all, 0, dim);
    w->z = part(all, dim, dim);
    w->times = part(all, 2 * dim, dim);
    load_state(m, w, "shortconv.conv", l);
    w->state_out = load_mat(m, dim, dim, REQUIRED, "shortconv.out_proj", l);
}

/* Heads of a state, and the channels of its queries, keys and values. */
static void load_heads(llm_model *m, Layer *w, int l)
{
    int inner = key_int(m, ".ssm.inner_size", -1, 1, MAX_DIM);
    w->taps = key_int(m, ".ssm.conv_kernel", -1, 2, MAX_TAPS);
    w->k_dim = key_int(m, ".ssm.state_size", -1, 1, MAX_HEAD_DIM);
    w->k_heads = key_int(m, ".ssm.group_count", -1, 1, MAX_HEADS);
    w->state_heads = key_int(m, ".ssm.time_step_rank", -1, 1, MAX_HEADS);
    if (m->failed) return;
    w->v_dim = inner / w->state_heads;
    w->channels = inner + 2 * w->k_heads * w->k_dim;
    if (w->state_heads % w->k_heads || w->state_heads * w->v_dim != inner) {
        m->failed = fail("%d numbers in %d heads of a state, with %d of keys", inner,
                         w->state_heads, w->k_heads);
    }
    load_state(m, w, "ssm_conv1d", l);
    w->forget = w->mixer == &mixers[DELTA_NET]
                    ? load_vec(m, w->state_heads, REQUIRED, "ssm_a", l)
                    : load_floats(m, w->state_heads, 1, REQUIRED, "ssm_a", l);
    w->step_bias = load_vec(m, w->state_heads, REQUIRED, "ssm_dt.bias", l);
    w->state_out = load_mat(m, m->facts.dim, inner, REQUIRED, "ssm_out", l);
}

static void load_delta_net(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim;
    load_heads(m, w, l);
    if (m->failed) return;
    w->mixed = load_mat(m, w->channels, dim, REQUIRED, "attn_qkv", l);
    w->z = load_mat(m, w->state_heads * w->v_dim, dim, REQUIRED, "attn_gate", l);
    w->decay = load_mat(m, w->state_heads, dim, REQUIRED, "ssm_alpha", l);
    w->beta = load_mat(m, w->state_heads, dim, REQUIRED, "ssm_beta", l);
    w->state_norm = load_norm(m, w->v_dim, REQUIRED, "ssm_norm", l);
}

static void load_mamba2(llm_model *m, Layer *w, int l)
{
    int dim = m->facts.dim;
    load_heads(m, w, l);
    if (m->failed) return;
    int inner = w->state_heads * w->v_dim, group = inner / w->k_heads;
    Mat all = load_mat(m, inner + w->channels + w->state_heads, dim, REQUIRED, "ssm_in", l);
    w->z = part(all, 0, inner);
    w->mixed = part(all, inner, w->channels);
    w->decay = part(all, inner + w->channels, w->state_heads);
    w->direct = load_floats(m, w->state_heads, 1, REQUIRED, "ssm_d", l);
    int need = m->arch->mixer == ATTENTION_AND_MAMBA2 ? OPTIONAL : REQUIRED;
    w->state_norm.weight = load_floats(m, w->k_heads, group, need, "ssm_norm.weight", l);
    w->state_norm.length = inner, w->state_norm.width = group;
}

static void load_attention_and_mamba2(llm_model *m, Layer *w, int l)
{
    load_attention(m, w, l);
    load_mamba2(m, w, l);
}

/* What layer l has beside its feed-forward part. */
static int mixer_of(llm_model *m, int l)
{
    char full[128];
    int period = key_int(m, ".full_attention_interval", 0, 0, MAX_LAYERS);
    if (m->arch->single && layer_int(m, ".feed_forward_length", l, 0, 0, MAX_DIM)) return NOTHING;
    if (model_key(m, full, sizeof full, ".attention.recurrent_layers")) {
        return layer_int(m, ".attention.recurrent_layers", l, 0, 0, 1) ? m->arch->other : ATTENTION;
    }
    if (period) return (l + 1) % period ? m->arch->other : ATTENTION;
    int heads = layer_int(m, ".attention.head_count", l, 0, 0, MAX_HEADS);
    heads = layer_int(m, ".attention.head_count_kv", l, heads, 0, MAX_HEADS);
    return heads ? m->arch->mixer : m->arch->other;
}

static void load_layer(llm_model *m, int l)
{
    char full[128];
    Layer *w = &m->layers[l];
    const Arch *arch = m->arch;
    int dim = m->facts.dim, n_inject = m->n_inject, kind = mixer_of(m, l);
    w->mixer = &mixers[kind];
    w->has_ffn = !arch->single || kind == NOTHING;
    w->routed = w->has_ffn && l >= m->first_routed &&
                (!arch->some_dense || layer_tensor(m, full, "ffn_gate_inp.weight", l));
    if (!arch->ffn_norm || strcmp(arch->ffn_norm, "post_attention_norm.weight"))
        w->attn_post_norm = load_norm(m, dim, OPTIONAL, "post_attention_norm", l);
    w->ffn_post_norm = load_norm(m, dim, OPTIONAL, "post_ffw_norm", l);
    w->attn_post_norm.eps = w->ffn_post_norm.eps = arch->post_eps;
    /* A norm may be missing in front of a part where there is one behind it. */
    int need = w->attn_post_norm.weight ? OPTIONAL : REQUIRED;
    *(kind == NOTHING ? &w->ffn_norm : &w->attn_norm) = load_norm(m, dim, need, "attn_norm", l);
    need = w->ffn_post_norm.weight || arch->parallel ? OPTIONAL : REQUIRED;
    if (arch->ffn_norm)
        w->ffn_norm = (Norm){ load_vec(m, dim, REQUIRED, arch->ffn_norm, l), NULL, dim, dim, 0 };
    else if (!arch->single)
        w->ffn_norm = load_norm(m, dim, need, "ffn_norm", l);
    w->parallel = arch->parallel && !w->ffn_norm.weight;
    if (w->mixer->load) w->mixer->load(m, w, l);
    if (w->routed)
        load_experts(m, w, l);
    else if (w->has_ffn)
        load_dense(m, &w->gate, &w->up, &w->down, l);
    if (arch->activation == XIELU) load_curve(m, w, l);
    w->scale = load_vec(m, 1, OPTIONAL, "layer_output_scale.weight", l);
    if (n_inject) {
        w->inject_gate = load_mat(m, n_inject, dim, REQUIRED, "inp_gate", l);
        w->inject = load_mat(m, dim, n_inject, REQUIRED, "proj", l);
        w->inject_norm = load_norm(m, dim, REQUIRED, "post_norm", l);
    }
    if (w->gates) at_least(&m->widest, w->gates->rows);
    at_least(&m->widest, w->gate.rows);
    at_least(&m->widest, w->shared_gate.rows);
    at_least(&m->q_dim, w->heads * w->head_dim);
    at_least(&m->k_dim, w->kv_heads * w->head_dim);
    at_least(&m->v_dim, w->kv_heads * w->value_dim);
    at_least(&m->a_dim, w->heads * w->value_dim);
    at_least(&m->o_dim, w->wo.cols);
    at_least(&m->found_dim, w->value_dim);
}

/* Where the cache keeps what: the layers' heads one after the other, as they were counted. */
static void load_kept(llm_model *m)
{
    int64_t before = 0;
    int n = 0;
    m->kept = take(&m->arena, (size_t)m->n_kept + 1, sizeof *m->kept);
    for (int l = 0; m->kept && l < m->facts.n_layers; l++) {
        const Layer *w = &m->layers[l];
        for (int i = 0; i < 2 * w->kv_heads && !w->shares; i++, n++) {
            int dim = i % 2 == 0 ? w->head_dim : w->value_at < 0 ? w->value_dim : 0;
            m->kept[n] = (Kept){ dim, before };
            before += dim;
        }
    }
    if (m->kept) m->kept[n].before = before;
}

/* Whether a tensor belongs to the layers behind the model's own that predict further tokens, or to
 * what sees and hears, which some files hold too. */
static int is_beside(const llm_model *m, const Tensor *t)
{
    static const char *const senses[] = { "v.", "a.", "mm." };
    char name[64];
    int layer;
    snprintf(name, sizeof name, "%.*s", SHOW(t->name));
    for (size_t i = 0; i < ARRAY_LEN(senses) && m->arch->has_senses; i++) {
        if (!strncmp(name, senses[i], strlen(senses[i]))) return 1;
    }
    return sscanf(name, "blk.%d.", &layer) == 1 && layer >= m->facts.n_layers &&
           layer < m->facts.n_layers + m->n_drafts;
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
    if (m->arch->embedding_norm) m->embedding_norm = even_norm(m, c->dim, NULL, 1);
    if (m->embedding.bias) m->failed = fail("tensor token_embd.bias is not known");
    if (!m->output.data) {
        m->output = m->embedding;
    } else if (!m->failed) {
        c->bytes_read -= (int64_t)embedding->bytes; /* single rows are read, not the matrix */
    }
    if (m->arch->learned) {
        int64_t before = c->bytes_read;
        m->positions = load_mat(m, c->context, c->dim, REQUIRED, "position_embd", -1);
        if (m->positions.bias) m->failed = fail("tensor position_embd.bias is not known");
        c->bytes_read = before;
    }
    const char *output_norm = m->arch->output_norm ? m->arch->output_norm : "output_norm";
    m->output_norm = load_norm(m, c->dim, REQUIRED, output_norm, -1);
    m->n_inject = key_int(m, ".embedding_length_per_layer_input", 0, 0, MAX_DIM / c->n_layers);
    if (m->n_inject) {
        int all = m->n_inject * c->n_layers;
        int64_t before = c->bytes_read;
        m->inject_embedding = load_mat(m, c->vocab_size, all, REQUIRED, "per_layer_token_embd", -1);
        c->bytes_read = before;
        m->inject_mat = load_mat(m, all, c->dim, REQUIRED, "per_layer_model_proj", -1);
        m->inject_norm = load_norm(m, m->n_inject, REQUIRED, "per_layer_proj_norm", -1);
    }
    for (int l = 0; l < c->n_layers && !m->failed; l++) load_layer(m, l);
    if (!m->failed) load_kept(m);
    c->state_bytes = (int64_t)m->state * (int64_t)sizeof(float);
    for (uint64_t i = 0; i < m->file.n_tensors && !m->failed; i++) {
        const Tensor *t = &m->file.tensors[i];
        if (!t->used && !is_beside(m, t)) {
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
        "<|endoftext|>", "<|im_end|>",       "<|eot_id|>",
        "<|eom_id|>",    "<|end|>",          "<|end_of_text|>",
        "<|return|>",    "<|call|>",         "<|END_OF_TURN_TOKEN|>",
        "<end_of_turn>", "<|endofturn|>",    "<｜end▁of▁sentence｜>",
        "<turn|>",       "<|tool_response>",
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        int id = special_id(m, key, -1, m->facts.vocab_size);
        if (id >= 0) m->stops[m->n_stops++] = id;
    }
    /* with <|return|> in the vocabulary, <|end|> only ends a part of a turn */
    int goes_on = m->tokenizer && tokenizer_find(m->tokenizer, "<|return|>", 10) >= 0;
    for (size_t i = 0; m->tokenizer && i < ARRAY_LEN(names); i++) {
        int id = tokenizer_find(m->tokenizer, names[i], strlen(names[i]));
        if (id >= 0 && !(goes_on && !strcmp(names[i], "<|end|>"))) m->stops[m->n_stops++] = id;
    }
}

/* To add one: its name in tokenizer.ggml.model, whose kind tokenizer.c knows. */
static const struct {
    const char *name;
    enum tokenizer_kind kind;
} vocabularies[] = {
    { "llama", TOKENIZER_SPM },
    { "gpt2", TOKENIZER_BPE },
    { "gemma4", TOKENIZER_CHARACTER_BPE },
};

static void load_vocabulary(llm_model *m)
{
    llm_facts *c = &m->facts;
    const char *kind = key_string(m, "tokenizer.ggml.model");
    int n_scores, n_types, found = 0;
    tokenizer_vocab v = { 0 };
    c->bos = c->eos = -1;
    c->chat_template = key_string(m, "tokenizer.chat_template");
    m->tools_template = key_string(m, "tokenizer.chat_template.tool_use");
    if (m->failed || !*kind || !strcmp(kind, "no_vocab") || !strcmp(kind, "none")) return;
    for (size_t i = 0; i < ARRAY_LEN(vocabularies); i++) {
        if (!strcmp(kind, vocabularies[i].name)) v.kind = vocabularies[i].kind, found = 1;
    }
    if (!found) {
        m->failed = fail("key tokenizer.ggml.model is %s, expected llama, gpt2 or gemma4", kind);
        return;
    }
    int spm = v.kind == TOKENIZER_SPM, characters = v.kind == TOKENIZER_CHARACTER_BPE;
    v.tokens = key_array(m, "tokenizer.ggml.tokens", STRING, -1, &v.n_tokens);
    if (!m->failed && v.n_tokens == 0) {
        m->failed = fail("key tokenizer.ggml.tokens is missing or empty");
    }
    if (spm) v.scores = key_array(m, "tokenizer.ggml.scores", FLOAT32, v.n_tokens, &n_scores);
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
    v.bos = key_int(m, "tokenizer.ggml.add_bos_token", add_bos, 0, 1) || characters ? c->bos : -1;
    m->adds_bos = v.bos >= 0;
    m->suppressed = key_array(m, "tokenizer.ggml.suppress_tokens", I32, -1, &m->n_suppressed);
    for (int i = 0; i < m->n_suppressed; i++) {
        if (m->suppressed[i] >= 0 && m->suppressed[i] < v.n_tokens) continue;
        m->failed = fail("key tokenizer.ggml.suppress_tokens holds %d", m->suppressed[i]);
    }
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

/* The name of the instruction set whose kernels are used from now on, NULL on failure; see section
 * 13. Buffers are the next section's, the rest is section 11's. */
static const char *pick_kernels(void);
static void free_buffers(struct Buffers *b);
static void load_template(llm_model *m);
static int choose_template(llm_session *s, const llm_options *o);
static void find_end(llm_session *s);
static int turns_until(const llm_session *s, int position);
static void keep_turns(llm_session *s, int n);
static void begin_writing(llm_session *s);

/* GGUF files that belong to a model but are none. To add one: what a key says in it. */
static const struct {
    const char *key, *value, *what;
} companions[] = {
    { "general.type", "adapter", "a LoRA adapter: it changes a model's weights" },
    { "general.type", "mmproj", "a projector: it feeds pictures or sound to a model" },
    { "general.architecture", "clip", "a vision projector: it feeds pictures to a model" },
    { "general.type", "imatrix", "an importance matrix: it tells how to quantize a model" },
    { "general.architecture", "controlvector", "a control vector: it steers a model" },
    { "general.architecture", "eagle", "a draft head: it guesses for a model" },
    { "general.architecture", "eagle3", "a draft head: it guesses for a model" },
};

/* From the parsed file to a model that forward can trust. */
static int load(llm_model *m)
{
    for (size_t i = 0; i < ARRAY_LEN(companions) && !m->failed; i++) {
        if (strcmp(key_line(m, companions[i].key), companions[i].value)) continue;
        return fail("this is %s, not a model", companions[i].what);
    }
    load_facts(m);
    if (!m->failed && !*m->facts.arch) m->failed = fail("key general.architecture is missing");
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        if (!strcmp(archs[i].name, m->facts.arch)) m->arch = &archs[i];
    }
    if (!m->failed && m->facts.has_weights && !m->arch) {
        m->failed = fail("the architecture %s is not known", m->facts.arch);
    }
    load_vocabulary(m);
    if (!m->failed) load_template(m);
    if (!m->failed && m->facts.has_weights) {
        load_hyperparameters(m);
        load_weights(m);
    }
    if (!m->failed) load_stops(m);
    if (m->arena.failed) { /* what else failed did for that reason */
        m->failed = fail("out of memory for the vocabulary and the layers");
    }
    return m->failed;
}

static llm_model *finish_open(llm_model *m, const char *path)
{
    m->facts.kernels = pick_kernels();
    if (m->facts.kernels && !parse_file(&m->file) && !open_parts(&m->file, path) && !load(m))
        return m;
    llm_close(m);
    return NULL;
}

llm_model *llm_open(const char *path)
{
    if (lacks(path, "path")) return NULL;
    llm_model *m = calloc(1, sizeof *m);
    if (!m) fail("out of memory");
    if (m && map_file(&m->file, path)) {
        llm_close(m);
        m = NULL;
    } else if (m) {
        m = finish_open(m, path);
    }
    if (!m) fail("%s: %s", path, error_text);
    return m;
}

llm_model *llm_open_memory(const void *data, size_t size)
{
    llm_model *m = NULL;
    if (lacks(data, "buffer")) return NULL;
    if ((uintptr_t)data % 8) {
        fail("the buffer is not aligned to 8 bytes");
    } else if (!(m = calloc(1, sizeof *m))) {
        fail("out of memory");
    }
    if (!m) return NULL;
    m->file.data = data;
    m->file.size = size;
    return finish_open(m, NULL);
}

void llm_close(llm_model *m)
{
    if (!m) return;
    tokenizer_free(m->tokenizer);
    tokenizer_template_free(m->template);
    for (int i = 0; i < MAX_SPARE; i++) free_buffers(m->spare[i]);
    close_file(&m->file);
    release(&m->arena);
    free(m);
}

const llm_facts *llm_info(const llm_model *m)
{
    if (lacks(m, "model")) return NULL;
    return &m->facts;
}

int llm_encode(const llm_model *m, const char *text, size_t len, int flags, int *tokens, int max)
{
    if (lacks(m, "model") || (len > 0 && lacks(text, "text"))) return -1;
    if (max > 0 && lacks(tokens, "room for tokens")) return -1;
    char why[256];
    if (!m->tokenizer) return fail("the model file has no vocabulary");
    flags |= TOKENIZER_USER_DEFINED; /* only what is said in a chat has no marks of any type */
    int n = tokenizer_encode(m->tokenizer, text, len, flags, tokens, max, why, sizeof why);
    return n < 0 ? fail("%s", why) : n;
}

size_t llm_decode(const llm_model *m, const int *tokens, int n, int flags, char *text, size_t size)
{
    if (lacks(m, "model") || (n > 0 && lacks(tokens, "token"))) return 0;
    if (size && lacks(text, "room")) return 0;
    if (m->tokenizer) return tokenizer_decode(m->tokenizer, tokens, n, flags, text, size);
    if (size) *text = 0;
    return 0;
}

int llm_is_stop(const llm_model *m, int token)
{
    if (lacks(m, "model")) return -1;
    for (int i = 0; i < m->n_stops; i++) {
        if (m->stops[i] == token) return 1;
    }
    return 0;
}

/* ==== 5. Session =================================================================================
 * One conversation: the KV cache, which remembers the keys and values of all earlier positions; and
 * the buffers that it borrows to evaluate. A buffer has one shape and one meaning; rows are those
 * of a batch, at most CHUNK. */

/* A row of a batch: one token at one position of one session. */
typedef struct {
    llm_session *session;
    int token, position;
    float *logits; /* where they go (vocab_size), NULL: not asked for */
} Row;

/* The kernels work on bands: BAND rows of a matrix side by side, each in a lane, so that a number
 * of x is multiplied with a whole band at once. */
typedef uint32_t Words[BAND];  /* four bytes of each row of a band */
typedef float FloatBand[BAND]; /* a number of each */

/* A piece of the rows of a band in a quantized format, one after the other: quanta, and what they
 * stand for, w = q d + m, with a d and an m for each 16 columns. */
typedef struct {
    _Alignas(64) uint8_t q[BAND][BAND_COLS];
    _Alignas(64) float d[BAND][BAND_COLS / 16], m[BAND][BAND_COLS / 16];
} Units;

/* The same side by side, quanta four to a word. */
typedef struct {
    _Alignas(64) Words q[BAND_COLS / 4];
    _Alignas(64) FloatBand d[BAND_COLS / 16], m[BAND_COLS / 16];
} Quanta;

/* As many columns of all rows of x, as bf16 and tile by tile. */
typedef uint16_t Tiles[CHUNK / 16][BAND_COLS / 32][16][32];

/* Rows of x, quantized for the integer products: 32 numbers share d. One digit is a whole number up
 * to 127; two are digits to the base of 128, high ones before low ones, as the finer formats need
 * so that x does not add to their error. Or x as sums of bf16 numbers, as many as there are digits.
 */
typedef struct {
    union {
        int8_t *q;    /* (n, digits, whole_pieces(cols)) */
        Tiles *tiles; /* (cols / BAND_COLS, digits) */
    };
    float *d;    /* (n, whole_pieces(cols) / 16) */
    float *sums; /* (n, whole_pieces(cols) / 16) of the numbers that q stands for */
} Act;

/* Columns up to a whole piece, of which the last are zeros. */
static size_t whole_pieces(int cols)
{
    return ((size_t)cols + BAND_COLS - 1) / BAND_COLS * BAND_COLS;
}

/* The result of softmax so far, which goes over the positions in blocks (arxiv.org/abs/1805.02867):
 * `top` is the largest score, `sum` the sum of exp(score - top). A block with a larger score
 * shrinks what was summed up before. */
typedef struct {
    float top, sum;
} Softmax;

/* What the layers with a state know behind the first `position` tokens; 0: it is free, as nothing
 * is known there. An evaluation writes a state beside the one that it begins with. Those that stay
 * behind are what a session goes back to when it is rewound. */
typedef struct {
    int position;
    float *numbers; /* (state) */
} State;

/* What one thread works with. */
typedef struct {
    FloatBand y[2][RUN_BANDS][CHUNK]; /* bands of a product, for all rows of x, and of `up` */
    Units units;                      /* a piece of a band, row by row */
    Quanta quanta;                    /* the same, side by side */
    float rows[BAND][BAND_COLS + 16]; /* a piece of a band, unpacked */
    FloatBand lanes[BAND_COLS + 16];  /* the same, side by side, or pairs of bf16 */
    Tiles tiles[2];                   /* queries or scores, for products with such pairs */
    float values[ATTEND_BLOCK * MAX_HEAD_DIM + BAND];  /* a block of positions: keys, then values */
    FloatBand keys[ATTEND_BLOCK / BAND][MAX_HEAD_DIM]; /* the keys, side by side */
    float scores[MAX_GROUP][ATTEND_BLOCK];             /* of queries */
    FloatBand tail[MAX_GROUP];                         /* columns that fill no band */
    Softmax softmax[ATTEND_HEADS];                     /* of queries and heads */
    int hidden[MAX_GROUP];  /* positions of the block that lie before a query's window */
    int visible[MAX_GROUP]; /* and up to which one it sees them */
} Scratch;

typedef struct {
    float p; /* logit, later probability */
    int id;
} Choice;

/* What an expert has to do for a token: row of the batch, and its share of the result. */
typedef struct {
    int row;
    float share;
} Route;

/* A turn of a conversation. The last one may be open: its text is what is generated behind it. */
typedef struct {
    char *role;
    char *text;     /* NULL: the turn is open */
    char *thoughts; /* of an answer, NULL: none */
    int begin;      /* position behind what opens it, while it is open */
    int end;        /* position behind an answer that stands there as the model wrote it, else -1 */
} Turn;

/* Text that was given out, without a zero at its end. */
typedef struct {
    char *text;
    size_t n, room;
} Heard;

/* Text of which each byte knows whether it belongs to a token that is a mark. */
enum { OF_TEXT, OF_MARK, OF_CONTROL }; /* the last ones are never given out */
typedef struct {
    char *text, *kinds;
    size_t n;
} Marked;

/* The marks of a chat template, as a session looks for them in what is written. */
enum { THOUGHT_OPEN, THOUGHT_CLOSE, TURN_CLOSE, N_MARKS };

/* What an evaluation works with: rows of a batch, at most CHUNK. The model keeps those that nobody
 * uses, so that sessions which evaluate one after the other share them. */
typedef struct Buffers {
    Arena arena;
    int threads;
    Row *rows;       /* (rows) */
    float *x;        /* (rows, dim) residual stream */
    float *h;        /* (rows, dim) what goes into a part of the layer */
    float *change;   /* (rows, dim) what comes out of it and is added to x */
    float *q, *a;    /* (rows, heads, head_dim or value_dim) queries; what attention found */
    float *q_gated;  /* (rows, heads, 2 head_dim) queries with the gates behind them */
    float *gates;    /* (rows, heads, value_dim) the gates, later what they leave */
    float *found_in; /* (n_parts, value_dim) what it found in a span of positions */
    Softmax *parts;  /* (n_parts) by rows and heads, or by threads and heads of a tile */
    size_t n_parts;
    float *k, *v;           /* (rows, kv_heads, head_dim or value_dim) */
    float *gate;            /* (rows, hidden_dim, or that of experts) */
    float *cos[2], *sin[2]; /* (rows, n_rot / 2) of the rotations at the rows' positions */
    float *q_low, *latent;  /* (rows, q_rank) (rows, rank + n_rot) of latent attention */
    float *latent_normed;   /* (rows, rank) */
    float *whole;           /* (rows, heads, plain_dim + value_dim) where heads are kept whole */
    float *q_plain, *found; /* (rows, heads, plain_dim + n_rot) (rows, heads, latent_value) */
    float *mixed, *conved;  /* (rows, channels) of a convolution: what goes in and comes out */
    float *z, *o;           /* (rows, inner) the gate of what a state gives, and that */
    float *decay, *beta;    /* (rows, state_heads) */
    float *scores;          /* (rows, n_experts) */
    float *shared;          /* (rows) share of the shared expert */
    float *aside, *routed; /* (rows, dim) what the router or experts are given, if it is not h; what
                               these give, if it is not added up in change */
    float *injections, *injected; /* (rows, n_layers n_inject) (rows, n_inject) see inject */
    float *table;                 /* (n_layers n_inject) a row of their embedding */
    Route *chosen, *routes; /* (rows, n_experts_used) by row of the batch, with the expert in the
                               place of the row; by expert */
    int *starts;            /* (n_experts + 1) of the experts' routes */
    float *group_in;        /* (rows, widest input) rows of x, in the order of experts or heads */
    float *group_out;       /* (rows, widest output) what these make of them */
    Act acts[2];            /* (CHUNK, widest input) with one digit and with two */
    Scratch *work;          /* (threads) */
    float *out;             /* (LOGIT_ROWS, vocab_size) */
} Buffers;

enum { NO_DRAFTS, WHERE_IT_PAYS, ALWAYS };
static const char *const draft_kinds[] = { "none", "text", "always" };

/* Tokens that may follow, which were evaluated together with one that was drawn: up to `valid`. */
typedef struct {
    int kind;                   /* of draft_kinds */
    int tokens[FEW_ROWS], from; /* at position `from` and behind it; the first was drawn */
    float *logits;      /* (FEW_ROWS, vocab_size) behind each; NULL before the first draft */
    double alone, cost; /* seconds of a step without, the mean of late; and of the last one with */
    float gain;         /* tokens that drafts saved of late, each */
    int steps;          /* without, that were measured */
    int length, wait, rest; /* of the next one; tokens until then, and from one to the next */
    int64_t drafted, right;
} Drafts;

struct llm_session {
    const llm_model *model;
    Arena arena;
    int context, threads, position;
    int valid; /* positions whose keys and values are in the cache; fewer than position only after
                  an interruption */
    int long_rope; /* the valid ones have LONG_ROPE */
    int has_logits;
    int changed; /* the first position whose keys and values the file below does not have */
    uint64_t file_size, file_hash; /* of the file last saved or loaded; 0: there is none */
    struct stat file;
    uint64_t model_hash; /* of the model, once a file was saved or loaded; see fingerprint */
    uint64_t random;
    const volatile int *interrupt;
    const char *const *stops; /* texts, NULL behind the last */
    const tokenizer_template *template;      /* NULL: no chat */
    tokenizer_template *own_template;        /* the same, if it is not the file's */
    char *template_text, *variables, *tools; /* as they were asked for, NULL: not */
    const struct Thoughts *thoughts;         /* what stands around them */
    int built_in; /* the template is */
    int end_mark; /* the token that the template writes behind an answer, -1: none */
    int thinking_asked, shift;
    int64_t now; /* the time that templates are told */
    Turn *turns; /* (n_turns) the conversation so far */
    int n_turns;
    int opened_thought; /* what opens the last turn leaves a thought open */
    Heard heard[2];     /* of the open turn: the answer, its thoughts */
    Marked marks[N_MARKS];
    char warning[160];
    int start, written; /* positions: where the text that is written began, how far it is taken */
    int thinking;       /* it is a thought */
    int skip_space;     /* none was given out since the answer or a thought began */
    int *tokens;         /* (context) the tokens so far */
    float *logits;       /* (vocab_size) after the last token */
    Buffers *b;          /* while it evaluates, else NULL */
    const Format *cache; /* of keys and values */
    State states[MAX_STATES]; /* (n_states) one is of `valid`, if that is not 0 */
    int n_states, answer;     /* the position behind what opens the last answer */
    const float *from; /* while it evaluates: the state before, NULL: at the beginning; and after */
    float *to;
    uint8_t *kv;         /* the KV cache: (context, dim) of each of the model's `kept`, in turn */
    Choice *candidates;     /* (vocab_size) */
    char *piece;            /* bytes of tokens, while they are no whole character */
    size_t n_piece;
    Marked text; /* characters, while they may become a mark or a stop text */
    Drafts drafts;
};

/* The format of that name that can be packed, NULL if there is none. */
static const Format *cache_format(const char *name)
{
    for (size_t i = 0; i < N_FORMATS; i++) {
        if (formats[i].pack && !strcasecmp(formats[i].name, name)) return &formats[i];
    }
    return NULL;
}

/* The first number of a file of a control group, INFINITY where there is none, as for "max". */
static double group_number(const char *folder, const char *name, double *second)
{
    char path[4400];
    double number;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%lf %lf", &number, second) < 1 || number < 0) number = INFINITY;
    if (file) fclose(file);
    return number;
}

static double group_processors(const char *folder)
{
    double period = 100000, ignored, quota = group_number(folder, "cpu.max", &period);
    if (isinf(quota)) { /* version 1 of control groups */
        quota = group_number(folder, "cpu.cfs_quota_us", &ignored);
        period = group_number(folder, "cpu.cfs_period_us", &ignored);
    }
    return isinf(quota) || period <= 0 ? INFINITY : quota / period;
}

static double group_memory(const char *folder)
{
    double ignored;
    return fmin(group_number(folder, "memory.max", &ignored),
                group_number(folder, "memory.limit_in_bytes", &ignored));
}

/* The least limit of the control groups that the process is in and of those around them. Lines are
 * 0::/a/b or, in version 1, 4:cpu,cpuacct:/a/b. */
static double group_limit(const char *controller, double (*limit)(const char *folder))
{
    char line[4096], folder[4352];
    double least = INFINITY;
    FILE *groups = fopen("/proc/self/cgroup", "r");
    while (groups && fgets(line, sizeof line, groups)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        names++, *path++ = 0, path[strcspn(path, "\n")] = 0;
        const char *const roots[] = { *names ? names : ".", *names ? controller : "unified" };
        if (*names && !strstr(names, controller)) continue;
        for (char *end = path + strlen(path); end; end = strrchr(path, '/')) {
            *end = 0;
            for (int i = 0; i < 2; i++) {
                snprintf(folder, sizeof folder, "/sys/fs/cgroup/%.200s%s", roots[i], path);
                least = fmin(least, limit(folder));
            }
        }
    }
    if (groups) fclose(groups);
    return least;
}

/* Bytes of memory that the process may use. */
static double usable_memory(void)
{
    return fmin((double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
                group_limit("memory", group_memory));
}

/* The model's context, or as much of it as takes half of the memory that the process may use. */
static int default_context(const llm_session *s)
{
    const llm_facts *c = &s->model->facts;
    const Kept *all = &s->model->kept[s->model->n_kept];
    double bytes = (double)row_bytes(s->cache, all->before); /* of a position */
    double memory = usable_memory();
    double fits = memory > 0 ? memory / 2 / bytes : c->context;
    return fits < 1 ? 1 : fits < c->context ? (int)fits : c->context;
}

/* The first of the hardware threads of a processor's core, -1 if that is not known. */
static int core_of(int cpu)
{
    char path[96];
    int first = -1;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%d", &first) != 1) first = -1;
    if (file) fclose(file);
    return first;
}

/* Physical cores among the processors of a list such as 0-3,8,10-11. */
static int count_cores(char *list)
{
    char seen[MAX_PROCESSORS] = { 0 };
    int cores = 0;
    do {
        int from = (int)strtol(list, &list, 10);
        int to = *list == '-' ? (int)strtol(list + 1, &list, 10) : from;
        for (int cpu = from; cpu <= to && cpu < MAX_PROCESSORS; cpu++) {
            int first = core_of(cpu);
            if (first < 0 || first >= MAX_PROCESSORS || seen[first]) continue;
            seen[first] = 1;
            cores++;
        }
    } while (*list++ == ',');
    return cores;
}

/* Physical cores that this process may use; a core's second hardware thread brings nothing here. */
static int default_threads(void)
{
    static const char name[] = "Cpus_allowed_list:";
    char line[4096];
    int cores = 0, most = (int)fmin(ceil(group_limit("cpu", group_processors)), MAX_THREADS);
    if (most > most_threads()) most = most_threads();
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (!strncmp(line, name, strlen(name))) cores = count_cores(line + strlen(name));
    }
    if (status) fclose(status);
    return cores > 0 && cores < most ? cores : most;
}

/* The most rows that attention takes together; each has the query heads of one key/value head. */
static int tile_rows(const Layer *w)
{
    int most = ATTEND_HEADS / (w->heads / w->kv_heads);
    return most < ATTEND_ROWS ? most : ATTEND_ROWS;
}

/* How many parts attention may leave: those of spans of a few rows, or of tiles by threads. */
static size_t parts_of(const llm_session *s)
{
    size_t most = 0;
    for (int l = 0; l < s->model->facts.n_layers; l++) {
        const Layer *w = &s->model->layers[l];
        if (!w->heads) continue;
        size_t heads = (size_t)w->heads, few = FEW_ROWS * heads * (size_t)(s->context / SPAN + 1);
        size_t tile = (size_t)s->threads * (size_t)tile_rows(w) * heads / (size_t)w->kv_heads;
        size_t parts = few > tile ? few : tile;
        most = parts > most ? parts : most;
    }
    return most;
}

static void free_buffers(Buffers *b)
{
    if (b) release(&b->arena);
    free(b);
}

/* Those of which each row of a batch has some numbers. */
static void take_floats(Buffers *b, const llm_model *m, int widest)
{
    const llm_facts *c = &m->facts;
    int heads = m->rank ? c->n_heads : 0, gated = m->arch->gate ? m->a_dim : 0,
        apart = m->experts_apart ? c->dim : 0, grouped = c->n_experts || heads ? widest : 0,
        beside = m->arch->gate == BESIDE_QUERY ? 2 * m->q_dim : 0;
    const struct {
        float **at;
        int each; /* numbers for each row */
    } floats[] = {
        { &b->x, c->dim },
        { &b->h, c->dim },
        { &b->change, c->dim },
        { &b->q, m->q_dim },
        { &b->k, m->k_dim },
        { &b->v, m->v_dim },
        { &b->a, m->a_dim },
        { &b->q_gated, beside },
        { &b->gates, gated },
        { &b->cos[0], m->n_rot / 2 },
        { &b->cos[1], m->n_rot / 2 },
        { &b->sin[0], m->n_rot / 2 },
        { &b->sin[1], m->n_rot / 2 },
        { &b->q_low, m->q_rank },
        { &b->latent, m->rank + m->n_rot },
        { &b->latent_normed, m->rank },
        { &b->whole, m->value_at < 0 ? heads * (m->plain_dim + m->value_dim) : 0 },
        { &b->q_plain, heads * (m->plain_dim + m->n_rot) },
        { &b->found, heads * m->latent_value },
        { &b->mixed, m->channels },
        { &b->conved, m->channels },
        { &b->z, m->inner },
        { &b->o, m->inner },
        { &b->decay, m->state_heads },
        { &b->beta, m->state_heads },
        { &b->gate, m->widest },
        { &b->scores, c->n_experts },
        { &b->shared, 1 },
        { &b->aside, apart },
        { &b->routed, apart },
        { &b->group_in, grouped },
        { &b->group_out, grouped },
        { &b->injections, m->n_inject * c->n_layers },
        { &b->injected, m->n_inject },
    };
    for (size_t i = 0; i < ARRAY_LEN(floats); i++) {
        *floats[i].at = take(&b->arena, CHUNK, (size_t)floats[i].each * sizeof(float));
    }
}

/* Buffers for a session, NULL when out of memory. */
static Buffers *new_buffers(const llm_session *s)
{
    Buffers *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    const llm_model *m = s->model;
    const llm_facts *c = &m->facts;
    Arena *arena = &b->arena;
    int inputs[] = { c->dim,  m->o_dim,     m->widest, m->q_rank,
                     m->rank, m->plain_dim, m->inner,  m->n_inject };
    int widest = 0;
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) at_least(&widest, inputs[i]);
    take_floats(b, m, widest);
    b->threads = s->threads;
    b->n_parts = parts_of(s);
    b->found_in = take(arena, b->n_parts, (size_t)m->found_dim * sizeof *b->found_in);
    b->parts = take(arena, b->n_parts, sizeof *b->parts);
    b->rows = take(arena, CHUNK, sizeof *b->rows);
    b->table = take(arena, (size_t)(m->n_inject * c->n_layers), sizeof *b->table);
    b->chosen = take(arena, CHUNK, (size_t)c->n_experts_used * sizeof *b->chosen);
    b->routes = take(arena, CHUNK, (size_t)c->n_experts_used * sizeof *b->routes);
    b->starts = take(arena, (size_t)c->n_experts + 1, sizeof *b->starts);
    size_t pieces = whole_pieces(widest) / BAND_COLS, scales = pieces * BAND_COLS / 16;
    for (size_t i = 0; i < 2; i++) {
        b->acts[i] = (Act){ { take(arena, pieces * (i + 1), sizeof(Tiles)) },
                            take(arena, CHUNK, scales * sizeof(float)),
                            take(arena, CHUNK, scales * sizeof(float)) };
    }
    b->work = take(arena, (size_t)s->threads, sizeof *b->work);
    b->out = take(arena, LOGIT_ROWS, (size_t)c->vocab_size * sizeof *b->out);
    if (!arena->failed) return b;
    free_buffers(b);
    return NULL;
}

/* Puts buffers where others find them, or frees them where there is no place. */
static void keep_buffers(const llm_model *m, Buffers *b)
{
    _Atomic(Buffers *) *spare = (_Atomic(Buffers *) *)(uintptr_t)m->spare;
    for (int i = 0; i < MAX_SPARE && b; i++) {
        Buffers *nothing = NULL;
        if (atomic_compare_exchange_strong(&spare[i], &nothing, b)) b = NULL;
    }
    free_buffers(b);
}

/* Gives a session buffers to evaluate with. Nothing waits here, so that a child after fork() can't
 * either. */
static int borrow(llm_session *s)
{
    _Atomic(Buffers *) *spare = (_Atomic(Buffers *) *)(uintptr_t)s->model->spare;
    for (int i = 0; i < MAX_SPARE && !s->b; i++) {
        Buffers *b = atomic_exchange(&spare[i], NULL);
        if (b && b->threads >= s->threads && b->n_parts >= parts_of(s))
            s->b = b;
        else
            free_buffers(b); /* the new ones will do for its sessions too */
    }
    if (!s->b) s->b = new_buffers(s);
    return s->b ? 0 : fail("out of memory for the buffers of an evaluation");
}

static void give_back(llm_session *s)
{
    if (s->b) keep_buffers(s->model, s->b);
    s->b = NULL;
}

/* How many states a session keeps: few of large ones. */
static int states_that_fit(const llm_model *m)
{
    int n = STATE_MEMORY / ((int)sizeof(float) * m->state + 1);
    return n < MIN_STATES ? MIN_STATES : n < MAX_STATES ? n : MAX_STATES;
}

/* What a session has for itself. */
static void session_memory(llm_session *s)
{
    const llm_model *m = s->model;
    const llm_facts *c = &m->facts;
    size_t vocab = (size_t)c->vocab_size;
    s->tokens = take(&s->arena, (size_t)s->context, sizeof *s->tokens);
    s->logits = take(&s->arena, vocab, sizeof *s->logits);
    s->kv = take(&s->arena, (size_t)s->context, row_bytes(s->cache, m->kept[m->n_kept].before));
    if (m->state) s->n_states = states_that_fit(m);
    for (int i = 0; i < s->n_states; i++) {
        s->states[i].numbers = take(&s->arena, (size_t)m->state, sizeof(float));
    }
    s->candidates = take(&s->arena, vocab, sizeof *s->candidates);
    s->piece = take(&s->arena, m->max_piece + 8, 1);
    /* a bad byte becomes the three of U+FFFD */
    s->text.text = take(&s->arena, 3 * (m->max_piece + 8) + 2 * MAX_STOP, 1);
    s->text.kinds = take(&s->arena, 3 * (m->max_piece + 8) + 2 * MAX_STOP, 1);
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

/* Whether the options make sense for the model; sets what they choose by name. */
static int choose(llm_session *s, const llm_options *o)
{
    const llm_model *m = s->model;
    if (!m->facts.has_weights) return fail("the model file has a vocabulary but no weights");
    if (o->context < 0 || o->context > MAX_CONTEXT || o->threads < 0 || o->threads > MAX_THREADS) {
        return fail("context %d and threads %d, expected 0 to %d and 0 to %d", o->context,
                    o->threads, MAX_CONTEXT, MAX_THREADS);
    }
    s->cache = cache_format(o->cache ? o->cache : "f16");
    if (!s->cache) return fail("a cache of %s, expected f16, f32 or q8_0", o->cache);
    for (int i = 0; i < m->n_kept; i++) {
        if (m->kept[i].dim % s->cache->block == 0) continue;
        return fail("a cache of %s, but the heads have %d dimensions, no multiple of 32", o->cache,
                    m->kept[i].dim);
    }
    if (m->positions.data && o->context > m->facts.context) {
        return fail("a context of %d, but the model has learned %d positions", o->context,
                    m->facts.context);
    }
    s->drafts = (Drafts){ .kind = -1, .length = 2 };
    for (int i = 0; i < (int)ARRAY_LEN(draft_kinds); i++) {
        if (!strcmp(draft_kinds[i], o->draft ? o->draft : "text")) s->drafts.kind = i;
    }
    if (s->drafts.kind < 0) return fail("drafts of %s, expected none, text or always", o->draft);
    for (const char *const *stop = o->stops; stop && *stop; stop++) {
        if (!**stop || strlen(*stop) >= MAX_STOP) {
            return fail("a stop text of %zu bytes, expected 1 to %d", strlen(*stop), MAX_STOP - 1);
        }
    }
    return choose_template(s, o);
}

llm_session *llm_session_new(const llm_model *m, const llm_options *options)
{
    if (lacks(m, "model")) return NULL;
    llm_options o = options ? *options : (llm_options){ 0 };
    llm_session *s = calloc(1, sizeof *s);
    if (!s) {
        fail("out of memory");
        return NULL;
    }
    s->model = m;
    if (choose(s, &o)) {
        llm_session_free(s);
        return NULL;
    }
    s->context = o.context ? o.context : default_context(s);
    s->threads = o.threads ? o.threads : default_threads();
    s->random = spread_seed(o.seed);
    s->interrupt = o.interrupt;
    s->stops = o.stops;
    s->shift = o.shift;
    session_memory(s);
    find_end(s);
    if (s->arena.failed || borrow(s)) {
        fail("out of memory for a context of %d", s->context);
        llm_session_free(s);
        return NULL;
    }
    give_back(s);
    return s;
}

/* Number i of what the cache keeps, and the bytes that it has of a position. */
static uint8_t *kept(const llm_session *s, int i, size_t *bytes)
{
    const Kept *k = &s->model->kept[i];
    *bytes = row_bytes(s->cache, k->dim);
    return s->kv + (size_t)s->context * row_bytes(s->cache, k->before);
}

static void free_turn(Turn *t)
{
    free(t->role);
    free(t->text);
    free(t->thoughts);
}

static void free_turns(Turn *turns, int n)
{
    for (int i = 0; i < n; i++) free_turn(&turns[i]);
    free(turns);
}

void llm_session_free(llm_session *s)
{
    if (!s) return;
    free_turns(s->turns, s->n_turns);
    tokenizer_template_free(s->own_template);
    for (int i = 0; i < 2; i++) free(s->heard[i].text);
    free(s->drafts.logits);
    release(&s->arena);
    free(s);
}

/* A copy with texts of its own, or NULL. */
static Turn *copy_turns(const Turn *turns, int n)
{
    Turn *copy = calloc((size_t)n + 1, sizeof *copy);
    int failed = 0;
    for (int i = 0; copy && i < n; i++) {
        const Turn *t = &turns[i];
        copy[i] = (Turn){ strdup(t->role), t->text ? strdup(t->text) : NULL,
                          t->thoughts ? strdup(t->thoughts) : NULL, t->begin, t->end };
        failed |= !copy[i].role || !copy[i].text != !t->text || !copy[i].thoughts != !t->thoughts;
    }
    if (copy && failed) free_turns(copy, n), copy = NULL;
    return copy;
}

/* Adds to what was heard in the open turn. */
static int hear(Heard *h, const char *text, size_t len)
{
    if (h->room - h->n < len) {
        size_t room = 2 * (h->n + len);
        char *more = realloc(h->text, room);
        if (!more) return fail("out of memory for an answer of %zu bytes", h->n + len);
        h->text = more;
        h->room = room;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i]) h->text[h->n++] = text[i]; /* messages can't hold zeros */
    }
    return 0;
}

/* The state of the text that is written. */
static void copy_writing(llm_session *to, const llm_session *s)
{
    to->start = s->start, to->written = s->written;
    to->thinking = s->thinking, to->skip_space = s->skip_space;
    to->n_piece = s->n_piece, to->text.n = s->text.n;
    memcpy(to->piece, s->piece, s->n_piece);
    memcpy(to->text.text, s->text.text, s->text.n);
    memcpy(to->text.kinds, s->text.kinds, s->text.n);
}

llm_session *llm_fork(const llm_session *s)
{
    if (lacks(s, "session")) return NULL;
    const llm_facts *c = &s->model->facts;
    llm_options same = { .context = s->context,
                         .threads = s->threads,
                         .cache = s->cache->name,
                         .chat_template = s->template_text,
                         .variables = s->variables,
                         .tools = s->tools,
                         .thinking = s->thinking_asked,
                         .shift = s->shift,
                         .draft = draft_kinds[s->drafts.kind],
                         .stops = s->stops,
                         .interrupt = s->interrupt };
    llm_session *t = llm_session_new(s->model, &same);
    if (!t) return NULL;
    if (!(t->turns = copy_turns(s->turns, s->n_turns))) {
        fail("out of memory");
        llm_session_free(t);
        return NULL;
    }
    t->n_turns = s->n_turns, t->opened_thought = s->opened_thought, t->now = s->now;
    t->position = s->position;
    t->valid = s->valid, t->long_rope = s->long_rope;
    t->has_logits = s->has_logits;
    t->random = s->random;
    memcpy(t->tokens, s->tokens, (size_t)s->position * sizeof *s->tokens);
    for (int i = 0; i < 2; i++) {
        if (!s->heard[i].n || !hear(&t->heard[i], s->heard[i].text, s->heard[i].n)) continue;
        llm_session_free(t);
        return NULL;
    }
    copy_writing(t, s);
    memcpy(t->logits, s->logits, (size_t)c->vocab_size * sizeof *s->logits);
    for (int i = 0; i < s->model->n_kept; i++) {
        size_t bytes;
        uint8_t *to = kept(t, i, &bytes);
        memcpy(to, kept(s, i, &bytes), (size_t)s->valid * bytes);
    }
    t->answer = s->answer;
    for (int i = 0; i < s->n_states; i++) {
        t->states[i].position = s->states[i].position;
        if (!s->states[i].position) continue;
        memcpy(t->states[i].numbers, s->states[i].numbers, (size_t)s->model->state * sizeof(float));
    }
    return t;
}

const char *llm_warning(const llm_session *s)
{
    return lacks(s, "session") ? NULL : s->warning;
}

int llm_position(const llm_session *s)
{
    if (lacks(s, "session")) return -1;
    return s->position;
}

int llm_context(const llm_session *s)
{
    if (lacks(s, "session")) return -1;
    return s->context;
}

int llm_threads(const llm_session *s)
{
    if (lacks(s, "session")) return -1;
    return is_child ? 1 : s->threads;
}

int64_t llm_drafted(const llm_session *s, int64_t *right)
{
    if (lacks(s, "session")) return -1;
    if (right) *right = s->drafts.right;
    return s->drafts.drafted;
}

const int *llm_tokens(const llm_session *s)
{
    if (lacks(s, "session")) return NULL;
    return s->tokens;
}

/* Takes what the cache has from a position on for wrong, and where layers have a state, what it has
 * behind the last one that is known of the positions before. */
static void invalidate(llm_session *s, int position)
{
    int known = s->n_states ? 0 : position;
    for (int i = 0; i < s->n_states; i++) {
        if (s->states[i].position > position) s->states[i].position = 0;
        at_least(&known, s->states[i].position);
    }
    if (known < s->valid) s->valid = known;
    if (known < s->changed) s->changed = known;
}

/* The state that is written over next: a free one; else the one whose neighbours are nearest to
 * each other, so that those which stay are spread over the text. The one of `valid` stays, and that
 * behind which the last answer begins, where another one will begin if this one is taken back. */
static State *next_state(llm_session *s)
{
    State *best = NULL;
    int least = INT_MAX;
    for (int i = 0; i < s->n_states; i++) {
        State *own = &s->states[i];
        int before = 0, behind = INT_MAX;
        if (own->position == 0) return own;
        if (own->position == s->valid || own->position == s->answer) continue;
        for (int j = 0; j < s->n_states; j++) {
            int other = s->states[j].position;
            if (other < own->position && other > before) before = other;
            if (other > own->position && other < behind) behind = other;
        }
        if (behind - before < least) least = behind - before, best = own;
    }
    return best;
}

/* The state behind `valid` positions, NULL if these or states are none. */
static const float *state_of_valid(const llm_session *s)
{
    for (int i = 0; i < s->n_states && s->valid > 0; i++) {
        if (s->states[i].position == s->valid) return s->states[i].numbers;
    }
    return NULL;
}

/* Sets from and to for an evaluation of the tokens behind `valid`. Returns the state that will be
 * that of the position behind them. */
static State *begin_state(llm_session *s)
{
    s->from = state_of_valid(s);
    State *next = s->n_states ? next_state(s) : NULL;
    if (next) next->position = 0, s->to = next->numbers;
    return next;
}

/* Forgets what comes from position on; turns are the caller's business. */
static void cut(llm_session *s, int position)
{
    if (position < s->position) s->has_logits = 0;
    invalidate(s, position);
    s->position = position;
}

int llm_rewind(llm_session *s, int position)
{
    if (lacks(s, "session")) return -1;
    if (position < 0 || position > s->position) {
        return fail("cannot go to position %d, expected 0 to %d", position, s->position);
    }
    if (position == s->position) return 0;
    int turns = turns_until(s, position);
    cut(s, position);
    keep_turns(s, turns);
    return 0;
}

void llm_seed(llm_session *s, uint64_t seed)
{
    if (lacks(s, "session")) return;
    s->random = spread_seed(seed);
}

const float *llm_logits(const llm_session *s)
{
    if (lacks(s, "session")) return NULL;
    if (s->has_logits) return s->logits;
    fail("there are no logits: nothing was evaluated since the session was made or rewound");
    return NULL;
}

/* ==== 6. Math ====================================================================================
 * The steps of a layer, portable and complete. Legend: x residual stream, h hidden, q k v a
 * attention's queries, keys, values and result, n rows of the batch, l layer. By far the most time
 * is spent in matmul. What a processor can do faster with instructions of its own goes through the
 * row of isas[] in use. */

/* y(t, r) = the products of n rows of x, or of what they became, and `count` rows of w from row
 * `first` on; y has a row of BAND numbers for each t. `many`, whole bands of them. */
typedef void Few(FloatBand *y, const Mat *w, const float *x, const Act *a, int n, int first,
                 int count);
typedef void Many(Scratch *work, FloatBand (*y)[CHUNK], const Mat *w, const float *x, const Act *a,
                  int n, int first, int count);

/* y(t, r) += sum over k of w(k, r) x(t, k) for `bands` bands of rows r, each of which begins `band`
 * numbers after the one before it; matrices with stride ld begin a new row every ld numbers. */
typedef void Gemm(Scratch *work, float *y, size_t ldy, const float *w, size_t ldw, size_t band,
                  int bands, const float *x, size_t ldx, int cols, int n);

/* To add one: what it does better, in section 13, a row in isas[] there. */
typedef struct {
    const char *name;
    int (*usable)(void);
    Few *few;   /* up to FEW_ROWS rows of x, each with the sums that it has alone: they wait for
                   weights, which memory gives slowly */
    Many *many; /* more of them, for which a band is unpacked once: what counts is arithmetic */
    /* Row `row` of x becomes what they take, with so many digits; NULL: they take x as it is. */
    void (*prepare)(Act *to, const float *x, int row, int cols, int digits);
    /* The same for TILE_ROWS rows of x and more; NULL: it is done by the others. */
    Many *tiles;
    void (*prepare_tiles)(Act *to, const float *x, int row, int cols, int digits);
    /* to(bytes / 4) = the words of a band whose rows begin every `stride` bytes. Reads, and writes,
     * up to 63 bytes more. */
    void (*interleave)(Words *to, const uint8_t *rows, size_t stride, int bytes);
    /* y(t, 0..BAND) += sum over k of w(k, 0..BAND) x(t, k); matrices with stride ld begin a new row
     * every ld numbers */
    void (*gemm)(float *y, size_t ldy, const float *w, size_t ldw, const float *x, size_t ldx,
                 int cols, int n);
    /* For attention of TILE_ROWS rows and more: bands of w become in place what gemm_tiles takes,
     * with columns up to a multiple of 32. NULL: there are no such products. */
    void (*make_pairs)(float *w, size_t ldw, size_t band, int bands, int cols);
    Gemm *gemm_tiles;
    /* See softmax_block and activate_row. */
    float (*softmax)(Softmax *f, float *scores, int length, int visible, float scale);
    void (*activate)(int kind, float *gate, const float *up, int n);
    /* to(k, 0..BAND) = decay w(k, 0..BAND) + x(k) u(0..BAND); to may be w */
    void (*outer)(float *to, const float *w, const float *x, const float *u, float decay, int cols);
    void (*unpack_f16)(const void *row, float *y, int n);
    void (*pack_f16)(void *row, const float *x, int n);
} Isa;

static const Isa *_Atomic kernels; /* picked when a model is opened, the same each time */

typedef float F32x4 __attribute__((vector_size(16), aligned(4), may_alias));

/* Unpacks and packs n numbers of a row in format f; F16 is what a processor may have instructions
 * for. */
static void unpack(const Format *f, const void *row, float *y, int n)
{
    (f == &formats[F16] ? kernels->unpack_f16 : f->unpack)(row, y, n);
}

static void pack(const Format *f, void *row, const float *x, int n)
{
    (f == &formats[F16] ? kernels->pack_f16 : f->pack)(row, x, n);
}

/* Where column k of a row is; a block begins there. */
static const uint8_t *weights_at(const Mat *w, int row, int k)
{
    return w->data + (size_t)row * row_bytes(w->format, w->cols) + row_bytes(w->format, k);
}

/* The columns of a matrix that are unpacked at once. */
static int piece(const Mat *w, int k, int most)
{
    return w->cols - k < most ? w->cols - k : most;
}

static float dot_portable(const float *w, const float *x, int cols)
{
    F32x4 sum[4] = { { 0 } };
    int k = 0;
    for (; k + 16 <= cols; k += 16) {
        for (int i = 0; i < 4; i++) {
            sum[i] += *(const F32x4 *)(w + k + 4 * i) * *(const F32x4 *)(x + k + 4 * i);
        }
    }
    F32x4 four = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    float all = (four[0] + four[1]) + (four[2] + four[3]);
    for (; k < cols; k++) all += w[k] * x[k];
    return all;
}

/* One row of weights after the other, unpacked in pieces, each times all rows of x. */
static void few_portable(FloatBand *y, const Mat *w, const float *x, const Act *a, int n, int first,
                         int count)
{
    float weights[BAND_COLS];
    (void)a;
    for (int r = 0; r < count; r++) {
        for (int t = 0; t < n; t++) y[t][r] = 0;
        for (int k = 0; k < w->cols; k += BAND_COLS) {
            int cols = piece(w, k, BAND_COLS);
            unpack(w->format, weights_at(w, first + r, k), weights, cols);
            for (int t = 0; t < n; t++) {
                y[t][r] += dot_portable(weights, x + (size_t)t * (size_t)w->cols + k, cols);
            }
        }
    }
}

static void interleave_portable(Words *to, const uint8_t *rows, size_t stride, int bytes)
{
    for (int r = 0; r < BAND; r++, rows += stride) {
        for (int i = 0; 4 * i < bytes; i++) memcpy(&to[i][r], rows + 4 * i, 4);
    }
}

/* Sixteen rows of the band and two of x at a time: the sums stay in registers. */
static void gemm_portable(float *y, size_t ldy, const float *w, size_t ldw, const float *x,
                          size_t ldx, int cols, int n)
{
    for (int t = 0; t < n; t += 2, y += 2 * ldy, x += 2 * ldx) {
        const float *x1 = t + 1 < n ? x + ldx : x;
        for (int r = 0; r < BAND; r += 16) {
            F32x4 sum[4][2] = { { { 0 } } };
            for (int k = 0; k < cols; k++) {
                for (int i = 0; i < 4; i++) {
                    F32x4 a = *(const F32x4 *)(w + (size_t)k * ldw + r + 4 * i);
                    sum[i][0] += a * x[k];
                    sum[i][1] += a * x1[k];
                }
            }
            for (int i = 0; i < 4; i++) {
                *(F32x4 *)(y + r + 4 * i) += sum[i][0];
                if (t + 1 < n) *(F32x4 *)(y + ldy + r + 4 * i) += sum[i][1];
            }
        }
    }
}

/* A Gemm of single bands. */
static void gemm_by_band(Scratch *work, float *y, size_t ldy, const float *w, size_t ldw,
                         size_t band, int bands, const float *x, size_t ldx, int cols, int n)
{
    (void)work;
    for (int i = 0; i < bands; i++, y += BAND, w += band) {
        kernels->gemm(y, ldy, w, ldw, x, ldx, cols, n);
    }
}

/* Columns k and on of some rows as floats, side by side. */
static void unpack_band(Scratch *work, const Mat *w, int k, int cols, int first, int count)
{
    for (int r = 0; r < count; r++) {
        unpack(w->format, weights_at(w, first + r, k), work->rows[r], cols);
    }
    kernels->interleave((Words *)work->lanes, (const uint8_t *)work->rows, sizeof *work->rows,
                        cols * 4);
}

/* The weights are unpacked in pieces small enough for the L1 cache, each used for all rows of x. */
static void many_portable(Scratch *work, FloatBand (*y)[CHUNK], const Mat *w, const float *x,
                          const Act *a, int n, int first, int count)
{
    (void)a;
    memset(y, 0, (size_t)n * sizeof **y);
    for (int k = 0; k < w->cols; k += BAND_COLS) {
        int cols = piece(w, k, BAND_COLS);
        unpack_band(work, w, k, cols, first, count);
        kernels->gemm(y[0][0], BAND, work->lanes[0], BAND, x + k, (size_t)w->cols, cols, n);
    }
}

/* A product to be: y(n, rows) = x(n, cols) w^T + bias, of n rows of x from row `from` on; with
 * `up`, y = activation(x w^T + bias, x up^T + bias of up), where up may lack data. */
typedef struct {
    float *y;
    Mat w; /* without data: nothing is done */
    int from, n;
    const Mat *up;
} Product;

/* Products of one x that are done together. */
typedef struct {
    llm_session *s;
    const float *x;
    const Product *products;
    int cols, digits;
    int tiles; /* whether they are done in tiles */
    int all, threads, big, small; /* bands; those of the first runs, one a thread, and of others */
} Job;

static int runs_on_tiles(int n)
{
    return n >= TILE_ROWS && kernels->tiles;
}

/* Which of the two Acts rows of x become for a matrix of that format, -1: none. */
static int act_of(const Format *f, int tiles)
{
    return tiles ? f->parts - 1 : kernels->prepare && f->bits ? digits_of(f) - 1 : -1;
}

/* The rows of x from row `from` on, a multiple of 16 for tiles. */
static Act act_from(const Act *a, int digits, int cols, int from, int tiles)
{
    size_t row = (size_t)from, ldx = whole_pieces(cols);
    if (tiles) return (Act){ { .tiles = (Tiles *)(void *)((*a->tiles) + row / 16) }, NULL, NULL };
    return (Act){ { a->q + row * (size_t)digits * ldx },
                  a->d + row * ldx / 16,
                  a->sums + row * ldx / 16 };
}

/* Rows first to first + count of a matrix, a multiple of bands or its last ones. */
static void bands(Scratch *work, FloatBand (*y)[CHUNK], const Job *job, const Product *p,
                  const Mat *w, int first, int count)
{
    int act = act_of(w->format, job->tiles);
    const float *x = job->x + (size_t)p->from * (size_t)w->cols;
    Act a = { { NULL }, NULL, NULL };
    if (act >= 0) a = act_from(&job->s->b->acts[act], act + 1, w->cols, p->from, job->tiles);
    if (job->tiles) {
        kernels->tiles(work, y, w, x, &a, p->n, first, count);
        return;
    }
    for (int r = 0; r < count; r += BAND, y++) {
        int rows = count - r < BAND ? count - r : BAND;
        if (p->n <= FEW_ROWS) {
            kernels->few(*y, w, x, &a, p->n, first + r, rows);
        } else {
            kernels->many(work, y, w, x, &a, p->n, first + r, rows);
        }
    }
}

/* Adds what the rows of a matrix have for bias. */
static void add_bias(float *y, const Mat *w, int first, int count)
{
    for (int r = 0; w->bias && r < count; r++) y[r] += w->bias[first + r];
}

/* The same rows of a product, up to where its result is. */
static void product_rows(Scratch *work, const Job *job, const Product *p, int first, int count)
{
    bands(work, work->y[0], job, p, &p->w, first, count);
    if (p->up && p->up->data) bands(work, work->y[1], job, p, p->up, first, count);
    for (int r = 0; r < count; r += BAND) {
        int rows = count - r < BAND ? count - r : BAND, at = first + r;
        for (int t = 0; t < p->n; t++) {
            float *y = work->y[0][r / BAND][t], *up = work->y[1][r / BAND][t];
            add_bias(y, &p->w, at, rows);
            if (p->up) {
                add_bias(up, p->up, at, rows);
                kernels->activate(job->s->model->arch->activation, y, up, rows);
            }
            float *to = p->y + (size_t)t * (size_t)p->w.rows + at;
            if (rows == BAND) { /* a few moves, as the size is known */
                memcpy(to, y, sizeof(FloatBand));
            } else {
                memcpy(to, y, (size_t)rows * sizeof *y);
            }
        }
    }
}

/* Row t of x becomes what the kernels take. */
static void prepare_row(void *with, int t, int thread)
{
    const Job *job = with;
    (void)thread;
    (job->tiles ? kernels->prepare_tiles : kernels->prepare)(&job->s->b->acts[job->digits - 1],
                                                             job->x + (size_t)t * (size_t)job->cols,
                                                             t, job->cols, job->digits);
}

/* Run number `piece` of the bands of all products. */
static void run_of_bands(void *with, int piece, int thread)
{
    const Job *job = with;
    const Product *p = job->products;
    int behind = job->threads * job->big + (piece - job->threads) * job->small;
    int first = piece < job->threads ? piece * job->big : behind;
    int count = piece < job->threads ? job->big : job->small;
    if (count > job->all - first) count = job->all - first;
    while (count > 0) {
        while (first * BAND >= p->w.rows) first -= bands_of(p->w.rows), p++;
        int most = job->tiles || p->n <= FEW_ROWS ? RUN_BANDS : 1;
        int now = count < most ? count : most, left = p->w.rows - first * BAND;
        if (now * BAND > left) now = bands_of(left);
        product_rows(&job->s->b->work[thread], job, p, first * BAND,
                     left < now * BAND ? left : now * BAND);
        first += now, count -= now;
    }
}

/* Products of x(n, cols) with several matrices of as many columns. Each thread begins with a long
 * run of bands, for memory to stream; short ones that go to whoever is free make up for a slow
 * core. */
static void matmul(llm_session *s, const float *x, int n, const Product *p, int products)
{
    int all = 0, threads = s->threads, cols = p->w.cols, wanted[2] = { 0 }, rows = 0, aligned = 1;
    double work = 0;
    for (int i = 0; i < products; i++) {
        all += bands_of(p[i].w.rows);
        rows += p[i].n;
        aligned &= p[i].from % 16 == 0;
    }
    Job job = { s, x, p, .cols = cols,
                .tiles = aligned && runs_on_tiles(rows / products) };
    for (int i = 0; i < 2 * products; i++) {
        const Mat *w = i % 2 ? p[i / 2].up : &p[i / 2].w;
        int act = w && w->data ? act_of(w->format, job.tiles) : -1;
        if (act >= 0) wanted[act] = 1;
        if (w && w->data) work += (double)row_bytes(w->format, cols) * w->rows * p[i / 2].n;
    }
    if (work < MIN_WORK) threads = 1;
    for (job.digits = 1; job.digits <= 2; job.digits++) {
        if (wanted[job.digits - 1]) share(n < MIN_ROWS ? 1 : threads, n, prepare_row, &job);
    }
    job.all = all, job.threads = threads;
    job.big = all * 3 / 4 / threads, job.small = all / (16 * threads) + 1;
    share(threads, threads + (all - job.big * threads + job.small - 1) / job.small, run_of_bands,
          &job);
}

/* One product of all n rows of x. */
static void multiply(llm_session *s, float *y, const Mat *w, const float *x, int n)
{
    matmul(s, x, n, &(Product){ y, *w, 0, n, NULL }, 1);
}

/* The rows that n rows take in a group of several experts' or heads' rows: where there are `usual`
 * ones on average, enough for tiles, each begins where a tile can. */
static int spaced(int n, int usual)
{
    return runs_on_tiles(usual) ? (n + 15) / 16 * 16 : n;
}

/* Multiplies each head of x by its own matrix. A head begins every x_head numbers, n * heads of
 * them; so do those of y. */
static void by_head(llm_session *s, float *y, int y_head, const float *x, int x_head, const Mat *w,
                    int heads, int n)
{
    int step = spaced(n, n), most = CHUNK / step;
    Product p[MAX_PRODUCTS];
    if (most > MAX_PRODUCTS) most = MAX_PRODUCTS;
    for (int first = 0; first < heads; first += most) {
        int count = heads - first < most ? heads - first : most;
        for (int g = 0; g < count; g++) {
            p[g] = (Product){ s->b->group_out + (size_t)(g * step) * (size_t)w->rows, w[first + g],
                              g * step, n, NULL };
            for (int t = 0; t < n; t++) {
                memcpy(s->b->group_in + (size_t)(g * step + t) * (size_t)w->cols,
                       x + (size_t)(t * heads + first + g) * (size_t)x_head,
                       (size_t)w->cols * sizeof *x);
            }
        }
        matmul(s, s->b->group_in, count * step, p, count);
        for (int i = 0; i < count * n; i++) {
            int g = i / n, t = i % n;
            memcpy(y + (size_t)(t * heads + first + g) * (size_t)y_head,
                   p[g].y + (size_t)t * (size_t)w->rows, (size_t)w->rows * sizeof *y);
        }
    }
}

/* The sum of (x - mean)^power; as eight sums, which don't wait for each other. */
BODY double total(const float *x, int n, double mean, int power)
{
    double sums[8] = { 0 }, sum = 0;
    for (int i = 0; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            double d = x[i + j] - mean;
            sums[j] += power == 1 ? d : d * d;
        }
    }
    for (int i = n / 8 * 8; i < n; i++) {
        double d = x[i] - mean;
        sums[i % 8] += power == 1 ? d : d * d;
    }
    for (int j = 0; j < 8; j++) sum += sums[j];
    return sum;
}

/* RMSNorm (arxiv.org/abs/1910.07467): y = x / sqrt(mean(x^2) + eps) weight. LayerNorm
 * (arxiv.org/abs/1607.06450) subtracts the mean of x first and may add a bias. y may be x. */
static void norm_vector(const llm_model *m, float *y, const float *x, const Norm *w)
{
    int width = w->width;
    for (int at = 0; at < w->length; at += width) {
        double mean = m->centered ? total(x + at, width, 0, 1) / width : 0;
        /* a mean that is known to be 0 costs nothing */
        double square = (mean != 0 ? total(x + at, width, mean, 2) : total(x + at, width, 0, 2)) /
                        width;
        float eps = w->eps > 0 ? w->eps : m->norm_eps;
        float scale = 1 / sqrtf((float)square + eps), middle = (float)mean;
        for (int i = at; i < at + width; i++) {
            y[i] = (x[i] - middle) * scale * w->weight[i] + (w->bias ? w->bias[i] : 0);
        }
    }
}

/* What is done with each row of a batch by itself: y(n, dim) and x. */
typedef struct {
    const llm_session *s;
    float *y;
    const float *x;
    const Norm *norm;
    const Layer *layer;
    int dim, kind;
    float scale;
} Rowwise;

static void by_row(const Rowwise *rows, int n, Task *task)
{
    share(n < MIN_ROWS ? 1 : rows->s->threads, n, task, (void *)(uintptr_t)rows);
}

static void norm_row(void *with, int t, int thread)
{
    const Rowwise *r = with;
    (void)thread;
    for (int at = 0; at < r->dim; at += r->norm->length) {
        size_t first = (size_t)t * (size_t)r->dim + (size_t)at;
        norm_vector(r->s->model, r->y + first, r->x + first, r->norm);
    }
}

/* The norm of y(n, dim) = x, whose rows hold one or several of the norm's vectors. */
static void norm(const llm_session *s, float *y, const float *x, const Norm *w, int n, int dim)
{
    if (!w->weight && y != x) memcpy(y, x, (size_t)n * (size_t)dim * sizeof *y);
    if (w->weight) by_row(&(Rowwise){ s, y, x, .norm = w, .dim = dim }, n, norm_row);
}

/* The rotations of each row's position. */
static void rope_angles(llm_session *s, int n)
{
    const llm_model *m = s->model;
    for (int t = 0; t < n; t++) {
        int kind = s->b->rows[t].session->long_rope ? LONG_ROPE : ROPE;
        const Rope *ropes[] = { &m->ropes[kind], &m->ropes[LOCAL_ROPE] };
        for (int r = 0; r < (m->window ? 2 : 1); r++) {
            float *cos = s->b->cos[r] + t * (m->n_rot / 2),
                  *sin = s->b->sin[r] + t * (m->n_rot / 2);
            for (int i = 0; i < ropes[r]->n_rot / 2; i++) {
                float angle = (float)s->b->rows[t].position * ropes[r]->turns[i];
                cos[i] = cosf(angle) * ropes[r]->scale;
                sin[i] = sinf(angle) * ropes[r]->scale;
            }
        }
    }
}

static void rope_row(void *with, int t, int thread)
{
    const Rowwise *r = with;
    const llm_model *m = r->s->model;
    int kind = r->layer->rope, half = m->ropes[kind].n_rot / 2, step = m->arch->halves ? 1 : 2,
        far = m->arch->halves ? half : 1, head_dim = r->layer->head_dim;
    const float *cos = r->s->b->cos[kind] + t * (m->n_rot / 2),
                *sin = r->s->b->sin[kind] + t * (m->n_rot / 2);
    float *head = r->y + (size_t)t * (size_t)r->dim;
    (void)thread;
    for (int at = 0; at < r->dim; at += head_dim, head += head_dim) {
        for (int i = 0; i < half; i++) {
            float a = head[i * step], b = head[i * step + far];
            head[i * step] = a * cos[i] - b * sin[i];
            head[i * step + far] = a * sin[i] + b * cos[i];
        }
    }
}

/* Rotates the first n_rot dimensions of each head of x(n, heads, head_dim). */
static void rope(float *x, const llm_session *s, const Layer *w, int n, int heads)
{
    if (w->rope < 0) return;
    by_row(&(Rowwise){ s, x, .dim = heads * w->head_dim, .layer = w }, n, rope_row);
}

/* e^x within 2 units in the last place, infinity above 88, 0 below -69: that is no part of a sum
 * with 1, and its products may be denormal, which processors are slow at. A loop over it
 * becomes vector code, as choices are made of bits. x is split into n log 2 + r (Cody and Waite),
 * e^r is a polynomial, and 2^n goes into the exponent. */
BODY float exponential(float x)
{
    float shifted = x * 1.44269504f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float e = 1.9875691500e-4f;
    e = e * r + 1.3981999507e-3f;
    e = e * r + 8.3334519073e-3f;
    e = e * r + 4.1665795894e-2f;
    e = e * r + 1.6666665459e-1f;
    e = e * r + 5.0000001201e-1f;
    e = e * r * r + r + 1;
    uint32_t bits = float_bits(e) + (float_bits(shifted) << 23), large = 0u - (x > 88.0f);
    uint32_t fits = 0u - ((x >= -69.0f) & (x <= 88.0f)), is_nan = 0u - (x != x);
    return bits_float((bits & fits) | (0x7f800000 & large) | is_nan);
}

/* Takes `length` scores of which the first `visible` count, and makes them exp(score - top), the
 * others 0, up to a full band. Returns by how much what was summed up before shrinks. */
BODY float softmax_block(Softmax *f, float *scores, int length, int visible, float scale)
{
    int last = (length + 15) / 16 * 16, top = INT_MIN;
    F32x4 sum[4] = { { 0 } };
    for (int j = 0; j < visible; j++) scores[j] *= scale;
    for (int j = visible; j < last; j++) scores[j] = -INFINITY;
    for (int j = 0; j < last; j++) { /* integers in the order of the floats have no NaN */
        int bits = (int)float_bits(scores[j]), key = bits ^ (bits >> 31 & INT_MAX);
        top = key > top ? key : top;
    }
    float most = bits_float((uint32_t)(top ^ (top >> 31 & INT_MAX)));
    most = f->top > most ? f->top : most;
    for (int j = 0; j < last; j++) scores[j] = exponential(scores[j] - most);
    for (int j = 0; j < last; j += 16) {
        for (int i = 0; i < 4; i++) sum[i] += *(const F32x4 *)(scores + j + 4 * i);
    }
    F32x4 four = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    float shrink = exponential(f->top - most);
    f->sum = f->sum * shrink + ((four[0] + four[1]) + (four[2] + four[3]));
    f->top = most;
    return shrink;
}

/* x sigmoid(a x): SiLU with a = 1. */
BODY float gated(float x, float a)
{
    return x / (1 + exponential(-a * x));
}

/* GELU (arxiv.org/abs/1606.08415) by its usual approximation,
 * x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
BODY float gelu(float x)
{
    return gated(x, 1.5957691216f * (1 + 0.044715f * x * x));
}

static float softplus(float x)
{
    return x > 20 ? x : log1pf(expf(x));
}

/* What stands between the matrices of a feed-forward part (arxiv.org/abs/2002.05202), into gate:
 * SWIGLU silu(gate) up; GEGLU gelu(gate) up; GELU gelu(gate); SWIGLU_OAI, of gpt-oss, bounds both
 * and has (up + 1) instead of up. */
BODY void activate_row(int kind, float *restrict gate, const float *restrict up, int n)
{
    if (kind == SWIGLU) {
        for (int i = 0; i < n; i++) gate[i] = gated(gate[i], 1) * up[i];
    } else if (kind == GEGLU) {
        for (int i = 0; i < n; i++) gate[i] = gelu(gate[i]) * up[i];
    } else if (kind == GELU) {
        for (int i = 0; i < n; i++) gate[i] = gelu(gate[i]);
    } else if (kind == RELU_SQUARED) {
        for (int i = 0; i < n; i++) gate[i] = gate[i] > 0 ? gate[i] * gate[i] : 0 * gate[i];
    } else if (kind == SOFTPLUS) {
        for (int i = 0; i < n; i++) gate[i] = softplus(gate[i]) * up[i];
    } else if (kind == SIGLU) {
        for (int i = 0; i < n; i++) gate[i] = up[i] / (1 + exponential(-gate[i]));
    } else if (kind == SILU) {
        for (int i = 0; i < n; i++) gate[i] = gated(gate[i], 1);
    } else {
        for (int i = 0; i < n; i++) {
            float g = gate[i] > 7 ? 7 : gate[i], u = up[i] > 7 ? 7 : up[i] < -7 ? -7 : up[i];
            gate[i] = gated(g, 1.702f) * (u + 1);
        }
    }
}

BODY void outer_product(float *to, const float *w, const float *x, const float *u, float decay,
                        int cols)
{
    PLAIN_LOOP
    for (int k = 0; k < cols; k++, w += BAND, to += BAND) {
        float sum[BAND];
        for (int i = 0; i < BAND; i++) sum[i] = decay * w[i] + x[k] * u[i];
        memcpy(to, sum, sizeof sum);
    }
}

static void outer_portable(float *to, const float *w, const float *x, const float *u, float decay,
                           int cols)
{
    outer_product(to, w, x, u, decay, cols);
}

static float softmax_portable(Softmax *f, float *scores, int length, int visible, float scale)
{
    return softmax_block(f, scores, length, visible, scale);
}

static void activate_portable(int kind, float *gate, const float *up, int n)
{
    activate_row(kind, gate, up, n);
}

/* x(n) = cap tanh(scale x / cap), which bounds it softly; returns the scale that is left to do. A
 * cap of 0 is none. */
static float cap(float *x, int n, float scale, float cap)
{
    for (int i = 0; i < n && cap > 0; i++) {
        x[i] = cap * (2 / (1 + exponential(-2 * scale / cap * x[i])) - 1);
    }
    return cap > 0 ? 1 : scale;
}

static void sum_row(void *with, int t, int thread)
{
    const Rowwise *r = with;
    float *to = r->y + (size_t)t * (size_t)r->dim;
    const float *from = r->x + (size_t)t * (size_t)r->dim;
    (void)thread;
    for (int i = 0; i < r->dim; i++) to[i] += r->scale * from[i];
}

/* x(n, dim) += scale h */
static void add(const llm_session *s, float *x, const float *h, int n, int dim, float scale)
{
    by_row(&(Rowwise){ s, x, h, .dim = dim, .scale = scale }, n, sum_row);
}

static void gate_row(void *with, int t, int thread)
{
    const Rowwise *r = with;
    size_t at = (size_t)t * (size_t)r->dim;
    (void)thread;
    kernels->activate(r->kind, r->y + at, r->x + at, r->dim);
}

/* y(n, dim) are gates of x: SWIGLU y = x silu(y), SIGLU y = x sigmoid(y), SOFTPLUS
 * y = x softplus(y). */
static void gate(llm_session *s, int kind, float *y, const float *x, int n, int dim)
{
    by_row(&(Rowwise){ s, y, x, .dim = dim, .kind = kind }, n, gate_row);
}

/* ==== 7. Mixers ==================================================================================
 * What lets a position know of others: attention over what the cache keeps of them, by heads or by
 * way of latent vectors; or a state that each position changes, which is all the next one sees. */

/* Queries grow each time that the position has passed the context the model was first made for. */
static void temper(const llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    size_t dim = (size_t)(w->heads * w->head_dim);
    for (int t = 0; t < n && m->query_growth > 0; t++) {
        float passed = (float)(s->b->rows[t].position / m->short_context);
        float scale = 1 + m->query_growth * logf(1 + passed);
        for (size_t i = 0; i < dim; i++) s->b->q[(size_t)t * dim + i] *= scale;
    }
}

/* Where session s keeps a position of key/value head g, and the bytes to the next one. */
static uint8_t *cache_at(const llm_session *s, int values, const Layer *w, int g, int position,
                         size_t *bytes)
{
    uint8_t *data = kept(s, w->kept + 2 * g + values, bytes);
    return data + (size_t)position * *bytes;
}

/* A layer's attention to be, with tiles of rows of which the last ends at the last start. Where a
 * tile's spans are shared among threads, they are `spans` ones from span `from` on; otherwise 0. */
typedef struct {
    llm_session *s;
    const Layer *w;
    int n;
    const int *starts;
    int from, spans;
} Attending;

/* Writes a row's keys and values to its session's cache. */
static void remember_row(void *with, int t, int thread)
{
    const Attending *a = with;
    const llm_session *s = a->s, *owner = s->b->rows[t].session;
    const Layer *w = a->w;
    int heads = w->kv_heads, at = s->b->rows[t].position;
    size_t bytes;
    (void)thread;
    for (int g = 0; g < heads; g++) {
        const float *k = s->b->k + (size_t)(t * heads + g) * (size_t)w->head_dim;
        const float *v = s->b->v + (size_t)(t * heads + g) * (size_t)w->value_dim;
        pack(owner->cache, cache_at(owner, 0, w, g, at, &bytes), k, w->head_dim);
        if (w->value_at < 0)
            pack(owner->cache, cache_at(owner, 1, w, g, at, &bytes), v, w->value_dim);
    }
}

static void remember(llm_session *s, const Layer *w, int n)
{
    share(n < MIN_ROWS ? 1 : s->threads, n, remember_row, &(Attending){ .s = s, .w = w });
}

/* Numbers from one row of a block of keys or values to the next. */
static int block_row(const Layer *w)
{
    int dim = w->head_dim > w->value_dim ? w->head_dim : w->value_dim;
    return bands_of(dim) * BAND;
}

/* Attention of n rows of queries to a block of `length` positions, whose keys (bands, dim, BAND)
 * and values are in work, into a(n, value_dim). Row t of q begins at number t * ldq. */
static void attend_block(const llm_model *m, const Layer *w, Scratch *work, float *a,
                         const float *q, size_t ldq, int n, Softmax *state, int length, Gemm *gemm)
{
    size_t lda = (size_t)w->value_dim, row = ARRAY_LEN(*work->scores),
           value_row = (size_t)block_row(w);
    const float *values = work->values + (w->value_at < 0 ? 0 : w->value_at);
    memset(work->scores, 0, (size_t)n * sizeof *work->scores);
    gemm(work, work->scores[0], row, work->keys[0][0], BAND, MAX_HEAD_DIM * BAND, bands_of(length),
         q, ldq, w->head_dim, n);
    for (int t = 0; t < n; t++) {
        float *scores = work->scores[t];
        if (work->visible[t] <= work->hidden[t]) {
            memset(scores, 0, sizeof work->scores[t]);
            continue;
        }
        float scale = cap(scores, length, m->score_scale, m->score_cap);
        for (int j = 0; j < work->hidden[t]; j++) scores[j] = -INFINITY;
        float shrink = kernels->softmax(&state[t], scores, length, work->visible[t], scale);
        for (int d = 0; d < w->value_dim && shrink != 1; d++)
            a[(size_t)t * lda + (size_t)d] *= shrink;
    }
    int d = w->value_dim / BAND * BAND;
    gemm(work, a, lda, values, value_row, BAND, d / BAND, work->scores[0], row, length, n);
    if (d == w->value_dim) return;
    memset(work->tail, 0, (size_t)n * sizeof *work->tail);
    gemm(work, work->tail[0], BAND, values + d, value_row, BAND, 1, work->scores[0], row, length,
         n);
    for (int t = 0; t < n; t++) {
        for (int i = d; i < w->value_dim; i++)
            a[(size_t)t * lda + (size_t)i] += work->tail[t][i - d];
    }
}

/* Unpacks a block of `length` positions of head g in a layer: keys side by side, and values, which
 * may be a part of the keys; both for products in tiles or not. */
static void unpack_block(const llm_session *s, const Layer *w, Scratch *work, int g, int j,
                         int length, int tiles)
{
    size_t row = (size_t)block_row(w), bytes;
    const uint8_t *keys = cache_at(s, 0, w, g, j, &bytes);
    for (size_t i = 0; i < (size_t)length; i++, keys += bytes) {
        unpack(s->cache, keys, work->values + i * row, w->head_dim);
    }
    for (int i = 0; i < length; i += BAND) {
        kernels->interleave((Words *)work->keys[i / BAND],
                            (const uint8_t *)(work->values + (size_t)i * row), row * sizeof(float),
                            bands_of(w->head_dim) * BAND * (int)sizeof(float));
    }
    if (w->value_at < 0) {
        const uint8_t *values = cache_at(s, 1, w, g, j, &bytes);
        for (size_t i = 0; i < (size_t)length; i++, values += bytes) {
            unpack(s->cache, values, work->values + i * row, w->value_dim);
        }
    }
    if (!tiles) return;
    kernels->make_pairs(work->keys[0][0], BAND, MAX_HEAD_DIM * BAND, bands_of(length), w->head_dim);
    kernels->make_pairs(work->values + (w->value_at < 0 ? 0 : w->value_at), row, BAND,
                        bands_of(w->value_dim), length);
}

/* Which positions of the block from j on the n queries see. Where there is one row of the batch,
 * they are its heads. */
static void see(Scratch *work, const Row *rows, int count, int n, int j, int length, int window)
{
    for (int t = 0; t < n; t++) {
        int end = rows[count == 1 ? 0 : t].position + 1 - j, from = window ? end - window : 0;
        work->visible[t] = end < length ? end : length;
        work->hidden[t] = from > 0 ? from : 0;
    }
}

/* The first span of positions that a row sees, and the last. */
static int first_span(const Layer *w, const Row *row)
{
    int start = w->window ? row->position + 1 - w->window : 0;
    return start > 0 ? start / SPAN : 0;
}

static int last_span(const Row *row)
{
    return row->position / SPAN;
}

/* Attention of `count` rows of one session, from row `first` on, for the query heads that share
 * key/value head g, to one span of positions, into parts (query heads, count) from `part` on. Keys
 * and values are unpacked block by block, and each block serves all these rows and heads. A row
 * sees itself and what was before it, as far as a window goes. One row alone takes its heads for
 * the rows of a batch. */
static void attend_span(llm_session *s, const Layer *w, Scratch *work, int g, int first, int count,
                        int span, size_t part)
{
    const Row *rows = s->b->rows + first;
    int group = w->heads / w->kv_heads, heads = count == 1 ? 1 : group,
        n = count == 1 ? group : count, end = rows[count - 1].position + 1, window = w->window,
        start = window ? rows->position + 1 - window : 0;
    int exact = s->cache == &formats[F32]; /* which pairs are not: an f16 fits two parts */
    int tiles = count >= TILE_ROWS && kernels->make_pairs && !exact;
    Gemm *gemm = tiles ? kernels->gemm_tiles : gemm_by_band;
    size_t dim = (size_t)w->head_dim, value_dim = (size_t)w->value_dim, all = (size_t)w->heads,
           head = (size_t)first * all + (size_t)(g * group), ldq = count == 1 ? dim : dim * all;
    if (start < span * SPAN) start = span * SPAN;
    if (end > (span + 1) * SPAN) end = (span + 1) * SPAN;
    for (int i = 0; i < count * group; i++)
        s->b->parts[part + (size_t)i] = (Softmax){ -INFINITY, 0 };
    memset(s->b->found_in + part * value_dim, 0,
           (size_t)(count * group) * value_dim * sizeof *s->b->found_in);
    for (int j = start / ATTEND_BLOCK * ATTEND_BLOCK; j < end; j += ATTEND_BLOCK) {
        int length = end - j < ATTEND_BLOCK ? end - j : ATTEND_BLOCK;
        unpack_block(rows->session, w, work, g, j, length, tiles);
        see(work, rows, count, n, j, length, window);
        for (size_t h = 0; h < (size_t)heads; h++) {
            size_t to = part + h * (size_t)n;
            attend_block(s->model, w, work, s->b->found_in + to * value_dim,
                         s->b->q + (head + h) * dim, ldq, n, s->b->parts + to, length, gemm);
        }
    }
}

/* Adds to what these rows and heads found in earlier spans what they found in this one; the last
 * span makes it the result. Spans are where they are for any number of rows and threads, and so
 * are the sums. */
static void add_span(llm_session *s, const Layer *w, Scratch *work, int g, int first, int count,
                     int span, size_t part)
{
    int all = w->heads, group = all / w->kv_heads;
    size_t dim = (size_t)w->value_dim;
    for (int i = 0; i < count * group; i++) {
        int h = g * group + i / count;
        float *a = s->b->a + (size_t)((first + i % count) * all + h) * dim;
        const float *from = s->b->found_in + (part + (size_t)i) * dim;
        Softmax *sum = &work->softmax[i], own = s->b->parts[part + (size_t)i];
        if (span == first_span(w, s->b->rows + first)) {
            *sum = w->sinks ? (Softmax){ w->sinks[h], 1 } : (Softmax){ -INFINITY, 0 };
            memset(a, 0, dim * sizeof *a);
        }
        if (own.sum != 0) { /* 0: it saw none of them */
            float top = own.top > sum->top ? own.top : sum->top;
            float old = exponential(sum->top - top), new = exponential(own.top - top);
            for (size_t d = 0; d < dim; d++) a[d] = a[d] * old + from[d] * new;
            *sum = (Softmax){ top, sum->sum * old + own.sum * new };
        }
        if (span < last_span(s->b->rows + first + count - 1)) continue;
        for (size_t d = 0; d < dim; d++) a[d] /= sum->sum;
    }
}

/* Where the parts of a tile begin: by threads, or by spans where these are shared. */
static size_t part_of(const Attending *a, int tile, int g, int span, int thread)
{
    int group = a->w->heads / a->w->kv_heads, first = a->starts[tile];
    if (!a->spans) return (size_t)thread * (size_t)(tile_rows(a->w) * group);
    return (size_t)((span - a->from) * a->n + first) * (size_t)a->w->heads +
           (size_t)(g * group * (a->starts[tile + 1] - first));
}

/* Attention of a tile, or to one of its spans. */
static void attend_piece(void *with, int i, int thread)
{
    const Attending *a = with;
    llm_session *s = a->s;
    int heads = a->w->kv_heads, of = a->spans ? a->spans : 1, tile = i / of / heads,
        g = i / of % heads, first = a->starts[tile], count = a->starts[tile + 1] - first;
    Scratch *work = &s->b->work[thread];
    for (int span = first_span(a->w, s->b->rows + first);
         span <= last_span(s->b->rows + first + count - 1); span++) {
        size_t part = part_of(a, tile, g, span, thread);
        if (a->spans && span != a->from + i % of) continue;
        attend_span(s, a->w, work, g, first, count, span, part);
        if (!a->spans) add_span(s, a->w, work, g, first, count, span, part);
    }
}

/* Adds up the spans of head g of a tile that were shared. */
static void add_spans(const Attending *a, int tile, int g)
{
    llm_session *s = a->s;
    int first = a->starts[tile], count = a->starts[tile + 1] - first;
    for (int span = first_span(a->w, s->b->rows + first);
         span <= last_span(s->b->rows + first + count - 1); span++) {
        add_span(s, a->w, s->b->work, g, first, count, span, part_of(a, tile, g, span, 0));
    }
}

/* Scaled dot-product attention (arxiv.org/abs/1706.03762), causal, with grouped heads
 * (arxiv.org/abs/2305.13245). Rows of one session follow each other, so a tile is a run of rows
 * with the same session. A few rows share their spans, as they have not much else to share. */
static void attend(llm_session *s, const Layer *w, int n)
{
    int starts[CHUNK + 1] = { 0 }, tiles = 0, from = INT_MAX, end = 0;
    double work = 0;
    for (int t = 0; t < n; t++) {
        const Row *r = s->b->rows + t;
        int first = first_span(w, r), last = last_span(r);
        work += (double)row_bytes(s->cache, w->head_dim + w->value_dim) * w->heads * r->position;
        from = first < from ? first : from, end = last >= end ? last + 1 : end;
        int of_another = r->session != s->b->rows[starts[tiles]].session;
        if (of_another || t - starts[tiles] == tile_rows(w)) starts[++tiles] = t;
    }
    starts[++tiles] = n;
    int threads = work < MIN_WORK ? 1 : s->threads, spans = end - from;
    if (n > FEW_ROWS || (size_t)spans * (size_t)(n * w->heads) > s->b->n_parts) spans = 0;
    Attending a = { s, w, n, starts, from, spans };
    share(threads, tiles * w->kv_heads * (spans ? spans : 1), attend_piece, &a);
    for (int i = 0; spans && i < tiles * w->kv_heads; i++) {
        add_spans(&a, i / w->kv_heads, i % w->kv_heads);
    }
}

/* The norm and the rotation of queries or keys x(n, heads, head_dim). */
static void norm_and_rotate(llm_session *s, float *x, const Norm *of, const Layer *w, int n,
                            int heads)
{
    int behind = s->model->arch->norm_behind;
    if (behind) rope(x, s, w, n, heads);
    norm(s, x, x, of, n, heads * w->head_dim);
    if (!behind) rope(x, s, w, n, heads);
}

/* Attention of n rows, whose queries, keys and values are projected, into b->a. */
static void attention(llm_session *s, const Layer *w, int n)
{
    norm_and_rotate(s, s->b->q, &w->q_norm, w, n, w->heads);
    temper(s, w, n);
    if (!w->shares) {
        norm_and_rotate(s, s->b->k, &w->k_norm, w, n, w->kv_heads);
        norm(s, s->b->v, s->b->v, &w->v_norm, n, w->kv_heads * w->value_dim);
        remember(s, w, n);
    }
    attend(s, w, n);
}

/* Gates of what attention found, into b->gates: one for each number, or for each head. */
static void gate_heads(llm_session *s, const Layer *w, int n)
{
    Buffers *b = s->b;
    int dim = w->heads * w->value_dim, soft = s->model->arch->gate == SOFTPLUS_GATE;
    if (w->out_gate.data) multiply(s, b->gates, &w->out_gate, b->h, n);
    for (int i = n * w->heads - 1; i >= 0 && w->out_gate.rows == w->heads; i--) {
        float g = b->gates[i]; /* from the end, as each takes the place of several */
        for (int j = 0; j < w->value_dim; j++) b->gates[i * w->value_dim + j] = g;
    }
    gate(s, soft ? SOFTPLUS : SIGLU, b->gates, b->a, n, dim);
}

static void run_attention(llm_session *s, const Layer *w, int n)
{
    Buffers *b = s->b;
    int beside = w->wq_gated.data != NULL, gated = beside || w->out_gate.data;
    size_t dim = (size_t)w->head_dim, bytes = dim * sizeof(float);
    Product qkv[] = { { beside ? b->q_gated : b->q, beside ? w->wq_gated : w->wq, 0, n, NULL },
                      { b->k, w->wk, 0, n, NULL },
                      { b->v, w->wv, 0, n, NULL } };
    matmul(s, b->h, n, qkv, w->shares ? 1 : w->wv.data ? 3 : 2);
    if (!w->wv.data && !w->shares) memcpy(b->v, b->k, (size_t)(n * w->kv_heads) * bytes);
    for (size_t i = 0; beside && i < (size_t)(n * w->heads); i++) {
        memcpy(b->q + i * dim, b->q_gated + 2 * i * dim, bytes);
        memcpy(b->gates + i * dim, b->q_gated + (2 * i + 1) * dim, bytes);
    }
    attention(s, w, n);
    if (gated) gate_heads(s, w, n);
    multiply(s, b->change, &w->wo, gated ? b->gates : b->a, n);
}

/* Keys and values of all heads, from the latent vectors. */
static void whole_heads(llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    size_t heads = (size_t)w->heads, rotated = (size_t)m->n_rot, f = sizeof(float),
           plain = (size_t)m->plain_dim, value = (size_t)m->value_dim, key = plain + rotated;
    multiply(s, s->b->whole, &w->whole, s->b->latent_normed, n);
    for (size_t i = 0; i < (size_t)n * heads; i++) {
        const float *from = s->b->whole + i * (plain + value);
        const float *shared = s->b->latent + i / heads * ((size_t)m->rank + rotated) + m->rank;
        memcpy(s->b->k + i * key, shared, rotated * f);
        memcpy(s->b->k + i * key + rotated, from, plain * f);
        memcpy(s->b->v + i * value, from + plain, value * f);
        memcpy(s->b->q + i * key + rotated, s->b->q_plain + i * key, plain * f);
    }
}

/* Queries, keys and values of multi-head latent attention (arxiv.org/abs/2405.04434). A position
 * keeps one short vector, of which the keys and values of all heads are products. These products
 * are taken of the queries instead, and of what attention finds: so all heads share one key, which
 * has n_rot dimensions that are rotated and then the latent ones, and these are the value too. */
static void latent_queries(llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    int heads = w->heads, key = w->head_dim, rotated = m->n_rot, rank = m->rank,
        plain = m->plain_dim, each = plain + rotated;
    Product low[] = { { s->b->latent, w->latent, 0, n, NULL },
                      { s->b->q_low, w->q_low, 0, n, NULL } };
    matmul(s, s->b->h, n, low, 2);
    norm(s, s->b->q_low, s->b->q_low, &w->q_low_norm, n, m->q_rank);
    multiply(s, s->b->q_plain, &w->wq, m->q_rank ? s->b->q_low : s->b->h, n);
    for (size_t i = 0; i < (size_t)n * (size_t)heads; i++) {
        memcpy(s->b->q + i * (size_t)key, s->b->q_plain + i * (size_t)each + plain,
               (size_t)rotated * sizeof *s->b->q);
    }
    for (int t = 0; t < n; t++) {
        float *latent = s->b->latent + (size_t)t * (size_t)(rank + rotated);
        norm_vector(m, s->b->latent_normed + (size_t)t * (size_t)rank, latent, &w->latent_norm);
    }
    if (w->whole.data) {
        whole_heads(s, w, n);
        return;
    }
    for (int t = 0; t < n; t++) {
        float *k = s->b->k + (size_t)t * (size_t)key;
        memcpy(k, s->b->latent + (size_t)t * (size_t)(rank + rotated) + rank,
               (size_t)rotated * sizeof *k);
        memcpy(k + rotated, s->b->latent_normed + (size_t)t * (size_t)rank,
               (size_t)rank * sizeof *k);
    }
    by_head(s, s->b->q + rotated, key, s->b->q_plain, each, w->to_latent, heads, n);
}

static void run_latent(llm_session *s, const Layer *w, int n)
{
    const float *found = s->b->a;
    latent_queries(s, w, n);
    attention(s, w, n);
    if (w->from_latent) {
        found = s->b->found;
        by_head(s, s->b->found, s->model->latent_value, s->b->a, w->value_dim, w->from_latent,
                w->heads, n);
    }
    multiply(s, s->b->change, &w->wo, found, n);
}

/* Work of layers with a state on the runs of rows of one session; behind the last start, n. */
typedef struct {
    llm_session *s;
    const Layer *w;
    int starts[CHUNK + 1], runs;
} Recurrence;

static Recurrence recurrence(llm_session *s, const Layer *w, int n)
{
    Recurrence r = { .s = s, .w = w };
    for (int t = 0; t < n; t++) {
        if (t == 0 || s->b->rows[t].session != s->b->rows[t - 1].session) r.starts[r.runs++] = t;
    }
    r.starts[r.runs] = n;
    return r;
}

enum { CONV_CHANNELS = 256 }; /* that a thread takes together */

/* What channels from `at` on have for input `back` positions before row t, NULL: there was nothing
 * yet. A run's own inputs are in the batch, those before it in the session's state. */
static const float *conv_input(const Recurrence *r, int run, int t, int back, int at)
{
    const Layer *w = r->w;
    int first = r->starts[run], behind = t - back - first;
    const float *from = r->s->b->rows[first].session->from;
    if (behind >= 0) return r->s->b->mixed + (size_t)(t - back) * (size_t)w->channels + at;
    return from ? from + w->state + (size_t)(w->taps - 1 + behind) * (size_t)w->channels + at
                : NULL;
}

/* Each channel's own causal convolution over the positions: the sum of its last inputs by weights,
 * and SiLU, if the layer has heads. The last inputs are left for what follows. */
static void convolve_piece(void *with, int i, int thread)
{
    const Recurrence *r = with;
    const Layer *w = r->w;
    int blocks = (w->channels + CONV_CHANNELS - 1) / CONV_CHANNELS, run = i / blocks,
        at = i % blocks * CONV_CHANNELS, left = w->channels - at,
        count = left < CONV_CHANNELS ? left : CONV_CHANNELS, end = r->starts[run + 1];
    (void)thread;
    for (int t = r->starts[run]; t < end; t++) {
        float *y = r->s->b->conved + (size_t)t * (size_t)w->channels + at;
        for (int c = 0; c < count; c++) y[c] = w->conv_bias ? w->conv_bias[at + c] : 0;
        for (int j = 0; j < w->taps; j++) {
            const float *x = conv_input(r, run, t, w->taps - 1 - j, at);
            const float *weights = w->conv + (size_t)j * (size_t)w->channels + at;
            for (int c = 0; c < count && x; c++) y[c] += weights[c] * x[c];
        }
        if (w->state_heads) kernels->activate(SILU, y, y, count);
    }
    float *to = r->s->b->rows[r->starts[run]].session->to + w->state + at;
    for (int j = 1; j < w->taps; j++, to += w->channels) {
        const float *x = conv_input(r, run, end - 1, w->taps - 1 - j, at);
        for (int c = 0; c < count; c++) to[c] = x ? x[c] : 0;
    }
}

static void convolve(const Recurrence *r)
{
    const Layer *w = r->w;
    int blocks = (w->channels + CONV_CHANNELS - 1) / CONV_CHANNELS, n = r->starts[r->runs];
    int threads = (double)n * w->channels * 4 * w->taps < MIN_WORK ? 1 : r->s->threads;
    share(threads, r->runs * blocks, convolve_piece, (void *)(uintptr_t)r);
}

/* Gated short convolution (arxiv.org/abs/2511.23404): out(z * conv(b * x)), without activations. */
static void run_short_conv(llm_session *s, const Layer *w, int n)
{
    Buffers *b = s->b;
    Recurrence r = recurrence(s, w, n);
    size_t all = (size_t)n * (size_t)w->channels;
    Product in[] = { { b->mixed, w->mixed, 0, n, NULL },
                     { b->z, w->z, 0, n, NULL },
                     { b->conved, w->times, 0, n, NULL } };
    matmul(s, b->h, n, in, 3);
    for (size_t i = 0; i < all; i++) b->mixed[i] *= b->conved[i];
    convolve(&r);
    for (size_t i = 0; i < all; i++) b->conved[i] *= b->z[i];
    multiply(s, b->change, &w->state_out, b->conved, n);
}

/* What a row's heads need: each has a step, softplus of what was projected; it forgets by
 * exp(forget step). With beta, queries and keys have the length 1, and a head learns by
 * sigmoid(beta); without, by its step. */
static void prepare_heads(void *with, int t, int thread)
{
    const Recurrence *r = with;
    const Layer *w = r->w;
    float *decay = r->s->b->decay + (size_t)t * (size_t)w->state_heads,
          *beta = r->s->b->beta + (size_t)t * (size_t)w->state_heads,
          *x = r->s->b->conved + (size_t)t * (size_t)w->channels;
    (void)thread;
    for (int h = 0; h < 2 * w->k_heads && w->beta.data; h++, x += w->k_dim) {
        float scale = 1 / sqrtf((float)total(x, w->k_dim, 0, 2) + 1e-6f);
        if (h < w->k_heads) scale /= sqrtf((float)w->k_dim);
        for (int i = 0; i < w->k_dim; i++) x[i] *= scale;
    }
    for (int h = 0; h < w->state_heads; h++) {
        float step = softplus(decay[h] + w->step_bias[h]);
        decay[h] = expf(w->forget[h] * step);
        beta[h] = w->beta.data ? 1 / (1 + expf(-beta[h])) : step;
    }
}

/* A band of columns of a head's state over the rows of a session. Each row's key k and value v
 * change S: it fades, then k u^T is added, with u = beta v, or by the delta rule what v lacks,
 * beta (v - S^T k). What comes out is S^T q. */
static void recur_piece(void *with, int i, int thread)
{
    const Recurrence *r = with;
    const Layer *w = r->w;
    Buffers *b = r->s->b;
    int bands = bands_of(w->v_dim), each = w->state_heads * bands, run = i / each,
        h = i % each / bands, at = i % bands * BAND, left = w->v_dim - at,
        count = left < BAND ? left : BAND, delta = w->beta.data != NULL,
        keys = w->k_heads * w->k_dim, inner = w->state_heads * w->v_dim,
        g = delta ? h % w->k_heads : h * w->k_heads / w->state_heads;
    size_t size = (size_t)w->k_dim * BAND, offset = (size_t)w->state + (size_t)(i % each) * size +
                                                    (size_t)(w->taps - 1) * (size_t)w->channels;
    const llm_session *owner = b->rows[r->starts[run]].session;
    float *state = owner->to + offset;
    const float *old = owner->from ? owner->from + offset : state;
    (void)thread;
    if (!owner->from) memset(state, 0, size * sizeof *state);
    for (int t = r->starts[run]; t < r->starts[run + 1]; t++) {
        /* of queries, keys and values; or of values, keys and queries */
        const float *x = b->conved + (size_t)t * (size_t)w->channels;
        const float *first = x + (delta ? 0 : inner) + g * w->k_dim, *second = first + keys,
                    *q = delta ? first : second, *k = delta ? second : first,
                    *v = x + (delta ? 2 * keys : 0) + h * w->v_dim + at;
        float decay = b->decay[t * w->state_heads + h], beta = b->beta[t * w->state_heads + h],
              direct = w->direct ? w->direct[h] : 0, together = dot_portable(q, k, w->k_dim),
              *y = b->o + (size_t)t * (size_t)inner + h * w->v_dim + at;
        float found[2][BAND] = { { 0 } }, u[BAND] = { 0 };
        kernels->gemm(found[0], BAND, old, BAND, first, (size_t)keys, w->k_dim, 2);
        for (int j = 0; j < count; j++) {
            u[j] = beta * (v[j] - (delta ? decay * found[1][j] : 0));
            y[j] = decay * found[!delta][j] + together * u[j] + direct * v[j];
        }
        kernels->outer(state, old, k, u, decay, w->k_dim);
        old = state;
    }
}

/* What the heads of a state give for the rows, into b->o. */
static void recur(const Recurrence *r)
{
    const Layer *w = r->w;
    llm_session *s = r->s;
    int n = r->starts[r->runs], pieces = w->state_heads * bands_of(w->v_dim);
    int threads = (double)n * pieces * BAND * w->k_dim * 4 < MIN_WORK ? 1 : s->threads;
    convolve(r);
    share(n < MIN_ROWS ? 1 : threads, n, prepare_heads, (void *)(uintptr_t)r);
    share(threads, r->runs * pieces, recur_piece, (void *)(uintptr_t)r);
}

/* Gated DeltaNet (arxiv.org/abs/2412.06464) */
static void run_delta_net(llm_session *s, const Layer *w, int n)
{
    Buffers *b = s->b;
    Recurrence r = recurrence(s, w, n);
    int inner = w->state_heads * w->v_dim;
    Product in[] = { { b->mixed, w->mixed, 0, n, NULL },
                     { b->z, w->z, 0, n, NULL },
                     { b->decay, w->decay, 0, n, NULL },
                     { b->beta, w->beta, 0, n, NULL } };
    matmul(s, b->h, n, in, 4);
    recur(&r);
    norm(s, b->o, b->o, &w->state_norm, n, inner);
    gate(s, SWIGLU, b->z, b->o, n, inner);
    multiply(s, b->change, &w->state_out, b->z, n);
}

/* Mamba 2 (arxiv.org/abs/2405.21060) */
static void run_mamba2(llm_session *s, const Layer *w, int n)
{
    Buffers *b = s->b;
    Recurrence r = recurrence(s, w, n);
    int inner = w->state_heads * w->v_dim;
    Product in[] = { { b->z, w->z, 0, n, NULL },
                     { b->mixed, w->mixed, 0, n, NULL },
                     { b->decay, w->decay, 0, n, NULL } };
    matmul(s, b->h, n, in, 3);
    recur(&r);
    gate(s, SWIGLU, b->z, b->o, n, inner);
    norm(s, b->z, b->z, &w->state_norm, n, inner);
    multiply(s, b->change, &w->state_out, b->z, n);
}

/* Both side by side. */
static void run_attention_and_mamba2(llm_session *s, const Layer *w, int n)
{
    run_mamba2(s, w, n);
    add(s, s->b->x, s->b->change, n, s->model->facts.dim, s->model->residual_scale);
    run_attention(s, w, n);
}

/* To add one: its row, what it loads and what it does. */
static const Mixer mixers[N_MIXERS] = {
    [ATTENTION] = { load_attention, run_attention },
    [LATENT] = { load_latent, run_latent },
    [SHORT_CONV] = { load_short_conv, run_short_conv },
    [DELTA_NET] = { load_delta_net, run_delta_net },
    [MAMBA2] = { load_mamba2, run_mamba2 },
    [ATTENTION_AND_MAMBA2] = { load_attention_and_mamba2, run_attention_and_mamba2 },
    [NOTHING] = { NULL, NULL },
};

/* ==== 8. Feed-forward ============================================================================
 * What each position does by itself: two or three matrices with an activation between them, or a
 * choice of experts that have such matrices. */

/* An activation that each layer has its own numbers for: xIELU (arxiv.org/abs/2411.13010). */
static void bend(float *x, size_t n, const float *curve)
{
    float a = softplus(curve[0]), beta = curve[2], b = beta + softplus(curve[1]), eps = curve[3];
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        x[i] = beta * v + (v > 0 ? a * v * v : b * (expm1f(v < eps ? v : eps) - v));
    }
}

/* A feed-forward part: change(n, dim) = down activation(gate h, up h) */
static void feed_forward(llm_session *s, const Mat *gate, const Mat *up, const Mat *down,
                         const float *curve, int n)
{
    matmul(s, s->b->h, n, &(Product){ s->b->gate, *gate, 0, n, curve ? NULL : up }, 1);
    if (curve) bend(s->b->gate, (size_t)n * (size_t)gate->rows, curve);
    multiply(s, s->b->change, down, s->b->gate, n);
}

/* The largest of n numbers of which none is NaN: its index. It becomes -INFINITY. */
static int take_largest(float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
    x[best] = -INFINITY;
    return best;
}

/* Leaves only the best groups of experts to choose from: those whose two best experts together
 * score most, or whose best one does where scores are a softmax. */
static void choose_groups(const llm_model *m, float *scores)
{
    float groups[MAX_EXPERTS], copy[MAX_EXPERTS];
    int size = m->facts.n_experts / m->n_groups, best = m->gating == SIGMOID && size > 1 ? 2 : 1;
    for (int g = 0; g < m->n_groups; g++) {
        memcpy(copy, scores + g * size, (size_t)size * sizeof *copy);
        groups[g] = 0;
        for (int i = 0; i < best; i++) groups[g] += scores[g * size + take_largest(copy, size)];
    }
    for (int i = 0; i < m->n_groups_chosen; i++) take_largest(groups, m->n_groups);
    for (int i = 0; i < m->facts.n_experts; i++) {
        if (groups[i / size] != -INFINITY) scores[i] = -INFINITY; /* the group was not taken */
    }
}

/* Which experts a row of scores (n_experts) chooses, and their shares: chosen
 * (n_experts_used), with the expert in the place of the row. */
static void choose_experts(const llm_model *m, const Layer *w, float *scores, Route *chosen)
{
    const float *expert_bias = w->expert_bias;
    float wanted[MAX_EXPERTS], top = scores[0], sum = 0;
    int n = m->facts.n_experts;
    for (int i = 1; i < n; i++) top = scores[i] > top ? scores[i] : top;
    for (int i = 0; i < n && m->gating != SIGMOID; i++) sum += scores[i] = expf(scores[i] - top);
    for (int i = 0; i < n; i++) {
        scores[i] = m->gating == SIGMOID ? 1 / (1 + expf(-scores[i])) : scores[i] / sum;
        wanted[i] = scores[i] == scores[i] ? scores[i] + (expert_bias ? expert_bias[i] : 0) : 0;
    }
    if (m->n_groups_chosen < m->n_groups) choose_groups(m, wanted);
    sum = 0;
    for (int i = 0; i < m->facts.n_experts_used; i++) {
        int expert = take_largest(wanted, n);
        chosen[i] = (Route){ expert, scores[expert] };
        sum += scores[expert];
    }
    int whole = m->renormalize || m->gating == SOFTMAX_OF_CHOSEN;
    for (int i = 0; i < m->facts.n_experts_used; i++) {
        chosen[i].share *= m->expert_scale / (whole ? sum + 1e-20f : 1);
        if (w->expert_scales) chosen[i].share *= w->expert_scales[chosen[i].row];
    }
}

/* Orders the routes of n rows by expert: those of expert e begin at starts[e]. */
static void route(llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    int all = n * m->facts.n_experts_used;
    memset(s->b->starts, 0, ((size_t)m->facts.n_experts + 1) * sizeof *s->b->starts);
    const float *in = w->router_norm.weight ? s->b->aside : s->b->h;
    if (in != s->b->h) norm(s, s->b->aside, s->b->x, &w->router_norm, n, m->facts.dim);
    multiply(s, s->b->scores, &w->router, in, n);
    for (int t = 0; t < n; t++) {
        choose_experts(m, w, s->b->scores + (size_t)t * (size_t)m->facts.n_experts,
                       s->b->chosen + (size_t)t * (size_t)m->facts.n_experts_used);
    }
    for (int i = 0; i < all; i++) s->b->starts[s->b->chosen[i].row + 1]++;
    for (int e = 0; e < m->facts.n_experts; e++) s->b->starts[e + 1] += s->b->starts[e];
    for (int i = all - 1; i >= 0; i--) {
        int e = s->b->chosen[i].row;
        s->b->routes[--s->b->starts[e + 1]] = (Route){ i / m->facts.n_experts_used,
                                                       s->b->chosen[i].share };
    }
    memmove(s->b->starts, s->b->starts + 1, (size_t)m->facts.n_experts * sizeof *s->b->starts);
    s->b->starts[m->facts.n_experts] = all;
}

/* change(n, dim) = what the expert that every token has gives, or zero. */
static void shared_expert(llm_session *s, const Layer *w, int n)
{
    size_t dim = (size_t)s->model->facts.dim;
    memset(s->b->change, 0, (size_t)n * dim * sizeof *s->b->change);
    if (!w->shared_down.data) return;
    feed_forward(s, &w->shared_gate, &w->shared_up, &w->shared_down, NULL, n);
    if (!w->shared_router.data) return;
    multiply(s, s->b->shared, &w->shared_router, s->b->h, n);
    for (size_t i = 0; i < (size_t)n * dim; i++)
        s->b->change[i] /= 1 + expf(-s->b->shared[i / dim]);
}

/* A mixture of experts (arxiv.org/abs/1701.06538): each row goes through the experts that it
 * chooses, and change(n, dim) is the sum of what they give by their shares. Rows are put in the
 * order of experts, so that a batch reads each expert once; several are done together. */
static void experts(llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    size_t dim = (size_t)w->gates->cols, hidden = (size_t)w->gates->rows;
    int low = w->experts_in.data != NULL, apart = low || w->experts_post_norm.weight;
    float *in = low ? s->b->aside : s->b->h, *sum = s->b->change;
    shared_expert(s, w, n);
    route(s, w, n);
    if (apart) {
        norm(s, sum, sum, &w->shared_post_norm, n, m->facts.dim);
        if (w->experts_norm.weight) norm(s, in, s->b->x, &w->experts_norm, n, m->facts.dim);
        if (low) multiply(s, in, &w->experts_in, s->b->h, n);
        sum = s->b->routed;
        memset(sum, 0, (size_t)n * dim * sizeof *sum);
    }
    for (int e = 0, next; e < m->facts.n_experts; e = next) {
        Product up[MAX_PRODUCTS], down[MAX_PRODUCTS];
        int rows = 0, count = 0, usual = n * m->facts.n_experts_used / m->facts.n_experts;
        for (next = e; next < m->facts.n_experts && count < MAX_PRODUCTS; next++) {
            const Route *r = s->b->routes + s->b->starts[next];
            int own = s->b->starts[next + 1] - s->b->starts[next];
            if (rows + spaced(own, usual) > CHUNK) break;
            if (own == 0) continue;
            for (int i = 0; i < own; i++) {
                memcpy(s->b->group_in + (size_t)(rows + i) * dim, in + (size_t)r[i].row * dim,
                       dim * sizeof *in);
            }
            up[count] = (Product){ s->b->gate + (size_t)rows * hidden, w->gates[next], rows, own,
                                   &w->ups[next] };
            down[count++] = (Product){ s->b->group_out + (size_t)rows * dim, w->downs[next], rows,
                                       own, NULL };
            rows += spaced(own, usual);
        }
        if (count == 0) break; /* the last experts have nothing to do */
        matmul(s, s->b->group_in, rows, up, count);
        matmul(s, s->b->gate, rows, down, count);
        const Route *r = s->b->routes + s->b->starts[e];
        for (int i = 0; i < count; i++) {
            for (int j = 0; j < down[i].n; j++, r++) {
                add(s, sum + (size_t)r->row * dim, down[i].y + (size_t)j * dim, 1, (int)dim,
                    r->share);
            }
        }
    }
    for (size_t i = 0; m->arch->mean_shared && w->shared_down.data && i < (size_t)n * dim; i++) {
        sum[i] *= 0.5f;
    }
    if (!apart) return;
    norm(s, sum, sum, &w->experts_post_norm, n, m->facts.dim);
    if (low) multiply(s, in, &w->experts_out, sum, n);
    add(s, s->b->change, low ? in : sum, n, m->facts.dim, 1);
}

/* ==== 9. forward =================================================================================
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
        if (s->b->rows[t].logits) {
            memcpy(s->b->h + (size_t)count * dim, s->b->x + (size_t)t * dim, dim * sizeof *s->b->h);
            asked[count++] = &s->b->rows[t];
        }
        if (count < LOGIT_ROWS && (t < n - 1 || count == 0)) continue;
        norm(s, s->b->h, s->b->h, &m->output_norm, count, m->facts.dim);
        multiply(s, s->b->out, &m->output, s->b->h, count);
        for (int i = 0; i < count; i++) {
            float *row = s->b->out + (size_t)i * vocab, scale;
            scale = cap(row, (int)vocab, m->logit_scale, m->logit_cap);
            for (size_t j = 0; j < vocab && scale != 1; j++) row[j] *= scale;
            memcpy(asked[i]->logits, s->b->out + (size_t)i * vocab, vocab * sizeof *s->b->out);
        }
        count = 0;
    }
}

/* x = the rows' tokens, and their positions where these are learned. */
static void embed(llm_session *s, int n)
{
    const llm_model *m = s->model;
    size_t dim = (size_t)m->facts.dim;
    const Mat *tokens = &m->embedding, *positions = &m->positions;
    for (int t = 0; t < n; t++) {
        const Row *row = &s->b->rows[t];
        float *x = s->b->x + (size_t)t * dim, *h = s->b->h;
        unpack(tokens->format, weights_at(tokens, row->token, 0), x, (int)dim);
        for (size_t i = 0; i < dim; i++) x[i] *= m->embedding_scale;
        if (!positions->data) continue;
        unpack(positions->format, weights_at(positions, row->position, 0), h, (int)dim);
        for (size_t i = 0; i < dim; i++) x[i] += h[i];
    }
}

/* What every layer is given of each token: a row of a table of its own, and what the embedding
 * becomes by a matrix. */
static void embed_for_layers(llm_session *s, int n)
{
    const llm_model *m = s->model;
    int all = m->n_inject * m->facts.n_layers;
    float *y = s->b->injections, *table = s->b->table, scale = 1 / sqrtf((float)m->facts.dim),
          of_table = sqrtf((float)m->n_inject);
    if (!m->n_inject) return;
    multiply(s, y, &m->inject_mat, s->b->x, n);
    for (size_t i = 0; i < (size_t)n * (size_t)all; i++) y[i] *= scale;
    norm(s, y, y, &m->inject_norm, n, all);
    for (int t = 0; t < n; t++, y += all) {
        unpack(m->inject_embedding.format, weights_at(&m->inject_embedding, s->b->rows[t].token, 0),
               table, all);
        for (int i = 0; i < all; i++) y[i] = (y[i] + of_table * table[i]) * sqrtf(0.5f);
    }
}

/* Puts a token's numbers for the layer in: x += norm(out(gelu(gate x) numbers)). */
static void inject(llm_session *s, const Layer *w, int n)
{
    const llm_model *m = s->model;
    size_t each = (size_t)m->n_inject, row = each * (size_t)m->facts.n_layers;
    const float *numbers = s->b->injections + each * (size_t)(w - m->layers);
    multiply(s, s->b->injected, &w->inject_gate, s->b->x, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        kernels->activate(GEGLU, s->b->injected + t * each, numbers + t * row, (int)each);
    }
    multiply(s, s->b->change, &w->inject, s->b->injected, n);
    norm(s, s->b->change, s->b->change, &w->inject_norm, n, m->facts.dim);
    add(s, s->b->x, s->b->change, n, m->facts.dim, 1);
}

/* Fails if one of the rows' sessions is interrupted. */
static int check_interrupts(const Row *rows, int n)
{
    for (int t = 0; t < n; t++) {
        const volatile int *interrupt = rows[t].session->interrupt;
        if (t > 0 && rows[t].session == rows[t - 1].session) continue;
        if (interrupt && *interrupt) return fail("interrupted");
    }
    return 0;
}

enum { READ_PIECE = 1 << 21 }; /* bytes */

static size_t pieces_of(const File *f)
{
    return (f->size + READ_PIECE - 1) / READ_PIECE;
}

/* Reads a piece of the files and maps its pages. */
static void read_piece(void *with, int i, int thread)
{
    const llm_session *s = with;
    const File *f = &s->model->file;
    size_t no = (size_t)i;
    (void)thread;
    for (; no >= pieces_of(f); f = f->next) no -= pieces_of(f);
    if (s->interrupt && *s->interrupt) return;
    size_t at = no * READ_PIECE;
    advise(f->data + at, f->size - at < READ_PIECE ? f->size - at : READ_PIECE, READ_NOW);
}

/* Before a model is used for the first time, its file is read from the first byte to the last, if
 * that leaves half of the memory. Left to page faults, it would be read in small pieces, which for
 * some systems decides how small its pages remain, and mapped page by page. */
static void read_ahead(llm_session *s)
{
    const File *f = &s->model->file;
    _Atomic int *is_read = (_Atomic int *)(uintptr_t)&s->model->is_read;
    size_t pieces = 0;
    if (!f->mapped || atomic_exchange(is_read, 1)) return;
    for (; f; f = f->next) pieces += pieces_of(f);
    if ((double)pieces * READ_PIECE > usable_memory() / 2) return;
    share(s->threads, (int)pieces, read_piece, s);
}

/* Evaluates s->b->rows[0..n); the rows may belong to other sessions of the same model, the buffers
 * are those of s. Fails if one of them is interrupted between two layers. */
static int forward(llm_session *s, int n)
{
    const llm_model *m = s->model;
    const llm_facts *c = &m->facts;
    int dim = c->dim;
    read_ahead(s);
    embed(s, n);
    norm(s, s->b->x, s->b->x, &m->embedding_norm, n, dim);
    embed_for_layers(s, n);
    rope_angles(s, n);
    for (int l = 0; l < c->n_layers; l++) {
        const Layer *w = &m->layers[l];
        if (check_interrupts(s->b->rows, n)) return -1;

        if (w->mixer->run) {
            norm(s, s->b->h, s->b->x, &w->attn_norm, n, dim);
            w->mixer->run(s, w, n);
            norm(s, s->b->change, s->b->change, &w->attn_post_norm, n, dim);
            add(s, s->b->x, s->b->change, n, dim, m->residual_scale);
        }
        if (w->has_ffn) {
            if (!w->parallel) norm(s, s->b->h, s->b->x, &w->ffn_norm, n, dim);
            if (w->routed)
                experts(s, w, n);
            else
                feed_forward(s, &w->gate, &w->up, &w->down, w->curve, n);
            norm(s, s->b->change, s->b->change, &w->ffn_post_norm, n, dim);
            add(s, s->b->x, s->b->change, n, dim, m->residual_scale);
        }
        if (w->inject.data) inject(s, w, n);
        for (size_t i = 0; w->scale && i < (size_t)n * (size_t)dim; i++) s->b->x[i] *= *w->scale;
    }
    logits(s, n);
    return 0;
}

/* Fails because n tokens behind position do not fit. */
static int full(const llm_session *s, int n, int position)
{
    fail("%d tokens do not fit: the context has %d positions, of which %d are in use", n,
         s->context, position);
    return LLM_FULL;
}

/* Whether these are tokens, and there is one at least. */
static int check_ids(const llm_session *s, const int *tokens, int n)
{
    if (n < 1) return fail("%d tokens to evaluate, expected at least 1", n);
    if (lacks(tokens, "token")) return -1;
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= s->model->facts.vocab_size) {
            return fail("token %d is not in the vocabulary of %d", tokens[i],
                        s->model->facts.vocab_size);
        }
    }
    return 0;
}

/* The same, and whether the session can take them. */
static int check_tokens(const llm_session *s, const int *tokens, int n)
{
    int status = check_ids(s, tokens, n);
    if (!status && n > s->context - s->position) status = full(s, n, s->position);
    return status;
}

/* A text of `length` tokens needs other rotations when it passes the context that the model was
 * first made for, or falls below it again: all of it is evaluated anew then, so that it has the
 * same numbers however it came about (LongRoPE, arxiv.org/abs/2402.13753). */
static void choose_rope(llm_session *s, int length)
{
    int wanted = s->model->ropes[LONG_ROPE].turns && length > s->model->short_context;
    if (wanted != s->long_rope) invalidate(s, 0);
    s->long_rope = wanted;
}

/* Appends n tokens, which fit, and evaluates in chunks what is not in the cache yet. all (n,
 * vocab_size) gets the logits of each, if it is not NULL. */
static int eval(llm_session *s, const int *tokens, int n, float *all)
{
    size_t vocab = (size_t)s->model->facts.vocab_size;
    int first = s->position, end = first + n;
    if (n > 0) memcpy(s->tokens + first, tokens, (size_t)n * sizeof *tokens);
    if (n > 0) choose_rope(s, end);
    if (s->valid < end) s->has_logits = !borrow(s);
    if (s->valid < end && !s->b) return -1;
    while (s->valid < end) {
        int rows = end - s->valid < CHUNK ? end - s->valid : CHUNK;
        for (int t = 0; t < rows; t++) {
            int i = s->valid + t;
            float *to = i == end - 1 ? s->logits : NULL;
            if (all && i >= first) to = all + (size_t)(i - first) * vocab;
            s->b->rows[t] = (Row){ s, s->tokens[i], i, to };
        }
        State *next = begin_state(s);
        if (forward(s, rows)) {
            invalidate(s, first);
            s->has_logits = 0;
            give_back(s);
            return -1;
        }
        s->valid += rows;
        if (next) next->position = s->valid;
    }
    give_back(s);
    if (all) memcpy(s->logits, all + (size_t)(n - 1) * vocab, vocab * sizeof *all);
    s->position = end;
    return 0;
}

/* Replaces what comes from position `from` on by n tokens. On failure all is as before, but there
 * are no logits. */
static int replace(llm_session *s, int from, const int *tokens, int n)
{
    int old = s->position, tail = old - from, same = 0, status = 0;
    if (n > s->context - from) return full(s, n, from);
    int *kept = malloc(((size_t)tail + 1) * sizeof *kept);
    if (!kept) return fail("out of memory for %d tokens", tail);
    memcpy(kept, s->tokens + from, (size_t)tail * sizeof *kept);
    while (same < n && same < tail && tokens[same] == kept[same]) same++;
    cut(s, from + same);
    if (n > same && (status = eval(s, tokens + same, n - same, NULL))) {
        memcpy(s->tokens + from, kept, (size_t)tail * sizeof *kept);
        s->position = old;
    }
    free(kept);
    return status;
}

const float *llm_eval(llm_session *s, const int *tokens, int n)
{
    if (lacks(s, "session")) return NULL;
    return check_tokens(s, tokens, n) || eval(s, tokens, n, NULL) ? NULL : s->logits;
}

int llm_eval_all(llm_session *s, const int *tokens, int n, float *logits)
{
    if (lacks(s, "session") || lacks(logits, "room for logits")) return -1;
    int status = check_tokens(s, tokens, n);
    return status ? status : eval(s, tokens, n, logits);
}

int llm_eval_many(llm_session *const *sessions, const int *tokens, int n)
{
    if (n < 1 || n > CHUNK) return fail("%d sessions to evaluate, expected 1 to %d", n, CHUNK);
    if (lacks(sessions, "session") || lacks(tokens, "token")) return -1;
    for (int i = 0; i < n; i++) {
        if (lacks(sessions[i], "session")) return -1;
        if (sessions[i]->model != sessions[0]->model) {
            return fail("sessions 0 and %d are of different models", i);
        }
        int status = check_tokens(sessions[i], tokens + i, 1);
        if (status) return status;
        for (int j = 0; j < i; j++) {
            if (sessions[i] == sessions[j]) return fail("sessions %d and %d are the same", j, i);
        }
    }
    int status = 0;
    for (int i = 0; i < n && !status; i++) {
        choose_rope(sessions[i], sessions[i]->position + 1);
        status = eval(sessions[i], NULL, 0, NULL);
    }
    if (!status) status = borrow(sessions[0]);
    State *next[CHUNK] = { NULL };
    for (int i = 0; i < n && !status; i++) {
        sessions[0]->b->rows[i] = (Row){ sessions[i], tokens[i], sessions[i]->position,
                                         sessions[i]->logits };
        next[i] = begin_state(sessions[i]);
    }
    if (!status) status = forward(sessions[0], n);
    give_back(sessions[0]);
    for (int i = 0; i < n; i++) {
        llm_session *s = sessions[i];
        s->has_logits = !status;
        if (!status) s->tokens[s->position++] = tokens[i], s->valid = s->position;
        if (!status && next[i]) next[i]->position = s->valid;
    }
    return status;
}

/* ==== 10. Sampling ===============================================================================
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
static void penalize(const llm_session *s, Choice *c, float penalty)
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
static int comes_first(Choice a, Choice b)
{
    return a.p > b.p || (a.p == b.p && a.id < b.id);
}

static void sift_down(Choice *heap, int i, int n)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_first(heap[child + 1], heap[child])) child++;
        if (!comes_first(heap[child], heap[i])) return;
        Choice swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
    }
}

/* Moves the first of a heap of n behind it, so that the heap has n - 1. */
static Choice pop_choice(Choice *heap, int n)
{
    Choice first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sift_down(heap, 0, n - 1);
    return first;
}

/* Leaves the kept candidates, likeliest first, at c[n - 1], c[n - 2], ... and returns how many they
 * are. The likeliest has p = 1; sum is that of all p. */
static int keep_likeliest(Choice *c, int n, double sum, const llm_sampling *p)
{
    int most = p->top_k > 0 && p->top_k < n ? p->top_k : n, sorted = 0;
    double mass = 0, share = p->top_p > 0 && p->top_p < 1 ? p->top_p : 2;
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(c, i, n);
    if (most < n) { /* top-p counts within what top-k leaves */
        for (sum = 0; sorted < most; sorted++) sum += pop_choice(c, n - sorted).p;
    }
    for (int i = 0; i < most; i++) {
        float next = i < sorted ? c[n - 1 - i].p : pop_choice(c, n - i).p;
        if (i > 0 && (mass >= share * sum || next < p->min_p)) return i;
        mass += next;
    }
    return most;
}

/* Whether all numbers of the sampling are finite. */
static int check_sampling(const llm_sampling *p)
{
    const struct {
        const char *name;
        float value;
    } numbers[] = { { "temperature", p->temperature },
                    { "top_p", p->top_p },
                    { "min_p", p->min_p },
                    { "repeat_penalty", p->repeat_penalty } };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (isfinite(numbers[i].value)) continue;
        return fail("%s is %g, expected a finite number", numbers[i].name,
                    (double)numbers[i].value);
    }
    return 0;
}

int llm_sample(llm_session *s, const llm_sampling *sampling)
{
    if (lacks(s, "session")) return -1;
    const llm_sampling *p = sampling ? sampling : &s->model->facts.sampling;
    int n = s->model->facts.vocab_size, best = 0;
    Choice *c = s->candidates;
    if (check_sampling(p) || !llm_logits(s)) return -1;
    for (int i = 0; i < n; i++) c[i] = (Choice){ s->logits[i], i };
    penalize(s, c, p->repeat_penalty);
    for (int i = 0; i < s->model->n_suppressed; i++) c[s->model->suppressed[i]].p = -INFINITY;
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

/* ==== 11. Chat and generation ====================================================================
 * Text in, text out. A conversation is its messages: a template writes them down, and what the
 * session has of these tokens already stays. An answer is what the model writes behind that. Tokens
 * are bytes and may split a character, so bytes wait until they are a whole one; text waits while
 * it may become a mark or a stop text. */

/* clang-format off */
/* What writes a conversation down where the model file has no template. To add one: a row. Texts
 * that several models know in this form; a system text is a turn of its own, or stands in front. */
static const struct {
    const char *name, *text;
} templates[] = {
    { "chatml", "{{ bos_token if bos_token != '<|im_start|>' }}{% for m in messages %}"
      "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}" },
    { "llama2", "{% set ns = namespace(system='') %}{% for m in messages %}"
      "{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}"
      "{% elif m.role == 'user' %}{{ bos_token + '[INST] ' + ns.system + m.content|trim"
      " + ' [/INST]' }}{% set ns.system = '' %}"
      "{% else %}{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}{% endfor %}" },
    { "llama3", "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role"
      " + '<|end_header_id|>\n\n' + m.content|trim + '<|eot_id|>' }}{% endfor %}"
      "{% if add_generation_prompt %}"
      "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}" },
    { "mistral", "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
      "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
      "{% elif m.role == 'user' %}{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}"
      "{% set ns.system = '' %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}"
      "{% endfor %}" },
    { "gemma", "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
      "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
      "{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
      " + ns.system + m.content|trim + '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}" },
    { "phi3", "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content"
      " + '<|end|>\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}" },
    { "command-r", "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>'"
      " + {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>'}.get(m.role, '<|CHATBOT_TOKEN|>')"
      " + m.content + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
      "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}" },
    { "deepseek", "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
      "{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
      "{% else %}{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}" },
    { "zephyr", "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content"
      " + eos_token + '\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}" },
    { "vicuna", "{{ bos_token }}{% for m in messages %}"
      "{% if m.role == 'system' %}{{ m.content + ' ' }}"
      "{% elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
      "{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}" },
    { "alpaca", "{{ bos_token }}{% for m in messages %}"
      "{% if m.role == 'system' %}{{ m.content + '\n\n' }}"
      "{% elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}"
      "{% else %}{{ '### Response:\n' + m.content + eos_token + '\n\n' }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}" },
};

/* What stands around the thoughts that a model writes in front of its answer. To add one: a row, in
 * front of the last, which is that of models whose template has none of the others. */
static const struct Thoughts {
    const char *open, *close;
} thoughts[] = {
    { "[THINK]", "[/THINK]" },
    { "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>" },
    { "<|START_THINKING|>", "<|END_THINKING|>" },
    { "<|channel>thought\n", "<channel|>" },
    { "<seed:think>", "</seed:think>" },
    { "<thought>", "</thought>" },
    { "<think>", "</think>" },
};
/* clang-format on */

const char *llm_chat_template(int number)
{
    return number >= 0 && number < (int)ARRAY_LEN(templates) ? templates[number].name : NULL;
}

/* The text of a built-in template, or the text itself. */
static const char *template_text(const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        if (!strcmp(text, templates[i].name)) return templates[i].text;
    }
    return text;
}

/* A text as a JSON string. */
static void put_json(FILE *to, const char *text)
{
    putc('"', to);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        fprintf(to, c < 32 || c == '"' || c == '\\' ? "\\u%04x" : "%c", c);
    }
    putc('"', to);
}

/* Reads the file's own template. One that can't be read is told of where a chat wants it. The
 * special tokens are variables of templates. */
static void load_template(llm_model *m)
{
    const llm_facts *c = &m->facts;
    const struct {
        const char *name;
        int id;
    } special[] = {
        { "bos_token", c->bos },
        { "eos_token", c->eos },
        { "unk_token", key_int(m, "tokenizer.ggml.unknown_token_id", -1, -1, MAX_VOCAB) },
        { "pad_token", key_int(m, "tokenizer.ggml.padding_token_id", -1, -1, MAX_VOCAB) }
    };
    const char *text = template_text(c->chat_template);
    char piece[256], *json = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&json, &len);
    for (size_t i = 0; to && i < ARRAY_LEN(special); i++) {
        int known = special[i].id >= 0 && special[i].id < c->vocab_size;
        *piece = 0;
        llm_decode(m, &special[i].id, known, LLM_SPECIAL, piece, sizeof piece);
        fprintf(to, "%s\"%s\":", i ? "," : "{", special[i].name);
        put_json(to, piece);
    }
    if (to) putc('}', to);
    if (to && !fclose(to)) m->special = take(&m->arena, len + 1, 1);
    if (m->special) memcpy(m->special, json, len);
    free(json);
    if (!*text) return;
    m->template = tokenizer_template_new(text, strlen(text), m->template_error,
                                         sizeof m->template_error);
}

/* A growing list of tokens. */
typedef struct {
    int *data, n;
} Tokens;

static int add_tokens(Tokens *list, const int *tokens, int n)
{
    int *more = realloc(list->data, ((size_t)list->n + (size_t)n + 1) * sizeof *more);
    if (!more) return fail("out of memory for %d tokens", n);
    list->data = more;
    if (n > 0) memcpy(more + list->n, tokens, (size_t)n * sizeof *more);
    list->n += n;
    return 0;
}

/* Encodes a text and adds its tokens; marks as for tokenizer_encode_marked. */
static int add_text(const llm_model *m, Tokens *list, const char *text, const unsigned char *marks,
                    size_t len, int flags)
{
    char why[256];
    int n = 0, room, *tokens = NULL, status;
    if (!m->tokenizer) return fail("the model file has no vocabulary");
    if (len > 1 << 30) return fail("the text has %zu bytes, more than 1 GB", len);
    room = (int)len + 2; /* nearly always enough */
    do {
        free(tokens);
        tokens = malloc((size_t)room * sizeof *tokens);
        if (!tokens) return fail("out of memory for a text of %zu bytes", len);
        n = tokenizer_encode_marked(m->tokenizer, text, marks, len, flags, tokens, room, why,
                                    sizeof why);
    } while (n > room && (room = n));
    status = n < 0 ? fail("%s", why) : add_tokens(list, tokens, n);
    free(tokens);
    return status;
}

/* LLM_BEGIN where text begins behind a token, -1: none. */
static int begins_behind(const llm_model *m, int token)
{
    return token < 0 || tokenizer_is_special(m->tokenizer, token) ? LLM_BEGIN : 0;
}

/* The token in front of a position, -1: none. */
static int token_before(const llm_session *s, int position)
{
    return position ? s->tokens[position - 1] : -1;
}

/* What the text of a token is. */
static int kind_of(const llm_model *m, int token)
{
    if (llm_decode(m, &token, 1, LLM_SPECIAL, NULL, 0) != llm_decode(m, &token, 1, 0, NULL, 0)) {
        return OF_CONTROL;
    }
    return tokenizer_is_special(m->tokenizer, token) ? OF_MARK : OF_TEXT;
}

/* Whether the last turn is open. */
static int in_turn(const llm_session *s)
{
    return s->n_turns > 0 && !s->turns[s->n_turns - 1].text;
}

/* How many tokens were written in the open turn, 0 without one. */
static int open_tokens(const llm_session *s)
{
    return in_turn(s) ? s->position - s->turns[s->n_turns - 1].begin : 0;
}

/* Appends n bytes, for which there is room. */
static void add_marked(Marked *to, const char *text, size_t n, int kind)
{
    memcpy(to->text + to->n, text, n);
    memset(to->kinds + to->n, kind, n);
    to->n += n;
}

/* Writes a text of the template as the model would: with the vocabulary's own tokens, where it has
 * them, so that their text in other tokens is nothing but text. */
static void spell_mark(llm_session *s, Marked *to, const char *text)
{
    const llm_model *m = s->model;
    size_t len = text ? strlen(text) : 0;
    *to = (Marked){ take(&s->arena, len + 1, 1), take(&s->arena, len + 1, 1), 0 };
    for (size_t at = 0, n; to->text && to->kinds && at < len; at += n) {
        int kind = OF_TEXT;
        for (n = len - at; n > 1; n--) {
            int id = m->tokenizer ? tokenizer_find(m->tokenizer, text + at, n) : -1;
            if (id >= 0 && (kind = kind_of(m, id)) != OF_TEXT) break;
        }
        add_marked(to, text + at, n, kind);
    }
}

/* A text that is wanted whatever its tokens are. */
static Marked any_tokens(const char *text)
{
    return (Marked){ (char *)text, NULL, strlen(text) };
}

/* Whether a text has the first n bytes of the wanted one from `at` on. */
static int has_bytes(const Marked *in, size_t at, const Marked *wanted, size_t n)
{
    return !memcmp(in->text + at, wanted->text, n) &&
           (!wanted->kinds || !memcmp(in->kinds + at, wanted->kinds, n));
}

/* Where a text has the wanted one or, at its end, a beginning of it; its length if nowhere. */
static size_t find_marked(const Marked *in, const Marked *wanted)
{
    size_t at = wanted->n ? 0 : in->n, n = wanted->n;
    while (at < in->n && !has_bytes(in, at, wanted, in->n - at < n ? in->n - at : n)) at++;
    return at;
}

/* Writes the messages and what else templates look at as a JSON object; the caller frees it. NULL
 * when out of memory. */
static char *variables_of(const llm_session *s, const Turn *turns, int n, int ask, size_t *len)
{
    char *json = NULL;
    FILE *to = open_memstream(&json, len);
    if (!to) return NULL;
    fprintf(to, "{\"tools\":%s,\"documents\":null,\"add_generation_prompt\":%s,",
            s->tools ? s->tools : "null", ask ? "true" : "false");
    if (s->thinking_asked) {
        const char *on = s->thinking_asked > 0 ? "true" : "false";
        fprintf(to, "\"enable_thinking\":%s,\"thinking\":%s,", on, on);
    }
    fprintf(to, "\"messages\":[");
    for (int i = 0; i < n; i++) {
        fprintf(to, "%s{\"role\":", i ? "," : "");
        put_json(to, turns[i].role);
        fprintf(to, ",\"content\":");
        put_json(to, turns[i].text);
        if (turns[i].thoughts) {
            fprintf(to, ",\"reasoning_content\":");
            put_json(to, turns[i].thoughts);
            fprintf(to, ",\"thinking\":");
            put_json(to, turns[i].thoughts);
        }
        putc('}', to);
    }
    fprintf(to, "]}");
    int failed = ferror(to);
    if (!fclose(to) && !failed) return json;
    free(json);
    return NULL;
}

/* Writes n turns down by the session's template, and with ask what opens an answer. The caller
 * frees the text. */
static int render(const llm_session *s, const Turn *turns, int n, int ask, tokenizer_marked *to)
{
    const llm_model *m = s->model;
    const char *more = s->variables ? s->variables : "{}";
    char why[512];
    size_t len;
    char *json = variables_of(s, turns, n, ask, &len);
    if (!json || !m->special) {
        free(json);
        return fail("out of memory for a conversation of %d turns", n);
    }
    /* a built-in template leaves it to the file whether a text begins with the token for that */
    const char *bos = s->built_in && !m->adds_bos ? "{\"bos_token\":\"\"}" : "{}";
    tokenizer_variables v[] = { { { m->special, strlen(m->special) }, 1 },
                                { { bos, strlen(bos) }, 1 },
                                { { json, len }, 0 },
                                { { more, strlen(more) }, 0 } };
    int status = tokenizer_render(s->template, v, ARRAY_LEN(v), s->now, to, why, sizeof why);
    free(json);
    return status ? fail("%s", why) : 0;
}

/* Whether the text has a token's at a place: a mark's where all bytes may be a mark's. Sets its
 * length. */
static int has_token(const llm_session *s, const tokenizer_marked *text, size_t at, int i,
                     size_t *len)
{
    char piece[1024];
    int token = s->tokens[i], flags = LLM_SPECIAL | begins_behind(s->model, token_before(s, i));
    *len = llm_decode(s->model, &token, 1, flags, piece, sizeof piece);
    if (*len >= sizeof piece || *len > text->len - at || memcmp(piece, text->text + at, *len)) {
        return 0;
    }
    return kind_of(s->model, token) == OF_TEXT || !memchr(text->marks + at, 0, *len);
}

/* Adds the tokens of a text. As far as it begins with the session's, up to the last answer of the
 * model's own that ends there, it keeps these (sets how many): a model may cut its own text into
 * other tokens than the tokenizer would. */
static int line_up(const llm_session *s, const tokenizer_marked *text, Tokens *list, int *kept)
{
    size_t at = 0, same = 0, len;
    *kept = 0;
    for (int i = 0, turn = 0; i < s->position; i++, at += len) {
        while (turn < s->n_turns && s->turns[turn].end <= i) turn++; /* or not the model's */
        if (turn == s->n_turns || !has_token(s, text, at, i, &len)) break;
        if (s->turns[turn].end == i + 1) *kept = i + 1, same = at + len;
    }
    if (add_tokens(list, s->tokens, *kept)) return -1;
    return add_text(s->model, list, text->text + same, text->marks + same, text->len - same,
                    begins_behind(s->model, token_before(s, *kept)));
}

static const char *const white_space = " \t\n\v\f\r";

/* Whether a text leaves a thought open. */
static int opens_thought(const llm_session *s, const tokenizer_marked *text)
{
    size_t n = strlen(s->thoughts->open), end = text->len;
    while (n > 0 && strchr(white_space, s->thoughts->open[n - 1])) n--;
    while (end > 0 && strchr(white_space, text->text[end - 1])) end--;
    return end >= n && !memcmp(text->text + end - n, s->thoughts->open, n) &&
           !memchr(text->marks + end - n, 0, n);
}

/* The tokens of n turns, of which the last may be open, and whether its opening leaves a thought
 * open. */
static int lay_out(const llm_session *s, Turn *turns, int n, Tokens *list, int *opened)
{
    tokenizer_marked text;
    int open = n > 0 && !turns[n - 1].text, kept;
    *list = (Tokens){ 0 };
    if (render(s, turns, n - open, open, &text)) return -1;
    int status = line_up(s, &text, list, &kept);
    *opened = opens_thought(s, &text);
    free(text.text);
    for (int i = 0; i < n - open; i++) {
        if (turns[i].end > kept) turns[i].end = -1;
    }
    return status;
}

/* Whether a template that can't write the turns down could if a question followed: then they are
 * read with it. There is room for one more. */
static int wants_question(const llm_session *s, Turn *turns, int n)
{
    tokenizer_marked text;
    if (!turns[n - 1].text || !strcmp(turns[n - 1].role, "user")) return 0;
    char why[sizeof error_text];
    memcpy(why, error_text, sizeof why);
    turns[n] = (Turn){ .role = "user", .text = "?" };
    if (render(s, turns, n + 1, 0, &text)) return fail("%s", why), 0;
    free(text.text);
    return 1;
}

/* Makes the conversation that of n turns, and with it the session's past. `written` tokens of the
 * session's end belong to the last turn. On success the session has the new array, and the caller
 * the old one; fails with LLM_FULL, like on other failures with all as before, where not `room`
 * positions are left then. */
static int converse(llm_session *s, Turn *turns, int n, int written, int room)
{
    Tokens list = { 0 };
    int opened = 0, status = n ? lay_out(s, turns, n, &list, &opened) : 0, begin = list.n;
    if (status && wants_question(s, turns, n))
        status = add_tokens(&list, s->tokens, n > 1 ? s->position : 0);
    if (!status) status = add_tokens(&list, s->tokens + s->position - written, written);
    if (!status && list.n > s->context - room) status = full(s, list.n, 0);
    if (!status) status = replace(s, 0, list.data, list.n);
    free(list.data);
    if (status) return status;
    if (n > 0 && !turns[n - 1].text) {
        int moved = in_turn(s) ? begin - s->turns[s->n_turns - 1].begin : 0;
        turns[n - 1].begin = s->answer = begin;
        s->start += moved, s->written += moved; /* the text that is written goes on */
    }
    s->turns = turns, s->n_turns = n, s->opened_thought = opened;
    return 0;
}

/* The turns without count of them from number first on, with the texts that they have. */
static Turn *turns_without(const llm_session *s, int first, int count)
{
    int behind = s->n_turns - first - count;
    Turn *left = calloc((size_t)(first + behind) + 2, sizeof *left);
    if (!left) {
        fail("out of memory");
        return NULL;
    }
    if (first) memcpy(left, s->turns, (size_t)first * sizeof *left);
    if (behind) memcpy(left + first, s->turns + first + count, (size_t)behind * sizeof *left);
    return left;
}

/* Takes count turns from number first on away. `room` as for converse. */
static int drop(llm_session *s, int first, int count, int room)
{
    Turn *old = s->turns, *left = turns_without(s, first, count);
    int n = s->n_turns - count, stays = first + count < s->n_turns;
    if (!left) return -1;
    int status = converse(s, left, n, stays ? open_tokens(s) : 0, room);
    for (int i = first; i < first + count && !status; i++) free_turn(&old[i]);
    free(status ? left : old);
    return status;
}

/* The positions that the conversation takes without the turns from first on up to number i; INT_MAX
 * if it has none such. */
static int positions_without(const llm_session *s, int first, int i)
{
    Turn *left = turns_without(s, first, i - first);
    int n = s->n_turns - (i - first), opened;
    Tokens list = { 0 };
    int status = left ? lay_out(s, left, n, &list, &opened) : -1, used = list.n;
    free(list.data);
    free(left);
    return status ? INT_MAX : used + open_tokens(s);
}

/* Drops the oldest questions and answers behind the system prompt, so that a quarter of the context
 * is free, or at least the session fits. */
static int make_room(llm_session *s)
{
    int first = !strcmp(s->turns[0].role, "system"), n = 0, status = LLM_FULL;
    int rooms[] = { s->context / 4, 1, 0 }, *users = malloc((size_t)s->n_turns * sizeof *users);
    if (!users) return fail("out of memory");
    for (int i = first + 1; i < s->n_turns; i++) {
        if (!strcmp(s->turns[i].role, "user")) users[n++] = i;
    }
    for (size_t k = 0; k < ARRAY_LEN(rooms) && status == LLM_FULL; k++) {
        int low = 0, high = n;
        while (low < high) { /* fewer turns take less room */
            int i = (low + high) / 2;
            int fits = positions_without(s, first, users[i]) <= s->context - rooms[k];
            fits ? (high = i) : (low = i + 1);
        }
        if (low < n) status = drop(s, first, users[low] - first, rooms[k]);
    }
    if (status == LLM_FULL) {
        int least = positions_without(s, first, n > 0 ? users[n - 1] : first);
        status = least < INT_MAX ? full(s, least, 0) : -1;
    }
    free(users);
    return status;
}

int llm_drop(llm_session *s, int first, int count)
{
    if (lacks(s, "session")) return -1;
    if (first < 0 || count < 1 || count > s->n_turns || first > s->n_turns - count) {
        return fail("%d turns from number %d on, of %d", count, first, s->n_turns);
    }
    int last_goes = first + count == s->n_turns, status = drop(s, first, count, 0);
    if (!status && last_goes) begin_writing(s);
    return status;
}

/* Appends a text; at position 0 a text begins. */
static int append(llm_session *s, const char *text)
{
    Tokens list = { 0 };
    int before = token_before(s, s->position);
    int flags = TOKENIZER_USER_DEFINED | begins_behind(s->model, before);
    if (s->position == 0) flags |= LLM_BOS;
    int status = add_text(s->model, &list, text, NULL, strlen(text), flags);
    if (!status && list.n > s->context - s->position) status = full(s, list.n, s->position);
    if (!status && list.n) status = eval(s, list.data, list.n, NULL);
    free(list.data);
    return status;
}

/* Evaluates the prompt, or what stands for an empty one. */
static int eval_prompt(llm_session *s, const char *prompt)
{
    const llm_facts *c = &s->model->facts;
    int start = c->bos >= 0 ? c->bos : c->eos;
    if (*prompt) return append(s, prompt);
    if (s->position == 0) {
        if (start < 0) return fail("the model has no token that begins a text: give a prompt");
        return eval(s, &start, 1, NULL);
    }
    choose_rope(s, s->position);
    if (!s->has_logits) invalidate(s, s->position - 1); /* for the last token's logits */
    return eval(s, NULL, 0, NULL);
}

/* What llm_generate's callback is told, and what it said. */
typedef struct {
    llm_session *s;
    int (*on_text)(void *user, const char *text, size_t len);
    void *user;
    int done, stopped; /* by on_text; by a stop text */
    int failed;        /* out of memory */
} Writer;

/* Moves the whole characters from s->piece to s->text, with U+FFFD for what is none. An unfinished
 * character stays, unless this is the last call. */
static void take_characters(llm_session *s, int kind, int last)
{
    const char *p = s->piece;
    size_t n = s->n_piece;
    while (n > 0) {
        int length = tokenizer_char(p, n);
        if (length == 0 && !last) break;
        const char *character = length > 0 ? p : "\xef\xbf\xbd";
        add_marked(&s->text, character, length > 0 ? (size_t)length : 3, kind);
        if (length <= 0) length = length == 0 ? (int)n : 1;
        p += length;
        n -= (size_t)length;
    }
    memmove(s->piece, p, n);
    s->n_piece = n;
}

/* LLM_BEGIN where the text that is written has nothing in front of it but special tokens. */
static int begins_text(const llm_session *s)
{
    return s->start > 1 ? 0 : begins_behind(s->model, token_before(s, s->start));
}

/* Appends a token to the text. */
static void take_token(llm_session *s, int token)
{
    int kind = kind_of(s->model, token), flags = s->written == s->start ? begins_text(s) : 0;
    if (kind != OF_TEXT) take_characters(s, OF_TEXT, 1);
    s->n_piece += llm_decode(s->model, &token, 1, LLM_SPECIAL | flags, s->piece + s->n_piece,
                             s->model->max_piece + 1);
    take_characters(s, kind, kind != OF_TEXT);
    s->written++;
}

/* Gives out the first n bytes of the text, and drops `skip` more. */
static void give(Writer *w, size_t n, size_t skip)
{
    llm_session *s = w->s;
    Marked *t = &s->text;
    size_t len = 0;
    char next = t->text[n];
    for (size_t i = 0; i < n; i++) {
        int space = len == 0 && s->skip_space && (t->text[i] == ' ' || t->text[i] == '\n');
        if (t->kinds[i] != OF_CONTROL && !space) t->text[len++] = t->text[i];
    }
    t->text[len] = 0;
    if (len > 0) s->skip_space = 0;
    if (len > 0 && in_turn(s)) w->failed |= hear(&s->heard[s->thinking], t->text, len);
    if (len > 0 && w->on_text && !w->done) w->done = w->on_text(w->user, t->text, len);
    t->text[n] = next;
    n += skip;
    t->n -= n;
    memmove(t->text, t->text + n, t->n);
    memmove(t->kinds, t->kinds + n, t->n);
}

/* What to look for in the text: number 0 the mark at the next end of a thought, which may begin
 * where an answer does; 1 what closes the turn; then the stop texts. 0 behind the last. */
static int nth_wanted(const llm_session *s, int i, Marked *to)
{
    const Marked *marks = s->marks;
    int turn = in_turn(s);
    *to = any_tokens("");
    if (i == 0 && turn && s->thinking) *to = marks[THOUGHT_CLOSE];
    if (i == 0 && turn && !s->thinking && s->skip_space) *to = marks[THOUGHT_OPEN];
    if (i == 1 && turn && !s->thinking) *to = marks[TURN_CLOSE];
    if (i < 2) return 1;
    if (!s->stops || !s->stops[i - 2]) return 0;
    *to = any_tokens(s->stops[i - 2]);
    return 1;
}

/* Gives out the text up to what may be the beginning of a mark or of a stop text; all of it at the
 * last call. */
static void give_text(Writer *w, int last)
{
    llm_session *s = w->s;
    Marked *t = &s->text, wanted;
    while (t->n > 0 && !w->stopped) {
        size_t first = t->n, length = 1;
        int which = 0;
        for (int i = 0; nth_wanted(s, i, &wanted); i++) {
            size_t at = find_marked(t, &wanted);
            if (at < first) first = at, length = wanted.n, which = i;
        }
        int whole = first + length <= t->n;
        give(w, whole || !last ? first : t->n, whole ? length : 0);
        if (!whole) return;
        w->stopped = which > 0;
        if (which == 0) s->thinking = !s->thinking, s->skip_space = 1;
    }
}

/* The text that is written from now on begins here. */
static void restart_text(llm_session *s)
{
    s->n_piece = s->text.n = 0;
    s->start = s->written = s->position;
}

/* Takes the tokens that were evaluated since the last one that was written: in an open turn they
 * belong to its text, else the text begins behind them. Nothing is given out. */
static int catch_up(llm_session *s)
{
    Writer silent = { .s = s };
    if (!in_turn(s) && s->written != s->position) restart_text(s);
    while (s->written < s->position) {
        take_token(s, s->tokens[s->written]);
        do silent.stopped = 0, give_text(&silent, 0);
        while (silent.stopped); /* a token may have several stop texts */
    }
    s->written = s->position;
    return silent.failed ? -1 : 0;
}

/* After a change of the last turn: nothing waits to be given out but what stands there unfinished,
 * and what is written next is a thought if that leaves one open. */
static void begin_writing(llm_session *s)
{
    restart_text(s);
    s->heard[0].n = s->heard[1].n = 0;
    s->thinking = in_turn(s) && s->opened_thought;
    s->skip_space = in_turn(s);
    if (!in_turn(s) || !s->model->tokenizer) return;
    s->start = s->written = s->turns[s->n_turns - 1].begin;
    catch_up(s);
}

/* After a stop text, which the last token, not evaluated yet, made whole: the session goes back to
 * the text in front of it. After the text that closes a turn, to the last token. */
static int unsay(llm_session *s, int token)
{
    const int *tokens = s->tokens + s->start;
    int n = s->position + 1 - s->start, k = 0, flags = LLM_SPECIAL | begins_text(s);
    size_t len, at, done = 0, piece;
    s->tokens[s->position] = token;
    at = len = llm_decode(s->model, tokens, n, flags, NULL, 0);
    char *text = malloc(len + 1);
    if (!text) return fail("out of memory");
    llm_decode(s->model, tokens, n, flags, text, len + 1);
    size_t before = llm_decode(s->model, tokens, n - 1, flags, NULL, 0);
    for (int i = 0; s->stops && s->stops[i]; i++) {
        size_t size = strlen(s->stops[i]), from = before < size ? 0 : before - size + 1;
        while (from + size <= len && memcmp(text + from, s->stops[i], size)) from++;
        if (from + size <= len && from < at) at = from;
    }
    for (; k < n; k++, done += piece) {
        piece = llm_decode(s->model, tokens + k, 1, k ? flags & ~LLM_BEGIN : flags, NULL, 0);
        if (done + piece > at) break;
    }
    cut(s, s->start + k < s->position ? s->start + k : s->position);
    text[at] = 0;
    int status = done < at ? append(s, text + done) : 0;
    if (status == LLM_FULL) status = 0; /* a beginning of a token has no place of its own then */
    free(text);
    restart_text(s);
    return status;
}

/* Gives out what waits. In a full context an unfinished character stays away. */
static void end_writing(Writer *w)
{
    llm_session *s = w->s;
    if (s->position < s->context) take_characters(s, OF_TEXT, 1);
    give_text(w, 1);
    restart_text(s);
}

/* See llm_write. */
static int write_token(Writer *w, int token)
{
    llm_session *s = w->s;
    if (token < 0 || llm_is_stop(s->model, token) || (in_turn(s) && token == s->end_mark)) {
        end_writing(w);
        return 1;
    }
    take_token(s, token);
    give_text(w, 0);
    if (w->failed) return -1;
    if (!w->stopped) return 0;
    return unsay(s, token) ? -1 : 1;
}

/* Gives the open last turn what was heard as its text. */
static int close_turn(llm_session *s)
{
    Turn *turn = &s->turns[s->n_turns - 1];
    Writer silent = { .s = s };
    if (catch_up(s)) return -1;
    end_writing(&silent);
    if (silent.failed) return -1;
    turn->text = strndup(s->heard[0].n ? s->heard[0].text : "", s->heard[0].n);
    if (s->heard[1].n) turn->thoughts = strndup(s->heard[1].text, s->heard[1].n);
    if (!turn->text || (s->heard[1].n && !turn->thoughts)) return fail("out of memory");
    turn->end = s->position > turn->begin ? s->position : -1;
    return 0;
}

static void open_again(Turn *turn)
{
    free(turn->text);
    free(turn->thoughts);
    turn->text = turn->thoughts = NULL;
    turn->end = -1;
}

int llm_turn(llm_session *s, const char *role, const char *text)
{
    if (lacks(s, "session") || lacks(role, "role")) return -1;
    const llm_model *m = s->model;
    int open = in_turn(s), n = s->n_turns, status = 0;
    if (!*role || strlen(role) > MAX_ROLE) return fail("a role of %zu bytes", strlen(role));
    if (!text && strcmp(role, "assistant")) return fail("a turn of %s without a text", role);
    if (!s->template) {
        return *m->template_error ? fail("%s", m->template_error)
                                  : fail("the model file has no chat template");
    }
    Turn *old = s->turns, *more = NULL, turn = { .begin = s->position, .end = -1 };
    turn.role = strdup(role);
    turn.text = text ? strdup(text) : NULL;
    if (!turn.role || (text && !turn.text)) status = fail("out of memory");
    if (!status && open) status = close_turn(s);
    if (!status && !(more = turns_without(s, n, 0))) status = -1;
    if (!status) more[n] = turn;
    if (!status) status = converse(s, more, n + 1, 0, 0);
    if (status == LLM_FULL && s->shift && n > 0) {
        s->turns = more, s->n_turns = n + 1;
        if ((status = make_room(s))) s->turns = old, s->n_turns = n;
    }
    if (!status) {
        free(old);
        begin_writing(s);
        return 0;
    }
    if (open) open_again(&old[n - 1]), begin_writing(s);
    free_turn(&turn);
    free(more);
    return status;
}

/* Where the turns in front of one end, INT_MAX where the session does not have them as such. */
static int turn_start(const llm_session *s, int turn)
{
    Turn *left = turns_without(s, turn, s->n_turns - turn);
    Tokens list = { 0 };
    int opened, start = turn ? INT_MAX : 0;
    if (turn > 0 && left && !lay_out(s, left, turn, &list, &opened) && list.n <= s->position &&
        !memcmp(list.data, s->tokens, (size_t)list.n * sizeof *list.data)) {
        start = list.n;
    }
    free(list.data);
    free(left);
    return start;
}

/* How many turns stay if what comes from a position on goes. */
static int turns_until(const llm_session *s, int position)
{
    int n = s->n_turns;
    if (position == 0) return 0;
    if (in_turn(s) && s->turns[n - 1].begin > position) n--;
    while (n > 0 && s->turns[n - 1].text && turn_start(s, n) > position) n--;
    return n;
}

/* Keeps the first n turns. */
static void keep_turns(llm_session *s, int n)
{
    while (s->n_turns > n) free_turn(&s->turns[--s->n_turns]);
    begin_writing(s);
}

int llm_sync(llm_session *s, const int *tokens, int n)
{
    if (lacks(s, "session")) return -1;
    int same = 0, status = n ? check_ids(s, tokens, n) : 0;
    if (!status && n > s->context) status = full(s, n, 0);
    if (status) return status;
    while (same < n && same < s->position && tokens[same] == s->tokens[same]) same++;
    int turns = turns_until(s, same);
    if ((status = replace(s, 0, tokens, n))) return status;
    keep_turns(s, turns);
    return 0;
}

int llm_turns(const llm_session *s)
{
    if (lacks(s, "session")) return -1;
    return s->n_turns;
}

int llm_turn_start(const llm_session *s, int turn)
{
    if (lacks(s, "session")) return -1;
    int start = turn >= 0 && turn < s->n_turns ? turn_start(s, turn) : -1;
    return start < INT_MAX ? start : -1;
}

const char *llm_turn_role(const llm_session *s, int turn)
{
    if (lacks(s, "session")) return NULL;
    return turn >= 0 && turn < s->n_turns ? s->turns[turn].role : NULL;
}

const char *llm_turn_text(const llm_session *s, int turn)
{
    if (lacks(s, "session")) return NULL;
    return turn >= 0 && turn < s->n_turns ? s->turns[turn].text : NULL;
}

/* What the thoughts of the model stand between: the first of the table that the template knows. */
static void pick_thoughts(llm_session *s, const char *source)
{
    s->thoughts = thoughts;
    while (s->thoughts < thoughts + ARRAY_LEN(thoughts) - 1) {
        size_t n = strcspn(s->thoughts->open, "\n");
        char open[64];
        snprintf(open, sizeof open, "%.*s", (int)n, s->thoughts->open);
        if (strstr(source, open)) break;
        s->thoughts++;
    }
    spell_mark(s, &s->marks[THOUGHT_OPEN], s->thoughts->open);
    spell_mark(s, &s->marks[THOUGHT_CLOSE], s->thoughts->close);
}

/* A copy that lives as long as the session, of NULL too. */
static char *keep_text(llm_session *s, const char *text)
{
    char *copy = text ? take(&s->arena, strlen(text) + 1, 1) : NULL;
    if (copy) strcpy(copy, text);
    return copy;
}

/* Whether the variables and tools that the options give are JSON. */
static int check_variables(const llm_session *s)
{
    static const char count[] = "{{ tools|length if tools[0] is none or tools[0] is sequence and "
                                "tools[0] is not string and tools[0] is not mapping }}";
    char why[512], *json = NULL;
    size_t len = 0;
    tokenizer_marked text = { 0 };
    if (!s->variables && !s->tools) return 0;
    tokenizer_template *t = tokenizer_template_new(count, strlen(count), why, sizeof why);
    FILE *to = open_memstream(&json, &len);
    if (to) fprintf(to, "{\"tools\":[%s]}", s->tools ? s->tools : "null");
    if (!to || fclose(to) || !t) {
        free(json);
        tokenizer_template_free(t);
        return fail("out of memory");
    }
    const char *more = s->variables ? s->variables : "{}";
    tokenizer_variables v[] = { { { more, strlen(more) }, 0 }, { { json, len }, 0 } };
    int status = tokenizer_render(t, v, 2, 0, &text, why, sizeof why);
    if (status)
        status = fail("%s", why);
    else if (strcmp(text.text, "1"))
        status = fail("the tools are no JSON list");
    free(text.text);
    free(json);
    tokenizer_template_free(t);
    return status;
}

/* Takes the template that the options name, or the file's, and what is told to it. Some files have
 * one more for conversations with tools. */
static int choose_template(llm_session *s, const llm_options *o)
{
    const llm_model *m = s->model;
    const char *asked = o->chat_template;
    char why[512];
    if (!asked && o->tools && *m->tools_template) asked = m->tools_template;
    const char *given = asked ? asked : m->facts.chat_template, *text = template_text(given);
    s->now = time(NULL);
    s->built_in = text != given;
    s->thinking_asked = o->thinking;
    s->template_text = keep_text(s, asked);
    s->variables = keep_text(s, o->variables);
    s->tools = keep_text(s, o->tools);
    s->template = m->template;
    if (asked && !strchr(text, '{')) {
        return *text ? fail("no chat template %.64s", text) : fail("the chat template is empty");
    }
    if (asked) {
        s->own_template = tokenizer_template_new(text, strlen(text), why, sizeof why);
        s->template = s->own_template;
        if (!s->template) return fail("%s", why);
    }
    pick_thoughts(s, text);
    return check_variables(s);
}

/* Looks at how the template goes on behind an answer, to know what ends one: a mark, or, where the
 * vocabulary has no token for it, its text. */
static void find_end(llm_session *s)
{
    enum { MARK = 64 };
    static const char answer[] = "Qx7", next[] = "Zw3";
    Turn turns[] = { { .role = "user", .text = "Q" },
                     { .role = "assistant", .text = (char *)answer },
                     { .role = "user", .text = (char *)next } };
    tokenizer_marked text;
    Tokens list = { 0 };
    s->end_mark = -1;
    if (!s->template || !s->model->tokenizer || render(s, turns, 3, 0, &text)) return;
    char *from = strstr(text.text, answer), *to = from ? strstr(from, next) : NULL;
    const unsigned char *marks = from ? text.marks + (from - text.text) + strlen(answer) : NULL;
    if (to) from += strlen(answer);
    if (to && !add_text(s->model, &list, from, marks, (size_t)(to - from), 0)) {
        for (int i = 0; i < list.n && s->end_mark < 0; i++) {
            char piece[MARK] = { 0 };
            llm_decode(s->model, &list.data[i], 1, LLM_SPECIAL, piece, sizeof piece);
            if (kind_of(s->model, list.data[i]) == OF_TEXT) continue;
            if (strstr(s->thoughts->close, piece)) break; /* it ends thoughts alone */
            s->end_mark = list.data[i];
        }
        from += strspn(from, white_space);
        char *end = *from && strchr("<[", *from) ? strchr(from, *from == '<' ? '>' : ']') : NULL;
        size_t len = end && end < to ? (size_t)(end - from) + 1 : MARK;
        if (len < MARK && tokenizer_find(s->model->tokenizer, from, len) < 0) {
            end[1] = 0;
            spell_mark(s, &s->marks[TURN_CLOSE], from);
            snprintf(s->warning, sizeof s->warning,
                     "the vocabulary has no token %s, with which the chat template ends answers",
                     from);
        }
    }
    free(list.data);
    free(text.text);
}

int llm_write(llm_session *s, int token, int (*on_text)(void *user, const char *text, size_t len),
              void *user)
{
    if (lacks(s, "session")) return -1;
    Writer w = { .s = s, .on_text = on_text, .user = user };
    if (!s->model->tokenizer) return fail("the model file has no vocabulary");
    if (token >= 0 && !llm_is_stop(s->model, token) && check_tokens(s, &token, 1)) return -1;
    return catch_up(s) ? -1 : write_token(&w, token);
}

int llm_is_thought(const llm_session *s)
{
    if (lacks(s, "session")) return -1;
    return s->thinking;
}

/* The tokens that followed the longest piece of text that is as the end of it is now, with `token`
 * behind it: at most `most` of them, and as many as there are; where they reach the end, what
 * repeats goes on. */
static int draft(const llm_session *s, int token, int *to, int most)
{
    const int *tokens = s->tokens;
    int n = s->position, best = SAME_BEFORE - 1, at = 0, count = 0;
    for (int i = n - 1; i >= SAME_BEFORE - 1 && best < 2 * FEW_ROWS; i--) {
        int same = 0;
        if (tokens[i] != token) continue;
        do same++;
        while (same < 2 * FEW_ROWS && i >= same && tokens[i - same] == tokens[n - same]);
        if (same > best) best = same, at = i + 1;
    }
    for (; at && count < most; count++, at++) {
        to[count] = at < n ? tokens[at] : at == n ? token : to[at - n - 1];
    }
    return count;
}

/* How many tokens may be drafted: as many as a batch has that gives the bits of single steps, as
 * fit, and as have the same rotations. Layers with a state can't take back a part of a batch. */
static int room_for_drafts(const llm_session *s, int wanted)
{
    const Drafts *d = &s->drafts;
    int first = s->position + 1, end = s->context;
    if (d->kind == NO_DRAFTS || s->n_states || s->valid < s->position) return 0;
    if (d->kind != ALWAYS && (d->wait > 0 || d->steps < LEARN_STEPS)) return 0;
    if (s->model->ropes[LONG_ROPE].turns && first <= s->model->short_context &&
        end > s->model->short_context) {
        end = s->model->short_context;
    }
    int most = wanted < d->length ? wanted : d->length;
    return most < end - first ? most : end - first;
}

/* Forgets what was drafted and not drawn. */
static void drop_drafts(llm_session *s)
{
    if (s->valid > s->position) invalidate(s, s->position);
}

/* After a draft of which `right` tokens were drawn: whether the next one comes soon, and is longer.
 * Only times depend on it. */
static void judge_draft(Drafts *d, int drafted, int right)
{
    if (d->alone > 0) d->gain += ((float)right + 1 - (float)(d->cost / d->alone) - d->gain) / 4;
    int pays = d->kind == ALWAYS || d->gain > 0;
    d->rest = pays ? 0 : d->rest ? 2 * d->rest : DRAFT_REST;
    if (d->rest > MAX_DRAFT_REST) d->rest = MAX_DRAFT_REST;
    d->wait = d->rest;
    d->length = right == drafted ? 2 * drafted : right + 1;
    if (d->length > FEW_ROWS - 1) d->length = FEW_ROWS - 1;
}

/* Appends a token that was drawn; `wanted` more may be. Where it was drafted, its logits are known;
 * else it is evaluated with the next draft. */
static int eval_drawn(llm_session *s, int token, int wanted)
{
    Drafts *d = &s->drafts;
    size_t vocab = (size_t)s->model->facts.vocab_size;
    int at = s->position - d->from, ahead = s->valid - s->position, n = 1;
    if (ahead > 0 && d->tokens[at] == token) {
        memcpy(s->logits, d->logits + (size_t)at * vocab, vocab * sizeof *s->logits);
        s->position++, d->right++;
        if (ahead == 1) judge_draft(d, at, at);
        return 0;
    }
    if (ahead > 0) judge_draft(d, at + ahead - 1, at - 1);
    drop_drafts(s);
    int most = room_for_drafts(s, wanted);
    if (most > 0) n += draft(s, token, d->tokens + 1, most);
    if (n > 1 && !d->logits) {
        d->logits = malloc(FEW_ROWS * vocab * sizeof *d->logits);
        if (!d->logits) n = 1;
    }
    d->tokens[0] = token, d->from = s->position;
    double start = seconds();
    int status = eval(s, d->tokens, n, n > 1 ? d->logits : NULL);
    if (status) return status;
    d->cost = seconds() - start;
    if (n == 1) {
        d->alone = d->steps++ ? d->alone + (d->cost - d->alone) / 8 : d->cost;
        if (d->wait > 0) d->wait--;
        return 0;
    }
    d->drafted += n - 1;
    memcpy(s->logits, d->logits, vocab * sizeof *s->logits);
    s->position = d->from + 1;
    return 0;
}

/* See llm_generate. */
static int write_on(Writer *w, const char *prompt, int max_tokens, const llm_sampling *sampling)
{
    llm_session *s = w->s;
    int count = 0, status, ended = 0, prompted = *prompt;
    if ((status = eval_prompt(s, prompt))) return status;
    if (catch_up(s)) return -1;
    if (prompted) s->n_piece = s->text.n = 0; /* nothing of it is given out */
    while (!w->done && !ended && (max_tokens <= 0 || count < max_tokens)) {
        if (s->position == s->context && in_turn(s) && s->shift) {
            if ((status = make_room(s)) == LLM_FULL) break;
            if (status || (status = eval_prompt(s, ""))) return status;
        }
        if (s->position == s->context) break;
        int token = llm_sample(s, sampling);
        if (token < 0 || (ended = write_token(w, token)) < 0) return -1;
        if (!ended &&
            (status = eval_drawn(s, token, max_tokens > 0 ? max_tokens - count - 1 : INT_MAX))) {
            s->position++; /* it was given out; the next call evaluates it */
            return status;
        }
        count += !ended;
    }
    if (!ended && s->position == s->context) end_writing(w);
    return count;
}

int llm_generate(llm_session *s, const char *prompt, int max_tokens, const llm_sampling *sampling,
                 int (*on_text)(void *user, const char *text, size_t len), void *user)
{
    if (lacks(s, "session")) return -1;
    if (!s->model->tokenizer) return fail("the model file has no vocabulary");
    Writer w = { .s = s, .on_text = on_text, .user = user };
    int status = write_on(&w, prompt ? prompt : "", max_tokens, sampling);
    drop_drafts(s);
    return status;
}

/* A session in a file: a head and segments, each of what is new since the one before it. A segment
 * is a Saved, then tokens, keys and values of each layer and head, logits, and turns with their
 * texts; each part is filled up to 8 bytes. What lies behind the size that the head
 * tells is a segment that was not finished, and does not count. */
typedef struct {
    char magic[8];
    uint64_t size, hash, check; /* checksums of the segments, and of what the head has before it */
} SavedHead;

typedef struct {
    uint64_t size, model, random; /* of the segment; fingerprint of the model; random state */
    int64_t now;                  /* the time that templates are told */
    int32_t from, valid;          /* tokens, keys and values begin at `from` */
    int32_t position, n_turns, has_logits, long_rope, opened_thought, unused;
    char cache[16];
} Saved;

typedef struct {
    int32_t begin, end;
    int32_t lengths[3], unused; /* of role, text and thoughts; -1: there is none */
} SavedTurn;

static const char saved_magic[8] = "llmses3";

static size_t padded(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* Mixes n bytes, a multiple of 8, into a checksum. */
static uint64_t checksum(uint64_t hash, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    }
    return hash;
}

/* Tells models apart: by the size of the file, what stands in front of the tensors, and how each of
 * them begins. */
static uint64_t fingerprint(llm_session *s)
{
    const File *f = &s->model->file;
    if (s->model_hash) return s->model_hash;
    size_t first = f->size;
    uint64_t hash = 1;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const Tensor *t = &f->tensors[i];
        size_t at = (size_t)((uintptr_t)t->data - (uintptr_t)f->data); /* large in another part */
        hash = checksum(hash, t->data, t->bytes < 256 ? t->bytes / 8 * 8 : 256);
        if (at < first) first = at;
    }
    return s->model_hash = checksum(hash ^ f->size, f->data, first / 8 * 8);
}

typedef struct {
    FILE *file; /* NULL: bytes are counted */
    uint64_t size, hash;
    int failed;
} Saver;

static void save_bytes(Saver *w, const void *data, size_t n)
{
    uint8_t rest[8] = { 0 };
    size_t whole = n / 8 * 8;
    w->size += padded(n);
    if (!w->file || n == 0) return;
    if (n > whole) memcpy(rest, (const uint8_t *)data + whole, n - whole);
    w->hash = checksum(w->hash, data, whole);
    if (n > whole) w->hash = checksum(w->hash, rest, 8);
    w->failed |= fwrite(data, 1, whole, w->file) != whole ||
                 (n > whole && fwrite(rest, 1, 8, w->file) != 8);
}

/* A segment of what comes from position `from` on. */
static void save_segment(Saver *w, llm_session *s, int from, uint64_t size)
{
    const llm_facts *c = &s->model->facts;
    Saved h = { .size = size,
                .model = fingerprint(s),
                .random = s->random,
                .from = from,
                .position = s->position,
                .valid = s->valid,
                .has_logits = s->has_logits,
                .long_rope = s->long_rope,
                .now = s->now,
                .opened_thought = s->opened_thought,
                .n_turns = s->n_turns };
    snprintf(h.cache, sizeof h.cache, "%s", s->cache->name);
    save_bytes(w, &h, sizeof h);
    save_bytes(w, s->tokens + from, (size_t)(s->position - from) * sizeof *s->tokens);
    for (int i = 0; i < s->model->n_kept; i++) {
        size_t bytes;
        const uint8_t *data = kept(s, i, &bytes);
        save_bytes(w, data + (size_t)from * bytes, (size_t)(s->valid - from) * bytes);
    }
    const float *state = state_of_valid(s);
    if (state) save_bytes(w, state, (size_t)s->model->state * sizeof *state);
    if (s->has_logits) save_bytes(w, s->logits, (size_t)c->vocab_size * sizeof *s->logits);
    for (int i = 0; i < s->n_turns; i++) {
        const Turn *t = &s->turns[i];
        const char *texts[] = { t->role, t->text, t->thoughts };
        SavedTurn turn = { .begin = t->begin, .end = t->end };
        for (int k = 0; k < 3; k++) turn.lengths[k] = texts[k] ? (int)strlen(texts[k]) : -1;
        save_bytes(w, &turn, sizeof turn);
        for (int k = 0; k < 3; k++) {
            if (texts[k]) save_bytes(w, texts[k], strlen(texts[k]));
        }
    }
}

static uint64_t segment_size(llm_session *s, int from)
{
    Saver count = { 0 };
    save_segment(&count, s, from, 0);
    return count.size;
}

static SavedHead head_of(uint64_t size, uint64_t hash)
{
    SavedHead h = { .size = size, .hash = hash };
    memcpy(h.magic, saved_magic, sizeof h.magic);
    h.check = checksum(0, (const uint8_t *)&h, offsetof(SavedHead, check));
    return h;
}

/* Writes a segment behind those of a file, and when it is on the disk, the head that counts it.
 * Closes the file; -1: errno says why it failed. */
static int finish_save(llm_session *s, FILE *file, SavedHead head, int from)
{
    Saver w = { file, head.size, head.hash, 0 };
    errno = 0;
    int failed = fseeko(file, (off_t)head.size, SEEK_SET), fd = fileno(file);
    save_segment(&w, s, from, segment_size(s, from));
    failed |= fflush(file) || w.failed || fsync(fd);
    if (failed && from > 0 && ftruncate(fd, (off_t)head.size)) failed = 1;
    head = head_of(w.size, w.hash);
    if (!failed) failed = pwrite(fd, &head, sizeof head, 0) != sizeof head || fsync(fd);
    failed |= fstat(fd, &s->file);
    int why = errno ? errno : EIO;
    if (fclose(file) && !failed) failed = 1, why = errno;
    s->file_size = failed ? 0 : w.size, s->file_hash = w.hash, s->changed = s->valid;
    errno = why;
    return failed ? -1 : 0;
}

/* Appends what changed to a file that is just as the session left it. Returns -1 where it isn't, or
 * where new bytes would be less than half of it. */
static int append_saved(llm_session *s, const char *path)
{
    SavedHead head = head_of(s->file_size, s->file_hash), found;
    struct stat st, *old = &s->file;
    if (!s->file_size || s->changed == 0) return -1;
    if (head.size + segment_size(s, s->changed) > 2 * segment_size(s, 0)) return -1;
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -1;
    FILE *file = NULL;
    if (!fstat(fd, &st) && st.st_dev == old->st_dev && st.st_ino == old->st_ino &&
        !flock(fd, LOCK_EX | LOCK_NB) && !fstat(fd, &st) && st.st_size == old->st_size &&
        st.st_mtime == old->st_mtime && pread(fd, &found, sizeof found, 0) == sizeof found &&
        !memcmp(&found, &head, sizeof head)) {
        file = fdopen(fd, "r+b");
    }
    if (file) return finish_save(s, file, head, s->changed);
    close(fd);
    return -1;
}

/* Opens a new file of a name that nobody has, in the folder of path. */
static FILE *open_part(const char *path, char *part, size_t size)
{
    static unsigned count;
    const char *slash = strrchr(path, '/');
    int fd = -1, folder = slash ? (int)(slash - path) + 1 : 0;
    for (int i = 0; i < 100 && fd < 0 && (i == 0 || errno == EEXIST); i++) {
        snprintf(part, size, "%.*s.session-%ld-%u", folder, path, (long)getpid(),
                 __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED));
        fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    return fd < 0 ? NULL : fdopen(fd, "w+b");
}

/* Writes a file anew beside the old one, of whose owner and mode it gets, and puts it in its place.
 * Returns 0 or an error number. */
static int replace_saved(llm_session *s, const char *path, char *part, size_t size)
{
    struct stat old;
    int exists = !stat(path, &old);
    if (exists && !S_ISREG(old.st_mode)) return S_ISDIR(old.st_mode) ? EISDIR : EINVAL;
    FILE *file = open_part(path, part, size);
    if (!file) return errno;
    mode_t mode = exists ? old.st_mode & 0777 : 0600;
    if (exists && fchown(fileno(file), old.st_uid, old.st_gid) &&
        fchown(fileno(file), (uid_t)-1, old.st_gid)) {
        mode &= 0707;
    }
    int failed = fchmod(fileno(file), mode) ? errno : 0;
    if (finish_save(s, file, (SavedHead){ .size = sizeof(SavedHead) }, 0)) failed = errno;
    if (!failed && rename(part, path)) failed = errno;
    if (failed) unlink(part), s->file_size = 0;
    char *slash = strrchr(part, '/');
    if (slash) slash[1] = 0;
    int folder = failed ? -1 : open(slash ? part : ".", O_RDONLY | O_CLOEXEC);
    if (folder >= 0) fsync(folder), close(folder); /* some file systems can't */
    return failed;
}

/* The file that a path leads to by symbolic links, whether it exists or not. */
static char *target_of(const char *path)
{
    char to[4096], next[8192], *target = realpath(path, NULL);
    if (target || errno != ENOENT) return target;
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) return strdup(path);
    const char *slash = strrchr(path, '/');
    int folder = slash && *to != '/' ? (int)(slash - path) + 1 : 0;
    snprintf(next, sizeof next, "%.*s%.*s", folder, path, (int)n, to);
    return target_of(next);
}

int llm_save(llm_session *s, const char *path)
{
    if (lacks(s, "session") || lacks(path, "path")) return -1;
    if (!append_saved(s, path)) return 0;
    char *target = target_of(path), *part = target ? malloc(strlen(target) + 48) : NULL;
    int failed = part ? replace_saved(s, target, part, strlen(target) + 48) : errno;
    free(target);
    free(part);
    return failed ? fail("%s: %s", path, strerror(failed)) : 0;
}

/* A turn of a file. Returns whether it makes sense. */
static int load_turn(const Saved *h, Cursor *c, int is_last, Turn *turn)
{
    SavedTurn t = { 0 };
    const uint8_t *data = get(c, sizeof t);
    char *texts[3] = { NULL };
    int ok = data != NULL;
    if (data) memcpy(&t, data, sizeof t);
    for (int k = 0; k < 3 && ok; k++) {
        size_t n = t.lengths[k] < 0 ? 0 : (size_t)t.lengths[k];
        data = n ? get(c, padded(n)) : (const uint8_t *)"";
        if (data && t.lengths[k] >= 0) texts[k] = strndup((const char *)data, n);
        ok = data && (t.lengths[k] < 0 || texts[k]);
    }
    *turn = (Turn){ texts[0], texts[1], texts[2], t.begin, t.end };
    if (!ok || !turn->role || !*turn->role || strlen(turn->role) > MAX_ROLE) return 0;
    int open = !turn->text;
    if (open && (turn->thoughts || !is_last || strcmp(turn->role, "assistant") ||
                 turn->begin > h->position))
        return 0;
    return turn->begin >= 0 && turn->end >= -1 && turn->end <= h->position;
}

/* The turns of a file, NULL where they make no sense. */
static Turn *load_turns(const Saved *h, Cursor *c)
{
    Turn *turns = h->n_turns >= 0 && h->n_turns <= (c->end - c->at) / (int)sizeof(SavedTurn)
                      ? calloc((size_t)h->n_turns + 1, sizeof *turns)
                      : NULL;
    int i = 0;
    while (turns && i < h->n_turns && load_turn(h, c, i == h->n_turns - 1, &turns[i])) i++;
    if (!turns || i == h->n_turns) return turns;
    free_turns(turns, i + 1);
    return NULL;
}

/* Whether a segment is of this session's model, and follows one with `valid` positions. */
static int check_segment(llm_session *s, const Saved *h, int valid)
{
    if (h->model != fingerprint(s)) return fail("this session is of another model");
    if (h->position < 0 || h->position > s->context || h->valid < 0 || h->valid > h->position ||
        h->from < 0 || h->from > h->valid || h->from > valid) {
        return fail("this session has %d positions, the context %d", h->position, s->context);
    }
    if (strncmp(h->cache, s->cache->name, sizeof h->cache)) {
        return fail("this session has a cache of %.16s, expected %s", h->cache, s->cache->name);
    }
    return 0;
}

/* Takes over a segment that was checked; c is behind its Saved. */
static void take_segment(llm_session *s, const Saved *h, Cursor c)
{
    size_t vocab = (size_t)s->model->facts.vocab_size, n = (size_t)(h->position - h->from);
    s->position = h->position, s->valid = h->valid,
    s->long_rope = h->long_rope && s->model->ropes[LONG_ROPE].turns;
    s->has_logits = !!h->has_logits, s->random = h->random;
    s->now = h->now, s->opened_thought = !!h->opened_thought;
    memcpy(s->tokens + h->from, get(&c, padded(n * sizeof *s->tokens)), n * sizeof *s->tokens);
    for (int i = 0; i < s->model->n_kept; i++) {
        size_t bytes;
        uint8_t *data = kept(s, i, &bytes);
        size_t rows = (size_t)(h->valid - h->from) * bytes;
        memcpy(data + (size_t)h->from * bytes, get(&c, padded(rows)), rows);
    }
    size_t logits = vocab * sizeof *s->logits, state = (size_t)s->model->state * sizeof(float);
    for (int i = 0; i < s->n_states; i++) s->states[i].position = 0;
    if (s->n_states && h->valid > 0) {
        memcpy(s->states->numbers, get(&c, padded(state)), state);
        s->states->position = h->valid;
    }
    if (h->has_logits) memcpy(s->logits, get(&c, padded(logits)), logits);
}

/* Reads the segment at c: sets h, and turns to those it has. */
static int read_segment(llm_session *s, Saved *h, Cursor *c, Turn **turns, int valid)
{
    size_t vocab = (size_t)s->model->facts.vocab_size, rows, all = 0;
    const uint8_t *start = get(c, sizeof *h), *tokens;
    free_turns(*turns, *turns ? h->n_turns : 0);
    *turns = NULL;
    if (!start) return fail("this session is damaged: its parts do not fit together");
    memcpy(h, start, sizeof *h);
    if (check_segment(s, h, valid)) return -1;
    rows = (size_t)(h->valid - h->from);
    for (int i = 0; i < s->model->n_kept; i++) {
        all += padded(rows * row_bytes(s->cache, s->model->kept[i].dim));
    }
    if (h->valid > 0) all += padded((size_t)s->model->state * sizeof(float));
    if (h->has_logits) all += padded(vocab * sizeof *s->logits);
    tokens = get(c, padded((size_t)(h->position - h->from) * sizeof *s->tokens));
    if (get(c, all)) *turns = load_turns(h, c);
    int bad = !*turns || h->random == 0 || (h->n_turns > 0 && !s->template);
    for (int i = 0; !bad && i < h->position - h->from; i++) {
        int32_t token;
        memcpy(&token, tokens + (size_t)i * sizeof token, sizeof token);
        bad |= token < 0 || token >= (int)vocab;
    }
    if (!bad && c->at && (uint64_t)(c->at - start) == h->size) return 0;
    return fail("this session is damaged: its parts do not fit together");
}

/* Takes over the segments between c's ends, or fails before anything is changed. */
static int load_segments(llm_session *s, Cursor c)
{
    Turn *turns = NULL;
    Saved h = { 0 };
    Cursor again = c;
    int status = 0, valid = 0;
    do {
        status = read_segment(s, &h, &c, &turns, valid);
        valid = h.valid;
    } while (!status && c.at < c.end);
    if (status) {
        free_turns(turns, turns ? h.n_turns : 0);
        return status;
    }
    free_turns(s->turns, s->n_turns);
    s->turns = turns, s->n_turns = h.n_turns;
    while (again.at < again.end) {
        memcpy(&h, again.at, sizeof h);
        take_segment(s, &h, (Cursor){ again.at + sizeof h, again.end });
        again.at += h.size;
    }
    begin_writing(s);
    return 0;
}

/* Reads the head and what it counts, which the caller frees; NULL on failure. It is not mapped, so
 * that nobody can take it away. */
static uint8_t *read_saved(int fd, SavedHead *head, struct stat *st)
{
    SavedHead right;
    uint8_t *data = NULL;
    size_t done = 0;
    ssize_t n = pread(fd, head, sizeof *head, 0);
    if (n != sizeof *head || memcmp(head->magic, saved_magic, sizeof head->magic)) {
        fail(n > 6 && !memcmp(head->magic, saved_magic, 6)
                 ? "this session is damaged or of another version of this program"
                 : "this is no saved session");
        return NULL;
    }
    right = head_of(head->size, head->hash);
    if (memcmp(&right, head, sizeof right) || head->size % 8 || head->size <= sizeof right ||
        fstat(fd, st) || head->size > (uint64_t)st->st_size) {
        fail("this session is damaged: its checksum is wrong");
    } else if (!(data = malloc(head->size))) {
        fail("out of memory for %llu bytes", (unsigned long long)head->size);
    } else {
        while (done < head->size && n > 0) {
            n = pread(fd, data + done, head->size - done, (off_t)done);
            done += n > 0 ? (size_t)n : 0;
        }
        size_t size = head->size - sizeof *head;
        if (done == head->size && checksum(0, data + sizeof *head, size) == head->hash) return data;
        fail("this session is damaged: its checksum is wrong");
    }
    free(data);
    return NULL;
}

int llm_load(llm_session *s, const char *path)
{
    SavedHead head;
    struct stat st;
    if (lacks(s, "session") || lacks(path, "path")) return -1;
    int fd = open_regular(path, &st), status = -1;
    if (fd >= 0) {
        flock(fd, LOCK_SH); /* where there are no locks, the checksum tells */
        uint8_t *data = read_saved(fd, &head, &st);
        if (data) status = load_segments(s, (Cursor){ data + sizeof head, data + head.size });
        free(data);
        close(fd);
    }
    if (status) return fail("%s: %s", path, error_text);
    s->file = st, s->file_size = head.size, s->file_hash = head.hash, s->changed = s->valid;
    return 0;
}

/* ==== 12. Command line ===========================================================================
 * An example of embedding: it uses the public API and nothing else. */

#ifndef RUN_NO_MAIN

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>

enum { MAX_STOP_OPTIONS = 16, MAX_TEXT = 1 << 30 /* bytes that are read from a file */ };

typedef struct {
    const char *mode, *prompt, *system, *prompt_file, *text_file, *cache, *template, *variables,
        *think, *session, *draft;
    const char *stops[MAX_STOP_OPTIONS + 1];
    int n, top_k, context, threads, likeliest, samples;
    double temperature, top_p, min_p, repeat;
    uint64_t seed, given; /* given: a bit for each row of options[] */
    int task;             /* the mode, of the bits that follow */
    int no_echo, verbose, tokens, bos, special, bench, best, no_shift, heat, help, version;
} Settings;

enum {
    GENERATE = 1,
    HEAT = 2,
    SAMPLES = 4,
    LIKELIEST = 8,
    CHAT = 16,
    CHAT_SAMPLES = 32,
    TOKENS = 64,
    PERPLEXITY = 128,
    BENCH = 256,
    ANY_MODE = 511,
    EVALUATES = ANY_MODE & ~TOKENS,
    CHATS = CHAT | CHAT_SAMPLES,
    WRITES = GENERATE | HEAT | SAMPLES | CHATS,
    PROMPTED = WRITES | LIKELIEST | TOKENS
};

/* What a call does. The mode is the first row all of whose options are given, else the last. To add
 * one: a bit, a row, and the bit in the options that go with it. */
static const struct Mode {
    int bit;
    const char *name;
} modes[] = {
    { PERPLEXITY, "-x" },
    { BENCH, "-b" },             { TOKENS, "--tokens" },
    { LIKELIEST, "-l" },         { CHAT_SAMPLES, "-m chat --samples" },
    { CHAT, "-m chat" },         { SAMPLES, "--samples" },
    { HEAT, "--heat" },          { GENERATE, "-m generate" },
};

enum { FLAG, INTEGER, NUMBER, TEXT, SEED, LIST };

/* To add one: a field in Settings, a row. The same table parses, knows the modes that an option
 * goes with, and prints the help. */
static const struct Option {
    const char *name, *argument, *help;
    int modes, kind;
    size_t field;
    double min, max;
    const char *choices; /* of a text, with spaces between; NULL: any text */
} options[] = {
    { "-m", "MODE", "generate or chat (generate)", CHATS, TEXT, offsetof(Settings, mode), 0, 0,
      "generate chat" },
    { "-i", "TEXT", "prompt; - reads it from stdin, without its last newline", PROMPTED, TEXT,
      offsetof(Settings, prompt), 0, 0, NULL },
    { "-f", "FILE", "prompt from a file, as it is", PROMPTED, TEXT, offsetof(Settings, prompt_file),
      0, 0, NULL },
    { "--special", NULL, "the text of control tokens in the prompt becomes these tokens",
      (PROMPTED & ~CHATS) | PERPLEXITY, FLAG, offsetof(Settings, special), 0, 0, NULL },
    { "-n", "N",
      "tokens to generate, 0: until the end of the text or of the context (256; in a chat 0)",
      WRITES, INTEGER, offsetof(Settings, n), 0, 1e9, NULL },
    { "-t", "F", "temperature, 0: always the likeliest token (1.0 *)", WRITES, NUMBER,
      offsetof(Settings, temperature), 0, 1e6, NULL },
    { "-p", "F", "top-p: keep the likeliest tokens that reach this probability (0.9 *)", WRITES,
      NUMBER, offsetof(Settings, top_p), 0, 1, NULL },
    { "-k", "N", "top-k: keep this many of the likeliest tokens, 0: all (0 *)", WRITES, INTEGER,
      offsetof(Settings, top_k), 0, 1e9, NULL },
    { "--min-p", "F", "keep tokens at least this share as likely as the likeliest (0 *)", WRITES,
      NUMBER, offsetof(Settings, min_p), 0, 1, NULL },
    { "--repeat", "F", "repetition penalty over the last 64 tokens, 1: off (1 *)", WRITES, NUMBER,
      offsetof(Settings, repeat), 0, 1e3, NULL },
    { "-s", "N", "seed: the same seed gives the same text (from the clock)", WRITES, SEED,
      offsetof(Settings, seed), 0, 0, NULL },
    { "-y", "TEXT", "system prompt of a chat", CHATS, TEXT, offsetof(Settings, system), 0, 0,
      NULL },
    { "-r", "TEXT", "stop at this text and do not print it; may be given several times",
      GENERATE | SAMPLES | CHATS, LIST, offsetof(Settings, stops), 0, 0, NULL },
    { "--template", "NAME",
      "chat template, where the model file's is missing or wrong: a file of Jinja, or a built-in "
      "one "
      "that --template list shows",
      CHATS, TEXT, offsetof(Settings, template), 0, 0, NULL },
    { "--vars", "JSON",
      "further variables of the chat template, as {\"reasoning_effort\": \"low\"}", CHATS, TEXT,
      offsetof(Settings, variables), 0, 0, NULL },
    { "--think", "HOW",
      "thoughts: show, hide or off (show on a terminal, else hide); off and show ask the template",
      CHATS, TEXT, offsetof(Settings, think), 0, 0, "show hide off" },
    { "--session", "FILE", "go on with the chat saved there, and keep it there", CHAT, TEXT,
      offsetof(Settings, session), 0, 0, NULL },
    { "--no-shift", NULL,
      "a chat ends where its context is full, instead of losing its oldest turns", CHAT, FLAG,
      offsetof(Settings, no_shift), 0, 0, NULL },
    { "--samples", "N", "N answers side by side, each with its mean log-probability, best first",
      SAMPLES | CHAT_SAMPLES, INTEGER, offsetof(Settings, samples), 1, 64, NULL },
    { "--best", NULL, "with --samples: print the best one only", SAMPLES | CHAT_SAMPLES, FLAG,
      offsetof(Settings, best), 0, 0, NULL },
    { "-c", "N", "context length (the model's, at most what fits memory)", EVALUATES, INTEGER,
      offsetof(Settings, context), 1, 1 << 24, NULL },
    { "--cache", "TYPE", "format of the KV cache: f16, f32 or q8_0 (f16)", EVALUATES, TEXT,
      offsetof(Settings, cache), 0, 0, "f16 f32 q8_0" },
    { "-d", "KIND",
      "drafts: none, text (what followed the same words before, while it pays) or always (text)",
      GENERATE | CHAT, TEXT, offsetof(Settings, draft), 0, 0, "none text always" },
    { "-j", "N", "threads (physical cores)", ANY_MODE, INTEGER, offsetof(Settings, threads), 1, 256,
      NULL },
    { "-e", NULL, "do not repeat the prompt in the output", GENERATE | HEAT, FLAG,
      offsetof(Settings, no_echo), 0, 0, NULL },
    { "-v", NULL, "facts and speed on stderr", ANY_MODE, FLAG, offsetof(Settings, verbose), 0, 0,
      NULL },
    { "-x", "FILE", "perplexity of a text file", PERPLEXITY, TEXT, offsetof(Settings, text_file), 0,
      0, NULL },
    { "-l", "N", "the N likeliest next tokens after the prompt: id, probability, text", LIKELIEST,
      INTEGER, offsetof(Settings, likeliest), 1, 1e9, NULL },
    { "--heat", NULL, "colour the text (with -x that of the file) by how sure the model was",
      HEAT | PERPLEXITY, FLAG, offsetof(Settings, heat), 0, 0, NULL },
    { "--tokens", NULL, "the ids of the prompt's tokens", TOKENS, FLAG, offsetof(Settings, tokens),
      0, 0, NULL },
    { "--bos", NULL, "with --tokens: also the beginning-of-text token, where the model wants one",
      TOKENS, FLAG, offsetof(Settings, bos), 0, 0, NULL },
    { "-b", NULL, "benchmark: tokens a second of prompts and of generating", BENCH, FLAG,
      offsetof(Settings, bench), 0, 0, NULL },
    { "-h", NULL, "this help", ANY_MODE, FLAG, offsetof(Settings, help), 0, 0, NULL },
    { "--help", NULL, "the same", ANY_MODE, FLAG, offsetof(Settings, help), 0, 0, NULL },
    { "--version", NULL, "the version", ANY_MODE, FLAG, offsetof(Settings, version), 0, 0, NULL },
};
_Static_assert(ARRAY_LEN(options) <= 64, "given has a bit for each");

/* One line on stderr; returns the exit code. */
__attribute__((format(printf, 2, 3))) static int complain(int code, const char *format, ...)
{
    char text[SENTENCE];
    va_list args;
    va_start(args, format);
    write_sentence(text, format, args);
    va_end(args);
    fprintf(stderr, "run: %s\n", text);
    return code;
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

static void print_help(void)
{
    puts("run MODEL.gguf [options]: generate text with a language model\n");
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        char left[32];
        snprintf(left, sizeof left, "%s %s", options[i].name,
                 options[i].argument ? options[i].argument : "");
        printf("  %-16s %s\n", left, options[i].help);
    }
    puts("\n(in brackets: default; * a model file's own general.sampling.* keys come before it)");
    puts("\nThe options that go with each mode; -j and -v go with all:");
    for (size_t i = ARRAY_LEN(modes); i-- > 0;) {
        printf("  %-17s", modes[i].name);
        for (size_t j = 0; j < ARRAY_LEN(options); j++) {
            const struct Option *o = &options[j];
            int own = o->modes == ANY_MODE || is_choice(modes[i].name, o->name);
            if (o->modes & modes[i].bit && !own) printf(" %s", o->name);
        }
        puts("");
    }
}

/* Finds the mode, and fails on options that do not go with it. */
static int choose_mode(Settings *o)
{
    const struct Mode *mode = modes;
    if (o->mode && !strcmp(o->mode, "generate")) o->given &= ~1ull; /* -m is the first row */
    for (int fits; mode->bit != GENERATE; mode++) {
        fits = 1;
        for (size_t i = 0; i < ARRAY_LEN(options); i++) {
            if (is_choice(mode->name, options[i].name)) fits &= (int)(o->given >> i & 1);
        }
        if (fits) break;
    }
    o->task = mode->bit;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (!(o->given >> i & 1) || options[i].modes & o->task) continue;
        return complain(2, "%s%s does not go with %s", options[i].name, i ? "" : " chat",
                        mode->name);
    }
    return 0;
}

/* Stores the value of an option; fails on anything that is not wholly a value in range. */
static int set_option(Settings *settings, const struct Option *o, const char *value)
{
    char *field = (char *)settings + o->field, *end = NULL;
    double number = 0;
    errno = 0;
    settings->given |= 1ull << (o - options);
    if (o->kind == FLAG) *(int *)field = 1;
    if (o->kind == TEXT) *(const char **)field = value;
    if (o->kind == LIST) {
        int n = 0;
        while (settings->stops[n]) n++;
        if (n == MAX_STOP_OPTIONS) return complain(2, "%s more than %d times", o->name, n);
        if (!*value) return complain(2, "%s with an empty text", o->name);
        settings->stops[n] = value;
    }
    if (o->choices && !is_choice(o->choices, value)) {
        return complain(2, "%s %s: expected one of %s", o->name, value, o->choices);
    }
    if (o->kind == SEED) *(uint64_t *)field = strtoull(value, &end, 10);
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

/* Fills in settings; the model's path is the argument that belongs to no option, or the one behind
 * "--". */
static int parse_options(Settings *settings, const char **model, int argc, char **argv)
{
    for (int i = 1, over = 0; i < argc; i++) {
        const struct Option *o = NULL;
        if (!over && (over = !strcmp(argv[i], "--"))) continue;
        for (size_t j = 0; !over && j < ARRAY_LEN(options); j++) {
            if (!strcmp(options[j].name, argv[i])) o = &options[j];
        }
        if (!o && !over && argv[i][0] == '-') {
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

/* Writes out what stdout has; returns what stopped it so far, 0 if nothing did. */
static int stdout_error(void)
{
    static int error;
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && !error) error = errno ? errno : EIO;
    return error;
}

/* ---- The terminal ---- */

/* Set by Ctrl-C while the model reads or writes. */
static volatile int ctrl_c;

static void on_ctrl_c(int number)
{
    (void)number;
    ctrl_c = 1;
}

/* Whether a stream is a terminal that knows more than letters, and whether it may have colours. */
static int smart(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && !(term && !strcmp(term, "dumb"));
}

static int coloured(int fd)
{
    const char *no_color = getenv("NO_COLOR");
    return smart(fd) && !(no_color && *no_color);
}

/* Text with U+FFFD for what is no character; on a terminal without control characters but line
 * feeds and tabs. */
static void put_text(FILE *file, const char *text, size_t n)
{
    for (size_t i = 0, step; i < n; i += step) {
        int length = tokenizer_char(text + i, n - i);
        step = length > 0 ? (size_t)length : 1;
        if (length <= 0) {
            fputs("\xef\xbf\xbd", file);
        } else if (!is_control_char(text + i, length) || strchr("\n\t", text[i]) ||
                   !isatty(fileno(file))) {
            fwrite(text + i, 1, step, file);
        }
    }
}

/* A remark of the program itself, in dim letters on stderr. */
__attribute__((format(printf, 1, 2))) static void remark(const char *format, ...)
{
    char text[SENTENCE];
    va_list args;
    va_start(args, format);
    write_sentence(text, format, args);
    va_end(args);
    fprintf(stderr, "%s%s%s\n", coloured(2) ? "\x1b[2m" : "", text, coloured(2) ? "\x1b[0m" : "");
}

/* A line that is typed, with a history of earlier ones. */
typedef struct {
    char *text; /* (n) of (room) bytes */
    size_t n, room, cursor;
    int row, pasting; /* the row of the cursor below that of the prompt */
    int failed;       /* memory was missing */
    unsigned char input[4096];
    ssize_t n_input, next_input;
    char **history, *draft; /* draft: what was typed before the history was looked at */
    int n_history, at_history;
    struct termios before;
} Editor;

/* Keys that are no text. */
enum {
    INPUT_END = -1,
    RESIZED = -2,
    OTHER = 256,
    ENTER,
    UP,
    DOWN,
    RIGHT,
    LEFT,
    WORD_RIGHT,
    WORD_LEFT,
    LINE_START,
    LINE_END,
    BACKSPACE,
    DELETE,
    CUT_START,
    CUT_END,
    CUT_WORD,
    CLEAR,
    CTRL_C,
    CTRL_D,
    PASTE,
    PASTED
};

/* Whether more input is there, or comes within some milliseconds. */
static int more_input(const Editor *e, int wait)
{
    struct pollfd p = { .fd = 0, .events = POLLIN };
    return e->next_input < e->n_input || poll(&p, 1, wait) > 0;
}

static int next_byte(Editor *e)
{
    if (e->next_input == e->n_input) {
        e->next_input = 0;
        e->n_input = read(0, e->input, sizeof e->input);
        if (e->n_input <= 0) {
            int key = e->n_input < 0 && errno == EINTR ? RESIZED : INPUT_END;
            e->n_input = 0;
            return key;
        }
    }
    return e->input[e->next_input++];
}

/* A byte of text or a key. Keys arrive as control characters, ESC [ numbers letter, or ESC O
 * letter. */
static int next_key(Editor *e)
{
    static const struct {
        const char *sequence;
        int key;
    } keys[] = {
        { "\r", ENTER },
        { "\n", ENTER },
        { "\3", CTRL_C },
        { "\4", CTRL_D },
        { "\1", LINE_START },
        { "\5", LINE_END },
        { "\2", LEFT },
        { "\6", RIGHT },
        { "\20", UP },
        { "\16", DOWN },
        { "\b", BACKSPACE },
        { "\177", BACKSPACE },
        { "\13", CUT_END },
        { "\25", CUT_START },
        { "\27", CUT_WORD },
        { "\14", CLEAR },
        { "\33[A", UP },
        { "\33[B", DOWN },
        { "\33[C", RIGHT },
        { "\33[D", LEFT },
        { "\33OA", UP },
        { "\33OB", DOWN },
        { "\33OC", RIGHT },
        { "\33OD", LEFT },
        { "\33[H", LINE_START },
        { "\33[F", LINE_END },
        { "\33OH", LINE_START },
        { "\33OF", LINE_END },
        { "\33[1~", LINE_START },
        { "\33[4~", LINE_END },
        { "\33[7~", LINE_START },
        { "\33[8~", LINE_END },
        { "\33[3~", DELETE },
        { "\33[1;5C", WORD_RIGHT },
        { "\33[1;5D", WORD_LEFT },
        { "\33[200~", PASTE },
        { "\33[201~", PASTED },
    };
    char sequence[16] = { 0 };
    int c = next_byte(e), n = 0;
    if (c < 0 || (c >= ' ' && c != 127) || c == '\t') return c;
    sequence[n++] = (char)c;
    while (*sequence == 27 && n < 15 && more_input(e, 50)) {
        c = next_byte(e);
        if (c < 0) return c;
        sequence[n++] = (char)c;
        if (n == 2 ? c != '[' && c != 'O' : c == '~' || ((c | 32) >= 'a' && (c | 32) <= 'z')) break;
    }
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (!strcmp(keys[i].sequence, sequence)) return keys[i].key;
    }
    return OTHER;
}

/* Writes the part of the line from byte `from` to `to` that follows column *column, and returns the
 * number of rows that it begins. */
static int show_text(FILE *out, const Editor *e, size_t from, size_t to, int columns, int *column)
{
    int rows = 0;
    for (size_t i = from; i < to;) {
        const char *text = e->text + i;
        int length = tokenizer_char(text, e->n - i);
        int visible = length > 0 && !is_control_char(text, length);
        int width = visible ? tokenizer_columns(text, length) : 1;
        i += length > 0 ? (size_t)length : 1;
        if (*text == '\n') {
            fputs("\r\n", out);
            rows++, *column = 0;
            continue;
        }
        if (*column + width > columns) rows++, *column = 0; /* the terminal wraps by itself */
        fwrite(visible ? text : "?", 1, visible ? (size_t)length : 1, out);
        *column += width;
    }
    if (*column >= columns) { /* here it waits at its edge */
        fputs("\r\n", out);
        rows++, *column = 0;
    }
    return rows;
}

/* Draws the line anew, or of a very long one what is around the cursor. */
static void draw(Editor *e, const char *prompt)
{

    struct winsize size;
    char *text = NULL;
    size_t len;
    int known = !ioctl(2, TIOCGWINSZ, &size) && size.ws_col >= 10 && size.ws_row >= 4;
    int columns = known ? size.ws_col : 80;
    size_t most = known ? (size_t)size.ws_col * (size_t)(size.ws_row - 2) / 2 : 800;
    int column = (int)strlen(prompt), rows, to_cursor, at_cursor;
    size_t from = e->cursor > most ? e->cursor - most : 0;
    size_t to = e->n - e->cursor > most ? e->cursor + most : e->n;
    while (from > 0 && from < e->cursor && (e->text[from] & 0xc0) == 0x80) from++;
    FILE *out = open_memstream(&text, &len); /* one write, so that nothing flickers */
    e->failed |= !out;
    if (!out) return;
    if (e->row > 0) fprintf(out, "\x1b[%dA", e->row);
    fprintf(out, "\r\x1b[J%s%s%s", coloured(2) ? "\x1b[1;32m" : "", prompt,
            coloured(2) ? "\x1b[0m" : "");
    to_cursor = show_text(out, e, from, e->cursor, columns, &column);
    at_cursor = column;
    rows = show_text(out, e, e->cursor, to, columns, &column);
    if (rows > 0) fprintf(out, "\x1b[%dA", rows);
    fprintf(out, "\r");
    if (at_cursor > 0) fprintf(out, "\x1b[%dC", at_cursor);
    e->row = to_cursor;
    e->failed |= fclose(out) != 0;
    if (!e->failed) fwrite(text, 1, len, stderr);
    fflush(stderr);
    free(text);
}

static int insert(Editor *e, const char *bytes, size_t n)
{
    if (e->n + n + 1 > e->room) {
        char *more = realloc(e->text, (e->n + n) * 2 + 64);
        e->failed |= !more;
        if (!more) return -1;
        e->text = more;
        e->room = (e->n + n) * 2 + 64;
    }
    memmove(e->text + e->cursor + n, e->text + e->cursor, e->n - e->cursor);
    memcpy(e->text + e->cursor, bytes, n);
    e->n += n;
    e->cursor += n;
    e->text[e->n] = 0;
    return 0;
}

/* Removes the bytes between the cursor and another place. */
static void erase(Editor *e, size_t other)
{
    size_t from = other < e->cursor ? other : e->cursor, to = other < e->cursor ? e->cursor : other;
    memmove(e->text + from, e->text + to, e->n - to);
    e->n -= to - from;
    e->cursor = from;
    e->text[e->n] = 0;
}

/* The beginning of the character before the cursor, or the end of the one behind it. */
static size_t step(const Editor *e, int forward)
{
    size_t at = e->cursor;
    if (forward) {
        int length = at < e->n ? tokenizer_char(e->text + at, e->n - at) : 0;
        return at < e->n ? at + (size_t)(length > 0 ? length : 1) : at;
    }
    if (at > 0) at--;
    while (at > 0 && e->cursor - at < 4 && (e->text[at] & 0xc0) == 0x80) at--;
    return at;
}

static size_t step_word(const Editor *e, int forward)
{
    Editor at = *e;
    int in_word = 0;
    for (;; at.cursor = step(&at, forward)) {
        if (at.cursor == (forward ? e->n : 0)) break;
        char c = e->text[forward ? at.cursor : at.cursor - 1];
        if (in_word && c == ' ') break;
        in_word |= c != ' ';
    }
    return at.cursor;
}

static int recall(Editor *e, int number)
{
    if (number < 0 || number > e->n_history) return 0;
    if (e->at_history == e->n_history) {
        free(e->draft);
        if (!(e->draft = strdup(e->text))) return e->failed = 1, -1;
    }
    const char *text = number < e->n_history ? e->history[number] : e->draft;
    e->at_history = number;
    e->cursor = e->n = 0;
    return insert(e, text, strlen(text));
}

static size_t step_line(const Editor *e, int forward)
{
    return forward ? e->n : 0;
}

/* Keys that go from the cursor to another place, or erase all up to there. */
static const struct {
    int key;
    size_t (*to)(const Editor *e, int forward);
    int forward, erases;
} moves[] = {
    { RIGHT, step, 1, 0 },          { LEFT, step, 0, 0 },           { WORD_RIGHT, step_word, 1, 0 },
    { WORD_LEFT, step_word, 0, 0 }, { LINE_END, step_line, 1, 0 },  { LINE_START, step_line, 0, 0 },
    { DELETE, step, 1, 1 },         { BACKSPACE, step, 0, 1 },      { CUT_WORD, step_word, 0, 1 },
    { CUT_END, step_line, 1, 1 },   { CUT_START, step_line, 0, 1 },
};

/* What a key does to the line; non-zero ends it: 1 it is done, -1 the input is at its end. */
static int press(Editor *e, int key)
{
    char c = (char)(key == ENTER ? '\n' : key);
    if (key >= 0 && (key < OTHER || (e->pasting && key == ENTER))) return insert(e, &c, 1);
    if (e->pasting && key != PASTED && key != INPUT_END) return 0;
    for (size_t i = 0; i < ARRAY_LEN(moves); i++) {
        if (moves[i].key != key) continue;
        size_t to = moves[i].to(e, moves[i].forward);
        if (moves[i].erases) erase(e, to);
        e->cursor = moves[i].erases ? e->cursor : to;
    }
    if (key == ENTER) return 1;
    if (key == UP) return recall(e, e->at_history - 1);
    if (key == DOWN) return recall(e, e->at_history + 1);
    if (key == PASTE || key == PASTED) e->pasting = key == PASTE;
    if (key == CLEAR) fputs("\x1b[H\x1b[2J", stderr), e->row = 0;
    if (key == INPUT_END || ((key == CTRL_C || key == CTRL_D) && e->n == 0)) return -1;
    if (key == CTRL_C) e->cursor = e->n = 0;
    if (key == CTRL_D) erase(e, step(e, 1));
    return 0;
}

static struct termios *volatile raw_before; /* the terminal's own ways while a line is edited */

static void on_end(int number)
{
    if (raw_before && write(2, "\x1b[?2004l", 8) == 8) tcsetattr(0, TCSANOW, raw_before);
    signal(number, SIG_DFL);
    raise(number);
}

static void on_resize(int number)
{
    (void)number;
}

/* What was mapped is gone: somebody made the model file shorter. Ends with one line. */
static void on_lost_file(int number)
{
    static const char text[] = "run: the model file was made shorter or can't be read any more\n";
    (void)number;
    if (raw_before) tcsetattr(0, TCSANOW, raw_before);
    if (write(2, text, sizeof text - 1) < 0) _exit(2);
    _exit(1);
}

/* Lets the user type a line; NULL at the end of the input. The caller does not free it. */
static char *edit_line(Editor *e, const char *prompt)
{
    struct termios raw;
    struct sigaction act = { .sa_handler = on_resize };
    int done = 0;
    if (!e->text && insert(e, "", 0)) return NULL;
    tcgetattr(0, &e->before);
    raw = e->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON);
    raw.c_cc[VMIN] = 1, raw.c_cc[VTIME] = 0;
    sigaction(SIGWINCH, &act, NULL); /* without SA_RESTART: read returns, and the line is drawn */
    raw_before = &e->before;
    tcsetattr(0, TCSADRAIN, &raw);
    fputs("\x1b[?2004h", stderr);
    e->n = e->cursor = 0, e->row = e->pasting = 0, e->text[0] = 0;
    e->at_history = e->n_history;
    while (!done && !e->failed) {
        if (!more_input(e, 0)) draw(e, prompt);
        done = press(e, next_key(e));
    }
    e->cursor = e->n;
    draw(e, prompt);
    fputs("\x1b[?2004l\n", stderr);
    tcsetattr(0, TCSADRAIN, &e->before);
    raw_before = NULL;
    signal(SIGWINCH, SIG_DFL);
    if (done < 0 || e->failed || !e->n) return done < 0 || e->failed ? NULL : e->text;
    char **more = realloc(e->history, ((size_t)e->n_history + 1) * sizeof *more);
    if (more) e->history = more;
    if (more && (more[e->n_history] = strdup(e->text))) return more[e->n_history++];
    e->failed = 1;
    return NULL;
}

static void free_editor(Editor *e)
{
    for (int i = 0; i < e->n_history; i++) free(e->history[i]);
    free(e->history);
    free(e->draft);
    free(e->text);
}

/* ---- Text and files ---- */

/* Whether bytes are UTF-16: with a byte order mark at the start, or every other one is zero. */
static int is_utf16(const char *text, size_t len, int start)
{
    size_t zeros[2] = { 0 };
    int marked = len >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2));
    if (start && marked) return 1;
    for (size_t i = 0; i < len; i++) zeros[i % 2] += !text[i];
    return len >= 4 && ((zeros[0] == (len + 1) / 2 && !zeros[1]) ||
                        (zeros[1] == len / 2 && !zeros[0]));
}

/* Makes the bytes at an offset of a file a text, or tells why they are none: UTF-16, or a zero byte
 * where the text becomes a C string. The byte order mark of UTF-8 is no part of a text. */
static int take_text(const char *name, size_t offset, char *text, size_t *len, int zeros)
{
    const char *zero = memchr(text, 0, *len);
    if (is_utf16(text, *len, !offset)) return complain(1, "%s: this is UTF-16, not UTF-8", name);
    if (zero && !zeros) {
        return complain(1, "%s: the byte at offset %zu is zero, which this text can't hold", name,
                        offset + (size_t)(zero - text));
    }
    if (offset == 0 && *len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
        memmove(text, text + 3, (*len -= 3) + 1);
    }
    return 0;
}

/* The text of a file ("-": stdin), with a zero behind it; NULL on failure, which is told. */
static char *read_all(const char *path, size_t *len, int zeros)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    size_t size = 1 << 16;
    const char *why = file ? NULL : strerror(errno), *name = file == stdin ? "stdin" : path;
    char *text = malloc(size), *more = text;
    *len = 0;
    while (!why && more && !feof(file)) {
        *len += fread(text + *len, 1, size - 1 - *len, file);
        if (ferror(file)) why = strerror(errno);
        if (*len < size - 1) continue;
        if (size == MAX_TEXT) why = "this is longer than 1 GB";
        if (!why && (more = realloc(text, size *= 2))) text = more;
    }
    if (file && file != stdin) fclose(file);
    if (text) text[*len] = 0;
    if (why || !more) complain(1, "%s: %s", name, why ? why : "out of memory");
    if (!why && more && !take_text(name, 0, text, len, zeros)) return text;
    free(text);
    return NULL;
}

/* The prompt of -i or -f, "" without either. */
static char *read_prompt(const Settings *o, size_t *len)
{
    int zeros = !(o->task & CHATS), in = o->prompt && !strcmp(o->prompt, "-");
    if (o->prompt_file) return read_all(o->prompt_file, len, zeros);
    char *text = in ? read_all("-", len, zeros) : strdup(o->prompt ? o->prompt : "");
    if (!text && !in) complain(1, "out of memory");
    if (text && !in) *len = strlen(text);
    if (text && in && *len && text[*len - 1] == '\n') text[--*len] = 0;
    if (text && in && *len && text[*len - 1] == '\r') text[--*len] = 0;
    return text;
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
    int twice = flags & LLM_SPECIAL && flags & LLM_BOS && *n > 1 && tokens[0] == tokens[1];
    if (twice && tokens[0] == llm_info(m)->bos) { /* the text has it already */
        memmove(tokens, tokens + 1, (size_t)--*n * sizeof *tokens);
    }
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

/* How the text of a prompt or a file becomes tokens. */
static int text_flags(const Settings *o)
{
    return LLM_BEGIN | (o->special ? LLM_SPECIAL : 0);
}

static int print_tokens(const llm_model *m, const Settings *o, const char *text, size_t len)
{
    int n, *tokens = encode(m, text, len, text_flags(o) | (o->bos ? LLM_BOS : 0), &n);
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

typedef struct {
    double p;
    int id;
} Likely;

/* Likelier ones first, of equals the lower id. */
static int compare_likely(const void *a, const void *b)
{
    const Likely *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : x->id - y->id;
}

/* Writes the `count` likeliest tokens of n, likeliest first, with their probabilities; -1 if there
 * are none because the logits are not numbers. out has room for two times count: whenever it is
 * full, the less likely half goes. */
static int likeliest_tokens(const float *logits, int n, Likely *out, int count)
{
    int found = 0, sorted = 0;
    double norm = logits[0] - log_probability(logits, n, 0);
    for (int i = 0; i < n; i++) {
        if (!sorted || logits[i] > out[count - 1].p) out[found++] = (Likely){ logits[i], i };
        if (found < 2 * count && i < n - 1) continue;
        qsort(out, (size_t)found, sizeof *out, compare_likely);
        sorted = found >= count;
        if (sorted) found = count;
    }
    for (int i = 0; i < found; i++) out[i].p = exp(out[i].p - norm);
    return isfinite(norm) ? found : -1;
}

/* ---- Heat: text in the colours of how sure the model was of each token ---- */

static const struct {
    double least; /* probability */
    int colour;   /* of the terminal's 256 */
    const char *name;
} heats[] = {
    { 0.8, 34, "80 % and more" }, { 0.5, 112, "50 %" }, { 0.2, 220, "20 %" },
    { 0.05, 208, "5 %" },         { 0.0, 196, "less" },
};

typedef struct {
    const llm_model *model;
    char piece[64]; /* bytes of a character that is not whole yet */
    size_t n_piece;
} Heat;

static Heat begin_heat(const llm_model *m)
{
    fprintf(stderr, "probability of each token:");
    for (size_t i = 0; i < ARRAY_LEN(heats); i++) {
        fprintf(stderr, " \x1b[38;5;%dm%s\x1b[0m", heats[i].colour, heats[i].name);
    }
    fputc('\n', stderr);
    return (Heat){ .model = m };
}

/* A token and its probability. Fails where memory is missing. */
static int heat_token(Heat *h, int token, double p)
{
    size_t level = 0, whole = 0, len = llm_decode(h->model, &token, 1, 0, NULL, 0) + h->n_piece;
    char *text = malloc(len + 1);
    if (!text) return -1;
    memcpy(text, h->piece, h->n_piece);
    llm_decode(h->model, &token, 1, 0, text + h->n_piece, len - h->n_piece + 1);
    for (int length; whole < len && (length = tokenizer_char(text + whole, len - whole));) {
        whole += length > 0 ? (size_t)length : 1;
    }
    h->n_piece = len - whole;
    memcpy(h->piece, text + whole, h->n_piece);
    while (level + 1 < ARRAY_LEN(heats) && !(p >= heats[level].least)) level++;
    if (whole) {
        printf("\x1b[38;5;%dm", heats[level].colour);
        put_text(stdout, text, whole);
        fputs("\x1b[0m", stdout);
        fflush(stdout);
    }
    free(text);
    return 0;
}

static void end_heat(Heat *h)
{
    if (h->n_piece) put_text(stdout, h->piece, 1); /* a character that was not finished */
    putchar('\n');
}

/* ---- Scores ---- */

/* Evaluates tokens[from..to) and adds the log-probability of the token behind each of them. Returns
 * what went wrong, or NULL. */
static const char *add_scores(const llm_model *m, llm_session *s, const int *tokens, int from,
                              int to, Heat *heat, double *sum)
{
    enum { BATCH = 32 };
    int vocab = llm_info(m)->vocab_size;
    float *logits = malloc(BATCH * (size_t)vocab * sizeof *logits);
    const char *why = logits ? NULL : "out of memory";
    for (int count; !why && from < to; from += count) {
        count = to - from < BATCH ? to - from : BATCH;
        if (llm_eval_all(s, tokens + from, count, logits)) why = llm_error();
        for (int i = 0; !why && i < count; i++) {
            const float *mine = logits + (size_t)i * (size_t)vocab;
            double p = log_probability(mine, vocab, tokens[from + i + 1]);
            *sum += p;
            if (heat && heat_token(heat, tokens[from + i + 1], exp(p))) why = "out of memory";
        }
    }
    free(logits);
    if (why) return why;
    return isfinite(*sum) ? NULL : "a probability of the text is no number, or 0";
}

/* The log-probability of tokens[1..n] after tokens[0]. The windows overlap by half, so that no
 * token but the first ones has less than half a context before it. */
static int score(const llm_model *m, llm_session *s, const int *tokens, int n, Heat *heat,
                 double *sum)
{
    int context = llm_context(s), step = context > 1 ? context / 2 : 1, done = 0;
    const char *why = NULL;
    *sum = 0;
    for (int from = 0; !why && done < n; from += step) {
        int end = n - from > context ? from + context : n;
        llm_rewind(s, 0);
        if (done > from && !llm_eval(s, tokens + from, done - from)) why = llm_error();
        for (int to; !why && done < end; done = to) {
            to = end - done < 256 ? end : done + 256;
            why = add_scores(m, s, tokens, done, to, heat, sum);
            if (why || !isatty(2) || heat) continue;
            fprintf(stderr, "\r%d of %d tokens, perplexity %.4f", to, n, exp(-*sum / to));
        }
    }
    if (isatty(2)) fputc('\n', stderr);
    return why ? complain(1, "%s", why) : 0;
}

static int print_perplexity(const llm_model *m, llm_session *s, const Settings *o)
{
    size_t len;
    double sum;
    int n = 0, status = 1;
    Heat heat;
    char *text = read_all(o->text_file, &len, 1);
    int *tokens = text ? encode(m, text, len, text_flags(o), &n) : NULL;
    int *all = tokens ? malloc(((size_t)n + 1) * sizeof *all) : NULL;
    if (tokens && !all) complain(1, "out of memory");
    if (all && n == 0) complain(1, "%s has no text", o->text_file);
    if (all && n > 0 && (all[0] = start_token(m)) >= 0) {
        memcpy(all + 1, tokens, (size_t)n * sizeof *all);
        if (o->heat) heat = begin_heat(m);
        status = score(m, s, all, n, o->heat ? &heat : NULL, &sum);
        if (o->heat) end_heat(&heat);
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

/* The likeliest next tokens: bars on a terminal, else id, probability and text with tabs. */
static int print_likeliest(const llm_model *m, const llm_session *s, int count)
{
    const float *logits = llm_logits(s);
    int n = llm_info(m)->vocab_size, found;
    if (count > n) count = n;
    Likely *all = malloc(2 * (size_t)count * sizeof *all);
    if (!logits || !all) {
        free(all);
        return complain(1, "%s", logits ? "out of memory" : llm_error());
    }
    found = likeliest_tokens(logits, n, all, count);
    for (int i = 0; i < found; i++) {
        char text[256];
        size_t len = llm_decode(m, &all[i].id, 1, LLM_SPECIAL, text, sizeof text);
        if (isatty(1)) {
            printf("%8d %5.1f %% %s%-20.*s%s ", all[i].id, 100 * all[i].p,
                   coloured(1) ? "\x1b[32m" : "", (int)(20 * all[i].p + 0.5),
                   "####################", coloured(1) ? "\x1b[0m" : "");
        } else {
            printf("%d\t%.6f\t", all[i].id, all[i].p);
        }
        print_escaped(text, len < sizeof text ? len : sizeof text - 1);
        puts("");
    }
    free(all);
    if (found >= 0) return 0;
    return complain(1, "the logits are not numbers: the weights hold NaN or infinity");
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
    int tokens[8192], runs = 0;
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
    printf("%s%d", name, n);
    if (step > 1 && step < n) printf("x%d", step);
    printf(" %.2f tok/s best, %.2f median of %d\n", speeds[runs - 1], speeds[runs / 2], runs);
    stdout_error();
    return 0;
}

/* Prompts, single steps, and steps of several rows, as sessions side by side or drafts are. */
static int benchmark(const llm_model *m, llm_session *s, int asked)
{
    int context = llm_context(s), n = context < 512 ? context : 512, few = context < 64 ? 8 : 64;
    int status = bench(m, s, "pp", n, n);
    for (n = 2048; !status && n <= asked && n <= 8192; n *= 4) status = bench(m, s, "pp", n, n);
    for (int rows = 1; !status && rows <= 8 && few <= context; rows *= 2) {
        status = bench(m, s, "tg", few, rows);
    }
    return status;
}

/* What the text callback needs, and what it measures. */
typedef struct {
    const llm_session *session; /* whose thoughts are dim, NULL: it has none */
    double first;               /* when the first text came */
    int failed;                 /* stdout can't be written to */
    int colour, hide_thoughts;
    int thought, newline; /* the last text was a thought; it ended a line */
} Output;

static Output new_output(const llm_session *s, const Settings *o)
{
    int show = o->think ? !strcmp(o->think, "show") : isatty(1);
    return (Output){ .session = s, .colour = coloured(1), .hide_thoughts = !show };
}

static void write_out(Output *out, const char *text, size_t len)
{
    put_text(stdout, text, len);
    out->failed = stdout_error();
    if (len) out->newline = text[len - 1] == '\n';
}

/* Prints a piece of a thought or of an answer. */
static void print_piece(Output *out, int thought, const char *text, size_t len)
{
    if (thought && out->hide_thoughts) return;
    if (thought != out->thought) {
        if (!thought) write_out(out, "\n\n", out->newline ? 1 : 2);
        if (out->colour) fputs(thought ? "\x1b[2m" : "\x1b[0m", stdout);
        out->thought = thought;
    }
    write_out(out, text, len);
}

static int print_text(void *user, const char *text, size_t len)
{
    Output *out = user;
    if (out->first == 0) out->first = seconds();
    print_piece(out, out->session && llm_is_thought(out->session), text, len);
    return out->failed || ctrl_c;
}

/* Ends an answer with a line feed and the terminal's usual letters. */
static void end_text(Output *out)
{
    if (out->thought && out->colour) fputs("\x1b[0m", stdout);
    out->thought = 0;
    write_out(out, "\n", 1);
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
    if (c->n_experts) {
        fprintf(stderr, "experts  %d, of which a token has %d\n", c->n_experts, c->n_experts_used);
    }
    if (c->state_bytes) {
        fprintf(stderr, "states   of %.1f MB for a position\n", (double)c->state_bytes * 1e-6);
    }
    fprintf(stderr,
            "session  context %d of %d, seed %llu, %d threads, kernels %s, loaded in %.1f ms\n",
            llm_context(s), c->context, (unsigned long long)o->seed, llm_threads(s), c->kernels,
            load_time * 1e3);
}

enum { READ_BLOCKS = 64, READ_WORDS = 1 << 18 }; /* 128 MB */

/* Words of a block, and what they add up to, in the first one. */
static void read_block(void *data, int i, int thread)
{
    uint64_t *block = (uint64_t *)data + (size_t)i * READ_WORDS, a = 0, b = 0, c = 0, d = 0;
    (void)thread;
    for (int j = 0; j < READ_WORDS; j += 4) {
        a += block[j], b += block[j + 1], c += block[j + 2], d += block[j + 3];
    }
    *block = a + b + c + d;
}

/* Bytes a second that the threads of the session read from memory: the best of three times. */
static double read_bandwidth(int threads)
{
    size_t bytes = (size_t)READ_BLOCKS * READ_WORDS * sizeof(uint64_t);
    Arena arena = { 0 };
    uint64_t *data = take(&arena, bytes, 1);
    double best = 0;
    if (!data) complain(0, "out of memory to measure its speed");
    if (!data) return 0;
    memset(data, 1, bytes);
    for (int run = 0; run < 3; run++) {
        double start = seconds();
        share(threads, READ_BLOCKS, read_block, data);
        best = fmax(best, (double)bytes / (seconds() - start));
    }
    release(&arena);
    return best;
}

/* Whether so many bytes are more than the caches hold, of which some would be found there again. */
static int exceeds_caches(double bytes)
{
    double size = 1 << 15; /* KiB */
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file && fscanf(file, "%lf", &size) != 1) size = 1 << 15;
    if (file) fclose(file);
    return bytes > 2 * 1024 * size;
}

/* After generating: speed, memory, and a hash of the last logits, which shows any change of the
 * arithmetic. times: of reading the prompt, until the first text, of writing. measure: also what
 * memory gives, if the weights come from there. */
static void print_speed(const llm_model *m, const llm_session *s, int n_prompt, int n,
                        const double times[3], int measure)
{
    const float *logits = llm_logits(s);
    struct rusage use;
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; logits && i < (size_t)llm_info(m)->vocab_size * sizeof *logits; i++) {
        hash = (hash ^ ((const unsigned char *)logits)[i]) * 0x100000001b3;
    }
    getrusage(RUSAGE_SELF, &use);
    double rate = n / (times[2] > 0 ? times[2] : 1e-9);
    double bytes = rate * (double)llm_info(m)->bytes_read, most = 0;
    if (measure && exceeds_caches((double)llm_info(m)->bytes_read)) {
        most = read_bandwidth(llm_threads(s));
    }
    fprintf(stderr, "prompt   %d tokens, %.2f tok/s, first text after %.1f ms\n", n_prompt,
            n_prompt / (times[0] > 0 ? times[0] : 1e-9), times[1] * 1e3);
    fprintf(stderr, "generate %d tokens, %.2f tok/s, %.2f GB/s of weights", n, rate, bytes * 1e-9);
    if (most > 0) {
        fprintf(stderr, ", %.0f %% of the %.1f GB/s that memory gives", 100 * bytes / most,
                most * 1e-9);
    }
#ifdef __APPLE__
    use.ru_maxrss /= 1024; /* bytes there, kilobytes elsewhere */
#endif
    int64_t right = 0, drafted = llm_drafted(s, &right);
    if (drafted) {
        fprintf(stderr, "\ndrafts   %lld tokens, of which %lld were right", (long long)drafted,
                (long long)right);
    }
    fprintf(stderr, "\nmemory   %.1f MB at most, with the parts of the file that were used\n",
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

/* Tokens to generate; 0: as many as the context holds. */
static int most_tokens(const Settings *o)
{
    return o->n >= 0 ? o->n : o->task & CHATS ? 0 : 256;
}

/* The text that follows, each token in the colour of its probability. */
static int generate_heat(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                         size_t len)
{
    Heat heat = begin_heat(m);
    llm_sampling p = choose_sampling(m, o);
    int most = most_tokens(o), token = 0;
    const char *why = NULL;
    if (!o->no_echo) put_text(stdout, prompt, len);
    for (int n = 0; !why && (most == 0 || n < most) && llm_position(s) < llm_context(s); n++) {
        token = llm_sample(s, &p);
        if (token < 0) why = llm_error();
        if (token < 0 || llm_is_stop(m, token) || ferror(stdout)) break;
        double p_token = exp(log_probability(llm_logits(s), llm_info(m)->vocab_size, token));
        if (heat_token(&heat, token, p_token)) why = "out of memory";
        if (!why && !llm_eval(s, &token, 1)) why = llm_error();
    }
    end_heat(&heat);
    return why ? complain(1, "%s", why) : 0;
}

/* One of several answers to a prompt. */
typedef struct {
    llm_session *session;
    double sum; /* of the log-probabilities of its n tokens */
    int n, done, failed;
    char *text; /* (len) in pieces: whether it is a thought, the text, a zero */
    size_t len;
} Sample;

static int keep_piece(void *user, const char *text, size_t len)
{
    Sample *a = user;
    char *more = realloc(a->text, a->len + len + 2);
    a->failed |= !more;
    if (!more) return 1;
    a->text = more;
    more[a->len] = (char)llm_is_thought(a->session);
    memcpy(more + a->len + 1, text, len + 1);
    a->len += len + 2;
    return 0;
}

static int compare_samples(const void *a, const void *b)
{
    const Sample *x = a, *y = b;
    double p = x->sum / (x->n ? x->n : 1), q = y->sum / (y->n ? y->n : 1);
    return (p < q) - (p > q);
}

/* Draws a token for each answer that goes on, and evaluates them together. */
static int step_samples(const llm_model *m, Sample *all, int count, int most, const llm_sampling *p)
{
    llm_session *going[64];
    int tokens[64], n = 0;
    for (int i = 0; i < count; i++) {
        Sample *a = &all[i];
        if (a->done) continue;
        int over = llm_position(a->session) == llm_context(a->session) || (most && a->n == most);
        int token = over ? -1 : llm_sample(a->session, p);
        if (token < 0 && !over) return -1;
        if (token >= 0) {
            a->sum += log_probability(llm_logits(a->session), llm_info(m)->vocab_size, token);
            a->n++;
        }
        if ((a->done = llm_write(a->session, token, keep_piece, a)) < 0) return -1;
        if (a->done) continue;
        tokens[n] = token;
        going[n++] = a->session;
    }
    return n ? llm_eval_many(going, tokens, n) < 0 ? -1 : n : 0;
}

static int print_samples(const Sample *all, const Settings *o)
{
    Output out = new_output(NULL, o);
    for (int i = 0; i < (o->best ? 1 : o->samples); i++) {
        const Sample *a = &all[i];
        char head[64];
        int wrote = snprintf(head, sizeof head, "%s== %d: mean log-probability %.4f, %d tokens\n",
                             i ? "\n" : "", i + 1, a->sum / (a->n ? a->n : 1), a->n);
        if (a->failed) return complain(1, "out of memory");
        if (!o->best) write_out(&out, head, (size_t)wrote);
        out.newline = 1;
        for (size_t at = 0, len; at < a->len; at += len + 2) {
            len = strlen(a->text + at + 1);
            print_piece(&out, a->text[at], a->text + at + 1, len);
        }
        end_text(&out);
    }
    return 0;
}

/* Answers to what the session has read, side by side. */
static int samples(const llm_model *m, llm_session *s, const Settings *o)
{
    Sample all[64] = { { 0 } };
    llm_sampling p = choose_sampling(m, o);
    int status = 0, more = 1, most = most_tokens(o);
    double start = seconds();
    for (int i = 0; i < o->samples && !status; i++) {
        all[i].session = llm_fork(s);
        if (!all[i].session) status = complain(1, "%s", llm_error());
        if (!status) llm_seed(all[i].session, o->seed + (uint64_t)i);
    }
    while (!status && more) {
        more = step_samples(m, all, o->samples, most, &p);
        if (more < 0) status = complain(1, "%s", llm_error());
    }
    if (!status && o->verbose) {
        int n = 0;
        for (int i = 0; i < o->samples; i++) n += all[i].n;
        fprintf(stderr, "generate %d tokens in %d answers, %.2f tok/s\n", n, o->samples,
                n / (seconds() - start));
    }
    qsort(all, (size_t)o->samples, sizeof *all, compare_samples);
    if (!status) status = print_samples(all, o);
    for (int i = 0; i < o->samples; i++) llm_session_free(all[i].session), free(all[i].text);
    return status;
}

/* The prompt was read: what may follow, several answers, or one in colours. */
static int look(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                size_t len)
{
    int start = llm_position(s) ? 0 : start_token(m);
    if (start < 0) return 1;
    if (!llm_position(s) && !llm_eval(s, &start, 1)) return complain(1, "%s", llm_error());
    if (o->likeliest) return print_likeliest(m, s, o->likeliest);
    return o->samples ? samples(m, s, o) : generate_heat(m, s, o, prompt, len);
}

/* The prompt and what the model makes of it. */
static int generate(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                    size_t len)
{
    Output out = new_output(NULL, o);
    llm_sampling p = choose_sampling(m, o);
    int n_prompt = 0, most = most_tokens(o), status = 0;
    int *tokens = len ? encode(m, prompt, len, text_flags(o) | LLM_BOS, &n_prompt) : NULL;
    if (len && !tokens) return 1;
    if (n_prompt > llm_context(s)) {
        free(tokens);
        return complain(1, "the prompt has %d tokens, the context %d positions", n_prompt,
                        llm_context(s));
    }
    if (!o->no_echo && o->task == GENERATE) print_text(&out, prompt, len);
    double began = seconds();
    if (n_prompt && !llm_eval(s, tokens, n_prompt)) status = complain(1, "%s", llm_error());
    double times[3] = { seconds() - began, 0, 0 };
    free(tokens);
    if (status || out.failed) return status;
    if (o->task != GENERATE) return look(m, s, o, prompt, len);
    out.first = 0;
    int n = llm_generate(s, "", most, &p, print_text, &out);
    if (n < 0) return complain(1, "%s", llm_error());
    llm_write(s, -1, print_text, &out);
    times[1] = out.first ? out.first - began : 0;
    times[2] = seconds() - began - times[0];
    if (!out.failed) end_text(&out);
    if (llm_position(s) == llm_context(s) && (most == 0 || n < most)) {
        complain(0, "the context of %d positions is full", llm_context(s));
    }
    if (o->verbose) print_speed(m, s, n_prompt, n, times, 1);
    return 0;
}

/* ---- Chat ---- */

typedef struct {
    const llm_model *model;
    llm_session *session;
    Settings *o;
    Output out;
    Editor editor;
    char *read;  /* the file that goes in front of the next message, or NULL */
    int talking; /* with a person at a terminal, not a script */
    int over, failed; /* failed: reading a message did */
    size_t offset;    /* in stdin, of the next line */
    int n_prompt, n; /* tokens of the last message and answer */
    double times[3]; /* of reading it, until the first text, of writing */
} Chat;

/* A failure that a chat with a person survives and a script does not. */
static int chat_failed(Chat *c, const char *why)
{
    if (c->talking) remark("%s", why);
    return c->talking ? 0 : complain(1, "%s", why);
}

/* Says so if turns were dropped to make room. */
static void tell_dropped(const Chat *c, int before)
{
    int dropped = before - llm_turns(c->session);
    if (dropped <= 0) return;
    remark("(the context of %d positions was full: the oldest %d turns are forgotten)",
           llm_context(c->session), dropped);
}

/* Begins a new conversation, with a system prompt unless it is NULL. One that is empty keeps the
 * template's own away, where it has such a turn. */
static int begin_chat(Chat *c, const char *system)
{
    int n = llm_turns(c->session);
    if (n && llm_drop(c->session, 0, n)) return chat_failed(c, llm_error());
    if (!system || !llm_turn(c->session, "system", system) || !*system) return 0;
    return chat_failed(c, llm_error());
}

static int keep_session(Chat *c)
{
    if (!c->o->session || !llm_save(c->session, c->o->session)) return 0;
    return chat_failed(c, llm_error());
}

/* Lets the model write its turn. */
static int answer(Chat *c)
{
    llm_session *s = c->session;
    llm_sampling p = choose_sampling(c->model, c->o);
    int most = c->o->n < 0 ? 0 : c->o->n, turns = llm_turns(s) + 1, status = 0;
    double start = seconds();
    c->out.first = 0, c->out.newline = 1, c->n = 0;
    if (llm_turn(s, "assistant", NULL)) return chat_failed(c, llm_error());
    int n = llm_generate(s, NULL, most, &p, print_text, &c->out);
    llm_write(s, -1, print_text, &c->out);
    c->n = n > 0 ? n : 0;
    c->times[2] = seconds() - start;
    c->times[1] += c->out.first ? c->out.first - start : 0;
    if (!c->out.failed) end_text(&c->out);
    tell_dropped(c, turns);
    if (ctrl_c) {
        remark("(stopped)");
    } else if (n < 0) {
        status = chat_failed(c, llm_error());
    } else if (llm_position(s) == llm_context(s) && !(most && n >= most)) {
        char why[128];
        snprintf(why, sizeof why, "the context of %d positions is full: the answer ends here%s",
                 llm_context(s), c->talking ? "; /clear begins anew, /undo takes it back" : "");
        status = chat_failed(c, why);
    }
    return status || keep_session(c);
}

/* A turn of the user, and the answer. */
static int say(Chat *c, const char *text)
{
    int turns = llm_turns(c->session) + 1, before = llm_position(c->session);
    double start = seconds();
    if (llm_turn(c->session, "user", text)) {
        if (!ctrl_c) return chat_failed(c, llm_error());
        remark("(stopped: the message was not read)");
        return 0;
    }
    tell_dropped(c, turns);
    c->n_prompt = llm_position(c->session) - (turns == llm_turns(c->session) ? before : 0);
    c->times[0] = c->times[1] = seconds() - start;
    free(c->read);
    c->read = NULL;
    return answer(c);
}

static int command_help(Chat *c, const char *text);

static int command_system(Chat *c, const char *text)
{
    remark(*text ? "(a new conversation, with this system prompt)"
                 : "(a new conversation, without a system prompt)");
    return begin_chat(c, *text ? text : NULL) || keep_session(c);
}

static int command_clear(Chat *c, const char *text)
{
    int n = llm_turns(c->session), keep = n && !strcmp(llm_turn_role(c->session, 0), "system");
    (void)text;
    remark("(a new conversation)");
    if (n > keep && llm_drop(c->session, keep, n - keep)) return chat_failed(c, llm_error());
    return keep_session(c);
}

/* Takes the last message and its answer back. */
static int command_undo(Chat *c, const char *text)
{
    int n = llm_turns(c->session), i = n - 1;
    (void)text;
    while (i >= 0 && strcmp(llm_turn_role(c->session, i), "user")) i--;
    if (i < 0) {
        remark("(there is no message)");
        return 0;
    }
    if (llm_drop(c->session, i, n - i)) return chat_failed(c, llm_error());
    remark("(the last message is taken back)");
    return keep_session(c);
}

static int command_regen(Chat *c, const char *text)
{
    int last = llm_turns(c->session) - 1;
    (void)text;
    if (last < 0 || strcmp(llm_turn_role(c->session, last), "assistant")) {
        remark("(there is no answer)");
        return 0;
    }
    if (llm_drop(c->session, last, 1)) return chat_failed(c, llm_error());
    c->times[0] = c->times[1] = c->n_prompt = 0;
    return answer(c);
}

static int command_read(Chat *c, const char *path)
{
    size_t len;
    char *text = read_all(strcmp(path, "-") ? path : "./-", &len, 0); /* stdin is the chat itself */
    if (!text) return 0;
    free(c->read);
    c->read = text;
    remark("(%zu bytes of %s go in front of the next message)", len, path);
    return 0;
}

static int command_save(Chat *c, const char *path)
{
    if (llm_save(c->session, path)) return chat_failed(c, llm_error());
    remark("(saved: %d turns, %d tokens)", llm_turns(c->session), llm_position(c->session));
    return 0;
}

static int command_load(Chat *c, const char *path)
{
    if (llm_load(c->session, path)) return chat_failed(c, llm_error());
    remark("(loaded: %d turns, %d tokens)", llm_turns(c->session), llm_position(c->session));
    return keep_session(c);
}

static int command_stats(Chat *c, const char *text)
{
    (void)text;
    remark("%d turns, %d of %d positions in use", llm_turns(c->session), llm_position(c->session),
           llm_context(c->session));
    print_speed(c->model, c->session, c->n_prompt, c->n, c->times, 0);
    return 0;
}

/* Changes an option of sampling: its name without dashes, and its value. */
static int command_set(Chat *c, const char *text)
{
    static const char names[] = "t p k n s min-p repeat";
    char name[32] = "", value[64] = "", rest[2] = "";
    int n = sscanf(text, "%31s %63s %1s", name, value, rest);
    if (n != 2 || !is_choice(names, name)) {
        remark("/set NAME VALUE, where NAME is one of %s", names);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (strcmp(options[i].name + strspn(options[i].name, "-"), name)) continue;
        if (!set_option(c->o, &options[i], value)) remark("(%s is %s)", name, value);
    }
    if (!strcmp(name, "s")) llm_seed(c->session, c->o->seed);
    return 0;
}

static int command_quit(Chat *c, const char *text)
{
    (void)text;
    c->over = 1;
    return 0;
}

/* To add one: a function, a row. */
static const struct Command {
    const char *name, *argument, *help;
    int (*run)(Chat *c, const char *text);
} commands[] = {
    { "/help", "", "this list", command_help },
    { "/system", " TEXT", "a new conversation with this system prompt", command_system },
    { "/clear", "", "a new conversation", command_clear },
    { "/undo", "", "take the last message and its answer back", command_undo },
    { "/regen", "", "answer the last message once more", command_regen },
    { "/read", " FILE", "put the text of a file in front of the next message", command_read },
    { "/save", " FILE", "keep the conversation in a file", command_save },
    { "/load", " FILE", "go on with a conversation from a file", command_load },
    { "/stats", "", "speed, memory and how full the context is", command_stats },
    { "/set", " NAME VALUE", "change t, p, k, min-p, repeat, n or s", command_set },
    { "/quit", "", "leave, like Ctrl-D", command_quit },
};

static int command_help(Chat *c, const char *text)
{
    (void)c, (void)text;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        char left[32];
        snprintf(left, sizeof left, "%s%s", commands[i].name, commands[i].argument);
        remark("  %-16s %s", left, commands[i].help);
    }
    remark("Several lines: end a line with \\, or put them between two lines of \"\"\".");
    remark("Ctrl-C stops an answer. A message that begins with / is typed with two.");
    return 0;
}

/* A path as people type it: in quotes or with backslashes before its spaces, from ~/, with spaces
 * behind it. NULL if memory is missing. */
static char *typed_path(const char *text)
{
    const char *home = getenv("HOME");
    int quoted = (*text == '"' || *text == '\'') && strchr(text + 1, *text);
    size_t n = home ? strlen(home) : 0;
    char *path = malloc(strlen(text) + n + 1), *to = path, *end = path, quote = 0;
    for (const char *from = text; path && *from; from++) {
        char next = (char)(from[1] | 32); /* a backslash before a letter or digit is a name's own */
        int escaped = *from == '\\' && from[1] && quote != '\'' &&
                      !(next >= 'a' && next <= 'z') && !(from[1] >= '0' && from[1] <= '9');
        if (quoted && !escaped && (quote ? *from == quote : *from == '"' || *from == '\'')) {
            quote = quote ? 0 : *from;
            end = to;
            continue;
        }
        from += escaped;
        *to++ = *from;
        if (escaped || quote || *from != ' ') end = to;
    }
    if (!path) return NULL;
    *end = 0;
    if (home && *path == '~' && path[1] == '/') {
        memmove(path + n, path + 1, strlen(path));
        memcpy(path, home, n);
    }
    return path;
}

/* Runs the command that a line is. */
static int run_command(Chat *c, const char *line)
{
    size_t len = strcspn(line, " ");
    const char *text = line + len + strspn(line + len, " ");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        const struct Command *k = &commands[i];
        if (strlen(k->name) != len || strncmp(k->name, line, len)) continue;
        if (strcmp(k->name, "/system") && !*k->argument != !*text) {
            remark("%s%s", k->name, k->argument);
            return 0;
        }
        if (strcmp(k->argument, " FILE")) return k->run(c, text);
        char *path = typed_path(text);
        int status = path ? k->run(c, path) : complain(1, "out of memory");
        free(path);
        return status;
    }
    remark("there is no command %.*s; /help lists them", (int)len, line);
    return 0;
}

/* A line of input without its end, or NULL; the caller frees it. */
static char *read_line(Chat *c, const char *prompt)
{
    char *line = NULL;
    size_t room = 0;
    if (c->talking && smart(2)) {
        char *typed = edit_line(&c->editor, prompt);
        line = typed ? strdup(typed) : NULL;
        if (c->editor.failed || (typed && !line)) c->failed = complain(1, "out of memory");
        return line;
    }
    if (c->talking) fputs(prompt, stderr);
    void (*handler)(int) = signal(SIGINT, SIG_DFL); /* here Ctrl-C leaves */
    ssize_t n = getline(&line, &room, stdin);
    if (n < 0 && !feof(stdin)) c->failed = complain(1, "stdin: %s", strerror(errno));
    signal(SIGINT, handler);
    size_t len = n < 0 ? 0 : (size_t)n, offset = c->offset;
    c->offset += len;
    if (len && line[len - 1] == '\n') line[--len] = 0;
    if (len && line[len - 1] == '\r') line[--len] = 0;
    if (n >= 0 && !take_text("stdin", offset, line, &len, 0)) return line;
    if (n >= 0 && !c->talking) c->failed = 1;
    if (n >= 0 && c->talking) return *line = 0, line; /* the person knows, and types another */
    free(line);
    return NULL;
}

/* Appends to *text, which is a message of several lines. */
static int append_line(char **text, const char *line, size_t len)
{
    size_t old = *text ? strlen(*text) : 0;
    char *more = realloc(*text, old + len + 2);
    if (!more) return -1;
    memcpy(more + old, line, len);
    more[old + len] = 0;
    *text = more;
    return 0;
}

/* A message: a line, or several where a person says so. NULL at the end of the input. */
static char *read_message(Chat *c)
{
    char *text = NULL, *line = read_line(c, "> ");
    if (!line || !c->talking) return line;
    int quoted = !strncmp(line, "\"\"\"", 3);
    size_t skip = quoted ? 3 : 0;
    while (line) {
        size_t len = strlen(line);
        const char *end = quoted ? strstr(line + skip, "\"\"\"") : NULL;
        int goes_on = quoted ? !end : len > 0 && line[len - 1] == '\\';
        if (end) len = (size_t)(end - line);
        if (!quoted && goes_on) len--;
        size_t before = text ? strlen(text) : 0;
        if (end && len == 0 && before > 0) text[before - 1] = 0; /* the closing quotes' own line */
        if (append_line(&text, line + skip, len - skip) ||
            (goes_on && !(quoted && skip && len == skip) && append_line(&text, "\n", 1))) {
            c->failed = complain(1, "out of memory");
            break;
        }
        skip = 0;
        free(line);
        line = goes_on ? read_line(c, ". ") : NULL;
    }
    free(line);
    return text;
}

static int take_message(Chat *c, char *text)
{
    if (c->talking && *text == '/' && text[1] != '/') return run_command(c, text);
    if (c->talking && *text == '/') text++;
    if (!*text && !c->read) return 0;
    if (!c->read) return say(c, text);
    char *both = malloc(strlen(c->read) + strlen(text) + 2);
    if (!both) return complain(1, "out of memory");
    sprintf(both, "%s\n%s", c->read, text);
    int status = say(c, both);
    free(both);
    return status;
}

/* A conversation: the prompt is the first message, then each line of stdin is one. Where stdin is
 * no terminal, only the answers are printed, and a prompt makes it a single turn. */
static int run_chat(Chat *c, const char *prompt)
{
    struct stat st;
    struct sigaction stop = { .sa_handler = on_ctrl_c, .sa_flags = SA_RESTART };
    int status = 0, resumed = c->o->session && !stat(c->o->session, &st);
    if (resumed && llm_load(c->session, c->o->session)) return complain(1, "%s", llm_error());
    resumed = resumed && llm_turns(c->session); /* else nobody has said anything there */
    if (resumed && c->o->system) remark("(-y is for new conversations, this one goes on)");
    if (!resumed) status = begin_chat(c, c->o->system) || keep_session(c);
    if (c->talking && resumed) {
        remark("(going on with %d turns, %d tokens)", llm_turns(c->session),
               llm_position(c->session));
    } else if (c->talking) {
        const char *name = llm_info(c->model)->name;
        remark("%s; /help lists the commands, Ctrl-D leaves", *name ? name : "chat");
    }
    if (c->talking) sigaction(SIGINT, &stop, NULL);
    if (*prompt && !status) status = say(c, prompt);
    while (!status && !c->out.failed && !c->over && (c->talking || !*prompt)) {
        ctrl_c = 0; /* from here on it is about the next message */
        char *text = read_message(c);
        c->over |= !text || c->failed;
        if (!c->over) status = take_message(c, text);
        free(text);
    }
    return status || c->failed;
}

static int chat(const llm_model *m, llm_session *s, const Settings *o, const char *prompt)
{
    Settings settings = *o;
    Chat c = {
        .model = m, .session = s, .o = &settings, .out = new_output(s, o), .talking = isatty(0)
    };
    struct sigaction end = { .sa_handler = on_end };
    if (c.talking) sigaction(SIGTERM, &end, NULL), sigaction(SIGHUP, &end, NULL);
    int status = run_chat(&c, prompt);
    if (o->verbose && c.n) print_speed(m, s, c.n_prompt, c.n, c.times, 1);
    free_editor(&c.editor);
    free(c.read);
    return status;
}

/* Several answers to one message. */
static int chat_samples(const llm_model *m, llm_session *s, const Settings *o, const char *prompt)
{
    if ((o->system && *o->system && llm_turn(s, "system", o->system)) ||
        llm_turn(s, "user", prompt) || llm_turn(s, "assistant", NULL)) {
        return complain(1, "%s", llm_error());
    }
    return samples(m, s, o);
}

/* What the options ask for. */
static int run_task(const llm_model *m, llm_session *s, const Settings *o, const char *prompt,
                    size_t len)
{
    int chatting = o->task & CHATS;
    if (o->task == PERPLEXITY) return print_perplexity(m, s, o);
    if (o->task == BENCH) return benchmark(m, s, o->context);
    if (chatting && !*llm_info(m)->chat_template && !o->template) {
        return complain(1, "the model file has no chat template; --template NAME chooses one, "
                           "--template list shows them");
    }
    if (chatting && *llm_warning(s)) complain(0, "%s", llm_warning(s));
    if (chatting) return o->samples ? chat_samples(m, s, o, prompt) : chat(m, s, o, prompt);
    return generate(m, s, o, prompt, len);
}

/* Everything that needs a session. */
static int run_session(const llm_model *m, const Settings *o, const char *prompt, size_t len,
                       double load_time)
{
    const llm_facts *c = llm_info(m);
    llm_options request = { .context = o->context,
                            .threads = o->threads,
                            .seed = o->seed,
                            .cache = o->cache,
                            .draft = o->draft,
                            .chat_template = o->template,
                            .variables = o->variables,
                            .thinking = !o->think                  ? 0
                                        : !strcmp(o->think, "off") ? -1
                                                                   : !strcmp(o->think, "show"),
                            .shift = !o->no_shift,
                            .stops = o->stops,
                            .interrupt = &ctrl_c };
    llm_session *s = llm_session_new(m, &request);
    int context = s ? llm_context(s) : 0;
    if (!s) return complain(1, "%s", llm_error());
    if (!o->context && context < c->context) {
        complain(0, "the context is %d instead of %d, to fit memory; -c sets it", context,
                 c->context);
    }
    if (context > c->context) {
        complain(0, "the context of %d is longer than the model's %d", context, c->context);
    }
    if (o->verbose) print_facts(m, s, o, load_time);
    int status = run_task(m, s, o, prompt, len);
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
    if (prompt && o->task == TOKENS) status = print_tokens(m, o, prompt, len);
    if (prompt && o->task != TOKENS) status = run_session(m, o, prompt, len, load_time);
    free(prompt);
    llm_close(m);
    return status;
}

/* Where --template names no built-in one, reads the file; NULL on failure. */
static const char *read_template(const char *name, char **text, int *status)
{
    size_t len;
    for (int i = 0; llm_chat_template(i); i++) {
        if (!strcmp(llm_chat_template(i), name)) return name;
    }
    if (access(name, F_OK)) {
        *status = complain(
            2, "--template %s: no file, and no built-in template; --template list shows them",
            name);
        return NULL;
    }
    *status = 1;
    return *text = read_all(name, &len, 0);
}

int main(int argc, char **argv)
{
    Settings o = {
        .n = -1, .top_k = -1, .temperature = -1, .top_p = -1, .min_p = -1, .repeat = -1
    };
    const char *path = NULL;
    char *template = NULL;
    struct timespec now;
    int status = 0, failed;
    signal(SIGBUS, on_lost_file);
    clock_gettime(CLOCK_REALTIME, &now);
    o.seed = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    if (parse_options(&o, &path, argc, argv)) return 2;
    if (o.template && !strcmp(o.template, "list")) {
        for (int i = 0; llm_chat_template(i); i++) puts(llm_chat_template(i));
    } else if (o.template && !(o.template = read_template(o.template, &template, &status))) {
        return status;
    } else if (o.help) {
        print_help();
    } else if (o.version) {
        puts("run " RUN_VERSION);
    } else if (!path) {
        return complain(2, "no model file: run MODEL.gguf [options]; -h lists them");
    } else if (o.prompt && o.prompt_file) {
        return complain(2, "-i and -f both give a prompt");
    } else if (choose_mode(&o)) {
        return 2;
    } else {
        status = run_model(path, &o);
    }
    free(template);
    if ((failed = stdout_error()) && failed != EPIPE && !status) {
        status = complain(1, "stdout: %s", strerror(failed));
    }
    return status;
}

#endif /* RUN_NO_MAIN */

/* ==== 13. Appendix: kernels by instruction set ===================================================
 * The portable kernels are the first row. A reader may stop here: the rows below it compute the
 * same sums for the instruction sets of real machines, and take quantized weights as the integers
 * that they are. Layouts are read with vectors of any width, by macros over a few primitives that
 * each instruction set has; the rest is written with intrinsics.
 *
 * A few rows of x: one row of weights after the other, from its first byte to its last, so that
 * memory delivers one stream. Many: bands of 32 rows, which are unpacked once, put side by side, so
 * that each has a lane, and used for all rows of x. */

static int always(void)
{
    return 1;
}

#ifndef RUN_PORTABLE

/* Asks for memory that will be read soon. Into the L2 cache: L1 has few buffers for what is on its
 * way, and loads that hit L2 need them too. */
BODY void prefetch(const uint8_t *at, int bytes)
{
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* For products of signed bytes: a quantum that has 128 added is the number itself without it. */
BODY Layout as_signed(Layout l)
{
    if (l.less == 128) l.less = 0, l.quanta.flip = 0;
    return l;
}

/* Where the bytes of a super-block's scales begin: a vector of sixteen of them is read at once,
 * which must not go past the block. */
BODY int scales_at(Layout l, int bytes)
{
    int first = l.scale.at;
    if (l.scale.high_mask && l.scale.high_at < first) first = l.scale.high_at;
    return first < bytes - 16 ? first : bytes - 16;
}

typedef uint8_t Bytes16 __attribute__((vector_size(16), may_alias));

/* For each of eight groups of 32, a number of 16 bits of its block. */
BODY Eight16 each_block(const uint8_t *at, int block, int bytes)
{
    uint16_t v[8];
    UNROLL(8)
    for (int i = 0; i < 8; i++) memcpy(&v[i], at + i * 32 / block * bytes, 2);
    return (Eight16){ v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7] };
}

/* A unit is 256 columns of a row: one super-block, or eight blocks of 32. Vectors of quanta hold
 * whole groups of 16 columns, and transposing the words of four vectors, so that vector i gets
 * words i, brings each group into one lane: where vectors of scales, of which SCALES make a unit,
 * have what belongs to it. x is kept in that order. Primitives: load_NAME, up to four times sixteen
 * bytes, from four places; pick_NAME, bytes of sixteen as lanes; spread_NAME, numbers of eight
 * groups as lanes; halves_NAME, the f16 that their blocks have in some place, or the one of a
 * super-block; singles_NAME, the single bits that are a field's second ones; look_up_NAME, the
 * numbers of a list, plus `more`, in the places of their indices; transpose_NAME. */
#define READ_UNITS(NAME, TARGET, BYTES, SIGNED) \
    enum { LANES_##NAME = BYTES / 4, SCALES_##NAME = 64 / BYTES }; \
    typedef uint8_t ByteLanes_##NAME __attribute__((vector_size(BYTES), may_alias)); \
    typedef float FloatLoose_##NAME __attribute__((vector_size(BYTES), aligned(4), may_alias)); \
    /* The group in lane e of vectors of scales, and the lane of a group. */ \
    BODY int group_##NAME(int e) \
    { \
        return e - e % LANES_##NAME + e % 4 * (BYTES / 16) + e % LANES_##NAME / 4; \
    } \
    BODY int lane_##NAME(int g) \
    { \
        return g - g % LANES_##NAME + g % (BYTES / 16) * 4 + g % LANES_##NAME / (BYTES / 16); \
    } \
    /* Where x has word i of a group. */ \
    BODY int word_##NAME(int g, int i) \
    { \
        int e = lane_##NAME(g); \
        return e / LANES_##NAME * 4 * BYTES + i * BYTES + e % LANES_##NAME * 4; \
    } \
    TARGET BODY void order_##NAME(int8_t *piece) \
    { \
        Lanes_##NAME *v = (Lanes_##NAME *)piece; \
        for (int s = 0; s < SCALES_##NAME; s++) transpose_##NAME(v + 4 * s); \
    } \
    /* Vector v of the quanta. */ \
    TARGET BODY Lanes_##NAME quanta_##NAME(const uint8_t *unit, int v, int group, \
                                           LayoutOf *layout, const Points *points) \
    { \
        const uint32_t each = 0x01010101; \
        const Layout l = SIGNED(layout(0, 0)); \
        int at[4], high[4]; \
        Lanes_##NAME shift = { 0 }, high_shift = { 0 }; \
        if (l.unit != 0) { \
            const int b = v * BYTES; \
            ByteLanes_##NAME q = *(const ByteLanes_##NAME *)(points->numbers + b), minus; \
            minus = -(ByteLanes_##NAME)singles_##NAME((const uint8_t *)points->signs, b, b + 16, \
                                                      b + 32, b + 48); \
            return (Lanes_##NAME)((q ^ minus) - minus + (uint8_t)l.less); \
        } \
        UNROLL(4) \
        for (int j = 0; j < 4; j++) { \
            int column = v * BYTES + 16 * j; \
            Field f = layout(column / group, column % group / 4).quanta; \
            at[j] = f.at, high[j] = f.single ? f.high_at * 8 + f.high_shift : f.high_at; \
            UNROLL(4) \
            for (int e = 4 * j; e < 4 * j + 4; e++) { \
                if (e < BYTES / 4) shift[e] = (uint32_t)f.shift; \
                if (e < BYTES / 4) high_shift[e] = (uint32_t)f.high_shift; \
            } \
        } \
        Lanes_##NAME q; \
        if (l.quanta.packed) { /* a byte to a lane; sixteen of them hold 64 columns */ \
            const int first = layout(v * BYTES / 64 * 64 / group, 0).quanta.at; \
            const Bytes16 order = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }; \
            q = pick_##NAME(unit + first, order + (uint8_t)(at[0] - first)); \
            q |= q << 12, q |= q << 6; \
        } else { \
            q = load_##NAME(unit, at[0], at[1], at[2], at[3]) >> shift; \
        } \
        q &= (uint32_t)l.quanta.mask * each; \
        if (l.quanta.single) { \
            q |= singles_##NAME(unit, high[0], high[1], high[2], high[3]) << l.quanta.up; \
        } else if (l.quanta.high_mask) { \
            Lanes_##NAME more = load_##NAME(unit, high[0], high[1], high[2], high[3]); \
            q |= (more >> high_shift & (uint32_t)l.quanta.high_mask * each) << l.quanta.up; \
        } \
        q ^= (uint32_t)l.quanta.flip * each; \
        return l.list ? look_up_##NAME(q, l.list, l.less) : q; \
    } \
    /* Small whole numbers of a super-block: vector s of its scales or minima. */ \
    TARGET BODY FloatLanes_##NAME whole_##NAME(const uint8_t *unit, int s, int group, int bytes, \
                                               int minima, LayoutOf *layout) \
    { \
        const Field from = layout(0, 0).scale; \
        const int first = scales_at(layout(0, 0), bytes), step = layout(1, 0).scale.at - from.at; \
        const float bias = minima ? 0 : layout(0, 0).bias; \
        const int two = layout(15 / (group / 16), 0).scale.high_mask; \
        Bytes16 at = { 0 }, high_at = { 0 }; \
        Lanes_##NAME shift = { 0 }, mask = { 0 }, high_shift = { 0 }, high_mask = { 0 }; \
        Field f = { 0 }; \
        UNROLL(16) \
        for (int e = 0; e < BYTES / 4; e++) { \
            Layout l = layout(group_##NAME(s * LANES_##NAME + e) * 16 / group, 0); \
            f = minima ? l.min : l.scale; \
            at[e] = (uint8_t)(f.at - first), high_at[e] = (uint8_t)(f.high_at - first); \
            shift[e] = (uint32_t)f.shift, mask[e] = (uint32_t)f.mask; \
            high_shift[e] = (uint32_t)f.high_shift, high_mask[e] = (uint32_t)f.high_mask; \
        } \
        Lanes_##NAME w = pick_##NAME(unit + first, at) >> shift & mask; \
        if (two) w |= (pick_##NAME(unit + first, high_at) >> high_shift & high_mask) << 4; \
        if (step > 1) w = spread_##NAME(each_block(unit + from.at - 1, 32, step), s) >> 12; \
        w ^= (uint32_t)f.flip; \
        return __builtin_convertvector((IntLanes_##NAME)w, FloatLanes_##NAME) - bias; \
    } \
    /* Bytes of eight blocks that are exponents. */ \
    TARGET BODY FloatLanes_##NAME powers_##NAME(const uint8_t *at, int s, int bytes) \
    { \
        Lanes_##NAME w = spread_##NAME(each_block(at, 32, bytes), s) & 255; \
        Lanes_##NAME tiny = (Lanes_##NAME)(w < 2); \
        return (FloatLanes_##NAME)((tiny & (w + 1) << 21) | (~tiny & (w - 1) << 23)); \
    } \
    /* A weight is q d + m. */ \
    TARGET BODY void scales_##NAME(FloatLanes_##NAME *d, FloatLanes_##NAME *m, \
                                   const uint8_t *unit, int block, int bytes, int group, \
                                   LayoutOf *layout) \
    { \
        const Layout l = SIGNED(layout(0, 0)); \
        UNROLL(4) \
        for (int s = 0; s < SCALES_##NAME; s++) { \
            d[s] = l.exponent ? powers_##NAME(unit + l.d, s, bytes) \
                              : halves_##NAME(unit, l.d, s, block, bytes); \
            if (l.scale.mask) d[s] *= whole_##NAME(unit, s, group, bytes, 0, layout); \
            if (l.unit != 0) d[s] *= l.unit; \
            if (l.m) { \
                m[s] = halves_##NAME(unit, l.m, s, block, bytes); \
                if (l.min.mask) m[s] *= -whole_##NAME(unit, s, group, bytes, 1, layout); \
            } else { \
                m[s] = d[s] * (float)-l.less; \
            } \
        } \
    }

/* A row that ends within a unit is read on into the next one, whose numbers meet zeros of x, or are
 * not used. Where that would go past `end`, of the matrix, it is read from a copy that goes on with
 * zeros. */
BODY const uint8_t *whole_unit(const uint8_t *unit, uint8_t *copy, int cols, int block, int bytes,
                               const uint8_t *end)
{
    size_t whole = (size_t)(256 / block * bytes);
    if (cols >= 256 || (size_t)(end - unit) >= whole) return unit;
    memset(copy, 0, whole);
    return memcpy(copy, unit, (size_t)(cols / block * bytes));
}

/* Row kernels of a format. Weights are unpacked once for n rows of x, and the sums of each are
 * those it has alone. Primitives: dot_NAME, the products of four vectors of quanta and as many of
 * x, a group in each lane; fma_NAME, a b + c; total_NAME. */
#define ROWS(NAME, TARGET, BYTES) \
    TARGET BODY void row_##NAME(float *y, size_t ldy, const uint8_t *row, const uint8_t *end, \
                                const Act *x, int cols, int n, const Format *f, LayoutOf *layout, \
                                PointsOf *points_of) \
    { \
        const int block = f->block, bytes = f->bytes, group = f->group; \
        const int unit_bytes = 256 / block * bytes; \
        const size_t ldx = whole_pieces(cols), lines = (size_t)digits_of(f); \
        FloatLanes_##NAME sum[FEW_ROWS][SCALES_##NAME]; \
        memset(sum, 0, (size_t)n * sizeof *sum); \
        for (int k = 0; k < cols; k += 256, row += unit_bytes) { \
            FloatLanes_##NAME d[SCALES_##NAME], m[SCALES_##NAME]; \
            uint8_t copy[304]; \
            const uint8_t *unit = whole_unit(row, copy, cols - k, block, bytes, end); \
            prefetch(row + AHEAD, unit_bytes); \
            scales_##NAME(d, m, unit, block, bytes, group, layout); \
            Points points; \
            if (points_of) points_of(&points, unit); \
            UNROLL(4) \
            for (int s = 0; s < SCALES_##NAME; s++) { \
                const int8_t *digit = x->q + k + 4 * s * BYTES; \
                size_t at = (size_t)k / 16 + (size_t)(s * LANES_##NAME); \
                Lanes_##NAME q[4]; \
                UNROLL(4) \
                for (int v = 0; v < 4; v++) { \
                    q[v] = quanta_##NAME(unit, 4 * s + v, group, layout, &points); \
                } \
                transpose_##NAME(q); \
                for (int t = 0; t < n; t++, digit += lines * ldx, at += ldx / 16) { \
                    FloatLanes_##NAME all = sum[t][s]; \
                    FloatLanes_##NAME dot = __builtin_convertvector(dot_##NAME(q, digit, ldx, f), \
                                                                    FloatLanes_##NAME); \
                    all = fma_##NAME(m[s], *(const FloatLoose_##NAME *)(x->sums + at), all); \
                    sum[t][s] = fma_##NAME(dot, d[s] * *(const FloatLoose_##NAME *)(x->d + at), \
                                           all); \
                } \
            } \
        } \
        for (int t = 0; t < n; t++) { \
            FloatLanes_##NAME all = sum[t][0]; \
            UNROLL(4) \
            for (int s = 1; s < SCALES_##NAME; s++) all += sum[t][s]; \
            y[(size_t)t * ldy] = total_##NAME(all); \
        } \
    } \
    /* The same for rows of floats, f16 or bf16, of which widen_NAME makes lanes. */ \
    TARGET BODY void floats_##NAME(float *y, size_t ldy, const uint8_t *row, const float *x, \
                                   int cols, int type, const int T) \
    { \
        const int size = type == F32 ? 4 : 2, step = LANES_##NAME; \
        FloatLanes_##NAME sum[4][4]; \
        UNROLL(16) \
        for (int i = 0; i < 16; i++) sum[i / 4][i % 4] = (FloatLanes_##NAME){ 0 }; \
        int k = 0; \
        for (; k + 4 * step <= cols; k += 4 * step, row += 4 * step * size) { \
            prefetch(row + AHEAD, 4 * step * size); \
            UNROLL(4) \
            for (int v = 0; v < 4; v++) { \
                FloatLanes_##NAME w = widen_##NAME(row + v * step * size, type); \
                UNROLL(4) \
                for (int i = 0; i < T; i++) { \
                    const float *from = x + (size_t)i * (size_t)cols + k + v * step; \
                    sum[i][v] = fma_##NAME(w, *(const FloatLoose_##NAME *)from, sum[i][v]); \
                } \
            } \
        } \
        for (; k < cols; k += step, row += step * size) { \
            uint8_t last[BYTES] = { 0 }; \
            int left = cols - k < step ? cols - k : step; \
            memcpy(last, row, (size_t)(left * size)); \
            FloatLanes_##NAME w = widen_##NAME(last, type); \
            UNROLL(4) \
            for (int i = 0; i < T; i++) { \
                FloatLanes_##NAME a = { 0 }; \
                memcpy(&a, x + (size_t)i * (size_t)cols + k, (size_t)left * sizeof *x); \
                sum[i][0] = fma_##NAME(w, a, sum[i][0]); \
            } \
        } \
        UNROLL(4) \
        for (int i = 0; i < T; i++) { \
            y[(size_t)i * ldy] = total_##NAME((sum[i][0] + sum[i][1]) + (sum[i][2] + sum[i][3])); \
        } \
    }

/* A band's rows from a piece of 256 columns, one after the other: quanta, and what becomes of them
 * for each 16. */
#define SPLIT(NAME, TARGET, BYTES) \
    TARGET BODY void split_##NAME(Units *to, const uint8_t *rows, const uint8_t *end, \
                                  size_t stride, int count, int cols, const Format *f, \
                                  LayoutOf *layout, PointsOf *points_of) \
    { \
        const int block = f->block, bytes = f->bytes, group = f->group; \
        for (int r = 0; r < count; r++, rows += stride) { \
            uint8_t copy[304]; \
            const uint8_t *unit = whole_unit(rows, copy, cols, block, bytes, end); \
            prefetch(rows + 2 * (256 / block * bytes), 256 / block * bytes); \
            scales_##NAME((FloatLanes_##NAME *)to->d[r], (FloatLanes_##NAME *)to->m[r], unit, \
                          block, bytes, group, layout); \
            Points points; \
            if (points_of) points_of(&points, unit); \
            UNROLL(16) \
            for (int v = 0; v < 256 / BYTES; v++) { \
                ((Lanes_##NAME *)to->q[r])[v] = quanta_##NAME(unit, v, group, layout, &points); \
            } \
        } \
    }

/* Row `row` of x. A block with a NaN gets a d that is NaN, so that it comes to
 * light in the logits. Adding 1.5 * 2^23 rounds to a whole number, in the last bits of the sum.
 * `order` puts a piece's words where row kernels want them, `lane` its groups. */
BODY void quantize(Act *to, const float *x, int row, int cols, int digits, void order(int8_t *),
                   int lane(int))
{
    size_t ldx = whole_pieces(cols), at = (size_t)row * ldx;
    int8_t *q = to->q + at * (size_t)digits;
    float *d = to->d + at / 16, *sums = to->sums + at / 16;
    float limit = digits == 1 ? 127 : 63 * 128 + 63;
    if ((size_t)cols < ldx) { /* the last piece goes on with zeros */
        memset(q + ldx - BAND_COLS, 0, BAND_COLS);
        memset(q + (size_t)digits * ldx - BAND_COLS, 0, BAND_COLS);
        memset(d + ldx / 16 - 16, 0, 16 * sizeof *d);
        memset(sums + ldx / 16 - 16, 0, 16 * sizeof *sums);
    }
    for (int k = 0; k < cols; k += 32, x += 32) {
        uint32_t most = 0;
        for (int i = 0; i < 32; i++) {
            uint32_t u = float_bits(x[i]) & 0x7fffffff;
            most = u > most ? u : most;
        }
        float top = bits_float(most), inverse = top > 1e-30f ? limit / top : 0;
        float step = most < 0x7f800000 ? top / limit : NAN;
        for (int e = 0; e < 2; e++) {
            uint32_t sum = 0;
            for (int i = 16 * e; i < 16 * e + 16; i++) {
                uint32_t u = float_bits(x[i] * inverse + 0x1.8p23f) - float_bits(0x1.8p23f);
                int v = (int)u, high = digits == 1 ? v : (int)(u + 64) >> 7;
                q[k + i] = (int8_t)high;
                if (digits == 2) q[ldx + (size_t)(k + i)] = (int8_t)(u - (uint32_t)high * 128);
                sum += u;
            }
            int to_lane = k / BAND_COLS * 16 + lane(k / 16 % 16 + e);
            d[to_lane] = step;
            sums[to_lane] = (float)(int)sum * step;
        }
    }
    for (size_t k = 0; k < (size_t)digits * ldx; k += BAND_COLS) order(q + k);
}

/* The sums of a tile are kept in registers, so a tile has a fixed number of rows; the largest that
 * fits goes first, smaller ones finish. */
#define TILES(N, BIG, MIDDLE, CALL, ...) \
    for (int t = 0, size; t < (N); t += size) { \
        size = (N)-t >= (BIG) ? (BIG) : (N)-t >= (MIDDLE) ? (MIDDLE) : 1; \
        if (size == (BIG)) \
            CALL(BIG, ##__VA_ARGS__); \
        else if (size == (MIDDLE)) \
            CALL(MIDDLE, ##__VA_ARGS__); \
        else \
            CALL(1, ##__VA_ARGS__); \
    }

/* The same by the digits and the group of a format f, with tiles for one digit and for two. */
#define INT_TILES(N, BIG, MIDDLE, BIG_2, MIDDLE_2, CALL) \
    if (digits_of(f) == 1 && f->group == 32) TILES(N, BIG, MIDDLE, CALL, 1, 32) \
    if (digits_of(f) == 1 && f->group == 16) TILES(N, BIG, MIDDLE, CALL, 1, 16) \
    if (digits_of(f) == 2 && f->group == 32) TILES(N, BIG_2, MIDDLE_2, CALL, 2, 32) \
    if (digits_of(f) == 2 && f->group == 16) TILES(N, BIG_2, MIDDLE_2, CALL, 2, 16)

typedef void RowOf(float *y, size_t ldy, const uint8_t *row, const uint8_t *end, const float *x,
                   const Act *a, int cols, int n);
typedef void SplitOf(Units *to, const uint8_t *rows, const uint8_t *end, size_t stride, int count,
                     int cols);

#define FLOATS_CALL(T, NAME, TYPE) \
    floats_##NAME(y + (size_t)t * ldy, ldy, row, x + (size_t)t * (size_t)cols, cols, TYPE, T)

#define FORMAT_FUNCTIONS(NUMBER, FORMAT, A, B, C, D, E, FIND, F, NAME, TARGET) \
    TARGET static void row_##FORMAT##_##NAME(float *y, size_t ldy, const uint8_t *row, \
                                             const uint8_t *end, const float *x, const Act *a, \
                                             int cols, int n) \
    { \
        (void)x; \
        row_##NAME(y, ldy, row, end, a, cols, n, &formats[NUMBER], layout_##FORMAT, FIND); \
    } \
    TARGET static void split_##FORMAT##_##NAME(Units *to, const uint8_t *rows, const uint8_t *end, \
                                               size_t stride, int count, int cols) \
    { \
        split_##NAME(to, rows, end, stride, count, cols, &formats[NUMBER], layout_##FORMAT, FIND); \
    }
#define FLOAT_FUNCTIONS(TYPE, NAME, TARGET, MOST) \
    TARGET static void row_##TYPE##_##NAME(float *y, size_t ldy, const uint8_t *row, \
                                           const uint8_t *end, const float *x, const Act *a, \
                                           int cols, int n) \
    { \
        (void)a, (void)end; \
        TILES(n, MOST, 2, FLOATS_CALL, NAME, TYPE) \
    }
#define ROW_ENTRY(NUMBER, FORMAT, A, B, C, D, E, F, G, NAME) [NUMBER] = row_##FORMAT##_##NAME,
#define SPLIT_ENTRY(NUMBER, FORMAT, A, B, C, D, E, F, G, NAME) [NUMBER] = split_##FORMAT##_##NAME,

/* Products of floats, see Isa: VECTORS of a band and up to BIG rows of x at a time, whose sums stay
 * in registers. And f16 numbers, which widen_NAME and narrow_NAME convert. */
#define FLOATS(NAME, TARGET, VECTORS, BIG) \
    TARGET BODY void gemm_tile_##NAME(float *y, size_t ldy, const float *w, size_t ldw, \
                                      const float *x, size_t ldx, int cols, const int T) \
    { \
        FloatLanes_##NAME sum[BIG][VECTORS]; \
        UNROLL(24) \
        for (int i = 0; i < T * VECTORS; i++) { \
            sum[i / VECTORS][i % VECTORS] = (FloatLanes_##NAME){ 0 }; \
        } \
        for (int k = 0; k < cols; k++, w += ldw) { \
            FloatLanes_##NAME a[VECTORS]; \
            UNROLL(4) \
            for (int v = 0; v < VECTORS; v++) { \
                a[v] = *(const FloatLoose_##NAME *)(w + v * LANES_##NAME); \
            } \
            UNROLL(12) \
            for (int t = 0; t < T; t++) { \
                FloatLanes_##NAME b = x[(size_t)t * ldx + (size_t)k] - (FloatLanes_##NAME){ 0 }; \
                UNROLL(4) \
                for (int v = 0; v < VECTORS; v++) sum[t][v] = fma_##NAME(a[v], b, sum[t][v]); \
            } \
        } \
        UNROLL(24) \
        for (int i = 0; i < T * VECTORS; i++) { \
            float *to = y + (size_t)(i / VECTORS) * ldy + i % VECTORS * LANES_##NAME; \
            *(FloatLoose_##NAME *)to += sum[i / VECTORS][i % VECTORS]; \
        } \
    } \
    TARGET static void gemm_##NAME(float *y, size_t ldy, const float *w, size_t ldw, \
                                   const float *x, size_t ldx, int cols, int n) \
    { \
        for (int r = 0; r < BAND; r += VECTORS * LANES_##NAME) { \
            TILES(n, BIG, BIG / 3, GEMM_CALL, NAME) \
        } \
    } \
    TARGET static void unpack_f16_##NAME(const void *row, float *y, int n) \
    { \
        const uint16_t *from = row; \
        int i = 0; \
        for (; i + LANES_##NAME <= n; i += LANES_##NAME) { \
            *(FloatLoose_##NAME *)(y + i) = widen_##NAME((const uint8_t *)(from + i), F16); \
        } \
        for (; i < n; i++) y[i] = f16_float(from[i]); \
    } \
    TARGET static void pack_f16_##NAME(void *row, const float *x, int n) \
    { \
        uint16_t *to = row; \
        int i = 0; \
        for (; i + LANES_##NAME <= n; i += LANES_##NAME) { \
            narrow_##NAME(to + i, *(const FloatLoose_##NAME *)(x + i)); \
        } \
        for (; i < n; i++) to[i] = float_f16(x[i]); \
    }
#define GEMM_CALL(T, NAME) \
    gemm_tile_##NAME(y + (size_t)t * ldy + r, ldy, w + r, ldw, x + (size_t)t * ldx, ldx, cols, T)

/* All that an instruction set makes of these: rows of up to MOST floats of x at a time, and see
 * FLOATS. */
#define INSTANTIATE(NAME, TARGET, BYTES, SIGNED, MOST, VECTORS, BIG) \
    READ_UNITS(NAME, TARGET, BYTES, SIGNED) \
    FLOATS(NAME, TARGET, VECTORS, BIG) \
    ROWS(NAME, TARGET, BYTES) \
    SPLIT(NAME, TARGET, BYTES) \
    FORMATS(FORMAT_FUNCTIONS, NAME, TARGET) \
    FLOAT_FUNCTIONS(F32, NAME, TARGET, MOST) \
    FLOAT_FUNCTIONS(F16, NAME, TARGET, MOST) \
    FLOAT_FUNCTIONS(BF16, NAME, TARGET, MOST) \
    static RowOf *const rows_##NAME[] = { FORMATS(ROW_ENTRY, NAME)[F32] = row_F32_##NAME, \
                                          [F16] = row_F16_##NAME, [BF16] = row_BF16_##NAME }; \
    static SplitOf *const splits_##NAME[N_FORMATS] = { FORMATS(SPLIT_ENTRY, NAME) }; \
    TARGET static void activate_##NAME(int kind, float *gate, const float *up, int n) \
    { \
        activate_row(kind, gate, up, n); \
    } \
    TARGET static void outer_##NAME(float *to, const float *w, const float *x, const float *u, \
                                    float decay, int cols) \
    { \
        outer_product(to, w, x, u, decay, cols); \
    } \
    TARGET static void quantize_##NAME(Act *to, const float *x, int row, int cols, int digits) \
    { \
        digits == 1 ? quantize(to, x, row, cols, 1, order_##NAME, lane_##NAME) \
                    : quantize(to, x, row, cols, 2, order_##NAME, lane_##NAME); \
    } \
    FEW(NAME)

/* Of the numbers of x in a group, whose second half is so many lanes behind. */
BODY float group_sum(const float *sums, int group, int behind)
{
    return group == 32 ? sums[0] + sums[behind] : sums[0];
}

/* The drivers of an instruction set: see Few and Many. What a format keeps is read row by row, and
 * put side by side for gemm_int. */
#define FEW(NAME) \
    static void few_##NAME(FloatBand *y, const Mat *w, const float *x, const Act *a, int n, \
                           int first, int count) \
    { \
        RowOf *row = rows_##NAME[w->format - formats]; \
        int most = w->format->bits ? FEW_ROWS : 4; /* more floats don't fit the L1 cache */ \
        for (int t = 0; t < n; t += most, x += most * w->cols, y += most) { \
            for (int r = 0; r < count; r++) { \
                row(y[0] + r, BAND, weights_at(w, first + r, 0), weights_at(w, w->rows, 0), x, a, \
                    w->cols, n - t < most ? n - t : most); \
            } \
        } \
    }
#define MANY(NAME) \
    static void quanta_of_##NAME(Scratch *work, const Mat *w, int k, int cols, int first, \
                                 int count) \
    { \
        size_t stride = row_bytes(w->format, w->cols); \
        Units *units = &work->units; \
        Quanta *to = &work->quanta; \
        splits_##NAME[w->format - formats](units, weights_at(w, first, k), \
                                           weights_at(w, w->rows, 0), stride, count, cols); \
        interleave_##NAME(to->q, units->q[0], sizeof *units->q, sizeof *units->q); \
        size_t floats = sizeof *units->d; \
        interleave_##NAME((Words *)to->d, (uint8_t *)units->d, floats, (int)floats); \
        interleave_##NAME((Words *)to->m, (uint8_t *)units->m, floats, (int)floats); \
    } \
    static void many_##NAME(Scratch *work, FloatBand (*y)[CHUNK], const Mat *w, const float *x, \
                            const Act *a, int n, int first, int count) \
    { \
        if (!w->format->bits) { \
            many_portable(work, y, w, x, a, n, first, count); \
            return; \
        } \
        for (int k = 0; k < w->cols; k += BAND_COLS) { \
            int cols = piece(w, k, BAND_COLS); \
            quanta_of_##NAME(work, w, k, cols, first, count); \
            gemm_int_##NAME(*y, &work->quanta, a, whole_pieces(w->cols), k, cols, n, w->format); \
        } \
    }

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>

#define AVX2 __attribute__((target("avx2,fma,f16c")))

/* Whether register number `r` of a leaf of cpuid has all these bits. We look ourselves, because
 * __builtin_cpu_supports says no to all where nobody fills its table (zig cc, musl). */
static int cpu_has(unsigned leaf, unsigned part, int r, unsigned bits)
{
    unsigned found[4];
    return __get_cpuid_count(leaf, part, &found[0], &found[1], &found[2], &found[3]) &&
           (found[r] & bits) == bits;
}

/* Whether the system keeps these kinds of registers (bits of XCR0) for the process. */
static int system_keeps(unsigned bits)
{
    unsigned low, high;
    if (!cpu_has(1, 0, 2, 1u << 27)) return 0; /* it doesn't tell */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & bits) == bits;
}

/* FMA and F16C, AVX2 */
static int has_avx2(void)
{
    return system_keeps(0x6) && cpu_has(1, 0, 2, 1u << 12 | 1u << 29) && cpu_has(7, 0, 1, 1u << 5);
}

typedef uint32_t Lanes_avx2 __attribute__((vector_size(32), may_alias));
typedef int32_t IntLanes_avx2 __attribute__((vector_size(32), may_alias));
typedef float FloatLanes_avx2 __attribute__((vector_size(32), may_alias));

AVX2 BODY Lanes_avx2 look_up_avx2(Lanes_avx2 q, const int8_t list[16], int more)
{
    __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)list));
    values = _mm256_add_epi8(values, _mm256_set1_epi8((char)more));
    return (Lanes_avx2)_mm256_shuffle_epi8(values, (__m256i)q);
}

AVX2 BODY FloatLanes_avx2 halves_avx2(const uint8_t *unit, int at, int s, int block, int bytes)
{
    if (block == 256) {
        short one;
        memcpy(&one, unit + at, 2);
        return _mm256_cvtph_ps(_mm_set1_epi16(one));
    }
    __m256 v = _mm256_cvtph_ps((__m128i)each_block(unit + at, block, bytes));
    return s ? _mm256_permute2f128_ps(v, v, 0x11) : _mm256_permute2f128_ps(v, v, 0);
}

AVX2 BODY Lanes_avx2 load_avx2(const uint8_t *from, int a, int b, int c, int d)
{
    (void)c, (void)d;
    if (b == a + 16) return (Lanes_avx2)_mm256_loadu_si256((const __m256i *)(from + a));
    __m128i low = _mm_loadu_si128((const __m128i *)(from + a));
    if (a == b) return (Lanes_avx2)_mm256_broadcastsi128_si256(low);
    return (Lanes_avx2)_mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                               _mm_loadu_si128((const __m128i *)(from + b)), 1);
}

AVX2 BODY Lanes_avx2 pick_avx2(const uint8_t *from, Bytes16 at)
{
    __m128i all = _mm_loadu_si128((const __m128i *)from);
    return (Lanes_avx2)_mm256_cvtepu8_epi32(_mm_shuffle_epi8(all, (__m128i)at));
}

AVX2 BODY Lanes_avx2 spread_avx2(Eight16 w, int s)
{
    __m128i v = (__m128i)w, half = s ? _mm_unpackhi_epi64(v, v) : _mm_unpacklo_epi64(v, v);
    return (Lanes_avx2)_mm256_cvtepu16_epi32(half);
}

AVX2 BODY Lanes_avx2 singles_avx2(const uint8_t *from, int a, int b, int c, int d)
{
    int all;
    (void)b, (void)c, (void)d;
    memcpy(&all, from + a / 8, 4);
    const __m256i bytes = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202,
                                            0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i own = _mm256_shuffle_epi8(_mm256_set1_epi32(all), bytes);
    own = _mm256_cmpeq_epi8(_mm256_and_si256(own, bit), bit);
    return (Lanes_avx2)_mm256_and_si256(own, _mm256_set1_epi8(1));
}

/* Products of quanta and a digit each, in pairs of 16 bits. They fit: a quantum of eight bits meets
 * digits of up to 64; numbers of a list have signs and go up to 127. */
AVX2 BODY __m256i pairs_avx2(__m256i w, __m256i x, int with_signs)
{
    if (with_signs) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* Numbers of a long list may be used as they are, since their signs can be taken off. */
AVX2 BODY int has_signs(const Format *f)
{
    return digits_of(f) == 1 && f->bits == 8;
}

AVX2 BODY Layout layout_avx2(Layout l)
{
    return l.list ? as_signed(l) : l;
}

/* So many of them are summed up in 16 bits. */
AVX2 BODY __m256i line_avx2(const Lanes_avx2 q[4], const int8_t *x, int factor, const int run,
                            const int with_signs)
{
    __m256i sum = _mm256_setzero_si256(), pairs = sum;
    UNROLL(4)
    for (int i = 0; i < 4; i++) {
        __m256i four = _mm256_loadu_si256((const __m256i *)(x + 32 * i));
        four = pairs_avx2((__m256i)q[i], four, with_signs);
        pairs = i % run ? _mm256_add_epi16(pairs, four) : four;
        if ((i + 1) % run) continue;
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16((short)factor)));
    }
    return sum;
}

AVX2 BODY IntLanes_avx2 dot_avx2(const Lanes_avx2 q[4], const int8_t *x, size_t ldx,
                                 const Format *f)
{
    const int run = f->bits > 6 ? 1 : 4;
    if (digits_of(f) == 1) return (IntLanes_avx2)line_avx2(q, x, 1, run, has_signs(f));
    return (IntLanes_avx2)_mm256_add_epi32(line_avx2(q, x, 128, run, 0),
                                           line_avx2(q, x + ldx, 1, run, 0));
}

AVX2 BODY void transpose_avx2(Lanes_avx2 a[4])
{
    __m256i v[4] = { (__m256i)a[0], (__m256i)a[1], (__m256i)a[2], (__m256i)a[3] };
    __m256i b[4] = { _mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]),
                     _mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]) };
    a[0] = (Lanes_avx2)_mm256_unpacklo_epi64(b[0], b[2]);
    a[1] = (Lanes_avx2)_mm256_unpackhi_epi64(b[0], b[2]);
    a[2] = (Lanes_avx2)_mm256_unpacklo_epi64(b[1], b[3]);
    a[3] = (Lanes_avx2)_mm256_unpackhi_epi64(b[1], b[3]);
}

AVX2 BODY FloatLanes_avx2 fma_avx2(FloatLanes_avx2 a, FloatLanes_avx2 b, FloatLanes_avx2 c)
{
    return _mm256_fmadd_ps(a, b, c);
}

AVX2 BODY float total_avx2(__m256 all)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

AVX2 BODY FloatLanes_avx2 widen_avx2(const uint8_t *from, int type)
{
    if (type == F32) return _mm256_loadu_ps((const float *)(const void *)from);
    __m128i v = _mm_loadu_si128((const __m128i *)from);
    if (type == F16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

AVX2 BODY void narrow_avx2(uint16_t *to, FloatLanes_avx2 v)
{
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(v, 0));
}

INSTANTIATE(avx2, AVX2, 32, layout_avx2, 2, 2, 6)

/* Eight words of eight rows at a time. */
AVX2 static void interleave_avx2(Words *to, const uint8_t *rows, size_t stride, int bytes)
{
    for (int at = 0; at < bytes; at += 32) {
        for (int r = 0; r < BAND; r += 8) {
            const uint8_t *row = rows + (size_t)r * stride + at;
            Lanes_avx2 a[8];
            UNROLL(8)
            for (int i = 0; i < 8; i++, row += stride) {
                a[i] = (Lanes_avx2)_mm256_loadu_si256((const __m256i *)row);
                HIDE(row);
            }
            transpose_avx2(a);
            transpose_avx2(a + 4);
            UNROLL(4)
            for (int i = 0; i < 4; i++) {
                __m256i low = (__m256i)a[i], high = (__m256i)a[i + 4];
                _mm256_store_si256((__m256i *)(to[at / 4 + i] + r),
                                   _mm256_permute2x128_si256(low, high, 0x20));
                _mm256_store_si256((__m256i *)(to[at / 4 + i + 4] + r),
                                   _mm256_permute2x128_si256(low, high, 0x31));
            }
        }
    }
}

/* What the group in lane j adds to eight rows of the band, of which the first is r:
 * y += (sums d) step + m all */
AVX2 BODY void add_group_avx2(float *y, __m256i sums, const Quanta *w, int j, int r, float step,
                              float all)
{
    __m256 f = _mm256_loadu_ps(y + r), d = _mm256_load_ps(w->d[j] + r);
    f = _mm256_fmadd_ps(_mm256_load_ps(w->m[j] + r), _mm256_set1_ps(all), f);
    f = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_mul_ps(d, _mm256_set1_ps(step)), f);
    _mm256_storeu_ps(y + r, f);
}

/* Half a band, T rows of x. Pairs are summed in 16 bits as long as they fit, for `run` words. */
AVX2 BODY void int_tile_avx2(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k, int t,
                             int cols, int r, const int digits, const int group, const int run,
                             const int with_signs, const int T)
{
    size_t at = ((size_t)t * ldx + (size_t)k) / 16;
    for (int j = 0; j < cols; j += group) {
        const int8_t *q = x->q + (size_t)t * (size_t)digits * ldx + k + word_avx2(j / 16, 0);
        const int lane = lane_avx2(j / 16);
        __m256i pairs[8], sum[8];
        UNROLL(8)
        for (int i = 0; i < group / 4; i++) {
            const __m256i *band = (const __m256i *)(w->q[j / 4 + i] + r);
            UNROLL(8)
            for (int e = 0; e < 2 * T * digits; e++) { /* rows of x, digits, halves */
                int four, line = e / 2, high = digits == 2 && line % 2 == 0;
                memcpy(&four, q + (size_t)line * ldx + word_avx2(i / 4, i % 4), 4);
                __m256i both = pairs_avx2(_mm256_load_si256(band + e % 2), _mm256_set1_epi32(four),
                                          with_signs);
                pairs[e] = i % run ? _mm256_add_epi16(pairs[e], both) : both;
                __asm__("" : "+x"(pairs[e])); /* or it adds in another order, see HIDE */
                if ((i + 1) % run) continue;
                __m256i all = _mm256_madd_epi16(pairs[e], _mm256_set1_epi16(high ? 128 : 1));
                int to = line / digits * 2 + e % 2, first = i < run && line % digits == 0;
                sum[to] = first ? all : _mm256_add_epi32(sum[to], all);
            }
        }
        UNROLL(8)
        for (int e = 0; e < 2 * T; e++) {
            const size_t part = at + (size_t)(e / 2) * ldx / 16 + (size_t)lane;
            add_group_avx2(y[t + e / 2], sum[e], w, lane, r + 8 * (e % 2), x->d[part],
                           group_sum(x->sums + part, group, lane_avx2(1)));
        }
    }
}

AVX2 static void gemm_int_avx2(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k,
                               int cols, int n, const Format *f)
{
    if (k == 0) memset(y, 0, (size_t)n * sizeof *y);
    for (int r = 0; r < BAND; r += 16) {
#define CALL(T, DIGITS, GROUP, RUN, SIGNS) \
    int_tile_avx2(y, w, x, ldx, k, t, cols, r, DIGITS, GROUP, RUN, SIGNS, T)
        if (digits_of(f) == 1 && f->group == 32 && f->bits <= 4) TILES(n, 4, 2, CALL, 1, 32, 8, 0)
        if (digits_of(f) == 1 && f->group == 32 && f->bits == 5) TILES(n, 4, 2, CALL, 1, 32, 4, 0)
        if (digits_of(f) == 1 && f->group == 32 && f->bits == 7) TILES(n, 4, 2, CALL, 1, 32, 1, 0)
        if (digits_of(f) == 1 && f->group == 16 && f->bits == 7) TILES(n, 4, 2, CALL, 1, 16, 1, 0)
        if (digits_of(f) == 1 && f->group == 16 && f->bits < 4) TILES(n, 4, 2, CALL, 1, 16, 4, 0)
        if (digits_of(f) == 1 && f->bits == 8) TILES(n, 4, 2, CALL, 1, 32, 1, 1)
        if (digits_of(f) == 2 && f->bits == 5) TILES(n, 2, 1, CALL, 2, 32, 8, 0)
        if (digits_of(f) == 2 && f->bits == 6) TILES(n, 2, 1, CALL, 2, 16, 4, 0)
        if (digits_of(f) == 2 && f->bits == 8) TILES(n, 2, 1, CALL, 2, 32, 1, 0)
#undef CALL
    }
}

AVX2 static float softmax_avx2(Softmax *f, float *scores, int length, int visible, float scale)
{
    return softmax_block(f, scores, length, visible, scale);
}

MANY(avx2)

#define AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))

static int has_avx512(void)
{
    const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    return has_avx2() && system_keeps(0xe6) && cpu_has(7, 0, 1, f | dq | bw | vl) &&
           cpu_has(7, 0, 2, vnni);
}

typedef uint32_t Lanes_avx512 __attribute__((vector_size(64), may_alias));
typedef int32_t IntLanes_avx512 __attribute__((vector_size(64), may_alias));
typedef float FloatLanes_avx512 __attribute__((vector_size(64), may_alias));

AVX512 BODY Lanes_avx512 look_up_avx512(Lanes_avx512 q, const int8_t list[16], int more)
{
    __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)list));
    values = _mm512_add_epi8(values, _mm512_set1_epi8((char)more));
    return (Lanes_avx512)_mm512_shuffle_epi8(values, (__m512i)q);
}

AVX512 BODY Lanes_avx512 spread_avx512(Eight16 w, int s)
{
    const __m256i order = _mm256_set_epi16(7, 5, 3, 1, 7, 5, 3, 1, 6, 4, 2, 0, 6, 4, 2, 0);
    __m256i v = _mm256_castsi128_si256((__m128i)w);
    (void)s;
    return (Lanes_avx512)_mm512_cvtepu16_epi32(_mm256_permutexvar_epi16(order, v));
}

/* What eight blocks have in some place lies in four windows of 64 bytes, two blocks in each, or in
 * two: words of two windows are picked at once. No window goes past the unit. */
AVX512 BODY FloatLanes_avx512 halves_avx512(const uint8_t *unit, int at, int s, int block,
                                            int bytes)
{
    typedef uint16_t Halves __attribute__((vector_size(64), may_alias));
    const int each = bytes <= 20 ? 4 : 2;
    __m512i all = _mm512_setzero_si512();
    if (block == 256) {
        short one;
        memcpy(&one, unit + at, 2);
        return _mm512_cvtph_ps(_mm256_set1_epi16(one));
    }
    if (block > 32) {
        Lanes_avx512 v = spread_avx512(each_block(unit + at, block, bytes), s);
        return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v));
    }
    UNROLL(2)
    for (int first = 0; first < 8; first += 2 * each) {
        int a = first * bytes, b = (first + each) * bytes, last = 8 * bytes - 64;
        Halves order = { 0 };
        __mmask32 mine = 0;
        if (a > last) a = last;
        if (b > last) b = last;
        UNROLL(16)
        for (int e = 0; e < 16; e++) {
            int p = e % 4 * 2 + e / 8, second = p >= first + each; /* see group_avx512 */
            if (p < first || p >= first + 2 * each) continue;
            order[e] = (uint16_t)((p * bytes + at - (second ? b : a)) / 2 + 32 * second);
            mine |= 1u << e;
        }
        __m512i words = _mm512_maskz_permutex2var_epi16(
            mine, _mm512_loadu_si512(unit + a), (__m512i)order, _mm512_loadu_si512(unit + b));
        all = first ? _mm512_or_si512(all, words) : words;
    }
    return _mm512_cvtph_ps(_mm512_castsi512_si256(all));
}

/* Half of a vector. */
AVX512 BODY __m256i half_vector(const uint8_t *from, int a, int b)
{
    if (b == a + 16) return _mm256_loadu_si256((const __m256i *)(from + a));
    __m128i low = _mm_loadu_si128((const __m128i *)(from + a));
    if (a == b) return _mm256_broadcastsi128_si256(low);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_loadu_si128((const __m128i *)(from + b)), 1);
}

AVX512 BODY Lanes_avx512 load_avx512(const uint8_t *from, int a, int b, int c, int d)
{
    if (b == a + 16 && c == a + 32 && d == a + 48) {
        return (Lanes_avx512)_mm512_loadu_si512(from + a);
    }
    if (a == b && c == d) {
        __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(from + a)));
        __m128i high = _mm_loadu_si128((const __m128i *)(from + c));
        return (Lanes_avx512)_mm512_mask_broadcast_i32x4(low, 0xff00, high);
    }
    __m256i low = half_vector(from, a, b);
    if (a == c && b == d) return (Lanes_avx512)_mm512_broadcast_i64x4(low);
    return (Lanes_avx512)_mm512_inserti64x4(_mm512_castsi256_si512(low), half_vector(from, c, d),
                                            1);
}

AVX512 BODY Lanes_avx512 pick_avx512(const uint8_t *from, Bytes16 at)
{
    __m128i all = _mm_loadu_si128((const __m128i *)from);
    return (Lanes_avx512)_mm512_cvtepu8_epi32(_mm_shuffle_epi8(all, (__m128i)at));
}

AVX512 BODY Lanes_avx512 singles_avx512(const uint8_t *from, int a, int b, int c, int d)
{
    uint32_t low, high;
    (void)b, (void)d;
    memcpy(&low, from + a / 8, 4), memcpy(&high, from + c / 8, 4);
    return (Lanes_avx512)_mm512_maskz_set1_epi8((__mmask64)low | (__mmask64)high << 32, 1);
}

AVX512 BODY Layout layout_avx512(Layout l)
{
    return l;
}

AVX512 BODY IntLanes_avx512 dot_avx512(const Lanes_avx512 q[4], const int8_t *x, size_t ldx,
                                       const Format *f)
{
    __m512i sum = _mm512_setzero_si512();
    UNROLL(2)
    for (int line = 0; line < digits_of(f); line++, x += ldx) {
        if (line) sum = _mm512_slli_epi32(sum, 7);
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            sum = _mm512_dpbusd_epi32(sum, (__m512i)q[i], _mm512_loadu_si512(x + 64 * i));
        }
    }
    return (IntLanes_avx512)sum;
}

AVX512 BODY void transpose_avx512(Lanes_avx512 a[4])
{
    __m512i v[4] = { (__m512i)a[0], (__m512i)a[1], (__m512i)a[2], (__m512i)a[3] };
    __m512i b[4] = { _mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]),
                     _mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]) };
    a[0] = (Lanes_avx512)_mm512_unpacklo_epi64(b[0], b[2]);
    a[1] = (Lanes_avx512)_mm512_unpackhi_epi64(b[0], b[2]);
    a[2] = (Lanes_avx512)_mm512_unpacklo_epi64(b[1], b[3]);
    a[3] = (Lanes_avx512)_mm512_unpackhi_epi64(b[1], b[3]);
}

AVX512 BODY FloatLanes_avx512 fma_avx512(FloatLanes_avx512 a, FloatLanes_avx512 b,
                                         FloatLanes_avx512 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

AVX512 BODY float total_avx512(FloatLanes_avx512 all)
{
    return _mm512_reduce_add_ps(all);
}

AVX512 BODY FloatLanes_avx512 widen_avx512(const uint8_t *from, int type)
{
    if (type == F32) return _mm512_loadu_ps(from);
    __m256i v = _mm256_loadu_si256((const __m256i *)from);
    if (type == F16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

AVX512 BODY void narrow_avx512(uint16_t *to, FloatLanes_avx512 v)
{
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(v, 0));
}

INSTANTIATE(avx512, AVX512, 64, layout_avx512, 4, 2, 12)

/* Four words of sixteen rows. */
AVX512 BODY void interleave_four_avx512(Words *to, const uint8_t *row, size_t stride)
{
    Lanes_avx512 a[4];
    UNROLL(4)
    for (int i = 0; i < 4; i++, row += stride) { /* rows i, i + 4, i + 8, i + 12 */
        const uint8_t *next = row;
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)next));
        next += 4 * stride;
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)next), 1);
        next += 4 * stride;
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)next), 2);
        next += 4 * stride;
        a[i] = (Lanes_avx512)_mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)next), 3);
    }
    transpose_avx512(a);
    UNROLL(4)
    for (int i = 0; i < 4; i++) _mm512_store_si512(to[i], (__m512i)a[i]);
}

/* A line of the cache of each row before the next one. */
AVX512 static void interleave_avx512(Words *to, const uint8_t *rows, size_t stride, int bytes)
{
    for (int line = 0; line < bytes; line += 64) {
        for (int r = 0; r < BAND; r += 16) {
            const uint8_t *row = rows + (size_t)r * stride + line;
            UNROLL(4)
            for (int i = 0; i < 16; i += 4) {
                if (line + 4 * i < bytes) {
                    interleave_four_avx512((Words *)&to[line / 4 + i][r], row + 4 * i, stride);
                }
            }
        }
    }
}

AVX512 BODY void int_tile_avx512(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k,
                                 int t, int cols, const int digits, const int group, const int T)
{
    size_t at = (size_t)t * ldx + (size_t)k;
    const int8_t *q = x->q + (size_t)t * (size_t)digits * ldx + k;
    const float *d = x->d + at / 16, *sums = x->sums + at / 16;
    __m512 f[6][2];
    UNROLL(6)
    for (int i = 0; i < T; i++) {
        f[i][0] = k ? _mm512_load_ps(y[t + i]) : _mm512_setzero_ps();
        f[i][1] = k ? _mm512_load_ps(y[t + i] + 16) : _mm512_setzero_ps();
    }
    for (int j = 0; j < cols; j += group) {
        const int lane = lane_avx512(j / 16);
        __m512i sum[12][2]; /* (T, digits) */
        const Words *from = w->q + j / 4;
        UNROLL(12)
        for (int i = 0; i < T * digits; i++) {
            sum[i][0] = sum[i][1] = _mm512_setzero_si512();
            if (j % 64 == 0) __builtin_prefetch(q + (size_t)(T * digits + i) * ldx + j, 0, 3);
        }
        UNROLL(8)
        for (int p = 0; p < group / 4; p++) {
            __m512i w0 = _mm512_load_si512(from[p]), w1 = _mm512_load_si512(from[p] + 16);
            UNROLL(12)
            for (int i = 0; i < T * digits; i++) {
                int four;
                memcpy(&four, q + (size_t)i * ldx + 4 * lane + word_avx512(p / 4, p % 4), 4);
                __m512i a = _mm512_set1_epi32(four);
                sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], w0, a);
                sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], w1, a);
            }
        }
        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            __m512 wd = _mm512_load_ps(w->d[lane] + 16 * h);
            __m512 wm = _mm512_load_ps(w->m[lane] + 16 * h);
            UNROLL(6)
            for (int i = 0; i < T; i++) {
                size_t part = (size_t)i * ldx / 16 + (size_t)lane;
                __m512i s = sum[i * digits][h];
                if (digits == 2) s = _mm512_add_epi32(_mm512_slli_epi32(s, 7), sum[2 * i + 1][h]);
                __m512 step = _mm512_mul_ps(wd, _mm512_set1_ps(d[part]));
                float all = group_sum(sums + part, group, lane_avx512(1));
                f[i][h] = _mm512_fmadd_ps(wm, _mm512_set1_ps(all), f[i][h]);
                f[i][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), step, f[i][h]);
            }
        }
    }
    UNROLL(6)
    for (int i = 0; i < T; i++) {
        _mm512_store_ps(y[t + i], f[i][0]), _mm512_store_ps(y[t + i] + 16, f[i][1]);
    }
}

AVX512 static void gemm_int_avx512(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k,
                                   int cols, int n, const Format *f){
#define CALL(T, DIGITS, GROUP) int_tile_avx512(y, w, x, ldx, k, t, cols, DIGITS, GROUP, T)
    INT_TILES(n, 6, 2, 4, 2, CALL)
#undef CALL
}

/* The first n lanes of sixteen, none where n is negative. */
AVX512 BODY __mmask16 first_lanes(int n)
{
    return n <= 0 ? 0 : n < 16 ? (__mmask16)((1 << n) - 1) : 0xffff;
}

/* As softmax_block, with instructions for 2^y: a polynomial of the part of y behind the point. */
AVX512 static float softmax_avx512(Softmax *f, float *scores, int length, int visible, float scale)
{
    static const float p[] = { 2.0829195e-4f, 1.2689352e-3f, 9.6524404e-3f, 5.5495936e-2f,
                               0.24022722f,   0.69314718f,   1 };
    __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int j = 0; j < visible; j += 16) {
        most = _mm512_mask_max_ps(most, first_lanes(visible - j), most,
                                  _mm512_loadu_ps(scores + j));
    }
    float top = _mm512_reduce_max_ps(most) * scale;
    top = f->top > top ? f->top : top;
    for (int j = 0; j < length; j += 16) {
        __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(scale),
                                   _mm512_set1_ps(top));
        __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
        __m512 r = _mm512_reduce_ps(y, 1), e = _mm512_set1_ps(p[0]);
        UNROLL(6)
        for (int i = 1; i < 7; i++) e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(p[i]));
        __mmask16 seen = _mm512_mask_cmp_ps_mask(first_lanes(visible - j), x, _mm512_set1_ps(-69),
                                                 _CMP_NLT_UQ);
        e = _mm512_maskz_scalef_ps(seen, e, y);
        _mm512_storeu_ps(scores + j, e);
        sum = _mm512_add_ps(sum, e);
    }
    float shrink = exponential(f->top - top);
    f->sum = f->sum * shrink + _mm512_reduce_add_ps(sum);
    f->top = top;
    return shrink;
}

MANY(avx512)

#if defined SYS_arch_prctl && (__has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>))
#define AMX \
    __attribute__(( \
        target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

/* The processor must have bf16 (bit 5), tiles (24) and their bf16 products (22), and the system
 * must allow this process, with all its threads, to use them: they make the frames of signals
 * larger. */
static int has_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return has_avx512() && cpu_has(7, 1, 0, 1u << 5) && cpu_has(7, 0, 3, 1u << 24 | 1u << 22) &&
           !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

/* Columns up to a whole tile are zeros. What rounding takes off x is rounded in its turn. */
AMX static void round_amx(Act *to, const float *x, int row, int cols, int digits)
{
    for (int k = 0; k < cols; k += 32) {
        Tiles *tiles = to->tiles + k / BAND_COLS * digits;
        uint32_t mask = cols - k < 32 ? (1u << (cols - k)) - 1 : ~0u;
        __m512 a = _mm512_maskz_loadu_ps((__mmask16)mask, x + k);
        __m512 b = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + k + 16);
        for (int i = 0; i < digits; i++) {
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
            __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
            __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
            _mm512_store_si512(tiles[i][row / 16][k % BAND_COLS / 32][row % 16], both);
            a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
            b = _mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
        }
    }
}

/* Sixteen words of two columns each, a and b, go to `to`; what rounding takes off them, in its turn
 * rounded, a row of ldw words behind. */
AMX BODY void put_pair(float *to, size_t ldw, __m512 a, __m512 b, const int parts)
{
    const __m512i order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i zip = _mm512_add_epi32(_mm512_mullo_epi32(order, _mm512_set1_epi32(0x10001)),
                                         _mm512_set1_epi32(0x100000));
    UNROLL(2)
    for (int part = 0; part < parts; part++, to += ldw) {
        __m512i v = _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        __m512i high = _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000));
        _mm512_storeu_si512(to, v);
        a = _mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)));
        b = _mm512_sub_ps(b, _mm512_castsi512_ps(high));
    }
}

/* Quanta of a band; columns come in multiples of 32. */
AMX static void pair_quanta(FloatBand *to, const Quanta *w, int cols, const int parts)
{
    const __m512i byte = _mm512_set1_epi32(255);
    for (int j = 0; j < cols / 4 * 2; j++) { /* half a band each time */
        int r = j % 2 * 16, i = j / 2;
        const int lane = lane_avx512(i / 4);
        __m512 d = _mm512_load_ps(w->d[lane] + r), m = _mm512_load_ps(w->m[lane] + r), f[4];
        __m512i q = _mm512_load_si512(w->q[i] + r);
        UNROLL(4)
        for (int e = 0; e < 4; e++) {
            __m512i one = _mm512_and_si512(_mm512_srli_epi32(q, 8 * (unsigned)e), byte);
            f[e] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(one), d, m);
        }
        put_pair(to[2 * i * parts] + r, BAND, f[0], f[1], parts);
        put_pair(to[(2 * i + 1) * parts] + r, BAND, f[2], f[3], parts);
    }
}

/* Floats w(cols, BAND), in place. Columns up to a whole tile become zeros. */
AMX static void make_pairs_amx(float *w, size_t ldw, size_t band, int bands, int cols)
{
    for (int i = 0; i < bands * BAND / 16; i++) {
        float *at = w + (size_t)(i / 2) * band + i % 2 * 16;
        for (int k = 0; k < (cols + 31) / 32 * 32; k += 2, at += 2 * ldw) {
            __m512 a = k < cols ? _mm512_loadu_ps(at) : _mm512_setzero_ps();
            __m512 b = k + 1 < cols ? _mm512_loadu_ps(at + ldw) : _mm512_setzero_ps();
            put_pair(at, ldw, a, b, 2);
        }
    }
}

/* Whether weights are more than their first part: those that were bf16 once are not. */
AMX static int has_low_parts(FloatBand *w, int cols)
{
    __m512i any = _mm512_setzero_si512();
    for (int i = 1; i < (cols + 31) / 32 * 32; i += 2) {
        any = _mm512_or_si512(
            any, _mm512_or_si512(_mm512_load_si512(w[i]), _mm512_load_si512(w[i] + 16)));
    }
    return _mm512_test_epi32_mask(any, _mm512_set1_epi32(0x7fff7fff)) != 0;
}

/* Tiles 0 to 3 += tiles 4 and 5, which are 16 rows of x each, times 6 and 7, half a band each. */
AMX BODY void tile_products(const int T)
{
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (T == 1) return;
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* T times 16 rows of x, from row t on, and a band. Of the products of x = x0 + x1 and w = w0 + w1
 * the first ones count, as many as PRODUCTS says: x0 w0, x1 w0, x0 w1. */
AMX BODY void tiles_amx(float *y, size_t ldy, const float *w, size_t ldw, Tiles *x, int add, int t,
                        int cols, const int T, const int PRODUCTS)
{
    float *y0 = y + (size_t)t * ldy, *y1 = y0 + 16 * (size_t)(T - 1) * ldy;
    uint16_t(*x0)[16][32] = x[0][t / 16], (*x1)[16][32] = x[PRODUCTS > 1][t / 16];
    const int next = BAND_COLS / 32 * (T - 1);
    const long row = (long)(ldy * sizeof *y),
               words = (long)(ldw * sizeof *w) * (1 + (PRODUCTS > 1));
    if (!add) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, y0, row);
        _tile_loadd(1, y0 + 16, row);
        if (T == 2) _tile_loadd(2, y1, row);
        if (T == 2) _tile_loadd(3, y1 + 16, row);
    }
    for (int i = 0; i < (cols + 31) / 32; i++, w += words * 4) {
        _tile_loadd(6, w, words);
        _tile_loadd(7, w + 16, words);
        if (PRODUCTS > 1) {
            _tile_loadd(4, x1[i], sizeof **x1);
            if (T == 2) _tile_loadd(5, x1[i + next], sizeof **x1);
            tile_products(T);
        }
        _tile_loadd(4, x0[i], sizeof **x0);
        if (T == 2) _tile_loadd(5, x0[i + next], sizeof **x0);
        tile_products(T);
        if (PRODUCTS < 3) continue;
        _tile_loadd(6, w + ldw, words);
        _tile_loadd(7, w + ldw + 16, words);
        tile_products(T);
    }
    _tile_stored(0, y0, row);
    _tile_stored(1, y0 + 16, row);
    if (T == 2) _tile_stored(2, y1, row);
    if (T == 2) _tile_stored(3, y1 + 16, row);
}

/* Makes tiles 0, 1 and 4 as high as the first 16 of some rows of x, 2, 3 and 5 as the others. */
AMX BODY void shape_tiles(int rows)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16]; /* of a row of each tile */
        uint8_t rows[16];
    } shapes = { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 0 } };
    int first = rows < 16 ? rows : 16, second = rows > 16 ? rows - 16 : 16;
    for (int i = 0; i < 8; i++) {
        shapes.rows[i] = (uint8_t)(i > 5 ? 16 : i < 2 || i == 4 ? first : second);
    }
    __asm__ volatile("" ::: "memory"); /* gcc does not know that tile instructions read memory */
    _tile_loadconfig(&shapes);
}

/* y(n, bands of w) = or += x w, in so many products. */
AMX static void gemm_pairs(float *y, size_t ldy, const float *w, size_t ldw, size_t band, int bands,
                           Tiles *x, int add, int cols, int n, int products)
{
    shape_tiles(32);
    for (int t = 0; t < n; t += 32) {
        if (n - t < 32) shape_tiles(n - t);
        for (int i = 0; i < bands; i++) {
            const float *from = w + (size_t)i * band;
            float *to = y + i * BAND;
#define CALL(PRODUCTS) \
    n - t > 16 ? tiles_amx(to, ldy, from, ldw, x, add, t, cols, 2, PRODUCTS) \
               : tiles_amx(to, ldy, from, ldw, x, add, t, cols, 1, PRODUCTS)
            if (products == 1) {
                CALL(1);
            } else if (products == 2) {
                CALL(2);
            } else {
                CALL(3);
            }
#undef CALL
        }
    }
    _tile_release();
}

/* Up to RUN_BANDS bands at once: they all use the same piece of x while it is in the L2 cache, and
 * keep theirs of the weights in the L1 cache. The next piece of weights is on its way from memory
 * meanwhile. bf16 keeps 8 bits: a part leaves an error of about 2^-9, two of them 2^-18. One
 * product is enough where the format's own error is seven times that of the product, which adds 2 %
 * to its square; that of Q8_0 is twice as large only. */
static void bands_amx(Scratch *work, FloatBand (*y)[CHUNK], const Mat *w, const float *x,
                      const Act *a, int n, int first, int count)
{
    const Format *f = w->format;
    size_t stride = row_bytes(f, w->cols);
    (void)x;
    for (int k = 0; k < w->cols; k += BAND_COLS) {
        int cols = piece(w, k, BAND_COLS);
        for (int r = 0; r < count; r += BAND) {
            int rows = count - r < BAND ? count - r : BAND;
            if (f->bits) {
                quanta_of_avx512(work, w, k, cols, first + r, rows);
                pair_quanta(work->lanes, &work->quanta, cols, f->parts);
            } else {
                unpack_band(work, w, k, cols, first + r, rows);
                make_pairs_amx(work->lanes[0], BAND, 0, 1, cols);
            }
            int below = r + BAND < count ? r + BAND : 0, ahead = below ? k : k + BAND_COLS;
            const uint8_t *next = weights_at(w, first + below, ahead);
            for (int i = 0; ahead < w->cols && i < BAND; i++, next += stride) {
                prefetch(next, (int)row_bytes(f, cols));
            }
            int products = f->parts == 1 ? 1 : has_low_parts(work->lanes, cols) ? 3 : 2;
            gemm_pairs(y[r / BAND][0], BAND, work->lanes[0], BAND, 0, 1,
                       a->tiles + k / BAND_COLS * f->parts, k > 0, cols, n, products);
        }
    }
}

static void gemm_tiles_amx(Scratch *work, float *y, size_t ldy, const float *w, size_t ldw,
                           size_t band, int bands, const float *x, size_t ldx, int cols, int n)
{
    Act a = { { .tiles = work->tiles }, NULL, NULL };
    for (int k = 0; k < cols; k += BAND_COLS) {
        int some = cols - k < BAND_COLS ? cols - k : BAND_COLS;
        for (int t = 0; t < n; t++) round_amx(&a, x + (size_t)t * ldx + k, t, some, 2);
        gemm_pairs(y, ldy, w + (size_t)k * ldw, ldw, band, bands, a.tiles, 1, some, n, 3);
    }
}
#endif
#elif defined __aarch64__
#include <arm_neon.h>

typedef uint32_t Lanes_neon __attribute__((vector_size(16), may_alias));
typedef int32_t IntLanes_neon __attribute__((vector_size(16), may_alias));
typedef float FloatLanes_neon __attribute__((vector_size(16), may_alias));

BODY Lanes_neon look_up_neon(Lanes_neon q, const int8_t list[16], int more)
{
    uint8x16_t values = vaddq_u8(vreinterpretq_u8_s8(vld1q_s8(list)), vdupq_n_u8((uint8_t)more));
    return (Lanes_neon)vqtbl1q_u8(values, (uint8x16_t)q);
}

BODY FloatLanes_neon halves_neon(const uint8_t *unit, int at, int s, int block, int bytes)
{
    uint16_t one;
    memcpy(&one, unit + at, 2);
    if (block == 256) return (FloatLanes_neon)vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(one)));
    Eight16 w = each_block(unit + at, block, bytes);
    uint16x4_t two = { w[2 * s], w[2 * s], w[2 * s + 1], w[2 * s + 1] };
    return (FloatLanes_neon)vcvt_f32_f16(vreinterpret_f16_u16(two));
}

/* sum += four quanta of each of four rows times four digits. Without the instruction for it: two
 * products fit 16 bits. */
BODY int32x4_t dot_four(int32x4_t sum, int8x16_t w, uint32_t digits)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_lane_s32(sum, w, vcreate_s8(digits), 0);
#else
    int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(digits));
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
}

/* The same of each number with its own digit. */
BODY int32x4_t dot_each(int32x4_t sum, int8x16_t w, int8x16_t x)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, w, x);
#else
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
}

BODY Lanes_neon load_neon(const uint8_t *from, int a, int b, int c, int d)
{
    (void)b, (void)c, (void)d;
    return (Lanes_neon)vld1q_u8(from + a);
}

BODY Lanes_neon pick_neon(const uint8_t *from, Bytes16 at)
{
    uint8x16_t four = vqtbl1q_u8(vld1q_u8(from), (uint8x16_t)at);
    return (Lanes_neon)vmovl_u16(vget_low_u16(vmovl_u8(vget_low_u8(four))));
}

BODY Lanes_neon spread_neon(Eight16 w, int s)
{
    return (Lanes_neon){ w[2 * s], w[2 * s], w[2 * s + 1], w[2 * s + 1] };
}

BODY Lanes_neon singles_neon(const uint8_t *from, int a, int b, int c, int d)
{
    const uint8x16_t bit = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    (void)b, (void)c, (void)d;
    uint8x16_t own = vcombine_u8(vdup_n_u8(from[a / 8]), vdup_n_u8(from[a / 8 + 1]));
    return (Lanes_neon)vandq_u8(vtstq_u8(own, bit), vdupq_n_u8(1));
}

BODY IntLanes_neon dot_neon(const Lanes_neon q[4], const int8_t *x, size_t ldx, const Format *f)
{
    int32x4_t sum = vdupq_n_s32(0);
    UNROLL(2)
    for (int line = 0; line < digits_of(f); line++, x += ldx) {
        if (line) sum = vshlq_n_s32(sum, 7);
        UNROLL(4)
        for (int i = 0; i < 4; i++) sum = dot_each(sum, (int8x16_t)q[i], vld1q_s8(x + 16 * i));
    }
    return (IntLanes_neon)sum;
}

BODY void transpose_neon(Lanes_neon a[4])
{
    uint32x4x2_t even = vzipq_u32((uint32x4_t)a[0], (uint32x4_t)a[2]),
                 odd = vzipq_u32((uint32x4_t)a[1], (uint32x4_t)a[3]);
    uint32x4x2_t low = vzipq_u32(even.val[0], odd.val[0]),
                 high = vzipq_u32(even.val[1], odd.val[1]);
    a[0] = (Lanes_neon)low.val[0], a[1] = (Lanes_neon)low.val[1];
    a[2] = (Lanes_neon)high.val[0], a[3] = (Lanes_neon)high.val[1];
}

BODY FloatLanes_neon fma_neon(FloatLanes_neon a, FloatLanes_neon b, FloatLanes_neon c)
{
    return (FloatLanes_neon)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

BODY float total_neon(FloatLanes_neon all)
{
    return vaddvq_f32((float32x4_t)all);
}

BODY FloatLanes_neon widen_neon(const uint8_t *from, int type)
{
    if (type == F32) return (FloatLanes_neon)vreinterpretq_f32_u8(vld1q_u8(from));
    uint16x4_t v = vreinterpret_u16_u8(vld1_u8(from));
    if (type == F16) return (FloatLanes_neon)vcvt_f32_f16(vreinterpret_f16_u16(v));
    return (FloatLanes_neon)vreinterpretq_f32_u32(vshll_n_u16(v, 16));
}

BODY void narrow_neon(uint16_t *to, FloatLanes_neon v)
{
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
}

INSTANTIATE(neon, , 16, as_signed, 4, 4, 4)

/* Four words of four rows at a time, as far as a line of the cache goes. */
static void interleave_neon(Words *to, const uint8_t *rows, size_t stride, int bytes)
{
    for (int at = 0; at < bytes; at += 64, to += 16) {
        for (int r = 0; r < BAND; r += 4) {
            UNROLL(4)
            for (int i = 0; i < 16; i += 4) {
                const uint8_t *row = rows + (size_t)r * stride + at + 4 * i;
                Lanes_neon a[4];
                UNROLL(4)
                for (int j = 0; j < 4; j++, row += stride) {
                    a[j] = (Lanes_neon)vld1q_u8(row);
                    HIDE(row);
                }
                transpose_neon(a);
                UNROLL(4)
                for (int j = 0; j < 4; j++) vst1q_u32(to[i + j] + r, (uint32x4_t)a[j]);
            }
        }
    }
}

/* Word i of a group and of the next one. */
BODY uint32_t word_of_x(const int8_t *q, int i)
{
    uint32_t four;
    memcpy(&four, q + word_neon(i / 4, i % 4), 4);
    return four;
}

/* The sums of some words of half a band times lines of x, which begin every ldx digits. */
BODY void line_sums(int32x4_t sum[4][4], const Words *from, const int8_t *q, size_t ldx, int words,
                    const int lines)
{
    HIDE(words);          /* or the loops are unrolled, for which there are too few registers */
#ifdef __ARM_FEATURE_MATMUL_INT8
    if (lines % 2 == 0) { /* an instruction takes two words of two rows, and two lines */
        int32x4_t square[2][8] = { { { 0 } } };
        for (int p = 0; p < words; p += 2) {
            UNROLL(8)
            for (int h = 0; h < 8; h++) {
                uint32x4_t a = vld1q_u32(from[p] + h / 2 * 4);
                uint32x4_t b = vld1q_u32(from[p + 1] + h / 2 * 4);
                uint32x4_t both = h % 2 ? vzip2q_u32(a, b) : vzip1q_u32(a, b);
                UNROLL(2)
                for (int i = 0; i < lines / 2; i++) {
                    const int8_t *x = q + 2 * (size_t)i * ldx;
                    uint32x4_t two = { word_of_x(x, p), word_of_x(x, p + 1), word_of_x(x + ldx, p),
                                       word_of_x(x + ldx, p + 1) };
                    square[i][h] = vmmlaq_s32(square[i][h], vreinterpretq_s8_u32(both),
                                              vreinterpretq_s8_u32(two));
                }
            }
        }
        UNROLL(8)
        for (int i = 0; i < lines * 2; i++) {
            int32x4_t a = square[i / 4][i % 4 * 2], b = square[i / 4][i % 4 * 2 + 1];
            sum[i / 4 * 2][i % 4] = vuzp1q_s32(a, b), sum[i / 4 * 2 + 1][i % 4] = vuzp2q_s32(a, b);
        }
        return;
    }
#endif
    memset(sum, 0, (size_t)lines * sizeof *sum);
    for (int p = 0; p < words; p++) {
        int8x16_t quanta[4];
        UNROLL(4)
        for (int h = 0; h < 4; h++) quanta[h] = vreinterpretq_s8_u32(vld1q_u32(from[p] + 4 * h));
        UNROLL(4)
        for (int i = 0; i < lines; i++) {
            uint32_t four = word_of_x(q + (size_t)i * ldx, p);
            UNROLL(4)
            for (int h = 0; h < 4; h++) sum[i][h] = dot_four(sum[i][h], quanta[h], four);
        }
    }
}

/* Half a band, T rows of x. */
BODY void int_tile_neon(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k, int t,
                        int cols, int r, const int digits, const int group, const int T)
{
    size_t at = (size_t)t * ldx + (size_t)k;
    const int8_t *q = x->q + (size_t)t * (size_t)digits * ldx + k;
    const float *d = x->d + at / 16, *sums = x->sums + at / 16;
    for (int j = 0; j < cols; j += group) {
        int32x4_t sum[4][4]; /* (T * digits, quarters of the half) */
        const int lane = lane_neon(j / 16);
        const int8_t *from = q + word_neon(j / 16, 0);
        line_sums(sum, (const Words *)&w->q[j / 4][r], from, ldx, group / 4, T * digits);
        UNROLL(4)
        for (int h = 0; h < 4; h++) {
            float32x4_t wd = vld1q_f32(w->d[lane] + r + 4 * h);
            float32x4_t wm = vld1q_f32(w->m[lane] + r + 4 * h);
            UNROLL(4)
            for (int i = 0; i < T; i++) {
                float *to = y[t + i] + r + 4 * h;
                size_t part = (size_t)i * ldx / 16 + (size_t)lane;
                int32x4_t s = sum[i * digits][h];
                if (digits == 2) s = vaddq_s32(vshlq_n_s32(s, 7), sum[2 * i + 1][h]);
                float32x4_t f = vmulq_f32(vcvtq_f32_s32(s), wd);
                f = vfmaq_n_f32(vld1q_f32(to), f, d[part]);
                vst1q_f32(to, vfmaq_n_f32(f, wm, group_sum(sums + part, group, lane_neon(1))));
            }
        }
    }
}

static void gemm_int_neon(FloatBand *y, const Quanta *w, const Act *x, size_t ldx, int k, int cols,
                          int n, const Format *f)
{
    if (k == 0) memset(y, 0, (size_t)n * sizeof *y);
    for (int r = 0; r < BAND; r += 16) {
#define CALL(T, DIGITS, GROUP) int_tile_neon(y, w, x, ldx, k, t, cols, r, DIGITS, GROUP, T)
        INT_TILES(n, 4, 2, 2, 1, CALL)
#undef CALL
    }
}

MANY(neon)
#endif
#endif /* RUN_PORTABLE */

/* In rising order; the last usable row wins, and what it lacks is that of the row above it here. To
 * add one: what it does better, a check of the machine, a row. RUN_CPU=NAME forces a row. */
#define KERNELS(NAME) \
    .few = few_##NAME, .many = many_##NAME, .prepare = quantize_##NAME, \
    .interleave = interleave_##NAME, .gemm = gemm_##NAME, .activate = activate_##NAME, \
    .outer = outer_##NAME, .unpack_f16 = unpack_f16_##NAME, \
    .pack_f16 = pack_f16_##NAME
static Isa isas[] = {
    { "portable", always, .few = few_portable, .many = many_portable,
      .interleave = interleave_portable, .gemm = gemm_portable, .softmax = softmax_portable,
      .activate = activate_portable, .outer = outer_portable, .unpack_f16 = unpack_F16,
      .pack_f16 = pack_F16 },
#ifdef RUN_PORTABLE
#elif defined __x86_64__
    { "avx2", has_avx2, KERNELS(avx2), .softmax = softmax_avx2 },
    { "avx512", has_avx512, KERNELS(avx512), .softmax = softmax_avx512 },
#ifdef AMX
    { "amx", has_amx, .tiles = bands_amx, .prepare_tiles = round_amx, .make_pairs = make_pairs_amx,
      .gemm_tiles = gemm_tiles_amx },
#endif
#elif defined __aarch64__
    { "neon", always, KERNELS(neon) },
#endif
};

/* Gives each row what it lacks. */
static void complete_rows(void)
{
    size_t size = sizeof isas->few;
    for (size_t i = 1; i < ARRAY_LEN(isas); i++) {
        for (size_t at = offsetof(Isa, few); at < sizeof *isas; at += size) {
            char *own = (char *)&isas[i] + at;
            Few *function;
            memcpy(&function, own, size);
            if (!function) memcpy(own, own - sizeof *isas, size);
        }
    }
}

static const char *pick_kernels(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *wanted = getenv("RUN_CPU");
    const Isa *best = NULL;
    pthread_once(&once, complete_rows);
    pthread_once(&grids_made, make_grids);
    for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
        if (wanted && *wanted && strcmp(wanted, isas[i].name)) continue;
        if (isas[i].usable()) best = &isas[i];
    }
    if (!best) {
        fail("RUN_CPU=%s: this machine has no such kernels", wanted);
        return NULL;
    }
    kernels = best;
    return best->name;
}

#endif /* RUN_HEADER_ONLY */
