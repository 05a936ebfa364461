// Vectors of 16 floats. vexpandps spreads the kept values over the columns whose bits are set and zeros the others.

constexpr int kLanes = 16, kBatchAtOnce = 8, kGradientRows = 8;
constexpr int rows_at_once(int batch) { return batch <= 6 ? 4 : 3; }  // sums that fit 32 registers
constexpr int parts_at_once(int batch) { return batch <= 2 ? 8 : batch <= 4 ? 4 : 2; }
typedef __m512 Vec;

static inline Vec zeros() { return _mm512_setzero_ps(); }
static inline Vec splat(float value) { return _mm512_set1_ps(value); }
static inline Vec load(const float* from) { return _mm512_loadu_ps(from); }
// A value that several operations use is loaded once: GCC would read it from memory for each of them.
static inline void hold(Vec& value) { asm("" : "+v"(value)); }
static inline void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
static inline Vec fma(Vec a, Vec b, Vec sum) { return _mm512_fmadd_ps(a, b, sum); }
static inline float total(Vec v) { return _mm512_mask_reduce_add_ps(0xffff, v); }

// The weights of one row, 32 columns at a time. Counting the bits of the index costs nothing beside the expansion, and so any
// pattern runs at the same speed.
template <class T>
struct Weights;

template <>
struct Weights<float> {
  const float* values;
  std::uint32_t mask;

  inline void begin(std::uint32_t bits) { mask = bits; }
  inline Vec part(int number) {
    const __mmask16 bits = static_cast<__mmask16>(number ? mask >> 16 : mask);
    const Vec kept = _mm512_loadu_ps(values);
    values += __builtin_popcount(bits);
    return _mm512_maskz_expand_ps(bits, kept);
  }
};

#ifdef __AVX512VBMI2__
constexpr bool kEvenOdd = true;  // see ProductKernels

template <>
struct Weights<std::uint16_t> {
  const std::uint16_t* values;
  __m512i words;

  inline void begin(std::uint32_t mask) {
    const __m512i kept = _mm512_loadu_si512(values);
    values += __builtin_popcount(mask);
    words = _mm512_maskz_expand_epi16(mask, kept);
  }
  inline Vec part(int number) const {
    return _mm512_castsi512_ps(number ? _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000u)))
                                      : _mm512_maskz_slli_epi32(0xffff, words, 16));
  }
};
#else
constexpr bool kEvenOdd = false;

template <>
struct Weights<std::uint16_t> {
  const std::uint16_t* values;
  std::uint32_t mask;

  inline void begin(std::uint32_t bits) { mask = bits; }
  inline Vec part(int number) {
    const __mmask16 bits = static_cast<__mmask16>(number ? mask >> 16 : mask);
    const __m256i kept = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    const __m512i wide = _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, kept), 16);
    values += __builtin_popcount(bits);
    return _mm512_maskz_expand_ps(bits, _mm512_castsi512_ps(wide));
  }
};
#endif
