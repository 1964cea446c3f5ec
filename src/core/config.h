// One file = one run. Plain nested structs with one visit() each, from which JSON, --help, overrides
// (--train.optimizer.lr=0.01), diff and hash come. An unknown key is an error that names the nearest known one.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"

namespace tessera {

struct DataConfig {
  std::string path = "data/small/built";  // a folder that `data build` wrote
  std::map<std::string, double> mix;      // weight by domain, in tokens; empty: in proportion to the data
  double splice_share = 0.1;              // share of tokens in spliced documents
  double repeat_share = 0;                // share of spliced documents in which a piece comes twice
};

struct OptimizerConfig {
  std::string kind = "adamw";       // "adamw", or "muon": Muon for the matrices inside the network, AdamW for the rest
  double lr = 3e-3;                 // peak learning rate
  double embedding_lr_scale = 1.0;  // of the embedding table and the head: their rows are learnt from few tokens each
  double min_lr_share = 0.05;       // the decay ends at lr * min_lr_share
  std::string schedule = "cosine";  // "cosine" or "wsd" (warm-up, stable, decay)
  int64_t warmup_steps = 50;
  double decay_share = 0.3;  // wsd: share of the steps that decays, linearly
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // decoupled; matrices only
  double clip_norm = 1.0;     // of the whole gradient; 0: no clipping
};

struct LossConfig {
  double domain_weight = 0.1;   // of level 1's cross-entropy
  double z_loss = 1e-3;         // of the component scores
  double balance_rate = 1e-2;   // step of the selection bias; at a third of it components die (docs/LOG.md)
  double domain_dropout = 0.1;  // share of documents whose pi is replaced by the uniform distribution
};

struct TrainConfig {
  uint64_t seed = 1;
  std::string device = "cpu";     // "cpu" or "cuda"
  std::string precision = "f32";  // "f32", or "bf16": activations and matrix products in bf16, the rest f32
  int num_threads = 0;            // 0: all CPUs
  int64_t steps = 1000;
  int64_t batch_tokens = 4096;        // a step, over all micro-batches
  int64_t micro_batch_tokens = 4096;  // at once; the rest is accumulated
  OptimizerConfig optimizer;
  LossConfig loss;
  int64_t eval_every = 250;        // steps; 0: only at the end
  int64_t eval_bytes = 200000;     // of each domain's held-out text, while training
  int64_t checkpoint_every = 250;  // steps; 0: only at the end
  int keep_checkpoints = 2;
  int64_t log_every = 10;  // steps
};

struct DistilConfig {  // how `distil` trains level 1
  int64_t steps = 1500;
  int texts = 8;                // of context_length tokens, a step
  double lr = 2e-3;             // AdamW, cosine
  double token_dropout = 0.15;  // share of tokens replaced by the start token, so that no single one decides
  double splice_share = 0.3;    // of the texts
  int teacher_windows = 2000;   // texts that the teacher is tuned on and labels
  int teacher_epochs = 2;
  double teacher_weight = 1.0;  // of the KL divergence to the teacher's labels
};

struct RouterConfig {
  std::string
      init;  // a folder that `distil` wrote: level 1's weights, calibration and margin; they are kept as they are
  std::vector<std::string> domains;  // that may be active; empty: all
  DistilConfig distil;
};

struct Config {
  std::string name = "run";  // the run's folder is runs/NAME
  Architecture model;
  DataConfig data;
  TrainConfig train;
  RouterConfig router;
};

template <class V>
void visit(V&& v, Domain& d) {
  v("name", d.name, "the domain's name");
  v("num_components", d.num_components, "components of this domain in each layer");
  v("always", d.always, "general domain: eligible in every text");
  v("added", d.added, "taken in by --add-domain: eligible only where level 1 finds it the most probable");
  v("components", d.components, "names of the components, optional");
}
template <class V>
void visit(V&& v, Hierarchy& h) {
  v("domains", h.domains, "the domains; none: a dense model");
  v("num_active", h.num_active, "K: components a token and layer");
  v("num_banks", h.num_banks, "G: base banks a layer; 0: nothing is shared");
  v("base", h.base, "bank of each component; empty: component mod G");
  v("base_width", h.base_width, "Fb: width of a base bank");
  v("unique_width", h.unique_width, "Fu: width of a component's own part");
  v("always_on_width", h.always_on_width, "width of an always-on component; 0: none");
}
template <class V>
void visit(V&& v, Trunk& t) {
  v("vocab_size", t.vocab_size, "V: tokens of the tokenizer; 0: taken from the data");
  v("width", t.width, "D: model width");
  v("num_layers", t.num_layers, "L");
  v("num_heads", t.num_heads, "query heads");
  v("num_kv_heads", t.num_kv_heads, "key/value heads; divides num_heads");
  v("head_dim", t.head_dim, "0: width / num_heads");
  v("context_length", t.context_length, "T: tokens of a training row");
  v("num_dense_layers", t.num_dense_layers, "first layers with a dense feed-forward block");
  v("dense_width", t.dense_width, "width of a dense feed-forward block");
  v("rope_theta", t.rope_theta, "base of the rotary positions");
  v("rope_divisors", t.rope_divisors, "by rotation, what its angle is divided by; empty: 1");
  v("norm_eps", t.norm_eps, "epsilon of RMSNorm");
  v("tied_embeddings", t.tied_embeddings, "output head = embedding table");
  v("previous_token", t.previous_token, "the trunk also reads a projection of the embedding of the token before");
}
template <class V>
void visit(V&& v, DomainRouter& r) {
  v("kind", r.kind, "none, encoder, uniform, oracle or random");
  v("width", r.width, "width of the encoder");
  v("num_layers", r.num_layers, "blocks of the encoder");
  v("num_heads", r.num_heads, "heads of the encoder");
  v("chunk_tokens", r.chunk_tokens, "decisions after 16 and 64 tokens, then every chunk_tokens");
  v("window_tokens", r.window_tokens, "how far back a token sees");
  v("patch_tokens", r.patch_tokens,
    "tokens of one position of the encoder; divides 16, chunk_tokens and window_tokens");
  v("own_embedding", r.own_embedding, "a token table of its own; distil needs it");
  v("margin", r.margin, "a second domain enters when pi1 - pi2 < margin");
  v("hysteresis", r.hysteresis, "and leaves above margin + hysteresis");
  v("temperature", r.temperature, "of pi, from calibration");
  v("floor", r.floor, "taken off each domain's probability, from calibration");
}
template <class V>
void visit(V&& v, ComponentRouter& r) {
  v("kind", r.kind, "planner (transformer), gate (linear, a layer), sum (both), trunk (heads on the trunk)");
  v("width", r.width, "width of the planner");
  v("num_layers", r.num_layers, "blocks of the planner");
  v("num_heads", r.num_heads, "heads of the planner");
  v("prior_weight", r.prior_weight, "beta of the prior term; an ablation");
  v("max_groups", r.max_groups, "group-limited top-K: routed domains a token; 0: no limit; an ablation");
}
template <class V>
void visit(V&& v, Architecture& a) {
  v("trunk", a.trunk, "attention, embeddings, sizes");
  v("hierarchy", a.hierarchy, "domains, components, base banks");
  v("domain_router", a.domain_router, "level 1");
  v("component_router", a.component_router, "level 2");
}
template <class V>
void visit(V&& v, DataConfig& d) {
  v("path", d.path, "a folder that `data build` wrote");
  v("mix", d.mix, "weight by domain; empty: in proportion to the data");
  v("splice_share", d.splice_share, "share of tokens in spliced documents");
  v("repeat_share", d.repeat_share, "share of spliced documents in which a piece comes twice: copying is learnt");
}
template <class V>
void visit(V&& v, OptimizerConfig& o) {
  v("kind", o.kind, "adamw or muon");
  v("lr", o.lr, "peak learning rate");
  v("embedding_lr_scale", o.embedding_lr_scale, "times lr: of the embedding table and the head");
  v("min_lr_share", o.min_lr_share, "the decay ends at lr * min_lr_share");
  v("schedule", o.schedule, "cosine or wsd");
  v("warmup_steps", o.warmup_steps, "linear warm-up");
  v("decay_share", o.decay_share, "wsd: share of the steps that decays");
  v("beta1", o.beta1, "AdamW");
  v("beta2", o.beta2, "AdamW");
  v("eps", o.eps, "AdamW");
  v("weight_decay", o.weight_decay, "decoupled, matrices only");
  v("clip_norm", o.clip_norm, "of the whole gradient; 0: none");
}
template <class V>
void visit(V&& v, LossConfig& l) {
  v("domain_weight", l.domain_weight, "of level 1's cross-entropy");
  v("z_loss", l.z_loss, "of the component scores");
  v("balance_rate", l.balance_rate, "step of the selection bias");
  v("domain_dropout", l.domain_dropout, "share of documents that are routed with uniform pi");
}
template <class V>
void visit(V&& v, TrainConfig& t) {
  v("seed", t.seed, "of weights, data order and dropout");
  v("device", t.device, "cpu or cuda");
  v("precision", t.precision, "f32 or bf16");
  v("num_threads", t.num_threads, "0: all CPUs");
  v("steps", t.steps, "optimizer steps");
  v("batch_tokens", t.batch_tokens, "tokens a step");
  v("micro_batch_tokens", t.micro_batch_tokens, "tokens at once");
  v("optimizer", t.optimizer, "AdamW and its schedule");
  v("loss", t.loss, "the terms beside the language-model loss");
  v("eval_every", t.eval_every, "steps between evaluations; 0: at the end");
  v("eval_bytes", t.eval_bytes, "held-out text by domain while training");
  v("checkpoint_every", t.checkpoint_every, "steps between checkpoints; 0: at the end");
  v("keep_checkpoints", t.keep_checkpoints, "the newest N are kept");
  v("log_every", t.log_every, "steps between lines");
}
template <class V>
void visit(V&& v, DistilConfig& d) {
  v("steps", d.steps, "of the student");
  v("texts", d.texts, "texts of context_length tokens a step");
  v("lr", d.lr, "peak learning rate of the student");
  v("token_dropout", d.token_dropout, "share of tokens that are blanked");
  v("splice_share", d.splice_share, "share of spliced texts");
  v("teacher_windows", d.teacher_windows, "texts that the teacher is tuned on and labels");
  v("teacher_epochs", d.teacher_epochs, "passes of the teacher over them");
  v("teacher_weight", d.teacher_weight, "of the divergence from the teacher");
}
template <class V>
void visit(V&& v, RouterConfig& r) {
  v("init", r.init, "a router that `distil` wrote, kept as it is; empty: level 1 is learnt with the model");
  v("domains", r.domains, "domains that may be active; empty: all");
  v("distil", r.distil, "how distil trains level 1");
}
template <class V>
void visit(V&& v, Config& c) {
  v("name", c.name, "the run's folder is runs/NAME");
  v("model", c.model, "the architecture");
  v("data", c.data, "what it learns from");
  v("train", c.train, "how it learns");
  v("router", c.router, "where its routers come from");
}

template <class T>
concept Visitable = requires(T& t) {
  visit([](const char*, auto&, const char*) {}, t);
};

// Throws Error{kConfig} naming the key, what was expected and what was found; unknown keys name the nearest known one.
Config config_from_json(const Json& json);
Architecture architecture_from_json(const Json& json);
// Reads the file, applies overrides ("train.steps=20"; the value is JSON or else a string) and checks the result. With
// "base": "FILE" (beside this one) the file holds only what differs from that: a JSON merge patch (RFC 7396).
Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
Json to_json(const Config& config);
Json to_json(const Architecture& architecture);
// Sizes that don't divide, unknown kinds, values out of range: throws Error{kConfig}.
void check(const Config& config);
void check(const Architecture& architecture);
// One line a key: name, default, meaning; for --help.
std::string config_help();
// 16 hexadecimal digits over the resolved values.
std::string config_hash(const Json& json);
// The nearest of `known` by edit distance, "" when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace tessera
