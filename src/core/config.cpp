#include "core/config.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace tessera {
namespace {

[[noreturn]] void wrong(const std::string& key, const std::string& expected, const Json& found) {
  std::string shown = found.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  throw Error(ErrorCode::kConfig, "config key '" + key + "': expected " + expected + ", found " + shown);
}

// ---- JSON -> struct ----------------------------------------------------------------------------------------------

template <class T>
void read(const Json& json, T& value, const std::string& key);

// A key of earlier versions, at the value that meant nothing: what was written then still opens.
bool is_retired(const std::string& name, const Json& value) { return name == "bigram_rows" && value == 0; }

template <class T>
void read_struct(const Json& json, T& value, const std::string& key) {
  if (!json.is_object()) wrong(key, "an object", json);
  std::vector<std::string> known;
  visit([&](const char* name, auto&, const char*) { known.push_back(name); }, value);
  for (const auto& [name, field] : json.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end() || is_retired(name, field)) continue;
    if (name == "bigram_rows") {
      throw Error(ErrorCode::kConfig, "config key '" + key + "." + name + "': there are no tables of bigrams any more",
                  "trunk.previous_token takes their place; move the old run out of the way and train anew");
    }
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
    if constexpr (std::is_same_v<T, Domain>) {
      if (!value.added) json.erase("added");  // as configs were before there was the key: their hashes stay
    }
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

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::min(word.size(), std::max<size_t>(3, word.size() / 2 + 1));  // a swap of letters is 2
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

namespace {

// "train.steps" -> the place of that value; `index` == size appends to a list. Throws Error{kConfig}.
Json& place_of_key(Json& json, const std::string& key, const std::string& override_text) {
  Json* at = &json;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t end = std::min(key.find('.', begin), key.size());
    const std::string part = key.substr(begin, end - begin);
    begin = end + 1;
    if (at->is_array()) {
      const bool is_index = !part.empty() && part.size() < 9 && part.find_first_not_of("0123456789") == part.npos;
      const size_t index = is_index ? std::stoul(part) : at->size() + 1;
      if (index == at->size()) at->push_back(nullptr);
      if (index < at->size()) {
        at = &(*at)[index];
        continue;
      }
    } else if ((at->is_object() || at->is_null()) && !part.empty()) {
      at = &(*at)[part];
      continue;
    }
    throw Error(ErrorCode::kConfig, "override '" + override_text + "' does not name a config key",
                "`tessera train --help` lists all keys");
  }
  return *at;
}

}  // namespace

namespace {

Json read_with_base(const std::filesystem::path& path, int depth = 0) {
  Json json = read_json_file(path);
  if (!json.is_object() || !json.contains("base")) return json;
  if (!json["base"].is_string()) wrong("base", "a file name", json["base"]);
  if (depth > 8) throw Error(ErrorCode::kConfig, path.string() + ": \"base\" leads back to itself");
  Json merged = read_with_base(path.parent_path() / json["base"].get<std::string>(), depth + 1);
  json.erase("base");
  merged.merge_patch(json);
  return merged;
}

}  // namespace

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Json json = read_with_base(path);
  for (std::string text : overrides) {
    while (text.starts_with("-")) text.erase(0, 1);
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw Error(ErrorCode::kUsage, "override '" + text + "': expected KEY=VALUE", "for example --train.steps=100");
    }
    const std::string value = text.substr(equals + 1);
    Json parsed;
    try {
      Json(text).dump();  // throws when it is no UTF-8
      parsed = Json::accept(value) ? parse_json(value, "override '" + text + "'") : Json(value);
    } catch (const nlohmann::json::exception&) {
      throw Error(ErrorCode::kConfig, "override '" + text.substr(0, equals) + "': its value is no UTF-8");
    }
    place_of_key(json, text.substr(0, equals), text) = parsed;
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
