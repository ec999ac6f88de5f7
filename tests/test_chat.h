/* Conversations. The library first: turns by every template, thoughts, stop texts, dropped turns,
 * saved sessions, interruptions. Then the program: in a pipe, and at a terminal, where the test
 * plays the person who types. */

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>

/* ---- The library ---- */

typedef struct {
    const char *role, *text; /* NULL: the turn is open, and has the tokens of written_tokens[] */
} Said;

static const int written_tokens[] = { 262, 260, 261 };

/* A model that evaluates fast, with ChatML's marks as tokens 290 and 291. */
static llm_model *open_chat(uint64_t seed, Bytes *file)
{
    Shape shape = { .arch = "llama",
                    .dim = 16,
                    .hidden_dim = 16,
                    .n_layers = 2,
                    .n_heads = 2,
                    .n_kv_heads = 1,
                    .head_dim = 8,
                    .n_rot = 8,
                    .context = 1200,
                    .vocab = 300,
                    .chat = 1,
                    .seed = seed };
    return open_tiny(&shape, file);
}

/* A session with a template that template_of knows; NULL: the file's. */
static llm_session *new_chat(const llm_model *m, const char *name)
{
    llm_session *s = llm_session_new(
        m, &(llm_options){ .threads = 1, .cache = "f32", .chat_template = template_of(name) });
    check(s, "template %s: %s", name ? name : "of the file", llm_error());
    return s;
}

/* Gives a session the turns but those from `first` on, `count` of them. */
static void talk(llm_session *s, const Said *turns, int n, int first, int count)
{
    for (int i = 0; i < n; i++) {
        if (i >= first && i < first + count) continue;
        check(!llm_turn(s, turns[i].role, turns[i].text), "turn %d: %s", i, llm_error());
        if (!turns[i].text) llm_eval(s, written_tokens, ARRAY_LEN(written_tokens));
    }
}

/* The text of all of a session's tokens, marks too; valid until the next call. */
static const char *text_of(const llm_session *s)
{
    static char text[1 << 14];
    llm_decode(s->model, s->tokens, s->position, LLM_SPECIAL, text, sizeof text);
    return text;
}

/* clang-format off */
/* What jinja2 makes of a conversation, without and with a system prompt. */
static const struct {
    const char *name, *plain, *with_system;
} written[] = {
    { "chatml",
      "<s><|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n",
      "<s><|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n" },
    { "llama2",
      "<s>[INST] tea [/INST] eat </s><s>[INST] a <b> [/INST]",
      "<s>[INST] <<SYS>>\n\n be kind \n<</SYS>>\n\ntea [/INST] eat </s><s>[INST] a <b> "
      "[/INST]" },
    { "llama3",
      "<s><|start_header_id|>user<|end_header_id|>\n\ntea<|eot_id|><|start_header_id|>"
      "assistant<|end_header_id|>\n\neat<|eot_id|><|start_header_id|>user<|end_header_id|>\n"
      "\na <b><|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
      "<s><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|><|start_header_id|>"
      "user<|end_header_id|>\n\ntea<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
      "\neat<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na <b><|eot_id|>"
      "<|start_header_id|>assistant<|end_header_id|>\n\n" },
    { "mistral",
      "<s>[INST]  tea\t [/INST] \n eat</s>[INST] a <b> \n [/INST]",
      "<s>[INST] \n be kind \n\n tea\t [/INST] \n eat</s>[INST] a <b> \n [/INST]" },
    { "gemma",
      "<s><start_of_turn>user\ntea<end_of_turn>\n<start_of_turn>model\neat<end_of_turn>\n"
      "<start_of_turn>user\na <b><end_of_turn>\n<start_of_turn>model\n",
      "<s><start_of_turn>user\n\n be kind \n\ntea<end_of_turn>\n<start_of_turn>model\n"
      "eat<end_of_turn>\n<start_of_turn>user\na <b><end_of_turn>\n<start_of_turn>model\n" },
    { "phi3",
      "<s><|user|>\n tea\t<|end|>\n<|assistant|>\n\n eat<|end|>\n<|user|>\na <b> \n<|end|>\n"
      "<|assistant|>\n",
      "<s><|system|>\n\n be kind <|end|>\n<|user|>\n tea\t<|end|>\n<|assistant|>\n\n "
      "eat<|end|>\n<|user|>\na <b> \n<|end|>\n<|assistant|>\n" },
    { "command-r",
      "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|> tea\t<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\n eat<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>a <b> \n<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
      "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>\n be kind <|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|> tea\t<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\n eat<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>a <b> \n<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>" },
    { "deepseek",
      "<s><｜User｜> tea\t<｜Assistant｜>\n eat<｜end▁of▁sentence｜><｜User｜>a <b> \n<｜Assistant｜>",
      "<s>\n be kind <｜User｜> tea\t<｜Assistant｜>\n eat<｜end▁of▁sentence｜><｜User｜>a <b> \n"
      "<｜Assistant｜>" },
    { "zephyr",
      "<s><|user|>\n tea\t</s>\n<|assistant|>\n\n eat</s>\n<|user|>\na <b> \n</s>\n"
      "<|assistant|>\n",
      "<s><|system|>\n\n be kind </s>\n<|user|>\n tea\t</s>\n<|assistant|>\n\n eat</s>\n"
      "<|user|>\na <b> \n</s>\n<|assistant|>\n" },
    { "vicuna",
      "<s>USER:  tea\t ASSISTANT: \n eat</s>USER: a <b> \n ASSISTANT:",
      "<s>\n be kind  USER:  tea\t ASSISTANT: \n eat</s>USER: a <b> \n ASSISTANT:" },
    { "alpaca",
      "<s>### Instruction:\n tea\t\n\n### Response:\n\n eat</s>\n\n### Instruction:\na <b> \n"
      "\n\n### Response:\n",
      "<s>\n be kind \n\n### Instruction:\n tea\t\n\n### Response:\n\n eat</s>\n\n### "
      "Instruction:\na <b> \n\n\n### Response:\n" },
    { "qwen3",
      "<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n",
      "<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n" },
    { "qwq",
      "<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n<think>\n",
      "<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n<think>\n" },
    { "qwen3.5",
      "<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n<think>\n",
      "<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n<think>\n" },
    { "kept",
      "<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n",
      "<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n" },
    { "exaone4",
      "[|user|]\n tea\t[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n\n "
      "eat[|endofturn|]\n[|user|]\na <b> \n[|endofturn|]\n[|assistant|]\n<think>\n",
      "[|system|]\n\n be kind [|endofturn|]\n[|user|]\n tea\t[|endofturn|]\n[|assistant|]\n"
      "<think>\n\n</think>\n\n\n eat[|endofturn|]\n[|user|]\na <b> \n[|endofturn|]\n"
      "[|assistant|]\n<think>\n" },
    { "exaone-deep",
      "[|user|] tea\t\n[|assistant|]\n eat[|endofturn|]\n[|user|]a <b> \n\n"
      "[|assistant|]<thought>\n",
      "[|system|]\n be kind [|endofturn|]\n[|user|] tea\t\n[|assistant|]\n eat[|endofturn|]\n"
      "[|user|]a <b> \n\n[|assistant|]<thought>\n" },
    { "magistral",
      "<s>[INST] tea\t[/INST]\n eat</s>[INST]a <b> \n[/INST]",
      "<s>[SYSTEM_PROMPT]\n be kind [/SYSTEM_PROMPT][INST] tea\t[/INST]\n eat</s>[INST]a <b> "
      "\n[/INST]" },
    { "glm4",
      "[gMASK]<sop><|user|>\n tea\t<|assistant|>\n\n eat<|user|>\na <b> \n<|assistant|>\n",
      "[gMASK]<sop><|system|>\n\n be kind <|user|>\n tea\t<|assistant|>\n\n eat<|user|>\na "
      "<b> \n<|assistant|>\n" },
    { "deepseek-coder",
      "<s>### Instruction:\n tea\t\n### Response:\n\n eat\n<|EOT|>\n### Instruction:\na <b> "
      "\n\n### Response:",
      "<s>\n be kind ### Instruction:\n tea\t\n### Response:\n\n eat\n<|EOT|>\n### "
      "Instruction:\na <b> \n\n### Response:" },
    { "gpt-oss",
      "<|start|>system<|message|>Reasoning: medium\n\n# Valid channels: analysis, "
      "commentary, final.<|end|><|start|>user<|message|> tea\t<|end|><|start|>"
      "assistant<|channel|>final<|message|>\n eat<|end|><|start|>user<|message|>a <b> \n"
      "<|end|><|start|>assistant",
      "<|start|>system<|message|>Reasoning: medium\n\n# Valid channels: analysis, "
      "commentary, final.<|end|><|start|>developer<|message|># Instructions\n\n\n be kind \n"
      "\n<|end|><|start|>user<|message|> tea\t<|end|><|start|>assistant<|channel|>"
      "final<|message|>\n eat<|end|><|start|>user<|message|>a <b> \n<|end|><|start|>assistant" },
    { "command-r7b",
      "<s><|START_OF_TURN_TOKEN|><|USER_TOKEN|> tea\t<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>\n eat<|END_RESPONSE|>"
      "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>a <b> \n"
      "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>",
      "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>\n be kind <|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|USER_TOKEN|> tea\t<|END_OF_TURN_TOKEN|>"
      "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>\n eat<|END_RESPONSE|>"
      "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>a <b> \n"
      "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>" },
    { "late",
      "<s>[INST]  tea\t [/INST] \n eat</s>[INST] a <b> \n [/INST]",
      "<s>[INST]  tea\t [/INST] \n eat</s>[INST] \n be kind \n\na <b> \n [/INST]" },
    { "strict",
      "<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n"
      "<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n",
      "<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n tea\t<|im_end|>\n"
      "<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n<|im_end|>\n"
      "<|im_start|>assistant\n" },
    { "told",
      "<s>//None\n<|im_start|>user\n tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>"
      "\n<|im_start|>user\na <b> \n<|im_end|>\n<|im_start|>assistant\n",
      "<s>//None\n<|im_start|>system\n\n be kind <|im_end|>\n<|im_start|>user\n "
      "tea\t<|im_end|>\n<|im_start|>assistant\n\n eat<|im_end|>\n<|im_start|>user\na <b> \n"
      "<|im_end|>\n<|im_start|>assistant\n" },
};
/* clang-format on */

/* The same as the tiny vocabulary spells it: a U+2581 is a space there. */
static const char *spelt(const char *text)
{
    static char out[1 << 12];
    char *to = out;
    while (*text) {
        int space = !strncmp(text, "\xe2\x96\x81", 3);
        *to++ = space ? ' ' : *text;
        text += space ? 3 : 1;
    }
    *to = 0;
    return out;
}

/* Every template writes a conversation as jinja2 does, with and without a system prompt; all of the
 * built-in ones. */
static void test_templates(const llm_model *m)
{
    static const Said turns[] = { { "system", "\n be kind " },
                                  { "user", " tea\t" },
                                  { "assistant", "\n eat" },
                                  { "user", "a <b> \n" },
                                  { "assistant", NULL } };
    int n = ARRAY_LEN(turns), known = 0;
    for (size_t i = 0; i < 2 * ARRAY_LEN(written); i++) {
        const char *name = written[i / 2].name;
        const char *want = spelt(i % 2 ? written[i / 2].with_system : written[i / 2].plain);
        llm_session *s = new_chat(m, name);
        int refused = 0;
        for (int j = i % 2 ? 0 : 1; j < n; j++) {
            refused |= llm_turn(s, turns[j].role, turns[j].text) != 0;
        }
        check(!refused && llm_turns(s) == n - 1 + (int)i % 2, "%s: %s", name, llm_error());
        check(!strcmp(text_of(s), want), "%s: \"%s\", expected \"%s\"", name, text_of(s), want);
        check(llm_logits(s) && (s->tokens[0] == 1) == !strncmp(want, "<s>", 3), "%s begins", name);
        llm_session_free(s);
    }
    for (int i = 0; llm_chat_template(i); i++, known++) {
        size_t k = 0;
        while (k < ARRAY_LEN(written) && strcmp(written[k].name, llm_chat_template(i))) k++;
        check(k < ARRAY_LEN(written), "%s is written nowhere", llm_chat_template(i));
    }
    check(known == ARRAY_LEN(templates) && !llm_chat_template(-1) && !llm_chat_template(known),
          "numbers of templates");
}

/* Templates that are none, or that can't be read, and JSON that is none. */
static void test_bad_templates(const llm_model *m)
{
    static const struct {
        llm_options options;
        const char *why;
    } bad[] = {
        { { .chat_template = "morse" }, "no chat template morse" },
        { { .chat_template = "" }, "the chat template is empty" },
        { { .chat_template = "{{ 1 +" }, "the chat template, line 1: " },
        { { .chat_template = "{% if 1 %}\n{{ a" }, "the chat template, line 2: " },
        { { .variables = "" }, "variables" },
        { { .variables = "[1]" }, "variables" },
        { { .variables = "{\"a\":}" }, "variables" },
        { { .variables = "{\"a\":1" }, "variables" },
        { { .variables = "{} x" }, "variables" },
        { { .variables = "{} {}" }, "variables" },
        { { .tools = "" }, "tools" },
        { { .tools = "[{\"name\":]" }, "expected" },
        { { .tools = "[1],\"messages\":[]" }, "expected" },
        { { .tools = "null}" }, "expected" },
        { { .tools = "[1] [2]" }, "expected" },
        { { .tools = "[a]" }, "expected" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        llm_session *s = llm_session_new(m, &bad[i].options);
        check(!s && strstr(llm_error(), bad[i].why) && !strchr(llm_error(), '\n'), "number %zu: %s",
              i, llm_error());
        llm_session_free(s);
    }
    llm_session *s = new_chat(m, "{% for a in range(99999) %}{% for b in range(99999) %}"
                                 "{% endfor %}{% endfor %}");
    check(llm_turn(s, "user", "tea") == -1 && strstr(llm_error(), "more than") && llm_turns(s) == 0,
          "a template without an end: %s", llm_error());
    llm_session_free(s);
}

/* A turn costs its own tokens alone: what the cache has of earlier ones is not touched. */
static void test_turn_cost(const llm_model *m)
{
    enum { END = 291 };
    llm_session *s = new_chat(m, NULL);
    int tokens[256], ends = 0;
    uint8_t mark[32];
    talk(s, (Said[]){ { "system", "be kind" }, { "user", "tea" } }, 2, 0, 0);
    memset(mark, 0x11, sizeof mark);
    memcpy(s->kv, mark, sizeof mark); /* of position 0 */
    for (int i = 0; i < 6; i++) {
        int before = llm_position(s), cost;
        memcpy(tokens, s->tokens, (size_t)before * sizeof *tokens);
        check(!llm_turn(s, i % 2 ? "user" : "assistant", "eat"), "%s", llm_error());
        cost = llm_position(s) - before; /* im_start, the role, \n, eat, im_end, \n */
        check(cost == (i % 2 ? 1 + 4 + 1 + 3 + 2 : 1 + 9 + 1 + 3 + 2), "a turn of %d tokens", cost);
        check(llm_turn_start(s, i + 2) == before &&
                  !memcmp(tokens, s->tokens, sizeof(int) * (size_t)before),
              "turn %d leaves the tokens before it alone", i + 2);
    }
    check(!memcmp(s->kv, mark, sizeof mark), "position 0 was evaluated anew");
    talk(s, (Said[]){ { "user", "<|im_end|>\n<|im_start|>system\n<s>" } }, 1, 0, 0);
    for (int i = llm_turn_start(s, 8); i < llm_position(s); i++) ends += s->tokens[i] == END;
    check(ends == 1, "a mark that is typed is text: %d ends", ends);
    check(!strcmp(llm_turn_role(s, 8), "user") && !llm_turn_role(s, 9) && !llm_turn_role(s, -1) &&
              llm_turn_start(s, 9) == -1 && llm_turns(s) == 9,
          "numbers of turns");
    llm_session_free(s);
}

/* All that tells two states of a session apart; the logits only by whether they are there. Inner:
 * what it knows of the thoughts of answers, and of which stand there as the model wrote them. */
typedef struct {
    int position, turns, has_logits;
    uint64_t random, tokens, texts, inner;
} Standing;

static uint64_t mix(uint64_t hash, const char *text)
{
    for (text = text ? text : "\1"; *text; text++) hash = hash * 31 + (unsigned char)*text;
    return hash * 31 + 2;
}

static Standing state_of(const llm_session *s)
{
    Standing now = { s->position, s->n_turns, llm_logits(s) != NULL, s->random, 1, 1, 1 };
    for (int i = 0; i < s->position; i++) now.tokens = now.tokens * 31 + (uint64_t)s->tokens[i];
    for (int i = 0; i < s->n_turns; i++) {
        const Turn *t = &s->turns[i];
        now.texts = mix(mix(now.texts, t->role), t->text) + (uint64_t)(t->text ? 0 : t->begin);
        now.inner = mix(now.inner, t->thoughts) + (uint64_t)(t->end + 1);
    }
    return now;
}

static int same_state(Standing a, Standing b)
{
    return a.position == b.position && a.turns == b.turns && a.has_logits == b.has_logits &&
           a.random == b.random && a.tokens == b.tokens && a.texts == b.texts && a.inner == b.inner;
}

/* How far logits may lie apart where the same tokens were evaluated in batches of other sizes:
 * bf16 tiles, which 16 rows and more go through, round F32 to two parts; measured: 1.6e-5. */
static double batch_bound(void)
{
    return kernels->tiles ? 2e-4 : 1e-5;
}

/* Whether two sessions have the same past, and the same logits where both have them. */
static int same_past(const llm_session *a, const llm_session *b)
{
    Standing x = state_of(a), y = state_of(b);
    int both = x.has_logits && y.has_logits, vocab = a->model->facts.vocab_size;
    x.has_logits = y.has_logits, x.inner = y.inner;
    double apart = both ? float_difference(a->logits, b->logits, vocab) : 0;
    return same_state(x, y) && apart < batch_bound();
}

static const Said conversation[] = { { "system", "be kind" }, { "user", "tea" },
                                     { "assistant", "eat" },  { "user", "seas" },
                                     { "assistant", "oats" }, { "user", "rain" },
                                     { "assistant", NULL } };

/* A session that lost turns is one that never had them. */
static void test_drop(const llm_model *m)
{
    enum { N = ARRAY_LEN(conversation) };
    static const char *const names[] = { "chatml", "llama2", "gemma", "deepseek-coder", "qwen3",
                                        "late",   "kept",   "glm4",  "gpt-oss",        "exaone4" };
    static const int drops[][2] = { { 1, 2 }, { 3, 2 }, { 5, 2 }, { 0, 1 },
                                    { 6, 1 }, { 1, 4 }, { 0, N } };
    static const int wrong[][2] = { { -1, 1 }, { 0, 0 },       { N, 1 },       { 0, N + 1 },
                                    { 6, 2 },  { INT_MAX, 1 }, { 1, INT_MAX }, { 2, -1 } };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        for (size_t j = 0; j < ARRAY_LEN(drops); j++) {
            int first = drops[j][0], count = drops[j][1];
            llm_session *a = new_chat(m, names[i]), *b = new_chat(m, names[i]);
            talk(a, conversation, N, 0, 0);
            talk(b, conversation, N, first, count);
            check(!llm_drop(a, first, count), "%s", llm_error());
            check(same_past(a, b), "%s without turns %d to %d: \"%s\"", names[i], first,
                  first + count - 1, text_of(a));
            talk(a, &(Said){ "user", "more" }, 1, 0, 0);
            talk(b, &(Said){ "user", "more" }, 1, 0, 0);
            check(llm_logits(a) && same_past(a, b), "%s, a turn later: \"%s\"", names[i],
                  text_of(a));
            llm_session_free(a), llm_session_free(b);
        }
    }
    llm_session *s = new_chat(m, NULL);
    talk(s, conversation, N, 0, 0);
    Standing before = state_of(s);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        check(llm_drop(s, wrong[i][0], wrong[i][1]) == -1 && strstr(llm_error(), "of 7") &&
                  same_state(before, state_of(s)),
              "%d turns from number %d on: %s", wrong[i][1], wrong[i][0], llm_error());
    }
    llm_session_free(s);
}

/* Appends a text that the model is taken to have written. */
static void pretend(llm_session *s, const char *text)
{
    int tokens[256], n = llm_encode(s->model, text, strlen(text), LLM_SPECIAL, tokens, 256);
    check(llm_eval(s, tokens, n), "%s", llm_error());
}

/* What a model writes behind the opening of an answer: a thought and "yes", a thought that does not
 * end, "yes", and "yes" where it was asked not to think; NULL where it can't. */
static const struct {
    const char *name, *written[4];
} thinking[] = {
    { "qwen3", { "<think>\nhm\n</think>\n\nyes", "<think>\nhm\n", "yes", "yes" } },
    { "qwq", { "\nhm\n</think>\n\nyes", "\nhm\n", NULL, NULL } },
    { "qwen3.5", { "hm\n</think>\n\nyes", "hm\n", NULL, "yes" } },
    { "chatml", { "<think>hm</think>yes", " <think>hm", "\n\nyes", NULL } },
    { "exaone4", { "hm\n</think>\n\nyes", "hm\n", NULL, "yes" } },
    { "exaone-deep", { "hm\n</thought>\n\nyes", "hm\n", NULL, NULL } },
    { "magistral", { "[THINK]hm[/THINK]yes", "[THINK]hm", "yes", NULL } },
    { "gpt-oss",
      { "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes",
        "<|channel|>analysis<|message|>hm", NULL, NULL } },
    { "deepseek", { "<think>\nhm\n</think>\n\nyes", "<think>\nhm\n", "yes", NULL } },
};

/* By each template that drops thoughts: the next turn leaves of an answer what one without thoughts
 * has, and nothing of a thought that did not end. */
static void test_thoughts_go(const llm_model *m)
{
    for (size_t i = 0; i < 4 * ARRAY_LEN(thinking); i++) {
        const char *name = thinking[i / 4].name, *text = thinking[i / 4].written[i % 4];
        int half = i % 4 == 1;
        if (!text) continue;
        llm_session *a = llm_session_new(m, &(llm_options){ .threads = 1,
                                                            .cache = "f32",
                                                            .chat_template = template_of(name),
                                                            .thinking = i % 4 == 3 ? -1 : 0 });
        llm_session *b = new_chat(m, name);
        talk(a, &(Said){ "user", "tea?" }, 1, 0, 0);
        talk(b, (Said[]){ { "user", "tea?" }, { "assistant", half ? "" : "yes" } }, 2, 0, 0);
        check(!llm_turn(a, "assistant", NULL), "%s: %s", name, llm_error());
        check(i % 4 < 3 || strstr(text_of(a), "</think>\n\n"), "%s: \"%s\"", name, text_of(a));
        pretend(a, text);
        talk(a, &(Said){ "user", "so" }, 1, 0, 0);
        talk(b, &(Said){ "user", "so" }, 1, 0, 0);
        check(same_past(a, b), "%s, %zu: \"%s\"", name, i % 4, text_of(a));
        llm_session_free(a), llm_session_free(b);
    }
}

/* A copy of what the cache of the first layer has of n positions; the caller frees it. */
static uint8_t *cached(const llm_session *s, int n)
{
    size_t bytes;
    const uint8_t *keys = kept(s, 0, &bytes);
    uint8_t *copy = malloc((size_t)n * bytes + 1);
    if (!copy) abort();
    memcpy(copy, keys, (size_t)n * bytes);
    return copy;
}

/* Thirty questions with answers that begin with thoughts: by a template that drops them, a turn
 * costs itself and the answer in front of it without them; by one that keeps them, itself alone,
 * and the answer stays as it was written. */
static void test_thoughts_cost(const llm_model *m)
{
    static const char *const names[] = { "qwen3", "kept" };
    for (int i = 0; i < 2; i++) {
        const llm_options o = {
            .threads = 1, .context = 4000, .chat_template = template_of(names[i])
        };
        llm_session *s = llm_session_new(m, &o), *fresh = llm_session_new(m, &o);
        for (int round = 0; round < 30; round++) {
            talk(s, (Said[]){ { "user", "tea" } }, 1, 0, 0);
            check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
            int stays = llm_position(s), before;
            pretend(s, "<think>\nhm\n</think>\n\nyes");
            before = llm_position(s);
            if (i == 1) stays = before;
            size_t bytes;
            uint8_t *keys = kept(s, 0, &bytes);
            memset(keys + (size_t)(stays - 1) * bytes, 0x11, bytes);
            uint8_t *copy = cached(s, stays);
            check(!llm_turn(s, "user", "so"), "%s", llm_error());
            check(!memcmp(copy, keys, (size_t)stays * bytes),
                  "%s, question %d: what stands in front is evaluated anew", names[i], round);
            check((llm_position(s) < before) == (i == 0), "%s: %d positions, before %d", names[i],
                  llm_position(s), before);
            check(!llm_drop(s, llm_turns(s) - 1, 1), "%s", llm_error());
            free(copy);
        }
        for (int round = 0; round < 30 && i == 0; round++)
            talk(fresh, (Said[]){ { "user", "tea" }, { "assistant", "yes" } }, 2, 0, 0);
        check(i == 1 || same_past(s, fresh), "without thoughts: \"%s\"", text_of(s));
        check(i == 0 || strstr(text_of(s), "yes<|im_end|>\n<|im_start|>user\ntea<|im_end|>\n"
                                           "<|im_start|>assistant\n<think>\nhm\n</think>\n\nyes"),
              "with thoughts: \"%s\"", text_of(s));
        llm_session_free(s), llm_session_free(fresh);
    }
}

/* The token of a character in the tiny vocabulary: a letter's or a byte's. */
static int token_of(char c)
{
    static const char letters[] = " etaoinshrdlucmfwypvbgkqjxz";
    const char *letter = strchr(letters, c);
    return letter ? 259 + (int)(letter - letters) : 3 + (unsigned char)c;
}

/* What chain_model gives for a list that is spelt: its characters, each only once, and the tokens
 * that are renamed, as "\1" "four" each; "\2" ends the text, "\3" goes back to its second token. */
static llm_model *spelling_model(const char *text, int context, Bytes *file)
{
    static const char *const names[] = { " 286", "e287", "t288", "a289", "o290", "i291" };
    int chain[64] = { 0 }, n = 0, renamed = 0;
    const char *from[ARRAY_LEN(names)];
    for (const char *c = text; *c; c++) {
        if (*c == '\1') {
            from[renamed] = c + 1;
            chain[n++] = 286 + renamed++;
            c += 4;
        } else {
            chain[n++] = *c == '\2' ? 2 : *c == '\3' ? chain[1] : *c == '^' ? 1 : token_of(*c);
        }
    }
    llm_close(chain_model(chain, n, context, file));
    for (int i = 0; i < renamed; i++) {
        memcpy(memmem(file->data, file->size, names[i], 4), from[i], 4);
    }
    llm_model *m = llm_open_memory(file->data, file->size);
    check(m, "%s", llm_error());
    return m;
}

typedef struct {
    const llm_session *session;
    char thought[4096], answer[4096];
} Mind;

static int listen(void *user, const char *text, size_t len)
{
    Mind *mind = user;
    char *to = llm_is_thought(mind->session) ? mind->thought : mind->answer;
    if (strlen(to) + len < sizeof mind->thought) strcat(to, text);
    return 0;
}

/* Text that is evaluated in a turn may have any number of stop texts in each token. */
static void test_many_stops(void)
{
    static const char *const stops[] = { "t", NULL };
    char text[1600] = "";
    llm_model *m = llm_open(BUNDLED);
    llm_session *s = llm_session_new(m, &(llm_options){ .stops = stops, .threads = 1 });
    for (int i = 0; i < 300; i++) strcat(text, " that");
    check(s && !llm_turn(s, "user", "hi") && !llm_turn(s, "assistant", NULL), "%s", llm_error());
    check(llm_generate(s, text, 3, &(llm_sampling){ 0 }, NULL, NULL) >= 0, "%s", llm_error());
    check(s->text.n < 64, "%zu characters wait", s->text.n);
    llm_session_free(s);
    llm_close(m);
}

/* A turn that fails in the middle of an answer takes nothing of what waits to be given out. */
static void test_failed_turn_in_answer(void)
{
    static const char *const stops[] = { "hat", NULL };
    Bytes file;
    char longer[2000];
    llm_model *m = spelling_model("\n\1<thi\1nk>\nhm\1</th\1ink>yes\2", 300, &file);
    const llm_options o = { .chat_template = "chatml", .stops = stops };
    llm_session *s = llm_session_new(m, &o);
    Mind mind = { .session = s };
    memset(longer, 'e', sizeof longer);
    longer[sizeof longer - 1] = 0;
    talk(s, &(Said){ "user", "tea?" }, 1, 0, 0);
    check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
    for (int i = 0; i < 9; i++) {
        int n = llm_generate(s, NULL, 1, &(llm_sampling){ 0 }, listen, &mind);
        check(n >= 0 && llm_turn(s, "user", longer) == LLM_FULL, "%s", llm_error());
    }
    llm_write(s, -1, listen, &mind);
    check(!strcmp(mind.thought, "hm") && !strcmp(mind.answer, "yes"),
          "thought \"%s\", answer \"%s\"", mind.thought, mind.answer);
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* An answer keeps what stands behind a zero byte, which messages can't hold. */
static void test_zero_in_answer(const llm_model *m)
{
    int tokens[] = { 262, 3, 260 }; /* t, the byte 0, e */
    llm_session *s = new_chat(m, NULL);
    talk(s, &(Said){ "user", "so" }, 1, 0, 0);
    check(!llm_turn(s, "assistant", NULL) && llm_eval(s, tokens, 3) && !llm_turn(s, "user", "so"),
          "%s", llm_error());
    const char *text = llm_turn_text(s, 1);
    check(text && strlen(text) == 2, "\"%s\"", text ? text : "");
    llm_session_free(s);
}

/* What is evaluated anew for its logits belongs into the next save, done or interrupted. */
static void test_saved_again(const llm_model *m)
{
    static const char path[] = TMP "/again";
    int tokens[40];
    volatile int stop = 0;
    const llm_options o = { .threads = 1, .cache = "f32", .interrupt = &stop };
    llm_session *s = llm_session_new(m, &o), *t = llm_session_new(m, &o);
    random_tokens(tokens, 40, 200);
    unlink(path);
    check(llm_eval(s, tokens, 40) && !llm_rewind(s, 30) && !llm_save(s, path), "%s", llm_error());
    stop = 1;
    check(llm_generate(s, "", 1, NULL, NULL, NULL) < 0, "it is interrupted");
    stop = 0;
    check(!llm_save(s, path) && !llm_load(t, path) && same_past(s, t), "%s", llm_error());
    check(llm_generate(s, "", 1, &(llm_sampling){ 0 }, NULL, NULL) >= 0 && !llm_save(s, path) &&
              !llm_load(t, path) && same_past(s, t),
          "%s", llm_error());
    llm_session_free(s), llm_session_free(t);
    unlink(path);
}

/* A stop text that was no stop where it stood, in the mark of a thought, is none later either. */
static void test_stop_in_mark(void)
{
    static const char *const stops[] = { "</think>", "yes", NULL };
    Bytes file;
    llm_model *m = spelling_model("\n\1<thi\1nk>\nhm\1</th\1ink>o yes\2", 300, &file);
    const llm_options o = { .chat_template = "chatml", .stops = stops };
    llm_session *s = llm_session_new(m, &o);
    Mind mind = { .session = s };
    talk(s, &(Said){ "user", "tea?" }, 1, 0, 0);
    check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
    check(llm_generate(s, NULL, 0, &(llm_sampling){ 0 }, listen, &mind) > 0, "%s", llm_error());
    const char *text = text_of(s), *end = strstr(text, "</think>o");
    check(!strcmp(mind.thought, "hm") && end && !strcmp(end, "</think>o "),
          "thought \"%s\", session \"%s\"", mind.thought, text);
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* What on_text hears of thoughts, whose marks come in pieces. */
static void test_thoughts_heard(void)
{
    static const struct {
        const char *name, *chain; /* the opening of an answer ends with a line feed */
        const char *thought, *answer;
        int thinking;
    } cases[] = {
        { "qwen3", "\n\1<thi\1nk>\nhm\1</th\1ink>yes\2", "hm", "yes", 0 },
        { "qwen3", "\nyes\2", "", "yes", 0 },
        { "qwen3", "\nyes\2", "", "yes", -1 },
        { "qwen3", "\n\1<thius\2", "", "<thius", 0 },
        { "qwen3", "\n<thik\2", "", "<thik", 0 },
        { "qwq", "\nhm\1</th\1ink>yes\2", "hm", "yes", 0 },
        { "qwq", "\nhm\1</thu\2", "hm</thu", "", 0 },
        { "qwen3.5", "\nhm\1</th\1ink>yes\2", "hm", "yes", 1 },
        { "qwen3.5", "\nyes\2", "", "yes", -1 },
        { "glm4", "\n\1<thi\1nk>\nhm\2", "hm", "", 0 },
        { "glm4", "\n\1[THI\1NK]\nhm\2", "", "[THINK]\nhm", 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Bytes file;
        llm_model *m = spelling_model(cases[i].chain, 300, &file);
        llm_session *s = llm_session_new(
            m, &(llm_options){ .chat_template = template_of(cases[i].name),
                               .thinking = cases[i].thinking });
        Mind mind = { .session = s };
        talk(s, &(Said){ "user", "tea?" }, 1, 0, 0);
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        check(llm_generate(s, NULL, 0, &(llm_sampling){ 0 }, listen, &mind) > 0, "%s", llm_error());
        llm_write(s, -1, listen, &mind);
        check(!strcmp(mind.thought, cases[i].thought) && !strcmp(mind.answer, cases[i].answer),
              "%s: thought \"%s\", answer \"%s\", expected \"%s\", \"%s\"", cases[i].name,
              mind.thought, mind.answer, cases[i].thought, cases[i].answer);
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* Texts that end the generation: not given out, not in the session, wherever tokens begin. */
static void test_stops(void)
{
    static const struct {
        const char *chain, *stops[3];
        int max;
        const char *heard;
        int tokens; /* of them in the session */
    } cases[] = {
        { "^etENDo\2", { "END" }, 0, "et", 2 },
        { "^etENo\2", { "END" }, 0, "etENo", 5 },
        { "^etENDo\2", { "END" }, 4, "etEN", 4 },
        { "^etENDo\2", { "o", "ND" }, 0, "etE", 3 },
        { "^etENDo\2", { "DX", "tE", "END" }, 0, "e", 1 },
        { "^ENDo\2", { "END" }, 0, "", 0 },
        { "^eto\2", { "o" }, 0, "et", 2 },
        { "^e\1aENDo\2", { "END" }, 0, "ea", 2 },
        { "^e\1atEN\1Dooo\2", { "END" }, 0, "eat", 3 },
        { "^e\1tEEN\1Dooo\2", { "END" }, 0, "etE", 3 },
        { "^e\1taEN\1Eooo\2", { "END" }, 0, "etaENEooo", 3 },
        { "^et\xc3\xa9o\2", { "\xc3\xa9o" }, 0, "et", 2 },
        { "^et\xc3\xa9z\2", { "\xc3\xa9o" }, 0, "et\xc3\xa9z", 5 },
        { "^etENDo\2", { "nowhere", "" }, 0, "", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        Bytes file;
        const char *stops[4] = { cases[i].stops[0], cases[i].stops[1], cases[i].stops[2], NULL };
        llm_model *m = spelling_model(cases[i].chain, 60, &file);
        llm_session *s = llm_session_new(m, &(llm_options){ .stops = stops });
        Mind mind = { .session = s };
        check((s == NULL) == (cases[i].tokens < 0), "an empty stop text: %s", llm_error());
        if (s) llm_generate(s, NULL, cases[i].max, &(llm_sampling){ 0 }, listen, &mind);
        if (s) llm_write(s, -1, listen, &mind);
        check(!strcmp(mind.answer, cases[i].heard), "%s: \"%s\", expected \"%s\"", cases[i].chain,
              mind.answer, cases[i].heard);
        check(!s || !strcmp(text_of(s) + 3, cases[i].heard), "the session has \"%s\"", text_of(s));
        check(!s || llm_position(s) == 1 + cases[i].tokens, "%s: %d tokens", cases[i].chain,
              s ? llm_position(s) : 0);
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* Ways to write n tokens: in one call, in short ones, by hand, by hand beside another session. */
enum { AT_ONCE, ONE_BY_ONE, UNEVEN, BY_HAND, BESIDE, N_WAYS };

static void write_tokens(llm_session *s, int way, int n, const llm_sampling *p, Mind *heard)
{
    llm_session *other = way == BESIDE ? llm_fork(s) : NULL, *both[] = { other, s };
    int ended = 0, step = way == AT_ONCE ? n : 1;
    for (int done = 0; done < n && !ended; done += step) {
        if (way == UNEVEN) step = done % 4 + 1 < n - done ? done % 4 + 1 : n - done;
        if (way < BY_HAND) {
            int wrote = llm_generate(s, NULL, step, p, listen, heard);
            check(wrote >= 0, "%s", llm_error());
            ended = wrote < step;
            continue;
        }
        int token = llm_position(s) < llm_context(s) ? llm_sample(s, p) : -1;
        ended = llm_write(s, token, listen, heard);
        check(ended >= 0, "%s", llm_error());
        if (ended) break;
        if (way == BY_HAND) check(llm_eval(s, &token, 1), "%s", llm_error());
        int two[] = { token, token };
        if (way == BESIDE) check(!llm_eval_many(both, two, 2), "%s", llm_error());
    }
    llm_write(s, -1, listen, heard);
    llm_session_free(other);
}

/* The text does not depend on who steps the session, or how far at a time: characters, stop texts
 * and thoughts in pieces. */
static void test_slices(void)
{
    static const struct {
        const char *name, *chain, *stops[3];
    } cases[] = {
        { NULL, "^etENDo\2", { "END" } },
        { NULL, "^et\xc3\xa9o\xe2\x82\xacr\2", { "x" } },
        { NULL, "^et\xe2\x82o\xf0\x9f\2", { "\xe2\x82\xac" } },
        { NULL, "^e\1tEEN\1Dooo\2", { "END" } },
        { NULL, "^etENDo\2", { "DX", "tE", "END" } },
        { "qwen3", "\n\1<thi\1nk>\nhm\1</th\1ink>yes\2", { "x" } },
        { "qwen3", "\n\1<thi\1nk>\nhm\1</th\1ink>yes\2", { "es" } },
        { "qwq", "\nhm\1</th\1ink>yes\2", { "x" } },
        { NULL, NULL, { "the", "was a" } },
        { NULL, NULL, { "\n" } },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases) + 20; i++) {
        Bytes file = { 0 };
        size_t c = i < ARRAY_LEN(cases) ? i : ARRAY_LEN(cases) - 1 - i % 2;
        const char *stops[4] = { cases[c].stops[0], cases[c].stops[1], cases[c].stops[2], NULL };
        const char *format = cases[c].name, *chain = cases[c].chain;
        llm_model *m = chain ? spelling_model(chain, 300, &file) : llm_open(BUNDLED);
        llm_sampling p = { .temperature = chain ? 0 : 1 };
        Mind heard[N_WAYS] = { 0 };
        Standing states[N_WAYS];
        for (int way = 0; way < N_WAYS; way++) {
            const llm_options o = {
                .chat_template = template_of(format), .stops = stops, .seed = i, .threads = 1
            };
            llm_session *s = llm_session_new(m, &o);
            heard[way].session = s;
            if (format) talk(s, &(Said){ "user", "tea?" }, 1, 0, 0);
            if (format) check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
            if (!format) check(llm_eval(s, &m->facts.bos, 1), "%s", llm_error());
            write_tokens(s, way, 60, &p, &heard[way]);
            states[way] = state_of(s);
            states[way].has_logits = 0;
            check(!strcmp(heard[way].answer, heard[0].answer) &&
                      !strcmp(heard[way].thought, heard[0].thought) &&
                      same_state(states[way], states[0]),
                  "number %zu, way %d: \"%s\" \"%s\", at once \"%s\" \"%s\"", i, way,
                  heard[way].thought, heard[way].answer, heard[0].thought, heard[0].answer);
            llm_session_free(s);
        }
        llm_close(m);
        free(file.data);
    }
}

/* A vocabulary of bytes with marks of some type, of which a chain makes `tokens` behind "a". */
static llm_model *marked_model(const char *const *marks, int n_marks, int type, const int *tokens,
                               int n, Bytes *file)
{
    enum { DIM = 300 };
    Builder b = { 0 };
    Shape shape = { .arch = "llama", .dim = DIM, .hidden_dim = 1, .n_layers = 1, .n_heads = 1,
                    .n_kv_heads = 1, .head_dim = 2, .n_rot = 2, .context = 200 };
    int vocab = 259 + n_marks;
    add_hyperparameters(&b, &shape);
    add_string(&b, "tokenizer.ggml.model", "llama");
    add_bool(&b, "tokenizer.ggml.add_bos_token", 0);
    add_array(&b, "tokenizer.ggml.tokens", STRING, (uint64_t)vocab);
    for (int i = 0; i < vocab; i++) {
        char name[16];
        static const char *const first[] = { "<unk>", "<s>", "</s>" };
        snprintf(name, sizeof name, "<0x%02X>", i - 3);
        put_text(&b.keys, i < 3 ? first[i] : i < 259 ? name : marks[i - 259]);
    }
    add_array(&b, "tokenizer.ggml.token_type", I32, (uint64_t)vocab);
    for (int i = 0; i < vocab; i++) {
        put_int(&b.keys, (uint64_t)(i >= 259 ? type : i < 3 ? TOKEN_CONTROL : TOKEN_BYTE), 4);
    }
    const struct {
        const char *name;
        int rows, cols;
    } parts[] = { { "token_embd.weight", vocab, DIM },    { "output_norm.weight", 0, DIM },
                  { "output.weight", vocab, DIM },        { "blk.0.attn_norm.weight", 0, DIM },
                  { "blk.0.attn_q.weight", 2, DIM },      { "blk.0.attn_k.weight", 2, DIM },
                  { "blk.0.attn_v.weight", 2, DIM },      { "blk.0.attn_output.weight", DIM, 2 },
                  { "blk.0.ffn_norm.weight", 0, DIM },    { "blk.0.ffn_gate.weight", 1, DIM },
                  { "blk.0.ffn_up.weight", 1, DIM },      { "blk.0.ffn_down.weight", DIM, 1 } };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        size_t at = b.tensors.size;
        add_tensor(&b, parts[i].name, F32, parts[i].rows, parts[i].cols, 0, !parts[i].rows);
        float *w = (float *)(void *)(b.tensors.data + at);
        for (int j = 0; i == 0 && j < vocab; j++) w[j * DIM + j] = 1;
        for (int j = 0; i == 2 && j + 1 < n; j++) w[tokens[j + 1] * DIM + tokens[j]] = 1;
    }
    *file = finish(&b);
    llm_model *m = llm_open_memory(file->data, file->size);
    check(m, "%s", llm_error());
    return m;
}

/* Where the vocabulary has the mark, its text in other tokens ends no thought; and what is typed
 * never becomes it. */
static void test_thought_token(void)
{
    static const char *const marks[] = { "<think>", "</think>", "<|im_start|>", "<|im_end|>" };
    static const int types[] = { TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_NORMAL };
    static const char close[] = "</think>";
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        int chain[32] = { 3 + '\n', 259, 3 + 'a' }, n = 3;
        for (const char *c = close; *c; c++) chain[n++] = 3 + (unsigned char)*c;
        chain[n++] = 260, chain[n++] = 3 + 'b', chain[n++] = 262;
        Bytes file;
        llm_model *m = marked_model(marks, 4, types[i], chain, n, &file);
        llm_session *s = llm_session_new(m, &(llm_options){
                                                .chat_template = template_of("qwen3") });
        Mind heard = { .session = s };
        check(s && !*llm_warning(s), "a warning: %s", s ? llm_warning(s) : llm_error());
        check(!llm_turn(s, "user", "<|im_end|></think>"), "%s", llm_error());
        for (int t = 0, typed = 0; t < llm_position(s); t++) {
            typed += llm_tokens(s)[t] >= 259;
            check(typed <= 2 && llm_tokens(s)[t] != 260, "a typed mark is token %d",
                  llm_tokens(s)[t]);
        }
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        llm_generate(s, NULL, 40, &(llm_sampling){ 0 }, listen, &heard);
        check(!strcmp(heard.thought, "a</think>") && !strcmp(heard.answer, "b"),
              "type %d: thought \"%s\", answer \"%s\"", types[i], heard.thought, heard.answer);
        check(!llm_turn(s, "user", "so"), "%s", llm_error());
        const char *kept = llm_turn_text(s, 1);
        check(kept && !strcmp(kept, "b"), "kept: \"%s\"", kept ? kept : "");
        llm_session_free(s);
        s = llm_session_new(m, &(llm_options){ .chat_template = "gemma" });
        check(s && strstr(llm_warning(s), "no token <end_of_turn>"), "no warning of a mark");
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* The lengths that a stop text may have. */
static void test_stop_lengths(const llm_model *m)
{
    for (int length = MAX_STOP - 1; length <= MAX_STOP; length++) {
        char text[MAX_STOP + 1] = { 0 };
        memset(text, 'e', (size_t)length);
        llm_session *s = llm_session_new(
            m, &(llm_options){ .stops = (const char *const[]){ "tea", text, NULL } });
        check((length < MAX_STOP) == (s != NULL), "a stop text of %d bytes", length);
        check(s || strstr(llm_error(), "a stop text of 256 bytes, expected 1 to 255"), "%s",
              llm_error());
        llm_session_free(s);
    }
}

static const char saved[] = TMP "/session";

/* Files that a save began and did not finish. */
static int unfinished(void)
{
    glob_t found;
    int n = glob(TMP "/.session-*", 0, NULL, &found) ? 0 : (int)found.gl_pathc;
    globfree(&found);
    return n;
}

/* A conversation in which the model has begun to answer. */
static llm_session *begun_chat(const llm_model *m, const char *cache, int context)
{
    llm_session *s = llm_session_new(
        m, &(llm_options){ .threads = 1, .cache = cache, .seed = 4, .context = context });
    check(s, "%s", llm_error());
    if (s) talk(s, conversation, ARRAY_LEN(conversation), 0, 0);
    return s;
}

/* Saved in the middle of an answer, or with nothing in it: another session goes on just so. */
static void test_save(const llm_model *m)
{
    for (int i = 0; i < 3; i++) {
        Mind mind[2] = { { 0 } };
        llm_session *a = i == 2 ? new_chat(m, NULL) : begun_chat(m, "f32", 400), *b;
        if (i == 1) talk(a, &(Said){ "user", "so" }, 1, 0, 0);
        b = new_chat(m, NULL);
        talk(b, &(Said){ "user", "something else" }, 1, 0, 0);
        check(!llm_save(a, saved) && !unfinished(), "%s", llm_error());
        check(!llm_load(b, saved), "%s", llm_error());
        check(same_state(state_of(a), state_of(b)) && same_past(a, b), "%d: \"%s\"", i, text_of(b));
        mind[0].session = a, mind[1].session = b;
        llm_sampling p = { .temperature = 1 };
        int said[2] = { llm_generate(a, NULL, 20, &p, listen, &mind[0]),
                        llm_generate(b, NULL, 20, &p, listen, &mind[1]) };
        check(said[0] > 0 && said[0] == said[1] && same_state(state_of(a), state_of(b)),
              "%d: %d tokens, %d tokens: %s", i, said[0], said[1], llm_error());
        check(!strcmp(mind[0].answer, mind[1].answer), "%d: heard \"%s\" and \"%s\"", i,
              mind[0].answer, mind[1].answer);
        talk(a, &(Said){ "user", "bye" }, 1, 0, 0);
        talk(b, &(Said){ "user", "bye" }, 1, 0, 0);
        check(same_past(a, b), "%d, a turn later: \"%s\"", i, text_of(b));
        llm_session_free(a), llm_session_free(b);
    }
}

/* An answer goes on in a fork and in another session as it does here: white space at its beginning
 * is not heard, between words it is. */
static void test_white_space(void)
{
    Bytes file;
    llm_model *m = spelling_model("\n\1 tea so\2", 300, &file);
    for (int said = 0; said < 2; said++) {
        llm_session *a = new_chat(m, "chatml"), *b = new_chat(m, "chatml"), *all[] = { b, NULL, a };
        talk(a, &(Said){ "user", "hum" }, 1, 0, 0);
        check(!llm_turn(a, "assistant", NULL), "%s", llm_error());
        if (said) llm_generate(a, NULL, said, &(llm_sampling){ 0 }, NULL, NULL);
        check(!llm_save(a, saved) && !llm_load(b, saved), "%s", llm_error());
        all[1] = llm_fork(a);
        for (int i = 0; i < 3; i++) {
            static const char *const names[] = { "a loaded session", "a fork", "the session" };
            Mind mind = { .session = all[i] };
            llm_generate(all[i], NULL, 0, &(llm_sampling){ 0 }, listen, &mind);
            check(!strcmp(mind.answer, said ? " so" : "tea so"), "%s goes on with \"%s\"", names[i],
                  mind.answer);
            llm_session_free(all[i]);
        }
    }
    llm_close(m);
    free(file.data);
}

/* Loading must fail: with a sentence of one line that has `part`, and the session as it was. */
static int refused(llm_session *s, const char *part)
{
    Standing before = state_of(s);
    return llm_load(s, saved) == -1 && !strncmp(llm_error(), saved, strlen(saved)) &&
           strstr(llm_error(), part) && !strchr(llm_error(), '\n') &&
           same_state(before, state_of(s));
}

static void write_saved(const void *data, size_t size)
{
    FILE *out = fopen(saved, "wb");
    if (!out || fwrite(data, 1, size, out) != size) check(0, "%s can't be written", saved);
    if (out) fclose(out);
}

/* A file of another model, cache or size; nothing; no file. One of another template is taken: its
 * turns are written as the session's own has it. */
static void test_other_sessions(const llm_model *m)
{
    Bytes file;
    llm_model *other = open_chat(2, &file);
    llm_session *s = begun_chat(m, "f32", 400), *sessions[] = {
        begun_chat(other, "f32", 400), begun_chat(m, "f16", 400), begun_chat(m, "f32", 150)
    };
    static const char *const why[] = { "another model", "a cache of F32, expected F16",
                                       "positions, the context 150" };
    talk(s, (Said[]){ { "user", "this tea in the rain" }, { "assistant", "so it is" } }, 2, 0, 0);
    check(llm_position(s) > 150 && !llm_save(s, saved), "%s", llm_error());
    for (int i = 0; i < 3; i++) {
        check(refused(sessions[i], why[i]), "expected \"%s\": %s", why[i], llm_error());
        llm_session_free(sessions[i]);
    }
    llm_session *loaded = new_chat(m, "zephyr"), *fresh = new_chat(m, "zephyr");
    check(!llm_load(loaded, saved) && llm_turns(loaded) == 9 && same_past(loaded, s), "%s",
          llm_error());
    for (int i = 0; i < 9; i++) talk(fresh, &(Said){ s->turns[i].role, s->turns[i].text }, 1, 0, 0);
    fresh->random = loaded->random;
    talk(loaded, &(Said){ "user", "so" }, 1, 0, 0);
    talk(fresh, &(Said){ "user", "so" }, 1, 0, 0);
    check(same_past(loaded, fresh), "by another template: \"%s\"", text_of(loaded));
    llm_session_free(loaded), llm_session_free(fresh);
    write_saved("", 0);
    check(refused(s, "empty"), "%s", llm_error());
    unlink(saved);
    check(refused(s, "No such file"), "%s", llm_error());
    check(llm_load(s, TMP) == -1 && strstr(llm_error(), "a directory"), "%s", llm_error());
    check(llm_save(s, TMP "/nowhere/x") == -1 &&
              !strcmp(llm_error(), TMP "/nowhere/x: No such file or directory") &&
              access(TMP "/nowhere", F_OK),
          "%s", llm_error());
    mkdir(TMP "/folder", 0777);
    check(llm_save(s, TMP "/folder") == -1 && !unfinished(), "%s", llm_error());
    rmdir(TMP "/folder");
    llm_session_free(s);
    llm_close(other);
    free(file.data);
}

/* Files that were cut, changed in a byte, or are noise: all are refused. */
static void test_damaged_sessions(const llm_model *m)
{
    llm_session *s = begun_chat(m, "f16", 400);
    static char file[1 << 16], copy[1 << 16];
    uint64_t random = 3;
    int wrong = 0;
    check(!llm_save(s, saved), "%s", llm_error());
    FILE *in = fopen(saved, "rb");
    size_t size = in ? fread(file, 1, sizeof file, in) : 0;
    if (in) fclose(in);
    check(size > 5000 && size < sizeof file, "%zu bytes", size);
    for (size_t n = 1; n < size; n += 7) write_saved(file, n), wrong += !refused(s, ":");
    check(!wrong, "%d shortened files: %s", wrong, llm_error());
    for (int i = 0; i < 2000; i++) {
        size_t at = (size_t)(random_unit(&random) * (double)size);
        memcpy(copy, file, size);
        copy[at] ^= (char)(1 << i % 8);
        write_saved(copy, size);
        wrong += !refused(s, ":");
    }
    check(!wrong, "%d changed files: %s", wrong, llm_error());
    for (int i = 0; i < 100; i++) {
        for (size_t j = i % 2 ? 0 : 8; j < 999; j++)
            copy[j] = (char)(int)(random_unit(&random) * 256);
        write_saved(copy, 999 - (size_t)i % 8);
        wrong += !refused(s, "session");
    }
    check(!wrong, "%d files of noise: %s", wrong, llm_error());
    memcpy(copy, file, size);
    write_saved(file, size);
    check(!llm_load(s, saved), "%s", llm_error());
    llm_session_free(s);
}

static void slurp_bytes(const char *path, uint8_t *to, size_t room, size_t *size)
{
    FILE *in = fopen(path, "rb");
    *size = in ? fread(to, 1, room, in) : 0;
    if (in) fclose(in);
}

/* Loads a file with a good checksum and some bad number in it. What loads must be of use. */
static int try_forged(llm_session *s, uint8_t *file, size_t size)
{
    SavedHead head = head_of(size, checksum(0, file + sizeof head, size - sizeof head));
    Standing before = state_of(s);
    memcpy(file, &head, sizeof head);
    write_saved(file, size);
    if (llm_load(s, saved)) return same_state(before, state_of(s)) && *llm_error() != 0;
    llm_generate(s, NULL, 2, NULL, NULL, NULL);
    llm_turn(s, "user", "tea");
    llm_turn(s, "assistant", NULL);
    llm_generate(s, NULL, 2, NULL, NULL, NULL);
    llm_drop(s, 1, 2);
    llm_drop(s, 0, 1);
    return llm_position(s) <= llm_context(s) && llm_position(s) >= 0;
}

/* Adds the places of the numbers that matter in the segment at `at` of a file of s; returns where
 * the next one begins. */
static size_t segment_places(const llm_session *s, const uint8_t *file, size_t at, size_t *places,
                             size_t *n)
{
    const llm_facts *c = &s->model->facts;
    Saved h;
    memcpy(&h, file + at, sizeof h);
    size_t next = at + h.size, rows = (size_t)(h.valid - h.from);
    for (size_t i = offsetof(Saved, size); i < sizeof h; i += 4) {
        if (i < offsetof(Saved, model) || i >= offsetof(Saved, from)) places[(*n)++] = at + i;
    }
    at += sizeof h;
    places[(*n)++] = at, places[(*n)++] = at + 40; /* tokens */
    at += padded((size_t)(h.position - h.from) * sizeof(int32_t));
    for (int i = 0; i < s->model->n_kept; i++) {
        at += padded(rows * row_bytes(s->cache, s->model->kept[i].dim));
    }
    at += h.has_logits ? padded((size_t)c->vocab_size * sizeof(float)) : 0;
    for (int i = 0; i < h.n_turns; i++) {
        SavedTurn turn;
        for (size_t j = 0; j < 5; j++) places[(*n)++] = at + 4 * j;
        memcpy(&turn, file + at, sizeof turn);
        at += sizeof turn;
        for (int k = 0; k < 3; k++) {
            at += padded(turn.lengths[k] > 0 ? (size_t)turn.lengths[k] : 0);
        }
    }
    check(at == next, "a segment ends at %zu, expected %zu", at, next);
    return next;
}

/* Someone who knows the checksum can't break a session either: one that was saved at once, and one
 * with a segment that was appended. */
static void test_forged_sessions(const llm_model *m)
{
    static const int32_t values[] = { -1,  0,   1,   2,       3,       7,      100,
                                      300, 399, 400, 1 << 20, INT_MAX, INT_MIN };
    static uint8_t file[1 << 17], copy[1 << 17];
    llm_session *s = begun_chat(m, "f16", 400);
    size_t places[256], n = 0, at = sizeof(SavedHead), size, segments = 0;
    int wrong = 0;
    check(!llm_save(s, saved), "%s", llm_error());
    talk(s, (Said[]){ { "user", "this tea" }, { "assistant", NULL } }, 2, 0, 0);
    check(!llm_save(s, saved), "%s", llm_error());
    slurp_bytes(saved, file, sizeof file, &size);
    for (; at < size; segments++) at = segment_places(s, file, at, places, &n);
    check(segments == 2 && n > 60 && n < ARRAY_LEN(places), "%zu segments, %zu", segments, n);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < 2 + ARRAY_LEN(values); j++) {
            int32_t value;
            memcpy(copy, file, size);
            memcpy(&value, copy + places[i], sizeof value);
            value = j < 2 ? value + 1 - 2 * (int32_t)j : values[j - 2];
            memcpy(copy + places[i], &value, sizeof value);
            wrong += !try_forged(s, copy, size);
        }
    }
    memcpy(copy, file, size);
    memset(copy + sizeof(SavedHead) + offsetof(Saved, random), 0, 8); /* no state to draw from */
    check(!wrong && try_forged(s, copy, size), "%d forged files: %s", wrong, llm_error());
    memcpy(copy, file, size);
    check(try_forged(s, copy, size) && llm_turns(s) > 3, "the file itself: %s", llm_error());
    llm_session_free(s);
}

static off_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? -1 : st.st_size;
}

/* Saves s and loads it into a session of its own, which must be the same. */
static int saves_well(llm_session *s)
{
    llm_session *other = new_chat(s->model, NULL);
    int same = !llm_save(s, saved) && !llm_load(other, saved) && same_past(s, other) &&
               same_state(state_of(s), state_of(other));
    llm_session_free(other);
    return same;
}

/* A turn more costs what is new, and what was changed is saved too. In the end the file is at most
 * twice as large as what lives in it. */
static void test_appended(const llm_model *m)
{
    llm_session *s = new_chat(m, NULL), *other = new_chat(m, NULL);
    int appended = 0;
    unlink(saved);
    talk(s, conversation, 3, 0, 0);
    check(saves_well(s), "%s", llm_error());
    for (int i = 0; i < 6; i++) {
        off_t before = size_of(saved), after;
        int from = llm_position(s);
        if (i == 3) llm_rewind(s, from -= 9), from -= llm_position(s) < from;
        talk(s, (Said[]){ { "user", "tea in the rain" }, { "assistant", "so" } }, 2, 0, 0);
        size_t row = 2 * sizeof(float) * (size_t)m->facts.n_layers * (size_t)m->facts.n_kv_heads *
                     (size_t)m->facts.head_dim;
        size_t most = (size_t)(llm_position(s) - from + 9) * (row + 4) + 4096;
        check(saves_well(s), "turn %d: %s", i, llm_error());
        after = size_of(saved);
        appended += after > before && (size_t)(after - before) < most && (size_t)after > 2 * most;
        check((uint64_t)after <= 2 * segment_size(s, 0), "turn %d: %lld", i, (long long)after);
    }
    check(appended > 1, "%d of 6 saves appended what was new", appended);
    /* bytes of a save that was not finished, and a file that another session has replaced */
    check(cli("printf 'half a segment' >>$T/session") == 0 && !llm_load(other, saved), "%s",
          llm_error());
    check(same_past(s, other) && saves_well(other), "bytes behind the end: %s", llm_error());
    talk(s, &(Said){ "user", "mine" }, 1, 0, 0);
    check(saves_well(s), "a file that somebody else wrote: %s", llm_error());
    llm_session_free(s), llm_session_free(other);
}

/* What a save does to the files that it finds. */
static void test_saved_files(const llm_model *m)
{
    llm_session *s = new_chat(m, NULL);
    struct stat st;
    mode_t mask = umask(0);
    talk(s, conversation, 3, 0, 0);
    unlink(saved);
    check(!llm_save(s, saved) && !stat(saved, &st) && (st.st_mode & 07777) == 0600, "mode %o",
          (unsigned)st.st_mode);
    for (int i = 0; i < 2; i++) { /* the file anew; appended to */
        chmod(saved, 0640);
        if (i == 0) llm_rewind(s, 0);
        talk(s, conversation, 2, 0, 0);
        check(!llm_save(s, saved) && !stat(saved, &st) && (st.st_mode & 07777) == 0640, "mode %o",
              (unsigned)st.st_mode);
    }
    umask(mask);
    check(cli("cd $T; echo mine >session.tmp; ln -sf session link; rm -f new; ln -sf new newlink;"
              "ln -sf newlink chain") == 0,
          "%s", cli_err);
    off_t before = size_of(saved);
    llm_rewind(s, 0);
    check(!llm_save(s, TMP "/link") && size_of(saved) < before, "%s", llm_error());
    check(!llm_save(s, TMP "/chain") && size_of(TMP "/new") > 0, "%s", llm_error());
    check(cli("cd $T; test -L link && test -L newlink && test -L chain && cat session.tmp") == 0 &&
              !strcmp(cli_out, "mine\n"),
          "links and a file of somebody: %s", cli_out);
    check(llm_save(s, "/dev/null") == -1 && llm_save(s, NULL) == -1 && llm_load(NULL, saved) == -1,
          "what is no file");
    llm_session_free(s);
}

/* Saves a turn more again and again; loads what another process may have saved in between. */
static void keep_saving(const llm_model *m, int rounds)
{
    llm_session *s = new_chat(m, NULL);
    int wrong = 0;
    for (int i = 0; i < rounds; i++) {
        if (llm_position(s) > 200) llm_rewind(s, 0);
        talk(s, (Said[]){ { "user", "tea" }, { "assistant", "so" } }, 2, 0, 0);
        wrong += llm_save(s, saved) != 0;
        if (i % 3 == 0) wrong += llm_load(s, saved) != 0;
    }
    _exit(wrong > 0);
}

/* Two processes save to one file, and processes are killed while they save: what is there is
 * always whole. */
static void test_savers(const llm_model *m)
{
    llm_session *s = new_chat(m, NULL);
    pid_t children[2];
    int wrong = 0, status;
    check(!llm_save(s, saved), "%s", llm_error());
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        if (!(children[i] = fork())) keep_saving(m, 60);
    }
    for (int i = 0; i < 60; i++) wrong += llm_load(s, saved) != 0;
    for (int i = 0; i < 2; i++) {
        wrong += waitpid(children[i], &status, 0) != children[i] || status != 0;
    }
    check(!wrong && !llm_load(s, saved), "two savers, %d failures: %s", wrong, llm_error());
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) keep_saving(m, 1 << 20);
        usleep(20000 + (useconds_t)i * 1700);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        wrong += llm_load(s, saved) != 0;
    }
    check(!wrong, "%d savers were killed and left no whole file: %s", wrong, llm_error());
    cli("rm -f $T/.session-*");
    llm_session_free(s);
}

static volatile int interrupting;

static int interrupt(void *user, const char *text, size_t len)
{
    (void)text, (void)len;
    interrupting = --*(int *)user <= 0;
    return 0;
}

/* Of sessions side by side each is interrupted by its own flag, wherever it stands. */
static void test_interrupted_batch(const llm_model *m)
{
    volatile int flags[3] = { 0 };
    llm_session *all[3];
    int tokens[] = { 262, 260, 261 };
    for (int i = 0; i < 3; i++) {
        all[i] = llm_session_new(m, &(llm_options){ .threads = 1, .interrupt = &flags[i] });
    }
    check(!llm_eval_many(all, tokens, 3), "%s", llm_error());
    for (int i = 0; i < 3; i++) {
        flags[i] = 1;
        check(llm_eval_many(all, tokens, 3) == -1 && strstr(llm_error(), "interrupted") &&
                  llm_position(all[0]) == 1 && llm_position(all[2]) == 1,
              "the flag of session %d: %s", i, llm_error());
        check(!llm_eval_many(all + (i + 1) % 3, tokens, 1), "another is interrupted by it: %s",
              llm_error());
        llm_rewind(all[(i + 1) % 3], 1);
        flags[i] = 0;
    }
    check(!llm_eval_many(all, tokens, 3) && llm_position(all[1]) == 2, "%s", llm_error());
    for (int i = 0; i < 3; i++) llm_session_free(all[i]);
}

/* An evaluation that is interrupted leaves the session as it was, and can be done again. */
static void test_interrupt(const llm_model *m)
{
    test_interrupted_batch(m);
    int tokens[1000], calls = 3, vocab = m->facts.vocab_size;
    llm_options options = { .threads = 1, .cache = "f32", .interrupt = &interrupting };
    llm_session *a = llm_session_new(m, &options), *b = llm_session_new(m, &options);
    random_tokens(tokens, 1000, vocab);
    talk(a, conversation, 2, 0, 0);
    talk(b, conversation, 2, 0, 0);
    Standing before = state_of(a);
    interrupting = 1;
    check(!llm_eval(a, tokens, 1000) && strstr(llm_error(), "interrupted"), "%s", llm_error());
    check(llm_turn(a, "user", "tea") == -1 && llm_drop(a, 0, 1) == -1 &&
              strstr(llm_error(), "interrupted"),
          "%s", llm_error());
    before.has_logits = 0;
    check(same_state(before, state_of(a)), "an interrupted session changed: %s", text_of(a));
    interrupting = 0;
    check(llm_eval(a, tokens, 1000) && llm_eval(b, tokens, 1000) &&
              float_difference(a->logits, b->logits, vocab) < 1e-5,
          "an evaluation that is repeated: %s", llm_error());
    llm_rewind(a, before.position);
    check(!llm_turn(a, "assistant", NULL), "%s", llm_error());
    int position = llm_position(a);
    check(llm_generate(a, NULL, 0, NULL, interrupt, &calls) == -1 && calls == 0 &&
              strstr(llm_error(), "interrupted"),
          "%d more calls: %s", calls, llm_error());
    check(llm_position(a) >= position + 2 && llm_position(a) < position + 20,
          "%d tokens before the interruption", llm_position(a) - position);
    interrupting = 0;
    check(llm_generate(a, NULL, 5, NULL, NULL, NULL) >= 0 && !llm_turn(a, "user", "so"), "%s",
          llm_error());
    llm_session_free(a), llm_session_free(b);
}

/* What is heard of an answer is in the session, also where it was interrupted and goes on. */
static void test_interrupted_answer(void)
{
    Bytes file;
    llm_model *m = spelling_model("\nteaso\2", 300, &file);
    llm_session *s = llm_session_new(
        m, &(llm_options){ .chat_template = "chatml", .interrupt = &interrupting });
    Mind mind = { .session = s };
    int calls = 2;
    talk(s, &(Said){ "user", "hum" }, 1, 0, 0);
    check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
    check(llm_generate(s, NULL, 0, &(llm_sampling){ 0 }, interrupt, &calls) == -1, "it goes on");
    interrupting = 0;
    check(llm_generate(s, NULL, 0, &(llm_sampling){ 0 }, listen, &mind) > 0, "%s", llm_error());
    check(!strcmp(mind.answer, "aso"), "\"te\" was heard, then \"%s\"", mind.answer);
    llm_session_free(s);
    llm_close(m);
    free(file.data);
}

/* An answer goes on where turns in front of it were dropped meanwhile, up to a stop text too. */
static void test_drop_in_answer(void)
{
    static const char *const stops[] = { "so", NULL };
    Bytes file;
    llm_model *m = spelling_model("\nteaso\2", 400, &file);
    for (int i = 0; i < 4; i++) {
        int by_hand = i % 2, tokens[] = { token_of('t'), token_of('e') };
        llm_session *s = llm_session_new(
            m, &(llm_options){ .chat_template = "chatml", .stops = i / 2 ? stops : NULL });
        Mind mind = { .session = s };
        talk(s, (Said[]){ { "user", "hum" }, { "assistant", "hm" }, { "user", "so" } }, 3, 0, 0);
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        if (by_hand) check(llm_eval(s, tokens, 2), "%s", llm_error());
        else llm_generate(s, NULL, 2, &(llm_sampling){ 0 }, listen, &mind);
        check(!llm_drop(s, 0, 2) && llm_turns(s) == 2, "%s", llm_error());
        check(llm_generate(s, NULL, 0, &(llm_sampling){ 0 }, listen, &mind) > 0, "%s", llm_error());
        check(!strcmp(mind.answer, &"teaso\0tea"[i / 2 * 6] + 2 * by_hand), "%d: \"%s\"", i,
              mind.answer);
        talk(s, &(Said){ "user", "hum" }, 1, 0, 0);
        const char *kept = llm_turn_text(s, 1);
        check(kept && !strcmp(kept, i / 2 ? "tea" : "teaso"), "%d: \"%s\"", i, kept ? kept : "");
        llm_session_free(s);
    }
    llm_close(m);
    free(file.data);
}

/* Turns that are cut by going back are gone; a fork has all of them; a seed begins draws anew. */
static void test_back_and_fork(const llm_model *m)
{
    enum { N = ARRAY_LEN(conversation) };
    static const char *const names[] = { "chatml", "llama3", "llama2", "gemma", "vicuna" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        llm_session *s = new_chat(m, names[i]), *t;
        talk(s, conversation, N, 0, 0);
        t = llm_fork(s);
        check(same_state(state_of(s), state_of(t)) && s->end_mark == t->end_mark,
              "%s: a fork, whose answers end with %d, expected %d", names[i], t->end_mark,
              s->end_mark);
        check(!llm_turn(t, "user", "so") && llm_turns(s) == N, "%s", llm_error());
        for (int turn = N - 1; turn >= 2; turn--) {
            int start = llm_turn_start(s, turn);
            if (turn == N - 1 && s->turns[turn].begin == start) continue; /* opened by nothing */
            if (llm_position(s) > start) /* else nothing of it is cut */
                check(!llm_rewind(s, start + 1) && llm_turns(s) == turn && !llm_logits(s),
                      "%s: %d turns after a cut in number %d", names[i], llm_turns(s), turn);
            check(!llm_rewind(s, start) && llm_turns(s) == turn, "%s: %d turns in front of it",
                  names[i], llm_turns(s));
        }
        check(!llm_rewind(s, 0) && llm_turns(s) == 0, "%s: %d turns at position 0", names[i],
              llm_turns(s));
        check(llm_rewind(s, 1) == -1 && llm_rewind(s, -1) == -1, "positions that are none");
        llm_session_free(s), llm_session_free(t);
    }
    llm_session *s = begun_chat(m, "f16", 400);
    int first[20], start = llm_position(s), different = 0;
    for (int i = 0; i < 3; i++) {
        llm_seed(s, i == 1 ? 6 : 5);
        check(llm_generate(s, NULL, 20, &(llm_sampling){ .temperature = 1 }, NULL, NULL) >= 0, "%s",
              llm_error());
        int n = llm_position(s) - start;
        if (i == 0) memcpy(first, s->tokens + start, (size_t)n * sizeof *first);
        if (i == 1) different = memcmp(first, s->tokens + start, (size_t)n * sizeof *first);
        if (i == 2) different *= !memcmp(first, s->tokens + start, (size_t)n * sizeof *first);
        llm_rewind(s, start);
    }
    check(different, "seeds and what they draw");
    llm_session_free(s);
}

/* Tokens become the past: what is in common stays as it is, turns that are cut are gone, and the
 * logits are those of a session that knows nothing else. */
static void test_sync(const llm_model *m)
{
    enum { N = 200 };
    int tokens[N], vocab = m->facts.vocab_size, n, start;
    llm_session *s = new_chat(m, NULL), *fresh = new_chat(m, NULL);
    random_tokens(tokens, N, vocab);
    talk(s, conversation, 5, 0, 0);
    n = llm_position(s), start = llm_turn_start(s, 3);
    memcpy(tokens, s->tokens, (size_t)(start + 2) * sizeof *tokens);
    Standing before = state_of(s);
    check(!llm_sync(s, s->tokens, n) && same_state(before, state_of(s)), "the same: %s",
          llm_error());
    uint8_t *copy = cached(s, start + 2);
    size_t bytes;
    uint8_t *keys = kept(s, 0, &bytes);
    memset(copy, 0x11, bytes), memset(keys, 0x11, bytes);
    check(!llm_sync(s, tokens, N) && llm_position(s) == N && llm_turns(s) == 3 &&
              !memcmp(s->tokens, tokens, sizeof tokens),
          "%d turns, %d tokens: %s", llm_turns(s), llm_position(s), llm_error());
    check(!memcmp(copy, keys, (size_t)(start + 2) * bytes), "evaluated anew");
    check(!llm_sync(s, tokens + 1, N - 1) && llm_turns(s) == 0 &&
              llm_eval(fresh, tokens + 1, N - 1) &&
              float_difference(s->logits, fresh->logits, vocab) < batch_bound(),
          "other tokens from the first on: %s", llm_error());
    check(!llm_sync(s, tokens + 1, 50) && llm_position(s) == 50 && !llm_logits(s), "fewer: %s",
          llm_error());
    check(!llm_sync(s, tokens, N) && !llm_turn(s, "user", "tea") && llm_turns(s) == 1 &&
              llm_position(s) == 12,
          "a turn follows: %s", llm_error());
    free(copy);
    llm_session_free(s), llm_session_free(fresh);
}

/* Tokens that are none, and more of them than the context holds, change nothing; a context that is
 * full can be filled with others. */
static void test_bad_sync(const llm_model *m)
{
    enum { CONTEXT = 64 };
    int tokens[CONTEXT + 1], bad[] = { 5, -1, 5, m->facts.vocab_size };
    llm_session *s = llm_session_new(m, &(llm_options){ .threads = 1, .context = CONTEXT });
    random_tokens(tokens, CONTEXT + 1, m->facts.vocab_size);
    talk(s, conversation, 2, 0, 0);
    Standing before = state_of(s);
    check(llm_sync(s, bad, 2) == -1 && strstr(llm_error(), "token -1") &&
              llm_sync(s, bad + 2, 2) == -1 && same_state(before, state_of(s)),
          "tokens that are none: %s", llm_error());
    check(llm_sync(s, tokens, CONTEXT + 1) == LLM_FULL && strstr(llm_error(), "do not fit") &&
              same_state(before, state_of(s)),
          "too many: %s", llm_error());
    check(!llm_sync(s, tokens, CONTEXT) && llm_position(s) == CONTEXT, "a full context: %s",
          llm_error());
    check(!llm_sync(s, tokens + 1, CONTEXT) && llm_position(s) == CONTEXT, "filled anew: %s",
          llm_error());
    check(!llm_sync(s, tokens + 1, CONTEXT), "the same again: %s", llm_error());
    llm_session_free(s);
}

/* What a template raises is the sentence, and nothing has changed; an open answer goes on. */
static void test_raises(const llm_model *m)
{
    static const Said bad[] = { { "user", "so" }, { "king", "so" }, { "developer", "be kind" } };
    llm_session *s = new_chat(m, "strict"), *other = new_chat(m, "strict");
    check(llm_turn(s, "assistant", "tea") == -1 &&
              !strcmp(llm_error(), "Conversation roles must alternate") && llm_turns(s) == 0 &&
              llm_position(s) == 0,
          "%s", llm_error());
    talk(s, &(Said){ "user", "tea" }, 1, 0, 0);
    Standing before = state_of(s);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char want[64];
        snprintf(want, sizeof want, i ? "Unknown role: %s" : "Conversation roles must alternate",
                 bad[i].role);
        check(llm_turn(s, bad[i].role, bad[i].text) == -1 && !strcmp(llm_error(), want) &&
                  same_state(before, state_of(s)),
              "%s: %s", bad[i].role, llm_error());
    }
    check(llm_drop(s, 0, 1) == 0 && llm_turns(s) == 0 && llm_position(s) == 0, "%s", llm_error());
    for (int i = 0; i < 2; i++) {
        llm_session *t = i ? other : s;
        talk(t, &(Said){ "user", "tea" }, 1, 0, 0);
        check(!llm_turn(t, "assistant", NULL), "%s", llm_error());
        pretend(t, "so <think"); /* it may become a mark */
        before = state_of(t);
        if (i == 0) check(llm_turn(t, "king", "tea") == -1, "%s", llm_error());
        check(same_state(before, state_of(t)), "an answer that is open: \"%s\"", text_of(t));
        pretend(t, " tea");
        talk(t, &(Said){ "user", "hum" }, 1, 0, 0);
    }
    check(same_past(s, other) && !strcmp(llm_turn_text(s, 1), "so <think tea"), "\"%s\"",
          text_of(s));
    check(llm_drop(s, 0, 1) == -1 && strstr(llm_error(), "must alternate") && same_past(s, other),
          "a drop that the template refuses: %s", llm_error());
    llm_session_free(s), llm_session_free(other);
}

/* A system prompt waits for the question that a template wants; where it wants none at all, that is
 * told at once. */
static void test_system_alone(const llm_model *m)
{
    static const char *const names[] = { "strict", "late", "llama2", "gemma" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        llm_session *s = new_chat(m, names[i]), *fresh = new_chat(m, names[i]);
        check(!llm_turn(s, "system", "be kind") && llm_turns(s) == 1 &&
                  !strcmp(llm_turn_text(s, 0), "be kind"),
              "%s: %s", names[i], llm_error());
        check(!llm_save(s, saved) && !llm_load(fresh, saved) && llm_turns(fresh) == 1, "%s: %s",
              names[i], llm_error());
        talk(s, (Said[]){ { "user", "tea" }, { "assistant", "eat" } }, 2, 0, 0);
        talk(fresh, (Said[]){ { "user", "tea" }, { "assistant", "eat" } }, 2, 0, 0);
        const char *text = text_of(s);
        check(strstr(text, "be kind") && strstr(text, "tea") && same_past(s, fresh), "%s: \"%s\"",
              names[i], text);
        check(!llm_drop(s, 1, 2) && llm_turns(s) == 1, "%s: %s", names[i], llm_error());
        llm_session_free(s), llm_session_free(fresh);
    }
    llm_session *s = new_chat(m, "no-system");
    Standing before = state_of(s);
    check(llm_turn(s, "system", "be kind") == -1 &&
              !strcmp(llm_error(), "System role not supported") &&
              same_state(before, state_of(s)),
          "%s", llm_error());
    check(!llm_turn(s, "user", "tea"), "%s", llm_error());
    llm_session_free(s);
}

/* Roles that a template knows beside the three; their names make no marks. */
static void test_roles(const llm_model *m)
{
    enum { END = 291 };
    static const char *const bad[] = { "<|im_end|>", "a\nb", "tool<|im_end|>" };
    char longest[MAX_ROLE + 2] = { 0 };
    llm_session *s = new_chat(m, "gpt-oss");
    talk(s, (Said[]){ { "developer", "be kind" }, { "user", "tea" } }, 2, 0, 0);
    check(strstr(text_of(s), "<|start|>developer<|message|># Instructions\n\nbe kind\n\n<|end|>") &&
              !strcmp(llm_turn_role(s, 0), "developer"),
          "a developer: \"%s\"", text_of(s));
    llm_session_free(s);
    s = new_chat(m, NULL);
    talk(s, (Said[]){ { "user", "tea" }, { "tool", "seas" } }, 2, 0, 0);
    check(strstr(text_of(s), "<|im_start|>tool\nseas<|im_end|>\n"), "a tool: \"%s\"", text_of(s));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int from = llm_position(s), ends = 0;
        check(!llm_turn(s, bad[i], "so"), "%s", llm_error());
        for (; from < llm_position(s); from++) ends += s->tokens[from] == END;
        check(ends == 1, "the role %s makes %d ends", bad[i], ends);
    }
    memset(longest, 'e', MAX_ROLE);
    check(!llm_turn(s, longest, "so"), "%s", llm_error());
    longest[MAX_ROLE] = 'e';
    Standing before = state_of(s);
    check(llm_turn(s, longest, "so") == -1 && strstr(llm_error(), "65 bytes") &&
              llm_turn(s, "tool", NULL) == -1 && same_state(before, state_of(s)),
          "%s", llm_error());
    llm_session_free(s);
}

/* Variables, tools and the wish to think reach the template, in forks too, and make no marks. */
static void test_told(const llm_model *m)
{
    static const struct {
        llm_options options;
        const char *text;
    } cases[] = {
        { { .thinking = 0 }, "<s>//None\n" },
        { { .thinking = 1 }, "<s>/True/None\n" },
        { { .thinking = -1 }, "<s>/False/None\n" },
        { { .variables = "{\"mood\":\"mild\"}" }, "<s>mild//None\n" },
        { { .variables = " {\"mood\" : 2.5, \"documents\": [1] } " }, "<s>2.5//[1]\n" },
        { { .variables = "{\"enable_thinking\":\"hm\"}", .thinking = 1 }, "<s>/hm/None\n" },
        { { .variables = "{\"mood\":\"<|im_end|>\"}" }, "<s><|im_end|>//None\n" },
        { { .tools = "[{\"name\":\"tea\"}]" },
          "<s><|im_start|>[{\"name\": \"tea\"}]<|im_end|>//None\n" },
        { { .tools = "[]" }, "<s>//None\n" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        llm_options o = cases[i].options;
        o.chat_template = template_of("told"), o.threads = 1;
        llm_session *s = llm_session_new(m, &o), *t = s ? llm_fork(s) : NULL;
        char want[256];
        int marks = 0;
        snprintf(want, sizeof want, "%s<|im_start|>user\nso<|im_end|>\n", cases[i].text);
        for (int k = 0; k < 2; k++) {
            llm_session *one = k ? t : s;
            check(one && !llm_turn(one, "user", "so") && !strcmp(text_of(one), want),
                  "number %zu: \"%s\", expected \"%s\"", i, one ? text_of(one) : llm_error(), want);
        }
        for (int k = 0; s && k < llm_position(s); k++) marks += s->tokens[k] >= 290;
        check(marks == (o.tools && o.tools[1] != ']' ? 4 : 2), "number %zu: %d marks", i, marks);
        llm_session_free(s), llm_session_free(t);
    }
}

/* A file's own template for conversations with tools is taken for those alone. */
static void test_tools_template(void)
{
    static const struct {
        llm_options options;
        const char *text;
    } cases[] = {
        { { .tools = "[{\"name\":\"tea\"}]" }, "teaso" },
        { { .tools = NULL }, "<s><|im_start|>user\nso<|im_end|>\n" },
        { { .tools = "[{\"name\":\"tea\"}]", .chat_template = "{{ messages[0].role }}" }, "user" },
    };
    Bytes file;
    Shape shape = small_shape;
    shape.chat = 2;
    llm_model *m = open_tiny(&shape, &file);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        llm_session *s = llm_session_new(m, &cases[i].options), *t = llm_fork(s);
        check(t && !llm_turn(t, "user", "so") && !strcmp(text_of(t), cases[i].text),
              "number %zu: \"%s\"", i, t ? text_of(t) : llm_error());
        llm_session_free(s), llm_session_free(t);
    }
    llm_close(m);
    free(file.data);
}

/* An answer ends where the template writes its end behind one: a mark, or that of the next turn. */
static void test_answer_ends(void)
{
    static const char *const marks[] = { "<|a|>", "<|b|>", "<|c|>", "<think>" };
    static const struct {
        const char *text;
        int end; /* which of the marks ends answers, -1: none of them */
    } cases[] = {
        { "{% for m in messages %}{{ '<|a|>' + m.content + '<|b|>' }}{% endfor %}", 1 },
        { "{% for m in messages %}{{ '<|c|>' + m.content + '\n<|b|>\n' }}{% endfor %}", 1 },
        { "{% for m in messages %}{{ '<|a|>' if m.role == 'user' else '<|c|>' }}"
          "{{ '\n' + m.content }}{% endfor %}", 0 },
        { "{% for m in messages %}{{ m.content + eos_token + '<|b|>' }}{% endfor %}", -1 },
    };
    for (size_t i = 0; i < 4 * ARRAY_LEN(cases); i++) {
        int mark = (int)(i % 4), end = cases[i / 4].end;
        int chain[] = { 3 + 'x', 259 + mark, 3 + 'y', 2 };
        Bytes file;
        llm_model *m = marked_model(marks, 4, TOKEN_CONTROL, chain, 4, &file);
        llm_session *s = new_chat(m, cases[i / 4].text);
        Mind heard = { .session = s };
        check(!*llm_warning(s), "number %zu: %s", i, llm_warning(s));
        talk(s, &(Said){ "user", "tea" }, 1, 0, 0);
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        pretend(s, "x");
        llm_generate(s, NULL, 9, &(llm_sampling){ 0 }, listen, &heard);
        check(!strcmp(heard.answer, mark == end ? "" : "y"), "%s, %s: \"%s\"", cases[i / 4].text,
              marks[mark], heard.answer);
        talk(s, &(Said){ "user", "so" }, 1, 0, 0);
        check(!strcmp(llm_turn_text(s, 1), mark == end ? "x" : "xy"), "\"%s\"",
              llm_turn_text(s, 1));
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* Where the vocabulary has no token for the mark, a warning says so, and its text ends answers. */
static void test_missing_mark(void)
{
    static const char *const marks[] = { "<|a|>" };
    static const char *const texts[] = {
        "{% for m in messages %}{{ m.role + ':' + m.content + '<fin>\n' }}{% endfor %}",
        "{% for m in messages %}{{ '<|a|>' + m.content + '<fin>\n' }}{% endfor %}",
    };
    for (int i = 0; i < 2; i++) {
        int chain[] = { 3 + 'x', 3 + '<', 3 + 'f', 3 + 'i', 3 + 'n', 3 + '>', 3 + 'y', 2 };
        Bytes file;
        llm_model *m = marked_model(marks, 1, TOKEN_CONTROL, chain, ARRAY_LEN(chain), &file);
        llm_session *s = new_chat(m, texts[i]);
        Mind heard = { .session = s };
        check(strstr(llm_warning(s), "no token <fin>"), "a warning: \"%s\"", llm_warning(s));
        talk(s, &(Said){ "user", "tea" }, 1, 0, 0);
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        pretend(s, "x");
        llm_generate(s, NULL, 9, &(llm_sampling){ 0 }, listen, &heard);
        check(!strcmp(heard.answer, ""), "%s: \"%s\"", texts[i], heard.answer);
        llm_session_free(s);
        llm_close(m);
        free(file.data);
    }
}

/* Answers stay as the model wrote them, in other tokens than the tokenizer makes of their text;
 * what can't stay is written as their text: white space in front, half a character at the end. */
static void test_own_tokens(const llm_model *m)
{
    static const struct {
        int tokens[4]; /* 0 behind the last */
        const char *text;
        int stay;
    } cases[] = {
        { { 3 + 't', 3 + 'e', 262 }, "tea", 1 },
        { { 261, 3 + 'e', 3 + ' ', 262 }, "te a", 1 },
        { { 3 + 0xc3, 3 + 0xa9 }, "\xc3\xa9", 1 },
        { { 261, 3 + ' ' }, "t ", 1 },
        { { 3 + '\n', 3 + 't', 262 }, "ta", 0 },
        { { 3 + 't', 3 + 0xc3 }, "t\xef\xbf\xbd", 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        llm_session *s = new_chat(m, NULL), *other = new_chat(m, NULL);
        int n = 0, begin;
        while (n < 4 && cases[i].tokens[n]) n++;
        talk(s, &(Said){ "user", "tea" }, 1, 0, 0);
        talk(other, (Said[]){ { "user", "tea" }, { "assistant", cases[i].text } }, 2, 0, 0);
        check(!llm_turn(s, "assistant", NULL), "%s", llm_error());
        begin = llm_position(s);
        check(llm_eval(s, cases[i].tokens, n), "%s", llm_error());
        for (int k = 0; k < 2; k++) { /* a turn later, and two */
            talk(s, &(Said){ "user", "so" }, 1, 0, 0);
            talk(other, &(Said){ "user", "so" }, 1, 0, 0);
            check(!strcmp(llm_turn_text(s, 1), cases[i].text), "\"%s\"", llm_turn_text(s, 1));
            int same = !memcmp(s->tokens + begin, cases[i].tokens, (size_t)n * sizeof(int));
            check(same == cases[i].stay, "\"%s\": other tokens", cases[i].text);
            check(cases[i].stay || same_past(s, other), "\"%s\"", text_of(s));
        }
        llm_session_free(s), llm_session_free(other);
    }
}

/* Sixty questions in a context that holds a few: what stands there is what a session has that was
 * only told the turns that are left. */
static void test_shifts(const llm_model *m)
{
    static const char *const names[] = { "chatml", "late", "kept", "qwen3", "llama2", "strict" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        llm_options o = { .threads = 1, .cache = "f32", .context = 260, .shift = 1,
                          .chat_template = template_of(names[i]) };
        llm_session *s = llm_session_new(m, &o), *fresh = llm_session_new(m, &o);
        int wrong = 0, dropped = 0;
        talk(s, &(Said){ "system", "be kind" }, 1, 0, 0);
        for (int round = 0; round < 60; round++) {
            int before = llm_turns(s);
            wrong += llm_turn(s, "user", "this tea") || llm_turn(s, "assistant", NULL);
            pretend(s, round % 3 ? "so" : "<think>\nhm\n</think>\n\nso");
            dropped += llm_turns(s) < before + 2;
            wrong += llm_position(s) > 260 || strcmp(llm_turn_role(s, 0), "system");
        }
        check(!wrong && dropped > 3, "%s: %d failures, %d times dropped: %s", names[i], wrong,
              dropped, llm_error());
        check(!llm_turn(s, "user", "bye"), "%s", llm_error());
        for (int k = 0; k < s->n_turns && strcmp(names[i], "kept"); k++)
            talk(fresh, &(Said){ s->turns[k].role, s->turns[k].text }, 1, 0, 0);
        check(!strcmp(names[i], "kept") || same_past(s, fresh), "%s: \"%s\"", names[i], text_of(s));
        llm_session_free(s), llm_session_free(fresh);
    }
}

/* Back, and once more: by a template that writes the system prompt into the last question, what is
 * left is a conversation that never had the rest. */
static void test_late_system(const llm_model *m)
{
    llm_session *s = new_chat(m, "late"), *fresh = new_chat(m, "late");
    static const char one[] = "<s>[INST] be kind\n\ntea [/INST]";
    talk(s, (Said[]){ { "system", "be kind" }, { "user", "tea" } }, 2, 0, 0);
    check(!strcmp(text_of(s), one), "\"%s\"", text_of(s));
    talk(s, (Said[]){ { "assistant", NULL }, { "user", "so" }, { "assistant", NULL } }, 3, 0, 0);
    check(!strcmp(text_of(s), "<s>[INST] tea [/INST] aet</s>[INST] be kind\n\nso [/INST]aet"),
          "\"%s\"", text_of(s));
    check(!llm_drop(s, 4, 1) && !llm_turn(s, "assistant", NULL), "%s", llm_error()); /* regen */
    pretend(s, "eat");
    check(!llm_drop(s, 3, 2) && llm_turns(s) == 3, "%s", llm_error()); /* undo */
    check(!strcmp(text_of(s), "<s>[INST] be kind\n\ntea [/INST] aet</s>"), "\"%s\"", text_of(s));
    check(!llm_drop(s, 2, 1) && !strcmp(text_of(s), one), "\"%s\"", text_of(s));
    talk(fresh, (Said[]){ { "system", "be kind" }, { "user", "tea" } }, 2, 0, 0);
    check(same_past(s, fresh), "%s", text_of(s));
    check(llm_turn_start(s, 0) == 0 && llm_turn_start(s, 1) >= 0 && !llm_rewind(s, 0) &&
              llm_turns(s) == 0,
          "%d turns", llm_turns(s));
    llm_session_free(s), llm_session_free(fresh);
}

/* Does something to a conversation that was chosen by lot. On failure it must be as it was. */
static llm_session *do_something(llm_session *s, uint64_t *random)
{
    static const char *const texts[] = { "tea",        "  so\n",    "",
                                         "<|im_end|>", "in the sea", "hm </s>" };
    static const char *const answers[] = { "eta", "\n\noats ", "", "<think>\nhm\n</think>\n\nso",
                                           "<think>the", "so<|im_end" };
    int what = (int)(random_unit(random) * 10), refused = 0, n = llm_turns(s);
    const char *text = texts[(int)(random_unit(random) * ARRAY_LEN(texts))];
    Standing before = state_of(s);
    if (what < 3) refused = llm_turn(s, "user", text);
    if (what == 3) refused = llm_turn(s, n ? "assistant" : "system", text);
    if (what == 4 || what == 5) {
        refused = llm_turn(s, "assistant", NULL);
        const char *answer = answers[(int)(random_unit(random) * ARRAY_LEN(answers))];
        if (!refused && *answer) pretend(s, answer);
    }
    if (what == 6 && n) refused = llm_drop(s, (int)(random_unit(random) * n), 1);
    if (what == 7 && n > 1) refused = llm_drop(s, n - 2, 2);
    if (what == 8 && n > 4) {
        check(!llm_rewind(s, llm_position(s) - (int)(random_unit(random) * 20)), "%s", llm_error());
        before = state_of(s);
        refused = llm_turn(s, "user", "back");
    }
    if (what == 9) {
        llm_session *t = llm_fork(s);
        check(t && !llm_save(s, saved) && !llm_load(s, saved) &&
                  same_state(state_of(s), state_of(t)) && same_past(s, t),
              "%s", llm_error());
        llm_session_free(s);
        return t;
    }
    Standing after = state_of(s);
    before.has_logits = after.has_logits;
    check(!refused || (*llm_error() && same_state(before, after)), "%d: %s", what, llm_error());
    return s;
}

/* Whatever was done, a session is what one is that was only told the turns that are left. */
static void test_anything(const llm_model *m)
{
    static const char *const names[] = { "chatml", "llama2", "late", "qwen3", "glm4", "strict" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        uint64_t random = spread_seed(i);
        llm_session *s = new_chat(m, names[i]);
        for (int step = 0; step < 150; step++) {
            s = do_something(s, &random);
            if (llm_position(s) > 900) llm_rewind(s, 0);
            llm_session *fresh = new_chat(m, names[i]);
            int n = llm_turns(s), status = 0;
            for (int k = 0; k < n && !status; k++)
                status = llm_turn(fresh, s->turns[k].role, s->turns[k].text);
            int more = llm_position(s) - llm_position(fresh);
            if (more > 0) llm_eval(fresh, s->tokens + llm_position(fresh), more);
            check(status || same_past(s, fresh), "%s, step %d: \"%s\"", names[i], step, text_of(s));
            llm_session_free(fresh);
        }
        llm_session_free(s);
    }
}

static void test_library_chat(void)
{
    Bytes file;
    llm_model *m = open_chat(1, &file);
    test_templates(m);
    test_bad_templates(m);
    test_turn_cost(m);
    test_drop(m);
    test_thoughts_go(m);
    test_thoughts_cost(m);
    test_many_stops();
    test_failed_turn_in_answer();
    test_stop_in_mark();
    test_thoughts_heard();
    test_stops();
    test_slices();
    test_thought_token();
    test_stop_lengths(m);
    test_save(m);
    test_white_space();
    test_other_sessions(m);
    test_damaged_sessions(m);
    test_forged_sessions(m);
    test_appended(m);
    test_saved_files(m);
    test_savers(m);
    test_interrupt(m);
    test_interrupted_answer();
    test_drop_in_answer();
    test_back_and_fork(m);
    test_sync(m);
    test_bad_sync(m);
    test_raises(m);
    test_system_alone(m);
    test_roles(m);
    test_told(m);
    test_zero_in_answer(m);
    test_saved_again(m);
    test_tools_template();
    test_answer_ends();
    test_missing_mark();
    test_own_tokens(m);
    test_shifts(m);
    test_late_system(m);
    test_anything(m);
    llm_close(m);
    free(file.data);
}

/* ---- The program in a pipe ---- */

static void write_text(const char *path, const char *text)
{
    Bytes file = { 0 };
    put(&file, text, strlen(text) + 1);
    file.size--;
    write_file(path, file);
}

/* Models whose answers are known: to anything "eta", or "etaeta..." without an end. */
static void write_models(void)
{
    Shape shape = small_shape;
    Bytes file;
    shape.chat = 1;
    write_file(TMP "/chat.gguf", tiny_model(&shape));
    llm_close(spelling_model("\neta\2", 4000, &file));
    write_file(TMP "/eta.gguf", file);
    llm_close(spelling_model("\neta\3", 20000, &file));
    write_file(TMP "/endless.gguf", file);
    llm_close(spelling_model("\n\1<thi\1nk>\nhm\1</th\1ink>yes\2", 4000, &file));
    write_file(TMP "/thoughts.gguf", file);
    write_text(TMP "/bad.jinja", "{% if 1 %}\n{{ a");
    write_text(TMP "/mood.jinja", "{% if mood %}{{ raise_exception('a mood: ' + mood) }}{% endif %}"
                                  "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}");
    write_text(TMP "/qwen3.jinja", template_of("qwen3"));
    write_text(TMP "/qwen3.5.jinja", template_of("qwen3.5"));
}

#define ETA "$RUN $T/eta.gguf --template zephyr -m chat -t 0"

/* Lines are messages, and only answers are printed. */
static void test_piped_chat(void)
{
    static const struct {
        const char *call, *out;
    } cases[] = {
        { "printf 'tea\nsea\n' | " ETA, "eta\neta\n" },
        { "printf 'tea\nsea\n' | " ETA " -i tea", "eta\n" },
        { "printf 'tea\nse' | " ETA, "eta\neta\n" },
        { "printf '\n\ntea\n\r\n' | " ETA, "eta\n" },
        { "printf '/quit\n//help\n\"\"\"\nsea\\' | " ETA, "eta\neta\neta\neta\n" },
        { "printf 'sea\n\\377\\376\n' | " ETA " -y '\\'", "eta\neta\n" },
        { "printf '\\357\\273\\277\ntea' | " ETA, "eta\n" },
        { "printf 'tea\n' | " ETA " -n 2", "et\n" },
        { "printf 'tea\n' | " ETA " -r ta", "e\n" },
        { "printf 'tea\n' | " ETA " -r x -r a", "et\n" },
        { "printf 'tea' >$T/text; " ETA " -f $T/text </dev/null", "eta\n" },
        { "printf 'tea\n' | " ETA " -i -", "eta\n" },
        { "printf 'tea\nsea\n' | $RUN $T/eta.gguf --template $T/mood.jinja -m chat -t 0",
          "eta\neta\n" },
        { ETA " --vars '{\"mood\":\"mild\"}' -i tea", "eta\n" },
        { ETA " </dev/null", "" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int code = cli("%s", cases[i].call);
        check(code == 0 && !strcmp(cli_out, cases[i].out) && !*cli_err,
              "%s: exit %d, \"%s\" \"%s\", expected \"%s\"", cases[i].call, code, cli_out, cli_err,
              cases[i].out);
    }
    check(cli("head -c 1000000 /dev/zero | tr '\\0' e | " ETA) == 1 && !*cli_out &&
              lines(cli_err) == 1 && strstr(cli_err, "10000") && strstr(cli_err, " 4000 positions"),
          "a line of 1 MB: \"%s\" \"%s\"", cli_out, cli_err);
    check_refused(2, "-r with an empty text", "$T/eta.gguf -r ''");
    check_refused(2, "more than 16 times",
                  "$T/eta.gguf -r 1 -r 2 -r 3 -r 4 -r 5 -r 6 -r 7 -r 8 -r 9 -r 10 -r 11 -r 12 "
                  "-r 13 -r 14 -r 15 -r 16 -r 17");
    check_refused(2, "--template morse: no file, and no built-in template",
                  "$T/eta.gguf --template morse");
    check_refused(1, "--template NAME", "$T/eta.gguf -m chat -i tea");
    check_refused(1, "run: the chat template, line 2: ",
                  "$T/eta.gguf -m chat --template $T/bad.jinja -i tea");
    check_refused(1, "run: a mood: mild\n",
                  "$T/eta.gguf -m chat --template $T/mood.jinja -i tea "
                  "--vars '{\"mood\":\"mild\"}'");
    check_refused(1, "variables",
                  "$T/eta.gguf -m chat --template $T/mood.jinja --vars '[1]' -i tea");
    check(cli("$RUN --template list") == 0 && lines(cli_out) == ARRAY_LEN(templates) &&
              !strncmp(cli_out, "chatml\n", 7),
          "--template list: %s", cli_out);
}

/* A conversation that is longer than the context loses its oldest turns, or ends. */
static void test_long_chat(void)
{
    char text[30 * 16 + 1] = "";
    const char *told;
    int forgotten = 0, code;
    for (int i = 0; i < 30; i++) strcat(text, "the tea is here\n");
    write_text(TMP "/lines", text);
    code = cli(ETA " -y 'be kind' -c 512 <$T/lines");
    told = cli_err;
    while ((told = strstr(told, "are forgotten)\n"))) told++, forgotten++;
    check(code == 0 && lines(cli_out) == 30 && forgotten > 2 && forgotten == lines(cli_err),
          "30 turns: exit %d, \"%s\" \"%s\"", code, cli_out, cli_err);
    for (const char *line = cli_out; *line; line += strcspn(line, "\n") + 1)
        check(!strncmp(line, "eta\n", 4), "an answer in a full context: %.20s", line);
    for (int context = 300; context < 330; context += 6) { /* full at each step of a turn */
        code = cli(ETA " -c %d <$T/lines", context);
        check(code == 0 && lines(cli_out) == 30, "a context of %d: exit %d, %d answers, \"%s\"",
              context, code, lines(cli_out), cli_err);
    }
    code = cli(ETA " --no-shift -c 512 <$T/lines");
    check(code == 1 && lines(cli_out) > 3 && lines(cli_out) < 30 && lines(cli_err) == 1 &&
              strstr(cli_err, " 512 positions"),
          "--no-shift: exit %d, %d answers, \"%s\"", code, lines(cli_out), cli_err);
    code = cli("$RUN $T/endless.gguf --template zephyr -m chat -t 0 -c 200 -i tea");
    check(code == 1 && lines(cli_out) == 1 && strlen(cli_out) > 50 && lines(cli_err) == 1 &&
              strstr(cli_err, "is full"),
          "an answer without an end: exit %d, %zu bytes, \"%s\"", code, strlen(cli_out), cli_err);
}

#define KEPT "$RUN $T/chat.gguf -m chat -n 9 -s 3 --session $T/kept"

/* A conversation in a file goes on as if it had not been interrupted; a bad file stays as it is. */
static void test_kept_chat(void)
{
    unlink(TMP "/kept");
    check(cli("printf 'tea\nsea\n' | $RUN $T/chat.gguf -m chat -n 9 -s 3 >$T/both; "
              "printf 'tea\n' | " KEPT " >$T/one; printf 'sea\n' | " KEPT " -s 8 >>$T/one; "
              "cmp $T/both $T/one") == 0 &&
              !*cli_err,
          "a conversation in two parts: %s %s", cli_out, cli_err);
    check(
        cli("truncate -s -1 $T/kept; cp $T/kept $T/copy; printf 'tea\n' | " KEPT) ==
                1 &&
            !*cli_out && lines(cli_err) == 1 && strstr(cli_err, "is damaged") &&
            cli("cmp $T/copy $T/kept") == 0,
        "a damaged session: \"%s\" \"%s\"", cli_out, cli_err);
    check(cli("printf 'tea\n' | $RUN $T/chat.gguf -m chat -n 9 --session $T/nowhere/kept") == 1 &&
              lines(cli_err) == 1 && strstr(cli_err, "nowhere/kept: No such file"),
          "a folder that is none: %s", cli_err);
    check(!unfinished(), "a half written file stays");
}

static int is_utf8(const char *text)
{
    for (int n; *text; text += n) {
        if ((n = tokenizer_char(text, strlen(text))) <= 0) return 0;
    }
    return 1;
}

#define THOUGHTFUL "$RUN $T/thoughts.gguf -m chat --template $T/qwen3.jinja -t 0 -i tea?"

/* Several answers, best first; the likeliest next tokens. */
static void test_samples(void)
{
    double last = 0, p;
    int number, n, answers = 0;
    check(cli("$RUN $T/chat.gguf -i tea -n 30 -s 2 --samples 3") == 0 && !*cli_err, "--samples: %s",
          cli_err);
    for (const char *at = cli_out; (at = strstr(at, "== ")); at++) {
        if (sscanf(at, "== %d: mean log-probability %lf, %d tokens\n", &number, &p, &n) != 3) break;
        check(number == ++answers && p < last && n >= 1 && n <= 30, "answer %d: %.40s", answers,
              at);
        last = p;
    }
    check(answers == 3, "%d answers: \"%s\"", answers, cli_out);
    char first[4096];
    const char *text = strchr(cli_out, '\n'), *end = text ? strstr(text, "\n== 2") : NULL;
    snprintf(first, sizeof first, "%.*s", end ? (int)(end - text - 1) : 0, text ? text + 1 : "");
    check(cli("$RUN $T/chat.gguf -i tea -n 30 -s 2 --samples 3 --best") == 0 &&
              !strcmp(cli_out, first),
          "--best: \"%s\", expected \"%s\"", cli_out, first);
    check(cli("$RUN $T/chat.gguf -i tea -n 200 -s 2 --samples 3") == 0 && is_utf8(cli_out),
          "bytes that are no characters become U+FFFD in answers side by side");
    cli(ETA " -i tea --samples 2");
    check(strstr(cli_out, ", 4 tokens\neta\n\n== 2: ") && lines(cli_out) == 5,
          "in a chat: \"%s\" \"%s\"", cli_out, cli_err);
    number = cli(ETA " -i tea --samples 2 -r t --best");
    check(number == 0 && !strcmp(cli_out, "e\n"), "--samples with -r: exit %d, \"%s\"", number,
          cli_out);
    cli(THOUGHTFUL " --samples 2 --best --think show");
    check(!strcmp(cli_out, "hm\n\nyes\n"), "thoughts shown: \"%s\"", cli_out);
    cli(THOUGHTFUL " --samples 2 --best");
    check(!strcmp(cli_out, "yes\n"), "thoughts hidden: \"%s\"", cli_out);
    check(cli("$RUN $T/eta.gguf -i e -l 2") == 0 && !strncmp(cli_out, "261\t0.", 6) &&
              lines(cli_out) == 2 && !strncmp(cli_out + strcspn(cli_out, "\n") - 2, "\tt\n0\t", 5),
          "-l: \"%s\"", cli_out);
}

/* Takes the colours out of a text. */
static char *uncoloured(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        if (from[0] == 27 && from[1] == '[') {
            from += 2 + strspn(from + 2, "0123456789;");
            from += *from == 'm';
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    return text;
}

/* Whether each element of a page ends in order; <meta> and <!DOCTYPE> have no end. */
static int is_balanced(const char *page)
{
    char open[16][16];
    int n = 0;
    while ((page = strchr(page, '<'))) {
        size_t len = strcspn(++page, " >");
        int closes = *page == '/';
        if (len >= 16 || n == 16) return 0;
        if (*page == '!' || !strncmp(page, "meta", 4)) continue;
        if (closes && (n-- == 0 || strncmp(open[n], page + 1, strlen(open[n])))) return 0;
        if (!closes) snprintf(open[n++], sizeof *open, "%.*s", (int)len, page);
    }
    return n == 0;
}

/* Text in colours is the text; a page is one that a browser can read. */
static void test_heat(void)
{
    static char plain[1 << 16];
    static const char *const calls[] = { "$RUN $T/eta.gguf -i 'so e' -t 0",
                                         "$RUN $T/eta.gguf -i 'so e' -t 0 -n 2 -e",
                                         "$RUN $T/chat.gguf -i 'so e' -n 200 -s 4" };
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        check(cli("%s", calls[i]) == 0, "%s", cli_err);
        snprintf(plain, sizeof plain, "%.65000s", cli_out);
        check(cli("%s --heat", calls[i]) == 0 && strstr(cli_out, "\x1b[38;5;") &&
                  strstr(cli_err, "80 % and more"),
              "--heat: \"%s\" \"%s\"", cli_out, cli_err);
        check(!strcmp(uncoloured(cli_out), plain), "%s --heat: \"%s\", expected \"%s\"", calls[i],
              cli_out, plain);
    }
    write_text(TMP "/text", "<b> & \"tea\" \xc3\xa9 'sea'\n");
    check(cli("$RUN $T/chat.gguf -x $T/text --heat") == 0 && strstr(cli_out, "\nperplexity "),
          "a text in colours: \"%s\" \"%s\"", cli_out, cli_err);
    check(cli("$T/heat $T/chat.gguf $T/text") == 0 && !*cli_err && is_balanced(cli_out) &&
              is_utf8(cli_out) && strstr(cli_out, "80 % and more") && strstr(cli_out, "</html>\n"),
          "a page: \"%s\" \"%s\"", cli_out, cli_err);
    check(strstr(cli_out, ">&#60;</span>") && strstr(cli_out, ">\xc3\xa9</span>"),
          "its tokens: %s", cli_out);
    check(cli("$T/heat $T/chat.gguf nowhere") == 1 && lines(cli_err) == 1, "%s", cli_err);
    check_refused(2, "--heat", "$T/eta.gguf -m chat --template chatml -i e --heat");
}

/* Multiple choice; in this model t follows e. */
static void test_choices(void)
{
    static const char *const bad[] = {
        "x\te\tt\ta", "2\te\tt\ta", "-1\te\tt\ta", "0\te\tt",   "0\te",
        "0",          "\te\tt\ta",  "0\te\tt\t",   "0\te\t\tt", "0\teeeeeeeeeeeeeeeee\tt\ta"
    };
    write_text(TMP "/questions", "0\te\tt\ta\n\n1\te\tt\ta\n0\tso\\te\tta\tat\n1\te\ta\tt");
    check(cli("$T/choices $T/eta.gguf $T/questions") == 0 &&
              !strcmp(cli_out, "accuracy 0.7500 normalised 0.7500 questions 4\n") && !*cli_err,
          "choices: \"%s\" \"%s\"", cli_out, cli_err);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[128];
        snprintf(text, sizeof text, "0\te\tt\ta\n%s\n0\te\tt\ta\n", bad[i]);
        write_text(TMP "/questions", text);
        check(cli("$T/choices $T/eta.gguf $T/questions 16") == 1 && !*cli_out &&
                  lines(cli_err) == 1 && strstr(cli_err, "questions line 2"),
              "\"%s\": \"%s\" \"%s\"", bad[i], cli_out, cli_err);
    }
    check(cli("$T/choices $T/eta.gguf /dev/null") == 1 && strstr(cli_err, "has no questions") &&
              lines(cli_err) == 1,
          "no questions: %s", cli_err);
    check(cli("$T/choices $T/eta.gguf nowhere") == 1 && strstr(cli_err, "nowhere: No such file"),
          "no file: %s", cli_err);
    write_text(TMP "/questions", "\xef\xbb\xbf" "0\te\tt\ta\n");
    check(cli("$T/choices $T/eta.gguf $T/questions") == 0, "a byte order mark: %s", cli_err);
}

/* ---- The program at a terminal ---- */

/* A terminal with the program at its other end. */
static struct {
    int master, slave, lost; /* lost: it did not do what was waited for */
    pid_t pid;
    char *screen; /* (n) bytes that it wrote; those before `seen` were waited for */
    size_t n, room, seen;
    struct termios before;
} terminal;

static void set_columns(int columns)
{
    struct winsize size = { .ws_row = 24, .ws_col = (unsigned short)columns };
    ioctl(terminal.master, TIOCSWINSZ, &size);
}

/* In the child: makes the terminal its own and becomes the program. */
static void run_on_terminal(const char *name, const char *command)
{
    setsid();
    int fd = open(name, O_RDWR);
    ioctl(fd, TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++) dup2(fd, i);
    close(fd);
    close(terminal.master), close(terminal.slave);
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/* Starts a command line, as cli does, on a terminal of that width. */
static int open_terminal(int columns, const char *command)
{
    char full[2048];
    const char *program = getenv("RUN"), *name;
    snprintf(full, sizeof full, "RUN=%s; T=%s; exec %s", program ? program : "./run", TMP, command);
    terminal.master = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal.master < 0 || grantpt(terminal.master) || unlockpt(terminal.master) ||
        !(name = ptsname(terminal.master))) {
        return -1;
    }
    terminal.slave = open(name, O_RDWR | O_NOCTTY);
    terminal.n = terminal.seen = 0, terminal.lost = 0;
    set_columns(columns);
    tcgetattr(terminal.slave, &terminal.before);
    fflush(stdout);
    terminal.pid = fork();
    if (terminal.pid == 0) run_on_terminal(name, full);
    fcntl(terminal.master, F_SETFL, O_NONBLOCK);
    return terminal.slave < 0 || terminal.pid < 0 ? -1 : 0;
}

/* Takes what the program writes, for at most some milliseconds. */
static void look_at_screen(int milliseconds)
{
    struct pollfd p = { .fd = terminal.master, .events = POLLIN };
    if (terminal.room - terminal.n < 1 << 16) {
        terminal.room = terminal.room * 2 + (1 << 17);
        terminal.screen = realloc(terminal.screen, terminal.room);
        if (!terminal.screen) abort();
    }
    if (poll(&p, 1, milliseconds) <= 0) return;
    ssize_t n = read(terminal.master, terminal.screen + terminal.n, 1 << 15);
    if (n > 0) terminal.n += (size_t)n;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { PATIENCE = 100 }; /* seconds; on a machine that is not busy nothing takes one */

/* Waits for a text on the screen, behind the last one that was waited for. */
static void expect(const char *text)
{
    double end = now() + PATIENCE;
    if (terminal.lost) return;
    while (!terminal.lost) {
        char *at = NULL;
        if (terminal.n > terminal.seen) {
            at = memmem(terminal.screen + terminal.seen, terminal.n - terminal.seen, text,
                        strlen(text));
        }
        if (at) terminal.seen = (size_t)(at - terminal.screen) + strlen(text);
        if (at) break;
        terminal.lost = now() > end;
        look_at_screen(20);
    }
    check(!terminal.lost, "\"%s\" does not come; on the screen: \"%.*s\"", text,
          (int)(terminal.n - terminal.seen < 900 ? terminal.n - terminal.seen : 900),
          terminal.screen + terminal.seen);
}

/* Waits until a line can be typed. */
static void expect_prompt(void)
{
    expect("\x1b[?2004h");
}

static void type_bytes(const char *bytes, size_t n)
{
    double end = now() + PATIENCE;
    for (ssize_t wrote; n > 0 && !terminal.lost;) {
        wrote = write(terminal.master, bytes, n);
        if (wrote > 0) bytes += wrote, n -= (size_t)wrote;
        look_at_screen(wrote > 0 ? 0 : 10);
        if (n > 0 && now() > end) terminal.lost = 1;
    }
}

static void type(const char *text)
{
    type_bytes(text, strlen(text));
}

/* Waits until the terminal takes Ctrl-C for a signal, as it does but while a line is edited. */
static void expect_signals(void)
{
    struct termios t;
    double end = now() + PATIENCE;
    while (!tcgetattr(terminal.slave, &t) && !(t.c_lflag & ISIG) && now() < end) look_at_screen(5);
    check(t.c_lflag & ISIG, "Ctrl-C stays a key");
}

/* Waits for the program's end and returns its exit code, 128 and more for a signal. The terminal
 * must be as it was. */
static int close_terminal(void)
{
    double end = now() + PATIENCE;
    int status = 0, over;
    struct termios after;
    while (!(over = waitpid(terminal.pid, &status, WNOHANG) == terminal.pid) && now() < end &&
           !terminal.lost) {
        look_at_screen(10);
    }
    if (!over) kill(terminal.pid, SIGKILL), waitpid(terminal.pid, &status, 0);
    look_at_screen(0);
    tcgetattr(terminal.slave, &after);
    check(after.c_iflag == terminal.before.c_iflag && after.c_oflag == terminal.before.c_oflag &&
              after.c_lflag == terminal.before.c_lflag &&
              !memcmp(after.c_cc, terminal.before.c_cc, sizeof after.c_cc),
          "the terminal's settings are others than before");
    int pasting = 0;
    for (size_t i = 0; i + 8 <= terminal.n; i++) {
        if (!memcmp(terminal.screen + i, "\x1b[?2004", 7)) pasting = terminal.screen[i + 7] == 'h';
    }
    check(!pasting, "the terminal still marks what is pasted");
    close(terminal.master), close(terminal.slave);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Leaves the chat with Ctrl-D. */
static void leave(void)
{
    type("\4");
    int code = close_terminal();
    check(code == 0, "Ctrl-D: exit %d", code);
}

/* Every command, right and wrong. */
static const struct {
    const char *line, *answer;
} typed_commands[] = {
    { "/help", "Ctrl-C stops an answer" },
    { "/nonsense", "there is no command /nonsense;" },
    { "/", "there is no command /;" },
    { "/helpme", "there is no command /helpme;" },
    { "/help me", "/help\x1b[0m" },
    { "/undo", "(there is no message)" },
    { "/regen", "(there is no answer)" },
    { "tea", "eta" },
    { "/regen", "eta" },
    { "/stats", "2 turns, " },
    { "/undo", "(the last message is taken back)" },
    { "/stats", "0 turns, 0 of 4000 positions" },
    { "//help", "eta" },
    { "/system be kind", "(a new conversation, with this system prompt)" },
    { "/stats", "1 turns, " },
    { "/clear", "(a new conversation)" },
    { "tea", "eta" },
    { "/save $T/shelf", "(saved: 3 turns, " },
    { "/system", "(a new conversation, without a system prompt)" },
    { "/load $T/shelf", "(loaded: 3 turns, " },
    { "/undo", "(the last message is taken back)" },
    { "/undo", "(there is no message)" },
    { "/save", "/save FILE" },
    { "/save $T/nowhere/shelf", "nowhere/shelf: No such file" },
    { "/load", "/load FILE" },
    { "/load $T/nowhere", "nowhere: No such file" },
    { "/load Makefile", "Makefile: this is no saved session" },
    { "/read", "/read FILE" },
    { "/read $T/nowhere", "nowhere: No such file" },
    { "/read $T", ": Is a directory" },
    { "/read $T/text", "(4 bytes of " },
    { "", "eta" },
    { "/read ~/text  ", "(4 bytes of /" },
    { "/read \"~/text\"", "(4 bytes of /" },
    { "/read $T/it's a text ", "it's a text go in front" },
    { "/read '$T/a text' ", "a text go in front" },
    { "/read \"$T/a text\"", "a text go in front" },
    { "/read $T/a\\ text", "a text go in front" },
    { "/read '$T/it'\\''s a text'", "it's a text go in front" },
    { "/read $T/zero", "zero: the byte at offset 1 is zero" },
    { "/read -", "./-: No such file" },
    { "/save '$T/a shelf'", "(saved: " },
    { "/load $T/a\\ shelf ", "(loaded: " },
    { "", "eta" },
    { "/set", "/set NAME VALUE" },
    { "/set t", "/set NAME VALUE" },
    { "/set c 5", "/set NAME VALUE" },
    { "/set t 1 2", "/set NAME VALUE" },
    { "/set t warm", "-t warm: expected a number" },
    { "/set p 2", "-p 2: expected 0 to 1" },
    { "/set k 5", "(k is 5)" },
    { "/set min-p 0.1", "(min-p is 0.1)" },
    { "/set repeat 1", "(repeat is 1)" },
    { "/set s 7", "(s is 7)" },
    { "/set t 0", "(t is 0)" },
    { "/set n 2", "(n is 2)" },
    { "tea", "et\r\n" },
};

static void test_commands(void)
{
    write_text(TMP "/text", "tea\n");
    cli("cp $T/text \"$T/a text\"; cp $T/text \"$T/it's a text\"; printf 'a\\0' >$T/zero");
    check(!open_terminal(80, "env HOME=$PWD/$T " ETA), "a terminal: %s", strerror(errno));
    expect("tiny; /help lists the commands");
    for (size_t i = 0; i < ARRAY_LEN(typed_commands) && !terminal.lost; i++) {
        char line[256];
        const char *at = strstr(typed_commands[i].line, "$T");
        snprintf(line, sizeof line, "%.*s%s%s\r",
                 (int)(at ? at - typed_commands[i].line : (ssize_t)strlen(typed_commands[i].line)),
                 typed_commands[i].line, at ? TMP : "", at ? at + 2 : "");
        expect_prompt();
        type(line);
        expect("\x1b[?2004l");
        expect(typed_commands[i].answer);
    }
    expect_prompt();
    type("/quit\r");
    int code = close_terminal();
    check(code == 0, "/quit: exit %d", code);
}

/* A conversation that can't be kept goes on at a terminal; one that can is written at once. */
static void test_failed_saves(void)
{
    static const char *const typed[] = { "tea\r",   "/regen\r",          "/undo\r",
                                         "/clear\r", "/system be kind\r", "/load " TMP "/shelf\r" };
    check(!open_terminal(80, "env " ETA " --session $T/nowhere/kept"), "a terminal: %s",
          strerror(errno));
    expect("nowhere/kept: No such file"); /* before the first answer */
    for (size_t i = 0; i < ARRAY_LEN(typed); i++) {
        expect_prompt();
        type(typed[i]);
        expect("nowhere/kept: No such file");
    }
    expect_prompt();
    leave();
    unlink(TMP "/kept");
    check(cli("printf '' | " KEPT "; test -s $T/kept") == 0, "an empty conversation: %s", cli_err);
    check(cli("printf 'tea\n' | " KEPT " -y 'be kind' >$T/one; rm $T/kept; "
              "printf 'tea\n' | " KEPT " -y 'be kind' | cmp - $T/one") == 0 && !*cli_err,
          "it begins like a new one: %s %s", cli_out, cli_err);
}

/* The last message of the conversation that the program keeps in a file. */
static const char *last_message(const llm_model *m)
{
    static char text[1024];
    llm_session *s = llm_session_new(m, &(llm_options){ .chat_template = "zephyr" });
    int status = s ? llm_load(s, TMP "/typed") : -1, n = s ? llm_turns(s) : 0;
    snprintf(text, sizeof text, "%s", status || n < 2 ? llm_error() : llm_turn_text(s, n - 2));
    llm_session_free(s);
    return text;
}

#define TYPED ETA " --session $T/typed"

/* Keys, and the message that they type. */
static const struct {
    const char *keys, *message;
} typed_keys[] = {
    { "tea\r", "tea" },
    { "ta\x1b[De\r", "tea" },
    { "ta\2e\6s\r", "teas" },
    { "ea\x1b[Ht\x1b[Fs\r", "teas" },
    { "ea\x1bOHt\x1b[4~s\r", "teas" },
    { "ea\1t\5s\r", "teas" },
    { "tea sea\x1b[D\x1b[D\x1b[D\13\r", "tea " },
    { "sea tea\2\2\2\25\r", "tea" },
    { "tea sea\27\27s\r", "s" },
    { "tea sea  \27\r", "tea " },
    { "tea\xc3\xa9\x7f\r", "tea" },
    { "\xe8\x8c\xb6\xe8\x8c\xb6\10\r", "\xe8\x8c\xb6" },
    { "\xc3\xa9tea\x1b[H\x1b[3~\r", "tea" },
    { "xtea\1\4\r", "tea" },
    { "t\xe8\x8c\xb6"
      "a\x1b[D\x1b[De\r",
      "te\xe8\x8c\xb6"
      "a" },
    { "t\xf0\x9f\xa6\x99"
      "a\1\6\6e\r",
      "t\xf0\x9f\xa6\x99"
      "ea" },
    { "tea sea\x1b[1;5Dx\x1b[1;5Cy\r", "tea xseay" },
    { "\x1b[A\r", "tea xseay" },
    { "\x1b[A\x1b[A\x1b[A\x1b[B\r", "tea xseay" },
    { "new\x1b[A\x1b[Bold\r", "newold" },
    { "\20\20\16!\r", "newold!" },
    { "x\1\2\x7f\x1b[D\x1b[D\5\6\6\x1b[3~\x1b[C\r", "x" },
    { "xyz\3tea\r", "tea" },
    { "te\x1b[15~\x1b[Z\x1b[1;2A\7\0327a\14\r", "te7a" },
    { "\x1b[200~one\rtwo\n\tthree\x1b[201~\r", "one\ntwo\n\tthree" },
    { "so \x1b[200~one\x1b[201~ two\r", "so one two" },
    { "tea\\\rsea\\\r\r", "tea\nsea\n" },
    { "\"\"\"one\r two\\\r\"three\"\"\"\r", "one\n two\\\n\"three" },
    { "\"\"\"\rone\r/two\r\"\"\"\r", "one\n/two" },
    { "\"\"\"tea\"\"\"\r", "tea" },
    { "//tea /sea\r", "/tea /sea" },
    { "t\xff\xfe"
      "a\x80\r",
      "t\xff\xfe"
      "a\x80" },
    { "t\xff\2e\xe8\r", "te\xe8\xff" },
    { "\x80\x80\x80\x80\x80\x80\x7f\x7f\x7f\x7f\x7f\x7ftea\r", "tea" },
};

static void test_keys(const llm_model *m)
{
    unlink(TMP "/typed");
    check(!open_terminal(80, "env " TYPED), "a terminal: %s", strerror(errno));
    for (size_t i = 0; i < ARRAY_LEN(typed_keys) && !terminal.lost; i++) {
        const char *line = typed_keys[i].keys, *end;
        for (; *line; line = end) { /* each with a prompt of its own */
            const char *pasted = strstr(line, "\x1b[201~");
            end = pasted ? pasted : line;
            end += strcspn(end, "\r") + 1;
            expect_prompt();
            type_bytes(line, (size_t)(end - line));
            expect("\x1b[?2004l");
        }
        expect("eta\r\n");
        expect("\x1b[?2004h"), terminal.seen -= 8;
        check(!strcmp(last_message(m), typed_keys[i].message),
              "keys \"%s\": \"%s\", expected \"%s\"", typed_keys[i].keys, last_message(m),
              typed_keys[i].message);
    }
    leave();
}

/* Narrow and changing windows, and lines that are longer than them. */
static void test_windows(const llm_model *m)
{
    static char much[1 << 20];
    char line[128] = "";
    while (strlen(line) < 90) strcat(line, "the tea \xe8\x8c\xb6");
    memset(much, 'e', sizeof much - 1);
    unlink(TMP "/typed");
    check(!open_terminal(20, "env " TYPED), "a terminal: %s", strerror(errno));
    expect_prompt();
    type(line);
    set_columns(11);
    type("\1");
    set_columns(4);
    type("so ");
    set_columns(200);
    type("\5\r");
    expect("eta\r\n");
    expect_prompt();
    check(!strncmp(last_message(m), "so the tea ", 11) && !strcmp(last_message(m) + 3, line),
          "typed in a window that changes: \"%s\"", last_message(m));
    type_bytes(much, sizeof much - 1);
    type("\1\5\r");
    expect(" 4000 positions");
    expect_prompt();
    type("\x1b[A\25tea\r");
    expect("eta\r\n");
    expect_prompt();
    leave();
}

#define ENDLESS "$RUN $T/endless.gguf --template zephyr -m chat -t 0 -j 1"

/* Ctrl-C stops an answer, or the reading of a message; at an empty line it leaves. */
static void test_ctrl_c(void)
{
    static char much[6001];
    memset(much, 'e', sizeof much - 1);
    check(!open_terminal(80, "env " ENDLESS), "a terminal: %s", strerror(errno));
    expect_prompt();
    type("tea\r");
    expect("etaetaeta");
    type("\3");
    expect("(stopped)");
    expect_prompt();
    type("\x1b[200~");
    type(much);
    type("\x1b[201~\r");
    expect("\x1b[?2004l");
    expect_signals();
    type("\3");
    expect("(stopped: the message was not read)");
    expect_prompt();
    type("/stats\r");
    expect("2 turns");
    expect_prompt();
    type("sea\r");
    expect("etaetaeta");
    type("\23\3"); /* Ctrl-S holds the output */
    expect("(stopped)");
    expect_prompt();
    type("half\3");
    type("\3");
    int code = close_terminal();
    check(code == 0, "Ctrl-C at an empty line: exit %d", code);
}

/* The end comes from outside, while a line is typed or an answer is written. */
static void test_ends(void)
{
    for (int i = 0; i < 4; i++) {
        check(!open_terminal(80, "env " ENDLESS), "a terminal: %s", strerror(errno));
        expect_prompt();
        type(i % 2 ? "tea\r" : "te");
        expect(i % 2 ? "etaeta" : "te");
        if (i < 2) {
            kill(terminal.pid, SIGTERM);
            int code = close_terminal();
            check(code == 128 + SIGTERM, "SIGTERM %d: exit %d", i, code);
        } else {
            int status = 0, over = 0;
            double end = now() + PATIENCE;
            close(terminal.slave), close(terminal.master);
            while (!(over = waitpid(terminal.pid, &status, WNOHANG)) && now() < end) usleep(10000);
            if (!over) kill(terminal.pid, SIGKILL), waitpid(terminal.pid, &status, 0);
            check(over && (WIFEXITED(status) || WTERMSIG(status) == SIGHUP),
                  "the program lives on without its terminal, status %d", status);
        }
    }
}

/* Colours, unless the user does not want them. */
static void test_colours(void)
{
    static const char *const calls[] = { "env " ETA, "env NO_COLOR=1 " ETA, "env TERM=dumb " ETA };
    for (int i = 0; i < 3; i++) {
        int coloured = 0;
        check(!open_terminal(80, calls[i]), "a terminal: %s", strerror(errno));
        expect(i == 2 ? "> " : "\x1b[?2004h"); /* a dumb terminal edits lines itself */
        type("tea\r");
        expect("eta\r\n");
        expect(i == 2 ? "> " : "\x1b[?2004h");
        leave();
        for (size_t j = 0; j + 2 < terminal.n; j++) {
            const char *at = terminal.screen + j;
            if (at[0] != 27 || at[1] != '[') continue;
            for (j += 2; j < terminal.n && strchr("0123456789;", terminal.screen[j]);) j++;
            coloured |= j < terminal.n && terminal.screen[j] == 'm';
        }
        check(coloured == (i == 0), "%s: %s colours", calls[i], coloured ? "with" : "without");
    }
}

/* Thoughts: by this template an answer begins inside one, and the bundled model never ends it. */
#define THINKING "$RUN " BUNDLED " -m chat --template $T/qwen3.5.jinja -t 0"
static void test_thoughts_shown(void)
{
    check(!cli(THINKING " -i 'What is 3 + 4?'") && !strcmp(cli_out, "\n"), "in a pipe: %s",
          cli_out);
    check(!cli(THINKING " -i 'What is 3 + 4?' --think hide") && !strcmp(cli_out, "\n"),
          "hidden: %s", cli_out);
    check(!cli(THINKING " -i 'What is 3 + 4?' --think show") && strlen(cli_out) > 9, "shown: %s",
          cli_out);
    check(!cli(THINKING " -i 'What is 3 + 4?' --think off") && strlen(cli_out) > 1, "off: %s",
          cli_out);
    check(!open_terminal(80, THINKING), "a terminal: %s", strerror(errno));
    expect("\x1b[?2004h");
    type("What is 3 + 4?\r");
    expect("\x1b[2m");
    expect("\x1b[0m\r\n");
    expect_prompt(); /* a Ctrl-D typed before is a mark in the terminal's buffer, not a key */
    leave();
}

static void test_terminal(void)
{
    llm_model *m = llm_open(TMP "/eta.gguf");
    check(m, "%s", llm_error());
    test_commands();
    test_failed_saves();
    test_keys(m);
    test_windows(m);
    test_ctrl_c();
    test_ends();
    test_colours();
    test_thoughts_shown();
    free(terminal.screen);
    terminal.screen = NULL, terminal.room = 0;
    llm_close(m);
}

static void test_chats(void)
{
    test_library_chat();
    write_models();
    test_piped_chat();
    test_long_chat();
    test_kept_chat();
    test_samples();
    test_heat();
    test_choices();
    test_terminal();
}
