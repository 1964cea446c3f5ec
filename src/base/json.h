// JSON as nlohmann gives it, keys kept in the order written, and errors as ours.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera {

using Json = nlohmann::ordered_json;

// Throws Error{kData} naming `what` (a file or a place) and the position of the fault.
Json parse_json(std::string_view text, const std::string& what);
Json read_json_file(const std::filesystem::path& path);
// Written beside and renamed, with a final newline.
void write_json_file(const std::filesystem::path& path, const Json& json);

}  // namespace tessera
