// For tests of the import: a folder of one's own, what it throws, what it wrote.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "core/import.h"
#include "core/model_file.h"

namespace tessera {
namespace fs = std::filesystem;

class ImportTest : public testing::Test {
 protected:
  ImportTest() {
    std::string name = (fs::temp_directory_path() / "tessera-import-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
    folder_ = name;
  }
  ~ImportTest() override { fs::remove_all(folder_); }

  static std::vector<float> floats(const ModelFolder& model, const std::string& name) {
    const auto bytes = model.weights->bytes(model.weights->at(name));
    std::vector<float> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  // The Error that importing `source` throws; nothing is left behind.
  Error error_of(const fs::path& source, const ImportOptions& options = {}) const {
    try {
      import_model(source, folder_ / "refused", options);
    } catch (const Error& e) {
      EXPECT_FALSE(fs::exists(folder_ / "refused"));
      EXPECT_FALSE(fs::exists(folder_ / "refused.writing"));
      return e;
    }
    fs::remove_all(folder_ / "refused");
    return Error(ErrorCode::kUsage, "no Error was thrown");
  }
  fs::path folder_;
};

}  // namespace tessera
