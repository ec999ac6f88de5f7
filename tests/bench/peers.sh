#!/usr/bin/env bash
# Measures llama.cpp's llama-bench in turn with ./run on the files of `make bench`, and writes
# peers.tsv, results.tsv and chart.svg here: same file, same threads, in turn, medians.
#
#   tests/bench/peers.sh LLAMA_BENCH [NAME [LLAMA_BENCH NAME]...]
#
# More than one where there are several builds of it, each with its name. From the environment:
# THREADS, ROUNDS (3), FORMATS (all of `make bench`), BENCH_OPTIONS (more options of bench.c).
#
#   tests/bench/peers.sh --once LLAMA_BENCH FILE THREADS
#
# prints its speeds as `run -b` does. bench.c calls this, or any other command that prints such
# lines: a peer of another kind needs no more than that.
set -u

# Layers stay on the CPU where llama.cpp was built with something else too.
once() {
    "$1" -m "$2" -t "$3" -ngl 0 -p 512 -n 64 -r 3 -o json | awk '
        /"n_prompt":/ { prompt = $2 + 0 }
        /"n_gen":/ { written = $2 + 0 }
        /"samples_ts"/ {
            name = ""
            if (prompt == 512 && written == 0) name = "pp512"
            if (prompt == 0 && written == 64) name = "tg64"
            sub(/.*"samples_ts": *\[ */, "")
            sub(/ *\].*/, "")
            n = split($0, speed, / *, */)
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && speed[j] + 0 < speed[j - 1] + 0; j--) {
                    swap = speed[j]; speed[j] = speed[j - 1]; speed[j - 1] = swap
                }
            if (name != "" && n > 0) {
                printf "%s %.2f tok/s best, ", name, speed[n]
                printf "%.2f median of %d\n", speed[int(n / 2) + 1], n
            }
        }'
}

if [ "${1-}" = --once ] && [ $# -eq 4 ]; then
    once "$2" "$3" "$4"
    exit
fi

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: peers.sh LLAMA_BENCH [NAME [LLAMA_BENCH NAME]...]" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
peers=()
while [ $# -gt 0 ]; do
    path=$(command -v "$1") || { echo "peers.sh: $1 is no program" >&2; exit 1; }
    case $path in /*) ;; *) path=$PWD/$path ;; esac
    command=$(printf 'bash %q --once %q' "$here/peers.sh" "$path")
    peers+=(--peer "${2:-llama.cpp}" "$command")
    shift $(($# < 2 ? $# : 2))
done
cd "$here/../.." || exit 1
make --no-print-directory run tests/tmp/bench || exit 1
# shellcheck disable=SC2086
exec tests/tmp/bench --program ./run "${peers[@]}" ${BENCH_OPTIONS-} ${FORMATS-}
