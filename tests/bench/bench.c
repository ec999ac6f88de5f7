/* Measures ./run on this machine, with model files that it writes itself: `make bench`.
 *
 *   bench [OPTIONS] [FORMAT...]     the table on stdout, results.tsv and chart.svg in --out
 *   bench --write FILE FORMAT       only writes the model file
 *
 *   --program PATH       the program to measure (./run)
 *   --out DIR            where the figures go (tests/bench)
 *   --model FILE         measures a model of yours too, whatever its formats are
 *   --layers N           a smaller model, for a look whether all works (22)
 *   --peer NAME COMMAND  another program in turn with ours, up to 3; see peers.sh
 *   THREADS, ROUNDS, CONTEXT  from the environment: threads (physical cores); how often the
 *                        programs take turns (1, with peers 3); the longest prompt (2048, or 8192)
 *
 * The models have random weights in the shape of TinyLlama 1.1B: speed depends on the shape and the
 * format, not on what the weights say. */

#define main run_main /* the program's own is not called, but its read_bandwidth is */
#include "../../run.c"
#undef main

#pragma GCC diagnostic ignored "-Wunused-function" /* whole models in memory are for the tests */
#define put_text put_gguf_text                     /* run.c has one of its own */
#include "../files.h"
#undef put_text

#include <sys/wait.h>
#include <time.h>

#ifndef TMP
#define TMP "tests/tmp"
#endif

enum { MAX_PEERS = 3, MAX_PARTS = 1024, MAX_ROUNDS = 9, MAX_ROWS = N_FORMATS + 4 };

/* What `run -b` prints; peers have the first two only. */
enum { READING, WRITING, READING_2048, READING_8192, STEPS_2, STEPS_4, STEPS_8, N_TESTS };
static const char *const tests[N_TESTS] = {
    "pp512", "tg64", "pp2048", "pp8192", "tg64x2", "tg64x4", "tg64x8",
};
static const char *const default_formats[] = {
    "F16",  "BF16",  "Q8_0",   "Q6_K",   "Q5_K", "Q4_K",
    "Q4_0", "MXFP4", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K",
};

typedef struct {
    double best, median; /* tokens a second, 0: not known */
} Speed;

/* Of one format, or of a model file. Program 0 is ours. */
typedef struct {
    const char *format, *path; /* NULL: it is written */
    double file_bytes, bytes_read;
    int context;
    Speed speed[MAX_PEERS + 1][N_TESTS];
    Speed busy[2][N_TESTS]; /* of one thread and of all, while another program runs */
} Result;

typedef struct {
    const char *program, *out;
    int layers, threads, rounds, context;
    int n_programs, new_peers; /* peers are measured now, else they may come from peers.tsv */
    char names[MAX_PEERS + 1][64];
    const char *commands[MAX_PEERS + 1];
    Result rows[MAX_ROWS];
    int n_rows;
    const char *kernels;
    char machine[256]; /* figures of two files may stand side by side where this is the same */
    char date[32], peers_date[32];
    double bandwidth;
} Bench;

static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputs("\n", stderr);
    va_end(args);
    exit(1);
}

/* ---- The model file ------------------------------------------------------------------------- */

typedef struct {
    int layer; /* -1: in none */
    const char *name;
    int type, cols, rows; /* rows 0: a vector */
} Part;

static int list_parts(Part *parts, const Shape *s)
{
    const int kv_dim = s->n_kv_heads * s->head_dim;
    const Part in_layer[] = {
        { 0, "attn_norm", F32, s->dim, 0 },
        { 0, "attn_q", s->type, s->dim, s->n_heads * s->head_dim },
        { 0, "attn_k", s->type, s->dim, kv_dim },
        { 0, "attn_v", s->type, s->dim, kv_dim },
        { 0, "attn_output", s->type, s->n_heads * s->head_dim, s->dim },
        { 0, "ffn_norm", F32, s->dim, 0 },
        { 0, "ffn_gate", s->type, s->dim, s->hidden_dim },
        { 0, "ffn_up", s->type, s->dim, s->hidden_dim },
        { 0, "ffn_down", s->type, s->hidden_dim, s->dim },
    };
    int n = 0;
    parts[n++] = (Part){ -1, "token_embd", s->type, s->dim, s->vocab };
    parts[n++] = (Part){ -1, "output_norm", F32, s->dim, 0 };
    parts[n++] = (Part){ -1, "output", s->type, s->dim, s->vocab };
    for (int l = 0; l < s->n_layers; l++) {
        for (size_t i = 0; i < ARRAY_LEN(in_layer); i++) {
            parts[n] = in_layer[i];
            parts[n++].layer = l;
        }
    }
    return n;
}

static size_t part_bytes(const Part *p)
{
    return row_bytes(&formats[p->type], p->cols) * (size_t)(p->rows ? p->rows : 1);
}

/* A few megabytes of blocks are drawn once and laid end to end: drawing them all would take longer
 * than measuring. What memory has to give is the same. */
static void write_parts(FILE *file, const Part *parts, int n_parts, const Shape *s)
{
    const Format *f = &formats[s->type];
    static const char zeros[32];
    uint64_t random = spread_seed(s->seed);
    int64_t blocks = (4 << 20) / f->bytes;
    size_t size = (size_t)blocks * (size_t)f->bytes, at = 0;
    unsigned char *pool = malloc(size);
    float *norm = malloc((size_t)s->dim * sizeof *norm);
    if (!pool || !norm) die("out of memory");
    random_blocks(&random, s->type, pool, blocks * f->block, 1.5f / sqrtf((float)s->dim));
    for (int i = 0; i < s->dim; i++) norm[i] = 1 + 0.3f * random_weight(&random);
    for (int i = 0; i < n_parts; i++) {
        size_t left = part_bytes(&parts[i]), padding = (32 - left % 32) % 32;
        if (!parts[i].rows) fwrite(norm, 1, left, file);
        while (parts[i].rows && left > 0) {
            size_t n = left < size - at ? left : size - at;
            fwrite(pool + at, 1, n, file);
            left -= n;
            at = (at + n) % size;
        }
        fwrite(zeros, 1, padding, file);
    }
    free(pool);
    free(norm);
}

static int format_named(const char *name)
{
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].name && !strcmp(formats[i].name, name)) return i;
    }
    die("there is no format %s", name);
    return -1;
}

static void write_model(const char *path, const char *format, int layers)
{
    static Part parts[MAX_PARTS];
    Shape s = { .arch = "llama",
                .dim = 2048,
                .hidden_dim = 5632,
                .n_layers = layers,
                .n_heads = 32,
                .n_kv_heads = 4,
                .head_dim = 64,
                .n_rot = 64,
                .context = 8192,
                .vocab = 32000,
                .type = format_named(format),
                .seed = 1 };
    Builder b = { 0 };
    int n = list_parts(parts, &s);
    add_hyperparameters(&b, &s);
    add_float(&b, "llama.rope.freq_base", 1e4f);
    add_vocabulary(&b, s.vocab, 0);
    for (int i = 0; i < n; i++) {
        size_t bytes = part_bytes(&parts[i]);
        char layer[24] = "", name[64];
        if (parts[i].layer >= 0) snprintf(layer, sizeof layer, "blk.%d.", parts[i].layer);
        snprintf(name, sizeof name, "%s%s.weight", layer, parts[i].name);
        add_entry(&b, name, parts[i].type, parts[i].rows ? 2 : 1, parts[i].cols, parts[i].rows, 1);
        b.tensors.size += bytes + (32 - bytes % 32) % 32; /* they follow below */
    }
    b.tensors.size = 0;
    Bytes head = finish(&b);
    FILE *file = fopen(path, "wb");
    if (!file) die("%s: %s", path, strerror(errno));
    errno = 0;
    fwrite(head.data, 1, head.size, file);
    write_parts(file, parts, n, &s);
    /* to the disk now, so that nothing is written while something is measured */
    int bad = ferror(file) || fflush(file) || fsync(fileno(file));
    if (fclose(file) || bad) {
        const char *why = strerror(errno ? errno : EIO);
        remove(path);
        die("%s: %s", path, why);
    }
    free(head.data);
}

/* ---- Measuring ------------------------------------------------------------------------------ */

/* Runs a command that prints lines as `run -b` does; 0 if the first two were there. */
static int run_program(const char *command, Speed got[N_TESTS])
{
    char line[512];
    Speed s;
    memset(got, 0, N_TESTS * sizeof *got);
    fflush(stdout);
    FILE *pipe = popen(command, "r");
    if (!pipe) die("%s: %s", command, strerror(errno));
    while (fgets(line, sizeof line, pipe)) {
        for (int i = 0; i < N_TESTS; i++) {
            size_t n = strlen(tests[i]);
            if (!strncmp(line, tests[i], n) && line[n] == ' ' &&
                sscanf(line + n, "%lf tok/s best, %lf", &s.best, &s.median) == 2) {
                got[i] = s;
            }
        }
    }
    return pclose(pipe) || !(got[READING].median > 0 && got[WRITING].median > 0);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare_doubles);
    return values[n / 2];
}

/* All programs on one file, in turn: what else the machine does then hits all of them. */
static void measure_file(Bench *b, Result *row, const char *path)
{
    double medians[MAX_PEERS + 1][N_TESTS][MAX_ROUNDS];
    char command[4096];
    int failed[MAX_PEERS + 1] = { 0 };
    for (int round = 0; round < b->rounds; round++) {
        double speed = read_bandwidth(b->threads);
        if (speed > b->bandwidth) b->bandwidth = speed;
        for (int p = 0; p < b->n_programs; p++) {
            Speed got[N_TESTS];
            if (failed[p]) continue;
            fprintf(stderr, "%s, round %d of %d: %s\n", row->format, round + 1, b->rounds,
                    b->names[p]);
            snprintf(command, sizeof command, p ? "%s '%s' %d" : "'%s' '%s' -b -j %d -c %d",
                     p ? b->commands[p] : b->program, path, b->threads,
                     b->context < row->context ? b->context : row->context);
            failed[p] = run_program(command, got);
            if (failed[p] && p == 0) {
                if (!row->path) remove(path);
                die("this printed no speeds: %s", command);
            }
            if (failed[p]) fprintf(stderr, "bench: left out: %s\n", command);
            for (int i = 0; i < N_TESTS; i++) {
                medians[p][i][round] = got[i].median;
                if (got[i].best > row->speed[p][i].best) row->speed[p][i].best = got[i].best;
            }
        }
    }
    for (int p = 0; p < b->n_programs; p++) {
        for (int i = 0; i < N_TESTS; i++) {
            row->speed[p][i].median = median(medians[p][i], failed[p] ? 1 : b->rounds);
            if (failed[p]) row->speed[p][i] = (Speed){ 0, 0 };
        }
    }
}

/* The same of ours while another program keeps a core busy. */
static void measure_busy(const Bench *b, Result *row, const char *path)
{
    char command[4096];
    fprintf(stderr, "%s: with a busy core\n", row->format);
    pid_t child = fork();
    if (child == 0) {
        for (volatile unsigned i = 0;; i++) continue;
    }
    for (int i = 0; i < 2 && child > 0; i++) {
        snprintf(command, sizeof command, "'%s' '%s' -b -j %d -c 512", b->program, path,
                 i ? b->threads : 1);
        if (run_program(command, row->busy[i])) fprintf(stderr, "bench: left out: %s\n", command);
    }
    if (child > 0) kill(child, SIGKILL), waitpid(child, NULL, 0);
}

/* What was just written lies in memory in small pages. Read anew, from the first byte to the last,
 * it lies there in large ones, as it does for those who use a model day after day. */
static void read_anew(const char *path)
{
    static char part[1 << 20];
    int fd = open(path, O_RDONLY);
    if (fd < 0) die("%s: %s", path, strerror(errno));
#ifdef POSIX_FADV_DONTNEED
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* it was synced when it was written */
#endif
    while (read(fd, part, sizeof part) > 0) continue;
    close(fd);
}

static void measure(Bench *b)
{
    for (int i = 0; i < b->n_rows; i++) {
        Result *row = &b->rows[i];
        const char *path = row->path ? row->path : TMP "/bench.gguf";
        if (!row->path) {
            fprintf(stderr, "%s: writing %s\n", row->format, path);
            write_model(path, row->format, b->layers);
        }
        llm_model *m = llm_open(path);
        if (!m) {
            if (!row->path) remove(path);
            die("%s: %s", path, llm_error());
        }
        row->file_bytes = (double)m->file.size;
        row->bytes_read = (double)llm_info(m)->bytes_read;
        row->context = llm_info(m)->context;
        b->kernels = llm_info(m)->kernels;
        llm_close(m);
        fprintf(stderr, "%s: reading it anew from the disk\n", row->format);
        read_anew(path);
        measure_file(b, row, path);
        if (b->threads > 1) measure_busy(b, row, path);
        if (!row->path) remove(path);
    }
}

/* The first line that one of the commands prints. */
static void find_machine(Bench *b)
{
    static const char *const commands[] = {
        "sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null",
        "sysctl -n machdep.cpu.brand_string 2>/dev/null",
        "lscpu 2>/dev/null | sed -n 's/^Model name: *//p'",
        "uname -m",
    };
    char name[128] = "";
    for (size_t i = 0; i < ARRAY_LEN(commands) && !*name; i++) {
        FILE *pipe = popen(commands[i], "r");
        char rest[256];
        if (!pipe) continue;
        if (!fgets(name, sizeof name, pipe)) *name = 0;
        while (fgets(rest, sizeof rest, pipe)) continue;
        pclose(pipe);
        name[strcspn(name, "\t\r\n")] = 0;
    }
    for (char *c = name; *c; c++) {
        if (strchr("<>&\"", *c)) *c = ' '; /* the chart is XML */
    }
    snprintf(b->machine, sizeof b->machine, "%s, %d thread%s", name, b->threads,
             b->threads == 1 ? "" : "s");
    if (b->layers != 22) {
        size_t n = strlen(b->machine);
        snprintf(b->machine + n, sizeof b->machine - n, ", %d layers", b->layers);
    }
}

/* ---- Files of figures ----------------------------------------------------------------------- */

static FILE *create(const Bench *b, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", b->out, name);
    FILE *file = fopen(path, "w");
    if (!file) die("%s: %s", path, strerror(errno));
    return file;
}

static void done(FILE *file, const char *name)
{
    int bad = ferror(file);
    if (fclose(file) || bad) die("%s: %s", name, strerror(errno));
}

static void write_results(const Bench *b)
{
    FILE *file = create(b, "results.tsv");
    fprintf(file, "# machine: %s\n# date: %s\n# kernels: %s\n", b->machine, b->date, b->kernels);
    fprintf(file, "# bandwidth: %.2f GB/s read\n", b->bandwidth * 1e-9);
    fprintf(file, "# model: random weights in the shape of TinyLlama 1.1B\n");
    fprintf(file, "# method: run -b, medians of %d round%s; share: of the bandwidth\n", b->rounds,
            b->rounds == 1 ? "" : "s");
    fprintf(file,
            "# busy: tg64 of one thread and of all while another program keeps a core busy\n");
    fprintf(file, "format\tfile_gb\tpp512_best\tpp512_median\ttg64_best\ttg64_median\tread_gb_s\t"
                  "share_percent\tpp2048\tpp8192\ttg64x2\ttg64x4\ttg64x8\tbusy_one\tbusy_all\n");
    for (int i = 0; i < b->n_rows; i++) {
        const Result *r = &b->rows[i];
        const Speed *s = r->speed[0];
        double rate = r->bytes_read * s[WRITING].median;
        fprintf(file, "%s\t%.3f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.1f", r->format,
                r->file_bytes * 1e-9, s[READING].best, s[READING].median, s[WRITING].best,
                s[WRITING].median, rate * 1e-9, 100 * rate / b->bandwidth);
        for (int t = READING_2048; t < N_TESTS; t++) fprintf(file, "\t%.2f", s[t].median);
        fprintf(file, "\t%.2f\t%.2f\n", r->busy[0][WRITING].median, r->busy[1][WRITING].median);
    }
    done(file, "results.tsv");
}

/* Ours are there too, as they were in turn with the peers. */
static void write_peers(const Bench *b)
{
    FILE *file = create(b, "peers.tsv");
    fprintf(file, "# machine: %s\n# date: %s\n# kernels: %s\n", b->machine, b->date, b->kernels);
    fprintf(file, "# method: same file, same threads, in turn, medians of %d round%s\n", b->rounds,
            b->rounds == 1 ? "" : "s");
    fprintf(file, "format\tprogram\tpp512_best\tpp512_median\ttg64_best\ttg64_median\n");
    for (int i = 0; i < b->n_rows; i++) {
        for (int p = 0; p < b->n_programs; p++) {
            const Speed *s = b->rows[i].speed[p];
            if (s[READING].median == 0) continue;
            fprintf(file, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\n", b->rows[i].format, b->names[p],
                    s[READING].best, s[READING].median, s[WRITING].best, s[WRITING].median);
        }
    }
    done(file, "peers.tsv");
}

static int program_named(Bench *b, const char *name)
{
    int p = 0;
    while (p < b->n_programs && strcmp(b->names[p], name)) p++;
    if (p == b->n_programs && p <= MAX_PEERS) {
        snprintf(b->names[b->n_programs++], sizeof b->names[p], "%s", name);
    }
    return p <= MAX_PEERS ? p : 0;
}

/* The peers' figures of an earlier time, if they are of this machine and as many threads. */
static void read_peers(Bench *b)
{
    char path[1024], line[512], machine[sizeof line] = "", format[16], name[64];
    Speed s[2];
    snprintf(path, sizeof path, "%s/peers.tsv", b->out);
    FILE *file = fopen(path, "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "# machine: ", 11)) strcpy(machine, line + 11);
        if (!strncmp(line, "# date: ", 8)) sscanf(line + 8, "%31s", b->peers_date);
        if (*line == '#' || strcmp(machine, b->machine)) continue;
        if (sscanf(line, "%15[^\t]\t%63[^\t]\t%lf\t%lf\t%lf\t%lf", format, name, &s[0].best,
                   &s[0].median, &s[1].best, &s[1].median) != 6) {
            continue;
        }
        int p = program_named(b, name);
        for (int i = 0; i < b->n_rows && p > 0; i++) {
            if (!strcmp(b->rows[i].format, format)) {
                memcpy(b->rows[i].speed[p], s, sizeof s); /* the first two */
            }
        }
    }
    fclose(file);
    if (strcmp(machine, b->machine)) {
        fprintf(stderr, "bench: peers.tsv is of another machine (%s), so left out\n", machine);
    }
}

/* ---- The table and the chart ---------------------------------------------------------------- */

/* Longer prompts beside one of 512; steps of several rows beside one of one, in time; all threads
 * beside one while another program keeps a core busy. */
static void print_more(const Bench *b)
{
    printf("\n%-7s %19s %27s %21s\n%-7s %9s %9s %9s %8s %8s %10s %10s\n", "", "prompt, of 512's",
           "steps of rows, of one's time", "busy core, of one's", "", "2048", "8192", "2", "4", "8",
           "prompt", "generating");
    for (int i = 0; i < b->n_rows; i++) {
        const Result *r = &b->rows[i];
        const Speed *s = r->speed[0];
        printf("%-7s", r->format);
        for (int t = READING_2048; t < N_TESTS; t++) {
            double factor = s[t].median / s[READING].median;
            if (t >= STEPS_2) factor = (2 << (t - STEPS_2)) * s[WRITING].median / s[t].median;
            int width = t < STEPS_4 ? 9 : 8;
            s[t].median > 0 ? printf(" %*.2f", width, factor) : printf(" %*s", width, "-");
        }
        for (int t = READING; t <= WRITING; t++) {
            printf(" %10.2f", r->busy[1][t].median / fmax(r->busy[0][t].median, 1e-9));
        }
        printf("\n");
    }
}

static void print_table(const Bench *b)
{
    printf("%s, kernels %s, %.1f GB/s read, %s\n\n", b->machine, b->kernels, b->bandwidth * 1e-9,
           b->date);
    printf("%-7s %8s %15s %16s", "", "", "prompt of 512", "generating 64");
    for (int p = 1; p < b->n_programs; p++) printf("%*s%21.21s", p > 1 ? 2 : 21, "", b->names[p]);
    printf("\n%-7s %8s %8s %6s %9s %6s %11s %6s", "format", "file GB", "tok/s", "best", "tok/s",
           "best", "GB/s read", "share");
    for (int p = 1; p < b->n_programs; p++) printf("  %10s %10s", "prompt", "generating");
    printf("\n");
    for (int i = 0; i < b->n_rows; i++) {
        const Result *r = &b->rows[i];
        const Speed *s = r->speed[0];
        double rate = r->bytes_read * s[WRITING].median;
        printf("%-7s %8.2f %8.1f %6.1f %9.2f %6.2f %11.1f %4.0f %%", r->format,
               r->file_bytes * 1e-9, s[READING].median, s[READING].best, s[WRITING].median,
               s[WRITING].best, rate * 1e-9, 100 * rate / b->bandwidth);
        for (int p = 1; p < b->n_programs; p++) {
            if (r->speed[p][0].median == 0) {
                printf("  %10s %10s", "-", "-");
            } else {
                printf("  %10.1f %10.2f", r->speed[p][READING].median, r->speed[p][WRITING].median);
            }
        }
        printf("\n");
    }
    print_more(b);
    if (b->n_programs > 1 && !b->new_peers) {
        printf("\nThe other programs' figures are of %s and not in turn with these.\n",
               b->peers_date);
    }
}

enum { PANEL = 400, LABEL = 56, BARS = 270, BAR = 13, TOP = 88 };

static const char *const colours[MAX_PEERS + 1] = { "#1f6fb4", "#e39a3b", "#8f8f8f", "#5f9f6a" };

static int group_height(const Bench *b)
{
    return b->n_programs * (BAR + 2) + 10;
}

/* The chart leaves out models that are not of the shape that it names. */
static void draw_panel(FILE *f, const Bench *b, int x, const char *title, int test)
{
    double most = 1e-9;
    int drawn = 0;
    for (int i = 0; i < b->n_rows; i++) {
        for (int p = 0; p < b->n_programs; p++) {
            if (!b->rows[i].path) most = fmax(most, b->rows[i].speed[p][test].median);
        }
    }
    fprintf(f, "<text x='%d' y='%d' font-weight='bold'>%s</text>\n", x + LABEL, TOP - 12, title);
    for (int i = 0; i < b->n_rows; i++) {
        int y = TOP + drawn * group_height(b);
        if (b->rows[i].path) continue;
        drawn++;
        fprintf(f, "<text x='%d' y='%.1f' text-anchor='end'>%s</text>\n", x + LABEL - 8,
                y + b->n_programs * (BAR + 2) / 2.0 + 4, b->rows[i].format);
        for (int p = 0; p < b->n_programs; p++, y += BAR + 2) {
            double v = b->rows[i].speed[p][test].median, width = v / most * BARS;
            if (v == 0) continue;
            fprintf(f, "<rect x='%d' y='%d' width='%.1f' height='%d' fill='%s'/>", x + LABEL, y,
                    width, BAR, colours[p]);
            fprintf(f, "<text x='%.1f' y='%d' font-size='11'>%.*f</text>\n", x + LABEL + width + 5,
                    y + BAR - 3, v < 100, v);
        }
    }
}

static void draw_chart(const Bench *b)
{
    FILE *f = create(b, "chart.svg");
    int width = 2 * PANEL + 30, height = TOP + 30, x = 20;
    for (int i = 0; i < b->n_rows; i++) height += b->rows[i].path ? 0 : group_height(b);
    /* a background of its own, so that it reads on dark pages too */
    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
            "font-family='sans-serif' font-size='13' fill='#222'>\n"
            "<rect width='%d' height='%d' rx='6' fill='#fafafa'/>\n",
            width, height, width, height, width, height);
    fprintf(f, "<text x='20' y='26' font-size='15' font-weight='bold'>Tokens a second, random "
               "weights in the shape of TinyLlama 1.1B</text>\n");
    for (int p = 0; p < b->n_programs && b->n_programs > 1; p++) {
        fprintf(f, "<rect x='%d' y='37' width='12' height='12' fill='%s'/>", x, colours[p]);
        fprintf(f, "<text x='%d' y='48'>%s</text>\n", x + 18, b->names[p]);
        x += 40 + 8 * (int)strlen(b->names[p]);
    }
    draw_panel(f, b, 10, "Generating 64 tokens", WRITING);
    draw_panel(f, b, 20 + PANEL, "Reading a prompt of 512 tokens", READING);
    fprintf(f, "<text x='20' y='%d' font-size='11' fill='#555'>%s, kernels %s, medians, %s",
            height - 12, b->machine, b->kernels, b->date);
    if (b->n_programs > 1 && !b->new_peers) {
        fprintf(f, " (the others, not in turn, %s)", b->peers_date);
    }
    fprintf(f, "</text>\n</svg>\n");
    done(f, "chart.svg");
}

/* ---- The command line ----------------------------------------------------------------------- */

static int number(const char *what, const char *text, int most)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || end == text || v < 1 || v > most) {
        die("%s is %s, expected a number from 1 to %d", what, text, most);
    }
    return (int)v;
}

static int from_environment(const char *name, int otherwise, int most)
{
    const char *text = getenv(name);
    return text && *text ? number(name, text, most) : otherwise;
}

static void add_row(Bench *b, const char *format)
{
    const char *name = formats[format_named(format)].name;
    for (int i = 0; i < b->n_rows; i++) {
        if (b->rows[i].format == name) die("the format %s is named twice", name);
    }
    b->rows[b->n_rows++].format = name;
}

static void add_model(Bench *b, const char *path)
{
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (b->n_rows == MAX_ROWS || strchr(path, '\'')) die("%s: too many models, or a quote", path);
    b->rows[b->n_rows++] = (Result){ .format = name, .path = path };
}

static void add_peer(Bench *b, const char *name, const char *command)
{
    if (b->n_programs > MAX_PEERS) die("there are more than %d peers", MAX_PEERS);
    if (!*name || strlen(name) > 40 || name[strcspn(name, "\t\r\n<>&\"")]) {
        die("%s is no name for a peer: at most 40 plain characters", name);
    }
    for (int p = 0; p < b->n_programs; p++) {
        if (!strcmp(b->names[p], name)) die("the name %s is taken", name);
    }
    b->commands[program_named(b, name)] = command;
    b->new_peers = 1;
}

static void parse(Bench *b, int argc, char **argv)
{
    const char *write_to = NULL;
    for (int i = 1; i < argc; i++) {
        const char *o = argv[i];
        int needs = !strcmp(o, "--peer") ? 2 : 1;
        if (*o != '-') {
            add_row(b, o);
            continue;
        }
        if (i + needs >= argc) die("%s is unknown or lacks its value; bench.c lists all", o);
        i += needs;
        if (needs == 2) {
            add_peer(b, argv[i - 1], argv[i]);
        } else if (!strcmp(o, "--program")) {
            b->program = argv[i];
        } else if (!strcmp(o, "--out")) {
            b->out = argv[i];
        } else if (!strcmp(o, "--layers")) {
            b->layers = number(o, argv[i], 100);
        } else if (!strcmp(o, "--write")) {
            write_to = argv[i];
        } else if (!strcmp(o, "--model")) {
            add_model(b, argv[i]);
        } else {
            die("%s is unknown or lacks its value; bench.c lists all", o);
        }
    }
    int named = b->n_rows > 0;
    for (size_t i = 0; i < ARRAY_LEN(default_formats) && !named; i++) {
        add_row(b, default_formats[i]);
    }
    if (!write_to) return;
    if (b->n_rows != 1) die("--write needs one format");
    write_model(write_to, b->rows[0].format, b->layers);
    exit(0);
}

int main(int argc, char **argv)
{
    static Bench b = { .program = "./run",
                       .out = "tests/bench",
                       .layers = 22,
                       .n_programs = 1,
                       .names = { "run.c" } };
    time_t now = time(NULL);
    parse(&b, argc, argv);
    b.threads = from_environment("THREADS", default_threads(), MAX_THREADS);
    b.rounds = from_environment("ROUNDS", b.new_peers ? 3 : 1, MAX_ROUNDS);
    b.context = from_environment("CONTEXT", 2048, MAX_CONTEXT);
    strftime(b.date, sizeof b.date, "%Y-%m-%d", localtime(&now));
    strcpy(b.peers_date, b.date);
    if (access(b.out, W_OK)) die("%s: %s", b.out, strerror(errno));
    find_machine(&b);
    measure(&b);
    write_results(&b);
    if (b.new_peers) {
        write_peers(&b);
    } else {
        read_peers(&b);
    }
    print_table(&b);
    draw_chart(&b);
    return 0;
}
