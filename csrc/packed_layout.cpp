// Dense to packed and back, for entries of 1, 2, 4 or 8 bytes.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>

#include "parallel.hpp"
#include "products.hpp"

namespace bisparse {
namespace {

constexpr std::int64_t kEntriesPerChunk = 1 << 17;

template <class Body>
void for_rows(const PackedView& view, int threads, Body body) {
  const std::int64_t per_chunk = std::max<std::int64_t>(1, kEntriesPerChunk / std::max<std::int64_t>(1, view.cols));
  const std::int64_t chunks = (view.rows + per_chunk - 1) / per_chunk;
  for_each_chunk(chunks, threads, [&](std::int64_t chunk, int) {
    for (std::int64_t row = chunk * per_chunk; row < std::min(view.rows, (chunk + 1) * per_chunk); ++row) body(row);
  });
}

// The least of the rows that threads report.
class FirstRow {
 public:
  void report(std::int64_t row) {
    std::int64_t known = least_.load(std::memory_order_relaxed);
    while (row < known && !least_.compare_exchange_weak(known, row, std::memory_order_relaxed)) {
    }
  }
  std::int64_t row() const { return least_ == kNone ? -1 : least_.load(); }

 private:
  static constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> least_{kNone};
};

bool is_zero(std::uint64_t bits, Dtype dtype) {  // -0.0 counts as zero
  switch (dtype) {
    case Dtype::f16: case Dtype::bf16: return (bits & 0x7fff) == 0;
    case Dtype::f32: return (bits & 0x7fffffff) == 0;
    case Dtype::f64: return (bits & 0x7fffffffffffffff) == 0;
    default: return bits == 0;
  }
}

void set_bit(std::uint8_t* bits, std::int64_t at) {
  bits[at / 8] = static_cast<std::uint8_t>(bits[at / 8] | 1u << (at % 8));
}

template <class T>
struct Packer {
  const PackedView& view;
  const T* dense;
  std::int64_t row_stride, col_stride;
  const std::uint8_t* mask;
  T* values;
  std::uint8_t* index;
  std::uint8_t* free_bits;

  bool kept(std::int64_t row, std::int64_t col) const {
    if (mask) return mask[row * view.cols + col] != 0;
    return !is_zero(static_cast<std::uint64_t>(dense[row * row_stride + col * col_stride]), view.dtype);
  }

  // The number of free slots, or -1 where a group holds more than `keep`.
  std::int64_t row(std::int64_t row) const {
    T* value = values + row * view.row_values();
    std::uint8_t* bits = index + row * view.row_bytes();
    std::uint8_t* free = free_bits + row * view.free_bytes();
    std::memset(bits, 0, static_cast<std::size_t>(view.row_bytes()));
    std::memset(free, 0, static_cast<std::size_t>(view.free_bytes()));
    std::int64_t slot = 0, free_slots = 0;
    for (std::int64_t start = 0; start < view.cols; start += view.block) {
      const int width = static_cast<int>(std::min<std::int64_t>(view.block, view.cols - start));
      std::uint64_t own = 0;
      for (int c = 0; c < width; ++c) own |= static_cast<std::uint64_t>(kept(row, start + c)) << c;
      if (std::popcount(own) > view.keep) return -1;
      std::uint64_t group = own;
      while (std::popcount(group) < std::min(view.keep, width)) group |= group + 1;
      for (; group; group &= group - 1, ++slot) {
        const int c = std::countr_zero(group);
        const bool real = own >> c & 1;
        value[slot] = real ? dense[row * row_stride + (start + c) * col_stride] : T{0};
        set_bit(bits, start + c);
        if (!real) set_bit(free, slot), ++free_slots;
      }
    }
    return free_slots;
  }
};

template <class T>
void unpack_row(const PackedView& view, T* dense, std::int64_t row) {
  const T* value = static_cast<const T*>(view.values) + row * view.row_values();
  const std::uint8_t* bits = view.index + row * view.row_bytes();
  T* out = dense + row * view.cols;
  for (std::int64_t c = 0; c < view.cols; ++c) out[c] = bits[c / 8] >> (c % 8) & 1 ? *value++ : T{0};
}

template <class Body>
void for_width(Dtype dtype, Body body) {
  switch (dtype_bytes(dtype)) {
    case 1: return body.template operator()<std::uint8_t>();
    case 2: return body.template operator()<std::uint16_t>();
    case 4: return body.template operator()<std::uint32_t>();
    default: return body.template operator()<std::uint64_t>();
  }
}

bool row_is_good(const PackedView& view, std::int64_t row) {
  const std::uint8_t* bits = view.index + row * view.row_bytes();
  const auto bit = [&](std::int64_t c) { return bits[c / 8] >> (c % 8) & 1; };
  for (std::int64_t start = 0; start < view.cols; start += view.block) {
    const std::int64_t end = std::min<std::int64_t>(start + view.block, view.cols);
    int count = 0;
    for (std::int64_t c = start; c < end; ++c) count += bit(c);
    if (count != std::min<std::int64_t>(view.keep, end - start)) return false;
  }
  for (std::int64_t c = view.cols; c < view.row_bytes() * 8; ++c)
    if (bit(c)) return false;
  return true;
}

}  // namespace

int dtype_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::i8: case Dtype::u8: return 1;
    case Dtype::f16: case Dtype::bf16: case Dtype::i16: return 2;
    case Dtype::f32: case Dtype::i32: return 4;
    default: return 8;
  }
}

PackOutcome pack(const PackedView& shape, const void* dense, std::int64_t row_stride, std::int64_t col_stride,
                 const std::uint8_t* mask, void* values, std::uint8_t* index, std::uint8_t* free_bits, int threads) {
  FirstRow bad;
  std::atomic<std::int64_t> free_slots{0};
  for_width(shape.dtype, [&]<class T>() {
    const Packer<T> packer{shape,           static_cast<const T*>(dense), row_stride, col_stride, mask,
                           static_cast<T*>(values), index, free_bits};
    for_rows(shape, threads, [&](std::int64_t row) {
      const std::int64_t free = packer.row(row);
      if (free < 0) bad.report(row);
      else if (free > 0) free_slots.fetch_add(free, std::memory_order_relaxed);
    });
  });
  return {bad.row(), free_slots.load()};
}

std::int64_t first_bad_row(const PackedView& view, int threads) {
  FirstRow bad;
  for_rows(view, threads, [&](std::int64_t row) {
    if (!row_is_good(view, row)) bad.report(row);
  });
  return bad.row();
}

void unpack(const PackedView& view, void* dense, int threads) {
  for_width(view.dtype, [&]<class T>() {
    for_rows(view, threads, [&](std::int64_t row) { unpack_row(view, static_cast<T*>(dense), row); });
  });
}

}  // namespace bisparse
