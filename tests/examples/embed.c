/* A program with a language model in it: embed MODEL.gguf PROMPT prints the prompt and what
 * follows, twice. It is C and C++. */

#define RUN_HEADER_ONLY
#include "../../run.c"

#include <stdio.h>

static int print(void *user, const char *text, size_t len)
{
    (void)user;
    return fwrite(text, 1, len, stdout) != len;
}

int main(int argc, char **argv)
{
    llm_model *model = argc == 3 ? llm_open(argv[1]) : NULL;
    llm_session *session = model ? llm_session_new(model, NULL) : NULL;
    llm_sampling sampling = { 0.8f, 0.95f, 0, 0, 0 };
    int n = -1;
    if (session) {
        printf("%s", argv[2]);
        n = llm_generate(session, argv[2], 40, &sampling, print, NULL);
    }
    if (n >= 0) { /* token by token: back to the prompt, and on from there, always the likeliest */
        llm_sampling greedy = { 0, 0, 0, 0, 0 };
        llm_rewind(session, llm_position(session) - n);
        printf("\n%s", argv[2]);
        n = llm_generate(session, " ", 40, &greedy, print, NULL);
        printf("\n%d of %d positions used\n", llm_position(session), llm_context(session));
    }
    if (n < 0) fprintf(stderr, "%s\n", argc == 3 ? llm_error() : "usage: embed MODEL.gguf PROMPT");
    llm_session_free(session);
    llm_close(model);
    return n < 0;
}
