// Vectors of 4 floats. A table gives, for every 4 bits of the index, the bytes of the kept values; absent ones read as zero.

constexpr int kLanes = 4, kBatchAtOnce = 8, kGradientRows = 2;
constexpr int rows_at_once(int batch) { return batch <= 6 ? 4 : 3; }  // sums that fit 32 registers
constexpr int parts_at_once(int batch) { return batch <= 2 ? 8 : batch <= 4 ? 4 : 2; }
constexpr bool kEvenOdd = false;
typedef float32x4_t Vec;

static inline Vec zeros() { return vdupq_n_f32(0.0f); }
static inline Vec splat(float value) { return vdupq_n_f32(value); }
static inline Vec load(const float* from) { return vld1q_f32(from); }
// A value that several operations use is loaded once: GCC would read it from memory for each of them.
static inline void hold(Vec& value) { asm("" : "+w"(value)); }
static inline void store(float* to, Vec value) { vst1q_f32(to, value); }
static inline Vec fma(Vec a, Vec b, Vec sum) { return vfmaq_f32(sum, a, b); }
static inline float total(Vec v) { return vaddvq_f32(v); }

struct ByteTable {
  alignas(16) std::uint8_t byte[16][16];
  std::uint8_t count[16];

  constexpr ByteTable() : byte(), count() {
    for (int mask = 0; mask < 16; ++mask) {
      int next = 0;
      for (int column = 0; column < 4; ++column) {
        const bool kept = mask >> column & 1;
        for (int b = 0; b < 4; ++b) byte[mask][4 * column + b] = static_cast<std::uint8_t>(kept ? 4 * next + b : 255);
        next += kept;
      }
      count[mask] = static_cast<std::uint8_t>(next);
    }
  }
};
static constexpr ByteTable kBytes;

template <class T>
struct Weights {
  const T* values;
  std::uint32_t mask;

  inline void begin(std::uint32_t bits) { mask = bits; }
  inline Vec part(int number) {
    const std::uint32_t bits = mask >> (4 * number) & 15;
    uint8x16_t kept;
    if constexpr (sizeof(T) == 4) kept = vreinterpretq_u8_f32(vld1q_f32(values));
    else kept = vreinterpretq_u8_u32(vshll_n_u16(vld1_u16(values), 16));
    values += kBytes.count[bits];
    return vreinterpretq_f32_u8(vqtbl1q_u8(kept, vld1q_u8(kBytes.byte[bits])));
  }
};
