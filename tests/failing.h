/* Included in front of run.c for a test: allocation number FAIL_AT of the program fails. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fails_now(void)
{
    static int count;
    const char *at = getenv("FAIL_AT");
    int fails = at && __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED) == atoi(at);
    if (fails) errno = ENOMEM;
    return fails;
}

#undef strdup
#undef strndup
#define malloc(size) (fails_now() ? NULL : malloc(size))
#define calloc(n, size) (fails_now() ? NULL : calloc(n, size))
#define realloc(old, size) (fails_now() ? NULL : realloc(old, size))
#define strdup(text) (fails_now() ? NULL : strdup(text))
#define strndup(text, n) (fails_now() ? NULL : strndup(text, n))
#define open_memstream(text, size) (fails_now() ? NULL : open_memstream(text, size))
