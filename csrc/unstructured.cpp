// The `kept` largest of all entries: radix selection of the threshold, 16 bits a pass, then one pass that writes the mask.
#include <algorithm>
#include <bit>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace bisparse {
namespace {

constexpr std::int64_t kChunk = 1 << 16;
constexpr int kDigitBits = 16;

// Non-negative floats order like their bit patterns. A pattern above infinity's, or a sign, marks an invalid score.
std::uint64_t key_of(std::uint32_t bits, bool absolute, bool& invalid) {
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  invalid |= magnitude >= 0x7f800000u || (!absolute && bits > 0x80000000u);
  return magnitude;
}

std::uint64_t key_of(double value, bool absolute, bool& invalid) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(value), magnitude = bits & ~(1ull << 63);
  invalid |= magnitude >= 0x7ff0000000000000ull || (!absolute && bits > 1ull << 63);
  return magnitude;
}

std::uint32_t half_to_float_bits(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, rest = (half & 0x7fffu) << 13;
  const std::uint32_t special = rest >= 0x0f800000u ? 0x7f800000u : 0u;
  return std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) * 0x1p112f) | special | sign;
}

// Reads entries by flat (row-major) index as ordered keys.
class Keys {
 public:
  explicit Keys(const MaskProblem& problem) : p_(problem) {}

  int passes() const { return solved_in_double(p_.dtype) ? 4 : 2; }

  double value(std::uint64_t key) const {
    return solved_in_double(p_.dtype) ? std::bit_cast<double>(key)
                                      : static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(key)));
  }

  // body(flat index, key) for first <= index < last; returns true when an invalid score was met.
  template <class Body>
  bool visit(std::int64_t first, std::int64_t last, Body body) const {
    switch (p_.dtype) {
      case Dtype::f32: return walk<std::uint32_t>(first, last, [](std::uint32_t x) { return x; }, body);
      case Dtype::bf16: return walk<std::uint16_t>(first, last, [](std::uint16_t x) { return std::uint32_t{x} << 16; }, body);
      case Dtype::f16: return walk<std::uint16_t>(first, last, half_to_float_bits, body);
      case Dtype::f64: return walk<double>(first, last, widen<double>, body);
      case Dtype::i8: return walk<std::int8_t>(first, last, widen<std::int8_t>, body);
      case Dtype::i16: return walk<std::int16_t>(first, last, widen<std::int16_t>, body);
      case Dtype::i32: return walk<std::int32_t>(first, last, widen<std::int32_t>, body);
      case Dtype::i64: return walk<std::int64_t>(first, last, widen<std::int64_t>, body);
      default: return walk<std::uint8_t>(first, last, widen<std::uint8_t>, body);
    }
  }

 private:
  template <class Source>
  static double widen(Source x) { return static_cast<double>(x); }

  template <class Source, class Convert, class Body>
  bool walk(std::int64_t first, std::int64_t last, Convert convert, Body body) const {
    bool invalid = false;
    const Source* data = static_cast<const Source*>(p_.scores);
    while (first < last) {
      const std::int64_t row = first / p_.cols, col = first % p_.cols, run = std::min(p_.cols - col, last - first);
      const Source* from = data + row / p_.rows * p_.batch_stride + row % p_.rows * p_.row_stride + col * p_.col_stride;
      for (std::int64_t e = 0; e < run; ++e) body(first + e, key_of(convert(from[e * p_.col_stride]), p_.absolute, invalid));
      first += run;
    }
    return invalid;
  }

  const MaskProblem& p_;
};

struct Threshold {
  std::uint64_t key = 0;   // keys above it are kept
  std::int64_t ties = 0;   // of the keys equal to it, so many, lowest index first
};

// Digit by digit from the top: which value of the next 16 bits holds the `kept`-th largest key with the prefix found so far?
Threshold find_threshold(const Keys& keys, std::int64_t entries, std::int64_t kept, int threads, bool& invalid) {
  Threshold found{0, kept};
  const std::int64_t chunks = (entries + kChunk - 1) / kChunk;
  for (int shift = (keys.passes() - 1) * kDigitBits; shift >= 0; shift -= kDigitBits) {
    std::vector<std::vector<std::int64_t>> counts(static_cast<std::size_t>(threads),
                                                  std::vector<std::int64_t>(1 << kDigitBits));
    std::vector<char> bad(static_cast<std::size_t>(threads));
    const std::uint64_t prefix = shift + kDigitBits >= 64 ? 0 : found.key >> (shift + kDigitBits);
    for_each_chunk(chunks, threads, [&](std::int64_t chunk, int worker) {
      std::int64_t* count = counts[static_cast<std::size_t>(worker)].data();
      const bool met = keys.visit(chunk * kChunk, std::min(entries, (chunk + 1) * kChunk), [&](std::int64_t, std::uint64_t key) {
        if ((shift + kDigitBits >= 64 ? 0 : key >> (shift + kDigitBits)) == prefix) ++count[key >> shift & 0xffff];
      });
      bad[static_cast<std::size_t>(worker)] |= static_cast<char>(met);
    });
    invalid |= std::any_of(bad.begin(), bad.end(), [](char b) { return b != 0; });
    if (invalid) return found;
    std::uint64_t digit = 0xffff;
    for (;; --digit) {
      std::int64_t here = 0;
      for (const auto& count : counts) here += count[digit];
      if (here >= found.ties || digit == 0) break;
      found.ties -= here;
    }
    found.key |= digit << shift;
  }
  return found;
}

}  // namespace

MaskAnswer solve_unstructured(const MaskProblem& problem, std::int64_t kept, int threads) {
  MaskAnswer answer;
  const std::int64_t entries = problem.batch * problem.rows * problem.cols;
  if (entries == 0) return answer;
  const Keys keys(problem);
  threads = static_cast<int>(std::clamp<std::int64_t>(entries / 100000, 1, std::max(1, threads)));
  const Threshold at = find_threshold(keys, entries, kept, threads, answer.invalid);
  if (answer.invalid) return answer;

  const std::int64_t chunks = (entries + kChunk - 1) / kChunk;
  std::vector<std::int64_t> ties(static_cast<std::size_t>(chunks));
  std::vector<double> sums(static_cast<std::size_t>(chunks));
  for_each_chunk(chunks, threads, [&](std::int64_t chunk, int) {
    std::int64_t level = 0;
    double sum = 0;
    keys.visit(chunk * kChunk, std::min(entries, (chunk + 1) * kChunk), [&](std::int64_t index, std::uint64_t key) {
      const bool above = key > at.key;
      problem.mask[index] = above;
      level += key == at.key;
      if (above) sum += keys.value(key);
    });
    ties[static_cast<std::size_t>(chunk)] = level;
    sums[static_cast<std::size_t>(chunk)] = sum;
  });
  std::int64_t room = at.ties;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    answer.objective += sums[static_cast<std::size_t>(chunk)];
    if (room == 0 || ties[static_cast<std::size_t>(chunk)] == 0) continue;
    keys.visit(chunk * kChunk, std::min(entries, (chunk + 1) * kChunk), [&](std::int64_t index, std::uint64_t key) {
      if (key == at.key && room > 0) problem.mask[index] = 1, --room;
    });
  }
  if (at.ties > 0) answer.objective += static_cast<double>(at.ties) * keys.value(at.key);
  return answer;
}

}  // namespace bisparse
