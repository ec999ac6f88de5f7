/* The forward pass: against a plain double-precision one, against goldens of Hugging Face
 * transformers, and batches against single steps. */

/* Row r of a matrix. */
static const float *weight_row(const Mat *w, int r)
{
    static float row[1 << 12];
    w->format->unpack(w->data + (size_t)r * row_bytes(w->format, w->cols), row, w->cols);
    return row;
}

static void plain_matmul(double *y, const Mat *w, const double *x)
{
    for (int r = 0; r < w->rows; r++) {
        const float *row = weight_row(w, r);
        y[r] = w->bias ? w->bias[r] : 0;
        for (int k = 0; k < w->cols; k++) y[r] += row[k] * x[k];
    }
}

static void plain_norm(double *y, const double *x, const float *w, int n, double eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    for (int i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + eps) * w[i];
}

/* The rotation of one head, from the formula; factors divide the frequencies. */
static void plain_rope(double *x, int n_rot, int halves, int position, const float *factors)
{
    for (int i = 0; i < n_rot / 2; i++) {
        double angle = position * pow(10000, -2.0 * i / n_rot) / (factors ? factors[i] : 1);
        double *a = x + (halves ? i : 2 * i), *b = halves ? a + n_rot / 2 : a + 1, a0 = *a, b0 = *b;
        *a = a0 * cos(angle) - b0 * sin(angle);
        *b = a0 * sin(angle) + b0 * cos(angle);
    }
}

/* y = down silu(gate x) up x; y may be x. */
static void plain_feed_forward(double *y, const Mat *gate, const Mat *up, const Mat *down,
                               const double *x)
{
    static double g[512], u[512];
    plain_matmul(g, gate, x);
    plain_matmul(u, up, x);
    for (int i = 0; i < gate->rows; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    plain_matmul(y, down, g);
}

/* x += what the likeliest experts make of h, by their shares of the probability that they have
 * together. */
static void plain_experts(const llm_model *m, const Layer *w, double *x, const double *h)
{
    double scores[64], y[512], sum = 0;
    int best[64];
    plain_matmul(scores, &w->router, h);
    for (int i = 0; i < m->facts.n_experts_used; i++) {
        best[i] = 0;
        for (int e = 1; e < m->facts.n_experts; e++)
            best[i] = scores[e] > scores[best[i]] ? e : best[i];
        sum += exp(scores[best[i]]);
        y[i] = exp(scores[best[i]]);
        scores[best[i]] = -1e9;
    }
    for (int i = 0; i < m->facts.n_experts_used; i++) {
        double share = y[i] / sum, z[512];
        plain_feed_forward(z, &w->gates[best[i]], &w->ups[best[i]], &w->downs[best[i]], h);
        for (int k = 0; k < m->facts.dim; k++) x[k] += share * z[k];
    }
}

/* Logits after the last of n tokens, the slow and plain way: every layer for all positions, no
 * cache. */
static void plain_forward(const llm_model *m, const int *tokens, int n, double *logits)
{
    enum { MOST = 256 };
    static double x[64][MOST], h[MOST], q[64][MOST], k[64][MOST], v[64][MOST], a[MOST];
    const llm_facts *c = &m->facts;
    int hd = c->head_dim, group = c->n_heads / c->n_kv_heads;
    const Tensor *t = find_tensor(&m->file, "rope_freqs.weight");
    for (int p = 0; p < n; p++) {
        const float *row = weight_row(&m->embedding, tokens[p]);
        for (int i = 0; i < c->dim; i++) x[p][i] = row[i];
    }
    for (int l = 0; l < c->n_layers; l++) {
        const Layer *w = &m->layers[l];
        for (int p = 0; p < n; p++) {
            plain_norm(h, x[p], w->attn_norm.weight, c->dim, m->norm_eps);
            plain_matmul(q[p], &w->wq, h);
            plain_matmul(k[p], &w->wk, h);
            plain_matmul(v[p], &w->wv, h);
            const float *factors = t ? (const float *)(const void *)t->data : NULL;
            for (int g = 0; g < c->n_heads; g++)
                plain_rope(q[p] + g * hd, m->n_rot, m->arch->halves, p, factors);
            for (int g = 0; g < c->n_kv_heads; g++)
                plain_rope(k[p] + g * hd, m->n_rot, m->arch->halves, p, factors);
        }
        for (int p = 0; p < n; p++) {
            for (int g = 0; g < c->n_heads; g++) {
                double s[64], sum = 0;
                for (int j = 0; j <= p; j++) {
                    s[j] = 0;
                    for (int i = 0; i < hd; i++)
                        s[j] += q[p][g * hd + i] * k[j][g / group * hd + i];
                    sum += s[j] = exp(s[j] / sqrt(hd));
                }
                for (int i = 0; i < hd; i++) {
                    a[g * hd + i] = 0;
                    for (int j = 0; j <= p; j++)
                        a[g * hd + i] += s[j] / sum * v[j][g / group * hd + i];
                }
            }
            plain_matmul(h, &w->wo, a);
            for (int i = 0; i < c->dim; i++) x[p][i] += h[i];
            plain_norm(h, x[p], w->ffn_norm.weight, c->dim, m->norm_eps);
            if (w->router.data) {
                plain_experts(m, w, x[p], h);
                continue;
            }
            plain_feed_forward(h, &w->gate, &w->up, &w->down, h);
            for (int i = 0; i < c->dim; i++) x[p][i] += h[i];
        }
    }
    plain_norm(h, x[n - 1], m->output_norm.weight, c->dim, m->norm_eps);
    plain_matmul(logits, &m->output, h);
}

/* Largest difference as a share of the range of the wanted values. */
static double difference(const float *got, const double *want, int n)
{
    double low = want[0], high = want[0], worst = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]);
        if (!(d <= worst)) worst = d;
        if (want[i] < low) low = want[i];
        if (want[i] > high) high = want[i];
    }
    return worst / (high - low);
}

static double float_difference(const float *got, const float *want, int n)
{
    static double wide[1 << 12];
    for (int i = 0; i < n; i++) wide[i] = want[i];
    return difference(got, wide, n);
}

static void random_tokens(int *tokens, int n, int vocab)
{
    uint64_t random = 11;
    for (int i = 0; i < n; i++) tokens[i] = (int)(random_unit(&random) * vocab);
}

static llm_model *open_tiny(const Shape *s, Bytes *file)
{
    *file = tiny_model(s);
    llm_model *m = llm_open_memory(file->data, file->size);
    check(m, "tiny model: %s", llm_error());
    return m;
}

/* What kernels that quantize x to the digits of format `type`, or round it and the weights to bf16,
 * may add to an error; a digit more makes steps 64 times smaller. Exact bounds of a single product:
 * test_matmul. */
static double digits_tolerance(int type)
{
    const Format *f = &formats[type];
    int coarse = digits_of(f) == 1 || (kernels->tiles && f->parts == 1);
    double floats = kernels->tiles ? tile_error(type) : 0;
    return !(kernels->prepare && formats[type].bits) ? floats : coarse ? 3e-2 : 3e-2 / 64;
}

/* Families, formats, tied or not, biases, frequency factors, formats of the KV cache. */
static void test_against_plain(void)
{
    /* for the others: test_super_blocks */
    static const int types[] = { 0, 1, 30, 2, 3, 6, 7, 8, 20, 39 };
    static const struct {
        const char *name;
        double tolerance;
    } caches[] = { { "f32", 1e-5 }, { "f16", 1e-3 }, { "q8_0", 3e-2 } };
    int tokens[40];
    double want[600];
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        for (int variant = 0; variant < 4; variant++) {
            Shape s = small_shape;
            s.type = types[i];
            s.arch = variant % 2 ? "qwen2" : "llama";
            s.output_type = variant == 1 ? -1 : types[i];
            s.biases = variant >= 2;
            s.factors = variant == 3;
            s.seed = i * 10 + (uint64_t)variant;
            if (formats[s.type].block == 32) {
                s.dim = s.hidden_dim = 64, s.head_dim = 32, s.n_rot = 24;
            }
            Bytes file;
            llm_model *m = open_tiny(&s, &file);
            random_tokens(tokens, 40, s.vocab);
            if (m) plain_forward(m, tokens, 40, want);
            for (size_t k = 0; m && k < ARRAY_LEN(caches); k++) {
                if (s.head_dim % 32 && !strcmp(caches[k].name, "q8_0")) continue;
                llm_options o = { .threads = 2, .cache = caches[k].name };
                llm_session *session = llm_session_new(m, &o);
                const float *got = session ? llm_eval(session, tokens, 40) : NULL;
                double error = got ? difference(got, want, s.vocab) : 1;
                check(error < caches[k].tolerance + digits_tolerance(types[i]),
                      "%s %s variant %d, cache %s, %s: logits differ by %g", s.arch,
                      formats[types[i]].name, variant, caches[k].name, kernels->name, error);
                llm_session_free(session);
            }
            llm_close(m);
            free(file.data);
        }
    }
}

/* A mixture of experts against the plain one, and the same numbers whichever way the experts are
 * stored; as a batch, in which an expert has several rows, and in single steps. */
static void test_experts(void)
{
    static const int types[] = { 0, 1, 8, 6 };
    int tokens[40];
    double want[600];
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        Shape s = small_shape;
        float first[600];
        s.dim = s.hidden_dim = 64, s.experts = 7, s.chosen = 3, s.type = types[i], s.seed = 22;
        s.head_dim = 32, s.output_type = 0;
        random_tokens(tokens, 40, s.vocab);
        for (s.layout = 0; s.layout < 3; s.layout++) {
            Bytes file;
            llm_model *m = open_tiny(&s, &file);
            llm_session *session = llm_session_new(m, &(llm_options){ .cache = "f32" });
            if (m && s.layout == 0) plain_forward(m, tokens, 40, want);
            const float *got = m ? llm_eval(session, tokens, 40) : NULL;
            double error = got ? difference(got, want, s.vocab) : 1;
            check(error < 1e-5 + digits_tolerance(types[i]),
                  "experts of %s, layout %d, %s: logits differ by %g", formats[types[i]].name,
                  s.layout, kernels->name, error);
            if (s.layout == 0 && got) memcpy(first, got, (size_t)s.vocab * sizeof *got);
            check(got && !memcmp(first, got, (size_t)s.vocab * sizeof *got),
                  "experts of %s: layout %d gives other numbers", formats[types[i]].name, s.layout);
            llm_rewind(session, 0);
            for (int t = 0; t < 40; t++) got = llm_eval(session, tokens + t, 1);
            error = got ? difference(got, want, s.vocab) : 1;
            check(error < 1e-5 + digits_tolerance(types[i]),
                  "experts of %s, single steps, %s: logits differ by %g", formats[types[i]].name,
                  kernels->name, error);
            llm_session_free(session);
            llm_close(m);
            free(file.data);
        }
    }
}

/* Formats whose blocks are wider than the other tests' models: every matrix of a wider model, 2
 * layers. */
static void test_super_blocks(void)
{
    static const int types[] = { 10, 11, 12, 13, 14, 23 };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        Shape s = small_shape, plain;
        s.dim = s.hidden_dim = 256, s.n_heads = 8, s.head_dim = s.n_rot = 32, s.seed = 4;
        s.type = s.output_type = types[i];
        plain = s;
        Bytes file, same;
        int tokens[20];
        random_tokens(tokens, 20, s.vocab);
        plain.type = plain.output_type = 0;
        llm_model *m = open_tiny(&s, &file), *f = open_tiny(&plain, &same);
        if (!m || !f) continue;
        /* the second model gets the unpacked weights of the first */
        for (uint64_t t = 0; t < m->file.n_tensors; t++) {
            const Tensor *from = &m->file.tensors[t], *to = &f->file.tensors[t];
            for (int64_t r = 0; r < from->shape[1]; r++) {
                from->format->unpack(
                    from->data + (size_t)r * row_bytes(from->format, from->shape[0]),
                    (float *)(void *)to->data + r * to->shape[0], (int)from->shape[0]);
            }
        }
        llm_close(f);
        f = llm_open_memory(same.data, same.size);
        llm_session *a = llm_session_new(m, NULL), *b = llm_session_new(f, NULL);
        const float *x = llm_eval(a, tokens, 20), *y = llm_eval(b, tokens, 20);
        double error = x && y ? float_difference(x, y, s.vocab) : 1;
        check(error < 1e-4 + digits_tolerance(types[i]),
              "%s, %s: logits differ from those of the unpacked weights by %g",
              formats[types[i]].name, kernels->name, error);
        llm_session_free(a), llm_session_free(b);
        llm_close(m), llm_close(f);
        free(file.data), free(same.data);
    }
}

/* n tokens at once are n single tokens, whatever the chunks, but for the order of sums, which can
 * tip the rounding of a cached f16; rewinding and forking are exact. */
static void test_batches(void)
{
    Bytes file;
    int tokens[700], vocab = small_shape.vocab;
    llm_model *m = open_tiny(&small_shape, &file);
    llm_session *all = llm_session_new(m, NULL),
                *single = llm_session_new(m, &(llm_options){ .threads = 1 }), *fork;
    float *wide = malloc(700 * (size_t)vocab * sizeof *wide),
          *kept = malloc((size_t)vocab * sizeof *kept);
    random_tokens(tokens, 700, vocab);
    check(!llm_eval_all(all, tokens, 700, wide), "%s", llm_error());
    double worst = 0;
    for (int i = 0; i < 700; i++) {
        double d = float_difference(llm_eval(single, tokens + i, 1), wide + i * vocab, vocab);
        if (!(d <= worst)) worst = d;
    }
    check(worst < (kernels->tiles ? 5e-4 : 2e-4),
          "700 tokens at once and one by one differ by %g", worst);
    static const int cuts[] = { 1, 2, 3, 15, 16, 17, 31, 33, 511, 512, 513, 699 };
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        check(!llm_rewind(all, 0), "%s", llm_error());
        check(!llm_logits(all), "no logits after a rewind");
        llm_eval(all, tokens, cuts[i]);
        const float *logits = llm_eval(all, tokens + cuts[i], 700 - cuts[i]);
        worst = float_difference(logits, wide + 699 * vocab, vocab);
        check(worst < 2e-4, "%d tokens and the rest differ from all at once by %g", cuts[i], worst);
    }
    llm_rewind(all, 600);
    memcpy(kept, llm_eval(all, tokens + 600, 100), (size_t)vocab * sizeof *kept);
    llm_rewind(all, 600);
    check(!memcmp(kept, llm_eval(all, tokens + 600, 100), (size_t)vocab * sizeof *kept),
          "rewind and repeat");
    llm_rewind(all, 300);
    llm_eval(all, tokens + 300, 10);
    fork = llm_fork(all);
    check(fork && llm_position(fork) == 310, "a fork is where its origin is");
    memcpy(kept, llm_eval(all, tokens + 310, 5), (size_t)vocab * sizeof *kept);
    llm_rewind(all, 0);
    check(!memcmp(kept, llm_eval(fork, tokens + 310, 5), (size_t)vocab * sizeof *kept),
          "a fork goes on alone");
    llm_session_free(all), llm_session_free(single), llm_session_free(fork);
    llm_close(m);
    free(file.data), free(wide), free(kept);
}

static int spare_buffers(const llm_model *m)
{
    int n = 0;
    for (int i = 0; i < MAX_SPARE; i++) n += m->spare[i] != NULL;
    return n;
}

/* Sessions that evaluate one after the other share buffers, however many they are; where they would
 * be too small for one, it gets its own. Nobody keeps any. */
static void test_buffers(void)
{
    enum { N = 12 };
    Bytes file;
    int tokens[40], vocab = small_shape.vocab;
    llm_model *m = open_tiny(&small_shape, &file);
    llm_session *all[N];
    float *first = malloc((size_t)vocab * sizeof *first);
    random_tokens(tokens, 40, vocab);
    for (int i = 0; i < N; i++) all[i] = llm_session_new(m, &(llm_options){ .threads = 2 });
    memcpy(first, llm_eval(all[0], tokens, 40), (size_t)vocab * sizeof *first);
    for (int i = 1; i < N; i++) {
        const float *logits = llm_eval(all[i], tokens, 40);
        check(logits && !memcmp(first, logits, (size_t)vocab * sizeof *first) && !all[i]->b,
              "session %d beside others", i);
    }
    check(!llm_eval_many(all, tokens, N) && spare_buffers(m) == 1, "%d sets for %d sessions",
          spare_buffers(m), N);
    check(borrow(all[0]) == 0 && borrow(all[1]) == 0 && all[0]->b != all[1]->b,
          "two that evaluate at once have two sets");
    give_back(all[0]), give_back(all[1]);
    llm_session *wide = llm_session_new(m, &(llm_options){ .threads = 4 });
    check(spare_buffers(m) == 1 && llm_eval(wide, tokens, 40) && llm_eval(all[2], tokens, 1) &&
              spare_buffers(m) == 1,
          "more threads, in place of those with fewer: %d sets", spare_buffers(m));
    for (int i = 0; i < N; i++) check(!borrow(all[i]) && all[i]->b, "%s", llm_error());
    for (int i = 0; i < N; i++) give_back(all[i]);
    check(spare_buffers(m) == MAX_SPARE, "%d sets are kept", spare_buffers(m));
    for (int i = 0; i < N; i++) llm_session_free(all[i]);
    llm_session_free(wide);
    llm_close(m);
    free(file.data), free(first);
}

/* Families whose buffers and caches differ, in odd shapes. */
static const struct {
    const char *what, *arch, *keys, *tensors;
} kinds[] = {
    { "values longer than keys", "llama",
      "attention.head_count=4 attention.head_count_kv=2 attention.key_length=6 "
      "attention.value_length=40",
      "blk.0.attn_q.bias blk.0.attn_output.bias" },
    { "one short head", "qwen3",
      "attention.head_count=1 attention.key_length=4 attention.value_length=1",
      "blk.0.attn_q_norm.weight" },
    { "windows of one position", "gemma2",
      "attention.head_count=6 attention.head_count_kv=3 attention.key_length=10 "
      "attention.sliding_window=1",
      "blk.0.post_ffw_norm.weight" },
    { "windows and sinks, 32 of 40 experts", "gpt-oss",
      "attention.head_count=2 attention.key_length=8 attention.sliding_window=7 expert_count=40 "
      "expert_used_count=32",
      "blk.0.attn_sinks.weight blk.0.ffn_gate_inp.bias blk.0.ffn_down_exps.bias" },
    { "all of 64 experts", "olmoe", "attention.head_count=3 expert_count=64 expert_used_count=64",
      "" },
    { "a window larger than the context, in parallel", "cohere2",
      "attention.head_count=3 attention.key_length=14 attention.sliding_window=4096", "" },
    { "learned positions", "gpt2", "attention.head_count=2", "position_embd.weight" },
    { "latent attention", "deepseek2",
      "attention.head_count=3 attention.head_count_kv=1 attention.key_length=26 "
      "attention.value_length=20 attention.key_length_mla=15 attention.value_length_mla=7 "
      "attention.kv_lora_rank=20 attention.q_lora_rank=11 rope.dimension_count=6 "
      "leading_dense_block_count=1 expert_count=6 expert_used_count=2 expert_group_count=3 "
      "expert_group_used_count=2 expert_gating_func=2",
      "blk.1.exp_probs_b.bias blk.1.ffn_up_shexp.weight" },
    { "latent attention, one head wider than all else", "deepseek2",
      "attention.head_count=1 attention.head_count_kv=1 attention.key_length=5 "
      "attention.value_length=3 attention.key_length_mla=90 attention.value_length_mla=70 "
      "attention.kv_lora_rank=3 rope.dimension_count=2",
      "" },
    { "latent attention with whole heads", "deepseek2",
      "attention.head_count=3 attention.key_length=15 attention.value_length=7 "
      "attention.value_length_mla=30 attention.kv_lora_rank=20 rope.dimension_count=6",
      "" },
};

/* Of each kind: single steps give what a batch gives; a session that was saved and loaded, and a
 * fork, go on with the same numbers. */
static void test_kinds(void)
{
    static const char file_name[] = TMP "/kind";
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        Bytes file;
        int tokens[40];
        llm_model *m = grown_model(kinds[i].arch, kinds[i].keys, kinds[i].tensors, &file);
        check(m, "%s: %s", kinds[i].what, llm_error());
        if (!m) continue;
        int vocab = m->facts.vocab_size;
        llm_session *all = llm_session_new(m, &(llm_options){ .context = 40, .cache = "f32" }),
                    *single = llm_session_new(m, &(llm_options){ .context = 40, .cache = "f32" }),
                    *loaded = llm_session_new(m, &(llm_options){ .context = 57, .cache = "f32" });
        random_tokens(tokens, 40, vocab);
        for (int t = 0; t < 39; t++) llm_eval(single, tokens + t, 1);
        double error = float_difference(llm_eval(all, tokens, 39), llm_logits(single), vocab);
        check(error < 1e-4, "%s, %s: 39 tokens at once and one by one differ by %g", kinds[i].what,
              kernels->name, error);
        check(!llm_save(all, file_name) && !llm_load(loaded, file_name), "%s: %s", kinds[i].what,
              llm_error());
        llm_session *fork = llm_fork(all), *others[] = { loaded, fork };
        const float *want = llm_eval(all, tokens + 39, 1);
        for (int j = 0; j < 2; j++) {
            const float *got = llm_eval(others[j], tokens + 39, 1);
            check(want && got && !memcmp(want, got, (size_t)vocab * sizeof *got),
                  "%s: a %s session goes on otherwise", kinds[i].what, j ? "forked" : "loaded");
        }
        llm_session_free(all), llm_session_free(single);
        llm_session_free(loaded), llm_session_free(fork);
        llm_close(m);
        free(file.data);
    }
    unlink(file_name);
}

/* GLM-4.7-Flash without a key for it scores experts by sigmoids; what is not of its shape, or says
 * otherwise, does not. */
static void test_glm_flash(void)
{
    static const struct {
        const char *arch;
        int layers, rows, key, gating;
    } cases[] = {
        { "deepseek2", 47, 154880, 0, SIGMOID }, { "deepseek2", 48, 154880, 0, SIGMOID },
        { "deepseek2", 46, 154880, 0, SOFTMAX }, { "deepseek2", 47, 154879, 0, SOFTMAX },
        { "qwen3moe", 48, 154880, 0, SOFTMAX },  { "deepseek2", 47, 154880, SOFTMAX, SOFTMAX },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Builder b = { .random = 5 };
        Shape shape = { .arch = cases[i].arch };
        add_arch_int(&b, &shape, "expert_count", 4);
        add_arch_int(&b, &shape, "expert_used_count", 2);
        if (cases[i].key) add_arch_int(&b, &shape, "expert_gating_func", cases[i].key);
        add_stack(&b, "token_embd.weight", F32, 1, cases[i].rows, 1, 1, 0);
        Bytes file = finish(&b);
        llm_model m = { .file = { .data = file.data, .size = file.size } };
        for (size_t a = 0; a < ARRAY_LEN(archs); a++) {
            if (!strcmp(archs[a].name, cases[i].arch)) m.arch = &archs[a];
        }
        check(!parse_file(&m.file), "%s", llm_error());
        m.facts.n_layers = cases[i].layers;
        load_expert_keys(&m);
        check(!m.failed && m.gating == cases[i].gating, "%s, %d layers, %d tokens: gating %d",
              cases[i].arch, cases[i].layers, cases[i].rows, m.gating);
        close_file(&m.file);
        free(file.data);
    }
}

/* The factor of a longer context goes by two names. */
static void test_scale_names(void)
{
    static const char *const keys[] = { "attention.head_count=2 rope.scale_linear=4",
                                        "attention.head_count=2 rope.scaling.factor=4" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        Bytes file;
        llm_model *m = grown_model("llama", keys[i], "", &file);
        check(m && m->ropes[ROPE].turns[0] == 0.25f, "%s: %s", keys[i], m ? "" : llm_error());
        llm_close(m);
        free(file.data);
    }
}

/* Longer texts than the original context have other rotations, whatever the session's context is:
 * the logits are those of the text's length, whichever way it became as long, by which a text in a
 * long session is one in a short session. */
static void test_long_rope(void)
{
    static const char file_name[] = TMP "/rotated";
    Bytes file;
    int tokens[40];
    llm_model *m = grown_model("phi3",
                               "attention.head_count=2 rope.scaling.original_context_length=30",
                               "rope_factors_long.weight rope_factors_short.weight", &file);
    check(m, "%s", llm_error());
    if (!m) return;
    size_t size = (size_t)m->facts.vocab_size * sizeof(float);
    random_tokens(tokens, 40, m->facts.vocab_size);
    float *want = malloc(size);
    for (int length = 29; length <= 32; length++) {
        llm_session *whole = llm_session_new(m, &(llm_options){ .context = length }),
                    *steps = llm_session_new(m, &(llm_options){ .context = 57 }),
                    *back = llm_session_new(m, &(llm_options){ .context = 57 }),
                    *many = llm_session_new(m, &(llm_options){ .context = 57 }),
                    *loaded = llm_session_new(m, &(llm_options){ .context = 57 });
        llm_eval(whole, tokens, length);
        check(llm_logits(whole) && whole->long_rope == (length > 30), "%d tokens", length);
        memcpy(want, llm_logits(whole), size);
        for (int t = 0; t < length - 1; t++) llm_eval(steps, tokens + t, 1);
        check(!llm_save(steps, file_name) && !llm_load(loaded, file_name), "%s", llm_error());
        llm_session *fork = llm_fork(steps);
        llm_eval(back, tokens, 40), llm_rewind(back, length - 1);
        llm_eval(many, tokens, length - 1);
        check(!llm_eval_many(&many, tokens + length - 1, 1), "%s", llm_error());
        llm_session *others[] = { steps, loaded, fork, back, many };
        for (size_t i = 0; i < ARRAY_LEN(others); i++) {
            const float *got = i < 4 ? llm_eval(others[i], tokens + length - 1, 1)
                                     : llm_logits(others[i]);
            double bound = kernels->tiles ? 5e-4 : 1e-5; /* whole is one batch */
            check(got && float_difference(got, want, m->facts.vocab_size) < bound,
                  "%d tokens, way %zu: %g", length, i,
                  got ? float_difference(got, want, m->facts.vocab_size) : 1);
            llm_session_free(others[i]);
        }
        llm_session *again = llm_session_new(m, &(llm_options){ .context = 57 });
        llm_eval(again, tokens, 40), llm_rewind(again, length);
        check(!eval_prompt(again, "") && again->long_rope == (length > 30) &&
                  float_difference(llm_logits(again), want, m->facts.vocab_size) < 5e-4,
              "%d tokens: logits after going back", length);
        llm_session_free(again);
        llm_session_free(whole);
    }
    free(want);
    llm_close(m);
    free(file.data);
    unlink(file_name);
}

/* The q8_0 cache has blocks of 32: of keys and of values, if these are kept apart. */
static void test_cache_blocks(void)
{
    static const struct {
        const char *arch, *keys, *part;
    } cases[] = {
        { "llama", "attention.head_count=1 attention.key_length=32 attention.value_length=20",
          "the heads have 20 dimensions" },
        { "llama", "attention.head_count=1 attention.key_length=20 attention.value_length=32",
          "the heads have 20 dimensions" },
        { "deepseek2",
          "attention.head_count=2 attention.head_count_kv=1 attention.key_length=64 "
          "attention.value_length=50 attention.key_length_mla=20 attention.value_length_mla=9 "
          "attention.kv_lora_rank=50 rope.dimension_count=14",
          NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Bytes file;
        llm_model *m = grown_model(cases[i].arch, cases[i].keys, "", &file);
        llm_session *s = m ? llm_session_new(m, &(llm_options){ .cache = "q8_0" }) : NULL;
        check(m && !s == !!cases[i].part && (s || strstr(llm_error(), cases[i].part)), "%zu: %s", i,
              llm_error());
        check(!s || llm_eval(s, (int[]){ 1, 2, 3 }, 3), "%zu: %s", i, llm_error());
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* Sessions side by side give what each gives alone; so do two models in one process. */
static void test_side_by_side(void)
{
    Bytes file, second_file;
    Shape other = small_shape;
    other.seed = 77;
    int vocab = small_shape.vocab, tokens[200];
    llm_model *m = open_tiny(&small_shape, &file), *second = open_tiny(&other, &second_file);
    llm_session *sessions[4], *alone = llm_session_new(m, NULL),
                              *foreign = llm_session_new(second, NULL);
    random_tokens(tokens, 200, vocab);
    for (int i = 0; i < 4; i++) {
        sessions[i] = llm_session_new(m, &(llm_options){ .context = 100 + i });
        llm_eval(sessions[i], tokens + 10 * i, 20 + 7 * i);
    }
    for (int step = 0; step < 5; step++) {
        check(!llm_eval_many(sessions, tokens + 100 + 4 * step, 4), "%s", llm_error());
        llm_eval(foreign, tokens, 3);
    }
    for (int i = 0; i < 4; i++) {
        llm_rewind(alone, 0);
        llm_eval(alone, tokens + 10 * i, 20 + 7 * i);
        for (int step = 0; step < 5; step++) llm_eval(alone, tokens + 100 + 4 * step + i, 1);
        double d = float_difference(llm_logits(sessions[i]), llm_logits(alone), vocab);
        check(d < 2e-4, "session %d of 4 differs from itself alone by %g", i, d);
        check(llm_position(sessions[i]) == 25 + 7 * i, "position of session %d", i);
    }
    llm_session *twice[2] = { sessions[0], sessions[0] }, *mixed[2] = { sessions[0], foreign };
    check(llm_eval_many(twice, tokens, 2) == -1 && strstr(llm_error(), "the same"),
          "the same session twice");
    check(llm_eval_many(mixed, tokens, 2) == -1 && strstr(llm_error(), "different models"),
          "two models mixed");
    for (int i = 0; i < 4; i++) llm_session_free(sessions[i]);
    llm_session_free(alone), llm_session_free(foreign);
    llm_close(m), llm_close(second);
    free(file.data), free(second_file.data);
}

/* The same logits for any number of threads: nothing is summed up across them. */
static void test_threads(void)
{
    Bytes file;
    Shape s = small_shape;
    s.dim = 320, s.hidden_dim = 300, s.head_dim = 64;
    int tokens[90];
    llm_model *m = open_tiny(&s, &file);
    llm_session *one = llm_session_new(m, &(llm_options){ .threads = 1 }),
                *three = llm_session_new(m, &(llm_options){ .threads = 3 });
    random_tokens(tokens, 90, s.vocab);
    const float *a = llm_eval(one, tokens, 90), *b = llm_eval(three, tokens, 90);
    check(a && b && !memcmp(a, b, (size_t)s.vocab * sizeof *a),
          "1 and 3 threads give other logits");
    llm_session_free(one), llm_session_free(three);
    llm_close(m);
    free(file.data);
}

/* Steps over several spans of positions, with one key/value head: threads share the spans, which
 * gives the same logits, whoever had which; and so do steps of a few rows, with a window or not. */
static void test_spans(void)
{
    static const char *const archs[] = { "llama", "gemma2" }; /* the latter with a window */
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        Bytes file;
        int tokens[1700];
        llm_model *m = grown_model(archs[i],
                                   "attention.head_count=4 attention.head_count_kv=1 "
                                   "attention.sliding_window=600",
                                   "", &file);
        check(m != NULL, "%s: %s", archs[i], llm_error());
        if (!m) continue;
        int vocab = m->facts.vocab_size;
        size_t bytes = (size_t)vocab * sizeof(float);
        llm_session *one = llm_session_new(m, &(llm_options){ .context = 1700, .threads = 1 }),
                    *three = llm_session_new(m, &(llm_options){ .context = 1700, .threads = 3 }),
                    *five = llm_session_new(m, &(llm_options){ .context = 1700, .threads = 2 });
        float *rows = malloc(5 * bytes);
        check(parts_of(one) >= 5 * 4 * 4, "room for the spans of five rows");
        random_tokens(tokens, 1700, vocab);
        llm_eval(one, tokens, 1500), llm_eval(three, tokens, 1500), llm_eval(five, tokens, 1500);
        for (int t = 1500; t < 1700; t += 5) {
            check(!llm_eval_all(five, tokens + t, 5, rows), "%s", llm_error());
            for (int e = 0; e < 5; e++) {
                const float *a = llm_eval(one, tokens + t + e, 1);
                const float *b = llm_eval(three, tokens + t + e, 1);
                check(a && b && !memcmp(a, b, bytes), "%s: threads change logits", archs[i]);
                check(a && !memcmp(a, rows + e * vocab, bytes), "%s: rows do", archs[i]);
            }
        }
        llm_session_free(one), llm_session_free(three), llm_session_free(five);
        llm_close(m);
        free(rows), free(file.data);
    }
}

/* The logits at a position of n tokens: of a batch of all of them, or of single steps. These see a
 * shorter text, which has other rotations below the original context of a model with LONG_ROPE;
 * NULL there. */
static const float *logits_at(llm_session *s, const int *tokens, int n, int position, int single)
{
    static float all[512 << 7];
    const llm_model *m = s->model;
    llm_rewind(s, 0);
    if (!single) {
        check(n * m->facts.vocab_size <= (int)ARRAY_LEN(all) && !llm_eval_all(s, tokens, n, all),
              "%s", llm_error());
        return all + position * m->facts.vocab_size;
    }
    for (int i = 0; i <= position; i++) llm_eval(s, tokens + i, 1);
    int shorter = m->ropes[LONG_ROPE].turns && n > m->short_context && position < m->short_context;
    return shorter ? NULL : llm_logits(s);
}

/* Logits of models made with transformers: NAME.gguf, and NAME.txt with a line of tokens, the range
 * of the logits, and lines of logits at some positions. */
static void test_golden(const char *name)
{
    char path[128], *line = NULL, *next;
    size_t room = 0;
    int tokens[512], n = 0, lines = 0;
    double range = 0;
    static double want[1 << 12];
    snprintf(path, sizeof path, "tests/goldens/%s.gguf", name);
    llm_model *m = llm_open(path);
    check(m, "%s", llm_error());
    snprintf(path, sizeof path, "tests/goldens/%s.txt", name);
    FILE *file = fopen(path, "r");
    check(file, "%s is missing", path);
    llm_session *s = m ? llm_session_new(m, &(llm_options){ .cache = "f32" }) : NULL;
    int vocab = m ? m->facts.vocab_size : 0;
    while (s && file && getline(&line, &room, file) > 0) {
        if (!strncmp(line, "tokens ", 7)) {
            for (next = line + 7; sscanf(next, "%d", &tokens[n]) == 1; n++) strtol(next, &next, 10);
        }
        if (!strncmp(line, "range ", 6)) range = atof(line + 6);
        if (strncmp(line, "logits ", 7)) continue;
        long position = strtol(line + 7, &next, 10);
        for (int i = 0; i < vocab; i++) want[i] = strtod(next, &next);
        for (int single = 0; single < 2; single++) {
            const float *got = logits_at(s, tokens, n, (int)position, single);
            double worst = 0;
            if (single && !got && m->ropes[LONG_ROPE].turns) continue;
            for (int i = 0; got && i < vocab; i++) {
                if (!(fabs(got[i] - want[i]) <= worst)) worst = fabs(got[i] - want[i]);
            }
            check(got && range > 0 && worst / range < (kernels->tiles ? 6e-4 : 2e-5),
                  "%s, position %ld%s, %s: logits differ by %g of their range", name, position,
                  single ? ", single steps" : "", kernels->name, worst / range);
        }
        lines++;
    }
    check(n > 0 && lines > 0, "%s: no goldens in it", path);
    if (file) fclose(file);
    free(line);
    llm_session_free(s);
    llm_close(m);
}

/* What the API refuses, and that the session is as before. */
static void test_refusals(void)
{
    Bytes file;
    int tokens[701];
    llm_model *m = open_tiny(&small_shape, &file);
    llm_session *s = llm_session_new(m, &(llm_options){ .context = 20 });
    random_tokens(tokens, 701, small_shape.vocab);
    check(!llm_eval(s, tokens, 21) && strstr(llm_error(), "21 tokens do not fit"), "%s",
          llm_error());
    check(llm_eval(s, tokens, 20) && llm_position(s) == 20, "exactly the context");
    check(!llm_eval(s, tokens, 1) && strstr(llm_error(), "20 are in use"), "%s", llm_error());
    check(!llm_eval(s, tokens, 0) && !llm_eval(s, tokens, -1), "no tokens");
    check(llm_rewind(s, 21) == -1 && llm_rewind(s, -1) == -1 && llm_position(s) == 20,
          "rewind out of range");
    llm_rewind(s, 10);
    check(!llm_eval(s, (int[]){ small_shape.vocab }, 1) &&
              strstr(llm_error(), "not in the vocabulary"),
          "%s", llm_error());
    check(!llm_eval(s, (int[]){ -1 }, 1) && llm_position(s) == 10, "a negative token");
    check(llm_sample(s, NULL) == -1 && strstr(llm_error(), "no logits"), "%s", llm_error());
    check(!llm_session_new(m, &(llm_options){ .context = -1 }), "a negative context");
    check(!llm_session_new(m, &(llm_options){ .threads = 100000 }), "too many threads");
    check(!llm_session_new(m, &(llm_options){ .cache = "q4_K" }) &&
              strstr(llm_error(), "a cache of q4_K, expected f16, f32 or q8_0"),
          "%s", llm_error());
    check(!llm_session_new(m, &(llm_options){ .cache = "q8_0" }) &&
              strstr(llm_error(), "the heads have 10 dimensions"),
          "%s", llm_error());
    llm_session_free(s);
    llm_session_free(NULL);
    llm_close(m);
    llm_close(NULL);
    free(file.data);
}

/* Families that transformers can't make: their rows are those of others, which have goldens. */
static const Arch *twin_of(const char *name)
{
    static const char *const twins[][2] = { { "qwen2vl", "qwen2" },
                                            { "internlm2", "llama" },
                                            { "bailingmoe2", "dots1" } };
    for (size_t i = 0; i < ARRAY_LEN(twins); i++) {
        for (size_t k = 0; k < ARRAY_LEN(archs) && !strcmp(twins[i][0], name); k++) {
            if (!strcmp(twins[i][1], archs[k].name)) return &archs[k];
        }
    }
    return NULL;
}

static void test_twins(void)
{
    for (size_t k = 0; k < ARRAY_LEN(archs); k++) {
        const Arch *twin = twin_of(archs[k].name);
        Arch own = archs[k];
        if (!twin) continue;
        own.name = twin->name;
        check(!memcmp(&own, twin, sizeof own), "%s is not like %s", archs[k].name, twin->name);
    }
}

static void test_forward(void)
{
    static const char *const variants[] = { "mixtral", "deepseek2-lite", "stablelm-parallel",
                                            "gemma4-experts" };
    for (size_t i = 0; i < ARRAY_LEN(isas); i++) {
        if (!isas[i].usable()) continue;
        setenv("RUN_CPU", isas[i].name, 1);
        pick_kernels();
        test_against_plain();
        test_experts();
        test_super_blocks();
        test_batches();
        test_side_by_side();
        test_threads();
        test_spans();
        test_kinds();
        for (size_t k = 0; k < ARRAY_LEN(archs); k++) {
            if (!twin_of(archs[k].name)) test_golden(archs[k].name);
        }
        for (size_t k = 0; k < ARRAY_LEN(variants); k++) test_golden(variants[k]);
    }
    setenv("RUN_CPU", "none", 1);
    check(!pick_kernels() && strstr(llm_error(), "no such kernels"), "%s", llm_error());
    unsetenv("RUN_CPU");
    pick_kernels();
    test_buffers();
    test_twins();
    test_refusals();
    test_scale_names();
    test_glm_flash();
    test_long_rope();
    test_cache_blocks();
}
