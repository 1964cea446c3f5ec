#include "core/import.h"

#include <cmath>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/float_bits.h"
#include "base/log.h"
#include "core/config.h"
#include "core/import_source.h"
#include "core/model_file.h"
#include "core/safetensors.h"
#include "core/tensor_names.h"
#include "core/tokenizer.h"

namespace tessera {
namespace fs = std::filesystem;

namespace {

// Rows of a source tensor that become rows of one of ours.
struct Rows {
  std::string name;
  const BlockFormat* format;
  const std::byte* bytes;  // of the first
  int64_t count, length;
  int64_t interleaved_head;  // rows of a head when they are interleaved, else 0

  size_t row_bytes() const {
    return static_cast<size_t>(length / format->block_size) * static_cast<size_t>(format->block_bytes);
  }
  const std::byte* row(int64_t r) const {
    if (interleaved_head > 0) {  // ours: the first half of a head's rows, then the second
      const int64_t half = interleaved_head / 2, within = r % interleaved_head;
      r += 2 * (within % half) + within / half - within;
    }
    return bytes + static_cast<size_t>(r) * row_bytes();
  }
};

class Plan {
 public:
  explicit Plan(const ImportSource& source) : source_(source) {}

  // None for a tensor that no source has: the selection bias, which is zero.
  std::vector<Rows> rows_of(const TensorSpec& spec) {
    std::vector<Rows> found;
    if (spec.buffer) return found;
    const std::vector<std::string> names = names_of(spec);
    const auto parts = static_cast<int64_t>(names.size());
    const int64_t count = spec.shape.size() == 1 ? 1 : spec.shape[0] / parts, length = spec.shape.back();
    const bool rotated = spec.name.ends_with("attention.query") || spec.name.ends_with("attention.key");
    for (const std::string& name : names) {
      const bool stacked = spec.index >= 0 && name == stacked_name_;
      const auto it = source_.tensors.find(name);
      if (it == source_.tensors.end()) throw Error(ErrorCode::kData, source_.what + " has no tensor '" + name + "'");
      std::vector<int64_t> shape = spec.shape;
      if (shape.size() > 1) shape[0] = count;
      if (stacked) shape.insert(shape.begin(), num_components(source_.architecture.hierarchy));
      if (it->second.shape != shape) {
        throw Error(ErrorCode::kData, fmt::format("{}: tensor '{}': expected shape [{}], found [{}]", source_.what,
                                                  name, fmt::join(shape, ", "), fmt::join(it->second.shape, ", ")));
      }
      Rows rows{name,
                it->second.format,
                it->second.bytes.data(),
                count,
                length,
                rotated && source_.names.interleaved_rope ? head_dim(source_.architecture.trunk) : 0};
      if (stacked) rows.bytes += static_cast<size_t>(spec.index * count) * rows.row_bytes();
      found.push_back(std::move(rows));
      used_.insert(name);
    }
    return found;
  }

  // A tensor that nothing asked for belongs to a model of another kind.
  void check_all_used() const {
    for (const auto& [name, unused] : source_.tensors) {
      const bool ignored = std::any_of(source_.ignored.begin(), source_.ignored.end(),
                                       [&](const std::string& ending) { return name.ends_with(ending); });
      if (ignored || used_.contains(name)) continue;
      throw Error(ErrorCode::kData, fmt::format("{}: tensor '{}' has no place in a model of the Llama or Mixtral shape",
                                                source_.what, name));
    }
  }

 private:
  std::vector<std::string> names_of(const TensorSpec& spec) {
    const SourceNames& names = source_.names;
    if (spec.name == "embedding") return {names.embedding};
    if (spec.name == "final_norm") return {names.final_norm};
    if (spec.name == "head") return {names.head};
    std::string key = spec.name.substr(spec.name.find('.', 7) + 1);  // behind "layers.N."
    if (spec.index >= 0) key = "components" + key.substr(key.rfind('.'));
    const auto theirs = names.in_layer.find(key);
    TESSERA_CHECK(theirs != names.in_layer.end(), spec.name);
    const std::string prefix = fmt::format(fmt::runtime(names.layer), spec.layer);
    std::vector<std::string> out;
    for (const std::string& name : theirs->second) {
      const bool each = name.find("{}") != name.npos;
      out.push_back(prefix + (each ? fmt::format(fmt::runtime(name), spec.index) : name));
      stacked_name_ = each ? "" : out.back();
    }
    return out;
  }

  const ImportSource& source_;
  std::set<std::string> used_;
  std::string stacked_name_;
};

std::string dtype_of(const std::vector<Rows>& rows, const std::string& wanted) {
  if (rows.empty() || rows[0].count == 1) return "F32";  // norms and the selection bias
  if (wanted != "auto") return wanted;
  const std::string_view name = rows[0].format->name;
  for (const Rows& r : rows) {
    if (r.format->name != name || r.format->block_size > 1) return "F32";
  }
  return std::string(name);
}

void append_number(std::string& bytes, float value, const std::string& dtype) {
  if (dtype == "F32") {
    bytes.append(reinterpret_cast<const char*>(&value), 4);
  } else {
    const uint16_t bits = dtype == "F16" ? f16_from_float(value) : bf16_from_float(value);
    bytes.append(reinterpret_cast<const char*>(&bits), 2);
  }
}

void write_rows(const Rows& rows, const std::string& dtype, const std::string& what, SafetensorsWriter& file) {
  std::vector<float> row(static_cast<size_t>(rows.length));
  std::string bytes;
  for (int64_t r = 0; r < rows.count; ++r) {
    dequantize(*rows.format, rows.row(r), rows.length, row.data());
    bytes.clear();
    for (const float value : row) {
      if (!std::isfinite(value))
        throw Error(ErrorCode::kData, what + ": tensor '" + rows.name + "' has values that are not finite");
      if (dtype == "F16" && std::abs(value) >= 65520.0f)
        throw Error(ErrorCode::kData,
                    fmt::format("{}: tensor '{}' has {}, which F16 can't hold", what, rows.name, value),
                    "use --dtype BF16 or F32");
      append_number(bytes, value, dtype);
    }
    file.write(std::as_bytes(std::span(bytes)));
  }
}

void write_weights(const ImportSource& source, const std::string& wanted, const fs::path& path,
                   const std::string& hash) {
  Plan plan(source);
  const std::vector<TensorSpec> specs = tensor_specs(source.architecture);
  std::vector<std::vector<Rows>> rows;
  std::vector<TensorToWrite> tensors;
  for (const TensorSpec& spec : specs) {
    rows.push_back(plan.rows_of(spec));
    tensors.push_back({spec.name, dtype_of(rows.back(), wanted), spec.shape, {}, spec.page_start});
  }
  plan.check_all_used();
  SafetensorsWriter file(path, tensors, {{"format", "pt"}, {kConfigHashKey, hash}});
  Progress progress("importing");
  for (size_t i = 0; i < specs.size(); ++i) {
    for (const Rows& r : rows[i]) write_rows(r, tensors[i].dtype, source.what, file);
    if (rows[i].empty()) file.write(std::vector<std::byte>(4 * static_cast<size_t>(num_elements(specs[i].shape))));
    progress.update(static_cast<double>(i + 1), static_cast<double>(specs.size()));
  }
  for (const MappedFile* map : source.maps) map->check_intact();
  file.close();
}

// Refuses sizes that the source can't fill before lists of that length are made.
void check_sizes(const ImportSource& source) {
  const Architecture& a = source.architecture;
  try {
    check(a);
  } catch (const Error& e) {
    throw Error(ErrorCode::kData, source.what + ": " + e.what(), e.hint());
  }
  size_t num_bytes = 0;
  for (const auto& [name, tensor] : source.tensors) num_bytes += tensor.bytes.size();
  const auto layers = static_cast<size_t>(a.trunk.num_layers);
  const auto components = static_cast<size_t>(num_components(a.hierarchy));
  if (layers > source.tensors.size() || layers * components > num_bytes)
    throw Error(ErrorCode::kData, fmt::format("{} claims {} layers of {} components and has {} tensors of {} bytes",
                                              source.what, layers, components, source.tensors.size(), num_bytes));
}

// Returns the pre-tokenizer's name. A tokenizer of a kind that we don't read is dropped: the weights are still worth
// having.
std::string check_tokenizer(ImportSource& source) {
  std::optional<Tokenizer> tokenizer;
  try {
    if (!source.tokenizer_json.empty()) tokenizer = Tokenizer::from_json(source.tokenizer_json, "its tokenizer");
  } catch (const Error& e) {
    source.tokenizer_json.clear();
    source.no_tokenizer = e.what();
  }
  if (!tokenizer) {
    log_warn("{}: {}; the model will take token ids only", source.what, source.no_tokenizer);
    return "";
  }
  if (tokenizer->vocab_size() > source.architecture.trunk.vocab_size)
    throw Error(ErrorCode::kData, fmt::format("{}: the tokenizer has {} tokens, the embedding {} rows", source.what,
                                              tokenizer->vocab_size(), source.architecture.trunk.vocab_size));
  return std::string(tokenizer->pre_tokenizer());
}

}  // namespace

ImportSummary import_model(const fs::path& path, const fs::path& given_out, const ImportOptions& options) {
  TESSERA_CHECK(options.dtype == "auto" || options.dtype == "F32" || options.dtype == "F16" || options.dtype == "BF16",
                options.dtype);
  fs::path out = given_out.lexically_normal();
  if (!out.has_filename()) out = out.parent_path();  // "models/mine/"
  const fs::path beside = out.string() + ".writing";
  std::error_code ignored;
  try {
    if (fs::exists(out))
      throw Error(ErrorCode::kFile, out.string() + " is there already", "remove it, or name another folder");
    ImportSource source = fs::is_directory(path) ? open_hugging_face_source(path) : open_gguf_source(path);
    check_sizes(source);
    ImportSummary summary{source.architecture, 0, check_tokenizer(source)};
    for (const ParameterSpec& spec : parameter_specs(source.architecture))
      summary.num_parameters += spec.buffer ? 0 : num_elements(spec.shape);
    const Json config = {{"format", "tessera-1"},
                         {"model", to_json(source.architecture)},
                         {"eos_tokens", source.eos_tokens},
                         {"source", source.origin}};
    fs::remove_all(beside);
    fs::create_directories(beside);
    write_json_file(beside / "config.json", config);
    if (!source.tokenizer_json.empty()) write_file_atomic(beside / "tokenizer.json", source.tokenizer_json);
    if (!source.chat_template.empty()) write_file_atomic(beside / "chat_template.jinja", source.chat_template);
    write_weights(source, options.dtype, beside / "model.safetensors", config_hash(config));
    publish_folder(beside, out);
    return summary;
  } catch (const fs::filesystem_error& e) {
    fs::remove_all(beside, ignored);
    throw Error(ErrorCode::kFile, e.what());
  } catch (...) {
    fs::remove_all(beside, ignored);
    throw;
  }
}

}  // namespace tessera
