#include "core/tokenizer_file.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/error.h"
#include "core/reader_fixture.h"
#include "core/tokenizer_fixture.h"

namespace tessera {
namespace {

// Every file that must be refused, what is wrong with it, and what the message must name.
struct Malformed {
  const char* name;
  std::function<std::string(Json)> text;
  const char* expected;
};

std::function<std::string(Json)> with(std::function<void(Json&)> change) {
  return [change](Json json) {
    change(json);
    return json.dump();
  };
}

// The same of SentencePiece's kind.
std::function<std::string(Json)> llama2(std::function<void(Json&)> change) {
  return [change](Json) {
    Json json = llama2_tokenizer();
    change(json);
    return json.dump();
  };
}

std::function<std::string(Json)> replaced(const std::string& from, const std::string& to) {
  return [=](Json json) {
    std::string text = json.dump();
    size_t pos = text.find(from);
    return pos == std::string::npos ? "the test's text is not there" : text.replace(pos, from.size(), to);
  };
}

std::string repeated(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

Json& step(Json& json, int i) { return json["pre_tokenizer"]["pretokenizers"][i]; }

const std::vector<Malformed> kMalformed{
    {"Empty", [](Json) { return std::string(); }, "no valid JSON"},
    {"OnlySpaces", [](Json) { return std::string("  \n"); }, "no valid JSON"},
    {"Binary", [](Json) { return std::string("\0\x01\x02GGUF\xFF", 8); }, "no valid JSON"},
    {"TruncatedInVocab", [](Json j) { return j.dump().substr(0, 1500); }, "no valid JSON"},
    {"TruncatedInMerges", [](Json j) { return j.dump().substr(0, j.dump().rfind("hello")); }, "no valid JSON"},
    {"TruncatedByOne", [](Json j) { return j.dump().substr(0, j.dump().size() - 1); }, "no valid JSON"},
    {"TrailingText", [](Json j) { return j.dump() + "{}"; }, "no valid JSON"},
    {"BrokenUtf8", replaced("hello", "hel\xFFo"), "no valid JSON"},
    {"BrokenEscape", replaced("hello", "hel\\ud800o"), "no valid JSON"},
    {"DeepArrays", [](Json) { return std::string(1000000, '['); }, "nested deeper"},
    {"DeepObjects", replaced("null", repeated("{\"a\":", 100000)), "nested deeper"},
    {"DeepInVocab", replaced("\"hello\":259", "\"hello\":" + std::string(100000, '[')), "model.vocab"},
    {"DeepInMerges", replaced("\"merges\":[", "\"merges\":[" + std::string(100000, '[')), "model.merges[0]"},
    {"RootIsArray", [](Json) { return std::string("[]"); }, "must be an object"},
    {"RootIsNumber", [](Json) { return std::string("7"); }, "must be an object"},
    {"RootIsEmpty", [](Json) { return std::string("{}"); }, "model is missing"},
    {"KeyTwice", replaced("\"normalizer\":null", "\"normalizer\":null,\"normalizer\":null"),
     "\"normalizer\" stands twice"},
    {"VocabTwice", replaced("\"merges\":[", "\"vocab\":{},\"merges\":["), "\"vocab\" stands twice"},
    {"VocabTwiceOtherType", replaced("\"merges\":[", "\"vocab\":1,\"merges\":["), "\"vocab\" stands twice"},
    {"MergesTwice", replaced("\"merges\":[", "\"merges\":[],\"merges\":["), "\"merges\" stands twice"},
    {"OtherVersion", with([](Json& j) { j["version"] = "2.0"; }), "version"},
    {"VersionIsNumber", with([](Json& j) { j["version"] = 1.0; }), "version"},
    {"ModelMissing", with([](Json& j) { j.erase("model"); }), "model is missing"},
    {"ModelIsArray", with([](Json& j) { j["model"] = Json::array(); }), "model must be an object"},
    {"ModelIsNull", with([](Json& j) { j["model"] = nullptr; }), "model must be an object"},
    {"ModelTypeUnigram", with([](Json& j) { j["model"]["type"] = "Unigram"; }), "\"Unigram\""},
    {"ModelTypeWordPiece", with([](Json& j) { j["model"]["type"] = "WordPiece"; }), "\"WordPiece\""},
    {"ModelTypeIsNumber", with([](Json& j) { j["model"]["type"] = 3; }), "model.type"},
    {"Dropout", with([](Json& j) { j["model"]["dropout"] = 0.1; }), "model.dropout"},
    {"SubwordPrefix", with([](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }),
     "continuing_subword_prefix"},
    {"WordSuffix", with([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), "end_of_word_suffix"},
    {"ByteFallbackOfOtherSpaces", with([](Json& j) { j["model"]["byte_fallback"] = true; }), "pre_tokenizer"},
    {"ByteFallbackIsText", with([](Json& j) { j["model"]["byte_fallback"] = "yes"; }), "model.byte_fallback"},
    {"SpacesNotReplaced", llama2([](Json& j) { j["normalizer"] = nullptr; }), "spaces must be replaced"},
    {"SpacesReplacedByOther", llama2([](Json& j) { j["normalizer"]["normalizers"][1]["content"] = "_"; }), "content"},
    {"OtherThanSpacesReplaced", llama2([](Json& j) { j["normalizer"]["normalizers"][1]["pattern"]["String"] = "x"; }),
     "pattern"},
    {"OtherInFront", llama2([](Json& j) { j["normalizer"]["normalizers"][0]["prepend"] = "x"; }), "prepend"},
    {"SpaceInFrontAfterReplacing",
     llama2([](Json& j) { std::swap(j["normalizer"]["normalizers"][0], j["normalizer"]["normalizers"][1]); }),
     "\"Prepend\""},
    {"OtherNormalizer", llama2([](Json& j) { j["normalizer"]["normalizers"][0]["type"] = "NFKC"; }), "\"NFKC\""},
    {"NormalizersIsObject", llama2([](Json& j) { j["normalizer"]["normalizers"] = Json::object(); }), "normalizers"},
    {"SpacesReplacedTwice", llama2([](Json& j) { j["pre_tokenizer"] = metaspace("first"); }), "\"Metaspace\""},
    {"OtherPrependScheme", llama2([](Json& j) {
       j["normalizer"] = nullptr;
       j["pre_tokenizer"] = metaspace("last");
     }),
     "prepend_scheme"},
    {"PrependSchemeIsNumber", llama2([](Json& j) {
       j["normalizer"] = nullptr;
       j["pre_tokenizer"] = metaspace("first");
       j["pre_tokenizer"]["prepend_scheme"] = 1;
     }),
     "prepend_scheme"},
    {"SpaceInFrontTwice", llama2([](Json& j) {
       j["normalizer"]["normalizers"].insert(j["normalizer"]["normalizers"].begin(), j["normalizer"]["normalizers"][0]);
     }),
     "\"Prepend\""},
    {"PrependBesideAMetaspace", llama2([](Json& j) {
       j["normalizer"]["normalizers"].erase(1);
       j["pre_tokenizer"] = metaspace("first");
     }),
     "beside a Metaspace"},
    {"MetaspaceSplits", llama2([](Json& j) {
       j["normalizer"] = nullptr;
       j["pre_tokenizer"] = metaspace("first");
       j["pre_tokenizer"]["split"] = true;
     }),
     "Metaspace.split"},
    {"MetaspaceSplitsUntold", llama2([](Json& j) {
       j["normalizer"] = nullptr;
       j["pre_tokenizer"] = metaspace("first");
       j["pre_tokenizer"].erase("split");
     }),
     "Metaspace.split"},
    {"PrependSchemeMissing", llama2([](Json& j) {
       j["normalizer"] = nullptr;
       j["pre_tokenizer"] = metaspace("first");
       j["pre_tokenizer"].erase("prepend_scheme");
     }),
     "prepend_scheme is missing"},
    {"AddedTokenNormalized", llama2([](Json& j) { j["added_tokens"][1]["normalized"] = true; }),
     "added_tokens[1].normalized"},
    {"OtherDecoder", llama2([](Json& j) { j["decoder"]["decoders"][0]["type"] = "WordPiece"; }), "\"WordPiece\""},
    {"ByteFallbackIgnoresMerges", llama2([](Json& j) { j["model"]["ignore_merges"] = true; }), "ignore_merges"},
    {"ByteTokenMissing", llama2([](Json& j) { j["model"]["vocab"].erase("<0x41>"); }), "<0x41>"},
    {"SpaceInsideAToken", llama2([](Json& j) { j["model"]["vocab"]["a▁"] = 267; }), "space behind"},
    {"IgnoreMergesIsText", with([](Json& j) { j["model"]["ignore_merges"] = "yes"; }), "model.ignore_merges"},
    {"VocabMissing", with([](Json& j) { j["model"].erase("vocab"); }), "model.vocab is missing"},
    {"VocabIsArray", with([](Json& j) {
       j["model"]["vocab"] = {"a", "b"};
     }),
     "model.vocab must be an object"},
    {"VocabIsNull", with([](Json& j) { j["model"]["vocab"] = nullptr; }), "model.vocab must be an object"},
    {"VocabIsEmpty", with([](Json& j) { j["model"]["vocab"] = Json::object(); }), "model.vocab is empty"},
    {"IdIsText", with([](Json& j) { j["model"]["vocab"]["hello"] = "259"; }), "\"hello\""},
    {"IdIsFraction", with([](Json& j) { j["model"]["vocab"]["hello"] = 259.5; }), "\"hello\""},
    {"IdIsNull", with([](Json& j) { j["model"]["vocab"]["hello"] = nullptr; }), "\"hello\""},
    {"IdIsTrue", with([](Json& j) { j["model"]["vocab"]["hello"] = true; }), "\"hello\""},
    {"IdIsObject", with([](Json& j) { j["model"]["vocab"]["hello"] = Json::object(); }), "\"hello\""},
    {"IdIsNegative", with([](Json& j) { j["model"]["vocab"]["hello"] = -1; }), "has id -1"},
    {"IdIsLarge", with([](Json& j) { j["model"]["vocab"]["hello"] = 1 << 22; }), "has id 4194304"},
    {"IdIsFarFromTheOthers", with([](Json& j) { j["model"]["vocab"]["hello"] = 100'000; }), "has id 100000"},
    {"IdIsHuge", with([](Json& j) { j["model"]["vocab"]["hello"] = UINT64_MAX; }), "has id 9223372036854775807"},
    {"IdOverflows32Bits", with([](Json& j) { j["model"]["vocab"]["hello"] = (int64_t{1} << 32) + 259; }), "4294967555"},
    {"IdIsBeyond64Bits", replaced("\"hello\":259", "\"hello\":99999999999999999999999"), "\"hello\""},
    {"IdTwice", with([](Json& j) { j["model"]["vocab"]["hello"] = 258; }), "id 258"},
    {"TokenTwice", replaced("\"hello\":259", "\"hello\":259,\"hello\":265"), "\"hello\" twice"},
    {"EmptyToken", with([](Json& j) { j["model"]["vocab"][""] = 265; }), "empty token"},
    {"TokenOutsideTheAlphabet", with([](Json& j) { j["model"]["vocab"]["中"] = 265; }), "outside the byte alphabet"},
    {"TokenWithSpace", with([](Json& j) { j["model"]["vocab"]["a b"] = 265; }), "outside the byte alphabet"},
    {"ByteMissing", with([](Json& j) { j["model"]["vocab"].erase("A"); }), "no token \"A\" for byte 65"},
    {"HighByteMissing", with([](Json& j) { j["model"]["vocab"].erase(byte_character(0xFF)); }), "for byte 255"},
    {"MergesMissing", with([](Json& j) { j["model"].erase("merges"); }), "model.merges is missing"},
    {"MergesIsObject", with([](Json& j) { j["model"]["merges"] = Json::object(); }), "model.merges must be an array"},
    {"MergesIsText", with([](Json& j) { j["model"]["merges"] = "h e"; }), "model.merges must be an array"},
    {"MergeIsNumber", with([](Json& j) { j["model"]["merges"][2] = 5; }), "model.merges[2]"},
    {"MergeIsNull", with([](Json& j) { j["model"]["merges"][2] = nullptr; }), "model.merges[2]"},
    {"MergeIsObject", with([](Json& j) { j["model"]["merges"][2] = Json::object(); }), "model.merges[2]"},
    {"MergeOfOne", with([](Json& j) { j["model"]["merges"][2] = {"he"}; }), "model.merges[2]"},
    {"MergeOfThree", with([](Json& j) {
       j["model"]["merges"][2] = {"h", "e", "l"};
     }),
     "model.merges[2]"},
    {"MergeOfNumbers", with([](Json& j) {
       j["model"]["merges"][2] = {1, 2};
     }),
     "model.merges[2]"},
    {"MergeTextWithoutSpace", with([](Json& j) { j["model"]["merges"][2] = "hell"; }), "model.merges[2]"},
    {"MergeTextOfThree", with([](Json& j) { j["model"]["merges"][2] = "h e l"; }), "model.merges[2]"},
    {"MergeOfEmpty", with([](Json& j) {
       j["model"]["merges"][2] = {"", "he"};
     }),
     "model.merges[2] needs \"\""},
    {"MergeLeftAbsent", with([](Json& j) {
       j["model"]["merges"][2] = {"xyz", "ll"};
     }),
     "needs \"xyz\""},
    {"MergeRightAbsent", with([](Json& j) {
       j["model"]["merges"][2] = {"he", "xyz"};
     }),
     "needs \"xyz\""},
    {"MergeResultAbsent", with([](Json& j) {
       j["model"]["merges"][2] = {"he", "he"};
     }),
     "needs \"hehe\""},
    {"MergeTwice", with([](Json& j) {
       j["model"]["merges"].push_back({"h", "e"});
     }),
     "model.merges[7] repeats"},
    {"PreTokenizerMissing", with([](Json& j) { j.erase("pre_tokenizer"); }), "pre_tokenizer is missing"},
    {"PreTokenizerIsNull", with([](Json& j) { j["pre_tokenizer"] = nullptr; }), "pre_tokenizer must be an object"},
    {"PreTokenizerUntyped", with([](Json& j) { j["pre_tokenizer"].erase("type"); }), "pre_tokenizer.type is missing"},
    {"PreTokenizerMetaspace", with([](Json& j) {
       j["pre_tokenizer"] = {{"type", "Metaspace"}};
     }),
     "[Metaspace]"},
    {"SequenceEmpty", with([](Json& j) { j["pre_tokenizer"]["pretokenizers"] = Json::array(); }), "pre_tokenizer []"},
    {"SequenceMissing", with([](Json& j) { j["pre_tokenizer"].erase("pretokenizers"); }), "pretokenizers is missing"},
    {"SequenceIsText", with([](Json& j) { j["pre_tokenizer"]["pretokenizers"] = "x"; }), "must be an array"},
    {"StepIsNumber", with([](Json& j) { step(j, 0) = 1; }), "must be an object"},
    {"StepUnknown", with([](Json& j) {
       step(j, 0) = {{"type", "Whitespace"}};
     }),
     "[Whitespace, ByteLevel]"},
    {"StepsSwapped", with([](Json& j) { std::swap(step(j, 0), step(j, 1)); }), "[ByteLevel, Split]"},
    {"UnknownRegex", with([](Json& j) { step(j, 0)["pattern"]["Regex"] = "\\w+"; }), "\\\\w+"},
    {"RegexIsNumber", with([](Json& j) { step(j, 0)["pattern"]["Regex"] = 1; }), "Regex must be a string"},
    {"PatternIsString", with([](Json& j) {
       step(j, 0)["pattern"] = {{"String", " "}};
     }),
     "Split.pattern.Regex"},
    {"PatternMissing", with([](Json& j) { step(j, 0).erase("pattern"); }), "Split.pattern is missing"},
    {"SplitRemoves", with([](Json& j) { step(j, 0)["behavior"] = "Removed"; }), "Isolated"},
    {"SplitInverted", with([](Json& j) { step(j, 0)["invert"] = true; }), "inverted"},
    {"SplitsTwice", with([](Json& j) { step(j, 1)["use_regex"] = true; }), "splits twice"},
    {"PrefixSpace", with([](Json& j) { step(j, 1)["add_prefix_space"] = true; }), "adds a space"},
    {"UseRegexIsText", with([](Json& j) { step(j, 1)["use_regex"] = "no"; }), "ByteLevel.use_regex"},
    {"ByteLevelAlone", with([](Json& j) { j["pre_tokenizer"] = byte_level(false); }), "doesn't split"},
    {"DigitsTogether", with([](Json& j) {
       step(j, 0) = {{"type", "Digits"}, {"individual_digits", false}}, step(j, 1) = byte_level(true);
     }),
     "individual_digits"},
    {"NormalizerNfkc", with([](Json& j) {
       j["normalizer"] = {{"type", "NFKC"}};
     }),
     "\"NFKC\""},
    {"NormalizerIsText", with([](Json& j) { j["normalizer"] = "NFC"; }), "normalizer must be an object"},
    {"DecoderUnknown", with([](Json& j) {
       j["decoder"] = {{"type", "WordPiece"}};
     }),
     "decoder \"WordPiece\""},
    {"DecoderIsArray", with([](Json& j) { j["decoder"] = Json::array(); }), "decoder must be an object"},
    {"AddedTokensIsObject", with([](Json& j) { j["added_tokens"] = Json::object(); }), "added_tokens must be an array"},
    {"AddedTokenIsText", with([](Json& j) { j["added_tokens"][1] = "<x>"; }), "added_tokens[1]"},
    {"AddedTokenWithoutId", with([](Json& j) { j["added_tokens"][1].erase("id"); }), "added_tokens[1].id"},
    {"AddedTokenWithoutText", with([](Json& j) { j["added_tokens"][1].erase("content"); }), "added_tokens[1].content"},
    {"AddedTokenEmpty", with([](Json& j) { j["added_tokens"][1]["content"] = ""; }), "added_tokens[1].content"},
    {"AddedTokenIdIsText", with([](Json& j) { j["added_tokens"][1]["id"] = "x"; }), "added_tokens[1].id"},
    {"AddedTokenIdNegative", with([](Json& j) { j["added_tokens"][1]["id"] = -5; }), "has id -5"},
    {"AddedTokenIdHuge", with([](Json& j) { j["added_tokens"][1]["id"] = UINT64_MAX; }), "added_tokens[1]"},
    {"AddedTokenIdTaken", with([](Json& j) { j["added_tokens"][1]["id"] = 259; }), "id 259"},
    {"AddedTokenOtherIdThanVocab", with([](Json& j) { j["added_tokens"][1]["content"] = "hello"; }), "259 elsewhere"},
    {"AddedTokenTwice", with([](Json& j) { j["added_tokens"][1] = j["added_tokens"][0]; }), "repeats"},
    {"AddedTokenStrips", with([](Json& j) { j["added_tokens"][1]["lstrip"] = true; }), "added_tokens[1].lstrip"},
    {"AddedTokenSingleWord", with([](Json& j) { j["added_tokens"][1]["single_word"] = true; }), "single_word"},
    {"AddedTokenSpecialIsNumber", with([](Json& j) { j["added_tokens"][1]["special"] = 1; }),
     "added_tokens[1].special"},
    {"MegabytesInTheMessage", with([](Json& j) { j["model"]["type"] = std::string(1 << 20, 'x'); }), "model.type"},
};

TEST(TokenizerFileTest, MalformedFilesAreNamed) {
  ASSERT_NO_THROW(make(small_tokenizer()));
  std::set<std::string> names;
  for (const Malformed& malformed : kMalformed) {
    SCOPED_TRACE(malformed.name);
    EXPECT_TRUE(names.insert(malformed.name).second);
    const std::string text = malformed.text(small_tokenizer());
    take_largest_allocation();
    try {
      Tokenizer::from_json(text, "some/tokenizer.json");
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      std::string message = error.what();
      EXPECT_EQ(error.code(), ErrorCode::kData);
      EXPECT_EQ(message.rfind("some/tokenizer.json", 0), 0u) << message;
      EXPECT_NE(message.find(malformed.expected), std::string::npos) << message;
      EXPECT_LT(message.size(), 700u);
    }
    expect_allocation_within(text.size());
  }
  EXPECT_GE(names.size(), 60u);
}

TEST(TokenizerFileTest, SeededMutantsAreReadOrRefused) {
  const auto read = [](const std::string& text) {
    const Tokenizer tokenizer = Tokenizer::from_json(text, "mutant");
    tokenizer.decode(tokenizer.encode("hello <|bos|>\xFF 12", true));
  };
  constexpr const char* kReplacements = "{}[]\",:0129-e\\\xff";
  for (const auto& [json, mutants] : {std::pair(small_tokenizer(), 2500), {llama2_tokenizer(), 1000}}) {
    const MutantCount count = read_mutants(json.dump(), kReplacements, 20261128, mutants, "mutant", read);
    EXPECT_GT(count.read, mutants / 50);
    EXPECT_GT(count.refused, mutants / 2);
  }
}

}  // namespace
}  // namespace tessera
