/* The rows of isas[] as a whole: what each of them makes of the bundled model in every weight
 * format, that batches and threads change nothing, and a model that is larger than what is used of
 * memory. */

/* Makes a row of the kernel table the one in use; 0 where the machine can't run it. */
static int use_row(size_t i)
{
    if (!isas[i].usable()) return 0;
    setenv("RUN_CPU", isas[i].name, 1);
    return pick_kernels() != NULL;
}

/* ---- Quantizers: the plain ones of the formats' definitions, which search for nothing ---- */

static int nearest(float v, int low, int high)
{
    float r = roundf(v);
    return r < (float)low ? low : r > (float)high ? high : (int)r;
}

/* v / d, but 0 where d is 0: in a block of zeros. */
static float quotient(float v, float d)
{
    return d == 0 ? 0 : v / d;
}

/* A scale as the file holds it, and as it comes back. */
static float put_half(uint8_t *to, float v)
{
    uint16_t half = float_f16(v);
    memcpy(to, &half, 2);
    return f16_float(half);
}

/* Q4_0, Q4_1, Q5_0, Q5_1: d, perhaps m, perhaps fifth bits, two numbers to a byte. */
static void pack_32(uint8_t *out, const float *x, int bits, int with_min)
{
    int levels = 1 << bits;
    uint8_t *high = out + (with_min ? 4 : 2), *q = high + (bits == 5 ? 4 : 0);
    float low = x[0], top = x[0];
    for (int i = 1; i < 32; i++) low = fminf(low, x[i]), top = fmaxf(top, x[i]);
    float largest = -low > top ? low : top;
    float d = put_half(out, with_min ? (top - low) / (float)(levels - 1)
                                     : largest / (float)(-levels / 2));
    float m = with_min ? put_half(out + 2, low) : (float)(-levels / 2) * d;
    memset(high, 0, (size_t)(q + 16 - high));
    for (int i = 0; i < 32; i++) {
        int v = nearest(quotient(x[i] - m, d), 0, levels - 1);
        q[i % 16] |= (uint8_t)((v & 15) << i / 16 * 4);
        if (bits == 5) high[i / 8] |= (uint8_t)(v >> 4 << i % 8);
    }
}

/* Blocks as docs/gguf.md describes them. */
typedef struct {
    uint16_t d;
    int8_t q[32];
} BlockQ8_0;
typedef struct {
    uint8_t scales[16], q[64];
    uint16_t d, m;
} BlockQ2_K;
typedef struct {
    uint8_t high[32], q[64], scales[12];
    uint16_t d;
} BlockQ3_K;
typedef struct {
    uint16_t d, high;
    uint8_t low[4], q[128];
} BlockIQ4_XS;
typedef struct {
    uint8_t q[128], high[64];
    int8_t scales[16];
    uint16_t d;
} BlockQ6_K;

/* Q4_K and Q5_K: the inverse of six_bits, and parts of 32 with a scale and a minimum each. */
static void pack_k(uint8_t *out, const float *x, int bits)
{
    uint8_t *s = out + 4, *high = s + 12, *q = high + (bits == 5 ? 32 : 0);
    float scale[8], min[8], top_scale = 0, top_min = 0;
    for (int p = 0; p < 8; p++) {
        float low = 0, top = 0;
        for (int i = 0; i < 32; i++) {
            low = fminf(low, x[p * 32 + i]), top = fmaxf(top, x[p * 32 + i]);
        }
        scale[p] = (top - low) / (float)((1 << bits) - 1), min[p] = -low;
        top_scale = fmaxf(top_scale, scale[p]), top_min = fmaxf(top_min, min[p]);
    }
    memset(out, 0, (size_t)(q + 128 - out));
    float d = put_half(out, top_scale / 63), m = put_half(out + 2, top_min / 63);
    for (int p = 0; p < 8; p++) {
        int ls = nearest(quotient(scale[p], d), 0, 63), lm = nearest(quotient(min[p], m), 0, 63);
        s[p < 4 ? p : p + 4] |= (uint8_t)(p < 4 ? ls : (ls & 15) | (lm & 15) << 4);
        s[p < 4 ? p + 4 : p - 4] |= (uint8_t)(p < 4 ? lm : ls >> 4 << 6);
        if (p >= 4) s[p] |= (uint8_t)(lm >> 4 << 6);
        for (int i = 0; i < 32; i++) {
            float v = quotient(x[p * 32 + i] + m * (float)lm, d * (float)ls);
            int level = nearest(v, 0, (1 << bits) - 1);
            q[p / 2 * 32 + i] |= (uint8_t)((level & 15) << p % 2 * 4);
            if (bits == 5) high[i] |= (uint8_t)(level >> 4 << p);
        }
    }
}

/* The one of x(n) that is furthest from zero. */
static float largest_of(const float *x, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    }
    return largest;
}

/* Parts of 16 with a scale and a minimum each, of four bits. */
static void pack_q2_K(uint8_t *out, const float *x)
{
    BlockQ2_K *b = (BlockQ2_K *)(void *)out;
    float scale[16], min[16], top_scale = 0, top_min = 0;
    for (int p = 0; p < 16; p++) {
        float low = 0, top = 0;
        for (int i = 0; i < 16; i++) {
            low = fminf(low, x[p * 16 + i]), top = fmaxf(top, x[p * 16 + i]);
        }
        scale[p] = (top - low) / 3, min[p] = -low;
        top_scale = fmaxf(top_scale, scale[p]), top_min = fmaxf(top_min, min[p]);
    }
    memset(b, 0, sizeof *b);
    float d = put_half((uint8_t *)&b->d, top_scale / 15);
    float m = put_half((uint8_t *)&b->m, top_min / 15);
    for (int i = 0; i < 256; i++) {
        int s = nearest(quotient(scale[i / 16], d), 0, 15);
        int t = nearest(quotient(min[i / 16], m), 0, 15);
        int v = nearest(quotient(x[i] + m * (float)t, d * (float)s), 0, 3);
        b->scales[i / 16] = (uint8_t)(s | t << 4);
        b->q[i / 128 * 32 + i % 32] |= (uint8_t)(v << i / 32 % 4 * 2);
    }
}

/* See layout_Q3_K. */
static void pack_q3_K(uint8_t *out, const float *x)
{
    BlockQ3_K *b = (BlockQ3_K *)(void *)out;
    float top = 0;
    for (int p = 0; p < 16; p++) top = fmaxf(top, fabsf(largest_of(x + p * 16, 16)) / 4);
    memset(b, 0, sizeof *b);
    float d = put_half((uint8_t *)&b->d, top / 31);
    for (int i = 0; i < 256; i++) {
        int p = i / 16, s = nearest(quotient(largest_of(x + p * 16, 16) / -4, d), -31, 31);
        int v = nearest(quotient(x[i], d * (float)s), -4, 3) + 4;
        if (i % 16 == 0) {
            b->scales[p % 8] |= (uint8_t)(((s + 32) & 15) << p / 8 * 4);
            b->scales[8 + p % 4] |= (uint8_t)((s + 32) >> 4 << p / 4 * 2);
        }
        b->q[i / 128 * 32 + i % 32] |= (uint8_t)((v & 3) << i / 32 % 4 * 2);
        b->high[i % 32] |= (uint8_t)(v >> 2 << i / 32);
    }
}

/* 32 places in a list, of the number that is nearest to x / d. */
static void pack_listed(uint8_t q[16], const float *x, float d, const int8_t list[16])
{
    memset(q, 0, 16);
    for (int i = 0; i < 32; i++) {
        int best = 0;
        float v = quotient(x[i], d);
        for (int j = 1; j < 16; j++) {
            if (fabsf(v - (float)list[j]) < fabsf(v - (float)list[best])) best = j;
        }
        q[i % 16] |= (uint8_t)(best << i / 16 * 4);
    }
}

static void pack_iq4_nl(uint8_t *out, const float *x)
{
    pack_listed(out + 2, x, put_half(out, largest_of(x, 32) / -127), uneven);
}

/* 1 and -1. */
static void pack_q1_0(uint8_t *out, const float *x)
{
    float sum = 0;
    for (int i = 0; i < 128; i++) sum += fabsf(x[i]);
    put_half(out, sum / 128);
    memset(out + 2, 0, 16);
    for (int i = 0; i < 128; i++) out[2 + i / 8] |= (uint8_t)((x[i] > 0) << i % 8);
}

/* -1, 0 and 1 in the places of the quanta of Q2_K. */
static void pack_tq2_0(uint8_t *out, const float *x)
{
    float d = put_half(out + 64, fabsf(largest_of(x, 256)) / 2);
    memset(out, 0, 64);
    for (int i = 0; i < 256; i++) {
        int v = nearest(quotient(x[i], d), -1, 1) + 1;
        out[i / 128 * 32 + i % 32] |= (uint8_t)(v << i / 32 % 4 * 2);
    }
}

/* -1, 0, 1, 2 */
static void pack_q2_0(uint8_t *out, const float *x)
{
    float d = put_half(out, largest_of(x, 64) / 2);
    memset(out + 2, 0, 16);
    for (int i = 0; i < 64; i++) {
        out[2 + i / 4] |= (uint8_t)(nearest(quotient(x[i], d) + 1, 0, 3) << i % 4 * 2);
    }
}

/* The largest number is between 4 and 8 powers of two, of which 6 can be had. */
static void pack_mxfp4(uint8_t *out, const float *x)
{
    int e = 0;
    frexpf(largest_of(x, 32), &e);
    *out = (uint8_t)(e - 3 + 127);
    pack_listed(out + 1, x, e8m0_float(*out), twice_fp4);
}

static void pack_iq4_xs(uint8_t *out, const float *x)
{
    BlockIQ4_XS *b = (BlockIQ4_XS *)(void *)out;
    memset(b, 0, sizeof *b);
    float d = put_half((uint8_t *)&b->d, fabsf(largest_of(x, 256)) / 127 / 31);
    for (int p = 0; p < 8; p++, x += 32) {
        int s = nearest(quotient(largest_of(x, 32) / -127, d), -31, 31);
        b->low[p / 2] |= (uint8_t)(((s + 32) & 15) << p % 2 * 4);
        b->high |= (uint16_t)((s + 32) >> 4 << 2 * p);
        pack_listed(b->q + p * 16, x, d * (float)s, uneven);
    }
}

static void pack_q6_K(uint8_t *out, const float *x)
{
    BlockQ6_K *b = (BlockQ6_K *)(void *)out;
    float scale[16], top = 0;
    for (int p = 0; p < 16; p++) {
        scale[p] = largest_of(x + p * 16, 16) / -32;
        top = fmaxf(top, fabsf(scale[p]));
    }
    memset(b, 0, sizeof *b);
    float d = put_half((uint8_t *)&b->d, top / 127);
    for (int i = 0; i < 256; i++) {
        int part = i / 32, in_part = i % 32;
        b->scales[i / 16] = (int8_t)nearest(quotient(scale[i / 16], d), -127, 127);
        int v = nearest(quotient(x[i], d * b->scales[i / 16]), -32, 31) + 32;
        b->q[part / 4 * 64 + part % 2 * 32 + in_part] |= (uint8_t)((v & 15) << part / 2 % 2 * 4);
        b->high[part / 4 * 32 + in_part] |= (uint8_t)(v >> 4 << part % 4 * 2);
    }
}

static void pack_row(int type, uint8_t *out, const float *x, int n)
{
    const Format *f = &formats[type];
    for (; n > 0 && !f->pack; n -= f->block, x += f->block, out += f->bytes) {
        uint32_t u = float_bits(*x);
        uint16_t half = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
        if (type == 30) memcpy(out, &half, 2);
        if (type == 2 || type == 3) pack_32(out, x, 4, type == 3);
        if (type == 6 || type == 7) pack_32(out, x, 5, type == 7);
        if (type == 10) pack_q2_K(out, x);
        if (type == 11) pack_q3_K(out, x);
        if (type == 12 || type == 13) pack_k(out, x, type == 12 ? 4 : 5);
        if (type == 14) pack_q6_K(out, x);
        if (type == 20) pack_iq4_nl(out, x);
        if (type == 23) pack_iq4_xs(out, x);
        if (type == 35) pack_tq2_0(out, x);
        if (type == 39) pack_mxfp4(out, x);
        if (type == 41) pack_q1_0(out, x);
        if (type == 42) pack_q2_0(out, x);
    }
    if (f->pack) f->pack(out, x, n);
}

/* ---- The bundled model in other formats ---- */

/* Gives a matrix another format, and zeros where it grows. With noise a number of Q8_0 becomes any
 * of those that are rounded to it. */
static void store(llm_model *m, Mat *mat, int type, int rows, int cols, uint64_t *noise)
{
    const Format *from = mat->format, *to = &formats[type];
    size_t bytes = row_bytes(to, cols);
    float *x = calloc((size_t)cols, sizeof *x);
    uint8_t *data = take(&m->arena, (size_t)rows, bytes);
    for (int r = 0; r < mat->rows; r++) {
        const uint8_t *row = mat->data + (size_t)r * row_bytes(from, mat->cols);
        from->unpack(row, x, mat->cols);
        for (int i = 0; noise && from == &formats[8] && i < mat->cols; i++) {
            const BlockQ8_0 *b = (const BlockQ8_0 *)(const void *)row + i / 32;
            x[i] += f16_float(b->d) * (float)(random_unit(noise) - 0.5);
        }
        pack_row(type, data + (size_t)r * bytes, x, cols);
    }
    *mat = (Mat){ to, rows, cols, data, mat->bias };
    free(x);
}

/* The vector that makes the norm of a wider row of zeros at its end what it was. */
static void store_norm(llm_model *m, Norm *norm, int dim, int wide)
{
    float *v = take(&m->arena, (size_t)wide, sizeof *v);
    for (int i = 0; i < dim; i++) v[i] = norm->weight[i] * sqrtf((float)dim / (float)wide);
    *norm = (Norm){ v, NULL, wide, wide, 0 };
}

/* Every matrix in another format. K formats need rows of 256 numbers: the model gets dimensions of
 * zeros, and matrices whose columns are heads stay Q8_0, which is what they come from. */
static void store_all(llm_model *m, int type, int block, uint64_t *noise)
{
    llm_facts *c = &m->facts;
    int dim = c->dim, wide = (dim + block - 1) / block * block, q_dim = c->n_heads * c->head_dim,
        kv_dim = c->n_kv_heads * c->head_dim, hidden = (c->hidden_dim + block - 1) / block * block;
    store(m, &m->embedding, type, c->vocab_size, wide, noise);
    m->output = m->embedding;
    store_norm(m, &m->output_norm, dim, wide);
    m->norm_eps *= (float)dim / (float)wide;
    for (int l = 0; l < c->n_layers; l++) {
        Layer *w = &m->layers[l];
        store_norm(m, &w->attn_norm, dim, wide);
        store_norm(m, &w->ffn_norm, dim, wide);
        store(m, &w->wq, type, q_dim, wide, noise);
        store(m, &w->wk, type, kv_dim, wide, noise);
        store(m, &w->wv, type, kv_dim, wide, noise);
        store(m, &w->wo, q_dim % formats[type].block ? 8 : type, wide, q_dim, noise);
        store(m, &w->gate, type, hidden, wide, noise);
        store(m, &w->up, type, hidden, wide, noise);
        store(m, &w->down, type, wide, hidden, noise);
    }
    c->dim = wide, c->hidden_dim = m->widest = hidden;
}

/* The bundled model with these weights, by way of F32. */
static llm_model *stored_model(int type, int block, int noisy)
{
    uint64_t random = spread_seed(23);
    llm_model *m = llm_open(BUNDLED);
    check(m, "%s", llm_error());
    if (!m) return NULL;
    store_all(m, F32, block, noisy ? &random : NULL);
    if (type != F32) store_all(m, type, block, NULL);
    return m;
}

/* ---- How far the predictions are from those of F32 ---- */

enum { POSITIONS = 256 };

static const char two_stories[] =
    "Once upon a time, a small and round peacock named Lina lived in a small cottage. On her way "
    "home, Lina saw a little thing tremble. It was a baby owl. \"I am lost,\" said the baby owl. "
    "\"Come with me,\" said Lina. \"We will look for her.\"\n\nFirst they asked a cheerful "
    "dinosaur named Wanda. Wanda thought for a moment. \"Over there I saw a soft call in the "
    "night,\" she said. They followed it for a long time, and Lina sang so that the baby owl was "
    "not sad.\n\nAt last, they heard a voice. \"My little one!\" cried the mother. As a thank "
    "you, Lina got a lamp for the night. And when the stars came out, Lina made no wish, because "
    "she had all she needed.\n\nOnce upon a time, there lived a naughty robot in a castle. His "
    "name was Mo. He did not always do what he was told. Mo was good friends with a little "
    "seagull called Gina. Then, one winter, Gina had a bad cold. \"Now I have to stay in bed,\" "
    "said Gina sadly.\n\nMo did not want to play without her. He looked everywhere and at last he "
    "found a pot of honey. \"This will help,\" said Mo, and he sang for her. Every day, he came "
    "again.";

/* Logits at all positions of the stories (POSITIONS, vocab_size), which the caller frees. */
static float *story_logits(const llm_model *m)
{
    int tokens[2 * POSITIONS] = { m->facts.bos };
    float *logits = calloc(POSITIONS, (size_t)m->facts.vocab_size * sizeof *logits);
    int n = llm_encode(m, two_stories, strlen(two_stories), LLM_BEGIN, tokens + 1,
                       2 * POSITIONS - 1);
    llm_session *s = llm_session_new(m, &(llm_options){ .cache = "f32", .threads = 2 });
    check(n + 1 >= POSITIONS, "the stories have %d tokens", n);
    check(s && !llm_eval_all(s, tokens, POSITIONS, logits), "%s", llm_error());
    llm_session_free(s);
    return logits;
}

/* log(sum of exp(logits)) */
static double log_sum(const float *logits, int vocab)
{
    double top = logits[0], sum = 0;
    for (int i = 1; i < vocab; i++) { /* gcc 12 for ARM crashes at fmax here */
        if (logits[i] > top) top = logits[i];
    }
    for (int i = 0; i < vocab; i++) sum += exp(logits[i] - top);
    return top + log(sum);
}

/* Kullback and Leibler's divergence of q from p at each position; returns the mean. */
static double divergence(const float *p, const float *q, int vocab, double *at)
{
    double sum = 0;
    for (int t = 0; t < POSITIONS; t++, p += vocab, q += vocab) {
        double all_p = log_sum(p, vocab), all_q = log_sum(q, vocab);
        at[t] = 0;
        for (int i = 0; i < vocab; i++) {
            at[t] += exp(p[i] - all_p) * ((p[i] - all_p) - (q[i] - all_q));
        }
        sum += at[t];
    }
    return sum / POSITIONS;
}

/* The standard deviation of the mean of a - b. */
static double chance(const double *a, const double *b)
{
    double sum = 0, squares = 0;
    for (int t = 0; t < POSITIONS; t++) {
        sum += a[t] - b[t], squares += (a[t] - b[t]) * (a[t] - b[t]);
    }
    return sqrt(fmax(0, squares - sum * sum / POSITIONS)) / POSITIONS;
}

/* Formats that hold the bundled model's weights nearly as they are (exact) stay near F32. With the
 * others a row may lose a twentieth more than the weights alone, which is what the portable row
 * loses. The rounding of x knows nothing of that of the weights, but where few of its digits are
 * kept the two now and then point the same way: that much chance is allowed for, and what a row
 * adds is measured from the portable row as well, where chance has no part. */
static void check_row(const llm_model *m, int type, int exact, const float *want,
                      const float *portable)
{
    double at[POSITIONS], base[POSITIONS], between[POSITIONS];
    int vocab = m->facts.vocab_size;
    const char *name = formats[type].name;
    float *got = story_logits(m);
    double kl = divergence(want, got, vocab, at), least = divergence(want, portable, vocab, base);
    double added = divergence(portable, got, vocab, between), luck = chance(at, base);
    if (exact) {
        check(kl < 1e-5, "%s %s: a divergence of %g from F32", kernels->name, name, kl);
    } else {
        check(kl <= 1.05 * least + 3 * luck,
              "%s %s: a divergence of %g from F32, %.4f times the portable one, chance %.4f",
              kernels->name, name, kl, kl / least, luck / least);
        check(added <= 0.05 * least, "%s %s: adds %.4f of the portable divergence", kernels->name,
              name, added / least);
    }
    free(got);
}

static void check_divergences(const int *types, int n, int block, int noisy, int exact)
{
    use_row(0);
    llm_model *m = stored_model(F32, block, noisy);
    float *want = m ? story_logits(m) : NULL;
    llm_close(m);
    for (int i = 0; want && i < n; i++) {
        use_row(0);
        m = stored_model(types[i], block, noisy);
        float *portable = m ? story_logits(m) : NULL;
        for (size_t row = !exact; portable && row < ARRAY_LEN(isas); row++) {
            if (use_row(row)) check_row(m, types[i], exact, want, portable);
        }
        free(portable);
        llm_close(m);
    }
    free(want);
}

static void test_divergence(void)
{
    static const int near[] = { 0, 1, 30, 8 }, fine[] = { 8 }, small[] = { 2, 3, 6, 7, 20, 39 },
                     middle[] = { 41, 42 }, super[] = { 10, 11, 12, 13, 14, 23, 35 };
    check_divergences(near, ARRAY_LEN(near), 32, 0, 1);
    check_divergences(fine, ARRAY_LEN(fine), 32, 1, 0);
    check_divergences(small, ARRAY_LEN(small), 32, 0, 0);
    check_divergences(middle, ARRAY_LEN(middle), 128, 0, 0);
    check_divergences(super, ARRAY_LEN(super), 256, 0, 0);
}

/* ---- Batches and threads ---- */

/* A large batch gives what single steps give, but for the order of sums, which may tip the rounding
 * of what comes next to a digit: measured, up to 8e-3 of the range with one digit, 1.3e-4 with two.
 * Tiles of bf16, which only large batches go through, round otherwise. */
static void test_steps(void)
{
    enum { N = 39 };
    static const int types[] = { 2, 8, 11, 14, 20, 39, 41, 42 };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        llm_model *m = stored_model(types[i], formats[types[i]].block, 0);
        for (size_t row = 0; m && row < ARRAY_LEN(isas); row++) {
            if (!use_row(row)) continue;
            int vocab = m->facts.vocab_size, differ = 0;
            const llm_options o = { .cache = "f32", .context = N };
            llm_session *all = llm_session_new(m, &o), *single = llm_session_new(m, &o);
            float *wide = calloc(N, (size_t)vocab * sizeof *wide);
            int tokens[N];
            double worst = 0;
            llm_encode(m, two_stories, strlen(two_stories), LLM_BEGIN, tokens, N);
            check(!llm_eval_all(all, tokens, N, wide), "%s", llm_error());
            for (int t = 0; t < N; t++) {
                const float *a = wide + t * vocab, *b = llm_eval(single, tokens + t, 1);
                worst = fmax(worst, b ? float_difference(a, b, vocab) : 1);
                differ += !b || memcmp(a, b, (size_t)vocab * sizeof *a);
            }
            int same = worst < (kernels->prepare ? digits_tolerance(types[i]) : 1e-5);
            check(same, "%s %s: %d of %d positions differ between a batch and steps, by %g",
                  kernels->name, formats[types[i]].name, differ, N, worst);
            llm_session_free(all), llm_session_free(single);
            free(wide);
        }
        llm_close(m);
    }
}

/* How many of n positions get other bits in batches of 1 to 8 rows than in single steps; -1 on a
 * failure. */
static int few_rows_differ(const llm_model *m, const llm_options *o, const int *tokens, int n)
{
    size_t vocab = (size_t)m->facts.vocab_size;
    llm_session *batches = llm_session_new(m, o), *single = llm_session_new(m, o);
    float *wide = calloc(8, vocab * sizeof *wide);
    int differ = batches && single && wide ? 0 : -1;
    for (int t = 0, rows = 1, count; t < n && differ >= 0; t += count, rows = rows % 8 + 1) {
        count = n - t < rows ? n - t : rows;
        if (llm_eval_all(batches, tokens + t, count, wide)) differ = -1;
        for (int i = 0; i < count && differ >= 0; i++) {
            const float *want = llm_eval(single, tokens + t + i, 1);
            differ += !want || memcmp(want, wide + (size_t)i * vocab, vocab * sizeof *want) != 0;
        }
    }
    free(wide);
    llm_session_free(batches), llm_session_free(single);
    return differ;
}

/* 1 to 8 rows of a batch get the very bits of single steps: in every format, also in rows longer
 * than what is unpacked at once, with every cache, over several blocks of attention. */
static void test_few_rows(void)
{
    enum { N = 300 };
    static const char *const caches[] = { "f16", "f32", "q8_0" };
    int tokens[N];
    for (int type = 0, turn = 0; type < N_FORMATS; type++) {
        if (!formats[type].name) continue;
        const Shape shape = { .arch = "llama", .dim = 256, .hidden_dim = 1280, .n_layers = 1,
                              .n_heads = 4, .n_kv_heads = 2, .head_dim = 64, .n_rot = 64,
                              .context = N, .vocab = 70, .type = type, .output_type = type };
        Bytes file;
        llm_model *m = open_tiny(&shape, &file);
        random_tokens(tokens, N, 70);
        for (size_t row = 0; m && row < ARRAY_LEN(isas); row++) {
            if (!use_row(row)) continue;
            llm_options o = { .context = N, .cache = caches[turn++ % 3] };
            int often = type == F32 || type == F16 || type == 8;
            int differ = few_rows_differ(m, &o, tokens, often ? N : 50);
            check(differ == 0, "%s %s, cache of %s: %d positions differ", kernels->name,
                  formats[type].name, o.cache, differ);
        }
        llm_close(m);
        free(file.data);
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        Bytes file;
        llm_model *m = grown_model(kinds[i].arch, kinds[i].keys, kinds[i].tensors, &file);
        check(m, "%s: %s", kinds[i].what, llm_error());
        if (m) random_tokens(tokens, 57, m->facts.vocab_size);
        for (size_t row = 0; m && row < ARRAY_LEN(isas); row++) {
            if (!use_row(row)) continue;
            llm_options o = { .context = 57, .cache = i % 2 ? "f16" : "f32" };
            int differ = few_rows_differ(m, &o, tokens, 57);
            check(differ == 0, "%s, %s: %d positions differ", kernels->name, kinds[i].what, differ);
        }
        llm_close(m);
        free(file.data);
    }
}

/* The same seed tells the same story with any number of threads. */
static void test_same_story(void)
{
    for (size_t row = 0; row < ARRAY_LEN(isas); row++) {
        Story stories[3] = { { "" }, { "" }, { "" } };
        if (!use_row(row)) continue;
        llm_model *m = llm_open(BUNDLED);
        check(m, "%s", llm_error());
        for (int i = 0; m && i < 3; i++) {
            llm_session *s = llm_session_new(m, &(llm_options){ .threads = i + 1, .seed = 5 });
            int n = llm_generate(s, "Once upon a time, there was a brave dog", 60,
                                 &(llm_sampling){ .temperature = 1 }, collect, &stories[i]);
            check(n > 20 && !strcmp(stories[i].text, stories[0].text),
                  "%s: with %d threads \"%s\", with one \"%s\"", kernels->name, i + 1,
                  stories[i].text, stories[0].text);
            llm_session_free(s);
        }
        llm_close(m);
    }
}

/* Evaluates a long prompt and some steps with several threads, many times. */
typedef struct {
    const llm_model *model;
    int seed, differ;
    Story story;
} Host;

static void *tell_again(void *with)
{
    Host *host = with;
    for (int i = 0; i < 6; i++) {
        Story again = { "" };
        const llm_options o = { .threads = 2 + i % 2, .seed = (uint64_t)host->seed };
        llm_session *s = llm_session_new(host->model, &o);
        llm_generate(s, two_stories, 20, &(llm_sampling){ .temperature = 1 }, collect, &again);
        host->differ += strcmp(again.text, host->story.text) != 0;
        llm_session_free(s);
    }
    return NULL;
}

/* ThreadSanitizer's own locks may be held by another thread when a child is made, which then waits
 * for ever. */
#ifdef __SANITIZE_THREAD__
enum { MAKES_CHILDREN = 0 };
#else
enum { MAKES_CHILDREN = 1 };
#endif

/* Several threads of a host evaluate at once, with two models, and so does a child that is made
 * meanwhile: they share the pool. */
static void test_host_threads(void)
{
    enum { N = 4 };
    llm_model *models[] = { llm_open(BUNDLED), llm_open(BUNDLED) };
    Host hosts[N];
    pthread_t threads[N];
    int status = -1;
    for (int i = 0; i < N; i++) {
        hosts[i] = (Host){ models[i % 2], i, 0, { "" } };
        llm_session *s = llm_session_new(models[i % 2], &(llm_options){ .threads = 1, .seed = i });
        llm_generate(s, two_stories, 20, &(llm_sampling){ .temperature = 1 }, collect,
                     &hosts[i].story);
        llm_session_free(s);
        check(*hosts[i].story.text, "%s", llm_error());
    }
    for (int i = 0; i < N; i++) pthread_create(&threads[i], NULL, tell_again, &hosts[i]);
    fflush(stdout);
    pid_t child = MAKES_CHILDREN ? fork() : -1;
    if (!child) {
        alarm(60); /* it may wait for ever */
        tell_again(&hosts[0]);
        _exit(hosts[0].differ);
    }
    if (child > 0) waitpid(child, &status, 0);
    check(child < 0 || status == 0, "a child ends with %d", status);
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        check(!hosts[i].differ, "thread %d: %d of 6 stories differ", i, hosts[i].differ);
    }
    llm_close(models[0]), llm_close(models[1]);
}

static void count_piece(void *counts, int piece, int thread)
{
    ((_Atomic int *)counts)[piece] += 1 + 1000 * (thread > 2);
}

/* Regions of few and many pieces, one after the other: each piece is done once, whatever a thread
 * that comes late finds. */
static void test_regions(void)
{
#ifdef RUN_OPENMP /* whose threads wait for each other */
    enum { MOST = 40, REGIONS = 2000 };
#else
    enum { MOST = 40, REGIONS = 600000 };
#endif
    _Atomic int counts[MOST];
    uint64_t random = 7;
    int wrong = 0;
    for (int i = 0; i < REGIONS; i++) {
        int pieces = 1 + (int)(random_unit(&random) * MOST);
        for (int j = 0; j < MOST; j++) counts[j] = 0;
        share(1 + i % 3, pieces, count_piece, (void *)counts);
        for (int j = 0; j < MOST; j++) wrong += counts[j] != (j < pieces);
    }
    check(!wrong, "%d pieces were done not once", wrong);
}

static void test_pool(void)
{
    test_regions();
    test_same_story();
    unsetenv("RUN_CPU");
    pick_kernels();
    test_host_threads();
}

/* ---- A model that is larger than what is used of memory ---- */

/* A matrix or vector that takes its place in the file, but no memory here. */
static void add_hole(Builder *b, const char *name, int type, int rows, int cols)
{
    add_entry(b, name, type, rows ? 2 : 1, cols, rows, 1);
    size_t bytes = row_bytes(&formats[type], cols) * (size_t)(rows ? rows : 1);
    b->tensors.size += (bytes + 31) / 32 * 32;
}

static void add_hollow_layer(Builder *b, const Shape *s, int l)
{
    int q_dim = s->n_heads * s->head_dim, kv_dim = s->n_kv_heads * s->head_dim;
    const struct {
        const char *name;
        int type, rows, cols;
    } parts[] = {
        { "attn_norm", 0, 0, s->dim },
        { "attn_q", s->type, q_dim, s->dim },
        { "attn_k", s->type, kv_dim, s->dim },
        { "attn_v", s->type, kv_dim, s->dim },
        { "attn_output", s->type, s->dim, q_dim },
        { "ffn_norm", 0, 0, s->dim },
        { "ffn_gate", s->type, s->hidden_dim, s->dim },
        { "ffn_up", s->type, s->hidden_dim, s->dim },
        { "ffn_down", s->type, s->dim, s->hidden_dim },
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char name[80];
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, parts[i].name);
        add_hole(b, name, parts[i].type, parts[i].rows, parts[i].cols);
    }
}

/* Writes n ones in the given format at a place in the file. */
static int write_ones(int fd, size_t at, int type, int n)
{
    size_t bytes = row_bytes(&formats[type], n);
    float *ones = malloc((size_t)n * sizeof *ones);
    uint8_t *row = malloc(bytes);
    for (int i = 0; i < n; i++) ones[i] = 1;
    pack_row(type, row, ones, n);
    int ok = pwrite(fd, row, bytes, (off_t)at) == (ssize_t)bytes;
    free(ones), free(row);
    return ok;
}

/* Writes a file whose weights are holes, which are zeros, but for three things: the embedding of
 * the last token, the last norm, and the last row of the output are ones. No vocabulary: its size
 * is that of the embedding. Returns the size of the file, or -1. */
static long long write_hollow(int fd, const Shape *s)
{
    Builder b = { 0 };
    size_t embedding, norm;
    add_hyperparameters(&b, s);
    add_hole(&b, "token_embd.weight", F32, s->vocab, s->dim);
    embedding = b.tensors.size - row_bytes(&formats[F32], s->dim);
    norm = b.tensors.size;
    add_hole(&b, "output_norm.weight", F32, 0, s->dim);
    for (int l = 0; l < s->n_layers; l++) add_hollow_layer(&b, s, l);
    add_hole(&b, "output.weight", s->output_type, s->vocab, s->dim);
    size_t size = b.tensors.size;
    b.tensors.size = 0; /* they are not in memory */
    Bytes head = finish(&b);
    size_t output = head.size + size - row_bytes(&formats[s->output_type], s->dim);
    int ok = !ftruncate(fd, (off_t)(head.size + size)) &&
             pwrite(fd, head.data, head.size, 0) == (ssize_t)head.size &&
             write_ones(fd, head.size + embedding, F32, s->dim) &&
             write_ones(fd, head.size + norm, F32, s->dim) &&
             write_ones(fd, output, s->output_type, s->dim);
    free(head.data);
    return ok ? (long long)(head.size + size) : -1;
}

/* Memory of this process that no file stands behind, in MB; -1 where the system doesn't tell. */
static double anonymous_memory(void)
{
    char line[256];
    double kilobytes = -1e3;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) sscanf(line, "RssAnon: %lf", &kilobytes);
    if (file) fclose(file);
    return kilobytes / 1e3;
}

/* Of the processor, not of the clock: a busy machine may let us wait. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The file is removed as soon as it is open, so that none is left whatever happens. */
static void check_hollow(const char *path, const Shape *s)
{
    double start = cpu_seconds(), before = anonymous_memory();
    llm_model *m = llm_open(path);
    double opened = cpu_seconds() - start;
    unlink(path);
    check(m, "%s", llm_error());
    llm_session *session = m ? llm_session_new(m, &(llm_options){ .context = 512 }) : NULL;
    const float *logits = session ? llm_eval(session, &(int){ s->vocab - 1 }, 1) : NULL;
    double used = anonymous_memory() - before;
    int wrong = 0;
    for (int i = 0; logits && i < s->vocab; i++) {
        double want = i == s->vocab - 1 ? s->dim : 0;
        wrong += !(fabs(logits[i] - want) < 1e-3 * s->dim);
    }
    check(logits && !wrong, "%d logits of a large model are wrong: %s", wrong, llm_error());
    check(opened < 1, "a large model took %.2f s to open", opened);
    check(used < 300, "a large model took %.0f MB of memory", used);
    llm_session_free(session);
    llm_close(m);
}

/* Most of the file is an embedding, of which a step reads one row: the system is slow to fill its
 * cache with holes. */
static void test_large(void)
{
    static const char path[] = TMP "/large.gguf";
    const Shape shape = { .arch = "llama",
                          .dim = 4096,
                          .hidden_dim = 4096,
                          .n_layers = 1,
                          .n_heads = 32,
                          .n_kv_heads = 8,
                          .head_dim = 128,
                          .n_rot = 128,
                          .context = 2048,
                          .vocab = 180000,
                          .type = F16,
                          .output_type = 2 };
    struct stat st = { 0 };
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0, "%s: %s", path, strerror(errno));
    long long size = fd >= 0 ? write_hollow(fd, &shape) : -1;
    if (fd >= 0 && (fstat(fd, &st) || close(fd))) size = -1;
    if (size < 0 || st.st_blocks > size / 512 / 2) {
        skip("the file system holds no files of 3 GB with nothing in them");
    } else if (anonymous_memory() < 0) {
        skip("the system does not tell the memory of a process");
    } else {
        check(size > 3000000000, "a file of %lld bytes", size);
        check_hollow(path, &shape);
    }
    unlink(path);
}

static void test_kernels(void)
{
    test_divergence();
    test_steps();
    test_few_rows();
    unsetenv("RUN_CPU");
    pick_kernels();
    test_large();
}
