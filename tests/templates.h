/* Chat templates of our own, with the structure of published ones, for what the built-in ones don't
 * have: thoughts that stay or go, or that the template opens itself, enable_thinking, harmony, a
 * system prompt inside the user's turn, sentences that are raised. */

#define CHATML_HISTORY \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}" \
    "{% endfor %}"
#define CHATML_ASK "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
#define CHATML_OFF \
    "{% if enable_thinking is defined and enable_thinking is false %}" \
    "{{ '<think>\n\n</think>\n\n' }}"
#define BARS "{{ '<|' + m.role + '|>' }}"

static const struct {
    const char *name, *text;
} chat_texts[] = {
    /* thoughts go with the turn; they can be turned off */
    { "qwen3", CHATML_HISTORY CHATML_ASK CHATML_OFF "{% endif %}{% endif %}" },
    /* the template opens a thought, always or if it may */
    { "qwq", CHATML_HISTORY CHATML_ASK "{{ '<think>\n' }}{% endif %}" },
    { "qwen3.5",
      CHATML_HISTORY CHATML_ASK CHATML_OFF "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}" },
    /* thoughts stay */
    { "kept",
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
      "{% if m.reasoning_content %}"
      "{{ '<think>\n' + m.reasoning_content.strip('\n') + '\n</think>\n\n' }}"
      "{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}" CHATML_ASK "{% endif %}" },
    /* an empty thought stands in front of each answer */
    { "exaone4",
      "{% for m in messages %}{{ '[|' + m.role + '|]\n' }}"
      "{% if m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
      "{{ m.content + '[|endofturn|]\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '[|assistant|]\n<think>\n' }}"
      "{% if enable_thinking is false %}{{ '\n</think>\n\n' }}{% endif %}{% endif %}" },
    { "exaone-deep",
      "{% for m in messages %}{{ '[|' + m.role + '|]' + m.content }}"
      "{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '[|assistant|]<thought>\n' }}{% endif %}" },
    { "magistral",
      "{{ bos_token }}{% for m in messages %}"
      "{% if m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
      "{% elif m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
      "{% else %}{% if m.thinking and keep %}{{ '[THINK]' + m.thinking + '[/THINK]' }}{% endif %}"
      "{{ m.content + eos_token }}{% endif %}{% endfor %}" },
    /* nothing ends an answer but the next turn */
    { "glm4",
      "[gMASK]<sop>{% for m in messages %}" BARS "{{ '\n' + m.content }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}" },
    { "deepseek-coder",
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
      "{% elif m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n' }}"
      "{% else %}{{ '### Response:\n' + m.content + '\n<|EOT|>\n' }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '### Response:' }}{% endif %}" },
    { "gpt-oss",
      "<|start|>system<|message|>Reasoning: {{ reasoning_effort|default('medium') }}\n\n"
      "# Valid channels: analysis, commentary, final.<|end|>"
      "{% for m in messages %}{% if m.role in ('system', 'developer') %}"
      "{{ '<|start|>developer<|message|># Instructions\n\n' + m.content + '\n\n<|end|>' }}"
      "{% elif m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
      "{% else %}{% if m.thinking and keep %}"
      "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
      "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}"
      "{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}" },
    { "command-r7b",
      "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' +"
      " {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>'}"
      ".get(m.role, '<|CHATBOT_TOKEN|>') }}"
      "{% if m.role == 'assistant' %}{{ '<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' }}"
      "{% else %}{{ m.content }}{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}"
      "{% if enable_thinking is false %}{{ '<|START_RESPONSE|>' }}{% else %}"
      "{{ '<|START_THINKING|>' }}{% endif %}{% endif %}" },
    /* the system prompt stands in the last question */
    { "late",
      "{{ bos_token }}{% set ns = namespace(system='', last=-1) %}{% for m in messages %}"
      "{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}"
      "{% elif m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
      "{% for m in messages %}{% if m.role == 'user' %}"
      "{{ '[INST] ' + (ns.system if loop.index0 == ns.last else '') + m.content + ' [/INST]' }}"
      "{% elif m.role != 'system' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}" },
    /* turns alternate, and begin with a question */
    { "strict",
      "{% set n = namespace(i=0) %}{% for m in messages if m.role != 'system' %}"
      "{% if m.role not in ['user', 'assistant', 'tool'] %}"
      "{{ raise_exception('Unknown role: ' + m.role) }}{% endif %}"
      "{% if (m.role == 'user') != (n.i % 2 == 0) %}"
      "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
      "{% set n.i = n.i + 1 %}{% endfor %}"
      "{% if n.i == 0 %}{{ raise_exception('No user query found in messages.') }}{% endif %}"
      CHATML_HISTORY CHATML_ASK "{% endif %}" },
    { "no-system",
      "{% if messages and messages[0].role == 'system' %}"
      "{{ raise_exception('System role not supported') }}{% endif %}"
      CHATML_HISTORY CHATML_ASK "{% endif %}" },
    /* what is told to it */
    { "told",
      "{{ bos_token }}{% if tools %}{{ '<|im_start|>' + tools|tojson + '<|im_end|>' }}{% endif %}"
      "{{ mood }}/{{ enable_thinking }}/{{ documents }}\n"
      CHATML_HISTORY CHATML_ASK "{% endif %}" },
};

/* The text of one of these, or the name of a built-in one. */
static const char *template_of(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(chat_texts); i++) {
        if (!strcmp(chat_texts[i].name, name)) return chat_texts[i].text;
    }
    return name;
}
