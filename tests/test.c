/* The tests of `make test`: run.c from inside, without network and without Python.
 * Usage: tests/test [NAME...], names of the groups below; all without one. */

#define _GNU_SOURCE /* memmem */
#define RUN_NO_MAIN
#include "../run.c"

#include <float.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

static int passed, failed, skipped;

/* Counts a check; says where and why it failed. */
#define check(ok, ...) \
    do { \
        if (ok) { \
            passed++; \
        } else { \
            failed++; \
            printf("FAILED %s:%d: ", __FILE__, __LINE__); \
            printf(__VA_ARGS__); \
            printf("\n"); \
        } \
    } while (0)

#define skip(...) \
    do { \
        skipped++; \
        printf("skipped: "); \
        printf(__VA_ARGS__); \
        printf("\n"); \
    } while (0)

#include "files.h"
#include "templates.h"
#include "test_numbers.h"
#include "test_forward.h"
#include "test_sampling.h"
#include "test_text.h"
#include "test_tokenizer.h"
#include "test_jinja.h"
#include "test_files.h"
#include "test_bundled.h"
#include "test_kernels.h"
#include "test_cli.h"
#include "test_chat.h"
#include "test_sequences.h"
#include "test_drafts.h"

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } groups[] = {
        { "numbers", test_numbers },     { "forward", test_forward },
        { "sampling", test_sampling },   { "text", test_text },
        { "tokenizer", test_tokenizer }, { "templates", test_jinja },
        { "files", test_files },         { "bundled", test_bundled },
        { "kernels", test_kernels },     { "threads", test_pool },
        { "cli", test_cli },             { "chat", test_chats },
        { "sequences", test_sequences }, { "drafts", test_drafts },
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        int wanted = argc == 1;
        for (int j = 1; j < argc; j++) wanted |= !strcmp(argv[j], groups[i].name);
        if (!wanted) continue;
        struct timespec a, b;
        int before = passed + failed;
        clock_gettime(CLOCK_MONOTONIC, &a);
        groups[i].run();
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%-10s %6d checks, %.1f s\n", groups[i].name, passed + failed - before,
               (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9);
    }
    if (skipped) {
        printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    } else {
        printf("%d passed, %d failed\n", passed, failed);
    }
    return failed > 0;
}
