#!/bin/sh
# The limits of our style: line length, function length, preprocessor conditionals. Prints what is over them.
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
conditionals=$(grep -cE '^ *# *(if|ifdef|ifndef|elif|else)' run.c)
[ "$conditionals" -le 30 ] || { echo "run.c: $conditionals preprocessor conditionals"; status=1; }
exit $status
