/* Number formats, kernels and the matrix product, against goldens of the gguf package and double
 * precision. */

/* All halves survive the way to float and back; rounding agrees with double-precision arithmetic.
 */
static void test_halves(void)
{
    int wrong = 0;
    for (unsigned h = 0; h < 65536; h++) {
        double value = ldexp((h & 1023) + (h >> 10 & 31 ? 1024 : 0),
                             (int)(h >> 10 & 31 ? h >> 10 & 31 : 1) - 25);
        if ((h >> 10 & 31) == 31) value = h & 1023 ? NAN : INFINITY;
        float f = f16_float((uint16_t)h);
        if (h >> 15) value = -value;
        if (value != value ? f == f : (double)f != value) wrong++;
        if (f == f && float_f16(f) != h) wrong++;
    }
    check(!wrong, "%d of 65536 halves are wrong", wrong);
    uint64_t random = 7;
    for (int i = wrong = 0; i < 200000; i++) {
        float f = (float)ldexp(random_unit(&random) - 0.5, (int)(random_unit(&random) * 44) - 26);
        float back = f16_float(float_f16(f));
        int e;
        frexp(f, &e);
        double unit = ldexp(1, (e < -13 ? -13 : e) - 11), nearest = nearbyint(f / unit) * unit;
        if (fabs(nearest) >= 65520) nearest = copysign(INFINITY, f);
        if ((double)back != nearest) wrong++;
    }
    check(!wrong, "%d of 200000 floats are rounded wrongly to half", wrong);
    check(float_f16(65519.996f) == 0x7bff && float_f16(65520) == 0x7c00 &&
              float_f16(-1e30f) == 0xfc00,
          "the edge of the half range");
    check((float_f16(NAN) & 0x7fff) > 0x7c00, "NaN stays NaN");
}

/* Kernels convert rows, in pieces of all lengths, as single numbers are converted. */
static void test_half_rows(void)
{
    pick_kernels();
    for (size_t isa = 0; isa < ARRAY_LEN(isas); isa++) {
        if (!isas[isa].usable()) continue;
        int wrong = 0, n;
        for (uint32_t h = 0; h < 1 << 16; h += (uint32_t)n) {
            uint16_t halves[20], back[20] = { 0 };
            float floats[20], between[20];
            n = 1 + (int)(h / 7 % 20);
            for (int i = 0; i < n; i++) halves[i] = (uint16_t)(h + (uint32_t)i);
            isas[isa].unpack_f16(halves, floats, n);
            for (int i = 0; i < n; i++) { /* half way to the next, and a little to both sides */
                float f = f16_float(halves[i]);
                wrong += f == f ? float_bits(f) != float_bits(floats[i]) : floats[i] == floats[i];
                between[i] = bits_float(float_bits(f) + 0xfff + (h + (uint32_t)i) % 3);
            }
            isas[isa].pack_f16(back, between, n);
            for (int i = 0; i < n; i++) {
                uint16_t want = float_f16(between[i]);
                wrong += (want & 0x7fff) > 0x7c00 ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != want;
            }
        }
        check(!wrong, "%s: %d numbers are converted wrongly", isas[isa].name, wrong);
    }
}

static size_t from_hex(const char *hex, unsigned char *out)
{
    size_t n = 0;
    for (; sscanf(hex, "%2hhx", &out[n]) == 1; hex += 2) n++;
    return n;
}

static size_t from_hex_words(const char *hex, uint32_t *out)
{
    size_t n = 0;
    for (; sscanf(hex, "%8x", &out[n]) == 1; hex += 8) n++;
    return n;
}

/* unpack gives the very bits of the gguf package. A line: type number, name, bytes of
 * blocks, bits of floats. */
static void test_unpack(void)
{
    static char line[1 << 16], blocks[1 << 15], floats[1 << 15], name[32];
    static unsigned char in[1 << 14];
    static uint32_t want[1 << 12];
    static float got[1 << 12];
    int seen[N_FORMATS] = { 0 }, type;
    FILE *file = fopen("tests/goldens/formats.txt", "r");
    check(file, "tests/goldens/formats.txt is missing");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%d %31s %32767s %32767s", &type, name, blocks, floats) != 4) continue;
        check(type >= 0 && type < N_FORMATS && formats[type].name, "format %d is in the table",
              type);
        const Format *f = &formats[type];
        size_t bytes = from_hex(blocks, in), n = from_hex_words(floats, want);
        check(bytes / (size_t)f->bytes * (size_t)f->block == n, "%s: size of a block", name);
        memset(got, 0, sizeof got);
        f->unpack(in, got, (int)n);
        check(!memcmp(got, want, n * 4), "%s: unpack differs from the gguf package", name);
        seen[type] = 1;
    }
    if (file) fclose(file);
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].name) check(seen[i], "%s has no golden", formats[i].name);
    }
}

static uint64_t hash_of(const void *data, size_t n)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return h;
}

/* All points of the grids are those of the gguf package: blocks of goldens have few of them. */
static void test_grids(void)
{
    pthread_once(&grids_made, make_grids);
    uint64_t two = hash_of(eights, sizeof eights), three = hash_of(fours, sizeof fours);
    check(two == 0x691aea5bd2a16f67 && three == 0x8f02cbe29c097ad9, "a point is wrong");
}

/* What the KV cache's formats keep: within half a step of the block's largest number and what the
 * rounding of its scale costs; and a number that is none stays none. */
static void test_pack(void)
{
    uint64_t random = 17;
    for (int type = 0; type < N_FORMATS; type++) {
        const Format *f = &formats[type];
        if (!f->pack) continue;
        for (int round = 0; round < 60; round++) {
            static const float specials[] = { NAN, INFINITY, -INFINITY, FLT_MAX, 1e-42f };
            unsigned char row[64 * 4];
            float x[64], y[64], most[2] = { 0, 0 };
            for (int i = 0; i < 64; i++) x[i] = random_weight(&random) * ldexpf(1, round - 40);
            int special = round % 6, at = (int)(random_unit(&random) * 64);
            if (special < 5) x[at] = specials[special];
            for (int i = 0; i < 64; i++) most[i / 32] = fmaxf(most[i / 32], fabsf(x[i]));
            f->pack(row, x, 64);
            f->unpack(row, y, 64);
            int wrong = 0;
            for (int i = 0; i < 64; i++) {
                float step = f->block == 32 ? most[i / 32] / 127 * 0.57f : fabsf(x[i]) / 2048;
                if (f->block == 32 && special < 4 && at / 32 == i / 32) {
                    wrong += special < 3 && isfinite(y[i]);
                } else if (special == 5 || i != at) {
                    wrong += !(fabsf(y[i] - x[i]) <= step + 5e-6f || fabsf(x[i]) > 65000);
                }
            }
            if (special < 3) wrong += isfinite(y[at]);
            check(!wrong, "%s, round %d: %d numbers of 64 are packed wrongly", f->name, round,
                  wrong);
        }
    }
}

/* What bf16 tiles may add to the error of a product, as a share of it. A number that is rounded to
 * bf16 is off by at most 2^-8 of itself, and the sum of two parts by 2^-16; where both x and w have
 * two, the product of the second ones is left out too. */
static double tile_error(int type)
{
    return formats[type].parts == 1 ? 0x1p-7 + 0x1p-16 : type == BF16 ? 0x1p-16 : 3 * 0x1p-16;
}

/* Memory that ends, at *end, where a page begins that can't be read. */
static unsigned char *guarded(size_t bytes, size_t *mapped, unsigned char **end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *mapped = (bytes + page - 1) / page * page + page;
    unsigned char *data = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                               -1, 0);
    if (data == MAP_FAILED || mprotect(data + *mapped - page, page, PROT_NONE)) abort();
    *end = data + *mapped - page;
    return data;
}

/* matmul of every format, for the kernels in use, against unpack and double precision. What the
 * quantization of x may add is bounded by half a step of its largest number in 32. */
static void test_matmul_format(llm_session *s, int type, int rows, int blocks, int n, int biased,
                               uint64_t *random)
{
    const Format *f = &formats[type];
    int cols = blocks * f->block, shift = n % 3 * 2;
    size_t bytes = row_bytes(f, cols) * (size_t)rows, mapped;
    unsigned char *at, *data = guarded(bytes + 4, &mapped, &at);
    at -= bytes + (size_t)(f->block == 1 ? 0 : shift);
    float *x = malloc((size_t)(n * cols) * 4), *y = malloc((size_t)(n * rows) * 4),
          *w = malloc((size_t)cols * 4), *bias = malloc((size_t)rows * 4);
    random_blocks(random, type, at, (int64_t)rows * cols, 1);
    for (int i = 0; i < n * cols; i++) x[i] = random_weight(random);
    for (int i = 0; i < rows; i++) bias[i] = random_weight(random);
    for (int i = 0; i < n * rows; i++) y[i] = NAN;
    Mat m = { f, rows, cols, at, biased ? bias : NULL };
    multiply(s, y, &m, x, n);
    double worst = 0, limit = digits_of(f) == 1 ? 127 : 63 * 128 + 63;
    for (int r = 0; r < rows; r++) {
        f->unpack(at + (size_t)r * row_bytes(f, cols), w, cols);
        for (int t = 0; t < n; t++) {
            double sum = biased ? bias[r] : 0, size = fabs(sum), allowed = 0, largest = 0;
            for (int k = 0; k < cols; k++) {
                const float *block = x + t * cols + k / 32 * 32;
                for (int i = 0; k % 32 == 0 && f->bits && i < 32; i++) {
                    largest = i ? fmax(largest, fabsf(block[i])) : fabsf(block[i]);
                }
                sum += (double)w[k] * x[t * cols + k];
                size += fabs((double)w[k] * x[t * cols + k]);
                if (runs_on_tiles(n)) {
                    allowed += fabs((double)w[k] * x[t * cols + k]) * tile_error(type);
                } else if ((kernels->prepare && formats[type].bits)) {
                    allowed += fabs(w[k]) * largest / limit / 2;
                }
            }
            double error = fabs(y[t * rows + r] - sum) / (1e-6 * size + 1.001 * allowed + 1e-30);
            if (!(error <= worst)) worst = error;
        }
    }
    check(worst < 1, "%s %s %dx%d, %d rows of x: %g of the error allowed", kernels->name, f->name,
          rows, cols, n, worst);
    munmap(data, mapped);
    free(x), free(y), free(w), free(bias);
}

/* The largest sums: quanta that are all alike, and x too, so that its quantization takes nothing
 * off. What overflows on the way is off by much more than rounding. */
static void test_matmul_extremes(llm_session *s, int type, int n)
{
    enum { ROWS = 33, COLS = 512 };
    static unsigned char data[ROWS * COLS * 2];
    static float x[TILE_ROWS * COLS], y[TILE_ROWS * ROWS], w[COLS];
    const Format *f = &formats[type];
    uint64_t random = 11;
    for (int byte = 0; byte < 256; byte += 17) {
        double sign = byte % 2 ? -1 : 1, worst = 0;
        memset(data, byte, sizeof data);
        for (int i = 0; i < ROWS * COLS / f->block; i++) {
            set_scales(&random, type, data + i * f->bytes, 1);
        }
        for (int i = 0; i < n * COLS; i++) x[i] = (float)sign;
        multiply(s, y, &(Mat){ f, ROWS, COLS, data, NULL }, x, n);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0, size = COLS;
            f->unpack(data + (size_t)r * row_bytes(f, COLS), w, COLS);
            for (int k = 0; k < COLS; k++) sum += sign * w[k], size += fabs(w[k]);
            double share = runs_on_tiles(n) ? tile_error(type) + 1e-5 : 1e-5;
            for (int t = 0; t < n; t++) {
                double error = fabs(y[t * ROWS + r] - sum) / (share * size);
                if (!(error <= worst)) worst = error;
            }
        }
        check(worst < 1, "%s %s, bytes %02x, %d rows of x: %g of the error allowed", kernels->name,
              f->name, (unsigned)byte, n, worst);
    }
}

/* Numbers that are none are not lost in integers, nor in bf16, and stay in their row of x. A block
 * whose scale is none, or too large, shows in all rows of x. */
static void test_matmul_nan(llm_session *s, int type, int n)
{
    unsigned char data[BAND * 256];
    float x[TILE_ROWS * 256], y[TILE_ROWS];
    uint64_t random = 9;
    random_blocks(&random, type, data, 256, 1);
    for (int i = 0; i < 4; i++) {
        Mat m = { &formats[type], 1, 256, data, NULL };
        for (int k = 0; k < n * 256; k++) x[k] = (float)(k % 5);
        x[i * 61 + 3] = x[i * 61 + 4] = i % 2 ? NAN : INFINITY;
        multiply(s, y, &m, x, n);
        int finite = 0;
        for (int t = 1; t < n; t++) finite += isfinite(y[t]);
        check(!isfinite(y[0]) && finite == n - 1, "%s %s, %d rows: %g, and %d finite numbers",
              kernels->name, formats[type].name, n, y[0], finite);
    }
    memset(data, 0xff, (size_t)formats[type].bytes);
    for (int k = 0; k < n * 256; k++) x[k] = 1;
    multiply(s, y, &(Mat){ &formats[type], 1, 256, data, NULL }, x, n);
    for (int t = 0; t < n; t++) {
        check(!isfinite(y[t]), "%s %s: %g from a scale that is none", kernels->name,
              formats[type].name, y[t]);
    }
}

static void test_matmul(void)
{
    uint64_t random = 3;
    Arena arena = { 0 };
    Buffers buffers = { .work = take(&arena, 2, sizeof(Scratch)) };
    llm_session s = { .threads = 2, .b = &buffers };
    for (size_t i = 1; i <= 2; i++) {
        buffers.acts[i - 1] = (Act){ { take(&arena, 4 * i, sizeof(Tiles)) },
                               take(&arena, 80, 64 * 4),
                               take(&arena, 80, 64 * 4) };
    }
    pick_kernels();
    for (size_t isa = 0; isa < ARRAY_LEN(isas); isa++) {
        if (!isas[isa].usable()) continue;
        kernels = &isas[isa];
        for (int type = 0; type < N_FORMATS; type++) {
            if (!formats[type].name) continue;
            for (int n = 1; n <= 70; n += n < 17 ? 1 : 13) {
                int rows = 1 + (int)(random_unit(&random) * 80), block = formats[type].block;
                int most = block == 1 ? 600 : block == 256 ? 4 : 640 / block;
                int blocks = 1 + (int)(random_unit(&random) * most);
                test_matmul_format(&s, type, rows, blocks, n, n % 2, &random);
            }
            for (int rows = BAND + 1; rows < BAND + 5;
                 rows++) { /* little is behind the first band */
                test_matmul_format(&s, type, rows, 1, 3, 0, &random);
            }
            s.threads = 1; /* more bands in a run than share a piece of x */
            test_matmul_format(&s, type, 390, 300 / formats[type].block + 1, 33, 1, &random);
            s.threads = 2;
            test_matmul_nan(&s, type, 2);
            test_matmul_nan(&s, type, TILE_ROWS);
            for (int n = 1; n <= TILE_ROWS && formats[type].bits; n += n < 7 ? 1 : 9) {
                test_matmul_extremes(&s, type, n);
            }
        }
    }
    release(&arena);
    pick_kernels();
}

/* Attention's products in tiles against double precision: any number of columns and rows, numbers
 * of the size that f16 has, none of what lies around them, NaN included, taken or changed. */
static void test_pairs(void)
{
    enum { BANDS = 3, COLS = 320, N = 40, LDY = BANDS * BAND + 3 };
    static const int cols[] = { 1, 31, 32, 64, 80, 255, 257, 299 };
    static float w[COLS * BANDS * BAND], kept[COLS * BANDS * BAND], x[N * COLS], y[N * LDY],
        before[N * LDY];
    static Scratch work;
    uint64_t random = 5;
    for (int c = 0; kernels->make_pairs && c < (int)ARRAY_LEN(cols) * 2; c++) {
        int m = cols[c / 2], n = 16 + c * 7 % (N - 16), side_by_side = c % 2;
        size_t ldw = side_by_side ? BANDS * BAND : BAND, band = side_by_side ? BAND : COLS * BAND;
        double worst = 0;
        for (size_t i = 0; i < ARRAY_LEN(w); i++) w[i] = NAN;
        for (int b = 0; b < BANDS; b++) {
            for (int k = 0; k < m * BAND; k++) {
                size_t at = (size_t)b * band + (size_t)(k / BAND) * ldw + (size_t)(k % BAND);
                float number = random_weight(&random);
                uint16_t half;
                pack_F16(&half, &number, 1);
                unpack_F16(&half, &w[at], 1);
            }
        }
        memcpy(kept, w, sizeof w);
        for (int i = 0; i < N * COLS; i++) x[i] = i % COLS < m ? random_weight(&random) : NAN;
        for (int i = 0; i < N * LDY; i++) y[i] = before[i] = random_weight(&random);
        kernels->make_pairs(w, ldw, band, BANDS, m);
        kernels->gemm_tiles(&work, y, LDY, w, ldw, band, BANDS, x, COLS, m, n);
        for (int i = 0; i < N * LDY; i++) {
            int t = i / LDY, r = i % LDY;
            double sum = before[i], size = fabs(sum);
            for (int k = 0; k < m && t < n && r < BANDS * BAND; k++) {
                double one = (double)kept[(size_t)(r / BAND) * band + (size_t)k * ldw +
                                          (size_t)(r % BAND)] *
                             x[t * COLS + k];
                sum += one, size += fabs(one);
            }
            double error = fabs(y[i] - sum) / (size * 2 * 0x1p-16 + 1e-30);
            if (!(error <= worst)) worst = error;
        }
        check(worst < 1, "tiles, %d columns, %d rows of x: %g of the error allowed", m, n, worst);
    }
}

/* exp within two units in the last place, and what is beyond its range. */
static void test_exponential(void)
{
    double worst = 0;
    for (double x = -69; x < 88; x += 0.00137) {
        double e = exp((double)(float)x);
        worst = fmax(worst, fabs(exponential((float)x) - e) / e);
    }
    check(worst < 2.4e-7, "exponential: error %g", worst);
    check(exponential(-INFINITY) == 0 && exponential(-1e9f) == 0 && exponential(0) == 1 &&
              exponential(-69.01f) == 0 && exponential(1e9f) > 1e38f && isnan(exponential(NAN)),
          "exponential of what is beyond its range");
}

/* Softmax over bands with the visible part of the last, for all kernels. */
static void test_softmax(void)
{
    uint64_t random = 5;
    pick_kernels();
    for (size_t isa = 0; isa < ARRAY_LEN(isas); isa++) {
        if (!isas[isa].usable()) continue;
        float scores[BAND], a = 0;
        double want = 0, sum = 0;
        Softmax f = { -INFINITY, 0 };
        for (int band = 0; band < 5; band++) {
            int visible = band == 4 ? 7 : BAND;
            float v[BAND];
            for (int i = 0; i < BAND; i++) {
                scores[i] = 20 * random_weight(&random) + 30 * (float)(band % 3);
                v[i] = random_weight(&random);
                if (i < visible) sum += exp(0.5 * scores[i] - 100);
                if (i < visible) want += exp(0.5 * scores[i] - 100) * v[i];
            }
            a *= isas[isa].softmax(&f, scores, BAND, visible, 0.5f);
            for (int i = 0; i < BAND; i++) {
                a += scores[i] * v[i];
                check(i < visible || scores[i] == 0, "an invisible score counts");
            }
        }
        check(fabs(a / f.sum - want / sum) < 1e-5, "%s: softmax in bands: %g, expected %g",
              isas[isa].name, a / f.sum, want / sum);
    }
}

static void test_numbers(void)
{
    check(pick_kernels() != NULL, "%s", llm_error());
    test_halves();
    test_half_rows();
    test_unpack();
    test_grids();
    test_pack();
    test_matmul();
    test_pairs();
    test_exponential();
    test_softmax();
}
