// Models of other programs into a Tessera model folder: GGUF files and Hugging Face folders of the Llama shape (a dense
// model: no domains) and the Mixtral shape (a flat MoE: one domain, no banks, a linear gate).
#pragma once
#include <filesystem>
#include <string>

#include "core/hierarchy.h"

namespace tessera {

struct ImportOptions {
  std::string dtype =
      "auto";  // of the matrices: "F32", "F16", "BF16"; "auto": as the source has them, F32 if quantised
};

struct ImportSummary {
  Architecture architecture;
  int64_t num_parameters = 0;
  std::string
      tokenizer;  // the pre-tokenizer's name; empty: the source has no tokenizer that we read (a warning said so)
};

// Writes OUT/config.json, model.safetensors, and, where the source has one that we read, tokenizer.json,
// chat_template.jinja: beside first, then renamed. config.json's "source" says where the model came from, its
// "eos_tokens" [ids] what ends an answer. Rows are converted one at a time, so memory stays small. Throws Error{kData}
// naming the file and the key or tensor that is missing, of another shape, not finite, or of a kind that our models
// don't have; Error{kFile} when OUT is there already.
ImportSummary import_model(const std::filesystem::path& source, const std::filesystem::path& out,
                           const ImportOptions& options = {});

}  // namespace tessera
