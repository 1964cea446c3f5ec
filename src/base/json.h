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

// Compiled once, in json.cpp, instead of by every file that reads or prints JSON: the parts that are used. (The whole
// class would bring its binary formats along.)
extern template nlohmann::ordered_json::basic_json(initializer_list_t, bool, value_t);
extern template nlohmann::ordered_json::basic_json(const basic_json&);
extern template nlohmann::ordered_json::reference nlohmann::ordered_json::operator[](object_t::key_type);
extern template std::string nlohmann::ordered_json::dump(int, char, bool, error_handler_t) const;
extern template void nlohmann::ordered_json::json_value::destroy(value_t);
extern template class nlohmann::detail::lexer<nlohmann::ordered_json,
                                              nlohmann::detail::iterator_input_adapter<const char*>>;
extern template class nlohmann::detail::parser<nlohmann::ordered_json,
                                               nlohmann::detail::iterator_input_adapter<const char*>>;
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
// "train.steps: 20 there, 30 here; ..." of what differs.
std::string differences(const Json& there, const Json& here);
// Written beside and renamed, with a final newline.
void write_json_file(const std::filesystem::path& path, const Json& json);

}  // namespace tessera
