/* Calls in any order. Sessions of a model do by lot what the API has; a shadow of each knows which
 * tokens it has then, and its logits must be those of a session that took these one by one and did
 * nothing else. Where all were evaluated in few rows that means the same bits, else as near as
 * products of many rows come, and the cache's rounding of what they gave. Then conversations, which
 * must be those that their turns make. What is wrong is printed with the model, the seed and all
 * calls since it began. SEQUENCES=N does N rounds of it, SEQUENCES=N-M those of seeds N to M. */

enum {
    SLOTS = 4,   /* sessions at a time */
    CALLS = 250, /* of a round; half as many in conversations, which cost more */
    MOST = 1200, /* positions of a session */
    VOCAB = 300, /* the most tokens of a model */
    FEW = 8,     /* rows that each get the sums of a single one */
};

/* The models: goldens, or "tiny". To add one: a row. */
static const struct Tested {
    const char *name, *cache;
    int recurrent;     /* going back may evaluate tokens anew, in whatever batches */
    int short_context; /* longer texts are evaluated anew, with other rotations; 0: not */
} tested[] = {
    { "llama", "f32", 0, 0 },     { "llama", "f16", 0, 0 },         { "tiny", "q8_0", 0, 0 },
    { "gemma3", "f32", 0, 0 },    { "cohere2", "f16", 0, 0 },       { "gpt-oss", "f32", 0, 0 },
    { "deepseek2", "f32", 0, 0 }, { "phi3", "f32", 0, 32 },         { "gemma4", "f32", 0, 0 },
    { "lfm2", "f32", 1, 0 },      { "qwen35", "f32", 1, 0 },        { "qwen35", "f16", 1, 0 },
    { "mamba2", "f32", 1, 0 },    { "granitehybrid", "f32", 1, 0 }, { "falcon-h1", "f32", 1, 0 },
};

/* What a session must be. */
typedef struct {
    llm_session *s;
    int tokens[MOST], n;       /* those behind n were there before it went back */
    float wanted[MOST][VOCAB]; /* logits behind each of the first `known` tokens */
    int known;
    int few; /* of the tokens: the first ones, which were evaluated in few rows */
    int has_logits;
    int seed, draws; /* since it was given the seed */
} Shadow;

static Shadow slots[SLOTS], saves[2];

static struct {
    const struct Tested *is;
    llm_model *model;
    int vocab, seed;
    uint64_t random;
    llm_session *plain[SLOTS]; /* by slot; they only ever append one token */
    char calls[1 << 16];
    size_t n_calls;
    int wrong; /* something was, so the round ends */
} trial;

static int lot(int n)
{
    return (int)(random_unit(&trial.random) * n);
}

/* Writes down a call, or how it ended. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t room = sizeof trial.calls - trial.n_calls;
    int n = vsnprintf(trial.calls + trial.n_calls, room, format, args);
    trial.n_calls += (size_t)n < room ? (size_t)n : 0;
    va_end(args);
}

/* A check of slot i. */
#define must(ok, i, format, ...) \
    do { \
        int is_ok = (ok); \
        trial.wrong |= !is_ok; \
        check(is_ok, "%s, cache %s, seed %d, slot %d: " format "\n%s", trial.is->name, \
              trial.is->cache, trial.seed, i, __VA_ARGS__, trial.calls); \
    } while (0)

static volatile int interrupted;

static llm_session *new_session(int context, int threads, const char *template)
{
    llm_options o = { .context = context, .threads = threads, .cache = trial.is->cache,
                      .chat_template = template, .interrupt = &interrupted };
    llm_session *s = llm_session_new(trial.model, &o);
    must(s != NULL, -1, "%s", llm_error());
    return s;
}

/* ---- What logits must be ---- */

/* The logits behind the first n tokens of slot i. */
static const float *wanted_logits(int i, int n)
{
    Shadow *t = &slots[i];
    llm_session **s = &trial.plain[i];
    int from = *s ? llm_position(*s) : 0;
    if (n <= t->known) return t->wanted[n - 1];
    if (!*s || from > t->known || memcmp(llm_tokens(*s), t->tokens, (size_t)from * sizeof(int))) {
        llm_session_free(*s);
        *s = new_session(MOST, 1, NULL), from = 0;
    }
    for (int k = from; k < n; k++) {
        const float *logits = llm_eval(*s, t->tokens + k, 1);
        if (logits) memcpy(t->wanted[k], logits, (size_t)trial.vocab * sizeof *logits);
    }
    t->known = n;
    return t->wanted[n - 1];
}

/* How far logits may lie apart, as a share of their range, if tokens were evaluated in batches of
 * other sizes: as sums of another order do, or numbers that the cache rounds to the next one. What
 * tiles round, Gemma 4, whose scores are not made smaller, makes the most of: 6.4e-4 in seven
 * rounds on AMX, where the sums of other kernels differ by 6e-6. */
static double batches_bound(void)
{
    const char *cache = trial.is->cache;
    double sums = kernels->tiles ? 2e-3 : batch_bound() + 1e-4;
    return !strcmp(cache, "f32") ? sums : sums + (!strcmp(cache, "f16") ? 3e-3 : 3e-2);
}

/* Checks the logits behind the first n tokens of slot i. */
static void compare(int i, const float *got, int n)
{
    const float *wanted = wanted_logits(i, n);
    int same = !memcmp(got, wanted, (size_t)trial.vocab * sizeof *got);
    double apart = same ? 0 : float_difference(got, wanted, trial.vocab);
    must(same || (n > slots[i].few && apart < batches_bound()), i,
         "logits behind %d tokens differ by %g of their range; %d were evaluated in few rows", n,
         apart, slots[i].few);
}

/* Checks all sessions: what one does must not be seen in another. */
static void compare_all(void)
{
    for (int i = 0; i < SLOTS && !trial.wrong; i++) {
        const Shadow *t = &slots[i];
        const float *logits = llm_logits(t->s);
        must(llm_position(t->s) == t->n &&
                 !memcmp(llm_tokens(t->s), t->tokens, (size_t)t->n * sizeof *t->tokens),
             i, "%d tokens, expected %d, or others", llm_position(t->s), t->n);
        must(!logits == !t->has_logits, i, "logits are %s", logits ? "left" : "missing");
        if (logits && !trial.wrong) compare(i, logits, t->n);
    }
}

static void shadow_appends(Shadow *t, const int *tokens, int n)
{
    if (t->few == t->n && n <= FEW) t->few += n;
    for (int k = 0; k < n; k++, t->n++) {
        if (t->n < t->known && t->tokens[t->n] != tokens[k]) t->known = t->n;
        t->tokens[t->n] = tokens[k];
    }
    t->has_logits = 1;
    if (trial.is->short_context && t->n > trial.is->short_context) t->few = 0;
}

static void shadow_goes_back(Shadow *t, int n)
{
    if (n == t->n) return;
    t->has_logits = 0;
    t->n = n;
    t->few = trial.is->recurrent ? 0 : t->few < n ? t->few : n;
}

/* ---- Interruptions ---- */

enum { NEVER, BEFORE, SOON };

static pthread_t interrupter;

static void *interrupt_soon(void *microseconds)
{
    usleep(*(unsigned *)microseconds);
    interrupted = 1;
    return NULL;
}

/* Sometimes what is called next is interrupted. Returns when; `ended` must follow. */
static int maybe_interrupt(void)
{
    static unsigned wait;
    int when = lot(10) ? NEVER : lot(2) ? SOON : BEFORE;
    wait = (unsigned)lot(400);
    if (when == SOON && pthread_create(&interrupter, NULL, interrupt_soon, &wait)) when = NEVER;
    interrupted = when == BEFORE;
    return when;
}

/* Notes the end of a call for slot i, which must fail with `expected` if that is not 0, and may if
 * it was interrupted. Returns whether it failed. */
static int ended(int i, int status, int when, int expected)
{
    if (when == SOON) pthread_join(interrupter, NULL);
    interrupted = 0;
    note("%s%s\n", when == SOON ? " (soon interrupted)" : when ? " (interrupted)" : "",
         status < 0 ? " fails" : "");
    int by_interrupt = status == -1 && when && strstr(llm_error(), "interrupted");
    must(expected ? status == expected : status >= 0 || by_interrupt, i, "status %d: %s", status,
         status < 0 ? llm_error() : "");
    if (by_interrupt) slots[i].has_logits = slots[i].few = 0;
    return status < 0;
}

/* ---- Calls ---- */

/* Appends n tokens to slot i, and looks at the logits behind each or behind the last. */
static void call_eval(int i, const int *tokens, int n, int all)
{
    static float rows[MOST * VOCAB];
    Shadow *t = &slots[i];
    int full = n > llm_context(t->s) - t->n, when = maybe_interrupt(), status;
    note("%d: eval%s %d", i, all ? "_all" : "", n);
    if (all) status = llm_eval_all(t->s, tokens, n, rows);
    else status = llm_eval(t->s, tokens, n) ? 0 : full ? LLM_FULL : -1;
    if (ended(i, status, when, full ? LLM_FULL : when == BEFORE ? -1 : 0)) return;
    shadow_appends(t, tokens, n);
    for (int k = 0, until = trial.is->short_context; all && k < n && !trial.wrong; k++) {
        int end = t->n - n + k + 1;
        if (end > until || t->n <= until) compare(i, rows + k * trial.vocab, end);
    }
}

static void call_eval_random(int i)
{
    int tokens[MOST], n = lot(3) ? 1 : lot(3) ? 2 + lot(10) : lot(12) ? 2 + lot(69) : 512 + lot(70);
    for (int k = 0; k < n; k++) tokens[k] = lot(trial.vocab);
    call_eval(i, tokens, n, !lot(3));
}

/* Appends a token to each of some sessions. */
static void call_eval_many(void)
{
    llm_session *sessions[SLOTS];
    int who[SLOTS], tokens[SLOTS], n = 0, full = 0, first = lot(SLOTS), when = maybe_interrupt();
    note("eval_many");
    for (int k = 0; k < SLOTS; k++) {
        int i = (first + k) % SLOTS;
        if (!lot(3) && (n || k < SLOTS - 1)) continue;
        full |= slots[i].n == llm_context(slots[i].s);
        sessions[n] = slots[i].s, tokens[n] = lot(trial.vocab), who[n++] = i;
        note(" %d", i);
    }
    int status = llm_eval_many(sessions, tokens, n);
    int fails = ended(who[0], status, when, full ? LLM_FULL : when == BEFORE ? -1 : 0);
    for (int k = 0; k < n; k++) {
        Shadow *t = &slots[who[k]];
        if (!fails)
            shadow_appends(t, tokens + k, 1);
        else if (!full)
            t->has_logits = t->few = 0;
    }
}

/* Goes back, and perhaps the same way again, in other steps. */
static void call_rewind(int i)
{
    Shadow *t = &slots[i];
    int to = lot(8) ? lot(2) ? lot(t->n + 1) : t->n - lot(t->n < 10 ? t->n + 1 : 10) : 0;
    int again[MOST], n = t->n - to;
    memcpy(again, t->tokens + to, (size_t)n * sizeof *again);
    note("%d: rewind to %d\n", i, to);
    must(!llm_rewind(t->s, to), i, "%s", llm_error());
    shadow_goes_back(t, to);
    if (lot(2)) return;
    for (int k = 0, more; k < n && t->n == to + k && !trial.wrong; k += more) {
        more = lot(2) ? n - k : 1 + lot(n - k);
        call_eval(i, again + k, more, 0);
    }
}

/* Makes some of its own tokens, or of another session's, and new ones the past. */
static void call_sync(int i)
{
    Shadow *t = &slots[i], *from = &slots[lot(SLOTS)];
    int tokens[MOST + 20], n = lot(from->n + 1), more = lot(3) * lot(10), same = 0;
    memcpy(tokens, from->tokens, (size_t)n * sizeof *tokens);
    while (more--) tokens[n++] = lot(trial.vocab);
    while (same < n && same < t->n && tokens[same] == t->tokens[same]) same++;
    int full = n > llm_context(t->s), when = maybe_interrupt();
    note("%d: sync %d tokens, %d of them known", i, n, same);
    int status = llm_sync(t->s, tokens, n);
    if (ended(i, status, when, full ? LLM_FULL : when == BEFORE && n > same ? -1 : 0)) return;
    shadow_goes_back(t, same);
    if (n > same) shadow_appends(t, tokens + same, n - same);
}

/* Draws and evaluates a few of the likeliest tokens. */
static void call_generate(int i)
{
    Shadow *t = &slots[i];
    int n = 1 + lot(4), when = maybe_interrupt(), before = t->n;
    note("%d: generate %d", i, n);
    int status = llm_generate(t->s, NULL, n, &(llm_sampling){ 0 }, NULL, NULL);
    if (trial.is->recurrent && !t->has_logits) t->few = 0; /* it goes back for them */
    int fails = ended(i, status, when, 0), end = llm_position(t->s);
    must(fails ? end <= before + n + !before : end == before + status + !before, i,
         "%d tokens behind %d, status %d", end, before, status);
    for (int k = before; k < end && !trial.wrong; k++) {
        const float *logits = k ? wanted_logits(i, k) : NULL;
        int token = llm_tokens(t->s)[k], likeliest = token;
        for (int j = 0; j < trial.vocab && k; j++)
            if (logits[j] > logits[likeliest]) likeliest = j;
        must(!k || logits[likeliest] - logits[token] < 0.01, i, "token %d is %d, expected %d", k,
             token, likeliest);
        shadow_appends(t, &token, 1);
    }
    t->has_logits = !fails;
    if (fails) t->few = 0;
}

/* Draws like a session that was evaluated from nothing, in batches of few rows. */
static void call_sample(int i)
{
    static const llm_sampling how = { .temperature = 1, .repeat_penalty = 1.2f, .top_p = 0.9f };
    Shadow *t = &slots[i];
    llm_session *other = new_session(MOST, 1, NULL);
    if (!lot(3)) llm_seed(t->s, (uint64_t)(t->seed = lot(1000))), t->draws = 0;
    for (int k = 0, n; k < t->n; k += n) {
        n = t->n - k < FEW ? t->n - k : FEW;
        llm_eval(other, t->tokens + k, n);
    }
    llm_seed(other, (uint64_t)t->seed);
    for (int k = 0; k < t->draws && t->n; k++) llm_sample(other, &how);
    int token = llm_sample(t->s, &how), wanted = t->has_logits ? llm_sample(other, &how) : -1;
    note("%d: draw number %d of seed %d\n", i, t->draws, t->seed);
    must((token < 0) == (wanted < 0) && (token == wanted || t->few < t->n), i,
         "token %d is drawn, expected %d", token, wanted);
    t->draws += t->has_logits;
    llm_session_free(other);
}

static void call_new(int i)
{
    Shadow *t = &slots[i];
    int context = i && lot(8) ? 20 + lot(180) : MOST - lot(200), threads = 1 + lot(3);
    note("%d: new, context %d, %d threads\n", i, context, threads);
    llm_session_free(t->s);
    t->s = new_session(context, threads, NULL);
    t->n = t->few = t->known = t->has_logits = t->draws = 0;
    llm_seed(t->s, (uint64_t)(t->seed = lot(1000)));
}

static const char *const save_names[] = { TMP "/sequence1", TMP "/sequence2" };

/* Forks a session to another slot, saves it, or loads it. */
static void call_copy(int i)
{
    static const char *const names[] = { "fork to", "save to", "load from" };
    int how = lot(3), to = how ? lot(2) : (i + 1 + lot(SLOTS - 1)) % SLOTS, status = 0;
    Shadow *t = &slots[i], *other = how ? &saves[to] : &slots[to];
    llm_session *mine = t->s;
    if (how == 2 && !other->s) return;
    int fits = how < 2 || other->n <= llm_context(mine);
    note("%d: %s %d\n", i, names[how], to);
    if (how == 0) llm_session_free(other->s);
    if (how == 1) status = llm_save(mine, save_names[to]);
    if (how == 2) status = llm_load(mine, save_names[to]);
    must(status == (fits ? 0 : -1), i, "status %d: %s", status, llm_error());
    if (how == 2 && fits) *t = *other, t->s = mine;
    if (how < 2) *other = *t;
    if (how == 0) must((other->s = llm_fork(mine)) != NULL, i, "%s", llm_error());
}

static void round_of_calls(void)
{
    for (int i = 0; i < SLOTS; i++) call_new(i);
    for (int k = 0; k < CALLS && !trial.wrong; k++) {
        int what = lot(100), i = lot(SLOTS);
        if (what < 40) call_eval_random(i);
        else if (what < 50) call_eval_many();
        else if (what < 68) call_rewind(i);
        else if (what < 76) call_sync(i);
        else if (what < 82) call_generate(i);
        else if (what < 86) call_sample(i);
        else if (what < 88) call_new(i);
        else call_copy(i);
        compare_all();
    }
    for (int i = 0; i < SLOTS; i++) {
        llm_session_free(slots[i].s), llm_session_free(trial.plain[i]);
        slots[i].s = trial.plain[i] = NULL;
    }
    saves[0].s = saves[1].s = NULL;
}

/* ---- Conversations ---- */

/* A session and what was said in it; the last turn may be open. */
typedef struct {
    llm_session *s;
    struct {
        const char *role;
        char text[80];
    } turns[CALLS];
    int n, open;
} Talk;

static Talk talks[2], saved_talk;

/* Gives a session the turns of a talk. */
static int say_all(llm_session *s, const Talk *t)
{
    int status = 0, tokens[80], n;
    for (int i = 0; i < t->n && !status; i++) {
        int open = t->open && i == t->n - 1;
        status = llm_turn(s, t->turns[i].role, open ? NULL : t->turns[i].text);
        n = llm_encode(trial.model, t->turns[i].text, strlen(t->turns[i].text), 0, tokens, 80);
        if (open && n && !status) status = llm_eval(s, tokens, n) ? 0 : -1;
    }
    return status;
}

/* A talk must be what its turns make of a new session. */
static void compare_talk(int i, const char *template)
{
    const Talk *t = &talks[i];
    llm_session *fresh = new_session(MOST, 1, template);
    int fails = say_all(fresh, t), n = llm_position(fresh);
    const float *a = llm_logits(t->s), *b = llm_logits(fresh);
    must(!fails && llm_turns(t->s) == t->n && llm_position(t->s) == n &&
             !memcmp(llm_tokens(t->s), llm_tokens(fresh), (size_t)n * sizeof(int)),
         i, "%d turns, expected %d; %d tokens, expected %d, or others", llm_turns(t->s), t->n,
         llm_position(t->s), n);
    double apart = a && b && !trial.wrong ? float_difference(a, b, trial.vocab) : 0;
    must(apart < batches_bound(), i, "logits differ by %g of their range", apart);
    llm_session_free(fresh);
}

/* Says something, or opens an answer. */
static void talk_turn(int i, const char *role, const char *text)
{
    Talk *t = &talks[i];
    int when = maybe_interrupt();
    note("%d: %s \"%s\"", i, role, text ? text : "...");
    if (ended(i, llm_turn(t->s, role, text), when, 0)) return;
    t->turns[t->n].role = role;
    snprintf(t->turns[t->n++].text, sizeof t->turns->text, "%s", text ? text : "");
    t->open = !text;
}

/* Lets the model write. In an open answer the letters of that stay, in the vocabulary's tokens. */
static void talk_generate(int i)
{
    static const llm_sampling how = { .temperature = 1 };
    Talk *t = &talks[i];
    char text[200], *end = strchr(t->turns[t->n - 1].text, 0);
    int from = llm_position(t->s), when = maybe_interrupt(), tokens[80], n = 0;
    note("%d: generate", i);
    ended(i, llm_generate(t->s, NULL, 1 + lot(8), &how, NULL, NULL), when, 0);
    llm_decode(trial.model, llm_tokens(t->s) + from, llm_position(t->s) - from, 0, text, 200);
    for (char *c = text; *c && t->open && end < t->turns[t->n - 1].text + 79; c++) {
        if (*c < 'a' || *c > 'z') continue;
        n += llm_encode(trial.model, c, 1, 0, tokens + n, 1);
        *end++ = *c, *end = 0;
    }
    must(!llm_rewind(t->s, from) && (!n || llm_eval(t->s, tokens, n)), i, "%s", llm_error());
}

static void talk_drop(int i, int first, int count)
{
    Talk *t = &talks[i];
    int when = maybe_interrupt();
    note("%d: drop %d from %d on", i, count, first);
    if (ended(i, llm_drop(t->s, first, count), when, 0)) return;
    t->open &= first + count < t->n;
    memmove(t->turns + first, t->turns + first + count,
            (size_t)(t->n - first - count) * sizeof *t->turns);
    t->n -= count;
}

/* Forks a talk in place of the other, saves it, or loads what was saved. */
static void talk_copy(int i)
{
    static const char *const names[] = { "fork", "save", "load" };
    int how = lot(3), status = 0;
    Talk *t = &talks[i], *other = how ? &saved_talk : &talks[1 - i];
    llm_session *mine = t->s;
    if (how == 2 && !other->s) return;
    note("%d: %s\n", i, names[how]);
    if (how == 0) llm_session_free(other->s);
    if (how == 1) status = llm_save(mine, save_names[0]);
    if (how == 2) status = llm_load(mine, save_names[0]);
    must(!status, i, "%s", llm_error());
    if (how == 2) *t = *other, t->s = mine;
    if (how < 2) *other = *t;
    if (how == 0) other->s = llm_fork(mine);
}

static void round_of_talk(void)
{
    static const char *const texts[] = { "tea", "be kind", "", "in the rain", " so" };
    const char *template = lot(2) ? NULL : template_of("late");
    for (int i = 0; i < 2; i++) talks[i] = (Talk){ .s = new_session(MOST, 1 + i, template) };
    saved_talk.s = NULL;
    if (lot(2)) talk_turn(0, "system", texts[lot(5)]);
    for (int k = 0; k < CALLS / 2 && !trial.wrong; k++) {
        int what = lot(24), i = lot(2), n = talks[i].n;
        if (llm_position(talks[i].s) > MOST * 3 / 4) talk_drop(i, 0, n);
        else if (!n || what < 6) talk_turn(i, "user", texts[lot(5)]);
        else if (what < 7) talk_turn(i, "assistant", texts[lot(5)]);
        else if (what < 11) talk_turn(i, "assistant", NULL);
        else if (what < 18) talk_generate(i);
        else if (what < 19) talk_drop(i, lot(n), 1);
        else if (what < 20) talk_drop(i, n - 1, 1);
        else if (what < 21) talk_drop(i, n > 1 ? n - 2 : 0, n > 1 ? 2 : 1);
        else talk_copy(i);
        compare_talk(i, template);
    }
    llm_session_free(talks[0].s), llm_session_free(talks[1].s);
}

/* ---- Models ---- */

/* A golden with a vocabulary of letters and ChatML's marks. These keys come first, up to where what
 * follows stays aligned. */
static Bytes talking_golden(const char *path, int vocab)
{
    static const char *const names[] = { "<unk>",      "<s>",          "</s>", "<|im_start|>",
                                         "<|im_end|>", "\xe2\x96\x81", "\n" };
    static uint8_t golden[1 << 20];
    Builder b = { 0 };
    Bytes file = { 0 };
    size_t size;
    char text[33] = "";
    slurp_bytes(path, golden, sizeof golden, &size);
    add_string(&b, "tokenizer.ggml.model", "llama");
    add_array(&b, "tokenizer.ggml.tokens", STRING, (uint64_t)vocab);
    for (int i = 0; i < vocab; i++) {
        snprintf(text, sizeof text, i < 7 + 26 ? "%c" : "<%d>", i < 7 + 26 ? 'a' + i - 7 : i);
        put_text(&b.keys, i < 7 ? names[i] : text);
    }
    add_array(&b, "tokenizer.ggml.scores", FLOAT32, (uint64_t)vocab);
    put(&b.keys, NULL, (size_t)vocab * 4);
    add_array(&b, "tokenizer.ggml.token_type", I32, (uint64_t)vocab);
    for (int i = 0; i < vocab; i++) put_int(&b.keys, i == 0 ? 2 : i < 5 ? 3 : 1, 4);
    add_bool(&b, "tokenizer.ggml.add_space_prefix", 0);
    add_string(&b, "tokenizer.chat_template", "chatml");
    int header = 8 + 7 + 4 + 8; /* of this key */
    snprintf(text, sizeof text, "%*s", (int)(31 - (b.keys.size + header - 1) % 32), "");
    add_string(&b, "padding", text);
    put(&file, golden, 16);
    put_int(&file, golden[16] + (uint64_t)b.n_keys, 8); /* goldens have less than 256 */
    put(&file, b.keys.data, b.keys.size);
    put(&file, golden + 24, size - 24);
    free(b.keys.data);
    return file;
}

static Bytes file_of(const struct Tested *t)
{
    Shape tiny = { .arch = "llama", .dim = 16, .hidden_dim = 16, .n_layers = 2, .n_heads = 2,
                   .n_kv_heads = 1, .head_dim = 32, .n_rot = 32, .context = 1200, .vocab = 300,
                   .chat = 1, .seed = 3 };
    char path[80];
    snprintf(path, sizeof path, "tests/goldens/%s.gguf", t->name);
    llm_model *m = strcmp(t->name, "tiny") ? llm_open(path) : NULL;
    Bytes file = m ? talking_golden(path, llm_info(m)->vocab_size) : tiny_model(&tiny);
    llm_close(m);
    return file;
}

static void try_model(const struct Tested *t, int first, int last)
{
    Bytes file = file_of(t);
    trial.is = t;
    trial.model = llm_open_memory(file.data, file.size);
    check(trial.model, "%s: %s", t->name, llm_error());
    for (int k = 2 * first; k <= 2 * last + 1 && trial.model; k++) {
        trial.vocab = llm_info(trial.model)->vocab_size;
        trial.seed = k / 2, trial.random = spread_seed((uint64_t)(k * 256 + (t - tested)));
        trial.n_calls = 0, trial.wrong = 0;
        if (k % 2) round_of_talk();
        else round_of_calls();
    }
    llm_close(trial.model);
    free(file.data);
}

static void test_sequences(void)
{
    const char *wish = getenv("SEQUENCES");
    int first = 1, last = 1, given = wish ? sscanf(wish, "%d-%d", &first, &last) : 0;
    if (given == 1) last = first, first = 1;
    for (size_t i = 0; i < ARRAY_LEN(tested); i++) try_model(&tested[i], first, last);
    unlink(save_names[0]), unlink(save_names[1]);
}
