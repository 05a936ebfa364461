// How products are split over threads, and what lets them read a little too far.
#pragma once

#include <algorithm>
#include <cstring>

#include "activations.hpp"
#include "products.hpp"
#include "team.hpp"

namespace bisparse {

inline constexpr double kThreadMicroseconds = 10.0;  // work that pays for one more thread of a waiting team

// How many of `threads` are worth their start: `weights` dense entries times a batch.
inline int worthwhile(const PackedView& view, std::int64_t batch, int threads) {
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

// Calls body(first row, rows) for groups of rows of about equal size.
template <class Body>
void for_row_groups(std::int64_t rows, int threads, Body body) {
  const std::int64_t pieces = threads == 1 ? 1 : 4 * threads;
  const std::int64_t groups = (rows + kRowGroup - 1) / kRowGroup;
  const std::int64_t per_chunk = std::max<std::int64_t>(1, groups / pieces) * kRowGroup;
  for_each_chunk_in_team((rows + per_chunk - 1) / per_chunk, threads,
                 [&](std::int64_t chunk, int) { body(chunk * per_chunk, std::min(per_chunk, rows - chunk * per_chunk)); });
}

}  // namespace bisparse
