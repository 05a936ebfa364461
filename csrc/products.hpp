// Entry points for packed matrices: pack, check, unpack, and products split over threads.
#pragma once

#include <vector>

#include "packed.hpp"

namespace bisparse {

// Those this machine can run, fastest first.
std::vector<const ProductKernels*> available_products();

// One product: activations and results contiguous, float32 or bfloat16 each; sums in float32. They are (batch, features), or
// (features, batch) where `features_first` (multiply only).
struct Product {
  PackedView matrix;
  const void* input;
  Dtype input_dtype;
  std::int64_t batch;
  const void* bias;                   // (rows) or null; only for multiply
  Dtype bias_dtype;
  void* output;
  Dtype output_dtype;
  bool features_first = false;
};

// `kernels` may be null: the fastest available. Instruction sets agree to rounding; threads do not change a bit.
void multiply(const Product& product, int threads, const ProductKernels* kernels);             // (B, cols) -> (B, rows)
void multiply_transposed(const Product& product, int threads, const ProductKernels* kernels);  // (B, rows) -> (B, cols)

// gradient (rows, row_values) float32 = the kept entries of grad_output^T input; no dense tensor is made. Free slots get 0.
struct ValueGradient {
  PackedView matrix;
  const void* grad_output;            // (batch, rows)
  Dtype grad_output_dtype;
  const void* input;                  // (batch, cols)
  Dtype input_dtype;
  std::int64_t batch;
  const std::uint8_t* free_bits;      // or null
  float* gradient;
};
void value_gradient(const ValueGradient& task, int threads, const ProductKernels* kernels);

// Packs the entries of `dense` (rows, cols; strides in elements) that `mask` (contiguous; null: all non-zeros) keeps; the
// view gives sizes and dtype only. Groups with fewer than `keep` are filled up at their first free columns.
struct PackOutcome {
  std::int64_t bad_row;               // the first row with a group of more than `keep`, or -1
  std::int64_t free_slots;
};
PackOutcome pack(const PackedView& shape, const void* dense, std::int64_t row_stride, std::int64_t col_stride,
                 const std::uint8_t* mask, void* values, std::uint8_t* index, std::uint8_t* free_bits, int threads);
// Returns the first row whose index does not hold exactly the slots of the layout, or -1.
std::int64_t first_bad_row(const PackedView& view, int threads);
void unpack(const PackedView& view, void* dense, int threads);  // contiguous (rows, cols); the index has been checked

int dtype_bytes(Dtype dtype);

}  // namespace bisparse
