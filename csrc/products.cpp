// Products with packed matrices: arrange the activations, split the work over threads, convert the results.
#include "products.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>

#include "parallel.hpp"

namespace bisparse {
namespace {

constexpr std::int64_t kBatchBlock = 64;       // larger batches run in blocks, so that scratch stays small
constexpr std::int64_t kGradientBlock = 256;   // batch entries that a panel of activations holds while it stays cached
constexpr double kThreadMicroseconds = 40.0;   // work that pays for one more thread

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{64}); }
};

// Scratch of a call; not initialised.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : memory_(::operator new(static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(T), std::align_val_t{64})) {}
  T* get() const { return static_cast<T*>(memory_.get()); }

 private:
  std::unique_ptr<void, AlignedDelete> memory_;
};

float widen(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

std::uint16_t narrow(float value) {  // to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void to_float(const void* from, Dtype dtype, std::int64_t first, std::int64_t count, float* to) {
  if (dtype == Dtype::f32) {
    std::memcpy(to, static_cast<const float*>(from) + first, static_cast<std::size_t>(count) * sizeof(float));
  } else {
    const std::uint16_t* narrow_from = static_cast<const std::uint16_t*>(from) + first;
    for (std::int64_t i = 0; i < count; ++i) to[i] = widen(narrow_from[i]);
  }
}

void from_float(const float* from, std::int64_t count, void* to, Dtype dtype, std::int64_t first) {
  if (dtype == Dtype::f32) {
    std::memcpy(static_cast<float*>(to) + first, from, static_cast<std::size_t>(count) * sizeof(float));
  } else {
    std::uint16_t* narrow_to = static_cast<std::uint16_t*>(to) + first;
    for (std::int64_t i = 0; i < count; ++i) narrow_to[i] = narrow(from[i]);
  }
}

// Column of a step that stands at place `i` of the arranged step.
int column_at(int i) { return i < kStep / 2 ? 2 * i : 2 * i - kStep + 1; }

void arrange(float* row, std::int64_t steps) {
  for (float* step = row; step < row + steps * kStep; step += kStep) {
    float natural[kStep];
    std::memcpy(natural, step, sizeof natural);
    for (int i = 0; i < kStep; ++i) step[i] = natural[column_at(i)];
  }
}

void arrange_back(float* row, std::int64_t steps) {
  for (float* step = row; step < row + steps * kStep; step += kStep) {
    float arranged[kStep];
    std::memcpy(arranged, step, sizeof arranged);
    for (int i = 0; i < kStep; ++i) step[column_at(i)] = arranged[i];
  }
}

// How many of `threads` are worth their start: `weights` dense entries times a batch.
int worthwhile(const PackedView& view, std::int64_t batch, int threads) {
  const double bytes = static_cast<double>(view.rows) * static_cast<double>(view.cols) * dtype_bytes(view.dtype);
  const double microseconds = bytes / 40e3 * std::max(1.0, static_cast<double>(batch) / 4.0);
  return std::clamp(static_cast<int>(microseconds / kThreadMicroseconds), 1, std::max(1, threads));
}

// The rows whose over-read would leave the values, copied with room behind them.
class Tail {
 public:
  explicit Tail(const PackedView& view)
      : row_bytes_(view.row_values() * dtype_bytes(view.dtype)),
        rows_(row_bytes_ ? std::min(view.rows, (kOverread + row_bytes_ - 1) / row_bytes_) : view.rows),
        copy_(rows_ * row_bytes_ + kOverread) {
    const std::int64_t bytes = rows_ * row_bytes_;
    if (bytes) std::memcpy(copy_.get(), static_cast<const char*>(view.values) + view.rows * row_bytes_ - bytes, static_cast<std::size_t>(bytes));
    std::memset(copy_.get() + bytes, 0, kOverread);
  }
  PackedRows rows(const PackedView& view) const { return {view, view.rows - rows_, copy_.get()}; }

 private:
  std::int64_t row_bytes_, rows_;
  Scratch<char> copy_;
};

// (batch, cols) of any dtype as float32, arranged, padded with zeros to whole steps; the caller's memory where it fits.
const float* arranged_input(const Product& p, std::int64_t first, std::int64_t batch, bool even_odd, float* scratch) {
  const PackedView& m = p.matrix;
  const std::int64_t padded = m.steps() * kStep;
  if (p.input_dtype == Dtype::f32 && padded == m.cols && !even_odd) return static_cast<const float*>(p.input) + first * m.cols;
  for (std::int64_t b = 0; b < batch; ++b) {
    float* row = scratch + b * padded;
    to_float(p.input, p.input_dtype, (first + b) * m.cols, m.cols, row);
    std::fill(row + m.cols, row + padded, 0.0f);
    if (even_odd) arrange(row, m.steps());
  }
  return scratch;
}

void multiply_block(const Product& p, const PackedRows& rows, const float* bias, std::int64_t first, std::int64_t batch,
                    int threads, const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const bool even_odd = kernels.even_odd && m.dtype == Dtype::bf16, direct = p.output_dtype == Dtype::f32;
  const Scratch<float> input(batch * m.steps() * kStep), output(direct ? 0 : batch * m.rows);
  float* y = direct ? static_cast<float*>(p.output) + first * m.rows : output.get();
  const RowsTask task{rows, arranged_input(p, first, batch, even_odd, input.get()), m.steps() * kStep, batch, bias, y, m.rows};
  threads = worthwhile(m, batch, threads);
  const std::int64_t pieces = threads == 1 ? 1 : 4 * threads;
  const std::int64_t per_chunk = std::max<std::int64_t>(8, (m.rows / pieces + 7) / 8 * 8);
  for_each_chunk((m.rows + per_chunk - 1) / per_chunk, threads, [&](std::int64_t chunk, int) {
    kernels.rows(task, chunk * per_chunk, std::min(per_chunk, m.rows - chunk * per_chunk));
  });
  if (!direct) from_float(y, batch * m.rows, p.output, p.output_dtype, first * m.rows);
}

void multiply_transposed_block(const Product& p, const PackedRows& rows, std::int64_t first, std::int64_t batch, int threads,
                               const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const std::int64_t padded = m.steps() * kStep;
  const bool even_odd = kernels.even_odd && m.dtype == Dtype::bf16;
  const bool direct = p.output_dtype == Dtype::f32 && padded == m.cols;
  const Scratch<float> input(p.input_dtype == Dtype::f32 ? 0 : batch * m.rows), output(direct ? 0 : batch * padded);
  const float* y = static_cast<const float*>(p.input) + first * m.rows;
  if (p.input_dtype != Dtype::f32) {
    to_float(p.input, p.input_dtype, first * m.rows, batch * m.rows, input.get());
    y = input.get();
  }
  float* x = direct ? static_cast<float*>(p.output) + first * m.cols : output.get();
  const ColumnsTask task{rows, y, m.rows, batch, x, padded};
  threads = worthwhile(m, batch, threads);
  // A part starts where both a step and a group start, so that the place of its values is known.
  const std::int64_t unit = std::lcm<std::int64_t>(kStep, m.block) / kStep, units = (m.steps() + unit - 1) / unit;
  const std::int64_t per_chunk = (units + threads - 1) / threads * unit;
  for_each_chunk((m.steps() + per_chunk - 1) / per_chunk, threads, [&](std::int64_t chunk, int) {
    kernels.columns(task, chunk * per_chunk, std::min(per_chunk, m.steps() - chunk * per_chunk));
  });
  for (std::int64_t b = 0; b < batch; ++b) {
    if (even_odd) arrange_back(x + b * padded, m.steps());
    if (!direct) from_float(x + b * padded, m.cols, p.output, p.output_dtype, (first + b) * m.cols);
  }
}

// Activations as panels (steps, batch, kStep): one panel meets all rows while it is in the cache.
void fill_panels(const ValueGradient& g, std::int64_t first, std::int64_t batch, float* panels) {
  const std::int64_t cols = g.matrix.cols;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t step = 0; step < g.matrix.steps(); ++step) {
      float* to = panels + (step * batch + b) * kStep;
      const std::int64_t width = std::min<std::int64_t>(kStep, cols - step * kStep);
      to_float(g.input, g.input_dtype, (first + b) * cols + step * kStep, width, to);
      std::fill(to + width, to + kStep, 0.0f);
    }
}

void gradient_block(const ValueGradient& g, std::int64_t first, std::int64_t batch, int threads, const ProductKernels& kernels) {
  const PackedView& m = g.matrix;
  const Scratch<float> panels(batch * m.steps() * kStep), grad_output(batch * m.rows);
  fill_panels(g, first, batch, panels.get());
  to_float(g.grad_output, g.grad_output_dtype, first * m.rows, batch * m.rows, grad_output.get());
  const GradientTask task{m, grad_output.get(), m.rows, panels.get(), batch, first > 0, g.gradient};
  const std::int64_t per_chunk = 32;
  for_each_chunk((m.rows + per_chunk - 1) / per_chunk, worthwhile(m, batch, threads), [&](std::int64_t chunk, int) {
    kernels.gradient(task, chunk * per_chunk, std::min(per_chunk, m.rows - chunk * per_chunk));
  });
}

void clear_free(const ValueGradient& g) {
  const std::int64_t slots = g.matrix.row_values(), bytes = g.matrix.free_bytes();
  for (std::int64_t row = 0; row < g.matrix.rows; ++row)
    for (std::int64_t slot = 0; slot < slots; ++slot)
      if (g.free_bits[row * bytes + slot / 8] >> (slot % 8) & 1) g.gradient[row * slots + slot] = 0.0f;
}

const ProductKernels& chosen(const ProductKernels* kernels) {
  return kernels ? *kernels : *available_products().front();
}

}  // namespace

std::vector<const ProductKernels*> available_products() {
  std::vector<const ProductKernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512vbmi2")) found.push_back(avx512vbmi2_products());
  if (avx512) found.push_back(avx512_products());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(avx2_products());
#elif defined(__aarch64__)
  found.push_back(neon_products());
#endif
  found.push_back(portable_products());
  return found;
}

void multiply(const Product& product, int threads, const ProductKernels* kernels) {
  const PackedView& m = product.matrix;
  const Tail tail(m);
  const Scratch<float> bias(product.bias ? m.rows : 0);
  if (product.bias) to_float(product.bias, product.bias_dtype, 0, m.rows, bias.get());
  for (std::int64_t first = 0; first < product.batch; first += kBatchBlock)
    multiply_block(product, tail.rows(m), product.bias ? bias.get() : nullptr, first,
                   std::min(kBatchBlock, product.batch - first), threads, chosen(kernels));
}

void multiply_transposed(const Product& product, int threads, const ProductKernels* kernels) {
  const Tail tail(product.matrix);
  for (std::int64_t first = 0; first < product.batch; first += kBatchBlock)
    multiply_transposed_block(product, tail.rows(product.matrix), first, std::min(kBatchBlock, product.batch - first), threads,
                              chosen(kernels));
}

void value_gradient(const ValueGradient& task, int threads, const ProductKernels* kernels) {
  if (task.batch == 0)
    std::fill_n(task.gradient, task.matrix.rows * task.matrix.row_values(), 0.0f);
  for (std::int64_t first = 0; first < task.batch; first += kGradientBlock)
    gradient_block(task, first, std::min(kGradientBlock, task.batch - first), threads, chosen(kernels));
  if (task.free_bits) clear_free(task);
}

}  // namespace bisparse
