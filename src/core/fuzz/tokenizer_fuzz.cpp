#include "core/fuzz/fuzz_target.h"
#include "core/tokenizer.h"

void tessera::read_path(const std::filesystem::path& path) {
  const Tokenizer tokenizer = Tokenizer::from_file(path);
  tokenizer.decode(tokenizer.encode("Hello <|bos|> \xFF 12\n\n caf\u00e9 <tool>", true));
}
