// Products with packed matrices: arrange the activations, split the work over threads, convert the results.
#include "products.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "activations.hpp"
#include "parallel.hpp"

namespace bisparse {
namespace {

constexpr std::int64_t kBatchBlock = 64;       // larger batches run in blocks, so that scratch stays small
constexpr std::int64_t kGradientBlock = 256;   // batch entries that a panel of activations holds while it stays cached
constexpr double kThreadMicroseconds = 40.0;   // work that pays for one more thread

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

void multiply_block(const Product& p, const PackedRows& rows, const float* bias, std::int64_t first, std::int64_t batch,
                    int threads, const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const bool direct = p.output_dtype == Dtype::f32;
  const Scratch<float> input(batch * m.steps() * kStep), output(direct ? 0 : batch * m.rows);
  float* y = direct ? static_cast<float*>(p.output) + first * m.rows : output.get();
  const Panels panels{batch, m.cols, kernels.batch_at_once, kernels.even_odd && m.dtype == Dtype::bf16};
  const float* x = panels.fill({p.input, p.input_dtype, first * m.cols}, input.get());
  const RowsTask task{rows, x, batch, bias, y, m.rows};
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
  const Panels panels{batch, m.cols, kernels.batch_at_once, kernels.even_odd && m.dtype == Dtype::bf16};
  const bool direct = p.output_dtype == Dtype::f32 && panels.plain();
  const Scratch<float> input(p.input_dtype == Dtype::f32 ? 0 : batch * m.rows);
  const Scratch<float> output(direct ? 0 : batch * m.steps() * kStep);
  const float* y = static_cast<const float*>(p.input) + first * m.rows;
  if (p.input_dtype != Dtype::f32) {
    to_float({p.input, p.input_dtype, first * m.rows}, batch * m.rows, input.get());
    y = input.get();
  }
  float* x = direct ? static_cast<float*>(p.output) + first * m.cols : output.get();
  const ColumnsTask task{rows, y, m.rows, batch, x};
  threads = worthwhile(m, batch, threads);
  // A part starts where both a step and a group start, so that the place of its values is known.
  const std::int64_t unit = std::lcm<std::int64_t>(kStep, m.block) / kStep, units = (m.steps() + unit - 1) / unit;
  const std::int64_t per_chunk = (units + threads - 1) / threads * unit;
  for_each_chunk((m.steps() + per_chunk - 1) / per_chunk, threads, [&](std::int64_t chunk, int) {
    kernels.columns(task, chunk * per_chunk, std::min(per_chunk, m.steps() - chunk * per_chunk));
  });
  if (!direct) panels.empty(x, p.output, p.output_dtype, first * m.cols);
}

void gradient_block(const ValueGradient& g, std::int64_t first, std::int64_t batch, int threads, const ProductKernels& kernels) {
  const PackedView& m = g.matrix;
  const Scratch<float> panels(batch * m.steps() * kStep), grad_output(batch * m.rows);
  const float* x = Panels{batch, m.cols, batch, false}.fill({g.input, g.input_dtype, first * m.cols}, panels.get());
  to_float({g.grad_output, g.grad_output_dtype, first * m.rows}, batch * m.rows, grad_output.get());
  const GradientTask task{m, grad_output.get(), m.rows, x, batch, first > 0, g.gradient};
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
  if (product.bias) to_float({product.bias, product.bias_dtype, 0}, m.rows, bias.get());
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
