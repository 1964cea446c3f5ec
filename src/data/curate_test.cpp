#include "data/curate.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "core/unicode.h"
#include "data/clean.h"
#include "data/minhash.h"
#include "data/quality.h"
#include "data/words.h"

namespace tessera {
namespace {

// Sentences of made-up words: no passage stands twice, and two seeds share nothing.
std::string prose(uint64_t seed, int num_words) {
  Rng rng(seed);
  std::string text;
  for (int w = 1; w <= num_words; ++w) {
    for (uint64_t i = 3 + rng.below(6); i > 0; --i) text += static_cast<char>('a' + rng.below(26));
    text += w % 90 == 0 ? ".\n\n" : w % 12 == 0 ? ".\n" : " ";
  }
  return text;
}

Document document(std::string text, std::string domain = "prose", std::string split = "train") {
  return {.text = std::move(text), .domain = std::move(domain), .source = "s", .split = std::move(split)};
}

TEST(Normalise, UnicodeLinesAndSpaces) {
  const auto check = [](const std::string& text, const std::string& expected, TextKind kind = TextKind::kProse) {
    EXPECT_EQ(normalise(text, kind), expected);
  };
  check("cafe\u0301", "caf\u00e9\n");  // composed
  check("a\r\nb\rc\nd", "a\nb\nc\nd\n");
  check("a \t\nb  ", "a\nb\n");
  check(
      "\xEF\xBB\xBF"
      "a\x01\x7F\u0085\u200B\u00ADb",
      "ab\n");
  check("a\u00A0b\tc", "a b\tc\n");
  check("a\fb\u2028c", "a\nb\nc\n");
  check("\n\na\n\n\n\n\nb\n\n", "a\n\nb\n");
  check("\n\na\n\n\n\n\nb\n\n", "a\n\n\nb\n", TextKind::kCode);
  check("  indented", "  indented\n");
  check("日本語 😀 ≤", "日本語 😀 ≤\n");
  check("", "");
  check(" \n\t\n", "");
}

TEST(StripMarkup, HtmlBecomesText) {
  const auto check = [](const std::string& text, const std::string& expected) {
    EXPECT_EQ(strip_markup(text), expected + "\n");
  };
  check("a <b>bold</b> <a href=\"x\">link</a><br/>end", "a bold link\nend");
  check("x &lt; y &amp;&amp; z &#233; &#x4E; &mdash; &unknown; &", "x < y && z é N — &unknown; &");
  check("before<!-- hidden -->after", "beforeafter");
  // What only looks like markup stays.
  for (const std::string plain :
       {"a < b and c > d", "if a<b and c>d then", "std::vector<int> v", "the function f(<a>, <i>) of <a>",
        "&#0; &#xD800; &;", "<", "a <b", "<a href=\"open"}) {
    check(plain, plain);
  }
}

TEST(StripMarkup, RestructuredTextBecomesText) {
  const auto check = [](const std::string& text, const std::string& expected) {
    EXPECT_EQ(strip_markup(text), expected + "\n");
  };
  check("Title\n=====\n\ntext", "Title\n\ntext");
  check("=====\nTitle\n=====\n\ntext", "Title\n\ntext");
  check("see :class:`~a.b.Thing` and :math:`x^2` and ``code`` and `text <url>`_ end",
        "see Thing and x^2 and code and text end");
  check(".. math::\n   :label: one\n\n   x = 1", "\n   x = 1");
  check(".. note:: Take care.\n   More.", "Take care.\n   More.");
  check(".. toctree::\n   :maxdepth: 2\n\n   intro\n   usage\n\nAfter.", "After.");
  check(".. _label:\n\ntext::\n\n  x", "\ntext:\n\n  x");
  // What only looks like markup stays.
  for (const std::string plain : {"count\n-----\n   12\n   13", "```{r}\nx <- 1\n```", "``quoted'' and ``again''",
                                  "a `name` here", "...", "key: value :x y", "ratio 3:4 `x", "The end."}) {
    check(plain, plain);
  }
}

// Any order of the pieces that the parsers look for: no exception, and what comes out is UTF-8 (asan looks on).
TEST(Clean, SurvivesAnyMixOfMarkup) {
  const std::vector<std::string> pieces{"`",    "``",     "```",    "_",   ":a:", ":",    "<",       ">",
                                        "</",   "<a",     " href=", "\"",  "&",   "#x",   ";",       ".. ",
                                        "::",   "\n",     "\n\n",   "===", "---", " ",    "~",       "!",
                                        "text", "é",      "\u2028", "\r",  "/*",  "*/",   "//",      "#",
                                        "a",    "<!--",   "-->",    "[1]", "|",   "note", "toctree", "copyright",
                                        "\t",   "\u0301", "\u200B"};
  for (uint64_t trial = 0; trial < 20'000; ++trial) {
    Rng rng(trial);
    std::string text;
    for (uint64_t n = rng.below(30); n > 0; --n) text += pieces[rng.below(pieces.size())];
    for (const TextKind kind : {TextKind::kProse, TextKind::kCode}) {
      const std::string out = normalise(strip_markup(strip_licence(normalise(text, kind), kind)), kind);
      ASSERT_EQ(valid_utf8_prefix(out), out.size()) << text;
      ASSERT_EQ(normalise(out, kind), out) << text;
      quality_fault(out, kind);
      says_generated(out);
    }
  }
}

TEST(StripLicence, HeadersOfCodeGoAndCodeStays) {
  const auto check = [](const std::string& header, const std::string& rest) {
    EXPECT_EQ(strip_licence(header + rest, TextKind::kCode), rest) << header;
  };
  check("// Copyright 2009 The Authors. All rights reserved.\n// Use is governed by a license.\n",
        "\n// Package x does y.\npackage x\n");
  check("/* SPDX-License-Identifier: MIT */\n", "#include <a.h>\n");
  check("/*\n * foo.c\n * Copyright (C) 1999\n */\n", "int x;\n");
  check("# Licensed under the PSF\n# and more\n", "import os\n");
  check("; Copyright someone\n", "(define x 1)\n");
  const std::string shebang = "#!/bin/sh\n";
  EXPECT_EQ(strip_licence(shebang + "# Copyright me\nls\n", TextKind::kCode), shebang + "ls\n");
  for (const std::string kept :
       {"// Adds two numbers.\nint x;\n", "int x;  // Copyright in a statement\n", "#define LICENSE 1\n",
        "/* Copyright */ int x;\n", "int x;\n// Copyright 2000\n", "/* Copyright, never closed\n"}) {
    EXPECT_EQ(strip_licence(kept, TextKind::kCode), kept);
  }
}

TEST(StripLicence, ParagraphsOfTextGo) {
  const std::string text =
      "The story begins.\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy.\n\nIt "
      "ends.\n";
  EXPECT_EQ(strip_licence(text, TextKind::kProse), "The story begins.\n\nIt ends.\n");
  EXPECT_EQ(strip_licence("Title\nCopyright (c) 1990 Me\n© You\nText about copyright.\n", TextKind::kScience),
            "Title\nText about copyright.\n");
}

TEST(SaysGenerated, OnlyInComments) {
  EXPECT_TRUE(says_generated("// Code generated by stringer; DO NOT EDIT.\npackage x\n"));
  EXPECT_TRUE(says_generated("#!/bin/sh\n# This file is automatically generated\n"));
  EXPECT_FALSE(says_generated("const header = `// Code generated by stringer`\n"));
  EXPECT_FALSE(says_generated("// Generates numbers.\nint f();\n"));
}

TEST(Quality, EachRule) {
  const auto fault = [](const std::string& text, TextKind kind) {
    const char* found = quality_fault(text, kind);
    return std::string(found ? found : "");
  };
  const std::string good = prose(1, 300);
  EXPECT_EQ(fault(good, TextKind::kProse), "");
  EXPECT_EQ(fault("Tiny.\n", TextKind::kProse), "too short");
  EXPECT_EQ(fault(good.substr(0, 300) + std::string(400, 'A') + "9/+\n", TextKind::kCode),
            "encoded data (base64 or hexadecimal)");
  std::string minified;
  for (int i = 0; i < 400; ++i) minified += "var a" + std::to_string(i) + "=f(b);";
  EXPECT_EQ(fault(minified + "\n", TextKind::kCode), "very long lines (minified, or a data table)");
  std::string digits, signs, lines, passages;
  for (int i = 0; i < 99; ++i) digits += std::to_string(i * 7919) + ", " + std::to_string(i * 104729) + "\n";
  for (int i = 0; i < 99; ++i) signs += "+-*/ (" + std::string(1, static_cast<char>('a' + i % 26)) + ") {[]} ;; \n";
  EXPECT_EQ(fault(digits, TextKind::kProse), "mostly digits (a data table)");
  EXPECT_EQ(fault(digits, TextKind::kMathematics), "mostly digits (a data table)");
  EXPECT_EQ(fault(signs, TextKind::kScience), "too few letters");
  for (int i = 0; i < 20; ++i)
    lines += "The same line is written again.\nBut " + prose(static_cast<uint64_t>(i), 2) + "\n";
  EXPECT_EQ(fault(lines, TextKind::kProse), "repeated lines");
  for (int i = 0; i < 20; ++i) passages += prose(7, 25) + prose(static_cast<uint64_t>(100 + i), 5);
  std::replace(passages.begin(), passages.end(), '\n', ' ');
  EXPECT_EQ(fault(passages, TextKind::kProse), "repeated passages");
  // What is normal in one kind of text is not in another.
  std::string code;
  for (char c = 'a'; c <= 'z'; ++c) code += std::string("  if (ok) {\n    return value_") + c + "(i);\n  }\n";
  EXPECT_EQ(fault(code, TextKind::kCode), "");
}

TEST(Words, FoldCaseSpacingAndPunctuation) {
  EXPECT_EQ(word_hashes("Hello,  World_1!"), word_hashes("hello world_1"));
  EXPECT_NE(word_hashes("hello world"), word_hashes("world hello"));
  EXPECT_TRUE(word_hashes(" .,;\n").empty());
  const auto words = word_hashes("a b c d e a b c");
  const auto grams = gram_hashes(words, 3);
  ASSERT_EQ(grams.size(), 6u);
  EXPECT_EQ(grams[0], grams[5]);
  EXPECT_NE(grams[0], grams[1]);
  EXPECT_EQ(gram_hashes(words, 100).size(), 1u);
}

TEST(Words, HashSetHoldsWhatWasInserted) {
  HashSet set;
  Rng rng(3);
  std::vector<uint64_t> hashes{0, 1};
  for (int i = 0; i < 5000; ++i) hashes.push_back(rng.next());
  for (const uint64_t h : hashes) EXPECT_EQ(set.insert(h), h != 1);  // 0 counts as 1
  for (const uint64_t h : hashes) EXPECT_TRUE(set.contains(h) && !set.insert(h));
  for (int i = 0; i < 5000; ++i) EXPECT_FALSE(set.contains(rng.next()));
}

// The estimate must agree with the true similarity, also of short texts, whose bins are mostly borrowed.
TEST(MinHash, EstimatesJaccard) {
  for (const int size : {20, 100, 1000, 20'000}) {
    for (const double shared : {0.0, 0.3, 0.6, 0.9, 1.0}) {
      double estimate = 0, truth = 0;
      constexpr int kTrials = 40;
      for (int trial = 0; trial < kTrials; ++trial) {
        Rng rng(static_cast<uint64_t>(trial), static_cast<uint64_t>(size));
        std::vector<uint64_t> a, b;
        const int common = static_cast<int>(shared * size);
        for (int i = 0; i < size; ++i) {
          a.push_back(rng.next());
          b.push_back(i < common ? a.back() : rng.next());
        }
        truth = static_cast<double>(common) / (2 * size - common);
        estimate += estimated_jaccard(minhash(a), minhash(b)) / kTrials;
      }
      EXPECT_NEAR(estimate, truth, 0.04) << size << " " << shared;
    }
  }
}

// Replaces every n-th word.
std::string altered(std::string text, int n) {
  int word = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ' && ++word % n == 0 && i + 1 < text.size()) text[i + 1] = 'Z';
  }
  return text;
}

int64_t dropped(const CurationReport& report, const std::string& reason) {
  for (const Removal& removal : report.removals()) {
    if (removal.reason == reason) return removal.documents;
  }
  return 0;
}

TEST(Deduplicate, ExactAndNearDuplicatesGoTheFirstStays) {
  std::vector<Document> documents;
  for (uint64_t i = 0; i < 50; ++i) {
    documents.push_back(document(prose(i, 600)));
    documents.push_back(document(altered(prose(i, 600), 100)));  // Jaccard about 0.9
    documents.push_back(document(altered(prose(i, 600), 8)));    // about 0.25: another text
  }
  documents.push_back(document(prose(3, 600)));
  const std::string first = documents[0].text;
  CurationReport report;
  deduplicate_documents(documents, {}, report, 2);
  EXPECT_EQ(dropped(report, "exact duplicate"), 1);
  EXPECT_GE(dropped(report, "near-duplicate"), 48);
  EXPECT_LE(dropped(report, "near-duplicate"), 50);
  EXPECT_GE(documents.size(), 100u);
  EXPECT_EQ(documents[0].text, first);
}

TEST(Deduplicate, EvaluationDocumentsWinOverTraining) {
  std::vector<Document> documents{document(prose(1, 400)),
                                  document(altered(prose(2, 400), 90)),
                                  document(prose(3, 400)),
                                  document(prose(1, 400), "prose", "heldout"),
                                  document(prose(2, 400), "cross", "cross"),
                                  document(altered(prose(1, 400), 90), "prose", "heldout")};
  CurationReport report;
  deduplicate_documents(documents, {}, report);
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].split, "heldout");
  EXPECT_EQ(documents[1].split, "cross");
  EXPECT_EQ(documents[2].text, prose(3, 400));
}

TEST(Deduplicate, OverlapWithEvaluationTextsIsRemoved) {
  const std::string evaluation = prose(1, 400), extra = prose(2, 400);
  const auto words_of = [](const std::string& text, int from, int count) {
    std::string words;
    size_t at = 0;
    for (int w = 0; w < from + count; ++w) {
      const size_t end = text.find_first_of(" \n", at);
      if (w >= from) words += text.substr(at, end - at) + " ";
      at = text.find_first_not_of(" \n", end);
    }
    return words;
  };
  const std::vector<Document> training{
      document(prose(10, 2000) + words_of(evaluation, 100, 60) + prose(11, 2000)),  // a long passage
      document(prose(12, 2000) + words_of(evaluation, 200, 30) + prose(13, 2000)),  // a quotation: may stay
      document(prose(14, 80) + words_of(evaluation, 300, 20)),                      // a fifth of a short text
      document(prose(15, 80) + words_of(evaluation, 350, 12)),                      // less than 13 words
      document(prose(16, 2000) + words_of(extra, 100, 60)),                         // of a file given by --against
  };
  auto documents = training;
  documents.push_back(document(evaluation, "prose", "heldout"));
  CurationReport report;
  deduplicate_documents(documents, {document(extra)}, report, 2);
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].split, "heldout");
  EXPECT_EQ(documents[1].text, training[1].text);
  EXPECT_EQ(documents[2].text, training[3].text);
  EXPECT_EQ(dropped(report, "shares passages with evaluation texts"), 3);
}

TEST(Curate, IsTheSameOnAnyNumberOfThreads) {
  std::vector<Document> raw;
  for (uint64_t i = 0; i < 300; ++i) {
    raw.push_back(document(prose(i % 200, 50 + static_cast<int>(i)) + "<b>x</b> &amp;\r\n", i % 3 ? "prose" : "code",
                           i % 7 ? "train" : "heldout"));
    if (i % 5 == 0) raw.push_back(document(std::string(300, 'x'), "science"));
    if (i % 11 == 0) raw.push_back(document("tiny"));
  }
  const auto run = [&](int num_threads) {
    auto documents = raw;
    CurationReport report;
    clean_documents(documents, report, num_threads);
    deduplicate_documents(documents, {}, report, num_threads);
    std::string all = report.json().dump();
    for (const Document& d : documents) all += document_line(d);
    return all;
  };
  const std::string once = run(1);
  EXPECT_EQ(once, run(2));
  EXPECT_EQ(once, run(5));
  EXPECT_NE(once.find("too short"), std::string::npos);
}

TEST(CurationReport, CountsAndShowsAFewSamples) {
  CurationReport report;
  for (int i = 0; i < 20; ++i) report.add("quality", "too short", document("text\n" + std::to_string(10 + i)));
  report.add("taken out", "markup", 5);
  ASSERT_EQ(report.removals().size(), 2u);
  EXPECT_EQ(report.removals()[0].documents, 20);
  EXPECT_EQ(report.removals()[0].bytes, 20 * 7);
  ASSERT_EQ(report.removals()[0].samples.size(), 3u);
  EXPECT_TRUE(report.removals()[0].samples[0].starts_with("s: text 1") ||
              report.removals()[0].samples[0].starts_with("s: text 2"));
  EXPECT_EQ(report.removals()[1].bytes, 5);
}

}  // namespace
}  // namespace tessera
