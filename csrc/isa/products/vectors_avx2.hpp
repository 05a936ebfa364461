// Vectors of 8 floats. A table gives, for every byte of the index, which kept value goes to which of the 8 columns.

constexpr int kLanes = 8, kBatchAtOnce = 8, kGradientRows = 2;
constexpr int rows_at_once(int batch) { return batch == 1 ? 4 : batch <= 4 ? 2 : 1; }  // sums that fit 16 registers
constexpr int parts_at_once(int batch) { return batch <= 2 ? 4 : batch <= 4 ? 2 : 1; }
constexpr bool kEvenOdd = false;
typedef __m256 Vec;

static inline Vec zeros() { return _mm256_setzero_ps(); }
static inline Vec splat(float value) { return _mm256_set1_ps(value); }
static inline Vec load(const float* from) { return _mm256_loadu_ps(from); }
// A value that several operations use is loaded once: GCC would read it from memory for each of them.
static inline void hold(Vec& value) { asm("" : "+x"(value)); }
static inline void store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
static inline Vec fma(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
static inline float total(Vec v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

struct Permutations {
  alignas(32) std::int8_t lane[256][8];  // -1: no value; the sign also selects the zero

  constexpr Permutations() : lane() {
    for (int mask = 0; mask < 256; ++mask)
      for (int column = 0, next = 0; column < 8; ++column)
        lane[mask][column] = static_cast<std::int8_t>(mask >> column & 1 ? next++ : -1);
  }
};
static constexpr Permutations kPermutations;

static inline Vec expand(__m256 kept, std::uint32_t bits) {
  const __m128i row = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPermutations.lane[bits]));
  const __m256i lanes = _mm256_cvtepi8_epi32(row);
  return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_srai_epi32(lanes, 31)), _mm256_permutevar8x32_ps(kept, lanes));
}

// The weights of one row, 32 columns at a time.
template <class T>
struct Weights {
  const T* values;
  std::uint32_t mask;

  inline void begin(std::uint32_t bits) { mask = bits; }
  inline Vec part(int number) {
    const std::uint32_t bits = mask >> (8 * number) & 0xff;
    __m256 kept;
    if constexpr (sizeof(T) == 4) {
      kept = _mm256_loadu_ps(values);
    } else {
      const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
      kept = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
    }
    values += __builtin_popcount(bits);
    return expand(kept, bits);
  }
};
