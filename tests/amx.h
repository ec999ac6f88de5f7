/* AMX for machines without it: what the intrinsics do, in C, with the roundings and the order of
 * sums of the instructions' description (Intel 64 and IA-32 Architectures Software Developer's
 * Manual, volume 2, TDPBF16PS). It ends the program where the processor would raise an exception.
 *
 *   cc -include tests/amx.h ...      on a machine with AVX-512 and its bf16 instructions */

#define _GNU_SOURCE
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EMULATED __attribute__((unused)) static

/* What run.c asks whether there is AMX; it has no other use for these. */
#define __get_cpuid_count(leaf, part, a, b, c, d) \
    (__get_cpuid_count(leaf, part, a, b, c, d) && \
     (*(d) |= (leaf) == 7 && (part) == 0 ? 7u << 22 : 0, 1))
#define syscall(number, ...) (-((number) != SYS_arch_prctl))

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig amx_loadconfig
#define _tile_release amx_release
#define _tile_loadd amx_loadd
#define _tile_stored amx_stored
#define _tile_zero amx_zero
#define _tile_dpbf16ps amx_dpbf16ps

static _Thread_local struct {
    int ready;
    uint8_t rows[8];
    uint16_t bytes[8]; /* of a row */
    uint8_t data[8][16][64];
} amx;

static void amx_need(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "AMX exception: %s\n", what);
    abort();
}

EMULATED void amx_loadconfig(const void *config)
{
    const uint8_t *c = config;
    memset(&amx, 0, sizeof amx);
    amx_need(c[0] == 1, "palette");
    for (int i = 1; i < 16; i++) amx_need(!c[i], "reserved bytes of the configuration");
    for (int i = 32; i < 48; i++) amx_need(!c[i], "tiles 8 to 15");
    for (int i = 56; i < 64; i++) amx_need(!c[i], "tiles 8 to 15");
    for (int i = 0; i < 8; i++) {
        amx.rows[i] = c[48 + i];
        amx.bytes[i] = (uint16_t)(c[16 + 2 * i] | c[17 + 2 * i] << 8);
        amx_need(amx.rows[i] <= 16 && amx.bytes[i] <= 64 && !amx.rows[i] == !amx.bytes[i], "shape");
    }
    amx.ready = 1;
}

EMULATED void amx_release(void)
{
    memset(&amx, 0, sizeof amx);
}

static void amx_check(int tile)
{
    amx_need(amx.ready && tile >= 0 && tile < 8 && amx.rows[tile], "no configured tile");
}

EMULATED void amx_zero(int tile)
{
    amx_check(tile);
    memset(amx.data[tile], 0, sizeof amx.data[tile]);
}

EMULATED void amx_loadd(int tile, const void *from, long stride)
{
    amx_zero(tile);
    for (int r = 0; r < amx.rows[tile]; r++) {
        memcpy(amx.data[tile][r], (const uint8_t *)from + r * stride, amx.bytes[tile]);
    }
}

EMULATED void amx_stored(int tile, void *to, long stride)
{
    amx_check(tile);
    for (int r = 0; r < amx.rows[tile]; r++) {
        memcpy((uint8_t *)to + r * stride, amx.data[tile][r], amx.bytes[tile]);
    }
}

/* The float with these bits; denormal ones are zero. */
static inline float amx_float(uint32_t u)
{
    float f;
    u = u & 0x7f800000 ? u : u & 0x80000000;
    memcpy(&f, &u, 4);
    return f;
}

static inline float amx_flush(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return amx_float(u);
}

/* A row of c += a row of a times b: even and odd columns are summed up apart, from zero, with fused
 * multiply-adds that round to nearest even. */
__attribute__((target("avx512f,fma"))) EMULATED void amx_dpbf16ps(int c, int a, int b)
{
    static _Thread_local float even[16][16], odd[16][16];
    uint32_t pairs[16][16];
    amx_check(a), amx_check(b), amx_check(c);
    amx_need(a != b && b != c && a != c && amx.rows[a] == amx.rows[c] &&
                 amx.bytes[a] == 4 * amx.rows[b] && amx.bytes[b] == amx.bytes[c],
             "shapes of a product");
    memcpy(pairs, amx.data[b], sizeof pairs);
    for (int k = 0; k < 16; k++) {
        for (int n = 0; n < 16; n++) {
            even[k][n] = amx_float(pairs[k][n] << 16);
            odd[k][n] = amx_float(pairs[k][n] & 0xffff0000);
        }
    }
    memcpy(pairs, amx.data[a], sizeof pairs);
    for (int m = 0; m < amx.rows[c]; m++) {
        float sums[2][16] = { { 0 } }, old[16];
        for (int k = 0; k < amx.rows[b]; k++) {
            float x0 = amx_float(pairs[m][k] << 16), x1 = amx_float(pairs[m][k] & 0xffff0000);
            for (int n = 0; n < 16; n++) {
                sums[0][n] = amx_flush(__builtin_fmaf(x0, even[k][n], sums[0][n]));
                sums[1][n] = amx_flush(__builtin_fmaf(x1, odd[k][n], sums[1][n]));
            }
        }
        memcpy(old, amx.data[c][m], sizeof old);
        for (int n = 0; n < amx.bytes[c] / 4; n++) {
            old[n] = amx_flush(amx_flush(old[n]) + amx_flush(sums[0][n] + sums[1][n]));
        }
        memcpy(amx.data[c][m], old, sizeof old);
    }
}
