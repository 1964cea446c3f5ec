// For tests: a config in which every key has a value that isn't its default, so that one that is lost is seen.
#pragma once
#include "base/error.h"
#include "core/config.h"

namespace tessera {

inline Json full_json() {
  return Json::parse(R"({
    "name": "full",
    "model": {
      "trunk": {"vocab_size": 512, "width": 48, "num_layers": 3, "num_heads": 6, "num_kv_heads": 3, "head_dim": 10,
                "context_length": 64, "num_dense_layers": 1, "dense_width": 96, "rope_theta": 5000.0, "rope_divisors": [1.25, 1.5, 2.5, 4.5, 8.5],
                "norm_eps": 1e-6, "tied_embeddings": false, "previous_token": true},
      "hierarchy": {
        "domains": [
          {"name": "general", "num_components": 3, "always": true, "components": []},
          {"name": "code", "num_components": 2, "always": false, "components": ["loops", "names"]},
          {"name": "prose", "num_components": 1, "always": false, "components": []}],
        "num_active": 3, "num_banks": 2, "base": [1, 0, 1, 0, 1, 0], "base_width": 16, "unique_width": 8,
        "always_on_width": 4},
      "domain_router": {"kind": "encoder", "width": 32, "num_layers": 2, "num_heads": 2, "chunk_tokens": 32,
                        "window_tokens": 128, "patch_tokens": 4, "own_embedding": true, "margin": 0.25, "hysteresis": 0.05, "temperature": 1.5, "floor": 0.01},
      "component_router": {"kind": "trunk", "width": 64, "num_layers": 2, "num_heads": 8, "prior_weight": 0.5,
                           "max_groups": 1}},
    "data": {"path": "elsewhere", "mix": {"code": 0.75, "prose": 0.25}, "splice_share": 0.2, "repeat_share": 0.3},
    "train": {
      "seed": 18446744073709551615, "device": "cuda", "precision": "bf16", "num_threads": 3, "steps": 20,
      "batch_tokens": 256, "micro_batch_tokens": 128,
      "optimizer": {"kind": "muon", "lr": 0.01, "embedding_lr_scale": 2.5, "min_lr_share": 0.1, "schedule": "wsd", "warmup_steps": 5, "decay_share": 0.4,
                    "beta1": 0.8, "beta2": 0.99, "eps": 1e-7, "weight_decay": 0.2, "clip_norm": 2.0},
      "loss": {"domain_weight": 0.3, "z_loss": 0.002, "balance_rate": 0.004, "domain_dropout": 0.3},
      "eval_every": 7, "eval_bytes": 1000, "checkpoint_every": 9, "keep_checkpoints": 4, "log_every": 2},
    "router": {"init": "routers/one", "domains": ["prose"],
               "distil": {"steps": 30, "texts": 3, "lr": 0.003, "token_dropout": 0.25, "splice_share": 0.4,
                          "teacher_windows": 20, "teacher_epochs": 1, "teacher_weight": 0.5}}})");
}

// What config_from_json throws.
inline Error error_of(const Json& json) {
  try {
    config_from_json(json);
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode::kUsage, "no Error was thrown");
}

}  // namespace tessera
