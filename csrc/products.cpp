// Products with packed matrices: arrange the activations, split the work over threads, convert the results.
#include "products.hpp"

#include <algorithm>
#include <numeric>

#include "activations.hpp"
#include "work.hpp"

namespace bisparse {
namespace {

constexpr std::int64_t kWideBatch = 28;        // from here on, batches run side by side in registers
constexpr std::int64_t kBatchBlock = 64;       // larger batches run in blocks, so that scratch stays small
constexpr std::int64_t kRowsInPart = 1024;     // x = W^T y sums rows in parts of at least so many,
constexpr std::int64_t kMostParts = 4;         // so many parts at most,
constexpr std::int64_t kMostInParts = 16;      // and batches up to this size

void multiply_block(const Product& p, const PackedRows& rows, const float* bias, std::int64_t first, std::int64_t batch,
                    int threads, const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const bool direct = p.output_dtype == Dtype::f32;
  const Scratch<float> input(batch * m.steps() * kStep), output(direct ? 0 : batch * m.rows);
  float* y = direct ? static_cast<float*>(p.output) + first * m.rows : output.get();
  const Panels panels{batch, m.cols, kernels.batch_at_once, kernels.even_odd && m.dtype == Dtype::bf16};
  const float* x = panels.fill({p.input, p.input_dtype, first * m.cols}, input.get());
  const RowsTask task{rows, x, batch, bias, y, m.rows};
  for_row_groups(m.rows, worthwhile(m, batch, threads),
                 [&](std::int64_t row, std::int64_t count) { kernels.rows(task, row, count); });
  if (!direct) from_float(y, batch * m.rows, p.output, p.output_dtype, first * m.rows);
}

void multiply_wide_block(const Product& p, const PackedRows& rows, const float* bias, std::int64_t first, std::int64_t batch,
                         int threads, const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const std::int64_t lanes = (batch + 15) / 16 * 16;
  const Scratch<float> x(m.steps() * kStep * lanes), y(m.rows * lanes);
  const LanePanel in{batch, lanes, p.features_first ? p.batch : 1, p.features_first ? 1 : m.cols};
  const LanePanel out{batch, lanes, p.features_first ? p.batch : 1, p.features_first ? 1 : m.rows};
  in.fill({p.input, p.input_dtype, first * in.entry_stride}, m.cols, m.steps() * kStep, x.get());
  const WideTask task{rows, x.get(), lanes, bias, y.get()};
  for_row_groups(m.rows, worthwhile(m, batch, threads),
                 [&](std::int64_t row, std::int64_t count) { kernels.wide(task, row, count); });
  out.empty(y.get(), m.rows, p.output, p.output_dtype, first * out.entry_stride);
}

// x = W^T y into `parts` panels, each the sum over its share of the rows; threads take whole rows where they can, because
// memory is read fastest in order. Neither parts nor columns depend on the number of threads in a way that changes a bit.
void run_columns(const ColumnsTask& task, std::int64_t parts, int threads, const ProductKernels& kernels) {
  const PackedView& m = task.matrix.view;
  const std::int64_t rows_each = (m.rows + parts - 1) / parts, panel = task.batch * m.steps() * kStep;
  // A share of columns starts where both a step and a group start, so that the place of its values is known.
  const std::int64_t unit = std::lcm<std::int64_t>(kStep, m.block) / kStep, units = (m.steps() + unit - 1) / unit;
  const std::int64_t shares = std::clamp<std::int64_t>((threads + parts - 1) / parts, 1, std::max<std::int64_t>(units, 1));
  const std::int64_t steps_each = (units + shares - 1) / shares * unit;
  for_each_chunk_in_team(parts * shares, threads, [&](std::int64_t chunk, int) {
    const std::int64_t part = chunk / shares, row = part * rows_each, step = chunk % shares * steps_each;
    if (step >= m.steps()) return;
    ColumnsTask share = task;
    share.x += part * panel;
    kernels.columns(share, row, std::min(rows_each, m.rows - row), step, std::min(steps_each, m.steps() - step));
  });
  for (std::int64_t part = 1; part < parts; ++part)
    for (std::int64_t i = 0; i < panel; ++i) task.x[i] += task.x[part * panel + i];
}

void multiply_transposed_block(const Product& p, const PackedRows& rows, std::int64_t first, std::int64_t batch, int threads,
                               const ProductKernels& kernels) {
  const PackedView& m = p.matrix;
  const Panels panels{batch, m.cols, kernels.batch_at_once, kernels.even_odd && m.dtype == Dtype::bf16};
  const std::int64_t parts = batch > kMostInParts ? 1 : std::clamp<std::int64_t>(m.rows / kRowsInPart, 1, kMostParts);
  const bool direct = p.output_dtype == Dtype::f32 && panels.plain() && parts == 1;
  const Scratch<float> input(p.input_dtype == Dtype::f32 ? 0 : batch * m.rows);
  const Scratch<float> output(direct ? 0 : parts * batch * m.steps() * kStep);
  const float* y = static_cast<const float*>(p.input) + first * m.rows;
  if (p.input_dtype != Dtype::f32) {
    to_float({p.input, p.input_dtype, first * m.rows}, batch * m.rows, input.get());
    y = input.get();
  }
  float* x = direct ? static_cast<float*>(p.output) + first * m.cols : output.get();
  run_columns({rows, y, m.rows, batch, x}, parts, worthwhile(m, batch, threads), kernels);
  if (!direct) panels.empty(x, p.output, p.output_dtype, first * m.cols);
}

void gradient_block(const ValueGradient& g, std::int64_t first, std::int64_t batch, int threads, const ProductKernels& kernels) {
  const PackedView& m = g.matrix;
  const Scratch<float> panels(batch * m.steps() * kStep), grad_output(batch * m.rows);
  const float* x = Panels{batch, m.cols, batch, false}.fill({g.input, g.input_dtype, first * m.cols}, panels.get());
  to_float({g.grad_output, g.grad_output_dtype, first * m.rows}, batch * m.rows, grad_output.get());
  const GradientTask task{m, grad_output.get(), m.rows, x, batch, first > 0, g.gradient};
  const std::int64_t per_chunk = 32;
  for_each_chunk_in_team((m.rows + per_chunk - 1) / per_chunk, worthwhile(m, batch, threads), [&](std::int64_t chunk, int) {
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
  const Scratch<float> widened(product.bias ? m.rows : 0);
  const float* bias = product.bias ? widened.get() : nullptr;
  if (bias) to_float({product.bias, product.bias_dtype, 0}, m.rows, widened.get());
  for (std::int64_t first = 0, batch; first < product.batch; first += batch) {
    batch = std::min(kBatchBlock, product.batch - first);
    const auto block = product.features_first || batch >= kWideBatch ? multiply_wide_block : multiply_block;
    block(product, tail.rows(m), bias, first, batch, threads, chosen(kernels));
  }
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
  for (std::int64_t first = 0; first < task.batch; first += kGradientBatch)
    gradient_block(task, first, std::min<std::int64_t>(kGradientBatch, task.batch - first), threads, chosen(kernels));
  if (task.free_bits) clear_free(task);
}

}  // namespace bisparse
