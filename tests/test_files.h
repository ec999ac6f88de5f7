/* Files that are damaged, hostile or something else: each is refused with one sentence that names
 * the trouble, and nothing is lost or read out of bounds (make debug runs this under sanitizers).
 */

/* Opening must fail, with a sentence that contains `part`. */
static void refuse(const void *data, size_t size, const char *part, const char *what)
{
    /* a copy of the exact size, so that a sanitizer sees each byte that is read behind it */
    unsigned char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    fail("no sentence");
    llm_model *m = llm_open_memory(copy, size);
    check(!m, "%s: was opened", what);
    check(m || (strstr(llm_error(), part) && !strchr(llm_error(), '\n')),
          "%s: \"%s\", expected \"%s\"", what, llm_error(), part);
    llm_close(m);
    free(copy);
}

static void test_truncation(void)
{
    Shape s = small_shape;
    s.n_layers = 1, s.dim = 8, s.hidden_dim = 4, s.head_dim = 4, s.n_rot = 4, s.n_heads = 4,
    s.type = 1, s.vocab = 290;
    s.output_type = -1;
    Bytes file = tiny_model(&s);
    int opened = 0;
    llm_model *m = llm_open_memory(file.data, file.size);
    check(m, "the whole file: %s", llm_error());
    llm_close(m);
    for (size_t n = 0; n < file.size; n++) {
        unsigned char *copy = malloc(n ? n : 1);
        memcpy(copy, file.data, n);
        m = llm_open_memory(copy, n);
        opened += m != NULL;
        llm_close(m);
        free(copy);
    }
    /* the padding behind the last tensor may be missing */
    check(opened < 32, "%d truncated files were opened", opened);
    free(file.data);
}

/* Any byte changed: opened or refused, and what is opened can be evaluated. */
static void test_flipped_bytes(void)
{
    Shape s = small_shape;
    s.n_layers = 1, s.dim = 8, s.hidden_dim = 4, s.head_dim = 4, s.n_rot = 4, s.n_heads = 4,
    s.context = 16;
    Bytes file = tiny_model(&s);
    uint64_t random = 21;
    size_t head = 13000 < file.size ? 13000 : file.size; /* keys and directory */
    int opened = 0;
    for (int i = 0; i < 3000; i++) {
        size_t at = (size_t)(random_unit(&random) * (double)(i % 3 ? 400 : head));
        if (i % 3 == 1) at += file.size > 20000 ? 8200 : 0;
        unsigned char was = file.data[at];
        file.data[at] = i % 2 ? (unsigned char)(random_unit(&random) * 256)
                              : (unsigned char)(was ^ 1 << i % 8);
        llm_model *m = llm_open_memory(file.data, file.size);
        int tokens[4];
        if (m && llm_info(m)->vocab_size > 0 && llm_info(m)->context <= 1 << 16) {
            llm_session *session = llm_session_new(m, &(llm_options){ .context = 8, .threads = 1 });
            int n = llm_encode(m, "tea", 3, LLM_BEGIN | LLM_BOS | LLM_SPECIAL, tokens, 4);
            if (session && n > 0) llm_eval(session, tokens, n < 4 ? n : 4);
            llm_session_free(session);
        }
        opened += m != NULL;
        llm_close(m);
        file.data[at] = was;
    }
    check(opened > 0 && opened < 3000, "%d of 3000 changed files were opened", opened);
    free(file.data);
}

/* A file in memory that is aligned as a mapping is; the caller frees it. */
static Bytes whole_file(const char *path)
{
    Bytes file = { 0 };
    FILE *in = fopen(path, "rb");
    struct stat st;
    if (in && !fstat(fileno(in), &st)) put(&file, NULL, (size_t)st.st_size);
    check(in && fread(file.data, 1, file.size, in) == file.size, "%s", path);
    if (in) fclose(in);
    return file;
}

/* The same with models whose layers are of several kinds: lists of heads and layers, sizes of
 * states, experts. Two of three changes are in the value of a key. */
static void test_flipped_kinds(void)
{
    static const char *const names[] = { "lfm2moe", "qwen35moe",      "gemma4",    "gemma4-experts",
                                         "mamba2",  "nemotron_h_moe", "falcon-h1", "granitehybrid",
                                         "laguna",  "apertus" };
    uint64_t random = 22;
    int opened = 0, all = 0;
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        char path[80];
        snprintf(path, sizeof path, "tests/goldens/%s.gguf", names[k]);
        Bytes file = whole_file(path);
        llm_model *m = llm_open_memory(file.data, file.size);
        check(m, "%s: %s", names[k], llm_error());
        if (!m) continue;
        size_t places[256], n = 0, head = file.size;
        for (uint64_t i = 0; i < m->file.n_keys && n < ARRAY_LEN(places); i++) {
            const Key *key = &m->file.keys[i];
            uint64_t bytes = (uint64_t)value_types[key->of].bytes * key->count;
            if (!strncmp(key->name.data, "general", 7)) continue;
            for (uint64_t j = 0; j < bytes && n < ARRAY_LEN(places); j++) {
                places[n++] = (size_t)(key->data - m->file.data) + j;
            }
        }
        for (uint64_t i = 0; i < m->file.n_tensors; i++) {
            size_t at = (size_t)(m->file.tensors[i].data - m->file.data);
            head = at < head ? at : head;
        }
        llm_close(m);
        for (int i = 0; i < 600; i++, all++) {
            size_t at = i % 3 ? places[(size_t)(random_unit(&random) * (double)n)]
                              : (size_t)(random_unit(&random) * (double)head);
            unsigned char was = file.data[at];
            file.data[at] = i % 2 ? (unsigned char)(random_unit(&random) * 256)
                                  : (unsigned char)(was ^ 1 << i % 8);
            m = llm_open_memory(file.data, file.size);
            llm_session *s = m ? llm_session_new(m, &(llm_options){ .context = 8, .threads = 1 })
                               : NULL;
            static const int tokens[] = { 1, 2, 3, 1 };
            if (s && llm_eval(s, tokens, 3) && !llm_rewind(s, 1)) llm_eval(s, tokens, 2);
            opened += m != NULL;
            llm_session_free(s);
            llm_close(m);
            file.data[at] = was;
        }
        free(file.data);
    }
    check(opened > 0 && opened < all, "%d of %d changed files were opened", opened, all);
}

/* The tiny model with some bytes of its header replaced. */
static void refuse_patched(size_t at, const void *bytes, size_t n, const char *part,
                           const char *what)
{
    Bytes file = tiny_model(&small_shape);
    memcpy(file.data + at, bytes, n);
    refuse(file.data, file.size, part, what);
    free(file.data);
}

static void test_headers(void)
{
    static const uint64_t huge[] = { UINT64_MAX, (uint64_t)1 << 60, (uint64_t)1 << 31 };
    static const struct {
        const char *what, *part, *text;
    } strangers_here[] = {
        { "a git-lfs pointer", "git-lfs",
          "version https://git-lfs.github.com/spec/v1\noid sha256:12" },
        { "a web page", "web page", "<!DOCTYPE html><html><head>" },
        { "a checkpoint", "llama2.c checkpoint", "24ka\1 and so on, and so on, and so on" },
        { "a text", "not a GGUF file", "Once upon a time there was a model." },
        { "only the magic", "too few", "GGUF" },
        { "nothing", "empty", "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(strangers_here); i++) {
        const char *text = strangers_here[i].text;
        refuse(text, strlen(text), strangers_here[i].part, strangers_here[i].what);
    }
    refuse("\x40\0\0\0\0\0\0\0{\"__metadata__\":{}}", 25, "safetensors", "safetensors");
    refuse_patched(0, "FUGG", 4, "not a GGUF file", "wrong magic");
    refuse_patched(4, "\0\0\0\3", 4, "big-endian", "a big-endian file");
    for (uint32_t version = 0; version < 6; version++) {
        if (version != 2 && version != 3)
            refuse_patched(4, &version, 4, "expected 2 or 3", "a wrong version");
    }
    for (size_t i = 0; i < ARRAY_LEN(huge); i++) {
        refuse_patched(8, &huge[i], 8, "tensors, more than fit", "too many tensors");
        refuse_patched(16, &huge[i], 8, "keys, more than fit", "too many keys");
        refuse_patched(24, &huge[i], 8, "ends in the middle", "a long key");
    }
    static const uint64_t words[8];
    check(!llm_open_memory((const char *)words + 1, 50) && strstr(llm_error(), "aligned"), "%s",
          llm_error());
    check(!llm_open_memory(NULL, 0) && !llm_open(NULL), "nothing to open");
}

/* The tiny model's keys and tensors with one thing changed by hand. */
typedef struct {
    const char *what, *part;
    void (*spoil)(Builder *b);
} Spoiler;

static void twice_key(Builder *b)
{
    add_int(b, "llama.block_count", 2);
}
static void bad_type(Builder *b)
{
    key_header(b, "odd", 13);
}
static void bad_element(Builder *b)
{
    add_array(b, "odd", 99, 4);
}
static void nested(Builder *b)
{
    add_array(b, "odd", ARRAY, 4);
}
static void long_array(Builder *b)
{
    add_array(b, "odd", U64, (uint64_t)1 << 61);
}
static void long_texts(Builder *b)
{
    add_array(b, "odd", STRING, (uint64_t)1 << 60);
}
static void long_text(Builder *b)
{
    key_header(b, "odd", STRING);
    put_int(&b->keys, UINT64_MAX, 8);
}
static void no_name(Builder *b)
{
    add_int(b, "", 1);
}
static void no_alignment(Builder *b)
{
    add_int(b, "general.alignment", 0);
}
static void odd_alignment(Builder *b)
{
    add_int(b, "general.alignment", 13);
}
static void huge_alignment(Builder *b)
{
    add_int(b, "general.alignment", 0x80000000);
}
static void text_alignment(Builder *b)
{
    add_string(b, "general.alignment", "32");
}
static void parts(Builder *b)
{
    add_int(b, "split.count", 3);
    add_int(b, "split.no", 1);
}
static void rope_odd(Builder *b)
{
    add_string(b, "llama.rope.scaling.type", "longer");
}
static void rope_base(Builder *b)
{
    add_float(b, "llama.rope.freq_base", NAN);
}
static void rope_zero(Builder *b)
{
    add_float(b, "llama.rope.freq_base", 0);
}
static void no_scale(Builder *b)
{
    add_float(b, "llama.attention.scale", 0);
}
static void one_rope(Builder *b)
{
    add_tensor(b, "rope_factors_long.weight", 0, 0, 4, 0.3f, 3);
}
static void sampling(Builder *b)
{
    add_float(b, "general.sampling.temp", INFINITY);
}
static void extra(Builder *b)
{
    add_tensor(b, "blk.0.ssm_a", 0, 0, 8, 1, 0);
}
static void old_kind(Builder *b)
{
    add_entry(b, "old.weight", 42, 2, 128, 64, 1);
    put(&b->tensors, NULL, 64 * 34);
    add_tensor(b, "behind.weight", 0, 0, 8, 1, 0);
}
static void extra_layer(Builder *b)
{
    add_tensor(b, "blk.2.attn_norm.weight", 0, 0, 48, 1, 0);
}
static void half_bias(Builder *b)
{
    add_tensor(b, "blk.1.attn_q.bias", 0, 0, 60, 1, 0);
}
static void twice_tensor(Builder *b)
{
    add_tensor(b, "output_norm.weight", 0, 0, 48, 1, 0);
}
static void no_dims(Builder *b)
{
    add_entry(b, "odd", 0, 0, 1, 1, 1);
}
static void many_dims(Builder *b)
{
    add_entry(b, "odd", 0, 5, 1, 1, 1);
}
static void zero_dim(Builder *b)
{
    add_entry(b, "odd", 0, 2, 0, 5, 1);
}
static void minus_dim(Builder *b)
{
    add_entry(b, "odd", 0, 2, -1, 5, 1);
}
static void wide(Builder *b)
{
    add_entry(b, "odd", 0, 2, (int64_t)1 << 42, (int64_t)1 << 42, 1);
}
static void wrap(Builder *b)
{
    add_entry(b, "odd", 8, 2, ((int64_t)1 << 42) + 32, 4096, 1);
}
static void gone_type(Builder *b)
{
    add_entry(b, "odd", 4, 1, 32, 1, 1);
}
static void far_type(Builder *b)
{
    add_entry(b, "odd", 0x7fffffff, 1, 32, 1, 1);
}
static void minus_type(Builder *b)
{
    add_entry(b, "odd", -1, 1, 32, 1, 1);
}
static void part_block(Builder *b)
{
    add_entry(b, "odd", 8, 2, 33, 2, 1);
}
static void beyond(Builder *b)
{
    add_entry(b, "odd", 0, 1, 1 << 20, 1, 1);
}

static void odd_offset(Builder *b)
{
    size_t size = b->tensors.size;
    b->tensors.size += 1;
    add_entry(b, "odd", 0, 1, 1, 1, 1);
    b->tensors.size = size;
}

static void far_offset(Builder *b)
{
    size_t size = b->tensors.size;
    b->tensors.size = SIZE_MAX - 31;
    add_entry(b, "odd", 0, 1, 1, 1, 1);
    b->tensors.size = size;
}

static void test_spoilt(void)
{
    static const Spoiler spoilers[] = {
        { "a key twice", "llama.block_count occurs twice", twice_key },
        { "an unknown value type", "unknown value type 13", bad_type },
        { "an unknown element type", "unknown value type 99", bad_element },
        { "an array of arrays", "array of arrays", nested },
        { "an array that wraps", "more than fit", long_array },
        { "an array of too many texts", "more than fit", long_texts },
        { "a text longer than the file", "key odd", long_text },
        { "a key without a name", "no name", no_name },
        { "alignment 0", "general.alignment is 0", no_alignment },
        { "alignment 13", "general.alignment is 13", odd_alignment },
        { "alignment 2^31", "not a multiple of 2147483648", huge_alignment },
        { "alignment as text", "general.alignment is string", text_alignment },
        { "one of several files", "part 2 of 3 of a model: open the first", parts },
        { "an unknown rope scaling", "longer", rope_odd },
        { "a rope base that is no number", "llama.rope.freq_base is nan", rope_base },
        { "a rope base of 0", "llama.rope.freq_base is 0", rope_zero },
        { "scores that are all 0", "llama.attention.scale is 0", no_scale },
        { "one of two sets of rotations", "rope_factors_short.weight is missing", one_rope },
        { "an infinite temperature", "general.sampling.temp is inf", sampling },
        { "an unknown tensor", "blk.0.ssm_a is not known", extra },
        { "the older Q2_0", "old.weight is of the older Q2_0", old_kind },
        { "a layer too many", "blk.2.attn_norm.weight is not known", extra_layer },
        { "a bias in one layer only",
          "blk.1.attn_q.bias is in the file, but blk.0.attn_q.bias is not", half_bias },
        { "a tensor twice", "output_norm.weight occurs twice", twice_tensor },
        { "no dimensions", "0 dimensions", no_dims },
        { "five dimensions", "5 dimensions", many_dims },
        { "a dimension of 0", "impossible shape", zero_dim },
        { "a negative dimension", "impossible shape", minus_dim },
        { "a product that overflows", "impossible shape", wide },
        { "a size that wraps", "cut off", wrap },
        { "a removed format", "format number 4", gone_type },
        { "an unknown format", "format number 2147483647", far_type },
        { "format -1", "format number 4294967295", minus_type },
        { "a part of a block", "blocks of 32", part_block },
        { "data behind the end", "cut off", beyond },
        { "an odd offset", "not a multiple of 32", odd_offset },
        { "an offset that wraps", "cut off", far_offset },
    };
    for (size_t i = 0; i < ARRAY_LEN(spoilers); i++) {
        Builder b = { .random = 1 };
        add_hyperparameters(&b, &small_shape);
        add_vocabulary(&b, small_shape.vocab, 0);
        add_tensor(&b, "token_embd.weight", 0, small_shape.vocab, small_shape.dim, 1, 0);
        add_tensor(&b, "output_norm.weight", 0, 0, small_shape.dim, 0.3f, 1);
        for (int l = 0; l < small_shape.n_layers; l++) add_layer(&b, &small_shape, l);
        spoilers[i].spoil(&b);
        Bytes file = finish(&b);
        refuse(file.data, file.size, spoilers[i].part, spoilers[i].what);
        free(file.data);
    }
}

/* Replaces the first occurrence of a text by one of the same length. */
static void refuse_renamed(const char *from, const char *to, const char *part)
{
    Bytes file = tiny_model(&small_shape);
    unsigned char *at = memmem(file.data, file.size, from, strlen(from));
    check(at != NULL, "%s is in the file", from);
    if (at) memcpy(at, to, strlen(to));
    refuse(file.data, file.size, part, to);
    free(file.data);
}

/* A key of the tiny model with another 32-bit value; the value lies behind name and type. */
static void refuse_value(const char *key, uint32_t value, const char *part)
{
    char what[128];
    Bytes file = tiny_model(&small_shape);
    unsigned char *at = memmem(file.data, file.size, key, strlen(key));
    check(at != NULL, "%s is in the file", key);
    if (at) memcpy(at + strlen(key) + 4, &value, 4);
    snprintf(what, sizeof what, "%s = %u", key, (unsigned)value);
    refuse(file.data, file.size, part, what);
    free(file.data);
}

static void test_values(void)
{
    refuse_renamed("llama.block_count", "llama.block_xount", "key llama.block_count is missing");
    refuse_renamed("llama.embedding_length", "llama.embedding_lengtx",
                   "key llama.embedding_length is missing");
    refuse_renamed("llama.attention.layer_norm_rms", "llama.attention.layer_norm_rmx",
                   "layer_norm_rms_epsilon is missing");
    refuse_renamed("general.architecture\x08\0\0\0", "general.architecturx\x08\0\0\0",
                   "general.architecture is missing");
    refuse_renamed("llama", "lhama", "the architecture lhama is not known");
    refuse_renamed("blk.1.ffn_up.weight", "blk.1.ffn_uq.weight",
                   "tensor blk.1.ffn_up.weight is missing");
    refuse_renamed("token_embd.weight", "token_embx.weight", "tensor token_embd.weight is missing");
    refuse_renamed("tokenizer.ggml.tokens", "tokenizer.ggml.tokenx",
                   "tokenizer.ggml.tokens is missing");
    refuse_value("llama.block_count", 0, "llama.block_count is 0");
    refuse_value("llama.block_count", 3, "tensor blk.2.attn_norm.weight is missing");
    refuse_value("llama.block_count", UINT32_MAX, "llama.block_count is 4294967295");
    refuse_value("llama.context_length", 0, "llama.context_length is 0");
    refuse_value("llama.context_length", UINT32_MAX, "llama.context_length is 4294967295");
    refuse_value("llama.embedding_length", 47,
                 "tensor token_embd.weight is 300x48, expected 300x47");
    refuse_value("llama.feed_forward_length", 41,
                 "tensor blk.0.ffn_gate.weight is 40x48, expected 41x48");
    refuse_value("llama.attention.head_count", 0, "llama.attention.head_count is 0");
    refuse_value("llama.attention.head_count", 5, "5 attention heads can't share 2");
    refuse_value("llama.attention.head_count_kv", 0, "head_count_kv is 0");
    refuse_value("llama.attention.head_count_kv", 7, "head_count_kv is 7");
    refuse_value("llama.attention.key_length", 100000, "key_length is 100000");
    refuse_value("llama.attention.value_length", 9, "blk.0.attn_v.weight is 20x48, expected 18x48");
    refuse_value("llama.rope.dimension_count", 7, "7 dimensions to rotate");
    refuse_value("llama.rope.dimension_count", 12, "rope.dimension_count is 12");
    refuse_value("llama.attention.layer_norm_rms_epsilon", 0x7fc00000, "rms_epsilon is nan");
    refuse_value("tokenizer.ggml.bos_token_id", 300,
                 "tokenizer.ggml.bos_token_id is 300, expected 0 to 299");
    refuse_value("tokenizer.ggml.eos_token_id", UINT32_MAX, "tokenizer.ggml.eos_token_id");
    Shape s = small_shape;
    s.vocab = 301;
    Bytes file = tiny_model(&s);
    unsigned char *at = memmem(file.data, file.size, "token_embd.weight", 17);
    memcpy(at + 17 + 4 + 8, &(uint64_t){ 300 }, 8);
    refuse(file.data, file.size, "tensor token_embd.weight is 300x48, expected 301x48",
           "vocabulary and embedding");
    free(file.data);
}

/* What only some families have. */
static void test_family_tensors(void)
{
    static const char *const experts = "attention.head_count=2 expert_count=5 expert_used_count=2";
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    Bytes file;
    llm_model *m = grown_model("gpt2", "attention.head_count=2",
                               "position_embd.weight position_embd.bias", &file);
    check(!m && strstr(llm_error(), "position_embd.bias is not known"), "%s", llm_error());
    free(file.data);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        m = grown_model("qwen3moe", experts, "blk.0.exp_probs_b.bias", &file);
        const Tensor *t = m ? find_tensor(&m->file, "blk.2.exp_probs_b.bias") : NULL;
        check(t, "%s", llm_error());
        if (t) memcpy(file.data + (t->data - file.data) + 4, &bad[i], 4);
        llm_close(m);
        refuse(file.data, file.size, "blk.2.exp_probs_b.bias holds", "a expert_bias");
        free(file.data);
    }
    /* queries of a layer that shares an earlier one's keys and values go by these */
    static const char *const shared[] = {
        "attention.head_count=3,3,2 attention.head_count_kv=3,3,1 attention.key_length=6",
        "attention.head_count=1,1,500 attention.head_count_kv=1,1,500 attention.key_length=6",
        "attention.head_count=2,2,5 attention.head_count_kv=2,2,1 attention.key_length=6",
    };
    for (size_t i = 0; i < ARRAY_LEN(shared); i++) {
        char keys[160];
        snprintf(keys, sizeof keys, "%s attention.shared_kv_layers=1", shared[i]);
        m = grown_model("gemma4", keys, "", &file);
        check(!m && strstr(llm_error(), "can't share"), "%s: %s", shared[i], llm_error());
        llm_close(m);
        free(file.data);
    }
    Shape s = small_shape;
    s.experts = 7, s.chosen = 3, s.layout = 1;
    file = tiny_model(&s);
    unsigned char *at = memmem(file.data, file.size, "ffn_gate_up_exps.weight", 23);
    check(at, "gate and up are in one tensor");
    if (at) memcpy(at + 23 + 4 + 8, &(uint64_t){ 79 }, 8);
    refuse(file.data, file.size, "ffn_gate_up_exps.weight is 7x79x48, expected 7x78x48",
           "an odd number of rows");
    free(file.data);
}

/* Through the file system: what is not a file, and a name in every sentence. */
static void test_paths(void)
{
    static const char *const paths[] = { "/tmp", "/dev/null", "/nonexistent/model.gguf",
                                         "/tmp/run test \xc3\xa9 fifo" };
    mkfifo(paths[3], 0600);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        llm_model *m = llm_open(paths[i]);
        check(!m && !strncmp(llm_error(), paths[i], strlen(paths[i])), "%s: \"%s\"", paths[i],
              llm_error());
        llm_close(m);
    }
    unlink(paths[3]);
    Bytes file = tiny_model(&small_shape);
    FILE *out = fopen(paths[3], "wb");
    fwrite(file.data, 1, file.size, out);
    fwrite("behind the tensors", 1, 18, out);
    fclose(out);
    llm_model *m = llm_open(paths[3]);
    check(m != NULL, "more bytes behind the last tensor: %s", llm_error());
    llm_close(m);
    unlink(paths[3]);
    free(file.data);
}

static const char *part_path(int no)
{
    static char path[64];
    snprintf(path, sizeof path, TMP "/in-parts-%05d-of-00003.gguf", no);
    return path;
}

/* Writes part number no, from 1, of three that claim to have `tensors` in all. */
static void write_part(Builder *b, int no, int claimed, int tensors)
{
    add_int(b, "split.no", (uint64_t)claimed - 1);
    add_int(b, "split.count", 3);
    if (no == 1) add_int(b, "split.tensors.count", (uint64_t)tensors);
    Bytes file = finish(b);
    FILE *out = fopen(part_path(no), "wb");
    if (!out || fwrite(file.data, 1, file.size, out) != file.size || fclose(out)) abort();
    free(file.data);
}

/* The small shape, with the embedding for output matrix. */
static Shape tied_shape(void)
{
    Shape shape = small_shape;
    shape.output_type = -1;
    return shape;
}

/* The small model in three files, of which the first has the vocabulary and the others a layer
 * each; `claimed` is what the second one says that it is. */
static void write_parts(int claimed, int tensors)
{
    Shape shape = tied_shape();
    Builder b = { .random = spread_seed(shape.seed) };
    add_hyperparameters(&b, &shape);
    add_vocabulary(&b, shape.vocab, shape.chat);
    add_tensor(&b, "token_embd.weight", shape.type, shape.vocab, shape.dim, 1, 0);
    add_tensor(&b, "output_norm.weight", 0, 0, shape.dim, 0.3f, 1);
    uint64_t random = b.random;
    int all = b.n_tensors;
    for (int l = 0; l < 2; l++) {
        Builder part = { .random = random };
        add_layer(&part, &shape, l);
        random = part.random, all += part.n_tensors;
        write_part(&part, l + 2, l == 0 ? claimed : l + 2, 0);
    }
    write_part(&b, 1, 1, all + tensors);
}

static void refuse_parts(int no, const char *part, const char *what)
{
    llm_model *m = llm_open(part_path(no));
    check(!m && strstr(llm_error(), part), "%s: \"%s\", expected \"%s\"", what,
          m ? "it opens" : llm_error(), part);
    llm_close(m);
}

/* A model in several files is the same as in one; what is missing or foreign is named. */
static void test_parts(void)
{
    Shape shape = tied_shape();
    Bytes file = tiny_model(&shape);
    int tokens[20];
    check(shape.n_layers == 2, "%d layers", shape.n_layers);
    write_parts(2, 0);
    llm_model *whole = llm_open_memory(file.data, file.size), *m = llm_open(part_path(1));
    check(whole && m, "%s", llm_error());
    random_tokens(tokens, 20, small_shape.vocab);
    llm_session *a = llm_session_new(whole, NULL), *b = llm_session_new(m, NULL);
    check(llm_eval(a, tokens, 20) && llm_eval(b, tokens, 20) &&
              !memcmp(llm_logits(a), llm_logits(b), sizeof(float) * (size_t)small_shape.vocab),
          "in parts and in one: %s", llm_error());
    check(llm_info(m)->n_params == llm_info(whole)->n_params, "numbers in all parts");
    llm_session_free(a), llm_session_free(b);
    llm_close(m), llm_close(whole);
    free(file.data);
    refuse_parts(2, "part 2 of 3 of a model: open the first", "another part than the first");
    write_parts(3, 0);
    refuse_parts(1, "in-parts-00002-of-00003.gguf: this is not part 2 of 3", "a foreign part");
    write_parts(2, 1);
    refuse_parts(1, "tensors, expected", "a tensor too few");
    truncate(part_path(3), 1000);
    refuse_parts(1, "in-parts-00003-of-00003.gguf: ", "a part that is cut off");
    unlink(part_path(3));
    refuse_parts(1, "in-parts-00003-of-00003.gguf: No such file", "a missing part");
    unlink(part_path(2)), unlink(part_path(1));
}

static void test_files(void)
{
    test_headers();
    test_spoilt();
    test_values();
    test_family_tensors();
    test_truncation();
    test_flipped_bytes();
    test_flipped_kinds();
    test_paths();
    test_parts();
}
