"""The settings of other trainers by their names: which of ours each is, or why there is none.

Owns this table: TRL, PEFT, LLaMA-Factory, Axolotl and ms-swift in one, for what is spelled alike means the same. It
knows no configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiebreak.config.foreign import values as v
from tiebreak.config.foreign.values import Value


@dataclass(frozen=True)
class Name:
    """What one or several names of theirs are here."""

    theirs: tuple[str, ...]
    """A name that ends in `*` is all names that begin so."""
    ours: str | None
    """Dotted key, or None where there is none."""
    why: str
    """How ours differs, or why there is none: a clause."""
    value: Value

    @property
    def answer(self) -> str:
        """What to tell somebody who wrote such a name: a sentence without its full stop."""
        if self.ours is None:
            return f"There is no such setting: {self.why}"
        return f"Here it is '{self.ours}'" + (f": {self.why}" if self.why else "")


def _is(ours: str, theirs: str, value: Value = v.same, why: str = "") -> Name:
    return Name(tuple(theirs.split()), ours, why, value)


def _none(why: str, theirs: str) -> Name:
    return Name(tuple(theirs.split()), None, why, v.same)


_BATCH = "all pairs of an optimizer step; micro-batches follow from memory (training.token_budget)"
_ONE_LENGTH = "prompt and completion have one limit together"
_WHERE = "files, folders, patterns, or hf:OWNER/NAME:CONFIG@SPLIT for a data set of the Hub"

# Of several names for one setting, the first that has a value is taken.
_MODEL = (
    _is("model.name", "adapter_name_or_path lora_model_dir peft_model_id adapters adapter_path", v.one_text,
        "the folder of an adapter is named like a model, and trained on"),
    _is("model.name", "model_name_or_path base_model model_name model_id model_path "
          "pretrained_model_name_or_path base_model_name_or_path "
        "model", v.text),
    _is("model.revision", "model_revision revision_of_model revision", v.text),
    _is("model.dtype", "torch_dtype dtype", v.dtype),
    _is("model.dtype", "bf16 bfloat16 mixed_precision", v.bf16),
    _is("model.device", "use_cpu no_cuda", v.cpu),
    _is("model.chat_template", "chat_template_path chat_template_file", v.text),
    _none("code of a model is never run", "trust_remote_code remote_code remote_functions custom_register_path"),
    _none("float16 overflows; model.dtype takes bfloat16 or float32", "fp16 float16 half fp16_full_eval pure_bf16 "
          "bf16_full_eval tf32"),
    _is("quantization.kind", "bnb_4bit_quant_type quantization_type", v.four_bits, "nf4 or fp4"),
    _is("quantization.kind", "load_in_4bit quantization_bit quant_bits", v.nothing, "nf4 or fp4, by bitsandbytes"),
    _is("quantization.double", "bnb_4bit_use_double_quant use_bnb_nested_quant double_quantization", v.flag),
    _none("weights lie in four bits of bitsandbytes (quantization) or as they are, and compute in model.dtype",
          "load_in_8bit quantization_method quant_method quantization bnb_* gptq llm_int8_* upcast_* hqq_* "
          "load_in_16bit"),
    _none("the fastest exact attention is taken; model.layout: plain takes the padded path", "attn_implementation "
          "flash_attn flash_attention attn_impl attention_implementation use_flash_attention_2 use_flash_attn "
          "xformers_attention sdp_attention eager_attention flex_attention flash_attn_* s2_attention shift_attn"),
    _none("the model's own chat template is used; model.chat_template names a file for a model that has none",
          "template template_backend chat_template_jinja chat_template_type use_chat_template tool_format"),
    _none("write a system message into the rows", "default_system default_system_message system_prompt"),
    _none("the model's own tokenizer is used as it is", "tokenizer_* use_fast_tokenizer resize_vocab "
          "new_special_tokens "
          "add_tokens add_special_tokens special_tokens pad_token pad_token_id tokens model_type type_of_model "
          "is_llama_derived_model is_mistral_derived_model is_falcon_derived_model is_qwen_derived_model "
          "split_special_tokens skip_special_tokens"),
    _none("the model is taken as it is", "rope_scaling rope_* model_init_kwargs model_kwargs config_overrides "
          "overrides_of_model_config mixture_of_depths router_aux_loss_coef moe_aux_loss_coef use_cache device_map "
          "max_memory model_parallel low_cpu_mem_usage neftune_noise_alpha noisy_embedding_alpha"),
    _none("the Hub's own variables say it (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE)", "cache_dir hf_hub_token "
          "hf_use_auth_token "
          "token use_auth_token use_hf hub_token hf_mirror"),
    _none("nothing is uploaded", "push_to_hub hub_*"),
    _none("text alone is read", "image_* video_* vision_* audio_* freeze_vit freeze_aligner freeze_vision_tower "
          "freeze_multi_modal_projector processor_type max_pixels min_pixels"),
)  # fmt: skip
_DATA = (
    _is("data.train", "dataset_name dataset datasets train_dataset dataset_path data_path train_file train_files "
        "train_data training_data data_files train_data_path path", v.nothing, _WHERE),
    _is("data.train", "dataset_config dataset_config_name dataset_configs dataset_train_split dataset_split "
        "dataset_splits split subset subsets",
        v.nothing, _WHERE),
    _is("data.train", "dataset_dir", v.nothing, "a file is named itself"),
    _is("data.train", "interleave_probs mix_strategy dataset_mixer dataset_mixture dataset_mix", v.nothing,
        "a list of sources, each with its weight"),
    _is("data.heldout", "eval_dataset val_dataset test_datasets validation_dataset eval_file validation_file "
        "val_data", v.nothing, "a file of held-out pairs"),
    _is("data.heldout", "dataset_test_split eval_split test_split", v.nothing, _WHERE),
    _is("data.heldout_share", "val_size val_set_size split_dataset_ratio eval_split_ratio test_size test_split_size "
        "validation_split eval_size", v.heldout_share, "a share of the prompts, chosen by hash"),
    _is("data.max_pairs", "max_samples max_train_samples train_dataset_sample num_train_samples", v.whole_or_all),
    _is("data.max_length", "cutoff_len sequence_len max_seq_length max_seq_len model_max_length seq_length "
        "sequence_length max_length", v.whole, "tokens of prompt and completion together"),
    _is("data.max_length", "max_prompt_length max_completion_length max_target_length max_source_length "
        "max_response_length max_prompt_len max_answer_length", v.nothing, _ONE_LENGTH),
    _is("data.truncation", "truncation_mode truncation_strategy excess_length_strategy truncation_side", v.truncation,
        "drop, or prompt_start for the oldest tokens of the prompt"),
    _is("training.shuffle", "disable_shuffling", v.turned),
    _is("training.shuffle", "dataset_shuffle train_dataloader_shuffle shuffle_merged_datasets", v.flag),
    _is("data.columns", "columns rename_column field_prompt field_messages field_chosen field_rejected field_system",
        v.nothing,
        "our names, each with a column: prompt, chosen, rejected, …"),
    _none("the form of the rows is told by their keys; data.columns names odd ones", "ranking formatting tags field_* "
          "message_property_mappings message_field_* ds_type label_names remove_unused_columns length_column_name"),
    _none("pairs are packed, each prompt once, wherever the model admits it", "packing sample_packing padding_free "
          "eval_sample_packing eval_packing neat_packing pad_to_sequence_len pad_to_multiple_of group_by_length "
          "packing_length sample_packing_* multipack_real_batches batch_flattening train_sampling_strategy"),
    _none("only the tokens of completions are scored", "train_on_inputs train_on_prompt mask_history loss_scale "
          "completion_only_loss assistant_only_loss roles_to_train train_on_eos efficient_eos"),
    _none("data is read as it is needed", "preprocessing_num_workers dataset_num_proc dataset_processes dataloader_* "
          "overwrite_cache streaming dataset_streaming dataset_prepared_path buffer_size preprocessing_batch_size "
          "load_from_cache_file lazy_tokenize tokenized_path dataset_keep_in_memory data_shared_file_system "
          "shuffle_buffer_size strict data_seed skip_prepare_dataset cached_dataset"),
)  # fmt: skip
_ADAPTER = (
    _is("adapter.kind", "finetuning_type train_type tuner_type peft_type adapter_type peft_method adapter use_peft "
        "use_lora", v.adapter, "lora, or none for all weights"),
    _is("adapter.kind", "lora lora_config peft peft_config", v.nothing,
        "the section has rank, alpha, dropout and target_modules, too"),
    _is("adapter.rank", "lora_r lora_rank r lora_dim", v.whole),
    _is("adapter.alpha", "lora_alpha", v.positive),
    _is("adapter.dropout", "lora_dropout", v.number),
    _is("adapter.target_modules", "lora_target_linear", v.all_linear, "all-linear"),
    _is("adapter.target_modules", "lora_target lora_target_modules target_modules lora_modules", v.modules,
        "a list of names, or all-linear"),
    _is("adapter.target_modules", "target_regex lora_target_regex", v.nothing, "a list of names, and no pattern"),
    _none("layers are chosen by name (adapter.target_modules)", "exclude_modules layers_to_transform layers_pattern "
          "peft_layers_to_transform peft_layers_pattern target_parameters lora_target_parameters lora_layers "
          "ignore_bias_buffers"),
    _none("an adapter is trained, or all weights", "modules_to_save lora_modules_to_save additional_target freeze_* "
          "unfrozen_parameters trainable_parameters trainable_token_indices galore_* use_galore lisa_* badam_* "
          "use_badam "
          "apollo_* use_apollo llamapro_* use_llama_pro reft_* adalora_* vera_* lora_on_cpu peft_autocast_*"),
    _is("adapter.rslora", "use_rslora peft_use_rslora", v.flag),
    _is("adapter.dora", "use_dora peft_use_dora", v.flag),
    _none("the adapter is LoRA, rsLoRA or DoRA, drawn as they are", "lora_bias bias "
          "init_weights "
          "init_lora_weights peft_init_lora_weights pissa_* use_qalora qalora_* loftq_* lora_ga_* eva_config "
          "corda_config rank_pattern alpha_pattern fan_in_fan_out lora_fan_in_fan_out loraplus_* lorap_* lora_plus_* "
          "lora_dtype layer_replication megatron_* velora_config use_bdlora kasa_config "
          "monteclora_config alora_* arrow_config runtime_config ensure_weight_tying peft_version "
          "lora_mlp_kernel lora_qkv_kernel lora_o_kernel"),
    _none("a language model is trained", "task_type lora_task_type inference_mode auto_mapping"),
    _none("export merges the adapter where that is wanted", "merge_lora create_new_adapter export_*"),
)  # fmt: skip
_LOSS = (
    _is("loss.name", "loss_type pref_loss rlhf_type rl dpo_loss_type dpo_loss method", v.objective),
    _is("loss.terms", "loss_weights", v.nothing, "a weight in each term, where several objectives are named"),
    _is("loss.terms", "pref_ftx rpo_alpha", v.beside, "a term {name: sft, weight: …} beside the objective"),
    _is("loss.beta", "pref_beta rl_beta dpo_beta beta", v.positive),
    _is("loss.label_smoothing", "dpo_label_smoothing label_smoothing", v.number, "the assumed share of flipped "
          "labels"),
    _is("loss.confidence_weights", "use_weighting dpo_use_weighting", v.weighting, "clamped or raw; TRL's are raw"),
    _is("loss.length_desensitised", "ld_alpha", v.number, "weight of tokens beyond the shorter completion's length"),
    _is("loss.divergence", "f_divergence_type", v.divergence, "js, forward_kl, alpha, chi_po; null is the reverse KL"),
    _is("loss.divergence_alpha", "f_alpha_divergence_coef", v.divergence_alpha, "1 less theirs, as in the paper"),
    _none("it is of cross-entropy; loss.label_smoothing is the assumed share of flipped labels",
          "label_smoothing_factor"),
    _none("what an objective reads is told by 'tiebreak losses'", "cpo_alpha simpo_gamma "
          "gamma gamma_beta_ratio "
          "discopop_tau "
          "rpo_* dpop_* "
          "dpo_norm_loss sft_alpha pref_bco_weight nca_* center_rewards_coefficient orpo_alpha sppo_* "
          "simpo_* loss_kwargs dpo_positive_* orpo_beta"),
    _none("of KTO, which is loss: {name: kto} here", "desirable_weight undesirable_weight kto_*"),
    _none("the loss always compares with the reference", "reference_free"),
    _is("reference.model", "ref_adapters ref_adapter_name_or_path ref_model_adapters ref_adapter_load_path", v.one_text,
        "the folder of an adapter is named like a model"),
    _is("reference.model", "ref_model ref_model_name_or_path reference_model", v.text,
        "where it is not the model as it was at the start"),
    _none("the reference is the model as it was at the start, or the one that reference.model names", "ref_model_* "
          "ref_adapters_* model_adapter_name ref_adapter_name reference_adapter_name force_use_ref_model "
          "rl_adapter_ref_model"),
    _is("reference.moves.every", "sync_ref_model", v.nothing, "it moves where this is set"),
    _is("reference.moves.every", "ref_model_sync_steps", v.whole),
    _is("reference.moves.share", "ref_model_mixup_alpha", v.share_or_all),
    _is("reference.store", "precompute_ref_log_probs precompute_reference_log_probs", v.store,
        "what the reference says is kept on disk always"),
    _none("how many are computed at once follows from memory", "precompute_ref_batch_size"),
    _none("dropout of the base model is always off", "disable_dropout"),
    _is("evaluation.num_samples", "generate_during_eval", v.nothing, "prompts that are answered before and after"),
    _none("only the logits that are scored are computed", "use_logits_to_keep dpo_use_logits_to_keep use_liger_loss"),
)  # fmt: skip
_TRAINING = (
    _is("training.pairs_per_step", "per_device_train_batch_size micro_batch_size train_batch_size batch_size "
        "per_gpu_train_batch_size train_micro_batch_size_per_gpu", v.nothing, _BATCH),
    _is("training.pairs_per_step", "gradient_accumulation_steps gradient_accumulation grad_accum", v.nothing, _BATCH),
    _is("training.pairs_per_step", "global_batch_size total_train_batch_size total_batch_size", v.whole, _BATCH),
    _none("how many are computed at once follows from memory (training.token_budget)", "per_device_eval_batch_size "
          "eval_batch_size auto_find_batch_size eval_accumulation_steps"),
    _is("training.epochs", "num_train_epochs num_epochs max_epochs n_epochs epochs", v.passes,
        "whole passes, rounded up"),
    _is("training.epochs", "max_steps num_steps max_train_steps", v.nothing,
        "passes over the pairs; data.max_pairs takes fewer pairs"),
    _is("training.learning_rate", "lr learning_rate", v.positive),
    _is("training.warmup_share", "warmup_ratio", v.warmup, "the share of all steps"),
    _is("training.warmup_share", "warmup_steps num_warmup_steps", v.warmup, "the share of all steps, not their "
          "number"),
    _is("training.schedule", "lr_scheduler_type lr_scheduler scheduler scheduler_type", v.schedule,
        "linear, cosine or constant"),
    _none("a schedule falls to zero", "lr_scheduler_kwargs cosine_* lr_end min_lr lr_groups lr_quadratic_warmup"),
    _is("training.weight_decay", "weight_decay", v.number),
    _is("training.max_grad_norm", "max_grad_norm max_gradient_norm gradient_clipping grad_clip clip_grad_norm "
        "gradient_clip_val", v.positive),
    _none("the optimizer is AdamW, betas 0.9 and 0.999", "optim optimizer optim_* optimizer_* adam_* adamw_* "
          "embedding_lr embedding_lr_scale use_lion_* use_adam_*"),
    _is("training.gradient_checkpointing", "gradient_checkpointing activation_checkpointing "
        "use_gradient_checkpointing", v.checkpointing),
    _is("training.gradient_checkpointing", "disable_gradient_checkpointing", v.turned),
    _none("activations are computed twice where memory asks for it (training.gradient_checkpointing)",
          "gradient_checkpointing_kwargs activation_checkpointing_kwargs activation_offloading "
          "vit_gradient_checkpointing"),
    _is("training.checkpoint_steps", "save_steps", v.whole),
    _none("checkpoints come every training.checkpoint_steps, or ten a run", "save_strategy saves_per_epoch "
          "save_only_model save_safetensors save_on_each_node save_first_step save_total_steps save_checkpoint"),
    _is("training.keep_checkpoints", "save_total_limit", v.at_least_two),
    _is("training.seed", "seed", v.same),
    _none("every step is recorded", "logging_* log_* plot_loss include_num_input_tokens_seen "
          "include_tokens_per_second "
          "disable_tqdm report_* skip_memory_metrics show_progress"),
    _is("output.trackers", "report_to logger", v.trackers),
    _is("output.trackers", "use_wandb", v.tracker("wandb")),
    _is("output.trackers", "use_mlflow", v.tracker("mlflow")),
    _is("output.trackers", "use_tensorboard", v.tracker("tensorboard")),
    _none("output.trackers names the trackers; their own variables say the rest (WANDB_PROJECT)", "wandb_* mlflow_* "
          "comet_* swanlab_* trackio_* run_name project use_comet use_swanlab ray_* otel_*"),
    _is("output.dir", "output_dir", v.text),
    _none("a run is never overwritten", "overwrite_output_dir add_version"),
    _none("the same command goes on where it was", "resume_from_checkpoint auto_resume_from_checkpoints "
          "ignore_data_skip "
          "resume_only_model resume restore_callback_states_from_checkpoint enable_jit_checkpoint"),
    _is("evaluation.probes", "eval_steps eval_strategy evaluation_strategy evals_per_epoch eval_on_start eval_delay "
        "val_check_interval", v.nothing, "how often in a run, evenly spaced"),
    _is("stopping.patience", "early_stopping_patience", v.whole, "counted in held-out probes"),
    _none("a better checkpoint is kept by itself (stopping.artefact), and judged against the reference",
          "metric_for_best_model load_best_model_at_end "
          "greater_is_better early_stopping_* compute_accuracy predict_with_generate prediction_loss_only do_eval "
          "do_predict batch_eval_* eval_do_concat_batches eval_use_gather_object include_for_metrics eval_table_size "
          "do_bench_eval do_causal_lm_eval eval_max_new_tokens"),
    _none("a run is dpo on pairs", "stage do_train dpo"),
    _is("distributed.strategy", "deepspeed deepspeed_config deepspeed_config_file zero_optimization zero_stage fsdp "
        "fsdp_config fsdp_sharding_strategy distributed_type", v.nothing,
        "ddp (ZeRO stage 0, NO_SHARD), fsdp (stages 2 and 3, FULL_SHARD, SHARD_GRAD_OP), hsdp (HYBRID_SHARD), or auto"),
    _is("distributed.reshard_after_forward", "fsdp_reshard_after_forward", v.nothing,
        "true for ZeRO stage 3 and FULL_SHARD, false for stage 2 and SHARD_GRAD_OP"),
    _is("distributed.cpu_offload", "fsdp_offload_params fsdp_cpu_offload offload_optimizer offload_param "
        "offload_optimizer_device offload_param_device", v.nothing, "weights, gradients and moments go together"),
    _is("distributed.timeout_seconds", "ddp_timeout", v.timeout),
    _none("FSDP2 divides each decoder layer on its own", "fsdp_* zero_* deepspeed_*"),
    _none("the launcher says how many processes there are (torchrun --nproc-per-node, --nnodes)", "world_size "
          "num_processes nproc_per_node local_rank num_machines machine_rank main_process_ip main_process_port "
          "same_network rdzv_backend gpu_ids compute_environment main_training_function enable_cpu_affinity tpu_* "
          "dynamo_config dp_shard_size"),
    _none("processes divide weights, and nothing within a layer or a row", "tensor_parallel_* context_parallel_* "
          "sequence_parallel_* pipeline_parallel_* parallelism_config expert_*"),
    _none("results do not depend on the number of processes", "ddp_* accelerator_config average_tokens_across_devices "
          "split_batches full_determinism"),
    _none("the fast path is chosen and proven at every start", "torch_compile* enable_liger_kernel use_liger_kernel "
          "use_liger liger_* use_unsloth use_unsloth_gc use_kernels unsloth_* cut_cross_entropy jit_mode_eval "
          "torch_empty_cache_steps plugins gc_steps use_reentrant_gc enable_dft_loss"),
    _none("nothing is sampled while training", "vllm_* num_generations infer_backend num_beams top_p top_k "
          "temperature "
          "do_sample repetition_penalty"),
    _none("nothing here reads it", "wall_clock_breakdown steps_per_print zero_allow_untested_optimizer "
          "zero_force_ds_cpu_optimizer communication_data_type downcast_bf16 debug ddp_backend_* strict_mode "
          "accelerate_config ray "
          "include_inputs_for_metrics"),
)  # fmt: skip

NAMES: tuple[Name, ...] = (*_MODEL, *_DATA, *_ADAPTER, *_LOSS, *_TRAINING)


def _plain(key: str) -> str:
    return key.rsplit(".", 1)[-1].replace("-", "").replace("_", "").lower()


_EXACT = {_plain(one): name for name in reversed(NAMES) for one in name.theirs if not one.endswith("*")}
_BEGINNINGS = {_plain(one[:-1]): name for name in reversed(NAMES) for one in name.theirs if one.endswith("*")}


def name_of(key: str) -> Name | None:
    """Return the row of a name, however it is capitalised or joined; None for one that is not known."""
    plain = _plain(key)
    if plain in _EXACT:
        return _EXACT[plain]
    begun = [beginning for beginning in _BEGINNINGS if plain.startswith(beginning)]
    return _BEGINNINGS[max(begun, key=len)] if begun else None
