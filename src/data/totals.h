// Counts of documents, bytes and tokens by split, domain and source: the tables of `data build` and `data stats`.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/json.h"

namespace tessera {

class Totals {
 public:
  void add(const std::string& split, const std::string& domain, const std::string& source,
           const std::vector<std::string>& licences, int64_t bytes, int64_t tokens);
  // [{"split", "domain", "documents", "bytes", "tokens", "bytes_per_token", "longest", "median"}], lengths in tokens.
  Json by_domain() const;
  // The same with "source" and "licences".
  Json by_source() const;

 private:
  struct Group {
    std::set<std::string> licences;
    int64_t bytes = 0;
    std::vector<int64_t> lengths;  // tokens of each document
  };
  static Json summary(const Group& group);
  std::map<std::tuple<std::string, std::string, std::string>, Group> groups_;  // split, domain, source
};

// One row an object, the columns that the objects have, aligned: for the log. `markdown` adds the bars of a table.
std::string format_rows(const Json& rows, bool markdown = false);

}  // namespace tessera
