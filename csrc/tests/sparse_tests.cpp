// Tests of sparse products without Python: both orders, and gradients, against plain loops in float64, for every instruction
// set, dtype, ragged size, batch and number of threads.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"
#include "sparse.hpp"

using namespace bisparse;

namespace {

std::size_t bytes_of(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

// Memory of exactly the size of its contents, on the heap: sanitizers see every access outside. Numbers are small multiples
// of 1/8, so that bfloat16 holds them exactly.
struct Numbers {
  Dtype dtype;
  std::int64_t count;
  std::unique_ptr<char[]> data;

  Numbers(Dtype type, std::int64_t n) : dtype(type), count(n), data(new char[static_cast<std::size_t>(n) * bytes_of(type)]()) {}
  Numbers(Dtype type, std::int64_t n, std::mt19937& random) : Numbers(type, n) {
    for (std::int64_t i = 0; i < n; ++i) set(i, (static_cast<int>(random() % 65) - 32) / 8.0);
  }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data.get());
  }
  double at(std::int64_t i) const {
    if (dtype == Dtype::f64) return as<double>()[i];
    if (dtype == Dtype::f32) return static_cast<double>(as<float>()[i]);
    const std::uint32_t bits = static_cast<std::uint32_t>(as<std::uint16_t>()[i]) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return static_cast<double>(wide);
  }
  void set(std::int64_t i, double value) {
    const float narrow = static_cast<float>(value);
    std::uint32_t bits;
    std::memcpy(&bits, &narrow, sizeof bits);
    if (dtype == Dtype::f64) as<double>()[i] = value;
    else if (dtype == Dtype::f32) as<float>()[i] = narrow;
    else as<std::uint16_t>()[i] = static_cast<std::uint16_t>(bits >> 16);
  }
  Activations view() const { return {data.get(), dtype}; }
  bool same(const Numbers& other) const {
    return std::memcmp(data.get(), other.data.get(), static_cast<std::size_t>(count) * bytes_of(dtype)) == 0;
  }
};

// Random entries in both orders; some rows are empty and some are long.
struct Case {
  std::int64_t rows, cols;
  std::vector<std::int32_t> crow{0}, col, ccol{0}, row_t, perm;

  Case(std::int64_t r, std::int64_t c, double density, std::mt19937& random) : rows(r), cols(c) {
    std::vector<std::vector<std::int32_t>> columns(static_cast<std::size_t>(c));
    for (std::int64_t row = 0; row < r; ++row) {
      const double share = row % 7 == 3 ? 0.0 : row % 11 == 5 ? 0.9 : density;
      for (std::int64_t k = 0; k < c; ++k)
        if (static_cast<double>(random() % 1000) < 1000 * share) {
          columns[static_cast<std::size_t>(k)].push_back(static_cast<std::int32_t>(col.size()));
          col.push_back(static_cast<std::int32_t>(k));
        }
      crow.push_back(static_cast<std::int32_t>(col.size()));
    }
    for (const auto& entries : columns) {
      for (const std::int32_t entry : entries) {
        perm.push_back(entry);
        std::int32_t row = 0;
        while (crow[static_cast<std::size_t>(row) + 1] <= entry) ++row;
        row_t.push_back(row);
      }
      ccol.push_back(static_cast<std::int32_t>(perm.size()));
    }
  }
  std::int64_t entries() const { return static_cast<std::int64_t>(col.size()); }
  SparseOrder order(bool by_rows) const {
    return by_rows ? SparseOrder{crow.data(), col.data(), nullptr, rows, cols}
                   : SparseOrder{ccol.data(), row_t.data(), perm.data(), cols, rows};
  }
};

bool near(double a, double b, Dtype dtype) {
  return std::abs(a - b) <= (dtype == Dtype::f64 ? 1e-12 : dtype == Dtype::f32 ? 1e-4 : 1e-2) * (1.0 + std::abs(b));
}

struct Types {
  Dtype values, activations;
};

void test_product(const Case& c, bool by_rows, std::int64_t batch, const Types& types, const SparseKernels* kernels,
                  std::mt19937& random) {
  const SparseOrder order = c.order(by_rows);
  const Numbers values(types.values, c.entries(), random), bias(types.values, order.rows, random);
  const Numbers x(types.activations, batch * order.width, random);
  Numbers plain(types.activations, batch * order.rows), again(types.activations, batch * order.rows);
  Numbers shifted(types.activations, batch * order.rows);
  const Activations none{nullptr, Dtype::f32};
  sparse_product({order, values.view(), x.view(), batch, none, plain.data.get()}, 1, kernels);
  sparse_product({order, values.view(), x.view(), batch, none, again.data.get()}, 3, kernels);
  sparse_product({order, values.view(), x.view(), batch, bias.view(), shifted.data.get()}, 2, kernels);
  CHECK(plain.same(again));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t r = 0; r < order.rows; ++r) {
      double sum = 0;
      for (std::int64_t k = order.starts[r]; k < order.starts[r + 1]; ++k)
        sum += values.at(order.perm ? order.perm[k] : k) * x.at(b * order.width + order.places[k]);
      CHECK(near(plain.at(b * order.rows + r), sum, types.activations));
      CHECK(near(shifted.at(b * order.rows + r), sum + bias.at(r), types.activations));
    }
}

void test_gradient(const Case& c, std::int64_t batch, const Types& types, const SparseKernels* kernels, std::mt19937& random) {
  const Dtype wide = types.activations == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const Dtype own_dtype = types.values;  // gradients and inputs may differ
  const Numbers x(types.activations, batch * c.cols, random), own(own_dtype, batch * c.rows, random);
  Numbers gradient(wide, c.entries()), again(wide, c.entries());
  for (std::int64_t i = 0; i < c.entries(); ++i) gradient.set(i, 1e30);  // must be overwritten
  sparse_gradient({c.order(true), x.view(), own.view(), batch, gradient.data.get()}, 1, kernels);
  sparse_gradient({c.order(true), x.view(), own.view(), batch, again.data.get()}, 3, kernels);
  CHECK(gradient.same(again));
  for (std::int64_t r = 0; r < c.rows; ++r)
    for (std::int32_t k = c.crow[static_cast<std::size_t>(r)]; k < c.crow[static_cast<std::size_t>(r) + 1]; ++k) {
      double sum = 0;
      for (std::int64_t b = 0; b < batch; ++b) sum += own.at(b * c.rows + r) * x.at(b * c.cols + c.col[static_cast<std::size_t>(k)]);
      CHECK(near(gradient.at(k), sum, wide));
    }
}

void test_order(const Case& c) {
  std::vector<std::int32_t> starts(c.ccol.size()), places(c.col.size()), perm(c.col.size());
  sparse_order_by_columns(c.order(true), starts.data(), places.data(), perm.data());
  CHECK(starts == c.ccol && places == c.row_t && perm == c.perm);
}

}  // namespace

int main() {
  std::mt19937 random(7);
  const Types types[] = {{Dtype::f32, Dtype::f32}, {Dtype::f64, Dtype::f64}, {Dtype::f32, Dtype::bf16},
                         {Dtype::bf16, Dtype::bf16}, {Dtype::bf16, Dtype::f32}};
  const Case cases[] = {{1, 1, 1.0, random}, {5, 3, 0.5, random}, {16, 16, 0.3, random}, {33, 50, 0.2, random},
                        {40, 17, 0.0, random}, {64, 128, 0.1, random}};
  for (const Case& c : cases) test_order(c);
  for (const SparseKernels* kernels : available_sparse())
    for (const Case& c : cases)
      for (const Types& t : types)
        for (const std::int64_t batch : {0, 1, 2, 4, 5, 8, 13, 16, 20, 32, 33, 64, 65, 130}) {
          test_product(c, true, batch, t, kernels, random);
          test_product(c, false, batch, t, kernels, random);
          test_gradient(c, batch, t, kernels, random);
        }
  const Case large(300, 9000, 0.05, random);  // work for several threads, and a panel that is cut to stay in the cache
  for (const SparseKernels* kernels : available_sparse()) {
    test_product(large, true, 70, types[0], kernels, random);
    test_product(large, false, 70, types[0], kernels, random);
    test_gradient(large, 70, types[0], kernels, random);
  }
  std::printf("sparse tests: %d checks passed for", checks);
  for (const SparseKernels* kernels : available_sparse()) std::printf(" %s", kernels->name);
  std::printf("\n");
}
