// Tests of the core without Python, for plain and sanitized builds: feasibility, optimality by exhaustion, proof, identical
// bits for every instruction set and number of threads, hostile sizes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <type_traits>

#include "check.hpp"
#include "dispatch.hpp"

using namespace bisparse;

namespace {

template <class T>
constexpr Dtype dtype_for() {
  if constexpr (std::is_same_v<T, float>) return Dtype::f32;
  else if constexpr (std::is_same_v<T, double>) return Dtype::f64;
  else return Dtype::i32;
}

template <class T>
struct Case {
  std::int64_t rows, cols;
  int keep, block;
  std::vector<T> scores;
  std::vector<std::uint8_t> mask;
  std::vector<double> row_duals, column_duals;  // wide enough for either precision

  Case(std::int64_t r, std::int64_t c, int k, int m)
      : rows(r), cols(c), keep(k), block(m), scores(static_cast<std::size_t>(r * c)), mask(scores.size(), 77),
        row_duals(static_cast<std::size_t>(r * ((c + m - 1) / m))), column_duals(static_cast<std::size_t>(c * ((r + m - 1) / m))) {}

  MaskProblem problem() {
    MaskProblem p{};
    p.scores = scores.data(), p.dtype = dtype_for<T>(), p.batch = 1, p.rows = rows, p.cols = cols;
    p.batch_stride = rows * cols, p.row_stride = cols, p.col_stride = 1;
    p.keep = keep, p.block = block, p.mask = mask.data();
    p.row_duals = row_duals.data(), p.column_duals = column_duals.data();
    return p;
  }
  double kept_sum() const {
    double sum = 0;
    for (std::size_t e = 0; e < scores.size(); ++e) sum += mask[e] ? static_cast<double>(scores[e]) : 0.0;
    return sum;
  }
  // Complete tiles hold exactly `keep` per line, cut ones at most.
  bool feasible() const {
    for (std::int64_t tr = 0; tr < rows; tr += block)
      for (std::int64_t tc = 0; tc < cols; tc += block) {
        const std::int64_t h = std::min<std::int64_t>(block, rows - tr), w = std::min<std::int64_t>(block, cols - tc);
        const bool complete = h == block && w == block;
        for (int way = 0; way < 2; ++way)
          for (std::int64_t a = 0; a < (way ? w : h); ++a) {
            int count = 0;
            for (std::int64_t b = 0; b < (way ? h : w); ++b)
              count += mask[static_cast<std::size_t>((tr + (way ? b : a)) * cols + tc + (way ? a : b))];
            if (count > keep || (complete && count != keep)) return false;
          }
      }
    return true;
  }
};

enum class Kind { gaussian, zeros, integers, equal, decades, denormal };

template <class T>
void fill(std::vector<T>& x, Kind kind, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  for (T& value : x) {
    double v = std::fabs(normal(random));
    if (kind == Kind::zeros && uniform(random) < 0.8) v = 0;
    if (kind == Kind::integers) v = std::floor(4 * uniform(random));
    if (kind == Kind::equal) v = 3;
    if (kind == Kind::decades) v = std::pow(10.0, 24 * uniform(random) - 12);
    if (kind == Kind::denormal) v *= 1e-41;
    value = static_cast<T>(kind == Kind::denormal || sizeof(T) != sizeof(int) || !std::is_integral_v<T> ? v : 1000 * v);
  }
}

template <class T>
void test_feasible_and_proved(std::int64_t rows, std::int64_t cols, int keep, int block, Kind kind, unsigned seed) {
  Case<T> c(rows, cols, keep, block);
  fill(c.scores, kind, seed);
  const MaskAnswer first = solve_transposable(c.problem(), 1, nullptr);
  CHECK(!first.invalid);
  CHECK(c.feasible());
  CHECK(first.slack >= 0 && first.slack <= 1e-7 * first.objective + 1e-300);
  CHECK(std::fabs(first.objective - c.kept_sum()) <= 1e-12 * first.objective + 1e-300);
  const std::vector<std::uint8_t> mask = c.mask;
  const std::vector<double> u = c.row_duals, v = c.column_duals;
  for (const Kernels* kernels : available_kernels())
    for (int threads : {1, 3}) {
      Case<T> again(rows, cols, keep, block);
      again.scores = c.scores;
      const MaskAnswer other = solve_transposable(again.problem(), threads, kernels);
      CHECK(again.mask == mask);
      CHECK(again.row_duals == u && again.column_duals == v);
      CHECK(other.objective == first.objective && other.slack == first.slack);
      CHECK(other.rounds == first.rounds && other.repaired == first.repaired);
    }
}

// All 4x4 masks with two per line, by brute force.
double best_of_all(const float* s) {
  double best = 0;
  for (unsigned bits = 0; bits < 1u << 16; ++bits) {
    bool allowed = true;
    double sum = 0;
    for (int a = 0; a < 4 && allowed; ++a) {
      const unsigned row = bits >> (4 * a) & 15, column = (bits >> a & 0x1111);
      allowed = __builtin_popcount(row) == 2 && __builtin_popcount(column) == 2;
    }
    if (!allowed) continue;
    for (int e = 0; e < 16; ++e) sum += bits >> e & 1 ? static_cast<double>(s[e]) : 0.0;
    best = std::max(best, sum);
  }
  return best;
}

void test_against_exhaustion() {
  for (Kind kind : {Kind::gaussian, Kind::zeros, Kind::integers, Kind::decades})
    for (unsigned seed = 0; seed < 20; ++seed) {
      Case<float> c(4, 4, 2, 4);
      fill(c.scores, kind, seed);
      const MaskAnswer answer = solve_transposable(c.problem(), 1, nullptr);
      CHECK(std::fabs(answer.objective - best_of_all(c.scores.data())) <= 1e-7 * answer.objective);
    }
}

void test_invalid_scores() {
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0})
    for (std::size_t at : {0u, 37u, 1155u}) {
      Case<float> c(34, 34, 2, 4);
      fill(c.scores, Kind::gaussian, 1);
      c.scores[at] = static_cast<float>(bad);
      CHECK(solve_transposable(c.problem(), 2, nullptr).invalid);
      CHECK(solve_row_wise(c.problem(), 2, nullptr).invalid);
      CHECK(solve_unstructured(c.problem(), 100, 2).invalid);
      MaskProblem magnitude = c.problem();
      magnitude.absolute = true;
      CHECK(solve_transposable(magnitude, 1, nullptr).invalid == !(bad < 0 && std::isfinite(bad)));
    }
  Case<float> zero(4, 4, 2, 4);
  zero.scores.assign(16, -0.0f);
  CHECK(!solve_transposable(zero.problem(), 1, nullptr).invalid);
}

void test_row_wise() {
  for (int block : {2, 3, 4, 8, 13, 64})
    for (int cols : {1, 7, 64, 131}) {
      Case<float> c(5, cols, (block + 1) / 2, block);
      fill(c.scores, Kind::integers, 3);
      const MaskAnswer answer = solve_row_wise(c.problem(), 2, nullptr);
      CHECK(std::fabs(answer.objective - c.kept_sum()) <= 1e-12 * answer.objective);
      for (int row = 0; row < 5; ++row)
        for (int col = 0; col < cols; ++col) {  // an entry is kept when fewer than K of its group come before it
          int ahead = 0;
          const int first = col / block * block;
          const float own = c.scores[static_cast<std::size_t>(row * cols + col)];
          for (int o = first; o < std::min(cols, first + block); ++o) {
            const float other = c.scores[static_cast<std::size_t>(row * cols + o)];
            ahead += other > own || (other == own && o < col);
          }
          CHECK(c.mask[static_cast<std::size_t>(row * cols + col)] == (ahead < c.keep));
        }
    }
}

void test_unstructured() {
  for (std::int64_t kept : {0, 1, 500, 70000, 131072}) {
    Case<float> c(256, 512, 1, 2);
    fill(c.scores, Kind::zeros, 5);
    const MaskAnswer answer = solve_unstructured(c.problem(), kept, 2);
    std::int64_t count = 0;
    float least_kept = std::numeric_limits<float>::infinity(), most_dropped = 0;
    for (std::size_t e = 0; e < c.scores.size(); ++e) {
      count += c.mask[e];
      if (c.mask[e]) least_kept = std::min(least_kept, c.scores[e]);
      else most_dropped = std::max(most_dropped, c.scores[e]);
    }
    CHECK(count == kept);
    CHECK(least_kept >= most_dropped);
    CHECK(std::fabs(answer.objective - c.kept_sum()) <= 1e-12 * answer.objective);
  }
}

}  // namespace

int main() {
  const int shapes[][2] = {{2, 4}, {1, 4}, {3, 4}, {4, 8}, {2, 8}, {6, 8}, {8, 16}, {16, 32}, {1, 2}, {3, 7}, {20, 50}, {32, 64}};
  for (const auto& shape : shapes)
    for (Kind kind : {Kind::gaussian, Kind::zeros, Kind::integers, Kind::equal, Kind::decades, Kind::denormal}) {
      test_feasible_and_proved<float>(3 * shape[1], 21 * shape[1], shape[0], shape[1], kind, 11);
      test_feasible_and_proved<float>(3 * shape[1] - 1, 2 * shape[1] + 1, shape[0], shape[1], kind, 12);
      if (kind != Kind::denormal) test_feasible_and_proved<double>(2 * shape[1], 5 * shape[1] + 1, shape[0], shape[1], kind, 13);
    }
  test_feasible_and_proved<int>(24, 136, 4, 8, Kind::integers, 14);
  test_feasible_and_proved<float>(1024, 1032, 4, 8, Kind::gaussian, 15);
  test_feasible_and_proved<float>(1, 1, 4, 8, Kind::gaussian, 16);
  test_feasible_and_proved<float>(0, 8, 4, 8, Kind::gaussian, 17);
  test_against_exhaustion();
  test_invalid_scores();
  test_row_wise();
  test_unstructured();
  std::printf("core tests: %d checks passed on", checks);
  for (const Kernels* kernels : available_kernels()) std::printf(" %s", kernels->name);
  std::printf("\n");
}
