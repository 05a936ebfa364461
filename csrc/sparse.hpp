// Products with sparse matrices: plain data, shared by every instruction set, and the entry point.
//
// A matrix W (rows, width) is one vector of values and an order of its entries: by rows (a product y = W x), or by columns,
// that is by the rows of the transposed matrix, where `perm` says which value belongs to an entry (x = W^T y). Both
// orders serve every product here; "row" and "width" below are those of the order in use.
//
// Activations are turned so that the entries of the batch lie side by side, up to 64 in a panel (width, lanes): every non-zero
// then meets whole cache lines. One pass over an order gives, for every row, the sum of its values times lines of the panel
// (the product), or for every entry the dot of its line with the row's own activations (the gradient of its value), or both
// for one reading of the lines. Rows are turned in and out sixteen at a time within the pass.
#pragma once

#include <cstdint>
#include <vector>

#include "mask_problem.hpp"

namespace bisparse {

struct SparseOrder {
  const std::int32_t* starts;         // (rows + 1)
  const std::int32_t* places;         // (entries): 0 to width - 1
  const std::int32_t* perm;           // (entries): where the values lie; null: in this order
  std::int64_t rows, width;
};

struct Activations {
  const void* data;                   // (batch, features), contiguous; float32, bfloat16 or float64
  Dtype dtype;
};

// The output alone, in either order; the gradient alone, by rows; or both, by columns: the two gradients of y = W x.
struct SparseProduct {
  SparseOrder order;
  Activations values;                 // (entries)
  Activations input;                  // (batch, width)
  std::int64_t batch;
  Activations bias;                   // (rows), or null data
  void* output;                       // (batch, rows) of the input's dtype; null: no product is wanted
  Activations own;                    // (batch, rows): activations of the rows; null data: no gradient is wanted
  void* gradient;                     // (entries), where the values lie: float64 where these are, float32 elsewhere
};

struct SparseKernels;

// Those this machine can run, fastest first.
std::vector<const SparseKernels*> available_sparse();

// `kernels` may be null: the fastest available. Sums run in float32 (float64 where values are), in an order that depends on
// neither threads nor data; instruction sets agree to rounding. Values are float64 exactly where activations are.
void sparse_product(const SparseProduct& product, int threads, const SparseKernels* kernels);

// For the instruction sets: one panel. All pointers to T are float, or double where `wide`.
constexpr std::int64_t kSparseRows = 16;   // rows that are turned together
constexpr int kMostLanes = 64;

struct PanelTask {                    // panel[f][l] = source[l][f], zeros behind the last entry of the batch
  const void* source;                 // its first batch entry
  Dtype dtype;
  std::int64_t features, batch;
  int lanes;                          // 1, 4, 8, 16, 32 or 64
  void* panel;
};

struct PassTask {
  SparseOrder order;
  bool wide;
  const void* values;                 // T
  const void* panel;                  // T (width, lanes)
  int lanes;
  std::int64_t batch;                 // of this panel
  const void* bias;                   // T, or null
  void* output;                       // first batch entry, of `dtype`, or null
  const void* own;                    // first batch entry, of `own_dtype`, or null
  Dtype dtype, own_dtype;
  void* gradient;                     // T
  bool add;                           // to what `gradient` holds
};

struct SparseKernels {
  const char* name;
  void (*fill)(const PanelTask&, std::int64_t first_feature, std::int64_t count);  // `first` is a multiple of kSparseRows
  void (*pass)(const PassTask&, std::int64_t first_row, std::int64_t count);       // likewise
};

const SparseKernels* portable_sparse();
const SparseKernels* avx2_sparse();
const SparseKernels* avx512_sparse();

}  // namespace bisparse
