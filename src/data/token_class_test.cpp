#include "data/token_class.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace tessera {
namespace {

TEST(TokenClass, EveryTokenHasOne) {
  const std::pair<std::string, std::string> expected[] = {{"\n", "line end"},
                                                          {";\n\n", "line end"},
                                                          {"    ", "indentation"},
                                                          {" the", "word start"},
                                                          {"ing", "word piece"},
                                                          {" The", "capitalised"},
                                                          {"A", "capitalised"},
                                                          {"HTTP", "upper case"},
                                                          {"7", "digit"},
                                                          {" 2024", "digit"},
                                                          {"num_layers", "identifier"},
                                                          {"__", "identifier"},
                                                          {",", "punctuation"},
                                                          {" (", "bracket"},
                                                          {"});", "bracket"},
                                                          {" ==", "operator"},
                                                          {"\\", "operator"},
                                                          {"é", "other"},
                                                          {"", "other"},
                                                          {"a1", "other"}};
  for (const auto& [token, name] : expected)
    EXPECT_EQ(kTokenClasses[static_cast<size_t>(token_class(token))], name) << '"' << token << '"';
}

}  // namespace
}  // namespace tessera
