#include "train/metrics.h"

#include <numbers>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace tessera {

StepMetrics::StepMetrics(const Architecture& a)
    : architecture_(&a), text_names_(routed_names(a.hierarchy)), owner_of_component_(owner_of_components(a.hierarchy)) {
  for (const Domain& d : a.hierarchy.domains) owner_names_.push_back(d.name);
  picks_LN_.assign(static_cast<size_t>(num_component_layers(a)), std::vector<int64_t>(owner_of_component_.size(), 0));
  even_picks_N_.assign(owner_of_component_.size(), 0.0);
  picks_by_text_and_owner_.assign(text_names_.size() + 1, std::vector<int64_t>(owner_names_.size(), 0));
}

void StepMetrics::add(const PackedRows& rows, const Forward& forward, double micro_nats) {
  nats += micro_nats;
  ++num_micro_;
  if (forward.domains.loss.defined()) domain_loss += forward.domains.loss.item<double>();
  const int64_t k = architecture_->hierarchy.num_active;
  const std::vector<int> routed = routed_domains(architecture_->hierarchy);
  for (size_t c = 0; c < rows.chunks.size() && !forward.choices.empty(); ++c) {
    std::vector<uint8_t> eligible(architecture_->hierarchy.domains.size(), 1);  // by domain
    for (size_t d = 0; d < routed.size(); ++d)
      eligible[static_cast<size_t>(routed[d])] = forward.domains.active_CM[c * routed.size() + d];
    double num_eligible = 0;
    for (int owner : owner_of_component_) num_eligible += eligible[static_cast<size_t>(owner)];
    const double each = static_cast<double>((rows.chunks[c].end - rows.chunks[c].begin) * k) / num_eligible;
    for (size_t i = 0; i < even_picks_N_.size(); ++i)
      even_picks_N_[i] += eligible[static_cast<size_t>(owner_of_component_[i])] ? each : 0.0;
  }
  for (size_t l = 0; l < forward.choices.size(); ++l) {
    const at::Tensor ids = forward.choices[l].ids_SK.to(at::kCPU).contiguous();
    const int64_t* id = ids.data_ptr<int64_t>();
    for (int64_t i = 0; i < ids.numel(); ++i) {
      ++picks_LN_[l][static_cast<size_t>(id[i])];
      const int label = rows.labels_RT.empty() ? -1 : rows.labels_RT[static_cast<size_t>(i / k)];
      const size_t text = label < 0 ? text_names_.size() : static_cast<size_t>(label);
      ++picks_by_text_and_owner_[text][static_cast<size_t>(owner_of_component_[static_cast<size_t>(id[i])])];
    }
  }
}

double StepMetrics::bits_per_byte() const {
  return bytes > 0 ? nats / std::numbers::ln2 / static_cast<double>(bytes) : 0;
}

std::vector<std::vector<double>> StepMetrics::load_by_domain() const {
  std::vector<std::vector<double>> load;
  for (size_t text = 0; text < text_names_.size(); ++text) {
    double total = 0;
    for (int64_t n : picks_by_text_and_owner_[text]) total += static_cast<double>(n);
    std::vector<double> row;
    for (int64_t n : picks_by_text_and_owner_[text]) row.push_back(total > 0 ? static_cast<double>(n) / total : 0);
    load.push_back(std::move(row));
  }
  return load;
}

std::string StepMetrics::line(int64_t batch_tokens) const {
  std::string text = fmt::format("loss {:.3f}  {:.3f} bits/byte  {:.0f} tokens/s",
                                 nats / static_cast<double>(batch_tokens), bits_per_byte(), tokens_per_s);
  if (text_names_.size() < 2) return text;
  // Of each domain's text: the share of picks that its own components got.
  text += "  own load";
  const auto load = load_by_domain();
  for (size_t m = 0; m < text_names_.size(); ++m) {
    const auto owner = std::find(owner_names_.begin(), owner_names_.end(), text_names_[m]);
    text +=
        fmt::format(" {} {:.0f}%", text_names_[m], 100 * load[m][static_cast<size_t>(owner - owner_names_.begin())]);
  }
  return text;
}

Json StepMetrics::to_json(int64_t batch_tokens) const {
  Json json = {{"loss", nats / static_cast<double>(batch_tokens)},
               {"bpb", bits_per_byte()},
               {"lr", learning_rate},
               {"gradient_norm", gradient_norm},
               {"tokens_per_s", tokens_per_s}};
  if (owner_names_.empty()) return json;
  json["domain_loss"] = num_micro_ > 0 ? domain_loss / static_cast<double>(num_micro_) : 0;
  const auto load = load_by_domain();
  for (size_t m = 0; m < text_names_.size(); ++m) {
    for (size_t o = 0; o < owner_names_.size(); ++o) json["load"][text_names_[m]][owner_names_[o]] = load[m][o];
  }
  return json;
}

MetricsLog::MetricsLog(const std::filesystem::path& run, int64_t first_step) : path_(run / "metrics.jsonl") {
  std::string kept;
  if (std::filesystem::exists(path_)) {
    read_lines(path_, [&](std::string_view text, int64_t) {
      const Json json = Json::parse(text, nullptr, false);  // the last line may be cut by a crash
      if (json.is_object() && json.value("step", int64_t{0}) <= first_step) kept += std::string(text) + "\n";
      return true;
    });
  }
  write_file_atomic(path_, kept);
  file_.open(path_, std::ios::app);
  if (!file_) throw Error(ErrorCode::kFile, "cannot append to " + path_.string());
  events_ = std::make_unique<EventFile>(run, first_step > 0 ? first_step + 1 : 0);
}

void MetricsLog::line(const Json& json) {
  file_ << json.dump() << std::endl;
  if (!file_)
    throw Error(ErrorCode::kFile, "cannot write " + path_.string(), "free some disk space and go on with --resume");
  events_->flush();
}

void MetricsLog::step(const StepMetrics& metrics, int64_t step, int64_t tokens, int64_t batch_tokens) {
  Json json = {{"step", step}, {"tokens", tokens}};
  json.update(metrics.to_json(batch_tokens));
  for (const char* key : {"loss", "bpb", "lr", "gradient_norm", "tokens_per_s", "domain_loss"}) {
    if (json.contains(key)) events_->scalar(std::string("train/") + key, step, json[key].get<double>());
  }
  if (json.contains("load")) {
    for (const auto& [text, owners] : json["load"].items()) {
      for (const auto& [owner, share] : owners.items())
        events_->scalar("load/" + text + "/" + owner, step, share.get<double>());
    }
  }
  line(json);
}

void MetricsLog::evaluation(int64_t step, int64_t tokens, const Json& evaluation) {
  Json json = {{"step", step},
               {"tokens", tokens},
               {"eval",
                {{"bpb", evaluation.at("bpb")},
                 {"bpb_all", evaluation.at("bpb_all")},
                 {"bpb_mean", evaluation.at("bpb_mean")}}}};
  if (evaluation.contains("route_statistics")) json["route_statistics"] = evaluation["route_statistics"];
  for (const auto& [domain, bpb] : evaluation.at("bpb").items())
    events_->scalar("heldout_bpb/" + domain, step, bpb.get<double>());
  events_->scalar("heldout_bpb/mean", step, evaluation.at("bpb_mean").get<double>());
  line(json);
}

}  // namespace tessera
