// Vectors of 4 floats in the compiler's own notation, for any machine; kept values are spread one by one.

constexpr int kLanes = 4, kBatchAtOnce = 4, kGradientRows = 1;
constexpr int rows_at_once(int) { return 1; }
constexpr int parts_at_once(int batch) { return batch == 1 ? 8 : 2; }
constexpr bool kEvenOdd = false;
typedef float Vec __attribute__((vector_size(16)));

static inline Vec zeros() { return Vec{}; }
static inline Vec splat(float value) { return Vec{} + value; }
static inline Vec load(const float* from) {
  Vec value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
static inline void hold(Vec&) {}
static inline void store(float* to, Vec value) { __builtin_memcpy(to, &value, sizeof value); }
static inline Vec fma(Vec a, Vec b, Vec sum) { return a * b + sum; }
static inline float total(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }

static inline float widened(float value) { return value; }
static inline float widened(std::uint16_t value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float wide;
  __builtin_memcpy(&wide, &bits, sizeof wide);
  return wide;
}

template <class T>
struct Weights {
  const T* values;
  float dense[kStep];

  inline void begin(std::uint32_t mask) {
    __builtin_memset(dense, 0, sizeof dense);
    for (; mask; mask &= mask - 1) dense[__builtin_ctz(mask)] = widened(*values++);
  }
  inline Vec part(int number) const { return load(dense + number * kLanes); }
};
