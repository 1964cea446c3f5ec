// The teacher's part of distillation: the windows of text that it reads, its fine-tuning on their labels, and the soft
// labels that the student learns from.
#pragma once
#include "core/tokenizer.h"
#include "data/domain_sampler.h"
#include "train/teacher.h"

namespace tessera {

// A text that ends with the chunk after a boundary: the teacher reads the window before it, both are asked about the
// chunk behind it.
struct TeacherWindow {
  LabelledText text;
  std::string window;
  std::vector<float> target_M;  // shares of the chunk behind
};

// `count` windows of whole chunks; `splice_share` of the texts are pieces of several domains. Throws as check_draws.
std::vector<TeacherWindow> draw_windows(const DomainSampler& sampler, const Tokenizer& tokenizer, int chunk_tokens,
                                        int count, double splice_share, Rng& rng);

// Fine-tunes the heads and the last blocks by cross-entropy with the targets.
void tune_teacher(Teacher& teacher, const std::vector<TeacherWindow>& windows, int epochs, Rng& rng);

// [windows, domains], log probabilities.
at::Tensor teacher_log_labels(const Teacher& teacher, const std::vector<TeacherWindow>& windows);

// Text is drawn until there are enough decisions, which single short lines would never give: throws Error{kData} when
// `drawn` texts are far more than the `wanted` decisions.
void check_draws(int drawn, int wanted, int chunk_tokens);

}  // namespace tessera
