#include "base/json.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/files.h"

template nlohmann::ordered_json::basic_json(initializer_list_t, bool, value_t);
template nlohmann::ordered_json::basic_json(const basic_json&);
template nlohmann::ordered_json::reference nlohmann::ordered_json::operator[](object_t::key_type);
template std::string nlohmann::ordered_json::dump(int, char, bool, error_handler_t) const;
template void nlohmann::ordered_json::json_value::destroy(value_t);
template class nlohmann::detail::lexer<nlohmann::ordered_json, nlohmann::detail::iterator_input_adapter<const char*>>;
template class nlohmann::detail::parser<nlohmann::ordered_json, nlohmann::detail::iterator_input_adapter<const char*>>;
template class nlohmann::detail::serializer<nlohmann::ordered_json>;

namespace tessera {

void JsonGuard::open(int depth) {
  constexpr int kMaxDepth = 64;
  if (depth >= kMaxDepth) throw Error(ErrorCode::kData, what_ + ": JSON nested more than 64 deep");
  keys_.resize(static_cast<size_t>(depth) + 2);
  keys_.back().clear();
}

void JsonGuard::add_key(int depth, const std::string& key) {
  if (keys_[static_cast<size_t>(depth)].insert(key).second) return;
  throw Error(ErrorCode::kData, what_ + ": the key \"" + key + "\" is there twice");
}

void throw_json_error(const std::string& what, std::string why) {
  if (const size_t id = why.find("] "); id != std::string::npos) why.erase(0, id + 2);
  const bool is_cut = why.find("unexpected end of input") != std::string::npos;
  throw Error(ErrorCode::kData, what + " is no valid JSON: " + why,
              is_cut ? "is it cut short? copy or write it again" : "");
}

Json parse_json(std::string_view text, const std::string& what) {
  try {
    return Json::parse(text, JsonGuard(what));
  } catch (const nlohmann::json::exception& e) {
    std::string why = e.what();
    const std::string only_line = "at line 1, ";  // of a stream of lines, `what` names the line
    if (const size_t at = why.find(only_line); at != std::string::npos && text.find('\n') == std::string_view::npos)
      why.replace(at, only_line.size(), "at ");
    throw_json_error(what, why);
  }
}

Json read_json_file(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

std::string differences(const Json& there, const Json& here) {
  const Json theirs = there.flatten(), mine = here.flatten();  // by "/train/steps"
  std::set<std::string> keys;
  for (const Json* json : {&theirs, &mine}) {
    for (const auto& [key, unused] : json->items()) keys.insert(key);
  }
  const auto shown = [](const Json& json, const std::string& key) {
    return json.contains(key) ? json[key].dump() : "nothing";
  };
  std::string text;
  for (const std::string& key : keys) {
    const std::string a = shown(theirs, key), b = shown(mine, key);
    if (a == b) continue;
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    text += (text.empty() ? "" : "; ") + name + ": " + a + " there, " + b + " here";
  }
  return text;
}

void write_json_file(const std::filesystem::path& path, const Json& json) {
  write_file_atomic(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace tessera
