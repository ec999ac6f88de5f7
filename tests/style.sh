#!/bin/sh
# The limits of our style: line and function length, preprocessor conditionals, function-like macros, and lines
# of each section. Prints what is over them. A section's limit is what it has: growth is a decision, made here.
set -u
status=0
for file in run.c tokenizer.c tokenizer.h tests/*.c tests/*.h tests/examples/*.c; do
    awk -v file="$file" '
        { line = $0; gsub(/[\200-\277]/, "", line) }
        length(line) > 100 { print file ":" NR ": longer than 100 columns"; bad = 1 }
        /\t/ { print file ":" NR ": a tab"; bad = 1 }
        /[ ]$/ { print file ":" NR ": white space at the end"; bad = 1 }
        /TODO|FIXME|XXX/ { print file ":" NR ": an open end"; bad = 1 }
        /^{$/ { start = NR }
        /^}$/ && start { if (NR - start > 61) { print file ":" start ": a function of " NR - start - 1 " lines"; bad = 1 }; start = 0 }
        END { exit bad }' "$file" || status=1
done
# Sections of a file (they begin with a line /* ==== NAME ====) against their limits, "LINES NAME" a line.
sections() {
    awk -v file="$1" -v limits="$(echo "$2" | tr '\n' ';')" '
        BEGIN { n = split(limits, rows, ";"); for (i = 1; i <= n; i++) { most[substr(rows[i], index(rows[i], " ") + 1)] = rows[i] + 0 } }
        function close_section() { if (name != "" && !(NR - start <= most[name])) { print file ": section " name " has " NR - start " lines, at most " most[name]; bad = 1 } }
        /^\/\* ==== / { close_section(); name = $0; sub(/^\/\* ==== /, "", name); sub(/ ====.*/, "", name); start = NR }
        END { NR++; close_section(); exit bad }' "$1" || status=1
}
sections run.c "290 0. Public API
422 1. Limits and helpers
528 2. Number formats
392 3. GGUF
1568 4. Model
848 5. Session
640 6. Math
605 7. Mixers
175 8. Feed-forward
310 9. forward
125 10. Sampling
1512 11. Chat and generation
1932 12. Command line
1640 13. Appendix: kernels by instruction set"
sections tokenizer.c "195 Unicode
350 Patterns
159 Rules
370 Vocabulary
220 Normalization
180 Merging
161 Encode
35 Decode
155 Making a tokenizer
520 Templates: values
175 Templates: values as text
590 Templates: filters, tests, methods, functions
505 Templates: what nodes do
610 Templates: the parser
115 Templates: making and rendering"
macros=$(cat run.c tokenizer.c | grep -cE '^#define [A-Za-z_0-9]+\(')
[ "$macros" -le 35 ] || { echo "run.c and tokenizer.c: $macros macros with arguments"; status=1; }
conditionals=$(grep -cE '^ *# *(if|ifdef|ifndef|elif|else)' run.c)
[ "$conditionals" -le 30 ] || { echo "run.c: $conditionals preprocessor conditionals"; status=1; }
exit $status
