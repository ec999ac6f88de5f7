"""The tiny models of models.py and llamacpp.py: configurations of transformers.

To add a family: its cases in family_cases, and one in golden_cases.
"""

from dataclasses import dataclass, field

import torch
from transformers import (AfmoeConfig, ApertusConfig, ArceeConfig, Cohere2Config, Cohere2MoeConfig,
                          CohereConfig, DeepseekV2Config, DeepseekV3Config, Dots1Config,
                          Ernie4_5_MoeConfig, Ernie4_5Config, Exaone4Config, FalconH1Config,
                          Gemma2Config, Gemma3TextConfig, Gemma4TextConfig, GemmaConfig,
                          Glm4Config, Glm4MoeConfig, GlmConfig, GPT2Config, GptOssConfig,
                          GraniteConfig, GraniteMoeConfig, GraniteMoeHybridConfig,
                          GraniteMoeSharedConfig, HunYuanDenseV1Config, HYV3Config, LagunaConfig,
                          Lfm2Config, Lfm2MoeConfig, LlamaConfig, Mamba2Config, MellumConfig,
                          Ministral3Config, MistralConfig, MixtralConfig, MuseGlimmerConfig,
                          NemotronHConfig, Olmo2Config, Olmo3Config, OlmoeConfig, Phi3Config,
                          Qwen2Config, Qwen2MoeConfig, Qwen3_5MoeTextConfig, Qwen3_5TextConfig,
                          Qwen3Config, Qwen3MoeConfig, Qwen3VLConfig, Qwen3VLMoeConfig,
                          SeedOssConfig, SmolLM3Config, StableLmConfig, Starcoder2Config)

ALL_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
FLOAT_TYPES = ("f32", "f16")


@dataclass
class Case:
    name: str
    config: object
    positions: int = 64
    types: tuple = ALL_TYPES
    dtype: torch.dtype = torch.float32  # how the weights are stored
    old_config: str = ""                # older spelling of config.json: the key of the rope type
    shard: str = "1GB"                  # largest safetensors file
    export: str = ""                    # a family: export_fused makes the file, not export.py
    notice: list = field(default_factory=list)  # names of CHANGES besides COMMON
    family: str = ""                    # llama or qwen2, by the name, where it is not given
    paper: bool = True                  # whether class Paper knows the family
    # What must show, for families that Paper does not know: {setting: another value}, or with a
    # slash in front {pattern of weights: what all their values become}.
    alter: dict = field(default_factory=dict)
    # At so many positions formats of blocks are compared, and experts lead by so much.
    steady: int = 96
    steady_lead: float = 0.0
    packed: bool = False                # experts are stored as MXFP4
    room: float = 1.0                   # tolerances times this: what many layers add up to
    other_llama: str = ""               # why llama.cpp does not compute the same

    def __post_init__(self):
        self.family = self.family or ("qwen2" if self.name.startswith("qwen2") else "llama")


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def shape(dim, hidden, heads, kv_heads, vocab, layers=2, context=128, eps=1e-5, **more):
    return dict(hidden_size=dim, intermediate_size=hidden, num_attention_heads=heads,
                num_key_value_heads=kv_heads, vocab_size=vocab, num_hidden_layers=layers,
                max_position_embeddings=context, rms_norm_eps=eps, bos_token_id=1, eos_token_id=2,
                **more)


def llama3(original, theta=500000.0):
    return rope("llama3", theta, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=original)


def basic_cases():
    return [
        # q_dim 192 > dim 96 > hidden 64; more rows than a prefill chunk has
        Case("gqa", LlamaConfig(**shape(96, 64, 6, 2, 160, layers=3, context=1024, head_dim=32)),
             positions=600, notice=["kv heads"]),
        Case("mha_tied", LlamaConfig(**shape(64, 160, 4, 4, 320), tie_word_embeddings=True),
             shard="60KB", old_config="type"),
        Case("mqa", LlamaConfig(**shape(64, 96, 4, 1, 128, layers=3),
                                rope_parameters=rope(theta=500000.0))),
        # no size is a multiple of 8; a large eps shows whether it is read
        Case("odd", LlamaConfig(**shape(75, 51, 5, 5, 131, head_dim=18, eps=0.3)),
             types=FLOAT_TYPES, notice=["eps"]),
        Case("llama3", LlamaConfig(**shape(64, 96, 4, 2, 128, context=256, head_dim=32),
                                   rope_parameters=llama3(32)),
             positions=160, dtype=torch.bfloat16, old_config="rope_type",
             notice=["kv heads", "scaling"]),
        Case("linear", LlamaConfig(**shape(64, 96, 4, 2, 128, context=256),
                                   rope_parameters=rope("linear", factor=4.0)),
             positions=160, old_config="type", notice=["kv heads", "scaling"]),
        # the dimensions between which YaRN changes over, 2 and 9 of 16, are both inside
        Case("yarn", LlamaConfig(**shape(64, 96, 4, 2, 128, context=4096, head_dim=32),
                                 rope_parameters=rope("yarn", factor=4.0,
                                                      original_max_position_embeddings=1024)),
             positions=400, notice=["scaling", "yarn cosine", "yarn fast", "yarn slow"]),
        Case("biases", LlamaConfig(**shape(64, 96, 4, 2, 128, head_dim=32),
                                   attention_bias=True, mlp_bias=True),
             dtype=torch.float16, notice=["biases"]),
        Case("mistral", MistralConfig(**shape(64, 96, 4, 2, 128, head_dim=32),
                                      sliding_window=None), types=FLOAT_TYPES),
        Case("qwen2", Qwen2Config(**shape(64, 96, 4, 2, 160, layers=3),
                                  rope_parameters=rope(theta=1000000.0)),
             positions=128, notice=["kv heads", "biases"]),
        Case("qwen2_wide", Qwen2Config(**shape(64, 32, 4, 4, 128), head_dim=32),
             dtype=torch.bfloat16, notice=["biases"],
             other_llama="it expects heads as wide together as the model"),
        Case("qwen2_yarn", Qwen2Config(**shape(96, 128, 4, 1, 160, context=2048),
                                       tie_word_embeddings=True,
                                       rope_parameters=rope("yarn", 100000.0, factor=4.0,
                                                            beta_fast=8.0, beta_slow=2.0,
                                                            attention_factor=1.3,
                                                            original_max_position_embeddings=512)),
             positions=400, old_config="type",
             notice=["scaling", "yarn cosine", "yarn fast", "yarn slow", "biases"],
             other_llama="it reads no yarn_beta_fast of this family"),
        # Llama and Qwen2 rotate whole heads in transformers. GLM and Phi-3 rotate a part, in the
        # same two ways; with their fused matrices taken apart they are these two families.
        Case("partial_pairs", GlmConfig(**shape(64, 48, 4, 2, 128, head_dim=32), pad_token_id=0,
                                        partial_rotary_factor=0.5),
             types=("f32",), export="llama",
             notice=["whole heads", "biases"]),
        Case("partial_halves", Phi3Config(**shape(64, 96, 4, 2, 128), pad_token_id=0,
                                          partial_rotary_factor=0.75),
             positions=128, types=("f32",), export="qwen2",
             notice=["whole heads"]),
    ]


def case(name, config, alter, **more):
    """One of a family that Paper does not know; its name begins with that of the family."""
    more = {"family": name.split("/")[0], "types": ("f32", "q8_0"), "positions": 96, **more}
    return Case(name.replace("/", "_"), config, paper=False, alter=alter, **more)


def normed(*arguments, **more):
    """The shape of a family that has another epsilon."""
    sizes = shape(*arguments, **more)
    return {key: sizes[key] for key in sizes if key != "rms_norm_eps"}


def layered(full, **local):
    """Rope of a family in which layers with a window have their own."""
    return {"full_attention": full, "sliding_attention": rope(**local)}


SLIDING, FULL = "sliding_attention", "full_attention"
NORMS = {"/norm": 1.0}
QK_NORMS = {"/[qk]_norm": 1.0}


def yarn(factor, original, theta=10000.0, **more):
    return rope("yarn", theta, factor=factor, original_max_position_embeddings=original, **more)


def longrope(dims, original, **more):
    """Divisors that grow with the wavelength."""
    return rope("longrope", short_factor=[1 + 0.05 * i for i in range(dims // 2)],
                long_factor=[1 + 0.6 * i for i in range(dims // 2)],
                original_max_position_embeddings=original, **more)


def dense_cases():
    """Attention and one feed-forward network in each layer."""
    text = dict(pad_token_id=0)
    return [
        case("qwen3/gqa", Qwen3Config(**shape(64, 96, 4, 2, 128, layers=3), head_dim=32,
                                      rope_parameters=rope(theta=1e6)),
             {**QK_NORMS, "rope_parameters": rope(theta=1e5)}, dtype=torch.bfloat16),
        case("qwen3/tied", Qwen3Config(**shape(75, 51, 5, 5, 131, context=4096, eps=0.3),
                                       head_dim=18, tie_word_embeddings=True,
                                       rope_parameters=yarn(4.0, 1024, attention_factor=1.3)),
             {**QK_NORMS, "rope_parameters": rope(), "rms_norm_eps": 0.1}, old_config="type"),
        case("gemma/mqa", GemmaConfig(**shape(64, 96, 4, 1, 128), head_dim=32, **text),
             {"hidden_act": "silu", **NORMS}, dtype=torch.bfloat16),
        case("gemma/mha", GemmaConfig(**shape(60, 51, 4, 4, 131, layers=3, eps=0.1), head_dim=18,
                                      **text), {"rms_norm_eps": 0.01}, old_config="type"),
        case("gemma2/gqa", Gemma2Config(
            **shape(64, 96, 4, 2, 128, layers=4), head_dim=32, query_pre_attn_scalar=32,
            sliding_window=24, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, **text),
             {"sliding_window": 25, "attn_logit_softcapping": None, "/norm": 0.0,
              "final_logit_softcapping": None,
              "layer_types": [FULL, SLIDING, FULL, SLIDING]}, old_config="type"),
        case("gemma2/layers", Gemma2Config(
            **shape(48, 51, 4, 4, 131, layers=3), head_dim=18, query_pre_attn_scalar=7,
            sliding_window=17, layer_types=[SLIDING, FULL, FULL], **text),
             {"query_pre_attn_scalar": 18, "layer_types": [SLIDING, FULL, SLIDING]},
             other_llama="it reads no attention.scale"),
        case("gemma3/gqa", Gemma3TextConfig(
            **shape(48, 64, 4, 2, 128, layers=7), head_dim=16, query_pre_attn_scalar=16,
            sliding_window=24, **text,
            rope_parameters=layered(rope("linear", 1e6, factor=8.0))),
             {"sliding_window": 25, **QK_NORMS,
              "rope_parameters": layered(rope(theta=1e6))}, dtype=torch.bfloat16),
        case("gemma3/layers", Gemma3TextConfig(
            **shape(64, 51, 4, 1, 131, layers=3), head_dim=18, query_pre_attn_scalar=7,
            sliding_window=17, layer_types=[SLIDING, FULL, SLIDING], final_logit_softcapping=4.0,
            tie_word_embeddings=False, **text,
            rope_parameters=layered(rope(theta=1e5), theta=5000.0)),
             {"query_pre_attn_scalar": 18, "final_logit_softcapping": None,
              "layer_types": [SLIDING, SLIDING, FULL]},
             other_llama="it reads no attention.scale"),
        case("gemma4/dense", Gemma4TextConfig(
            **shape(64, 96, 4, 2, 128, layers=6), head_dim=16, global_head_dim=32,
            sliding_window=24, hidden_size_per_layer_input=0, final_logit_softcapping=4.0,
            layer_types=[SLIDING, SLIDING, FULL] * 2, **text),
             {"sliding_window": 25, "final_logit_softcapping": None, "/layer_scalar": 1.0,
              **QK_NORMS, "rope_parameters": layered(
                  rope("proportional", 1e6, partial_rotary_factor=0.5))}),
        case("gemma4/shared", Gemma4TextConfig(
            **shape(60, 51, 5, 5, 131, layers=6, eps=0.1), head_dim=10, global_head_dim=24,
            sliding_window=17, layer_types=[SLIDING, SLIDING, FULL] * 2, num_kv_shared_layers=3,
            use_double_wide_mlp=True, hidden_size_per_layer_input=8, vocab_size_per_layer_input=131,
            **text, rope_parameters=layered(
                rope("proportional", 1e5, partial_rotary_factor=0.5), theta=5000.0)),
             {"rms_norm_eps": 0.01, "/embed_tokens_per_layer": 0.0, "/per_layer_model": 0.0,
              "/post_per_layer_input_norm": 0.0}, dtype=torch.bfloat16),
        case("llama/window", MistralConfig(**shape(72, 51, 4, 2, 131, layers=3), head_dim=18,
                                           sliding_window=20), {"sliding_window": 21},
             other_llama="it reads no window of this family"),
        case("phi3/short", Phi3Config(**shape(64, 96, 4, 4, 128, context=4096), **text,
                                      original_max_position_embeddings=512,
                                      rope_parameters=longrope(16, 512)),
             {"rope_parameters": rope()}, dtype=torch.bfloat16),
        case("phi3/long", Phi3Config(**shape(96, 50, 6, 2, 131, layers=3, context=4096), **text,
                                     original_max_position_embeddings=64, tie_word_embeddings=True,
                                     rope_parameters=longrope(
                                         12, 64, partial_rotary_factor=0.75)),
             {"rope_parameters": rope(partial_rotary_factor=0.75)}, old_config="type"),
        case("phi3/window", Phi3Config(**shape(72, 51, 4, 2, 131, layers=3), sliding_window=20,
                                       **text), {"sliding_window": 21},
             other_llama="it ignores the window of this family"),
        case("olmo2/gqa", Olmo2Config(**shape(64, 96, 4, 2, 128, layers=3), **text,
                                      rope_parameters=rope(theta=500000.0)), QK_NORMS,
             dtype=torch.bfloat16),
        case("olmo2/yarn", Olmo2Config(**shape(72, 51, 4, 4, 131, context=4096, eps=0.2), **text,
                                       rope_parameters=yarn(8.0, 512)),
             {"rms_norm_eps": 0.1, "rope_parameters": rope(), **QK_NORMS}, old_config="type"),
        case("olmo3/yarn", Olmo3Config(
            **shape(64, 96, 4, 2, 128, layers=4, context=4096), sliding_window=24, **text,
            rope_parameters=layered(yarn(8.0, 512, 500000.0), theta=500000.0)),
             {"sliding_window": 25, "rope_parameters": layered(
                 yarn(8.0, 512, 500000.0), kind="linear", theta=500000.0, factor=8.0)},
             old_config="rope_type"),
        case("olmo3/layers", Olmo3Config(
            **shape(72, 51, 4, 4, 131, layers=3), sliding_window=17, **text,
            layer_types=[FULL, SLIDING, FULL]), {"layer_types": [SLIDING, FULL, FULL]}),
        case("smollm3/tied", SmolLM3Config(**shape(64, 96, 4, 2, 128, layers=4), **text,
                                           rope_parameters=rope(theta=5e6)),
             {"no_rope_layers": [1, 1, 1, 1]}, dtype=torch.bfloat16),
        case("smollm3/yarn", SmolLM3Config(**shape(72, 51, 4, 4, 131, layers=5, context=4096),
                                           **text, tie_word_embeddings=False,
                                           rope_parameters=yarn(2.0, 2048, 1e5)),
             {"no_rope_layers": [1, 1, 0, 1, 1]}, old_config="type"),
        case("granite/gqa", GraniteConfig(
            **shape(64, 96, 4, 2, 128, layers=3), embedding_multiplier=6.0, logits_scaling=8.0,
            residual_multiplier=0.4, attention_multiplier=0.1),
             {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0,
              "attention_multiplier": 0.25}, dtype=torch.bfloat16),
        case("granite/tied", GraniteConfig(
            **shape(72, 51, 4, 4, 131), tie_word_embeddings=True, embedding_multiplier=0.5,
            logits_scaling=0.3, residual_multiplier=1.7, attention_multiplier=0.5,
            rope_parameters=rope("linear", factor=4.0)),
             {"rope_parameters": rope()}, old_config="type"),
    ]


def routed(name, config, alter, **more):
    return case(name, config, alter, **{"steady": 12, "steady_lead": 0.05, **more})


def latent(low, rank, plain, turned, value, **more):
    return dict(q_lora_rank=low, kv_lora_rank=rank, qk_nope_head_dim=plain,
                qk_rope_head_dim=turned, v_head_dim=value, **more)


def routed_cases():
    """Experts, of which each token goes to some."""
    text = dict(pad_token_id=0)
    return [
        routed("mixtral/top2", MixtralConfig(**shape(64, 96, 4, 2, 128), num_local_experts=6,
                                             num_experts_per_tok=2),
               {"num_experts_per_tok": 3}, family="llama", dtype=torch.bfloat16),
        routed("mixtral/top3", MixtralConfig(**shape(75, 51, 5, 5, 131, layers=3), head_dim=18,
                                             num_local_experts=8, num_experts_per_tok=3,
                                             tie_word_embeddings=True),
               {"num_experts_per_tok": 2}, family="llama", old_config="type"),
        routed("qwen2moe/gqa", Qwen2MoeConfig(
            **shape(64, 96, 4, 2, 128), num_experts=6, num_experts_per_tok=2,
            moe_intermediate_size=64, shared_expert_intermediate_size=96),
               {"norm_topk_prob": True, "/shared_expert_gate": 0.0, "/shared_expert.down": 0.0,
                "/k_proj.bias": 3.0}),
        routed("qwen2moe/mha", Qwen2MoeConfig(
            **shape(72, 80, 4, 4, 131, layers=3), num_experts=9, num_experts_per_tok=3,
            moe_intermediate_size=25, shared_expert_intermediate_size=41),
               {"norm_topk_prob": True}, old_config="type"),
        routed("qwen3moe/gqa", Qwen3MoeConfig(
            **shape(64, 96, 4, 2, 128), head_dim=32, num_experts=8, num_experts_per_tok=2,
            moe_intermediate_size=64, norm_topk_prob=True),
               {"norm_topk_prob": False, **QK_NORMS}, dtype=torch.bfloat16),
        routed("qwen3moe/tied", Qwen3MoeConfig(
            **shape(75, 80, 5, 5, 131, layers=3, context=4096), head_dim=18, num_experts=7,
            num_experts_per_tok=3, moe_intermediate_size=33, norm_topk_prob=True,
            tie_word_embeddings=True, rope_parameters=yarn(4.0, 1024)),
               {"num_experts_per_tok": 2, "rope_parameters": rope()}, old_config="rope_type"),
        routed("gemma4/experts", Gemma4TextConfig(
            **shape(64, 96, 4, 2, 128, layers=6), head_dim=16, global_head_dim=32,
            sliding_window=24, layer_types=[SLIDING, SLIDING, FULL] * 2, attention_k_eq_v=True,
            num_global_key_value_heads=1, enable_moe_block=True, num_experts=6, top_k_experts=3,
            moe_intermediate_size=32, hidden_size_per_layer_input=0,
            final_logit_softcapping=8.0, **text),
               {"top_k_experts": 2, "/per_expert_scale": 1.0, "/router.scale": 1.0,
                "/feedforward_layernorm_[12]": 1.0}),
        routed("olmoe/mha", OlmoeConfig(**shape(64, 96, 4, 4, 128), **text, num_experts=8,
                                        num_experts_per_tok=3),
               {"norm_topk_prob": True, **QK_NORMS}, dtype=torch.bfloat16),
        routed("olmoe/gqa", OlmoeConfig(**shape(72, 51, 4, 2, 131, layers=3), **text,
                                        num_experts=5, num_experts_per_tok=2),
               {"norm_topk_prob": True}, old_config="type",
               other_llama="it expects as many key heads as heads"),
        routed("granitemoe/gqa", GraniteMoeConfig(
            **shape(64, 96, 4, 2, 128), num_local_experts=6, num_experts_per_tok=2,
            embedding_multiplier=1.5, logits_scaling=8.0, residual_multiplier=0.4,
            attention_multiplier=0.1), {"residual_multiplier": 1.0, "num_experts_per_tok": 3},
               dtype=torch.bfloat16),
        routed("granitemoe/shared", GraniteMoeSharedConfig(
            **shape(72, 51, 4, 4, 131, layers=3), num_local_experts=7, num_experts_per_tok=3,
            shared_intermediate_size=41, embedding_multiplier=3.0, logits_scaling=0.5,
            residual_multiplier=0.7, attention_multiplier=0.3, tie_word_embeddings=True),
               {"/shared_mlp.output": 0.0, "attention_multiplier": 0.25}),
        routed("gpt-oss/windows", GptOssConfig(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, num_local_experts=6,
            num_experts_per_tok=2, sliding_window=24, **text, rope_parameters=rope(theta=1e5)),
               {"sliding_window": 25, "/sinks": -30.0, "swiglu_limit": 1.0, "/router.bias": 0.0,
                "/proj_bias": 0.0, "layer_types": [FULL, SLIDING, FULL]}),
        routed("gpt-oss/yarn", GptOssConfig(
            **shape(72, 51, 4, 4, 131, context=4096), head_dim=18, num_local_experts=8,
            num_experts_per_tok=3, sliding_window=17, layer_types=[FULL, SLIDING], **text,
            rope_parameters=yarn(8.0, 512, 1000.0, truncate=False)),
               {"rope_parameters": yarn(8.0, 512, 1000.0)}, old_config="rope_type",
               other_llama="its ramp of yarn begins and ends at whole dimensions"),
        routed("gpt-oss/mxfp4", GptOssConfig(
            **shape(64, 96, 4, 2, 128), head_dim=32, num_local_experts=6, num_experts_per_tok=2,
            sliding_window=24, **text, rope_parameters=rope(theta=1e5)),
               {}, packed=True, types=("f32",)),
        routed("deepseek2/lite", DeepseekV2Config(
            **shape(64, 96, 4, 4, 128, layers=26, context=4096, eps=1e-6),
            **latent(None, 32, 32, 16, 32),
            n_routed_experts=6, num_experts_per_tok=2, n_shared_experts=2, first_k_dense_replace=24,
            moe_intermediate_size=32, rope_parameters=yarn(
                8.0, 512, mscale=0.707, mscale_all_dim=0.707)),
               {"rope_parameters": yarn(8.0, 512, mscale=0.2, mscale_all_dim=0.2),
                "/layers.*shared_experts.down": 0.0}, dtype=torch.bfloat16, room=2.0),
        routed("deepseek2/groups", DeepseekV2Config(
            **shape(72, 50, 6, 6, 131, layers=3, eps=1e-6), **latent(23, 20, 10, 6, 14), n_group=4,
            topk_group=2, topk_method="group_limited_greedy", n_routed_experts=12,
            num_experts_per_tok=3, n_shared_experts=1, first_k_dense_replace=2,
            moe_intermediate_size=33, routed_scaling_factor=2.0),
               {"topk_method": "greedy", "routed_scaling_factor": 1.0},
               other_llama="it takes the best two of a group for its score"),
        routed("deepseek2/v3", DeepseekV3Config(
            **shape(64, 96, 4, 4, 128, layers=3, context=4096, eps=1e-6),
            **latent(32, 32, 32, 16, 32),
            n_group=4, topk_group=2, n_routed_experts=16, num_experts_per_tok=3,
            n_shared_experts=1, first_k_dense_replace=1, moe_intermediate_size=32,
            norm_topk_prob=True, routed_scaling_factor=2.5, **text, rope_parameters=yarn(
                40.0, 100, mscale=1.0, mscale_all_dim=1.0)),
               {"norm_topk_prob": False, "/e_score": 0.0, "topk_group": 3,
                "routed_scaling_factor": 1.0}, dtype=torch.bfloat16),
        routed("deepseek2/plain", DeepseekV3Config(
            **shape(60, 50, 5, 5, 131, eps=1e-6), **latent(19, 21, 10, 6, 14), n_group=1,
            topk_group=1, n_routed_experts=9, num_experts_per_tok=4, n_shared_experts=2,
            first_k_dense_replace=0, moe_intermediate_size=33, norm_topk_prob=False,
            routed_scaling_factor=1.5, **text),
               {"norm_topk_prob": True, "/e_score": 0.0}),
    ]


def gpt2(dim, heads, vocab, **more):
    return GPT2Config(n_embd=dim, n_head=heads, vocab_size=vocab, bos_token_id=1, eos_token_id=2,
                      **{"n_layer": 2, "n_positions": 128, **more})


def grown(*arguments, **more):
    return yarn(*arguments, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3, **more)


def other_cases():
    """Other norms, activations and orders of the parts of a layer."""
    text = dict(pad_token_id=0)
    return [
        case("mistral3/yarn", Ministral3Config(
            **shape(64, 96, 4, 2, 128, layers=3, context=4096), head_dim=32, **text,
            rope_parameters=grown(16.0, 20, 1e5, beta_fast=4.0)),
             {"rope_parameters": {**grown(16.0, 20, 1e5, beta_fast=4.0),
                                  "llama_4_scaling_beta": 0.0}}, dtype=torch.bfloat16),
        case("mistral3/tied", Ministral3Config(
            **shape(75, 51, 5, 5, 131, context=4096), head_dim=18, **text,
            tie_word_embeddings=True, rope_parameters=grown(4.0, 64)),
             {"rope_parameters": {**rope(), "llama_4_scaling_beta": 0.3,
                                  "original_max_position_embeddings": 64}}),
        case("glm4/gqa", Glm4Config(**shape(64, 96, 4, 2, 128, layers=3), head_dim=32, **text),
             {"/norm": 1.0, "/k_proj.bias": 3.0,
              "rope_parameters": rope(partial_rotary_factor=0.25)}, dtype=torch.bfloat16,
             old_config="type"),
        case("glm4/tied", Glm4Config(**shape(72, 51, 4, 4, 131, eps=0.2), head_dim=24, **text,
                                     attention_bias=False, tie_word_embeddings=True,
                                     rope_parameters=rope(partial_rotary_factor=0.75)),
             {"rms_norm_eps": 0.1}),
        case("chatglm/mqa", GlmConfig(**shape(64, 96, 4, 1, 128, layers=3), head_dim=16, **text),
             {"/k_proj.bias": 3.0, "rope_parameters": rope(partial_rotary_factor=1.0)},
             dtype=torch.bfloat16, old_config="type"),
        case("chatglm/mha", GlmConfig(**shape(72, 51, 4, 4, 131), head_dim=18, **text,
                                      attention_bias=False,
                                      rope_parameters=rope(partial_rotary_factor=0.34)),
             {"rope_parameters": rope(partial_rotary_factor=0.5)}),
        case("gpt2/even", gpt2(64, 4, 128, n_layer=3),
             {"/wpe": 0.0, "/ln_.*bias": 0.0, "activation_function": "relu"}, dtype=torch.bfloat16),
        case("gpt2/inner", gpt2(72, 4, 131, n_inner=50, layer_norm_epsilon=0.3,
                                tie_word_embeddings=False),
             {"layer_norm_epsilon": 0.1, "/c_attn.bias": 0.0},
             other_llama="its files are made without n_inner"),
        case("command-r/gqa", CohereConfig(
            **normed(64, 96, 4, 2, 128, layers=3), logit_scale=0.3, **text), {"logit_scale": 1.0},
             dtype=torch.bfloat16),
        case("command-r/norms", CohereConfig(
            **normed(72, 51, 4, 4, 131), logit_scale=2.0, use_qk_norm=True, layer_norm_eps=0.2,
            **text, rope_parameters=rope(theta=5e4)), {"layer_norm_eps": 0.1, **QK_NORMS}),
        case("cohere2/gqa", Cohere2Config(
            **normed(64, 96, 4, 2, 128, layers=5), sliding_window=24, logit_scale=0.3, **text),
             {"sliding_window": 25, "logit_scale": 1.0,
              "layer_types": [SLIDING, FULL, SLIDING, SLIDING, SLIDING]}, dtype=torch.bfloat16),
        case("cohere2/layers", Cohere2Config(
            **normed(72, 51, 4, 4, 131, layers=3), sliding_window=17, logit_scale=2.0, **text,
            layer_types=[FULL, SLIDING, FULL], layer_norm_eps=0.2,
            rope_parameters=rope(theta=5e4)),
             {"layer_norm_eps": 0.1, "layer_types": [SLIDING, FULL, FULL]}),
        case("exaone4/llama3", Exaone4Config(
            **shape(64, 96, 4, 2, 128, layers=3), sliding_window=None, layer_types=[FULL] * 3,
            rope_parameters=llama3(32), **text), {"rope_parameters": rope(theta=5e5), **QK_NORMS},
             dtype=torch.bfloat16, old_config="rope_type"),
        case("exaone4/windows", Exaone4Config(
            **shape(24, 18, 4, 2, 131, layers=64), sliding_window=17, **text,
            tie_word_embeddings=True, rope_parameters=rope(theta=5e4)),
             {"sliding_window": 18, "layer_types": [SLIDING] * 64}, room=4.0),
        case("exaone4/layers", Exaone4Config(
            **shape(72, 51, 4, 4, 131, layers=3), sliding_window=20, **text,
            layer_types=[FULL, SLIDING, FULL]), {"layer_types": [SLIDING, FULL, FULL]},
             other_llama="it knows windows in models of 64 layers only"),
        case("stablelm/gqa", StableLmConfig(
            **normed(64, 96, 4, 2, 128, layers=3), use_qkv_bias=True, **text),
             {"/layernorm.bias": 0.0, "/k_proj.bias": 3.0,
              "rope_parameters": rope(partial_rotary_factor=0.5)}, dtype=torch.bfloat16,
             old_config="type"),
        case("stablelm/parallel", StableLmConfig(
            **normed(72, 51, 4, 2, 131), qk_layernorm=True, use_parallel_residual=True, **text,
            layer_norm_eps=0.2, rope_parameters=rope(partial_rotary_factor=0.34)),
             {"layer_norm_eps": 0.1, "/[qk]_layernorm": 1.0}),
        case("starcoder2/gqa", Starcoder2Config(**normed(64, 96, 4, 2, 128, layers=3), **text),
             {"/proj.bias": 0.0, "hidden_act": "relu", "/c_fc.bias": 0.0},
             dtype=torch.bfloat16),
        case("starcoder2/window", Starcoder2Config(
            **normed(72, 51, 4, 4, 131), norm_epsilon=0.2, sliding_window=20,
            tie_word_embeddings=False, rope_parameters=rope(theta=1e5), **text),
             {"norm_epsilon": 0.1, "sliding_window": 21},
             other_llama="it ignores the window of this family"),
    ]


CONV, LINEAR = "conv", "linear_attention"


def delta(key_heads, key_dim, value_heads, value_dim, kernel=4):
    return dict(linear_num_key_heads=key_heads, linear_key_head_dim=key_dim,
                linear_num_value_heads=value_heads, linear_value_head_dim=value_dim,
                linear_conv_kernel_dim=kernel)


def mamba(heads, head_dim, groups, state, kernel=4, **more):
    return dict(mamba_n_heads=heads, mamba_d_head=head_dim, mamba_n_groups=groups,
                mamba_d_state=state, mamba_d_conv=kernel, **more)


def stateful(heads, head_dim, groups, state, kernel=4):
    """The same in the words of another family."""
    return dict(mamba_num_heads=heads, mamba_head_dim=head_dim, n_groups=groups,
                ssm_state_size=state, conv_kernel=kernel)


def nemotron(dim, hidden, heads, kv_heads, vocab, layers, **more):
    """layers has a letter for each. A least time step that is of any size would be the reference's
    alone."""
    kinds = {"M": LINEAR, "*": FULL, "E": "moe", "-": "mlp"}
    return NemotronHConfig(
        hidden_size=dim, intermediate_size=hidden, num_attention_heads=heads, vocab_size=vocab,
        num_key_value_heads=kv_heads, layers_block_type=[kinds[letter] for letter in layers],
        max_position_embeddings=128, time_step_min=1e-9, bos_token_id=1, eos_token_id=2, **more)


def unfed(sizes):
    """The shape of a family of experts only."""
    return {key: value for key, value in sizes.items() if key != "intermediate_size"}


def recurrent_cases():
    """Layers that keep a state of the past, beside or instead of attention."""
    text = dict(pad_token_id=0)
    return [
        case("lfm2/gqa", Lfm2Config(
            **normed(64, 96, 4, 2, 128, layers=5), norm_eps=1e-5, block_auto_adjust_ff_dim=False,
            layer_types=[CONV, CONV, FULL, CONV, FULL]),
             {"/layernorm": 1.0, "/embedding_norm": 1.0, "rope_parameters": rope(theta=1e4)}),
        case("lfm2/adjusted", Lfm2Config(
            **normed(72, 90, 4, 4, 131, layers=3), norm_eps=0.1, conv_L_cache=5,
            block_multiple_of=16, block_ffn_dim_multiplier=1.3, layer_types=[FULL, CONV, FULL],
            tie_word_embeddings=False, rope_parameters=rope(theta=5e4)),
             {"norm_eps": 0.01}, dtype=torch.bfloat16),
        routed("lfm2moe/gqa", Lfm2MoeConfig(
            **normed(64, 96, 4, 2, 128, layers=4), norm_eps=1e-5, moe_intermediate_size=64,
            num_experts=8, num_experts_per_tok=3, num_dense_layers=1,
            layer_types=[CONV, FULL, CONV, FULL]),
               {"/expert_bias": 0.0, "norm_topk_prob": False}),
        routed("lfm2moe/mha", Lfm2MoeConfig(
            **normed(72, 90, 4, 4, 131, layers=3), norm_eps=0.1, moe_intermediate_size=33,
            num_experts=5, num_experts_per_tok=2, num_dense_layers=2, conv_L_cache=2,
            layer_types=[CONV, FULL, CONV], tie_word_embeddings=False),
               {"/expert_bias": 0.0, "norm_eps": 0.01}, dtype=torch.bfloat16),
        case("qwen35/tied", Qwen3_5TextConfig(
            **shape(64, 96, 4, 2, 128, layers=6), head_dim=32, **delta(2, 16, 4, 16), **text,
            layer_types=[LINEAR, LINEAR, FULL] * 2, tie_word_embeddings=True,
            rope_parameters=rope(theta=1e5, partial_rotary_factor=0.25, mrope_section=[2, 1, 1])),
             {"/A_log": -9.0, "/dt_bias": 0.0, "/linear_attn.norm": 1.0, "/conv1d": 0.3,
              **QK_NORMS, "rope_parameters": rope(theta=1e5, partial_rotary_factor=0.5)}),
        case("qwen35/fourths", Qwen3_5TextConfig(
            **shape(72, 51, 4, 1, 131, layers=4, eps=0.1), head_dim=18, **delta(3, 10, 9, 10, 2),
            **text, rope_parameters=rope(partial_rotary_factor=0.34, mrope_section=[1, 1, 1])),
             {"rms_norm_eps": 0.01, "/in_proj_b": 0.0, "/in_proj_a": 0.0}, dtype=torch.bfloat16,
             other_llama="it takes the epsilon of norms for queries and keys of a state, too"),
        routed("qwen35moe/gqa", Qwen3_5MoeTextConfig(
            **unfed(shape(64, 0, 4, 2, 128, layers=4)), head_dim=32, **delta(2, 16, 4, 16), **text,
            num_experts=6, num_experts_per_tok=2, moe_intermediate_size=64,
            shared_expert_intermediate_size=96, layer_types=[LINEAR, FULL, LINEAR, FULL],
            rope_parameters=rope(theta=1e5, partial_rotary_factor=0.25, mrope_section=[2, 1, 1])),
               {"/shared_expert_gate": 0.0, "/shared_expert.down": 0.0, "num_experts_per_tok": 3,
                "/dt_bias": 0.0}),
        routed("qwen35moe/tied", Qwen3_5MoeTextConfig(
            **unfed(shape(72, 0, 4, 1, 131, layers=3)), head_dim=18, **delta(2, 12, 2, 12, 3),
            **text, num_experts=9, num_experts_per_tok=3, moe_intermediate_size=25,
            shared_expert_intermediate_size=41, layer_types=[FULL, LINEAR, LINEAR],
            rope_parameters=rope(partial_rotary_factor=0.34, mrope_section=[1, 1, 1])),
               {"/shared_expert_gate": 0.0, "/A_log": -9.0}, dtype=torch.bfloat16),
        case("granitehybrid/dense", GraniteMoeHybridConfig(
            **shape(64, 96, 4, 2, 128, layers=4), layer_types=[LINEAR, LINEAR, FULL, LINEAR],
            **mamba(8, 16, 2, 8), num_local_experts=0, shared_intermediate_size=72,
            embedding_multiplier=1.5, logits_scaling=8.0, residual_multiplier=0.6,
            attention_multiplier=0.1),
             {"/A_log": -9.0, "/mamba.D": 0.0, "/dt_bias": 0.0, "/conv1d.bias": 0.0,
              "/mamba.norm": 1.0, "position_embedding_type": "rope", "residual_multiplier": 1.0,
              "attention_multiplier": 0.25}),
        routed("granitehybrid/experts", GraniteMoeHybridConfig(
            **shape(72, 41, 4, 4, 131, layers=3), layer_types=[FULL, LINEAR, FULL],
            **mamba(6, 24, 3, 5, 3), num_local_experts=7,
            num_experts_per_tok=3, shared_intermediate_size=25, tie_word_embeddings=True,
            embedding_multiplier=3.0, logits_scaling=0.5, residual_multiplier=0.7,
            attention_multiplier=0.3, position_embedding_type="rope"),
               {"/shared_mlp.output": 0.0, "position_embedding_type": None, "/mamba.D": 0.0},
               dtype=torch.bfloat16),
        case("granite/hybrid", GraniteMoeHybridConfig(
            **shape(64, 96, 4, 2, 128), layer_types=[FULL, FULL], **mamba(8, 16, 2, 8),
            num_local_experts=0, shared_intermediate_size=72, embedding_multiplier=6.0,
            logits_scaling=8.0, residual_multiplier=0.4, attention_multiplier=0.1,
            position_embedding_type="rope"), {"attention_multiplier": 0.25}),
        case("nemotron_h/dense", nemotron(
            64, 96, 4, 2, 128, "M-M*-", **stateful(8, 16, 2, 8), head_dim=16),
             {"/A_log": -9.0, "/mixer.D": 0.0, "/dt_bias": 0.0, "/mixer.up": 0.0,
              "/mixer.v_proj": 0.0}),
        routed("nemotron_h_moe/shared", nemotron(
            72, 51, 4, 1, 131, "ME*EM", **stateful(6, 10, 3, 5, 3), head_dim=22,
            n_routed_experts=7, num_experts_per_tok=3, moe_intermediate_size=25, moe_latent_size=37,
            moe_shared_expert_intermediate_size=41, routed_scaling_factor=2.5,
            layer_norm_epsilon=0.1, tie_word_embeddings=True),
               {"routed_scaling_factor": 1.0, "/e_score": 0.0, "/latent": 0.0,
                "norm_topk_prob": False, "/shared_experts.down": 0.0, "layer_norm_epsilon": 0.01},
               dtype=torch.bfloat16),
        routed("nemotron_h_moe/all", nemotron(
            64, 96, 4, 2, 128, "ME*-", **stateful(8, 16, 2, 8), head_dim=32, n_routed_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=64, norm_topk_prob=False,
            use_conv_bias=False, moe_shared_expert_intermediate_size=96),
               {"/e_score": 0.0, "norm_topk_prob": True},
               other_llama="its layers without a mixer all have experts or none have"),
        case("falcon-h1/plain", FalconH1Config(
            **shape(64, 96, 4, 2, 128, layers=3), mamba_d_ssm=96, **mamba(6, 16, 2, 8),
            key_multiplier=0.7, attention_in_multiplier=1.2, attention_out_multiplier=0.8,
            ssm_in_multiplier=1.3, ssm_out_multiplier=0.6, embedding_multiplier=0.9,
            lm_head_multiplier=0.5, mlp_multipliers=[1.4, 0.7],
            ssm_multipliers=[0.8, 1.2, 0.7, 1.3, 0.9], **text),
             {"key_multiplier": 1.0, "attention_in_multiplier": 1.0, "ssm_in_multiplier": 1.0,
              "lm_head_multiplier": 1.0, "mlp_multipliers": [1.0, 0.7], "/mamba.D": 0.0,
              "attention_out_multiplier": 1.0, "ssm_out_multiplier": 1.0,
              "embedding_multiplier": 1.1}),
        case("falcon-h1/norm", FalconH1Config(
            **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22, mamba_d_ssm=60,
            **mamba(6, 10, 3, 5, 3), mamba_rms_norm=True,
            mamba_norm_before_gate=False, tie_word_embeddings=True, **text,
            rope_parameters=rope(theta=1e11)), {"rms_norm_eps": 0.01, "/mamba.norm": 1.0},
             dtype=torch.bfloat16),
        case("mamba2/groups", Mamba2Config(
            hidden_size=64, num_heads=8, head_dim=16, n_groups=2, state_size=8, vocab_size=128,
            num_hidden_layers=3, bos_token_id=1, eos_token_id=2),
             {"/A_log": -9.0, "/mixer.D": 0.0, "/dt_bias": 0.0, "/mixer.norm": 1.0}),
        case("mamba2/tied", Mamba2Config(
            hidden_size=72, num_heads=6, head_dim=24, n_groups=1, state_size=5, vocab_size=131,
            num_hidden_layers=2, conv_kernel=3, layer_norm_epsilon=0.1, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=2), {"layer_norm_epsilon": 0.01, "/conv1d.bias": 0.0},
             dtype=torch.bfloat16),
    ]


def seeing(kind, text, **more):
    """A model of images and text where the text has no class of its own."""
    eyes = dict(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_heads=2,
                num_hidden_layers=1, depth=1)
    return kind(text_config=text, vision_config={**eyes, **more.pop("eyes")}, **more)


def qwen3vl(kind, **text):
    return seeing(kind, text, eyes=dict(out_hidden_size=text["hidden_size"],
                                        deepstack_visual_indexes=[0]))


def muse(**text):
    return seeing(MuseGlimmerConfig, text, projector_hidden_size=16, out_hidden_size=128,
                  eyes=dict(layer_types=[FULL]))


def late_cases():
    """Families of 2025 and 2026 that differ little from others."""
    text = dict(pad_token_id=0)
    return [
        case("hunyuan-dense/dynamic", HunYuanDenseV1Config(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, **text, rope_parameters=rope(
                "dynamic", alpha=50.0, factor=1.0)),
             {"/(query|key)_layernorm": 1.0, "rope_parameters": rope()}, dtype=torch.bfloat16),
        case("hunyuan-dense/tied", HunYuanDenseV1Config(
            **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22, **text, tie_word_embeddings=True,
            rope_parameters=rope(theta=5e4)), {"rms_norm_eps": 0.01}),
        case("ernie4_5/gqa", Ernie4_5Config(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, **text, tie_word_embeddings=False),
             {"rope_parameters": rope(theta=1e4)}, dtype=torch.bfloat16),
        case("ernie4_5/tied", Ernie4_5Config(
            **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22, **text,
            rope_parameters=rope(theta=5e4)), {"rms_norm_eps": 0.01}),
        routed("ernie4_5-moe/lead", Ernie4_5_MoeConfig(
            **shape(64, 96, 4, 2, 128, layers=4), **text, moe_num_experts=6, moe_k=2,
            moe_intermediate_size=64, moe_layer_start_index=1, moe_layer_end_index=3),
               {"/e_score": 0.0, "/shared_experts.down": 0.0}, dtype=torch.bfloat16),
        routed("ernie4_5-moe/every", Ernie4_5_MoeConfig(
            **shape(72, 51, 4, 4, 131, layers=4), **text, moe_num_experts=9, moe_k=3,
            moe_intermediate_size=25, moe_num_shared_experts=1, moe_layer_start_index=1,
            moe_layer_end_index=3, moe_layer_interval=2, tie_word_embeddings=False),
               {"/e_score": 0.0}, types=("f32",), steady_lead=0.0,
               other_llama="it expects experts in all layers but the first"),
        case("arcee/yarn", ArceeConfig(
            **shape(64, 96, 4, 2, 128, layers=3, context=4096), head_dim=32,
            rope_parameters=yarn(4.0, 1024)), {"hidden_act": "silu", "rope_parameters": rope()},
             dtype=torch.bfloat16),
        case("arcee/tied", ArceeConfig(**shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22,
                                       tie_word_embeddings=True), {"rms_norm_eps": 0.01},
             old_config="type"),
        case("qwen3vl/text", qwen3vl(
            Qwen3VLConfig, **shape(64, 96, 4, 2, 128, layers=3), head_dim=32,
            rope_parameters=rope(theta=1e6, mrope_section=[6, 5, 5])), QK_NORMS,
             dtype=torch.bfloat16),
        case("qwen3vl/mha", qwen3vl(
            Qwen3VLConfig, **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22,
            rope_parameters=rope(theta=1e5, mrope_section=[4, 4, 3])), {"rms_norm_eps": 0.01}),
        routed("qwen3vlmoe/text", qwen3vl(
            Qwen3VLMoeConfig, **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, num_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=48,
            rope_parameters=rope(theta=1e6, mrope_section=[6, 5, 5])),
               {"num_experts_per_tok": 3}, dtype=torch.bfloat16),
        routed("qwen3vlmoe/mha", qwen3vl(
            Qwen3VLMoeConfig, **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22, num_experts=9,
            num_experts_per_tok=3, moe_intermediate_size=25,
            rope_parameters=rope(theta=1e5, mrope_section=[4, 4, 3])), {"rms_norm_eps": 0.01}),
        case("muse-glimmer/gqa", muse(
            **shape(64, 96, 4, 2, 128, layers=4), head_dim=16, sliding_window=24, **text,
            rope_parameters=rope(theta=5e5)),
             {"sliding_window": 25, "qk_scale_factor": 1.0, "output_multiplier": 0.4,
              "final_logit_softcapping": 2.0, "/gate_proj": 0.0}, dtype=torch.bfloat16, room=2.0),
        case("muse-glimmer/layers", muse(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=22, sliding_window=17,
            layer_types=[FULL, SLIDING, FULL], layer_rope_theta=[0, 1e4, 0], output_multiplier=0.4,
            final_logit_softcapping=3.0, qk_scale_factor=2.0, **text),
             {"rms_norm_eps": 0.01, "post_norm_eps": 0.1}),
        routed("laguna/heads", LagunaConfig(
            **shape(64, 96, 4, 2, 128, layers=5, context=4096), head_dim=32, num_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=64, shared_expert_intermediate_size=96,
            sliding_window=24, layer_types=[FULL, SLIDING, SLIDING, SLIDING, FULL],
            num_attention_heads_per_layer=[4, 6, 6, 6, 4], moe_routed_scaling_factor=2.5,
            rope_parameters=layered(yarn(8.0, 512, 5e5, partial_rotary_factor=0.5), theta=1e4)),
               {"sliding_window": 25, "moe_routed_scaling_factor": 1.0, "/g_proj": 0.0,
                "/e_score": 0.0, **QK_NORMS}, dtype=torch.bfloat16),
        routed("laguna/elements", LagunaConfig(
            **shape(72, 51, 4, 1, 131, layers=3), head_dim=20, num_experts=9, gating="per-element",
            num_experts_per_tok=3, moe_intermediate_size=25, shared_expert_intermediate_size=41,
            sliding_window=17, layer_types=[FULL, SLIDING, FULL], tie_word_embeddings=True,
            mlp_layer_types=["dense", "dense", "sparse"],
            rope_parameters=layered(rope(theta=1e5), theta=5e3, partial_rotary_factor=0.5)),
               {"/g_proj": 0.0, "/shared_expert.*down": 0.0}),
        routed("afmoe/gqa", AfmoeConfig(
            **shape(64, 96, 4, 2, 128, layers=4), head_dim=32, num_experts=6, num_dense_layers=1,
            num_experts_per_tok=2, moe_intermediate_size=64, num_shared_experts=2,
            sliding_window=24, mup_enabled=True, route_scale=2.5),
               {"sliding_window": 25, "/gate_proj": 0.0, "/expert_bias": 0.0, **QK_NORMS},
               dtype=torch.bfloat16),
        routed("afmoe/layers", AfmoeConfig(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=22, num_experts=9,
            num_experts_per_tok=3, moe_intermediate_size=25, num_shared_experts=1,
            num_dense_layers=2, sliding_window=17, layer_types=[FULL, SLIDING, FULL],
            mup_enabled=True, tie_word_embeddings=True),
               {"rms_norm_eps": 0.01, "/shared_experts.down": 0.0},
               other_llama="it rotates in three of four layers, whichever have a window"),
        case("apertus/llama3", ApertusConfig(
            **shape(64, 96, 4, 2, 128, layers=3), **text, rope_parameters=llama3(32)),
             {"/alpha_n": 0.9, "/alpha_p": 0.9, **QK_NORMS, "rope_parameters": rope(theta=5e5)},
             dtype=torch.bfloat16),
        case("apertus/tied", ApertusConfig(
            **shape(72, 51, 4, 4, 131, eps=0.1), **text, tie_word_embeddings=True,
            rope_parameters=rope()), {"rms_norm_eps": 0.01},
             other_llama="it expects an output"),
        routed("glm4moe/norms", Glm4MoeConfig(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, n_routed_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=64, use_qk_norm=True,
            attention_bias=True, routed_scaling_factor=2.5, num_nextn_predict_layers=0),
               {"/e_score": 0.0, "/k_proj.bias": 3.0, **QK_NORMS, "routed_scaling_factor": 1.0},
               dtype=torch.bfloat16),
        routed("glm4moe/plain", Glm4MoeConfig(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=24, n_routed_experts=9,
            num_experts_per_tok=3, moe_intermediate_size=25, n_shared_experts=2,
            first_k_dense_replace=2, norm_topk_prob=False, tie_word_embeddings=True,
            num_nextn_predict_layers=0), {"rms_norm_eps": 0.01, "norm_topk_prob": True}),
        routed("dots1/norm", Dots1Config(
            **shape(64, 96, 4, 4, 128, layers=3), head_dim=32, n_routed_experts=6,
            n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=64,
            first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5),
               {"/e_score": 0.0, **QK_NORMS, "norm_topk_prob": False}, dtype=torch.bfloat16),
        routed("dots1/tied", Dots1Config(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=22, n_routed_experts=9,
            n_shared_experts=2, num_experts_per_tok=3, moe_intermediate_size=25,
            first_k_dense_replace=2, tie_word_embeddings=True), {"rms_norm_eps": 0.01},
               other_llama="it expects as many key heads as heads, and an output"),
        case("seed_oss/biases", SeedOssConfig(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, **text),
             {"/k_proj.bias": 3.0}, dtype=torch.bfloat16),
        case("seed_oss/tied", SeedOssConfig(
            **shape(72, 51, 4, 4, 131, eps=0.1), head_dim=22, attention_bias=False, **text,
            tie_word_embeddings=True, rope_parameters=rope(theta=1e6)), {"rms_norm_eps": 0.01}),
        routed("mellum/yarn", MellumConfig(
            **shape(64, 96, 4, 2, 128, layers=4, context=4096), head_dim=32, num_local_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=64, sliding_window=24,
            layer_types=[SLIDING, SLIDING, SLIDING, FULL],
            rope_parameters=layered(yarn(8.0, 512, 5e5), theta=5e5)),
               {"sliding_window": 25, **QK_NORMS}, dtype=torch.bfloat16),
        routed("mellum/tied", MellumConfig(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=22, num_local_experts=9,
            num_experts_per_tok=3, moe_intermediate_size=25, sliding_window=17,
            layer_types=[FULL, SLIDING, FULL], tie_word_embeddings=True),
               {"rms_norm_eps": 0.01}, other_llama="it has one theta, and expects an output"),
        routed("hy_v3/gqa", HYV3Config(
            **shape(64, 96, 4, 2, 128, layers=3), head_dim=32, num_experts=6,
            num_experts_per_tok=2, moe_intermediate_size=64),
               {"/e_score": 0.0, **QK_NORMS, "router_scaling_factor": 1.0}, dtype=torch.bfloat16),
        routed("hy_v3/tied", HYV3Config(
            **shape(72, 51, 4, 1, 131, layers=3, eps=0.1), head_dim=22, num_experts=9,
            num_experts_per_tok=3, moe_intermediate_size=25, num_shared_experts=2,
            mlp_layer_types=["dense", "dense", "sparse"], tie_word_embeddings=True,
            router_scaling_factor=0.8), {"rms_norm_eps": 0.01}),
        routed("cohere2moe/softmax", Cohere2MoeConfig(
            **normed(64, 64, 4, 2, 128, layers=5), head_dim=32, num_experts=6,
            num_experts_per_tok=2, num_shared_experts=1, first_k_dense_replace=1,
            prefix_dense_intermediate_size=96, sliding_window=24, logit_scale=0.3, **text),
               {"sliding_window": 25, "logit_scale": 1.0, "/shared_experts.down": 0.0},
               dtype=torch.bfloat16),
        routed("cohere2moe/sigmoid", Cohere2MoeConfig(
            **normed(72, 25, 4, 1, 131, layers=3), rms_norm_eps=0.1, head_dim=22, num_experts=9,
            num_experts_per_tok=3, expert_selection_fn="sigmoid", norm_topk_prob=False,
            sliding_window=17, layer_types=[SLIDING, FULL, SLIDING], logit_scale=2.0, **text),
               {"rms_norm_eps": 0.01, "norm_topk_prob": True}),
    ]


def wide_cases():
    """Rows of whole superblocks, for the formats that have them."""
    text, more = dict(pad_token_id=0), dict(layers=2, context=128)
    even, plain = shape(256, 256, 4, 2, 128, **more), normed(256, 256, 4, 2, 128, **more)
    experts = dict(num_experts_per_tok=2, moe_intermediate_size=256)
    few, scales = dict(num_local_experts=4), dict(attention_multiplier=0.1, residual_multiplier=0.5)
    configs = {
        "llama": MixtralConfig(**even, **few), "qwen2": Qwen2Config(**even),
        "qwen2moe": Qwen2MoeConfig(**even, **experts, num_experts=4,
                                   shared_expert_intermediate_size=256),
        "qwen3": Qwen3Config(**even, head_dim=64),
        "qwen3moe": Qwen3MoeConfig(**even, **experts, head_dim=64, num_experts=4,
                                   norm_topk_prob=True),
        "gemma": GemmaConfig(**even, **text, head_dim=64),
        "gemma2": Gemma2Config(**even, **text, head_dim=64, query_pre_attn_scalar=64,
                               sliding_window=8),
        "gemma3": Gemma3TextConfig(**even, **text, head_dim=64, query_pre_attn_scalar=64,
                                   sliding_window=8),
        "phi3": Phi3Config(**even, **text), "olmo2": Olmo2Config(**even, **text),
        "olmoe": OlmoeConfig(**shape(256, 256, 4, 4, 128, **more), **text, num_experts=4,
                             num_experts_per_tok=2),
        "smollm3": SmolLM3Config(**even, **text), "granite": GraniteConfig(**even, **scales),
        "granitemoe": GraniteMoeSharedConfig(**even, **few, **scales, num_experts_per_tok=2,
                                             shared_intermediate_size=256),
        "gpt-oss": GptOssConfig(**even, **text, **few, head_dim=64, num_experts_per_tok=2,
                                rope_parameters=rope()),
        "deepseek2": DeepseekV3Config(
            **shape(256, 256, 4, 4, 128, eps=1e-6, **more), **latent(256, 256, 32, 16, 64), **text,
            **experts, n_group=2, topk_group=1, n_routed_experts=8, n_shared_experts=1,
            first_k_dense_replace=1),
        "mistral3": Ministral3Config(**even, **text, head_dim=64, rope_parameters=grown(2.0, 64)),
        "glm4": Glm4Config(**even, **text, head_dim=64),
        "chatglm": GlmConfig(**even, **text, head_dim=64), "gpt2": gpt2(256, 4, 128),
        "command-r": CohereConfig(**plain, **text),
        "cohere2": Cohere2Config(**plain, **text, sliding_window=8),
        "exaone4": Exaone4Config(**even, **text, sliding_window=None, layer_types=[FULL] * 2),
        "stablelm": StableLmConfig(**plain, **text),
        "starcoder2": Starcoder2Config(**plain, **text),
        "lfm2": Lfm2Config(**plain, norm_eps=1e-5, block_auto_adjust_ff_dim=False,
                           layer_types=[CONV, FULL]),
        "qwen35": Qwen3_5TextConfig(**even, **text, head_dim=64, **delta(2, 64, 4, 64),
                                    layer_types=[LINEAR, FULL], rope_parameters=rope(
                                        partial_rotary_factor=0.5, mrope_section=[6, 5, 5])),
        "gemma4": Gemma4TextConfig(
            **even, **text, head_dim=64, global_head_dim=128, sliding_window=8,
            layer_types=[SLIDING, FULL], hidden_size_per_layer_input=256,
            vocab_size_per_layer_input=128, final_logit_softcapping=4.0),
        "granitehybrid": GraniteMoeHybridConfig(
            **even, **scales, **few, **mamba(8, 64, 2, 64), num_experts_per_tok=2,
            shared_intermediate_size=256, layer_types=[LINEAR, FULL]),
        "nemotron_h_moe": nemotron(256, 256, 4, 2, 128, "ME*", **stateful(8, 64, 2, 64),
                                   head_dim=64, n_routed_experts=2, num_experts_per_tok=2,
                                   moe_intermediate_size=256,
                                   moe_shared_expert_intermediate_size=256),
        "falcon-h1": FalconH1Config(**even, **text, mamba_d_ssm=512, **mamba(8, 64, 2, 64))}
    return [routed(f"{family}/blocks", config, {}, positions=12, steady_lead=0.2, family=family,
                   types=("q8_0", "q4_k_m")) for family, config in configs.items()]


def cases():
    return basic_cases() + dense_cases() + routed_cases() + other_cases() + recurrent_cases() \
        + late_cases() + wide_cases()


def wrapped_texts():
    """By the type of a model of images and text, the text's part and the type of the images'."""
    sizes = dict(**shape(32, 48, 4, 2, 128), head_dim=8, pad_token_id=0)
    return {"gemma3": (Gemma3TextConfig(**sizes), "siglip_vision_model"),
            "mistral3": (Ministral3Config(**sizes, tie_word_embeddings=True,
                                          rope_parameters=grown(4.0, 64)), "pixtral")}


def golden(name, config, **more):
    return Case(name, config, positions=48, dtype=torch.float16, paper=False,
                **{"family": name, **more})


def golden_cases():
    """Stored as float16 and float16 to begin with, so that run.c has the very same weights."""
    small, text = shape(32, 24, 4, 2, 64, layers=2, context=128), dict(pad_token_id=0)
    tiny, plain = shape(24, 16, 2, 1, 64, context=128), normed(24, 16, 2, 1, 64, context=128)
    return [
        Case("llama", LlamaConfig(**shape(48, 40, 4, 2, 96, context=512, head_dim=16),
                                  rope_parameters=llama3(64, 10000.0)),
             positions=48, dtype=torch.float16, notice=["kv heads", "scaling"]),
        Case("qwen2", Qwen2Config(**shape(48, 40, 4, 2, 96, context=64), head_dim=16,
                                  tie_word_embeddings=True,
                                  rope_parameters=rope("yarn", factor=4.0,
                                                       original_max_position_embeddings=16)),
             positions=48, dtype=torch.float16, notice=["kv heads", "scaling", "biases"]),
        golden("qwen3", Qwen3Config(**small, head_dim=10, tie_word_embeddings=True)),
        golden("gemma", GemmaConfig(**small, head_dim=10, **text)),
        golden("gemma2", Gemma2Config(
            **small, head_dim=10, query_pre_attn_scalar=10, sliding_window=12,
            attn_logit_softcapping=2.0, final_logit_softcapping=3.0, **text)),
        golden("gemma3", Gemma3TextConfig(
            **shape(24, 16, 2, 1, 64, layers=6, context=128), head_dim=8, query_pre_attn_scalar=12,
            sliding_window=12, **text,
            rope_parameters=layered(rope("linear", 1e6, factor=8.0)))),
        golden("phi3", Phi3Config(**small, **text, original_max_position_embeddings=32,
                                  rope_parameters=longrope(6, 32, partial_rotary_factor=0.75))),
        golden("olmo2", Olmo3Config(
            **shape(24, 16, 2, 1, 64, layers=3, context=128), sliding_window=12, **text,
            layer_types=[SLIDING, FULL, SLIDING],
            rope_parameters=layered(yarn(8.0, 16), theta=10000.0))),
        golden("smollm3", SmolLM3Config(**shape(24, 16, 2, 1, 64, layers=4, context=128), **text)),
        golden("granite", GraniteConfig(
            **small, embedding_multiplier=6.0, logits_scaling=8.0, residual_multiplier=0.4,
            attention_multiplier=0.1, tie_word_embeddings=True)),
        golden("mixtral", MixtralConfig(**tiny, num_local_experts=4, num_experts_per_tok=2)),
        golden("qwen2moe", Qwen2MoeConfig(
            **tiny, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=14,
            shared_expert_intermediate_size=18)),
        golden("qwen3moe", Qwen3MoeConfig(
            **tiny, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=14, head_dim=10,
            norm_topk_prob=True)),
        golden("olmoe", OlmoeConfig(**tiny, **text, num_experts=5, num_experts_per_tok=2)),
        golden("granitemoe", GraniteMoeSharedConfig(
            **tiny, num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=18,
            embedding_multiplier=2.0, logits_scaling=3.0, residual_multiplier=0.6,
            attention_multiplier=0.2)),
        golden("gpt-oss", GptOssConfig(
            **tiny, **text, head_dim=12, num_local_experts=4, num_experts_per_tok=2,
            sliding_window=12, rope_parameters=yarn(8.0, 16, 1000.0, truncate=False))),
        golden("deepseek2", DeepseekV3Config(
            **shape(24, 16, 2, 2, 64, context=128, eps=1e-6), **latent(14, 12, 8, 6, 10), **text,
            n_group=4, topk_group=2, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
            first_k_dense_replace=1, moe_intermediate_size=10, norm_topk_prob=True,
            rope_parameters=yarn(4.0, 32, mscale=1.0, mscale_all_dim=1.0))),
        golden("deepseek2-lite", DeepseekV2Config(
            **shape(24, 16, 2, 2, 64, context=128, eps=1e-6), **latent(None, 12, 8, 6, 10),
            n_group=4, topk_group=2, topk_method="group_limited_greedy", n_routed_experts=8,
            num_experts_per_tok=2, n_shared_experts=2, first_k_dense_replace=0,
            moe_intermediate_size=6, routed_scaling_factor=1.5), family="deepseek2"),
        golden("mistral3", Ministral3Config(
            **small, head_dim=10, **text, rope_parameters=grown(4.0, 16, beta_fast=4.0))),
        golden("glm4", Glm4Config(**small, head_dim=12, **text)),
        golden("chatglm", GlmConfig(**small, head_dim=12, **text)),
        golden("gpt2", gpt2(24, 2, 64, n_positions=64)),
        golden("command-r", CohereConfig(
            **normed(24, 16, 2, 1, 64, context=128), use_qk_norm=True, logit_scale=0.3, **text)),
        golden("cohere2", Cohere2Config(
            **normed(24, 16, 2, 1, 64, layers=5, context=128), sliding_window=12, logit_scale=0.3,
            **text)),
        golden("exaone4", Exaone4Config(
            **shape(24, 16, 2, 1, 64, layers=3, context=128), sliding_window=12, **text,
            layer_types=[SLIDING, FULL, SLIDING])),
        golden("stablelm", StableLmConfig(
            **plain, use_qkv_bias=True, **text, rope_parameters=rope(partial_rotary_factor=0.5))),
        golden("stablelm-parallel", StableLmConfig(
            **plain, qk_layernorm=True, use_parallel_residual=True, **text,
            rope_parameters=rope(partial_rotary_factor=0.5)), family="stablelm"),
        golden("starcoder2", Starcoder2Config(**plain, **text)),
        golden("lfm2", Lfm2Config(
            **normed(24, 16, 2, 1, 64, layers=3, context=128), norm_eps=1e-5,
            block_auto_adjust_ff_dim=False, layer_types=[CONV, FULL, CONV])),
        golden("lfm2moe", Lfm2MoeConfig(
            **normed(24, 16, 2, 1, 64, layers=3, context=128), norm_eps=1e-5,
            moe_intermediate_size=14, num_experts=4, num_experts_per_tok=2, num_dense_layers=1,
            layer_types=[CONV, FULL, CONV])),
        golden("qwen35", Qwen3_5TextConfig(
            **shape(24, 16, 2, 1, 64, layers=3, context=128), head_dim=12, **delta(2, 8, 4, 8),
            **text, layer_types=[LINEAR, FULL, LINEAR], tie_word_embeddings=True,
            rope_parameters=rope(partial_rotary_factor=0.5, mrope_section=[1, 1, 1])), room=2.0),
        golden("qwen35moe", Qwen3_5MoeTextConfig(
            **unfed(tiny), head_dim=12, **delta(1, 8, 2, 8), **text, num_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=14, shared_expert_intermediate_size=18,
            layer_types=[LINEAR, FULL],
            rope_parameters=rope(partial_rotary_factor=0.5, mrope_section=[1, 1, 1]))),
        golden("gemma4", Gemma4TextConfig(
            **shape(24, 16, 2, 1, 64, layers=6, context=128), head_dim=8, global_head_dim=16,
            sliding_window=12, layer_types=[SLIDING, SLIDING, FULL] * 2, num_kv_shared_layers=3,
            use_double_wide_mlp=True, hidden_size_per_layer_input=8, **text,
            vocab_size_per_layer_input=64, final_logit_softcapping=4.0), room=2.0),
        golden("gemma4-experts", Gemma4TextConfig(
            **shape(24, 16, 2, 2, 64, layers=3, context=128), head_dim=8, global_head_dim=12,
            sliding_window=12, layer_types=[SLIDING, SLIDING, FULL], attention_k_eq_v=True,
            num_global_key_value_heads=1, enable_moe_block=True, num_experts=4, top_k_experts=2,
            moe_intermediate_size=14, hidden_size_per_layer_input=0, **text), family="gemma4"),
        golden("granitehybrid", GraniteMoeHybridConfig(
            **shape(24, 16, 2, 1, 64, layers=3, context=128), layer_types=[LINEAR, FULL, LINEAR],
            **mamba(6, 8, 2, 5), num_local_experts=4, num_experts_per_tok=2,
            shared_intermediate_size=18, embedding_multiplier=2.0, logits_scaling=3.0,
            residual_multiplier=0.6, attention_multiplier=0.2)),
        golden("nemotron_h", nemotron(24, 16, 2, 1, 64, "M-*-", **stateful(6, 8, 2, 5),
                                      head_dim=10)),
        golden("nemotron_h_moe", nemotron(
            24, 16, 2, 1, 64, "ME*E", **stateful(6, 8, 2, 5), head_dim=10, n_routed_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=14, routed_scaling_factor=2.5,
            moe_shared_expert_intermediate_size=18)),
        golden("falcon-h1", FalconH1Config(
            # powers of two, which float16 takes as they are
            **tiny, mamba_d_ssm=40, **mamba(5, 8, 1, 6), key_multiplier=0.5,
            ssm_in_multiplier=2.0, lm_head_multiplier=0.5, mlp_multipliers=[2.0, 0.5],
            ssm_multipliers=[0.5, 2.0, 0.5, 2.0, 0.25], **text)),
        golden("mamba2", Mamba2Config(
            hidden_size=24, num_heads=6, head_dim=8, n_groups=2, state_size=5, vocab_size=64,
            num_hidden_layers=2, bos_token_id=1, eos_token_id=2)),
        golden("hunyuan-dense", HunYuanDenseV1Config(**tiny, head_dim=12, **text)),
        golden("ernie4_5", Ernie4_5Config(**tiny, head_dim=10, **text)),
        golden("ernie4_5-moe", Ernie4_5_MoeConfig(
            **tiny, **text, moe_num_experts=4, moe_k=2, moe_intermediate_size=14,
            moe_layer_start_index=1, moe_layer_end_index=1)),
        golden("arcee", ArceeConfig(**tiny, head_dim=10)),
        golden("qwen3vl", qwen3vl(Qwen3VLConfig, **tiny, head_dim=12, rope_parameters=rope(
            mrope_section=[2, 2, 2]))),
        golden("qwen3vlmoe", qwen3vl(
            Qwen3VLMoeConfig, **tiny, head_dim=12, num_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=14, rope_parameters=rope(mrope_section=[2, 2, 2]))),
        golden("muse-glimmer", muse(
            **shape(24, 16, 2, 1, 64, layers=4, context=128), head_dim=10, sliding_window=12,
            **text, output_multiplier=0.4)),
        golden("laguna", LagunaConfig(
            **shape(24, 16, 2, 1, 64, layers=3, context=128), head_dim=12, num_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=14, shared_expert_intermediate_size=18,
            sliding_window=12, layer_types=[FULL, SLIDING, FULL],
            num_attention_heads_per_layer=[2, 3, 2], moe_routed_scaling_factor=2.5,
            rope_parameters=layered(yarn(8.0, 16, 5e5, partial_rotary_factor=0.5), theta=1e4))),
        golden("afmoe", AfmoeConfig(
            **shape(24, 16, 2, 1, 64, layers=4, context=128), head_dim=10, num_experts=4,
            num_dense_layers=2, num_experts_per_tok=2, moe_intermediate_size=14,
            num_shared_experts=1, sliding_window=12, mup_enabled=True, route_scale=2.5)),
        golden("apertus", ApertusConfig(**tiny, **text, rope_parameters=llama3(16, 10000.0))),
        golden("glm4moe", Glm4MoeConfig(
            **tiny, head_dim=12, n_routed_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=14, use_qk_norm=True, attention_bias=True,
            routed_scaling_factor=2.5, num_nextn_predict_layers=0)),
        golden("dots1", Dots1Config(
            **tiny, head_dim=10, n_routed_experts=4, n_shared_experts=1, num_experts_per_tok=2,
            moe_intermediate_size=14, first_k_dense_replace=1, norm_topk_prob=True,
            routed_scaling_factor=2.5)),
        golden("seed_oss", SeedOssConfig(**tiny, head_dim=10, **text)),
        golden("mellum", MellumConfig(
            **tiny, head_dim=10, num_local_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=14, sliding_window=12, layer_types=[SLIDING, FULL],
            rope_parameters=layered(yarn(8.0, 16, 5e5), theta=1e4))),
        golden("hy_v3", HYV3Config(**tiny, head_dim=10, num_experts=4, num_experts_per_tok=2,
                                   moe_intermediate_size=14)),
        golden("cohere2moe", Cohere2MoeConfig(
            **normed(24, 14, 2, 1, 64, layers=4, context=128), head_dim=10, num_experts=4,
            num_experts_per_tok=2, num_shared_experts=1, first_k_dense_replace=1,
            prefix_dense_intermediate_size=16, sliding_window=12, logit_scale=0.3, **text)),
    ]
