# make          the program ./run
# make demo     a story from the model that comes with the sources
# make test     all tests; needs a C compiler alone
# make debug    the tests under AddressSanitizer and UndefinedBehaviorSanitizer
# make examples programs over the API of run.c, in tests/tmp; see tests/examples
# make bench    speed on this machine, with model files it writes; THREADS=N FORMATS="F16 Q4_0"
# make tsan     the tests of threads under ThreadSanitizer
# make amx      all tests with AMX emulated, on a machine with AVX-512 and its bf16
# make parity   comparisons with Hugging Face and the gguf package; needs Python 3 and the network;
#               FAMILY=qwen3 compares the models of one family

CC ?= cc
CXX ?= c++
CFLAGS ?= -O3
WARNINGS = -Wall -Wextra
ARCH := $(shell uname -m)
# On x86 the fast kernels are chosen at run time; on ARM the compiler's flags choose them.
MACHINE := $(if $(filter arm64 aarch64,$(ARCH)),-mcpu=native)
# Threads of our own; `make THREADING='-fopenmp -DRUN_OPENMP'` runs on those of OpenMP.
THREADING = -pthread
FLAGS = -std=gnu11 $(CFLAGS) $(WARNINGS) $(MACHINE) $(THREADING)
PROGRAM = run
TMP = tests/tmp
BUNDLED = tests/models/stories.gguf
EXAMPLES = $(patsubst tests/examples/%.c,$(TMP)/%,$(wildcard tests/examples/*.c))
TESTS = tests/test.c $(wildcard tests/*.h) run.c tokenizer.c tokenizer.h Makefile

$(PROGRAM): run.c tokenizer.c tokenizer.h Makefile
	$(CC) $(FLAGS) run.c tokenizer.c -lm -o $@

demo: $(PROGRAM)
	@./$(PROGRAM) $(BUNDLED) -i "Once upon a time"
	@echo
	@echo "To chat with it: ./$(PROGRAM) $(BUNDLED) -m chat"

test: $(PROGRAM) $(TMP)/test $(EXAMPLES) $(TMP)/embed++ $(TMP)/failing $(TMP)/portable
	@RUN=./$(PROGRAM) $(TMP)/test

$(TMP)/test: $(TESTS)
	@mkdir -p $(TMP)
	$(CC) $(FLAGS) -DTMP='"$(TMP)"' tests/test.c tokenizer.c -lm -o $@

# As users of the library build it.
$(TMP)/run.o: run.c tokenizer.c tokenizer.h Makefile
	@mkdir -p $(TMP)
	$(CC) $(FLAGS) -std=c11 -DRUN_NO_MAIN -c run.c -o $@
	$(CC) $(FLAGS) -std=c11 -c tokenizer.c -o $(TMP)/tokenizer.o
	printf '\043include "run.c"\n\043include "tokenizer.c"\n' | \
	    $(CC) $(FLAGS) -std=c11 -Wshadow -DRUN_NO_MAIN -I. -fsyntax-only -x c -

examples: $(EXAMPLES)

$(EXAMPLES): $(TMP)/%: tests/examples/%.c $(TMP)/run.o
	$(CC) $(FLAGS) -std=c11 $< $(TMP)/run.o $(TMP)/tokenizer.o -lm -o $@

$(TMP)/embed++: $(TMP)/embed
	-$(CXX) $(CFLAGS) $(WARNINGS) $(THREADING) -x c++ tests/examples/embed.c -x none \
	    $(TMP)/run.o $(TMP)/tokenizer.o -lm -o $@

# The program with an allocation that fails; see tests/failing.h.
$(TMP)/failing: tests/failing.h run.c tokenizer.c tokenizer.h Makefile
	@mkdir -p $(TMP)
	$(CC) $(FLAGS) -O0 -include tests/failing.h run.c tokenizer.c -lm -o $@

SANITIZE = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
debug:
	@mkdir -p tests/tmp/debug
	@$(MAKE) --no-print-directory test TMP=tests/tmp/debug PROGRAM=tests/tmp/debug/run CFLAGS='$(SANITIZE)'

# What the tests of threads do, under ThreadSanitizer.
tsan:
	@mkdir -p tests/tmp/tsan
	$(CC) $(FLAGS) -O1 -g -fsanitize=thread -DTMP='"tests/tmp/tsan"' tests/test.c tokenizer.c -lm -o tests/tmp/tsan/test
	@TSAN_OPTIONS=halt_on_error=1 tests/tmp/tsan/test threads

# The program without the kernels of any instruction set.
$(TMP)/portable: run.c tokenizer.c tokenizer.h Makefile
	@mkdir -p $(TMP)
	$(CC) $(FLAGS) -DRUN_PORTABLE run.c tokenizer.c -lm -o $@

amx:
	@mkdir -p tests/tmp/amx
	$(CC) $(FLAGS) -include tests/amx.h -DTMP='"tests/tmp/amx"' tests/test.c tokenizer.c -lm -o tests/tmp/amx/test
	$(CC) $(FLAGS) -include tests/amx.h run.c tokenizer.c -lm -o tests/tmp/amx/run
	@$(MAKE) --no-print-directory TMP=tests/tmp/amx examples tests/tmp/amx/embed++ \
	    tests/tmp/amx/failing tests/tmp/amx/portable
	@RUN=tests/tmp/amx/run tests/tmp/amx/test

parity: .venv/ready $(PROGRAM)
	.venv/bin/python tests/parity/run.py $(if $(FAMILY),--family $(FAMILY),$(ONLY))

.venv/ready: tests/parity/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet -r tests/parity/requirements.txt
	touch $@

# Writes tests/bench/results.tsv and chart.svg; tests/bench/peers.sh measures llama.cpp in turn.
bench: $(PROGRAM) $(TMP)/bench
	@$(TMP)/bench --program ./$(PROGRAM) $(FORMATS)

bench-program: $(TMP)/bench

$(TMP)/bench: tests/bench/bench.c tests/files.h run.c tokenizer.c tokenizer.h Makefile
	@mkdir -p $(TMP)
	$(CC) $(FLAGS) -DTMP='"$(TMP)"' tests/bench/bench.c tokenizer.c -lm -o $@

clean:
	rm -rf run tests/tmp

.PHONY: demo test examples debug tsan amx bench bench-program parity clean
