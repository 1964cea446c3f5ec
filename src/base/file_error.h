// For the files of base/: what errno says, as an Error.
#pragma once
#include <filesystem>
#include <string>

namespace tessera {

// Throws Error{kFile}: "WHAT PATH: why", with a hint where there is something to do.
[[noreturn]] void throw_file_error(const std::string& what, const std::filesystem::path& path);

}  // namespace tessera
