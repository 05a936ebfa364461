// Tests of packed matrices without Python: round trips, products in both directions and the gradient of the values against
// plain loops, for every instruction set, dtype, ragged size and number of threads; damaged data is found.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"
#include "products.hpp"

using namespace bisparse;

namespace {

std::uint16_t to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);
}
float from_bf16(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// Memory of exactly the size of its contents, on the heap: sanitizers see every access outside.
struct Numbers {
  Dtype dtype;
  std::int64_t count;
  std::unique_ptr<char[]> data;

  Numbers(Dtype type, std::int64_t n) : dtype(type), count(n), data(new char[static_cast<std::size_t>(n * dtype_bytes(type))]()) {}
  double at(std::int64_t i) const {
    if (dtype == Dtype::f32) return static_cast<double>(reinterpret_cast<const float*>(data.get())[i]);
    return static_cast<double>(from_bf16(reinterpret_cast<const std::uint16_t*>(data.get())[i]));
  }
  void set(std::int64_t i, float value) {
    if (dtype == Dtype::f32) reinterpret_cast<float*>(data.get())[i] = value;
    else reinterpret_cast<std::uint16_t*>(data.get())[i] = to_bf16(value);
  }
  void draw(std::mt19937& random) {
    for (std::int64_t i = 0; i < count; ++i) set(i, static_cast<float>(static_cast<int>(random() % 2001) - 1000) / 256.0f);
  }
};

struct Shape {
  std::int64_t rows, cols;
  int keep, block;
};

// A packed random matrix and its dense form; some groups keep fewer than they may.
struct Case {
  Shape shape;
  Numbers dense;
  PackedView view;
  Numbers values;
  std::unique_ptr<std::uint8_t[]> index, free_bits;
  std::int64_t free_slots = 0;

  Case(const Shape& s, Dtype dtype, std::mt19937& random)
      : shape(s), dense(dtype, s.rows * s.cols), view{nullptr, nullptr, s.rows, s.cols, s.keep, s.block, dtype},
        values(dtype, s.rows * view.row_values()), index(new std::uint8_t[static_cast<std::size_t>(s.rows * view.row_bytes())]),
        free_bits(new std::uint8_t[static_cast<std::size_t>(s.rows * view.free_bytes())]) {
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t start = 0; start < s.cols; start += s.block) {
        const int left = static_cast<int>(random() % 8 == 0 ? s.keep - 1 : s.keep);
        for (int k = 0; k < left; ++k) {
          const std::int64_t c = start + static_cast<std::int64_t>(random() % static_cast<unsigned>(s.block));
          if (c < s.cols) dense.set(r * s.cols + c, static_cast<float>(1 + random() % 1000) / 128.0f);
        }
      }
    const PackOutcome outcome = pack(view, dense.data.get(), s.cols, 1, nullptr, values.data.get(), index.get(), free_bits.get(), 2);
    CHECK(outcome.bad_row == -1);
    free_slots = outcome.free_slots;
    view.values = values.data.get(), view.index = index.get();
  }
};

bool near(double a, double b, Dtype dtype) { return std::abs(a - b) <= (dtype == Dtype::f32 ? 1e-4 : 1e-2) * (1.0 + std::abs(b)); }

void test_round_trip(const Case& c) {
  CHECK(first_bad_row(c.view, 2) == -1);
  Numbers back(c.dense.dtype, c.dense.count);
  unpack(c.view, back.data.get(), 2);
  CHECK(std::memcmp(back.data.get(), c.dense.data.get(), static_cast<std::size_t>(c.dense.count * dtype_bytes(c.dense.dtype))) == 0);
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < c.dense.count; ++i) kept += c.dense.at(i) != 0.0;
  CHECK(kept + c.free_slots == c.shape.rows * c.view.row_values());
}

void test_damage(Case& c) {
  const std::int64_t bytes = c.view.row_bytes(), row = c.shape.rows - 1;
  if (c.shape.rows * c.view.row_values() == 0) return;
  c.index[static_cast<std::size_t>(row * bytes)] ^= 1;  // one slot too many or too few
  CHECK(first_bad_row(c.view, 2) == row);
  c.index[static_cast<std::size_t>(row * bytes)] ^= 1;
  if (c.shape.cols % 32 != 0) {  // a bit behind the last column
    c.index[static_cast<std::size_t>(row * bytes + bytes - 1)] ^= 0x80;
    CHECK(first_bad_row(c.view, 1) == row);
    c.index[static_cast<std::size_t>(row * bytes + bytes - 1)] ^= 0x80;
  }
}

void test_multiply(const Case& c, std::int64_t batch, Dtype dtype, const ProductKernels* kernels, std::mt19937& random) {
  const auto [rows, cols, keep, block] = c.shape;
  Numbers x(dtype, batch * cols), bias(c.view.dtype, rows), y(dtype, batch * rows), again(dtype, batch * rows);
  x.draw(random), bias.draw(random);
  Product product{c.view, x.data.get(), dtype, batch, bias.data.get(), c.view.dtype, y.data.get(), dtype};
  multiply(product, 1, kernels);
  product.output = again.data.get();
  multiply(product, 3, kernels);
  CHECK(std::memcmp(y.data.get(), again.data.get(), static_cast<std::size_t>(y.count * dtype_bytes(dtype))) == 0);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = bias.at(r);
      for (std::int64_t k = 0; k < cols; ++k) sum += c.dense.at(r * cols + k) * x.at(b * cols + k);
      CHECK(near(y.at(b * rows + r), sum, dtype));
    }
  Numbers turned(dtype, batch * cols);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t k = 0; k < cols; ++k) turned.set(k * batch + b, static_cast<float>(x.at(b * cols + k)));
  product.input = turned.data.get(), product.features_first = true;
  multiply(product, 2, kernels);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t r = 0; r < rows; ++r) CHECK(near(again.at(r * batch + b), y.at(b * rows + r), dtype));
}

void test_transposed(const Case& c, std::int64_t batch, Dtype dtype, const ProductKernels* kernels, std::mt19937& random) {
  const auto [rows, cols, keep, block] = c.shape;
  Numbers y(dtype, batch * rows), x(dtype, batch * cols), again(dtype, batch * cols);
  y.draw(random);
  Product product{c.view, y.data.get(), dtype, batch, nullptr, dtype, x.data.get(), dtype};
  multiply_transposed(product, 1, kernels);
  product.output = again.data.get();
  multiply_transposed(product, 3, kernels);
  CHECK(std::memcmp(x.data.get(), again.data.get(), static_cast<std::size_t>(x.count * dtype_bytes(dtype))) == 0);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t k = 0; k < cols; ++k) {
      double sum = 0;
      for (std::int64_t r = 0; r < rows; ++r) sum += c.dense.at(r * cols + k) * y.at(b * rows + r);
      CHECK(near(x.at(b * cols + k), sum, dtype));
    }
}

void test_gradient(const Case& c, std::int64_t batch, Dtype dtype, const ProductKernels* kernels, std::mt19937& random) {
  const auto [rows, cols, keep, block] = c.shape;
  const std::int64_t slots = c.view.row_values();
  Numbers y(dtype, batch * rows), x(dtype, batch * cols), gradient(Dtype::f32, rows * slots), again(Dtype::f32, rows * slots);
  y.draw(random), x.draw(random);
  ValueGradient task{c.view, y.data.get(), dtype, x.data.get(), dtype, batch, c.free_bits.get(),
                     reinterpret_cast<float*>(gradient.data.get())};
  value_gradient(task, 2, kernels);
  task.gradient = reinterpret_cast<float*>(again.data.get());
  value_gradient(task, 1, kernels);
  CHECK(std::memcmp(gradient.data.get(), again.data.get(), static_cast<std::size_t>(rows * slots) * sizeof(float)) == 0);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t slot = 0;
    for (std::int64_t k = 0; k < cols; ++k) {
      if (!(c.index[static_cast<std::size_t>(r * c.view.row_bytes() + k / 8)] >> (k % 8) & 1)) continue;
      double sum = 0;
      for (std::int64_t b = 0; b < batch; ++b) sum += y.at(b * rows + r) * x.at(b * cols + k);
      CHECK(near(gradient.at(r * slots + slot), c.dense.at(r * cols + k) == 0.0 ? 0.0 : sum, Dtype::f32));
      ++slot;
    }
    CHECK(slot == slots);
  }
}

void test_refusal() {
  const std::vector<float> dense{1, 0, 0, 0, 1, 1, 1, 0};
  float values[4];
  std::uint8_t index[8], free_bits[2];
  const PackedView view{nullptr, nullptr, 2, 4, 2, 4, Dtype::f32};
  CHECK(pack(view, dense.data(), 4, 1, nullptr, values, index, free_bits, 1).bad_row == 1);
  const std::uint8_t mask[8] = {0, 0, 0, 1, 1, 0, 1, 0};
  CHECK(pack(view, dense.data(), 4, 1, mask, values, index, free_bits, 1).bad_row == -1);
  CHECK(index[0] == 0b1001 && index[4] == 0b0101 && free_bits[0] == 1);  // row 0 keeps one zero; its free slot is column 0
}

}  // namespace

int main() {
  std::mt19937 random(7);
  test_refusal();
  const Shape shapes[] = {{1, 1, 2, 4},   {5, 4, 2, 4},    {7, 13, 4, 8},   {33, 64, 4, 8},  {26, 72, 2, 4},  {9, 200, 8, 16},
                          {40, 96, 1, 4}, {19, 330, 2, 8}, {18, 100, 16, 32}, {6, 70, 3, 5}, {5, 129, 6, 7},  {3, 128, 31, 32},
                          {8, 224, 1, 7}, {4, 130, 20, 64}, {64, 32, 1, 2}};
  for (const Shape& shape : shapes)
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      Case c(shape, dtype, random);
      test_round_trip(c);
      test_damage(c);
      for (const ProductKernels* kernels : available_products())
        for (const std::int64_t batch : {0, 1, 2, 3, 5, 6, 8, 11, 16, 37, 67}) {
          const Dtype activations = batch % 2 ? Dtype::f32 : Dtype::bf16;
          test_multiply(c, batch, activations, kernels, random);
          test_transposed(c, batch, activations, kernels, random);
          test_gradient(c, batch, activations, kernels, random);
        }
    }
  Case large({520, 1024, 4, 8}, Dtype::f32, random);  // enough work for several threads
  for (const ProductKernels* kernels : available_products()) {
    test_multiply(large, 4, Dtype::f32, kernels, random);
    test_transposed(large, 4, Dtype::f32, kernels, random);
    test_gradient(large, kGradientBatch + 3, Dtype::f32, kernels, random);  // two blocks of the batch: the second adds
  }
  std::printf("packed tests: %d checks passed for", checks);
  for (const ProductKernels* kernels : available_products()) std::printf(" %s", kernels->name);
  std::printf("\n");
}
