#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "train/tasks.h"

namespace tessera {

double learning_rate(const OptimizerConfig& c, int64_t step, int64_t num_steps) {
  if (step < c.warmup_steps) return c.lr * static_cast<double>(step + 1) / static_cast<double>(c.warmup_steps);
  const double lowest = c.lr * c.min_lr_share;
  const double decay_steps = c.schedule == "wsd" ? c.decay_share * static_cast<double>(num_steps)
                                                 : static_cast<double>(num_steps - c.warmup_steps);
  const double left =
      static_cast<double>(num_steps - step) / std::max(1.0, decay_steps);  // 1 at the start of the decay, 0 at its end
  if (left >= 1) return c.lr;
  const double share = c.schedule == "wsd" ? left : 0.5 * (1 + std::cos(std::numbers::pi * (1 - left)));
  return lowest + (c.lr - lowest) * share;
}

namespace {

bool is_table(const std::string& name) { return name.ends_with("embedding") || name == "head"; }  // a row a token

// What gives scores row by row (tables, router heads and gates) has no business being orthogonal.
bool is_inner_matrix(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() >= 2 && !is_table(name) && name.find(".head") == std::string::npos &&
         !name.ends_with("router_gate");
}

// How many matrices lie one under the other in a parameter of this name.
int64_t blocks_of(const std::string& name) { return name.ends_with("gate_up") ? 2 : 1; }

constexpr int64_t kAligned = 16;  // elements of a vector
constexpr double kMuonMomentum = 0.95;
constexpr float kQuintic[] = {3.4445f, -4.7750f, 2.0315f};  // of x, x^3 and x^5 (Jordan et al.)

// All tensors' elements in pieces of about a cache's size.
struct Piece {
  size_t tensor;
  int64_t first, count;
};
std::vector<Piece> pieces_of(const std::vector<at::Tensor>& tensors) {
  constexpr int64_t kPiece = 1 << 15;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); ++i)
    for (int64_t first = 0; first < tensors[i].numel(); first += kPiece)
      pieces.push_back({i, first, std::min(kPiece, tensors[i].numel() - first)});
  return pieces;
}

// body(number of the piece, piece), over the threads.
template <class Body>
void for_each_piece(const std::vector<Piece>& pieces, const Body& body) {
  for_each_task(static_cast<int64_t>(pieces.size()), [&](int64_t task) {
    const size_t number = static_cast<size_t>(task);
    body(number, pieces[number]);
  });
}

// Newton-Schulz of one matrix of at most as many rows as columns, in place.
void orthogonalise_in_place(float* x, int64_t rows, int64_t columns) {
  const int64_t size = rows * columns;
  const float inverse = static_cast<float>(1 / (std::sqrt(sum_of_squares(x, size)) + 1e-7));
  float *square = scratch(0, rows * rows), *polynomial = scratch(1, rows * rows), *next = scratch(2, size);
  for (int64_t i = 0; i < size; ++i) x[i] *= inverse;
  for (int i = 0; i < 5; ++i) {
    gram(rows, columns, x, columns, square);
    std::copy_n(square, rows * rows, polynomial);  // b X X^T + c (X X^T)^2
    gram(rows, rows, square, rows, polynomial, kQuintic[1], kQuintic[2]);
    std::copy_n(x, size, next);
    gemm(rows, columns, rows, {polynomial, rows}, {x, columns}, next, columns, kQuintic[0]);
    std::copy_n(next, size, x);
  }
}

}  // namespace

at::Tensor orthogonalised(const at::Tensor& matrices) {
  const bool tall = matrices.size(-2) > matrices.size(-1);
  at::Tensor x = tall ? matrices.transpose(-2, -1) : matrices;
  if (uses_kernels(x)) {
    x = x.clone(at::MemoryFormat::Contiguous);
    const int64_t rows = x.size(-2), columns = x.size(-1);
    for_each_task(x.numel() / (rows * columns), [&](int64_t i) {
      orthogonalise_in_place(x.mutable_data_ptr<float>() + i * rows * columns, rows, columns);
    });
    return tall ? x.transpose(-2, -1) : x;
  }
  x = x / (at::linalg_vector_norm(x, 2, at::IntArrayRef{-2, -1}, true) + 1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gram = at::matmul(x, x.transpose(-2, -1));
    const at::Tensor polynomial = at::matmul(gram, gram).mul_(kQuintic[2]).add_(gram, kQuintic[1]);
    x = at::matmul(polynomial, x).add_(x, kQuintic[0]);
  }
  return tall ? x.transpose(-2, -1) : x;
}

Optimizer::Optimizer(const Parameters& parameters, const OptimizerConfig& config) : config_(config) {
  enum { kMatrices, kVectors, kTables, kMuon };
  groups_ = {{false, config.weight_decay, 1},
             {false, 0, 1},
             {false, config.weight_decay, config.embedding_lr_scale},
             {true, config.weight_decay, 1}};
  for (const std::string& name : parameters.learnt_names()) {
    const at::Tensor& parameter = parameters[name];
    if (!parameter.requires_grad()) continue;  // kept as it is: a distilled level 1, what --add-domain adds to
    const bool muon = config.kind == "muon" && is_inner_matrix(name, parameter);
    Group& group = groups_[muon ? kMuon : parameter.dim() < 2 ? kVectors : is_table(name) ? kTables : kMatrices];
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    if (!muon) continue;
    const std::string layer = name.substr(0, name.rfind("components.down"));
    const bool reads_bank = name.ends_with("components.down") && parameters.has(layer + "banks.gate_up");
    group.base_widths.push_back(reads_bank ? parameters[layer + "banks.gate_up"].size(-2) / 2 : 0);
  }
  std::erase_if(groups_, [](const Group& group) { return group.parameters.empty(); });
  if (groups_.empty()) return;
  int64_t size = 0, adamw_size = 0;
  for (Group& group : groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      group.begins.push_back(size);
      size += (parameter.numel() + kAligned - 1) / kAligned * kAligned;
    }
    if (!group.muon) adamw_size = size;
  }
  const at::NoGradGuard no_grad;
  const at::TensorOptions options = groups_[0].parameters[0].options();
  parameters_ = at::empty({size}, options), m_ = at::zeros({size}, options), v_ = at::zeros({adamw_size}, options);
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      const at::Tensor place = part(parameters_, group, i);
      place.copy_(group.parameters[i]);
      group.parameters[i].set_data(place);
    }
  }
}

at::Tensor Optimizer::part(const at::Tensor& flat, const Group& group, size_t i) {
  return flat.narrow(0, group.begins[i], group.parameters[i].numel()).view(group.parameters[i].sizes());
}

double Optimizer::clip_gradients() {
  std::vector<at::Tensor> grads;
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) {
      if (!parameter.grad().defined()) parameter.mutable_grad() = at::zeros_like(parameter);
      grads.push_back(parameter.grad().contiguous());
    }
  }
  if (grads.empty()) return 0;
  double sum = 0;
  if (uses_kernels(parameters_)) {
    const std::vector<Piece> pieces = pieces_of(grads);
    std::vector<double> sums(pieces.size());
    for_each_piece(pieces, [&](size_t number, const Piece& piece) {
      sums[number] = sum_of_squares(grads[piece.tensor].const_data_ptr<float>() + piece.first, piece.count);
    });
    sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  } else {
    for (const at::Tensor& norm : at::_foreach_norm(grads)) sum += std::pow(norm.item<double>(), 2);
  }
  const double norm = std::sqrt(sum);
  grad_scale_ = config_.clip_norm > 0 && norm > config_.clip_norm ? config_.clip_norm / norm : 1;
  return norm;
}

void Optimizer::adamw_step(const Group& group, double lr) {
  std::vector<at::Tensor> grads;
  for (const at::Tensor& parameter : group.parameters) grads.push_back(parameter.grad().contiguous());
  if (uses_kernels(parameters_)) {
    const double t = static_cast<double>(num_steps_);
    const AdamWStep step{static_cast<float>(lr),
                         static_cast<float>(config_.beta1),
                         static_cast<float>(config_.beta2),
                         static_cast<float>(config_.eps),
                         static_cast<float>(group.weight_decay),
                         static_cast<float>(1 - std::pow(config_.beta1, t)),
                         static_cast<float>(1 - std::pow(config_.beta2, t)),
                         static_cast<float>(grad_scale_)};
    float *m = m_.mutable_data_ptr<float>(), *v = v_.mutable_data_ptr<float>();
    for_each_piece(pieces_of(grads), [&](size_t, const Piece& piece) {
      const auto& [i, first, count] = piece;
      const int64_t at = group.begins[i] + first;
      adamw(group.parameters[i].mutable_data_ptr<float>() + first, grads[i].const_data_ptr<float>() + first, m + at,
            v + at, count, step);
    });
    return;
  }
  if (grad_scale_ != 1) at::_foreach_mul_(grads, grad_scale_);
  std::vector<at::Tensor> m, v;
  for (size_t i = 0; i < grads.size(); ++i) m.push_back(part(m_, group, i)), v.push_back(part(v_, group, i));
  const std::vector<at::Tensor> steps(
      grads.size(), at::full({}, static_cast<double>(num_steps_), parameters_.options().dtype(at::kFloat)));
  at::_fused_adamw_(group.parameters, grads, m, v, {}, steps, lr, config_.beta1, config_.beta2, group.weight_decay,
                    config_.eps, /*amsgrad=*/false, /*maximize=*/false);
}

void Optimizer::muon_step(const Group& group, double lr) {
  std::vector<at::Tensor> grads, momenta;
  for (size_t i = 0; i < group.names.size(); ++i) {
    grads.push_back(group.parameters[i].grad());
    momenta.push_back(part(m_, group, i));
  }
  if (grad_scale_ != 1) at::_foreach_mul_(grads, grad_scale_);
  at::_foreach_mul_(momenta, kMuonMomentum);
  at::_foreach_add_(momenta, grads);
  // Matrices that are stored as one are updated as what they are: gate and up, and the parts of an output matrix that
  // read the bank and the component's own units. All of one shape go through together.
  std::vector<std::vector<at::Tensor>> parts(grads.size());  // of each parameter: [matrices, rows, columns]
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor nesterov = grads[i].add(momenta[i], kMuonMomentum);
    for (const at::Tensor& columns : nesterov.tensor_split(at::IntArrayRef{group.base_widths[i]}, -1)) {
      if (columns.size(-1) > 0)
        parts[i].push_back(columns.unflatten(-2, {blocks_of(group.names[i]), -1}).flatten(0, -3));
    }
  }
  std::map<std::pair<int64_t, int64_t>, std::vector<at::Tensor*>> of_shape;
  for (auto& of_parameter : parts) {
    for (at::Tensor& part : of_parameter) of_shape[{part.size(1), part.size(2)}].push_back(&part);
  }
  for (auto& [shape, places] : of_shape) {
    std::vector<at::Tensor> matrices;
    for (const at::Tensor* part : places) matrices.push_back(*part);
    const at::Tensor together = orthogonalised(at::cat(matrices));
    int64_t begin = 0;
    for (at::Tensor* part : places) {
      const int64_t count = part->size(0);
      *part = together.narrow(0, begin, count);
      begin += count;
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    const at::Tensor& parameter = group.parameters[i];
    const at::Tensor update = (parts[i].size() == 1 ? parts[i][0] : at::cat(parts[i], -1)).reshape(parameter.sizes());
    const int64_t rows = parameter.size(-2) / blocks_of(group.names[i]);
    const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(rows, parameter.size(-1))));
    parameter.mul_(1 - lr * group.weight_decay).add_(update, -lr * scale);
    parts[i].clear();
  }
}

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  ++num_steps_;
  for (Group& group : groups_) {
    group.muon ? muon_step(group, lr) : adamw_step(group, lr * group.lr_scale);
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad() = at::Tensor();
  }
  grad_scale_ = 1;
}

std::map<std::string, at::Tensor> Optimizer::state() const {
  std::map<std::string, at::Tensor> state;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state[group.names[i] + ".m"] = part(m_, group, i);
      if (!group.muon) state[group.names[i] + ".v"] = part(v_, group, i);
    }
  }
  return state;
}

void Optimizer::load_state(const SafetensorsFile& file, int64_t num_steps) {
  for (auto& [name, tensor] : state()) {
    const TensorInfo& info = file.at(name);
    const at::Tensor value = tensor_from_file(file, info);
    if (value.sizes() != tensor.sizes())
      throw Error(ErrorCode::kData, file.path().string() + ": tensor '" + info.name + "' has another shape");
    tensor.copy_(value);
  }
  num_steps_ = num_steps;
}

}  // namespace tessera
