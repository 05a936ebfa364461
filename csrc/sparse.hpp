// Products with sparse matrices: plain data, shared by every instruction set, and the entry point.
//
// A matrix W (rows, width) is one vector of values and an order of its entries: by rows (y = W x), or by columns, that is by
// the rows of the transposed matrix, where `perm` says which value belongs to an entry (x = W^T y). "Row" and "width" below
// are those of the order in use.
//
// Activations are turned so that the entries of the batch lie side by side, up to 64 in a panel (width, lanes): every non-zero
// then meets whole cache lines. One pass over an order gives, for every row, the sum of its values times lines of the panel,
// or, for every entry, the dot of its line with the row's own activations: the gradient of its value. Rows are turned in and
// out sixteen at a time within the pass. Values that lie elsewhere are brought into the order before. (Both gradients of a
// layer in one pass by columns read the lines once instead of twice, but bringing the gradients of the values back into the
// order by rows costs what that saves.)
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

struct SparseProduct {
  SparseOrder order;
  Activations values;                 // (entries)
  Activations input;                  // (batch, width)
  std::int64_t batch;
  Activations bias;                   // (rows), or null data
  void* output;                       // (batch, rows) of the input's dtype
};

struct SparseGradient {               // of the values: the entries of own^T input
  SparseOrder order;                  // by rows
  Activations input;                  // (batch, width)
  Activations own;                    // (batch, rows)
  std::int64_t batch;
  void* gradient;                     // (entries): float64 where activations are, float32 elsewhere
};

struct SparseKernels;

// Those this machine can run, fastest first.
std::vector<const SparseKernels*> available_sparse();

// `kernels` may be null: the fastest available. Sums run in float32 (float64 where values are), in an order that depends on
// neither threads nor data; instruction sets agree to rounding. Values are float64 exactly where activations are.
void sparse_product(const SparseProduct& product, int threads, const SparseKernels* kernels);
void sparse_gradient(const SparseGradient& task, int threads, const SparseKernels* kernels);

// The order by columns from that by rows, entries of a column by increasing row: starts (width + 1), places and perm (entries).
void sparse_order_by_columns(const SparseOrder& by_rows, std::int32_t* starts, std::int32_t* places, std::int32_t* perm);

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
  const void* panel;                  // T (width, lanes)
  int lanes;
  std::int64_t batch;                 // of this panel
  Dtype dtype;                        // of output or own
  const void* values;                 // T (entries), in the order
  const void* bias;                   // T, or null
  void* output;                       // its first batch entry
  const void* own;                    // its first batch entry; not null: the gradient is wanted
  void* gradient;                     // T (entries), in the order
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
