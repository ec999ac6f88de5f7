/* Sampling: drawn frequencies against the exact distribution, each step alone and all together. */

/* A session over which tests set the logits; n tokens of vocabulary. */
static llm_session *sampling_session(int n, llm_model **m, Bytes *file, uint64_t seed)
{
    Shape s = small_shape;
    s.vocab = n;
    *m = open_tiny(&s, file);
    llm_session *session = llm_session_new(*m, &(llm_options){ .seed = seed });
    session->has_logits = 1;
    return session;
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The distribution by definition, the plain way; all probabilities are different. */
static void exact_distribution(const float *logits, int n, const llm_sampling *s, double *p)
{
    double sum = 0, order[512], mass = 0;
    for (int i = 0; i < n; i++) sum += p[i] = exp(logits[i] / s->temperature);
    for (int i = 0; i < n; i++) order[i] = p[i] /= sum;
    qsort(order, (size_t)n, sizeof *order, descending);
    int kept = s->top_k ? s->top_k : n;
    for (int i = sum = 0; i < kept; i++) sum += order[i];
    for (int i = 0; i < kept; i++) {
        if (s->top_p > 0 && s->top_p < 1 && i > 0 && mass >= s->top_p * sum) kept = i;
        mass += order[i];
    }
    double least = order[kept - 1];
    if (least < s->min_p * order[0]) least = s->min_p * order[0];
    for (int i = sum = 0; i < n; i++) sum += p[i] = p[i] >= least ? p[i] : 0;
    for (int i = 0; i < n; i++) p[i] /= sum;
}

static void test_frequencies(void)
{
    enum { N = 300, DRAWS = 40000 };
    static const llm_sampling cases[] = {
        { .temperature = 1 },
        { .temperature = 0.5f },
        { .temperature = 1, .top_p = 0.8f },
        { .temperature = 1, .top_k = 7 },
        { .temperature = 1.3f, .min_p = 0.1f },
        { .temperature = 0.9f, .top_p = 0.7f, .top_k = 20, .min_p = 0.02f },
        { .temperature = 2, .top_k = 1000, .top_p = 1 },
    };
    llm_model *m;
    Bytes file;
    llm_session *s = sampling_session(N, &m, &file, 42);
    uint64_t random = 9;
    for (int i = 0; i < N; i++) s->logits[i] = 3 * random_weight(&random);
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        llm_sampling c = cases[k];
        double p[N], chi = 0, cells = -1, rest = 0, rest_count = 0;
        int counts[N] = { 0 };
        if (c.top_k > N) c.top_k = N;
        exact_distribution(s->logits, N, &c, p);
        for (int i = 0; i < DRAWS; i++) counts[llm_sample(s, &cases[k])]++;
        for (int i = 0; i < N; i++) { /* Pearson's test; rare tokens share a cell */
            double expected = p[i] * DRAWS;
            check(p[i] > 0 || counts[i] == 0, "case %zu: token %d was drawn but is excluded", k, i);
            if (expected < 10) {
                rest += expected, rest_count += counts[i];
            } else {
                chi += (counts[i] - expected) * (counts[i] - expected) / expected;
                cells++;
            }
        }
        if (rest > 1) chi += (rest_count - rest) * (rest_count - rest) / rest, cells++;
        check(chi < cells + 5 * sqrt(2 * cells) + 5, "case %zu: chi^2 %g of %g cells", k, chi,
              cells);
    }
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

static void test_sampling_edges(void)
{
    llm_model *m;
    Bytes file;
    llm_session *s = sampling_session(300, &m, &file, 1);
    llm_sampling greedy = { 0 }, cold = { .temperature = 1e-30f }, hot = { .temperature = 1e30f };
    for (int i = 0; i < 300; i++) s->logits[i] = (float)(i % 100);
    check(llm_sample(s, &greedy) == 99, "greedy takes the first of the likeliest");
    check(llm_sample(s, &cold) % 100 == 99, "almost no temperature");
    check(llm_sample(s, &hot) >= 0, "a huge temperature");
    check(llm_sample(s, &(llm_sampling){ .temperature = 1, .top_k = 1 }) == 99,
          "top-k 1 is greedy");
    check(llm_sample(s, &(llm_sampling){ .temperature = 1, .top_p = 1e-9f }) == 99,
          "a tiny top-p is greedy");
    check(llm_sample(s, &(llm_sampling){ .temperature = 1, .min_p = 1 }) % 100 == 99,
          "min-p 1 keeps the likeliest");
    s->tokens[0] = 99, s->tokens[1] = 99, s->tokens[2] = 5, s->position = 3;
    check(llm_sample(s, &(llm_sampling){ .repeat_penalty = 1.005f }) == 199,
          "a repeated token loses");
    for (int i = 0; i < 300; i++) s->logits[i] = -1 - (float)i;
    s->tokens[0] = 0, s->position = 1;
    check(llm_sample(s, &(llm_sampling){ .repeat_penalty = 3 }) == 1,
          "a negative logit is multiplied");
    for (int i = 0; i < 100; i++) s->tokens[i] = i < 36 ? 0 : 7;
    s->position = 100;
    check(llm_sample(s, &(llm_sampling){ .repeat_penalty = 3 }) == 0,
          "the penalty looks back 64 tokens");
    s->position = 0;
    for (int i = 0; i < 300; i++) s->logits[i] = i % 2 ? NAN : (float)-i;
    check(llm_sample(s, &greedy) == 0, "NaN is never the likeliest");
    for (int i = 0; i < 50; i++) check(llm_sample(s, &hot) % 2 == 0, "NaN is never drawn");
    for (int i = 0; i < 300; i++) s->logits[i] = NAN;
    check(llm_sample(s, &greedy) == -1 && strstr(llm_error(), "not numbers"), "%s", llm_error());
    for (int i = 0; i < 300; i++) s->logits[i] = -INFINITY;
    check(llm_sample(s, &hot) == -1, "all logits minus infinity");
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* Every seed is good, near ones differ, and the numbers are those of the published generators. */
static void test_seeds(void)
{
    static const uint64_t seeds[] = { 0, 1, 2, UINT64_MAX, UINT64_MAX - 1 };
    double mean[ARRAY_LEN(seeds)] = { 0 }, first[ARRAY_LEN(seeds)];
    for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
        uint64_t state = spread_seed(seeds[i]);
        first[i] = random_unit(&state);
        for (int j = 0; j < 10000; j++) mean[i] += random_unit(&state) / 10000;
        check(fabs(mean[i] - 0.5) < 0.015, "seed %llu: mean %g", (unsigned long long)seeds[i],
              mean[i]);
        for (size_t j = 0; j < i; j++) check(fabs(first[i] - first[j]) > 1e-3, "seeds begin alike");
    }
    check(spread_seed(0) == 0xe220a8397b1dcdaf, "splitmix64 of seed 0");
}

/* A number of the sampling that is none is an error, not a choice. */
static void test_bad_numbers(void)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static const char *const names[] = { "temperature", "top_p", "min_p", "repeat_penalty" };
    Bytes file;
    llm_model *m = open_tiny(&small_shape, &file);
    llm_session *s = llm_session_new(m, NULL);
    check(llm_eval(s, &(int){ 3 }, 1), "%s", llm_error());
    uint64_t before = s->random;
    for (size_t i = 0; i < ARRAY_LEN(bad) * ARRAY_LEN(names); i++) {
        llm_sampling p = { .temperature = 1 };
        float *fields[] = { &p.temperature, &p.top_p, &p.min_p, &p.repeat_penalty };
        *fields[i % 4] = bad[i / 4];
        check(llm_sample(s, &p) == -1 && strstr(llm_error(), names[i % 4]), "%s %g: %s",
              names[i % 4], (double)bad[i / 4], llm_error());
        check(llm_generate(s, NULL, 2, &p, NULL, NULL) == -1 && s->random == before,
              "%s %g: a text was generated", names[i % 4], (double)bad[i / 4]);
    }
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

static void test_sampling(void)
{
    test_bad_numbers();
    test_frequencies();
    test_sampling_edges();
    test_seeds();
}
