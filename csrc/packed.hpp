// Packed N:M matrices: their memory layout, and products with them. Plain data, shared by every instruction set.
//
// Layout of a (rows, cols) matrix that keeps `keep` of every `block` columns:
//   values  (rows, row_values): the kept entries of a row in the order of their columns. Every complete group fills exactly
//           `keep` slots, a tail group of w < block columns min(keep, w): equal strides, so no row pointers are stored.
//   index   (rows, row_bytes): bit c % 8 of byte c / 8 says that column c has a slot; a row is padded with zeros to a
//           multiple of 4 bytes, because products take 32 columns at a time.
//   free    (rows, free_bytes), where needed: bit s % 8 of byte s / 8 says that slot s holds no kept entry. Groups with fewer
//           than `keep` entries are filled up with such slots; their value is zero and learns nothing.
#pragma once

#include <cstdint>

#include "mask_problem.hpp"

namespace bisparse {

constexpr int kStep = 32;             // columns per step of every product
constexpr std::int64_t kRowGroup = 24;    // rows of y = W x that stay in the cache while all of a batch passes
constexpr int kGradientBatch = 256;      // most entries of the batch in one GradientTask
constexpr std::int64_t kOverread = 256;  // bytes that a product may read behind the values of a row

struct PackedView {
  const void* values;
  const std::uint8_t* index;
  std::int64_t rows, cols;
  int keep, block;
  Dtype dtype;                        // f32 or bf16 in products; any dtype of 1, 2, 4 or 8 bytes in pack and unpack

  // Always inlined: a function compiled for a wide machine must not stand in for another's.
#define BISPARSE_INLINE __attribute__((always_inline)) inline
  BISPARSE_INLINE std::int64_t slots_before(std::int64_t col) const {  // of a row; `col` starts a group or ends the row
    const std::int64_t tail = col % block;
    return col / block * keep + (tail < keep ? tail : keep);
  }
  BISPARSE_INLINE std::int64_t row_values() const { return slots_before(cols); }
  BISPARSE_INLINE std::int64_t steps() const { return (cols + kStep - 1) / kStep; }
  BISPARSE_INLINE std::int64_t row_bytes() const { return steps() * (kStep / 8); }
  BISPARSE_INLINE std::int64_t free_bytes() const { return (row_values() + 7) / 8; }
};

// Where a product may read kOverread bytes too far: the rows from `tail_first` on are read from a padded copy.
struct PackedRows {
  PackedView view;
  std::int64_t tail_first;
  const void* tail;
};

// Activations are passed as panels: the batch is cut into blocks of `batch_block` entries, and a block is stored as (steps,
// block, kStep), zeros behind the last column. A product reads one panel from front to back; rows of a plain matrix, a power
// of two apart, would compete for the same places of the cache.
BISPARSE_INLINE std::int64_t batch_block(std::int64_t left, std::int64_t most) {
  const std::int64_t blocks = (left + most - 1) / most;
  return (left + blocks - 1) / blocks;
}

struct RowsTask {                     // y[b][r] = bias[r] + sum_c W[r][c] x[b][c]
  PackedRows matrix;
  const float* x;                     // panels
  std::int64_t batch;
  const float* bias;                  // or null
  float* y;                           // (batch, y_stride)
  std::int64_t y_stride;
};

struct WideTask {                     // y[r][l] = bias[r] + sum_c W[r][c] x[c][l]
  PackedRows matrix;
  const float* x;                     // (steps * kStep, lanes), zeros behind the last column and the last entry
  std::int64_t lanes;                 // 16, 32, 48 or 64
  const float* bias;                  // or null
  float* y;                           // (rows, lanes)
};

struct ColumnsTask {                  // x[b][c] = sum over some rows of W[r][c] y[b][r]
  PackedRows matrix;
  const float* y;                     // (batch, y_stride)
  std::int64_t y_stride, batch;
  float* x;                           // panels
};

struct GradientTask {                 // g[r][slot] (+)= sum_b y[b][r] x[b][column of slot]
  PackedView view;
  const float* y;                     // (batch, y_stride)
  std::int64_t y_stride;
  const float* x;                     // (steps, batch, kStep): one panel in natural order
  std::int64_t batch;
  bool add;                           // to what `gradient` holds
  float* gradient;                    // (rows, row_values)
};

struct ProductKernels {
  const char* name;
  // Whether activations for bfloat16 weights are arranged, in every step, as 16 even columns, then 16 odd ones: a register
  // of 32 bfloat16 splits into these with one operation each.
  bool even_odd;
  int batch_at_once;                  // largest block of a batch
  void (*rows)(const RowsTask&, std::int64_t first_row, std::int64_t count);
  void (*wide)(const WideTask&, std::int64_t first_row, std::int64_t count);
  void (*columns)(const ColumnsTask&, std::int64_t first_row, std::int64_t rows, std::int64_t first_step, std::int64_t steps);
  void (*gradient)(const GradientTask&, std::int64_t first_row, std::int64_t count);
};

const ProductKernels* portable_products();
const ProductKernels* avx2_products();
const ProductKernels* avx512_products();
const ProductKernels* avx512vbmi2_products();
const ProductKernels* neon_products();

}  // namespace bisparse
