// JSON as nlohmann gives it, keys kept in the order written, and errors as ours.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

using Json = nlohmann::ordered_json;

}  // namespace tessera

// Compiled once, in json.cpp, instead of by every file that prints JSON.
extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;
extern template class nlohmann::detail::serializer<nlohmann::json>;
extern template class nlohmann::detail::serializer<nlohmann::ordered_json>;

namespace tessera {

// For the parsers of nlohmann: refuses a key that is there twice, and nesting so deep that printing it would exhaust
// the stack. Throws Error{kData}.
class JsonGuard {
 public:
  explicit JsonGuard(std::string what) : what_(std::move(what)) {}
  template <class AnyJson>
  bool operator()(int depth, Json::parse_event_t event, const AnyJson& parsed) {
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start) open(depth);
    if (event == Json::parse_event_t::key) add_key(depth, parsed.template get<std::string>());
    return true;
  }

 private:
  void open(int depth);
  void add_key(int depth, const std::string& key);
  std::string what_;
  std::vector<std::set<std::string>> keys_;  // of the open objects, by depth
};

// Throws Error{kData} for what nlohmann's parser says ("[json.exception.parse_error.101] parse error at line ...").
[[noreturn]] void throw_json_error(const std::string& what, std::string why);

// Throws Error{kData} naming `what` (a file or a place) and the position of the fault, or the key that is there twice.
Json parse_json(std::string_view text, const std::string& what);
Json read_json_file(const std::filesystem::path& path);
// Written beside and renamed, with a final newline.
void write_json_file(const std::filesystem::path& path, const Json& json);

}  // namespace tessera
