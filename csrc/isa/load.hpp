// From the caller's tensor to vectors with one tile per lane.
// Included only inside `namespace bisparse::BISPARSE_ISA`.

// Where a tile lies and how much of it exists.
struct TilePlace {
  std::int64_t batch, row, col;  // first entry
  int rows, cols;                // entries inside the matrix; `block` for a complete tile
};

static inline TilePlace place_of(const MaskProblem& p, std::int64_t tile) {
  const std::int64_t across = p.tile_cols(), per_matrix = across * p.tile_rows();
  const std::int64_t batch = tile / per_matrix, rest = tile - batch * per_matrix;
  const std::int64_t row = rest / across * p.block, col = rest % across * p.block;
  return {batch, row, col, static_cast<int>(p.rows - row < p.block ? p.rows - row : p.block),
          static_cast<int>(p.cols - col < p.block ? p.cols - col : p.block)};
}

// Where a tile's first entry lies in the scores, the mask, the row duals and the column duals, counted in elements.
struct Spot {
  std::int64_t scores, mask, row_dual, column_dual;
};

static inline Spot spot_of(const MaskProblem& p, const TilePlace& at) {
  return {at.batch * p.batch_stride + at.row * p.row_stride + at.col * p.col_stride,
          (at.batch * p.rows + at.row) * p.cols + at.col, (at.batch * p.rows + at.row) * p.tile_cols() + at.col / p.block,
          (at.batch * p.tile_rows() + at.row / p.block) * p.cols + at.col};
}

static inline float widen_bits(std::uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

struct Half {
  std::uint16_t bits;
};
struct Brain {
  std::uint16_t bits;
};

static inline float to_real(float x) { return x; }
static inline double to_real(double x) { return x; }
static inline float to_real(Brain x) { return widen_bits(static_cast<std::uint32_t>(x.bits) << 16); }
static inline float to_real(Half x) {  // shift the fields, then let a product re-bias the exponent: exact, denormals too
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, rest = (x.bits & 0x7fffu) << 13;
  const std::uint32_t special = rest >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN stay what they are
  std::uint32_t bits;
  const float value = widen_bits(rest) * 0x1p112f;
  __builtin_memcpy(&bits, &value, 4);
  return widen_bits(bits | special | sign);
}
static inline double to_real(std::int8_t x) { return x; }
static inline double to_real(std::uint8_t x) { return x; }
static inline double to_real(std::int16_t x) { return x; }
static inline double to_real(std::int32_t x) { return x; }
static inline double to_real(std::int64_t x) { return static_cast<double>(x); }

// Copies `rows` strided runs of `cols` entries, converted, to out[i * out_row + j].
template <class T, class Source>
static inline void copy_entries(const Source* from, std::int64_t row_stride, std::int64_t col_stride, int rows, int cols,
                                T* out, int out_row) {
  if (col_stride == 1) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; ++j) out[i * out_row + j] = static_cast<T>(to_real(from[i * row_stride + j]));
  } else {
    for (int j = 0; j < cols; ++j)
      for (int i = 0; i < rows; ++i)
        out[i * out_row + j] = static_cast<T>(to_real(from[i * row_stride + j * col_stride]));
  }
}

// Calls body(pointer to the entry at `offset`) with the element type of the problem.
template <class T, class Body>
static inline __attribute__((always_inline)) void with_source(const MaskProblem& p, std::int64_t offset, Body body) {
  if constexpr (sizeof(T) == 4) {
    if (p.dtype == Dtype::f32) return body(static_cast<const float*>(p.scores) + offset);
    if (p.dtype == Dtype::bf16) return body(static_cast<const Brain*>(p.scores) + offset);
    return body(static_cast<const Half*>(p.scores) + offset);
  } else {
    switch (p.dtype) {
      case Dtype::i8: return body(static_cast<const std::int8_t*>(p.scores) + offset);
      case Dtype::u8: return body(static_cast<const std::uint8_t*>(p.scores) + offset);
      case Dtype::i16: return body(static_cast<const std::int16_t*>(p.scores) + offset);
      case Dtype::i32: return body(static_cast<const std::int32_t*>(p.scores) + offset);
      case Dtype::i64: return body(static_cast<const std::int64_t*>(p.scores) + offset);
      default: return body(static_cast<const double*>(p.scores) + offset);
    }
  }
}

template <class T>
static inline void copy_tile(const MaskProblem& p, const TilePlace& at, T* out, int out_row) {
  with_source<T>(p, spot_of(p, at).scores, [&](const auto* from) {
    copy_entries(from, p.row_stride, p.col_stride, at.rows, at.cols, out, out_row);
  });
}

// One round of zipping the two halves of a flat array rotates the index bits left by one; log2(lanes) rounds turn
// [lane][entry] into [entry][lane].
template <class T>
static inline void zip(Vec<T> a, Vec<T> b, Vec<T>& low, Vec<T>& high) {
#if BISPARSE_LANE_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    low = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    high = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  } else {
    low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
#elif BISPARSE_LANE_BYTES == 32
  if constexpr (sizeof(T) == 4) {
    low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  } else {
    low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  }
#else
  if constexpr (sizeof(T) == 4) {
    low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  } else {
    low = __builtin_shufflevector(a, b, 0, 2);
    high = __builtin_shufflevector(a, b, 1, 3);
  }
#endif
}

template <class T, int N>  // N vectors, in place
static inline __attribute__((always_inline)) void lanes_to_entries(Vec<T>* x) {
  static_assert(N % 2 == 0);
  Vec<T> y[N];
#pragma GCC unroll 8
  for (int half = 1; half < Lanes<T>::count; half *= 2) {
#pragma GCC unroll 64
    for (int k = 0; k < N / 2; ++k) zip<T>(x[k], x[k + N / 2], y[2 * k], y[2 * k + 1]);
#pragma GCC unroll 64
    for (int k = 0; k < N; ++k) x[k] = y[k];
  }
}

// What loading learns about the lanes of a group.
template <class T>
struct Range {
  Int<T> largest = {};   // bit pattern of the largest magnitude
  Vec<T> least = {};     // least entry, at most 0

  // Takes magnitudes and notes signs, NaNs and infinities (their bit patterns exceed every number's).
  inline Vec<T> admit(Vec<T> x) {
    least = min(least, x);
    const Int<T> magnitude = (Int<T>)x & Lanes<T>::magnitude;
    largest = largest > magnitude ? largest : magnitude;
    return (Vec<T>)magnitude;
  }
  inline bool invalid(bool absolute) const {
    if (!any_set((largest >= Lanes<T>::infinity) | (least < T(0)))) return false;
    for (int l = 0; l < Lanes<T>::count; ++l)
      if (largest[l] >= Lanes<T>::infinity || (!absolute && least[l] < T(0))) return true;
    return false;
  }
  // The power of two 1 / s that brings each lane's largest entry into [1, 4), denormals excepted, and s itself:
  // products with either are exact.
  inline Int<T> exponent() const {
    const Int<T> bits = largest & Lanes<T>::infinity;
    const Int<T> low = Int<T>{} + Lanes<T>::least_scale, high = Int<T>{} + (Lanes<T>::unit_scale - Lanes<T>::least_scale);
    return bits < low ? low : (bits > high ? high : bits);
  }
  inline Vec<T> shrink() const { return (Vec<T>)(Lanes<T>::unit_scale - exponent()); }
  inline Vec<T> restore() const { return (Vec<T>)exponent(); }
};
