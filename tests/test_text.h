/* Generation as text: characters split over tokens, stop tokens, prompts, the context's end. The
 * model here is a made one, in which each token is followed by the next of a given list. */

/* Zero layers of consequence: the embedding of token t is the unit vector t, and output row u has a
 * one at every token that u follows. */
static llm_model *chain_model(const int *chain, int n, int context, Bytes *file)
{
    Shape s = small_shape;
    s.dim = 300, s.context = context;
    *file = tiny_model(&s);
    llm_model *m = llm_open_memory(file->data, file->size);
    for (uint64_t i = 0; m && i < m->file.n_tensors; i++) {
        const Tensor *t = &m->file.tensors[i];
        float *w = (float *)(void *)t->data;
        int is_norm = strstr(t->name.data, "norm.weight") && t->shape[1] == 1;
        for (size_t j = 0; j < t->bytes / 4; j++) w[j] = is_norm;
        if (!strncmp(t->name.data, "token_embd", 10)) {
            for (int j = 0; j < s.vocab; j++) w[j * s.dim + j] = 1;
        }
        if (!strncmp(t->name.data, "output.weight", 13)) {
            for (int j = 0; j + 1 < n; j++) w[chain[j + 1] * s.dim + chain[j]] = 1;
        }
    }
    llm_close(m);
    return llm_open_memory(file->data, file->size); /* norms are copied while opening */
}

typedef struct {
    char text[256];
    int calls, bad, stop_after;
} Ear;

static int overhear(void *user, const char *text, size_t len)
{
    Ear *h = user;
    for (size_t i = 0; i < len;) {
        int n = tokenizer_char(text + i, len - i);
        if (n <= 0) h->bad = 1;
        i += n > 0 ? (size_t)n : 1;
    }
    if (strlen(text) != len) h->bad = 1;
    strncat(h->text, text, sizeof h->text - strlen(h->text) - 1);
    return ++h->calls == h->stop_after;
}

/* Tokens of bytes 3 + byte; letters from 259 on. */
static void check_chain(const int *chain, int n, const char *prompt, int max, const char *want,
                        int want_count, const char *what)
{
    Bytes file;
    Ear h = { .stop_after = -1 };
    llm_model *m = chain_model(chain, n, 50, &file);
    check(m, "%s", llm_error());
    llm_session *s = m ? llm_session_new(m, NULL) : NULL;
    int count = s ? llm_generate(s, prompt, max, &(llm_sampling){ 0 }, overhear, &h) : -1;
    check(count == want_count, "%s: %d tokens, expected %d (%s)", what, count, want_count,
          count < 0 ? llm_error() : "");
    check(!strcmp(h.text, want), "%s: \"%s\", expected \"%s\"", what, h.text, want);
    check(!h.bad, "%s: a piece is not whole UTF-8", what);
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

static void test_generate(void)
{
    enum { B = 3, LETTER_E = 260, LETTER_T = 261, LETTER_A = 262 };
    check_chain((int[]){ 1, LETTER_E, LETTER_T, LETTER_A, 2 }, 5, "", 0, "eta", 3,
                "until the end-of-text token");
    check_chain((int[]){ 1, LETTER_E, LETTER_T, 1 }, 4, "", 0, "et", 2,
                "a new beginning of text is an end");
    check_chain((int[]){ 1, LETTER_E, LETTER_T, LETTER_A, 2 }, 5, "", 2, "et", 2,
                "at most 2 tokens");
    check_chain((int[]){ LETTER_E, LETTER_T, LETTER_A, 2 }, 4, "te", 9, "ta", 2, "after a prompt");
    check_chain((int[]){ 1, B + 0xc3, B + 0xa9, 2 }, 4, "", 0, "\xc3\xa9", 2,
                "a character of two tokens");
    check_chain((int[]){ 1, B + 0xf0, B + 0x9f, B + 0xa6, B + 0x99, 2 }, 6, "", 0,
                "\xf0\x9f\xa6\x99", 4, "a character of four tokens");
    check_chain((int[]){ 1, B + 0xe6, LETTER_A, 2 }, 4, "", 0,
                "\xef\xbf\xbd"
                "a",
                2, "a character cut short");
    check_chain((int[]){ 1, B + 0xe6, B + 0x97, 2 }, 4, "", 0, "\xef\xbf\xbd", 2,
                "an unfinished character at the end");
    check_chain((int[]){ 1, B + 0x80, B + 0xc0, B + 0xff, 2 }, 5, "", 0,
                "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 3, "bytes that are no UTF-8");
    check_chain((int[]){ 1, LETTER_E, LETTER_E }, 3, "", 0,
                "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", 49,
                "until the context is full");
}

static void test_generate_api(void)
{
    Bytes file;
    Ear h = { .stop_after = 2 }, rest = { .stop_after = -1 };
    llm_sampling greedy = { 0 };
    char long_prompt[64];
    llm_model *m = chain_model((int[]){ 1, 260, 261, 262, 263, 2 }, 6, 50, &file);
    llm_session *s = llm_session_new(m, NULL);
    check(llm_generate(s, "", 0, &greedy, overhear, &h) == 2 && !strcmp(h.text, "et"),
          "the callback ends it: %s", h.text);
    check(llm_position(s) == 3, "what was heard is in the session: %d", llm_position(s));
    check(llm_generate(s, "", 0, &greedy, overhear, &rest) == 2 && !strcmp(rest.text, "ao"),
          "it goes on: %s", rest.text);
    check(llm_generate(s, "", 3, &greedy, NULL, NULL) == 0, "nothing after the end");
    memset(long_prompt, 'e', sizeof long_prompt - 1);
    long_prompt[63] = 0;
    check(llm_generate(s, long_prompt, 3, &greedy, NULL, NULL) == LLM_FULL &&
              strstr(llm_error(), "63 tokens do not fit"),
          "%s", llm_error());
    check(llm_is_stop(m, 2) && llm_is_stop(m, 1) && !llm_is_stop(m, 260), "stop tokens");
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* Two sessions of one seed say the same, another seed something else. */
static void test_same_seed(void)
{
    Bytes file;
    Ear h[3] = { { .stop_after = -1 }, { .stop_after = -1 }, { .stop_after = -1 } };
    llm_model *m = open_tiny(&small_shape, &file);
    for (int i = 0; i < 3; i++) {
        llm_session *s = llm_session_new(m,
                                         &(llm_options){ .threads = 1 + i, .seed = i < 2 ? 5 : 6 });
        check(llm_generate(s, "a", 60, NULL, overhear, &h[i]) >= 0, "%s", llm_error());
        llm_session_free(s);
    }
    check(!strcmp(h[0].text, h[1].text), "the same seed gives the same text");
    check(strcmp(h[0].text, h[2].text), "another seed gives another text");
    llm_close(m);
    free(file.data);
}

/* Turns in ChatML: what stands in the session, token by token; what a user types stays text. */
static void test_turns(void)
{
    enum { BYTE = 3, START = 290, END = 291, NEWLINE = BYTE + 10 };
    static const int user[] = {
        1, START, 271, 266, 260, 268, NEWLINE, 261, 260, 262, END, NEWLINE
    };
    Shape shape = small_shape;
    shape.chat = 1;
    Bytes file, plain_file;
    llm_model *m = open_tiny(&shape, &file), *plain = open_tiny(&small_shape, &plain_file);
    llm_session *s = llm_session_new(m, &(llm_options){ .context = 80 });
    check(strstr(llm_info(m)->chat_template, "<|im_end|>") && !*llm_warning(s), "its template");
    check(llm_turn(s, "", "tea") == -1 && strstr(llm_error(), "role"), "%s", llm_error());
    check(llm_turn(s, "user", NULL) == -1 && strstr(llm_error(), "without a text"), "%s",
          llm_error());
    check(!llm_turn(s, "user", "tea"), "%s", llm_error());
    check(llm_position(s) == 12 && !memcmp(s->tokens, user, sizeof user), "a user turn");
    check(!llm_turn(s, "assistant", NULL) && s->tokens[12] == START && s->tokens[13] == 262,
          "an open turn");
    int before = llm_position(s), said = llm_generate(s, "", 3, &(llm_sampling){ 0 }, NULL, NULL);
    check(said >= 0 && llm_position(s) == before + said, "what was said is in the session");
    check(!llm_turn(s, "user", "<|im_end|>"), "%s", llm_error());
    check(s->tokens[before + said] == END && s->tokens[before + said + 1] == NEWLINE &&
              s->tokens[before + said + 2] == START,
          "the next turn closes the open one");
    check(s->tokens[before + said + 8] == BYTE + '<', "a mark that is typed is text");
    int full = llm_position(s);
    char much[100] = { 0 };
    memset(much, 'e', 90);
    check(llm_turn(s, "user", much) == LLM_FULL && strstr(llm_error(), "do not fit"), "%s",
          llm_error());
    check(llm_position(s) == full, "a turn that does not fit leaves nothing behind");
    llm_session_free(s);
    s = llm_session_new(plain, NULL);
    check(llm_turn(s, "user", "tea") == -1 && strstr(llm_error(), "no chat template"), "%s",
          llm_error());
    llm_session_free(s);
    llm_close(m), llm_close(plain);
    free(file.data), free(plain_file.data);
}

/* Where the vocabulary lacks the mark for a space, a space takes three byte tokens. */
static void test_more_tokens_than_bytes(void)
{
    Bytes file = tiny_model(&small_shape);
    unsigned char *mark = memmem(file.data, file.size, "\xe2\x96\x81", 3);
    check(mark != NULL, "the mark is in the vocabulary");
    if (mark) mark[2] = 0x82;
    llm_model *m = llm_open_memory(file.data, file.size);
    llm_session *s = m ? llm_session_new(m, NULL) : NULL;
    check(s && llm_generate(s, "        ", 1, NULL, NULL, NULL) >= 0, "%s", llm_error());
    check(s && llm_position(s) >= 1 + 3 * 8, "8 spaces are %d tokens", s ? llm_position(s) - 1 : 0);
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* A file without a vocabulary evaluates tokens; one without weights encodes and decodes. */
static void test_half_files(void)
{
    Builder vocabulary = { 0 };
    add_string(&vocabulary, "general.architecture", "anything");
    add_vocabulary(&vocabulary, 300, 0);
    Bytes file = finish(&vocabulary);
    llm_model *m = llm_open_memory(file.data, file.size);
    int tokens[8];
    char text[16];
    check(m && !llm_info(m)->has_weights && llm_info(m)->vocab_size == 300,
          "a vocabulary-only file: %s", llm_error());
    check(llm_encode(m, "tea", 3, LLM_BEGIN | LLM_BOS, tokens, 8) == 4 && tokens[0] == 1 &&
              tokens[1] == 261,
          "it encodes");
    check(llm_decode(m, tokens, 4, LLM_BEGIN, text, sizeof text) == 3 && !strcmp(text, "tea"),
          "it decodes: %s", text);
    check(!llm_session_new(m, NULL) && strstr(llm_error(), "no weights"), "%s", llm_error());
    llm_close(m);
    free(file.data);
}

/* The vocabularies of real models, where they are at hand: NAME.inp has texts, NAME.out their ids.
 */
static void test_real_vocabulary(const char *name)
{
    char path[256];
    size_t room = 0;
    char *line = NULL, text[4096] = "";
    snprintf(path, sizeof path, "../shared/data/vocab/ggml-vocab-%s.gguf", name);
    llm_model *m = llm_open(path);
    check(m && !*llm_info(m)->warning, "%s: %s", name, m ? llm_info(m)->warning : llm_error());
    strcat(path, ".inp");
    FILE *in = fopen(path, "rb");
    memcpy(path + strlen(path) - 3, "out", 3);
    FILE *out = fopen(path, "rb");
    int texts = 0;
    while (m && in && out) {
        ssize_t n = getline(&line, &room, in);
        if (n >= 0 && strcmp(line, "__ggml_vocab_test__\n")) {
            strcat(text, line);
            continue;
        }
        if (n < 0) break;
        size_t len = strlen(text);
        if (len && text[len - 1] == '\n') text[--len] = 0; /* the separator's own line end */
        int tokens[4096], count = llm_encode(m, text, len, LLM_BEGIN, tokens, 4096), wrong = 0, id;
        char back[8192], *ids = NULL;
        size_t ids_room = 0;
        if (getline(&ids, &ids_room, out) >= 0) {
            char *next = ids;
            int i = 0;
            for (; sscanf(next, "%d", &id) == 1; i++) {
                wrong |= i >= count || tokens[i] != id;
                strtol(next, &next, 10);
            }
            check(!wrong && i == count, "%s: wrong tokens for \"%s\"", name, text);
        }
        free(ids);
        llm_decode(m, tokens, count, LLM_BEGIN, back, sizeof back);
        check(!strcmp(back, text), "%s: \"%s\" comes back as \"%s\"", name, text, back);
        texts++;
        *text = 0;
    }
    check(texts > 40, "%s: %d texts", name, texts);
    if (in) fclose(in);
    if (out) fclose(out);
    free(line);
    llm_close(m);
}

/* A missing argument is an error with a sentence, in every public function. */
static void test_missing_arguments(void)
{
    Bytes file;
    llm_model *m = open_tiny(&small_shape, &file);
    llm_session *s = llm_session_new(m, NULL);
    int token = 1;
    char text[8];
    const struct {
        int failed;
        const char *lacking;
    } calls[] = {
        { llm_open(NULL) == NULL && strstr(llm_error(), "path") != NULL, "llm_open" },
        { !llm_open_memory(NULL, 9) && strstr(llm_error(), "buffer"), "llm_open_memory" },
        { !llm_info(NULL) && strstr(llm_error(), "model"), "llm_info" },
        { llm_encode(NULL, "a", 1, 0, &token, 1) == -1, "llm_encode" },
        { llm_encode(m, NULL, 1, 0, &token, 1) == -1 && strstr(llm_error(), "text"), "a text" },
        { llm_encode(m, "a", 1, 0, NULL, 1) == -1 && strstr(llm_error(), "room"), "room" },
        { llm_decode(NULL, &token, 1, 0, text, 8) == 0, "llm_decode" },
        { llm_decode(m, NULL, 1, 0, text, 8) == 0, "tokens" },
        { llm_decode(m, &token, 1, 0, NULL, 8) == 0, "room of llm_decode" },
        { llm_is_stop(NULL, 1) == -1, "llm_is_stop" },
        { !llm_session_new(NULL, NULL) && strstr(llm_error(), "model"), "llm_session_new" },
        { !llm_fork(NULL) && strstr(llm_error(), "session"), "llm_fork" },
        { llm_position(NULL) == -1, "llm_position" },
        { !llm_warning(NULL), "llm_warning" },
        { llm_context(NULL) == -1, "llm_context" },
        { llm_threads(NULL) == -1, "llm_threads" },
        { !llm_tokens(NULL), "llm_tokens" },
        { llm_rewind(NULL, 0) == -1, "llm_rewind" },
        { llm_sync(NULL, &token, 1) == -1 && strstr(llm_error(), "session"), "llm_sync" },
        { llm_sync(s, NULL, 1) == -1 && strstr(llm_error(), "token"), "tokens to go on from" },
        { llm_save(NULL, "x") == -1, "llm_save" },
        { llm_save(s, NULL) == -1 && strstr(llm_error(), "path"), "a path to save" },
        { llm_load(NULL, "x") == -1, "llm_load" },
        { llm_load(s, NULL) == -1 && strstr(llm_error(), "path"), "a path to load" },
        { !llm_eval(NULL, &token, 1), "llm_eval" },
        { !llm_eval(s, NULL, 1) && strstr(llm_error(), "token"), "tokens to evaluate" },
        { llm_eval_all(NULL, &token, 1, NULL) == -1, "llm_eval_all" },
        { llm_eval_all(s, &token, 1, NULL) == -1 && strstr(llm_error(), "logits"), "logits" },
        { llm_eval_many(NULL, &token, 1) == -1, "llm_eval_many" },
        { llm_eval_many((llm_session *[]){ NULL }, &token, 1) == -1, "one of many" },
        { llm_eval_many(&s, NULL, 1) == -1 && strstr(llm_error(), "token"), "their tokens" },
        { !llm_logits(NULL), "llm_logits" },
        { llm_sample(NULL, NULL) == -1, "llm_sample" },
        { llm_turn(NULL, "user", "a") == -1, "llm_turn" },
        { llm_turn(s, NULL, "a") == -1 && strstr(llm_error(), "role"), "a role" },
        { llm_turns(NULL) == -1, "llm_turns" },
        { llm_turn_start(NULL, 0) == -1, "llm_turn_start" },
        { !llm_turn_role(NULL, 0), "llm_turn_role" },
        { !llm_turn_text(NULL, 0), "llm_turn_text" },
        { llm_drop(NULL, 0, 1) == -1, "llm_drop" },
        { llm_is_thought(NULL) == -1, "llm_is_thought" },
        { llm_generate(NULL, "a", 1, NULL, NULL, NULL) == -1, "llm_generate" },
        { llm_write(NULL, 1, NULL, NULL) == -1, "llm_write" },
    };
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) check(calls[i].failed, "%s", calls[i].lacking);
    llm_seed(NULL, 1), llm_close(NULL), llm_session_free(NULL);
    check(llm_position(s) == 0, "a failed call has changed the session");
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* The arrays of a vocabulary may hold any type of number that fits. */
static void test_array_types(void)
{
    static const struct {
        const char *name;
        int of;
        double value; /* of token 0; the others are 0 in scores, 1 in types */
        const char *why;
    } cases[] = {
        { "scores", I32, -7, NULL },      { "scores", U8, 9, NULL },
        { "scores", FLOAT64, 0.1, NULL }, { "scores", I64, 16777217, "does not fit f32" },
        { "scores", STRING, 0, "array of numbers" },
        { "token_type", U32, 2, NULL },   { "token_type", I64, 2, NULL },
        { "token_type", U8, 2, NULL },    { "token_type", FLOAT32, 2, NULL },
        { "token_type", FLOAT32, 1.5, "does not fit i32" },
        { "token_type", U64, 4294967296.0, "does not fit i32" },
        { "token_type", FLOAT64, NAN, "does not fit i32" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Builder b = { 0 };
        int of = cases[i].of, scores = !strcmp(cases[i].name, "scores");
        static const char *const tokens[] = { "<unk>", "<s>", "</s>", "a" };
        add_string(&b, "general.architecture", "llama");
        add_string(&b, "tokenizer.ggml.model", "llama");
        add_array(&b, "tokenizer.ggml.tokens", STRING, 4);
        for (int t = 0; t < 4; t++) put_text(&b.keys, tokens[t]);
        add_array(&b, scores ? "tokenizer.ggml.scores" : "tokenizer.ggml.token_type", of, 4);
        for (int t = 0; t < 4; t++) {
            double v = t == 0 ? cases[i].value : scores ? 0 : 1;
            float f = (float)v;
            if (of == STRING) put_text(&b.keys, "0");
            if (of == FLOAT32) put(&b.keys, &f, 4);
            if (of == FLOAT64) put(&b.keys, &v, 8);
            if (of < FLOAT32 || of > ARRAY) {
                if (of != FLOAT64) put_int(&b.keys, (uint64_t)(int64_t)v, value_types[of].bytes);
            }
        }
        Bytes file = finish(&b);
        llm_model *m = llm_open_memory(file.data, file.size);
        check(cases[i].why ? !m && strstr(llm_error(), cases[i].why) != NULL : m != NULL,
              "%s as %s: %s", cases[i].name, value_types[of].name, m ? "" : llm_error());
        llm_close(m);
        free(file.data);
    }
}

static void test_text(void)
{
    test_missing_arguments();
    test_array_types();
    static const char *const names[] = { "llama-spm", "phi-3", "gpt-2",
                                         "llama-bpe", "qwen2", "deepseek-llm" };
    test_generate();
    test_generate_api();
    test_same_seed();
    test_turns();
    test_more_tokens_than_bytes();
    test_half_files();
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (access("../shared/data/vocab", R_OK)) {
            skip("vocabulary %s is not at hand", names[i]);
        } else {
            test_real_vocabulary(names[i]);
        }
    }
}
