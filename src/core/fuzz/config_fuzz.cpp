#include "core/config.h"
#include "core/fuzz/fuzz_target.h"
#include "core/model_file.h"

void tessera::read_path(const std::filesystem::path& path) { to_json(read_model_config(path).architecture); }
