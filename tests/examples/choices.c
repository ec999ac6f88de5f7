/* choices MODEL.gguf QUESTIONS.tsv [CONTEXT]: accuracy in multiple-choice questions, by the
 * log-probability of each choice behind the prompt, and by that for each byte of it.
 *
 * A line has the number of the right choice (from 0), the prompt and the choices, with tabs
 * between; \n, \t and \\ are escapes. tests/choices.py makes such files from the published ones. */

#define RUN_HEADER_ONLY
#include "../../run.c"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *format, ...)
{
    va_list arguments;
    fputs("choices: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return 1;
}

/* A whole file with a zero behind it, without the byte order mark of UTF-8; NULL on failure. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t n = 0, size = 1 << 16;
    char *text = malloc(size), *more = text;
    while (file && more && !feof(file) && !ferror(file)) {
        n += fread(text + n, 1, size - 1 - n, file);
        if (n == size - 1 && (more = realloc(text, size *= 2))) text = more;
    }
    const char *why = !file || ferror(file) ? strerror(errno) : more ? NULL : "out of memory";
    if (file) fclose(file);
    if (!why) text[n] = 0;
    if (!why && memchr(text, 0, n)) why = "the file has a zero byte: it is no UTF-8 text";
    if (!why && !strncmp(text, "\xef\xbb\xbf", 3)) memmove(text, text + 3, n - 2);
    if (!why) return text;
    complain("%s: %s", path, why);
    free(text);
    return NULL;
}

/* A field of a line: up to the next tab, with its escapes resolved in place. Moves *line behind it,
 * to NULL at the end of the line. */
static char *next_field(char **line)
{
    char *field = *line, *end = field ? strchr(field, '\t') : NULL, *to = field;
    if (!field) return NULL;
    *line = end ? end + 1 : NULL;
    if (end) *end = 0;
    for (char *from = field; *from; from++) {
        int escape = *from == '\\' && from[1] && strchr("nt\\", from[1]);
        *to++ = !escape ? *from : *++from == 'n' ? '\n' : *from == 't' ? '\t' : '\\';
    }
    *to = 0;
    return field;
}

/* The tokens of a text that begins; the caller frees them. */
static int *encode(const llm_model *m, const char *text, int *n)
{
    int *tokens = malloc((strlen(text) + 2) * sizeof *tokens), room = (int)strlen(text) + 2;
    *n = tokens ? llm_encode(m, text, strlen(text), LLM_BEGIN | LLM_BOS, tokens, room) : -1;
    if (*n >= 0 && *n <= room) return tokens;
    free(tokens);
    return NULL;
}

/* The tokens of a prompt with a choice behind it, and in *first the first that is the choice's:
 * both are encoded as one text, and what the prompt alone would give counts as prompt. At least one
 * token stands in front of the choice. NULL on failure. */
static int *encode_choice(const llm_model *m, const char *prompt, const char *choice, int *n,
                          int *first)
{
    const llm_facts *facts = llm_info(m);
    int n_head = 0, *head = encode(m, prompt, &n_head), *all = NULL;
    char *text = malloc(strlen(prompt) + strlen(choice) + 1);
    *first = 0;
    if (text && head) all = encode(m, strcat(strcpy(text, prompt), choice), n);
    while (all && *first < n_head && *first < *n && all[*first] == head[*first]) ++*first;
    if (all && *first == 0) {
        int *more = realloc(all, ((size_t)*n + 1) * sizeof *more);
        if (more) memmove(more + 1, more, (size_t)*n * sizeof *more);
        if (more) *more = facts->bos >= 0 ? facts->bos : facts->eos, *first = 1, ++*n;
        if (!more) free(all);
        all = more;
    }
    free(head), free(text);
    return all;
}

/* Natural logarithm of the probability of a token. */
static double log_probability(const float *logits, int n, int token)
{
    double sum = 0, top = logits[0];
    for (int i = 1; i < n; i++) top = fmax(top, logits[i]);
    for (int i = 0; i < n; i++) sum += exp(logits[i] - top);
    return logits[token] - top - log(sum);
}

/* The log-probability of a choice behind a prompt; what the session has of the prompt is not
 * evaluated again. Returns what went wrong, or NULL. */
static const char *score(const llm_model *m, llm_session *s, const char *prompt, const char *choice,
                         double *sum)
{
    int n = 0, first, vocab = llm_info(m)->vocab_size;
    int *all = encode_choice(m, prompt, choice, &n, &first);
    float *logits = all ? malloc((size_t)(n - first + 1) * (size_t)vocab * sizeof *logits) : NULL;
    const char *why = all && logits ? NULL : "a choice can't be encoded";
    *sum = 0;
    if (!why && first == n) why = "a choice is empty";
    if (!why && (llm_sync(s, all, first) || llm_rewind(s, first - 1))) why = llm_error();
    if (!why && llm_eval_all(s, all + first - 1, n - first, logits)) why = llm_error();
    for (int i = first; !why && i < n; i++) {
        *sum += log_probability(logits + (size_t)(i - first) * (size_t)vocab, vocab, all[i]);
    }
    free(all), free(logits);
    return why || isfinite(*sum) ? why : "a probability is no number, or 0";
}

/* Scores the choices of a line; adds to right[] whether the best is the right one. Returns what
 * went wrong, or NULL. */
static const char *ask(const llm_model *m, llm_session *s, char *line, int right[2])
{
    double sum, best[2] = { -INFINITY, -INFINITY };
    int chosen[2] = { -1, -1 }, count = 0;
    char *index = next_field(&line), *prompt = next_field(&line), *choice, *end;
    long answer = strtol(index, &end, 10);
    for (; prompt && (choice = next_field(&line)); count++) {
        const char *why = score(m, s, prompt, choice, &sum);
        if (why) return why;
        double scores[2] = { sum, sum / (double)strlen(choice) };
        for (int i = 0; i < 2; i++) {
            if (scores[i] > best[i]) best[i] = scores[i], chosen[i] = count;
        }
    }
    if (end == index || *end || answer < 0 || answer >= count || count < 2) {
        return "expected the number of the right choice from 0 on, the prompt and two choices "
               "or more, with tabs between";
    }
    for (int i = 0; i < 2; i++) right[i] += chosen[i] == answer;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        complain("usage: choices MODEL.gguf QUESTIONS.tsv [CONTEXT]");
        return 2;
    }
    llm_options options = { .context = argc > 3 ? atoi(argv[3]) : 0 };
    llm_model *m = llm_open(argv[1]);
    llm_session *s = m ? llm_session_new(m, &options) : NULL;
    char *text = s ? read_file(argv[2]) : NULL, *next;
    int n = 0, number = 0, right[2] = { 0 }, status = text ? 0 : 1;
    if (!s) complain("%s", llm_error());
    for (char *line = text; line && !status; line = next) {
        if ((next = strchr(line, '\n'))) *next++ = 0;
        line[strcspn(line, "\r")] = 0;
        number++;
        if (!*line) continue;
        const char *why = ask(m, s, line, right);
        if (why) status = complain("%s line %d: %s", argv[2], number, why);
        n++;
    }
    if (!status && n == 0) status = complain("%s has no questions", argv[2]);
    if (!status) {
        printf("accuracy %.4f normalised %.4f questions %d\n", (double)right[0] / n,
               (double)right[1] / n, n);
    }
    free(text);
    llm_session_free(s);
    llm_close(m);
    return status;
}
