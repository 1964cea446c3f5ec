#include "base/json.h"

#include "base/error.h"
#include "base/files.h"

template class nlohmann::basic_json<>;
template class nlohmann::basic_json<nlohmann::ordered_map>;
template class nlohmann::detail::serializer<nlohmann::json>;
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

Json parse_json(std::string_view text, const std::string& what) {
  try {
    return Json::parse(text, JsonGuard(what));
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::kData, what + " is no valid JSON: " + e.what());
  }
}

Json read_json_file(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

void write_json_file(const std::filesystem::path& path, const Json& json) {
  write_file_atomic(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace tessera
