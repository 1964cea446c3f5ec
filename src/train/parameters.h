// The learnt tensors by name, stacked as core/tensor_names says, and their way from and to a model file.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/model_file.h"
#include "core/tensor_names.h"
#include "train/torch.h"

namespace tessera {

class Parameters {
 public:
  // Fresh weights: normal, standard deviation 0.64 / sqrt(fan-in), residual outputs divided by sqrt(2 L), norms 1,
  // buffers 0. Each tensor's values depend on (seed, its name) alone.
  Parameters(const Architecture& architecture, uint64_t seed, at::ScalarType dtype = at::kFloat,
             at::Device device = at::kCPU);
  // From a model file, as load().
  Parameters(const ModelFolder& model, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU);

  // Overwrites the values with those of a model of the same architecture (F32, BF16, F16 or F64 tensors); the tensors
  // stay the same. Throws Error{kData}, also for non-finite values, naming the tensor.
  void load(const ModelFolder& model) const;

  const at::Tensor& operator[](const std::string& name) const;  // BugError when there is none
  bool has(const std::string& name) const { return tensors_.contains(name); }
  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // Learnt ones in order of specs(); buffers left out.
  std::vector<std::string> learnt_names() const;

  // Writes model.safetensors (F32) with the configuration's hash.
  void save(const std::filesystem::path& file, const Architecture& architecture, const std::string& config_hash) const;

 private:
  std::vector<ParameterSpec> specs_;
  std::map<std::string, at::Tensor> tensors_;
};

// A tensor's bytes (contiguous, on the CPU), and a tensor of a file, on the CPU: Error{kData} for a dtype that is not
// F64, F32, F16 or BF16.
std::span<const std::byte> tensor_bytes(const at::Tensor& tensor);
at::Tensor tensor_from_file(const SafetensorsFile& file, const TensorInfo& tensor);
std::string dtype_name(at::ScalarType dtype);

}  // namespace tessera
