/* The program ./run as users call it: what goes where, exit codes, and bad options. */

static char cli_out[1 << 20], cli_err[1 << 16];

static void slurp(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file) fclose(file);
}

/* Runs a shell command line, in which ./run is RUN; returns the exit code. */
static int cli(const char *format, ...)
{
    char command[2048], full[2400];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    const char *program = getenv("RUN");
    snprintf(full, sizeof full, "RUN=%s; T=%s; M=$T/tiny.gguf; { %s ; } >$T/out 2>$T/err",
             program ? program : "./run", TMP, command);
    int status = system(full);
    slurp(TMP "/out", cli_out, sizeof cli_out);
    slurp(TMP "/err", cli_err, sizeof cli_err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int lines(const char *text)
{
    int n = 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

/* A wrong call: nothing on stdout, one line on stderr that contains part. */
static void check_refused(int code, const char *part, const char *arguments)
{
    int got = cli("$RUN %s", arguments);
    check(got == code && !*cli_out && lines(cli_err) == 1 && !strncmp(cli_err, "run: ", 5) &&
              strstr(cli_err, part),
          "run %s: exit %d, \"%s\" \"%s\", expected exit %d and \"%s\"", arguments, got, cli_out,
          cli_err, code, part);
}

static void test_bad_options(void)
{
    static const char *const numbers[] = {
        "abc", "''", "nan", "inf", "1e999", "-1", "99999999999999999999", "' 1'", "1x"
    };
    static const char *const options[] = { "-n", "-t", "-p",      "-k",      "-c",
                                           "-j", "-l", "--min-p", "--repeat" };
    char call[128];
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        for (size_t j = 0; j < ARRAY_LEN(numbers); j++) {
            snprintf(call, sizeof call, "$M %s %s", options[i], numbers[j]);
            check_refused(2, options[i], call);
        }
        snprintf(call, sizeof call, "$M %s", options[i]);
        check_refused(2, "needs a value", call);
    }
    check_refused(2, "no model file", "");
    check_refused(2, "unknown option -q", "$M -q");
    check_refused(2, "unknown option --temp", "$M --temp 1");
    check_refused(2, "two model files", "$M other.gguf");
    check_refused(2, "-i and -f", "$M -i a -f b");
    check_refused(2, "two model files, a.gguf and -h", "a.gguf -- -h");
    check_refused(2, "-m sing: expected one of generate chat", "$M -m sing");
    check_refused(2, "-p 1.5: expected 0 to 1", "$M -p 1.5");
    check_refused(2, "-s abc", "$M -s abc");
    check_refused(2, "-s 1.5", "$M -s 1.5");
    check_refused(2, "-j 0: expected 1 to", "$M -j 0");
    check_refused(1, "nowhere.gguf: No such file", "nowhere.gguf");
    check_refused(1, "a directory", "tests");
    check_refused(1, "not a GGUF file", "Makefile");
    check_refused(1, "nowhere.txt: No such file", "$M -f nowhere.txt");
    check_refused(1, "nowhere.txt: No such file", "$M -x nowhere.txt");
    check_refused(1, "the prompt has 5 tokens, the context 4 positions", "$M -i teat -c 4");
}

static void test_generate_mode(void)
{
    char first[4096];
    check(cli("$RUN $M -i tea -n 20 -s 7") == 0 && !*cli_err, "generate: \"%s\"", cli_err);
    check(!strncmp(cli_out, "tea", 3) && strlen(cli_out) > 4, "the prompt comes first: \"%s\"",
          cli_out);
    strcpy(first, cli_out);
    cli("$RUN $M -i tea -n 20 -s 7 -j 1");
    check(!strcmp(first, cli_out), "the same seed, one thread: \"%s\", \"%s\"", first, cli_out);
    cli("$RUN $M -i tea -n 20 -s 8");
    check(strcmp(first, cli_out), "another seed");
    cli("$RUN $M -i tea -n 20 -s 7 -e");
    check(!strcmp(first + 3, cli_out), "-e leaves out the prompt: \"%s\"", cli_out);
    cli("printf 'tea\\n' | $RUN $M -i - -n 20 -s 7");
    check(!strcmp(first, cli_out), "the prompt from stdin: \"%s\"", cli_out);
    cli("printf tea > $T/prompt; $RUN $M -f $T/prompt -n 20 -s 7");
    check(!strcmp(first, cli_out), "the prompt from a file: \"%s\"", cli_out);
    for (int i = 0; i < 3; i++) {
        static const char *const seeds[] = { "0", "-1", "18446744073709551615" };
        check(cli("$RUN $M -n 30 -s %s", seeds[i]) == 0 && strlen(cli_out) > 5, "seed %s: %s",
              seeds[i], cli_err);
    }
    check(cli("$RUN $M -i tea -n 0 -c 12 -s 1") == 0 &&
              strstr(cli_err, "context of 12 positions is full"),
          "%s", cli_err);
    check(cli("$RUN $M -i tea -n 4 -v -s 3") == 0 && strstr(cli_err, "seed 3") &&
              strstr(cli_err, "tok/s") && strstr(cli_err, "hash") && strstr(cli_err, "kernels") &&
              strstr(cli_err, "MB"),
          "-v: %s", cli_err);
    check(strlen(cli_out) > 3, "-v leaves stdout alone");
    check(cli("$RUN $M -n 100000 -c 20000 | head -c 5 >/dev/null") == 0 &&
              !strstr(cli_err, "stdout"),
          "a closed pipe is quiet: %s", cli_err);
    check(cli("trap '' PIPE; { $RUN $M -n 3000 -c 4000 -s 1; echo $? >$T/code; } | head -c 5 "
              ">/dev/null") == 0 &&
              !strstr(cli_err, "stdout"),
          "a closed pipe without a signal: %s", cli_err);
    if (!access("/dev/full", W_OK)) {
        check(cli("$RUN $M -n 5 -s 1 >/dev/full") == 1 && strstr(cli_err, "stdout: "),
              "a full disk: %s", cli_err);
    }
}

static void test_other_modes(void)
{
    float p, bits;
    int n, id;
    check(cli("$RUN $M --tokens -i tea") == 0 && !strcmp(cli_out, "261 260 262\n"), "--tokens: %s",
          cli_out);
    check(cli("$RUN $M --tokens --bos -i tea") == 0 && !strcmp(cli_out, "1 261 260 262\n"),
          "--bos: %s", cli_out);
    check(cli("$RUN $M --tokens") == 0 && !strcmp(cli_out, "\n"), "--tokens of nothing: %s",
          cli_out);
    check(cli("printf 'a\\0b\\n' >$T/prompt; $RUN $M --tokens -f $T/prompt") == 0 &&
              !strcmp(cli_out, "262 3 279 13\n"),
          "all bytes of a file: %s", cli_out);
    check(cli("$RUN $M -l 5 -i tea") == 0 && lines(cli_out) == 5 &&
              sscanf(cli_out, "%d\t%f\t", &id, &p) == 2 && p > 0 && p < 1,
          "-l: %s", cli_out);
    check(cli("$RUN $M -l 999999999 -i tea | sort -c -s -t '\t' -k 2,2gr") == 0, "-l in order: %s",
          cli_err);
    check(cli("$RUN $M -l 300 -i tea >$T/l; for n in 1 2 7 149 150 299; do $RUN $M -l $n -i tea "
              ">$T/n; head -n $n $T/l | cmp - $T/n || exit 1; done") == 0,
          "-l gives the first ones of all: %s", cli_out);
    check(cli("$RUN $M -l 300 -i tea") == 0 && strstr(cli_out, "\t\\xff\n") &&
              strstr(cli_out, "\t\\n\n") && strstr(cli_out, "\t</s>\n"),
          "-l escapes what is no character: %s", cli_out);
    check(cli("$RUN $M -n 4 -s 1 --cache f32") == 0 && !*cli_err, "--cache: %s", cli_err);
    check_refused(2, "--cache blue: expected one of f16 f32 q8_0", "$M --cache blue");
    check_refused(2, "--cache f1: expected", "$M --cache f1");
    check_refused(1, "a cache of q8_0, but the heads have 10 dimensions", "$M --cache q8_0");
    for (int i = 0; i < 5; i++) { /* each with a seed of its own */
        check(cli("$RUN $M -l 3 >$T/l%d; cmp $T/l%d $T/l0", i, i) == 0,
              "-l of an empty prompt depends on the seed: %s", cli_out);
    }
    for (int i = 0; i < 2; i++) {
        cli("for i in 1 2 3 4 5 6 7 8 9; do printf 'the tea is in the sea '; done >$T/text; "
            "$RUN $M -x $T/text -c %d",
            i ? 700 : 40);
        check(sscanf(cli_out, "perplexity %f bits-per-byte %f tokens %d\n", &p, &bits, &n) == 3 &&
                  n == 198 && fabs(log2(p) - bits) < 1e-3 && p > 2 && p < 1e5,
              "-x: %s %s", cli_out, cli_err);
    }
    check_refused(1, "has no text", "$M -x /dev/null");
    check(cli("$RUN $M -b -j 1") == 0 && lines(cli_out) == 5 &&
              sscanf(cli_out, "pp512 %f tok/s", &p) == 1 && p > 0 &&
              strstr(cli_out, "\ntg64 ") && strstr(cli_out, "\ntg64x8 "),
          "-b: %s", cli_out);
    check(cli("$RUN --help") == 0 && strstr(cli_out, "--min-p F"), "--help: %s", cli_err);
    static const char *const full[] = { "-h", "--template list", "$M -b -j 1", "$M --tokens -i tea",
                                        "$M -l 2", "$M -x $T/text", "$M -i tea --heat",
                                        "$M --samples 2 -n 3" };
    for (size_t i = 0; i < ARRAY_LEN(full) && !access("/dev/full", W_OK); i++) {
        check(cli("$RUN %s >/dev/full", full[i]) == 1 && strstr(cli_err, "stdout: No space left"),
              "%s: %s", full[i], cli_err);
    }
    check(cli("cp $M ./-l; $RUN --tokens -i tea -- -l; code=$?; rm -f ./-l; exit $code") == 0 &&
              !strcmp(cli_out, "261 260 262\n"),
          "-- ends the options: %s", cli_err);
    check(cli("$RUN -h") == 0 && strstr(cli_out, "--min-p F") && !*cli_err, "-h: %s", cli_out);
    check(cli("$RUN --version") == 0 && !strcmp(cli_out, "run " RUN_VERSION "\n"), "--version: %s",
          cli_out);
    check(cli("RUN_CPU=portable $RUN $M -n 2 -s 1") == 0, "RUN_CPU: %s", cli_err);
    check(cli("RUN_CPU=abacus $RUN $M -n 2") == 1 && strstr(cli_err, "RUN_CPU=abacus"),
          "RUN_CPU: %s", cli_err);
}

/* Every option with every mode: it is taken where the help says so, else both are named. */
static void test_modes(void)
{
    static const struct {
        const char *name, *call;
    } modes[] = {
        { "-m generate", "" },
        { "--heat", "--heat" },
        { "--samples", "--samples 2" },
        { "-m chat", "-m chat" },
        { "-m chat --samples", "--samples 2 -m chat" },
        { "-l", "-l 3" },
        { "--tokens", "--tokens" },
        { "-b", "-b" },
        { "-x", "-x x" },
    };
    static const char *const calls[] = {
        "-i tea", "-f x", "--special", "-n 2", "-t 0", "-p 1", "-k 1", "--min-p 0", "--repeat 1",
        "-s 1", "-y be", "-r x", "--template gemma", "--vars {}", "--think off", "--session s",
        "--no-shift", "--best", "-c 64", "--cache f32", "-d none", "-e", "--bos",
    };
    static char help[1 << 14], readme[1 << 16];
    char row[256], name[32], told[128];
    cli("$RUN -h");
    snprintf(help, sizeof help, "%.16000s", cli_out);
    slurp("README.md", readme, sizeof readme);
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        snprintf(row, sizeof row, "\n  %-17s ", modes[i].name);
        char *line = strstr(help, row);
        check(line, "the help has no row%s", row);
        if (!line) continue;
        snprintf(row, sizeof row, "%.*s", (int)strcspn(line + 1, "\n") + 1, line + 1);
        check(strstr(readme, row), "README lacks the row %s", row);
        row[strlen(row) - 1] = ' ';
        for (size_t j = 0; j < ARRAY_LEN(calls); j++) {
            snprintf(name, sizeof name, " %.*s ", (int)strcspn(calls[j], " "), calls[j]);
            int taken = strstr(row, name) != NULL;
            snprintf(told, sizeof told, "%.*s does not go with %s\n", (int)strcspn(calls[j], " "),
                     calls[j], modes[i].name);
            int code = cli("$RUN nowhere.gguf %s %s", calls[j], modes[i].call);
            check(taken ? code == 1 : code == 2 && !*cli_out && lines(cli_err) == 1,
                  "%s %s: exit %d, %s", modes[i].call, calls[j], code, cli_err);
            check(strstr(cli_err, taken ? "nowhere.gguf: No such file" : told), "%s %s: %s",
                  modes[i].call, calls[j], cli_err);
        }
    }
    check_refused(2, "-m chat does not go with -l", "$M -m chat -l 3");
    check_refused(2, "-m chat does not go with -b", "$M -b -m chat");
    check_refused(2, "--heat does not go with -m chat", "$M -m chat --heat");
    check_refused(2, "--heat does not go with --samples", "$M --samples 2 --heat");
    check_refused(2, "--tokens does not go with -b", "$M --tokens -b");
    check(cli("$RUN $M -m generate --tokens -i tea -j 1 -v") == 0, "%s", cli_err);
}

/* Texts from files and stdin: taken whole, or refused with a sentence. */
static void test_texts(void)
{
    static const struct {
        const char *bytes, *ids; /* those of a prompt in tiny.gguf, NULL: it is UTF-16 */
    } texts[] = {
        { "tea", "261 260 262" },
        { "tea\\r\\n", "261 260 262" }, /* the end of the last line is none of -i - */
        { "tea\\n", "261 260 262" },
        { "\\357\\273\\277tea", "261 260 262" },
        { "a\\0", "262 3" },
        { "t\\0e\\0a\\0", NULL },
        { "\\0t\\0e\\0a", NULL },
        { "\\377\\376tea", NULL },
        { "\\376\\377tea", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int code = cli("printf '%s' | $RUN $M --tokens -i -", texts[i].bytes);
        size_t n = strlen(texts[i].ids ? texts[i].ids : "");
        if (texts[i].ids) {
            check(code == 0 && !strncmp(cli_out, texts[i].ids, n) && cli_out[n] == '\n',
                  "%s: %s %s", texts[i].bytes, cli_out, cli_err);
            continue;
        }
        check(code == 1 && strstr(cli_err, "run: stdin: this is UTF-16"), "%s: %s", texts[i].bytes,
              cli_err);
        cli("printf '%s' >$T/text", texts[i].bytes);
        check_refused(1, "text: this is UTF-16", "$M -f $T/text");
        check_refused(1, "text: this is UTF-16", "$M -x $T/text");
        check_refused(1, "text: this is UTF-16", "$T/chat.gguf -m chat -f $T/text");
    }
    cli("printf 'tea\\0sea, and more' >$T/text");
    check(cli("$RUN $M -x $T/text") == 0 && strstr(cli_out, " tokens 1"), "a zero byte: %s%s",
          cli_out, cli_err);
    check_refused(1, "text: the byte at offset 3 is zero", "$T/chat.gguf -m chat -f $T/text");
    check_refused(1, "stdin: the byte at offset 3 is zero", "$T/chat.gguf -m chat -i - <$T/text");
    check_refused(1, "text: the byte at offset 3 is zero",
                  "$T/chat.gguf -m chat --samples 2 -f $T/text");
    if (!access("/dev/zero", R_OK)) {
        check_refused(1, "/dev/zero: this is longer than 1 GB", "$M -f /dev/zero");
    }
}

/* Control tokens that are written in a prompt. */
static void test_special(void)
{
    check(cli("$RUN $M --tokens -i '</s>tea'") == 0 && !strstr(cli_out, "2 "), "text: %s", cli_out);
    check(cli("$RUN $M --tokens --special -i '</s>tea'") == 0 && !strncmp(cli_out, "2 ", 2),
          "--special: %s", cli_out);
    check(cli("$RUN $M --tokens --special --bos -i '<s></s>'") == 0 && !strcmp(cli_out, "1 2\n"),
          "one beginning: %s", cli_out);
    cli("printf '</s>tea' >$T/text; $RUN $M -x $T/text >$T/plain; "
        "$RUN $M -f $T/text -l 3 >>$T/plain; $RUN $M -x $T/text --special; "
        "$RUN $M -f $T/text -l 3 --special");
    static char plain[4096];
    slurp(TMP "/plain", plain, sizeof plain);
    check(lines(cli_out) == 4 && strcmp(cli_out, plain), "-x and -l: %s, %s", cli_out, plain);
    check(cli("$RUN $M -n 5 -s 1 -f $T/text --special --samples 2") == 0, "%s", cli_err);
    check(cli("$RUN $M -n 5 -s 1 -f $T/text --special --heat") == 0, "%s", cli_err);
    check_refused(2, "--special does not go with -m chat", "$T/chat.gguf -m chat --special");
}

/* Sentences keep their reason and their line, whatever the arguments are. */
static void test_sentences(void)
{
    static const char *const calls[] = { "\"$P\"", "$M -f \"$P\"", "$M -x \"$P\"",
                                         "$T/chat.gguf -m chat -i tea --session \"$P\"" };
    for (size_t i = 0; i < 2 * ARRAY_LEN(calls); i++) {
        const char *call = calls[i / 2];
        check(cli("P=$(printf '/%%0%dd\\351\\234\\262' 0); "
                  "P=$(printf 'n\\033[2J\\no\\302\\233')$P; "
                  "$RUN %s", i % 2 ? 5000 : 100, call) == 1 && lines(cli_err) == 1 &&
                  (strstr(cli_err, ": No such file") || strstr(cli_err, ": File name too long")) &&
                  !strchr(cli_err, 27) && !strstr(cli_err, "\302\233") && strlen(cli_err) < 600 &&
                  !strstr(cli_err, "...") == !(i % 2),
              "%s: %s", call, cli_err);
    }
    check_refused(2, "unknown option -?[2J?x", "$M \"$(printf -- '-\\033[2J\\nx')\"");
    check_refused(2, "-n ?[2J: expected an integer", "$M -n \"$(printf '\\033[2J')\"");
    check(cli("$RUN $M -n $(printf '%%05000d' 0)x") == 2 && strstr(cli_err, "run: -n 000") &&
              strstr(cli_err, "0x: expected an integer\n"),
          "%s", cli_err);
}

/* Whatever allocation fails, there is a sentence and an exit code. */
static void test_no_memory(void)
{
    static const char *const calls[] = {
        "$M -i tea -n 2 -t 0 -c 64",
        "$M -n 2 -s 1 --heat -c 64",
        "$M -l 3 -c 64",
        "$M --tokens -i tea",
        "$M -i tea --samples 2 -n 2 -c 64",
        "$M -x $T/text -c 64",
        "$T/chat.gguf -m chat -n 2 --session $T/s -c 64 <$T/text",
    };
    cli("printf 'the tea\\n' >$T/text");
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        int code = cli("n=0; rc=1; while [ $rc = 1 ] && [ $n -lt 400 ]; do n=$((n + 1)); rc=0; "
                       "rm -f $T/s; FAIL_AT=$n $T/failing -j 1 %s >/dev/null 2>$T/told || rc=$?; "
                       "why=$(cat $T/told); case \"$rc $why\" in '0 '*|'1 '*memory*) ;; "
                       "*) echo $n $rc $why; break;; esac; done; [ $n -gt 9 ] && [ $rc = 0 ]",
                       calls[i]);
        check(code == 0 && !*cli_out, "%s: %s", calls[i], cli_out);
    }
}

/* Writes a file and frees its bytes. */
static void write_file(const char *path, Bytes file)
{
    FILE *out = fopen(path, "wb");
    check(out && fwrite(file.data, 1, file.size, out) == file.size, "%s can't be written", path);
    if (out) fclose(out);
    free(file.data);
}

/* Conversations through pipes: answers alone on stdout, a line each here, where answers are one
 * token long; nothing but errors on stderr. */
static void test_chat(void)
{
    Shape shape = small_shape;
    shape.chat = 1;
    write_file(TMP "/chat.gguf", tiny_model(&shape));
    check(cli("printf 'tea\\nsea\\n\\nlast' | $RUN $T/chat.gguf -m chat -n 1 -t 0") == 0 &&
              lines(cli_out) >= 3 && !*cli_err,
          "three turns: \"%s\" \"%s\"", cli_out, cli_err);
    check(cli("printf 'sea\\n' | $RUN $T/chat.gguf -m chat -n 5 -t 0 -i tea >$T/one; "
              "$RUN $T/chat.gguf -m chat -n 5 -t 0 -i tea </dev/null | cmp - $T/one") == 0,
          "-i is a single turn: %s %s", cli_out, cli_err);
    check(
        cli("$RUN $T/chat.gguf -m chat -n 5 -t 0 -i tea -y 'be kind' </dev/null | cmp - $T/one") ==
            1,
        "-y changes the answer");
    check(cli("$RUN $T/chat.gguf -m chat </dev/null") == 0 && !*cli_out, "no input: %s", cli_out);
    check_refused(1, "no chat template", "$M -m chat -i tea");
    check_refused(1, "tokens do not fit", "$T/chat.gguf -m chat -i tea -c 5");
}

/* A model whose weights are no numbers, and whose name would clear the screen. */
static void test_bad_model(void)
{
    Bytes file = tiny_model(&small_shape);
    char *name = memmem(file.data, file.size, "tiny", 4);
    Tensor t = { 0 };
    llm_model *m = llm_open_memory(file.data, file.size);
    if (m) t = *find_tensor(&m->file, "blk.0.attn_v.weight");
    check(m && name, "%s", llm_error());
    llm_close(m);
    memcpy(name, "\33[2J", 4);
    for (size_t i = 0; i < t.bytes / 4; i++) ((float *)(void *)t.data)[i] = NAN;
    write_file(TMP "/nan.gguf", file);
    cli("printf 'the tea' >$T/text");
    check_refused(1, "not numbers", "$T/nan.gguf -e -i tea");
    check_refused(1, "not numbers", "$T/nan.gguf -l 3 -i tea");
    check_refused(1, "no number", "$T/nan.gguf -x $T/text");
    check(cli("$RUN $T/nan.gguf -v -i tea") == 1 && strstr(cli_err, "?[2J") && !strchr(cli_err, 27),
          "the name is printed as it is: %s", cli_err);
}

/* GGUF files that are no models say what they are. */
static void test_companions(void)
{
    static const struct {
        const char *type, *arch, *what;
    } files[] = {
        { "adapter", "llama", "this is a LoRA adapter" },
        { "mmproj", "clip", "this is a projector" },
        { "model", "clip", "this is a vision projector" },
        { "imatrix", "", "this is an importance matrix" },
        { "model", "eagle3", "this is a draft head" },
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        Builder b = { 0 };
        add_string(&b, "general.type", files[i].type);
        if (*files[i].arch) add_string(&b, "general.architecture", files[i].arch);
        write_file(TMP "/other.gguf", finish(&b));
        check_refused(1, files[i].what, "$T/other.gguf -i tea");
    }
}

/* Threads by the quota of a control group, nested, in both versions, and the context by its memory.
 * Needs a mount namespace, and two processors. */
static void test_groups(void)
{
    static const struct {
        const char *line, *file, *text, *part;
    } cases[] = { { "0::/", "cpu.max", "100000 100000", ", 1 threads" },
                  { "0::/a/b", "a/b/cpu.max", "30000 50000", ", 1 threads" },
                  { "0::/a/b", "a/cpu.max", "100000 100000", ", 1 threads" },
                  { "0::/a", "a/cpu.max", "max 100000", ", 2 threads" },
                  { "4:cpu,cpuacct:/a/b", "cpu,cpuacct/a/cpu.cfs_quota_us", "9000", "1 threads" },
                  { "4:cpuacct,cpu:/a/b", "cpu/a/b/cpu.cfs_quota_us", "100000", "1 threads" },
                  { "4:cpu:/a", "cpu/a/cpu.cfs_quota_us", "-1", ", 2 threads" },
                  { "0::/a/b", "a/memory.max", "40000", "to fit memory" },
                  { "9:memory:/a/b", "memory/a/memory.limit_in_bytes", "40000", "to fit memory" } };
    if (cli("unshare -m mount -t tmpfs tmpfs /sys/fs/cgroup") || default_threads() < 2) {
        skip("control groups: no mount namespace, or one processor");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cli("echo '%s' >$T/group; unshare -m sh -c 'mount -t tmpfs tmpfs /sys/fs/cgroup; "
            "F=/sys/fs/cgroup/%s; mkdir -p $(dirname $F); echo %s >$F; case $F in *quota_us) echo "
            "100000 >$(dirname $F)/cpu.cfs_period_us;; esac; mount --bind '$T'/group "
            "/proc/$$/cgroup; exec taskset -c 0,1 '$RUN' '$M' -i tea -n 1 -v'",
            cases[i].line, cases[i].file, cases[i].text);
        check(strstr(cli_err, cases[i].part), "%s in %s: %s", cases[i].text, cases[i].file,
              cli_err);
    }
}

/* A child of a process that has evaluated with threads has threads of its own, or with OpenMP
 * none. */
static void test_forked_process(void)
{
    llm_model *m = llm_open("tests/models/stories.gguf");
    llm_session *s = llm_session_new(m, &(llm_options){ .threads = 2, .context = 256 });
#ifdef RUN_OPENMP
    int threads = 1;
#else
    int threads = 2;
#endif
    int status = -1, said = llm_generate(s, "Once upon a time there was a", 4, NULL, NULL, NULL);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        alarm(20); /* it may wait for ever */
        llm_session *own = llm_session_new(m, &(llm_options){ .threads = 2, .context = 256 });
        said = llm_generate(own, "Once upon a time there was a", 4, NULL, NULL, NULL);
        int wrong = said != 4 || llm_threads(own) != threads;
        _exit(wrong || llm_generate(s, "", 4, NULL, NULL, NULL) != 4);
    }
    waitpid(child, &status, 0);
    check(said == 4 && status == 0 && llm_generate(s, "", 4, NULL, NULL, NULL) == 4,
          "a child after fork ends with %d", status);
    llm_session_free(s);
    llm_close(m);
}

/* run.c compiled without its appendix is the program with the portable kernels. */
static void test_portable(void)
{
    int code = cli("$T/portable $M -i tea -t 0 -n 40 -v >$T/story && "
                   "RUN_CPU=portable $RUN $M -i tea -t 0 -n 40 | cmp - $T/story");
    check(code == 0 && strstr(cli_err, "kernels portable"), "exit %d: %s", code, cli_err);
}

/* A model file that is made shorter while it is mapped. */
static void test_lost_file(void)
{
    int code = cli("cp $M $T/shorter.gguf; mkfifo $T/fifo; $RUN $T/shorter.gguf -m chat --template "
                   "zephyr -n 3 <$T/fifo & exec 3>$T/fifo; echo tea >&3; sleep 0.3; "
                   ": >$T/shorter.gguf; echo tea >&3; exec 3>&-; wait $!");
    check(code == 1 && strstr(cli_err, "run: the model file was made shorter") &&
              lines(cli_err) == 1,
          "exit %d: %s", code, cli_err);
    cli("rm -f $T/fifo $T/shorter.gguf");
}

/* The library in other people's programs. */
static void test_embedding(void)
{
    check(cli("$T/embed $M tea") == 0 && !strncmp(cli_out, "tea", 3) && strlen(cli_out) > 5,
          "C: %s %s", cli_out, cli_err);
    char text[4096];
    snprintf(text, sizeof text, "%.4000s", cli_out);
    if (access(TMP "/embed++", X_OK)) {
        skip("there is no C++ compiler for tests/examples/embed.c");
    } else {
        check(cli("$T/embed++ $M tea") == 0 && !strcmp(text, cli_out), "C++: %s %s", cli_out,
              cli_err);
    }
    if (cli("nm --version") != 0) {
        skip("there is no nm to list the library's symbols");
    } else {
        check(cli("nm -g --defined-only $T/run.o $T/tokenizer.o | "
                  "awk 'NF == 3 && $3 !~ /^_?(llm_|tokenizer_)/'") == 0 &&
                  !*cli_out,
              "other exported symbols: %s", cli_out);
    }
}

/* The words in backticks between two texts of README must be the names, all of them and no others.
 * In tables those of the first column count. */
static void check_named(const char *from, const char *to, const char *const *names, int n)
{
    static char text[1 << 16];
    int found = 0;
    slurp("README.md", text, sizeof text);
    char *start = strstr(text, from), *end = start ? strstr(start + 1, to) : NULL;
    check(end, "README has no text from '%s' to '%s'", from, to);
    if (!end) return;
    *end = 0;
    for (char *line = strtok(start, "\n"); line; line = strtok(NULL, "\n")) {
        char *cell = *line == '|' ? strchr(line + 1, '|') : NULL;
        if (cell) *cell = 0;
        for (char *word = strchr(line, '`'), *close; word; word = strchr(close + 1, '`'), found++) {
            int known = 0;
            close = strchr(++word, '`');
            *close = 0;
            for (int i = 0; i < n; i++) known |= !strcmp(names[i], word);
            check(known, "README names %s, which no table does", word);
        }
    }
    check(found == n, "README names %d of %d from '%s' to '%s'", found, n, from, to);
}

/* README's lists of what runs are those of the tables. */
static void test_readme(void)
{
    const char *names[256];
    int n = 0;
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) names[n++] = archs[i].name;
    check_named("|---|---|\n| `llama`", "\nWeight formats", names, n);
    for (size_t i = n = 0; i < N_FORMATS; i++) {
        if (formats[i].name) names[n++] = formats[i].name;
    }
    check_named("\nWeight formats", "RoPE scaling", names, n);
    static char rules[1 << 16];
    slurp("tokenizer.c", rules, sizeof rules);
    char *row = strstr(rules, "static const Rule rules[]");
    check(row, "tokenizer.c has no rules");
    if (!row) return;
    *strstr(row, "\n};") = 0;
    for (n = 0; (row = strstr(row, "\n    { \"")); row = strchr(row, 0) + 1) {
        row += strlen("\n    { \"");
        *strchr(row, '"') = 0;
        for (char *name = row, *space; name; name = space ? space + 1 : NULL) {
            if ((space = strchr(name, ' '))) *space = 0;
            names[n++] = name;
            row = name;
        }
    }
    check_named("word-splitting rules", "another rule's name", names, n);
}

static void test_cli(void)
{
    write_file(TMP "/tiny.gguf", tiny_model(&small_shape));
    test_bad_options();
    test_generate_mode();
    test_other_modes();
    test_modes();
    test_chat();
    test_texts();
    test_special();
    test_sentences();
    test_no_memory();
    test_bad_model();
    test_companions();
    test_embedding();
    test_lost_file();
    test_groups();
    test_forked_process();
    test_portable();
    test_readme();
    check(cli("sh tests/style.sh") == 0, "style: %s", cli_out);
}
