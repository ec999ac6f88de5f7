/* heat MODEL.gguf TEXT.txt > PAGE.html: a page with the text in the colours of how sure the model
 * was of each token, and with the likeliest ones where the mouse rests. */

#define RUN_HEADER_ONLY
#include "../../run.c"
#include "../../tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    double least; /* probability */
    const char *colour, *name;
} heats[] = {
    { 0.8, "#b7e4c7", "80 % and more" }, { 0.5, "#e3f1b0", "50 %" }, { 0.2, "#fff1a8", "20 %" },
    { 0.05, "#ffd6a5", "5 %" },          { 0.0, "#ffadad", "less" },
};
enum { N_HEATS = sizeof heats / sizeof *heats, BEST = 5 };

static void print_head(void)
{
    puts(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>How sure the model was</title>"
        "\n<style>\nbody { font: 16px/1.7 sans-serif; max-width: 46em; margin: 2em auto; padding: "
        "0 1em; color: #111; background: #fff }\np { white-space: pre-wrap }\n"
        "span { border-radius: 3px }");
    for (int i = 0; i < N_HEATS; i++) printf(".h%d { background: %s }\n", i, heats[i].colour);
    printf("</style></head><body>\n<p>Probability of each token:");
    for (int i = 0; i < N_HEATS; i++) printf(" <span class=\"h%d\">%s</span>", i, heats[i].name);
    printf(". The likeliest tokens appear when the mouse rests on one.</p>\n<p>");
}

/* Text for a page; control characters but the line feed become '?'. */
static void print_html(const char *text, size_t n)
{
    for (size_t i = 0, step; i < n; i += step) {
        unsigned char c = (unsigned char)text[i];
        int length = tokenizer_char(text + i, n - i);
        step = length > 0 ? (size_t)length : 1;
        if (c && strchr("<>&\"", c)) {
            printf("&#%d;", c);
        } else if (length <= 0) {
            printf("&#65533;");
        } else if ((c < 32 && c != '\n') || c == 127) {
            putchar('?');
        } else {
            fwrite(text + i, 1, step, stdout);
        }
    }
}

/* The numbers of the likeliest tokens, best first. */
static void find_best(const float *logits, int n, int best[BEST])
{
    for (int k = 0; k < BEST; k++) best[k] = -1;
    for (int i = 0, k; i < n; i++) {
        for (k = BEST; k > 0 && (best[k - 1] < 0 || logits[i] > logits[best[k - 1]]); k--) {
            if (k < BEST) best[k] = best[k - 1];
        }
        if (k < BEST) best[k] = i;
    }
}

/* A token and the logits in front of it. Bytes of an unfinished character wait in rest. */
static void print_token(const llm_model *m, const float *logits, int token, char *rest)
{
    char text[1024], piece[64];
    int vocab = llm_info(m)->vocab_size, best[BEST], level = 0;
    size_t n = strlen(strcpy(text, rest)), whole = 0, len;
    double sum = 0, top;
    find_best(logits, vocab, best);
    top = logits[best[0]];
    for (int i = 0; i < vocab; i++) sum += exp(logits[i] - top);
    n += llm_decode(m, &token, 1, 0, text + n, sizeof text - n);
    if (n >= sizeof text) n = sizeof text - 1;
    for (int length; whole < n && (length = tokenizer_char(text + whole, n - whole));) {
        whole += length > 0 ? (size_t)length : 1;
    }
    memcpy(rest, text + whole, n - whole);
    rest[n - whole] = 0;
    if (!whole) return;
    while (level + 1 < N_HEATS && !(exp(logits[token] - top) / sum >= heats[level].least)) level++;
    printf("<span class=\"h%d\" title=\"", level);
    for (int i = 0; i < BEST && best[i] >= 0; i++) {
        len = llm_decode(m, &best[i], 1, LLM_SPECIAL, piece, sizeof piece);
        printf("%s%.1f %% ", i ? "\n" : "", 100 * exp(logits[best[i]] - top) / sum);
        print_html(piece, len < sizeof piece ? len : sizeof piece - 1);
    }
    printf("\">");
    print_html(text, whole);
    printf("</span>");
}

/* The text of a file, of its first megabytes if it is long. */
static size_t read_file(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(text, 1, size, file) : 0;
    if (file) fclose(file);
    return n;
}

int main(int argc, char **argv)
{
    enum { SIZE = 1 << 22 };
    char *text = malloc(SIZE), rest[8] = "";
    int *tokens = malloc(SIZE * sizeof *tokens), n = 0;
    size_t len = argc == 3 && text ? read_file(argv[2], text, SIZE) : 0;
    llm_model *m = len && tokens ? llm_open(argv[1]) : NULL;
    llm_session *s = m ? llm_session_new(m, NULL) : NULL;
    const float *logits = NULL;
    if (s) n = llm_encode(m, text, len, LLM_BEGIN, tokens, SIZE);
    if (s && n > llm_context(s) - 1) n = llm_context(s) - 1;
    int start = m && llm_info(m)->bos >= 0 ? llm_info(m)->bos : m ? llm_info(m)->eos : 0;
    if (s && n > 0 && (logits = llm_eval(s, &start, 1))) print_head();
    for (int i = 0; logits && i < n; i++) {
        print_token(m, logits, tokens[i], rest);
        logits = llm_eval(s, tokens + i, 1);
    }
    if (logits) print_html(rest, strlen(rest));
    if (logits) printf("</p>\n</body></html>\n");
    int failed = !logits || fflush(stdout);
    if (argc != 3)
        fprintf(stderr, "usage: heat MODEL.gguf TEXT.txt > PAGE.html\n");
    else if (!len)
        fprintf(stderr, "heat: %s can't be read, or is empty\n", argv[2]);
    else if (!logits)
        fprintf(stderr, "heat: %s\n", llm_error());
    llm_session_free(s);
    llm_close(m);
    free(text), free(tokens);
    return failed;
}
