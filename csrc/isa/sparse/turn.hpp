// Activations in and out of panels: squares of registers are transposed; edges and bfloat16 go through a buffer.

static inline float widened(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof wide);
  return wide;
}

static inline std::uint16_t narrowed(float value) {  // to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<std::uint16_t>(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
}

template <class T>
static inline void read_some(const void* source, Dtype dtype, std::int64_t at, std::int64_t count, T* to) {
  if (dtype == Dtype::bf16)
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(widened(static_cast<const std::uint16_t*>(source)[at + i]));
  else
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<const T*>(source)[at + i];
}

template <class T>
static inline void write_some(const T* from, std::int64_t count, void* to, Dtype dtype, std::int64_t at) {
  if (dtype == Dtype::bf16)
    for (std::int64_t i = 0; i < count; ++i) static_cast<std::uint16_t*>(to)[at + i] = narrowed(static_cast<float>(from[i]));
  else
    for (std::int64_t i = 0; i < count; ++i) static_cast<T*>(to)[at + i] = from[i];
}

// to[j][i] = from[i][j] for a square of W; the strides are those of memory.
template <class T, int W>
static inline void turn_square(const T* from, std::int64_t from_stride, T* to, std::int64_t to_stride) {
  Vec<T, W> square[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) square[i] = load<T, W>(from + i * from_stride);
  transpose<W, W / 2>(square);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) store<T, W>(to + i * to_stride, square[i]);
}

// panel[f][l] = source[l][first + f] for `count` features; `stride` features lie between batch entries.
template <class T, int L>
[[gnu::noinline]] static void turn_in(const void* source, Dtype dtype, std::int64_t stride, std::int64_t first,
                                      std::int64_t count, std::int64_t batch, T* panel) {
  constexpr int W = width_of<T>(L);
  for (std::int64_t f = 0; f < count; f += W)
    for (std::int64_t lane = 0; lane < L; lane += W) {
      const std::int64_t features = at_most(W, count - f), entries = at_most(W, batch - lane), at = lane * stride + first + f;
      if (features == W && entries == W && dtype != Dtype::bf16) {
        turn_square<T, W>(static_cast<const T*>(source) + at, stride, panel + f * L + lane, L);
        continue;
      }
      T square[W * W] = {}, turned[W * W];
      for (std::int64_t i = 0; i < entries; ++i) read_some(source, dtype, at + i * stride, features, square + i * W);
      turn_square<T, W>(square, W, turned, W);
      for (std::int64_t j = 0; j < features; ++j) store<T, W>(panel + (f + j) * L + lane, load<T, W>(turned + j * W));
    }
}

// output[l][first + r] = tile[r][l] for `count` rows; the tile has room for kSparseRows.
template <class T, int L>
[[gnu::noinline]] static void turn_out(const T* tile, std::int64_t first, std::int64_t count, std::int64_t batch, void* output,
                                       Dtype dtype, std::int64_t stride) {
  constexpr int W = width_of<T>(L);
  for (std::int64_t r = 0; r < count; r += W)
    for (std::int64_t lane = 0; lane < batch; lane += W) {
      const std::int64_t rows = at_most(W, count - r), entries = at_most(W, batch - lane), at = lane * stride + first + r;
      if (rows == W && entries == W && dtype != Dtype::bf16) {
        turn_square<T, W>(tile + r * L + lane, L, static_cast<T*>(output) + at, stride);
        continue;
      }
      T turned[W * W];
      turn_square<T, W>(tile + r * L + lane, L, turned, W);
      for (std::int64_t i = 0; i < entries; ++i) write_some(turned + i * W, rows, output, dtype, at + i * stride);
    }
}
