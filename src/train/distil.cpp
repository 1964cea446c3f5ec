#include "train/distil.h"

#include <torch/csrc/api/include/torch/optim/adamw.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "core/tokenizer.h"
#include "data/calibration.h"
#include "data/document.h"
#include "data/domain_sampler.h"
#include "train/distil_teacher.h"
#include "train/router_folder.h"
#include "train/routers.h"

namespace tessera {
namespace {

constexpr int kCalibrationTexts = 600;
constexpr int kStepsBetweenLooks = 50, kTextsOfALook = 200;
constexpr uint64_t kCalibrationStream = 0xca1, kLookStream = 0x100c;

// Class of each of the data's domains.
std::vector<int> labels_of(const Architecture& a, const ShardSet& shards) {
  const std::vector<std::string> names = routed_names(a.hierarchy);
  std::vector<int> labels;
  for (const std::string& domain : shards.domains()) labels.push_back(routed_index(a.hierarchy, domain));
  for (size_t i = 0; i < names.size(); ++i) {
    if (std::find(labels.begin(), labels.end(), static_cast<int>(i)) != labels.end()) continue;
    throw Error(ErrorCode::kConfig,
                fmt::format("config key 'model.hierarchy.domains': the data has no documents of \"{}\"", names[i]),
                fmt::format("its labels are {}", fmt::join(shards.domains(), ", ")));
  }
  for (size_t d = 0; d < labels.size(); ++d) {
    if (labels[d] < 0 && shards.domains()[d] != kMixedDomain)
      warn_once("the data's domain \"" + shards.domains()[d] + "\" is not in the config: left out");
  }
  return labels;
}

// Level 1 by itself: everything else of the architecture is as small as can be.
Architecture lone_router(const Architecture& a) {
  Architecture lone = a;
  lone.trunk.num_layers = 1;
  lone.trunk.num_dense_layers = 0;
  lone.trunk.width = lone.trunk.num_heads = lone.trunk.num_kv_heads = 2;
  lone.trunk.head_dim = 2;
  lone.trunk.tied_embeddings = true;
  lone.hierarchy.num_active = 1;
  lone.hierarchy.num_banks = lone.hierarchy.base_width = lone.hierarchy.always_on_width = 0;
  lone.hierarchy.base.clear();
  lone.hierarchy.unique_width = 1;
  for (Domain& d : lone.hierarchy.domains) {
    d.num_components = 1;
    d.components.clear();
  }
  lone.component_router.kind = "gate";
  return lone;
}

std::vector<std::string> router_tensors(const Parameters& parameters) {
  std::vector<std::string> names;
  for (const std::string& name : parameters.learnt_names()) {
    if (name.starts_with("domain_router.")) names.push_back(name);
  }
  return names;
}

class Student {
 public:
  Student(const Architecture& architecture, uint64_t seed)
      : architecture_(lone_router(architecture)),
        parameters_(architecture_, seed),
        names_(router_tensors(parameters_)) {}
  const Architecture& architecture() const { return architecture_; }
  const Parameters& parameters() const { return parameters_; }
  const std::vector<std::string>& names() const { return names_; }
  DomainPlan plan(const PackedRows& rows) const {
    return plan_domains(architecture_, parameters_, rows, {}, {});  // reads an embedding of its own
  }

 private:
  Architecture architecture_;
  Parameters parameters_;
  std::vector<std::string> names_;
};

// Blanks tokens, so that no single one (a project's name) decides.
void drop_tokens(std::vector<LabelledText>& texts, int32_t bos, double share, Rng& rng) {
  for (LabelledText& text : texts) {
    for (int32_t& token : text.tokens) token = rng.uniform() < share ? bos : token;
  }
}

void clip(const std::vector<at::Tensor>& parameters) {  // to norm 1
  const at::NoGradGuard no_grad;
  double squares = 0;
  for (const at::Tensor& p : parameters) squares += p.grad().defined() ? p.grad().square().sum().item<double>() : 0;
  if (squares <= 1) return;
  for (const at::Tensor& p : parameters) {
    if (p.grad().defined()) p.grad().mul_(1 / std::sqrt(squares));
  }
}

// The student's decisions on texts of the sources kept apart; the same texts for the same stream.
std::vector<TextDecisions> decide_kept_apart(const Student& student, const DomainSampler& sampler, double splice_share,
                                             int length, int num_texts, uint64_t seed, uint64_t stream) {
  const at::NoGradGuard no_grad;
  std::vector<TextDecisions> decisions;
  Rng rng(seed, stream);
  for (int drawn = 0; static_cast<int>(decisions.size()) < num_texts; drawn += 8) {
    check_draws(drawn, num_texts, student.architecture().domain_router.chunk_tokens);
    std::vector<LabelledText> texts;
    for (int i = 0; i < 8; ++i) texts.push_back(sampler.draw(rng, length, splice_share, true));
    const PackedRows rows = pack_texts(texts, student.architecture().domain_router.chunk_tokens);
    append_decisions(student.plan(rows), rows, sampler.num_classes(), decisions);
  }
  return decisions;
}

// KL of the student from the teacher's soft labels, mean over some windows drawn at random: at the end of a window the
// teacher reads what the student has read.
at::Tensor teacher_divergence(const Student& student, const std::vector<TeacherWindow>& windows,
                              const at::Tensor& teacher_log_labels, const DistilConfig& config, int32_t bos, Rng& rng) {
  std::vector<LabelledText> labelled;
  std::vector<int64_t> which;
  for (int i = 0; i < config.texts; ++i) {
    which.push_back(static_cast<int64_t>(rng.below(windows.size())));
    labelled.push_back(windows[static_cast<size_t>(which.back())].text);
  }
  drop_tokens(labelled, bos, config.token_dropout, rng);
  const PackedRows rows = pack_texts(labelled, student.architecture().domain_router.chunk_tokens);
  std::vector<int64_t> last_but_one;  // the chunk whose end is the boundary
  for (size_t i = 0; i < labelled.size(); ++i) {
    for (size_t c = 0; c < rows.chunks.size(); ++c) {
      const auto& chunk = rows.chunks[c];
      if (chunk.row == static_cast<int64_t>(i) && chunk.end == static_cast<int64_t>(labelled[i].tokens.size()))
        last_but_one.push_back(static_cast<int64_t>(c) - 1);
    }
  }
  const at::Tensor log_q = teacher_log_labels.index_select(0, at::tensor(which));
  const at::Tensor log_p = at::log_softmax(student.plan(rows).logits_CM.index_select(0, at::tensor(last_but_one)), 1);
  return (log_q.exp() * (log_q - log_p)).sum(1).mean();
}

// Returns what the report says of it.
Json train_student(const Student& student, const DomainSampler& sampler, const DistilConfig& config, int length,
                   int32_t bos, const std::vector<TeacherWindow>& windows, const at::Tensor& teacher_log_labels,
                   uint64_t seed, Rng& rng) {
  std::vector<at::Tensor> matrices, vectors;
  for (const std::string& name : student.names()) {
    const at::Tensor& tensor = student.parameters()[name];
    (tensor.dim() > 1 ? matrices : vectors).push_back(tensor);
  }
  // It gets worse on other sources while it still gets better on those that it sees: the weights that were best on the
  // sources kept apart stay.
  std::vector<at::Tensor> best;
  double least = std::numeric_limits<double>::infinity();
  int64_t kept_step = config.steps;
  using torch::optim::AdamWOptions;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(matrices,
                      std::make_unique<AdamWOptions>(AdamWOptions(config.lr).betas({0.9, 0.98}).weight_decay(0.05)));
  groups.emplace_back(vectors,
                      std::make_unique<AdamWOptions>(AdamWOptions(config.lr).betas({0.9, 0.98}).weight_decay(0)));
  torch::optim::AdamW optimizer(groups, AdamWOptions(config.lr));
  const int chunk_tokens = student.architecture().domain_router.chunk_tokens;
  double mean_loss = 0;
  Progress progress("student", 10.0);
  for (int64_t step = 0; step < config.steps; ++step) {
    const double warm = std::min(1.0, static_cast<double>(step + 1) / 30.0),
                 cosine =
                     0.5 *
                     (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(config.steps)));
    for (auto& group : optimizer.param_groups())
      static_cast<AdamWOptions&>(group.options()).lr(config.lr * warm * std::max(0.02, cosine));
    std::vector<LabelledText> texts;
    for (int i = 0; i < config.texts; ++i) texts.push_back(sampler.draw(rng, length, config.splice_share));
    drop_tokens(texts, bos, config.token_dropout, rng);
    at::Tensor loss = student.plan(pack_texts(texts, chunk_tokens)).loss;
    if (!windows.empty()) {
      const at::Tensor divergence =
          config.teacher_weight * teacher_divergence(student, windows, teacher_log_labels, config, bos, rng);
      loss = loss.defined() ? loss + divergence : divergence;
    }
    if (!loss.defined()) continue;  // only texts too short for a decision
    if (!std::isfinite(loss.item<double>())) {
      throw Error(ErrorCode::kDiverged, fmt::format("step {}: the student's loss is not finite", step + 1),
                  "lower router.distil.lr");
    }
    optimizer.zero_grad();
    torch::autograd::backward({loss}, {});
    clip(matrices);
    optimizer.step();
    mean_loss += 0.03 * (loss.item<double>() - mean_loss);
    progress.update(static_cast<double>(step + 1), static_cast<double>(config.steps),
                    fmt::format("loss {:.3f}", mean_loss));
    if (sampler.has_calibration() && ((step + 1) % kStepsBetweenLooks == 0 || step + 1 == config.steps)) {
      const std::vector<TextDecisions> decisions =
          decide_kept_apart(student, sampler, config.splice_share, length, kTextsOfALook, seed, kLookStream);
      const int m = sampler.num_classes();
      DomainRouter router;
      router.temperature = fit_temperature(decisions, m, router);
      const double apart = cross_entropy(decisions, m, router);
      log_info("student: step {}, {:.3f} nats a chunk on the sources kept apart", step + 1, apart);
      if (apart < least) {
        least = apart;
        kept_step = step + 1;
        best.clear();
        for (const std::string& name : student.names()) best.push_back(student.parameters()[name].detach().clone());
      }
    }
  }
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < best.size(); ++i) student.parameters()[student.names()[i]].copy_(best[i]);
  progress.finish(fmt::format("loss {:.3f}", mean_loss));
  return {{"loss", mean_loss}, {"kept_step", kept_step}, {"kept_apart_nats", best.empty() ? Json() : Json(least)}};
}

}  // namespace

Json distil(Config config, const DistilOptions& options) {
  const ShardSet shards(config.data.path, /*verify_hashes=*/false);
  Architecture& a = config.model;
  if (a.trunk.vocab_size == 0) a.trunk.vocab_size = shards.vocab_size();
  check(config);
  if (a.domain_router.kind != "encoder") {
    throw Error(ErrorCode::kConfig,
                "config key 'model.domain_router.kind': expected \"encoder\", found \"" + a.domain_router.kind + "\"",
                "only an encoder can be distilled");
  }
  if (!a.domain_router.own_embedding) {
    throw Error(ErrorCode::kConfig,
                "config key 'model.domain_router.own_embedding': must be true for a distilled router",
                "the trunk's embedding moves in training, and what level 1 learnt from it would be lost");
  }
  const std::vector<int> labels = labels_of(a, shards);
  const DomainSampler sampler(shards, labels, /*hold_out=*/true);
  const Tokenizer tokenizer = shards.tokenizer();
  at::set_num_threads(config.train.num_threads > 0 ? config.train.num_threads : num_cpus());
  const std::vector<std::string> names = routed_names(a.hierarchy);
  if (sampler.has_calibration()) {
    log_info("kept apart for calibration: {}", fmt::join(sampler.calibration_sources(), ", "));
  } else {
    warn_once(
        "a domain has fewer than four sources: temperature 1 and the config's margin are kept, uncalibrated, and so "
        "are the last step's weights");
  }
  const DistilConfig& d = config.router.distil;
  Rng rng(config.train.seed, 0xd157);
  Json report = {{"seed", config.train.seed}, {"calibration_sources", sampler.calibration_sources()}};

  std::vector<TeacherWindow> windows;
  at::Tensor log_labels;
  const Student student(a, config.train.seed);
  if (options.teacher) {
    Teacher teacher(*options.teacher);
    teacher.set_domains(names);
    windows = draw_windows(sampler, tokenizer, a.domain_router.chunk_tokens, d.teacher_windows, d.splice_share, rng);
    tune_teacher(teacher, windows, d.teacher_epochs, rng);
    log_labels = teacher_log_labels(teacher, windows);
    teacher.save(options.out / "teacher");
    report["teacher_parameters"] = teacher.num_parameters();
  }
  report["student"] = train_student(student, sampler, d, a.trunk.context_length, shards.bos(), windows, log_labels,
                                    config.train.seed, rng);

  if (sampler.has_calibration()) {
    // Most text keeps its domain, so that is what pi is made true for; the margin is for text that changes it.
    const auto decide = [&](double splice_share) {
      return decide_kept_apart(student, sampler, splice_share, a.trunk.context_length, kCalibrationTexts,
                               config.train.seed, kCalibrationStream);
    };
    const std::vector<TextDecisions> plain = decide(0);
    const int m = static_cast<int>(names.size());
    const double before = calibration_error(plain, m, DomainRouter());
    calibrate(plain, m, a.domain_router);
    const MarginChoice margin = choose_margin(decide(d.splice_share), m, a.domain_router);
    a.domain_router.margin = margin.margin;
    const double after = calibration_error(plain, m, a.domain_router);
    report["calibration"] = {{"temperature", a.domain_router.temperature},
                             {"floor", a.domain_router.floor},
                             {"ece_before", before},
                             {"ece", after},
                             {"margin", margin.margin},
                             {"covered_tokens", margin.covered},
                             {"active_domains", margin.mean_active}};
    log_info(
        "temperature {:.3f}, floor {:.3f}, calibration error {:.3f} -> {:.3f} on the sources kept apart; "
        "margin {:.2f}: {:.2f} % of tokens covered by {:.2f} active domains",
        a.domain_router.temperature, a.domain_router.floor, before, after, margin.margin, 100 * margin.covered,
        margin.mean_active);
  }
  save_router(options.out, a, student.parameters(), tokenizer, report);
  return report;
}

}  // namespace tessera
