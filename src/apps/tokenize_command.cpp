// tessera tokenize: text to token ids and back, a line at a time, for scripts and for the parity test.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/commands.h"
#include "base/error.h"
#include "base/json.h"
#include "core/tokenizer.h"

namespace tessera {
namespace {

struct TokenizeOptions {
  std::string tokenizer_path;
  bool special = false;
  bool decode = false;
};

void encode_line(const Tokenizer& tokenizer, const TokenizeOptions& options, const std::string& line,
                 const std::string& place) {
  Json document = parse_json(line, place);
  const Json& text = document.is_object() && document.contains("text") ? document["text"] : document;
  if (!text.is_string())
    throw Error(ErrorCode::kData, place + ": expected a JSON string or an object with a string \"text\"");
  std::cout << Json(tokenizer.encode(text.get_ref<const std::string&>(), options.special)).dump() << '\n';
}

void decode_line(const Tokenizer& tokenizer, const TokenizeOptions& options, const std::string& line,
                 const std::string& place) {
  Json ids = parse_json(line, place);
  std::vector<int32_t> tokens;
  if (!ids.is_array()) throw Error(ErrorCode::kData, place + ": expected a JSON array of token ids");
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size())
      throw Error(ErrorCode::kData,
                  place + ": " + id.dump() + " is no token id below " + std::to_string(tokenizer.vocab_size()));
    tokens.push_back(id.get<int32_t>());
  }
  // Bytes that are no UTF-8 have no place in JSON and come out as U+FFFD.
  Json text = tokenizer.decode(tokens, options.special);
  std::cout << text.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
}

void run_tokenize(const TokenizeOptions& options) {
  Tokenizer tokenizer = Tokenizer::from_file(options.tokenizer_path);
  std::ios::sync_with_stdio(false);
  std::string line;
  for (int64_t line_number = 1; std::getline(std::cin, line); ++line_number) {
    std::string place = "standard input, line " + std::to_string(line_number);
    options.decode ? decode_line(tokenizer, options, line, place) : encode_line(tokenizer, options, line, place);
  }
  std::cout.flush();
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = app.add_subcommand(
      "tokenize",
      "Encode texts from standard input, one JSON string or {\"text\": ...} a line, as JSON arrays of token ids");
  command->add_option("tokenizer", options->tokenizer_path, "A tokenizer.json")->required();
  command->add_flag("--special", options->special, "Read special tokens in the texts; with --decode, write them");
  command->add_flag("--decode", options->decode, "The reverse: arrays of ids in, JSON strings out");
  command->footer("Example:\n  echo '\"Hello world\"' | tessera tokenize data/tokenizers/tessera-4096.json");
  command->callback([options] { run_tokenize(*options); });
}

}  // namespace tessera
