// For tests of the file readers: mutants of a valid file, and a watch on what a reader allocates.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/rng.h"

namespace tessera {

// The largest single allocation by operator new on this thread since the last call (allocations_test.cpp).
size_t take_largest_allocation();

// A reader may hold its file several times over (as a JSON tree, say), but not more than what the file warrants.
inline void expect_allocation_within(size_t file_bytes) {
  EXPECT_LE(take_largest_allocation(), 64 * file_bytes + (1u << 20)) << "allocated for a file of " << file_bytes;
}

// A few edits of `valid`: bytes changed, bits flipped, ranges removed, repeated or moved, the end cut off, 8 bytes
// overwritten with an extreme number.
inline std::string mutant_of(std::string bytes, const std::string& alphabet, Rng& rng) {
  for (uint64_t edits = 1 + rng.below(3); edits > 0 && !bytes.empty(); --edits) {
    const size_t at = rng.below(bytes.size()), other = rng.below(bytes.size());
    switch (rng.below(8)) {
      case 0:
        bytes[at] = static_cast<char>(rng.below(256));
        break;
      case 1:
        bytes[at] = alphabet[rng.below(alphabet.size())];
        break;
      case 2:
        bytes.insert(at, 1, alphabet[rng.below(alphabet.size())]);
        break;
      case 3:
        bytes.erase(at, 1 + rng.below(9));
        break;
      case 4:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
        break;
      case 5:
        bytes.insert(at, bytes.substr(other, 1 + rng.below(24)));
        break;
      case 6:
        if (rng.below(4) == 0) bytes.resize(at);
        break;
      case 7: {
        const uint64_t extreme = rng.below(2) ? UINT64_MAX >> rng.below(64) : uint64_t{1} << rng.below(64);
        for (size_t i = 0; i < 8 && at + i < bytes.size(); ++i) bytes[at + i] = static_cast<char>(extreme >> 8 * i);
        break;
      }
    }
  }
  return bytes;
}

struct MutantCount {
  int read = 0, refused = 0;
};

// Reads `count` mutants. Each must be read or refused by an Error that begins with `what`; anything else fails the test
// (and under the sanitizers nothing else happens either).
inline MutantCount read_mutants(const std::string& valid, const std::string& alphabet, uint64_t seed, int count,
                                const std::string& what, const std::function<void(const std::string&)>& read) {
  Rng rng(seed);
  MutantCount counted;
  for (int i = 0; i < count; ++i) {
    const std::string bytes = mutant_of(valid, alphabet, rng);
    take_largest_allocation();
    try {
      read(bytes);
      ++counted.read;
    } catch (const Error& e) {
      ++counted.refused;
      EXPECT_EQ(std::string(e.what()).rfind(what, 0), 0u) << "mutant " << i << ": " << e.what();
      EXPECT_LT(std::string(e.what()).size(), 1000u) << "mutant " << i;
    } catch (const std::exception& e) {
      ADD_FAILURE() << "mutant " << i << " of seed " << seed << ": " << e.what();
    }
    expect_allocation_within(bytes.size());
  }
  return counted;
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace tessera
