// What a mask solver is asked and what it answers: plain data, shared by every instruction set.
#pragma once

#include <cstdint>

namespace bisparse {

enum class Dtype : int { f16, bf16, f32, f64, i8, i16, i32, i64, u8 };

// float16, bfloat16 and float32 are solved in float32; float64 and integers in float64.
constexpr bool solved_in_double(Dtype dtype) { return static_cast<int>(dtype) >= static_cast<int>(Dtype::f64); }

struct MaskProblem {
  const void* scores;            // (batch, rows, cols) with the strides below, counted in elements
  Dtype dtype;
  std::int64_t batch, rows, cols;
  std::int64_t batch_stride, row_stride, col_stride;
  int keep, block;
  bool absolute;                 // solve for |scores|; otherwise a negative score is an error
  std::uint8_t* mask;            // (batch, rows, cols), contiguous, one byte per entry
  const void* warm_columns;      // (batch, tile_rows, cols) in the solving precision, or null
  void* row_duals;               // (batch, rows, tile_cols) in the solving precision, or null
  void* column_duals;            // (batch, tile_rows, cols) in the solving precision, or null

  std::int64_t tile_rows() const { return (rows + block - 1) / block; }
  std::int64_t tile_cols() const { return (cols + block - 1) / block; }
  std::int64_t tiles() const { return batch * tile_rows() * tile_cols(); }
};

struct MaskAnswer {
  double objective = 0;          // sum of the kept scores
  double slack = 0;              // bound - objective, computed in float64 from the dual potentials
  std::int64_t repaired = 0;     // tiles that needed shortest augmenting paths
  std::int32_t rounds = 0;       // largest number of sweeps of any tile
  bool invalid = false;          // a NaN, an infinity or a negative score was met
};

// One table of entry points per instruction set; the bits of every answer are the same for all of them.
struct Kernels {
  const char* name;
  void (*solve_tiles)(const MaskProblem&, std::int64_t first_tile, std::int64_t count, void* scratch, MaskAnswer&);
  void (*solve_rows)(const MaskProblem&, std::int64_t first_row, std::int64_t count, void* scratch, MaskAnswer&);
  std::int64_t scratch_bytes;    // per thread, 64-byte aligned
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

constexpr int kMaxBlock = 64;
constexpr int kChunkTiles = 512;  // most tiles of a chunk; chunks never depend on threads, so sums do not either

}  // namespace bisparse
