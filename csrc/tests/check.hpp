// What every C++ test counts and ends with.
#pragma once
#include <cstdio>
#include <cstdlib>

namespace bisparse {

inline int checks = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
  ++checks;
  if (holds) return;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
  std::exit(1);
}

}  // namespace bisparse

#define CHECK(condition) ::bisparse::check((condition), #condition, __FILE__, __LINE__)
