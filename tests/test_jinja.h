/* Chat templates: the language Jinja, where the texts are what jinja2 makes of the templates as
 * transformers sets it up; which bytes count as the template's; and programs that want to use up
 * time, memory or the stack. */

/* A template, its variables (a JSON object, NULL: none), and what comes of it. */
typedef struct {
    const char *template, *variables, *text;
} JinjaCase;

static char jinja_error[512];

static tokenizer_variables jinja_variables(const char *json, int trusted)
{
    if (!json) json = "{}";
    return (tokenizer_variables){ { json, strlen(json) }, trusted };
}

/* Renders a text (len bytes) that the caller frees; -1 with a sentence in jinja_error. */
static int jinja_render(const char *source, size_t len, const tokenizer_variables *v, int n,
                        tokenizer_marked *to)
{
    *jinja_error = 0;
    *to = (tokenizer_marked){ NULL, NULL, 0 };
    tokenizer_template *t = tokenizer_template_new(source, len, jinja_error, sizeof jinja_error);
    int status = t ? tokenizer_render(t, v, n, 0, to, jinja_error, sizeof jinja_error) : -1;
    tokenizer_template_free(t);
    return status;
}

/* clang-format off */
static const JinjaCase jinja_cases[] = {
    /* What is printed */
    { "", NULL, "" },
    { "a{{ 1 }}b{# no #}c", NULL, "a1bc" },
    { "{{ true }} {{ False }} {{ none }} {{ x }}|", NULL, "True False None |" },
    { "{{ 'a' }}{{ \"b'\" }}{{ 'c\"' }}", NULL, "ab'c\"" },
    { "{{ 'a' 'b' \"c\" }}", NULL, "abc" },
    { "{{ 'é日🦙' }} é日🦙", NULL, "é日🦙 é日🦙" },
    { "{{ 'a\\n\\t\\\\\\'\\\"b\\q\\x41\\u00e9\\U0001f999' }}", NULL, "a\n\t\\'\"b\\qAé🦙" },
    { "{{ x }} {{ y }} {{ z }}",
      "{\"x\":\"a\\/b\\b\\f\\u0041\",\"y\":\"\\ud83e\\udd99\\ud83e\\udd99\",\"z\":\"\\\\n"
      "\\\\u0041\"}", "a/b\010\014A 🦙🦙 \\n\\u0041" },
    { "{{ x }} {{ y }}", "{\"x\":\"\\u00e9\\ud83e\\udd99\\n\\\"\",\"y\":\"é\"}", "é🦙\n\" é" },
    { "{{ (1, 2)[1] }} {{ (1,)|length }} {{ ()|length }}{{ 'a' in ('a', 'b') }}{{ (1) + 2 }}",
      NULL, "2 1 0True3" },
    { "a\r\nb\rc\n{{ 'd' }}\n", NULL, "a\nb\nc\nd" },
    { "{{ '{{' }} {{ '%}' }} {{ {'a': {'b': 1}} }}", NULL, "{{ %} {'a': {'b': 1}}" },
    { "{{ \"}}\" }}{{ {'a':{}}['a'] }}", NULL, "}}{}" },
    /* Numbers */
    { "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 6 / 3 }}",
      NULL, "3 -4 1 2 -2 3.5 2.0" },
    { "{{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7.5 // 2 }} {{ -7.5 % "
      "2 }}", NULL, "1024 0.5 64 4 3.0 0.5" },
    { "{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e3 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} "
      "{{ 1.5e-7 }}", NULL,
      "1.0 0.30000000000000004 1000.0 1e+16 1000000000000000.0 0.0001 1e-05 1.5e-07" },
    { "{{ 1_000 }} {{ 123456789 * 1000 }} {{ 9007199254740993 }} {{ -5 }} {{ +5 }} {{ - -5 }}",
      NULL, "1000 123456789000 9007199254740993 -5 5 5" },
    { "{{ x }} {{ y }} {{ z }} {{ w }}", "{\"x\":1e2,\"y\":-0.5,\"z\":12345678901234,\"w\":3.0}",
      "100.0 -0.5 12345678901234 3.0" },
    { "{{ 1 + true }} {{ true + true }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 3 * 1.5 }} {{ 10 - "
      "2.5 }}", NULL, "2 2 True True 4.5 7.5" },
    { "{{ 9223372036854775807 }} {{ x }}", "{\"x\":123456789012345678901234567890}",
      "9223372036854775807 123456789012345678901234567890" },
    /* Operators and how tightly they hold */
    { "{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 2 * 3 % 4 }} {{ 10 - 2 - 3 }} {{ 20 // 3 * 2 }}",
      NULL, "7 9 2 5 12" },
    { "{{ 1 ~ 2 * 3 }} {{ 'a' ~ 1 ~ none ~ true }} {{ 'x' + 1 ~ 2 }} {{ 1 ~ -2 }}", NULL,
      "16 a1NoneTrue x12 1-2" },
    { "{{ not true == false }} {{ not 1 in [2] }} {{ not not 1 }} {{ not 0 and 1 }}", NULL,
      "True True True 1" },
    { "{{ true or false and false }} {{ 0 or '' or 'x' }} {{ 1 and 2 and 0 }} {{ none or x "
      "or [] }}", NULL, "True x 0 []" },
    { "{{ 1 < 2 }} {{ 2 <= 2 }} {{ 3 > 4 }} {{ 3 >= 4 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ "
      "1 == 1 != 2 }}", NULL, "True True False False True False True" },
    { "{{ 'a' < 'b' }} {{ 'a' < 'B' }} {{ [1, 2] < [1, 3] }} {{ 'ab' > 'a' }} {{ 'é' > 'z' }}",
      NULL, "True False True True True" },
    { "{{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'ell' in 'hello' }} {{ 'k' in {'k': 1} }} "
      "{{ '' in 'a' }}", NULL, "True True True True True" },
    { "{{ 'yes' if 1 else 'no' }} {{ 'yes' if 0 else 'no' }} {{ 'yes' if 0 }}| {{ 1 if 0 "
      "else 2 if 0 else 3 }}", NULL, "yes no | 3" },
    { "{{ 1 + 2 if false else 4 }} {{ [1 if true else 2, 3] }} {{ (1 if x else 2) + 1 }}", NULL,
      "4 [1, 3] 3" },
    { "{{ 'a' * 3 }} {{ [1, 2] * 2 }} {{ 'a' * 0 }}{{ 'a' * -1 }} {{ [1] + [2] }} {{ 'a' + "
      "'b' }}", NULL, "aaa [1, 2, 1, 2]  [1, 2] ab" },
    { "{{ -x|string|length }} {{ -3|string ~ 'a' }} {{ 1 + 2|string|length }} {{ 'a' ~ "
      "'b'|upper }}", "{\"x\":4}", "2 -3a 2 aB" },
    { "{{ x.y is defined and x.y == 2 }} {{ 1 is integer and 'a' is string }} {{ not x is "
      "defined }}", "{\"x\":{\"y\":2}}", "True True False" },
    { "{{ 2 is eq(2) and true }} {{ 5 is not eq(2) }} {{ 1 == 1 is true }} {{ 1 is number "
      "and 2 is not string or x is defined }}", NULL, "True True False True" },
    { "{{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ 'a' == 1 }} {{ none == false "
      "}} {{ x == y }}", NULL, "True True False False True" },
    { "{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ (1, 2) == (1, 2) }} {{ [] != [0] }}", NULL,
      "True True True" },
    { "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c[1] }}{% set (d, e) = [3, 4] "
      "%}{{ d }}{{ e }}", NULL, "12234" },
    /* Members, items and slices */
    { "{{ x.a }}{{ x['a'] }}{{ x.b.c }}{{ x.b['c'] }}{{ x['b'].c }} {{ x.none }}|{{ "
      "x['none'] }}|", "{\"x\":{\"a\":1,\"b\":{\"c\":2}}}", "11222 ||" },
    { "{{ l[0] }}{{ l[-1] }}{{ l[9] }}|{{ l.0 }}{{ s[1] }}{{ s[-1] }}{{ s[7] }}|",
      "{\"l\":[1,2,3],\"s\":\"héy\"}", "13|1éy|" },
    { "{{ l[1:] }} {{ l[:1] }} {{ l[:-1] }} {{ l[::2] }} {{ l[::-1] }} {{ l[3:1:-1] }} {{ "
      "l[9:] }} {{ l[-2:] }}", "{\"l\":[1,2,3,4,5]}",
      "[2, 3, 4, 5] [1] [1, 2, 3, 4] [1, 3, 5] [5, 4, 3, 2, 1] [4, 3] [] [4, 5]" },
    { "{{ s[1:] }} {{ s[:1] }} {{ s[:-1] }} {{ s[::2] }} {{ s[::-1] }} {{ s[3:1:-1] }} {{ "
      "s[9:] }}| {{ s[-2:] }}", "{\"s\":\"añbcd\"}", "ñbcd a añbc abd dcbña cb | cd" },
    { "{{ s[1:3] }} {{ s[-3:-1] }} {{ s[4:1] }}| {{ s[1:none] }} {{ s[none:2] }} {{ l[-9:9] "
      "}} {{ l[:] }}", "{\"s\":\"abcde\",\"l\":[1,2]}", "bc cd | bcde ab [1, 2] [1, 2]" },
    { "{{ s[-1:-4:-1] }} {{ s[10:0:-2] }} {{ s[::-3] }} {{ l[1::2] }} {{ l[:-9:-1] }} {{ "
      "l[5::-1] }}", "{\"s\":\"abcde\",\"l\":[1,2,3,4]}",
      "edc ec eb [2, 4] [4, 3, 2, 1] [4, 3, 2, 1]" },
    { "{{ {'a': 1, 'b': 2, 'a': 3} }} {{ {1: 'x'}[1] }} {{ {'a b': 2}['a b'] }} {{ {'k': [1, "
      "{'z': none}]} }}", NULL, "{'a': 3, 'b': 2} x 2 {'k': [1, {'z': None}]}" },
    { "{{ m['items'] }} {{ m.get('items') }}", "{\"m\":{\"items\":1}}", "1 1" },
    { "{{ messages[0]['content'][0].text }} {{ messages[-1].role }}",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"hi\"}]}]}", "hi user" },
    { "{{ 'abc'[1] }} {{ [1, 2][1] }} {{ (1, 2)[0] }} {{ {'a': 'xyz'}.a[1:] }} {{ "
      "'a,b'.split(',')[1] }}", NULL, "b 2 1 yz b" },
    { "{{ x.a[0].b }} {{ x.c }} {{ x.d }} {{ x.e }} {{ x.f }}",
      "{\"x\" : { \"a\" : [ {\"b\":-1.5e1} , 2 ], \"c\":true,\"d\":false,\"e\":null,\"f\":[ "
      "]}}", "-15.0 True False None []" },
    /* What is undefined */
    { "{{ x }}|{{ x|length }}|{{ x|list }}|{{ x|default('d') }}|{{ x is defined }}|{{ x == y }}",
      NULL, "|0|[]|d|False|True" },
    { "{% for a in x %}{{ a }}{% else %}none{% endfor %}{% if x %}yes{% else %}no{% endif %}",
      NULL, "noneno" },
    { "{{ x ~ 'a' }}|{{ x|string }}|{{ x|join }}|{{ x|first }}|{{ [x] }}|{{ x|upper }}", NULL,
      "a||||[Undefined]|" },
    { "{{ none.y }}|{{ none.y is defined }}|{{ 'a'.y is defined }}", NULL, "|False|False" },
    { "{{ n.y is defined }}|{{ n.y }}|", "{\"n\":null}", "False||" },
    /* for */
    { "{% for a in [1, 2, 3] %}{{ a }},{% endfor %}", NULL, "1,2,3," },
    { "{% for c in 'héy' %}{{ c }}.{% endfor %}{% for k in {'a': 1, 'b': 2} %}{{ k }}{% "
      "endfor %}", NULL, "h.é.y.ab" },
    { "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}", NULL,
      "a=1 b=2 " },
    { "{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}", NULL, "123" },
    { "{% for a in [] %}x{% else %}empty{% endfor %}{% for a in [1] %}y{% else %}empty{% "
      "endfor %}", NULL, "emptyy" },
    { "{% for a in range(6) if a % 2 == 1 %}{{ loop.index }}:{{ a }}/{{ loop.length }} {% "
      "endfor %}", NULL, "1:1/3 2:3/3 3:5/3 " },
    { "{% for a in [1, 2] if a > 5 %}x{% else %}none{% endfor %}", NULL, "none" },
    { "{% for a in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ "
      "loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}", NULL,
      "1032TrueFalse3 2121FalseFalse3 3210FalseTrue3 " },
    { "{% for a in [1, 2, 3] %}{{ loop.previtem }}<{{ a }}>{{ loop.nextitem }} {% endfor %}",
      NULL, "<1>2 1<2>3 2<3> " },
    { "{% for a in [1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ "
      "loop.nothing is defined }} {% endfor %}", NULL, "FalseTrueFalse TrueFalseFalse " },
    { "{% for a in [1, 2] %}{% for b in [1, 2] %}{{ a }}{{ b }}{{ loop.index }} {% endfor "
      "%}{{ loop.index }};{% endfor %}", NULL, "111 122 1;211 222 2;" },
    { "{% for a in [1, 2] %}{% set outer = loop %}{% for b in 'xy' %}{{ outer.index }}{{ b "
      "}}{% endfor %}{% endfor %}", NULL, "1x1y2x2y" },
    { "{% for a in range(9) %}{% if a == 1 %}{% continue %}{% endif %}{% if a == 4 %}{% "
      "break %}{% endif %}{{ a }}{% endfor %}.", NULL, "023." },
    { "{% for a in [1, 2] %}{% for b in [1, 2] %}{% if b == 2 %}{% break %}{% endif %}{{ a "
      "}}{{ b }} {% endfor %}|{% endfor %}", NULL, "11 |21 |" },
    { "{% for n in t recursive %}{{ n.a }}{% if n.c %}({{ loop(n.c) }}){% endif %}{{ "
      "loop.depth }}{{ loop.depth0 }} {% endfor %}",
      "{\"t\":[{\"a\":1,\"c\":[{\"a\":2},{\"a\":3,\"c\":[{\"a\":4}]}]},{\"a\":5}]}",
      "1(221 3(432 )21 )10 510 " },
    { "{% set x = 1 %}{% for a in [1, 2] %}{% set x = x + a %}{{ x }}{% endfor %}{{ x }}", NULL,
      "231" },
    { "{% set ns = namespace(n=0, t='') %}{% for a in [1, 2] %}{% set ns.n = ns.n + a %}{% "
      "set ns.t = ns.t ~ a %}{% endfor %}{{ ns.n }} {{ ns.t }}", NULL, "3 12" },
    { "{% for a in [1, 2] %}{{ a }}{% endfor %}{{ a is defined }}{{ loop is defined }}", NULL,
      "12FalseFalse" },
    { "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content"
      "\":\"b\"}]}", "user:a;assistant:b;" },
    { "{% for a in range(3) %}{{ a }}{{ ', ' if not loop.last }}{% endfor %}", NULL, "0, 1, 2" },
    { "{% for a in [3, 1, 2]|sort %}{{ a }}{% endfor %}{% for a in [1, 2][::-1] %}{{ a }}{% "
      "endfor %}", NULL, "12321" },
    /* if, set, with */
    { "{% if x == 1 %}a{% elif x == 2 %}b{% elif x == 3 %}c{% else %}d{% endif %}", "{\"x\":3}",
      "c" },
    { "{% if 0 %}a{% elif '' %}b{% endif %}{% if [] %}c{% elif {} %}d{% else %}e{% endif %}",
      NULL, "e" },
    { "{% if 0.0 %}a{% elif none %}b{% elif 'x' %}c{% endif %}{% if {'a': 1} and [0] %}d{% "
      "endif %}", NULL, "cd" },
    { "{% if true %}{% set x = 5 %}{% endif %}{{ x }}", NULL, "5" },
    { "{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x }}{{ x|length }}", NULL, "a2b3" },
    { "{% set x | upper | replace('B', 'c') %}abc{% endset %}{{ x }}", NULL, "AcC" },
    { "{% set x = [1, 2] %}{% set x = x + [3] %}{{ x }}", NULL, "[1, 2, 3]" },
    { "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}{{ ns['a'] }}",
      NULL, "1False1" },
    { "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% set ns.a = 'x' %}{{ "
      "ns.a }}", NULL, "12x" },
    { "{% generation %}a{{ 1 }}{% endgeneration %}b", NULL, "a1b" },
    { "{% set x = 1 %}{% if x %}{% set x = 2 %}{% set y = 3 %}{% endif %}{{ x }}{{ y }}", NULL,
      "23" },
    /* Macros, calls, filter blocks */
    { "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) "
      "}} {{ m(1, c='y') }} {{ m(b=5, a=4) }}", NULL, "12x 13x 12y 45x" },
    { "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}{{ m('x')|upper }}{{ m(1) ~ m(2) }}{{ "
      "m(m(3)) }}", NULL, "[][X][1][2][[3]]" },
    { "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}", NULL, "1112" },
    { "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
      NULL, "3210" },
    { "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", NULL, "2" },
    { "{% macro m() %}{% set y = 1 %}{{ y }}{% endmacro %}{{ m() }}{{ y is defined }}", NULL,
      "1False" },
    { "{% macro m(a) %}<{{ caller() }}{{ a }}>{% endmacro %}{% call m(1) %}in{% endcall %}", NULL,
      "<in1>" },
    { "{% macro m(l) %}{% for a in l %}{{ caller(a) }};{% endfor %}{% endmacro %}{% call(x) "
      "m([1, 2]) %}({{ x }}){% endcall %}", NULL, "(1);(2);" },
    { "{% macro m() %}{% for a in [1, 2, 3] %}{% if a == 2 %}{% break %}{% endif %}{{ a }}{% "
      "endfor %}.{% endmacro %}{% for b in [1, 2] %}{{ m() }}{% endfor %}", NULL, "1.1." },
    { "{% filter upper %}a{{ 'b' }}c{% endfilter %}{% filter replace('a', 'b')|upper %}aa{% "
      "endfilter %}", NULL, "ABCBB" },
    { "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}b{% endmacro %}{{ a() }}", NULL,
      "b" },
    { "{% macro m(x) %}{{ x|length }}{% endmacro %}{{ m(*[[1, 2, 3]]) }}", NULL, "3" },
    { "{% macro m() %} a {% endmacro %}{{ m()|trim }}{{ m() == ' a ' }}{{ m is defined }}", NULL,
      "aTrueTrue" },
    /* White space and line ends */
    { "a\n  {% if 1 %}\n  b\n  {% endif %}\nc", NULL, "a\n  b\nc" },
    { "a\n  {%+ if 1 %}\n  b\n  {%+ endif %}\nc", NULL, "a\n    b\n  c" },
    { "a\n  {%- if 1 -%}\n  b\n  {%- endif -%}\n  c", NULL, "abc" },
    { "a \n {{- 1 -}} \n b {{- ' c ' -}}  d", NULL, "a1b c d" },
    { "  {# c #}\na {# c #}\nb  {#- c -#}  \n d", NULL, "a bd" },
    { "{% if 1 +%}\na\n{% endif +%}\nb", NULL, "\na\n\nb" },
    { "  {% set x = 1 %}  {{ x }}\n\t{% set y = 2 %}\n{{ y }}  ", NULL, "  1\n2  " },
    { "x {% if 1 %}  y  {% endif %} z", NULL, "x   y   z" },
    { "{% for a in [1, 2] %}\n  {{ a }}\n{% endfor %}\nend\n", NULL, "  1\n  2\nend" },
    { "a\n\n{% if 1 %}\n\nb\n\n{% endif %}\n\nc\n\n", NULL, "a\n\n\nb\n\n\nc\n" },
    { "{{ 1 }}\n{{ 2 }}\n\n  {{ 3 }}", NULL, "1\n2\n\n  3" },
    { "a\r\n  {% if 1 %}\r\nb\r\n{% endif %}\r\n", NULL, "a\nb\n" },
    { "{%- set a = 1 -%}  \n  {%- set b = 2 %}  \n  {{ a }}{{- b }}", NULL, "  \n  12" },
    { "{% if 1 -%}   a   {%- else -%}  b  {%- endif %}   c", NULL, "a   c" },
    { " {#- x -#} a {#+ y #} b", NULL, "a  b" },
    { "{{ [1,\n2] }}{% set x = {\n  'a': 1,\n} %}{{ x.a }}{{\n1\n}}", NULL, "[1, 2]11" },
    /* Filters */
    { "{{ 'hELLO wORLD'|capitalize }} {{ 'éa'|capitalize }} {{ ''|capitalize }}|", NULL,
      "Hello world Éa |" },
    { "{{ [1, 2]|count }} {{ 'abc'|length }} {{ {'a': 1}|length }} {{ ''|length }} {{ "
      "'é🦙'|length }}", NULL, "2 3 1 0 2" },
    { "{{ x|d('a') }} {{ ''|d('a') }}| {{ ''|default('a', true) }} {{ none|default('a') }} "
      "{{ 0|default(1, boolean=true) }} {{ x|default }}|", NULL, "a | a None 1 |" },
    { "{% for k, v in {'b': 1, 'A': 2, 'c': 0}|dictsort(by='value') %}{{ k }}{{ v }} {% "
      "endfor %}{% for k, v in {'a': 1, 'b': 2}|dictsort(reverse=true) %}{{ k }}{{ v }} {% "
      "endfor %}", NULL, "c0 b1 A2 b2 a1 " },
    { "{% for k, v in {'b': 1, 'A': 2, 'B': 3, 'a': 4}|dictsort %}{{ k }}{% endfor %} {% for "
      "k, v in {'b': 1, 'A': 2, 'B': 3, 'a': 4}|dictsort(true) %}{{ k }}{% endfor %}", NULL,
      "AabB ABab" },
    { "{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}{{ v }}{% endfor %}", NULL, "a2b1" },
    { "{{ [1, 2]|first }} {{ 'abc'|first }} {{ []|first }}| {{ {'a': 1}|first }} {{ [1, "
      "2]|last }} {{ 'abc'|last }} {{ []|last }}|", NULL, "1 a | a 2 c |" },
    { "{{ '1.5'|float }} {{ 'x'|float }} {{ 'x'|float(2.5) }} {{ 3|float }} {{ ' 2 '|float "
      "}} {{ '1e2'|float }}", NULL, "1.5 0.0 2.5 3.0 2.0 100.0" },
    { "{{ '12'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ '-3.9'|int }} {{ "
      "true|int }} {{ ' 5 '|int }} {{ 'x'|int(default=2) }}", NULL, "12 0 7 3 -3 1 5 2" },
    { "{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(1, "
      "blank=true) }}|{{ 'a\nb'|indent('> ') }}", NULL,
      "a\n    b\n\n    c|  a\n  b|a\n \n b|a\n> b" },
    { "{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}{{ x|items|list }}", NULL,
      "a1[]" },
    { "{{ [1, 2, 'c']|join }} {{ [1, 2]|join(', ') }} {{ 'abc'|join('.') }} {{ [{'a': 1}, "
      "{'a': 2}]|join('-', attribute='a') }} {{ []|join('x') }}|", NULL, "12c 1, 2 a.b.c 1-2 |" },
    { "{{ 'abc'|list }} {{ {'a': 1}|list }} {{ range(3)|list }} {{ (1, 2)|list }} {{ "
      "[[1]]|list }}", NULL, "['a', 'b', 'c'] ['a'] [0, 1, 2] [1, 2] [[1]]" },
    { "{{ 'ABC É'|lower }} {{ 'abc é'|upper }} {{ 12|upper }} {{ none|lower }} {{ "
      "'straße'|lower }}", NULL, "abc é ABC É 12 none straße" },
    { "{{ [{'a': 1}, {'a': 2}]|map(attribute='a')|list }} {{ ['a', 'b']|map('upper')|join }} "
      "{{ [{'a': {'b': 3}}]|map(attribute='a.b')|list }}", NULL, "[1, 2] AB [3]" },
    { "{{ [{'a': 1}, {}]|map(attribute='a', default=0)|list }} {{ ['a b']|map('replace', ' "
      "', '_')|first }} {{ [[1, 2]]|map('join', '+')|list }} {{ [[1], "
      "[2]]|map(attribute=0)|list }}", NULL, "[1, 0] a_b ['1+2'] [1, 2]" },
    { "{{ [2, 3, 1]|max }} {{ [2, 3, 1]|min }} {{ ['b', 'A']|min }} {{ ['b', 'A']|max }} {{ "
      "[]|max }}| {{ ['a', 'B']|max(case_sensitive=true) }} {{ ['a', 'B']|min(true) }} {{ "
      "[{'a': 2}, {'a': 1}]|min(attribute='a') }}", NULL, "3 1 A b | a B {'a': 1}" },
    { "{{ [1, 'a', 2]|select('string')|list }} {{ [0, 1, '']|select|list }} {{ [1, 'b', "
      "3]|reject('string')|list }} {{ [0, 1]|reject|list }} {{ [1, 5]|select('gt', 3)|list }}",
      NULL, "['a'] [1] [1, 3] [0] [5]" },
    { "{{ l|selectattr('a')|list|length }} {{ l|selectattr('a', 'equalto', "
      "2)|map(attribute='b')|list }} {{ l|rejectattr('a')|map(attribute='b')|list }} {{ "
      "l|rejectattr('a', 'eq', 2)|map(attribute='b')|list }} {{ l|selectattr('c', "
      "'defined')|list }}",
      "{\"l\":[{\"a\":1,\"b\":\"x\"},{\"a\":2,\"b\":\"y\"},{\"a\":0,\"b\":\"z\"}]}",
      "2 ['y'] ['z'] ['x', 'z'] []" },
    { "{{ messages|selectattr('role', 'in', ['user', 'tool'])|map(attribute='content')|join('"
      "+') }}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content"
      "\":\"b\"},{\"role\":\"tool\",\"content\":\"c\"}]}", "a+c" },
    { "{{ 'aaa'|replace('a', 'b') }} {{ 'aaa'|replace('a', 'b', 2) }} {{ 'abc'|replace('', "
      "'-') }} {{ 'abcabc'|replace('bc', '') }} {{ 'a'|replace('x', 'y') }}", NULL,
      "bbb bba -a-b-c- aa a" },
    { "{{ '<b>&'|safe }} {{ 1|safe }} {{ '<b>' }}", NULL, "<b>& 1 <b>" },
    { "{{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A', 'a', "
      "'B']|sort(case_sensitive=true) }} {{ [1, 3, 2]|sort(reverse=true) }} {{ [{'a': 2}, "
      "{'a': 1}]|sort(attribute='a') }}", NULL,
      "[1, 2, 3] ['A', 'b', 'c'] ['A', 'B', 'a', 'b'] [3, 2, 1] [{'a': 1}, {'a': 2}]" },
    { "{{ 1|string }} {{ none|string }} {{ [1, 'a']|string }} {{ 1.0|string }} {{ "
      "12|string|length }}", NULL, "1 None [1, 'a'] 1.0 2" },
    { "{{ 'hello wORLD foo-bar'|title }} {{ 'a1b'|title }}", NULL, "Hello World Foo-Bar A1b" },
    { "{{ '  a b \n'|trim }}|{{ 'xxaxx'|trim('x') }}|{{ '\t\013\014\r a\302\240'|trim }}|{{ "
      "'abcba'|trim('ab') }}", NULL, "a b|a|a|c" },
    { "{{ [1, 2, 1, 'a', 'A']|unique|list }} {{ ['b', 'B']|unique(case_sensitive=true)|list "
      "}} {{ [{'a': 1}, {'a': 1}]|unique(attribute='a')|list }}", NULL,
      "[1, 2, 'a'] ['b', 'B'] [{'a': 1}]" },
    { "{{ 'a,b'.split(',')|map('upper')|list|tojson }}", NULL, "[\"A\", \"B\"]" },
    /* tojson as json.dumps */
    { "{{ x|tojson }}",
      "{\"x\":{\"a\":[1,2.5,\"é\\n\\\"\",null,true,{}],\"b\":[],\"c\":{\"d\":false}}}",
      "{\"a\": [1, 2.5, \"é\\n\\\"\", null, true, {}], \"b\": [], \"c\": {\"d\": false}}" },
    { "{{ x|tojson(indent=2) }}", "{\"x\":{\"a\":[1,{\"b\":[]}],\"c\":{},\"d\":[[2]]}}",
      "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {},\n  \"d\": [\n"
      "    [\n      2\n    ]\n  ]\n}" },
    { "{{ x|tojson(indent=4) }} {{ x|tojson(0) }}", "{\"x\":{\"a\":1}}",
      "{\n    \"a\": 1\n} {\"a\": 1}" },
    { "{{ x|tojson(separators=(',', ':')) }} {{ x|tojson(separators=[', ', '=']) }}",
      "{\"x\":{\"a\":[1,2]}}", "{\"a\":[1,2]} {\"a\"=[1, 2]}" },
    { "{{ x|tojson(sort_keys=true) }} {{ x|tojson(ensure_ascii=true) }}",
      "{\"x\":{\"b\":\"é🦙\",\"a\":{\"d\":1,\"c\":2}}}",
      "{\"a\": {\"c\": 2, \"d\": 1}, \"b\": \"é🦙\"} {\"b\": \"\\u00e9\\ud83e\\udd99\", "
      "\"a\": {\"d\": 1, \"c\": 2}}" },
    { "{{ x|tojson(ensure_ascii=false, indent=1) }}", "{\"x\":[\"é\",[1]]}",
      "[\n \"é\",\n [\n  1\n ]\n]" },
    { "{{ 1.0|tojson }} {{ 1e20|tojson }} {{ 1e-7|tojson }} {{ 0.1|tojson }} {{ -5|tojson }} "
      "{{ 1e16|tojson }} {{ 123456.789|tojson }}", NULL,
      "1.0 1e+20 1e-07 0.1 -5 1e+16 123456.789" },
    { "{{ '<>&\\'/\\\\\\b\\f\\r\\t\\u0001\\u007f\\u2028' | tojson }}", NULL,
      "\"<>&'/\\\\\\b\\f\\r\\t\\u0001\177\342\200\250\"" },
    { "{{ 'a'|tojson }} {{ none|tojson }} {{ true|tojson }} {{ {1: 2, true: 3, none: "
      "4}|tojson }} {{ (1, 2)|tojson }}", NULL,
      "\"a\" null true {\"1\": 3, \"null\": 4} [1, 2]" },
    { "{{ 'a\"b'|tojson|tojson }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }}", NULL,
      "\"\\\"a\\\\\\\"b\\\"\" [] {}" },
    /* Structures as Python's repr */
    { "{{ x }}", "{\"x\":{\"a\":[1,2.5,\"é\",null,true,{}],\"b\":[]}}",
      "{'a': [1, 2.5, 'é', None, True, {}], 'b': []}" },
    { "{{ [\"it's\", 'a \"b\"', \"both ' and \\\"\"] }}", NULL,
      "[\"it's\", 'a \"b\"', 'both \\' and \"']" },
    { "{{ ['a\\n\\t\\r\\\\', 'é🦙', '\\x00\\x1f\\x7f\\u00a0\\u200b'] }}", NULL,
      "['a\\n\\t\\r\\\\', 'é🦙', '\\x00\\x1f\\x7f\\xa0\\u200b']" },
    { "{{ [1.0, 1e22, -0.0, 1e-5, none, true] }} {{ {'a': 'b', 1: [2]} }} {{ ['']  }}", NULL,
      "[1.0, 1e+22, -0.0, 1e-05, None, True] {'a': 'b', 1: [2]} ['']" },
    /* Tests */
    { "{{ x is defined }}{{ y is defined }}{{ x is undefined }}{{ y is undefined }}{{ y is "
      "not defined }}", "{\"x\":null}", "TrueFalseFalseTrueTrue" },
    { "{{ none is none }}{{ 0 is none }}{{ true is true }}{{ 1 is true }}{{ false is false "
      "}}{{ 0 is false }}", NULL, "TrueFalseTrueFalseTrueFalse" },
    { "{{ true is boolean }}{{ 1 is boolean }}{{ 1 is integer }}{{ true is integer }}{{ 1.0 "
      "is integer }}{{ 1.0 is float }}{{ 1 is float }}", NULL,
      "TrueFalseTrueFalseFalseTrueFalse" },
    { "{{ 1 is number }}{{ 1.5 is number }}{{ 'a' is number }}{{ true is number }}{{ 'a' is "
      "string }}{{ 1 is string }}", NULL, "TrueTrueFalseTrueTrueFalse" },
    { "{{ {} is mapping }}{{ [] is mapping }}{{ [] is iterable }}{{ 'a' is iterable }}{{ 1 "
      "is iterable }}{{ {} is iterable }}", NULL, "TrueFalseTrueTrueFalseTrue" },
    { "{{ [] is sequence }}{{ 'a' is sequence }}{{ {} is sequence }}{{ 1 is sequence }}{{ "
      "none is iterable }}", NULL, "TrueTrueTrueFalseFalse" },
    { "{{ 1 is eq(1) }}{{ 1 is equalto(2) }}{{ 1 is ne(2) }}{{ 2 is gt(1) }}{{ 2 is gt(3) "
      "}}{{ 1 is ge(1) }}{{ 'a' is eq('a') }}", NULL, "TrueFalseTrueTrueFalseTrueTrue" },
    { "{{ 1 is lt(2) }}{{ 1 is lt(0) }}{{ 1 is le(1) }}{{ 1 is in([1]) }}{{ 1 is not in([1]) "
      "}}{{ 'a' is in('abc') }}", NULL, "TrueFalseTrueTrueFalseTrue" },
    { "{{ [1, 2, 3]|select('eq', 2)|list }}{{ [1, 2]|select('ne', 2)|list }}{{ [1, "
      "2]|select('lt', 2)|list }}{{ [1, 2]|select('le', 1)|list }}{{ [1, 2]|select('gt', "
      "1)|list }}{{ [1, 2]|select('ge', 1)|list }}", NULL, "[2][1][1][1][2][1, 2]" },
    /* Methods */
    { "{{ 'hELLO wORLD'.capitalize() }} {{ ''.capitalize() }}|{{ 'éA'.capitalize() }}", NULL,
      "Hello world |Éa" },
    { "{{ 'abc'.endswith('bc') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.startswith('b') "
      "}}{{ 'abc'.startswith(('x', 'a')) }}{{ 'a'.startswith('') }}{{ ''.endswith('a') }}", NULL,
      "TrueTrueFalseTrueTrueFalse" },
    { "{{ 'banana'.find('an') }} {{ 'banana'.rfind('an') }} {{ 'banana'.find('x') }} {{ "
      "'banana'.rfind('x') }} {{ 'éa'.find('a') }}", NULL, "1 3 -1 -1 1" },
    { "{{ 'aBc'.lower() }} {{ 'aBc'.upper() }} {{ 'a b'.title() }} {{ 'aaa'.replace('a', "
      "'b', 1) }} {{ 'aXbX'.replace('X', '') }}", NULL, "abc ABC A B baa ab" },
    { "{{ '  a '.strip() }}|{{ '  a '.lstrip() }}|{{ '  a '.rstrip() }}|{{ 'xax'.strip('x') "
      "}}|{{ 'xyaxy'.lstrip('yx') }}|{{ 'a\n\n'.rstrip('\n') }}|", NULL, "a|a |  a|a|axy|a|" },
    { "{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ "
      "''.split() }} {{ ''.split(',') }} {{ ' a b '.split(none, 1) }}", NULL,
      "['a', 'b', 'c'] ['a', 'b', '', 'c'] ['a', 'b,c'] [] [''] ['a', 'b ']" },
    { "{{ 'a</think>b'.split('</think>')[-1] }} {{ 'ab'.split('</think>')[0] }} {{ ('<think>"
      "x</think>y'.split('</think>')|last) }}", NULL, "b ab y" },
    { "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': "
      "none}.get('a', 2) }}", NULL, "1 None 2 None" },
    { "{{ {'a': 1, 'b': 2}.keys()|list }} {{ {'a': 1, 'b': 2}.values()|list }} {{ {'a': "
      "1}.items()|list|first|last }} {{ 'a' in {'a': 1}.keys() }}", NULL,
      "['a', 'b'] [1, 2] 1 True" },
    { "{{ 'a'.upper().lower().strip() }} {{ 'a-b'.split('-')[0].upper() }} {{ "
      "m.content.split('x')[-1].lstrip('\\n') }}", "{\"m\":{\"content\":\"ax\\n\\nb\"}}",
      "a A b" },
    /* Functions */
    { "{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ "
      "range(0)|list }} {{ range(3)[1] }} {{ range(4)|length }}", NULL,
      "[0, 1, 2] [1, 2, 3] [5, 3, 1] [] 1 4" },
    { "{{ dict(a=1, b='x') }} {{ dict({'a': 1}, b=2) }} {{ dict().a is defined }}", NULL,
      "{'a': 1, 'b': 'x'} {'a': 1, 'b': 2} False" },
    { "{{ namespace(a=1).a }} {{ dict is defined }}{{ raise_exception is defined }}{{ "
      "strftime_now is defined }}", NULL, "1 TrueTrueTrue" },
    { "{% if false %}{{ raise_exception('no') }}{% endif %}ok", NULL, "ok" },
    { "{{ strftime_now('no date %%') }} {{ strftime_now('%Y')|length }}", NULL, "no date % 4" },
};

/* The same for what can't be read, or can't go on: a part of the sentence. */
static const JinjaCase jinja_errors[] = {
    { "{{ 1 ~ 2 + 3 }}", NULL, "a string + an integer" },
    { "{{ x.y }}", NULL, "x (undefined)" },
    { "a\n{{ m.a.b }}", "{\"m\":{}}", "line 2: b of a (undefined)" },
    { "{{ x + 1 }}", NULL, "x (undefined) + an integer" },
    { "{{ x['a'] }}", NULL, "x (undefined)" },
    { "{{ x() }}", NULL, "x (undefined)" },
    { "{{ 'a' + x }}", NULL, "a string + x (undefined)" },
    { "{{ x < 1 }}", NULL, "have no order" },
    { "{{ x|int }}", NULL, "x (undefined)" },
    { "{{ x.y is defined }}", NULL, "x (undefined)" },
    { "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", NULL, "the macro m" },
    { "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", NULL, "the macro m" },
    { "{{ x|tojson }}", NULL, "undefined" },
    { "{{ namespace()|tojson }}", NULL, "can't be written as JSON" },
    { "{{ raise_exception('roles must ' ~ 'alternate') }}", NULL, "roles must alternate" },
    { "a\nb\n{{ 1 +", NULL, "line 3:" },
    { "{% if 1 %}a", NULL, "the template ends, expected elif else endif" },
    { "{% for a in [1] %}a{% endif %}", NULL, "endif" },
    { "{% endif %}", NULL, "endif" },
    { "{% else %}", NULL, "else" },
    { "{{ 'abc }}", NULL, "string" },
    { "a\n{# abc", NULL, "line 2: " },
    { "{{ (1 }}", NULL, "expected" },
    { "{{ [1, 2 }}", NULL, "expected" },
    { "{{ 1 2 }}", NULL, "expected the end of the tag" },
    { "{{ }}", NULL, "expected a value" },
    { "{{ 1 | }}", NULL, "expected a name" },
    { "{{ a.  }}", NULL, "expected a name" },
    { "{% set = 1 %}", NULL, "expected a name" },
    { "{% set x 1 %}", NULL, "expected the end of the tag" },
    { "{% for in [1] %}{% endfor %}", NULL, "expected in" },
    { "{% for a [1] %}{% endfor %}", NULL, "expected in" },
    { "{% unknown %}", NULL, "unknown" },
    { "{% include 'x' %}", NULL, "include" },
    { "{{ 1|nofilter }}", NULL, "nofilter" },
    { "{{ 1 is notest }}", NULL, "notest" },
    { "\n\n{{ 'a'.nomethod() }}", NULL, "line 3:" },
    { "{{ 1 / 0 }}", NULL, "a division by zero" },
    { "{{ 1 // 0 }}{{ 1 % 0 }}", NULL, "a division by zero" },
    { "{{ 'a' + 1 }}", NULL, "a string + an integer" },
    { "{{ [1] + 'a' }}", NULL, "a list + a string" },
    { "{{ 1 < 'a' }}", NULL, "an integer and a string have no order" },
    { "{{ 1 in 'a' }}", NULL, "an integer in a string" },
    { "{{ -'a' }}", NULL, "minus a string" },
    { "{% for a in 5 %}{% endfor %}", NULL, "an integer has no items" },
    { "{% set a, b = [1] %}", NULL, "1 values for 2 variables" },
    { "{{ range(10, 0, 0)|list }}", NULL, "a range" },
    { "{{ [1].append(2) }}", NULL, "a template can't change a list" },
    { "{{ [1].extend([2]) }}{{ [1].insert(0, 2) }}", NULL, "a template can't change a list" },
    { "{{ [1].pop() }}", NULL, "a template can't change a list" },
    { "{{ {'a': 1}.update({'b': 2}) }}", NULL, "a template can't change a mapping" },
    { "{{ {'a': 1}.pop('a') }}", NULL, "a template can't change a mapping" },
    { "{{ {'a': 1}.setdefault('b', 1) }}", NULL, "a template can't change a mapping" },
    { "{% set m = {} %}{% set m.a = 1 %}", NULL, "no namespace" },
    { "{{ 5() }}", NULL, "an integer" },
    { "{{ 'a'.split('') }}", NULL, "an empty text" },
    { "{{ 'abc'[::0] }}", NULL, "steps of 0" },
    { "{{ 'a'|replace(1) }}", NULL, "expected a string" },
    { "{{ range(1000000000)|list }}", NULL, "range" },
    { "{{ 'a'.strip(1, 2, 3) }}", NULL, "strip with" },
    { "{{ [1, 'a']|sort }}", NULL, "have no order" },
    { "{{ 'a\\x4' }}", NULL, "digits" },
};

/* Whose the bytes are: # the template's, . those of variables. x is <a> and y "é\", t is a trusted
 * <t>, a message has a role of letters and one of signs. */
static const char jinja_theirs[] =
    "{\"x\":\"<a>\",\"y\":\"\\\"\xc3\xa9\\\\\",\"n\":12345678901234567890123,"
    "\"k\":{\"<a>\":\"<b>\"},"
    "\"m\":[{\"role\":\"user\",\"content\":\"user\"},{\"role\":\"<a>\"},{\"role\":\"a b\"}]}";
static const char jinja_own[] = "{\"t\":\"<t>\",\"o\":{\"k\":[\"<u>\"]}}";

static const struct {
    const char *template, *text, *marks;
} jinja_marks[] = {
    { "<b>{{ x }}<b>", "<b><a><b>", "###...###" },
    { "{{ '<b>' }}{{ \"<c>\" }}", "<b><c>", "######" },
    { "{{ t }}{{ x }}{{ t ~ x }}{{ o.k[0] }}", "<t><a><t><a><u>", "###...###...###" },
    { "{{ '<b>' + x }}{{ x + '<b>' }}", "<b><a><a><b>", "###......###" },
    { "{{ '<' ~ x ~ '>' }}{{ x ~ x }}", "<<a>><a><a>", "#...#......" },
    { "{{ x[1:] }}{{ x[0] }}{{ x[-1] }}{{ x[::-1] }}{{ x[::2] }}", "a><>>a<<>", "........." },
    { "{{ t[1:] }}{{ t[0] }}{{ t[::-1] }}{{ (x + t)[2:4] }}", "t><>t<><", "######.#" },
    { "{{ x|upper }}{{ x|lower }}{{ x|title }}{{ x|capitalize }}", "<A><a><A><a>", "............" },
    { "{{ x.upper() }}{{ x.lower() }}{{ x.title() }}", "<A><a><A>", "........." },
    { "{{ x|trim }}{{ x|trim('<') }}{{ x.strip('>') }}{{ x.lstrip() }}", "<a>a><a<a>",
      ".........." },
    { "{{ x|replace('a', 'b') }}{{ '<a>'|replace('a', x) }}", "<b><<a>>", ".#.#...#" },
    { "{{ x.replace('<', t) }}{{ t.replace('t', 'a') }}", "<t>a><a>", "###..###" },
    { "{{ x.split('a')|join('b') }}{{ x.split('a')[0] }}", "<b><", ".#.." },
    { "{{ x.split('a')|map('upper')|join }}{{ x.split()[0] }}{{ x.rstrip('>') }}", "<><a><a",
      "......." },
    { "{{ [x, '<b>']|join(x) }}{{ x|join('|') }}", "<a><a><b><|a|>", "......###.#.#." },
    { "{{ x|list|join }}{{ x|first }}{{ x|last }}", "<a><>", "....." },
    { "{{ x|tojson }}{{ [x]|tojson }}{{ t|tojson }}", "\"<a>\"[\"<a>\"]\"<t>\"",
      "#...###...#######" },
    { "{{ k|tojson(indent=1) }}", "{\n \"<a>\": \"<b>\"\n}", "####...####...###" },
    { "{{ [x] }}{{ k }}", "['<a>']{'<a>': '<b>'}", "##...####...####...##" },
    { "{{ n }}{{ n ~ '' }}", "1234567890123456789012312345678901234567890123",
      ".............................................." },
    { "{{ x|string }}{{ x|safe }}{{ x|indent }}{{ x|default('b') }}", "<a><a><a><a>",
      "............" },
    { "{{ 'b'|default(x) }}{{ z|default(x) }}{{ z|default('<b>') }}", "b<a><b>", "#...###" },
    { "{{ x * 2 }}{{ (x + '-') * 2 }}{{ '<b>' * 2 }}", "<a><a><a>-<a>-<b><b>",
      ".........#...#######" },
    { "{{ x or '<b>' }}{{ x and '<b>' }}{{ x if 1 else t }}", "<a><b><a>", "...###..." },
    { "{% for c in x %}{{ c }}{% endfor %}", "<a>", "..." },
    { "{% for c in x %}{{ c }}{{ '|' }}{% endfor %}", "<|a|>|", ".#.#.#" },
    { "{% for c in x %}{{ loop.nextitem }}{{ loop.previtem or t }}{% endfor %}", "a<t>><a",
      ".###..." },
    { "{% for a, b in k|items %}{{ a }}{{ b }}{% endfor %}{{ k['<a>'] }}", "<a><b><b>",
      "........." },
    { "{% for a in k %}{{ a }}{% endfor %}{{ k|dictsort|first|first }}", "<a><a>", "......" },
    { "{% set s %}<{{ x }}>{% endset %}{{ s }}{{ s[1:3] }}", "<<a>><a", "#...#.." },
    { "{% set s = namespace(v='') %}{% for c in x %}{% set s.v = c + s.v %}{% endfor %}{{ s.v }}",
      ">a<", "..." },
    { "{% macro f(v) %}<{{ v }}{{ caller() if caller }}{% endmacro %}{{ f(x) }}{{ f('b') }}",
      "<<a><b", "#...##" },
    { "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}{{ x }}b{% endcall %}", "<<a>b>",
      "#...##" },
    { "{% filter upper %}<{{ x }}{% endfilter %}{% generation %}{{ x }}{% endgeneration %}",
      "<<A><a>", "#......" },
    { "{{ [x, x]|map('upper')|join }}{{ [k]|map(attribute='<a>')|join }}", "<A><A><b>",
      "........." },
    { "{{ [x, t]|sort|join }}{{ [x, '<a>']|unique|join }}{{ [x, t]|max }}", "<a><t><a><t>",
      "...###...###" },
    { "{{ ['<a>', x]|unique|join }}{{ ['<a>', x]|select('eq', x)|join }}", "<a><a><a>",
      "######..." },
    { "{{ '<a>' if x == '<a>' }}{{ {x: t}['<a>'] }}{{ dict(v=x).v }}", "<a><t><a>", "######..." },
    { "{{ m[0].role }}{{ m[1].role }}{{ m[2].role }}{{ m[0].content }}", "user<a>a buser",
      "####.........." },
    { "{{ '<' + m[0].role + '>' }}{{ m[0]['role']|upper }}{{ '<' + m[1].role }}", "<user>USER<<a>",
      "###########..." },
    { "{{ y[1] }}\xc3\xa9{{ y|upper }}", "\xc3\xa9\xc3\xa9\"\xc3\x89\\", "..##...." },
};

/* What would use up time, memory or the stack: a text, in front of which and behind which others
 * stand any number of times. */
enum { MANY = 100000, MEGABYTE = 1 << 20 };
static const struct {
    const char *before;
    int n_before;
    const char *text, *behind;
    int n_behind;
} jinja_hostile[] = {
    { "{", MEGABYTE, "", "", 0 },
    { "{{", MEGABYTE / 2, "", "", 0 },
    { "{%", MEGABYTE / 2, "", "", 0 },
    { "{{ ", MEGABYTE / 4, "", "", 0 },
    { "{", MEGABYTE + 1, "", "", 0 },
    { "{{ ", 1, "", "(", MEGABYTE - 3 },
    { "{{ ", 1, "", "[", MEGABYTE - 3 },
    { "{{ ", 1, "", "{1:", MANY },
    { "{{ ", 1, "", "a(", MANY },
    { "{{ ", 1, "", "-", MANY },
    { "{{ ", 1, "", "not ", MANY },
    { "{{ ", 1, "", "a[", MANY },
    { "{{ ", 1, "", "1 if 1 else ", MANY / 2 },
    { "{{ ", 1, "1", "+(1", MANY },
    { "{{ 1", 1, "", "+1", MANY },
    { "{{ 1", 1, "", "|string", MANY },
    { "{{ 'a'", 1, "", ".strip()", MANY },
    { "{{ (", 1, "", "1,", MANY },
    { "{{ 'abc", 1, "", "", 0 },
    { "{{ 'abc\\", 1, "", "", 0 },
    { "{# abc", 1, "", "", 0 },
    { "{{ 1", 1, "", "", 0 },
    { "{% if 1", 1, "", "", 0 },
    { "{% if 1 %}", MANY, "a", "{% endif %}", MANY },
    { "{% if 1 %}", MANY, "", "", 0 },
    { "{% if 0 %}", 1, "", "{% elif 0 %}", MANY / 2 },
    { "{% for a in [1] %}", 50000, "a", "", 0 },
    { "{% set a %}", 50000, "", "", 0 },
    { "{% macro a() %}", 50000, "", "", 0 },
    { "{% filter upper %}", 50000, "", "", 0 },
    { "{{ range(10**9)|list|length }}", 1, "", "", 0 },
    { "{% for a in range(10**9) %}{% endfor %}", 1, "", "", 0 },
    { "{% for a in range(10**18) %}{% endfor %}", 1, "", "", 0 },
    { "{% for a in range(99999) %}", 5, "", "{% endfor %}", 5 },
    { "{% for a in range(99999) %}", 3, "a", "{% endfor %}", 3 },
    { "{% for a in range(99999) %}", 2, "{% set b = range(99999)|list %}", "{% endfor %}", 2 },
    { "{{ 'a' * 10**9 }}", 1, "", "", 0 },
    { "{{ 'ab' * 9223372036854775807 }}", 1, "", "", 0 },
    { "{{ [1] * 10**9 }}", 1, "", "", 0 },
    { "{{ 'a\nb'|indent(10**9) }}", 1, "", "", 0 },
    { "{% for a in range(9999) %}", 1, "{{ [[[[[[1]]]]]]|tojson(indent=10**9) }}", "{% endfor %}",
      1 },
    { "{% set s = namespace(x='ab') %}{% for a in range(99) %}", 1,
      "{% set s.x = s.x + s.x %}", "{% endfor %}", 1 },
    { "{% set s = namespace(x='ab') %}{% for a in range(99) %}", 1,
      "{% set s.x = s.x|replace('a', s.x) %}", "{% endfor %}", 1 },
    { "{% set s = namespace(x=[1]) %}{% for a in range(99) %}", 1,
      "{% set s.x = s.x + s.x %}", "{% endfor %}", 1 },
    { "{% set s = namespace(x=[1]) %}{% for a in range(9999) %}{% set s.x = [s.x] %}", 1,
      "{% endfor %}", "{{ s.x }}", 1 },
    { "{% set s = namespace(x=[1]) %}{% for a in range(9999) %}{% set s.x = {1: s.x} %}", 1,
      "{% endfor %}", "{{ s.x|tojson }}", 1 },
    { "{% set s = namespace(x=[1], y=[1]) %}{% for a in range(9999) %}{% set s.x = [s.x] %}", 1,
      "{% set s.y = [s.y] %}{% endfor %}", "{{ s.x == s.y }}", 1 },
    { "{% set s = namespace(x=[1], y=[2]) %}{% for a in range(9999) %}{% set s.x = [s.x] %}", 1,
      "{% set s.y = [s.y] %}{% endfor %}", "{{ s.x < s.y }}", 1 },
    { "{% set s = namespace(x=[1]) %}{% for a in range(99) %}{% set s.x = [s.x, s.x] %}", 1,
      "{% endfor %}", "{{ s.x }}", 1 },
    { "{% set s = namespace(x=[1], y=[1]) %}{% for a in range(99) %}{% set s.x = [s.x, s.x] %}", 1,
      "{% set s.y = [s.y, s.y] %}{% endfor %}", "{{ s.x == s.y }}", 1 },
    { "{% macro m() %}{{ m() }}{% endmacro %}", 1, "", "{{ m() }}", 1 },
    { "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}", 1, "", "{{ m(0) }}", 1 },
    { "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}", 1, "",
      "{{ a() }}", 1 },
    { "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}", 1, "",
      "{{ m(60) }}", 1 },
    { "{% for a in [1] recursive %}{{ loop([1]) }}", 1, "", "{% endfor %}", 1 },
    { "{% set s = 'a' * 100000 %}{% for a in range(99999) %}", 1, "{% set t = s + 'b' %}",
      "{% endfor %}", 1 },
    { "{% set s = 'a' * 100000 %}{% for a in range(9999) %}", 1, "{{ s.find('b') }}",
      "{% endfor %}", 1 },
    { "{% set s = 'a' * 100000 %}{% for a in range(9999) %}", 1,
      "{{ s.find('a' * 50000 + 'b') }}", "{% endfor %}", 1 },
    { "{% for a in range(9999) %}", 1, "{{ range(99999, 0, -1)|sort|length }}", "{% endfor %}", 1 },
    { "{% set l = range(99999)|list %}{% for a in l %}", 1, "{{ -1 in l }}", "{% endfor %}", 1 },
    { "{% for a in range(9999) %}", 1, "{{ range(99999)|unique|list }}", "{% endfor %}", 1 },
};
/* clang-format on */

static void jinja_test_cases(void)
{
    tokenizer_marked got;
    for (size_t i = 0; i < ARRAY_LEN(jinja_cases); i++) {
        const JinjaCase *c = &jinja_cases[i];
        tokenizer_variables v = jinja_variables(c->variables, 0);
        int wrong = jinja_render(c->template, strlen(c->template), &v, 1, &got);
        check(!wrong && got.len == strlen(c->text) && !memcmp(got.text, c->text, got.len),
              "%s: \"%s\", expected \"%s\"", c->template, wrong ? jinja_error : got.text, c->text);
        free(got.text);
    }
    for (size_t i = 0; i < ARRAY_LEN(jinja_errors); i++) {
        const JinjaCase *c = &jinja_errors[i];
        tokenizer_variables v = jinja_variables(c->variables, 0);
        int fails = jinja_render(c->template, strlen(c->template), &v, 1, &got);
        check(fails && strstr(jinja_error, c->text) && !strchr(jinja_error, '\n'),
              "%s: \"%s\", expected the error \"%s\"", c->template,
              fails ? jinja_error : got.text, c->text);
        free(got.text);
    }
}

static void jinja_test_marks(void)
{
    tokenizer_variables v[] = { jinja_variables(jinja_theirs, 0), jinja_variables(jinja_own, 1) };
    for (size_t i = 0; i < ARRAY_LEN(jinja_marks); i++) {
        const char *template = jinja_marks[i].template, *want = jinja_marks[i].marks;
        tokenizer_marked got;
        int wrong = jinja_render(template, strlen(template), v, 2, &got);
        check(!wrong && !strcmp(got.text, jinja_marks[i].text), "%s: \"%s\", expected \"%s\"",
              template, wrong ? jinja_error : got.text, jinja_marks[i].text);
        if (wrong) continue;
        for (size_t k = 0; k < got.len; k++) got.text[k] = got.marks[k] ? '#' : '.';
        check(!strcmp(got.text, want), "%s: \"%s\", expected \"%s\"", template, got.text, want);
        free(got.text);
    }
}

/* A text with others in front of it and behind it; the caller frees it. */
static char *jinja_repeat(const char *before, int n_before, const char *text, const char *behind,
                          int n_behind)
{
    size_t lens[] = { strlen(before), strlen(text), strlen(behind) };
    char *all = malloc((size_t)n_before * lens[0] + lens[1] + (size_t)n_behind * lens[2] + 1);
    char *to = all;
    if (!all) abort();
    for (int i = 0; i < n_before; i++, to += lens[0]) memcpy(to, before, lens[0]);
    memcpy(to, text, lens[1]), to += lens[1];
    for (int i = 0; i < n_behind; i++, to += lens[2]) memcpy(to, behind, lens[2]);
    *to = 0;
    return all;
}

/* In a process of its own: 0 if the template fails with a sentence of one line. */
static int jinja_fails(const char *source)
{
    tokenizer_variables v = jinja_variables("{}", 0);
    tokenizer_marked got;
    if (!jinja_render(source, strlen(source), &v, 1, &got)) return 1;
    return !*jinja_error || strchr(jinja_error, '\n') || strlen(jinja_error) >= 511;
}

/* What a process that does this with the text needs: its exit code, seconds of the processor, and
 * MB. */
static int jinja_cost(int (*run)(const char *), const char *source, double *seconds, double *mb)
{
    struct rusage used;
    int status = -1;
    fflush(stdout);
    pid_t child = fork();
    if (!child) alarm(60), _exit(run(source));
    if (child < 0 || wait4(child, &status, 0, &used) != child) return -1;
    *seconds = (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec * 1e-6;
    *mb = (double)used.ru_maxrss / 1024;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int jinja_nothing(const char *source)
{
    return *source != 0;
}

/* Whatever a template does, it ends soon, in some memory, and with a sentence. */
static void jinja_test_hostile(void)
{
#ifdef __SANITIZE_ADDRESS__
    const double most_seconds = 5, most_mb = 160; /* with what the sanitizer adds */
#else
    const double most_seconds = 1, most_mb = 64;
#endif
    double seconds = 0, mb = 0, before = 0;
    check(!jinja_cost(jinja_nothing, "", &seconds, &before), "a process: %s", strerror(errno));
    for (size_t i = 0; i < ARRAY_LEN(jinja_hostile); i++) {
        char *source = jinja_repeat(jinja_hostile[i].before, jinja_hostile[i].n_before,
                                    jinja_hostile[i].text, jinja_hostile[i].behind,
                                    jinja_hostile[i].n_behind);
        int code = jinja_cost(jinja_fails, source, &seconds, &mb);
        check(code == 0, "%.90s ... ends with %d", source, code);
        check(seconds < most_seconds && mb - before < most_mb, "%.90s ... takes %.2f s, %.0f MB",
              source, seconds, mb - before);
        free(source);
    }
}

/* Bytes that are no UTF-8, zeros, JSON that is none, several sets of variables, a failure that is
 * told in little room. */
static void jinja_test_edges(void)
{
    static const char *const bad[] = {
        "", "1", "[1]", "\"a\"", "{\"a\":}", "{\"a\" 1}", "{\"a\":1", "{\"a\":\"b}", "{a:1}",
        "{} 1", "{\"a\":1 \"b\":2}", "{\"a\":tru}", "{\"a\":b}", "{\"a\":1+1}",
        "{\"a\":[1]|length}", "{1:2}", "{\"a\":\"b\" \"c\"}", "{\"a\":(1)}", "{\"a\":'b'}",
        "{\"a\":range(3)}", "{\"a\":{}.b}", "{\"a\":not 1}", "{\"a\":[1 2]}",
        "{\"a\":raise_exception(\"b\")}", "{\"a\":1 if 1}",
    };
    tokenizer_variables v[] = { jinja_variables("{\"a\":1,\"b\":2}", 0),
                                jinja_variables("{\"b\":3,\"b\":4}", 1) };
    tokenizer_marked got;
    check(!jinja_render("{{ a }}{{ b }}", 14, v, 2, &got) && !strcmp(got.text, "14"),
          "later variables take the place of earlier ones: %s", jinja_error);
    free(got.text);
    check(!jinja_render("\xff{{ '\xe9' }}\0a", 12, v, 1, &got) && got.len == 4 &&
              !memcmp(got.text, "\xff\xe9\0a", 5),
          "bytes that are no characters, and a zero: %s", jinja_error);
    free(got.text);
    v[0] = jinja_variables("{\"a\":\"x\xff\xc3\\u0000y\\ud800\"}", 0);
    check(!jinja_render("{{ a }}", 7, v, 1, &got) && got.len == 8 &&
              !memcmp(got.text, "x\xff\xc3\0y\xef\xbf\xbd", 9) && !got.marks[1],
          "the same in variables: %s", jinja_error);
    free(got.text);
    check(!jinja_render("", 0, v, 1, &got) && got.len == 0 && !*got.text, "an empty template");
    free(got.text);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        v[0] = jinja_variables(bad[i], 0);
        check(jinja_render("", 0, v, 1, &got) == -1 && *jinja_error, "%s is taken", bad[i]);
        free(got.text);
    }
    char little[8];
    check(!tokenizer_template_new("{{ 1 +", 6, little, sizeof little) && strlen(little) == 7,
          "an error in 8 bytes: %s", little);
    check(!tokenizer_template_new("{{ 1 +", 6, NULL, 0), "an error that nobody wants");
    tokenizer_template_free(NULL);
}

/* A template is for any number of threads and times: what one run sets, the next does not have. */
static void jinja_test_again(void)
{
    static const char source[] = "{{ n is defined }}{% set n = 1 %}{{ n }}{{ strftime_now('%Y') }}";
    tokenizer_template *t = tokenizer_template_new(source, strlen(source), jinja_error,
                                                   sizeof jinja_error);
    for (int i = 0; i < 2; i++) {
        tokenizer_marked got;
        int64_t now = i ? 1700000000 : 86400 * 400;
        check(!tokenizer_render(t, NULL, 0, now, &got, jinja_error, sizeof jinja_error) &&
                  !strcmp(got.text, i ? "False12023" : "False11971"),
              "run %d: %s", i, jinja_error);
        free(got.text);
    }
    tokenizer_template_free(t);
}

static void test_jinja(void)
{
    jinja_test_cases();
    jinja_test_marks();
    jinja_test_edges();
    jinja_test_again();
    jinja_test_hostile();
}
