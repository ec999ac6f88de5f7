/* Drafts change nothing but the time: with and without, generation gives the same tokens, texts,
 * logits and saved files, bit for bit, in every family, format and cache, however it samples. */

#include <dirent.h>

/* What a session without drafts and one with them do alike. */
typedef struct {
    llm_session *s;
    Mind mind;
    int said;
} Drafting;

static int64_t all_drafted, all_right;

/* A text that repeats itself, then as much as the model writes in calls of some tokens each. */
static void draft_both(const llm_model *m, const char *name, const char *cache, int threads,
                       const llm_sampling *how, const char *const *stops)
{
    static const char *const kinds[] = { "none", "always" };
    static char paths[2][40] = { TMP "/plain.llm", TMP "/drafted.llm" };
    static uint8_t files[2][1 << 20];
    Drafting d[2] = { { 0 } };
    int vocab = llm_info(m)->vocab_size, text[24], same = 1;
    size_t sizes[2], bytes = (size_t)vocab * sizeof(float);
    for (int i = 0; i < 24; i++) text[i] = 40 + i % 6 * 3;
    for (int i = 0; i < 2; i++) {
        llm_options o = { .context = llm_info(m)->context < 80 ? llm_info(m)->context : 80,
                          .threads = threads,
                          .cache = cache,
                          .seed = 7,
                          .stops = stops,
                          .draft = kinds[i] };
        d[i].mind.session = d[i].s = llm_session_new(m, &o);
        check(d[i].s && llm_eval(d[i].s, text, 24), "%s: %s", name, llm_error());
        if (!d[i].s) return;
        d[i].s->now = 0;
    }
    for (int call = 0; call < 4 && same; call++) {
        for (int i = 0; i < 2; i++) {
            d[i].said = llm_generate(d[i].s, NULL, 3 + 20 * call, how, listen, &d[i].mind);
        }
        const llm_session *a = d[0].s, *b = d[1].s;
        same = d[0].said == d[1].said && a->position == b->position && a->valid == b->valid &&
               !memcmp(a->tokens, b->tokens, (size_t)a->position * sizeof(int)) &&
               a->random == b->random && a->has_logits == b->has_logits &&
               !memcmp(a->logits, b->logits, bytes) &&
               !strcmp(d[0].mind.answer, d[1].mind.answer) && d[0].said >= 0;
        check(same, "%s, cache %s, temperature %g, call %d: %d and %d tokens, not the same", name,
              cache, (double)how->temperature, call, d[0].said, d[1].said);
    }
    for (int i = 0; i < 2; i++) {
        int64_t right = 0;
        check(!llm_save(d[i].s, paths[i]), "%s: %s", name, llm_error());
        slurp_bytes(paths[i], files[i], sizeof files[i], &sizes[i]);
        all_drafted += llm_drafted(d[i].s, &right), all_right += right;
        check(i || !llm_drafted(d[i].s, NULL), "%s: drafts that were not wanted", name);
        llm_session_free(d[i].s);
        unlink(paths[i]);
    }
    check(sizes[0] == sizes[1] && !memcmp(files[0], files[1], sizes[0]),
          "%s, cache %s: saved sessions differ", name, cache);
}

static void draft_in_model(Bytes file, const char *name)
{
    static const char *const caches[] = { "f16", "f32", "q8_0" }, *const stops[] = { "ab", NULL };
    static const llm_sampling hows[] = { { 0 },
                                         { .temperature = 1 },
                                         { .temperature = 0.1f, .repeat_penalty = 1.1f },
                                         { .temperature = 0.5f, .top_k = 3, .min_p = 0.01f } };
    llm_model *m = llm_open_memory(file.data, file.size);
    check(m, "%s: %s", name, llm_error());
    for (size_t i = 0; m && i < 4; i++) {
        const char *cache = caches[i % ARRAY_LEN(caches)];
        llm_session *s = llm_session_new(m, &(llm_options){ .context = 8, .cache = cache });
        llm_session_free(s);
        if (!s) continue; /* heads that blocks of 32 don't fit */
        draft_both(m, name, cache, 1 + (int)i % 2, &hows[i % ARRAY_LEN(hows)],
                   i % 4 ? NULL : stops);
    }
    llm_close(m);
    free(file.data);
}

static void test_drafts(void)
{
    char path[300], name[260];
    DIR *folder = opendir("tests/goldens");
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(name, sizeof name, "%s", entry->d_name);
        char *end = strstr(name, ".gguf");
        if (!end) continue;
        *end = 0;
        snprintf(path, sizeof path, "tests/goldens/%s", entry->d_name);
        llm_model *m = llm_open(path);
        int vocab = m ? llm_info(m)->vocab_size : 0;
        llm_close(m);
        if (vocab >= 64) draft_in_model(talking_golden(path, vocab), name);
    }
    if (folder) closedir(folder);
    for (int type = 0; type < N_FORMATS; type++) {
        Shape tiny = { .arch = "llama",
                       .dim = 256,
                       .hidden_dim = 256,
                       .n_layers = 2,
                       .n_heads = 4,
                       .n_kv_heads = 2,
                       .head_dim = 64,
                       .n_rot = 64,
                       .context = 200,
                       .vocab = 300,
                       .chat = 1,
                       .seed = 3,
                       .type = type,
                       .output_type = type };
        if (formats[type].bits || formats[type].block == 1)
            draft_in_model(tiny_model(&tiny), formats[type].name);
    }
    check(all_right > 500 && all_drafted - all_right > 500, "%lld drafts, %lld right",
          (long long)all_drafted, (long long)all_right);
    llm_model *m = llm_open(BUNDLED);
    check(!llm_session_new(m, &(llm_options){ .draft = "some" }) &&
              strstr(llm_error(), "drafts of some, expected"),
          "%s", llm_error());
    llm_close(m);
}
