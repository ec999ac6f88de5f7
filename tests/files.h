/* Writes GGUF files in memory: whole models of random weights, and damaged ones. */

typedef struct {
    unsigned char *data;
    size_t size, room;
} Bytes;

static void put(Bytes *b, const void *data, size_t n)
{
    if (b->size + n > b->room) {
        b->room = (b->size + n) * 2;
        b->data = realloc(b->data, b->room);
        if (!b->data) abort();
    }
    if (data) {
        memcpy(b->data + b->size, data, n);
    } else {
        memset(b->data + b->size, 0, n);
    }
    b->size += n;
}

/* Up to where a tensor may begin. */
static void put_padding(Bytes *b)
{
    put(b, NULL, (32 - b->size % 32) % 32);
}

static void put_int(Bytes *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) put(b, &(unsigned char){ (unsigned char)(v >> 8 * i) }, 1);
}

static void put_text(Bytes *b, const char *text)
{
    put_int(b, strlen(text), 8);
    put(b, text, strlen(text));
}

/* A file in the making: its keys, its directory and its tensors, joined by finish. */
typedef struct {
    Bytes keys, directory, tensors;
    int n_keys, n_tensors;
    uint64_t random;
} Builder;

static void key_header(Builder *b, const char *name, int type)
{
    put_text(&b->keys, name);
    put_int(&b->keys, (uint64_t)type, 4);
    b->n_keys++;
}

static void add_int(Builder *b, const char *name, uint64_t v)
{
    key_header(b, name, U32);
    put_int(&b->keys, v, 4);
}

static void add_float(Builder *b, const char *name, float v)
{
    key_header(b, name, FLOAT32);
    put(&b->keys, &v, 4);
}

static void add_bool(Builder *b, const char *name, int v)
{
    key_header(b, name, BOOL);
    put_int(&b->keys, (uint64_t)v, 1);
}

static void add_string(Builder *b, const char *name, const char *text)
{
    key_header(b, name, STRING);
    put_text(&b->keys, text);
}

static void add_array(Builder *b, const char *name, int of, uint64_t count)
{
    key_header(b, name, ARRAY);
    put_int(&b->keys, (uint64_t)of, 4);
    put_int(&b->keys, count, 8);
}

/* Roughly normal, as weights are. */
static float random_weight(uint64_t *random)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += random_unit(random) - 0.5;
    return (float)(sum * 1.7);
}

/* Gives a block scales, and minima, with which its numbers are about `scale` large. */
static void set_scales(uint64_t *random, int type, unsigned char *block, float scale)
{
    static const struct {
        int d, m;    /* where the f16 scales are, -1: none */
        float level; /* size of the numbers that d = 1 gives */
    } places[N_FORMATS] = {
        [2] = { 0, -1, 5 },       [3] = { 0, 2, 9 },    [6] = { 0, -1, 10 },
        [7] = { 0, 2, 18 },       [8] = { 0, -1, 74 },  [10] = { 80, 82, 14 },
        [11] = { 108, -1, 42 },   [12] = { 0, 2, 300 }, [13] = { 0, 2, 600 },
        [14] = { 208, -1, 1400 }, [16] = { 0, -1, 50 }, [17] = { 0, -1, 50 },
        [18] = { 0, -1, 130 },    [20] = { 0, -1, 69 }, [21] = { 0, -1, 130 },
        [22] = { 0, -1, 50 },     [23] = { 0, -1, 1270 }, [34] = { 52, -1, 1 },
        [35] = { 64, -1, 1.2f },  [39] = { 0, -1, 5 },  [41] = { 0, -1, 1 },
        [42] = { 0, -1, 1.2f },
    };
    float d = scale / places[type].level * (float)(0.5 + random_unit(random));
    uint16_t half = float_f16(d);
    if (type == 39) { /* an exponent */
        *block = (unsigned char)((float_bits(d) >> 23) + 1);
        return;
    }
    memcpy(block + places[type].d, &half, 2);
    half = float_f16(-scale * (float)random_unit(random) / (formats[type].block == 256 ? 64 : 1));
    if (formats[type].block == 256) half ^= 0x8000; /* K formats subtract their minimum */
    if (places[type].m >= 0) memcpy(block + places[type].m, &half, 2);
}

/* Random blocks of a format whose numbers are about `scale` large: random bytes, sane scales. */
static void random_blocks(uint64_t *random, int type, unsigned char *out, int64_t n, float scale)
{
    const Format *f = &formats[type];
    for (int64_t i = 0; i < n / f->block; i++, out += f->bytes) {
        float v = random_weight(random) * scale;
        uint32_t bits = float_bits(v);
        uint16_t half = float_f16(v);
        if (type == 0) memcpy(out, &v, 4);
        if (type == 1) memcpy(out, &half, 2);
        if (type == 30) memcpy(out, (char *)&bits + 2, 2);
        if (f->block == 1) continue;
        for (int j = 0; j < f->bytes; j++) out[j] = (unsigned char)(random_unit(random) * 256);
        set_scales(random, type, out, scale);
    }
}

static void add_entry(Builder *b, const char *name, int type, int n_dims, int64_t cols,
                      int64_t rows, int64_t depth)
{
    put_text(&b->directory, name);
    put_int(&b->directory, (uint64_t)n_dims, 4);
    put_int(&b->directory, (uint64_t)cols, 8);
    if (n_dims > 1) put_int(&b->directory, (uint64_t)rows, 8);
    if (n_dims > 2) put_int(&b->directory, (uint64_t)depth, 8);
    put_int(&b->directory, (uint64_t)type, 4);
    put_int(&b->directory, b->tensors.size, 8);
    b->n_tensors++;
}

/* A tensor of `count` matrices of random numbers of about the given size around `around` (F32
 * only). */
static void add_stack(Builder *b, const char *name, int type, int count, int rows, int cols,
                      float scale, float around)
{
    add_entry(b, name, type, count > 1 ? 3 : rows ? 2 : 1, cols, rows, count);
    int64_t n = (int64_t)count * (rows ? rows : 1) * cols;
    size_t at = b->tensors.size;
    put(&b->tensors, NULL, (size_t)(n / formats[type].block) * (size_t)formats[type].bytes);
    random_blocks(&b->random, type, b->tensors.data + at, n, scale);
    for (int64_t i = 0; i < n && around != 0; i++)
        ((float *)(void *)(b->tensors.data + at))[i] += around;
    put_padding(&b->tensors);
}

static void add_tensor(Builder *b, const char *name, int type, int rows, int cols, float scale,
                       float around)
{
    add_stack(b, name, type, 1, rows, cols, scale, around);
}

/* The file, in memory that the caller frees. */
static Bytes finish(Builder *b)
{
    Bytes file = { 0 };
    put(&file, "GGUF", 4);
    put_int(&file, 3, 4);
    put_int(&file, (uint64_t)b->n_tensors, 8);
    put_int(&file, (uint64_t)b->n_keys, 8);
    put(&file, b->keys.data, b->keys.size);
    put(&file, b->directory.data, b->directory.size);
    if (b->n_tensors) put_padding(&file);
    put(&file, b->tensors.data, b->tensors.size);
    free(b->keys.data);
    free(b->directory.data);
    free(b->tensors.data);
    return file;
}

/* The shape of a tiny model. */
typedef struct {
    const char *arch;
    int dim, hidden_dim, n_layers, n_heads, n_kv_heads, head_dim, n_rot, context, vocab;
    int type, output_type; /* formats of the matrices; output_type -1: tied to the embedding */
    int biases, factors;   /* with q, k, v biases; with rope_freqs */
    int experts, chosen;   /* instead of a dense feed-forward part */
    int layout;            /* of experts: stacked, gate and up in one, each alone */
    int chat; /* with a ChatML template and its tokens, 290 and 291; 2: another for tools */
    const char *scaling;   /* rope scaling, NULL: none */
    uint64_t seed;
} Shape;

/* A vocabulary of single characters: <unk> <s> </s>, 256 byte tokens, and then letters. */
static void add_vocabulary(Builder *b, int n, int chat)
{
    static const char letters[] = " etaoinshrdlucmfwypvbgkqjxz";
    char text[32];
    add_string(b, "tokenizer.ggml.model", "llama");
    add_array(b, "tokenizer.ggml.tokens", STRING, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        static const char *const special[] = { "<unk>", "<s>", "</s>" };
        int letter = (i - 259) % 27;
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3) & 255);
        if (i >= 259 + 27) snprintf(text, sizeof text, "%c%d", letters[letter], i);
        if (i >= 259 && i < 259 + 27) snprintf(text, sizeof text, "%c", letters[letter]);
        if (i == 259) snprintf(text, sizeof text, "\xe2\x96\x81");
        if (chat && i == 290) strcpy(text, "<|im_start|>");
        if (chat && i == 291) strcpy(text, "<|im_end|>");
        put_text(&b->keys, i < 3 ? special[i] : text);
    }
    add_array(b, "tokenizer.ggml.scores", FLOAT32, (uint64_t)n);
    for (int i = 0; i < n; i++) put(&b->keys, &(float){ -(float)i }, 4);
    add_array(b, "tokenizer.ggml.token_type", I32, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        int control = i < 3 || (chat && (i == 290 || i == 291));
        put_int(&b->keys, i == 0 ? 2 : control ? 3 : i < 259 ? 6 : 1, 4);
    }
    if (chat) {
        add_string(b, "tokenizer.chat_template",
                   "{{ bos_token }}{% for m in messages %}"
                   "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
                   "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    }
    if (chat == 2) {
        add_string(b, "tokenizer.chat_template.tool_use",
                   "{{ tools[0].name }}{% for m in messages %}{{ m.content }}{% endfor %}");
    }
    add_int(b, "tokenizer.ggml.bos_token_id", 1);
    add_int(b, "tokenizer.ggml.eos_token_id", 2);
    add_bool(b, "tokenizer.ggml.add_bos_token", 1);
    add_bool(b, "tokenizer.ggml.add_space_prefix", 0);
}

static void add_arch_int(Builder *b, const Shape *s, const char *name, int v)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", s->arch, name);
    add_int(b, full, (uint64_t)v);
}

static void add_hyperparameters(Builder *b, const Shape *s)
{
    char full[80];
    add_string(b, "general.architecture", s->arch);
    add_string(b, "general.name", "tiny");
    add_arch_int(b, s, "block_count", s->n_layers);
    add_arch_int(b, s, "context_length", s->context);
    add_arch_int(b, s, "embedding_length", s->dim);
    add_arch_int(b, s, "feed_forward_length", s->hidden_dim);
    add_arch_int(b, s, "attention.head_count", s->n_heads);
    add_arch_int(b, s, "attention.head_count_kv", s->n_kv_heads);
    add_arch_int(b, s, "attention.key_length", s->head_dim);
    add_arch_int(b, s, "attention.value_length", s->head_dim);
    add_arch_int(b, s, "rope.dimension_count", s->n_rot);
    if (s->experts) add_arch_int(b, s, "expert_count", s->experts);
    if (s->experts) add_arch_int(b, s, "expert_used_count", s->chosen);
    snprintf(full, sizeof full, "%s.attention.layer_norm_rms_epsilon", s->arch);
    add_float(b, full, 1e-5f);
    if (!s->scaling) return;
    snprintf(full, sizeof full, "%s.rope.scaling.type", s->arch);
    add_string(b, full, s->scaling);
    snprintf(full, sizeof full, "%s.rope.scaling.factor", s->arch);
    add_float(b, full, 4);
    add_arch_int(b, s, "rope.scaling.original_context_length", 32);
}

/* Matrix `which` of an expert: gate, up or down. It is the same in every layout. */
static void put_expert(Builder *b, const Shape *s, int l, int which, int expert)
{
    int rows = which == 2 ? s->dim : s->hidden_dim, cols = which == 2 ? s->hidden_dim : s->dim;
    size_t at = b->tensors.size, bytes = (size_t)rows * row_bytes(&formats[s->type], cols);
    uint64_t random = spread_seed(s->seed * 1000 + (uint64_t)(l * 100 + which * 30 + expert));
    put(&b->tensors, NULL, bytes);
    random_blocks(&random, s->type, b->tensors.data + at, (int64_t)rows * cols,
                  1.5f / sqrtf((float)cols));
}

static void add_experts(Builder *b, const Shape *s, int l)
{
    enum { STACKED, FUSED, ALONE };
    static const char *const names[] = { "gate", "up", "down" };
    char name[80];
    for (int which = 0; which < 3; which++) {
        int two = s->layout == FUSED && which == 0;
        int rows = (two + 1) * (which == 2 ? s->dim : s->hidden_dim);
        int cols = which == 2 ? s->hidden_dim : s->dim;
        if (s->layout == FUSED && which == 1) continue;
        snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", l, two ? "gate_up" : names[which]);
        if (s->layout != ALONE) add_entry(b, name, s->type, 3, cols, rows, s->experts);
        for (int e = 0; e < s->experts; e++) {
            snprintf(name, sizeof name, "blk.%d.ffn_%s.%d.weight", l, names[which], e);
            if (s->layout == ALONE) add_entry(b, name, s->type, 2, cols, rows, 1);
            put_expert(b, s, l, which, e);
            if (two) put_expert(b, s, l, 1, e);
            if (s->layout == ALONE) put_padding(&b->tensors);
        }
        put_padding(&b->tensors);
    }
    snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", l);
    b->random = spread_seed(s->seed + (uint64_t)l);
    add_tensor(b, name, 0, s->experts, s->dim, 3 / sqrtf((float)s->dim), 0);
}

static void add_layer(Builder *b, const Shape *s, int l)
{
    int q_dim = s->n_heads * s->head_dim, kv_dim = s->n_kv_heads * s->head_dim;
    struct {
        const char *name;
        int rows, cols;
    } parts[] = {
        { "attn_q.weight", q_dim, s->dim },
        { "attn_k.weight", kv_dim, s->dim },
        { "attn_v.weight", kv_dim, s->dim },
        { "attn_output.weight", s->dim, q_dim },
        { "ffn_gate.weight", s->hidden_dim, s->dim },
        { "ffn_up.weight", s->hidden_dim, s->dim },
        { "ffn_down.weight", s->dim, s->hidden_dim },
        { "attn_q.bias", 0, q_dim },
        { "attn_k.bias", 0, kv_dim },
        { "attn_v.bias", 0, kv_dim },
        { "attn_norm.weight", 0, s->dim },
        { "ffn_norm.weight", 0, s->dim },
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char name[80];
        int rows = parts[i].rows, cols = parts[i].cols,
            bias = strstr(parts[i].name, "bias") != NULL;
        if (bias && !s->biases) continue;
        if (s->experts && !strncmp(parts[i].name, "ffn_", 4) && rows) continue;
        snprintf(name, sizeof name, "blk.%d.%s", l, parts[i].name);
        add_tensor(b, name, rows ? s->type : 0, rows, cols, rows ? 1.5f / sqrtf((float)cols) : 0.3f,
                   rows || bias ? 0 : 1);
    }
    if (s->experts) add_experts(b, s, l);
}

static Bytes tiny_model(const Shape *s)
{
    Builder b = { .random = spread_seed(s->seed) };
    add_hyperparameters(&b, s);
    add_vocabulary(&b, s->vocab, s->chat);
    add_tensor(&b, "token_embd.weight", s->type, s->vocab, s->dim, 1, 0);
    add_tensor(&b, "output_norm.weight", 0, 0, s->dim, 0.3f, 1);
    if (s->output_type >= 0) {
        add_tensor(&b, "output.weight", s->output_type, s->vocab, s->dim,
                   1.5f / sqrtf((float)s->dim), 0);
    }
    if (s->output_type == 0) { /* so that texts seldom end at once */
        size_t row = (size_t)s->dim * 4, padding = (32 - (size_t)s->vocab * row % 32) % 32;
        memset(b.tensors.data + b.tensors.size - padding - (size_t)s->vocab * row, 0, 3 * row);
    }
    if (s->factors) add_tensor(&b, "rope_freqs.weight", 0, 0, s->n_rot / 2, 0.3f, 3);
    for (int l = 0; l < s->n_layers; l++) add_layer(&b, s, l);
    return finish(&b);
}

/* A tensor that a model asked for while it was loaded. */
typedef struct {
    char name[64];
    int count, rows, cols;
} Wanted;

/* Adds what a failure asks for to the n wanted tensors; returns their number, or 0 if it was
 * another one. */
static int want(Wanted *wanted, int n, const char *error)
{
    Wanted w = { "", 1, 1, 1 };
    char is[64] = "", expected[64];
    int i = 0,
        fields = sscanf(error, "tensor %63s is %63[^,], expected %63s", w.name, is, expected);
    if (fields == 3 && sscanf(expected, "%dx%dx%d", &w.count, &w.rows, &w.cols) < 3) {
        w.count = 1;
        fields += sscanf(expected, "%dx%d", &w.rows, &w.cols) - 2;
    }
    if (fields < 3 && strcmp(is, "missing") &&
        sscanf(error, "%*s is in the file, but %63s is not", w.name) != 1) {
        return 0;
    }
    while (i < n && strcmp(wanted[i].name, w.name)) i++;
    wanted[i] = w;
    return i < n ? n : n + 1;
}

/* A list of numbers, the first one and those in `more`, ",2,3". Returns the length of these. */
static int add_arch_list(Builder *b, const char *arch, const char *name, int first,
                         const char *more)
{
    char full[128];
    int values[16] = { first }, n = 1, length = 0, used;
    for (; sscanf(more + length, ",%d%n", &values[n], &used) == 1; length += used) n++;
    snprintf(full, sizeof full, "%s.%s", arch, name);
    add_array(b, full, U32, (uint64_t)n);
    for (int i = 0; i < n; i++) put_int(&b->keys, (uint64_t)values[i], 4);
    return length;
}

/* A model of any family: its keys are given as "attention.head_count=4,4,2 ...", and optional
 * tensors that it shall have; all others are made as loading asks for them. NULL if it doesn't
 * open. */
static llm_model *grown_model(const char *arch, const char *keys, const char *tensors, Bytes *file)
{
    static const char *const common = "block_count=3 context_length=60 embedding_length=24 "
                                      "feed_forward_length=20 ";
    Wanted wanted[256] = { { "token_embd.weight", 1, 50, 1 } };
    Shape shape = { .arch = arch };
    char text[512], name[80];
    int n = 1, used, value;
    for (; sscanf(tensors, " %63s%n", wanted[n].name, &used) == 1; tensors += used, n++) {
        wanted[n].count = wanted[n].rows = wanted[n].cols = 1;
    }
    snprintf(text, sizeof text, "%s%s", common, keys);
    for (;;) {
        Builder b = { .random = 5 };
        add_string(&b, "general.architecture", arch);
        const char *k = text;
        for (; sscanf(k, " %79[^=]=%d%n", name, &value, &used) == 2; k += used) {
            if (k[used] == ',')
                used += add_arch_list(&b, arch, name, value, k + used);
            else
                add_arch_int(&b, &shape, name, value);
        }
        for (int i = 0; i < 2; i++) {
            static const char *const kinds[] = { "", "rms_" };
            snprintf(name, sizeof name, "%s.attention.layer_norm_%sepsilon", arch, kinds[i]);
            add_float(&b, name, 1e-5f);
        }
        for (int i = 0; i < n; i++) {
            const Wanted *w = &wanted[i];
            int norm = strstr(w->name, "norm") != NULL, rope = strstr(w->name, "rope") != NULL;
            add_stack(&b, w->name, F32, w->count, w->rows, w->cols,
                      norm || rope ? 0.3f : 1.5f / sqrtf((float)w->cols), (float)(norm + 3 * rope));
        }
        *file = finish(&b);
        llm_model *m = llm_open_memory(file->data, file->size);
        if (m || n == ARRAY_LEN(wanted) || !(n = want(wanted, n, llm_error()))) return m;
        free(file->data);
    }
}

/* More queries than dimensions, more dimensions than hidden ones: a buffer used for two shapes
 * would overflow. */
static const Shape small_shape = { .arch = "llama",
                                   .dim = 48,
                                   .hidden_dim = 40,
                                   .n_layers = 2,
                                   .n_heads = 6,
                                   .n_kv_heads = 2,
                                   .head_dim = 10,
                                   .n_rot = 8,
                                   .context = 700,
                                   .vocab = 300,
                                   .type = 0,
                                   .output_type = 0,
                                   .seed = 1 };
