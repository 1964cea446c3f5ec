#include "train/parameters.h"

#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace tessera {
namespace {

const std::map<std::string, at::ScalarType>& dtypes() {
  static const std::map<std::string, at::ScalarType> table = {
      {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}};
  return table;
}

bool is_residual_output(const std::string& name) {
  return name.ends_with("attention.output") || name.ends_with(".down");
}

at::Tensor initial_value(const ParameterSpec& spec, const Architecture& a, uint64_t seed) {
  if (spec.buffer) return at::zeros(spec.shape, at::kFloat);
  if (spec.shape.size() == 1) return at::ones(spec.shape, at::kFloat);
  // An embedding row has no fan-in; as a head its fan-in is the width, the last dimension like everywhere else.
  double deviation = 0.64 / std::sqrt(static_cast<double>(spec.shape.back()));
  if (is_residual_output(spec.name)) deviation /= std::sqrt(2.0 * a.trunk.num_layers);
  at::Tensor value = at::empty(spec.shape, at::kFloat);
  uint64_t stream = 0;
  for (char c : spec.name) stream = mix64(stream ^ static_cast<unsigned char>(c));
  Rng rng(seed, stream);
  float* data = value.data_ptr<float>();
  for (int64_t i = 0; i < value.numel(); ++i) data[i] = static_cast<float>(deviation * rng.normal());
  return value;
}

}  // namespace

std::span<const std::byte> tensor_bytes(const at::Tensor& tensor) {
  TESSERA_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "tensor_bytes needs a contiguous CPU tensor");
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

std::string dtype_name(at::ScalarType dtype) {
  for (const auto& [name, type] : dtypes()) {
    if (type == dtype) return name;
  }
  throw BugError("no file dtype for this tensor");
}

at::Tensor tensor_from_file(const SafetensorsFile& file, const TensorInfo& info) {
  const auto type = dtypes().find(info.dtype);
  if (type == dtypes().end()) {
    throw Error(ErrorCode::kData,
                file.path().string() + ": tensor '" + info.name + "': dtype " + info.dtype + " can't be trained on",
                "quantised models run in the engine alone (generate, chat, eval, bench); use the model they come from");
  }
  at::Tensor tensor = at::empty(info.shape, type->second);
  const std::span<const std::byte> bytes = file.bytes(info);
  TESSERA_CHECK(bytes.size() == tensor.nbytes(), info.name);
  if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  file.file().check_intact();
  return tensor;
}

Parameters::Parameters(const Architecture& a, uint64_t seed, at::ScalarType dtype, at::Device device)
    : specs_(parameter_specs(a)) {
  for (const ParameterSpec& spec : specs_) {
    tensors_[spec.name] = initial_value(spec, a, seed).to(device, dtype).set_requires_grad(!spec.buffer);
  }
}

Parameters::Parameters(const ModelFolder& model, at::ScalarType dtype, at::Device device)
    : specs_(parameter_specs(model.architecture)) {
  for (const ParameterSpec& spec : specs_) {
    tensors_[spec.name] =
        at::empty(spec.shape, at::TensorOptions().dtype(dtype).device(device)).set_requires_grad(!spec.buffer);
  }
  load(model);
}

void Parameters::load(const ModelFolder& model) const {
  const at::NoGradGuard no_grad;
  for (const TensorSpec& spec : tensor_specs(model.architecture)) {
    const TensorInfo& info = model.weights->at(spec.name);
    check_finite(*model.weights, info);
    at::Tensor target = (*this)[spec.parameter];
    if (spec.slice >= 0) target = target.select(0, spec.slice).narrow(0, spec.row, spec.shape[0]);
    target.copy_(tensor_from_file(*model.weights, info));
  }
}

const at::Tensor& Parameters::operator[](const std::string& name) const {
  const auto it = tensors_.find(name);
  TESSERA_CHECK(it != tensors_.end(), "no parameter '" + name + "'");
  return it->second;
}

std::vector<std::string> Parameters::learnt_names() const {
  std::vector<std::string> names;
  for (const ParameterSpec& spec : specs_) {
    if (!spec.buffer) names.push_back(spec.name);
  }
  return names;
}

void Parameters::save(const std::filesystem::path& file, const Architecture& architecture,
                      const std::string& config_hash) const {
  std::map<std::string, at::Tensor> on_cpu;
  for (const ParameterSpec& spec : specs_) {
    on_cpu[spec.name] = tensors_.at(spec.name).detach().to(at::kCPU, at::kFloat).contiguous();
  }
  std::vector<TensorToWrite> tensors;
  std::vector<at::Tensor> slices;  // keeps the bytes alive until they are written
  for (const TensorSpec& spec : tensor_specs(architecture)) {
    at::Tensor value = on_cpu.at(spec.parameter);
    if (spec.slice >= 0) value = value.select(0, spec.slice).narrow(0, spec.row, spec.shape[0]);
    slices.push_back(value.contiguous());
    tensors.push_back(
        {spec.name, dtype_name(value.scalar_type()), spec.shape, tensor_bytes(slices.back()), spec.page_start});
  }
  write_safetensors(file, tensors, {{"format", "pt"}, {kConfigHashKey, config_hash}});
}

}  // namespace tessera
