// check() of config.h: sizes that don't divide, unknown kinds, values out of range.
#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/config.h"
#include "core/route.h"

namespace tessera {
namespace {

void require(bool condition, const std::string& message, const std::string& hint = "") {
  if (!condition) throw Error(ErrorCode::kConfig, message, hint);
}

void require_one_of(const std::string& key, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  const std::string near = nearest(value, known);
  throw Error(ErrorCode::kConfig,
              fmt::format("config key '{}': expected one of {}, found \"{}\"", key, fmt::join(known, ", "), value),
              near.empty() ? "" : "did you mean '" + near + "'?");
}

void require_at_least(const std::string& key, double value, double least) {
  require(value >= least, fmt::format("config key '{}': expected at least {}, found {}", key, least, value));
}

void require_share(const std::string& key, double value) {
  require(value >= 0 && value <= 1, fmt::format("config key '{}': expected 0 to 1, found {}", key, value));
}

void require_divides(const std::string& whole_key, int64_t whole, const std::string& part_key, int64_t part) {
  require(whole % part == 0,
          fmt::format("config keys '{}' = {} and '{}' = {}: the first must be a multiple of the second", whole_key,
                      whole, part_key, part));
}

constexpr int kMaxSize = 1 << 24;        // of any one number of the architecture
constexpr double kMaxParameters = 1e14;  // so that bytes and FLOPs stay within 64 bits
constexpr double kMaxTensors = 1e6;      // of the model file

// Sizes that no machine holds are refused before products of them are formed or lists of that length are made.
template <class T>
void check_magnitude(const T& value, const std::string& key) {
  if constexpr (Visitable<T>) {
    visit([&](const char* name, auto& field, const char*) { check_magnitude(field, key + "." + name); },
          const_cast<T&>(value));
  } else if constexpr (std::is_same_v<T, std::vector<Domain>>) {
    for (size_t i = 0; i < value.size(); ++i) check_magnitude(value[i], fmt::format("{}[{}]", key, i));
  } else if constexpr (std::is_same_v<T, int>) {
    require(value <= kMaxSize, fmt::format("config key '{}': expected at most {}, found {}", key, kMaxSize, value));
  }
}

void check_totals(const Architecture& a) {
  const Trunk& t = a.trunk;
  const Hierarchy& h = a.hierarchy;
  const bool components = !h.domains.empty();
  const double width = t.width, layers = t.num_layers, n = components ? num_components(h) : 0;
  const double banks = components ? h.num_banks : 0, f = h.base_width + h.unique_width;
  double parameters = 2.0 * t.vocab_size * width, tensors = 4;
  if (t.previous_token) parameters += width * width;
  parameters += layers * width *
                (2.0 * (t.num_heads + t.num_kv_heads) * head_dim(t) + 3.0 * std::max(0, t.dense_width) + 2 +
                 n * (3 * f + 1) + 2 * banks * h.base_width + 3.0 * h.always_on_width);
  tensors += layers * (3 * n + 2 * banks + 12);
  const auto add_router = [&](double router_width, double blocks) {
    parameters += router_width * (std::max<double>(width, t.vocab_size) + blocks * 10 * router_width + layers * n);
    tensors += 3 + 8 * blocks + static_cast<double>(h.domains.size());
  };
  if (components && a.domain_router.kind == "encoder") add_router(a.domain_router.width, a.domain_router.num_layers);
  const ComponentRouter& c = a.component_router;
  if (components && c.kind == "trunk") add_router(width, 0);
  if (components && (c.kind == "planner" || c.kind == "sum")) add_router(c.width, c.num_layers);
  require(parameters <= kMaxParameters && tensors <= kMaxTensors,
          fmt::format("config key 'model': about {:.3g} parameters in {:.3g} tensors are more than any machine holds",
                      parameters, tensors));
}

void check_hierarchy(const Hierarchy& h) {
  std::set<std::string> names;
  int64_t total = 0;
  for (size_t i = 0; i < h.domains.size(); ++i) {
    const Domain& d = h.domains[i];
    const std::string key = fmt::format("model.hierarchy.domains[{}]", i);
    require(!d.name.empty(), "config key '" + key + ".name': expected a name, found \"\"");
    require(names.insert(d.name).second, "config key '" + key + ".name': domain \"" + d.name + "\" is named twice");
    require_at_least(key + ".num_components", d.num_components, 1);
    require(d.components.empty() || static_cast<int>(d.components.size()) == d.num_components,
            fmt::format("config key '{}.components': expected {} names (num_components), found {}", key,
                        d.num_components, d.components.size()));
    total += d.num_components;
  }
  require(total <= kMaxSize, fmt::format("config key 'model.hierarchy.domains': {} components are too many", total));
  const int n = num_components(h);
  const std::string key = "model.hierarchy.";
  require(!routed_domains(h).empty(),
          "config key 'model.hierarchy.domains': every domain is 'always'; level 1 has nothing to choose",
          "add a domain without \"always\"");
  require_at_least(key + "num_active", h.num_active, 1);
  int general = 0, smallest = n;
  for (const Domain& d : h.domains) {
    if (d.always)
      general += d.num_components;
    else
      smallest = std::min(smallest, d.num_components);
  }
  require(h.num_active <= general + smallest,
          fmt::format(
              "config key 'model.hierarchy.num_active': {} is more than the {} components that are eligible when one "
              "domain is active",
              h.num_active, general + smallest));
  require_at_least(key + "num_banks", h.num_banks, 0);
  require((h.num_banks == 0) == (h.base_width == 0),
          "config keys 'model.hierarchy.num_banks' and 'base_width' must be zero together");
  require(h.unique_width >= 0 && h.base_width >= 0 && h.always_on_width >= 0,
          "config keys 'model.hierarchy.*_width' must not be negative");
  require(h.unique_width + h.base_width >= 1,
          "config key 'model.hierarchy.unique_width': a component needs at least one unit");
  require(h.base.empty() || static_cast<int>(h.base.size()) == n,
          fmt::format("config key 'model.hierarchy.base': expected {} entries (one a component), found {}", n,
                      h.base.size()));
  for (int bank : h.base) {
    require(bank >= 0 && bank < h.num_banks,
            fmt::format("config key 'model.hierarchy.base': bank {} is not in 0..{}", bank, h.num_banks - 1));
  }
}

}  // namespace

void check(const Architecture& a) {
  const Trunk& t = a.trunk;
  check_magnitude(a, "model");
  require_at_least("model.trunk.vocab_size", t.vocab_size, 0);
  require_at_least("model.trunk.width", t.width, 1);
  require_at_least("model.trunk.num_layers", t.num_layers, 1);
  require_at_least("model.trunk.num_heads", t.num_heads, 1);
  require_at_least("model.trunk.num_kv_heads", t.num_kv_heads, 1);
  require_at_least("model.trunk.context_length", t.context_length, 2);
  require_divides("model.trunk.num_heads", t.num_heads, "model.trunk.num_kv_heads", t.num_kv_heads);
  if (t.head_dim == 0) require_divides("model.trunk.width", t.width, "model.trunk.num_heads", t.num_heads);
  require(
      head_dim(t) >= 2 && head_dim(t) % 2 == 0,
      fmt::format("config key 'model.trunk.head_dim': rotary positions need an even number, found {}", head_dim(t)));
  require(t.num_dense_layers >= 0 && t.num_dense_layers <= t.num_layers,
          fmt::format("config key 'model.trunk.num_dense_layers': expected 0 to {} (num_layers), found {}",
                      t.num_layers, t.num_dense_layers));
  require(t.rope_theta > 0 && t.norm_eps > 0, "config keys 'model.trunk.rope_theta' and 'norm_eps' must be above 0");
  require(t.rope_divisors.empty() || t.rope_divisors.size() == static_cast<size_t>(head_dim(t) / 2),
          fmt::format("config key 'model.trunk.rope_divisors': expected none or {} (head_dim / 2), found {}",
                      head_dim(t) / 2, t.rope_divisors.size()));
  require(
      std::all_of(t.rope_divisors.begin(), t.rope_divisors.end(), [](double r) { return r > 0 && std::isfinite(r); }),
      "config key 'model.trunk.rope_divisors': each must be above 0");
  const bool dense_layers = t.num_dense_layers > 0 || a.hierarchy.domains.empty();
  if (dense_layers) require_at_least("model.trunk.dense_width", t.dense_width, 1);

  require_one_of("model.domain_router.kind", a.domain_router.kind, {"none", "encoder", "uniform", "oracle", "random"});
  require_one_of("model.component_router.kind", a.component_router.kind, {"planner", "gate", "sum", "trunk"});
  // Of routers of any kind, since readers of the config divide by them.
  const DomainRouter& d = a.domain_router;
  const ComponentRouter& c = a.component_router;
  require_at_least("model.domain_router.num_heads", d.num_heads, 1);
  require_at_least("model.domain_router.chunk_tokens", d.chunk_tokens, 16);
  require_at_least("model.domain_router.window_tokens", d.window_tokens, d.chunk_tokens);
  require_at_least("model.domain_router.patch_tokens", d.patch_tokens, 1);
  require(16 % d.patch_tokens == 0 && d.chunk_tokens % d.patch_tokens == 0 && d.window_tokens % d.patch_tokens == 0,
          fmt::format("config key 'model.domain_router.patch_tokens': {} does not divide 16 (the first chunk), "
                      "chunk_tokens ({}) and window_tokens ({})",
                      d.patch_tokens, d.chunk_tokens, d.window_tokens),
          "use 1, or multiples of it for chunk_tokens and window_tokens");
  require_at_least("model.component_router.num_heads", c.num_heads, 1);
  if (a.hierarchy.domains.empty()) {
    require(a.domain_router.kind == "none",
            "config key 'model.domain_router.kind': a dense model has no domains to route",
            "set model.domain_router.kind=none");
    check_totals(a);
    return;
  }
  check_hierarchy(a.hierarchy);
  require(d.kind != "none" || routed_domains(a.hierarchy).size() == 1,
          "config key 'model.domain_router.kind': \"none\" needs exactly one domain that isn't 'always'",
          "use \"encoder\", or \"uniform\" to keep all domains active");
  if (d.kind == "encoder") {
    require_at_least("model.domain_router.width", d.width, 2);
    require_at_least("model.domain_router.num_layers", d.num_layers, 1);
    require_divides("model.domain_router.width", d.width, "2 * model.domain_router.num_heads", 2 * d.num_heads);
  }
  require_share("model.domain_router.margin", d.margin);
  require_share("model.domain_router.hysteresis", d.hysteresis);
  require(d.temperature > 0, "config key 'model.domain_router.temperature' must be above 0");
  require(d.floor >= 0 && d.floor * static_cast<double>(std::max<size_t>(1, routed_names(a.hierarchy).size())) < 1,
          "config key 'model.domain_router.floor' must be at least 0 and less than one in the number of domains");
  require(c.kind != "trunk" || t.num_dense_layers > 0,
          "config key 'model.component_router.kind': \"trunk\" needs a dense layer before the first component layer",
          "set model.trunk.num_dense_layers=1 and dense_width");
  if (c.kind == "planner" || c.kind == "sum") {
    require_at_least("model.component_router.width", c.width, 2);
    require_at_least("model.component_router.num_layers", c.num_layers, 1);
    require_divides("model.component_router.width", c.width, "2 * model.component_router.num_heads", 2 * c.num_heads);
  }
  require_at_least("model.component_router.max_groups", c.max_groups, 0);
  check_totals(a);
}

void check(const Config& config) {
  check(config.model);
  const bool plain =
      !config.name.empty() && config.name != "." && config.name != ".." && config.name.find('/') == std::string::npos;
  require(plain, "config key 'name': expected a folder name, found \"" + config.name + "\"");
  const TrainConfig& t = config.train;
  require_one_of("train.device", t.device, {"cpu", "cuda"});
  require_one_of("train.precision", t.precision, {"f32", "bf16"});
  require_one_of("train.optimizer.kind", t.optimizer.kind, {"adamw", "muon"});
  require_one_of("train.optimizer.schedule", t.optimizer.schedule, {"cosine", "wsd"});
  require_at_least("train.steps", static_cast<double>(t.steps), 1);
  require_at_least("train.micro_batch_tokens", static_cast<double>(t.micro_batch_tokens),
                   config.model.trunk.context_length);
  require_divides("train.micro_batch_tokens", t.micro_batch_tokens, "model.trunk.context_length",
                  config.model.trunk.context_length);
  require_at_least("train.batch_tokens", static_cast<double>(t.batch_tokens),
                   static_cast<double>(t.micro_batch_tokens));
  require_divides("train.batch_tokens", t.batch_tokens, "train.micro_batch_tokens", t.micro_batch_tokens);
  require_at_least("train.num_threads", t.num_threads, 0);
  require(t.num_threads <= kMostThreads,
          fmt::format("config key 'train.num_threads': at most {}, found {}", kMostThreads, t.num_threads));
  require_at_least("train.keep_checkpoints", t.keep_checkpoints, 1);
  require_at_least("train.log_every", static_cast<double>(t.log_every), 1);
  require_at_least("train.eval_every", static_cast<double>(t.eval_every), 0);
  require_at_least("train.eval_bytes", static_cast<double>(t.eval_bytes), 1);
  require_at_least("train.checkpoint_every", static_cast<double>(t.checkpoint_every), 0);
  const OptimizerConfig& o = t.optimizer;
  require(o.lr > 0, fmt::format("config key 'train.optimizer.lr': expected above 0, found {}", o.lr));
  require_at_least("train.optimizer.warmup_steps", static_cast<double>(o.warmup_steps), 0);
  require_at_least("train.optimizer.weight_decay", o.weight_decay, 0);
  require_at_least("train.optimizer.clip_norm", o.clip_norm, 0);
  require_at_least("train.optimizer.embedding_lr_scale", o.embedding_lr_scale, 0);
  require(o.eps > 0, "config key 'train.optimizer.eps' must be above 0");
  require(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1,
          "config keys 'train.optimizer.beta1' and 'beta2' must be in [0, 1)");
  require_share("train.optimizer.min_lr_share", o.min_lr_share);
  require_share("train.optimizer.decay_share", o.decay_share);
  require_at_least("train.loss.domain_weight", t.loss.domain_weight, 0);
  require_at_least("train.loss.z_loss", t.loss.z_loss, 0);
  require_at_least("train.loss.balance_rate", t.loss.balance_rate, 0);
  require_share("train.loss.domain_dropout", t.loss.domain_dropout);
  require_share("data.splice_share", config.data.splice_share);
  require_share("data.repeat_share", config.data.repeat_share);
  const DistilConfig& d = config.router.distil;
  require_at_least("router.distil.steps", static_cast<double>(d.steps), 1);
  require_at_least("router.distil.texts", d.texts, 1);
  require(d.lr > 0, fmt::format("config key 'router.distil.lr': expected above 0, found {}", d.lr));
  require_share("router.distil.token_dropout", d.token_dropout);
  require_share("router.distil.splice_share", d.splice_share);
  require_at_least("router.distil.teacher_windows", d.teacher_windows, 16);
  require_at_least("router.distil.teacher_epochs", d.teacher_epochs, 1);
  require_at_least("router.distil.teacher_weight", d.teacher_weight, 0);
  allowed_domains(config.model.hierarchy, config.router.domains, {}, "config key 'router.domains'");
  for (const auto& [name, weight] : config.data.mix) require_at_least("data.mix." + name, weight, 0);
}

}  // namespace tessera
