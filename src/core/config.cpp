#include "core/config.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace tessera {
namespace {

template <class T>
concept Visitable = requires(T& t) {
  visit([](const char*, auto&, const char*) {}, t);
};

[[noreturn]] void wrong(const std::string& key, const std::string& expected, const Json& found) {
  std::string shown = found.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  throw Error(ErrorCode::kConfig, "config key '" + key + "': expected " + expected + ", found " + shown);
}

// ---- JSON -> struct ----------------------------------------------------------------------------------------------

template <class T>
void read(const Json& json, T& value, const std::string& key);

template <class T>
void read_struct(const Json& json, T& value, const std::string& key) {
  if (!json.is_object()) wrong(key, "an object", json);
  std::vector<std::string> known;
  visit([&](const char* name, auto&, const char*) { known.push_back(name); }, value);
  for (const auto& [name, unused] : json.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string near = nearest(name, known);
    throw Error(ErrorCode::kConfig, "unknown config key '" + (key.empty() ? name : key + "." + name) + "'",
                near.empty() ? fmt::format("known here: {}", fmt::join(known, ", ")) : "did you mean '" + near + "'?");
  }
  visit(
      [&](const char* name, auto& field, const char*) {
        if (json.contains(name)) read(json.at(name), field, key.empty() ? name : key + "." + name);
      },
      value);
}

template <class T>
void read(const Json& json, T& value, const std::string& key) {
  if constexpr (Visitable<T>) {
    read_struct(json, value, key);
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) wrong(key, "true or false", json);
    value = json.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    const bool whole =
        json.is_number_integer() || (json.is_number_float() && json.get<double>() == std::floor(json.get<double>()) &&
                                     std::abs(json.get<double>()) < 9e15);
    if (!whole) wrong(key, "a whole number", json);
    if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<T>::max())) {
      wrong(key, "a number up to " + std::to_string(std::numeric_limits<T>::max()), json);
    }
    const int64_t number = json.is_number_unsigned() ? static_cast<int64_t>(json.get<uint64_t>()) : json.get<int64_t>();
    const bool negative = !json.is_number_unsigned() && number < 0;
    if ((std::is_unsigned_v<T> && negative) ||
        (std::is_same_v<T, int> && (number > 2147483647 || number < -2147483648ll))) {
      wrong(key, "a number that fits", json);
    }
    value = static_cast<T>(number);
  } else if constexpr (std::is_same_v<T, double>) {
    if (!json.is_number() || !std::isfinite(json.get<double>())) wrong(key, "a number", json);
    value = json.get<double>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) wrong(key, "a string", json);
    value = json.get<std::string>();
  } else if constexpr (std::is_same_v<T, std::map<std::string, double>>) {
    if (!json.is_object()) wrong(key, "an object of numbers", json);
    value.clear();
    for (const auto& [name, number] : json.items()) read(number, value[name], key + "." + name);
  } else {  // std::vector
    if (!json.is_array()) wrong(key, "a list", json);
    value.clear();
    value.resize(json.size());
    for (size_t i = 0; i < json.size(); ++i) read(json[i], value[i], key + "[" + std::to_string(i) + "]");
  }
}

// ---- struct -> JSON ----------------------------------------------------------------------------------------------

template <class T>
Json write(T& value) {
  if constexpr (Visitable<T>) {
    Json json = Json::object();
    visit([&](const char* name, auto& field, const char*) { json[name] = write(field); }, value);
    return json;
  } else if constexpr (std::is_same_v<T, std::map<std::string, double>>) {
    Json json = Json::object();
    for (auto& [name, number] : value) json[name] = number;
    return json;
  } else if constexpr (requires { value.begin(); } && !std::is_same_v<T, std::string>) {
    Json json = Json::array();
    for (auto& element : value) json.push_back(write(element));
    return json;
  } else {
    return value;
  }
}

// ---- help --------------------------------------------------------------------------------------------------------

template <class T>
void help(T& value, const std::string& prefix, std::string& out) {
  visit(
      [&](const char* name, auto& field, const char* meaning) {
        using Field = std::remove_reference_t<decltype(field)>;
        const std::string key = prefix.empty() ? name : prefix + "." + name;
        if constexpr (Visitable<Field>) {
          help(field, key, out);
        } else {
          out += fmt::format("  --{:<44} {}\n", key + "=" + write(field).dump(), meaning);
        }
      },
      value);
}

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

void check_hierarchy(const Hierarchy& h) {
  std::set<std::string> names;
  for (size_t i = 0; i < h.domains.size(); ++i) {
    const Domain& d = h.domains[i];
    const std::string key = fmt::format("model.hierarchy.domains[{}]", i);
    require(!d.name.empty(), "config key '" + key + ".name': expected a name, found \"\"");
    require(names.insert(d.name).second, "config key '" + key + ".name': domain \"" + d.name + "\" is named twice");
    require_at_least(key + ".num_components", d.num_components, 1);
    require(d.components.empty() || static_cast<int>(d.components.size()) == d.num_components,
            fmt::format("config key '{}.components': expected {} names (num_components), found {}", key,
                        d.num_components, d.components.size()));
  }
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

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2);
  for (const std::string& candidate : known) {
    std::vector<size_t> row(candidate.size() + 1);  // Levenshtein distance, one row at a time
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 0; i < word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i + 1;
      for (size_t j = 0; j < candidate.size(); ++j) {
        const size_t substituted = diagonal + (word[i] != candidate[j]);
        diagonal = row[j + 1];
        row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = candidate;
  }
  return best;
}

void check(const Architecture& a) {
  const Trunk& t = a.trunk;
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
  const bool dense_layers = t.num_dense_layers > 0 || a.hierarchy.domains.empty();
  if (dense_layers) require_at_least("model.trunk.dense_width", t.dense_width, 1);

  require_one_of("model.domain_router.kind", a.domain_router.kind, {"none", "encoder", "uniform", "oracle", "random"});
  require_one_of("model.component_router.kind", a.component_router.kind, {"planner", "gate"});
  if (a.hierarchy.domains.empty()) {
    require(a.domain_router.kind == "none",
            "config key 'model.domain_router.kind': a dense model has no domains to route",
            "set model.domain_router.kind=none");
    return;
  }
  check_hierarchy(a.hierarchy);
  const DomainRouter& d = a.domain_router;
  require(d.kind != "none" || routed_domains(a.hierarchy).size() == 1,
          "config key 'model.domain_router.kind': \"none\" needs exactly one domain that isn't 'always'",
          "use \"encoder\", or \"uniform\" to keep all domains active");
  if (d.kind == "encoder") {
    require_at_least("model.domain_router.width", d.width, 2);
    require_at_least("model.domain_router.num_layers", d.num_layers, 1);
    require_at_least("model.domain_router.num_heads", d.num_heads, 1);
    require_divides("model.domain_router.width", d.width, "2 * model.domain_router.num_heads", 2 * d.num_heads);
  }
  require_at_least("model.domain_router.chunk_tokens", d.chunk_tokens, 16);
  require_at_least("model.domain_router.window_tokens", d.window_tokens, d.chunk_tokens);
  require_share("model.domain_router.margin", d.margin);
  require_share("model.domain_router.hysteresis", d.hysteresis);
  require(d.temperature > 0, "config key 'model.domain_router.temperature' must be above 0");
  const ComponentRouter& c = a.component_router;
  if (c.kind == "planner") {
    require_at_least("model.component_router.width", c.width, 2);
    require_at_least("model.component_router.num_layers", c.num_layers, 1);
    require_at_least("model.component_router.num_heads", c.num_heads, 1);
    require_divides("model.component_router.width", c.width, "2 * model.component_router.num_heads", 2 * c.num_heads);
  }
}

void check(const Config& config) {
  check(config.model);
  const bool plain =
      !config.name.empty() && config.name != "." && config.name != ".." && config.name.find('/') == std::string::npos;
  require(plain, "config key 'name': expected a folder name, found \"" + config.name + "\"");
  const TrainConfig& t = config.train;
  require_one_of("train.device", t.device, {"cpu", "cuda"});
  require_one_of("train.precision", t.precision, {"f32", "bf16"});
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
  for (const auto& [name, weight] : config.data.mix) require_at_least("data.mix." + name, weight, 0);
}

Config config_from_json(const Json& json) {
  Config config;
  read(json, config, "");
  check(config);
  return config;
}

Architecture architecture_from_json(const Json& json) {
  Architecture architecture;
  read(json, architecture, "model");
  check(architecture);
  return architecture;
}

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Json json = read_json_file(path);
  for (std::string text : overrides) {
    while (text.starts_with("-")) text.erase(0, 1);
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error(ErrorCode::kUsage, "override '" + text + "': expected KEY=VALUE", "for example --train.steps=100");
    }
    std::string key = text.substr(0, equals);
    const std::string value = text.substr(equals + 1);
    Json parsed = Json::parse(value, nullptr, false);
    if (parsed.is_discarded()) parsed = value;
    std::replace(key.begin(), key.end(), '.', '/');
    try {
      json[Json::json_pointer("/" + key)] = parsed;
    } catch (const nlohmann::json::exception&) {
      throw Error(ErrorCode::kConfig, "override '" + text + "' does not name a config key",
                  "`tessera train --help` lists all keys");
    }
  }
  return config_from_json(json);
}

Json to_json(const Config& config) { return write(const_cast<Config&>(config)); }
Json to_json(const Architecture& architecture) { return write(const_cast<Architecture&>(architecture)); }

std::string config_help() {
  Config config;
  std::string out;
  help(config, "", out);
  return out;
}

std::string config_hash(const Json& json) { return hash_hex(json.dump()); }

}  // namespace tessera
