// Y = W X for batches of 16 to 64, entries of the batch side by side in registers: every kept weight is one broadcast and meets
// one row of X. Unlike the other products this one also skips the multiplications with zeros.

constexpr int kWideSums = 8;             // independent sums that hide the latency of a multiply-add
constexpr std::int64_t kCached = 32768;  // bytes of X that stay in the first cache

// The next values as float32, at most a step of them; a broadcast from memory is cheaper than one from a widened scalar.
static inline const float* widened(const float* values, float*) { return values; }
static inline const float* widened(const Bf16* values, float* buffer) {
  std::uint32_t bits[kStep];
  for (int i = 0; i < kStep; ++i) bits[i] = static_cast<std::uint32_t>(values[i]) << 16;
  __builtin_memcpy(buffer, bits, sizeof bits);
  return buffer;
}

// Adds the products of one row with some steps of X to `y`; moves `values` on.
template <class T, int Vectors>
static inline const T* wide_row(const T* values, const std::uint8_t* index, std::int64_t steps, const float* x, float* y) {
  constexpr int together = Vectors < kWideSums ? kWideSums / Vectors : 1;
  constexpr int lanes = Vectors * kLanes;
  Vec sums[together][Vectors];
#pragma GCC unroll 8
  for (int u = 0; u < together; ++u)
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) sums[u][v] = u ? zeros() : load(y + v * kLanes);
  for (std::int64_t step = 0; step < steps; ++step, x += kStep * lanes) {
    std::uint32_t mask = mask_at(index + 4 * step);
    int left = __builtin_popcount(mask);
    float buffer[kStep];
    const float* weight = widened(values, buffer);
    values += left;
    for (; left >= together; left -= together) {
#pragma GCC unroll 8
      for (int u = 0; u < together; ++u, mask &= mask - 1) {
        const float* row = x + __builtin_ctz(mask) * lanes;
        Vec scale = splat(*weight++);
        hold(scale);
#pragma GCC unroll 16
        for (int v = 0; v < Vectors; ++v) sums[u][v] = fma(scale, load(row + v * kLanes), sums[u][v]);
      }
    }
    for (; mask; mask &= mask - 1) {
      const float* row = x + __builtin_ctz(mask) * lanes;
      const Vec scale = splat(*weight++);
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) sums[0][v] = fma(scale, load(row + v * kLanes), sums[0][v]);
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) {
    Vec sum = sums[0][v];
#pragma GCC unroll 8
    for (int u = 1; u < together; ++u) sum = sum + sums[u][v];
    store(y + v * kLanes, sum);
  }
  return values;
}

template <class T, int Vectors>
static void wide_group(const WideTask& task, std::int64_t row, std::int64_t end) {
  constexpr std::int64_t lanes = Vectors * kLanes, at_once = kCached / (kStep * lanes * 4);
  const T* values[kRowGroup];
  for (std::int64_t r = row; r < end; ++r) {
    values[r - row] = values_of<T>(task.matrix, r);
    for (int v = 0; v < Vectors; ++v) store(task.y + r * lanes + v * kLanes, splat(task.bias ? task.bias[r] : 0.0f));
  }
  const std::int64_t steps = task.matrix.view.steps();
  for (std::int64_t step = 0; step < steps; step += at_once)
    for (std::int64_t r = row; r < end; ++r)
      values[r - row] = wide_row<T, Vectors>(values[r - row], index_of(task.matrix.view, r) + 4 * step,
                                             at_most(at_once, steps - step), task.x + step * kStep * lanes, task.y + r * lanes);
}

static void multiply_wide(const WideTask& task, std::int64_t first_row, std::int64_t count) {
  for_dtype(task.matrix.view.dtype, [&]<class T>() {
    for (std::int64_t row = first_row; row < first_row + count; row += kRowGroup) {
      const std::int64_t end = at_most(row + kRowGroup, first_row + count);
      switch (task.lanes / 16) {
        case 1: wide_group<T, 16 / kLanes>(task, row, end); break;
        case 2: wide_group<T, 32 / kLanes>(task, row, end); break;
        case 3: wide_group<T, 48 / kLanes>(task, row, end); break;
        default: wide_group<T, 64 / kLanes>(task, row, end); break;
      }
    }
  });
}
